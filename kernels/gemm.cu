// Matrix products of linear layers, of 1x1 convolutions, and of convolutions through im2col, row-major, batched:
//   gemm_nn  C[m, n] = A[m, k] B[k, n]     forward
//   gemm_nt  C[m, n] = A[m, k] B[n, k]^T   gradient of the input
//   gemm_tn  C[m, n] = A[k, m]^T B[k, n]   gradient of the weights (C in f32)
// C gets bias and rectifier and is stored in the storage type, or, with several splits of k, is left as f32 partial sums
// [split][batch][m][n] for gemm_finish, which adds them in order and supports every activation.
//
// Grid: (tiles of m) * batch, tiles of n, splits; see product.cuh. Tolerance: 1e-6 f32, 2e-3 tf32, 1e-2 16-bit.
#include "product.cuh"

struct Gemm {
  const void* a;
  const void* b;
  const float* bias;  // [batch][n], or null
  void* c;
  float* partial;  // used if there is more than one split
  size_t a_batch, b_batch, c_batch;  // values between adjacent matrices of the batch
  int m, n, k;
  int lda, ldb, ldc;
  int activation, splits, k_per_split;
  int wide_a, wide_b;  // lines begin on 16 bytes and are multiples of 16 bytes long
  int c_f32, batches;
  Divisor by_tiles_m, by_n, by_matrix;  // by_matrix: of m n
};
PARAMETERS(Gemm, 152);

template <class Math, bool WIDE, bool A_INNER, bool B_INNER> __device__ __forceinline__ void gemm(const Gemm& p) {
  typedef typename Math::T T;
  int batch = blockIdx.x, m0 = split_off(batch, p.by_tiles_m) * Math::Shape::M, n0 = blockIdx.y * Math::Shape::N;
  int split = blockIdx.z, k0 = split * p.k_per_split, k1 = min(p.k, k0 + p.k_per_split);
  Matrix<T, A_INNER> a{(const T*)p.a + batch * p.a_batch, p.m, k1, p.lda, p.wide_a != 0};
  Matrix<T, B_INNER> b{(const T*)p.b + batch * p.b_batch, p.n, k1, p.ldb, p.wide_b != 0};
  auto target = [&] {
    if (p.splits > 1) {
      float* sums = p.partial + ((size_t)split * p.batches + batch) * p.m * p.n;
      return Target<T>{nullptr, sums, nullptr, p.m, p.n, NONE, p.n};
    }
    const float* bias = p.bias ? p.bias + batch * p.n : nullptr;
    size_t first = batch * p.c_batch;
    if (p.c_f32) return Target<T>{nullptr, (float*)p.c + first, bias, p.m, p.n, p.activation, p.ldc};
    return Target<T>{(T*)p.c + first, nullptr, bias, p.m, p.n, p.activation, p.ldc};
  };
  int line = p.splits > 1 ? p.n : p.ldc;
  product<Math, WIDE>(a, b, m0, n0, k0, k1, target, [&](int m) { return (size_t)m * line; });
}
template <class Math, bool WIDE> __device__ void gemm_nn(const Gemm& p) { gemm<Math, WIDE, true, false>(p); }
template <class Math, bool WIDE> __device__ void gemm_nt(const Gemm& p) { gemm<Math, WIDE, true, true>(p); }
template <class Math, bool WIDE> __device__ void gemm_tn(const Gemm& p) { gemm<Math, WIDE, false, false>(p); }
PRODUCT_KERNELS(gemm_nn, Gemm, 3)
PRODUCT_KERNELS(gemm_nt, Gemm, 4)
PRODUCT_KERNELS(gemm_tn, Gemm, 3)

// c = activation(sum over splits + bias); one thread per value of [batch][m][n].
template <class T> __device__ void gemm_finish(const Gemm& p) {
  size_t i = global_thread(), count = (size_t)p.m * p.n * p.batches;
  if (i >= count) return;
  float value = 0.0f;
  for (int s = 0; s < p.splits; s++) value += p.partial[s * count + i];
  int batch = (int)i, m = split_off(batch, p.by_matrix), n = split_off(m, p.by_n);
  if (p.bias) value += p.bias[batch * p.n + n];
  value = activate(value, p.activation);
  size_t at = batch * p.c_batch + (size_t)m * p.ldc + n;
  if (p.c_f32) ((float*)p.c)[at] = value;
  else ((T*)p.c)[at] = from_float<T>(value);
}
STORAGE_KERNELS(gemm_finish, Gemm)

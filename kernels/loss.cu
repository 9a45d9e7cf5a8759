// The losses: softmax cross-entropy, sigmoid cross-entropy, similarity. Forward: each block writes the sum of its terms in
// double, then one block adds those; every order is fixed, so a loss is bitwise reproducible. Backward reads the gradient of
// the loss, one f32, and writes the gradient of the loss's input.
//
// Layouts: x [pixels, c] (similarity: features [n, d]), classes u32 [pixels] or [n], values f32 as x.
// - softmax cross-entropy: a group of lanes owns a pixel, as in softmax.cu.
// - sigmoid cross-entropy: threads stride over the values; in backward, a thread owns a pack.
// - similarity: a thread owns a pack of features (or one) of a sample and iterates over the other samples of its identity.
//   Distances are summed pair by pair, not about a mean, so features that are close lose no precision.
// Blocks of 256 threads; 2 KB of shared memory for sums. `partial` and the input must not overlap.
// Tolerance: terms in f32 or better, sums in double, gradients rounded once.
#include "softmax.cuh"

struct LossParams {
  const void* x;
  const void* targets;  // classes (u32) or values (f32)
  const float* seed;    // backward: gradient of the loss
  double* partial;      // sums of the blocks; similarity: preceded by the number of pairs
  void* out;            // backward: gradient of x
  size_t count;         // pixels, values or samples
  unsigned c;           // channels or features
  unsigned width;       // lanes of a group
  unsigned lanes;
  float weight;
};
PARAMETERS(LossParams, 64);

struct LossSum {
  const double* partial;
  const double* pairs;  // null: divide by `count`
  float* loss;
  double count;
  unsigned blocks;
  float weight;
};
PARAMETERS(LossSum, 40);

// loss = weight * sum of partial / count; 0 without any pair. One block.
extern "C" __global__ void loss_sum_f32(const LossSum p) {
  __shared__ double scratch[256];
  double sum = 0.0;
  for (unsigned i = threadIdx.x; i < p.blocks; i += 256) sum += p.partial[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x != 0) return;
  const double count = p.pairs ? *p.pairs : p.count;
  *p.loss = p.weight * (float)(count == 0.0 ? 0.0 : sum / count);
}

// Writes the block's sum to partial[at].
__device__ __forceinline__ void put_sum(double term, double* partial, unsigned at) {
  __shared__ double scratch[256];
  const double sum = block_sum(term, scratch);
  if (threadIdx.x == 0) partial[at] = sum;
}

template <class T, int N> __device__ __forceinline__ void softmax_terms(const LossParams& p) {
  const Group group(p.count, p.width);
  const size_t at = group.pixel * p.c;
  const Softmax soft = softmax_of<T, N>(p.x, at, p.c, group);
  double term = 0.0;
  if (group.alive && group.lane == 0) {
    const unsigned target = ((const unsigned*)p.targets)[group.pixel];
    term = (double)soft.top - (double)to_float(((const T*)p.x)[at + target]) + log((double)soft.sum);
  }
  put_sum(term, p.partial, blockIdx.x);
}
template <class T> __device__ void softmax_cross_entropy_forward(const LossParams& p) {
  LANES(p.lanes, softmax_terms, p);
}
STORAGE_KERNELS(softmax_cross_entropy_forward, LossParams)

// dx = weight seed / count (softmax(x) - [class])
template <class T, int N> __device__ __forceinline__ void softmax_slopes(const LossParams& p) {
  const Group group(p.count, p.width);
  const size_t at = group.pixel * p.c;
  const Softmax soft = softmax_of<T, N>(p.x, at, p.c, group);
  if (!group.alive) return;
  const unsigned target = ((const unsigned*)p.targets)[group.pixel];
  const float scale = p.weight * *p.seed / (float)p.count;
  for (unsigned c = group.lane * N; c < p.c; c += group.width * N) {
    Lanes<N> d = load_lanes<T, N>(p.x, at + c);
#pragma unroll
    for (int k = 0; k < N; k++) d.v[k] = scale * (expf(d.v[k] - soft.top) / soft.sum - (c + k == target ? 1.0f : 0.0f));
    store_lanes<T, N>(p.out, at + c, d);
  }
}
template <class T> __device__ void softmax_cross_entropy_backward(const LossParams& p) {
  LANES(p.lanes, softmax_slopes, p);
}
STORAGE_KERNELS(softmax_cross_entropy_backward, LossParams)

// max(x, 0) - x t + log(1 + exp(-|x|)), which never overflows
template <class T> __device__ void sigmoid_cross_entropy_forward(const LossParams& p) {
  double sum = 0.0;
  for (size_t i = global_thread(); i < p.count; i += (size_t)gridDim.x * 256) {
    const float x = to_float(((const T*)p.x)[i]), t = ((const float*)p.targets)[i];
    sum += (x <= 0.0f ? 0.0 : (double)x) - (double)x * (double)t + (double)log1pf(expf(-fabsf(x)));
  }
  put_sum(sum, p.partial, blockIdx.x);
}
STORAGE_KERNELS(sigmoid_cross_entropy_forward, LossParams)

// dx = weight seed / count (sigmoid(x) - t)
template <class T> __device__ void sigmoid_cross_entropy_backward(const LossParams& p) {
  const float scale = p.weight * *p.seed / (float)p.count;
  each_pack<T>(p.count, [&](size_t i, int n) {
    Pack<T> d = load_some<T>(p.x, i, n);
#pragma unroll
    for (int k = 0; k < Pack<T>::N; k += 4) {
      const Pack<float> t = load_some<float>(p.targets, i + k, max(0, min(4, n - k)));
#pragma unroll
      for (int j = 0; j < 4; j++) d.v[k + j] = from_float<T>(scale * (sigmoid(to_float(d.v[k + j])) - t.v[j]));
    }
    store_some(p.out, i, n, d);
  });
}
STORAGE_KERNELS(sigmoid_cross_entropy_backward, LossParams)

// partial[0] = number of pairs of samples with the same identity. One block.
extern "C" __global__ void similarity_pairs_f32(const LossParams p) {
  const unsigned* classes = (const unsigned*)p.targets;
  double pairs = 0.0;
  for (unsigned i = threadIdx.x; i < p.count; i += 256)
    for (unsigned j = 0; j < i; j++) pairs += classes[j] == classes[i] ? 1.0 : 0.0;
  put_sum(pairs, p.partial, 0);
}

template <class T, int N> __device__ __forceinline__ void distances(const LossParams& p) {
  const unsigned* classes = (const unsigned*)p.targets;
  const unsigned item = (unsigned)global_thread(), items = p.c / N;
  const unsigned sample = item / items, feature = item % items * N;
  float sum = 0.0f;
  if (sample < p.count) {
    const unsigned identity = classes[sample];
    const Lanes<N> own = load_lanes<T, N>(p.x, (size_t)sample * p.c + feature);
    for (unsigned j = sample + 1; j < p.count; j++) {
      if (classes[j] != identity) continue;
      const Lanes<N> other = load_lanes<T, N>(p.x, (size_t)j * p.c + feature);
#pragma unroll
      for (int k = 0; k < N; k++) sum += (own.v[k] - other.v[k]) * (own.v[k] - other.v[k]);
    }
  }
  put_sum((double)sum, p.partial, 1 + blockIdx.x);
}
// Sums of squared distances over all pairs.
template <class T> __device__ void similarity_forward(const LossParams& p) { LANES(p.lanes, distances, p); }
STORAGE_KERNELS(similarity_forward, LossParams)

template <class T, int N> __device__ __forceinline__ void distance_slopes(const LossParams& p) {
  const unsigned* classes = (const unsigned*)p.targets;
  const unsigned item = (unsigned)global_thread(), items = p.c / N;
  const unsigned sample = item / items, feature = item % items * N;
  if (sample >= p.count) return;
  const unsigned identity = classes[sample];
  const double pairs = p.partial[0];
  const float scale = pairs == 0.0 ? 0.0f : (float)(2.0 * (double)p.weight * (double)*p.seed / pairs);
  const Lanes<N> own = load_lanes<T, N>(p.x, (size_t)sample * p.c + feature);
  Lanes<N> d = all_lanes<N>(0.0f);
  for (unsigned j = 0; j < p.count; j++) {
    if (classes[j] != identity) continue;
    const Lanes<N> other = load_lanes<T, N>(p.x, (size_t)j * p.c + feature);
#pragma unroll
    for (int k = 0; k < N; k++) d.v[k] += own.v[k] - other.v[k];
  }
#pragma unroll
  for (int k = 0; k < N; k++) d.v[k] *= scale;
  store_lanes<T, N>(p.out, (size_t)sample * p.c + feature, d);
}
// dx_i = 2 weight seed / pairs * (sum over the identity's samples j of x_i - x_j)
template <class T> __device__ void similarity_backward(const LossParams& p) { LANES(p.lanes, distance_slopes, p); }
STORAGE_KERNELS(similarity_backward, LossParams)

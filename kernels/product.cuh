// The tile engine behind every convolution and linear layer: C[m, n] = sum over k of A[m, k] B[k, n].
//
// A block of 128 threads owns a 128 x 64 tile of C. It iterates over k in steps of 64 bytes (16 f32 or 32 16-bit values);
// shared memory has slots for three steps, two of them in flight as cp.async copies of 16 bytes, so one __syncthreads per
// step is enough. An Operand defines the source of the values: a matrix, windows of a map gathered while they are loaded
// (implicit GEMM: no im2col matrix exists), the gradients that reach an input pixel. An operand contiguous along k is stored
// in shared memory as [row][k], one contiguous along its rows as [k][row]; both are read without bank conflicts, so nothing
// is ever transposed:
//   [row][k + pad]  rows are 80 bytes apart: 8 rows begin at 8 different multiples of 4 banks
//   [k][row + 8]    lines are 8 (or, of 16-bit values, 4) banks apart modulo 32
// A Math defines the arithmetic: f32 multiply-adds (8 x 8 per thread) or mma.sync with f32 sums (4 warps of 64 x 32).
//
// Shared memory: 46,080 bytes at most, dynamic. Order of the sums: k ascending within a split; splits are added in order by
// another kernel. No atomics: results are bitwise reproducible.
#pragma once
#include "weft.cuh"

constexpr int THREADS = 128, TILE_M = 128, TILE_N = 64, STAGES = 3;

// Division by a number known on the host: q = (umulhi(n, multiplier) + n) >> shift, for n < 2^31.
struct Divisor {
  unsigned divisor, multiplier, shift;
};
__device__ __forceinline__ int divide(int n, Divisor d) {
  return (int)((__umulhi((unsigned)n, d.multiplier) + (unsigned)n) >> d.shift);
}
// n becomes the quotient; returns the remainder.
__device__ __forceinline__ int split_off(int& n, Divisor d) {
  int q = divide(n, d), rest = n - q * (int)d.divisor;
  n = q;
  return rest;
}

// Shared-memory layout of one operand of a block, and how it is loaded. An Operand defines
//   K_INNER          whether adjacent values in memory are adjacent along k
//   wide             whether 16 bytes of them are always contiguous and entirely inside or outside
//   Row row(int)     what must be known of a row (of a column, for B), computed once
//   Step step(int)   what must be known of a k
//   at(Row, Step)    the value's address, null for a zero
template <class T, int ROWS, class Operand> struct Loader {
  static constexpr bool K_INNER = Operand::K_INNER;
  static constexpr int N = 16 / sizeof(T), STEP = 64 / sizeof(T), COUNT = ROWS * 4 / THREADS;
  static constexpr int LINE = K_INNER ? STEP + N : ROWS + 8;
  static constexpr int SIZE = K_INNER ? ROWS * LINE : STEP * LINE;
  static constexpr int ACROSS = K_INNER ? 4 : ROWS / N;  // packs per line

  const Operand& operand;
  const int first, inner, line;  // the first row; this thread's pack within a line, and its first line
  typename Operand::Row rows[K_INNER ? COUNT : 1];

  __device__ __forceinline__ Loader(const Operand& operand, int first)
      : operand(operand), first(first), inner((int)threadIdx.x % ACROSS * N), line((int)threadIdx.x / ACROSS) {
    if constexpr (K_INNER) {
#pragma unroll
      for (int i = 0; i < COUNT; i++) rows[i] = operand.row(first + line + i * (THREADS / ACROSS));
    } else {
      rows[0] = operand.row(first + inner);
    }
  }

  // Starts the copies of the step that begins at k.
  __device__ __forceinline__ void load(T* tile, int k) const {
    if (operand.wide) {
      load_wide(tile, k);
    } else {
      load_single(tile, k);
    }
  }

  __device__ __forceinline__ void load_wide(T* tile, int k) const {
    if constexpr (K_INNER) {
      auto step = operand.step(k + inner);
#pragma unroll
      for (int i = 0; i < COUNT; i++) copy(tile, line + i * (THREADS / ACROSS), operand.at(rows[i], step));
    } else {
#pragma unroll
      for (int i = 0; i < COUNT; i++) {
        int l = line + i * (THREADS / ACROSS);
        copy(tile, l, operand.at(rows[0], operand.step(k + l)));
      }
    }
  }
  __device__ __forceinline__ void copy(T* tile, int l, const T* from) const {
    cp_async16_zfill(tile + l * LINE + inner, from ? from : operand.anywhere(), from ? 16 : 0);
  }

  // Value by value: three-channel images, odd numbers of filters.
  __device__ void load_single(T* tile, int k) const {
    for (int e = 0; e < N; e++) {
      if constexpr (K_INNER) {
        auto step = operand.step(k + inner + e);
#pragma unroll
        for (int i = 0; i < COUNT; i++) set(tile, line + i * (THREADS / ACROSS), e, operand.at(rows[i], step));
      } else {
        auto row = operand.row(first + inner + e);
#pragma unroll
        for (int i = 0; i < COUNT; i++) {
          int l = line + i * (THREADS / ACROSS);
          set(tile, l, e, operand.at(row, operand.step(k + l)));
        }
      }
    }
  }
  __device__ __forceinline__ void set(T* tile, int l, int e, const T* from) const {
    tile[l * LINE + inner + e] = from ? *from : from_float<T>(0.0f);
  }
};

// A matrix whose lines are along k, or along its rows.
template <class T, bool INNER> struct Matrix {
  static constexpr bool K_INNER = INNER;
  const T* base;
  int rows, k, line;
  bool wide;
  struct Row { int index; };
  struct Step { int k; };
  __device__ __forceinline__ Row row(int index) const { return {index < rows ? index : -1}; }
  __device__ __forceinline__ Step step(int at) const { return {at < k ? at : -1}; }
  __device__ __forceinline__ const T* at(Row r, Step s) const {
    if (r.index < 0 || s.k < 0) return nullptr;
    return base + (INNER ? (size_t)r.index * line + s.k : (size_t)s.k * line + r.index);
  }
  __device__ __forceinline__ const T* anywhere() const { return base; }
};

// ---- f32 multiply-adds: a thread owns 8 x 8 values of C. Four k at a time, 16-byte reads, for either layout of the tile.
struct MathF32 {
  typedef float T;
  float sum[8][8] = {};

  template <bool K_INNER> __device__ static __forceinline__ int row(int i) {
    int y = (int)threadIdx.x / 8;
    return K_INNER ? y + 16 * i : y * 4 + i % 4 + 64 * (i / 4);
  }
  template <bool K_INNER> __device__ static __forceinline__ int column(int j) {
    int x = (int)threadIdx.x % 8;
    return K_INNER ? x + 8 * j : x * 4 + j % 4 + 32 * (j / 4);
  }

  template <class A, class B> __device__ __forceinline__ void multiply(const float* a, const float* b) {
    constexpr int LA = A::LINE, LB = B::LINE;
#pragma unroll
    for (int k = 0; k < A::STEP; k += 4) {
      float va[8][4], vb[8][4];
#pragma unroll
      for (int i = 0; i < 8; i++) {
        if (A::K_INNER) get(va[i], a + row<true>(i) * LA + k);
        if (B::K_INNER) get(vb[i], b + column<true>(i) * LB + k);
      }
#pragma unroll
      for (int s = 0; s < 4; s++) {
        float pa[8], pb[8];
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
          if (!A::K_INNER) get(pa + i, a + (k + s) * LA + row<false>(i));
          if (!B::K_INNER) get(pb + i, b + (k + s) * LB + column<false>(i));
        }
#pragma unroll
        for (int i = 0; i < 8; i++) {
          if (A::K_INNER) pa[i] = va[i][s];
          if (B::K_INNER) pb[i] = vb[i][s];
        }
#pragma unroll
        for (int i = 0; i < 8; i++)
#pragma unroll
          for (int j = 0; j < 8; j++) sum[i][j] = fmaf(pa[i], pb[j], sum[i][j]);
      }
    }
  }
  __device__ static __forceinline__ void get(float* to, const float* from) {
    float4 v = *reinterpret_cast<const float4*>(from);
    to[0] = v.x, to[1] = v.y, to[2] = v.z, to[3] = v.w;
  }

  // Calls f(row, column, value) for this thread's values of the tile.
  template <class A, class B, class F> __device__ __forceinline__ void each(F f) const {
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
      for (int j = 0; j < 8; j++) f(row<A::K_INNER>(i), column<B::K_INNER>(j), sum[i][j]);
  }
};

// ---- tensor cores: 2 x 2 warps of 64 x 32, each 4 x 4 tiles of 16 x 8.
struct Warp {
  static __device__ __forceinline__ int lane() { return (int)threadIdx.x % 32; }
  static __device__ __forceinline__ int m() { return (int)threadIdx.x / 64 * 64; }
  static __device__ __forceinline__ int n() { return (int)threadIdx.x / 32 % 2 * 32; }

  template <class F> static __device__ __forceinline__ void each(const float (&sum)[4][4][4], F f) {
    int g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int h = 0; h < 4; h++) f(m() + 16 * i + g + h / 2 * 8, n() + 8 * j + 2 * t + h % 2, sum[i][j][h]);
  }
};

// f32 in memory, rounded to tf32 as the fragments are read.
struct MathTf32 {
  typedef float T;
  float sum[4][4][4] = {};

  template <class A, class B> __device__ __forceinline__ void multiply(const float* a, const float* b) {
    int g = Warp::lane() / 4, t = Warp::lane() % 4;
#pragma unroll
    for (int k = 0; k < A::STEP; k += 8) {
      uint32_t fa[4][4], fb[4][2];
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int h = 0; h < 4; h++)
          fa[i][h] = get<A>(a, Warp::m() + 16 * i + g + h % 2 * 8, k + t + h / 2 * 4);
#pragma unroll
      for (int j = 0; j < 4; j++)
#pragma unroll
        for (int h = 0; h < 2; h++) fb[j][h] = get<B>(b, Warp::n() + 8 * j + g, k + t + h * 4);
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) mma_m16n8k8_tf32(sum[i][j], fa[i], fb[j]);
    }
  }
  template <class L> __device__ static __forceinline__ uint32_t get(const float* tile, int row, int k) {
    return f32_to_tf32(L::K_INNER ? tile[row * L::LINE + k] : tile[k * L::LINE + row]);
  }
  template <class A, class B, class F> __device__ __forceinline__ void each(F f) const { Warp::each(sum, f); }
};

// 16-bit values, fragments by ldmatrix.
template <class Value> struct Math16 {
  typedef Value T;
  float sum[4][4][4] = {};

  template <class A, class B> __device__ __forceinline__ void multiply(const T* a, const T* b) {
    int lane = Warp::lane(), l8 = lane % 8, l16 = lane % 16, upper = lane / 16 * 8, odd = lane / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < A::STEP; k += 16) {
      uint32_t fa[4][4], fb[2][4];  // for B two tiles at a time
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int m = Warp::m() + 16 * i;
        if (A::K_INNER) ldmatrix_x4(fa[i], a + (m + l16) * A::LINE + k + upper);
        else ldmatrix_x4_trans(fa[i], a + (k + upper + l8) * A::LINE + m + odd);
      }
#pragma unroll
      for (int j = 0; j < 2; j++) {
        int n = Warp::n() + 16 * j;
        if (B::K_INNER) ldmatrix_x4(fb[j], b + (n + upper + l8) * B::LINE + k + odd);
        else ldmatrix_x4_trans(fb[j], b + (k + l16) * B::LINE + n + upper);
      }
#pragma unroll
      for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
          uint32_t pair[2] = {fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]};
          mma(sum[i][j], fa[i], pair, T{});
        }
    }
  }
  __device__ static __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], half) {
    mma_m16n8k16_f16(d, a, b);
  }
  __device__ static __forceinline__ void mma(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2],
                                             nv_bfloat16) {
    mma_m16n8k16_bf16(d, a, b);
  }
  template <class A, class B, class F> __device__ __forceinline__ void each(F f) const { Warp::each(sum, f); }
};

// The tile of C that begins at (m0, n0), summed over k in [k0, k1): calls store(m, n, value) for each value of this thread.
template <class Math, class OperandA, class OperandB, class Store>
__device__ __forceinline__ void product(const OperandA& a, const OperandB& b, int m0, int n0, int k0, int k1,
                                        Store store) {
  typedef typename Math::T T;
  typedef Loader<T, TILE_M, OperandA> A;
  typedef Loader<T, TILE_N, OperandB> B;
  DYN_SHARED(unsigned char, memory);
  T* tiles = reinterpret_cast<T*>(memory);
  constexpr int STAGE = A::SIZE + B::SIZE;
  static_assert(STAGE * sizeof(T) * STAGES <= 48 * 1024, "fits without asking for more");

  const A from_a(a, m0);
  const B from_b(b, n0);
  auto load = [&](int stage, int k) {
    if (k < k1) {
      from_a.load(tiles + stage * STAGE, k);
      from_b.load(tiles + stage * STAGE + A::SIZE, k);
    }
    cp_async_commit();
  };
#pragma unroll
  for (int s = 0; s < STAGES - 1; s++) load(s, k0 + s * A::STEP);

  Math math;
  int stage = 0, next = STAGES - 1;
  for (int k = k0; k < k1; k += A::STEP) {
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // this step has arrived, and all threads are done with the slot that is filled next
    load(next, k + (STAGES - 1) * A::STEP);
    next = next == STAGES - 1 ? 0 : next + 1;
    math.template multiply<A, B>(tiles + stage * STAGE, tiles + stage * STAGE + A::SIZE);
    stage = stage == STAGES - 1 ? 0 : stage + 1;
  }
  cp_async_wait_all();
  math.template each<A, B>([&](int m, int n, float value) { store(m0 + m, n0 + n, value); });
}

// One entry point per precision around the template name<Math>. At least two blocks per multiprocessor: up to 255 registers.
#define PRODUCT_KERNELS(name, Params)                                                                              \
  extern "C" __global__ void __launch_bounds__(THREADS, 2) name##_f32(const Params p) { name<MathF32>(p); }        \
  extern "C" __global__ void __launch_bounds__(THREADS) name##_tf32(const Params p) { name<MathTf32>(p); }         \
  extern "C" __global__ void __launch_bounds__(THREADS) name##_f16(const Params p) { name<Math16<half>>(p); }      \
  extern "C" __global__ void __launch_bounds__(THREADS) name##_bf16(const Params p) { name<Math16<nv_bfloat16>>(p); }

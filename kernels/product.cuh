// The tile engine behind every convolution and linear layer: C[m, n] = sum over k of A[m, k] B[k, n].
//
// A block of 128 threads owns a tile of C, of 128 x 64 values or another Shape. It iterates over k in steps of 64 bytes (16 f32
// or 32 16-bit values); shared memory has slots for a few steps, all but one of them in flight as cp.async copies of 16 bytes,
// so one __syncthreads per step is enough. An Operand defines the source of the values: a matrix, windows of a map gathered while they are loaded
// (implicit GEMM: no im2col matrix exists), the gradients that reach an input pixel. An operand contiguous along k is stored
// in shared memory as [row][k], one contiguous along its rows as [k][row]; both are written and read without bank conflicts,
// so nothing is ever transposed:
//   [row][k]        a line is 64 bytes; its four units of 16 bytes are permuted by (row / 2) % 4, so that eight lines of an
//                   ldmatrix, which read the same unit, find it in eight different places modulo 128 bytes
//   [k][row + 8]    lines are 8 (or, of 16-bit values, 4) banks apart modulo 32; of 32 16-bit values permuted as above
// A Math defines the shape and the arithmetic: f32 multiply-adds (8 x 8 per thread) or mma.sync with f32 sums (a warp has 64
// lines of 32 or 64 columns).
// The sums leave through shared memory, where the operands were, so that each thread writes 16 bytes of a line and computes
// the place of eight lines, not of 64 values: by value it had been 4,000 instructions (kernels/lab, 5).
//
// Shared memory: that of all slots, or of the sums where they need more; 50 KB at most, dynamic. Order of the sums: k ascending within a split; splits are added in order by
// another kernel. No atomics: results are bitwise reproducible.
#pragma once
#include "weft.cuh"

constexpr int THREADS = 128;

// A tile of C, columns of a warp (of 64 lines each; four of them), and slots of shared memory. Mirrored in src/ops/conv/cuda.rs.
template <int TILE_M, int TILE_N, int COLUMNS, int SLOTS> struct Shape {
  static constexpr int M = TILE_M, N = TILE_N, WN = COLUMNS, STAGES = SLOTS;
};
typedef Shape<128, 64, 32, 3> Middle;
typedef Shape<128, 128, 64, 3> Large;   // a third fewer bytes from shared memory and from L2 per product, twice the registers
typedef Shape<256, 32, 32, 2> Narrow;  // for 32 filters or fewer

// Shared-memory layout of one operand of a block, and how it is loaded. An Operand defines
//   K_INNER          whether adjacent values in memory are adjacent along k
//   wide             whether 16 bytes of them are always contiguous and entirely inside or outside
//   Row row(int)     what must be known of a row (of a column, for B), computed once
//   Step step(int)   what must be known of a k
//   at(Row, Step, from)  the value's address, and whether there is one: otherwise the value is zero, and `from` is not read,
//                        but a multiple of 16 bytes where the operand is wide
// WIDE kernels are for operands that are all wide; others ask each operand.
template <class T, int ROWS, class Operand, bool WIDE> struct Loader {
  static constexpr bool K_INNER = Operand::K_INNER;
  static constexpr int N = 16 / sizeof(T), STEP = 64 / sizeof(T), COUNT = ROWS * 4 / THREADS;
  static constexpr int ALONG = K_INNER ? STEP : ROWS;  // values of a line
  static constexpr bool PERMUTED = ALONG * sizeof(T) == 64;
  static constexpr int LINE = PERMUTED ? ALONG : ALONG + 8;
  static constexpr int SIZE = (K_INNER ? ROWS : STEP) * LINE;
  static constexpr int ACROSS = K_INNER ? 4 : ROWS / N;  // packs per line
  static constexpr int APART = THREADS / ACROSS;         // lines between two packs of a thread

  // The place of a value in the tile. `like` is its line, or one that differs from it by a multiple of eight: what is known to be
  // the same for many lines is computed once.
  __device__ static __forceinline__ int place(int row, int k, int like) {
    int line = K_INNER ? row : k, at = K_INNER ? k : row;
    return line * LINE + (PERMUTED ? ((at / N) ^ (like / 2 % 4)) * N + at % N : at);
  }

  const Operand& operand;
  const int first, inner, line;  // the first row; this thread's pack within a line, and its first line
  typename Operand::Row rows[K_INNER ? COUNT : 1];

  __device__ __forceinline__ Loader(const Operand& operand, int first)
      : operand(operand), first(first), inner((int)threadIdx.x % ACROSS * N), line((int)threadIdx.x / ACROSS) {
    if constexpr (K_INNER) {
#pragma unroll
      for (int i = 0; i < COUNT; i++) rows[i] = operand.row(first + line + i * APART);
    } else {
      rows[0] = operand.row(first + inner);
    }
  }

  // Starts the copies of the step that begins at k.
  __device__ __forceinline__ void load(T* tile, int k) const {
    if (WIDE || operand.wide) {
      load_wide(tile, k);
    } else {
      load_single(tile, k);
    }
  }

  // Where this thread's first pack goes; lines that are APART have their units in the same order.
  __device__ __forceinline__ T* start(T* tile) const {
    static_assert(!PERMUTED || APART % 8 == 0, "the order repeats every eight lines");
    return tile + (K_INNER ? place(line, inner, line) : place(inner, line, line));
  }
  __device__ __forceinline__ void load_wide(T* tile, int k) const {
    T* to = start(tile);
    if constexpr (K_INNER) {
      auto step = operand.step(k + inner);
#pragma unroll
      for (int i = 0; i < COUNT; i++) copy(to + i * APART * LINE, rows[i], step);
    } else {
#pragma unroll
      for (int i = 0; i < COUNT; i++) copy(to + i * APART * LINE, rows[0], operand.step(k + line + i * APART));
    }
  }
  __device__ __forceinline__ void copy(T* to, const typename Operand::Row& row, const typename Operand::Step& step) const {
    const T* from;
    bool inside = operand.at(row, step, from);
    cp_async16_zfill(to, from, inside ? 16 : 0);
  }

  // Value by value: odd numbers of channels and filters. Stored as packs, so that the tile is written without conflicts.
  __device__ void load_single(T* tile, int k) const {
    T* to = start(tile);
    Pack<T> packs[COUNT];
#pragma unroll
    for (int e = 0; e < N; e++) {
      if constexpr (K_INNER) {
        auto step = operand.step(k + inner + e);
#pragma unroll
        for (int i = 0; i < COUNT; i++) packs[i].v[e] = value(rows[i], step);
      } else {
        auto row = operand.row(first + inner + e);
#pragma unroll
        for (int i = 0; i < COUNT; i++) packs[i].v[e] = value(row, operand.step(k + line + i * APART));
      }
    }
#pragma unroll
    for (int i = 0; i < COUNT; i++) store_pack(to + i * APART * LINE, packs[i]);
  }
  __device__ __forceinline__ T value(const typename Operand::Row& row, const typename Operand::Step& step) const {
    const T* from;
    return operand.at(row, step, from) ? *from : from_float<T>(0.0f);
  }
};

// A matrix whose lines are along k, or along its rows.
template <class T, bool INNER> struct Matrix {
  static constexpr bool K_INNER = INNER;
  const T* base;
  int rows, k, line;
  bool wide;
  struct Row { const T* first; bool inside; };
  struct Step { int k; };
  __device__ __forceinline__ Row row(int index) const { return {base + (INNER ? (size_t)index * line : index), index < rows}; }
  __device__ __forceinline__ Step step(int at) const { return {at}; }
  __device__ __forceinline__ bool at(const Row& row, Step step, const T*& from) const {
    from = row.first + (INNER ? step.k : (ptrdiff_t)step.k * line);
    return row.inside && step.k < k;
  }
};

// The sums of a block in shared memory, from which they leave in runs of 16 bytes; 64 columns at a time. Lines are 8 banks
// apart, so that the rows of a fragment begin in four different places; of 16-bit values a thread takes eight columns, the first
// four from one half of the line, the others from the other half, so that the 16-byte reads of eight threads touch all banks
// once.
template <class T, class Shape> struct SumTile {
  static constexpr int COLUMNS = Shape::N < 64 ? Shape::N : 64, LINE = COLUMNS + 8, SIZE = Shape::M * LINE;
  static constexpr bool HALVES = sizeof(T) == 2;
  static __device__ __forceinline__ int column(int n) { return HALVES ? n / 8 * 4 + n / 4 % 2 * (LINE / 2) + n % 4 : n; }
};

constexpr size_t NO_LINE = (size_t)-1;

// Where a tile of C goes: as values of T, or, if `sums` is given, in f32.
template <class T> struct Target {
  T* out;
  float* sums;
  const float* bias;  // of column 0, or null
  int rows, columns;  // of C
  int activation;
  int stride;         // every line begins at a multiple of it
};

// ---- f32 multiply-adds: a thread owns 8 x 8 values of C. Four k at a time, 16-byte reads, for either layout of the tile.
struct MathF32 {
  typedef float T;
  typedef Middle Shape;
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
#pragma unroll
    for (int k = 0; k < A::STEP; k += 4) {
      float va[8][4], vb[8][4];
#pragma unroll
      for (int i = 0; i < 8; i++) {
        if (A::K_INNER) get(va[i], a + A::place(row<true>(i), k, row<true>(0)));
        if (B::K_INNER) get(vb[i], b + B::place(column<true>(i), k, column<true>(0)));
      }
#pragma unroll
      for (int s = 0; s < 4; s++) {
        float pa[8], pb[8];
#pragma unroll
        for (int i = 0; i < 8; i += 4) {
          if (!A::K_INNER) get(pa + i, a + A::place(row<false>(i), k + s, 0));
          if (!B::K_INNER) get(pb + i, b + B::place(column<false>(i), k + s, 0));
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

  // Stores the sums of columns [n0, n0 + 64) of the tile.
  template <class A, class B> __device__ __forceinline__ void store(float* tile, int) const {
#pragma unroll
    for (int i = 0; i < 8; i++)
#pragma unroll
      for (int j = 0; j < 8; j += 4) {
        float* to = tile + row<A::K_INNER>(i) * SumTile<T, Shape>::LINE;
        if constexpr (B::K_INNER) {
#pragma unroll
          for (int h = 0; h < 4; h++) to[column<true>(j + h)] = sum[i][j + h];
        } else {
          *reinterpret_cast<float4*>(to + column<false>(j)) =
              make_float4(sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]);
        }
      }
  }
};

// ---- tensor cores: warps of 64 lines and WN columns, in tiles of 16 x 8.
template <class Shape> struct Warps {
  static constexpr int ACROSS = Shape::N / Shape::WN, TILES = Shape::WN / 8;
  static_assert(Shape::M / 64 * ACROSS == THREADS / 32, "four warps");
  static __device__ __forceinline__ int lane() { return (int)threadIdx.x % 32; }
  static __device__ __forceinline__ int m() { return (int)threadIdx.x / 32 / ACROSS * 64; }
  static __device__ __forceinline__ int n() { return (int)threadIdx.x / 32 % ACROSS * Shape::WN; }

  template <class T> static __device__ __forceinline__ void store(const float (&sum)[4][TILES][4], float* tile, int n0) {
    typedef SumTile<T, Shape> Sums;
    if (n() / Sums::COLUMNS * Sums::COLUMNS != n0) return;
    int g = lane() / 4, t = lane() % 4;
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
      for (int j = 0; j < TILES; j++)
#pragma unroll
        for (int h = 0; h < 4; h += 2) {
          float* to = tile + (m() + 16 * i + g + h / 2 * 8) * Sums::LINE + Sums::column(n() - n0 + 8 * j + 2 * t);
          *reinterpret_cast<float2*>(to) = make_float2(sum[i][j][h], sum[i][j][h + 1]);
        }
  }
};

// f32 in memory, rounded to tf32 as the fragments are read.
struct MathTf32 {
  typedef float T;
  typedef Middle Shape;
  typedef Warps<Shape> Warp;
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
    return f32_to_tf32(tile[L::K_INNER ? L::place(row, k / 4 * 4, Warp::lane() / 4) + k % 4 : L::place(row, k, 0)]);
  }
  template <class A, class B> __device__ __forceinline__ void store(float* tile, int n0) const {
    Warp::template store<T>(sum, tile, n0);
  }
};

// 16-bit values, fragments by ldmatrix.
template <class Value, class Tile = Middle> struct Math16 {
  typedef Value T;
  typedef Tile Shape;
  typedef Warps<Shape> Warp;
  float sum[4][Warp::TILES][4] = {};

  template <class A, class B> __device__ __forceinline__ void multiply(const T* a, const T* b) {
    int lane = Warp::lane(), l8 = lane % 8, l16 = lane % 16, upper = lane / 16 * 8, odd = lane / 8 % 2 * 8;
#pragma unroll
    for (int k = 0; k < A::STEP; k += 16) {
      uint32_t fb[Warp::TILES / 2][4];  // two tiles at a time
#pragma unroll
      for (int j = 0; j < Warp::TILES / 2; j++) {
        int n = Warp::n() + 16 * j;
        if (B::K_INNER) ldmatrix_x4(fb[j], b + B::place(n + upper + l8, k + odd, l8));
        else ldmatrix_x4_trans(fb[j], b + B::place(n + upper, k + l16, l16));
      }
#pragma unroll
      for (int i = 0; i < 4; i++) {
        int m = Warp::m() + 16 * i;
        uint32_t fa[4];
        if (A::K_INNER) ldmatrix_x4(fa, a + A::place(m + l16, k + upper, l16));
        else ldmatrix_x4_trans(fa, a + A::place(m + odd, k + upper + l8, l8));
#pragma unroll
        for (int j = 0; j < Warp::TILES; j++) {
          uint32_t pair[2] = {fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]};
          mma_16(sum[i][j], fa, pair, T{});
        }
      }
    }
  }
  template <class A, class B> __device__ __forceinline__ void store(float* tile, int n0) const {
    Warp::template store<T>(sum, tile, n0);
  }
};

// Writes the sums of a block to their lines of C; at(m) is the index of the first value of line m. A few threads write 64 columns
// of a line; each line's place is computed once (NO_LINE: it is not written), and the bias of a thread's eight columns is loaded
// once.
template <class Loaders, class Math, class T, class Line>
__device__ __forceinline__ void finish(const Math& math, float* tile, int m0, int n0, const Target<T>& to, Line at) {
  typedef typename Math::Shape Shape;
  typedef SumTile<T, Shape> Sums;
  constexpr int ACROSS = Sums::COLUMNS / 8;  // threads of a line
  float* sums = to.sums;
  if constexpr (!Sums::HALVES) sums = sums ? sums : to.out;
  bool in_f32 = !Sums::HALVES || sums;
  int run = in_f32 ? 4 : 8;
  bool wide = (to.columns | to.stride) % run == 0;
  float least = to.activation == RELU ? 0.0f : -INFINITY;
  int l = (int)threadIdx.x % ACROSS;
  // Columns of this thread: l4 .. + 3 and r4 .. + 3. In f32 the threads of a line write its first half, then the second.
  int l4 = in_f32 ? 4 * l : 8 * l, r4 = in_f32 ? 4 * l + Sums::COLUMNS / 2 : 8 * l + 4;
  const float* left = tile + Sums::column(l4);
  const float* right = tile + Sums::column(r4);
  l4 += n0, r4 += n0;
#pragma unroll 1
  for (int c = 0; c < Shape::N; c += Sums::COLUMNS, l4 += Sums::COLUMNS, r4 += Sums::COLUMNS) {
    __syncthreads();  // all threads are done with the operands, whose place this takes, or with the columns before
    math.template store<typename Loaders::A, typename Loaders::B>(tile, c);
    __syncthreads();
    float bias[8];
#pragma unroll
    for (int e = 0; e < 8; e++) {
      int n = e < 4 ? l4 + e : r4 + e - 4;
      bias[e] = to.bias && n < to.columns ? to.bias[n] : 0.0f;
    }
#pragma unroll 2
    for (int r = (int)threadIdx.x / ACROSS; r < Shape::M; r += THREADS / ACROSS) {
      if (m0 + r >= to.rows) break;
      size_t first = at(m0 + r);
      if (first == NO_LINE) continue;
      float4 a = *reinterpret_cast<const float4*>(left + r * Sums::LINE);
      float4 b = *reinterpret_cast<const float4*>(right + r * Sums::LINE);
      float v[8] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w};
#pragma unroll
      for (int e = 0; e < 8; e++) v[e] = max_nan(v[e] + bias[e], least);
      if (in_f32) {
        if (wide) {
          if (l4 < to.columns) *reinterpret_cast<float4*>(sums + first + l4) = make_float4(v[0], v[1], v[2], v[3]);
          if (r4 < to.columns) *reinterpret_cast<float4*>(sums + first + r4) = make_float4(v[4], v[5], v[6], v[7]);
        } else {
#pragma unroll
          for (int e = 0; e < 8; e++) {
            int n = e < 4 ? l4 + e : r4 + e - 4;
            if (n < to.columns) sums[first + n] = v[e];
          }
        }
      } else {
        Pack<T> pack;
#pragma unroll
        for (int e = 0; e < Pack<T>::N; e++) pack.v[e] = from_float<T>(v[e]);
        if (wide) {
          if (l4 < to.columns) store_pack(to.out + first + l4, pack);
        } else {
#pragma unroll
          for (int e = 0; e < Pack<T>::N; e++)
            if (l4 + e < to.columns) to.out[first + l4 + e] = pack.v[e];
        }
      }
    }
  }
}

// The tile of C that begins at (m0, n0), summed over k in [k0, k1). `target` tells where it goes, and is asked after the main
// loop: what it computes takes no registers there.
template <class Math, bool WIDE, class OperandA, class OperandB, class To, class Line>
__device__ __forceinline__ void product(const OperandA& a, const OperandB& b, int m0, int n0, int k0, int k1,
                                        To target, Line at) {
  typedef typename Math::T T;
  typedef typename Math::Shape Shape;
  struct Loaders {
    typedef Loader<T, Shape::M, OperandA, WIDE> A;
    typedef Loader<T, Shape::N, OperandB, WIDE> B;
  };
  constexpr int STAGES = Shape::STAGES;
  typedef typename Loaders::A A;
  typedef typename Loaders::B B;
  DYN_SHARED(unsigned char, memory);
  T* tiles = reinterpret_cast<T*>(memory);
  constexpr int STAGE = A::SIZE + B::SIZE;
  static_assert(STAGE * sizeof(T) * STAGES <= 64 * 1024 && SumTile<T, Shape>::SIZE * sizeof(float) <= 64 * 1024,
                "fits on every card");

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
  finish<Loaders>(math, reinterpret_cast<float*>(memory), m0, n0, target(), at);
}

// Entry points around the template name<Math, WIDE>: name_f16 for operands that are both wide, name_any_f16 for all; in 16 bits
// name_128x128_f16 and name_256x32_f16 for wide ones in other shapes. `blocks` is how many of the first fit a multiprocessor in
// 16 bits: four are 128 registers a thread, three 168.
#define PRODUCT_KERNEL(name, Params, label, blocks, wide, ...)                                              \
  extern "C" __global__ void __launch_bounds__(THREADS, blocks) name##_##label(const Params p) {            \
    name<__VA_ARGS__, wide>(p);                                                                             \
  }
#define PRODUCT_KERNELS_16(name, Params, suffix, blocks, Value)                            \
  PRODUCT_KERNEL(name, Params, suffix, blocks, true, Math16<Value>)                        \
  PRODUCT_KERNEL(name, Params, any_##suffix, 2, false, Math16<Value>)                      \
  PRODUCT_KERNEL(name, Params, 128x128_##suffix, 2, true, Math16<Value, Large>)            \
  PRODUCT_KERNEL(name, Params, 256x32_##suffix, 3, true, Math16<Value, Narrow>)
#define PRODUCT_KERNELS(name, Params, blocks)                       \
  PRODUCT_KERNEL(name, Params, f32, 2, true, MathF32)               \
  PRODUCT_KERNEL(name, Params, any_f32, 2, false, MathF32)          \
  PRODUCT_KERNEL(name, Params, tf32, 3, true, MathTf32)             \
  PRODUCT_KERNEL(name, Params, any_tf32, 2, false, MathTf32)        \
  PRODUCT_KERNELS_16(name, Params, f16, blocks, half)               \
  PRODUCT_KERNELS_16(name, Params, bf16, blocks, nv_bfloat16)

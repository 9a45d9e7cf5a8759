// Experiment 5 (README.md): the product as it was, with an epilogue by value and both loaders in the main loop. Kept so that the
// comparison can be repeated: it compiles to 6,642 instructions for sm_90a, kernels/conv.cu's conv_forward_f16 to 1,179.
#include "../geometry.cuh"

constexpr int THREADS = 128, TILE_M = 128, TILE_N = 64, STAGES = 3;

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

struct Conv : Geometry {
  const void* x;
  const void* y;   // conv_backward_data, conv_backward_weights: the gradient of the output
  const void* w;
  const float* bias;  // [bank][o], or null
  void* out;          // Y, dX (one region) or dW (f32)
  float* partial;     // f32 partial sums for conv_finish, conv_gather, sum_parts
  int extent_h, extent_w;  // conv_backward_data: pixels covered by the windows of one region: the map, or a cell with its halo
  int activation, splits, k_per_split, tiles_m;
  int wide_x, wide_y, wide_w;  // runs of channels, of filters: whole 16-byte units
  Divisor by_block_w, by_block_h, by_channels, by_filters, by_kernel_w;
};
// Bank, group and residue of a block.
struct Place {
  int bank, group, phase_y, phase_x;
  __device__ __forceinline__ Place(const Conv& p, int number, bool phases) {
    phase_y = phase_x = 0;
    if (phases) {
      phase_x = number % p.stride_w, number /= p.stride_w;
      phase_y = number % p.stride_h, number /= p.stride_h;
    }
    group = number % p.groups;
    bank = number / p.groups;
  }
};

constexpr int NOWHERE = 1 << 29;  // added to any coordinate it is outside of every map, and cannot overflow

// Pixels of a region in the order (sample, u, v).
struct Pixel {
  int sample, u, v;
  __device__ __forceinline__ Pixel(const Conv& p, int index) {
    v = split_off(index, p.by_block_w);
    u = split_off(index, p.by_block_h);
    sample = index;
  }
};

// X[pixel, tap]: `pixels` along the rows of the product and taps along k, or vice versa.
template <class T> struct Window {
  const Conv& p;
  const T* base;  // first of the group's channels
  int top, left, pixels, taps, channels;
  struct OfPixel { const T* sample; int y, x; };
  struct OfTap { int i, j, c; };

  __device__ __forceinline__ Window(const Conv& p, const Place& place)
      : p(p), base((const T*)p.x + place.group * (p.in_c / p.groups)),
        top(place.bank / p.grid_w * p.cell_h - p.pad_h), left(place.bank % p.grid_w * p.cell_w - p.pad_w),
        pixels(p.n * p.block_h * p.block_w), taps(p.kernel_h * p.kernel_w * (p.in_c / p.groups)),
        channels(p.in_c / p.groups) {}
  __device__ __forceinline__ OfPixel pixel(int index) const {
    if (index >= pixels) return {base, -NOWHERE * 2, 0};
    Pixel at(p, index);
    return {base + (size_t)at.sample * p.in_h * p.in_w * p.in_c, top + at.u * p.stride_h, left + at.v * p.stride_w};
  }
  __device__ __forceinline__ OfTap tap(int index) const {
    if (index >= taps) return {NOWHERE, 0, 0};
    int c = split_off(index, p.by_channels), j = split_off(index, p.by_kernel_w);
    return {index, j, c};
  }
  __device__ __forceinline__ const T* at(const OfPixel& pixel, const OfTap& tap) const {
    int y = pixel.y + tap.i, x = pixel.x + tap.j;
    if ((unsigned)y >= (unsigned)p.in_h || (unsigned)x >= (unsigned)p.in_w) return nullptr;
    return pixel.sample + ((y * p.in_w + x) * p.in_c + tap.c);
  }
  __device__ __forceinline__ const T* anywhere() const { return (const T*)p.x; }
};
template <class T> struct PixelsByTaps : Window<T> {
  static constexpr bool K_INNER = true;
  typedef typename Window<T>::OfPixel Row;
  typedef typename Window<T>::OfTap Step;
  bool wide;
  __device__ __forceinline__ PixelsByTaps(const Conv& p, const Place& place)
      : Window<T>(p, place), wide(p.wide_x != 0) {}
  __device__ __forceinline__ Row row(int index) const { return this->pixel(index); }
  __device__ __forceinline__ Step step(int k) const { return this->tap(k); }
};
// W[tap, o] of a bank and group.
template <class T> __device__ __forceinline__ Matrix<T, false> filters(const Conv& p, const Place& place) {
  int taps = p.kernel_h * p.kernel_w * (p.in_c / p.groups), filters = p.out_c / p.groups;
  const T* base = (const T*)p.w + (size_t)(place.bank * p.groups + place.group) * taps * filters;
  return {base, filters, taps, filters, p.wide_w != 0};
}

template <class Math> __device__ void conv_forward(const Conv& p) {
  typedef typename Math::T T;
  Place place(p, blockIdx.x / p.tiles_m, false);
  PixelsByTaps<T> a(p, place);
  Matrix<T, false> b = filters<T>(p, place);
  int m0 = blockIdx.x % p.tiles_m * TILE_M, n0 = blockIdx.y * TILE_N;
  int k0 = blockIdx.z * p.k_per_split, k1 = min(a.taps, k0 + p.k_per_split);
  size_t batch = (size_t)blockIdx.z * (gridDim.x / p.tiles_m) + blockIdx.x / p.tiles_m;
  float* partial = p.partial + batch * a.pixels * b.rows;
  int top = place.bank / p.grid_w * p.block_h, left = place.bank % p.grid_w * p.block_w;
  T* out = (T*)p.out + place.group * b.rows;
  product<Math>(a, b, m0, n0, k0, k1, [&](int m, int n, float value) {
    if (m >= a.pixels || n >= b.rows) return;
    if (p.splits > 1) {
      partial[(size_t)m * b.rows + n] = value;
      return;
    }
    if (p.bias) value += p.bias[(place.bank * p.groups + place.group) * b.rows + n];
    Pixel at(p, m);
    out[(((size_t)at.sample * p.out_h + top + at.u) * p.out_w + left + at.v) * p.out_c + n] =
        from_float<T>(rectify(value, p.activation));
  });
}
extern "C" __global__ void __launch_bounds__(THREADS) conv_forward_by_value_f16(const Conv p) {
  conv_forward<Math16<half>>(p);
}

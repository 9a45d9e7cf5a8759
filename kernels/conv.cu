// Convolution with filters shared globally, within cells, or not at all, as implicit GEMM: windows are gathered while a tile
// is loaded, so no im2col matrix is ever materialised. One product per bank of filters and group of channels:
//   conv_forward           Y[pixel, o]  = X[pixel, tap] W[tap, o]        pixels of one region over all samples; taps (i, j, c)
//   conv_backward_data     dX[pixel, c] = dY[pixel, (r, s, o)] W^T       pixels of one residue modulo the stride, so that only
//                                                                        taps that reach them are visited
//   conv_backward_weights  dW[tap, o]   = X[pixel, tap]^T dY[pixel, o]   k runs over all pixels of the batch, in splits
// An output pixel (y, x) belongs to the region (a, b) = (y / block_h, x / block_w), with (u, v) the remainders; tap (i, j) reads
// input pixel (a cell_h + u stride_h + i - pad_h, b cell_w + v stride_w + j - pad_w) with bank a grid_w + b. One region is an
// ordinary convolution, a region per pixel the unshared layer of DeepFace.
//
// Layouts: X, Y NHWC; W [bank][group][i][j][c / groups][o / groups]. Grid: (tiles of m) * (bank, group[, residue]), tiles of n,
// splits; see product.cuh. Tolerance: 1e-6 f32, 2e-3 tf32, 1e-2 16-bit.
#include "geometry.cuh"
#include "product.cuh"

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
PARAMETERS(Conv, 224);

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
template <class T> struct TapsByPixels : Window<T> {
  static constexpr bool K_INNER = false;
  typedef typename Window<T>::OfTap Row;
  typedef typename Window<T>::OfPixel Step;
  bool wide;
  __device__ __forceinline__ TapsByPixels(const Conv& p, const Place& place)
      : Window<T>(p, place), wide(p.wide_x != 0) {}
  __device__ __forceinline__ Row row(int index) const { return this->tap(index); }
  __device__ __forceinline__ Step step(int k) const { return this->pixel(k); }
  __device__ __forceinline__ const T* at(const Row& tap, const Step& pixel) const {
    return Window<T>::at(pixel, tap);
  }
};

// W[tap, o] of a bank and group.
template <class T> __device__ __forceinline__ Matrix<T, false> filters(const Conv& p, const Place& place) {
  int taps = p.kernel_h * p.kernel_w * (p.in_c / p.groups), filters = p.out_c / p.groups;
  const T* base = (const T*)p.w + (size_t)(place.bank * p.groups + place.group) * taps * filters;
  return {base, filters, taps, filters, p.wide_w != 0};
}

// dY[pixel, o] with pixels along k.
template <class T> struct Gradients {
  static constexpr bool K_INNER = false;
  const Conv& p;
  const T* base;
  int pixels, filters, top, left;
  bool wide;
  struct Row { int o; };
  struct Step { const T* pixel; };
  __device__ __forceinline__ Gradients(const Conv& p, const Place& place)
      : p(p), base((const T*)p.y + place.group * (p.out_c / p.groups)), pixels(p.n * p.block_h * p.block_w),
        filters(p.out_c / p.groups), top(place.bank / p.grid_w * p.block_h), left(place.bank % p.grid_w * p.block_w),
        wide(p.wide_y != 0) {}
  __device__ __forceinline__ Row row(int o) const { return {o < filters ? o : -1}; }
  __device__ __forceinline__ Step step(int k) const {
    if (k >= pixels) return {nullptr};
    Pixel at(p, k);
    return {base + (((size_t)at.sample * p.out_h + top + at.u) * p.out_w + left + at.v) * p.out_c};
  }
  __device__ __forceinline__ const T* at(Row r, Step s) const {
    return r.o < 0 || !s.pixel ? nullptr : s.pixel + r.o;
  }
  __device__ __forceinline__ const T* anywhere() const { return (const T*)p.y; }
};

// The input pixels of one residue modulo the stride, and the taps that reach them. In padded coordinates
// pixel q stride + phase is reached by tap r stride + phase from output pixel q - r.
struct Residue {
  int first_y, first_x, q_y, q_x, rows, columns, taps_y, taps_x;
  __device__ __forceinline__ Residue(const Conv& p, const Place& place) {
    axis(p.pad_h, p.stride_h, p.extent_h, p.kernel_h, place.phase_y, first_y, q_y, rows, taps_y);
    axis(p.pad_w, p.stride_w, p.extent_w, p.kernel_w, place.phase_x, first_x, q_x, columns, taps_x);
  }
  __device__ static __forceinline__ void axis(int pad, int stride, int extent, int kernel, int phase, int& first, int& q,
                                              int& count, int& taps) {
    int at = pad + (phase - pad % stride + stride) % stride;  // the first position of this residue that is at least `pad`
    first = at - pad, q = at / stride;
    count = first < extent ? (extent - first - 1) / stride + 1 : 0;
    taps = phase < kernel ? (kernel - phase - 1) / stride + 1 : 0;
  }
};

// dY[input pixel, (r, s, o)].
template <class T> struct Reaching {
  static constexpr bool K_INNER = true;
  const Conv& p;
  const Residue& residue;
  const T* base;
  int pixels, taps, filters;
  bool wide;
  struct Row { const T* sample; int y, x; };
  struct Step { int r, s, o; };
  __device__ __forceinline__ Reaching(const Conv& p, const Place& place, const Residue& residue)
      : p(p), residue(residue), pixels(p.n * residue.rows * residue.columns), filters(p.out_c / p.groups),
        wide(p.wide_y != 0) {
    int top = place.bank / p.grid_w * p.block_h, left = place.bank % p.grid_w * p.block_w;
    base = (const T*)p.y + ((size_t)top * p.out_w + left) * p.out_c + place.group * filters;
    taps = residue.taps_y * residue.taps_x * filters;
  }
  __device__ __forceinline__ Row row(int index) const {
    if (index >= pixels) return {base, -NOWHERE, 0};
    int x = index % residue.columns, rest = index / residue.columns;
    int y = rest % residue.rows, sample = rest / residue.rows;
    return {base + (size_t)sample * p.out_h * p.out_w * p.out_c, residue.q_y + y, residue.q_x + x};
  }
  __device__ __forceinline__ Step step(int k) const {
    if (k >= taps) return {NOWHERE, 0, 0};
    int o = split_off(k, p.by_filters);
    return {k / residue.taps_x, k % residue.taps_x, o};
  }
  __device__ __forceinline__ const T* at(const Row& row, const Step& step) const {
    int u = row.y - step.r, v = row.x - step.s;
    if ((unsigned)u >= (unsigned)p.block_h || (unsigned)v >= (unsigned)p.block_w) return nullptr;
    return row.sample + ((u * p.out_w + v) * p.out_c + step.o);
  }
  __device__ __forceinline__ const T* anywhere() const { return (const T*)p.y; }
};

// W[c, (r, s, o)] for the taps of a residue.
template <class T> struct FiltersAcross {
  static constexpr bool K_INNER = true;
  const Conv& p;
  const Residue& residue;
  const T* base;
  int channels, filters, taps, phase_y, phase_x;
  bool wide;
  struct Row { int c; };
  struct Step { const T* tap; };
  __device__ __forceinline__ FiltersAcross(const Conv& p, const Place& place, const Residue& residue)
      : p(p), residue(residue), channels(p.in_c / p.groups), filters(p.out_c / p.groups), phase_y(place.phase_y),
        phase_x(place.phase_x), wide(p.wide_w != 0) {
    base = (const T*)p.w
        + (size_t)(place.bank * p.groups + place.group) * p.kernel_h * p.kernel_w * channels * filters;
    taps = residue.taps_y * residue.taps_x * filters;
  }
  __device__ __forceinline__ Row row(int c) const { return {c < channels ? c : -1}; }
  __device__ __forceinline__ Step step(int k) const {
    if (k >= taps) return {nullptr};
    int o = split_off(k, p.by_filters), r = k / residue.taps_x, s = k % residue.taps_x;
    int i = phase_y + r * p.stride_h, j = phase_x + s * p.stride_w;
    return {base + ((size_t)(i * p.kernel_w + j) * channels * filters + o)};
  }
  __device__ __forceinline__ const T* at(Row row, Step step) const {
    return row.c < 0 || !step.tap ? nullptr : step.tap + (size_t)row.c * filters;
  }
  __device__ __forceinline__ const T* anywhere() const { return (const T*)p.w; }
};

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
PRODUCT_KERNELS(conv_forward, Conv)

// Y = activation(sum over splits + bias); one thread per value of Y.
template <class T> __device__ void conv_finish(const Conv& p) {
  size_t i = global_thread(), pixels = (size_t)p.n * p.out_h * p.out_w;
  if (i >= pixels * p.out_c) return;
  int filters = p.out_c / p.groups, channel = (int)(i % p.out_c), group = channel / filters, o = channel % filters;
  size_t pixel = i / p.out_c;
  int x = (int)(pixel % p.out_w), y = (int)(pixel / p.out_w % p.out_h), sample = (int)(pixel / p.out_w / p.out_h);
  int bank = y / p.block_h * p.grid_w + x / p.block_w;
  size_t m = ((size_t)sample * p.block_h + y % p.block_h) * p.block_w + x % p.block_w;
  size_t rows = (size_t)p.n * p.block_h * p.block_w, split = rows * p.grid_h * p.grid_w * p.out_c;
  size_t at = (((size_t)bank * p.groups + group) * rows + m) * filters + o;
  float value = 0.0f;
  for (int s = 0; s < p.splits; s++) value += p.partial[s * split + at];
  if (p.bias) value += p.bias[bank * p.out_c + channel];
  ((T*)p.out)[i] = from_float<T>(activate(value, p.activation));
}
STORAGE_KERNELS(conv_finish, Conv)

// With several regions a pixel is reached from more than one: each writes f32 sums [split][bank][n][extent][c] of its pixels,
// and conv_gather adds them.
template <class Math> __device__ void conv_backward_data(const Conv& p) {
  typedef typename Math::T T;
  Place place(p, blockIdx.x / p.tiles_m, true);
  Residue residue(p, place);
  Reaching<T> a(p, place, residue);
  FiltersAcross<T> b(p, place, residue);
  int m0 = blockIdx.x % p.tiles_m * TILE_M, n0 = blockIdx.y * TILE_N;
  if (m0 >= a.pixels) return;  // the whole block: other residues have more pixels
  int k0 = blockIdx.z * p.k_per_split, k1 = min(a.taps, k0 + p.k_per_split);
  bool apart = p.splits > 1 || p.grid_h * p.grid_w > 1;
  size_t map = (size_t)p.n * p.extent_h * p.extent_w * p.in_c;
  float* partial = p.partial + ((size_t)blockIdx.z * p.grid_h * p.grid_w + place.bank) * map;
  product<Math>(a, b, m0, n0, k0, k1, [&](int m, int n, float value) {
    if (m >= a.pixels || n >= b.channels) return;
    int x = m % residue.columns, rest = m / residue.columns, y = rest % residue.rows, sample = rest / residue.rows;
    y = residue.first_y + y * p.stride_h, x = residue.first_x + x * p.stride_w;
    size_t at = (((size_t)sample * p.extent_h + y) * p.extent_w + x) * p.in_c + place.group * b.channels + n;
    if (apart) partial[at] = value;
    else ((T*)p.out)[at] = from_float<T>(value);
  });
}
PRODUCT_KERNELS(conv_backward_data, Conv)

// dX = sum over splits and regions; one thread per value of dX.
template <class T> __device__ void conv_gather(const Conv& p) {
  size_t i = global_thread(), pixels = (size_t)p.n * p.in_h * p.in_w;
  if (i >= pixels * p.in_c) return;
  int c = (int)(i % p.in_c);
  size_t pixel = i / p.in_c;
  int x = (int)(pixel % p.in_w), y = (int)(pixel / p.in_w % p.in_h), sample = (int)(pixel / p.in_w / p.in_h);
  size_t map = (size_t)p.n * p.extent_h * p.extent_w * p.in_c;
  float value = 0.0f;
  for (int s = 0; s < p.splits; s++)
    for (int a = 0; a < p.grid_h; a++) {
      int v = y - a * p.cell_h;
      if ((unsigned)v >= (unsigned)p.extent_h) continue;
      for (int b = 0; b < p.grid_w; b++) {
        int u = x - b * p.cell_w;
        if ((unsigned)u >= (unsigned)p.extent_w) continue;
        size_t bank = (size_t)(s * p.grid_h + a) * p.grid_w + b;
        value += p.partial[bank * map + (((size_t)sample * p.extent_h + v) * p.extent_w + u) * p.in_c + c];
      }
    }
  ((T*)p.out)[i] = from_float<T>(value);
}
STORAGE_KERNELS(conv_gather, Conv)

// dW in f32: [bank][group][tap][o], or [split] of those for sum_parts.
template <class Math> __device__ void conv_backward_weights(const Conv& p) {
  typedef typename Math::T T;
  int batch = blockIdx.x / p.tiles_m;
  Place place(p, batch, false);
  TapsByPixels<T> a(p, place);
  Gradients<T> b(p, place);
  int m0 = blockIdx.x % p.tiles_m * TILE_M, n0 = blockIdx.y * TILE_N;
  int k0 = blockIdx.z * p.k_per_split, k1 = min(a.pixels, k0 + p.k_per_split);
  size_t all = gridDim.x / p.tiles_m;
  float* out = (p.splits > 1 ? p.partial : (float*)p.out) + (blockIdx.z * all + batch) * a.taps * b.filters;
  product<Math>(a, b, m0, n0, k0, k1, [&](int m, int n, float value) {
    if (m < a.taps && n < b.filters) out[(size_t)m * b.filters + n] = value;
  });
}
PRODUCT_KERNELS(conv_backward_weights, Conv)

struct Parts {
  const float* parts;
  float* out;
  size_t count;
  int splits, unused;
};
PARAMETERS(Parts, 32);

// out[count] = sum over splits of parts[split][count], in order.
extern "C" __global__ void sum_parts_f32(const Parts p) {
  size_t i = global_thread();
  if (i >= p.count) return;
  float value = 0.0f;
  for (int s = 0; s < p.splits; s++) value += p.parts[s * p.count + i];
  p.out[i] = value;
}

struct Bias {
  const void* y;     // null without an activation
  void* dy;          // overwritten with the gradient of the sums
  float* partial;    // [part][bank][o], or null without a bias
  int n, out_h, out_w, out_c, grid_h, grid_w, block_h, block_w;
  int activation, rows_per_part;
};
PARAMETERS(Bias, 64);

// Backward through the activation, in place, and sums over pixels for the bias, in one pass over dY.
// Grid: parts of a region's pixels, banks, tiles of 32 channels. A warp owns pixels, a lane a channel; the sums of eight warps
// are added in shared memory (1 KB) in order.
template <class T> __device__ void bias_backward(const Bias& p) {
  __shared__ float sums[8][32];
  int lane = threadIdx.x % 32, warp = threadIdx.x / 32, c = blockIdx.z * 32 + lane, bank = blockIdx.y;
  int rows = p.n * p.block_h * p.block_w, first = blockIdx.x * p.rows_per_part;
  int end = min(rows, first + p.rows_per_part);
  float sum = 0.0f;
  if (c < p.out_c) {
    for (int m = first + warp; m < end; m += 8) {
      int v = m % p.block_w, u = m / p.block_w % p.block_h, sample = m / p.block_w / p.block_h;
      int y = bank / p.grid_w * p.block_h + u, x = bank % p.grid_w * p.block_w + v;
      size_t at = (((size_t)sample * p.out_h + y) * p.out_w + x) * p.out_c + c;
      float g = to_float(((const T*)p.dy)[at]);
      if (p.activation != NONE) {
        T back = from_float<T>(deactivate(g, to_float(((const T*)p.y)[at]), p.activation));
        ((T*)p.dy)[at] = back;
        g = to_float(back);
      }
      sum += g;
    }
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp == 0 && c < p.out_c && p.partial) {
    float total = 0.0f;
    for (int w = 0; w < 8; w++) total += sums[w][lane];
    p.partial[((size_t)blockIdx.x * gridDim.y + bank) * p.out_c + c] = total;
  }
}
STORAGE_KERNELS(bias_backward, Bias)

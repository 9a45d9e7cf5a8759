// Convolution with filters shared globally, within cells, or not at all, as implicit GEMM: windows are gathered while a tile
// is loaded, so no im2col matrix is ever materialised. One product per bank of filters and group of channels:
//   conv_forward           Y[pixel, o]  = X[pixel, tap] W[tap, o]        pixels of one region over all samples; taps (i, j, c)
//   conv_backward_data     dX[pixel, c] = dY[pixel, (r, s, o)] W^T       pixels of one residue modulo the stride, so that only
//                                                                        taps that reach them are visited
//   conv_backward_weights  dW[tap, o]   = X[pixel, tap]^T dY[pixel, o]   k runs over all pixels of the batch, in splits
// Maps of few channels that few.cu does not serve are unfolded along x first (conv_unfold): a pixel of the unfolded map holds the
// values of a line of a window, filled up with zeros to 16-byte units, and the layer is one with windows one pixel wide. The
// memory that this takes is less than what an image's odd runs cost: each value of a tile was loaded by itself (kernels/lab, 6).
// An output pixel (y, x) belongs to the region (a, b) = (y / block_h, x / block_w), with (u, v) the remainders; tap (i, j) reads
// input pixel (a cell_h + u stride_h + i - pad_h, b cell_w + v stride_w + j - pad_w) with bank a grid_w + b. One region is an
// ordinary convolution, a region per pixel the unshared layer of DeepFace.
//
// Layouts: X, Y NHWC; W [bank][group][i][j][c / groups][o / groups]. Grid: (tiles of m) * (bank, group[, residue]), tiles of n,
// splits; see product.cuh. Tolerance: 1e-6 f32, 2e-3 tf32, 1e-2 16-bit.
#include "channels.cuh"
#include "geometry.cuh"
#include "product.cuh"
#include <type_traits>

struct Conv : Geometry {
  const void* x;
  const void* y;   // conv_backward_data, conv_backward_weights: the gradient of the output
  const void* w;
  const float* bias;  // [bank][o], or null
  void* out;          // Y, dX (one region) or dW (f32)
  float* partial;     // f32 partial sums for conv_finish, conv_gather, sum_parts
  int extent_h, extent_w;  // conv_backward_data: pixels covered by the windows of one region: the map, or a cell with its halo
  int activation, splits, k_per_split;
  int run;  // conv_backward_weights: channels of a group that W has; the others are those of an unfolded map's end
  int wide_x, wide_y, wide_w;  // runs of channels, of filters: whole 16-byte units
  Divisor by_block_w, by_block_h, by_channels, by_filters, by_kernel_w;
  Divisor by_rows[2], by_columns[2], by_taps_x[2];  // conv_backward_data: pixels and taps of a residue, rounded up and down
  Divisor by_tiles_m, by_groups, by_grid_w, by_stride_w, by_stride_h;
  int unused;
};
PARAMETERS(Conv, 360);

// Of a group; a division by the number of groups takes twenty instructions.
__device__ __forceinline__ int channels_of(const Conv& p) { return (int)p.by_channels.divisor; }
__device__ __forceinline__ int filters_of(const Conv& p) { return (int)p.by_filters.divisor; }

// Of a block: its first pixel or tap, the number of its product in the batch, and that product's bank, group and residue.
struct Place {
  int m0, batch, bank, group, row, column, phase_y, phase_x;
  __device__ __forceinline__ Place(const Conv& p, int tile_m, bool phases) {
    int number = blockIdx.x;
    m0 = split_off(number, p.by_tiles_m) * tile_m, batch = number;
    phase_y = phase_x = 0;
    if (phases) phase_x = split_off(number, p.by_stride_w), phase_y = split_off(number, p.by_stride_h);
    group = split_off(number, p.by_groups), bank = number;
    column = split_off(number, p.by_grid_w), row = number;
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

// Unit of offsets in maps: 16 bytes where all runs of channels are wide, so that 32 bits reach 32 GB.
template <class T, bool WIDE> constexpr int UNIT = WIDE ? 16 / sizeof(T) : 1;
template <bool WIDE> using Offset = typename std::conditional<WIDE, int, ptrdiff_t>::type;

// X[pixel, tap]: `pixels` along the rows of the product and taps along k, or vice versa.
template <class T, bool WIDE> struct Window {
  static constexpr int U = UNIT<T, WIDE>;
  const Conv& p;
  const T* base;  // first of the group's channels
  int top, left, pixels, taps;
  bool wide;
  struct OfPixel { Offset<WIDE> first; int y, x; };  // what tap (0, 0, 0) reads, and where that is
  struct OfTap { int offset, i, j; };                // from there

  __device__ __forceinline__ Window(const Conv& p, const Place& place)
      : p(p), base((const T*)p.x + place.group * channels_of(p)),
        top(place.row * p.cell_h - p.pad_h), left(place.column * p.cell_w - p.pad_w),
        pixels(p.n * p.block_h * p.block_w), taps(p.kernel_h * p.kernel_w * channels_of(p)), wide(p.wide_x != 0) {}
  __device__ __forceinline__ OfPixel pixel(int index) const {
    bool inside = index < pixels;
    Pixel at(p, inside ? index : 0);
    int y = top + at.u * p.stride_h, x = left + at.v * p.stride_w;
    Offset<WIDE> line = (Offset<WIDE>)at.sample * p.in_h + y;
    return {(line * p.in_w + x) * (p.in_c / U), inside ? y : -2 * NOWHERE, x};
  }
  __device__ __forceinline__ OfTap tap(int index) const {
    bool inside = index < taps;
    int c = split_off(index, p.by_channels), j = split_off(index, p.by_kernel_w);
    return {(index * p.in_w + j) * (p.in_c / U) + c / U, inside ? index : NOWHERE, j};
  }
  __device__ __forceinline__ bool at(const OfPixel& pixel, const OfTap& tap, const T*& from) const {
    from = base + (ptrdiff_t)(pixel.first + tap.offset) * U;
    return (unsigned)(pixel.y + tap.i) < (unsigned)p.in_h && (unsigned)(pixel.x + tap.j) < (unsigned)p.in_w;
  }
};
template <class T, bool WIDE> struct PixelsByTaps : Window<T, WIDE> {
  static constexpr bool K_INNER = true;
  typedef typename Window<T, WIDE>::OfPixel Row;
  typedef typename Window<T, WIDE>::OfTap Step;
  using Window<T, WIDE>::Window;
  __device__ __forceinline__ Row row(int index) const { return this->pixel(index); }
  __device__ __forceinline__ Step step(int k) const { return this->tap(k); }
};
template <class T, bool WIDE> struct TapsByPixels : Window<T, WIDE> {
  static constexpr bool K_INNER = false;
  typedef typename Window<T, WIDE>::OfTap Row;
  typedef typename Window<T, WIDE>::OfPixel Step;
  using Window<T, WIDE>::Window;
  __device__ __forceinline__ Row row(int index) const { return this->tap(index); }
  __device__ __forceinline__ Step step(int k) const { return this->pixel(k); }
  __device__ __forceinline__ bool at(const Row& tap, const Step& pixel, const T*& from) const {
    return Window<T, WIDE>::at(pixel, tap, from);
  }
};

// W[tap, o] of a bank and group.
template <class T> __device__ __forceinline__ Matrix<T, false> filters(const Conv& p, const Place& place) {
  int taps = p.kernel_h * p.kernel_w * channels_of(p), filters = filters_of(p);
  const T* base = (const T*)p.w + (size_t)(place.bank * p.groups + place.group) * taps * filters;
  return {base, filters, taps, filters, p.wide_w != 0};
}

// dY[pixel, o] with pixels along k.
template <class T, bool WIDE> struct Gradients {
  static constexpr bool K_INNER = false;
  static constexpr int U = UNIT<T, WIDE>;
  const Conv& p;
  const T* base;
  int pixels, filters, top, left;
  bool wide;
  struct Row { int o; bool inside; };
  struct Step { Offset<WIDE> pixel; bool inside; };
  __device__ __forceinline__ Gradients(const Conv& p, const Place& place)
      : p(p), base((const T*)p.y + place.group * filters_of(p)), pixels(p.n * p.block_h * p.block_w),
        filters(filters_of(p)), top(place.row * p.block_h), left(place.column * p.block_w),
        wide(p.wide_y != 0) {}
  __device__ __forceinline__ Row row(int o) const { return {o, o < filters}; }
  __device__ __forceinline__ Step step(int k) const {
    Pixel at(p, k);
    Offset<WIDE> line = (Offset<WIDE>)at.sample * p.out_h + top + at.u;
    return {(line * p.out_w + left + at.v) * (p.out_c / U), k < pixels};
  }
  __device__ __forceinline__ bool at(Row row, Step step, const T*& from) const {
    from = base + row.o + (ptrdiff_t)step.pixel * U;
    return row.inside && step.inside;
  }
};

// The input pixels of one residue modulo the stride, and the taps that reach them. In padded coordinates
// pixel q stride + phase is reached by tap r stride + phase from output pixel q - r.
struct Residue {
  int first_y, first_x, q_y, q_x, rows, columns, taps_y, taps_x;
  Divisor by_rows, by_columns, by_taps_x;
  __device__ __forceinline__ Residue(const Conv& p, const Place& place) {
    axis(p.pad_h, p.by_stride_h, p.extent_h, p.kernel_h, place.phase_y, first_y, q_y, rows, taps_y);
    axis(p.pad_w, p.by_stride_w, p.extent_w, p.kernel_w, place.phase_x, first_x, q_x, columns, taps_x);
    by_rows = choose(p.by_rows, rows), by_columns = choose(p.by_columns, columns), by_taps_x = choose(p.by_taps_x, taps_x);
  }
  // There are as many pixels, or taps, of one residue as of another, or one less.
  __device__ static __forceinline__ Divisor choose(const Divisor (&of)[2], int n) {
    return (int)of[0].divisor == n ? of[0] : of[1];
  }
  // Of the pixels of this residue over all samples.
  __device__ __forceinline__ void pixel(int index, int& sample, int& y, int& x) const {
    x = split_off(index, by_columns), y = split_off(index, by_rows), sample = index;
  }
  __device__ static __forceinline__ void axis(int pad, Divisor stride, int extent, int kernel, int phase, int& first, int& q,
                                              int& count, int& taps) {
    int apart = (int)stride.divisor, before = pad, at = phase - split_off(before, stride);
    first = at < 0 ? at + apart : at;  // the first position of this residue that is at least `pad`, without it
    q = divide(pad + first, stride);
    count = first < extent ? divide(extent - first - 1, stride) + 1 : 0;
    taps = phase < kernel ? divide(kernel - phase - 1, stride) + 1 : 0;
  }
};

// dY[input pixel, (r, s, o)].
template <class T, bool WIDE> struct Reaching {
  static constexpr bool K_INNER = true;
  static constexpr int U = UNIT<T, WIDE>;
  const Conv& p;
  const Residue& residue;
  const T* base;
  int pixels, taps, filters;
  bool wide;
  struct Row { Offset<WIDE> first; int y, x; };  // what tap (0, 0) reads, and where that is
  struct Step { int offset, r, s; };             // back from there
  __device__ __forceinline__ Reaching(const Conv& p, const Place& place, const Residue& residue)
      : p(p), residue(residue), pixels(p.n * residue.rows * residue.columns), filters(filters_of(p)),
        wide(p.wide_y != 0) {
    int top = place.row * p.block_h, left = place.column * p.block_w;
    base = (const T*)p.y + ((size_t)top * p.out_w + left) * p.out_c + place.group * filters;
    taps = residue.taps_y * residue.taps_x * filters;
  }
  __device__ __forceinline__ Row row(int index) const {
    bool inside = index < pixels;
    int sample, y, x;
    residue.pixel(inside ? index : 0, sample, y, x);
    y += residue.q_y, x += residue.q_x;
    Offset<WIDE> line = (Offset<WIDE>)sample * p.out_h + y;
    return {(line * p.out_w + x) * (p.out_c / U), inside ? y : -NOWHERE, x};
  }
  __device__ __forceinline__ Step step(int k) const {
    bool inside = k < taps;
    int o = split_off(k, p.by_filters), s = split_off(k, residue.by_taps_x);
    return {o / U - (k * p.out_w + s) * (p.out_c / U), inside ? k : NOWHERE, s};
  }
  __device__ __forceinline__ bool at(const Row& row, const Step& step, const T*& from) const {
    from = base + (ptrdiff_t)(row.first + step.offset) * U;
    return (unsigned)(row.y - step.r) < (unsigned)p.block_h && (unsigned)(row.x - step.s) < (unsigned)p.block_w;
  }
};

// W[c, (r, s, o)] for the taps of a residue.
template <class T> struct FiltersAcross {
  static constexpr bool K_INNER = true;
  const Conv& p;
  const Residue& residue;
  const T* base;
  int channels, filters, taps, phase_y, phase_x;
  bool wide;
  struct Row { int offset; bool inside; };
  struct Step { int offset; bool inside; };
  __device__ __forceinline__ FiltersAcross(const Conv& p, const Place& place, const Residue& residue)
      : p(p), residue(residue), channels(channels_of(p)), filters(filters_of(p)), phase_y(place.phase_y),
        phase_x(place.phase_x), wide(p.wide_w != 0) {
    base = (const T*)p.w
        + (size_t)(place.bank * p.groups + place.group) * p.kernel_h * p.kernel_w * channels * filters;
    taps = residue.taps_y * residue.taps_x * filters;
  }
  __device__ __forceinline__ Row row(int c) const { return {c * filters, c < channels}; }
  __device__ __forceinline__ Step step(int k) const {
    bool inside = k < taps;
    int o = split_off(k, p.by_filters), s = split_off(k, residue.by_taps_x);
    int i = phase_y + k * p.stride_h, j = phase_x + s * p.stride_w;
    return {(i * p.kernel_w + j) * channels * filters + o, inside};
  }
  __device__ __forceinline__ bool at(const Row& row, const Step& step, const T*& from) const {
    from = base + (row.offset + step.offset);
    return row.inside && step.inside;
  }
};

template <class Math, bool WIDE> __device__ void conv_forward(const Conv& p) {
  typedef typename Math::T T;
  Place place(p, Math::Shape::M, false);
  PixelsByTaps<T, WIDE> a(p, place);
  Matrix<T, false> b = filters<T>(p, place);
  int n0 = blockIdx.y * Math::Shape::N;
  int k0 = blockIdx.z * p.k_per_split, k1 = min(a.taps, k0 + p.k_per_split);
  auto target = [&] {
    int filters = filters_of(p), pixels = p.n * p.block_h * p.block_w;
    size_t batch = (size_t)blockIdx.z * divide(gridDim.x, p.by_tiles_m) + place.batch;
    if (p.splits > 1) return Target<T>{nullptr, p.partial + batch * pixels * filters, nullptr, pixels, filters, NONE, filters};
    const float* bias = p.bias ? p.bias + (place.bank * p.groups + place.group) * filters : nullptr;
    return Target<T>{(T*)p.out + place.group * filters, nullptr, bias, pixels, filters, p.activation, p.out_c};
  };
  product<Math, WIDE>(a, b, place.m0, n0, k0, k1, target, [&](int m) {
    if (p.splits > 1) return (size_t)m * filters_of(p);
    if (p.grid_h * p.grid_w == 1) return (size_t)m * p.out_c;
    Pixel at(p, m);
    int y = place.row * p.block_h + at.u, x = place.column * p.block_w + at.v;
    return (((size_t)at.sample * p.out_h + y) * p.out_w + x) * p.out_c;
  });
}
PRODUCT_KERNELS(conv_forward, Conv, 4)

// What adds the sums of splits and regions: one thread per pack of channels, or per channel.
struct Join {
  const float* partial;
  const float* bias;  // [bank][c], or null
  void* out;          // [n][h][w][c]
  int n, h, w, c;
  int splits, grid_h, grid_w, filters;         // filters per group
  int cell_h, cell_w, extent_h, extent_w;      // conv_gather
  int block_h, block_w, activation, lanes;     // conv_finish
  Divisor by_lanes, by_w, by_h, by_filters, by_block_w, by_block_h;  // by_lanes: of channels, in units of a thread
};
PARAMETERS(Join, 160);

// The pixel and the first channel of a thread; false if there is none.
template <int N> __device__ __forceinline__ bool joined(const Join& p, int& sample, int& y, int& x, int& c) {
  unsigned i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= (unsigned)p.n * p.h * p.w * (p.c / N)) return false;
  int rest = (int)i;
  c = split_off(rest, p.by_lanes) * N, x = split_off(rest, p.by_w), y = split_off(rest, p.by_h), sample = rest;
  return true;
}
template <int N> __device__ __forceinline__ void add(Lanes<N>& sum, const float* from) {
  if constexpr (N == 1) {
    sum.v[0] += *from;
  } else {
#pragma unroll
    for (int k = 0; k < N; k += 4) {
      float4 v = *reinterpret_cast<const float4*>(from + k);
      sum.v[k] += v.x, sum.v[k + 1] += v.y, sum.v[k + 2] += v.z, sum.v[k + 3] += v.w;
    }
  }
}

// Y = activation(sum over splits + bias).
template <class T, int N> __device__ __forceinline__ void finish_conv(const Join& p) {
  int sample, y, x, c;
  if (!joined<N>(p, sample, y, x, c)) return;
  int v = split_off(x, p.by_block_w), u = split_off(y, p.by_block_h), bank = y * p.grid_w + x;
  int group = c, o = split_off(group, p.by_filters);
  size_t rows = (size_t)p.n * p.block_h * p.block_w, split = rows * p.grid_h * p.grid_w * p.c;
  size_t m = ((size_t)sample * p.block_h + u) * p.block_w + v;
  const float* from = p.partial + (((size_t)bank * (p.c / p.filters) + group) * rows + m) * p.filters + o;
  Lanes<N> sum = all_lanes<N>(0.0f);
  for (int s = 0; s < p.splits; s++) add<N>(sum, from + s * split);
  if (p.bias) add<N>(sum, p.bias + bank * p.c + c);
#pragma unroll
  for (int k = 0; k < N; k++) sum.v[k] = activate(sum.v[k], p.activation);
  x = x * p.block_w + v, y = y * p.block_h + u;
  store_lanes<T, N>(p.out, (((size_t)sample * p.h + y) * p.w + x) * p.c + c, sum);
}
template <class T> __device__ void conv_finish(const Join& p) { LANES(p.lanes, finish_conv, p); }
STORAGE_KERNELS(conv_finish, Join)

// With several regions a pixel is reached from more than one: each writes f32 sums [split][bank][n][extent][c] of its pixels,
// and conv_gather adds them.
template <class Math, bool WIDE> __device__ void conv_backward_data(const Conv& p) {
  typedef typename Math::T T;
  Place place(p, Math::Shape::M, true);
  Residue residue(p, place);
  Reaching<T, WIDE> a(p, place, residue);
  FiltersAcross<T> b(p, place, residue);
  int n0 = blockIdx.y * Math::Shape::N;
  if (place.m0 >= a.pixels) return;  // the whole block: other residues have more pixels
  int k0 = blockIdx.z * p.k_per_split, k1 = min(a.taps, k0 + p.k_per_split);
  auto target = [&] {
    int channels = channels_of(p), first = place.group * channels;
    size_t map = (size_t)p.n * p.extent_h * p.extent_w * p.in_c;
    Target<T> to{(T*)p.out + first, nullptr, nullptr, p.n * residue.rows * residue.columns, channels, NONE, p.in_c};
    if (p.splits > 1 || p.grid_h * p.grid_w > 1)
      to.sums = p.partial + ((size_t)blockIdx.z * p.grid_h * p.grid_w + place.bank) * map + first;
    return to;
  };
  product<Math, WIDE>(a, b, place.m0, n0, k0, k1, target, [&](int m) {
    if (p.stride_h * p.stride_w == 1) return (size_t)m * p.in_c;  // one residue: pixels are in order
    int sample, y, x;
    residue.pixel(m, sample, y, x);
    y = residue.first_y + y * p.stride_h, x = residue.first_x + x * p.stride_w;
    return (((size_t)sample * p.extent_h + y) * p.extent_w + x) * p.in_c;
  });
}
PRODUCT_KERNELS(conv_backward_data, Conv, 3)

// dX = sum over splits and regions.
template <class T, int N> __device__ __forceinline__ void gather_conv(const Join& p) {
  int sample, y, x, c;
  if (!joined<N>(p, sample, y, x, c)) return;
  size_t map = (size_t)p.n * p.extent_h * p.extent_w * p.c;
  Lanes<N> sum = all_lanes<N>(0.0f);
  for (int s = 0; s < p.splits; s++)
    for (int a = 0; a < p.grid_h; a++) {
      int v = y - a * p.cell_h;
      if ((unsigned)v >= (unsigned)p.extent_h) continue;
      for (int b = 0; b < p.grid_w; b++) {
        int u = x - b * p.cell_w;
        if ((unsigned)u >= (unsigned)p.extent_w) continue;
        size_t bank = (size_t)(s * p.grid_h + a) * p.grid_w + b;
        add<N>(sum, p.partial + bank * map + (((size_t)sample * p.extent_h + v) * p.extent_w + u) * p.c + c);
      }
    }
  store_lanes<T, N>(p.out, (((size_t)sample * p.h + y) * p.w + x) * p.c + c, sum);
}
template <class T> __device__ void conv_gather(const Join& p) { LANES(p.lanes, gather_conv, p); }
STORAGE_KERNELS(conv_gather, Join)

// dW in f32: [bank][group][tap][o], or [split] of those for sum_parts.
template <class Math, bool WIDE> __device__ void conv_backward_weights(const Conv& p) {
  typedef typename Math::T T;
  Place place(p, Math::Shape::M, false);
  TapsByPixels<T, WIDE> a(p, place);
  Gradients<T, WIDE> b(p, place);
  int n0 = blockIdx.y * Math::Shape::N;
  int k0 = blockIdx.z * p.k_per_split, k1 = min(a.pixels, k0 + p.k_per_split);
  auto target = [&] {
    size_t all = divide(gridDim.x, p.by_tiles_m);
    size_t values = (size_t)p.kernel_h * p.kernel_w * p.run * b.filters;
    float* out = (p.splits > 1 ? p.partial : (float*)p.out) + (blockIdx.z * all + place.batch) * values;
    return Target<T>{nullptr, out, nullptr, a.taps, b.filters, NONE, b.filters};
  };
  product<Math, WIDE>(a, b, place.m0, n0, k0, k1, target, [&](int m) {
    int c = split_off(m, p.by_channels);
    return c < p.run ? (size_t)(m * p.run + c) * b.filters : NO_LINE;
  });
}
PRODUCT_KERNELS(conv_backward_weights, Conv, 4)

struct Parts {
  const float* parts;
  float* out;
  size_t count;
  int splits, width;  // width: threads of a block along `out`, a power of two
};
PARAMETERS(Parts, 32);

// out[count] = sum over splits of parts[split][count], in a fixed order: 256 / width threads add every such split, then a tree.
extern "C" __global__ void sum_parts_f32(const Parts p) {
  __shared__ float scratch[256];
  int rows = 256 / p.width;
  size_t i = (size_t)blockIdx.x * p.width + threadIdx.x % p.width;
  Lanes<1> sum = all_lanes<1>(0.0f);
  if (i < p.count)
    for (int s = threadIdx.x / p.width; s < p.splits; s += rows) sum.v[0] += p.parts[s * p.count + i];
  sum = over_rows<1>(sum, scratch, p.width, [](float a, float b) { return a + b; });
  if (threadIdx.x < (unsigned)p.width && i < p.count) p.out[i] = sum.v[0];
}

struct Bias {
  const void* y;     // null without an activation
  void* dy;          // overwritten with the gradient of the sums
  float* partial;    // [part][bank][o], or null without a bias
  int n, out_h, out_w, out_c, grid_h, grid_w, block_h, block_w;
  int activation, rows_per_part;
  int lanes, width;  // width: threads of a block along channels, a power of two
  Divisor by_block_w, by_block_h;
};
PARAMETERS(Bias, 96);

// Backward through the activation, in place, and sums over pixels for the bias, in one pass over dY.
// Grid: parts of a region's pixels, banks, units of `width` packs of channels. Shared memory: 1 KB per channel of a thread.
template <class T, int N> __device__ __forceinline__ void backward_bias(const Bias& p) {
  __shared__ float scratch[256 * N];
  int c = ((int)blockIdx.z * p.width + (int)threadIdx.x % p.width) * N, bank = blockIdx.y;
  int top = bank / p.grid_w * p.block_h, left = bank % p.grid_w * p.block_w;
  int first = blockIdx.x * p.rows_per_part, end = min(p.n * p.block_h * p.block_w, first + p.rows_per_part);
  bool regions = p.grid_h * p.grid_w > 1;
  Lanes<N> sum = all_lanes<N>(0.0f);
  if (c < p.out_c) {
    for (int m = first + (int)threadIdx.x / p.width; m < end; m += 256 / p.width) {
      size_t pixel = m;
      if (regions) {
        int rest = m, v = split_off(rest, p.by_block_w), u = split_off(rest, p.by_block_h);
        pixel = ((size_t)rest * p.out_h + top + u) * p.out_w + left + v;
      }
      size_t at = pixel * p.out_c + c;
      Lanes<N> g = load_lanes<T, N>(p.dy, at);
      if (p.activation != NONE) {
        Lanes<N> y = load_lanes<T, N>(p.y, at);
#pragma unroll
        for (int k = 0; k < N; k++) g.v[k] = to_float(from_float<T>(deactivate(g.v[k], y.v[k], p.activation)));
        store_lanes<T, N>(p.dy, at, g);
      }
#pragma unroll
      for (int k = 0; k < N; k++) sum.v[k] += g.v[k];
    }
  }
  sum = over_rows<N>(sum, scratch, p.width, [](float a, float b) { return a + b; });
  if ((int)threadIdx.x < p.width && c < p.out_c && p.partial) {
    float* to = p.partial + ((size_t)blockIdx.x * gridDim.y + bank) * p.out_c + c;
#pragma unroll
    for (int k = 0; k < N; k++) to[k] = sum.v[k];
  }
}
template <class T> __device__ void bias_backward(const Bias& p) { LANES(p.lanes, backward_bias, p); }
STORAGE_KERNELS(bias_backward, Bias)

struct Unfold {
  const void* x;
  const void* w;
  void* windows;  // [n][in_h][out_w][line]
  void* filters;  // [kernel_h][line][o], or null
  int n, in_h, in_w, in_c, out_w, stride_w, pad_w, kernel_h;
  int run, line, o;  // values of a line of a window, and with zeros up to whole packs; filters
  int packs;         // of `windows`; those of `filters` follow
  Divisor by_line, by_out_w, by_o, by_lines;  // in packs: of a line, of o; by_lines: `line`
};
PARAMETERS(Unfold, 128);

// One thread per pack. Lines of a window are adjacent in memory, and so are those of W: only their ends change.
template <class T> __device__ void conv_unfold(const Unfold& p) {
  constexpr int N = Pack<T>::N;
  int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  Pack<T> pack;
  if (i < p.packs) {
    int rest = i, first = split_off(rest, p.by_line) * N, x = split_off(rest, p.by_out_w);
    int begin = (x * p.stride_w - p.pad_w) * p.in_c + first;  // in line `rest` of X
    const T* from = (const T*)p.x + (size_t)rest * p.in_w * p.in_c + begin;
#pragma unroll
    for (int e = 0; e < N; e++) {
      bool inside = first + e < p.run && (unsigned)(begin + e) < (unsigned)(p.in_w * p.in_c);
      pack.v[e] = inside ? from[e] : from_float<T>(0.0f);
    }
    store_pack((T*)p.windows + (size_t)i * N, pack);
    return;
  }
  i -= p.packs;
  if (!p.filters || i >= p.kernel_h * p.line * (p.o / N)) return;
  int row = i, o = split_off(row, p.by_o) * N, r = split_off(row, p.by_lines);
  const T* from = (const T*)p.w + (size_t)(row * p.run + r) * p.o + o;
#pragma unroll
  for (int e = 0; e < N; e++) pack.v[e] = from_float<T>(0.0f);
  if (r < p.run) pack = load_pack(from);
  store_pack((T*)p.filters + (size_t)i * N, pack);
}
STORAGE_KERNELS(conv_unfold, Unfold)

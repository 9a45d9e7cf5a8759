// Explicit im2col: windows are written out as a matrix, followed by one plain product (gemm.cu). A simple reference for the
// implicit convolution, and the usual baseline.
//   im2col   cols[bank][group][pixel][tap]   from X
//   col2im   X's gradient                    from cols' gradient: each pixel gathers all contributions, in order
//   regions  [bank][group][pixel][o]         from Y's layout, and back with bias and activation
// A thread owns one value of the result. f32, f16, bf16 storage.
#include "geometry.cuh"

struct Im2col : Geometry {
  const void* from;
  const float* bias;
  void* to;
  int activation, unused;
};
PARAMETERS(Im2col, 112);

// The value of cols at i as (bank, group, sample, u, v, tap i, tap j, c).
template <class T> __device__ void im2col(const Im2col& p) {
  size_t i = global_thread();
  int channels = p.in_c / p.groups;
  size_t rows = (size_t)p.n * p.block_h * p.block_w, taps = (size_t)p.kernel_h * p.kernel_w * channels;
  if (i >= rows * taps * p.groups * p.grid_h * p.grid_w) return;
  size_t tap = i % taps, row = i / taps % rows;
  int group = (int)(i / taps / rows % p.groups), bank = (int)(i / taps / rows / p.groups);
  int c = (int)(tap % channels), tx = (int)(tap / channels % p.kernel_w), ty = (int)(tap / channels / p.kernel_w);
  int v = (int)(row % p.block_w), u = (int)(row / p.block_w % p.block_h);
  size_t sample = row / p.block_w / p.block_h;
  int y = bank / p.grid_w * p.cell_h + u * p.stride_h + ty - p.pad_h;
  int x = bank % p.grid_w * p.cell_w + v * p.stride_w + tx - p.pad_w;
  T value = from_float<T>(0.0f);
  if ((unsigned)y < (unsigned)p.in_h && (unsigned)x < (unsigned)p.in_w)
    value = ((const T*)p.from)[((sample * p.in_h + y) * p.in_w + x) * p.in_c + group * channels + c];
  ((T*)p.to)[i] = value;
}
STORAGE_KERNELS(im2col, Im2col)

// dX[i] = sum over banks and taps of the gradients of the values of cols that were copied from it.
template <class T> __device__ void col2im(const Im2col& p) {
  size_t i = global_thread();
  if (i >= (size_t)p.n * p.in_h * p.in_w * p.in_c) return;
  int channels = p.in_c / p.groups, channel = (int)(i % p.in_c), group = channel / channels, c = channel % channels;
  size_t pixel = i / p.in_c, sample = pixel / p.in_w / p.in_h;
  int x = (int)(pixel % p.in_w), y = (int)(pixel / p.in_w % p.in_h);
  size_t rows = (size_t)p.n * p.block_h * p.block_w, taps = (size_t)p.kernel_h * p.kernel_w * channels;
  float sum = 0.0f;
  for (int bank = 0; bank < p.grid_h * p.grid_w; bank++) {
    int top = y + p.pad_h - bank / p.grid_w * p.cell_h, left = x + p.pad_w - bank % p.grid_w * p.cell_w;
    for (int ty = 0; ty < p.kernel_h; ty++) {
      int u = top - ty;
      if (u < 0 || u % p.stride_h != 0 || u / p.stride_h >= p.block_h) continue;
      for (int tx = 0; tx < p.kernel_w; tx++) {
        int v = left - tx;
        if (v < 0 || v % p.stride_w != 0 || v / p.stride_w >= p.block_w) continue;
        size_t row = (sample * p.block_h + u / p.stride_h) * p.block_w + v / p.stride_w;
        size_t tap = (size_t)(ty * p.kernel_w + tx) * channels + c;
        sum += to_float(((const T*)p.from)[(((size_t)bank * p.groups + group) * rows + row) * taps + tap]);
      }
    }
  }
  ((T*)p.to)[i] = from_float<T>(sum);
}
STORAGE_KERNELS(col2im, Im2col)

// Position of value i of Y's layout within [bank][group][pixel][o].
__device__ __forceinline__ size_t in_regions(const Im2col& p, size_t i, int& bank, int& channel) {
  int filters = p.out_c / p.groups;
  channel = (int)(i % p.out_c);
  size_t pixel = i / p.out_c, sample = pixel / p.out_w / p.out_h;
  int x = (int)(pixel % p.out_w), y = (int)(pixel / p.out_w % p.out_h);
  bank = y / p.block_h * p.grid_w + x / p.block_w;
  size_t row = (sample * p.block_h + y % p.block_h) * p.block_w + x % p.block_w;
  size_t rows = (size_t)p.n * p.block_h * p.block_w;
  return (((size_t)bank * p.groups + channel / filters) * rows + row) * filters + channel % filters;
}

// Y = activation(regions + bias), the sums in f32.
template <class T> __device__ void from_regions(const Im2col& p) {
  size_t i = global_thread();
  if (i >= (size_t)p.n * p.out_h * p.out_w * p.out_c) return;
  int bank, channel;
  float value = ((const float*)p.from)[in_regions(p, i, bank, channel)];
  if (p.bias) value += p.bias[bank * p.out_c + channel];
  ((T*)p.to)[i] = from_float<T>(activate(value, p.activation));
}
STORAGE_KERNELS(from_regions, Im2col)

// regions = dY
template <class T> __device__ void to_regions(const Im2col& p) {
  size_t i = global_thread();
  if (i >= (size_t)p.n * p.out_h * p.out_w * p.out_c) return;
  int bank, channel;
  size_t at = in_regions(p, i, bank, channel);
  ((T*)p.to)[at] = ((const T*)p.from)[i];
}
STORAGE_KERNELS(to_regions, Im2col)

// Batches of network input from photos: windows of RGB bytes, optionally mirrored, normalised, as [n, h, w, 3] in T.
//
// Layout: photos are [height, width, 3] bytes, concatenated in one buffer; a table has one window per sample. Outside of a
// photo, its edge pixels are repeated.
// `crop`: pixel-aligned windows of the size of the output. A thread owns 16 bytes of the output.
// `sample_windows`: any window, as src/data/resample.rs: a separable triangle filter one output pixel wide when shrinking and
// one input pixel wide when enlarging (bilinear interpolation). A thread owns an output pixel and weights all pixels under the
// filter. Weights are computed in double and rounded to f32, sums run along rows, then down, as there; the one difference is
// that taps beyond an edge are added one by one instead of as one weight.
// Blocks of 256 threads, no shared memory. Tolerance: f32 sums, rounded once; crops are exact in f32.
#include "channels.cuh"

struct PhotoWindow {
  unsigned long long offset;  // of the photo, in bytes
  unsigned photo_w, photo_h;
  float x, y, w, h;           // of the window, in pixels of the photo
  unsigned flip;
  unsigned unused;
};
PARAMETERS(PhotoWindow, 40);

struct ImageParams {
  const unsigned char* photos;
  const PhotoWindow* windows;
  void* out;
  unsigned n, h, w;
  float mean[3];
  float scale;
  unsigned unused;
};
PARAMETERS(ImageParams, 56);

__device__ __forceinline__ unsigned edge(int at, unsigned size) {
  return at < 0 ? 0 : min((unsigned)at, size - 1);
}

template <class T> __device__ void crop(const ImageParams& p) {
  const size_t row_len = (size_t)p.w * 3;
  each_pack<T>(p.n * p.h * row_len, [&](size_t i, int n) {
    Pack<T> v = {};
#pragma unroll
    for (int k = 0; k < Pack<T>::N; k++) {
      if (k >= n) continue;
      const unsigned row = (unsigned)((i + k) / row_len), at = (unsigned)((i + k) % row_len);
      const unsigned c = at % 3, y = row % p.h;
      const PhotoWindow& window = p.windows[row / p.h];
      const unsigned x = window.flip ? p.w - 1 - at / 3 : at / 3;
      const unsigned from_y = edge((int)window.y + (int)y, window.photo_h);
      const unsigned from_x = edge((int)window.x + (int)x, window.photo_w);
      const size_t from = window.offset + ((size_t)from_y * window.photo_w + from_x) * 3 + c;
      const float mean = c == 0 ? p.mean[0] : c == 1 ? p.mean[1] : p.mean[2];
      v.v[k] = from_float<T>(((float)p.photos[from] - mean) * p.scale);
    }
    store_some(p.out, i, n, v);
  });
}
STORAGE_KERNELS(crop, ImageParams)

// The pixels under the filter of one output pixel, along an axis.
struct Taps {
  double center, support, total;
  int low, high;

  __device__ __forceinline__ Taps(float start, float length, unsigned at, unsigned outputs) {
    const double step = (double)length / outputs;
    center = (double)start + (at + 0.5) * step;
    support = fmax(fabs(step), 1.0);
    low = (int)floor(center - support);
    high = (int)ceil(center + support);
    total = 0.0;
    for (int tap = low; tap <= high; tap++) total += raw(tap);
  }
  __device__ __forceinline__ double raw(int tap) const {
    return fmax(1.0 - fabs((tap + 0.5 - center) / support), 0.0);
  }
  __device__ __forceinline__ float weight(int tap) const { return (float)(raw(tap) / total); }
};

template <class T> __device__ void sample_windows(const ImageParams& p) {
  const unsigned item = (unsigned)global_thread(), x = item % p.w, y = item / p.w % p.h, sample = item / p.w / p.h;
  if (sample >= p.n) return;
  const PhotoWindow window = p.windows[sample];
  const Taps rows(window.y, window.h, y, p.h), columns(window.x, window.w, window.flip ? p.w - 1 - x : x, p.w);
  const unsigned char* photo = p.photos + window.offset;
  float sum[3] = {0.0f, 0.0f, 0.0f};
  for (int i = rows.low; i <= rows.high; i++) {
    const float down = rows.weight(i);
    if (down == 0.0f) continue;
    const unsigned char* row = photo + (size_t)edge(i, window.photo_h) * window.photo_w * 3;
    float along[3] = {0.0f, 0.0f, 0.0f};
    for (int j = columns.low; j <= columns.high; j++) {
      const float weight = columns.weight(j);
      if (weight == 0.0f) continue;
      const unsigned char* pixel = row + (size_t)edge(j, window.photo_w) * 3;
#pragma unroll
      for (int c = 0; c < 3; c++) along[c] += weight * (float)pixel[c];
    }
#pragma unroll
    for (int c = 0; c < 3; c++) sum[c] += down * along[c];
  }
  T* to = (T*)p.out + (size_t)item * 3;
#pragma unroll
  for (int c = 0; c < 3; c++) to[c] = from_float<T>((sum[c] - p.mean[c]) * p.scale);
}
STORAGE_KERNELS(sample_windows, ImageParams)

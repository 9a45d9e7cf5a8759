// Batches of network input from photos: windows of RGB bytes at any sub-pixel position and scale, optionally mirrored,
// normalised, as [n, h, w, 3] in T.
//
// Layout: a table has one window per sample; photos, or the parts of them under the windows, are rows of RGB bytes anywhere in
// one buffer. A sample may also be there as values, f32 [h, w, 3], which are only rounded to T.
// Filter: that of src/data/resample.rs, a separable triangle one output pixel wide when shrinking and one input pixel wide when
// enlarging (bilinear interpolation); outside of a photo its edge pixels are repeated. A window on whole pixels of the size of
// the output is copied exactly.
//
// A block of 256 threads owns a tile of 16 x 16 output pixels of one sample, a thread one of them. The taps of the tile's 16
// columns and 16 rows are weighed once by 32 threads, in double, and kept in 8.4 KB of shared memory; more than 64 taps (a
// photo shrunk to less than 1/31) are taken 64 at a time. Weighing them in each thread is 16 times the work in double, which
// most cards compute at 1/32 or 1/64 of the rate of f32.
// Tolerance: weights in double rounded to f32, as there; sums in f32 along rows, then down, where the CPU sums down first; rounded
// once.
#include "channels.cuh"

struct PhotoWindow {
  long long offset;           // of pixel (0, 0) of the photo in bytes, also where the buffer has only the part that is read
  unsigned photo_w, photo_h;  // of the whole photo
  float x, y, w, h;           // of the window, in pixels of the photo
  unsigned flip;
  unsigned pitch;             // pixels from a row to the next; 0: `offset` is that of f32 values
};
PARAMETERS(PhotoWindow, 40);

struct ImageParams {
  const unsigned char* photos;
  const PhotoWindow* windows;  // [n]
  void* out;                   // [n, h, w, 3]
  unsigned n, h, w;
  float mean[3];
  float scale;
  unsigned unused;
};
PARAMETERS(ImageParams, 56);

constexpr int TILE = 16, TAPS = 64;

// The pixels under the filter of one output pixel along an axis: `count` from `first`, all inside the photo.
struct Taps {
  double center, support, total;
  int low, high, last, first, count;

  __device__ __forceinline__ Taps() : center(0), support(1), total(1), low(0), high(-1), last(0), first(0), count(0) {}
  __device__ __forceinline__ Taps(float start, float length, unsigned at, unsigned outputs, unsigned inputs) {
    const double step = (double)length / outputs;
    center = (double)start + (at + 0.5) * step;
    support = fmax(fabs(step), 1.0);
    low = (int)floor(center - support);
    high = (int)ceil(center + support);
    while (low < high && raw(low) == 0.0) low++;
    while (high > low && raw(high) == 0.0) high--;
    total = 0.0;
    for (int tap = low; tap <= high; tap++) total += raw(tap);
    last = (int)inputs - 1;
    first = inside(low);
    count = inside(high) - first + 1;
  }
  __device__ __forceinline__ double raw(int tap) const {
    return fmax(1.0 - fabs((tap + 0.5 - center) / support), 0.0);
  }
  __device__ __forceinline__ int inside(int tap) const { return min(max(tap, 0), last); }
  // The weights of TAPS taps from `from`; taps beyond the photo count for its edge pixel.
  __device__ __forceinline__ void weigh(float* weights, int from) const {
    for (int k = 0; k < min(TAPS, count - from); k++) weights[k] = 0.0f;
    for (int tap = low; tap <= high; tap++) {
      const int k = inside(tap) - first - from;
      if (k >= 0 && k < TAPS) weights[k] += (float)(raw(tap) / total);
    }
  }
};

template <class T> __device__ void sample_windows(const ImageParams& p) {
  // An odd pitch, so that 16 columns are 16 banks.
  __shared__ float weights[2][TILE][TAPS + 1];
  __shared__ int first[2][TILE], count[2][TILE];
  const unsigned across = (p.w + TILE - 1) / TILE, tiles = across * ((p.h + TILE - 1) / TILE);
  const unsigned sample = blockIdx.x / tiles, tile = blockIdx.x % tiles;
  const unsigned left = tile % across * TILE, top = tile / across * TILE;
  const unsigned column = threadIdx.x % TILE, row = threadIdx.x / TILE;
  const unsigned x = left + column, y = top + row;
  const bool inside = x < p.w && y < p.h;
  const PhotoWindow window = p.windows[sample];
  const unsigned char* from = p.photos + window.offset;
  T* to = (T*)p.out + (((size_t)sample * p.h + y) * p.w + x) * 3;
  if (window.pitch == 0) {
    if (!inside) return;
    const float* values = (const float*)from + ((size_t)y * p.w + x) * 3;
#pragma unroll
    for (int c = 0; c < 3; c++) to[c] = from_float<T>(values[c]);
    return;
  }

  // Columns, then rows; one list per thread.
  const bool weighs = threadIdx.x < 2 * TILE, is_row = row > 0;
  Taps taps;
  if (weighs) {
    const unsigned at = (is_row ? top : left) + column;
    if (is_row && at < p.h) taps = Taps(window.y, window.h, at, p.h, window.photo_h);
    if (!is_row && at < p.w) taps = Taps(window.x, window.w, window.flip ? p.w - 1 - at : at, p.w, window.photo_w);
    first[is_row][column] = taps.first;
    count[is_row][column] = taps.count;
  }
  __syncthreads();
  int most_columns = 0, most_rows = 0;
  for (int i = 0; i < TILE; i++) {
    most_columns = max(most_columns, count[0][i]);
    most_rows = max(most_rows, count[1][i]);
  }
  float sum[3] = {0.0f, 0.0f, 0.0f};
  for (int rows = 0; rows < most_rows; rows += TAPS) {
    for (int columns = 0; columns < most_columns; columns += TAPS) {
      if (weighs) taps.weigh(weights[is_row][column], is_row ? rows : columns);
      __syncthreads();
      const int down = inside ? min(TAPS, count[1][row] - rows) : 0, along = min(TAPS, count[0][column] - columns);
      for (int i = 0; i < down; i++) {
        const long long at = (long long)(first[1][row] + rows + i) * window.pitch + first[0][column] + columns;
        const unsigned char* pixel = from + at * 3;
        float line[3] = {0.0f, 0.0f, 0.0f};
        for (int j = 0; j < along; j++, pixel += 3) {
          const float weight = weights[0][column][j];
#pragma unroll
          for (int c = 0; c < 3; c++) line[c] += weight * (float)pixel[c];
        }
        const float weight = weights[1][row][i];
#pragma unroll
        for (int c = 0; c < 3; c++) sum[c] += weight * line[c];
      }
      __syncthreads();
    }
  }
  if (!inside) return;
#pragma unroll
  for (int c = 0; c < 3; c++) to[c] = from_float<T>((sum[c] - p.mean[c]) * p.scale);
}
STORAGE_KERNELS(sample_windows, ImageParams)

// Summed-area tables of response maps (Crow, SIGGRAPH 1984): the sum over any window then takes four reads.
//
// Layout: x [n, h, w, c] in T; response f32 [n, h, w], one channel or the mean of all; table f64 [n, fine h + 1, fine w + 1],
// where entry (y, x) is the sum of all values above and to the left. Values are the part above the floor, interpolated
// bilinearly to `fine` points per response-map cell, as in src/locate/window.rs.
// Three launches: `response`, a warp per cell, lanes over channels; `sat_rows`, a block of 256 threads per row, which scans
// 256 values at a time in shared memory (4 KB); `sat_columns`, a thread per column, top down.
// Tolerance: the mean in f32; sums in double, in one fixed order.
#include "channels.cuh"

struct ResponseParams {
  const void* x;
  float* response;
  size_t places;
  unsigned c;
  int channel;  // -1: the mean
};
PARAMETERS(ResponseParams, 32);

struct SatParams {
  const float* response;
  double* table;
  unsigned n, h, w;
  unsigned fine;
  float floor;
  unsigned unused;
};
PARAMETERS(SatParams, 40);

template <class T> __device__ void response(const ResponseParams& p) {
  const size_t place = global_thread() / 32;
  const unsigned lane = threadIdx.x % 32;
  const T* x = (const T*)p.x + place * p.c;
  float sum = 0.0f;
  if (place < p.places) {
    if (p.channel >= 0) sum = to_float(x[p.channel]);
    else
      for (unsigned c = lane; c < p.c; c += 32) sum += to_float(x[c]);
  }
  if (p.channel < 0) {
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    sum /= (float)p.c;
  }
  if (place < p.places && lane == 0) p.response[place] = sum;
}
STORAGE_KERNELS(response, ResponseParams)

// Position of fine point `at` between two response-map cells.
struct Between {
  unsigned low, high;
  float part;
};
__device__ __forceinline__ Between between(unsigned at, unsigned fine, unsigned size) {
  const float place = fminf(fmaxf(((float)at + 0.5f) / (float)fine - 0.5f, 0.0f), (float)(size - 1));
  const unsigned low = min((unsigned)place, size > 2 ? size - 2 : 0);
  return {low, min(low + 1, size - 1), place - (float)low};
}

// Row y + 1 of the table: prefix sums of row y alone.
extern "C" __global__ void sat_rows_f32(const SatParams p) {
  __shared__ double scan[2][256];
  const unsigned height = p.h * p.fine, width = p.w * p.fine, t = threadIdx.x;
  const unsigned sample = blockIdx.x / height, y = blockIdx.x % height;
  const Between rows = between(y, p.fine, p.h);
  const float* map = p.response + (size_t)sample * p.h * p.w;
  double* out = p.table + ((size_t)sample * (height + 1) + y + 1) * (width + 1);
  const auto value = [&](unsigned row, unsigned column) {
    return fmaxf(map[(size_t)row * p.w + column] - p.floor, 0.0f);
  };
  if (y == 0)
    for (unsigned x = t; x <= width; x += 256) out[(ptrdiff_t)x - (ptrdiff_t)(width + 1)] = 0.0;
  if (t == 0) out[0] = 0.0;
  double before = 0.0;
  for (unsigned base = 0; base < width; base += 256) {
    float v = 0.0f;
    if (base + t < width) {
      const Between columns = between(base + t, p.fine, p.w);
      const auto along = [&](unsigned row) {
        const float low = value(row, columns.low);
        return low + columns.part * (value(row, columns.high) - low);
      };
      const float top = along(rows.low);
      v = top + rows.part * (along(rows.high) - top);
    }
    // Each step adds the sums that end 1, 2, 4 .. values before.
    unsigned now = 0;
    scan[0][t] = (double)v;
    __syncthreads();
    for (unsigned step = 1; step < 256; step *= 2) {
      scan[1 - now][t] = scan[now][t] + (t >= step ? scan[now][t - step] : 0.0);
      now = 1 - now;
      __syncthreads();
    }
    if (base + t < width) out[base + t + 1] = before + scan[now][t];
    before += scan[now][255];
    __syncthreads();
  }
}

// Accumulates the rows.
extern "C" __global__ void sat_columns_f32(const SatParams p) {
  const unsigned height = p.h * p.fine, pitch = p.w * p.fine + 1;
  const unsigned item = (unsigned)global_thread(), sample = item / pitch, x = item % pitch;
  if (sample >= p.n) return;
  double* table = p.table + (size_t)sample * (height + 1) * pitch + x;
  double sum = 0.0;
  for (unsigned y = 1; y <= height; y++) {
    sum += table[(size_t)y * pitch];
    table[(size_t)y * pitch] = sum;
  }
}

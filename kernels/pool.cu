// max_pool and avg_pool, forward and backward.
//
// Layout: input [n, h, w, c], output [n, oh, ow, c]. A thread owns the channels of one pack (or one channel) of one
// output pixel, backward of one input pixel, and iterates over the windows: adjacent threads read adjacent addresses.
// Blocks of 256 threads over the flat map, no shared memory.
//
// Backward gathers: an input pixel visits each window that contains it, in row order, so there are no atomics and the order
// of the sum is fixed. If the maximum occurs several times in a window, the gradient goes to the first occurrence, so a pixel
// that equals the maximum checks those before it. Where windows of a maximum do not overlap (max_pool_backward_apart), a thread
// owns a window instead and reads everything once.
// Tolerance: max forward is exact; averages and sums of gradients are f32, rounded once.
#include "channels.cuh"

struct PoolParams {
  const void* x;       // backward of max: the input
  const void* y;       // backward of max: the output
  const void* from;    // forward: the input; backward: the gradient of the output
  void* to;
  unsigned n, c;
  unsigned h, w;       // input
  unsigned oh, ow;     // output
  unsigned kh, kw, sh, sw, ph, pw;
  unsigned lanes, rectified, unused;  // rectified: a rectifier wrote x, and its derivative is applied to the gradient
  Divisor by_lanes, by_w, by_h;  // of the map with a thread per pixel: channels in units of a thread, width, height
  Divisor by_sh, by_sw;
};
PARAMETERS(PoolParams, 152);

// What one window covers along an axis: input positions [begin, end), and the length that an average divides by.
struct Reach {
  unsigned begin, end, length;
};
__device__ __forceinline__ Reach reach(unsigned at, unsigned kernel, unsigned stride, unsigned pad, unsigned size) {
  unsigned start = at * stride, stop = min(start + kernel, size + 2 * pad);
  return {start > pad ? start - pad : 0, min(stop > pad ? stop - pad : 0, size), stop - start};
}
// The windows that contain input position `at`: [begin, end).
__device__ __forceinline__ Reach holders(unsigned at, unsigned kernel, Divisor stride, unsigned pad, unsigned count) {
  unsigned place = at + pad, last = (unsigned)divide((int)place, stride) + 1;
  return {place < kernel ? 0 : (unsigned)divide((int)(place - kernel), stride) + 1, min(last, count), 0};
}

// This thread's pixel and channel in [n, h, w, c]; false beyond the end.
struct Pixel {
  unsigned n, y, x, c;
};
template <int N> __device__ __forceinline__ bool pixel(const PoolParams& p, Pixel& at) {
  int i = (int)(blockIdx.x * blockDim.x + threadIdx.x);
  at.c = (unsigned)split_off(i, p.by_lanes) * N;
  at.x = (unsigned)split_off(i, p.by_w);
  at.y = (unsigned)split_off(i, p.by_h);
  at.n = (unsigned)i;
  return at.n < p.n;
}
__device__ __forceinline__ size_t place(const PoolParams& p, unsigned h, unsigned w, unsigned n, unsigned y, unsigned x,
                                        unsigned c) {
  return (((size_t)n * h + y) * w + x) * p.c + c;
}

template <class T, int N> __device__ __forceinline__ void max_forward(const PoolParams& p) {
  Pixel at;
  if (!pixel<N>(p, at)) return;
  const Reach rows = reach(at.y, p.kh, p.sh, p.ph, p.h), columns = reach(at.x, p.kw, p.sw, p.pw, p.w);
  Lanes<N> top = all_lanes<N>(-INFINITY);
  for (unsigned y = rows.begin; y < rows.end; y++)
    for (unsigned x = columns.begin; x < columns.end; x++) {
      const Lanes<N> v = load_lanes<T, N>(p.from, place(p, p.h, p.w, at.n, y, x, at.c));
#pragma unroll
      for (int k = 0; k < N; k++) top.v[k] = maximum(top.v[k], v.v[k]);
    }
  store_lanes<T, N>(p.to, place(p, p.oh, p.ow, at.n, at.y, at.x, at.c), top);
}
template <class T> __device__ void max_pool_forward(const PoolParams& p) { LANES(p.lanes, max_forward, p); }
STORAGE_KERNELS(max_pool_forward, PoolParams)

template <class T, int N> __device__ __forceinline__ void avg_forward(const PoolParams& p) {
  Pixel at;
  if (!pixel<N>(p, at)) return;
  const Reach rows = reach(at.y, p.kh, p.sh, p.ph, p.h), columns = reach(at.x, p.kw, p.sw, p.pw, p.w);
  Lanes<N> sum = all_lanes<N>(0.0f);
  for (unsigned y = rows.begin; y < rows.end; y++)
    for (unsigned x = columns.begin; x < columns.end; x++) {
      const Lanes<N> v = load_lanes<T, N>(p.from, place(p, p.h, p.w, at.n, y, x, at.c));
#pragma unroll
      for (int k = 0; k < N; k++) sum.v[k] += v.v[k];
    }
  const float scale = 1.0f / (float)(rows.length * columns.length);
#pragma unroll
  for (int k = 0; k < N; k++) sum.v[k] *= scale;
  store_lanes<T, N>(p.to, place(p, p.oh, p.ow, at.n, at.y, at.x, at.c), sum);
}
template <class T> __device__ void avg_pool_forward(const PoolParams& p) { LANES(p.lanes, avg_forward, p); }
STORAGE_KERNELS(avg_pool_forward, PoolParams)

template <int N> __device__ __forceinline__ Lanes<N> behind_rectifier(Lanes<N> d, const Lanes<N>& x) {
#pragma unroll
  for (int k = 0; k < N; k++) d.v[k] = deactivate(d.v[k], x.v[k], RELU);
  return d;
}

template <class T, int N> __device__ __forceinline__ void max_backward(const PoolParams& p) {
  Pixel at;
  if (!pixel<N>(p, at)) return;
  const Reach down = holders(at.y, p.kh, p.by_sh, p.ph, p.oh), across = holders(at.x, p.kw, p.by_sw, p.pw, p.ow);
  const size_t own = place(p, p.h, p.w, at.n, at.y, at.x, at.c);
  const Lanes<N> v = load_lanes<T, N>(p.x, own);
  Lanes<N> d = all_lanes<N>(0.0f);
  for (unsigned oy = down.begin; oy < down.end; oy++)
    for (unsigned ox = across.begin; ox < across.end; ox++) {
      const size_t window = place(p, p.oh, p.ow, at.n, oy, ox, at.c);
      const Lanes<N> top = load_lanes<T, N>(p.y, window);
      unsigned hits = 0;  // a bit per channel
#pragma unroll
      for (int k = 0; k < N; k++) hits |= (v.v[k] == top.v[k] ? 1u : 0u) << k;
      if (hits == 0) continue;
      const Reach rows = reach(oy, p.kh, p.sh, p.ph, p.h), columns = reach(ox, p.kw, p.sw, p.pw, p.w);
      for (unsigned y = rows.begin; y <= at.y && hits != 0; y++) {
        const unsigned end = y == at.y ? at.x : columns.end;
        for (unsigned x = columns.begin; x < end; x++) {
          const Lanes<N> before = load_lanes<T, N>(p.x, place(p, p.h, p.w, at.n, y, x, at.c));
#pragma unroll
          for (int k = 0; k < N; k++) hits &= ~((before.v[k] == top.v[k] ? 1u : 0u) << k);
        }
      }
      if (hits == 0) continue;
      const Lanes<N> g = load_lanes<T, N>(p.from, window);
#pragma unroll
      for (int k = 0; k < N; k++)
        if (hits >> k & 1) d.v[k] += g.v[k];
    }
  if (p.rectified) d = behind_rectifier(d, v);
  store_lanes<T, N>(p.to, own, d);
}
template <class T> __device__ void max_pool_backward(const PoolParams& p) { LANES(p.lanes, max_backward, p); }
STORAGE_KERNELS(max_pool_backward, PoolParams)

// Of an axis: the input positions that a thread writes, which are those of its window and those up to the next one.
__device__ __forceinline__ Reach cell(unsigned at, unsigned stride, unsigned pad, unsigned count, unsigned size) {
  unsigned start = at * stride, stop = start + stride;
  unsigned begin = start > pad ? min(start - pad, size) : 0, end = stop > pad ? min(stop - pad, size) : 0;
  return {at == 0 ? 0 : begin, at + 1 == count ? size : end, 0};
}
template <class T, int N> __device__ __forceinline__ void max_apart(const PoolParams& p) {
  Pixel at;
  if (!pixel<N>(p, at)) return;
  const Reach rows = reach(at.y, p.kh, p.sh, p.ph, p.h), columns = reach(at.x, p.kw, p.sw, p.pw, p.w);
  const Reach down = cell(at.y, p.sh, p.ph, p.oh, p.h), across = cell(at.x, p.sw, p.pw, p.ow, p.w);
  const size_t window = place(p, p.oh, p.ow, at.n, at.y, at.x, at.c);
  const Lanes<N> top = load_lanes<T, N>(p.y, window), g = load_lanes<T, N>(p.from, window);
  unsigned open = ~0u;  // a bit per channel whose maximum has not been found
  for (unsigned y = down.begin; y < down.end; y++)
    for (unsigned x = across.begin; x < across.end; x++) {
      const size_t own = place(p, p.h, p.w, at.n, y, x, at.c);
      Lanes<N> d = all_lanes<N>(0.0f);
      if (y < rows.end && x < columns.end) {
        const Lanes<N> v = load_lanes<T, N>(p.x, own);
#pragma unroll
        for (int k = 0; k < N; k++)
          if (v.v[k] == top.v[k] && (open >> k & 1)) d.v[k] = g.v[k], open &= ~(1u << k);
        if (p.rectified) d = behind_rectifier(d, v);
      }
      store_lanes<T, N>(p.to, own, d);
    }
}
template <class T> __device__ void max_pool_backward_apart(const PoolParams& p) { LANES(p.lanes, max_apart, p); }
STORAGE_KERNELS(max_pool_backward_apart, PoolParams)

template <class T, int N> __device__ __forceinline__ void avg_backward(const PoolParams& p) {
  Pixel at;
  if (!pixel<N>(p, at)) return;
  const Reach down = holders(at.y, p.kh, p.by_sh, p.ph, p.oh), across = holders(at.x, p.kw, p.by_sw, p.pw, p.ow);
  Lanes<N> d = all_lanes<N>(0.0f);
  for (unsigned oy = down.begin; oy < down.end; oy++) {
    const unsigned height = reach(oy, p.kh, p.sh, p.ph, p.h).length;
    for (unsigned ox = across.begin; ox < across.end; ox++) {
      const float scale = 1.0f / (float)(height * reach(ox, p.kw, p.sw, p.pw, p.w).length);
      const Lanes<N> g = load_lanes<T, N>(p.from, place(p, p.oh, p.ow, at.n, oy, ox, at.c));
#pragma unroll
      for (int k = 0; k < N; k++) d.v[k] += g.v[k] * scale;
    }
  }
  store_lanes<T, N>(p.to, place(p, p.h, p.w, at.n, at.y, at.x, at.c), d);
}
template <class T> __device__ void avg_pool_backward(const PoolParams& p) { LANES(p.lanes, avg_backward, p); }
STORAGE_KERNELS(avg_pool_backward, PoolParams)

// global_pool: one value per channel from a whole map, by mean, maximum, or log(mean(exp(r x))) / r.
//
// Layout: x [n, area, c], y [n, c]. A block of 256 threads owns `width` packs of channels (or channels) of one sample;
// 256 / width rows of threads stride over the positions, and the rows are reduced in shared memory (1 KB per channel of a
// pack) in one fixed tree order. Backward of the mean: a thread owns a pack of the flat map, no shared memory.
// NaN wins a maximum; equal maxima share the gradient equally.
// Tolerance: f32 sums, rounded once.
#include "channels.cuh"

struct GlobalPoolParams {
  const void* x;
  const void* dy;
  void* out;          // y, or dx
  unsigned n, area, c;
  unsigned mode;
  float sharpness;    // r
  unsigned width;     // threads along channels: a power of two, at most 32
  unsigned lanes;
  unsigned unused;
};
PARAMETERS(GlobalPoolParams, 56);

// As enum Mode of src/ops/global_pool.
enum { AVG, MAX, LSE };

// What a thread of a block owns: its sample, its first channel, and its first position.
template <int N> struct Share {
  unsigned sample, channel, row, rows;
  bool alive;

  __device__ __forceinline__ explicit Share(const GlobalPoolParams& p) {
    const unsigned tiles = (p.c / N + p.width - 1) / p.width;
    sample = blockIdx.x / tiles;
    channel = (blockIdx.x % tiles * p.width + threadIdx.x % p.width) * N;
    row = threadIdx.x / p.width;
    rows = 256 / p.width;
    alive = channel < p.c;
  }
  __device__ __forceinline__ size_t at(const GlobalPoolParams& p, unsigned place) const {
    return ((size_t)sample * p.area + place) * p.c + channel;
  }
};

// Reduces f(values) over a thread's positions.
template <class T, int N, class F, class J>
__device__ __forceinline__ Lanes<N> gather(const GlobalPoolParams& p, const Share<N>& share, float start, float* scratch,
                                           F f, J join) {
  Lanes<N> v = all_lanes<N>(start);
  if (share.alive)
    for (unsigned place = share.row; place < p.area; place += share.rows) {
      const Lanes<N> x = load_lanes<T, N>(p.x, share.at(p, place));
#pragma unroll
      for (int k = 0; k < N; k++) v.v[k] = join(v.v[k], f(x.v[k], k));
    }
  return over_rows<N>(v, scratch, p.width, join);
}

template <class T, int N> __device__ __forceinline__ void pool_forward(const GlobalPoolParams& p) {
  __shared__ float scratch[N * 256];
  const Share<N> share(p);
  const float scale = 1.0f / (float)p.area, r = p.sharpness;
  const auto add = [](float a, float b) { return a + b; };
  const auto same = [](float x, int) { return x; };
  Lanes<N> y;
  if (p.mode == AVG) {
    y = gather<T, N>(p, share, 0.0f, scratch, same, add);
#pragma unroll
    for (int k = 0; k < N; k++) y.v[k] *= scale;
  } else {
    y = gather<T, N>(p, share, -INFINITY, scratch, same, [](float a, float b) { return maximum(a, b); });
    if (p.mode == LSE) {
      // Shifted by the maximum, so that no exponential overflows.
      const Lanes<N> top = y;
      const auto shifted = [&](float x, int k) { return expf(r * (x - top.v[k])); };
      const Lanes<N> sum = gather<T, N>(p, share, 0.0f, scratch, shifted, add);
#pragma unroll
      for (int k = 0; k < N; k++) y.v[k] = top.v[k] + logf(sum.v[k] * scale) / r;
    }
  }
  if (share.alive && share.row == 0) store_lanes<T, N>(p.out, (size_t)share.sample * p.c + share.channel, y);
}
template <class T> __device__ void global_pool_forward(const GlobalPoolParams& p) { LANES(p.lanes, pool_forward, p); }
STORAGE_KERNELS(global_pool_forward, GlobalPoolParams)

// dx = dy / area
template <class T, int N> __device__ __forceinline__ void avg_backward(const GlobalPoolParams& p) {
  const unsigned item = (unsigned)global_thread(), items = p.c / N;
  const unsigned sample = item / (items * p.area);
  if (sample >= p.n) return;
  Lanes<N> d = load_lanes<T, N>(p.dy, (size_t)sample * p.c + item % items * N);
#pragma unroll
  for (int k = 0; k < N; k++) d.v[k] *= 1.0f / (float)p.area;
  store_lanes<T, N>(p.out, (size_t)item * N, d);
}
template <class T> __device__ void global_average_backward(const GlobalPoolParams& p) { LANES(p.lanes, avg_backward, p); }
STORAGE_KERNELS(global_average_backward, GlobalPoolParams)

// MAX: dx = dy / (number of maxima) where x is the maximum, else 0.
// LSE: dx = dy exp(r (x - top)) / (sum of those), not exp(r (x - y)): y has been rounded to T, and r would magnify that error.
template <class T, int N> __device__ __forceinline__ void pool_backward(const GlobalPoolParams& p) {
  __shared__ float scratch[N * 256];
  const Share<N> share(p);
  const float r = p.sharpness;
  const bool max = p.mode == MAX;
  const Lanes<N> top = gather<T, N>(
      p, share, -INFINITY, scratch, [](float x, int) { return x; }, [](float a, float b) { return maximum(a, b); });
  const auto weight = [&](float x, int k) {
    return max ? (x == top.v[k] ? 1.0f : 0.0f) : expf(r * (x - top.v[k]));
  };
  Lanes<N> part = gather<T, N>(p, share, 0.0f, scratch, weight, [](float a, float b) { return a + b; });
  if (!share.alive) return;
  const Lanes<N> dy = load_lanes<T, N>(p.dy, (size_t)share.sample * p.c + share.channel);
#pragma unroll
  for (int k = 0; k < N; k++) part.v[k] = dy.v[k] / (max ? fmaxf(part.v[k], 1.0f) : part.v[k]);
  for (unsigned place = share.row; place < p.area; place += share.rows) {
    Lanes<N> d = load_lanes<T, N>(p.x, share.at(p, place));
#pragma unroll
    for (int k = 0; k < N; k++) d.v[k] = part.v[k] * weight(d.v[k], k);
    store_lanes<T, N>(p.out, share.at(p, place), d);
  }
}
template <class T> __device__ void global_pool_backward(const GlobalPoolParams& p) { LANES(p.lanes, pool_backward, p); }
STORAGE_KERNELS(global_pool_backward, GlobalPoolParams)

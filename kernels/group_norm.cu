// Group normalisation, forward and backward: x' = (x - mean) / sqrt(variance + eps), y = x' weight + bias.
//
// Layout: x [n, area, c]; a group is c / groups neighbouring channels of a sample. A block of 256 threads owns a sample's
// group: `width` packs of channels (or channels) across, 256 / width rows of threads stride over the positions; wider groups
// are processed `width` packs at a time. The map is read three times: for the mean, for the variance and for the result; the
// last two hit the cache if a group fits. In groups of few channels the values of a position are less than a memory sector
// (32 bytes), which the blocks of neighbouring groups then read again.
// Sums are reduced in shared memory (1 KB per channel of a pack) in one fixed tree order. Gradients of the parameters: a
// block writes the sums of its sample's channels, and group_norm_parameters, with a thread per channel, adds them over the
// samples in order, without atomics. `out` may alias `dy`: a block writes only after it has all of its sums.
// Tolerance: f32 sums of differences to the mean, corrected for its rounding error; rounded once.
#include "channels.cuh"

struct GroupNormParams {
  const void* x;
  const void* dy;       // backward: the gradient of the output
  const float* weight;  // [c]
  const float* bias;    // [c], forward
  void* out;            // y, or dx; backward: may be null
  float* sums;          // backward: [n, 2, c], over a sample's positions of dy x', and of dy
  unsigned area, c, groups;
  float eps;
  unsigned width;       // threads along channels: a power of two, at most 32
  unsigned lanes;
};
PARAMETERS(GroupNormParams, 72);

struct GroupNormSums {
  const float* sums;  // [n, 2, c]
  float* d_weight;    // [c]
  float* d_bias;      // [c]
  unsigned n, c;
};
PARAMETERS(GroupNormSums, 32);

// A thread's share: its sample, its group, and its first position.
template <int N> struct Share {
  unsigned sample, first, channels, column, row, rows;  // first: the group's first channel

  __device__ __forceinline__ explicit Share(const GroupNormParams& p) {
    sample = blockIdx.x / p.groups;
    channels = p.c / p.groups;
    first = blockIdx.x % p.groups * channels;
    column = threadIdx.x % p.width * N;
    row = threadIdx.x / p.width;
    rows = 256 / p.width;
  }
  __device__ __forceinline__ size_t at(const GroupNormParams& p, unsigned place, unsigned channel) const {
    return ((size_t)sample * p.area + place) * p.c + channel;
  }
  // Calls f(i, channel) for the packs of this thread.
  template <class F> __device__ __forceinline__ void each(const GroupNormParams& p, F f) const {
    for (unsigned own = column; own < channels; own += p.width * N)
      for (unsigned place = row; place < p.area; place += rows) f(at(p, place, first + own), first + own);
  }
};

__device__ __forceinline__ float block_total(float value, float* scratch) {
  const float sum = block_sum(value, scratch);
  __syncthreads();
  return sum;
}

struct Moments {
  float mean, rest, scale;  // rest: rounding error of the mean
  __device__ __forceinline__ float normal(float x) const { return (x - mean - rest) * scale; }
};
template <class T, int N>
__device__ __forceinline__ Moments moments(const GroupNormParams& p, const Share<N>& share, float* scratch) {
  const float part = 1.0f / ((float)p.area * (float)share.channels);
  float sum = 0.0f;
  share.each(p, [&](size_t i, unsigned) {
    const Lanes<N> x = load_lanes<T, N>(p.x, i);
#pragma unroll
    for (int k = 0; k < N; k++) sum += x.v[k];
  });
  Moments m;
  m.mean = block_total(sum, scratch) * part;
  float rest = 0.0f, squares = 0.0f;
  share.each(p, [&](size_t i, unsigned) {
    const Lanes<N> x = load_lanes<T, N>(p.x, i);
#pragma unroll
    for (int k = 0; k < N; k++) {
      const float difference = x.v[k] - m.mean;
      rest += difference;
      squares += difference * difference;
    }
  });
  m.rest = block_total(rest, scratch) * part;
  const float variance = block_total(squares, scratch) * part - m.rest * m.rest;
  // NaN is kept.
  m.scale = 1.0f / sqrtf((variance < 0.0f ? 0.0f : variance) + p.eps);
  return m;
}

template <class T, int N> __device__ __forceinline__ void normalise(const GroupNormParams& p) {
  __shared__ float scratch[256];
  const Share<N> share(p);
  const Moments m = moments<T, N>(p, share, scratch);
  share.each(p, [&](size_t i, unsigned channel) {
    Lanes<N> x = load_lanes<T, N>(p.x, i);
#pragma unroll
    for (int k = 0; k < N; k++) x.v[k] = m.normal(x.v[k]) * p.weight[channel + k] + p.bias[channel + k];
    store_lanes<T, N>(p.out, i, x);
  });
}
template <class T> __device__ void group_norm_forward(const GroupNormParams& p) { LANES(p.lanes, normalise, p); }
STORAGE_KERNELS(group_norm_forward, GroupNormParams)

// dx = (g - mean of g - x' mean of (g x')) / sqrt(variance + eps) with g = weight dy
template <class T, int N> __device__ __forceinline__ void differentiate(const GroupNormParams& p) {
  __shared__ float scratch[N * 256];
  const Share<N> share(p);
  const Moments m = moments<T, N>(p, share, scratch);
  const auto add = [](float a, float b) { return a + b; };
  float along = 0.0f, plain = 0.0f;
  for (unsigned tile = 0; tile < share.channels; tile += p.width * N) {
    const bool alive = tile + share.column < share.channels;
    const unsigned channel = share.first + tile + share.column;
    Lanes<N> with = all_lanes<N>(0.0f), without = with;
    if (alive)
      for (unsigned place = share.row; place < p.area; place += share.rows) {
        const size_t i = share.at(p, place, channel);
        const Lanes<N> x = load_lanes<T, N>(p.x, i), dy = load_lanes<T, N>(p.dy, i);
#pragma unroll
        for (int k = 0; k < N; k++) {
          with.v[k] += dy.v[k] * m.normal(x.v[k]);
          without.v[k] += dy.v[k];
        }
      }
    with = over_rows<N>(with, scratch, p.width, add);
    without = over_rows<N>(without, scratch, p.width, add);
    if (!alive || share.row != 0) continue;
    float* sums = p.sums + (size_t)share.sample * 2 * p.c + channel;
#pragma unroll
    for (int k = 0; k < N; k++) {
      sums[k] = with.v[k];
      sums[p.c + k] = without.v[k];
      along += p.weight[channel + k] * with.v[k];
      plain += p.weight[channel + k] * without.v[k];
    }
  }
  if (!p.out) return;
  const float part = 1.0f / ((float)p.area * (float)share.channels);
  along = block_total(along, scratch) * part;
  plain = block_total(plain, scratch) * part;
  share.each(p, [&](size_t i, unsigned channel) {
    const Lanes<N> x = load_lanes<T, N>(p.x, i);
    Lanes<N> d = load_lanes<T, N>(p.dy, i);
#pragma unroll
    for (int k = 0; k < N; k++)
      d.v[k] = (p.weight[channel + k] * d.v[k] - plain - m.normal(x.v[k]) * along) * m.scale;
    store_lanes<T, N>(p.out, i, d);
  });
}
template <class T> __device__ void group_norm_backward(const GroupNormParams& p) { LANES(p.lanes, differentiate, p); }
STORAGE_KERNELS(group_norm_backward, GroupNormParams)

// d_weight and d_bias: sums over the samples.
extern "C" __global__ void group_norm_parameters_f32(const GroupNormSums p) {
  const size_t channel = global_thread();
  if (channel >= p.c) return;
  float with = 0.0f, without = 0.0f;
  for (unsigned sample = 0; sample < p.n; sample++) {
    const float* sums = p.sums + (size_t)sample * 2 * p.c + channel;
    with += sums[0];
    without += sums[p.c];
  }
  p.d_weight[channel] = with;
  p.d_bias[channel] = without;
}

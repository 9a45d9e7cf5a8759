// Local response normalisation over neighbouring channels, forward and backward.
//
// Layout: [pixels, c]. A thread owns a pack of channels of one pixel (or one channel); blocks of 256 threads over the
// flat map, no shared memory. For the usual window of five channels and packs, a thread also reads the pack before and
// the pack after: a window covers two channels on either side, and backward needs the windows of two more; all loads are 16
// bytes wide and neighbours are cached. Other windows use loops over single values.
// Tolerance: f32 sums, rounded once; the power is two square roots for beta = 0.75, else powf.
#include "channels.cuh"

struct LrnParams {
  const void* x;
  const void* y;     // backward: the output
  const void* dy;    // backward: the gradient of the output
  void* out;         // y, or dx
  size_t count;      // pixels * c
  unsigned c;
  unsigned size;     // the window of channel i is [i - size / 2, i - size / 2 + size)
  float alpha;       // alpha / size
  float beta, k;
  unsigned lanes;
};
PARAMETERS(LrnParams, 64);

// With k = 0, an all-zero window must not become NaN. NaN propagates.
__device__ __forceinline__ float at_least_tiny(float s) { return s < 1.17549435e-38f ? 1.17549435e-38f : s; }

__device__ __forceinline__ float power(float s, float beta) {
  if (beta == 0.75f) {
    const float root = sqrtf(s);
    return 1.0f / (root * sqrtf(root));
  }
  return powf(s, -beta);
}

// A pack with its neighbours, zeros beyond the pixel: value k of the pack is v[N + k].
template <int N> struct Near {
  float v[3 * N];
};
template <class T, int N> __device__ __forceinline__ Near<N> load_near(const void* from, size_t i, unsigned channel, unsigned c) {
  const Lanes<N> before = channel == 0 ? all_lanes<N>(0.0f) : load_lanes<T, N>(from, i - N);
  const Lanes<N> own = load_lanes<T, N>(from, i);
  const Lanes<N> after = channel + N == c ? all_lanes<N>(0.0f) : load_lanes<T, N>(from, i + N);
  Near<N> near;
#pragma unroll
  for (int k = 0; k < N; k++) {
    near.v[k] = before.v[k];
    near.v[N + k] = own.v[k];
    near.v[2 * N + k] = after.v[k];
  }
  return near;
}
// s of the channel at v[at], for windows of five.
template <int N> __device__ __forceinline__ float scale5(const LrnParams& p, const Near<N>& x, int at) {
  float sum = 0.0f;
#pragma unroll
  for (int j = -2; j <= 2; j++) sum += x.v[at + j] * x.v[at + j];
  return at_least_tiny(p.k + p.alpha * sum);
}
// s of channel `channel` of the pixel that begins at `from`.
template <class T> __device__ __forceinline__ float scale_at(const LrnParams& p, const T* from, unsigned channel) {
  const unsigned before = p.size / 2, begin = channel > before ? channel - before : 0;
  const unsigned end = min(channel + (p.size - before), p.c);
  float sum = 0.0f;
  for (unsigned j = begin; j < end; j++) {
    const float x = to_float(from[j]);
    sum += x * x;
  }
  return at_least_tiny(p.k + p.alpha * sum);
}

// y = x / s^beta
template <class T> __device__ void lrn_forward(const LrnParams& p) {
  constexpr int N = Pack<T>::N;
  const unsigned item = (unsigned)global_thread(), channel = item % (p.c / p.lanes) * p.lanes;
  const size_t i = (size_t)item * p.lanes;
  if (i >= p.count) return;
  if (p.lanes == 1) {
    const T* from = (const T*)p.x + (i - channel);
    ((T*)p.out)[i] = from_float<T>(to_float(from[channel]) * power(scale_at(p, from, channel), p.beta));
    return;
  }
  const Near<N> x = load_near<T, N>(p.x, i, channel, p.c);
  Lanes<N> y;
#pragma unroll
  for (int k = 0; k < N; k++) y.v[k] = x.v[N + k] * power(scale5(p, x, N + k), p.beta);
  store_lanes<T, N>(p.out, i, y);
}
STORAGE_KERNELS(lrn_forward, LrnParams)

// dx = dy / s^beta - 2 alpha beta / size x * (sum over the windows j that contain the channel of dy_j y_j / s_j)
template <class T> __device__ void lrn_backward(const LrnParams& p) {
  constexpr int N = Pack<T>::N;
  const unsigned item = (unsigned)global_thread(), channel = item % (p.c / p.lanes) * p.lanes;
  const size_t i = (size_t)item * p.lanes;
  if (i >= p.count) return;
  const float factor = 2.0f * p.alpha * p.beta;
  if (p.lanes == 1) {
    const T* x = (const T*)p.x + (i - channel);
    const T* y = (const T*)p.y + (i - channel);
    const T* dy = (const T*)p.dy + (i - channel);
    // Channel i is in the windows of the channels from i - (size - 1) / 2 on: the mirrored window.
    const unsigned before = (p.size - 1) / 2, begin = channel > before ? channel - before : 0;
    const unsigned end = min(channel + (p.size - before), p.c);
    float sum = 0.0f;
    for (unsigned j = begin; j < end; j++) sum += to_float(dy[j]) * to_float(y[j]) / scale_at(p, x, j);
    const float d = to_float(dy[channel]) * power(scale_at(p, x, channel), p.beta);
    ((T*)p.out)[i] = from_float<T>(d - factor * to_float(x[channel]) * sum);
    return;
  }
  const Near<N> x = load_near<T, N>(p.x, i, channel, p.c), y = load_near<T, N>(p.y, i, channel, p.c);
  const Near<N> dy = load_near<T, N>(p.dy, i, channel, p.c);
  float s[N + 4], ratio[N + 4];
#pragma unroll
  for (int k = 0; k < N + 4; k++) {
    s[k] = scale5(p, x, N + k - 2);
    const float product = dy.v[N + k - 2] * y.v[N + k - 2];
    // Beyond the pixel s may be 0; there are no channels there.
    const bool inside = channel + k >= 2 && channel + k - 2 < p.c;
    ratio[k] = inside ? product / s[k] : 0.0f;
  }
  Lanes<N> d;
#pragma unroll
  for (int k = 0; k < N; k++) {
    const float sum = ratio[k] + ratio[k + 1] + ratio[k + 2] + ratio[k + 3] + ratio[k + 4];
    d.v[k] = dy.v[N + k] * power(s[k + 2], p.beta) - factor * x.v[N + k] * sum;
  }
  store_lanes<T, N>(p.out, i, d);
}
STORAGE_KERNELS(lrn_backward, LrnParams)

// Softmax along the channels of each pixel, forward and backward.
//
// Layout: [pixels, c]. A group of `width` adjacent lanes of a warp (1 to 32, a power of two) owns a pixel and strides
// over its channels, a pack or one channel at a time; its sums are combined by shuffles in a fixed order. A block of 256
// threads owns 256 / width pixels; no shared memory. The maximum is subtracted first, so nothing overflows.
// Tolerance: f32 sums, rounded once.
#include "softmax.cuh"

// y = exp(x) / sum of exp(x)
template <class T, int N> __device__ __forceinline__ void forward_lanes(const SoftmaxParams& p) {
  const Group group(p.pixels, p.width);
  const size_t at = group.pixel * p.c;
  const Softmax soft = softmax_of<T, N>(p.x, at, p.c, group);
  if (!group.alive) return;
  for (unsigned c = group.lane * N; c < p.c; c += group.width * N) {
    Lanes<N> y = load_lanes<T, N>(p.x, at + c);
#pragma unroll
    for (int k = 0; k < N; k++) y.v[k] = expf(y.v[k] - soft.top) / soft.sum;
    store_lanes<T, N>(p.out, at + c, y);
  }
}
template <class T> __device__ void softmax_forward(const SoftmaxParams& p) { LANES(p.lanes, forward_lanes, p); }
STORAGE_KERNELS(softmax_forward, SoftmaxParams)

// dx = y (dy - sum of dy y); x is the output here
template <class T, int N> __device__ __forceinline__ void backward_lanes(const SoftmaxParams& p) {
  const Group group(p.pixels, p.width);
  const size_t at = group.pixel * p.c;
  float dot = 0.0f;
  if (group.alive)
    for (unsigned c = group.lane * N; c < p.c; c += group.width * N) {
      const Lanes<N> y = load_lanes<T, N>(p.x, at + c), dy = load_lanes<T, N>(p.dy, at + c);
#pragma unroll
      for (int k = 0; k < N; k++) dot += dy.v[k] * y.v[k];
    }
  dot = group.sum(dot);
  if (!group.alive) return;
  for (unsigned c = group.lane * N; c < p.c; c += group.width * N) {
    const Lanes<N> y = load_lanes<T, N>(p.x, at + c);
    Lanes<N> d = load_lanes<T, N>(p.dy, at + c);
#pragma unroll
    for (int k = 0; k < N; k++) d.v[k] = y.v[k] * (d.v[k] - dot);
    store_lanes<T, N>(p.out, at + c, d);
  }
}
template <class T> __device__ void softmax_backward(const SoftmaxParams& p) { LANES(p.lanes, backward_lanes, p); }
STORAGE_KERNELS(softmax_backward, SoftmaxParams)

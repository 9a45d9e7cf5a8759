// Common parts of softmax and its cross-entropy: a group of lanes that owns the channels of a pixel.
#pragma once
#include "channels.cuh"

struct SoftmaxParams {
  const void* x;   // backward of softmax: its output
  const void* dy;
  void* out;
  size_t pixels;
  unsigned c;
  unsigned width;  // lanes of a group: 1, 2, .. 32
  unsigned lanes;
  unsigned unused;
};
PARAMETERS(SoftmaxParams, 48);

// Lanes of a warp that own one pixel; those beyond the last pixel only take part in shuffles.
struct Group {
  size_t pixel;
  unsigned lane, width;
  bool alive;

  __device__ __forceinline__ Group(size_t pixels, unsigned group_width)
      : pixel(global_thread() / group_width), lane(threadIdx.x % group_width), width(group_width), alive(pixel < pixels) {}

  // All lanes of a warp must call these; the order of the sum is fixed.
  __device__ __forceinline__ float sum(float v) const {
    for (unsigned step = width / 2; step > 0; step /= 2) v += __shfl_xor_sync(0xffffffffu, v, (int)step);
    return v;
  }
  __device__ __forceinline__ float largest(float v) const {
    for (unsigned step = width / 2; step > 0; step /= 2) v = fmaxf(v, __shfl_xor_sync(0xffffffffu, v, (int)step));
    return v;
  }
};

// The largest value of a pixel and the sum of exp(x - top). NaN among the values makes the sum NaN.
struct Softmax {
  float top, sum;
};
template <class T, int N>
__device__ __forceinline__ Softmax softmax_of(const void* x, size_t at, unsigned c, const Group& group) {
  float top = -INFINITY, sum = 0.0f;
  if (group.alive)
    for (unsigned i = group.lane * N; i < c; i += group.width * N) {
      const Lanes<N> v = load_lanes<T, N>(x, at + i);
#pragma unroll
      for (int k = 0; k < N; k++) top = fmaxf(top, v.v[k]);
    }
  top = group.largest(top);
  if (group.alive)
    for (unsigned i = group.lane * N; i < c; i += group.width * N) {
      const Lanes<N> v = load_lanes<T, N>(x, at + i);
#pragma unroll
      for (int k = 0; k < N; k++) sum += expf(v.v[k] - top);
    }
  return {top, group.sum(sum)};
}

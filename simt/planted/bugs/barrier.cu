// Barriers and warp collectives that not all threads reach. One bug per kernel, in the line that names it.
#include "simt.cuh"

extern "C" __global__ void divergent_barrier(const float* x, float* y, int n) {
  __shared__ float s[256];
  int t = threadIdx.x;
  s[t] = x[t];
  if (t < 100)
    __syncthreads();  // BUG divergent_barrier
  y[t] = s[t];
}
extern "C" __global__ void early_return(const float* x, float* y, int n) {
  int t = threadIdx.x;
  if (t >= n) return;
  __syncthreads();  // BUG early_return
  y[t] = x[t];
}
extern "C" __global__ void two_barriers(const float* x, float* y, int n) {
  int t = threadIdx.x;
  if (t < 128) {
    __syncthreads();
  } else {
    __syncthreads();  // BUG two_barriers
  }
  y[t] = x[t];
}
extern "C" __global__ void mask_names_absent_lanes(const float* x, float* y, int n) {
  int t = threadIdx.x;
  float v = x[t];
  if (t % 32 < 16)
    v += __shfl_xor_sync(0xffffffffu, v, 1);  // BUG mask_names_absent_lanes
  y[t] = v;
}
extern "C" __global__ void mask_without_own_lane(const float* x, float* y, int n) {
  int t = threadIdx.x;
  y[t] = __shfl_xor_sync(0x0000ffffu, x[t], 1);  // BUG mask_without_own_lane
}
extern "C" __global__ void masks_disagree(const float* x, float* y, int n) {
  int t = threadIdx.x;
  unsigned mask = t % 2 ? 0xffffffffu : 0x55555555u;
  y[t] = __shfl_sync(mask, x[t], 0);  // BUG masks_disagree
}
extern "C" __global__ void mma_in_a_short_warp(const float* x, float* y, int n) {
  uint32_t a[4] = {}, b[2] = {};
  float d[4] = {};
  mma_m16n8k8_tf32(d, a, b);  // BUG mma_in_a_short_warp
  y[threadIdx.x] = d[0] + x[threadIdx.x];
}

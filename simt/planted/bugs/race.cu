// Unordered accesses. One bug per kernel, in the line that names it.
#include "simt.cuh"

extern "C" __global__ void missing_syncthreads_read_after_write(const float* x, float* y, int n) {
  __shared__ float s[256];
  int t = threadIdx.x;
  s[t] = x[t];  // BUG missing_syncthreads_read_after_write
  y[t] = s[255 - t];  // BUG missing_syncthreads_read_after_write
}
extern "C" __global__ void missing_syncthreads_write_after_read(const float* x, float* y, int n) {
  __shared__ float s[256];
  int t = threadIdx.x;
  float sum = 0.0f;
  for (int round = 0; round < 2; round++) {
    s[t] = x[t] + round;  // BUG missing_syncthreads_write_after_read
    __syncthreads();
    sum += s[255 - t];  // BUG missing_syncthreads_write_after_read
  }
  y[t] = sum;
}
extern "C" __global__ void write_after_write(const float* x, float* y, int n) {
  __shared__ float s[128];
  int t = threadIdx.x;
  s[t / 2] = x[t];  // BUG write_after_write
  __syncthreads();
  y[t] = s[t / 2];
}
extern "C" __global__ void missing_syncwarp(const float* x, float* y, int n) {
  __shared__ float s[32];
  int t = threadIdx.x;
  s[t] = x[t];  // BUG missing_syncwarp
  float v = __shfl_xor_sync(0xffffffffu, x[t], 1);  // orders no memory
  y[t] = v + s[t ^ 1];  // BUG missing_syncwarp
}
extern "C" __global__ void syncwarp_of_half_a_warp(const float* x, float* y, int n) {
  __shared__ float s[32];
  int t = threadIdx.x;
  s[t] = x[t];  // BUG syncwarp_of_half_a_warp
  __syncwarp(t < 16 ? 0x0000ffffu : 0xffff0000u);
  y[t] = s[t ^ 16];  // BUG syncwarp_of_half_a_warp
}
extern "C" __global__ void plain_write_beside_atomic(const float* x, float* y, int n) {
  __shared__ int count;
  int t = threadIdx.x;
  if (t == 0) count = 0;  // BUG plain_write_beside_atomic
  atomicAdd(&count, 1);  // BUG plain_write_beside_atomic
  __syncthreads();
  y[t] = count;
}
extern "C" __global__ void cross_block_write(const float* x, float* y, int n) {
  int i = blockIdx.x * 255 + threadIdx.x;
  if (i < n) y[i] = x[i];  // BUG cross_block_write
}
extern "C" __global__ void cross_block_read(const float* x, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  y[i] = x[i];  // BUG cross_block_read
  __syncthreads();
  y[i] += blockIdx.x == 0 ? 0.0f : y[i - blockDim.x];  // BUG cross_block_read
}
extern "C" __global__ void cp_async_without_wait(const float* x, float* y, int n) {
  __shared__ __align__(16) float s[128];
  int t = threadIdx.x;
  cp_async16(&s[4 * t], &x[4 * t]);
  cp_async_commit();
  cp_async_wait<1>();  // leaves the only group pending
  __syncthreads();
  y[t] = s[t];  // BUG cp_async_without_wait
}
extern "C" __global__ void cp_async_without_barrier(const float* x, float* y, int n) {
  __shared__ __align__(16) float s[128];
  int t = threadIdx.x;
  cp_async16(&s[4 * t], &x[4 * t]);  // BUG cp_async_without_barrier
  cp_async_wait_all();
  y[t] = s[127 - 4 * t];  // BUG cp_async_without_barrier
}

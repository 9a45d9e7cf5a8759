// Invalid accesses. One bug per kernel, in the line that names it.
#include "simt.cuh"

extern "C" __global__ void out_of_bounds_read(const float* x, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = x[i + 1];  // BUG out_of_bounds_read
}
extern "C" __global__ void out_of_bounds_write(const float* x, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= n) y[i] = x[min(i, n - 1)];  // BUG out_of_bounds_write
}
extern "C" __global__ void out_of_bounds_float4(const float* x, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  float4 v = reinterpret_cast<const float4*>(x)[i];
  if (4 * i < n)
    reinterpret_cast<float4*>(y)[i + 1] = v;  // BUG out_of_bounds_float4
}
extern "C" __global__ void null_pointer(const float* x, float* y, int n) {
  y[threadIdx.x] = x[threadIdx.x];  // BUG null_pointer
}
extern "C" __global__ void uninitialised_global(const float* x, float* y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] += x[i];  // BUG uninitialised_global
}
extern "C" __global__ void uninitialised_shared(const float* x, float* y, int n) {
  __shared__ float s[256];
  int t = threadIdx.x;
  if (t < 200) s[t] = x[t];
  __syncthreads();
  y[t] = s[t];  // BUG uninitialised_shared
}
extern "C" __global__ void uninitialised_dynamic_shared(const float* x, float* y, int n) {
  DYN_SHARED(float, s);
  int t = threadIdx.x;
  if (t != 7) s[t] = x[t];
  __syncthreads();
  y[t] = s[t];  // BUG uninitialised_dynamic_shared
}
extern "C" __global__ void static_shared_overrun(const float* x, float* y, int n) {
  __shared__ float a[4][33];
  int t = threadIdx.x;
  a[t / 8][(t % 8) * 5] = x[t];  // BUG static_shared_overrun
  __syncthreads();
  y[t] = a[t / 8][0];
}
extern "C" __global__ void dynamic_shared_overrun(const float* x, float* y, int n) {
  DYN_SHARED(float, s);
  int t = threadIdx.x;
  s[t + 1] = x[t];  // BUG dynamic_shared_overrun
  __syncthreads();
  y[t] = s[t + 1];
}
extern "C" __global__ void atomic_out_of_bounds(const float* x, float* y, int n) {
  atomicAdd(&y[n], x[threadIdx.x]);  // BUG atomic_out_of_bounds
}
extern "C" __global__ void ldmatrix_outside_shared(const half* x, float* y, int n) {
  uint32_t r[1];
  ldmatrix_x1(r, x + threadIdx.x % 8 * 8);  // BUG ldmatrix_outside_shared
  y[threadIdx.x] = r[0];
}
extern "C" __global__ void misaligned_float4(const float* x, float* y, int n) {
  int t = threadIdx.x;
  float4 v = *reinterpret_cast<const float4*>(x + t);  // BUG misaligned_float4
  y[t] = v.x + v.w;
}

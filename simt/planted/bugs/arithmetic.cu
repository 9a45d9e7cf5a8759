// Arithmetic and stack. One bug per kernel, in the line that names it.
#include "simt.cuh"

extern "C" __global__ void integer_overflow(const float* x, float* y, int n) {
  int t = threadIdx.x;
  int offset = (n << 20) * 64 + t;  // BUG integer_overflow
  y[t] = x[(unsigned)offset % n];
}
extern "C" __global__ void division_by_zero(const float* x, float* y, int n) {
  int t = threadIdx.x;
  y[t] = x[t % (n - 64)];  // BUG division_by_zero
}
extern "C" __global__ void index_outside_local_array(const float* x, float* y, int n) {
  int t = threadIdx.x;
  float window[8];
  for (int i = 0; i < 8; i++) window[i] = x[i];
  y[t] = window[t];  // BUG index_outside_local_array
}
__device__ __noinline__ float deep(const float* x, int n) {
  volatile float room[256];
  room[n % 256] = x[n % 32];
  return n == 0 ? room[0] : deep(x, n - 1) + room[n % 256];
}
extern "C" __global__ void endless_recursion(const float* x, float* y, int n) {
  y[threadIdx.x] = deep(x, n * 100);
}
extern "C" __global__ void failed_assertion(const float* x, float* y, int n) {
  int t = threadIdx.x;
  assert(t < n);  // BUG failed_assertion
  y[t] = x[t];
}

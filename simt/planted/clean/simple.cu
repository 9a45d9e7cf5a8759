// One thread per element, and reductions.
#include "simt.cuh"

// y[n] += a * x[n]
extern "C" __global__ void saxpy(float a, const float* __restrict__ x, float* __restrict__ y, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) y[i] = fmaf(a, x[i], y[i]);
}

struct Scale {  // parameters by value, with a pointer inside
  const float* x;
  float* y;
  float factor;
  int n;
};
extern "C" __global__ void scale(Scale p) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < p.n) p.y[i] = p.factor * p.x[i];
}

// out[1] += sum of x[n]: shuffles, then shared memory, then one atomic per block
extern "C" __global__ void __launch_bounds__(256) sum(const float* __restrict__ x, float* out, int n) {
  __shared__ float part[8];
  float v = 0.0f;
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) v += x[i];
#pragma unroll
  for (int o = 16; o > 0; o >>= 1) v += __shfl_down_sync(0xffffffffu, v, o);
  if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
  __syncthreads();
  if (threadIdx.x < 32) {
    v = threadIdx.x < blockDim.x / 32 ? part[threadIdx.x] : 0.0f;
    for (int o = 4; o > 0; o >>= 1) v += __shfl_xor_sync(0xffffffffu, v, o);
    if (threadIdx.x == 0) atomicAdd(out, v);
  }
}

// out[1] = sum of x[n]: the block that finishes last adds the partial sums of all in part[gridDim.x]; count[1] starts at 0
extern "C" __global__ void sum_last_block(const float* x, float* part, unsigned* count, float* out, int n) {
  __shared__ float s[256];
  __shared__ bool last;
  int t = threadIdx.x;
  float v = 0.0f;
  for (int i = blockIdx.x * blockDim.x + t; i < n; i += gridDim.x * blockDim.x) v += x[i];
  s[t] = v;
  __syncthreads();
  for (int o = 128; o > 0; o >>= 1) {
    if (t < o) s[t] += s[t + o];
    __syncthreads();
  }
  if (t == 0) {
    part[blockIdx.x] = s[0];
    __threadfence();
    last = atomicInc(count, gridDim.x - 1) == gridDim.x - 1;
  }
  __syncthreads();
  if (last && t == 0) {
    __threadfence();
    float total = 0.0f;
    for (int b = 0; b < (int)gridDim.x; b++) total += part[b];
    *out = total;
  }
}

// y[rows, cols] = softmax of x[rows, cols]; one block per row, the row in dynamic shared memory
extern "C" __global__ void __launch_bounds__(256) softmax(const float* __restrict__ x, float* __restrict__ y, int cols) {
  DYN_SHARED(float, row);
  __shared__ float part[8];
  auto reduce = [&](float v, auto op) {
    for (int o = 16; o > 0; o >>= 1) v = op(v, __shfl_xor_sync(0xffffffffu, v, o));
    if (threadIdx.x % 32 == 0) part[threadIdx.x / 32] = v;
    __syncthreads();
    v = part[0];
    for (int w = 1; w < 8; w++) v = op(v, part[w]);
    __syncthreads();
    return v;
  };
  const float* in = x + (size_t)blockIdx.x * cols;
  float top = -INFINITY, total = 0.0f;
  for (int c = threadIdx.x; c < cols; c += blockDim.x) top = fmaxf(top, row[c] = in[c]);
  top = reduce(top, [](float a, float b) { return fmaxf(a, b); });
  for (int c = threadIdx.x; c < cols; c += blockDim.x) total += row[c] = __expf(row[c] - top);
  total = reduce(total, [](float a, float b) { return a + b; });
  for (int c = threadIdx.x; c < cols; c += blockDim.x) y[(size_t)blockIdx.x * cols + c] = row[c] / total;
}

// Correctly ordered patterns, each by a different rule. y[32] = x[31 - t] + 1.
extern "C" __global__ void ordered(const float* x, float* y, int n) {
  __shared__ float s[32];
  __shared__ int votes[2];
  int t = threadIdx.x;
  if (t < 2) votes[t] = 0;
  s[t] = x[t];
  __syncwarp(t < 16 ? 0x0000ffffu : 0xffff0000u);  // halves exchange
  float v = s[t ^ 15];
  __syncwarp();
  s[t ^ 16] = v;  // the other half's position
  __syncwarp();
  atomicAdd(&votes[t % 2], 1);
  __syncwarp();
  y[t] = s[t] + (votes[0] == 16 && votes[1] == 16 ? 1.0f : 0.0f);
}

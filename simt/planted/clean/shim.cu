// The shim's functions, one by one, for comparison with a plain loop on the host.
#include "simt.cuh"

// out[2 n]: bits of x[n] as half, then as bfloat16; back[2 n]: the same as floats again
extern "C" __global__ void convert(const float* x, unsigned short* out, float* back, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  half h = __float2half(x[i]);
  nv_bfloat16 b = __float2bfloat16(x[i]);
  out[i] = __half_as_ushort(h);
  out[n + i] = __bfloat16_as_ushort(b);
  back[i] = __half2float(h);
  back[n + i] = __bfloat162float(b);
}

// out[0..n] = a + b, out[n..2n] = a * b, each rounded to half
extern "C" __global__ void half_arithmetic(const half* a, const half* b, half* out, int n) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= n) return;
  out[i] = a[i] + b[i];
  out[n + i] = a[i] * b[i];
}

// one warp; out[13][32]
extern "C" __global__ void warp_operations(int* out) {
  const unsigned all = 0xffffffffu;
  int t = threadIdx.x, *o = out + t;
  o[0 * 32] = __shfl_sync(all, t, 5, 8);
  o[1 * 32] = __shfl_up_sync(all, t, 3, 16);
  o[2 * 32] = __shfl_down_sync(all, t, 3, 16);
  o[3 * 32] = __shfl_xor_sync(all, t, 9);
  o[4 * 32] = __ballot_sync(all, t % 3 == 0);
  o[5 * 32] = __any_sync(all, t == 31) + 2 * __all_sync(all, t < 31);
  o[6 * 32] = __match_any_sync(all, t / 4);
  o[7 * 32] = __reduce_add_sync(all, t - 20);
  o[8 * 32] = __reduce_min_sync(all, t - 20);
  o[10 * 32] = __shfl_xor_sync(all, t, 32 + 9);  // offsets count modulo 32
  o[11 * 32] = __shfl_down_sync(all, t, 32 + 3, 16);
  o[12 * 32] = __shfl_up_sync(all, t, ~0u - 31 + 3, 16);
  o[9 * 32] = (int)__shfl_sync(all, (double)t * 0.5, 7) + __popc(t) + __clz(t) + __ffs(t);
}

// out[n]: number of threads that voted yes, whether any did, whether all did
extern "C" __global__ void block_votes(int* out, int limit) {
  int t = threadIdx.x;
  int count = __syncthreads_count(t < limit), any = __syncthreads_or(t == limit), all = __syncthreads_and(t < limit);
  out[t] = count * 4 + any * 2 + all;
}

// x[8]: add, max, min, inc, or, exchange (a float), compare-and-swap, add (a half2)
extern "C" __global__ void atomics(int* x) {
  int i = blockIdx.x * blockDim.x + threadIdx.x;
  atomicAdd(&x[0], i);
  atomicMax(&x[1], i);
  atomicMin(&x[2], -i);
  atomicInc(reinterpret_cast<unsigned*>(&x[3]), 99u);
  atomicOr(reinterpret_cast<unsigned*>(&x[4]), 1u << i % 32);
  atomicExch(reinterpret_cast<float*>(&x[5]), 2.5f);
  atomicCAS(&x[6], 0, 7);
  atomicAdd(reinterpret_cast<half2*>(&x[7]), __floats2half2_rn(1.0f, 0.5f));
}

// out[6]: sizes and alignments as on the device
extern "C" __global__ void layout(unsigned* out) {
  out[0] = sizeof(float3) * 100 + alignof(float3);
  out[1] = sizeof(float4) * 100 + alignof(float4);
  out[2] = sizeof(double4) * 100 + alignof(double4);
  out[3] = sizeof(uchar4) * 100 + alignof(uchar4);
  out[4] = sizeof(half2) * 100 + alignof(half2);
  out[5] = sizeof(int2) * 100 + alignof(int2);
}

// One warp. x[32*8] 16-bit values are four 8x8 matrices; out[4][32] unchanged, out[4..8][32] transposed.
extern "C" __global__ void load_matrices(const unsigned short* x, unsigned* out) {
  __shared__ __align__(16) unsigned short s[32][8];
  int t = threadIdx.x;
  cp_async16(s[t], &x[8 * t]);
  cp_async_wait_all();
  __syncthreads();
  uint32_t r[4], c[4];
  ldmatrix_x4(r, s[t]);
  ldmatrix_x4_trans(c, s[t]);
  for (int i = 0; i < 4; i++) {
    out[i * 32 + t] = r[i];
    out[(4 + i) * 32 + t] = c[i];
  }
}

// y[4 * threads] = x, or 0 from the first value not `valid`
extern "C" __global__ void copy_with_zeros(const float* x, float* y, int valid) {
  __shared__ __align__(16) float s[4 * 64];
  int t = threadIdx.x, left = valid - 4 * t;
  cp_async16_zfill(&s[4 * t], &x[left > 0 ? 4 * t : 0], left <= 0 ? 0 : min(left, 4) * 4);
  cp_async_wait_all();
  __syncthreads();
  for (int i = t; i < 4 * (int)blockDim.x; i += blockDim.x) y[i] = s[i];
}

// position[grid * block]: the position of each thread of a 3-dimensional launch
extern "C" __global__ void geometry(uint4* position) {
  unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  position[block * blockDim.x * blockDim.y * blockDim.z + thread] = make_uint4(threadIdx.y, threadIdx.z, blockIdx.y, blockIdx.z);
}

// The last copy is never waited for; it must not complete in the next block. y[grid * 32] = the block's number
extern "C" __global__ void copy_left_over(const float* x, float* y) {
  __shared__ __align__(16) float s[32 * 4];
  int t = threadIdx.x;
  cp_async_wait_all();
  s[4 * t] = blockIdx.x;
  cp_async_wait_all();
  y[blockIdx.x * 32 + t] = s[4 * t];
  cp_async16(&s[4 * t], &x[4 * t]);
  cp_async_commit();
}

struct __align__(64) Wide {
  float v[16];
};
// y[16] = p.v
extern "C" __global__ void wide_parameter(Wide p, float* y) {
  Wide copy = p;
  y[threadIdx.x] = copy.v[threadIdx.x];
}

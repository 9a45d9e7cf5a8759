// Matrix products c[m,n] = a[m,k] b[k,n], row-major, f32 results.
#include "simt.cuh"

// 256 threads, a 64x64 tile per block, 4x4 per thread, any m, n, k.
extern "C" __global__ void __launch_bounds__(256)
    gemm_f32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m, int n, int k) {
  constexpr int TILE = 64, STEP = 16, PER = TILE / 16;
  __shared__ float as[STEP][TILE + 1];
  __shared__ __align__(16) float bs[STEP][TILE];
  int tid = threadIdx.x, tx = tid % 16, ty = tid / 16, m0 = blockIdx.y * TILE, n0 = blockIdx.x * TILE;
  float sum[PER][PER] = {};
  for (int k0 = 0; k0 < k; k0 += STEP) {
    for (int i = tid; i < TILE * STEP; i += 256) {
      int row = i / STEP, col = i % STEP;
      as[col][row] = m0 + row < m && k0 + col < k ? a[(size_t)(m0 + row) * k + k0 + col] : 0.0f;
    }
    for (int i = tid; i < STEP * TILE; i += 256) {
      int row = i / TILE, col = i % TILE;
      bs[row][col] = k0 + row < k && n0 + col < n ? b[(size_t)(k0 + row) * n + n0 + col] : 0.0f;
    }
    __syncthreads();
#pragma unroll
    for (int kk = 0; kk < STEP; kk++)
#pragma unroll
      for (int i = 0; i < PER; i++)
#pragma unroll
        for (int j = 0; j < PER; j++) sum[i][j] = fmaf(as[kk][ty * PER + i], bs[kk][tx * PER + j], sum[i][j]);
    __syncthreads();
  }
  for (int i = 0; i < PER; i++)
    for (int j = 0; j < PER; j++) {
      int row = m0 + ty * PER + i, col = n0 + tx * PER + j;
      if (row < m && col < n) c[(size_t)row * n + col] = sum[i][j];
    }
}

// Stores a 16x8 fragment at c[row, col].
__device__ void store_fragment(float* c, int n, int row, int col, int lane, const float (&d)[4]) {
  for (int h = 0; h < 2; h++)
    *reinterpret_cast<float2*>(&c[(size_t)(row + lane / 4 + 8 * h) * n + col + lane % 4 * 2]) =
        make_float2(d[2 * h], d[2 * h + 1]);
}

// Tensor cores, tf32: 4 warps, a 64x32 tile per block, 32x16 per warp; m, n, k multiples of the tile.
extern "C" __global__ void __launch_bounds__(128)
    gemm_tf32(const float* __restrict__ a, const float* __restrict__ b, float* __restrict__ c, int m, int n, int k) {
  __shared__ uint32_t as[64][16 + 4], bs[16][32 + 8];
  int tid = threadIdx.x, lane = tid % 32, g = lane / 4, t = lane % 4;
  int m0 = blockIdx.y * 64, n0 = blockIdx.x * 32, wm = tid / 64 * 32, wn = tid / 32 % 2 * 16;
  float d[2][2][4] = {};
  for (int k0 = 0; k0 < k; k0 += 16) {
    for (int i = tid; i < 64 * 16; i += 128) as[i / 16][i % 16] = f32_to_tf32(a[(size_t)(m0 + i / 16) * k + k0 + i % 16]);
    for (int i = tid; i < 16 * 32; i += 128) bs[i / 32][i % 32] = f32_to_tf32(b[(size_t)(k0 + i / 32) * n + n0 + i % 32]);
    __syncthreads();
    for (int kk = 0; kk < 16; kk += 8)
      for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++) {
          int row = wm + i * 16 + g, col = wn + j * 8 + g;
          uint32_t fa[4] = {as[row][kk + t], as[row + 8][kk + t], as[row][kk + t + 4], as[row + 8][kk + t + 4]};
          uint32_t fb[2] = {bs[kk + t][col], bs[kk + t + 4][col]};
          mma_m16n8k8_tf32(d[i][j], fa, fb);
        }
    __syncthreads();
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++) store_fragment(c, n, m0 + wm + i * 16, n0 + wn + j * 8, lane, d[i][j]);
}

// Tensor cores, 16-bit inputs: double-buffered cp.async, ldmatrix, mma. Same tiles as above.
__device__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], half) { mma_m16n8k16_f16(d, a, b); }
__device__ void multiply(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], nv_bfloat16) {
  mma_m16n8k16_bf16(d, a, b);
}
template <class T> __device__ void gemm_16bit(const T* a, const T* b, float* c, int n, int k) {
  __shared__ __align__(16) T as[2][64][16 + 8];
  __shared__ __align__(16) T bs[2][16][32 + 8];
  int tid = threadIdx.x, lane = tid % 32;
  int m0 = blockIdx.y * 64, n0 = blockIdx.x * 32, wm = tid / 64 * 32, wn = tid / 32 % 2 * 16;
  float d[2][2][4] = {};
  auto load = [&](int stage, int k0) {
    cp_async16(&as[stage][tid / 2][tid % 2 * 8], &a[(size_t)(m0 + tid / 2) * k + k0 + tid % 2 * 8]);
    if (tid < 64) cp_async16(&bs[stage][tid / 4][tid % 4 * 8], &b[(size_t)(k0 + tid / 4) * n + n0 + tid % 4 * 8]);
    cp_async_commit();
  };
  load(0, 0);
  for (int k0 = 0, stage = 0; k0 < k; k0 += 16, stage ^= 1) {
    if (k0 + 16 < k) {
      load(stage ^ 1, k0 + 16);
      cp_async_wait<1>();
    } else {
      cp_async_wait<0>();
    }
    __syncthreads();
    uint32_t fa[2][4], fb[2][2];
    for (int i = 0; i < 2; i++) ldmatrix_x4(fa[i], &as[stage][wm + i * 16 + lane % 16][lane / 16 * 8]);
    for (int j = 0; j < 2; j++) ldmatrix_x2_trans(fb[j], &bs[stage][lane % 16][wn + j * 8]);
    for (int i = 0; i < 2; i++)
      for (int j = 0; j < 2; j++) multiply(d[i][j], fa[i], fb[j], T{});
    __syncthreads();
  }
  for (int i = 0; i < 2; i++)
    for (int j = 0; j < 2; j++) store_fragment(c, n, m0 + wm + i * 16, n0 + wn + j * 8, lane, d[i][j]);
}
#define GEMM_16BIT(name, T)                                                                                        \
  extern "C" __global__ void __launch_bounds__(128) name(const T* a, const T* b, float* c, int m, int n, int k) {  \
    gemm_16bit<T>(a, b, c, n, k);                                                                                  \
  }
GEMM_16BIT(gemm_f16, half)
GEMM_16BIT(gemm_bf16, nv_bfloat16)

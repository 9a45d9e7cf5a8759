// Definitions common to all kernels. Activations are NHWC in storage type T: float, half or nv_bfloat16; arithmetic is f32.
//
// Every kernel takes one parameter struct by value, mirrored in src/ops/<op>/cuda.rs (kernel_parameters!); PARAMETERS
// asserts the same size as the mirror. Pointers in it are `const void*` where T varies.
#pragma once
#include "simt.cuh"

#define PARAMETERS(Name, size) static_assert(sizeof(Name) == (size), "mirrored in Rust")

// One entry point per storage type: name_f32, name_f16, name_bf16 around the template name<T>.
#define STORAGE_KERNELS(name, Params)                                             \
  extern "C" __global__ void name##_f32(const Params p) { name<float>(p); }       \
  extern "C" __global__ void name##_f16(const Params p) { name<half>(p); }        \
  extern "C" __global__ void name##_bf16(const Params p) { name<nv_bfloat16>(p); }

__device__ __forceinline__ float to_float(float x) { return x; }
__device__ __forceinline__ float to_float(half x) { return __half2float(x); }
__device__ __forceinline__ float to_float(nv_bfloat16 x) { return __bfloat162float(x); }

template <class T> __device__ __forceinline__ T from_float(float x);
template <> __device__ __forceinline__ float from_float<float>(float x) { return x; }
template <> __device__ __forceinline__ half from_float<half>(float x) { return __float2half_rn(x); }
template <> __device__ __forceinline__ nv_bfloat16 from_float<nv_bfloat16>(float x) { return __float2bfloat16_rn(x); }

// Division by a number known on the host: q = (umulhi(n, multiplier) + n) >> shift, for n < 2^31.
struct Divisor {
  unsigned divisor, multiplier, shift;
};
__device__ __forceinline__ int divide(int n, Divisor d) {
  return (int)((__umulhi((unsigned)n, d.multiplier) + (unsigned)n) >> d.shift);
}
// n becomes the quotient; returns the remainder.
__device__ __forceinline__ int split_off(int& n, Divisor d) {
  int q = divide(n, d), rest = n - q * (int)d.divisor;
  n = q;
  return rest;
}

// 16 bytes of T: one load or store.
template <class T> struct alignas(16) Pack {
  static constexpr int N = 16 / sizeof(T);
  T v[N];
};
template <class T> __device__ __forceinline__ Pack<T> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T>*>(p);
}
template <class T> __device__ __forceinline__ void store_pack(T* p, const Pack<T>& v) {
  *reinterpret_cast<Pack<T>*>(p) = v;
}

// d += a b in 16 x 8 x 16, for both 16-bit types.
__device__ __forceinline__ void mma_16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], half) {
  mma_m16n8k16_f16(d, a, b);
}
__device__ __forceinline__ void mma_16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], nv_bfloat16) {
  mma_m16n8k16_bf16(d, a, b);
}

// The index of this thread in the grid; grids and blocks are one-dimensional where this is used.
__device__ __forceinline__ size_t global_thread() { return (size_t)blockIdx.x * blockDim.x + threadIdx.x; }

// As src/device/gpu.rs: what changes from step to step.
struct Step {
  unsigned long long seed;
  float rate;
  unsigned unused;
};
PARAMETERS(Step, 16);

// Activations as numbers of the parameter structs: enum Activation of src/ops/activation.
enum { NONE, RELU, SIGMOID };

__device__ __forceinline__ float sigmoid(float x) {
  float e = expf(-fabsf(x));
  return x >= 0.0f ? 1.0f / (1.0f + e) : e / (1.0f + e);
}
// Written so that NaN propagates.
__device__ __forceinline__ float activate(float x, int activation) {
  if (activation == RELU) return x <= 0.0f ? 0.0f : x;
  return activation == SIGMOID ? sigmoid(x) : x;
}
// Activations that product kernels apply themselves: a sigmoid unrolled 64 times would only make them large.
__device__ __forceinline__ float rectify(float x, int activation) {
  return activation == RELU && x <= 0.0f ? 0.0f : x;
}
// Converts the gradient of the output y to the gradient of the sum.
__device__ __forceinline__ float deactivate(float gradient, float y, int activation) {
  if (activation == RELU) return y <= 0.0f ? 0.0f : gradient;
  return activation == SIGMOID ? gradient * (y * (1.0f - y)) : gradient;
}

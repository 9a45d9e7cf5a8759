// Adjacent values as f32 numbers. Activations are NHWC and channels contiguous, so a thread owns N adjacent channels of a
// pixel: N is Pack<T>::N where channel counts and addresses allow (one 16-byte access), else 1. The launcher
// decides (`lanes` of src/ops/gpu.rs), and a kernel contains both paths (LANES). A launch has fewer than 2^31 threads, so
// positions are computed with 32-bit divisions.
#pragma once
#include "weft.cuh"

// N numbers, as a Pack or individually.
template <int N> struct Lanes {
  float v[N];
};

template <class T, int N> __device__ __forceinline__ Lanes<N> load_lanes(const void* from, size_t i) {
  const T* p = (const T*)from + i;
  Lanes<N> lanes;
  if constexpr (N == 1) {
    lanes.v[0] = to_float(*p);
  } else {
    static_assert(N == Pack<T>::N, "a pack or a single value");
    const Pack<T> pack = load_pack(p);
#pragma unroll
    for (int k = 0; k < N; k++) lanes.v[k] = to_float(pack.v[k]);
  }
  return lanes;
}
template <class T, int N> __device__ __forceinline__ void store_lanes(void* to, size_t i, const Lanes<N>& lanes) {
  T* p = (T*)to + i;
  if constexpr (N == 1) {
    *p = from_float<T>(lanes.v[0]);
  } else {
    static_assert(N == Pack<T>::N, "a pack or a single value");
    Pack<T> pack;
#pragma unroll
    for (int k = 0; k < N; k++) pack.v[k] = from_float<T>(lanes.v[k]);
    store_pack(p, pack);
  }
}
template <int N> __device__ __forceinline__ Lanes<N> all_lanes(float x) {
  Lanes<N> lanes;
#pragma unroll
  for (int k = 0; k < N; k++) lanes.v[k] = x;
  return lanes;
}

// Calls body<T, N>(p) with the N chosen by the launcher.
#define LANES(lanes, body, p) \
  if ((lanes) == 1) body<T, 1>(p); \
  else body<T, Pack<T>::N>(p)

// The maximum; NaN wins, and stays.
__device__ __forceinline__ float maximum(float m, float x) { return x <= m || m != m ? m : x; }

// Sum over the block's 256 threads in a fixed tree order; all threads get it. `scratch` holds 256 values, and may be reused
// only after another barrier.
template <class S> __device__ __forceinline__ S block_sum(S value, S* scratch) {
  scratch[threadIdx.x] = value;
  __syncthreads();
  for (unsigned half = 128; half > 0; half /= 2) {
    if (threadIdx.x < half) scratch[threadIdx.x] += scratch[threadIdx.x + half];
    __syncthreads();
  }
  return scratch[0];
}

// Joins the rows of a block of 256 threads, `width` of them along channels (a power of two, at most 256), in a fixed tree
// order; all threads get the value of their channels. `scratch` holds 256 N values, and may be used again at once.
template <int N, class F>
__device__ __forceinline__ Lanes<N> over_rows(Lanes<N> v, float* scratch, unsigned width, F join) {
  const unsigned t = threadIdx.x;
#pragma unroll
  for (int k = 0; k < N; k++) scratch[k * 256 + t] = v.v[k];
  __syncthreads();
  for (unsigned half = 128; half >= width; half /= 2) {
    if (t < half) {
#pragma unroll
      for (int k = 0; k < N; k++) scratch[k * 256 + t] = join(scratch[k * 256 + t], scratch[k * 256 + t + half]);
    }
    __syncthreads();
  }
#pragma unroll
  for (int k = 0; k < N; k++) v.v[k] = scratch[k * 256 + t % width];
  __syncthreads();
  return v;
}

// For maps of any layout: calls f(i, n) for the n values of this thread's pack, which begin at i; the last pack may be
// incomplete.
template <class T, class F> __device__ __forceinline__ void each_pack(size_t count, F f) {
  size_t i = global_thread() * Pack<T>::N;
  if (i < count) f(i, count - i >= Pack<T>::N ? Pack<T>::N : (int)(count - i));
}
template <class T> __device__ __forceinline__ Pack<T> load_some(const void* from, size_t i, int n) {
  const T* p = (const T*)from + i;
  if (n == Pack<T>::N) return load_pack(p);
  Pack<T> v = {};
#pragma unroll
  for (int k = 0; k < Pack<T>::N; k++)
    if (k < n) v.v[k] = p[k];
  return v;
}
template <class T> __device__ __forceinline__ void store_some(void* to, size_t i, int n, const Pack<T>& v) {
  T* p = (T*)to + i;
  if (n == Pack<T>::N) return store_pack(p, v);
#pragma unroll
  for (int k = 0; k < Pack<T>::N; k++)
    if (k < n) p[k] = v.v[k];
}

// CUDA's qualifiers, vector types and arithmetic functions for a host compiler. Every system header that a kernel may need
// is included here, because a .cu file is compiled inside a namespace.
#pragma once
#include <assert.h>
#include <float.h>
#include <limits.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <type_traits>
#include <utility>
#include "abi.h"

#ifdef SIMT_SCAN  // the pass that looks for kernel names keeps the marker
#define __global__ __simt_global__
#else
#define __global__
#endif
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline __attribute__((always_inline))
#define __noinline__ __attribute__((noinline))
#define __align__(n) __attribute__((aligned(n)))
#define __launch_bounds__(...)
#define __grid_constant__
#define __shared__ thread_local /* one operating-system thread runs one block at a time */
#define DYN_SHARED(T, name) T* name = reinterpret_cast<T*>(simt_dynamic_shared())

#define SIMT_API static inline __attribute__((unused))
// Default arguments that pass every wrapper its caller's place in the source.
#define SIMT_PLACE const char *file = __builtin_FILE(), int line = __builtin_LINE()

#define SIMT_ALIGN(T, n) alignas((n) * sizeof(T) > 16 ? 16 : (n) * sizeof(T))
#define SIMT_VECTOR(T, V)                                                   \
  struct V##1 { T x; };                                                     \
  struct SIMT_ALIGN(T, 2) V##2 { T x, y; };                                 \
  struct V##3 { T x, y, z; };                                               \
  struct SIMT_ALIGN(T, 4) V##4 { T x, y, z, w; };                           \
  SIMT_API V##1 make_##V##1(T x) { return {x}; }                            \
  SIMT_API V##2 make_##V##2(T x, T y) { return {x, y}; }                    \
  SIMT_API V##3 make_##V##3(T x, T y, T z) { return {x, y, z}; }            \
  SIMT_API V##4 make_##V##4(T x, T y, T z, T w) { return {x, y, z, w}; }
SIMT_VECTOR(signed char, char)
SIMT_VECTOR(unsigned char, uchar)
SIMT_VECTOR(short, short)
SIMT_VECTOR(unsigned short, ushort)
SIMT_VECTOR(int, int)
SIMT_VECTOR(unsigned, uint)
SIMT_VECTOR(long long, longlong)
SIMT_VECTOR(unsigned long long, ulonglong)
SIMT_VECTOR(float, float)
SIMT_VECTOR(double, double)
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};

#define threadIdx (simt_context.thread)
#define blockIdx (simt_context.block)
#define blockDim (simt_context.block_dim)
#define gridDim (simt_context.grid_dim)
#define warpSize 32

template <class T> SIMT_API T __ldg(const T* p) { return *p; }
template <class T> SIMT_API T __ldcs(const T* p) { return *p; }
template <class T> SIMT_API void __stcs(T* p, T v) { *p = v; }

#define SIMT_MINMAX(T)                                       \
  SIMT_API T min(T a, T b) { return a < b ? a : b; }         \
  SIMT_API T max(T a, T b) { return a > b ? a : b; }
SIMT_MINMAX(int)
SIMT_MINMAX(unsigned)
SIMT_MINMAX(long)
SIMT_MINMAX(unsigned long)
SIMT_MINMAX(long long)
SIMT_MINMAX(unsigned long long)
SIMT_API float min(float a, float b) { return fminf(a, b); }
SIMT_API float max(float a, float b) { return fmaxf(a, b); }
SIMT_API double min(double a, double b) { return fmin(a, b); }
SIMT_API double max(double a, double b) { return fmax(a, b); }

// glibc declares __expf and similar names itself, so these are macros.
#define __expf expf
#define __exp10f exp10f
#define __logf logf
#define __log2f log2f
#define __log10f log10f
#define __powf powf
#define __sinf sinf
#define __cosf cosf
#define __tanf tanf
#define __tanhf tanhf
#define __sincosf sincosf
SIMT_API float rsqrtf(float x) { return 1.0f / sqrtf(x); }
SIMT_API double rsqrt(double x) { return 1.0 / sqrt(x); }
SIMT_API float __frsqrt_rn(float x) { return 1.0f / sqrtf(x); }
SIMT_API float __fsqrt_rn(float x) { return sqrtf(x); }
SIMT_API float __frcp_rn(float x) { return 1.0f / x; }
SIMT_API float __fdividef(float a, float b) { return a / b; }
SIMT_API float __fdiv_rn(float a, float b) { return a / b; }
SIMT_API float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
SIMT_API float __saturatef(float x) { return x > 0.0f ? fminf(x, 1.0f) : 0.0f; }

template <class To, class From> SIMT_API To simt_bits(From from) {
  static_assert(sizeof(To) == sizeof(From), "same size");
  To to;
  memcpy(&to, &from, sizeof(To));
  return to;
}
SIMT_API unsigned __float_as_uint(float x) { return simt_bits<unsigned>(x); }
SIMT_API float __uint_as_float(unsigned x) { return simt_bits<float>(x); }
SIMT_API int __float_as_int(float x) { return simt_bits<int>(x); }
SIMT_API float __int_as_float(int x) { return simt_bits<float>(x); }
SIMT_API int __float2int_rn(float x) { return (int)rintf(x); }
SIMT_API int __float2int_rz(float x) { return (int)x; }
SIMT_API int __float2int_rd(float x) { return (int)floorf(x); }
SIMT_API float __int2float_rn(int x) { return (float)x; }

SIMT_API int __popc(unsigned x) { return __builtin_popcount(x); }
SIMT_API int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
SIMT_API int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
SIMT_API int __ffs(int x) { return __builtin_ffs(x); }
SIMT_API unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)(((uint64_t)a * b) >> 32); }
SIMT_API unsigned __brev(unsigned x) {
  unsigned r = 0;
  for (int i = 0; i < 32; i++) r |= (x >> i & 1) << (31 - i);
  return r;
}

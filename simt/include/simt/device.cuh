// The device part of the shim: the emulator's names as PTX. On cards before sm_80 cp.async becomes a plain copy and the
// wider mma shapes trap: choose another kernel there.
#pragma once
#include <assert.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
#define SIMT_SM80(...)
#define SIMT_BEFORE_SM80(...) __VA_ARGS__
#else
#define SIMT_SM80(...) __VA_ARGS__
#define SIMT_BEFORE_SM80(...)
#endif
#define SIMT_API static __device__ __forceinline__
#define DYN_SHARED(T, name)                                              \
  extern __shared__ __align__(128) unsigned char simt_dynamic_shared[];  \
  T* name = reinterpret_cast<T*>(simt_dynamic_shared)

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800  // CUDA declares these from sm_80 on
#define SIMT_REDUCE(name, T, expression)                                                                      \
  SIMT_API T name(unsigned mask, T v) {                                                                       \
    T r = __shfl_sync(mask, v, __ffs(mask) - 1);                                                              \
    for (unsigned rest = mask & (mask - 1); rest != 0; rest &= rest - 1) {                                    \
      T next = __shfl_sync(mask, v, __ffs(rest) - 1);                                                         \
      r = expression;                                                                                         \
    }                                                                                                         \
    return r;                                                                                                 \
  }
SIMT_REDUCE(__reduce_add_sync, unsigned, r + next)
SIMT_REDUCE(__reduce_add_sync, int, r + next)
SIMT_REDUCE(__reduce_min_sync, unsigned, next < r ? next : r)
SIMT_REDUCE(__reduce_min_sync, int, next < r ? next : r)
SIMT_REDUCE(__reduce_max_sync, unsigned, next > r ? next : r)
SIMT_REDUCE(__reduce_max_sync, int, next > r ? next : r)
SIMT_REDUCE(__reduce_and_sync, unsigned, r & next)
SIMT_REDUCE(__reduce_or_sync, unsigned, r | next)
SIMT_REDUCE(__reduce_xor_sync, unsigned, r ^ next)
#endif

SIMT_API uint32_t simt_shared_address(const void* p) { return (uint32_t)__cvta_generic_to_shared(p); }
// Rounds to nearest, halves away from zero.
SIMT_API uint32_t f32_to_tf32(float x) {
  uint32_t bits = __float_as_uint(x);
  SIMT_SM80(asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));)
  SIMT_BEFORE_SM80(bits = (bits & 0x7fffffff) >= 0x7f800000 ? bits : (bits + 0x1000) & 0xffffe000u;)
  return bits;
}

// The larger one; NaN if either is NaN.
SIMT_API float max_nan(float a, float b) {
  float larger = a <= b || b != b ? b : a;
  SIMT_SM80(asm("max.NaN.f32 %0, %1, %2;" : "=f"(larger) : "f"(a), "f"(b));)
  return larger;
}

// d += a * b for one 16x8 tile, row-major a (16xK), column-major b (Kx8).
#define SIMT_MMA(name, shape, type)                                                                                    \
  SIMT_API void name(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {                                  \
    SIMT_SM80(asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 "                             \
                           "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                                     \
                           : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])                                            \
                           : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));)                       \
    SIMT_BEFORE_SM80(__trap();)                                                                                        \
  }
SIMT_MMA(mma_m16n8k8_tf32, "m16n8k8", "tf32")
SIMT_MMA(mma_m16n8k16_f16, "m16n8k16", "f16")
SIMT_MMA(mma_m16n8k16_bf16, "m16n8k16", "bf16")

#define SIMT_LDMATRIX(suffix, trans)                                                                                 \
  SIMT_API void ldmatrix_x1##suffix(uint32_t (&r)[1], const void* row) {                                             \
    asm volatile("ldmatrix.sync.aligned.m8n8.x1" trans ".shared.b16 {%0}, [%1];"                                     \
                 : "=r"(r[0]) : "r"(simt_shared_address(row)) : "memory");                                           \
  }                                                                                                                  \
  SIMT_API void ldmatrix_x2##suffix(uint32_t (&r)[2], const void* row) {                                             \
    asm volatile("ldmatrix.sync.aligned.m8n8.x2" trans ".shared.b16 {%0,%1}, [%2];"                                  \
                 : "=r"(r[0]), "=r"(r[1]) : "r"(simt_shared_address(row)) : "memory");                               \
  }                                                                                                                  \
  SIMT_API void ldmatrix_x4##suffix(uint32_t (&r)[4], const void* row) {                                             \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" trans ".shared.b16 {%0,%1,%2,%3}, [%4];"                            \
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(simt_shared_address(row)) : "memory");       \
  }
SIMT_LDMATRIX(, "")
SIMT_LDMATRIX(_trans, ".trans")

// Before sm_80: the same bytes, copied synchronously. A partial copy goes byte by byte, in a loop that is kept small.
template <int SIZE> SIMT_API void simt_copy_now(void* s, const void* g, unsigned valid) {
  struct alignas(SIZE) Bytes { unsigned words[SIZE / 4]; };
  *(Bytes*)s = valid == SIZE ? *(const Bytes*)g : Bytes{};
  if (valid == SIZE) return;
#pragma unroll 1
  for (unsigned i = 0; i < valid; i++) ((unsigned char*)s)[i] = ((const unsigned char*)g)[i];
}
#define SIMT_CP_ASYNC(size, cache)                                                                                   \
  SIMT_API void cp_async##size(void* s, const void* g) {                                                             \
    SIMT_SM80(asm volatile("cp.async." cache ".shared.global [%0], [%1], " #size ";"                                 \
                           ::"r"(simt_shared_address(s)), "l"(__cvta_generic_to_global(g)) : "memory");)             \
    SIMT_BEFORE_SM80(simt_copy_now<size>(s, g, size);)                                                               \
  }                                                                                                                  \
  SIMT_API void cp_async##size##_zfill(void* s, const void* g, unsigned valid) {                                     \
    SIMT_SM80(asm volatile("cp.async." cache ".shared.global [%0], [%1], " #size ", %2;"                             \
                           ::"r"(simt_shared_address(s)), "l"(__cvta_generic_to_global(g)), "r"(valid) : "memory");) \
    SIMT_BEFORE_SM80(simt_copy_now<size>(s, g, valid);)                                                              \
  }
SIMT_CP_ASYNC(4, "ca")
SIMT_CP_ASYNC(8, "ca")
SIMT_CP_ASYNC(16, "cg")
SIMT_API void cp_async_commit() { SIMT_SM80(asm volatile("cp.async.commit_group;" ::: "memory");) }
template <int N> SIMT_API void cp_async_wait() {
  SIMT_SM80(asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");)
}
SIMT_API void cp_async_wait_all() { SIMT_SM80(asm volatile("cp.async.wait_all;" ::: "memory");) }

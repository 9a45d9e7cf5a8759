// Atomics: one compare-and-swap loop, because blocks run on several cores. Integer sums wrap, as on the device.
#pragma once
#include "half.h"

template <class T, class F> SIMT_API T simt_update(T* p, F next, const char* file, int line) {
  simt_access_at(p, sizeof(T), 2, file, line);
  uint64_t seen = simt_load(p, sizeof(T));
  for (;;) {
    T old;
    memcpy(&old, &seen, sizeof(T));
    T want = next(old);
    uint64_t bits = 0;
    memcpy(&bits, &want, sizeof(T));
    if (simt_compare_swap(p, &seen, bits, sizeof(T))) return old;
  }
}
#define SIMT_ATOMIC(name, T, expression)                                                       \
  SIMT_API T name(T* p, T v, SIMT_PLACE) {                                                     \
    return simt_update(p, [&](T old) -> T { return expression; }, file, line);                 \
  }
#define SIMT_ATOMIC_INTEGER(T, U)                          \
  SIMT_ATOMIC(atomicAdd, T, (T)((U)old + (U)v))            \
  SIMT_ATOMIC(atomicSub, T, (T)((U)old - (U)v))            \
  SIMT_ATOMIC(atomicMin, T, old < v ? old : v)             \
  SIMT_ATOMIC(atomicMax, T, old > v ? old : v)             \
  SIMT_ATOMIC(atomicAnd, T, old & v)                       \
  SIMT_ATOMIC(atomicOr, T, old | v)                        \
  SIMT_ATOMIC(atomicXor, T, old ^ v)
#define SIMT_ATOMIC_EXCHANGE(T)                                                                        \
  SIMT_ATOMIC(atomicExch, T, v)                                                                        \
  SIMT_API T atomicCAS(T* p, T expected, T v, SIMT_PLACE) {                                            \
    return simt_update(p, [&](T old) -> T { return old == expected ? v : old; }, file, line);          \
  }
SIMT_ATOMIC_INTEGER(int, unsigned)
SIMT_ATOMIC_INTEGER(unsigned, unsigned)
SIMT_ATOMIC_INTEGER(unsigned long long, unsigned long long)
SIMT_ATOMIC_EXCHANGE(int)
SIMT_ATOMIC_EXCHANGE(unsigned)
SIMT_ATOMIC_EXCHANGE(unsigned long long)
SIMT_ATOMIC(atomicExch, float, v)
SIMT_ATOMIC(atomicInc, unsigned, old >= v ? 0 : old + 1)
SIMT_ATOMIC(atomicDec, unsigned, old == 0 || old > v ? v : old - 1)
SIMT_ATOMIC(atomicAdd, float, old + v)
SIMT_ATOMIC(atomicAdd, double, old + v)
SIMT_ATOMIC(atomicAdd, __half, old + v)
SIMT_ATOMIC(atomicAdd, __half2, __hadd2(old, v))
SIMT_ATOMIC(atomicAdd, __nv_bfloat16, old + v)
SIMT_ATOMIC(atomicAdd, __nv_bfloat162, __hadd2(old, v))

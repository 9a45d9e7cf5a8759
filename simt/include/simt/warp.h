// Barriers, votes and shuffles. Each passes pointers to its operands to the scheduler; the last lane of the mask to
// arrive runs the operation for all.
#pragma once
#include "types.h"

SIMT_API void __syncthreads(SIMT_PLACE) { simt_syncthreads(0, file, line); }
SIMT_API int __syncthreads_count(int p, SIMT_PLACE) { return simt_syncthreads(p != 0, file, line); }
SIMT_API int __syncthreads_or(int p, SIMT_PLACE) { return simt_syncthreads(p != 0, file, line) != 0; }
SIMT_API int __syncthreads_and(int p, SIMT_PLACE) { return simt_syncthreads(p == 0, file, line) == 0; }
SIMT_API void __trap(SIMT_PLACE) { simt_trap(file, line); }
#undef assert
#define assert(condition) ((condition) ? (void)0 : simt_trap(__FILE__, __LINE__))
SIMT_API void __threadfence() { simt_threadfence(); }
SIMT_API void __threadfence_block() { simt_threadfence(); }

SIMT_API int simt_lane() { return (threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)) & 31; }
SIMT_API void __syncwarp(unsigned mask = 0xffffffffu, SIMT_PLACE) {
  simt_collective(mask, simt_op_sync, 0, 0, SIMT_ORDERS, file, line);
}
SIMT_API unsigned __ballot_sync(unsigned mask, int p, SIMT_PLACE) {
  unsigned r;
  simt_collective(mask, simt_op_ballot, &p, &r, SIMT_PLAIN, file, line);
  return r;
}
SIMT_API int __any_sync(unsigned mask, int p, SIMT_PLACE) { return __ballot_sync(mask, p, file, line) != 0; }
SIMT_API int __all_sync(unsigned mask, int p, SIMT_PLACE) { return __ballot_sync(mask, !p, file, line) == 0; }
template <class T> SIMT_API unsigned __match_any_sync(unsigned mask, T v, SIMT_PLACE) {
  static_assert(sizeof(T) <= 8, "4 or 8 bytes");
  uint64_t bits = 0;
  memcpy(&bits, &v, sizeof(T));
  unsigned r;
  simt_collective(mask, simt_op_match, &bits, &r, SIMT_PLAIN, file, line);
  return r;
}

template <class T> SIMT_API T simt_shuffle(unsigned mask, T v, int source, const char* file, int line) {
  static_assert(sizeof(T) <= 8, "shuffles move at most 8 bytes");
  SimtShuffle in{0, source};
  memcpy(&in.value, &v, sizeof(T));
  uint64_t out;
  simt_collective(mask, simt_op_shuffle, &in, &out, SIMT_PLAIN, file, line);
  T r;
  memcpy(&r, &out, sizeof(T));
  return r;
}
template <class T> SIMT_API T __shfl_sync(unsigned mask, T v, int from, int width = 32, SIMT_PLACE) {
  return simt_shuffle(mask, v, (simt_lane() & ~(width - 1)) | (from & (width - 1)), file, line);
}
template <class T> SIMT_API T __shfl_xor_sync(unsigned mask, T v, int bits, int width = 32, SIMT_PLACE) {
  int lane = simt_lane(), from = lane ^ (bits & 31);
  return simt_shuffle(mask, v, from / width > lane / width ? lane : from, file, line);
}
template <class T> SIMT_API T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32, SIMT_PLACE) {
  int lane = simt_lane();
  return simt_shuffle(mask, v, (lane & (width - 1)) + (int)(by & 31) >= width ? lane : lane + (int)(by & 31), file, line);
}
template <class T> SIMT_API T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32, SIMT_PLACE) {
  int lane = simt_lane();
  return simt_shuffle(mask, v, (lane & (width - 1)) < (int)(by & 31) ? lane : lane - (int)(by & 31), file, line);
}

#define SIMT_REDUCE(name, T, OP)                                        \
  SIMT_API T name(unsigned mask, T v, SIMT_PLACE) {                     \
    SimtReduce in{(uint32_t)v, OP};                                     \
    uint32_t r;                                                         \
    simt_collective(mask, simt_op_reduce, &in, &r, SIMT_PLAIN, file, line);      \
    return (T)r;                                                        \
  }
SIMT_REDUCE(__reduce_add_sync, unsigned, SIMT_ADD)
SIMT_REDUCE(__reduce_add_sync, int, SIMT_ADD)
SIMT_REDUCE(__reduce_min_sync, unsigned, SIMT_MIN)
SIMT_REDUCE(__reduce_min_sync, int, SIMT_MIN_SIGNED)
SIMT_REDUCE(__reduce_max_sync, unsigned, SIMT_MAX)
SIMT_REDUCE(__reduce_max_sync, int, SIMT_MAX_SIGNED)
SIMT_REDUCE(__reduce_and_sync, unsigned, SIMT_AND)
SIMT_REDUCE(__reduce_or_sync, unsigned, SIMT_OR)
SIMT_REDUCE(__reduce_xor_sync, unsigned, SIMT_XOR)

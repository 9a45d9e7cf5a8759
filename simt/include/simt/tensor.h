// Tensor-core wrappers: mma.sync, ldmatrix, cp.async. Fragment layouts are those of the PTX manual; the device
// header provides the same names as PTX.
#pragma once
#include "warp.h"

// Rounds to tf32 as cvt.rna does: to nearest, halves away from zero.
SIMT_API uint32_t f32_to_tf32(float x) {
  uint32_t bits = __float_as_uint(x);
  return (bits & 0x7fffffff) >= 0x7f800000 ? bits : (bits + 0x1000) & 0xffffe000u;
}

// The larger one; NaN if either is NaN.
SIMT_API float max_nan(float a, float b) { return a <= b || b != b ? b : a; }

// d += a * b for one 16x8 tile, row-major a (16xK), column-major b (Kx8).
#define SIMT_MMA(name, op)                                                                                       \
  SIMT_API void name(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2], SIMT_PLACE) {                \
    SimtFragments in{a, b};                                                                                      \
    simt_collective(0xffffffffu, op, &in, d, SIMT_WHOLE_WARP, file, line);                                                     \
  }
SIMT_MMA(mma_m16n8k8_tf32, simt_op_mma_tf32)
SIMT_MMA(mma_m16n8k16_f16, simt_op_mma_f16)
SIMT_MMA(mma_m16n8k16_bf16, simt_op_mma_bf16)

// Loads COUNT 8x8 matrices of 16-bit elements; lane i of the first 8*COUNT supplies the address of row i.
#define SIMT_LDMATRIX(name, op, COUNT)                                                \
  SIMT_API void name(uint32_t (&r)[COUNT], const void* row, SIMT_PLACE) {             \
    if (simt_lane() < 8 * COUNT) simt_shared_row(row, 16, file, line);                \
    simt_collective(0xffffffffu, op, row, r, SIMT_WHOLE_WARP, file, line);                          \
  }
SIMT_LDMATRIX(ldmatrix_x1, simt_op_ldmatrix_x1, 1)
SIMT_LDMATRIX(ldmatrix_x2, simt_op_ldmatrix_x2, 2)
SIMT_LDMATRIX(ldmatrix_x4, simt_op_ldmatrix_x4, 4)
SIMT_LDMATRIX(ldmatrix_x1_trans, simt_op_ldmatrix_x1_trans, 1)
SIMT_LDMATRIX(ldmatrix_x2_trans, simt_op_ldmatrix_x2_trans, 2)
SIMT_LDMATRIX(ldmatrix_x4_trans, simt_op_ldmatrix_x4_trans, 4)

// cp_async<n>: copies n bytes from global to shared memory in the background; they are complete after the wait.
// cp_async<n>_zfill: reads only the first `valid` bytes; the rest of the destination becomes zero.
#define SIMT_CP_ASYNC(size)                                                                                     \
  SIMT_API void cp_async##size(void* s, const void* g, SIMT_PLACE) { simt_async_copy(s, g, size, size, file, line); } \
  SIMT_API void cp_async##size##_zfill(void* s, const void* g, unsigned valid, SIMT_PLACE) {                    \
    simt_async_copy(s, g, size, valid, file, line);                                                             \
  }
SIMT_CP_ASYNC(4)
SIMT_CP_ASYNC(8)
SIMT_CP_ASYNC(16)
SIMT_API void cp_async_commit() { simt_async_commit(); }
template <int N> SIMT_API void cp_async_wait() { simt_async_wait(N); }  // all but the latest N groups are complete
SIMT_API void cp_async_wait_all() {
  simt_async_commit();
  simt_async_wait(0);
}

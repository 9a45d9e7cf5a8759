// The interface between the shim (compiled into every kernel) and the emulator (Rust and runtime.cpp).
#pragma once
#include <stddef.h>
#include <stdint.h>

struct SimtIndex { unsigned x, y, z; };
struct SimtContext { SimtIndex thread, block, block_dim, grid_dim; };  // mirrored by `Context` in scheduler.rs

// An operation of a warp: in[lane] and out[lane] are the operands of each lane of `mask`.
typedef void (*SimtOp)(const void* const* in, void* const* out, uint32_t mask);

struct SimtShuffle { uint64_t value; int source; };
struct SimtReduce { uint32_t value; int op; };
enum { SIMT_ADD, SIMT_MIN, SIMT_MAX, SIMT_MIN_SIGNED, SIMT_MAX_SIGNED, SIMT_AND, SIMT_OR, SIMT_XOR };
struct SimtFragments { const uint32_t* a; const uint32_t* b; };

extern "C" {
extern __thread SimtContext simt_context __attribute__((tls_model("initial-exec")));

// Scheduler. `traits`: the collective also orders memory between its lanes; it needs all 32 lanes of a warp.
enum { SIMT_PLAIN = 0, SIMT_ORDERS = 1, SIMT_WHOLE_WARP = 2 };
int simt_syncthreads(int predicate, const char* file, int line);
void simt_collective(uint32_t mask, SimtOp op, const void* in, void* out, int traits, const char* file, int line);
void* simt_dynamic_shared();
void simt_threadfence();
void simt_trap(const char* file, int line);

// Memory. `kind`: 0 read, 1 write, 2 atomic read-modify-write.
void simt_access_at(const void* p, size_t size, int kind, const char* file, int line);
void simt_shared_row(const void* p, size_t size, const char* file, int line);
void simt_async_copy(void* shared, const void* global, unsigned size, unsigned valid, const char* file, int line);
void simt_async_commit();
void simt_async_wait(unsigned pending);
uint64_t simt_load(const void* p, int size);
int simt_compare_swap(void* p, uint64_t* expected, uint64_t desired, int size);

// Operations of a warp.
void simt_op_sync(const void* const*, void* const*, uint32_t);
void simt_op_shuffle(const void* const*, void* const*, uint32_t);
void simt_op_ballot(const void* const*, void* const*, uint32_t);
void simt_op_match(const void* const*, void* const*, uint32_t);
void simt_op_reduce(const void* const*, void* const*, uint32_t);
void simt_op_mma_tf32(const void* const*, void* const*, uint32_t);
void simt_op_mma_f16(const void* const*, void* const*, uint32_t);
void simt_op_mma_bf16(const void* const*, void* const*, uint32_t);
void simt_op_ldmatrix_x1(const void* const*, void* const*, uint32_t);
void simt_op_ldmatrix_x2(const void* const*, void* const*, uint32_t);
void simt_op_ldmatrix_x4(const void* const*, void* const*, uint32_t);
void simt_op_ldmatrix_x1_trans(const void* const*, void* const*, uint32_t);
void simt_op_ldmatrix_x2_trans(const void* const*, void* const*, uint32_t);
void simt_op_ldmatrix_x4_trans(const void* const*, void* const*, uint32_t);
}

// Probes of `weft doctor --probe`: loops that keep one part of a card busy and nothing else, and single instructions whose
// fragments are held against the PTX ISA. src/doctor/probe.rs makes their inputs and knows what must come out.
//
// Names end in no precision, because names that do are products of the engine, of which tests/kernels.rs demands more.
// Blocks of 256 threads (probe_ldmatrix: one warp). All results are exact.
#include "weft.cuh"

typedef Pack<uint32_t> Words;  // 16 bytes

struct ProbeMove {
  const uint32_t* from;  // [count] x 16 bytes
  uint32_t* to;          // probe_copy: [count] x 16 bytes; probe_read: [threads of the grid] x 16 bytes
  unsigned count;        // probe_read: a power of two
  unsigned reads;        // probe_read: of each thread, a multiple of READS_IN_FLIGHT
};
PARAMETERS(ProbeMove, 24);

// to = from; a thread owns COPIES x 16 bytes, all of which are read before the first is written. Nothing, with count 0: the
// cost of a launch.
constexpr int COPIES = 4;
extern "C" __global__ void probe_copy(const ProbeMove p) {
  const size_t first = (size_t)blockIdx.x * blockDim.x * COPIES + threadIdx.x;
  Words v[COPIES];
#pragma unroll
  for (int i = 0; i < COPIES; i++)
    if (first + i * blockDim.x < p.count) v[i] = load_pack(p.from + 4 * (first + i * blockDim.x));
#pragma unroll
  for (int i = 0; i < COPIES; i++)
    if (first + i * blockDim.x < p.count) store_pack(p.to + 4 * (first + i * blockDim.x), v[i]);
}

// Each block reads all of a small buffer again and again, from a place of its own on, past the L1 cache (cp.async.cg) as the
// product kernels do. to = the exclusive or of what a thread read last, READS_IN_FLIGHT x 16 bytes. 16 KB of shared memory.
constexpr int READS_IN_FLIGHT = 4;
extern "C" __global__ void probe_read(const ProbeMove p) {
  __shared__ Words slots[READS_IN_FLIGHT][256];
  unsigned at = (unsigned)((size_t)blockIdx.x * p.count / gridDim.x) + threadIdx.x;
  for (unsigned i = 0; i < p.reads; i += READS_IN_FLIGHT) {
#pragma unroll
    for (int s = 0; s < READS_IN_FLIGHT; s++, at += 256) {
      cp_async16(&slots[s][threadIdx.x], p.from + 4 * (size_t)(at & (p.count - 1)));
      cp_async_commit();
      cp_async_wait<READS_IN_FLIGHT - 1>();  // of the slot that is next
    }
  }
  cp_async_wait_all();
  Words last = {};
#pragma unroll
  for (int s = 0; s < READS_IN_FLIGHT; s++)
#pragma unroll
    for (int k = 0; k < Words::N; k++) last.v[k] ^= slots[s][threadIdx.x].v[k];
  store_pack(p.to + 4 * global_thread(), last);
}

struct ProbeFma {
  float* out;  // [threads of the grid]
  float factor, summand;
  unsigned rounds;
  unsigned unused;
};
PARAMETERS(ProbeFma, 24);

// FMA_CHAINS independent chains x = x factor + summand, of FMA_STEPS steps a round; chain i begins at i. out = their sum.
constexpr int FMA_CHAINS = 16, FMA_STEPS = 8;
extern "C" __global__ void probe_fma(const ProbeFma p) {
  float x[FMA_CHAINS];
#pragma unroll
  for (int i = 0; i < FMA_CHAINS; i++) x[i] = (float)i;
#pragma unroll 1
  for (unsigned round = 0; round < p.rounds; round++) {
#pragma unroll
    for (int step = 0; step < FMA_STEPS; step++)
#pragma unroll
      for (int i = 0; i < FMA_CHAINS; i++) x[i] = fmaf(x[i], p.factor, p.summand);
  }
  float sum = 0.0f;
#pragma unroll
  for (int i = 0; i < FMA_CHAINS; i++) sum += x[i];
  p.out[global_thread()] = sum;
}

struct ProbeMma {
  const uint32_t* a;   // [fragments][lane][4 registers]
  const uint32_t* b;   // [lane][2]
  const float* c;      // [lane][4]
  float* out;          // [warps of the grid][lane][4]
  unsigned fragments;  // of a; warp w has number w modulo this
  unsigned rounds;
};
PARAMETERS(ProbeMma, 40);

// MMA_TILES independent sums d += a b from c on, `rounds` times each; out = their sum. What a register means is not said here: it
// goes from memory into the instruction, and comes back, as it is.
constexpr int MMA_TILES = 8;
template <class Mma> __device__ __forceinline__ void probe_mma(const ProbeMma& p, Mma mma) {
  const size_t warp = global_thread() / 32;
  const int lane = (int)threadIdx.x % 32;
  const Words a = load_pack(p.a + (warp % p.fragments * 32 + lane) * 4);
  const Pack<float> c = load_pack(p.c + lane * 4);
  const uint32_t b[2] = {p.b[lane * 2], p.b[lane * 2 + 1]};
  float d[MMA_TILES][4];
#pragma unroll
  for (int t = 0; t < MMA_TILES; t++)
#pragma unroll
    for (int i = 0; i < 4; i++) d[t][i] = c.v[i];
#pragma unroll 1
  for (unsigned round = 0; round < p.rounds; round++) {
#pragma unroll
    for (int t = 0; t < MMA_TILES; t++) mma(d[t], a.v, b);
  }
  Pack<float> sum = {};
#pragma unroll
  for (int t = 0; t < MMA_TILES; t++)
#pragma unroll
    for (int i = 0; i < 4; i++) sum.v[i] += d[t][i];
  store_pack(p.out + (warp * 32 + lane) * 4, sum);
}
#define PROBE_MMA(type, mma)                                                                                    \
  extern "C" __global__ void probe_##type##_mma(const ProbeMma p) {                                             \
    probe_mma(p, [](float(&d)[4], const uint32_t(&a)[4], const uint32_t(&b)[2]) { mma(d, a, b); });             \
  }
PROBE_MMA(tf32, mma_m16n8k8_tf32)
PROBE_MMA(f16, mma_m16n8k16_f16)
PROBE_MMA(bf16, mma_m16n8k16_bf16)

struct ProbeLdmatrix {
  const uint32_t* tile;  // 32 rows of 16 bytes
  const unsigned* rows;  // [lane]: the row whose address it gives
  uint32_t* out;         // [lane][16]: x1, x2 and x4, then the same transposed; two words of padding
};
PARAMETERS(ProbeLdmatrix, 24);

// Every form of ldmatrix on one tile. 512 bytes of shared memory.
extern "C" __global__ void probe_ldmatrix(const ProbeLdmatrix p) {
  __shared__ Words tile[32];
  const int lane = (int)threadIdx.x;
  tile[lane] = load_pack(p.tile + 4 * lane);
  __syncthreads();
  const Words* row = &tile[p.rows[lane]];
  uint32_t x1[1], x2[2], x4[4], t1[1], t2[2], t4[4];
  ldmatrix_x1(x1, row);
  ldmatrix_x2(x2, row);
  ldmatrix_x4(x4, row);
  ldmatrix_x1_trans(t1, row);
  ldmatrix_x2_trans(t2, row);
  ldmatrix_x4_trans(t4, row);
  uint32_t* out = p.out + 16 * lane;
  store_pack(out, Words{x1[0], x2[0], x2[1], x4[0]});
  store_pack(out + 4, Words{x4[1], x4[2], x4[3], t1[0]});
  store_pack(out + 8, Words{t2[0], t2[1], t4[0], t4[1]});
  store_pack(out + 12, Words{t4[2], t4[3], 0, 0});
}

// Dropout in training: a value falls with probability `rate`, the others grow by 1 / (1 - rate). Backward is the same
// function of the gradient.
//
// The mask is a function of (seed of the step, layer, place), drawn by Philox4x32-10 (Salmon et al., SC 2011) with the
// bits that src/ops/dropout draws: words 0..4 of counter (place / 4, layer, "mask") under the seed. It is never stored.
// Layout: any. A thread owns 16 bytes of the storage type, one or two counters; blocks of 256 threads, no shared memory.
// Tolerance: one rounding of the storage type.
#include "channels.cuh"

struct DropoutParams {
  const void* x;
  void* out;         // may be x
  const Step* step;  // the seed
  size_t count;
  unsigned stream;   // number of the layer
  float rate;
};
PARAMETERS(DropoutParams, 40);

// As src/rng.rs.
__device__ __forceinline__ void philox(unsigned (&c)[4], unsigned k0, unsigned k1) {
#pragma unroll
  for (int round = 0; round < 10; round++) {
    const unsigned h0 = __umulhi(0xD2511F53u, c[0]), l0 = 0xD2511F53u * c[0];
    const unsigned h1 = __umulhi(0xCD9E8D57u, c[2]), l1 = 0xCD9E8D57u * c[2];
    c[0] = h1 ^ c[1] ^ k0;
    c[1] = l1;
    c[2] = h0 ^ c[3] ^ k1;
    c[3] = l0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
}

template <class T> __device__ void dropout(const DropoutParams& p) {
  constexpr int N = Pack<T>::N;
  const unsigned long long seed = p.step->seed;
  const float scale = 1.0f / (1.0f - p.rate);
  each_pack<T>(p.count, [&](size_t i, int n) {
    Pack<T> v = load_some<T>(p.x, i, n);
#pragma unroll
    for (int q = 0; q < N; q += 4) {
      const unsigned long long counter = (i + q) / 4;
      unsigned words[4] = {(unsigned)counter, (unsigned)(counter >> 32), p.stream, 0x6d61736bu};
      philox(words, (unsigned)seed, (unsigned)(seed >> 32));
#pragma unroll
      for (int k = 0; k < 4; k++) {
        const bool falls = (float)(words[k] >> 8) * (1.0f / 16777216.0f) < p.rate;
        v.v[q + k] = falls ? from_float<T>(0.0f) : from_float<T>(to_float(v.v[q + k]) * scale);
      }
    }
    store_some(p.out, i, n, v);
  });
}
STORAGE_KERNELS(dropout, DropoutParams)

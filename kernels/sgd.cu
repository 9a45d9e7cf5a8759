// Stochastic gradient descent with momentum, Nesterov's variant, weight decay, learning-rate factors per tensor and clipping
// of the gradient norm: all parameters of a net in one launch. In f16, whose gradients underflow, losses are multiplied by a
// scale in device memory, and a step whose gradients overflowed is skipped (loss_scale).
//
// Layout: parameters, gradients and momentum are flat f32 with gaps between tensors, `stored` likewise in T. A table splits the
// tensors into chunks of at most 4096 values; a block of 256 threads owns a chunk, a thread 16 bytes of f32 at a time. The
// gaps are neither read nor written. `stored` receives the rounded parameters if T is a 16-bit type.
// The norm: one block per chunk sums squares in double, then one block adds these; both in a fixed order. 2 KB of shared
// memory for the sums. The square of an f32 does not overflow a double, so the sum is finite if and only if all gradients are.
// Tolerance: f32 arithmetic in the order of src/train/sgd.rs; the norm in double.
#include "channels.cuh"

// At most 4096 values of one tensor; the first index is a multiple of four.
struct SgdChunk {
  unsigned start, count;
  float rate_factor;  // 0: frozen
  float decay;
};
PARAMETERS(SgdChunk, 16);

// Mirrored in src/net/sgd/scale.rs.
struct LossScale {
  float scale;       // what losses are multiplied by in the next step: a power of two
  unsigned good;     // steps since the scale changed or a step was skipped
  unsigned skipped;  // steps skipped so far
  float factor;      // what the gradients of the last step are multiplied by: 1 / its scale; 0: the step is skipped
};
PARAMETERS(LossScale, 16);

struct SgdParams {
  float* parameters;
  const float* gradients;
  float* momentum;
  void* stored;            // unused with f32
  const SgdChunk* chunks;
  const Step* step;        // holds the learning rate
  const double* squares;   // squared norm of the gradient; null: no clipping
  const LossScale* scaled; // how the gradients are scaled; null: they are not
  float momentum_factor;
  float clip_norm;
  int nesterov;
  int unused;
};
PARAMETERS(SgdParams, 80);

struct SquareSum {
  const float* values;
  const SgdChunk* chunks;
  double* partial;  // one sum per chunk
  double* total;
  size_t count;     // chunks
};
PARAMETERS(SquareSum, 40);

// partial[chunk] = sum of its squares
extern "C" __global__ void square_sum_chunks_f32(const SquareSum p) {
  __shared__ double scratch[256];
  const SgdChunk chunk = p.chunks[blockIdx.x];
  double sum = 0.0;
  for (unsigned i = 4 * threadIdx.x; i < chunk.count; i += 1024) {
    const int n = (int)min(4u, chunk.count - i);
    const Pack<float> v = load_some<float>(p.values, (size_t)chunk.start + i, n);
#pragma unroll
    for (int k = 0; k < 4; k++) sum += (double)v.v[k] * (double)v.v[k];
  }
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) p.partial[blockIdx.x] = sum;
}
// total = sum of partial. One block.
extern "C" __global__ void square_sum_f32(const SquareSum p) {
  __shared__ double scratch[256];
  double sum = 0.0;
  for (size_t i = threadIdx.x; i < p.count; i += 256) sum += p.partial[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x == 0) *p.total = sum;
}

struct LossScaleParams {
  const double* partial;  // a sum of squares per chunk, of scaled gradients
  double* total;
  LossScale* state;
  size_t count;           // chunks
  float least, most;      // scale
  unsigned interval;      // good steps after which it is doubled
  unsigned unused;
};
PARAMETERS(LossScaleParams, 48);

// total = sum of partial, of gradients that are not scaled; and what becomes of the step and of the scale. Powers of two make
// scaling exact, short of underflow. One block.
extern "C" __global__ void loss_scale_f32(const LossScaleParams p) {
  __shared__ double scratch[256];
  double sum = 0.0;
  for (size_t i = threadIdx.x; i < p.count; i += 256) sum += p.partial[i];
  sum = block_sum(sum, scratch);
  if (threadIdx.x != 0) return;
  LossScale state = *p.state;
  const bool is_finite = sum < (double)INFINITY;  // not NaN either
  state.factor = is_finite ? 1.0f / state.scale : 0.0f;
  *p.total = sum * ((double)state.factor * (double)state.factor);
  state.good++;
  if (!is_finite) {
    state.scale = fmaxf(0.5f * state.scale, p.least);
    state.good = 0;
    state.skipped++;
  } else if (state.good >= p.interval) {
    state.scale = fminf(2.0f * state.scale, p.most);
    state.good = 0;
  }
  *p.state = state;
}

// v = momentum v + (g + decay w); w -= rate (g + decay w + momentum v) with Nesterov, w -= rate v without.
template <class T> __device__ void sgd(const SgdParams& p) {
  const SgdChunk chunk = p.chunks[blockIdx.x];
  if (chunk.rate_factor == 0.0f) return;
  const float rate = p.step->rate * chunk.rate_factor, momentum = p.momentum_factor;
  float scale = p.squares ? (float)fmin((double)p.clip_norm / fmax(sqrt(*p.squares), 1e-30), 1.0) : 1.0f;
  if (p.scaled) {
    const float factor = p.scaled->factor;
    if (factor == 0.0f) return;
    scale *= factor;
  }
  for (unsigned i = 4 * threadIdx.x; i < chunk.count; i += 1024) {
    const int n = (int)min(4u, chunk.count - i);
    const size_t at = (size_t)chunk.start + i;
    Pack<float> w = load_some<float>(p.parameters, at, n), v = load_some<float>(p.momentum, at, n);
    const Pack<float> gradient = load_some<float>(p.gradients, at, n);
#pragma unroll
    for (int k = 0; k < 4; k++) {
      const float g = scale * gradient.v[k] + chunk.decay * w.v[k];
      v.v[k] = momentum * v.v[k] + g;
      w.v[k] -= rate * (p.nesterov ? g + momentum * v.v[k] : v.v[k]);
    }
    store_some(p.parameters, at, n, w);
    store_some(p.momentum, at, n, v);
    if constexpr (sizeof(T) == 2) {
      struct alignas(8) { T v[4]; } rounded;
#pragma unroll
      for (int k = 0; k < 4; k++) rounded.v[k] = from_float<T>(w.v[k]);
      T* to = (T*)p.stored + at;
      if (n == 4) *reinterpret_cast<decltype(rounded)*>(to) = rounded;
      else {
#pragma unroll
        for (int k = 0; k < 4; k++)
          if (k < n) to[k] = rounded.v[k];
      }
    }
  }
}
STORAGE_KERNELS(sgd, SgdParams)

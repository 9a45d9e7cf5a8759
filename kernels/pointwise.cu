// Elementwise functions: activations as layers, casts between storage types, sums of gradients.
//
// Layout: any. A thread owns 16 bytes of the storage type; a block of 256 threads owns 256 packs. No shared memory.
// Memory-bound: each value is read and written once. Tolerance: one rounding of the storage type.
#include "channels.cuh"

struct Pointwise {
  const void* x;
  const void* y;   // backward: the layer's output
  void* out;
  size_t count;
  int activation;
  int unused;
};
PARAMETERS(Pointwise, 40);

// out = activation(x)
template <class T> __device__ void activation_forward(const Pointwise& p) {
  each_pack<T>(p.count, [&](size_t i, int n) {
    Pack<T> v = load_some<T>(p.x, i, n);
#pragma unroll
    for (int k = 0; k < Pack<T>::N; k++) v.v[k] = from_float<T>(activate(to_float(v.v[k]), p.activation));
    store_some(p.out, i, n, v);
  });
}
STORAGE_KERNELS(activation_forward, Pointwise)

// out = x * activation'(y); x is the gradient of y, and may be `out`
template <class T> __device__ void activation_backward(const Pointwise& p) {
  each_pack<T>(p.count, [&](size_t i, int n) {
    Pack<T> g = load_some<T>(p.x, i, n), y = load_some<T>(p.y, i, n);
#pragma unroll
    for (int k = 0; k < Pack<T>::N; k++)
      g.v[k] = from_float<T>(deactivate(to_float(g.v[k]), to_float(y.v[k]), p.activation));
    store_some(p.out, i, n, g);
  });
}
STORAGE_KERNELS(activation_backward, Pointwise)

// out += x
template <class T> __device__ void accumulate(const Pointwise& p) {
  each_pack<T>(p.count, [&](size_t i, int n) {
    Pack<T> a = load_some<T>(p.out, i, n), b = load_some<T>(p.x, i, n);
#pragma unroll
    for (int k = 0; k < Pack<T>::N; k++) a.v[k] = from_float<T>(to_float(a.v[k]) + to_float(b.v[k]));
    store_some(p.out, i, n, a);
  });
}
STORAGE_KERNELS(accumulate, Pointwise)

// out (T) = x (f32): a batch or weights after their upload
template <class T> __device__ void cast_from_f32(const Pointwise& p) {
  size_t i = global_thread();
  if (i < p.count) ((T*)p.out)[i] = from_float<T>(((const float*)p.x)[i]);
}
STORAGE_KERNELS(cast_from_f32, Pointwise)

// out (f32) = x (T): values before their download
template <class T> __device__ void cast_to_f32(const Pointwise& p) {
  size_t i = global_thread();
  if (i < p.count) ((float*)p.out)[i] = to_float(((const T*)p.x)[i]);
}
STORAGE_KERNELS(cast_to_f32, Pointwise)

struct Fill {
  void* out;
  size_t count;
  float value;
  int unused;
};
PARAMETERS(Fill, 24);

// out = value
template <class T> __device__ void fill(const Fill& p) {
  size_t i = global_thread();
  if (i < p.count) ((T*)p.out)[i] = from_float<T>(p.value);
}
STORAGE_KERNELS(fill, Fill)

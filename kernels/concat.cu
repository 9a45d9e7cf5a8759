// Copies a run of channels between two maps of equal height and width: concat forward one input at a time, and backward in
// the opposite direction.
//
// Layout: [pixels, from_c] and [pixels, to_c]; channels [from, from + c) go to [to, to + c). A thread owns a pack (or one
// value) of the run; blocks of 256 threads, no shared memory. Exact: values are copied unchanged.
#include "channels.cuh"

struct CopyChannels {
  const void* x;
  void* out;
  size_t count;  // pixels * c
  unsigned c;
  unsigned from, from_c;
  unsigned to, to_c;
  unsigned lanes;
};
PARAMETERS(CopyChannels, 48);

template <class T> __device__ void copy_channels(const CopyChannels& p) {
  const unsigned item = (unsigned)global_thread(), items = p.c / p.lanes;
  if ((size_t)item * p.lanes >= p.count) return;
  const size_t pixel = item / items;
  const unsigned channel = item % items * p.lanes;
  const T* from = (const T*)p.x + pixel * p.from_c + p.from + channel;
  T* to = (T*)p.out + pixel * p.to_c + p.to + channel;
  if (p.lanes == 1) *to = *from;
  else store_pack(to, load_pack(from));
}
STORAGE_KERNELS(copy_channels, CopyChannels)

// The C++ part of the emulator, never instrumented: the context every kernel reads, the arithmetic of warp operations, and
// the hooks that `g++ -fsanitize=thread` calls at each load and store (its own run-time library is not linked).
#include <link.h>
#include "simt/half.h"

#define EACH_LANE(l, mask) for (int l = 0; l < 32; l++) if ((mask) >> l & 1)
#define OPERATION extern "C" void

extern "C" {
__thread SimtContext simt_context __attribute__((tls_model("initial-exec")));
SimtContext* simt_context_address() { return &simt_context; }

// Addresses of this thread's shared memory (thread-local storage) and of the executable's own data:
// out = {thread-local start, size, image start, end}.
void simt_memory_map(uintptr_t* out) {
  dl_iterate_phdr([](dl_phdr_info* object, size_t, void* result) {  // the first object is the executable
    uintptr_t* r = (uintptr_t*)result;
    r[2] = UINTPTR_MAX;
    for (int i = 0; i < object->dlpi_phnum; i++) {
      const ElfW(Phdr)& segment = object->dlpi_phdr[i];
      uintptr_t start = object->dlpi_addr + segment.p_vaddr, end = start + segment.p_memsz;
      if (segment.p_type == PT_TLS) r[0] = (uintptr_t)object->dlpi_tls_data, r[1] = segment.p_memsz;
      if (segment.p_type == PT_LOAD && start < r[2]) r[2] = start;
      if (segment.p_type == PT_LOAD && end > r[3]) r[3] = end;
    }
    return 1;
  }, out);
}

uint64_t simt_load(const void* p, int size) {
  if (size == 2) return __atomic_load_n((const uint16_t*)p, __ATOMIC_RELAXED);
  if (size == 4) return __atomic_load_n((const uint32_t*)p, __ATOMIC_RELAXED);
  return __atomic_load_n((const uint64_t*)p, __ATOMIC_RELAXED);
}
int simt_compare_swap(void* p, uint64_t* expected, uint64_t desired, int size) {
  int swapped;
  if (size == 2) {
    uint16_t e = *expected;
    swapped = __atomic_compare_exchange_n((uint16_t*)p, &e, (uint16_t)desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    *expected = e;
  } else if (size == 4) {
    uint32_t e = *expected;
    swapped = __atomic_compare_exchange_n((uint32_t*)p, &e, (uint32_t)desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
    *expected = e;
  } else {
    swapped = __atomic_compare_exchange_n((uint64_t*)p, expected, desired, 0, __ATOMIC_ACQ_REL, __ATOMIC_RELAXED);
  }
  return swapped;
}
}

// ---- votes and shuffles
OPERATION simt_op_sync(const void* const*, void* const*, uint32_t) {}
OPERATION simt_op_shuffle(const void* const* in, void* const* out, uint32_t mask) {
  const uint64_t undefined = 0xfff7fff7fff7fff7;  // NaN in every format: the result of a lane outside the mask
  EACH_LANE(l, mask) {
    int source = ((const SimtShuffle*)in[l])->source;
    *(uint64_t*)out[l] = mask >> source & 1 ? ((const SimtShuffle*)in[source])->value : undefined;
  }
}
OPERATION simt_op_ballot(const void* const* in, void* const* out, uint32_t mask) {
  uint32_t votes = 0;
  EACH_LANE(l, mask) votes |= (uint32_t)(*(const int*)in[l] != 0) << l;
  EACH_LANE(l, mask) *(uint32_t*)out[l] = votes;
}
OPERATION simt_op_match(const void* const* in, void* const* out, uint32_t mask) {
  EACH_LANE(l, mask) {
    uint32_t same = 0;
    EACH_LANE(k, mask) same |= (uint32_t)(*(const uint64_t*)in[k] == *(const uint64_t*)in[l]) << k;
    *(uint32_t*)out[l] = same;
  }
}
OPERATION simt_op_reduce(const void* const* in, void* const* out, uint32_t mask) {
  bool first = true;
  uint32_t sum = 0;
  EACH_LANE(l, mask) {
    const SimtReduce& r = *(const SimtReduce*)in[l];
    uint32_t v = r.value;
    int32_t a = (int32_t)sum, b = (int32_t)v;
    if (first) sum = v;
    else switch (r.op) {
      case SIMT_ADD: sum += v; break;
      case SIMT_MIN: sum = v < sum ? v : sum; break;
      case SIMT_MAX: sum = v > sum ? v : sum; break;
      case SIMT_MIN_SIGNED: sum = b < a ? v : sum; break;
      case SIMT_MAX_SIGNED: sum = b > a ? v : sum; break;
      case SIMT_AND: sum &= v; break;
      case SIMT_OR: sum |= v; break;
      default: sum ^= v;
    }
    first = false;
  }
  EACH_LANE(l, mask) *(uint32_t*)out[l] = sum;
}

// ---- mma.sync. In every shape lane 4g+t holds rows g and g+8 of d, columns 2t and 2t+1.
template <int K> static void multiply(const float (&a)[16][K], const float (&b)[K][8], void* const* out) {
  for (int row = 0; row < 16; row++) {
    int g = row % 8, half = row / 8 * 2;
    float sum[8];
    for (int n = 0; n < 8; n++) sum[n] = ((float*)out[4 * g + n / 2])[half + n % 2];
    for (int k = 0; k < K; k++)
      for (int n = 0; n < 8; n++) sum[n] += a[row][k] * b[k][n];
    for (int n = 0; n < 8; n++) ((float*)out[4 * g + n / 2])[half + n % 2] = sum[n];
  }
}
OPERATION simt_op_mma_tf32(const void* const* in, void* const* out, uint32_t) {
  float a[16][8], b[8][8];
  auto value = [](uint32_t bits) { return __uint_as_float(bits & 0xffffe000u); };  // the unit ignores the low 13 bits
  for (int l = 0; l < 32; l++) {
    int g = l / 4, t = l % 4;
    const SimtFragments& f = *(const SimtFragments*)in[l];
    a[g][t] = value(f.a[0]), a[g + 8][t] = value(f.a[1]), a[g][t + 4] = value(f.a[2]), a[g + 8][t + 4] = value(f.a[3]);
    b[t][g] = value(f.b[0]), b[t + 4][g] = value(f.b[1]);
  }
  multiply<8>(a, b, out);
}
template <class Value> static void mma_16bit(const void* const* in, void* const* out, Value value) {
  float a[16][16], b[16][8];
  for (int l = 0; l < 32; l++) {
    int g = l / 4, t = l % 4;
    const SimtFragments& f = *(const SimtFragments*)in[l];
    for (int h = 0; h < 2; h++) {  // the two 16-bit halves of each register
      auto half = [&](uint32_t bits) { return value((uint16_t)(bits >> 16 * h)); };
      int k = 2 * t + h;
      a[g][k] = half(f.a[0]), a[g + 8][k] = half(f.a[1]), a[g][k + 8] = half(f.a[2]), a[g + 8][k + 8] = half(f.a[3]);
      b[k][g] = half(f.b[0]), b[k + 8][g] = half(f.b[1]);
    }
  }
  multiply<16>(a, b, out);
}
OPERATION simt_op_mma_f16(const void* const* in, void* const* out, uint32_t) { mma_16bit(in, out, simt_half_to_float); }
OPERATION simt_op_mma_bf16(const void* const* in, void* const* out, uint32_t) { mma_16bit(in, out, simt_bfloat_to_float); }

// ---- ldmatrix: register m of lane 4r+c gets elements 2c and 2c+1 of row r of matrix m (of column r if transposed)
template <int COUNT, bool TRANS> static void ldmatrix(const void* const* in, void* const* out) {
  for (int l = 0; l < 32; l++)
    for (int m = 0; m < COUNT; m++) {
      uint16_t pair[2];
      for (int i = 0; i < 2; i++) {
        int row = TRANS ? l % 4 * 2 + i : l / 4, column = TRANS ? l / 4 : l % 4 * 2 + i;
        memcpy(&pair[i], (const char*)in[8 * m + row] + 2 * column, 2);
      }
      memcpy((uint32_t*)out[l] + m, pair, 4);
    }
}
#define LDMATRIX(name, count, trans) \
  OPERATION name(const void* const* in, void* const* out, uint32_t) { ldmatrix<count, trans>(in, out); }
LDMATRIX(simt_op_ldmatrix_x1, 1, false)
LDMATRIX(simt_op_ldmatrix_x2, 2, false)
LDMATRIX(simt_op_ldmatrix_x4, 4, false)
LDMATRIX(simt_op_ldmatrix_x1_trans, 1, true)
LDMATRIX(simt_op_ldmatrix_x2_trans, 2, true)
LDMATRIX(simt_op_ldmatrix_x4_trans, 4, true)

// ---- the hooks of -fsanitize=thread
extern "C" {
void simt_access(const void* p, size_t size, int write, int aligned, const void* code);
void simt_function(const void* frame, const void* code);
#define CALLER __builtin_return_address(0)
#define HOOK(size)                                                                       \
  void __tsan_read##size(void* p) { simt_access(p, size, 0, 1, CALLER); }                \
  void __tsan_write##size(void* p) { simt_access(p, size, 1, 1, CALLER); }               \
  void __tsan_unaligned_read##size(void* p) { simt_access(p, size, 0, 0, CALLER); }      \
  void __tsan_unaligned_write##size(void* p) { simt_access(p, size, 1, 0, CALLER); }
HOOK(1)
HOOK(2)
HOOK(4)
HOOK(8)
HOOK(16)
void __tsan_read_range(void* p, size_t size) { simt_access(p, size, 0, 0, CALLER); }
void __tsan_write_range(void* p, size_t size) { simt_access(p, size, 1, 0, CALLER); }
void __tsan_func_entry(void*) { simt_function(__builtin_frame_address(0), CALLER); }
void __tsan_func_exit() {}
void __tsan_init() {}
void __tsan_vptr_update(void**, void*) {}
}

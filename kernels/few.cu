// Convolution of maps of at most four channels, such as photos, in 16 bits: forward, and the gradient of the weights.
//
// As products of the tile engine (product.cuh) such layers need a copy of their windows in memory, since a pixel of three channels
// is no 16 bytes. Here a block copies the pixels under 8 x 8 output pixels, a patch, to shared memory, four channels each, and
// fragments of mma.sync come from there: windows overlap, and each pixel is read from memory once or twice instead of
// kernel_h kernel_w / (stride_h stride_w) times. What that brings is in kernels/lab, 12.
//
// Forward: Y^T[o, pixel] = W^T[o, k] X^T[k, pixel]; 16 k are four taps of four channels. A thread's registers of the second operand
// are two pairs of adjacent k; here these are the four channels of one tap, so one read of 8 bytes is a fragment, and filters are
// read in the same order:
//   k      0  1 | 2  3 | 4  5 | 6  7 | 8  9 | 10 11 | 12 13 | 14 15
//   tap      0  |   1  |   2  |   3  |   0  |    1  |    2  |    3       (+ 4 per step)
//   channel 0 1 |  0 1 |  0 1 |  0 1 |  2 3 |   2 3 |   2 3 |   2 3
// Half a warp reads pixels stride_w apart and four taps: hardly a bank twice for strides of 1, 4. A warp has ROWS rows of a patch and
// all N filters of a tile; a block has eight warps, which share the filters, in slots of 16 k filled by cp.async: a few that take
// turns, or as many as there are steps (then there is one barrier, and nothing but the product in the loop).
//
// Weights: k are the pixels of patches, 16 at a time, in turn for KS groups of warps, whose sums are added at the end; lines are
// pairs of taps side by side: 16 bytes of a line of pixels, for ldmatrix.trans. With an odd stride every other pixel's pairs are
// not aligned and come from a copy, shifted by a pixel. The fourth channel is 1: the sums of its first tap are the gradient of the
// bias, for maps of fewer channels. A block walks over `slab` patches at a time, in two slots; sum_parts adds the blocks' sums.
//
// Pooled: a thread's sums are those of adjacent pixels in adjacent rows, so 2 x 2 windows of a maximum that follows are reduced in
// registers, and Y is never written; for training a byte per window tells which pixel won. The gradient of the weights makes
// the gradient of Y from that of the maxima while it loads.
//
// Layouts: X, Y NHWC; W [i][j][c][o], o a multiple of 8. Grid: patches (forward) or splits (weights), tiles of N filters, and
// for weights parts of 8 or 40 tiles of 16 lines. Shared memory: dynamic, as the pixels need. Tolerance: 1e-2.
#include "channels.cuh"
#include "geometry.cuh"

struct Few : Geometry {
  const void* x;
  const void* w;      // forward
  const float* bias;  // forward, or null
  const void* dy;     // weights
  void* out;          // Y; or f32 sums [split][i][j][c][o]
  float* bias_sums;   // [split][o], or null
  // Pooled: [n][pool_h][pool_w][o], or null in inference. Bit e: pixel e of the window, in row order, has the maximum; none has a NaN,
  // or what a rectifier cut. dy is then the gradient of the maxima.
  unsigned char* codes;
  int activation;
  int patches;        // of all samples
  int taps, steps, slots;  // forward: steps of four taps, slots of filters
  int halo_w, halo;   // pixels of a line under a patch, and of all
  int pairs;          // weights: of taps
  int slab, per_split;  // weights: patches at a time, and of a split
  int copy;           // weights: 16-byte units from a slot's pixels to their copy shifted by a pixel, or 0
  int slot;           // weights: 16-byte units of a slot's pixels
  Divisor by_patches_x, by_patches_y, by_halo_w, by_kernel_w, by_pairs_w;
  int pool_h, pool_w, unused;
};
PARAMETERS(Few, 256);

constexpr int THREADS = 256, WARPS = 8, SIDE = 8;  // SIDE: of a patch
constexpr int SLOTS = 4;                           // of filters, where they take turns
constexpr int NOWHERE = 1 << 29;                   // a line outside of every map

// Four channels of a pixel.
template <class T> struct alignas(8) Quad {
  T v[4];
};

// Where a patch lies in the output; the sample is `n` or beyond where there is none.
struct Patch {
  int sample, y, x;
  __device__ __forceinline__ Patch(const Few& p, int index) {
    x = split_off(index, p.by_patches_x) * SIDE, y = split_off(index, p.by_patches_y) * SIDE, sample = index;
  }
};

// The pixels under a patch, zero outside of the map.
template <class T> struct Under {
  const T* first;  // top left
  int top, left;
  __device__ __forceinline__ Under(const Few& p, const Patch& patch) {
    top = patch.y * p.stride_h - p.pad_h, left = patch.x * p.stride_w - p.pad_w;
    first = (const T*)p.x + (ptrdiff_t)((patch.sample * p.in_h + top) * p.in_w + left) * p.in_c;
    if (patch.sample >= p.n) top = NOWHERE;
  }
  // `fourth` where there are fewer channels.
  __device__ __forceinline__ Quad<T> at(const Few& p, int index, float fourth) const {
    int line = index, x = split_off(line, p.by_halo_w);
    Quad<T> quad;
#pragma unroll
    for (int c = 0; c < 4; c++) quad.v[c] = from_float<T>(0.0f);
    if (p.in_c < 4) quad.v[3] = from_float<T>(fourth);
    if ((unsigned)(top + line) < (unsigned)p.in_h && (unsigned)(left + x) < (unsigned)p.in_w) {
      const T* from = first + (line * p.in_w + x) * p.in_c;
      quad.v[0] = from[0];
      if (p.in_c > 1) quad.v[1] = from[1];
      if (p.in_c > 2) quad.v[2] = from[2];
      if (p.in_c > 3) quad.v[3] = from[3];
    }
    return quad;
  }
};

// All bits of two 16-bit values where the first bits of two bytes are set.
__device__ __forceinline__ unsigned two_of(unsigned bytes) { return ((bytes & 1) | (bytes << 8 & 0x10000)) * 0xffff; }

// The line and the pack of thread `i` of those that copy 16 lines of N values, N + 8 apart. Eight threads that store at the same
// time store 128 bytes of a line or, at the end of lines, 64 bytes of each of two lines four apart: without conflicts.
template <int N> struct PackOf {
  static constexpr int PACKS = N / 8, FULL = PACKS / 8 * 8, REST = PACKS - FULL, COUNT = 16 * PACKS;
  static_assert(REST == 0 || REST == 4, "half of 128 bytes");
  int line, pack;
  __device__ __forceinline__ explicit PackOf(int i) {
    if (i < 16 * FULL) {
      line = i / 8 % 16, pack = i % 8 + i / 128 * 8;
    } else {
      i -= 16 * FULL;
      line = i / 8 % 4 + i / 4 % 2 * 4 + i / 32 * 8, pack = FULL + i % 4;
    }
  }
};

// Shared memory: pixels [patch][halo], filters [slot][16][N + 8], places of taps; after the sums, a row of each warp.
template <class T, int N, int ROWS, bool POOLED> __device__ __forceinline__ void few_forward(const Few& p) {
  constexpr int PER = SIDE / ROWS, PATCHES = WARPS / PER;  // warps of a patch
  constexpr int TILES = N / 16, LINE = N + 8, SLOT = 16 * LINE;
  DYN_SHARED(unsigned char, memory);
  uint2* pixels = reinterpret_cast<uint2*>(memory);
  T* slots = reinterpret_cast<T*>(memory + (PATCHES * p.halo + 1) / 2 * 16);
  int* places = reinterpret_cast<int*>(slots + p.slots * SLOT);
  int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  int n0 = blockIdx.y * N;

  // Copies a pack of each step's filters; `left` is how many taps are left where its channel and its filters exist.
  const PackOf<N> own(thread);
  int first_tap = own.line % 8 / 2, channel = own.line % 2 + own.line / 8 * 2, own_n = n0 + 8 * own.pack;
  int left = channel < p.in_c && own_n < p.out_c ? p.taps - first_tap : 0, ahead = 4 * p.in_c * p.out_c;
  int filter = left > 0 ? (first_tap * p.in_c + channel) * p.out_c + own_n : 0;
  T* own_slot = slots + own.line * LINE + 8 * own.pack;
  auto load = [&](unsigned offset) {
    if (thread < PackOf<N>::COUNT) {
      cp_async16_zfill(own_slot + offset, (const T*)p.w + filter, left > 0 ? 16 : 0);
      if (left > 4) filter += ahead;
      left -= 4;
    }
    cp_async_commit();
  };
  bool resident = p.slots >= p.steps;
  if (resident) {
    for (int q = 0; q < p.steps; q++) load(q * SLOT);
  } else {
#pragma unroll
    for (int q = 0; q < SLOTS - 1; q++) load(q * SLOT);
  }

  for (int tap = thread; tap < 4 * p.steps; tap += THREADS) {
    int i = tap < p.taps ? tap : 0, j = split_off(i, p.by_kernel_w);
    places[tap] = i * p.halo_w + j;  // beyond the last tap filters are zero, and the first one's pixel will do
  }
  // Each warp copies its share of its patch.
  uint2* mine = pixels + warp / PER * p.halo;
  Patch patch(p, blockIdx.x * PATCHES + warp / PER);
  const Under<T> under(p, patch);
  for (int i = warp % PER * 32 + lane; i < p.halo; i += PER * 32)
    reinterpret_cast<Quad<T>*>(mine)[i] = under.at(p, i, 0.0f);

  int g = lane / 4, t = lane % 4;
  float sum[TILES][ROWS][4];
#pragma unroll
  for (int i = 0; i < TILES; i++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int n = n0 + 16 * i + 8 * h + g;
      float bias = p.bias && n < p.out_c ? p.bias[n] : 0.0f;
#pragma unroll
      for (int j = 0; j < ROWS; j++) sum[i][j][2 * h] = sum[i][j][2 * h + 1] = bias;
    }
  int row = warp % PER * ROWS, down = p.stride_h * p.halo_w;
  const uint2* b = mine + row * down + g * p.stride_w;
  const T* a = slots + (lane / 16 * 8 + lane % 8) * LINE + lane / 8 % 2 * 8;
  auto step = [&](int q, const T* filters) {
    const uint2* from = b + places[4 * q + t];
    uint32_t fb[ROWS][2];
#pragma unroll
    for (int j = 0; j < ROWS; j++) {
      uint2 v = from[j * down];
      fb[j][0] = v.x, fb[j][1] = v.y;
    }
#pragma unroll
    for (int i = 0; i < TILES; i++) {
      uint32_t fa[4];
      ldmatrix_x4_trans(fa, filters + 16 * i);
#pragma unroll
      for (int j = 0; j < ROWS; j++) mma_16(sum[i][j], fa, fb[j], T{});
    }
  };
  if (resident) {
    cp_async_wait_all();
    __syncthreads();
#pragma unroll 1
    for (int q = 0; q < p.steps; q++, a += SLOT) step(q, a);
  } else {
#pragma unroll 1
    for (unsigned q = 0; q < (unsigned)p.steps; q++) {
      cp_async_wait<SLOTS - 2>();
      __syncthreads();  // this step has arrived, and all threads are done with the slot that is filled next
      load((q + SLOTS - 1) % SLOTS * SLOT);
      step(q, a + q % SLOTS * SLOT);
    }
  }
  cp_async_wait_all();
  __syncthreads();
  patch = Patch(p, blockIdx.x * PATCHES + warp / PER);  // again: it takes no registers in the loop

  // Eight pixels at a time through shared memory, a row or 2 x 4 windows, so that four threads write 64 bytes of each. They are
  // N + 8 values apart: those of a fragment, and eight packs of pixels four apart, lie in different banks.
  T* line = reinterpret_cast<T*>(memory) + warp * SIDE * LINE;
  // The smallest number above zero rounds to zero, but is no sum of a pixel that a rectifier cut.
  float least = p.activation != RELU ? -INFINITY : POOLED ? 1e-45f : 0.0f;
  int at = lane / 8 + lane / 4 % 2 * 4;
  const T* get = line + at * LINE + 8 * t;
  if constexpr (POOLED) {
    unsigned char* codes = memory + WARPS * SIDE * LINE * sizeof(T) + warp * SIDE * LINE;
#pragma unroll
    for (int j = 0; j < ROWS; j += 4) {
#pragma unroll
      for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int h = 0; h < 4; h++) {
          const float(&upper)[4] = sum[i][j + h / 2 * 2];
          const float(&lower)[4] = sum[i][j + h / 2 * 2 + 1];
          float v[4] = {upper[h % 2 * 2], upper[h % 2 * 2 + 1], lower[h % 2 * 2], lower[h % 2 * 2 + 1]};
          int slot = (h / 2 * 4 + t) * LINE + 16 * i + h % 2 * 8 + g;
          float top = max_nan(max_nan(max_nan(v[0], v[1]), max_nan(v[2], v[3])), least);
          line[slot] = from_float<T>(top);
          if (p.codes) {
            int code = 0;
#pragma unroll
            for (int e = 3; e >= 0; e--)
              if (v[e] == top) code = 1 << e;
            codes[slot] = (unsigned char)code;
          }
        }
      __syncwarp();
      int y = (patch.y + row + j) / 2 + at / 4, x = patch.x / 2 + at % 4;
      bool inside = patch.sample < p.n && y < p.pool_h && x < p.pool_w;
      ptrdiff_t to = (ptrdiff_t)((patch.sample * p.pool_h + y) * p.pool_w + x) * p.out_c + n0 + 8 * t;
#pragma unroll
      for (int n = 0; n < N; n += 32)
        if (inside && n0 + 8 * t + n < p.out_c) {
          store_pack((T*)p.out + to + n, load_pack(get + n));
          if (p.codes) *reinterpret_cast<uint2*>(p.codes + to + n) = *reinterpret_cast<const uint2*>(codes + at * LINE + 8 * t + n);
        }
      __syncwarp();
    }
  } else {
    T* put = line + 2 * t * LINE + g;
    int x = patch.x + at;
#pragma unroll
    for (int j = 0; j < ROWS; j++) {
#pragma unroll
      for (int i = 0; i < TILES; i++)
#pragma unroll
        for (int e = 0; e < 4; e++)
          put[e % 2 * LINE + 16 * i + e / 2 * 8] = from_float<T>(max_nan(sum[i][j][e], least));
      __syncwarp();
      int y = patch.y + row + j;
      bool inside = patch.sample < p.n && y < p.out_h && x < p.out_w;
      T* to = (T*)p.out + (ptrdiff_t)((patch.sample * p.out_h + y) * p.out_w + x) * p.out_c + n0 + 8 * t;
#pragma unroll
      for (int n = 0; n < N; n += 32)
        if (inside && n0 + 8 * t + n < p.out_c) store_pack(to + n, load_pack(get + n));
      __syncwarp();
    }
  }
}

// Where pixels of a stride of 4 lie: units of every other 128 bytes are exchanged in pairs, so that a unit of each of eight pixels,
// 32 bytes apart, lies in another bank.
template <bool SWIZZLE> __device__ __forceinline__ unsigned swizzled(unsigned at) {
  return SWIZZLE ? at ^ (at >> 3 & 2) : at;
}

// Shared memory: two slots of pixels [patch][halo] with their copies, then two of gradients [patch][64][N + 8]; after the loop, the
// sums of all groups of warps but the first.
template <class T, int MT, int KS, bool SWIZZLE, bool POOLED> __device__ __forceinline__ void few_backward_weights(const Few& p) {
  constexpr int N = 32, TILES = N / 8, LINE = N + 8, ACROSS = WARPS / KS;
  DYN_SHARED(unsigned char, memory);
  T* gradients = reinterpret_cast<T*>(memory + 2 * p.slot * 16);
  int thread = threadIdx.x, lane = thread % 32, warp = thread / 32;
  int n0 = blockIdx.y * N;
  int first = blockIdx.x * p.per_split, end = min(p.patches, first + p.per_split);

  auto load = [&](int slot, int number) {
    for (int s = 0; s < p.slab; s++) {
      Patch patch(p, number + s < end ? number + s : p.patches);
      const Under<T> under(p, patch);
      unsigned char* to = memory + slot * p.slot * 16;
      for (int i = thread; i < p.halo; i += THREADS) {
        Quad<T> quad = under.at(p, i, 1.0f);
        unsigned at = s * p.halo + i;
        *reinterpret_cast<Quad<T>*>(to + swizzled<SWIZZLE>(at) * 8) = quad;
        if (p.copy && at > 0) *reinterpret_cast<Quad<T>*>(to + p.copy * 16 + (at - 1) * 8) = quad;
      }
      T* lines = gradients + (slot * p.slab + s) * 64 * LINE;
      if constexpr (POOLED) {
        // A thread has a pack of a window, and writes that of its four pixels; eight threads have windows two apart, whose pixels
        // lie in different banks. Patches take turns among the warps.
        int i = (thread + 192 * s) % THREADS;
        if (i < 64) {
          int row = i / 16, column = i / 8 % 2 + i / 4 % 2 * 2, n = i % 4 * 8;
          int y = patch.y / 2 + row, x = patch.x / 2 + column;
          uint4 d = {};
          uint2 codes = {};
          if (patch.sample < p.n && y < p.pool_h && x < p.pool_w && n0 + n < p.out_c) {
            ptrdiff_t from = (ptrdiff_t)((patch.sample * p.pool_h + y) * p.pool_w + x) * p.out_c + n0 + n;
            d = *reinterpret_cast<const uint4*>((const T*)p.dy + from);
            codes = *reinterpret_cast<const uint2*>(p.codes + from);
          }
          T* own = lines + (row * 16 + column * 2) * LINE + n;
#pragma unroll
          for (int e = 0; e < 4; e++) {
            unsigned left = codes.x >> e & 0x01010101, right = codes.y >> e & 0x01010101;
            uint4 part = {d.x & two_of(left), d.y & two_of(left >> 16), d.z & two_of(right), d.w & two_of(right >> 16)};
            *reinterpret_cast<uint4*>(own + (e / 2 * SIDE + e % 2) * LINE) = part;
          }
        }
      } else {
        const PackOf<N> own(thread % 64);
        int k = thread / 64 * 16 + own.line, n = n0 + 8 * own.pack;
        int y = patch.y + k / SIDE, x = patch.x + k % SIDE;
        bool inside = patch.sample < p.n && y < p.out_h && x < p.out_w && n < p.out_c;
        int index = inside ? (patch.sample * p.out_h + y) * p.out_w + x : 0;
        const T* from = (const T*)p.dy + (ptrdiff_t)index * p.out_c + (inside ? n : 0);
        cp_async16_zfill(lines + k * LINE + 8 * own.pack, from, inside ? 16 : 0);
      }
    }
    cp_async_commit();
  };

  // What this lane reads of each tile: a pair of taps of the pixel in its column, or its copy.
  int tile0 = (blockIdx.z * ACROSS + warp % ACROSS) * MT, part = warp / ACROSS;
  int x = lane % 8 * p.stride_w, down = p.stride_h * p.halo_w;
  const unsigned char* own = memory + (x % 2 ? p.copy * 16 : 0);
  unsigned taps[MT];
#pragma unroll
  for (int i = 0; i < MT; i++) {
    int line = min(2 * (tile0 + i) + lane / 8 % 2, p.pairs - 1), pair = split_off(line, p.by_pairs_w);
    taps[i] = line * p.halo_w + 2 * pair + x / 2 * 2 + (2 * part + lane / 16) * down;
  }
  float sum[MT][TILES][4] = {};
  load(0, first);
  int slot = 0;
#pragma unroll 1
  for (int number = first; number < end; number += p.slab, slot ^= 1) {
    cp_async_wait_all();
    __syncthreads();  // these patches have arrived, and all threads are done with the other slot
    if (number + p.slab < end) load(slot ^ 1, number + p.slab);
    const unsigned char* a = own + slot * p.slot * 16;
    const T* b = gradients + (slot * p.slab * 64 + part * 16 + lane % 16) * LINE + lane / 16 * 8;
    unsigned origin = 0;
#pragma unroll 1
    for (int s = 0; s < p.slab; s++, origin += p.halo, b += 64 * LINE) {
#pragma unroll
      for (int k = 0; k < 4; k += KS) {
        uint32_t fb[TILES / 2][4];
#pragma unroll
        for (int j = 0; j < TILES / 2; j++) ldmatrix_x4_trans(fb[j], b + k * 16 * LINE + 16 * j);
#pragma unroll
        for (int i = 0; i < MT; i++) {
          if (2 * (tile0 + i) >= p.pairs) break;
          uint32_t fa[4];
          ldmatrix_x4_trans(fa, a + swizzled<SWIZZLE>(origin + 2 * k * down + taps[i]) * 8);
#pragma unroll
          for (int j = 0; j < TILES; j++) {
            uint32_t pair[2] = {fb[j / 2][j % 2 * 2], fb[j / 2][j % 2 * 2 + 1]};
            mma_16(sum[i][j], fa, pair, T{});
          }
        }
      }
    }
  }

  if constexpr (KS > 1) {
    static_assert(KS == 2, "one group adds to the other");
    float* sums = reinterpret_cast<float*>(memory) + warp % ACROSS * MT * TILES * 4 * 32 + lane;
    __syncthreads();
#pragma unroll
    for (int e = 0; e < MT * TILES * 4; e++)
      if (part == 1) sums[e * 32] = sum[e / (TILES * 4)][e / 4 % TILES][e % 4];
    __syncthreads();
    if (part == 1) return;
#pragma unroll
    for (int e = 0; e < MT * TILES * 4; e++) sum[e / (TILES * 4)][e / 4 % TILES][e % 4] += sums[e * 32];
  }
  // Lines of a tile are two pairs of taps of four channels.
  size_t values = (size_t)p.taps * p.in_c * p.out_c;
  float* out = (float*)p.out + blockIdx.x * values;
  float* bias = p.bias_sums ? p.bias_sums + (size_t)blockIdx.x * p.out_c : nullptr;
#pragma unroll
  for (int i = 0; i < MT; i++)
#pragma unroll
    for (int h = 0; h < 2; h++) {
      int line = 2 * (tile0 + i) + h, row = line, j = split_off(row, p.by_pairs_w) * 2 + lane / 16, c = lane / 4 % 4;
      if (line >= p.pairs) break;
      float* to = j < p.kernel_w && c < p.in_c ? out + (size_t)((row * p.kernel_w + j) * p.in_c + c) * p.out_c : nullptr;
      if (line == 0 && j == 0 && c == 3 && p.in_c < 4) to = bias;
#pragma unroll
      for (int e = 0; e < TILES; e++) {
        int n = n0 + 8 * e + lane % 4 * 2;
        if (to && n < p.out_c) *reinterpret_cast<float2*>(to + n) = make_float2(sum[i][e][2 * h], sum[i][e][2 * h + 1]);
      }
    }
}

// Tiles of 32, 64 and 96 filters; the weights' with two tiles of 16 lines for half of the warps, or five for all, of any stride and
// of 4; all of them also under a pool.
#define FEW_KERNEL(name, ...) \
  extern "C" __global__ void __launch_bounds__(THREADS, 2) name(const Few p) { __VA_ARGS__(p); }
#define FEW_PAIR(name, suffix, ...)                \
  FEW_KERNEL(name##_##suffix, __VA_ARGS__, false>) \
  FEW_KERNEL(name##_pooled_##suffix, __VA_ARGS__, true>)
#define FEW_KERNELS(suffix, T)                                                               \
  FEW_PAIR(few_forward_32, suffix, few_forward<T, 32, 8)                                     \
  FEW_PAIR(few_forward_64, suffix, few_forward<T, 64, 4)                                     \
  FEW_PAIR(few_forward_96, suffix, few_forward<T, 96, 4)                                     \
  FEW_PAIR(few_backward_weights, suffix, few_backward_weights<T, 2, 2, false)                \
  FEW_PAIR(few_backward_weights_large, suffix, few_backward_weights<T, 5, 1, false)          \
  FEW_PAIR(few_backward_weights_strided, suffix, few_backward_weights<T, 5, 1, true)
FEW_KERNELS(f16, half)
FEW_KERNELS(bf16, nv_bfloat16)

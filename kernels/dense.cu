// The interweaved operation in one pass: a layer over the dense maps of its classes (src/interweave/geometry.rs). A map's pixel
// reads taps in maps of the layer below; a window across the border of two cells is gathered from two maps while it is read,
// and no interweaved map is ever written. All maps of a layer and all images of a batch are one launch: a table assigns tiles to
// maps. All pixels of a map read a tap in the same map, so `taps` has an entry per map and tap; a pixel's line and column there
// come from two tables, one for rows and one for columns. None of these three loads waits for another.
//
//   dense_conv       Y[pixel, o] = sum over taps (i, j, c); a linear layer is a window as large as its map
//   dense_pool       maximum or average of a window
//   dense_copy       the pixel of one input: concat, and layers that act on single pixels; places of whole maps
//   dense_gather     whole windows [pixel][tap], for operations on whole maps
//   dense_features   [patch][C, H, W] in f32, from the maps of the last layer
//
// Layouts: a value is [image][map][row][column][channel]. Grid of dense_conv: tiles, tiles of filters, images * splits; shared
// memory and tolerance as product.cuh. Of pool, copy and gather: tiles, 1, images; a thread owns a pack of channels of a pixel
// (gather: of a tap), or one channel; tiles are as long as 256 threads; no shared memory, one rounding of the storage type.
#include "channels.cuh"
#include "product.cuh"

// Pixels [first, first + M) of one map of the value that is written.
struct Tile {
  unsigned long long at;  // the map's first value
  int rows, columns;      // index of its first row and column in the tables
  int pixels;             // of the map
  int first, bank, map;
  float scale;            // of an average
  Divisor by_width;       // columns of the map
};
PARAMETERS(Tile, 48);

// The map that a tap of a map's pixels reads: its first value, NOTHING in padding, and values between its lines.
struct alignas(16) Tap {
  unsigned long long at;
  int line, unused;
};
PARAMETERS(Tap, 16);
constexpr unsigned long long NOTHING = ~0ull;

struct Dense {
  const void* x;
  const void* w;
  const float* bias;  // [bank][o], or null
  void* y;
  float* partial;  // [split][image][value], the bias in split 0
  const int* rows;     // [row][vertical tap]: row of the map that is read
  const int* columns;  // [column][horizontal tap]
  const Tile* tiles;
  const Tap* taps;     // [map][tap]
  unsigned long long x_image, y_image;  // values of an image
  int taps_h, taps_w;
  int in_c, out_c, first_c, groups;
  int activation, splits, k_per_split, wide_x, wide_w, images, average, tile;
  int lanes;            // channels that a thread owns; not dense_conv
  Divisor by_channels;  // dense_conv: channels of a group; the others: channels in units of a thread
  Divisor by_taps_w, by_taps;
};
PARAMETERS(Dense, 184);

// X[pixel, tap] of one map and group.
template <class T> struct DenseWindow {
  static constexpr bool K_INNER = true;
  const Dense& p;
  const Tile& tile;
  const Tap* taps;
  const T* x;  // first channel of the image and group
  int count, channels;
  bool wide;
  struct Row { int row, column; bool inside; };  // first entries of the pixel in both tables
  struct Step { const T* first; int line, i, j; bool inside; };
  __device__ __forceinline__ DenseWindow(const Dense& p, const Tile& tile, int image, int group)
      : p(p), tile(tile), taps(p.taps + tile.map * p.taps_h * p.taps_w), count(p.taps_h * p.taps_w * (p.in_c / p.groups)),
        channels(p.in_c / p.groups), wide(p.wide_x != 0) {
    x = (const T*)p.x + image * p.x_image + group * channels;
  }
  __device__ __forceinline__ Row row(int index) const {
    bool inside = index < tile.pixels;
    int y = inside ? index : 0, x = split_off(y, tile.by_width);
    return {(tile.rows + y) * p.taps_h, (tile.columns + x) * p.taps_w, inside};
  }
  __device__ __forceinline__ Step step(int k) const {
    bool inside = k < count;
    int c = split_off(k, p.by_channels), i = inside ? k : 0, j = split_off(i, p.by_taps_w);
    const Tap tap = taps[i * p.taps_w + j];
    inside = inside && tap.at != NOTHING;
    return {x + (inside ? tap.at + c : 0), tap.line, i, j, inside};
  }
  __device__ __forceinline__ bool at(const Row& row, const Step& step, const T*& from) const {
    int y = p.rows[row.row + step.i], x = p.columns[row.column + step.j];
    from = step.first + (y * step.line + x * p.in_c);
    return row.inside && step.inside;
  }
};

template <class Math, bool WIDE> __device__ void dense_conv(const Dense& p) {
  typedef typename Math::T T;
  const Tile& tile = p.tiles[blockIdx.x / p.groups];
  int group = blockIdx.x % p.groups, image = blockIdx.z / p.splits, split = blockIdx.z % p.splits;
  DenseWindow<T> a(p, tile, image, group);
  int filters = p.out_c / p.groups;
  const T* weights = (const T*)p.w + (size_t)(tile.bank * p.groups + group) * a.count * filters;
  Matrix<T, false> b{weights, filters, a.count, filters, p.wide_w != 0};
  int n0 = blockIdx.y * Math::Shape::N, k0 = split * p.k_per_split, k1 = min(a.count, k0 + p.k_per_split);
  auto target = [&] {
    bool apart = p.splits > 1;
    const float* bias = p.bias && split == 0 ? p.bias + (size_t)(tile.bank * p.groups + group) * filters : nullptr;
    size_t first = image * p.y_image + tile.at + group * filters;
    Target<T> to{(T*)p.y + first, nullptr, bias, tile.pixels, filters, p.activation, p.out_c};
    if (apart) to.sums = p.partial + (size_t)split * p.images * p.y_image + first, to.activation = NONE;
    return to;
  };
  product<Math, WIDE>(a, b, tile.first, n0, k0, k1, target, [&](int m) { return (size_t)m * p.out_c; });
}
PRODUCT_KERNELS(dense_conv, Dense, 3)

// Y = activation(sum over splits); one thread per value.
template <class T> __device__ void dense_finish(const Dense& p) {
  size_t i = global_thread(), count = (size_t)p.images * p.y_image;
  if (i >= count) return;
  float value = 0.0f;
  for (int s = 0; s < p.splits; s++) value += p.partial[s * count + i];
  ((T*)p.y)[i] = from_float<T>(activate(value, p.activation));
}
STORAGE_KERNELS(dense_finish, Dense)

// Calls f(item) for the items of a tile, `each` of a pixel.
template <class F> __device__ __forceinline__ void each_item(const Dense& p, const Tile& tile, unsigned each, F f) {
  const int count = min(p.tile, tile.pixels - tile.first) * (int)each;
  for (int i = threadIdx.x; i < count; i += blockDim.x) f(i);
}
// First entries of a pixel in both tables.
struct Entries {
  const int* row;
  const int* column;
};
__device__ __forceinline__ Entries entries(const Dense& p, const Tile& tile, int pixel) {
  int row = pixel, column = split_off(row, tile.by_width);
  return {p.rows + (tile.rows + row) * p.taps_h, p.columns + (tile.columns + column) * p.taps_w};
}
// Where N channels of a tap begin, as an offset in the image.
__device__ __forceinline__ size_t offset(const Dense& p, const Tap& tap, int row, int column, int c) {
  return tap.at + (row * tap.line + column * p.in_c + c);
}

template <class T, int N, bool AVERAGE> __device__ __forceinline__ void pool(const Dense& p) {
  const Tile tile = p.tiles[blockIdx.x];
  const Tap* taps = p.taps + tile.map * p.taps_h * p.taps_w;
  const T* x = (const T*)p.x + blockIdx.z * p.x_image;
  T* y = (T*)p.y + blockIdx.z * p.y_image + tile.at;
  each_item(p, tile, p.by_channels.divisor, [&](int item) {
    const int c = split_off(item, p.by_channels) * N, pixel = tile.first + item;
    const Entries at = entries(p, tile, pixel);
    Lanes<N> result = all_lanes<N>(AVERAGE ? 0.0f : -INFINITY);
    for (int i = 0; i < p.taps_h; i++) {
      const int row = at.row[i];
#pragma unroll 2
      for (int j = 0; j < p.taps_w; j++) {
        const Tap tap = taps[i * p.taps_w + j];
        // A load without a branch, so that those of several taps are under way together.
        const bool inside = tap.at != NOTHING;
        const size_t from = offset(p, tap, row, at.column[j], c);
        const Lanes<N> v = load_lanes<T, N>(x, inside ? from : 0);
#pragma unroll
        for (int k = 0; k < N; k++) {
          const float joined = AVERAGE ? result.v[k] + v.v[k] : maximum(result.v[k], v.v[k]);
          result.v[k] = inside ? joined : result.v[k];
        }
      }
    }
#pragma unroll
    for (int k = 0; k < N; k++)
      if (AVERAGE) result.v[k] *= tile.scale;
    store_lanes<T, N>(y, (size_t)pixel * p.out_c + c, result);
  });
}
template <class T, int N> __device__ __forceinline__ void maximum_pool(const Dense& p) { pool<T, N, false>(p); }
template <class T, int N> __device__ __forceinline__ void average_pool(const Dense& p) { pool<T, N, true>(p); }
template <class T> __device__ void dense_pool(const Dense& p) {
  if (p.average) {
    LANES(p.lanes, average_pool, p);
  } else {
    LANES(p.lanes, maximum_pool, p);
  }
}
STORAGE_KERNELS(dense_pool, Dense)

// N values as they are; zeros from null.
template <class T, int N> __device__ __forceinline__ void copy_lanes(T* to, const T* from) {
  if constexpr (N == 1) {
    *to = from ? *from : from_float<T>(0.0f);
  } else {
    Pack<T> v = {};
    if (from) v = load_pack(from);
    store_pack(to, v);
  }
}

// Channels first_c .. of each pixel; there is one tap.
template <class T, int N> __device__ __forceinline__ void copy_pixels(const Dense& p) {
  const Tile tile = p.tiles[blockIdx.x];
  const Tap tap = p.taps[tile.map];
  const T* x = (const T*)p.x + blockIdx.z * p.x_image;
  T* y = (T*)p.y + blockIdx.z * p.y_image + tile.at + p.first_c;
  each_item(p, tile, p.by_channels.divisor, [&](int item) {
    const int c = split_off(item, p.by_channels) * N, pixel = tile.first + item;
    const Entries at = entries(p, tile, pixel);
    const T* from = tap.at == NOTHING ? nullptr : x + offset(p, tap, *at.row, *at.column, c);
    copy_lanes<T, N>(y + (size_t)pixel * p.out_c + c, from);
  });
}
template <class T> __device__ void dense_copy(const Dense& p) { LANES(p.lanes, copy_pixels, p); }
STORAGE_KERNELS(dense_copy, Dense)

// [image][pixel][i][j][c] of the first map
template <class T, int N> __device__ __forceinline__ void gather_windows(const Dense& p) {
  const Tile tile = p.tiles[blockIdx.x];
  const int count = p.taps_h * p.taps_w;
  const Tap* taps = p.taps + tile.map * count;
  const T* x = (const T*)p.x + blockIdx.z * p.x_image;
  T* y = (T*)p.y + blockIdx.z * p.y_image;
  each_item(p, tile, count * p.by_channels.divisor, [&](int item) {
    const int c = split_off(item, p.by_channels) * N, number = split_off(item, p.by_taps), pixel = tile.first + item;
    int i = number, j = split_off(i, p.by_taps_w);
    const Entries at = entries(p, tile, pixel);
    const Tap tap = taps[number];
    const T* from = tap.at == NOTHING ? nullptr : x + offset(p, tap, at.row[i], at.column[j], c);
    copy_lanes<T, N>(y + ((size_t)pixel * count + number) * p.in_c + c, from);
  });
}
template <class T> __device__ void dense_gather(const Dense& p) { LANES(p.lanes, gather_windows, p); }
STORAGE_KERNELS(dense_gather, Dense)

// A map of the value that is read: its first value, and its row pitch in pixels.
struct Map {
  unsigned long long at;
  int columns, unused;
};
PARAMETERS(Map, 16);

struct Features {
  const void* x;
  float* features;      // [image][down][across][c][h][w]
  const int2* rows;     // [patch down][y]: class and row of the map that is read; -1 where there is none
  const int2* columns;  // [patch across][x]
  const Map* maps;      // [class down][class across]
  unsigned long long x_image;
  int classes, images;  // classes across
  Divisor by_w, by_h, by_c, by_across, by_down;
  int unused;
};
PARAMETERS(Features, 120);

// One thread per value.
template <class T> __device__ void dense_features(const Features& p) {
  const size_t item = global_thread();
  int rest = (int)item;
  const int x = split_off(rest, p.by_w), y = split_off(rest, p.by_h), c = split_off(rest, p.by_c);
  const int across = split_off(rest, p.by_across), down = split_off(rest, p.by_down), image = rest;
  if (image >= p.images) return;
  const int2 row = p.rows[down * (int)p.by_h.divisor + y], column = p.columns[across * (int)p.by_w.divisor + x];
  float value = 0.0f;
  if (row.x >= 0 && column.x >= 0) {
    const Map map = p.maps[row.x * p.classes + column.x];
    const size_t at = map.at + ((size_t)row.y * map.columns + column.y) * p.by_c.divisor + c;
    value = to_float(((const T*)p.x)[image * p.x_image + at]);
  }
  p.features[item] = value;
}
STORAGE_KERNELS(dense_features, Features)

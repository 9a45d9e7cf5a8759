// The interweaved operation in one pass: a layer over the dense maps of its classes (src/interweave/geometry.rs). A map's pixel
// reads taps in maps of the layer below, whose class and position are given by two tables, one for rows and one for columns; a
// window across the border of two cells is gathered from two maps while a tile is loaded, and no interweaved map is ever
// written. All maps of a layer and all images of a batch are one launch: a table assigns tiles to maps.
//
//   dense_conv       Y[pixel, o] = sum over taps (i, j, c); a linear layer is a window as large as its map. All pixels of a map
//                    read a tap in the same map, so `taps` has an entry per map and tap; a pixel's line and column there come
//                    from the two tables. None of these three loads waits for another.
//   dense_pool       maximum or average of a window
//   dense_copy       the pixel of each input: concat, and layers that act on single pixels; places of whole maps
//   dense_gather     whole windows [pixel][tap], for operations on whole maps
//   dense_features   [patch][C, H, W] in f32, from the maps of the last layer
//
// Layouts: a value is [image][map][row][column][channel]. Grid of dense_conv: tiles, tiles of filters, images * splits; shared
// memory and tolerance as product.cuh. The others: tiles, 1, images; no shared memory, one rounding of the storage type.
#include "product.cuh"

// A map of the value that is read: its first value, and its row pitch in pixels.
struct Map {
  unsigned long long at;
  int columns, unused;
};
PARAMETERS(Map, 16);

// Pixels [first, first + M) of one map of the value that is written.
struct Tile {
  unsigned long long at;  // the map's first value
  int rows, columns;      // index of its first row and column in the tables
  int width, pixels;      // columns, and pixels of the map
  int first, bank;
  float scale;            // of an average
  int map;
};
PARAMETERS(Tile, 40);

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
  const int2* rows;     // [row][vertical tap]: class and row of the value that is read; -1 in padding
  const int2* columns;  // [column][horizontal tap]
  const Map* maps;      // [class down][class across]
  const Tile* tiles;
  const Tap* taps;      // [map][tap]; dense_conv
  unsigned long long x_image, y_image;  // values of an image
  int taps_h, taps_w, across;           // across: classes across of what is read
  int in_c, out_c, first_c, groups;
  int activation, splits, k_per_split, wide_x, wide_w, images, average, tile;
  Divisor by_channels, by_taps_w;
  int unused;
};
PARAMETERS(Dense, 184);

struct Pixel {
  const int2* row;
  const int2* column;
};
template <class T> struct Reader {
  const Dense& p;
  const Tile& tile;
  const T* x;  // first value of the image
  __device__ __forceinline__ Reader(const Dense& p, const Tile& tile, int image)
      : p(p), tile(tile), x((const T*)p.x + image * p.x_image) {}
  __device__ __forceinline__ Pixel pixel(int index) const {
    int y = index / tile.width, x = index % tile.width;
    return {p.rows + (size_t)(tile.rows + y) * p.taps_h, p.columns + (size_t)(tile.columns + x) * p.taps_w};
  }
  // The first channel that tap (i, j) of a pixel reads, or null.
  __device__ __forceinline__ const T* at(const Pixel& pixel, int i, int j) const {
    int2 row = pixel.row[i], column = pixel.column[j];
    if (row.x < 0 || column.x < 0) return nullptr;
    const Map& map = p.maps[row.x * p.across + column.x];
    return x + (map.at + ((size_t)row.y * map.columns + column.y) * p.in_c);
  }
};

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
    int y = inside ? index / tile.width : 0, x = inside ? index % tile.width : 0;
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
    int y = p.rows[row.row + step.i].y, x = p.columns[row.column + step.j].y;
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

// Calls f(pixel, channel) for the values of a tile, adjacent threads on adjacent channels.
template <class F> __device__ __forceinline__ void each_value(const Dense& p, const Tile& tile, int channels, F f) {
  int count = min(p.tile, tile.pixels - tile.first) * channels;
  for (int i = threadIdx.x; i < count; i += blockDim.x) f(tile.first + i / channels, i % channels);
}

template <class T> __device__ void dense_pool(const Dense& p) {
  const Tile& tile = p.tiles[blockIdx.x];
  Reader<T> reader(p, tile, blockIdx.z);
  T* y = (T*)p.y + blockIdx.z * p.y_image + tile.at;
  each_value(p, tile, p.out_c, [&](int index, int c) {
    Pixel pixel = reader.pixel(index);
    float result = p.average ? 0.0f : -INFINITY;
    for (int i = 0; i < p.taps_h; i++)
      for (int j = 0; j < p.taps_w; j++) {
        const T* from = reader.at(pixel, i, j);
        if (!from) continue;
        float value = to_float(from[c]);
        if (p.average) result += value;
        else result = value <= result || result != result ? result : value;  // NaN wins, and stays
      }
    y[(size_t)index * p.out_c + c] = from_float<T>(p.average ? result * tile.scale : result);
  });
}
STORAGE_KERNELS(dense_pool, Dense)

// Channels first_c .. of each pixel; tap (i, i) is input i, and taps_h - 1 is the last one.
template <class T> __device__ void dense_copy(const Dense& p) {
  const Tile& tile = p.tiles[blockIdx.x];
  Reader<T> reader(p, tile, blockIdx.z);
  T* y = (T*)p.y + blockIdx.z * p.y_image + tile.at;
  each_value(p, tile, p.in_c, [&](int index, int c) {
    const T* from = reader.at(reader.pixel(index), p.average, p.average);  // here `average` is the number of the input
    y[(size_t)index * p.out_c + p.first_c + c] = from ? from[c] : from_float<T>(0.0f);
  });
}
STORAGE_KERNELS(dense_copy, Dense)

// [image][pixel of all maps][i][j][c]
template <class T> __device__ void dense_gather(const Dense& p) {
  const Tile& tile = p.tiles[blockIdx.x];
  Reader<T> reader(p, tile, blockIdx.z);
  int window = p.taps_h * p.taps_w * p.in_c;
  // The map's first pixel among all pixels of the image.
  size_t first = tile.at / p.out_c, pixels = p.y_image / p.out_c;
  T* y = (T*)p.y + (blockIdx.z * pixels + first) * window;
  each_value(p, tile, window, [&](int index, int k) {
    int c = k % p.in_c, j = k / p.in_c % p.taps_w, i = k / p.in_c / p.taps_w;
    const T* from = reader.at(reader.pixel(index), i, j);
    y[(size_t)index * window + k] = from ? from[c] : from_float<T>(0.0f);
  });
}
STORAGE_KERNELS(dense_gather, Dense)

struct Features {
  const void* x;
  float* features;      // [image][down][across][c][h][w]
  const int2* rows;     // [patch down][y]
  const int2* columns;  // [patch across][x]
  const Map* maps;
  unsigned long long x_image;
  int down, across, c, h, w, classes, images, unused;
};
PARAMETERS(Features, 80);

template <class T> __device__ void dense_features(const Features& p) {
  size_t i = global_thread(), count = (size_t)p.down * p.across * p.c * p.h * p.w;
  if (i >= count * p.images) return;
  size_t image = i / count, rest = i % count;
  int x = (int)(rest % p.w), y = (int)(rest / p.w % p.h), c = (int)(rest / p.w / p.h % p.c);
  size_t patch = rest / p.w / p.h / p.c;
  int2 row = p.rows[patch / p.across * p.h + y], column = p.columns[patch % p.across * p.w + x];
  float value = 0.0f;
  if (row.x >= 0 && column.x >= 0) {
    const Map& map = p.maps[row.x * p.classes + column.x];
    value = to_float(((const T*)p.x)[image * p.x_image + map.at + ((size_t)row.y * map.columns + column.y) * p.c + c]);
  }
  p.features[i] = value;
}
STORAGE_KERNELS(dense_features, Features)

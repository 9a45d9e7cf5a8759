// Faces from response maps, without the host: the density peaks of src/locate/density.rs, and the views of LNet_s around them.
//
// A group is what is searched together: the pyramid of a photo, or the views of one face. It has `levels` records of Level and
// `points` response-map cells, level after level; all groups of a launch are alike. Cells outside of a level's inner rectangle
// (beyond the window or the photo) have a response of -1 and do not exist.
//
// `response`     a warp per cell, lanes over channels: x [n, h, w, c] in T becomes f32 [n, h, w], one channel or the mean of all.
// `locate_views`  a thread per view: where the photo is resampled for it, and its Level.
// `locate_points` a thread per cell: its place, the size that it stands for, and its response above the floor.
// `locate_density` a thread per cell that responds: the sum of all responses, weighted by distance.
// `locate_ranks` a thread per cell that responds: density times the distance to the nearest denser cell; 0 where that is near.
// `locate_peaks` a block of 256 threads per group: takes the cells of highest rank one by one, each the start of a mean shift.
// `locate_follow` a thread per face, in one block: of the peaks in its views the one nearest to it; then thread 0 sorts them, keeps
//                one of those that overlap and drops those below the score that is wanted.
//
// Distances are in standard deviations of a Gaussian kernel over position and the logarithm of the size. Pairs of cells are
// quadratic in their number, 3,300 for the shipped pyramid; those without a response take no part.
// Tolerance: sums in f32, of a group in one fixed order of 256 partial sums.
#include "channels.cuh"

struct ResponseParams {
  const void* x;
  float* response;
  size_t places;
  unsigned c;
  int channel;  // -1: the mean
};
PARAMETERS(ResponseParams, 32);

template <class T> __device__ void response(const ResponseParams& p) {
  const size_t place = global_thread() / 32;
  const unsigned lane = threadIdx.x % 32;
  const T* x = (const T*)p.x + place * p.c;
  float sum = 0.0f;
  if (place < p.places) {
    if (p.channel >= 0) sum = to_float(x[p.channel]);
    else
      for (unsigned c = lane; c < p.c; c += 32) sum += to_float(x[c]);
  }
  if (p.channel < 0) {
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    sum /= (float)p.c;
  }
  if (place < p.places && lane == 0) p.response[place] = sum;
}
STORAGE_KERNELS(response, ResponseParams)

// As src/net/photos.rs.
struct PhotoWindow {
  long long offset;
  unsigned photo_w, photo_h;
  float x, y, w, h;
  unsigned flip;
  unsigned pitch;
};
PARAMETERS(PhotoWindow, 40);

// The photo and what is wanted of it.
struct Photo {
  unsigned w, h;
  float least;  // scores below are dropped by locate_follow
  unsigned unused;
};
PARAMETERS(Photo, 16);

// A response map and its place on the photo.
struct Level {
  float x, y, step;              // of cell (0, 0) in pixels of the photo, and from a cell to the next
  float size;                    // natural logarithm of the width of the face that it responds to most
  unsigned first, h, w;          // its first cell in the group, and its cells
  unsigned left, right, top, bottom;  // the cells that exist, ends excluded
  unsigned unused;
};
PARAMETERS(Level, 48);

// A face in pixels of the photo; a width of 0 is no face.
struct Face {
  float x, y, width, score;
  unsigned from;  // the face, of those that the views were made for, that it was found around
  unsigned unused[3];
};
PARAMETERS(Face, 32);

struct Point {
  float x, y, size, response;
};

struct ViewParams {
  const Photo* photo;
  const Face* faces_in;  // [faces]
  const float* zooms;    // [levels]: input pixels per photo pixel, times the width of the face
  PhotoWindow* windows;  // [faces, levels]
  Level* views;          // [faces, levels]
  unsigned faces, levels;
  float pixels;          // side of a view, in input pixels
  unsigned input;        // side of the input, at least as large
  unsigned cells;        // along a side of the map
  float first, stride;   // of cells, in input pixels
  float width;           // of the face that the net responds to most, in input pixels
};
PARAMETERS(ViewParams, 72);

// The start of a window of `side` pixels around `middle`, moved into a photo of `most`; where it is larger, the photo is in its middle.
__device__ __forceinline__ float slide(float middle, float side, float most) {
  const float at = middle - side / 2.0f;
  return side < most ? fminf(fmaxf(at, 0.0f), most - side) : (most - side) / 2.0f;
}

// The cells whose centres lie in [low, high): at least one.
__device__ __forceinline__ void inner(float origin, float step, unsigned cells, float low, float high, unsigned& start, unsigned& end) {
  const auto is_inside = [&](unsigned cell) {
    const float at = origin + step * (float)cell;
    return at >= low && at < high;
  };
  start = 0;
  while (start < cells && !is_inside(start)) start++;
  if (start == cells) start = 0;
  end = start;
  while (end < cells && is_inside(end)) end++;
  if (end == start) end++;
}

extern "C" __global__ void locate_views_f32(const ViewParams p) {
  const unsigned item = (unsigned)global_thread();
  if (item >= p.faces * p.levels) return;
  const Face face = p.faces_in[item / p.levels];
  const unsigned level = item % p.levels;
  const Photo photo = *p.photo;
  const bool is_face = face.width > 0.0f;
  // Where there is no face, the corner of the photo is resampled for nothing.
  const float zoom = is_face ? p.zooms[level] / face.width : 1.0f, side = p.pixels / zoom;
  const float x = is_face ? slide(face.x, side, (float)photo.w) : 0.0f, y = is_face ? slide(face.y, side, (float)photo.h) : 0.0f;
  const float reach = (float)p.input / zoom;
  p.windows[item] = PhotoWindow{0, photo.w, photo.h, x, y, reach, reach, 0, photo.w};
  Level view;
  view.x = x + p.first / zoom;
  view.y = y + p.first / zoom;
  view.step = p.stride / zoom;
  view.size = logf(p.width / zoom);
  view.first = level * p.cells * p.cells;
  view.h = view.w = p.cells;
  inner(view.x, view.step, p.cells, fmaxf(x, 0.0f), fminf(x + side, (float)photo.w), view.left, view.right);
  inner(view.y, view.step, p.cells, fmaxf(y, 0.0f), fminf(y + side, (float)photo.h), view.top, view.bottom);
  if (!is_face) view.right = view.left = 0;
  view.unused = 0;
  p.views[item] = view;
}

struct PeakParams {
  const Level* levels_in;  // [groups, levels]
  const float* response;   // [groups, points]
  Point* points;           // [groups, points]
  float* density;          // [groups, points]
  float* ranks;            // [groups, points]
  Face* peaks;             // [groups, most]
  unsigned groups, levels, points_in;
  unsigned most;
  float floor;             // responses count from here
  float position, spread;  // standard deviations: in face widths, and in the logarithm of the size
  float shift_x, shift_y;  // from a peak to the centre of the face, in face widths
  float share;             // of the best score so far below which a peak is no face
};
PARAMETERS(PeakParams, 88);

extern "C" __global__ void locate_points_f32(const PeakParams p) {
  const unsigned item = (unsigned)global_thread(), group = item / p.points_in, at = item % p.points_in;
  if (group >= p.groups) return;
  const Level* levels = p.levels_in + group * p.levels;
  unsigned number = 0;
  while (number + 1 < p.levels && levels[number + 1].first <= at) number++;
  const Level level = levels[number];
  const unsigned cell = at - level.first, column = cell % level.w, row = cell / level.w;
  const bool exists = column >= level.left && column < level.right && row >= level.top && row < level.bottom;
  const float response = fmaxf(p.response[item] - p.floor, 0.0f);
  p.points[item] = Point{level.x + level.step * (float)column, level.y + level.step * (float)row, level.size, exists ? response : -1.0f};
}

// The squared distance of two points, in standard deviations; positions are compared at the geometric mean of the two sizes.
__device__ __forceinline__ float squared(const PeakParams& p, const Point& a, const Point& b) {
  const float scale = p.position * expf((a.size + b.size) / 2.0f);
  const float dx = (a.x - b.x) / scale, dy = (a.y - b.y) / scale, ds = (a.size - b.size) / p.spread;
  return dx * dx + dy * dy + ds * ds;
}
__device__ __forceinline__ float nearness(const PeakParams& p, const Point& a, const Point& b) {
  return expf(-0.5f * squared(p, a, b));
}

extern "C" __global__ void locate_density_f32(const PeakParams p) {
  const unsigned item = (unsigned)global_thread(), group = item / p.points_in;
  if (group >= p.groups) return;
  const Point* points = p.points + group * p.points_in;
  const Point own = p.points[item];
  float sum = 0.0f;
  if (own.response > 0.0f) {
    for (unsigned i = 0; i < p.points_in; i++) {
      const Point other = points[i];
      if (other.response > 0.0f) sum += other.response * nearness(p, own, other);
    }
  }
  p.density[item] = sum;
}

// Minimum distance of a peak from any denser point, and the distance beyond which it gains nothing.
constexpr float SEPARATION = 3.0f, FAR = 6.0f;
// Steps of the mean shift.
constexpr int SHIFTS = 4;

extern "C" __global__ void locate_ranks_f32(const PeakParams p) {
  const unsigned item = (unsigned)global_thread(), group = item / p.points_in, at = item % p.points_in;
  if (group >= p.groups) return;
  const Point* points = p.points + group * p.points_in;
  const float* density = p.density + group * p.points_in;
  const Point own = p.points[item];
  float rank = 0.0f;
  if (own.response > 0.0f) {
    const float mine = p.density[item];
    float nearest = FAR * FAR;
    for (unsigned i = 0; i < p.points_in; i++) {
      const float other = density[i];
      // Of equally dense points the first one counts as denser.
      if (other > mine || (other == mine && i < at && points[i].response > 0.0f)) nearest = fminf(nearest, squared(p, own, points[i]));
    }
    const float distance = sqrtf(nearest);
    rank = distance >= SEPARATION ? mine * distance : 0.0f;
  }
  p.ranks[item] = rank;
}

// The sum over all threads of a block of 256, for all of them.
__device__ __forceinline__ float block_sum(float value, float* shared) {
  for (int step = 16; step > 0; step /= 2) value += __shfl_xor_sync(0xffffffffu, value, step);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared[threadIdx.x / 32] = value;
  __syncthreads();
  float sum = 0.0f;
  for (int warp = 0; warp < 8; warp++) sum += shared[warp];
  return sum;
}

extern "C" __global__ void locate_peaks_f32(const PeakParams p) {
  __shared__ float sums[8], best_rank[256];
  __shared__ unsigned best_at[256];
  const unsigned group = blockIdx.x, t = threadIdx.x, count = p.points_in;
  const Point* points = p.points + (size_t)group * count;
  float* ranks = p.ranks + (size_t)group * count;
  float best_score = 0.0f;
  for (unsigned number = 0; number < p.most; number++) {
    float rank = 0.0f;
    unsigned at = 0;
    for (unsigned i = t; i < count; i += 256)
      if (ranks[i] > rank) rank = ranks[i], at = i;
    __syncthreads();
    best_rank[t] = rank;
    best_at[t] = at;
    __syncthreads();
    // Of equal ranks the first.
    for (unsigned step = 128; step > 0; step /= 2) {
      if (t < step) {
        const float other = best_rank[t + step];
        if (other > best_rank[t] || (other == best_rank[t] && best_at[t + step] < best_at[t])) {
          best_rank[t] = other;
          best_at[t] = best_at[t + step];
        }
      }
      __syncthreads();
    }
    const bool is_peak = best_rank[0] > 0.0f;
    const unsigned start = best_at[0];
    Point here = points[start];
    float score = 0.0f;
    if (is_peak) {
      for (int step = 0; step < SHIFTS; step++) {
        float part[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        for (unsigned i = t; i < count; i += 256) {
          const Point other = points[i];
          if (other.response <= 0.0f) continue;
          const float weight = other.response * nearness(p, here, other);
          part[0] += weight;
          part[1] += weight * other.x;
          part[2] += weight * other.y;
          part[3] += weight * other.size;
        }
        for (int k = 0; k < 4; k++) part[k] = block_sum(part[k], sums);
        // Between points too far from each other for the kernel.
        if (part[0] <= 0.0f) break;
        here.x = part[1] / part[0];
        here.y = part[2] / part[0];
        here.size = part[3] / part[0];
      }
      float gathered = 0.0f, window = 0.0f;
      for (unsigned i = t; i < count; i += 256) {
        const Point other = points[i];
        if (other.response < 0.0f) continue;
        const float weight = nearness(p, here, other);
        gathered += weight * other.response;
        window += weight;
      }
      gathered = block_sum(gathered, sums);
      window = block_sum(window, sums);
      score = window > 0.0f ? gathered / window : 0.0f;
    }
    best_score = fmaxf(best_score, score);
    const bool is_face = is_peak && score >= p.share * best_score;
    __syncthreads();
    if (t == 0) {
      const float width = is_face ? expf(here.size) : 0.0f;
      const float x = is_face ? here.x + p.shift_x * width : 0.0f, y = is_face ? here.y + p.shift_y * width : 0.0f;
      if (!is_face) score = 0.0f;
      p.peaks[(size_t)group * p.most + number] = Face{x, y, width, score, group, {0, 0, 0}};
      if (is_peak) ranks[start] = 0.0f;
    }
    __syncthreads();
  }
}

struct FollowParams {
  const Photo* photo;
  const Face* faces;  // [count]: those that the views were made for
  const Face* peaks;  // [count, most]
  Face* found;        // [count]: best first, then no faces
  unsigned count;     // at most 64
  unsigned most;
  float share;        // of the wanted score below which a face is dropped
  float same;         // intersection over union above which two faces are the same
};
PARAMETERS(FollowParams, 48);

constexpr unsigned FACES = 64;

// Intersection over union of the squares of two faces.
__device__ __forceinline__ float overlap(const Face& a, const Face& b) {
  const float half_a = a.width / 2.0f, half_b = b.width / 2.0f;
  const float w = fminf(a.x + half_a, b.x + half_b) - fmaxf(a.x - half_a, b.x - half_b);
  const float h = fminf(a.y + half_a, b.y + half_b) - fmaxf(a.y - half_a, b.y - half_b);
  if (w <= 0.0f || h <= 0.0f) return 0.0f;
  return w * h / (a.width * a.width + b.width * b.width - w * h);
}

extern "C" __global__ void locate_follow_f32(const FollowParams p) {
  __shared__ Face found[FACES];
  const unsigned t = threadIdx.x;
  if (t < p.count) {
    const Face face = p.faces[t];
    Face best = {0.0f, 0.0f, 0.0f, 0.0f, t, {0, 0, 0}};
    float nearest = 0.0f;
    if (face.width > 0.0f) {
      for (unsigned i = 0; i < p.most; i++) {
        const Face peak = p.peaks[t * p.most + i];
        if (peak.width <= 0.0f) continue;
        // The face that was followed is preferred, in case the views contain another one.
        const float dx = (peak.x - face.x) / face.width, dy = (peak.y - face.y) / face.width;
        const float near = peak.score * expf(-(dx * dx + dy * dy) / 2.0f);
        if (best.width <= 0.0f || near >= nearest) {
          best = peak;
          best.from = t;
          nearest = near;
        }
      }
    }
    found[t] = best;
  }
  __syncthreads();
  if (t > 0) return;
  // Insertion sort, best first; equal scores keep their order.
  for (unsigned i = 1; i < p.count; i++) {
    const Face face = found[i];
    unsigned at = i;
    while (at > 0 && found[at - 1].score < face.score) {
      found[at] = found[at - 1];
      at--;
    }
    found[at] = face;
  }
  const float least = p.share * p.photo->least;
  unsigned kept = 0;
  for (unsigned i = 0; i < p.count; i++) {
    const Face face = found[i];
    bool is_new = face.width > 0.0f;
    for (unsigned j = 0; j < kept && is_new; j++) is_new = overlap(found[j], face) <= p.same;
    if (is_new) found[kept++] = face;
  }
  // Suppression first: a face that is dropped for its score has hidden its worse doubles.
  for (unsigned i = 0; i < p.count; i++) {
    const bool keeps = i < kept && found[i].score >= least;
    p.found[i] = keeps ? found[i] : Face{0.0f, 0.0f, 0.0f, 0.0f, 0, {0, 0, 0}};
  }
}

// The paper's interweaved maps, written to memory: for one bank (a, b) of the second local layer and all phases, cells of the
// response maps of the first layer, placed side by side in tiles.
//
// Layout: responses [grid h * grid w, h, w, c], one map per bank of the first layer; maps [phases down, phases across, map h,
// map w, c]. Tile (i, j) of the maps of phase (p, q) belongs to patch (p + i * period, q + j * period); its quarter (da, db) is
// cut from response map (a + da, b + db) at the patch's position. Tiles of patches beyond the last one are filled with zeros.
// A thread owns a pack of channels of one pixel of a map (or one channel); blocks of 256 threads, no shared memory.
// Exact: values are copied unchanged.
#include "channels.cuh"

struct InterweaveParams {
  const void* responses;
  void* maps;
  unsigned phases_h, c;
  unsigned a, b, grid_w;            // the bank, and banks per row of the first layer
  unsigned period_h, period_w;      // patches between adjacent tiles
  unsigned step_h, step_w;          // positions of a response map between adjacent patches
  unsigned patches_h, patches_w;
  unsigned h, w;                    // of a response map
  unsigned lanes;
  Divisor by_lanes, by_map_w, by_map_h, by_phases_w;  // channels in units of a thread, width and height of a map; maps across
  Divisor by_tile_h, by_tile_w, by_cell_h, by_cell_w;
};
PARAMETERS(InterweaveParams, 168);

template <class T> __device__ void interweave(const InterweaveParams& p) {
  int item = (int)global_thread();
  const size_t out = (size_t)item * p.lanes;
  const unsigned channel = (unsigned)split_off(item, p.by_lanes) * p.lanes;
  int across_tiles = split_off(item, p.by_map_w), down_tiles = split_off(item, p.by_map_h);
  const unsigned across = (unsigned)split_off(item, p.by_phases_w), down = (unsigned)item;
  if (down >= p.phases_h) return;
  const int u = split_off(down_tiles, p.by_tile_h), v = split_off(across_tiles, p.by_tile_w);
  const unsigned patch_y = down + down_tiles * p.period_h, patch_x = across + across_tiles * p.period_w;
  T* to = (T*)p.maps + out;
  if (patch_y >= p.patches_h || patch_x >= p.patches_w) {
    const Pack<T> zeros = {};
    if (p.lanes == 1) *to = zeros.v[0];
    else store_pack(to, zeros);
    return;
  }
  const unsigned bank = (p.a + divide(u, p.by_cell_h)) * p.grid_w + p.b + divide(v, p.by_cell_w);
  const unsigned y = patch_y * p.step_h + p.a * p.by_cell_h.divisor + u;
  const unsigned x = patch_x * p.step_w + p.b * p.by_cell_w.divisor + v;
  const T* from = (const T*)p.responses + (((size_t)bank * p.h + y) * p.w + x) * p.c + channel;
  if (p.lanes == 1) *to = *from;
  else store_pack(to, load_pack(from));
}
STORAGE_KERNELS(interweave, InterweaveParams)

// The inverse: extracts the block of a bank of the second local layer from the tiles of its values over those maps.
//
// Layout: maps as above, [phases down, phases across, map h, map w, c]; patches [patches down, patches across, h, w, c], whose
// block at (top, left) is written. Otherwise as above.
struct UnweaveParams {
  const void* maps;
  void* patches;
  unsigned phases_w, map_h, map_w, c;
  unsigned tile_h, tile_w;          // positions of a map between adjacent tiles
  unsigned patches_h, top, left;
  unsigned h, w;                    // of a patch
  unsigned lanes;
  Divisor by_lanes, by_block_w, by_block_h, by_patches_w;
  Divisor by_period_h, by_period_w;  // patches between adjacent tiles
};
PARAMETERS(UnweaveParams, 136);

template <class T> __device__ void unweave(const UnweaveParams& p) {
  int item = (int)global_thread();
  const unsigned channel = (unsigned)split_off(item, p.by_lanes) * p.lanes;
  const unsigned v = (unsigned)split_off(item, p.by_block_w), u = (unsigned)split_off(item, p.by_block_h);
  const size_t patch = (size_t)item;
  int down = item, across = split_off(down, p.by_patches_w);
  if (down >= (int)p.patches_h) return;
  const unsigned phase_y = (unsigned)split_off(down, p.by_period_h), phase_x = (unsigned)split_off(across, p.by_period_w);
  const unsigned map = phase_y * p.phases_w + phase_x;
  const unsigned y = down * p.tile_h + u, x = across * p.tile_w + v;
  const T* from = (const T*)p.maps + (((size_t)map * p.map_h + y) * p.map_w + x) * p.c + channel;
  T* to = (T*)p.patches + ((patch * p.h + p.top + u) * p.w + p.left + v) * p.c + channel;
  if (p.lanes == 1) *to = *from;
  else store_pack(to, load_pack(from));
}
STORAGE_KERNELS(unweave, UnweaveParams)

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
  unsigned phases_h, phases_w;      // maps
  unsigned map_h, map_w, c;
  unsigned a, b, grid_w;            // the bank, and banks per row of the first layer
  unsigned cell_h, cell_w;
  unsigned tile_h, tile_w;
  unsigned period_h, period_w;      // patches between adjacent tiles
  unsigned step_h, step_w;          // positions of a response map between adjacent patches
  unsigned patches_h, patches_w;
  unsigned h, w;                    // of a response map
  unsigned lanes;
  unsigned unused;
};
PARAMETERS(InterweaveParams, 104);

template <class T> __device__ void interweave(const InterweaveParams& p) {
  unsigned item = (unsigned)global_thread();
  const size_t out = (size_t)item * p.lanes;
  const unsigned channel = item % (p.c / p.lanes) * p.lanes;
  item /= p.c / p.lanes;
  const unsigned column = item % p.map_w;
  item /= p.map_w;
  const unsigned row = item % p.map_h;
  item /= p.map_h;
  const unsigned across = item % p.phases_w, down = item / p.phases_w;
  if (down >= p.phases_h) return;
  const unsigned patch_y = down + row / p.tile_h * p.period_h, patch_x = across + column / p.tile_w * p.period_w;
  const unsigned u = row % p.tile_h, v = column % p.tile_w;
  T* to = (T*)p.maps + out;
  if (patch_y >= p.patches_h || patch_x >= p.patches_w) {
    const Pack<T> zeros = {};
    if (p.lanes == 1) *to = zeros.v[0];
    else store_pack(to, zeros);
    return;
  }
  const unsigned bank = (p.a + u / p.cell_h) * p.grid_w + p.b + v / p.cell_w;
  const unsigned y = patch_y * p.step_h + p.a * p.cell_h + u, x = patch_x * p.step_w + p.b * p.cell_w + v;
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
  unsigned period_h, period_w;      // patches between adjacent tiles
  unsigned patches_h, patches_w;
  unsigned block_h, block_w, top, left;
  unsigned h, w;                    // of a patch
  unsigned lanes;
  unsigned unused;
};
PARAMETERS(UnweaveParams, 88);

template <class T> __device__ void unweave(const UnweaveParams& p) {
  unsigned item = (unsigned)global_thread();
  const unsigned channel = item % (p.c / p.lanes) * p.lanes;
  item /= p.c / p.lanes;
  const unsigned v = item % p.block_w;
  item /= p.block_w;
  const unsigned u = item % p.block_h;
  const unsigned patch = item / p.block_h;
  const unsigned down = patch / p.patches_w, across = patch % p.patches_w;
  if (down >= p.patches_h) return;
  const unsigned map = down % p.period_h * p.phases_w + across % p.period_w;
  const unsigned y = down / p.period_h * p.tile_h + u, x = across / p.period_w * p.tile_w + v;
  const T* from = (const T*)p.maps + (((size_t)map * p.map_h + y) * p.map_w + x) * p.c + channel;
  T* to = (T*)p.patches + (((size_t)patch * p.h + p.top + u) * p.w + p.left + v) * p.c + channel;
  if (p.lanes == 1) *to = *from;
  else store_pack(to, load_pack(from));
}
STORAGE_KERNELS(unweave, UnweaveParams)

//! Interweaved maps on a GPU: kernels/interweave.cu. What [`super::MapInterweaver`] cuts and pads for one row of phases at a
//! time is one launch here.

use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::gpu::{BLOCK, cover, lanes};
use crate::ops::{Pair, Shape};

kernel_parameters! {
    InterweaveParams: 104 {
        responses: Ptr, maps: Ptr,
        phases_h: u32, phases_w: u32, map_h: u32, map_w: u32, c: u32,
        a: u32, b: u32, grid_w: u32,
        cell_h: u32, cell_w: u32, tile_h: u32, tile_w: u32, period_h: u32, period_w: u32, step_h: u32, step_w: u32,
        patches_h: u32, patches_w: u32, h: u32, w: u32,
        lanes: u32, unused: u32,
    }
}

/// How the maps of one bank of the second local layer are made.
#[derive(Debug, Clone, Copy)]
pub struct Interweaving {
    /// A response map; there is one for each bank of the first layer.
    pub response: Shape,
    /// Banks of the first layer.
    pub grid: Pair,
    /// The bank of the second layer.
    pub bank: [usize; 2],
    /// A cell of the first layer, and cells that a tile holds per axis.
    pub cell: Pair,
    pub span: Pair,
    /// Places of a response map from one patch to the next.
    pub step: Pair,
    /// Patches of the image.
    pub patches: Pair,
}

impl Interweaving {
    fn tile(&self) -> Pair {
        Pair { h: self.span.h * self.cell.h, w: self.span.w * self.cell.w }
    }

    /// Patches from one tile of a map to the next; as many phases there are.
    pub fn period(&self) -> Pair {
        let period = |tile: usize, step: usize| tile / greatest_divisor(tile, step);
        let tile = self.tile();
        Pair { h: period(tile.h, self.step.h), w: period(tile.w, self.step.w) }
    }

    /// Maps down and across: one for each phase that has a patch.
    pub fn maps(&self) -> Pair {
        let period = self.period();
        Pair { h: period.h.min(self.patches.h), w: period.w.min(self.patches.w) }
    }

    /// One map.
    pub fn map(&self) -> Shape {
        let (period, tile) = (self.period(), self.tile());
        let (down, across) = (self.patches.h.div_ceil(period.h), self.patches.w.div_ceil(period.w));
        Shape::new(self.response.c, down * tile.h, across * tile.w)
    }

    /// From responses `[grid, h, w, c]` to maps `[maps, h, w, c]`, in the storage type.
    pub fn record(&self, responses: Ptr, maps: Ptr, to: &mut Recorder<'_>) {
        let (phases, map, tile, period) = (self.maps(), self.map(), self.tile(), self.period());
        let lanes = lanes(to.precision(), map.c, &[responses, maps]);
        let parameters = InterweaveParams {
            responses,
            maps,
            phases_h: phases.h as u32,
            phases_w: phases.w as u32,
            map_h: map.h as u32,
            map_w: map.w as u32,
            c: map.c as u32,
            a: self.bank[0] as u32,
            b: self.bank[1] as u32,
            grid_w: self.grid.w as u32,
            cell_h: self.cell.h as u32,
            cell_w: self.cell.w as u32,
            tile_h: tile.h as u32,
            tile_w: tile.w as u32,
            period_h: period.h as u32,
            period_w: period.w as u32,
            step_h: self.step.h as u32,
            step_w: self.step.w as u32,
            patches_h: self.patches.h as u32,
            patches_w: self.patches.w as u32,
            h: self.response.h as u32,
            w: self.response.w as u32,
            lanes: lanes as u32,
            unused: 0,
        };
        let count = phases.h * phases.w * map.len();
        let bytes = 2 * count * to.precision().bytes();
        let launch = Launch::new(to.stored("interweave"), cover(count / lanes), BLOCK, &parameters);
        to.launch(launch.work(0, bytes as u64));
    }
}

fn greatest_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

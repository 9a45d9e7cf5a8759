//! How products are cut into blocks: tiles of C, and splits of k where there are too few of them to occupy all multiprocessors. The
//! sums of splits are f32 and are added in a fixed order.

use crate::device::{Gpu, Ptr, Recorder, Tile};
use crate::ops::activation::Activation;
use crate::ops::gpu::{self, activation_forward};

/// As kernels/product.cuh.
pub(crate) const THREADS: usize = 128;
/// Bytes of k in one step of a product.
const STEP_BYTES: usize = 64;
/// Minimum number of steps for which a partial sum is worth its launch.
const LEAST_STEPS: usize = 8;

/// Bytes that a multiprocessor reads from L2 or writes there in a cycle, and cycles between two launches of a graph: about what
/// src/profile has for an H100.
const L2_BYTES: usize = 48;
const LAUNCH: usize = 2600;

fn multiprocessors(gpu: &Gpu) -> usize {
    gpu.driver.properties().multiprocessors.max(1) as usize
}

/// A shape of kernels/product.cuh, and what it costs.
struct Shape {
    label: &'static str,
    m: usize,
    n: usize,
    stages: usize,
    /// Instructions of a warp in a step of the main loop, about those of `conv_forward` in kernels/budgets.toml, and in all the
    /// rest: what precedes the loop, and the epilogue's loop as often as it runs.
    step: usize,
    rest: usize,
    /// Blocks that a multiprocessor needs to issue an instruction in most cycles. An assumption: a warp of `Large` has twice as many
    /// products in flight.
    blocks: usize,
}

fn shape(tile: Tile) -> Shape {
    match tile {
        Tile::Middle => Shape { label: "", m: 128, n: 64, stages: 3, step: 160, rest: 750, blocks: 2 },
        Tile::Large => Shape { label: "_128x128", m: 128, n: 128, stages: 3, step: 205, rest: 1100, blocks: 1 },
        Tile::Narrow => Shape { label: "_256x32", m: 256, n: 32, stages: 2, step: 195, rest: 800, blocks: 2 },
    }
}

/// How a batch of products [m, k] [k, n] is partitioned: tiles, and splits of k.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    batch: usize,
    m: usize,
    n: usize,
    pub tile: Tile,
    pub splits: usize,
    pub k_per_split: usize,
}

impl Spread {
    /// Operands that are `wide` consist of whole packs.
    pub fn new(gpu: &Gpu, batch: usize, size: [usize; 3], wide: bool) -> Self {
        let has_all = wide && gpu.precision.bytes() == 2;
        let tiles = Tile::ALL.into_iter().filter(|tile| has_all || *tile == Tile::Middle);
        let forced = |tile: &Tile| gpu.tile.is_none_or(|forced| !has_all || forced == *tile);
        let spreads = tiles.filter(forced).map(|tile| Self::with(gpu, tile, batch, size));
        // The first of the best.
        let best = spreads.min_by_key(|spread| spread.cost(gpu, size[2]));
        best.unwrap_or_else(|| Self::with(gpu, Tile::Middle, batch, size))
    }

    /// With the number of splits that costs least.
    fn with(gpu: &Gpu, tile: Tile, batch: usize, [m, n, k]: [usize; 3]) -> Self {
        let step = STEP_BYTES / gpu.precision.bytes();
        let steps = k.div_ceil(step).max(1);
        let split = |splits: usize| {
            let k_per_split = steps.div_ceil(splits) * step;
            Self { batch, m, n, tile, splits: k.div_ceil(k_per_split).max(1), k_per_split }
        };
        let whole = split(1);
        // Beyond two blocks per multiprocessor none is idle.
        let blocks = whole.grid().iter().product::<usize>().max(1);
        let most = (2 * multiprocessors(gpu)).div_ceil(blocks).min(steps / LEAST_STEPS);
        (2..=most).map(split).chain([whole]).min_by_key(|spread| (spread.cost(gpu, k), spread.splits)).unwrap_or(whole)
    }

    /// The same tile for `batch` products of one tile of lines each.
    pub fn of_tiles(&self, gpu: &Gpu, batch: usize, k: usize) -> Self {
        Self::with(gpu, self.tile, batch, [self.lines(), self.n, k])
    }

    /// Cycles of the busiest multiprocessor, if blocks are spread evenly: each of its four schedulers issues the instructions of
    /// one warp of a block. What is split is written and read again. A prediction; no card has been asked.
    fn cost(&self, gpu: &Gpu, k: usize) -> usize {
        let Shape { m, n, step, rest, blocks: least, .. } = shape(self.tile);
        let blocks = self.grid().iter().product::<usize>().div_ceil(multiprocessors(gpu)).max(least);
        let steps = self.k_per_split.min(k).div_ceil(STEP_BYTES / gpu.precision.bytes());
        let (sums, launch) = if self.splits > 1 { (8 * m * n / L2_BYTES, LAUNCH) } else { (0, 0) };
        blocks * (rest + steps * step + sums) + launch
    }

    pub fn grid(&self) -> [usize; 3] {
        [self.tiles_m() * self.batch, self.n.div_ceil(shape(self.tile).n), self.splits]
    }

    pub fn tiles_m(&self) -> usize {
        self.m.div_ceil(shape(self.tile).m)
    }

    /// Lines of a tile.
    pub fn lines(&self) -> usize {
        shape(self.tile).m
    }

    /// f32 partial sums of all splits.
    pub fn partial(&self) -> usize {
        if self.splits > 1 { (4 * self.splits * self.batch).saturating_mul(self.m.saturating_mul(self.n)) } else { 0 }
    }

    /// Dynamic shared memory of a product, for either layout of its operands: all slots, or the sums.
    pub fn shared(&self, gpu: &Gpu, a_k_inner: bool, b_k_inner: bool) -> usize {
        let (size, shape) = (gpu.precision.bytes(), shape(self.tile));
        let step = STEP_BYTES / size;
        let is_permuted = |rows: usize, k_inner: bool| k_inner || rows * size == 64;
        let tile = |rows: usize, k_inner: bool| step * if is_permuted(rows, k_inner) { rows } else { rows + 8 };
        let slots = shape.stages * size * (tile(shape.m, a_k_inner) + tile(shape.n, b_k_inner));
        slots.max(4 * shape.m * (shape.n.min(64) + 8))
    }

    /// The kernel for a product: another one where an operand has runs that are no multiples of 16 bytes.
    pub fn kernel(&self, name: &str, wide: bool, gpu: &Gpu) -> String {
        let any = if wide { "" } else { "_any" };
        format!("{name}{}{any}_{}", shape(self.tile).label, gpu.precision.math())
    }
}

/// The activation that a product kernel applies itself: a sigmoid is left to the kernel that adds the splits, or to another one.
pub(crate) fn inside(activation: Activation, spread: Spread) -> Activation {
    if activation == Activation::Sigmoid && spread.splits == 1 { Activation::None } else { activation }
}

/// The remaining activation, in place.
pub(crate) fn record_outside(to: &mut Recorder<'_>, activation: Activation, spread: Spread, out: Ptr, count: usize) {
    if inside(activation, spread) != activation {
        activation_forward(to, activation, out, out, count);
    }
}

/// Whether runs of these lengths are whole packs.
pub(crate) fn whole(gpu: &Gpu, runs: &[usize]) -> bool {
    runs.iter().all(|run| run.is_multiple_of(gpu::pack(gpu.precision)))
}

#[cfg(all(test, feature = "simt"))]
mod tests {
    use super::*;
    use crate::device::{Driver, Emulator, EmulatorOptions, Precision};

    /// A card of 132 multiprocessors.
    fn card(precision: Precision) -> Gpu {
        let emulator = Emulator::new(EmulatorOptions::default());
        Gpu { precision, ..Gpu::new(emulator.with_multiprocessors(132).expect("an emulator has any number")) }
    }

    #[test]
    fn few_filters_are_narrow_and_many_large_where_there_are_such_tiles() {
        let tile = |precision, size, wide| Spread::new(&card(precision), 1, size, wide).tile;
        let [few, many] = [[64 * 84 * 84, 32, 80], [32 * 27 * 27, 256, 2400]];
        assert_eq!(tile(Precision::Bf16, few, true), Tile::Narrow);
        assert_eq!(tile(Precision::Bf16, many, true), Tile::Large);
        assert_eq!(tile(Precision::Bf16, many, false), Tile::Middle, "odd numbers of channels");
        assert_eq!(tile(Precision::F32, many, true), Tile::Middle);
        let forced = Gpu { tile: Some(Tile::Narrow), ..card(Precision::F16) };
        assert_eq!(Spread::new(&forced, 1, many, true).tile, Tile::Narrow);
    }

    #[test]
    fn only_what_leaves_multiprocessors_idle_is_split_and_splits_cover_k() {
        let gpu = card(Precision::Bf16);
        assert_eq!(Spread::new(&gpu, 1, [1 << 20, 64, 4096], true).splits, 1);
        for k in [31, 257, 4096, 10_000, 100_001] {
            let spread = Spread::new(&gpu, 1, [100, 64, k], true);
            let covered = spread.splits * spread.k_per_split;
            assert!(covered >= k && covered - spread.k_per_split < k, "{spread:?}");
            assert_eq!(spread.splits > 1, k >= 4096, "{spread:?}");
        }
    }
}

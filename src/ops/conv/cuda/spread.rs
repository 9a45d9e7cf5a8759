//! How products are cut into blocks: tiles of C, and splits of k where there are too few of them to occupy all multiprocessors. The
//! sums of splits are f32 and are added in a fixed order.

use crate::device::{Cut, Gpu, ProductKey, Ptr, Recorder, Tile};
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
    is_tuned: bool,
}

/// Values of k in one step of a product.
fn step_of(gpu: &Gpu) -> usize {
    STEP_BYTES / gpu.precision.bytes()
}

/// The tiles in which a product can be computed: one, if one is forced.
fn tiles(gpu: &Gpu, product: &ProductKey) -> impl Iterator<Item = Tile> {
    let has_all = product.wide && gpu.precision.bytes() == 2;
    let forced = gpu.tile.filter(|_| has_all);
    let tiles = Tile::ALL.into_iter().filter(move |tile| has_all || *tile == Tile::Middle);
    tiles.filter(move |tile| forced.is_none_or(|forced| forced == *tile))
}

/// The ways to cut a product that a tuner tries: each tile with powers of two of splits, and with as many as the model takes for
/// this tile.
pub(crate) fn candidates(gpu: &Gpu, product: &ProductKey) -> Vec<Cut> {
    let mut found = Vec::new();
    for tile in tiles(gpu, product) {
        let of = |splits: usize| Spread::split(gpu, tile, product.batch, product.size, splits);
        // Where multiprocessors wait for memory, four blocks on each may be better than two.
        let most = of(1).most_splits(gpu, 4, product.size[2]).max(2);
        let powers = (0..).map(|power| 1 << power).take_while(|splits| *splits <= most);
        let best = Spread::with(gpu, tile, product.batch, product.size).splits;
        let cuts = powers.chain([best]).map(|splits| of(splits).as_cut());
        // What is not made in this way is none: k may be too short.
        found.extend(cuts.filter(|cut| Spread::cut(gpu, product, *cut).is_some()));
    }
    found.sort();
    found.dedup();
    found
}

impl Spread {
    /// As it was tuned, otherwise as the model of costs prefers.
    pub fn new(gpu: &Gpu, product: &ProductKey) -> Self {
        let tuned = gpu.tuned.as_deref().filter(|_| gpu.tile.is_none());
        let chosen = tuned.and_then(|tuned| Self::cut(gpu, product, tuned.choice(product)?));
        chosen.unwrap_or_else(|| {
            let tiles = tiles(gpu, product).filter(|tile| tuned.is_none_or(|tuned| !tuned.avoids(product, *tile)));
            let spreads = tiles.map(|tile| Self::with(gpu, tile, product.batch, product.size));
            // The first of the best.
            let best = spreads.min_by_key(|spread| spread.cost(gpu, product.size[2]));
            best.unwrap_or_else(|| Self::with(gpu, Tile::Middle, product.batch, product.size))
        })
    }

    /// Cut in this way, if there is such a tile and so many splits are made: one that is none of [`candidates`] is a mistake.
    fn cut(gpu: &Gpu, product: &ProductKey, cut: Cut) -> Option<Self> {
        let [.., k] = product.size;
        let most = (k.div_ceil(step_of(gpu)) / LEAST_STEPS).max(1);
        let is_known = tiles(gpu, product).any(|tile| tile == cut.tile) && (1..=most).contains(&cut.splits);
        let spread = is_known.then(|| Self::split(gpu, cut.tile, product.batch, product.size, cut.splits))?;
        (spread.splits == cut.splits).then_some(Self { is_tuned: true, ..spread })
    }

    /// How it is cut.
    pub fn as_cut(&self) -> Cut {
        Cut { tile: self.tile, splits: self.splits }
    }

    fn split(gpu: &Gpu, tile: Tile, batch: usize, [m, n, k]: [usize; 3], splits: usize) -> Self {
        let k_per_split = k.div_ceil(step_of(gpu)).max(1).div_ceil(splits) * step_of(gpu);
        Self { batch, m, n, tile, splits: k.div_ceil(k_per_split).max(1), k_per_split, is_tuned: false }
    }

    /// With the number of splits that costs least.
    fn with(gpu: &Gpu, tile: Tile, batch: usize, size: [usize; 3]) -> Self {
        let split = |splits: usize| Self::split(gpu, tile, batch, size, splits);
        let (whole, k) = (split(1), size[2]);
        // Beyond two blocks per multiprocessor none is idle.
        let most = whole.most_splits(gpu, 2, k);
        (2..=most).map(split).chain([whole]).min_by_key(|spread| (spread.cost(gpu, k), spread.splits)).unwrap_or(whole)
    }

    /// Splits for which there are `per` blocks per multiprocessor, if k is long enough.
    fn most_splits(&self, gpu: &Gpu, per: usize, k: usize) -> usize {
        let blocks = self.grid().iter().product::<usize>().max(1) / self.splits;
        (per * multiprocessors(gpu)).div_ceil(blocks.max(1)).min(k.div_ceil(step_of(gpu)) / LEAST_STEPS)
    }

    /// The same tile for `batch` products of one tile of lines each.
    pub fn of_tiles(&self, gpu: &Gpu, batch: usize, k: usize) -> Self {
        let size = [self.lines(), self.n, k];
        match self.is_tuned {
            true => Self { is_tuned: true, ..Self::split(gpu, self.tile, batch, size, self.splits) },
            false => Self::with(gpu, self.tile, batch, size),
        }
    }

    /// Cycles of the busiest multiprocessor, if blocks are spread evenly: each of its four schedulers issues the instructions of
    /// one warp of a block. What is split is written and read again. A prediction; no card has been asked.
    fn cost(&self, gpu: &Gpu, k: usize) -> usize {
        let Shape { m, n, step, rest, blocks: least, .. } = shape(self.tile);
        let blocks = self.grid().iter().product::<usize>().div_ceil(multiprocessors(gpu)).max(least);
        let steps = self.k_per_split.min(k).div_ceil(step_of(gpu));
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
        let step = step_of(gpu);
        let is_permuted = |rows: usize, k_inner: bool| k_inner || rows * size == 64;
        let tile = |rows: usize, k_inner: bool| step * if is_permuted(rows, k_inner) { rows } else { rows + 8 };
        let slots = shape.stages * size * (tile(shape.m, a_k_inner) + tile(shape.n, b_k_inner));
        slots.max(4 * shape.m * (shape.n.min(64) + 8))
    }

    /// The kernel for a product: another one where an operand has runs that are no multiples of 16 bytes.
    pub fn kernel(&self, name: &str, wide: bool, gpu: &Gpu) -> String {
        named(name, self.tile, wide, gpu)
    }
}

fn named(name: &str, tile: Tile, wide: bool, gpu: &Gpu) -> String {
    let any = if wide { "" } else { "_any" };
    format!("{name}{}{any}_{}", shape(tile).label, gpu.precision.math())
}

/// A batch of products of this kernel; operands that are `wide` consist of whole packs.
pub(crate) fn key(gpu: &Gpu, name: &str, layer: String, batch: usize, size: [usize; 3], wide: bool) -> ProductKey {
    ProductKey { kernel: named(name, Tile::Middle, wide, gpu), layer, batch, size, wide }
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
    use crate::device::{Driver, Emulator, EmulatorOptions, Precision, Tuned};
    use std::sync::Arc;

    /// A card of 132 multiprocessors.
    fn card(precision: Precision) -> Gpu {
        let emulator = Emulator::new(EmulatorOptions::default());
        Gpu { precision, ..Gpu::new(emulator.with_multiprocessors(132).expect("an emulator has any number")) }
    }

    fn spread(gpu: &Gpu, size: [usize; 3], wide: bool) -> Spread {
        Spread::new(gpu, &key(gpu, "gemm_nn", String::new(), 1, size, wide))
    }

    #[test]
    fn few_filters_are_narrow_and_many_large_where_there_are_such_tiles() {
        let tile = |precision, size, wide| spread(&card(precision), size, wide).tile;
        let [few, many] = [[64 * 84 * 84, 32, 80], [32 * 27 * 27, 256, 2400]];
        assert_eq!(tile(Precision::Bf16, few, true), Tile::Narrow);
        assert_eq!(tile(Precision::Bf16, many, true), Tile::Large);
        assert_eq!(tile(Precision::Bf16, many, false), Tile::Middle, "odd numbers of channels");
        assert_eq!(tile(Precision::F32, many, true), Tile::Middle);
        let forced = Gpu { tile: Some(Tile::Narrow), ..card(Precision::F16) };
        assert_eq!(spread(&forced, many, true).tile, Tile::Narrow);
    }

    #[test]
    fn a_tuned_product_is_cut_as_it_was_tuned_if_it_can_be() {
        let gpu = card(Precision::Bf16);
        let product = key(&gpu, "gemm_nn", String::new(), 1, [100, 64, 4096], true);
        let tuned = |cut: Cut| {
            let gpu = Gpu { tuned: Some(Arc::new(Tuned::only(&product, cut))), ..gpu.clone() };
            [product.clone(), ProductKey { batch: 2, ..product.clone() }].map(|it| Spread::new(&gpu, &it))
        };
        let [model, other] = [1, 2].map(|batch| Spread::new(&gpu, &ProductKey { batch, ..product.clone() }).as_cut());
        for cut in candidates(&gpu, &product) {
            let [this, that] = tuned(cut);
            assert_eq!((this.as_cut(), that.as_cut()), (cut, other));
            // The same splits for the tiles of maps of several sizes.
            let of_tiles = this.of_tiles(&gpu, 7, 4096);
            assert_eq!((of_tiles.as_cut(), of_tiles.k_per_split), (cut, this.k_per_split));
        }
        // 128 steps: 14 splits would have 10 of them, so that 13 are made; and there are at most 16.
        for splits in [0, 14, 17, usize::MAX] {
            assert_eq!(tuned(Cut { tile: Tile::Large, splits })[0].as_cut(), model, "{splits}");
        }
        assert_eq!(tuned(Cut { tile: Tile::Large, splits: 9 })[0].splits, 9);
        let odd = ProductKey { wide: false, ..product.clone() };
        let gpu = Gpu { tuned: Some(Arc::new(Tuned::only(&odd, Cut { tile: Tile::Large, splits: 1 }))), ..gpu };
        assert_eq!(Spread::new(&gpu, &odd).tile, Tile::Middle, "there is no such kernel");
    }

    #[test]
    fn candidates_are_all_tiles_with_powers_of_two_of_splits_and_those_of_the_model() {
        let gpu = card(Precision::Bf16);
        let cuts = |size, wide| candidates(&gpu, &key(&gpu, "gemm_nn", String::new(), 1, size, wide));
        let splits = |cuts: &[Cut], tile| cuts.iter().filter(|cut| cut.tile == tile).map(|cut| cut.splits).collect();
        let many = cuts([100, 64, 4096], true);
        for tile in Tile::ALL {
            let splits: Vec<usize> = splits(&many, tile);
            assert!(splits.starts_with(&[1, 2, 4]) && splits.len() < 8, "{tile}: {splits:?}");
        }
        let full = cuts([1 << 20, 64, 4096], true);
        assert_eq!(splits(&full, Tile::Middle), vec![1, 2]);
        assert_eq!(cuts([100, 64, 31], false), [Cut { tile: Tile::Middle, splits: 1 }]);
    }

    #[test]
    fn only_what_leaves_multiprocessors_idle_is_split_and_splits_cover_k() {
        let gpu = card(Precision::Bf16);
        assert_eq!(spread(&gpu, [1 << 20, 64, 4096], true).splits, 1);
        for k in [31, 257, 4096, 10_000, 100_001] {
            let spread = spread(&gpu, [100, 64, k], true);
            let covered = spread.splits * spread.k_per_split;
            assert!(covered >= k && covered - spread.k_per_split < k, "{spread:?}");
            assert_eq!(spread.splits > 1, k >= 4096, "{spread:?}");
        }
    }
}

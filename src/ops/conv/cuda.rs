//! Filters on a GPU: kernels/conv.cu (windows gathered while they are loaded) or, with `--conv im2col`, kernels/im2col.cu and
//! plain products; kernels/gemm.cu where a pixel's window is the pixel itself (linear layers, 1x1 convolutions).
//!
//! A product with too few tiles to occupy all multiprocessors is split along k; the partial sums are f32 and are added in a
//! fixed order.

use super::Filter;
use crate::device::{Convolution, Gpu, Launch, Ptr, Recorder, Tile};
use crate::kernel_parameters;
use crate::ops;
use crate::ops::activation::Activation;
use crate::ops::gpu::{self, BLOCK, Divisor, GpuBackward, GpuForward, activation_forward, cover};

/// As kernels/product.cuh.
pub(crate) const THREADS: usize = 128;
/// Bytes of k in one step of a product.
const STEP_BYTES: usize = 64;
/// Minimum number of steps for which a partial sum is worth its launch.
const LEAST_STEPS: usize = 8;

/// How many of `count` numbers have the same remainder modulo `stride`: the most, and the fewest.
fn residues(count: usize, stride: usize) -> [Divisor; 2] {
    [count.div_ceil(stride), count / stride].map(|n| Divisor::new(n.max(1)))
}

kernel_parameters! {
    /// kernels/gemm.cu
    Gemm: 120 {
        a: Ptr, b: Ptr, bias: Ptr, c: Ptr, partial: Ptr,
        a_batch: u64, b_batch: u64, c_batch: u64,
        m: u32, n: u32, k: u32, lda: u32, ldb: u32, ldc: u32,
        activation: u32, splits: u32, k_per_split: u32, tiles_m: u32, wide_a: u32, wide_b: u32, c_f32: u32, unused: u32,
    }
}

kernel_parameters! {
    /// kernels/geometry.cuh
    Geometry: 80 {
        n: u32, in_h: u32, in_w: u32, in_c: u32, out_h: u32, out_w: u32, out_c: u32,
        kernel_h: u32, kernel_w: u32, stride_h: u32, stride_w: u32, pad_h: u32, pad_w: u32,
        groups: u32, grid_h: u32, grid_w: u32, cell_h: u32, cell_w: u32, block_h: u32, block_w: u32,
    }
}

kernel_parameters! {
    /// kernels/conv.cu
    Conv: 360 {
        geometry: Geometry,
        x: Ptr, y: Ptr, w: Ptr, bias: Ptr, out: Ptr, partial: Ptr,
        extent_h: u32, extent_w: u32,
        activation: u32, splits: u32, k_per_split: u32, unused: u32, wide_x: u32, wide_y: u32, wide_w: u32,
        by_block_w: Divisor, by_block_h: Divisor, by_channels: Divisor, by_filters: Divisor, by_kernel_w: Divisor,
        by_rows: [Divisor; 2], by_columns: [Divisor; 2], by_taps_x: [Divisor; 2],
        by_tiles_m: Divisor, by_groups: Divisor, by_grid_w: Divisor, by_stride_w: Divisor, by_stride_h: Divisor,
        run: u32,
    }
}

kernel_parameters! {
    /// kernels/conv.cu
    Parts: 32 { parts: Ptr, out: Ptr, count: u64, splits: u32, unused: u32 }
}

kernel_parameters! {
    /// kernels/conv.cu
    Bias: 96 {
        y: Ptr, dy: Ptr, partial: Ptr,
        n: u32, out_h: u32, out_w: u32, out_c: u32, grid_h: u32, grid_w: u32, block_h: u32, block_w: u32,
        activation: u32, rows_per_part: u32, lanes: u32, width: u32,
        by_block_w: Divisor, by_block_h: Divisor,
    }
}

kernel_parameters! {
    /// kernels/conv.cu
    Join: 160 {
        partial: Ptr, bias: Ptr, out: Ptr,
        n: u32, h: u32, w: u32, c: u32, splits: u32, grid_h: u32, grid_w: u32, filters: u32,
        cell_h: u32, cell_w: u32, extent_h: u32, extent_w: u32, block_h: u32, block_w: u32, activation: u32, lanes: u32,
        by_lanes: Divisor, by_w: Divisor, by_h: Divisor, by_filters: Divisor, by_block_w: Divisor, by_block_h: Divisor,
    }
}

kernel_parameters! {
    /// kernels/conv.cu
    Unfold: 128 {
        x: Ptr, w: Ptr, windows: Ptr, filters: Ptr,
        n: u32, in_h: u32, in_w: u32, in_c: u32, out_w: u32, stride_w: u32, pad_w: u32, kernel_h: u32,
        run: u32, line: u32, o: u32, packs: u32,
        by_line: Divisor, by_out_w: Divisor, by_o: Divisor, by_lines: Divisor,
    }
}

kernel_parameters! {
    /// kernels/im2col.cu
    Im2col: 112 {
        geometry: Geometry,
        from: Ptr, bias: Ptr, to: Ptr,
        activation: u32, unused: u32,
    }
}

/// Bytes that a multiprocessor reads from L2 or writes there in a cycle, and cycles between two launches of a graph; roughly.
const L2_BYTES: usize = 48;
const LAUNCH: usize = 1500;

fn multiprocessors(gpu: &Gpu) -> usize {
    gpu.driver.properties().multiprocessors.max(1) as usize
}

/// A shape of kernels/product.cuh, with what it costs in instructions of a warp, as counted (kernels/budgets.toml): a step of
/// the main loop, and all the rest.
struct Shape {
    label: &'static str,
    m: usize,
    n: usize,
    stages: usize,
    step: usize,
    rest: usize,
}

fn shape(tile: Tile) -> Shape {
    match tile {
        Tile::Middle => Shape { label: "", m: 128, n: 64, stages: 3, step: 160, rest: 750 },
        Tile::Large => Shape { label: "_128x128", m: 128, n: 128, stages: 3, step: 205, rest: 1100 },
        Tile::Narrow => Shape { label: "_256x32", m: 256, n: 32, stages: 2, step: 195, rest: 800 },
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
        let Shape { m, n, step, rest, .. } = shape(self.tile);
        let blocks = self.grid().iter().product::<usize>();
        let steps = self.k_per_split.min(k).div_ceil(STEP_BYTES / gpu.precision.bytes());
        let (sums, launch) = if self.splits > 1 { (8 * m * n / L2_BYTES, LAUNCH) } else { (0, 0) };
        blocks.div_ceil(multiprocessors(gpu)) * (rest + steps * step + sums) + launch
    }

    pub fn grid(&self) -> [usize; 3] {
        [self.tiles_m() * self.batch, self.n.div_ceil(shape(self.tile).n), self.splits]
    }

    fn tiles_m(&self) -> usize {
        self.m.div_ceil(shape(self.tile).m)
    }

    /// Lines of a tile.
    pub fn lines(&self) -> usize {
        shape(self.tile).m
    }

    /// f32 partial sums of all splits.
    fn partial(&self) -> usize {
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

/// Which operand is transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Nn,
    Nt,
    Tn,
}

/// One batch of plain products.
struct Product {
    form: Form,
    batch: usize,
    /// m, n, k
    size: [usize; 3],
    a: Ptr,
    b: Ptr,
    c: Ptr,
    bias: Ptr,
    activation: Activation,
    /// C is f32 whatever the storage type.
    c_f32: bool,
}

impl Product {
    /// Distances between the lines of both operands.
    fn lines(&self) -> [usize; 2] {
        let [m, n, k] = self.size;
        [if self.form == Form::Tn { m } else { k }, if self.form == Form::Nt { k } else { n }]
    }

    fn spread(&self, gpu: &Gpu) -> Spread {
        Spread::new(gpu, self.batch, self.size, whole(gpu, &self.lines()))
    }

    fn record(&self, to: &mut Recorder<'_>, partial: Ptr) {
        let [m, n, k] = self.size;
        let spread = self.spread(to.gpu);
        let [lda, ldb] = self.lines();
        let wide = |line: usize| u32::from(whole(to.gpu, &[line]));
        let mut parameters = Gemm {
            a: self.a,
            b: self.b,
            bias: self.bias,
            c: self.c,
            partial,
            a_batch: (m * k) as u64,
            b_batch: (k * n) as u64,
            c_batch: (m * n) as u64,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            lda: lda as u32,
            ldb: ldb as u32,
            ldc: n as u32,
            activation: inside(self.activation, spread) as u32,
            splits: spread.splits as u32,
            k_per_split: spread.k_per_split as u32,
            tiles_m: spread.tiles_m() as u32,
            wide_a: wide(lda),
            wide_b: wide(ldb),
            c_f32: u32::from(self.c_f32),
            unused: 0,
        };
        let (name, k_inner) = match self.form {
            Form::Nn => ("gemm_nn", [true, false]),
            Form::Nt => ("gemm_nt", [true, true]),
            Form::Tn => ("gemm_tn", [false, false]),
        };
        let bytes = to.precision().bytes();
        let out = if self.c_f32 { 4 } else { bytes };
        let touched = self.batch * (bytes * (m * k + k * n) + out * m * n);
        let name = spread.kernel(name, whole(to.gpu, &[lda, ldb]), to.gpu);
        let launch = Launch::new(name, spread.grid(), THREADS, &parameters);
        let launch = launch.shared(spread.shared(to.gpu, k_inner[0], k_inner[1]));
        to.launch(launch.work((2 * self.batch * m * n * k) as u64, touched as u64));
        if spread.splits > 1 {
            parameters.tiles_m = self.batch as u32;
            let count = self.batch * m * n;
            let touched = count * (4 * spread.splits + out);
            let launch = Launch::new(to.stored("gemm_finish"), cover(count), BLOCK, &parameters);
            to.launch(launch.work((count * spread.splits) as u64, touched as u64));
        }
        record_outside(to, self.activation, spread, self.c, self.batch * m * n);
    }
}

impl Filter {
    fn rows(&self, n: usize) -> usize {
        n * self.block.h * self.block.w
    }

    fn batch(&self) -> usize {
        self.banks() * self.groups
    }

    fn plain(&self, gpu: &Gpu) -> bool {
        self.is_pointwise() || gpu.convolution == Convolution::Im2col
    }

    /// True if the layout of Y is that of the products: no regions, no groups.
    fn in_order(&self) -> bool {
        self.batch() == 1
    }

    fn forward_size(&self, n: usize) -> [usize; 3] {
        [self.rows(n), self.group_filters(), self.taps()]
    }

    fn weights_size(&self, n: usize) -> [usize; 3] {
        [self.taps(), self.group_filters(), self.rows(n)]
    }

    /// Pixels that the windows of one region cover, per axis.
    fn extent(&self) -> [usize; 2] {
        if self.banks() == 1 {
            return [self.input.h, self.input.w];
        }
        let reach = |block: usize, stride: usize, kernel: usize| (block - 1) * stride + kernel;
        [reach(self.block.h, self.stride.h, self.kernel.h), reach(self.block.w, self.stride.w, self.kernel.w)]
    }

    /// The product of the data gradient: the largest of the stride's residues, as successive products of the batch.
    fn data_spread(&self, n: usize, gpu: &Gpu) -> Spread {
        let [height, width] = self.extent();
        let pixels = n * height.div_ceil(self.stride.h) * width.div_ceil(self.stride.w);
        let taps = self.kernel.h.div_ceil(self.stride.h) * self.kernel.w.div_ceil(self.stride.w);
        let residues = self.stride.h * self.stride.w;
        let size = [pixels, self.input.c / self.groups, taps * self.group_filters()];
        Spread::new(gpu, self.batch() * residues, size, whole(gpu, &[self.group_filters()]))
    }

    /// Whether the runs of X and W, or of X and dY, are whole packs: lines of windows where these are written out.
    fn is_whole(&self, gpu: &Gpu) -> bool {
        let run = if self.plain(gpu) { self.taps() } else { self.input.c / self.groups };
        whole(gpu, &[run, self.group_filters()])
    }

    fn forward_spread(&self, n: usize, gpu: &Gpu) -> Spread {
        Spread::new(gpu, self.batch(), self.forward_size(n), self.is_whole(gpu))
    }

    /// f32 partial sums that the data gradient stores.
    fn data_partial(&self, n: usize, gpu: &Gpu) -> usize {
        let splits = self.data_spread(n, gpu).splits;
        let [height, width] = self.extent();
        let parts = splits * self.banks();
        if parts > 1 { 4 * parts * n * height * width * self.input.c } else { 0 }
    }

    fn weights_spread(&self, n: usize, gpu: &Gpu) -> Spread {
        Spread::new(gpu, self.batch(), self.weights_size(n), self.is_whole(gpu))
    }

    /// Splits of a region's pixels over which the bias gradient is summed, and pixels per split.
    fn bias_parts(&self, n: usize, gpu: &Gpu) -> [usize; 2] {
        let rows = self.rows(n);
        let wanted = (4 * gpu.driver.properties().multiprocessors as usize).div_ceil(self.banks());
        let per_part = rows.div_ceil(wanted).max(64);
        [rows.div_ceil(per_part), per_part]
    }

    fn bias_partial(&self, n: usize, gpu: &Gpu) -> usize {
        4 * self.bias_parts(n, gpu)[0] * self.banks() * self.output.c
    }

    fn cols(&self, n: usize) -> usize {
        if self.is_pointwise() { 0 } else { (self.batch() * self.rows(n)).saturating_mul(self.taps()) }
    }

    fn geometry(&self, n: usize) -> Geometry {
        Geometry {
            n: n as u32,
            in_h: self.input.h as u32,
            in_w: self.input.w as u32,
            in_c: self.input.c as u32,
            out_h: self.output.h as u32,
            out_w: self.output.w as u32,
            out_c: self.output.c as u32,
            kernel_h: self.kernel.h as u32,
            kernel_w: self.kernel.w as u32,
            stride_h: self.stride.h as u32,
            stride_w: self.stride.w as u32,
            pad_h: self.pad.h as u32,
            pad_w: self.pad.w as u32,
            groups: self.groups as u32,
            grid_h: self.grid.h as u32,
            grid_w: self.grid.w as u32,
            cell_h: self.cell.h as u32,
            cell_w: self.cell.w as u32,
            block_h: self.block.h as u32,
            block_w: self.block.w as u32,
        }
    }

    fn parameters_at(&self, n: usize, spread: Spread, gpu: &Gpu) -> Conv {
        let channels = self.input.c / self.groups;
        let wide = |run: usize| u32::from(whole(gpu, &[run]));
        let [extent_h, extent_w] = self.extent();
        let null = Ptr::NULL;
        Conv {
            geometry: self.geometry(n),
            x: null,
            y: null,
            w: null,
            bias: null,
            out: null,
            partial: null,
            extent_h: extent_h as u32,
            extent_w: extent_w as u32,
            activation: Activation::None as u32,
            splits: spread.splits as u32,
            k_per_split: spread.k_per_split as u32,
            unused: 0,
            wide_x: wide(channels),
            wide_y: wide(self.group_filters()),
            wide_w: wide(self.group_filters()),
            by_block_w: Divisor::new(self.block.w),
            by_block_h: Divisor::new(self.block.h),
            by_channels: Divisor::new(channels),
            by_filters: Divisor::new(self.group_filters()),
            by_kernel_w: Divisor::new(self.kernel.w),
            by_rows: residues(extent_h, self.stride.h),
            by_columns: residues(extent_w, self.stride.w),
            by_taps_x: residues(self.kernel.w, self.stride.w),
            by_tiles_m: Divisor::new(spread.tiles_m()),
            by_groups: Divisor::new(self.groups),
            by_grid_w: Divisor::new(self.grid.w),
            by_stride_w: Divisor::new(self.stride.w),
            by_stride_h: Divisor::new(self.stride.h),
            run: channels as u32,
        }
    }

    /// What adds the sums of splits and regions to a map of this shape.
    fn join_at(&self, n: usize, map: ops::Shape, spread: Spread, lanes: usize, [partial, out]: [Ptr; 2]) -> Join {
        let [extent_h, extent_w] = self.extent();
        Join {
            partial,
            bias: Ptr::NULL,
            out,
            n: n as u32,
            h: map.h as u32,
            w: map.w as u32,
            c: map.c as u32,
            splits: spread.splits as u32,
            grid_h: self.grid.h as u32,
            grid_w: self.grid.w as u32,
            filters: self.group_filters() as u32,
            cell_h: self.cell.h as u32,
            cell_w: self.cell.w as u32,
            extent_h: extent_h as u32,
            extent_w: extent_w as u32,
            block_h: self.block.h as u32,
            block_w: self.block.w as u32,
            activation: Activation::None as u32,
            lanes: lanes as u32,
            by_lanes: Divisor::new(map.c / lanes),
            by_w: Divisor::new(map.w),
            by_h: Divisor::new(map.h),
            by_filters: Divisor::new(self.group_filters()),
            by_block_w: Divisor::new(self.block.w),
            by_block_h: Divisor::new(self.block.h),
        }
    }

    fn im2col_at(&self, n: usize, from: Ptr, to: Ptr) -> Im2col {
        Im2col { geometry: self.geometry(n), from, bias: Ptr::NULL, to, activation: Activation::None as u32, unused: 0 }
    }

    fn values(&self, n: usize) -> [usize; 3] {
        [n * self.input.len(), n * self.output.len(), self.batch() * self.taps() * self.group_filters()]
    }

    /// Windows as a matrix, or the input itself where they are its pixels.
    fn record_im2col(&self, n: usize, input: Ptr, cols: Ptr, to: &mut Recorder<'_>) -> Ptr {
        if self.is_pointwise() {
            return input;
        }
        let count = self.cols(n);
        let bytes = to.precision().bytes() * (n * self.input.len() + count);
        let launch = Launch::new(to.stored("im2col"), cover(count), BLOCK, &self.im2col_at(n, input, cols));
        to.launch(launch.work(0, bytes as u64));
        cols
    }
}

/// Most values of a line of a window that [`Unfolded`] writes, and how many times larger than the map it may be.
const MOST_UNFOLDED: (usize, usize) = (128, 8);

/// A layer whose map has few channels, as a layer over the lines of its windows: each pixel of the unfolded map holds one line,
/// filled up with zeros to whole packs. The sums are the same, in the same order.
struct Unfolded {
    /// The layer over the unfolded map.
    filter: Filter,
    /// Values of a line.
    run: usize,
}

impl Unfolded {
    /// For odd runs of channels, where filters come in whole packs.
    fn new(f: &Filter, n: usize, gpu: &Gpu) -> Option<Self> {
        let pack = gpu::pack(gpu.precision);
        let run = f.kernel.w * f.input.c;
        let line = run.next_multiple_of(pack);
        let is_odd = !f.input.c.is_multiple_of(pack) && f.output.c.is_multiple_of(pack);
        let is_small = line <= MOST_UNFOLDED.0 && line * f.output.w <= MOST_UNFOLDED.1 * f.input.w * f.input.c;
        let mut filter = f.clone();
        (filter.input.c, filter.input.w) = (line, f.output.w);
        (filter.kernel.w, filter.stride.w, filter.pad.w) = (1, 1, 0);
        let is_indexed = n * filter.input.len() / pack < 1 << 31;
        (is_odd && is_small && is_indexed && f.batch() == 1 && !f.plain(gpu)).then_some(Self { filter, run })
    }

    fn windows(&self, n: usize, gpu: &Gpu) -> usize {
        n * self.filter.input.len() * gpu.precision.bytes()
    }

    /// Bytes of the filters with their zeros; none where lines are whole packs.
    fn filters(&self, gpu: &Gpu) -> usize {
        let line = self.filter.input.c;
        let is_whole = line == self.run;
        if is_whole { 0 } else { self.filter.kernel.h * line * self.filter.output.c * gpu.precision.bytes() }
    }

    /// Writes the lines of `x`, of layer `f`, and of its weights if they are given; returns both.
    fn record(
        &self,
        f: &Filter,
        n: usize,
        x: Ptr,
        w: Option<Ptr>,
        scratch: &mut Scratch,
        to: &mut Recorder<'_>,
    ) -> [Ptr; 2] {
        let (pack, line, o) = (gpu::pack(to.precision()), self.filter.input.c, f.output.c);
        let windows = scratch.take(self.windows(n, to.gpu));
        let written = w.filter(|_| line != self.run);
        let filters = if written.is_some() { scratch.take(self.filters(to.gpu)) } else { Ptr::NULL };
        let packs = n * self.filter.input.len() / pack;
        let parameters = Unfold {
            x,
            w: written.unwrap_or(Ptr::NULL),
            windows,
            filters,
            n: n as u32,
            in_h: f.input.h as u32,
            in_w: f.input.w as u32,
            in_c: f.input.c as u32,
            out_w: f.output.w as u32,
            stride_w: f.stride.w as u32,
            pad_w: f.pad.w as u32,
            kernel_h: f.kernel.h as u32,
            run: self.run as u32,
            line: line as u32,
            o: o as u32,
            packs: packs as u32,
            by_line: Divisor::new(line / pack),
            by_out_w: Divisor::new(f.output.w),
            by_o: Divisor::new(o / pack),
            by_lines: Divisor::new(line),
        };
        let count = packs + if written.is_some() { f.kernel.h * line * o / pack } else { 0 };
        let bytes = to.precision().bytes() * (n * f.input.len() + pack * count);
        to.launch(Launch::new(to.stored("conv_unfold"), cover(count), BLOCK, &parameters).work(0, bytes as u64));
        [windows, if written.is_some() { filters } else { w.unwrap_or(Ptr::NULL) }]
    }
}

/// Scratch memory divided into aligned pieces.
struct Scratch {
    at: Ptr,
    used: usize,
}

impl Scratch {
    fn new(at: Ptr) -> Self {
        Self { at, used: 0 }
    }

    fn take(&mut self, bytes: usize) -> Ptr {
        let ptr = self.at.offset(self.used);
        self.used += bytes.next_multiple_of(256);
        ptr
    }
}

fn aligned(pieces: &[usize]) -> usize {
    let whole = |bytes: &usize| bytes.checked_next_multiple_of(256).unwrap_or(usize::MAX);
    pieces.iter().fold(0, |sum: usize, bytes| sum.saturating_add(whole(bytes)))
}

pub fn forward_workspace(f: &Filter, n: usize, gpu: &Gpu) -> usize {
    if let Some(unfolded) = Unfolded::new(f, n, gpu) {
        let partial = unfolded.filter.forward_spread(n, gpu).partial();
        return aligned(&[unfolded.windows(n, gpu), unfolded.filters(gpu), partial]);
    }
    let spread = f.forward_spread(n, gpu);
    if !f.plain(gpu) {
        return spread.partial();
    }
    let regions = if f.in_order() { 0 } else { 4 * n * f.output.len() };
    aligned(&[f.cols(n).saturating_mul(gpu.precision.bytes()), regions, spread.partial()])
}

pub fn record_forward(f: &Filter, pass: GpuForward<'_>, to: &mut Recorder<'_>) {
    let n = pass.n;
    let bias = if f.bias { pass.params[1] } else { Ptr::NULL };
    let [inputs, outputs, weights] = f.values(n);
    if f.plain(to.gpu) {
        let mut scratch = Scratch::new(pass.workspace);
        let cols = scratch.take(to.precision().bytes() * f.cols(n));
        let regions = scratch.take(if f.in_order() { 0 } else { 4 * outputs });
        let windows = f.record_im2col(n, pass.inputs[0], cols, to);
        let in_order = f.in_order();
        let product = Product {
            form: Form::Nn,
            batch: f.batch(),
            size: f.forward_size(n),
            a: windows,
            b: pass.params[0],
            c: if in_order { pass.output } else { regions },
            bias: if in_order { bias } else { Ptr::NULL },
            activation: if in_order { f.activation } else { Activation::None },
            c_f32: !in_order,
        };
        product.record(to, scratch.take(0));
        if !in_order {
            let mut parameters = f.im2col_at(n, regions, pass.output);
            (parameters.bias, parameters.activation) = (bias, f.activation as u32);
            let bytes = outputs * (4 + to.precision().bytes());
            let launch = Launch::new(to.stored("from_regions"), cover(outputs), BLOCK, &parameters);
            to.launch(launch.work(outputs as u64, bytes as u64));
        }
        return;
    }
    let mut scratch = Scratch::new(pass.workspace);
    let [mut x, mut w] = [pass.inputs[0], pass.params[0]];
    let flops = 2 * (outputs * f.taps()) as u64;
    let unfolded = Unfolded::new(f, n, to.gpu);
    if let Some(unfolded) = &unfolded {
        [x, w] = unfolded.record(f, n, x, Some(w), &mut scratch, to);
    }
    let f = unfolded.as_ref().map_or(f, |unfolded| &unfolded.filter);
    let spread = f.forward_spread(n, to.gpu);
    let mut parameters = f.parameters_at(n, spread, to.gpu);
    (parameters.x, parameters.w, parameters.bias) = (x, w, bias);
    (parameters.out, parameters.partial) = (pass.output, scratch.take(0));
    parameters.activation = inside(f.activation, spread) as u32;
    let bytes = to.precision().bytes() * (inputs + outputs + weights);
    let name = spread.kernel("conv_forward", f.is_whole(to.gpu), to.gpu);
    let launch = Launch::new(name, spread.grid(), THREADS, &parameters).shared(spread.shared(to.gpu, true, false));
    to.launch(launch.work(flops, bytes as u64));
    if spread.splits > 1 {
        let bytes = outputs * (4 * spread.splits + to.precision().bytes());
        let lanes = gpu::lanes(to.precision(), f.group_filters(), &[pass.output]);
        let join = Join {
            bias,
            activation: inside(f.activation, spread) as u32,
            ..f.join_at(n, f.output, spread, lanes, [parameters.partial, pass.output])
        };
        let launch = Launch::new(to.stored("conv_finish"), cover(outputs / lanes), BLOCK, &join);
        to.launch(launch.work((outputs * spread.splits) as u64, bytes as u64));
    }
    record_outside(to, f.activation, spread, pass.output, outputs);
}

pub fn backward_workspace(f: &Filter, n: usize, gpu: &Gpu) -> usize {
    let size = gpu.precision.bytes();
    let bias = f.bias_partial(n, gpu);
    let products = if f.plain(gpu) {
        let [m, n_filters, k] = f.forward_size(n);
        let data = Spread::new(gpu, f.batch(), [m, k, n_filters], whole(gpu, &[n_filters])).partial();
        let regions = if f.in_order() { 0 } else { size * n * f.output.len() };
        let partial = data.max(f.weights_spread(n, gpu).partial());
        aligned(&[f.cols(n).saturating_mul(size), regions, partial])
    } else {
        let unfolded = Unfolded::new(f, n, gpu);
        let weights = f.weights_spread(n, gpu).partial();
        let windows = unfolded.map_or(0, |unfolded| {
            aligned(&[unfolded.windows(n, gpu), unfolded.filter.weights_spread(n, gpu).partial()])
        });
        f.data_partial(n, gpu).max(weights).max(windows)
    };
    bias.max(products)
}

pub fn record_backward(f: &Filter, pass: GpuBackward<'_>, to: &mut Recorder<'_>) {
    record_bias(f, &pass, to);
    if f.plain(to.gpu) { record_plain_backward(f, &pass, to) } else { record_implicit_backward(f, &pass, to) }
}

/// Backward through the activation, and the bias gradient.
fn record_bias(f: &Filter, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let activation = if pass.is_rectified { Activation::None } else { f.activation };
    if activation == Activation::None && !f.bias {
        return;
    }
    let n = pass.n;
    let [parts, rows_per_part] = f.bias_parts(n, to.gpu);
    let lanes = gpu::lanes(to.precision(), f.output.c, &[pass.output, pass.d_output]);
    // Eight threads read 128 bytes of a pixel in 16 bits; fewer where that leaves less of them idle.
    let packs = f.output.c / lanes;
    let width = if packs % 8 == 4 { 4 } else { packs.next_power_of_two().min(if lanes == 1 { 32 } else { 8 }) };
    let parameters = Bias {
        y: pass.output,
        dy: pass.d_output,
        partial: if f.bias { pass.workspace } else { Ptr::NULL },
        n: n as u32,
        out_h: f.output.h as u32,
        out_w: f.output.w as u32,
        out_c: f.output.c as u32,
        grid_h: f.grid.h as u32,
        grid_w: f.grid.w as u32,
        block_h: f.block.h as u32,
        block_w: f.block.w as u32,
        activation: activation as u32,
        rows_per_part: rows_per_part as u32,
        lanes: lanes as u32,
        width: width as u32,
        by_block_w: Divisor::new(f.block.w),
        by_block_h: Divisor::new(f.block.h),
    };
    let outputs = n * f.output.len();
    let passes = if activation == Activation::None { 1 } else { 3 };
    let launch = Launch::new(to.stored("bias_backward"), [parts, f.banks(), packs.div_ceil(width)], BLOCK, &parameters);
    to.launch(launch.work(2 * outputs as u64, (passes * outputs * to.precision().bytes()) as u64));
    if f.bias {
        record_sum(to, pass.workspace, pass.d_params[1], f.banks() * f.output.c, parts);
    }
}

/// `out[count]` = sum of `splits` parts.
fn record_sum(to: &mut Recorder<'_>, parts: Ptr, out: Ptr, count: usize, splits: usize) {
    let parameters = Parts { parts, out, count: count as u64, splits: splits as u32, unused: 0 };
    let launch = Launch::new("sum_parts_f32", cover(count), BLOCK, &parameters);
    to.launch(launch.work((count * splits) as u64, (4 * count * (splits + 1)) as u64));
}

fn record_implicit_backward(f: &Filter, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let n = pass.n;
    let [inputs, outputs, weights] = f.values(n);
    let bytes = to.precision().bytes();
    let flops = 2 * (outputs * f.taps()) as u64;

    let mut scratch = Scratch::new(pass.workspace);
    let unfolded = Unfolded::new(f, n, to.gpu);
    let x = match &unfolded {
        Some(unfolded) => unfolded.record(f, n, pass.inputs[0], None, &mut scratch, to)[0],
        None => pass.inputs[0],
    };
    let over = unfolded.as_ref().map_or(f, |unfolded| &unfolded.filter);
    let spread = over.weights_spread(n, to.gpu);
    let mut parameters = over.parameters_at(n, spread, to.gpu);
    if let Some(unfolded) = &unfolded {
        parameters.run = unfolded.run as u32;
    }
    (parameters.x, parameters.y) = (x, pass.d_output);
    (parameters.out, parameters.partial) = (pass.d_params[0], scratch.take(0));
    let partial = parameters.partial;
    let name = spread.kernel("conv_backward_weights", over.is_whole(to.gpu), to.gpu);
    let launch = Launch::new(name, spread.grid(), THREADS, &parameters).shared(spread.shared(to.gpu, false, false));
    to.launch(launch.work(flops, (bytes * (inputs + outputs) + 4 * weights) as u64));
    if spread.splits > 1 {
        record_sum(to, partial, pass.d_params[0], weights, spread.splits);
    }

    let Some(d_input) = pass.d_inputs[0] else { return };
    let spread = f.data_spread(n, to.gpu);
    let mut parameters = f.parameters_at(n, spread, to.gpu);
    (parameters.y, parameters.w) = (pass.d_output, pass.params[0]);
    (parameters.out, parameters.partial) = (d_input, pass.workspace);
    let name = spread.kernel("conv_backward_data", whole(to.gpu, &[f.group_filters()]), to.gpu);
    let launch = Launch::new(name, spread.grid(), THREADS, &parameters).shared(spread.shared(to.gpu, true, true));
    to.launch(launch.work(flops, (bytes * (inputs + outputs + weights)) as u64));
    let parts = spread.splits * f.banks();
    if parts > 1 {
        let touched = f.data_partial(n, to.gpu) + inputs * bytes;
        let lanes = gpu::lanes(to.precision(), f.input.c, &[d_input]);
        let join = f.join_at(n, f.input, spread, lanes, [pass.workspace, d_input]);
        let launch = Launch::new(to.stored("conv_gather"), cover(inputs / lanes), BLOCK, &join);
        to.launch(launch.work((f.data_partial(n, to.gpu) / 4) as u64, touched as u64));
    }
}

fn record_plain_backward(f: &Filter, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let n = pass.n;
    let [inputs, outputs, _] = f.values(n);
    let bytes = to.precision().bytes();
    let mut scratch = Scratch::new(pass.workspace);
    let cols = scratch.take(bytes * f.cols(n));
    let regions = scratch.take(if f.in_order() { 0 } else { bytes * outputs });
    let partial = scratch.take(0);
    let mut dy = pass.d_output;
    if !f.in_order() {
        let parameters = f.im2col_at(n, pass.d_output, regions);
        let launch = Launch::new(to.stored("to_regions"), cover(outputs), BLOCK, &parameters);
        to.launch(launch.work(0, (2 * bytes * outputs) as u64));
        dy = regions;
    }
    let windows = f.record_im2col(n, pass.inputs[0], cols, to);
    let product = Product {
        form: Form::Tn,
        batch: f.batch(),
        size: f.weights_size(n),
        a: windows,
        b: dy,
        c: pass.d_params[0],
        bias: Ptr::NULL,
        activation: Activation::None,
        c_f32: true,
    };
    product.record(to, partial);

    let Some(d_input) = pass.d_inputs[0] else { return };
    let [rows, filters, taps] = f.forward_size(n);
    let product = Product {
        form: Form::Nt,
        batch: f.batch(),
        size: [rows, taps, filters],
        a: dy,
        b: pass.params[0],
        c: if f.is_pointwise() { d_input } else { cols },
        bias: Ptr::NULL,
        activation: Activation::None,
        c_f32: false,
    };
    product.record(to, partial);
    if !f.is_pointwise() {
        let touched = bytes * (inputs + f.cols(n));
        let launch = Launch::new(to.stored("col2im"), cover(inputs), BLOCK, &f.im2col_at(n, cols, d_input));
        to.launch(launch.work(f.cols(n) as u64, touched as u64));
    }
}

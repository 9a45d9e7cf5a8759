//! Maps of at most four channels in 16 bits: kernels/few.cu, which needs no copy of the windows, and can run the layer as one with the
//! maximum that reads it.

use super::{Geometry, record_sum};
use crate::device::{Gpu, Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::activation::Activation;
use crate::ops::conv::Filter;
use crate::ops::gpu::{self, Divisor, GpuForward};
use crate::ops::pool::{Pool, Statistic};
use crate::ops::{Pair, Shape};

kernel_parameters! {
    /// kernels/few.cu
    Few: 256 {
        geometry: Geometry,
        x: Ptr, w: Ptr, bias: Ptr, dy: Ptr, out: Ptr, bias_sums: Ptr, codes: Ptr,
        activation: u32, patches: u32, taps: u32, steps: u32, slots: u32, halo_w: u32, halo: u32, pairs: u32,
        slab: u32, per_split: u32, copy: u32, slot: u32,
        by_patches_x: Divisor, by_patches_y: Divisor, by_halo_w: Divisor, by_kernel_w: Divisor, by_pairs_w: Divisor,
        pool_h: u32, pool_w: u32, unused: u32,
    }
}

/// As kernels/few.cu.
const THREADS: usize = 256;
const WARPS: usize = 8;
const SIDE: usize = 8;
const SLOTS: usize = 4;
/// Filters up to this size, in bytes, stay in shared memory.
const RESIDENT: usize = 16 << 10;
/// Filters of a tile, and rows of a patch that a warp has.
const FORWARD: [(usize, usize); 3] = [(32, 8), (64, 4), (96, 4)];
/// Filters of a tile of the weights' gradient.
const FILTERS: usize = 32;
/// Tiles of 16 lines, two pairs of taps each, that a block of the weights' gradient has.
const WEIGHTS: [(usize, &str); 2] = [(8, ""), (40, "_large")];
/// Of those of 40 another kernel, whose pixels lie in another order.
const STRIDE: (usize, &str) = (4, "_strided");
/// Bytes that the smaller of them needs for the sums of half of its warps.
const HALF: usize = 16 << 10;
/// Shared memory that leaves room for a few blocks of the weights' gradient on a multiprocessor.
const SLABS: usize = 48 << 10;
const MOST_TAPS: usize = 256;

/// Whether these kernels serve a layer; other maps of few channels are unfolded ([`super::unfold`]).
pub(super) fn serves(f: &Filter, n: usize, gpu: &Gpu) -> bool {
    let most = gpu.driver.properties().shared_per_block as usize;
    let is_few = f.input.c <= 4 && f.output.c.is_multiple_of(gpu::pack(gpu.precision)) && f.batch() == 1;
    let is_indexed = n.saturating_mul(f.input.len().max(f.output.len())) < 1 << 31;
    gpu.precision.bytes() == 2
        && is_few
        && is_indexed
        && !f.plain(gpu)
        && f.kernel.h * f.kernel.w <= MOST_TAPS
        && Forward::new(f, n).shared().max(Weights::new(f, n, gpu).shared()) <= most
}

fn patches(f: &Filter, n: usize) -> usize {
    n * f.output.h.div_ceil(SIDE) * f.output.w.div_ceil(SIDE)
}

/// Pixels under a patch, per axis, if a line of a window had `taps`.
fn halo(f: &Filter, taps: usize) -> [usize; 2] {
    [(SIDE - 1) * f.stride.h + f.kernel.h, (SIDE - 1) * f.stride.w + taps]
}

/// The maxima of a layer's output: their shape, and where it is kept which pixels they are, if gradients follow.
#[derive(Clone, Copy)]
struct Maxima {
    shape: Shape,
    codes: Ptr,
}

impl Maxima {
    fn bytes(&self, n: usize) -> usize {
        n * self.shape.len() * if self.codes == Ptr::NULL { 2 } else { 3 }
    }
}

fn suffix(maxima: Option<Maxima>) -> &'static str {
    if maxima.is_some() { "_pooled" } else { "" }
}

/// What both kernels are told of a layer.
fn parameters(f: &Filter, n: usize, [halo_h, halo_w]: [usize; 2], maxima: Option<Maxima>) -> Few {
    let Maxima { shape, codes } = maxima.unwrap_or(Maxima { shape: Shape::new(0, 0, 0), codes: Ptr::NULL });
    let null = Ptr::NULL;
    Few {
        geometry: f.geometry(n),
        x: null,
        w: null,
        bias: null,
        dy: null,
        out: null,
        bias_sums: null,
        codes,
        activation: Activation::None as u32,
        patches: patches(f, n) as u32,
        taps: (f.kernel.h * f.kernel.w) as u32,
        steps: 0,
        slots: 0,
        halo_w: halo_w as u32,
        halo: (halo_h * halo_w) as u32,
        pairs: 0,
        slab: 0,
        per_split: 0,
        copy: 0,
        slot: 0,
        by_patches_x: Divisor::new(f.output.w.div_ceil(SIDE)),
        by_patches_y: Divisor::new(f.output.h.div_ceil(SIDE)),
        by_halo_w: Divisor::new(halo_w),
        by_kernel_w: Divisor::new(f.kernel.w),
        by_pairs_w: Divisor::new(f.kernel.w.div_ceil(2)),
        pool_h: shape.h as u32,
        pool_w: shape.w as u32,
        unused: 0,
    }
}

/// How the forward pass is cut into blocks.
struct Forward {
    filters: usize,
    /// Blocks along patches, and along filters.
    grid: [usize; 2],
    patches: usize,
    halo: [usize; 2],
    steps: usize,
}

impl Forward {
    fn new(f: &Filter, n: usize) -> Self {
        // The least padding, then the fewest blocks.
        let padded = |(filters, _): &(usize, usize)| (f.output.c.next_multiple_of(*filters), usize::MAX - filters);
        let (filters, rows) = FORWARD.into_iter().min_by_key(padded).expect("there are tiles");
        let at_once = WARPS * rows / SIDE;
        Self {
            filters,
            grid: [patches(f, n).div_ceil(at_once), f.output.c.div_ceil(filters)],
            patches: at_once,
            halo: halo(f, f.kernel.w),
            steps: (f.kernel.h * f.kernel.w).div_ceil(4),
        }
    }

    /// Slots of filters: one for each step if that is little memory.
    fn slots(&self) -> usize {
        if 32 * self.steps * (self.filters + 8) <= RESIDENT { self.steps } else { SLOTS }
    }

    fn shared(&self) -> usize {
        let (line, [halo_h, halo_w]) = (2 * (self.filters + 8), self.halo);
        let pixels = (8 * self.patches * halo_h * halo_w).next_multiple_of(16);
        (pixels + self.slots() * 16 * line + 16 * self.steps).max(WARPS * SIDE * line * 3 / 2)
    }
}

/// `y = activation(x * w + bias)`; a sigmoid is left to the caller.
pub(super) fn record_forward(f: &Filter, n: usize, at: [Ptr; 4], to: &mut Recorder<'_>) {
    record_forward_of(f, n, at, None, to);
}

fn record_forward_of(f: &Filter, n: usize, [x, w, bias, out]: [Ptr; 4], maxima: Option<Maxima>, to: &mut Recorder<'_>) {
    let forward = Forward::new(f, n);
    let activation = if f.activation == Activation::Relu { Activation::Relu } else { Activation::None };
    let parameters = Few {
        x,
        w,
        bias,
        out,
        activation: activation as u32,
        steps: forward.steps as u32,
        slots: forward.slots() as u32,
        ..parameters(f, n, forward.halo, maxima)
    };
    let [inputs, outputs, weights] = f.values(n);
    let name = to.stored(&format!("few_forward_{}{}", forward.filters, suffix(maxima)));
    let [blocks, tiles] = forward.grid;
    let launch = Launch::new(name, [blocks, tiles, 1], THREADS, &parameters).shared(forward.shared());
    let written = maxima.map_or(2 * outputs, |maxima| maxima.bytes(n));
    to.launch(launch.work(2 * (outputs * f.taps()) as u64, (2 * (inputs + weights) + written) as u64));
}

/// How the gradient of the weights is cut into blocks.
struct Weights {
    size: &'static str,
    grid: [usize; 3],
    halo: [usize; 2],
    pairs: usize,
    slab: usize,
    per_split: usize,
    /// Units of 16 bytes: of a slot, and from its pixels to their copy.
    slot: usize,
    copy: usize,
}

impl Weights {
    fn new(f: &Filter, n: usize, gpu: &Gpu) -> Self {
        let across = f.kernel.w.div_ceil(2);
        let pairs = f.kernel.h * across;
        let [halo_h, halo_w] = halo(f, 2 * across);
        let halo_w = halo_w.next_multiple_of(2);
        let is_odd = !f.stride.w.is_multiple_of(2);
        // A copy begins 64 bytes beyond a multiple of 128: eight rows of an ldmatrix, four of each, lie in different banks.
        let units = |slab: usize| {
            let pixels = (slab * halo_h * halo_w).div_ceil(2).next_multiple_of(8);
            if is_odd { [2 * pixels + 8, pixels + 4] } else { [pixels, 0] }
        };
        let shared = |slab: usize| 32 * units(slab)[0] + gradients(slab);
        let slab = [4, 2].into_iter().find(|&slab| shared(slab) <= SLABS && slab <= patches(f, n)).unwrap_or(1);
        let [slot, copy] = units(slab);

        let tiles = pairs.div_ceil(2);
        let (most, size) = WEIGHTS.into_iter().find(|(most, _)| tiles <= *most).unwrap_or(WEIGHTS[1]);
        let size = if size == WEIGHTS[1].1 && f.stride.w == STRIDE.0 { STRIDE.1 } else { size };
        let [columns, parts] = [f.output.c.div_ceil(FILTERS), tiles.div_ceil(most)];
        let wanted = (2 * gpu.driver.properties().multiprocessors as usize).div_ceil(columns * parts);
        let per_split = patches(f, n).div_ceil(wanted).next_multiple_of(slab);
        let grid = [patches(f, n).div_ceil(per_split), columns, parts];
        Self { size, grid, halo: [halo_h, halo_w], pairs, slab, per_split, slot, copy }
    }

    fn shared(&self) -> usize {
        (32 * self.slot + gradients(self.slab)).max(HALF)
    }
}

/// Bytes of the gradients of `slab` patches, in two slots.
fn gradients(slab: usize) -> usize {
    2 * slab * SIDE * SIDE * 2 * (FILTERS + 8)
}

/// f32 sums of the gradient of the weights and of the bias.
pub(super) fn weights_partial(f: &Filter, n: usize, gpu: &Gpu) -> usize {
    let splits = Weights::new(f, n, gpu).grid[0];
    if splits > 1 { 4 * splits * (f.taps() + 1) * f.output.c } else { 0 }
}

/// Whether the gradient of the weights brings that of the bias: there is a channel left for it.
pub(super) fn sums_bias(f: &Filter) -> bool {
    f.bias && f.input.c < 4
}

/// The gradient of the weights, from `x` and that of the sums, and if `d_bias` is given also that of the bias.
pub(super) fn record_backward_weights(
    f: &Filter,
    n: usize,
    at: [Ptr; 3],
    d_bias: Option<Ptr>,
    workspace: Ptr,
    to: &mut Recorder<'_>,
) {
    record_backward_weights_of(f, n, at, d_bias, workspace, None, to);
}

/// With maxima `dy` is their gradient.
fn record_backward_weights_of(
    f: &Filter,
    n: usize,
    [x, dy, d_weights]: [Ptr; 3],
    d_bias: Option<Ptr>,
    workspace: Ptr,
    maxima: Option<Maxima>,
    to: &mut Recorder<'_>,
) {
    let weights = Weights::new(f, n, to.gpu);
    let [inputs, outputs, values] = f.values(n);
    let splits = weights.grid[0];
    let partial_bias = workspace.offset(4 * splits * values);
    let sums = if splits > 1 { [workspace, partial_bias] } else { [d_weights, d_bias.unwrap_or(Ptr::NULL)] };
    let parameters = Few {
        x,
        dy,
        out: sums[0],
        bias_sums: if d_bias.is_some() { sums[1] } else { Ptr::NULL },
        pairs: weights.pairs as u32,
        slab: weights.slab as u32,
        per_split: weights.per_split as u32,
        copy: weights.copy as u32,
        slot: weights.slot as u32,
        ..parameters(f, n, weights.halo, maxima)
    };
    let name = to.stored(&format!("few_backward_weights{}{}", weights.size, suffix(maxima)));
    let launch = Launch::new(name, weights.grid, THREADS, &parameters).shared(weights.shared());
    let read = maxima.map_or(2 * outputs, |maxima| maxima.bytes(n));
    to.launch(launch.work(2 * (outputs * f.taps()) as u64, (2 * inputs + read + 4 * values) as u64));
    if splits > 1 {
        record_sum(to, workspace, d_weights, values, splits);
        if let Some(d_bias) = d_bias {
            record_sum(to, partial_bias, d_bias, f.output.c, splits);
        }
    }
}

/// A layer of these kernels and the maximum of 2 x 2 that alone reads it, as one launch forward and one backward: the layer's output
/// and its gradient are never written.
pub(crate) struct Pooled<'a> {
    filter: &'a Filter,
    shape: Shape,
}

impl<'a> Pooled<'a> {
    /// `None` where they run one after the other.
    pub fn new(filter: &'a Filter, pool: &Pool, n: usize, gpu: &Gpu) -> Option<Self> {
        let two = Pair::both(2);
        let is_two = pool.statistic == Statistic::Max && pool.kernel == two && pool.stride == two;
        let is_inside =
            pool.pad == Pair::both(0) && 2 * pool.output.h <= pool.input.h && 2 * pool.output.w <= pool.input.w;
        // The gradient that is not written is the workspace of the pass backward.
        let is_small = || weights_partial(filter, n, gpu) <= n * filter.output.len() * gpu.precision.bytes();
        let is_fused =
            is_two && is_inside && filter.activation == Activation::Relu && serves(filter, n, gpu) && is_small();
        // Without a channel for the gradient of the bias, that would read what is not written.
        (is_fused && (sums_bias(filter) || !filter.bias)).then_some(Self { filter, shape: pool.output })
    }

    /// The maxima, and if `codes` is given which pixels they are: a byte for each.
    pub fn record_forward(&self, pass: &GpuForward<'_>, codes: Option<Ptr>, to: &mut Recorder<'_>) {
        let bias = if self.filter.bias { pass.params[1] } else { Ptr::NULL };
        let maxima = Maxima { shape: self.shape, codes: codes.unwrap_or(Ptr::NULL) };
        let at = [pass.inputs[0], pass.params[0], bias, pass.output];
        record_forward_of(self.filter, pass.n, at, Some(maxima), to);
    }

    /// The gradients of the parameters from `x` and the gradient of the maxima.
    pub fn record_backward(
        &self,
        n: usize,
        [x, d_maxima, codes, workspace]: [Ptr; 4],
        d_params: &[Ptr],
        to: &mut Recorder<'_>,
    ) {
        let d_bias = self.filter.bias.then(|| d_params[1]);
        let maxima = Maxima { shape: self.shape, codes };
        record_backward_weights_of(self.filter, n, [x, d_maxima, d_params[0]], d_bias, workspace, Some(maxima), to);
    }
}

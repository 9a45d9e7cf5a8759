//! Filters on a GPU: kernels/conv.cu (windows gathered while they are loaded) or, with `--conv im2col`, kernels/im2col.cu and
//! plain products; kernels/gemm.cu where a pixel's window is the pixel itself (linear layers, 1x1 convolutions).
//!
//! A product with too few tiles to occupy all multiprocessors is split along k; the partial sums are f32 and are added in a
//! fixed order.

use super::Filter;
use crate::device::{Convolution, Gpu, Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::activation::Activation;
use crate::ops::gpu::{BLOCK, GpuBackward, GpuForward, activation_forward, cover};
use bytemuck::{Pod, Zeroable};

/// As kernels/product.cuh.
pub(crate) const THREADS: usize = 128;
pub(crate) const TILE_M: usize = 128;
pub(crate) const TILE_N: usize = 64;
const STAGES: usize = 3;
/// Bytes of k in one step of a product.
const STEP_BYTES: usize = 64;
/// Minimum number of steps for which a partial sum is worth its launch.
const LEAST_STEPS: usize = 8;

/// Division by a number known at launch: `q = (umulhi(n, multiplier) + n) >> shift` for n < 2^31 (Granlund and Montgomery,
/// PLDI 1994).
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Divisor {
    divisor: u32,
    multiplier: u32,
    shift: u32,
}

impl Divisor {
    pub fn new(divisor: usize) -> Self {
        let shift = divisor.next_power_of_two().trailing_zeros();
        let multiplier = ((1u64 << 32) * ((1u64 << shift) - divisor as u64) / divisor as u64 + 1) as u32;
        Self { divisor: divisor as u32, multiplier, shift }
    }
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
    Conv: 224 {
        geometry: Geometry,
        x: Ptr, y: Ptr, w: Ptr, bias: Ptr, out: Ptr, partial: Ptr,
        extent_h: u32, extent_w: u32,
        activation: u32, splits: u32, k_per_split: u32, tiles_m: u32, wide_x: u32, wide_y: u32, wide_w: u32,
        by_block_w: Divisor, by_block_h: Divisor, by_channels: Divisor, by_filters: Divisor, by_kernel_w: Divisor,
    }
}

kernel_parameters! {
    /// kernels/conv.cu
    Parts: 32 { parts: Ptr, out: Ptr, count: u64, splits: u32, unused: u32 }
}

kernel_parameters! {
    /// kernels/conv.cu
    Bias: 64 {
        y: Ptr, dy: Ptr, partial: Ptr,
        n: u32, out_h: u32, out_w: u32, out_c: u32, grid_h: u32, grid_w: u32, block_h: u32, block_w: u32,
        activation: u32, rows_per_part: u32,
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

/// How a batch of products [m, k] [k, n] is partitioned: tiles, and splits of k.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spread {
    batch: usize,
    m: usize,
    n: usize,
    pub splits: usize,
    pub k_per_split: usize,
}

impl Spread {
    pub fn new(gpu: &Gpu, batch: usize, [m, n, k]: [usize; 3]) -> Self {
        let blocks = batch * m.div_ceil(TILE_M) * n.div_ceil(TILE_N);
        let step = STEP_BYTES / gpu.precision.bytes();
        let steps = k.div_ceil(step).max(1);
        // About two blocks per multiprocessor: more splits mean more partial sums to write. Not tuned on a card.
        let wanted = (2 * gpu.driver.properties().multiprocessors as usize).div_ceil(blocks.max(1));
        let splits = wanted.min(steps / LEAST_STEPS).max(1);
        let k_per_split = steps.div_ceil(splits) * step;
        Self { batch, m, n, splits: k.div_ceil(k_per_split).max(1), k_per_split }
    }

    fn grid(&self) -> [usize; 3] {
        [self.tiles_m() * self.batch, self.n.div_ceil(TILE_N), self.splits]
    }

    fn tiles_m(&self) -> usize {
        self.m.div_ceil(TILE_M)
    }

    /// f32 partial sums of all splits.
    fn partial(&self) -> usize {
        if self.splits > 1 { (4 * self.splits * self.batch).saturating_mul(self.m.saturating_mul(self.n)) } else { 0 }
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

/// Dynamic shared memory of a product, for either layout of its operands.
pub(crate) fn shared(gpu: &Gpu, a_k_inner: bool, b_k_inner: bool) -> usize {
    let size = gpu.precision.bytes();
    let (pack, step) = (16 / size, STEP_BYTES / size);
    let tile = |rows: usize, k_inner: bool| if k_inner { rows * (step + pack) } else { step * (rows + 8) };
    STAGES * size * (tile(TILE_M, a_k_inner) + tile(TILE_N, b_k_inner))
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
    fn spread(&self, gpu: &Gpu) -> Spread {
        Spread::new(gpu, self.batch, self.size)
    }

    fn record(&self, to: &mut Recorder<'_>, partial: Ptr) {
        let [m, n, k] = self.size;
        let spread = self.spread(to.gpu);
        let pack = 16 / to.precision().bytes();
        let (lda, ldb) = (if self.form == Form::Tn { m } else { k }, if self.form == Form::Nt { k } else { n });
        let wide = |line: usize| u32::from(line.is_multiple_of(pack));
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
        let launch = Launch::new(format!("{name}_{}", to.precision().math()), spread.grid(), THREADS, &parameters);
        let launch = launch.shared(shared(to.gpu, k_inner[0], k_inner[1]));
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
        Spread::new(gpu, self.batch() * residues, size)
    }

    /// f32 partial sums that the data gradient stores.
    fn data_partial(&self, n: usize, gpu: &Gpu) -> usize {
        let splits = self.data_spread(n, gpu).splits;
        let [height, width] = self.extent();
        let parts = splits * self.banks();
        if parts > 1 { 4 * parts * n * height * width * self.input.c } else { 0 }
    }

    fn weights_spread(&self, n: usize, gpu: &Gpu) -> Spread {
        Spread::new(gpu, self.batch(), self.weights_size(n))
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
        let pack = 16 / gpu.precision.bytes();
        let channels = self.input.c / self.groups;
        let wide = |line: usize| u32::from(line.is_multiple_of(pack));
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
            tiles_m: spread.tiles_m() as u32,
            wide_x: wide(channels),
            wide_y: wide(self.group_filters()),
            wide_w: wide(self.group_filters()),
            by_block_w: Divisor::new(self.block.w),
            by_block_h: Divisor::new(self.block.h),
            by_channels: Divisor::new(channels),
            by_filters: Divisor::new(self.group_filters()),
            by_kernel_w: Divisor::new(self.kernel.w),
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
    let spread = Spread::new(gpu, f.batch(), f.forward_size(n));
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
    let spread = Spread::new(to.gpu, f.batch(), f.forward_size(n));
    let mut parameters = f.parameters_at(n, spread, to.gpu);
    parameters.x = pass.inputs[0];
    parameters.w = pass.params[0];
    parameters.bias = bias;
    parameters.out = pass.output;
    parameters.partial = pass.workspace;
    parameters.activation = inside(f.activation, spread) as u32;
    let bytes = to.precision().bytes() * (inputs + outputs + weights);
    let name = format!("conv_forward_{}", to.precision().math());
    let launch = Launch::new(name, spread.grid(), THREADS, &parameters).shared(shared(to.gpu, true, false));
    to.launch(launch.work(2 * (outputs * f.taps()) as u64, bytes as u64));
    if spread.splits > 1 {
        let bytes = outputs * (4 * spread.splits + to.precision().bytes());
        let launch = Launch::new(to.stored("conv_finish"), cover(outputs), BLOCK, &parameters);
        to.launch(launch.work((outputs * spread.splits) as u64, bytes as u64));
    }
    record_outside(to, f.activation, spread, pass.output, outputs);
}

pub fn backward_workspace(f: &Filter, n: usize, gpu: &Gpu) -> usize {
    let size = gpu.precision.bytes();
    let bias = f.bias_partial(n, gpu);
    let products = if f.plain(gpu) {
        let [m, n_filters, k] = f.forward_size(n);
        let data = Spread::new(gpu, f.batch(), [m, k, n_filters]).partial();
        let regions = if f.in_order() { 0 } else { size * n * f.output.len() };
        let partial = data.max(f.weights_spread(n, gpu).partial());
        aligned(&[f.cols(n).saturating_mul(size), regions, partial])
    } else {
        f.data_partial(n, gpu).max(f.weights_spread(n, gpu).partial())
    };
    bias.max(products)
}

pub fn record_backward(f: &Filter, pass: GpuBackward<'_>, to: &mut Recorder<'_>) {
    record_bias(f, &pass, to);
    if f.plain(to.gpu) { record_plain_backward(f, &pass, to) } else { record_implicit_backward(f, &pass, to) }
}

/// Backward through the activation, and the bias gradient.
fn record_bias(f: &Filter, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    if f.activation == Activation::None && !f.bias {
        return;
    }
    let n = pass.n;
    let [parts, rows_per_part] = f.bias_parts(n, to.gpu);
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
        activation: f.activation as u32,
        rows_per_part: rows_per_part as u32,
    };
    let outputs = n * f.output.len();
    let passes = if f.activation == Activation::None { 1 } else { 3 };
    let launch =
        Launch::new(to.stored("bias_backward"), [parts, f.banks(), f.output.c.div_ceil(32)], BLOCK, &parameters);
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

    let spread = f.weights_spread(n, to.gpu);
    let mut parameters = f.parameters_at(n, spread, to.gpu);
    (parameters.x, parameters.y) = (pass.inputs[0], pass.d_output);
    (parameters.out, parameters.partial) = (pass.d_params[0], pass.workspace);
    let name = format!("conv_backward_weights_{}", to.precision().math());
    let launch = Launch::new(name, spread.grid(), THREADS, &parameters).shared(shared(to.gpu, false, false));
    to.launch(launch.work(flops, (bytes * (inputs + outputs) + 4 * weights) as u64));
    if spread.splits > 1 {
        record_sum(to, pass.workspace, pass.d_params[0], weights, spread.splits);
    }

    let Some(d_input) = pass.d_inputs[0] else { return };
    let spread = f.data_spread(n, to.gpu);
    let mut parameters = f.parameters_at(n, spread, to.gpu);
    (parameters.y, parameters.w) = (pass.d_output, pass.params[0]);
    (parameters.out, parameters.partial) = (d_input, pass.workspace);
    let name = format!("conv_backward_data_{}", to.precision().math());
    let launch = Launch::new(name, spread.grid(), THREADS, &parameters).shared(shared(to.gpu, true, true));
    to.launch(launch.work(flops, (bytes * (inputs + outputs + weights)) as u64));
    let parts = spread.splits * f.banks();
    if parts > 1 {
        let touched = f.data_partial(n, to.gpu) + inputs * bytes;
        let launch = Launch::new(to.stored("conv_gather"), cover(inputs), BLOCK, &parameters);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_divide() {
        for divisor in (1..300).chain([511, 512, 513, 3_456, 65_535, 1 << 20]) {
            let d = Divisor::new(divisor);
            for n in (0..2_000).chain([1 << 20, (1 << 31) - 1, (1 << 31) - divisor as u64]) {
                let high = (n * u64::from(d.multiplier)) >> 32;
                assert_eq!((high + n) >> d.shift, n / divisor as u64, "{n} / {divisor}");
            }
        }
    }
}

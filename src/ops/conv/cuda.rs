//! Filters on a GPU: kernels/conv.cu (windows gathered while they are loaded) or, with `--conv im2col`, kernels/im2col.cu and
//! plain products; kernels/gemm.cu where a pixel's window is the pixel itself (linear layers, 1x1 convolutions); kernels/few.cu for
//! photos in 16 bits.

mod few;
mod gemm;
mod spread;
mod unfold;

pub(crate) use few::Pooled;
pub(crate) use spread::{Spread, THREADS, candidates, inside, key, record_outside, whole};

use super::Filter;
use crate::device::{Convolution, Gpu, Launch, ProductKey, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops;
use crate::ops::activation::Activation;
use crate::ops::gpu::{self, BLOCK, Divisor, GpuBackward, GpuForward, cover};
use gemm::{Form, Product};
use unfold::Unfolded;

/// How many of `count` numbers have the same remainder modulo `stride`: the most, and the fewest.
fn residues(count: usize, stride: usize) -> [Divisor; 2] {
    [count.div_ceil(stride), count / stride].map(|n| Divisor::new(n.max(1)))
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
        activation: u32, splits: u32, k_per_split: u32, run: u32, wide_x: u32, wide_y: u32, wide_w: u32,
        by_block_w: Divisor, by_block_h: Divisor, by_channels: Divisor, by_filters: Divisor, by_kernel_w: Divisor,
        by_rows: [Divisor; 2], by_columns: [Divisor; 2], by_taps_x: [Divisor; 2],
        by_tiles_m: Divisor, by_groups: Divisor, by_grid_w: Divisor, by_stride_w: Divisor, by_stride_h: Divisor,
        unused: u32,
    }
}

kernel_parameters! {
    /// kernels/conv.cu
    Parts: 32 { parts: Ptr, out: Ptr, count: u64, splits: u32, width: u32 }
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
    /// kernels/im2col.cu
    Im2col: 112 {
        geometry: Geometry,
        from: Ptr, bias: Ptr, to: Ptr,
        activation: u32, unused: u32,
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

    /// What is gathered for a product over `n` samples.
    fn describe(&self, n: usize) -> String {
        let Self { input, output, kernel, stride, pad, groups, grid, cell, block, .. } = self;
        let mut text = format!("{n} x {input} to {output}, kernel {kernel}, stride {stride}, pad {pad}");
        if *groups > 1 {
            text += &format!(", {groups} groups");
        }
        if self.banks() > 1 {
            text += &format!(", {grid} regions of {block} pixels, {cell} apart");
        }
        text
    }

    /// The product of the data gradient: the largest of the stride's residues, as successive products of the batch.
    fn data_product(&self, n: usize, gpu: &Gpu) -> ProductKey {
        let [height, width] = self.extent();
        let pixels = n * height.div_ceil(self.stride.h) * width.div_ceil(self.stride.w);
        let taps = self.kernel.h.div_ceil(self.stride.h) * self.kernel.w.div_ceil(self.stride.w);
        let residues = self.stride.h * self.stride.w;
        let size = [pixels, self.input.c / self.groups, taps * self.group_filters()];
        let (batch, wide) = (self.batch() * residues, whole(gpu, &[self.group_filters()]));
        key(gpu, "conv_backward_data", self.describe(n), batch, size, wide)
    }

    /// Whether the runs of X and W, or of X and dY, are whole packs: lines of windows where these are written out.
    fn is_whole(&self, gpu: &Gpu) -> bool {
        let run = if self.plain(gpu) { self.taps() } else { self.input.c / self.groups };
        whole(gpu, &[run, self.group_filters()])
    }

    /// The products of windows that are gathered.
    fn forward_product(&self, n: usize, gpu: &Gpu) -> ProductKey {
        key(gpu, "conv_forward", self.describe(n), self.batch(), self.forward_size(n), self.is_whole(gpu))
    }

    fn weights_product(&self, n: usize, gpu: &Gpu) -> ProductKey {
        key(gpu, "conv_backward_weights", self.describe(n), self.batch(), self.weights_size(n), self.is_whole(gpu))
    }

    /// The same where windows are written out, or are pixels.
    fn plain_products(&self, n: usize, gpu: &Gpu) -> [ProductKey; 3] {
        let [m, filters, k] = self.forward_size(n);
        let sizes = [(Form::Nn, [m, filters, k]), (Form::Nt, [m, k, filters]), (Form::Tn, self.weights_size(n))];
        sizes.map(|(form, size)| form.key(gpu, self.batch(), size))
    }

    /// f32 partial sums that the data gradient stores.
    fn data_partial(&self, n: usize, gpu: &Gpu) -> usize {
        let splits = Spread::new(gpu, &self.data_product(n, gpu)).splits;
        let [height, width] = self.extent();
        let parts = splits * self.banks();
        if parts > 1 { 4 * parts * n * height * width * self.input.c } else { 0 }
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
            run: channels as u32,
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
            unused: 0,
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
    if few::serves(f, n, gpu) {
        return 0;
    }
    let partial = |product: &ProductKey| Spread::new(gpu, product).partial();
    if f.plain(gpu) {
        let [product, ..] = f.plain_products(n, gpu);
        let regions = if f.in_order() { 0 } else { 4 * n * f.output.len() };
        return aligned(&[f.cols(n).saturating_mul(gpu.precision.bytes()), regions, partial(&product)]);
    }
    match Unfolded::new(f, n, gpu) {
        Some(unfolded) => {
            let partial = partial(&unfolded.filter.forward_product(n, gpu));
            aligned(&[unfolded.windows(n, gpu), unfolded.filters(gpu), partial])
        }
        None => partial(&f.forward_product(n, gpu)),
    }
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
    if few::serves(f, n, to.gpu) {
        few::record_forward(f, n, [pass.inputs[0], pass.params[0], bias, pass.output], to);
        if f.activation == Activation::Sigmoid {
            gpu::activation_forward(to, f.activation, pass.output, pass.output, outputs);
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
    let product = f.forward_product(n, to.gpu);
    let spread = Spread::new(to.gpu, &product);
    let mut parameters = f.parameters_at(n, spread, to.gpu);
    (parameters.x, parameters.w, parameters.bias) = (x, w, bias);
    (parameters.out, parameters.partial) = (pass.output, scratch.take(0));
    parameters.activation = inside(f.activation, spread) as u32;
    let bytes = to.precision().bytes() * (inputs + outputs + weights);
    let name = spread.kernel("conv_forward", product.wide, to.gpu);
    let launch = Launch::new(name, spread.grid(), THREADS, &parameters).of(product, spread.as_cut());
    let launch = launch.shared(spread.shared(to.gpu, true, false));
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
    let partial = |product: &ProductKey| Spread::new(gpu, product).partial();
    let products = if f.plain(gpu) {
        let [_, data, weights] = f.plain_products(n, gpu);
        let regions = if f.in_order() { 0 } else { size * n * f.output.len() };
        aligned(&[f.cols(n).saturating_mul(size), regions, partial(&data).max(partial(&weights))])
    } else {
        let weights = match Unfolded::new(f, n, gpu) {
            _ if few::serves(f, n, gpu) => few::weights_partial(f, n, gpu),
            Some(unfolded) => aligned(&[unfolded.windows(n, gpu), partial(&unfolded.filter.weights_product(n, gpu))]),
            None => partial(&f.weights_product(n, gpu)),
        };
        f.data_partial(n, gpu).max(weights)
    };
    bias.max(products)
}

pub fn record_backward(f: &Filter, pass: GpuBackward<'_>, to: &mut Recorder<'_>) {
    if few::serves(f, pass.n, to.gpu) {
        record_few_backward(f, &pass, to);
        return;
    }
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

/// `out[count]` = sum of `splits` parts. A thread adds about eight of them: many parts are added by several threads, since one that
/// walks over 200 waits for memory as often.
fn record_sum(to: &mut Recorder<'_>, parts: Ptr, out: Ptr, count: usize, splits: usize) {
    let width = BLOCK / (splits / 8).next_power_of_two().clamp(1, 32);
    let parameters = Parts { parts, out, count: count as u64, splits: splits as u32, width: width as u32 };
    let launch = Launch::new("sum_parts_f32", [count.div_ceil(width), 1, 1], BLOCK, &parameters);
    to.launch(launch.work((count * splits) as u64, (4 * count * (splits + 1)) as u64));
}

fn record_few_backward(f: &Filter, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let is_rectified = pass.is_rectified || f.activation == Activation::None;
    let brings_bias = is_rectified && few::sums_bias(f);
    if !brings_bias {
        record_bias(f, pass, to);
    }
    let d_bias = brings_bias.then(|| pass.d_params[1]);
    let from = [pass.inputs[0], pass.d_output, pass.d_params[0]];
    few::record_backward_weights(f, pass.n, from, d_bias, pass.workspace, to);
    record_backward_data(f, pass, to);
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
    let product = over.weights_product(n, to.gpu);
    let spread = Spread::new(to.gpu, &product);
    let mut parameters = over.parameters_at(n, spread, to.gpu);
    if let Some(unfolded) = &unfolded {
        parameters.run = unfolded.run as u32;
    }
    (parameters.x, parameters.y) = (x, pass.d_output);
    (parameters.out, parameters.partial) = (pass.d_params[0], scratch.take(0));
    let partial = parameters.partial;
    let name = spread.kernel("conv_backward_weights", product.wide, to.gpu);
    let launch = Launch::new(name, spread.grid(), THREADS, &parameters).of(product, spread.as_cut());
    let launch = launch.shared(spread.shared(to.gpu, false, false));
    to.launch(launch.work(flops, (bytes * (inputs + outputs) + 4 * weights) as u64));
    if spread.splits > 1 {
        record_sum(to, partial, pass.d_params[0], weights, spread.splits);
    }
    record_backward_data(f, pass, to);
}

fn record_backward_data(f: &Filter, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let Some(d_input) = pass.d_inputs[0] else { return };
    let n = pass.n;
    let [inputs, outputs, weights] = f.values(n);
    let bytes = to.precision().bytes();
    let flops = 2 * (outputs * f.taps()) as u64;
    let product = f.data_product(n, to.gpu);
    let spread = Spread::new(to.gpu, &product);
    let mut parameters = f.parameters_at(n, spread, to.gpu);
    (parameters.y, parameters.w) = (pass.d_output, pass.params[0]);
    (parameters.out, parameters.partial) = (d_input, pass.workspace);
    let name = spread.kernel("conv_backward_data", product.wide, to.gpu);
    let launch = Launch::new(name, spread.grid(), THREADS, &parameters).of(product, spread.as_cut());
    let launch = launch.shared(spread.shared(to.gpu, true, true));
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

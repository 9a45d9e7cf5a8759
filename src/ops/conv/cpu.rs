//! The backward pass of filters on the CPU. As in the forward pass ([`super::forward`]), windows are read where they stand.
//!
//! data gradient: at stride 1 a forward pass over the gradients of the output with mirrored filters. Otherwise, and for several
//! banks, a thread owns whole samples; `dX[rows, taps] = dY[rows, o] W^T`, scattered back into the map.
//! weight gradient: a thread owns a range of taps and sums over all pixels of the batch, `dW[taps, o] += X^T dY`, so no two
//! threads write the same value and the order of the sums does not depend on the number of threads.

use super::Filter;
use super::forward::{self, Layout, padded, padded_len, runs};
use crate::ops::activation::Activation;
use crate::ops::parallel::{self, Disjoint, part, threads};
use crate::ops::product::{MOST_WINDOWS, Matrix, Strip, Strips, product, product_into};
use crate::ops::simd::{add, dispatch};
use crate::ops::{Backward, Forward, Mode, Pair, Targets};
use smallvec::SmallVec;
use std::ops::Range;

/// Values in a gathered tile: half of a 512 KB L2 cache.
const TILE: usize = 64 * 1024;
/// Largest number of taps for which a whole window is gathered...
const WHOLE: usize = 1024;
/// ...and the taps per product where it is gathered in parts. Whole windows of LNet's 2,304 to 3,456 taps would leave only
/// 32 rows per tile, and each product packs all filters anew: in parts, LNet trains at 19.4 photos/s instead of 14.6.
const PART: usize = 256;
/// Rows of a tile: enough to amortise reading the filter bank, few enough to balance the load of the threads.
const ROWS: Range<usize> = 32..512;

/// Values of a weight gradient that are summed over the batch at a time: half a megabyte.
const GRADIENTS: usize = 128 * 1024;

/// Taps gathered at a time.
fn part_taps(f: &Filter) -> usize {
    if f.is_pointwise() || f.taps() <= WHOLE { f.taps() } else { PART }
}

fn tile_rows(f: &Filter) -> usize {
    (TILE / part_taps(f)).clamp(ROWS.start, ROWS.end)
}

/// Output pixels of one region over `n` samples.
fn region_rows(f: &Filter, n: usize) -> usize {
    n * f.block.h * f.block.w
}

/// Rows of the tiles of a pass over `n` samples.
fn rows_of_tile(f: &Filter, n: usize) -> usize {
    tile_rows(f).min(region_rows(f, n))
}

pub fn backward_workspace(f: &Filter, n: usize) -> usize {
    let gathered = if f.is_pointwise() { 0 } else { part_taps(f) };
    let scattered = if f.banks() > 1 { f.output.c } else { 0 };
    let products = threads() * rows_of_tile(f, n) * (gathered + scattered);
    let mirrored = mirrored(f).map_or(0, |mirrored| f.taps() * f.output.c + forward::workspace(&mirrored, n));
    products.max(bias_parts(f) * f.banks() * f.output.c).max(padded_len(f, n)).max(mirrored)
}

/// Parts of the batch's pixels whose bias gradients are summed separately: a function of the filter alone, so that another
/// number of threads does not change the order of the sum. Fewer where there are many biases.
fn bias_parts(f: &Filter) -> usize {
    (64 * 1024 / (f.banks() * f.output.c)).clamp(16, 64)
}

/// The output pixels of one region in the order (sample, u, v).
#[derive(Clone, Copy)]
struct Region<'a> {
    f: &'a Filter,
    a: usize,
    b: usize,
}

impl<'a> Region<'a> {
    fn new(f: &'a Filter, bank: usize) -> Self {
        Self { f, a: bank / f.grid.w, b: bank % f.grid.w }
    }

    /// Calls `visit(row, sample, u, v)` for each of `rows`; `row` counts from 0.
    fn pixels(&self, rows: Range<usize>, mut visit: impl FnMut(usize, usize, usize, usize)) {
        let block = self.f.block;
        let (mut sample, rest) = (rows.start / (block.h * block.w), rows.start % (block.h * block.w));
        let (mut u, mut v) = (rest / block.w, rest % block.w);
        for row in 0..rows.len() {
            visit(row, sample, u, v);
            v += 1;
            if v == block.w {
                (u, v) = (u + 1, 0);
                if u == block.h {
                    (sample, u) = (sample + 1, 0);
                }
            }
        }
    }

    /// Index of an output pixel's first channel.
    fn place(&self, sample: usize, u: usize, v: usize) -> usize {
        let (f, y, x) = (self.f, self.a * self.f.block.h + u, self.b * self.f.block.w + v);
        ((sample * f.output.h + y) * f.output.w + x) * f.output.c
    }

    /// Calls `run(taps, Some(index) | None)` for each run of taps that is contiguous in memory: the index of its first
    /// value in the input, or `None` in the padding.
    #[inline]
    fn runs(&self, sample: usize, u: usize, v: usize, group: usize, mut run: impl FnMut(Range<usize>, Option<usize>)) {
        let f = self.f;
        let channels = f.input.c / f.groups;
        let top = (self.a * f.cell.h + u * f.stride.h) as isize - f.pad.h as isize;
        let left = (self.b * f.cell.w + v * f.stride.w) as isize - f.pad.w as isize;
        let row_taps = f.kernel.w * channels;
        // Columns of the window inside the input.
        let first = (-left).clamp(0, f.kernel.w as isize) as usize;
        let end = (f.input.w as isize - left).clamp(first as isize, f.kernel.w as isize) as usize;
        for i in 0..f.kernel.h {
            let (y, tap) = (top + i as isize, i * row_taps);
            if y < 0 || y >= f.input.h as isize || first == end {
                run(tap..tap + row_taps, None);
                continue;
            }
            let pixel = |j: usize| {
                let x = (left + j as isize) as usize;
                ((sample * f.input.h + y as usize) * f.input.w + x) * f.input.c + group * channels
            };
            if first > 0 {
                run(tap..tap + first * channels, None);
            }
            if f.groups == 1 {
                run(tap + first * channels..tap + end * channels, Some(pixel(first)));
            } else {
                for j in first..end {
                    run(tap + j * channels..tap + (j + 1) * channels, Some(pixel(j)));
                }
            }
            if end < f.kernel.w {
                run(tap + end * channels..tap + row_taps, None);
            }
        }
    }

    /// Adds `tile[rows, taps]` back to where these windows' taps are in the map; `first` is the first sample in `map`.
    fn scatter(
        &self,
        tile: &[f32],
        rows: Range<usize>,
        group: usize,
        taps: Range<usize>,
        first: usize,
        map: &mut [f32],
    ) {
        let width = taps.len();
        let whole = width == self.f.taps();
        self.pixels(rows, |row, sample, u, v| {
            let tile = &tile[row * width..(row + 1) * width];
            self.runs(sample - first, u, v, group, |run, to| {
                let (start, end) =
                    if whole { (run.start, run.end) } else { (run.start.max(taps.start), run.end.min(taps.end)) };
                if let Some(to) = to.filter(|_| start < end) {
                    let to = &mut map[to + start - run.start..to + end - run.start];
                    add(to, &tile[start - taps.start..]);
                }
            });
        });
    }

    /// The gradient of `rows` as a matrix: in place where the rows are contiguous, otherwise copied into `tile`.
    fn gradient<'m>(&self, d_output: &'m [f32], rows: Range<usize>, tile: &'m mut [f32]) -> Matrix<'m> {
        let c = self.f.output.c;
        if self.f.banks() == 1 {
            return Matrix::rows(&d_output[rows.start * c..rows.end * c], c);
        }
        self.pixels(rows, |row, sample, u, v| {
            let place = self.place(sample, u, v);
            tile[row * c..(row + 1) * c].copy_from_slice(&d_output[place..place + c]);
        });
        Matrix::rows(tile, c)
    }

    /// Weights `[taps, filters]` of one group, within the slice of all weights.
    fn weights(&self, group: usize) -> Range<usize> {
        let f = self.f;
        let size = f.taps() * f.group_filters();
        let index = (self.a * f.grid.w + self.b) * f.groups + group;
        index * size..(index + 1) * size
    }
}

/// Tiles of `step` rows over `0..rows`.
fn tiles(rows: Range<usize>, step: usize) -> impl Iterator<Item = Range<usize>> {
    rows.clone().step_by(step).map(move |start| start..(start + step).min(rows.end))
}

pub fn backward(f: &Filter, pass: Backward<'_, '_>) {
    let (mut weight_gradient, mut bias_backward) = (None, None);
    for (index, gradient) in pass.d_params.iter_mut().enumerate() {
        if index == 0 { weight_gradient = Some(&mut **gradient) } else { bias_backward = Some(&mut **gradient) }
    }
    finish_gradient(f, pass.n, pass.output, pass.d_output, bias_backward, pass.workspace);
    if let Some(d_weights) = weight_gradient {
        backward_weights(f, pass.n, pass.inputs[0], pass.d_output, d_weights, pass.workspace);
    }
    if let Some(d_input) = &mut pass.d_inputs[0] {
        backward_data(f, pass.n, pass.d_output, pass.params[0], d_input, pass.workspace);
    }
}

/// Backpropagates the gradient through the activation, in place, and sums it per bank and channel: the bias gradient.
fn finish_gradient(
    f: &Filter,
    n: usize,
    output: &[f32],
    d_output: &mut [f32],
    d_bias: Option<&mut [f32]>,
    workspace: &mut [f32],
) {
    if f.activation == Activation::None && d_bias.is_none() {
        return;
    }
    let (c, area) = (f.output.c, f.output.area());
    let size = f.banks() * c;
    let parts = bias_parts(f);
    let d_output = Disjoint::new(d_output);
    let partial = Disjoint::new(&mut workspace[..parts * size]);
    parallel::tasks(parts, &mut [], |index, _| {
        let pixels = part(n * area, parts, index);
        // SAFETY: each part has its own sums and its own pixels.
        let sums = unsafe { partial.slice(index * size..(index + 1) * size) };
        // SAFETY: as above.
        let gradient = unsafe { d_output.slice(pixels.start * c..pixels.end * c) };
        if f.activation != Activation::None {
            f.activation.apply_backward(&output[pixels.start * c..pixels.end * c], gradient);
        }
        sums.fill(0.0);
        dispatch!({
            for (pixel, gradient) in pixels.zip(gradient.chunks_exact(c)) {
                let bank = if f.banks() == 1 {
                    0
                } else {
                    let (y, x) = (pixel % area / f.output.w, pixel % f.output.w);
                    y / f.block.h * f.grid.w + x / f.block.w
                };
                sums[bank * c..(bank + 1) * c].iter_mut().zip(gradient).for_each(|(s, g)| *s += g);
            }
        });
    });
    if let Some(d_bias) = d_bias {
        d_bias.fill(0.0);
        for sums in workspace[..parts * size].chunks_exact(size) {
            add(d_bias, sums);
        }
    }
}

fn backward_weights(
    f: &Filter,
    n: usize,
    input: &[f32],
    d_output: &[f32],
    d_weights: &mut [f32],
    workspace: &mut [f32],
) {
    let (taps, filters) = (f.taps(), f.group_filters());
    let input = padded(f, n, input, &mut workspace[..padded_len(f, n)]);
    let layout = Layout::new(f, n);
    let windows = Strips::new(input, taps, runs(f), layout.steps());
    // A thread's taps are whole vectors, so that no two threads write to the same cache line.
    let parts = threads().min(taps.div_ceil(16));
    let d_weights = Disjoint::new(d_weights);
    parallel::tasks(parts, &mut [], |index, _| {
        let own = part(taps, parts, index);
        let places = (0..f.banks()).flat_map(|bank| (0..f.groups).map(move |group| (bank, group)));
        // As many taps at a time as have gradients that stay in a thread's own cache over the whole batch.
        let blocks =
            places.flat_map(|place| tiles(own.clone(), (GRADIENTS / filters).max(16)).map(move |own| (place, own)));
        for ((bank, group), own) in blocks {
            let weights = Region::new(f, bank).weights(group).start;
            // SAFETY: a thread owns its taps of every bank and group.
            let to = unsafe { d_weights.slice(weights + own.start * filters..weights + own.end * filters) };
            let channels = group * (f.input.c / f.groups);
            let mut add = false;
            let mut sum = |strips: &[Strip]| {
                windows.multiply_transposed(strips, channels, own.clone(), d_output, filters, to, add);
                add = true;
            };
            // Strips of as many windows in all as one product takes.
            let (mut strips, mut count) = (SmallVec::<[Strip; 64]>::new(), 0);
            for index in 0..layout.strips {
                let mut strip = layout.strip(f, n, bank, index);
                strip.to += group * filters;
                while strip.len > 0 {
                    let len = strip.len.min(MOST_WINDOWS - count);
                    strips.push(Strip { len, ..strip });
                    let [from, to] = layout.steps().map(|step| step * len);
                    strip = Strip { from: strip.from + from, to: strip.to + to, len: strip.len - len, ..strip };
                    count += len;
                    if count == MOST_WINDOWS {
                        sum(&strips);
                        strips.clear();
                        count = 0;
                    }
                }
            }
            if !strips.is_empty() {
                sum(&strips);
            }
        }
    });
}

/// The forward pass that computes the data gradient of a filter of stride 1 with one bank: the gradients of the output, padded so
/// that every pixel of the input has all the windows that read it, under the mirrored filters with inputs and outputs exchanged.
fn mirrored(f: &Filter) -> Option<Filter> {
    let one = Pair::both(1);
    let pad = |kernel: usize, pad: usize| (kernel - 1).checked_sub(pad);
    let (Some(h), Some(w)) = (pad(f.kernel.h, f.pad.h), pad(f.kernel.w, f.pad.w)) else { return None };
    if f.is_pointwise() || f.stride != one || f.banks() > 1 || f.groups > 1 {
        return None;
    }
    let block = Pair { h: f.input.h, w: f.input.w };
    let (input, output, pad) = (f.output, f.input, Pair { h, w });
    Some(Filter { input, output, pad, block, bias: false, activation: Activation::None, ..f.clone() })
}

/// Weights of the [`mirrored`] filter, `[kh][kw][o][c]`.
fn mirror(f: &Filter, weights: &[f32], to: &mut [f32]) {
    let (c, o) = (f.input.c, f.output.c);
    let places = f.kernel.h * f.kernel.w;
    let to = Disjoint::new(to);
    parallel::tasks(places, &mut [], |place, _| {
        let from = &weights[place * c * o..(place + 1) * c * o];
        let at = (places - 1 - place) * c * o;
        // SAFETY: a task owns its place.
        transpose(from, c, o, unsafe { to.slice(at..at + c * o) });
    });
}

/// `[rows, columns]` to `[columns, rows]`, in blocks that stay in L1.
fn transpose(from: &[f32], rows: usize, columns: usize, to: &mut [f32]) {
    const BLOCK: usize = 16;
    for row in (0..rows).step_by(BLOCK) {
        for column in (0..columns).step_by(BLOCK) {
            for i in row..(row + BLOCK).min(rows) {
                for j in column..(column + BLOCK).min(columns) {
                    to[j * rows + i] = from[i * columns + j];
                }
            }
        }
    }
}

fn backward_data(f: &Filter, n: usize, d_output: &[f32], weights: &[f32], d_input: &mut [f32], workspace: &mut [f32]) {
    let (taps, filters) = (f.taps(), f.group_filters());
    if let Some(mirrored) = mirrored(f) {
        let (mirrored_weights, workspace) = workspace.split_at_mut(weights.len());
        mirror(f, weights, mirrored_weights);
        return forward::forward(
            &mirrored,
            Forward {
                n,
                mode: Mode::Inference,
                stream: 0,
                inputs: &[d_output],
                params: &[mirrored_weights],
                prepared: &[],
                targets: Targets::default(),
                output: d_input,
                workspace,
            },
        );
    }
    let per_sample = f.block.h * f.block.w;
    let d_input = Disjoint::new(d_input);
    if f.is_pointwise() {
        // Rows of the result are rows of the input: any tiling works.
        let rows = region_rows(f, n);
        let step = rows.div_ceil(4 * threads()).clamp(1, ROWS.end);
        let row_tiles = rows.div_ceil(step);
        // Few rows (one photo through a linear layer): the threads split the taps.
        let wanted = (4 * threads()).div_ceil(row_tiles).min(taps.div_ceil(64));
        let columns = taps.div_ceil(wanted).next_multiple_of(16);
        let column_tiles = taps.div_ceil(columns);
        parallel::tasks(row_tiles * column_tiles, &mut [], |task, _| {
            let start = task / column_tiles * step;
            let tile = start..(start + step).min(rows);
            let start = task % column_tiles * columns;
            let own = start..(start + columns).min(taps);
            let dy = Matrix::rows(&d_output[tile.start * filters..tile.end * filters], filters);
            let weights = Matrix::rows(&weights[own.start * filters..own.end * filters], filters).transposed();
            let to = d_input.pointer(tile.start * taps + own.start, (tile.len() - 1) * taps + own.len());
            // SAFETY: a task owns its taps of its rows, which `pointer` places inside the gradient.
            unsafe { product_into([tile.len(), own.len(), filters], dy, weights, to, taps, false) };
        });
        return;
    }
    let step = rows_of_tile(f, n);
    let parts = threads().min(n);
    parallel::tasks(parts, workspace, |index, scratch| {
        let samples = part(n, parts, index);
        let size = f.input.len();
        // SAFETY: a thread owns its samples.
        let map = unsafe { d_input.slice(samples.start * size..samples.end * size) };
        map.fill(0.0);
        let first = samples.start;
        let part_taps = part_taps(f);
        let (tile_gradients, gradients) = scratch.split_at_mut(step * part_taps);
        // A pixel gets its gradients in the order of the rows. Windows that are gathered in parts would add in an order that
        // depends on where a tile ends, so there tiles end with their sample, wherever a thread's samples begin.
        let together = if part_taps < taps { 1 } else { samples.len() };
        for (bank, samples) in (0..f.banks()).flat_map(|bank| tiles(samples.clone(), together).map(move |s| (bank, s)))
        {
            let region = Region::new(f, bank);
            for tile in tiles(samples.start * per_sample..samples.end * per_sample, step) {
                let dy = region.gradient(d_output, tile.clone(), gradients);
                for group in 0..f.groups {
                    let dy = Matrix { values: &dy.values[group * filters..], ..dy };
                    for part in tiles(0..taps, part_taps) {
                        let bank_weights = &weights[region.weights(group)][part.start * filters..part.end * filters];
                        let bank_weights = Matrix::rows(bank_weights, filters).transposed();
                        product([tile.len(), part.len(), filters], dy, bank_weights, tile_gradients, part.len(), false);
                        region.scatter(tile_gradients, tile.clone(), group, part, first, map);
                    }
                }
            }
        }
    });
}

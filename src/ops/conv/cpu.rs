//! Filters on the CPU: windows are gathered (im2col) into a tile of rows that stays in cache, and each tile is one
//! matrix product. The full im2col matrix is never materialised.
//!
//! forward: a task is a tile of output pixels of one region; `Y[rows, o] = X[rows, taps] W[taps, o]`.
//! data gradient: a thread owns whole samples; `dX[rows, taps] = dY[rows, o] W^T`, scattered back into the map.
//! weight gradient: a thread owns a range of taps and sums over all pixels of the batch, `dW[taps, o] += X^T dY`, so no two
//! threads write the same value and the order of the sums does not depend on the number of threads.

use super::Filter;
use crate::ops::activation::Activation;
use crate::ops::parallel::{self, Disjoint, part, threads};
use crate::ops::product::{Matrix, product, product_into};
use crate::ops::simd::{add, dispatch};
use crate::ops::{Backward, Forward};
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
/// Minimum number of columns for which splitting the filters of a tile between threads pays off.
const COLUMNS: usize = 64;

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

pub fn forward_workspace(f: &Filter, n: usize) -> usize {
    let gathered = if f.is_pointwise() { 0 } else { part_taps(f) };
    let scattered = if f.banks() > 1 { f.output.c } else { 0 };
    threads() * rows_of_tile(f, n) * (gathered + scattered)
}

pub fn backward_workspace(f: &Filter, n: usize) -> usize {
    let gathered = if f.is_pointwise() { 0 } else { part_taps(f) };
    let scattered = if f.banks() > 1 { f.output.c } else { 0 };
    let products = threads() * rows_of_tile(f, n) * (gathered + scattered);
    products.max(threads() * f.banks() * f.output.c)
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

    /// Gathers the taps `taps` of `rows` into `tile[rows, taps]`.
    fn gather(&self, input: &[f32], rows: Range<usize>, group: usize, taps: Range<usize>, tile: &mut [f32]) {
        let width = taps.len();
        let whole = width == self.f.taps();
        self.pixels(rows, |row, sample, u, v| {
            let tile = &mut tile[row * width..(row + 1) * width];
            self.runs(sample, u, v, group, |run, from| {
                // The part of the run that falls within `taps`.
                let (start, end) =
                    if whole { (run.start, run.end) } else { (run.start.max(taps.start), run.end.min(taps.end)) };
                if start < end {
                    let to = &mut tile[start - taps.start..end - taps.start];
                    match from {
                        Some(from) => to.copy_from_slice(&input[from + start - run.start..from + end - run.start]),
                        None => to.fill(0.0),
                    }
                }
            });
        });
    }

    /// Adds `tile[rows, taps]` back to where [`Region::gather`] reads; `first` is the first sample in `map`.
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

pub fn forward(f: &Filter, pass: Forward<'_>) {
    let (input, weights) = (pass.inputs[0], pass.params[0]);
    let bias = pass.params.get(1).copied();
    let (c, taps, filters) = (f.output.c, f.taps(), f.group_filters());
    let (rows, step) = (region_rows(f, pass.n), rows_of_tile(f, pass.n));
    let row_tiles = rows.div_ceil(step);
    // Few tiles (one photo through a linear layer): the threads split the filters instead.
    let wanted = (4 * threads()).div_ceil(row_tiles * f.banks()).min(filters.div_ceil(COLUMNS)).max(1);
    let columns = filters.div_ceil(wanted).next_multiple_of(16).min(filters);
    let column_tiles = filters.div_ceil(columns);
    let output = Disjoint::new(pass.output);
    let in_place = f.banks() == 1;
    let tasks = f.banks() * row_tiles * column_tiles;

    parallel::tasks(tasks, pass.workspace, |task, scratch| {
        let bank = task / (row_tiles * column_tiles);
        let region = Region::new(f, bank);
        let start = task / column_tiles % row_tiles * step;
        let tile_rows = start..(start + step).min(rows);
        let start = task % column_tiles * columns;
        let columns = start..(start + columns).min(filters);
        let (gathered, sums) = scratch.split_at_mut(if f.is_pointwise() { 0 } else { step * part_taps(f) });
        for group in 0..f.groups {
            let first = group * filters + columns.start;
            let start = tile_rows.start * c + first;
            for part in tiles(0..taps, part_taps(f)) {
                let windows = if f.is_pointwise() {
                    Matrix::rows(&input[tile_rows.start * taps..tile_rows.end * taps], taps)
                } else {
                    region.gather(input, tile_rows.clone(), group, part.clone(), gathered);
                    Matrix::rows(gathered, part.len())
                };
                let bank_weights = &weights[region.weights(group)][part.start * filters + columns.start..];
                let bank_weights = Matrix::rows(bank_weights, filters);
                let (size, add) = ([tile_rows.len(), columns.len(), part.len()], part.start > 0);
                if in_place {
                    // SAFETY: a task writes its own columns of its own rows, which `pointer` places inside the output.
                    unsafe {
                        let to = output.pointer(start, (tile_rows.len() - 1) * c + columns.len());
                        product_into(size, windows, bank_weights, to, c, add);
                    }
                } else {
                    product(size, windows, bank_weights, sums, columns.len(), add);
                }
            }
            let bias = bias.map(|bias| &bias[bank * c + first..bank * c + first + columns.len()]);
            if in_place {
                let whole = columns.len() == c;
                let (count, len) = if whole { (1, tile_rows.len() * c) } else { (tile_rows.len(), columns.len()) };
                for row in 0..count {
                    let at = start + row * c;
                    // SAFETY: the same columns of one row, or of all rows if the task owns all columns.
                    f.activation.apply_biased(unsafe { output.slice(at..at + len) }, bias);
                }
            } else {
                f.activation.apply_biased(&mut sums[..tile_rows.len() * columns.len()], bias);
                region.pixels(tile_rows.clone(), |row, sample, u, v| {
                    let place = region.place(sample, u, v) + first;
                    // SAFETY: a task owns its columns of its region's pixels.
                    let to = unsafe { output.slice(place..place + columns.len()) };
                    to.copy_from_slice(&sums[row * columns.len()..(row + 1) * columns.len()]);
                });
            }
        }
    });
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
    let parts = threads();
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
    let (rows, step) = (region_rows(f, n), rows_of_tile(f, n));
    let (taps, filters) = (f.taps(), f.group_filters());
    // A thread's taps are whole vectors, so that no two threads write to the same cache line.
    let parts = threads().min(taps.div_ceil(16));
    let d_weights = Disjoint::new(d_weights);
    parallel::tasks(parts, workspace, |index, scratch| {
        let own = part(taps, parts, index);
        let part_taps = part_taps(f).min(own.len());
        let (gathered, gradients) = scratch.split_at_mut(if f.is_pointwise() { 0 } else { step * part_taps });
        for bank in 0..f.banks() {
            let region = Region::new(f, bank);
            for part in tiles(own.clone(), part_taps) {
                for (number, tile) in tiles(0..rows, step).enumerate() {
                    let dy = region.gradient(d_output, tile.clone(), gradients);
                    for group in 0..f.groups {
                        let windows = if f.is_pointwise() {
                            Matrix::rows(&input[tile.start * taps + part.start..tile.end * taps], taps)
                        } else {
                            region.gather(input, tile.clone(), group, part.clone(), gathered);
                            Matrix::rows(gathered, part.len())
                        };
                        let weights = region.weights(group).start;
                        let range = weights + part.start * filters..weights + part.end * filters;
                        // SAFETY: a thread owns its taps of every bank and group.
                        let to = unsafe { d_weights.slice(range) };
                        let dy = Matrix { values: &dy.values[group * filters..], ..dy };
                        product([part.len(), filters, tile.len()], windows.transposed(), dy, to, filters, number > 0);
                    }
                }
            }
        }
    });
}

fn backward_data(f: &Filter, n: usize, d_output: &[f32], weights: &[f32], d_input: &mut [f32], workspace: &mut [f32]) {
    let (taps, filters) = (f.taps(), f.group_filters());
    let per_sample = f.block.h * f.block.w;
    let d_input = Disjoint::new(d_input);
    if f.is_pointwise() {
        // Rows of the result are rows of the input: any tiling works.
        let rows = region_rows(f, n);
        let step = rows.div_ceil(4 * threads()).clamp(1, ROWS.end);
        parallel::tasks(rows.div_ceil(step), &mut [], |task, _| {
            let tile = task * step..(task * step + step).min(rows);
            let dy = Matrix::rows(&d_output[tile.start * filters..tile.end * filters], filters);
            // SAFETY: a task owns its rows.
            let to = unsafe { d_input.slice(tile.start * taps..tile.end * taps) };
            product([tile.len(), taps, filters], dy, Matrix::rows(weights, filters).transposed(), to, taps, false);
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
        let part_taps = part_taps(f);
        let (tile_gradients, gradients) = scratch.split_at_mut(step * part_taps);
        for bank in 0..f.banks() {
            let region = Region::new(f, bank);
            for tile in tiles(samples.start * per_sample..samples.end * per_sample, step) {
                let dy = region.gradient(d_output, tile.clone(), gradients);
                for group in 0..f.groups {
                    let dy = Matrix { values: &dy.values[group * filters..], ..dy };
                    for part in tiles(0..taps, part_taps) {
                        let bank_weights = &weights[region.weights(group)][part.start * filters..part.end * filters];
                        let bank_weights = Matrix::rows(bank_weights, filters).transposed();
                        product([tile.len(), part.len(), filters], dy, bank_weights, tile_gradients, part.len(), false);
                        region.scatter(tile_gradients, tile.clone(), group, part, samples.start, map);
                    }
                }
            }
        }
    });
}

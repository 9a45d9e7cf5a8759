//! Pools on the CPU: one window at a time, all channels of a pixel in vector registers.

use super::{Pool, Statistic};
use crate::ops::parallel::{self, Disjoint, part, threads};
use crate::ops::simd::dispatch;
use crate::ops::{Backward, Forward, Pair};

pub fn forward(p: &Pool, pass: Forward<'_>) {
    let c = p.input.c;
    let input = pass.inputs[0];
    let rows = pass.n * p.output.h;
    let row_len = p.output.w * c;
    let parts = if pass.output.len() < 16 * 1024 { 1 } else { 4 * threads() };
    let output = Disjoint::new(pass.output);
    parallel::tasks(parts, &mut [], |index, _| {
        for row in part(rows, parts, index) {
            let (sample, y) = (row / p.output.h, row % p.output.h);
            let map = &input[sample * p.input.len()..(sample + 1) * p.input.len()];
            // SAFETY: a task owns its rows.
            let out = unsafe { output.slice(row * row_len..(row + 1) * row_len) };
            dispatch!(forward_row(p, map, y, out));
        }
    });
}

/// Row `y` of the output of one sample.
#[inline(always)]
fn forward_row(p: &Pool, map: &[f32], y: usize, out: &mut [f32]) {
    let c = p.input.c;
    for (x, out) in out.chunks_exact_mut(c).enumerate() {
        let (rows, columns, divisor) = p.window(y, x);
        let at = |iy: usize, ix: usize| &map[(iy * p.input.w + ix) * c..][..c];
        match [rows.len(), columns.len()] {
            [2, 2] => {
                let (y, x) = (rows.start, columns.start);
                p.statistic.take_all(out, [at(y, x), at(y, x + 1), at(y + 1, x), at(y + 1, x + 1)]);
            }
            [3, 3] => {
                let (y, x) = (rows.start, columns.start);
                let [a, b, c] = [0, 1, 2].map(|i| [0, 1, 2].map(|j| at(y + i, x + j)));
                p.statistic.take_all(out, [a[0], a[1], a[2], b[0], b[1], b[2], c[0], c[1], c[2]]);
            }
            _ => {
                let mut pixels = rows.flat_map(|iy| columns.clone().map(move |ix| (iy, ix)));
                if let Some((iy, ix)) = pixels.next() {
                    out.copy_from_slice(at(iy, ix));
                }
                pixels.for_each(|(iy, ix)| p.statistic.take(out, at(iy, ix)));
            }
        }
        if p.statistic == Statistic::Average {
            let scale = 1.0 / divisor as f32;
            out.iter_mut().for_each(|m| *m *= scale);
        }
    }
}

pub fn backward(p: &Pool, pass: Backward<'_, '_>) {
    let Some(d_input) = &mut pass.d_inputs[0] else { return };
    let (n, d_output, output) = (pass.n, &*pass.d_output, pass.output);
    let input = pass.inputs[0];
    let size = p.output.len();
    let parts = threads().min(n);
    let maps = Disjoint::new(d_input);
    // Windows may overlap, so a thread owns whole samples.
    parallel::tasks(parts, pass.workspace, |index, left| {
        for sample in part(n, parts, index) {
            let places = sample * p.input.len()..(sample + 1) * p.input.len();
            // SAFETY: a thread owns its samples.
            let d_map = unsafe { maps.slice(places.clone()) };
            let outputs = sample * size..(sample + 1) * size;
            // Only the maximum reads the values; for averages they are not kept.
            let values = if p.statistic == Statistic::Max {
                (&input[places], &output[outputs.clone()])
            } else {
                (&[][..], &[][..])
            };
            dispatch!(backward_sample(p, values, &d_output[outputs], d_map, left));
        }
    });
}

/// The gradient of one sample; `values` are its input and output, read for the maximum only.
#[inline(always)]
fn backward_sample(p: &Pool, values: (&[f32], &[f32]), d_output: &[f32], d_map: &mut [f32], left: &mut [f32]) {
    let c = p.input.c;
    let (input, output) = values;
    let two = Pair::both(2);
    let is_whole = 2 * p.output.h <= p.input.h && 2 * p.output.w <= p.input.w;
    if p.statistic == Statistic::Max && is_whole && (p.kernel, p.stride, p.pad) == (two, two, Pair::both(0)) {
        return backward_tiles(p, input, output, d_output, d_map);
    }
    d_map.fill(0.0);
    for y in 0..p.output.h {
        for x in 0..p.output.w {
            let at = (y * p.output.w + x) * c;
            let (rows, columns, divisor) = p.window(y, x);
            let dy = &d_output[at..at + c];
            match p.statistic {
                Statistic::Average => {
                    let scale = 1.0 / divisor as f32;
                    for iy in rows {
                        let line = (iy * p.input.w + columns.start) * c..(iy * p.input.w + columns.end) * c;
                        for pixel in d_map[line].chunks_exact_mut(c) {
                            pixel.iter_mut().zip(dy).for_each(|(d, g)| *d += g * scale);
                        }
                    }
                }
                Statistic::Max => {
                    // The remaining gradient of each channel: all of it until its maximum has been found.
                    left.copy_from_slice(dy);
                    let top = &output[at..at + c];
                    for iy in rows {
                        let line = (iy * p.input.w + columns.start) * c..(iy * p.input.w + columns.end) * c;
                        let values = &input[line.clone()];
                        for (d, v) in d_map[line].chunks_exact_mut(c).zip(values.chunks_exact(c)) {
                            for (((d, v), top), left) in d.iter_mut().zip(v).zip(top).zip(left.iter_mut()) {
                                let hit = v == top;
                                *d += if hit { *left } else { 0.0 };
                                *left = if hit { 0.0 } else { *left };
                            }
                        }
                    }
                }
            }
        }
    }
}

/// The gradient of maxima of 2 x 2 pixels that do not overlap: every value is written once, in one loop. ANet's first pool takes
/// a third of the time that a sum over windows takes.
#[inline(always)]
fn backward_tiles(p: &Pool, input: &[f32], output: &[f32], d_output: &[f32], d_map: &mut [f32]) {
    let (c, line) = (p.input.c, p.input.w * p.input.c);
    let whole = p.output.w;
    for (y, (d_lines, lines)) in d_map.chunks_mut(2 * line).zip(input.chunks(2 * line)).enumerate() {
        if d_lines.len() < 2 * line || y >= p.output.h {
            // A last line without a partner is in no window.
            d_lines.fill(0.0);
            continue;
        }
        let (d_upper, d_lower) = d_lines.split_at_mut(line);
        let (upper, lower) = lines.split_at(line);
        for x in 0..whole {
            let at = (y * p.output.w + x) * c..(y * p.output.w + x + 1) * c;
            let (top, dy) = (&output[at.clone()], &d_output[at]);
            let [left, middle, right] = [2 * x, 2 * x + 1, 2 * x + 2].map(|pixel| pixel * c);
            let ((d0, d1), (d2, d3)) = (d_upper[left..right].split_at_mut(c), d_lower[left..right].split_at_mut(c));
            let [v0, v1, v2, v3] = [&upper[left..], &upper[middle..], &lower[left..], &lower[middle..]];
            // Of one length that the compiler knows, so that the loop has no checks and becomes vectors.
            let [dy, v0, v1, v2, v3] = [dy, v0, v1, v2, v3].map(|values| &values[..top.len()]);
            let [d0, d1, d2, d3] = [d0, d1, d2, d3].map(|values| &mut values[..top.len()]);
            for i in 0..top.len() {
                let hits = [v0[i], v1[i], v2[i], v3[i]].map(|v| v == top[i]);
                let mut rest = dy[i];
                let mut take = |hit: bool| {
                    let taken = if hit { rest } else { 0.0 };
                    rest = if hit { 0.0 } else { rest };
                    taken
                };
                (d0[i], d1[i], d2[i], d3[i]) = (take(hits[0]), take(hits[1]), take(hits[2]), take(hits[3]));
            }
        }
        d_upper[2 * whole * c..].fill(0.0);
        d_lower[2 * whole * c..].fill(0.0);
    }
}

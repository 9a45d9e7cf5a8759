//! Pools on the CPU: one window at a time, all channels of a pixel in vector registers.

use super::{Pool, Statistic};
use crate::ops::parallel::{self, Disjoint, part, threads};
use crate::ops::simd::dispatch;
use crate::ops::{Backward, Forward};

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
        out.fill(if p.statistic == Statistic::Max { f32::NEG_INFINITY } else { 0.0 });
        for iy in rows {
            let line = &map[(iy * p.input.w + columns.start) * c..(iy * p.input.w + columns.end) * c];
            for pixel in line.chunks_exact(c) {
                p.statistic.take(out, pixel);
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

//! Response normalisation on the CPU. The sum over a window of channels is computed by adding shifted copies of a pixel's
//! squares with zero margins, so every loop runs over all channels without a branch.

use super::{Lrn, at_least_tiny};
use crate::ops::parallel::{self, Disjoint, part, threads};
use crate::ops::simd::dispatch;
use crate::ops::{Backward, Forward};

/// Two rows of scratch per thread: a pixel's values with margins, and their window sums.
pub fn workspace(l: &Lrn) -> usize {
    threads() * 2 * (l.shape.c + l.size)
}

/// s^-beta; the usual exponent through square roots, which are vector instructions.
#[inline(always)]
fn power(s: &[f32], beta: f32, out: &mut [f32]) {
    let zip = out.iter_mut().zip(s);
    if beta == 0.75 {
        zip.for_each(|(y, s)| {
            let root = s.sqrt();
            *y = 1.0 / (root * root.sqrt());
        });
    } else {
        zip.for_each(|(y, s)| *y = s.powf(-beta));
    }
}

/// `sums[i]` = sum of `padded[i..i + size]`.
#[inline(always)]
fn window_sums(padded: &[f32], size: usize, sums: &mut [f32]) {
    let c = sums.len();
    sums.copy_from_slice(&padded[..c]);
    for shift in 1..size {
        sums.iter_mut().zip(&padded[shift..shift + c]).for_each(|(s, v)| *s += v);
    }
}

/// Converts `sums` to s = k + alpha / size * window sum of squares of `x`.
#[inline(always)]
fn scales(l: &Lrn, x: &[f32], padded: &mut [f32], sums: &mut [f32]) {
    // The window of channel i begins at i - size / 2.
    let before = l.size / 2;
    padded.fill(0.0);
    padded[before..before + x.len()].iter_mut().zip(x).for_each(|(p, x)| *p = x * x);
    window_sums(padded, l.size, sums);
    let alpha = l.alpha / l.size as f32;
    sums.iter_mut().for_each(|s| *s = at_least_tiny(l.k + alpha * *s));
}

/// The usual window and exponent in one loop instead of eight, in the same order: 0.25 instead of 0.45 ms for 96 x 55 x 55.
#[inline(always)]
fn five(l: &Lrn, x: &[f32], padded: &mut [f32], y: &mut [f32]) {
    let c = x.len();
    padded[..2].fill(0.0);
    padded[2..2 + c].iter_mut().zip(x).for_each(|(p, x)| *p = x * x);
    padded[2 + c..].fill(0.0);
    let alpha = l.alpha / 5.0;
    let p: [&[f32]; 5] = std::array::from_fn(|shift| &padded[shift..shift + c]);
    for (i, (y, x)) in y.iter_mut().zip(x).enumerate() {
        let sum = p[0][i] + p[1][i] + p[2][i] + p[3][i] + p[4][i];
        let root = at_least_tiny(l.k + alpha * sum).sqrt();
        *y = 1.0 / (root * root.sqrt()) * x;
    }
}

pub fn forward(l: &Lrn, pass: Forward<'_>) {
    let c = l.shape.c;
    let pixels = pass.n * l.shape.area();
    let input = pass.inputs[0];
    let parts = 4 * threads();
    let output = Disjoint::new(pass.output);
    parallel::tasks(parts, pass.workspace, |index, scratch| {
        let (padded, sums) = scratch.split_at_mut(c + l.size);
        let sums = &mut sums[..c];
        for pixel in part(pixels, parts, index) {
            let x = &input[pixel * c..(pixel + 1) * c];
            // SAFETY: a task owns its pixels.
            let y = unsafe { output.slice(pixel * c..(pixel + 1) * c) };
            dispatch!({
                if (l.size, l.beta) == (5, 0.75) {
                    five(l, x, padded, y);
                } else {
                    scales(l, x, padded, sums);
                    power(sums, l.beta, y);
                    y.iter_mut().zip(x).for_each(|(y, x)| *y *= x);
                }
            });
        }
    });
}

/// dx_i = dy_i s_i^-beta - 2 alpha beta / size * x_i * sum over the windows j containing i of dy_j y_j / s_j.
pub fn backward(l: &Lrn, pass: Backward<'_, '_>) {
    let Some(d_input) = &mut pass.d_inputs[0] else { return };
    let c = l.shape.c;
    let pixels = pass.n * l.shape.area();
    let (input, output, d_output) = (pass.inputs[0], pass.output, &*pass.d_output);
    let factor = 2.0 * l.alpha * l.beta / l.size as f32;
    // Channel i is in the windows of the channels from i - (size - 1) / 2 on: the mirrored window.
    let before = (l.size - 1) / 2;
    let parts = 4 * threads();
    let d_input = Disjoint::new(d_input);
    parallel::tasks(parts, pass.workspace, |index, scratch| {
        let (padded, sums) = scratch.split_at_mut(c + l.size);
        let sums = &mut sums[..c];
        for pixel in part(pixels, parts, index) {
            let place = pixel * c..(pixel + 1) * c;
            let (x, y, dy) = (&input[place.clone()], &output[place.clone()], &d_output[place.clone()]);
            // SAFETY: a task owns its pixels.
            let dx = unsafe { d_input.slice(place) };
            dispatch!({
                scales(l, x, padded, sums);
                power(sums, l.beta, dx);
                dx.iter_mut().zip(dy).for_each(|(d, g)| *d *= g);
                padded.fill(0.0);
                let inner = &mut padded[before..before + c];
                for ((p, s), (g, y)) in inner.iter_mut().zip(&*sums).zip(dy.iter().zip(y)) {
                    *p = g * y / s;
                }
                window_sums(padded, l.size, sums);
                for ((d, s), x) in dx.iter_mut().zip(&*sums).zip(x) {
                    *d -= factor * x * s;
                }
            });
        }
    });
}

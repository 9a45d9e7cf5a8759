//! Group normalisation on the CPU. A task is one sample. For any number of groups, loops run over all channels of a pixel and
//! accumulate per channel; the channels of a group are added afterwards, and each channel receives its group's value.

use super::GroupNorm;
use crate::ops::parallel::{self, Disjoint, threads};
use crate::ops::simd::{add, dispatch};
use crate::ops::{Backward, Forward};

/// Per-channel vectors that a thread needs.
const FORWARD: usize = 3;
const BACKWARD: usize = 5;

pub fn forward_workspace(op: &GroupNorm) -> usize {
    threads() * FORWARD * op.shape.c
}

/// The threads' vectors, and two sums per sample and channel, which are added in a fixed order for any number of threads.
pub fn backward_workspace(op: &GroupNorm, n: usize) -> usize {
    (threads() * BACKWARD + 2 * n) * op.shape.c
}

/// Normalisation of a sample, x' = (x - center - rest) * scale, with one value per channel each.
struct Moments<'a> {
    center: &'a mut [f32],
    rest: &'a mut [f32],
    scale: &'a mut [f32],
}

impl<'a> Moments<'a> {
    fn of(op: &GroupNorm, map: &[f32], vectors: &'a mut [f32]) -> Self {
        let c = op.shape.c;
        let (center, vectors) = vectors.split_at_mut(c);
        let (rest, scale) = vectors.split_at_mut(c);
        center.fill(0.0);
        map.chunks_exact(c).for_each(|pixel| add(center, pixel));
        mean(op, center);
        rest.fill(0.0);
        scale.fill(0.0);
        dispatch!(for pixel in map.chunks_exact(c) {
            for ((x, center), (rest, square)) in pixel.iter().zip(&*center).zip(rest.iter_mut().zip(scale.iter_mut())) {
                let difference = x - center;
                *rest += difference;
                *square += difference * difference;
            }
        });
        mean(op, rest);
        mean(op, scale);
        for (scale, rest) in scale.iter_mut().zip(&*rest) {
            let variance = *scale - rest * rest;
            // NaN is kept.
            *scale = 1.0 / (if variance < 0.0 { 0.0 } else { variance } + op.eps).sqrt();
        }
        Self { center, rest, scale }
    }
}

/// Turns sums over the positions into the mean of each channel's group.
fn mean(op: &GroupNorm, sums: &mut [f32]) {
    let share = 1.0 / (op.channels() * op.shape.area()) as f32;
    for group in sums.chunks_exact_mut(op.channels()) {
        let sum: f32 = group.iter().sum();
        group.fill(sum * share);
    }
}

pub fn forward(op: &GroupNorm, pass: Forward<'_>) {
    let (c, len) = (op.shape.c, op.shape.len());
    let (input, [weight, bias]) = (pass.inputs[0], [pass.params[0], pass.params[1]]);
    let output = Disjoint::new(pass.output);
    parallel::tasks(pass.n, pass.workspace, |sample, vectors| {
        let place = sample * len..(sample + 1) * len;
        let map = &input[place.clone()];
        // SAFETY: a task owns its sample.
        let y = unsafe { output.slice(place) };
        let Moments { center, rest, scale } = Moments::of(op, map, vectors);
        scale.iter_mut().zip(weight).for_each(|(scale, weight)| *scale *= weight);
        dispatch!(for (y, x) in y.chunks_exact_mut(c).zip(map.chunks_exact(c)) {
            for (((y, x), (center, rest)), (scale, bias)) in
                y.iter_mut().zip(x).zip(center.iter().zip(&*rest)).zip(scale.iter().zip(bias))
            {
                *y = (x - center - rest) * scale + bias;
            }
        });
    });
}

pub fn backward(op: &GroupNorm, pass: Backward<'_, '_>) {
    let (c, len) = (op.shape.c, op.shape.len());
    let (input, weight, d_output) = (pass.inputs[0], pass.params[0], &*pass.d_output);
    let (sums, vectors) = pass.workspace.split_at_mut(2 * pass.n * c);
    let sums_of = Disjoint::new(sums);
    let d_input = pass.d_inputs[0].as_deref_mut().map(Disjoint::new);
    parallel::tasks(pass.n, &mut vectors[..threads() * BACKWARD * c], |sample, vectors| {
        let place = sample * len..(sample + 1) * len;
        let (map, dy) = (&input[place.clone()], &d_output[place.clone()]);
        let (vectors, means) = vectors.split_at_mut(FORWARD * c);
        let Moments { center, rest, scale } = Moments::of(op, map, vectors);
        // SAFETY: a task owns its sample.
        let (along, plain) = unsafe { sums_of.slice(2 * sample * c..2 * (sample + 1) * c) }.split_at_mut(c);
        along.fill(0.0);
        plain.fill(0.0);
        dispatch!(for (dy, x) in dy.chunks_exact(c).zip(map.chunks_exact(c)) {
            for (((dy, x), (center, rest)), (scale, (along, plain))) in dy
                .iter()
                .zip(x)
                .zip(center.iter().zip(&*rest))
                .zip(scale.iter().zip(along.iter_mut().zip(plain.iter_mut())))
            {
                *along += dy * ((x - center - rest) * scale);
                *plain += dy;
            }
        });
        let Some(d_input) = &d_input else { return };
        // SAFETY: a task owns its sample.
        let dx = unsafe { d_input.slice(place) };
        let (mean_along, mean_plain) = means.split_at_mut(c);
        for (means, sums) in [(&mut *mean_along, &*along), (&mut *mean_plain, &*plain)] {
            means.iter_mut().zip(sums).zip(weight).for_each(|((mean, sum), weight)| *mean = weight * sum);
            mean(op, means);
        }
        dispatch!(for ((dx, dy), x) in dx.chunks_exact_mut(c).zip(dy.chunks_exact(c)).zip(map.chunks_exact(c)) {
            for (i, (dx, dy)) in dx.iter_mut().zip(dy).enumerate() {
                let normal = (x[i] - center[i] - rest[i]) * scale[i];
                *dx = (weight[i] * dy - mean_plain[i] - normal * mean_along[i]) * scale[i];
            }
        });
    });
    for (which, d_param) in pass.d_params.iter_mut().enumerate() {
        d_param.fill(0.0);
        sums.chunks_exact(2 * c).for_each(|sums| add(d_param, &sums[which * c..][..c]));
    }
}

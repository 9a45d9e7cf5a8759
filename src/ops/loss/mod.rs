//! Losses: last layers whose output is one number for the batch, scaled by `weight` (default 1).
//!
//! - `softmax_cross_entropy`: mean over samples and positions of `-log softmax(x)[class]`.
//! - `sigmoid_cross_entropy`: mean over all values of the cross-entropy of sigmoid(x) and a target in [0, 1], computed
//!   from the logits: max(x, 0) - x t + log(1 + exp(-|x|)), which never overflows.
//! - `similarity` (paper section 2.2, equation of the similarity loss): the sum over pairs of the same identity of the
//!   squared distance of their features, divided by the number of such pairs (0 without one). Over one identity's set S,
//!   the pairs' sum is |S| sum |f - mean f|^2 and its gradient 2 (|S| f_i - sum f), so the cost is O(N D).
//!
//! Kernels: kernels/loss.cu; launches: cuda.rs; CPU: this file; reference: tests/ops/loops.rs; cases: cases.rs.

use super::activation::sigmoid;
use super::gpu::{GpuBackward, GpuForward};
use super::softmax::softmax;
use super::{Backward, Forward, Kind, Needs, Operation, Shape, TargetKind, parse, single};
use crate::device::{Gpu, Recorder};
use crate::settings::{Mistake, limits, within};
use serde::Deserialize;

pub mod cases;
mod cuda;

limits! {
    /// The factor of a loss.
    Weight: f32 = -1e6, 1e6;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default = "one", deserialize_with = "within::<Weight, _, _>")]
    weight: f32,
}

fn one() -> f32 {
    1.0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Formula {
    SoftmaxCrossEntropy,
    SigmoidCrossEntropy,
    Similarity,
}

#[derive(Debug)]
struct Loss {
    input: Shape,
    formula: Formula,
    weight: f32,
}

/// Builds `type = "softmax_cross_entropy"`.
pub fn build_softmax(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    build(table, inputs, Formula::SoftmaxCrossEntropy)
}

/// Builds `type = "sigmoid_cross_entropy"`.
pub fn build_sigmoid(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    build(table, inputs, Formula::SigmoidCrossEntropy)
}

/// Builds `type = "similarity"`.
pub fn build_similarity(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    build(table, inputs, Formula::Similarity)
}

fn build(table: toml::Table, inputs: &[Shape], formula: Formula) -> Result<Box<dyn Operation>, Mistake> {
    let Keys { weight } = parse(table)?;
    Ok(Box::new(Loss { input: single(inputs)?, formula, weight }))
}

/// Number of pairs of the same identity among `classes`, and for each sample the first one of its identity.
fn firsts(classes: &[u32]) -> impl Iterator<Item = usize> + '_ {
    classes.iter().enumerate().map(|(i, class)| classes[..i].iter().position(|c| c == class).unwrap_or(i))
}

impl Loss {
    /// Sums of features per identity, kept at the identity's first sample in `workspace` [n, d], and its number of samples in
    /// the last `n` values; returns the number of pairs.
    fn identity_sums(&self, features: &[f32], classes: &[u32], workspace: &mut [f32]) -> f64 {
        let d = self.input.len();
        let (sums, counts) = workspace.split_at_mut(classes.len() * d);
        sums.fill(0.0);
        counts.fill(0.0);
        let mut pairs = 0.0;
        for (first, f) in firsts(classes).zip(features.chunks_exact(d)) {
            // A new member forms a pair with each previous one.
            pairs += f64::from(counts[first]);
            counts[first] += 1.0;
            sums[first * d..(first + 1) * d].iter_mut().zip(f).for_each(|(s, f)| *s += f);
        }
        pairs
    }
}

impl Operation for Loss {
    fn output(&self) -> Shape {
        Shape::new(1, 1, 1)
    }

    fn flops(&self) -> u64 {
        4 * self.input.len() as u64
    }

    fn target(&self) -> Option<TargetKind> {
        Some(match self.formula {
            Formula::SoftmaxCrossEntropy => TargetKind::Classes { per_sample: self.input.area(), below: self.input.c },
            Formula::SigmoidCrossEntropy => TargetKind::Values { per_sample: self.input.len() },
            Formula::Similarity => TargetKind::Identities,
        })
    }

    fn needs(&self) -> Needs {
        Needs { inputs: true, output: false }
    }

    fn forward_workspace(&self, n: usize) -> usize {
        match self.formula {
            Formula::SoftmaxCrossEntropy => self.input.c,
            Formula::SigmoidCrossEntropy => 0,
            Formula::Similarity => n * (self.input.len() + 1),
        }
    }

    fn backward_workspace(&self, n: usize) -> usize {
        self.forward_workspace(n)
    }

    fn forward(&self, pass: Forward<'_>) {
        let x = pass.inputs[0];
        let loss = match self.formula {
            Formula::SoftmaxCrossEntropy => {
                let pixels = x.chunks_exact(self.input.c).zip(pass.targets.classes);
                let sum: f64 =
                    pixels.map(|(x, &t)| f64::from(softmax(x, pass.workspace)) - f64::from(x[t as usize])).sum();
                sum / pass.targets.classes.len() as f64
            }
            Formula::SigmoidCrossEntropy => {
                let sum: f64 = x
                    .iter()
                    .zip(pass.targets.values)
                    .map(|(&x, &t)| {
                        let (x, t) = (f64::from(x), f64::from(t));
                        (if x <= 0.0 { 0.0 } else { x }) - x * t + (-x.abs()).exp().ln_1p()
                    })
                    .sum();
                sum / x.len() as f64
            }
            Formula::Similarity => {
                let d = self.input.len();
                let pairs = self.identity_sums(x, pass.targets.classes, pass.workspace);
                let (sums, counts) = pass.workspace.split_at(pass.n * d);
                let mut sum = 0.0;
                for (i, first) in firsts(pass.targets.classes).enumerate() {
                    // About the mean: the difference of two large sums would be noise where features of an identity are close.
                    let count = f64::from(counts[first]);
                    let terms = x[i * d..(i + 1) * d].iter().zip(&sums[first * d..(first + 1) * d]);
                    sum += count * terms.map(|(x, s)| (f64::from(*x) - f64::from(*s) / count).powi(2)).sum::<f64>();
                }
                if pairs == 0.0 { 0.0 } else { sum / pairs }
            }
        };
        pass.output[0] = self.weight * loss as f32;
    }

    fn backward(&self, pass: Backward<'_, '_>) {
        let Some(d_input) = &mut pass.d_inputs[0] else { return };
        let (x, seed) = (pass.inputs[0], self.weight * pass.d_output[0]);
        match self.formula {
            Formula::SoftmaxCrossEntropy => {
                let scale = seed / pass.targets.classes.len() as f32;
                let c = self.input.c;
                for ((x, &t), d) in x.chunks_exact(c).zip(pass.targets.classes).zip(d_input.chunks_exact_mut(c)) {
                    softmax(x, d);
                    d[t as usize] -= 1.0;
                    d.iter_mut().for_each(|d| *d *= scale);
                }
            }
            Formula::SigmoidCrossEntropy => {
                let scale = seed / x.len() as f32;
                for ((d, &x), &t) in d_input.iter_mut().zip(x).zip(pass.targets.values) {
                    *d = scale * (sigmoid(x) - t);
                }
            }
            Formula::Similarity => {
                let d = self.input.len();
                let pairs = self.identity_sums(x, pass.targets.classes, pass.workspace);
                let (sums, counts) = pass.workspace.split_at(pass.n * d);
                let scale = if pairs == 0.0 { 0.0 } else { 2.0 * seed / pairs as f32 };
                for (i, first) in firsts(pass.targets.classes).enumerate() {
                    let sum = &sums[first * d..(first + 1) * d];
                    for ((d, x), s) in d_input[i * d..(i + 1) * d].iter_mut().zip(&x[i * d..(i + 1) * d]).zip(sum) {
                        *d = scale * (counts[first] * x - s);
                    }
                }
            }
        }
    }

    fn gpu_forward_workspace(&self, n: usize, _gpu: &Gpu) -> usize {
        cuda::forward_workspace(self, n)
    }

    fn gpu_backward_workspace(&self, _n: usize, _gpu: &Gpu) -> usize {
        cuda::BACKWARD_WORKSPACE
    }

    fn record_forward(&self, pass: GpuForward<'_>, to: &mut Recorder<'_>) {
        cuda::forward(self, &pass, to);
    }

    fn record_backward(&self, pass: GpuBackward<'_>, to: &mut Recorder<'_>) {
        cuda::backward(self, &pass, to);
    }

    fn kind(&self) -> Kind<'_> {
        Kind::Loss
    }
}

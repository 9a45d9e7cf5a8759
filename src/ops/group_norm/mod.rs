//! `type = "group_norm"`: group normalisation (Wu and He, ECCV 2018): y = (x - mean) / sqrt(variance + eps) * weight + bias.
//! Mean and variance are taken over a sample's group of neighbouring channels at all positions; weight and bias are `[c]`, one
//! value per channel, initialised to 1 and 0. One group is layer normalisation, one group per channel instance normalisation.
//!
//! With x' the normalised input and g = weight dy: d_weight = sum of dy x', d_bias = sum of dy over samples and positions, and
//! dx = (g - mean of g - x' mean of (g x')) / sqrt(variance + eps), with means over the group.
//!
//! The variance is computed from differences to the mean, corrected for the rounding error of the mean (Chan, Golub and
//! LeVeque, The American Statistician 1983), so that large means cost no precision.
//!
//! Kernel: kernels/group_norm.cu (group_norm_forward_*, group_norm_backward_*, group_norm_parameters_f32); launches: cuda.rs;
//! CPU: cpu.rs; reference: tests/ops/loops.rs; cases: cases.rs.

use super::gpu::{GpuBackward, GpuForward};
use super::{Backward, Channels, Forward, Kind, Needs, Operation, Parameter, Permutation, Shape, parse, single};
use crate::device::{Gpu, Recorder};
use crate::settings::{Mistake, limits, within};
use serde::Deserialize;

pub mod cases;
mod cpu;
mod cuda;

limits! {
    /// Added to a variance.
    Epsilon: f32 = 1e-8, 1.0;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(deserialize_with = "within::<Channels, _, _>")]
    groups: usize,
    #[serde(default = "eps", deserialize_with = "within::<Epsilon, _, _>")]
    eps: f32,
}

fn eps() -> f32 {
    1e-5
}

/// Builds `type = "group_norm"`.
pub fn build(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    let Keys { groups, eps } = parse(table)?;
    let shape = single(inputs)?;
    if shape.c % groups != 0 {
        return Err(Mistake::at("groups", format!("{groups} groups do not divide {} channels", shape.c)));
    }
    Ok(Box::new(GroupNorm { shape, groups, eps }))
}

#[derive(Debug)]
struct GroupNorm {
    shape: Shape,
    groups: usize,
    eps: f32,
}

impl GroupNorm {
    /// Channels of a group.
    fn channels(&self) -> usize {
        self.shape.c / self.groups
    }
}

impl Operation for GroupNorm {
    fn output(&self) -> Shape {
        self.shape
    }

    fn parameters(&self) -> Vec<Parameter> {
        let per_channel = |suffix, gain| {
            let (shape, order) = (vec![self.shape.c], Permutation::identity(self.shape.c));
            Parameter { suffix, shape, order, fan_in: 0, gain }
        };
        vec![per_channel("weight", 1.0), per_channel("bias", 0.0)]
    }

    fn flops(&self) -> u64 {
        // Sum, differences and their squares, and the result.
        (self.shape.len() as u64).saturating_mul(9)
    }

    fn needs(&self) -> Needs {
        Needs { inputs: true, output: false }
    }

    fn forward_workspace(&self, _n: usize) -> usize {
        cpu::forward_workspace(self)
    }

    fn backward_workspace(&self, n: usize) -> usize {
        cpu::backward_workspace(self, n)
    }

    fn forward(&self, pass: Forward<'_>) {
        cpu::forward(self, pass);
    }

    fn backward(&self, pass: Backward<'_, '_>) {
        cpu::backward(self, pass);
    }

    fn gpu_backward_workspace(&self, n: usize, _gpu: &Gpu) -> usize {
        cuda::backward_workspace(self, n)
    }

    fn record_forward(&self, pass: GpuForward<'_>, to: &mut Recorder<'_>) {
        cuda::forward(self, &pass, to);
    }

    fn record_backward(&self, pass: GpuBackward<'_>, to: &mut Recorder<'_>) {
        cuda::backward(self, &pass, to);
    }

    fn kind(&self) -> Kind<'_> {
        Kind::Global
    }
}

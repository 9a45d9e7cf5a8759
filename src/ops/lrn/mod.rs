//! `type = "lrn"`: local response normalisation over neighbouring channels (Krizhevsky et al., NIPS 2012, section 3.3):
//! y_i = x_i / s_i^beta, s_i = k + alpha / size * sum of x_j^2 over the `size` channels around i.

use super::conv::positive;
use super::gpu::{GpuBackward, GpuForward};
use super::{Backward, Forward, Kind, Needs, Operation, Shape, parse, single};
use crate::device::Recorder;
use serde::Deserialize;

mod cpu;
mod cuda;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default = "size")]
    size: usize,
    #[serde(default = "alpha")]
    alpha: f32,
    #[serde(default = "beta")]
    beta: f32,
    #[serde(default = "k")]
    k: f32,
}

fn size() -> usize {
    5
}

fn alpha() -> f32 {
    1e-4
}

fn beta() -> f32 {
    0.75
}

fn k() -> f32 {
    1.0
}

/// Builds `type = "lrn"`.
pub fn build(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, String> {
    let Keys { size, alpha, beta, k } = parse(table)?;
    let shape = single(inputs)?;
    positive(&[("size", size)])?;
    for (name, value) in [("alpha", alpha), ("beta", beta), ("k", k)] {
        if !(value >= 0.0 && value.is_finite()) {
            return Err(format!("`{name}` is {value}, but must be zero or a positive number"));
        }
    }
    Ok(Box::new(Lrn { shape, size, alpha, beta, k }))
}

#[derive(Debug)]
struct Lrn {
    shape: Shape,
    size: usize,
    alpha: f32,
    beta: f32,
    k: f32,
}

impl Operation for Lrn {
    fn output(&self) -> Shape {
        self.shape
    }

    fn flops(&self) -> u64 {
        (self.shape.len() as u64).saturating_mul((self.size as u64).saturating_mul(2).saturating_add(2))
    }

    fn needs(&self) -> Needs {
        Needs { inputs: true, output: true }
    }

    fn forward_workspace(&self, _n: usize) -> usize {
        cpu::workspace(self)
    }

    fn backward_workspace(&self, _n: usize) -> usize {
        cpu::workspace(self)
    }

    fn forward(&self, pass: Forward<'_>) {
        cpu::forward(self, pass);
    }

    fn backward(&self, pass: Backward<'_, '_>) {
        cpu::backward(self, pass);
    }

    fn record_forward(&self, pass: GpuForward<'_>, to: &mut Recorder<'_>) {
        cuda::forward(self, &pass, to);
    }

    fn record_backward(&self, pass: GpuBackward<'_>, to: &mut Recorder<'_>) {
        cuda::backward(self, &pass, to);
    }

    fn kind(&self) -> Kind<'_> {
        Kind::Pixelwise
    }
}

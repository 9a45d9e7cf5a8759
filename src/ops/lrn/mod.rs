//! `type = "lrn"`: local response normalisation over neighbouring channels (Krizhevsky et al., NIPS 2012, section 3.3):
//! y_i = x_i / s_i^beta, s_i = k + alpha / size * sum of x_j^2 over the `size` channels around i.
//!
//! Kernels: kernels/lrn.cu; launches: cuda.rs; CPU: cpu.rs; reference: tests/ops/loops.rs; cases: cases.rs.

use super::gpu::{GpuBackward, GpuForward};
use super::{Backward, Forward, Kind, Needs, Operation, Shape, Side, parse, single};
use crate::device::Recorder;
use crate::settings::{Mistake, limits, within};
use serde::Deserialize;

pub mod cases;
mod cpu;
mod cuda;

limits! {
    Alpha: f32 = 0.0, 1e4;
    Beta: f32 = 0.0, 4.0;
    Offset: f32 = 0.0, 1e4;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default = "size", deserialize_with = "within::<Side, _, _>")]
    size: usize,
    #[serde(default = "alpha", deserialize_with = "within::<Alpha, _, _>")]
    alpha: f32,
    #[serde(default = "beta", deserialize_with = "within::<Beta, _, _>")]
    beta: f32,
    #[serde(default = "k", deserialize_with = "within::<Offset, _, _>")]
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
pub fn build(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    let Keys { size, alpha, beta, k } = parse(table)?;
    // The largest factor, that of an all-zero window: times 0 it must be 0.
    if !at_least_tiny(k).powf(-beta).is_finite() {
        return Err(Mistake::at("k", format!("{k:?} is too small for beta {beta:?}; write a larger one")));
    }
    Ok(Box::new(Lrn { shape: single(inputs)?, size, alpha, beta, k }))
}

/// The base raised to -beta: with k = 0, an all-zero window must not become NaN. NaN propagates.
#[inline(always)]
fn at_least_tiny(s: f32) -> f32 {
    if s < f32::MIN_POSITIVE { f32::MIN_POSITIVE } else { s }
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

//! `type = "concat"`: concatenates inputs of equal height and width along channels.
//!
//! Kernel: kernels/concat.cu (`copy_channels_*`); launches: cuda.rs; CPU: this file; reference: tests/ops/loops.rs;
//! cases: cases.rs.

use super::gpu::{GpuBackward, GpuForward};
use super::{Backward, Forward, Kind, Needs, Operation, Shape, parse};
use crate::device::Recorder;
use crate::settings::Mistake;
use serde::Deserialize;

pub mod cases;
mod cuda;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

/// Builds `type = "concat"`.
pub fn build(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    let NoKeys {} = parse(table)?;
    let first = *inputs.first().ok_or_else(|| "takes an input".to_string())?;
    if let Some(other) = inputs.iter().find(|s| (s.h, s.w) != (first.h, first.w)) {
        return Err(format!("inputs {first} and {other} differ in height or width").into());
    }
    let channels: Vec<usize> = inputs.iter().map(|s| s.c).collect();
    let output = Shape::new(channels.iter().sum(), first.h, first.w);
    Ok(Box::new(Concat { channels, output }))
}

#[derive(Debug)]
struct Concat {
    channels: Vec<usize>,
    output: Shape,
}

impl Operation for Concat {
    fn output(&self) -> Shape {
        self.output
    }

    fn flops(&self) -> u64 {
        0
    }

    fn needs(&self) -> Needs {
        Needs { inputs: false, output: false }
    }

    fn forward(&self, pass: Forward<'_>) {
        let mut start = 0;
        for (input, &c) in pass.inputs.iter().zip(&self.channels) {
            for (pixel, from) in pass.output.chunks_exact_mut(self.output.c).zip(input.chunks_exact(c)) {
                pixel[start..start + c].copy_from_slice(from);
            }
            start += c;
        }
    }

    fn backward(&self, pass: Backward<'_, '_>) {
        let mut start = 0;
        for (d_input, &c) in pass.d_inputs.iter_mut().zip(&self.channels) {
            if let Some(d_input) = d_input {
                for (pixel, to) in pass.d_output.chunks_exact(self.output.c).zip(d_input.chunks_exact_mut(c)) {
                    to.copy_from_slice(&pixel[start..start + c]);
                }
            }
            start += c;
        }
    }

    fn record_forward(&self, pass: GpuForward<'_>, to: &mut Recorder<'_>) {
        cuda::forward(self, &pass, to);
    }

    fn record_backward(&self, pass: GpuBackward<'_>, to: &mut Recorder<'_>) {
        cuda::backward(self, &pass, to);
    }

    fn kind(&self) -> Kind<'_> {
        Kind::Concat
    }
}

//! `type = "softmax"`: exp(x_c) / sum over channels, at each position of the map.
//!
//! Kernels: kernels/softmax.cu (`softmax_*`); launches: cuda.rs; CPU: this file; reference: tests/ops/loops.rs;
//! cases: cases.rs.

use super::gpu::{GpuBackward, GpuForward};
use super::parallel::zip_chunks;
use super::{Backward, Forward, Kind, Needs, Operation, Shape, parse, single};
use crate::device::Recorder;
use crate::settings::Mistake;
use serde::Deserialize;

pub mod cases;
mod cuda;

pub(super) use cuda::group_width;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

/// Builds `type = "softmax"`.
pub fn build(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    let NoKeys {} = parse(table)?;
    Ok(Box::new(Softmax { shape: single(inputs)? }))
}

#[derive(Debug)]
struct Softmax {
    shape: Shape,
}

/// Softmax of one pixel; returns the logarithm of the sum of the exponentials.
pub(super) fn softmax(x: &[f32], y: &mut [f32]) -> f32 {
    let top = x.iter().fold(f32::NEG_INFINITY, |m, x| if *x <= m { m } else { *x });
    let mut sum = 0.0;
    for (y, x) in y.iter_mut().zip(x) {
        *y = (x - top).exp();
        sum += *y;
    }
    y.iter_mut().for_each(|y| *y /= sum);
    top + sum.ln()
}

impl Operation for Softmax {
    fn output(&self) -> Shape {
        self.shape
    }

    fn flops(&self) -> u64 {
        4 * self.shape.len() as u64
    }

    fn needs(&self) -> Needs {
        Needs { inputs: false, output: true }
    }

    fn forward(&self, pass: Forward<'_>) {
        let c = self.shape.c;
        zip_chunks(pass.inputs[0], c, pass.output, c, |x, y| {
            softmax(x, y);
        });
    }

    fn backward(&self, pass: Backward<'_, '_>) {
        let Some(d_input) = &mut pass.d_inputs[0] else { return };
        let c = self.shape.c;
        for ((dx, dy), y) in
            d_input.chunks_exact_mut(c).zip(pass.d_output.chunks_exact(c)).zip(pass.output.chunks_exact(c))
        {
            let dot: f32 = dy.iter().zip(y).map(|(g, y)| g * y).sum();
            for ((d, g), y) in dx.iter_mut().zip(dy).zip(y) {
                *d = y * (g - dot);
            }
        }
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

//! `relu` (max(x, 0)) and `sigmoid` (1 / (1 + exp(-x))), as layers and as the `activation` of filter layers.
//!
//! Kernels: kernels/pointwise.cu (`activation_*`); launches: src/ops/gpu.rs; CPU: this file; reference: tests/ops/loops.rs;
//! cases: cases.rs.

pub mod cases;

use super::gpu::{self, GpuBackward, GpuForward};
use super::parallel::zip_values;
use super::simd::{add, dispatch};
use super::{Backward, Forward, Kind, Needs, Operation, Shape, parse, single};
use crate::device::Recorder;
use crate::settings::Mistake;
use serde::Deserialize;

/// The activation that a filter layer applies to its sums; kernels know it by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Activation {
    /// Identity.
    #[default]
    None,
    /// max(x, 0).
    Relu,
    /// 1 / (1 + exp(-x)).
    Sigmoid,
}

impl Activation {
    /// In place.
    pub fn apply(self, values: &mut [f32]) {
        match self {
            Self::None => {}
            // Written so that NaN propagates: a net that diverged must not look like one whose outputs are zero.
            Self::Relu => dispatch!(values.iter_mut().for_each(|x| *x = if *x <= 0.0 { 0.0 } else { *x })),
            Self::Sigmoid => values.iter_mut().for_each(|x| *x = sigmoid(*x)),
        }
    }

    /// The same after adding `bias`, if present, to each row of `bias.len()` values.
    pub fn apply_biased(self, values: &mut [f32], bias: Option<&[f32]>) {
        let Some(bias) = bias else { return self.apply(values) };
        let rows = values.chunks_exact_mut(bias.len());
        match self {
            Self::Relu => dispatch!({
                for row in rows {
                    for (x, b) in row.iter_mut().zip(bias) {
                        let sum = *x + b;
                        *x = if sum <= 0.0 { 0.0 } else { sum };
                    }
                }
            }),
            Self::None | Self::Sigmoid => {
                rows.for_each(|row| add(row, bias));
                self.apply(values);
            }
        }
    }

    /// Converts the gradient of the output into the gradient of the sum, in place, given the output.
    pub fn apply_backward(self, output: &[f32], gradient: &mut [f32]) {
        match self {
            Self::None => {}
            Self::Relu => dispatch!({
                for (g, y) in gradient.iter_mut().zip(output) {
                    *g = if *y <= 0.0 { 0.0 } else { *g };
                }
            }),
            Self::Sigmoid => dispatch!({
                for (g, y) in gradient.iter_mut().zip(output) {
                    *g *= y * (1.0 - y);
                }
            }),
        }
    }
}

/// 1 / (1 + exp(-x)) without overflow.
pub fn sigmoid(x: f32) -> f32 {
    let e = (-x.abs()).exp();
    if x >= 0.0 { 1.0 / (1.0 + e) } else { e / (1.0 + e) }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

/// Builds `type = "relu"`.
pub fn build_relu(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    let NoKeys {} = parse(table)?;
    Ok(Box::new(Layer { shape: single(inputs)?, activation: Activation::Relu }))
}

/// Builds `type = "sigmoid"`.
pub fn build_sigmoid(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    let NoKeys {} = parse(table)?;
    Ok(Box::new(Layer { shape: single(inputs)?, activation: Activation::Sigmoid }))
}

/// An activation used as a layer.
#[derive(Debug)]
struct Layer {
    shape: Shape,
    activation: Activation,
}

impl Operation for Layer {
    fn output(&self) -> Shape {
        self.shape
    }

    fn flops(&self) -> u64 {
        self.shape.len() as u64
    }

    fn needs(&self) -> Needs {
        Needs { inputs: false, output: true }
    }

    fn forward(&self, pass: Forward<'_>) {
        zip_values(pass.inputs[0], pass.output, |x, y| {
            y.copy_from_slice(x);
            self.activation.apply(y);
        });
    }

    fn backward(&self, pass: Backward<'_, '_>) {
        let Some(d_input) = &mut pass.d_inputs[0] else { return };
        d_input.copy_from_slice(pass.d_output);
        zip_values(pass.output, d_input, |y, d| self.activation.apply_backward(y, d));
    }

    fn record_forward(&self, pass: GpuForward<'_>, to: &mut Recorder<'_>) {
        gpu::activation_forward(to, self.activation, pass.inputs[0], pass.output, pass.n * self.shape.len());
    }

    fn record_backward(&self, pass: GpuBackward<'_>, to: &mut Recorder<'_>) {
        if let Some(d_input) = pass.d_inputs[0] {
            let count = pass.n * self.shape.len();
            gpu::activation_backward(to, self.activation, pass.d_output, pass.output, d_input, count);
        }
    }

    fn kind(&self) -> Kind<'_> {
        Kind::Pixelwise
    }
}

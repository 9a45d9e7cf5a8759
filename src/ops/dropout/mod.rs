//! `type = "dropout"`: in training each value is set to zero with probability `rate` and the others are scaled by
//! 1 / (1 - rate); in inference it is the identity (Srivastava et al., JMLR 2014).
//!
//! The mask is never stored: it is a function of (seed of the step, layer, position), so the backward pass and any other
//! device can recompute it.
//!
//! Kernels: kernels/dropout.cu; launches: cuda.rs; CPU: this file; reference: tests/ops/loops.rs; cases: cases.rs.

use super::gpu::{GpuBackward, GpuForward};
use super::{Backward, Forward, Kind, Mode, Needs, Operation, Shape, parse, single};
use crate::device::Recorder;
use crate::rng::{philox, to_unit};
use crate::settings::{Mistake, limits, within};
use serde::Deserialize;

pub mod cases;
mod cuda;

limits! {
    /// The dropout rate.
    Rate: f32 = 0.0, 0.999;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default = "half", deserialize_with = "within::<Rate, _, _>")]
    rate: f32,
}

fn half() -> f32 {
    0.5
}

/// Builds `type = "dropout"`.
pub fn build(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    let Keys { rate } = parse(table)?;
    Ok(Box::new(Dropout { shape: single(inputs)?, rate }))
}

#[derive(Debug)]
struct Dropout {
    shape: Shape,
    rate: f32,
}

impl Dropout {
    fn apply(&self, mode: Mode, stream: u64, from: &[f32], to: &mut [f32]) {
        let Mode::Training { seed } = mode else { return to.copy_from_slice(from) };
        let key = [seed as u32, (seed >> 32) as u32];
        let scale = 1.0 / (1.0 - self.rate);
        for (index, (from, to)) in from.chunks(4).zip(to.chunks_mut(4)).enumerate() {
            let words = philox([index as u32, (index >> 32) as u32, stream as u32, MASKS], key);
            for ((to, from), word) in to.iter_mut().zip(from).zip(words) {
                *to = if to_unit(word) < self.rate { 0.0 } else { from * scale };
            }
        }
    }
}

/// Separates the counters of dropout masks from all other uses of a seed.
const MASKS: u32 = 0x6d61_736b;

impl Operation for Dropout {
    fn output(&self) -> Shape {
        self.shape
    }

    fn flops(&self) -> u64 {
        self.shape.len() as u64
    }

    fn needs(&self) -> Needs {
        Needs { inputs: false, output: false }
    }

    fn forward(&self, pass: Forward<'_>) {
        self.apply(pass.mode, pass.stream, pass.inputs[0], pass.output);
    }

    fn backward(&self, pass: Backward<'_, '_>) {
        if let Some(d_input) = &mut pass.d_inputs[0] {
            self.apply(pass.mode, pass.stream, pass.d_output, d_input);
        }
    }

    fn record_forward(&self, pass: GpuForward<'_>, to: &mut Recorder<'_>) {
        cuda::forward(self, &pass, to);
    }

    fn record_backward(&self, pass: GpuBackward<'_>, to: &mut Recorder<'_>) {
        cuda::backward(self, &pass, to);
    }

    fn kind(&self) -> Kind<'_> {
        Kind::Dropout
    }
}

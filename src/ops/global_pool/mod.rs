//! `type = "global_pool"`: one value per channel from a map of any size.
//!
//! mode `avg`, `max` (gradient shared equally between equal maxima), or `lse`: log(mean(exp(r x))) / r with r = `sharpness`,
//! which lies between the two, so that an image-level tag trains every position of a map (Pinheiro and Collobert, CVPR 2015).
//!
//! Kernels: kernels/global_pool.cu; launches: cuda.rs; CPU: this file; reference: tests/ops/loops.rs; cases: cases.rs.

use super::gpu::{GpuBackward, GpuForward};
use super::parallel::zip_chunks;
use super::simd::{add, dispatch};
use super::{Backward, Forward, Kind, Needs, Operation, Shape, parse, single};
use crate::device::Recorder;
use crate::settings::{Mistake, limits, within};
use serde::Deserialize;

pub mod cases;
mod cuda;

limits! {
    /// The factor in the exponent: small values approach the mean, large ones the maximum.
    Sharpness: f32 = 0.01, 1000.0;
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    mode: Mode,
    #[serde(default = "four", deserialize_with = "within::<Sharpness, _, _>")]
    sharpness: f32,
}

fn four() -> f32 {
    4.0
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Avg,
    Max,
    Lse,
}

/// Builds `type = "global_pool"`.
pub fn build(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    let Keys { mode, sharpness } = parse(table)?;
    let input = single(inputs)?;
    Ok(Box::new(GlobalPool { input, mode, sharpness }))
}

#[derive(Debug)]
struct GlobalPool {
    input: Shape,
    mode: Mode,
    sharpness: f32,
}

impl Operation for GlobalPool {
    fn output(&self) -> Shape {
        Shape::new(self.input.c, 1, 1)
    }

    fn flops(&self) -> u64 {
        self.input.len() as u64
    }

    fn needs(&self) -> Needs {
        let read = self.mode != Mode::Avg;
        Needs { inputs: read, output: read }
    }

    fn forward(&self, pass: Forward<'_>) {
        let (c, scale, r) = (self.input.c, 1.0 / self.input.area() as f32, self.sharpness);
        zip_chunks(pass.inputs[0], self.input.len(), pass.output, c, |map, out| {
            let pixels = || map.chunks_exact(c);
            match self.mode {
                Mode::Avg => {
                    out.fill(0.0);
                    pixels().for_each(|pixel| add(out, pixel));
                    out.iter_mut().for_each(|y| *y *= scale);
                }
                Mode::Max => maximum(pixels(), out),
                Mode::Lse => {
                    for (channel, y) in out.iter_mut().enumerate() {
                        // Shifted by the maximum, so that no exponential overflows.
                        let values = || map[channel..].iter().step_by(c);
                        let top = values().fold(f32::NEG_INFINITY, |m, x| if *x <= m { m } else { *x });
                        let sum: f32 = values().map(|x| (r * (x - top)).exp()).sum();
                        *y = top + (sum * scale).ln() / r;
                    }
                }
            }
        });
    }

    fn backward(&self, pass: Backward<'_, '_>) {
        let Some(d_input) = &mut pass.d_inputs[0] else { return };
        let (c, scale, r) = (self.input.c, 1.0 / self.input.area() as f32, self.sharpness);
        for (sample, (d_map, dy)) in
            d_input.chunks_exact_mut(self.input.len()).zip(pass.d_output.chunks_exact(c)).enumerate()
        {
            if self.mode == Mode::Avg {
                for d in d_map.chunks_exact_mut(c) {
                    d.iter_mut().zip(dy).for_each(|(d, g)| *d = g * scale);
                }
                continue;
            }
            let map = &pass.inputs[0][sample * self.input.len()..(sample + 1) * self.input.len()];
            let y = &pass.output[sample * c..(sample + 1) * c];
            if self.mode == Mode::Lse {
                for (d, x) in d_map.chunks_exact_mut(c).zip(map.chunks_exact(c)) {
                    for ((d, x), (g, y)) in d.iter_mut().zip(x).zip(dy.iter().zip(y)) {
                        *d = g * (r * (x - y)).exp() * scale;
                    }
                }
                continue;
            }
            for channel in 0..c {
                let hits = map[channel..].iter().step_by(c).filter(|x| **x == y[channel]).count();
                let share = dy[channel] / hits.max(1) as f32;
                for (d, x) in d_map[channel..].iter_mut().step_by(c).zip(map[channel..].iter().step_by(c)) {
                    *d = if *x == y[channel] { share } else { 0.0 };
                }
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
        Kind::Global
    }
}

fn maximum<'a>(pixels: impl Iterator<Item = &'a [f32]>, out: &mut [f32]) {
    out.fill(f32::NEG_INFINITY);
    for pixel in pixels {
        dispatch!(out.iter_mut().zip(pixel).for_each(|(y, x)| *y = if *x <= *y || y.is_nan() { *y } else { *x }));
    }
}

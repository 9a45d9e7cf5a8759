//! `max_pool` and `avg_pool`: kernel, stride (default: the kernel), pad, ceil.
//!
//! Without `ceil`, incomplete windows are dropped; with it, a last window may extend beyond the padded input, but begins
//! inside the input or its left padding. Averages divide by the number of the window's pixels inside the padded input.
//! If the maximum occurs several times in a window, the gradient goes to the first occurrence in row order.
//!
//! Kernels: kernels/pool.cu (`max_pool_*`, `avg_pool_*`); launches: cuda.rs; CPU: cpu.rs; reference: tests/ops/loops.rs;
//! cases: cases.rs.

use super::gpu::{GpuBackward, GpuForward};
use super::{Backward, Forward, Kind, Needs, Operation, Padding, Pair, Shape, Side, parse, single};
use crate::device::Recorder;
use crate::settings::{Mistake, within};
use serde::Deserialize;
use std::ops::Range;

pub mod cases;
mod cpu;
mod cuda;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(deserialize_with = "within::<Side, _, _>")]
    kernel: Pair,
    #[serde(default, deserialize_with = "within::<Side, _, _>")]
    stride: Option<Pair>,
    #[serde(default = "zero", deserialize_with = "within::<Padding, _, _>")]
    pad: Pair,
    #[serde(default)]
    ceil: bool,
}

fn zero() -> Pair {
    Pair::both(0)
}

/// The statistic of a window.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    Max,
    Average,
}

impl Statistic {
    /// Folds another pixel of a window into the result so far: the maximum (NaN wins, and stays) or the sum.
    #[inline(always)]
    pub fn take(self, gathered: &mut [f32], pixel: &[f32]) {
        gathered.iter_mut().zip(pixel).for_each(|(m, v)| *m = self.fold(*m, *v));
    }

    #[inline(always)]
    fn fold(self, m: f32, v: f32) -> f32 {
        match self {
            Self::Max => {
                if v <= m || m.is_nan() {
                    m
                } else {
                    v
                }
            }
            Self::Average => m + v,
        }
    }

    /// [`Statistic::take`] of all pixels of a window, in registers.
    #[inline(always)]
    fn take_all<const PIXELS: usize>(self, gathered: &mut [f32], pixels: [&[f32]; PIXELS]) {
        let pixels = pixels.map(|pixel| &pixel[..gathered.len()]);
        for (channel, gathered) in gathered.iter_mut().enumerate() {
            *gathered = pixels[1..].iter().fold(pixels[0][channel], |m, pixel| self.fold(m, pixel[channel]));
        }
    }
}

/// Builds `type = "max_pool"`.
pub fn build_max(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    build(table, inputs, Statistic::Max)
}

/// Builds `type = "avg_pool"`.
pub fn build_avg(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    build(table, inputs, Statistic::Average)
}

fn build(table: toml::Table, inputs: &[Shape], statistic: Statistic) -> Result<Box<dyn Operation>, Mistake> {
    let Keys { kernel, stride, pad, ceil } = parse(table)?;
    let stride = stride.unwrap_or(kernel);
    let input = single(inputs)?;
    if pad.h > kernel.h / 2 || pad.w > kernel.w / 2 {
        let found = format!("pad {pad} is more than half of kernel {kernel}: a window could lie in padding alone");
        return Err(Mistake::at("pad", found));
    }
    let axis = |size: usize, kernel: usize, stride: usize, pad: usize| {
        let room = (size + 2 * pad).checked_sub(kernel)?;
        let mut output = if ceil { room.div_ceil(stride) } else { room / stride } + 1;
        if ceil && (output - 1) * stride >= size + pad {
            output -= 1;
        }
        Some(output)
    };
    let (Some(h), Some(w)) = (axis(input.h, kernel.h, stride.h, pad.h), axis(input.w, kernel.w, stride.w, pad.w))
    else {
        return Err(format!("kernel {kernel} with pad {pad} is larger than the input {input}").into());
    };
    Ok(Box::new(Pool { statistic, input, output: Shape::new(input.c, h, w), kernel, stride, pad }))
}

/// A bound pool.
#[derive(Debug, Clone)]
pub struct Pool {
    pub statistic: Statistic,
    pub input: Shape,
    pub output: Shape,
    pub kernel: Pair,
    pub stride: Pair,
    pub pad: Pair,
}

impl Pool {
    /// Input rows and columns of the window of output (y, x), and the number that an average divides by.
    fn window(&self, y: usize, x: usize) -> (Range<usize>, Range<usize>, usize) {
        let axis = |at: usize, kernel: usize, stride: usize, pad: usize, size: usize| {
            let start = at * stride;
            let end = (start + kernel).min(size + 2 * pad);
            (start.saturating_sub(pad)..end.saturating_sub(pad).min(size), end - start)
        };
        let (rows, height) = axis(y, self.kernel.h, self.stride.h, self.pad.h, self.input.h);
        let (columns, width) = axis(x, self.kernel.w, self.stride.w, self.pad.w, self.input.w);
        (rows, columns, height * width)
    }
}

impl Operation for Pool {
    fn output(&self) -> Shape {
        self.output
    }

    fn flops(&self) -> u64 {
        (self.output.len() as u64).saturating_mul((self.kernel.h * self.kernel.w) as u64)
    }

    fn needs(&self) -> Needs {
        let max = self.statistic == Statistic::Max;
        Needs { inputs: max, output: max }
    }

    fn applies_rectifier(&self) -> bool {
        self.statistic == Statistic::Max
    }

    fn backward_workspace(&self, _n: usize) -> usize {
        super::parallel::threads() * self.input.c
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
        Kind::Pool(self)
    }
}

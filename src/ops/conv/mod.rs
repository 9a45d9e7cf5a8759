//! Convolution with filters that are shared globally, shared locally, or not shared.
//!
//! All three are one operation ([`Filter`]). Each output pixel belongs to a *region*; the region selects the filter bank and
//! offsets the window that is read. One region is an ordinary convolution, a grid of regions a locally shared
//! one, a region per pixel the unshared layer of DeepFace (Taigman et al., CVPR 2014); a linear layer is a 1x1 filter
//! over a 1x1 map. One routine, forward and backward, therefore serves conv, local_conv and linear.
//!
//! Kernels: kernels/conv.cu (`conv_forward_*`, `conv_backward_data_*`, `conv_backward_weights_*`), kernels/im2col.cu and
//! kernels/gemm.cu; launches: cuda.rs; CPU: forward.rs and cpu.rs; reference: tests/ops/loops.rs; cases: cases.rs.

use super::activation::Activation;
use super::gpu::{GpuBackward, GpuForward};
use super::{Backward, Forward, Kind, Needs, Operation, Pair, Parameter, Permutation, Shape, parse, single};
use super::{Channels, Padding, Side};
use crate::device::{Gpu, Recorder};
use crate::settings::{Mistake, within};
use serde::Deserialize;

pub mod cases;
mod cpu;
pub(crate) mod cuda;
mod forward;

/// `type = "conv"`: weight `[filters, c / groups, kh, kw]`, bias `[filters]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Conv {
    #[serde(deserialize_with = "within::<Channels, _, _>")]
    filters: usize,
    #[serde(deserialize_with = "within::<Side, _, _>")]
    kernel: Pair,
    #[serde(default = "one", deserialize_with = "within::<Side, _, _>")]
    stride: Pair,
    #[serde(default = "zero", deserialize_with = "within::<Padding, _, _>")]
    pad: Pair,
    #[serde(default = "one_group", deserialize_with = "within::<Channels, _, _>")]
    groups: usize,
    #[serde(default = "yes")]
    bias: bool,
    #[serde(default)]
    activation: Activation,
}

fn one() -> Pair {
    Pair::both(1)
}

fn zero() -> Pair {
    Pair::both(0)
}

fn one_group() -> usize {
    1
}

pub(super) fn yes() -> bool {
    true
}

/// Builds `type = "conv"`.
pub fn build(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    let conv: Conv = parse(table)?;
    let input = single(inputs)?;
    let Conv { filters, kernel, stride, pad, groups, .. } = conv;
    if input.c % groups != 0 || filters % groups != 0 {
        let found = format!("{groups} groups do not divide {} input channels and {filters} filters", input.c);
        return Err(Mistake::at("groups", found));
    }
    let output = |size: usize, kernel: usize, stride: usize, pad: usize| {
        (size + 2 * pad).checked_sub(kernel).map(|room| room / stride + 1)
    };
    let (Some(h), Some(w)) = (output(input.h, kernel.h, stride.h, pad.h), output(input.w, kernel.w, stride.w, pad.w))
    else {
        return Err(format!("kernel {kernel} with pad {pad} is larger than the input {input}").into());
    };
    Ok(Box::new(Filter {
        input,
        output: Shape::new(filters, h, w),
        kernel,
        stride,
        pad,
        groups,
        grid: one(),
        cell: zero(),
        block: Pair { h, w },
        bias: conv.bias,
        activation: conv.activation,
        weight_shape: vec![filters, input.c / groups, kernel.h, kernel.w],
        flattened: None,
    }))
}

/// A bound filter layer. Output pixel (y, x) lies in region (a, b) = (y / block.h, x / block.w), with (u, v) the remainders;
/// tap (i, j) reads input pixel (a cell.h + u stride.h + i - pad.h, b cell.w + v stride.w + j - pad.w) with bank
/// a grid.w + b. The input is zero-padded.
///
/// Weight layout in memory: `[bank][group][kh][kw][c / groups][filters / groups]`, so that each bank and group is the
/// right-hand side `[taps, filters]` of a matrix product over pixels.
#[derive(Debug, Clone)]
pub struct Filter {
    pub input: Shape,
    pub output: Shape,
    pub kernel: Pair,
    pub stride: Pair,
    pub pad: Pair,
    pub groups: usize,
    /// Regions per axis.
    pub grid: Pair,
    /// Input pixels between adjacent regions.
    pub cell: Pair,
    /// Output pixels of a region per axis.
    pub block: Pair,
    pub bias: bool,
    pub activation: Activation,
    /// Shape of the weight in files.
    pub weight_shape: Vec<usize>,
    /// A linear layer's input shape before flattening to 1 x 1.
    pub flattened: Option<Shape>,
}

impl Filter {
    /// Filter banks.
    pub fn banks(&self) -> usize {
        self.grid.h * self.grid.w
    }

    /// Weights of one filter: the length of its dot product.
    pub fn taps(&self) -> usize {
        self.kernel.h * self.kernel.w * self.input.c / self.groups
    }

    /// Filters per group.
    pub fn group_filters(&self) -> usize {
        self.output.c / self.groups
    }

    /// True if the window of a pixel is exactly that pixel's channels, so that no gathering is needed.
    fn is_pointwise(&self) -> bool {
        self.kernel == Pair::both(1)
            && self.stride == Pair::both(1)
            && self.pad == Pair::both(0)
            && self.groups == 1
            && self.banks() == 1
    }
}

impl Operation for Filter {
    fn output(&self) -> Shape {
        self.output
    }

    fn parameters(&self) -> Vec<Parameter> {
        let (kernel, input) = (self.kernel, self.flattened.unwrap_or(self.input));
        let (o, c) = (self.group_filters(), self.input.c / self.groups);
        let order = if self.flattened.is_some() {
            Permutation::new(&[o, input.c, input.h, input.w], &[2, 3, 1, 0])
        } else {
            Permutation::new(&[self.banks(), self.groups, o, c, kernel.h, kernel.w], &[0, 1, 4, 5, 3, 2])
        };
        let gain = if self.activation == Activation::Relu { 2.0 } else { 1.0 };
        let weight = Parameter { suffix: "weight", shape: self.weight_shape.clone(), order, fan_in: self.taps(), gain };
        let mut parameters = vec![weight];
        if self.bias {
            let mut shape = vec![self.output.c];
            if self.weight_shape.len() == 5 {
                shape.insert(0, self.banks());
            }
            let order = Permutation::identity(self.banks() * self.output.c);
            parameters.push(Parameter { suffix: "bias", shape, order, fan_in: 0, gain: 0.0 });
        }
        parameters
    }

    fn flops(&self) -> u64 {
        2u64.saturating_mul((self.output.len() as u64).saturating_mul(self.taps() as u64))
    }

    fn needs(&self) -> Needs {
        Needs { inputs: true, output: self.activation != Activation::None }
    }

    fn rectifies(&self) -> bool {
        self.activation == Activation::Relu
    }

    fn prepared_len(&self) -> usize {
        forward::packed_len(self)
    }

    fn prepare(&self, params: &[&[f32]], to: &mut [f32]) {
        forward::pack(self, params[0], to);
    }

    fn forward_workspace(&self, n: usize) -> usize {
        forward::workspace(self, n)
    }

    fn backward_workspace(&self, n: usize) -> usize {
        cpu::backward_workspace(self, n)
    }

    fn forward(&self, pass: Forward<'_>) {
        forward::forward(self, pass);
    }

    fn backward(&self, pass: Backward<'_, '_>) {
        cpu::backward(self, pass);
    }

    fn gpu_forward_workspace(&self, n: usize, gpu: &Gpu) -> usize {
        cuda::forward_workspace(self, n, gpu)
    }

    fn gpu_backward_workspace(&self, n: usize, gpu: &Gpu) -> usize {
        cuda::backward_workspace(self, n, gpu)
    }

    fn record_forward(&self, pass: GpuForward<'_>, to: &mut Recorder<'_>) {
        cuda::record_forward(self, pass, to);
    }

    fn record_backward(&self, pass: GpuBackward<'_>, to: &mut Recorder<'_>) {
        cuda::record_backward(self, pass, to);
    }

    fn kind(&self) -> Kind<'_> {
        Kind::Filter(self)
    }
}

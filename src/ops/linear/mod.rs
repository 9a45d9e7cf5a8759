//! `type = "linear"`: weight `[outputs, c h w]` over the input flattened as C, H, W; bias `[outputs]`.
//!
//! A sample's values are contiguous whatever their layout, so this is a 1x1 filter over a 1x1 map; the order of the weight's
//! columns accounts for files flattening C, H, W and memory H, W, C.
//!
//! Kernels: kernels/gemm.cu (`gemm_nn_*` forward, `gemm_nt_*` data gradient, `gemm_tn_*` weight gradient); launches:
//! ops/conv/cuda.rs; CPU: src/ops/conv/cpu.rs; reference: tests/ops/loops.rs; cases: cases.rs.

pub mod cases;

use super::activation::Activation;
use super::conv::{Filter, yes};
use super::{Channels, Operation, Pair, Shape, parse, single};
use crate::settings::{Mistake, within};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Linear {
    #[serde(deserialize_with = "within::<Channels, _, _>")]
    outputs: usize,
    #[serde(default = "yes")]
    bias: bool,
    #[serde(default)]
    activation: Activation,
}

/// Builds `type = "linear"`.
pub fn build(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    let linear: Linear = parse(table)?;
    let input = single(inputs)?;
    let one = Pair::both(1);
    Ok(Box::new(Filter {
        input: Shape::new(input.len(), 1, 1),
        output: Shape::new(linear.outputs, 1, 1),
        kernel: one,
        stride: one,
        pad: Pair::both(0),
        groups: 1,
        grid: one,
        cell: Pair::both(0),
        block: one,
        bias: linear.bias,
        activation: linear.activation,
        weight_shape: vec![linear.outputs, input.len()],
        flattened: Some(input),
    }))
}

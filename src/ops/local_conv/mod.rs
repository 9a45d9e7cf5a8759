//! `type = "local_conv"`: filters shared within the cells of a grid (paper section 2.2, "locally shared filters").
//!
//! weight `[grid^2, filters, c, kh, kw]`, bias `[grid^2, filters]`; bank (a, b) reads `span` x `span` cells of the input
//! from cell (a, b) on. Window `halo` reads the kernel - 1 pixels beyond its cells too, so its block is span * cell;
//! window `valid` stays inside, so its block is span * cell - kernel + 1. Blocks are laid side by side. With `grid` as
//! large as the output every pixel has its own filters (unshared).
//!
//! Kernels: kernels/conv.cu (weight gradient: `conv_backward_weights_*`); launches: src/ops/conv/cuda.rs; CPU:
//! src/ops/conv/cpu.rs (weight gradient: `backward_weights`); reference: tests/ops/loops.rs; cases: cases.rs.

pub mod cases;

use super::activation::Activation;
use super::conv::{Filter, yes};
use super::{Channels, Operation, Pair, Shape, Side, parse, single};
use crate::settings::{Mistake, within};
use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct LocalConv {
    #[serde(deserialize_with = "within::<Channels, _, _>")]
    filters: usize,
    #[serde(deserialize_with = "within::<Side, _, _>")]
    kernel: Pair,
    #[serde(deserialize_with = "within::<Side, _, _>")]
    grid: Pair,
    #[serde(default = "one", deserialize_with = "within::<Side, _, _>")]
    span: Pair,
    window: CellWindow,
    #[serde(default = "yes")]
    bias: bool,
    #[serde(default)]
    activation: Activation,
}

fn one() -> Pair {
    Pair::both(1)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum CellWindow {
    Halo,
    Valid,
}

/// Builds `type = "local_conv"`.
pub fn build(table: toml::Table, inputs: &[Shape]) -> Result<Box<dyn Operation>, Mistake> {
    let local: LocalConv = parse(table)?;
    let input = single(inputs)?;
    let LocalConv { filters, kernel, grid, span, window, .. } = local;
    let axis = |name: &str, size: usize, kernel: usize, grid: usize, span: usize| {
        let beyond = if window == CellWindow::Halo { kernel - 1 } else { 0 };
        let cells = grid + span - 1;
        let inside = size.saturating_sub(beyond);
        if inside == 0 || inside % cells != 0 {
            return Err(format!(
                "input {input}: {name} {size}{} is not a multiple of {cells} cells (grid {grid}, span {span})",
                if beyond > 0 { format!(" less {beyond} beyond the cells") } else { String::new() }
            ));
        }
        let cell = inside / cells;
        match (span * cell + beyond + 1).checked_sub(kernel) {
            Some(block) if block > 0 => Ok((cell, block)),
            _ => Err(format!("kernel {kernel} is larger than the {span} cells of {cell} pixels that one bank reads")),
        }
    };
    let (cell_h, block_h) = axis("height", input.h, kernel.h, grid.h, span.h)?;
    let (cell_w, block_w) = axis("width", input.w, kernel.w, grid.w, span.w)?;
    Ok(Box::new(Filter {
        input,
        output: Shape::new(filters, grid.h * block_h, grid.w * block_w),
        kernel,
        stride: one(),
        pad: Pair::both(0),
        groups: 1,
        grid,
        cell: Pair { h: cell_h, w: cell_w },
        block: Pair { h: block_h, w: block_w },
        bias: local.bias,
        activation: local.activation,
        weight_shape: vec![grid.h * grid.w, filters, input.c, kernel.h, kernel.w],
        flattened: None,
    }))
}

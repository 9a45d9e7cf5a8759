//! Losses on a GPU: kernels/loss.cu.

use super::{Formula, Loss};
use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::gpu::{BLOCK, GpuBackward, GpuForward, cover, lanes, pack};
use crate::ops::softmax::group_width;

kernel_parameters! {
    LossParams: 64 {
        x: Ptr, targets: Ptr, seed: Ptr, partial: Ptr, out: Ptr,
        count: u64, c: u32, width: u32, lanes: u32, weight: f32,
    }
}

kernel_parameters! {
    LossSum: 40 { partial: Ptr, pairs: Ptr, loss: Ptr, count: f64, blocks: u32, weight: f32 }
}

/// Blocks whose partial sums are added at the end.
fn blocks(op: &Loss, n: usize, lanes: usize) -> usize {
    let threads = match op.formula {
        Formula::SoftmaxCrossEntropy => n * op.input.area() * group_width(op.input.c / lanes),
        // A few values per thread.
        Formula::SigmoidCrossEntropy => (n * op.input.len()).div_ceil(4).min(1024 * BLOCK),
        Formula::Similarity => n * op.input.len() / lanes,
    };
    threads.div_ceil(BLOCK)
}

/// A double per block, and the number of pairs.
pub fn forward_workspace(op: &Loss, n: usize) -> usize {
    8 * (1 + blocks(op, n, 1))
}

/// The number of pairs.
pub const BACKWARD_WORKSPACE: usize = 8;

pub fn forward(op: &Loss, pass: &GpuForward<'_>, to: &mut Recorder<'_>) {
    let x = pass.inputs[0];
    let similar = op.formula == Formula::Similarity;
    let parameters = LossParams {
        targets: if op.formula == Formula::SigmoidCrossEntropy { pass.targets.values } else { pass.targets.classes },
        partial: pass.workspace,
        ..parameters(op, pass.n, x, Ptr::NULL, to)
    };
    if similar {
        pairs(&parameters, to);
    }
    let name = match op.formula {
        Formula::SoftmaxCrossEntropy => "softmax_cross_entropy_forward",
        Formula::SigmoidCrossEntropy => "sigmoid_cross_entropy_forward",
        Formula::Similarity => "similarity_forward",
    };
    let blocks = blocks(op, pass.n, parameters.lanes as usize);
    let (flops, bytes) = (4 * pass.n * op.input.len(), pass.n * op.input.len() * to.precision().bytes());
    let grid = [blocks, 1, 1];
    to.launch(Launch::new(to.stored(name), grid, BLOCK, &parameters).work(flops as u64, bytes as u64));
    let sum = LossSum {
        partial: if similar { pass.workspace.offset(8) } else { pass.workspace },
        pairs: if similar { pass.workspace } else { Ptr::NULL },
        loss: pass.output,
        count: parameters.count as f64,
        blocks: blocks as u32,
        weight: op.weight,
    };
    to.launch(Launch::new("loss_sum_f32", [1; 3], BLOCK, &sum).work(blocks as u64, 8 * blocks as u64));
}

pub fn backward(op: &Loss, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let Some(d_input) = pass.d_inputs[0] else { return };
    let parameters = LossParams {
        targets: if op.formula == Formula::SigmoidCrossEntropy { pass.targets.values } else { pass.targets.classes },
        seed: pass.d_output,
        partial: pass.workspace,
        ..parameters(op, pass.n, pass.inputs[0], d_input, to)
    };
    let len = pass.n * op.input.len();
    let (name, grid) = match op.formula {
        Formula::SoftmaxCrossEntropy => {
            ("softmax_cross_entropy_backward", cover(parameters.count as usize * parameters.width as usize))
        }
        Formula::SigmoidCrossEntropy => ("sigmoid_cross_entropy_backward", cover(len.div_ceil(pack(to.precision())))),
        Formula::Similarity => {
            pairs(&parameters, to);
            ("similarity_backward", cover(len / parameters.lanes as usize))
        }
    };
    let (flops, bytes) = (4 * len, 2 * len * to.precision().bytes());
    to.launch(Launch::new(to.stored(name), grid, BLOCK, &parameters).work(flops as u64, bytes as u64));
}

/// What is common to both directions.
fn parameters(op: &Loss, n: usize, x: Ptr, out: Ptr, to: &Recorder<'_>) -> LossParams {
    let (c, count) = match op.formula {
        Formula::SoftmaxCrossEntropy => (op.input.c, n * op.input.area()),
        Formula::SigmoidCrossEntropy => (op.input.c, n * op.input.len()),
        Formula::Similarity => (op.input.len(), n),
    };
    let lanes = lanes(to.precision(), c, &[x, out]);
    LossParams {
        x,
        targets: Ptr::NULL,
        seed: Ptr::NULL,
        partial: Ptr::NULL,
        out,
        count: count as u64,
        c: c as u32,
        width: group_width(c / lanes) as u32,
        lanes: lanes as u32,
        weight: op.weight,
    }
}

/// Counts the pairs of one identity.
fn pairs(parameters: &LossParams, to: &mut Recorder<'_>) {
    let n = parameters.count;
    to.launch(Launch::new("similarity_pairs_f32", [1; 3], BLOCK, parameters).work(n * n / 2, 4 * n));
}

//! Group normalisation on a GPU: kernels/group_norm.cu.

use super::GroupNorm;
use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::gpu::{BLOCK, GpuBackward, GpuForward, cover, lanes};

kernel_parameters! {
    GroupNormParams: 72 {
        x: Ptr, dy: Ptr, weight: Ptr, bias: Ptr, out: Ptr, sums: Ptr,
        area: u32, c: u32, groups: u32, eps: f32, width: u32, lanes: u32,
    }
}

kernel_parameters! {
    GroupNormSums: 32 { sums: Ptr, d_weight: Ptr, d_bias: Ptr, n: u32, c: u32 }
}

/// Two sums per sample and channel, in f32.
pub fn backward_workspace(op: &GroupNorm, n: usize) -> usize {
    4 * 2 * n * op.shape.c
}

pub fn forward(op: &GroupNorm, pass: &GpuForward<'_>, to: &mut Recorder<'_>) {
    let [x, out] = [pass.inputs[0], pass.output];
    let lanes = lanes(to.precision(), op.channels(), &[x, out]);
    let parameters = GroupNormParams { x, weight: pass.params[0], bias: pass.params[1], out, ..parameters(op, lanes) };
    // The map is read for the mean, for the variance and for the result, which is written.
    launch(op, "group_norm_forward", pass.n, 9, 4, &parameters, to);
}

pub fn backward(op: &GroupNorm, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let (n, c) = (pass.n, op.shape.c);
    let [x, dy, out] = [pass.inputs[0], pass.d_output, pass.d_inputs[0].unwrap_or(Ptr::NULL)];
    let lanes = lanes(to.precision(), op.channels(), &[x, dy, out]);
    let sums = pass.workspace;
    let backward = GroupNormParams { x, dy, weight: pass.params[0], out, sums, ..parameters(op, lanes) };
    launch(op, "group_norm_backward", n, 20, if out == Ptr::NULL { 4 } else { 7 }, &backward, to);
    let [d_weight, d_bias] = [pass.d_params[0], pass.d_params[1]];
    let gather = GroupNormSums { sums, d_weight, d_bias, n: n as u32, c: c as u32 };
    let launch = Launch::new("group_norm_parameters_f32", cover(c), BLOCK, &gather);
    to.launch(launch.work(2 * (n * c) as u64, 8 * ((n + 1) * c) as u64));
}

fn parameters(op: &GroupNorm, lanes: usize) -> GroupNormParams {
    GroupNormParams {
        x: Ptr::NULL,
        dy: Ptr::NULL,
        weight: Ptr::NULL,
        bias: Ptr::NULL,
        out: Ptr::NULL,
        sums: Ptr::NULL,
        area: op.shape.area() as u32,
        c: op.shape.c as u32,
        groups: op.groups as u32,
        eps: op.eps,
        width: (op.channels() / lanes).next_power_of_two().min(32) as u32,
        lanes: lanes as u32,
    }
}

/// One block per sample and group; `flops` per value, and `maps` maps read or written.
fn launch(
    op: &GroupNorm,
    name: &str,
    n: usize,
    flops: usize,
    maps: usize,
    parameters: &GroupNormParams,
    to: &mut Recorder<'_>,
) {
    let values = n * op.shape.len();
    let bytes = maps * values * to.precision().bytes();
    let launch = Launch::new(to.stored(name), [n * op.groups, 1, 1], BLOCK, parameters);
    to.launch(launch.work((flops * values) as u64, bytes as u64));
}

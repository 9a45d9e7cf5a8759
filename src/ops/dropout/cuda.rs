//! Dropout on a GPU: kernels/dropout.cu. The seed is read from device memory at run time, so one program serves all steps.

use super::Dropout;
use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::activation::Activation;
use crate::ops::gpu::{self, BLOCK, GpuBackward, GpuForward, cover, pack};

kernel_parameters! {
    DropoutParams: 40 { x: Ptr, out: Ptr, step: Ptr, count: u64, stream: u32, rate: f32 }
}

pub fn forward(op: &Dropout, pass: &GpuForward<'_>, to: &mut Recorder<'_>) {
    let count = pass.n * op.shape.len();
    apply(op, pass.training.then_some(pass.step), pass.stream, [pass.inputs[0], pass.output], count, to);
}

pub fn backward(op: &Dropout, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let Some(d_input) = pass.d_inputs[0] else { return };
    let count = pass.n * op.shape.len();
    apply(op, pass.training.then_some(pass.step), pass.stream, [pass.d_output, d_input], count, to);
}

/// A null step copies the values.
fn apply(op: &Dropout, step: Option<Ptr>, stream: u64, [x, out]: [Ptr; 2], count: usize, to: &mut Recorder<'_>) {
    let Some(step) = step else { return gpu::activation_forward(to, Activation::None, x, out, count) };
    let parameters = DropoutParams { x, out, step, count: count as u64, stream: stream as u32, rate: op.rate };
    let grid = cover(count.div_ceil(pack(to.precision())));
    let bytes = 2 * count * to.precision().bytes();
    to.launch(Launch::new(to.stored("dropout"), grid, BLOCK, &parameters).work(count as u64, bytes as u64));
}

//! Softmax on a GPU: kernels/softmax.cu.

use super::Softmax;
use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::gpu::{BLOCK, GpuBackward, GpuForward, cover, lanes};

kernel_parameters! {
    SoftmaxParams: 48 { x: Ptr, dy: Ptr, out: Ptr, pixels: u64, c: u32, width: u32, lanes: u32, unused: u32 }
}

/// Lanes of a warp that share a pixel of `items` packs or channels: several items per lane.
pub fn group_width(items: usize) -> usize {
    (items / 4).next_power_of_two().min(32)
}

pub fn forward(op: &Softmax, pass: &GpuForward<'_>, to: &mut Recorder<'_>) {
    launch(op, "softmax_forward", pass.n, [pass.inputs[0], Ptr::NULL, pass.output], to);
}

pub fn backward(op: &Softmax, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let Some(d_input) = pass.d_inputs[0] else { return };
    launch(op, "softmax_backward", pass.n, [pass.output, pass.d_output, d_input], to);
}

fn launch(op: &Softmax, name: &str, n: usize, tensors: [Ptr; 3], to: &mut Recorder<'_>) {
    let (pixels, c, [x, dy, out]) = (n * op.shape.area(), op.shape.c, tensors);
    let lanes = lanes(to.precision(), c, &tensors);
    let width = group_width(c / lanes);
    let parameters = SoftmaxParams {
        x,
        dy,
        out,
        pixels: pixels as u64,
        c: c as u32,
        width: width as u32,
        lanes: lanes as u32,
        unused: 0,
    };
    let touched = tensors.iter().filter(|tensor| **tensor != Ptr::NULL).count();
    let bytes = touched * pixels * c * to.precision().bytes();
    let launch = Launch::new(to.stored(name), cover(pixels * width), BLOCK, &parameters);
    to.launch(launch.work(4 * (pixels * c) as u64, bytes as u64));
}

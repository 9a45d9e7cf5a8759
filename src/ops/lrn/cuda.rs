//! Response normalisation on a GPU: kernels/lrn.cu.

use super::Lrn;
use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::gpu::{BLOCK, GpuBackward, GpuForward, cover, lanes};

kernel_parameters! {
    LrnParams: 64 {
        x: Ptr, y: Ptr, dy: Ptr, out: Ptr, count: u64, c: u32, size: u32,
        /// Already divided by the size.
        alpha: f32,
        beta: f32, k: f32, lanes: u32,
    }
}

/// The window size that has a packed path.
const PACKED_SIZE: usize = 5;

pub fn forward(l: &Lrn, pass: &GpuForward<'_>, to: &mut Recorder<'_>) {
    launch(l, "lrn_forward", pass.n, [pass.inputs[0], Ptr::NULL, Ptr::NULL, pass.output], to);
}

pub fn backward(l: &Lrn, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let Some(d_input) = pass.d_inputs[0] else { return };
    launch(l, "lrn_backward", pass.n, [pass.inputs[0], pass.output, pass.d_output, d_input], to);
}

fn launch(l: &Lrn, name: &str, n: usize, tensors: [Ptr; 4], to: &mut Recorder<'_>) {
    let (count, [x, y, dy, out]) = (n * l.shape.len(), tensors);
    let lanes = if l.size == PACKED_SIZE { lanes(to.precision(), l.shape.c, &tensors) } else { 1 };
    let parameters = LrnParams {
        x,
        y,
        dy,
        out,
        count: count as u64,
        c: l.shape.c as u32,
        size: l.size as u32,
        alpha: l.alpha / l.size as f32,
        beta: l.beta,
        k: l.k,
        lanes: lanes as u32,
    };
    let touched = tensors.iter().filter(|tensor| **tensor != Ptr::NULL).count();
    let (flops, bytes) = (count * (2 * l.size + 2) * (touched - 1).max(1), touched * count * to.precision().bytes());
    let launch = Launch::new(to.stored(name), cover(count / lanes), BLOCK, &parameters);
    to.launch(launch.work(flops as u64, bytes as u64));
}

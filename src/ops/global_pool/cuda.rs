//! Global pools on a GPU: kernels/global_pool.cu.

use super::{GlobalPool, Mode};
use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::gpu::{BLOCK, GpuBackward, GpuForward, cover, lanes};

kernel_parameters! {
    GlobalPoolParams: 56 {
        x: Ptr, dy: Ptr, out: Ptr,
        n: u32, area: u32, c: u32, mode: u32, sharpness: f32, width: u32, lanes: u32, unused: u32,
    }
}

pub fn forward(op: &GlobalPool, pass: &GpuForward<'_>, to: &mut Recorder<'_>) {
    launch(op, "global_pool_forward", true, pass.n, [pass.inputs[0], Ptr::NULL, pass.output], to);
}

pub fn backward(op: &GlobalPool, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let Some(d_input) = pass.d_inputs[0] else { return };
    if op.mode == Mode::Avg {
        launch(op, "global_average_backward", false, pass.n, [Ptr::NULL, pass.d_output, d_input], to);
    } else {
        launch(op, "global_pool_backward", true, pass.n, [pass.inputs[0], pass.d_output, d_input], to);
    }
}

/// One block per sample and tile of channels, or one thread per pack.
fn launch(op: &GlobalPool, name: &str, tiled: bool, n: usize, tensors: [Ptr; 3], to: &mut Recorder<'_>) {
    let (c, [x, dy, out]) = (op.input.c, tensors);
    let lanes = lanes(to.precision(), c, &tensors);
    let items = c / lanes;
    let width = items.next_power_of_two().min(32);
    let parameters = GlobalPoolParams {
        x,
        dy,
        out,
        n: n as u32,
        area: op.input.area() as u32,
        c: c as u32,
        mode: op.mode as u32,
        sharpness: op.sharpness,
        width: width as u32,
        lanes: lanes as u32,
        unused: 0,
    };
    let grid = if tiled { [n * items.div_ceil(width), 1, 1] } else { cover(n * op.input.area() * items) };
    let maps = usize::from(x != Ptr::NULL) + usize::from(dy != Ptr::NULL);
    let bytes = (maps * op.input.len() + c) * n * to.precision().bytes();
    let flops = n * op.input.len();
    to.launch(Launch::new(to.stored(name), grid, BLOCK, &parameters).work(flops as u64, bytes as u64));
}

//! Pools on a GPU: kernels/pool.cu.

use super::{Pool, Statistic};
use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::gpu::{BLOCK, GpuBackward, GpuForward, cover, lanes};

kernel_parameters! {
    PoolParams: 88 {
        x: Ptr, y: Ptr, from: Ptr, to: Ptr,
        n: u32, c: u32, h: u32, w: u32, oh: u32, ow: u32,
        kh: u32, kw: u32, sh: u32, sw: u32, ph: u32, pw: u32,
        lanes: u32, unused: u32,
    }
}

pub fn forward(p: &Pool, pass: &GpuForward<'_>, to: &mut Recorder<'_>) {
    let name = if p.statistic == Statistic::Max { "max_pool_forward" } else { "avg_pool_forward" };
    let parameters = parameters(p, pass.n, [Ptr::NULL, Ptr::NULL, pass.inputs[0], pass.output], to);
    launch(p, name, pass.n, p.output.len(), parameters, to);
}

pub fn backward(p: &Pool, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let Some(d_input) = pass.d_inputs[0] else { return };
    let (name, [x, y]) = match p.statistic {
        Statistic::Max => ("max_pool_backward", [pass.inputs[0], pass.output]),
        Statistic::Average => ("avg_pool_backward", [Ptr::NULL; 2]),
    };
    let parameters = parameters(p, pass.n, [x, y, pass.d_output, d_input], to);
    launch(p, name, pass.n, p.input.len(), parameters, to);
}

fn parameters(p: &Pool, n: usize, [x, y, from, into]: [Ptr; 4], to: &Recorder<'_>) -> PoolParams {
    PoolParams {
        x,
        y,
        from,
        to: into,
        n: n as u32,
        c: p.input.c as u32,
        h: p.input.h as u32,
        w: p.input.w as u32,
        oh: p.output.h as u32,
        ow: p.output.w as u32,
        kh: p.kernel.h as u32,
        kw: p.kernel.w as u32,
        sh: p.stride.h as u32,
        sw: p.stride.w as u32,
        ph: p.pad.h as u32,
        pw: p.pad.w as u32,
        lanes: lanes(to.precision(), p.input.c, &[x, y, from, into]) as u32,
        unused: 0,
    }
}

/// Over `n` maps of `len` values.
fn launch(p: &Pool, name: &str, n: usize, len: usize, parameters: PoolParams, to: &mut Recorder<'_>) {
    let flops = n * p.output.len() * p.kernel.h * p.kernel.w;
    let twice = if parameters.x == Ptr::NULL { 1 } else { 2 };
    let bytes = twice * n * (p.input.len() + p.output.len()) * to.precision().bytes();
    let grid = cover(n * len / parameters.lanes as usize);
    to.launch(Launch::new(to.stored(name), grid, BLOCK, &parameters).work(flops as u64, bytes as u64));
}

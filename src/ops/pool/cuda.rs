//! Pools on a GPU: kernels/pool.cu.

use super::{Pool, Statistic};
use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::Shape;
use crate::ops::gpu::{BLOCK, Divisor, GpuBackward, GpuForward, cover, lanes};

kernel_parameters! {
    PoolParams: 152 {
        x: Ptr, y: Ptr, from: Ptr, to: Ptr,
        n: u32, c: u32, h: u32, w: u32, oh: u32, ow: u32,
        kh: u32, kw: u32, sh: u32, sw: u32, ph: u32, pw: u32,
        lanes: u32, rectified: u32, unused: u32,
        by_lanes: Divisor, by_w: Divisor, by_h: Divisor, by_sh: Divisor, by_sw: Divisor,
    }
}

pub fn forward(p: &Pool, pass: &GpuForward<'_>, to: &mut Recorder<'_>) {
    let name = if p.statistic == Statistic::Max { "max_pool_forward" } else { "avg_pool_forward" };
    let parameters = parameters(p, pass.n, [Ptr::NULL, Ptr::NULL, pass.inputs[0], pass.output], p.output, to);
    launch(p, name, pass.n, p.output, parameters, to);
}

pub fn backward(p: &Pool, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let Some(d_input) = pass.d_inputs[0] else { return };
    let apart = p.kernel.h <= p.stride.h && p.kernel.w <= p.stride.w;
    let (name, [x, y], threads) = match p.statistic {
        Statistic::Max if apart => ("max_pool_backward_apart", [pass.inputs[0], pass.output], p.output),
        Statistic::Max => ("max_pool_backward", [pass.inputs[0], pass.output], p.input),
        Statistic::Average => ("avg_pool_backward", [Ptr::NULL; 2], p.input),
    };
    let mut parameters = parameters(p, pass.n, [x, y, pass.d_output, d_input], threads, to);
    parameters.rectified = u32::from(pass.rectify_input);
    launch(p, name, pass.n, threads, parameters, to);
}

/// For a kernel with a thread per pixel of `map`.
fn parameters(p: &Pool, n: usize, [x, y, from, into]: [Ptr; 4], map: Shape, to: &Recorder<'_>) -> PoolParams {
    let lanes = lanes(to.precision(), p.input.c, &[x, y, from, into]);
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
        lanes: lanes as u32,
        rectified: 0,
        unused: 0,
        by_lanes: Divisor::new(p.input.c / lanes),
        by_w: Divisor::new(map.w),
        by_h: Divisor::new(map.h),
        by_sh: Divisor::new(p.stride.h),
        by_sw: Divisor::new(p.stride.w),
    }
}

/// With a thread per pixel and unit of channels of `n` maps.
fn launch(p: &Pool, name: &str, n: usize, map: Shape, parameters: PoolParams, to: &mut Recorder<'_>) {
    let flops = n * p.output.len() * p.kernel.h * p.kernel.w;
    let twice = if parameters.x == Ptr::NULL { 1 } else { 2 };
    let bytes = twice * n * (p.input.len() + p.output.len()) * to.precision().bytes();
    let grid = cover(n * map.len() / parameters.lanes as usize);
    to.launch(Launch::new(to.stored(name), grid, BLOCK, &parameters).work(flops as u64, bytes as u64));
}

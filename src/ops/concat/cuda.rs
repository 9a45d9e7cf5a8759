//! Concatenation on a GPU: kernels/concat.cu, one launch per input.

use super::Concat;
use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::gpu::{BLOCK, GpuBackward, GpuForward, cover, pack};

kernel_parameters! {
    CopyChannels: 48 { x: Ptr, out: Ptr, count: u64, c: u32, from: u32, from_c: u32, to: u32, to_c: u32, lanes: u32 }
}

/// A map and the first channel of a run in it.
struct ChannelRange {
    map: Ptr,
    channels: usize,
    first: usize,
}

pub fn forward(op: &Concat, pass: &GpuForward<'_>, to: &mut Recorder<'_>) {
    let mut first = 0;
    for (&input, &c) in pass.inputs.iter().zip(&op.channels) {
        let part = ChannelRange { map: input, channels: c, first: 0 };
        let whole = ChannelRange { map: pass.output, channels: op.output.c, first };
        copy(pass.n * op.output.area(), c, &part, &whole, to);
        first += c;
    }
}

pub fn backward(op: &Concat, pass: &GpuBackward<'_>, to: &mut Recorder<'_>) {
    let mut first = 0;
    for (&d_input, &c) in pass.d_inputs.iter().zip(&op.channels) {
        if let Some(d_input) = d_input {
            let whole = ChannelRange { map: pass.d_output, channels: op.output.c, first };
            copy(pass.n * op.output.area(), c, &whole, &ChannelRange { map: d_input, channels: c, first: 0 }, to);
        }
        first += c;
    }
}

/// `c` channels of each pixel.
fn copy(pixels: usize, c: usize, from: &ChannelRange, into: &ChannelRange, to: &mut Recorder<'_>) {
    let (pack, count) = (pack(to.precision()), pixels * c);
    let whole = [c, from.channels, from.first, into.channels, into.first].iter().all(|n| n.is_multiple_of(pack));
    let aligned = [from.map, into.map].iter().all(|map| map.0.is_multiple_of(16));
    let lanes = if whole && aligned { pack } else { 1 };
    let parameters = CopyChannels {
        x: from.map,
        out: into.map,
        count: count as u64,
        c: c as u32,
        from: from.first as u32,
        from_c: from.channels as u32,
        to: into.first as u32,
        to_c: into.channels as u32,
        lanes: lanes as u32,
    };
    let bytes = 2 * count * to.precision().bytes();
    to.launch(Launch::new(to.stored("copy_channels"), cover(count / lanes), BLOCK, &parameters).work(0, bytes as u64));
}

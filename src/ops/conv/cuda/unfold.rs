//! Maps of few channels: `conv_unfold` of kernels/conv.cu.

use super::Scratch;
use crate::device::{Gpu, Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::conv::Filter;
use crate::ops::gpu::{self, BLOCK, Divisor, cover};

kernel_parameters! {
    /// kernels/conv.cu
    Unfold: 128 {
        x: Ptr, w: Ptr, windows: Ptr, filters: Ptr,
        n: u32, in_h: u32, in_w: u32, in_c: u32, out_w: u32, stride_w: u32, pad_w: u32, kernel_h: u32,
        run: u32, line: u32, o: u32, packs: u32,
        by_line: Divisor, by_out_w: Divisor, by_o: Divisor, by_lines: Divisor,
    }
}

/// Most values of a line of a window that [`Unfolded`] writes, and how many times larger than the map it may be.
const MOST_UNFOLDED: (usize, usize) = (128, 8);

/// A layer whose map has few channels, as a layer over the lines of its windows: each pixel of the unfolded map holds one line,
/// filled up with zeros to whole packs. The sums are the same, in the same order.
pub(super) struct Unfolded {
    /// The layer over the unfolded map.
    pub filter: Filter,
    /// Values of a line.
    pub run: usize,
}

impl Unfolded {
    /// For odd runs of channels, where filters come in whole packs.
    pub fn new(f: &Filter, n: usize, gpu: &Gpu) -> Option<Self> {
        let pack = gpu::pack(gpu.precision);
        let run = f.kernel.w * f.input.c;
        let line = run.next_multiple_of(pack);
        let is_odd = !f.input.c.is_multiple_of(pack) && f.output.c.is_multiple_of(pack);
        let is_small = line <= MOST_UNFOLDED.0 && line * f.output.w <= MOST_UNFOLDED.1 * f.input.w * f.input.c;
        let mut filter = f.clone();
        (filter.input.c, filter.input.w) = (line, f.output.w);
        (filter.kernel.w, filter.stride.w, filter.pad.w) = (1, 1, 0);
        let is_indexed = n * filter.input.len() / pack < 1 << 31;
        (is_odd && is_small && is_indexed && f.batch() == 1 && !f.plain(gpu)).then_some(Self { filter, run })
    }

    pub fn windows(&self, n: usize, gpu: &Gpu) -> usize {
        n * self.filter.input.len() * gpu.precision.bytes()
    }

    /// Bytes of the filters with their zeros; none where lines are whole packs.
    pub fn filters(&self, gpu: &Gpu) -> usize {
        let line = self.filter.input.c;
        let is_whole = line == self.run;
        if is_whole { 0 } else { self.filter.kernel.h * line * self.filter.output.c * gpu.precision.bytes() }
    }

    /// Writes the lines of `x`, of layer `f`, and of its weights if they are given; returns both.
    pub fn record(
        &self,
        f: &Filter,
        n: usize,
        x: Ptr,
        w: Option<Ptr>,
        scratch: &mut Scratch,
        to: &mut Recorder<'_>,
    ) -> [Ptr; 2] {
        let (pack, line, o) = (gpu::pack(to.precision()), self.filter.input.c, f.output.c);
        let windows = scratch.take(self.windows(n, to.gpu));
        let written = w.filter(|_| line != self.run);
        let filters = if written.is_some() { scratch.take(self.filters(to.gpu)) } else { Ptr::NULL };
        let packs = n * self.filter.input.len() / pack;
        let parameters = Unfold {
            x,
            w: written.unwrap_or(Ptr::NULL),
            windows,
            filters,
            n: n as u32,
            in_h: f.input.h as u32,
            in_w: f.input.w as u32,
            in_c: f.input.c as u32,
            out_w: f.output.w as u32,
            stride_w: f.stride.w as u32,
            pad_w: f.pad.w as u32,
            kernel_h: f.kernel.h as u32,
            run: self.run as u32,
            line: line as u32,
            o: o as u32,
            packs: packs as u32,
            by_line: Divisor::new(line / pack),
            by_out_w: Divisor::new(f.output.w),
            by_o: Divisor::new(o / pack),
            by_lines: Divisor::new(line),
        };
        let count = packs + if written.is_some() { f.kernel.h * line * o / pack } else { 0 };
        let bytes = to.precision().bytes() * (n * f.input.len() + pack * count);
        to.launch(Launch::new(to.stored("conv_unfold"), cover(count), BLOCK, &parameters).work(0, bytes as u64));
        [windows, if written.is_some() { filters } else { w.unwrap_or(Ptr::NULL) }]
    }
}

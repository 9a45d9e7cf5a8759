//! The forward pass of filters on the CPU, without im2col: `Y[pixels, o] = X[pixels, taps] W[taps, o]`, whose left operand is
//! never built. Pixels of a line of a region are a strip of windows ([`crate::ops::product::Strips`]) that the micro-kernel reads
//! in place. A padded input is copied once into a map with its zeros.
//!
//! A task is a group of strips and of panels of filters. A value does not depend on the division into tasks.

use super::Filter;
use crate::ops::Forward;
use crate::ops::activation::Activation;
use crate::ops::parallel::{self, Disjoint, part, threads};
use crate::ops::product::{self, Matrix, Packed, Run, Strip, Strips};
use smallvec::SmallVec;
use std::ops::Range;

/// Strips of a task that need no allocation.
type List = SmallVec<[Strip; 64]>;

/// Tasks per thread, to balance the load.
const TASKS: usize = 4;
/// Windows of a task: enough to pay for reading the filters once more, which are in a thread's own cache (L2)...
const WINDOWS: usize = 96;
/// ...or, if they take more values than this, come from a cache that all threads share.
const LARGE: usize = 128 * 1024;
/// Windows of a task with large filters.
const WINDOWS_OF_LARGE: usize = 256;
/// Shortest lines of a region that are strips of their own; with several samples, windows at the same place of them all are.
const LINE: usize = 5;
/// Windows of a strip that consists of samples.
const SAMPLES: usize = 56;

pub fn packed_len(f: &Filter) -> usize {
    f.banks() * f.groups * product::packed_len(f.taps(), f.group_filters())
}

/// Packs the filters `[bank][group][taps, filters]` one by one.
pub fn pack(f: &Filter, weights: &[f32], to: &mut [f32]) {
    let (taps, filters) = (f.taps(), f.group_filters());
    let (panels, len) = (Packed::panels(filters), product::packed_len(taps, filters));
    let to = Disjoint::new(to);
    parallel::tasks(f.banks() * f.groups * panels, &mut [], |task, _| {
        let (index, panel) = (task / panels, task % panels);
        let from = Matrix::rows(&weights[index * taps * filters..(index + 1) * taps * filters], filters);
        product::pack(taps, filters, from, panel, &to, index * len);
    });
}

/// Height and width of the map that windows are read from: the input, or a copy with zeros around it.
fn map(f: &Filter) -> [usize; 2] {
    [f.input.h + 2 * f.pad.h, f.input.w + 2 * f.pad.w]
}

pub(super) fn padded_len(f: &Filter, n: usize) -> usize {
    let [h, w] = map(f);
    if f.pad.h + f.pad.w == 0 { 0 } else { n * h * w * f.input.c }
}

/// Room for a padded copy of the input, and for filters that nobody has packed.
pub fn workspace(f: &Filter, n: usize) -> usize {
    padded_len(f, n) + packed_len(f)
}

/// The map that windows are read from: the input itself, or a copy with zeros around it in `padded`.
pub(super) fn padded<'a>(f: &Filter, n: usize, input: &'a [f32], padded: &'a mut [f32]) -> &'a [f32] {
    if padded.is_empty() {
        return input;
    }
    let [h, w] = map(f);
    let (line, from_line) = (w * f.input.c, f.input.w * f.input.c);
    let margin = f.pad.w * f.input.c;
    let (lines, parts) = (n * h, (n * h).min(TASKS * threads()));
    let copy = Disjoint::new(padded);
    parallel::tasks(parts, &mut [], |index, _| {
        for row in part(lines, parts, index) {
            // SAFETY: a task owns its lines.
            let to = unsafe { copy.slice(row * line..(row + 1) * line) };
            match (row % h).checked_sub(f.pad.h).filter(|y| *y < f.input.h) {
                Some(y) => {
                    let from = (row / h * f.input.h + y) * from_line;
                    to[..margin].fill(0.0);
                    to[margin..margin + from_line].copy_from_slice(&input[from..from + from_line]);
                    to[margin + from_line..].fill(0.0);
                }
                None => to.fill(0.0),
            }
        }
    });
    padded
}

/// How the output pixels of a region are divided into strips.
pub(super) struct Layout {
    /// True if a strip consists of one pixel of several samples, false if it is a line of a region.
    samples: bool,
    /// Strips of a region.
    pub strips: usize,
    /// Values of a sample and of a line, in the map and in the output.
    sample: [usize; 2],
    line: [usize; 2],
    /// Values between the windows of adjacent pixels, and between the pixels.
    pixel: [usize; 2],
}

impl Layout {
    pub fn new(f: &Filter, n: usize) -> Self {
        let ([h, w], c) = (map(f), [f.input.c, f.output.c]);
        let samples = f.block.w < LINE.min(n + 1);
        let strips = if samples { f.block.h * f.block.w * n.div_ceil(SAMPLES) } else { n * f.block.h };
        let line = [w * c[0], f.output.w * c[1]];
        Self {
            samples,
            strips,
            sample: [h * line[0], f.output.h * line[1]],
            line: [f.stride.h * line[0], line[1]],
            pixel: [f.stride.w * c[0], c[1]],
        }
    }

    /// Values between the windows of a strip, and between their results.
    pub fn steps(&self) -> [usize; 2] {
        if self.samples { self.sample } else { self.pixel }
    }

    /// Strip `index` of the region of bank `bank`.
    pub fn strip(&self, f: &Filter, n: usize, bank: usize, index: usize) -> Strip {
        let (a, b) = (bank / f.grid.w, bank % f.grid.w);
        let [h, w] = map(f);
        debug_assert!(a * f.cell.h < h && b * f.cell.w < w);
        let corner =
            [(a * f.cell.h * w + b * f.cell.w) * f.input.c, (a * f.block.h * f.output.w + b * f.block.w) * f.output.c];
        let (sample, u, v, len) = if self.samples {
            let (pixel, first) = (index / n.div_ceil(SAMPLES), index % n.div_ceil(SAMPLES) * SAMPLES);
            (first, pixel / f.block.w, pixel % f.block.w, SAMPLES.min(n - first))
        } else {
            (index / f.block.h, index % f.block.h, 0, f.block.w)
        };
        let at = |i: usize| corner[i] + sample * self.sample[i] + u * self.line[i] + v * self.pixel[i];
        Strip { from: at(0), to: at(1), len, window: 0 }
    }
}

/// The runs of taps of a window that are contiguous in the map.
pub(super) fn runs(f: &Filter) -> impl Iterator<Item = Run> {
    let (c, line) = (f.input.c, map(f)[1] * f.input.c);
    let (across, len) = if f.groups == 1 { (1, f.kernel.w * c) } else { (f.kernel.w, c / f.groups) };
    (0..f.kernel.h).flat_map(move |i| (0..across).map(move |j| Run { from: i * line + j * c, len }))
}

/// Into how many groups the strips and the panels of a bank and group are divided.
fn division(f: &Filter, n: usize, strips: usize, panels: usize) -> [usize; 2] {
    let windows = n * f.block.h * f.block.w;
    let large = f.taps() * f.group_filters() > LARGE;
    let most = if large { WINDOWS_OF_LARGE } else { WINDOWS };
    let of_strips = (windows / most).max(1);
    let wanted = (TASKS * threads()).div_ceil(f.banks() * f.groups);
    // Panels are divided before strips are divided further: each is then read by one thread only.
    let of_panels = if of_strips >= wanted {
        1
    } else if large {
        panels
    } else {
        wanted.div_ceil(of_strips).min(panels)
    };
    let of_strips = of_strips.max(wanted.div_ceil(of_panels));
    [of_strips.next_multiple_of(threads().min(wanted)).min(strips), of_panels]
}

pub fn forward(f: &Filter, pass: Forward<'_>) {
    let n = pass.n;
    let (padded, packed) = pass.workspace.split_at_mut(padded_len(f, n));
    let packed = if pass.prepared.is_empty() {
        pack(f, pass.params[0], &mut packed[..packed_len(f)]);
        &packed[..packed_len(f)]
    } else {
        pass.prepared
    };
    let input = self::padded(f, n, pass.inputs[0], padded);
    let bias = pass.params.get(1).copied();
    let (taps, filters) = (f.taps(), f.group_filters());
    let layout = Layout::new(f, n);
    let windows = Strips::new(input, taps, runs(f), layout.steps());
    let output = Disjoint::new(pass.output);
    let (panels, len) = (Packed::panels(filters), product::packed_len(taps, filters));
    let [of_strips, of_panels] = division(f, n, layout.strips, panels);

    parallel::tasks(f.banks() * f.groups * of_strips * of_panels, &mut [], |task, _| {
        let (index, rest) = (task / (of_strips * of_panels), task % (of_strips * of_panels));
        let (bank, group) = (index / f.groups, index % f.groups);
        let panels = part(panels, of_panels, rest % of_panels);
        let first = group * filters;
        let strips = part(layout.strips, of_strips, rest / of_panels);
        let strips: List = strips
            .map(|index| layout.strip(f, n, bank, index))
            .map(|strip| Strip { to: strip.to + first, ..strip })
            .collect();
        let of_group = Packed::new(&packed[index * len..(index + 1) * len], taps, filters);
        let bias = bias.map(|bias| &bias[bank * f.output.c + first..][..filters]);
        let (relu, channels) = (f.activation == Activation::Relu, group * (f.input.c / f.groups));
        // SAFETY: a task owns its columns of its strips.
        unsafe { windows.multiply(&strips, channels, of_group, panels.clone(), bias, relu, &output) };
        if !matches!(f.activation, Activation::None | Activation::Relu) {
            activate(f.activation, &strips, layout.steps()[1], Packed::columns(filters, &panels), &output);
        }
    });
}

/// Applies an activation that the product does not to some columns of a task's results.
fn activate(activation: Activation, strips: &[Strip], step: usize, columns: Range<usize>, output: &Disjoint<'_>) {
    for strip in strips {
        for window in 0..strip.len {
            let at = strip.to + window * step;
            // SAFETY: the task owns these columns.
            activation.apply(unsafe { output.slice(at + columns.start..at + columns.end) });
        }
    }
}

//! All patches of an image in one pass, on the CPU: each layer runs once over the dense maps of its classes
//! ([`super::geometry`]). No interweaved map is ever written: a window that covers several cells is read from their response maps
//! where it stands, line by line ([`Strips`]); only one that reaches into padding, or whose neighbours are not equally far away in
//! all maps, is gathered into a tile first.

use super::bands::{Band, pieces};
use super::extractor::{Engine, Images, Job, PutImage};
use super::plan::{LayerPlan, Outline, Plan, Task};
use super::{budget, infer};
use crate::memory;
use crate::net::{CpuParameters, INPUT, Net};
use crate::ops::activation::Activation;
use crate::ops::conv::Filter;
use crate::ops::parallel::{self, Disjoint, threads};
use crate::ops::pool::{Pool, Statistic};
use crate::ops::product::{Matrix, Packed, Run, Strip, Strips, packed_len, product};
use crate::ops::simd::dispatch;
use crate::ops::{Kind, Operation, Shape};
use crate::{Error, Result};
use std::sync::Arc;
use std::time::Instant;

/// Runs a net on all patches of images.
pub(super) struct OnePassCpu {
    net: Arc<Net>,
    parameters: CpuParameters,
    /// State for the last job.
    plan: Option<(Job, Plan)>,
    arena: Vec<f32>,
    scratch: Vec<f32>,
    /// Seconds that each layer took in the last image.
    seconds: Vec<f64>,
}

impl Engine for OnePassCpu {
    fn run(&mut self, job: Job, images: &Images<'_>, put: PutImage<'_>) -> Result<()> {
        let (job, plan) = self.take_plan(job)?;
        let result = (0..images.count).try_for_each(|image| self.pieces(&plan, job.whole, images, image, put));
        self.plan = Some((job, plan));
        result
    }

    fn plan(&mut self, job: Job) -> Result<Option<&Plan>> {
        let planned = self.take_plan(job)?;
        Ok(Some(&self.plan.insert(planned).1))
    }

    fn seconds(&self) -> Option<&[f64]> {
        Some(&self.seconds)
    }
}

impl OnePassCpu {
    pub fn new(net: Arc<Net>, parameters: CpuParameters) -> Self {
        let (arena, scratch, seconds) = (Vec::new(), Vec::new(), vec![0.0; net.layers.len()]);
        Self { net, parameters, plan: None, arena, scratch, seconds }
    }

    /// The plan of a job; images are processed one at a time.
    fn take_plan(&mut self, job: Job) -> Result<(Job, Plan)> {
        let job = Job { images: 1, ..job };
        if let Some(known) = self.plan.take().filter(|(known, _)| *known == job) {
            return Ok(known);
        }
        let plan = Plan::within(&self.net, job.whole, job.stride, budget(job.memory, memory::available()))?;
        Ok((job, plan))
    }

    /// All pieces of an image.
    fn pieces(
        &mut self,
        plan: &Plan,
        whole: [usize; 2],
        images: &Images<'_>,
        image: usize,
        put: PutImage<'_>,
    ) -> Result<()> {
        for (buffer, len) in [(&mut self.arena, plan.len), (&mut self.scratch, plan.scratch)] {
            memory::grow(buffer, len, "one pass").map_err(|e| e.advise("use a smaller image"))?;
        }
        self.seconds.fill(0.0);
        let Outline { patches, stride, .. } = plan.outline;
        let mut band = Band::new(whole, patches, self.net.output().len())?;
        let shared = self.parameters.clone();
        let parameters = shared.read();
        for [top, left] in pieces(whole, patches) {
            self.load(plan, [top * stride, left * stride], images, image);
            parallel::awake(|| {
                let prepared = shared.prepared(&self.net, &parameters);
                let mut at = 0;
                for layer in 0..self.net.layers.len() {
                    let start = Instant::now();
                    let end = at + self.net.layers[layer].op.prepared_len();
                    self.forward(plan, layer, &parameters, prepared.get(at..end).unwrap_or_default())?;
                    at = end;
                    self.seconds[layer] += start.elapsed().as_secs_f64();
                }
                Ok::<(), Error>(())
            })?;
            self.unload(plan, [top, left], &mut band);
            band.flush([top, left], &mut |features| put(image, features))?;
        }
        Ok(())
    }

    /// Pixels of the image from `corner` on, as far as the patches read them.
    fn load(&mut self, plan: &Plan, corner: [usize; 2], images: &Images<'_>, image: usize) {
        let map = plan.values[INPUT].maps[0];
        let pixels = &mut self.arena[map.at..map.at + map.rows * map.columns * 3];
        load_pixels(plan, corner, images, image, pixels);
    }

    fn forward(&mut self, plan: &Plan, layer: usize, parameters: &[f32], prepared: &[f32]) -> Result<()> {
        let bound = &self.net.layers[layer];
        let parameters: Vec<&[f32]> =
            self.net.parameters[bound.parameters.clone()].iter().map(|p| &parameters[p.range.clone()]).collect();
        let arena = Disjoint::new(&mut self.arena);
        let pass = Pass { plan, layer, step: &plan.layers[layer], inputs: &bound.inputs, arena };
        match bound.op.kind() {
            Kind::Filter(f) => {
                pass.filter(f, parameters[0], prepared, parameters.get(1).copied(), &mut self.scratch);
            }
            Kind::Pool(pool) => pass.pool(pool),
            Kind::Global => pass.global(&*bound.op, &parameters, &mut self.scratch)?,
            Kind::Concat | Kind::Dropout => pass.copy(),
            Kind::Pixelwise => {
                let pixel = Shape::new(plan.values[layer + 1].channels, 1, 1);
                pass.pixelwise(&*self.net.rebind(layer, &[pixel])?, &mut self.scratch)?;
            }
            Kind::Loss => unreachable!("plans of nets with a loss are refused"),
        }
        Ok(())
    }

    /// Collects the features of a piece's patches; each vector is in C, H, W order.
    fn unload(&self, plan: &Plan, corner: [usize; 2], band: &mut Band) {
        let shape = self.net.output();
        let value = &plan.values[self.net.layers.len()];
        let patches = plan.outline.patches;
        for y in 0..shape.h {
            for x in 0..shape.w {
                for down in 0..patches[0] {
                    let Some((class_down, row)) = plan.place(0, y, down) else { continue };
                    for across in 0..patches[1] {
                        let Some((class_across, column)) = plan.place(1, x, across) else { continue };
                        let map = value.maps[class_down * value.across + class_across];
                        let from = &self.arena[map.at + (row * map.columns + column) * shape.c..][..shape.c];
                        let to = band.vectors(corner, down, across);
                        for (c, value) in from.iter().enumerate() {
                            to[(c * shape.h + y) * shape.w + x] = *value;
                        }
                    }
                }
            }
        }
    }
}

/// Pixels of an image from `corner` on, as far as the patches of a plan read them, [rows, columns, 3].
pub(super) fn load_pixels(plan: &Plan, corner: [usize; 2], images: &Images<'_>, image: usize, to: &mut [f32]) {
    let [rows, columns] = [0, 1].map(|axis| &plan.positions[axis][INPUT][0]);
    let width = images.size[1];
    for (line, y) in to.chunks_exact_mut(columns.len() * 3).zip(rows) {
        let row = (corner[0] + *y as usize) * width + corner[1];
        for (pixel, x) in line.chunks_exact_mut(3).zip(columns) {
            images.copy(image, (row + *x as usize) * 3, pixel);
        }
    }
}

/// One layer over all of its maps.
struct Pass<'a> {
    plan: &'a Plan,
    layer: usize,
    step: &'a LayerPlan,
    inputs: &'a [usize],
    arena: Disjoint<'a>,
}

impl<'a> Pass<'a> {
    /// A value that this layer reads.
    fn read(&self, input: usize) -> &'a [f32] {
        let range = &self.plan.values[self.inputs[input]].range;
        // SAFETY: the plan keeps a layer's inputs disjoint from its output, the only buffer that is written meanwhile.
        unsafe { std::slice::from_raw_parts(self.arena.pointer(range.start, range.len()), range.len()) }
    }

    /// The pixels of a task in this layer's output.
    #[allow(clippy::mut_from_ref)]
    fn output(&self, task: &Task) -> &mut [f32] {
        let value = &self.plan.values[self.layer + 1];
        let map = value.maps[task.down * value.across + task.across];
        let at = |pixel: usize| map.at + pixel * value.channels;
        // SAFETY: the pixels of tasks do not overlap, and a task calls this once.
        unsafe { self.arena.slice(at(task.pixels.start)..at(task.pixels.end)) }
    }

    /// Calls `visit(number, row, column)` for each pixel of a task; `number` counts from 0.
    fn pixels(&self, task: &Task, mut visit: impl FnMut(usize, usize, usize)) {
        let value = &self.plan.values[self.layer + 1];
        let columns = value.maps[task.down * value.across + task.across].columns;
        let (mut row, mut column) = (task.pixels.start / columns, task.pixels.start % columns);
        for number in 0..task.pixels.len() {
            visit(number, row, column);
            column += 1;
            if column == columns {
                (row, column) = (row + 1, 0);
            }
        }
    }

    /// Gathers part `part` of the windows of a task into `tile` [pixels, taps].
    fn gather(&self, task: &Task, part: usize, input: &[f32], tile: &mut [f32]) {
        let value = &self.plan.values[self.inputs[0]];
        let window = &self.step.windows[task.down * self.step.runs.len() + task.across];
        let part = &window.parts[part];
        let (lines, runs) = (&self.step.lines[task.down], &self.step.runs[task.across]);
        let width = part.taps.len();
        let start = value.range.start;
        self.pixels(task, |number, row, column| {
            let tile = &mut tile[number * width..(number + 1) * width];
            for segment in &window.segments[part.segments.clone()] {
                let to = &mut tile[segment.tap - part.taps.start..][..segment.len];
                match (&segment.from, &lines[segment.line], &runs[segment.run].link) {
                    (Some(map), Some(line), Some(run)) => {
                        let place = line.numbers[row] as usize * map.columns + run.numbers[column] as usize;
                        let at = map.at - start + place * value.channels + segment.channel;
                        to.copy_from_slice(&input[at..at + segment.len]);
                    }
                    _ => to.fill(0.0),
                }
            }
        });
    }

    /// The lines of a task as strips that can be read in place, and the runs of each strip's windows; empty if a window reads
    /// padding, or if windows that follow each other are not equally far apart in all maps.
    fn strips(&self, task: &Task) -> (Vec<Strip>, Vec<Run>, usize) {
        let value = &self.plan.values[self.inputs[0]];
        let output = &self.plan.values[self.layer + 1];
        let map = output.maps[task.down * output.across + task.across];
        let window = &self.step.windows[task.down * self.step.runs.len() + task.across];
        let (lines, runs) = (&self.step.lines[task.down], &self.step.runs[task.across]);
        let none = || (Vec::new(), Vec::new(), 0);
        let numbers = || runs.iter().filter_map(|run| run.link.as_ref()).map(|link| &link.numbers[..]);
        let step = numbers().next().map_or(0, |n| if n.len() > 1 { n[1].wrapping_sub(n[0]) } else { 1 });
        if numbers().any(|n| n.windows(2).any(|pair| pair[1].wrapping_sub(pair[0]) != step)) {
            return none();
        }
        let (mut strips, mut taps) = (Vec::new(), Vec::new());
        let mut pixel = task.pixels.start;
        while pixel < task.pixels.end {
            let (row, column) = (pixel / map.columns, pixel % map.columns);
            let len = (map.columns - column).min(task.pixels.end - pixel);
            for segment in &window.segments {
                let (Some(from), Some(line), Some(run)) =
                    (&segment.from, &lines[segment.line], &runs[segment.run].link)
                else {
                    return none();
                };
                let place = line.numbers[row] as usize * from.columns + run.numbers[column] as usize;
                let at = from.at - value.range.start + place * value.channels + segment.channel;
                taps.push(Run { from: at, len: segment.len });
            }
            let to = map.at + pixel * output.channels;
            strips.push(Strip { from: 0, to, len, window: strips.len() });
            pixel += len;
        }
        (strips, taps, step as usize * value.channels)
    }

    fn filter(&self, f: &Filter, weights: &[f32], prepared: &[f32], bias: Option<&[f32]>, scratch: &mut [f32]) {
        let input = self.read(0);
        let (c, taps, filters) = (f.output.c, f.taps(), f.group_filters());
        let [down, across] = [0, 1].map(|axis| &self.plan.outline.axes[axis][self.layer + 1].classes);
        let relu = f.activation == Activation::Relu;
        parallel::tasks(
            self.step.tasks.len(),
            &mut scratch[..threads() * self.step.rows * self.step.taps],
            |task, tile| {
                let task = &self.step.tasks[task];
                let bank = down[task.down].region * f.grid.w + across[task.across].region;
                let bias = bias.map(|bias| &bias[bank * c..][..c]);
                if f.groups == 1 && !prepared.is_empty() {
                    let (strips, runs, step) = self.strips(task);
                    if !strips.is_empty() {
                        let len = packed_len(taps, filters);
                        let bank = Packed::new(&prepared[bank * len..(bank + 1) * len], taps, filters);
                        let windows = Strips::new(input, taps, runs, [step, c]);
                        let panels = 0..Packed::panels(filters);
                        // SAFETY: the pixels of tasks do not overlap.
                        unsafe { windows.multiply(&strips, 0, bank, panels, bias, relu, &self.arena) };
                        if !matches!(f.activation, Activation::None | Activation::Relu) {
                            f.activation.apply(self.output(task));
                        }
                        return;
                    }
                }
                let output = self.output(task);
                let window = &self.step.windows[task.down * self.step.runs.len() + task.across];
                for (number, part) in window.parts.iter().enumerate() {
                    self.gather(task, number, input, tile);
                    let weights = &weights[((bank * f.groups + part.group) * taps + part.taps.start) * filters..];
                    let size = [task.pixels.len(), filters, part.taps.len()];
                    let first = part.group * filters;
                    let (windows, weights) = (Matrix::rows(tile, part.taps.len()), Matrix::rows(weights, filters));
                    product(size, windows, weights, &mut output[first..], c, part.taps.start > 0);
                }
                f.activation.apply_biased(output, bias);
            },
        );
    }

    fn pool(&self, pool: &Pool) {
        let value = &self.plan.values[self.inputs[0]];
        let (input, start, c) = (self.read(0), value.range.start, value.channels);
        let [down, across] = [0, 1].map(|axis| &self.plan.outline.axes[axis][self.layer + 1].classes);
        parallel::tasks(self.step.tasks.len(), &mut [], |task, _| {
            let task = &self.step.tasks[task];
            let (lines, runs) = (&self.step.lines[task.down], &self.step.runs[task.across]);
            let output = self.output(task);
            let scale = 1.0 / (down[task.down].divisor * across[task.across].divisor) as f32;
            self.pixels(task, |number, row, column| {
                let out = &mut output[number * c..(number + 1) * c];
                out.fill(if pool.statistic == Statistic::Max { f32::NEG_INFINITY } else { 0.0 });
                for line in lines.iter().flatten() {
                    for run in runs.iter().filter_map(|run| run.link.as_ref()) {
                        let map = value.maps[line.class * value.across + run.class];
                        let place = line.numbers[row] as usize * map.columns + run.numbers[column] as usize;
                        let pixel = &input[map.at - start + place * c..][..c];
                        dispatch!(pool.statistic.take(out, pixel));
                    }
                }
                if pool.statistic == Statistic::Average {
                    out.iter_mut().for_each(|m| *m *= scale);
                }
            });
        });
    }

    /// Gathers the whole map of each patch, runs the operation on it, and hands each place of the result to the place's class:
    /// in all of those a pixel is a patch.
    fn global(&self, op: &dyn Operation, params: &[&[f32]], scratch: &mut [f32]) -> Result<()> {
        let (input, shape) = (self.read(0), op.output());
        let [down, across] = [0, 1].map(|axis| &self.plan.outline.axes[axis][self.layer + 1].classes);
        let (tile, results) = scratch.split_at_mut(self.step.rows * self.step.taps);
        for task in self.step.tasks.iter().filter(|task| (task.down, task.across) == (0, 0)) {
            let patches = task.pixels.len();
            let (tile, results) = (&mut tile[..patches * self.step.taps], &mut results[..patches * shape.len()]);
            self.gather(task, 0, input, tile);
            infer(op, patches, params, tile, results)?;
            for (row, a) in down.iter().enumerate() {
                for (column, b) in across.iter().enumerate() {
                    let from = (a.region * shape.w + b.region) * shape.c;
                    let to = self.output(&Task { down: row, across: column, pixels: task.pixels.clone() });
                    for (to, result) in to.chunks_exact_mut(shape.c).zip(results.chunks_exact(shape.len())) {
                        to.copy_from_slice(&result[from..from + shape.c]);
                    }
                }
            }
        }
        Ok(())
    }

    /// Copies each input's channels of each pixel.
    fn copy(&self) {
        let channels = self.plan.values[self.layer + 1].channels;
        parallel::tasks(self.step.tasks.len(), &mut [], |task, _| {
            let task = &self.step.tasks[task];
            let output = self.output(task);
            let mut first = 0;
            for (line, run) in self.step.lines[task.down].iter().zip(&self.step.runs[task.across]) {
                let (Some(line), Some(run)) = (line, &run.link) else { continue };
                let value = &self.plan.values[self.inputs[line.input]];
                let input = self.read(line.input);
                let map = value.maps[line.class * value.across + run.class];
                self.pixels(task, |number, row, column| {
                    let place = line.numbers[row] as usize * map.columns + run.numbers[column] as usize;
                    let from = &input[map.at - value.range.start + place * value.channels..][..value.channels];
                    output[number * channels + first..][..value.channels].copy_from_slice(from);
                });
                first += value.channels;
            }
        });
    }

    /// Runs an operation on every pixel independently.
    fn pixelwise(&self, op: &dyn Operation, scratch: &mut [f32]) -> Result<()> {
        let range = &self.plan.values[self.layer + 1].range;
        self.copy();
        // SAFETY: the tasks of the copy have ended, and their borrows with them.
        let output = unsafe { self.arena.slice(range.clone()) };
        let input = &mut scratch[..range.len()];
        input.copy_from_slice(output);
        infer(op, range.len() / op.output().c, &[], input, output)
    }
}

//! The interweaved operation exactly as in the paper, on a GPU: one program from the pixels to the features. The maps of all
//! phases of a bank are one batch, written by one launch of kernels/interweave.cu and convolved by the same kernels as any
//! other layer; a bank's maps overwrite those of the previous bank.

use super::bands::Band;
use super::budget;
use super::extractor::{Engine, Images, Job, PutImage};
use super::maps::{Build, Interweaving, Layer, Piece, Unweaving, Work, bank};
use super::writer::{Writer, Written, hand_on};
use crate::Result;
use crate::device::{Gpu, Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::net::NetParameter;
use crate::net::gpu::GpuParameters;
use crate::ops::gpu::{self, BLOCK, Divisor, cover, lanes};
use crate::ops::{Operation, Shape, nhwc_to_nchw};
use std::sync::Arc;

kernel_parameters! {
    /// kernels/interweave.cu
    InterweaveParams: 168 {
        responses: Ptr, maps: Ptr,
        phases_h: u32, c: u32, a: u32, b: u32, grid_w: u32,
        period_h: u32, period_w: u32, step_h: u32, step_w: u32, patches_h: u32, patches_w: u32, h: u32, w: u32,
        lanes: u32, by_lanes: Divisor, by_map_w: Divisor, by_map_h: Divisor, by_phases_w: Divisor,
        by_tile_h: Divisor, by_tile_w: Divisor, by_cell_h: Divisor, by_cell_w: Divisor,
    }
}

kernel_parameters! {
    /// kernels/interweave.cu
    UnweaveParams: 136 {
        maps: Ptr, patches: Ptr,
        phases_w: u32, map_h: u32, map_w: u32, c: u32, tile_h: u32, tile_w: u32,
        patches_h: u32, top: u32, left: u32, h: u32, w: u32,
        lanes: u32, by_lanes: Divisor, by_block_w: Divisor, by_block_h: Divisor, by_patches_w: Divisor,
        by_period_h: Divisor, by_period_w: Divisor,
    }
}

impl Interweaving {
    /// From responses `[grid, h, w, c]` to maps `[maps, h, w, c]`, in the storage type.
    pub fn record(&self, responses: Ptr, maps: Ptr, to: &mut Recorder<'_>) {
        let (phases, map, tile, period) = (self.maps(), self.map(), self.tile(), self.period());
        let lanes = lanes(to.precision(), map.c, &[responses, maps]);
        let parameters = InterweaveParams {
            responses,
            maps,
            phases_h: phases.h as u32,
            c: map.c as u32,
            a: self.bank[0] as u32,
            b: self.bank[1] as u32,
            grid_w: self.grid.w as u32,
            period_h: period.h as u32,
            period_w: period.w as u32,
            step_h: self.step.h as u32,
            step_w: self.step.w as u32,
            patches_h: self.patches.h as u32,
            patches_w: self.patches.w as u32,
            h: self.response.h as u32,
            w: self.response.w as u32,
            lanes: lanes as u32,
            by_lanes: Divisor::new(map.c / lanes),
            by_map_w: Divisor::new(map.w),
            by_map_h: Divisor::new(map.h),
            by_phases_w: Divisor::new(phases.w),
            by_tile_h: Divisor::new(tile.h),
            by_tile_w: Divisor::new(tile.w),
            by_cell_h: Divisor::new(self.cell.h),
            by_cell_w: Divisor::new(self.cell.w),
        };
        let count = phases.h * phases.w * map.len();
        let bytes = 2 * count * to.precision().bytes();
        let launch = Launch::new(to.stored("interweave"), cover(count / lanes), BLOCK, &parameters);
        to.launch(launch.work(0, bytes as u64));
    }
}

impl Unweaving {
    /// From values `[maps, h, w, c]` to the bank's block of `[patches, h, w, c]`, in the storage type.
    pub fn record(&self, values: Ptr, patches: Ptr, to: &mut Recorder<'_>) {
        let Self { weave, values: map, tile, block, output } = *self;
        let lanes = lanes(to.precision(), map.c, &[values, patches]);
        let period = weave.period();
        let parameters = UnweaveParams {
            maps: values,
            patches,
            phases_w: weave.maps().w as u32,
            map_h: map.h as u32,
            map_w: map.w as u32,
            c: map.c as u32,
            tile_h: tile.h as u32,
            tile_w: tile.w as u32,
            patches_h: weave.patches.h as u32,
            top: (weave.bank[0] * block.h) as u32,
            left: (weave.bank[1] * block.w) as u32,
            h: output.h as u32,
            w: output.w as u32,
            lanes: lanes as u32,
            by_lanes: Divisor::new(map.c / lanes),
            by_block_w: Divisor::new(block.w),
            by_block_h: Divisor::new(block.h),
            by_patches_w: Divisor::new(weave.patches.w),
            by_period_h: Divisor::new(period.h),
            by_period_w: Divisor::new(period.w),
        };
        let count = weave.patches.h * weave.patches.w * block.h * block.w * map.c;
        let bytes = 2 * count * to.precision().bytes();
        let launch = Launch::new(to.stored("unweave"), cover(count / lanes), BLOCK, &parameters);
        to.launch(launch.work(0, bytes as u64));
    }
}

/// Runs a net of the paper's architecture on all patches of images.
pub(super) struct MapsGpu {
    build: Arc<Build>,
    parameters: Arc<GpuParameters>,
    /// State for the last job.
    prepared: Option<Prepared>,
}

/// Everything that a job needs.
struct Prepared {
    job: Job,
    piece: Piece,
    written: Written,
}

impl MapsGpu {
    pub fn new(build: Arc<Build>, parameters: Arc<GpuParameters>) -> Self {
        Self { build, parameters, prepared: None }
    }

    /// For the images of a job, one at a time.
    fn prepare(&mut self, job: Job) -> Result<&mut Prepared> {
        let job = Job { images: 1, ..job };
        let known = self.prepared.take().filter(|prepared| prepared.job == job);
        let prepared = match known {
            Some(known) => known,
            None => {
                let gpu = self.parameters.gpu();
                let memory = budget(job.memory, gpu.driver.free_memory()?);
                let piece = self.build.piece(job, memory, |work| bytes(work, gpu))?;
                let work = Work::new(&self.build, piece.patches, piece.stride)?;
                let writer = MapsWriter { build: &self.build, writer: Writer::new(&self.build.net, &self.parameters) };
                Prepared { job, piece, written: writer.write(&work).map_err(|e| e.within("interweaved maps"))? }
            }
        };
        Ok(self.prepared.insert(prepared))
    }
}

impl Engine for MapsGpu {
    fn run(&mut self, job: Job, images: &Images<'_>, put: PutImage<'_>) -> Result<()> {
        let (build, parameters, output) = (self.build.clone(), self.parameters.clone(), self.build.net.output());
        let Prepared { piece, written, .. } = self.prepare(job)?;
        for image in 0..images.count {
            let mut bands = [Band::new(job.whole, piece.patches, output.len())?];
            for corner in piece.corners(job.whole) {
                let pixels = build.cut(images, image, corner, piece)?;
                let features = piece.patches[0] * piece.patches[1] * output.len();
                let features = written.run(&parameters, &pixels, features)?;
                let copy = |from: &[f32], to: &mut [f32]| nhwc_to_nchw(output, from, to);
                hand_on(&features, piece.patches, corner, &mut bands, copy, &mut |_, found| put(image, found))?;
            }
        }
        Ok(())
    }

    fn launches(&mut self, job: Job) -> Result<Vec<Launch>> {
        Ok(self.prepare(job)?.written.launches().to_vec())
    }
}

/// Bytes of all values and scratch.
fn bytes(work: &Work, gpu: &Gpu) -> u128 {
    let (maps, patches) = (work.maps(), work.count());
    let steps = [(&work.trunk, 1), (&work.between, maps), (&work.rest, patches)];
    let layers = steps.iter().flat_map(|(layers, n)| layers.iter().map(|layer| (&*layer.op, *n)));
    let banks: [(&dyn Operation, usize); 2] = [(&work.response, 1), (&work.second, maps)];
    let values = |n: usize, shape: Shape| n as u128 * shape.len() as u128;
    let ops = layers.chain(banks).map(|(op, n)| (values(n, op.output()), op.gpu_forward_workspace(n, gpu) as u128));
    let (sum, scratch) = ops.fold((0, 0), |sum, op| (sum.0 + op.0, sum.1 + op.1));
    let responses = values(work.banks - 1, work.response.output);
    let sum = sum + responses + values(maps, work.weaves[0].map()) + values(patches, work.blocks);
    gpu.precision.bytes() as u128 * sum + scratch + 4 * work.input.len() as u128
}

/// A layer with its memory, for `n` maps.
#[derive(Clone, Copy)]
struct Step<'a> {
    layer: usize,
    op: &'a dyn Operation,
    n: usize,
    output: Ptr,
    workspace: Ptr,
}

/// Writes the program of a piece.
struct MapsWriter<'a> {
    build: &'a Build,
    writer: Writer<'a>,
}

impl MapsWriter<'_> {
    fn write(mut self, work: &Work) -> Result<Written> {
        let [first, second] = self.build.local;
        let patches = work.count();

        let pixels = self.writer.bytes(4 * work.input.len())?;
        let input = self.store(pixels, work.input.len())?;
        let trunk = self.steps(&work.trunk, 1)?;
        let trunk = self.layers(&trunk, input);

        let response = work.response.output.len();
        let responses = self.writer.values(work.banks * response)?;
        let workspace = self.writer.bytes(work.response.gpu_forward_workspace(1, self.writer.to.gpu))?;
        self.writer.label(first);
        for bank in 0..work.banks {
            let output = responses.offset(self.writer.size() * bank * response);
            let step = Step { layer: first, op: &work.response, n: 1, output, workspace };
            self.bank(step, bank, work.banks, trunk);
        }

        let n = work.maps();
        let maps = self.writer.values(n * work.weaves[0].map().len())?;
        let between = self.steps(&work.between, n)?;
        let step = self.step(second, &work.second, n)?;
        let blocks = self.writer.values(patches * work.blocks.len())?;
        for (bank, weave) in work.weaves.iter().enumerate() {
            self.writer.to.label("interweave");
            weave.record(responses, maps, &mut self.writer.to);
            let pooled = self.layers(&between, maps);
            self.writer.label(second);
            self.bank(step, bank, work.weaves.len(), pooled);
            self.writer.to.label("unweave");
            self.build.unweave(*weave, work.second.output).record(step.output, blocks, &mut self.writer.to);
        }

        let rest = self.steps(&work.rest, patches)?;
        let values = self.layers(&rest, blocks);
        let features = self.load(values, patches * self.build.net.output().len())?;
        self.writer.finish(None, pixels, features)
    }

    fn step<'b>(&mut self, layer: usize, op: &'b dyn Operation, n: usize) -> Result<Step<'b>> {
        let output = self.writer.values(n * op.output().len())?;
        let workspace = self.writer.bytes(op.gpu_forward_workspace(n, self.writer.to.gpu))?;
        Ok(Step { layer, op, n, output, workspace })
    }

    fn steps<'b>(&mut self, layers: &'b [Layer], n: usize) -> Result<Vec<Step<'b>>> {
        layers.iter().map(|layer| self.step(layer.number, &*layer.op, n)).collect()
    }

    /// Casts f32 to the storage type.
    fn store(&mut self, from: Ptr, count: usize) -> Result<Ptr> {
        if self.writer.size() == 4 {
            return Ok(from);
        }
        let stored = self.writer.values(count)?;
        self.writer.store(from, stored, count);
        Ok(stored)
    }

    /// Casts the storage type to f32.
    fn load(&mut self, from: Ptr, count: usize) -> Result<Ptr> {
        if self.writer.size() == 4 {
            return Ok(from);
        }
        let wide = self.writer.bytes(4 * count)?;
        self.writer.to.label("features");
        gpu::cast_to_f32(&mut self.writer.to, from, wide, count);
        Ok(wide)
    }

    /// Runs a chain of layers; returns the address of the last one's output.
    fn layers(&mut self, steps: &[Step<'_>], from: Ptr) -> Ptr {
        steps.iter().fold(from, |from, step| {
            self.writer.label(step.layer);
            let params = self.writer.parameters.addresses(self.build.net.layers[step.layer].parameters.clone());
            self.writer.record(step.op, step.n, &params, [from, step.output, step.workspace]);
            step.output
        })
    }

    /// One of a local layer's `banks` banks.
    fn bank(&mut self, step: Step<'_>, number: usize, banks: usize, from: Ptr) {
        let tensors = self.build.net.layers[step.layer].parameters.clone();
        let of_bank = |(address, tensor): (Ptr, &NetParameter)| {
            // Weights are in the storage type there, biases in f32.
            let size = if tensor.tensor.fan_in > 0 { self.writer.size() } else { 4 };
            address.offset(size * bank(tensor, number, banks).start)
        };
        let addresses = self.writer.parameters.addresses(tensors.clone());
        let params: Vec<Ptr> = addresses.into_iter().zip(&self.build.net.parameters[tensors]).map(of_bank).collect();
        self.writer.record(step.op, step.n, &params, [from, step.output, step.workspace]);
    }
}

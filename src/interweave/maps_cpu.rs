//! The interweaved operation exactly as in the paper, on the CPU.

use super::bands::Band;
use super::extractor::{Engine, Images, Job, PutImage};
use super::maps::{Build, Interweaving, Layer, Piece, Unweaving, Work, bank};
use super::{budget, infer};
use crate::Result;
use crate::memory;
use crate::net::{CpuParameters, NetParameter};
use crate::ops::conv::Filter;
use crate::ops::{Shape, nhwc_to_nchw};
use std::borrow::Cow;
use std::sync::Arc;

/// Batch size, in patches, of the layers after the second local one.
const BATCH: usize = 64;

/// Runs a net of the paper's architecture on all patches of images.
pub(super) struct MapsCpu {
    build: Arc<Build>,
    parameters: CpuParameters,
}

impl MapsCpu {
    pub fn new(build: Arc<Build>, parameters: CpuParameters) -> Self {
        Self { build, parameters }
    }
}

impl Engine for MapsCpu {
    fn run(&mut self, job: Job, images: &Images<'_>, put: PutImage<'_>) -> Result<()> {
        let build = &self.build;
        let memory = budget(job.memory, memory::available());
        let piece = build.piece(job, memory, bytes)?;
        let work = Work::new(build, piece.patches, piece.stride)?;
        let pass = Pass { build, work: &work, parameters: &self.parameters.read() };
        for image in 0..images.count {
            let mut band = Band::new(job.whole, piece.patches, build.net.output().len())?;
            for corner in piece.corners(job.whole) {
                let blocks = pass.blocks(build.cut(images, image, corner, &piece)?)?;
                pass.finish(&blocks, &piece, corner, &mut band)?;
                band.flush(corner, &mut |features| put(image, features))?;
            }
        }
        Ok(())
    }
}

/// Bytes that a piece needs.
fn bytes(work: &Work) -> u128 {
    let size = |shape: Shape| shape.c as u128 * shape.h as u128 * shape.w as u128;
    // One layer's input and output at a time.
    let mut below = size(work.input);
    let mut trunk = below;
    for Layer { op, .. } in &work.trunk {
        trunk = trunk.max(below + size(op.output()) + op.forward_workspace(1) as u128);
        below = size(op.output());
    }
    let responses = work.banks as u128 * size(work.response.output);
    // The maps of a row of phases, and the values computed from them.
    let weave = work.weaves[0];
    let phases = 4 * weave.maps().w as u128 * size(weave.map());
    4 * (trunk + responses + phases + work.count() as u128 * size(work.blocks))
}

/// One piece of an image.
struct Pass<'a> {
    build: &'a Build,
    work: &'a Work,
    parameters: &'a [f32],
}

impl Pass<'_> {
    /// The second local layer's output for each patch, [patches, h, w, c], from the piece's pixels.
    fn blocks(&self, pixels: Vec<f32>) -> Result<Vec<f32>> {
        let (work, first) = (self.work, self.build.local[0]);
        let map = self.layers(&work.trunk, 1, Cow::Owned(pixels))?;
        let banks = 0..work.banks;
        let response = |bank| self.convolve(first, &work.response, [bank, work.banks], 1, &map);
        let responses = banks.map(response).collect::<Result<Vec<Vec<f32>>>>()?;
        drop(map);
        let mut blocks = memory::zeroed(work.count() * work.blocks.len(), "interweaved maps")?;
        for (bank, weave) in work.weaves.iter().enumerate() {
            self.bank(bank, *weave, &responses, &mut blocks)?;
        }
        Ok(blocks)
    }

    /// Runs a chain of layers on `n` maps.
    fn layers<'a>(&self, layers: &[Layer], n: usize, input: Cow<'a, [f32]>) -> Result<Cow<'a, [f32]>> {
        let mut values = input;
        for Layer { number, op } in layers {
            let tensors = &self.build.net.parameters[self.build.net.layers[*number].parameters.clone()];
            let params: Vec<&[f32]> = tensors.iter().map(|tensor| &self.parameters[tensor.range.clone()]).collect();
            let mut output = memory::zeroed(n * op.output().len(), "interweaved maps")?;
            infer(&**op, n, &params, &values, &mut output)?;
            values = Cow::Owned(output);
        }
        Ok(values)
    }

    /// The output of the layers after the second local one: features of a piece.
    fn finish(&self, blocks: &[f32], piece: &Piece, corner: [usize; 2], band: &mut Band) -> Result<()> {
        let (block, shape) = (self.work.blocks.len(), self.build.net.output());
        for (batch, blocks) in blocks.chunks(BATCH * block).enumerate() {
            let values = self.layers(&self.work.rest, blocks.len() / block, Cow::Borrowed(blocks))?;
            for (patch, vector) in (batch * BATCH..).zip(values.chunks_exact(shape.len())) {
                let (down, across) = (patch / piece.patches[1], patch % piece.patches[1]);
                nhwc_to_nchw(shape, vector, &mut band.vectors(corner, down, across)[..shape.len()]);
            }
        }
        Ok(())
    }

    /// One of `banks` banks of local layer `layer` over `n` maps.
    fn convolve(
        &self,
        layer: usize,
        op: &Filter,
        [number, banks]: [usize; 2],
        n: usize,
        input: &[f32],
    ) -> Result<Vec<f32>> {
        let tensors = &self.build.net.parameters[self.build.net.layers[layer].parameters.clone()];
        let of_bank = |tensor: &NetParameter| &self.parameters[tensor.range.clone()][bank(tensor, number, banks)];
        let params: Vec<&[f32]> = tensors.iter().map(of_bank).collect();
        let mut values = memory::zeroed(n * op.output.len(), "interweaved maps")?;
        infer(op, n, &params, input, &mut values)?;
        Ok(values)
    }

    /// One bank of the second local layer for all patches: a batch of maps for each row of phases.
    fn bank(&self, bank: usize, weave: Interweaving, responses: &[Vec<f32>], features: &mut [f32]) -> Result<()> {
        let Interweaving { response, grid, bank: [a, b], cell, step, patches, .. } = weave;
        let (tile, period, phases, map) = (weave.tile(), weave.period(), weave.maps(), weave.map());
        let mut maps: Vec<f32> = memory::zeroed(phases.w * map.len(), "interweaved maps")?;
        for phase in 0..phases.h {
            for (across, map_values) in maps.chunks_exact_mut(map.len()).enumerate() {
                for (row, line) in map_values.chunks_exact_mut(map.w * map.c).enumerate() {
                    let down = phase + row / tile.h * period.h;
                    for column in (0..map.w).step_by(cell.w) {
                        let patch = across + column / tile.w * period.w;
                        let to = &mut line[column * map.c..(column + cell.w) * map.c];
                        if down >= patches.h || patch >= patches.w {
                            to.fill(0.0);
                            continue;
                        }
                        let (u, v) = (row % tile.h, column % tile.w);
                        let values = &responses[(a + u / cell.h) * grid.w + b + v / cell.w];
                        let (y, x) = (down * step.h + a * cell.h + u, patch * step.w + b * cell.w + v);
                        let at = (y * response.w + x) * response.c;
                        to.copy_from_slice(&values[at..at + to.len()]);
                    }
                }
            }
            let (second, banks) = (&self.work.second, self.work.weaves.len());
            let pooled = self.layers(&self.work.between, phases.w, Cow::Borrowed(&maps))?;
            let values = self.convolve(self.build.local[1], second, [bank, banks], phases.w, &pooled)?;
            let shape = second.output;
            let Unweaving { tile, block, output, .. } = self.build.unweave(weave, shape);
            for (across, values) in values.chunks_exact(shape.len()).enumerate() {
                for down in (phase..patches.h).step_by(period.h) {
                    for patch in (across..patches.w).step_by(period.w) {
                        let corner = [down / period.h * tile.h, patch / period.w * tile.w];
                        let features = &mut features[(down * patches.w + patch) * output.len()..][..output.len()];
                        for u in 0..block.h {
                            let from = ((corner[0] + u) * shape.w + corner[1]) * shape.c;
                            let to = ((a * block.h + u) * output.w + b * block.w) * output.c;
                            let len = block.w * output.c;
                            features[to..to + len].copy_from_slice(&values[from..from + len]);
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

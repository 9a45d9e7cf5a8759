//! The paper's literal form of the interweaved operation on the CPU.

use super::bands::{Band, Put, pieces, waiting};
use super::maps::{Build, Interweaving, Unweaving, dense};
use super::patchwise::Features;
use super::plan::fitting;
use super::{budget, infer};
use crate::Result;
use crate::data::photo::Photo;
use crate::data::resample::Normalise;
use crate::memory;
use crate::net::{Net, NetParameter, Plan, Purpose, Session, Spec};
use crate::ops::{Kind, Mode, Shape, Targets};
use std::sync::Arc;

/// Patches of a batch of the layers behind the second local one.
const BATCH: usize = 64;
/// Bytes beyond which an image is done in several pieces.
const MEMORY: usize = 512 << 20;

/// Runs a net of the paper's build on all patches of images.
pub struct MapInterweaver {
    build: Build,
    parameters: Vec<f32>,
    /// The layers behind the second local one, on its output for one patch.
    rest: Option<Session>,
    memory: usize,
}

/// Outputs of all banks of a layer for one piece of an image.
type Maps = Vec<(Vec<f32>, Shape)>;

impl MapInterweaver {
    /// # Errors
    /// A net that is not a chain of an unpadded trunk, a local layer of span 1 whose blocks are as large as its cells, pools that
    /// tile the blocks, a second local layer whose cells are those blocks, and whatever follows but a loss: names the layer and
    /// the reason.
    pub fn new(net: Arc<Net>, parameters: Vec<f32>, normalise: Normalise) -> Result<Self> {
        let build = Build::new(net.clone(), normalise)?;
        let second = build.local[1];
        let rest = match net.spec.layers.get(second + 1..) {
            Some([]) | None => None,
            Some(layers) => {
                let spec = Spec { input: net.shape(second + 1), layers: layers.to_vec(), ..net.spec.clone() };
                Some(Session::new(Arc::new(Net::new(spec)?), BATCH, Purpose::Inference)?)
            }
        };
        Ok(Self { build, parameters, rest, memory: MEMORY })
    }

    /// Sets the memory, in bytes, that an image may take before it is done in pieces.
    #[must_use]
    pub fn with_memory(mut self, bytes: usize) -> Self {
        self.memory = bytes;
        self
    }

    /// Whether patches may be that many pixels apart.
    pub fn takes(&self, stride: usize) -> bool {
        self.build.takes(stride)
    }

    /// Features of the patches whose upper left corners are multiples of `stride` and which lie inside the photo.
    ///
    /// # Errors
    /// A stride that is no multiple of the trunk's, or 0; an image smaller than a patch; no memory.
    pub fn extract(&mut self, photo: &Photo, stride: usize) -> Result<Features> {
        let whole = self.build.patches([photo.height, photo.width], stride)?;
        Features::gather(whole, self.build.net.output().len(), |put| self.extract_into(photo, stride, put))
    }

    /// The same, handed to `put` as they come.
    ///
    /// # Errors
    /// As [`MapInterweaver::extract`]; what `put` says.
    pub fn extract_into(&mut self, photo: &Photo, stride: usize, put: Put<'_>) -> Result<()> {
        let whole = self.build.patches([photo.height, photo.width], stride)?;
        let memory = budget(self.memory, memory::available());
        let piece = fitting(whole, memory, |piece| self.bytes(piece, stride))?;
        let piece = waiting(whole, piece, self.build.net.output().len());
        let trunk = self.trunk(piece, stride)?;
        let mut trunk = trunk.map(|net| Session::new(Arc::new(net), 1, Purpose::Inference)).transpose()?;
        let mut band = Band::new(whole, piece, self.build.net.output().len())?;
        for corner in pieces(whole, piece) {
            let pixels = self.build.cut(&self.build.values(photo), photo.width, corner, piece, stride)?;
            let blocks = self.blocks(trunk.as_mut(), pixels, piece, stride)?;
            self.finish(&blocks, piece, corner, &mut band)?;
            band.flush(corner, put)?;
        }
        Ok(())
    }

    /// The trunk on what so many patches read; `None` if the net begins with a local layer.
    fn trunk(&self, patches: [usize; 2], stride: usize) -> Result<Option<Net>> {
        let (net, first) = (&self.build.net, self.build.local[0]);
        if first == 0 {
            return Ok(None);
        }
        let input = self.build.input(patches, stride);
        let spec = Spec { input, layers: net.spec.layers[..first].to_vec(), ..net.spec.clone() };
        Net::new(spec).map(Some)
    }

    /// Bytes that a piece takes.
    fn bytes(&self, patches: [usize; 2], stride: usize) -> Result<u128> {
        let size = |shape: Shape| shape.c as u128 * shape.h as u128 * shape.w as u128;
        let input = self.build.input(patches, stride);
        // Too large to be a net: no piece.
        let Ok(trunk) = self.trunk(patches, stride) else { return Ok(u128::MAX) };
        let (trunk, below) = match trunk {
            Some(net) => (Plan::new(&net, 1, Purpose::Inference)?.len as u128, net.output()),
            None => (0, input),
        };
        let [f, g] = self.build.filters();
        let response = dense(f, below).output;
        let weave = self.build.weaves(response, patches, stride)[0];
        // The maps of a row of phases, and what becomes of them.
        let phases = 4 * weave.maps().w as u128 * size(weave.map());
        let blocks = patches[0] as u128 * patches[1] as u128 * size(g.output);
        Ok(4 * (size(input) + trunk + size(below) + f.banks() as u128 * size(response) + phases + blocks))
    }

    /// The second local layer's output for each patch of a piece, [patches, h, w, c], from the piece's pixels.
    fn blocks(
        &self,
        trunk: Option<&mut Session>,
        pixels: Vec<f32>,
        piece: [usize; 2],
        stride: usize,
    ) -> Result<Vec<f32>> {
        let first = self.build.local[0];
        let run;
        let (map, shape) = match trunk {
            None => (&pixels[..], self.build.input(piece, stride)),
            Some(session) => {
                session.input().copy_from_slice(&pixels);
                let parameters = &self.parameters[..session.net().parameter_len()];
                session.forward(parameters, Mode::Inference, Targets::default())?;
                run = session;
                (run.output(), run.net().output())
            }
        };
        let banks = 0..self.build.filters()[0].banks();
        let responses = banks.map(|bank| self.convolve(first, bank, 1, map, shape)).collect::<Result<Maps>>()?;
        let outputs = self.build.filters()[1].output;
        let mut blocks = memory::zeroed(piece[0] * piece[1] * outputs.len(), "interweaved maps")?;
        for (bank, weave) in self.build.weaves(responses[0].1, piece, stride).into_iter().enumerate() {
            self.bank(bank, weave, &responses, &mut blocks)?;
        }
        Ok(blocks)
    }

    /// What the layers behind the second local one make of its output: features of a piece.
    fn finish(&mut self, blocks: &[f32], piece: [usize; 2], corner: [usize; 2], band: &mut Band) -> Result<()> {
        let outputs = self.build.filters()[1].output;
        let place = |patch: usize| (patch / piece[1], patch % piece[1]);
        let Some(rest) = &mut self.rest else {
            for (patch, block) in blocks.chunks_exact(outputs.len()).enumerate() {
                let (down, across) = place(patch);
                crate::ops::nhwc_to_nchw(outputs, block, &mut band.vectors(corner, down, across)[..outputs.len()]);
            }
            return Ok(());
        };
        let net = rest.net().clone();
        let shape = net.output();
        // Parameters lie in the order of the layers, so those of the last layers are the last ones.
        let parameters = &self.parameters[self.parameters.len() - net.parameter_len()..];
        for (batch, from) in blocks.chunks(BATCH * outputs.len()).enumerate() {
            rest.input()[..from.len()].copy_from_slice(from);
            rest.forward(parameters, Mode::Inference, Targets::default())?;
            let vectors = rest.output().chunks_exact(shape.len()).take(from.len() / outputs.len());
            for (patch, vector) in (batch * BATCH..).zip(vectors) {
                let (down, across) = place(patch);
                crate::ops::nhwc_to_nchw(shape, vector, &mut band.vectors(corner, down, across)[..shape.len()]);
            }
        }
        Ok(())
    }

    /// One bank of local layer `layer` over `n` maps.
    fn convolve(&self, layer: usize, bank: usize, n: usize, input: &[f32], shape: Shape) -> Result<(Vec<f32>, Shape)> {
        let net = &self.build.net;
        let Kind::Filter(f) = net.layers[layer].op.kind() else { unreachable!("local layers are filters") };
        let of_bank = |tensor: &NetParameter| {
            let size = tensor.range.len() / f.banks();
            &self.parameters[tensor.range.start + bank * size..][..size]
        };
        let tensors = &net.parameters[net.layers[layer].parameters.clone()];
        let parameters: Vec<&[f32]> = tensors.iter().map(of_bank).collect();
        let op = dense(f, shape);
        let mut values = memory::zeroed(n * op.output.len(), "interweaved maps")?;
        infer(&op, n, &parameters, input, &mut values)?;
        Ok((values, op.output))
    }

    /// One bank of the second local layer for all patches: a batch of maps for each row of phases.
    fn bank(
        &self,
        bank: usize,
        weave: Interweaving,
        responses: &[(Vec<f32>, Shape)],
        features: &mut [f32],
    ) -> Result<()> {
        let Interweaving { grid, bank: [a, b], cell, step, patches, .. } = weave;
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
                        let (values, shape) = &responses[(a + u / cell.h) * grid.w + b + v / cell.w];
                        let (y, x) = (down * step.h + a * cell.h + u, patch * step.w + b * cell.w + v);
                        let at = (y * shape.w + x) * shape.c;
                        to.copy_from_slice(&values[at..at + to.len()]);
                    }
                }
            }
            let (pooled, shape) = self.between(&maps, phases.w, map)?;
            let (values, shape) = self.convolve(self.build.local[1], bank, phases.w, &pooled, shape)?;
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

    /// The layers between the local ones on `n` interweaved maps.
    fn between(&self, maps: &[f32], n: usize, shape: Shape) -> Result<(Vec<f32>, Shape)> {
        let Build { net, local: [first, second], .. } = &self.build;
        let mut values = memory::reserve(maps.len(), "interweaved maps")?;
        values.extend_from_slice(maps);
        let mut shape = shape;
        for layer in first + 1..*second {
            if matches!(net.layers[layer].op.kind(), Kind::Dropout) {
                continue;
            }
            let op = net.rebind(layer, &[shape])?;
            let mut output = memory::zeroed(n * op.output().len(), "interweaved maps")?;
            infer(&*op, n, &[], &values, &mut output)?;
            (values, shape) = (output, op.output());
        }
        Ok((values, shape))
    }
}

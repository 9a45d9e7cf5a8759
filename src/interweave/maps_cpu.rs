//! The paper's literal form of the interweaved operation on the CPU.

use super::infer;
use super::maps::{Build, Interweaving, Unweaving, dense};
use super::patchwise::Features;
use crate::Result;
use crate::data::photo::Photo;
use crate::data::resample::Normalise;
use crate::net::{Net, NetParameter, Purpose, Session, Spec};
use crate::ops::{Kind, Mode, Shape, Targets};
use std::sync::Arc;

/// Patches of a batch of the layers behind the second local one.
const BATCH: usize = 64;

/// Runs a net of the paper's build on all patches of images.
pub struct MapInterweaver {
    build: Build,
    parameters: Vec<f32>,
    /// The layers behind the second local one, on its output for one patch.
    rest: Option<Session>,
}

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
        Ok(Self { build, parameters, rest })
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
        let (trunk, shape) = self.trunk(photo, whole, stride)?;
        let first = self.build.local[0];
        let responses: Vec<_> =
            (0..self.build.filters()[0].banks()).map(|bank| self.convolve(first, bank, 1, &trunk, shape)).collect();
        let outputs = self.build.filters()[1].output;
        let mut features = vec![0.0; whole[0] * whole[1] * outputs.len()];
        for (bank, weave) in self.build.weaves(responses[0].1, whole, stride).into_iter().enumerate() {
            self.bank(bank, weave, &responses, &mut features)?;
        }
        let Some(rest) = &mut self.rest else {
            let mut values = vec![0.0; features.len()];
            crate::ops::nhwc_to_nchw(outputs, &features, &mut values);
            return Ok(Features { patches: whole, dims: outputs.len(), values });
        };
        let net = rest.net().clone();
        let shape = net.output();
        let mut values = vec![0.0; whole[0] * whole[1] * shape.len()];
        // Parameters lie in the order of the layers, so those of the last layers are the last ones.
        let parameters = &self.parameters[self.parameters.len() - net.parameter_len()..];
        for (from, to) in features.chunks(BATCH * outputs.len()).zip(values.chunks_mut(BATCH * shape.len())) {
            rest.input()[..from.len()].copy_from_slice(from);
            rest.forward(parameters, Mode::Inference, Targets::default())?;
            crate::ops::nhwc_to_nchw(shape, &rest.output()[..to.len()], to);
        }
        Ok(Features { patches: whole, dims: shape.len(), values })
    }

    /// The trunk's map of all of the image that a patch reads.
    fn trunk(&self, photo: &Photo, whole: [usize; 2], stride: usize) -> Result<(Vec<f32>, Shape)> {
        let input = self.build.input(whole, stride);
        let pixels = self.build.cut(&self.build.values(photo), photo.width, [0, 0], whole, stride);
        let (net, first) = (&self.build.net, self.build.local[0]);
        if first == 0 {
            return Ok((pixels, input));
        }
        let spec = Spec { input, layers: net.spec.layers[..first].to_vec(), ..net.spec.clone() };
        let mut session = Session::new(Arc::new(Net::new(spec)?), 1, Purpose::Inference)?;
        session.input().copy_from_slice(&pixels);
        let parameters = &self.parameters[..session.net().parameter_len()];
        session.forward(parameters, Mode::Inference, Targets::default())?;
        Ok((session.output().to_vec(), session.net().output()))
    }

    /// One bank of local layer `layer` over `n` maps.
    fn convolve(&self, layer: usize, bank: usize, n: usize, input: &[f32], shape: Shape) -> (Vec<f32>, Shape) {
        let net = &self.build.net;
        let Kind::Filter(f) = net.layers[layer].op.kind() else { unreachable!("local layers are filters") };
        let of_bank = |tensor: &NetParameter| {
            let size = tensor.range.len() / f.banks();
            &self.parameters[tensor.range.start + bank * size..][..size]
        };
        let tensors = &net.parameters[net.layers[layer].parameters.clone()];
        let parameters: Vec<&[f32]> = tensors.iter().map(of_bank).collect();
        let op = dense(f, shape);
        let mut values = vec![0.0; n * op.output.len()];
        infer(&op, n, &parameters, input, &mut values);
        (values, op.output)
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
        let mut maps = vec![0.0; phases.w * map.len()];
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
            let (values, shape) = self.convolve(self.build.local[1], bank, phases.w, &pooled, shape);
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
        let (mut values, mut shape) = (maps.to_vec(), shape);
        for layer in first + 1..*second {
            if matches!(net.layers[layer].op.kind(), Kind::Dropout) {
                continue;
            }
            let op = net.rebind(layer, &[shape])?;
            let mut output = vec![0.0; n * op.output().len()];
            infer(&*op, n, &[], &values, &mut output);
            (values, shape) = (output, op.output());
        }
        Ok((values, shape))
    }
}

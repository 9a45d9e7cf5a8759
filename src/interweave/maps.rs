//! The interweaved operation to the letter of the paper (section 2.2, Fig. 5): each bank of the first local layer runs on the
//! whole trunk map, and for each bank of the second one and each *phase* its response maps are cut into cells and
//! interweaved into a map in memory, which is then convolved like any other.
//!
//! [`super::Interweaver`] does the same with less work and no such maps; this is what it is compared with.

use super::infer;
use super::patchwise::Features;
use super::plan::patches;
use crate::data::photo::Photo;
use crate::data::resample::Normalise;
use crate::net::{Net, Purpose, Session, Spec};
use crate::ops::conv::Filter;
use crate::ops::{Kind, Mode, Pair, Shape, Targets};
use crate::{Error, Result};
use std::sync::Arc;

/// Patches of a batch of the layers behind the second local one.
const BATCH: usize = 64;

/// Runs a net of the paper's build on all patches of images.
pub struct MapInterweaver {
    net: Arc<Net>,
    parameters: Vec<f32>,
    normalise: Normalise,
    /// Numbers of the two local layers.
    local: [usize; 2],
    /// Pixels of the image from one place of the trunk's map to the next.
    stride: Pair,
    /// The layers behind the second local one, on its output for one patch.
    rest: Option<Session>,
}

impl MapInterweaver {
    /// # Errors
    /// A net that is not a chain of an unpadded trunk, a local layer of span 1 whose blocks are as large as its cells, pools that
    /// tile the blocks, a second local layer whose cells are those blocks, and whatever follows: names the layer and the reason.
    pub fn new(net: Arc<Net>, parameters: Vec<f32>, normalise: Normalise) -> Result<Self> {
        super::check_rgb(&net)?;
        let refuse = |layer: usize, reason: &str| {
            let name = &net.layers[layer].name;
            Error::new(net.spec.place_of(name), format!("cannot be interweaved as maps: {reason}"))
                .advise("use --method interweave, which takes any net")
        };
        if let Some(layer) = (0..net.layers.len()).find(|&l| net.layers[l].inputs[..] != [l]) {
            return Err(refuse(layer, "it does not read the layer before it alone"));
        }
        let banks = |layer: &usize| matches!(net.layers[*layer].op.kind(), Kind::Filter(f) if f.banks() > 1);
        let local: Vec<usize> = (0..net.layers.len()).filter(banks).collect();
        let [first, second] = local[..] else {
            let layer = local.get(2).copied().unwrap_or(net.layers.len() - 1);
            return Err(refuse(layer, &format!("the net has {} local layers instead of two", local.len())));
        };
        let mut stride = Pair::both(1);
        let mut pooled = Pair::both(1);
        for layer in 0..second {
            let into = if layer < first { &mut stride } else { &mut pooled };
            match net.layers[layer].op.kind() {
                Kind::Filter(_) if layer == first => {}
                Kind::Filter(f) if layer < first && f.flattened.is_none() && f.pad == Pair::both(0) => {
                    *into = Pair { h: into.h * f.stride.h, w: into.w * f.stride.w };
                }
                Kind::Pool(p) if p.pad == Pair::both(0) && (layer < first || p.kernel == p.stride) => {
                    if (p.output.h - 1) * p.stride.h + p.kernel.h > p.input.h
                        || (p.output.w - 1) * p.stride.w + p.kernel.w > p.input.w
                    {
                        return Err(refuse(layer, "a window of it reaches beyond the patch"));
                    }
                    *into = Pair { h: into.h * p.stride.h, w: into.w * p.stride.w };
                }
                Kind::Pixelwise | Kind::Dropout => {}
                _ if layer < first => return Err(refuse(layer, "a trunk is made of unpadded convolutions and pools")),
                _ => {
                    return Err(refuse(layer, "between the local layers there may be pools that tile the blocks only"));
                }
            }
        }
        let [f, g] = [first, second].map(|layer| filter(&net, layer));
        if f.block != f.cell {
            return Err(refuse(first, "its blocks must be as large as its cells (window halo, span 1)"));
        }
        if g.cell.h * pooled.h != f.cell.h || g.cell.w * pooled.w != f.cell.w {
            return Err(refuse(second, "its cells must be the blocks of the first local layer"));
        }
        let rest = match net.spec.layers.get(second + 1..) {
            Some([]) | None => None,
            Some(layers) => {
                let spec = Spec { input: net.shape(second + 1), layers: layers.to_vec(), ..net.spec.clone() };
                Some(Session::new(Arc::new(Net::new(spec)?), BATCH, Purpose::Inference)?)
            }
        };
        Ok(Self { net, parameters, normalise, local: [first, second], stride, rest })
    }

    /// Whether patches may be that many pixels apart.
    pub fn takes(&self, stride: usize) -> bool {
        stride.is_multiple_of(self.stride.h) && stride.is_multiple_of(self.stride.w)
    }

    /// Features of the patches whose upper left corners are multiples of `stride` and which lie inside the photo.
    ///
    /// # Errors
    /// A stride that is no multiple of the trunk's, or 0; an image smaller than a patch; no memory.
    pub fn extract(&mut self, photo: &Photo, stride: usize) -> Result<Features> {
        let whole = patches(&self.net, photo.height, photo.width, stride)?;
        if !self.takes(stride) {
            let trunk = self.stride;
            return Err(Error::new("--stride", format!("{stride} is no multiple of the trunk's stride, {trunk}"))
                .advise("use such a multiple, or --method interweave, which takes any stride"));
        }
        let (trunk, shape) = self.trunk(photo, whole, stride)?;
        let responses = self.responses(&trunk, shape);
        let (second, outputs) = (filter(&self.net, self.local[1]), self.net.shape(self.local[1] + 1));
        let mut features = vec![0.0; whole[0] * whole[1] * outputs.len()];
        for bank in 0..second.banks() {
            self.bank(bank, &responses, whole, stride, &mut features)?;
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
        let input = self.net.spec.input;
        let [height, width] = [(whole[0] - 1) * stride + input.h, (whole[1] - 1) * stride + input.w];
        let Normalise { mean, scale } = self.normalise;
        let mut pixels = Vec::with_capacity(height * width * 3);
        for row in photo.rgb.chunks_exact(photo.width * 3).take(height) {
            pixels.extend(row[..width * 3].iter().enumerate().map(|(i, v)| (f32::from(*v) - mean[i % 3]) * scale));
        }
        let first = self.local[0];
        let spec = Spec {
            input: Shape::new(3, height, width),
            layers: self.net.spec.layers[..first].to_vec(),
            ..self.net.spec.clone()
        };
        if first == 0 {
            return Ok((pixels, spec.input));
        }
        let mut session = Session::new(Arc::new(Net::new(spec)?), 1, Purpose::Inference)?;
        session.input().copy_from_slice(&pixels);
        let parameters = &self.parameters[..session.net().parameter_len()];
        session.forward(parameters, Mode::Inference, Targets::default())?;
        Ok((session.output().to_vec(), session.net().output()))
    }

    /// Each bank of the first local layer on the whole trunk map.
    fn responses(&self, trunk: &[f32], shape: Shape) -> Vec<(Vec<f32>, Shape)> {
        let f = filter(&self.net, self.local[0]);
        (0..f.banks()).map(|bank| self.convolve(self.local[0], bank, 1, trunk, shape)).collect()
    }

    /// An ordinary convolution by one bank of a local layer, over `n` maps.
    fn convolve(&self, layer: usize, bank: usize, n: usize, input: &[f32], shape: Shape) -> (Vec<f32>, Shape) {
        let f = filter(&self.net, layer);
        let output = Shape::new(f.output.c, shape.h + 1 - f.kernel.h, shape.w + 1 - f.kernel.w);
        let dense = Filter {
            input: shape,
            output,
            grid: Pair::both(1),
            cell: Pair::both(0),
            block: Pair { h: output.h, w: output.w },
            ..f.clone()
        };
        let tensors = &self.net.parameters[self.net.layers[layer].parameters.clone()];
        let of_bank = |tensor: &crate::net::NetParameter| {
            let size = tensor.range.len() / f.banks();
            &self.parameters[tensor.range.start + bank * size..][..size]
        };
        let parameters: Vec<&[f32]> = tensors.iter().map(of_bank).collect();
        let mut values = vec![0.0; n * output.len()];
        infer(&dense, n, &parameters, input, &mut values);
        (values, output)
    }

    /// One bank of the second local layer for all patches: a batch of maps for each row of phases.
    fn bank(
        &self,
        bank: usize,
        responses: &[(Vec<f32>, Shape)],
        whole: [usize; 2],
        stride: usize,
        features: &mut [f32],
    ) -> Result<()> {
        let [f, g] = self.local.map(|layer| filter(&self.net, layer));
        let (a, b) = (bank / g.grid.w, bank % g.grid.w);
        // Cells that a bank reads, of the first layer's; a tile holds them all.
        let span = [(g.block.h + g.kernel.h - 1) / g.cell.h, (g.block.w + g.kernel.w - 1) / g.cell.w];
        let tile = [span[0] * f.cell.h, span[1] * f.cell.w];
        // Patches of a phase lie a tile apart; patches between them are of other phases.
        let steps = [stride / self.stride.h, stride / self.stride.w];
        let period = [0, 1].map(|axis| tile[axis] / greatest_divisor(tile[axis], steps[axis]));
        let tiles = [0, 1].map(|axis| whole[axis].div_ceil(period[axis]));
        let map = Shape::new(f.output.c, tiles[0] * tile[0], tiles[1] * tile[1]);
        let outputs = self.net.shape(self.local[1] + 1);
        let mut maps = vec![0.0; period[1] * map.len()];
        for phase in 0..period[0].min(whole[0]) {
            for (across, map_values) in maps.chunks_exact_mut(map.len()).enumerate() {
                for (row, line) in map_values.chunks_exact_mut(map.w * map.c).enumerate() {
                    let down = phase + row / tile[0] * period[0];
                    let cell = row % tile[0] / f.cell.h;
                    for column in (0..map.w).step_by(f.cell.w) {
                        let patch = across + column / tile[1] * period[1];
                        let cell = [cell, column % tile[1] / f.cell.w];
                        let to = &mut line[column * map.c..(column + f.cell.w) * map.c];
                        if down >= whole[0] || patch >= whole[1] {
                            to.fill(0.0);
                            continue;
                        }
                        let (values, shape) = &responses[(a + cell[0]) * f.grid.w + b + cell[1]];
                        let y = down * steps[0] + a * f.cell.h + row % tile[0];
                        let x = patch * steps[1] + b * f.cell.w + column % tile[1];
                        let at = (y * shape.w + x) * shape.c;
                        to.copy_from_slice(&values[at..at + to.len()]);
                    }
                }
            }
            let (pooled, shape) = self.between(&maps, period[1], map)?;
            let (values, shape) = self.convolve(self.local[1], bank, period[1], &pooled, shape);
            for (across, values) in values.chunks_exact(shape.len()).enumerate() {
                for down in (phase..whole[0]).step_by(period[0]) {
                    for patch in (across..whole[1]).step_by(period[1]) {
                        let corner = [down / period[0] * g.cell.h * span[0], patch / period[1] * g.cell.w * span[1]];
                        let features = &mut features[(down * whole[1] + patch) * outputs.len()..][..outputs.len()];
                        for u in 0..g.block.h {
                            let from = ((corner[0] + u) * shape.w + corner[1]) * shape.c;
                            let to = ((a * g.block.h + u) * outputs.w + b * g.block.w) * outputs.c;
                            let len = g.block.w * outputs.c;
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
        let (mut values, mut shape) = (maps.to_vec(), shape);
        for layer in self.local[0] + 1..self.local[1] {
            if matches!(self.net.layers[layer].op.kind(), Kind::Dropout) {
                continue;
            }
            let op = self.net.rebind(layer, &[shape])?;
            let mut output = vec![0.0; n * op.output().len()];
            infer(&*op, n, &[], &values, &mut output);
            (values, shape) = (output, op.output());
        }
        Ok((values, shape))
    }
}

/// The filter of a local layer.
fn filter(net: &Net, layer: usize) -> &Filter {
    match net.layers[layer].op.kind() {
        Kind::Filter(f) => f,
        _ => unreachable!("local layers are filters"),
    }
}

fn greatest_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

//! The interweaved operation exactly as in the paper (section 2.2, Fig. 5): each bank of the first local layer runs on the
//! whole trunk map, and for each bank of the second one and each *phase* its response maps are cut into cells and
//! interweaved into a map in memory, which is then convolved like any other. This module describes the work ([`Work`]);
//! [`super::maps_cpu`] and [`super::maps_gpu`] execute it.
//!
//! The one-pass method computes the same with less work and without such maps; this is what it is compared with.

use super::bands::{pieces, waiting};
use super::extractor::{Images, Job};
use super::plan::fitting;
use super::plan::patches;
use crate::memory;
use crate::net::{Net, NetParameter};
use crate::ops::conv::Filter;
use crate::ops::{Kind, Operation, Pair, Shape};
use crate::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// A net of the paper's architecture.
pub(super) struct Build {
    pub net: Arc<Net>,
    /// Indices of the two local layers.
    pub local: [usize; 2],
    /// Pixels of the image between adjacent positions of the trunk's map.
    stride: Pair,
}

impl Build {
    /// # Errors
    /// A net that is not a chain of an unpadded trunk, a local layer of span 1 whose blocks are as large as its cells, pools that
    /// tile the blocks, a second local layer whose cells are those blocks, and any further layers except a loss: names the layer
    /// and the reason.
    pub fn new(net: Arc<Net>) -> Result<Self> {
        super::check_no_loss(&net)?;
        let refuse = |layer: usize, reason: &str| {
            let name = &net.layers[layer].name;
            Error::network(net.spec.place_of(name), format!("cannot be interweaved as maps: {reason}"))
                .advise("use the method interweave, which takes any net")
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
        Ok(Self { net, local: [first, second], stride })
    }

    /// Whether patches can be spaced by this number of pixels.
    pub fn takes(&self, stride: usize) -> bool {
        stride.is_multiple_of(self.stride.h) && stride.is_multiple_of(self.stride.w)
    }

    /// Patches down and across.
    ///
    /// # Errors
    /// A stride that is not a multiple of the trunk's, or 0; an image smaller than a patch.
    pub fn patches(&self, [height, width]: [usize; 2], stride: usize) -> Result<[usize; 2]> {
        let whole = patches(&self.net, height, width, stride)?;
        if self.takes(stride) {
            return Ok(whole);
        }
        let trunk = self.stride;
        Err(Error::new("stride", format!("{stride} is no multiple of the trunk's stride, {trunk}"))
            .advise("use such a multiple, or the method interweave, which takes any stride"))
    }

    /// The part of an image that this number of patches reads.
    pub fn input(&self, patches: [usize; 2], stride: usize) -> Shape {
        let patch = self.net.spec.input;
        Shape::new(3, (patches[0] - 1) * stride + patch.h, (patches[1] - 1) * stride + patch.w)
    }

    /// The part of an image that this number of patches from patch `first` on reads, [h, w, 3], normalised.
    ///
    /// # Errors
    /// No memory.
    pub fn cut(&self, images: &Images<'_>, image: usize, first: [usize; 2], job: &Piece) -> Result<Vec<f32>> {
        let (shape, width, stride) = (self.input(job.patches, job.stride), images.size[1], job.stride);
        let mut pixels = memory::zeroed(shape.len(), "pixels")?;
        for (y, row) in pixels.chunks_exact_mut(3 * shape.w).enumerate() {
            images.copy(image, 3 * ((first[0] * stride + y) * width + first[1] * stride), row);
        }
        Ok(pixels)
    }

    /// The largest piece of a job's images that costs at most `memory` bytes by `cost` and whose features can be buffered.
    ///
    /// # Errors
    /// Those of `cost`.
    pub fn piece(&self, job: Job, memory: u128, cost: impl Fn(&Work) -> u128) -> Result<Piece> {
        let bytes = |patches| {
            // Too large for a net: no piece.
            Ok(Work::new(self, patches, job.stride).map_or(u128::MAX, |work| cost(&work)))
        };
        let patches = waiting(job.whole, fitting(job.whole, memory, bytes)?, self.net.output().len());
        Ok(Piece { patches, stride: job.stride })
    }

    /// The filters of the first local layer, and of the second.
    pub fn filters(&self) -> [&Filter; 2] {
        self.local.map(|layer| filter(&self.net, layer))
    }

    /// How the maps of each bank of the second local layer are assembled from the first one's responses, and how they are used.
    pub fn weaves(&self, response: Shape, patches: [usize; 2], stride: usize) -> Vec<Interweaving> {
        let [f, g] = self.filters();
        let weave = |bank: usize| Interweaving {
            response,
            grid: f.grid,
            bank: [bank / g.grid.w, bank % g.grid.w],
            cell: f.cell,
            span: Pair { h: (g.block.h + g.kernel.h - 1) / g.cell.h, w: (g.block.w + g.kernel.w - 1) / g.cell.w },
            step: Pair { h: stride / self.stride.h, w: stride / self.stride.w },
            patches: Pair { h: patches[0], w: patches[1] },
        };
        (0..g.banks()).map(weave).collect()
    }

    /// How the second layer's values over maps are split again, if those are `values` large.
    pub fn unweave(&self, weave: Interweaving, values: Shape) -> Unweaving {
        let [_, g] = self.filters();
        let tile = Pair { h: weave.span.h * g.cell.h, w: weave.span.w * g.cell.w };
        Unweaving { weave, values, tile, block: g.block, output: g.output }
    }
}

/// A piece of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Piece {
    pub patches: [usize; 2],
    pub stride: usize,
}

impl Piece {
    /// First patches of all pieces of an image.
    pub fn corners(&self, whole: [usize; 2]) -> impl Iterator<Item = [usize; 2]> + use<> {
        pieces(whole, self.patches)
    }
}

/// A layer bound to larger maps.
pub(super) struct Layer {
    pub number: usize,
    pub op: Box<dyn Operation>,
}

/// The work for a piece.
pub(super) struct Work {
    pub patches: [usize; 2],
    pub input: Shape,
    pub trunk: Vec<Layer>,
    /// A bank of the first local layer, and the number of banks.
    pub response: Filter,
    pub banks: usize,
    pub weaves: Vec<Interweaving>,
    pub between: Vec<Layer>,
    /// A bank of the second local layer, and the output of all banks for a patch.
    pub second: Filter,
    pub blocks: Shape,
    pub rest: Vec<Layer>,
}

impl Work {
    /// # Errors
    /// Maps too large for a layer.
    pub fn new(build: &Build, patches: [usize; 2], stride: usize) -> Result<Self> {
        let (net, [first, second], [f, g]) = (&build.net, build.local, build.filters());
        let input = build.input(patches, stride);
        let (trunk, shape) = chain(net, 0..first, input)?;
        let response = dense(f, shape);
        let weaves = build.weaves(response.output, patches, stride);
        let (between, shape) = chain(net, first + 1..second, weaves[0].map())?;
        let (rest, _) = chain(net, second + 1..net.layers.len(), g.output)?;
        let (banks, second, blocks) = (f.banks(), dense(g, shape), g.output);
        Ok(Self { patches, input, trunk, response, banks, weaves, between, second, blocks, rest })
    }

    /// Maps of a bank: one for each phase.
    pub fn maps(&self) -> usize {
        let maps = self.weaves[0].maps();
        maps.h * maps.w
    }

    /// Patches of the piece.
    pub fn count(&self) -> usize {
        self.patches[0] * self.patches[1]
    }
}

/// A chain of layers from an input of this shape, and the shape of its output. Dropout is skipped.
fn chain(net: &Net, layers: Range<usize>, mut shape: Shape) -> Result<(Vec<Layer>, Shape)> {
    let mut bound = Vec::new();
    for number in layers {
        if !matches!(net.layers[number].op.kind(), Kind::Dropout) {
            let op = net.rebind(number, &[shape])?;
            shape = op.output();
            bound.push(Layer { number, op });
        }
    }
    Ok((bound, shape))
}

/// Bank `bank` of `banks` of a tensor of a local layer, in values of that tensor.
pub(super) fn bank(tensor: &NetParameter, bank: usize, banks: usize) -> Range<usize> {
    let size = tensor.range.len() / banks;
    bank * size..(bank + 1) * size
}

/// The filter of a local layer.
fn filter(net: &Net, layer: usize) -> &Filter {
    match net.layers[layer].op.kind() {
        Kind::Filter(f) => f,
        _ => unreachable!("local layers are filters"),
    }
}

/// One bank of a local layer as an ordinary convolution over larger maps.
pub(super) fn dense(f: &Filter, input: Shape) -> Filter {
    let output = Shape::new(f.output.c, input.h + 1 - f.kernel.h, input.w + 1 - f.kernel.w);
    let block = Pair { h: output.h, w: output.w };
    Filter { input, output, grid: Pair::both(1), cell: Pair::both(0), block, ..f.clone() }
}

/// How the maps of one bank of the second local layer are assembled.
#[derive(Debug, Clone, Copy)]
pub struct Interweaving {
    /// A response map; there is one for each bank of the first layer.
    pub response: Shape,
    /// Banks of the first layer.
    pub grid: Pair,
    /// The bank of the second layer.
    pub bank: [usize; 2],
    /// A cell of the first layer, and the number of cells that a tile holds per axis.
    pub cell: Pair,
    /// Cells of a tile along each axis.
    pub span: Pair,
    /// Positions of a response map between adjacent patches.
    pub step: Pair,
    /// Patches of the image.
    pub patches: Pair,
}

impl Interweaving {
    /// A patch's part of a map.
    pub fn tile(&self) -> Pair {
        Pair { h: self.span.h * self.cell.h, w: self.span.w * self.cell.w }
    }

    /// Patches between adjacent tiles of a map; also the number of phases.
    pub fn period(&self) -> Pair {
        let period = |tile: usize, step: usize| tile / greatest_divisor(tile, step);
        let tile = self.tile();
        Pair { h: period(tile.h, self.step.h), w: period(tile.w, self.step.w) }
    }

    /// Maps down and across: one for each phase that has a patch.
    pub fn maps(&self) -> Pair {
        let period = self.period();
        Pair { h: period.h.min(self.patches.h), w: period.w.min(self.patches.w) }
    }

    /// One map.
    pub fn map(&self) -> Shape {
        let (period, tile) = (self.period(), self.tile());
        let (down, across) = (self.patches.h.div_ceil(period.h), self.patches.w.div_ceil(period.w));
        Shape::new(self.response.c, down * tile.h, across * tile.w)
    }
}

/// How the block of one bank of the second local layer is extracted from its maps, for every patch.
#[derive(Debug, Clone, Copy)]
pub struct Unweaving {
    /// How the maps were assembled.
    pub weave: Interweaving,
    /// The second layer's values over one map, and a tile there.
    pub values: Shape,
    /// A tile, in the second layer's values.
    pub tile: Pair,
    /// The block of a bank, in the layer's output for a patch.
    pub block: Pair,
    /// The second layer's output for a patch.
    pub output: Shape,
}

fn greatest_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

//! The interweaved operation to the letter of the paper (section 2.2, Fig. 5): each bank of the first local layer runs on the
//! whole trunk map, and for each bank of the second one and each *phase* its response maps are cut into cells and
//! interweaved into a map in memory, which is then convolved like any other. What has to be done stands here; it is done by
//! [`super::MapInterweaver`] on the CPU and by [`super::GpuMapInterweaver`] on a GPU.
//!
//! [`super::Interweaver`] does the same with less work and no such maps; this is what it is compared with.

use super::plan::patches;
use crate::data::photo::Photo;
use crate::data::resample::Normalise;
use crate::memory;
use crate::net::Net;
use crate::ops::conv::Filter;
use crate::ops::{Kind, Pair, Shape};
use crate::{Error, Result};
use std::sync::Arc;

/// A net of the paper's build.
pub(super) struct Build {
    pub net: Arc<Net>,
    normalise: Normalise,
    /// Numbers of the two local layers.
    pub local: [usize; 2],
    /// Pixels of the image from one place of the trunk's map to the next.
    stride: Pair,
}

impl Build {
    /// # Errors
    /// A net that is not a chain of an unpadded trunk, a local layer of span 1 whose blocks are as large as its cells, pools that
    /// tile the blocks, a second local layer whose cells are those blocks, and whatever follows but a loss: names the layer and
    /// the reason.
    pub fn new(net: Arc<Net>, normalise: Normalise) -> Result<Self> {
        super::check_rgb(&net)?;
        super::check_no_loss(&net)?;
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
        Ok(Self { net, normalise, local: [first, second], stride })
    }

    /// Whether patches may be that many pixels apart.
    pub fn takes(&self, stride: usize) -> bool {
        stride.is_multiple_of(self.stride.h) && stride.is_multiple_of(self.stride.w)
    }

    /// Patches down and across.
    ///
    /// # Errors
    /// A stride that is no multiple of the trunk's, or 0; an image smaller than a patch.
    pub fn patches(&self, [height, width]: [usize; 2], stride: usize) -> Result<[usize; 2]> {
        let whole = patches(&self.net, height, width, stride)?;
        if self.takes(stride) {
            return Ok(whole);
        }
        let trunk = self.stride;
        Err(Error::new("--stride", format!("{stride} is no multiple of the trunk's stride, {trunk}"))
            .advise("use such a multiple, or --method interweave, which takes any stride"))
    }

    /// The part of an image that so many patches read.
    pub fn input(&self, patches: [usize; 2], stride: usize) -> Shape {
        let patch = self.net.spec.input;
        Shape::new(3, (patches[0] - 1) * stride + patch.h, (patches[1] - 1) * stride + patch.w)
    }

    /// The photo's normalised values, by their number.
    pub fn values<'a>(&self, photo: &'a Photo) -> impl Fn(usize) -> f32 + use<'a> {
        let Normalise { mean, scale } = self.normalise;
        move |i| (f32::from(photo.rgb[i]) - mean[i % 3]) * scale
    }

    /// The part of an image of that width that so many patches from patch `first` on read, [h, w, 3].
    ///
    /// # Errors
    /// No memory.
    pub fn cut(
        &self,
        value: &impl Fn(usize) -> f32,
        width: usize,
        first: [usize; 2],
        patches: [usize; 2],
        stride: usize,
    ) -> Result<Vec<f32>> {
        let shape = self.input(patches, stride);
        let mut pixels = memory::reserve(shape.len(), "pixels")?;
        let row = |y: usize| 3 * ((first[0] * stride + y) * width + first[1] * stride);
        pixels.extend((0..shape.h).flat_map(|y| (row(y)..row(y) + 3 * shape.w).map(value)));
        Ok(pixels)
    }

    /// The filters of the first local layer, and of the second.
    pub fn filters(&self) -> [&Filter; 2] {
        self.local.map(|layer| filter(&self.net, layer))
    }

    /// How the maps of each bank of the second local layer are made of the first one's responses, and what becomes of them.
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

    /// How the second layer's values over maps are taken apart, if those are `values` large.
    pub fn unweave(&self, weave: Interweaving, values: Shape) -> Unweaving {
        let [_, g] = self.filters();
        let tile = Pair { h: weave.span.h * g.cell.h, w: weave.span.w * g.cell.w };
        Unweaving { weave, values, tile, block: g.block, output: g.output }
    }
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

/// How the maps of one bank of the second local layer are made.
#[derive(Debug, Clone, Copy)]
pub struct Interweaving {
    /// A response map; there is one for each bank of the first layer.
    pub response: Shape,
    /// Banks of the first layer.
    pub grid: Pair,
    /// The bank of the second layer.
    pub bank: [usize; 2],
    /// A cell of the first layer, and cells that a tile holds per axis.
    pub cell: Pair,
    pub span: Pair,
    /// Places of a response map from one patch to the next.
    pub step: Pair,
    /// Patches of the image.
    pub patches: Pair,
}

impl Interweaving {
    /// A patch's share of a map.
    pub fn tile(&self) -> Pair {
        Pair { h: self.span.h * self.cell.h, w: self.span.w * self.cell.w }
    }

    /// Patches from one tile of a map to the next; as many phases there are.
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

/// How the block of one bank of the second local layer is taken out of its maps, for every patch.
#[derive(Debug, Clone, Copy)]
pub struct Unweaving {
    pub weave: Interweaving,
    /// The second layer's values over one map, and a tile there.
    pub values: Shape,
    pub tile: Pair,
    /// The block of a bank, in the layer's output for a patch.
    pub block: Pair,
    pub output: Shape,
}

fn greatest_divisor(a: usize, b: usize) -> usize {
    if b == 0 { a } else { greatest_divisor(b, a % b) }
}

//! Where the cells of a net's last map lie in its input.

use crate::net::Net;
use crate::ops::Kind;
use crate::{Error, Result};

/// The cells of a net's last map, along either axis.
#[derive(Debug, Clone)]
pub(super) struct Grid {
    /// Kernel, stride and padding of each filter and pool.
    windows: Vec<[usize; 3]>,
    /// Input pixels between neighbouring cells.
    pub stride: f32,
    /// Centre of the first cell, in input pixels.
    pub first: f32,
    /// The smallest side of an input that yields a cell.
    least: usize,
}

impl Grid {
    /// The grid of a net of filters and pools.
    ///
    /// # Errors
    /// A layer that fits only one size, or that is not square.
    pub fn new(net: &Net) -> Result<Self> {
        let mut grid = Self { windows: Vec::new(), stride: 1.0, first: 0.5, least: 1 };
        for layer in &net.layers {
            let (kernel, step, pad) = match layer.op.kind() {
                Kind::Filter(f) if f.banks() == 1 && f.flattened.is_none() => (f.kernel, f.stride, f.pad),
                Kind::Pool(pool) => (pool.kernel, pool.stride, pool.pad),
                Kind::Filter(_) => {
                    let place = net.spec.place_of(&layer.name);
                    return Err(Error::new(place, format!("a {} fits one size only", layer.kind))
                        .advise("a net that locates is made of conv and pools"));
                }
                _ => continue,
            };
            if kernel.h != kernel.w || step.h != step.w || pad.h != pad.w {
                let place = net.spec.place_of(&layer.name);
                return Err(Error::new(place, "its kernel, stride or pad is not square")
                    .advise("a net that locates needs square ones"));
            }
            grid.first += grid.stride * ((kernel.h as f32 - 1.0) / 2.0 - pad.h as f32);
            grid.stride *= step.h as f32;
            grid.windows.push([kernel.h, step.h, pad.h]);
        }
        let most = net.spec.input.h.max(net.spec.input.w);
        grid.least = (1..most).find(|&side| net.at_size(side, side).is_ok()).unwrap_or(most);
        Ok(grid)
    }

    /// Cells along an axis of `side` input pixels; 0 if a layer does not fit.
    pub fn cells(&self, side: usize) -> usize {
        let fit = |side: usize, &[kernel, stride, pad]: &[usize; 3]| {
            (side + 2 * pad).checked_sub(kernel).map(|rest| rest / stride + 1)
        };
        self.windows.iter().try_fold(side, fit).unwrap_or(0)
    }

    /// Whether every pixel of a side counts: a pixel less would be a cell less.
    fn is_exact(&self, side: usize) -> bool {
        side == self.least || self.cells(side) > self.cells(side - 1)
    }

    /// The input side for a view of `side` pixels: the smallest that covers it and is exact. Photos of all sizes share few such
    /// sides: each has its plan and its launches.
    pub fn covering(&self, side: f32) -> usize {
        let least = (side.round() as usize).max(self.least);
        (least..).find(|&side| self.is_exact(side)).unwrap_or(least)
    }

    /// The exact side that is nearest to `side`.
    pub fn nearest(&self, side: f32) -> usize {
        let above = self.covering(side);
        let below = (self.least..above).rev().find(|&side| self.is_exact(side)).unwrap_or(above);
        if side - (below as f32) < above as f32 - side { below } else { above }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_covering_side_has_no_pixel_too_many() {
        let grid =
            Grid::new(&Net::load("nets/lnet_o.toml").and_then(|net| Net::new(net.spec.clone().up_to("c5")?)).unwrap())
                .unwrap();
        assert_eq!((grid.stride, grid.first, grid.least), (16.0, 17.5, 35));
        for (side, covering) in [(1.0, 35), (35.0, 35), (36.0, 51), (227.0, 227), (228.0, 243), (640.0, 643)] {
            assert_eq!(grid.covering(side), covering, "{side}");
            assert_eq!(grid.cells(covering), grid.cells(covering - 1) + 1, "{side}");
        }
        assert_eq!([170.0, 172.0, 10.0].map(|side| grid.nearest(side)), [163, 179, 35]);
    }
}

//! Edges: their strength and orientation. The default detector computes them from gradients; a learned one (structured forests, a
//! net) can be used through [`EdgeDetector`].

use crate::data::photo::Photo;
use crate::ops::simd::dispatch;
use serde::Deserialize;
use std::f32::consts::{FRAC_PI_2, PI};

/// Thin edges of a photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Edges {
    pub height: usize,
    pub width: usize,
    /// [height, width], in 0..=1; 0 where there is no edge.
    pub magnitude: Vec<f32>,
    /// [height, width], the angle of the edge itself (not of its normal) to the x axis, in 0..pi; valid at edges only.
    pub orientation: Vec<f32>,
}

/// Detects edges.
pub trait EdgeDetector {
    /// The edge map of a photo, with the photo's size.
    fn detect(&self, photo: &Photo) -> Edges;
}

/// Edges from colour gradients: the gradient of the strongest channel, divided by its local mean so that weak contours count next
/// to strong ones (the gradient magnitude channel of Dollar's toolbox), thinned by non-maximum suppression across the edge
/// (Canny, 1986).
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GradientEdges {
    /// Radius in pixels of the triangle filter before the gradient; 0 disables it.
    pub smoothing: usize,
    /// Radius of the triangle filter that computes the local mean of the gradient.
    pub surroundings: usize,
    /// Added to that mean, in units of the full range of a channel per pixel: gradients far below it are not edges.
    pub softness: f32,
    /// Ratio to the local mean at which an edge has magnitude 1.
    pub saturation: f32,
}

impl Default for GradientEdges {
    fn default() -> Self {
        Self { smoothing: 3, surroundings: 7, softness: 0.02, saturation: 3.0 }
    }
}

impl EdgeDetector for GradientEdges {
    fn detect(&self, photo: &Photo) -> Edges {
        let (height, width) = (photo.height, photo.width);
        let mut strongest = Gradient::zero(height * width);
        for channel in 0..3 {
            let plane: Vec<f32> = photo.rgb.iter().skip(channel).step_by(3).map(|&v| f32::from(v) / 255.0).collect();
            let plane = smooth(&plane, height, width, self.smoothing);
            dispatch!(strongest.keep_stronger(&plane, height, width));
        }
        let mut strength = strongest.squared.clone();
        dispatch!(strength.iter_mut().for_each(|s| *s = s.sqrt()));
        let mean = smooth(&strength, height, width, self.surroundings);
        dispatch!({
            for (strength, mean) in strength.iter_mut().zip(&mean) {
                *strength /= (mean + self.softness) * self.saturation;
            }
        });
        strongest.thinned(&strength, height, width)
    }
}

/// At each pixel, the gradient of the channel in which it is largest; all [height, width].
struct Gradient {
    dx: Vec<f32>,
    dy: Vec<f32>,
    squared: Vec<f32>,
}

impl Gradient {
    fn zero(pixels: usize) -> Self {
        Self { dx: vec![0.0; pixels], dy: vec![0.0; pixels], squared: vec![0.0; pixels] }
    }

    /// Replaces the gradient with that of `plane` (central differences, replicated border) where it is larger.
    #[inline(always)]
    fn keep_stronger(&mut self, plane: &[f32], height: usize, width: usize) {
        for y in 0..height {
            let row = |y: usize| &plane[y * width..][..width];
            let (above, here, below) = (row(y.saturating_sub(1)), row(y), row((y + 1).min(height - 1)));
            for x in 0..width {
                let dx = (here[(x + 1).min(width - 1)] - here[x.saturating_sub(1)]) / 2.0;
                let dy = (below[x] - above[x]) / 2.0;
                let (at, squared) = (y * width + x, dx * dx + dy * dy);
                if squared > self.squared[at] {
                    (self.dx[at], self.dy[at], self.squared[at]) = (dx, dy, squared);
                }
            }
        }
    }

    /// The thinned edges of this gradient: `strength` where it is a maximum along the gradient, compared with the interpolated
    /// neighbours on both sides. Of two equal adjacent ones, one is kept.
    fn thinned(&self, strength: &[f32], height: usize, width: usize) -> Edges {
        let mut edges =
            Edges { height, width, magnitude: vec![0.0; height * width], orientation: vec![0.0; height * width] };
        for y in 0..height {
            for x in 0..width {
                let at = y * width + x;
                let norm = self.squared[at].sqrt();
                if norm == 0.0 {
                    continue;
                }
                let (nx, ny) = (self.dx[at] / norm, self.dy[at] / norm);
                let beside = |sign: f32| between(strength, height, width, x as f32 + sign * nx, y as f32 + sign * ny);
                if strength[at] >= beside(1.0) && strength[at] > beside(-1.0) {
                    edges.magnitude[at] = strength[at].min(1.0);
                    edges.orientation[at] = wrapped(ny.atan2(nx) + FRAC_PI_2);
                }
            }
        }
        edges
    }
}

/// Wraps the angle of an undirected line to 0..pi.
fn wrapped(angle: f32) -> f32 {
    let angle = angle.rem_euclid(PI);
    // rem_euclid rounds to pi just below 0.
    if angle < PI { angle } else { 0.0 }
}

/// The difference between two such angles, in 0..=pi/2.
pub(super) fn turn(a: f32, b: f32) -> f32 {
    let difference = (a - b).abs();
    difference.min(PI - difference)
}

/// A plane sampled between pixels, bilinear, with a replicated border.
fn between(plane: &[f32], height: usize, width: usize, x: f32, y: f32) -> f32 {
    let axis = |v: f32, size: usize| {
        let v = v.clamp(0.0, (size - 1) as f32);
        let low = v as usize;
        (low, (low + 1).min(size - 1), v - low as f32)
    };
    let ((x0, x1, fx), (y0, y1, fy)) = (axis(x, width), axis(y, height));
    let row = |y: usize| plane[y * width + x0] * (1.0 - fx) + plane[y * width + x1] * fx;
    row(y0) * (1.0 - fy) + row(y1) * fy
}

/// A plane [height, width] filtered with a triangle filter of `radius`, with a replicated border; unchanged for radius 0.
fn smooth(plane: &[f32], height: usize, width: usize, radius: usize) -> Vec<f32> {
    if radius == 0 {
        return plane.to_vec();
    }
    let taps = 2 * radius + 1;
    let total = ((radius + 1) * (radius + 1)) as f32;
    let weight = |tap: usize| (radius + 1 - tap.abs_diff(radius)) as f32 / total;
    let mut smoothed = vec![0.0; height * width];
    let mut padded = vec![0.0; width + 2 * radius];
    for y in 0..height {
        // Down the columns, into a row with room for the replicated border; then along the row.
        padded.fill(0.0);
        let middle = &mut padded[radius..radius + width];
        for tap in 0..taps {
            let from = (y + tap).saturating_sub(radius).min(height - 1);
            let row = &plane[from * width..][..width];
            let weight = weight(tap);
            dispatch!(middle.iter_mut().zip(row).for_each(|(sum, v)| *sum += weight * v));
        }
        let (first, last) = (padded[radius], padded[radius + width - 1]);
        padded[..radius].fill(first);
        padded[radius + width..].fill(last);
        let out = &mut smoothed[y * width..][..width];
        for tap in 0..taps {
            let (weight, padded) = (weight(tap), &padded[tap..]);
            dispatch!(out.iter_mut().zip(padded).for_each(|(sum, v)| *sum += weight * v));
        }
    }
    smoothed
}

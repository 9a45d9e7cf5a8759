//! The one routine behind every crop: resamples a window of a photo, at any sub-pixel position and size, onto a pixel grid.
//!
//! Bilinear, antialiased: a separable triangle filter one output pixel wide when shrinking and one input pixel wide
//! when enlarging, like PIL's `resize(size, BILINEAR, box)`. Training, evaluation and prediction share it, so a network
//! never sees pixels filtered differently from those it was trained on. Unlike in PIL, windows may extend beyond the photo,
//! where its edge pixels are repeated.

use super::photo::{Photo, Rect};
use crate::net::Normalise;
use crate::ops::simd::dispatch;
use std::ops::Range;

/// Coordinates of a window are clamped to this, in pixels: everything further out is repeated edge.
const MAX_REACH: f32 = 1_048_576.0;

/// A window's coordinate within [`MAX_REACH`]. A NaN window shows arbitrary pixels; it must not make loops over taps endless.
pub(super) fn tame(v: f32) -> f32 {
    if v.is_nan() { 0.0 } else { v.clamp(-MAX_REACH, MAX_REACH) }
}

/// The pixels of an axis of `inputs` pixels (at least one) that `outputs` pixels over [start, start + length) are computed from,
/// and at most two more at each end, for a device that rounds in another order.
pub(super) fn reach(start: f32, length: f32, outputs: usize, inputs: usize) -> Range<usize> {
    let (start, length) = (f64::from(tame(start)), f64::from(tame(length)));
    let step = length / outputs.max(1) as f64;
    let support = step.abs().max(1.0) + 1.0;
    let [first, last] = [start + 0.5 * step, start + length - 0.5 * step];
    let inside = |v: f64| v.clamp(0.0, (inputs - 1) as f64) as usize;
    inside((first.min(last) - support).floor())..inside((first.max(last) + support).ceil()) + 1
}

/// Samples windows of photos. Reuses its scratch memory between calls: create one per thread.
///
/// ```
/// use weft::data::photo::{Photo, Rect};
/// use weft::data::resample::Resampler;
/// use weft::net::Normalise;
///
/// let photo = Photo::from_fn(40, 30, |x, y| [x as u8, y as u8, 0]);
/// let mut values = vec![0.0; 16 * 16 * 3];
/// let window = Rect::new(3.5, -2.0, 20.0, 20.0);
/// Resampler::default().sample(&photo, window, 16, 16, false, Normalise::default(), &mut values);
/// ```
#[derive(Debug, Default)]
pub struct Resampler {
    columns: Taps,
    rows: Taps,
    /// The weighted sum of the photo's rows under one output row, RGB, from the first column that is read; and one value more.
    sums: Vec<f32>,
    /// One output row, [out_w, 3].
    line: Vec<f32>,
}

impl Resampler {
    /// Writes `window` of `photo`, scaled to `out_w` x `out_h`, into `out`, [out_h, out_w, 3]; mirrored left to right
    /// if `flip`. A pixel-aligned window of the size of the output is copied exactly.
    ///
    /// # Panics
    /// If `out` does not have `out_h * out_w * 3` elements or the photo is empty.
    #[allow(clippy::too_many_arguments)]
    pub fn sample(
        &mut self,
        photo: &Photo,
        window: Rect,
        out_w: usize,
        out_h: usize,
        flip: bool,
        normalise: Normalise,
        out: &mut [f32],
    ) {
        assert_eq!(out.len(), out_h * out_w * 3, "the buffer of a {out_w} x {out_h} sample");
        let Normalise { mean, scale } = normalise;
        self.filter(photo, window, out_w, out_h, flip, |y, line| {
            let row = &mut out[y * out_w * 3..][..out_w * 3];
            dispatch!({
                for (to, from) in row.chunks_exact_mut(3).zip(line.chunks_exact(3)) {
                    for c in 0..3 {
                        to[c] = (from[c] - mean[c]) * scale;
                    }
                }
            });
        });
    }

    /// `window` of `photo` as a photo of `out_w` x `out_h`, rounded to nearest.
    ///
    /// # Panics
    /// If the photo is empty.
    pub fn resize(&mut self, photo: &Photo, window: Rect, out_w: usize, out_h: usize) -> Photo {
        let mut rgb = Vec::with_capacity(out_w * out_h * 3);
        self.filter(photo, window, out_w, out_h, false, |_, line| rgb.extend(line.iter().map(|v| (v + 0.5) as u8)));
        Photo { width: out_w, height: out_h, rgb }
    }

    /// Passes the output to `put(y, row)` from top to bottom, each row [out_w, 3] in pixel values.
    fn filter(
        &mut self,
        photo: &Photo,
        window: Rect,
        out_w: usize,
        out_h: usize,
        flip: bool,
        mut put: impl FnMut(usize, &[f32]),
    ) {
        assert!(photo.width > 0 && photo.height > 0, "an empty photo cannot be sampled");
        self.columns.place(window.x, window.width, out_w, photo.width);
        self.rows.place(window.y, window.height, out_h, photo.height);
        if flip {
            self.columns.spans.reverse();
        }

        let spans = &self.columns.spans;
        let first = spans.iter().map(|span| span.first).min().unwrap_or(0);
        let end = spans.iter().map(|span| span.first + span.count).max().unwrap_or(first);
        // Remains of an earlier call are overwritten before they are read.
        self.sums.resize((end - first) * 3 + 1, 0.0);
        self.line.resize(out_w * 3, 0.0);
        for (y, span) in self.rows.spans.iter().enumerate() {
            // Down the photo first: whole rows are added at the width of the registers, and only the sums are filtered across.
            let sums = &mut self.sums[..(end - first) * 3];
            sums.fill(0.0);
            for (row, &weight) in (span.first..).zip(self.rows.weights(span)) {
                let pixels = &photo.rgb[(row * photo.width + first) * 3..(row * photo.width + end) * 3];
                dispatch!({
                    for (to, &value) in sums.iter_mut().zip(pixels) {
                        *to += weight * f32::from(value);
                    }
                });
            }
            dispatch!(self.columns.filter(&self.sums, first, &mut self.line));
            put(y, &self.line);
        }
    }
}

/// One axis: the input pixels that each output pixel is computed from.
#[derive(Debug, Default)]
struct Taps {
    spans: Vec<Span>,
    weights: Vec<f32>,
}

/// `count` input pixels from `first`, with weights from `at`; they are inside the photo and their weights sum to 1.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: usize,
    count: usize,
    at: usize,
}

impl Taps {
    fn weights(&self, span: &Span) -> &[f32] {
        &self.weights[span.at..][..span.count]
    }

    /// The horizontal pass over a row of RGB values that begins at pixel `start`. A value follows after the last pixel, so that four
    /// values can be read of each.
    #[inline(always)]
    fn filter(&self, row: &[f32], start: usize, out: &mut [f32]) {
        for (to, span) in out.chunks_exact_mut(3).zip(&self.spans) {
            let mut sum = [0.0; 4];
            for (pixel, &weight) in (span.first - start..).zip(self.weights(span)) {
                let values = &row[pixel * 3..pixel * 3 + 4];
                sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += weight * value);
            }
            to.copy_from_slice(&sum[..3]);
        }
    }

    /// Maps `outputs` pixels onto [start, start + length) of an axis of `inputs` pixels (at least one).
    fn place(&mut self, start: f32, length: f32, outputs: usize, inputs: usize) {
        let (start, length) = (f64::from(tame(start)), f64::from(tame(length)));
        self.spans.clear();
        self.weights.clear();
        let step = length / outputs.max(1) as f64;
        let support = step.abs().max(1.0);
        let last = inputs as i64 - 1;
        for o in 0..outputs {
            let center = start + (o as f64 + 0.5) * step;
            let weight = |tap: i64| (1.0 - ((tap as f64 + 0.5 - center) / support).abs()).max(0.0);
            let mut low = (center - support).floor() as i64;
            let mut high = (center + support).ceil() as i64;
            // The end taps may have weight 0; without them a copy reads one pixel, not three.
            while low < high && weight(low) == 0.0 {
                low += 1;
            }
            while high > low && weight(high) == 0.0 {
                high -= 1;
            }
            // Taps beyond the photo read its edge: their weights are added to the edge pixel's.
            let (first, end) = (low.clamp(0, last) as usize, high.clamp(0, last) as usize);
            let total: f64 = (low..=high).map(weight).sum();
            let span = Span { first, count: end - first + 1, at: self.weights.len() };
            self.weights.resize(span.at + span.count, 0.0);
            for tap in low..=high {
                self.weights[span.at + tap.clamp(0, last) as usize - first] += (weight(tap) / total) as f32;
            }
            self.spans.push(span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn noise(width: usize, height: usize) -> Photo {
        let mut rng = crate::rng::Rng::new(3, 0);
        Photo::from_fn(width, height, |_, _| [rng.below(256) as u8, rng.below(256) as u8, rng.below(256) as u8])
    }

    fn sample(photo: &Photo, window: Rect, out_w: usize, out_h: usize, flip: bool) -> Vec<f32> {
        let mut out = vec![f32::NAN; out_w * out_h * 3];
        Resampler::default().sample(photo, window, out_w, out_h, flip, Normalise::NONE, &mut out);
        out
    }

    #[test]
    fn a_window_on_whole_pixels_is_copied_exactly() {
        let photo = noise(40, 30);
        let out = sample(&photo, Rect::new(7.0, 5.0, 20.0, 11.0), 20, 11, false);
        for (i, pixel) in out.chunks(3).enumerate() {
            let expected = photo.pixel(7 + i % 20, 5 + i / 20).map(f32::from);
            assert_eq!(pixel, expected);
        }
        assert_eq!(photo.resized(40, 30), photo);
    }

    #[test]
    fn a_window_beyond_the_photo_repeats_its_edge() {
        let photo = noise(4, 3);
        let out = sample(&photo, Rect::new(-2.0, -2.0, 8.0, 8.0), 8, 8, false);
        for (i, pixel) in out.chunks(3).enumerate() {
            let clamp = |v: usize, n: usize| v.saturating_sub(2).min(n - 1);
            assert_eq!(pixel, photo.pixel(clamp(i % 8, 4), clamp(i / 8, 3)).map(f32::from));
        }
        let far = sample(&photo, Rect::new(1e9, -1e9, 5.0, 5.0), 2, 2, false);
        assert!(far.chunks(3).all(|p| p == photo.pixel(3, 0).map(f32::from)));
    }

    #[test]
    fn a_flip_is_the_mirror_image_to_the_last_bit() {
        let photo = noise(33, 20);
        let window = Rect::new(-3.3, 2.7, 29.1, 14.4);
        let (plain, flipped) = (sample(&photo, window, 17, 9, false), sample(&photo, window, 17, 9, true));
        for y in 0..9 {
            for x in 0..17 {
                assert_eq!(plain[(y * 17 + x) * 3..][..3], flipped[(y * 17 + 16 - x) * 3..][..3]);
            }
        }
    }

    #[test]
    fn enlarging_interpolates_between_pixel_centres() {
        let photo = Photo::from_fn(2, 1, |x, _| [100 * x as u8; 3]);
        let out = sample(&photo, photo.bounds(), 4, 1, false);
        let red: Vec<f32> = out.chunks(3).map(|p| p[0]).collect();
        assert_eq!(red, [0.0, 25.0, 75.0, 100.0]);
    }

    #[test]
    fn shrinking_weighs_with_a_triangle_two_output_pixels_wide() {
        // Output 1 of 3 has its centre at 3 and extends from 1 to 5: taps 1..=4 have weights 1/8, 3/8, 3/8, 1/8.
        let photo = Photo::from_fn(6, 1, |x, _| [[0, 8, 16, 80, 160, 0][x]; 3]);
        let out = sample(&photo, photo.bounds(), 3, 1, false);
        assert_eq!(out[3], 1.0 + 6.0 + 30.0 + 20.0);
    }

    #[test]
    fn a_checkerboard_shrinks_to_grey() {
        let board = Photo::from_fn(64, 64, |x, y| [255 * ((x + y) % 2) as u8; 3]);
        let small = sample(&board, Rect::new(8.0, 8.0, 48.0, 48.0), 12, 12, false);
        assert!(small.iter().all(|v| (v - 127.5).abs() < 1e-3), "{small:?}");
    }

    #[test]
    fn normalising_subtracts_then_scales() {
        let photo = Photo::from_fn(1, 1, |_, _| [0, 128, 255]);
        let mut out = [0.0; 3];
        let normalise = Normalise { mean: [1.0, 2.0, 3.0], scale: 0.5 };
        Resampler::default().sample(&photo, photo.bounds(), 1, 1, false, normalise, &mut out);
        assert_eq!(out, [-0.5, 63.0, 126.0]);
    }

    #[test]
    fn scratch_memory_of_an_earlier_call_does_not_show() {
        let photo = noise(50, 40);
        let mut resampler = Resampler::default();
        let window = Rect::new(3.2, 4.1, 20.0, 30.0);
        let fresh = resampler.resize(&photo, window, 16, 16);
        resampler.resize(&photo, photo.bounds(), 45, 38);
        assert_eq!(resampler.resize(&photo, window, 16, 16), fresh);
    }

    #[test]
    fn windows_that_are_no_numbers_do_not_panic() {
        let photo = noise(5, 5);
        for v in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 0.0, -3.0] {
            let out = sample(&photo, Rect::new(v, 1.0, v, v), 3, 3, false);
            assert!(out.iter().all(|x| x.is_finite()), "{v}");
        }
        assert!(sample(&photo, photo.bounds(), 0, 3, false).is_empty());
    }

    proptest! {
        #[test]
        fn a_constant_photo_stays_constant_under_any_window(
            size in (1..40_usize, 1..40_usize), out in (1..30_usize, 1..30_usize),
            x in -60.0_f32..60.0, y in -60.0_f32..60.0, w in 0.0_f32..200.0, h in 0.0_f32..200.0, flip: bool,
        ) {
            let photo = Photo::from_fn(size.0, size.1, |_, _| [7, 130, 255]);
            for pixel in sample(&photo, Rect::new(x, y, w, h), out.0, out.1, flip).chunks(3) {
                for (value, expected) in pixel.iter().zip([7.0, 130.0, 255.0]) {
                    prop_assert!((value - expected).abs() < 2e-4 * expected, "{value} for {expected}");
                }
            }
        }

        #[test]
        fn a_linear_ramp_is_reproduced_inside(x in 20.0_f32..40.0, w in 1.0_f32..40.0, out_w in 1..30_usize) {
            let photo = Photo::from_fn(120, 1, |x, _| [2 * x as u8; 3]);
            // The filter is symmetric about each output's centre, so a ramp keeps its value there, up to the unevenness
            // of whole-pixel taps under a triangle of fractional width.
            for (o, pixel) in sample(&photo, Rect::new(x, 0.0, w, 1.0), out_w, 1, false).chunks(3).enumerate() {
                let centre = x + (o as f32 + 0.5) * w / out_w as f32;
                prop_assert!((pixel[0] - 2.0 * (centre - 0.5)).abs() < 0.5, "{} at {centre}", pixel[0]);
            }
        }
    }
}

//! Windows of photos in batches for any device, and for the kernels of a GPU.

use super::photo::{Photo, Rect};
use super::resample::{Resampler, reach, tame};
use crate::net::Input;
pub use crate::net::photos::{Batch, PhotoWindow};
use std::ops::Range;

impl PhotoWindow {
    /// `window` of the photo of `size` (width, height) whose bytes begin at `offset`, mirrored if `flip`. Coordinates that
    /// are NaN or far outside are clamped to a range that the kernel can iterate over.
    pub fn new(offset: usize, size: (usize, usize), window: Rect, flip: bool) -> Self {
        Self {
            offset: offset as i64,
            photo_w: size.0 as u32,
            photo_h: size.1 as u32,
            x: tame(window.x),
            y: tame(window.y),
            w: tame(window.width),
            h: tame(window.height),
            flip: u32::from(flip),
            pitch: size.0 as u32,
        }
    }
}

impl Resampler {
    /// Makes `window` of `photo`, mirrored left to right if `flip`, the next sample of `input`: resampled now, or the pixels
    /// that the device of `input` will resample.
    ///
    /// # Panics
    /// If the photo is empty.
    pub fn put(&mut self, photo: &Photo, window: Rect, flip: bool, input: &mut Input) {
        assert!(photo.width > 0 && photo.height > 0, "an empty photo cannot be sampled");
        let shape = input.shape();
        let columns = reach(window.x, window.width, shape.w, photo.width);
        let rows = reach(window.y, window.height, shape.h, photo.height);
        let place = PhotoWindow::new(0, (photo.width, photo.height), window, flip);
        let Range { start, end } = columns;
        if let Some(part) = input.pixels(place, columns, rows.clone()) {
            for (to, y) in part.chunks_exact_mut(3 * (end - start)).zip(rows) {
                to.copy_from_slice(&photo.rgb[3 * (y * photo.width + start)..3 * (y * photo.width + end)]);
            }
        } else {
            let normalise = input.normalise();
            self.sample(photo, window, shape.w, shape.h, flip, normalise, input.values());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_part_that_is_read_is_inside_the_photo_and_never_empty() {
        assert_eq!(reach(10.0, 8.0, 8, 100), 8..21);
        assert_eq!(reach(10.0, 80.0, 8, 100), 4..97);
        assert_eq!(reach(18.0, -8.0, 8, 100), 8..21, "mirrored");
        assert_eq!(reach(-50.0, 8.0, 8, 100), 0..1);
        assert_eq!(reach(500.0, 8.0, 8, 100), 99..100);
        for v in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            assert!(!reach(v, v, 3, 7).is_empty());
        }
    }
}

//! Windows of photos for a GPU.

use super::photo::Rect;
use super::resample::MAX_REACH;
pub use crate::net::photos::{Batch, PhotoWindow};

impl PhotoWindow {
    /// `window` of the photo of `size` (width, height) whose bytes begin at `offset`, mirrored if `flip`. Coordinates that
    /// are NaN or far outside are clamped to a range that the kernel can iterate over.
    pub fn new(offset: usize, size: (usize, usize), window: Rect, flip: bool) -> Self {
        let tame = |v: f32| if v.is_nan() { 0.0 } else { v.clamp(-MAX_REACH, MAX_REACH) };
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

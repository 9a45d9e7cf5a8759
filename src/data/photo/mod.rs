//! A photo, and the rectangle type that the whole pipeline uses. Files are read with the feature `image`.

#[cfg(feature = "image")]
mod decode;
#[cfg(feature = "image")]
mod exif;
#[cfg(feature = "image")]
mod gif;
#[cfg(feature = "image")]
mod jpeg;
#[cfg(feature = "image")]
mod png;
#[cfg(feature = "image")]
mod tiff;
#[cfg(feature = "image")]
mod webp;

use super::resample::Resampler;
use crate::net::Normalise;
use crate::{Error, Result};
#[cfg(feature = "image")]
pub use decode::{MAX_PIXELS, MAX_SIDE, is_decoding};

/// 8-bit RGB, row-major, interleaved: `rgb[(y * width + x) * 3 + channel]`.
///
/// ```
/// use weft::data::photo::Photo;
///
/// let photo = Photo::open("tests/photos/eileen-collins.jpg")?;
/// let (small, factor) = photo.fit_within(100);
/// assert!(small.width.max(small.height) == 100 && factor < 1.0);
/// # Ok::<(), weft::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// The pixels, three bytes each.
    pub rgb: Vec<u8>,
}

impl Photo {
    /// A photo of `width` x `height` pixels, `rgb[(y * width + x) * 3 + channel]`.
    ///
    /// # Errors
    /// Bytes of another length; an empty photo.
    pub fn new(width: usize, height: usize, rgb: Vec<u8>) -> Result<Self> {
        let needed = width.checked_mul(height).and_then(|pixels| pixels.checked_mul(3));
        if needed != Some(rgb.len()) || rgb.is_empty() {
            let found = format!("{} bytes are given for {width} x {height} pixels of RGB", rgb.len());
            return Err(Error::new("photo", found).advise("give 3 bytes for each pixel"));
        }
        Ok(Self { width, height, rgb })
    }

    /// A photo whose pixel (x, y) is `f(x, y)`; row by row.
    pub fn from_fn(width: usize, height: usize, mut f: impl FnMut(usize, usize) -> [u8; 3]) -> Self {
        let mut rgb = Vec::with_capacity(width * height * 3);
        for y in 0..height {
            for x in 0..width {
                rgb.extend_from_slice(&f(x, y));
            }
        }
        Self { width, height, rgb }
    }

    /// The pixel at (x, y), which must lie inside.
    #[inline]
    pub fn pixel(&self, x: usize, y: usize) -> [u8; 3] {
        let at = (y * self.width + x) * 3;
        [self.rgb[at], self.rgb[at + 1], self.rgb[at + 2]]
    }

    /// Sets the pixel at (x, y), which must lie inside.
    #[inline]
    pub fn set_pixel(&mut self, x: usize, y: usize, color: [u8; 3]) {
        let at = (y * self.width + x) * 3;
        self.rgb[at..at + 3].copy_from_slice(&color);
    }

    /// The rectangle of the whole photo.
    pub fn bounds(&self) -> Rect {
        Rect::new(0.0, 0.0, self.width as f32, self.height as f32)
    }

    /// The pixels as the input of a net, `[height, width, 3]`: `net.spec.normalise` says how.
    pub fn normalised(&self, Normalise { mean, scale }: Normalise) -> Vec<f32> {
        self.rgb.iter().zip(mean.iter().cycle()).map(|(&pixel, mean)| (f32::from(pixel) - mean) * scale).collect()
    }

    /// The photo at another size, antialiased; the aspect ratio may change.
    pub fn resized(&self, width: usize, height: usize) -> Self {
        Resampler::default().resize(self, self.bounds(), width, height)
    }

    /// The photo shrunk so that its longer side is at most `max_side` pixels, and the ratio new size / old size (1 if it already
    /// fits). Sides are rounded to whole pixels, so divide coordinates by the factor to return to the original.
    pub fn fit_within(&self, max_side: usize) -> (Self, f32) {
        let longest = self.width.max(self.height);
        if longest <= max_side {
            return (self.clone(), 1.0);
        }
        let factor = max_side as f64 / longest as f64;
        let side = |n: usize| ((n as f64 * factor).round() as usize).max(1);
        (self.resized(side(self.width), side(self.height)), factor as f32)
    }
}

/// A rectangle in pixels of a photo; `x`, `y` is the upper left corner. May extend beyond the photo.
///
/// ```
/// use weft::data::photo::Rect;
///
/// let (a, b) = (Rect::new(0.0, 0.0, 4.0, 4.0), Rect::new(2.0, 2.0, 4.0, 4.0));
/// assert_eq!(a.iou(&b), 4.0 / 28.0);
/// ```
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    /// Left edge.
    pub x: f32,
    /// Upper edge.
    pub y: f32,
    /// Pixels across.
    pub width: f32,
    /// Pixels down.
    pub height: f32,
}

impl Rect {
    /// The rectangle [x, x + width) x [y, y + height).
    pub const fn new(x: f32, y: f32, width: f32, height: f32) -> Self {
        Self { x, y, width, height }
    }

    /// Area in square pixels; 0 if a side is not positive.
    pub fn area(&self) -> f32 {
        self.width.max(0.0) * self.height.max(0.0)
    }

    /// The centre, (x, y).
    pub fn center(&self) -> (f32, f32) {
        (self.x + 0.5 * self.width, self.y + 0.5 * self.height)
    }

    /// The intersection, or `None` if it has no area.
    pub fn intersection(&self, other: &Self) -> Option<Self> {
        let (x, y) = (self.x.max(other.x), self.y.max(other.y));
        let width = (self.x + self.width).min(other.x + other.width) - x;
        let height = (self.y + self.height).min(other.y + other.height) - y;
        (width > 0.0 && height > 0.0).then_some(Self { x, y, width, height })
    }

    /// Intersection over union, in 0..=1; 0 if either is empty.
    pub fn iou(&self, other: &Self) -> f32 {
        let shared = self.intersection(other).map_or(0.0, |r| r.area());
        // Rounding in `x + width` can make the intersection exceed the whole by an ulp.
        if shared > 0.0 { (shared / (self.area() + other.area() - shared)).min(1.0) } else { 0.0 }
    }

    /// `factor` times as wide and high around the same centre.
    pub fn scaled_about_center(&self, factor: f32) -> Self {
        let (width, height) = (self.width * factor, self.height * factor);
        let (x, y) = self.center();
        Self { x: x - 0.5 * width, y: y - 0.5 * height, width, height }
    }

    /// The part inside a photo of `width` x `height` pixels, or `None` if there is none.
    pub fn clipped(&self, width: usize, height: usize) -> Option<Self> {
        self.intersection(&Self::new(0.0, 0.0, width as f32, height as f32))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rectangles_measure_as_on_paper() {
        let (a, b) = (Rect::new(0.0, 0.0, 4.0, 4.0), Rect::new(2.0, 2.0, 4.0, 4.0));
        assert_eq!(a.area(), 16.0);
        assert_eq!(a.intersection(&b), Some(Rect::new(2.0, 2.0, 2.0, 2.0)));
        assert_eq!(a.iou(&b), 4.0 / 28.0);
        assert_eq!(a.iou(&Rect::new(4.0, 0.0, 4.0, 4.0)), 0.0);
        assert_eq!(Rect::new(0.0, 0.0, 0.0, 4.0).iou(&Rect::new(0.0, 0.0, 0.0, 4.0)), 0.0);
        assert_eq!(b.center(), (4.0, 4.0));
        assert_eq!(b.scaled_about_center(2.0), Rect::new(0.0, 0.0, 8.0, 8.0));
        assert_eq!(b.clipped(3, 10), Some(Rect::new(2.0, 2.0, 1.0, 4.0)));
        assert_eq!(b.clipped(2, 10), None);
    }

    fn rect() -> impl Strategy<Value = Rect> {
        (-50.0_f32..50.0, -50.0_f32..50.0, 0.1_f32..60.0, 0.1_f32..60.0).prop_map(|(x, y, w, h)| Rect::new(x, y, w, h))
    }

    proptest! {
        #[test]
        fn iou_is_symmetric_bounded_and_one_for_itself(a in rect(), b in rect()) {
            prop_assert_eq!(a.iou(&b), b.iou(&a));
            prop_assert!((0.0..=1.0).contains(&a.iou(&b)));
            prop_assert!(a.iou(&a) > 0.999);
        }
    }
}

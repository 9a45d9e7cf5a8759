//! A decoded photo and the rectangle type that every part of the pipeline speaks.

/// 8-bit RGB, row-major, interleaved: `rgb[(y * width + x) * 3 + channel]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Photo {
    pub width: usize,
    pub height: usize,
    pub rgb: Vec<u8>,
}

/// A rectangle in pixels of a photo; `x`, `y` is the upper left corner. May reach beyond the photo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Rect {
    pub x: f32,
    pub y: f32,
    pub width: f32,
    pub height: f32,
}

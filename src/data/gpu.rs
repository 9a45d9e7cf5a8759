//! Batches cut from photos on a GPU: kernels/image.cu.

use super::photo::Rect;
use super::resample::MAX_REACH;
use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::net::Normalise;
use crate::ops::gpu::{BLOCK, cover, pack};

kernel_parameters! {
    /// One sample: a window of a photo.
    PhotoWindow: 40 {
        /// Offset of the photo's `[height, width, 3]` bytes.
        offset: u64,
        photo_w: u32, photo_h: u32,
        x: f32, y: f32, w: f32, h: f32,
        flip: u32, unused: u32,
    }
}

kernel_parameters! {
    ImageParams: 56 { photos: Ptr, windows: Ptr, out: Ptr, n: u32, h: u32, w: u32, mean: [f32; 3], scale: f32, unused: u32 }
}

impl PhotoWindow {
    /// `window` of the photo of `size` (width, height) whose bytes begin at `offset`, mirrored if `flip`. Coordinates that
    /// are NaN or far outside are clamped to a range that the kernel can iterate over.
    pub fn new(offset: usize, size: (usize, usize), window: Rect, flip: bool) -> Self {
        let tame = |v: f32| if v.is_nan() { 0.0 } else { v.clamp(-MAX_REACH, MAX_REACH) };
        Self {
            offset: offset as u64,
            photo_w: size.0 as u32,
            photo_h: size.1 as u32,
            x: tame(window.x),
            y: tame(window.y),
            w: tame(window.width),
            h: tame(window.height),
            flip: u32::from(flip),
            unused: 0,
        }
    }
}

/// Photos in device memory, a table of [`PhotoWindow`]s, and the batch `[n, h, w, 3]` in the storage type.
#[derive(Debug, Clone, Copy)]
pub struct Batch {
    pub photos: Ptr,
    pub windows: Ptr,
    pub out: Ptr,
    pub n: usize,
    pub h: usize,
    pub w: usize,
    pub normalise: Normalise,
}

impl Batch {
    /// Copies windows on whole pixels, of the size of the output.
    pub fn record_crops(&self, to: &mut Recorder<'_>) {
        let grid = cover((self.n * self.h * self.w * 3).div_ceil(pack(to.precision())));
        self.launch("crop", grid, to);
    }

    /// Scales any windows, as [`super::resample::Resampler`] does.
    pub fn record_samples(&self, to: &mut Recorder<'_>) {
        self.launch("sample_windows", cover(self.n * self.h * self.w), to);
    }

    fn launch(&self, name: &str, grid: [usize; 3], to: &mut Recorder<'_>) {
        let count = self.n * self.h * self.w * 3;
        let parameters = ImageParams {
            photos: self.photos,
            windows: self.windows,
            out: self.out,
            n: self.n as u32,
            h: self.h as u32,
            w: self.w as u32,
            mean: self.normalise.mean,
            scale: self.normalise.scale,
            unused: 0,
        };
        // The sizes of the windows are not known here; assume that of the output.
        let bytes = count * (1 + to.precision().bytes());
        to.launch(Launch::new(to.stored(name), grid, BLOCK, &parameters).work(2 * count as u64, bytes as u64));
    }
}

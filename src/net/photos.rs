//! Batches of input resampled from photos by a GPU: kernels/image.cu.

use super::Normalise;
use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::gpu::BLOCK;

kernel_parameters! {
    /// One sample: a window of a photo, or values.
    PhotoWindow: 40 {
        /// Offset in bytes of pixel (0, 0) of the photo, whose rows are RGB bytes. It lies before the buffer where the buffer
        /// has only the part of the photo that is read. Without `pitch`, the offset of f32 values.
        offset: i64,
        photo_w: u32, photo_h: u32,
        x: f32, y: f32, w: f32, h: f32,
        flip: u32,
        /// Pixels from a row to the next; 0 for values.
        pitch: u32,
    }
}

kernel_parameters! {
    ImageParams: 56 { photos: Ptr, windows: Ptr, out: Ptr, n: u32, h: u32, w: u32, mean: [f32; 3], scale: f32, unused: u32 }
}

/// Side of the square of output pixels that a block computes.
const TILE: usize = 16;

impl PhotoWindow {
    /// A sample that is there as values, `[h, w, 3]` in f32, `offset` bytes into the buffer.
    pub fn values(offset: usize) -> Self {
        Self { offset: offset as i64, ..bytemuck::Zeroable::zeroed() }
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
    /// Resamples all windows, as [`crate::data::resample::Resampler`] does.
    pub fn record_samples(&self, to: &mut Recorder<'_>) {
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
        let grid = [self.n * self.h.div_ceil(TILE) * self.w.div_ceil(TILE), 1, 1];
        // The sizes of the windows are not known here; assume that of the output.
        let bytes = count * (1 + to.precision().bytes());
        let launch = Launch::new(to.stored("sample_windows"), grid, BLOCK, &parameters);
        to.launch(launch.work(2 * count as u64, bytes as u64));
    }
}

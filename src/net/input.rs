//! A batch of input in the form in which a device takes it. The CPU takes values. A GPU resamples photos itself: it takes the
//! pixels under the window of each sample, or the sample's values where those are fewer bytes.

use super::Normalise;
use super::photos::PhotoWindow;
use crate::ops::Shape;
use crate::{Error, Result};
use std::ops::Range;

/// The form in which a session takes its input; threads that prepare batches have copies of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InputForm {
    samples: usize,
    shape: Shape,
    normalise: Normalise,
    resamples: bool,
}

impl InputForm {
    /// For batches of `samples` of `shape`. Only samples with three channels are photos that a device can resample.
    pub(super) fn new(samples: usize, shape: Shape, normalise: Normalise, is_gpu: bool) -> Self {
        Self { samples, shape, normalise, resamples: is_gpu && shape.c == 3 }
    }

    /// Whether samples come with a [`PhotoWindow`] each.
    pub(super) fn resamples(&self) -> bool {
        self.resamples
    }

    /// A batch of this form, without samples yet.
    pub fn batch(&self) -> Input {
        let capacity = if self.resamples { 0 } else { self.samples * self.shape.len() };
        Input { form: *self, windows: Vec::new(), data: Vec::with_capacity(capacity) }
    }
}

/// A batch of input, sample by sample.
#[derive(Debug)]
pub struct Input {
    form: InputForm,
    /// One per sample where the device resamples.
    windows: Vec<PhotoWindow>,
    /// Values of all samples, or their pixels and values in any order; the latter begin at multiples of four bytes.
    data: Vec<f32>,
}

impl Input {
    /// The shape of a sample.
    pub fn shape(&self) -> Shape {
        self.form.shape
    }

    /// From pixels to values.
    pub fn normalise(&self) -> Normalise {
        self.form.normalise
    }

    /// The next sample as values `[h, w, c]`, normalised, 0 at first.
    pub fn values(&mut self) -> &mut [f32] {
        let start = self.data.len();
        if self.form.resamples {
            self.windows.push(PhotoWindow::values(4 * start));
        }
        self.data.resize(start + self.form.shape.len(), 0.0);
        &mut self.data[start..]
    }

    /// The next sample as `window` of a photo: memory for the RGB bytes of the `columns` and `rows` that are read. `None` if the
    /// device takes values, or if they are fewer bytes.
    pub(crate) fn pixels(
        &mut self,
        window: PhotoWindow,
        columns: Range<usize>,
        rows: Range<usize>,
    ) -> Option<&mut [u8]> {
        let bytes = 3 * columns.len() * rows.len();
        if !self.form.resamples || bytes > 4 * self.form.shape.len() {
            return None;
        }
        let start = self.data.len();
        let before = 3 * (rows.start * columns.len() + columns.start);
        let offset = 4 * start as i64 - before as i64;
        self.windows.push(PhotoWindow { offset, pitch: columns.len() as u32, ..window });
        self.data.resize(start + bytes.div_ceil(4), 0.0);
        Some(&mut bytemuck::cast_slice_mut(&mut self.data[start..])[..bytes])
    }

    /// Bytes that go to the device for the samples.
    pub fn bytes(&self) -> usize {
        4 * self.data.len() + size_of_val(&self.windows[..])
    }

    pub(super) fn windows(&self) -> &[PhotoWindow] {
        &self.windows
    }

    pub(super) fn data(&self) -> &[f32] {
        &self.data
    }

    /// Checks that it is a whole batch for a session of `form`, of the net at `place`.
    pub(super) fn check(&self, form: InputForm, place: &str) -> Result<()> {
        let samples = match self.form.resamples {
            true => self.windows.len(),
            false => self.data.len() / self.form.shape.len().max(1),
        };
        if self.form != form || samples != form.samples {
            let (shape, takes) = (self.form.shape, form.shape);
            let found = format!(
                "a batch of {samples} samples of {shape} is given, but the session takes {} of {takes}",
                form.samples
            );
            return Err(Error::network(place, found).advise("make it of the session's own form"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sample_travels_as_pixels_unless_values_are_fewer_bytes() {
        let shape = Shape::new(3, 4, 4);
        let window = PhotoWindow::values(0);
        let form = |is_gpu| InputForm::new(3, shape, Normalise::default(), is_gpu);
        let mut input = form(true).batch();
        // 8 x 8 pixels are as many bytes as 4 x 4 values of f32.
        assert_eq!(input.pixels(window, 2..10, 1..9).unwrap().len(), 192);
        assert!(input.pixels(window, 2..11, 1..9).is_none());
        assert_eq!(input.values().len(), 48);
        assert!(input.check(form(true), "net").unwrap_err().to_string().contains("2 samples"));
        assert_eq!(input.pixels(window, 0..3, 7..8).unwrap().len(), 9);
        input.check(form(true), "net").unwrap();
        let offsets: Vec<i64> = input.windows().iter().map(|window| window.offset).collect();
        assert_eq!(offsets, [-3 * (8 + 2), 192, 384 - 3 * 7 * 3]);
        assert_eq!(input.bytes(), 384 + 12 + 3 * 40);
        assert!(form(false).batch().pixels(window, 0..1, 0..1).is_none());
        assert!(input.check(form(false), "net").is_err());
    }
}

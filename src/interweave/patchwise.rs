//! Patch scanning: every patch is cropped and runs through the net by itself, in batches. The plain meaning of the
//! operation, and what faster ones are measured against.

use super::bands::Put;
use super::plan::patches;
use crate::Result;
use crate::data::photo::Photo;
use crate::data::resample::Normalise;
use crate::memory;
use crate::net::{Net, Parameters, Runner};
use std::sync::Arc;

/// Patches of a batch, unless another number is asked for.
const BATCH: usize = 32;

/// Features of the patches of one image.
#[derive(Debug, Clone)]
pub struct Features {
    /// Patches down and across.
    pub patches: [usize; 2],
    /// Length of a feature vector.
    pub dims: usize,
    /// [down, across, dims]; a vector in the order C, H, W of the net's last layer.
    pub values: Vec<f32>,
}

impl Features {
    /// Largest difference of a feature from `expected`'s, as a share of the largest of those; NaN if there is one on either
    /// side, infinite if the shapes differ.
    pub fn error(&self, expected: &Self) -> f64 {
        if (self.patches, self.dims) != (expected.patches, expected.dims) {
            return f64::INFINITY;
        }
        let differences = || self.values.iter().zip(&expected.values).map(|(a, b)| f64::from((a - b).abs()));
        // `max` drops NaN.
        if differences().any(f64::is_nan) {
            return f64::NAN;
        }
        let difference = differences().fold(0.0, f64::max);
        let largest = expected.values.iter().fold(0.0, |most, v| f64::max(most, v.abs().into()));
        if difference == 0.0 { 0.0 } else { difference / largest }
    }
}

/// Scans images with a net.
pub struct PatchScanner {
    runner: Runner,
    /// For the patches that do not fill a batch, as many as were left the last time.
    rest: Option<Runner>,
    parameters: Parameters,
    normalise: Normalise,
}

impl PatchScanner {
    /// # Errors
    /// A net that does not take RGB; no memory.
    pub fn new(net: Arc<Net>, parameters: impl Into<Parameters>, normalise: Normalise) -> Result<Self> {
        Self::with_batch(net, parameters, normalise, BATCH)
    }

    /// The same with batches of `batch` patches.
    ///
    /// # Errors
    /// As [`PatchScanner::new`].
    pub fn with_batch(
        net: Arc<Net>,
        parameters: impl Into<Parameters>,
        normalise: Normalise,
        batch: usize,
    ) -> Result<Self> {
        super::check_rgb(&net)?;
        let parameters = parameters.into();
        Ok(Self { runner: Runner::new(net, &parameters, batch)?, rest: None, parameters, normalise })
    }

    /// Features of the patches whose upper left corners are multiples of `stride` and which lie inside the photo.
    ///
    /// # Errors
    /// A stride of 0; a photo smaller than a patch.
    pub fn extract(&mut self, photo: &Photo, stride: usize) -> Result<Features> {
        let net = self.runner.net().clone();
        let whole = patches(&net, photo.height, photo.width, stride)?;
        Features::gather(whole, net.output().len(), |put| self.extract_into(photo, stride, put))
    }

    /// The same, handed to `put` as they come.
    ///
    /// # Errors
    /// As [`PatchScanner::extract`]; what `put` says.
    pub fn extract_into(&mut self, photo: &Photo, stride: usize, put: Put<'_>) -> Result<()> {
        let Normalise { mean, scale } = self.normalise;
        let copy = |from: usize, row: &mut [f32]| {
            for (i, (to, from)) in row.iter_mut().zip(&photo.rgb[from..]).enumerate() {
                *to = (f32::from(*from) - mean[i % 3]) * scale;
            }
        };
        self.scan([photo.height, photo.width], stride, copy, put)
    }

    /// Features of an image that is already normalised, [height, width, 3].
    ///
    /// # Errors
    /// As [`PatchScanner::extract`].
    pub fn extract_normalised(&mut self, pixels: &[f32], size: [usize; 2], stride: usize) -> Result<Features> {
        assert_eq!(pixels.len(), size[0] * size[1] * 3, "pixels of another size");
        let net = self.runner.net().clone();
        let whole = patches(&net, size[0], size[1], stride)?;
        let copy = |from: usize, row: &mut [f32]| row.copy_from_slice(&pixels[from..from + row.len()]);
        Features::gather(whole, net.output().len(), |put| self.scan(size, stride, copy, put))
    }

    /// `copy(at, row)` fills a row of a patch with the image's values from `at` on.
    fn scan(
        &mut self,
        [height, width]: [usize; 2],
        stride: usize,
        copy: impl Fn(usize, &mut [f32]),
        put: Put<'_>,
    ) -> Result<()> {
        let net = self.runner.net().clone();
        let (input, output) = (net.spec.input, net.output());
        let [down, across] = patches(&net, height, width, stride)?;
        let (all, batch) = (down * across, self.runner.samples());
        let mut values = memory::zeroed(batch.min(all) * output.len(), "features of a batch")?;
        for first in (0..all).step_by(batch) {
            let count = batch.min(all - first);
            let runner = if count == batch {
                &mut self.runner
            } else {
                let fits = |rest: &Runner| rest.samples() == count;
                let rest = match self.rest.take().filter(fits) {
                    Some(rest) => rest,
                    None => Runner::new(net.clone(), &self.parameters, count)?,
                };
                self.rest.insert(rest)
            };
            for (number, patch) in (first..).zip(runner.input().chunks_exact_mut(input.len())) {
                let (top, left) = (number / across * stride, number % across * stride);
                for (y, row) in patch.chunks_exact_mut(input.w * 3).enumerate() {
                    copy(((top + y) * width + left) * 3, row);
                }
            }
            let values = &mut values[..count * output.len()];
            crate::ops::nhwc_to_nchw(output, runner.run()?, values);
            put(values)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::{Purpose, Session};
    use crate::ops::{Mode, Targets};

    #[test]
    fn an_error_is_a_share_of_the_largest_and_nan_is_not_lost() {
        let features = |values: &[f32]| Features { patches: [1, 1], dims: values.len(), values: values.to_vec() };
        let expected = features(&[1.0, -4.0, 0.0]);
        assert_eq!(features(&[1.0, -4.0, 0.0]).error(&expected), 0.0);
        assert_eq!(features(&[1.0, -5.0, 0.5]).error(&expected), 0.25);
        for place in 0..3 {
            let mut broken = expected.clone();
            broken.values[place] = f32::NAN;
            assert!(broken.error(&expected).is_nan() && expected.error(&broken).is_nan());
        }
        assert_eq!(features(&[1.0]).error(&expected), f64::INFINITY);
    }
    use crate::net::Spec;

    const NET: &str = r#"
        name = "small"
        input = [3, 9, 8]
        [[layer]]
        name = "c"
        type = "conv"
        filters = 4
        kernel = 3
        activation = "relu"
        [[layer]]
        name = "p"
        type = "max_pool"
        kernel = 2
        stride = 2
    "#;

    #[test]
    fn each_patch_is_what_the_net_gives_for_its_crop() {
        let net = Arc::new(Net::new(Spec::parse(NET, "small").unwrap()).unwrap());
        let parameters = net.initial_parameters(5);
        let photo = Photo::from_fn(41, 23, |x, y| [(x * 7 % 251) as u8, (y * 13 % 241) as u8, (x * y % 239) as u8]);
        let mut scanner = PatchScanner::new(net.clone(), parameters.clone(), Normalise::default()).unwrap();
        let found = scanner.extract(&photo, 5).unwrap();
        assert_eq!((found.patches, found.dims), ([3, 7], 4 * 3 * 3));
        let mut single = Session::new(net, 1, Purpose::Inference).unwrap();
        for (index, features) in found.values.chunks_exact(found.dims).enumerate() {
            let (top, left) = (index / 7 * 5, index % 7 * 5);
            for (i, value) in single.input().iter_mut().enumerate() {
                let (y, x, c) = (i / 24, i / 3 % 8, i % 3);
                let Normalise { mean, scale } = Normalise::default();
                *value = (f32::from(photo.pixel(left + x, top + y)[c]) - mean[c]) * scale;
            }
            single.forward(&parameters, Mode::Inference, Targets::default()).unwrap();
            for (place, pixel) in single.output().chunks_exact(4).enumerate() {
                for (channel, value) in pixel.iter().enumerate() {
                    let feature = features[channel * 9 + place];
                    assert!(
                        (feature - value).abs() <= 1e-6 * value.abs().max(1.0),
                        "patch {index}: {feature}, {value}"
                    );
                }
            }
        }
    }

    #[test]
    fn a_photo_smaller_than_a_patch_is_refused() {
        let net = Arc::new(Net::new(Spec::parse(NET, "small").unwrap()).unwrap());
        let parameters = net.initial_parameters(5);
        let mut scanner = PatchScanner::new(net, parameters, Normalise::default()).unwrap();
        let photo = Photo::from_fn(7, 30, |_, _| [0; 3]);
        assert!(scanner.extract(&photo, 1).unwrap_err().to_string().contains("smaller than a patch"));
        assert!(scanner.extract(&Photo::from_fn(9, 9, |_, _| [0; 3]), 0).is_err());
    }
}

//! Patch scanning: every patch is cropped and runs through the net separately, in batches. The definition of the operation,
//! and the baseline of the faster methods.

use super::extractor::{Engine, Images, Job, PutImage};
use crate::Result;
use crate::memory;
use crate::net::{Net, Parameters, Purpose, Session};
use crate::ops::nhwc_to_nchw;
use std::sync::Arc;

/// Scans images with a net.
pub(super) struct Patchwise {
    session: Session,
    /// For the patches that do not fill a batch, with the size of the last remainder.
    rest: Option<Session>,
}

impl Patchwise {
    /// # Errors
    /// No memory for a batch.
    pub fn new(net: Arc<Net>, parameters: &Parameters, batch: usize) -> Result<Self> {
        Ok(Self { session: Session::new(net, parameters, batch, Purpose::Inference)?, rest: None })
    }

    /// A session for `count` patches.
    fn session(&mut self, count: usize) -> Result<&mut Session> {
        if count == self.session.samples() {
            return Ok(&mut self.session);
        }
        let rest = match self.rest.take().filter(|rest| rest.samples() == count) {
            Some(rest) => rest,
            None => Session::new(self.session.net().clone(), self.session.parameters(), count, Purpose::Inference)?,
        };
        Ok(self.rest.insert(rest))
    }
}

impl Engine for Patchwise {
    fn run(&mut self, job: Job, images: &Images<'_>, put: PutImage<'_>) -> Result<()> {
        let net = self.session.net().clone();
        let (input, output) = (net.spec.input, net.output());
        let [down, across] = job.whole;
        let (all, batch, width) = (down * across, self.session.samples(), images.size[1]);
        let mut values = memory::zeroed(batch.min(all) * output.len(), "features of a batch")?;
        for image in 0..images.count {
            for first in (0..all).step_by(batch) {
                let count = batch.min(all - first);
                let session = self.session(count)?;
                for (number, patch) in (first..).zip(session.input().chunks_exact_mut(input.len())) {
                    let (top, left) = (number / across * job.stride, number % across * job.stride);
                    for (y, row) in patch.chunks_exact_mut(input.w * 3).enumerate() {
                        images.copy(image, ((top + y) * width + left) * 3, row);
                    }
                }
                let values = &mut values[..count * output.len()];
                nhwc_to_nchw(output, &session.infer()?, values);
                put(image, values)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::data::photo::Photo;
    use crate::device::Device;
    use crate::interweave::{Extractor, ExtractorOptions, Method};
    use crate::net::{Net, Normalise, Parameters, Purpose, Session, Spec};
    use std::sync::Arc;

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

    fn scanner(net: &Arc<Net>, parameters: &Parameters) -> Extractor {
        let options = ExtractorOptions { method: Method::Patchwise, ..ExtractorOptions::default() };
        Extractor::new(net.clone(), parameters, options).unwrap()
    }

    #[test]
    fn each_patch_is_what_the_net_gives_for_its_crop() {
        let net = Arc::new(Net::new(Spec::parse(NET, "small").unwrap()).unwrap());
        let parameters = Parameters::on(&Device::Cpu, &net, net.initial_parameters(5)).unwrap();
        let photo = Photo::from_fn(41, 23, |x, y| [(x * 7 % 251) as u8, (y * 13 % 241) as u8, (x * y % 239) as u8]);
        let mut scanner = scanner(&net, &parameters);
        let found = scanner.extract(&photo, 5).unwrap();
        assert_eq!((found.patches, found.dims), ([3, 7], 4 * 3 * 3));
        let mut single = Session::new(net, &parameters, 1, Purpose::Inference).unwrap();
        for (index, features) in found.values.chunks_exact(found.dims).enumerate() {
            let (top, left) = (index / 7 * 5, index % 7 * 5);
            for (i, value) in single.input().iter_mut().enumerate() {
                let (y, x, c) = (i / 24, i / 3 % 8, i % 3);
                let Normalise { mean, scale } = Normalise::default();
                *value = (f32::from(photo.pixel(left + x, top + y)[c]) - mean[c]) * scale;
            }
            for (place, pixel) in single.infer().unwrap().chunks_exact(4).enumerate() {
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
        let parameters = Parameters::on(&Device::Cpu, &net, net.initial_parameters(5)).unwrap();
        let mut scanner = scanner(&net, &parameters);
        let photo = Photo::from_fn(7, 30, |_, _| [0; 3]);
        assert!(scanner.extract(&photo, 1).unwrap_err().to_string().contains("smaller than a patch"));
        assert!(scanner.extract(&Photo::from_fn(9, 9, |_, _| [0; 3]), 0).is_err());
    }
}

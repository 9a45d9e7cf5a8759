//! ANet as a feature extractor: the frame around a face in, the values of one layer for overlapping patches of it out, by
//! the interweaved operation.

use super::Bundle;
use crate::data::photo::{Photo, Rect};
use crate::data::resample::Resampler;
use crate::device::Device;
use crate::interweave::{Extractor, ExtractorOptions, patches};
use crate::locate::{Shape, Shift, Widths};
use crate::memory;
use crate::net::{Net, Parameters, Spec, Unknown};
use crate::settings::{Mistake, limits, within};
use crate::shipped::{Folder, Source};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;

limits! {
    /// Pixels of a frame. Photos are shrunk to 1024 pixels before anything else, so a larger one holds nothing more.
    Frame: usize = 1, 1024;
}

/// Patches of a frame beyond which a stride is a mistake.
const MOST_PATCHES: usize = 4096;

/// `[anet]` of a bundle.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anet {
    /// Network file, from the bundle's folder.
    pub net: PathBuf,
    /// Its weights.
    pub weights: PathBuf,
    /// The layer whose values are the features.
    pub layer: String,
    /// Height and width of the frame that patches of the net's input size lie in...
    #[serde(deserialize_with = "within::<Frame, _, _>")]
    pub frame: [usize; 2],
    /// ...this many pixels apart.
    #[serde(deserialize_with = "within::<Frame, _, _>")]
    pub stride: usize,
    /// From the square in the middle of a face to the part of the photo that is the frame: its width in widths of the square...
    #[serde(deserialize_with = "within::<Widths, _, _>")]
    pub width: f32,
    /// ...and how far its middle lies to the right and below, in the same unit.
    #[serde(deserialize_with = "within::<Shift, _, _>")]
    pub shift: [f32; 2],
}

impl Anet {
    /// How the frame lies around the square in the middle of a face.
    pub fn frame(&self) -> Shape {
        let [height, width] = self.frame;
        Shape { width: self.width, height: self.width * height as f32 / width as f32, shift: self.shift }
    }
}

impl Anet {
    /// Whether patches of a net lie in the frame, and not too many.
    fn check(&self, net: &Net) -> Result<(), Mistake> {
        let ([height, width], input) = (self.frame, net.spec.input);
        if height < input.h || width < input.w {
            let found = format!("[{height}, {width}] is smaller than the input {input} of {}", net.spec.place);
            return Err(Mistake::at("anet.frame", format!("{found}; write at least [{}, {}]", input.h, input.w)));
        }
        let [down, across] = patches(net, height, width, self.stride).map_err(|e| Mistake::at("anet.stride", e))?;
        if down * across > MOST_PATCHES {
            let found = format!("{} gives {down} x {across} patches", self.stride);
            return Err(Mistake::at("anet.stride", format!("{found}; write a larger one, for at most {MOST_PATCHES}")));
        }
        Ok(())
    }
}

/// ANet with its weights.
pub struct FaceFeatures {
    extractor: Extractor,
    dims: usize,
    weights: Source,
    frame: [usize; 2],
    stride: usize,
    resampler: Resampler,
    /// The frame and its mirror image, [2, height, width, 3].
    pixels: Vec<f32>,
}

impl FaceFeatures {
    /// Reads net and weights; paths start at `folder`.
    ///
    /// # Errors
    /// Files that cannot be read or do not fit; a frame smaller than the net's input, or of too many patches.
    pub fn load(bundle: &Bundle, folder: &Folder, device: &Device) -> Result<Self> {
        let config = &bundle.anet;
        let net = Arc::new(Net::new(Spec::load(folder.file(&config.net)?)?.up_to(&config.layer)?)?);
        config.check(&net).map_err(|mistake| bundle.mistake(&mistake))?;
        let weights = folder.file(&config.weights)?;
        let parameters = net.load_parameters(&weights, Unknown::Ignore)?.values;
        let dims = net.output().len();
        let [height, width] = config.frame;
        let parameters = Parameters::on(device, &net, parameters)?;
        let extractor = Extractor::new(net, &parameters, ExtractorOptions::default())?;
        let pixels = memory::zeroed(height.saturating_mul(width).saturating_mul(6), "[anet] frame")?;
        let resampler = Resampler::default();
        Ok(Self { extractor, dims, weights, frame: config.frame, stride: config.stride, resampler, pixels })
    }

    /// Length of a feature vector.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// Features [patches, dims] of the patches of a part of a photo seen as the frame, and of their mirror images.
    ///
    /// # Errors
    /// No memory; features that are not finite.
    pub fn features(&mut self, photo: &Photo, part: Rect) -> Result<Vec<f32>> {
        let ([height, width], normalise) = (self.frame, self.extractor.net().spec.normalise);
        let frames = self.pixels.chunks_exact_mut(height * width * 3);
        for (frame, mirrored) in frames.zip([false, true]) {
            self.resampler.sample(photo, part, width, height, mirrored, normalise, frame);
        }
        let found = self.extractor.extract_normalised(&self.pixels, self.frame, self.stride, 2)?;
        let features: Vec<f32> = found.into_iter().flat_map(|found| found.values).collect();
        if !features.iter().all(|value| value.is_finite()) {
            // NaN is not above 0: it would look like a face without an attribute.
            return Err(Error::new(&self.weights, "with these weights, the features are not finite")
                .advise("check the weights and the numbers of the net"));
        }
        Ok(features)
    }
}

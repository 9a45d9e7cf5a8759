//! ANet as a feature extractor: takes the frame around a face and returns the output of one layer for overlapping patches of it,
//! computed by the interweaved operation.

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
use crate::{Error, Result, trace};
use serde::Deserialize;
use std::path::PathBuf;
use std::sync::Arc;

limits! {
    /// Side of a frame in pixels. Photos are first shrunk to 1024 pixels, so a larger frame contains no more detail.
    Frame: usize = 1, 1024;
}

/// Number of patches per frame above which a stride is considered a mistake.
const MOST_PATCHES: usize = 4096;

/// The `[anet]` table of a bundle.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anet {
    /// Network file, relative to the bundle's folder.
    pub net: PathBuf,
    /// Its weights.
    pub weights: PathBuf,
    /// The layer whose output is used as features.
    pub layer: String,
    /// Height and width of the frame, which contains patches with the net's input size...
    #[serde(deserialize_with = "within::<Frame, _, _>")]
    pub frame: [usize; 2],
    /// ...at this stride, in pixels.
    #[serde(deserialize_with = "within::<Frame, _, _>")]
    pub stride: usize,
    /// Maps the core square of a face to the part of the photo that is the frame: its width in widths of the core...
    #[serde(deserialize_with = "within::<Widths, _, _>")]
    pub width: f32,
    /// ...and the offset of its centre to the right and down, in the same unit.
    #[serde(deserialize_with = "within::<Shift, _, _>")]
    pub shift: [f32; 2],
}

impl Anet {
    /// The frame's position relative to the core square of a face.
    pub fn frame(&self) -> Shape {
        let [height, width] = self.frame;
        Shape { width: self.width, height: self.width * height as f32 / width as f32, shift: self.shift }
    }
}

impl Anet {
    /// Checks that patches of the net fit in the frame, and that there are not too many.
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
    parameters: Parameters,
    dims: usize,
    weights: Source,
    frame: [usize; 2],
    stride: usize,
    resampler: Resampler,
    /// The frame and its mirror image, [2, height, width, 3].
    pixels: Vec<f32>,
}

impl FaceFeatures {
    /// Loads net and weights; paths are relative to `folder`.
    ///
    /// # Errors
    /// Files that cannot be read or do not fit; a frame smaller than the net's input, or with too many patches.
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
        Ok(Self { extractor, parameters, dims, weights, frame: config.frame, stride: config.stride, resampler, pixels })
    }

    /// Another one with the same parameters, to work on another photo at the same time.
    ///
    /// # Errors
    /// Insufficient memory.
    pub fn sharing(&self) -> Result<Self> {
        Ok(Self {
            extractor: Extractor::new(self.extractor.net().clone(), &self.parameters, ExtractorOptions::default())?,
            parameters: self.parameters.clone(),
            dims: self.dims,
            weights: self.weights.clone(),
            frame: self.frame,
            stride: self.stride,
            resampler: Resampler::default(),
            pixels: memory::zeroed(self.pixels.len(), "[anet] frame")?,
        })
    }

    /// Length of a feature vector.
    pub fn dims(&self) -> usize {
        self.dims
    }

    /// Features [patches, dims] of the patches of a part of a photo taken as the frame, and of their mirror images.
    ///
    /// # Errors
    /// Insufficient memory; features that are not finite.
    pub fn features(&mut self, photo: &Photo, part: Rect) -> Result<Vec<f32>> {
        let ([height, width], normalise) = (self.frame, self.extractor.net().spec.normalise);
        let frames = self.pixels.chunks_exact_mut(height * width * 3);
        trace::span("resampling", String::new, || {
            for (frame, mirrored) in frames.zip([false, true]) {
                self.resampler.sample(photo, part, width, height, mirrored, normalise, frame);
            }
        });
        let found = trace::span("anet", String::new, || {
            self.extractor.extract_normalised(&self.pixels, self.frame, self.stride, 2)
        })?;
        let features: Vec<f32> = found.into_iter().flat_map(|found| found.values).collect();
        if !features.iter().all(|value| value.is_finite()) {
            // NaN is never above 0, so it would be mistaken for a face without attributes.
            return Err(Error::new(&self.weights, "with these weights, the features are not finite")
                .advise("check the weights and the numbers of the net"));
        }
        Ok(features)
    }
}

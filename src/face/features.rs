//! ANet as a feature extractor: crops of a photo in, the values of one layer out.

use crate::data::photo::{Photo, Rect};
use crate::data::resample::{Normalise, Resampler};
use crate::net::{Net, Purpose, Session, Spec, Unknown};
use crate::ops::{Mode, Targets};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// `[anet]` of a bundle.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Anet {
    pub net: PathBuf,
    pub weights: PathBuf,
    /// The layer whose values are the features.
    pub layer: String,
    /// Height and width of the frame that crops of the net's input size are cut from.
    pub frame: [usize; 2],
    /// From the face window to the part of the photo that is the frame: sides grow by these factors...
    pub enlarge: [f32; 2],
    /// ...and the middle moves by these shares of the window's width and height.
    pub shift: [f32; 2],
}

impl Anet {
    /// The frame around a face window.
    pub fn around(&self, face: Rect) -> Rect {
        let (x, y) = face.center();
        let (x, y) = (x + self.shift[0] * face.width, y + self.shift[1] * face.height);
        // The frame keeps its aspect: the window's shape is less certain than its size.
        let size = (face.width * self.enlarge[0] * face.height * self.enlarge[1]).sqrt();
        let aspect = (self.frame[1] as f32 / self.frame[0] as f32).sqrt();
        let (width, height) = (size * aspect, size / aspect);
        Rect::new(x - width / 2.0, y - height / 2.0, width, height)
    }
}

/// ANet with its weights.
pub struct Extractor {
    net: Arc<Net>,
    parameters: Vec<f32>,
    /// For the number of crops last asked for.
    session: Option<Session>,
    resampler: Resampler,
}

impl Extractor {
    /// Reads net and weights; paths start at `folder`.
    ///
    /// # Errors
    /// Files that cannot be read or do not fit; a frame smaller than the net's input.
    pub fn load(config: &Anet, folder: &Path) -> Result<Self> {
        let path = folder.join(&config.net);
        let net = Net::new(Spec::load(&path)?.up_to(&config.layer)?)?;
        let input = net.spec.input;
        if input.c != 3 || config.frame[0] < input.h || config.frame[1] < input.w {
            let found = format!("its input {input} does not fit a frame of {:?}", config.frame);
            return Err(
                Error::file(&path, found).advise("the frame is [height, width], as large as the input or larger")
            );
        }
        let parameters = net.load_parameters(folder.join(&config.weights), Unknown::Ignore)?;
        Ok(Self { net: Arc::new(net), parameters, session: None, resampler: Resampler::default() })
    }

    /// Length of a feature vector.
    pub fn dims(&self) -> usize {
        self.net.output().len()
    }

    /// Height and width of a crop.
    pub fn input(&self) -> (usize, usize) {
        (self.net.spec.input.h, self.net.spec.input.w)
    }

    /// Features [crops, dims] of windows of a photo, each scaled to the net's input, mirrored where `true`.
    ///
    /// # Errors
    /// No memory.
    pub fn features(&mut self, photo: &Photo, crops: &[(Rect, bool)]) -> Result<Vec<f32>> {
        if self.session.as_ref().is_none_or(|session| session.plan().n != crops.len()) {
            self.session = Some(Session::new(self.net.clone(), crops.len(), Purpose::Inference)?);
        }
        let Some(session) = &mut self.session else { return Ok(Vec::new()) };
        let input = self.net.spec.input;
        for (&(window, flip), pixels) in crops.iter().zip(session.input().chunks_exact_mut(input.len())) {
            self.resampler.sample(photo, window, input.w, input.h, flip, Normalise::default(), pixels);
        }
        session.forward(&self.parameters, Mode::Inference, Targets::default())?;
        Ok(session.output().to_vec())
    }
}

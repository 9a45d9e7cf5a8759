//! The product: a photo in, its face and forty attributes out. LNet_o and LNet_s localise, ANet turns overlapping patches of the
//! enlarged face region into features, linear SVMs turn features into attributes, scores averaged over the patches
//! (paper, Fig. 2).

mod features;

pub use features::{Anet, Extractor};

use crate::data::photo::{Photo, Rect};
use crate::device::Device;
use crate::locate::{self, Localiser, Map};
use crate::svm::{self, Svm};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// `model.toml`: the nets of a bundle and how they are put together. Paths start at its folder.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    pub name: String,
    pub lnet_o: locate::Stage,
    pub lnet_s: locate::Stage,
    pub anet: Anet,
    /// The linear machines; `weft svm train` writes them.
    pub svm: PathBuf,
}

/// Name of the file that describes a bundle.
pub const BUNDLE: &str = "model.toml";

/// Photos are shrunk so that their longer side has at most this many pixels: nothing finer reaches a net.
const WORKING_SIDE: usize = 1024;

/// A model bundle, loaded.
pub struct Model {
    pub bundle: Bundle,
    localiser: Localiser,
    extractor: Extractor,
    svm: Option<Svm>,
    svm_path: PathBuf,
}

/// A face in a photo.
#[derive(Debug, Clone)]
pub struct Face {
    /// In pixels of the photo; may reach beyond it.
    pub rect: Rect,
    /// Head and shoulders.
    pub head: Rect,
    /// Response gathered in the window.
    pub score: f32,
    /// The response maps of LNet_o and LNet_s, in pixels of the photo.
    pub maps: [Map; 2],
}

impl Model {
    /// Reads the bundle in `folder`; its nets run on `device`.
    ///
    /// # Errors
    /// A missing or unreadable file, nets or weights that do not fit.
    pub fn load(folder: impl AsRef<Path>, device: &Device) -> Result<Self> {
        let folder = folder.as_ref();
        let path = folder.join(BUNDLE);
        let text = std::fs::read_to_string(&path)
            .map_err(|e| Error::file(&path, e).advise("give the folder of a model bundle with --model"))?;
        let bundle: Bundle = toml::from_str(&text).map_err(|e| Error::toml(path.display(), &text, &e))?;
        let localiser = Localiser::load(&bundle.lnet_o, &bundle.lnet_s, folder, device)?;
        let extractor = Extractor::load(&bundle.anet, folder, device)?;
        let svm_path = folder.join(&bundle.svm);
        let svm = if svm_path.exists() { Some(Svm::load(&svm_path)?) } else { None };
        if let Some(svm) = svm.as_ref().filter(|svm| svm.dims() != extractor.dims()) {
            let found = format!("is for {} features, but ANet gives {}", svm.dims(), extractor.dims());
            return Err(Error::file(&svm_path, found).advise("train it again with `weft svm train`"));
        }
        Ok(Self { bundle, localiser, extractor, svm, svm_path })
    }

    /// Names of the attributes.
    ///
    /// # Errors
    /// A bundle without SVMs.
    pub fn attributes(&self) -> Result<&[String]> {
        Ok(&self.svm()?.names)
    }

    fn svm(&self) -> Result<&Svm> {
        self.svm.as_ref().ok_or_else(|| {
            Error::file(&self.svm_path, "is missing, so there are no attributes")
                .advise("make it with `weft svm train`")
        })
    }

    /// Where the SVMs of the bundle are kept.
    pub fn svm_path(&self) -> &Path {
        &self.svm_path
    }

    /// Length of a feature vector.
    pub fn dims(&self) -> usize {
        self.extractor.dims()
    }

    /// The face of a photo; `None` if nothing responds.
    ///
    /// # Errors
    /// No memory.
    pub fn locate(&mut self, photo: &Photo) -> Result<Option<Face>> {
        let (small, scale) = photo.fit_within(WORKING_SIDE);
        let Some(found) = self.localiser.locate(&small)? else { return Ok(None) };
        let up = |r: Rect| Rect::new(r.x / scale, r.y / scale, r.width / scale, r.height / scale);
        let maps = found.maps.map(|map| Map {
            origin: (map.origin.0 / scale, map.origin.1 / scale),
            step: (map.step.0 / scale, map.step.1 / scale),
            ..map
        });
        Ok(Some(Face { rect: up(found.face), head: up(found.head), score: found.score, maps }))
    }

    /// Every face of a photo whose score is `floor` or more, best first; none is an answer.
    ///
    /// # Errors
    /// No memory.
    pub fn detect(&mut self, photo: &Photo, floor: f32) -> Result<Vec<Face>> {
        Ok(self.locate(photo)?.into_iter().filter(|face| face.score >= floor).collect())
    }

    /// The frame around a face that ANet's patches are cut from, in pixels of the photo.
    pub fn frame(&self, face: Rect) -> Rect {
        self.bundle.anet.around(face)
    }

    /// Features [patches, dims] of the patches of a face.
    ///
    /// # Errors
    /// No memory.
    pub fn features(&mut self, photo: &Photo, face: Rect) -> Result<Vec<f32>> {
        self.features_in(photo, self.frame(face))
    }

    /// Features [patches, dims] of the patches of a frame that is already known.
    ///
    /// # Errors
    /// No memory.
    pub fn features_in(&mut self, photo: &Photo, frame: Rect) -> Result<Vec<f32>> {
        self.extractor.features(photo, frame)
    }

    /// A score per attribute, present above 0, of a face.
    ///
    /// # Errors
    /// A bundle without SVMs; no memory.
    pub fn scores(&mut self, photo: &Photo, face: Rect) -> Result<Vec<f32>> {
        let features = self.features(photo, face)?;
        self.scores_of(&features)
    }

    /// The same from the features [patches, dims].
    ///
    /// # Errors
    /// A bundle without SVMs; features that are not theirs.
    pub fn scores_of(&self, features: &[f32]) -> Result<Vec<f32>> {
        let svm = self.svm()?;
        let patches = features.len() / svm.dims();
        let features = svm::Features { rows: patches, dims: svm.dims(), data: features };
        svm::average_over_patches(&svm.scores(features)?, svm.names.len(), patches)
    }
}

//! From annotated photos to the linear SVMs of a bundle: extracts the features of every face and trains on them.

use super::Model;
use crate::data::celeba::Sample;
use crate::data::photo::Photo;
use crate::svm::{self, Features, Options, Svm, SvmReport};
use crate::{Error, Result};
use std::path::Path;

/// One face and its annotations.
pub struct FaceSample {
    /// [patches, dims]
    pub features: Vec<f32>,
    /// Whether the face has each attribute.
    pub attributes: Vec<bool>,
    /// The person's identity, if known.
    pub identity: Option<u32>,
}

/// Faces extracted from annotated photos.
#[derive(Default)]
pub struct FaceSamples {
    /// One entry per face.
    pub seen: Vec<FaceSample>,
    /// Number of photos in which no face was found.
    pub without: usize,
    /// Photos that could not be read.
    pub unreadable: Vec<Error>,
}

impl FaceSamples {
    /// Extracts the features of the face in each photo, or of the whole photo if `aligned`. `progress` is called with the number
    /// of completed photos; an error that it returns aborts the work.
    ///
    /// # Errors
    /// Insufficient memory; with `strict`, the first photo that cannot be read.
    pub fn look(
        model: &mut Model,
        samples: &[&Sample],
        aligned: bool,
        strict: bool,
        progress: &mut dyn FnMut(usize) -> Result<()>,
    ) -> Result<Self> {
        let mut faces = Self::default();
        for (done, sample) in samples.iter().enumerate() {
            match features(model, &sample.path, aligned) {
                Ok(None) => faces.without += 1,
                Ok(Some(features)) => {
                    let (attributes, identity) = (sample.attributes.clone(), sample.identity);
                    faces.seen.push(FaceSample { features, attributes, identity });
                }
                Err(error) if strict => return Err(error),
                Err(error) => faces.unreadable.push(error),
            }
            progress(done + 1)?;
        }
        Ok(faces)
    }

    /// Trains one SVM for each of the attributes `names`, on features of length `dims`; C is chosen on held-out identities.
    /// `progress` is called with the number of completed attributes.
    ///
    /// # Errors
    /// A face without an identity; any error of [`svm::train`].
    pub fn train(
        self,
        dims: usize,
        names: &[String],
        seed: u64,
        progress: &(dyn Fn(usize) + Sync),
    ) -> Result<(Svm, SvmReport)> {
        let patches = |face: &FaceSample| face.features.len() / dims;
        let identities: Option<Vec<u32>> =
            self.seen.iter().flat_map(|face| vec![face.identity; patches(face)]).collect();
        let identities = identities.ok_or_else(|| {
            Error::new("photos", "some have no identity")
                .advise("SVMs are chosen on held-out people: add identity_CelebA.txt")
        })?;
        let labels: Vec<bool> = self.seen.iter().flat_map(|face| face.attributes.repeat(patches(face))).collect();
        let features: Vec<f32> = self.seen.into_iter().flat_map(|face| face.features).collect();
        let rows = Features { rows: identities.len(), dims, data: &features };
        svm::train(rows, &labels, names, &identities, &Options { seed, ..Options::default() }, progress)
    }
}

fn features(model: &mut Model, path: &Path, aligned: bool) -> Result<Option<Vec<f32>>> {
    let photo = Photo::open(path)?;
    if aligned {
        return model.features_in(&photo, photo.bounds()).map(Some);
    }
    let Some(face) = model.locate(&photo)? else { return Ok(None) };
    model.features(&photo, &face).map(Some)
}

//! Which part of a photo stands for a face.

use super::{Face, Model};
use crate::data::photo::Rect;
use serde::Deserialize;

/// The windows around a face.
#[derive(Debug, Clone, Copy, Default, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    #[default]
    Face,
    /// Hair to below the chin, as CelebA's boxes
    Celeba,
    /// Brows to mouth, as the windows of most face detectors
    Inner,
    /// Head and shoulders, as LNet_o finds them and LNet_s sees them
    Head,
    /// The frame around the face that ANet's crops are cut from
    Frame,
}

impl Window {
    /// As in a file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Face => "face",
            Self::Celeba => "celeba",
            Self::Inner => "inner",
            Self::Head => "head",
            Self::Frame => "frame",
        }
    }

    /// In pixels of the photo.
    pub fn of(self, face: &Face, model: &Model) -> Rect {
        match self {
            Self::Face => face.rect,
            Self::Celeba => model.bundle.locate.boxes.celeba.around(face.core),
            Self::Inner => model.bundle.locate.boxes.inner.around(face.core),
            Self::Head => face.head,
            Self::Frame => model.frame(face),
        }
    }
}

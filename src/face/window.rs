//! The window of a photo that represents a face.

use super::{Bundle, Face, Model};
use crate::data::photo::Rect;
use crate::locate::{Boxes, Shape};
use serde::Deserialize;

/// The windows around a face.
#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum FaceWindow {
    /// The box of the face itself
    #[default]
    Face,
    /// Hair to below the chin, like CelebA's boxes
    Celeba,
    /// Brows to mouth, like the windows of most face detectors
    Inner,
    /// Head and shoulders: LNet_o's detection and LNet_s's input
    Head,
    /// The frame around the face from which ANet's crops are taken
    Frame,
}

impl FaceWindow {
    /// Its name in files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Face => "face",
            Self::Celeba => "celeba",
            Self::Inner => "inner",
            Self::Head => "head",
            Self::Frame => "frame",
        }
    }

    /// Its position relative to the core square of a face; `None` if that does not determine it.
    pub fn shape(self, bundle: &Bundle) -> Option<Shape> {
        let Boxes { face, celeba, inner } = bundle.locate.boxes;
        match self {
            Self::Face => Some(face),
            Self::Celeba => Some(celeba),
            Self::Inner => Some(inner),
            Self::Frame => Some(bundle.anet.frame()),
            Self::Head => None,
        }
    }

    /// The window of a face, in pixels of the photo.
    pub fn of(self, face: &Face, model: &Model) -> Rect {
        self.shape(&model.bundle).map_or(face.head, |shape| shape.around(face.core))
    }
}

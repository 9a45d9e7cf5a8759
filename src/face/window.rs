//! Which part of a photo stands for a face.

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
    /// Hair to below the chin, as CelebA's boxes
    Celeba,
    /// Brows to mouth, as the windows of most face detectors
    Inner,
    /// Head and shoulders, as LNet_o finds them and LNet_s sees them
    Head,
    /// The frame around the face that ANet's crops are cut from
    Frame,
}

impl FaceWindow {
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

    /// How it lies around the square in the middle of a face; `None` if that does not tell.
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

    /// In pixels of the photo.
    pub fn of(self, face: &Face, model: &Model) -> Rect {
        self.shape(&model.bundle).map_or(face.head, |shape| shape.around(face.core))
    }
}

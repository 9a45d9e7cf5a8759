//! Which part of a photo stands for a face.

use super::{Face, Model};
use crate::data::photo::Rect;
use serde::Deserialize;

/// The windows around a face.
#[derive(Debug, Clone, Copy, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Window {
    Face,
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
            Self::Head => "head",
            Self::Frame => "frame",
        }
    }

    /// In pixels of the photo.
    pub fn of(self, face: &Face, model: &Model) -> Rect {
        match self {
            Self::Face => face.rect,
            Self::Head => face.head,
            Self::Frame => model.frame(face.rect),
        }
    }
}

//! Features of all overlapping patches of an image.

mod patchwise;

pub use patchwise::{Features, PatchScanner};

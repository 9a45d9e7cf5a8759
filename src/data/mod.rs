//! Photos and their annotations: CelebA, image folders, boxes, synthetic faces; decoding, cropping, prefetching.

mod answers;
pub mod boxes;
pub mod celeba;
pub mod check;
pub mod draw;
pub mod folder;
pub mod frame;
pub mod gpu;
pub mod names;
pub mod photo;
pub mod prefetch;
pub mod resample;
pub mod scenes;
pub mod synth;
pub mod table;
mod text;

pub use text::Problems;

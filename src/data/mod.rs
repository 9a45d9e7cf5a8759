//! Photos and their annotations: CelebA, image folders, boxes, synthetic faces; decoding, cropping, prefetching.

#[cfg(feature = "face")]
mod answers;
#[cfg(feature = "face")]
pub mod boxes;
#[cfg(feature = "face")]
pub mod celeba;
#[cfg(feature = "face")]
pub mod check;
#[cfg(feature = "synth")]
pub mod draw;
#[cfg(feature = "face")]
pub mod folder;
#[cfg(feature = "face")]
pub mod frame;
pub mod gpu;
#[cfg(feature = "face")]
pub mod names;
pub mod photo;
#[cfg(feature = "face")]
pub mod prefetch;
pub mod resample;
#[cfg(feature = "face")]
pub mod scenes;
#[cfg(feature = "synth")]
pub mod synth;
#[cfg(feature = "face")]
pub mod table;
#[cfg(feature = "face")]
mod text;

#[cfg(feature = "face")]
pub use text::Problems;

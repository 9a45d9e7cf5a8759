//! Photos and their annotations: CelebA, image folders, boxes, synthetic faces; decoding, cropping, prefetching.

#[cfg(feature = "face")]
mod answers;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod boxes;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod celeba;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod check;
#[cfg(feature = "synth")]
#[doc(hidden)]
pub mod draw;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod folder;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod frame;
#[doc(hidden)]
pub mod gpu;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod names;
pub mod photo;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod prefetch;
pub mod resample;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod scenes;
#[cfg(feature = "synth")]
pub mod synth;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod table;
#[cfg(feature = "face")]
mod text;

#[cfg(feature = "face")]
#[doc(hidden)]
pub use text::Problems;

//! Weft: convolutional networks with globally shared, locally shared and unshared filters, and the face-attribute
//! system of *Deep Learning Face Attributes in the Wild* (Liu, Luo, Wang, Tang, ICCV 2015) on top of them.
//!
//! Imports go down this list only:
//! `cli -> doctor, profile, recipe -> eval -> face, train -> locate, interweave, svm, metrics, data -> net -> ops ->
//! device, ingredients, lock -> weights -> memory, rng, settings, error`.

#[cfg(feature = "cli")]
pub mod cli;
pub mod data;
pub mod device;
#[cfg(feature = "cli")]
pub mod doctor;
pub mod error;
#[cfg(feature = "face")]
pub mod eval;
#[cfg(feature = "face")]
pub mod face;
#[cfg(feature = "face")]
pub mod ingredients;
pub mod interweave;
#[cfg(feature = "face")]
pub mod locate;
#[cfg(feature = "face")]
pub mod lock;
pub mod memory;
#[cfg(feature = "face")]
pub mod metrics;
pub mod net;
pub mod ops;
pub mod profile;
#[cfg(feature = "face")]
pub mod recipe;
pub mod rng;
pub mod settings;
#[cfg(feature = "face")]
pub mod svm;
pub mod train;
pub mod weights;

pub use error::{Error, Result};

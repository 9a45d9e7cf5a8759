//! Weft: convolutional networks with globally shared, locally shared and unshared filters, and the face-attribute
//! system of *Deep Learning Face Attributes in the Wild* (Liu, Luo, Wang, Tang, ICCV 2015) on top of them.
//!
//! Imports only go down this list:
//! `cli -> doctor, profile, recipe, sass, tune -> eval -> face, train -> locate, interweave, svm, metrics, data, dist -> net -> ops ->
//! device, provenance, lock -> weights -> memory, rng, settings, chart, text_table, trace -> shipped -> error`.

#![deny(missing_docs)]

#[cfg(feature = "face")]
#[doc(hidden)]
pub mod chart;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod data;
pub mod device;
#[cfg(feature = "face")]
pub mod dist;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod doctor;
pub mod error;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod eval;
#[cfg(feature = "face")]
pub mod face;
pub mod interweave;
#[cfg(feature = "face")]
pub mod locate;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod lock;
#[doc(hidden)]
pub mod memory;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod metrics;
pub mod net;
pub mod ops;
#[doc(hidden)]
pub mod profile;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod provenance;
#[cfg(feature = "face")]
#[doc(hidden)]
pub mod recipe;
#[doc(hidden)]
pub mod rng;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod sass;
#[doc(hidden)]
pub mod settings;
pub mod shipped;
#[cfg(feature = "face")]
pub mod svm;
#[doc(hidden)]
pub mod text_table;
#[doc(hidden)]
pub mod trace;
pub mod train;
#[doc(hidden)]
pub mod tune;
pub mod weights;

pub use error::{Error, Result};

/// The README's example is a test.
#[cfg(all(doctest, feature = "image"))]
#[doc = include_str!("../README.md")]
struct Readme;

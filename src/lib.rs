//! Weft: convolutional networks with globally shared, locally shared and unshared filters, and the face-attribute
//! system of *Deep Learning Face Attributes in the Wild* (Liu, Luo, Wang, Tang, ICCV 2015) on top of them.
//!
//! Imports go down this list only:
//! `cli -> doctor, profile, recipe -> eval -> face, train -> locate, interweave, svm, metrics, data -> net -> ops ->
//! device, ingredients, lock -> weights -> memory, rng, settings, chart, text_table -> shipped -> error`.

pub mod chart;
pub mod cli;
pub mod data;
pub mod device;
pub mod doctor;
pub mod error;
pub mod eval;
pub mod face;
pub mod ingredients;
pub mod interweave;
pub mod locate;
pub mod lock;
pub mod memory;
pub mod metrics;
pub mod net;
pub mod ops;
pub mod profile;
pub mod recipe;
pub mod rng;
pub mod settings;
pub mod shipped;
pub mod svm;
pub mod text_table;
pub mod train;
pub mod weights;

pub use error::{Error, Result};

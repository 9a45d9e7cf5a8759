//! Training: a file describes a run; a run is a loop of steps that any moment may interrupt.
//!
//! The way of a sample: [`source`] lists photos with their tags, `sampler` chooses those of a step, `view` cuts a crop
//! out of each on worker threads, `run` takes the batch through the net of `network` on a [`Trainer`], whose optimizer
//! ([`Sgd`], [`GpuSgd`]) moves the parameters at the rate of the [`Schedule`].

mod checkpoint;
mod config;
mod listing;
mod network;
mod run;
mod sampler;
mod schedule;
mod sgd;
mod sgd_gpu;
mod source;
mod trainer;
mod view;

pub use checkpoint::{FILE as CHECKPOINT, State, load as load_checkpoint, made_of, save as save_checkpoint};
pub use config::{Config, Count, Data, Seed, Stage, View};
pub use listing::ingredients;
pub use network::{HEAD, Network};
pub use run::{Event, Outcome, Validation, run};
pub use schedule::Schedule;
pub use sgd::{Sgd, SgdConfig};
pub use sgd_gpu::GpuSgd;
pub use source::{FACE, Item, Source};
pub use trainer::Trainer;

pub use crate::settings::Change;

//! Training: a file describes a run; a run is a loop of steps that can be interrupted at any moment.
//!
//! Data flow: `source` lists photos with their tags, `sampler` selects those of a step, `view` cuts a crop out of each on
//! worker threads, `run` passes the batch through the net of `network` on a [`Trainer`], whose optimizer updates the
//! parameters at the learning rate of the [`Schedule`]. `sharded` divides batches among ranks, or among the turns of one rank.

#[cfg(feature = "face")]
mod checkpoint;
#[cfg(feature = "face")]
mod config;
#[cfg(feature = "face")]
mod listing;
#[cfg(feature = "face")]
mod network;
#[cfg(feature = "face")]
mod run;
#[cfg(feature = "face")]
mod sampler;
#[cfg(feature = "face")]
mod schedule;
#[cfg(feature = "face")]
mod sharded;
#[cfg(feature = "face")]
mod source;
mod trainer;
#[cfg(feature = "face")]
mod view;

#[cfg(feature = "face")]
#[doc(hidden)]
pub use checkpoint::{FILE as CHECKPOINT, State, load as load_checkpoint, provenance_of, save as save_checkpoint};
#[cfg(feature = "face")]
pub use config::{Config, Count, Data, Seed, Stage, View};
#[cfg(feature = "face")]
#[doc(hidden)]
pub use listing::provenance;
#[cfg(feature = "face")]
#[doc(hidden)]
pub use network::{HEAD, Network};
#[cfg(feature = "face")]
pub use run::{Event, Outcome, Validation, run, run_in};
#[cfg(feature = "face")]
pub use schedule::Schedule;
#[cfg(feature = "face")]
#[doc(hidden)]
pub use source::{FACE, Item, Source};
pub use trainer::Trainer;

#[cfg(feature = "face")]
pub use crate::settings::Change;

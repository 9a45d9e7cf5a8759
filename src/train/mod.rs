//! Training: the optimizer, schedules, losses' wiring, the loop with its log, and checkpoints.

mod sgd;

pub use sgd::{Sgd, SgdConfig};

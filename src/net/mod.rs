//! Networks: a TOML description becomes a graph of bound operations ([`Net`]), a graph and a batch size become a memory
//! plan ([`Plan`]), and a plan with its memory runs forward and backward on a device ([`Session`]), with parameters stored
//! there ([`Parameters`]) and updated by an optimizer ([`Sgd`]). Only this module, those below it and
//! the interweaver distinguish kinds of devices.

mod cpu;
pub(crate) mod gpu;
mod graph;
mod input;
mod normalise;
mod parameters;
#[doc(hidden)]
pub mod photos;
mod plan;
mod price;
mod session;
mod sgd;
mod spec;
mod steps;
mod stored;

pub(crate) use gpu::PlanMemory;
pub use graph::{INPUT, Layer, Net, NetParameter};
pub use input::{Input, InputForm};
pub use normalise::Normalise;
pub use parameters::{Loaded, NamedParameter, Unknown};
pub(crate) use plan::Buffers;
pub use plan::{Plan, Purpose, Table as PlanTable};
pub use session::{Session, Timed};
pub use sgd::{LossScale, Sgd, SgdConfig};
pub use spec::{LayerSpec, Spec};
pub use steps::Steps;
pub use stored::Parameters;
pub(crate) use stored::{CpuParameters, Location};

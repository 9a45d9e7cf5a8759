//! Networks: a TOML description becomes a graph of bound operations ([`Net`]), a graph and a batch size become a memory
//! plan ([`Plan`]), and a plan with its arena runs forward and backward ([`Session`]).

mod gpu;
mod graph;
mod parameters;
mod plan;
mod price;
mod runner;
mod session;
mod spec;

pub use gpu::{GpuParameters, GpuSession, Tensor};
pub use graph::{INPUT, Layer, Net, NetParameter};
pub use parameters::{NamedParameter, Unknown};
pub(crate) use plan::Buffers;
pub use plan::{Plan, Purpose, Table as PlanTable};
pub use runner::{Parameters, Runner};
pub use session::Session;
pub use spec::{LayerSpec, Spec};

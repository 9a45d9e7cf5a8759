//! A net on a GPU: its parameters ([`GpuParameters`]), the memory of a plan ([`PlanMemory`]) and passes over batches of one
//! size ([`GpuPass`]), and whole steps of training ([`GpuSteps`]).

mod intake;
mod memory;
mod parameters;
mod pass;
mod step;

pub(crate) use memory::PlanMemory;
pub(crate) use parameters::GpuParameters;
pub(super) use pass::GpuPass;
#[cfg(feature = "face")]
pub(crate) use pass::PassOnGpu;
pub(super) use step::GpuSteps;

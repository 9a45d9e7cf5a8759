//! A net on a GPU: its parameters ([`GpuParameters`]), the memory of a plan ([`PlanMemory`]) and passes over batches of one
//! size ([`GpuPass`]).

mod memory;
mod parameters;
mod pass;

pub(crate) use memory::PlanMemory;
pub(crate) use parameters::GpuParameters;
pub(super) use pass::GpuPass;

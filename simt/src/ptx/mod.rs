//! The second engine: executes the PTX that nvcc wrote, warp by warp, and counts what it executes.

mod count;

pub use count::{Banks, Class, Counted, Counts, LineCounts, Traffic};

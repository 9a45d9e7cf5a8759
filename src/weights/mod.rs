//! Tensors in files: safetensors read through a memory map, and written so that a crash never destroys the last good copy.
//!
//! A file is untrusted until its header has been checked against its length. After [`TensorFile::open`] every name, shape
//! and byte range is known to be consistent, so reading a tensor is slicing the map.
//!
//! Format: <https://github.com/huggingface/safetensors>; eight bytes of header length, a JSON header, the data. All
//! numbers little-endian.

mod atomic;
mod convert;
mod npy;
mod read;
mod summary;
mod write;

/// Metadata key of trained weights: comma-separated names of the tags that the head's channels predict.
pub const TAGS: &str = "weft.tags";

pub use atomic::{AtomicFile, keep_inputs, make_folder, resolved, sweep, write_atomic};
pub use convert::convert;
pub use npy::write_npy;
pub use read::{Tensor, TensorFile};
pub use safetensors::Dtype;
pub use summary::{Summary, TensorSummary, summary};
pub use write::{Named, TensorWriter, write};

/// The longest header the format allows, in bytes.
const MAX_HEADER: usize = 100_000_000;
/// The length of the header is a u64 in front of it.
const LENGTH_BYTES: usize = 8;

/// Number of elements of a shape; `None` if the product does not fit in a `usize`.
fn elements(shape: &[usize]) -> Option<usize> {
    shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))
}

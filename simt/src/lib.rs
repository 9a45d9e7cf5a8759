//! Runs CUDA kernels on the host CPU, thread by thread, and detects races, missing barriers and invalid accesses.
//!
//! A `.cu` file is valid C++ once its CUDA names are defined. `simt-build` compiles it twice for the
//! host. The *fast* variant is plain code; in the *checked* variant the compiler reports every load and store, and the
//! emulator keeps shadow memory for them. Each CUDA thread is a coroutine, so barriers and warp collectives are real.
//!
//! ```
//! // In your crate, after build.rs has compiled the folder: mod kernels { simt::include_kernels!("kernels"); }
//! use simt_planted::clean as kernels;
//!
//! // __global__ void saxpy(float a, const float* x, float* y, int n): y += a * x
//! let x = simt::Buffer::from_slice(&[1.0f32; 1000]);
//! let y = simt::Buffer::from_slice(&[0.5f32; 1000]);
//! let launch = simt::Launch::new(4, 256).checked().seed(1);
//! kernels::KERNELS.launch("saxpy", &launch, &simt::args![2.0f32, x, y, 1000i32])?;
//! assert_eq!(y.to_vec::<f32>(), [2.5; 1000]);
//! # Ok::<(), simt::Error>(())
//! ```
//!
//! Kernels are trusted as on a device: in the fast variant, an out-of-bounds write happens. Run the checked variant
//! first; it stops before the access.
#[cfg(not(target_os = "linux"))]
compile_error!("simt finds a block's shared memory through the ELF thread-local segment: Linux only");

mod check;
mod finding;
mod hooks;
mod launch;
mod memory;
mod module;
pub mod ptx;
mod scheduler;
mod stack;

pub use finding::{Error, Finding, Kind};
pub use launch::{Dim3, Launch, MAX_SHARED_BYTES, MAX_THREADS, Variant};
pub use memory::{Buffer, DevicePtr, POISON};
#[doc(hidden)]
pub use module::Entry;
pub use module::{Arg, Module};
pub use ptx::{Class, Ptx};

/// Defines `KERNELS`, the [`Module`] that `simt_build::Kernels::compile("<name>")` compiled in this crate's build script.
#[macro_export]
macro_rules! include_kernels {
    ($name:literal) => {
        include!(concat!(env!("OUT_DIR"), "/simt_", $name, ".rs"));
    };
}

/// An array of [`Arg`]s for a launch: buffers, device pointers and plain values, in the kernel's order.
#[macro_export]
macro_rules! args {
    ($($value:expr),* $(,)?) => { [$($crate::Arg::from(&$value)),*] };
}

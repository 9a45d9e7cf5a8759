//! The GPU interface that Weft needs: memory, copies, launches by name, graphs, timing. It has two implementations: the CUDA
//! driver through cudarc (`super::cuda`) and the emulator (`super::emulator`). Everything above this trait is written
//! once, so launch geometry, memory plans and graphs are tested on machines without a GPU.

use super::tuned::{Cut, Product, ProductKey};
use crate::Result;
use bytemuck::{NoUninit, Pod, Zeroable};
use std::ops::Range;
use std::sync::Arc;

/// An address in device memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Pod, Zeroable)]
#[repr(transparent)]
pub struct Ptr(pub u64);

impl Ptr {
    /// The null address.
    pub const NULL: Self = Self(0);

    /// The address `bytes` bytes further on.
    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0 + bytes as u64)
    }
}

/// Defines the parameter struct of a kernel: plain data, passed by value, as in the `.cu` file, where `PARAMETERS(Name, size)`
/// asserts the same size.
#[macro_export]
macro_rules! kernel_parameters {
    ($(#[$meta:meta])* $name:ident: $size:literal { $($(#[$doc:meta])* $field:ident: $type:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
        #[repr(C)]
        #[allow(missing_docs)] // fields of the kernel's own struct
        pub struct $name { $($(#[$doc])* pub $field: $type),* }
        const _: () = assert!(size_of::<$name>() == $size);
    };
}

/// Blocks of a grid along y, and along z; along x there may be 2^31.
const MOST_BLOCKS: u32 = 65_535;

/// The work of a launch, counted by hand: the basis of every roofline.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Work {
    /// Floating-point operations (a multiply-add is two).
    pub flops: u64,
    /// Minimum memory traffic in bytes: each value read and written once.
    pub bytes: u64,
}

/// A kernel with its launch geometry and parameters; plain data, so that a list of launches is a program.
#[derive(Debug, Clone)]
pub struct Launch {
    /// Name of an `extern "C" __global__` function under kernels/.
    pub kernel: String,
    /// Blocks along x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block; blocks are one-dimensional.
    pub block: u32,
    /// Dynamic shared memory in bytes.
    pub shared: u32,
    /// The kernel's one parameter struct.
    pub parameters: Arc<[u8]>,
    /// What it computes and moves, for profiles.
    pub work: Work,
    /// Its purpose, for messages and tables: a layer's name.
    pub label: Arc<str>,
    /// The product that it computes and that may be cut otherwise, if it is one.
    pub product: Option<Arc<Product>>,
}

impl Launch {
    /// A launch of `grid` blocks of `block` threads; `parameters` is the kernel's one argument.
    pub fn new<P: NoUninit>(kernel: impl Into<String>, grid: [usize; 3], block: usize, parameters: &P) -> Self {
        Self {
            kernel: kernel.into(),
            grid: grid.map(|n| u32::try_from(n).unwrap_or(u32::MAX)),
            block: block as u32,
            shared: 0,
            parameters: Arc::from(bytemuck::bytes_of(parameters)),
            work: Work::default(),
            label: Arc::from(""),
            product: None,
        }
    }

    /// Sets which product it computes, and how it is cut.
    pub fn of(self, key: ProductKey, cut: Cut) -> Self {
        Self { product: Some(Arc::new(Product { key, cut })), ..self }
    }

    /// Sets the dynamic shared memory.
    pub fn shared(self, bytes: usize) -> Self {
        Self { shared: bytes as u32, ..self }
    }

    /// Sets what it computes (FLOPs) and moves (bytes).
    pub fn work(self, flops: u64, bytes: u64) -> Self {
        Self { work: Work { flops, bytes }, ..self }
    }

    /// True from 2^31 threads along x on, because kernels index threads in 32 bits and divide these numbers as signed ones, and
    /// beyond the blocks that CUDA allows along y and z.
    pub fn is_too_large(&self) -> bool {
        let [x, y, z] = self.grid;
        u64::from(x) * u64::from(self.block) > i32::MAX as u64 || y.max(z) > MOST_BLOCKS
    }

    /// `kernel (layer), grid 2x1x1, block 256, 0 bytes of shared memory`: for messages.
    pub fn describe(&self) -> String {
        let [x, y, z] = self.grid;
        let label = if self.label.is_empty() { String::new() } else { format!(" of layer {}", self.label) };
        format!(
            "{}{label}, grid {x}x{y}x{z}, block {}, {} bytes of shared memory",
            self.kernel, self.block, self.shared
        )
    }
}

/// Properties of a GPU.
#[derive(Debug, Clone, PartialEq)]
pub struct Properties {
    /// Name reported by the driver.
    pub name: String,
    /// The driver's version; empty for the emulator.
    pub driver: String,
    /// Compute capability, `[9, 0]` for an H100. For the emulator the value it reports: it runs all but device-only kernels.
    pub capability: [u32; 2],
    /// Streaming multiprocessors.
    pub multiprocessors: u32,
    /// Maximum dynamic shared memory of a block in bytes.
    pub shared_per_block: u32,
    /// Shared memory of a multiprocessor in bytes.
    pub shared_per_multiprocessor: u32,
    /// Maximum number of resident threads on a multiprocessor.
    pub threads_per_multiprocessor: u32,
    /// Bytes of device memory.
    pub memory: u64,
    /// Peak rates for the roofline; `None` where they are unknown (the emulator).
    pub peaks: Option<Peaks>,
}

/// Peak rates of a GPU, computed from its clocks and widths.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peaks {
    /// FLOP/s of f32 multiply-adds outside the tensor cores.
    pub f32: f64,
    /// FLOP/s of the tensor cores on tf32, and on 16-bit numbers, without sparsity.
    pub tf32: f64,
    /// FLOP/s of f16 and bf16 products on tensor cores.
    pub half: f64,
    /// Bytes per second of device memory.
    pub memory: f64,
}

/// Resource usage of a compiled kernel, and how many of its blocks fit on a multiprocessor.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Registers of a thread.
    pub registers: u32,
    /// Bytes of static shared memory.
    pub static_shared: u32,
    /// Bytes of local memory of a thread: spills and stack.
    pub local: u32,
    /// Resident blocks per multiprocessor at the given block size and dynamic shared memory; 0 where no card is known.
    pub blocks_per_multiprocessor: u32,
}

/// Launches that were captured once and are started as one.
pub trait Graph: Send + Sync {
    /// Starts it on the driver's stream; does not wait.
    fn launch(&self) -> Result<()>;
}

/// Page-locked host memory, which copies read and write while the host goes on. They run in the order of the driver's stream.
pub trait Pinned: Send {
    /// Its bytes, zero at first. Waits until no copy from or to it is in flight.
    fn bytes(&mut self) -> Result<&mut [u8]>;

    /// Starts to copy `range` of it to the device.
    fn upload(&mut self, range: Range<usize>, to: Ptr) -> Result<()>;

    /// Starts to copy from the device into `range` of it.
    fn download(&mut self, from: Ptr, range: Range<usize>) -> Result<()>;
}

/// A GPU, real or emulated. One stream: all work runs in call order.
pub trait Driver: Send + Sync {
    /// Properties of the device.
    fn properties(&self) -> &Properties;

    /// Bytes of device memory that are currently free.
    fn free_memory(&self) -> Result<u64>;

    /// Whether device memory is host memory (the emulator).
    fn is_host(&self) -> bool {
        false
    }

    /// Allocates; contents undefined, aligned to 256 bytes.
    ///
    /// # Errors
    /// Out of memory: what was requested and what is free.
    fn allocate(&self, bytes: usize) -> Result<Ptr>;

    /// Frees memory of [`Driver::allocate`].
    fn free(&self, memory: Ptr);

    /// Copies to the device; `bytes` may be reused on return.
    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()>;

    /// Waits for all previous work, and copies from the device.
    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()>;

    /// Page-locked host memory of `bytes` bytes.
    ///
    /// # Errors
    /// There is not as much.
    fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>>;

    /// Starts a kernel.
    ///
    /// # Errors
    /// Names kernel, layer and geometry.
    fn launch(&self, launch: &Launch) -> Result<()>;

    /// Waits for all submitted work.
    fn synchronize(&self) -> Result<()>;

    /// Captures launches as one graph.
    fn capture(&self, launches: &[Launch]) -> Result<Box<dyn Graph>>;

    /// Runs launches sequentially and returns the seconds each took.
    fn time(&self, launches: &[Launch]) -> Result<Vec<f64>>;

    /// Runs launches one by one, those of each layer inside a named NVTX range, for Nsight Systems. Returns false, without
    /// running anything, where there is no NVTX library.
    ///
    /// # Errors
    /// As [`Driver::launch`].
    fn run_in_ranges(&self, _launches: &[Launch]) -> Result<bool> {
        Ok(false)
    }

    /// Resource usage of a launch's kernel; `None` where there is no compiler report (kernels compiled for the host).
    fn attributes(&self, launch: &Launch) -> Result<Option<Attributes>>;

    /// Runs a launch and counts what its blocks execute: all of them, or at most `most_blocks`. `None` on a device that does not
    /// count.
    ///
    /// # Errors
    /// As [`Driver::launch`].
    #[cfg(feature = "simt")]
    fn count(&self, _launch: &Launch, _most_blocks: Option<u64>) -> Result<Option<simt::ptx::Counted>> {
        Ok(None)
    }

    /// The same device as far as plans see it, with so many multiprocessors: to count what a card would execute. `None` on a
    /// real one.
    fn with_multiprocessors(&self, _count: u32) -> Option<Arc<dyn Driver>> {
        None
    }

    /// Names of all kernels that can be launched.
    fn kernels(&self) -> Vec<String>;
}

//! Devices that networks run on. `auto` selects the best available one and logs it.

#[cfg(feature = "cuda")]
#[doc(hidden)]
pub mod cuda;
#[doc(hidden)]
pub mod driver;
#[cfg(feature = "simt")]
mod emulator;
mod gpu;
mod images;
pub mod tuned;

#[cfg(feature = "cuda")]
pub use cuda::Cuda;
pub use driver::{Attributes, Driver, Graph, Launch, Peaks, Pinned, Properties, Ptr, Work};
#[cfg(feature = "simt")]
pub use emulator::{Emulator, Options as EmulatorOptions};
pub use gpu::{Convolution, Gpu, Memory, Precision, Program, Recorder, Step, Tile};
pub use images::{ARCHITECTURES, IMAGES, NVCC};
pub use tuned::{Cut, Product, ProductKey, Tuned};

use crate::{Error, Result};
#[cfg(any(feature = "cuda", feature = "simt"))]
use std::sync::Arc;

/// An opened device.
///
/// ```
/// use weft::device::{Convolution, Device, Precision};
///
/// let device = Device::open("cpu")?;
/// assert_eq!(device.name(), "cpu");
/// // The CPU computes in f32.
/// assert!(device.with(Precision::F16, Convolution::Implicit).is_err());
/// assert!(Device::open("tpu").is_err());
/// # Ok::<(), weft::Error>(())
/// ```
#[derive(Debug, Clone)]
pub enum Device {
    /// The processor, in f32, on all threads of rayon's pool.
    Cpu,
    /// A GPU, or its emulator.
    Gpu(Gpu),
}

impl Device {
    /// `cpu`, or the GPU's name.
    pub fn name(&self) -> String {
        match self {
            Self::Cpu => "cpu".into(),
            Self::Gpu(gpu) => gpu.driver.properties().name.clone(),
        }
    }

    /// The same with the execution settings of nets: threads, or the precision.
    pub fn describe(&self) -> String {
        match self {
            Self::Cpu => format!("CPU, {} threads", rayon::current_num_threads()),
            Self::Gpu(gpu) => format!("{} in {}", self.name(), gpu.precision),
        }
    }

    /// The GPU, if the device is one.
    pub fn gpu(&self) -> Option<&Gpu> {
        match self {
            Self::Cpu => None,
            Self::Gpu(gpu) => Some(gpu),
        }
    }

    /// Properties of the GPU.
    pub fn properties(&self) -> Option<Properties> {
        self.gpu().map(|gpu| gpu.driver.properties().clone())
    }

    /// True for the emulator, whose timings say nothing about a GPU.
    pub fn is_emulated(&self) -> bool {
        self.gpu().is_some_and(|gpu| gpu.driver.properties().peaks.is_none())
    }

    /// Batch sizes worth trying where the fastest is wanted, smallest first.
    pub fn batches(&self) -> &'static [usize] {
        match self {
            Self::Cpu => &[8, 16, 32, 64],
            // The emulator's time says nothing about a batch.
            Self::Gpu(_) if self.is_emulated() => &[8],
            Self::Gpu(_) => &[32, 128, 512, 1024],
        }
    }

    /// Photos to have in flight where throughput is wanted, if the user does not say.
    pub fn photos_in_flight(&self) -> usize {
        match self {
            // One on each thread: no thread waits for another.
            Self::Cpu => rayon::current_num_threads(),
            Self::Gpu(_) if self.is_emulated() => 1,
            // While one is computed, another is decoded and read.
            Self::Gpu(_) => 3,
        }
    }

    /// Threads that nets run on; 0 on a GPU. They change no result.
    pub fn threads(&self) -> usize {
        if self.gpu().is_some() { 0 } else { rayon::current_num_threads() }
    }

    /// The same device with nets in another precision and another convolution algorithm; the CPU supports only f32 and one
    /// algorithm.
    ///
    /// # Errors
    /// A precision that the device does not support.
    pub fn with(self, precision: Precision, convolution: Convolution) -> Result<Self> {
        let place = format!("precision {precision}");
        match self {
            Self::Gpu(gpu) if !gpu.has(precision) => {
                Err(Error::device(place, format!("{} has no such tensor cores", gpu.driver.properties().name))
                    .advise("use f32; the others need compute capability 8.0"))
            }
            Self::Gpu(gpu) => Ok(Self::Gpu(Gpu { precision, convolution, ..gpu })),
            Self::Cpu if precision != Precision::F32 => {
                Err(Error::device(place, "the CPU computes in f32").advise("leave it out, or choose a GPU"))
            }
            Self::Cpu => Ok(Self::Cpu),
        }
    }

    /// An emulated device for which nets are planned as for a GPU of so many multiprocessors; others are what they are.
    pub fn planned_for(self, multiprocessors: u32) -> Self {
        match self {
            Self::Gpu(gpu) => {
                let driver = gpu.driver.with_multiprocessors(multiprocessors).unwrap_or_else(|| gpu.driver.clone());
                Self::Gpu(Gpu { driver, ..gpu })
            }
            Self::Cpu => Self::Cpu,
        }
    }

    /// Arithmetic of the nets that run here.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Cpu => Precision::F32,
            Self::Gpu(gpu) => gpu.precision,
        }
    }

    /// Opens `auto`, `cpu`, `cuda`, `cuda:N`, `simt`, `simt:checked`, `simt:ptx` or `simt:ptx:checked`. `auto` is a usable GPU,
    /// otherwise the CPU, and logs which; where no GPU is expected (no driver, no GPU code) it logs nothing. `cuda` is the first
    /// usable GPU.
    ///
    /// # Errors
    /// No such device, or one that is unusable, with the reason.
    pub fn open(text: &str) -> Result<Self> {
        match text {
            "cpu" => Ok(Self::Cpu),
            "auto" => Ok(Self::best()),
            "simt" => emulator(false),
            "simt:checked" => emulator(true),
            "simt:ptx" => emulator_of_ptx(false),
            "simt:ptx:checked" => emulator_of_ptx(true),
            "cuda" => cuda(None),
            _ => match text.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()) {
                Some(ordinal) => cuda(Some(ordinal)),
                None => Err(Error::device(format!("device {text}"), "no such device")
                    .advise("use auto, cpu, cuda, cuda:N, simt, simt:checked, simt:ptx or simt:ptx:checked")),
            },
        }
    }

    /// The first usable GPU, otherwise the CPU.
    #[cfg(feature = "cuda")]
    fn best() -> Self {
        match Cuda::open_any() {
            Ok((ordinal, cuda)) => {
                log::info!("computing on {} (cuda:{ordinal})", cuda.properties().name);
                Self::Gpu(Gpu::new(Arc::new(cuda)).with_tuned())
            }
            Err(refusal) => {
                // Missing GPU code matters only where there is a GPU.
                let expected = !refusal.plain || (IMAGES.is_empty() && cuda::probe().is_ok());
                if expected {
                    log::warn!("computing on the CPU; {}", refusal.error);
                }
                Self::Cpu
            }
        }
    }

    #[cfg(not(feature = "cuda"))]
    fn best() -> Self {
        Self::Cpu
    }
}

/// A GPU by its number, or the first usable one.
#[cfg(feature = "cuda")]
fn cuda(ordinal: Option<usize>) -> Result<Device> {
    let found = match ordinal {
        Some(ordinal) => Cuda::open(ordinal),
        None => Cuda::open_any().map(|(_, found)| found),
    };
    found.map(|found| Device::Gpu(Gpu::new(Arc::new(found)).with_tuned())).map_err(|refusal| refusal.error)
}

#[cfg(not(feature = "cuda"))]
fn cuda(_: Option<usize>) -> Result<Device> {
    Err(Error::device("device cuda", "Weft was built without GPU code").advise("build it with the feature `cuda`"))
}

#[cfg(feature = "simt")]
fn emulator(checked: bool) -> Result<Device> {
    let emulator = Emulator::new(EmulatorOptions { checked, seed: None });
    Ok(Device::Gpu(Gpu { separate_buffers: checked, ..Gpu::new(Arc::new(emulator)) }))
}

/// The emulator that executes the PTX of this build.
#[cfg(feature = "simt")]
fn emulator_of_ptx(checked: bool) -> Result<Device> {
    let emulator = Emulator::of_ptx(EmulatorOptions { checked, seed: None })?;
    Ok(Device::Gpu(Gpu { separate_buffers: checked, ..Gpu::new(Arc::new(emulator)) }))
}

#[cfg(not(feature = "simt"))]
fn emulator_of_ptx(checked: bool) -> Result<Device> {
    emulator(checked)
}

#[cfg(not(feature = "simt"))]
fn emulator(_: bool) -> Result<Device> {
    Err(Error::device("device simt", "Weft was built without the emulator").advise("build it with the feature `simt`"))
}

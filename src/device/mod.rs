//! Where a network runs. `auto` takes the best that is there and says so.

pub mod driver;
mod emulator;
mod gpu;
mod images;

pub use driver::{Attributes, Driver, Launch, Peaks, Properties, Ptr, Work};
pub use emulator::{Emulator, Options as EmulatorOptions};
pub use gpu::{Convolution, Gpu, Memory, Precision, Program, Recorder, Step};
pub use images::{ARCHITECTURES, IMAGES, NVCC};

use crate::{Error, Result};
use std::sync::Arc;

/// A device that is ready.
#[derive(Debug, Clone)]
pub enum Device {
    Cpu,
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

    /// Arithmetic of the nets that run here.
    pub fn precision(&self) -> Precision {
        match self {
            Self::Cpu => Precision::F32,
            Self::Gpu(gpu) => gpu.precision,
        }
    }

    /// Opens `auto`, `cpu`, `cuda`, `cuda:N`, `simt` or `simt:checked`.
    ///
    /// # Errors
    /// No such device, or one that cannot be used, and why.
    pub fn open(text: &str) -> Result<Self> {
        let emulator = |checked| {
            let options = EmulatorOptions { checked, seed: None };
            Gpu { apart: checked, ..Gpu::new(Arc::new(Emulator::new(options))) }
        };
        match text {
            "cpu" | "auto" => Ok(Self::Cpu),
            "simt" => Ok(Self::Gpu(emulator(false))),
            "simt:checked" => Ok(Self::Gpu(emulator(true))),
            _ => Err(Error::new(format!("--device {text}"), "no such device")
                .advise("use auto, cpu, cuda, cuda:N, simt or simt:checked")),
        }
    }
}

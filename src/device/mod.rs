//! Where a network runs. `auto` takes the best that is there and says so.

pub mod cuda;
pub mod driver;
mod emulator;
mod gpu;
mod images;

pub use cuda::Cuda;
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

    /// Opens `auto`, `cpu`, `cuda`, `cuda:N`, `simt` or `simt:checked`. `auto` is a usable GPU, else the CPU, and says which on
    /// standard error; where nobody expects a GPU (no driver, no GPU code) it says nothing. `cuda` is the first usable GPU.
    ///
    /// # Errors
    /// No such device, or one that cannot be used, and why.
    pub fn open(text: &str) -> Result<Self> {
        let emulator = |checked| {
            let options = EmulatorOptions { checked, seed: None };
            Gpu { apart: checked, ..Gpu::new(Arc::new(Emulator::new(options))) }
        };
        let cuda = |cuda| Self::Gpu(Gpu::new(Arc::new(cuda)));
        match text {
            "cpu" => Ok(Self::Cpu),
            "auto" => Ok(Self::best()),
            "cuda" => Cuda::open_any().map(|(_, found)| cuda(found)).map_err(|refusal| refusal.error),
            "simt" => Ok(Self::Gpu(emulator(false))),
            "simt:checked" => Ok(Self::Gpu(emulator(true))),
            _ => match text.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()) {
                Some(ordinal) => Cuda::open(ordinal).map(cuda).map_err(|refusal| refusal.error),
                None => Err(Error::new(format!("--device {text}"), "no such device")
                    .advise("use auto, cpu, cuda, cuda:N, simt or simt:checked")),
            },
        }
    }

    /// The first usable GPU, else the CPU.
    fn best() -> Self {
        match Cuda::open_any() {
            Ok((ordinal, cuda)) => {
                say(format_args!("weft: computing on {} (cuda:{ordinal})", cuda.properties().name));
                Self::Gpu(Gpu::new(Arc::new(cuda)))
            }
            Err(refusal) => {
                // Without GPU code it matters only where there is a GPU.
                let expected = !refusal.plain || (IMAGES.is_empty() && cuda::probe().is_ok());
                if expected {
                    say(format_args!("weft: computing on the CPU; {}", refusal.error));
                }
                Self::Cpu
            }
        }
    }
}

/// Writes a line to standard error. That nobody can read it is no reason to fail.
fn say(text: std::fmt::Arguments<'_>) {
    use std::io::Write;
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

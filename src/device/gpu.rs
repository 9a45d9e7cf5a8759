//! GPU access for the engine: memory that is freed on drop, and programs. A program is a list of launches with all their
//! parameters, built once with a plan, when every shape and address is fixed; running it allocates nothing and uploads no
//! metadata, so it can be captured as a graph. What changes from step to step is at a fixed address in device
//! memory ([`Step`]).

use super::driver::{Driver, Graph, Launch, Ptr};
#[cfg(feature = "cuda")]
use super::tuned;
use super::tuned::Tuned;
use crate::kernel_parameters;
use crate::memory;
use crate::{Error, Result, trace};
use bytemuck::Pod;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

/// Arithmetic and storage of a net on a GPU. Sums, master weights and their gradients are f32 in all of them.
///
/// ```
/// use weft::device::Precision;
///
/// assert_eq!("bf16".parse::<Precision>()?.bytes(), 2);
/// # Ok::<(), weft::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// f32 multiply-adds outside the tensor cores.
    #[default]
    F32,
    /// f32 in memory, tensor cores on numbers rounded to tf32.
    Tf32,
    /// f16 in memory and on tensor cores.
    F16,
    /// bf16 in memory and on tensor cores.
    Bf16,
}

impl Precision {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::F32, Self::Tf32, Self::F16, Self::Bf16];

    /// Name suffix of kernels that multiply in this precision.
    pub fn math(self) -> &'static str {
        ["f32", "tf32", "f16", "bf16"][self as usize]
    }

    /// Name suffix of kernels that read and write activations of this precision.
    pub fn storage(self) -> &'static str {
        ["f32", "f32", "f16", "bf16"][self as usize]
    }

    /// Bytes of an activation.
    pub fn bytes(self) -> usize {
        [4, 4, 2, 2][self as usize]
    }

    /// Largest relative error of a single rounding: to the storage type, for tf32 as the tensor cores read it.
    pub fn unit_roundoff(self) -> f64 {
        let digits = [24, 11, 11, 8][self as usize];
        0.5f64.powi(digits)
    }

    /// `x` as used in products: rounded to the storage type, for tf32 as the tensor cores read it (halves away from zero).
    pub fn round_factor(self, x: f32) -> f32 {
        match self {
            Self::F32 => x,
            Self::Tf32 if !x.is_finite() => x,
            Self::Tf32 => f32::from_bits((x.to_bits() + 0x1000) & 0xffff_e000),
            Self::F16 => half::f16::from_f32(x).to_f32(),
            Self::Bf16 => half::bf16::from_f32(x).to_f32(),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.math())
    }
}

impl FromStr for Precision {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL
            .into_iter()
            .find(|precision| precision.math() == text)
            .ok_or_else(|| Error::device("", "no such precision").advise("use f32, tf32, f16 or bf16"))
    }
}

/// Algorithm of convolutions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Convolution {
    /// Windows are gathered while a tile is loaded.
    #[default]
    Implicit,
    /// Windows are written out (im2col), followed by one plain matrix product.
    Im2col,
}

impl FromStr for Convolution {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "implicit" => Ok(Self::Implicit),
            "im2col" => Ok(Self::Im2col),
            _ => Err(Error::device("", "no such algorithm").advise("use implicit or im2col")),
        }
    }
}

/// The values of C that a block of a product computes: lines by columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Tile {
    /// 128 x 64, in all precisions.
    #[serde(rename = "128x64")]
    Middle,
    /// 128 x 128, in 16 bits.
    #[serde(rename = "128x128")]
    Large,
    /// 256 x 32, in 16 bits.
    #[serde(rename = "256x32")]
    Narrow,
}

impl Tile {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Middle, Self::Large, Self::Narrow];
}

impl fmt::Display for Tile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(["128x64", "128x128", "256x32"][*self as usize])
    }
}

/// A GPU, real or emulated, and its compute settings. Cheap to clone.
#[derive(Clone)]
pub struct Gpu {
    /// What launches kernels.
    pub driver: Arc<dyn Driver>,
    /// Arithmetic of the nets.
    pub precision: Precision,
    /// Algorithm of convolutions.
    pub convolution: Convolution,
    /// The tile of all products that have it; `None`: each has the one that a model of their cost prefers.
    pub tile: Option<Tile>,
    /// How products are cut that were timed on this card, and what was wrong with others; the model has the rest.
    pub tuned: Option<Arc<Tuned>>,
    /// Every buffer is a separate allocation and no memory is shared, so that a checked emulator detects every out-of-bounds
    /// access.
    pub separate_buffers: bool,
}

impl fmt::Debug for Gpu {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} in {}", self.driver.properties().name, self.precision)
    }
}

impl Gpu {
    /// A device in f32 with implicit convolutions.
    pub fn new(driver: Arc<dyn Driver>) -> Self {
        let (precision, convolution) = (Precision::default(), Convolution::default());
        Self { driver, precision, convolution, tile: None, tuned: None, separate_buffers: false }
    }

    /// The device with what is known of its products: see [`super::tuned`]. A file that cannot be read is named in the log, and
    /// the model of costs decides.
    #[cfg(feature = "cuda")]
    pub(super) fn with_tuned(self) -> Self {
        let Some(path) = tuned::default_path() else { return self };
        match Tuned::load(&path, &tuned::Card::new(self.driver.properties())) {
            Ok(found) if found.is_empty() => self,
            Ok(found) => Self { tuned: Some(Arc::new(found)), ..self },
            Err(e) => {
                log::warn!("{e}; products are cut as a model of their cost prefers");
                self
            }
        }
    }

    /// Whether products in `precision` run here: all but f32 need tensor cores that support the type, and `cp.async`.
    pub fn has(&self, precision: Precision) -> bool {
        precision == Precision::F32 || self.driver.properties().capability[0] >= 8
    }

    /// Memory for `bytes` bytes, contents undefined.
    ///
    /// # Errors
    /// Out of memory: what was requested and what is free.
    pub fn memory(&self, bytes: usize) -> Result<Memory> {
        let ptr = self.driver.allocate(bytes.max(16))?;
        Ok(Memory { driver: self.driver.clone(), ptr })
    }

    /// Memory that holds `values`.
    ///
    /// # Errors
    /// Out of memory.
    pub fn upload<T: Pod>(&self, values: &[T]) -> Result<Memory> {
        let memory = self.memory(size_of_val(values))?;
        self.driver.upload(memory.ptr, bytemuck::cast_slice(values))?;
        Ok(memory)
    }

    /// `count` values from the device.
    ///
    /// # Errors
    /// A kernel that failed earlier.
    pub fn download<T: Pod>(&self, from: Ptr, count: usize) -> Result<Vec<T>> {
        let mut values = memory::zeroed(count, "what comes from the device")?;
        self.driver.download(from, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }
}

/// Device memory, freed when dropped.
pub struct Memory {
    driver: Arc<dyn Driver>,
    /// Its address.
    pub ptr: Ptr,
}

impl Memory {
    /// No memory, at the null address: for launches that are only recorded.
    pub fn null(gpu: &Gpu) -> Self {
        Self { driver: gpu.driver.clone(), ptr: Ptr::NULL }
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        if self.ptr != Ptr::NULL {
            self.driver.free(self.ptr);
        }
    }
}

kernel_parameters! {
    /// What changes from step to step, in device memory.
    Step: 16 {
        /// Seed of this step's dropout masks.
        seed: u64,
        rate: f32,
        unused: u32,
    }
}

/// Launches in execution order, and their graph once it has been captured.
#[derive(Default)]
pub struct Program {
    /// The launches, in order.
    pub launches: Vec<Launch>,
    graph: Option<Box<dyn Graph>>,
}

impl Program {
    /// A program of these launches; starts nothing.
    ///
    /// # Errors
    /// A launch with more blocks or threads than there can be: a batch or a photo that is too large.
    pub fn new(launches: Vec<Launch>) -> Result<Self> {
        if let Some(launch) = launches.iter().find(|launch| launch.is_too_large()) {
            return Err(Error::device(launch.describe(), "more blocks than one launch can have"));
        }
        Ok(Self { launches, graph: None })
    }

    /// Starts all launches: individually the first time, as a graph from then on. With `WEFT_SYNC=1` always individually,
    /// waiting after each, so that an error names the launch that caused it.
    ///
    /// # Errors
    /// The first launch that fails, by name.
    pub fn run(&mut self, gpu: &Gpu) -> Result<()> {
        trace::count(|counts| counts.launches += self.launches.len() as u64);
        if synchronous() {
            return self.launches.iter().try_for_each(|launch| {
                log::info!("{}", launch.describe());
                gpu.driver.launch(launch)?;
                gpu.driver.synchronize().map_err(|e| e.within(launch.describe()))
            });
        }
        match &self.graph {
            Some(graph) => graph.launch(),
            None => {
                self.launches.iter().try_for_each(|launch| gpu.driver.launch(launch))?;
                self.graph = Some(gpu.driver.capture(&self.launches)?);
                Ok(())
            }
        }
    }
}

/// Whether `WEFT_SYNC` requests a wait after every launch.
fn synchronous() -> bool {
    std::env::var_os("WEFT_SYNC").is_some_and(|value| value != "0" && !value.is_empty())
}

/// Collects the launches of a pass; operations append to it.
pub struct Recorder<'a> {
    /// Where the launches will run.
    pub gpu: &'a Gpu,
    /// The launches, in order.
    pub launches: Vec<Launch>,
    label: Arc<str>,
}

impl<'a> Recorder<'a> {
    /// An empty recorder.
    pub fn new(gpu: &'a Gpu) -> Self {
        Self { gpu, launches: Vec::new(), label: Arc::from("") }
    }

    /// Sets the label of the launches that follow.
    pub fn label(&mut self, label: &str) {
        self.label = Arc::from(label);
    }

    /// Arithmetic of the device.
    pub fn precision(&self) -> Precision {
        self.gpu.precision
    }

    /// `name` with the suffix of kernels that read and write activations in the storage type.
    pub fn stored(&self, name: &str) -> String {
        format!("{name}_{}", self.precision().storage())
    }

    /// Adds a launch under the current label.
    pub fn launch(&mut self, launch: Launch) {
        self.launches.push(Launch { label: self.label.clone(), ..launch });
    }
}

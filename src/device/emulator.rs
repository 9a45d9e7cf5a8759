//! The driver that needs no GPU: the same kernels, compiled for the host, run thread by thread; or the PTX that nvcc made of
//! them, executed warp by warp and counted. With `checked`, every access is checked, and a finding is returned as the
//! launch's error.

use super::driver::{Attributes, Driver, Graph, Launch, Pinned, Properties, Ptr};
use crate::memory;
use crate::{Error, Result, trace};
use simt::ptx::Counted;
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read as _};
use std::ops::Range;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

mod kernels {
    simt::include_kernels!("kernels");
}

/// Names of all kernels that were compiled for the host.
#[cfg(feature = "cuda")]
pub(super) fn kernels() -> impl Iterator<Item = &'static str> {
    kernels::KERNELS.names()
}

/// How the emulator runs kernels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Options {
    /// Every access is checked, 10 to 50 times slower.
    pub checked: bool,
    /// Permutes the order of threads and blocks.
    pub seed: Option<u64>,
}

/// The emulator as a GPU.
///
/// ```
/// use std::sync::Arc;
/// use weft::device::{Device, Emulator, EmulatorOptions, Gpu, Precision};
///
/// // The kernels in bf16, with every access checked, threads in a seed-dependent order.
/// let emulator = Emulator::new(EmulatorOptions { checked: true, seed: Some(7) });
/// let gpu = Gpu { precision: Precision::Bf16, separate_buffers: true, ..Gpu::new(Arc::new(emulator)) };
/// assert!(Device::Gpu(gpu).is_emulated());
/// # Ok::<(), weft::Error>(())
/// ```
pub struct Emulator {
    shared: Arc<Shared>,
    properties: Properties,
}

struct Shared {
    options: Options,
    /// What is executed; none: the kernels compiled for the host.
    ptx: Option<&'static simt::Ptx>,
    /// What its kernels executed so far.
    executed: Mutex<BTreeMap<String, Counted>>,
    buffers: Mutex<HashMap<u64, simt::Buffer>>,
}

impl Emulator {
    /// An emulated device of compute capability 8.0.
    pub fn new(options: Options) -> Self {
        let name = if options.checked { "emulator (checked)" } else { "emulator" };
        Self::with(options, None, name.into(), [8, 0])
    }

    /// A device that executes the PTX that nvcc wrote for the highest architecture of this build.
    ///
    /// # Errors
    /// There is no GPU code in this build.
    pub fn of_ptx(options: Options) -> Result<Self> {
        if super::images::PTX.is_empty() {
            return Err(Error::device(
                "device simt:ptx",
                "this weft was built without GPU code (no nvcc, or WEFT_CUDA=off)",
            )
            .advise("install nvcc and build with WEFT_CUDA=require, or use the device simt"));
        }
        let arch = super::images::PTX_ARCHITECTURE;
        let number: u32 = arch.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().unwrap_or(80);
        let checked = if options.checked { ", checked" } else { "" };
        Ok(Self::with(
            options,
            Some(ptx()?),
            format!("emulator (PTX of sm_{arch}{checked})"),
            [number / 10, number % 10],
        ))
    }

    fn with(options: Options, ptx: Option<&'static simt::Ptx>, name: String, capability: [u32; 2]) -> Self {
        let properties = Properties {
            name,
            driver: String::new(),
            capability,
            multiprocessors: 4,
            shared_per_block: simt::MAX_SHARED_BYTES as u32,
            shared_per_multiprocessor: simt::MAX_SHARED_BYTES as u32 + 1024,
            threads_per_multiprocessor: 2048,
            memory: 0,
            peaks: None,
        };
        let shared = Shared { options, ptx, executed: Mutex::default(), buffers: Mutex::default() };
        Self { shared: Arc::new(shared), properties }
    }

    /// The counters of all launches so far, by kernel; none where the source is executed and not PTX.
    pub fn executed(&self) -> BTreeMap<String, Counted> {
        self.shared.executed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Shared {
    fn run(&self, launch: &Launch) -> Result<()> {
        let (how, arguments) = (self.how(launch), [simt::Arg::bytes(&launch.parameters)]);
        let result = match self.ptx {
            Some(ptx) => ptx.launch(&launch.kernel, &how, &arguments).map(|counted| {
                let mut executed = self.executed.lock().unwrap_or_else(PoisonError::into_inner);
                *executed.entry(launch.kernel.to_string()).or_default() += &counted;
            }),
            None => kernels::KERNELS.launch(&launch.kernel, &how, &arguments),
        };
        result.map_err(|e| Error::device(launch.describe(), e))
    }

    fn how(&self, launch: &Launch) -> simt::Launch {
        let mut how = simt::Launch::new(launch.grid, launch.block).shared(launch.shared as usize);
        if self.options.checked {
            how = how.checked();
        }
        if let Some(seed) = self.options.seed {
            how = how.seed(seed);
        }
        how
    }

    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        trace::uploaded(bytes.len());
        self.within(to, bytes.len(), |buffer, offset| buffer.write(offset, bytes))
    }

    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        trace::downloaded(bytes.len());
        self.within(from, bytes.len(), |buffer, offset| buffer.read(offset, bytes))
    }

    /// Calls `with` with the buffer that contains `[at, at + len)`, and the offset in it.
    fn within<T>(&self, at: Ptr, len: usize, with: impl FnOnce(&mut simt::Buffer, usize) -> T) -> Result<T> {
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        let holds =
            |(base, buffer): (&u64, &simt::Buffer)| at.0 >= *base && at.0 + len as u64 <= *base + buffer.len() as u64;
        let base = buffers.iter().find(|(base, buffer)| holds((base, buffer))).map(|(base, _)| *base);
        let found = base.and_then(|base| Some((base, buffers.get_mut(&base)?)));
        let (base, buffer) =
            found.ok_or_else(|| Error::device("emulator", format!("{len} bytes at {:#x} lie in no buffer", at.0)))?;
        Ok(with(buffer, (at.0 - base) as usize))
    }
}

impl Driver for Emulator {
    fn properties(&self) -> &Properties {
        &self.properties
    }

    fn free_memory(&self) -> Result<u64> {
        Ok(memory::available())
    }

    fn is_host(&self) -> bool {
        true
    }

    fn allocate(&self, bytes: usize) -> Result<Ptr> {
        memory::check("emulator", bytes as u128)?;
        let buffer = simt::Buffer::try_uninit(bytes)
            .ok_or_else(|| memory::refused("emulator", bytes as u128, memory::available()))?;
        let address = buffer.ptr().address();
        self.shared.buffers.lock().unwrap_or_else(PoisonError::into_inner).insert(address, buffer);
        Ok(Ptr(address))
    }

    fn free(&self, memory: Ptr) {
        self.shared.buffers.lock().unwrap_or_else(PoisonError::into_inner).remove(&memory.0);
    }

    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        self.shared.upload(to, bytes)
    }

    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        self.shared.download(from, bytes)
    }

    fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>> {
        Ok(Box::new(Plain { shared: self.shared.clone(), bytes: memory::zeroed(bytes, "host memory for copies")? }))
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        self.shared.run(launch)
    }

    fn synchronize(&self) -> Result<()> {
        Ok(())
    }

    fn capture(&self, launches: &[Launch]) -> Result<Box<dyn Graph>> {
        Ok(Box::new(Recording { shared: self.shared.clone(), launches: launches.to_vec() }))
    }

    fn time(&self, launches: &[Launch]) -> Result<Vec<f64>> {
        let timed = |launch: &Launch| {
            let start = Instant::now();
            self.launch(launch).map(|()| start.elapsed().as_secs_f64())
        };
        launches.iter().map(timed).collect()
    }

    /// What ptxas said when this weft was built; how many blocks fit depends on a card, which is not here.
    fn attributes(&self, launch: &Launch) -> Result<Option<Attributes>> {
        let known = || super::images::RESOURCES.iter().find(|(kernel, _)| *kernel == launch.kernel);
        let known = self.shared.ptx.and_then(|_| known());
        Ok(known.map(|&(_, [registers, static_shared, local])| Attributes {
            registers,
            static_shared,
            local,
            blocks_per_multiprocessor: 0,
        }))
    }

    fn count(&self, launch: &Launch, most_blocks: Option<u64>) -> Result<Option<Counted>> {
        let Some(ptx) = self.shared.ptx else { return Ok(None) };
        let (how, arguments) = (self.shared.how(launch), [simt::Arg::bytes(&launch.parameters)]);
        let counted = ptx.sample(&launch.kernel, &how, &arguments, most_blocks);
        counted.map(Some).map_err(|e| Error::device(launch.describe(), e))
    }

    fn with_multiprocessors(&self, count: u32) -> Option<Arc<dyn Driver>> {
        let properties = Properties { multiprocessors: count, ..self.properties.clone() };
        Some(Arc::new(Self { shared: self.shared.clone(), properties }))
    }

    fn kernels(&self) -> Vec<String> {
        match self.shared.ptx {
            Some(ptx) => ptx.names().map(str::to_string).collect(),
            None => kernels::KERNELS.names().map(str::to_string).collect(),
        }
    }
}

/// Host memory; copies have ended when they return.
struct Plain {
    shared: Arc<Shared>,
    bytes: Vec<u8>,
}

impl Pinned for Plain {
    fn bytes(&mut self) -> Result<&mut [u8]> {
        Ok(&mut self.bytes)
    }

    fn upload(&mut self, range: Range<usize>, to: Ptr) -> Result<()> {
        self.shared.upload(to, &self.bytes[range])
    }

    fn download(&mut self, from: Ptr, range: Range<usize>) -> Result<()> {
        self.shared.download(from, &mut self.bytes[range])
    }
}

/// The PTX in this binary, unpacked and read once.
fn ptx() -> Result<&'static simt::Ptx> {
    static READ: OnceLock<std::result::Result<simt::Ptx, String>> = OnceLock::new();
    let read = READ.get_or_init(|| {
        let unpack = |packed: &&[u8]| {
            let mut text = String::new();
            flate2::read::DeflateDecoder::new(*packed).read_to_string(&mut text).map(|_| text)
        };
        let texts = super::images::PTX.iter().map(unpack).collect::<io::Result<Vec<_>>>().map_err(|e| e.to_string())?;
        simt::Ptx::parse_all(texts.iter().map(String::as_str)).map_err(|e| e.to_string())
    });
    read.as_ref().map_err(|e| Error::device("device simt:ptx", e))
}

struct Recording {
    shared: Arc<Shared>,
    launches: Vec<Launch>,
}

impl Graph for Recording {
    fn launch(&self) -> Result<()> {
        self.launches.iter().try_for_each(|launch| self.shared.run(launch))
    }
}

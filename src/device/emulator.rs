//! The driver that needs no GPU: the same kernels, compiled for the host, run thread by thread. With `checked`, every
//! access is checked, and a finding is returned as the launch's error.

use super::driver::{Attributes, Driver, Graph, Launch, Pinned, Properties, Ptr};
use crate::memory;
use crate::{Error, Result, trace};
use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
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
    buffers: Mutex<HashMap<u64, simt::Buffer>>,
}

impl Emulator {
    /// An emulated device of compute capability 8.0.
    pub fn new(options: Options) -> Self {
        let properties = Properties {
            name: if options.checked { "emulator (checked)".into() } else { "emulator".into() },
            capability: [8, 0],
            multiprocessors: 4,
            shared_per_block: simt::MAX_SHARED_BYTES as u32,
            shared_per_multiprocessor: simt::MAX_SHARED_BYTES as u32 + 1024,
            threads_per_multiprocessor: 2048,
            memory: 0,
            peaks: None,
        };
        Self { shared: Arc::new(Shared { options, buffers: Mutex::default() }), properties }
    }
}

impl Shared {
    fn run(&self, launch: &Launch) -> Result<()> {
        let mut how = simt::Launch::new(launch.grid, launch.block).shared(launch.shared as usize);
        if self.options.checked {
            how = how.checked();
        }
        if let Some(seed) = self.options.seed {
            how = how.seed(seed);
        }
        kernels::KERNELS
            .launch(&launch.kernel, &how, &[simt::Arg::bytes(&launch.parameters)])
            .map_err(|e| Error::device(launch.describe(), e))
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

    fn attributes(&self, _launch: &Launch) -> Result<Option<Attributes>> {
        Ok(None)
    }

    fn kernels(&self) -> Vec<String> {
        kernels::KERNELS.names().map(str::to_string).collect()
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

struct Recording {
    shared: Arc<Shared>,
    launches: Vec<Launch>,
}

impl Graph for Recording {
    fn launch(&self) -> Result<()> {
        self.launches.iter().try_for_each(|launch| self.shared.run(launch))
    }
}

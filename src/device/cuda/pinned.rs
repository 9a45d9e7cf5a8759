//! Page-locked host memory with an event after its last copy.

use super::super::driver::{Pinned, Ptr};
use super::{Core, explain, size};
use crate::{Error, Result, trace};
use cudarc::driver::result::{self, DriverError, event};
use cudarc::driver::sys::{CUevent, CUevent_flags, CUresult, CUstream};
use std::ops::Range;
use std::ptr::NonNull;
use std::sync::Arc;

/// Pinned memory of a context.
pub struct HostMemory {
    core: Arc<Core>,
    memory: NonNull<u8>,
    len: usize,
    /// Recorded after each copy.
    event: CUevent,
    /// Whether a copy may not have ended.
    in_flight: bool,
}

// SAFETY: pinned memory and events belong to a context, not to a thread.
unsafe impl Send for HostMemory {}

impl HostMemory {
    pub fn new(core: Arc<Core>, bytes: usize) -> Result<Self> {
        core.bind()?;
        let len = bytes.max(1);
        let event = event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(|e| core.failed(e))?;
        // SAFETY: the context is bound; freed when dropped. Plain flags: the host reads it as fast as other memory.
        let pinned = unsafe { result::malloc_host(len, 0) };
        let none = DriverError(CUresult::CUDA_ERROR_OUT_OF_MEMORY);
        match pinned.and_then(|memory| NonNull::new(memory.cast::<u8>()).ok_or(none)) {
            Ok(memory) => {
                // SAFETY: `len` bytes that nothing else uses yet.
                unsafe { memory.as_ptr().write_bytes(0, len) };
                Ok(Self { core, memory, len: bytes, event, in_flight: false })
            }
            Err(e) => {
                // SAFETY: created above.
                let _ = unsafe { event::destroy(event) };
                Err(unpinned(&core, bytes, e))
            }
        }
    }

    /// Submits a copy and the event after it.
    fn copy(&mut self, start: impl FnOnce(&mut [u8], CUstream) -> Result<(), DriverError>) -> Result<()> {
        let core = self.core.clone();
        let _guard = core.lock()?;
        let stream = core.raw_stream();
        self.in_flight = true;
        // SAFETY: the memory lives as long as `self`, which waits for the event before it gives the bytes to anyone.
        let bytes = unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) };
        let started = start(bytes, stream);
        // SAFETY: an event and a stream of this context.
        if unsafe { event::record(self.event, stream) }.is_err() {
            // Without an event, only a wait tells when the copy has ended.
            core.wait()?;
            self.in_flight = false;
        }
        started.map_err(|e| core.failed(e))
    }
}

/// There is not as much pinned memory.
pub fn unpinned(core: &Core, bytes: usize, error: DriverError) -> Error {
    let what = format!("no {} of pinned host memory for copies: {}", size(bytes as u64), explain(error));
    Error::device(&core.place, what).advise("free some memory of the host")
}

impl Pinned for HostMemory {
    fn bytes(&mut self) -> Result<&mut [u8]> {
        if self.in_flight {
            self.core.bind()?;
            // SAFETY: an event of this context.
            unsafe { event::synchronize(self.event) }.map_err(|e| self.core.failed(e))?;
            self.in_flight = false;
        }
        // SAFETY: initialised, owned by `self`, and no copy is in flight.
        Ok(unsafe { std::slice::from_raw_parts_mut(self.memory.as_ptr(), self.len) })
    }

    fn upload(&mut self, range: Range<usize>, to: Ptr) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        trace::uploaded(range.len());
        // SAFETY: `to` has room, by the trait's contract; the memory outlives the copy, see `copy`.
        self.copy(|bytes, stream| unsafe { result::memcpy_htod_async(to.0, &bytes[range], stream) })
    }

    fn download(&mut self, from: Ptr, range: Range<usize>) -> Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        trace::downloaded(range.len());
        // SAFETY: `from` is in memory of `allocate`, by the trait's contract; the memory outlives the copy, see `copy`.
        self.copy(|bytes, stream| unsafe { result::memcpy_dtoh_async(&mut bytes[range], from.0, stream) })
    }
}

impl Drop for HostMemory {
    fn drop(&mut self) {
        if self.core.bind().is_ok() {
            // SAFETY: of this context; no copy uses the memory after the event.
            unsafe {
                if self.in_flight {
                    let _ = event::synchronize(self.event);
                }
                let _ = event::destroy(self.event);
                let _ = result::free_host(self.memory.as_ptr().cast());
            }
        }
    }
}

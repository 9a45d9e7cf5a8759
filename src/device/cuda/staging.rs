//! Uploads through pinned memory: bytes are copied into a ring buffer that the copy engine reads, so the caller's buffer can
//! be reused on return and the host does not wait for the GPU until the ring is full.

use super::UploadFault;
use cudarc::driver::result::{self, DriverError, event};
use cudarc::driver::sys::{CUevent, CUevent_flags, CUstream};
use std::collections::VecDeque;
use std::ops::Range;
use std::ptr::NonNull;

/// Bytes of the ring, and of its largest piece: four of those can be in flight at once.
const RING: usize = 32 << 20;
const PIECE: usize = RING / 4;

/// Pinned host memory; empty until the first upload.
#[derive(Default)]
pub struct Staging {
    ring: Option<NonNull<u8>>,
    head: usize,
    /// Pieces in flight, oldest first, with the event recorded after their copy.
    pieces: VecDeque<(Range<usize>, CUevent)>,
    /// Unused events.
    idle: Vec<CUevent>,
}

// SAFETY: pinned memory and events belong to a context, not to a thread.
unsafe impl Send for Staging {}

impl Staging {
    /// Copies `bytes` to device address `to` in the order of `stream`.
    ///
    /// # Safety
    /// The context is bound to this thread, `stream` belongs to it, and `to` has room.
    pub unsafe fn upload(&mut self, to: u64, bytes: &[u8], stream: CUstream) -> Result<(), UploadFault> {
        // SAFETY: by the caller's promise; a piece is written only when its last copy has ended.
        unsafe {
            for (index, piece) in bytes.chunks(PIECE).enumerate() {
                let (ring, range) = self.reserve(piece.len())?;
                let place = std::slice::from_raw_parts_mut(ring.as_ptr().add(range.start), piece.len());
                place.copy_from_slice(piece);
                result::memcpy_htod_async(to + (index * PIECE) as u64, place, stream).map_err(UploadFault::Copy)?;
                let event = match self.idle.pop() {
                    Some(event) => event,
                    None => event::create(CUevent_flags::CU_EVENT_DISABLE_TIMING).map_err(UploadFault::Copy)?,
                };
                if let Err(e) = event::record(event, stream) {
                    // Without an event, only a wait tells when the piece can be reused.
                    self.idle.push(event);
                    result::stream::synchronize(stream).map_err(UploadFault::Copy)?;
                    return Err(UploadFault::Copy(e));
                }
                self.pieces.push_back((range, event));
            }
        }
        Ok(())
    }

    /// A free range of the ring; waits for copies out of it.
    ///
    /// # Safety
    /// The context is bound to this thread.
    unsafe fn reserve(&mut self, len: usize) -> Result<(NonNull<u8>, Range<usize>), UploadFault> {
        let ring = match self.ring {
            Some(ring) => ring,
            None => {
                // SAFETY: pinned memory that `release` gives back.
                let pinned = unsafe { result::malloc_host(RING, 0) }.map_err(|e| UploadFault::Pin(RING, e))?;
                let failed = DriverError(cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY);
                *self.ring.insert(NonNull::new(pinned.cast()).ok_or(UploadFault::Pin(RING, failed))?)
            }
        };
        let start = if self.head + len <= RING { self.head } else { 0 };
        let range = start..start + len;
        let in_the_way = |(other, _): &(Range<usize>, CUevent)| other.start < range.end && range.start < other.end;
        while self.pieces.iter().any(in_the_way) {
            let Some((_, event)) = self.pieces.pop_front() else { break };
            self.idle.push(event);
            // SAFETY: an event of this context.
            unsafe { event::synchronize(event) }.map_err(UploadFault::Copy)?;
        }
        self.head = range.end.next_multiple_of(64);
        Ok((ring, range))
    }

    /// Frees everything.
    ///
    /// # Safety
    /// The context is bound to this thread, and nothing is in flight.
    pub unsafe fn release(&mut self) {
        let events = self.idle.drain(..).chain(self.pieces.drain(..).map(|(_, event)| event));
        for event in events {
            // SAFETY: created by `upload`, not used anywhere else.
            let _ = unsafe { event::destroy(event) };
        }
        if let Some(ring) = self.ring.take() {
            // SAFETY: allocated by `reserve`.
            let _ = unsafe { result::free_host(ring.as_ptr().cast()) };
        }
    }
}

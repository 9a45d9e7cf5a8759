//! The state spaces: addresses are checked here, and become pointers of the host.

use super::decode::{LOCAL_WINDOW, PARAMETER_WINDOW, SHARED_WINDOW, Space, WINDOWS};
use super::warp::{WARP, lanes};
use crate::check::{Access, Checker};
use crate::finding::{Kind, Problem};
use crate::memory::{Allocation, POISON, find};
use std::sync::Arc;

/// A problem, and the lane that has it.
pub(super) type Fault = (usize, Box<Problem>);

/// Where a bug was found: the instruction, the thread of the block, and what it is.
pub(super) struct Bug {
    pub pc: u32,
    pub thread: u32,
    pub problem: Box<Problem>,
}

/// What a warp asks for in one instruction.
pub(super) struct Request<'r> {
    pub space: Space,
    pub addresses: &'r [u64; WARP],
    /// Bytes of each lane.
    pub size: usize,
    pub mask: u32,
    pub access: Access,
    /// Index of lane 0 in the block.
    pub first_thread: u32,
}

/// What the instructions of a block reach.
pub(super) struct Memory<'a> {
    buffers: &'a [Arc<Allocation>],
    /// Index of the buffer that was used last.
    recent: usize,
    shared: Box<[u128]>,
    shared_len: usize,
    parameters: &'a [u8],
    /// Of the warp that runs: `local_len` bytes for each lane, one after the other.
    pub local: Vec<u8>,
    pub local_len: usize,
    pub checker: Option<Checker>,
    /// A read of shared memory that nothing has been written to, while a race that explains it may still be found.
    pub suspicion: Option<Bug>,
    /// The instruction that accesses, for the suspicion.
    pub pc: u32,
}

impl<'a> Memory<'a> {
    pub fn new(buffers: &'a [Arc<Allocation>], parameters: &'a [u8], shared_len: usize, local_len: usize) -> Self {
        Memory {
            buffers,
            recent: 0,
            shared: vec![0; shared_len.div_ceil(16)].into(),
            shared_len,
            parameters,
            local: Vec::new(),
            local_len,
            checker: None,
            suspicion: None,
            pc: 0,
        }
    }

    /// Addresses of the shared memory on the host.
    pub fn shared_range(&self) -> std::ops::Range<usize> {
        let start = self.shared.as_ptr() as usize;
        start..start + self.shared_len
    }

    /// Fills the shared memory with NaN, so that reading it too early shows.
    pub fn begin_block(&mut self) {
        let word = u128::from_le_bytes(poison());
        self.shared.fill(word);
        self.suspicion = None;
    }

    /// A pointer for each lane of a request, checked for bounds and alignment, and by the checker where there is one.
    #[inline(always)]
    pub fn pointers(&mut self, request: &Request<'_>) -> Result<[*mut u8; WARP], Fault> {
        let &Request { space, addresses, size, mask, .. } = request;
        if self.checker.is_none() {
            // Lanes that are not active get the address of one that is.
            let some = addresses[mask.trailing_zeros() as usize % WARP];
            let mut active = [some; WARP];
            for (lane, active) in active.iter_mut().enumerate() {
                *active = if mask >> lane & 1 != 0 { addresses[lane] } else { some };
            }
            let (mut low, mut high, mut bits) = (u64::MAX, 0, 0);
            for address in active {
                low = low.min(address);
                high = high.max(address);
                bits |= address;
            }
            if bits & (size as u64 - 1) == 0 {
                let room = match space {
                    Space::Global => self.buffer(low).map(|buffer| (0, buffer.base as u64, buffer.len)),
                    Space::Shared => Some((self.shared.as_mut_ptr() as u64, 0, self.shared_len)),
                    _ => None,
                };
                if let Some((shift, base, len)) = room
                    && low >= base
                    && high - base <= (len as u64).wrapping_sub(size as u64)
                    && size <= len
                {
                    let mut pointers = [std::ptr::null_mut(); WARP];
                    for (pointer, address) in pointers.iter_mut().zip(active) {
                        *pointer = (address + shift) as *mut u8;
                    }
                    return Ok(pointers);
                }
            }
        }
        self.each(request)
    }

    #[inline(never)]
    fn each(&mut self, request: &Request<'_>) -> Result<[*mut u8; WARP], Fault> {
        let mut pointers = [std::ptr::null_mut(); WARP];
        for lane in lanes(request.mask) {
            match self.pointer(request, lane) {
                Ok(pointer) => pointers[lane] = pointer,
                // A race may explain it; go on until one is found, or the block has ended.
                Err((problem, pointer)) if problem.kind == Kind::UninitialisedShared && !pointer.is_null() => {
                    pointers[lane] = pointer;
                    let (pc, thread) = (self.pc, request.first_thread + lane as u32);
                    self.suspicion.get_or_insert(Bug { pc, thread, problem });
                }
                Err((problem, _)) => return Err((lane, problem)),
            }
        }
        Ok(pointers)
    }

    /// The access of one lane. An error has the pointer, too, if the access itself is possible.
    fn pointer(&mut self, request: &Request<'_>, lane: usize) -> Result<*mut u8, (Box<Problem>, *mut u8)> {
        let &Request { space, size, access, .. } = request;
        let address = request.addresses[lane];
        let (space, address) = match (space, address & WINDOWS) {
            (Space::Generic, 0) => (Space::Global, address),
            (Space::Generic, SHARED_WINDOW) => (Space::Shared, address & !WINDOWS),
            (Space::Generic, LOCAL_WINDOW) => (Space::Local, address & !WINDOWS),
            (Space::Generic, PARAMETER_WINDOW) => (Space::Parameter, address & !WINDOWS),
            _ => (space, address),
        };
        let none = std::ptr::null_mut();
        if address % size as u64 != 0 {
            let detail = format!("{access:?} of {size} bytes at {address:#x} of {space:?} memory");
            return Err((Problem::new(Kind::Misaligned, detail), none));
        }
        let inside = |len: usize| address.checked_add(size as u64).is_some_and(|end| end <= len as u64);
        let beyond = |kind, len: usize, what: &str| {
            let detail = format!("{access:?} of {size} bytes at offset {} of {len} bytes of {what}", address as i64);
            Err((Problem::new(kind, detail), none))
        };
        let pointer = match space {
            Space::Global | Space::Generic => {
                let fits = self
                    .buffer(address)
                    .is_some_and(|b| address - b.base as u64 <= (b.len - size.min(b.len)) as u64 && size <= b.len);
                if !fits && self.checker.is_none() {
                    return Err((self.out_of_bounds(address, size, access), none));
                }
                address as *mut u8
            }
            Space::Shared if inside(self.shared_len) => (self.shared.as_mut_ptr() as u64 + address) as *mut u8,
            Space::Shared => return beyond(Kind::SharedOutOfBounds, self.shared_len, "shared memory"),
            // No other thread reaches local memory, so nobody asks for atomics; it is not aligned for them here.
            Space::Local if inside(self.local_len) && access != Access::Atomic => {
                let at = lane * self.local_len + address as usize;
                return Ok(self.local[at..].as_mut_ptr());
            }
            Space::Local => return beyond(Kind::IndexOutOfBounds, self.local_len, "a thread's local memory"),
            Space::Parameter if inside(self.parameters.len()) && access == Access::Read => {
                return Ok(self.parameters[address as usize..].as_ptr().cast_mut());
            }
            Space::Parameter => {
                return beyond(Kind::IndexOutOfBounds, self.parameters.len(), "parameters");
            }
        };
        match &mut self.checker {
            Some(checker) => checker
                .access(request.first_thread + lane as u32, pointer as usize, size, access)
                .map_err(|p| (p, pointer))
                .map(|()| pointer),
            None => Ok(pointer),
        }
    }

    #[inline(always)]
    fn buffer(&mut self, address: u64) -> Option<&Allocation> {
        if !self.buffers.get(self.recent).is_some_and(|buffer| buffer.contains(address as usize)) {
            self.recent = find(self.buffers, address as usize)?;
        }
        self.buffers.get(self.recent).map(|buffer| &**buffer)
    }

    #[cold]
    fn out_of_bounds(&self, address: u64, size: usize, access: Access) -> Box<Problem> {
        crate::check::out_of_bounds(self.buffers, address as usize, size, access)
    }
}

/// NaN in every format.
pub(super) fn poison<const N: usize>() -> [u8; N] {
    std::array::from_fn(|index| POISON.to_le_bytes()[index % 2])
}

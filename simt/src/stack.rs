//! Stacks for a worker's coroutines, all in one slab.
//!
//! There is one mapping per worker, whatever the block size, because the operating system limits the number of mappings.
//! That leaves no room for guard pages, so the low end of every stack is a canary that is checked after each launch,
//! stack frames over 24 KiB are rejected when a kernel is compiled, and the checked variant measures the depth at each call.

use corosensei::stack::{Stack, StackPointer};
use std::ptr::null_mut;

/// Distance between stacks in bytes. Not a power of two: equal offsets in all stacks would map to one cache set.
const STRIDE: usize = (64 << 10) + 832;
/// A page, so that only a frame larger than that can step over it.
const CANARY: [u64; 512] = [0x5e5a_c0de_dead_beef; 512];
/// Room below the first stack, so that overflowing it is as harmless as overflowing into another stack.
const SPARE: usize = 4 * STRIDE;
/// The checked variant requires this much free space on entry to a function.
const RESERVE: usize = 8 << 10;

/// The memory of `count` stacks; unmapped on drop.
pub(crate) struct Slab {
    base: usize,
    length: usize,
}

/// One stack of a slab. Valid as long as the slab is.
#[derive(Clone, Copy)]
pub(crate) struct Slot {
    low: usize,
}

impl Slab {
    /// Address space only: pages are allocated when first touched.
    pub fn new(count: usize) -> std::io::Result<Slab> {
        let length = SPARE + count * STRIDE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
        // SAFETY: an anonymous mapping at an address chosen by the system.
        let base = unsafe { libc::mmap(null_mut(), length, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        Ok(Slab { base: base as usize, length })
    }

    /// The `index`th stack, with a fresh canary.
    pub fn slot(&self, index: usize) -> Slot {
        let low = self.low(index);
        debug_assert!(low + STRIDE <= self.base + self.length);
        // SAFETY: the low end of a stack of this slab; nothing runs on it while the worker creates a coroutine.
        unsafe { (low as *mut [u64; CANARY.len()]).write(CANARY) };
        Slot { low }
    }

    pub fn canary_intact(&self, index: usize) -> bool {
        // SAFETY: inside the slab, and no coroutine runs while the worker reads it.
        unsafe { *(self.low(index) as *const [u64; CANARY.len()]) == CANARY }
    }

    fn low(&self, index: usize) -> usize {
        self.base + SPARE + index * STRIDE
    }

    pub fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base) < self.length
    }

    /// Whether a frame at `address` is too close to the end of its stack.
    pub fn nearly_full(&self, address: usize) -> bool {
        self.contains(address) && (address - self.base) % STRIDE < size_of_val(&CANARY) + RESERVE
    }
}

impl Drop for Slab {
    fn drop(&mut self) {
        // SAFETY: our own mapping; the worker has dropped its coroutines first.
        unsafe { libc::munmap(self.base as *mut _, self.length) };
    }
}

// SAFETY: base and limit bound writable memory that no other coroutine uses, aligned to 16 as STRIDE is.
unsafe impl Stack for Slot {
    fn base(&self) -> StackPointer {
        StackPointer::new(self.low + STRIDE).expect("mappings are not at address 0")
    }
    fn limit(&self) -> StackPointer {
        StackPointer::new(self.low + size_of_val(&CANARY)).expect("mappings are not at address 0")
    }
}

//! Device memory: host allocations with guard bands, registered with the launcher.
//!
//! Memory that has never been written contains [`POISON`], and so does the space around each buffer. It reads as NaN in every
//! float format, a changed guard band reveals a stray write even in the fast variant, and the checked variant keeps one
//! shadow word per byte that records which block wrote it.

use bytemuck::{AnyBitPattern, NoUninit};
use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};

/// Fills fresh memory and guard bands: NaN as f16, bf16, f32 and f64.
pub const POISON: u16 = 0xfff7;
/// Guard bytes on either side of a buffer.
const GUARD: usize = 256;
/// Buffers are aligned to this, as those of `cuMemAlloc` are.
const ALIGN: usize = 256;

static LIVE: RwLock<BTreeMap<usize, Arc<Allocation>>> = RwLock::new(BTreeMap::new());

/// The launcher's record of a buffer.
pub(crate) struct Allocation {
    pub base: usize,
    pub len: usize,
    /// Everything counts as written: after a host copy, or a fast launch, which does not track its writes.
    initialised: AtomicBool,
    /// Per byte: 0 never written, 1 written by the host, else the number of the block that wrote it. Allocated on demand.
    shadow: OnceLock<Box<[AtomicU32]>>,
}

impl Allocation {
    pub fn contains(&self, address: usize) -> bool {
        address.wrapping_sub(self.base) < self.len
    }

    pub fn initialised(&self) -> bool {
        self.initialised.load(Relaxed)
    }

    pub fn shadow(&self) -> &[AtomicU32] {
        // A zeroed allocation: its pages are allocated when first touched.
        self.shadow.get_or_init(|| {
            let words = bytemuck::zeroed_slice_box::<u32>(self.len);
            // SAFETY: AtomicU32 has the layout of u32.
            unsafe { Box::from_raw(Box::into_raw(words) as *mut [AtomicU32]) }
        })
    }

    pub fn mark_written(&self, range: Range<usize>) {
        if range == (0..self.len) {
            self.initialised.store(true, Relaxed);
        } else if !self.initialised() {
            self.shadow()[range].iter().for_each(|word| word.store(1, Relaxed));
        }
    }

    fn guards(&self) -> impl Iterator<Item = *mut u8> {
        let end = self.base + self.len;
        (self.base - GUARD..self.base).chain(end..end + GUARD).map(|address| address as *mut u8)
    }

    /// Whether the guard bands are intact; if not, the offset of the first changed byte from the buffer's start.
    pub fn guards_intact(&self) -> Result<(), isize> {
        // SAFETY: guard bands are part of the allocation, which lives as long as its buffer.
        let changed = self.guards().find(|byte| unsafe { byte.read() } != poison_at(*byte as usize));
        changed.map_or(Ok(()), |byte| Err(byte as isize - self.base as isize))
    }

    pub fn restore_guards(&self) {
        // SAFETY: as above; only faulty kernels write here.
        self.guards().for_each(|byte| unsafe { byte.write(poison_at(byte as usize)) });
    }
}

fn poison_at(address: usize) -> u8 {
    POISON.to_le_bytes()[address % 2]
}

/// All live buffers, by address.
pub(crate) fn live() -> Vec<Arc<Allocation>> {
    LIVE.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
}

/// The buffer that contains `address`, in a list ordered by address.
pub(crate) fn find(buffers: &[Arc<Allocation>], address: usize) -> Option<usize> {
    let index = buffers.partition_point(|buffer| buffer.base <= address).checked_sub(1)?;
    buffers[index].contains(address).then_some(index)
}

/// A device address, for use as a pointer argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct DevicePtr(pub(crate) u64);

impl DevicePtr {
    /// The null pointer.
    pub const NULL: DevicePtr = DevicePtr(0);

    /// The address as a number, for a parameter structure passed by value.
    pub fn address(self) -> u64 {
        self.0
    }

    /// The address `bytes` further on.
    pub fn offset(self, bytes: usize) -> DevicePtr {
        DevicePtr(self.0.wrapping_add(bytes as u64))
    }
}

/// A buffer in device memory. When dropped it is freed, and later launches reject its address.
pub struct Buffer {
    /// Guard, bytes, guard. Kept as a pointer: kernels write through addresses derived from it.
    raw: *mut [u16],
    allocation: Arc<Allocation>,
}

// SAFETY: the buffer owns its memory. It is not Sync: a kernel may write it while another thread reads it.
unsafe impl Send for Buffer {}

impl Buffer {
    /// `bytes` uninitialised bytes. Panics if out of memory, see [`Buffer::try_uninit`].
    pub fn uninit(bytes: usize) -> Buffer {
        Buffer::try_uninit(bytes).unwrap_or_else(|| panic!("no memory for {bytes} bytes"))
    }

    /// The same; `None` if out of memory.
    pub fn try_uninit(bytes: usize) -> Option<Buffer> {
        let words = bytes.checked_add(2 * GUARD + ALIGN)?.div_ceil(2);
        let mut poison = Vec::new();
        poison.try_reserve_exact(words).ok()?;
        poison.resize(words, POISON);
        let raw = Box::into_raw(poison.into_boxed_slice());
        let base = (raw as *mut u16 as usize + GUARD).next_multiple_of(ALIGN);
        let (initialised, shadow) = (AtomicBool::new(bytes == 0), OnceLock::new());
        let allocation = Arc::new(Allocation { base, len: bytes, initialised, shadow });
        LIVE.write().unwrap_or_else(PoisonError::into_inner).insert(base, allocation.clone());
        Some(Buffer { raw, allocation })
    }

    /// A buffer with a copy of `values`.
    pub fn from_slice<T: NoUninit>(values: &[T]) -> Buffer {
        let mut buffer = Buffer::uninit(size_of_val(values));
        buffer.write(0, values);
        buffer
    }

    /// Size in bytes.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.allocation.len
    }

    /// The address of the first byte.
    pub fn ptr(&self) -> DevicePtr {
        DevicePtr(self.allocation.base as u64)
    }

    /// Copies `values` to byte `offset`. Panics if they do not fit.
    pub fn write<T: NoUninit>(&mut self, offset: usize, values: &[T]) {
        let bytes: &[u8] = bytemuck::cast_slice(values);
        let end = offset.checked_add(bytes.len()).filter(|end| *end <= self.len());
        let end = end.unwrap_or_else(|| panic!("{} bytes at {offset} of a {}-byte buffer", bytes.len(), self.len()));
        // SAFETY: the range is inside the allocation, and `&mut self` with blocking launches means that no kernel uses it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start().add(offset), bytes.len()) };
        self.allocation.mark_written(offset..end);
    }

    /// Copies out `out.len()` values from byte `offset`. Panics if the buffer is too short.
    pub fn read<T: NoUninit + AnyBitPattern>(&self, offset: usize, out: &mut [T]) {
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(out);
        let fits = offset.checked_add(bytes.len()).is_some_and(|end| end <= self.len());
        assert!(fits, "{} bytes at {offset} of a {}-byte buffer", bytes.len(), self.len());
        // SAFETY: as in `write`.
        unsafe { std::ptr::copy_nonoverlapping(self.start().add(offset), bytes.as_mut_ptr(), bytes.len()) };
    }

    /// The whole buffer as values; an incomplete last value is dropped.
    pub fn to_vec<T: NoUninit + AnyBitPattern>(&self) -> Vec<T> {
        let mut values = vec![T::zeroed(); self.len().checked_div(size_of::<T>()).unwrap_or_default()];
        self.read(0, &mut values);
        values
    }

    /// Whether the guard bands are intact; launches check this as well.
    pub fn guards_intact(&self) -> bool {
        self.allocation.guards_intact().is_ok()
    }

    /// Address of the stored device address: the element of an argument array.
    pub(crate) fn address_cell(&self) -> *const usize {
        &raw const self.allocation.base
    }

    fn start(&self) -> *mut u8 {
        let raw = self.raw as *mut u8;
        raw.wrapping_add(self.allocation.base - raw as usize)
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        LIVE.write().unwrap_or_else(PoisonError::into_inner).remove(&self.allocation.base);
        // SAFETY: from Box::into_raw in `uninit`. A launch borrows its buffers, so none is using this one.
        drop(unsafe { Box::from_raw(self.raw) });
    }
}

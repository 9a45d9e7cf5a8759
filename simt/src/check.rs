//! The checked variant's shadow memory: what each access touches, and whether it is allowed.
//!
//! Time is a counter that barriers and `__syncwarp` advance. A shared byte records its latest writers and readers and the
//! time; two accesses are ordered if there is a barrier between them, or a `__syncwarp` in which both lanes took part.
//! A global byte records only the block that wrote it: races on global memory within a block are not detected.

use crate::finding::{Kind, Problem};
use crate::launch::Launch;
use crate::memory::{Allocation, find};
use bytemuck::Zeroable;
use std::ops::Range;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

/// Shadow words of global memory: 0 never written, 1 written by the host, from here on the marks of blocks.
pub(crate) const FIRST_MARK: u32 = 2;
const HOST_MARK: u32 = 1;
const WARP: usize = 32;
/// Instead of a warp index: lanes of several warps.
const SEVERAL: u16 = u16::MAX;
/// The shadow is cleared before the clock overflows.
const LATE: u32 = u32::MAX / 2;

type Checked = Result<(), Box<Problem>>;

#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) enum Access {
    Read,
    Write,
    /// An atomic read-modify-write.
    Atomic,
}

/// Memory regions of this process, for this thread.
pub(crate) struct MemoryMap {
    /// The thread-local segment: `__shared__` arrays.
    statics: Range<usize>,
    /// The executable's code and data: `__constant__` and `__device__` variables, literals.
    image: Range<usize>,
    context: Range<usize>,
}

// SAFETY: as in runtime.cpp, which build.rs compiles.
unsafe extern "C" {
    fn simt_memory_map(out: *mut [usize; 4]);
}

impl MemoryMap {
    /// For a kernel whose memory is not that of this process: all of its shared memory is dynamic.
    pub fn none() -> MemoryMap {
        MemoryMap { statics: 0..0, image: 0..0, context: 0..0 }
    }

    pub fn of_this_thread(context: usize, context_size: usize) -> MemoryMap {
        let [statics, size, start, end] = memory_map();
        MemoryMap { statics: statics..statics + size, image: start..end, context: context..context + context_size }
    }
}

fn memory_map() -> [usize; 4] {
    let mut out = [0; 4];
    // SAFETY: writes the four numbers.
    unsafe { simt_memory_map(&mut out) };
    out
}

/// The size of the executable's thread-local segment, which consists almost entirely of `__shared__` arrays.
pub(crate) fn static_shared_bytes() -> usize {
    static BYTES: OnceLock<usize> = OnceLock::new();
    *BYTES.get_or_init(|| memory_map()[1])
}

/// The latest writers or readers of a byte: lanes of one warp, or of several.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
struct Users {
    time: u32,
    lanes: u32,
    warp: u16,
    how: u16,
}
/// Values of `Users::how`.
const PLAIN: u16 = 0;
const ATOMIC: u16 = 1;
const COPYING: u16 = 2; // a cp.async that has not been waited for

/// One byte of shared memory.
#[derive(Clone, Copy, Zeroable)]
#[repr(C)]
struct Byte {
    write: Users,
    read: Users,
}

/// Ordering known to one lane within its warp: for each other lane, the time of the latest `__syncwarp` with it, directly or
/// transitively.
#[derive(Clone, Copy)]
struct Knows {
    since: [u32; WARP],
    /// The minimum and maximum of `since`, which decide most cases without the array.
    oldest: u32,
    newest: u32,
}

struct Clock {
    now: u32,
    block_start: u32,
    barrier: u32,
    lanes: Vec<Knows>,
}

/// The thread that makes an access.
#[derive(Clone, Copy)]
struct Me {
    index: usize,
    warp: u16,
    bit: u32,
}

impl Me {
    fn new(index: u32) -> Me {
        Me { index: index as usize, warp: (index as usize / WARP) as u16, bit: 1 << (index as usize % WARP) }
    }
}

impl Clock {
    /// The lanes of `users` that are not ordered before `me`; 0 if there are none.
    #[inline]
    fn unordered(&self, users: &Users, me: Me) -> u32 {
        if users.time < self.barrier {
            return 0;
        }
        if users.warp != me.warp {
            return users.lanes;
        }
        let others = users.lanes & !me.bit;
        let knows = &self.lanes[me.index];
        if others == 0 || users.time < knows.oldest {
            return 0;
        }
        if users.time >= knows.newest {
            return others;
        }
        let late = |lane: &usize| others >> lane & 1 == 1 && users.time >= knows.since[*lane];
        (0..WARP).filter(late).fold(0, |lanes, lane| lanes | 1 << lane)
    }

    /// `users` after adding `me`: lanes that are ordered before `me` need not be kept.
    #[inline]
    fn join(&self, users: &Users, me: Me, how: u16) -> Users {
        let others = self.unordered(users, me);
        let warp = if others == 0 || users.warp == me.warp { me.warp } else { SEVERAL };
        Users { time: self.now, lanes: others | me.bit, warp, how }
    }

    #[inline]
    fn read(&self, byte: &mut Byte, me: Me) -> Result<(), (Kind, Users)> {
        let write = byte.write;
        if write.time < self.block_start {
            byte.read = self.join(&byte.read, me, PLAIN); // a write from now on is in a race with this read
            return Err((Kind::UninitialisedShared, write));
        }
        if write.how == COPYING {
            return Err((Kind::AsyncCopyPending, write));
        }
        if self.unordered(&write, me) != 0 {
            return Err((Kind::SharedRace, write));
        }
        byte.read = self.join(&byte.read, me, PLAIN);
        Ok(())
    }

    #[inline]
    fn write(&self, byte: &mut Byte, me: Me, how: u16) -> Result<(), (Kind, Users)> {
        let write = byte.write;
        let fresh = write.time < self.block_start;
        if how == ATOMIC && fresh {
            return Err((Kind::UninitialisedShared, write));
        }
        if write.how == COPYING && !fresh {
            return Err((Kind::AsyncCopyPending, write));
        }
        let both_atomic = how == ATOMIC && write.how == ATOMIC;
        if !both_atomic && self.unordered(&write, me) != 0 {
            return Err((Kind::SharedRace, write));
        }
        if self.unordered(&byte.read, me) != 0 {
            return Err((Kind::SharedRace, byte.read));
        }
        // An atomic of the thread that has just written plainly must not hide that write from the other threads.
        let news = write.time >= self.barrier.max(self.lanes[me.index].oldest);
        if how == ATOMIC && write.how == PLAIN && news {
            return Ok(());
        }
        let alone = Users { time: self.now, lanes: me.bit, warp: me.warp, how };
        byte.write = if both_atomic { self.join(&write, me, how) } else { alone };
        Ok(())
    }

    fn describe(&self, kind: Kind, users: Users, access: Access, me: Me, space: &str, offset: usize) -> Box<Problem> {
        let what = format!("{access:?} of byte {offset} of {space} shared memory");
        let detail = match kind {
            Kind::UninitialisedShared => format!("{what}, which no thread of the block has written"),
            Kind::AsyncCopyPending => format!("{what}, into which a cp.async may still be writing"),
            _ => {
                let lane = (self.unordered(&users, me) | 1 << 31).trailing_zeros();
                let (who, barrier) = match users.warp {
                    SEVERAL => ("several threads".to_owned(), "__syncthreads"),
                    warp if warp == me.warp => (format!("thread {}", u32::from(warp) * 32 + lane), "__syncwarp"),
                    warp => (format!("thread {}", u32::from(warp) * 32 + lane), "__syncthreads"),
                };
                format!("{what}, which {who} used too with no {barrier} between")
            }
        };
        Problem::new(kind, detail)
    }
}

/// One of the two kinds of shared memory, with the shadow of each of its bytes.
struct Space {
    name: &'static str,
    valid: Range<usize>,
    /// Addresses that can only refer to this space.
    reserved: Range<usize>,
    bytes: Box<[Byte]>,
}

impl Space {
    fn new(name: &'static str, valid: Range<usize>) -> Space {
        Space { name, reserved: valid.clone(), valid, bytes: Box::default() }
    }

    fn make_room(&mut self) {
        if self.bytes.len() < self.valid.len() {
            self.bytes = bytemuck::zeroed_slice_box(self.valid.len());
        }
    }

    /// The offset of `address`, if all of its `size` bytes are inside.
    #[inline]
    fn at(&mut self, address: usize, size: usize) -> Option<(usize, &mut [Byte])> {
        let offset = address.checked_sub(self.valid.start)?;
        let inside = offset <= self.valid.len() && size <= self.valid.len() - offset;
        inside.then(|| (offset, &mut self.bytes[offset..offset + size]))
    }
}

/// What a launch may access, and the marks of its blocks.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'a> {
    pub launch: &'a Launch,
    pub buffers: &'a [Arc<Allocation>],
    pub first_mark: u32,
}

/// Shadow memory and clock of the block that runs on this worker.
pub(crate) struct Checker {
    statics: Space,
    dynamic: Space,
    image: Range<usize>,
    context: Range<usize>,
    clock: Clock,
    buffers: Vec<Arc<Allocation>>,
    /// Index of the most recently used buffer.
    recent: usize,
    marks: Range<u32>,
    mark: u32,
    /// The block has called `__threadfence`: it is trusted to order its accesses to other blocks' data.
    fenced: bool,
}

impl Checker {
    pub fn new(map: MemoryMap) -> Checker {
        Checker {
            statics: Space::new("static", map.statics),
            dynamic: Space::new("dynamic", 0..0),
            image: map.image,
            context: map.context,
            clock: Clock { now: 1, block_start: 1, barrier: 1, lanes: Vec::new() },
            buffers: Vec::new(),
            recent: 0,
            marks: 0..0,
            mark: 0,
            fenced: false,
        }
    }

    pub fn begin_launch(&mut self, scope: Scope<'_>, dynamic: Range<usize>, reserved: Range<usize>) {
        (self.dynamic.valid, self.dynamic.reserved) = (dynamic, reserved);
        self.statics.make_room();
        self.dynamic.make_room();
        self.buffers.clear();
        self.buffers.extend_from_slice(scope.buffers);
        self.recent = 0;
        self.marks = scope.first_mark..scope.first_mark + scope.launch.block_count() as u32;
        let threads: u32 = scope.launch.block.0.iter().product();
        self.clock.lanes = vec![Knows { since: [0; WARP], oldest: 0, newest: 0 }; threads as usize];
    }

    pub fn begin_block(&mut self, index: usize) {
        if self.clock.now > LATE {
            self.statics.bytes.fill(Byte::zeroed());
            self.dynamic.bytes.fill(Byte::zeroed());
            self.clock.now = 0;
            self.clock.lanes.fill(Knows { since: [0; WARP], oldest: 0, newest: 0 });
        }
        self.clock.now += 1;
        self.clock.block_start = self.clock.now;
        self.clock.barrier = self.clock.now;
        self.mark = self.marks.start + index as u32;
        self.fenced = false;
    }

    pub fn end_launch(&mut self) {
        self.buffers.clear();
    }

    pub fn barrier(&mut self) {
        self.clock.now += 1;
        self.clock.barrier = self.clock.now;
    }

    pub fn fence(&mut self) {
        self.fenced = true;
    }

    /// `__syncwarp(mask)`: each lane of the mask gets the union of the ordering known to all of them.
    pub fn sync_warp(&mut self, warp: usize, mask: u32) {
        self.clock.now += 1;
        let end = self.clock.lanes.len().min((warp + 1) * WARP);
        let lanes = &mut self.clock.lanes[warp * WARP..end];
        let in_mask = |index: &usize| mask >> index & 1 == 1;
        let mut since = [0; WARP];
        for index in (0..lanes.len()).filter(in_mask) {
            for (joined, known) in since.iter_mut().zip(&lanes[index].since) {
                *joined = (*joined).max(*known);
            }
        }
        (0..lanes.len()).filter(in_mask).for_each(|index| since[index] = self.clock.now);
        let existing = &since[..lanes.len()];
        let oldest = existing.iter().copied().min().unwrap_or_default();
        let newest = existing.iter().copied().max().unwrap_or_default();
        (0..lanes.len()).filter(in_mask).for_each(|index| lanes[index] = Knows { since, oldest, newest });
    }

    /// Checks an access of thread `lane` and records it.
    #[inline]
    pub fn access(&mut self, lane: u32, address: usize, size: usize, access: Access) -> Checked {
        if self.context.contains(&address) {
            return Ok(()); // threadIdx and similar
        }
        match self.space(address) {
            Some(_) => self.access_shared(lane, address, size, access),
            None => self.global(address, size, access),
        }
    }

    #[inline]
    fn space(&mut self, address: usize) -> Option<&mut Space> {
        [&mut self.statics, &mut self.dynamic].into_iter().find(|space| space.reserved.contains(&address))
    }

    /// As `access`, for an address that must be in shared memory.
    pub fn access_shared(&mut self, lane: u32, address: usize, size: usize, access: Access) -> Checked {
        let (me, clock) = (Me::new(lane), &self.clock);
        let spaces = [&mut self.statics, &mut self.dynamic];
        let Some(space) = spaces.into_iter().find(|space| space.reserved.contains(&address)) else {
            let detail = format!("{access:?} of {size} bytes at {address:#x}, which is not shared memory");
            return Err(Problem::new(Kind::SharedOutOfBounds, detail));
        };
        let (name, start, length) = (space.name, space.valid.start, space.valid.len());
        let Some((offset, bytes)) = space.at(address, size) else {
            let offset = address as isize - start as isize;
            let detail =
                format!("{access:?} of {size} bytes at offset {offset} of {length} bytes of {name} shared memory");
            return Err(Problem::new(Kind::SharedOutOfBounds, detail));
        };
        for (index, byte) in bytes.iter_mut().enumerate() {
            let result = match access {
                Access::Read => clock.read(byte, me),
                Access::Write => clock.write(byte, me, PLAIN),
                Access::Atomic => clock.write(byte, me, ATOMIC),
            };
            if let Err((kind, users)) = result {
                return Err(clock.describe(kind, users, access, me, name, offset + index));
            }
        }
        Ok(())
    }

    /// A `cp.async` of thread `lane` into shared memory that `access_shared` has allowed: it is in flight, or has completed.
    pub fn copying(&mut self, lane: u32, address: usize, size: usize, under_way: bool) {
        let (me, time) = (Me::new(lane), self.clock.now);
        let how = if under_way { COPYING } else { PLAIN };
        if let Some((_, bytes)) = self.space(address).and_then(|space| space.at(address, size)) {
            bytes.iter_mut().for_each(|byte| byte.write = Users { time, lanes: me.bit, warp: me.warp, how });
        }
    }

    #[inline]
    fn global(&mut self, address: usize, size: usize, access: Access) -> Checked {
        if !self.buffers.get(self.recent).is_some_and(|buffer| buffer.contains(address)) {
            match find(&self.buffers, address) {
                Some(index) => self.recent = index,
                None if self.image.contains(&address) => return Ok(()),
                None => return Err(self.out_of_bounds(address, size, access)),
            }
        }
        let buffer = &self.buffers[self.recent];
        let offset = address - buffer.base;
        if size > buffer.len - offset {
            return Err(self.out_of_bounds(address, size, access));
        }
        let initialised = buffer.initialised();
        for (index, word) in buffer.shadow()[offset..offset + size].iter().enumerate() {
            if let Err(kind) = self.global_byte(word, access, initialised) {
                let what = format!("{access:?} of byte {} of a {}-byte buffer", offset + index, buffer.len);
                let detail = if kind == Kind::UninitialisedGlobal {
                    format!("{what}, which nobody has written")
                } else {
                    format!("{what}, which block {} of this launch wrote", word.load(Relaxed) - self.marks.start)
                };
                return Err(Problem::new(kind, detail));
            }
        }
        Ok(())
    }

    #[inline]
    fn global_byte(&self, word: &AtomicU32, access: Access, initialised: bool) -> Result<(), Kind> {
        let mut writer = word.load(Relaxed);
        if access == Access::Write && writer != self.mark {
            writer = word.swap(self.mark, Relaxed);
        }
        if access != Access::Write && writer < HOST_MARK && !initialised {
            return Err(Kind::UninitialisedGlobal);
        }
        if access != Access::Atomic && self.marks.contains(&writer) && writer != self.mark && !self.fenced {
            word.store(writer, Relaxed); // for the report
            return Err(Kind::CrossBlockRace);
        }
        Ok(())
    }

    #[cold]
    fn out_of_bounds(&self, address: usize, size: usize, access: Access) -> Box<Problem> {
        out_of_bounds(&self.buffers, address, size, access)
    }
}

/// The problem with an access of global memory that is in no buffer.
#[cold]
pub(crate) fn out_of_bounds(buffers: &[Arc<Allocation>], address: usize, size: usize, access: Access) -> Box<Problem> {
    let kind = if access == Access::Read { Kind::OutOfBoundsRead } else { Kind::OutOfBoundsWrite };
    let distance = |buffer: &&Arc<Allocation>| {
        if address < buffer.base { buffer.base - address } else { address - (buffer.base + buffer.len).min(address) }
    };
    let near = match buffers.iter().min_by_key(distance) {
        _ if address < 4096 => "a null pointer".to_owned(),
        Some(buffer) if distance(&buffer) < 1 << 20 => {
            format!("offset {} of a {}-byte buffer", address as isize - buffer.base as isize, buffer.len)
        }
        _ => format!("{address:#x}, in no buffer"),
    };
    Problem::new(kind, format!("{access:?} of {size} bytes at {near}"))
}

//! Runs the threads of one block on one operating-system thread.
//!
//! A coroutine runs unstarted CUDA threads in a loop, and only a thread that blocks keeps its coroutine. A kernel without
//! barriers is then a plain loop on a single stack; one with barriers has a coroutine per thread. The last thread to arrive
//! at a barrier or a warp collective completes it and continues without a switch.
//!
//! Kernels call back into the block they run in, so [`Block`] is shared and its fields are cells. No borrow of one may be
//! held across [`Block::suspend`], and nothing on a coroutine may own memory at that point: a failed block is abandoned.

use crate::check::{Checker, MemoryMap, Scope};
use crate::finding::{Failure, Finding, Kind, Place, Problem};
use crate::launch::{Job, MAX_SHARED_BYTES, MAX_THREADS};
use crate::memory::POISON;
use crate::module::Call;
use crate::stack::{Slab, Slot};
use corosensei::{Coroutine, Yielder};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::ffi::{c_int, c_void};
use std::ptr::{NonNull, null, null_mut};

const WARP: usize = 32;
/// Traits of a collective, as in abi.h.
const ORDERS: c_int = 1;
const WHOLE_WARP: c_int = 2;
/// Bytes before and after dynamic shared memory that are poisoned.
const SHARED_GUARD: usize = 1024;

/// `SimtContext` of abi.h: the data of `threadIdx` and similar.
#[repr(C)]
pub(crate) struct Context {
    thread: [u32; 3],
    block: [u32; 3],
    block_dim: [u32; 3],
    grid_dim: [u32; 3],
}

// SAFETY: as in runtime.cpp, which build.rs compiles.
unsafe extern "C" {
    fn simt_context_address() -> *mut Context;
}

/// An operation of a warp, in runtime.cpp.
pub(crate) type Operation = unsafe extern "C" fn(*const *const c_void, *const *mut c_void, u32);

#[derive(Clone, Copy, PartialEq)]
enum State {
    Ended,
    Running,
    AtBarrier,
    AtCollective,
}

/// One CUDA thread.
struct Lane {
    thread: [u32; 3],
    state: Cell<State>,
    coroutine: Cell<usize>,
    place: Cell<Place>,
    input: Cell<*const c_void>,
    output: Cell<*mut c_void>,
}

/// Lanes of one warp that are waiting at one collective.
struct Group {
    mask: u32,
    arrived: u32,
    operation: usize,
    place: Place,
}

/// A `cp.async` that has been issued but not waited for.
pub(crate) struct AsyncCopy {
    pub group: u32,
    pub shared: usize,
    pub global: usize,
    pub size: usize,
    pub valid: usize,
}

/// The copies of one thread, oldest first, and the number of groups it has committed.
#[derive(Default)]
pub(crate) struct AsyncCopies {
    pub committed: u32,
    pub queue: VecDeque<AsyncCopy>,
}

/// Dynamic shared memory of the maximum size, between guards. Kept as a pointer: kernels write through it.
struct DynamicShared {
    memory: *mut [u128],
    base: *mut u8,
    size: usize,
}

/// The running block, as its threads see it.
pub(crate) struct Block {
    context: *mut Context,
    pub slab: Slab,
    call: Option<Call>,
    args: *mut *mut c_void,
    seeded: bool,
    pub checked: bool,
    pub checker: RefCell<Checker>,
    shared: DynamicShared,

    lanes: Vec<Lane>,
    order: Vec<u32>,
    next: Cell<usize>,
    current: Cell<u32>,
    running: Cell<usize>,
    ready: RefCell<VecDeque<u32>>,
    idle: RefCell<Vec<usize>>,
    yielders: Vec<Cell<*const Yielder<(), ()>>>,
    alive: Cell<usize>,

    waiting: Cell<usize>,
    barrier: Cell<Place>,
    votes: Cell<usize>,
    tally: Cell<usize>,
    groups: Vec<RefCell<Vec<Group>>>,
    pub copies: Vec<RefCell<AsyncCopies>>,
    /// Some thread has issued a copy since the block began.
    pub copied: Cell<bool>,
    random: Cell<u64>,
    failure: RefCell<Option<Failure>>,
    suspicion: RefCell<Option<Failure>>,
}

thread_local! {
    static CURRENT: Cell<*const Block> = const { Cell::new(null()) };
}

/// The block that this operating-system thread is running, if any.
#[inline]
pub(crate) fn current() -> Option<&'static Block> {
    // SAFETY: set by `Worker::run` for as long as the block runs, and kernels call from inside that.
    unsafe { CURRENT.get().as_ref() }
}

// ---- called by the threads of the block
impl Block {
    pub fn lane(&self) -> u32 {
        self.current.get()
    }

    pub fn dynamic_shared(&self) -> *mut c_void {
        self.shared.base.cast()
    }

    /// `__syncthreads`; returns the number of threads with `vote` set.
    pub fn barrier(&self, vote: bool, place: Place) -> usize {
        let waiting = self.waiting.get();
        if waiting == 0 {
            self.barrier.set(place);
        } else if self.barrier.get() != place {
            let detail = format!("__syncthreads here, while {waiting} threads of the block wait at another one, at");
            self.fail_beside(Problem::new(Kind::DivergentBarrier, detail), place, Some(self.barrier.get()));
        }
        self.votes.set(self.votes.get() + vote as usize);
        let current = self.current.get();
        if waiting + 1 < self.lanes.len() {
            let lane = &self.lanes[current as usize];
            lane.state.set(State::AtBarrier);
            lane.place.set(place);
            self.waiting.set(waiting + 1);
            self.suspend();
        } else {
            self.waiting.set(0);
            self.tally.set(self.votes.take());
            let mut ready = self.ready.borrow_mut();
            for (index, lane) in self.lanes.iter().enumerate() {
                lane.state.set(State::Running);
                if index as u32 != current {
                    ready.push_back(index as u32);
                }
            }
            if self.checked {
                self.checker.borrow_mut().barrier();
            }
        }
        self.tally.get()
    }

    /// Runs `operation` once all lanes of `mask` have arrived. `traits` are those of abi.h.
    ///
    /// # Safety
    /// `input` and `output` have the types that `operation` expects, on the stack of the caller, which stays while it waits.
    pub unsafe fn collective(
        &self,
        mask: u32,
        operation: Operation,
        input: *const c_void,
        output: *mut c_void,
        traits: c_int,
        place: Place,
    ) {
        let current = self.current.get() as usize;
        let (warp, bit) = (current / WARP, 1u32 << (current % WARP));
        let lanes = &self.lanes[warp * WARP..self.lanes.len().min((warp + 1) * WARP)];
        let existing = u32::MAX >> (WARP - lanes.len());
        if traits & WHOLE_WARP != 0 && lanes.len() < WARP {
            let detail = format!("mma and ldmatrix need a whole warp; this one has {} lanes", lanes.len());
            self.fail(Problem::new(Kind::BadWarpMask, detail), place);
        }
        let mask = mask & existing; // the last warp of a block may be incomplete
        if mask & bit == 0 {
            let detail = format!("lane {} is not in its own mask {mask:#010x}", current % WARP);
            self.fail(Problem::new(Kind::BadWarpMask, detail), place);
        }
        let me = &lanes[current % WARP];
        me.input.set(input);
        me.output.set(output);
        me.place.set(place);
        me.state.set(State::AtCollective);

        let mut groups = self.groups[warp].borrow_mut();
        let same = |group: &Group| (group.mask, group.operation, group.place) == (mask, operation as usize, place);
        // Lanes that wait for this one, while this one would wait for them elsewhere: a deadlock.
        let clash = groups.iter().find(|group| !same(group) && group.mask & bit != 0 && group.arrived & mask != 0);
        if let Some(Group { mask: theirs, place: there, .. }) = clash {
            let (detail, there) =
                (format!("mask {mask:#010x} here, while lanes of mask {theirs:#010x} wait at"), *there);
            drop(groups);
            self.fail_beside(Problem::new(Kind::BadWarpMask, detail), place, Some(there));
        }
        let index = groups.iter().position(same).unwrap_or_else(|| {
            groups.push(Group { mask, arrived: 0, operation: operation as usize, place });
            groups.len() - 1
        });
        let group = &mut groups[index];
        group.arrived |= bit;
        if group.arrived != mask {
            drop(groups);
            return self.suspend();
        }
        groups.swap_remove(index);
        drop(groups);
        let (mut inputs, mut outputs) = ([null(); WARP], [null_mut(); WARP]);
        let mut ready = self.ready.borrow_mut();
        for (index, lane) in lanes.iter().enumerate().filter(|(index, _)| mask >> index & 1 == 1) {
            inputs[index] = lane.input.get();
            outputs[index] = lane.output.get();
            lane.state.set(State::Running);
            if warp * WARP + index != current {
                ready.push_back((warp * WARP + index) as u32);
            }
        }
        drop(ready);
        if self.checked && traits & ORDERS != 0 {
            self.checker.borrow_mut().sync_warp(warp, mask);
        }
        // SAFETY: every lane of the mask has supplied operands for this operation and waits.
        unsafe { operation(inputs.as_ptr(), outputs.as_ptr(), mask) };
    }

    /// Ends the block with a failure of the current thread. Never returns to the kernel.
    pub fn fail(&self, problem: Box<Problem>, place: Place) -> ! {
        self.fail_beside(problem, place, None)
    }

    fn fail_beside(&self, problem: Box<Problem>, place: Place, other: Option<Place>) -> ! {
        let thread = self.lanes[self.current.get() as usize].thread;
        self.failure.borrow_mut().get_or_insert(Failure { problem, place, other, thread });
        loop {
            self.suspend(); // the worker abandons this coroutine
        }
    }

    /// A failure that ends the block only if no better explanation is found by then.
    pub fn suspect(&self, problem: Box<Problem>, place: Place) {
        let thread = self.lanes[self.current.get() as usize].thread;
        self.suspicion.borrow_mut().get_or_insert(Failure { problem, place, other: None, thread });
    }

    fn suspend(&self) {
        let yielder = self.yielders[self.running.get()].get();
        // SAFETY: the running coroutine stored its own yielder, which outlives this call.
        unsafe { (*yielder).suspend(()) }
    }

    /// The next unstarted thread, on coroutine `id`.
    fn start_next(&self, id: usize) -> bool {
        let Some(index) = self.order.get(self.next.get()).copied() else { return false };
        self.next.set(self.next.get() + 1);
        let lane = &self.lanes[index as usize];
        lane.state.set(State::Running);
        lane.coroutine.set(id);
        self.enter(index, lane);
        true
    }

    fn enter(&self, index: u32, lane: &Lane) {
        self.current.set(index);
        // SAFETY: the context of this operating-system thread, which only kernels read.
        unsafe { (*self.context).thread = lane.thread };
    }

    fn end_current(&self) {
        self.lanes[self.current.get() as usize].state.set(State::Ended);
        self.alive.set(self.alive.get() - 1);
    }
}

// ---- called by the worker
impl Block {
    fn new(slab: Slab) -> Block {
        // SAFETY: returns the address of a thread-local variable of this thread, where the block stays.
        let context = unsafe { simt_context_address() };
        let map = MemoryMap::of_this_thread(context as usize, size_of::<Context>());
        Block {
            context,
            slab,
            call: None,
            args: null_mut(),
            seeded: false,
            checked: false,
            checker: RefCell::new(Checker::new(map)),
            shared: DynamicShared::new(),
            lanes: Vec::new(),
            order: Vec::new(),
            next: Cell::new(0),
            current: Cell::new(0),
            running: Cell::new(0),
            ready: RefCell::default(),
            idle: RefCell::default(),
            yielders: vec![Cell::new(null()); MAX_THREADS],
            alive: Cell::new(0),
            waiting: Cell::new(0),
            barrier: Cell::new(Place::Unknown),
            votes: Cell::new(0),
            tally: Cell::new(0),
            groups: Vec::new(),
            copies: Vec::new(),
            copied: Cell::new(false),
            random: Cell::new(0),
            failure: RefCell::default(),
            suspicion: RefCell::default(),
        }
    }

    fn begin_launch(&mut self, job: &Job) {
        let [x, y, z] = job.launch.block.0;
        let threads = (x * y * z) as usize;
        self.call = Some(job.call);
        self.args = job.args();
        self.seeded = job.launch.seed.is_some();
        self.checked = job.launch.variant == crate::Variant::Checked;
        let lane = |index: u32| Lane {
            thread: [index % x, index / x % y, index / x / y],
            state: Cell::new(State::Ended),
            coroutine: Cell::new(0),
            place: Cell::new(Place::Unknown),
            input: Cell::new(null()),
            output: Cell::new(null_mut()),
        };
        self.lanes = (0..threads as u32).map(lane).collect();
        self.order = (0..threads as u32).collect();
        self.groups = (0..threads.div_ceil(WARP)).map(|_| RefCell::default()).collect();
        self.copies = (0..threads).map(|_| RefCell::default()).collect();
        self.shared.resize(job.launch.shared_bytes);
        if self.checked {
            let scope = Scope { launch: job.launch, buffers: &job.buffers, first_mark: job.first_mark };
            self.checker.get_mut().begin_launch(scope, self.shared.range(), self.shared.reserved());
        }
    }

    fn begin_block(&mut self, job: &Job, index: usize) -> [u32; 3] {
        let [gx, gy, _] = job.launch.grid.0.map(|n| n as usize);
        let block = [index % gx, index / gx % gy, index / gx / gy].map(|n| n as u32);
        let (block_dim, grid_dim) = (job.launch.block.0, job.launch.grid.0);
        // SAFETY: as in `enter`; no kernel is running.
        unsafe { *self.context = Context { thread: [0; 3], block, block_dim, grid_dim } };
        self.next.set(0);
        self.alive.set(self.lanes.len());
        if self.copied.take() {
            self.forget_copies(); // a thread may end without waiting for its own copies
        }
        if let Some(seed) = job.launch.seed {
            let mix = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            self.random.set(mix ^ (index as u64 + 1).wrapping_mul(0xd134_2543_de82_ef95) | 1);
            for i in (1..self.order.len()).rev() {
                let j = self.random(i + 1);
                self.order.swap(i, j);
            }
        }
        if self.checked || self.seeded {
            self.shared.poison();
        }
        if self.checked {
            self.checker.get_mut().begin_block(index);
        }
        block
    }

    /// After a failure: discards every unfinished thread. The coroutines have been reset.
    fn abandon(&mut self) {
        self.ready.get_mut().clear();
        self.idle.get_mut().clear();
        self.waiting.set(0);
        self.votes.set(0);
        self.groups.iter_mut().for_each(|groups| groups.get_mut().clear());
        self.forget_copies();
    }

    fn forget_copies(&mut self) {
        self.copies.iter_mut().for_each(|copies| *copies.get_mut() = AsyncCopies::default());
    }

    fn random(&self, below: usize) -> usize {
        let mut x = self.random.get();
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random.set(x);
        (x >> 33) as usize % below
    }

    /// The coroutine to resume next: a thread that is ready, or an idle or new coroutine that will start one.
    fn pick(&self, coroutines: usize) -> Option<usize> {
        let unstarted = self.next.get() < self.order.len();
        let mut ready = self.ready.borrow_mut();
        if !ready.is_empty() && (!unstarted || !self.seeded || self.random(4) != 0) {
            if self.seeded {
                let chosen = self.random(ready.len());
                ready.swap(0, chosen);
            }
            let index = ready.pop_front()?;
            let lane = &self.lanes[index as usize];
            self.enter(index, lane);
            return Some(lane.coroutine.get());
        }
        unstarted.then(|| self.idle.borrow_mut().pop().unwrap_or(coroutines))
    }

    /// A failure without a known thread or place.
    fn somewhere(&self, problem: Box<Problem>) -> Failure {
        Failure { problem, place: Place::Unknown, other: None, thread: [0; 3] }
    }

    /// All remaining threads wait, and none can be woken.
    fn deadlock(&self) -> Failure {
        let at = |state| self.lanes.iter().filter(move |lane| lane.state.get() == state);
        let (barrier, collective) = (at(State::AtBarrier).count(), at(State::AtCollective).count());
        let ended = self.lanes.len() - self.alive.get();
        let counts =
            format!("{barrier} threads wait at __syncthreads, {collective} at warp collectives, {ended} ended");
        let (kind, first, detail) = if let Some(lane) = at(State::AtCollective).next() {
            (Kind::BadWarpMask, lane, format!("a lane named in the mask never comes: {counts}"))
        } else {
            let lane = at(State::AtBarrier).next().unwrap_or(&self.lanes[0]);
            (Kind::DivergentBarrier, lane, format!("not every thread of the block comes here: {counts}"))
        };
        Failure { problem: Problem::new(kind, detail), place: first.place.get(), other: None, thread: first.thread }
    }
}

impl DynamicShared {
    fn new() -> DynamicShared {
        let memory = Box::into_raw(bytemuck::zeroed_slice_box::<u128>((MAX_SHARED_BYTES + 2 * SHARED_GUARD) / 16 + 8));
        let base = (memory as *mut u8).wrapping_add(SHARED_GUARD);
        let base = base.wrapping_add(base.align_offset(128));
        DynamicShared { memory, base, size: 0 }
    }

    fn resize(&mut self, size: usize) {
        self.size = size;
        self.poison();
    }

    fn range(&self) -> std::ops::Range<usize> {
        self.base as usize..self.base as usize + self.size
    }

    fn reserved(&self) -> std::ops::Range<usize> {
        self.base as usize - SHARED_GUARD..self.base as usize + MAX_SHARED_BYTES + SHARED_GUARD
    }

    fn poison(&mut self) {
        // SAFETY: base is SHARED_GUARD into memory with room for MAX_SHARED_BYTES and a guard after it; no kernel runs.
        let words = unsafe { std::slice::from_raw_parts_mut(self.base.cast::<u16>(), self.size.div_ceil(2) + 128) };
        words.fill(POISON);
    }

    /// Whether the guard after the dynamic shared memory is intact.
    fn guard_intact(&self) -> bool {
        // SAFETY: as in `poison`.
        let words = unsafe { std::slice::from_raw_parts(self.base.cast::<u16>(), self.size.div_ceil(2) + 128) };
        words[self.size.div_ceil(2)..].iter().all(|word| *word == POISON)
    }
}

impl Drop for DynamicShared {
    fn drop(&mut self) {
        // SAFETY: from Box::into_raw in `new`.
        drop(unsafe { Box::from_raw(self.memory) });
    }
}

/// State that one operating-system thread needs to run blocks, kept between launches and freed when the thread ends.
pub(crate) struct Worker {
    /// From Box::into_raw: coroutines hold this address.
    block: NonNull<Block>,
    coroutines: Vec<Coroutine<(), (), (), Slot>>,
}

impl Worker {
    pub fn new() -> std::io::Result<Worker> {
        let block = Box::new(Block::new(Slab::new(MAX_THREADS)?));
        Ok(Worker { block: NonNull::from(Box::leak(block)), coroutines: Vec::new() })
    }

    /// Runs blocks of `job` until none are left or one fails.
    pub fn run(&mut self, job: &Job) -> Result<(), (usize, Finding)> {
        self.block_mut().begin_launch(job);
        CURRENT.set(self.block.as_ptr());
        let mut result =
            job.turns.blocks().try_for_each(|index| self.run_block(job, index).map_err(|finding| (index, finding)));
        CURRENT.set(null());
        if let (Ok(()), Some(failure)) = (&result, self.stack_overflow()) {
            self.reset();
            self.block_mut().abandon();
            result = Err((0, failure.into_finding(&job.kernel, [0; 3])));
        }
        self.block_mut().checker.get_mut().end_launch();
        result
    }

    fn block_mut(&mut self) -> &mut Block {
        // SAFETY: from Box::leak, and no coroutine holds a reference while the worker itself runs.
        unsafe { self.block.as_mut() }
    }

    fn run_block(&mut self, job: &Job, index: usize) -> Result<(), Finding> {
        let block_index = self.block_mut().begin_block(job, index);
        // SAFETY: lives as long as the worker; shared with the coroutines while they run.
        let block: &Block = unsafe { self.block.as_ref() };
        while block.failure.borrow().is_none() {
            let Some(id) = block.pick(self.coroutines.len()) else { break };
            if id == self.coroutines.len() {
                self.coroutines.push(coroutine(block, id));
            }
            block.running.set(id);
            self.coroutines[id].resume(());
        }
        let mut failure = block.failure.take();
        if failure.is_none() && block.alive.get() > 0 {
            failure = Some(block.deadlock());
        }
        if failure.is_none() && !block.shared.guard_intact() {
            let detail = "memory behind the dynamic shared memory was written";
            failure = Some(block.somewhere(Problem::new(Kind::SharedOutOfBounds, detail)));
        }
        // A value that was uninitialised when read may have been written too late: then the race is the better explanation.
        let suspicion = block.suspicion.take();
        if suspicion.is_some() && failure.as_ref().is_none_or(|failure| failure.problem.kind != Kind::SharedRace) {
            failure = suspicion;
        }
        let Some(failure) = failure else { return Ok(()) };
        let failure = self.stack_overflow().unwrap_or(failure);
        self.reset();
        self.block_mut().abandon();
        Err(failure.into_finding(&job.kernel, block_index))
    }

    /// Whether a thread has overflowed its stack since the coroutines were created.
    fn stack_overflow(&self) -> Option<Failure> {
        // SAFETY: as in `run_block`.
        let block = unsafe { self.block.as_ref() };
        let intact = (0..self.coroutines.len()).all(|id| block.slab.canary_intact(id));
        let detail = "a thread needed more stack than the 60 KiB of a coroutine";
        (!intact).then(|| block.somewhere(Problem::new(Kind::StackOverflow, detail)))
    }

    /// Abandons all coroutines. Never unwinds: the frames below may be C++.
    fn reset(&mut self) {
        for mut coroutine in self.coroutines.drain(..) {
            // SAFETY: kernels have no destructors, and by this module's rule no frame of ours owns anything.
            unsafe { coroutine.force_reset() };
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.reset();
        // SAFETY: from Box::leak in `new`; the coroutines that pointed to it are gone.
        drop(unsafe { Box::from_raw(self.block.as_ptr()) });
    }
}

fn coroutine(block: &Block, id: usize) -> Coroutine<(), (), (), Slot> {
    let address: *const Block = block;
    Coroutine::with_stack(block.slab.slot(id), move |yielder, ()| {
        loop {
            // SAFETY: the block outlives its coroutines (see `Worker::drop`).
            let block = unsafe { &*address };
            block.yielders[id].set(yielder);
            while block.start_next(id) {
                if let Some(call) = block.call {
                    // SAFETY: the launch has checked the arguments against the kernel's own description of them.
                    unsafe { call(block.args) };
                }
                block.end_current();
            }
            block.idle.borrow_mut().push(id);
            yielder.suspend(());
        }
    })
}

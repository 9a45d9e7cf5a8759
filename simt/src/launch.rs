//! Launching a kernel by name.
//!
//! Everything that `cuLaunchKernel` would detect only by crashing is checked before anything runs; then blocks
//! are distributed to the cores in chunks, and the first finding stops all of them.

use crate::finding::{Finding, Kind};
use crate::memory::{self, Allocation};
use crate::module::{Arg, Call, Module};
use crate::scheduler::Worker;
use crate::{Error, check};
use std::cell::RefCell;
use std::ffi::c_void;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};

/// Maximum number of threads in a block.
pub const MAX_THREADS: usize = 1024;
/// Limits of all cards on single axes.
const MAX_GRID_YZ: u32 = 65_535;
const MAX_BLOCK_Z: u32 = 64;
/// Maximum dynamic shared memory of a block: that of sm_90.
pub const MAX_SHARED_BYTES: usize = 227 << 10;
/// All `__shared__` arrays of all kernels in the executable are in every thread's thread-local storage, which the C
/// library takes from the thread's stack (2 MiB by default). A larger total is rejected.
const MAX_STATIC_BYTES: usize = 1 << 20;

/// Which of the two compiled variants runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// Plain code. Detects divergence, and out-of-bounds writes that hit a guard band.
    Fast = 0,
    /// Every access is checked, about 10 to 50 times slower.
    Checked = 1,
}

/// Size of a grid or a block, at least 1 per axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dim3(pub [u32; 3]);

impl From<u32> for Dim3 {
    fn from(x: u32) -> Self {
        Dim3([x, 1, 1])
    }
}
impl From<(u32, u32)> for Dim3 {
    fn from((x, y): (u32, u32)) -> Self {
        Dim3([x, y, 1])
    }
}
impl From<(u32, u32, u32)> for Dim3 {
    fn from((x, y, z): (u32, u32, u32)) -> Self {
        Dim3([x, y, z])
    }
}
impl From<[u32; 3]> for Dim3 {
    fn from(axes: [u32; 3]) -> Self {
        Dim3(axes)
    }
}

/// Launch options.
#[derive(Clone, Debug)]
pub struct Launch {
    pub grid: Dim3,
    pub block: Dim3,
    /// Dynamic shared memory in bytes.
    pub shared_bytes: usize,
    pub variant: Variant,
    /// Permutes the order of threads and blocks; `None` runs them in order. A correct kernel gives the same result.
    pub seed: Option<u64>,
    /// Operating-system threads; 0 means the size of rayon's pool.
    pub workers: usize,
}

impl Launch {
    /// The fast variant, in order, on all cores, without dynamic shared memory.
    pub fn new(grid: impl Into<Dim3>, block: impl Into<Dim3>) -> Launch {
        let (grid, block) = (grid.into(), block.into());
        Launch { grid, block, shared_bytes: 0, variant: Variant::Fast, seed: None, workers: 0 }
    }

    pub fn shared(self, bytes: usize) -> Launch {
        Launch { shared_bytes: bytes, ..self }
    }

    pub fn checked(self) -> Launch {
        self.variant(Variant::Checked)
    }

    pub fn variant(self, variant: Variant) -> Launch {
        Launch { variant, ..self }
    }

    pub fn seed(self, seed: u64) -> Launch {
        Launch { seed: Some(seed), ..self }
    }

    pub fn workers(self, workers: usize) -> Launch {
        Launch { workers, ..self }
    }

    pub(crate) fn block_count(&self) -> usize {
        self.grid.0.iter().map(|n| *n as usize).product()
    }

    /// Threads of the operating system for `blocks` blocks.
    pub(crate) fn worker_count(&self, blocks: usize) -> usize {
        if self.workers == 0 { rayon::current_num_threads() } else { self.workers }.min(blocks)
    }

    pub(crate) fn check(&self) -> Result<(), String> {
        let (grid, block) = (self.grid.0, self.block.0);
        let size = |axes: [u32; 3]| axes.iter().map(|n| u64::from(*n)).try_fold(1u64, u64::checked_mul);
        if !size(grid).is_some_and(|blocks| (1..u64::from(u32::MAX / 2)).contains(&blocks)) {
            return Err(format!("a grid of {grid:?} blocks; each axis must be at least 1, together less than 2^31"));
        }
        if grid[1].max(grid[2]) > MAX_GRID_YZ {
            return Err(format!("a grid of {grid:?} blocks; the second and third axis go to {MAX_GRID_YZ}"));
        }
        if !size(block).is_some_and(|threads| (1..=MAX_THREADS as u64).contains(&threads)) {
            return Err(format!("a block of {block:?} threads; 1 to {MAX_THREADS} are possible"));
        }
        if block[2] > MAX_BLOCK_Z {
            return Err(format!("a block of {block:?} threads; the third axis goes to {MAX_BLOCK_Z}"));
        }
        if self.shared_bytes > MAX_SHARED_BYTES {
            return Err(format!("{} bytes of shared memory; at most {MAX_SHARED_BYTES}", self.shared_bytes));
        }
        let statics = check::static_shared_bytes();
        if statics > MAX_STATIC_BYTES {
            return Err(format!(
                "the __shared__ arrays of all kernels in this executable take {statics} bytes of every thread's stack; \
                 more than {MAX_STATIC_BYTES} is not safe: use DYN_SHARED for the large ones"
            ));
        }
        Ok(())
    }
}

/// The blocks of a launch, handed out to workers until all are taken or one of them has found a bug.
pub(crate) struct Turns {
    /// Blocks in all.
    pub count: usize,
    seed: Option<u64>,
    next: AtomicUsize,
    chunk: usize,
    stop: AtomicBool,
    found: Mutex<Option<(usize, Finding)>>,
}

impl Turns {
    pub fn new(count: usize, seed: Option<u64>, workers: usize) -> Turns {
        Turns {
            count,
            seed,
            next: AtomicUsize::new(0),
            chunk: (count / (workers * 8)).clamp(1, 64),
            stop: AtomicBool::new(false),
            found: Mutex::new(None),
        }
    }

    /// Assigns block indices to one worker, in chunks.
    pub fn blocks(&self) -> impl Iterator<Item = usize> {
        let count = self.count;
        let chunks = std::iter::from_fn(move || {
            let start = self.next.fetch_add(self.chunk, Relaxed);
            (start < count && !self.stop.load(Relaxed)).then(|| start..(start + self.chunk).min(count))
        });
        chunks.flatten().take_while(|_| !self.stop.load(Relaxed)).map(move |turn| self.block_at(turn, count))
    }

    /// With a seed, blocks start at a random index and advance by a stride coprime to their number.
    fn block_at(&self, turn: usize, count: usize) -> usize {
        let Some(seed) = self.seed else { return turn };
        let gcd = |mut a: usize, mut b: usize| {
            while b != 0 {
                (a, b) = (b, a % b);
            }
            a
        };
        let wanted = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) as usize % count + 1;
        let stride = (wanted..).find(|stride| gcd(*stride, count) == 1).unwrap_or(1);
        (turn * (stride % count) + wanted) % count
    }

    /// Ends the launch; of several findings, that of the lowest block is kept.
    pub fn fail(&self, found: (usize, Finding)) {
        self.stop.store(true, Relaxed);
        let mut first = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        if first.as_ref().is_none_or(|(index, _)| found.0 < *index) {
            *first = Some(found);
        }
    }

    pub fn found(&self) -> Option<Finding> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).take().map(|(_, finding)| finding)
    }
}

/// A running launch, shared by its workers.
pub(crate) struct Job<'a> {
    pub kernel: String,
    pub launch: &'a Launch,
    pub call: Call,
    pub buffers: Vec<Arc<Allocation>>,
    /// Block `i` records its mark, `first_mark + i`, in the shadow of what it writes.
    pub first_mark: u32,
    pub turns: Turns,
    /// Addresses of `values`, for the kernel to unpack.
    args: Vec<*mut c_void>,
}

// SAFETY: the arguments are copies that the job owns and kernels only read; everything else is synchronised.
unsafe impl Sync for Job<'_> {}

impl Job<'_> {
    pub fn args(&self) -> *mut *mut c_void {
        self.args.as_ptr().cast_mut()
    }

    fn work(&self) {
        let result = WORKER.with_borrow_mut(|slot| -> Result<(), (usize, Finding)> {
            if slot.is_none() {
                *slot = Some(Worker::new().map_err(|error| (0, self.no_memory(&error)))?);
            }
            slot.as_mut().map_or(Ok(()), |worker| worker.run(self))
        });
        if let Err(found) = result {
            self.turns.fail(found);
        }
    }

    fn no_memory(&self, error: &std::io::Error) -> Finding {
        let detail = format!("no address space for {MAX_THREADS} stacks: {error}");
        self.finding(Kind::StackOverflow, detail)
    }

    fn finding(&self, kind: Kind, detail: String) -> Finding {
        Finding::of_launch(kind, &self.kernel, detail)
    }
}

thread_local! {
    static WORKER: RefCell<Option<Worker>> = const { RefCell::new(None) };
}

/// Marks for the blocks of a launch. They wrap around after four billion blocks; a byte last written exactly that long ago
/// would be misjudged.
pub(crate) fn marks(blocks: u32) -> u32 {
    static NEXT: AtomicU32 = AtomicU32::new(check::FIRST_MARK);
    let after = |first: u32| first.checked_add(blocks).unwrap_or(check::FIRST_MARK + blocks);
    let first = NEXT.fetch_update(Relaxed, Relaxed, |first| Some(after(first))).unwrap_or_default();
    if first.checked_add(blocks).is_some() { first } else { check::FIRST_MARK }
}

impl Module {
    /// Runs the kernel `name` to completion.
    ///
    /// Arguments are checked against the kernel's parameters: number, size, pointer or not, and that pointers are null or
    /// are in live buffers. The first bug ends the launch with [`Error::Finding`].
    pub fn launch(&self, name: &str, launch: &Launch, args: &[Arg]) -> Result<(), Error> {
        launch.check().map_err(|message| Error::Launch(format!("{name}: {message}")))?;
        let entry = self.find(name, launch.variant)?;
        let buffers = memory::live();
        entry.check(args, &buffers)?;
        let touched: Vec<_> = entry.reachable(args, &buffers).into_iter().cloned().collect();
        let values = entry.copy_arguments(args);
        let blocks = launch.block_count();
        let workers = launch.worker_count(blocks);
        let job = Job {
            kernel: name.to_owned(),
            launch,
            call: entry.call().ok_or_else(|| Error::Launch(format!("{name}: the table of kernels is damaged")))?,
            buffers,
            first_mark: marks(blocks as u32),
            args: values.iter().map(|value| value.as_ptr().cast_mut().cast()).collect(),
            turns: Turns::new(blocks, launch.seed, workers),
        };
        if workers == 1 {
            job.work();
        } else {
            rayon::scope(|scope| (0..workers).for_each(|_| scope.spawn(|_| job.work())));
        }

        let mut found = job.turns.found();
        for buffer in touched {
            if launch.variant == Variant::Fast {
                buffer.mark_written(0..buffer.len);
            }
            if let (None, Err(offset)) = (&found, buffer.guards_intact()) {
                let detail = format!("byte {offset} of a {}-byte buffer was written", buffer.len);
                found = Some(job.finding(Kind::OutOfBoundsWrite, detail));
                buffer.restore_guards();
            }
        }
        found.map_or(Ok(()), |finding| Err(Error::Finding(Box::new(finding))))
    }
}

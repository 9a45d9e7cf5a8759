//! MPI, loaded at run time: a [`Host`] over non-blocking collectives that are polled until they are complete or out of time.

mod abi;
pub mod library;

use super::launch::Family;
use super::{Host, Launch};
use crate::{Error, Result};
use abi::{Abi, Calls, Handle};
use std::ffi::c_int;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// A started MPI.
pub struct Mpi {
    pub rank: usize,
    pub size: usize,
    /// The library in words.
    pub library: String,
    calls: Calls,
    /// One thread at a time calls MPI.
    turn: Mutex<()>,
}

/// Time for which a rank that waits looks without a pause: longer than the sums of a step take where all ranks arrive together.
const LOOKING: Duration = Duration::from_millis(20);
/// The pause between two looks of a rank that waits longer. Data arrive only while it looks, so it stays short.
const PAUSE: Duration = Duration::from_micros(200);
/// Most bytes of one message: counts are C ints.
const MOST: usize = 1 << 30;

impl Mpi {
    /// Starts MPI in a process that `launch` has started.
    ///
    /// # Errors
    /// No library; one that another launcher belongs to, which sees a single process; a failure of MPI.
    pub fn start(launch: &Launch) -> Result<Self> {
        let loaded = library::load(Some(launch))?;
        let calls = Calls::find(loaded.library, loaded.abi, &loaded.path)?;
        let of = launch.size.map_or(String::new(), |size| format!(" of {size}"));
        let other = |why: String| {
            let (who, rank) = (launch.name(), launch.rank.unwrap_or(0));
            let found = format!("{who} started rank {rank}{of}, but {} ({}) {why}", loaded.version, loaded.path);
            Error::device("MPI", found).advise(format!(
                "start it with the launcher of that library (with srun: --mpi=pmix or --mpi=pmi2), or name the launcher's library in {}",
                library::CHOICE
            ))
        };
        // MPICH would end the process in its own words.
        if launch.family == Family::OpenMpi && loaded.abi != Abi::OpenMpi && !loaded.version.contains("Open MPI") {
            return Err(other("is another MPI".into()));
        }
        let (mut provided, mut rank, mut size) = (0, 0, 0);
        // SAFETY: MPI is started once, before any other call, without arguments of the program; the answers are C ints.
        unsafe {
            let null = std::ptr::null_mut();
            check("MPI_Init_thread", (calls.init_thread)(null, null.cast(), calls.serialized, &mut provided))?;
            check("MPI_Comm_rank", (calls.comm_rank)(calls.world, &mut rank))?;
            check("MPI_Comm_size", (calls.comm_size)(calls.world, &mut size))?;
        }
        let (rank, size) = (usize::try_from(rank).unwrap_or(0), usize::try_from(size).unwrap_or(1));
        let differs = launch.size.is_some_and(|launched| launched != size);
        if differs || (launch.size.is_none() && size == 1 && launch.rank != Some(0)) {
            return Err(other(format!("sees {size}")));
        }
        Ok(Self { rank, size, library: loaded.version, calls, turn: Mutex::new(()) })
    }

    fn turn(&self) -> MutexGuard<'_, ()> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until a request is complete.
    ///
    /// # Errors
    /// It is not within `limit`: its buffers are then still MPI's, and the caller must leak them.
    fn wait(&self, mut request: Handle, limit: Duration) -> Result<()> {
        let began = Instant::now();
        loop {
            let mut complete: c_int = 0;
            // SAFETY: a request of a call that succeeded and is not complete; MPI is running.
            check("MPI_Test", unsafe { (self.calls.test)(&mut request, &mut complete, self.calls.status_ignore) })?;
            if complete != 0 {
                return Ok(());
            }
            let waited = began.elapsed();
            if waited > limit {
                let found = format!("no answer from all of the {} ranks within {} s", self.size, limit.as_secs());
                return Err(Error::device("timeout", found)
                    .advise("look for a rank that hangs or a network that is down; raise it if ranks are that slow"));
            }
            if waited < LOOKING { std::thread::yield_now() } else { std::thread::sleep(PAUSE) }
        }
    }

    /// Starts a call, waits for it, and leaks its buffers if it does not come to an end.
    fn complete<T>(
        &self,
        name: &str,
        buffers: T,
        limit: Duration,
        start: impl FnOnce(*mut Handle) -> c_int,
    ) -> Result<T> {
        let mut request = 0;
        let outcome = check(name, start(&mut request)).and_then(|()| self.wait(request, limit));
        match outcome {
            Ok(()) => Ok(buffers),
            Err(error) => {
                std::mem::forget(buffers);
                Err(error)
            }
        }
    }

    /// Gathers vectors of known lengths.
    fn gather_lengths(&self, mut mine: Vec<u8>, lengths: &[usize], limit: Duration) -> Result<Vec<u8>> {
        let total: usize = lengths.iter().sum();
        if total == 0 {
            return Ok(Vec::new());
        }
        // The address of an empty vector is 1, which is MPI_IN_PLACE of two families.
        mine.reserve(1);
        let ends = lengths.iter().scan(0, |end, length| Some(std::mem::replace(end, *end + length)));
        let ints = |values: Vec<usize>| values.into_iter().map(int).collect::<Result<Vec<c_int>>>();
        let (offsets, counts) = (ints(ends.collect())?, ints(lengths.to_vec())?);
        let (count, byte, world) = (int(mine.len())?, self.calls.byte, self.calls.world);
        int(total)?;
        let all = vec![0u8; total];
        let mut buffers = (mine, counts, offsets, all);
        let (from, to) = (buffers.0.as_ptr(), buffers.3.as_mut_ptr());
        let (counts, offsets) = (buffers.1.as_ptr(), buffers.2.as_ptr());
        // SAFETY: all buffers have the lengths that are passed and outlive the request: `complete` keeps or leaks them.
        let buffers = self.complete("MPI_Iallgatherv", buffers, limit, |request| unsafe {
            (self.calls.allgatherv)(from.cast(), count, byte, to.cast(), counts, offsets, byte, world, request)
        })?;
        Ok(buffers.3)
    }

    fn broadcast_some(&self, mut some: Vec<u8>, limit: Duration) -> Result<Vec<u8>> {
        let (count, byte, world) = (int(some.len())?, self.calls.byte, self.calls.world);
        let at = some.as_mut_ptr();
        // SAFETY: the buffer has that many bytes and outlives the request, as above.
        self.complete("MPI_Ibcast", some, limit, |request| unsafe {
            (self.calls.bcast)(at.cast(), count, byte, 0, world, request)
        })
    }
}

impl Host for Mpi {
    fn exchange(&self, send: Vec<f32>, got: Vec<f32>, limit: Duration) -> Result<[Vec<f32>; 2]> {
        let _turn = self.turn();
        if send.len() != got.len() || !send.len().is_multiple_of(self.size) {
            return Err(Error::device("MPI", "an exchange of unequal parts"));
        }
        if send.is_empty() {
            return Ok([send, got]);
        }
        let (count, float, world) = (int(send.len() / self.size)?, self.calls.float, self.calls.world);
        let mut buffers = [send, got];
        let (from, to) = (buffers[0].as_ptr(), buffers[1].as_mut_ptr());
        // SAFETY: both buffers hold `count` values for each rank and outlive the request, as above.
        self.complete("MPI_Ialltoall", buffers, limit, |request| unsafe {
            (self.calls.alltoall)(from.cast(), count, float, to.cast(), count, float, world, request)
        })
    }

    fn gather(&self, mine: Vec<u8>, limit: Duration) -> Result<Vec<Vec<u8>>> {
        let _turn = self.turn();
        let length = (mine.len() as u64).to_ne_bytes();
        let lengths = self.gather_lengths(length.to_vec(), &vec![size_of::<u64>(); self.size], limit)?;
        let lengths: Vec<usize> =
            bytemuck::pod_collect_to_vec::<u8, u64>(&lengths).into_iter().map(|length| length as usize).collect();
        let all = self.gather_lengths(mine, &lengths, limit)?;
        let mut rest = &all[..];
        Ok(lengths.into_iter().map(|length| rest.split_off(..length).unwrap_or_default().to_vec()).collect())
    }

    fn broadcast(&self, mine: Vec<u8>, limit: Duration) -> Result<Vec<u8>> {
        let _turn = self.turn();
        let length = self.broadcast_some((mine.len() as u64).to_ne_bytes().to_vec(), limit)?;
        let length = bytemuck::pod_collect_to_vec::<u8, u64>(&length)[0] as usize;
        let mut all = if self.rank == 0 { mine } else { crate::memory::zeroed(length, "what rank 0 sends")? };
        for start in (0..length).step_by(MOST) {
            let part = start..(start + MOST).min(length);
            let sent = self.broadcast_some(all[part.clone()].to_vec(), limit)?;
            all[part].copy_from_slice(&sent);
        }
        Ok(all)
    }

    fn end(&self) {
        let _turn = self.turn();
        // SAFETY: MPI is running, all requests are complete, and no call follows.
        unsafe { (self.calls.finalize)() };
    }

    fn abort(&self, code: i32) -> ! {
        // SAFETY: MPI is running.
        unsafe { (self.calls.abort)(self.calls.world, code) };
        std::process::exit(code)
    }
}

/// A count of MPI.
fn int(value: usize) -> Result<c_int> {
    c_int::try_from(value).map_err(|_| Error::device("MPI", format!("{value} is more than one message holds")))
}

/// MPI ends the program by itself where it fails, so this is a last resort.
fn check(name: &str, code: c_int) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Error::device("MPI", format!("{name} failed with code {code}"))) }
}

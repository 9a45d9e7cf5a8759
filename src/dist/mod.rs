//! One run on several processes, called ranks, that a launcher has started on one machine or many.
//!
//! The one idea: what ranks have in common is a [`World`], and a process that nobody launched is a world of one. A world
//! exchanges bytes and sums vectors through its [`Host`]: MPI, which is looked for at run time only in a process that a launcher
//! has started ([`launch`]), or nothing. Each call has a deadline, so that no rank waits for ever for another that hangs, and sums
//! have an order that does not depend on the number of ranks ([`reduce`]).

pub mod launch;
mod mpi;
pub mod reduce;

use crate::{Error, Result};
pub use launch::Launch;
pub use mpi::library;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Communication between all ranks. A call is made by every rank, in the same order. Buffers move in and come back: one that a
/// call has given up waiting for belongs to the library for ever, and is leaked.
pub trait Host: Send + Sync {
    /// All to all: `send` and `got` are one part per rank, of equal lengths; part `r` of `send` goes to rank `r`, and part `r` of
    /// `got` comes from it. Returns both.
    ///
    /// # Errors
    /// No answer from all ranks within `limit`; a failure of the library.
    fn exchange(&self, send: Vec<f32>, got: Vec<f32>, limit: Duration) -> Result<[Vec<f32>; 2]>;

    /// What each rank gave, in the order of the ranks, on every rank.
    ///
    /// # Errors
    /// As [`Host::exchange`].
    fn gather(&self, mine: Vec<u8>, limit: Duration) -> Result<Vec<Vec<u8>>>;

    /// What rank 0 gave, on every rank.
    ///
    /// # Errors
    /// As [`Host::exchange`].
    fn broadcast(&self, mine: Vec<u8>, limit: Duration) -> Result<Vec<u8>>;

    /// Leaves the world, which all ranks do.
    fn end(&self);

    /// Ends all ranks, those that hang as well.
    fn abort(&self, code: i32) -> !;
}

/// The ranks of a run, and which of them this process is.
#[derive(Clone)]
pub struct World {
    rank: usize,
    size: usize,
    local_rank: usize,
    threads: Option<usize>,
    library: String,
    /// None in a world of one.
    host: Option<Arc<dyn Host>>,
    limit: Duration,
    failed: Arc<AtomicBool>,
}

/// Time for what only one rank does while the others wait, such as hashing all photos before the first step.
const PREPARATION: Duration = Duration::from_secs(3600);

impl World {
    /// This process alone.
    pub fn alone() -> Self {
        Self {
            rank: 0,
            size: 1,
            local_rank: 0,
            threads: None,
            library: String::new(),
            host: None,
            limit: Duration::MAX,
            failed: Arc::default(),
        }
    }

    /// The world that a launcher has started this process in; alone if there is none, or if it started one process.
    /// No rank waits longer than `limit` for the others.
    ///
    /// # Errors
    /// No MPI library; one of another family than the launcher's; no answer from the other ranks.
    pub fn join(launch: Option<&Launch>, limit: Duration) -> Result<Self> {
        let Some(launch) = launch.filter(|launch| launch.size != Some(1)) else { return Ok(Self::alone()) };
        let mpi = mpi::Mpi::start(launch)?;
        let (rank, size, library) = (mpi.rank, mpi.size, mpi.library.clone());
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let mut world = Self { rank, size, library, host: Some(Arc::new(mpi)), limit, ..Self::alone() };
        // Where each rank runs: a rank shares its processors with those on the same machine that may run on one of them.
        let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
        let places = world.gather(format!("{}\n{}", host.trim(), processors()).into_bytes())?;
        let places: Vec<(String, BTreeSet<usize>)> = places.iter().map(|place| parse_place(place)).collect();
        let (here, own) = &places[rank];
        let local = || places.iter().enumerate().filter(|(_, (host, _))| host == here);
        world.local_rank = local().filter(|(other, _)| *other < rank).count();
        let sharing = local().filter(|(other, (_, theirs))| *other == rank || !own.is_disjoint(theirs)).count();
        world.threads = Some((threads / sharing).max(1));
        Ok(world)
    }

    #[cfg(test)]
    pub(crate) fn with(rank: usize, size: usize, host: Arc<dyn Host>) -> Self {
        Self { rank, size, host: Some(host), limit: Duration::from_secs(60), ..Self::alone() }
    }

    /// Number of this rank, from 0.
    pub fn rank(&self) -> usize {
        self.rank
    }

    /// Number of ranks.
    pub fn size(&self) -> usize {
        self.size
    }

    /// Number of ranks below this one on the same machine.
    pub fn local_rank(&self) -> usize {
        self.local_rank
    }

    /// Rank 0 writes files and speaks.
    pub fn is_first(&self) -> bool {
        self.rank == 0
    }

    /// Threads that are this rank's share of the processors that its launcher lets it run on; `None` where nobody launched it.
    pub fn threads(&self) -> Option<usize> {
        self.threads
    }

    /// Name and version of the MPI library; empty in a world of one.
    pub fn library(&self) -> &str {
        &self.library
    }

    /// See [`Host::exchange`].
    ///
    /// # Errors
    /// As there.
    pub fn exchange(&self, send: Vec<f32>, got: Vec<f32>) -> Result<[Vec<f32>; 2]> {
        match &self.host {
            Some(host) => host.exchange(send, got, self.limit),
            None => Ok([got, send]),
        }
    }

    /// See [`Host::gather`].
    ///
    /// # Errors
    /// As there.
    pub fn gather(&self, mine: Vec<u8>) -> Result<Vec<Vec<u8>>> {
        match &self.host {
            Some(host) => host.gather(mine, self.limit),
            None => Ok(vec![mine]),
        }
    }

    /// See [`Host::broadcast`].
    ///
    /// # Errors
    /// As there.
    pub fn broadcast(&self, mine: Vec<u8>) -> Result<Vec<u8>> {
        match &self.host {
            Some(host) => host.broadcast(mine, self.limit),
            None => Ok(mine),
        }
    }

    /// Agrees on the outcome of a part of the work that each rank has done: `mine` if all ranks have succeeded, otherwise the error
    /// of the lowest rank that has not, on every rank. Files that rank 0 alone writes, and photos that one rank alone reads, then
    /// end the run on all of them, and the error is told once.
    ///
    /// # Errors
    /// The error agreed upon; no answer from all ranks in time.
    pub fn agree<T>(&self, mine: Result<T>) -> Result<T> {
        self.agree_within(mine, self.limit)
    }

    /// The same after preparations, which may take longer on one rank than on others.
    ///
    /// # Errors
    /// As [`World::agree`].
    pub fn agree_prepared<T>(&self, mine: Result<T>) -> Result<T> {
        self.agree_within(mine, self.limit.max(PREPARATION))
    }

    fn agree_within<T>(&self, mine: Result<T>, limit: Duration) -> Result<T> {
        let Some(host) = &self.host else { return mine };
        let said = mine.as_ref().err().map_or(String::new(), ToString::to_string);
        let all = host.gather(said.into_bytes(), limit)?;
        let Some(first) = all.iter().position(|said| !said.is_empty()) else { return mine };
        self.failed.store(true, Ordering::Relaxed);
        match mine {
            Err(error) if first == self.rank && first == 0 => Err(error),
            _ => Err(Error::new(format!("rank {first}"), String::from_utf8_lossy(&all[first]))),
        }
    }

    /// Whether all ranks know of the error that ends the run ([`World::agree`]).
    pub fn failed_together(&self) -> bool {
        self.failed.load(Ordering::Relaxed)
    }

    /// Leaves the world: all ranks do so, at the end of a run or after an error that they agreed upon.
    pub fn end(&self) {
        if let Some(host) = &self.host {
            // A rank that hangs here must not make the others wait for ever.
            if host.gather(Vec::new(), self.limit).is_ok() {
                host.end();
            }
        }
    }

    /// Ends all ranks at once, after an error that the others do not know of.
    pub fn abort(&self, code: i32) -> ! {
        match &self.host {
            Some(host) => host.abort(code),
            None => std::process::exit(code),
        }
    }
}

/// The processors that this process may run on, in the kernel's notation (`0-3,8`); empty where that is not known.
fn processors() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    list.unwrap_or_default().trim().to_string()
}

/// Host and processors of a rank.
fn parse_place(place: &[u8]) -> (String, BTreeSet<usize>) {
    let place = String::from_utf8_lossy(place);
    let (host, list) = place.split_once('\n').unwrap_or((&place, ""));
    let numbers = list.split(',').filter_map(|range| {
        let (from, to) = range.split_once('-').unwrap_or((range, range));
        Some(from.parse::<usize>().ok()?..=to.parse().ok()?)
    });
    (host.to_string(), numbers.flatten().collect())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::sync::{Barrier, Mutex, PoisonError};

    /// Ranks that are threads of one process.
    pub struct Threads {
        rank: usize,
        shared: Arc<Shared>,
    }

    struct Shared {
        barrier: Barrier,
        bytes: Mutex<Vec<Vec<u8>>>,
    }

    /// Runs `work` on each rank of a world of `size` ranks.
    pub fn ranks<T: Send>(size: usize, work: impl Fn(World) -> T + Sync) -> Vec<T> {
        let shared = Arc::new(Shared { barrier: Barrier::new(size), bytes: Mutex::new(vec![Vec::new(); size]) });
        std::thread::scope(|scope| {
            let start = |rank| {
                let (shared, work) = (shared.clone(), &work);
                scope.spawn(move || work(World::with(rank, size, Arc::new(Threads { rank, shared }))))
            };
            let all: Vec<_> = (0..size).map(start).collect();
            all.into_iter().map(|rank| rank.join().unwrap()).collect()
        })
    }

    impl Host for Threads {
        fn exchange(&self, send: Vec<f32>, mut got: Vec<f32>, limit: Duration) -> Result<[Vec<f32>; 2]> {
            let all = self.gather(bytemuck::cast_slice(&send).to_vec(), limit)?;
            let part = 4 * send.len() / all.len();
            for (to, from) in bytemuck::cast_slice_mut::<f32, u8>(&mut got).chunks_exact_mut(part).zip(&all) {
                to.copy_from_slice(&from[self.rank * part..(self.rank + 1) * part]);
            }
            Ok([send, got])
        }

        fn gather(&self, mine: Vec<u8>, _: Duration) -> Result<Vec<Vec<u8>>> {
            let bytes = || self.shared.bytes.lock().unwrap_or_else(PoisonError::into_inner);
            bytes()[self.rank] = mine;
            self.shared.barrier.wait();
            let all = bytes().clone();
            self.shared.barrier.wait();
            Ok(all)
        }

        fn broadcast(&self, mine: Vec<u8>, limit: Duration) -> Result<Vec<u8>> {
            Ok(self.gather(mine, limit)?.swap_remove(0))
        }

        fn end(&self) {}

        fn abort(&self, code: i32) -> ! {
            panic!("aborted with {code}")
        }
    }

    #[test]
    fn an_error_of_one_rank_is_that_of_all_and_names_it() {
        let said = ranks(3, |world| {
            assert!(world.agree(Ok(())).is_ok() && !world.failed_together());
            let mine = if world.rank() == 1 { Err(Error::file("a.jpg", "is no photo")) } else { Ok(()) };
            let said = world.agree(mine).unwrap_err().to_string();
            assert!(world.failed_together());
            said
        });
        assert_eq!(said, ["rank 1: a.jpg: is no photo"; 3]);
        let said = ranks(2, |world| world.agree::<()>(Err(Error::file("b", "is missing"))).unwrap_err().to_string());
        assert_eq!(said, ["b: is missing", "rank 0: b: is missing"]);
    }

    #[test]
    fn a_place_is_a_host_and_its_processors() {
        assert_eq!(parse_place(b"n1\n0-2,8"), ("n1".to_string(), BTreeSet::from([0, 1, 2, 8])));
        assert_eq!(parse_place(b"n1\n"), ("n1".to_string(), BTreeSet::new()));
    }
}

//! Prefetching: worker threads decode and augment the next batches while the current one trains.
//!
//! Results are delivered in job order, whatever the timing of the workers. With augmentations that are pure functions of
//! (seed, index), the number of workers then cannot change what a network learns.

use std::any::Any;
use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

/// An iterator over the results of jobs that worker threads run ahead of time. Dropping it ends the workers as soon as
/// each has finished its current job.
pub struct Prefetch<T> {
    shared: Arc<Shared<T>>,
    workers: Vec<JoinHandle<()>>,
}

/// The panic of a job, to be resumed in the consumer.
type Panic = Box<dyn Any + Send>;

struct Shared<T> {
    state: Mutex<State<T>>,
    /// A result was stored, or the jobs ended.
    arrived: Condvar,
    /// The consumer took a result, or was dropped.
    taken: Condvar,
}

struct State<T> {
    /// Finished results, by job.
    done: BTreeMap<usize, Result<T, Panic>>,
    /// Number of results that the consumer has taken: the job it waits for.
    consumed: usize,
    /// Number of jobs, once that is known.
    jobs: Option<usize>,
    stop: bool,
}

/// The jobs; one worker at a time takes the next.
struct Feed<I> {
    jobs: I,
    next: usize,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Runs `work` on each of `jobs` in `workers` threads, at most `depth` results ahead of the consumer (both at
    /// least 1). A job's panic is resumed in the consumer, at that job's position.
    ///
    /// # Panics
    /// If the system cannot start a thread, as [`thread::spawn`].
    pub fn new<J: 'static>(
        workers: usize,
        depth: usize,
        jobs: impl Iterator<Item = J> + Send + 'static,
        work: impl Fn(J) -> T + Send + Sync + 'static,
    ) -> Self {
        let state = State { done: BTreeMap::new(), consumed: 0, jobs: None, stop: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), arrived: Condvar::new(), taken: Condvar::new() });
        let feed = Arc::new(Mutex::new(Feed { jobs, next: 0 }));
        let work = Arc::new(work);
        let worker = || {
            let (shared, feed, work) = (Arc::clone(&shared), Arc::clone(&feed), Arc::clone(&work));
            thread::spawn(move || {
                while let Some((index, job)) = shared.draw(&feed, depth.max(1)) {
                    let result = catch_unwind(AssertUnwindSafe(|| work(job)));
                    lock(&shared.state).done.insert(index, result);
                    shared.arrived.notify_one();
                }
            })
        };
        let workers = (0..workers.max(1)).map(|_| worker()).collect();
        Self { shared, workers }
    }
}

impl<T> Shared<T> {
    /// The next job and its number, as soon as its result may be stored; `None` if there is none or the consumer is gone.
    fn draw<J>(&self, feed: &Mutex<Feed<impl Iterator<Item = J>>>, depth: usize) -> Option<(usize, J)> {
        // The feed stays locked while waiting for room: the other workers could not proceed either.
        let mut feed = lock(feed);
        let wait = |s: &mut State<T>| !s.stop && s.jobs.is_none() && feed.next >= s.consumed + depth;
        let state = self.taken.wait_while(lock(&self.state), wait).unwrap_or_else(PoisonError::into_inner);
        if state.stop || state.jobs.is_some() {
            return None;
        }
        drop(state);
        let index = feed.next;
        match catch_unwind(AssertUnwindSafe(|| feed.jobs.next())) {
            Ok(Some(job)) => {
                feed.next += 1;
                Some((index, job))
            }
            end => {
                let mut state = lock(&self.state);
                state.jobs = Some(index);
                if let Err(panic) = end {
                    state.done.insert(index, Err(panic));
                    state.jobs = Some(index + 1);
                }
                self.arrived.notify_one();
                None
            }
        }
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        let wait = |s: &mut State<T>| !s.done.contains_key(&s.consumed) && s.jobs.is_none_or(|n| s.consumed < n);
        let state = lock(&self.shared.state);
        let mut state = self.shared.arrived.wait_while(state, wait).unwrap_or_else(PoisonError::into_inner);
        let index = state.consumed;
        let result = state.done.remove(&index)?;
        state.consumed += 1;
        drop(state);
        self.shared.taken.notify_one();
        Some(result.unwrap_or_else(|panic| resume_unwind(panic)))
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        lock(&self.shared.state).stop = true;
        self.shared.taken.notify_all();
        for worker in self.workers.drain(..) {
            // Workers catch the panics of jobs, so joining yields no further information.
            let _ = worker.join();
        }
    }
}

/// No state is left inconsistent by a panic here, so poisoning can be ignored.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
    use std::time::{Duration, Instant};

    #[test]
    fn results_come_in_the_order_of_the_jobs() {
        for workers in [1, 2, 7] {
            let out: Vec<u64> = Prefetch::new(workers, 5, 0..60_u64, |i| {
                thread::sleep(Duration::from_micros(i * 7919 % 700));
                i * i
            })
            .collect();
            assert_eq!(out, (0..60).map(|i| i * i).collect::<Vec<u64>>());
        }
    }

    #[test]
    fn workers_stay_at_most_depth_results_ahead() {
        const DEPTH: usize = 3;
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let mut results = Prefetch::new(4, DEPTH, 0..50_usize, move |i| {
            count.fetch_add(1, SeqCst);
            i
        });
        for taken in 0..50 {
            thread::sleep(Duration::from_millis(1));
            let ahead = started.load(SeqCst) - taken;
            assert!(ahead <= DEPTH, "{ahead} ahead");
            assert_eq!(results.next(), Some(taken));
        }
        assert_eq!(results.next(), None);
        assert_eq!(results.next(), None, "the end stays the end");
    }

    #[test]
    fn dropping_it_early_stops_the_workers() {
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let mut results = Prefetch::new(2, 4, 0.., move |_: usize| {
            count.fetch_add(1, SeqCst);
            thread::sleep(Duration::from_millis(2));
        });
        assert_eq!(results.next(), Some(()));
        let begin = Instant::now();
        drop(results);
        assert!(begin.elapsed() < Duration::from_secs(5));
        let after = started.load(SeqCst);
        thread::sleep(Duration::from_millis(20));
        assert_eq!(started.load(SeqCst), after, "a worker outlived its owner");
    }

    #[test]
    fn a_panic_in_a_job_reaches_the_consumer_in_its_turn() {
        let mut results = Prefetch::new(2, 4, 0..6_usize, |i| {
            assert!(i != 3, "job three");
            i
        });
        assert_eq!(results.by_ref().take(3).collect::<Vec<_>>(), [0, 1, 2]);
        let panic = catch_unwind(AssertUnwindSafe(|| results.next())).unwrap_err();
        assert!(panic.downcast_ref::<&str>().is_some_and(|m| m.contains("job three")));
        assert_eq!(results.collect::<Vec<_>>(), [4, 5], "the jobs after it are not lost");
    }

    #[test]
    fn a_panic_in_the_job_iterator_reaches_the_consumer() {
        let jobs = (0..9_usize).inspect(|&i| assert!(i < 2, "no more jobs"));
        let mut results = Prefetch::new(3, 4, jobs, |i| i);
        assert_eq!((results.next(), results.next()), (Some(0), Some(1)));
        assert!(catch_unwind(AssertUnwindSafe(|| results.next())).is_err());
        assert_eq!(results.next(), None);
    }

    #[test]
    fn no_jobs_give_no_results() {
        assert_eq!(Prefetch::new(0, 0, std::iter::empty::<u8>(), |i| i).next(), None);
    }
}

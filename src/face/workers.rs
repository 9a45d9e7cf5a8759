//! Several photos in flight: each worker has its own model, its own thread and its share of the processor's threads. While one waits
//! for the disk, a decoder or the device, others compute; and photos that are computed side by side leave no thread idle, whereas
//! within a photo many layers are too small for all threads.

use crate::{Error, Result};
use rayon::{ThreadPool, ThreadPoolBuilder};
use std::sync::mpsc::sync_channel;

/// Results that a worker may be ahead of the slowest one.
const AHEAD: usize = 8;

/// Workers that share the work on a list.
pub struct Workers<W>(Vec<(W, Option<ThreadPool>)>);

impl<W: Send> Workers<W> {
    /// A single worker, on the calling thread, with all threads.
    pub fn one(worker: W) -> Self {
        Self(vec![(worker, None)])
    }

    /// `count` workers, of which `first` is one; `another` makes one more from it.
    ///
    /// # Errors
    /// Those of `another`; threads that cannot be started.
    pub fn new(first: W, count: usize, another: impl Fn(&W) -> Result<W>) -> Result<Self> {
        if count <= 1 {
            return Ok(Self::one(first));
        }
        let threads = (rayon::current_num_threads() / count).max(1);
        let pool = || {
            let pool = ThreadPoolBuilder::new().num_threads(threads).build();
            pool.map_err(|e| Error::new("threads", e))
        };
        let mut workers = (1..count).map(|_| Ok((another(&first)?, Some(pool()?)))).collect::<Result<Vec<_>>>()?;
        workers.push((first, Some(pool()?)));
        Ok(Self(workers))
    }

    /// Calls `work` for every item, several at a time, and `done` with the results in the order of the items, until `work` returns
    /// `None`: after a `None` no more items are begun, and results after it are dropped.
    ///
    /// # Errors
    /// Those of `done`, after which no more items are begun.
    pub fn run<I: Copy + Sync, T: Send>(
        &mut self,
        items: &[I],
        work: impl Fn(&mut W, I) -> Option<T> + Sync,
        mut done: impl FnMut(I, T) -> Result<()>,
    ) -> Result<()> {
        let (count, work) = (self.0.len(), &work);
        if let [(worker, None)] = &mut self.0[..] {
            for &item in items {
                let Some(result) = work(worker, item) else { break };
                done(item, result)?;
            }
            return Ok(());
        }
        std::thread::scope(|scope| {
            // Item i is worker i modulo the number of workers': the results arrive in order without being sorted.
            let mut results = Vec::with_capacity(count);
            for (number, (worker, pool)) in self.0.iter_mut().enumerate() {
                let (send, receive) = sync_channel(AHEAD);
                results.push(receive);
                scope.spawn(move || {
                    for &item in items.iter().skip(number).step_by(count) {
                        let result = match pool {
                            Some(pool) => pool.install(|| work(worker, item)),
                            None => work(worker, item),
                        };
                        // Nobody receives after an error.
                        let Some(result) = result else { break };
                        if send.send(result).is_err() {
                            break;
                        }
                    }
                });
            }
            for (number, &item) in items.iter().enumerate() {
                let Ok(result) = results[number % count].recv() else { break };
                done(item, result)?;
            }
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    #[test]
    fn results_come_in_order_whoever_is_slow() {
        for count in [1, 2, 3, 7] {
            let mut workers = Workers::new(0, count, |first| Ok(first + 1)).unwrap();
            let items: Vec<usize> = (0..40).collect();
            let mut results = Vec::new();
            let work = |worker: &mut usize, item: usize| {
                *worker += 1;
                std::thread::sleep(Duration::from_micros(300 * (item as u64 * 7 % 5)));
                Some(item * item)
            };
            let done = |item, result| {
                results.push((item, result));
                Ok(())
            };
            workers.run(&items, work, done).unwrap();
            assert_eq!(results, items.iter().map(|item| (*item, item * item)).collect::<Vec<_>>(), "{count} workers");
        }
    }

    #[test]
    fn a_stop_leaves_no_gap_and_an_error_ends_the_work() {
        let mut workers = Workers::new((), 3, |()| Ok(())).unwrap();
        let (items, begun): (Vec<usize>, _) = ((0..1000).collect(), AtomicUsize::new(0));
        let mut results = Vec::new();
        let keep = |_, item| {
            results.push(item);
            Ok(())
        };
        workers.run(&items, |(), item| (item < 50).then_some(item), keep).unwrap();
        assert_eq!(results, items[..50]);
        let work = |(): &mut (), item| {
            begun.fetch_add(1, Ordering::Relaxed);
            Some(item)
        };
        let full = |item, _| if item == 20 { Err(Error::new("file", "full")) } else { Ok(()) };
        assert!(workers.run(&items, work, full).is_err());
        assert!(begun.into_inner() < 100);
    }
}

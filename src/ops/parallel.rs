//! Parallelism within an operation: numbered tasks over threads that each own a slice of the workspace, and a slice that
//! several threads write to at disjoint places.

mod team;

pub use team::awake;

use rayon::prelude::*;
use std::marker::PhantomData;
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Threads of the pool that runs the operations.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Runs `tasks` tasks on all threads, each thread taking the next pending one. `work(task, scratch)` gets
/// `workspace.len() / threads` values of private scratch, contents undefined.
pub fn tasks(count: usize, workspace: &mut [f32], work: impl Fn(usize, &mut [f32]) + Sync) {
    let workers = threads().min(count).max(1);
    let share = workspace.len() / threads();
    if workers == 1 {
        (0..count).for_each(|task| work(task, &mut workspace[..share]));
        return;
    }
    let next = AtomicUsize::new(0);
    let shares = Disjoint::new(workspace);
    let run = |worker: usize| {
        // SAFETY: each worker has a number of its own, below the number of threads.
        let scratch = unsafe { shares.slice(worker * share..(worker + 1) * share) };
        loop {
            let task = next.fetch_add(1, Ordering::Relaxed);
            if task >= count {
                break;
            }
            work(task, scratch);
        }
    };
    if !team::run(&run) {
        (0..workers).into_par_iter().with_max_len(1).for_each(run);
    }
}

/// Part `index` of `0..total` divided into `parts` ranges whose lengths differ by at most one.
pub fn part(total: usize, parts: usize, index: usize) -> Range<usize> {
    (total * index / parts)..(total * (index + 1) / parts)
}

/// Values below which a pass over memory stays on one thread: waking another costs as much as the pass takes.
const SERIAL: usize = 16 * 1024;

/// `f` over matching chunks of `chunk` values of `from` and `to`, in parallel where it pays off.
pub fn zip_chunks(
    from: &[f32],
    from_chunk: usize,
    to: &mut [f32],
    to_chunk: usize,
    f: impl Fn(&[f32], &mut [f32]) + Sync,
) {
    let count = from.len() / from_chunk;
    debug_assert_eq!(count, to.len() / to_chunk);
    let parts = if from.len().max(to.len()) <= SERIAL { 1 } else { count.min(PARTS * threads()) };
    let to = Disjoint::new(to);
    tasks(parts, &mut [], |index, _| {
        for chunk in part(count, parts, index) {
            // SAFETY: chunks do not overlap.
            let to = unsafe { to.slice(chunk * to_chunk..(chunk + 1) * to_chunk) };
            f(&from[chunk * from_chunk..(chunk + 1) * from_chunk], to);
        }
    });
}

/// `f` over matching pieces of two slices of equal length, for elementwise operations.
pub fn zip_values(from: &[f32], to: &mut [f32], f: impl Fn(&[f32], &mut [f32]) + Sync) {
    let len = to.len();
    assert_eq!(from.len(), len);
    let to = Disjoint::new(to);
    tasks(len.div_ceil(SERIAL), &mut [], |index, _| {
        let range = index * SERIAL..((index + 1) * SERIAL).min(len);
        // SAFETY: pieces do not overlap.
        f(&from[range.clone()], unsafe { to.slice(range) });
    });
}

/// Parts per thread of a pass over chunks.
const PARTS: usize = 4;

/// A slice that several threads write to, each its own ranges.
#[derive(Clone, Copy)]
pub struct Disjoint<'a> {
    base: *mut f32,
    len: usize,
    slice: PhantomData<&'a mut [f32]>,
}

// SAFETY: the pointer comes from an exclusive borrow that outlives 'a; `slice`'s contract forbids overlapping use.
unsafe impl Send for Disjoint<'_> {}
// SAFETY: as above.
unsafe impl Sync for Disjoint<'_> {}

impl<'a> Disjoint<'a> {
    pub fn new(slice: &'a mut [f32]) -> Self {
        Self { base: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// The values `range`.
    ///
    /// # Safety
    /// No other live slice of this one may overlap `range`.
    #[allow(clippy::mut_from_ref)]
    pub unsafe fn slice(&self, range: Range<usize>) -> &mut [f32] {
        assert!(range.start <= range.end && range.end <= self.len);
        // SAFETY: inside the borrowed slice by the assertion, and not aliased by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(range.start), range.end - range.start) }
    }

    /// Pointer to value `start`; the `len` values from there are inside the slice. For blocks of a matrix whose rows are shared
    /// with other threads, which no slice may span.
    pub fn pointer(&self, start: usize, len: usize) -> *mut f32 {
        assert!(start <= self.len && len <= self.len - start);
        // SAFETY: inside the borrowed slice by the assertion.
        unsafe { self.base.add(start) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_runs_once_whatever_the_number_of_threads() {
        for count in [0, 1, 2, 7, 100] {
            let mut seen = vec![0.0; count];
            let marks = Disjoint::new(&mut seen);
            let mut workspace = vec![0.0; threads() * 3];
            tasks(count, &mut workspace, |task, scratch| {
                assert_eq!(scratch.len(), 3);
                // SAFETY: each task owns its own index.
                let mark = unsafe { marks.slice(task..task + 1) };
                mark[0] += 1.0;
            });
            assert!(seen.iter().all(|&x| x == 1.0));
        }
    }

    #[test]
    fn parts_tile_the_range() {
        let ends: Vec<_> = (0..3).map(|i| part(10, 3, i)).collect();
        assert_eq!(ends, [0..3, 3..6, 6..10]);
    }
}

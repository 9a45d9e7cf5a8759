//! The roofs of this processor, measured where they are used: a large product of matrices by the engine's own routine, and sums of
//! vectors ("triad", a = b + s c) that fit in a core's cache, or in none.

use crate::Result;
use crate::device::Peaks;
use crate::memory;
use crate::ops::parallel::{Disjoint, part, tasks, threads};
use crate::ops::product::{Matrix, product};
use std::time::Instant;

/// Rows, columns and depth of the product: some runs of it are so short that nothing else interrupts them.
const SIDE: usize = 512;
/// Bytes of the three vectors, of each thread and of all together. 192 MB exceed the last cache of most processors.
const IN_CACHE: usize = 384 << 10;
const IN_MEMORY: usize = 192 << 20;
/// Each is run for so long and so often, at least; the best run counts.
const SECONDS: f64 = 0.25;
const RUNS: usize = 5;

/// Rates of all threads together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Host {
    /// FLOP/s of f32 products.
    pub flops: f64,
    /// Bytes per second from a core's own cache.
    pub cache: f64,
    /// Bytes per second from memory.
    pub memory: f64,
}

impl Host {
    /// Measures them, in about a second.
    ///
    /// # Errors
    /// No memory for the vectors.
    pub fn measure() -> Result<Self> {
        Ok(Self { flops: multiply()?, cache: triad(IN_CACHE * threads())?, memory: triad(IN_MEMORY)? })
    }

    /// The same as the peaks of a device; there is one precision.
    pub fn peaks(self) -> Peaks {
        Peaks { f32: self.flops, tf32: self.flops, half: self.flops, memory: self.memory }
    }
}

/// `amount` over the seconds of the fastest run.
fn best(amount: f64, mut run: impl FnMut()) -> f64 {
    let (start, mut least, mut runs) = (Instant::now(), f64::INFINITY, 0);
    while runs < RUNS || start.elapsed().as_secs_f64() < SECONDS {
        runs += 1;
        let began = Instant::now();
        run();
        least = least.min(began.elapsed().as_secs_f64());
    }
    amount / least.max(f64::MIN_POSITIVE)
}

fn ones(len: usize) -> Result<Vec<f32>> {
    let mut values = memory::reserve(len, "measuring the roofs")?;
    values.resize(len, 1.0);
    Ok(values)
}

fn multiply() -> Result<f64> {
    let (a, b, mut c) = (ones(SIDE * SIDE)?, ones(SIDE * SIDE)?, ones(SIDE * SIDE)?);
    let strips = (2 * threads()).min(SIDE / 32);
    Ok(best(2.0 * (SIDE * SIDE * SIDE) as f64, || {
        let c = Disjoint::new(&mut c);
        tasks(strips, &mut [], |strip, _| {
            let rows = part(SIDE, strips, strip);
            // SAFETY: strips do not overlap.
            let c = unsafe { c.slice(rows.start * SIDE..rows.end * SIDE) };
            let a = &a[rows.start * SIDE..rows.end * SIDE];
            product([rows.len(), SIDE, SIDE], Matrix::rows(a, SIDE), Matrix::rows(&b, SIDE), c, SIDE, false);
        });
    }))
}

/// Bytes per second over three vectors of `bytes` together.
fn triad(bytes: usize) -> Result<f64> {
    /// Passes before the threads meet again, so that meeting costs nothing beside a pass in a cache.
    const PASSES: usize = 64 << 20;
    let len = bytes / 12;
    let (b, c, mut a) = (ones(len)?, ones(len)?, ones(len)?);
    let (parts, passes) = (threads(), (PASSES / bytes).max(1));
    Ok(best((passes * 12 * len) as f64, || {
        let a = Disjoint::new(&mut a);
        tasks(parts, &mut [], |index, _| {
            let range = part(len, parts, index);
            // SAFETY: parts do not overlap.
            let a = unsafe { a.slice(range.clone()) };
            let (b, c) = (&b[range.clone()], &c[range]);
            for pass in 0..passes {
                let scale = pass as f32;
                a.iter_mut().zip(b).zip(c).for_each(|((a, b), c)| *a = b + scale * c);
                std::hint::black_box(&mut *a);
            }
        });
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Other tests share the threads, so a measurement may be of little but waiting; not each of twenty.
    #[test]
    fn a_cache_is_no_slower_than_memory() {
        let holds = |host: &Host| host.flops > 1e8 && host.memory > 1e8 && host.cache > 0.8 * host.memory;
        let measured: Vec<Host> = (0..20).map(|_| Host::measure().unwrap()).take_while(|host| !holds(host)).collect();
        assert!(measured.len() < 20, "{measured:?}");
    }
}

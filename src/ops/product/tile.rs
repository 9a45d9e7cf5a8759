//! The micro-kernel.

use super::COLUMNS;
use super::vector::Vector;
use std::mem::MaybeUninit;

/// A run of steps of k whose values of A are equidistant in memory: it starts `from` values behind the row's first one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    pub from: usize,
    pub len: usize,
}

/// What is done with finished sums before they are stored.
#[derive(Clone, Copy)]
pub(super) struct Finish {
    /// Added to each row: as many values as the tile has columns; null for none.
    pub bias: *const f32,
    pub relu: bool,
}

impl Default for Finish {
    fn default() -> Self {
        Self { bias: std::ptr::null(), relu: false }
    }
}

/// What a micro-kernel computes: `c[rows, columns] (+)= a[rows, k] b[k, columns]`.
pub(super) struct Tile<'a> {
    pub k: usize,
    /// `k` steps in all, none of no steps.
    pub runs: &'a [Run],
    pub a: *const f32,
    pub a_row: usize,
    pub a_column: usize,
    /// Rows of whole vectors.
    pub b: *const f32,
    pub b_row: usize,
    pub c: *mut f32,
    pub c_row: usize,
    pub columns: usize,
    pub add: bool,
    pub finish: Finish,
}

/// R x N vectors of C stay in registers over all of k. `UNIT`: rows of A are contiguous.
///
/// # Safety
/// `t` must describe valid blocks, B's of whole vectors, with `columns` in `(N - 1) * LANES + 1 ..= N * LANES`; the caller must
/// be compiled for `V`'s instructions, which the processor must have.
#[inline(always)]
pub(super) unsafe fn tile<V: Vector, const R: usize, const N: usize, const UNIT: bool>(t: &Tile<'_>) {
    let a_row = if UNIT { 1 } else { t.a_row };
    let mut stored = Sums([MaybeUninit::uninit(); ROWS * COLUMNS]);
    let stored = stored.0.as_mut_ptr().cast::<f32>();
    // SAFETY: all addresses are inside the blocks by the contract; R x N vectors fit in `Sums`.
    unsafe {
        let mut sums = [[V::splat(0.0); N]; R];
        let (mut a, mut b) = (t.a, t.b);
        let (mut run, mut left) = (t.runs.as_ptr(), 0);
        // One loop over the steps of all runs: of two nested ones, the sums do not stay in their registers.
        for _ in 0..t.k {
            if left == 0 {
                (a, left) = (t.a.add((*run).from), (*run).len);
                run = run.add(1);
            }
            left -= 1;
            let mut line = [V::splat(0.0); N];
            unrolled::<N>(
                #[inline(always)]
                |v| line[v] = V::load(b.add(v * V::LANES)),
            );
            unrolled::<R>(
                #[inline(always)]
                |r| {
                    let value = V::splat(*a.add(r * a_row));
                    unrolled::<N>(
                        #[inline(always)]
                        |v| sums[r][v] = sums[r][v].multiply_add(value, line[v]),
                    );
                },
            );
            // Beyond the block after the last step.
            (a, b) = (a.wrapping_add(t.a_column), b.wrapping_add(t.b_row));
        }
        unrolled::<R>(
            #[inline(always)]
            |r| {
                unrolled::<N>(
                    #[inline(always)]
                    |v| sums[r][v].store(stored.add((r * N + v) * V::LANES)),
                );
            },
        );
        if t.columns == N * V::LANES {
            finish::<V, N>(t, stored, R);
        } else {
            finish_narrow(t, stored, R, N * V::LANES);
        }
    }
}

/// `f(0)` to `f(COUNT - 1)`. A loop would be unrolled by the compiler too, but it decides by size, and a single loop that is left
/// keeps the sums, which it indexes, in memory: at 14 rows every multiply-add was followed by a store, at half the speed.
#[inline(always)]
fn unrolled<const COUNT: usize>(mut f: impl FnMut(usize)) {
    macro_rules! calls {
        ($($index:literal)*) => {
            $(if $index < COUNT {
                f($index);
            })*
        };
    }
    const { assert!(COUNT <= ROWS) };
    calls!(0 1 2 3 4 5 6 7 8 9 10 11 12 13);
}

/// Rows of the largest tile.
const ROWS: usize = 14;

/// The sums of a tile, row by row.
#[repr(align(64))]
struct Sums([MaybeUninit<f32>; ROWS * COLUMNS]);

/// Adds what C holds and the bias to the sums of a tile of whole vectors, rectifies and stores.
///
/// # Safety
/// As [`tile`]; `sums` are `rows` x N vectors.
#[inline(always)]
unsafe fn finish<V: Vector, const N: usize>(t: &Tile<'_>, sums: *const f32, rows: usize) {
    // SAFETY: by the contract.
    unsafe {
        let mut bias = [V::splat(0.0); N];
        if !t.finish.bias.is_null() {
            for (v, bias) in bias.iter_mut().enumerate() {
                *bias = V::load(t.finish.bias.add(v * V::LANES));
            }
        }
        for r in 0..rows {
            for (v, bias) in bias.iter().enumerate() {
                let c = t.c.add(r * t.c_row + v * V::LANES);
                let mut sum = V::load(sums.add((r * N + v) * V::LANES));
                if t.add {
                    sum = V::load(c).add(sum);
                }
                if !t.finish.bias.is_null() {
                    sum = sum.add(*bias);
                }
                if t.finish.relu { sum.relu() } else { sum }.store(c);
            }
        }
    }
}

/// The same one value at a time, for a tile whose last vector is not whole.
///
/// # Safety
/// As [`tile`]; `sums` are `rows` rows of `width` values.
unsafe fn finish_narrow(t: &Tile<'_>, sums: *const f32, rows: usize, width: usize) {
    for r in 0..rows {
        for j in 0..t.columns {
            // SAFETY: by the contract.
            unsafe {
                let c = t.c.add(r * t.c_row + j);
                let mut sum = *sums.add(r * width + j);
                if t.add {
                    sum += *c;
                }
                if !t.finish.bias.is_null() {
                    sum += *t.finish.bias.add(j);
                }
                *c = if t.finish.relu && sum <= 0.0 { 0.0 } else { sum };
            }
        }
    }
}

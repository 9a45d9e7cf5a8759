//! Gradients of filters: products of transposed windows with gradients of the output, both read where they stand.

use super::packed::{Strip, Strips};
use super::tile::{Finish, Run, Tile};
use super::vector::{Portable, Vector};
use super::{COLUMNS, DEPTH, Level, Panel, pack_panel};
use smallvec::SmallVec;
use std::mem::MaybeUninit;
use std::ops::Range;

/// Most windows of one [`Strips::multiply_transposed`].
pub const MOST_WINDOWS: usize = DEPTH;

struct Work<'a> {
    of: &'a Strips<'a>,
    /// The strips' places in the map, as steps of k.
    places: &'a [Run],
    strips: &'a [Strip],
    first: usize,
    taps: Range<usize>,
    d_output: *const f32,
    n: usize,
    c: *mut f32,
    add: bool,
}

impl Strips<'_> {
    /// `to[taps, n] (+)= X^T dY`: X the windows of at most [`MOST_WINDOWS`] windows in all, of which only `taps` are read, dY the
    /// gradients of their results, at the strips' `to`. `first` is as in [`Strips::multiply`].
    #[allow(clippy::too_many_arguments)]
    pub fn multiply_transposed(
        &self,
        strips: &[Strip],
        first: usize,
        taps: Range<usize>,
        d_output: &[f32],
        n: usize,
        to: &mut [f32],
        add: bool,
    ) {
        assert!(strips.iter().map(|strip| strip.len).sum::<usize>() <= MOST_WINDOWS && to.len() == taps.len() * n);
        for strip in strips {
            self.check(strip, first);
            assert!(strip.window == 0 && strip.to + (strip.len - 1) * self.steps[1] + n <= d_output.len());
        }
        let places: SmallVec<[Run; 64]> = strips.iter().map(|strip| Run { from: strip.from, len: strip.len }).collect();
        let (d_output, c) = (d_output.as_ptr(), to.as_mut_ptr());
        let work = Work { of: self, places: &places, strips, first, taps, d_output, n, c, add };
        // SAFETY: windows and gradients are inside their slices by the assertions; the processor has the detected instructions.
        unsafe {
            match Level::detect() {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => avx512(&work),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => avx2(&work),
                _ => transposed::<Portable>(&work),
            }
        }
    }
}

/// # Safety
/// As [`transposed`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512(work: &Work<'_>) {
    // SAFETY: the caller's promise.
    unsafe { transposed::<super::vector::Zmm>(work) }
}

/// # Safety
/// As [`transposed`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(work: &Work<'_>) {
    // SAFETY: the caller's promise.
    unsafe { transposed::<super::vector::Ymm>(work) }
}

/// A panel of gradients is packed, then multiplied with all taps: taps of a run are contiguous rows, and windows are the steps.
///
/// # Safety
/// All windows and gradients must be inside their slices, at most `DEPTH` in all; the caller must be compiled for `V`'s
/// instructions, which the processor must have.
#[inline(always)]
unsafe fn transposed<V: Vector>(work: &Work<'_>) {
    let Work { of, places, strips, n, .. } = *work;
    let mut panel = Panel([MaybeUninit::uninit(); DEPTH * COLUMNS]);
    let panel = panel.0.as_mut_ptr().cast::<f32>();
    for column in (0..n).step_by(2 * V::LANES) {
        let columns = (2 * V::LANES).min(n - column);
        let vectors = columns.div_ceil(V::LANES);
        let width = vectors * V::LANES;
        let mut depth = 0;
        for strip in strips {
            // SAFETY: reads are inside the gradients, writes inside the panel, by the contract.
            unsafe {
                let from = work.d_output.add(strip.to + column);
                pack_panel::<V>(from, [of.steps[1], 1], [strip.len, columns], panel.add(depth * width), width);
            }
            depth += strip.len;
        }
        let mut tap = 0;
        for run in &of.runs[..of.count()] {
            let own = work.taps.start.max(tap)..work.taps.end.min(tap + run.len);
            let blocks = own.len().div_ceil(V::ROWS);
            for block in 0..blocks {
                let [start, end] = [block, block + 1].map(|block| own.start + own.len() * block / blocks);
                // SAFETY: by the contract; a block has `ROWS` taps at most.
                unsafe {
                    let tile = Tile {
                        k: depth,
                        runs: places,
                        a: of.map.as_ptr().add(work.first + run.from + start - tap),
                        a_row: 1,
                        a_column: of.steps[0],
                        b: panel,
                        b_row: width,
                        c: work.c.add((start - work.taps.start) * n + column),
                        c_row: n,
                        columns,
                        add: work.add,
                        finish: Finish::default(),
                    };
                    V::tile::<true>(end - start, vectors, &tile);
                }
            }
            tap += run.len;
        }
    }
}

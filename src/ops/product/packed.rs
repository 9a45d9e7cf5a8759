//! Products of windows of a map with filters that are packed once.
//!
//! Filters `[k, n]` are packed as panels of two vectors, `[panel][k][columns]`, so that every panel is one stream, in the order in
//! which the micro-kernel reads it. Where a net's parameters do not change, they are packed once for all passes; otherwise once
//! per pass instead of once per tile.
//!
//! The left operand is never built: windows that follow each other along a line of a map begin a constant step apart, which is
//! all that a micro-kernel asks of the rows of A, and within a window each line of taps is a [`Run`]. A 3 x 3 window over 64
//! channels is three runs of 192 values. Bias and rectifier are applied in registers, when the last sums are stored.

use super::tile::{Finish, Run, Tile};
use super::vector::{Portable, Vector};
use super::{Level, Matrix, depths, pack_panel};
use crate::ops::parallel::Disjoint;
use std::ops::Range;

/// Columns of a panel.
fn width(level: Level) -> usize {
    2 * match level {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512 => super::vector::Zmm::LANES,
        #[cfg(target_arch = "x86_64")]
        Level::Avx2 => super::vector::Ymm::LANES,
        _ => Portable::LANES,
    }
}

/// Values of `[k, n]` when packed: columns are padded to whole vectors.
pub fn packed_len(k: usize, n: usize) -> usize {
    k * n.next_multiple_of(width(Level::detect()) / 2)
}

/// Packs panel `panel` of `from` `[k, n]` into its place in `to`, which has [`packed_len`] values. There are
/// [`Packed::panels`] panels.
pub fn pack(k: usize, n: usize, from: Matrix<'_>, panel: usize, to: &Disjoint<'_>, at: usize) {
    let level = Level::detect();
    let place = Packed::place(level, k, n, panel);
    let columns = columns(level, n, panel);
    assert!((k - 1) * from.row + (columns.end - 1) * from.column < from.values.len());
    let width = place.len() / k;
    let to = to.pointer(at + place.start, place.len());
    // SAFETY: reads are inside `from` by the assertion, writes inside the panel's place by `pointer`.
    unsafe {
        let start = from.values.as_ptr().add(columns.start * from.column);
        let (steps, size) = ([from.row, from.column], [k, columns.len()]);
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => pack_avx512(start, steps, size, to, width),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => pack_avx2(start, steps, size, to, width),
            _ => pack_panel::<Portable>(start, steps, size, to, width),
        }
    }
}

/// # Safety
/// As [`pack_panel`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn pack_avx512(from: *const f32, steps: [usize; 2], size: [usize; 2], to: *mut f32, width: usize) {
    // SAFETY: the caller's promise.
    unsafe { pack_panel::<super::vector::Zmm>(from, steps, size, to, width) }
}

/// # Safety
/// As [`pack_panel`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn pack_avx2(from: *const f32, steps: [usize; 2], size: [usize; 2], to: *mut f32, width: usize) {
    // SAFETY: the caller's promise.
    unsafe { pack_panel::<super::vector::Ymm>(from, steps, size, to, width) }
}

fn columns(level: Level, n: usize, panel: usize) -> Range<usize> {
    let width = width(level);
    panel * width..((panel + 1) * width).min(n)
}

/// Packed filters `[k, n]`.
#[derive(Clone, Copy)]
pub struct Packed<'a> {
    values: &'a [f32],
    k: usize,
    n: usize,
}

impl<'a> Packed<'a> {
    /// `values` as [`pack`] has written them.
    pub fn new(values: &'a [f32], k: usize, n: usize) -> Self {
        assert_eq!(values.len(), packed_len(k, n));
        Self { values, k, n }
    }

    /// Panels of `n` columns.
    pub fn panels(n: usize) -> usize {
        n.div_ceil(width(Level::detect()))
    }

    /// Columns of some panels.
    pub fn columns(n: usize, panels: &Range<usize>) -> Range<usize> {
        let width = width(Level::detect());
        panels.start * width..(panels.end * width).min(n)
    }

    fn place(level: Level, k: usize, n: usize, panel: usize) -> Range<usize> {
        let columns = columns(level, n, panel);
        let start = columns.start * k;
        start..start + k * columns.len().next_multiple_of(width(level) / 2)
    }
}

/// Windows of a map side by side.
#[derive(Debug, Clone, Copy)]
pub struct Strip {
    /// The first window's first value in the map.
    pub from: usize,
    /// The first window's first result in the output.
    pub to: usize,
    /// Number of windows.
    pub len: usize,
    /// Which of the [`Strips`]' windows they are.
    pub window: usize,
}

/// What the strips of a layer have in common. Usually all windows consist of the same runs; where a window is put together of
/// several maps, each strip has its own, of the same lengths.
pub struct Strips<'a> {
    pub(super) map: &'a [f32],
    /// Runs of each window, cut where the sums are stored in between.
    pub(super) runs: Vec<Run>,
    /// The runs of each part of k within a window's.
    parts: Vec<Range<usize>>,
    /// For each window, values from its beginning to its last value.
    reach: Vec<usize>,
    /// Values between adjacent windows in the map, and between their results.
    pub(super) steps: [usize; 2],
}

impl<'a> Strips<'a> {
    /// Windows in `map` of which each consists of as many of `runs` as the first: those with the sum of lengths `k`.
    pub fn new(map: &'a [f32], k: usize, runs: impl IntoIterator<Item = Run>, steps: [usize; 2]) -> Self {
        let mut strips = Self { map, runs: Vec::new(), parts: Vec::new(), reach: Vec::new(), steps };
        let mut runs = runs.into_iter().filter(|run| run.len > 0).peekable();
        while runs.peek().is_some() {
            let (start, mut reach) = (strips.runs.len(), 0);
            let mut run = Run { from: 0, len: 0 };
            for steps in depths(k) {
                let (first, mut wanted) = (strips.runs.len(), steps.len());
                while wanted > 0 {
                    if run.len == 0 {
                        run = runs.next().expect("whole windows");
                        reach = reach.max(run.from + run.len - 1);
                    }
                    let len = run.len.min(wanted);
                    strips.runs.push(Run { from: run.from, len });
                    run = Run { from: run.from + len, len: run.len - len };
                    wanted -= len;
                }
                if strips.reach.is_empty() {
                    strips.parts.push(first..strips.runs.len());
                }
            }
            assert!(run.len == 0 && (strips.runs.len() - start) * (strips.reach.len() + 1) == strips.runs.len());
            strips.reach.push(reach);
        }
        strips
    }

    /// Panics if a window of a strip is not inside the map.
    pub(super) fn check(&self, strip: &Strip, first: usize) {
        let last = strip.from + first + (strip.len - 1) * self.steps[0] + self.reach[strip.window];
        assert!(strip.len > 0 && last < self.map.len());
    }

    /// Runs of a window.
    pub(super) fn count(&self) -> usize {
        self.parts.last().map_or(0, |part| part.end)
    }

    /// `output[window, columns] = finish(windows filters)` of the strips and of the columns of `panels`. A strip's `to` and `bias`
    /// count from the first of all columns. `first` is added to the index of every value of the map: the first channel of a group.
    ///
    /// # Safety
    /// No other thread may touch these columns of these strips' results meanwhile.
    #[allow(clippy::too_many_arguments)]
    pub unsafe fn multiply(
        &self,
        strips: &[Strip],
        first: usize,
        filters: Packed<'_>,
        panels: Range<usize>,
        bias: Option<&[f32]>,
        relu: bool,
        output: &Disjoint<'_>,
    ) {
        let n = filters.n;
        assert!(bias.is_none_or(|bias| bias.len() == n) && panels.end <= Packed::panels(n));
        assert_eq!(self.runs[..self.count()].iter().map(|run| run.len).sum::<usize>(), filters.k);
        for strip in strips {
            self.check(strip, first);
            output.pointer(strip.to, (strip.len - 1) * self.steps[1] + n);
        }
        let work = Work { of: self, strips, first, filters, panels, bias, relu, c: output.pointer(0, 0) };
        // SAFETY: all windows are inside the map and all results inside the output by the assertions; the processor has the
        // detected instructions.
        unsafe {
            match Level::detect() {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512 => avx512(&work),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2 => avx2(&work),
                _ => panels_of_strips::<Portable>(Level::Baseline, &work),
            }
        }
    }
}

struct Work<'a> {
    of: &'a Strips<'a>,
    strips: &'a [Strip],
    first: usize,
    filters: Packed<'a>,
    panels: Range<usize>,
    bias: Option<&'a [f32]>,
    relu: bool,
    c: *mut f32,
}

/// # Safety
/// As [`panels_of_strips`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512(work: &Work<'_>) {
    // SAFETY: the caller's promise.
    unsafe { panels_of_strips::<super::vector::Zmm>(Level::Avx512, work) }
}

/// # Safety
/// As [`panels_of_strips`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(work: &Work<'_>) {
    // SAFETY: the caller's promise.
    unsafe { panels_of_strips::<super::vector::Ymm>(Level::Avx2, work) }
}

/// # Safety
/// The windows must be inside the map and the results inside the output, which no other thread touches; the caller must be
/// compiled for `V`'s instructions, which the processor must have.
#[inline(always)]
unsafe fn panels_of_strips<V: Vector>(level: Level, work: &Work<'_>) {
    let Work { of, filters: Packed { values, k, n }, c, .. } = *work;
    for panel in work.panels.clone() {
        let columns = columns(level, n, panel);
        let place = Packed::place(level, k, n, panel);
        let width = place.len() / k;
        let mut done = 0;
        for (number, part) in of.parts.iter().enumerate() {
            let is_last = number + 1 == of.parts.len();
            let bias = work.bias.filter(|_| is_last).map_or(std::ptr::null(), |bias| bias[columns.clone()].as_ptr());
            let depth: usize = of.runs[part.clone()].iter().map(|run| run.len).sum();
            let b = values[place.start + done * width..].as_ptr();
            for strip in work.strips {
                // Blocks differ by at most one window: a block of few would be bound by the latency of its multiply-adds.
                let blocks = strip.len.div_ceil(V::ROWS);
                let runs = &of.runs[strip.window * of.count()..][part.clone()];
                for block in 0..blocks {
                    let [window, end] = [block, block + 1].map(|block| strip.len * block / blocks);
                    // SAFETY: by the contract; a block has `ROWS` windows at most.
                    unsafe {
                        let tile = Tile {
                            k: depth,
                            runs,
                            a: of.map.as_ptr().add(strip.from + work.first + window * of.steps[0]),
                            a_row: of.steps[0],
                            a_column: 1,
                            b,
                            b_row: width,
                            c: c.add(strip.to + window * of.steps[1] + columns.start),
                            c_row: of.steps[1],
                            columns: columns.len(),
                            add: number > 0,
                            finish: Finish { bias, relu: work.relu && is_last },
                        };
                        V::tile::<false>(end - window, width / V::LANES, &tile);
                    }
                }
            }
            done += depth;
        }
    }
}

//! Single-threaded matrix products, one per tile of a layer.
//!
//! Register blocking as in GotoBLAS (Goto and van de Geijn, 2008), except that A is never packed. A micro-kernel holds
//! `ROWS` rows x 2 vectors of C in registers; each step of k loads two vectors of B and broadcasts a value of A per row.
//! B is divided into panels two vectors wide and `DEPTH` deep, packed immediately before use, so that a panel stays in L1
//! while all rows of A are multiplied with it; A is read in place, from L2. For the products of this library's layers (32 to 512
//! rows, 32 to 384 columns, 75 to 1,024 deep) packing A would cost up to a quarter of the arithmetic, and packing all of B at once
//! would read it from memory twice.
//!
//! Convolutions are products as well, but with filters packed once and windows read where they stand: packed.rs and gradient.rs.
//! Both use the micro-kernel of tile.rs.
//!
//! On one core of a Sapphire Rapids Xeon, in GFLOP/s, the fastest of five alternations of AVX2 and AVX-512:
//!
//! | product (m x n x k) | AVX2 | AVX-512 |
//! |---|---|---|
//! | 169 x 384 x 256 | 78 | 152 |
//! | 113 x 96 x 576 | 77 | 145 |
//! | 36 x 96 x 576 | 68 | 120 |
//! | 512 x 32 x 75 | 76 | 150 |
//! | 16 x 64 x 3200 | 54 | 123 |
//! | 1 x 64 x 3200 (memory-bound) | 15 | 24 |
//! | 256 x 384 x 256, A transposed | 73 | 154 |
//! | 256 x 256 x 384, B transposed | 79 | 149 |
//!
//! | windows and packed filters | AVX2 | AVX-512 |
//! |---|---|---|
//! | ANet's C1: lines of 84 windows, 75 taps, 32 filters | 78 | 158 |
//! | ANet's C2: 40 windows, 288 taps, 64 filters | 81 | 163 |
//! | ANet's C3 of one patch: 6 lines of 6 windows, 576 taps, 96 filters | 82 | 142 |
//! | ANet's C4 of one patch: 5 lines of 5 windows, 384 taps, 128 filters | 75 | 122 |
//! | LNet's C1: 55 windows, 363 taps, 96 filters | 78 | 159 |
//! | LNet's C2: 27 windows, 2,400 taps, 256 filters | 78 | 152 |
//! | LNet's C3: 13 windows, 2,304 taps, 384 filters | 70 | 146 |
//!
//! The value at (i, j) is a chain of fused multiply-adds in ascending order of k, broken into equal parts of at most `DEPTH` steps. It does not
//! depend on the tiling of rows and columns, on the number of threads, or on whether AVX2 or AVX-512 is used. Without FMA
//! each step rounds twice, and the last bits differ.

mod gradient;
mod packed;
mod tile;
mod vector;

pub use gradient::MOST_WINDOWS;
pub use packed::{Packed, Strip, Strips, pack, packed_len};
pub use tile::Run;

use super::parallel::part;
use super::simd::Level;
use std::mem::MaybeUninit;
use std::ops::Range;
use tile::{Finish, Tile};
use vector::{Portable, Vector};

/// A matrix in memory: its values, and the strides of rows and columns.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub column: usize,
}

impl<'a> Matrix<'a> {
    /// Contiguous rows of `row` values.
    pub fn rows(values: &'a [f32], row: usize) -> Self {
        Self { values, row, column: 1 }
    }

    pub fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }
}

/// `to[m, n] (+)= a[m, k] b[k, n]`, `to` row-major with a stride of `row` values.
pub fn product(size: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, to: &mut [f32], row: usize, add: bool) {
    let [m, n, _] = size;
    assert!(n <= row && (m - 1) * row + n <= to.len());
    // SAFETY: by the assertion the block lies inside `to`, which is borrowed exclusively.
    unsafe { product_into(size, a, b, to.as_mut_ptr(), row, add) }
}

/// [`product`] into a block whose rows may be shared with other threads.
///
/// # Safety
/// `to` must be valid for the `m` x `n` block, and no other thread may touch that block.
pub unsafe fn product_into(size: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, to: *mut f32, row: usize, add: bool) {
    // SAFETY: the caller's promise; the processor has the detected instructions.
    unsafe { product_with(Level::detect(), size, a, b, to, row, add) }
}

/// [`product_into`] with given instructions.
///
/// # Safety
/// As [`product_into`]; the processor must have `level`.
unsafe fn product_with(
    level: Level,
    [m, n, k]: [usize; 3],
    a: Matrix<'_>,
    b: Matrix<'_>,
    to: *mut f32,
    row: usize,
    add: bool,
) {
    let inside =
        |x: Matrix<'_>, rows: usize, columns: usize| (rows - 1) * x.row + (columns - 1) * x.column < x.values.len();
    assert!(m > 0 && n > 0 && k > 0 && inside(a, m, k) && inside(b, k, n));
    let operands = Operands { size: [m, n, k], a, b, c: to, c_row: row, add };
    // SAFETY: every index into `a` and `b` is inside its slice by the assertion, every one into `to` by the contract.
    unsafe {
        match level {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512 => avx512(&operands),
            #[cfg(target_arch = "x86_64")]
            Level::Avx2 => avx2(&operands),
            _ => panels::<Portable>(&operands),
        }
    }
}

/// # Safety
/// As [`panels`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx2,fma")]
unsafe fn avx512(operands: &Operands<'_>) {
    // SAFETY: the caller's promise.
    unsafe { panels::<vector::Zmm>(operands) }
}

/// # Safety
/// As [`panels`].
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
unsafe fn avx2(operands: &Operands<'_>) {
    // SAFETY: the caller's promise.
    unsafe { panels::<vector::Ymm>(operands) }
}

/// Most steps of k between two updates of C. With 32 columns a panel takes 40 KB.
const DEPTH: usize = 320;
/// Columns of the widest panel.
const COLUMNS: usize = 32;

/// Parts of `0..k` of at most [`DEPTH`] steps, as even as possible: a short last part would load and store C for little.
fn depths(k: usize) -> impl Iterator<Item = Range<usize>> {
    let parts = k.div_ceil(DEPTH);
    (0..parts).map(move |index| part(k, parts, index))
}

/// Blocks of rows up to which B is read in place: two uses do not pay for packing a panel.
const UNPACKED: usize = 2;

/// A panel of B: at most `DEPTH` rows, as wide as its vectors; columns beyond B's are zeros.
#[repr(align(64))]
struct Panel([MaybeUninit<f32>; DEPTH * COLUMNS]);

struct Operands<'a> {
    size: [usize; 3],
    a: Matrix<'a>,
    b: Matrix<'a>,
    c: *mut f32,
    c_row: usize,
    add: bool,
}

/// # Safety
/// The operands must be valid for `size`; the caller must be compiled for `V`'s instructions, which the processor must have.
#[inline(always)]
unsafe fn panels<V: Vector>(operands: &Operands<'_>) {
    let Operands { size: [m, n, k], a, b, c, c_row, add } = *operands;
    let mut panel = Panel([MaybeUninit::uninit(); DEPTH * COLUMNS]);
    let panel = panel.0.as_mut_ptr().cast::<f32>();
    // Blocks of rows differ by at most one row: a block of few rows would be bound by the latency of its multiply-adds.
    let blocks = m.div_ceil(V::ROWS);
    for steps in depths(k) {
        let (k_start, depth) = (steps.start, steps.len());
        for column in (0..n).step_by(2 * V::LANES) {
            let columns = (2 * V::LANES).min(n - column);
            let vectors = columns.div_ceil(V::LANES);
            let width = vectors * V::LANES;
            // SAFETY: `depth` rows and `columns` columns from here are inside `b`; a panel holds `depth` x `width` values.
            // In place, `columns` are whole vectors.
            let (b, b_row) = unsafe {
                let from = b.values.as_ptr().add(k_start * b.row + column * b.column);
                if blocks <= UNPACKED && b.column == 1 && columns == width {
                    (from, b.row)
                } else {
                    pack_panel::<V>(from, [b.row, b.column], [depth, columns], panel, width);
                    (panel.cast_const(), width)
                }
            };
            for block in 0..blocks {
                let [row, end] = [block, block + 1].map(|block| m * block / blocks);
                // SAFETY: the rows and columns of a tile are inside the operands; a block has `ROWS` rows at most.
                unsafe {
                    let tile = Tile {
                        k: depth,
                        runs: &[Run { from: 0, len: depth }],
                        a: a.values.as_ptr().add(row * a.row + k_start * a.column),
                        a_row: a.row,
                        a_column: a.column,
                        b,
                        b_row,
                        c: c.add(row * c_row + column),
                        c_row,
                        columns,
                        add: add || k_start > 0,
                        finish: Finish::default(),
                    };
                    // Offsets of contiguous rows are constants in the kernel's loads.
                    if a.row == 1 {
                        V::tile::<true>(end - row, vectors, &tile);
                    } else {
                        V::tile::<false>(end - row, vectors, &tile);
                    }
                }
            }
        }
    }
}

/// Copies `[depth, columns]` of B to rows of `width` values, padded with zeros.
///
/// # Safety
/// `from` must be valid for the block with these steps, `to` for `depth` x `width` values; instructions as [`panels`].
#[inline(always)]
unsafe fn pack_panel<V: Vector>(
    from: *const f32,
    [row, column]: [usize; 2],
    [depth, columns]: [usize; 2],
    to: *mut f32,
    width: usize,
) {
    // SAFETY: all reads are inside the block, all writes inside the panel, by the contract.
    unsafe {
        // Columns and rows from here on are copied one value at a time.
        let (mut column_done, mut rows_done) = (0, 0);
        if column == 1 {
            column_done = columns / V::LANES * V::LANES;
            for k in 0..depth {
                for j in (0..column_done).step_by(V::LANES) {
                    V::load(from.add(k * row + j)).store(to.add(k * width + j));
                }
            }
        } else if row == 1 {
            let [whole_rows, whole_columns] = [depth / 8 * 8, columns / 8 * 8];
            for j in (0..whole_columns).step_by(8) {
                for k in (0..whole_rows).step_by(8) {
                    V::transpose(from.add(k + j * column), column, to.add(k * width + j), width);
                }
            }
            (column_done, rows_done) = (whole_columns, whole_rows);
        }
        for k in 0..depth {
            let first = if k < rows_done || column == 1 { column_done } else { 0 };
            for j in first..columns {
                *to.add(k * width + j) = *from.add(k * row + j * column);
            }
            for j in columns..width {
                *to.add(k * width + j) = 0.0;
            }
        }
    }
}

#[cfg(test)]
mod tests;

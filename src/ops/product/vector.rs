//! Vectors of f32 in the registers of each [`Level`](crate::ops::simd::Level).

use super::tile::{Tile, tile};

/// A register of f32, with the size and layout of `[f32; LANES]`.
///
/// # Safety (of all functions)
/// The processor must have the instructions, pointers must be valid for `LANES` values (of any alignment), and the caller,
/// into which all functions are inlined, must be compiled for the instructions.
pub(super) trait Vector: Copy {
    const LANES: usize;
    /// Rows of a micro-kernel: with two vectors per row, accumulators fill the registers except two for B and one for A.
    const ROWS: usize;

    unsafe fn splat(value: f32) -> Self;

    unsafe fn load(from: *const f32) -> Self;

    unsafe fn store(self, to: *mut f32);

    unsafe fn add(self, other: Self) -> Self;

    /// self + a b, rounded once if the processor has the instruction.
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self;

    /// max(self, 0), written so that NaN propagates.
    unsafe fn relu(self) -> Self;

    /// Transposes 8 columns of 8 values, `column` apart in memory, into 8 rows, `row` apart.
    unsafe fn transpose(from: *const f32, column: usize, to: *mut f32, row: usize);

    /// The micro-kernel of 1 to [`Vector::ROWS`] rows of 1 or 2 vectors.
    unsafe fn tile<const UNIT: bool>(rows: usize, vectors: usize, t: &Tile);
}

/// [`Vector::tile`] for each of these numbers of rows.
macro_rules! tiles {
    ($($rows:literal)*) => {
        #[inline(always)]
        unsafe fn tile<const UNIT: bool>(rows: usize, vectors: usize, t: &Tile) {
            // SAFETY: the caller's promise.
            unsafe {
                match (rows, vectors) {
                    $(
                        ($rows, 1) => tile::<Self, $rows, 1, UNIT>(t),
                        ($rows, 2) => tile::<Self, $rows, 2, UNIT>(t),
                    )*
                    _ => unreachable!("a tile of {rows} rows of {vectors} vectors"),
                }
            }
        }
    };
}

/// 128 bits in whatever form the target offers. Without baseline FMA, `mul_add` would be a libm call per value.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(super) struct Portable([f32; 4]);

impl Vector for Portable {
    const LANES: usize = 4;
    const ROWS: usize = 4;

    #[inline(always)]
    unsafe fn splat(value: f32) -> Self {
        Self([value; 4])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller's promise.
        Self(unsafe { from.cast::<[f32; 4]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller's promise.
        unsafe { to.cast::<[f32; 4]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn add(self, other: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i] + other.0[i]))
    }

    #[inline(always)]
    unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
        let fused = cfg!(any(target_feature = "fma", target_arch = "aarch64"));
        let sum = |i: usize| if fused { a.0[i].mul_add(b.0[i], self.0[i]) } else { self.0[i] + a.0[i] * b.0[i] };
        Self(std::array::from_fn(sum))
    }

    #[inline(always)]
    unsafe fn relu(self) -> Self {
        Self(self.0.map(|x| if x <= 0.0 { 0.0 } else { x }))
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, column: usize, to: *mut f32, row: usize) {
        for i in 0..8 {
            for j in 0..8 {
                // SAFETY: the caller's promise.
                unsafe { *to.add(i * row + j) = *from.add(j * column + i) };
            }
        }
    }

    tiles!(1 2 3 4);
}

#[cfg(target_arch = "x86_64")]
pub(super) use x86::{Ymm, Zmm};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::{Tile, Vector, tile};
    use std::arch::x86_64::*;

    /// 16 registers of 8: AVX2 and FMA.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub(in super::super) struct Ymm(__m256);

    /// 32 registers of 16: AVX-512F.
    #[derive(Clone, Copy)]
    #[repr(transparent)]
    pub(in super::super) struct Zmm(__m512);

    macro_rules! vector {
        ($name:ident, $lanes:literal, $rows:literal, [$splat:ident, $load:ident, $store:ident, $add:ident, $fma:ident, $max:ident], $($tiles:literal)*) => {
            // SAFETY of the bodies: exactly the caller's promise.
            impl Vector for $name {
                const LANES: usize = $lanes;
                const ROWS: usize = $rows;

                #[inline(always)]
                unsafe fn splat(value: f32) -> Self {
                    // SAFETY: the caller's promise.
                    Self(unsafe { $splat(value) })
                }

                #[inline(always)]
                unsafe fn load(from: *const f32) -> Self {
                    // SAFETY: the caller's promise.
                    Self(unsafe { $load(from) })
                }

                #[inline(always)]
                unsafe fn store(self, to: *mut f32) {
                    // SAFETY: the caller's promise.
                    unsafe { $store(to, self.0) }
                }

                #[inline(always)]
                unsafe fn add(self, other: Self) -> Self {
                    // SAFETY: the caller's promise.
                    Self(unsafe { $add(self.0, other.0) })
                }

                #[inline(always)]
                unsafe fn multiply_add(self, a: Self, b: Self) -> Self {
                    // SAFETY: the caller's promise.
                    Self(unsafe { $fma(a.0, b.0, self.0) })
                }

                #[inline(always)]
                unsafe fn relu(self) -> Self {
                    // SAFETY: the caller's promise. The instruction returns its second operand if either is NaN.
                    Self(unsafe { $max($splat(0.0), self.0) })
                }

                #[inline(always)]
                unsafe fn transpose(from: *const f32, column: usize, to: *mut f32, row: usize) {
                    // SAFETY: the caller's promise; AVX-512F includes AVX2.
                    unsafe { transpose(from, column, to, row) }
                }

                tiles!($($tiles)*);
            }
        };
    }

    vector!(
        Ymm, 8, 6,
        [_mm256_set1_ps, _mm256_loadu_ps, _mm256_storeu_ps, _mm256_add_ps, _mm256_fmadd_ps, _mm256_max_ps],
        1 2 3 4 5 6
    );
    vector!(
        Zmm, 16, 14,
        [_mm512_set1_ps, _mm512_loadu_ps, _mm512_storeu_ps, _mm512_add_ps, _mm512_fmadd_ps, _mm512_max_ps],
        1 2 3 4 5 6 7 8 9 10 11 12 13 14
    );

    /// [`Vector::transpose`]: swaps pairs, then quarters, then halves.
    ///
    /// # Safety
    /// As [`Vector`], for AVX2.
    #[inline(always)]
    unsafe fn transpose(from: *const f32, column: usize, to: *mut f32, row: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let columns: [__m256; 8] = std::array::from_fn(|j| _mm256_loadu_ps(from.add(j * column)));
            // Of columns 2i and 2i + 1: values 0, 1 of each half, then values 2, 3.
            let pairs = |i: usize| {
                let [x, y] = [columns[2 * i], columns[2 * i + 1]];
                [_mm256_unpacklo_ps(x, y), _mm256_unpackhi_ps(x, y)]
            };
            // Of four columns from 4i: values 0, 1, 2, 3 of each half.
            let quarters = |i: usize| {
                let [[x01, x23], [y01, y23]] = [pairs(2 * i), pairs(2 * i + 1)];
                [
                    _mm256_shuffle_ps::<0x44>(x01, y01),
                    _mm256_shuffle_ps::<0xee>(x01, y01),
                    _mm256_shuffle_ps::<0x44>(x23, y23),
                    _mm256_shuffle_ps::<0xee>(x23, y23),
                ]
            };
            let [low, high] = [quarters(0), quarters(1)];
            for i in 0..4 {
                _mm256_storeu_ps(to.add(i * row), _mm256_permute2f128_ps::<0x20>(low[i], high[i]));
                _mm256_storeu_ps(to.add((i + 4) * row), _mm256_permute2f128_ps::<0x31>(low[i], high[i]));
            }
        }
    }
}

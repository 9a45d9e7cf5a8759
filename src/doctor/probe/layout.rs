//! The registers of `mma.sync` and `ldmatrix` as the PTX ISA has them ("Warp Level Matrix Instructions"), written from its text
//! alone: neither the emulator's tables nor the kernels' index arithmetic are used. These formulas are the golden file that
//! cards and both emulators have to reproduce.
//!
//! `mma` is bilinear. A one in a single position of A, with every position of B and C numbered, shows the row of that
//! position and which numbers of B it meets; all positions of A in turn determine what the instruction does with every register.

use crate::device::Precision;
use half::{bf16, f16};

pub const LANES: usize = 32;
/// Registers of a lane.
pub const A: usize = 4;
pub const B: usize = 2;
pub const D: usize = 4;
/// Numbers of C are multiples of this, so that they and those of B, at most 128, are seen apart in a sum.
const C_UNIT: usize = 1024;

/// `mma.sync.aligned` of a precision: m16n8k8 in tf32, m16n8k16 in 16 bits, sums in f32.
#[derive(Debug, Clone, Copy)]
pub struct Mma(pub Precision);

impl Mma {
    pub fn instruction(self) -> String {
        let Self(precision) = self;
        let shape = if precision == Precision::Tf32 { "m16n8k8" } else { "m16n8k16" };
        format!("mma.sync.aligned.{shape}.row.col.f32.{precision}.{precision}.f32")
    }

    /// Values in a register.
    fn packed(self) -> usize {
        4 / self.0.bytes()
    }

    /// Positions of values in A: element `i` of a lane is in register `i / packed`, the first one in the lower half.
    pub fn positions(self) -> usize {
        LANES * A * self.packed()
    }

    /// Element `i` of A in a lane: its row and its column, which is its k.
    fn a(self, lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane / 4, lane % 4);
        match self.packed() {
            1 => (group + 8 * (i % 2), thread + 4 * (i / 2)),
            _ => (group + 8 * (i / 2 % 2), 2 * thread + i % 2 + 8 * (i / 4)),
        }
    }

    /// Element `i` of B: its row, which is its k, and its column.
    fn b(self, lane: usize, i: usize) -> (usize, usize) {
        let (group, thread) = (lane / 4, lane % 4);
        match self.packed() {
            1 => (thread + 4 * i, group),
            _ => (2 * thread + i % 2 + 8 * (i / 2), group),
        }
    }

    /// Element `i` of C and D: row and column.
    fn d(lane: usize, i: usize) -> (usize, usize) {
        (lane / 4 + 8 * (i / 2), 2 * (lane % 4) + i % 2)
    }

    fn bits(self, value: usize) -> u32 {
        match self.0 {
            Precision::F16 => f16::from_f32(value as f32).to_bits().into(),
            Precision::Bf16 => bf16::from_f32(value as f32).to_bits().into(),
            Precision::F32 | Precision::Tf32 => (value as f32).to_bits(),
        }
    }

    /// Registers `[LANES][registers]` that hold `value` of each position.
    fn fragment(self, registers: usize, value: impl Fn(usize) -> usize) -> Vec<u32> {
        let packed = self.packed();
        let register = |index| {
            let halves = (0..packed).map(|half| self.bits(value(packed * index + half)) << (16 * half));
            halves.fold(0, |all, half| all | half)
        };
        (0..LANES * registers).map(register).collect()
    }

    /// `[positions][LANES][A]`: a one in one position each.
    pub fn ones(self) -> Vec<u32> {
        (0..self.positions()).flat_map(|one| self.fragment(A, |position| usize::from(position == one))).collect()
    }

    /// `[LANES][A]`: small numbers in all positions.
    pub fn full(self) -> Vec<u32> {
        self.fragment(A, |position| position % 7 + 1)
    }

    /// `[LANES][B]`: positions numbered from one.
    pub fn numbered(self) -> Vec<u32> {
        self.fragment(B, |position| position + 1)
    }

    /// `[LANES][D]`.
    pub fn summands() -> Vec<f32> {
        (0..LANES * D).map(|position| (C_UNIT * position) as f32).collect()
    }

    /// What registers `[positions][LANES][D]` hold after `rounds` times d += a b from [`Mma::summands`] on.
    pub fn expected(self, rounds: usize) -> Vec<f32> {
        let of_b = B * self.packed();
        let mut numbers = [[0; 8]; 16];
        for position in 0..LANES * of_b {
            let (k, column) = self.b(position / of_b, position % of_b);
            numbers[k][column] = position + 1;
        }
        let of_a = A * self.packed();
        let response = |one: usize| {
            let (row, k) = self.a(one / of_a, one % of_a);
            (0..LANES * D).map(move |position| {
                let (at, column) = Self::d(position / D, position % D);
                let product = if at == row { numbers[k][column] } else { 0 };
                (C_UNIT * position + rounds * product) as f32
            })
        };
        (0..self.positions()).flat_map(response).collect()
    }

    /// Where value `index` of [`Mma::expected`] is, in words.
    pub fn place(self, index: usize) -> String {
        let (one, position, of_a) = (index / (LANES * D), index % (LANES * D), A * self.packed());
        let (lane, element) = (one / of_a, one % of_a);
        format!("d{} of lane {} for a one in a{element} of lane {lane}", position % D, position / D)
    }
}

/// A form of `ldmatrix.sync.aligned.m8n8.shared.b16`.
#[derive(Debug, Clone, Copy)]
pub struct Ldmatrix {
    pub matrices: usize,
    pub transposed: bool,
}

impl Ldmatrix {
    /// In the order in which `probe_ldmatrix` stores their registers.
    pub const ALL: [Self; 6] = {
        const fn form(matrices: usize, transposed: bool) -> Ldmatrix {
            Ldmatrix { matrices, transposed }
        }
        [form(1, false), form(2, false), form(4, false), form(1, true), form(2, true), form(4, true)]
    };
    /// Registers of a lane that `probe_ldmatrix` stores; two of them are no result.
    pub const STRIDE: usize = 16;

    pub fn instruction(self) -> String {
        let Self { matrices, transposed } = self;
        format!("ldmatrix.sync.aligned.m8n8.x{matrices}{}.shared.b16", if transposed { ".trans" } else { "" })
    }

    /// 32 rows of eight 16-bit values: their numbers.
    pub fn tile() -> Vec<u16> {
        (0..32 * 8).collect()
    }

    /// The row whose address each lane gives: each one once, in no order.
    pub fn rows() -> Vec<u32> {
        (0..LANES as u32).map(|lane| (5 * lane + 3) % 32).collect()
    }

    /// Register `matrix` of a lane. Row `r` of the matrix is where lane `8 matrix + r` points; a lane gets two neighbours of row
    /// `lane / 4`, of the transposed matrix with `.trans`.
    pub fn expected(self, lane: usize, matrix: usize) -> u32 {
        let value = |half: usize| {
            let (row, column) = (lane / 4, 2 * (lane % 4) + half);
            let (row, column) = if self.transposed { (column, row) } else { (row, column) };
            let row = (5 * (8 * matrix + row) + 3) % 32;
            (8 * row + column) as u32
        };
        value(0) | value(1) << 16
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn each_table_names_every_place_once() {
        let once = |places: Vec<(usize, usize)>, [rows, columns]: [usize; 2]| {
            let count = places.len();
            let places: BTreeSet<_> = places.into_iter().collect();
            assert!(count == rows * columns && places.len() == count, "{places:?}");
            assert!(places.iter().all(|(row, column)| *row < rows && *column < columns), "{places:?}");
        };
        let all = |elements: usize, of: &dyn Fn(usize, usize) -> (usize, usize)| {
            (0..LANES * elements).map(|position| of(position / elements, position % elements)).collect()
        };
        for (precision, k) in [(Precision::Tf32, 8), (Precision::F16, 16), (Precision::Bf16, 16)] {
            let mma = Mma(precision);
            once(all(A * mma.packed(), &|lane, i| mma.a(lane, i)), [16, k]);
            once(all(B * mma.packed(), &|lane, i| mma.b(lane, i)), [k, 8]);
        }
        once(all(D, &Mma::d), [16, 8]);
        let rows: BTreeSet<u32> = Ldmatrix::rows().into_iter().collect();
        assert_eq!(rows, (0..32).collect());
    }

    #[test]
    fn numbers_are_exact_in_every_precision() {
        for precision in [Precision::Tf32, Precision::F16, Precision::Bf16] {
            (0..=128).for_each(|value| assert_eq!(precision.round_factor(value as f32), value as f32));
            let largest = Mma(precision).expected(2).into_iter().fold(0.0, f32::max);
            assert!(8.0 * largest < (1 << 24) as f32, "{largest}: the sum of all tiles is not exact in f32");
        }
    }
}

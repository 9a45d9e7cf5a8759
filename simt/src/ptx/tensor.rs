//! Matrix instructions: which lane holds which element, from the figures of the ISA (9.7.15), and the products.

use super::decode::Product;
use super::float::{bf16_to_f32, f16_to_f32};
use super::warp::WARP;

/// Rows of A and of the result, columns of B and of the result.
const M: usize = 16;
const N: usize = 8;

impl Product {
    pub fn depth(self) -> usize {
        match self {
            Product::F16K16 | Product::Bf16K16 => 16,
            Product::F16K8 | Product::Bf16K8 | Product::Tf32K8 => 8,
            Product::Tf32K4 => 4,
        }
    }

    /// Registers of A and of B in each lane; the result has 4.
    pub fn registers(self) -> (usize, usize) {
        match self {
            Product::F16K16 | Product::Bf16K16 | Product::Tf32K8 => (4, 2),
            Product::F16K8 | Product::Bf16K8 | Product::Tf32K4 => (2, 1),
        }
    }
}

/// `D = A B + C` of m16n8k`depth`, A by rows and B by columns, of the fragments that the lanes hold.
///
/// Lane `4 g + t` holds, with two narrow numbers to a register, of A the rows g and g + 8 and the columns 2t and 2t + 1 (and
/// those 8 further), of B the same as rows and column g; with one tf32 to a register the columns t and t + 4. Products are
/// exact, and are added one after the other in f32: the hardware's order and intermediate width are not documented.
#[inline(always)]
pub(super) fn multiply(
    product: Product,
    a: &[[u32; WARP]; 4],
    b: &[[u32; WARP]; 2],
    c: &[[u32; WARP]; 4],
) -> [[u32; WARP]; 4] {
    let mut left = [[0f32; M]; 16]; // [k][row]
    let mut right = [[0f32; N]; 16]; // [k][column]
    let depth = product.depth();
    match product {
        Product::F16K16 | Product::F16K8 => spread_halves(product, a, b, &mut left, &mut right, f16_to_f32),
        Product::Bf16K16 | Product::Bf16K8 => spread_halves(product, a, b, &mut left, &mut right, bf16_to_f32),
        Product::Tf32K8 | Product::Tf32K4 => {
            // Figures for .tf32: the lower 13 bits are ignored.
            let number = |bits: u32| f32::from_bits(bits & 0xffff_e000);
            for lane in 0..WARP {
                let (g, t) = (lane / 4, lane % 4);
                for step in 0..depth / 4 {
                    left[t + 4 * step][g] = number(a[2 * step][lane]);
                    left[t + 4 * step][g + 8] = number(a[2 * step + 1][lane]);
                    right[t + 4 * step][g] = number(b[step][lane]);
                }
            }
        }
    }
    let mut sums = [[0f32; N]; M];
    for lane in 0..WARP {
        for (register, bits) in c.iter().enumerate() {
            let (row, column) = element(lane, register);
            sums[row][column] = f32::from_bits(bits[lane]);
        }
    }
    for (left, right) in left.iter().zip(&right).take(depth) {
        for (sums, left) in sums.iter_mut().zip(left) {
            for (sum, right) in sums.iter_mut().zip(right) {
                *sum += left * right;
            }
        }
    }
    let mut out = [[0; WARP]; 4];
    for lane in 0..WARP {
        for (register, out) in out.iter_mut().enumerate() {
            let (row, column) = element(lane, register);
            out[lane] = sums[row][column].to_bits();
        }
    }
    out
}

/// Row and column of a lane's element of C and D.
#[inline(always)]
fn element(lane: usize, register: usize) -> (usize, usize) {
    (lane / 4 + 8 * (register / 2), 2 * (lane % 4) + register % 2)
}

#[inline(always)]
fn spread_halves(
    product: Product,
    a: &[[u32; WARP]; 4],
    b: &[[u32; WARP]; 2],
    left: &mut [[f32; M]; 16],
    right: &mut [[f32; N]; 16],
    widen: impl Fn(u16) -> f32,
) {
    for lane in 0..WARP {
        let (g, t) = (lane / 4, lane % 4);
        for step in 0..product.depth() / 8 {
            for half in 0..2 {
                let number = |register: u32| widen((register >> (16 * half)) as u16);
                let k = 8 * step + 2 * t + half;
                left[k][g] = number(a[2 * step][lane]);
                left[k][g + 8] = number(a[2 * step + 1][lane]);
                right[k][g] = number(b[step][lane]);
            }
        }
    }
}

/// The register that lane `lane` gets of an 8 x 8 matrix of 16-bit numbers: elements 2 (l mod 4) and the next of row l / 4;
/// transposed, of that column. `rows` are the matrix's rows in memory.
#[inline(always)]
pub(super) fn matrix_register(rows: &[[u16; 8]; 8], lane: usize, transposed: bool) -> u32 {
    let (major, minor) = (lane / 4, 2 * (lane % 4));
    let [low, high] = if transposed {
        [rows[minor][major], rows[minor + 1][major]]
    } else {
        [rows[major][minor], rows[major][minor + 1]]
    };
    u32::from(high) << 16 | u32::from(low)
}

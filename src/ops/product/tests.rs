use super::*;
use crate::ops::parallel::Disjoint;
use crate::ops::simd::tests::at_every_level;
use crate::rng::Rng;

/// Strides of an operand of `rows` x `columns` in `values`: row-major with a gap, column-major with a gap, or general strides.
fn layout(values: &[f32], rows: usize, columns: usize, kind: usize) -> Matrix<'_> {
    match kind {
        0 => Matrix::rows(values, columns + 3),
        1 => Matrix::rows(values, rows + 1).transposed(),
        _ => Matrix { values, row: 2 * columns + 1, column: 2 },
    }
}

/// Sizes around the boundaries of blocks, panels and depths of all kernels.
fn sizes() -> Vec<[usize; 3]> {
    let mut sizes = Vec::new();
    for m in [1, 2, 5, 7, 13, 14, 15, 29, 43] {
        for n in [1, 4, 8, 15, 16, 17, 31, 32, 40, 67] {
            for k in [1, 7, 8, 75, 256, 257] {
                sizes.push([m, n, k]);
            }
        }
    }
    sizes.extend([[100, 96, 600], [3, 70, 1030]]);
    sizes
}

/// Reference of a product: values, in f64, and the sums of absolute products, to which rounding errors are relative.
fn reference([m, n, k]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, before: &[f32], row: usize) -> Vec<(f64, f64)> {
    let mut sums = Vec::with_capacity(m * n);
    for i in 0..m {
        for j in 0..n {
            let before = f64::from(before[i * row + j]);
            let products = (0..k)
                .map(|p| f64::from(a.values[i * a.row + p * a.column]) * f64::from(b.values[p * b.row + j * b.column]));
            sums.push(products.fold((before, before.abs()), |(sum, size), x| (sum + x, size + x.abs())));
        }
    }
    sums
}

#[test]
fn products_are_those_of_f64_at_every_level_size_and_layout() {
    let mut rng = Rng::new(5, 0);
    let values: Vec<f32> = (0..200_000).map(|_| rng.normal()).collect();
    for (number, size) in sizes().into_iter().enumerate() {
        let [m, n, k] = size;
        let (a_kind, b_kind, add) = (number % 3, number / 3 % 3, number % 2 == 1);
        let (a, b) = (layout(&values, m, k, a_kind), layout(&values[1000..], k, n, b_kind));
        // The product must not change the values between the rows.
        let row = n + number % 4;
        let before: Vec<f32> = (0..m * row).map(|_| rng.normal()).collect();
        let zeros = vec![0.0; before.len()];
        let expected = reference(size, a, b, if add { &before } else { &zeros }, row);
        for level in Level::supported() {
            let mut c = before.clone();
            // SAFETY: `c` has `m` rows of `row` values; the level is supported.
            unsafe { product_with(level, size, a, b, c.as_mut_ptr(), row, add) };
            for (place, (value, before)) in c.iter().zip(&before).enumerate() {
                let (i, j) = (place / row, place % row);
                if j >= n {
                    assert_eq!(value, before, "{level} {size:?}: beyond row {i}");
                    continue;
                }
                let (sum, magnitude) = expected[i * n + j];
                // A chain of DEPTH roundings, plus one per part of k.
                let allowed = magnitude * f64::from(f32::EPSILON) * (k as f64).sqrt().max(4.0);
                let error = (f64::from(*value) - sum).abs();
                assert!(error <= allowed, "{level} {size:?} layouts {a_kind}, {b_kind}: {value} for {sum} at {i}, {j}");
            }
        }
    }
}

/// [m, n] of a product of row-major operands.
fn dense(level: Level, [m, n, k]: [usize; 3], a: &[f32], b: &[f32]) -> Vec<f32> {
    let mut c = vec![f32::NAN; m * n];
    // SAFETY: `c` is [m, n]; the level is supported.
    unsafe { product_with(level, [m, n, k], Matrix::rows(a, k), Matrix::rows(b, n), c.as_mut_ptr(), n, false) };
    c
}

#[test]
fn a_value_does_not_depend_on_the_tiles() {
    let mut rng = Rng::new(6, 0);
    let [m, n, k] = [37, 75, 300];
    let a: Vec<f32> = (0..m * k).map(|_| rng.normal()).collect();
    let b: Vec<f32> = (0..k * n).map(|_| rng.normal()).collect();
    for level in Level::supported() {
        let whole = dense(level, [m, n, k], &a, &b);
        for i in 0..m {
            let row = dense(level, [1, n, k], &a[i * k..][..k], &b);
            assert_eq!(row, whole[i * n..][..n], "{level}: row {i} by itself");
        }
        for j in 0..n {
            let column: Vec<f32> = b.iter().skip(j).step_by(n).copied().collect();
            let alone = dense(level, [m, 1, k], &a, &column);
            let expected: Vec<f32> = whole.iter().skip(j).step_by(n).copied().collect();
            assert_eq!(alone, expected, "{level}: column {j} by itself");
        }
        // All levels with FMA round identically.
        if level >= Level::Avx2 {
            assert_eq!(whole, dense(Level::Avx2, [m, n, k], &a, &b), "{level} against AVX2");
        }
    }
}

#[test]
fn values_that_are_not_finite_stay_in_their_rows_and_columns() {
    let [m, n, k] = [15, 33, 9];
    let (mut a, mut b) = (vec![1.0; m * k], vec![1.0; k * n]);
    (a[3 * k + 4], b[2 * n + 32]) = (f32::NAN, f32::INFINITY);
    for level in Level::supported() {
        let c = dense(level, [m, n, k], &a, &b);
        for (place, value) in c.iter().enumerate() {
            let expected = match (place / n, place % n) {
                (3, _) => f32::NAN,
                (_, 32) => f32::INFINITY,
                _ => k as f32,
            };
            assert!(value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan(), "{level}: {value}");
        }
    }
}

/// Windows of kernel^2 pixels of `c` channels over a map of `h` x `w` pixels, `stride` apart.
#[derive(Debug, Clone, Copy)]
struct Map {
    h: usize,
    w: usize,
    c: usize,
    kernel: usize,
    stride: usize,
}

impl Map {
    fn output(self) -> [usize; 2] {
        [self.h, self.w].map(|size| (size - self.kernel) / self.stride + 1)
    }

    fn taps(self) -> usize {
        self.kernel * self.kernel * self.c
    }

    fn runs(self) -> impl Iterator<Item = Run> {
        (0..self.kernel).map(move |i| Run { from: i * self.w * self.c, len: self.kernel * self.c })
    }

    fn strips(self, filters: usize) -> Vec<Strip> {
        let [h, w] = self.output();
        let line = self.stride * self.w * self.c;
        (0..h).map(|u| Strip { from: u * line, to: u * w * filters, len: w, window: 0 }).collect()
    }

    /// All windows, `[pixels, taps]`.
    fn gathered(self, values: &[f32]) -> Vec<f32> {
        let [h, w] = self.output();
        let mut windows = Vec::new();
        for (u, v) in (0..h).flat_map(|u| (0..w).map(move |v| (u, v))) {
            for i in 0..self.kernel {
                let at = ((u * self.stride + i) * self.w + v * self.stride) * self.c;
                windows.extend_from_slice(&values[at..at + self.kernel * self.c]);
            }
        }
        windows
    }
}

const MAPS: [Map; 4] = [
    Map { h: 9, w: 31, c: 3, kernel: 5, stride: 1 },
    Map { h: 5, w: 17, c: 40, kernel: 3, stride: 1 },
    Map { h: 12, w: 23, c: 2, kernel: 4, stride: 3 },
    Map { h: 1, w: 400, c: 1, kernel: 1, stride: 1 },
];

#[test]
fn windows_read_in_place_give_the_bits_of_gathered_windows() {
    let mut rng = Rng::new(7, 0);
    for (map, n) in MAPS.into_iter().flat_map(|map| [1, 20, 33, 64].map(|n| (map, n))) {
        let (k, [h, w]) = (map.taps(), map.output());
        let values: Vec<f32> = (0..map.h * map.w * map.c).map(|_| rng.normal()).collect();
        let weights: Vec<f32> = (0..k * n).map(|_| rng.normal()).collect();
        let bias: Vec<f32> = (0..n).map(|_| rng.normal()).collect();
        at_every_level(|level| {
            let mut packed = vec![f32::NAN; packed_len(k, n)];
            let place = Disjoint::new(&mut packed);
            (0..Packed::panels(n)).for_each(|panel| pack(k, n, Matrix::rows(&weights, n), panel, &place, 0));
            let windows = Strips::new(&values, k, map.runs(), [map.stride * map.c, n]);
            let mut output = vec![f32::NAN; h * w * n];
            let to = Disjoint::new(&mut output);
            let panels = 0..Packed::panels(n);
            // SAFETY: nothing else writes to the output.
            unsafe {
                windows.multiply(&map.strips(n), 0, Packed::new(&packed, k, n), panels, Some(&bias), true, &to);
            }
            let mut expected = dense(level, [h * w, n, k], &map.gathered(&values), &weights);
            for row in expected.chunks_exact_mut(n) {
                row.iter_mut().zip(&bias).for_each(|(x, b)| *x = (*x + b).max(0.0));
            }
            assert_eq!(output, expected, "{level}: {map:?}, {n} filters");
        });
    }
}

#[test]
fn transposed_windows_give_the_bits_of_gathered_windows() {
    let mut rng = Rng::new(8, 0);
    for (map, n) in MAPS.into_iter().flat_map(|map| [1, 20, 33].map(|n| (map, n))) {
        let (k, [_, w]) = (map.taps(), map.output());
        let values: Vec<f32> = (0..map.h * map.w * map.c).map(|_| rng.normal()).collect();
        let strips: Vec<Strip> = map.strips(n).into_iter().take(MOST_WINDOWS / w).collect();
        let strips = if strips.is_empty() { vec![Strip { len: MOST_WINDOWS, ..map.strips(n)[0] }] } else { strips };
        let pixels: usize = strips.iter().map(|strip| strip.len).sum();
        let d_output: Vec<f32> = (0..pixels * n).map(|_| rng.normal()).collect();
        let own = k / 3..k;
        at_every_level(|level| {
            let windows = Strips::new(&values, k, map.runs(), [map.stride * map.c, n]);
            let mut gradient = vec![f32::NAN; own.len() * n];
            windows.multiply_transposed(&strips, 0, own.clone(), &d_output, n, &mut gradient, false);
            let gathered = map.gathered(&values);
            let a = Matrix::rows(&gathered[own.start..], k).transposed();
            let mut expected = vec![f32::NAN; own.len() * n];
            let size = [own.len(), n, pixels];
            // SAFETY: `expected` is [own, n]; the level is supported.
            unsafe {
                product_with(level, size, a, Matrix::rows(&d_output, n), expected.as_mut_ptr(), n, false);
            }
            assert_eq!(gradient, expected, "{level}: {map:?}, {n} filters");
        });
    }
}

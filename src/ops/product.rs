//! Matrix products on one thread: a tile of a layer is one.

/// A matrix in memory: where, and the steps between rows and columns.
#[derive(Clone, Copy)]
pub struct Matrix<'a> {
    pub values: &'a [f32],
    pub row: usize,
    pub column: usize,
}

impl<'a> Matrix<'a> {
    /// Rows of `row` values, one after the other.
    pub fn rows(values: &'a [f32], row: usize) -> Self {
        Self { values, row, column: 1 }
    }

    pub fn transposed(self) -> Self {
        Self { row: self.column, column: self.row, ..self }
    }
}

/// `to[m, n] (+)= a[m, k] b[k, n]`, `to` row-major with `row` values from row to row.
pub fn product(size: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, to: &mut [f32], row: usize, add: bool) {
    let [m, n, _] = size;
    assert!(n <= row && (m - 1) * row + n <= to.len());
    // SAFETY: by the assertion the block lies inside `to`, which is borrowed exclusively.
    unsafe { product_into(size, a, b, to.as_mut_ptr(), row, add) }
}

/// [`product`] into a block whose rows other threads may share.
///
/// # Safety
/// `to` must be valid for the `m` x `n` block, and no other thread may touch that block.
pub unsafe fn product_into([m, n, k]: [usize; 3], a: Matrix<'_>, b: Matrix<'_>, to: *mut f32, row: usize, add: bool) {
    let inside =
        |x: Matrix<'_>, rows: usize, columns: usize| (rows - 1) * x.row + (columns - 1) * x.column < x.values.len();
    assert!(m > 0 && n > 0 && k > 0 && inside(a, m, k) && inside(b, k, n));
    // SAFETY: every index into `a` and `b` is inside its slice by the assertion, every one into `to` by the contract.
    unsafe {
        gemm::gemm(
            m,
            n,
            k,
            to,
            1,
            row as isize,
            add,
            a.values.as_ptr(),
            a.column as isize,
            a.row as isize,
            b.values.as_ptr(),
            b.column as isize,
            b.row as isize,
            1.0,
            1.0,
            false,
            false,
            false,
            gemm::Parallelism::None,
        );
    }
}

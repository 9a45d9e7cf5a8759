//! Plain matrix products: kernels/gemm.cu.

use super::spread::{Spread, THREADS, inside, key, record_outside, whole};
use crate::device::{Gpu, Launch, ProductKey, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::activation::Activation;
use crate::ops::gpu::{BLOCK, Divisor, cover};

kernel_parameters! {
    /// kernels/gemm.cu
    Gemm: 152 {
        a: Ptr, b: Ptr, bias: Ptr, c: Ptr, partial: Ptr,
        a_batch: u64, b_batch: u64, c_batch: u64,
        m: u32, n: u32, k: u32, lda: u32, ldb: u32, ldc: u32,
        activation: u32, splits: u32, k_per_split: u32, wide_a: u32, wide_b: u32, c_f32: u32, batches: u32,
        by_tiles_m: Divisor, by_n: Divisor, by_matrix: Divisor,
    }
}

/// Which operand is transposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    Nn,
    Nt,
    Tn,
}

/// One batch of plain products.
pub(super) struct Product {
    pub form: Form,
    pub batch: usize,
    /// m, n, k
    pub size: [usize; 3],
    pub a: Ptr,
    pub b: Ptr,
    pub c: Ptr,
    pub bias: Ptr,
    pub activation: Activation,
    /// C is f32 whatever the storage type.
    pub c_f32: bool,
}

impl Form {
    fn kernel(self) -> &'static str {
        ["gemm_nn", "gemm_nt", "gemm_tn"][self as usize]
    }

    /// Distances between the lines of both operands.
    fn lines(self, [m, n, k]: [usize; 3]) -> [usize; 2] {
        [if self == Self::Tn { m } else { k }, if self == Self::Nt { k } else { n }]
    }

    /// A batch of products of this form.
    pub fn key(self, gpu: &Gpu, batch: usize, size: [usize; 3]) -> ProductKey {
        key(gpu, self.kernel(), String::new(), batch, size, whole(gpu, &self.lines(size)))
    }
}

impl Product {
    pub fn record(&self, to: &mut Recorder<'_>, partial: Ptr) {
        let [m, n, k] = self.size;
        let key = self.form.key(to.gpu, self.batch, self.size);
        let spread = Spread::new(to.gpu, &key);
        let [lda, ldb] = self.form.lines(self.size);
        let wide = |line: usize| u32::from(whole(to.gpu, &[line]));
        let parameters = Gemm {
            a: self.a,
            b: self.b,
            bias: self.bias,
            c: self.c,
            partial,
            a_batch: (m * k) as u64,
            b_batch: (k * n) as u64,
            c_batch: (m * n) as u64,
            m: m as u32,
            n: n as u32,
            k: k as u32,
            lda: lda as u32,
            ldb: ldb as u32,
            ldc: n as u32,
            activation: inside(self.activation, spread) as u32,
            splits: spread.splits as u32,
            k_per_split: spread.k_per_split as u32,
            wide_a: wide(lda),
            wide_b: wide(ldb),
            c_f32: u32::from(self.c_f32),
            batches: self.batch as u32,
            by_tiles_m: Divisor::new(spread.tiles_m()),
            by_n: Divisor::new(n),
            by_matrix: Divisor::new(if spread.splits > 1 { m * n } else { 1 }),
        };
        let k_inner = match self.form {
            Form::Nn => [true, false],
            Form::Nt => [true, true],
            Form::Tn => [false, false],
        };
        let bytes = to.precision().bytes();
        let out = if self.c_f32 { 4 } else { bytes };
        let touched = self.batch * (bytes * (m * k + k * n) + out * m * n);
        let name = spread.kernel(self.form.kernel(), key.wide, to.gpu);
        let launch = Launch::new(name, spread.grid(), THREADS, &parameters).of(key, spread.as_cut());
        let launch = launch.shared(spread.shared(to.gpu, k_inner[0], k_inner[1]));
        to.launch(launch.work((2 * self.batch * m * n * k) as u64, touched as u64));
        if spread.splits > 1 {
            let count = self.batch * m * n;
            let touched = count * (4 * spread.splits + out);
            let launch = Launch::new(to.stored("gemm_finish"), cover(count), BLOCK, &parameters);
            to.launch(launch.work((count * spread.splits) as u64, touched as u64));
        }
        record_outside(to, self.activation, spread, self.c, self.batch * m * n);
    }
}

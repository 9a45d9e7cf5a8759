//! Correct kernels are not reported, in either variant, on either engine and in any order, and compute the same as a plain
//! f64 loop.

use half::{bf16, f16};
use simt::{Arg, Buffer, Error, Launch, Ptx, Variant, args};
use simt_planted::clean::KERNELS;

/// A launch, and the engine for it: the C++ source or its PTX.
struct On<'a> {
    launch: Launch,
    ptx: Option<&'a Ptx>,
}

impl On<'_> {
    fn launch(&self, kernel: &str, args: &[Arg]) -> Result<(), Error> {
        match self.ptx {
            Some(ptx) => ptx.launch(kernel, &self.launch, args).map(|_| ()),
            None => KERNELS.launch(kernel, &self.launch, args),
        }
    }
}

fn ptx() -> Ptx {
    Ptx::parse_all([include_str!("ptx/clean_simple.ptx"), include_str!("ptx/clean_gemm.ptx")]).unwrap()
}

/// Runs `check` on both engines for both variants, in order and with three seeds.
fn everywhere(launch: Launch, check: impl Fn(&On)) {
    let ptx = ptx();
    for (variant, ptx) in [Variant::Fast, Variant::Checked].into_iter().flat_map(|v| [(v, None), (v, Some(&ptx))]) {
        let launch = launch.clone().variant(variant);
        check(&On { launch: launch.clone(), ptx });
        (1..4).for_each(|seed| check(&On { launch: launch.clone().seed(seed), ptx }));
    }
}

fn noise(count: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    };
    (0..count).map(|_| next()).collect()
}

/// Fails on NaN as well.
fn assert_close(got: &[f32], want: &[f64], tolerance: f64) {
    assert_eq!(got.len(), want.len());
    for (index, (g, w)) in got.iter().zip(want).enumerate() {
        let error = (f64::from(*g) - w).abs();
        assert!(error <= tolerance, "value {index} is {g}, should be {w}: off by {error:e}, allowed {tolerance:e}");
    }
}

fn product(a: &[f32], b: &[f32], [m, n, k]: [usize; 3]) -> Vec<f64> {
    let mut c = vec![0.0; m * n];
    for row in 0..m {
        for inner in 0..k {
            for col in 0..n {
                c[row * n + col] += f64::from(a[row * k + inner]) * f64::from(b[inner * n + col]);
            }
        }
    }
    c
}

#[test]
fn saxpy() {
    let (x, y) = (noise(1000, 1), noise(1000, 2));
    let want: Vec<f64> = x.iter().zip(&y).map(|(x, y)| 2.5 * f64::from(*x) + f64::from(*y)).collect();
    everywhere(Launch::new(4, 256), |launch| {
        let (dx, dy) = (Buffer::from_slice(&x), Buffer::from_slice(&y));
        launch.launch("saxpy", &args![2.5f32, dx, dy, 1000i32]).unwrap();
        assert_close(&dy.to_vec(), &want, 1e-6);
    });
}

#[test]
fn a_structure_by_value_with_pointers_inside() {
    #[derive(Clone, Copy, bytemuck::NoUninit)]
    #[repr(C)]
    struct Scale {
        x: u64,
        y: u64,
        factor: f32,
        n: i32,
    }
    let x = noise(300, 3);
    let want: Vec<f64> = x.iter().map(|x| 3.0 * f64::from(*x)).collect();
    everywhere(Launch::new(2, 256), |launch| {
        let (dx, dy) = (Buffer::from_slice(&x), Buffer::uninit(1200));
        let scale = Scale { x: dx.ptr().address(), y: dy.ptr().address(), factor: 3.0, n: 300 };
        launch.launch("scale", &args![scale]).unwrap();
        assert_close(&dy.to_vec(), &want, 1e-6);
    });
}

#[test]
fn reduction_with_shuffles_and_an_atomic() {
    let x = noise(10_000, 4);
    let want: f64 = x.iter().map(|x| f64::from(*x)).sum();
    everywhere(Launch::new(8, 256), |launch| {
        let (dx, out) = (Buffer::from_slice(&x), Buffer::from_slice(&[0.0f32]));
        launch.launch("sum", &args![dx, out, 10_000i32]).unwrap();
        assert_close(&out.to_vec(), &[want], 1e-3);
    });
}

#[test]
fn reduction_by_the_last_block_with_fences() {
    let x = noise(10_000, 5);
    let want: f64 = x.iter().map(|x| f64::from(*x)).sum();
    everywhere(Launch::new(8, 256), |launch| {
        let (dx, part) = (Buffer::from_slice(&x), Buffer::uninit(8 * 4));
        let (count, out) = (Buffer::from_slice(&[0u32]), Buffer::uninit(4));
        launch.launch("sum_last_block", &args![dx, part, count, out, 10_000i32]).unwrap();
        assert_close(&out.to_vec(), &[want], 1e-3);
        assert_eq!(count.to_vec::<u32>(), [0], "the counter is ready for the next launch");
    });
}

#[test]
fn softmax_in_dynamic_shared_memory() {
    let (rows, cols) = (7, 300);
    let x = noise(rows * cols, 6);
    let mut want = Vec::new();
    for row in x.chunks(cols) {
        let total: f64 = row.iter().map(|x| f64::from(*x).exp()).sum();
        want.extend(row.iter().map(|x| f64::from(*x).exp() / total));
    }
    everywhere(Launch::new(rows as u32, 256).shared(cols * 4), |launch| {
        let (dx, dy) = (Buffer::from_slice(&x), Buffer::uninit(rows * cols * 4));
        launch.launch("softmax", &args![dx, dy, cols as i32]).unwrap();
        assert_close(&dy.to_vec(), &want, 1e-7);
    });
}

#[test]
fn syncwarp_of_parts_atomics_and_barriers_are_understood() {
    let x = noise(32, 7);
    // A half-warp exchanges i with i ^ 15, then the halves swap: x[31 - t].
    let want: Vec<f64> = (0..32).map(|t: usize| f64::from(x[31 - t]) + 1.0).collect();
    everywhere(Launch::new(1, 32), |launch| {
        let (dx, dy) = (Buffer::from_slice(&x), Buffer::uninit(32 * 4));
        launch.launch("ordered", &args![dx, dy, 32i32]).unwrap();
        assert_close(&dy.to_vec(), &want, 1e-6);
    });
}

#[test]
fn tiled_gemm_of_odd_size() {
    let [m, n, k] = [100usize, 75, 37];
    let (a, b) = (noise(m * k, 8), noise(k * n, 9));
    let want = product(&a, &b, [m, n, k]);
    everywhere(Launch::new((n.div_ceil(64) as u32, m.div_ceil(64) as u32), 256), |launch| {
        let (da, db, dc) = (Buffer::from_slice(&a), Buffer::from_slice(&b), Buffer::uninit(m * n * 4));
        launch.launch("gemm_f32", &args![da, db, dc, m as i32, n as i32, k as i32]).unwrap();
        assert_close(&dc.to_vec(), &want, 1e-5);
    });
}

/// `round` is the rounding of the kernel's input type; products of rounded values are exact in f32.
fn tensor_core_gemm<T: bytemuck::NoUninit>(kernel: &str, round: impl Fn(f32) -> (T, f32)) {
    let [m, n, k] = [128usize, 64, 48];
    let (a, a_rounded): (Vec<T>, Vec<f32>) = noise(m * k, 10).into_iter().map(&round).unzip();
    let (b, b_rounded): (Vec<T>, Vec<f32>) = noise(k * n, 11).into_iter().map(&round).unzip();
    let want = product(&a_rounded, &b_rounded, [m, n, k]);
    everywhere(Launch::new((n as u32 / 32, m as u32 / 64), 128), |launch| {
        let (da, db, dc) = (Buffer::from_slice(&a), Buffer::from_slice(&b), Buffer::uninit(m * n * 4));
        launch.launch(kernel, &args![da, db, dc, m as i32, n as i32, k as i32]).unwrap();
        assert_close(&dc.to_vec(), &want, 1e-5);
    });
}

#[test]
fn tensor_core_gemm_f16_with_cp_async_and_ldmatrix() {
    tensor_core_gemm("gemm_f16", |x| (f16::from_f32(x).to_bits(), f16::from_f32(x).to_f32()));
}

#[test]
fn tensor_core_gemm_bf16_with_cp_async_and_ldmatrix() {
    tensor_core_gemm("gemm_bf16", |x| (bf16::from_f32(x).to_bits(), bf16::from_f32(x).to_f32()));
}

#[test]
fn tensor_core_gemm_tf32() {
    tensor_core_gemm("gemm_tf32", |x| (x, f32::from_bits((x.to_bits() + 0x1000) & 0xffff_e000)));
}

#[test]
fn a_seed_permutes_and_the_result_is_the_same_to_the_bit() {
    let (a, b) = (noise(64 * 64, 12), noise(64 * 64, 13));
    let run = |launch: Launch| {
        let (da, db, dc) = (Buffer::from_slice(&a), Buffer::from_slice(&b), Buffer::uninit(64 * 64 * 4));
        KERNELS.launch("gemm_f32", &launch, &args![da, db, dc, 64i32, 64i32, 64i32]).unwrap();
        dc.to_vec::<u32>()
    };
    let plain = run(Launch::new(1, 256));
    (0..8).for_each(|seed| assert_eq!(run(Launch::new(1, 256).seed(seed)), plain, "seed {seed}"));
    assert_eq!(run(Launch::new(1, 256).checked()), plain);
}

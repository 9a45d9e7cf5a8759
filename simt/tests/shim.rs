//! The shim's names have the same semantics as CUDA's.

use half::{bf16, f16};
use simt::{Buffer, Launch, args};
use simt_planted::clean::KERNELS;

#[test]
fn half_and_bfloat16_round_as_the_reference_does() {
    // Every sign and exponent, with mantissas around each rounding boundary, and NaNs.
    let mantissas =
        [0, 1, 0xfff, 0x1000, 0x1001, 0x2fff, 0x3000, 0x7fff, 0x8000, 0x8001, 0x1_8000, 0x40_0000, 0x7f_ffff];
    let bits = (0..512u32).flat_map(|top| mantissas.map(|mantissa| top << 23 | mantissa));
    let x: Vec<f32> = bits.map(f32::from_bits).collect();
    let n = x.len();
    let (dx, out, back) = (Buffer::from_slice(&x), Buffer::uninit(4 * n), Buffer::uninit(8 * n));
    KERNELS.launch("convert", &Launch::new(n.div_ceil(256) as u32, 256), &args![dx, out, back, n as i32]).unwrap();
    let (out, back) = (out.to_vec::<u16>(), back.to_vec::<f32>());
    for (i, x) in x.iter().enumerate() {
        let (h, b) = (f16::from_f32(*x), bf16::from_f32(*x));
        if x.is_nan() {
            assert!(f16::from_bits(out[i]).is_nan() && bf16::from_bits(out[n + i]).is_nan() && back[i].is_nan());
        } else {
            assert_eq!((out[i], out[n + i]), (h.to_bits(), b.to_bits()), "{x:e}");
            assert_eq!((back[i], back[n + i]), (h.to_f32(), b.to_f32()), "{x:e}");
        }
    }
}

#[test]
fn every_half_survives_the_way_to_float_and_back() {
    let x: Vec<f32> = (0..=u16::MAX).map(|bits| f16::from_bits(bits).to_f32()).collect();
    let n = x.len();
    let (dx, out, back) = (Buffer::from_slice(&x), Buffer::uninit(4 * n), Buffer::uninit(8 * n));
    KERNELS.launch("convert", &Launch::new(256, 256), &args![dx, out, back, n as i32]).unwrap();
    let wrong =
        (0..=u16::MAX).filter(|bits| !f16::from_bits(*bits).is_nan() && out.to_vec::<u16>()[*bits as usize] != *bits);
    assert_eq!(wrong.take(1).count(), 0);
}

#[test]
fn half_arithmetic_rounds_after_each_operation() {
    let a: Vec<f16> = (0..1000).map(|i| f16::from_f32(i as f32 * 0.37 - 100.0)).collect();
    let b: Vec<f16> = (0..1000).map(|i| f16::from_f32(i as f32 * -0.11 + 3.0)).collect();
    let bits = |values: &[f16]| values.iter().map(|value| value.to_bits()).collect::<Vec<u16>>();
    let (da, db, out) = (Buffer::from_slice(&bits(&a)), Buffer::from_slice(&bits(&b)), Buffer::uninit(4000));
    KERNELS.launch("half_arithmetic", &Launch::new(4, 256).checked(), &args![da, db, out, 1000i32]).unwrap();
    let out = out.to_vec::<u16>();
    for i in 0..1000 {
        assert_eq!(out[i], f16::from_f32(a[i].to_f32() + b[i].to_f32()).to_bits());
        assert_eq!(out[1000 + i], f16::from_f32(a[i].to_f32() * b[i].to_f32()).to_bits());
    }
}

#[test]
fn warp_operations() {
    for launch in [Launch::new(1, 32), Launch::new(1, 32).checked().seed(5)] {
        let out = Buffer::uninit(13 * 32 * 4);
        KERNELS.launch("warp_operations", &launch, &args![out]).unwrap();
        let out = out.to_vec::<i32>();
        let threes = (0..32).filter(|t| t % 3 == 0).fold(0u32, |mask, t| mask | 1 << t) as i32;
        for t in 0..32i32 {
            let want = [
                t / 8 * 8 + 5,
                if t % 16 < 3 { t } else { t - 3 },
                if t % 16 + 3 >= 16 { t } else { t + 3 },
                t ^ 9,
                threes,
                1,
                (0xfu32 << (t / 4 * 4)) as i32,
                (0..32).map(|t| t - 20).sum(),
                -20,
                3 + t.count_ones() as i32
                    + t.leading_zeros() as i32
                    + if t == 0 { 0 } else { t.trailing_zeros() as i32 + 1 },
                t ^ 9,
                if t % 16 + 3 >= 16 { t } else { t + 3 },
                if t % 16 < 3 { t } else { t - 3 },
            ];
            for (row, want) in want.into_iter().enumerate() {
                assert_eq!(out[row * 32 + t as usize], want, "row {row}, lane {t}");
            }
        }
    }
}

#[test]
fn block_votes() {
    let out = Buffer::uninit(4 * 96);
    KERNELS.launch("block_votes", &Launch::new(1, 96), &args![out, 50i32]).unwrap();
    assert!(out.to_vec::<i32>().iter().all(|value| *value == 50 * 4 + 2));
    KERNELS.launch("block_votes", &Launch::new(1, 96).checked(), &args![out, 96i32]).unwrap();
    assert!(out.to_vec::<i32>().iter().all(|value| *value == 96 * 4 + 1));
}

#[test]
fn atomics_of_many_blocks() {
    let half2 = |x: f32, y: f32| (f16::from_f32(x).to_bits() as i32) | (f16::from_f32(y).to_bits() as i32) << 16;
    for launch in [Launch::new(8, 64), Launch::new(8, 64).checked().seed(1)] {
        let x = Buffer::from_slice(&[0i32; 8]);
        KERNELS.launch("atomics", &launch, &args![x]).unwrap();
        let float = 2.5f32.to_bits() as i32;
        assert_eq!(x.to_vec::<i32>(), [512 * 511 / 2, 511, -511, 512 % 100, -1, float, 7, half2(512.0, 256.0)]);
    }
}

#[test]
fn vector_types_have_the_device_layout() {
    let out = Buffer::uninit(24);
    KERNELS.launch("layout", &Launch::new(1, 1), &args![out]).unwrap();
    assert_eq!(out.to_vec::<u32>(), [1204, 1616, 3216, 404, 404, 808]);
}

#[test]
fn ldmatrix_hands_out_rows_and_columns() {
    let x: Vec<u16> = (0..256).collect();
    for launch in [Launch::new(1, 32), Launch::new(1, 32).checked()] {
        let (dx, out) = (Buffer::from_slice(&x), Buffer::uninit(8 * 32 * 4));
        KERNELS.launch("load_matrices", &launch, &args![dx, out]).unwrap();
        let out = out.to_vec::<u32>();
        let pair = |low: u16, high: u16| u32::from(low) | u32::from(high) << 16;
        for (matrix, lane) in (0..4).flat_map(|matrix| (0..32).map(move |lane| (matrix, lane))) {
            let at = |row: usize, column: usize| x[matrix * 64 + row * 8 + column];
            let (r, c) = (lane / 4, lane % 4 * 2);
            assert_eq!(out[matrix * 32 + lane], pair(at(r, c), at(r, c + 1)));
            assert_eq!(out[(4 + matrix) * 32 + lane], pair(at(c, r), at(c + 1, r)));
        }
    }
}

#[test]
fn cp_async_fills_with_zeros() {
    for launch in [Launch::new(1, 64), Launch::new(1, 64).checked()] {
        let (x, y) = (Buffer::from_slice(&[1.0f32; 101]), Buffer::uninit(1024));
        KERNELS.launch("copy_with_zeros", &launch, &args![x, y, 101i32]).unwrap();
        let y = y.to_vec::<f32>();
        assert!(y[..101].iter().all(|value| *value == 1.0) && y[101..].iter().all(|value| *value == 0.0));
    }
}

#[test]
fn three_dimensional_geometry() {
    for launch in [Launch::new((2, 3, 2), (5, 4, 3)), Launch::new((2, 3, 2), (5, 4, 3)).checked().seed(9)] {
        let out = Buffer::uninit(12 * 60 * 16);
        KERNELS.launch("geometry", &launch, &args![out]).unwrap();
        for (index, got) in out.to_vec::<[u32; 4]>().into_iter().enumerate() {
            let (block, thread) = (index as u32 / 60, index as u32 % 60);
            assert_eq!(got, [thread / 5 % 4, thread / 20, block / 2 % 3, block / 6]);
        }
    }
}

#[test]
fn a_copy_that_is_never_waited_for_does_not_reach_the_next_block() {
    for launch in [Launch::new(20, 32).workers(1), Launch::new(20, 32).workers(1).checked()] {
        let (x, y) = (Buffer::from_slice(&[-1.0f32; 128]), Buffer::uninit(20 * 32 * 4));
        KERNELS.launch("copy_left_over", &launch, &args![x, y]).unwrap();
        for (index, got) in y.to_vec::<f32>().into_iter().enumerate() {
            assert_eq!(got, (index / 32) as f32, "block {}", index / 32);
        }
    }
}

#[test]
fn parameters_are_aligned_as_their_type_asks() {
    let values: [f32; 16] = std::array::from_fn(|index| index as f32);
    for launch in [Launch::new(1, 16), Launch::new(1, 16).checked()] {
        let y = Buffer::uninit(64);
        KERNELS.launch("wide_parameter", &launch, &args![values, y]).unwrap();
        assert_eq!(y.to_vec::<f32>(), values);
    }
}

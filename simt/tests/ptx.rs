//! The planted bugs, found in the PTX that nvcc made of them; and counters of kernels that can be counted by hand.

use simt::{Arg, Buffer, Class, Error, Kind, Launch, Ptx, args};
use simt_planted::planted_lines;

const SOURCES: [&str; 4] = [
    include_str!("../planted/bugs/barrier.cu"),
    include_str!("../planted/bugs/race.cu"),
    include_str!("../planted/bugs/memory.cu"),
    include_str!("../planted/bugs/arithmetic.cu"),
];

fn bugs() -> Ptx {
    let texts = [
        include_str!("ptx/bugs_barrier.ptx"),
        include_str!("ptx/bugs_race.ptx"),
        include_str!("ptx/bugs_memory.ptx"),
        include_str!("ptx/bugs_arithmetic.ptx"),
    ];
    Ptx::parse_all(texts).unwrap()
}

/// Runs a planted bug: every kernel takes (const T* x, float* y, int n).
fn outcome(ptx: &Ptx, kernel: &str, launch: &Launch, n: i32) -> Result<(), Error> {
    let values = vec![1.0f32; launch.grid.0[0] as usize * launch.block.0[0] as usize];
    let (x, y) = (Buffer::from_slice(&values), Buffer::from_slice(&values));
    ptx.launch(kernel, launch, &[Arg::from(&x), Arg::from(&y), Arg::from(&n)]).map(|_| ())
}

#[test]
fn planted_bugs_are_found_in_the_compiled_code() {
    let ptx = bugs();
    let mut wrong = Vec::new();
    for (kernel, kind, blocks, threads, n, shared) in [
        ("divergent_barrier", Kind::DivergentBarrier, 1, 256, 256, 0),
        ("early_return", Kind::DivergentBarrier, 1, 256, 200, 0),
        ("mask_names_absent_lanes", Kind::BadWarpMask, 1, 64, 64, 0),
        ("mma_in_a_short_warp", Kind::BadWarpMask, 1, 16, 16, 0),
        ("missing_syncthreads_read_after_write", Kind::SharedRace, 1, 256, 256, 0),
        ("missing_syncthreads_write_after_read", Kind::SharedRace, 1, 256, 256, 0),
        ("write_after_write", Kind::SharedRace, 1, 256, 256, 0),
        ("missing_syncwarp", Kind::SharedRace, 1, 32, 32, 0),
        ("syncwarp_of_half_a_warp", Kind::SharedRace, 1, 32, 32, 0),
        ("plain_write_beside_atomic", Kind::SharedRace, 1, 64, 64, 0),
        ("cross_block_write", Kind::CrossBlockRace, 2, 256, 511, 0),
        ("out_of_bounds_read", Kind::OutOfBoundsRead, 4, 256, 1024, 0),
        ("atomic_out_of_bounds", Kind::OutOfBoundsWrite, 1, 32, 32, 0),
        ("uninitialised_shared", Kind::UninitialisedShared, 1, 256, 256, 0),
        ("uninitialised_dynamic_shared", Kind::UninitialisedShared, 1, 256, 256, 1024),
        ("dynamic_shared_overrun", Kind::SharedOutOfBounds, 1, 256, 256, 1024),
        ("misaligned_float4", Kind::Misaligned, 1, 32, 64, 0),
        ("division_by_zero", Kind::DivisionByZero, 1, 64, 64, 0),
    ] {
        let lines: Vec<u32> = SOURCES.iter().flat_map(|source| planted_lines(source, kernel)).collect();
        let launch = Launch::new(blocks, threads).checked().shared(shared);
        for seed in [None, Some(1), Some(2), Some(3)] {
            let launch = Launch { seed, ..launch.clone() };
            match outcome(&ptx, kernel, &launch, n) {
                Err(Error::Finding(f)) if f.kind == kind && lines.contains(&f.line) && f.file.ends_with(".cu") => {}
                other => wrong.push(format!("{kernel}, seed {seed:?}, lines {lines:?}: {other:?}")),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn clean() -> Ptx {
    Ptx::parse_all([include_str!("ptx/clean_simple.ptx"), include_str!("ptx/clean_gemm.ptx")]).unwrap()
}

#[test]
fn saxpy_is_counted_as_by_hand() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 1000]), Buffer::from_slice(&[1.0f32; 1000]));
    let counted = clean().launch("saxpy", &Launch::new(4, 256), &args![2.0f32, x, y, 1000i32]).unwrap();
    let total = counted.total;
    // 1,000 threads are 31 whole warps, and one of which 8 lanes go on: its branch divides it.
    assert_eq!((total.branches, total.divergent), (32, 1));
    assert_eq!((total.loads.requests, total.loads.sectors, total.loads.bytes), (64, 250, 8000));
    assert_eq!((total.stores.requests, total.stores.sectors, total.stores.bytes), (32, 125, 4000));
    assert_eq!(total.loads.sectors, total.loads.least_sectors);
    assert_eq!((total.of(Class::Float), total.lanes[Class::Float as usize]), (32, 1000), "one multiply-add");
    let sum = counted.lines.iter().fold(0, |sum, line| sum + line.counts.instructions());
    assert_eq!(sum, total.instructions());
    assert!(counted.lines.iter().all(|line| line.file == "simple.cu" && line.line > 0));
}

#[test]
fn a_sample_of_equal_blocks_stands_for_all() {
    let ptx = clean();
    let (x, y) = (Buffer::from_slice(&[1.0f32; 25_600]), Buffer::from_slice(&[1.0f32; 25_600]));
    let arguments = args![2.0f32, x, y, 25_600i32];
    let all = ptx.launch("saxpy", &Launch::new(100, 256), &arguments).unwrap();
    let some = ptx.sample("saxpy", &Launch::new(100, 256), &arguments, Some(7)).unwrap();
    assert_eq!((some.blocks, all.blocks), ([7, 100], [100, 100]));
    assert_eq!(some.whole(), all.total);
}

#[test]
fn a_tensor_core_product_is_counted_as_by_hand() {
    let [m, n, k] = [128usize, 64, 48];
    let (a, b, c) =
        (Buffer::from_slice(&vec![0u16; m * k]), Buffer::from_slice(&vec![0u16; k * n]), Buffer::uninit(m * n * 4));
    let launch = Launch::new((n as u32 / 32, m as u32 / 64), 128);
    let total = clean().launch("gemm_f16", &launch, &args![a, b, c, m as i32, n as i32, k as i32]).unwrap().total;
    assert_eq!(total.tensor_fma, (m * n * k) as u64);
    assert_eq!(total.stores.bytes, (m * n * 4) as u64);
    // A block of 64 x 32 reads 64 rows of A and 32 columns of B.
    assert_eq!(total.loads.bytes, (4 * (64 + 32) * k * 2) as u64);
}

#[test]
fn an_unknown_instruction_is_an_error_by_name() {
    let text = include_str!("ptx/clean_simple.ptx").replace("fma.rn.f32", "fma.rn.f8");
    let ptx = Ptx::parse(&text).unwrap();
    let error = ptx.check("saxpy").expect_err("fma.rn.f8 does not exist").to_string();
    assert!(error.contains("unknown instruction `fma.rn.f8`") && error.contains("simple.cu"), "{error}");
    assert!(Ptx::parse("int main() {}").is_err());
}

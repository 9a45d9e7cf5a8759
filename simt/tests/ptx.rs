//! The planted bugs, found in the PTX that nvcc made of them; and counters of kernels that can be counted by hand.

use simt::{Arg, Buffer, Error, Kind, Launch, Ptx};
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

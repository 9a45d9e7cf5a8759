//! Every kind of bug is found, at the right line: one test per planted bug, named after its kernel.

use simt::{Arg, Buffer, Finding, Kind, Launch};
use simt_planted::{bugs::KERNELS, planted_lines};

const SOURCES: [&str; 4] = [
    include_str!("../planted/bugs/barrier.cu"),
    include_str!("../planted/bugs/race.cu"),
    include_str!("../planted/bugs/memory.cu"),
    include_str!("../planted/bugs/arithmetic.cu"),
];

/// Every kernel here takes (const T* x, float* y, int n).
fn finding(kernel: &str, launch: &Launch, x: Arg, y: Arg, n: i32) -> Finding {
    let error = KERNELS.launch(kernel, launch, &[x, y, Arg::from(&n)]).expect_err("the bug was not found");
    error.finding().unwrap_or_else(|| panic!("not a finding: {error}")).clone()
}

/// The lines where a finding may point.
fn lines(kernel: &str) -> Vec<u32> {
    let lines: Vec<u32> = SOURCES.iter().flat_map(|source| planted_lines(source, kernel)).collect();
    assert!(!lines.is_empty(), "no line of {kernel} is marked");
    lines
}

/// Launches with three seeds and in order; every finding must name `kind` and the line. Returns the last.
fn found_by(kernel: &str, kind: Kind, launch: Launch, n: i32) -> Finding {
    let values = vec![1.0f32; launch.grid.0[0] as usize * launch.block.0[0] as usize];
    let run = |launch: Launch| {
        let (x, y) = (Buffer::from_slice(&values), Buffer::from_slice(&values));
        let finding = finding(kernel, &launch, Arg::from(&x), Arg::from(&y), n);
        assert!(finding.kind == kind && lines(kernel).contains(&finding.line), "{finding}");
        assert!(finding.file.ends_with(".cu") && finding.kernel == kernel, "{finding}");
        finding
    };
    (1..4).for_each(|seed| drop(run(launch.clone().seed(seed))));
    run(launch)
}

fn found(kernel: &str, kind: Kind, blocks: u32, threads: u32, n: i32, shared: usize) -> Finding {
    found_by(kernel, kind, Launch::new(blocks, threads).checked().shared(shared), n)
}

#[test]
fn divergent_barrier() {
    let finding = found("divergent_barrier", Kind::DivergentBarrier, 1, 256, 256, 0);
    assert!(finding.detail.contains("100 threads wait") && finding.detail.contains("156 ended"), "{finding}");
}

#[test]
fn early_return_past_a_barrier() {
    found("early_return", Kind::DivergentBarrier, 1, 256, 200, 0);
}

#[test]
fn two_different_barriers() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 256]), Buffer::from_slice(&[0.0f32; 256]));
    let finding = finding("two_barriers", &Launch::new(1, 256), Arg::from(&x), Arg::from(&y), 256);
    assert_eq!(finding.kind, Kind::DivergentBarrier);
    assert!(lines("two_barriers").contains(&finding.line), "{finding}");
    assert_eq!(finding.thread, [128, 0, 0]);
    assert!(finding.detail.contains("barrier.cu"), "names the other barrier: {finding}");
}

#[test]
fn divergence_is_found_in_the_fast_variant_too() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 256]), Buffer::from_slice(&[0.0f32; 256]));
    for (kernel, kind) in [
        ("divergent_barrier", Kind::DivergentBarrier),
        ("early_return", Kind::DivergentBarrier),
        ("mask_names_absent_lanes", Kind::BadWarpMask),
    ] {
        let finding = finding(kernel, &Launch::new(1, 256), Arg::from(&x), Arg::from(&y), 200);
        assert_eq!(finding.kind, kind, "{finding}");
    }
}

#[test]
fn shuffle_mask_that_names_absent_lanes() {
    found("mask_names_absent_lanes", Kind::BadWarpMask, 1, 64, 64, 0);
}

#[test]
fn shuffle_mask_without_the_own_lane() {
    found("mask_without_own_lane", Kind::BadWarpMask, 1, 32, 32, 0);
}

#[test]
fn shuffle_masks_that_disagree() {
    found("masks_disagree", Kind::BadWarpMask, 1, 32, 32, 0);
}

#[test]
fn mma_in_a_warp_of_fewer_than_32_lanes() {
    let finding = found("mma_in_a_short_warp", Kind::BadWarpMask, 1, 16, 16, 0);
    assert!(finding.detail.contains("this one has 16 lanes"), "{finding}");
}

#[test]
fn failed_assertion() {
    let finding = found("failed_assertion", Kind::Trap, 1, 32, 31, 0);
    assert_eq!(finding.thread, [31, 0, 0]);
}

#[test]
fn missing_syncthreads_read_after_write() {
    let finding = found("missing_syncthreads_read_after_write", Kind::SharedRace, 1, 256, 256, 0);
    assert!(finding.detail.contains("no __syncthreads between"), "{finding}");
}

#[test]
fn missing_syncthreads_write_after_read() {
    found("missing_syncthreads_write_after_read", Kind::SharedRace, 1, 256, 256, 0);
}

#[test]
fn write_after_write() {
    found("write_after_write", Kind::SharedRace, 1, 256, 256, 0);
}

#[test]
fn missing_syncwarp() {
    let finding = found("missing_syncwarp", Kind::SharedRace, 1, 32, 32, 0);
    assert!(finding.detail.contains("no __syncwarp between"), "{finding}");
}

#[test]
fn syncwarp_of_half_a_warp_does_not_order_the_other_half() {
    found("syncwarp_of_half_a_warp", Kind::SharedRace, 1, 32, 32, 0);
}

#[test]
fn plain_write_beside_an_atomic() {
    found("plain_write_beside_atomic", Kind::SharedRace, 1, 64, 64, 0);
}

#[test]
fn cross_block_write_race() {
    let finding = found("cross_block_write", Kind::CrossBlockRace, 2, 256, 511, 0);
    assert!(finding.detail.contains("of this launch wrote"), "{finding}");
}

#[test]
fn cross_block_read_race() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 512]), Buffer::from_slice(&[0.0f32; 512]));
    let launch = Launch::new(2, 256).checked().workers(1);
    let finding = finding("cross_block_read", &launch, Arg::from(&x), Arg::from(&y), 512);
    assert_eq!((finding.kind, finding.block), (Kind::CrossBlockRace, [1, 0, 0]), "{finding}");
    assert!(lines("cross_block_read").contains(&finding.line), "{finding}");
}

#[test]
fn cp_async_read_before_its_wait() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 128]), Buffer::from_slice(&[0.0f32; 128]));
    let launch = Launch::new(1, 32).checked();
    let finding = finding("cp_async_without_wait", &launch, Arg::from(&x), Arg::from(&y), 128);
    assert_eq!(finding.kind, Kind::AsyncCopyPending, "{finding}");
    assert!(lines("cp_async_without_wait").contains(&finding.line), "{finding}");
}

#[test]
fn cp_async_read_before_its_wait_gives_poison_in_the_fast_variant() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 128]), Buffer::from_slice(&[0.0f32; 128]));
    KERNELS.launch("cp_async_without_wait", &Launch::new(1, 32), &simt::args![x, y, 128i32]).unwrap();
    assert!(y.to_vec::<f32>()[..32].iter().all(|value| value.is_nan()));
}

#[test]
fn cp_async_read_by_another_thread_without_a_barrier() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 128]), Buffer::from_slice(&[0.0f32; 128]));
    let launch = Launch::new(1, 32).checked();
    let finding = finding("cp_async_without_barrier", &launch, Arg::from(&x), Arg::from(&y), 128);
    assert!(matches!(finding.kind, Kind::SharedRace | Kind::AsyncCopyPending), "{finding}");
    assert!(lines("cp_async_without_barrier").contains(&finding.line), "{finding}");
}

#[test]
fn out_of_bounds_read() {
    let finding = found("out_of_bounds_read", Kind::OutOfBoundsRead, 4, 256, 1024, 0);
    assert_eq!((finding.block, finding.thread), ([3, 0, 0], [255, 0, 0]), "{finding}");
    assert!(finding.detail.contains("offset 4096 of a 4096-byte buffer"), "{finding}");
}

#[test]
fn out_of_bounds_write() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 1000]), Buffer::from_slice(&[0.0f32; 1000]));
    let launch = Launch::new(4, 256).checked();
    let finding = finding("out_of_bounds_write", &launch, Arg::from(&x), Arg::from(&y), 1000);
    assert_eq!((finding.kind, finding.thread), (Kind::OutOfBoundsWrite, [232, 0, 0]), "{finding}");
    assert!(lines("out_of_bounds_write").contains(&finding.line), "{finding}");
    assert!(y.guards_intact(), "the write was stopped before it happened");
}

#[test]
fn out_of_bounds_write_changes_a_guard_band_in_the_fast_variant() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 1000]), Buffer::from_slice(&[0.0f32; 1000]));
    let finding = finding("out_of_bounds_write", &Launch::new(4, 256), Arg::from(&x), Arg::from(&y), 1000);
    assert_eq!(finding.kind, Kind::OutOfBoundsWrite, "{finding}");
    assert!(finding.detail.contains("byte 4000 of a 4000-byte buffer"), "{finding}");
}

#[test]
fn out_of_bounds_write_of_a_vector() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 128]), Buffer::from_slice(&[0.0f32; 128]));
    let launch = Launch::new(1, 32).checked();
    let finding = finding("out_of_bounds_float4", &launch, Arg::from(&x), Arg::from(&y), 128);
    assert_eq!((finding.kind, finding.thread), (Kind::OutOfBoundsWrite, [31, 0, 0]), "{finding}");
}

#[test]
fn null_pointer() {
    let y = Buffer::from_slice(&[0.0f32; 32]);
    let null = simt::DevicePtr::NULL;
    let launch = Launch::new(1, 32).checked();
    let finding = finding("null_pointer", &launch, Arg::from(&null), Arg::from(&y), 32);
    assert_eq!(finding.kind, Kind::OutOfBoundsRead, "{finding}");
    assert!(finding.detail.contains("null pointer"), "{finding}");
}

#[test]
fn atomic_out_of_bounds() {
    found("atomic_out_of_bounds", Kind::OutOfBoundsWrite, 1, 32, 32, 0);
}

#[test]
fn uninitialised_global_read() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 256]), Buffer::uninit(1024));
    let launch = Launch::new(1, 256).checked();
    let finding = finding("uninitialised_global", &launch, Arg::from(&x), Arg::from(&y), 256);
    assert_eq!(finding.kind, Kind::UninitialisedGlobal, "{finding}");
    assert!(lines("uninitialised_global").contains(&finding.line), "{finding}");
}

#[test]
fn one_uninitialised_value_among_many() {
    let mut y = Buffer::uninit(1024);
    y.write(0, &[0.0f32; 100]);
    y.write(101 * 4, &[0.0f32; 155]);
    let x = Buffer::from_slice(&[1.0f32; 256]);
    let launch = Launch::new(1, 256).checked();
    let finding = finding("uninitialised_global", &launch, Arg::from(&x), Arg::from(&y), 256);
    assert_eq!(finding.thread, [100, 0, 0], "{finding}");
}

#[test]
fn uninitialised_shared_read() {
    let finding = found("uninitialised_shared", Kind::UninitialisedShared, 1, 256, 256, 0);
    assert!(finding.thread[0] >= 200, "{finding}");
}

#[test]
fn uninitialised_dynamic_shared_read() {
    let finding = found("uninitialised_dynamic_shared", Kind::UninitialisedShared, 1, 256, 256, 1024);
    assert_eq!(finding.thread, [7, 0, 0], "{finding}");
}

#[test]
fn static_shared_overrun() {
    found("static_shared_overrun", Kind::IndexOutOfBounds, 1, 32, 32, 0);
}

#[test]
fn dynamic_shared_overrun() {
    found("dynamic_shared_overrun", Kind::SharedOutOfBounds, 1, 256, 256, 1024);
}

#[test]
fn dynamic_shared_overrun_changes_its_guard_in_the_fast_variant() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 256]), Buffer::from_slice(&[0.0f32; 256]));
    let launch = Launch::new(1, 256).shared(1024);
    let finding = finding("dynamic_shared_overrun", &launch, Arg::from(&x), Arg::from(&y), 256);
    assert_eq!(finding.kind, Kind::SharedOutOfBounds, "{finding}");
}

#[test]
fn ldmatrix_outside_shared_memory() {
    found("ldmatrix_outside_shared", Kind::SharedOutOfBounds, 1, 32, 32, 0);
}

#[test]
fn misaligned_vector_load() {
    found("misaligned_float4", Kind::Misaligned, 1, 32, 64, 0);
}

#[test]
fn signed_overflow() {
    found("integer_overflow", Kind::IntegerOverflow, 1, 64, 64, 0);
}

#[test]
fn division_by_zero() {
    found("division_by_zero", Kind::DivisionByZero, 1, 64, 64, 0);
}

#[test]
fn index_outside_a_local_array() {
    found("index_outside_local_array", Kind::IndexOutOfBounds, 1, 32, 32, 0);
}

#[test]
fn recursion_that_exhausts_the_stack() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 32]), Buffer::from_slice(&[0.0f32; 32]));
    let launch = Launch::new(1, 32).checked();
    let finding = finding("endless_recursion", &launch, Arg::from(&x), Arg::from(&y), 32);
    assert_eq!((finding.kind, finding.file.as_str()), (Kind::StackOverflow, "arithmetic.cu"), "{finding}");
}

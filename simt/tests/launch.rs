//! An invalid launch is rejected with a message, and a failed one leaves no trace.

use simt::{Arg, Buffer, DevicePtr, Error, Launch, args};
use simt_planted::{bugs, clean};

fn refused(kernel: &str, launch: &Launch, args: &[Arg]) -> String {
    match clean::KERNELS.launch(kernel, launch, args) {
        Err(Error::Launch(message)) => message,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn unknown_kernels_are_named_with_the_known_ones() {
    let message = refused("saxpi", &Launch::new(1, 32), &[]);
    assert!(message.contains("no kernel `saxpi`") && message.contains("saxpy, scale, sum"), "{message}");
}

#[test]
fn kernels_made_by_macros_are_found_and_templates_are_not() {
    let names: Vec<_> = clean::KERNELS.names().collect();
    assert!(names.contains(&"gemm_f16") && names.contains(&"gemm_bf16"));
    assert!(!names.contains(&"gemm_16bit"));
}

#[test]
fn arguments_are_held_against_the_kernel() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 32]), Buffer::from_slice(&[1.0f32; 32]));
    let launch = Launch::new(1, 32);
    let message = refused("saxpy", &launch, &args![1.0f32, x, y]);
    assert!(message.contains("3 arguments given, the kernel takes 4"), "{message}");
    let message = refused("saxpy", &launch, &args![x, x, y, 32i32]);
    assert!(message.contains("argument 0 is a value, given a pointer"), "{message}");
    let message = refused("saxpy", &launch, &args![1.0f32, x, 7u64, 32i32]);
    assert!(message.contains("argument 2 is a pointer, given a value"), "{message}");
    let message = refused("saxpy", &launch, &args![1.0f32, x, y, 32i64]);
    assert!(message.contains("argument 3 has 4 bytes, given 8"), "{message}");
    let message = refused("saxpy", &launch, &args![1.0f32, x.ptr().offset(2), y, 32i32]);
    assert!(message.contains("argument 1") && message.contains("not aligned to 4 bytes"), "{message}");
    let stale = Buffer::from_slice(&[1.0f32; 4096]).ptr();
    let message = refused("saxpy", &launch, &args![1.0f32, stale, y, 32i32]);
    assert!(message.contains("argument 1") && message.contains("no live buffer"), "{message}");
    let host = DevicePtr::NULL.offset(std::ptr::from_ref(&launch) as usize & !7);
    let message = refused("saxpy", &launch, &args![1.0f32, x, host, 32i32]);
    assert!(message.contains("argument 2") && message.contains("no live buffer"), "{message}");
}

#[test]
fn untyped_arguments_are_unpacked() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 32]), Buffer::from_slice(&[1.0f32; 32]));
    let (a, px, py, n) = (2.0f32, x.ptr(), y.ptr(), 32i32);
    let pointers = [(&raw const a).cast(), (&raw const px).cast(), (&raw const py).cast(), (&raw const n).cast()];
    // SAFETY: four live values of the types that saxpy takes.
    let args = pointers.map(|pointer| unsafe { Arg::untyped(pointer) });
    clean::KERNELS.launch("saxpy", &Launch::new(1, 32), &args).unwrap();
    assert_eq!(y.to_vec::<f32>(), [3.0; 32]);
}

#[test]
fn geometry_is_checked() {
    let y = Buffer::from_slice(&[0.0f32]);
    for (launch, words) in [
        (Launch::new(0, 32), "a grid of [0, 1, 1] blocks"),
        (Launch::new(1, 1025), "a block of [1025, 1, 1] threads"),
        (Launch::new(1, (32, 0)), "a block of [32, 0, 1] threads"),
        (Launch::new((u32::MAX, u32::MAX, u32::MAX), 1), "a grid of"),
        (Launch::new((1, 65_536), 1), "the second and third axis go to 65535"),
        (Launch::new(1, (1, 1, 65)), "the third axis goes to 64"),
        (Launch::new(1, 32).shared(300_000), "300000 bytes of shared memory"),
    ] {
        let message = refused("bench_empty", &launch, &args![y, 0i32]);
        assert!(message.contains(words), "{message}");
    }
}

#[test]
fn a_failed_launch_leaves_the_next_one_unharmed() {
    let x: Vec<f32> = (0..256).map(|value| value as f32).collect();
    let dx = Buffer::from_slice(&x);
    for round in 0..40 {
        let launch = Launch::new(3, 256).workers(1 + round % 3).seed(round as u64);
        let launch = if round % 2 == 0 { launch } else { launch.checked() };
        let y = Buffer::from_slice(&x);
        assert!(bugs::KERNELS.launch("divergent_barrier", &launch, &args![dx, y, 256i32]).is_err());
        let out = Buffer::from_slice(&[0.0f32]);
        clean::KERNELS.launch("sum", &launch, &args![dx, out, 256i32]).unwrap();
        assert_eq!(out.to_vec::<f32>(), [255.0 * 128.0]);
    }
}

#[test]
fn launches_may_run_side_by_side() {
    let work = |seed: u64| {
        for _ in 0..20 {
            let (x, out) = (Buffer::from_slice(&[1.0f32; 5000]), Buffer::from_slice(&[0.0f32]));
            let launch = Launch::new(5, 256).checked().seed(seed);
            clean::KERNELS.launch("sum", &launch, &args![x, out, 5000i32]).unwrap();
            assert_eq!(out.to_vec::<f32>(), [5000.0]);
        }
    };
    std::thread::scope(|scope| (0..4).for_each(|seed| drop(scope.spawn(move || work(seed)))));
}

#[test]
fn launches_may_come_from_the_threads_of_the_pool_that_runs_blocks() {
    use rayon::prelude::*;
    (0..64u64).into_par_iter().for_each(|seed| {
        let (x, out) = (Buffer::from_slice(&[1.0f32; 5000]), Buffer::from_slice(&[0.0f32]));
        let launch = Launch::new(5, 256).seed(seed);
        let launch = if seed % 2 == 0 { launch } else { launch.checked() };
        clean::KERNELS.launch("sum", &launch, &args![x, out, 5000i32]).unwrap();
        assert_eq!(out.to_vec::<f32>(), [5000.0]);
        assert!(bugs::KERNELS.launch("divergent_barrier", &launch, &args![x, x, 5000i32]).is_err());
    });
}

#[test]
fn a_buffer_too_large_for_memory_panics_and_is_not_made() {
    assert!(std::panic::catch_unwind(|| Buffer::uninit(usize::MAX)).is_err());
}

/// Sizes of all mappings of this process, in MiB.
fn address_space() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmSize:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() >> 10
}

#[test]
fn a_worker_frees_its_stacks_when_its_thread_ends() {
    let run = || {
        let y = Buffer::from_slice(&[0.0f32]);
        clean::KERNELS.launch("bench_barrier", &Launch::new(1, 1024).workers(1), &args![y, 2i32]).unwrap();
    };
    std::thread::spawn(run).join().unwrap();
    let before = address_space();
    (0..40).for_each(|_| std::thread::spawn(run).join().unwrap());
    let grown = address_space().saturating_sub(before);
    assert!(grown < 1000, "40 workers with 65 MiB of stacks each left {grown} MiB");
}

#[test]
fn stack_overflow_is_an_error_in_the_fast_variant_too() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 32]), Buffer::from_slice(&[0.0f32; 32]));
    // 100 frames of 1 KiB: beyond the end of one stack, into the range of the next.
    let error =
        bugs::KERNELS.launch("endless_recursion", &Launch::new(1, 32).workers(1), &args![x, y, 1i32]).unwrap_err();
    assert_eq!(error.finding().unwrap().kind, simt::Kind::StackOverflow, "{error}");
}

#[test]
fn a_fast_launch_counts_as_having_written_its_buffers() {
    let (x, y) = (Buffer::from_slice(&[1.0f32; 100]), Buffer::uninit(400));
    bugs::KERNELS.launch("uninitialised_global", &Launch::new(1, 128), &args![x, y, 100i32]).unwrap();
    assert!(y.to_vec::<f32>().iter().all(|value| value.is_nan()), "poison went through");
    bugs::KERNELS.launch("uninitialised_global", &Launch::new(1, 128).checked(), &args![x, y, 100i32]).unwrap();
}

//! Costs of the emulator on one core: `cargo run --release -p simt --example costs`.

use simt::{Arg, Buffer, Error, Launch, args};
use simt_planted::clean::KERNELS;
use std::time::Instant;

/// Seconds of one launch: the median of 15 after a warm-up.
fn seconds(kernel: &str, launch: &Launch, args: &[Arg]) -> Result<f64, Error> {
    let mut times = Vec::new();
    for _ in 0..16 {
        let start = Instant::now();
        KERNELS.launch(kernel, launch, args)?;
        times.push(start.elapsed().as_secs_f64());
    }
    times.remove(0);
    times.sort_by(f64::total_cmp);
    Ok(times[times.len() / 2])
}

fn main() -> Result<(), Error> {
    let variants = |launch: Launch| [launch.clone().workers(1), launch.workers(1).checked()];
    let row = |what: &str, unit: &str, scale: f64, [fast, checked]: [f64; 2]| {
        println!("{what:<44}{:>9.1}{:>11.1} {unit}", fast * scale, checked * scale);
    };
    println!("{:<44}{:>9}{:>11}", "", "fast", "checked");

    let y = Buffer::from_slice(&[0.0f32]);
    const ROUNDS: i32 = 100;
    for (kernel, what, blocks, rounds) in [
        ("bench_empty", "a thread that does nothing", 1000, 1),
        ("bench_barrier", "a thread at __syncthreads, 256 in a block", 10, ROUNDS),
        ("bench_shuffle", "a thread at a shuffle", 10, ROUNDS),
    ] {
        let run = |launch| seconds(kernel, &launch, &args![y, rounds]);
        let [fast, checked] = variants(Launch::new(blocks, 256)).map(run);
        row(what, "ns", 1e9 / f64::from(blocks * 256) / f64::from(rounds), [fast?, checked?]);
    }

    const N: usize = 256;
    let n = N as i32;
    let f32s = Buffer::from_slice(&vec![0.5f32; N * N]);
    let f16s = Buffer::from_slice(&vec![0x3800u16; N * N]);
    let c = Buffer::uninit(N * N * 4);
    for (kernel, what, input, launch) in [
        ("gemm_f32", "a 256^3 product, shared-memory tiles, f32", &f32s, Launch::new((4, 4), 256)),
        ("gemm_tf32", "a 256^3 product, mma.sync, tf32", &f32s, Launch::new((8, 4), 128)),
        ("gemm_f16", "a 256^3 product, mma.sync, cp.async, f16", &f16s, Launch::new((8, 4), 128)),
    ] {
        let run = |launch| {
            seconds(
                kernel,
                &launch,
                &[Arg::from(input), input.into(), (&c).into(), (&n).into(), (&n).into(), (&n).into()],
            )
        };
        let [fast, checked] = variants(launch).map(run);
        row(what, "ms", 1e3, [fast?, checked?]);
    }
    Ok(())
}

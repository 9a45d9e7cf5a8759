//! `weft bench train`.

use super::super::{print, print_json};
use crate::device::Device;
use crate::net::{INPUT, LayerSpec, Net, Spec};
use crate::ops::{Mode, Targets};
use crate::rng::Rng;
use crate::train::{SgdConfig, Trainer};
use crate::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Training steps per second: forward, backward and SGD under a head of 40 tags.
#[derive(clap::Args)]
pub struct Args {
    /// Network description
    net: PathBuf,
    #[arg(long, default_value_t = 64)]
    batch: usize,
    /// Steps that are measured
    #[arg(long, default_value_t = 10)]
    steps: usize,
    #[command(flatten)]
    device: super::super::DeviceArgs,
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct TrainResult {
    net: String,
    device: String,
    precision: &'static str,
    batch: usize,
    threads: usize,
    step_ms: f64,
    images_per_second: f64,
    gflops: f64,
}

pub fn run(args: &Args) -> Result<()> {
    const TAGS: usize = 40;
    let spec = Spec::load(&args.net)?.with([
        LayerSpec::new("weft.tags", "linear", &format!("outputs = {TAGS}"))?,
        LayerSpec::new("weft.loss", "sigmoid_cross_entropy", "")?,
    ]);
    let net = Arc::new(Net::new(spec)?);
    if args.steps == 0 {
        return Err(Error::new("--steps", "0 steps").advise("give at least one"));
    }
    let device = args.device.open()?;
    let mut rng = Rng::new(1, 0);
    let pixels: Vec<f32> = (0..net.value_len(INPUT, args.batch)).map(|_| rng.normal()).collect();
    let values: Vec<f32> = (0..args.batch * TAGS).map(|_| f32::from(u8::from(rng.chance(0.5)))).collect();
    let targets = Targets { classes: &[], values: &values };
    let parameters = net.initial_parameters(1);
    let mut trainer = Trainer::new(&device, net.clone(), args.batch, SgdConfig::default(), parameters)?;
    let mut times = Vec::new();
    // The first steps touch memory for the first time.
    for step in 0..args.steps + 2 {
        let start = Instant::now();
        let mode = Mode::Training { seed: step as u64 };
        trainer.forward(&pixels, mode, targets)?;
        trainer.update(mode, targets, 1e-4)?;
        if let Device::Gpu(gpu) = &device {
            gpu.driver.synchronize()?;
        }
        times.push(start.elapsed().as_secs_f64());
    }
    let seconds = super::median(&mut times[2..]);
    let result = TrainResult {
        net: net.spec.name.clone(),
        device: device.name(),
        precision: device.precision().math(),
        batch: args.batch,
        threads: crate::ops::parallel::threads(),
        step_ms: 1e3 * seconds,
        images_per_second: args.batch as f64 / seconds,
        gflops: 3.0 * args.batch as f64 * net.flops() as f64 / seconds / 1e9,
    };
    if args.json {
        print_json(&result)
    } else {
        print(format!(
            "{}: batch {}, {} threads: {:.1} ms a step, {:.1} images/s (forward x 3 = {:.0} GFLOP/s)",
            result.net, result.batch, result.threads, result.step_ms, result.images_per_second, result.gflops
        ))
    }
}

//! `weft bench train`.

use super::super::numbers;
use super::super::{print, print_json};
use crate::Result;
use crate::data::photo::Photo;
use crate::data::resample::Resampler;
use crate::memory;
use crate::net::{LayerSpec, Net, Purpose, SgdConfig, Spec};
use crate::ops::Targets;
use crate::rng::Rng;
use crate::shipped::Source;
use crate::train::Trainer;
use std::sync::Arc;
use std::time::Instant;

/// Training steps per second: forward, backward and SGD with a head of 40 tags.
#[derive(clap::Args)]
pub struct Args {
    #[arg(value_parser = super::super::net(), help = super::super::NET)]
    net: Source,
    #[arg(long, default_value_t = 64, value_parser = numbers::count())]
    batch: usize,
    /// Number of measured steps
    #[arg(long, default_value_t = 10, value_parser = numbers::runs())]
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
    let device = args.device.open()?;
    // In addition to the session: the batch, its tags, parameters and momentum.
    net.fit(format!("--batch {}", args.batch), &device, args.batch, Purpose::Training, |n| {
        net.batch_bytes(n) + net.answer_bytes(n) + 2 * net.parameter_bytes()
    })?;
    let mut rng = Rng::new(1, 0);
    let mut values: Vec<f32> = memory::zeroed(args.batch * TAGS, "tags")?;
    values.fill_with(|| f32::from(u8::from(rng.chance(0.5))));
    let targets = Targets { classes: &[], values: &values };
    let parameters = net.initial_parameters(1);
    let mut trainer = Trainer::new(&device, net.clone(), args.batch, SgdConfig::default(), parameters)?;
    // In the form that the device takes: photos for a GPU, values for the CPU.
    let mut input = trainer.input_form().batch();
    for _ in 0..args.batch {
        let shape = input.shape();
        if shape.c == 3 {
            let photo = Photo::from_fn(shape.w, shape.h, |_, _| [0; 3].map(|_: u8| rng.below(256) as u8));
            Resampler::default().put(&photo, photo.bounds(), false, &mut input);
        } else {
            input.values().fill_with(|| rng.normal());
        }
    }
    let mut times = Vec::new();
    // The first steps touch memory for the first time.
    for step in 0..args.steps + 2 {
        let start = Instant::now();
        trainer.step(&input, step as u64, targets, 1e-4)?;
        trainer.synchronize()?;
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

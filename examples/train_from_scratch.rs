//! A small net trained from random weights on synthetic faces, and measured on faces of other people.
//!
//! In the repository's folder: `cargo run --release --example train_from_scratch [auto|cpu|cuda|simt]`

use std::sync::Arc;
use weft::data::synth;
use weft::device::Device;
use weft::metrics::{accuracies, means};
use weft::net::{LayerSpec, Net, Normalise, Parameters, Purpose, Session, SgdConfig, Spec};
use weft::ops::{Mode, Targets};
use weft::train::Trainer;

/// The last layer has a score per attribute: present above 0.
const NET: &str = r#"
    name = "small"
    input = [3, 40, 40]
    [[layer]]
    name = "c1"                 # 16 x 18 x 18
    type = "conv"
    filters = 16
    kernel = 5
    stride = 2
    activation = "relu"
    [[layer]]
    name = "p1"                 # 16 x 9 x 9
    type = "max_pool"
    kernel = 2
    stride = 2
    [[layer]]
    name = "c2"                 # 24 x 6 x 6: filters of their own for each cell of a 3 x 3 grid
    type = "local_conv"
    filters = 24
    kernel = 2
    grid = 3
    window = "valid"
    activation = "relu"
    [[layer]]
    name = "fc"
    type = "linear"
    outputs = 64
    activation = "relu"
    [[layer]]
    name = "scores"
    type = "linear"
    outputs = 19
"#;
const SIDE: usize = 40;
const BATCH: usize = 32;
const STEPS: usize = 400;
const RATE: f32 = 0.05;

/// Faces of people whom no other seed draws: pixels `[n, SIDE, SIDE, 3]` and attributes `[n, 19]`.
fn faces(seed: u64, count: usize, normalise: Normalise) -> (Vec<f32>, Vec<bool>) {
    let config = synth::Config { identities: count / 4, seed, ..synth::Config::default() };
    let faces: Vec<synth::Face> = (0..count).map(|i| synth::render_aligned(&config, i, SIDE, SIDE)).collect();
    let pixels = faces.iter().flat_map(|face| face.photo.normalised(normalise)).collect();
    (pixels, faces.iter().flat_map(|face| face.attributes.clone()).collect())
}

fn main() -> weft::Result<()> {
    let device = Device::open(&std::env::args().nth(1).unwrap_or("auto".into()))?;
    let spec = Spec::parse(NET, "small")?;
    let (pixels, tags) = faces(1, 40 * BATCH, spec.normalise);
    let tags: Vec<f32> = tags.into_iter().map(|present| f32::from(u8::from(present))).collect();

    // Training needs a loss on top; the net without it has the same parameters and is measured.
    let measured = Arc::new(Net::new(spec.clone())?);
    let net = Net::new(spec.with([LayerSpec::new("loss", "sigmoid_cross_entropy", "")?]))?;
    let parameters = net.initial_parameters(7);
    println!("{} parameters on {}", parameters.len(), device.describe());
    let mut trainer = Trainer::new(&device, Arc::new(net), BATCH, SgdConfig::default(), parameters)?;

    let batches = pixels.chunks_exact(BATCH * SIDE * SIDE * 3).zip(tags.chunks_exact(BATCH * synth::ATTRIBUTES.len()));
    let mut sum = 0.0;
    for (step, (pixels, values)) in batches.cycle().take(STEPS).enumerate() {
        // The seed of dropout masks, for nets that have dropout.
        let mode = Mode::Training { seed: step as u64 };
        sum += trainer.forward(pixels, mode, Targets { values, ..Targets::default() })?;
        // The rate falls to 0 along a straight line.
        trainer.update(RATE * (1.0 - step as f32 / STEPS as f32))?;
        if (step + 1) % 50 == 0 {
            println!("step {:3}: loss {:.4}", step + 1, sum / 50.0);
            sum = 0.0;
        }
    }

    let found = measure(&measured, trainer.parameters())?;
    assert!(found.0 > found.1 + 0.02, "the net is hardly better than the majority");
    Ok(())
}

/// Mean accuracy over the attributes on faces of other people, and that of the more frequent answer.
fn measure(net: &Arc<Net>, parameters: &Parameters) -> weft::Result<(f64, f64)> {
    const COUNT: usize = 400;
    let (pixels, truth) = faces(2, COUNT, net.spec.normalise);
    let mut session = Session::new(net.clone(), parameters, COUNT, Purpose::Inference)?;
    session.set_input(&pixels)?;
    let found = accuracies(&synth::ATTRIBUTES.map(String::from), &session.infer()?, &truth);
    println!("{:20} accuracy  majority", "held-out faces");
    for attribute in &found {
        println!("{:20} {:7.1}% {:8.1}%", attribute.name, 100.0 * attribute.accuracy, 100.0 * attribute.majority);
    }
    let means = means(&found);
    println!("{:20} {:7.1}% {:8.1}%", "mean", 100.0 * means.accuracy, 100.0 * means.majority);
    Ok((means.accuracy, means.majority))
}

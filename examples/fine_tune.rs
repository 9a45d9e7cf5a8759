//! Fine-tuning from given weights with another head: ANet learns one attribute of synthetic faces. The trunk is frozen, the
//! last layer of the given weights moves slowly, the new head at the full rate.
//!
//! In the repository's folder: `cargo run --release --example fine_tune [auto|cpu|cuda|simt]`

use std::collections::BTreeMap;
use std::sync::Arc;
use weft::data::synth;
use weft::device::Device;
use weft::metrics::accuracies;
use weft::net::{LayerSpec, Net, Parameters, Purpose, Session, SgdConfig, Spec};
use weft::ops::{Mode, Targets};
use weft::train::Trainer;
use weft::weights::TensorFile;

const ATTRIBUTE: &str = "Black_Hair";
const TRAINING: usize = 256;
const TEST: usize = 160;
const BATCH: usize = 16;
const EPOCHS: usize = 2;
const RATE: f32 = 0.01;

fn main() -> weft::Result<()> {
    let device = Device::open(&std::env::args().nth(1).unwrap_or("auto".into()))?;

    // The described net up to a layer, and a head on it. Its name must not be that of a tensor in the file with another shape.
    let base = Spec::load("weights/anet.toml")?.up_to("fc")?;
    let spec = base.with([LayerSpec::new("attribute", "linear", "outputs = 1")?]);
    let measured = Arc::new(Net::new(spec.clone())?);
    let net = Net::new(spec.with([LayerSpec::new("loss", "sigmoid_cross_entropy", "")?]))?;

    // What the file lacks keeps its random start.
    let file = TensorFile::open("weights/anet.safetensors")?;
    let start = net.read_parameters(&file, net.initial_parameters(1))?;
    println!("not used of the file:  {}", start.ignored.join(", "));
    println!("new, not in the file:  {}", start.missing.join(", "));
    assert_eq!(start.missing, ["attribute.weight", "attribute.bias"], "a layer of the trunk is not in the file");

    // Factors of the learning rate; 0 freezes a layer, and layers that are not listed have 1.
    let factors = [("c1", 0.0), ("c2", 0.0), ("c3", 0.0), ("c4", 0.0), ("fc", 0.1)];
    let rate_factors: BTreeMap<String, f32> = factors.map(|(layer, factor)| (layer.to_string(), factor)).into();
    let config = SgdConfig { rate_factors, ..SgdConfig::default() };
    let before = start.values.clone();
    let mut trainer = Trainer::new(&device, Arc::new(net), BATCH, config, start.values)?;

    let (pixels, values) = faces(1, TRAINING, &measured);
    let steps = TRAINING / BATCH * EPOCHS;
    let batches = pixels.chunks_exact(pixels.len() / TRAINING * BATCH).zip(values.chunks_exact(BATCH));
    for (step, (pixels, values)) in batches.cycle().take(steps).enumerate() {
        let mode = Mode::Training { seed: step as u64 };
        let loss = trainer.forward(pixels, mode, Targets { values, ..Targets::default() })?;
        trainer.update(RATE * (1.0 - step as f32 / steps as f32))?;
        if step % 8 == 7 {
            println!("step {:2}: loss {loss:.4}", step + 1);
        }
    }

    let after = trainer.parameters().read()?;
    for parameter in &measured.parameters {
        let moved = before[parameter.range.clone()] != after[parameter.range.clone()];
        let is_frozen = ["c1", "c2", "c3", "c4"].contains(&measured.layers[parameter.layer].name.as_str());
        assert_eq!(moved, !is_frozen, "{}", parameter.name);
    }
    println!("c1 to c4 are what they were");
    let (accuracy, majority) = measure(&measured, trainer.parameters())?;
    println!("{ATTRIBUTE} of other people: accuracy {:.1}%, majority {:.1}%", 100.0 * accuracy, 100.0 * majority);
    assert!(accuracy > majority, "fine-tuning taught nothing");
    Ok(())
}

/// Faces of people whom no other seed draws: pixels `[n, 88, 88, 3]`, and 1 where the attribute is present.
fn faces(seed: u64, count: usize, net: &Net) -> (Vec<f32>, Vec<f32>) {
    let config = synth::Config { identities: count, seed, ..synth::Config::default() };
    let attribute = synth::ATTRIBUTES.iter().position(|name| *name == ATTRIBUTE).expect("an attribute that is drawn");
    let input = net.spec.input;
    let faces = (0..count).map(|i| synth::render_aligned(&config, i, input.w, input.h));
    let (pixels, tags): (Vec<Vec<f32>>, Vec<f32>) = faces
        .map(|face| (face.photo.normalised(net.spec.normalise), f32::from(u8::from(face.attributes[attribute]))))
        .unzip();
    (pixels.concat(), tags)
}

/// Accuracy on faces of other people, and that of the more frequent answer.
fn measure(net: &Arc<Net>, parameters: &Parameters) -> weft::Result<(f64, f64)> {
    let (pixels, tags) = faces(2, TEST, net);
    let mut session = Session::new(net.clone(), parameters, BATCH, Purpose::Inference)?;
    let mut scores = Vec::new();
    for batch in pixels.chunks_exact(pixels.len() / TEST * BATCH) {
        session.set_input(batch)?;
        scores.extend_from_slice(&session.infer()?);
    }
    let truth: Vec<bool> = tags.iter().map(|tag| *tag == 1.0).collect();
    let found = accuracies(&[ATTRIBUTE.to_string()], &scores, &truth);
    Ok((found[0].accuracy, found[0].majority))
}

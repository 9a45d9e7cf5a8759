//! Whole nets on a GPU, or on the emulator where there is none: five training steps give the CPU's losses, and a photo the CPU's
//! face and attributes.

use std::sync::Arc;
use weft::data::photo::Photo;
use weft::device::{Convolution, Device, Emulator, EmulatorOptions, Gpu, Precision};
use weft::face::Model;
use weft::net::{INPUT, LayerSpec, Net, SgdConfig, Spec};
use weft::ops::{Mode, Targets};
use weft::rng::Rng;
use weft::train::Trainer;

fn emulator(checked: bool) -> Gpu {
    let driver = Arc::new(Emulator::new(EmulatorOptions { checked, seed: Some(1) }));
    Gpu { separate_buffers: checked, ..Gpu::new(driver) }
}

/// A shipped net with a fraction of its filters, at another size if one is given, under a head with `tags` tags.
fn narrow(name: &str, divisor: i64, size: Option<usize>, head: Vec<LayerSpec>) -> Arc<Net> {
    let mut spec = Spec::load(format!("{}/nets/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap();
    for layer in &mut spec.layers {
        for key in ["filters", "outputs"] {
            if let Some(toml::Value::Integer(width)) = layer.keys.get_mut(key) {
                *width /= divisor;
            }
        }
    }
    if let Some(size) = size {
        (spec.input.h, spec.input.w) = (size, size);
    }
    Arc::new(Net::new(spec.with(head)).unwrap())
}

const TAGS: usize = 7;

fn layer(name: &str, kind: &str, keys: &str) -> LayerSpec {
    LayerSpec::new(name, kind, keys).unwrap()
}

fn anet() -> Arc<Net> {
    let head = vec![
        layer("drop", "dropout", "rate = 0.3"),
        layer("head", "linear", &format!("outputs = {TAGS}")),
        layer("similarity", "similarity", "weight = 0.01").from("fc"),
        layer("loss", "sigmoid_cross_entropy", "").from("head"),
    ];
    narrow("anet.toml", 8, None, head)
}

fn lnet() -> Arc<Net> {
    let head = vec![
        layer("head", "conv", &format!("filters = {TAGS}\nkernel = 1")),
        layer("scores", "global_pool", "mode = 'lse'"),
        layer("loss", "sigmoid_cross_entropy", ""),
    ];
    narrow("lnet_s.toml", 8, Some(99), head)
}

/// The results of five training steps.
struct Steps {
    /// The loss of each step's batch.
    losses: Vec<f32>,
    /// The loss of the first batch without dropout, before and after the steps.
    before: f32,
    after: f32,
}

/// Five steps from the same parameters, alternating between two batches.
fn train(device: &Device, net: &Arc<Net>) -> Steps {
    const BATCH: usize = 4;
    let mut rng = Rng::new(5, 0);
    let config = SgdConfig { clip_norm: 2.0, ..SgdConfig::default() };
    let mut trainer = Trainer::new(device, net.clone(), BATCH, config, net.initial_parameters(3)).unwrap();
    let batches = [(); 2].map(|()| {
        let batch: Vec<f32> = (0..net.value_len(INPUT, BATCH)).map(|_| rng.normal()).collect();
        let values: Vec<f32> = (0..BATCH * TAGS).map(|_| f32::from(u8::from(rng.chance(0.5)))).collect();
        (batch, values)
    });
    let targets = |values| Targets { classes: &[8, 5, 8, 5], values };
    let (first, values) = &batches[0];
    let before = trainer.forward(first, Mode::Inference, targets(values)).unwrap();
    let mut losses = Vec::new();
    for (step, (batch, values)) in (0..5).zip(batches.iter().cycle()) {
        let mode = Mode::Training { seed: 77 + step };
        losses.push(trainer.forward(batch, mode, targets(values)).unwrap());
        trainer.update(0.02).unwrap();
    }
    let after = trainer.forward(first, Mode::Inference, targets(values)).unwrap();
    Steps { losses, before, after }
}

/// Minimum share of its loss by which a net must improve in five steps.
const LEARNED: f32 = 0.1;

fn compare(gpu: Gpu, net: &Arc<Net>, bound: f32) {
    let (precision, expected) = (gpu.precision, train(&Device::Cpu, net));
    let found = train(&Device::Gpu(gpu), net);
    for Steps { before, after, .. } in [&expected, &found] {
        assert!(*after < (1.0 - LEARNED) * before, "{precision}: the loss of one batch goes from {before} to {after}");
    }
    // A device that does not learn is distinguished from one that rounds.
    assert!(bound < LEARNED / 2.0);
    let near = |what: &str, found: f32, expected: f32| {
        let error = (found - expected).abs() / expected.abs();
        assert!(error <= bound, "{precision}, {what}: loss {found} instead of {expected}, error {error}");
    };
    for (step, (found, expected)) in found.losses.iter().zip(&expected.losses).enumerate() {
        near(&format!("step {step}"), *found, *expected);
    }
    near("before", found.before, expected.before);
    near("after", found.after, expected.after);
}

#[test]
fn five_steps_of_anet_are_the_cpus() {
    compare(emulator(false), &anet(), 1e-5);
    compare(Gpu { convolution: Convolution::Im2col, ..emulator(false) }, &anet(), 1e-5);
}

#[test]
fn five_steps_of_lnet_are_the_cpus() {
    compare(emulator(false), &lnet(), 1e-5);
}

#[test]
fn five_steps_in_other_precisions_stay_near() {
    for (precision, bound) in [(Precision::Tf32, 2e-3), (Precision::F16, 5e-3), (Precision::Bf16, 3e-2)] {
        compare(Gpu { precision, ..emulator(false) }, &anet(), bound);
        compare(Gpu { precision, ..emulator(false) }, &lnet(), bound);
    }
}

#[test]
fn a_photo_has_the_cpus_face_and_attributes() {
    let root = env!("CARGO_MANIFEST_DIR");
    let photo = Photo::open(format!("{root}/tests/photos/eileen-collins.jpg")).unwrap();
    let answer = |device: &Device| {
        let mut model = Model::load(format!("{root}/weights"), device).unwrap();
        let face = model.locate(&photo).unwrap().expect("a face");
        (face.rect, model.scores(&photo, &face).unwrap())
    };
    let (rect, scores) = answer(&Device::Cpu);
    let (found, found_scores) = answer(&Device::Gpu(emulator(false)));
    let near = |a: f32, b: f32| (a - b).abs() <= 0.01;
    assert!(near(rect.x, found.x) && near(rect.width, found.width), "{found:?} instead of {rect:?}");
    for (score, found) in scores.iter().zip(&found_scores) {
        assert!((score - found).abs() <= 1e-4, "{found} instead of {score}");
    }
}

//! Whole steps of training on the emulator: photos go up as bytes, a step is one graph, and its loss comes a step later; the losses
//! are the CPU's.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use weft::data::photo::{Photo, Rect};
use weft::data::resample::Resampler;
use weft::device::{
    Attributes, Device, Driver, Emulator, EmulatorOptions, Gpu, Graph, Launch, Pinned, Precision, Properties, Ptr,
};
use weft::net::{Input, LossScale, Net, SgdConfig, Spec};
use weft::ops::Targets;
use weft::rng::Rng;
use weft::train::Trainer;

const BATCH: usize = 6;
const TAGS: usize = 5;
const NET: &str = "name = 'small'
input = [3, 19, 17]
normalise = { mean = [120.0, 110.0, 100.0], scale = 0.02 }
layer = [
    { name = 'c1', type = 'conv', filters = 8, kernel = 3, stride = 2, activation = 'relu' },
    { name = 'p1', type = 'max_pool', kernel = 2 },
    { name = 'fc', type = 'linear', outputs = 12, activation = 'relu' },
    { name = 'drop', type = 'dropout', rate = 0.3 },
    { name = 'head', type = 'linear', outputs = 5 },
    { name = 'similarity', type = 'similarity', weight = 0.01, from = ['fc'] },
    { name = 'loss', type = 'sigmoid_cross_entropy', from = ['head'] }]";

fn net() -> Arc<Net> {
    Arc::new(Net::new(Spec::parse(NET, "small.toml").unwrap()).unwrap())
}

fn trainer(device: &Device) -> Trainer {
    let config = SgdConfig { clip_norm: 2.0, ..SgdConfig::default() };
    Trainer::new(device, net(), BATCH, config, net().initial_parameters(3)).unwrap()
}

/// Blurred noise, so that windows of it differ and are learned from.
fn photo(seed: u64) -> Photo {
    let mut rng = Rng::new(seed, 1);
    let coarse = Photo::from_fn(6, 5, |_, _| [0; 3].map(|_: u8| rng.below(256) as u8));
    coarse.resized(70 + rng.below(30), 60 + rng.below(30))
}

/// Fills a step's batch: windows inside photos and beyond them, enlarged and shrunk, some by so much that their values are fewer
/// bytes, and mirrored; one sample is drawn by the host.
fn fill(input: &mut Input, step: usize) {
    let mut resampler = Resampler::default();
    for slot in 0..BATCH {
        let mut rng = Rng::new(9, (step * BATCH + slot) as u64);
        let photo = photo((step + slot) as u64 % 4);
        let width = [9.3, 17.0, 30.0, 65.0, 90.0][slot % 5];
        let window = Rect::new(rng.range(-8.0, 40.0), rng.range(-8.0, 40.0), width, width * 19.0 / 17.0);
        if slot == BATCH - 1 {
            input.values().fill_with(|| rng.normal());
        } else {
            resampler.put(&photo, window, rng.chance(0.5), input);
        }
    }
}

/// The losses of `steps` steps.
fn losses(trainer: &mut Trainer, steps: Range<usize>) -> Vec<f32> {
    let mut losses = Vec::new();
    for step in steps {
        let mut input = trainer.input_form().batch();
        fill(&mut input, step);
        let values: Vec<f32> = (0..BATCH * TAGS).map(|i| ((i + step) % 3 / 2) as f32).collect();
        let targets = Targets { classes: &[1, 2, 1, 3, 2, 1], values: &values };
        losses.extend(trainer.step(&input, step as u64, targets, 0.05).unwrap());
    }
    losses.extend(trainer.finish().unwrap());
    losses
}

fn emulator(checked: bool, precision: Precision) -> Device {
    let driver = Arc::new(Emulator::new(EmulatorOptions { checked, seed: None }));
    Device::Gpu(Gpu { separate_buffers: checked, precision, ..Gpu::new(driver) })
}

#[track_caller]
fn close(found: &[f32], expected: &[f32], bound: f32) {
    assert_eq!(found.len(), expected.len());
    for (step, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / expected.abs();
        assert!(error <= bound, "step {step}: loss {found} instead of {expected}, error {error}");
    }
}

#[test]
fn twenty_steps_on_photos_are_the_cpus() {
    let mut on_cpu = trainer(&Device::Cpu);
    let expected = losses(&mut on_cpu, 0..20);
    assert!(expected[19] < 0.9 * expected[0], "it learns: {expected:?}");
    let mut on_gpu = trainer(&emulator(false, Precision::F32));
    close(&losses(&mut on_gpu, 0..20), &expected, 1e-5);
    for (found, expected) in on_gpu.parameters().read().unwrap().iter().zip(&*on_cpu.parameters().read().unwrap()) {
        assert!((found - expected).abs() <= 1e-5, "{found} instead of {expected}");
    }
}

#[test]
fn steps_are_clean_under_the_checker_in_every_precision() {
    let expected = losses(&mut trainer(&Device::Cpu), 0..3);
    for (precision, bound) in
        [(Precision::F32, 1e-5), (Precision::Tf32, 2e-3), (Precision::F16, 5e-3), (Precision::Bf16, 3e-2)]
    {
        close(&losses(&mut trainer(&emulator(true, precision)), 0..3), &expected, bound);
    }
}

/// The input is rounded to 11 bits, weights and every activation and gradient too; over 20 steps of momentum the differences add up.
#[test]
fn f16_follows_f32_with_scaled_losses() {
    let expected = losses(&mut trainer(&Device::Cpu), 0..20);
    let mut trainer = trainer(&emulator(false, Precision::F16));
    assert_eq!(trainer.loss_scale().unwrap(), Some(LossScale::default()));
    close(&losses(&mut trainer, 0..20), &expected, 2e-2);
    assert_eq!(trainer.loss_scale().unwrap(), Some(LossScale { good: 20, ..LossScale::default() }));
    assert_eq!(trainer.skipped(), None);
}

#[test]
fn an_overflow_skips_the_step_and_halves_the_scale() {
    let mut trainer = trainer(&emulator(true, Precision::F16));
    let state = |trainer: &mut Trainer, steps: Range<usize>| {
        let losses = losses(trainer, steps);
        assert!(losses.iter().all(|loss| loss.is_finite()));
        let parameters = trainer.parameters().read().unwrap().to_vec();
        let stored = trainer.parameters().read_rounded().unwrap().to_vec();
        (parameters, stored, trainer.momentum().unwrap().to_vec())
    };
    let scale = |scale: f32, good, skipped| LossScale { scale, good, skipped };
    let start = state(&mut trainer, 0..1);
    assert_eq!((trainer.loss_scale().unwrap(), trainer.skipped()), (Some(scale(65536.0, 1, 0)), None));
    // 2^24 / 30 values / 2 is beyond 65504.
    trainer.set_loss_scale(scale(LossScale::MOST, 1999, 0)).unwrap();
    let found = state(&mut trainer, 1..2);
    let after = scale(LossScale::MOST / 2.0, 0, 1);
    assert_eq!((trainer.loss_scale().unwrap(), trainer.skipped()), (Some(after), Some(after)));
    assert!(found == start, "a step that was skipped changes nothing");
    let mut steps = 1;
    while trainer.skipped().is_some() {
        steps += 1;
        assert!(steps < 20);
        let before = state(&mut trainer, steps..steps);
        let found = state(&mut trainer, steps..steps + 1);
        assert_eq!(found == before, trainer.skipped().is_some());
    }
    let now = trainer.loss_scale().unwrap().unwrap();
    assert_eq!(now, scale(LossScale::MOST / 2f32.powi(steps as i32 - 1), 1, steps as u32 - 1));
    // Neither in f32 nor in bf16.
    for precision in [Precision::F32, Precision::Bf16] {
        let mut other = self::trainer(&emulator(false, precision));
        other.set_loss_scale(scale(LossScale::MOST, 0, 0)).unwrap();
        losses(&mut other, 0..2);
        assert_eq!((other.loss_scale().unwrap(), other.skipped()), (None, None));
    }
}

#[test]
fn the_scale_is_doubled_after_many_good_steps_and_has_an_end() {
    let mut trainer = trainer(&emulator(false, Precision::F16));
    for (before, good, after) in [
        (1024.0, LossScale::INTERVAL - 2, (1024.0, LossScale::INTERVAL - 1)),
        (1024.0, LossScale::INTERVAL - 1, (2048.0, 0)),
        (LossScale::LEAST, LossScale::INTERVAL - 1, (2.0 * LossScale::LEAST, 0)),
    ] {
        trainer.set_loss_scale(LossScale { scale: before, good, skipped: 7 }).unwrap();
        losses(&mut trainer, 0..1);
        let (scale, good) = after;
        assert_eq!(trainer.loss_scale().unwrap(), Some(LossScale { scale, good, skipped: 7 }));
    }
    let error = trainer.set_loss_scale(LossScale { scale: 3.0, good: 0, skipped: 0 }).unwrap_err().to_string();
    assert!(error.contains("power of two") && !error.contains('\n'), "{error}");
}

const XOR: &str = "name = 'xor'
input = [2, 1, 1]
layer = [
    { name = 'a', type = 'linear', outputs = 8, activation = 'relu' },
    { name = 'drop', type = 'dropout', rate = 0.1 },
    { name = 'b', type = 'linear', outputs = 2 },
    { name = 'loss', type = 'softmax_cross_entropy', weight = WEIGHT }]";

fn xor(device: &Device, weight: f32) -> Trainer {
    let text = XOR.replace("WEIGHT", &format!("{weight:?}"));
    let net = Arc::new(Net::new(Spec::parse(&text, "xor.toml").unwrap()).unwrap());
    let parameters = net.initial_parameters(1);
    let config = SgdConfig { weight_decay: 0.0, ..SgdConfig::default() };
    Trainer::new(device, net, 4, config, parameters).unwrap()
}

const CORNERS: [f32; 8] = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];

fn xor_losses(trainer: &mut Trainer, steps: u64, rate: f32) -> Vec<f32> {
    let targets = Targets { classes: &[0, 1, 1, 0], values: &[] };
    let mut input = trainer.input_form().batch();
    for sample in CORNERS.chunks(2) {
        input.values().copy_from_slice(sample);
    }
    let mut losses: Vec<f32> =
        (0..steps).filter_map(|step| trainer.step(&input, step, targets, rate).unwrap()).collect();
    losses.extend(trainer.finish().unwrap());
    losses
}

/// A loss whose gradients are below the smallest number of f16, 6e-8.
#[test]
fn gradients_that_underflow_are_learned_from_only_with_a_scale() {
    let weight = 1e-7;
    let (steps, rate) = (120, 0.1 / weight);
    let learns = |losses: &[f32]| assert!(losses[119] < 0.5 * losses[0], "{losses:?}");
    learns(&xor_losses(&mut xor(&Device::Cpu, weight), steps, rate));
    learns(&xor_losses(&mut xor(&emulator(false, Precision::F16), weight), steps, rate));
    let mut plain = xor(&emulator(false, Precision::F16), weight);
    let start = plain.parameters().read().unwrap().to_vec();
    plain.set_loss_scale(LossScale { scale: 1.0, good: 0, skipped: 0 }).unwrap();
    xor_losses(&mut plain, steps, rate);
    assert_eq!(*plain.parameters().read().unwrap(), start, "all gradients are zero");
}

#[test]
fn steps_in_f16_are_their_halves_to_the_last_bit() {
    let device = emulator(false, Precision::F16);
    let (mut whole, mut halves) = (xor(&device, 1.0), xor(&device, 1.0));
    for trainer in [&mut whole, &mut halves] {
        trainer.set_loss_scale(LossScale { scale: LossScale::MOST, good: 0, skipped: 0 }).unwrap();
    }
    let expected = xor_losses(&mut whole, 12, 0.05);
    let targets = Targets { classes: &[0, 1, 1, 0], values: &[] };
    let mut found = Vec::new();
    for seed in 0..12 {
        found.push(halves.forward(&CORNERS, weft::ops::Mode::Training { seed }, targets).unwrap());
        halves.update(0.05).unwrap();
    }
    assert_eq!(found, expected);
    assert_eq!(*halves.parameters().read().unwrap(), *whole.parameters().read().unwrap());
    let scale = whole.loss_scale().unwrap().unwrap();
    assert!(scale.skipped > 0 && scale.good > 0, "{scale:?}");
    assert_eq!(halves.loss_scale().unwrap(), Some(scale));
}

#[test]
fn steps_and_their_halves_can_be_mixed() {
    for device in [Device::Cpu, emulator(false, Precision::F32)] {
        let mut whole = trainer(&device);
        let expected = losses(&mut whole, 0..4);
        let mut mixed = trainer(&device);
        let mut found = losses(&mut mixed, 0..2);
        let targets = Targets { classes: &[1; BATCH], values: &[0.5; BATCH * TAGS] };
        // A measurement between two steps changes neither.
        mixed.forward(&vec![0.5; BATCH * 19 * 17 * 3], weft::ops::Mode::Inference, targets).unwrap();
        found.extend(losses(&mut mixed, 2..4));
        assert_eq!(found, expected, "{device:?}");
    }
}

#[test]
fn inputs_that_are_no_photos_go_up_as_values() {
    let text = "name = 'xor'\ninput = [2, 1, 1]\nlayer = [
        { name = 'a', type = 'linear', outputs = 8, activation = 'relu' },
        { name = 'b', type = 'linear', outputs = 2 },
        { name = 'loss', type = 'softmax_cross_entropy' }]";
    let net = Arc::new(Net::new(Spec::parse(text, "xor.toml").unwrap()).unwrap());
    let losses = |device: &Device| {
        let parameters = net.initial_parameters(1);
        let mut trainer = Trainer::new(device, net.clone(), 4, SgdConfig::default(), parameters).unwrap();
        let mut input = trainer.input_form().batch();
        for sample in [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]] {
            input.values().copy_from_slice(&sample);
        }
        let targets = Targets { classes: &[0, 1, 1, 0], values: &[] };
        let mut losses: Vec<f32> =
            (0..20).filter_map(|step| trainer.step(&input, step, targets, 0.1).unwrap()).collect();
        losses.extend(trainer.finish().unwrap());
        losses
    };
    let expected = losses(&Device::Cpu);
    for precision in [Precision::F32, Precision::Bf16] {
        let bound = if precision == Precision::F32 { 1e-5 } else { 0.1 };
        close(&losses(&emulator(true, precision)), &expected, bound);
    }
}

#[test]
fn a_batch_of_another_form_is_refused() {
    let on_cpu = trainer(&Device::Cpu).input_form();
    for device in [Device::Cpu, emulator(false, Precision::F32)] {
        let mut trainer = trainer(&device);
        let targets = Targets { classes: &[1; BATCH], values: &[0.5; BATCH * TAGS] };
        let mut short = trainer.input_form().batch();
        short.values();
        let error = trainer.step(&short, 0, targets, 0.1).unwrap_err().to_string();
        assert!(error.contains("a batch of 1 samples") && !error.contains('\n'), "{error}");
        let mut other = on_cpu.batch();
        fill(&mut other, 0);
        assert_eq!(trainer.step(&other, 0, targets, 0.1).is_ok(), device.gpu().is_none());
        let mut whole = trainer.input_form().batch();
        fill(&mut whole, 0);
        assert!(trainer.step(&whole, 0, Targets::default(), 0.1).is_err(), "no targets");
    }
}

/// An emulator that counts what it is asked for.
struct Counting {
    inner: Emulator,
    counts: Arc<Counts>,
}

#[derive(Default)]
struct Counts {
    launches: AtomicUsize,
    graphs: AtomicUsize,
    uploads: AtomicUsize,
    uploaded: AtomicUsize,
    downloads: AtomicUsize,
    waits: AtomicUsize,
}

impl Counts {
    fn take(&self) -> [usize; 6] {
        let Self { launches, graphs, uploads, uploaded, downloads, waits } = self;
        [launches, graphs, uploads, uploaded, downloads, waits].map(|count| count.swap(0, Relaxed))
    }
}

struct CountingGraph(Box<dyn Graph>, Arc<Counts>);

impl Graph for CountingGraph {
    fn launch(&self) -> weft::Result<()> {
        self.1.graphs.fetch_add(1, Relaxed);
        self.0.launch()
    }
}

struct CountingPinned(Box<dyn Pinned>, Arc<Counts>);

impl Pinned for CountingPinned {
    fn bytes(&mut self) -> weft::Result<&mut [u8]> {
        self.0.bytes()
    }
    fn upload(&mut self, range: Range<usize>, to: Ptr) -> weft::Result<()> {
        self.1.uploads.fetch_add(1, Relaxed);
        self.1.uploaded.fetch_add(range.len(), Relaxed);
        self.0.upload(range, to)
    }
    fn download(&mut self, from: Ptr, range: Range<usize>) -> weft::Result<()> {
        self.0.download(from, range)
    }
}

impl Driver for Counting {
    fn properties(&self) -> &Properties {
        self.inner.properties()
    }
    fn free_memory(&self) -> weft::Result<u64> {
        self.inner.free_memory()
    }
    fn is_host(&self) -> bool {
        true
    }
    fn allocate(&self, bytes: usize) -> weft::Result<Ptr> {
        self.inner.allocate(bytes)
    }
    fn free(&self, memory: Ptr) {
        self.inner.free(memory);
    }
    fn upload(&self, to: Ptr, bytes: &[u8]) -> weft::Result<()> {
        self.counts.uploads.fetch_add(1, Relaxed);
        self.counts.uploaded.fetch_add(bytes.len(), Relaxed);
        self.inner.upload(to, bytes)
    }
    fn download(&self, from: Ptr, bytes: &mut [u8]) -> weft::Result<()> {
        self.counts.downloads.fetch_add(1, Relaxed);
        self.inner.download(from, bytes)
    }
    fn pinned(&self, bytes: usize) -> weft::Result<Box<dyn Pinned>> {
        Ok(Box::new(CountingPinned(self.inner.pinned(bytes)?, self.counts.clone())))
    }
    fn launch(&self, launch: &Launch) -> weft::Result<()> {
        self.counts.launches.fetch_add(1, Relaxed);
        self.inner.launch(launch)
    }
    fn synchronize(&self) -> weft::Result<()> {
        self.counts.waits.fetch_add(1, Relaxed);
        self.inner.synchronize()
    }
    fn capture(&self, launches: &[Launch]) -> weft::Result<Box<dyn Graph>> {
        Ok(Box::new(CountingGraph(self.inner.capture(launches)?, self.counts.clone())))
    }
    fn time(&self, launches: &[Launch]) -> weft::Result<Vec<f64>> {
        self.inner.time(launches)
    }
    fn attributes(&self, launch: &Launch) -> weft::Result<Option<Attributes>> {
        self.inner.attributes(launch)
    }
    fn kernels(&self) -> Vec<String> {
        self.inner.kernels()
    }
}

#[test]
fn a_step_is_one_upload_one_graph_and_no_wait() {
    for precision in [Precision::F32, Precision::F16] {
        one_upload_and_one_graph(precision);
    }
}

fn one_upload_and_one_graph(precision: Precision) {
    let counts = Arc::new(Counts::default());
    let driver = Counting { inner: Emulator::new(EmulatorOptions::default()), counts: counts.clone() };
    let mut trainer = trainer(&Device::Gpu(Gpu { precision, ..Gpu::new(Arc::new(driver)) }));
    // The first step runs launch by launch, and captures.
    losses(&mut trainer, 0..1);
    counts.take();
    let mut input = trainer.input_form().batch();
    for slot in 0..BATCH {
        let window = Rect::new(3.0 + slot as f32, 5.5, 17.0, 19.0);
        Resampler::default().put(&photo(1), window, false, &mut input);
    }
    let targets = Targets { classes: &[1; BATCH], values: &[0.5; BATCH * TAGS] };
    assert_eq!(trainer.step(&input, 5, targets, 0.05).unwrap(), None, "the loss is not waited for");
    let [launches, graphs, uploads, uploaded, downloads, waits] = counts.take();
    assert_eq!((launches, graphs, uploads, downloads, waits), (0, 1, 1, 0, 0));
    let values = 4 * BATCH * 19 * 17 * 3;
    assert!(2 * uploaded < values, "{uploaded} bytes, but a batch of f32 is {values}");
    assert!(trainer.step(&input, 6, targets, 0.05).unwrap().is_some(), "of the step before");
    assert!(trainer.finish().unwrap().is_some() && trainer.finish().unwrap().is_none());
}

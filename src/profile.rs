//! Where the time of a pass goes: each launch of a net's program is timed individually, many times, and compared with the GPU's
//! limits (the roofline: the larger of its FLOPs over the unit's rate and its bytes over the bandwidth). On the CPU the same per
//! operation. [`forecast`] predicts the profile of a card that is not there from counted instructions.

pub mod cards;
#[cfg(feature = "simt")]
pub mod floors;
#[cfg(feature = "simt")]
pub mod forecast;
pub mod host;
pub mod occupancy;
#[cfg(feature = "face")]
pub mod page;
#[cfg(feature = "face")]
pub mod picture;

use crate::Result;
use crate::device::{Attributes, Device, Launch, Peaks, Work};
use crate::memory;
use crate::net::{Net, Parameters, Purpose, Session, Timed};
use crate::ops::{Mode, TargetKind, Targets};
use crate::rng::Rng;
use std::fmt::Display;
use std::sync::Arc;

/// Warm-up passes before measuring.
const WARM_UP: usize = 3;
/// Number of consecutive graph launches when timing a whole pass, so that host overhead disappears.
const IN_A_ROW: usize = 10;

/// Repeated timings of one item, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Times {
    pub median: f64,
    /// Lower and upper quartiles.
    pub low: f64,
    pub high: f64,
}

impl Times {
    /// Computes the statistics of at least one run.
    fn of(mut seconds: Vec<f64>) -> Self {
        seconds.sort_by(f64::total_cmp);
        let at = |share: f64| {
            let index = (share * seconds.len().saturating_sub(1) as f64).round() as usize;
            seconds.get(index).copied().unwrap_or(0.0)
        };
        Self { median: at(0.5), low: at(0.25), high: at(0.75) }
    }
}

/// The resource that bounds a launch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roof {
    Compute,
    Memory,
}

/// One launch, or one layer's pass on the CPU.
#[derive(Debug, Clone)]
pub struct Row {
    /// On the CPU, the layer's type.
    pub kernel: String,
    pub layer: String,
    pub is_backward: bool,
    pub times: Times,
    pub work: Work,
    /// The launch; only for kernels.
    pub launch: Option<Launch>,
    /// Attributes of the compiled kernel, where a driver reports them.
    pub attributes: Option<Attributes>,
    /// Resident threads relative to the maximum of a multiprocessor.
    pub occupancy: Option<f64>,
    /// The minimum possible time over the measured time, and the resource that bounds it.
    pub roofline: Option<(f64, Roof)>,
}

/// A launch or a layer's pass with its time, measured or predicted.
#[derive(Debug, Clone, Copy)]
pub struct Step<'a> {
    pub kernel: &'a str,
    pub layer: &'a str,
    pub is_backward: bool,
    pub seconds: f64,
    pub work: Work,
}

/// Layers in order of first execution, with forward and backward seconds.
pub fn layers<'a>(steps: &[Step<'a>]) -> Vec<(&'a str, [f64; 2])> {
    let mut layers: Vec<(&str, [f64; 2])> = Vec::new();
    for step in steps {
        let index = layers.iter().position(|(name, _)| *name == step.layer).unwrap_or_else(|| {
            layers.push((step.layer, [0.0; 2]));
            layers.len() - 1
        });
        layers[index].1[usize::from(step.is_backward)] += step.seconds;
    }
    layers
}

impl Row {
    fn new(timed: Timed, times: Times, device: &Device) -> Self {
        let properties = device.properties();
        let occupancy = |attributes: Attributes, launch: &Launch, most: u32| {
            f64::from(attributes.blocks_per_multiprocessor * launch.block) / f64::from(most.max(1))
        };
        let most = properties.as_ref().map_or(0, |properties| properties.threads_per_multiprocessor);
        let peaks = properties.and_then(|properties| properties.peaks).filter(|_| timed.launch.is_some());
        Self {
            times,
            work: timed.work,
            // No blocks: nobody knows the card.
            occupancy: timed
                .launch
                .as_ref()
                .zip(timed.attributes)
                .filter(|(_, attributes)| attributes.blocks_per_multiprocessor > 0)
                .map(|(launch, attributes)| occupancy(attributes, launch, most)),
            roofline: peaks.map(|peaks| roofline(&timed.kernel, timed.work, times.median, peaks)),
            kernel: timed.kernel,
            layer: timed.layer,
            is_backward: timed.is_backward,
            launch: timed.launch,
            attributes: timed.attributes,
        }
    }
}

/// A profile.
#[derive(Debug)]
pub struct Profile {
    pub device: String,
    pub peaks: Option<Peaks>,
    pub rows: Vec<Row>,
    /// Time of the whole pass: as a graph on a GPU.
    pub whole: Times,
}

impl Profile {
    /// Sum of the rows' medians.
    pub fn sum(&self) -> f64 {
        self.rows.iter().map(|row| row.times.median).sum()
    }

    /// The rows with their median times.
    pub fn steps(&self) -> Vec<Step<'_>> {
        let steps = self.rows.iter().map(|row| Step {
            kernel: &row.kernel,
            layer: &row.layer,
            is_backward: row.is_backward,
            seconds: row.times.median,
            work: row.work,
        });
        steps.collect()
    }

    /// Holds the rows against these peaks.
    pub fn against(&mut self, peaks: Peaks) {
        self.peaks = Some(peaks);
        for row in &mut self.rows {
            row.roofline = Some(roofline(&row.kernel, row.work, row.times.median, peaks));
        }
    }
}

/// Times passes over `n` random samples, `runs` times: forward, and backward if the purpose includes it.
///
/// # Errors
/// Insufficient memory for the batch; a launch that failed.
pub fn profile(device: &Device, net: &Arc<Net>, n: usize, purpose: Purpose, runs: usize) -> Result<Profile> {
    check(format!("{}: a batch of {n}", net.spec.place), device, net, n, purpose)?;
    let batch = Batch::draw(net, n, purpose)?;
    let runs = runs.max(1);
    let parameters = Parameters::on(device, net, net.initial_parameters(1))?;
    let mut session = Session::new(net.clone(), &parameters, n, purpose)?;
    session.set_input(&batch.input)?;
    session.forward(batch.mode(), batch.targets())?;
    if batch.training {
        session.backward(batch.cotangent.as_deref())?;
    }
    // The emulator needs no warm-up, and is slow.
    let (warm_up, repeats) = if device.is_emulated() { (0, 1) } else { (WARM_UP, IN_A_ROW) };
    let mut time = || session.time(&batch.input, batch.mode(), batch.targets(), batch.cotangent.as_deref(), repeats);
    for _ in 0..warm_up.min(runs) {
        time()?;
    }
    let (mut seconds, mut whole) = (Vec::new(), Vec::with_capacity(runs));
    for _ in 0..runs {
        let (each, pass) = time()?;
        seconds.resize(each.len(), Vec::with_capacity(runs));
        seconds.iter_mut().zip(each).for_each(|(times, time)| times.push(time));
        whole.push(pass);
    }
    session.run_in_ranges(batch.mode())?;
    let timed = session.timed(batch.mode())?;
    let rows = timed.into_iter().zip(seconds).map(|(timed, seconds)| Row::new(timed, Times::of(seconds), device));
    let peaks = device.properties().and_then(|properties| properties.peaks);
    Ok(Profile { device: device.describe(), peaks, rows: rows.collect(), whole: Times::of(whole) })
}

/// Checks that [`profile`] has enough memory for passes over `n` samples.
///
/// # Errors
/// `what` needs more memory than is free: how much, and the largest batch that would fit.
pub fn check(what: impl Display, device: &Device, net: &Net, n: usize, purpose: Purpose) -> Result<()> {
    // In addition to the session: the batch, its targets, a cotangent and parameters.
    net.fit(what, device, n, purpose, |n| net.batch_bytes(n) + net.answer_bytes(n) + net.parameter_bytes())
}

/// Random numbers to compute on: no zeros, which some hardware processes faster.
struct Batch {
    input: Vec<f32>,
    classes: Vec<u32>,
    values: Vec<f32>,
    /// None if the last layer is a loss.
    cotangent: Option<Vec<f32>>,
    training: bool,
}

impl Batch {
    fn draw(net: &Net, n: usize, purpose: Purpose) -> Result<Self> {
        let training = purpose.is_backward();
        let mut rng = Rng::new(1, 0);
        let (mut classes, mut values) = (Vec::new(), Vec::new());
        for kind in net.layers.iter().filter_map(|layer| layer.op.target()) {
            match kind {
                TargetKind::Classes { per_sample, below } => {
                    classes = fill(n * per_sample, || rng.below(below) as u32)?;
                }
                TargetKind::Identities if classes.is_empty() => classes = fill(n, || rng.below(8) as u32)?,
                TargetKind::Identities => {}
                TargetKind::Values { per_sample } => values = fill(n * per_sample, || rng.unit())?,
            }
        }
        let last = net.layers.len();
        let is_loss = net.layers.last().is_some_and(|layer| layer.op.target().is_some());
        let mut noise = |len: usize| fill(len, || rng.range(-1.0, 1.0));
        Ok(Self {
            input: noise(n * net.spec.input.len())?,
            cotangent: (training && !is_loss).then(|| noise(net.value_len(last, n))).transpose()?,
            classes,
            values,
            training,
        })
    }

    fn targets(&self) -> Targets<'_> {
        Targets { classes: &self.classes, values: &self.values }
    }

    fn mode(&self) -> Mode {
        if self.training { Mode::Training { seed: 1 } } else { Mode::Inference }
    }
}

/// Draws `len` values.
fn fill<T>(len: usize, mut draw: impl FnMut() -> T) -> Result<Vec<T>> {
    let mut values = memory::reserve(len, "a batch")?;
    values.extend((0..len).map(|_| draw()));
    Ok(values)
}

/// The minimum possible time over the measured time.
fn roofline(kernel: &str, work: Work, seconds: f64, peaks: Peaks) -> (f64, Roof) {
    let compute = work.flops as f64 / rate(kernel, peaks);
    let memory = work.bytes as f64 / peaks.memory;
    let roof = if compute > memory { Roof::Compute } else { Roof::Memory };
    (compute.max(memory) / seconds.max(f64::MIN_POSITIVE), roof)
}

/// FLOP/s of the unit on which a kernel multiplies: products in precisions other than f32 use tensor cores.
pub fn rate(kernel: &str, peaks: Peaks) -> f64 {
    let is_product = ["conv_forward", "conv_backward_data", "conv_backward_weights", "gemm_n", "gemm_t", "dense_conv"]
        .iter()
        .any(|name| kernel.starts_with(name));
    match kernel.rsplit('_').next() {
        Some("tf32") if is_product => peaks.tf32,
        Some("f16" | "bf16") if is_product => peaks.half,
        _ => peaks.f32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_both_floors_is_the_roof() {
        let peaks = Peaks { f32: 1e12, tf32: 4e12, half: 8e12, memory: 1e11 };
        let work = Work { flops: 8_000_000, bytes: 200_000 };
        assert_eq!(roofline("conv_forward_f32", work, 16e-6, peaks), (0.5, Roof::Compute));
        assert_eq!(roofline("conv_forward_bf16", work, 4e-6, peaks), (0.5, Roof::Memory));
        assert_eq!(roofline("gemm_tn_tf32", work, 4e-6, peaks), (0.5, Roof::Memory));
        // Does not use tensor cores.
        assert_eq!(rate("pool_forward_f16", peaks), 1e12);
    }

    #[test]
    fn times_are_ordered() {
        let times = Times::of(vec![5.0, 1.0, 2.0, 4.0, 3.0]);
        assert_eq!((times.low, times.median, times.high), (2.0, 3.0, 4.0));
    }
}

//! The pictures of a profile: the roofline with a disc per launch, and a bar per layer.

use super::Step;
use super::host::Host;
use super::{cards::Card, layers, rate};
use crate::Result;
use crate::chart::{self, Axis, Bar, Disc, Drawing, Frame, Labels, Line, log_ticks};
use crate::device::Peaks;

/// Launches whose names are written beside their discs: the longest.
const NAMED: usize = 12;
/// Radius of a launch that takes all the time, and of the shortest, in pixels.
const RADII: [f64; 2] = [26.0, 3.0];

/// What a device can do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roofs {
    pub peaks: Peaks,
    /// Bytes per second of a cache, with its name.
    pub cache: Option<(&'static str, f64)>,
}

impl Roofs {
    /// Of a card. Tensor cores as `mma.sync` uses them.
    pub fn of_card(card: &Card) -> Self {
        let [f32, tf32, half] =
            [card.pipes.fma, card.pipes.tensor_tf32, card.pipes.tensor_half].map(|lanes| 2.0 * card.rate(lanes));
        Self { peaks: Peaks { f32, tf32, half, memory: card.memory }, cache: Some(("L2 cache", card.l2)) }
    }

    /// Of this processor.
    pub fn of_host(host: Host) -> Self {
        Self { peaks: host.peaks(), cache: Some(("cache of a core", host.cache)) }
    }

    /// Of a GPU with these peaks; the cache is known for those of the table.
    pub fn of_gpu(name: &str, peaks: Peaks) -> Self {
        Self { peaks, cache: Card::of_device(name).map(|card| ("L2 cache", card.l2)) }
    }
}

/// A profile to be drawn.
pub struct Picture<'a> {
    pub steps: Vec<Step<'a>>,
    /// Unknown for the emulator, and then there is no roofline.
    pub roofs: Option<Roofs>,
    /// Whether the times are predicted.
    pub is_predicted: bool,
}

impl Picture<'_> {
    /// Both pictures side by side, as a file.
    ///
    /// # Errors
    /// None known: charts are drawn into memory.
    pub fn file(&self, title: &str) -> Result<String> {
        match self.roofline() {
            Some(roofline) => chart::beside(title, &[roofline, self.layers()]),
            None => self.layers().embedded().map(|svg| chart::standalone(&svg)),
        }
    }

    fn is_train(&self) -> bool {
        self.steps.iter().any(|step| step.is_backward)
    }

    /// FLOP/s over FLOPs per byte; launches without arithmetic have no place in it. None without roofs, or without a launch to
    /// draw.
    pub fn roofline(&self) -> Option<Drawing<'_>> {
        let Roofs { peaks, cache } = self.roofs?;
        let drawn = |step: &&Step<'_>| step.work.flops > 0 && step.work.bytes > 0 && step.seconds > 0.0;
        let mut steps: Vec<&Step<'_>> = self.steps.iter().filter(drawn).collect();
        steps.sort_by(|a, b| b.seconds.total_cmp(&a.seconds));
        let whole: f64 = self.steps.iter().map(|step| step.seconds).sum();
        let at = |step: &Step<'_>| {
            let flops = step.work.flops as f64;
            [flops / step.work.bytes as f64, flops / step.seconds]
        };
        let mut rates: Vec<f64> = steps.iter().map(|step| rate(step.kernel, peaks)).chain([peaks.f32]).collect();
        rates.sort_by(f64::total_cmp);
        rates.dedup();
        let top = *rates.last()?;
        let (unit, scale) = if top >= 1e12 { ("TFLOP/s", 1e-12) } else { ("GFLOP/s", 1e-9) };
        let bounds = |axis: usize, ends: [f64; 2]| {
            let values = || steps.iter().map(|step| at(step)[axis]).chain(ends);
            [values().fold(f64::INFINITY, f64::min) / 1.6, values().fold(0.0, f64::max) * 1.6]
        };
        steps.first()?;
        let [x, y] = [bounds(0, [1.0, top / peaks.memory]), bounds(1, [top, top / 30.0])];
        let mut lines = Vec::new();
        let per_second = |bytes: f64| match bytes >= 1e12 {
            true => format!("{:.2} TB/s", bytes * 1e-12),
            false => format!("{:.0} GB/s", bytes * 1e-9),
        };
        let roof = |name: String, series: usize, points: Vec<[f64; 2]>| Line {
            name: Some(name.into()),
            points: points.into_iter().map(|[x, y]| [x, y * scale]).collect(),
            series,
            width: 1.8,
            dots: false,
            mark: None,
        };
        let memories = [cache, Some(("memory", peaks.memory))];
        for (series, (name, bytes)) in memories.into_iter().flatten().enumerate() {
            // From the edge of the picture up to the highest peak.
            let from = x[0].max(y[0] / bytes);
            let points = vec![[from, from * bytes], [top / bytes, top]];
            lines.push(roof(format!("{name}, {}", per_second(bytes)), 2 + series, points));
        }
        let steepest = memories.iter().flatten().map(|(_, bytes)| *bytes).fold(0.0, f64::max);
        for (series, flops) in rates.iter().rev().enumerate() {
            let name = if *flops == peaks.f32 { "f32" } else { "tensor cores" };
            let points = vec![[(flops / steepest).max(x[0]), *flops], [x[1], *flops]];
            lines.push(roof(format!("{name}, {:.1} {unit}", flops * scale), 4 + series, points));
        }
        let radius = |step: &Step<'_>| (RADII[0] * (step.seconds / whole).sqrt()).max(RADII[1]);
        let label = |step: &Step<'_>| match step.is_backward {
            true => format!("{} back", step.layer),
            false => step.layer.to_string(),
        };
        let disc = |(index, step): (usize, &&Step<'_>)| Disc {
            at: [at(step)[0], at(step)[1] * scale],
            radius: radius(step),
            series: usize::from(step.is_backward),
            label: (index < NAMED).then(|| label(step).into()),
        };
        let discs = steps.iter().enumerate().map(disc).collect();
        let kinds = [("forward, size by share of time", 0), ("backward", 1)];
        let kinds = kinds.into_iter().take(if self.is_train() { 2 } else { 1 }).collect();
        let axis = |label, range: [f64; 2]| Axis {
            label,
            range,
            ticks: log_ticks(range[0], range[1]),
            log: true,
            labels: Labels::Numbers,
        };
        let title = if self.is_predicted { "Roofline (predicted)" } else { "Roofline" };
        let frame = Frame { title, x: axis("FLOPs per byte", x), y: axis(unit, y.map(|y| y * scale)) };
        Some(chart::scatter(frame, lines, kinds, discs))
    }

    /// A bar per layer.
    pub fn layers(&self) -> Drawing<'_> {
        let layers = layers(&self.steps);
        let longest = layers.iter().map(|(_, [forward, backward])| forward + backward).fold(0.0, f64::max);
        let (label, scale) = if longest >= 2e-3 { ("milliseconds", 1e3) } else { ("microseconds", 1e6) };
        let parts = if self.is_train() { 2 } else { 1 };
        let bar = |(name, seconds)| {
            let seconds: [f64; 2] = seconds;
            Bar { name, parts: seconds[..parts].iter().map(|part| part * scale).collect() }
        };
        let title = if self.is_predicted { "Predicted time per layer" } else { "Time per layer" };
        chart::bars(title, label, ["forward", "backward"][..parts].to_vec(), layers.into_iter().map(bar).collect())
    }
}

//! What has to be computed for all patches of an image of one size, where it lies in memory, and what it costs.

use super::geometry::{Axis, Class, axes};
use crate::net::{Buffers, Net};
use crate::ops::Kind;
use crate::ops::parallel::{part, threads};
use crate::{Error, Result};
use std::ops::Range;

/// Everything known before the first pixel.
#[derive(Debug)]
pub struct Plan {
    /// Patches down and across.
    pub patches: [usize; 2],
    /// Pixels from one patch to the next.
    pub stride: usize,
    /// Rows and columns of the net's values (0 is the input).
    pub axes: [Vec<Axis>; 2],
    /// The same values in memory.
    pub values: Vec<Value>,
    pub layers: Vec<LayerPlan>,
    /// Length of the arena that holds the values, in f32.
    pub len: usize,
    /// Scratch, in f32: a share for each thread.
    pub scratch: usize,
}

/// A value of the net: a dense map for each pair of classes.
#[derive(Debug)]
pub struct Value {
    pub channels: usize,
    /// Classes across.
    pub across: usize,
    /// [classes down, classes across]
    pub maps: Vec<Map>,
    /// In the arena.
    pub range: Range<usize>,
}

/// A dense map [rows, columns, channels].
#[derive(Debug, Clone, Copy)]
pub struct Map {
    /// First value, in the arena.
    pub at: usize,
    pub rows: usize,
    pub columns: usize,
}

/// One layer.
#[derive(Debug)]
pub struct LayerPlan {
    /// Vertical taps of each class down.
    pub lines: Vec<Vec<Option<Link>>>,
    /// Horizontal taps of each class across, runs of them joined that lie together in memory.
    pub runs: Vec<Vec<Run>>,
    /// What the windows of each map are gathered from, [classes down, classes across].
    pub windows: Vec<Window>,
    /// Parts of the maps for a thread to take.
    pub tasks: Vec<Task>,
    /// Most rows of a task.
    pub rows: usize,
    /// Most taps gathered at once.
    pub taps: usize,
    /// Floating-point operations of all maps.
    pub flops: u64,
}

/// Where a tap reads: a class of an input, and for each position the number there.
#[derive(Debug, Clone)]
pub struct Link {
    pub input: usize,
    pub class: usize,
    pub numbers: Vec<u32>,
}

/// Taps `first .. first + len` that read one after the other, beginning with `link`; `None` in padding.
#[derive(Debug, Clone)]
pub struct Run {
    pub first: usize,
    pub len: usize,
    pub link: Option<Link>,
}

/// How the windows of a map's pixels are gathered.
#[derive(Debug, Default)]
pub struct Window {
    pub segments: Vec<Segment>,
    /// Segments that are gathered at once and make one matrix product.
    pub parts: Vec<Part>,
}

/// Values that lie together in every window of a map, and in what it reads.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Place in the window.
    pub tap: usize,
    pub len: usize,
    /// Vertical tap, and number of the run across.
    pub line: usize,
    pub run: usize,
    /// First channel.
    pub channel: usize,
    /// The map that is read; `None` in padding.
    pub from: Option<Map>,
}

/// Segments of one group of filters, and the taps they fill.
#[derive(Debug, Clone)]
pub struct Part {
    pub group: usize,
    pub segments: Range<usize>,
    pub taps: Range<usize>,
}

/// Pixels `pixels` (in row order) of the map of classes `down`, `across`.
#[derive(Debug, Clone)]
pub struct Task {
    pub down: usize,
    pub across: usize,
    pub pixels: Range<usize>,
}

/// Values gathered at once by a thread: half of a 512 KB second-level cache.
const TILE: usize = 64 * 1024;
/// Taps up to which a window is gathered whole; the sums are then made in the same order as for a patch by itself.
const WHOLE: usize = 2048;
/// Rows of a tile whose window is gathered in parts: enough that reading the weights again for every tile costs little.
const ROWS_OF_PARTS: usize = 256;

/// Patches down and across of an image.
///
/// # Errors
/// A stride of 0; an image smaller than a patch.
pub fn patches(net: &Net, height: usize, width: usize, stride: usize) -> Result<[usize; 2]> {
    let input = net.spec.input;
    if stride == 0 {
        return Err(Error::new("--stride", "is 0").advise("give pixels from one patch to the next"));
    }
    if height < input.h || width < input.w {
        let found = format!("{width} x {height} pixels are smaller than a patch, {} x {}", input.w, input.h);
        return Err(Error::new("", found).advise("enlarge the image"));
    }
    Ok([(height - input.h) / stride + 1, (width - input.w) / stride + 1])
}

/// Half a piece of an image; `None` if it is a single patch.
pub(super) fn smaller(piece: [usize; 2]) -> Option<[usize; 2]> {
    let mut half = piece;
    let longer = usize::from(piece[1] >= piece[0]);
    half[longer] = piece[longer].div_ceil(2);
    (half != piece).then_some(half)
}

/// The first patch of each piece of `whole` patches. The last piece of a row or column is moved back so that it is as large
/// as the others.
pub(super) fn pieces(whole: [usize; 2], piece: [usize; 2]) -> impl Iterator<Item = [usize; 2]> {
    let starts = move |axis: usize| {
        let (whole, piece) = (whole[axis], piece[axis]);
        (0..whole).step_by(piece).map(move |start| start.min(whole - piece))
    };
    starts(0).flat_map(move |top| starts(1).map(move |left| [top, left]))
}

impl Plan {
    /// Plans `patches` patches, `stride` pixels from one to the next.
    ///
    /// # Errors
    /// A net with a loss.
    pub fn new(net: &Net, patches: [usize; 2], stride: usize) -> Result<Self> {
        super::check_no_loss(net)?;
        let origins = |count: usize| (0..count as i64).map(|p| p * stride as i64).collect::<Vec<i64>>();
        let axes = [axes(net, true, &origins(patches[0])), axes(net, false, &origins(patches[1]))];
        let mut plan = Self { patches, stride, axes, values: Vec::new(), layers: Vec::new(), len: 0, scratch: 0 };
        plan.place_values(net);
        for layer in 0..net.layers.len() {
            let layer = plan.layer(net, layer);
            plan.layers.push(layer);
        }
        plan.scratch = (0..net.layers.len()).map(|layer| plan.scratch_of(net, layer)).max().unwrap_or(0);
        Ok(plan)
    }

    /// Plans all `whole` patches, or the largest piece of them that takes at most `memory` bytes.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn within(net: &Net, whole: [usize; 2], stride: usize, memory: usize) -> Result<Self> {
        let mut plan = Self::new(net, whole, stride)?;
        while let Some(piece) = smaller(plan.patches).filter(|_| plan.bytes() > memory) {
            plan = Self::new(net, piece, stride)?;
        }
        Ok(plan)
    }

    fn place_values(&mut self, net: &Net) {
        let last = net.layers.len();
        let reader = |value: usize| net.layers.iter().rposition(|layer| layer.inputs.contains(&value));
        let mut buffers = Buffers::default();
        for value in 0..=last {
            let positions = |axis: &Axis| axis.classes.iter().map(|class| class.positions.len()).sum::<usize>();
            let len = net.shape(value).c * positions(&self.axes[0][value]) * positions(&self.axes[1][value]);
            // Value v is made at moment v, and read by layer l at moment l + 1.
            buffers.add(len, value, reader(value).map_or(last, |layer| layer + 1));
        }
        self.len = buffers.place();
        for value in 0..=last {
            let range = buffers.range(value);
            let channels = net.shape(value).c;
            let [down, across] = [0, 1].map(|axis| &self.axes[axis][value].classes);
            let mut at = range.start;
            let mut maps = Vec::with_capacity(down.len() * across.len());
            for rows in down.iter().map(|class| class.positions.len()) {
                for columns in across.iter().map(|class| class.positions.len()) {
                    maps.push(Map { at, rows, columns });
                    at += rows * columns * channels;
                }
            }
            self.values.push(Value { channels, across: across.len(), maps, range });
        }
    }

    /// Pixels of all maps of a value.
    pub fn pixels(&self, value: usize) -> usize {
        self.values[value].maps.iter().map(|map| map.rows * map.columns).sum()
    }

    fn layer(&self, net: &Net, layer: usize) -> LayerPlan {
        let op = &net.layers[layer].op;
        let inputs = &net.layers[layer].inputs;
        let links = |axis: usize| {
            let axes = &self.axes[axis];
            let link = |class: &Class, (number, tap): (usize, &Option<super::geometry::Tap>)| {
                let tap = (*tap)?;
                let input = if matches!(op.kind(), Kind::Concat) { number } else { 0 };
                let below = &axes[inputs[input]].classes[tap.class];
                Some(Link { input, class: tap.class, numbers: class.numbers(below, tap.distance) })
            };
            let of_class = |class: &Class| class.taps.iter().enumerate().map(|tap| link(class, tap)).collect();
            axes[layer + 1].classes.iter().map(of_class).collect::<Vec<Vec<Option<Link>>>>()
        };
        let joined = matches!(op.kind(), Kind::Filter(f) if f.groups == 1);
        let runs: Vec<Vec<Run>> = links(1).into_iter().map(|links| join(links, joined)).collect();
        let pixels = self.pixels(layer + 1);
        let (rows, taps) = match op.kind() {
            Kind::Filter(f) if f.taps() > WHOLE => {
                // Whole runs, and as many as fit.
                let channels = net.shape(inputs[0]).c;
                let longest = runs.iter().flatten().map(|run| run.len * channels).max().unwrap_or(1);
                (ROWS_OF_PARTS, longest.max(TILE / ROWS_OF_PARTS))
            }
            Kind::Filter(f) => ((TILE / f.taps()).clamp(32, 512), f.taps()),
            Kind::Global => (32, net.shape(inputs[0]).len()),
            _ => (512, 0),
        };
        let rows = rows.min(pixels.div_ceil(2 * threads())).max(1);
        let value = &self.values[layer + 1];
        let tasks = value.maps.iter().enumerate().flat_map(|(index, map)| {
            let (down, across) = (index / value.across, index % value.across);
            let pixels = map.rows * map.columns;
            let parts = pixels.div_ceil(rows);
            (0..parts).map(move |i| Task { down, across, pixels: part(pixels, parts, i) })
        });
        let tasks = tasks.collect();
        let per_pixel = op.flops() as f64 / op.output().area() as f64;
        let flops = (per_pixel * pixels as f64).round() as u64;
        let lines = links(0);
        let windows = match op.kind() {
            Kind::Filter(f) => self.windows(inputs[0], f.groups, &lines, &runs, taps),
            Kind::Global => self.windows(inputs[0], 1, &lines, &runs, taps),
            _ => Vec::new(),
        };
        LayerPlan { lines, runs, windows, tasks, rows, taps, flops }
    }

    fn windows(
        &self,
        input: usize,
        groups: usize,
        lines: &[Vec<Option<Link>>],
        runs: &[Vec<Run>],
        most: usize,
    ) -> Vec<Window> {
        let value = &self.values[input];
        let channels = value.channels / groups;
        let window = |lines: &Vec<Option<Link>>, runs: &Vec<Run>| {
            let width: usize = runs.iter().map(|run| run.len).sum();
            let mut window = Window::default();
            for group in 0..groups {
                let mut first = window.segments.len();
                for (i, line) in lines.iter().enumerate() {
                    for (j, run) in runs.iter().enumerate() {
                        let from = line.as_ref().zip(run.link.as_ref());
                        let from = from.map(|(line, run)| value.maps[line.class * value.across + run.class]);
                        let tap = (i * width + run.first) * channels;
                        let len = run.len * channels;
                        if first < window.segments.len() && tap + len - window.segments[first].tap > most {
                            window.close(group, first);
                            first = window.segments.len();
                        }
                        window.segments.push(Segment { tap, len, line: i, run: j, channel: group * channels, from });
                    }
                }
                window.close(group, first);
            }
            window
        };
        lines.iter().flat_map(|lines| runs.iter().map(move |runs| window(lines, runs))).collect()
    }

    /// Scratch of a layer, all threads together.
    fn scratch_of(&self, net: &Net, layer: usize) -> usize {
        let plan = &self.layers[layer];
        match net.layers[layer].op.kind() {
            Kind::Filter(_) | Kind::Global => threads() * plan.rows * plan.taps,
            // The map as the operation reads it, and its own scratch.
            Kind::Pixelwise => self.values[layer + 1].range.len(),
            _ => 0,
        }
    }

    /// Floating-point operations (a multiply-add is two).
    pub fn flops(&self) -> u64 {
        self.layers.iter().map(|layer| layer.flops).sum()
    }

    /// Bytes of arena and scratch.
    pub fn bytes(&self) -> usize {
        4 * (self.len + self.scratch)
    }

    /// What each layer computes, for people: maps, their pixels and arithmetic beside those of patch scanning.
    pub fn table(&self, net: &Net) -> String {
        let patches = self.patches[0] * self.patches[1];
        let [down, across] = self.patches;
        let mut text = format!("{down} x {across} patches of {}, {} pixels apart\n", net.spec.input, self.stride);
        let header = ["layer", "maps", "pixels", "MiB", "GFLOP", "patchwise", "ratio"];
        let line = |cells: [String; 7]| {
            let [name, maps, pixels, bytes, flops, patchwise, ratio] = cells;
            format!("{name:<16} {maps:>8} {pixels:>10} {bytes:>8} {flops:>10} {patchwise:>10} {ratio:>7}\n")
        };
        let giga = |flops: f64| format!("{:.3}", flops / 1e9);
        text += &line(header.map(str::to_string));
        let row = |name: &str, maps: String, pixels: String, bytes: usize, flops: u64, one: u64| {
            let scanned = (patches as u64 * one) as f64;
            let ratio = if flops == 0 { String::new() } else { format!("{:.1}x", scanned / flops as f64) };
            let mib = format!("{:.1}", bytes as f64 / f64::from(1 << 20));
            line([name.to_string(), maps, pixels, mib, giga(flops as f64), giga(scanned), ratio])
        };
        for (index, (layer, step)) in net.layers.iter().zip(&self.layers).enumerate() {
            let value = &self.values[index + 1];
            let maps = format!("{}x{}", value.maps.len() / value.across, value.across);
            let pixels = self.pixels(index + 1).to_string();
            text += &row(&layer.name, maps, pixels, 4 * value.range.len(), step.flops, layer.op.flops());
        }
        text += &row("all", String::new(), String::new(), self.bytes(), self.flops(), net.flops());
        text.truncate(text.trim_end().len());
        text
    }

    /// Class and number, along an axis, of place `y` of the last value for patch `p`.
    pub fn place(&self, axis: usize, y: usize, p: usize) -> Option<(usize, usize)> {
        let axis = self.axes[axis].last()?;
        let place = axis.places[y]?;
        let position = (p * self.stride) as i64 + place.offset;
        let number = axis.classes[place.class].positions.binary_search(&position).ok()?;
        Some((place.class, number))
    }
}

impl Window {
    /// The segments from `first` on become a part.
    fn close(&mut self, group: usize, first: usize) {
        let (begin, end) = (&self.segments[first], &self.segments[self.segments.len() - 1]);
        let taps = begin.tap..end.tap + end.len;
        self.parts.push(Part { group, segments: first..self.segments.len(), taps });
    }
}

/// Joins neighbouring taps that read neighbouring columns at every position, and those in padding.
fn join(links: Vec<Option<Link>>, joined: bool) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    for (tap, link) in links.into_iter().enumerate() {
        let follows = |run: &Run| match (&run.link, &link) {
            (None, None) => true,
            (Some(a), Some(b)) => {
                let next = |(a, b): (&u32, &u32)| a + run.len as u32 == *b;
                a.class == b.class && a.numbers.iter().zip(&b.numbers).all(next)
            }
            _ => false,
        };
        match runs.last_mut().filter(|run| joined && follows(run)) {
            Some(run) => run.len += 1,
            None => runs.push(Run { first: tap, len: 1, link }),
        }
    }
    runs
}

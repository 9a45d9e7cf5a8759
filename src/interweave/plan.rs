//! What is computed for all patches of an image of one size, its memory layout, and its cost: as numbers ([`Outline`]), whose
//! own cost is the same for any image, and with all tables that a pass needs ([`Plan`]).

use super::bands::waiting;
use super::geometry::{Axis, Class, Tap, axes, numbers};
use crate::memory;
use crate::net::{Buffers, Net};
use crate::ops::parallel::{part, threads};
use crate::ops::{Kind, Operation};
use crate::text_table::{TextTable, number, text};
use crate::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// What a pass over all patches of an image computes and allocates. The axes are independent, so it consists of numbers per
/// axis.
///
/// ```
/// use weft::interweave::{Outline, patches};
/// use weft::net::Net;
///
/// let net = Net::load("nets/anet.toml")?;
/// let patches = patches(&net, 300, 300, 8)?;
/// let outline = Outline::new(&net, patches, 8)?;
/// // Floating-point operations of patch scanning relative to those of one pass.
/// let ratio = (patches[0] * patches[1]) as f64 * net.flops() as f64 / outline.flops();
/// assert!(patches == [27, 27] && ratio > 4.0, "{ratio}");
/// # Ok::<(), weft::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Outline {
    /// Patches down and across.
    pub patches: [usize; 2],
    /// Pixels between adjacent patches.
    pub stride: usize,
    /// Rows and columns of the net's values (0 is the input).
    pub axes: Arc<[Vec<Axis>; 2]>,
    /// Floating-point operations of all maps of each layer.
    pub flops: Vec<f64>,
    /// Positions of all classes of each value, down and across.
    positions: Vec<[u64; 2]>,
    /// Memory layout of the values.
    ranges: Vec<Range<usize>>,
    /// Length of the arena that holds the values, in f32.
    len: usize,
    /// Scratch, in f32: a part for each thread. No plan needs more.
    scratch: u128,
}

/// Everything that is known before the first pixel.
#[derive(Debug)]
pub struct Plan {
    /// Its numbers.
    pub outline: Outline,
    /// Positions of each class of each value, along each axis.
    pub positions: [Vec<Vec<Vec<i64>>>; 2],
    /// The values in memory.
    pub values: Vec<Value>,
    /// Tables of each layer.
    pub layers: Vec<LayerPlan>,
    /// Length of the arena that holds the values, in f32.
    pub len: usize,
    /// Scratch, in f32: a part for each thread.
    pub scratch: usize,
}

/// A value of the net: a dense map for each pair of classes.
#[derive(Debug)]
pub struct Value {
    pub channels: usize,
    /// Number of classes across.
    pub across: usize,
    /// [classes down, classes across]
    pub maps: Vec<Map>,
    /// Range in the arena.
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
    /// Horizontal taps of each class across, with runs that are contiguous in memory merged.
    pub runs: Vec<Vec<Run>>,
    /// What the windows of each map are gathered from, [classes down, classes across].
    pub windows: Vec<GatherWindow>,
    /// Tasks: parts of the maps for one thread.
    pub tasks: Vec<Task>,
    /// Largest number of rows of a task.
    pub rows: usize,
    /// Largest number of taps gathered at a time.
    pub taps: usize,
}

/// What a tap reads: a class of an input, and for each position the index there.
#[derive(Debug, Clone)]
pub struct Link {
    pub input: usize,
    pub class: usize,
    pub numbers: Vec<u32>,
}

/// Taps `first .. first + len` that read contiguous positions, beginning with `link`; `None` in padding.
#[derive(Debug, Clone)]
pub struct Run {
    pub first: usize,
    pub len: usize,
    pub link: Option<Link>,
}

/// How the windows of a map's pixels are gathered.
#[derive(Debug, Default)]
pub struct GatherWindow {
    pub segments: Vec<Segment>,
    /// Segments that are gathered together and form one matrix product.
    pub parts: Vec<Part>,
}

/// Values that are contiguous in every window of a map, and in what it reads.
#[derive(Debug, Clone)]
pub struct Segment {
    /// Position in the window.
    pub tap: usize,
    pub len: usize,
    /// Vertical tap, and index of the run across.
    pub line: usize,
    pub run: usize,
    /// First channel.
    pub channel: usize,
    /// The map that is read; `None` in padding.
    pub from: Option<Map>,
}

/// Segments of one group of filters, and the number of taps they fill.
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

/// Values gathered at a time by a thread: half of a 512 KB L2 cache.
const TILE: usize = 64 * 1024;
/// Largest number of taps for which a window is gathered whole; the order of summation is then that of a single patch.
const WHOLE: usize = 2048;
/// Rows of a tile whose window is gathered in parts: enough that reading the weights again for every tile costs little.
const ROWS_OF_PARTS: usize = 256;

/// Longest side of an image that is planned: positions are computed in 64 bits.
const LONGEST: usize = 1 << 40;

/// Patches down and across of an image.
///
/// # Errors
/// A stride of 0; an image smaller than a patch, or with a side over 2^40.
pub fn patches(net: &Net, height: usize, width: usize, stride: usize) -> Result<[usize; 2]> {
    let input = net.spec.input;
    if stride == 0 {
        return Err(Error::new("stride", "is 0").advise("give pixels from one patch to the next"));
    }
    if height < input.h || width < input.w {
        let found = format!("{width} x {height} pixels are smaller than a patch, {} x {}", input.w, input.h);
        return Err(Error::network("", found).advise("enlarge the image"));
    }
    if height.max(width) > LONGEST {
        return Err(Error::network("", format!("{width} x {height} pixels: a side is over {LONGEST}")));
    }
    Ok([(height - input.h) / stride + 1, (width - input.w) / stride + 1])
}

/// The largest piece of `whole` patches that costs at most `memory` bytes by `cost`, by halving the longer side; a single
/// patch if nothing fits.
pub(super) fn fitting(
    whole: [usize; 2],
    memory: u128,
    cost: impl Fn([usize; 2]) -> Result<u128>,
) -> Result<[usize; 2]> {
    let mut piece = whole;
    while let Some(half) = smaller(piece) {
        if cost(piece)? <= memory {
            break;
        }
        piece = half;
    }
    Ok(piece)
}

/// Half a piece of an image; `None` if it is a single patch.
fn smaller(piece: [usize; 2]) -> Option<[usize; 2]> {
    let mut half = piece;
    let longer = usize::from(piece[1] >= piece[0]);
    half[longer] = piece[longer].div_ceil(2);
    (half != piece).then_some(half)
}

impl Outline {
    /// Outlines `patches` patches, `stride` pixels apart.
    ///
    /// # Errors
    /// A net with a loss.
    pub fn new(net: &Net, patches: [usize; 2], stride: usize) -> Result<Self> {
        super::check_no_loss(net)?;
        Ok(Self::of_axes(net, Arc::new([axes(net, true), axes(net, false)]), patches, stride))
    }

    /// The same net at the same stride on another number of patches.
    pub fn resized(&self, net: &Net, patches: [usize; 2]) -> Self {
        Self::of_axes(net, self.axes.clone(), patches, self.stride)
    }

    fn of_axes(net: &Net, axes: Arc<[Vec<Axis>; 2]>, patches: [usize; 2], stride: usize) -> Self {
        // The stride of a single patch has no meaning, and may be any number.
        let stride = if patches == [1, 1] { stride.min(LONGEST) } else { stride };
        let last = net.layers.len();
        let along = |axis: usize, value: usize| {
            axes[axis][value].classes.iter().map(|class| class.count(patches[axis], stride)).sum::<u64>()
        };
        let positions: Vec<[u64; 2]> = (0..=last).map(|value| [0, 1].map(|axis| along(axis, value))).collect();
        let pixels = |value: usize| u128::from(positions[value][0]) * u128::from(positions[value][1]);
        let reader = |value: usize| net.layers.iter().rposition(|layer| layer.inputs.contains(&value));
        let mut buffers = Buffers::default();
        for value in 0..=last {
            let len = usize::try_from(net.shape(value).c as u128 * pixels(value)).unwrap_or(usize::MAX);
            // Value v is written at moment v, and read by layer l at moment l + 1.
            buffers.add(len, value, reader(value).map_or(last, |layer| layer + 1));
        }
        let len = buffers.place();
        let ranges = (0..=last).map(|value| buffers.range(value)).collect();
        let flops = net.layers.iter().enumerate().map(|(layer, bound)| {
            let per_pixel = bound.op.flops() as f64 / bound.op.output().area() as f64;
            per_pixel * pixels(layer + 1) as f64
        });
        let scratch = (0..last).map(|layer| {
            // At most all taps of a row are contiguous.
            let longest = axes[1][layer + 1].classes.iter().map(|class| class.taps.len()).max().unwrap_or(1);
            let [rows, taps] = tile(net, layer, longest, pixels(layer + 1));
            scratch(&*net.layers[layer].op, [rows, taps], net.shape(layer + 1).c as u128 * pixels(layer + 1))
        });
        let (flops, scratch) = (flops.collect(), scratch.max().unwrap_or(0));
        Self { patches, stride, flops, positions, ranges, len, scratch, axes }
    }

    /// Pixels of all maps of a value.
    pub fn pixels(&self, value: usize) -> u128 {
        let [down, across] = self.positions[value];
        u128::from(down) * u128::from(across)
    }

    /// Numbers of classes of a value, down and across: it has a map for each pair.
    pub fn maps(&self, value: usize) -> [usize; 2] {
        [0, 1].map(|axis| self.axes[axis][value].classes.len())
    }

    /// Number of patches, and therefore of feature vectors.
    pub fn count(&self) -> u128 {
        self.patches[0] as u128 * self.patches[1] as u128
    }

    /// Floating-point operations (a multiply-add is two).
    pub fn flops(&self) -> f64 {
        self.flops.iter().sum()
    }

    /// Bytes of arena and scratch.
    pub fn bytes(&self) -> u128 {
        4 * (self.len as u128 + self.scratch)
    }

    /// A readable summary of each layer: maps, their pixels and arithmetic compared with those of patch scanning.
    pub fn table(&self, net: &Net) -> String {
        let [down, across] = self.patches;
        let table = TextTable::new(
            [text("layer")].into_iter().chain(["maps", "pixels", "MiB", "GFLOP", "patchwise", "ratio"].map(number)),
        );
        let giga = |flops: f64| format!("{:.3}", flops / 1e9);
        let row = |name: &str, maps: String, pixels: String, bytes: u128, flops: f64, one: u64| {
            let scanned = self.count() as f64 * one as f64;
            let ratio = if flops == 0.0 { String::new() } else { format!("{:.1}x", scanned / flops) };
            let mib = format!("{:.1}", bytes as f64 / f64::from(1 << 20));
            vec![name.to_string(), maps, pixels, mib, giga(flops), giga(scanned), ratio]
        };
        let layers = net.layers.iter().enumerate().map(|(index, layer)| {
            let [down, across] = self.maps(index + 1);
            let (maps, pixels) = (format!("{down}x{across}"), self.pixels(index + 1));
            let bytes = 4 * pixels * net.shape(index + 1).c as u128;
            row(&layer.name, maps, pixels.to_string(), bytes, self.flops[index], layer.op.flops())
        });
        let all = row("all", String::new(), String::new(), self.bytes(), self.flops(), net.flops());
        format!(
            "{down} x {across} patches of {}, {} pixels apart\n{}",
            net.spec.input,
            self.stride,
            table.print(layers.chain([all]))
        )
    }
}

/// Rows and taps that a thread gathers at a time for a layer of `pixels` pixels, if up to `longest` taps of a row are
/// contiguous.
fn tile(net: &Net, layer: usize, longest: usize, pixels: u128) -> [usize; 2] {
    let below = net.shape(net.layers[layer].inputs[0]);
    let (rows, taps) = match net.layers[layer].op.kind() {
        // Whole runs, as many as fit.
        Kind::Filter(f) if f.taps() > WHOLE => (ROWS_OF_PARTS, (longest * below.c).max(TILE / ROWS_OF_PARTS)),
        Kind::Filter(f) => ((TILE / f.taps()).clamp(32, 512), f.taps()),
        Kind::Global => (32, below.len()),
        _ => (512, 0),
    };
    let share = usize::try_from(pixels.div_ceil(2 * threads() as u128)).unwrap_or(usize::MAX);
    [rows.min(share).max(1), taps]
}

/// Scratch of a layer whose output has `len` values, for all threads.
fn scratch(op: &dyn Operation, [rows, taps]: [usize; 2], len: u128) -> u128 {
    match op.kind() {
        Kind::Filter(_) => threads() as u128 * rows as u128 * taps as u128,
        // Whole maps and their outputs.
        Kind::Global => rows as u128 * (taps + op.output().len()) as u128,
        // The map as the operation reads it, and the operation's scratch.
        Kind::Pixelwise => len,
        _ => 0,
    }
}

impl Plan {
    /// Plans `patches` patches, `stride` pixels apart.
    ///
    /// # Errors
    /// A net with a loss; more memory than is free.
    pub fn new(net: &Net, patches: [usize; 2], stride: usize) -> Result<Self> {
        Self::of(net, Outline::new(net, patches, stride)?)
    }

    /// Plans all `whole` patches, or the largest piece of them that needs at most `memory` bytes and whose features can be
    /// buffered until their row is complete.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn within(net: &Net, whole: [usize; 2], stride: usize, memory: u128) -> Result<Self> {
        let outline = Outline::new(net, whole, stride)?;
        let bytes = |piece| Ok(outline.resized(net, piece).bytes());
        let piece = fitting(whole, memory, bytes)?;
        Self::of(net, outline.resized(net, waiting(whole, piece, net.output().len())))
    }

    fn of(net: &Net, outline: Outline) -> Result<Self> {
        memory::check(&net.spec.place, outline.bytes())?;
        let positions = [0, 1].map(|axis| {
            let of_class = |class: &Class| class.positions(outline.patches[axis], outline.stride);
            let of_value = |value: &Axis| value.classes.iter().map(of_class).collect();
            outline.axes[axis].iter().map(of_value).collect()
        });
        let mut plan = Self { outline, positions, values: Vec::new(), layers: Vec::new(), len: 0, scratch: 0 };
        plan.place_values(net);
        for layer in 0..net.layers.len() {
            let step = plan.layer(net, layer);
            let len = plan.values[layer + 1].range.len() as u128;
            let scratch = scratch(&*net.layers[layer].op, [step.rows, step.taps], len);
            plan.scratch = plan.scratch.max(usize::try_from(scratch).unwrap_or(usize::MAX));
            plan.layers.push(step);
        }
        Ok(plan)
    }

    fn place_values(&mut self, net: &Net) {
        self.len = self.outline.len;
        for value in 0..=net.layers.len() {
            let range = self.outline.ranges[value].clone();
            let channels = net.shape(value).c;
            let [down, across] = [0, 1].map(|axis| &self.positions[axis][value]);
            let mut at = range.start;
            let mut maps = Vec::with_capacity(down.len() * across.len());
            for rows in down.iter().map(Vec::len) {
                for columns in across.iter().map(Vec::len) {
                    maps.push(Map { at, rows, columns });
                    at += rows * columns * channels;
                }
            }
            self.values.push(Value { channels, across: across.len(), maps, range });
        }
    }

    fn layer(&self, net: &Net, layer: usize) -> LayerPlan {
        let op = &net.layers[layer].op;
        let inputs = &net.layers[layer].inputs;
        let links = |axis: usize| {
            let positions = &self.positions[axis];
            let of_class = |(class, at): (&Class, &Vec<i64>)| {
                let link = |(number, tap): (usize, &Option<Tap>)| {
                    let tap = (*tap)?;
                    let input = if matches!(op.kind(), Kind::Concat) { number } else { 0 };
                    let below = &positions[inputs[input]][tap.class];
                    Some(Link { input, class: tap.class, numbers: numbers(at, below, tap.distance) })
                };
                class.taps.iter().enumerate().map(link).collect()
            };
            let classes = self.outline.axes[axis][layer + 1].classes.iter();
            classes.zip(&positions[layer + 1]).map(of_class).collect::<Vec<Vec<Option<Link>>>>()
        };
        let joined = matches!(op.kind(), Kind::Filter(f) if f.groups == 1);
        let runs: Vec<Vec<Run>> = links(1).into_iter().map(|links| join(links, joined)).collect();
        let longest = runs.iter().flatten().map(|run| run.len).max().unwrap_or(1);
        let [rows, taps] = tile(net, layer, longest, self.outline.pixels(layer + 1));
        let value = &self.values[layer + 1];
        let tasks = value.maps.iter().enumerate().flat_map(|(index, map)| {
            let (down, across) = (index / value.across, index % value.across);
            let pixels = map.rows * map.columns;
            let parts = pixels.div_ceil(rows);
            (0..parts).map(move |i| Task { down, across, pixels: part(pixels, parts, i) })
        });
        let tasks = tasks.collect();
        let lines = links(0);
        let windows = match op.kind() {
            Kind::Filter(f) => self.windows(inputs[0], f.groups, &lines, &runs, taps),
            Kind::Global => self.windows(inputs[0], 1, &lines, &runs, taps),
            _ => Vec::new(),
        };
        LayerPlan { lines, runs, windows, tasks, rows, taps }
    }

    fn windows(
        &self,
        input: usize,
        groups: usize,
        lines: &[Vec<Option<Link>>],
        runs: &[Vec<Run>],
        most: usize,
    ) -> Vec<GatherWindow> {
        let value = &self.values[input];
        let channels = value.channels / groups;
        let window = |lines: &Vec<Option<Link>>, runs: &Vec<Run>| {
            let width: usize = runs.iter().map(|run| run.len).sum();
            let mut window = GatherWindow::default();
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

    /// Bytes of arena and scratch.
    pub fn bytes(&self) -> usize {
        4 * (self.len + self.scratch)
    }

    /// Class and index, along an axis, of position `y` of the last value for patch `p`.
    pub fn place(&self, axis: usize, y: usize, p: usize) -> Option<(usize, usize)> {
        let place = self.outline.axes[axis].last()?.places[y]?;
        let position = (p * self.outline.stride) as i64 + place.offset;
        let number = self.positions[axis].last()?[place.class].binary_search(&position).ok()?;
        Some((place.class, number))
    }
}

impl GatherWindow {
    /// The segments from `first` on become a part.
    fn close(&mut self, group: usize, first: usize) {
        let (begin, end) = (&self.segments[first], &self.segments[self.segments.len() - 1]);
        let taps = begin.tap..end.tap + end.len;
        self.parts.push(Part { group, segments: first..self.segments.len(), taps });
    }
}

/// Merges adjacent taps that read adjacent columns at every position, and those in padding.
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

//! All patches of images in one pass on a GPU. The plan is the CPU's; here it becomes a program: layers whose maps are one
//! class run as ordinary layers on a larger map, all others are one launch of kernels/dense.cu over the maps of all their
//! classes and all images of the batch, with tables of what each row, each column and each tap reads.

use super::bands::{Band, pieces};
use super::budget;
use super::extractor::{Engine, Images, Job, PutImage};
use super::geometry::Class;
use super::one_pass_cpu::load_pixels;
use super::plan::{LayerPlan, Link, Plan};
use super::writer::{Writer, Written, hand_on};
use crate::Result;
use crate::device::{Gpu, Launch, Ptr};
use crate::kernel_parameters;
use crate::memory;
use crate::net::gpu::{GpuParameters, PlanMemory};
use crate::net::{INPUT, Net};
use crate::ops::activation::Activation;
use crate::ops::conv::Filter;
use crate::ops::conv::cuda::{Spread, THREADS, inside, key, record_outside, whole};
use crate::ops::gpu::{BLOCK, Divisor, cover, lanes};
use crate::ops::pool::{Pool, Statistic};
use crate::ops::{Kind, Operation, Shape};
use std::sync::Arc;

kernel_parameters! {
    /// kernels/dense.cu
    MapTable: 16 { at: u64, columns: u32, unused: u32 }
}

kernel_parameters! {
    /// kernels/dense.cu
    Tile: 48 {
        at: u64, rows: u32, columns: u32, pixels: u32, first: u32, bank: u32, map: u32, scale: f32, by_width: Divisor,
    }
}

kernel_parameters! {
    /// kernels/dense.cu
    Tap: 16 { at: u64, line: u32, unused: u32 }
}

kernel_parameters! {
    /// kernels/dense.cu
    Dense: 184 {
        x: Ptr, w: Ptr, bias: Ptr, y: Ptr, partial: Ptr, rows: Ptr, columns: Ptr, tiles: Ptr, taps: Ptr,
        x_image: u64, y_image: u64,
        taps_h: u32, taps_w: u32, in_c: u32, out_c: u32, first_c: u32, groups: u32,
        activation: u32, splits: u32, k_per_split: u32, wide_x: u32, wide_w: u32, images: u32, average: u32, tile: u32,
        lanes: u32, by_channels: Divisor, by_taps_w: Divisor, by_taps: Divisor,
    }
}

kernel_parameters! {
    /// kernels/dense.cu
    FeatureTable: 120 {
        x: Ptr, features: Ptr, rows: Ptr, columns: Ptr, maps: Ptr, x_image: u64, classes: u32, images: u32,
        by_w: Divisor, by_h: Divisor, by_c: Divisor, by_across: Divisor, by_down: Divisor, unused: u32,
    }
}

/// Runs a net on all patches of batches of images of one size.
pub(super) struct OnePassGpu {
    net: Arc<Net>,
    parameters: Arc<GpuParameters>,
    /// State for the last job.
    prepared: Option<Prepared>,
}

/// Everything that a job needs.
struct Prepared {
    job: Job,
    plan: Plan,
    written: Written,
}

impl OnePassGpu {
    pub fn new(net: Arc<Net>, parameters: Arc<GpuParameters>) -> Self {
        Self { net, parameters, prepared: None }
    }

    fn prepare(&mut self, job: Job) -> Result<&mut Prepared> {
        let known = self.prepared.take().filter(|prepared| prepared.job == job);
        let prepared = match known {
            Some(known) => known,
            None => {
                let memory = budget(job.memory, self.parameters.gpu().driver.free_memory()?);
                let plan = Plan::within(&self.net, job.whole, job.stride, memory)?;
                let written = PassWriter::new(&self.net, &self.parameters, &plan, job.images)?.write()?;
                Prepared { job, plan, written }
            }
        };
        Ok(self.prepared.insert(prepared))
    }
}

impl Engine for OnePassGpu {
    fn run(&mut self, job: Job, images: &Images<'_>, put: PutImage<'_>) -> Result<()> {
        let (dims, parameters) = (self.net.output().len(), self.parameters.clone());
        let Prepared { plan, written, .. } = self.prepare(job)?;
        let piece = plan.outline.patches;
        let bands = (0..job.images).map(|_| Band::new(job.whole, piece, dims));
        let mut bands = bands.collect::<Result<Vec<Band>>>()?;
        let len = plan.values[INPUT].range.len();
        let mut pixels: Vec<f32> = memory::zeroed(job.images * len, "pixels")?;
        for corner in pieces(job.whole, piece) {
            let at = corner.map(|patch| patch * job.stride);
            for (image, pixels) in pixels.chunks_exact_mut(len).enumerate() {
                load_pixels(plan, at, images, image, pixels);
            }
            let features = written.run(&parameters, &pixels, job.images * piece[0] * piece[1] * dims)?;
            hand_on(&features, piece, corner, &mut bands, |from, to| to.copy_from_slice(from), put)?;
        }
        Ok(())
    }

    fn plan(&mut self, job: Job) -> Result<Option<&Plan>> {
        Ok(Some(&self.prepare(job)?.plan))
    }

    fn launches(&mut self, job: Job) -> Result<Vec<Launch>> {
        Ok(self.prepare(job)?.written.launches().to_vec())
    }
}

/// Writes the program of a plan.
struct PassWriter<'a> {
    writer: Writer<'a>,
    plan: &'a Plan,
    images: usize,
    memory: PlanMemory,
    /// Addresses of the values, each for all images.
    values: Vec<Ptr>,
}

/// What the kernels read for a layer besides its values.
struct Tables {
    /// For each row of each class and each vertical tap, the row of the map that is read; and the same across.
    rows: Ptr,
    columns: Ptr,
    /// For each map and tap, the map that is read.
    taps: Ptr,
    /// Vertical and horizontal taps.
    window: [usize; 2],
    /// First row and column of each class.
    firsts: [Vec<usize>; 2],
}

/// What a tap reads: class and index of each row (column) of a class; `None` in padding.
type Reads = Option<(usize, Vec<u32>)>;

impl<'a> PassWriter<'a> {
    fn new(net: &'a Net, parameters: &'a GpuParameters, plan: &'a Plan, images: usize) -> Result<Self> {
        let writer = Writer::new(net, parameters);
        let mut memory = PlanMemory::new(parameters.gpu(), plan.len, images * writer.size())?;
        let values = plan.values.iter().map(|value| memory.address(&value.range)).collect::<Result<_>>()?;
        Ok(Self { writer, plan, images, memory, values })
    }

    fn write(mut self) -> Result<Written> {
        let [down, across] = self.plan.outline.patches;
        let pixels = self.images * self.plan.values[INPUT].range.len();
        let staging = self.writer.bytes(4 * pixels)?;
        let features = self.writer.bytes(4 * self.images * down * across * self.net().output().len())?;
        // From f32 to f32 this is a copy.
        self.writer.store(staging, self.values[INPUT], pixels);
        for layer in 0..self.net().layers.len() {
            self.writer.label(layer);
            self.layer(layer)?;
        }
        self.writer.to.label("features");
        self.features(features)?;
        self.writer.finish(Some(self.memory), staging, features)
    }

    fn gpu(&self) -> &'a Gpu {
        self.writer.to.gpu
    }

    fn net(&self) -> &'a Net {
        self.writer.net
    }

    /// Addresses of a layer's parameters.
    fn addresses(&self, layer: usize) -> Vec<Ptr> {
        self.writer.parameters.addresses(self.net().layers[layer].parameters.clone())
    }

    fn layer(&mut self, layer: usize) -> Result<()> {
        if let Some(op) = self.ordinary(layer) {
            return self.whole(layer, &*op, self.images);
        }
        let op = &self.net().layers[layer].op;
        match op.kind() {
            Kind::Filter(f) => self.conv(layer, f),
            Kind::Pool(pool) => self.pool(layer, pool),
            Kind::Global => self.global(layer, &**op),
            Kind::Concat | Kind::Dropout => self.copy(layer, self.values[layer + 1]),
            Kind::Pixelwise => self.pixelwise(layer),
            Kind::Loss => unreachable!("plans of nets with a loss are refused"),
        }
    }

    /// The layer as an operation on a larger map, if its maps are one class that is computed at every position.
    fn ordinary(&self, layer: usize) -> Option<Box<dyn Operation>> {
        let bound = &self.net().layers[layer];
        let (stride, fits) = match bound.op.kind() {
            Kind::Filter(f) => ([f.stride.h, f.stride.w], f.banks() == 1 && f.flattened.is_none()),
            Kind::Pool(pool) => ([pool.stride.h, pool.stride.w], true),
            _ => return None,
        };
        let (read, written) = (&self.plan.values[bound.inputs[0]], &self.plan.values[layer + 1]);
        if !fits || read.maps.len() != 1 || written.maps.len() != 1 {
            return None;
        }
        let step = &self.plan.layers[layer];
        let regular = |taps: Vec<Reads>, stride: usize| {
            taps.iter().enumerate().all(|(tap, link)| {
                let place = |(y, number): (usize, &u32)| *number as usize == y * stride + tap;
                link.as_ref().is_some_and(|(_, numbers)| numbers.iter().enumerate().all(place))
            })
        };
        if !regular(lines(step, 0), stride[0]) || !regular(runs(step, 0), stride[1]) {
            return None;
        }
        let (from, to) = (read.maps[0], written.maps[0]);
        let op = self.net().rebind(layer, &[Shape::new(read.channels, from.rows, from.columns)]).ok()?;
        (op.output() == Shape::new(written.channels, to.rows, to.columns)).then_some(op)
    }

    /// Runs an operation on the values in place, `n` samples of it.
    fn whole(&mut self, layer: usize, op: &dyn Operation, n: usize) -> Result<()> {
        let from = self.values[self.net().layers[layer].inputs[0]];
        self.record(layer, op, n, from)
    }

    fn record(&mut self, layer: usize, op: &dyn Operation, n: usize, from: Ptr) -> Result<()> {
        self.record_to(layer, op, n, [from, self.values[layer + 1]])
    }

    fn record_to(&mut self, layer: usize, op: &dyn Operation, n: usize, [from, to]: [Ptr; 2]) -> Result<()> {
        let workspace = self.writer.bytes(op.gpu_forward_workspace(n, self.gpu()))?;
        let params = self.addresses(layer);
        self.writer.record(op, n, &params, [from, to, workspace]);
        Ok(())
    }

    /// Of a layer that reads input `input`: all taps of its windows or, where taps are inputs, the one of this input.
    fn tables(&mut self, layer: usize, input: usize) -> Result<Tables> {
        let step = &self.plan.layers[layer];
        let bound = &self.net().layers[layer];
        let (read, written) = (&self.plan.values[bound.inputs[input]], &self.plan.values[layer + 1]);
        let is_window = matches!(bound.op.kind(), Kind::Filter(_) | Kind::Pool(_) | Kind::Global);
        let wanted = |links: Vec<Reads>| match is_window {
            true => links,
            false => links.into_iter().skip(input).take(1).collect(),
        };
        let [down, across] = [written.maps.len() / written.across, written.across];
        let down: Vec<_> = (0..down).map(|class| wanted(lines(step, class))).collect();
        let across: Vec<_> = (0..across).map(|class| wanted(runs(step, class))).collect();
        let [rows, columns] = [(&down, 0), (&across, 1)].map(|(classes, axis)| {
            // A pool's last window may be incomplete.
            let taps = classes.iter().map(Vec::len).max().unwrap_or(0);
            let (mut table, mut firsts) = (Vec::new(), Vec::new());
            for (class, links) in classes.iter().enumerate() {
                firsts.push(table.len() / taps.max(1));
                for place in 0..self.plan.positions[axis][layer + 1][class].len() {
                    // In padding, which `taps` tells, the number is not used.
                    table
                        .extend(links.iter().map(|link| link.as_ref().map_or(0, |(_, numbers)| numbers[place] as i32)));
                    table.resize(table.len() + taps - links.len(), 0);
                }
            }
            (table, taps, firsts)
        });
        let window = [rows.1, columns.1];
        let tap = |row: Option<&Reads>, column: Option<&Reads>| match (row, column) {
            (Some(Some((row, _))), Some(Some((column, _)))) => {
                let map = &read.maps[row * read.across + column];
                let at = (map.at - read.range.start) as u64;
                Tap { at, line: (map.columns * read.channels) as u32, unused: 0 }
            }
            _ => Tap { at: u64::MAX, line: 0, unused: 0 },
        };
        let of_map = |(rows, columns): (&Vec<Reads>, &Vec<Reads>)| -> Vec<Tap> {
            let [height, width] = window;
            (0..height * width).map(|at| tap(rows.get(at / width), columns.get(at % width))).collect()
        };
        let maps = down.iter().flat_map(|rows| across.iter().map(move |columns| (rows, columns)));
        let taps: Vec<Tap> = maps.flat_map(of_map).collect();
        Ok(Tables {
            rows: self.writer.table(&rows.0)?,
            columns: self.writer.table(&columns.0)?,
            taps: self.writer.table(&taps)?,
            window,
            firsts: [rows.2, columns.2],
        })
    }

    fn maps(&mut self, value: usize) -> Result<Ptr> {
        let value = &self.plan.values[value];
        let entry = |map: &super::plan::Map| MapTable {
            at: (map.at - value.range.start) as u64,
            columns: map.columns as u32,
            unused: 0,
        };
        let maps: Vec<MapTable> = value.maps.iter().map(entry).collect();
        self.writer.table(&maps)
    }

    /// Tiles of `pixels` pixels of all maps of a layer.
    fn tiles(&mut self, layer: usize, tables: &Tables, pixels: usize) -> Result<(Ptr, usize)> {
        let value = &self.plan.values[layer + 1];
        let grid = match self.net().layers[layer].op.kind() {
            Kind::Filter(f) => f.grid.w,
            _ => 1,
        };
        let [down, across] = [0, 1].map(|axis| &self.plan.outline.axes[axis][layer + 1].classes);
        let mut tiles = Vec::new();
        for (index, map) in value.maps.iter().enumerate() {
            let (a, b) = (index / value.across, index % value.across);
            for first in (0..map.rows * map.columns).step_by(pixels) {
                tiles.push(Tile {
                    at: (map.at - value.range.start) as u64,
                    rows: tables.firsts[0][a] as u32,
                    columns: tables.firsts[1][b] as u32,
                    pixels: (map.rows * map.columns) as u32,
                    first: first as u32,
                    bank: (down[a].region * grid + across[b].region) as u32,
                    map: index as u32,
                    scale: 1.0 / (down[a].divisor * across[b].divisor) as f32,
                    by_width: Divisor::new(map.columns),
                });
            }
        }
        Ok((self.writer.table(&tiles)?, tiles.len()))
    }

    /// The parameters that all kernels of a layer have in common, without tiles; input `input` is read.
    fn dense(&mut self, layer: usize, input: usize) -> Result<(Dense, Tables)> {
        let from = self.net().layers[layer].inputs[input];
        let tables = self.tables(layer, input)?;
        let (read, written) = (&self.plan.values[from], &self.plan.values[layer + 1]);
        let parameters = Dense {
            x: self.values[from],
            w: Ptr::NULL,
            bias: Ptr::NULL,
            y: self.values[layer + 1],
            partial: Ptr::NULL,
            rows: tables.rows,
            columns: tables.columns,
            tiles: Ptr::NULL,
            taps: tables.taps,
            x_image: read.range.len() as u64,
            y_image: written.range.len() as u64,
            taps_h: tables.window[0] as u32,
            taps_w: tables.window[1] as u32,
            in_c: read.channels as u32,
            out_c: written.channels as u32,
            first_c: 0,
            groups: 1,
            activation: Activation::None as u32,
            splits: 1,
            k_per_split: 0,
            wide_x: 0,
            wide_w: 0,
            images: self.images as u32,
            average: 0,
            tile: 0,
            lanes: 1,
            by_channels: Divisor::new(read.channels),
            by_taps_w: Divisor::new(tables.window[1]),
            by_taps: Divisor::new(tables.window[0] * tables.window[1]),
        };
        Ok((parameters, tables))
    }

    /// Adds tiles of `pixels` pixels; returns their number.
    fn tile(&mut self, layer: usize, tables: &Tables, pixels: usize, parameters: &mut Dense) -> Result<usize> {
        let (tiles, count) = self.tiles(layer, tables, pixels)?;
        (parameters.tiles, parameters.tile) = (tiles, pixels as u32);
        Ok(count)
    }

    /// The same where a thread owns adjacent channels of one of `taps` taps of a pixel: as many as all addresses allow, in tiles
    /// that a block has threads for.
    fn tile_by_lanes(&mut self, layer: usize, tables: &Tables, taps: usize, parameters: &mut Dense) -> Result<usize> {
        let channels = parameters.in_c as usize;
        let steps = [parameters.in_c, parameters.out_c, parameters.first_c].map(|step| step as usize);
        let precision = self.gpu().precision;
        let of_step = |step: usize| lanes(precision, step, &[parameters.x, parameters.y]);
        let lanes = steps.into_iter().map(of_step).min().unwrap_or(1);
        parameters.lanes = lanes as u32;
        parameters.by_channels = Divisor::new(channels / lanes);
        self.tile(layer, tables, (BLOCK / (taps * channels / lanes)).max(1), parameters)
    }

    /// Bytes of what a layer reads and writes.
    fn touched(&self, layer: usize) -> usize {
        let inputs = self.net().layers[layer].inputs.iter();
        let values: usize = inputs.chain([&(layer + 1)]).map(|&value| self.plan.values[value].range.len()).sum();
        self.images * self.gpu().precision.bytes() * values
    }

    fn conv(&mut self, layer: usize, f: &Filter) -> Result<()> {
        let gpu = self.gpu();
        let (filters, channels) = (f.group_filters(), self.plan.values[self.net().layers[layer].inputs[0]].channels);
        let written = &self.plan.values[layer + 1];
        let values = self.images * written.range.len();
        let group_channels = channels / f.groups;
        let wide = whole(gpu, &[group_channels, filters]);
        // Maps differ a little in size: the mean of them decides about the tile, the tiles about splits.
        let pixels = (values / f.output.c).div_ceil(self.images * written.maps.len());
        let size = [pixels, filters, f.taps()];
        let [maps, read] = [written.maps.len(), self.plan.values[self.net().layers[layer].inputs[0]].maps.len()];
        let describe = format!("{} x {read} maps to {maps} of {values} values, kernel {}", self.images, f.kernel);
        let product = key(gpu, "dense_conv", describe, self.images * maps * f.groups, size, wide);
        let rough = Spread::new(gpu, &product);
        let (mut parameters, tables) = self.dense(layer, 0)?;
        let tiles = self.tile(layer, &tables, rough.lines(), &mut parameters)?;
        let spread = rough.of_tiles(gpu, self.images * tiles * f.groups, f.taps());
        let addresses = self.addresses(layer);
        parameters.w = addresses[0];
        parameters.bias = addresses.get(1).copied().unwrap_or(Ptr::NULL);
        parameters.groups = f.groups as u32;
        parameters.activation = inside(f.activation, spread) as u32;
        parameters.splits = spread.splits as u32;
        parameters.k_per_split = spread.k_per_split as u32;
        parameters.wide_x = u32::from(whole(gpu, &[group_channels]));
        parameters.wide_w = u32::from(whole(gpu, &[filters]));
        parameters.by_channels = Divisor::new(group_channels);
        parameters.partial = self.writer.bytes(if spread.splits > 1 { 4 * spread.splits * values } else { 0 })?;
        let flops = self.images as u64 * self.plan.outline.flops[layer].round() as u64;
        let weights: usize = self.net().parameters[self.net().layers[layer].parameters.clone()]
            .iter()
            .map(|parameter| parameter.range.len() * gpu.precision.bytes())
            .sum();
        let grid = [tiles * f.groups, spread.grid()[1], self.images * spread.splits];
        let name = spread.kernel("dense_conv", wide, gpu);
        let launch = Launch::new(name, grid, THREADS, &parameters).of(product, spread.as_cut());
        let launch = launch.shared(spread.shared(gpu, true, false));
        self.writer.to.launch(launch.work(flops, (self.touched(layer) + weights) as u64));
        if spread.splits > 1 {
            let bytes = values * (4 * spread.splits + gpu.precision.bytes());
            let launch = Launch::new(self.writer.to.stored("dense_finish"), cover(values), BLOCK, &parameters);
            self.writer.to.launch(launch.work((values * spread.splits) as u64, bytes as u64));
        }
        record_outside(&mut self.writer.to, f.activation, spread, parameters.y, values);
        Ok(())
    }

    fn pool(&mut self, layer: usize, pool: &Pool) -> Result<()> {
        let (mut parameters, tables) = self.dense(layer, 0)?;
        let tiles = self.tile_by_lanes(layer, &tables, 1, &mut parameters)?;
        parameters.average = u32::from(pool.statistic == Statistic::Average);
        let (flops, touched) =
            (self.images as u64 * self.plan.outline.flops[layer].round() as u64, self.touched(layer) as u64);
        let launch = Launch::new(self.writer.to.stored("dense_pool"), [tiles, 1, self.images], BLOCK, &parameters);
        self.writer.to.launch(launch.work(flops, touched));
        Ok(())
    }

    /// Copies each input's channels of each pixel to `y`.
    fn copy(&mut self, layer: usize, y: Ptr) -> Result<()> {
        let mut first = 0;
        for input in 0..self.net().layers[layer].inputs.len() {
            let (mut parameters, tables) = self.dense(layer, input)?;
            (parameters.y, parameters.first_c) = (y, first);
            first += parameters.in_c;
            let tiles = self.tile_by_lanes(layer, &tables, 1, &mut parameters)?;
            let launch = Launch::new(self.writer.to.stored("dense_copy"), [tiles, 1, self.images], BLOCK, &parameters);
            self.writer.to.launch(launch.work(0, self.touched(layer) as u64));
        }
        Ok(())
    }

    /// Runs an operation on every pixel independently.
    fn pixelwise(&mut self, layer: usize) -> Result<()> {
        let value = &self.plan.values[layer + 1];
        let (len, channels) = (value.range.len(), value.channels);
        let op = self.net().rebind(layer, &[Shape::new(channels, 1, 1)])?;
        let n = self.images * len / channels;
        if self.in_place(layer) {
            return self.whole(layer, &*op, n);
        }
        let copied = self.writer.bytes(self.images * len * self.gpu().precision.bytes())?;
        self.copy(layer, copied)?;
        self.record(layer, &*op, n, copied)
    }

    /// Whether the maps that are read coincide with those that are written, position by position.
    fn in_place(&self, layer: usize) -> bool {
        let (read, written) = (&self.plan.values[self.net().layers[layer].inputs[0]], &self.plan.values[layer + 1]);
        let step = &self.plan.layers[layer];
        let same = |class: usize, links: Vec<Reads>| {
            let identity = |numbers: &Vec<u32>| numbers.iter().enumerate().all(|(i, n)| i as u32 == *n);
            links.len() == 1 && links[0].as_ref().is_some_and(|(from, n)| *from == class && identity(n))
        };
        let down = written.maps.len() / written.across;
        read.range.len() == written.range.len()
            && (0..down).all(|class| same(class, lines(step, class)))
            && (0..written.across).all(|class| same(class, runs(step, class)))
    }

    /// Gathers the whole map of each patch, runs the operation on it, and hands each place of the result to the place's class:
    /// in all of those a pixel is a patch.
    fn global(&mut self, layer: usize, op: &dyn Operation) -> Result<()> {
        let value = &self.plan.values[layer + 1];
        // None where no later layer reads it.
        let Some(map) = value.maps.first() else { return Ok(()) };
        let (parameters, tables) = self.dense(layer, 0)?;
        let patches = map.rows * map.columns;
        let (n, size) = (self.images * patches, self.gpu().precision.bytes());
        let window = self.net().shape(self.net().layers[layer].inputs[0]).len();
        let windows = self.writer.bytes(n * window * size)?;
        // For the first class, whose tiles come first, as if there were no other. It writes windows, not pixels of `out_c`.
        let mut gather = Dense { y: windows, y_image: (patches * window) as u64, out_c: parameters.in_c, ..parameters };
        self.tile_by_lanes(layer, &tables, tables.window[0] * tables.window[1], &mut gather)?;
        let grid = [patches.div_ceil(gather.tile as usize), 1, self.images];
        let launch = Launch::new(self.writer.to.stored("dense_gather"), grid, BLOCK, &gather);
        self.writer.to.launch(launch.work(0, (2 * n * window * size) as u64));
        if op.output().area() == 1 {
            return self.record(layer, op, n, windows);
        }
        let results = self.writer.bytes(n * op.output().len() * size)?;
        self.record_to(layer, op, n, [windows, results])?;
        self.spread(layer, op.output(), Dense { x: results, ..parameters })
    }

    /// Copies the places of `parameters.x` [image][patch][h][w][c] to the maps of their classes.
    fn spread(&mut self, layer: usize, shape: Shape, parameters: Dense) -> Result<()> {
        let patches = self.plan.outline.patches;
        let [down, across] = [0, 1].map(|axis| &self.plan.outline.axes[axis][layer + 1].classes);
        // A patch is `area` places from the one before, and a row of patches a line of what is read: a class begins at its place.
        let numbers = |classes: usize, patches: usize, step: usize| -> Vec<i32> {
            (0..classes).flat_map(|_| (0..patches).map(|patch| (patch * step) as i32)).collect()
        };
        let firsts = |classes: usize, patches: usize| (0..classes).map(|class| class * patches).collect();
        let line = (patches[1] * shape.len()) as u32;
        let place = |row: &Class, column: &Class| (row.region * shape.w + column.region) * shape.c;
        let tap = |row: &Class, column: &Class| Tap { at: place(row, column) as u64, line, unused: 0 };
        let taps: Vec<Tap> = down.iter().flat_map(|row| across.iter().map(|column| tap(row, column))).collect();
        let tables = Tables {
            rows: self.writer.table(&numbers(down.len(), patches[0], 1))?,
            columns: self.writer.table(&numbers(across.len(), patches[1], shape.area()))?,
            taps: self.writer.table(&taps)?,
            window: [1, 1],
            firsts: [firsts(down.len(), patches[0]), firsts(across.len(), patches[1])],
        };
        let mut parameters = Dense {
            rows: tables.rows,
            columns: tables.columns,
            taps: tables.taps,
            x_image: (patches[0] * patches[1] * shape.len()) as u64,
            taps_h: 1,
            taps_w: 1,
            in_c: shape.c as u32,
            ..parameters
        };
        let count = self.tile_by_lanes(layer, &tables, 1, &mut parameters)?;
        let launch = Launch::new(self.writer.to.stored("dense_copy"), [count, 1, self.images], BLOCK, &parameters);
        self.writer.to.launch(launch.work(0, self.touched(layer) as u64));
        Ok(())
    }

    fn features(&mut self, features: Ptr) -> Result<()> {
        let last = self.net().layers.len();
        let shape = self.net().output();
        let [rows, columns] = [(0, shape.h), (1, shape.w)].map(|(axis, size)| {
            let mut table = Vec::new();
            for patch in 0..self.plan.outline.patches[axis] {
                for place in 0..size {
                    table.push(
                        self.plan
                            .place(axis, place, patch)
                            .map_or([-1, -1], |(class, number)| [class as i32, number as i32]),
                    );
                }
            }
            table
        });
        let value = &self.plan.values[last];
        let [down, across] = self.plan.outline.patches;
        let count = self.images * down * across * shape.len();
        let parameters = FeatureTable {
            x: self.values[last],
            features,
            rows: self.writer.table(&rows)?,
            columns: self.writer.table(&columns)?,
            maps: self.maps(last)?,
            x_image: value.range.len() as u64,
            classes: value.across as u32,
            images: self.images as u32,
            by_w: Divisor::new(shape.w),
            by_h: Divisor::new(shape.h),
            by_c: Divisor::new(shape.c),
            by_across: Divisor::new(across),
            by_down: Divisor::new(down),
            unused: 0,
        };
        let bytes = count * (4 + self.gpu().precision.bytes());
        let launch = Launch::new(self.writer.to.stored("dense_features"), cover(count), BLOCK, &parameters);
        self.writer.to.launch(launch.work(0, bytes as u64));
        Ok(())
    }
}

/// What each vertical tap of class `class` reads: class and index of each of its rows.
fn lines(step: &LayerPlan, class: usize) -> Vec<Reads> {
    let tap = |link: &Option<Link>| link.as_ref().map(|link| (link.class, link.numbers.clone()));
    step.lines[class].iter().map(tap).collect()
}

/// The same for the horizontal taps, with runs split into single taps.
fn runs(step: &LayerPlan, class: usize) -> Vec<Reads> {
    let mut taps = Vec::new();
    for run in &step.runs[class] {
        for tap in 0..run.len as u32 {
            let moved = |numbers: &[u32]| numbers.iter().map(|number| number + tap).collect();
            taps.push(run.link.as_ref().map(|link| (link.class, moved(&link.numbers))));
        }
    }
    taps
}

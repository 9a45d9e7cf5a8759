//! `weft bench interweave`: all patches of an image in one pass against patch scanning.

use super::super::numbers::{self, Size};
use super::super::{print, print_json};
use super::row::Row;
use super::{median, plot};
use crate::data::photo::Photo;
use crate::data::table;
use crate::device::Device;
use crate::interweave::{Extractor, ExtractorOptions, Method, Outline, Plan, patches};
use crate::memory;
use crate::net::{Net, Parameters, Unknown};
use crate::ops::parallel::threads;
use crate::rng::Rng;
use crate::shipped::Source;
use crate::text_table::{TextTable, number, text};
use crate::weights::{keep_inputs, write_atomic};
use crate::{Error, Result};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// Compare one interweaved pass with patch scanning on all patches of an image: time, arithmetic and numerical difference.
#[derive(clap::Args)]
pub struct Args {
    #[arg(long, value_name = "FILE|NAME", default_value = "anet", value_parser = super::super::net(), help = super::super::NET)]
    net: Source,
    /// Weights; random by default, because the time does not depend on them
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Image sizes, height x width
    #[arg(long, value_name = "HxW", value_delimiter = ',', default_value = "300x300")]
    image: Vec<Size>,
    /// Stride between patches, in pixels
    #[arg(long, value_delimiter = ',', default_value = "8", value_parser = numbers::stride())]
    stride: Vec<usize>,
    /// Number of measured rounds; each round runs both methods, one after the other
    #[arg(long, default_value_t = 5, value_parser = numbers::runs())]
    rounds: usize,
    #[command(flatten)]
    device: super::super::DeviceArgs,
    /// Also print the time of each layer
    #[arg(long)]
    layers: bool,
    /// Print one JSON document: an object, or a list for several sizes or strides
    #[arg(long, conflicts_with_all = ["csv", "layers"])]
    json: bool,
    /// Print comma-separated values
    #[arg(long, conflicts_with = "layers")]
    csv: bool,
    /// Plot speedup against stride and time against size into this file (SVG)
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
}

pub fn run(args: &Args) -> Result<()> {
    let device = args.device.open()?;
    if args.layers && device.threads() == 0 {
        return Err(Error::new("--layers", "times layers on the CPU only").advise("use weft profile on a GPU"));
    }
    if let Some(plot) = &args.plot {
        keep_inputs("--plot", plot, args.weights.as_deref().into_iter().chain(args.net.path()))?;
    }
    let net = Arc::new(Net::load(&args.net)?);
    for &Size { height, width } in &args.image {
        for &stride in &args.stride {
            price(&net, [height, width], stride)?;
        }
    }
    let parameters = match &args.weights {
        Some(path) => net.load_parameters(path, Unknown::Ignore)?.values,
        None => net.initial_parameters(1),
    };
    let mut rows = Vec::new();
    if args.csv {
        print(table::line(Row::CSV))?;
    } else if !args.json {
        print(Row::table().head())?;
    }
    for &Size { height, width } in &args.image {
        for &stride in &args.stride {
            let mut bench = Bench::new(&device, &net, &parameters, [height, width], stride)?;
            let row = bench.measure(args.rounds)?;
            if args.csv {
                print(row.csv())?;
            } else if !args.json {
                print(Row::table().rows([row.cells()]))?;
            }
            if args.layers {
                print(bench.layers()?)?;
            }
            rows.push(row);
        }
    }
    if let Some(path) = &args.plot {
        let svg = plot::draw(&rows)?;
        write_atomic(path, |file| file.write_all(svg.as_bytes()))?;
    }
    if !args.json && !args.csv {
        growth(&rows).into_iter().try_for_each(print)?;
    }
    match (args.json, &rows[..]) {
        (true, [row]) => print_json(row),
        (true, rows) => print_json(&rows),
        _ => Ok(()),
    }
}

/// Rejects sizes that do not fit in memory: the photo, three copies of its features (both methods and the timed one), the
/// workspace, and the parameters of all methods.
fn price(net: &Net, [height, width]: [usize; 2], stride: usize) -> Result<()> {
    const WORK: u128 = 1 << 30;
    let [down, across] = patches(net, height, width, stride).map_err(|e| e.within("--image"))?;
    let features = 4 * down as u128 * across as u128 * net.output().len() as u128;
    let pass = Outline::new(net, [down, across], stride)?.bytes().min(WORK);
    let needed = 3 * (height as u128 * width as u128) + 3 * features + pass + 4 * net.parameter_bytes();
    memory::check(format!("--image {height}x{width} --stride {stride}"), needed)
        .map_err(|e| e.advise("use a smaller image or a larger stride"))
}

struct Bench {
    net: Arc<Net>,
    photo: Photo,
    stride: usize,
    scanner: Extractor,
    batch: usize,
    /// The paper's formulation; `None` for nets and strides that it does not support.
    maps: Option<Extractor>,
    interweaver: Extractor,
    device: Device,
}

impl Bench {
    fn new(device: &Device, net: &Arc<Net>, parameters: &[f32], image: [usize; 2], stride: usize) -> Result<Self> {
        let mut rng = Rng::new(1, 0);
        let photo =
            Photo::from_fn(image[1], image[0], |_, _| rng.word().to_le_bytes()[..3].try_into().unwrap_or([0; 3]));
        let on_device = Parameters::on(device, net, parameters.to_vec())?;
        let extractor = |method: Method, batch: usize| {
            let options = ExtractorOptions { method, batch, ..ExtractorOptions::default() };
            Extractor::new(net.clone(), &on_device, options)
        };
        let scanner = |batch: usize| extractor(Method::Patchwise, batch);
        // Patch scanning at its best: the batch that is fastest on a part of the image.
        let batches = device.batches();
        let largest = batches.iter().copied().max().unwrap_or(1);
        // A square of patches that fills the largest batch.
        let along = largest.isqrt().max(8) - 1;
        let side = |size: usize, patch: usize| size.min(patch + along * stride);
        let input = net.spec.input;
        let part = Photo::from_fn(side(image[1], input.w), side(image[0], input.h), |x, y| photo.pixel(x, y));
        let mut best = (f64::INFINITY, scanner(batches[0])?, batches[0]);
        for &batch in batches {
            let mut scanner = scanner(batch)?;
            scanner.extract(&part, stride)?;
            let mut time = f64::INFINITY;
            for _ in 0..5 {
                time = time.min(timed(|| scanner.extract(&part, stride))?.0);
            }
            if time < best.0 {
                best = (time, scanner, batch);
            }
        }
        let (_, scanner, batch) = best;
        let interweaver = extractor(Method::OnePass, 1)?;
        // A net whose architecture differs from the paper's has no such formulation.
        let maps = extractor(Method::Maps, 1).ok().filter(|maps| maps.takes(stride));
        Ok(Self { net: net.clone(), photo, stride, scanner, batch, maps, interweaver, device: device.clone() })
    }

    fn measure(&mut self, rounds: usize) -> Result<Row> {
        let Self { net, photo, stride, scanner, maps, interweaver, device, .. } = self;
        let stride = *stride;
        // The first pass builds the plan and touches memory for the first time.
        let found = interweaver.extract(photo, stride)?;
        let expected = scanner.extract(photo, stride)?;
        let mut max_rel_error = found.error(&expected);
        if let Some(maps) = maps {
            let error = maps.extract(photo, stride)?.error(&expected);
            max_rel_error = if error <= max_rel_error { max_rel_error } else { error };
        }
        let mut middle = Vec::new();
        let (mut slow, mut fast, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (patchwise, _) = timed(|| scanner.extract(photo, stride))?;
            if let Some(maps) = maps {
                middle.push(timed(|| maps.extract(photo, stride))?.0);
            }
            // Fast enough to be repeated more often.
            let mut times = [0.0; 3];
            for time in &mut times {
                *time = timed(|| interweaver.extract(photo, stride))?.0;
            }
            let interweave = median(&mut times);
            slow.push(patchwise);
            fast.push(interweave);
            ratios.push(patchwise / interweave);
        }
        let Some(plan) = interweaver.plan([photo.height, photo.width], stride)? else {
            unreachable!("one pass is planned")
        };
        let patches = found.patches[0] * found.patches[1];
        let pieces = pieces(plan, found.patches);
        let patchwise_gflop = patches as f64 * net.flops() as f64 / 1e9;
        let interweave_gflop = pieces as f64 * plan.outline.flops() / 1e9;
        Ok(Row {
            device: device.name(),
            precision: device.precision().math(),
            threads: threads(),
            net: net.spec.name.clone(),
            image: [photo.height, photo.width],
            stride,
            patches,
            patchwise_ms: 1e3 * median(&mut slow),
            patchwise_batch: self.batch,
            interweave_maps_ms: (!middle.is_empty()).then(|| 1e3 * median(&mut middle)),
            interweave_ms: 1e3 * median(&mut fast),
            speedup: median(&mut ratios),
            patchwise_gflop,
            interweave_gflop,
            flop_ratio: patchwise_gflop / interweave_gflop,
            interweave_mib: plan.bytes() as f64 / f64::from(1 << 20),
            max_rel_error,
        })
    }

    /// One line per layer: its time in one pass and the work it does in that time.
    fn layers(&mut self) -> Result<String> {
        const PASSES: usize = 7;
        let interweaver = &mut self.interweaver;
        let mut times = vec![Vec::new(); self.net.layers.len()];
        for _ in 0..PASSES {
            interweaver.extract(&self.photo, self.stride)?;
            times
                .iter_mut()
                .zip(interweaver.seconds().unwrap_or_default())
                .for_each(|(times, seconds)| times.push(*seconds));
        }
        let size = [self.photo.height, self.photo.width];
        let Some(plan) = interweaver.plan(size, self.stride)? else { unreachable!("one pass is planned") };
        let rows = self.net.layers.iter().zip(&plan.outline.flops).zip(&mut times).map(|((layer, flops), times)| {
            let (seconds, gflop) = (median(times), flops / 1e9);
            let figures = [1e3 * seconds, gflop, gflop / seconds].map(|figure| format!("{figure:.2}"));
            [format!("    {}", layer.name)].into_iter().chain(figures).collect()
        });
        let columns = [text("    layer"), number("ms"), number("GFLOP"), number("GFLOP/s")];
        Ok(TextTable::new(columns).print(rows))
    }
}

/// How the time grows with the number of pixels, for each stride measured at several sizes: the least-squares slope on
/// logarithmic axes. 1 is linear.
fn growth(rows: &[Row]) -> Vec<String> {
    let mut strides: Vec<usize> = rows.iter().map(|row| row.stride).collect();
    strides.sort_unstable();
    strides.dedup();
    let line = |stride: usize| {
        let points: Vec<(f64, f64)> = rows
            .iter()
            .filter(|row| row.stride == stride)
            .map(|row| (((row.image[0] * row.image[1]) as f64).ln(), row.interweave_ms.ln()))
            .collect();
        let mean = |pick: fn(&(f64, f64)) -> f64| points.iter().map(pick).sum::<f64>() / points.len() as f64;
        let (x, y) = (mean(|p| p.0), mean(|p| p.1));
        let spread: f64 = points.iter().map(|p| (p.0 - x).powi(2)).sum();
        let slope = points.iter().map(|p| (p.0 - x) * (p.1 - y)).sum::<f64>() / spread;
        (spread > 0.0)
            .then(|| format!("stride {stride}: time of one pass grows with pixels to the power of {slope:.2}"))
    };
    strides.into_iter().filter_map(line).collect()
}

/// Number of pieces in which an image is processed.
fn pieces(plan: &Plan, whole: [usize; 2]) -> usize {
    let piece = plan.outline.patches;
    whole[0].div_ceil(piece[0]) * whole[1].div_ceil(piece[1])
}

fn timed<T>(work: impl FnOnce() -> Result<T>) -> Result<(f64, T)> {
    let start = Instant::now();
    let result = work()?;
    Ok((start.elapsed().as_secs_f64(), result))
}

//! `weft bench predict`: where the time spent on a photo goes.

use super::super::{BatchArgs, ModelArgs, numbers, print, print_json};
use super::median;
use crate::Result;
use crate::data::photo::Photo;
use crate::face::{Model, Workers};
use crate::ops::parallel::threads;
use crate::trace::{self, Counts, Trace};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Time of one photo through the whole pipeline: decoding, localisation, attributes.
#[derive(clap::Args)]
pub struct Args {
    /// Photos; by default a black image of 512 x 512 pixels, which is not decoded
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    batch: BatchArgs,
    /// Number of measured rounds over all photos, after one warm-up round
    #[arg(long, default_value_t = 10, value_parser = numbers::runs())]
    rounds: usize,
    #[command(flatten)]
    device: super::super::DeviceArgs,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Times are medians over photos and rounds of one photo at a time, with all threads.
#[derive(serde::Serialize)]
struct Figures {
    device: String,
    precision: &'static str,
    threads: usize,
    photos: usize,
    decode_ms: f64,
    locate_ms: f64,
    attributes_ms: f64,
    photo_ms: f64,
    /// The same time by kind of work; medians too, whose sum is not exactly `photo_ms`.
    parts_ms: BTreeMap<&'static str, f64>,
    /// Per photo, in the mean.
    passes: f64,
    launches: f64,
    uploads: f64,
    downloads: f64,
    uploaded_bytes: f64,
    downloaded_bytes: f64,
    /// Photos in flight.
    batch: usize,
    /// Over all photos and rounds, with that many in flight.
    photos_per_second: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let device = args.device.open()?;
    let mut model = args.model.load(&device)?;
    model.attributes()?;
    let black = Photo::from_fn(512, 512, |_, _| [0; 3]);
    let photos = args.images.len().max(1);
    let open = |number: usize| match args.images.get(number) {
        Some(path) => Photo::open(path),
        None => Ok(black.clone()),
    };
    let mut times: [Vec<f64>; 4] = Default::default();
    let mut parts: BTreeMap<&'static str, Vec<f64>> = BTreeMap::new();
    let mut counts = Counts::default();
    // The first round builds plans and touches memory for the first time.
    for round in 0..=args.rounds {
        for number in 0..photos {
            let (steps, trace) = trace::record(|| step_times(&mut model, || open(number)));
            let steps = steps?;
            if round > 0 {
                times.iter_mut().zip(steps).for_each(|(times, step)| times.push(1e3 * step.as_secs_f64()));
                for (name, time) in trace.parts() {
                    parts.entry(name).or_default().push(1e3 * time.as_secs_f64());
                }
                add(&mut counts, &trace);
            }
        }
    }
    let measured = (args.rounds * photos) as f64;
    let per_photo = |count: u64| count as f64 / measured;
    let [decode_ms, locate_ms, attributes_ms, photo_ms] = times.map(|mut times| median(&mut times));
    // A part that only some photos have, such as a second look, counts as 0 for the others.
    let parts_ms = parts.into_iter().map(|(name, mut times)| {
        times.resize(args.rounds * photos, 0.0);
        (name, median(&mut times))
    });
    let parts_ms = parts_ms.collect();
    let items: Vec<usize> = (0..args.rounds * photos).map(|item| item % photos).collect();
    let batch = args.batch.count(&device, items.len());
    let mut workers = args.batch.workers(model, &device, items.len())?;
    let photos_per_second = measured / throughput(&mut workers, &items, batch, open)?.as_secs_f64();
    let figures = Figures {
        device: device.name(),
        precision: device.precision().math(),
        threads: threads(),
        photos,
        decode_ms,
        locate_ms,
        attributes_ms,
        photo_ms,
        parts_ms,
        passes: per_photo(counts.passes),
        launches: per_photo(counts.launches),
        uploads: per_photo(counts.uploads),
        downloads: per_photo(counts.downloads),
        uploaded_bytes: per_photo(counts.uploaded_bytes),
        downloaded_bytes: per_photo(counts.downloaded_bytes),
        batch,
        photos_per_second,
    };
    if args.json { print_json(&figures) } else { print(text(&figures)) }
}

/// Times of decoding, localisation, attributes, and all of it.
fn step_times(model: &mut Model, open: impl Fn() -> Result<Photo>) -> Result<[Duration; 4]> {
    let start = Instant::now();
    let photo = trace::span("decoding", String::new, open)?;
    let opened = Instant::now();
    let face = trace::span("other", || "localisation".into(), || model.locate(&photo))?;
    let located = Instant::now();
    trace::span(
        "other",
        || "attributes".into(),
        || {
            // A photo without a face takes as much work in the attribute stage.
            let frame = face.map_or(photo.bounds(), |face| model.frame(&face));
            let features = model.features_in(&photo, frame)?;
            model.scores_of(&features).map(drop)
        },
    )?;
    let done = Instant::now();
    Ok([opened - start, located - opened, done - located, done - start])
}

fn add(counts: &mut Counts, Trace { counts: more, .. }: &Trace) {
    counts.passes += more.passes;
    counts.launches += more.launches;
    counts.uploads += more.uploads;
    counts.downloads += more.downloads;
    counts.uploaded_bytes += more.uploaded_bytes;
    counts.downloaded_bytes += more.downloaded_bytes;
}

/// Time for all items, after a warm-up of every worker.
fn throughput(
    workers: &mut Workers<Model>,
    items: &[usize],
    batch: usize,
    open: impl Fn(usize) -> Result<Photo> + Sync,
) -> Result<Duration> {
    let work =
        |model: &mut Model, item: usize| Some(open(item).and_then(|photo| step_times(model, || Ok(photo.clone()))));
    workers.run(&items[..batch.min(items.len())], work, |_, result| result.map(drop))?;
    let start = Instant::now();
    workers.run(items, work, |_, result| result.map(drop))?;
    Ok(start.elapsed())
}

fn text(figures: &Figures) -> String {
    let Figures { decode_ms, locate_ms, attributes_ms, photo_ms, photos_per_second, batch, .. } = figures;
    let mut parts: Vec<_> = figures.parts_ms.iter().collect();
    parts.sort_by(|a, b| b.1.total_cmp(a.1));
    let parts: Vec<String> = parts.into_iter().map(|(name, time)| format!("{name} {time:.1}")).collect();
    let mut text = format!(
        "{}, {} threads: {photo_ms:.1} ms a photo: decoding {decode_ms:.1}, localisation {locate_ms:.1}, attributes \
         {attributes_ms:.1} ms\nby kind of work: {} ms\n{:.1} passes",
        figures.device,
        figures.threads,
        parts.join(", "),
        figures.passes
    );
    if figures.launches > 0.0 {
        text += &format!(
            ", {:.0} launches, {:.1} uploads of {:.2} MB, {:.1} downloads of {:.2} MB",
            figures.launches,
            figures.uploads,
            figures.uploaded_bytes * 1e-6,
            figures.downloads,
            figures.downloaded_bytes * 1e-6
        );
    }
    text + &format!(" a photo\n{photos_per_second:.1} photos/s with {batch} in flight")
}

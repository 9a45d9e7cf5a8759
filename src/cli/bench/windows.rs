//! `weft bench windows`: how many known boxes are covered by edge-box proposals, and how many by a plain grid of windows.

use super::super::outputs::Outputs;
use super::super::progress::Progress;
use super::super::{numbers, print, print_json};
use super::median;
use crate::data::boxes;
use crate::data::draw::{Canvas, outline};
use crate::data::photo::{Photo, Rect};
use crate::locate::edge_boxes::{EdgeBoxes, EdgeDetector, grid};
use crate::settings::Document;
use crate::text_table::{TextTable, number, text};
use crate::{Error, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Recall of edge boxes on photos with known boxes, compared with a plain grid of the same number of windows.
#[derive(clap::Args)]
pub struct Args {
    /// Box file; its photos are in images/ next to it, or in the same folder
    #[arg(long, value_name = "FILE")]
    boxes: PathBuf,
    /// Number of windows per photo
    #[arg(long, default_value_t = 500, value_parser = numbers::up_to(100_000))]
    count: usize,
    /// Edge-box parameters in TOML; omitted ones take the paper's values. Default: the parameters for faces
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write a picture of each photo into this folder: its edges, and the ten best windows drawn over it
    #[arg(long, value_name = "DIR")]
    draw: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Numbers of windows at which recall is reported.
const COUNTS: [usize; 4] = [10, 50, 100, 500];
/// Number of windows drawn into a picture.
const DRAWN: usize = 10;

#[derive(Serialize)]
struct Figures {
    photos: usize,
    boxes: usize,
    count: usize,
    edge_boxes: Found,
    grid: Found,
}

/// How well one kind of window matches the boxes.
#[derive(Serialize)]
struct Found {
    /// Share of boxes that some window overlaps with an intersection over union of at least 0.5...
    #[serde(rename = "recall_iou_0.5")]
    recall_50: f64,
    /// ...and of at least 0.7.
    #[serde(rename = "recall_iou_0.7")]
    recall_70: f64,
    /// At 0.5, with fewer windows: their number and the recall.
    recall_at: Vec<(usize, f64)>,
    /// Mean over the boxes of the best intersection over union.
    mean_best_iou: f64,
    /// Mean number of windows per photo.
    windows: f64,
    /// Median time per photo on one core, excluding decoding.
    ms_per_photo: f64,
}

/// Accumulators for [`Found`].
#[derive(Default)]
struct Tally {
    /// For each number of windows, the best overlap of every box; the last entry covers all windows.
    best: Vec<Vec<f32>>,
    windows: usize,
    times: Vec<f64>,
}

pub fn run(args: &Args) -> Result<()> {
    let config = EdgeBoxes { count: args.count, ..parameters(args.config.as_deref())? };
    let truth = boxes::read(&args.boxes)?;
    if truth.values().all(Vec::is_empty) {
        return Err(Error::file(&args.boxes, "has no box").advise("write image,x,y,width,height"));
    }
    let names: Vec<&str> = truth.keys().map(String::as_str).collect();
    let paths = boxes::photos(&args.boxes, &names);
    let paths =
        paths.into_iter().map(|path| path.map_err(|found| Error::file(&args.boxes, found).advise("add the photo")));
    let paths = paths.collect::<Result<Vec<PathBuf>>>()?;
    let plan = |folder: &PathBuf| Outputs::plan("--draw", folder, "png", &paths, std::slice::from_ref(&args.boxes));
    let pictures = args.draw.as_ref().map(plan).transpose()?;
    let counts: Vec<usize> = COUNTS.into_iter().filter(|&n| n < args.count).chain([args.count]).collect();
    let (mut edge_boxes, mut plain) = (Tally::default(), Tally::default());
    let progress = Progress::new(truth.len() as u64, "photos");
    for (done, (truth, path)) in truth.values().zip(&paths).enumerate() {
        let photo = Photo::open(path)?;
        let start = Instant::now();
        let windows: Vec<Rect> = config.windows(&photo)?.into_iter().map(|(rect, _)| rect).collect();
        edge_boxes.times.push(1e3 * start.elapsed().as_secs_f64());
        edge_boxes.windows += windows.len();
        edge_boxes.add(truth, &counts, |n| windows[..n.min(windows.len())].to_vec());
        // The grid is unordered, so fewer windows require a different grid.
        let laid = |n: usize| grid(photo.height, photo.width, config.size, n);
        let start = Instant::now();
        plain.windows += laid(args.count).len();
        plain.times.push(1e3 * start.elapsed().as_secs_f64());
        plain.add(truth, &counts, laid);
        if let Some(pictures) = &pictures {
            draw(&photo, &config, &windows).save_png(pictures.path(done, None)?)?;
        }
        progress.set(done as u64 + 1);
    }
    progress.finish();
    let photos = truth.len();
    let found = [edge_boxes, plain].map(|tally| tally.figures(&counts, photos));
    let boxes = truth.values().map(Vec::len).sum();
    let [edge_boxes, grid] = found;
    let figures = Figures { photos, boxes, count: args.count, edge_boxes, grid };
    if args.json { print_json(&figures) } else { print(report(&figures)) }
}

/// Parameters from a file, or those for faces if no file is given.
fn parameters(path: Option<&Path>) -> Result<EdgeBoxes> {
    let Some(path) = path else { return Ok(EdgeBoxes::faces()) };
    let document = Document::load(path, "give a file of parameters (TOML)")?;
    let config: EdgeBoxes = document.read()?;
    config.check().map_err(|mistake| document.mistake(&mistake))?;
    Ok(config)
}

impl Tally {
    /// Adds the best overlap of each box with the windows `windows(n)`, for each n.
    fn add(&mut self, truth: &[Rect], counts: &[usize], windows: impl Fn(usize) -> Vec<Rect>) {
        self.best.resize_with(counts.len(), Vec::new);
        for (best, &n) in self.best.iter_mut().zip(counts) {
            let windows = windows(n);
            best.extend(truth.iter().map(|b| windows.iter().map(|w| w.iou(b)).fold(0.0, f32::max)));
        }
    }

    fn figures(mut self, counts: &[usize], photos: usize) -> Found {
        let share = |best: &[f32], least: f32| {
            best.iter().filter(|&&iou| iou >= least).count() as f64 / best.len().max(1) as f64
        };
        let all = self.best.last().map_or(&[][..], Vec::as_slice);
        Found {
            recall_50: share(all, 0.5),
            recall_70: share(all, 0.7),
            recall_at: counts.iter().zip(&self.best).map(|(&n, best)| (n, share(best, 0.5))).collect(),
            mean_best_iou: all.iter().map(|&iou| f64::from(iou)).sum::<f64>() / all.len().max(1) as f64,
            windows: self.windows as f64 / photos as f64,
            ms_per_photo: median(&mut self.times),
        }
    }
}

fn report(figures: &Figures) -> String {
    let Figures { photos, boxes, edge_boxes, grid, .. } = figures;
    let row = |name: &str, found: &Found| {
        let shares = found.recall_at.iter().map(|(_, share)| *share).chain([found.recall_70]);
        let percent = shares.map(|share| format!("{:.1} %", 100.0 * share));
        let more = [format!("{:.3}", found.mean_best_iou), format!("{:.1}", found.windows)];
        let time = format!("{:.1}", found.ms_per_photo);
        std::iter::once(name.to_string()).chain(percent).chain(more).chain([time]).collect::<Vec<String>>()
    };
    let counts = edge_boxes.recall_at.iter().map(|(n, _)| number(format!("IoU.5@{n}")));
    let columns = [text("")].into_iter().chain(counts);
    let columns = columns.chain(["IoU.7", "mean IoU", "windows", "ms a photo"].map(number));
    format!(
        "{photos} photos, {boxes} boxes; share of boxes found among the windows\n{}",
        TextTable::new(columns).print([row("edge boxes", edge_boxes), row("grid", grid)])
    )
}

/// On the left the edges, darker where stronger; on the right the photo with the best windows.
fn draw(photo: &Photo, config: &EdgeBoxes, windows: &[Rect]) -> Photo {
    let (small, factor) = photo.fit_within(config.side);
    let edges = config.edges.detect(&small);
    let mut canvas = Canvas::from_photo(&small);
    for window in windows.iter().take(DRAWN).rev() {
        let Rect { x, y, width, height } = *window;
        outline(&mut canvas, Rect::new(x * factor, y * factor, width * factor, height * factor), 1.5);
    }
    let right = canvas.into_photo();
    Photo::from_fn(2 * small.width, small.height, |x, y| match x.checked_sub(small.width) {
        Some(x) => right.pixel(x, y),
        None => [(255.0 * (1.0 - edges.magnitude[y * small.width + x])) as u8; 3],
    })
}

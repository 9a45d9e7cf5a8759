//! `weft bench predict`: where the time spent on a photo goes.

use super::super::{ModelArgs, numbers, print, print_json};
use super::median;
use crate::Result;
use crate::data::photo::Photo;
use crate::ops::parallel::threads;
use std::path::PathBuf;
use std::time::Instant;

/// Time of one photo through the whole pipeline: decoding, localisation, attributes.
#[derive(clap::Args)]
pub struct Args {
    /// Photos; by default a black image of 512 x 512 pixels, which is not decoded
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: ModelArgs,
    /// Number of measured rounds over all photos, after one warm-up round
    #[arg(long, default_value_t = 10, value_parser = numbers::runs())]
    rounds: usize,
    #[command(flatten)]
    device: super::super::DeviceArgs,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Medians over photos and rounds.
#[derive(serde::Serialize)]
struct Figures {
    device: String,
    threads: usize,
    photos: usize,
    decode_ms: f64,
    locate_ms: f64,
    attributes_ms: f64,
    photo_ms: f64,
    photos_per_second: f64,
}

pub fn run(args: &Args) -> Result<()> {
    let device = args.device.open()?;
    let mut model = args.model.load(&device)?;
    model.attributes()?;
    let black = Photo::from_fn(512, 512, |_, _| [0; 3]);
    let photos = args.images.len().max(1);
    let mut times: [Vec<f64>; 4] = Default::default();
    // The first round builds plans and touches memory for the first time.
    for round in 0..=args.rounds {
        for number in 0..photos {
            let start = Instant::now();
            let decoded = match args.images.get(number) {
                Some(path) => Photo::open(path)?,
                None => black.clone(),
            };
            let open = Instant::now();
            let face = model.locate(&decoded)?;
            let located = Instant::now();
            // A photo without a face takes as much work in the attribute stage.
            let frame = face.map_or(decoded.bounds(), |face| model.frame(&face));
            let features = model.features_in(&decoded, frame)?;
            model.scores_of(&features)?;
            let done = Instant::now();
            if round > 0 {
                let parts = [open - start, located - open, done - located, done - start];
                times.iter_mut().zip(parts).for_each(|(times, part)| times.push(1e3 * part.as_secs_f64()));
            }
        }
    }
    let [decode_ms, locate_ms, attributes_ms, photo_ms] = times.map(|mut times| median(&mut times));
    let figures = Figures {
        device: device.name(),
        threads: threads(),
        photos,
        decode_ms,
        locate_ms,
        attributes_ms,
        photo_ms,
        photos_per_second: 1e3 / photo_ms,
    };
    if args.json {
        return print_json(&figures);
    }
    print(format!(
        "{photo_ms:.1} ms a photo ({:.1} photos/s, {} threads): decoding {decode_ms:.1}, localisation {locate_ms:.1}, \
         attributes {attributes_ms:.1} ms",
        figures.photos_per_second, figures.threads
    ))
}

//! `weft data`: checks data folders and reports what is wrong with them; generates synthetic faces where no others are available.

use super::numbers;
use super::progress::Progress;
use super::{print, print_json};
use crate::data::check::check;
use crate::data::{scenes, synth};
use crate::lock::{self, Lock};
use crate::{Error, Result};
use clap::Subcommand;
use std::fmt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::sync::OnceLock;

/// Check photos and annotations, or generate synthetic ones.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Check(Check),
    Synth(Synth),
    Scenes(Scenes),
}

pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Check(check) => run_check(check),
        What::Synth(synth) => run_synth(synth),
        What::Scenes(scenes) => run_scenes(scenes),
    }
}

/// Read all annotations and photos; count them and list all problems.
#[derive(clap::Args)]
struct Check {
    /// CelebA (official or flat layout, lists as text or CSV), one folder of photos per class, or a CSV file of boxes
    dir: PathBuf,
    /// Fail at the first problem instead of listing all of them
    #[arg(long)]
    strict: bool,
    /// Decode every photo (the default)
    #[arg(long, conflicts_with = "no_decode")]
    decode: bool,
    /// Only check that the photo files exist
    #[arg(long)]
    no_decode: bool,
    #[arg(long)]
    json: bool,
}

fn run_check(args: &Check) -> Result<ExitCode> {
    // The number of photos is known only when the first is decoded.
    let progress = OnceLock::new();
    let show = |done: usize, total: usize| {
        progress.get_or_init(|| Progress::new(total as u64, "photos decoded")).set(done as u64);
    };
    let decode = args.decode || !args.no_decode;
    let report = check(&args.dir, args.strict, decode.then_some(&show))?;
    if let Some(progress) = progress.into_inner() {
        progress.finish();
    }
    if args.json {
        print_json(&report)?;
    } else {
        print(report.to_string().trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Generate synthetic faces in CelebA's layout. The same options give the same bytes.
#[derive(clap::Args)]
struct Synth {
    /// Receives Img, Anno and Eval; must be new, empty or previously written by this command
    dir: PathBuf,
    #[arg(long, default_value_t = synth::Config::default().images, value_parser = numbers::up_to(synth::MOST_IMAGES))]
    images: usize,
    /// Number of distinct identities; the splits share none
    #[arg(long, default_value_t = synth::Config::default().identities)]
    #[arg(value_parser = numbers::up_to(synth::MOST_IMAGES))]
    identities: usize,
    /// Picture widths in pixels
    #[arg(long, value_name = "LEAST-MOST", default_value_t = Span::from(synth::Config::default().width))]
    #[arg(value_parser = within(synth::SIDES))]
    width: Span<usize>,
    /// Picture heights in pixels
    #[arg(long, value_name = "LEAST-MOST", default_value_t = Span::from(synth::Config::default().height))]
    #[arg(value_parser = within(synth::SIDES))]
    height: Span<usize>,
    /// Face heights as a share of the picture's shorter side
    #[arg(long, value_name = "LEAST-MOST", default_value_t = Span::from(synth::Config::default().face))]
    #[arg(value_parser = within(synth::SHARES))]
    face: Span<f32>,
    #[arg(long, default_value_t = synth::Config::default().seed)]
    seed: u64,
    /// Write into a folder that contains other files, replacing those with the same names
    #[arg(long)]
    force: bool,
}

fn run_synth(args: &Synth) -> Result<ExitCode> {
    let config = synth::Config {
        images: args.images,
        identities: args.identities,
        width: args.width.into(),
        height: args.height.into(),
        face: args.face.into(),
        seed: args.seed,
    };
    config.check()?;
    let _lock = Lock::take(&args.dir, "weft data synth")?;
    if !args.force && lock::holds_files(&args.dir)? && !synth::is_at(&args.dir) {
        return Err(Error::file(&args.dir, "holds something that this command did not write")
            .advise("choose another folder, or write into this one with --force"));
    }
    let progress = Progress::new(config.images as u64, "faces drawn");
    synth::write(&config, &args.dir, &mut |done| progress.set(done as u64))?;
    progress.finish();
    let synth::Config { images, identities, seed, .. } = config;
    print(format_args!("{}: {images} photos of {identities} people, seed {seed}", args.dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Paste photos with known boxes at random positions and sizes into other photos, to measure localisation.
#[derive(clap::Args)]
struct Scenes {
    /// Receives images/ and boxes.csv; must be new or empty
    dir: PathBuf,
    /// Box file (image,x,y,width,height) of the photos to paste
    #[arg(long, value_name = "CSV")]
    photos: PathBuf,
    /// Folder of photos without faces, with one sub-folder per class
    #[arg(long, value_name = "DIR")]
    backgrounds: PathBuf,
    #[arg(long, default_value_t = scenes::Config::default().scenes, value_parser = numbers::up_to(scenes::MOST))]
    count: usize,
    /// Number of the first scene: sets with the same seed and disjoint numbers share no pasted photos until these run out
    #[arg(long, default_value_t = scenes::Config::default().first, value_parser = numbers::below(scenes::MOST))]
    first: usize,
    /// Longer side of a scene in pixels
    #[arg(long, default_value_t = scenes::Config::default().side, value_parser = numbers::up_to(scenes::LONGEST))]
    side: usize,
    /// Longer side of a pasted photo as a share of the scene's shorter side
    #[arg(long, value_name = "LEAST-MOST", default_value_t = Span::from(scenes::Config::default().scale))]
    #[arg(value_parser = within((f32::MIN_POSITIVE, 1.0)))]
    scale: Span<f32>,
    /// Share of a pasted photo over which it fades into the background; 0 gives hard edges
    #[arg(long, default_value_t = scenes::Config::default().fade, value_parser = fade)]
    fade: f32,
    #[arg(long, default_value_t = scenes::Config::default().seed)]
    seed: u64,
}

fn run_scenes(args: &Scenes) -> Result<ExitCode> {
    let Scenes { first, count: scenes, side, fade, seed, .. } = *args;
    let config = scenes::Config { first, scenes, side, scale: args.scale.into(), fade, seed };
    let _lock = Lock::take(&args.dir, "weft data scenes")?;
    if lock::holds_files(&args.dir)? {
        return Err(Error::file(&args.dir, "is not empty").advise("choose another folder"));
    }
    super::report_skipped(&scenes::write(&config, &args.photos, &args.backgrounds, &args.dir)?);
    print(format_args!("{}: {scenes} scenes, seed {seed}", args.dir.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// `least-most`, or one number for both ends.
#[derive(Debug, Clone, Copy)]
struct Span<T> {
    least: T,
    most: T,
}

impl<T> From<(T, T)> for Span<T> {
    fn from((least, most): (T, T)) -> Self {
        Self { least, most }
    }
}

impl<T> From<Span<T>> for (T, T) {
    fn from(span: Span<T>) -> Self {
        (span.least, span.most)
    }
}

impl<T: fmt::Display> fmt::Display for Span<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.least, self.most)
    }
}

impl<T: FromStr> FromStr for Span<T> {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (least, most) = text.split_once('-').unwrap_or((text, text));
        match (least.parse(), most.parse()) {
            (Ok(least), Ok(most)) => Ok(Self { least, most }),
            _ => Err("write one number, or two as in 160-260"),
        }
    }
}

/// Parser for a span between two bounds.
fn within<T>((least, most): (T, T)) -> impl Fn(&str) -> Result<Span<T>, String> + Clone
where
    T: FromStr + PartialOrd + fmt::Display + Copy,
{
    move |text| {
        let span: Span<T> = text.parse()?;
        // NaN fails every comparison.
        if least <= span.least && span.least <= span.most && span.most <= most {
            return Ok(span);
        }
        Err(format!("give numbers from {least} to {most}, the least first"))
    }
}

/// A share below one half.
fn fade(text: &str) -> Result<f32, &'static str> {
    text.parse().ok().filter(|share| (0.0..0.5).contains(share)).ok_or("give a share from 0 to below 0.5")
}

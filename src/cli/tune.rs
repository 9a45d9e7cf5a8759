//! `weft tune`: how each product of a net is cut into blocks fastest on a card, of the ways that are right there.

use super::numbers::{self, Size};
use super::progress::Progress;
use super::{DeviceArgs, print, print_json};
use crate::device::tuned::{self, Card};
use crate::device::{Cut, Gpu};
use crate::net::{Net, Purpose};
use crate::ops::Kind;
use crate::shipped::Source;
use crate::text_table::{TextTable, number, text};
use crate::tune::{Outcome, Trial, Tuner, images, layers};
use crate::weights::keep_inputs;
use crate::{Error, Result, profile};
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Find how each matrix product of a network is computed fastest on this GPU: tiles and splits are tried, each is checked against
/// the f32 kernel, and the fastest that is right is kept for all later runs. On an emulator everything is checked and nothing kept.
#[derive(clap::Args)]
pub struct Args {
    #[arg(value_parser = super::net(), help = super::NET)]
    net: Source,
    /// Batch sizes, with commas between them
    #[arg(long, value_name = "N[,N]", default_value = "1", value_delimiter = ',', value_parser = numbers::count())]
    batch: Vec<usize>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Tune both forward and backward
    #[arg(long)]
    train: bool,
    /// Input size, as 300x300 (height x width)
    #[arg(long, value_name = "HxW")]
    size: Option<Size>,
    /// Also tune the pass over all overlapping patches of an image of this size (height x width)
    #[arg(long, value_name = "HxW", requires = "stride")]
    image: Option<Size>,
    /// Pixels between these patches
    #[arg(long, value_name = "N", requires = "image", value_parser = numbers::stride())]
    stride: Option<usize>,
    /// Where choices are kept [default: the file that WEFT_TUNED names, else weft/tuned.json in the user's cache folder]
    #[arg(long, value_name = "FILE")]
    cache: Option<PathBuf>,
    /// Also try what was wrong on this GPU before
    #[arg(long)]
    again: bool,
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(path) = &args.cache {
        keep_inputs("--cache", path, args.net.path())?;
    }
    let mut net = Net::load(&args.net)?;
    if let Some(Size { height, width }) = args.size {
        net = net.at_size(height, width)?;
    }
    let net = Arc::new(net);
    let device = args.device.open()?;
    let Some(gpu) = device.gpu() else {
        return Err(Error::new("--device", "the CPU has nothing to tune")
            .advise("give --device cuda; or --device simt, which checks all that would be tried"));
    };
    let purpose = if args.train { Purpose::Training } else { Purpose::Inference };
    let cache = if gpu.driver.is_host() { None } else { Some(cache(args)?) };
    if cache.is_some() {
        for &batch in &args.batch {
            profile::check(format!("--batch {batch}"), &device, &net, batch, purpose)?;
        }
    }
    let card = Card::new(gpu.driver.properties());
    let known = match &cache {
        // A file that is damaged is written anew, and says so.
        Some(path) if !args.again => tuned::records(path, &card).unwrap_or_default(),
        _ => Vec::new(),
    };

    let filters = net.layers.iter().filter(|layer| matches!(layer.op.kind(), Kind::Filter(_))).count();
    let each = if args.train { 3 } else { 1 };
    let total = filters * (each * args.batch.len() + usize::from(args.image.is_some()));
    let progress = Progress::new(total as u64, "products");
    let mut outcomes: Vec<Outcome> = Vec::new();
    let mut done = |outcome: Outcome| {
        if let Some(path) = &cache {
            // At once: what is known stays known, however the program ends.
            tuned::add(path, &card, &[outcome.record()])?;
        }
        outcomes.push(outcome);
        progress.set(outcomes.len() as u64);
        Ok(())
    };
    let mut tuner = Tuner::new(gpu, &known, &mut done);
    for &batch in &args.batch {
        layers(&mut tuner, &net, batch, purpose)?;
    }
    if let (Some(Size { height, width }), Some(stride)) = (args.image, args.stride) {
        images(&mut tuner, &net, [height, width], stride)?;
    }
    drop(progress);

    let wrong: usize = outcomes.iter().map(|outcome| outcome.wrong().count()).sum();
    if args.json {
        print_json(&document(args, gpu, cache.as_ref(), &outcomes))?;
    } else {
        print(in_words(gpu, cache.as_ref(), &outcomes))?;
    }
    Ok(if wrong == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The file for the choices.
fn cache(args: &Args) -> Result<PathBuf> {
    let path = args.cache.clone().or_else(tuned::default_path);
    path.ok_or_else(|| {
        Error::new(
            "--cache",
            format!("there is no place for the choices: {} is off, or there is no home", tuned::VARIABLE),
        )
        .advise("name a file")
    })
}

fn cut_json(cut: Cut, seconds: Option<f64>) -> Value {
    json!({ "tile": cut.tile, "splits": cut.splits, "seconds": seconds })
}

fn document(args: &Args, gpu: &Gpu, cache: Option<&PathBuf>, outcomes: &[Outcome]) -> Value {
    let trial = |trial: &Trial| {
        let mut value = cut_json(trial.cut, trial.seconds);
        value["share"] = json!(trial.share.is_finite().then_some(trial.share));
        value["wrong"] = json!(trial.wrong);
        value
    };
    let product = |outcome: &Outcome| {
        let fastest = outcome.fastest();
        json!({
            "layer": outcome.layer,
            "product": outcome.product,
            "reduced": outcome.is_reduced,
            "model": cut_json(outcome.model, outcome.model_seconds()),
            "choice": fastest.map(|trial| cut_json(trial.cut, trial.seconds)),
            "trials": outcome.trials.iter().map(trial).collect::<Vec<_>>(),
        })
    };
    json!({
        "device": gpu.driver.properties().name,
        "precision": gpu.precision.to_string(),
        "net": args.net.to_string(),
        "cache": cache.map(|path| path.display().to_string()),
        "products": outcomes.iter().map(product).collect::<Vec<_>>(),
        "tried": outcomes.iter().map(|outcome| outcome.trials.len()).sum::<usize>(),
        "wrong": outcomes.iter().map(|outcome| outcome.wrong().count()).sum::<usize>(),
    })
}

fn in_words(gpu: &Gpu, cache: Option<&PathBuf>, outcomes: &[Outcome]) -> String {
    let columns = [text("layer"), text("kernel"), number("batch x m x n x k"), number("right"), number("worst")];
    let columns = columns.into_iter().chain([text("model"), number("us"), text("fastest"), number("us")]);
    let microseconds = |seconds: Option<f64>| seconds.map_or("-".into(), |seconds| format!("{:.1}", 1e6 * seconds));
    let row = |outcome: &Outcome| {
        let [m, n, k] = outcome.product.size;
        let (tried, wrong) = (outcome.trials.len(), outcome.wrong().count());
        let right = outcome.trials.iter().filter(|trial| trial.wrong.is_none());
        let worst = right.map(|trial| trial.share).fold(0.0, f64::max);
        let fastest = outcome.fastest();
        vec![
            format!("{}{}", outcome.layer, if outcome.is_reduced { " *" } else { "" }),
            outcome.product.kernel.clone(),
            format!("{} x {m} x {n} x {k}", outcome.product.batch),
            format!("{} of {tried}", tried - wrong),
            format!("{worst:.2}"),
            outcome.model.to_string(),
            microseconds(outcome.model_seconds()),
            fastest.map_or("-".into(), |trial| trial.cut.to_string()),
            microseconds(fastest.and_then(|trial| trial.seconds)),
        ]
    };
    let mut text = format!("{} in {}\n\n", gpu.driver.properties().name, gpu.precision);
    text += &TextTable::new(columns).print(outcomes.iter().map(row));
    text += "\n\nright: within the tolerance around the f32 kernel of this device; worst: the largest share of it";
    if outcomes.iter().any(|outcome| outcome.is_reduced) {
        text += "\n*: on a smaller map or batch than asked for, which the emulator can compute";
    }
    for (outcome, trial) in outcomes.iter().flat_map(|outcome| outcome.wrong().map(move |trial| (outcome, trial))) {
        let found = trial.wrong.as_deref().unwrap_or_default();
        text += &format!("\nWRONG {} of {} cut as {}: {found}", outcome.product, outcome.layer, trial.cut);
    }
    text += &match cache {
        Some(path) => format!("\n{} products in {}", outcomes.len(), path.display()),
        None => "\nTimes of the emulator say nothing about a GPU: nothing was chosen or written.".into(),
    };
    text
}

//! `weft train`: one run from a training file.

use super::print_json;
use super::progress::Progress;
use crate::train::{self, Config, Event};
use crate::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Train a network: pretrain-objects, finetune-lnet, pretrain-identities or finetune-attributes.
#[derive(clap::Args)]
pub struct Args {
    /// Training file
    config: PathBuf,
    /// Go on from the checkpoint in the output folder
    #[arg(long)]
    resume: bool,
    /// Replace a value of the file, as in --set schedule.rate=0.01
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    #[command(flatten)]
    device: super::DeviceArgs,
    /// Print the outcome as JSON
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Summary {
    stage: &'static str,
    steps: usize,
    finished: bool,
    seconds: f64,
    images_per_second: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    validation: Option<Figures>,
    #[serde(skip_serializing_if = "Option::is_none")]
    weights: Option<PathBuf>,
}

#[derive(serde::Serialize)]
struct Figures {
    loss: f64,
    accuracy: f64,
    balanced_accuracy: f64,
    majority: f64,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let config = Config::load(&args.config, &args.set)?;
    let stop = interruptible()?;
    let mut progress = None;
    let mut looking: Option<Progress> = None;
    let mut first = 0;
    // The shown loss is the mean of the first fifty steps, and follows about as many later.
    let (mut shown, mut seen) = (0.0, 0u8);
    let outcome = train::run(&config, &args.device.open()?, args.resume, &stop, &mut |event| match event {
        Event::Start { steps, first: done, photos, parameters, skipped, fresh } => {
            first = done;
            eprintln!(
                "{}: {photos} photos, {:.2} M parameters, {steps} steps of {}{}",
                config.stage.name(),
                parameters as f64 / 1e6,
                config.batch,
                if done > 0 { format!(", going on after step {done}") } else { String::new() }
            );
            if let Some(init) = config.init.as_ref().filter(|_| !fresh.is_empty()) {
                eprintln!("not in {}, so random: {}", init.display(), fresh.join(", "));
            }
            super::report_skipped(skipped);
            let bar = Progress::new(steps as u64, config.stage.name());
            bar.set(done as u64);
            progress = Some(bar);
        }
        Event::Step { step, epoch, loss, rate } => {
            seen = (seen + 1).min(50);
            shown += (loss - shown) / f32::from(seen);
            if let Some(bar) = &progress {
                bar.message(format!("epoch {epoch:.2}, loss {shown:.4}, rate {rate:.2e}"));
                bar.set(step as u64);
            }
        }
        Event::Looking { done, of } => {
            let bar = looking.get_or_insert_with(|| Progress::new(of as u64, "validation"));
            bar.set(done as u64);
        }
        Event::Validation { step, validation } => {
            if let Some(bar) = looking.take() {
                bar.finish();
            }
            eprintln!(
                "step {step}: validation loss {:.4}, accuracy {:.2} %, balanced {:.2} %, majority {:.2} %",
                validation.loss,
                100.0 * validation.means.accuracy,
                100.0 * validation.means.balanced_accuracy,
                100.0 * validation.means.majority
            );
        }
    })?;
    if let Some(bar) = progress {
        bar.finish();
    }
    let images = (outcome.steps - first) * config.batch;
    let summary = Summary {
        stage: config.stage.name(),
        steps: outcome.steps,
        finished: outcome.weights.is_some(),
        seconds: outcome.seconds,
        images_per_second: images as f64 / outcome.seconds,
        validation: outcome.validation.map(|v| Figures {
            loss: v.loss,
            accuracy: v.means.accuracy,
            balanced_accuracy: v.means.balanced_accuracy,
            majority: v.means.majority,
        }),
        weights: outcome.weights.clone(),
    };
    if args.json {
        print_json(&summary)?;
    } else if let Some(weights) = &outcome.weights {
        super::print(format!("{} steps in {:.0} s: {}", outcome.steps, outcome.seconds, weights.display()))?;
    }
    if outcome.weights.is_none() {
        return Err(Error::file(&config.output, format!("stopped after step {} of {}", outcome.steps, outcome.of))
            .advise("go on with --resume"));
    }
    Ok(ExitCode::SUCCESS)
}

/// A flag that Ctrl-C sets; a second Ctrl-C ends the program at once.
fn interruptible() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        eprintln!("stopping after this step; press Ctrl-C again to stop at once");
    })
    .map_err(|e| Error::new("Ctrl-C", e))?;
    Ok(stop)
}

//! `weft train`: one run from a training file, or all steps of a recipe.

use super::progress::Progress;
use super::{numbers, print_json, ranks, recipe, say};
use crate::dist::World;
use crate::recipe::is_recipe;
use crate::shipped;
use crate::text_table::{TextTable, text};
use crate::train::{self, Config, Event};
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Train a network: pretrain-objects, finetune-lnet, pretrain-identities or finetune-attributes; or run a whole recipe.
///
/// A file with `stage = ...` is one training run. A file with `[[step]]` is a recipe: training runs, bundles, windows, SVMs and
/// measurements, executed in order. Completed steps are skipped, so the same command continues after an interruption.
///
/// On the CPU equal settings give bit-identical weights, with or without interruptions, on any number of threads, and on any
/// number of ranks that divides `shards`. Ranks are started by --ranks on this machine, or by mpirun, mpiexec or srun on many.
#[derive(clap::Args)]
pub struct Args {
    /// Training file or recipe
    #[arg(value_name = "CONFIG", required_unless_present = "show")]
    config: Option<PathBuf>,
    /// Print a training file or recipe that ships with Weft, as a starting point for your own; without NAME, list them
    #[arg(long, value_name = "NAME", num_args = 0..=1, default_missing_value = "", exclusive = true)]
    show: Option<String>,
    /// Continue from the checkpoint in the output folder (a recipe always does)
    #[arg(long)]
    resume: bool,
    /// Override a value of the file, such as --set schedule.rate=0.01; in a recipe --set STEP.schedule.rate=0.01
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
    /// Recipe: only show what would be done, and why
    #[arg(long)]
    pub dry_run: bool,
    /// Recipe: run only this step, on the existing results of the others; may be repeated
    #[arg(long, value_name = "STEP")]
    pub only: Vec<String>,
    /// Recipe: run only this step and those after it
    #[arg(long, value_name = "STEP")]
    pub from: Option<String>,
    /// Train on N processes of this machine, started by mpirun or mpiexec; N divides `shards` of the training file
    #[arg(long, value_name = "N", value_parser = numbers::up_to(4096))]
    ranks: Option<usize>,
    /// On several ranks: seconds that a rank waits for the others before all are ended
    #[arg(long, value_name = "SECONDS", default_value = "300", value_parser = clap::value_parser!(u64).range(1..=86_400))]
    timeout: u64,
    #[command(flatten)]
    pub device: super::DeviceArgs,
    /// Print the outcome as JSON
    #[arg(long)]
    pub json: bool,
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
    if let Some(name) = &args.show {
        return show(name);
    }
    let Some(path) = &args.config else { return Err(Error::new("weft train", "CONFIG is missing")) };
    if let Some(count) = args.ranks.filter(|count| *count > 1) {
        if is_recipe(path) {
            return Err(on_one_rank(path));
        }
        return ranks::start(count);
    }
    let world = ranks::join(args.timeout)?;
    if is_recipe(path) {
        return match world.size() {
            1 => recipe::run(path, args),
            _ => ranks::finish(&world, world.agree(Err(on_one_rank(path)))),
        };
    }
    ranks::finish(&world, run_in(&world, path, args))
}

fn on_one_rank(path: &Path) -> Error {
    Error::file(path, "is a recipe, which runs on one rank").advise("start it alone, or its training files on several")
}

/// A training run on all ranks.
fn run_in(world: &World, path: &Path, args: &Args) -> Result<ExitCode> {
    if args.dry_run || !args.only.is_empty() || args.from.is_some() {
        return world
            .agree(Err(Error::file(path, "is no recipe").advise("--dry-run, --only and --from are for recipes")));
    }
    let config = world.agree(Config::load(path, &args.set))?;
    let stop = ranks::stoppable(world)?;
    let device = world.agree(ranks::open(&args.device, world))?;
    if world.is_first() && world.size() > 1 {
        say(format!("{} ranks by {}, this one on: {}", world.size(), world.library(), device.describe()));
    }
    let mut watch = Watch::default();
    let outcome = train::run_in(world, &config, &device, args.resume, &stop, &mut |event| watch.hear(&config, event))?;
    let first = watch.first;
    watch.finish();
    if world.is_first() && world.size() > 1 {
        let share = 100.0 * outcome.summing / outcome.seconds;
        say(format!("sums over the ranks, waiting included, took {share:.1} % of the time"));
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
    if !world.is_first() {
        // Rank 0 tells.
    } else if args.json {
        print_json(&summary)?;
    } else if let Some(weights) = &outcome.weights {
        super::print(format!("{} steps in {:.0} s: {}", outcome.steps, outcome.seconds, weights.display()))?;
    }
    if outcome.weights.is_none() {
        let stopped = Error::file(&config.output, format!("stopped after step {} of {}", outcome.steps, outcome.of));
        return world.agree(Err(stopped.advise("go on with --resume")));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints a shipped recipe under a header that explains how to use it, or the list of all recipes.
fn show(name: &str) -> Result<ExitCode> {
    if name.is_empty() {
        let rows = shipped::recipes().map(|(name, about)| vec![name.to_string(), about]);
        super::print(TextTable::new([text("recipe"), text("for")]).print(rows))?;
    } else {
        super::print(shipped::recipe(name)?.trim_end())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Reports a training run on standard error.
#[derive(Default)]
pub struct Watch {
    steps: Option<Progress>,
    looking: Option<Progress>,
    /// Steps done by an earlier run.
    first: usize,
    /// An average of the loss: the mean of up to fifty steps, then a moving average over about as many; and the number of losses
    /// in it.
    loss: (f32, u8),
}

impl Watch {
    pub fn hear(&mut self, config: &Config, event: Event<'_>) {
        match event {
            Event::Start { steps, first, photos, parameters, skipped, fresh, loss_scale } => {
                self.first = first;
                say(format!(
                    "{}: {photos} photos, {:.2} M parameters, {steps} steps of {}{}",
                    config.stage.name(),
                    parameters as f64 / 1e6,
                    config.batch,
                    if first > 0 { format!(", going on after step {first}") } else { String::new() }
                ));
                if let Some(init) = config.init.as_ref().filter(|_| !fresh.is_empty()) {
                    say(format!("not in {}, so random: {}", init.display(), fresh.join(", ")));
                }
                if let Some(scale) = loss_scale {
                    say(format!(
                        "in f16, losses are multiplied by {} to keep gradients in its range; --precision bf16 has the range \
                         and is recommended",
                        scale.scale
                    ));
                }
                super::report_skipped(skipped);
                let bar = Progress::new(steps as u64, config.stage.name());
                bar.set(first as u64);
                self.steps = Some(bar);
            }
            Event::Step { step, epoch, loss, rate } => {
                let (shown, seen) = &mut self.loss;
                *seen = (*seen + 1).min(50);
                *shown += (loss - *shown) / f32::from(*seen);
                if let Some(bar) = &self.steps {
                    bar.message(format!("epoch {epoch:.2}, loss {shown:.4}, rate {rate:.2e}"));
                    bar.set(step as u64);
                }
            }
            Event::Skipped { step, loss_scale } => say(format!(
                "step {step} was skipped: its gradients are not finite in f16; losses are now multiplied by {} ({} skipped)",
                loss_scale.scale, loss_scale.skipped
            )),
            Event::Looking { done, of } => {
                let bar = self.looking.get_or_insert_with(|| Progress::new(of as u64, "validation"));
                bar.set(done as u64);
            }
            Event::Validation { step, validation } => {
                if let Some(bar) = self.looking.take() {
                    bar.finish();
                }
                say(format!(
                    "step {step}: validation loss {:.4}, accuracy {:.2} %, balanced {:.2} %, majority {:.2} %",
                    validation.loss,
                    100.0 * validation.means.accuracy,
                    100.0 * validation.means.balanced_accuracy,
                    100.0 * validation.means.majority
                ));
            }
        }
    }

    pub fn finish(self) {
        if let Some(bar) = self.steps {
            bar.finish();
        }
    }
}

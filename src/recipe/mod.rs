//! A recipe: the steps of a whole training in one file, executed in order by one command. A step is one training run, the
//! assembly of a bundle, the generation of scenes, the calibration of a localiser, the localisation of windows in photos, the
//! training of SVMs or the evaluation of a model; each has a folder, and refers to those of earlier steps.
//!
//! Key idea: a completed step leaves a record of its inputs and outputs, both as hashes of contents. The same command then skips
//! completed steps, continues interrupted ones, and repeats those whose inputs have changed.

mod bundle;
mod calibrate;
mod eval;
mod file;
mod inputs;
mod locate;
mod record;
mod scenes;
mod svm;
mod train;

pub use file::{Recipe, is_recipe};
pub use record::Record;

use crate::data::celeba::CelebA;
use crate::device::Device;
use crate::lock::Lock;
use crate::provenance::Provenance;
use crate::train as training;
use crate::weights::{make_folder, sweep};
use crate::{Error, Result};
use file::Step;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// The work of one kind of step.
trait Work {
    /// The files and folders that it reads, by key.
    fn reads(&self) -> Vec<(String, PathBuf)>;

    /// Everything that affects its output.
    fn provenance(&self) -> Result<Provenance>;

    /// Does the work. Every file is written to `folder` atomically.
    fn run(&self, folder: &Path, tools: &mut Tools<'_>) -> Result<Done>;
}

/// The outcome of a step.
struct Done {
    /// Names of the files in its folder.
    files: Vec<String>,
    /// A short description of the result.
    result: String,
}

/// What every step works with.
struct Tools<'a> {
    device: &'a Device,
    stop: &'a AtomicBool,
    tell: &'a mut dyn FnMut(Event<'_>),
    /// Whether the step ended early because of `stop`.
    stopped: bool,
}

impl Tools<'_> {
    /// The annotations in a folder; problems with them are reported.
    fn annotations(&mut self, root: &Path) -> Result<CelebA> {
        let celeba = CelebA::open(root, false)?;
        (self.tell)(Event::Skipped(&celeba.problems));
        Ok(celeba)
    }

    /// Reports the number of completed photos.
    ///
    /// # Errors
    /// Once `stop` is set.
    fn photos(&mut self, done: usize, of: usize) -> Result<()> {
        (self.tell)(Event::Photos { done, of });
        if self.stop.load(Ordering::Relaxed) && done < of {
            return Err(self.interrupted(format!("after photo {done} of {of}")));
        }
        Ok(())
    }

    /// The error that ends a step because of `stop`.
    fn interrupted(&mut self, when: String) -> Error {
        self.stopped = true;
        Error::new("", format!("stopped {when}"))
    }
}

/// Events reported while a recipe runs.
pub enum Event<'a> {
    /// A step begins, with the reason why it is needed.
    Step {
        name: &'a str,
        number: usize,
        of: usize,
        why: &'a str,
    },
    /// A step is already done, and left this many bytes.
    Unchanged {
        name: &'a str,
        bytes: u64,
    },
    /// Results of different settings were moved away.
    Moved {
        from: &'a Path,
        to: &'a Path,
    },
    /// Lines and photos that were skipped.
    Skipped(&'a [Error]),
    Photos {
        done: usize,
        of: usize,
    },
    Training {
        config: &'a training::Config,
        event: training::Event<'a>,
    },
}

/// Options for running a recipe.
#[derive(Debug, Default)]
pub struct Options {
    /// Only show what would be done.
    pub dry_run: bool,
    /// Only these steps; all if empty.
    pub only: Vec<String>,
    /// This step and those after it.
    pub from: Option<String>,
}

/// The outcome of a step, for a summary.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Summary {
    pub name: String,
    pub kind: &'static str,
    pub folder: PathBuf,
    #[serde(flatten)]
    pub state: State,
}

#[derive(Debug, Clone, PartialEq, serde::Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum State {
    /// It was done before, with the same provenance.
    Unchanged {
        result: String,
        bytes: u64,
    },
    Done {
        result: String,
        seconds: f64,
    },
    /// It would be done (dry run).
    Planned {
        why: String,
    },
}

/// Runs the steps of a recipe that are not done yet, on `device`. Once `stop` is set, it ends at the next step of a training run
/// or the next photo; the same call continues from there. `tell` is called with each event.
///
/// # Errors
/// A step in `options` that is not in the recipe, a folder in which another process works, missing files, and any error of a
/// step, with its name.
pub fn run(
    recipe: &Recipe,
    options: &Options,
    device: &Device,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<Summary>> {
    let steps = recipe.chosen(options)?;
    recipe.check_inputs(&steps)?;
    let lock = || Lock::take(recipe.output(), &format!("the recipe {}", recipe.path().display()));
    let _lock = if options.dry_run { None } else { Some(lock()?) };
    let mut tools = Tools { device, stop, tell, stopped: false };
    let mut summaries: Vec<Summary> = Vec::new();
    let mut planned = BTreeSet::new();
    for (number, step) in steps.iter().enumerate() {
        let state = match verdict(step, &planned).map_err(|e| recipe.within(step, e))? {
            Verdict::Unchanged(record) => {
                let (result, bytes) = (record.result, record.bytes);
                (tools.tell)(Event::Unchanged { name: &step.name, bytes });
                State::Unchanged { result, bytes }
            }
            Verdict::Due(why) if options.dry_run => {
                planned.insert(step.name.as_str());
                State::Planned { why }
            }
            Verdict::Due(why) => {
                (tools.tell)(Event::Step { name: &step.name, number: number + 1, of: steps.len(), why: &why });
                let began = Instant::now();
                match carry_out(step, &mut tools) {
                    Ok(result) => State::Done { result, seconds: began.elapsed().as_secs_f64() },
                    Err(e) if tools.stopped => {
                        return Err(recipe.within(step, e).advise("the same command goes on from there"));
                    }
                    Err(e) => return Err(recipe.within(step, e)),
                }
            }
        };
        summaries.push(Summary { name: step.name.clone(), kind: step.kind, folder: step.folder.clone(), state });
    }
    Ok(summaries)
}

enum Verdict {
    Unchanged(Record),
    /// Must be run, with the reason.
    Due(String),
}

/// Whether a step must be run. It cannot be known yet whether a `planned` step will change this step's inputs.
fn verdict(step: &Step, planned: &BTreeSet<&str>) -> Result<Verdict> {
    let record = match Record::read(&step.folder) {
        Ok(Some(record)) => record,
        Ok(None) => return Ok(Verdict::Due("not done yet".into())),
        Err(why) => return Ok(Verdict::Due(why)),
    };
    let before: Vec<&str> = step.refers.iter().map(String::as_str).filter(|name| planned.contains(name)).collect();
    if !before.is_empty() {
        return Ok(Verdict::Due(format!("after {}, if that changes its files", before.join(" and "))));
    }
    let differences = record.provenance.differences(&step.provenance()?);
    if !differences.is_empty() {
        return Ok(Verdict::Due(differences));
    }
    match record.missing(&step.folder) {
        Some(file) => Ok(Verdict::Due(format!("{file} was changed or is gone"))),
        None => Ok(Verdict::Unchanged(record)),
    }
}

/// Runs a step and records it; returns a description of the result.
fn carry_out(step: &Step, tools: &mut Tools<'_>) -> Result<String> {
    if tools.stop.load(Ordering::Relaxed) {
        return Err(tools.interrupted("before its beginning".into()));
    }
    let provenance = step.provenance()?;
    make_folder(&step.folder)?;
    let done = step.work.run(&step.folder, tools)?;
    // Read after the work, because a training step may have moved an old folder away.
    if let Ok(Some(old)) = Record::read(&step.folder) {
        old.remove_leftovers(&step.folder, &done.files)?;
    }
    sweep(&step.folder, &[record::FILE]);
    Record::write(&step.folder, provenance, &done)?;
    Ok(done.result)
}

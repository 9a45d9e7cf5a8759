//! A recipe: the steps of the whole training in one file, done in order by one command. A step is one training run, a
//! bundle put together, scenes made, a localiser calibrated, windows found in photos, SVMs trained or a model measured; each
//! has a folder, and refers to those of earlier steps.
//!
//! The one idea: a step that is done leaves a record of what went in and what came out, both as hashes of contents. The same
//! command then skips what is done, goes on with what was interrupted, and does again what has changed.

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

/// What one kind of step does.
trait Work {
    /// The files and folders that it reads, by key.
    fn reads(&self) -> Vec<(String, PathBuf)>;

    /// Everything that shapes what it writes.
    fn provenance(&self) -> Result<Provenance>;

    /// Does it. Every file is written to `folder` as a whole or not at all.
    fn run(&self, folder: &Path, tools: &mut Tools<'_>) -> Result<Done>;
}

/// What a step leaves.
struct Done {
    /// Names of files in its folder.
    files: Vec<String>,
    /// How it went, in a few words.
    result: String,
}

/// What every step works with.
struct Tools<'a> {
    device: &'a Device,
    stop: &'a AtomicBool,
    tell: &'a mut dyn FnMut(Event<'_>),
    /// The step ended early because of `stop`.
    stopped: bool,
}

impl Tools<'_> {
    /// The annotations in a folder; what is wrong with them is told.
    fn annotations(&mut self, root: &Path) -> Result<CelebA> {
        let celeba = CelebA::open(root, false)?;
        (self.tell)(Event::Skipped(&celeba.problems));
        Ok(celeba)
    }

    /// Tells how many photos are done.
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

/// What a recipe tells while it works.
pub enum Event<'a> {
    /// A step begins, and why it is to be done.
    Step {
        name: &'a str,
        number: usize,
        of: usize,
        why: &'a str,
    },
    /// A step is done already, and has left so many bytes.
    Unchanged {
        name: &'a str,
        bytes: u64,
    },
    /// Results of other settings were moved out of the way.
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

/// What to do with a recipe.
#[derive(Debug, Default)]
pub struct Options {
    /// Only say what would be done.
    pub dry_run: bool,
    /// Only these steps; all if empty.
    pub only: Vec<String>,
    /// This step and those after it.
    pub from: Option<String>,
}

/// What became of a step.
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
    /// It was done before, from the same provenance.
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

/// Does the steps of a recipe that are not done yet, on `device`. Once `stop` is set it ends at the next step of a training
/// run or the next photo; the same call goes on from there. `tell` hears what happens.
///
/// # Errors
/// A step of `options` that is not in the recipe, a folder in which another process works, files that are missing, and whatever goes wrong in a step, with its name.
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
    /// To be done, and why.
    Due(String),
}

/// Whether a step is to be done. Whether a step that is `planned` will change what this one reads cannot be known yet.
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

/// Does a step and records it; how it went.
fn carry_out(step: &Step, tools: &mut Tools<'_>) -> Result<String> {
    if tools.stop.load(Ordering::Relaxed) {
        return Err(tools.interrupted("before its beginning".into()));
    }
    let provenance = step.provenance()?;
    make_folder(&step.folder)?;
    let done = step.work.run(&step.folder, tools)?;
    // Read after the work: a training step may have moved an old folder away.
    if let Ok(Some(old)) = Record::read(&step.folder) {
        old.remove_leftovers(&step.folder, &done.files)?;
    }
    sweep(&step.folder, &[record::FILE]);
    Record::write(&step.folder, provenance, &done)?;
    Ok(done.result)
}

//! `kind = "train"`: one run from a training file, whose values can be overridden by `set`. The step's folder is its output.

use super::file::KeyPath;
use super::{Done, Event, Tools, Work};
use crate::Result;
use crate::error::At;
use crate::lock::Lock;
use crate::provenance::Provenance;
use crate::settings::{Change, Mistake};
use crate::train::{self, CHECKPOINT, Config};
use serde::Deserialize;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Keys {
    file: PathBuf,
    #[serde(default)]
    set: Table,
}

pub struct Train {
    config: Config,
}

/// Nests the dotted keys of a step's `set`, so that changes replace existing values.
pub fn nest(step: &mut Table) {
    if let Some(Value::Table(set)) = step.get_mut("set") {
        let mut nested = Table::new();
        if Change::all_of(set, &|_| String::new()).iter().all(|change| change.apply(&mut nested).is_ok()) {
            *set = nested;
        }
    }
}

/// Redirects changes of keys that a training step does not have to its `set`.
pub fn into_file(changes: &mut [Change]) {
    for change in changes.iter_mut().filter(|change| !["file", "set"].contains(&change.keys[0].as_str())) {
        change.keys.insert(0, "set".into());
    }
}

impl Train {
    /// # Errors
    /// Any error of [`Config::load`]; an output of its own.
    pub fn load(keys: Keys, folder: &Path, place: KeyPath<'_>) -> Result<Self> {
        if keys.set.contains_key("output") {
            return Err(place.error(&Mistake::at("set.output", "is the step's own folder; remove it")));
        }
        let mut changes = place.changes(&keys.set);
        let output = Value::String(folder.display().to_string());
        changes.push(Change { keys: vec!["output".into()], value: output, origin: place.of(&String::new().into()) });
        let config = Config::load_changed(keys.file, &changes).map_err(|e| place.within(&changes, e))?;
        Ok(Self { config })
    }
}

impl Work for Train {
    fn reads(&self) -> Vec<(String, PathBuf)> {
        self.config.reads().into_iter().map(|(key, path)| (key.to_string(), path.to_path_buf())).collect()
    }

    fn provenance(&self) -> Result<Provenance> {
        train::provenance(&self.config)
    }

    fn run(&self, folder: &Path, tools: &mut Tools<'_>) -> Result<Done> {
        let checkpoint = folder.join(CHECKPOINT);
        if checkpoint.exists() && train::provenance_of(&checkpoint)? != self.provenance()? {
            // Not while a run is using it.
            drop(Lock::take(folder, "a recipe")?);
            let to = free_name(folder);
            std::fs::rename(folder, &to).at(folder)?;
            (tools.tell)(Event::Moved { from: folder, to: &to });
        }
        let tell = &mut *tools.tell;
        let outcome = train::run(&self.config, tools.device, true, tools.stop, &mut |event| {
            tell(Event::Training { config: &self.config, event });
        })?;
        if outcome.weights.is_none() {
            return Err(tools.interrupted(format!("after step {} of {}", outcome.steps, outcome.of)));
        }
        let mut files = vec!["net.toml".to_string(), "log.csv".into(), "last.safetensors".into()];
        files.extend(outcome.best.map(|_| "best.safetensors".to_string()));
        let result = match outcome.validation {
            Some(v) => format!(
                "accuracy {:.2} %, balanced {:.2} %, majority {:.2} %",
                100.0 * v.means.accuracy,
                100.0 * v.means.balanced_accuracy,
                100.0 * v.means.majority
            ),
            None => format!("{} steps", outcome.steps),
        };
        Ok(Done { files, result })
    }
}

/// `folder.1`, or the first such name that is free.
fn free_name(folder: &Path) -> PathBuf {
    let name = |number: usize| {
        let mut name = folder.file_name().unwrap_or_default().to_os_string();
        name.push(format!(".{number}"));
        folder.with_file_name(name)
    };
    (1..).map(name).find(|path| !path.exists()).unwrap_or_else(|| name(0))
}

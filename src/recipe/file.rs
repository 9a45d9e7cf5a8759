//! The recipe file: `output`, a folder, and a list of `[[step]]`. A step has a `name`, a `kind` and the keys of its kind;
//! `{name}` in any value is the folder of an earlier step.

use super::{Options, Work, bundle, calibrate, eval, locate, scenes, svm, train};
use crate::ingredients::Ingredients;
use crate::train::Change;
use crate::weights::resolved;
use crate::{Error, Result};
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A recipe, checked.
pub struct Recipe {
    path: PathBuf,
    output: PathBuf,
    steps: Vec<Step>,
}

/// One step.
pub(super) struct Step {
    pub name: String,
    pub kind: &'static str,
    pub folder: PathBuf,
    /// The earlier steps that it refers to.
    pub refers: Vec<String>,
    pub work: Box<dyn Work>,
}

impl Step {
    /// What its work is made of, and which work it is.
    pub fn ingredients(&self) -> Result<Ingredients> {
        let mut list = self.work.ingredients()?;
        list.set("kind", self.kind);
        Ok(list)
    }
}

const KINDS: [&str; 7] = ["train", "bundle", "scenes", "calibrate", "locate", "svm", "eval"];

/// Whether a TOML file is a recipe, not the file of one training run. A file that cannot be read is none.
pub fn is_recipe(path: impl AsRef<Path>) -> bool {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    text.parse::<Table>().is_ok_and(|table| table.contains_key("step"))
}

impl Recipe {
    /// Reads a recipe; each of `changes` replaces a value, as in `output=runs/b` or `lnet-o.epochs=2`: the latter reaches into
    /// a step, and what a training step has no key for into its training file.
    ///
    /// # Errors
    /// An unreadable file, broken TOML (with its line), unknown or missing keys, names that occur twice or refer to no
    /// earlier step, mistakes in a training file.
    pub fn load(path: impl AsRef<Path>, changes: &[String]) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::file(path, e).advise("give the path of a recipe (TOML)"))?;
        let mut table: Table = toml::from_str(&text).map_err(|e| Error::toml(path.display(), &text, &e))?;
        let changes = changes.iter().map(|change| Change::parse(change)).collect::<Result<Vec<_>>>()?;
        let recipe = Self { path: path.to_path_buf(), output: PathBuf::new(), steps: Vec::new() };
        recipe.read(&mut table, &changes).map_err(|e| e.within(path.display()))
    }

    fn read(mut self, table: &mut Table, changes: &[Change]) -> Result<Self> {
        let (whole, inner): (Vec<&Change>, Vec<&Change>) = changes.iter().partition(|change| change.keys.len() == 1);
        whole.into_iter().try_for_each(|change| change.apply(table))?;
        let output = match table.remove("output") {
            Some(Value::String(output)) => PathBuf::from(output),
            _ => return Err(Error::new("output", "is missing or no text").advise("give the folder of the results")),
        };
        let steps = match table.remove("step") {
            Some(Value::Array(steps)) if !steps.is_empty() => steps,
            _ => return Err(Error::new("step", "is no list").advise("write each step under [[step]]")),
        };
        if let Some(key) = table.keys().next() {
            return Err(Error::new(key, "is no key of a recipe").advise("it has output and [[step]]"));
        }
        let names = steps.iter().enumerate().map(|(i, step)| name_of(step, i + 1)).collect::<Result<Vec<_>>>()?;
        if let Some(change) = inner.iter().find(|change| !names.contains(&change.keys[0])) {
            let found = format!("there is no step {}", change.keys[0]);
            return Err(Error::new(format!("--set {}", change.keys.join(".")), found).advise(known(&names)));
        }
        for (step, name) in steps.into_iter().zip(&names) {
            let of_step = inner.iter().filter(|change| change.keys[0] == *name);
            let changes = of_step.map(|c| Change { keys: c.keys[1..].to_vec(), value: c.value.clone() }).collect();
            let Value::Table(step) = step else { continue };
            let step = self.step(&output, name, step, changes, &names).map_err(|e| e.within(format!("step {name}")))?;
            self.steps.push(step);
        }
        self.output = output;
        Ok(self)
    }

    /// The file.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// The folder of all results.
    pub(super) fn output(&self) -> &Path {
        &self.output
    }

    fn step(
        &self,
        output: &Path,
        name: &str,
        mut table: Table,
        mut changes: Vec<Change>,
        names: &[String],
    ) -> Result<Step> {
        if self.steps.iter().any(|step| step.name == name) {
            return Err(Error::new("name", "occurs twice").advise("names of steps must differ"));
        }
        table.remove("name");
        let kind = table.remove("kind");
        let kind = KINDS.into_iter().find(|k| kind.as_ref().and_then(Value::as_str) == Some(k)).ok_or_else(|| {
            let found = kind.as_ref().map_or("is missing".into(), |kind| format!("is {kind}"));
            Error::new("kind", found).advise(format!("give one of {}", KINDS.join(", ")))
        })?;
        if kind == "train" {
            train::into_file(&mut table, &mut changes);
        }
        changes.iter().try_for_each(|change| change.apply(&mut table))?;
        let mut refers = Vec::new();
        for (key, value) in table.iter_mut() {
            self.fill_in(value, names, &mut refers).map_err(|e| e.within(key))?;
        }
        let folder = output.join(name);
        let work: Box<dyn Work> = match kind {
            "train" => Box::new(train::Train::load(keys(table)?, &folder)?),
            "bundle" => Box::new(keys::<bundle::Bundle>(table)?.checked()?),
            "scenes" => Box::new(keys::<scenes::Scenes>(table)?),
            "calibrate" => Box::new(keys::<calibrate::Calibrate>(table)?.checked()?),
            "locate" => Box::new(keys::<locate::Locate>(table)?),
            "svm" => Box::new(keys::<svm::Svm>(table)?),
            _ => Box::new(keys::<eval::Eval>(table)?),
        };
        Ok(Step { name: name.to_string(), kind, folder, refers, work })
    }

    /// Replaces `{name}` by the folder of that step, in all texts of a value.
    fn fill_in(&self, value: &mut Value, names: &[String], refers: &mut Vec<String>) -> Result<()> {
        match value {
            Value::Array(values) => values.iter_mut().try_for_each(|value| self.fill_in(value, names, refers)),
            Value::Table(table) => table
                .iter_mut()
                .try_for_each(|(key, value)| self.fill_in(value, names, refers).map_err(|e| e.within(key))),
            Value::String(text) => {
                while let Some((before, rest)) = text.split_once('{') {
                    let Some((name, after)) = rest.split_once('}') else {
                        return Err(Error::new("", format!("{text:?} has a {{ without }}")).advise("write {step}/file"));
                    };
                    let Some(step) = self.steps.iter().find(|step| step.name == name) else {
                        let later = names.iter().any(|n| n == name);
                        let found = format!("{{{name}}} is {}", if later { "no earlier step" } else { "no step" });
                        let earlier: Vec<String> = self.steps.iter().map(|step| step.name.clone()).collect();
                        return Err(Error::new("", found).advise(known(&earlier)));
                    };
                    if !refers.contains(&step.name) {
                        refers.push(step.name.clone());
                    }
                    *text = format!("{before}{}{after}", step.folder.display());
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The steps that `options` ask for, in order.
    ///
    /// # Errors
    /// A name that no step has.
    pub(super) fn chosen(&self, options: &Options) -> Result<Vec<&Step>> {
        let names: Vec<String> = self.steps.iter().map(|step| step.name.clone()).collect();
        for (flag, name) in
            options.only.iter().map(|name| ("--only", name)).chain(options.from.iter().map(|name| ("--from", name)))
        {
            if !names.contains(name) {
                let found = format!("is no step of {}", self.path.display());
                return Err(Error::new(format!("{flag} {name}"), found).advise(known(&names)));
            }
        }
        let first = options.from.as_ref().and_then(|from| names.iter().position(|name| name == from)).unwrap_or(0);
        let wanted = |step: &&Step| options.only.is_empty() || options.only.contains(&step.name);
        Ok(self.steps[first..].iter().filter(wanted).collect())
    }

    /// Looks whether everything is there that no step of the recipe makes, and whether nothing that is read would be written
    /// over: a step's own folder is for its results.
    ///
    /// # Errors
    /// The first file or folder that is missing or lies in the folder of the step that reads it.
    pub(super) fn check_inputs(&self, steps: &[&Step]) -> Result<()> {
        for step in steps {
            let results = resolved(&step.folder);
            for (key, path) in step.work.reads() {
                if resolved(&path).starts_with(&results) {
                    let found = format!("{} lies in the folder of this step's results", path.display());
                    let advice = "move it elsewhere: results must not replace what they are made from";
                    return Err(self.within(step, Error::new(key, found).advise(advice)));
                }
                let made = steps.iter().any(|step| path.starts_with(&step.folder));
                if !made && !path.exists() {
                    let error = Error::new(key, format!("{}: no such file or folder", path.display()));
                    return Err(self.within(step, error.advise("check the path; it starts at the current folder")));
                }
            }
        }
        Ok(())
    }

    /// Adds file and step to an error.
    pub(super) fn within(&self, step: &Step, error: Error) -> Error {
        error.within(format!("step {}", step.name)).within(self.path.display())
    }
}

/// The keys of a kind of step.
fn keys<T: DeserializeOwned>(table: Table) -> Result<T> {
    table.try_into().map_err(|e: toml::de::Error| Error::new("", e.message()))
}

/// The name of a step, which becomes that of a folder.
fn name_of(step: &Value, number: usize) -> Result<String> {
    let wrong = |found: String| {
        let advice = "give a name of letters, digits, - and _";
        Err(Error::new(format!("step {number}"), found).advise(advice))
    };
    match step.get("name").and_then(Value::as_str) {
        None => wrong("has no name".into()),
        Some(name) if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) => {
            wrong(format!("the name {name:?} is none for a folder"))
        }
        Some(name) => Ok(name.to_string()),
    }
}

fn known(names: &[String]) -> String {
    if names.is_empty() { "it is the first step".into() } else { format!("there are {}", names.join(", ")) }
}

//! The recipe file: `output`, a folder, and a list of `[[step]]`. A step has a `name`, a `kind` and the keys of its kind;
//! `{name}` in any value stands for the folder of an earlier step.

use super::{Options, Work, bundle, calibrate, eval, locate, scenes, svm, train};
use crate::provenance::Provenance;
use crate::settings::{Change, Document, Mistake, Step as At, Way, from_table, read_text};
use crate::weights::resolved;
use crate::{Error, Result};
use std::path::{Path, PathBuf};
use toml::{Table, Value};

/// A validated recipe.
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
    /// The earlier steps to which it refers.
    pub refers: Vec<String>,
    pub work: Box<dyn Work>,
}

impl Step {
    /// The inputs of the step's work, and the kind of work.
    pub fn provenance(&self) -> Result<Provenance> {
        let mut list = self.work.provenance()?;
        list.set("kind", self.kind);
        Ok(list)
    }
}

const KINDS: [&str; 7] = ["train", "bundle", "scenes", "calibrate", "locate", "svm", "eval"];

/// Whether a TOML file is a recipe rather than the file of one training run. A file that cannot be read is not a recipe.
pub fn is_recipe(path: impl AsRef<Path>) -> bool {
    let text = read_text(path).unwrap_or_default();
    text.parse::<Table>().is_ok_and(|table| table.contains_key("step"))
}

/// Maximum number of steps, and of bytes of a value after substitution of folders; more is a mistake.
const MOST_STEPS: usize = 1024;
const LONGEST: usize = 1 << 16;

/// Position of a step in its file.
#[derive(Clone, Copy)]
pub(super) struct KeyPath<'a> {
    document: &'a Document,
    /// Index, counted from 0.
    number: usize,
    name: &'a str,
}

impl KeyPath<'_> {
    fn way(self) -> Way {
        vec![At::Key("step".into()), At::Index(self.number)]
    }

    /// `recipe:line: step name: key`, or the origin of the value at the key.
    pub fn of(self, mistake: &Mistake) -> String {
        self.document.place_in(&self.way(), &format!("step {}", self.name), mistake)
    }

    /// The changes requested by the step's table `set`.
    pub fn changes(self, set: &Table) -> Vec<Change> {
        Change::all_of(set, &|keys| {
            let way = std::iter::once("set".to_string()).chain(keys.iter().cloned()).map(At::Key).collect();
            self.of(&Mistake { way, found: String::new() })
        })
    }

    /// Attributes an error about a modified file to the step, unless it is about one of the `changes`, which carry their own
    /// positions.
    pub fn within(self, changes: &[Change], error: Error) -> Error {
        let text = error.to_string();
        if changes.iter().any(|change| text.starts_with(&change.origin)) {
            return error;
        }
        error.within(self.of(&String::new().into()))
    }

    /// The error for a mistake in the step.
    pub fn error(self, mistake: &Mistake) -> Error {
        Error::new(self.of(mistake), &mistake.found)
    }
}

impl Recipe {
    /// Reads a recipe; each of `changes` overrides a value, such as `output=runs/b` or `lnet-o.epochs=2`: the latter modifies a
    /// step, and a key that a training step does not have is applied to its training file.
    ///
    /// # Errors
    /// An unreadable file, invalid TOML, unknown or missing keys, values out of range (each with its line), names that occur
    /// twice or do not refer to an earlier step, mistakes in a training file.
    pub fn load(path: impl AsRef<Path>, changes: &[String]) -> Result<Self> {
        let path = path.as_ref();
        let mut document = Document::load(path, "give the path of a recipe (TOML)")?;
        let changes = changes.iter().map(|change| Change::parse(change)).collect::<Result<Vec<_>>>()?;
        let (whole, inner): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(|change| change.keys.len() == 1);
        whole.iter().try_for_each(|change| document.change(change))?;
        Self { path: path.to_path_buf(), output: PathBuf::new(), steps: Vec::new() }.read(document, &inner)
    }

    fn read(mut self, mut document: Document, inner: &[Change]) -> Result<Self> {
        let mut table = std::mem::take(&mut document.table);
        let missing =
            |key: &str, advice: &str| Error::new(key, "is missing").advise(advice).within(self.path.display());
        let advice = "write the folder of the results";
        let output = match table.remove("output") {
            Some(Value::String(output)) => PathBuf::from(output),
            Some(other) => return Err(document.error("output", format!("is {}; {advice}", other.type_str()))),
            None => return Err(missing("output", advice)),
        };
        let advice = "write each step under [[step]]";
        let steps = match table.remove("step") {
            Some(Value::Array(steps)) if !steps.is_empty() => steps,
            Some(_) => return Err(document.error("step", format!("is no list of tables; {advice}"))),
            None => return Err(missing("step", advice)),
        };
        if let Some(key) = table.keys().next() {
            let mistake = Mistake { way: vec![At::Key(key.clone())], found: "is no key of a recipe".into() };
            return Err(document.mistake(&mistake).advise("it has output and [[step]]"));
        }
        if steps.len() > MOST_STEPS {
            return Err(document.error("step", format!("{} of them; write at most {MOST_STEPS}", steps.len())));
        }
        let names = steps.iter().enumerate().map(|(number, step)| {
            let name = (number + 1).to_string();
            name_of(step).map_err(|found| KeyPath { document: &document, number, name: &name }.error(&found.into()))
        });
        let names = names.collect::<Result<Vec<String>>>()?;
        if let Some(change) = inner.iter().find(|change| !names.contains(&change.keys[0])) {
            let found = format!("there is no step {}", change.keys[0]);
            return Err(Error::new(&change.origin, found).advise(known(&names)));
        }
        for (number, (step, name)) in steps.into_iter().zip(&names).enumerate() {
            let Value::Table(mut step) = step else { continue };
            let is_train = step.get("kind").and_then(Value::as_str) == Some("train");
            let mut changes: Vec<Change> = inner.iter().filter(|change| change.keys[0] == *name).cloned().collect();
            changes.iter_mut().for_each(|change| drop(change.keys.remove(0)));
            if is_train {
                train::into_file(&mut changes);
            }
            if !changes.is_empty() {
                train::nest(&mut step);
            }
            for change in &changes {
                change.apply(&mut step)?;
                let keys = change.keys.iter().cloned().map(At::Key);
                let table = [At::Key("step".into()), At::Index(number)];
                document.comes_from(table.into_iter().chain(keys).collect(), &change.origin);
            }
            let step = self.step(&output, KeyPath { document: &document, number, name }, step, &names)?;
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

    fn step(&self, output: &Path, place: KeyPath<'_>, mut table: Table, names: &[String]) -> Result<Step> {
        let wrong = |mistake: Mistake| place.error(&mistake);
        if self.steps.iter().any(|step| step.name == place.name) {
            return Err(wrong(Mistake::at("name", "occurs twice; names of steps must differ")));
        }
        table.remove("name");
        let kind = table.remove("kind");
        let kind = KINDS.into_iter().find(|k| kind.as_ref().and_then(Value::as_str) == Some(k)).ok_or_else(|| {
            let found = kind.as_ref().map_or("is missing".into(), |kind| format!("is {kind}"));
            wrong(Mistake::at("kind", format!("{found}; give one of {}", KINDS.join(", "))))
        })?;
        let mut refers = Vec::new();
        for (key, value) in table.iter_mut() {
            self.fill_in(value, names, &mut refers).map_err(|mistake| wrong(mistake.inside(At::Key(key.clone()))))?;
        }
        let folder = output.join(place.name);
        let work: Box<dyn Work> = match kind {
            "train" => Box::new(train::Train::load(from_table(table).map_err(wrong)?, &folder, place)?),
            "bundle" => Box::new(from_table::<bundle::Bundle>(table).map_err(wrong)?.checked(output, place)?),
            "scenes" => Box::new(from_table::<scenes::Scenes>(table).map_err(wrong)?),
            "calibrate" => Box::new(from_table(table).and_then(calibrate::Calibrate::checked).map_err(wrong)?),
            "locate" => Box::new(from_table::<locate::Locate>(table).map_err(wrong)?),
            "svm" => Box::new(from_table::<svm::Svm>(table).map_err(wrong)?),
            _ => Box::new(from_table::<eval::Eval>(table).map_err(wrong)?),
        };
        Ok(Step { name: place.name.to_string(), kind, folder, refers, work })
    }

    /// Replaces `{name}` with the folder of that step, in all strings of a value.
    fn fill_in(&self, value: &mut Value, names: &[String], refers: &mut Vec<String>) -> Result<(), Mistake> {
        match value {
            Value::Array(values) => values.iter_mut().enumerate().try_for_each(|(index, value)| {
                self.fill_in(value, names, refers).map_err(|mistake| mistake.inside(At::Index(index)))
            }),
            Value::Table(table) => table.iter_mut().try_for_each(|(key, value)| {
                self.fill_in(value, names, refers).map_err(|mistake| mistake.inside(At::Key(key.clone())))
            }),
            Value::String(text) => {
                // A folder may have braces in its name, so substituted text is not scanned again.
                let (mut filled, mut rest) = (String::new(), text.as_str());
                while let Some((before, after)) = rest.split_once('{') {
                    let Some((name, after)) = after.split_once('}') else {
                        return Err(format!("{text:?} has a {{ without }}; write {{step}}/file").into());
                    };
                    let Some(step) = self.steps.iter().find(|step| step.name == name) else {
                        let later = names.iter().any(|n| n == name);
                        let found = format!("{{{name}}} is {}", if later { "no earlier step" } else { "no step" });
                        let earlier: Vec<String> = self.steps.iter().map(|step| step.name.clone()).collect();
                        return Err(format!("{found}; {}", known(&earlier)).into());
                    };
                    if !refers.contains(&step.name) {
                        refers.push(step.name.clone());
                    }
                    filled += &format!("{before}{}", step.folder.display());
                    rest = after;
                    if filled.len() > LONGEST {
                        return Err(format!("is longer than {LONGEST} bytes").into());
                    }
                }
                *text = filled + rest;
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// The steps selected by `options`, in order.
    ///
    /// # Errors
    /// A name that no step has.
    pub(super) fn chosen(&self, options: &Options) -> Result<Vec<&Step>> {
        let names: Vec<String> = self.steps.iter().map(|step| step.name.clone()).collect();
        for (flag, name) in
            options.only.iter().map(|name| ("only", name)).chain(options.from.iter().map(|name| ("from", name)))
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

    /// Checks that all inputs not produced by a step of the recipe exist, and that no input would be overwritten: a step's own
    /// folder is reserved for its results.
    ///
    /// # Errors
    /// The first file or folder that is missing or that lies in the folder of the step that reads it.
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

    /// Adds the file and the step to an error.
    pub(super) fn within(&self, step: &Step, error: Error) -> Error {
        error.within(format!("step {}", step.name)).within(self.path.display())
    }
}

/// The name of a step, which is also the name of its folder.
fn name_of(step: &Value) -> Result<String, String> {
    let advice = "give a name of letters, digits, - and _";
    match step.get("name").and_then(Value::as_str) {
        None => Err(format!("has no name; {advice}")),
        Some(name) if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c)) => {
            Err(format!("the name {name:?} is none for a folder; {advice}"))
        }
        Some(name) => Ok(name.to_string()),
    }
}

fn known(names: &[String]) -> String {
    if names.is_empty() { "it is the first step".into() } else { format!("there are {}", names.join(", ")) }
}

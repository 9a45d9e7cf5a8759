//! `kind = "bundle"`: a model bundle from a template of `model.toml` and files from anywhere. Weights are converted.

use super::file::KeyPath;
use super::{Done, Tools, Work};
use crate::error::At;
use crate::face::{self, BUNDLE, Model};
use crate::provenance::Provenance;
use crate::settings::{Change, Document, Mistake, Step, read_text};
use crate::weights::{Dtype, convert, sweep, write_atomic};
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use toml::Table;
use toml_edit::DocumentMut;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Bundle {
    /// Template of `model.toml`.
    template: PathBuf,
    /// Names in the bundle, and the sources of their content.
    files: BTreeMap<String, PathBuf>,
    /// Overrides for values in the template.
    #[serde(default)]
    set: Table,
    /// Float type of the weights in the bundle.
    #[serde(default)]
    dtype: Float,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Float {
    #[default]
    F16,
    Bf16,
    F32,
}

impl From<Float> for Dtype {
    fn from(float: Float) -> Self {
        match float {
            Float::F16 => Self::F16,
            Float::Bf16 => Self::BF16,
            Float::F32 => Self::F32,
        }
    }
}

impl Bundle {
    /// # Errors
    /// A name that does not denote a file directly in the bundle's folder; values that no bundle may have.
    pub fn checked(self, output: &Path, place: KeyPath<'_>) -> Result<Self> {
        let plain = |name: &str| Path::new(name).file_name().is_some_and(|file| file == name) && !name.starts_with('.');
        if let Some(name) =
            self.files.keys().find(|name| !plain(name) || [BUNDLE, super::record::FILE].contains(&name.as_str()))
        {
            let found = "cannot be the name of a file of a bundle; give a plain file name".into();
            let way = vec![Step::Key("files".into()), Step::Key(name.clone())];
            return Err(place.error(&Mistake { way, found }));
        }
        // A template produced by an earlier step may not exist yet, or may be produced again.
        if !self.template.starts_with(output) && self.template.is_file() {
            let changes = place.changes(&self.set);
            let document = Document::load(&self.template, "give a template of model.toml");
            let mut document = document.map_err(|e| place.within(&changes, e))?;
            // Changes that cannot be applied to the template are reported when it is written.
            if changes.iter().all(|change| document.change(change).is_ok()) {
                face::Bundle::of(document).map_err(|e| place.within(&changes, e))?;
            }
        }
        Ok(self)
    }
}

impl Work for Bundle {
    fn reads(&self) -> Vec<(String, PathBuf)> {
        let files = self.files.iter().map(|(name, path)| (format!("files.{name}"), path.clone()));
        std::iter::once(("template".into(), self.template.clone())).chain(files).collect()
    }

    fn provenance(&self) -> Result<Provenance> {
        let mut list = Provenance::default();
        list.file("template", &self.template)?;
        for (name, path) in &self.files {
            list.file(format!("files.{name}"), path)?;
        }
        for Change { keys, value, .. } in Change::all_of(&self.set, &|_| String::new()) {
            list.set(format!("set.{}", keys.join(".")), value.to_string());
        }
        list.set("dtype", Dtype::from(self.dtype).to_string());
        Ok(list)
    }

    fn run(&self, folder: &Path, tools: &mut Tools<'_>) -> Result<Done> {
        let mut files = vec![BUNDLE.to_string()];
        files.extend(self.files.keys().cloned());
        sweep(folder, &files.iter().map(String::as_str).collect::<Vec<_>>());
        copy(&self.template, &folder.join(BUNDLE))?;
        edit(&folder.join(BUNDLE), |document| {
            for Change { keys, value, .. } in Change::all_of(&self.set, &|_| String::new()) {
                let place = || format!("set.{}", keys.join("."));
                let value = value.to_string().parse::<toml_edit::Value>().map_err(|e| Error::new(place(), e))?;
                let mut item = document.as_item_mut();
                for key in &keys {
                    if !item.is_none() && !item.is_table_like() {
                        return Err(Error::new(place(), format!("{key} is in no table of the template")));
                    }
                    item = &mut item[key];
                }
                put(item, value);
            }
            Ok(())
        })?;
        for (name, from) in &self.files {
            let to = folder.join(name);
            if to.extension().is_some_and(|e| e == "safetensors") {
                convert(from, to, self.dtype.into())?;
            } else {
                copy(from, &to)?;
            }
        }
        // Detect incompatible parts now instead of some steps later.
        let model = Model::load(folder, tools.device)?;
        Ok(Done { files, result: format!("{}, {} features", model.bundle.name, model.dims()) })
    }
}

/// Copies the content of a file, atomically.
pub fn copy(from: &Path, to: &Path) -> Result<()> {
    let content = std::fs::read(from).at(from)?;
    write_atomic(to, |file| file.write_all(&content))
}

/// Changes values in a TOML file; the rest is preserved, including comments.
pub fn edit(path: &Path, change: impl FnOnce(&mut DocumentMut) -> Result<()>) -> Result<()> {
    let text = read_text(path)?;
    let mut document: DocumentMut = text.parse().map_err(|e| Error::file(path, e))?;
    change(&mut document)?;
    write_atomic(path, |file| write!(file, "{document}"))
}

/// Replaces a value; the comment after it is preserved.
pub fn put(item: &mut toml_edit::Item, value: impl Into<toml_edit::Value>) {
    let mut value = value.into();
    if let Some(old) = item.as_value() {
        *value.decor_mut() = old.decor().clone();
    }
    *item = toml_edit::Item::Value(value);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_change_and_comments_stay() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(BUNDLE);
        std::fs::write(&path, "# A.\n[locate]\nthreshold = 0.5   # B.\n[locate.lnet_o]\nshift = [0.0, 1.0] # C.\n")
            .unwrap();
        edit(&path, |document| {
            put(&mut document["locate"]["threshold"], 0.25);
            put(&mut document["locate"]["lnet_o"]["shift"], [1.5, -2.0].into_iter().collect::<toml_edit::Array>());
            Ok(())
        })
        .unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, "# A.\n[locate]\nthreshold = 0.25   # B.\n[locate.lnet_o]\nshift = [1.5, -2.0] # C.\n");
    }
}

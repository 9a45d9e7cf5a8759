//! The provenance of a result: settings by value, files and data by a hash of their content. Equal provenance gives equal
//! results, so a run may continue from, and a recipe may keep, results with the same provenance.

use crate::error::At;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;

/// Names and values, sorted by name.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Provenance(BTreeMap<String, Value>);

/// Prefix of a value that is a hash.
const HASH: &str = "sha256:";
/// Number of differences listed in a message.
const SHOWN: usize = 4;

impl Provenance {
    /// Adds one value.
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// Adds every value of a document: values in tables get dotted names, such as `schedule.rate`.
    ///
    /// # Errors
    /// A document that JSON cannot represent.
    pub fn settings(&mut self, document: &impl Serialize) -> Result<()> {
        // Through text, where an f32 keeps its short form.
        let text = serde_json::to_string(document).map_err(|e| Error::new("settings", e))?;
        let document = serde_json::from_str(&text).map_err(|e| Error::new("settings", e))?;
        self.flatten(String::new(), document);
        Ok(())
    }

    fn flatten(&mut self, name: String, value: Value) {
        match value {
            Value::Null => {}
            Value::Object(table) => {
                for (key, value) in table {
                    self.flatten(if name.is_empty() { key } else { format!("{name}.{key}") }, value);
                }
            }
            value => self.set(name, value),
        }
    }

    /// Adds the content of a file.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn file(&mut self, name: impl Into<String>, path: impl AsRef<Path>) -> Result<()> {
        self.set(name, hash_of(path)?);
        Ok(())
    }

    /// One hash of all names and values.
    pub fn hash(&self) -> String {
        let mut fingerprint = Fingerprint::default();
        for (name, value) in &self.0 {
            fingerprint.text(name).text(&value.to_string());
        }
        fingerprint.finish()
    }

    /// Describes what changed from `self` to `now`; empty if nothing did.
    pub fn differences(&self, now: &Self) -> String {
        let names: std::collections::BTreeSet<&String> = self.0.keys().chain(now.0.keys()).collect();
        let changed: Vec<String> = names.into_iter().filter_map(|name| self.difference(now, name)).collect();
        let more = changed.len().saturating_sub(SHOWN);
        let shown = changed[..changed.len() - more].join(", ");
        if more > 0 { format!("{shown} and {more} more") } else { shown }
    }

    fn difference(&self, now: &Self, name: &str) -> Option<String> {
        let is_hash = |value: &Value| value.as_str().is_some_and(|text| text.starts_with(HASH));
        match (self.0.get(name), now.0.get(name)) {
            (before, after) if before == after => None,
            (Some(before), Some(after)) if is_hash(before) && is_hash(after) => Some(format!("{name} has changed")),
            (Some(before), Some(after)) => Some(format!("{name} was {before}, is {after}")),
            (Some(before), _) if is_hash(before) => Some(format!("{name} is gone")),
            (Some(before), _) => Some(format!("{name} was {before}, is not set")),
            (None, Some(after)) if is_hash(after) => Some(format!("{name} is new")),
            (None, after) => Some(format!("{name} was not set, is {}", after.unwrap_or(&Value::Null))),
        }
    }
}

/// A hash over pieces of text; the boundaries between pieces matter.
#[derive(Default)]
pub struct Fingerprint(Sha256);

impl Fingerprint {
    /// Adds a piece.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.0.update((text.len() as u64).to_le_bytes());
        self.0.update(text);
        self
    }

    /// Adds the name and size of a photo: its content is not read, so photos must not be edited in place.
    ///
    /// # Errors
    /// A photo that does not exist.
    pub fn photo(&mut self, path: &Path) -> Result<&mut Self> {
        let size = std::fs::metadata(path).at(path)?.len();
        Ok(self.text(&path.file_name().unwrap_or_default().to_string_lossy()).text(&size.to_string()))
    }

    /// The hash in the form used by [`Provenance`].
    pub fn finish(self) -> String {
        let digits: String = self.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{HASH}{digits}")
    }
}

/// The hash of a file's content.
///
/// # Errors
/// A file that cannot be read.
pub fn hash_of(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let mut fingerprint = Fingerprint::default();
    let mut file = File::open(path).at(path)?;
    std::io::copy(&mut file, &mut fingerprint).at(path)?;
    Ok(fingerprint.finish())
}

impl std::io::Write for Fingerprint {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn of(document: Value) -> Provenance {
        let mut provenance = Provenance::default();
        provenance.settings(&document).unwrap();
        provenance
    }

    #[test]
    fn differences_are_named_and_change_the_hash() {
        let before = of(json!({"a": {"b": 1, "gone": 2}, "file": "sha256:00", "same": [1, 2]}));
        let after = of(json!({"a": {"b": 1.5, "new": true}, "file": "sha256:01", "same": [1, 2], "none": null}));
        assert_eq!(
            before.differences(&after),
            "a.b was 1, is 1.5, a.gone was 2, is not set, a.new was not set, is true, file has changed"
        );
        assert_ne!(before.hash(), after.hash());
        assert_eq!(before.differences(&before.clone()), "");
    }

    #[test]
    fn a_file_s_hash_is_that_of_its_content() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, "abc").unwrap();
        // FIPS 180-2, appendix B.1.
        let expected = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(hash_of(file.path()).unwrap(), expected);
    }

    #[test]
    fn the_border_between_pieces_counts() {
        let hash = |pieces: [&str; 2]| {
            let mut fingerprint = Fingerprint::default();
            fingerprint.text(pieces[0]).text(pieces[1]);
            fingerprint.finish()
        };
        assert_ne!(hash(["ab", "c"]), hash(["a", "bc"]));
    }
}

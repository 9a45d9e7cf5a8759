//! `step.json`: the inputs and outputs of a step.

use super::Done;
use crate::error::At;
use crate::provenance::{Provenance, hash_of};
use crate::weights::write_atomic;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Component, Path};

pub const FILE: &str = "step.json";
/// Incremented when steps start to produce different results from the same provenance, so that they are run again.
const VERSION: u32 = 1;

/// The record of a completed step.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// Hash of the whole provenance.
    hash: String,
    #[serde(rename = "ingredients")]
    pub provenance: Provenance,
    /// Hashes of the files that were written, by name.
    files: BTreeMap<String, String>,
    /// Total size of these files.
    pub bytes: u64,
    /// A short description of the result.
    pub result: String,
}

/// Whether a name denotes a file in or below the step's folder: any other file is neither read nor removed.
fn lies_below(name: &str) -> bool {
    !name.is_empty() && Path::new(name).components().all(|part| matches!(part, Component::Normal(_)))
}

impl Record {
    /// The record in a step's folder, if there is one.
    ///
    /// # Errors
    /// A record that cannot be used, with the reason.
    pub fn read(folder: &Path) -> Result<Option<Self>, String> {
        let text = match fs::read_to_string(folder.join(FILE)) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("{FILE}: {e}")),
        };
        match serde_json::from_str::<Self>(&text) {
            Ok(record) if record.version == VERSION && record.hash == record.provenance.hash() => {
                match record.files.keys().find(|name| !lies_below(name)) {
                    Some(name) => Err(format!("{FILE} names {name:?}, which is no file of the step")),
                    None => Ok(Some(record)),
                }
            }
            Ok(_) => Err(format!("{FILE} is of another version")),
            Err(e) => Err(format!("{FILE}: {e}")),
        }
    }

    /// Writes the record of a completed step.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub(super) fn write(folder: &Path, provenance: Provenance, done: &Done) -> Result<()> {
        let (mut files, mut bytes) = (BTreeMap::new(), 0);
        for name in &done.files {
            let path = folder.join(name);
            bytes += fs::metadata(&path).at(&path)?.len();
            files.insert(name.clone(), hash_of(path)?);
        }
        let (hash, result) = (provenance.hash(), done.result.clone());
        let record = Self { version: VERSION, hash, provenance, files, bytes, result };
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(&record).map_err(|e| Error::file(&path, e))?;
        write_atomic(path, |file| writeln!(file, "{text}"))
    }

    /// A file that is missing or differs from what the step wrote.
    pub fn missing(&self, folder: &Path) -> Option<&str> {
        let changed = |(name, hash): &(&String, &String)| hash_of(folder.join(name)).ok().as_ref() != Some(*hash);
        self.files.iter().find(changed).map(|(name, _)| name.as_str())
    }

    /// Removes files that the step wrote according to its record but no longer writes; files modified since then stay.
    ///
    /// # Errors
    /// A file that cannot be removed.
    pub fn remove_leftovers(&self, folder: &Path, kept: &[String]) -> Result<()> {
        for (name, hash) in self.files.iter().filter(|(name, _)| !kept.contains(name)) {
            let path = folder.join(name);
            if hash_of(&path).ok().as_ref() == Some(hash) {
                fs::remove_file(&path).at(&path)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_names_files_elsewhere_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let provenance = Provenance::default();
        for (name, used) in
            [("net.toml", true), ("images/1.jpg", true), ("../net.toml", false), ("/dev/zero", false), ("", false)]
        {
            let files = BTreeMap::from([(name.to_string(), "sha256:00".to_string())]);
            let (hash, provenance) = (provenance.hash(), provenance.clone());
            let record = Record { version: VERSION, hash, provenance, files, bytes: 0, result: String::new() };
            fs::write(folder.path().join(FILE), serde_json::to_string(&record).unwrap()).unwrap();
            match Record::read(folder.path()) {
                Ok(record) => assert!(used && record.is_some(), "{name}"),
                Err(why) => assert!(!used && why.contains("is no file of the step"), "{name}: {why}"),
            }
        }
    }
}

//! `step.json`: what went into a step and what came out of it.

use super::Done;
use crate::error::At;
use crate::ingredients::{Ingredients, hash_of};
use crate::weights::write_atomic;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

pub const FILE: &str = "step.json";
/// Goes up when steps start to give other results from the same ingredients, so that they are done again.
const VERSION: u32 = 1;

#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    version: u32,
    /// Hash of all ingredients.
    hash: String,
    pub ingredients: Ingredients,
    /// Hashes of the files that were written, by name.
    files: BTreeMap<String, String>,
    /// Their sizes together.
    pub bytes: u64,
    /// How it went, in a few words.
    pub result: String,
}

impl Record {
    /// The record in a step's folder, if there is one.
    ///
    /// # Errors
    /// One that cannot be used, and why.
    pub fn read(folder: &Path) -> Result<Option<Self>, String> {
        let text = match fs::read_to_string(folder.join(FILE)) {
            Ok(text) => text,
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(format!("{FILE}: {e}")),
        };
        match serde_json::from_str::<Self>(&text) {
            Ok(record) if record.version == VERSION && record.hash == record.ingredients.hash() => Ok(Some(record)),
            Ok(_) => Err(format!("{FILE} is of another version")),
            Err(e) => Err(format!("{FILE}: {e}")),
        }
    }

    /// Writes the record of a step that is done.
    ///
    /// # Errors
    /// Files that cannot be read or written.
    pub fn write(folder: &Path, ingredients: Ingredients, done: &Done) -> Result<()> {
        let (mut files, mut bytes) = (BTreeMap::new(), 0);
        for name in &done.files {
            let path = folder.join(name);
            bytes += fs::metadata(&path).at(&path)?.len();
            files.insert(name.clone(), hash_of(path)?);
        }
        let (hash, result) = (ingredients.hash(), done.result.clone());
        let record = Self { version: VERSION, hash, ingredients, files, bytes, result };
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(&record).map_err(|e| Error::file(&path, e))?;
        write_atomic(path, |file| writeln!(file, "{text}"))
    }

    /// A file that is no longer what the step wrote.
    pub fn missing(&self, folder: &Path) -> Option<&str> {
        let changed = |(name, hash): &(&String, &String)| hash_of(folder.join(name)).ok().as_ref() != Some(*hash);
        self.files.iter().find(changed).map(|(name, _)| name.as_str())
    }

    /// Removes what the step wrote when it was recorded, but no longer writes; files that were changed since stay.
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

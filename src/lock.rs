//! One writer per folder: an advisory lock (`flock`) that the operating system releases when the process ends, however it ends.

use crate::error::At;
use crate::weights::make_folder;
use crate::{Error, Result};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

/// Name of the lock file in the folder. It names the holder; only the lock itself counts, not the existence of the file.
const FILE: &str = ".lock";

/// Holds the lock of a folder until it is dropped or the process ends.
#[derive(Debug)]
pub struct Lock {
    path: PathBuf,
    /// Closing it releases the lock.
    _file: File,
    /// Set if the folder was created for this lock; if nothing was written there, it is removed again.
    made: Option<PathBuf>,
}

impl Lock {
    /// Locks a folder, which is created if missing. `work` describes the work, for the message to a second process.
    ///
    /// # Errors
    /// Another process holds the lock: which one, and since when. A folder that cannot be created or written to, or that is on a
    /// file system without locks.
    pub fn take(folder: impl AsRef<Path>, work: &str) -> Result<Self> {
        let folder = folder.as_ref();
        let made = (!folder.exists()).then(|| folder.to_path_buf());
        make_folder(folder)?;
        let path = folder.join(FILE);
        loop {
            let mut file =
                OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).at(&path)?;
            match file.try_lock() {
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Err(held(folder, &mut file)),
                Err(TryLockError::Error(e)) => {
                    return Err(Error::file(&path, format!("cannot be locked: {e}"))
                        .advise("choose a folder on a file system with locks, so that no two programs write there"));
                }
            }
            // The previous holder removed its file between our opening and locking it: lock the current file.
            if !is_at(&file, &path) {
                continue;
            }
            let who = format!("process {}{} since {}: {work}\n", std::process::id(), host(), crate::error::now());
            file.set_len(0).and_then(|()| file.write_all(who.as_bytes())).at(&path)?;
            return Ok(Self { path, _file: file, made });
        }
    }
}

/// Whether a folder contains anything besides a lock.
///
/// # Errors
/// A folder that cannot be read; a missing folder counts as empty.
pub fn holds_files(folder: impl AsRef<Path>) -> Result<bool> {
    let folder = folder.as_ref();
    match fs::read_dir(folder) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(false),
        entries => Ok(entries.at(folder)?.flatten().any(|entry| entry.file_name() != FILE)),
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Removed while still locked, so that a process that opened it in the meantime notices. A leftover file does no harm.
        let _ = fs::remove_file(&self.path);
        if let Some(folder) = &self.made {
            // Fails, as intended, if something was written.
            let _ = fs::remove_dir(folder);
        }
    }
}

/// The error for the second process.
fn held(folder: &Path, file: &mut File) -> Error {
    let mut who = String::new();
    // The holder may not have written its line yet.
    let _ = file.take(4096).read_to_string(&mut who);
    let who = if who.trim().is_empty() { "another process" } else { who.trim() };
    Error::file(folder, format!("in use by {who}")).advise("wait for it, stop it, or choose another folder")
}

/// Whether an open file is still the one at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    let id = |meta: fs::Metadata| (meta.dev(), meta.ino());
    matches!((file.metadata().map(id), fs::metadata(path).map(id)), (Ok(a), Ok(b)) if a == b)
}

/// ` on NAME`, for folders shared between machines.
fn host() -> String {
    fs::read_to_string("/proc/sys/kernel/hostname").map_or(String::new(), |name| format!(" on {}", name.trim()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_learns_who_and_since_when_and_then_takes_over() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("run");
        let first = Lock::take(&folder, "training").unwrap();
        let error = Lock::take(&folder, "training").unwrap_err().to_string();
        let who = format!("in use by process {} on ", std::process::id());
        assert!(error.contains(&who) && error.contains(" UTC: training; wait for it"), "{error}");
        fs::write(folder.join("result"), "").unwrap();
        drop(first);
        let second = Lock::take(&folder, "training").unwrap();
        drop(second);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "the lock's file was left behind");
    }

    #[test]
    fn a_stale_file_is_no_lock_and_an_unused_folder_goes() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join(FILE), "process 1 since 1970\n").unwrap();
        drop(Lock::take(root.path(), "x").unwrap());
        let folder = root.path().join("new");
        drop(Lock::take(&folder, "x").unwrap());
        assert!(!folder.exists() && root.path().exists());
        fs::write(root.path().join("file"), "").unwrap();
        let error = Lock::take(root.path().join("file"), "x").unwrap_err().to_string();
        assert!(error.contains("is not a folder"), "{error}");
    }
}

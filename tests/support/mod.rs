//! A temporary folder in which the built program runs.

#![allow(dead_code, reason = "each test program uses a part")]

pub mod mini;

use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use weft::weights::{Dtype, Named, write};

pub const ROOT: &str = env!("CARGO_MANIFEST_DIR");
/// The shipped photo.
pub const PHOTO: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/photos/eileen-collins.jpg");

pub struct Folder(pub tempfile::TempDir);

pub struct Output {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

/// Standard error without the lines that tell the progress of a run of more than a few seconds, which on a slow machine is any.
pub fn said(stderr: &str) -> String {
    stderr.split_inclusive('\n').filter(|line| !(line.contains("/s, ") && line.ends_with(" left\n"))).collect()
}

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    pub fn tensors(&self, name: &str, tensors: &[(&str, &[usize], &[f32])]) {
        let named = tensors.iter().map(|&(name, shape, data)| Named { name, shape, dtype: Dtype::F32, data });
        write(self.path(name), &named.collect::<Vec<_>>(), &[]).unwrap();
    }

    /// Copies the shipped model to the folder `to`.
    pub fn bundle(&self, to: &str) {
        fs::create_dir_all(self.path(to)).unwrap();
        for entry in fs::read_dir(Path::new(ROOT).join("weights")).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, self.path(to).join(path.file_name().unwrap())).unwrap();
            }
        }
    }

    /// `weft` with the words of `line`, to be run in this folder.
    pub fn command(&self, line: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
        command.args(line.split_whitespace()).current_dir(&self.0);
        command
    }

    /// Names and contents of all files in and below a folder.
    pub fn tree(&self, name: &str) -> BTreeMap<PathBuf, Vec<u8>> {
        fn gather(folder: &Path, root: &Path, tree: &mut BTreeMap<PathBuf, Vec<u8>>) {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    gather(&path, root, tree);
                } else {
                    tree.insert(path.strip_prefix(root).unwrap().to_path_buf(), fs::read(path).unwrap());
                }
            }
        }
        let (root, mut tree) = (self.path(name), BTreeMap::new());
        gather(&root, &root, &mut tree);
        tree
    }

    /// Runs `weft` with the words of `line`.
    pub fn weft(&self, line: &str) -> Output {
        let output = self.command(line).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Output { code: output.status.code(), stdout: text(output.stdout), stderr: said(&text(output.stderr)) }
    }

    /// Standard output of a run that succeeds and prints nothing to standard error.
    #[track_caller]
    pub fn ok(&self, line: &str) -> String {
        let Output { code, stdout, stderr } = self.weft(line);
        assert_eq!((code, stderr.as_str()), (Some(0), ""), "weft {line}");
        stdout
    }

    #[track_caller]
    pub fn json(&self, line: &str) -> Value {
        serde_json::from_str(&self.ok(line)).unwrap_or_else(|e| panic!("weft {line}: {e}"))
    }

    /// The line is incorrect usage: exit code 2, nothing on standard output, and standard error contains all of `parts`.
    #[track_caller]
    pub fn wrong(&self, line: &str, parts: &[&str]) {
        let Output { code, stdout, stderr } = self.weft(line);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "weft {line}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "weft {line}: no {part:?} in {stderr}");
        }
    }

    /// The run fails: exit code 1, nothing on standard output, and one line on standard error that contains all of `parts`.
    #[track_caller]
    pub fn fails(&self, line: &str, parts: &[&str]) {
        let Output { code, stdout, stderr } = self.weft(line);
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "weft {line}: {stderr}");
        assert!(stderr.starts_with("weft: ") && stderr.lines().count() == 1, "weft {line}: {stderr}");
        for part in parts {
            assert!(stderr.contains(part), "weft {line}: no {part:?} in {stderr}");
        }
    }
}

//! Crash-safe replacement of files: write a temporary file in the same folder, flush it to disk, rename it.

use std::fs;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::{Error, Result};

/// Temporary files of `name` are called `.<name>.<six random letters and digits>.tmp`.
const SUFFIX: &str = ".tmp";
const RANDOM: usize = 6;

fn prefix(name: &str) -> String {
    format!(".{name}.")
}

/// Removes temporary files of the files `names` in `folder` left by killed writers. A running writer would lose its temporary
/// file and fail, so only the sole writer of that folder may call this, before it starts. Failures to remove are ignored.
pub fn sweep(folder: impl AsRef<Path>, names: &[&str]) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let file = entry.file_name();
        let is_of = |name: &&str| {
            let random = file.to_str().and_then(|f| f.strip_prefix(&prefix(name))?.strip_suffix(SUFFIX));
            random.is_some_and(|r| r.len() == RANDOM && r.chars().all(|c| c.is_ascii_alphanumeric()))
        };
        if names.iter().any(is_of) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Creates a folder and its parents, unless it exists.
///
/// # Errors
/// Something else has its name; no permission; a full disk.
pub fn make_folder(path: impl AsRef<Path>) -> Result<()> {
    let path = path.as_ref();
    if fs::metadata(path).is_ok_and(|found| !found.is_dir()) {
        return Err(Error::file(path, "exists and is not a folder").advise("give a folder, or a name that is free"));
    }
    fs::create_dir_all(path).map_err(|e| {
        Error::file(path, format!("cannot make this folder: {e}")).advise("check the path and permissions")
    })
}

/// The file that a path refers to once links and `..` are resolved; the file itself need not exist.
pub fn resolved(path: impl AsRef<Path>) -> PathBuf {
    let path = path.as_ref();
    fs::canonicalize(path).unwrap_or_else(|_| {
        let parent = path.parent().map(|p| if p.as_os_str().is_empty() { Path::new(".") } else { p });
        match (parent.and_then(|p| fs::canonicalize(p).ok()), path.file_name()) {
            (Some(parent), Some(name)) => parent.join(name),
            _ => std::path::absolute(path).unwrap_or_else(|_| path.to_path_buf()),
        }
    })
}

/// Refuses to write `output` if it is one of the files `reads`; `flag` names the setting that selected it.
///
/// # Errors
/// It is one of them.
pub fn keep_inputs<P: AsRef<Path>>(
    flag: &str,
    output: impl AsRef<Path>,
    reads: impl IntoIterator<Item = P>,
) -> Result<()> {
    let output = output.as_ref();
    let path = resolved(output);
    match reads.into_iter().any(|read| resolved(read) == path) {
        true => Err(Error::new(flag, format!("{} is read by this very command", output.display()))
            .advise("nothing that is read is written over: choose another file")),
        false => Ok(()),
    }
}

/// Writes `path` through `fill`: an [`AtomicFile`] that is filled in one call.
///
/// # Errors
/// Those of [`AtomicFile`]; those of `fill`.
pub fn write_atomic(path: impl AsRef<Path>, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
    let mut file = AtomicFile::create(path)?;
    file.write(fill)?;
    file.commit()
}

/// A file that is written incrementally and moved into place once it is complete. A failure or a kill at any moment leaves
/// either the old file or the new one, complete.
///
/// The data goes to a temporary file in the same folder; [`AtomicFile::commit`] flushes it to disk, renames it and flushes
/// the folder as well. If dropped before that, the temporary file is removed (a kill may leave one, see [`sweep`]). Links are
/// followed; an existing file keeps its permissions.
pub struct AtomicFile {
    /// The path as given, for messages.
    asked: PathBuf,
    path: PathBuf,
    folder: PathBuf,
    old: Option<fs::Metadata>,
    writer: BufWriter<NamedTempFile>,
}

impl AtomicFile {
    /// # Errors
    /// The folder is missing or not writable, `path` is a folder or a device.
    pub fn create(path: impl AsRef<Path>) -> Result<Self> {
        let asked = path.as_ref();
        let path = fs::canonicalize(asked).unwrap_or_else(|_| asked.to_owned());
        let old = fs::metadata(&path).ok();
        if old.as_ref().is_some_and(|m| !m.is_file()) {
            return Err(Error::file(asked, "exists and is not a regular file").advise("name a file"));
        }
        let Some(name) = path.file_name() else {
            return Err(Error::file(asked, "not a file name").advise("name a file"));
        };
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !folder.is_dir() {
            return Err(Error::file(asked, format!("there is no folder {}", folder.display()))
                .advise(format!("make it first: mkdir -p {}", folder.display())));
        }
        let prefix = prefix(&name.to_string_lossy());
        let mut builder = tempfile::Builder::new();
        builder.prefix(&prefix).suffix(SUFFIX).rand_bytes(RANDOM);
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666)); // the umask applies, as for any new file
        let temporary = builder.tempfile_in(folder).map_err(|e| failed(asked, folder, old.is_some(), &e))?;
        let (asked, folder) = (asked.to_owned(), folder.to_owned());
        Ok(Self { asked, path, folder, old, writer: BufWriter::new(temporary) })
    }

    /// Appends what `fill` writes.
    ///
    /// # Errors
    /// Those of `fill`; a write error.
    pub fn write(&mut self, fill: impl FnOnce(&mut dyn Write) -> io::Result<()>) -> Result<()> {
        fill(&mut self.writer).map_err(|e| failed(&self.asked, &self.folder, self.old.is_some(), &e))
    }

    /// Flushes the file to disk and moves it into place.
    ///
    /// # Errors
    /// A write error.
    pub fn commit(self) -> Result<()> {
        let Self { asked, path, folder, old, writer } = self;
        let fail = |e: io::Error| failed(&asked, &folder, old.is_some(), &e);
        let temporary = writer.into_inner().map_err(|e| fail(e.into_error()))?;
        if let Some(old) = &old {
            temporary.as_file().set_permissions(old.permissions()).map_err(fail)?;
        }
        temporary.as_file().sync_all().map_err(fail)?;
        temporary.persist(&path).map_err(|e| fail(e.error))?;
        #[cfg(unix)] // elsewhere a folder cannot be opened, and the rename itself is durable
        fs::File::open(&folder).and_then(|f| f.sync_all()).map_err(|e| {
            Error::file(&asked, format!("written, but the folder cannot be flushed: {e}")).advise("check the disk")
        })?;
        Ok(())
    }
}

fn failed(asked: &Path, folder: &Path, had_old: bool, error: &io::Error) -> Error {
    let untouched = if had_old { "; the old file is untouched" } else { "" };
    Error::file(asked, format!("cannot write: {error}"))
        .advise(format!("check space and permissions in {}{untouched}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listing(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    #[test]
    fn a_write_that_fails_midway_leaves_the_old_file_and_no_litter() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        write_atomic(&path, |w| w.write_all(b"old")).unwrap();
        let full = |w: &mut dyn Write| {
            w.write_all(&[7; 100_000])?;
            Err(io::ErrorKind::StorageFull.into())
        };
        let e = write_atomic(&path, full).unwrap_err().to_string();
        assert!(e.contains("cannot write") && e.contains("the old file is untouched"), "{e}");
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(listing(folder.path()), ["a"]);
    }

    #[test]
    fn a_file_written_bit_by_bit_appears_when_it_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a");
        fs::write(&path, "old").unwrap();
        let mut file = AtomicFile::create(&path).unwrap();
        for part in ["new, ", "in ", "parts"] {
            file.write(|w| w.write_all(part.as_bytes())).unwrap();
            assert_eq!(fs::read(&path).unwrap(), b"old");
        }
        file.commit().unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"new, in parts");
        let mut given_up = AtomicFile::create(&path).unwrap();
        given_up.write(|w| w.write_all(&[1; 100_000])).unwrap();
        drop(given_up);
        assert_eq!(fs::read(&path).unwrap(), b"new, in parts");
        assert_eq!(listing(folder.path()), ["a"]);
    }

    #[test]
    fn what_a_killed_writer_left_is_swept_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        for name in [".a.Xy12Zw.tmp", ".a.b.Xy12Zw.tmp", ".a.Xy12Zw", ".a.notes.txt.tmp", "a", ".b.Xy12Zw.tmp"] {
            fs::write(folder.path().join(name), "").unwrap();
        }
        sweep(folder.path(), &["a"]);
        assert_eq!(listing(folder.path()), [".a.Xy12Zw", ".a.b.Xy12Zw.tmp", ".a.notes.txt.tmp", ".b.Xy12Zw.tmp", "a"]);
        sweep(folder.path().join("none"), &["a"]);
    }

    #[cfg(unix)]
    #[test]
    fn an_input_is_known_by_any_of_its_names() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a"), "").unwrap();
        fs::create_dir(at("sub")).unwrap();
        std::os::unix::fs::symlink(at("a"), at("link")).unwrap();
        for name in ["a", "./a", "sub/../a", "link"] {
            let e = keep_inputs("--output", at(name), [at("b"), at("a")]).unwrap_err().to_string();
            assert!(e.starts_with("--output: ") && e.contains("is read by this very command"), "{e}");
        }
        keep_inputs("--output", at("new"), [at("b"), at("a")]).unwrap();
        assert!(keep_inputs("--output", at("sub/../new"), [at("new")]).is_err(), "the file need not exist");
    }

    #[test]
    fn a_file_is_no_folder() {
        let folder = tempfile::tempdir().unwrap();
        make_folder(folder.path().join("a/b")).unwrap();
        make_folder(folder.path().join("a/b")).unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        let e = make_folder(folder.path().join("file")).unwrap_err().to_string();
        assert!(e.contains("exists and is not a folder"), "{e}");
        assert!(make_folder(folder.path().join("file/below")).is_err());
    }

    #[test]
    fn a_missing_folder_is_named_with_the_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let e = write_atomic(folder.path().join("no/such/a"), |_| Ok(())).unwrap_err().to_string();
        assert!(e.contains("there is no folder") && e.contains("mkdir -p"), "{e}");
    }

    #[test]
    fn a_folder_or_a_device_is_never_replaced() {
        let folder = tempfile::tempdir().unwrap();
        for path in [folder.path(), Path::new("/dev/null"), Path::new("/")] {
            let e = write_atomic(path, |_| Ok(())).unwrap_err().to_string();
            assert!(e.contains("not a regular file"), "{e}");
        }
    }

    #[cfg(unix)]
    #[test]
    fn links_are_followed_and_permissions_kept() {
        use std::os::unix::fs::{PermissionsExt, symlink};
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("real"), folder.path().join("link"));
        fs::write(&real, "old").unwrap();
        fs::set_permissions(&real, PermissionsExt::from_mode(0o640)).unwrap();
        symlink(&real, &link).unwrap();
        write_atomic(&link, |w| w.write_all(b"new")).unwrap();
        assert_eq!(fs::read(&real).unwrap(), b"new");
        assert_eq!(fs::metadata(&real).unwrap().permissions().mode() & 0o777, 0o640);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    }
}

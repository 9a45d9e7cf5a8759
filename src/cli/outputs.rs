//! Names of the per-photo files that a command writes, chosen for all photos before work starts: no two files share a name, and
//! none is an input of the command.

use super::say;
use crate::weights::{make_folder, resolved};
use crate::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Component, Path, PathBuf};

/// The output files for each photo in one folder: `<stem>.<kind>`, or `<stem>.<more>.<kind>` where a photo has several.
pub struct Outputs {
    folder: PathBuf,
    kind: &'static str,
    /// One per photo, relative to the folder.
    stems: Vec<PathBuf>,
}

/// The base name of a photo's output files, without extension.
type Name = fn(&Input<'_>) -> PathBuf;

/// Naming schemes, from the shortest to one that always works, and the message for each.
const SCHEMES: [(Name, &str); 4] = [
    (|input| input.stem().into(), ""),
    (|input| input.below.join(input.stem()), "they keep their folders"),
    (|input| input.below.join(input.name), "they keep their folders and endings"),
    (|input| input.numbered(), "they are numbered"),
];

/// A photo as seen by the naming schemes.
struct Input<'a> {
    number: usize,
    of: usize,
    /// Its folder relative to the deepest folder that all photos share.
    below: PathBuf,
    name: &'a OsStr,
}

impl Input<'_> {
    fn stem(&self) -> &OsStr {
        Path::new(self.name).file_stem().unwrap_or(self.name)
    }

    fn numbered(&self) -> PathBuf {
        let digits = self.of.to_string().len();
        let mut name = OsString::from(format!("{:0digits$}-", self.number + 1));
        name.push(self.stem());
        name.into()
    }
}

impl Outputs {
    /// Chooses the names of the files with extension `kind` (such as `png`) for `photos` in `folder`, which was given by `flag`;
    /// `reads` lists other files that the command reads. A file has its photo's name with another extension as long as these
    /// names are distinct; if they are not, or one would overwrite an input, one line on standard error says how all of them are
    /// named. Creates the folder.
    ///
    /// # Errors
    /// A folder that cannot be created.
    pub fn plan(flag: &str, folder: &Path, kind: &'static str, photos: &[PathBuf], reads: &[PathBuf]) -> Result<Self> {
        make_folder(folder).map_err(|e| e.within(flag))?;
        // A photo listed twice has one result.
        let mut whole = Resolver::default().all(photos);
        let mut numbers = HashMap::with_capacity(whole.len());
        let of_photo: Vec<usize> = whole
            .iter()
            .map(|path| {
                let next = numbers.len();
                *numbers.entry(path.clone()).or_insert(next)
            })
            .collect();
        let mut seen = HashSet::with_capacity(numbers.len());
        whole.retain(|path| seen.insert(path.clone()));
        let shared = shared_folder(&whole);
        let inputs: Vec<Input<'_>> = whole
            .iter()
            .enumerate()
            .map(|(number, path)| Input {
                number,
                of: whole.len(),
                below: path
                    .parent()
                    .and_then(|p| p.strip_prefix(&shared).ok())
                    .map(Path::to_path_buf)
                    .unwrap_or_default(),
                name: path.file_name().unwrap_or(OsStr::new("photo")),
            })
            .collect();
        let here = resolved(folder);
        let mut taken: Vec<PathBuf> =
            whole.iter().filter_map(|p| p.strip_prefix(&here).ok()).map(PathBuf::from).collect();
        taken.extend(reads.iter().map(resolved).filter_map(|p| Some(p.strip_prefix(&here).ok()?.to_path_buf())));
        taken.retain(|path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case(kind)));
        for (name, said) in SCHEMES {
            let stems: Vec<PathBuf> = inputs.iter().map(name).collect();
            if differ(&stems) && spare(&stems, &taken) {
                if !said.is_empty() {
                    say(format_args!("{flag} {}: names of photos would meet there: {said}", folder.display()));
                }
                let stems = of_photo.into_iter().map(|number| stems[number].clone()).collect();
                return Ok(Self { folder: folder.to_path_buf(), kind, stems });
            }
        }
        Err(Error::new(flag, format!("{} holds files that this command reads", folder.display()))
            .advise("choose another folder"))
    }

    /// The file for a photo, by its index; `more` distinguishes several files of one photo. Creates its folder.
    ///
    /// # Errors
    /// A folder that cannot be created; a symbolic link in place of the file, which could lead anywhere.
    pub fn path(&self, number: usize, more: Option<&str>) -> Result<PathBuf> {
        let mut path = self.folder.join(&self.stems[number]).into_os_string();
        for part in more.into_iter().chain([self.kind]) {
            path.push(".");
            path.push(part);
        }
        let path = PathBuf::from(path);
        if let Some(folder) = path.parent() {
            make_folder(folder)?;
        }
        if fs::symlink_metadata(&path).is_ok_and(|found| found.is_symlink()) {
            return Err(Error::file(&path, "is a link").advise("remove it: results are not written through links"));
        }
        Ok(path)
    }
}

/// Resolves the folders of many files, each folder once.
#[derive(Default)]
struct Resolver(HashMap<PathBuf, PathBuf>);

impl Resolver {
    fn all(mut self, photos: &[PathBuf]) -> Vec<PathBuf> {
        photos.iter().map(|photo| self.resolve(photo)).collect()
    }

    fn resolve(&mut self, photo: &Path) -> PathBuf {
        let (Some(folder), Some(name)) = (photo.parent(), photo.file_name()) else { return resolved(photo) };
        if !self.0.contains_key(folder) {
            let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
            self.0.insert(photo.parent().unwrap_or(folder).to_path_buf(), resolved(folder));
        }
        self.0[folder].join(name)
    }
}

/// The deepest folder that contains all files.
fn shared_folder(files: &[PathBuf]) -> PathBuf {
    let mut folders = files.iter().map(|file| file.parent().unwrap_or(Path::new("")));
    let Some(first) = folders.next() else { return PathBuf::new() };
    let mut shared: Vec<Component<'_>> = first.components().collect();
    for folder in folders {
        let same = shared.iter().zip(folder.components()).take_while(|(a, b)| **a == *b).count();
        shared.truncate(same);
    }
    shared.into_iter().collect()
}

/// A name as compared by a case-insensitive file system.
fn folded(path: &Path) -> String {
    // Lossy: two names that only this conversion makes equal are numbered.
    path.to_string_lossy().to_lowercase()
}

/// The prefixes of a path that end before a dot of its file name: `a/b.c.d` has `a/b` and `a/b.c`.
fn beginnings(path: &str) -> impl Iterator<Item = &str> {
    let name = path.rfind('/').map_or(0, |slash| slash + 1);
    path[name..].match_indices('.').map(move |(dot, _)| &path[..name + dot])
}

/// Whether no `<stem>.<anything>` of one photo can be a file of another.
fn differ(stems: &[PathBuf]) -> bool {
    let mut seen = HashSet::with_capacity(stems.len());
    let all: Vec<String> = stems.iter().map(|stem| folded(stem)).collect();
    all.iter().all(|stem| seen.insert(stem.as_str()))
        && all.iter().all(|stem| beginnings(stem).all(|before| !seen.contains(before)))
}

/// Whether no `<stem>.<anything>` is one of the files `taken`, all of the extension being written.
fn spare(stems: &[PathBuf], taken: &[PathBuf]) -> bool {
    if taken.is_empty() {
        return true;
    }
    let stems: HashSet<String> = stems.iter().map(|stem| folded(stem)).collect();
    taken.iter().all(|file| beginnings(&folded(file)).all(|before| !stems.contains(before)))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names of PNG files for photos in a folder `in`, written to `out` inside it, or to `in` itself.
    fn names(photos: &[&str], inside: bool) -> Vec<String> {
        let root = tempfile::tempdir().unwrap();
        let at = root.path().join("in");
        let photos: Vec<PathBuf> = photos.iter().map(|name| at.join(name)).collect();
        for photo in &photos {
            fs::create_dir_all(photo.parent().unwrap()).unwrap();
            fs::write(photo, "").unwrap();
        }
        let out = if inside { at } else { root.path().join("out") };
        let outputs = Outputs::plan("--annotate", &out, "png", &photos, &[]).unwrap();
        let path = |number| outputs.path(number, None).unwrap().strip_prefix(&out).unwrap().display().to_string();
        (0..photos.len()).map(path).collect()
    }

    #[test]
    fn names_are_as_short_as_they_can_be() {
        assert_eq!(names(&["a.jpg", "b.c.jpg", "d"], false), ["a.png", "b.c.png", "d.png"]);
        assert_eq!(names(&["x/a.jpg", "y/b.jpg"], false), ["a.png", "b.png"]);
        assert_eq!(names(&["x/a.jpg", "y/a.jpg", "b.jpg"], false), ["x/a.png", "y/a.png", "b.png"]);
        assert_eq!(names(&["x/z/a.jpg", "x/y/a.jpg"], false), ["z/a.png", "y/a.png"]);
        assert_eq!(names(&["a.jpg", "a.png"], false), ["a.jpg.png", "a.png.png"]);
        assert_eq!(names(&["a.jpg", "A.jpg"], false), ["1-a.png", "2-A.png"], "not every file system knows case");
        assert_eq!(
            names(&["a.jpg", "x/../a.jpg", "b.jpg"], false),
            ["a.png", "a.png", "b.png"],
            "one photo, one result"
        );
        assert_eq!(names(&["a", "a.jpg"], false), ["1-a.png", "2-a.png"], "a.jpg.png could be of the first");
        assert_eq!(names(&["a.jpg", "a.2.jpg"], false), ["a.jpg.png", "a.2.jpg.png"], "a.2.png could be of the first");
    }

    #[test]
    fn no_name_is_that_of_an_input() {
        assert_eq!(names(&["a.jpg", "b.jpg"], true), ["a.png", "b.png"]);
        assert_eq!(names(&["a.png"], true), ["a.png.png"]);
        assert_eq!(names(&["a.png", "a.png.png"], true), ["1-a.png", "2-a.png.png"]);
        assert_eq!(names(&["a.PNG", "b.jpg"], true), ["a.PNG.png", "b.jpg.png"]);
    }

    #[test]
    fn other_files_that_are_read_are_spared_and_links_refused() {
        let root = tempfile::tempdir().unwrap();
        let (photo, list) = (root.path().join("sub/a.jpg"), root.path().join("a.o.png"));
        fs::create_dir(root.path().join("sub")).unwrap();
        fs::write(&photo, "").unwrap();
        fs::write(&list, "").unwrap();
        let outputs = Outputs::plan("--maps", root.path(), "png", &[photo], &[list]).unwrap();
        let path = outputs.path(0, Some("lnet_o")).unwrap();
        assert!(path.ends_with("a.jpg.lnet_o.png"), "{path:?}");
        std::os::unix::fs::symlink("a.o.png", &path).unwrap();
        assert!(outputs.path(0, Some("lnet_o")).unwrap_err().to_string().contains("is a link"));
    }
}

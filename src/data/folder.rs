//! Photos in folders: by class, one sub-folder per class in the layout of ImageNet, or all photos below a folder.
//!
//! A folder is walked once, to any depth, real folders before links to folders, so that each real folder is read once, at its
//! own path, and a link back to a parent folder does not loop. Only regular files, or links to regular files, are photos:
//! opening a pipe would block forever. Skipped entries are reported, except hidden files and folders.

use std::collections::{HashSet, VecDeque};
use std::ffi::{OsStr, OsString};
use std::fs::{self, FileType};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use super::text::Problems;
use crate::error::At;
use crate::{Error, Result};

/// Files with these extensions, in any case, are photos; others are skipped.
const EXTENSIONS: [&str; 12] = ["jpg", "jpeg", "png", "bmp", "webp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"];
/// Files that macOS adds to archives: resource forks of photos, under the photos' names.
const MAC_SHADOWS: &str = "__MACOSX";
/// Splits of a data set, which are not classes.
const PARTS: [&str; 5] = ["train", "val", "valid", "validation", "test"];

/// The photos below a folder and their classes.
#[derive(Debug, Clone)]
pub struct ImageFolder {
    /// The folder whose sub-folders are the classes: the root given, or `train` in it.
    pub root: PathBuf,
    /// The sub-folders that contain photos at any depth, sorted: classes are numbered identically on every machine.
    pub classes: Vec<String>,
    /// Photos, sorted by class and path, and their class index.
    pub samples: Vec<(PathBuf, usize)>,
    /// Sub-folders without photos, photos outside of classes, and all skipped entries, one each.
    pub problems: Vec<Error>,
}

impl ImageFolder {
    /// Lists the photos in and below the sub-folders of `root`, without decoding them; the class of each is the sub-folder of
    /// `root` that contains it. Hidden files are skipped.
    ///
    /// If `root/train` contains folders, these are the classes, and `root/val` and `root/test` are ignored.
    /// A root with `val` but no `train` is rejected, because `val` would be taken for a class, and so is one whose only
    /// sub-folder contains nothing but folders. Open `root/val` itself for that.
    ///
    /// # Errors
    /// An unreadable root, no classes, no photos. Folders below that cannot be read are problems.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        const LAYOUT: &str = "expected one sub-folder of photos per class";
        let mut root = root.as_ref().to_path_buf();
        let train = root.join("train");
        // A class with that name would contain photos, not folders.
        if train.is_dir() && list(&train)?.iter().any(|entry| entry.path.is_dir()) {
            root = train;
        }

        let mut walk = Walk::through(&root)?;
        // Stable: first those of the root itself, then class by class.
        walk.photos.sort_by_key(|(_, top)| *top);
        let mut folder = Self { root, classes: Vec::new(), samples: Vec::new(), problems: walk.problems };
        let mut photos = walk.photos.into_iter().peekable();
        while let Some((path, _)) = photos.next_if(|(_, top)| top.is_none()) {
            folder.problems.push(Error::file(path, "a photo outside of the class folders").advise(LAYOUT));
        }
        // Whether all photos of all classes are in sub-folders of the class folders.
        let mut nested = true;
        let mut tops = Vec::new();
        for (number, Top { name, path, passed_over }) in walk.tops.into_iter().enumerate() {
            let before = folder.samples.len();
            while let Some((photo, _)) = photos.next_if(|(_, top)| *top == Some(number)) {
                nested &= photo.parent() != Some(&path);
                folder.samples.push((photo, folder.classes.len()));
            }
            if folder.samples.len() > before {
                folder.classes.push(name.to_string_lossy().into_owned());
                tops.push(path);
            } else if !passed_over {
                let found = "a folder without photos is no class";
                folder.problems.push(Error::file(path, found).advise("add some or remove it"));
            }
        }

        let is_part = |name: &String| PARTS.iter().any(|part| part.eq_ignore_ascii_case(name));
        match &tops[..] {
            [] => Err(Error::file(&folder.root, "no photos in its sub-folders").advise(LAYOUT)),
            [first, others @ ..] if nested && (others.is_empty() || folder.classes.iter().all(is_part)) => {
                let found = "its sub-folders hold folders, not photos";
                Err(Error::file(&folder.root, found).advise(format!("is {} meant?", first.display())))
            }
            _ => Ok(folder),
        }
    }
}

/// The photos in a folder and in all folders below it, whatever their classes, sorted. Hidden files are skipped.
///
/// # Errors
/// An unreadable root, no photos; if `problems` is strict, the first entry that must be skipped.
pub fn photos(root: impl AsRef<Path>, problems: &mut Problems) -> Result<Vec<PathBuf>> {
    let walk = Walk::through(root.as_ref())?;
    walk.problems.into_iter().try_for_each(|problem| problems.report(problem))?;
    if walk.photos.is_empty() {
        return Err(Error::file(root, "no photos in it or below it").advise("give a folder of JPEG or PNG files"));
    }
    Ok(walk.photos.into_iter().map(|(path, _)| path).collect())
}

/// True if a path refers, directly or through links, to a regular file: anything else must not be opened as a photo.
pub fn is_regular(path: impl AsRef<Path>) -> bool {
    fs::metadata(path).is_ok_and(|found| found.is_file())
}

/// The [`obstacle`] for a missing file.
pub const MISSING: &str = "missing";

/// Why a path must not be opened as a photo, in a few words; `None` for a regular file.
pub fn obstacle(path: impl AsRef<Path>) -> Option<&'static str> {
    let path = path.as_ref();
    match fs::metadata(path) {
        Ok(found) => (!found.is_file()).then(|| kind(found.file_type())),
        Err(_) if path.is_symlink() => Some("a link to nothing"),
        Err(_) => Some(MISSING),
    }
}

/// The kind of an entry that is not a regular file.
fn kind(of: FileType) -> &'static str {
    match of {
        of if of.is_dir() => "a folder",
        of if of.is_fifo() => "a pipe",
        of if of.is_socket() => "a socket",
        _ => "a device",
    }
}

/// A folder and all folders below it.
#[derive(Default)]
struct Walk {
    /// Sub-folders of the root, sorted.
    tops: Vec<Top>,
    /// Sorted; with the index of the sub-folder of the root that contains each.
    photos: Vec<(PathBuf, Option<usize>)>,
    problems: Vec<Error>,
    /// Device and inode of the folders that have been read.
    seen: HashSet<(u64, u64)>,
    /// Links to folders, not yet followed.
    links: VecDeque<(PathBuf, Option<usize>)>,
}

/// A sub-folder of the root.
struct Top {
    name: OsString,
    path: PathBuf,
    /// The reason why it was not read is in the problems.
    passed_over: bool,
}

impl Walk {
    fn through(root: &Path) -> Result<Self> {
        let mut walk = Self::default();
        let of_root = fs::metadata(root).at(root)?;
        walk.seen.insert((of_root.dev(), of_root.ino()));
        for entry in list(root)? {
            let is_folder = entry.kind.is_some_and(|of| of.is_dir() || (of.is_symlink() && entry.path.is_dir()));
            let top = (is_folder && entry.name != MAC_SHADOWS).then_some(walk.tops.len());
            if top.is_some() {
                let (name, path) = (entry.name.clone(), entry.path.clone());
                walk.tops.push(Top { name, path, passed_over: false });
            }
            walk.descend(entry, top);
        }
        let follows = !walk.links.is_empty();
        // A link may lead to a folder that contains further links.
        while let Some((path, top)) = walk.links.pop_front() {
            if let Some(below) = walk.enter(&path, top) {
                below.into_iter().for_each(|entry| walk.descend(entry, top));
            }
        }
        if follows {
            walk.photos.sort_by(|(a, _), (b, _)| a.cmp(b));
        }
        Ok(walk)
    }

    /// Adds an entry and everything below it, in order. Iterative: folders may be nested to the maximum path length.
    fn descend(&mut self, entry: Entry, top: Option<usize>) {
        let mut levels = vec![vec![entry].into_iter()];
        while let Some(entries) = levels.last_mut() {
            match entries.next() {
                Some(entry) => levels.extend(self.meet(entry, top).map(Vec::into_iter)),
                None => drop(levels.pop()),
            }
        }
    }

    /// Adds one entry; returns its contents if it is a folder.
    fn meet(&mut self, Entry { name, path, kind: of }: Entry, top: Option<usize>) -> Option<Vec<Entry>> {
        const REPLACE: &str = "put a photo there or remove it";
        let photo = is_photo(&path);
        let problem = match of {
            _ if name == MAC_SHADOWS => {
                Error::file(path, "holds no photos, only what a Mac adds to an archive").advise("remove it")
            }
            None => Error::file(path, "the system does not tell what it is").advise("is its drive in order?"),
            Some(of) if of.is_dir() => return self.enter(&path, top),
            Some(of) if of.is_symlink() => match fs::metadata(&path) {
                Ok(found) if found.is_dir() => {
                    self.links.push_back((path, top));
                    return None;
                }
                Ok(found) if found.is_file() && photo => {
                    self.photos.push((path, top));
                    return None;
                }
                Ok(found) if photo => {
                    Error::file(path, format!("a link to {}, no photo", kind(found.file_type()))).advise(REPLACE)
                }
                Ok(_) => return None,
                Err(_) => Error::file(path, "a link to nothing").advise(REPLACE),
            },
            Some(of) if photo && of.is_file() => {
                self.photos.push((path, top));
                return None;
            }
            Some(of) if photo => Error::file(path, format!("{}, no photo", kind(of))).advise(REPLACE),
            Some(_) => return None,
        };
        self.problems.push(problem);
        None
    }

    /// The contents of a folder, if it is readable and has not been read before.
    fn enter(&mut self, folder: &Path, top: Option<usize>) -> Option<Vec<Entry>> {
        let mut read = || {
            let found = fs::metadata(folder).at(folder)?;
            if !self.seen.insert((found.dev(), found.ino())) {
                let found = "leads to a folder that is read already";
                return Err(Error::file(folder, found).advise("each folder counts once: remove the link"));
            }
            list(folder).map_err(|error| error.advise("what lies in it is missing"))
        };
        match read() {
            Ok(entries) => Some(entries),
            Err(error) => {
                self.problems.push(error);
                if let Some(top) = top.map(|top| &mut self.tops[top]).filter(|top| top.path == folder) {
                    top.passed_over = true;
                }
                None
            }
        }
    }
}

/// A folder entry.
struct Entry {
    name: OsString,
    path: PathBuf,
    /// Links are not followed. `None` if the system does not report it.
    kind: Option<FileType>,
}

/// The visible entries of a folder, sorted by name.
fn list(folder: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        let name = entry.file_name();
        if is_visible(&name) {
            entries.push(Entry { name, path: entry.path(), kind: entry.file_type().ok() });
        }
    }
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(entries)
}

/// True unless the name is that of a hidden file.
pub(super) fn is_visible(name: &OsStr) -> bool {
    !name.as_encoded_bytes().starts_with(b".")
}

/// True if the name of a file is that of a photo.
pub(super) fn is_photo(path: &Path) -> bool {
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    EXTENSIONS.iter().any(|e| e.eq_ignore_ascii_case(extension))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(files: &[&str]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for file in files {
            let path = root.path().join(file);
            let is_folder = file.ends_with('/');
            fs::create_dir_all(if is_folder { &path } else { path.parent().unwrap() }).unwrap();
            if !is_folder {
                fs::write(path, "").unwrap();
            }
        }
        root
    }

    #[test]
    fn classes_and_photos_are_sorted_and_other_files_passed_over() {
        let root = tree(&["dog/2.JPEG", "dog/1.png", "cat/a.jpg", "cat/notes.txt", ".git/x.jpg", "README.md"]);
        let folder = ImageFolder::open(root.path()).unwrap();
        assert_eq!(folder.classes, ["cat", "dog"]);
        let samples: Vec<_> = folder.samples.iter().map(|(p, c)| (p.strip_prefix(root.path()).unwrap(), *c)).collect();
        assert_eq!(samples, [("cat/a.jpg".as_ref(), 0), ("dog/1.png".as_ref(), 1), ("dog/2.JPEG".as_ref(), 1)]);
        assert_eq!(folder.problems, []);
    }

    #[test]
    fn train_is_descended_into_unless_it_is_a_class() {
        let root = tree(&["train/dog/1.png", "val/cat/1.png"]);
        assert_eq!(ImageFolder::open(root.path()).unwrap().classes, ["dog"]);
        let root = tree(&["train/1.png", "bus/1.png"]);
        assert_eq!(ImageFolder::open(root.path()).unwrap().classes, ["bus", "train"]);
    }

    /// Paths below a root.
    fn below<'a>(root: &Path, paths: impl IntoIterator<Item = &'a PathBuf>) -> Vec<String> {
        paths.into_iter().map(|path| path.strip_prefix(root).unwrap().display().to_string()).collect()
    }

    /// The class of each photo of a folder, by name.
    fn classes(root: &Path) -> (Vec<(String, String)>, Vec<String>) {
        let folder = ImageFolder::open(root).unwrap();
        let photos = below(root, folder.samples.iter().map(|(path, _)| path));
        let classes = folder.samples.iter().map(|(_, class)| folder.classes[*class].clone());
        (classes.zip(photos).collect(), folder.problems.iter().map(Error::to_string).collect())
    }

    #[test]
    fn photos_are_found_at_any_depth() {
        let deep = format!("{}x.png", "d/".repeat(300));
        let root =
            tree(&["train/dog/2.png", "1.JPG", "train/dog/notes.txt", ".git/x.jpg", "train/cat/", "z.jpg", &deep]);
        let mut problems = Problems::new(true);
        let found = photos(&root, &mut problems).unwrap();
        assert_eq!(below(root.path(), &found), ["1.JPG", &deep, "train/dog/2.png", "z.jpg"]);
        let error = photos(tree(&["a/b.txt"]), &mut problems).unwrap_err().to_string();
        assert!(error.contains("no photos"), "{error}");
    }

    #[test]
    fn nested_photos_belong_to_the_class_that_they_lie_below() {
        let root = tree(&["dog/1.png", "dog/a/b/2.png", "cat/old/3.png", "dog/z/", "dog-like/4.png"]);
        let (found, problems) = classes(root.path());
        let found: Vec<(&str, &str)> = found.iter().map(|(class, path)| (class.as_str(), path.as_str())).collect();
        let expected =
            [("cat", "cat/old/3.png"), ("dog", "dog/1.png"), ("dog", "dog/a/b/2.png"), ("dog-like", "dog-like/4.png")];
        assert_eq!((&found[..], problems), (&expected[..], vec![]));
    }

    #[test]
    fn each_real_folder_is_read_once_where_it_lies() {
        use std::os::unix::fs::symlink;
        let root = tree(&["dog/1.png", "dog/old/2.png", "cat/3.png"]);
        let other = tree(&["x/4.png", "x/back/"]);
        let path = |name: &str| root.path().join(name);
        // To the folder itself, to its parent, to a class, into a class, and twice to a folder elsewhere that links back.
        for (to, from) in [
            (root.path().into(), "cat/up"),
            ("..".into(), "dog/old/up"),
            (path("dog"), "a-dog"),
            (path("dog/old"), "a-part"),
            (other.path().into(), "elsewhere"),
            (other.path().into(), "twice"),
        ] {
            symlink(&to, path(from)).unwrap();
        }
        symlink(root.path(), other.path().join("x/back/root")).unwrap();
        let (found, problems) = classes(root.path());
        let found: Vec<String> = found.into_iter().map(|(class, path)| format!("{class}: {path}")).collect();
        let expected = ["cat: cat/3.png", "dog: dog/1.png", "dog: dog/old/2.png", "elsewhere: elsewhere/x/4.png"];
        assert_eq!(found, expected);
        assert_eq!(problems.len(), 6, "{problems:?}");
        assert!(problems.iter().all(|p| p.contains("leads to a folder that is read already; ")), "{problems:?}");

        let mut problems = Problems::new(false);
        assert_eq!(photos(root.path(), &mut problems).unwrap().len(), 4);
        assert_eq!(problems.list.len(), 6);
        assert!(photos(root.path(), &mut Problems::new(true)).is_err());
    }

    #[test]
    fn what_is_no_regular_file_is_passed_over_and_named() {
        use std::os::unix::fs::symlink;
        let root = tree(&["dog/1.png", "dog/x.jpg/2.png", "real/3.png"]);
        let path = |name: &str| root.path().join(name);
        assert!(std::process::Command::new("mkfifo").arg(path("dog/pipe.jpg")).status().unwrap().success());
        assert!(std::process::Command::new("mkfifo").arg(path("dog/pipe")).status().unwrap().success());
        let socket = std::os::unix::net::UnixListener::bind(path("dog/socket.jpg")).unwrap();
        symlink("/dev/zero", path("dog/zero.jpg")).unwrap();
        symlink("pipe.jpg", path("dog/piped.jpg")).unwrap();
        symlink("gone.jpg", path("dog/nothing.jpg")).unwrap();
        symlink("self.jpg", path("dog/self.jpg")).unwrap();
        symlink("../real/3.png", path("dog/linked.png")).unwrap();
        let (found, problems) = classes(root.path());
        let photos: Vec<&str> = found.iter().map(|(_, path)| path.as_str()).collect();
        assert_eq!(photos, ["dog/1.png", "dog/linked.png", "dog/x.jpg/2.png", "real/3.png"]);
        let expected = [
            ("nothing.jpg", "a link to nothing"),
            ("pipe.jpg", "a pipe, no photo"),
            ("piped.jpg", "a link to a pipe, no photo"),
            ("self.jpg", "a link to nothing"),
            ("socket.jpg", "a socket, no photo"),
            ("zero.jpg", "a link to a device, no photo"),
        ];
        for ((name, what), problem) in expected.iter().zip(&problems) {
            assert!(problem.contains(&format!("dog/{name}: {what}; ")), "{name}: {problem}");
        }
        assert_eq!(problems.len(), expected.len(), "{problems:?}");
        drop(socket);

        for (name, expected) in [
            ("dog/1.png", None),
            ("dog/linked.png", None),
            ("dog", Some("a folder")),
            ("dog/piped.jpg", Some("a pipe")),
            ("dog/zero.jpg", Some("a device")),
            ("dog/nothing.jpg", Some("a link to nothing")),
            ("dog/none.jpg", Some("missing")),
        ] {
            assert_eq!((obstacle(path(name)), is_regular(path(name))), (expected, expected.is_none()), "{name}");
        }
    }

    #[test]
    fn a_mac_s_shadows_are_no_class() {
        let root =
            tree(&["dog/1.png", "cat/1.png", "__MACOSX/dog/._1.png", "__MACOSX/dog/2.png", "dog/__MACOSX/3.png"]);
        let (found, problems) = classes(root.path());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(
            problems.len() == 2 && problems.iter().all(|p| p.contains("__MACOSX: holds no photos")),
            "{problems:?}"
        );
    }

    #[test]
    fn a_folder_that_cannot_be_read_costs_itself_alone() {
        let root = tree(&["cat/1.png"]);
        // A path that is too long for the system, joined from two that are not.
        let half = format!("{}/", "h".repeat(200)).repeat(12);
        let (upper, lower) = (root.path().join("dog").join(&half), root.path().join("low").join(&half));
        fs::create_dir_all(&upper).unwrap();
        fs::create_dir_all(lower).unwrap();
        fs::rename(root.path().join("low"), upper.join("low")).unwrap();
        fs::write(root.path().join("dog/2.png"), "").unwrap();
        let (found, problems) = classes(root.path());
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(problems.len() == 1 && problems[0].contains("too long"), "{problems:?}");
    }

    #[test]
    fn val_alone_and_the_folder_around_a_data_set_are_not_taken_for_classes() {
        for files in
            [&["val/cat/1.png"][..], &["val/cat/1.png", "test/cat/2.png"], &["pets/cat/1.png", "pets/dog/2.png"]]
        {
            let root = tree(files);
            let error = ImageFolder::open(root.path()).unwrap_err().to_string();
            let meant =
                error.ends_with("pets meant?") || error.ends_with("val meant?") || error.ends_with("test meant?");
            assert!(error.contains("hold folders, not photos; is ") && meant, "{error}");
        }
    }

    #[test]
    fn empty_and_missing_folders_are_errors_that_name_them() {
        for files in [&[][..], &["cat/"], &["a.jpg"]] {
            let root = tree(files);
            let error = ImageFolder::open(root.path()).unwrap_err().to_string();
            assert!(error.starts_with(root.path().to_str().unwrap()) && error.contains("no photos"), "{error}");
            let missing = root.path().join("missing");
            let error = ImageFolder::open(&missing).unwrap_err().to_string();
            assert!(error.starts_with(missing.to_str().unwrap()), "{error}");
        }
    }

    #[test]
    fn folders_without_photos_and_stray_photos_are_reported() {
        let root = tree(&["cat/1.png", "dog/", "ape/notes.txt", "stray.png"]);
        let folder = ImageFolder::open(root.path()).unwrap();
        assert_eq!((&folder.classes[..], folder.samples.len()), (&["cat".to_string()][..], 1));
        let problems: Vec<String> = folder.problems.iter().map(|p| p.to_string()).collect();
        assert_eq!(problems.len(), 3, "{problems:?}");
        assert!(problems[0].contains("stray.png: a photo outside"), "{problems:?}");
        assert!(problems[1].contains("ape: a folder without photos is no class"), "{problems:?}");
        assert!(problems[2].contains("dog: a folder without photos is no class"), "{problems:?}");
    }
}

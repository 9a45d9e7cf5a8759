//! Photos by class: one sub-folder per class, as ImageNet is kept.
//!
//! Classes are numbered by their sorted names, so the numbers are the same on every machine.

use std::fs;
use std::path::{Path, PathBuf};

use crate::error::At;
use crate::{Error, Result};

/// Files with these extensions, in any case, are photos; others are passed over.
const EXTENSIONS: [&str; 12] = ["jpg", "jpeg", "png", "bmp", "webp", "gif", "tif", "tiff", "ppm", "pgm", "pbm", "pnm"];

/// The photos below a folder and their classes.
#[derive(Debug, Clone)]
pub struct ImageFolder {
    /// The folder whose sub-folders are the classes: the root given, or `train` in it.
    pub root: PathBuf,
    /// Sorted.
    pub classes: Vec<String>,
    /// Photos, sorted by class and name, and the index of their class.
    pub samples: Vec<(PathBuf, usize)>,
    /// Classes without photos and photos outside of classes.
    pub problems: Vec<Error>,
}

impl ImageFolder {
    /// Lists the photos in the sub-folders of `root`, without decoding them. Hidden files are passed over.
    ///
    /// If `root/train` holds folders, these are the classes, and `root/val` or `root/test` beside it are left alone.
    /// A root with `val` but no `train` is refused: `val` would be taken for a class. Open `root/val` itself for that.
    ///
    /// Errors: unreadable folders, no classes, no photos.
    pub fn open(root: impl AsRef<Path>) -> Result<Self> {
        const LAYOUT: &str = "expected one sub-folder of photos per class";
        let mut root = root.as_ref().to_path_buf();
        let mut entries = list(&root)?;
        let train = root.join("train");
        if train.is_dir() {
            let below = list(&train)?;
            // A class of that name holds photos, not folders.
            if below.iter().any(|(_, path)| path.is_dir()) {
                (root, entries) = (train, below);
            }
        }

        let mut folder = Self { root, classes: Vec::new(), samples: Vec::new(), problems: Vec::new() };
        let mut nested = None;
        for (name, path) in entries {
            if !path.is_dir() {
                if is_photo(&path) {
                    folder.problems.push(Error::file(&path, "a photo outside of the class folders").advise(LAYOUT));
                }
                continue;
            }
            let before = folder.samples.len();
            for (_, path) in list(&path)? {
                if path.is_dir() {
                    nested.get_or_insert(path);
                } else if is_photo(&path) {
                    folder.samples.push((path, folder.classes.len()));
                }
            }
            if folder.samples.len() == before {
                folder.problems.push(Error::file(&path, "a class without photos").advise("add some or remove it"));
            }
            folder.classes.push(name);
        }

        if folder.samples.is_empty() {
            let Some(nested) = nested.as_ref().and_then(|n| n.parent()) else {
                return Err(Error::file(&folder.root, "no photos in its sub-folders").advise(LAYOUT));
            };
            let found = "its sub-folders hold folders, not photos";
            return Err(Error::file(&folder.root, found).advise(format!("is {} meant?", nested.display())));
        }
        Ok(folder)
    }
}

/// How many folders lie inside each other in [`photos`]: a link to a folder above would be followed for ever.
const DEEPEST: usize = 4;

/// The photos in a folder and in the folders below it, whatever their classes, sorted. Hidden files are passed over.
///
/// Errors: unreadable folders, no photos.
pub fn photos(root: impl AsRef<Path>) -> Result<Vec<PathBuf>> {
    fn gather(folder: &Path, depth: usize, photos: &mut Vec<PathBuf>) -> Result<()> {
        for (_, path) in list(folder)? {
            if path.is_dir() {
                if depth < DEEPEST {
                    gather(&path, depth + 1, photos)?;
                }
            } else if is_photo(&path) {
                photos.push(path);
            }
        }
        Ok(())
    }
    let mut found = Vec::new();
    gather(root.as_ref(), 1, &mut found)?;
    if found.is_empty() {
        return Err(Error::file(root, "no photos in it or below it").advise("give a folder of JPEG or PNG files"));
    }
    Ok(found)
}

/// The visible entries of a folder by name, sorted.
fn list(folder: &Path) -> Result<Vec<(String, PathBuf)>> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(folder).at(folder)? {
        let entry = entry.at(folder)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with('.') {
            entries.push((name, entry.path()));
        }
    }
    entries.sort();
    Ok(entries)
}

fn is_photo(path: &Path) -> bool {
    let extension = path.extension().and_then(|e| e.to_str()).unwrap_or_default();
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

    #[test]
    fn photos_are_found_at_any_depth_that_people_use() {
        let root = tree(&["train/dog/2.png", "1.JPG", "train/dog/notes.txt", ".git/x.jpg", "train/cat/"]);
        assert_eq!(photos(&root).unwrap(), [root.path().join("1.JPG"), root.path().join("train/dog/2.png")]);
        assert!(photos(tree(&["a/b.txt"])).unwrap_err().to_string().contains("no photos"));
    }

    #[test]
    fn val_alone_is_not_taken_for_a_class() {
        let root = tree(&["val/cat/1.png"]);
        let error = ImageFolder::open(root.path()).unwrap_err().to_string();
        assert!(error.contains("hold folders, not photos; is ") && error.ends_with("val meant?"), "{error}");
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
    fn empty_classes_and_stray_photos_are_reported() {
        let root = tree(&["cat/1.png", "dog/", "stray.png"]);
        let folder = ImageFolder::open(root.path()).unwrap();
        assert_eq!((folder.classes.len(), folder.samples.len()), (2, 1));
        let problems: Vec<String> = folder.problems.iter().map(|p| p.to_string()).collect();
        assert_eq!(problems.len(), 2, "{problems:?}");
        assert!(problems[0].contains("dog: a class without photos"), "{problems:?}");
        assert!(problems[1].contains("stray.png: a photo outside"), "{problems:?}");
    }
}

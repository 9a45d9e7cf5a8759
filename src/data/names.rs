//! Photos by the names that tables use: as in the annotations, as a path given to a command, or as the end of a path that was
//! written on another machine.

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::path::{Component, Path, PathBuf};

use smallvec::SmallVec;

/// What a name refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NameMatch {
    /// The photo with this index.
    Photo(usize),
    /// None of the photos.
    Unknown,
    /// Not a unique photo; with the reason.
    Unclear(String),
}

/// Photos that are looked up by name.
pub struct Names<'a> {
    paths: Vec<&'a Path>,
    exact: HashMap<&'a str, SmallVec<[usize; 1]>>,
    index: OnceCell<Index>,
}

/// The paths of the photos; computed once a name is not exactly that of a photo.
struct Index {
    /// Path of each photo, with links among its folders resolved.
    resolved: Vec<PathBuf>,
    by_place: HashMap<OsString, SmallVec<[usize; 1]>>,
    /// The components of each path from last to first, see [`from_end`], and the photo's index; sorted.
    ends: Vec<(Vec<u8>, usize)>,
}

impl<'a> Names<'a> {
    /// Photos by their name in the annotations, if it is representable, and their path.
    pub fn new(photos: impl IntoIterator<Item = (Option<&'a str>, &'a Path)>) -> Self {
        let (mut paths, mut exact) = (Vec::new(), HashMap::<&str, SmallVec<[usize; 1]>>::new());
        for (number, (name, path)) in photos.into_iter().enumerate() {
            paths.push(path);
            if let Some(name) = name {
                exact.entry(name).or_default().push(number);
            }
        }
        Self { paths, exact, index: OnceCell::new() }
    }

    /// Finds the photo of each of several distinct names. A name is, in this order: exactly that of the annotations; a path, from
    /// the current folder, that refers to the photo; the end of the photo's path; a path that ends in the annotations' name.
    ///
    /// The last two are likely, not certain: they yield to another name that is certain, and of two names for one photo the one
    /// that has more components in common with its path wins.
    pub fn find(&self, names: &[&str]) -> Vec<NameMatch> {
        let mut found: Vec<Option<NameMatch>> = names.iter().map(|name| self.exactly(name)).collect();
        if found.iter().all(Option::is_some) {
            return found.into_iter().flatten().collect();
        }
        let index = self.index.get_or_init(|| Index::new(&self.paths));
        let mut places = Places::default();
        for (found, name) in found.iter_mut().zip(names).filter(|(found, _)| found.is_none()) {
            let place = places.of(Path::new(name));
            *found = place.and_then(|place| self.one_of(index.by_place.get(place.as_os_str())?));
        }
        let certain: HashSet<usize> = found
            .iter()
            .flatten()
            .filter_map(|f| if let NameMatch::Photo(number) = f { Some(*number) } else { None })
            .collect();

        let mut claims = HashMap::<usize, SmallVec<[usize; 1]>>::new();
        for (at, name) in names.iter().enumerate() {
            if found[at].is_none() {
                let likely = self.by_end(name, index);
                if let NameMatch::Photo(number) = likely {
                    claims.entry(number).or_default().push(at);
                }
                found[at] = Some(likely);
            }
        }
        for (number, claims) in claims {
            if certain.contains(&number) {
                claims.iter().for_each(|&at| found[at] = Some(NameMatch::Unknown));
            } else if claims.len() > 1 {
                let shared = |at: usize| shared_end(Path::new(names[at]), &index.resolved[number]);
                let most = claims.iter().map(|&at| shared(at)).max();
                let best: SmallVec<[usize; 2]> =
                    claims.iter().copied().filter(|&at| Some(shared(at)) == most).collect();
                for &at in &claims {
                    match &best[..] {
                        [one] if *one == at => {}
                        [first, second, ..] if best.contains(&at) => {
                            let other = names[if *first == at { *second } else { *first }];
                            found[at] = Some(NameMatch::Unclear(format!("{other:?} fits the same photo")));
                        }
                        _ => found[at] = Some(NameMatch::Unknown),
                    }
                }
            }
        }
        found.into_iter().map(|found| found.unwrap_or(NameMatch::Unknown)).collect()
    }

    fn exactly(&self, name: &str) -> Option<NameMatch> {
        self.one_of(self.exact.get(name).or_else(|| self.exact.get(plain(name)?.as_str()))?)
    }

    fn by_end(&self, name: &str, index: &Index) -> NameMatch {
        let parts = end(name);
        if parts.is_empty() {
            return NameMatch::Unknown;
        }
        let end = from_end(parts.iter().map(|part| part.as_bytes()));
        let first = index.ends.partition_point(|(path, _)| path[..] < end[..]);
        let same: SmallVec<[usize; 4]> = index.ends[first..]
            .iter()
            .take_while(|(path, _)| path.starts_with(&end))
            .map(|(_, n)| *n)
            .take(MANY)
            .collect();
        if let Some(found) = self.one_of(&same) {
            return found;
        }
        let ends = (1..parts.len()).filter_map(|skip| self.exact.get(parts[skip..].join("/").as_str()));
        ends.map(|numbers| self.one_of(numbers)).next().flatten().unwrap_or(NameMatch::Unknown)
    }

    fn one_of(&self, numbers: &[usize]) -> Option<NameMatch> {
        match numbers {
            [] => None,
            [number] => Some(NameMatch::Photo(*number)),
            [a, b, others @ ..] => {
                let others = if others.is_empty() { "" } else { " and others" };
                let (a, b) = (self.paths[*a].display(), self.paths[*b].display());
                Some(NameMatch::Unclear(format!("it fits several photos: {a}, {b}{others}")))
            }
        }
    }
}

impl Index {
    fn new(paths: &[&Path]) -> Self {
        let mut places = Places::default();
        let resolved: Vec<PathBuf> =
            paths.iter().map(|path| places.of(path).unwrap_or_else(|| path.to_path_buf())).collect();
        let mut by_place = HashMap::<OsString, SmallVec<[usize; 1]>>::new();
        let mut ends = Vec::with_capacity(paths.len());
        for (number, place) in resolved.iter().enumerate() {
            by_place.entry(place.clone().into_os_string()).or_default().push(number);
            ends.push((from_end(place.components().map(|part| part.as_os_str().as_encoded_bytes())), number));
        }
        ends.sort_unstable();
        Self { resolved, by_place, ends }
    }
}

/// Candidate photos that are examined when a name matches several.
const MANY: usize = 3;

/// Components of a path from last to first, each followed by a zero, which no component contains: equal endings become
/// equal prefixes.
fn from_end<'a>(parts: impl DoubleEndedIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for part in parts.rev() {
        bytes.extend_from_slice(part);
        bytes.push(0);
    }
    bytes
}

/// Resolves paths, querying the system once per folder.
#[derive(Default)]
pub struct Places {
    /// Keyed by bytes: hashing a path component by component takes ten times as long. `None`: there is no such folder.
    folders: HashMap<OsString, Option<PathBuf>>,
}

impl Places {
    /// A path whose folder has no links and no dots, unique for each file; `None` if there is no such folder.
    pub fn of(&mut self, path: &Path) -> Option<PathBuf> {
        let (folder, file) = (path.parent()?, path.file_name()?);
        if let Some(known) = self.folders.get(folder.as_os_str()) {
            return Some(known.as_ref()?.join(file));
        }
        let here = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        let real = here.canonicalize().ok();
        let place = real.as_ref().map(|real| real.join(file));
        self.folders.insert(folder.as_os_str().to_os_string(), real);
        place
    }
}

/// A name without `.` and doubled slashes, if it had any.
fn plain(name: &str) -> Option<String> {
    let parts = Path::new(name).components().filter(|part| *part != Component::CurDir);
    let path: PathBuf = parts.collect();
    path.to_str().filter(|path| *path != name).map(str::to_string)
}

/// What follows the last `..` of a path, component by component.
fn end(name: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    for part in Path::new(name).components() {
        match part {
            Component::ParentDir => parts.clear(),
            Component::Normal(part) => parts.extend(part.to_str()),
            _ => {}
        }
    }
    parts
}

/// Number of components that two paths have in common, counted from the end.
fn shared_end(a: &Path, b: &Path) -> usize {
    a.components().rev().zip(b.components().rev()).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;
    use NameMatch::{Photo, Unknown};

    const PHOTOS: [(&str, &str); 5] = [
        ("x/a.jpg", "/data/images/x/a.jpg"),
        ("y/a.jpg", "/data/images/y/a.jpg"),
        ("y/b.jpg", "/data/images/y/b.jpg"),
        ("c.jpg", "/data/images/c.jpg"),
        ("x/c.jpg", "/data/images/x/c.jpg"),
    ];

    fn find(names: &[&str]) -> Vec<NameMatch> {
        Names::new(PHOTOS.map(|(name, path)| (Some(name), Path::new(path)))).find(names)
    }

    #[track_caller]
    fn assert_found(name: &str, expected: NameMatch) {
        assert_eq!(find(&[name]), [expected], "{name}");
    }

    #[test]
    fn a_name_is_that_of_the_annotations_or_one_end_of_a_path() {
        for (name, number) in [
            ("x/a.jpg", 0),
            ("./x//a.jpg", 0),
            ("/data/images/x/a.jpg", 0),
            ("images/y/a.jpg", 1),
            ("../../y/a.jpg", 1),
            ("b.jpg", 2),
            ("c.jpg", 3),
            ("/elsewhere/images/c.jpg", 3),
            ("/elsewhere/x/c.jpg", 4),
            ("../images/x/c.jpg", 4),
        ] {
            assert_found(name, Photo(number));
        }
        for name in ["d.jpg", "z/a.jpg", "/a.jpg/", "", "..", "/", "jpg", "xa.jpg", "../z/b.jpg/q", "b.jpg/.."] {
            assert!(!matches!(find(&[name])[0], Photo(_)), "{name}");
        }
        assert!(
            matches!(&find(&["a.jpg"])[0], NameMatch::Unclear(why) if why.contains("x/a.jpg, /data/images/y/a.jpg"))
        );
        assert_found("images/z/b.jpg", Unknown);
    }

    #[test]
    fn two_names_do_not_meet_in_one_photo() {
        // The likely one yields to the certain one, whichever comes first.
        assert_eq!(find(&["/m/z/c.jpg", "c.jpg"]), [Unknown, Photo(3)]);
        assert_eq!(find(&["/data/images/c.jpg", "/m/z/c.jpg"]), [Photo(3), Unknown]);
        // Of two likely ones, the one with more in common wins; if equal, neither.
        assert_eq!(find(&["/m/z/c.jpg", "/m/images/c.jpg"]), [Unknown, Photo(3)]);
        let found = find(&["/m/u/c.jpg", "/m/v/c.jpg", "y/a.jpg"]);
        assert!(found[..2].iter().all(|f| matches!(f, NameMatch::Unclear(_))) && found[2] == Photo(1), "{found:?}");
    }

    #[test]
    fn paths_are_resolved_from_the_current_folder_and_through_links() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("deep/images");
        std::fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(&folder, root.path().join("link")).unwrap();
        let photos = [folder.join("a.jpg"), folder.join("b.jpg"), PathBuf::from("src/a.jpg")];
        let names = Names::new(photos.iter().map(|path| (None, path.as_path())));
        let through = |path: &str| root.path().join(path).to_str().unwrap().to_string();
        for (name, number) in [
            (through("link/a.jpg"), 0),
            (through("deep/images/../images/b.jpg"), 1),
            ("tests/../src/a.jpg".into(), 2),
            (std::env::current_dir().unwrap().join("src/a.jpg").to_str().unwrap().into(), 2),
        ] {
            assert_eq!(names.find(&[&name]), [Photo(number)], "{name}");
        }
    }

    #[test]
    fn photos_of_one_name_are_not_mistaken_for_each_other() {
        let photos = [(Some("a.jpg"), Path::new("/data/a.jpg")), (Some("a.jpg"), Path::new("/others/a.jpg"))];
        let names = Names::new(photos);
        assert!(matches!(&names.find(&["a.jpg"])[0], NameMatch::Unclear(_)));
        assert_eq!(names.find(&["data/a.jpg", "others/a.jpg"]), [Photo(0), Photo(1)]);
    }
}

//! What is measured: photos and their annotations, whatever kind of data set they come from, and other detectors' windows on
//! them.

use crate::data::celeba::{CelebA, Sample, Split};
use crate::data::names::{NameMatch, Names, Places};
use crate::data::photo::Rect;
use crate::data::{Problems, boxes, folder};
use crate::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};

/// Name of the box file in a folder.
const BOX_FILE: &str = "boxes.csv";

/// One photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub path: PathBuf,
    /// Its name in annotations and detections; for a background its path relative to the folder.
    pub name: String,
    /// The faces, and the line of the box file that holds each; `None` if they are unknown.
    pub boxes: Option<Vec<(Rect, usize)>>,
    /// Present or absent, in the order of [`Photos::attribute_names`]; `None` if unknown.
    pub attributes: Option<Vec<bool>>,
    /// Whether it contains no face.
    pub background: bool,
}

/// The photos of an evaluation.
#[derive(Debug, Clone, Default)]
pub struct Photos {
    /// Photos of the data, followed by those of the background folder.
    pub items: Vec<Item>,
    /// Attributes of the data; empty if it has none.
    pub attribute_names: Vec<String>,
    /// The file and line where the attributes are named.
    pub attribute_place: String,
    pub box_file: Option<PathBuf>,
    /// The split of the data, if it has splits.
    pub split: Option<Split>,
}

/// Reads the photos of `data`: a folder in CelebA's layout (the split `split`, by default the test split), or a box file
/// `image,x,y,width,height` or a folder with one named `boxes.csv`, which has no splits. A photo whose row has no box is a
/// background.
///
/// # Errors
/// Unsupported data, or data without photos; if `problems` is strict, the first malformed line or missing photo.
pub fn open(data: &Path, split: Option<Split>, problems: &mut Problems) -> Result<Photos> {
    if CelebA::is_at(data) {
        return celeba(data, split.unwrap_or(Split::Test), problems);
    }
    let box_file = if data.is_dir() { data.join(BOX_FILE) } else { data.to_path_buf() };
    if !box_file.is_file() {
        let found =
            if data.exists() { format!("neither CelebA's layout nor {BOX_FILE} in it") } else { "is missing".into() };
        return Err(Error::file(data, found).advise("give a folder with Anno and Img, or a CSV file of boxes"));
    }
    if let Some(split) = split {
        return Err(Error::new(format!("split {}", split.name()), "a box file has no parts").advise("leave it out"));
    }
    box_list(&box_file, problems)
}

fn celeba(root: &Path, split: Split, problems: &mut Problems) -> Result<Photos> {
    let mut data = CelebA::open(root, problems.strict())?;
    problems.list.append(&mut data.problems);
    let lines = data.box_lines()?;
    let samples = data.split(split)?;
    if samples.is_empty() {
        let found = format!("no photo in its {} part", split.name());
        return Err(Error::file(root, found).advise("choose another split"));
    }
    let item = |sample: &Sample| Item {
        boxes: sample.bbox.map(|bbox| vec![(bbox, lines.get(&sample.name).copied().unwrap_or(0))]),
        path: sample.path.clone(),
        name: sample.name.clone(),
        attributes: Some(sample.attributes.clone()),
        background: false,
    };
    let items = samples.into_iter().map(item).collect();
    Ok(Photos {
        items,
        attribute_names: data.attribute_names,
        attribute_place: data.attribute_place,
        box_file: data.box_file,
        split: Some(split),
    })
}

/// Photos in order of first occurrence.
fn box_list(file: &Path, problems: &mut Problems) -> Result<Photos> {
    let rows = boxes::rows(file, problems)?;
    let mut seen = HashSet::new();
    let names: Vec<&str> = rows.iter().map(|row| row.image.as_str()).filter(|name| seen.insert(*name)).collect();
    let paths: HashMap<&str, Result<PathBuf, String>> =
        names.iter().copied().zip(boxes::photos(file, &names)).collect();
    let (mut items, mut index, mut absent) = (Vec::<Item>::new(), HashMap::<_, usize>::new(), HashSet::new());
    // Two names may refer to one photo.
    let mut places = Places::default();
    for row in &rows {
        let path = match &paths[row.image.as_str()] {
            Ok(path) => path,
            Err(found) => {
                // Report once for all lines of the image.
                if absent.insert(&row.image) {
                    problems
                        .report(at_line(file, row.line, found.clone()).advise("add the photo or remove the line"))?;
                }
                continue;
            }
        };
        let place = *index.entry(places.of(path)).or_insert(items.len());
        if place == items.len() {
            let (path, name) = (path.clone(), row.image.clone());
            items.push(Item { path, name, boxes: Some(Vec::new()), attributes: None, background: true });
        }
        items[place].background &= row.rect.is_none();
        items[place].boxes.get_or_insert_default().extend(row.rect.map(|rect| (rect, row.line)));
    }
    if items.iter().all(|item| item.background) {
        return Err(Error::file(file, "has a box of no photo").advise("write lines image,x,y,width,height"));
    }
    let images = boxes::photo_folder(file);
    if images.ends_with("images") {
        let unknown: Vec<PathBuf> = folder::photos(&images, problems)?
            .into_iter()
            .filter(|path| !index.contains_key(&places.of(path)))
            .collect();
        if let Some(first) = unknown.first() {
            let others = if unknown.len() > 1 { format!(" and {} others", unknown.len() - 1) } else { String::new() };
            let found = format!("no line for {}{others}", first.display());
            problems.report(Error::file(file, found).advise(
                "they are not measured; give those without a face as backgrounds, or lines with empty fields",
            ))?;
        }
    }
    Ok(Photos { items, box_file: Some(file.to_path_buf()), ..Photos::default() })
}

impl Photos {
    /// Adds the photos in a folder, recursively, as photos without a face.
    ///
    /// # Errors
    /// An unreadable folder, a folder without photos; if `problems` is strict, the first entry that has to be skipped.
    pub fn add_backgrounds(&mut self, root: &Path, problems: &mut Problems) -> Result<()> {
        self.items.extend(folder::photos(root, problems)?.into_iter().map(|path| Item {
            name: path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned(),
            boxes: Some(Vec::new()),
            attributes: None,
            background: true,
            path,
        }));
        Ok(())
    }

    /// The indices of the items to measure if limited to `limit` photos of the data and as many backgrounds, sampled evenly from
    /// each.
    pub fn spread(&self, limit: usize) -> Vec<usize> {
        let (backgrounds, data): (Vec<usize>, Vec<usize>) =
            (0..self.items.len()).partition(|&i| self.items[i].background);
        let some = |all: Vec<usize>| {
            let count = limit.min(all.len());
            (0..count).map(move |i| all[i * all.len() / count])
        };
        some(data).chain(some(backgrounds)).collect()
    }

    /// The file and line of a box.
    pub fn box_place(&self, line: usize) -> String {
        self.box_file.as_ref().map_or(String::new(), |file| format!("{}:{line}", file.display()))
    }
}

fn at_line(file: &Path, line: usize, found: String) -> Error {
    Error::new(format!("{}:{line}", file.display()), found)
}

/// The detections of another detector.
#[derive(Debug, Clone, PartialEq)]
pub struct Detections {
    pub name: String,
    /// For each of [`Photos::items`], windows and scores.
    pub windows: Vec<Vec<(Rect, f32)>>,
}

impl Detections {
    /// Reads `image,x,y,width,height,score`. An image is identified by its name in the annotations or by its path, see
    /// [`Names::find`]. Names of other photos are skipped and reported together. A file that has rows for images without a face
    /// should have a row for every photo; missing ones are reported.
    ///
    /// # Errors
    /// An unreadable file; no known photo; if `problems` is strict, the first malformed line, or unknown photos.
    pub fn read(file: &Path, name: String, photos: &Photos, problems: &mut Problems) -> Result<Self> {
        let rows = boxes::rows(file, problems)?;
        let mut seen = HashSet::new();
        let names: Vec<&str> = rows.iter().map(|row| row.image.as_str()).filter(|name| seen.insert(*name)).collect();
        // A name that is not valid UTF-8 matches no line.
        let known =
            photos.items.iter().map(|item| (item.path.to_str().map(|_| item.name.as_str()), item.path.as_path()));
        let found: HashMap<&str, NameMatch> = names.iter().copied().zip(Names::new(known).find(&names)).collect();

        let mut windows = vec![Vec::new(); photos.items.len()];
        let (mut looked_at, mut unknown, mut unclear) = (vec![false; photos.items.len()], Vec::new(), HashSet::new());
        for row in &rows {
            match &found[row.image.as_str()] {
                NameMatch::Photo(number) => match row.detection() {
                    Ok(window) => {
                        windows[*number].extend(window);
                        looked_at[*number] = true;
                    }
                    Err(error) => problems.report(error.within(format_args!("{}:{}", file.display(), row.line)))?,
                },
                NameMatch::Unclear(why) => {
                    if unclear.insert(&row.image) {
                        let error = at_line(file, row.line, format!("image {:?}: {why}", row.image));
                        problems.report(error.advise("write the path as the annotations do"))?;
                    }
                }
                NameMatch::Unknown => unknown.push(row),
            }
        }
        if !looked_at.contains(&true) {
            return Err(Error::file(file, "has a detection in none of the photos").advise("do the image names fit?"));
        }
        if let Some(first) = unknown.first() {
            let found = format!("image {:?} is none of the photos ({} such lines)", first.image, unknown.len());
            problems.report(at_line(file, first.line, found).advise("is it of another part of the data?"))?;
        }
        let mut without =
            photos.items.iter().zip(&looked_at).filter(|(_, looked_at)| !**looked_at).map(|(item, _)| item);
        if let (true, Some(first)) = (rows.iter().any(|row| row.rect.is_none()), without.next()) {
            let found = format!("no line for {} of {} photos: {:?}", 1 + without.count(), looked_at.len(), first.name);
            problems.report(Error::file(file, found).advise("they count as photos in which nothing was found"))?;
        }
        Ok(Self { name, windows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A folder with empty files: photos are not decoded here.
    fn tree(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, content) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        root
    }

    fn messages(problems: &Problems) -> Vec<String> {
        problems.list.iter().map(Error::to_string).collect()
    }

    #[test]
    fn a_box_file_gives_photos_with_all_their_faces_and_what_is_wrong_by_line() {
        let root = tree(&[
            (
                "boxes.csv",
                "image,x,y,width,height\nb.jpg,1,2,3,4\na.jpg,5,6,7,8\ngone.jpg,1,2,3,4\nb.jpg,9,9,0,9\nb.jpg,2,2,2,2\n",
            ),
            ("images/a.jpg", ""),
            ("images/b.jpg", ""),
            ("images/c.jpg", ""),
        ]);
        for data in [root.path().to_path_buf(), root.path().join("boxes.csv")] {
            let mut problems = Problems::new(false);
            let photos = open(&data, None, &mut problems).unwrap();
            let names: Vec<&str> = photos.items.iter().map(|item| item.name.as_str()).collect();
            assert_eq!(names, ["b.jpg", "a.jpg"]);
            let first = [(Rect::new(1.0, 2.0, 3.0, 4.0), 2), (Rect::new(2.0, 2.0, 2.0, 2.0), 6)];
            assert_eq!(photos.items[0].boxes.as_deref(), Some(&first[..]));
            assert!(photos.box_place(6).ends_with("boxes.csv:6"));
            let found = messages(&problems);
            assert_eq!(found.len(), 3, "{found:?}");
            assert!(found[0].contains("boxes.csv:5: box 0 x 9 at (9, 9) is empty"), "{found:?}");
            assert!(found[1].contains("boxes.csv:4: image \"gone.jpg\" is not in"), "{found:?}");
            assert!(found[2].contains("boxes.csv: no line for ") && found[2].contains("images/c.jpg; "), "{found:?}");
        }
        let error = open(root.path(), None, &mut Problems::new(true)).unwrap_err().to_string();
        assert!(error.contains("boxes.csv:5: "), "{error}");
        let error = open(root.path(), Some(Split::Val), &mut Problems::new(false)).unwrap_err().to_string();
        assert!(error.contains("split val: a box file has no parts"), "{error}");
    }

    #[test]
    fn data_of_no_known_kind_is_named() {
        let root = tree(&[("notes.txt", ""), ("boxes.csv/x", "")]);
        for (data, found) in
            [(root.path().join("nowhere"), "is missing"), (root.path().into(), "neither CelebA's layout")]
        {
            let error = open(&data, None, &mut Problems::new(false)).unwrap_err().to_string();
            assert!(error.starts_with(data.to_str().unwrap()) && error.contains(found), "{error}");
        }
    }

    #[test]
    fn detections_are_known_by_path_or_by_a_file_name_that_is_unique() {
        let root = tree(&[
            ("boxes.csv", "x/a.jpg,1,2,3,4\ny/a.jpg,1,2,3,4\ny/b.jpg,1,2,3,4\n"),
            ("images/x/a.jpg", ""),
            ("images/y/a.jpg", ""),
            ("images/y/b.jpg", ""),
            ("empty/n.png", ""),
            (
                "d.csv",
                "y/a.jpg,1,1,1,1,0.5\nb.jpg,1,1,1,1,0.6\na.jpg,1,1,1,1,0.7\nz.jpg,1,1,1,1,0.8\nn.png,1,1,1,1,1\nb.jpg,1,1,1,1\n",
            ),
            ("none.csv", "z.jpg,1,1,1,1,0.8\n"),
        ]);
        let mut photos = open(root.path(), None, &mut Problems::new(true)).unwrap();
        photos.add_backgrounds(&root.path().join("empty"), &mut Problems::new(true)).unwrap();
        let mut problems = Problems::new(false);
        let read = |file: &str, problems: &mut Problems| {
            Detections::read(&root.path().join(file), "other".into(), &photos, problems)
        };
        let found = read("d.csv", &mut problems).unwrap();
        let scores: Vec<Vec<f32>> = found.windows.iter().map(|w| w.iter().map(|(_, score)| *score).collect()).collect();
        assert_eq!(scores, [vec![], vec![0.5], vec![0.6], vec![1.0]]);
        let found = messages(&problems);
        let parts = [":3: image \"a.jpg\": it fits several photos", ":6: no score", ":4: image \"z.jpg\" is none"];
        for (message, part) in found.iter().zip(parts) {
            assert!(message.contains(part), "{found:?}");
        }
        assert_eq!(found.len(), 3);
        assert!(read("none.csv", &mut Problems::new(false)).unwrap_err().to_string().contains("none of the photos"));
    }

    /// Bytes that are not UTF-8 are shown as U+FFFD, which may be the name of another file.
    #[test]
    #[cfg(unix)]
    fn a_name_that_cannot_be_written_is_not_mistaken_for_another() {
        use std::os::unix::ffi::OsStrExt;
        let root = tree(&[("boxes.csv", "a.jpg,1,2,3,4\n"), ("images/a.jpg", ""), ("empty/n.png", "")]);
        fs::write(root.path().join("empty").join(std::ffi::OsStr::from_bytes(b"bad\xFF.png")), "").unwrap();
        let mut photos = open(root.path(), None, &mut Problems::new(true)).unwrap();
        photos.add_backgrounds(&root.path().join("empty"), &mut Problems::new(true)).unwrap();
        assert_eq!(photos.items.len(), 3);
        let file = root.path().join("d.csv");
        fs::write(&file, "a.jpg,1,2,3,4,0.5\nempty/bad\u{FFFD}.png,1,1,1,1,1\nbad\u{FFFD}.png,1,1,1,1,1\n").unwrap();
        let mut problems = Problems::new(false);
        let found = Detections::read(&file, "other".into(), &photos, &mut problems).unwrap();
        assert_eq!(found.windows.iter().map(Vec::len).collect::<Vec<_>>(), [1, 0, 0]);
        let found = messages(&problems);
        assert!(found.len() == 1 && found[0].contains("none of the photos (2 such lines)"), "{found:?}");
    }

    #[test]
    fn a_photo_without_a_box_is_a_background_and_one_without_a_line_is_said() {
        let root = tree(&[
            ("boxes.csv", "a.jpg,1,2,3,4\nempty.jpg,,,,\n/moved/images/deep/b.jpg,1,2,3,4\n"),
            ("images/a.jpg", ""),
            ("images/empty.jpg", ""),
            ("images/deep/b.jpg", ""),
            ("images/deep/c.jpg", ""),
            ("d.csv", "a.jpg,,,,,\ndeep/b.jpg,1,1,1,1,0.5\n"),
        ]);
        let mut problems = Problems::new(false);
        let photos = open(root.path(), None, &mut problems).unwrap();
        let items: Vec<(&str, bool)> = photos.items.iter().map(|i| (i.name.as_str(), i.background)).collect();
        assert_eq!(items, [("a.jpg", false), ("empty.jpg", true), ("/moved/images/deep/b.jpg", false)]);
        assert_eq!(photos.items[1].boxes, Some(vec![]));
        assert!(photos.items[2].path.ends_with("images/deep/b.jpg"));
        let found = Detections::read(&root.path().join("d.csv"), "d".into(), &photos, &mut problems).unwrap();
        assert_eq!(found.windows.iter().map(Vec::len).collect::<Vec<_>>(), [0, 0, 1]);
        let found = messages(&problems);
        assert!(found[0].contains("boxes.csv: no line for ") && found[0].contains("images/deep/c.jpg; "), "{found:?}");
        assert!(found[1].contains("d.csv: no line for 1 of 3 photos: \"empty.jpg\"") && found.len() == 2, "{found:?}");
    }

    #[test]
    fn a_limit_spreads_over_data_and_backgrounds() {
        let item = |i: usize| Item {
            path: PathBuf::new(),
            name: i.to_string(),
            boxes: None,
            attributes: None,
            background: i >= 10,
        };
        let photos = Photos { items: (0..14).map(item).collect(), ..Photos::default() };
        assert_eq!(photos.spread(2), [0, 5, 10, 12]);
        assert_eq!(photos.spread(usize::MAX), (0..14).collect::<Vec<_>>());
        assert!(photos.spread(0).is_empty());
    }
}

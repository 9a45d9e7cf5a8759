//! What is measured: photos and what is known of each, whichever kind of data they come from, and other detectors' windows
//! on them.

use crate::data::celeba::{CelebA, Split};
use crate::data::photo::Rect;
use crate::data::{Problems, boxes, folder};
use crate::{Error, Result};
use std::collections::HashMap;
use std::path::{Path, PathBuf};

/// Name of a box file in a folder.
const BOX_FILE: &str = "boxes.csv";

/// One photo.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    pub path: PathBuf,
    /// What annotations and detections call it.
    pub name: String,
    /// The faces, and the line of the box file that each stands on; `None` if they are not known.
    pub boxes: Option<Vec<(Rect, usize)>>,
    /// Present or not, in the order of [`Photos::attribute_names`]; `None` if not known.
    pub attributes: Option<Vec<bool>>,
    /// There is no face in it.
    pub background: bool,
}

/// The photos of an evaluation.
#[derive(Debug, Clone, Default)]
pub struct Photos {
    /// Those of the data, then the backgrounds.
    pub items: Vec<Item>,
    /// Of the data; empty if it has none.
    pub attribute_names: Vec<String>,
    /// The file and line that name the attributes.
    pub attribute_place: String,
    pub box_file: Option<PathBuf>,
    /// The part of the data, if it has parts.
    pub split: Option<Split>,
}

/// The photos of `data`: a folder in CelebA's layout (the part `split`, by default the test part), or a box file
/// `image,x,y,width,height` or a folder with one of the name `boxes.csv`, which has no parts.
///
/// # Errors
/// Data of another kind, or without a photo; if `problems` is strict, the first bad line or missing photo.
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
        return Err(Error::new(format!("--split {}", split.name()), "a box file has no parts").advise("leave it out"));
    }
    box_list(&box_file, problems)
}

fn celeba(root: &Path, split: Split, problems: &mut Problems) -> Result<Photos> {
    let data = CelebA::open(root, false)?;
    let lines = data.box_lines()?;
    let samples = data.samples.into_iter().filter(|sample| sample.split == Some(split));
    let items: Vec<Item> = samples
        .map(|sample| Item {
            boxes: sample.bbox.map(|bbox| vec![(bbox, lines.get(&sample.name).copied().unwrap_or(0))]),
            path: sample.path,
            name: sample.name,
            attributes: Some(sample.attributes),
            background: false,
        })
        .collect();
    for problem in data.problems {
        problems.report(problem)?;
    }
    if items.is_empty() {
        let found = format!("no photo in its {} part", split.name());
        return Err(Error::file(root, found).advise("choose another with --split, or add list_eval_partition.txt"));
    }
    Ok(Photos {
        items,
        attribute_names: data.attribute_names,
        attribute_place: data.attribute_place,
        box_file: data.box_file,
        split: Some(split),
    })
}

/// Photos in the order of their first lines.
fn box_list(file: &Path, problems: &mut Problems) -> Result<Photos> {
    let images = boxes::photo_folder(file);
    let (mut items, mut index) = (Vec::<Item>::new(), HashMap::new());
    for row in boxes::rows(file, problems)? {
        let place = *index.entry(row.image.clone()).or_insert(items.len());
        if place == items.len() {
            let path = images.join(&row.image);
            if !path.is_file() {
                index.remove(&row.image);
                let found = format!("image {:?} is not in {}", row.image, images.display());
                problems.report(at_line(file, row.line, found).advise("add the photo or remove the line"))?;
                continue;
            }
            items.push(Item { path, name: row.image, boxes: Some(Vec::new()), attributes: None, background: false });
        }
        items[place].boxes.get_or_insert_default().push((row.rect, row.line));
    }
    if items.is_empty() {
        return Err(Error::file(file, "has a box of no photo").advise("write lines image,x,y,width,height"));
    }
    if images.ends_with("images") {
        let unknown: Vec<PathBuf> = folder::photos(&images)?
            .into_iter()
            .filter(|path| path.strip_prefix(&images).is_ok_and(|p| p.to_str().is_none_or(|p| !index.contains_key(p))))
            .collect();
        if let Some(first) = unknown.first() {
            let others = if unknown.len() > 1 { format!(" and {} others", unknown.len() - 1) } else { String::new() };
            let found = format!("no box for {}{others}", first.display());
            problems.report(
                Error::file(file, found).advise("they are not measured; give --backgrounds those without a face"),
            )?;
        }
    }
    Ok(Photos { items, box_file: Some(file.to_path_buf()), ..Photos::default() })
}

impl Photos {
    /// Adds the photos in and below a folder as photos without a face.
    ///
    /// # Errors
    /// An unreadable folder, no photo in it.
    pub fn add_backgrounds(&mut self, root: &Path) -> Result<()> {
        self.items.extend(folder::photos(root)?.into_iter().map(|path| Item {
            name: path.strip_prefix(root).unwrap_or(&path).to_string_lossy().into_owned(),
            boxes: Some(Vec::new()),
            attributes: None,
            background: true,
            path,
        }));
        Ok(())
    }

    /// Which items to measure if `limit` photos of the data and as many backgrounds are enough: spread evenly over each.
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

/// What another detector found.
#[derive(Debug, Clone, PartialEq)]
pub struct Detections {
    pub name: String,
    /// Of each of [`Photos::items`], windows and scores.
    pub windows: Vec<Vec<(Rect, f32)>>,
}

impl Detections {
    /// Reads `image,x,y,width,height,score`. An image is known by its name in the annotations or, where that is the only
    /// photo of its name, by the file name alone.
    /// Names of other photos are passed over and reported together.
    ///
    /// # Errors
    /// An unreadable file; not one known photo; if `problems` is strict, the first bad line, or unknown photos.
    pub fn read(file: &Path, name: String, photos: &Photos, problems: &mut Problems) -> Result<Self> {
        let mut index: HashMap<&str, Option<usize>> = HashMap::new();
        for (i, item) in photos.items.iter().enumerate() {
            let file_name = item.name.rsplit('/').next().unwrap_or_default();
            index.entry(file_name).and_modify(|known| *known = None).or_insert(Some(i));
        }
        index.extend(photos.items.iter().enumerate().map(|(i, item)| (item.name.as_str(), Some(i))));
        let mut windows = vec![Vec::new(); photos.items.len()];
        let (mut known, mut unknown) = (0, Vec::new());
        for row in boxes::rows(file, problems)? {
            let Some(score) = row.score else {
                problems.report(
                    at_line(file, row.line, "no score".into()).advise("detections need one, in the sixth column"),
                )?;
                continue;
            };
            let place = index.get(row.image.as_str()).or_else(|| index.get(row.image.rsplit('/').next()?));
            match place {
                Some(Some(i)) => {
                    windows[*i].push((row.rect, score));
                    known += 1;
                }
                Some(None) => {
                    let found = format!("several photos are named {:?}", row.image);
                    problems.report(at_line(file, row.line, found).advise("write the path as the annotations do"))?;
                }
                None => unknown.push(row),
            }
        }
        if known == 0 {
            return Err(Error::file(file, "has a detection in none of the photos").advise("do the image names fit?"));
        }
        if let Some(first) = unknown.first() {
            let found = format!("image {:?} is none of the photos ({} such lines)", first.image, unknown.len());
            problems.report(at_line(file, first.line, found).advise("is it of another part of the data?"))?;
        }
        Ok(Self { name, windows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// A folder with files of nothing: photos are not decoded here.
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
            assert!(found[2].contains("boxes.csv: no box for ") && found[2].contains("images/c.jpg; "), "{found:?}");
        }
        let error = open(root.path(), None, &mut Problems::new(true)).unwrap_err().to_string();
        assert!(error.contains("boxes.csv:5: "), "{error}");
        let error = open(root.path(), Some(Split::Val), &mut Problems::new(false)).unwrap_err().to_string();
        assert!(error.contains("--split val: a box file has no parts"), "{error}");
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
        photos.add_backgrounds(&root.path().join("empty")).unwrap();
        let mut problems = Problems::new(false);
        let read = |file: &str, problems: &mut Problems| {
            Detections::read(&root.path().join(file), "other".into(), &photos, problems)
        };
        let found = read("d.csv", &mut problems).unwrap();
        let scores: Vec<Vec<f32>> = found.windows.iter().map(|w| w.iter().map(|(_, score)| *score).collect()).collect();
        assert_eq!(scores, [vec![], vec![0.5], vec![0.6], vec![1.0]]);
        let found = messages(&problems);
        for (message, part) in found.iter().zip([":3: several photos", ":6: no score", ":4: image \"z.jpg\" is none"]) {
            assert!(message.contains(part), "{found:?}");
        }
        assert_eq!(found.len(), 3);
        assert!(read("none.csv", &mut Problems::new(false)).unwrap_err().to_string().contains("none of the photos"));
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

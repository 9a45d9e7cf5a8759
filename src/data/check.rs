//! The contents of a data folder and its problems: the answer of `weft data check`.

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};

use rayon::prelude::*;
use serde::Serialize;

use super::boxes;
use super::celeba::{CelebA, IDENTITY_FILE, PARTITION_FILE, Split};
use super::folder::ImageFolder;
use super::photo::{Photo, Rect};
use super::text::Problems;
use crate::text_table::{TextTable, number, text};
use crate::{Error, Result};

/// Number of problems that are listed; the rest is counted.
const SHOWN_PROBLEMS: usize = 20;
const BOX_FILE: &str = "boxes.csv";

/// Summary of a data folder.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct CheckReport {
    pub root: PathBuf,
    /// `celeba`, `image folder` or `boxes`.
    pub layout: &'static str,
    pub images: usize,
    /// CelebA: images per split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub splits: Option<Splits>,
    /// CelebA: number of identities.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub identities: Option<usize>,
    /// Face boxes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boxes: Option<usize>,
    /// Image folder: classes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub classes: Option<usize>,
    /// CelebA: in list order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub attributes: Vec<AttributeRate>,
    /// CelebA: missing files, and what cannot be done without them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// Number of images that could not be decoded, if that was tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unreadable: Option<usize>,
    /// Number of problems, including unreadable images and skipped entries.
    pub problem_count: usize,
    /// The first of them.
    pub problems: Vec<String>,
}

/// Number of images of each split; `none` counts those without a partition.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Splits {
    pub train: usize,
    pub val: usize,
    pub test: usize,
    pub none: usize,
}

/// An attribute and the fraction of images that have it, 0..=1.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttributeRate {
    pub name: String,
    pub positive_rate: f64,
}

/// Receives the number of decoded images and the total, from any thread.
pub type Decoded<'a> = &'a (dyn Fn(usize, usize) + Sync);

/// Detects the kind of data at `root` (CelebA, a box file or a folder with `boxes.csv`, an image folder), reads all
/// annotations, and with `decode` also every image, on all cores. The first problem is an error if `strict`.
pub fn check(root: impl AsRef<Path>, strict: bool, decode: Option<Decoded<'_>>) -> Result<CheckReport> {
    let root = root.as_ref();
    let mut report = CheckReport { root: root.to_path_buf(), ..CheckReport::default() };
    let mut problems = Problems::new(strict);
    // Each image and the boxes that should intersect it.
    let images: Vec<(PathBuf, Vec<Rect>)>;

    let box_file = if root.is_file() { root.to_path_buf() } else { root.join(BOX_FILE) };
    if CelebA::is_at(root) {
        let data = CelebA::open(root, strict)?;
        report.layout = "celeba";
        let count = |split| data.samples.iter().filter(|s| s.split == split).count();
        report.splits = Some(Splits {
            train: count(Some(Split::Train)),
            val: count(Some(Split::Val)),
            test: count(Some(Split::Test)),
            none: count(None),
        });
        let identities: HashSet<u32> = data.samples.iter().filter_map(|s| s.identity).collect();
        report.identities = Some(identities.len());
        report.boxes = Some(data.samples.iter().filter(|s| s.bbox.is_some()).count());
        let rate = |(a, name): (usize, &String)| {
            let positive = data.samples.iter().filter(|s| s.attributes[a]).count();
            AttributeRate { name: name.clone(), positive_rate: positive as f64 / data.samples.len() as f64 }
        };
        report.attributes = data.attribute_names.iter().enumerate().map(rate).collect();
        for (file, name, needed) in [
            (&data.identity_file, IDENTITY_FILE, "to train on identities"),
            (&data.partition_file, PARTITION_FILE, "to train on and measure parts of the data"),
        ] {
            if file.is_none() {
                report.missing.push(format!("{name}, needed {needed}"));
            }
        }
        problems.list = data.problems;
        images = data.samples.into_iter().map(|s| (s.path, s.bbox.into_iter().collect())).collect();
    } else if box_file.is_file() {
        let by_image = boxes::read(&box_file)?;
        report.layout = "boxes";
        report.boxes = Some(by_image.values().map(Vec::len).sum());
        let names: Vec<&str> = by_image.keys().map(String::as_str).collect();
        let paths = boxes::photos(&box_file, &names);
        let mut present = Vec::with_capacity(by_image.len());
        for (path, rects) in paths.into_iter().zip(by_image.into_values()) {
            match path {
                Ok(path) => present.push((path, rects)),
                Err(found) => {
                    problems.report(Error::file(&box_file, found).advise("add the photo or remove its lines"))?;
                }
            }
        }
        images = present;
    } else {
        let folder = ImageFolder::open(root)?;
        report.layout = "image folder";
        report.classes = Some(folder.classes.len());
        for problem in folder.problems {
            problems.report(problem)?;
        }
        images = folder.samples.into_iter().map(|(path, _)| (path, Vec::new())).collect();
    }

    report.images = images.len();
    if let Some(progress) = decode {
        let done = AtomicUsize::new(0);
        let look = |(path, rects): &(PathBuf, Vec<Rect>)| {
            let found = look_at(path, rects);
            progress(1 + done.fetch_add(1, Ordering::Relaxed), images.len());
            found
        };
        let found: Vec<Option<(bool, Error)>> = images.par_iter().map(look).collect();
        report.unreadable = Some(found.iter().flatten().filter(|(readable, _)| !readable).count());
        for (_, error) in found.into_iter().flatten() {
            problems.report(error)?;
        }
    }
    report.problem_count = problems.list.len();
    report.problems = problems.list.iter().take(SHOWN_PROBLEMS).map(Error::to_string).collect();
    Ok(report)
}

/// The problem with an image, and whether it is readable at all.
fn look_at(path: &Path, rects: &[Rect]) -> Option<(bool, Error)> {
    let photo = match Photo::open(path) {
        Ok(photo) => photo,
        Err(error) => return Some((false, error)),
    };
    let outside = rects.iter().find(|r| r.clipped(photo.width, photo.height).is_none())?;
    let Rect { x, y, width, height } = outside;
    let size = format!("{} x {}", photo.width, photo.height);
    let found = format!("box {width} x {height} at ({x}, {y}) lies outside of its {size} pixels");
    Some((true, Error::file(path, found).advise("do the boxes belong to these photos?")))
}

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: {}, {} images", self.root.display(), self.layout, self.images)?;
        let counts = [("identities", self.identities), ("classes", self.classes), ("boxes", self.boxes)];
        let splits = self.splits.map(|Splits { train, val, test, none }| {
            [("in train", train), ("in val", val), ("in test", test), ("in no split", none)]
        });
        let counts = counts.into_iter().filter_map(|(name, count)| Some((name, count?)));
        let counts = counts.chain(splits.into_iter().flatten()).map(|(name, count)| (name, count.to_string()));
        let rates = self.attributes.iter();
        let rates = rates.map(|rate| (rate.name.as_str(), format!("{:.1} %", 100.0 * rate.positive_rate)));
        let unreadable = self.unreadable.map(|count| ("unreadable images", count.to_string()));
        let problems = ("problems", self.problem_count.to_string());
        let rows = counts.chain(rates).chain(unreadable).chain([problems]);
        let rows = rows.map(|(name, value)| vec![format!("  {name}"), value]);
        for missing in &self.missing {
            writeln!(f, "  missing: {missing}")?;
        }
        writeln!(f, "{}", TextTable::new([text(""), number("")]).rows(rows))?;
        for problem in &self.problems {
            writeln!(f, "    {problem}")?;
        }
        let hidden = self.problem_count - self.problems.len();
        if hidden > 0 {
            writeln!(f, "    and {hidden} more")?;
        }
        Ok(())
    }
}

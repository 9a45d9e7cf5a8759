//! CelebA: forty attributes, an identity, a face box and a split for each photo (Liu, Luo, Wang, Tang, ICCV 2015).
//!
//! The attribute list determines which photos exist; everything else is looked up by the photo's name and may be missing.
//! Two layouts are read, with and without the header lines:
//!
//! ```text
//! official                          flat (root, or root/celeba as torchvision makes it)
//! Anno/list_attr_celeba.txt         list_attr_celeba.txt
//! Anno/identity_CelebA.txt          identity_CelebA.txt
//! Anno/list_bbox_celeba.txt         list_bbox_celeba.txt
//! Eval/list_eval_partition.txt      list_eval_partition.txt
//! Img/img_celeba/                   img_celeba/
//! Img/img_align_celeba/             img_align_celeba/
//! ```
//!
//! Any of the lists may be a CSV file instead (`list_attr_celeba.csv`, as on Kaggle), where absent is 0 or -1, and the
//! photos may be in a nested folder of the same name (`img_align_celeba/img_align_celeba/`).

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::ffi::{OsStr, OsString};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::folder;
use super::photo::Rect;
use super::table::{self, Table};
use super::text::{Problems, Text, check_box, grouped, parse_box, quoted};
use crate::error::At;
use crate::weights::write_atomic;
use crate::{Error, Result};

/// The attributes of the original list, for files without a header.
pub const ATTRIBUTES: [&str; 40] = [
    "5_o_Clock_Shadow",
    "Arched_Eyebrows",
    "Attractive",
    "Bags_Under_Eyes",
    "Bald",
    "Bangs",
    "Big_Lips",
    "Big_Nose",
    "Black_Hair",
    "Blond_Hair",
    "Blurry",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Chubby",
    "Double_Chin",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Heavy_Makeup",
    "High_Cheekbones",
    "Male",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "No_Beard",
    "Oval_Face",
    "Pale_Skin",
    "Pointy_Nose",
    "Receding_Hairline",
    "Rosy_Cheeks",
    "Sideburns",
    "Smiling",
    "Straight_Hair",
    "Wavy_Hair",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necklace",
    "Wearing_Necktie",
    "Young",
];

pub(super) const ATTRIBUTE_FILE: &str = "list_attr_celeba.txt";
/// The identity in a photo.
pub const IDENTITY_FILE: &str = "identity_CelebA.txt";
const BOX_FILE: &str = "list_bbox_celeba.txt";
/// The split that a photo belongs to.
pub const PARTITION_FILE: &str = "list_eval_partition.txt";
const BOX_HEADER: &str = "image_id x_1 y_1 width height";
/// Original photos, which the boxes refer to; preferred if both are present.
const WILD: &str = "img_celeba";
/// Photos cropped around the face, for which the boxes are not valid.
const ALIGNED: &str = "img_align_celeba";

/// The splits, with their numbers in the partition file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum Split {
    Train = 0,
    Val = 1,
    Test = 2,
}

impl Split {
    /// In the order of their numbers.
    pub const ALL: [Self; 3] = [Self::Train, Self::Val, Self::Test];

    /// `train`, `val` or `test`.
    pub fn name(self) -> &'static str {
        ["train", "val", "test"][self as usize]
    }
}

/// One photo and its annotations.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Path of the photo.
    pub path: PathBuf,
    /// Its file name, which the annotations use.
    pub name: String,
    /// Presence of each attribute, in the order of [`CelebA::attribute_names`].
    pub attributes: Vec<bool>,
    pub identity: Option<u32>,
    /// The face, in pixels of the photo. `None` for aligned photos, for which CelebA's boxes are not valid.
    pub bbox: Option<Rect>,
    /// `None` if there is no partition: such a sample belongs to no split.
    pub split: Option<Split>,
}

/// The photos and annotations of a folder in CelebA's layout.
#[derive(Debug, Clone)]
pub struct CelebA {
    pub root: PathBuf,
    pub attribute_names: Vec<String>,
    /// The file and line that name the attributes.
    pub attribute_place: String,
    /// The file of face boxes, where the photos have any.
    pub box_file: Option<PathBuf>,
    pub identity_file: Option<PathBuf>,
    pub partition_file: Option<PathBuf>,
    /// In the order of the attribute list.
    pub samples: Vec<Sample>,
    /// Problems, in the order found, and notices; if read strictly, only the latter.
    pub problems: Vec<Error>,
    /// Number of samples that the partition file lists, with or without a valid split.
    partitioned: usize,
}

impl CelebA {
    /// Reads the annotations below `root` and finds the photos, without decoding them.
    ///
    /// Errors: no attribute list, no photos, unreadable files, no sample left. An invalid line, a missing photo or a file that
    /// lists only some of the photos (of identities or splits) is an error if `strict`; otherwise it is added to `problems`, and
    /// the sample is skipped (invalid line of the attribute list) or lacks the annotation (invalid line of another file).
    pub fn open(root: impl AsRef<Path>, strict: bool) -> Result<Self> {
        let root = root.as_ref();
        let layout = Layout::find(root)?;
        let mut problems = Problems::new(strict);
        let mut list = List::read(&layout, &mut problems)?;

        if let Some(path) = &layout.identity {
            let covered = list.annotate(path, 1, &mut problems, |sample, fields| {
                let found = || format!("identity is {}, not a whole number", quoted(fields[0]));
                sample.identity = Some(fields[0].parse().map_err(|_| found())?);
                Ok(())
            })?;
            partial(path, covered, list.samples.len()).map_or(Ok(()), |found| problems.report(found))?;
        }
        if let Some(path) = &layout.boxes {
            let covered = list.annotate(path, 4, &mut problems, |sample, fields| {
                sample.bbox = Some(parse_box(fields)?);
                Ok(())
            })?;
            // Boxes of some photos suffice for measuring.
            partial(path, covered, list.samples.len()).into_iter().for_each(|found| problems.notice(found));
        }
        let mut partitioned = 0;
        if let Some(path) = &layout.partition {
            partitioned = list.annotate(path, 1, &mut problems, |sample, fields| {
                let found = || format!("split is {}, not 0, 1 or 2", quoted(fields[0]));
                let number: usize = fields[0].parse().map_err(|_| found())?;
                sample.split = Some(*Split::ALL.get(number).ok_or_else(found)?);
                Ok(())
            })?;
            partial(path, partitioned, list.samples.len()).map_or(Ok(()), |found| problems.report(found))?;
        }
        layout.tell(&mut problems)?;
        Ok(Self {
            root: root.to_path_buf(),
            attribute_names: list.attribute_names,
            attribute_place: list.attribute_place,
            box_file: layout.boxes,
            identity_file: layout.identity,
            partition_file: layout.partition,
            samples: list.samples,
            problems: problems.list,
            partitioned,
        })
    }

    /// True if `root` contains an attribute list in one of the locations that [`CelebA::open`] checks.
    pub fn is_at(root: impl AsRef<Path>) -> bool {
        attribute_list(root.as_ref()).is_some()
    }

    /// The line number of each photo's box in the box file.
    ///
    /// Errors: the file, read before, has become unreadable.
    pub fn box_lines(&self) -> Result<HashMap<String, usize>> {
        let Some(path) = &self.box_file else { return Ok(HashMap::new()) };
        let lines = Lines::open(path)?;
        let name = |line: Result<Line>| line.ok().map(|line| (line.fields().0.to_string(), line.number));
        Ok(lines.iter().filter_map(name).collect())
    }

    /// The samples of one split, in order.
    ///
    /// # Errors
    /// No partition file, or one that lists less than half of the samples: it was truncated.
    pub fn split(&self, split: Split) -> Result<Vec<&Sample>> {
        let Some(file) = &self.partition_file else {
            let found = format!("no {PARTITION_FILE} in it, so it has no {} part", split.name());
            return Err(Error::file(&self.root, found).advise("add that file"));
        };
        let cut_short = partial(file, self.partitioned, self.samples.len());
        if let Some(error) = cut_short.filter(|_| 2 * self.partitioned < self.samples.len()) {
            return Err(error);
        }
        Ok(self.samples.iter().filter(|s| s.split == Some(split)).collect())
    }

    /// Checks that the identities of the given samples are known, which `purpose` needs.
    ///
    /// # Errors
    /// No file of identities, or a sample without one.
    pub fn require_identities(&self, samples: &[&Sample], purpose: &str) -> Result<()> {
        let Some(file) = &self.identity_file else {
            let found = format!("no {IDENTITY_FILE} in it, which {purpose} needs");
            return Err(Error::file(&self.root, found).advise("get it from CelebA's own pages: Kaggle's copy has none"));
        };
        let mut without = samples.iter().filter(|sample| sample.identity.is_none());
        let Some(first) = without.next() else { return Ok(()) };
        let count = 1 + without.count();
        let found =
            format!("no identity for {} of {} photos, as {}", grouped(count), grouped(samples.len()), first.name);
        Err(Error::file(file, found).advise(format!("{purpose} needs all: get the whole file")))
    }
}

/// An error if a file lists only some of the photos.
fn partial(file: &Path, listed: usize, photos: usize) -> Option<Error> {
    let found = || format!("covers {} of {} photos: was it cut short?", grouped(listed), grouped(photos));
    (listed < photos).then(|| Error::file(file, found()).advise("get the whole file"))
}

/// Writes `Anno/` and `Eval/` below `root` in the official layout, header lines included; the caller writes the photos,
/// to `Img/img_celeba` if there are boxes. The identity, box and partition files list the samples that have one, and
/// are only written if some sample has; stale ones are removed. Each file is replaced atomically.
///
/// Errors: files that cannot be written; anything that could not be read back (a space in a name, a duplicate name, a
/// missing attribute, a box without area).
pub fn write_annotations(root: &Path, attribute_names: &[String], samples: &[Sample]) -> Result<()> {
    for (kind, mut names) in [
        ("attribute", attribute_names.iter().collect::<Vec<_>>()),
        ("image", samples.iter().map(|s| &s.name).collect::<Vec<_>>()),
    ] {
        if let Some(name) = names.iter().find(|name| name.is_empty() || name.contains(char::is_whitespace)) {
            let found = format!("{kind} name {} is blank or holds a blank", quoted(name));
            return Err(Error::file(root, found).advise("the columns are divided by blanks: rename it"));
        }
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            let found = format!("{kind} name {} occurs twice", quoted(twice[0]));
            return Err(Error::file(root, found).advise("names must differ"));
        }
    }

    // Writing to a String cannot fail; `let _` drops a Result that is always Ok.
    let mut attributes = format!("{}\n{}\n", samples.len(), attribute_names.join(" "));
    let (mut identities, mut boxes, mut partition, mut boxed) = (String::new(), String::new(), String::new(), 0);
    for Sample { name, attributes: present, identity, bbox, split, .. } in samples {
        if present.len() != attribute_names.len() {
            let found = format!("{name} has {} attributes for {} names", present.len(), attribute_names.len());
            return Err(Error::file(root, found).advise("give one value per attribute"));
        }
        attributes += name;
        attributes.extend(present.iter().map(|&p| if p { "  1" } else { " -1" }));
        attributes.push('\n');
        if let Some(identity) = identity {
            let _ = writeln!(identities, "{name} {identity}");
        }
        if let &Some(bbox) = bbox {
            let Rect { x, y, width, height } = check_box(bbox)
                .map_err(|e| Error::file(root, format_args!("{name}: {e}")).advise("leave the box out"))?;
            let _ = writeln!(boxes, "{name} {x} {y} {width} {height}");
            boxed += 1;
        }
        if let Some(split) = split {
            let _ = writeln!(partition, "{name} {}", *split as u8);
        }
    }
    if boxed > 0 {
        boxes = format!("{boxed}\n{BOX_HEADER}\n{boxes}");
    }

    for (folder, file, content) in [
        ("Anno", ATTRIBUTE_FILE, attributes),
        ("Anno", IDENTITY_FILE, identities),
        ("Anno", BOX_FILE, boxes),
        ("Eval", PARTITION_FILE, partition),
    ] {
        let folder = root.join(folder);
        let path = folder.join(file);
        if !content.is_empty() {
            fs::create_dir_all(&folder).at(&folder)?;
            write_atomic(&path, |file| file.write_all(content.as_bytes()))?;
        } else if path.exists() {
            fs::remove_file(&path).at(&path)?;
        }
    }
    Ok(())
}

/// The files of a data set.
struct Layout {
    attributes: PathBuf,
    identity: Option<PathBuf>,
    boxes: Option<PathBuf>,
    /// A file of boxes that are not valid for the photos.
    other_boxes: Option<PathBuf>,
    partition: Option<PathBuf>,
    images: PathBuf,
    /// Files that are read, and the same in their other format, which are not.
    twice: Vec<(PathBuf, PathBuf)>,
}

impl Layout {
    fn find(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            return Err(Error::file(root, "no such folder").advise("give the folder that holds Anno and Img"));
        }
        let Some((base, attributes)) = attribute_list(root) else {
            let found = format!("neither Anno/{ATTRIBUTE_FILE} nor {ATTRIBUTE_FILE} in it, nor one in CSV");
            return Err(Error::file(root, found).advise("give the folder that holds Anno and Img"));
        };
        let mut twice = Vec::new();
        let mut find = |name: &str| {
            let mut places = annotation_places(&base, name);
            let found = places.find(|p| p.is_file())?;
            let other = places.find(|p| p.is_file() && p.extension() != found.extension());
            twice.extend(other.map(|other| (found.clone(), other)));
            Some(found)
        };
        find(ATTRIBUTE_FILE);
        let (identity, boxes, partition) = (find(IDENTITY_FILE), find(BOX_FILE), find(PARTITION_FILE));
        let folders = [WILD, ALIGNED].iter().flat_map(|name| [base.join("Img").join(name), base.join(name)]);
        let Some(images) = folders.into_iter().find(|p| p.is_dir()) else {
            let found = format!("no folder of photos: neither Img/{WILD} nor Img/{ALIGNED} nor one without Img/");
            return Err(Error::file(base, found).advise("unpack the photos there"));
        };
        let (boxes, other_boxes) = if images.ends_with(WILD) { (boxes, None) } else { (None, boxes) };
        let images = unpacked_twice(&images)?.unwrap_or(images);
        Ok(Self { attributes, identity, boxes, other_boxes, partition, images, twice })
    }

    /// Which of the files are unused, and why.
    fn tell(&self, problems: &mut Problems) -> Result<()> {
        for (read, other) in &self.twice {
            let [ours, theirs] = [read, other].map(|path| Lines::open(path).map(|lines| lines.content()));
            let (ours, theirs) = (ours?, theirs?);
            let equal = ours.intersection(&theirs).count();
            if ours.len() != equal || theirs.len() != equal {
                let found =
                    format!("{} of its {} rows are in {}, too", grouped(equal), grouped(theirs.len()), read.display());
                let advice = format!("{} is read: remove the one that is wrong", read.display());
                problems.report(Error::file(other, found).advise(advice))?;
            }
        }
        if let Some(path) = &self.other_boxes {
            let found = format!("its boxes are for the photos in {WILD}, not for those in {}", self.images.display());
            problems.notice(Error::file(path, found).advise("they are not used"));
        }
        Ok(())
    }
}

/// The root folder of the layout and the attribute list in it.
fn attribute_list(root: &Path) -> Option<(PathBuf, PathBuf)> {
    [root.to_path_buf(), root.join("celeba")].into_iter().find_map(|base| {
        let found = annotation_places(&base, ATTRIBUTE_FILE).find(|p| p.is_file());
        found.map(|found| (base, found))
    })
}

/// Possible paths of an annotation file, in both formats; the text format is preferred.
fn annotation_places(base: &Path, name: &str) -> impl Iterator<Item = PathBuf> {
    let (base, names) = (base.to_path_buf(), [name.to_string(), name.replace(".txt", ".csv")]);
    names.into_iter().flat_map(move |name| ["Anno", "Eval", ""].map(|folder| base.join(folder).join(&name)))
}

/// The nested folder of the same name in a folder of photos, if the photos are there.
fn unpacked_twice(images: &Path) -> Result<Option<PathBuf>> {
    let inner = images.join(images.file_name().unwrap_or_default());
    if !inner.is_dir() {
        return Ok(None);
    }
    for entry in fs::read_dir(images).at(images)? {
        if folder::is_photo(&entry.at(images)?.path()) {
            return Ok(None);
        }
    }
    Ok(Some(inner))
}

/// The lines of an annotation file: columns separated by spaces, or by commas as in CSV.
enum Lines {
    Blanks(Text),
    Commas(Table),
}

/// One non-blank line.
struct Line<'a> {
    /// From 1.
    number: usize,
    content: Content<'a>,
}

enum Content<'a> {
    Blanks(&'a str),
    Commas(table::Row),
}

impl Lines {
    fn open(path: &Path) -> Result<Self> {
        if path.extension() == Some(OsStr::new("csv")) {
            Table::open(path).map(Self::Commas)
        } else {
            Text::open(path).map(Self::Blanks)
        }
    }

    /// In order; or the problem with a line, with its place.
    fn iter(&self) -> Box<dyn Iterator<Item = Result<Line<'_>>> + '_> {
        match self {
            Self::Blanks(text) => {
                Box::new(text.lines().map(|(number, line)| Ok(Line { number, content: Content::Blanks(line) })))
            }
            Self::Commas(table) => Box::new(table.rows().map(|row| {
                let row = row?;
                Ok(Line { number: row.line, content: Content::Commas(row) })
            })),
        }
    }

    /// An error at one line.
    fn error(&self, line: usize, found: impl std::fmt::Display) -> Error {
        match self {
            Self::Blanks(text) => text.error(line, found),
            Self::Commas(table) => table.error(line, found),
        }
    }

    /// All lines of photos, whatever separates their columns.
    fn content(&self) -> HashSet<String> {
        let good = self.iter().filter_map(Result::ok);
        let columns = good.filter_map(|line| {
            let (name, fields) = line.fields();
            let is_photo = !fields.is_empty() && fields.iter().all(|field| field.parse::<f64>().is_ok());
            is_photo.then(|| format!("{name} {}", fields.join(" ")))
        });
        columns.collect()
    }
}

/// What headers call the column of photo names.
const NAME_COLUMN: &str = "image_id";

impl Line<'_> {
    /// The first column and the remaining ones.
    fn fields(&self) -> (&str, Vec<&str>) {
        match &self.content {
            Content::Blanks(line) => {
                let mut fields = line.split_whitespace();
                (fields.next().unwrap_or_default(), fields.collect())
            }
            Content::Commas(row) => {
                let mut fields = row.fields.iter().map(str::trim);
                (fields.next().unwrap_or_default(), fields.collect())
            }
        }
    }

    /// True for the header of a file about the photos in `index`: in text it is recognised by its first word, in a table by
    /// consisting of words only.
    fn names_columns(&self, index: &HashMap<String, Option<usize>>) -> bool {
        let (first, others) = self.fields();
        let is_word = |field: &&str| field.parse::<f64>().is_err();
        let is_table = matches!(self.content, Content::Commas(_));
        first == NAME_COLUMN || (is_table && !index.contains_key(first) && others.iter().all(is_word))
    }

    /// A line that contains only a number, which may come first, is the number of lines after the headers.
    fn count(&self) -> Option<&str> {
        let (number, others) = self.fields();
        (others.is_empty() && number.bytes().all(|b| b.is_ascii_digit())).then_some(number)
    }
}

/// The samples while their annotations are collected.
struct List {
    attribute_file: String,
    attribute_names: Vec<String>,
    attribute_place: String,
    samples: Vec<Sample>,
    /// Every name of the attribute list, with its sample or `None` if that was skipped: a missing photo is
    /// reported once, not again for each of its annotations.
    index: HashMap<String, Option<usize>>,
}

impl List {
    fn read(layout: &Layout, problems: &mut Problems) -> Result<Self> {
        let images = &layout.images;
        // One directory listing instead of a query per photo: a quarter of a million of them take minutes on a network drive.
        let mut present = HashMap::<OsString, bool>::new();
        for entry in fs::read_dir(images).at(images)? {
            let entry = entry.at(images)?;
            present.insert(entry.file_name(), entry.file_type().is_ok_and(|of| of.is_file()));
        }

        let lines = Lines::open(&layout.attributes)?;
        let absent = absent_value(&lines);
        let mut rows = lines.iter().peekable();
        let declared = declared_count(&mut rows);
        let header = rows.next_if(|line| line.as_ref().is_ok_and(|line| is_header(line, &present)));
        let header = header.transpose()?;
        let attribute_names: Vec<String> = match &header {
            Some(line) => {
                let (first, others) = line.fields();
                // The first column, of photo names, may have its own heading.
                let count = rows.peek().and_then(|next| Some(next.as_ref().ok()?.fields().1.len()));
                let all_named = match line.content {
                    Content::Blanks(_) => first == NAME_COLUMN,
                    Content::Commas(_) => count != Some(1 + others.len()),
                };
                (!all_named).then_some(first).into_iter().chain(others).map(str::to_string).collect()
            }
            None => ATTRIBUTES.map(str::to_string).to_vec(),
        };
        let header = header.map(|line| line.number);
        let mut seen = HashSet::new();
        if let Some(twice) = attribute_names.iter().find(|name| !seen.insert(name.as_str())) {
            let found = format!("attribute {} is named twice", quoted(twice));
            return Err(lines.error(header.unwrap_or(1), found).advise("name each column once"));
        }

        let attribute_place = match header {
            Some(line) => format!("{}:{line}", layout.attributes.display()),
            None => layout.attributes.display().to_string(),
        };
        let attribute_file = layout.attributes.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let (samples, index) = (Vec::new(), HashMap::new());
        let mut list = Self { attribute_file, attribute_names, attribute_place, samples, index };
        let mut count = 0;
        for line in rows {
            count += 1;
            let Some(line) = problems.take(line)? else { continue };
            let (name, fields) = line.fields();
            let Entry::Vacant(slot) = list.index.entry(name.to_string()) else {
                let found = format!("image {} is listed twice", quoted(name));
                problems.report(lines.error(line.number, found).advise("remove one of the lines"))?;
                continue;
            };
            let slot = slot.insert(None);
            let attributes = match parse_attributes(&fields, &list.attribute_names, absent) {
                Ok(attributes) => attributes,
                Err((found, advice)) => {
                    problems.report(lines.error(line.number, found).advise(advice))?;
                    continue;
                }
            };
            // A name with a folder in it would point outside the folder of photos.
            let regular = present.get::<OsStr>(name.as_ref()).copied();
            let obstacle = match regular {
                Some(true) => None,
                Some(false) => folder::obstacle(images.join(name)),
                None => Some(folder::MISSING),
            };
            if let Some(obstacle) = obstacle {
                let found = match obstacle {
                    folder::MISSING => format!("image {} is not in {}", quoted(name), images.display()),
                    obstacle => format!("image {} in {} is {obstacle}", quoted(name), images.display()),
                };
                problems.report(lines.error(line.number, found).advise("add the photo or remove the line"))?;
                continue;
            }
            *slot = Some(list.samples.len());
            list.samples.push(Sample {
                path: images.join(name),
                name: name.to_string(),
                attributes,
                identity: None,
                bbox: None,
                split: None,
            });
        }
        check_count(&lines, declared, count, problems)?;
        if list.samples.is_empty() {
            let found = format!("none of its {count} lines can be used");
            let advice = problems.list.first().map_or("is it the right file?".into(), |e| format!("the first: {e}"));
            return Err(Error::file(&layout.attributes, found).advise(advice));
        }
        let photos = present.keys().filter(|name| folder::is_visible(name) && folder::is_photo(name.as_ref()));
        let (listed, unlisted): (Vec<&OsString>, _) =
            photos.partition(|name| name.to_str().is_some_and(|name| list.index.contains_key(name)));
        // A list may cover some photos on purpose, so this is not a problem.
        let part = partial(&layout.attributes, listed.len(), listed.len() + unlisted.len());
        part.into_iter().for_each(|found| problems.notice(found));
        Ok(list)
    }

    /// Reads a file of lines `name field...`, with `columns` fields each, and passes the fields of every known sample to
    /// `set`, which may reject them. Returns how many of the samples the file lists.
    fn annotate(
        &mut self,
        path: &Path,
        columns: usize,
        problems: &mut Problems,
        set: impl Fn(&mut Sample, &[&str]) -> Result<(), String>,
    ) -> Result<usize> {
        let lines = Lines::open(path)?;
        let mut rows = lines.iter().peekable();
        let declared = declared_count(&mut rows);
        rows.next_if(|line| line.as_ref().is_ok_and(|line| line.names_columns(&self.index)));
        let mut seen = HashSet::new();
        let (mut count, mut covered) = (0, 0);
        for line in rows {
            count += 1;
            let Some(line) = problems.take(line)? else { continue };
            let (name, fields) = line.fields();
            let known = self.index.get(name);
            let first = seen.insert(name.to_string());
            covered += usize::from(first && known.is_some_and(Option::is_some));
            let result = if fields.len() != columns {
                Err(format!("{} columns after the name, not {columns}", fields.len()))
            } else if !first {
                Err(format!("image {} is listed twice", quoted(name)))
            } else {
                match known {
                    None => Err(format!("image {} is not in {}", quoted(name), self.attribute_file)),
                    Some(None) => Ok(()),
                    Some(&Some(i)) => set(&mut self.samples[i], &fields),
                }
            };
            if let Err(found) = result {
                problems.report(lines.error(line.number, found).advise("correct or remove the line"))?;
            }
        }
        check_count(&lines, declared, count, problems)?;
        Ok(covered)
    }
}

/// The lines of a file from the first on.
type Rows<'a> = std::iter::Peekable<Box<dyn Iterator<Item = Result<Line<'a>>> + 'a>>;

/// The number of lines that a file may begin with, and its line number.
fn declared_count(rows: &mut Rows) -> Option<(usize, String)> {
    let line = rows.next_if(|line| line.as_ref().is_ok_and(|line| line.count().is_some()))?.ok()?;
    Some((line.number, line.fields().0.to_string()))
}

/// The value for absent in a list of attributes: 0 if all of its lines use 0 for absent, otherwise -1.
fn absent_value(lines: &Lines) -> &'static str {
    let (mut zero, mut minus) = (false, false);
    for line in lines.iter().flatten() {
        let (_, fields) = line.fields();
        zero |= fields.contains(&"0");
        minus |= fields.contains(&"-1");
        if minus {
            break;
        }
    }
    if zero && !minus { "0" } else { "-1" }
}

/// A line of attribute names: it does not start with a photo and, unlike values, is not entirely numeric.
fn is_header(line: &Line, present: &HashMap<OsString, bool>) -> bool {
    let (first, others) = line.fields();
    !present.contains_key::<OsStr>(first.as_ref())
        && (others.is_empty() || others.iter().any(|field| field.parse::<f64>().is_err()))
}

fn check_count(lines: &Lines, declared: Option<(usize, String)>, count: usize, problems: &mut Problems) -> Result<()> {
    match declared {
        Some((number, line)) if line.parse() != Ok(count) => {
            let found = format!("the file is said to have {} lines but has {count}", quoted(&line));
            problems.report(lines.error(number, found).advise("was it cut short? otherwise correct the count"))
        }
        _ => Ok(()),
    }
}

/// One value per attribute; or an error that says what was found, with advice.
fn parse_attributes(values: &[&str], names: &[String], absent: &str) -> Result<Vec<bool>, (String, &'static str)> {
    if values.len() != names.len() {
        let found = format!("{} columns after the name, not {}", values.len(), names.len());
        return Err((found, "give one value per attribute"));
    }
    let parse = |(value, name): (&&str, &String)| match *value {
        "1" => Ok(true),
        value if value == absent => Ok(false),
        value if absent == "0" => Err((
            format!("{name} is {}", quoted(value)),
            "write 1 for present and 0 for absent, as elsewhere in the file",
        )),
        value => Err((format!("{name} is {}", quoted(value)), "write 1 for present and -1 for absent")),
    };
    values.iter().zip(names).map(parse).collect()
}

//! CelebA: forty attributes, an identity, a face box and a split for each photo (Liu, Luo, Wang, Tang, ICCV 2015).
//!
//! The one idea: the attribute list says which photos there are; everything else is looked up by the photo's name and
//! may be missing. Two layouts are read, with and without the header lines:
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

use std::collections::HashSet;
use std::collections::hash_map::{Entry, HashMap};
use std::ffi::OsString;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use super::photo::Rect;
use super::text::{Problems, Text, check_box, parse_box, quoted};
use crate::error::At;
use crate::weights::write_atomic;
use crate::{Error, Result};

/// The attributes of the original list, for files that have lost their header.
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
const IDENTITY_FILE: &str = "identity_CelebA.txt";
const BOX_FILE: &str = "list_bbox_celeba.txt";
const PARTITION_FILE: &str = "list_eval_partition.txt";
const BOX_HEADER: &str = "image_id x_1 y_1 width height";
/// Photos as found, which the boxes refer to; preferred where both are present.
const WILD: &str = "img_celeba";
/// Photos cropped around the face, for which the boxes do not hold.
const ALIGNED: &str = "img_align_celeba";

/// The parts of the data, with the numbers they have in the partition file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize, serde::Serialize, clap::ValueEnum)]
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

/// One photo and what is known of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// Where the photo is.
    pub path: PathBuf,
    /// Its file name, by which the annotations know it.
    pub name: String,
    /// Present or not, in the order of [`CelebA::attribute_names`].
    pub attributes: Vec<bool>,
    pub identity: Option<u32>,
    /// The face, in pixels of the photo. `None` for aligned photos, where the boxes of CelebA do not hold.
    pub bbox: Option<Rect>,
    /// `None` where no partition is given: such a sample belongs to no split.
    pub split: Option<Split>,
}

/// The photos and annotations of a folder in the layout of CelebA.
#[derive(Debug, Clone)]
pub struct CelebA {
    pub root: PathBuf,
    pub attribute_names: Vec<String>,
    /// The file and line that name the attributes.
    pub attribute_place: String,
    /// The file of face boxes, where the photos have any.
    pub box_file: Option<PathBuf>,
    /// In the order of the attribute list.
    pub samples: Vec<Sample>,
    /// What was wrong, in the order found; empty if read strictly.
    pub problems: Vec<Error>,
}

impl CelebA {
    /// Reads the annotations below `root` and looks for the photos, without decoding them.
    ///
    /// Errors: no attribute list, no photos, unreadable files, no sample left. A bad line or a missing photo is an error if `strict`;
    /// otherwise it is added to `problems`, and the sample is skipped (by a bad line of the attribute list) or goes
    /// without the annotation (by a bad line of another file).
    pub fn open(root: impl AsRef<Path>, strict: bool) -> Result<Self> {
        let root = root.as_ref();
        let layout = Layout::find(root)?;
        let mut problems = Problems::new(strict);
        let mut list = List::read(&layout, &mut problems)?;

        if let Some(path) = layout.identity {
            list.annotate(&path, 1, &mut problems, |sample, fields| {
                let found = || format!("identity is {}, not a whole number", quoted(fields[0]));
                sample.identity = Some(fields[0].parse().map_err(|_| found())?);
                Ok(())
            })?;
        }
        if let Some(path) = &layout.boxes {
            list.annotate(path, 4, &mut problems, |sample, fields| {
                sample.bbox = Some(parse_box(fields)?);
                Ok(())
            })?;
        }
        if let Some(path) = layout.partition {
            list.annotate(&path, 1, &mut problems, |sample, fields| {
                let found = || format!("split is {}, not 0, 1 or 2", quoted(fields[0]));
                let number: usize = fields[0].parse().map_err(|_| found())?;
                sample.split = Some(*Split::ALL.get(number).ok_or_else(found)?);
                Ok(())
            })?;
        }
        Ok(Self {
            root: root.to_path_buf(),
            attribute_names: list.attribute_names,
            attribute_place: list.attribute_place,
            box_file: layout.boxes,
            samples: list.samples,
            problems: problems.list,
        })
    }

    /// True if `root` holds an attribute list in one of the places [`CelebA::open`] looks at.
    pub fn is_at(root: impl AsRef<Path>) -> bool {
        attribute_list(root.as_ref()).is_some()
    }

    /// The line of the box file that each photo's box stands on.
    ///
    /// Errors: the file, read before, has become unreadable.
    pub fn box_lines(&self) -> Result<HashMap<String, usize>> {
        let Some(path) = &self.box_file else { return Ok(HashMap::new()) };
        let text = Text::open(path)?;
        let name = |line: &str| line.split_whitespace().next().unwrap_or_default().to_string();
        Ok(text.lines().map(|(number, line)| (name(line), number)).collect())
    }

    /// The samples of one split, in order.
    pub fn split(&self, split: Split) -> Vec<&Sample> {
        self.samples.iter().filter(|s| s.split == Some(split)).collect()
    }
}

/// Writes `Anno/` and `Eval/` below `root` in the official layout, header lines included; the photos are the caller's,
/// in `Img/img_celeba` if there are boxes. The identity, box and partition files list the samples that have one, and
/// are written only if some sample has; stale ones are removed. Each file is replaced atomically.
///
/// Errors: files that cannot be written; anything that could not be read back (a blank in a name, a name twice, an
/// attribute too few, a box without area).
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

/// Where the parts of a data set are.
struct Layout {
    attributes: PathBuf,
    identity: Option<PathBuf>,
    boxes: Option<PathBuf>,
    partition: Option<PathBuf>,
    images: PathBuf,
}

impl Layout {
    fn find(root: &Path) -> Result<Self> {
        if !root.is_dir() {
            return Err(Error::file(root, "no such folder").advise("give the folder that holds Anno and Img"));
        }
        let Some((base, attributes)) = attribute_list(root) else {
            let found = format!("neither Anno/{ATTRIBUTE_FILE} nor {ATTRIBUTE_FILE} in it");
            return Err(Error::file(root, found).advise("give the folder that holds Anno and Img"));
        };
        let file = |name| ["Anno", "Eval", "."].iter().map(|f| base.join(f).join(name)).find(|p| p.is_file());
        let folders = [WILD, ALIGNED].iter().flat_map(|name| [base.join("Img").join(name), base.join(name)]);
        let Some(images) = folders.into_iter().find(|p| p.is_dir()) else {
            let found = format!("no folder of photos: neither Img/{WILD} nor Img/{ALIGNED} nor one without Img/");
            return Err(Error::file(base, found).advise("unpack the photos there"));
        };
        let boxes = file(BOX_FILE).filter(|_| images.ends_with(WILD));
        Ok(Self { attributes, identity: file(IDENTITY_FILE), boxes, partition: file(PARTITION_FILE), images })
    }
}

/// The folder that the layout starts at and the attribute list in it.
fn attribute_list(root: &Path) -> Option<(PathBuf, PathBuf)> {
    [root.to_path_buf(), root.join("celeba")].into_iter().find_map(|base| {
        let places = [base.join("Anno").join(ATTRIBUTE_FILE), base.join(ATTRIBUTE_FILE)];
        places.into_iter().find(|p| p.is_file()).map(|p| (base, p))
    })
}

/// The samples while their annotations are gathered.
struct List {
    attribute_names: Vec<String>,
    attribute_place: String,
    samples: Vec<Sample>,
    /// Every name of the attribute list, with its sample or `None` if that was skipped: a photo that is missing is
    /// reported once, not again for each of its annotations.
    index: HashMap<String, Option<usize>>,
}

impl List {
    fn read(layout: &Layout, problems: &mut Problems) -> Result<Self> {
        let images = &layout.images;
        // One listing instead of a question per photo: a quarter of a million of them on a network drive take minutes.
        let mut present = HashSet::<OsString>::new();
        for entry in fs::read_dir(images).at(images)? {
            present.insert(entry.at(images)?.file_name());
        }

        let text = Text::open(&layout.attributes)?;
        let mut rows = text.lines().peekable();
        let declared = rows.next_if(|(_, line)| is_count(line));
        let header = rows.next_if(|(_, line)| is_header(line, &present));
        let attribute_names: Vec<String> = match header {
            Some((_, line)) => line.split_whitespace().filter(|t| *t != "image_id").map(str::to_string).collect(),
            None => ATTRIBUTES.map(str::to_string).to_vec(),
        };
        let mut seen = HashSet::new();
        if let Some(twice) = attribute_names.iter().find(|name| !seen.insert(name.as_str())) {
            let found = format!("attribute {} is named twice", quoted(twice));
            return Err(text.error(header.map_or(1, |(n, _)| n), found).advise("name each column once"));
        }

        let attribute_place = match header {
            Some((line, _)) => format!("{}:{line}", layout.attributes.display()),
            None => layout.attributes.display().to_string(),
        };
        let mut list = Self { attribute_names, attribute_place, samples: Vec::new(), index: HashMap::new() };
        let mut count = 0;
        for (number, line) in rows {
            count += 1;
            let mut fields = line.split_whitespace();
            let name = fields.next().unwrap_or_default();
            let Entry::Vacant(slot) = list.index.entry(name.to_string()) else {
                let found = format!("image {} is listed twice", quoted(name));
                problems.report(text.error(number, found).advise("remove one of the lines"))?;
                continue;
            };
            let slot = slot.insert(None);
            let attributes = match parse_attributes(fields, &list.attribute_names) {
                Ok(attributes) => attributes,
                Err((found, advice)) => {
                    problems.report(text.error(number, found).advise(advice))?;
                    continue;
                }
            };
            if !present.contains(name.as_ref() as &std::ffi::OsStr) {
                let found = format!("image {} is not in {}", quoted(name), images.display());
                problems.report(text.error(number, found).advise("add the photo or remove the line"))?;
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
        check_count(&text, declared, count, problems)?;
        if list.samples.is_empty() {
            let found = format!("none of its {count} lines can be used");
            let advice = problems.list.first().map_or("is it the right file?".into(), |e| format!("the first: {e}"));
            return Err(Error::file(&layout.attributes, found).advise(advice));
        }
        Ok(list)
    }

    /// Reads a file of lines `name field...`, with `columns` fields each, and hands the fields of every known sample to
    /// `set`, which may refuse them.
    fn annotate(
        &mut self,
        path: &Path,
        columns: usize,
        problems: &mut Problems,
        set: impl Fn(&mut Sample, &[&str]) -> Result<(), String>,
    ) -> Result<()> {
        let text = Text::open(path)?;
        let mut rows = text.lines().peekable();
        let declared = rows.next_if(|(_, line)| is_count(line));
        rows.next_if(|(_, line)| line.starts_with("image_id"));
        let mut seen = HashSet::new();
        let mut count = 0;
        for (number, line) in rows {
            count += 1;
            let fields: Vec<&str> = line.split_whitespace().collect();
            let (name, fields) = (fields[0], &fields[1..]);
            let result = if fields.len() != columns {
                Err(format!("{} columns after the name, not {columns}", fields.len()))
            } else if !seen.insert(name) {
                Err(format!("image {} is listed twice", quoted(name)))
            } else {
                match self.index.get(name) {
                    None => Err(format!("image {} is not in {ATTRIBUTE_FILE}", quoted(name))),
                    Some(None) => Ok(()),
                    Some(&Some(i)) => set(&mut self.samples[i], fields),
                }
            };
            if let Err(found) = result {
                problems.report(text.error(number, found).advise("correct or remove the line"))?;
            }
        }
        check_count(&text, declared, count, problems)
    }
}

/// A first line that holds nothing but a number counts the lines below the headers.
fn is_count(line: &str) -> bool {
    line.bytes().all(|b| b.is_ascii_digit())
}

/// A line of attribute names: it does not start with a photo and, unlike the values, not all of it is numbers.
fn is_header(line: &str, present: &HashSet<OsString>) -> bool {
    let mut tokens = line.split_whitespace();
    let first = tokens.next().unwrap_or_default();
    let mut rest = tokens.peekable();
    !present.contains(first.as_ref() as &std::ffi::OsStr)
        && (rest.peek().is_none() || rest.any(|t| t.parse::<f64>().is_err()))
}

fn check_count(text: &Text, declared: Option<(usize, &str)>, count: usize, problems: &mut Problems) -> Result<()> {
    match declared {
        Some((number, line)) if line.parse() != Ok(count) => {
            let found = format!("the file is said to have {} lines but has {count}", quoted(line));
            problems.report(text.error(number, found).advise("was it cut short? otherwise correct the count"))
        }
        _ => Ok(()),
    }
}

/// One value per attribute; or what was found and what to do.
fn parse_attributes<'a>(
    values: impl Iterator<Item = &'a str> + Clone,
    names: &[String],
) -> Result<Vec<bool>, (String, &'static str)> {
    let columns = values.clone().count();
    if columns != names.len() {
        let found = format!("{columns} columns after the name, not {}", names.len());
        return Err((found, "give one value per attribute"));
    }
    let parse = |(value, name): (&str, &String)| match value {
        "1" => Ok(true),
        "-1" => Ok(false),
        _ => Err((format!("{name} is {}", quoted(value)), "write 1 for present and -1 for absent")),
    };
    values.zip(names).map(parse).collect()
}

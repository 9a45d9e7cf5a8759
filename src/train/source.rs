//! What a run learns from: the photos, the region of each, its class and its tags.

use super::config::{Config, Data, Stage};
use crate::data::boxes;
use crate::data::celeba::{CelebA, Sample, Split};
use crate::data::folder::ImageFolder;
use crate::data::photo::Rect;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The tag that [`Stage::FinetuneLnet`] adds to those of the data: on every photo, on no background.
pub const FACE: &str = "Face";

/// One photo to learn from.
#[derive(Debug, Clone)]
pub struct Item {
    pub photo: PathBuf,
    /// The part that counts, in pixels of the photo; `None` is all of it.
    pub region: Option<Rect>,
    /// Class or identity, counted from 0.
    pub class: u32,
    /// 0 or 1 for each of [`Source::tags`].
    pub tags: Vec<f32>,
}

/// Everything a run learns from and is measured on.
#[derive(Debug, Default)]
pub struct Source {
    pub train: Vec<Item>,
    pub validation: Vec<Item>,
    /// Names of the tags.
    pub tags: Vec<String>,
    /// Number of different classes in `train`.
    pub classes: usize,
    /// Lines and photos that were skipped.
    pub problems: Vec<Error>,
    /// Identities that training must not see.
    unseen: BTreeSet<u32>,
}

impl Source {
    /// Reads the annotations that the stage needs.
    ///
    /// # Errors
    /// Unreadable folders or files; no photo, no identity or no tag where the stage needs them; with `strict` the first
    /// bad line or missing photo.
    pub fn open(config: &Config) -> Result<Self> {
        let mut source = match config.stage {
            Stage::PretrainObjects => Self::objects(&config.data.root)?,
            _ => Self::faces(config)?,
        };
        if let Some(limit) = config.data.limit {
            source.train.truncate(limit);
            source.validation.truncate(limit);
        }
        source.number_classes();
        if source.train.len() < config.batch {
            return Err(Error::file(
                &config.data.root,
                format!("{} photos to train on, fewer than a batch of {}", source.train.len(), config.batch),
            )
            .advise("check data.splits, or use a smaller batch"));
        }
        if config.stage == Stage::PretrainIdentities && source.classes < config.batch / config.per_identity {
            let wanted = config.batch / config.per_identity;
            return Err(Error::file(
                &config.data.root,
                format!("{} identities, but a batch has {wanted}", source.classes),
            )
            .advise("use a smaller batch or a larger per_identity"));
        }
        Ok(source)
    }

    fn objects(root: &Path) -> Result<Self> {
        let folder = ImageFolder::open(root)?;
        let item = |(photo, class): (PathBuf, usize)| Item { photo, region: None, class: class as u32, tags: vec![] };
        Ok(Self { train: folder.samples.into_iter().map(item).collect(), problems: folder.problems, ..Self::default() })
    }

    fn faces(config: &Config) -> Result<Self> {
        let data = &config.data;
        let celeba = CelebA::open(&data.root, data.strict)?;
        let boxes = match &data.boxes {
            Some(path) => boxes::read(path)?,
            None => BTreeMap::new(),
        };
        let mut tags = celeba.attribute_names.clone();
        tags.truncate(learned(data));
        let items = |splits: &[Split], unseen: &BTreeSet<u32>| -> Result<Vec<Item>> {
            let wanted = among(&celeba.samples, splits, unseen);
            wanted.map(|sample| item(sample, tags.len(), &boxes, config.stage)).collect()
        };
        let validation = match data.validation {
            Some(split) => items(&[split], &BTreeSet::new())?,
            None => Vec::new(),
        };
        let unseen = match &data.exclude {
            Some(exclude) => identities(&exclude.root, &exclude.splits, data.strict)?,
            None => BTreeSet::new(),
        };
        let train = items(&data.splits, &unseen)?;
        tags.extend((config.stage == Stage::FinetuneLnet).then(|| FACE.to_string()));
        Ok(Self { train, validation, tags, problems: celeba.problems, classes: 0, unseen })
    }

    /// Aligned faces to paste into scenes, with the same tags as `self`.
    ///
    /// # Errors
    /// As [`CelebA::open`]; attributes that are not those of the photos.
    pub fn pasted_faces(&self, config: &Config, root: &Path) -> Result<Vec<Item>> {
        let mut celeba = CelebA::open(root, config.data.strict)?;
        celeba.attribute_names.truncate(learned(&config.data));
        let count = celeba.attribute_names.len();
        if celeba.attribute_names[..] != self.tags[..self.tags.len() - usize::from(config.stage == Stage::FinetuneLnet)]
        {
            return Err(Error::file(root, "has other attributes than data.root")
                .advise("view.faces needs the same attribute list as data.root"));
        }
        let train = among(&celeba.samples, &config.data.splits, &self.unseen);
        train.map(|sample| item(sample, count, &BTreeMap::new(), config.stage)).collect()
    }

    /// Classes of the training photos become 0, 1, 2... in their order.
    fn number_classes(&mut self) {
        let numbers: BTreeSet<u32> = self.train.iter().map(|item| item.class).collect();
        let numbers: BTreeMap<u32, u32> = numbers.into_iter().zip(0..).collect();
        for item in &mut self.train {
            item.class = numbers[&item.class];
        }
        self.classes = numbers.len();
    }
}

/// The samples of some splits, without those of people who must stay unseen.
fn among<'a>(
    samples: &'a [Sample],
    splits: &'a [Split],
    unseen: &'a BTreeSet<u32>,
) -> impl Iterator<Item = &'a Sample> {
    samples.iter().filter(|sample| {
        sample.split.is_some_and(|split| splits.contains(&split))
            && sample.identity.is_none_or(|identity| !unseen.contains(&identity))
    })
}

/// Everybody in some splits.
fn identities(root: &Path, splits: &[Split], strict: bool) -> Result<BTreeSet<u32>> {
    let celeba = CelebA::open(root, strict)?;
    let found: BTreeSet<u32> = among(&celeba.samples, splits, &BTreeSet::new()).filter_map(|s| s.identity).collect();
    if found.is_empty() {
        return Err(Error::file(root, "knows no identity in these splits").advise("check data.exclude"));
    }
    Ok(found)
}

/// How many of the attributes are learned.
fn learned(data: &Data) -> usize {
    data.attributes.unwrap_or(usize::MAX)
}

/// A sample with the first `attributes` of its attributes as tags, and the tag of a face where that is one.
fn item(sample: &Sample, attributes: usize, boxes: &BTreeMap<String, Vec<Rect>>, stage: Stage) -> Result<Item> {
    let identity = match sample.identity {
        None if stage == Stage::PretrainIdentities => {
            return Err(
                Error::file(&sample.path, "has no identity").advise("pretrain-identities needs identity_CelebA.txt")
            );
        }
        identity => identity.unwrap_or(0),
    };
    let known = sample.attributes.iter().take(attributes);
    let mut tags: Vec<f32> = known.map(|present| f32::from(u8::from(*present))).collect();
    tags.extend((stage == Stage::FinetuneLnet).then_some(1.0));
    let region = boxes.get(&sample.name).and_then(|boxes| boxes.first()).copied();
    Ok(Item { photo: sample.path.clone(), region, class: identity, tags })
}

/// The photos of an image folder, whatever their class.
///
/// # Errors
/// An unreadable folder; no photo.
pub fn photos_below(root: &Path) -> Result<Vec<PathBuf>> {
    Ok(ImageFolder::open(root)?.samples.into_iter().map(|(photo, _)| photo).collect())
}

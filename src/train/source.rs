//! Training data: the photos, and the region, class and tags of each.

use super::config::{Config, Data, Stage};
use crate::data::celeba::{CelebA, Sample, Split};
use crate::data::folder::ImageFolder;
use crate::data::names::{NameMatch, Names};
use crate::data::photo::Rect;
use crate::data::{Problems, boxes};
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::{Path, PathBuf};

/// The tag that [`Stage::FinetuneLnet`] adds to those of the data: set for every photo, for no background.
pub const FACE: &str = "Face";

/// One training photo.
#[derive(Debug, Clone)]
pub struct Item {
    /// Its file.
    pub photo: PathBuf,
    /// The relevant region, in pixels of the photo; `None` is all of it.
    pub region: Option<Rect>,
    /// Class or identity, counted from 0.
    pub class: u32,
    /// 0 or 1 for each of [`Source::tags`].
    pub tags: Vec<f32>,
}

/// The training and validation data of a run.
#[derive(Debug, Default)]
pub struct Source {
    /// Photos to train on.
    pub train: Vec<Item>,
    /// Held-out photos.
    pub validation: Vec<Item>,
    /// Names of the tags.
    pub tags: Vec<String>,
    /// Number of classes in `train`.
    pub classes: usize,
    /// Skipped lines and photos.
    pub problems: Vec<Error>,
    /// Identities that are excluded from training.
    unseen: BTreeSet<u32>,
}

impl Source {
    /// Reads the annotations that the stage needs.
    ///
    /// # Errors
    /// Unreadable folders or files; no photo, no identity or no tag where the stage needs them; with `strict` the first
    /// invalid line or missing photo.
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
        let mut celeba = CelebA::open(&data.root, data.strict)?;
        let mut problems = Problems::new(data.strict);
        problems.list = std::mem::take(&mut celeba.problems);
        let unseen = match &data.exclude {
            Some(exclude) => identities(&exclude.root, &exclude.splits, &mut problems)?,
            None => BTreeSet::new(),
        };
        let train = among(&celeba, &data.splits, &unseen)?;
        let validation = match data.validation {
            Some(split) => celeba.split(split)?,
            None => Vec::new(),
        };
        if config.stage == Stage::PretrainIdentities {
            celeba.require_identities(&train, config.stage.name())?;
            celeba.require_identities(&validation, config.stage.name())?;
        }
        let regions = match &data.boxes {
            Some(path) => regions(path, &celeba, &mut problems)?,
            None => HashMap::new(),
        };
        if let Some(path) = &data.boxes {
            let used = train.iter().chain(&validation);
            let without = used.filter(|sample| !regions.contains_key(&sample.name)).count();
            if without > 0 {
                let found = format!("says nothing of {without} of {} photos", train.len() + validation.len());
                let error = Error::file(path, found);
                problems.report(error.advise("they are learned from whole; was it cut short?"))?;
            }
        }
        let mut tags = celeba.attribute_names.clone();
        tags.truncate(learned(data));
        let items = |samples: Vec<&Sample>| -> Vec<Item> {
            let region = |sample: &Sample| regions.get(&sample.name).copied().flatten();
            samples.into_iter().map(|sample| item(sample, tags.len(), region(sample), config.stage)).collect()
        };
        let (train, validation) = (items(train), items(validation));
        tags.extend((config.stage == Stage::FinetuneLnet).then(|| FACE.to_string()));
        Ok(Self { train, validation, tags, problems: problems.list, classes: 0, unseen })
    }

    /// Aligned faces to paste into scenes, with the same tags as `self`, and the entries skipped among them.
    ///
    /// # Errors
    /// As [`CelebA::open`]; attributes that differ from those of the photos.
    pub fn pasted_faces(&self, config: &Config, root: &Path) -> Result<(Vec<Item>, Vec<Error>)> {
        let mut celeba = CelebA::open(root, config.data.strict)?;
        celeba.attribute_names.truncate(learned(&config.data));
        let count = celeba.attribute_names.len();
        if celeba.attribute_names[..] != self.tags[..self.tags.len() - usize::from(config.stage == Stage::FinetuneLnet)]
        {
            return Err(Error::file(root, "has other attributes than data.root")
                .advise("view.faces needs the same attribute list as data.root"));
        }
        let train = among(&celeba, &config.data.splits, &self.unseen)?;
        let items = train.into_iter().map(|sample| item(sample, count, None, config.stage)).collect();
        Ok((items, celeba.problems))
    }

    /// Renumbers the classes of the training photos to 0, 1, 2... in order of appearance.
    fn number_classes(&mut self) {
        let numbers: BTreeSet<u32> = self.train.iter().map(|item| item.class).collect();
        let numbers: BTreeMap<u32, u32> = numbers.into_iter().zip(0..).collect();
        for item in &mut self.train {
            item.class = numbers[&item.class];
        }
        self.classes = numbers.len();
    }
}

/// The samples of the given splits, without those of excluded identities.
fn among<'a>(celeba: &'a CelebA, splits: &[Split], unseen: &BTreeSet<u32>) -> Result<Vec<&'a Sample>> {
    // In list order, not split by split.
    splits.iter().try_for_each(|split| celeba.split(*split).map(drop))?;
    let wanted = |sample: &&Sample| {
        sample.split.is_some_and(|split| splits.contains(&split))
            && sample.identity.is_none_or(|identity| !unseen.contains(&identity))
    };
    Ok(celeba.samples.iter().filter(wanted).collect())
}

/// The identities in the given splits.
fn identities(root: &Path, splits: &[Split], problems: &mut Problems) -> Result<BTreeSet<u32>> {
    let mut celeba = CelebA::open(root, problems.strict())?;
    problems.list.append(&mut celeba.problems);
    let found: BTreeSet<u32> =
        among(&celeba, splits, &BTreeSet::new())?.into_iter().filter_map(|sample| sample.identity).collect();
    if found.is_empty() {
        return Err(Error::file(root, "knows no identity in these splits").advise("check data.exclude"));
    }
    Ok(found)
}

/// The first box of each photo in a box file, by the photo's name in the annotations; `None` if it has none.
fn regions(file: &Path, celeba: &CelebA, problems: &mut Problems) -> Result<HashMap<String, Option<Rect>>> {
    let rows = boxes::rows(file, &mut Problems::new(true))?;
    let mut first = HashMap::<&str, usize>::new();
    let mut named: Vec<(&str, usize, Option<Rect>)> = Vec::new();
    for row in &rows {
        let place = *first.entry(&row.image).or_insert(named.len());
        if place == named.len() {
            named.push((&row.image, row.line, row.rect));
        }
        named[place].2 = named[place].2.or(row.rect);
    }
    let samples = celeba.samples.iter().map(|sample| (Some(sample.name.as_str()), sample.path.as_path()));
    let found = Names::new(samples).find(&named.iter().map(|(name, ..)| *name).collect::<Vec<_>>());
    let (mut regions, mut unknown) = (HashMap::new(), Vec::new());
    for ((name, line, rect), found) in named.into_iter().zip(found) {
        let at_line = |found| Error::new(format_args!("{}:{line}", file.display()), found);
        match found {
            NameMatch::Photo(number) => {
                regions.entry(celeba.samples[number].name.clone()).or_insert(rect);
            }
            NameMatch::Unknown => unknown.push((name, line)),
            NameMatch::Unclear(why) => {
                let error = at_line(format!("image {name:?}: {why}"));
                problems.report(error.advise("write the path as the annotations do"))?;
            }
        }
    }
    if let Some((name, line)) = unknown.first() {
        let found = format!("image {name:?} is none of the photos ({} such images)", unknown.len());
        let error = Error::new(format_args!("{}:{line}", file.display()), found);
        problems.report(error.advise(format_args!("is it of another part than {}?", celeba.root.display())))?;
    }
    Ok(regions)
}

/// Number of attributes that are learned.
fn learned(data: &Data) -> usize {
    data.attributes.unwrap_or(usize::MAX)
}

/// A sample with the first `attributes` of its attributes as tags, plus the face tag if used.
fn item(sample: &Sample, attributes: usize, region: Option<Rect>, stage: Stage) -> Item {
    let known = sample.attributes.iter().take(attributes);
    let mut tags: Vec<f32> = known.map(|present| f32::from(u8::from(*present))).collect();
    tags.extend((stage == Stage::FinetuneLnet).then_some(1.0));
    Item { photo: sample.path.clone(), region, class: sample.identity.unwrap_or(0), tags }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn boxes_are_those_of_the_photos_whatever_path_names_them() {
        let root = tempfile::tempdir().unwrap();
        let images = root.path().join("img_celeba");
        fs::create_dir(&images).unwrap();
        let (mut list, photos) = ("Smiling\n".to_string(), ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]);
        for name in photos {
            fs::write(images.join(name), "").unwrap();
            list += &format!("{name} 1\n");
        }
        fs::write(root.path().join("list_attr_celeba.txt"), list).unwrap();
        let celeba = CelebA::open(root.path(), true).unwrap();
        let file = root.path().join("boxes.csv");
        let here = images.join("b.jpg").display().to_string();
        let text = format!(
            "image,x,y,width,height,score\na.jpg,1,1,2,2,0.5\n\"{here}\",3,3,2,2,0.5\n{here},4,4,2,2,0.4\n\
             /moved/img_celeba/c.jpg,,,,,\n/other/e.jpg,5,5,2,2,0.5\nf.jpg,5,5,2,2,0.5\n/m/d.jpg,6,6,2,2,1\n/n/d.jpg,7,7,2,2,1\n"
        );
        fs::write(&file, text).unwrap();
        let mut problems = Problems::new(false);
        let found = regions(&file, &celeba, &mut problems).unwrap();
        let expected = [
            ("a.jpg", Some(Some(Rect::new(1.0, 1.0, 2.0, 2.0)))),
            ("b.jpg", Some(Some(Rect::new(3.0, 3.0, 2.0, 2.0)))),
            ("c.jpg", Some(None)),
            ("d.jpg", None),
        ];
        for (name, region) in expected {
            assert_eq!(found.get(name).copied(), region, "{name}");
        }
        let said: Vec<String> = problems.list.iter().map(Error::to_string).collect();
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0].contains("boxes.csv:8: image \"/m/d.jpg\": \"/n/d.jpg\" fits the same photo"), "{said:?}");
        assert!(said[1].contains("boxes.csv:9: image \"/n/d.jpg\": \"/m/d.jpg\" fits the same photo"), "{said:?}");
        assert!(
            said[2].contains("boxes.csv:6: image \"/other/e.jpg\" is none of the photos (2 such images)"),
            "{said:?}"
        );
        assert!(regions(&file, &celeba, &mut Problems::new(true)).is_err());
    }
}

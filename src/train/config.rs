//! A training file: one TOML per run. Paths in it are relative to the directory that the command runs in.

use super::{Change, Schedule, SgdConfig};
use crate::data::celeba::Split;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

/// The four stages of the paper's training (sections 2.1 and 2.2), and what each learns from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Stage {
    /// Softmax over the classes of an image folder.
    PretrainObjects,
    /// Sigmoid cross-entropy on the tags of whole images: a 1 x 1 convolution to the tags and a log-sum-exp over the map.
    FinetuneLnet,
    /// Softmax over identities, plus the similarity loss on the features.
    PretrainIdentities,
    /// Sigmoid cross-entropy on the attributes of a face region.
    FinetuneAttributes,
}

impl Stage {
    pub fn name(self) -> &'static str {
        match self {
            Self::PretrainObjects => "pretrain-objects",
            Self::FinetuneLnet => "finetune-lnet",
            Self::PretrainIdentities => "pretrain-identities",
            Self::FinetuneAttributes => "finetune-attributes",
        }
    }

    /// Whether tags are what is learned, and measured on the validation split.
    pub(super) fn has_tags(self) -> bool {
        matches!(self, Self::FinetuneLnet | Self::FinetuneAttributes)
    }
}

/// A training file. Written out, it has what shapes the result: no paths, whose content counts instead.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub stage: Stage,
    /// Network description without a head; the stage puts one on top.
    #[serde(skip_serializing)]
    pub net: PathBuf,
    /// Folder of the run: weights, checkpoint, log.
    #[serde(skip_serializing)]
    pub output: PathBuf,
    /// Weights to start from; layers that they lack (a head of another stage) start from random ones.
    #[serde(skip_serializing)]
    pub init: Option<PathBuf>,
    #[serde(default = "one")]
    pub seed: u64,
    /// Samples of a step.
    pub batch: usize,
    pub epochs: usize,
    /// Dropout on the input and on the output of the net's last layer.
    #[serde(default)]
    pub dropout: [f32; 2],
    /// Weight of the similarity loss beside the softmax (`pretrain-identities`); 0 leaves it out.
    #[serde(default)]
    pub similarity: f32,
    /// Batches hold this many samples of each of `batch / per_identity` identities (`pretrain-identities`).
    #[serde(default = "two")]
    pub per_identity: usize,
    /// Sharpness of the log-sum-exp over the map (`finetune-lnet`).
    #[serde(default = "four")]
    pub sharpness: f32,
    /// Epochs between two looks at the validation split; the last epoch is always looked at.
    #[serde(default = "usize_one", skip_serializing)]
    pub validate_every: usize,
    /// Steps between two checkpoints.
    #[serde(default = "two_hundred", skip_serializing)]
    pub checkpoint_every: usize,
    pub data: Data,
    pub view: View,
    #[serde(default)]
    pub optimizer: SgdConfig,
    pub schedule: Schedule,
}

/// `[data]`: what to learn from.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// CelebA's folder; for `pretrain-objects` a folder with one folder per class.
    #[serde(skip_serializing)]
    pub root: PathBuf,
    /// Splits of CelebA to train on.
    #[serde(default = "train_split")]
    pub splits: Vec<Split>,
    /// Split of CelebA to measure on.
    pub validation: Option<Split>,
    /// Face regions: a box file; without it, or for photos not in it, the whole photo is the region.
    #[serde(skip_serializing)]
    pub boxes: Option<PathBuf>,
    /// People who must stay unseen: photos of theirs are left out, among pasted faces too.
    pub exclude: Option<Exclude>,
    /// Learn this many of the attributes only, the first ones (paper, Fig. 7(d)).
    pub attributes: Option<usize>,
    /// At most this many photos, the first ones.
    pub limit: Option<usize>,
    /// Stop at the first bad line or missing photo of the annotations instead of reporting and skipping it.
    #[serde(default, skip_serializing)]
    pub strict: bool,
}

/// `[data.exclude]`: the identities in some splits of a CelebA folder.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Exclude {
    #[serde(skip_serializing)]
    pub root: PathBuf,
    pub splits: Vec<Split>,
}

/// `[view]`: how a sample of the net's input size is cut out of a photo.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum View {
    /// The region, scaled to `size` = [height, width], is the frame that crops are cut from, mirrored half of the time.
    Frame {
        size: [usize; 2],
        /// The crop grows or shrinks by up to this share.
        #[serde(default)]
        scale: f32,
        /// And moves by up to this share of its side beyond the frame.
        #[serde(default)]
        shift: f32,
    },
    /// The photo, scaled to this shorter side; the centre and the four corners, and their mirror images.
    TenCrop { short: usize },
    /// The photo in a scene: pasted with soft edges over a background.
    Scene {
        /// An image folder without the subject.
        #[serde(skip_serializing)]
        backgrounds: PathBuf,
        /// Aligned faces in CelebA's layout that stand in for photos.
        #[serde(skip_serializing)]
        faces: Option<PathBuf>,
        /// Share of samples made of `faces`.
        #[serde(default)]
        face_share: f32,
        /// Share of samples without the subject, and so without a tag: a background, every other time with another one
        /// pasted on it.
        #[serde(default)]
        empty_share: f32,
        /// Share of samples with one of `faces` that is larger or smaller than `face_scale` allows, by a factor from 1.3
        /// to 3: no tag either, so that the net responds to faces of one size.
        #[serde(default)]
        other_size_share: f32,
        /// Share of all samples without colour, so that the net knows faces in black-and-white photos, too. Not told where it
        /// is 0, as runs were made before there was such a share.
        #[serde(default, skip_serializing_if = "is_zero")]
        grey_share: f32,
        /// Least and greatest longer side of a photo, as a share of the input.
        photo_scale: [f32; 2],
        /// The same for `faces`.
        #[serde(default = "whole")]
        face_scale: [f32; 2],
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(value: &f32) -> bool {
    *value == 0.0
}
fn one() -> u64 {
    1
}
fn usize_one() -> usize {
    1
}
fn two() -> usize {
    2
}
fn four() -> f32 {
    4.0
}
fn two_hundred() -> usize {
    200
}
fn whole() -> [f32; 2] {
    [1.0, 1.0]
}
fn train_split() -> Vec<Split> {
    vec![Split::Train]
}

impl Config {
    /// Reads a training file; each of `changes` is a `key=value` that replaces one of its values, as in
    /// `schedule.rate=0.01`.
    ///
    /// # Errors
    /// An unreadable file, broken TOML (with its line), unknown or missing keys, values out of range.
    pub fn load(path: impl AsRef<Path>, changes: &[String]) -> Result<Self> {
        Self::load_changed(path, &changes.iter().map(|change| Change::parse(change)).collect::<Result<Vec<_>>>()?)
    }

    /// The same with changes that are parsed already.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_changed(path: impl AsRef<Path>, changes: &[Change]) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::file(path, e).advise("give the path of a training file (TOML)"))?;
        let mut table: toml::Table = toml::from_str(&text).map_err(|e| Error::toml(path.display(), &text, &e))?;
        for change in changes {
            change.apply(&mut table).map_err(|e| e.within(path.display()))?;
        }
        let config: Self = table.try_into().map_err(|e: toml::de::Error| Error::file(path, e))?;
        config.check().map_err(|e| e.within(path.display()))?;
        Ok(config)
    }

    /// The files and folders that a run reads, by key.
    pub fn reads(&self) -> Vec<(&'static str, &Path)> {
        let mut paths = vec![("net", Some(&self.net)), ("init", self.init.as_ref())];
        paths.extend([("data.root", Some(&self.data.root)), ("data.boxes", self.data.boxes.as_ref())]);
        paths.push(("data.exclude.root", self.data.exclude.as_ref().map(|exclude| &exclude.root)));
        if let View::Scene { backgrounds, faces, .. } = &self.view {
            paths.extend([("view.backgrounds", Some(backgrounds)), ("view.faces", faces.as_ref())]);
        }
        paths.into_iter().filter_map(|(key, path)| Some((key, path?.as_path()))).collect()
    }

    fn check(&self) -> Result<()> {
        let refuse = |key: &str, found: String, advice: &str| Err(Error::new(key, found).advise(advice));
        let share = |x: f32| (0.0..=1.0).contains(&x);
        if self.batch == 0 || self.epochs == 0 || self.checkpoint_every == 0 || self.validate_every == 0 {
            return refuse(
                "batch, epochs, checkpoint_every, validate_every",
                "one of them is 0".into(),
                "give at least 1",
            );
        }
        if self.dropout.iter().any(|p| !(0.0..1.0).contains(p)) {
            return refuse("dropout", format!("is {:?}", self.dropout), "give two shares from 0 to below 1");
        }
        if self.stage == Stage::PretrainIdentities
            && (self.per_identity == 0 || !self.batch.is_multiple_of(self.per_identity))
        {
            let found = format!("{} does not divide the batch of {}", self.per_identity, self.batch);
            return refuse("per_identity", found, "make batch a multiple of it");
        }
        if self.data.validation.is_some() && !self.stage.has_tags() {
            let found = format!("{} has no tags to measure", self.stage.name());
            return refuse("data.validation", found, "remove it");
        }
        if !(self.similarity >= 0.0 && self.similarity.is_finite()) {
            return refuse("similarity", format!("is {}", self.similarity), "give a weight of 0 or more");
        }
        match &self.view {
            View::Frame { size, scale, shift } => {
                if size.contains(&0) || !(0.0..1.0).contains(scale) || !(0.0..1.0).contains(shift) {
                    return refuse(
                        "view",
                        format!("size {size:?}, scale {scale}, shift {shift}"),
                        "sizes are pixels, scale and shift shares below 1",
                    );
                }
            }
            View::TenCrop { short } if *short == 0 => {
                return refuse("view.short", "is 0".into(), "give pixels");
            }
            View::TenCrop { .. } => {}
            View::Scene { face_share, empty_share, other_size_share, grey_share, photo_scale, face_scale, .. } => {
                if !share(*grey_share) {
                    return refuse("view.grey_share", format!("is {grey_share}"), "give a share, at most 1");
                }
                let shares = [*face_share, *empty_share, *other_size_share];
                if !shares.iter().all(|s| share(*s)) || !share(shares.iter().sum()) {
                    return refuse(
                        "view",
                        format!(
                            "face_share {face_share}, empty_share {empty_share}, other_size_share {other_size_share}"
                        ),
                        "their sum is a share, at most 1",
                    );
                }
                for scale in [photo_scale, face_scale] {
                    if !(scale[0] > 0.0 && scale[0] <= scale[1] && scale[1] <= 8.0) {
                        return refuse("view", format!("scale {scale:?}"), "give [least, greatest], above 0");
                    }
                }
            }
        }
        self.schedule.check()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        stage = "finetune-attributes"
        net = "nets/anet.toml"
        output = "runs/anet"
        batch = 8
        epochs = 2
        [data]
        root = "data"
        splits = ["train", "val"]
        [view]
        kind = "frame"
        size = [109, 89]
        [schedule]
        kind = "one-cycle"
        rate = 0.03
    "#;

    fn load(text: &str, changes: &[&str]) -> Result<Config> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        Config::load(file.path(), &changes.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn values_can_be_replaced_from_the_command_line() {
        let config = load(TEXT, &["schedule.rate=0.5", "data.root=/else where", "optimizer.momentum=0.8"]).unwrap();
        assert_eq!(config.schedule.rate(0.3, 1.0), 0.5);
        assert_eq!(config.data.root, Path::new("/else where"));
        assert_eq!(config.optimizer.momentum, 0.8);
        assert!(config.optimizer.nesterov);
    }

    #[test]
    fn mistakes_are_named() {
        for (change, expected) in [
            ("epocs=3", "epocs"),
            ("batch=0", "is 0"),
            ("dropout=[0.5,1.0]", "dropout"),
            ("data.splits=['trian']", "trian"),
            ("schedule.rate=-1", "rate"),
            ("view.size=[0,3]", "view"),
            ("nonsense", "key=value"),
        ] {
            let error = load(TEXT, &[change]).unwrap_err().to_string();
            assert!(error.contains(expected), "{change}: {error}");
        }
        let error = load("stage = \n", &[]).unwrap_err().to_string();
        assert!(error.contains(":1: "), "{error}");
    }
}

//! A training file: one TOML file per run. Paths in it are relative to the directory in which the command runs.

use super::{Change, Schedule};
use crate::Result;
use crate::data::celeba::Split;
use crate::net::SgdConfig;
use crate::ops::global_pool::Sharpness;
use crate::settings::{Document, Mistake, limits, tagged, within};
use crate::shipped::Source;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};

limits! {
    /// The largest TOML integer.
    Seed: u64 = 0, i64::MAX as u64;
    /// Samples per step, or per identity in a step.
    Samples: usize = 1, 1 << 16;
    /// Parts of a batch.
    Shards: usize = 1, 1 << 16;
    /// Epochs of a run, or between two events of it.
    Epochs: usize = 1, 1_000_000;
    Steps: usize = 1, 1_000_000_000;
    /// Photos.
    Count: usize = 1, 1_000_000_000;
    /// The dropout rate, or the shift of a crop: a fraction below 1.
    Part: f32 = 0.0, 0.99;
    /// A fraction of samples.
    Share: f32 = 0.0, 1.0;
    /// The weight of a loss relative to another.
    Weight: f32 = 0.0, 1000.0;
    Tags: usize = 1, 1 << 16;
    /// A side of a photo that samples are cut from, in pixels.
    Pixels: usize = 1, 4096;
    /// A side of a pasted photo as a fraction of the input.
    Scale: f32 = 0.01, 8.0;
}

/// The four stages of the paper's training (sections 2.1 and 2.2), and the targets of each.
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
    /// The name in training files.
    pub fn name(self) -> &'static str {
        match self {
            Self::PretrainObjects => "pretrain-objects",
            Self::FinetuneLnet => "finetune-lnet",
            Self::PretrainIdentities => "pretrain-identities",
            Self::FinetuneAttributes => "finetune-attributes",
        }
    }

    /// Whether the targets are tags, which are then measured on the validation split.
    pub(super) fn has_tags(self) -> bool {
        matches!(self, Self::FinetuneLnet | Self::FinetuneAttributes)
    }
}

/// A training file. Serialised, it contains what determines the result: no paths, since their content is hashed separately.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// What is trained.
    pub stage: Stage,
    /// Network description without a head, which the stage adds.
    #[serde(skip_serializing)]
    pub net: PathBuf,
    /// Folder of the run: weights, checkpoint, log.
    #[serde(skip_serializing)]
    pub output: PathBuf,
    /// Initial weights; layers that are missing there (the head, from another stage) are initialised randomly.
    #[serde(skip_serializing)]
    pub init: Option<PathBuf>,
    /// Equal seeds give equal runs.
    #[serde(default = "one", deserialize_with = "within::<Seed, _, _>")]
    pub seed: u64,
    /// Samples per step.
    #[serde(deserialize_with = "within::<Samples, _, _>")]
    pub batch: usize,
    /// Parts of equal size that the gradients of a batch are computed in, one after the other or on several ranks, before they are
    /// summed in an order that depends on nothing else. Each has dropout masks of its own, and pairs of one identity are counted
    /// within it. Omitted from the provenance if 1, for compatibility with runs made before the setting existed.
    #[serde(default = "usize_one", skip_serializing_if = "is_one", deserialize_with = "within::<Shards, _, _>")]
    pub shards: usize,
    /// Passes over all training photos.
    #[serde(deserialize_with = "within::<Epochs, _, _>")]
    pub epochs: usize,
    /// Dropout on the input and on the output of the net's last layer.
    #[serde(default, deserialize_with = "within::<Part, _, _>")]
    pub dropout: [f32; 2],
    /// Weight of the similarity loss relative to the softmax (`pretrain-identities`); 0 disables it.
    #[serde(default, deserialize_with = "within::<Weight, _, _>")]
    pub similarity: f32,
    /// Batches contain this number of samples of each of `batch / per_identity` identities (`pretrain-identities`).
    #[serde(default = "two", deserialize_with = "within::<Samples, _, _>")]
    pub per_identity: usize,
    /// Sharpness of the log-sum-exp over the map (`finetune-lnet`).
    #[serde(default = "four", deserialize_with = "within::<Sharpness, _, _>")]
    pub sharpness: f32,
    /// Epochs between two validations; the last epoch is always validated.
    #[serde(default = "usize_one", skip_serializing, deserialize_with = "within::<Epochs, _, _>")]
    pub validate_every: usize,
    /// Steps between two checkpoints.
    #[serde(default = "two_hundred", skip_serializing, deserialize_with = "within::<Steps, _, _>")]
    pub checkpoint_every: usize,
    /// Photos and their tags.
    pub data: Data,
    /// How samples are cut from photos.
    #[serde(serialize_with = "tagged")]
    pub view: View,
    /// Momentum, weight decay and related settings.
    #[serde(default)]
    pub optimizer: SgdConfig,
    /// The learning rate.
    #[serde(serialize_with = "tagged")]
    pub schedule: Schedule,
}

/// `[data]`: the training data.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Data {
    /// CelebA's folder; for `pretrain-objects` a folder with one sub-folder per class.
    #[serde(skip_serializing)]
    pub root: PathBuf,
    /// Splits of CelebA to train on.
    #[serde(default = "train_split")]
    pub splits: Vec<Split>,
    /// Split of CelebA to validate on.
    pub validation: Option<Split>,
    /// Face regions: a box file; without it, or for photos not in it, the region is the whole photo.
    #[serde(skip_serializing)]
    pub boxes: Option<PathBuf>,
    /// Excluded identities: their photos are left out, also among pasted faces.
    pub exclude: Option<Exclude>,
    /// Learn only the first attributes, this many (paper, Fig. 7(d)).
    #[serde(default, deserialize_with = "within::<Tags, _, _>")]
    pub attributes: Option<usize>,
    /// Use at most this many photos, the first ones.
    #[serde(default, deserialize_with = "within::<Count, _, _>")]
    pub limit: Option<usize>,
    /// Stop at the first invalid line or missing photo of the annotations instead of reporting and skipping it.
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

/// `[view]`: how a sample of the net's input size is cut out of a photo; `kind` names the variant ([`tagged`]).
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum View {
    /// The region, scaled to `size` = [height, width], is the frame that crops are cut from, mirrored half of the time.
    Frame {
        /// Height and width of the frame.
        #[serde(deserialize_with = "within::<Pixels, _, _>")]
        size: [usize; 2],
        /// Scale jitter: the crop is enlarged or reduced by up to this fraction.
        #[serde(default, deserialize_with = "within::<Part, _, _>")]
        scale: f32,
        /// Shift: the crop moves by up to this fraction of its side beyond the frame.
        #[serde(default, deserialize_with = "within::<Part, _, _>")]
        shift: f32,
    },
    /// The photo, scaled to this shorter side; the centre and corner crops, and their mirror images.
    TenCrop {
        /// Shorter side of the photo, in pixels.
        #[serde(deserialize_with = "within::<Pixels, _, _>")]
        short: usize,
    },
    /// The photo in a scene: pasted with soft edges over a background.
    Scene {
        /// An image folder without the subject.
        #[serde(skip_serializing)]
        backgrounds: PathBuf,
        /// Aligned faces in CelebA's layout that are used instead of photos.
        #[serde(skip_serializing)]
        faces: Option<PathBuf>,
        /// Fraction of samples with one of `faces`.
        #[serde(default, deserialize_with = "within::<Share, _, _>")]
        face_share: f32,
        /// Fraction of samples without the subject, and therefore without a tag: a background, every other time with another one
        /// pasted onto it.
        #[serde(default, deserialize_with = "within::<Share, _, _>")]
        empty_share: f32,
        /// Fraction of samples with one of `faces` that is larger or smaller than `face_scale` allows, by a factor from 1.3
        /// to 3: also without a tag, so that the net responds to faces of one size.
        #[serde(default, deserialize_with = "within::<Share, _, _>")]
        other_size_share: f32,
        /// Fraction of all samples in greyscale, so that the net recognises faces in black-and-white photos as well. Omitted from
        /// the provenance if 0, for compatibility with runs made before the setting existed.
        #[serde(default, skip_serializing_if = "is_zero", deserialize_with = "within::<Share, _, _>")]
        grey_share: f32,
        /// Minimum and maximum longer side of a photo, as a fraction of the input.
        #[serde(deserialize_with = "within::<Scale, _, _>")]
        photo_scale: [f32; 2],
        /// The same for `faces`.
        #[serde(default = "whole", deserialize_with = "within::<Scale, _, _>")]
        face_scale: [f32; 2],
    },
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_zero(value: &f32) -> bool {
    *value == 0.0
}
#[expect(clippy::trivially_copy_pass_by_ref, reason = "as serde calls it")]
fn is_one(value: &usize) -> bool {
    *value == 1
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
    /// Reads a training file; each of `changes` is a `key=value` that replaces one of its values, for example
    /// `schedule.rate=0.01`.
    ///
    /// # Errors
    /// An unreadable file, invalid TOML (with its line), unknown or missing keys, values out of range.
    pub fn load(path: impl AsRef<Path>, changes: &[String]) -> Result<Self> {
        Self::load_changed(path, &changes.iter().map(|change| Change::parse(change)).collect::<Result<Vec<_>>>()?)
    }

    /// The same with changes that are already parsed.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_changed(path: impl AsRef<Path>, changes: &[Change]) -> Result<Self> {
        let mut document = Document::load(path, "give the path of a training file (TOML)")?;
        for change in changes {
            document.change(change)?;
        }
        document.untag("view")?;
        document.untag("schedule")?;
        let config: Self = document.read()?;
        config.check().map_err(|mistake| document.mistake(&mistake))?;
        Ok(config)
    }

    /// Samples of a shard.
    pub fn shard(&self) -> usize {
        self.batch / self.shards
    }

    /// The files and folders that a run reads, by key.
    pub fn reads(&self) -> Vec<(&'static str, &Path)> {
        let on_disk = Source::net(&self.net).path().is_some();
        let mut paths = vec![("net", on_disk.then_some(&self.net)), ("init", self.init.as_ref())];
        paths.extend([("data.root", Some(&self.data.root)), ("data.boxes", self.data.boxes.as_ref())]);
        paths.push(("data.exclude.root", self.data.exclude.as_ref().map(|exclude| &exclude.root)));
        if let View::Scene { backgrounds, faces, .. } = &self.view {
            paths.extend([("view.backgrounds", Some(backgrounds)), ("view.faces", faces.as_ref())]);
        }
        paths.into_iter().filter_map(|(key, path)| Some((key, path?.as_path()))).collect()
    }

    /// Checks that involve several values.
    fn check(&self) -> Result<(), Mistake> {
        if self.stage == Stage::PretrainIdentities && !self.batch.is_multiple_of(self.per_identity) {
            let found = format!("{} does not divide the batch of {}", self.per_identity, self.batch);
            return Err(Mistake::at("per_identity", format!("{found}; make batch a multiple of it")));
        }
        if !self.batch.is_multiple_of(self.shards) {
            let found =
                format!("{} does not divide the batch of {}; make batch a multiple of it", self.shards, self.batch);
            return Err(Mistake::at("shards", found));
        }
        if self.stage == Stage::PretrainIdentities && !self.shard().is_multiple_of(self.per_identity) {
            let found = format!(
                "{} makes parts of {} samples, which split the {} of an identity; make batch / shards a multiple of per_identity",
                self.shards,
                self.shard(),
                self.per_identity
            );
            return Err(Mistake::at("shards", found));
        }
        if self.data.validation.is_some() && !self.stage.has_tags() {
            let found = format!("{} has no tags to measure; remove it", self.stage.name());
            return Err(Mistake::at("data.validation", found));
        }
        if let View::Scene { face_share, empty_share, other_size_share, photo_scale, face_scale, .. } = &self.view {
            let sum = face_share + empty_share + other_size_share;
            if sum > 1.0 {
                let found = format!("face_share, empty_share and other_size_share are {sum} together; write at most 1");
                return Err(Mistake::at("view", found));
            }
            for (key, [least, most]) in [("view.photo_scale", photo_scale), ("view.face_scale", face_scale)] {
                if least > most {
                    return Err(Mistake::at(key, format!("is [{least}, {most}]; write [least, greatest]")));
                }
            }
        }
        Ok(())
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
            ("epocs=3", "--set epocs: unknown field `epocs`"),
            ("batch=0", "--set batch: 0 is out of range; write 1 to 65536"),
            ("shards=3", "--set shards: 3 does not divide the batch of 8; make batch a multiple of it"),
            ("dropout=[0.5,1.0]", "--set dropout: 1.0 is out of range; write 0 to 0.99"),
            ("data.splits=['trian']", "trian"),
            ("schedule.rate=-1", "--set schedule.rate: -1 is out of range"),
            ("schedule.rate=nan", "--set schedule.rate: NaN is out of range"),
            ("view.size=[0,3]", "--set view.size: 0 is out of range; write 1 to 4096"),
            ("optimizer.momentum=1", "--set optimizer.momentum: 1 is out of range; write 0 to 0.9999"),
            ("optimizer.rate_factors.c1=-1", "--set optimizer.rate_factors.c1: -1 is out of range"),
            ("nonsense", "key=value"),
        ] {
            let error = load(TEXT, &[change]).unwrap_err().to_string();
            assert!(error.contains(expected), "{change}: {error}");
        }
        let error = load("stage = \n", &[]).unwrap_err().to_string();
        assert!(error.contains(":1: "), "{error}");
    }
}

//! `kind = "scenes"`: photos with known boxes, pasted into other photos, like `weft data scenes`.

use super::{Done, Event, Tools, Work, inputs};
use crate::Result;
use crate::data::scenes::{BOXES, Config, write};
use crate::data::{Problems, folder};
use crate::error::At;
use crate::eval::photos;
use crate::provenance::{Fingerprint, Provenance};
use crate::settings::{limits, within};
use crate::train::Seed;
use serde::Deserialize;
use std::path::{Path, PathBuf};

limits! {
    /// The number of the first scene.
    First: usize = 0, 1_000_000_000;
    Photos: usize = 1, 1_000_000;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenes {
    /// A box file.
    photos: PathBuf,
    backgrounds: PathBuf,
    #[serde(default, deserialize_with = "within::<First, _, _>")]
    first: usize,
    #[serde(deserialize_with = "within::<Photos, _, _>")]
    count: usize,
    #[serde(default = "inputs::seed", deserialize_with = "within::<Seed, _, _>")]
    seed: u64,
}

/// Folder of the scenes.
const IMAGES: &str = "images";

impl Work for Scenes {
    fn reads(&self) -> Vec<(String, PathBuf)> {
        vec![("photos".into(), self.photos.clone()), ("backgrounds".into(), self.backgrounds.clone())]
    }

    fn provenance(&self) -> Result<Provenance> {
        let mut list = Provenance::default();
        inputs::photos(&mut list, &photos::open(&self.photos, None, &mut Problems::new(true))?)?;
        let mut print = Fingerprint::default();
        // The run itself reports what is skipped there.
        for photo in folder::photos(&self.backgrounds, &mut Problems::new(false))? {
            print.photo(&photo)?;
        }
        list.set("backgrounds", print.finish());
        list.set("first", self.first);
        list.set("count", self.count);
        list.set("seed", self.seed);
        Ok(list)
    }

    fn run(&self, folder: &Path, tools: &mut Tools<'_>) -> Result<Done> {
        let images = folder.join(IMAGES);
        if images.exists() {
            std::fs::remove_dir_all(&images).at(&images)?;
        }
        let config = Config { first: self.first, scenes: self.count, seed: self.seed, ..Config::default() };
        let passed_over = write(&config, &self.photos, &self.backgrounds, folder)?;
        (tools.tell)(Event::Skipped(&passed_over));
        let name = |path: PathBuf| path.file_name().map(|name| format!("{IMAGES}/{}", name.to_string_lossy()));
        let scenes = folder::photos(&images, &mut Problems::new(true))?;
        let mut files: Vec<String> = scenes.into_iter().filter_map(name).collect();
        files.push(BOXES.into());
        Ok(Done { files, result: format!("{} scenes", self.count) })
    }
}

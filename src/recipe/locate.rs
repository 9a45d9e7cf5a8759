//! `kind = "locate"`: the windows that a model finds in photos, as a box file. Photos without a face are not in it.

use super::{Done, Event, Tools, Work, inputs};
use crate::Result;
use crate::data::boxes;
use crate::data::celeba::{CelebA, Split};
use crate::data::photo::Photo;
use crate::face::{Model, Window};
use crate::ingredients::Ingredients;
use crate::weights::{sweep, write_atomic};
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locate {
    model: PathBuf,
    data: PathBuf,
    splits: Vec<Split>,
    window: Window,
}

const FILE: &str = "boxes.csv";

impl Work for Locate {
    fn reads(&self) -> Vec<(String, PathBuf)> {
        vec![("model".into(), self.model.clone()), ("data".into(), self.data.clone())]
    }

    fn ingredients(&self) -> Result<Ingredients> {
        let mut list = Ingredients::default();
        inputs::model(&mut list, &self.model)?;
        inputs::data(&mut list, &self.data, &self.splits)?;
        list.set("window", self.window.name());
        Ok(list)
    }

    fn run(&self, folder: &Path, tools: &mut Tools<'_>) -> Result<Done> {
        let mut model = Model::load(&self.model, tools.device)?;
        let celeba = CelebA::open(&self.data, false)?;
        let samples: Vec<_> = self.splits.iter().flat_map(|split| celeba.split(*split)).collect();
        let (mut lines, mut unreadable) = (vec![boxes::HEADER.to_string()], Vec::new());
        for (done, sample) in samples.iter().enumerate() {
            match Photo::open(&sample.path) {
                Ok(photo) => {
                    let face = model.locate(&photo)?;
                    lines.extend(face.map(|face| boxes::line(&sample.name, self.window.of(&face, &model), face.score)));
                }
                Err(error) => unreadable.push(error),
            }
            tools.photos(done + 1, samples.len())?;
        }
        (tools.tell)(Event::Skipped(&unreadable));
        sweep(folder, &[FILE]);
        write_atomic(folder.join(FILE), |file| writeln!(file, "{}", lines.join("\n")))?;
        let result = format!("a face in {} of {} photos", lines.len() - 1, samples.len());
        Ok(Done { files: vec![FILE.into()], result })
    }
}

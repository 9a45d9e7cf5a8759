//! `kind = "locate"`: the windows that a model finds in photos, as a box file with a row for every readable photo.

use super::{Done, Event, Tools, Work, inputs};
use crate::Result;
use crate::data::boxes;
use crate::data::celeba::Split;
use crate::data::photo::Photo;
use crate::face::{FaceWindow, Model};
use crate::provenance::Provenance;
use crate::weights::{sweep, write_atomic};
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locate {
    model: PathBuf,
    data: PathBuf,
    splits: Vec<Split>,
    window: FaceWindow,
}

const FILE: &str = "boxes.csv";

impl Work for Locate {
    fn reads(&self) -> Vec<(String, PathBuf)> {
        vec![("model".into(), self.model.clone()), ("data".into(), self.data.clone())]
    }

    fn provenance(&self) -> Result<Provenance> {
        let mut list = Provenance::default();
        inputs::model(&mut list, &self.model)?;
        inputs::data(&mut list, &self.data, &self.splits)?;
        list.set("window", self.window.name());
        Ok(list)
    }

    fn run(&self, folder: &Path, tools: &mut Tools<'_>) -> Result<Done> {
        let mut model = Model::load(&self.model, tools.device)?;
        let celeba = tools.annotations(&self.data)?;
        let parts = self.splits.iter().map(|split| celeba.split(*split)).collect::<Result<Vec<_>>>()?;
        let samples: Vec<_> = parts.into_iter().flatten().collect();
        let path = folder.join(FILE);
        let (mut text, mut found, mut unreadable) = (Vec::new(), 0, Vec::new());
        let mut rows = boxes::Writer::new(&mut text, &path)?;
        for (done, sample) in samples.iter().enumerate() {
            match Photo::open(&sample.path) {
                Ok(photo) => {
                    let face = model.locate(&photo)?;
                    found += usize::from(face.is_some());
                    rows.row(&sample.name, face.map(|face| (self.window.of(&face, &model), face.score)))?;
                }
                Err(error) => unreadable.push(error),
            }
            tools.photos(done + 1, samples.len())?;
        }
        (tools.tell)(Event::Skipped(&unreadable));
        sweep(folder, &[FILE]);
        write_atomic(path, |file| file.write_all(&text))?;
        let result = format!("a face in {found} of {} photos", samples.len());
        Ok(Done { files: vec![FILE.into()], result })
    }
}

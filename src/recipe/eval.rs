//! `kind = "eval"`: evaluates a model on annotated photos; the result is the output of `weft eval --json`.

use super::{Done, Event, Tools, Work, inputs};
use crate::data::Problems;
use crate::data::celeba::Split;
use crate::eval::document::document;
use crate::eval::{Options, evaluate, photos};
use crate::face::{FaceWindow, Model};
use crate::metrics::means;
use crate::provenance::Provenance;
use crate::weights::{sweep, write_atomic};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Eval {
    model: PathBuf,
    data: PathBuf,
    /// Split of data in CelebA's layout.
    split: Option<Split>,
    /// The window that is compared with the boxes.
    #[serde(default)]
    window: FaceWindow,
}

const FILE: &str = "eval.json";

impl Work for Eval {
    fn reads(&self) -> Vec<(String, PathBuf)> {
        vec![("model".into(), self.model.clone()), ("data".into(), self.data.clone())]
    }

    fn provenance(&self) -> Result<Provenance> {
        let mut list = Provenance::default();
        inputs::model(&mut list, &self.model)?;
        inputs::photos(&mut list, &photos::open(&self.data, self.split, &mut Problems::new(false))?)?;
        list.set("window", self.window.name());
        Ok(list)
    }

    fn run(&self, folder: &Path, tools: &mut Tools<'_>) -> Result<Done> {
        let mut model = Model::load(&self.model, tools.device)?;
        let mut problems = Problems::new(false);
        let photos = photos::open(&self.data, self.split, &mut problems)?;
        let options = Options { limit: usize::MAX, examples: false, window: self.window };
        let found =
            evaluate(&mut model, &photos, &[], options, &mut problems, &mut |done, total| tools.photos(done, total))?;
        (tools.tell)(Event::Skipped(&problems.list));
        let path = folder.join(FILE);
        let text = serde_json::to_string_pretty(&document(&found)).map_err(|e| Error::file(&path, e))?;
        sweep(folder, &[FILE]);
        write_atomic(path, |file| writeln!(file, "{text}"))?;
        let percent = |share: f64| format!("{:.2} %", 100.0 * share);
        let mut result = Vec::new();
        if !found.attributes.is_empty() {
            let mean = means(&found.attributes);
            result.push(format!("accuracy {}", percent(mean.accuracy)));
            result.push(format!("balanced {}", percent(mean.balanced_accuracy)));
            result.push(format!("majority {}", percent(mean.majority)));
        }
        if let Some(found) = found.localisation.first() {
            result.push(format!("recall {}", percent(found.recall())));
            result.push(format!("middle in the box {}", percent(found.center_in_box)));
        }
        Ok(Done { files: vec![FILE.into()], result: result.join(", ") })
    }
}

//! `kind = "svm"`: the linear SVMs of a model, trained on the faces that it finds; the step's folder becomes the bundle with
//! them.

use super::bundle::copy;
use super::{Done, Event, Tools, Work, inputs};
use crate::data::celeba::Split;
use crate::error::At;
use crate::face::{self, BUNDLE, FaceSamples, Model};
use crate::provenance::Provenance;
use crate::settings::within;
use crate::train::Seed;
use crate::weights::sweep;
use crate::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Svm {
    model: PathBuf,
    data: PathBuf,
    /// Split with people that no network was trained on.
    split: Split,
    /// Whether the photos are aligned faces: localisation is skipped.
    #[serde(default)]
    aligned: bool,
    #[serde(default = "inputs::seed", deserialize_with = "within::<Seed, _, _>")]
    seed: u64,
}

impl Work for Svm {
    fn reads(&self) -> Vec<(String, PathBuf)> {
        vec![("model".into(), self.model.clone()), ("data".into(), self.data.clone())]
    }

    fn provenance(&self) -> Result<Provenance> {
        let mut list = Provenance::default();
        inputs::model(&mut list, &self.model)?;
        inputs::data(&mut list, &self.data, &[self.split])?;
        list.set("aligned", self.aligned);
        list.set("seed", self.seed);
        Ok(list)
    }

    fn run(&self, folder: &Path, tools: &mut Tools<'_>) -> Result<Done> {
        let machines = face::Bundle::load(self.model.join(BUNDLE))?.svm.display().to_string();
        let mut files = inputs::bundle_files(&self.model)?;
        files.retain(|name| *name != machines);
        for name in &files {
            copy(&self.model.join(name), &folder.join(name))?;
        }
        files.push(machines.clone());
        sweep(folder, &files.iter().map(String::as_str).collect::<Vec<_>>());
        // SVMs of a previous ANet may not fit this one.
        let path = folder.join(&machines);
        if path.exists() {
            std::fs::remove_file(&path).at(&path)?;
        }
        let mut model = Model::load(folder, tools.device)?;
        let celeba = tools.annotations(&self.data)?;
        let samples = celeba.split(self.split)?;
        celeba.require_identities(&samples, "choosing C on held-out people")?;
        let faces = FaceSamples::look(&mut model, &samples, self.aligned, false, &mut |done| {
            tools.photos(done, samples.len())
        })?;
        (tools.tell)(Event::Skipped(&faces.unreadable));
        let (without, names) = (faces.without, &celeba.attribute_names);
        let (machines, report) =
            faces.train(model.dims(), names, self.seed, &|_| ()).map_err(|e: Error| e.within(self.data.display()))?;
        machines.save(path)?;
        let accuracy = 100.0 * report.mean_accuracy();
        Ok(Done { files, result: format!("{accuracy:.2} % on held-out people, {without} photos without a face") })
    }
}

//! `kind = "calibrate"`: fits the constants of a bundle's two LNets, and its threshold, to photos whose faces are known and to
//! photos without faces; the step's folder becomes the calibrated bundle.

use super::bundle::{copy, edit, put};
use super::{Done, Event, Tools, Work, inputs};
use crate::data::Problems;
use crate::data::celeba::Split;
use crate::data::photo::Photo;
use crate::eval::photos::{self, Photos};
use crate::face::{BUNDLE, FaceWindow, Model};
use crate::locate::{CalibrationSample, Fit, StageConfig};
use crate::provenance::Provenance;
use crate::settings::{Mistake, limits, within};
use crate::train::Count;
use crate::weights::sweep;
use crate::{Error, Result};
use serde::Deserialize;
use std::path::{Path, PathBuf};

limits! {
    /// Number of windows per photo.
    PerPhoto: f32 = 0.0, 1000.0;
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Calibrate {
    model: PathBuf,
    /// Photos with boxes.
    data: PathBuf,
    /// Split of data in CelebA's layout.
    split: Option<Split>,
    /// What the boxes enclose.
    window: FaceWindow,
    /// Photos without a face; without any, the threshold is unchanged.
    backgrounds: Option<PathBuf>,
    /// Maximum number of photos, and of backgrounds, sampled evenly from each.
    #[serde(default = "all", deserialize_with = "within::<Count, _, _>")]
    limit: usize,
    /// Number of windows per background that may reach the threshold.
    #[serde(default = "half", deserialize_with = "within::<PerPhoto, _, _>")]
    false_positives: f32,
}

fn all() -> usize {
    usize::MAX
}

fn half() -> f32 {
    0.5
}

/// The stages in `[locate]`.
const STAGES: [&str; 2] = ["lnet_o", "lnet_s"];

impl Calibrate {
    /// # Errors
    /// A window that no box describes.
    pub fn checked(self) -> Result<Self, Mistake> {
        if !matches!(self.window, FaceWindow::Face | FaceWindow::Celeba | FaceWindow::Inner) {
            let found = format!("{} is the box of no face; give inner, celeba or face", self.window.name());
            return Err(Mistake::at("window", found));
        }
        Ok(self)
    }

    fn photos(&self, problems: &mut Problems) -> Result<Photos> {
        let mut photos = photos::open(&self.data, self.split, problems)?;
        if let Some(backgrounds) = &self.backgrounds {
            photos.add_backgrounds(backgrounds, problems)?;
        }
        let wanted = photos.spread(self.limit);
        photos.items = wanted.into_iter().map(|i| photos.items[i].clone()).collect();
        Ok(photos)
    }
}

impl Work for Calibrate {
    fn reads(&self) -> Vec<(String, PathBuf)> {
        let mut reads = vec![("model".into(), self.model.clone()), ("data".into(), self.data.clone())];
        reads.extend(self.backgrounds.clone().map(|path| ("backgrounds".into(), path)));
        reads
    }

    fn provenance(&self) -> Result<Provenance> {
        let mut list = Provenance::default();
        inputs::model(&mut list, &self.model)?;
        inputs::photos(&mut list, &self.photos(&mut Problems::new(false))?)?;
        list.set("window", self.window.name());
        if self.backgrounds.is_some() {
            list.set("false_positives", self.false_positives);
        }
        Ok(list)
    }

    fn run(&self, folder: &Path, tools: &mut Tools<'_>) -> Result<Done> {
        let files = inputs::bundle_files(&self.model)?;
        for name in &files {
            copy(&self.model.join(name), &folder.join(name))?;
        }
        sweep(folder, &files.iter().map(String::as_str).collect::<Vec<_>>());
        let mut problems = Problems::new(false);
        let photos = self.photos(&mut problems)?;
        let (faces, backgrounds): (Vec<_>, Vec<_>) = photos.items.iter().partition(|item| !item.background);
        let (total, mut unreadable) = (photos.items.len(), problems.list);

        let mut model = Model::load(folder, tools.device)?;
        let shape = self.window.shape(&model.bundle).expect("checked");
        let mut calibration_samples = [const { Vec::<CalibrationSample>::new() }; 2];
        for (done, item) in faces.iter().enumerate() {
            // In a photo with several faces, responses to the others would distort the sample.
            if let Some([(rect, _)]) = item.boxes.as_deref() {
                match Photo::open(&item.path) {
                    Ok(photo) => {
                        let seen = model.calibration_samples(&photo, shape.core_of(*rect))?;
                        calibration_samples
                            .iter_mut()
                            .zip(seen)
                            .for_each(|(calibration_samples, seen)| calibration_samples.extend(seen));
                    }
                    Err(error) => unreadable.push(error),
                }
            }
            tools.photos(done + 1, total)?;
        }
        let locate = &model.bundle.locate;
        let mut words = Vec::new();
        edit(&folder.join(BUNDLE), |document| {
            for ((name, stage), calibration_samples) in
                STAGES.into_iter().zip([&locate.lnet_o, &locate.lnet_s]).zip(&calibration_samples)
            {
                let (StageConfig { width, shift, .. }, fit) = stage.fitted(calibration_samples).ok_or_else(|| {
                    let found = format!("{name} responds to hardly a face in {} windows", calibration_samples.len());
                    Error::file(&self.data, found)
                        .advise("train it longer, lower its floor, or give more photos of one face")
                })?;
                let table = &mut document["locate"][name];
                put(&mut table["width"], rounded(width, 100.0));
                put(
                    &mut table["shift"],
                    shift.iter().map(|shift| rounded(*shift, 1000.0)).collect::<toml_edit::Array>(),
                );
                words.push(told(name, &fit));
            }
            Ok(())
        })?;

        if !backgrounds.is_empty() {
            let mut model = Model::load(folder, tools.device)?;
            let (mut scores, mut read) = (Vec::new(), 0);
            for (done, item) in backgrounds.iter().enumerate() {
                match Photo::open(&item.path) {
                    Ok(photo) => {
                        scores.extend(model.detect(&photo, 0.0)?.iter().map(|face| face.score));
                        read += 1;
                    }
                    Err(error) => unreadable.push(error),
                }
                tools.photos(faces.len() + done + 1, total)?;
            }
            let threshold = threshold(&mut scores, (self.false_positives * read as f32) as usize);
            edit(&folder.join(BUNDLE), |document| {
                put(&mut document["locate"]["threshold"], threshold);
                Ok(())
            })?;
            words.push(format!("threshold {threshold}"));
        }
        (tools.tell)(Event::Skipped(&unreadable));
        Ok(Done { files, result: words.join("; ") })
    }
}

/// The smallest threshold, in thousandths, that at most `allowed` of the scores reach.
fn threshold(scores: &mut [f32], allowed: usize) -> f64 {
    scores.sort_by(|a, b| b.total_cmp(a));
    scores.get(allowed).map_or(0.0, |score| f64::from((score * 1e3).floor() + 1.0) / 1e3)
}

fn told(name: &str, fit: &Fit) -> String {
    let Fit { found, windows, width, middle: [x, y] } = fit;
    format!(
        "{name} on the face in {found} of {windows} windows, width errs by {width:.2}, middle by {x:.2} and {y:.2} of it"
    )
}

fn rounded(value: f32, digits: f64) -> f64 {
    (f64::from(value) * digits).round() / digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_threshold_lets_no_more_through_than_allowed() {
        let scores = [0.5, 0.1234, 0.9, 0.3, 0.3];
        let reach = |threshold: f64| scores.iter().filter(|score| f64::from(**score) >= threshold).count();
        for (allowed, expected) in [(0, 0.901), (1, 0.501), (2, 0.301), (3, 0.301), (4, 0.124), (5, 0.0), (9, 0.0)] {
            let threshold = threshold(&mut scores.clone(), allowed);
            assert!((threshold - expected).abs() < 1e-9, "{allowed}: {threshold}");
            assert!(reach(threshold) <= allowed);
        }
    }
}

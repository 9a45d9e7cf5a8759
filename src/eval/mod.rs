//! Evaluation of a model: the whole pipeline, from photo to attributes, on annotated photos.
//!
//! Data flows one way: [`photos`] lists what there is to measure, [`evaluate`] runs the model on one photo after another and
//! keeps a few numbers for each, and the measures in an [`Evaluation`] are computed from these. Text, JSON ([`document`]) and the
//! page ([`report`]) are views of it and compute no measures themselves.

pub mod document;
pub mod examples;
pub mod histogram;
pub mod localisation;
pub mod paper;
pub mod photos;
pub mod report;

use crate::data::Problems;
use crate::data::photo::{Photo, Rect};
use crate::data::prefetch::Prefetch;
use crate::face::{Face, FaceWindow, Model};
use crate::metrics::{Accuracy, accuracies};
use crate::{Error, Result};
use examples::{Examples, Gallery, Measured};
use histogram::Histogram;
use localisation::{Localisation, Scene, Tally};
use photos::{Detections, Item, Photos};
use std::path::PathBuf;

/// Number of decoded photos waiting for the nets.
const AHEAD: usize = 2;

/// The results of an evaluation.
#[derive(Debug, Clone, Default)]
pub struct Evaluation {
    /// Name of the model.
    pub model: String,
    /// Number of photos of the data that were measured.
    pub images: usize,
    /// Number of photos without a face that were measured.
    pub backgrounds: usize,
    /// Number of photos of the data in which the model finds no face; all their attributes count as absent.
    pub without_face: usize,
    /// Number of photos without a face in which the model finds one.
    pub backgrounds_with_face: usize,
    /// Accuracy per attribute; empty if the data has none.
    pub attributes: Vec<Accuracy>,
    /// The model's localisation, then that of the other detectors; empty where no boxes are known.
    pub localisation: Vec<Localisation>,
    /// Histogram of the model's best scores.
    pub histogram: Option<Histogram>,
    pub examples: Examples,
}

/// Options of an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// Maximum number of photos of the data, and of backgrounds, sampled evenly.
    pub limit: usize,
    /// Whether to keep examples for the page.
    pub examples: bool,
    /// Which window of a face is compared with the boxes.
    pub window: FaceWindow,
}

/// Runs the pipeline on the photos, and evaluates the windows of `others` on the same photos. `progress` is called with the
/// number of completed photos and the total; an error that it returns aborts the evaluation.
///
/// # Errors
/// No photos; none of the model's attributes in the data; insufficient memory. Photos that cannot be read, boxes outside their
/// photo, and attributes known to only one of model and data are reported, and are fatal if `problems` is strict.
pub fn evaluate(
    model: &mut Model,
    photos: &Photos,
    others: &[Detections],
    options: Options,
    problems: &mut Problems,
    progress: &mut dyn FnMut(usize, usize) -> Result<()>,
) -> Result<Evaluation> {
    let common = common_attributes(model, photos, problems)?;
    let chosen = photos.spread(options.limit);
    let total = chosen.len();
    let jobs: Vec<(usize, PathBuf)> = chosen.into_iter().map(|i| (i, photos.items[i].path.clone())).collect();
    let workers = rayon::current_num_threads().div_ceil(4);
    let decoded = Prefetch::new(workers, AHEAD, jobs.into_iter(), |(i, path)| (i, Photo::open_lenient(path)));
    let mut walk = Walk::new(photos, others, common, options);
    for (done, (number, photo)) in decoded.enumerate() {
        match photo {
            Ok((photo, warning)) => {
                // Truncation is reported; the rest is evaluated as a viewer would show it.
                warning.map_or(Ok(()), |warning| problems.report(warning))?;
                walk.measure(model, number, &photo, problems)?;
            }
            Err(error) => problems.report(error)?,
        }
        progress(done + 1, total)?;
    }
    walk.finish(model)
}

/// An attribute known to both the model and the data.
struct Common {
    name: String,
    /// Its index in the model and in the data.
    model: usize,
    data: usize,
}

/// The attributes to measure; those known to only one side are reported.
fn common_attributes(model: &Model, photos: &Photos, problems: &mut Problems) -> Result<Vec<Common>> {
    let data = &photos.attribute_names;
    if data.is_empty() {
        return Ok(Vec::new());
    }
    let names = model.attributes()?;
    let common: Vec<Common> = names
        .iter()
        .enumerate()
        .filter_map(|(m, name)| {
            Some(Common { name: name.clone(), model: m, data: data.iter().position(|n| n == name)? })
        })
        .collect();
    let missing = |from: &[String], of: &[String]| from.iter().filter(|n| !of.contains(n)).cloned().collect::<Vec<_>>();
    for (unknown, found) in
        [(missing(data, names), "unknown to the model"), (missing(names, data), "missing in the data")]
    {
        if !unknown.is_empty() {
            let found = format!("attribute {} is {found}", unknown.join(", "));
            problems.report(Error::new(&photos.attribute_place, found).advise("it is not measured"))?;
        }
    }
    if common.is_empty() {
        return Err(Error::new(&photos.attribute_place, "has no attribute of the model")
            .advise("evaluate on data with the attributes that the model was trained on"));
    }
    Ok(common)
}

/// State accumulated over the photos.
struct Walk<'a> {
    photos: &'a Photos,
    others: &'a [Detections],
    common: Vec<Common>,
    /// The model's, then one per other detector.
    tallies: Vec<Tally>,
    /// [photos with attributes, attributes]
    scores: Vec<f32>,
    truth: Vec<bool>,
    /// The best score for each photo with a face, and for each background.
    best: [Vec<Option<f32>>; 2],
    /// Counters.
    found: Evaluation,
    gallery: Option<Gallery>,
    options: Options,
}

impl<'a> Walk<'a> {
    fn new(photos: &'a Photos, others: &'a [Detections], common: Vec<Common>, options: Options) -> Self {
        Self {
            gallery: options.examples.then(|| Gallery::new(common.len())),
            options,
            photos,
            others,
            common,
            tallies: vec![Tally::default(); 1 + others.len()],
            scores: Vec::new(),
            truth: Vec::new(),
            best: [Vec::new(), Vec::new()],
            found: Evaluation::default(),
        }
    }

    /// Processes one photo.
    fn measure(&mut self, model: &mut Model, number: usize, photo: &Photo, problems: &mut Problems) -> Result<()> {
        let item = &self.photos.items[number];
        let boxes = self.boxes(item, photo, problems)?;
        let faces = model.detect(photo, f32::NEG_INFINITY)?;
        let windows: Vec<(Rect, f32)> =
            faces.iter().map(|face| (self.options.window.of(face, model), face.score)).collect();
        let answer = faces.first().filter(|face| face.score >= model.threshold());
        self.best[usize::from(item.background)].push(windows.first().map(|(_, score)| *score));
        if item.background {
            self.found.backgrounds += 1;
            self.found.backgrounds_with_face += usize::from(answer.is_some());
        } else {
            self.found.images += 1;
            self.found.without_face += usize::from(answer.is_none());
        }
        let seen = Measured { name: &item.name, photo, boxes: boxes.as_deref().unwrap_or_default() };
        if boxes.is_some() {
            self.localise(model.threshold(), number, &windows, &seen)?;
        }
        match &item.attributes {
            Some(truth) if !self.common.is_empty() => self.classify(model, answer, truth, &seen),
            _ => Ok(()),
        }
    }

    /// The boxes in the photo; `None` if they are unknown. Boxes outside the photo are reported and not counted.
    fn boxes(&self, item: &Item, photo: &Photo, problems: &mut Problems) -> Result<Option<Vec<Rect>>> {
        let Some(all) = &item.boxes else { return Ok(None) };
        let mut inside = Vec::with_capacity(all.len());
        for (rect, line) in all {
            if rect.clipped(photo.width, photo.height).is_some() {
                inside.push(*rect);
            } else {
                let Rect { x, y, width, height } = rect;
                let found = format!(
                    "box {width} x {height} at ({x}, {y}) lies outside of {}, {} x {} pixels",
                    item.name, photo.width, photo.height
                );
                problems.report(Error::new(self.photos.box_place(*line), found).advise("is it of this photo?"))?;
            }
        }
        Ok((item.background || !inside.is_empty()).then_some(inside))
    }

    fn localise(&mut self, threshold: f32, number: usize, windows: &[(Rect, f32)], seen: &Measured) -> Result<()> {
        let (size, boxes) = ((seen.photo.width, seen.photo.height), seen.boxes);
        let outcome = Scene { size, boxes, windows }.matched(threshold);
        self.tallies[0].add(boxes.len(), &outcome);
        for (tally, other) in self.tallies[1..].iter_mut().zip(self.others) {
            let scene = Scene { size, boxes, windows: &other.windows[number] };
            tally.add(boxes.len(), &scene.matched(f32::NEG_INFINITY));
        }
        self.gallery.as_mut().map_or(Ok(()), |gallery| gallery.see(seen, &outcome))
    }

    fn classify(&mut self, model: &mut Model, answer: Option<&Face>, truth: &[bool], seen: &Measured) -> Result<()> {
        let scores = answer.map(|face| model.scores(seen.photo, face)).transpose()?;
        for (a, attribute) in self.common.iter().enumerate() {
            let (score, truth) = (scores.as_ref().map(|scores| scores[attribute.model]), truth[attribute.data]);
            self.scores.push(score.unwrap_or(f32::NEG_INFINITY));
            self.truth.push(truth);
            if let (Some(gallery), Some(face), Some(score)) = (&mut self.gallery, answer, score)
                && (score > 0.0) != truth
            {
                gallery.see_mistake(
                    seen,
                    (self.options.window.of(face, model), face.score),
                    a,
                    &attribute.name,
                    score,
                )?;
            }
        }
        Ok(())
    }

    /// Computes the measures.
    fn finish(self, model: &Model) -> Result<Evaluation> {
        let mut found = self.found;
        if found.images == 0 {
            return Err(
                Error::new("evaluation", "has no photo that can be read").advise("check the data and the split")
            );
        }
        found.model = model.bundle.name.clone();
        if !self.scores.is_empty() {
            let names: Vec<String> = self.common.into_iter().map(|attribute| attribute.name).collect();
            found.attributes = accuracies(&names, &self.scores, &self.truth);
        }
        let detectors = std::iter::once((model.bundle.name.as_str(), model.threshold()));
        let detectors = detectors.chain(self.others.iter().map(|other| (other.name.as_str(), f32::NEG_INFINITY)));
        let tallies = self.tallies.into_iter().zip(detectors);
        found.localisation =
            tallies.filter_map(|(tally, (name, threshold))| tally.localisation(name, threshold)).collect();
        found.histogram = Histogram::new(&self.best);
        found.examples = self.gallery.map(Gallery::finish).unwrap_or_default();
        Ok(found)
    }
}

/// The index of each of the model's attributes among those of the data.
///
/// # Errors
/// An attribute that the data lacks.
pub fn places(model: &[String], data: &[String]) -> Result<Vec<usize>> {
    let place = |name: &String| {
        data.iter().position(|n| n == name).ok_or_else(|| {
            Error::new(format!("attribute {name}"), "is in the model, but not in the data")
                .advise("evaluate on data with the attributes that the model was trained on")
        })
    };
    model.iter().map(place).collect()
}

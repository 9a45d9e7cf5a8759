//! `weft predict`: the face and the attributes of photos.

use super::outputs::Outputs;
use super::photos::{Answer, AnswerArgs, PhotoArgs, Table, answer_all, open_photo};
use super::say;
use crate::Result;
use crate::data::draw;
use crate::data::photo::{Photo, Rect};
use crate::face::{Face, Model};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Find the face in photos and predict its attributes.
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    photos: PhotoArgs,
    #[command(flatten)]
    model: super::ModelArgs,
    #[command(flatten)]
    device: super::DeviceArgs,
    #[command(flatten)]
    answers: AnswerArgs,
    #[command(flatten)]
    batch: super::BatchArgs,
    /// Write each photo with its face and strongest attributes into this folder, as PNG
    #[arg(long, value_name = "DIR")]
    annotate: Option<PathBuf>,
}

/// Number of attributes shown on an annotated photo.
const SHOWN: usize = 12;

/// The result for one photo.
struct Prediction<'a> {
    width: usize,
    height: usize,
    /// The face and a score per attribute, if there is a face.
    face: Option<(Face, Vec<f32>)>,
    names: &'a [String],
}

impl Args {
    pub fn usage(&self) -> Result<(), clap::Error> {
        self.photos.usage()
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let photos = args.photos.names()?;
    let device = args.device.open()?;
    let model = args.model.load(&device)?;
    let names = model.attributes()?.to_vec();
    let reads: Vec<PathBuf> = args.model.reads().into_iter().chain(args.photos.list()).collect();
    let plan = |folder: &PathBuf| Outputs::plan("--annotate", folder, "png", &photos, &reads);
    let pictures = args.annotate.as_ref().map(plan).transpose()?;
    let columns = ["x", "y", "width", "height", "score"].map(String::from).into_iter().chain(names.iter().cloned());
    let table = Table { columns: columns.collect(), several: false };
    let unsaved = AtomicBool::new(false);
    let mut workers = args.batch.workers(model, &device, photos.len())?;
    let code = answer_all(&photos, &args.answers, &table, &reads, &mut workers, |model, number, path| {
        let photo = open_photo(path)?;
        let prediction = predict(model, &photo, &names)?;
        if let Some(pictures) = &pictures {
            // The answer is complete without its picture.
            let saved = pictures.path(number, None).and_then(|path| prediction.annotate(&photo, &path));
            if let Err(error) = saved {
                unsaved.store(true, Ordering::Relaxed);
                say(format_args!("weft: {error}"));
            }
        }
        Ok(prediction)
    })?;
    Ok(if unsaved.into_inner() { ExitCode::FAILURE } else { code })
}

fn predict<'a>(model: &mut Model, photo: &Photo, names: &'a [String]) -> Result<Prediction<'a>> {
    let face = match model.locate(photo)? {
        Some(face) => {
            let scores = model.scores(photo, &face)?;
            Some((face, scores))
        }
        None => None,
    };
    Ok(Prediction { width: photo.width, height: photo.height, face, names })
}

impl Prediction<'_> {
    /// Writes the photo with its face and strongest attributes.
    fn annotate(&self, photo: &Photo, path: &Path) -> Result<()> {
        let mut lines: Vec<(String, f32)> = Vec::new();
        if let Some((_, scores)) = &self.face {
            lines.extend(self.names.iter().cloned().zip(scores.iter().copied()).filter(|(_, score)| *score > 0.0));
            lines.sort_by(|a, b| b.1.total_cmp(&a.1));
            lines.truncate(SHOWN);
            // The picture's bars end at a score of 1, the margin of a linear SVM.
            lines.iter_mut().for_each(|line| line.1 = line.1.min(1.0));
        }
        let rect = self.face.as_ref().map(|(face, _)| (face.rect, "face"));
        draw::annotate(photo, rect, &lines).save_png(path)
    }
}

impl Answer for Prediction<'_> {
    fn json(&self, image: &str) -> Value {
        let Self { width, height, face, names } = self;
        let Some((face, scores)) = face else {
            return json!({ "image": image, "width": width, "height": height, "face": null, "attributes": {} });
        };
        let attributes: Map<String, Value> = names
            .iter()
            .zip(scores)
            .map(|(name, score)| (name.clone(), json!({ "score": score, "present": *score > 0.0 })))
            .collect();
        let face = FaceJson::new(face);
        json!({ "image": image, "width": width, "height": height, "face": face, "attributes": attributes })
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let mut row = vec![String::new(); 5 + self.names.len()];
        if let Some((Face { rect: Rect { x, y, width, height }, score, .. }, scores)) = &self.face {
            let place = [x, y, width, height].map(|pixels| format!("{pixels:.1}"));
            let scores = std::iter::once(score).chain(scores).map(|score| format!("{score:.4}"));
            row = place.into_iter().chain(scores).collect();
        }
        vec![row]
    }

    fn text(&self, image: &str) -> String {
        let Self { width, height, names, .. } = self;
        let mut text = format!("{image}: {width} x {height}");
        let Some((face, scores)) = &self.face else { return text + ", no face" };
        let Rect { x, y, width, height } = face.rect;
        text += &format!("\n  face at ({x:.0}, {y:.0}), {width:.0} x {height:.0}, score {:.2}", face.score);
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        for a in order.into_iter().filter(|&a| scores[a] > 0.0) {
            text += &format!("\n  {:5.2}  {}", scores[a], names[a]);
        }
        text
    }
}

/// A face in machine-readable form, in pixels of the photo.
#[derive(Serialize)]
pub struct FaceJson {
    x: f32,
    y: f32,
    width: f32,
    height: f32,
    score: f32,
}

impl FaceJson {
    pub fn new(face: &Face) -> Self {
        let Rect { x, y, width, height } = face.rect;
        Self { x, y, width, height, score: face.score }
    }
}

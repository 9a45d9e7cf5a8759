//! `weft predict`: the face and the attributes of photos.

use super::progress::Progress;
use super::{photo_name, print, print_json};
use crate::data::draw;
use crate::data::photo::{Photo, Rect};
use crate::face::{Face, Model};
use crate::{Error, Result};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Find the face in photos and tell its attributes.
#[derive(clap::Args)]
pub struct Args {
    /// Photos: JPEG, PNG, WebP, BMP, TIFF, GIF, PNM
    #[arg(required = true)]
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: super::ModelArgs,
    #[command(flatten)]
    device: super::DeviceArgs,
    /// Print one JSON document
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print a line per photo: its face and a score per attribute
    #[arg(long)]
    csv: bool,
    /// Write each photo with its face and strongest attributes into this folder, as PNG
    #[arg(long, value_name = "DIR")]
    annotate: Option<PathBuf>,
}

/// Attributes that an annotated photo shows.
const SHOWN: usize = 12;

/// What became of one photo.
struct Answer {
    image: PathBuf,
    result: Result<Prediction>,
}

struct Prediction {
    width: usize,
    height: usize,
    /// The face and a score per attribute, if there is a face.
    face: Option<(Face, Vec<f32>)>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut model = args.model.load(&args.device.open()?)?;
    let names = model.attributes()?.to_vec();
    if let Some(folder) = &args.annotate {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    }
    let progress = Progress::new(args.images.len() as u64, "photos");
    let mut answers = Vec::new();
    for (done, image) in args.images.iter().enumerate() {
        let result = predict(&mut model, image, args.annotate.as_deref());
        answers.push(Answer { image: image.clone(), result });
        if args.images.len() > 1 {
            progress.set(done as u64 + 1);
        }
    }
    progress.finish();
    let failed = answers.iter().filter(|answer| answer.result.is_err()).count();
    for error in answers.iter().filter_map(|answer| answer.result.as_ref().err()) {
        eprintln!("weft: {error}");
    }
    if args.json {
        print_json(&answers.iter().map(|answer| answer.json(&names)).collect::<Vec<Value>>())?;
    } else if args.csv {
        print(format!("image,x,y,width,height,score,{}", names.join(",")))?;
        answers.iter().filter_map(Answer::csv).try_for_each(print)?;
    } else {
        answers.iter().filter_map(|answer| answer.text(&names)).try_for_each(print)?;
    }
    Ok(if failed > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn predict(model: &mut Model, image: &Path, annotate: Option<&Path>) -> Result<Prediction> {
    let photo = Photo::open(image)?;
    let face = match model.locate(&photo)? {
        Some(face) => {
            let scores = model.scores(&photo, &face)?;
            Some((face, scores))
        }
        None => None,
    };
    if let Some(folder) = annotate {
        let names = model.attributes()?;
        let mut lines: Vec<(String, f32)> = Vec::new();
        if let Some((_, scores)) = &face {
            lines.extend(names.iter().cloned().zip(scores.iter().copied()).filter(|(_, score)| *score > 0.0));
            lines.sort_by(|a, b| b.1.total_cmp(&a.1));
            lines.truncate(SHOWN);
            // The picture's bars are for scores up to 1, the margin of a linear machine.
            lines.iter_mut().for_each(|line| line.1 = line.1.min(1.0));
        }
        let rect: Option<Rect> = face.as_ref().map(|(face, _)| face.rect);
        draw::annotate(&photo, rect.map(|rect| (rect, "face")), &lines)
            .save_png(folder.join(photo_name(image, "png")))?;
    }
    Ok(Prediction { width: photo.width, height: photo.height, face })
}

impl Answer {
    fn json(&self, names: &[String]) -> Value {
        let image = self.image.display().to_string();
        match &self.result {
            Err(error) => json!({ "image": image, "error": error.to_string() }),
            Ok(Prediction { width, height, face: None }) => {
                json!({ "image": image, "width": width, "height": height, "face": null, "attributes": {} })
            }
            Ok(Prediction { width, height, face: Some((face, scores)) }) => {
                let attributes: Map<String, Value> = names
                    .iter()
                    .zip(scores)
                    .map(|(name, score)| (name.clone(), json!({ "score": score, "present": *score > 0.0 })))
                    .collect();
                let face = FaceJson::new(face);
                json!({ "image": image, "width": width, "height": height, "face": face, "attributes": attributes })
            }
        }
    }

    /// Nothing for a photo that could not be read: its error went to standard error.
    fn csv(&self) -> Option<String> {
        let prediction = self.result.as_ref().ok()?;
        let name = crate::data::boxes::csv_field(&self.image.display().to_string());
        Some(match &prediction.face {
            None => format!("{name},,,,,"),
            Some((face, scores)) => {
                let Rect { x, y, width, height } = face.rect;
                let scores: Vec<String> = scores.iter().map(|score| format!("{score:.4}")).collect();
                format!("{name},{x:.1},{y:.1},{width:.1},{height:.1},{:.4},{}", face.score, scores.join(","))
            }
        })
    }

    fn text(&self, names: &[String]) -> Option<String> {
        let prediction = self.result.as_ref().ok()?;
        let mut text = format!("{}: {} x {}", self.image.display(), prediction.width, prediction.height);
        let Some((face, scores)) = &prediction.face else { return Some(text + ", no face") };
        let Rect { x, y, width, height } = face.rect;
        text += &format!("\n  face at ({x:.0}, {y:.0}), {width:.0} x {height:.0}, score {:.2}", face.score);
        let mut order: Vec<usize> = (0..names.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
        for a in order.into_iter().filter(|&a| scores[a] > 0.0) {
            text += &format!("\n  {:5.2}  {}", scores[a], names[a]);
        }
        Some(text)
    }
}

/// A face as scripts read it, in pixels of the photo.
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

//! `weft locate`: the face window of each photo, and the response maps behind it.

use super::outputs::Outputs;
use super::photos::{Answer, AnswerArgs, PhotoArgs, Table, answer_all, open_photo};
use super::predict::FaceJson;
use super::say;
use crate::Result;
use crate::data::photo::{Photo, Rect};
use crate::data::{boxes, draw};
use crate::face::{Face, FaceWindow, Model};
use crate::locate::Map;
use crate::settings;
use serde_json::{Value, json};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// Find the face in photos: its window, and where the networks respond.
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
    /// Report every face above the threshold, not only the best one
    #[arg(long)]
    all: bool,
    /// Minimum score of a face, instead of the model's threshold
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    #[arg(value_parser = settings::argument::<crate::locate::Threshold>)]
    threshold: Option<f32>,
    /// Which window to report
    #[arg(long, value_enum, default_value = "face")]
    window: FaceWindow,
    /// Write the response maps of LNet_o and LNet_s over each photo into this folder, as PNG
    #[arg(long, value_name = "DIR")]
    maps: Option<PathBuf>,
    /// Also write the map of LNet_s's response to this attribute, such as Wearing_Hat; may be repeated
    #[arg(long, value_name = "NAME", requires = "maps")]
    attribute: Vec<String>,
}

/// The faces of one photo, best first, in the requested window convention.
struct Faces(Vec<Face>);

impl Args {
    pub fn usage(&self) -> Result<(), clap::Error> {
        self.photos.usage()
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let photos = args.photos.names()?;
    let device = args.device.open()?;
    let model = args.model.load(&device)?;
    args.attribute.iter().try_for_each(|attribute| model.check_attribute(attribute))?;
    let reads: Vec<PathBuf> = args.model.reads().into_iter().chain(args.photos.list()).collect();
    let plan = |folder: &PathBuf| Outputs::plan("--maps", folder, "png", &photos, &reads);
    let pictures = args.maps.as_ref().map(plan).transpose()?;
    let columns = ["x", "y", "width", "height", "score"].map(String::from).to_vec();
    let table = Table { columns, several: args.all };
    let unsaved = AtomicBool::new(false);
    let mut workers = args.batch.workers(model, &device, photos.len())?;
    let code = answer_all(&photos, &args.answers, &table, &reads, &mut workers, |model, number, path| {
        let photo = open_photo(path)?;
        let mut faces = model.detect(&photo, args.threshold.unwrap_or(model.bundle.locate.threshold))?;
        if !args.all {
            faces.truncate(1);
        }
        if let Some(pictures) = &pictures {
            let maps = Maps { model, photo: &photo, attributes: &args.attribute };
            // The answer is complete without its pictures.
            if let Err(error) = maps.save(&faces, pictures, number) {
                unsaved.store(true, Ordering::Relaxed);
                say(format_args!("weft: {error}"));
            }
        }
        for face in &mut faces {
            face.rect = args.window.of(face, model);
        }
        Ok(Faces(faces))
    })?;
    Ok(if unsaved.into_inner() { ExitCode::FAILURE } else { code })
}

impl Answer for Faces {
    fn json(&self, image: &str) -> Value {
        json!({ "image": image, "faces": self.0.iter().map(FaceJson::new).collect::<Vec<_>>() })
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let row = |found: Option<&Face>| {
            let [_, fields @ ..] = boxes::fields("", found.map(|face| (face.rect, face.score)));
            fields.to_vec()
        };
        if self.0.is_empty() { vec![row(None)] } else { self.0.iter().map(Some).map(row).collect() }
    }

    fn text(&self, image: &str) -> String {
        let line = |Face { rect: Rect { x, y, width, height }, score, .. }: &Face| {
            format!("{image}: ({x:.0}, {y:.0}), {width:.0} x {height:.0}, score {score:.2}")
        };
        let lines: Vec<String> = self.0.iter().map(line).collect();
        if lines.is_empty() { format!("{image}: no face") } else { lines.join("\n") }
    }
}

/// Response maps as pictures.
struct Maps<'a> {
    model: &'a mut Model,
    photo: &'a Photo,
    attributes: &'a [String],
}

impl Maps<'_> {
    fn save(self, faces: &[Face], pictures: &Outputs, photo: usize) -> Result<()> {
        for (number, face) in faces.iter().enumerate() {
            // From the second face on, the file names are numbered.
            let count = if number > 0 { format!("{}.", number + 1) } else { String::new() };
            let mut maps: Vec<(&str, Map)> = ["lnet_o", "lnet_s"].into_iter().zip(face.maps.clone()).collect();
            for attribute in self.attributes {
                maps.push((attribute, self.model.attribute_map(self.photo, face, attribute)?));
            }
            for (name, map) in maps {
                let path = pictures.path(photo, Some(&format!("{count}{name}")))?;
                draw_map(self.photo, &map, face.rect).save_png(path)?;
            }
        }
        Ok(())
    }
}

/// A map drawn over the part of the photo that it covers, with the face.
fn draw_map(photo: &Photo, map: &Map, face: Rect) -> Photo {
    let (part, rect) = covered(photo, map, face);
    let mapped = draw::heat_map(&part, &map.values, map.width, map.height);
    draw::annotate(&mapped, Some((rect, "face")), &[])
}

/// The part of a photo that a map covers, and a rectangle of the photo in that part.
fn covered(photo: &Photo, map: &Map, rect: Rect) -> (Photo, Rect) {
    let part = Rect::new(
        map.origin.0 - map.step.0 / 2.0,
        map.origin.1 - map.step.1 / 2.0,
        map.width as f32 * map.step.0,
        map.height as f32 * map.step.1,
    );
    let side = |pixels: f32| (pixels.round() as usize).max(1);
    let picture = crate::data::resample::Resampler::default().resize(photo, part, side(part.width), side(part.height));
    (picture, Rect::new(rect.x - part.x, rect.y - part.y, rect.width, rect.height))
}

//! `weft locate`: the face window of photos, and the response maps behind it.

use super::predict::FaceJson;
use super::{photo_name, print, print_json};
use crate::data::photo::{Photo, Rect};
use crate::data::{boxes, draw};
use crate::face::{Face, Model, Window};
use crate::locate::Map;
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Find the face in photos: its window, and where the networks respond.
#[derive(clap::Args)]
pub struct Args {
    /// Photos
    #[arg(required = true)]
    images: Vec<PathBuf>,
    #[command(flatten)]
    model: super::ModelArgs,
    #[command(flatten)]
    device: super::DeviceArgs,
    /// Print one JSON document
    #[arg(long, conflicts_with = "csv")]
    json: bool,
    /// Print a box file: image,x,y,width,height,score
    #[arg(long)]
    csv: bool,
    /// Every face above the threshold, not just the best
    #[arg(long)]
    all: bool,
    /// Least score of a face, instead of the bundle's threshold
    #[arg(long, value_name = "SCORE", allow_hyphen_values = true)]
    threshold: Option<f32>,
    /// Which window to give
    #[arg(long, value_enum, default_value = "face")]
    window: Window,
    /// Write the response maps of LNet_o and LNet_s over each photo into this folder, as PNG
    #[arg(long, value_name = "DIR")]
    maps: Option<PathBuf>,
    /// Write where LNet_s sees this attribute, as Wearing_Hat, beside the other maps; may be repeated
    #[arg(long, value_name = "NAME", requires = "maps")]
    attribute: Vec<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut model = args.model.load(&args.device.open()?)?;
    args.attribute.iter().try_for_each(|attribute| model.check_attribute(attribute))?;
    if let Some(folder) = &args.maps {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    }
    if args.csv {
        print(boxes::HEADER)?;
    }
    let (mut documents, mut failed) = (Vec::new(), false);
    for image in &args.images {
        let name = image.display().to_string();
        let found = locate(&mut model, image, args);
        match &found {
            Err(error) => {
                failed = true;
                eprintln!("weft: {error}");
                documents.push(json!({ "image": name, "error": error.to_string() }));
            }
            Ok(faces) => {
                let list: Vec<FaceJson> = faces.iter().map(FaceJson::new).collect();
                documents.push(json!({ "image": name, "faces": list }));
                if args.csv {
                    let file = image.file_name().map_or(name, |file| file.to_string_lossy().into_owned());
                    for face in faces {
                        print(boxes::line(&file, face.rect, face.score))?;
                    }
                } else if !args.json {
                    if faces.is_empty() {
                        print(format!("{name}: no face"))?;
                    }
                    for Face { rect: Rect { x, y, width, height }, score, .. } in faces {
                        print(format!("{name}: ({x:.0}, {y:.0}), {width:.0} x {height:.0}, score {score:.2}"))?;
                    }
                }
            }
        }
    }
    if args.json {
        print_json(&Value::from(documents))?;
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn locate(model: &mut Model, image: &Path, args: &Args) -> Result<Vec<Face>> {
    let photo = Photo::open(image)?;
    let mut faces = model.detect(&photo, args.threshold.unwrap_or(model.bundle.locate.threshold))?;
    if !args.all {
        faces.truncate(1);
    }
    if let Some(folder) = &args.maps {
        for (number, face) in faces.iter().enumerate() {
            // From the second face on, the names count.
            let count = if number > 0 { format!("{}.", number + 1) } else { String::new() };
            let mut maps: Vec<(&str, Map)> = ["lnet_o", "lnet_s"].into_iter().zip(face.maps.clone()).collect();
            for attribute in &args.attribute {
                maps.push((attribute, model.attribute_map(&photo, face, attribute)?));
            }
            for (name, map) in maps {
                let path = folder.join(photo_name(image, &format!("{count}{name}.png")));
                draw_map(&photo, &map, face.rect).save_png(path)?;
            }
        }
    }
    for face in &mut faces {
        face.rect = args.window.of(face, model);
    }
    Ok(faces)
}

/// A map over the part of the photo that it covers, with the face.
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

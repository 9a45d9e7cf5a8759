//! How good a model is: the whole chain, from photo to attributes, on annotated photos.

use crate::data::celeba::Sample;
use crate::data::photo::{Photo, Rect};
use crate::face::Model;
use crate::metrics::{Accuracy, accuracies};
use crate::{Error, Result};

/// Localisation against known boxes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Localisation {
    /// Photos with a known box.
    pub images: usize,
    /// Share of them whose window overlaps the box by an intersection over union of 0.5 or more.
    pub recall: f64,
    pub mean_iou: f64,
}

/// What an evaluation found.
#[derive(Debug, Clone)]
pub struct Evaluation {
    pub images: usize,
    /// Photos in which nothing responded; every attribute counts as absent there.
    pub without_face: usize,
    pub attributes: Vec<Accuracy>,
    pub localisation: Option<Localisation>,
    /// Photos that could not be read, and are not counted.
    pub unreadable: Vec<Error>,
}

/// Runs the chain on every sample. `progress` hears how many are done.
///
/// # Errors
/// No sample; attributes that the model does not have; no memory. A photo that cannot be read is left out and listed.
pub fn evaluate(
    model: &mut Model,
    names: &[String],
    samples: &[&Sample],
    progress: &mut dyn FnMut(usize),
) -> Result<Evaluation> {
    let places = places(model.attributes()?, names)?;
    let (mut scores, mut truth) = (Vec::new(), Vec::new());
    let (mut overlaps, mut unreadable, mut without_face) = (Vec::new(), Vec::new(), 0);
    for (done, sample) in samples.iter().enumerate() {
        match Photo::open(&sample.path) {
            Err(error) => unreadable.push(error),
            Ok(photo) => {
                let face = model.locate(&photo)?;
                match &face {
                    Some(face) => scores.extend(model.scores(&photo, face)?),
                    None => {
                        without_face += 1;
                        scores.extend(places.iter().map(|_| -1.0));
                    }
                }
                truth.extend(places.iter().map(|&place| sample.attributes[place]));
                if let Some(bbox) = &sample.bbox {
                    overlaps.push(face.map_or(0.0, |face| overlap(&face.rect, bbox, &photo)));
                }
            }
        }
        progress(done + 1);
    }
    if scores.is_empty() {
        return Err(Error::new("evaluation", "has no photo").advise("check --data and --split"));
    }
    let mean = |values: &mut dyn Iterator<Item = f64>| values.sum::<f64>() / overlaps.len() as f64;
    let localisation = (!overlaps.is_empty()).then(|| Localisation {
        images: overlaps.len(),
        recall: mean(&mut overlaps.iter().map(|iou| f64::from(u8::from(*iou >= 0.5)))),
        mean_iou: mean(&mut overlaps.iter().map(|iou| f64::from(*iou))),
    });
    Ok(Evaluation {
        images: scores.len() / places.len(),
        without_face,
        attributes: accuracies(model.attributes()?, &scores, &truth),
        localisation,
        unreadable,
    })
}

/// Where each of the model's attributes stands among those of the data.
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

/// Intersection over union of the window's part inside the photo.
fn overlap(window: &Rect, bbox: &Rect, photo: &Photo) -> f32 {
    window.clipped(photo.width, photo.height).map_or(0.0, |window| window.iou(bbox))
}

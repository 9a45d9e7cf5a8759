//! Example photos: a handful of the best, the worst and the most confidently wrong ones. However many photos are measured, only
//! these are kept, downscaled and compressed.

use super::localisation::Outcome;
use crate::Result;
use crate::data::photo::{Photo, Rect};
use crate::error::At;
use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;

/// Number of examples of each kind.
const KEPT: usize = 8;
/// Number of wrong attribute predictions, at most one per attribute.
const MISTAKES: usize = 12;
/// Longer side of an example picture, in pixels.
const SIDE: usize = 360;
const JPEG_QUALITY: u8 = 80;

/// A downscaled photo, and the detections in it.
#[derive(Debug, Clone)]
pub struct Example {
    pub name: String,
    pub jpeg: Vec<u8>,
    /// Size of the picture in pixels; the boxes use the same coordinates.
    pub width: usize,
    pub height: usize,
    /// True boxes.
    pub truth: Vec<Rect>,
    /// The window in question.
    pub found: Option<Rect>,
    /// The window's score.
    pub score: Option<f32>,
    /// Overlap of the window with its best-matching box.
    pub iou: f32,
}

/// A wrongly predicted attribute.
#[derive(Debug, Clone)]
pub struct Mistake {
    pub attribute: String,
    /// Score of the attribute; positive means present.
    pub score: f32,
    pub example: Example,
}

/// A photo under evaluation.
pub struct Measured<'a> {
    pub name: &'a str,
    pub photo: &'a Photo,
    pub boxes: &'a [Rect],
}

/// Collects the examples.
pub struct Gallery {
    best: Top<Example>,
    worst: Top<Example>,
    false_positives: Top<Example>,
    /// The most confident mistake for each attribute.
    mistakes: Vec<Top<Mistake>>,
}

/// The examples of an evaluation, the most informative of each kind first.
#[derive(Debug, Clone, Default)]
pub struct Examples {
    pub best: Vec<Example>,
    pub worst: Vec<Example>,
    pub false_positives: Vec<Example>,
    pub mistakes: Vec<Mistake>,
}

impl Gallery {
    pub fn new(attributes: usize) -> Self {
        let mistakes = (0..attributes).map(|_| Top::new(1)).collect();
        Self { best: Top::new(KEPT), worst: Top::new(KEPT), false_positives: Top::new(KEPT), mistakes }
    }

    /// Records how the faces of a photo were found.
    ///
    /// # Errors
    /// A picture that cannot be compressed.
    pub fn see(&mut self, seen: &Measured, outcome: &Outcome) -> Result<()> {
        let score = outcome.answer.map(|(_, score)| score);
        let answer = || seen.example(outcome.answer, outcome.iou);
        if !seen.boxes.is_empty() {
            self.best.offer([outcome.iou, 0.0], answer)?;
            // Among the windows that miss, the most confident ones.
            self.worst.offer([-outcome.iou, score.unwrap_or(f32::NEG_INFINITY)], answer)?;
        }
        if let Some(&(rect, score, _)) = outcome.windows.iter().find(|(_, _, right)| !right) {
            self.false_positives.offer([score, 0.0], || seen.example(Some((rect, score)), 0.0))?;
        }
        Ok(())
    }

    /// Records that an attribute was predicted wrongly for the face in `window`.
    ///
    /// # Errors
    /// A picture that cannot be compressed.
    pub fn see_mistake(
        &mut self,
        seen: &Measured,
        window: (Rect, f32),
        a: usize,
        name: &str,
        score: f32,
    ) -> Result<()> {
        let mistake = || Ok(Mistake { attribute: name.into(), score, example: seen.example(Some(window), 0.0)? });
        self.mistakes[a].offer([score.abs(), 0.0], mistake)
    }

    pub fn finish(self) -> Examples {
        let mut mistakes: Vec<Mistake> = self.mistakes.into_iter().flat_map(Top::into_vec).collect();
        mistakes.sort_by(|a, b| b.score.abs().total_cmp(&a.score.abs()));
        mistakes.truncate(MISTAKES);
        Examples {
            best: self.best.into_vec(),
            worst: self.worst.into_vec(),
            false_positives: self.false_positives.into_vec(),
            mistakes,
        }
    }
}

impl Measured<'_> {
    fn example(&self, window: Option<(Rect, f32)>, iou: f32) -> Result<Example> {
        let (small, scale) = self.photo.fit_within(SIDE);
        let Photo { width, height, .. } = small;
        let shrink = |r: &Rect| Rect::new(r.x * scale, r.y * scale, r.width * scale, r.height * scale);
        let mut jpeg = Vec::new();
        JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY)
            .encode(&small.rgb, width as u32, height as u32, ExtendedColorType::Rgb8)
            .at(self.name)?;
        Ok(Example {
            name: self.name.to_string(),
            jpeg,
            width,
            height,
            truth: self.boxes.iter().map(shrink).collect(),
            found: window.and_then(|(rect, _)| shrink(&rect).clipped(width, height)),
            score: window.map(|(_, score)| score),
            iou,
        })
    }
}

/// The entries with the largest keys, in descending order; ties go to the earlier one.
struct Top<T> {
    size: usize,
    entries: Vec<([f32; 2], T)>,
}

impl<T> Top<T> {
    fn new(size: usize) -> Self {
        Self { size, entries: Vec::new() }
    }

    /// Calls `make` only if the entry is kept.
    fn offer(&mut self, key: [f32; 2], make: impl FnOnce() -> Result<T>) -> Result<()> {
        let beats = |other: &[f32; 2]| key[0].total_cmp(&other[0]).then(key[1].total_cmp(&other[1])).is_gt();
        let place = self.entries.partition_point(|(other, _)| !beats(other));
        if place < self.size {
            self.entries.insert(place, (key, make()?));
            self.entries.truncate(self.size);
        }
        Ok(())
    }

    fn into_vec(self) -> Vec<T> {
        self.entries.into_iter().map(|(_, entry)| entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_greatest_are_kept_and_others_never_made() {
        let mut top = Top::new(2);
        let mut made = 0;
        for (i, key) in [1.0, 3.0, 2.0, 0.5, 3.0, -1.0].into_iter().enumerate() {
            top.offer([key, 0.0], || {
                made += 1;
                Ok(i)
            })
            .unwrap();
        }
        assert_eq!((top.into_vec(), made), (vec![1, 4], 4));
    }

    #[test]
    fn boxes_are_in_pixels_of_the_small_picture() {
        let photo = Photo::from_fn(720, 360, |x, _| [(x / 3) as u8; 3]);
        let boxes = [Rect::new(100.0, 100.0, 200.0, 200.0)];
        let seen = Measured { name: "a", photo: &photo, boxes: &boxes };
        let example = seen.example(Some((Rect::new(-50.0, 0.0, 100.0, 100.0), 1.0)), 0.0).unwrap();
        assert_eq!((example.width, example.height), (360, 180));
        assert_eq!(example.truth, [Rect::new(50.0, 50.0, 100.0, 100.0)]);
        assert_eq!(example.found, Some(Rect::new(0.0, 0.0, 25.0, 50.0)));
        assert_eq!(Photo::decode(&example.jpeg, "a").unwrap().width, 360);
    }
}

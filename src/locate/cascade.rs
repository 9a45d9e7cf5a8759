//! The cascade of the paper's Fig. 2: LNet_o finds head and shoulders in the whole photo, LNet_s the face inside them.
//!
//! Each net runs on an image pyramid of its part of the photo. A net responds most to faces of one width in its input, so a
//! response-map cell of a level stands for a position and a size: together the levels form one sparse response map, and its
//! density peaks are faces.

use super::calibrate::CalibrationSample;
use super::density::{DensityPoint, Kernel, Peak};
use super::edge_boxes::EdgeBoxes;
use super::{Channel, Map, Responder, Response, SummedArea};
use crate::Result;
use crate::data::photo::{Photo, Rect};
use crate::device::Device;
use crate::settings::{Mistake, limits, within};
use crate::shipped::Folder;
use serde::Deserialize;

limits! {
    /// Thresholds that responses are compared with.
    Threshold: f32 = -1e6, 1e6;
    /// A size in widths of a face.
    Widths: f32 = 0.01, 100.0;
    /// The offset of one centre from another, in face widths.
    Shift: f32 = -10.0, 10.0;
    /// Pixels of a net's input. Photos are shrunk before a net sees them, so there is no finer detail to resolve.
    Pixels: usize = 1, 2048;
    Width: f32 = 1.0, 2048.0;
    /// Kernel bandwidth.
    Spread: f32 = 0.01, 10.0;
    Peaks: usize = 1, 64;
}

/// Maximum number of pixels in all levels of a stage together, for a square photo.
const MOST_PIXELS: usize = 1 << 23;

/// The `[locate]` table of a bundle.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Locate {
    /// Minimum score of a face.
    #[serde(deserialize_with = "within::<Threshold, _, _>")]
    pub threshold: f32,
    /// Side of the head-and-shoulders window that is the input of LNet_s, in widths of the face that LNet_o found.
    #[serde(deserialize_with = "within::<Widths, _, _>")]
    pub head: f32,
    /// How windows are proposed.
    #[serde(default)]
    pub proposals: Proposals,
    /// How detections become boxes.
    pub boxes: Boxes,
    /// The first stage: head and shoulders in the whole photo.
    pub lnet_o: StageConfig,
    /// The second stage: the face in a window found by the first.
    pub lnet_s: StageConfig,
}

/// How the windows for LNet_s are proposed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Proposals {
    /// From the density peaks of LNet_o's response.
    #[default]
    Peaks,
    /// From the edge boxes with the strongest response of LNet_o, as in the paper.
    EdgeBoxes,
}

/// Definitions of a face box: data sets differ by a factor of three in area.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Boxes {
    /// Between the other two: the default.
    pub face: Shape,
    /// From the hair to below the chin, like CelebA's boxes.
    pub celeba: Shape,
    /// From the brows to the mouth, like the windows of most face detectors.
    pub inner: Shape,
}

/// Maps the centre and width of a face to a window around it, in units of that width.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Shape {
    /// Width, in widths of the core square.
    #[serde(deserialize_with = "within::<Widths, _, _>")]
    pub width: f32,
    /// Height, in the same unit.
    #[serde(deserialize_with = "within::<Widths, _, _>")]
    pub height: f32,
    /// Offset of the window's centre to the right and down.
    #[serde(deserialize_with = "within::<Shift, _, _>")]
    pub shift: [f32; 2],
}

/// A net of the cascade and its parameters.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StageConfig {
    /// The net and the channel that is read.
    pub response: Response,
    /// Pyramid levels: the longer side of the window at each level, in pixels of the net's input.
    #[serde(deserialize_with = "within::<Pixels, _, _>")]
    pub sides: Vec<usize>,
    /// Width of the faces that give the strongest response, in pixels of the net's input.
    #[serde(deserialize_with = "within::<Width, _, _>")]
    pub width: f32,
    /// Offset from the strongest response to the centre of the face, in face widths to the right and down.
    #[serde(deserialize_with = "within::<Shift, _, _>")]
    pub shift: [f32; 2],
    /// Floor that a response must exceed to count.
    #[serde(deserialize_with = "within::<Threshold, _, _>")]
    pub floor: f32,
    /// Kernel bandwidth: in face widths, and in the logarithm of the size.
    #[serde(deserialize_with = "within::<Spread, _, _>")]
    pub spread: [f32; 2],
    /// Number of peaks that are followed up.
    #[serde(deserialize_with = "within::<Peaks, _, _>")]
    pub peaks: usize,
}

impl Locate {
    /// Checks constraints between values; keys begin at `locate`.
    pub fn check(&self) -> Result<(), Mistake> {
        for (name, stage) in [("lnet_o", &self.lnet_o), ("lnet_s", &self.lnet_s)] {
            let wrong = |found: String| Err(Mistake::at(&format!("locate.{name}.sides"), found));
            if stage.sides.is_empty() || !stage.sides.is_sorted_by(|a, b| a < b) {
                return wrong(format!("is {:?}; write the side of each level in pixels, the least first", stage.sides));
            }
            let pixels: usize = stage.sides.iter().map(|side| side * side).sum();
            if pixels > MOST_PIXELS {
                return wrong(format!(
                    "{pixels} pixels in all levels; write sides with squares of at most {MOST_PIXELS}"
                ));
            }
        }
        Ok(())
    }
}

/// The two nets.
pub struct Localiser {
    config: Locate,
    coarse: LnetStage,
    fine: LnetStage,
}

/// A net and its parameters.
struct LnetStage {
    responder: Responder,
    stage: StageConfig,
}

/// A face in a photo, in pixels of the photo.
#[derive(Debug, Clone)]
pub struct Detection {
    /// Head and shoulders.
    pub head: Rect,
    /// The core square of the face, relative to which boxes are defined.
    pub core: Rect,
    /// Mean response of LNet_s above its floor, around the face.
    pub score: f32,
    /// The maps of LNet_o and LNet_s at the level that fits the face best.
    pub maps: [Map; 2],
}

/// Number of passes over a face: the window is re-centred on the face that was found and evaluated again, because it is then
/// better placed.
const LOOKS: usize = 2;
/// Factors by which LNet_o's head-and-shoulders windows may be off in size.
const DOUBTS: [f32; 3] = [0.8, 1.0, 1.25];
/// Two windows that overlap more than this (intersection over union) are the same face.
const SAME: f32 = 0.3;

impl Localiser {
    /// Loads both nets; paths are relative to `folder`.
    ///
    /// # Errors
    /// As [`Responder::load`].
    pub fn load(config: &Locate, folder: &Folder, device: &Device) -> Result<Self> {
        let eye = |stage: &StageConfig| {
            let responder = Responder::load(&stage.response, folder, device)?;
            Ok(LnetStage { responder, stage: stage.clone() })
        };
        let (coarse, fine) = (eye(&config.lnet_o)?, eye(&config.lnet_s)?);
        Ok(Self { coarse, fine, config: config.clone() })
    }

    /// The faces of a photo with a score of at least `least`, best first.
    ///
    /// # Errors
    /// Insufficient memory for the nets' maps; maps that are not finite.
    pub fn detect(&mut self, photo: &Photo, least: f32) -> Result<Vec<Detection>> {
        let levels = self.coarse.look(photo, photo.bounds())?;
        let mut peaks = match self.config.proposals {
            Proposals::Peaks => self.coarse.stage.peaks(&levels),
            Proposals::EdgeBoxes => self.best_edge_boxes(photo, &levels)?,
        };
        let mut seen = Vec::new();
        for _ in 0..LOOKS {
            seen.clear();
            for peak in peaks {
                seen.extend(self.look_at(photo, peak)?);
            }
            suppress(&mut seen, |seen| seen.peak);
            peaks = seen.iter().map(|seen: &Candidate| seen.peak).collect();
        }
        seen.retain(|seen| seen.peak.score >= least);
        let found = seen.into_iter().map(|Candidate { peak, head, levels: fine }| {
            let map = |eye: &LnetStage, levels| eye.stage.best_level(levels, peak.width).map.clone();
            let maps = [map(&self.coarse, &levels), map(&self.fine, &fine)];
            Detection { head, core: square(&peak, peak.width), score: peak.score, maps }
        });
        Ok(found.collect())
    }

    /// The edge boxes with the highest mean response, each at the level that fits it best; only one of those that overlap.
    fn best_edge_boxes(&self, photo: &Photo, levels: &[Level]) -> Result<Vec<Peak>> {
        let StageConfig { floor, peaks, .. } = self.coarse.stage;
        let shape = self.config.boxes.face;
        let tables: Vec<(f32, SummedArea)> =
            levels.iter().map(|level| (self.coarse.stage.size(level), SummedArea::new(&level.map, floor))).collect();
        let score = |window: Rect| {
            let size = (window.width / shape.width).ln();
            let (_, table) = tables.iter().min_by(|a, b| (a.0 - size).abs().total_cmp(&(b.0 - size).abs()))?;
            let core = shape.core_of(window);
            let (x, y) = core.center();
            Some(Peak { x, y, width: core.width, score: table.mean(window) })
        };
        let windows = EdgeBoxes::faces().windows(photo)?;
        let mut found: Vec<Peak> = windows.into_iter().filter_map(|(window, _)| score(window)).collect();
        found.retain(|peak| peak.score > 0.0);
        suppress(&mut found, |peak| *peak);
        found.truncate(peaks);
        Ok(found)
    }

    /// LNet_s's detection of a face in the head-and-shoulders window around it; `None` if nothing responds.
    fn look_at(&mut self, photo: &Photo, peak: Peak) -> Result<Option<Candidate>> {
        let window = square(&peak, self.config.head * peak.width);
        let Some(head) = slid_inside(window, photo) else { return Ok(None) };
        let levels = self.fine.look(photo, head)?;
        // Prefer the face that was followed, in case the window contains another one.
        let near = |p: &Peak| {
            let distance = ((p.x - peak.x).powi(2) + (p.y - peak.y).powi(2)) / peak.width.powi(2);
            p.score * (-distance / 2.0).exp()
        };
        let best = self.fine.stage.peaks(&levels).into_iter().max_by(|a, b| near(a).total_cmp(&near(b)));
        Ok(best.map(|peak| Candidate { peak, head, levels }))
    }

    /// Samples from both nets for a face at a known position: LNet_o on the whole photo, LNet_s on head-and-shoulders windows
    /// around the face that are too small, exact and too large, as LNet_o would find them.
    ///
    /// # Errors
    /// Insufficient memory for the nets' maps.
    pub fn calibration_samples(&mut self, photo: &Photo, core: Rect) -> Result<[Vec<CalibrationSample>; 2]> {
        let whole = CalibrationSample { levels: self.coarse.look(photo, photo.bounds())?, core };
        let mut near = Vec::new();
        for doubt in DOUBTS {
            let window = core.scaled_about_center(self.config.head * doubt);
            if let Some(head) = slid_inside(window, photo) {
                near.push(CalibrationSample { levels: self.fine.look(photo, head)?, core });
            }
        }
        Ok([vec![whole], near])
    }

    /// The channel of LNet_s that responds to a tag.
    ///
    /// # Errors
    /// A tag that LNet_s was not trained on.
    pub fn channel(&self, tag: &str) -> Result<usize> {
        self.fine.responder.channel(&Channel::Tag(tag.to_string()))
    }

    /// LNet_s's response to a tag in the window `head`: where the tag is visible (paper, Fig. 9).
    ///
    /// # Errors
    /// A tag that LNet_s was not trained on; insufficient memory for the map.
    pub fn respond_to(&mut self, photo: &Photo, head: Rect, tag: &str) -> Result<Map> {
        let channel = self.channel(tag)?;
        let side = self.fine.stage.sides.iter().copied().max().unwrap_or(1);
        self.fine.responder.respond_in(photo, head, side, Some(channel))
    }
}

/// A face as detected by LNet_s.
struct Candidate {
    peak: Peak,
    head: Rect,
    levels: Vec<Level>,
}

/// Sorts faces by score and keeps one of those that overlap.
fn suppress<T>(faces: &mut Vec<T>, peak: impl Fn(&T) -> Peak) {
    faces.sort_by(|a, b| peak(b).score.total_cmp(&peak(a).score));
    let mut kept: Vec<Rect> = Vec::new();
    faces.retain(|face| {
        let core = square(&peak(face), peak(face).width);
        let new = kept.iter().all(|other| other.iou(&core) <= SAME);
        kept.extend(new.then_some(core));
        new
    });
}

/// A net's response at one scale.
pub(super) struct Level {
    pub(super) map: Map,
    /// Pixels of the net's input per pixel of the photo.
    pub(super) zoom: f32,
}

impl LnetStage {
    fn look(&mut self, photo: &Photo, window: Rect) -> Result<Vec<Level>> {
        let level = |&side: &usize| {
            let zoom = side as f32 / window.width.max(window.height);
            let map = self.responder.respond(photo, window, side)?;
            Ok(Level { map, zoom })
        };
        self.stage.sides.iter().map(level).collect()
    }
}

impl StageConfig {
    /// Natural logarithm of the face width that a level responds to most, in pixels of the photo.
    fn size(&self, level: &Level) -> f32 {
        (self.width / level.zoom).ln()
    }

    /// Density peaks of the response: faces, best first.
    pub(super) fn peaks(&self, levels: &[Level]) -> Vec<Peak> {
        let places: Vec<DensityPoint> = levels.iter().flat_map(|level| self.places(level)).collect();
        let [position, size] = self.spread;
        let mut peaks = Kernel { position, size }.peaks(&places, self.peaks);
        for peak in &mut peaks {
            peak.x += self.shift[0] * peak.width;
            peak.y += self.shift[1] * peak.width;
        }
        peaks
    }

    fn places(&self, level: &Level) -> impl Iterator<Item = DensityPoint> {
        let (Map { width, values, origin, step, .. }, size) = (&level.map, self.size(level));
        values.iter().enumerate().map(move |(i, value)| DensityPoint {
            x: origin.0 + step.0 * (i % width) as f32,
            y: origin.1 + step.1 * (i / width) as f32,
            size,
            response: (value - self.floor).max(0.0),
        })
    }

    /// The level that responds most to faces of about `width` pixels.
    fn best_level<'a>(&self, levels: &'a [Level], width: f32) -> &'a Level {
        let distance = |level: &&Level| (self.size(level) - width.ln()).abs();
        levels.iter().min_by(|a, b| distance(a).total_cmp(&distance(b))).expect("a stage has levels")
    }
}

/// A window shifted into the photo, and clipped where it is larger; `None` if no pixel is left.
fn slid_inside(window: Rect, photo: &Photo) -> Option<Rect> {
    let slide = |at: f32, side: f32, most: f32| at.min(most - side).max(0.0);
    let (width, height) = (photo.width as f32, photo.height as f32);
    let window = Rect { x: slide(window.x, window.width, width), y: slide(window.y, window.height, height), ..window };
    window.clipped(photo.width, photo.height).filter(|w| w.width >= 1.0 && w.height >= 1.0)
}

/// The square with the given side around the centre of a face.
fn square(peak: &Peak, side: f32) -> Rect {
    Rect::new(peak.x - side / 2.0, peak.y - side / 2.0, side, side)
}

impl Shape {
    /// The core square of a face, given the window around it.
    pub fn core_of(&self, window: Rect) -> Rect {
        let side = window.width / self.width;
        let (x, y) = window.center();
        let (x, y) = (x - self.shift[0] * side, y - self.shift[1] * side);
        Rect::new(x - side / 2.0, y - side / 2.0, side, side)
    }

    /// The window around a face, given its core square.
    pub fn around(&self, core: Rect) -> Rect {
        let (x, y) = core.center();
        let (x, y) = (x + self.shift[0] * core.width, y + self.shift[1] * core.width);
        let (width, height) = (self.width * core.width, self.height * core.width);
        Rect::new(x - width / 2.0, y - height / 2.0, width, height)
    }
}

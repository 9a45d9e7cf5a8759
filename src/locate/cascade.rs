//! The cascade of the paper's Fig. 2: LNet_o finds head and shoulders in the whole photo, LNet_s the face inside them.
//!
//! LNet_o runs on an image pyramid of the photo. A net responds most to faces of one width in its input, so a response-map cell of
//! a level stands for a position and a size: together the levels form one sparse response map, and its density peaks are proposals
//! of faces. Those that are faint beside the best one are dropped. LNet_s looks at each of the others twice: a pyramid of views around
//! it, of which the first look takes every other level, and the second look, around the face that the first one found, all but the
//! coarsest. The views of all levels and all proposals show different parts of the photo at different scales, but have as many pixels:
//! on the CPU a look at a face is one batch, on a GPU a look at all faces ([`super::chain`]).
//!
//! What was measured (recall at 0.1 false positives a photo on 300 LFW scenes, 330 photos in the wild and 103 of AFW):
//! - Windows of head and shoulders at every level, one pass each, 260,000 input pixels a look: 95.0, 83.9 and 35.3 %. What is far from
//!   the face responds, too.
//! - Views that span three of the faces that their level responds to most, eight levels of LNet_o and peaks half a face wide: 94.3,
//!   88.8 and 42.1 %.
//! - Peaks 0.3 faces wide, five levels, no look at faint proposals: 95.3, 90.6 and 48.4 %. Faces side by side are two peaks now. Peaks so
//!   narrow are four to six a photo, of which two are looked at; dropping those below a quarter of the best score loses no face.
//! - Views that span 3.3 faces in both looks, four levels in the second: 95.3, 92.1 and 48.4 %, and one more of the faces in scenes is
//!   among the windows. With 2.7 faces nearly three in a hundred are lost there. A look costs 96,000 and 128,000 pixels.

use super::calibrate::CalibrationSample;
use super::chain::{Chain, ChainStage, Found};
use super::density::{DensityPoint, Kernel, Peak};
use super::edge_boxes::EdgeBoxes;
use super::response::View;
use super::{Channel, Locate, Map, Proposals, Responder, StageConfig, SummedArea};
use crate::data::photo::{Photo, Rect};
use crate::device::Device;
use crate::shipped::Folder;
use crate::{Result, trace};

/// The two nets.
pub struct Localiser {
    config: Locate,
    coarse: LnetStage,
    fine: LnetStage,
    /// On a GPU, unless windows are proposed by edge boxes, which the host computes.
    chain: Option<Chain>,
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

/// Factors by which the widths of LNet_o's proposals may be off.
const DOUBTS: [f32; 3] = [0.8, 1.0, 1.25];
/// Two windows that overlap more than this (intersection over union) are the same face.
pub(super) const SAME: f32 = 0.3;

/// Widths of a face across a view of LNet_s.
const SPAN: f32 = 3.3;
/// Share of the best proposal's score below which a proposal is not looked at: beside a face, what responds a little is another
/// side of it or of what is around it.
pub(super) const FAINT: f32 = 0.25;
/// The first look takes every such level, from the coarsest, which sees faces twice as wide as they were proposed.
const SKIP: usize = 2;
/// The second look takes all levels but this part of them, the coarsest: by then a width is not far off.
const COARSEST: usize = 3;
/// Share of the wanted score below which the first look's answer is not looked at again.
pub(super) const HOPELESS: f32 = 0.25;

impl Localiser {
    /// Loads both nets; paths are relative to `folder`.
    ///
    /// # Errors
    /// As [`Responder::load`].
    pub fn load(config: &Locate, folder: &Folder, device: &Device) -> Result<Self> {
        let stage = |stage: &StageConfig| {
            let responder = Responder::load(&stage.response, folder, device)?;
            Ok(LnetStage { responder, stage: stage.clone() })
        };
        Self::of(config.clone(), [stage(&config.lnet_o)?, stage(&config.lnet_s)?])
    }

    fn of(config: Locate, [coarse, fine]: [LnetStage; 2]) -> Result<Self> {
        let chain = match config.proposals {
            Proposals::Peaks => Chain::new(&config, coarse.responder.parameters())?,
            Proposals::EdgeBoxes => None,
        };
        Ok(Self { config, coarse, fine, chain })
    }

    /// Another localiser with the same parameters, to work on another photo at the same time.
    ///
    /// # Errors
    /// Insufficient memory.
    pub fn sharing(&self) -> Result<Self> {
        let stage = |LnetStage { responder, stage }: &LnetStage| {
            Ok(LnetStage { responder: responder.sharing()?, stage: stage.clone() })
        };
        Self::of(self.config.clone(), [stage(&self.coarse)?, stage(&self.fine)?])
    }

    /// The faces of a photo with a score of at least `least`, best first.
    ///
    /// # Errors
    /// Insufficient memory for the nets' maps; maps that are not finite.
    pub fn detect(&mut self, photo: &Photo, least: f32) -> Result<Vec<Detection>> {
        let Found { pyramid, mut faces } = match &mut self.chain {
            Some(chain) => {
                let stages = [&self.coarse, &self.fine]
                    .map(|LnetStage { responder, stage }| ChainStage { responder, config: stage });
                chain.find(&self.config, stages, photo, least)?
            }
            None => self.find(photo, least)?,
        };
        faces.retain(|face| face.peak.score >= least);
        let detection = |Candidate { peak, head, levels }: Candidate| {
            let map = |stage: &LnetStage, levels| stage.stage.best_level(levels, peak.width).map.clone();
            let maps = [map(&self.coarse, &pyramid), map(&self.fine, &levels)];
            Detection { head, core: square(&peak, peak.width), score: peak.score, maps }
        };
        Ok(faces.into_iter().map(detection).collect())
    }

    /// The same as [`Chain::find`], one batch at a time.
    fn find(&mut self, photo: &Photo, least: f32) -> Result<Found> {
        let pyramid = self.coarse.pyramid(photo)?;
        let proposals = match self.config.proposals {
            Proposals::Peaks => trace::span("peaks", String::new, || bright(self.coarse.stage.peaks(&pyramid))),
            Proposals::EdgeBoxes => trace::span("edge boxes", String::new, || self.best_edge_boxes(photo, &pyramid))?,
        };
        let [first, second] = self.fine.stage.looks();
        let mut found = self.look_at(photo, &proposals, &first)?;
        found.retain(|face| face.peak.score >= HOPELESS * least);
        let peaks: Vec<Peak> = found.iter().map(|face| face.peak).collect();
        Ok(Found { pyramid, faces: self.look_at(photo, &peaks, &second)? })
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

    /// What LNet_s finds around faces, at the levels with `sides`; one of those that overlap, best first.
    fn look_at(&mut self, photo: &Photo, faces: &[Peak], sides: &[usize]) -> Result<Vec<Candidate>> {
        let mut found = Vec::new();
        for face in faces {
            // On the CPU a batch of one face's views is large enough for all threads, and its maps stay in cache.
            let levels = self.fine.levels(photo, &self.views(photo, face, sides))?;
            // Prefer the face that was followed, in case the views contain another one.
            let near = |p: &Peak| {
                let distance = ((p.x - face.x).powi(2) + (p.y - face.y).powi(2)) / face.width.powi(2);
                p.score * (-distance / 2.0).exp()
            };
            let peaks = trace::span("peaks", String::new, || self.fine.stage.peaks(&levels));
            let best = peaks.into_iter().max_by(|a, b| near(a).total_cmp(&near(b)));
            let head = self.head(face, photo);
            found.extend(best.map(|peak| Candidate { peak, head, levels }));
        }
        suppress(&mut found, |face| face.peak);
        Ok(found)
    }

    /// Views around a face, moved into the photo: at the scales at which its head-and-shoulders window has these sides.
    fn views(&self, photo: &Photo, face: &Peak, sides: &[usize]) -> Vec<View> {
        let pixels = self.fine.responder.grid().nearest(self.fine.stage.view_side()) as f32;
        let view = |&side: &usize| {
            let zoom = side as f32 / (self.config.head * face.width);
            View { window: inside(square(face, pixels / zoom), photo), zoom }
        };
        sides.iter().map(view).collect()
    }

    /// The head-and-shoulders window around a face, moved into the photo.
    fn head(&self, peak: &Peak, photo: &Photo) -> Rect {
        inside(square(peak, self.config.head * peak.width), photo)
    }

    /// Samples from both nets for a face at a known position: LNet_o on the whole photo, LNet_s on views around the face as if it
    /// were narrower, as wide and wider, as LNet_o would propose it.
    ///
    /// # Errors
    /// Insufficient memory for the nets' maps.
    pub fn calibration_samples(&mut self, photo: &Photo, core: Rect) -> Result<[Vec<CalibrationSample>; 2]> {
        let whole = CalibrationSample { levels: self.coarse.pyramid(photo)?, core };
        let (x, y) = core.center();
        let faces = DOUBTS.map(|doubt| Peak { x, y, width: core.width * doubt, score: 0.0 });
        let [_, sides] = self.fine.stage.looks();
        let mut near = Vec::new();
        for face in &faces {
            let levels = self.fine.levels(photo, &self.views(photo, face, &sides))?;
            near.push(CalibrationSample { levels, core });
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
        let view = View { window: head, zoom: side as f32 / head.width };
        let maps = self.fine.responder.respond_in(photo, &[view], Some(channel))?;
        Ok(maps.into_iter().next().expect("a map for each view"))
    }
}

/// The proposals that are not faint beside the best of those before them.
fn bright(mut proposals: Vec<Peak>) -> Vec<Peak> {
    let mut best = 0.0_f32;
    proposals.retain(|peak| {
        best = best.max(peak.score);
        peak.score >= FAINT * best
    });
    proposals
}

/// A face as detected by LNet_s.
pub(super) struct Candidate {
    pub peak: Peak,
    pub head: Rect,
    pub levels: Vec<Level>,
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
    /// The image pyramid of a photo.
    fn pyramid(&mut self, photo: &Photo) -> Result<Vec<Level>> {
        let window = photo.bounds();
        let zooms = self.stage.zooms(photo);
        let mut levels = Vec::new();
        for zoom in zooms {
            levels.extend(self.levels(photo, &[View { window, zoom }])?);
        }
        Ok(levels)
    }

    /// The responses to views of one size.
    fn levels(&mut self, photo: &Photo, views: &[View]) -> Result<Vec<Level>> {
        let maps = self.responder.respond(photo, views)?;
        Ok(maps.into_iter().zip(views).map(|(map, view)| Level { map, zoom: view.zoom }).collect())
    }
}

impl StageConfig {
    /// The scales of an image pyramid: pixels of the net's input per pixel of the photo.
    pub(super) fn zooms(&self, photo: &Photo) -> Vec<f32> {
        let longer = photo.width.max(photo.height) as f32;
        self.sides.iter().map(|&side| side as f32 / longer).collect()
    }

    /// The sides of the views of the first and of the second look.
    pub(super) fn looks(&self) -> [Vec<usize>; 2] {
        let first = self.sides.iter().step_by(SKIP).copied().collect();
        [first, self.sides[self.sides.len() / COARSEST..].to_vec()]
    }

    /// The side of a view, in pixels of the net's input: [`SPAN`] faces of the best width. No view is larger than the
    /// largest level: a width that was fitted to a net that responds to nothing may be anything.
    pub(super) fn view_side(&self) -> f32 {
        let most = self.sides.iter().copied().max().unwrap_or(1);
        (SPAN * self.width).min(most as f32)
    }

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

/// A window moved into the photo; where it is larger, the photo is in its middle.
pub(super) fn inside(window: Rect, photo: &Photo) -> Rect {
    let slide =
        |at: f32, side: f32, most: f32| if side < most { at.clamp(0.0, most - side) } else { (most - side) / 2.0 };
    let (width, height) = (photo.width as f32, photo.height as f32);
    Rect { x: slide(window.x, window.width, width), y: slide(window.y, window.height, height), ..window }
}

/// The square with the given side around the centre of a face.
pub(super) fn square(peak: &Peak, side: f32) -> Rect {
    Rect::new(peak.x - side / 2.0, peak.y - side / 2.0, side, side)
}

//! The `[locate]` table of a bundle: the two nets, at which sizes they see a photo, and how detections become boxes.

use super::Response;
use crate::data::photo::Rect;
use crate::settings::{Mistake, limits, within};
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

//! Object proposals from edges alone: Zitnick and Dollar, *Edge Boxes: Locating Object Proposals from Edges*, ECCV 2014. A box
//! scores high if many contours lie wholly inside it and few cross its border. Sections in comments refer to that paper.

mod edges;
mod grid;
mod groups;
mod score;
mod search;
#[cfg(test)]
mod tests;

pub use edges::{EdgeDetector, Edges, GradientEdges};
pub use grid::grid;

use self::groups::Groups;
use self::score::{ScoredWindow, Scorer};
use crate::data::photo::{Photo, Rect};
use crate::settings::Mistake;
use crate::{Error, Result};
use serde::Deserialize;

/// The parameters of the method. Defaults are the paper's where it states them.
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EdgeBoxes {
    /// Maximum number of windows.
    pub count: usize,
    /// Intersection over union of neighbouring windows of the sliding-window search, in 0..1.
    pub alpha: f32,
    /// Windows that overlap a better one by more than this are suppressed.
    pub beta: f32,
    /// Factor applied to `beta` for each window kept, while `beta` exceeds 0.5; 1 is the paper's method, smaller values spread
    /// the later windows.
    pub eta: f32,
    /// Exponent of the affinity between neighbouring groups.
    pub gamma: f32,
    /// Exponent of the box size in the denominator of the score: smaller values favour large boxes.
    pub kappa: f32,
    /// Windows whose scores do not exceed this are discarded.
    pub floor: f32,
    /// Maximum number of windows to refine: the best of the sliding-window search, suppressed in the same way as the result.
    pub refined: usize,
    /// Minimum and maximum size (square root of the area) of a window as a share of the photo's longer side.
    pub size: [f32; 2],
    /// Minimum and maximum ratio of height to width.
    pub aspect: [f32; 2],
    /// The photo is shrunk until its longer side has at most this many pixels.
    pub side: usize,
    /// Parameters of the default edge detector.
    pub edges: GradientEdges,
}

impl Default for EdgeBoxes {
    fn default() -> Self {
        Self {
            count: 500,
            alpha: 0.65,
            beta: 0.75,
            eta: 1.0,
            gamma: 2.0,
            kappa: 1.5,
            floor: 0.002,
            refined: 1000,
            size: [0.064, 1.0],
            aspect: [1.0 / 3.0, 3.0],
            side: 500,
            edges: GradientEdges::default(),
        }
    }
}

/// Upper limit of the number of windows; more is a mistake.
const MOST: usize = 100_000;

impl EdgeBoxes {
    /// Parameters for faces: nearly square windows, not tiny, few similar ones, and small ones ranked before large ones.
    pub fn faces() -> Self {
        Self { beta: 0.6, kappa: 1.7, floor: 0.0005, size: [0.1, 0.6], aspect: [0.8, 1.3], ..Self::default() }
    }

    /// Rejects invalid parameters.
    ///
    /// # Errors
    /// The first parameter that is out of range.
    pub fn check(&self) -> Result<(), Mistake> {
        let range = |[least, most]: [f32; 2], [low, high]: [f32; 2]| low <= least && least <= most && most <= high;
        let inside = |v: f32, low: f32, high: f32| low <= v && v <= high;
        let wrong = [
            ("count", (1..=MOST).contains(&self.count), "choose 1 to 100000"),
            ("refined", self.refined <= MOST, "choose 0 to 100000"),
            ("alpha", inside(self.alpha, 0.3, 0.95), "choose 0.3 to 0.95"),
            ("beta", inside(self.beta, 0.0, 1.0), "choose 0 to 1"),
            ("eta", inside(self.eta, 0.5, 1.0), "choose 0.5 to 1"),
            ("gamma", inside(self.gamma, 0.0, 100.0), "choose 0 to 100"),
            ("kappa", inside(self.kappa, 0.0, 10.0), "choose 0 to 10"),
            ("floor", inside(self.floor, 0.0, 1000.0), "choose 0 to 1000"),
            ("size", range(self.size, [0.01, 10.0]), "choose 0.01 <= least <= greatest <= 10"),
            ("aspect", range(self.aspect, [0.01, 100.0]), "choose 0.01 <= least <= greatest <= 100"),
            ("side", (16..=2048).contains(&self.side), "choose 16 to 2048 pixels"),
            ("edges.smoothing", self.edges.smoothing <= 16, "choose 0 to 16 pixels"),
            ("edges.surroundings", self.edges.surroundings <= 64, "choose 0 to 64 pixels"),
            ("edges.softness", inside(self.edges.softness, 1e-6, 1e6), "choose a value above 0"),
            ("edges.saturation", inside(self.edges.saturation, 1e-3, 1e6), "choose a value above 0"),
        ];
        match wrong.into_iter().find(|(_, fine, _)| !fine) {
            Some((name, _, advice)) => Err(Mistake::at(name, format!("is out of bounds; {advice}"))),
            None => Ok(()),
        }
    }

    /// The windows of a photo, in its pixels, and their scores; best first. Empty for a photo without edges.
    ///
    /// # Errors
    /// As [`EdgeBoxes::check`].
    pub fn windows(&self, photo: &Photo) -> Result<Vec<(Rect, f32)>> {
        self.windows_by(&self.edges, photo)
    }

    /// Like [`EdgeBoxes::windows`], with another edge detector.
    ///
    /// # Errors
    /// As [`EdgeBoxes::check`].
    ///
    /// # Panics
    /// If the detector's maps do not have the size of the photo.
    pub fn windows_by(&self, detector: &dyn EdgeDetector, photo: &Photo) -> Result<Vec<(Rect, f32)>> {
        self.check().map_err(|mistake| Error::new("edge boxes", mistake))?;
        let (small, _) = photo.fit_within(self.side);
        let groups = Groups::new(&detector.detect(&small), self.gamma);
        let mut scorer = Scorer::new(&groups, self.kappa);
        let found = search::search(&mut scorer, small.height, small.width, self);
        let (sx, sy) = (photo.width as f32 / small.width as f32, photo.height as f32 / small.height as f32);
        let full = |ScoredWindow { x0, y0, x1, y1 }: ScoredWindow| {
            Rect::new(x0 as f32 * sx, y0 as f32 * sy, (x1 - x0) as f32 * sx, (y1 - y0) as f32 * sy)
        };
        Ok(found.into_iter().map(|(window, score)| (full(window), score)).collect())
    }
}

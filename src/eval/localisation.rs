//! Localisation against known boxes: which windows match a face, and the resulting curves over all thresholds.
//!
//! Key idea: windows compete for boxes within their own photo only. A photo is therefore reduced immediately to its windows'
//! scores and whether each is correct; all curves are computed from these few bytes.

use crate::data::photo::Rect;

/// A window is correct if it overlaps a box by at least this intersection over union.
pub const MATCH_IOU: f32 = 0.5;
/// False positives per image at which the recall is reported.
pub const RATES: [f64; 4] = [0.01, 0.1, 0.5, 1.0];
/// 0.3, 0.35, ..., 0.95, in twentieths.
const IOU_TWENTIETHS: std::ops::RangeInclusive<u32> = 6..=19;

/// A detector's windows in one photo, and the true boxes there.
pub struct Scene<'a> {
    /// Width and height in pixels, to which windows and boxes are clipped.
    pub size: (usize, usize),
    pub boxes: &'a [Rect],
    /// In any order. A score that is NaN is below every threshold.
    pub windows: &'a [(Rect, f32)],
}

/// The result for one scene.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The window with the highest score, if that reaches the threshold; clipped.
    pub answer: Option<(Rect, f32)>,
    /// Overlap of the answer with its best-matching box; 0 without an answer.
    pub iou: f32,
    /// Whether the answer's centre lies in a box.
    pub centred: bool,
    /// Every window with its score and whether it is correct, highest score first. A window outside the photo is wrong.
    pub windows: Vec<(Rect, f32, bool)>,
}

impl Scene<'_> {
    /// Assigns windows to boxes in descending order of score: each takes the free box with the largest overlap, if that is at
    /// least [`MATCH_IOU`], and a box is assigned only once.
    pub fn matched(&self, threshold: f32) -> Outcome {
        let clip = |r: &Rect| r.clipped(self.size.0, self.size.1);
        let boxes: Vec<Rect> = self.boxes.iter().filter_map(clip).collect();
        let mut windows: Vec<(Rect, f32)> = self.windows.iter().filter(|(_, score)| !score.is_nan()).copied().collect();
        windows.sort_by(|a, b| b.1.total_cmp(&a.1));
        let mut free = vec![true; boxes.len()];
        let mut judge = |window: &Rect| {
            let overlaps = clip(window).map(|window| boxes.iter().map(|b| window.iou(b)).collect::<Vec<f32>>());
            let overlaps = overlaps.unwrap_or_default();
            let candidates = (0..overlaps.len()).filter(|&b| free[b] && overlaps[b] >= MATCH_IOU);
            let best = candidates.max_by(|&a, &b| overlaps[a].total_cmp(&overlaps[b]));
            best.inspect(|&b| free[b] = false).is_some()
        };
        let judged = windows.iter().map(|&(window, score)| (window, score, judge(&window))).collect();
        let answer = windows.first().filter(|(_, score)| *score >= threshold);
        let answer = answer.and_then(|(window, score)| Some((clip(window)?, *score)));
        let iou = answer.map_or(0.0, |(window, _)| boxes.iter().map(|b| window.iou(b)).fold(0.0, f32::max));
        let inside = |(x, y): (f32, f32)| {
            boxes.iter().any(|b| (b.x..=b.x + b.width).contains(&x) && (b.y..=b.y + b.height).contains(&y))
        };
        let centred = answer.is_some_and(|(window, _)| inside(window.center()));
        Outcome { answer, iou, centred, windows: judged }
    }
}

/// Accumulated results of a detector over photos.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Photos without any face.
    backgrounds: usize,
    /// True boxes.
    boxes: usize,
    /// For each photo with a box, the answer's overlap.
    overlaps: Vec<f32>,
    /// Number of photos whose answer's centre lies in a box.
    centred: usize,
    /// The score of every window, and whether it is correct.
    windows: Vec<(f32, bool)>,
}

impl Tally {
    /// Adds a photo with `boxes` true boxes.
    pub fn add(&mut self, boxes: usize, outcome: &Outcome) {
        self.boxes += boxes;
        if boxes == 0 {
            self.backgrounds += 1;
        } else {
            self.overlaps.push(outcome.iou);
            self.centred += usize::from(outcome.centred);
        }
        self.windows.extend(outcome.windows.iter().map(|&(_, score, right)| (score, right)));
    }

    /// Computes the measures; `None` if there are no boxes.
    pub fn localisation(mut self, detector: &str, threshold: f32) -> Option<Localisation> {
        if self.boxes == 0 {
            return None;
        }
        let images = self.overlaps.len();
        let share = |count: usize| count as f64 / images as f64;
        let reaching = |iou: f64| self.overlaps.iter().filter(|overlap| **overlap >= iou as f32).count();
        let recall_by_iou =
            IOU_TWENTIETHS.map(|i| f64::from(i) / 20.0).map(|iou| (iou, share(reaching(iou)))).collect();
        self.windows.sort_by(|a, b| b.0.total_cmp(&a.0));
        let curve = roc(&self.windows, self.boxes, images + self.backgrounds);
        Some(Localisation {
            detector: detector.to_string(),
            images,
            boxes: self.boxes,
            backgrounds: self.backgrounds,
            recall_by_iou,
            mean_iou: self.overlaps.iter().map(|iou| f64::from(*iou)).sum::<f64>() / images as f64,
            center_in_box: share(self.centred),
            recall_at_fppi: RATES.map(|rate| (rate, recall_at(&curve, rate))),
            threshold: threshold.is_finite().then_some(threshold),
            at_threshold: curve.iter().rfind(|p| p.threshold >= threshold).copied().unwrap_or(curve[0]),
            roc: thinned(&curve),
        })
    }
}

/// Localisation of one detector.
#[derive(Debug, Clone, PartialEq)]
pub struct Localisation {
    pub detector: String,
    /// Photos with a known box.
    pub images: usize,
    /// True boxes in these photos.
    pub boxes: usize,
    /// Photos without a face.
    pub backgrounds: usize,
    /// Intersection over union, and the share of photos with a box whose answer overlaps one by at least that much.
    pub recall_by_iou: Vec<(f64, f64)>,
    /// Mean overlap of the answers with their best-matching boxes; a photo without an answer counts as 0.
    pub mean_iou: f64,
    /// Share of photos with a box whose answer's centre lies in one.
    pub center_in_box: f64,
    /// False positives per image, and the share of boxes found at no more than that rate.
    pub recall_at_fppi: [(f64, f64); RATES.len()],
    /// `None` if every window counts.
    pub threshold: Option<f32>,
    /// All windows that reach the threshold, compared with all boxes.
    pub at_threshold: Point,
    /// From the strictest threshold to the loosest.
    pub roc: Vec<Point>,
}

impl Localisation {
    /// Share of photos with a box whose answer overlaps one by at least 0.5.
    pub fn recall(&self) -> f64 {
        self.recall_by_iou.iter().find(|(iou, _)| *iou == f64::from(MATCH_IOU)).map_or(0.0, |(_, recall)| *recall)
    }
}

/// The operating point at one threshold.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Windows with at least this score count.
    pub threshold: f32,
    /// Wrong windows divided by the number of photos, including backgrounds.
    pub false_positives_per_image: f64,
    /// Share of the boxes matched by a correct window: the true-positive rate.
    pub recall: f64,
}

/// The receiver operating characteristic: one point per distinct score in `windows` (sorted in descending order), after one point
/// for no window at all. Windows with equal scores enter together, because no threshold separates them.
fn roc(windows: &[(f32, bool)], boxes: usize, photos: usize) -> Vec<Point> {
    let mut curve = vec![Point { threshold: f32::INFINITY, false_positives_per_image: 0.0, recall: 0.0 }];
    let mut count = [0usize; 2];
    for same in windows.chunk_by(|a, b| a.0 == b.0) {
        for (_, right) in same {
            count[usize::from(*right)] += 1;
        }
        curve.push(Point {
            threshold: same[0].0,
            false_positives_per_image: count[0] as f64 / photos as f64,
            recall: count[1] as f64 / boxes as f64,
        });
    }
    curve
}

/// The highest recall with at most `rate` false positives per image.
fn recall_at(curve: &[Point], rate: f64) -> f64 {
    curve.iter().rfind(|point| point.false_positives_per_image <= rate).map_or(0.0, |point| point.recall)
}

/// The curve reduced to the points that a plot can resolve: a few hundred out of a million.
fn thinned(curve: &[Point]) -> Vec<Point> {
    const RECALL_STEP: f64 = 0.005;
    const RATE_FACTOR: f64 = 1.05;
    let mut kept: Vec<Point> = Vec::new();
    for (i, point) in curve.iter().enumerate() {
        let far = kept.last().is_none_or(|last| {
            point.recall >= last.recall + RECALL_STEP
                || point.false_positives_per_image > last.false_positives_per_image * RATE_FACTOR
        });
        if far || i + 1 == curve.len() {
            kept.push(*point);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZE: (usize, usize) = (100, 80);
    const FACE: Rect = Rect::new(10.0, 10.0, 20.0, 20.0);
    const OTHER: Rect = Rect::new(60.0, 30.0, 30.0, 30.0);

    /// Boxes and windows of a photo.
    type Case<'a> = (&'a [Rect], &'a [(Rect, f32)]);

    /// The measures over photos of equal size.
    fn measured(scenes: &[Case], threshold: f32) -> Option<Localisation> {
        let mut tally = Tally::default();
        for (boxes, windows) in scenes {
            tally.add(boxes.len(), &Scene { size: SIZE, boxes, windows }.matched(threshold));
        }
        tally.localisation("test", threshold)
    }

    /// False positives per image and recall of every point.
    fn points(found: &Localisation) -> Vec<(f64, f64)> {
        found.roc.iter().map(|p| (p.false_positives_per_image, p.recall)).collect()
    }

    #[test]
    fn the_truth_itself_is_found_entirely() {
        let found =
            measured(&[(&[FACE, OTHER], &[(FACE, 2.0), (OTHER, 1.0)]), (&[OTHER], &[(OTHER, 3.0)])], 0.0).unwrap();
        assert_eq!((found.images, found.boxes, found.backgrounds), (2, 3, 0));
        assert!(found.recall_by_iou.iter().all(|(_, recall)| *recall == 1.0));
        assert_eq!((found.mean_iou, found.center_in_box, found.recall()), (1.0, 1.0, 1.0));
        assert_eq!(found.recall_at_fppi, RATES.map(|rate| (rate, 1.0)));
        assert_eq!((found.at_threshold.recall, found.at_threshold.false_positives_per_image), (1.0, 0.0));
    }

    #[test]
    fn a_missing_face_and_a_window_on_a_background_are_counted() {
        let scenes: [Case; 4] =
            [(&[FACE], &[(FACE, 2.0)]), (&[FACE], &[]), (&[FACE], &[(OTHER, 1.0)]), (&[], &[(FACE, 3.0)])];
        let found = measured(&scenes, 1.5).unwrap();
        assert_eq!((found.images, found.boxes, found.backgrounds), (3, 3, 1));
        assert_eq!(points(&found), [(0.0, 0.0), (0.25, 0.0), (0.25, 1.0 / 3.0), (0.5, 1.0 / 3.0)]);
        assert_eq!(found.recall_at_fppi.map(|(_, recall)| recall), [0.0, 0.0, 1.0 / 3.0, 1.0 / 3.0]);
        assert_eq!((found.at_threshold.false_positives_per_image, found.at_threshold.recall), (0.25, 1.0 / 3.0));
        assert_eq!((found.mean_iou, found.center_in_box, found.threshold), (1.0 / 3.0, 1.0 / 3.0, Some(1.5)));
    }

    #[test]
    fn a_second_window_on_the_same_face_is_wrong() {
        let near = Rect::new(11.0, 10.0, 20.0, 20.0);
        let outcome = Scene { size: SIZE, boxes: &[FACE], windows: &[(FACE, 1.0), (near, 2.0)] }.matched(0.0);
        assert_eq!(outcome.windows, [(near, 2.0, true), (FACE, 1.0, false)]);
        assert_eq!(outcome.answer, Some((near, 2.0)));
        // A window takes its best-matching box, so the other box remains for the other window.
        let right = Rect::new(15.0, 10.0, 20.0, 20.0);
        let outcome = Scene { size: SIZE, boxes: &[FACE, right], windows: &[(right, 2.0), (FACE, 1.0)] }.matched(0.0);
        assert!(outcome.windows.iter().all(|(_, _, right)| *right));
    }

    #[test]
    fn windows_of_one_score_enter_together() {
        let windows = [(FACE, 1.0), (OTHER, 1.0), (OTHER, 0.0), (FACE, -0.0)];
        let found = measured(&[(&[FACE], &windows)], f32::NEG_INFINITY).unwrap();
        assert_eq!(points(&found), [(0.0, 0.0), (1.0, 1.0), (3.0, 1.0)]);
        assert_eq!(found.threshold, None);
        assert_eq!(found.at_threshold.false_positives_per_image, 3.0);
    }

    #[test]
    fn a_score_that_is_no_number_reaches_no_threshold() {
        let found = measured(&[(&[FACE], &[(FACE, f32::NAN)])], f32::NEG_INFINITY).unwrap();
        assert_eq!((points(&found), found.mean_iou), (vec![(0.0, 0.0)], 0.0));
        let found = measured(&[(&[FACE], &[(OTHER, f32::NAN), (FACE, f32::NEG_INFINITY)])], f32::NEG_INFINITY).unwrap();
        assert_eq!((found.recall(), points(&found)), (1.0, vec![(0.0, 0.0), (0.0, 1.0)]));
    }

    #[test]
    fn windows_are_clipped_to_the_photo() {
        let corner = Rect::new(-20.0, -20.0, 40.0, 40.0);
        let outcome =
            Scene { size: SIZE, boxes: &[corner], windows: &[(Rect::new(0.0, 0.0, 20.0, 20.0), 1.0)] }.matched(0.0);
        assert_eq!((outcome.iou, outcome.centred), (1.0, true));
        let outside = [(Rect::new(200.0, 0.0, 20.0, 20.0), 1.0)];
        let outcome = Scene { size: SIZE, boxes: &[FACE], windows: &outside }.matched(0.0);
        assert_eq!((outcome.answer, outcome.iou, outcome.windows.len()), (None, 0.0, 1));
    }

    #[test]
    fn without_a_box_there_is_nothing_to_measure() {
        assert_eq!(measured(&[], 0.0), None);
        assert_eq!(measured(&[(&[], &[(FACE, 1.0)])], 0.0), None);
    }

    #[test]
    fn a_thinned_curve_keeps_its_ends_and_its_shape() {
        let windows: Vec<(f32, bool)> = (0..100_000).map(|i| (-(i as f32), i % 3 == 0)).collect();
        let curve = roc(&windows, 50_000, 1000);
        let thin = thinned(&curve);
        assert!((100..600).contains(&thin.len()), "{}", thin.len());
        assert_eq!((thin.first(), thin.last()), (curve.first(), curve.last()));
        for rate in RATES {
            assert!((recall_at(&curve, rate) - recall_at(&thin, rate)).abs() < 0.01);
        }
    }

    fn any_rect() -> impl Strategy<Value = Rect> {
        (-20.0_f32..100.0, -20.0_f32..80.0, 1.0_f32..60.0, 1.0_f32..60.0).prop_map(|(x, y, w, h)| Rect::new(x, y, w, h))
    }

    fn any_score() -> impl Strategy<Value = f32> {
        prop_oneof![8 => (-4..4_i8).prop_map(f32::from), 2 => -5.0_f32..5.0, 1 => Just(f32::NAN), 1 => Just(f32::INFINITY)]
    }

    proptest! {
        #[test]
        fn curves_are_monotone_and_counts_add_up(scenes in prop::collection::vec(
            (prop::collection::vec(any_rect(), 0..4), prop::collection::vec((any_rect(), any_score()), 0..6)), 1..8),
            threshold in -4.0_f32..4.0,
        ) {
            let scenes: Vec<Case> = scenes.iter().map(|(b, w)| (&b[..], &w[..])).collect();
            if let Some(found) = measured(&scenes, threshold) {
                for pair in found.roc.windows(2) {
                    prop_assert!(pair[0].threshold >= pair[1].threshold);
                    prop_assert!(pair[0].recall <= pair[1].recall);
                    prop_assert!(pair[0].false_positives_per_image <= pair[1].false_positives_per_image);
                }
                prop_assert!(found.recall_by_iou.windows(2).all(|pair| pair[0].1 >= pair[1].1));
                prop_assert!(found.recall_at_fppi.windows(2).all(|pair| pair[0].1 <= pair[1].1));
                let last = found.roc.last().unwrap();
                prop_assert!(last.recall <= 1.0 && found.at_threshold.recall <= last.recall);
                let windows = scenes.iter().flat_map(|(_, w)| w.iter()).filter(|(_, score)| !score.is_nan()).count();
                let photos = (found.images + found.backgrounds) as f64;
                let counted = last.recall * found.boxes as f64 + last.false_positives_per_image * photos;
                prop_assert!((counted - windows as f64).abs() < 1e-6, "{} of {}", counted, windows);
            }
        }

        #[test]
        fn a_box_is_given_away_once(boxes in prop::collection::vec(any_rect(), 0..4),
                                    windows in prop::collection::vec((any_rect(), any_score()), 0..8)) {
            let outcome = Scene { size: SIZE, boxes: &boxes, windows: &windows }.matched(0.0);
            prop_assert!(outcome.windows.iter().filter(|(_, _, right)| *right).count() <= boxes.len());
            prop_assert!(outcome.windows.is_sorted_by(|a, b| a.1 >= b.1));
        }
    }
}

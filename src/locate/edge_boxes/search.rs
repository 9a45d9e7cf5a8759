//! The search for high-scoring boxes: a sliding window over position, size and aspect ratio, then a local search from the best
//! candidates, then non-maximum suppression (section 3.3).

use super::EdgeBoxes;
use super::score::{ScoredWindow, Scorer};
use crate::data::photo::Rect;

/// The local search ends when its step is shorter than this, in pixels.
const LEAST_STEP: usize = 2;

/// The best windows of a picture of `height` x `width` pixels and their scores, best first; none overlaps a better one
/// by more than `beta`.
pub(super) fn search(
    scorer: &mut Scorer<'_>,
    height: usize,
    width: usize,
    config: &EdgeBoxes,
) -> Vec<(ScoredWindow, f32)> {
    let mut found = Vec::new();
    slide(height, width, config, |window| {
        if let Some(score) = scorer.score(window, config.floor) {
            found.push((window, score));
        }
    });
    rank(&mut found);
    // Neighbouring windows converge to the same window: only the best of them need to be refined.
    let mut found = suppress(&found, config.beta.min(config.alpha), 1.0, config.refined);
    for (window, score) in &mut found {
        (*window, *score) = refine(scorer, *window, *score, height, width, config.alpha);
    }
    rank(&mut found);
    suppress(&found, config.beta, config.eta, config.count)
}

/// Sorts best first; equal scores keep their order.
fn rank(windows: &mut [(ScoredWindow, f32)]) {
    windows.sort_by(|a, b| b.1.total_cmp(&a.1));
}

/// Calls `visit` with windows of all positions, sizes and aspect ratios such that neighbours have an intersection over union of
/// `alpha`.
pub(super) fn slide(height: usize, width: usize, config: &EdgeBoxes, mut visit: impl FnMut(ScoredWindow)) {
    let alpha = config.alpha;
    let longer = height.max(width) as f32;
    let sides = geometric(config.size.map(|share| share * longer), (1.0 / alpha).sqrt());
    let aspects = geometric(config.aspect, ((1.0 + alpha) / (2.0 * alpha)).powi(2));
    for &side in &sides {
        for &aspect in &aspects {
            let pixels = |side: f32, most: usize| (side.round() as usize).clamp(1, most);
            let (w, h) = (pixels(side / aspect.sqrt(), width), pixels(side * aspect.sqrt(), height));
            let columns = places(w, width, alpha);
            for y0 in places(h, height, alpha) {
                columns.iter().for_each(|&x0| visit(ScoredWindow { x0, y0, x1: x0 + w, y1: y0 + h }));
            }
        }
    }
}

/// Values from `least` to `most`, evenly spaced on a logarithmic scale, with a ratio of at most `ratio` between neighbours.
fn geometric([least, most]: [f32; 2], ratio: f32) -> Vec<f32> {
    let steps = ((most / least).ln() / ratio.ln() - 1e-3).ceil().max(0.0);
    let value = |step: usize| if steps > 0.0 { least * (most / least).powf(step as f32 / steps) } else { least };
    (0..=steps as usize).map(value).collect()
}

/// Positions of a window of `length` along an axis of `size` pixels, from end to end, with neighbours overlapping by an
/// intersection over union of `alpha`.
fn places(length: usize, size: usize, alpha: f32) -> Vec<usize> {
    let room = size - length;
    let steps = (room as f32 / step(length, alpha)).ceil() as usize;
    (0..=steps).map(|i| (room * i + steps / 2) / steps.max(1)).collect()
}

/// The shift, in pixels, at which a window of `length` still overlaps itself by an intersection over union of `alpha`.
fn step(length: usize, alpha: f32) -> f32 {
    (length as f32 * (1.0 - alpha) / (1.0 + alpha)).max(1.0)
}

/// Moves the four sides, one after the other, as long as the score increases; steps start at half of the sliding window's and are
/// halved.
fn refine(
    scorer: &mut Scorer<'_>,
    mut window: ScoredWindow,
    mut score: f32,
    height: usize,
    width: usize,
    alpha: f32,
) -> (ScoredWindow, f32) {
    let mut step_x = step(window.width(), alpha) as usize / 2;
    let mut step_y = step(window.height(), alpha) as usize / 2;
    while step_x.max(step_y) >= LEAST_STEP {
        for side in 0..4 {
            for outward in [true, false] {
                let moved = moved(window, side, outward, [step_x.max(1), step_y.max(1)], height, width);
                let better = moved.and_then(|moved| Some((moved, scorer.score(moved, score)?)));
                if let Some(better) = better {
                    (window, score) = better;
                    break;
                }
            }
        }
        (step_x, step_y) = (step_x / 2, step_y / 2);
    }
    (window, score)
}

/// The window with one side (left, top, right, bottom) moved; `None` if that is impossible.
fn moved(
    window: ScoredWindow,
    side: usize,
    outward: bool,
    [dx, dy]: [usize; 2],
    height: usize,
    width: usize,
) -> Option<ScoredWindow> {
    let ScoredWindow { x0, y0, x1, y1 } = window;
    let moved = match (side, outward) {
        (0, true) => ScoredWindow { x0: x0.saturating_sub(dx), ..window },
        (0, false) => ScoredWindow { x0: x0 + dx, ..window },
        (1, true) => ScoredWindow { y0: y0.saturating_sub(dy), ..window },
        (1, false) => ScoredWindow { y0: y0 + dy, ..window },
        (2, true) => ScoredWindow { x1: (x1 + dx).min(width), ..window },
        (2, false) => ScoredWindow { x1: x1.saturating_sub(dx), ..window },
        (_, true) => ScoredWindow { y1: (y1 + dy).min(height), ..window },
        (_, false) => ScoredWindow { y1: y1.saturating_sub(dy), ..window },
    };
    (moved != window && moved.x0 < moved.x1 && moved.y0 < moved.y1).then_some(moved)
}

/// From best to worst, keeps windows that overlap no kept window by more than `beta`, at most `count`. While `beta` exceeds 0.5,
/// each kept window multiplies it by `eta`: the first ones may be close together, later ones must be elsewhere.
fn suppress(ranked: &[(ScoredWindow, f32)], mut beta: f32, eta: f32, count: usize) -> Vec<(ScoredWindow, f32)> {
    let mut kept: Vec<(ScoredWindow, f32)> = Vec::new();
    let mut rects: Vec<Rect> = Vec::new();
    for &(window, score) in ranked {
        if kept.len() == count {
            break;
        }
        let rect = window.rect();
        if rects.iter().all(|better| better.iou(&rect) <= beta) {
            kept.push((window, score));
            rects.push(rect);
            if beta > 0.5 {
                beta *= eta;
            }
        }
    }
    kept
}

//! The window in which a response map gathers: sums over windows by a summed-area table (Crow, SIGGRAPH 1984), for
//! windows of all sizes at all places.

use super::Map;
use crate::data::photo::Rect;
use serde::Deserialize;

/// How windows are searched and scored.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Search {
    /// What the response must exceed to count.
    pub floor: f32,
    /// Score = sum of the counted responses / area^power: 1 is the mean response, which shrinks the window to the peak,
    /// 0 the sum, which takes all.
    pub power: f32,
    /// Height of a window over its width.
    pub aspect: f32,
    /// Least and greatest width of a window, as shares of the map's longer side.
    pub width: [f32; 2],
}

/// Grid points per place of the map: the map is interpolated that finely.
const FINE: usize = 4;
/// Ratio of one width to the next.
const GROWTH: f32 = 1.12;

/// The window of the greatest score, in pixels of the photo, and its score; `None` if no response exceeds the floor.
pub fn best_window(map: &Map, search: &Search) -> Option<(Rect, f32)> {
    let (fine, height, width) = upsampled(map, search.floor);
    let table = summed_area(&fine, height, width);
    let longer = height.max(width) as f32;
    let mut best: Option<(f32, [usize; 4])> = None;
    let mut side = (search.width[0] * longer).max(1.0);
    while side <= search.width[1] * longer {
        let w = (side.round() as usize).clamp(1, width);
        let h = ((side * search.aspect).round() as usize).clamp(1, height);
        let scale = ((w * h) as f32 / (FINE * FINE) as f32).powf(-search.power) / (FINE * FINE) as f32;
        for y in 0..=height - h {
            for x in 0..=width - w {
                let at = |y: usize, x: usize| table[y * (width + 1) + x];
                let sum = at(y + h, x + w) - at(y, x + w) - at(y + h, x) + at(y, x);
                let score = sum as f32 * scale;
                if score > 0.0 && best.is_none_or(|(most, _)| score > most) {
                    best = Some((score, [x, y, w, h]));
                }
            }
        }
        side *= GROWTH;
    }
    let (score, window) = best?;
    let [x, y, w, h] = window.map(|v| v as f32 / FINE as f32);
    // Place (0, 0) of the map covers half a step around its middle.
    let (left, top) = (map.origin.0 - map.step.0 / 2.0, map.origin.1 - map.step.1 / 2.0);
    Some((Rect::new(left + x * map.step.0, top + y * map.step.1, w * map.step.0, h * map.step.1), score))
}

/// What exceeds the floor, interpolated bilinearly between the middles of places; and its height and width.
fn upsampled(map: &Map, floor: f32) -> (Vec<f32>, usize, usize) {
    let (height, width) = (map.height * FINE, map.width * FINE);
    let axis = |fine: usize, size: usize| {
        let at = ((fine as f32 + 0.5) / FINE as f32 - 0.5).clamp(0.0, (size - 1) as f32);
        let low = (at as usize).min(size.saturating_sub(2));
        (low, (low + 1).min(size - 1), at - low as f32)
    };
    let mut fine = Vec::with_capacity(height * width);
    for y in 0..height {
        let (y0, y1, fy) = axis(y, map.height);
        for x in 0..width {
            let (x0, x1, fx) = axis(x, map.width);
            let at = |y: usize, x: usize| (map.values[y * map.width + x] - floor).max(0.0);
            let row = |y: usize| at(y, x0) + fx * (at(y, x1) - at(y, x0));
            fine.push(row(y0) + fy * (row(y1) - row(y0)));
        }
    }
    (fine, height, width)
}

/// `[height + 1, width + 1]`: entry (y, x) is the sum of all values above and left of it.
fn summed_area(values: &[f32], height: usize, width: usize) -> Vec<f64> {
    let mut table = vec![0.0; (height + 1) * (width + 1)];
    for y in 0..height {
        let mut row = 0.0;
        for x in 0..width {
            row += f64::from(values[y * width + x]);
            table[(y + 1) * (width + 1) + x + 1] = table[y * (width + 1) + x + 1] + row;
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A map of 20 x 30 places, 16 pixels apart, with a plateau of response.
    fn plateau(x: usize, y: usize, w: usize, h: usize) -> Map {
        let value = |i: usize| {
            let (px, py) = (i % 30, i / 30);
            if (x..x + w).contains(&px) && (y..y + h).contains(&py) { 1.5 } else { 0.1 }
        };
        Map { height: 20, width: 30, values: (0..600).map(value).collect(), origin: (24.0, 24.0), step: (16.0, 16.0) }
    }

    const SEARCH: Search = Search { floor: 0.1, power: 0.7, aspect: 1.0, width: [0.05, 0.9] };

    #[test]
    fn the_window_is_where_the_response_is() {
        for (x, y, side) in [(3, 4, 6), (20, 10, 8), (0, 0, 4), (26, 16, 4)] {
            let (window, score) = best_window(&plateau(x, y, side, side), &SEARCH).unwrap();
            let truth =
                Rect::new(16.0 + 16.0 * x as f32, 16.0 + 16.0 * y as f32, 16.0 * side as f32, 16.0 * side as f32);
            assert!(window.iou(&truth) > 0.8, "{window:?} instead of {truth:?}");
            assert!(score > 0.0);
        }
    }

    #[test]
    fn sums_are_those_of_a_plain_loop() {
        let values: Vec<f32> = (0..35).map(|i| ((i * 37) % 11) as f32).collect();
        let table = summed_area(&values, 5, 7);
        for (y, x) in [(0, 0), (1, 1), (3, 4), (5, 7)] {
            let plain: f32 = (0..y).flat_map(|r| values[r * 7..r * 7 + x].iter()).sum();
            assert_eq!(table[y * 8 + x], f64::from(plain));
        }
    }

    #[test]
    fn without_a_response_there_is_no_window() {
        let mut map = plateau(0, 0, 1, 1);
        map.values.fill(-1.0);
        assert!(best_window(&map, &SEARCH).is_none());
        map.values.fill(f32::NAN);
        assert!(best_window(&map, &SEARCH).is_none());
    }
}

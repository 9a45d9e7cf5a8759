//! Sums of a response map over windows, by a summed-area table (Crow, SIGGRAPH 1984).

use super::Map;
use crate::data::photo::Rect;

/// Grid points per response-map cell: the resolution to which the map is interpolated.
const FINE: usize = 4;

/// Sums of the response above a floor: the sum over any window takes four look-ups.
pub struct SummedArea {
    height: usize,
    width: usize,
    /// `[height + 1, width + 1]`: entry (y, x) is the sum of all grid points above and to the left of it.
    table: Vec<f64>,
    /// Position of grid point (0, 0) in pixels of the photo, and grid points per pixel.
    corner: (f32, f32),
    density: (f32, f32),
}

impl SummedArea {
    /// The table of the response above `floor`, interpolated bilinearly between cell centres.
    pub fn new(map: &Map, floor: f32) -> Self {
        let (values, height, width) = upsampled(map, floor);
        // Grid point (0, 0) of the map covers half a step around its centre.
        let corner = (map.origin.0 - map.step.0 / 2.0, map.origin.1 - map.step.1 / 2.0);
        let density = (FINE as f32 / map.step.0, FINE as f32 / map.step.1);
        Self { height, width, table: summed_area(&values, height, width), corner, density }
    }

    /// Mean response over a window of the photo (paper, section 2.1: the sum over the window divided by its size). The part of
    /// the window outside the map counts as 0.
    pub fn mean(&self, window: Rect) -> f32 {
        let at = |pixel: f32, corner: f32, density: f32, most: usize| {
            ((pixel - corner) * density).round().clamp(0.0, most as f32) as usize
        };
        let x = |pixel: f32| at(pixel, self.corner.0, self.density.0, self.width);
        let y = |pixel: f32| at(pixel, self.corner.1, self.density.1, self.height);
        let (x0, x1) = (x(window.x), x(window.x + window.width));
        let (y0, y1) = (y(window.y), y(window.y + window.height));
        let entry = |y: usize, x: usize| self.table[y * (self.width + 1) + x];
        let sum = entry(y1, x1) - entry(y0, x1) - entry(y1, x0) + entry(y0, x0);
        (sum / f64::from(window.area() * self.density.0 * self.density.1)) as f32
    }
}

/// The response above the floor, interpolated bilinearly between cell centres; and its height and width.
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

/// `[height + 1, width + 1]`: entry (y, x) is the sum of all values above and to the left of it.
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

    #[test]
    fn the_mean_over_a_window_is_that_of_a_plain_loop() {
        // A map of 20 x 30 cells, 16 pixels from each other, with a plateau of response.
        let inside = |i: usize| (8..16).contains(&(i % 30)) && (4..12).contains(&(i / 30));
        let values = (0..600).map(|i| if inside(i) { 1.5 } else { 0.1 }).collect();
        let map = Map { height: 20, width: 30, values, origin: (24.0, 24.0), step: (16.0, 16.0) };
        let table = SummedArea::new(&map, 0.5);
        let plateau = Rect::new(16.0 + 16.0 * 8.0, 16.0 + 16.0 * 4.0, 128.0, 128.0);
        assert!((table.mean(plateau.scaled_about_center(0.5)) - 1.0).abs() < 1e-5);
        // Twice as wide and high: a quarter of it is plateau; interpolation softens its edge.
        assert!((table.mean(plateau.scaled_about_center(2.0)) - 0.25).abs() < 0.02);
        assert_eq!(table.mean(Rect::new(-500.0, 0.0, 100.0, 100.0)), 0.0);
        assert_eq!(table.mean(Rect::new(400.0, 250.0, 40.0, 40.0)), 0.0);
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
}

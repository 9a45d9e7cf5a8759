//! Measures which faces a net responds to. Nobody chooses this: a net is trained with tags of whole images, and learns by itself
//! which size of a face, and which point of it, are most informative. Localisation needs both, and takes them as medians over
//! photos whose faces are known; no box is used to train a net.
//!
//! Key idea: a net's maps depend on neither, so every photo is processed once, and both constants are fitted to the recorded
//! maps.

use super::StageConfig;
use super::cascade::Level;
use super::density::Peak;
use crate::data::photo::Rect;

/// A net's responses to a photo, and where its face is.
pub struct CalibrationSample {
    pub(super) levels: Vec<Level>,
    /// The square in the middle of the face.
    pub(super) core: Rect,
}

/// How well a stage finds known faces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Fit {
    /// Windows with a peak on the face.
    pub found: usize,
    /// Total number of windows.
    pub windows: usize,
    /// Robust standard deviation of the logarithm of the peaks' widths.
    pub width: f32,
    /// Robust standard deviation of the peaks' positions, in face widths: across and down.
    pub middle: [f32; 2],
}

/// A peak is on a face if their centres are no farther apart than this, in face widths.
const NEAR: f32 = 1.0;
/// Width and shift depend on each other slightly, so they are fitted alternately.
const ROUNDS: usize = 4;
/// Minimum number of faces for a meaningful median.
const LEAST: usize = 5;

impl StageConfig {
    /// The stage with the width and shift that fit the faces in the median, and how well it then finds them. `None` if it finds
    /// hardly any.
    pub fn fitted(&self, calibration_samples: &[CalibrationSample]) -> Option<(Self, Fit)> {
        let mut stage = self.clone();
        for _ in 0..ROUNDS {
            let [x, y, size] = stage.errors(calibration_samples)?.map(|errors| quantile(&errors, 0.5));
            // The shift is expressed in widths, which change as well.
            stage.shift = [(stage.shift[0] - x) * size.exp(), (stage.shift[1] - y) * size.exp()];
            stage.width *= (-size).exp();
        }
        let errors = stage.errors(calibration_samples)?;
        let (found, [x, y, width]) = (errors[0].len(), errors.map(|errors| deviation(&errors)));
        Some((stage, Fit { found, windows: calibration_samples.len(), width, middle: [x, y] }))
    }

    /// For the best peak on each face that has one: its offset to the right and down, in its own widths, and the logarithm of its
    /// width over the face's width; each sorted. `None` if hardly any face has a peak.
    fn errors(&self, calibration_samples: &[CalibrationSample]) -> Option<[Vec<f32>; 3]> {
        let mut errors = [const { Vec::new() }; 3];
        for CalibrationSample { levels, core } in calibration_samples {
            let (x, y) = core.center();
            let on_face = |peak: &Peak| (peak.x - x).hypot(peak.y - y) <= NEAR * core.width;
            if let Some(peak) = self.peaks(levels).into_iter().find(on_face) {
                let error = [(peak.x - x) / peak.width, (peak.y - y) / peak.width, (peak.width / core.width).ln()];
                errors.iter_mut().zip(error).for_each(|(errors, error)| errors.push(error));
            }
        }
        errors.iter_mut().for_each(|errors| errors.sort_by(f32::total_cmp));
        (errors[0].len() >= LEAST).then_some(errors)
    }
}

/// Quantile of sorted values; linear between the two nearest.
fn quantile(sorted: &[f32], share: f32) -> f32 {
    let at = share * (sorted.len() - 1) as f32;
    let (low, high) = (sorted[at.floor() as usize], sorted[at.ceil() as usize]);
    low + at.fract() * (high - low)
}

/// The standard deviation of the normal distribution with the interquartile range of these sorted values.
fn deviation(sorted: &[f32]) -> f32 {
    (quantile(sorted, 0.75) - quantile(sorted, 0.25)) / 1.349
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locate::{Channel, Map, Response};
    use crate::rng::Rng;

    /// Responds most to faces 40 pixels wide, a fifth of a width left of their centre and a tenth above it.
    fn sight(rng: &mut Rng) -> CalibrationSample {
        let (width, at) = (rng.range(25.0, 110.0), [rng.range(80.0, 220.0), rng.range(80.0, 220.0)]);
        let core = Rect::new(at[0] - width / 2.0, at[1] - width / 2.0, width, width);
        let level = |zoom: f32| {
            let step = 8.0 / zoom;
            let side = (300.0 / step) as usize;
            let response = |i: usize| {
                let (x, y) = (step * (i % side) as f32, step * (i / side) as f32);
                let far = ((x - at[0]) / width + 0.2).powi(2) + ((y - at[1]) / width + 0.1).powi(2);
                2.0 * (-2.0 * far - 4.0 * (zoom * width / 40.0).ln().powi(2)).exp() - 0.2
            };
            let values = (0..side * side).map(response).collect();
            Level { map: Map { height: side, width: side, values, origin: (0.0, 0.0), step: (step, step) }, zoom }
        };
        CalibrationSample { levels: [0.25, 0.35, 0.5, 0.71, 1.0, 1.4, 2.0].map(level).into(), core }
    }

    fn stage() -> StageConfig {
        let (net, weights, layer) = ("net.toml".into(), "net.safetensors".into(), "head".into());
        StageConfig {
            response: Response { net, weights, layer, channel: Some(Channel::Number(0)) },
            sides: vec![1],
            width: 31.0,
            shift: [0.1, -0.2],
            floor: 0.0,
            spread: [0.5, 0.3],
            peaks: 2,
        }
    }

    #[test]
    fn width_and_shift_are_found_whatever_they_were_taken_for() {
        let mut rng = Rng::new(1, 0);
        let calibration_samples: Vec<CalibrationSample> = (0..25).map(|_| sight(&mut rng)).collect();
        let (fitted, fit) = stage().fitted(&calibration_samples).unwrap();
        let errors = fitted.errors(&calibration_samples).unwrap();
        assert!(errors.iter().all(|errors| quantile(errors, 0.5).abs() < 0.01), "{errors:?}");
        // The width is not quite 40: finer levels have more cells, and therefore more weight in the size of a peak.
        assert!((40.0..50.0).contains(&fitted.width), "{}", fitted.width);
        assert!((fitted.shift[0] - 0.2).abs() < 0.03 && (fitted.shift[1] - 0.1).abs() < 0.03, "{:?}", fitted.shift);
        assert_eq!((fit.found, fit.windows), (25, 25));
        assert!(fit.width < 0.1 && fit.middle.iter().all(|error| *error < 0.1), "{fit:?}");
        let (other, _) =
            StageConfig { width: 60.0, shift: [0.0, 0.4], ..stage() }.fitted(&calibration_samples).unwrap();
        assert!((other.width / fitted.width).ln().abs() < 0.02, "{} and {}", other.width, fitted.width);
        assert!(stage().fitted(&calibration_samples[..4]).is_none());
        assert!(StageConfig { floor: 3.0, ..stage() }.fitted(&calibration_samples).is_none());
    }

    #[test]
    fn quantiles_of_a_line_are_its_shares() {
        let line: Vec<f32> = (0..=10).map(|i| i as f32).collect();
        assert_eq!((quantile(&line, 0.5), quantile(&line, 0.25), quantile(&line, 1.0)), (5.0, 2.5, 10.0));
        assert_eq!(quantile(&[7.0], 0.3), 7.0);
        assert!((deviation(&line) - 5.0 / 1.349).abs() < 1e-6);
    }
}

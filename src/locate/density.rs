//! Density peaks (Rodriguez and Laio, *Clustering by fast search and find of density peaks*, Science 2014) of a sparse
//! response map. A cell that responds is a point in position and size; a face is a point that is denser than all others around it
//! and far from any denser one. Where several faces share a window, each has its own peak.

/// A point of a response map, in pixels of the photo.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DensityPoint {
    pub x: f32,
    pub y: f32,
    /// Natural logarithm of the face width that this point would respond to most.
    pub size: f32,
    /// Response above the floor; 0 where it does not exceed the floor.
    pub response: f32,
}

/// Kernel bandwidth.
#[derive(Debug, Clone, Copy)]
pub struct Kernel {
    /// Standard deviation in position, in face widths.
    pub position: f32,
    /// Standard deviation in the logarithm of the size.
    pub size: f32,
}

/// A peak of the density.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Peak {
    /// Its centre, in pixels of the photo.
    pub x: f32,
    pub y: f32,
    /// Width of the face, in pixels of the photo.
    pub width: f32,
    /// Kernel-weighted mean response around it: the accumulated response divided by the size of the window.
    pub score: f32,
}

/// Minimum distance of a peak from any denser point, in standard deviations.
const SEPARATION: f32 = 3.0;
/// Distance beyond which a peak gains nothing over a nearer one.
const FAR: f32 = 6.0;
/// Number of mean-shift steps from the densest point to the centre of the density.
const SHIFTS: usize = 4;

/// A point and the square root of its face width: with it, the geometric mean of two widths is a product, not an exponential for
/// each pair.
#[derive(Clone, Copy)]
struct Rooted {
    point: DensityPoint,
    root: f32,
}

impl Rooted {
    fn new(point: DensityPoint) -> Self {
        Self { point, root: (point.size / 2.0).exp() }
    }
}

/// Squared distance, in standard deviations, from which on a weight is below 2e-8 and counts as 0.
const NEGLIGIBLE: f32 = FAR * FAR;

impl Kernel {
    /// Squared distance in standard deviations. Positions are compared at the geometric mean of the two sizes.
    fn squared(&self, a: &Rooted, b: &Rooted) -> f32 {
        let scale = self.position * a.root * b.root;
        let (a, b) = (&a.point, &b.point);
        let (dx, dy, ds) = ((a.x - b.x) / scale, (a.y - b.y) / scale, (a.size - b.size) / self.size);
        dx * dx + dy * dy + ds * ds
    }

    fn weight(&self, a: &Rooted, b: &Rooted) -> f32 {
        let squared = self.squared(a, b);
        if squared < NEGLIGIBLE { (-0.5 * squared).exp() } else { 0.0 }
    }

    /// The peaks of `places`, at most `most`: those with the largest product of density and distance to a denser point.
    pub fn peaks(&self, places: &[DensityPoint], most: usize) -> Vec<Peak> {
        let places: Vec<Rooted> = places.iter().map(|place| Rooted::new(*place)).collect();
        let dense: Vec<Rooted> = places.iter().filter(|place| place.point.response > 0.0).copied().collect();
        let density = |a: &Rooted| dense.iter().map(|b| b.point.response * self.weight(a, b)).sum::<f32>();
        let mut order: Vec<(f32, &Rooted)> = dense.iter().map(|place| (density(place), place)).collect();
        order.sort_by(|a, b| b.0.total_cmp(&a.0));
        let separation = |rank: usize| {
            let denser = order[..rank].iter().map(|(_, place)| self.squared(order[rank].1, place));
            denser.fold(f32::INFINITY, f32::min).sqrt()
        };
        let mut peaks: Vec<(f32, &Rooted)> = (0..order.len())
            .map(|rank| (separation(rank), order[rank]))
            .filter(|(separation, _)| *separation >= SEPARATION)
            .map(|(separation, (density, place))| (density * separation.min(FAR), place))
            .collect();
        peaks.sort_by(|a, b| b.0.total_cmp(&a.0));
        peaks.truncate(most);
        peaks.into_iter().map(|(_, place)| self.climb(*place, &dense, &places)).collect()
    }

    /// Mean shift from the densest point to the centre of the density around it.
    fn climb(&self, mut at: Rooted, dense: &[Rooted], places: &[Rooted]) -> Peak {
        for _ in 0..SHIFTS {
            let mut sums = [0.0; 4];
            for place in dense {
                let DensityPoint { x, y, size, response } = place.point;
                let weight = response * self.weight(&at, place);
                for (sum, value) in sums.iter_mut().zip([1.0, x, y, size]) {
                    *sum += weight * value;
                }
            }
            let [weight, x, y, size] = sums;
            if weight <= 0.0 {
                // Between points too far from each other for the kernel.
                break;
            }
            at = Rooted::new(DensityPoint { x: x / weight, y: y / weight, size: size / weight, ..at.point });
        }
        let (mut gathered, mut window) = (0.0, 0.0);
        for place in places {
            let weight = self.weight(&at, place);
            gathered += weight * place.point.response;
            window += weight;
        }
        let DensityPoint { x, y, size, .. } = at.point;
        Peak { x, y, width: size.exp(), score: if window > 0.0 { gathered / window } else { 0.0 } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: Kernel = Kernel { position: 0.5, size: 0.3 };

    /// Points 8 pixels from each other at four levels of size, responding to faces at `(x, y, width)`.
    fn places(faces: &[(f32, f32, f32)]) -> Vec<DensityPoint> {
        let mut places = Vec::new();
        for size in [20.0_f32, 28.0, 40.0, 56.0].map(f32::ln) {
            for (x, y) in (0..20).flat_map(|y| (0..25).map(move |x| (8.0 * x as f32, 8.0 * y as f32))) {
                let near = |&(fx, fy, width): &(f32, f32, f32)| {
                    let far = ((x - fx) / width).powi(2) + ((y - fy) / width).powi(2);
                    3.0 * (-2.0 * far - 4.0 * (size - width.ln()).powi(2)).exp() - 0.4
                };
                let response = faces.iter().map(near).fold(0.0, f32::max);
                places.push(DensityPoint { x, y, size, response });
            }
        }
        places
    }

    #[test]
    fn a_peak_is_found_where_the_face_is_and_as_wide() {
        for face in [(60.0, 70.0, 28.0), (101.0, 33.0, 40.0), (130.0, 90.0, 33.0)] {
            let peaks = KERNEL.peaks(&places(&[face]), 5);
            assert_eq!(peaks.len(), 1, "{peaks:?}");
            let Peak { x, y, width, score } = peaks[0];
            assert!((x - face.0).abs() < 2.0 && (y - face.1).abs() < 2.0, "{peaks:?} instead of {face:?}");
            assert!((width / face.2).ln().abs() < 0.1, "{peaks:?} instead of {face:?}");
            assert!(score > 0.5, "{score}");
        }
    }

    #[test]
    fn faces_side_by_side_are_two_peaks_and_the_stronger_comes_first() {
        let mut both = places(&[(50.0, 60.0, 28.0), (120.0, 64.0, 28.0)]);
        both.iter_mut().filter(|place| place.x > 85.0).for_each(|place| place.response *= 0.7);
        let peaks = KERNEL.peaks(&both, 5);
        assert_eq!(peaks.len(), 2, "{peaks:?}");
        assert!((peaks[0].x - 50.0).abs() < 2.0 && (peaks[1].x - 120.0).abs() < 2.0, "{peaks:?}");
        assert!(peaks[0].score > peaks[1].score);
        assert_eq!(KERNEL.peaks(&both, 1).len(), 1);
    }

    #[test]
    fn where_nothing_responds_there_is_no_peak() {
        assert_eq!(KERNEL.peaks(&[], 5), []);
        assert_eq!(KERNEL.peaks(&places(&[]), 5), []);
    }
}

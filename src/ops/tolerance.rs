//! How close a result must be to its f64 reference.
//!
//! Two measures are bounded, and a wrong kernel exceeds at least one of them. The norm of the error relative to the norm of
//! the reference catches a result that is wrong everywhere (zeros, a wrong factor), the largest error relative to the
//! largest value one that is wrong in a few places (a missing tile). Both bounds follow from the unit roundoff of the
//! precision, and [`faults`] are results that every bound must reject.

use crate::device::Precision;

/// Distance of a result from its reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Distance {
    /// Norm of the error relative to the norm of the reference.
    pub norm: f64,
    /// Largest error relative to the largest value of the reference.
    pub peak: f64,
}

impl Distance {
    /// Of `got` from `want`. Infinite for NaN, infinities or different lengths; an all-zero reference is matched only by zeros.
    pub fn new(got: &[f32], want: &[f64]) -> Self {
        let finite = got.iter().all(|x| x.is_finite()) && want.iter().all(|x| x.is_finite());
        if got.len() != want.len() || !finite {
            return Self { norm: f64::INFINITY, peak: f64::INFINITY };
        }
        let (mut error, mut reference) = ((0.0, 0.0f64), (0.0, 0.0f64));
        for (&g, &w) in got.iter().zip(want) {
            let e = f64::from(g) - w;
            error = (error.0 + e * e, error.1.max(e.abs()));
            reference = (reference.0 + w * w, reference.1.max(w.abs()));
        }
        let share = |a: f64, b: f64| if a == 0.0 { 0.0 } else { a / b };
        Self { norm: share(error.0.sqrt(), reference.0.sqrt()), peak: share(error.1, reference.1) }
    }
}

/// The largest [`Distance`] that rounding accounts for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tolerance {
    pub norm: f64,
    pub peak: f64,
}

impl Tolerance {
    /// For results after `roundings` steps, each of which rounds what it reads or writes to `precision` and sums in f32.
    /// Errors of f32 sums may be `slack` times larger than usual.
    pub fn new(precision: Precision, roundings: usize, slack: f64) -> Self {
        // Independent roundings add in quadrature. One changes a value by at most its unit roundoff, in the norm by about half of
        // that.
        let stored = match precision {
            Precision::F32 => 0.0,
            _ => precision.unit_roundoff() * (roundings as f64).sqrt(),
        };
        // 16 unit roundoffs of f32: sums of up to a few hundred terms.
        let sums = 16.0 * Precision::F32.unit_roundoff() * slack;
        Self { norm: NORM * stored + sums, peak: PEAK * stored + sums }
    }

    /// The distance relative to the tolerance; above 1 it is rejected. NaN and infinity are always rejected.
    pub fn share(&self, distance: Distance) -> f64 {
        let share = |found: f64, allowed: f64| if found == 0.0 { 0.0 } else { found / allowed };
        share(distance.norm, self.norm).max(share(distance.peak, self.peak))
    }

    pub fn admits(&self, got: &[f32], want: &[f64]) -> bool {
        self.share(Distance::new(got, want)) <= 1.0
    }

    /// The first fault that would be accepted instead of `want`: if there is one, this tolerance proves nothing.
    pub fn blind_to(&self, want: &[f64]) -> Option<&'static str> {
        faults(want).into_iter().find(|(_, fault)| self.admits(fault, want)).map(|(name, _)| name)
    }
}

/// Norms over many values: four times the half unit roundoff.
const NORM: f64 = 2.0;
/// The maximum over many values, relative to the largest.
const PEAK: f64 = 4.0;

/// Wrong results instead of `want`: zeros, 5 % too much or too little, a missing part. For an all-zero reference, only
/// noise.
pub fn faults(want: &[f64]) -> Vec<(&'static str, Vec<f32>)> {
    const PARTS: usize = 8;
    let changed = |change: &dyn Fn(usize, f64) -> f64| -> Vec<f32> {
        want.iter().enumerate().map(|(i, &x)| change(i, x) as f32).collect()
    };
    let energy = |values: &[f64]| values.iter().map(|x| x * x).sum::<f64>();
    let whole = energy(want);
    if whole == 0.0 {
        return vec![("ones", vec![1.0; want.len()])];
    }
    let mut faults = vec![
        ("zeros", vec![0.0; want.len()]),
        ("5 % too much", changed(&|_, x| 1.05 * x)),
        ("5 % too little", changed(&|_, x| 0.95 * x)),
    ];
    // A part that holds its share of the total: parts of a map after a ReLU may be zero anyway.
    let part = want.len().div_ceil(PARTS);
    for (index, values) in want.chunks(part).enumerate() {
        if energy(values) >= 0.25 * whole * values.len() as f64 / want.len() as f64 {
            let missing = |i: usize, x: f64| if i / part == index { 0.0 } else { x };
            faults.push(("a part missing", changed(&missing)));
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;

    fn values(count: usize) -> Vec<f64> {
        let mut rng = Rng::new(1, 0);
        (0..count).map(|_| f64::from(rng.normal())).collect()
    }

    #[test]
    fn nan_infinity_and_another_length_are_infinitely_far() {
        for got in [&[1.0, f32::NAN][..], &[1.0, f32::INFINITY], &[1.0]] {
            assert_eq!(Distance::new(got, &[1.0, 2.0]), Distance { norm: f64::INFINITY, peak: f64::INFINITY });
        }
        assert_eq!(Distance::new(&[0.0], &[f64::NAN]).peak, f64::INFINITY);
        assert_eq!(Distance::new(&[1.0], &[0.0]).norm, f64::INFINITY);
        assert_eq!(Distance::new(&[0.0], &[0.0]), Distance { norm: 0.0, peak: 0.0 });
        assert_eq!(Distance::new(&[3.0, 5.0], &[3.0, 4.0]), Distance { norm: 0.2, peak: 0.25 });
    }

    /// In every precision, at the depth of the deepest case, forward and backward.
    #[test]
    fn no_tolerance_admits_a_fault() {
        for precision in Precision::ALL {
            for roundings in 1..=17 {
                for count in [1, 2, 7, 64, 10_000] {
                    let tolerance = Tolerance::new(precision, roundings, 1.0);
                    assert_eq!(tolerance.blind_to(&values(count)), None, "{precision}, {roundings} roundings, {count}");
                }
            }
        }
        assert_eq!(Tolerance { norm: 0.06, peak: 0.06 }.blind_to(&values(64)), Some("5 % too much"));
        assert_eq!(Tolerance { norm: 0.6, peak: 0.8 }.blind_to(&values(64)), Some("5 % too much"));
        assert_eq!(Tolerance { norm: 1.0, peak: 1.0 }.blind_to(&values(64)), Some("zeros"));
    }

    #[test]
    fn a_few_wrong_values_of_many_are_refused() {
        let want = values(100_000);
        let mut got: Vec<f32> = want.iter().map(|&x| x as f32).collect();
        let tolerance = Tolerance::new(Precision::Bf16, 3, 1.0);
        assert!(tolerance.admits(&got, &want));
        got[50_000] = if want[50_000] > 0.0 { -1.0 } else { 1.0 };
        let distance = Distance::new(&got, &want);
        assert!(distance.norm < tolerance.norm && distance.peak > tolerance.peak, "{distance:?}");
    }

    #[test]
    fn rounding_once_is_admitted_and_twice_as_coarsely_is_not_forever() {
        let want = values(1000);
        for (precision, coarser) in [(Precision::F16, Precision::Bf16), (Precision::Tf32, Precision::Bf16)] {
            let rounded =
                |precision: Precision| -> Vec<f32> { want.iter().map(|&x| precision.round_factor(x as f32)).collect() };
            let tolerance = Tolerance::new(precision, 1, 1.0);
            assert!(tolerance.admits(&rounded(precision), &want), "{precision}");
            assert!(!tolerance.admits(&rounded(coarser), &want), "{precision}");
        }
    }
}

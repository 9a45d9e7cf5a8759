//! Error per kernel: the worst of all cases in which it ran.

use crate::device::{Launch, Precision};
use crate::ops::tolerance::{Distance, Tolerance};
use std::collections::BTreeMap;

/// The result for one kernel in one precision.
#[derive(Debug, Clone, PartialEq)]
pub struct KernelRow {
    pub kernel: String,
    pub precision: Precision,
    /// The norm of the error relative to the tensor's, or the maximum error relative to the tensor's maximum: whichever uses more
    /// of its tolerance.
    pub error: f64,
    pub tolerance: f64,
    /// The case in which it occurred.
    pub case: String,
    /// The failure, if the kernel did not run.
    pub failure: Option<String>,
}

impl KernelRow {
    /// The error as a share of its tolerance.
    pub fn share(&self) -> f64 {
        // With a tolerance of zero, any error is too large.
        if self.error == 0.0 { 0.0 } else { self.error / self.tolerance }
    }

    pub fn holds(&self) -> bool {
        self.failure.is_none() && self.share() <= 1.0
    }
}

/// Rows indexed by kernel and precision.
#[derive(Debug)]
pub struct Tally {
    rows: BTreeMap<(String, usize), KernelRow>,
    precision: Precision,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { rows: BTreeMap::new(), precision: Precision::F32 }
    }

    pub(super) fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// Compares a result to which all these launches contributed with the CPU's.
    pub fn compare(&mut self, launches: &[Launch], case: &str, got: &[f32], want: &[f32], tolerance: Tolerance) {
        let want: Vec<f64> = want.iter().map(|&x| x.into()).collect();
        let distance = Distance::new(got, &want);
        let [norm, peak] = [(distance.norm, tolerance.norm), (distance.peak, tolerance.peak)];
        let share = |(error, allowed): (f64, f64)| if error == 0.0 { 0.0 } else { error / allowed };
        let (error, allowed) = if share(norm) > share(peak) { norm } else { peak };
        match tolerance.blind_to(&want) {
            Some(fault) => self.fail(launches, case, &format!("the bound {allowed:.1e} would let {fault} pass")),
            None => self.add(launches, case, error, allowed, None),
        }
    }

    /// Compares a result that must be bit-identical with the CPU's.
    pub fn same(&mut self, launches: &[Launch], case: &str, got: &[f32], want: &[f32]) {
        self.compare(launches, case, got, want, Tolerance { norm: 0.0, peak: 0.0 });
    }

    /// Records launches that did not run.
    pub fn fail(&mut self, launches: &[Launch], case: &str, failure: &str) {
        self.add(launches, case, f64::INFINITY, 0.0, Some(failure.to_string()));
    }

    fn add(&mut self, launches: &[Launch], case: &str, error: f64, tolerance: f64, failure: Option<String>) {
        for launch in launches {
            let row = KernelRow {
                kernel: launch.kernel.clone(),
                precision: self.precision,
                error,
                tolerance,
                case: case.to_string(),
                failure: failure.clone(),
            };
            let key = (row.kernel.clone(), self.precision as usize);
            match self.rows.get_mut(&key) {
                // A share is never NaN, see `error`.
                Some(old) if old.share() > row.share() || old.failure.is_some() => {}
                Some(old) => *old = row,
                None => drop(self.rows.insert(key, row)),
            }
        }
    }

    pub(super) fn into_rows(self) -> Vec<KernelRow> {
        self.rows.into_values().collect()
    }
}

//! Errors per kernel: the worst of all cases in which it ran.

use crate::device::{Launch, Precision};
use std::collections::BTreeMap;

/// What was found of one kernel in one precision.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    pub kernel: String,
    pub precision: Precision,
    /// Largest error as a share of the largest value of the tensor in which it is.
    pub error: f64,
    pub tolerance: f64,
    /// Where that was.
    pub case: String,
    /// What went wrong, if it did not even run.
    pub failure: Option<String>,
}

impl Row {
    /// The error as a share of its tolerance.
    pub fn share(&self) -> f64 {
        // Where nothing may differ, anything is too much.
        if self.error == 0.0 { 0.0 } else { self.error / self.tolerance }
    }

    pub fn holds(&self) -> bool {
        self.failure.is_none() && self.share() <= 1.0
    }
}

/// Rows by kernel and precision.
#[derive(Debug)]
pub struct Tally {
    rows: BTreeMap<(String, usize), Row>,
    precision: Precision,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self { rows: BTreeMap::new(), precision: Precision::F32 }
    }

    pub(super) fn set_precision(&mut self, precision: Precision) {
        self.precision = precision;
    }

    /// Allowed against the CPU: twice the kernels' bound in f32, since the CPU rounds, too.
    pub fn tolerance(&self, precision: Precision) -> f64 {
        if precision == Precision::F32 { 2.0 * precision.tolerance() } else { precision.tolerance() }
    }

    /// Notes the error of a result that all these launches had a part in.
    pub fn note(&mut self, launches: &[Launch], case: &str, error: f64, tolerance: f64) {
        self.add(launches, case, error, tolerance, None);
    }

    /// Notes launches that did not even run.
    pub fn fail(&mut self, launches: &[Launch], case: &str, failure: &str) {
        self.add(launches, case, f64::INFINITY, 0.0, Some(failure.to_string()));
    }

    fn add(&mut self, launches: &[Launch], case: &str, error: f64, tolerance: f64, failure: Option<String>) {
        for launch in launches {
            let row = Row {
                kernel: launch.kernel.clone(),
                precision: self.precision,
                error,
                tolerance,
                case: case.to_string(),
                failure: failure.clone(),
            };
            let key = (row.kernel.clone(), self.precision as usize);
            match self.rows.get_mut(&key) {
                // NaN is never small; there is none, see `error`.
                Some(old) if old.share() > row.share() || old.failure.is_some() => {}
                Some(old) => *old = row,
                None => drop(self.rows.insert(key, row)),
            }
        }
    }

    pub(super) fn into_rows(self) -> Vec<Row> {
        self.rows.into_values().collect()
    }
}

/// Largest difference as a share of the largest value wanted; infinite for NaN and for another length.
pub fn error(got: &[f32], want: &[f32]) -> f64 {
    if got.len() != want.len() || got.iter().chain(want).any(|x| !x.is_finite()) {
        return f64::INFINITY;
    }
    let largest = want.iter().fold(0.0, |m: f64, w| m.max(f64::from(w.abs())));
    let worst = got.iter().zip(want).fold(0.0, |m: f64, (g, w)| m.max((f64::from(*g) - f64::from(*w)).abs()));
    if worst == 0.0 { 0.0 } else { worst / largest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_and_a_missing_value_are_infinite_errors() {
        assert_eq!(error(&[1.0, f32::NAN], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(error(&[1.0], &[1.0, 2.0]), f64::INFINITY);
        assert_eq!(error(&[1.0], &[0.0]), f64::INFINITY);
        assert_eq!(error(&[1.0, 2.5], &[1.0, 2.0]), 0.25);
    }
}

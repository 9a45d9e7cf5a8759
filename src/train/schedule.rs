//! The learning rate over the course of training.

use crate::settings::{limits, within};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

limits! {
    /// A learning rate that must not be 0, and one that may be.
    Rate: f64 = 1e-12, 1000.0;
    LastRate: f64 = 0.0, 1000.0;
    /// A fraction of all steps.
    Warmup: f64 = 0.0, 0.99;
    /// A factor of the learning rate.
    Factor: f64 = 1e-6, 1.0;
    /// A number of epochs.
    Every: f64 = 1e-3, 1e6;
}

/// `[schedule]` of a training file, whose `kind` names the variant ([`crate::settings::tagged`]).
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum Schedule {
    /// `rate`, multiplied by `factor` after every `every` epochs.
    Step {
        /// The initial learning rate.
        #[serde(deserialize_with = "within::<Rate, _, _>")]
        rate: f64,
        /// The factor of the learning rate...
        #[serde(deserialize_with = "within::<Factor, _, _>")]
        factor: f64,
        /// ...applied each time after this many epochs.
        #[serde(deserialize_with = "within::<Every, _, _>")]
        every: f64,
    },
    /// From `rate` to `last` along half a cosine, after a linear warm-up over the first `warmup` fraction of the steps.
    Cosine {
        /// The peak learning rate.
        #[serde(deserialize_with = "within::<Rate, _, _>")]
        rate: f64,
        /// The final learning rate.
        #[serde(default, deserialize_with = "within::<LastRate, _, _>")]
        last: f64,
        /// Fraction of all steps over which the rate rises.
        #[serde(default, deserialize_with = "within::<Warmup, _, _>")]
        warmup: f64,
    },
    /// Up to `rate` along half a cosine in the first `warmup` fraction, from `rate / 25`; then down to `rate / 250000`
    /// (Smith and Topin, 2017; PyTorch's defaults).
    OneCycle {
        /// The peak learning rate.
        #[serde(deserialize_with = "within::<Rate, _, _>")]
        rate: f64,
        /// Fraction of all steps over which the rate rises.
        #[serde(default = "three_tenths", deserialize_with = "within::<Warmup, _, _>")]
        warmup: f64,
    },
}

fn three_tenths() -> f64 {
    0.3
}

/// From `a` (t = 0) to `b` (t = 1) along half a cosine.
fn cosine(a: f64, b: f64, t: f64) -> f64 {
    b + (a - b) * (1.0 + (PI * t).cos()) / 2.0
}

impl Schedule {
    /// The learning rate at the fraction `t` in [0, 1] of all steps, where `epochs` is the total number of epochs.
    ///
    /// ```
    /// use weft::train::Schedule;
    ///
    /// let step = Schedule::Step { rate: 0.1, factor: 0.5, every: 2.0 };
    /// assert_eq!([step.rate(0.0, 10.0), step.rate(0.25, 10.0)], [0.1, 0.05]);
    /// ```
    pub fn rate(&self, t: f64, epochs: f64) -> f32 {
        (match *self {
            // The end of a step may round to just below a whole number of epochs.
            Self::Step { rate, factor, every } => rate * factor.powf((t * epochs / every + 1e-9).floor()),
            Self::Cosine { rate, warmup, .. } if t < warmup => rate * t / warmup,
            Self::Cosine { rate, last, warmup } => cosine(rate, last, (t - warmup) / (1.0 - warmup)),
            Self::OneCycle { rate, warmup } if t < warmup => cosine(rate / 25.0, rate, t / warmup),
            Self::OneCycle { rate, warmup } => cosine(rate, rate / 250_000.0, (t - warmup) / (1.0 - warmup)),
        }) as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedules_pass_through_their_corners() {
        let near = |a: f32, b: f32| assert!((a - b).abs() <= 1e-6 * b.abs().max(1e-9), "{a} instead of {b}");
        let step = Schedule::Step { rate: 1.0, factor: 0.1, every: 2.0 };
        for (t, rate) in [(0.0, 1.0), (0.19, 1.0), (0.2, 0.1), (0.399, 0.1), (0.4, 0.01)] {
            near(step.rate(t, 10.0), rate);
        }
        let cycle = Schedule::OneCycle { rate: 0.03, warmup: 0.3 };
        for (t, rate) in [(0.0, 0.0012), (0.15, 0.0156), (0.3, 0.03), (0.65, 0.015_000_06), (1.0, 1.2e-7)] {
            near(cycle.rate(t, 1.0), rate);
        }
        let cosine = Schedule::Cosine { rate: 1.0, last: 0.0, warmup: 0.5 };
        for (t, rate) in [(0.0, 0.0), (0.25, 0.5), (0.5, 1.0), (0.75, 0.5)] {
            near(cosine.rate(t, 1.0), rate);
        }
    }
}

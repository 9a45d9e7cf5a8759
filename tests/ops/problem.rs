//! A case with numbers, and a device's answer. At this interface everything is NCHW and parameters are in file order, so that no
//! device's layout is privileged.

use crate::reference;
use std::env;
use std::sync::Arc;
use weft::device::Precision;
use weft::net::{Net, Spec};
use weft::ops::cases::{self, Case, Expectation};
use weft::ops::{Mode, TargetKind};
use weft::rng::Rng;

/// The problem given to a device.
#[derive(Clone)]
pub struct Problem {
    pub name: String,
    pub seed: u64,
    pub net: Arc<Net>,
    /// Number of samples.
    pub n: usize,
    pub mode: Mode,
    /// `[n, c, h, w]`
    pub input: Vec<f32>,
    /// In the order of [`Net::parameters`].
    pub parameters: Vec<Vec<f32>>,
    /// `[n]` or `[n, h, w]`
    pub classes: Vec<u32>,
    /// `[n, c, h, w]`
    pub values: Vec<f32>,
    /// In the shape of the last layer's output; optional only for a loss.
    pub cotangent: Option<Vec<f32>>,
    pub expects: Expectation,
    /// No kink is near, so gradients can be checked.
    pub smooth: bool,
}

/// A device's answer.
pub struct Answer {
    /// The output of each layer, `[n, c, h, w]`; a loss is one value.
    pub outputs: Vec<Vec<f32>>,
    pub d_input: Vec<f32>,
    pub d_parameters: Vec<Vec<f32>>,
}

/// The selected cases.
pub fn wanted() -> impl Iterator<Item = &'static Case> {
    let wanted = env::var("WEFT_TEST_CASES").unwrap_or_default();
    cases::all().filter(move |case| case.name.contains(&wanted))
}

impl Problem {
    /// A case with numbers rounded to `precision`: the first seed whose numbers are far enough from every kink of a ReLU or a
    /// maximum, so that derivatives exist and neither differences of [`crate::gradient::STEP`] nor the device's own rounding
    /// cross a kink. Few distinct 16-bit numbers fit in a large window, or under a deep net: then there is no such seed, and the
    /// problem records this.
    pub fn of(case: &Case, precision: Precision) -> Self {
        let attempts = if precision == Precision::F32 { 100 } else { 10 };
        let first = env::var("WEFT_TEST_SEED").map_or(1, |seed| seed.parse().expect("WEFT_TEST_SEED is a number"));
        let draw = |seed| Self::draw(case, seed).rounded(precision);
        let exact = precision == Precision::F32 || draw(first).net.layers.len() == 1;
        let margin = if exact { reference::MARGIN } else { 4.0 * precision.unit_roundoff() };
        let found = (first..first + attempts).map(draw).find(|problem| reference::run(problem).kink > margin);
        let smooth = found.is_some();
        assert!(smooth || precision != Precision::F32, "case {}: seeds from {first} on all lie on a kink", case.name);
        Self { smooth, ..found.unwrap_or_else(|| draw(first)) }
    }

    /// Generates the numbers of a case. Inputs are distinct and evenly spaced, so that no two values in a window are close.
    pub fn draw(case: &Case, seed: u64) -> Self {
        let net = Spec::parse(&case.toml(), case.name).and_then(Net::new);
        let net = Arc::new(net.unwrap_or_else(|e| panic!("case {}: {e}", case.name)));
        let n = case.input[0];
        let mut rng = Rng::new(seed, 0);

        let len = n * net.spec.input.len();
        // Never 0, wherever the centre is.
        let spaced = |i: usize| case.middle + case.scale * (4.0 * (i as f32 + 0.3) / len as f32 - 2.0);
        let mut input: Vec<f32> = (0..len).map(spaced).collect();
        rng.shuffle(&mut input);

        let parameters = net.parameters.iter().map(|parameter| {
            let deviation = match parameter.tensor.fan_in {
                0 => 0.3,
                fan_in => (2.0 / fan_in as f32).sqrt(),
            };
            (0..parameter.range.len()).map(|_| deviation * rng.normal()).collect()
        });
        let parameters = parameters.collect();

        let (mut classes, mut values) = (Vec::new(), Vec::new());
        for kind in net.layers.iter().filter_map(|layer| layer.op.target()) {
            match kind {
                TargetKind::Classes { per_sample, below } => {
                    classes = (0..n * per_sample).map(|_| rng.below(below) as u32).collect();
                }
                // With a loss over classes, these serve as identities too.
                TargetKind::Identities if !classes.is_empty() => {}
                TargetKind::Identities => classes = (0..n).map(|_| 1_000_000_007 * rng.below(3) as u32).collect(),
                TargetKind::Values { per_sample } => {
                    let draw = |_| if rng.chance(0.7) { rng.below(2) as f32 } else { rng.unit() };
                    values = (0..n * per_sample).map(draw).collect();
                }
            }
        }
        // Mostly positive: sums that cancel would measure the rounding of their terms, not the device's.
        let cotangent = (0..net.value_len(net.layers.len(), n)).map(|_| rng.range(-0.5, 1.5)).collect();
        let mode = if case.training { Mode::Training { seed } } else { Mode::Inference };
        let (name, expects) = (case.name.to_string(), case.expects);
        let cotangent = Some(cotangent);
        Self { name, seed, net, n, mode, input, parameters, classes, values, cotangent, expects, smooth: true }
    }

    /// The same with NaN for every number: stale memory from this pass is detected wherever it is read.
    pub fn poisoned(&self) -> Self {
        let mut poisoned = self.clone();
        poisoned.input.fill(f32::NAN);
        poisoned.parameters.iter_mut().for_each(|tensor| tensor.fill(f32::NAN));
        poisoned.cotangent.iter_mut().for_each(|values| values.fill(f32::NAN));
        poisoned
    }

    /// The same with numbers rounded for multiplication on a device. Biases and targets stay f32.
    pub fn rounded(mut self, precision: Precision) -> Self {
        let round = |values: &mut [f32]| values.iter_mut().for_each(|x| *x = precision.round_factor(*x));
        round(&mut self.input);
        for (parameter, values) in self.net.parameters.iter().zip(&mut self.parameters) {
            if parameter.tensor.fan_in > 0 {
                round(values);
            }
        }
        if !self.is_loss(self.net.layers.len() - 1) {
            self.cotangent.iter_mut().for_each(|values| round(values));
        }
        self
    }

    /// Number of values in the input, all layers and all parameters.
    pub fn len(&self) -> usize {
        let values: usize = (0..=self.net.layers.len()).map(|value| self.net.value_len(value, self.n)).sum();
        values + self.net.parameter_len()
    }

    /// Whether layer `l` is a loss: one number for the batch.
    pub fn is_loss(&self, l: usize) -> bool {
        self.net.layers[l].op.target().is_some()
    }
}

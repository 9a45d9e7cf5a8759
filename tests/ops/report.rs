//! A report collects all failures of a check, so that one failing case does not hide another, and ends in a single panic.

use crate::device::Device;
use crate::harness;
use crate::problem::Problem;
use weft::device::Precision;
use weft::ops::tolerance::{Distance, Tolerance};

/// The results of one check on one device.
pub struct Report {
    question: String,
    precision: Precision,
    failures: Vec<String>,
    tensors: usize,
    passed_over: Vec<String>,
    /// The largest error relative to its tolerance, and where it occurred.
    worst: (f64, String),
}

impl Report {
    pub fn new(question: &str, device: &Device) -> Self {
        Self {
            question: format!("{question} ({})", device.name),
            precision: device.precision,
            failures: Vec::new(),
            tensors: 0,
            passed_over: Vec::new(),
            worst: (0.0, "none".into()),
        }
    }

    /// Compares the output of layer `l` with the expected one.
    pub fn output(&mut self, problem: &Problem, l: usize, what: &str, got: &[f32], want: &[f64]) {
        let tolerance =
            Tolerance::new(self.precision, problem.expects.roundings * (l + 1), problem.expects.output_slack);
        let zero = problem.expects.zero.contains(&problem.net.layers[l].name.as_str());
        self.compare(problem, tolerance, what, got, want, zero);
    }

    /// Compares a gradient with the expected one. It has passed through all layers, forward and backward.
    pub fn gradient(&mut self, problem: &Problem, what: &str, got: &[f32], want: &[f64]) {
        let roundings = problem.expects.roundings * (2 * problem.net.layers.len() + 1);
        let tolerance = Tolerance::new(self.precision, roundings, 2.0 * problem.expects.gradient_slack);
        let zero = problem.expects.zero.contains(&what);
        self.compare(problem, tolerance, &format!("gradient of {what}"), got, want, zero);
    }

    fn compare(&mut self, problem: &Problem, tolerance: Tolerance, what: &str, got: &[f32], want: &[f64], zero: bool) {
        self.tensors += 1;
        let precision = self.precision;
        if want.iter().all(|w| *w == 0.0) != zero {
            let text = if zero { "is not zero, as the case expects" } else { "is zero: nothing is compared" };
            return self.fail(problem, format!("{what}: the reference {text}"));
        }
        if let Some(fault) = tolerance.blind_to(want) {
            return self.fail(
                problem,
                format!("{what}: a bound of {:.1e} would let {fault} pass in {precision}", tolerance.norm),
            );
        }
        let distance = Distance::new(got, want);
        let share = tolerance.share(distance);
        if share <= 1.0 {
            if share > self.worst.0 {
                self.worst = (share, format!("case {}, {what}", problem.name));
            }
            return;
        }
        let error = |i: usize| (f64::from(got[i]) - want[i]).abs();
        // NaN fails every comparison, so it is searched for first.
        let worst = (0..got.len().min(want.len())).find(|&i| !got[i].is_finite());
        let worst = worst.or_else(|| (0..got.len().min(want.len())).max_by(|&i, &j| error(i).total_cmp(&error(j))));
        let worst = worst.map_or(String::new(), |i| format!("; {} instead of {} at {i}", got[i], want[i]));
        let sizes = format!("{} of {} values", got.len(), want.len());
        let found = format!("norm of the error {:.2e}, largest {:.2e}", distance.norm, distance.peak);
        let allowed = format!("allowed {:.2e} and {:.2e}", tolerance.norm, tolerance.peak);
        self.fail(problem, format!("{what}: {sizes}, {found}, {allowed}{worst}"));
    }

    /// Records another kind of failure.
    pub fn fail(&mut self, problem: &Problem, text: String) {
        self.failures.push(format!("case {} (seed {}): {text}", problem.name, problem.seed));
    }

    /// Records that a case was skipped.
    pub fn pass_over(&mut self, problem: &Problem, why: &str) {
        self.passed_over.push(format!("case {}: {why}", problem.name));
    }

    /// Whether a case is skipped in this precision, which is recorded.
    pub fn passes_over(&mut self, problem: &Problem) -> bool {
        let why = problem.expects.exact.filter(|_| self.precision != Precision::F32);
        why.inspect(|why| self.pass_over(problem, why)).is_some()
    }

    /// Records a failure unless `fact` holds.
    pub fn require(&mut self, problem: &Problem, fact: bool, text: &str) {
        self.tensors += 1;
        if !fact {
            self.fail(problem, text.to_string());
        }
    }

    /// The failures, if there were any, or if nothing was checked.
    pub fn finish(self) -> Option<String> {
        let Self { question, failures, tensors, passed_over, worst, .. } = self;
        if !failures.is_empty() {
            return Some(format!("{question}: {} failed\n  {}", failures.len(), failures.join("\n  ")));
        }
        if harness::is_verbose() {
            passed_over.iter().for_each(|case| println!("{question}: not asked: {case}"));
            println!("{question}: {tensors} tensors, worst {:.2} of the allowance ({})", worst.0, worst.1);
        }
        (tensors == 0).then(|| format!("{question}: nothing was compared"))
    }
}

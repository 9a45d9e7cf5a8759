//! Errors are shares of the largest value of their tensor. A report collects them all, so that one wrong case does not
//! hide another, and ends in one panic.

use crate::device::Device;
use crate::problem::Problem;
use weft::device::Precision;

/// What one device answered to one question.
pub struct Report {
    question: String,
    bound: f64,
    /// Each layer's output loses digits.
    rounds: bool,
    failures: Vec<String>,
    tensors: usize,
    passed_over: Vec<String>,
    /// The largest error as a share of what is allowed, and whose.
    worst: (f64, String),
}

impl Report {
    pub fn new(question: &str, device: &Device) -> Self {
        let question = format!("{question} ({})", device.name);
        Self {
            question,
            bound: device.bound,
            rounds: device.precision != Precision::F32,
            failures: Vec::new(),
            tensors: 0,
            passed_over: Vec::new(),
            worst: (0.0, "none".into()),
        }
    }

    /// Holds an output against what is wanted.
    pub fn output(&mut self, problem: &Problem, what: &str, got: &[f32], want: &[f64]) {
        self.compare(problem, problem.slack.output, what, got, want);
    }

    /// Holds a gradient against what is wanted; it may err twice as much, for it has gone both ways.
    pub fn gradient(&mut self, problem: &Problem, what: &str, got: &[f32], want: &[f64]) {
        self.compare(problem, 2.0 * problem.slack.gradient, &format!("gradient of {what}"), got, want);
    }

    /// NaN is an error wherever it stands.
    fn compare(&mut self, problem: &Problem, slack: f64, what: &str, got: &[f32], want: &[f64]) {
        self.tensors += 1;
        if got.len() != want.len() {
            return self.fail(problem, format!("{what}: {} values instead of {}", got.len(), want.len()));
        }
        if let Some(at) = want.iter().position(|w| !w.is_finite()) {
            return self.fail(problem, format!("{what}: the reference is {} at {at}", want[at]));
        }
        let largest = want.iter().fold(0.0, |m: f64, w| m.max(w.abs()));
        // 16-bit devices, and tf32's factors, round after every layer.
        let roundings = if self.rounds { problem.net.layers.len() as f64 } else { 1.0 };
        let allowed = self.bound * slack * roundings * largest;
        let error = |i: usize| (f64::from(got[i]) - want[i]).abs();
        // NaN compares with nothing, so it is looked for first.
        let worst = (0..got.len()).find(|&i| got[i].is_nan());
        let Some(worst) = worst.or_else(|| (0..got.len()).max_by(|&i, &j| error(i).total_cmp(&error(j)))) else {
            return self.fail(problem, format!("{what}: no values"));
        };
        let holds = error(worst) <= allowed;
        if !holds {
            let text = format!(
                "{what}: {} instead of {} at {worst} of {}; error {:.2e} of the largest value, allowed {:.2e}",
                got[worst],
                want[worst],
                got.len(),
                error(worst) / largest,
                allowed / largest
            );
            return self.fail(problem, text);
        }
        if allowed > 0.0 && error(worst) / allowed > self.worst.0 {
            self.worst = (error(worst) / allowed, format!("case {}, {what}", problem.name));
        }
    }

    /// Notes a failure of another kind.
    pub fn fail(&mut self, problem: &Problem, text: String) {
        self.failures.push(format!("case {} (seed {}): {text}", problem.name, problem.seed));
    }

    /// Notes that a case was not asked.
    pub fn pass_over(&mut self, problem: &Problem, why: &str) {
        self.passed_over.push(format!("case {}: {why}", problem.name));
    }

    /// Notes a failure unless `fact` holds.
    pub fn require(&mut self, problem: &Problem, fact: bool, text: &str) {
        self.tensors += 1;
        if !fact {
            self.fail(problem, text.to_string());
        }
    }

    /// # Panics
    /// If anything failed, or nothing was asked.
    pub fn finish(self) {
        let Self { question, failures, tensors, passed_over, worst, .. } = self;
        assert!(failures.is_empty(), "{question}: {} failed\n  {}", failures.len(), failures.join("\n  "));
        assert!(tensors > 0, "{question}: nothing was compared");
        passed_over.iter().for_each(|case| println!("{question}: not asked: {case}"));
        println!("{question}: {tensors} tensors, worst {:.2} of the allowance ({})", worst.0, worst.1);
    }
}

//! The test cases of every operation: small nets with odd sizes. `weft doctor` and the tests run the same list.
//!
//! The cases of an operation are in its own folder and are named in its line of [`OPERATIONS`], so an operation without
//! cases does not compile. Nets of several operations are in [`NETS`], here.
//!
//! Nets are written in a short form, one layer per line: `name: type key=value ...`, values as in TOML without spaces.

use super::OPERATIONS;
use std::fmt::Write as _;

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// Samples, channels, height, width.
    pub input: [usize; 4],
    pub layers: &'static str,
    /// Inputs lie within 2 times `scale` of `middle`.
    pub middle: f32,
    pub scale: f32,
    /// Whether dropout draws its masks.
    pub training: bool,
    /// Whether `weft doctor` runs it too: it is small, and well conditioned in every precision.
    pub quick: bool,
    pub expects: Expectation,
}

/// Exceptions for a case's results; each case that needs one says why.
#[derive(Debug, Clone, Copy)]
pub struct Expectation {
    /// How much larger than usual the errors of f32 sums may be ([`super::tolerance`]), in outputs and in gradients.
    pub output_slack: f64,
    pub gradient_slack: f64,
    /// Factor on the usual number of roundings between layers, for cases where few values are summed and cancel.
    pub roundings: usize,
    /// Why the case runs in f32 only; `weft doctor` runs it in 16 bits where its layers run as one, without rounding in between.
    pub exact: Option<&'static str>,
    /// What is zero everywhere: outputs by layer name, gradients by parameter name or `input`. Elsewhere an all-zero reference is
    /// an error, because nothing would have been compared.
    pub zero: &'static [&'static str],
}

impl Expectation {
    pub const USUAL: Self = Self { output_slack: 1.0, gradient_slack: 1.0, roundings: 1, exact: None, zero: &[] };
}

pub(super) const fn case(name: &'static str, input: [usize; 4], layers: &'static str) -> Case {
    Case { name, input, layers, middle: 0.0, scale: 1.0, training: false, quick: false, expects: Expectation::USUAL }
}

impl Case {
    pub(super) const fn around(self, middle: f32) -> Self {
        Self { middle, ..self }
    }

    pub(super) const fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    pub(super) const fn training(self) -> Self {
        Self { training: true, ..self }
    }

    pub(super) const fn quick(self) -> Self {
        Self { quick: true, ..self }
    }

    pub(super) const fn slack(self, output_slack: f64, gradient_slack: f64) -> Self {
        Self { expects: Expectation { output_slack, gradient_slack, ..self.expects }, ..self }
    }

    pub(super) const fn roundings(self, roundings: usize) -> Self {
        Self { expects: Expectation { roundings, ..self.expects }, ..self }
    }

    pub(super) const fn exact(self, why: &'static str) -> Self {
        Self { expects: Expectation { exact: Some(why), ..self.expects }, ..self }
    }

    pub(super) const fn zero(self, gradients: &'static [&'static str]) -> Self {
        Self { expects: Expectation { zero: gradients, ..self.expects }, ..self }
    }

    /// The case's net as a network file.
    pub fn toml(&self) -> String {
        toml(self.input, self.layers)
    }
}

/// A net in the short form as a network file; the number of samples does not matter.
pub fn toml([_, c, h, w]: [usize; 4], layers: &str) -> String {
    let mut text = format!("name = 'case'\ninput = [{c}, {h}, {w}]\n");
    for line in layers.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (layer, rest) = line.split_once(": ").unwrap_or((line, ""));
        let mut words = rest.split_whitespace();
        let _ = write!(text, "[[layer]]\nname = '{layer}'\ntype = '{}'\n", words.next().unwrap_or(""));
        words.for_each(|word| text += &format!("{word}\n"));
    }
    text
}

/// All cases: those of each operation, then [`NETS`].
pub fn all() -> impl Iterator<Item = &'static Case> {
    OPERATIONS.iter().flat_map(|(_, _, cases)| *cases).chain(NETS)
}

/// Nets of several operations: values read by several layers, branches, whole nets in miniature. Their rounding errors
/// accumulate over many layers, in sums that may cancel.
pub const NETS: &[Case] = &[
    case(
        "fan-out to two",
        [2, 2, 6, 6],
        "
            a: conv filters=3 kernel=3 activation='relu'
            b: conv filters=2 kernel=3
            c: max_pool kernel=3 stride=1 from='a'
            d: concat from=['b','c']",
    )
    .quick(),
    case(
        "fan-out to four, at different depths",
        [2, 2, 5, 5],
        "
            a: conv filters=2 kernel=1
            b: relu
            c: sigmoid from='a'
            d: conv filters=2 kernel=3 pad=1 from='b'
            e: lrn from='a'
            f: concat from=['a','b','c','d','e']",
    ),
    case(
        "fan-out of the input",
        [2, 3, 6, 5],
        "
            a: avg_pool kernel=2
            b: max_pool kernel=2 from='input'
            c: conv filters=2 kernel=2 stride=2 from='input'
            d: concat from=['a','b','c']",
    ),
    case(
        "a chain of branches",
        [2, 2, 5, 5],
        "
            a: conv filters=2 kernel=3 pad=1
            b: concat from=['a','input']
            c: conv filters=2 kernel=3 pad=1
            d: concat from=['c','b']
            e: conv filters=2 kernel=3 pad=1
            f: concat from=['e','d']
            g: linear outputs=3",
    ),
    case(
        "a branch that nobody reads",
        [2, 2, 4, 4],
        "
            a: conv filters=3 kernel=2 activation='relu'
            b: conv filters=2 kernel=1
            c: linear outputs=3 from='a'",
    )
    .zero(&["b.weight", "b.bias"])
    .quick(),
    case(
        "two losses",
        [6, 3, 2, 2],
        "
            a: linear outputs=5 activation='sigmoid'
            b: linear outputs=4
            c: softmax_cross_entropy
            d: similarity from='a' weight=0.1",
    ),
    case(
        "a loss beside an output",
        [3, 2, 3, 3],
        "
            a: conv filters=3 kernel=2
            b: sigmoid_cross_entropy
            c: conv filters=2 kernel=1 from='a'",
    ),
    case(
        "ANet",
        [2, 1, 22, 22],
        "
            c1: conv filters=2 kernel=3 activation='relu'
            p1: max_pool kernel=2
            c3: local_conv filters=2 kernel=2 grid=3 window='halo' activation='relu'
            p3: max_pool kernel=3 stride=3
            c4: local_conv filters=2 kernel=2 grid=2 span=2 window='valid' activation='relu'
            fc: linear outputs=5 activation='relu'
            tags: linear outputs=3
            loss: sigmoid_cross_entropy",
    )
    .slack(10.0, 10.0)
    .roundings(3),
    case(
        "LNet",
        [2, 3, 31, 29],
        "
            c1: conv filters=4 kernel=5 stride=2 activation='relu'
            n1: lrn alpha=0.5
            p1: max_pool kernel=3 stride=2
            c2: conv filters=4 kernel=3 pad=1 groups=2 activation='relu'
            head: conv filters=3 kernel=1
            tags: global_pool mode='lse'
            loss: sigmoid_cross_entropy",
    )
    .slack(10.0, 10.0),
    case(
        "identities",
        [6, 1, 10, 10],
        "
            c1: conv filters=3 kernel=3 activation='relu'
            p1: max_pool kernel=2
            drop: dropout rate=0.3
            fc: linear outputs=6 activation='relu'
            ids: linear outputs=4
            loss: softmax_cross_entropy
            near: similarity from='fc' weight=0.05",
    )
    .training()
    .slack(10.0, 10.0),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_operation_has_cases_of_its_own() {
        for (name, _, cases) in OPERATIONS {
            let layer = format!(": {name}");
            assert!(!cases.is_empty() && cases.iter().all(|case| case.layers.contains(&layer)), "{name}");
            assert!(cases.iter().any(|case| case.quick), "weft doctor has no case of {name}");
        }
    }

    #[test]
    fn every_case_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = all().map(|case| case.name).collect();
        assert_eq!(names.len(), all().count());
    }
}

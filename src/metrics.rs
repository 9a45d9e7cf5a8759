//! Accuracy of predictions: per attribute and on average.

use serde::{Deserialize, Serialize};

/// Results for one attribute over a set of images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accuracy {
    #[serde(skip)]
    pub name: String,
    /// Share of correct predictions, in 0..=1.
    pub accuracy: f64,
    /// Mean of the true-positive and true-negative rates (the paper's measure on LFW); `None` if all images have the attribute,
    /// or none.
    pub balanced_accuracy: Option<f64>,
    /// Accuracy of always predicting the more frequent value in this set.
    pub majority: f64,
    /// Number of images that have the attribute.
    pub positives: usize,
    /// Area under the ROC curve: the probability that an image with the attribute has a higher score than one without; `None` if
    /// all images have it, or none.
    pub auc: Option<f64>,
}

/// Means over attributes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Means {
    pub accuracy: f64,
    /// Mean over the attributes that have one.
    pub balanced_accuracy: f64,
    pub majority: f64,
}

/// Compares scores [images, attributes] (present above 0) with the ground truth, of the same shape; one entry per name. A score
/// that is NaN predicts that the attribute is absent.
///
/// # Panics
/// If the lengths do not match, or there are no images.
pub fn accuracies(names: &[String], scores: &[f32], truth: &[bool]) -> Vec<Accuracy> {
    assert!(scores.len() == truth.len() && !scores.is_empty() && scores.len().is_multiple_of(names.len()));
    let images = scores.len() / names.len();
    let attribute = |(a, name): (usize, &String)| {
        // For images without and with the attribute: their number, and the number of correct predictions.
        let (mut count, mut right) = ([0usize; 2], [0usize; 2]);
        for image in 0..images {
            let (score, truth) = (scores[image * names.len() + a], truth[image * names.len() + a]);
            count[usize::from(truth)] += 1;
            right[usize::from(truth)] += usize::from((score > 0.0) == truth);
        }
        let rate = |kind: usize| right[kind] as f64 / count[kind] as f64;
        Accuracy {
            name: name.clone(),
            accuracy: (right[0] + right[1]) as f64 / images as f64,
            balanced_accuracy: (count[0] > 0 && count[1] > 0).then(|| (rate(0) + rate(1)) / 2.0),
            majority: count[0].max(count[1]) as f64 / images as f64,
            positives: count[1],
            auc: auc(scores.iter().copied().zip(truth.iter().copied()).skip(a).step_by(names.len()).collect()),
        }
    };
    names.iter().enumerate().map(attribute).collect()
}

/// The area under the ROC curve of (score, truth): the Mann-Whitney statistic, where ties count as one half.
fn auc(mut answers: Vec<(f32, bool)>) -> Option<f64> {
    for (score, _) in &mut answers {
        if score.is_nan() {
            *score = f32::NEG_INFINITY;
        }
    }
    answers.sort_by(|a, b| a.0.total_cmp(&b.0));
    // Pairs of a negative and a positive in the correct order; negatives below the current score.
    let (mut ordered, mut below, mut positives) = (0.0, 0.0, 0.0);
    for same in answers.chunk_by(|a, b| a.0 == b.0) {
        let present = same.iter().filter(|(_, truth)| *truth).count() as f64;
        let absent = same.len() as f64 - present;
        ordered += present * (below + absent / 2.0);
        below += absent;
        positives += present;
    }
    (positives > 0.0 && below > 0.0).then(|| ordered / (positives * below))
}

/// Means over the attributes.
pub fn means<'a>(attributes: impl IntoIterator<Item = &'a Accuracy>) -> Means {
    let attributes: Vec<&Accuracy> = attributes.into_iter().collect();
    let mean = |pick: fn(&Accuracy) -> Option<f64>| {
        let (sum, n) = attributes.iter().filter_map(|a| pick(a)).fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
        if n == 0 { 0.0 } else { sum / n as f64 }
    };
    Means {
        accuracy: mean(|a| Some(a.accuracy)),
        balanced_accuracy: mean(|a| a.balanced_accuracy),
        majority: mean(|a| Some(a.majority)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn rates_are_counted_per_attribute() {
        let names = ["a".to_string(), "b".to_string()];
        // Attribute a: truth 1 0 0 0, predictions 1 1 0 0. Attribute b: never present, predicted once.
        let truth = [true, false, false, false, false, false, false, false];
        let scores = [1.0, -1.0, 2.0, 0.5, -3.0, -1.0, -0.1, f32::NAN];
        let found = accuracies(&names, &scores, &truth);
        assert_eq!((found[0].accuracy, found[0].majority, found[0].positives), (0.75, 0.75, 1));
        assert_eq!((found[0].auc, found[1].auc), (Some(2.0 / 3.0), None));
        assert_eq!(found[0].balanced_accuracy, Some((1.0 + 2.0 / 3.0) / 2.0));
        assert_eq!((found[1].accuracy, found[1].balanced_accuracy), (0.75, None));
        assert_eq!(means(&found).accuracy, 0.75);
        assert_eq!(means(&found).balanced_accuracy, found[0].balanced_accuracy.unwrap());
    }

    #[test]
    fn the_area_under_the_curve_is_that_of_the_pairs() {
        assert_eq!(auc(vec![(1.0, true), (0.0, false)]), Some(1.0));
        assert_eq!(auc(vec![(1.0, false), (0.0, true)]), Some(0.0));
        assert_eq!(auc(vec![(1.0, true), (1.0, false), (0.0, false), (2.0, true)]), Some(0.875));
        assert_eq!(auc(vec![(f32::NAN, true), (f32::NEG_INFINITY, false)]), Some(0.5));
        assert_eq!(auc(vec![(1.0, true)]), None);
        assert_eq!(auc(vec![]), None);
    }

    proptest! {
        #[test]
        fn the_area_is_the_share_of_ordered_pairs(answers in prop::collection::vec(((-3..3_i8).prop_map(f32::from), any::<bool>()), 0..20)) {
            let (mut ordered, mut pairs) = (0.0, 0.0);
            for (a, _) in answers.iter().filter(|a| a.1) {
                for (b, _) in answers.iter().filter(|b| !b.1) {
                    ordered += if a > b { 1.0 } else if a == b { 0.5 } else { 0.0 };
                    pairs += 1.0;
                }
            }
            match auc(answers) {
                None => prop_assert_eq!(pairs, 0.0),
                Some(area) => prop_assert!((area - ordered / pairs).abs() < 1e-12),
            }
        }
    }
}

//! How right answers are: per attribute and on average.

use serde::{Deserialize, Serialize};

/// One attribute over a set of images.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Accuracy {
    #[serde(skip)]
    pub name: String,
    /// Share of right answers, in 0..=1.
    pub accuracy: f64,
    /// Mean of the true positive and the true negative rate (the paper's measure on LFW); `None` if all images have the
    /// attribute, or none.
    pub balanced_accuracy: Option<f64>,
    /// What answering the more frequent value for every one of these images reaches.
    pub majority: f64,
    /// Images that have the attribute.
    pub positives: usize,
}

/// Means over attributes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Means {
    pub accuracy: f64,
    /// Over the attributes that have one.
    pub balanced_accuracy: f64,
    pub majority: f64,
}

/// Compares scores [images, attributes] (present above 0) with the truth, of the same shape; one entry per name.
///
/// # Panics
/// If the lengths do not fit, or there is no image.
pub fn accuracies(names: &[String], scores: &[f32], truth: &[bool]) -> Vec<Accuracy> {
    assert!(scores.len() == truth.len() && !scores.is_empty() && scores.len().is_multiple_of(names.len()));
    let images = scores.len() / names.len();
    let attribute = |(a, name): (usize, &String)| {
        // Of the images without and with the attribute: how many there are, how many were answered rightly.
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
        }
    };
    names.iter().enumerate().map(attribute).collect()
}

/// Means over the attributes.
pub fn means(attributes: &[Accuracy]) -> Means {
    let mean = |values: &mut dyn Iterator<Item = f64>| {
        let (sum, n) = values.fold((0.0, 0usize), |(sum, n), v| (sum + v, n + 1));
        if n == 0 { 0.0 } else { sum / n as f64 }
    };
    Means {
        accuracy: mean(&mut attributes.iter().map(|a| a.accuracy)),
        balanced_accuracy: mean(&mut attributes.iter().filter_map(|a| a.balanced_accuracy)),
        majority: mean(&mut attributes.iter().map(|a| a.majority)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_counted_per_attribute() {
        let names = ["a".to_string(), "b".to_string()];
        // Attribute a: truth 1 0 0 0, answers 1 1 0 0. Attribute b: never there, once answered.
        let truth = [true, false, false, false, false, false, false, false];
        let scores = [1.0, -1.0, 2.0, 0.5, -3.0, -1.0, -0.1, f32::NAN];
        let found = accuracies(&names, &scores, &truth);
        assert_eq!((found[0].accuracy, found[0].majority, found[0].positives), (0.75, 0.75, 1));
        assert_eq!(found[0].balanced_accuracy, Some((1.0 + 2.0 / 3.0) / 2.0));
        assert_eq!((found[1].accuracy, found[1].balanced_accuracy), (0.75, None));
        assert_eq!(means(&found).accuracy, 0.75);
        assert_eq!(means(&found).balanced_accuracy, found[0].balanced_accuracy.unwrap());
    }
}

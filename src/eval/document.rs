//! An evaluation as machine-readable JSON: `weft eval --json` and the `results.json` of a report.

use super::Evaluation;
use super::histogram::Histogram;
use super::localisation::{Localisation, Point};
use super::paper;
use crate::metrics::{Accuracy, means};
use serde_json::{Map, Value, json};

/// The whole evaluation. Measures that are not available are omitted.
pub fn document(found: &Evaluation) -> Value {
    let mut document = Map::new();
    document.insert("weft".into(), env!("CARGO_PKG_VERSION").into());
    document.insert("model".into(), found.model.clone().into());
    document.insert("images".into(), found.images.into());
    document.insert("without_face".into(), found.without_face.into());
    if found.backgrounds > 0 {
        document.insert("backgrounds".into(), found.backgrounds.into());
        document.insert("backgrounds_with_face".into(), found.backgrounds_with_face.into());
    }
    if !found.attributes.is_empty()
        && let Value::Object(attributes) = accuracies(&found.attributes)
    {
        document.extend(attributes);
    }
    if let [own, others @ ..] = found.localisation.as_slice() {
        document.insert("localisation".into(), localisation(own));
        if !others.is_empty() {
            document.insert("other_detectors".into(), others.iter().map(localisation).collect());
        }
    }
    if let Some(histogram) = &found.histogram {
        document.insert("scores".into(), scores(histogram));
    }
    document.into()
}

/// Means, and every attribute next to the paper's figures.
pub fn accuracies(attributes: &[Accuracy]) -> Value {
    let mean = means(attributes);
    let (systems, paper) = (paper::systems(), paper::accuracies());
    let attribute = |a: &Accuracy| {
        let mut value = serde_json::to_value(a).unwrap_or(Value::Null);
        if let Some(figures) = paper.get(a.name.as_str()) {
            value["paper"] = systems.iter().copied().zip(figures.iter().map(|figure| json!(figure))).collect();
        }
        (a.name.clone(), value)
    };
    json!({
        "accuracy": mean.accuracy,
        "balanced_accuracy": mean.balanced_accuracy,
        "majority": mean.majority,
        "per_attribute": attributes.iter().map(attribute).collect::<Map<_, _>>(),
    })
}

fn localisation(l: &Localisation) -> Value {
    json!({
        "detector": l.detector,
        "images": l.images,
        "boxes": l.boxes,
        "backgrounds": l.backgrounds,
        "recall_iou_0.5": l.recall(),
        "mean_iou": l.mean_iou,
        "center_in_box": l.center_in_box,
        "recall_at_fppi": l.recall_at_fppi.iter().map(|(rate, recall)| (rate.to_string(), json!(recall))).collect::<Map<_, _>>(),
        "threshold": l.threshold,
        "at_threshold": point(&l.at_threshold),
        "recall_by_iou": l.recall_by_iou.iter().map(|(iou, recall)| json!({ "iou": iou, "recall": recall })).collect::<Vec<_>>(),
        "roc": l.roc.iter().map(point).collect::<Vec<_>>(),
    })
}

/// The threshold is null for the point that no window reaches.
fn point(p: &Point) -> Value {
    json!({
        "threshold": p.threshold.is_finite().then_some(p.threshold),
        "false_positives_per_image": p.false_positives_per_image,
        "recall": p.recall,
    })
}

fn scores(h: &Histogram) -> Value {
    json!({
        "low": h.low,
        "width": h.width,
        "faces": h.counts[0],
        "backgrounds": h.counts[1],
        "faces_without_window": h.without[0],
        "backgrounds_without_window": h.without[1],
        "parting": h.parting.map(|p| json!({
            "threshold": p.threshold, "faces_above": p.shares[0], "backgrounds_above": p.shares[1],
        })),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::photo::Rect;
    use crate::eval::localisation::{Scene, Tally};

    #[test]
    fn the_document_has_the_keys_that_scripts_rely_on() {
        let face = Rect::new(1.0, 1.0, 8.0, 8.0);
        let mut tally = Tally::default();
        for windows in [&[(face, 1.5)][..], &[]] {
            tally.add(1, &Scene { size: (10, 10), boxes: &[face], windows }.matched(f32::NEG_INFINITY));
        }
        let names = ["Smiling".to_string()];
        let own = tally.clone().localisation("own", f32::NEG_INFINITY).unwrap();
        let other = tally.localisation("other", 1.0).unwrap();
        let found = Evaluation {
            images: 2,
            attributes: crate::metrics::accuracies(&names, &[1.0, -1.0], &[true, true]),
            localisation: vec![own, other],
            histogram: Histogram::new(&[vec![Some(1.5), None], vec![]]),
            ..Evaluation::default()
        };
        let document = document(&found);
        assert_eq!((&document["images"], &document["accuracy"]), (&json!(2), &json!(0.5)));
        assert_eq!(document["per_attribute"]["Smiling"]["accuracy"], 0.5);
        assert_eq!(document["per_attribute"]["Smiling"]["paper"]["LNets+ANet"], 0.92);
        let l = &document["localisation"];
        assert_eq!(
            (&l["recall_iou_0.5"], &l["mean_iou"], &l["recall_at_fppi"]["0.01"]),
            (&json!(0.5), &json!(0.5), &json!(0.5))
        );
        assert_eq!((&l["threshold"], &l["at_threshold"]["recall"]), (&Value::Null, &json!(0.5)));
        assert_eq!(document["other_detectors"][0]["threshold"], 1.0);
        assert_eq!(document["scores"]["faces_without_window"], 1);
    }

    #[test]
    fn what_was_not_measured_is_left_out() {
        let document = document(&Evaluation { images: 3, ..Evaluation::default() });
        let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["weft", "model", "images", "without_face"]);
    }
}

//! Figures as scripts read them: one JSON document.

use super::Evaluation;
use crate::metrics::{Accuracy, means};
use serde_json::{Map, Value, json};

/// Accuracies of the attributes.
pub fn attributes_document(attributes: &[Accuracy]) -> Value {
    let mean = means(attributes);
    let per_attribute: Map<String, Value> =
        attributes.iter().map(|a| (a.name.clone(), serde_json::to_value(a).unwrap_or(Value::Null))).collect();
    json!({
        "accuracy": mean.accuracy,
        "balanced_accuracy": mean.balanced_accuracy,
        "majority": mean.majority,
        "per_attribute": per_attribute,
    })
}

/// All of an evaluation.
pub fn document(found: &Evaluation) -> Value {
    let mut document = attributes_document(&found.attributes);
    document["images"] = json!(found.images);
    document["without_face"] = json!(found.without_face);
    if let Some(l) = &found.localisation {
        document["localisation"] = json!({ "images": l.images, "recall_iou_0.5": l.recall, "mean_iou": l.mean_iou });
    }
    document
}

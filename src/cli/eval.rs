//! `weft eval`: the whole chain on annotated photos.

use super::progress::Progress;
use super::{print, print_json};
use crate::Result;
use crate::data::celeba::{CelebA, Split};
use crate::eval::{Evaluation, document, evaluate};
use crate::metrics::{Accuracy, means};
use std::path::PathBuf;
use std::process::ExitCode;

/// Measure a model on annotated photos: localisation and attributes.
#[derive(clap::Args)]
pub struct Args {
    /// Folder in CelebA's layout
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Part of the data
    #[arg(long, value_enum, default_value = "test")]
    split: Split,
    #[command(flatten)]
    model: super::ModelArgs,
    #[command(flatten)]
    device: super::DeviceArgs,
    /// Stop at the first bad line or missing photo
    #[arg(long)]
    strict: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut model = args.model.load(&args.device.open()?)?;
    let celeba = CelebA::open(&args.data, args.strict)?;
    super::report_skipped(&celeba.problems);
    let samples = celeba.split(args.split);
    let progress = Progress::new(samples.len() as u64, "photos");
    let found = evaluate(&mut model, &celeba.attribute_names, &samples, &mut |done| {
        progress.set(done as u64);
        Ok(())
    })?;
    progress.finish();
    super::report_skipped(&found.unreadable);
    if let Some(error) = found.unreadable.first().filter(|_| args.strict) {
        return Err(error.clone());
    }
    if args.json {
        print_json(&document(&found))?
    } else {
        print(text(&found))?
    }
    Ok(ExitCode::SUCCESS)
}

/// Accuracies as people read them.
pub fn table(attributes: &[Accuracy]) -> String {
    let percent = |share: f64| format!("{:5.1}", 100.0 * share);
    let mut lines = vec![format!("{:<22} accuracy  balanced  majority", "attribute (percent)")];
    for a in attributes {
        let balanced = a.balanced_accuracy.map_or("    -".into(), percent);
        lines.push(format!("{:<22}    {}     {balanced}     {}", a.name, percent(a.accuracy), percent(a.majority)));
    }
    let mean = means(attributes);
    let [accuracy, balanced, majority] = [mean.accuracy, mean.balanced_accuracy, mean.majority].map(percent);
    lines.push(format!("{:<22}    {accuracy}     {balanced}     {majority}", "mean"));
    lines.join("\n")
}

fn text(found: &Evaluation) -> String {
    let mut text = table(&found.attributes);
    text += &format!("\n{} photos, {} without a face", found.images, found.without_face);
    if let Some(l) = &found.localisation {
        text += &format!(
            "\nlocalisation: {} of {} boxes found at IoU 0.5 ({:.1} %), mean IoU {:.2}",
            (l.recall * l.images as f64).round(),
            l.images,
            100.0 * l.recall,
            l.mean_iou
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::accuracies;

    #[test]
    fn the_document_has_the_contract_s_keys() {
        let names = ["Smiling".to_string()];
        let found = Evaluation {
            images: 2,
            without_face: 0,
            attributes: accuracies(&names, &[1.0, -1.0], &[true, true]),
            localisation: Some(crate::eval::Localisation { images: 2, recall: 0.5, mean_iou: 0.4 }),
            unreadable: Vec::new(),
        };
        let document = document(&found);
        assert_eq!(document["images"], 2);
        assert_eq!(document["accuracy"], 0.5);
        assert_eq!(document["per_attribute"]["Smiling"]["accuracy"], 0.5);
        assert_eq!(document["localisation"]["recall_iou_0.5"], 0.5);
        assert!(text(&found).contains("1 of 2 boxes"));
    }
}

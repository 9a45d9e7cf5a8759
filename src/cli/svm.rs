//! `weft svm`: the linear machines of a model bundle.

use super::progress::Progress;
use super::{print, print_json};
use crate::data::celeba::{CelebA, Split};
use crate::data::photo::Photo;
use crate::device::Device;
use crate::svm::{Features, Options, train};
use crate::{Error, Result};
use clap::Subcommand;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;

/// Train the linear SVMs that turn features into attributes.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Train(Train),
}

/// One linear SVM per attribute over the features of the faces that the model finds; C is chosen on held-out people.
#[derive(clap::Args)]
struct Train {
    /// Folder in CelebA's layout, with identities
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// Part of the data; should be people that no network was trained on
    #[arg(long, value_enum, default_value = "val")]
    split: Split,
    #[command(flatten)]
    model: super::ModelArgs,
    #[arg(long, default_value = "auto")]
    device: String,
    /// Gets the SVMs; by default the bundle's own file
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Stop at the first bad line or missing photo
    #[arg(long)]
    strict: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let What::Train(args) = &args.what;
    let Device::Cpu = args.device.parse()?;
    let mut model = args.model.load()?;
    let celeba = CelebA::open(&args.data, args.strict)?;
    super::report_skipped(&celeba.problems);
    let samples = celeba.split(args.split);
    let progress = Progress::new(samples.len() as u64, "photos");
    let (mut features, mut labels, mut identities, mut without_face) = (Vec::new(), Vec::new(), Vec::new(), 0);
    for (done, sample) in samples.iter().enumerate() {
        let identity = sample.identity.ok_or_else(|| {
            Error::file(&sample.path, "has no identity")
                .advise("SVMs are chosen on held-out people: add identity_CelebA.txt")
        })?;
        let photo = Photo::open(&sample.path)?;
        match model.locate(&photo)? {
            None => without_face += 1,
            Some(face) => {
                let rows = model.features(&photo, face.rect)?;
                for row in rows.chunks_exact(model.dims()) {
                    features.extend_from_slice(row);
                    labels.extend_from_slice(&sample.attributes);
                    identities.push(identity);
                }
            }
        }
        progress.set(done as u64 + 1);
    }
    progress.finish();
    let rows = Features { rows: identities.len(), dims: model.dims(), data: &features };
    eprintln!("{} rows of {} features; {} attributes to train", rows.rows, rows.dims, celeba.attribute_names.len());
    let options = Options { seed: args.seed, ..Options::default() };
    let (svm, report) = train(rows, &labels, &celeba.attribute_names, &identities, &options)?;
    let output = args.output.clone().unwrap_or_else(|| model.svm_path().to_path_buf());
    svm.save(&output)?;
    if args.json {
        let attributes: Vec<_> = report
            .attributes
            .iter()
            .map(|a| json!({ "name": a.name, "c": a.c, "positives": a.positives, "held_out_accuracy": a.held_out_accuracy, "majority": a.majority, "note": a.note }))
            .collect();
        print_json(&json!({
            "rows": report.rows, "identities": report.identities, "folds": report.folds, "photos_without_face": without_face,
            "held_out_accuracy": report.mean_accuracy(), "attributes": attributes, "output": output,
        }))?;
    } else {
        print(&report)?;
        print(format!("{without_face} photos without a face left out; SVMs in {}", output.display()))?;
    }
    Ok(ExitCode::SUCCESS)
}

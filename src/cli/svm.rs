//! `weft svm`: the linear SVMs of a model bundle.

use super::progress::Progress;
use super::{print, print_json};
use crate::data::celeba::{CelebA, Split};
use crate::eval;
use crate::face::{self, Model};
use crate::metrics::accuracies;
use crate::weights::{keep_inputs, resolved};
use crate::{Error, Result};
use clap::Subcommand;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Train and evaluate the linear SVMs that map features to attributes.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Train(Train),
    Eval(Eval),
}

/// The data and the model that computes its features.
#[derive(clap::Args)]
struct FaceArgs {
    /// Folder in CelebA's layout
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The photos are aligned faces: the whole photo is ANet's frame, and localisation is skipped
    #[arg(long)]
    aligned: bool,
    #[command(flatten)]
    model: super::ModelArgs,
    #[command(flatten)]
    device: super::DeviceArgs,
    /// Stop at the first malformed line or missing photo
    #[arg(long)]
    strict: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// Train one linear SVM per attribute on the features of the faces that the model finds; C is chosen on held-out identities.
#[derive(clap::Args)]
struct Train {
    #[command(flatten)]
    faces: FaceArgs,
    /// Split of the data; it should contain people that no network was trained on. Requires identities
    #[arg(long, value_enum, default_value = "val")]
    split: Split,
    /// Receives the SVMs; by default the file that the bundle given by --model refers to
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Evaluate attributes only: accuracy over the photos in which a face was found.
#[derive(clap::Args)]
struct Eval {
    #[command(flatten)]
    faces: FaceArgs,
    /// Split of the data
    #[arg(long, value_enum, default_value = "test")]
    split: Split,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Train(args) => train_machines(args),
        What::Eval(args) => measure(args),
    }?;
    Ok(ExitCode::SUCCESS)
}

fn train_machines(args: &Train) -> Result<()> {
    let refused = || {
        Error::new("weft svm train", "would replace the SVMs of the model that ships")
            .advise("give --output, or --model with a bundle of your own")
    };
    if args.output.is_none() && args.faces.model.model.is_none() {
        return Err(refused());
    }
    let mut model = args.faces.model.load(&args.faces.device.open()?)?;
    let own = model.svm_path().map(Path::to_path_buf);
    // The SVMs of the bundle are replaced by this command.
    let bundle =
        args.faces.model.reads().into_iter().filter(|path| Some(resolved(path)) != own.as_deref().map(resolved));
    let output = args.output.clone().or_else(|| own.clone()).ok_or_else(refused)?;
    keep_inputs("--output", &output, bundle)?;
    let (celeba, faces) = args.faces.look(&mut model, args.split, true)?;
    keep_inputs("--output", &output, celeba.samples.iter().map(|sample| &sample.path))?;
    let (names, without) = (&celeba.attribute_names, faces.without);
    let progress = Progress::new(names.len() as u64, "attributes");
    let (svm, report) = faces
        .train(model.dims(), names, args.seed, &|done| progress.set(done as u64))
        .map_err(|e| e.within(args.faces.data.display()))?;
    progress.finish();
    svm.save(&output)?;
    if args.faces.json {
        print_json(&json!({
            "rows": report.rows, "identities": report.identities, "folds": report.folds,
            "photos_without_face": without, "held_out_accuracy": report.mean_accuracy(),
            "attributes": report.attributes, "output": output,
        }))
    } else {
        print(&report)?;
        print(format!("{without} photos without a face left out; SVMs in {}", output.display()))
    }
}

fn measure(args: &Eval) -> Result<()> {
    let mut model = args.faces.model.load(&args.faces.device.open()?)?;
    let names = model.attributes()?.to_vec();
    let (celeba, faces) = args.faces.look(&mut model, args.split, false)?;
    let places = eval::places(&names, &celeba.attribute_names)?;
    let (mut scores, mut truth) = (Vec::new(), Vec::new());
    for face in &faces.seen {
        scores.extend(model.scores_of(&face.features)?);
        truth.extend(places.iter().map(|&place| face.attributes[place]));
    }
    if scores.is_empty() {
        return Err(Error::file(&args.faces.data, "has no photo with a face").advise("check --data and --split"));
    }
    let found = accuracies(&names, &scores, &truth);
    if args.faces.json {
        let mut document = eval::document::accuracies(&found);
        document["images"] = json!(faces.seen.len());
        document["without_face"] = json!(faces.without);
        print_json(&document)
    } else {
        print(super::eval::table(&found))?;
        print(format!("{} faces; {} photos without a face left out", faces.seen.len(), faces.without))
    }
}

impl FaceArgs {
    /// The features of every face in a split of the data; identities are required if `to_train`. Unreadable photos are reported
    /// and skipped.
    fn look(&self, model: &mut Model, split: Split, to_train: bool) -> Result<(CelebA, face::FaceSamples)> {
        let celeba = CelebA::open(&self.data, self.strict)?;
        let samples = celeba.split(split)?;
        if to_train {
            celeba.require_identities(&samples, "choosing C on held-out people")?;
        }
        super::report_skipped(&celeba.problems);
        let progress = Progress::new(samples.len() as u64, "photos");
        let faces = face::FaceSamples::look(model, &samples, self.aligned, self.strict, &mut |done| {
            progress.set(done as u64);
            Ok(())
        })?;
        progress.finish();
        super::report_skipped(&faces.unreadable);
        Ok((celeba, faces))
    }
}

//! `weft svm`: the linear machines of a model bundle.

use super::progress::Progress;
use super::{print, print_json};
use crate::data::celeba::{CelebA, Split};
use crate::data::photo::Photo;
use crate::face::Model;
use crate::metrics::accuracies;
use crate::svm::{Features, Options, train};
use crate::{Error, Result};
use clap::Subcommand;
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Train the linear SVMs that turn features into attributes, and measure them.
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

/// Whose features: annotated photos, and the model that looks at them.
#[derive(clap::Args)]
struct Faces {
    /// Folder in CelebA's layout
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
    /// The photos are aligned faces: all of a photo is ANet's frame, nothing is located
    #[arg(long)]
    aligned: bool,
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

/// One linear SVM per attribute over the features of the faces that the model finds; C is chosen on held-out people.
#[derive(clap::Args)]
struct Train {
    #[command(flatten)]
    faces: Faces,
    /// Part of the data; should be people that no network was trained on. It needs identities
    #[arg(long, value_enum, default_value = "val")]
    split: Split,
    /// Gets the SVMs; by default the file that the bundle of --model names
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Attributes alone: right answers over the photos in which a face was found.
#[derive(clap::Args)]
struct Eval {
    #[command(flatten)]
    faces: Faces,
    /// Part of the data
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
    if args.output.is_none() && args.faces.model.model.is_none() {
        return Err(Error::new("weft svm train", "would replace the SVMs of the model that ships")
            .advise("give --output, or --model with a bundle of your own"));
    }
    let mut model = args.faces.model.load(&args.faces.device.open()?)?;
    let (celeba, faces) = args.faces.look(&mut model, args.split)?;
    let repeat = |face: &Seen| vec![face.identity; face.patches(&model)];
    let identities: Option<Vec<u32>> = faces.seen.iter().flat_map(repeat).collect();
    let identities = identities.ok_or_else(|| {
        Error::file(&args.faces.data, "has photos without an identity")
            .advise("SVMs are chosen on held-out people: add identity_CelebA.txt")
    })?;
    let labels: Vec<bool> = faces.seen.iter().flat_map(|face| face.attributes.repeat(face.patches(&model))).collect();
    let features: Vec<f32> = faces.seen.into_iter().flat_map(|face| face.features).collect();
    let rows = Features { rows: identities.len(), dims: model.dims(), data: &features };
    let options = Options { seed: args.seed, ..Options::default() };
    let names = &celeba.attribute_names;
    let progress = Progress::new(names.len() as u64, "attributes");
    let (svm, report) = train(rows, &labels, names, &identities, &options, &|done| progress.set(done as u64))?;
    progress.finish();
    let output = args.output.clone().unwrap_or_else(|| model.svm_path().to_path_buf());
    svm.save(&output)?;
    if args.faces.json {
        print_json(&json!({
            "rows": report.rows, "identities": report.identities, "folds": report.folds,
            "photos_without_face": faces.without, "held_out_accuracy": report.mean_accuracy(),
            "attributes": report.attributes, "output": output,
        }))
    } else {
        print(&report)?;
        print(format!("{} photos without a face left out; SVMs in {}", faces.without, output.display()))
    }
}

fn measure(args: &Eval) -> Result<()> {
    let mut model = args.faces.model.load(&args.faces.device.open()?)?;
    let names = model.attributes()?.to_vec();
    let (celeba, faces) = args.faces.look(&mut model, args.split)?;
    let places = crate::eval::places(&names, &celeba.attribute_names)?;
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
        let mut document = crate::eval::document::accuracies(&found);
        document["images"] = json!(faces.seen.len());
        document["without_face"] = json!(faces.without);
        print_json(&document)
    } else {
        print(super::eval::table(&found))?;
        print(format!("{} faces; {} photos without a face left out", faces.seen.len(), faces.without))
    }
}

/// One face and what is known about it.
struct Seen {
    /// [patches, dims]
    features: Vec<f32>,
    attributes: Vec<bool>,
    identity: Option<u32>,
}

impl Seen {
    fn patches(&self, model: &Model) -> usize {
        self.features.len() / model.dims()
    }
}

#[derive(Default)]
struct Found {
    seen: Vec<Seen>,
    /// Photos in which nothing responded.
    without: usize,
}

impl Faces {
    /// The features of every face in a part of the data. Photos that cannot be read are named and left out.
    fn look(&self, model: &mut Model, split: Split) -> Result<(CelebA, Found)> {
        let celeba = CelebA::open(&self.data, self.strict)?;
        super::report_skipped(&celeba.problems);
        let samples = celeba.split(split);
        let progress = Progress::new(samples.len() as u64, "photos");
        let (mut found, mut unreadable) = (Found::default(), Vec::new());
        for (done, sample) in samples.iter().enumerate() {
            match self.features(model, &sample.path) {
                Ok(None) => found.without += 1,
                Ok(Some(features)) => {
                    let (attributes, identity) = (sample.attributes.clone(), sample.identity);
                    found.seen.push(Seen { features, attributes, identity });
                }
                Err(error) if self.strict => return Err(error),
                Err(error) => unreadable.push(error),
            }
            progress.set(done as u64 + 1);
        }
        progress.finish();
        super::report_skipped(&unreadable);
        Ok((celeba, found))
    }

    fn features(&self, model: &mut Model, path: &Path) -> Result<Option<Vec<f32>>> {
        let photo = Photo::open(path)?;
        if self.aligned {
            return model.features_in(&photo, photo.bounds()).map(Some);
        }
        let Some(face) = model.locate(&photo)? else { return Ok(None) };
        model.features(&photo, &face).map(Some)
    }
}

//! `weft eval`: evaluates the whole pipeline on annotated photos.

use super::progress::Progress;
use super::{print, print_json};
use crate::data::Problems;
use crate::data::celeba::Split;
use crate::eval::document::document;
use crate::eval::histogram::Parting;
use crate::eval::localisation::Localisation;
use crate::eval::photos::Detections;
use crate::eval::report::{self, About};
use crate::eval::{Evaluation, Options, evaluate, paper, photos};
use crate::face::FaceWindow;
use crate::lock::Lock;
use crate::metrics::{Accuracy, means};
use crate::text_table::{TextTable, number, text as text_column};
use crate::weights::keep_inputs;
use crate::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Evaluate a model on annotated photos: localisation and attributes.
#[derive(clap::Args)]
pub struct Args {
    /// Folder in CelebA's layout, or a CSV file of boxes: image,x,y,width,height
    #[arg(long, value_name = "DIR|FILE")]
    data: PathBuf,
    /// Split of data in CelebA's layout [default: test]
    #[arg(long, value_enum)]
    split: Option<Split>,
    /// Folder of photos without a face, searched recursively; every window found in them counts as a false positive
    #[arg(long, value_name = "DIR")]
    backgrounds: Option<PathBuf>,
    /// Windows of another detector on the same photos: image,x,y,width,height,score, or the output of weft locate in any format;
    /// may be repeated
    #[arg(long, value_name = "FILE")]
    detections: Vec<PathBuf>,
    /// Name of that detector; one for each --detections, or none, in which case the file names are used
    #[arg(long, value_name = "NAME", requires = "detections")]
    name: Vec<String>,
    /// Which window of a face to compare with the boxes: data sets differ in their definition of a face box
    #[arg(long, value_enum, default_value = "face")]
    window: FaceWindow,
    /// Evaluate at most N photos of the data and N backgrounds, each sampled evenly
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    #[command(flatten)]
    model: super::ModelArgs,
    #[command(flatten)]
    device: super::DeviceArgs,
    /// Stop at the first malformed line, missing or unreadable photo, box outside its photo or unknown attribute
    #[arg(long)]
    strict: bool,
    /// Write a page index.html, with plots and photos, and results.json into this folder
    #[arg(long, value_name = "DIR")]
    report: Option<PathBuf>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let names = args.names()?;
    let mut problems = Problems::new(args.strict);
    let mut photos = photos::open(&args.data, args.split, &mut problems)?;
    if let Some(folder) = &args.backgrounds {
        photos.add_backgrounds(folder, &mut problems)?;
    }
    let others = args.detections.iter().zip(names);
    let others: Vec<Detections> =
        others.map(|(file, name)| Detections::read(file, name, &photos, &mut problems)).collect::<Result<_>>()?;
    for file in args.report.iter().flat_map(|folder| report::files(folder)) {
        let photos = photos.items.iter().map(|photo| &photo.path);
        keep_inputs("--report", file, args.detections.iter().chain([&args.data]).chain(photos))?;
    }
    // Held for the whole evaluation: a concurrent report is refused before the work instead of after it.
    let _lock = args.report.as_ref().map(|folder| Lock::take(folder, "weft eval --report")).transpose()?;
    let mut model = args.model.load(&args.device.open()?)?;
    let options =
        Options { limit: args.limit.unwrap_or(usize::MAX), examples: args.report.is_some(), window: args.window };
    let mut progress = None;
    let found = evaluate(&mut model, &photos, &others, options, &mut problems, &mut |done, total| {
        progress.get_or_insert_with(|| Progress::new(total as u64, "photos")).set(done as u64);
        Ok(())
    });
    if let Some(progress) = progress {
        progress.finish();
    }
    super::report_skipped(&problems.list);
    let found = found?;
    // The figures first, so that a full disk does not lose them.
    if args.json { print_json(&document(&found)) } else { print(text(&found)) }?;
    if let Some(folder) = &args.report {
        let part = photos.split.map_or(String::new(), |split| format!(", {} part", split.name()));
        let about = About { data: format!("{}{part}", args.data.display()), command: command() };
        let page = report::write(folder, &found, &about)?;
        if !args.json {
            print(format!("\nreport in {}", page.display()))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

impl Args {
    /// Names of the other detectors.
    fn names(&self) -> Result<Vec<String>> {
        let stem = |file: &PathBuf| file.file_stem().unwrap_or(file.as_os_str()).to_string_lossy().into_owned();
        match (self.name.len(), self.detections.len()) {
            (0, _) => Ok(self.detections.iter().map(stem).collect()),
            (names, files) if names == files => Ok(self.name.clone()),
            (names, files) => Err(Error::new("--name", format!("{names} names for {files} files of --detections"))
                .advise("give one for each, in the same order, or none")),
        }
    }
}

/// The command line of this run, quoted for a shell.
fn command() -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_./=:,+@%".contains(c);
    let word = |word: String| match !word.is_empty() && word.chars().all(plain) {
        true => word,
        false => format!("'{}'", word.replace('\'', "'\\''")),
    };
    let words = std::env::args_os().skip(1).map(|arg| word(arg.to_string_lossy().into_owned()));
    std::iter::once("weft".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// Accuracies in readable form, next to the paper's where it reports them.
pub fn table(attributes: &[Accuracy]) -> String {
    let percent = |share: f64| format!("{:.1}", 100.0 * share);
    let maybe = |share: Option<f64>| share.map_or("-".to_string(), percent);
    let (systems, paper) = (paper::systems(), paper::accuracies());
    let known = attributes.iter().any(|a| paper.contains_key(a.name.as_str()));
    let systems = if known { systems } else { Vec::new() };
    let columns = ["accuracy", "balanced", "majority", "auc"].iter().chain(&systems).map(|name| number(*name));
    let columns = TextTable::new([text_column("attribute (percent)")].into_iter().chain(columns));
    let row = |name: &str, [accuracy, balanced, majority, auc]: [String; 4], of_paper: Option<&Vec<f64>>| {
        let cell = |s: usize| of_paper.map_or("-".into(), |figures| format!("{:.0}", 100.0 * figures[s]));
        [name.to_string(), accuracy, balanced, majority, auc].into_iter().chain((0..systems.len()).map(cell)).collect()
    };
    let mut rows: Vec<Vec<String>> = Vec::new();
    for a in attributes {
        let figures = [percent(a.accuracy), maybe(a.balanced_accuracy), percent(a.majority), maybe(a.auc)];
        rows.push(row(&a.name, figures, paper.get(a.name.as_str())));
    }
    let mean = means(attributes);
    let figures = [percent(mean.accuracy), percent(mean.balanced_accuracy), percent(mean.majority), String::new()];
    let of_paper = paper::means(attributes.iter().map(|a| a.name.as_str()));
    rows.push(row("mean", figures, of_paper.as_ref()));
    let mut table = columns.print(rows);
    if known {
        table += "\nthe last four: Liu et al., ICCV 2015, Table 1, on CelebA's own test photos";
    }
    table
}

fn text(found: &Evaluation) -> String {
    let mut text = if found.attributes.is_empty() { String::new() } else { table(&found.attributes) + "\n" };
    text += &format!("{} photos, {} without a face", found.images, found.without_face);
    if found.backgrounds > 0 {
        text += &format!("; {} backgrounds, {} with one", found.backgrounds, found.backgrounds_with_face);
    }
    for l in &found.localisation {
        text += &format!("\n{}", localisation(l));
    }
    if let Some(Parting { threshold, shares: [faces, backgrounds] }) = found.histogram.as_ref().and_then(|h| h.parting)
    {
        text += &format!(
            "\nscores of photos with a face and of backgrounds part best at {threshold:.3}: {:.1} % and {:.1} % reach it",
            100.0 * faces,
            100.0 * backgrounds
        );
    }
    text
}

fn localisation(l: &Localisation) -> String {
    let percent = |share: f64| format!("{:.1} %", 100.0 * share);
    let rates: Vec<String> =
        l.recall_at_fppi.iter().map(|(rate, recall)| format!("{} at {rate}", percent(*recall))).collect();
    format!(
        "localisation by {}: {} of {} photos found at IoU 0.5 ({}), mean IoU {:.2}, middle in the box {}\n\
         \x20 {} of {} boxes found at {:.2} false positives per image; {}",
        l.detector,
        (l.recall() * l.images as f64).round(),
        l.images,
        percent(l.recall()),
        l.mean_iou,
        percent(l.center_in_box),
        percent(l.at_threshold.recall),
        l.boxes,
        l.at_threshold.false_positives_per_image,
        rates.join(", "),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::accuracies;

    #[test]
    fn the_paper_stands_beside_its_own_attributes_only() {
        let row = |name: &str| accuracies(&[name.to_string()], &[1.0, -1.0], &[true, true]);
        let table = |name: &str| super::table(&row(name));
        assert!(table("Bald").contains("LNets+ANet") && table("Bald").contains("98"), "{}", table("Bald"));
        assert!(!table("Monocle").contains("LNets+ANet"), "{}", table("Monocle"));
        let rows = table("Bald");
        let ends: Vec<usize> = rows.lines().take(3).map(|line| line.chars().count()).collect();
        assert!(ends.iter().all(|end| *end == ends[0]), "columns do not line up:\n{rows}");
    }

    #[test]
    fn text_says_what_was_measured() {
        let found = Evaluation { images: 2, without_face: 1, ..Evaluation::default() };
        assert_eq!(text(&found), "2 photos, 1 without a face");
    }
}

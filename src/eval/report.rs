//! An evaluation as a web page: one self-contained HTML file that works offline and can be printed.
//!
//! Every figure is in a `<data>` element whose `data-key` is its position in the JSON document (a JSON pointer), so page and
//! document can be compared.

use super::document::document;
use super::examples::{Example, Mistake};
use super::histogram::{Histogram, Parting};
use super::localisation::{Localisation, RATES};
use super::{Evaluation, paper};
use crate::chart::{self, Axis, Dots, Frame, Labels, Line, escape, linear_ticks, log_ticks};
use crate::data::photo::Rect;
use crate::metrics::{Accuracy, means};
use crate::weights::{make_folder, write_atomic};
use crate::{Error, Result};
use std::fmt::Write;
use std::path::{Path, PathBuf};

static STYLE: &str = include_str!("report.css");
const PAGE: &str = "index.html";
const RESULTS: &str = "results.json";

/// Information on a page besides the figures.
pub struct About {
    /// The data that was measured.
    pub data: String,
    /// The command that reproduces the page.
    pub command: String,
}

/// The files of a report in `folder`.
pub fn files(folder: &Path) -> [PathBuf; 2] {
    [folder.join(PAGE), folder.join(RESULTS)]
}

/// Writes `index.html` and `results.json` into `folder`, which is created if missing; each file is replaced atomically. Returns
/// the path of the page.
///
/// # Errors
/// A folder or file that cannot be written.
pub fn write(folder: &Path, found: &Evaluation, about: &About) -> Result<PathBuf> {
    make_folder(folder)?;
    let json = serde_json::to_string_pretty(&document(found)).map_err(|e| Error::new(RESULTS, e))?;
    let today = jiff::Timestamp::now().strftime("%Y-%m-%d").to_string();
    let path = folder.join(PAGE);
    for (path, content) in [(folder.join(RESULTS), json + "\n"), (path.clone(), page(found, about, &today)?)] {
        write_atomic(path, |file| file.write_all(content.as_bytes()))?;
    }
    Ok(path)
}

/// The page.
fn page(found: &Evaluation, about: &About, date: &str) -> Result<String> {
    let sections = [
        ("attributes", "Attributes", attributes(found)?),
        ("localisation", "Localisation", localisation(&found.localisation)?),
        ("scores", "Scores", scores(found)?),
        ("photos", "Photos", photos(found)),
    ];
    let present = || sections.iter().filter(|(_, _, body)| !body.is_empty());
    let links: String = present().map(|(id, title, _)| format!("<a href=\"#{id}\">{title}</a>\n")).collect();
    let bodies: String = present()
        .map(|(id, title, body)| format!("<section id=\"{id}\">\n<h2>{title}</h2>\n{body}</section>\n"))
        .collect();
    Ok(format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{model}: evaluation</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n\
         <header>\n<h1>{model}</h1>\n<p class=\"lead\">Evaluation on {data}, {date}, weft {version}</p>\n\
         <nav>\n{links}<a href=\"#made\">How it was made</a>\n</nav>\n</header>\n<main>\n{tiles}{bodies}</main>\n\
         <footer id=\"made\">\n<p>This page was made by</p>\n<pre><code>{command}</code></pre>\n\
         <p>Its figures are in {RESULTS} beside it, too.</p>\n</footer>\n</body>\n</html>\n",
        model = escape(&found.model),
        data = escape(&about.data),
        version = env!("CARGO_PKG_VERSION"),
        tiles = tiles(found),
        command = escape(&about.command),
    ))
}

/// A figure identified by its position in the document: the exact value for programs, `shown` for readers.
fn figure(key: &str, value: impl std::fmt::Display, shown: &str) -> String {
    format!("<data data-key=\"{}\" value=\"{value}\">{shown}</data>", escape(key))
}

fn percent(key: &str, share: f64) -> String {
    figure(key, share, &format!("{:.1}", 100.0 * share))
}

fn number(key: &str, value: f64) -> String {
    figure(key, value, &format!("{value:.2}"))
}

fn count(key: &str, value: usize) -> String {
    figure(key, value, &value.to_string())
}

/// Escapes a component of a JSON pointer (RFC 6901).
fn pointer(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

/// The headline figures.
fn tiles(found: &Evaluation) -> String {
    let mut tiles = String::new();
    let mut tile = |name: &str, value: String, of: String| {
        let _ = writeln!(tiles, "<div><dt>{name}</dt><dd class=\"value\">{value}</dd><dd class=\"of\">{of}</dd></div>");
    };
    if !found.attributes.is_empty() {
        let (mean, n) = (means(&found.attributes), found.attributes.len());
        let of = format!("mean of {n} attributes");
        tile("Accuracy", percent("/accuracy", mean.accuracy) + " %", of.clone());
        tile("Balanced accuracy", percent("/balanced_accuracy", mean.balanced_accuracy) + " %", of);
        tile("Majority", percent("/majority", mean.majority) + " %", "always the more frequent answer".into());
    }
    if let Some(l) = found.localisation.first() {
        let faces = format!("of {} with a box", counted(l.images, "photo", "photos"));
        tile("Recall at IoU 0.5", percent("/localisation/recall_iou_0.5", l.recall()) + " %", faces);
        let rate = l.at_threshold.false_positives_per_image;
        let of = format!(
            "on {} and {}",
            counted(l.images, "photo", "photos"),
            counted(l.backgrounds, "background", "backgrounds")
        );
        tile("False positives per image", number("/localisation/at_threshold/false_positives_per_image", rate), of);
    }
    let without = format!("{} without a face found", count("/without_face", found.without_face));
    tile("Photos", count("/images", found.images), without);
    if found.backgrounds > 0 {
        let with = format!("{} with a face found", count("/backgrounds_with_face", found.backgrounds_with_face));
        tile("Backgrounds", count("/backgrounds", found.backgrounds), with);
    }
    format!("<dl class=\"tiles\">\n{tiles}</dl>\n")
}

/// Plot and table; empty without attributes.
fn attributes(found: &Evaluation) -> Result<String> {
    if found.attributes.is_empty() {
        return Ok(String::new());
    }
    let paper = paper::accuracies();
    let mut sorted: Vec<&Accuracy> = found.attributes.iter().collect();
    let gain = |a: &Accuracy| a.accuracy - a.majority;
    sorted.sort_by(|a, b| gain(b).total_cmp(&gain(a)).then_with(|| a.name.cmp(&b.name)));
    let of_paper = |a: &Accuracy| paper.get(a.name.as_str()).map(|systems| systems[0]);
    let names: Vec<String> = sorted.iter().map(|a| a.name.replace('_', " ")).collect();
    let rows: Vec<Dots> = sorted
        .iter()
        .zip(&names)
        .map(|(a, name)| Dots { name, from: a.majority, to: a.accuracy, beside: of_paper(a) })
        .collect();
    let plot = chart::dots("Accuracy per attribute", ["majority", "this model", "paper, LNets+ANet"], &rows)?;
    let mut body = format!(
        "<figure class=\"wide\">\n{plot}\n<figcaption>Accuracy per attribute, from always giving the more frequent answer to this \
         model; n = {} photos. Most gained first.</figcaption>\n</figure>\n",
        found.images
    );
    body += &table(&sorted);
    if sorted.iter().any(|a| paper.contains_key(a.name.as_str())) {
        body += "<p class=\"note\">The paper: Liu, Luo, Wang, Tang, <cite>Deep Learning Face Attributes in the Wild</cite>, ICCV 2015, \
                 Table 1. Its systems were trained on CelebA's photos of 8,000 people and tested on CelebA's test photos, of \
                 1,000 others. That is another test set than this one unless this is CelebA's own test part, so its figures show \
                 where the field stood, not which system is better here. [17] is a face detector that takes the place of \
                 LNets.</p>\n";
    }
    Ok(body)
}

fn table(sorted: &[&Accuracy]) -> String {
    let (systems, paper) = (paper::systems(), paper::accuracies());
    let names: String = systems
        .iter()
        .enumerate()
        .map(|(s, name)| format!("<th{}>{}</th>", if s == 0 { " class=\"first\"" } else { "" }, escape(name)))
        .collect();
    let cells = |figures: Option<&Vec<f64>>, key: &str| -> String {
        let cell = |(s, name): (usize, &&str)| {
            let value = figures.map_or("-".into(), |figures| {
                let shown = format!("{:.0}", 100.0 * figures[s]);
                if key.is_empty() { shown } else { figure(&format!("{key}/paper/{name}"), figures[s], &shown) }
            });
            format!("<td{}>{value}</td>", if s == 0 { " class=\"first\"" } else { "" })
        };
        systems.iter().enumerate().map(cell).collect()
    };
    let mut rows = String::new();
    for a in sorted {
        let key = format!("/per_attribute/{}", pointer(&a.name));
        let share = |name: &str, value: Option<f64>| value.map_or("-".into(), |v| percent(&format!("{key}/{name}"), v));
        let figures = paper.get(a.name.as_str());
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td>{}</tr>",
            escape(&a.name),
            count(&format!("{key}/positives"), a.positives),
            share("majority", Some(a.majority)),
            share("accuracy", Some(a.accuracy)),
            bar(a.accuracy, a.majority, figures.map(|f| f[0])),
            share("balanced_accuracy", a.balanced_accuracy),
            share("auc", a.auc),
            cells(figures, &key),
        );
    }
    let mean = means(sorted.iter().copied());
    let of_paper = paper::means(sorted.iter().map(|a| a.name.as_str()));
    let foot = format!(
        "<tr><th scope=\"row\">mean</th><td></td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td></td>{}</tr>",
        percent("/majority", mean.majority),
        percent("/accuracy", mean.accuracy),
        bar(mean.accuracy, mean.majority, of_paper.as_ref().map(|means| means[0])),
        percent("/balanced_accuracy", mean.balanced_accuracy),
        cells(of_paper.as_ref(), ""),
    );
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr><th>percent</th><th>photos<br>with it</th><th>majority</th><th>accuracy</th>\
         <th aria-label=\"accuracy, majority and paper as a bar\"></th><th>balanced<br>accuracy</th><th>area under<br>ROC</th>{names}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n<tfoot>{foot}</tfoot>\n</table></div>\n\
         <p class=\"note\">Bars: this model, from 0 to 100 %; the short line is the majority, the longer one LNets+ANet of the paper.</p>\n"
    )
}

fn bar(ours: f64, majority: f64, paper: Option<f64>) -> String {
    let [ours, majority] = [ours, majority].map(|share| 100.0 * share);
    let paper = paper.map_or(String::new(), |share| format!("<u style=\"left:{:.1}%\"></u>", 100.0 * share));
    format!("<span class=\"bar\"><i style=\"width:{ours:.1}%\"></i><b style=\"left:{majority:.1}%\"></b>{paper}</span>")
}

/// Table and curves; empty without boxes.
fn localisation(detectors: &[Localisation]) -> Result<String> {
    let Some(own) = detectors.first() else { return Ok(String::new()) };
    let rates: String = RATES.iter().map(|rate| format!("<th>at {rate}<br>FPPI, %</th>")).collect();
    let mut rows = String::new();
    for (d, l) in detectors.iter().enumerate() {
        let key = if d == 0 { "/localisation".into() } else { format!("/other_detectors/{}", d - 1) };
        let at = |name: &str| format!("{key}/{name}");
        let recalls: String = l
            .recall_at_fppi
            .iter()
            .map(|(rate, recall)| format!("<td>{}</td>", percent(&at(&format!("recall_at_fppi/{rate}")), *recall)))
            .collect();
        let _ = writeln!(
            rows,
            "<tr><th scope=\"row\">{}</th><td>{}</td><td>{}</td><td>{}</td><td class=\"first\">{}</td><td>{}</td>{recalls}</tr>",
            escape(&l.detector),
            percent(&at("recall_iou_0.5"), l.recall()),
            number(&at("mean_iou"), l.mean_iou),
            percent(&at("center_in_box"), l.center_in_box),
            percent(&at("at_threshold/recall"), l.at_threshold.recall),
            number(&at("at_threshold/false_positives_per_image"), l.at_threshold.false_positives_per_image),
        );
    }
    let set = set(own);
    Ok(format!(
        "<div class=\"scroll\"><table>\n<thead><tr><th></th><th>recall at<br>IoU 0.5, %</th><th>mean<br>IoU</th>\
         <th>middle in<br>the box, %</th><th class=\"first\">recall of<br>all boxes, %</th><th>at<br>FPPI</th>{rates}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n</table></div>\n\
         <p class=\"note\">n = {set}. First, the best window of each photo with a box, if it reaches the detector's own threshold \
         (in a file of detections all do); then all windows that reach it, against all boxes; last, the recall at no more than \
         so many false positives per image (FPPI). A window is right if it overlaps a box by an intersection over union of 0.5, and each \
         box is found once.</p>\n<div class=\"charts\">\n{}{}</div>\n",
        by_iou(detectors)?,
        roc(detectors, &set)?,
    ))
}

/// Describes the data that localisation was measured on.
fn set(l: &Localisation) -> String {
    let (photos, boxes) = (counted(l.images, "photo", "photos"), counted(l.boxes, "box", "boxes"));
    match l.backgrounds {
        0 => format!("{photos} with {boxes}"),
        n => format!("{photos} with {boxes}, {}", counted(n, "background", "backgrounds")),
    }
}

fn counted(n: usize, one: &str, many: &str) -> String {
    format!("{n} {}", if n == 1 { one } else { many })
}

fn captioned(svg: &str, caption: &str) -> String {
    format!("<figure>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>\n")
}

/// The line of one detector in a chart.
fn line(series: usize, l: &Localisation, points: Vec<[f64; 2]>, mark: Option<[f64; 2]>) -> Line<'_> {
    Line { name: Some(l.detector.as_str().into()), points, series, width: 2.4, dots: false, mark }
}

fn by_iou(detectors: &[Localisation]) -> Result<String> {
    let points = |l: &Localisation| l.recall_by_iou.iter().map(|(iou, recall)| [*iou, *recall]).collect();
    let lines: Vec<Line> = detectors.iter().enumerate().map(|(series, l)| line(series, l, points(l), None)).collect();
    let ticks = (3..=9).map(|tenths| f64::from(tenths) / 10.0).collect();
    let x =
        Axis { label: "intersection over union (IoU)", range: [0.3, 0.95], ticks, log: false, labels: Labels::Numbers };
    let title = "Recall against intersection over union";
    let svg = chart::lines(&Frame { title, x, y: share_axis("photos found", 1.0) }, &lines)?;
    let n = detectors.first().map_or(String::new(), |l| counted(l.images, "photo", "photos"));
    Ok(captioned(
        &svg,
        &format!("Share of the photos whose best window overlaps a box by at least so much; n = {n} with a box."),
    ))
}

fn roc(detectors: &[Localisation], set: &str) -> Result<String> {
    let own = &detectors[0];
    let photos = (own.images + own.backgrounds) as f64;
    let rates = detectors.iter().flat_map(|l| l.roc.iter().map(|p| p.false_positives_per_image));
    // Zero is drawn as half a false positive over all photos.
    let (low, high) = ((0.5 / photos).min(0.01), rates.fold(1.0, f64::max));
    let lines: Vec<Line> = detectors
        .iter()
        .enumerate()
        .map(|(series, l)| {
            let at = |p: &super::localisation::Point| [p.false_positives_per_image, p.recall];
            line(series, l, l.roc.iter().map(at).collect(), l.threshold.map(|_| at(&l.at_threshold)))
        })
        .collect();
    let ticks = log_ticks(low, high);
    let x = Axis {
        label: "false positives per image (FPPI)",
        range: [low, high],
        ticks,
        log: true,
        labels: Labels::Numbers,
    };
    let title = "Receiver operating characteristic";
    let svg = chart::lines(&Frame { title, x, y: share_axis("boxes found", 1.0) }, &lines)?;
    let mark = if own.threshold.is_some() { " The ring is the model's own threshold." } else { "" };
    Ok(captioned(
        &svg,
        &format!(
            "True-positive rate against false positives per image, as the threshold falls; n = {set}. None at all lies at the left edge.{mark}"
        ),
    ))
}

fn share_axis(label: &str, high: f64) -> Axis<'_> {
    Axis { label, range: [0.0, high], ticks: linear_ticks(0.0, high), log: false, labels: Labels::Percent }
}

/// The histogram of best scores; empty without scores.
fn scores(found: &Evaluation) -> Result<String> {
    let Some(histogram) = &found.histogram else { return Ok(String::new()) };
    let Histogram { low, width, counts, without, parting } = histogram;
    let totals = [found.images, found.backgrounds];
    let kinds = ["photos with a face", "backgrounds"];
    let bars: Vec<(String, Vec<f64>)> = (0..2)
        .filter(|&kind| totals[kind] > 0)
        .map(|kind| {
            let shares = counts[kind].iter().map(|count| *count as f64 / totals[kind] as f64).collect();
            (format!("{}, n = {}", kinds[kind], totals[kind]), shares)
        })
        .collect();
    let most = bars.iter().flat_map(|(_, shares)| shares).copied().fold(0.01, f64::max);
    let cut = found.localisation.first().and_then(|l| l.threshold).map(f64::from);
    let high = low + width * counts[0].len() as f64;
    let range = [cut.map_or(*low, |cut| cut.min(*low)), cut.map_or(high, |cut| cut.max(high))];
    let ticks = linear_ticks(range[0], range[1]);
    let x = Axis { label: "score of the best window", range, ticks, log: false, labels: Labels::Numbers };
    let y = share_axis("share of the photos", most * 1.05);
    let svg = chart::histograms(&Frame { title: "Scores of the best windows", x, y }, [*low, *width], &bars, cut)?;
    let mut caption = "Score of the best window of each photo (the paper's Fig. 3(b)).".to_string();
    let nothing: usize = without.iter().sum();
    if nothing > 0 {
        caption += &format!(" Without any window: {}.", counted(nothing, "photo", "photos"));
    }
    if let Some(Parting { threshold, shares: [faces, backgrounds] }) = parting {
        caption += &format!(
            " Faces and backgrounds part best at {}: {} % and {} % of the photos reach it.",
            number("/scores/parting/threshold", f64::from(*threshold)),
            percent("/scores/parting/faces_above", *faces),
            percent("/scores/parting/backgrounds_above", *backgrounds)
        );
    }
    Ok(format!("<div class=\"wide\">\n{}</div>\n", captioned(&svg, &caption)))
}

/// The examples; empty without any.
fn photos(found: &Evaluation) -> String {
    let examples = &found.examples;
    let mut body = String::new();
    let mut group = |title: &str, note: String, figures: Vec<String>| {
        if !figures.is_empty() {
            let _ = write!(
                body,
                "<h3>{title}</h3>\n<p class=\"note\">{note}</p>\n<div class=\"photos\">\n{}</div>\n",
                figures.concat()
            );
        }
    };
    if let Some(l) = found.localisation.first() {
        let overlap = |e: &Example| {
            let answer = e.score.map_or("nothing found".into(), |score| format!("IoU {:.2}, score {score:.2}", e.iou));
            picture(e, &answer)
        };
        let of = format!(
            "Of n = {} with a box. Dashed: the true box; solid: the window found.",
            counted(l.images, "photo", "photos")
        );
        group("Best by overlap", of.clone(), examples.best.iter().map(overlap).collect());
        // With few photos, the best ones are all there are.
        let worst = if l.images > examples.best.len() { &examples.worst[..] } else { &[] };
        group(
            "Worst by overlap",
            of + " Of those that miss alike, the most confident.",
            worst.iter().map(overlap).collect(),
        );
        let wrong = |e: &Example| picture(e, &format!("score {:.2}", e.score.unwrap_or(f32::NAN)));
        let threshold = l.threshold.map_or(String::new(), |threshold| format!(" The threshold is {threshold:.3}."));
        let note = format!(
            "The greatest scores of windows that overlap no box by 0.5, one a photo; n = {}.{threshold}",
            set(l)
        );
        group("Most confident false positives", note, examples.false_positives.iter().map(wrong).collect());
    }
    let mistake = |m: &Mistake| {
        let (said, is) = if m.score > 0.0 { ("yes", "no") } else { ("no", "yes") };
        let name = escape(&m.attribute.replace('_', " "));
        picture(&m.example, &format!("<strong>{name}</strong>: said {said} ({:+.2}), tagged {is}", m.score))
    };
    let note = format!(
        "The greatest scores of wrong answers, one per attribute; n = {} photos. Some tags are wrong, too.",
        found.images
    );
    group("Most confident mistakes", note, examples.mistakes.iter().map(mistake).collect());
    body
}

/// A photo with its boxes. `caption` is HTML.
fn picture(e: &Example, caption: &str) -> String {
    let outline = |r: &Rect, class: &str| {
        let at = format!("x=\"{:.1}\" y=\"{:.1}\" width=\"{:.1}\" height=\"{:.1}\"", r.x, r.y, r.width, r.height);
        format!("<rect class=\"under\" {at}/><rect class=\"{class}\" {at}/>")
    };
    let found: String = e.found.iter().map(|r| outline(r, "found")).collect();
    let truth: String = e.truth.iter().map(|r| outline(r, "truth")).collect();
    let (name, width, height) = (escape(&e.name), e.width, e.height);
    format!(
        "<figure><svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{name}\">\
         <image href=\"data:image/jpeg;base64,{}\" width=\"{width}\" height=\"{height}\"/>{found}{truth}</svg>\n\
         <figcaption>{caption}<br><span class=\"name\">{name}</span></figcaption></figure>\n",
        base64(&e.jpeg)
    )
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let word = (0..3).fold(0u32, |word, i| word << 8 | u32::from(three.get(i).copied().unwrap_or(0)));
        for digit in 0..4 {
            let value = (word >> (18 - 6 * digit) & 63) as usize;
            text.push(if digit <= three.len() { char::from(DIGITS[value]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (text, expected) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(text.as_bytes()), expected);
        }
    }

    #[test]
    fn a_page_of_nothing_but_photos_has_no_empty_sections() {
        let about = About { data: "d<\"".into(), command: "weft eval --data 'd<\"'".into() };
        let found = Evaluation { images: 3, model: "m&m".into(), ..Evaluation::default() };
        let page = page(&found, &about, "2026-01-01").unwrap();
        assert!(page.contains("<h1>m&amp;m</h1>") && page.contains("d&lt;&quot;"), "{page}");
        assert!(!page.contains("<section") && !page.contains("<h2"), "{page}");
    }
}

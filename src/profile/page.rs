//! A profile as a web page: one self-contained HTML file with its tables, roofline and timeline, that works offline and can be
//! printed.

use super::Step;
use super::picture::Picture;
use crate::Result;
use crate::chart::escape;
use std::fmt::Write;

static STYLE: &str = concat!(include_str!("../eval/report.css"), include_str!("page.css"));

/// A table: headings, whether their columns hold text, and rows of cells.
#[derive(Debug, Clone, Default)]
pub struct Table {
    pub heads: Vec<(String, bool)>,
    pub rows: Vec<Vec<String>>,
}

impl Table {
    /// The same without columns in which no row has a value: a dash stands for none.
    pub fn trimmed(self) -> Self {
        let has = |column: usize| self.rows.is_empty() || self.rows.iter().any(|row| row[column] != "-");
        let kept: Vec<bool> = (0..self.heads.len()).map(has).collect();
        fn keep<T>(cells: Vec<T>, kept: &[bool]) -> Vec<T> {
            cells.into_iter().zip(kept).filter_map(|(cell, kept)| kept.then_some(cell)).collect()
        }
        let rows = self.rows.into_iter().map(|row| keep(row, &kept)).collect();
        Self { heads: keep(self.heads, &kept), rows }
    }
}

/// What a page shows.
pub struct Page<'a> {
    pub title: String,
    /// What was measured or predicted, and where.
    pub lead: String,
    pub picture: Picture<'a>,
    /// A heading, a note and a table each; those without rows are left out.
    pub sections: Vec<(&'static str, String, Table)>,
    /// The command that makes the page.
    pub command: String,
}

impl Page<'_> {
    /// The page as HTML.
    ///
    /// # Errors
    /// None known: charts are drawn into memory.
    pub fn html(&self) -> Result<String> {
        let mut body = String::new();
        let mut figure = |svg: String, caption: &str| {
            let _ = write!(body, "<figure>\n{svg}\n<figcaption>{caption}</figcaption>\n</figure>\n");
        };
        if let Some(roofline) = self.picture.roofline() {
            let without = self.picture.steps.iter().filter(|step| step.work.flops == 0).count();
            let omitted = match without {
                0 => String::new(),
                n => format!(" Not in it: {n} without arithmetic."),
            };
            let caption = "Arithmetic per second against arithmetic per byte; no disc can lie above the roofs.";
            figure(roofline.embedded()?, &format!("{caption}{omitted}"));
        }
        figure(self.picture.layers().embedded()?, "Sum of the launches of each layer.");
        let mut page = format!(
            "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>{title}</title>\n\
             <style>\n{STYLE}</style>\n</head>\n<body>\n<header>\n<h1>{title}</h1>\n<p class=\"lead\">{lead}</p>\n</header>\n\
             <main>\n<section>\n<div class=\"charts\">\n{body}</div>\n</section>\n<section>\n<h2>Timeline</h2>\n{timeline}</section>\n",
            title = escape(&self.title),
            lead = escape(&self.lead),
            timeline = timeline(&self.picture.steps),
        );
        for (heading, note, table) in self.sections.iter().filter(|(_, _, table)| !table.rows.is_empty()) {
            let _ = write!(
                page,
                "<section>\n<h2>{heading}</h2>\n<p class=\"note\">{}</p>\n{}</section>\n",
                escape(note),
                html(table)
            );
        }
        let command = escape(&self.command);
        let _ = write!(
            page,
            "</main>\n<footer>\n<p>This page was made by weft {} with</p>\n<pre><code>{command}</code></pre>\n</footer>\n</body>\n\
             </html>\n",
            env!("CARGO_PKG_VERSION")
        );
        Ok(page)
    }
}

/// Two tracks, layers and launches, each part as wide as its share of the time. Names that do not fit are cut off and appear under the
/// pointer.
fn timeline(steps: &[Step<'_>]) -> String {
    let whole = steps.iter().map(|step| step.seconds).sum::<f64>().max(f64::MIN_POSITIVE);
    let part = |name: &str, is_backward: bool, seconds: f64| {
        let name = escape(name);
        let class = if is_backward { " class=\"back\"" } else { "" };
        let share = 100.0 * seconds / whole;
        let shown = if share >= 2.0 { name.as_str() } else { "" };
        format!(
            "<i{class} style=\"width:{share:.3}%\" title=\"{name}: {:.1} us, {share:.1} %\">{shown}</i>",
            1e6 * seconds
        )
    };
    let layers = steps.chunk_by(|a, b| (a.layer, a.is_backward) == (b.layer, b.is_backward));
    let layers: String =
        layers.map(|run| part(run[0].layer, run[0].is_backward, run.iter().map(|step| step.seconds).sum())).collect();
    let launches: String = steps.iter().map(|step| part(step.kernel, step.is_backward, step.seconds)).collect();
    format!(
        "<div class=\"track\" aria-label=\"layers\">{layers}</div>\n<div class=\"track\" aria-label=\"launches\">{launches}</div>\n\
         <p class=\"note\">Above the layers, below their launches, in order; {:.1} us from left to right.</p>\n",
        1e6 * whole
    )
}

fn html(table: &Table) -> String {
    let class = |is_text: bool| if is_text { " class=\"text\"" } else { "" };
    let heads: String =
        table.heads.iter().map(|(head, is_text)| format!("<th{}>{}</th>", class(*is_text), escape(head))).collect();
    let row = |cells: &Vec<String>| {
        let cell =
            |(cell, (_, is_text)): (&String, &(String, bool))| format!("<td{}>{}</td>", class(*is_text), escape(cell));
        format!("<tr>{}</tr>\n", cells.iter().zip(&table.heads).map(cell).collect::<String>())
    };
    let rows: String = table.rows.iter().map(row).collect();
    format!("<div class=\"scroll\"><table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table></div>\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Peaks, Work};
    use crate::profile::picture::Roofs;

    #[test]
    fn a_page_has_every_part_and_escapes_names() {
        let work = Work { flops: 1_000_000, bytes: 10_000 };
        let step = |kernel, layer, is_backward| Step { kernel, layer, is_backward, seconds: 1e-5, work };
        let copy = Step { work: Work { flops: 0, bytes: 10 }, ..step("copy", "input", false) };
        let steps = vec![copy, step("conv_forward_bf16", "<c1>", false), step("gemm_nt_f32", "<c1>", true)];
        let peaks = Peaks { f32: 60e12, tf32: 300e12, half: 600e12, memory: 3e12 };
        let picture = Picture { steps, roofs: Some(Roofs::of_gpu("NVIDIA H100", peaks)), is_predicted: true };
        let table =
            Table { heads: vec![("a".into(), true), ("b".into(), false), ("c".into(), false)], rows: Vec::new() };
        let table = Table { rows: vec![vec!["x & y".into(), "-".into(), "1".into()]], ..table }.trimmed();
        assert_eq!(table.heads.len(), 2);
        let sections = vec![("Launches", "A note.".into(), table), ("Nothing", String::new(), Table::default())];
        let page = Page { title: "net".into(), lead: "H100".into(), picture, sections, command: "weft".into() };
        let html = page.html().unwrap();
        for part in [
            "Roofline (predicted)",
            "L2 cache, 7.00 TB/s",
            "tensor cores, 600.0 TFLOP/s",
            "x &amp; y",
            "&lt;c1&gt; back",
        ] {
            assert!(html.contains(part), "no {part} in {html}");
        }
        assert!(html.contains("Not in it: 1 without") && !html.contains("Nothing") && !html.contains("<c1>"), "{html}");
        assert_eq!(html.matches("<i").count(), 3 + 3 + html.matches("<img").count());
        assert!(page.picture.file("net").unwrap().contains("xmlns"));
    }
}

//! Charts as SVG, to stand inside a page. Colours are the page's (`--c0` and on for series, the text's own for the rest), so
//! a chart follows its light or dark; series differ in their dashes, too, for print without colour.

use std::fmt::Write;

const WIDTH: f64 = 520.0;
const HEIGHT: f64 = 330.0;
/// Room for labels: left, right, below.
const LEFT: f64 = 62.0;
const RIGHT: f64 = 16.0;
const BELOW: f64 = 46.0;
/// Height of a line of the legend, and of a row of a dot plot.
const LEGEND: f64 = 19.0;
const ROW: f64 = 17.0;
/// Room for the names of a dot plot's rows, and for half a label beside its axis.
const NAMES: f64 = 168.0;
const BESIDE: f64 = 24.0;
const DASHES: [&str; 4] = ["none", "7 4", "2 3", "9 3 2 3"];
/// Colours of the page.
pub const COLOURS: usize = 6;

/// One axis of a chart.
pub struct Axis<'a> {
    pub label: &'a str,
    pub range: [f64; 2],
    pub ticks: Vec<f64>,
    /// Logarithmic; what lies below the range, as 0 does, is drawn at its lower end.
    pub log: bool,
    /// Labels are percent.
    pub percent: bool,
}

/// A line of a chart.
pub struct Line<'a> {
    pub name: &'a str,
    pub points: Vec<[f64; 2]>,
    /// A place on it that is marked.
    pub mark: Option<[f64; 2]>,
}

/// A row of a dot plot.
pub struct Dots<'a> {
    pub name: &'a str,
    /// Where the row's line begins (a ring) and ends (a disc), and what it is compared with (a diamond).
    pub from: f64,
    pub to: f64,
    pub beside: Option<f64>,
}

impl Axis<'_> {
    /// Where a value lies in 0..=1.
    fn place(&self, value: f64) -> f64 {
        let on = |v: f64| if self.log { v.max(self.range[0]).log10() } else { v };
        let [low, high] = self.range.map(on);
        ((on(value) - low) / (high - low)).clamp(0.0, 1.0)
    }

    fn tick(&self, value: f64) -> String {
        if self.percent { format!("{:.0} %", 100.0 * value) } else { value.to_string() }
    }
}

/// 1 and, if there is room, 2 and 5 times the powers of ten between two numbers.
pub fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = (high / low).log10();
    let digits: &[i64] = if decades > 2.5 { &[1] } else { &[1, 2, 5] };
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let ticks = powers.flat_map(|power| digits.iter().map(move |&digit| decimal(digit, power)));
    ticks.filter(|t| (low * 0.999..=high * 1.001).contains(t)).collect()
}

/// Round numbers between two, some five of them.
pub fn linear_ticks(low: f64, high: f64) -> Vec<f64> {
    let least = ((high - low) / 5.0).max(1e-9);
    let power = least.log10().floor() as i32;
    let unit = 10f64.powi(power);
    let digit = [1, 2, 5].into_iter().find(|&digit| digit as f64 * unit >= least).unwrap_or(10);
    let step = digit as f64 * unit;
    // Ends that are ticks but for rounding count.
    let (first, last) = ((low / step - 1e-6).ceil() as i64, (high / step + 1e-6).floor() as i64);
    (first..=last).map(|i| decimal(i * digit, power)).collect()
}

/// `digits` times the power of ten; by way of text, so that it is the number nearest to what a label says.
fn decimal(digits: i64, power: i32) -> f64 {
    format!("{digits}e{power}").parse().unwrap_or(f64::NAN)
}

/// A plot area with axes, to be drawn in.
struct Plot<'a> {
    svg: String,
    x: &'a Axis<'a>,
    y: &'a Axis<'a>,
    /// Left, top, width and height of the area.
    area: [f64; 4],
}

impl<'a> Plot<'a> {
    fn new(title: &str, x: &'a Axis, y: &'a Axis, legend: usize) -> Self {
        let top = 10.0 + legend as f64 * LEGEND;
        let area = [LEFT, top, WIDTH - LEFT - RIGHT, HEIGHT - BELOW - 10.0];
        let mut plot = Self { svg: opened(title, top - 10.0 + HEIGHT), x, y, area };
        let [left, top, width, height] = area;
        for &tick in &x.ticks {
            let px = plot.x(tick);
            plot.draw(format_args!("<path class=\"grid\" d=\"M{px:.1} {top:.1}v{height:.1}\"/>"));
            plot.text(px, top + height + 17.0, "middle", &x.tick(tick));
        }
        for &tick in &y.ticks {
            let py = plot.y(tick);
            plot.draw(format_args!("<path class=\"grid\" d=\"M{left:.1} {py:.1}h{width:.1}\"/>"));
            plot.text(left - 7.0, py + 4.0, "end", &y.tick(tick));
        }
        plot.draw(format_args!("<path class=\"axis\" d=\"M{left:.1} {top:.1}v{height:.1}h{width:.1}\"/>"));
        plot.text(left + width / 2.0, top + height + 37.0, "middle", x.label);
        let middle = top + height / 2.0;
        plot.draw(format_args!(
            "<text x=\"13\" y=\"{middle:.1}\" text-anchor=\"middle\" transform=\"rotate(-90 13 {middle:.1})\">{}</text>",
            escape(y.label)
        ));
        plot
    }

    fn x(&self, value: f64) -> f64 {
        self.area[0] + self.x.place(value) * self.area[2]
    }

    fn y(&self, value: f64) -> f64 {
        self.area[1] + (1.0 - self.y.place(value)) * self.area[3]
    }

    fn draw(&mut self, element: std::fmt::Arguments) {
        draw(&mut self.svg, element);
    }

    fn text(&mut self, x: f64, y: f64, anchor: &str, text: &str) {
        label(&mut self.svg, [x, y], anchor, text);
    }

    fn closed(mut self) -> String {
        self.svg += "</svg>";
        self.svg
    }
}

fn opened(title: &str, height: f64) -> String {
    format!("<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\"><title>{}</title>\n", escape(title))
}

/// Writing to a String cannot fail; `let _` drops a Result that is always Ok.
fn draw(svg: &mut String, element: std::fmt::Arguments) {
    let _ = writeln!(svg, "{element}");
}

fn label(svg: &mut String, [x, y]: [f64; 2], anchor: &str, text: &str) {
    draw(svg, format_args!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>", escape(text)));
}

/// Lines over two axes.
pub fn lines(title: &str, x: &Axis, y: &Axis, lines: &[Line]) -> String {
    let mut plot = Plot::new(title, x, y, lines.len());
    for (number, line) in lines.iter().enumerate() {
        let (colour, dashes) = (number % COLOURS, DASHES[number % DASHES.len()]);
        let style = format!("stroke=\"var(--c{colour})\" stroke-dasharray=\"{dashes}\"");
        let points: Vec<String> =
            line.points.iter().map(|p| format!("{:.1},{:.1}", plot.x(p[0]), plot.y(p[1]))).collect();
        plot.draw(format_args!("<polyline class=\"line\" points=\"{}\" {style}/>", points.join(" ")));
        if let Some([mx, my]) = line.mark {
            let (px, py) = (plot.x(mx), plot.y(my));
            plot.draw(format_args!("<circle class=\"mark\" cx=\"{px:.1}\" cy=\"{py:.1}\" r=\"5\" {style}/>"));
        }
        let py = 12.0 + number as f64 * LEGEND;
        plot.draw(format_args!("<path class=\"line\" d=\"M{LEFT} {:.1}h28\" {style}/>", py - 4.0));
        plot.text(LEFT + 36.0, py, "start", line.name);
    }
    plot.closed()
}

/// Histograms of the same bins over each other: names and values, from `low` on, each bin `width` wide. `cut` is marked.
pub fn histograms(
    title: &str,
    x: &Axis,
    y: &Axis,
    [low, width]: [f64; 2],
    bars: &[(String, Vec<f64>)],
    cut: Option<f64>,
) -> String {
    let mut plot = Plot::new(title, x, y, bars.len() + usize::from(cut.is_some()));
    for (number, (name, values)) in bars.iter().enumerate() {
        let mut path = format!("M{:.1} {:.1}", plot.x(low), plot.y(0.0));
        for (bin, value) in values.iter().enumerate() {
            let _ = write!(path, "V{:.1}H{:.1}", plot.y(*value), plot.x(low + (bin + 1) as f64 * width));
        }
        let _ = write!(path, "V{:.1}Z", plot.y(0.0));
        let style = format!(
            "fill=\"var(--c{number})\" stroke=\"var(--c{number})\" stroke-dasharray=\"{}\"",
            DASHES[number % DASHES.len()]
        );
        plot.draw(format_args!("<path class=\"bars\" d=\"{path}\" {style}/>"));
        let py = 12.0 + number as f64 * LEGEND;
        plot.draw(format_args!(
            "<rect class=\"bars\" x=\"{LEFT}\" y=\"{:.1}\" width=\"28\" height=\"10\" {style}/>",
            py - 9.0
        ));
        plot.text(LEFT + 36.0, py, "start", name);
    }
    if let Some(cut) = cut {
        let (px, [_, top, _, height]) = (plot.x(cut), plot.area);
        plot.draw(format_args!("<path class=\"cut\" d=\"M{px:.1} {top:.1}v{height:.1}\"/>"));
        let py = 12.0 + bars.len() as f64 * LEGEND;
        plot.draw(format_args!("<path class=\"cut\" d=\"M{LEFT} {:.1}h28\"/>", py - 4.0));
        plot.text(LEFT + 36.0, py, "start", &format!("threshold {cut:.2}"));
    }
    plot.closed()
}

/// A row per entry on a common percent axis. `legend` names ring, disc and diamond.
pub fn dots(title: &str, legend: [&str; 3], rows: &[Dots]) -> String {
    let beside = rows.iter().any(|row| row.beside.is_some());
    let values = rows.iter().flat_map(|row| [Some(row.from), Some(row.to), row.beside]).flatten();
    let low = (values.fold(1.0, f64::min) * 10.0 - 0.2).floor().clamp(0.0, 9.0) / 10.0;
    let axis = Axis { label: "", range: [low, 1.0], ticks: linear_ticks(low, 1.0), log: false, percent: true };
    let (top, height) = (LEGEND + 22.0, rows.len() as f64 * ROW);
    let mut svg = opened(title, top + height + 26.0);
    let px = |value: f64| NAMES + axis.place(value) * (WIDTH - NAMES - BESIDE);
    for &tick in &axis.ticks {
        draw(&mut svg, format_args!("<path class=\"grid\" d=\"M{:.1} {top}v{height}\"/>", px(tick)));
        for y in [top - 6.0, top + height + 16.0] {
            label(&mut svg, [px(tick), y], "middle", &axis.tick(tick));
        }
    }
    let ring = |x: f64, y: f64| format!("<circle class=\"ring\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3.6\"/>");
    let disc = |x: f64, y: f64| format!("<circle class=\"disc\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"4.4\"/>");
    let diamond =
        |x: f64, y: f64| format!("<path class=\"diamond\" d=\"M{x:.1} {:.1}l4.6 4.6l-4.6 4.6l-4.6 -4.6z\"/>", y - 4.6);
    for (number, row) in rows.iter().enumerate() {
        let y = top + (number as f64 + 0.5) * ROW;
        label(&mut svg, [NAMES - 12.0, y + 4.0], "end", row.name);
        draw(&mut svg, format_args!("<path class=\"stem\" d=\"M{:.1} {y:.1}H{:.1}\"/>", px(row.from), px(row.to)));
        let diamond = row.beside.map_or(String::new(), |value| diamond(px(value), y));
        draw(&mut svg, format_args!("{}{diamond}{}", ring(px(row.from), y), disc(px(row.to), y)));
    }
    let shapes: [&dyn Fn(f64, f64) -> String; 3] = [&ring, &disc, &diamond];
    let shown: Vec<_> = shapes.iter().zip(legend).take(if beside { 3 } else { 2 }).collect();
    let room = |name: &str| 34.0 + 7.6 * name.chars().count() as f64;
    // Above the rows where it fits, else farther left.
    let mut x = NAMES.min(WIDTH - shown.iter().map(|(_, name)| room(name)).sum::<f64>()).max(0.0);
    for (shape, name) in shown {
        draw(&mut svg, format_args!("{}", shape(x + 5.0, 8.0)));
        label(&mut svg, [x + 15.0, 12.0], "start", name);
        x += room(name);
    }
    svg += "</svg>";
    svg
}

/// Text as it may stand in HTML, in attributes too. Control characters, which HTML does not have, become U+FFFD.
pub fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            '\'' => out += "&#39;",
            c if c.is_control() && c != '\n' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(linear_ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(linear_ticks(0.6, 1.0), [0.6, 0.7, 0.8, 0.9, 1.0]);
        assert_eq!(linear_ticks(-3.0, 41.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(log_ticks(0.05, 2.0), [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]);
        assert_eq!(log_ticks(0.001, 1.0), [0.001, 0.01, 0.1, 1.0]);
    }

    #[test]
    fn zero_has_a_place_on_a_logarithmic_axis() {
        let axis = Axis { label: "", range: [0.01, 1.0], ticks: vec![], log: true, percent: false };
        assert_eq!([0.0, 0.01, 0.1, 1.0, 7.0].map(|v| (axis.place(v) * 100.0).round()), [0.0, 0.0, 50.0, 100.0, 100.0]);
    }

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(escape("a<b>&\"c'\u{7}"), "a&lt;b&gt;&amp;&quot;c&#39;\u{fffd}");
        let axis = |label| Axis { label, range: [0.0, 1.0], ticks: vec![0.5], log: false, percent: true };
        let line = Line { name: "<script>", points: vec![[0.0, 1.0]], mark: None };
        let svg = lines("</svg>", &axis("<x>"), &axis("<y>"), &[line]);
        assert!(!svg.contains("<script>") && !svg.contains("<x>") && svg.matches("</svg>").count() == 1, "{svg}");
    }

    #[test]
    fn a_dot_plot_has_a_row_per_entry() {
        let row = |name, beside| Dots { name, from: 0.8, to: 0.9, beside };
        let svg = dots("t", ["from", "to", "beside"], &[row("a", Some(0.95)), row("b", None)]);
        assert_eq!([svg.matches("class=\"disc\"").count(), svg.matches("class=\"diamond\"").count()], [3, 2]);
    }
}

//! Charts as SVG, all drawn by plotters: lines, histograms, dot plots, scatter plots and bars, and the canvas used by other pictures.
//!
//! Charts use the colours of a light page. `eval/report.css` matches them by value and substitutes others on a dark page. Series
//! also differ in their dashes, for print without colour.

use crate::{Error, Result};
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::element::DashedPathElement;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use std::borrow::Cow;
use std::ops::Range;

/// Plotters works in whole pixels, so a chart is drawn this many times larger than it is shown.
pub const FINE: u32 = 4;

/// Colours of series, text, axes and grid lines.
pub const COLOURS: [RGBColor; 6] = [
    RGBColor(11, 114, 133),
    RGBColor(217, 72, 15),
    RGBColor(95, 61, 196),
    RGBColor(43, 138, 62),
    RGBColor(166, 30, 77),
    RGBColor(132, 106, 0),
];
pub const INK: RGBColor = RGBColor(27, 31, 36);
pub const MUTED: RGBColor = RGBColor(92, 102, 112);
pub const RULE: RGBColor = RGBColor(221, 226, 231);
/// Page background, also the fill of rings.
pub const PAGE: RGBColor = RGBColor(255, 255, 255);

/// Dash and gap of each series; the first is solid.
const DASHES: [Option<[u32; 2]>; 4] = [None, Some([7, 4]), Some([2, 3]), Some([13, 3])];
/// Heights of the title, of a legend line, and of a row of a dot plot.
const TITLE: u32 = 30;
const LEGEND: u32 = 19;
const ROW: u32 = 17;
const WIDTH: u32 = 520;
/// Height of the part below the legend.
const HEIGHT: u32 = 330;
/// Length of a line sample in the legend.
const SAMPLE: i32 = 28;

/// The error type of drawing into memory.
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;
/// An area in which charts are drawn.
pub type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A length in pixels of the picture.
pub const fn px(length: u32) -> i32 {
    (FINE * length) as i32
}

/// Text style with a font size in pixels of the picture.
pub fn font(size: f64) -> TextStyle<'static> {
    ("sans-serif", size * f64::from(FINE)).into_font().color(&INK)
}

/// A line style with the given width in pixels of the picture.
pub fn stroke(colour: RGBColor, width: f64) -> ShapeStyle {
    ShapeStyle::from(colour).stroke_width((width * f64::from(FINE)).round() as u32)
}

/// Turns an SVG picture embedded in a page into a standalone file.
pub fn standalone(svg: &str) -> String {
    svg.replacen("<svg ", "<svg xmlns=\"http://www.w3.org/2000/svg\" ", 1)
}

/// A picture with the given size in pixels, to be embedded in a page. `title` is its accessible name.
///
/// # Errors
/// Any error of `draw`.
pub fn picture(title: &str, [width, height]: [u32; 2], draw: impl FnOnce(&Area<'_>) -> Drawn) -> Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (FINE * width, FINE * height)).into_drawing_area();
        draw(&area).and_then(|()| Ok(area.present()?)).map_err(|e| Error::new(format!("chart {title}"), e))?;
    }
    // The first line is the root element with the size at which it was drawn.
    let content = svg.split_once('\n').map_or("", |(_, content)| content);
    Ok(format!(
        "<svg class=\"chart\" role=\"img\" width=\"{width}\" height=\"{height}\" \
         viewBox=\"0 0 {} {}\">\n<title>{}</title>\n{content}",
        FINE * width,
        FINE * height,
        escape(title)
    ))
}

/// One axis of a chart.
#[derive(Clone)]
pub struct Axis<'a> {
    pub label: &'a str,
    /// The first end may be the larger one.
    pub range: [f64; 2],
    pub ticks: Vec<f64>,
    /// Logarithmic; values below the range, such as 0, are drawn at its lower end.
    pub log: bool,
    pub labels: Labels<'a>,
}

/// Tick labels of an axis.
#[derive(Clone)]
pub enum Labels<'a> {
    Numbers,
    Percent,
    /// Tick i is labelled with name i.
    Names(Vec<Cow<'a, str>>),
}

impl Axis<'_> {
    /// Position of a value in 0..=1.
    fn place(&self, value: f64) -> f64 {
        let on = |v: f64| if self.log { v.max(self.range[0]).log10() } else { v };
        let [first, last] = self.range.map(on);
        ((on(value) - first) / (last - first)).clamp(0.0, 1.0)
    }
}

impl Ranged for Axis<'_> {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, (first, last): (i32, i32)) -> i32 {
        first + (self.place(*value) * f64::from(last - first)).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        // Minor grid lines are not drawn.
        if hint.weight().allow_light_points() { Vec::new() } else { self.ticks.clone() }
    }

    fn range(&self) -> Range<f64> {
        self.range[0]..self.range[1]
    }
}

impl ValueFormatter<f64> for Axis<'_> {
    fn format(value: &f64) -> String {
        value.to_string()
    }

    fn format_ext(&self, value: &f64) -> String {
        match &self.labels {
            Labels::Numbers => value.to_string(),
            Labels::Percent => format!("{:.0} %", 100.0 * value),
            Labels::Names(names) => {
                let tick = self.ticks.iter().position(|tick| tick == value);
                tick.and_then(|tick| names.get(tick)).map_or(String::new(), ToString::to_string)
            }
        }
    }
}

/// Two axes and their title.
#[derive(Clone)]
pub struct Frame<'a> {
    pub title: &'a str,
    pub x: Axis<'a>,
    pub y: Axis<'a>,
}

/// A line in a chart.
pub struct Line<'a> {
    /// Name in the legend; `None` for a line that belongs to another one.
    pub name: Option<Cow<'a, str>>,
    pub points: Vec<[f64; 2]>,
    /// Selects colour and dashes.
    pub series: usize,
    /// Width in pixels.
    pub width: f64,
    /// Whether its points are marked: they were measured, the values in between were not.
    pub dots: bool,
    /// A marked point on the line.
    pub mark: Option<[f64; 2]>,
}

/// A row of a dot plot.
pub struct Dots<'a> {
    pub name: &'a str,
    /// Start (a ring) and end (a disc) of the row's line, and the value it is compared with (a diamond).
    pub from: f64,
    pub to: f64,
    pub beside: Option<f64>,
}

/// 1 and, if there is room, 2 and 5 times the powers of ten between two numbers.
pub fn log_ticks(low: f64, high: f64) -> Vec<f64> {
    let decades = (high / low).log10();
    let digits: &[i64] = if decades > 2.5 { &[1] } else { &[1, 2, 5] };
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    let ticks = powers.flat_map(|power| digits.iter().map(move |&digit| decimal(digit, power)));
    ticks.filter(|t| (low * 0.999..=high * 1.001).contains(t)).collect()
}

/// About five round numbers between two values.
pub fn linear_ticks(low: f64, high: f64) -> Vec<f64> {
    let least = ((high - low) / 5.0).max(1e-9);
    let power = least.log10().floor() as i32;
    let unit = 10f64.powi(power);
    let digit = [1, 2, 5].into_iter().find(|&digit| digit as f64 * unit >= least).unwrap_or(10);
    let step = digit as f64 * unit;
    // Ends that are ticks up to rounding are included.
    let (first, last) = ((low / step - 1e-6).ceil() as i64, (high / step + 1e-6).floor() as i64);
    (first..=last).map(|i| decimal(i * digit, power)).collect()
}

/// `digits` times the power of ten, converted through text so that it is the number closest to the label.
fn decimal(digits: i64, power: i32) -> f64 {
    format!("{digits}e{power}").parse().unwrap_or(f64::NAN)
}

/// Draws something at a position in pixels.
type Shape<'a> = dyn Fn(&Area<'_>, (i32, i32)) -> Drawn + 'a;

/// A legend entry, and how its sample is drawn from a given position.
struct Entry<'a> {
    name: Cow<'a, str>,
    sample: Box<Shape<'a>>,
}

/// Margins for the labels of the vertical axis (left) and for the ticks of both axes.
const LEFT: u32 = 64;
const BELOW: u32 = 46;

type Plane<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Axis<'a>, Axis<'a>>>;

/// Draws title, legend and axes, below the values.
fn framed<'a, 'b>(
    area: &'a Area<'b>,
    frame: &Frame<'a>,
    legend: &[Entry<'_>],
) -> std::result::Result<Plane<'a, 'b>, Box<dyn std::error::Error>> {
    title(area, frame.title)?;
    for (line, entry) in legend.iter().enumerate() {
        let middle = (px(LEFT + 8), px(TITLE + LEGEND * line as u32 + LEGEND / 2));
        (entry.sample)(area, middle)?;
        let beside = (middle.0 + px(8) + FINE as i32 * SAMPLE, middle.1);
        area.draw(&Text::new(entry.name.clone(), beside, font(14.0).pos(Pos::new(HPos::Left, VPos::Center))))?;
    }
    let mut plane = ChartBuilder::on(area)
        .margin_top(px(TITLE + LEGEND * legend.len() as u32 + 8))
        .margin_left(px(8))
        .margin_right(px(20))
        .margin_bottom(px(6))
        .x_label_area_size(px(BELOW))
        .y_label_area_size(px(LEFT))
        .build_cartesian_2d(frame.x.clone(), frame.y.clone())?;
    plane
        .configure_mesh()
        .x_desc(frame.x.label)
        .y_desc(frame.y.label)
        .label_style(font(14.0))
        .axis_desc_style(font(14.0))
        .axis_style(stroke(MUTED, 1.0))
        .bold_line_style(stroke(RULE, 1.0))
        .set_all_tick_mark_size(px(4))
        .draw()?;
    Ok(plane)
}

/// Position of a value within its area, in pixels: plotters returns coordinates relative to the picture but draws relative to the
/// area.
fn placed(area: &Area<'_>, plane: &Plane<'_, '_>, point: (f64, f64)) -> (i32, i32) {
    let ((x, y), (left, top)) = (plane.backend_coord(&point), area.get_base_pixel());
    (x - left, y - top)
}

fn title(area: &Area<'_>, title: &str) -> Drawn {
    let middle = (area.dim_in_pixel().0 as i32 / 2, px(TITLE / 2));
    let style = ("sans-serif", 16.0 * f64::from(FINE), FontStyle::Bold).into_font().color(&INK);
    Ok(area.draw(&Text::new(title.to_string(), middle, style.pos(Pos::new(HPos::Center, VPos::Center))))?)
}

/// A line through points in pixels, with the dashes of a series.
fn dashed(area: &Area<'_>, points: Vec<(i32, i32)>, series: usize, width: f64) -> Drawn {
    let style = stroke(COLOURS[series % COLOURS.len()], width);
    match DASHES[series % DASHES.len()] {
        None => area.draw(&PathElement::new(points, style))?,
        Some([dash, gap]) => area.draw(&DashedPathElement::new(points, px(dash), px(gap), style))?,
    }
    Ok(())
}

/// Lines over two axes.
///
/// # Errors
/// None known: plotters draws into memory.
pub fn lines(frame: &Frame<'_>, lines: &[Line<'_>]) -> Result<String> {
    let legend = lines.iter().filter(|line| line.name.is_some()).count() as u32;
    let size = [WIDTH, TITLE + legend * LEGEND + HEIGHT];
    picture(frame.title, size, |area| draw_lines(area, frame, lines))
}

/// Two line charts next to each other, as a standalone file.
///
/// # Errors
/// As [`lines`].
pub fn lines_beside(title: &str, charts: [(Frame<'_>, Vec<Line<'_>>); 2]) -> Result<String> {
    let named = |lines: &[Line<'_>]| lines.iter().filter(|line| line.name.is_some()).count() as u32;
    let legend = charts.iter().map(|(_, lines)| named(lines)).max().unwrap_or(0);
    picture(title, [2 * WIDTH, TITLE + legend * LEGEND + HEIGHT], |area| {
        area.fill(&PAGE)?;
        let (left, right) = area.split_horizontally(px(WIDTH));
        [left, right].iter().zip(&charts).try_for_each(|(area, (frame, lines))| draw_lines(area, frame, lines))
    })
    .map(|svg| standalone(&svg))
}

fn draw_lines(area: &Area<'_>, frame: &Frame<'_>, lines: &[Line<'_>]) -> Drawn {
    let legend: Vec<Entry<'_>> = lines.iter().filter_map(line_entry).collect();
    let plane = framed(area, frame, &legend)?;
    lines.iter().try_for_each(|line| draw_line(area, &plane, line))
}

/// The legend entry of a line with a name.
fn line_entry(line: &Line<'_>) -> Option<Entry<'static>> {
    let (series, width, dots) = (line.series, line.width, line.dots);
    let name = Cow::Owned(line.name.as_ref()?.to_string());
    let sample = move |area: &Area<'_>, (x, y): (i32, i32)| {
        dashed(area, vec![(x, y), (x + FINE as i32 * SAMPLE, y)], series, width)?;
        if dots { dot(area, (x + FINE as i32 * SAMPLE / 2, y), series) } else { Ok(()) }
    };
    Some(Entry { name, sample: Box::new(sample) })
}

fn draw_line(area: &Area<'_>, plane: &Plane<'_, '_>, line: &Line<'_>) -> Drawn {
    let Line { points, series, width, dots, mark, .. } = line;
    let place = |[x, y]: &[f64; 2]| placed(area, plane, (*x, *y));
    let points: Vec<(i32, i32)> = points.iter().map(place).collect();
    dashed(area, points.clone(), *series, *width)?;
    if *dots {
        points.into_iter().try_for_each(|point| dot(area, point, *series))?;
    }
    match mark {
        Some(mark) => ring(area, place(mark), 5.0, COLOURS[series % COLOURS.len()]),
        None => Ok(()),
    }
}

fn dot(area: &Area<'_>, at: (i32, i32), series: usize) -> Drawn {
    Ok(area.draw(&Circle::new(at, px(3), COLOURS[series % COLOURS.len()].filled()))?)
}

fn ring(area: &Area<'_>, at: (i32, i32), radius: f64, colour: RGBColor) -> Drawn {
    let radius = (radius * f64::from(FINE)) as i32;
    area.draw(&Circle::new(at, radius, PAGE.filled()))?;
    Ok(area.draw(&Circle::new(at, radius, stroke(colour, 2.0)))?)
}

/// Overlaid histograms with common bins: names and values, starting at `low`, each bin `width` wide. `cut` is marked.
///
/// # Errors
/// As [`lines`].
pub fn histograms(
    frame: &Frame<'_>,
    [low, width]: [f64; 2],
    bars: &[(String, Vec<f64>)],
    cut: Option<f64>,
) -> Result<String> {
    let outline = |area: &Area<'_>, points: Vec<(i32, i32)>, series: usize| -> Drawn {
        area.draw(&Polygon::new(points.clone(), COLOURS[series % COLOURS.len()].mix(0.28).filled()))?;
        dashed(area, points, series, 1.5)
    };
    let outline = &outline;
    let mut legend: Vec<Entry<'_>> = Vec::new();
    for (series, (name, _)) in bars.iter().enumerate() {
        let sample = move |area: &Area<'_>, (x, y): (i32, i32)| {
            let (right, half) = (x + FINE as i32 * SAMPLE, px(5));
            outline(area, vec![(x, y + half), (x, y - half), (right, y - half), (right, y + half)], series)
        };
        legend.push(Entry { name: name.into(), sample: Box::new(sample) });
    }
    let threshold = |area: &Area<'_>, ends: [(i32, i32); 2]| -> Drawn {
        Ok(area.draw(&DashedPathElement::new(ends, px(5), px(3), stroke(INK, 1.6)))?)
    };
    if let Some(cut) = cut {
        let sample =
            move |area: &Area<'_>, (x, y): (i32, i32)| threshold(area, [(x, y), (x + FINE as i32 * SAMPLE, y)]);
        legend.push(Entry { name: format!("threshold {cut:.2}").into(), sample: Box::new(sample) });
    }
    picture(frame.title, [WIDTH, TITLE + legend.len() as u32 * LEGEND + HEIGHT], |area| {
        let plane = framed(area, frame, &legend)?;
        let bottom = frame.y.range[0];
        for (series, (_, values)) in bars.iter().enumerate() {
            let edge = |bin: usize| low + bin as f64 * width;
            let tops = values.iter().enumerate();
            let tops = tops.flat_map(|(bin, &value)| [(edge(bin), value), (edge(bin + 1), value)]);
            let ends = [(edge(0), bottom), (edge(values.len()), bottom)];
            let points = [ends[0]].into_iter().chain(tops).chain([ends[1]]);
            outline(area, points.map(|point| placed(area, &plane, point)).collect(), series)?;
        }
        match cut {
            Some(cut) => threshold(area, frame.y.range.map(|end| placed(area, &plane, (cut, end)))),
            None => Ok(()),
        }
    })
}

/// One row per entry on a common percent axis. `legend` names ring, disc and diamond.
///
/// # Errors
/// As [`lines`].
pub fn dots(title: &str, legend: [&str; 3], rows: &[Dots<'_>]) -> Result<String> {
    /// Margins for the names of the rows, and for the ticks above and below them.
    const NAMES: u32 = 168;
    const TICKS: u32 = 24;
    const STEM: RGBColor = COLOURS[0];
    let disc = |area: &Area<'_>, at: (i32, i32)| -> Drawn {
        Ok(area.draw(&Circle::new(at, 9 * FINE as i32 / 2, STEM.filled()))?)
    };
    let diamond = |area: &Area<'_>, (x, y): (i32, i32)| -> Drawn {
        let reach = px(5);
        let corners = [(x, y - reach), (x + reach, y), (x, y + reach), (x - reach, y), (x, y - reach)];
        Ok(area.draw(&PathElement::new(corners.to_vec(), stroke(COLOURS[1], 1.6)))?)
    };
    let start = |area: &Area<'_>, at: (i32, i32)| ring(area, at, 3.5, MUTED);
    let beside = rows.iter().any(|row| row.beside.is_some());
    let values = rows.iter().flat_map(|row| [Some(row.from), Some(row.to), row.beside]).flatten();
    let low = (values.fold(1.0, f64::min) * 10.0 - 0.2).floor().clamp(0.0, 9.0) / 10.0;
    let x = Axis { label: "", range: [low, 1.0], ticks: linear_ticks(low, 1.0), log: false, labels: Labels::Percent };
    let names = Labels::Names(rows.iter().map(|row| row.name.into()).collect());
    let ticks = (0..rows.len()).map(|row| row as f64 + 0.5).collect();
    let y = Axis { label: "", range: [rows.len() as f64, 0.0], ticks, log: false, labels: names };
    let top = TITLE + LEGEND + 4;
    picture(title, [WIDTH, top + 2 * TICKS + ROW * rows.len() as u32], |area| {
        self::title(area, title)?;
        let room = |name: &str| 34 + 8 * name.chars().count() as u32;
        let shown = if beside { 3 } else { 2 };
        // Above the rows where it fits, otherwise farther left.
        let wide: u32 = legend.iter().take(shown).map(|name| room(name)).sum();
        let mut left = NAMES.min(WIDTH.saturating_sub(wide));
        let shapes: [&Shape<'_>; 3] = [&start, &disc, &diamond];
        for (shape, name) in shapes.iter().zip(legend).take(shown) {
            let middle = px(TITLE + LEGEND / 2);
            shape(area, (px(left + 5), middle))?;
            let style = font(14.0).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(name.to_string(), (px(left + 15), middle), style))?;
            left += room(name);
        }
        let mut plane = ChartBuilder::on(area)
            .margin_top(px(top))
            .margin_right(px(24))
            .x_label_area_size(px(TICKS))
            .top_x_label_area_size(px(TICKS))
            .y_label_area_size(px(NAMES))
            .build_cartesian_2d(x.clone(), y.clone())?;
        plane
            .configure_mesh()
            .disable_y_mesh()
            .label_style(font(13.0))
            .axis_style(TRANSPARENT)
            .bold_line_style(stroke(RULE, 1.0))
            .set_all_tick_mark_size(px(4))
            .draw()?;
        for (number, row) in rows.iter().enumerate() {
            let place = |value: f64| placed(area, &plane, (value, number as f64 + 0.5));
            let ends = vec![place(row.from), place(row.to)];
            area.draw(&PathElement::new(ends, STEM.mix(0.45).stroke_width(px(2) as u32)))?;
            if let Some(value) = row.beside {
                diamond(area, place(value))?;
            }
            start(area, place(row.from))?;
            disc(area, place(row.to))?;
        }
        Ok(())
    })
}

/// A chart that is drawn later: into a page, or beside another one.
pub struct Drawing<'a> {
    title: &'a str,
    size: [u32; 2],
    draw: Box<dyn Fn(&Area<'_>) -> Drawn + 'a>,
}

impl Drawing<'_> {
    /// The chart, to be embedded in a page.
    ///
    /// # Errors
    /// As [`lines`].
    pub fn embedded(&self) -> Result<String> {
        picture(self.title, self.size, &self.draw)
    }
}

/// Two charts next to each other, as a standalone file.
///
/// # Errors
/// As [`lines`].
pub fn beside(title: &str, [left, right]: &[Drawing<'_>; 2]) -> Result<String> {
    let size = [left.size[0] + right.size[0], left.size[1].max(right.size[1])];
    let draw = |area: &Area<'_>| {
        area.fill(&PAGE)?;
        let (first, second) = area.split_horizontally(px(left.size[0]));
        (left.draw)(&first.split_vertically(px(left.size[1])).0)?;
        (right.draw)(&second.split_vertically(px(right.size[1])).0)
    };
    picture(title, size, draw).map(|svg| standalone(&svg))
}

/// A disc of a scatter plot.
pub struct Disc<'a> {
    pub at: [f64; 2],
    /// Radius in pixels.
    pub radius: f64,
    /// Selects the colour.
    pub series: usize,
    /// Written beside it, if there is room.
    pub label: Option<Cow<'a, str>>,
}

/// Discs over lines; `kinds` names the series of the discs in the legend. Labels are placed in the order of the discs, and the ones that
/// would cover another are left out.
pub fn scatter<'a>(
    frame: Frame<'a>,
    lines: Vec<Line<'a>>,
    kinds: Vec<(&'a str, usize)>,
    discs: Vec<Disc<'a>>,
) -> Drawing<'a> {
    let entries = kinds.len() + lines.iter().filter(|line| line.name.is_some()).count();
    let (title, size) = (frame.title, [WIDTH, TITLE + entries as u32 * LEGEND + HEIGHT + 40]);
    let draw = move |area: &Area<'_>| {
        let mut legend: Vec<Entry<'_>> = lines.iter().filter_map(line_entry).collect();
        for &(name, series) in &kinds {
            let sample =
                move |area: &Area<'_>, (x, y): (i32, i32)| disc(area, (x + FINE as i32 * SAMPLE / 2, y), 5.0, series);
            legend.push(Entry { name: name.into(), sample: Box::new(sample) });
        }
        let plane = framed(area, &frame, &legend)?;
        lines.iter().try_for_each(|line| draw_line(area, &plane, line))?;
        let place = |disc: &Disc<'_>| placed(area, &plane, disc.at.into());
        discs.iter().try_for_each(|shape| disc(area, place(shape), shape.radius, shape.series))?;
        // Labels keep off the middle of discs.
        let middle = |shape: &Disc<'_>| {
            let ((x, y), reach) = (place(shape), (0.7 * shape.radius * f64::from(FINE)) as i32);
            [x - reach, y - reach, x + reach, y + reach]
        };
        let mut taken: Vec<[i32; 4]> = discs.iter().map(middle).collect();
        let [[left, right], [top, bottom]] = {
            let [x, y] = [frame.x.range, frame.y.range];
            let ((x0, y1), (x1, y0)) = (placed(area, &plane, (x[0], y[0])), placed(area, &plane, (x[1], y[1])));
            [[x0, x1], [y0, y1]]
        };
        for shape in &discs {
            let Some(label) = &shape.label else { continue };
            let ((x, y), reach) = (place(shape), (shape.radius * f64::from(FINE)) as i32 + px(3));
            let (width, half) = (px(7) * label.chars().count() as i32, px(7));
            let beside = [
                (HPos::Left, [x + reach, y - half]),
                (HPos::Right, [x - reach - width, y - half]),
                (HPos::Center, [x - width / 2, y - reach - 2 * half]),
                (HPos::Center, [x - width / 2, y + reach]),
            ];
            let free = |&[x, y]: &[i32; 2]| {
                let inside = x >= left && x + width <= right && y >= top && y + 2 * half <= bottom;
                let apart = |&[a, b, c, d]: &[i32; 4]| x >= c || x + width <= a || y >= d || y + 2 * half <= b;
                inside && taken.iter().all(apart)
            };
            let Some((anchor, [at_x, at_y])) = beside.into_iter().find(|(_, at)| free(at)) else { continue };
            taken.push([at_x, at_y, at_x + width, at_y + 2 * half]);
            let at = match anchor {
                HPos::Left => at_x,
                HPos::Right => at_x + width,
                HPos::Center => at_x + width / 2,
            };
            let style = font(12.0).pos(Pos::new(anchor, VPos::Center));
            area.draw(&Text::new(label.to_string(), (at, at_y + half), style))?;
        }
        Ok(())
    };
    Drawing { title, size, draw: Box::new(draw) }
}

fn disc(area: &Area<'_>, at: (i32, i32), radius: f64, series: usize) -> Drawn {
    let (radius, colour) = ((radius * f64::from(FINE)) as i32, COLOURS[series % COLOURS.len()]);
    area.draw(&Circle::new(at, radius, colour.mix(0.4).filled()))?;
    Ok(area.draw(&Circle::new(at, radius, stroke(colour, 1.0)))?)
}

/// A row of horizontal bars: its parts follow each other.
pub struct Bar<'a> {
    pub name: &'a str,
    pub parts: Vec<f64>,
}

/// One row per entry on a common axis that starts at 0; `legend` names the parts.
pub fn bars<'a>(title: &'a str, label: &'a str, legend: Vec<&'a str>, rows: Vec<Bar<'a>>) -> Drawing<'a> {
    /// Margin for the names of the rows, their longest in characters, and the height of the axis with its label.
    const NAMES: u32 = 132;
    const LONGEST: usize = 17;
    const TICKS: u32 = 46;
    let top = TITLE + LEGEND + 4;
    let size = [WIDTH, top + TICKS + 6 + (ROW + 3) * rows.len().max(1) as u32];
    let draw = move |area: &Area<'_>| {
        self::title(area, title)?;
        let mut left = NAMES;
        for (series, name) in legend.iter().enumerate() {
            let (x, y) = (px(left), px(TITLE + LEGEND / 2));
            let box_ = [(x, y - px(5)), (x + px(14), y + px(5))];
            area.draw(&Rectangle::new(box_, COLOURS[series % COLOURS.len()].mix(0.75).filled()))?;
            let style = font(14.0).pos(Pos::new(HPos::Left, VPos::Center));
            area.draw(&Text::new(name.to_string(), (x + px(20), y), style))?;
            left += 40 + 8 * name.chars().count() as u32;
        }
        let most = rows.iter().map(|row| row.parts.iter().sum()).fold(f64::MIN_POSITIVE, f64::max);
        let range = [0.0, 1.02 * most];
        let x = Axis { label, range, ticks: linear_ticks(0.0, range[1]), log: false, labels: Labels::Numbers };
        let short = |name: &'a str| match name.char_indices().nth(LONGEST) {
            Some((end, _)) => Cow::Owned(format!("{}…", &name[..end])),
            None => Cow::Borrowed(name),
        };
        let names = Labels::Names(rows.iter().map(|row| short(row.name)).collect());
        let ticks = (0..rows.len()).map(|row| row as f64 + 0.5).collect();
        let y = Axis { label: "", range: [rows.len().max(1) as f64, 0.0], ticks, log: false, labels: names };
        let mut plane = ChartBuilder::on(area)
            .margin_top(px(top))
            .margin_right(px(24))
            .margin_bottom(px(6))
            .x_label_area_size(px(TICKS))
            .y_label_area_size(px(NAMES))
            .build_cartesian_2d(x, y)?;
        plane
            .configure_mesh()
            .disable_y_mesh()
            .x_desc(label)
            .label_style(font(13.0))
            .axis_desc_style(font(14.0))
            .axis_style(TRANSPARENT)
            .bold_line_style(stroke(RULE, 1.0))
            .set_all_tick_mark_size(px(4))
            .draw()?;
        for (number, row) in rows.iter().enumerate() {
            let mut from = 0.0;
            for (series, part) in row.parts.iter().enumerate() {
                let corner = |x: f64, y: f64| placed(area, &plane, (x, number as f64 + y));
                let ends = [corner(from, 0.15), corner(from + part, 0.85)];
                area.draw(&Rectangle::new(ends, COLOURS[series % COLOURS.len()].mix(0.75).filled()))?;
                from += part;
            }
        }
        Ok(())
    };
    Drawing { title, size, draw: Box::new(draw) }
}

/// Escapes text for HTML and XML, including attributes. Control characters, which these do not allow, become U+FFFD.
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

    fn axis(label: &str) -> Axis<'_> {
        Axis { label, range: [0.0, 1.0], ticks: vec![0.5], log: false, labels: Labels::Percent }
    }

    #[test]
    fn ticks_are_round_and_inside() {
        assert_eq!(linear_ticks(0.0, 1.0), [0.0, 0.2, 0.4, 0.6, 0.8, 1.0]);
        assert_eq!(linear_ticks(0.6, 1.0), [0.6, 0.7, 0.8, 0.9, 1.0]);
        assert_eq!(linear_ticks(-3.0, 41.0), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(log_ticks(0.05, 2.0), [0.05, 0.1, 0.2, 0.5, 1.0, 2.0]);
        assert_eq!(log_ticks(0.001, 1.0), [0.001, 0.01, 0.1, 1.0]);
        assert_eq!(log_ticks(40.0, 60.0), [50.0]);
    }

    #[test]
    fn zero_has_a_place_on_a_logarithmic_axis() {
        let axis = Axis { range: [0.01, 1.0], log: true, ..axis("") };
        assert_eq!([0.0, 0.01, 0.1, 1.0, 7.0].map(|v| axis.map(&v, (0, 100))), [0, 0, 50, 100, 100]);
        let reversed = Axis { range: [4.0, 0.0], ..axis };
        assert_eq!([0.0, 1.0, 4.0].map(|v| Axis { log: false, ..reversed.clone() }.map(&v, (100, 0))), [0, 25, 100]);
    }

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(escape("a<b>&\"c'\u{7}"), "a&lt;b&gt;&amp;&quot;c&#39;\u{fffd}");
        let points = vec![[0.0, 1.0], [1.0, 0.0]];
        let line = Line { name: Some("<script>".into()), points, series: 0, width: 2.0, dots: false, mark: None };
        let frame = Frame { title: "</svg>", x: axis("<x>"), y: axis("<y>") };
        let svg = lines(&frame, &[line]).unwrap();
        assert!(!svg.contains("<script>") && !svg.contains("<x>") && svg.matches("</svg>").count() == 1, "{svg}");
        assert!(svg.contains("&lt;script&gt;") && svg.contains("50 %"), "{svg}");
    }

    #[test]
    fn a_dot_plot_has_a_row_per_entry() {
        let row = |name, beside| Dots { name, from: 0.8, to: 0.9, beside };
        let svg = dots("t", ["from", "to", "beside"], &[row("a", Some(0.95)), row("b", None)]).unwrap();
        // A ring consists of two circles; one of each is in the legend.
        assert_eq!([svg.matches("<circle").count(), svg.matches("<polyline").count()], [9, 2 + 2], "{svg}");
        assert!(svg.contains("\na\n") && svg.contains("\nb\n"), "{svg}");
    }

    #[test]
    fn labels_of_discs_do_not_cover_each_other() {
        let frame = Frame { title: "t", x: axis("x"), y: axis("y") };
        let disc =
            |x: f64, label: &'static str| Disc { at: [x, 0.5], radius: 4.0, series: 0, label: Some(label.into()) };
        // Five at one place: there is room for four labels around it.
        let names = ["one", "two", "three", "four", "five"];
        let discs = names.iter().map(|&name| disc(0.5, name)).chain([disc(0.99, "right")]).collect();
        let svg = scatter(frame, Vec::new(), vec![("kind", 0)], discs).embedded().unwrap();
        let shown = |name: &str| svg.contains(&format!("\n{name}\n"));
        assert!(
            names[..4].iter().all(|name| shown(name)) && !shown("five") && shown("right") && shown("kind"),
            "{svg}"
        );
    }

    #[test]
    fn bars_have_a_rectangle_per_part() {
        let bar = |name, parts: &[f64]| Bar { name, parts: parts.to_vec() };
        let draw = |rows| bars("t", "us", vec!["forward", "backward"], rows);
        let rows = vec![bar("<c1>", &[1.0, 2.0]), bar("a layer with a very long name", &[0.5, 0.0])];
        let svg = draw(rows).embedded().unwrap();
        assert_eq!(svg.matches("<rect").count(), 2 + 4, "{svg}");
        assert!(svg.contains("&lt;c1&gt;") && svg.contains("a layer with a ve…"), "{svg}");
        let both = beside("both", &[draw(Vec::new()), draw(vec![bar("c1", &[1.0, 0.0])])]).unwrap();
        assert!(both.starts_with("<svg xmlns") && both.matches("</svg>").count() == 1, "{both}");
    }

    #[test]
    fn series_beyond_the_palette_are_drawn() {
        let frame = Frame { title: "t", x: axis("x"), y: axis("y") };
        let line = |series| Line {
            name: None,
            points: vec![[0.0, 0.0], [1.0, 1.0]],
            series,
            width: 1.0,
            dots: true,
            mark: Some([0.5, 0.5]),
        };
        assert!(lines(&frame, &[line(0), line(7), line(11)]).unwrap().ends_with("</svg>\n"));
        let bars = vec![("a".to_string(), vec![0.1, 0.4]), ("b".to_string(), vec![0.3, 0.2])];
        assert!(histograms(&frame, [0.0, 0.5], &bars, Some(0.5)).unwrap().contains("threshold 0.50"));
    }
}

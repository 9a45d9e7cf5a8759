//! The benchmark of the interweaved operation as a picture: speedup against stride, time against the size of the image.

use super::row::Row;
use crate::{Error, Result};
use plotters::prelude::*;
use std::collections::BTreeMap;

const SIZE: (u32, u32) = (1100, 460);
const FONT: &str = "sans-serif";

/// A line of a chart.
struct Series {
    /// None for a line that shares its colour with a labelled one.
    label: Option<String>,
    points: Vec<(f64, f64)>,
    colour: RGBColor,
    /// Patch scanning's are thin.
    width: u32,
}

/// Two charts side by side, as SVG.
///
/// # Errors
/// Rows of a single stride and a single size: there is nothing to draw.
pub fn draw(rows: &[Row]) -> Result<String> {
    if rows.len() < 2 {
        return Err(Error::new("--plot", "a single measurement makes no line").advise("give several sizes or strides"));
    }
    let mut svg = String::new();
    paint(rows, &mut svg).map_err(|e| Error::new("--plot", e))?;
    Ok(svg)
}

fn paint(rows: &[Row], svg: &mut String) -> std::result::Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(SIZE.0 / 2);
    let mut by_size: BTreeMap<[usize; 2], Vec<&Row>> = BTreeMap::new();
    let mut by_stride: BTreeMap<usize, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_size.entry(row.image).or_default().push(row);
        by_stride.entry(row.stride).or_default().push(row);
    }
    let speedups = by_size.iter().enumerate().map(|(number, (size, rows))| Series {
        label: Some(format!("{} x {}", size[0], size[1])),
        points: rows.iter().map(|row| (row.stride as f64, row.speedup)).collect(),
        colour: colour(number),
        width: 3,
    });
    let strides = by_stride.keys().map(|stride| *stride as f64).collect();
    let names = ["stride, pixels", "speedup"];
    chart(&left, "Times faster than patch scanning", names, Some(strides), speedups.collect())?;
    let times = by_stride.iter().enumerate().flat_map(|(number, (stride, rows))| {
        let series = |label: Option<String>, time: fn(&Row) -> f64, width: u32| Series {
            label,
            points: rows.iter().map(|row| ((row.image[0] * row.image[1]) as f64 / 1e6, time(row))).collect(),
            colour: colour(number),
            width,
        };
        let label = format!("stride {stride}");
        [series(None, |row| row.patchwise_ms, 1), series(Some(label), |row| row.interweave_ms, 3)]
    });
    let title = "Time of an image (thin: patch scanning, thick: one pass)";
    chart(&right, title, ["megapixels", "ms"], None, times.collect())?;
    area.present()?;
    Ok(())
}

fn colour(number: usize) -> RGBColor {
    let palette = [(217, 72, 15), (28, 126, 214), (47, 158, 68), (156, 54, 181), (240, 140, 0), (12, 133, 153)];
    let (r, g, b) = palette[number % palette.len()];
    RGBColor(r, g, b)
}

/// Lines on two logarithmic axes; `marks` on the horizontal one, or round numbers.
fn chart<B: DrawingBackend>(
    area: &DrawingArea<B, plotters::coord::Shift>,
    title: &str,
    [x_label, y_label]: [&str; 2],
    marks: Option<Vec<f64>>,
    series: Vec<Series>,
) -> std::result::Result<(), Box<dyn std::error::Error>>
where
    B::ErrorType: 'static,
{
    let axis = |pick: fn(&(f64, f64)) -> f64, marks: Option<Vec<f64>>| {
        let values = || series.iter().flat_map(|s| &s.points).map(pick);
        let (low, high) = (values().fold(f64::INFINITY, f64::min) / 1.25, values().fold(0.0, f64::max) * 1.25);
        (low..high).log_scale().with_key_points(marks.unwrap_or_else(|| ticks(low, high)))
    };
    // Speedups fall to the right, times rise.
    let marks_given = marks.is_some();
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(14)
        .x_label_area_size(44)
        .y_label_area_size(64)
        .build_cartesian_2d(axis(|p| p.0, marks), axis(|p| p.1, None))?;
    chart
        .configure_mesh()
        .x_desc(x_label)
        .y_desc(y_label)
        .label_style((FONT, 14))
        .axis_desc_style((FONT, 15))
        .light_line_style(WHITE)
        .x_label_formatter(&|value| value.to_string())
        .y_label_formatter(&|value| value.to_string())
        .draw()?;
    for Series { label, points, colour, width } in series {
        let style = ShapeStyle::from(colour).stroke_width(width);
        let dots = points.clone();
        let line = chart.draw_series(LineSeries::new(points, style))?;
        if let Some(label) = label {
            line.label(label).legend(move |(x, y)| PathElement::new([(x, y), (x + 22, y)], style));
        }
        chart.draw_series(dots.into_iter().map(|point| Circle::new(point, 3, style.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(if marks_given { SeriesLabelPosition::UpperRight } else { SeriesLabelPosition::UpperLeft })
        .label_font((FONT, 14))
        .background_style(WHITE.mix(0.85))
        .border_style(RGBColor(173, 181, 189))
        .draw()?;
    Ok(())
}

/// 1, 2 and 5 times the powers of ten between two numbers.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let powers = low.log10().floor() as i32..=high.log10().ceil() as i32;
    // By way of text, so that a tick is the number nearest to what its label says.
    let tick = |(power, digit): (i32, u8)| format!("{digit}e{power}").parse().unwrap_or(f64::NAN);
    powers.flat_map(|power| [1, 2, 5].map(|digit| tick((power, digit)))).filter(|t| (low..=high).contains(t)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_lie_between_the_ends() {
        assert_eq!(ticks(0.07, 3.0), [0.1, 0.2, 0.5, 1.0, 2.0]);
        assert_eq!(ticks(40.0, 60.0), [50.0]);
    }
}

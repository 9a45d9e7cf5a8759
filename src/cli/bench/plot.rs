//! Plots of the interweaving benchmark: speedup against stride, and time against image size.

use super::row::Row;
use crate::chart::{Axis, Frame, Labels, Line, lines_beside, log_ticks};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// Two charts side by side, as SVG.
///
/// # Errors
/// Rows with a single stride and a single size: there is nothing to plot.
pub fn draw(rows: &[Row]) -> Result<String> {
    if rows.len() < 2 {
        return Err(Error::new("--plot", "a single measurement makes no line").advise("give several sizes or strides"));
    }
    let mut by_size: BTreeMap<[usize; 2], Vec<&Row>> = BTreeMap::new();
    let mut by_stride: BTreeMap<usize, Vec<&Row>> = BTreeMap::new();
    for row in rows {
        by_size.entry(row.image).or_default().push(row);
        by_stride.entry(row.stride).or_default().push(row);
    }
    let line = |name: Option<String>, series: usize, width: f64, points: Vec<[f64; 2]>| Line {
        name: name.map(Into::into),
        points,
        series,
        width,
        dots: true,
        mark: None,
    };
    let speedups: Vec<Line<'_>> = by_size
        .iter()
        .enumerate()
        .map(|(series, ([height, width], rows))| {
            let points = rows.iter().map(|row| [row.stride as f64, row.speedup]).collect();
            line(Some(format!("{height} x {width}")), series, 2.4, points)
        })
        .collect();
    let megapixels = |row: &Row| (row.image[0] * row.image[1]) as f64 / 1e6;
    let times: Vec<Line<'_>> = by_stride
        .iter()
        .enumerate()
        .flat_map(|(series, (stride, rows))| {
            let points = |time: fn(&Row) -> f64| rows.iter().map(|row| [megapixels(row), time(row)]).collect();
            [
                line(None, series, 1.0, points(|row| row.patchwise_ms)),
                line(Some(format!("stride {stride}")), series, 2.4, points(|row| row.interweave_ms)),
            ]
        })
        .collect();
    let strides = by_stride.keys().map(|stride| *stride as f64).collect();
    let left = frame("Speedup over patch scanning", ["stride, pixels", "speedup, times"], &speedups, Some(strides));
    let title = "Time of an image (thin: patch scanning, thick: one pass)";
    let right = frame(title, ["image, megapixels", "time, ms"], &times, None);
    lines_beside("The interweaved operation against patch scanning", [(left, speedups), (right, times)])
}

/// Two logarithmic axes that enclose all points; the horizontal one has `ticks`, or round numbers if there are none.
fn frame<'a>(title: &'a str, labels: [&'a str; 2], lines: &[Line<'_>], ticks: Option<Vec<f64>>) -> Frame<'a> {
    let axis = |axis: usize, ticks: Option<Vec<f64>>| {
        let values = || lines.iter().flat_map(|line| &line.points).map(|point| point[axis]);
        let (low, high) = (values().fold(f64::INFINITY, f64::min) / 1.25, values().fold(0.0, f64::max) * 1.25);
        let ticks = ticks.unwrap_or_else(|| log_ticks(low, high));
        Axis { label: labels[axis], range: [low, high], ticks, log: true, labels: Labels::Numbers }
    };
    Frame { title, x: axis(0, ticks), y: axis(1, None) }
}

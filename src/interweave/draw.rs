//! A picture of a plan: every layer's maps, and in them what two neighbouring patches read. Where their colours overlap,
//! the patches share the value, and patch scanning would compute it twice (the paper's Fig. 5, for any net).

use super::geometry::{Axis, Class};
use super::plan::Outline;
use crate::Result;
use crate::chart::{Area, FINE, INK, MUTED, PAGE, font, picture, standalone, stroke};
use crate::net::{INPUT, Net};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

/// Side of a layer's panel, in drawing units.
const PANEL: f32 = 200.0;
const GAP: f32 = 34.0;
const MARGIN: f32 = 20.0;
/// Height of the lines of text above and below a panel.
const HEAD: f32 = 64.0;
const FOOT: f32 = 40.0;
/// Gap between two maps of a panel, as a fraction of a map.
const SEAM: f32 = 0.12;
const COLOURS: [RGBColor; 2] = [RGBColor(217, 72, 15), RGBColor(28, 126, 214)];
const MAP: RGBColor = RGBColor(241, 243, 245);
const EDGE: RGBColor = RGBColor(173, 181, 189);

type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// A point of the picture, in drawing units.
fn at(x: f32, y: f32) -> (i32, i32) {
    let fine = |length: f32| (length * FINE as f32).round() as i32;
    (fine(x), fine(y))
}

impl Outline {
    /// The plan as SVG: the image, then each layer with all of its maps, all at the scale of the image.
    ///
    /// # Errors
    /// None are known: plotters draws into memory.
    pub fn draw(&self, net: &Net) -> Result<String> {
        let patches = self.example();
        let shown = self.shown(net);
        let width = 2.0 * MARGIN + shown.len() as f32 * (PANEL + GAP) - GAP;
        let height = 2.0 * MARGIN + HEAD + PANEL + FOOT;
        picture("What two neighbouring patches share", [width as u32, height as u32], |area| {
            area.fill(&PAGE)?;
            for (number, &value) in shown.iter().enumerate() {
                let left = MARGIN + number as f32 * (PANEL + GAP);
                let before = if number > 0 { shown[number - 1] } else { INPUT };
                self.panel(net, [before, value], &patches, [left, MARGIN + HEAD], area)?;
                if number > 0 {
                    let (x, y, end) = (left - GAP + 5.0, MARGIN + HEAD + PANEL / 2.0, left - 5.0);
                    let head = [at(end - 7.0, y - 5.0), at(end, y), at(end - 7.0, y + 5.0)];
                    area.draw(&PathElement::new(vec![at(x, y), at(end, y)], stroke(MUTED, 2.0)))?;
                    area.draw(&PathElement::new(head.to_vec(), stroke(MUTED, 2.0)))?;
                }
            }
            Ok(())
        })
        .map(|svg| standalone(&svg))
    }

    /// Two neighbouring patches near the middle, down and across.
    fn example(&self) -> [[usize; 2]; 2] {
        let first = self.patches.map(|count| count / 2 - usize::from(count > 1 && count % 2 == 0));
        let second = [0, 1].map(|axis| (first[axis] + 1).min(self.patches[axis] - 1));
        [first, second]
    }

    /// The input, the last layer of the trunk, and every later layer except those that only pool their input.
    fn shown(&self, net: &Net) -> Vec<usize> {
        let maps = |value: usize| self.maps(value);
        let last = net.layers.len();
        let trunk = (0..last).find(|&value| maps(value + 1) != [1, 1]).unwrap_or(last);
        let mut shown = vec![INPUT];
        shown.extend(
            (trunk.max(1)..=last).filter(|&value| value == trunk || value == last || maps(value) != maps(value - 1)),
        );
        shown.dedup();
        shown
    }

    /// One value: its maps, and the places of `patches` in them. `before` is the value of the panel to the left.
    fn panel(
        &self,
        net: &Net,
        [before, value]: [usize; 2],
        patches: &[[usize; 2]; 2],
        [left, top]: [f32; 2],
        area: &Area<'_>,
    ) -> Drawn {
        let axes = [0, 1].map(|axis| &self.axes[axis][value]);
        let [down, across] = axes.map(|axis| axis.classes.len());
        let cells = down.max(across) as f32;
        let side = PANEL / (cells + (cells - 1.0) * SEAM);
        let longest = [0, 1].map(|axis| axes[axis].classes.iter().map(move |class| self.extent(axis, class).1));
        let longest = longest.into_iter().flatten();
        let scale = side / longest.fold(1.0, f32::max);
        for i in 0..down {
            for j in 0..across {
                let corner = [top + i as f32 * side * (1.0 + SEAM), left + j as f32 * side * (1.0 + SEAM)];
                let classes = [&axes[0].classes[i], &axes[1].classes[j]];
                let [(y, height), (x, width)] = [0, 1].map(|axis| self.extent(axis, classes[axis]));
                let rect = |[y0, x0]: [f32; 2], [h, w]: [f32; 2], style: ShapeStyle| -> Drawn {
                    let (left, top) = (corner[1] + (x0 - x) * scale, corner[0] + (y0 - y) * scale);
                    let corners = [at(left, top), at(left + w * scale, top + h * scale)];
                    Ok(area.draw(&Rectangle::new(corners, style))?)
                };
                rect([y, x], [height, width], MAP.filled())?;
                // Plotters ignores the stroke width of a rectangle's edge.
                let (right, bottom) = (corner[1] + width * scale, corner[0] + height * scale);
                let edge = [(corner[1], corner[0]), (right, corner[0]), (right, bottom), (corner[1], bottom)];
                let edge = edge.iter().cycle().take(5).map(|&(x, y)| at(x, y)).collect::<Vec<_>>();
                area.draw(&PathElement::new(edge, stroke(EDGE, 0.7)))?;
                for (patch, colour) in patches.iter().zip(COLOURS) {
                    let used = [self.used(0, axes[0], i, patch[0]), self.used(1, axes[1], j, patch[1])];
                    if let [Some((y, height)), Some((x, width))] = used {
                        rect([y, x], [height, width], colour.mix(0.45).filled())?;
                    }
                }
            }
        }
        let middle = left + PANEL / 2.0;
        let text = |y: f32, style: TextStyle<'_>, content: String| -> Drawn {
            let style = style.pos(Pos::new(HPos::Center, VPos::Bottom));
            Ok(area.draw(&Text::new(content, at(middle, y), style))?)
        };
        let bold = ("sans-serif", 16.0 * f64::from(FINE), FontStyle::Bold).into_font().color(&INK);
        let [rows, columns] = [0, 1].map(|axis| self.places(axis, &axes[axis].classes[0]));
        let name = if value == INPUT { "image".into() } else { net.layers[value - 1].name.clone() };
        text(top - 42.0, bold, name)?;
        let of = match (value, value == net.layers.len()) {
            (INPUT, _) => format!("{rows} x {columns} pixels"),
            (_, true) => format!("{rows} x {columns} patches, {} features", net.output().len()),
            _ if down * across == 1 => format!("{rows} x {columns} places, shared by all"),
            _ => format!("{down} x {across} maps of up to {} x {}", self.most(0, axes[0]), self.most(1, axes[1])),
        };
        text(top - 24.0, font(12.0), of)?;
        let note = match value {
            INPUT => format!("two patches, {} pixels apart", self.stride),
            _ => {
                let one: f64 = net.layers[before..value].iter().map(|layer| layer.op.flops() as f64).sum();
                let (own, scanned) = (self.flops[before..value].iter().sum::<f64>(), self.count() as f64 * one);
                format!("{:.2} GFLOP instead of {:.2}", own / 1e9, scanned / 1e9)
            }
        };
        text(top + PANEL + 28.0, font(12.0), note)
    }

    /// Number of positions of a class.
    fn places(&self, axis: usize, class: &Class) -> u64 {
        class.count(self.patches[axis], self.stride)
    }

    /// Largest number of positions of a class.
    fn most(&self, axis: usize, of: &Axis) -> u64 {
        of.classes.iter().map(|class| self.places(axis, class)).max().unwrap_or(0)
    }

    /// First position of a class, and the length of its range.
    fn extent(&self, axis: usize, class: &Class) -> (f32, f32) {
        match class.ends(self.patches[axis], self.stride) {
            None => (0.0, 0.0),
            Some((first, last)) => (first as f32, (last - first) as f32 + self.step(axis, class)),
        }
    }

    /// Pixels between two positions of a class.
    fn step(&self, axis: usize, class: &Class) -> f32 {
        class.step(self.patches[axis], self.stride) as f32
    }

    /// The range of a class's positions that a patch reads.
    fn used(&self, axis: usize, of: &Axis, class: usize, patch: usize) -> Option<(f32, f32)> {
        let places = of.places.iter().flatten().filter(|place| place.class == class);
        let origin = (patch * self.stride) as i64;
        let positions: Vec<i64> = places.map(|place| origin + place.offset).collect();
        let (first, last) = (positions.iter().min()?, positions.iter().max()?);
        Some((*first as f32, (last - first) as f32 + self.step(axis, &of.classes[class])))
    }
}

//! The score of a box: how much contour it contains that does not cross its border (section 3.2).
//!
//! h_in(b) = (sum of w_b(s) m(s) over groups s - sum of m(p) over edges p in the middle) / (2 (width + height)^kappa)
//!
//! w_b(s) is 0 for a group that lies outside or on the border, and otherwise 1 - the best product of affinities along a
//! path from a group on the border to s. Tens of thousands of boxes are scored per photo, so:
//!
//! * With all weights 1 the score takes two summed-area tables (group magnitudes, each at one pixel of its group, and
//!   edge magnitudes). That is an upper bound: a box whose bound does not exceed the required score is rejected.
//! * The groups on the border come from lists, one per row and one per column of the photo: the groups along the line
//!   in order, each run once. Another table maps each pixel to its index in that list, so a side is one slice of a list.
//! * From those groups weights propagate along affinities, only to groups inside, only while the product counts. Each
//!   loss is subtracted immediately: the bound only decreases, and the box is rejected once it is too low.
//! * Marks of earlier boxes are recognised by a serial number, so nothing is cleared between boxes.

use super::groups::{Group, Groups, LEAST_AFFINITY, NONE};
use crate::data::photo::Rect;

/// Whole pixels [x0, x1) x [y0, y1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ScoredWindow {
    pub x0: usize,
    pub y0: usize,
    pub x1: usize,
    pub y1: usize,
}

impl ScoredWindow {
    pub fn width(&self) -> usize {
        self.x1 - self.x0
    }

    pub fn height(&self) -> usize {
        self.y1 - self.y0
    }

    pub fn rect(&self) -> Rect {
        Rect::new(self.x0 as f32, self.y0 as f32, self.width() as f32, self.height() as f32)
    }

    fn contains(&self, x: u16, y: u16) -> bool {
        let (x, y) = (usize::from(x), usize::from(y));
        (self.x0..self.x1).contains(&x) && (self.y0..self.y1).contains(&y)
    }

    /// The central part: half the width and half the height.
    fn middle(&self) -> Self {
        let (x0, y0) = (self.x0 + self.width() / 4, self.y0 + self.height() / 4);
        Self { x0, y0, x1: x0 + self.width() / 2, y1: y0 + self.height() / 2 }
    }
}

/// Scores boxes of one image.
pub struct Scorer<'a> {
    groups: &'a Groups,
    /// Magnitudes of groups, each at its pixel.
    by_group: WeightTable,
    /// Magnitudes of edges.
    by_pixel: WeightTable,
    rows: Lines,
    columns: Lines,
    /// 1 / (2 n^kappa) for a box of width + height = n.
    scale: Vec<f32>,
    /// Indexed by id.
    marks: Vec<Mark>,
    serial: u32,
    /// Groups whose neighbours are still to be visited.
    queue: Vec<u32>,
}

/// The per-group data that scoring needs, adjacent in memory.
#[derive(Clone, Copy)]
struct Mark {
    /// The box to which `lost` applies.
    serial: u32,
    /// The best product of affinities along a path from the border: the share of the group that the box loses.
    lost: f32,
    x: u16,
    y: u16,
    magnitude: f32,
}

impl<'a> Scorer<'a> {
    pub fn new(groups: &'a Groups, kappa: f32) -> Self {
        let (height, width) = (groups.height, groups.width);
        let mut at_pixel = vec![0.0; height * width];
        for group in &groups.groups[1..] {
            at_pixel[usize::from(group.y) * width + usize::from(group.x)] = group.magnitude;
        }
        let scale = (0..=height + width).map(|n| 0.5 / (n as f32).powf(kappa)).collect();
        Self {
            groups,
            by_group: WeightTable::new(&at_pixel, height, width),
            by_pixel: WeightTable::new(&groups.magnitude, height, width),
            rows: Lines::new(height, width, |y, x| groups.ids[y * width + x]),
            columns: Lines::new(width, height, |x, y| groups.ids[y * width + x]),
            scale,
            marks: groups.groups.iter().map(mark).collect(),
            serial: 0,
            queue: Vec::new(),
        }
    }

    /// The score of a box inside the image, or `None` if it does not exceed `floor`.
    pub fn score(&mut self, window: ScoredWindow, floor: f32) -> Option<f32> {
        let scale = self.scale[window.width() + window.height()];
        let least = floor / scale;
        let mut sum = self.by_group.sum(window) - self.by_pixel.sum(window.middle());
        if sum <= least {
            return None;
        }
        self.serial += 1;
        sum -= self.leave_border(window);
        if sum <= least {
            return None;
        }
        sum = self.spread(window, sum, least)?;
        Some(sum * scale)
    }

    /// Marks the groups on the border as lost and queues them; returns the magnitude that the box loses.
    fn leave_border(&mut self, window: ScoredWindow) -> f32 {
        let Self { rows, columns, marks, queue, serial, .. } = self;
        queue.clear();
        let mut lost = 0.0;
        let sides = [
            rows.groups(window.y0, window.x0, window.x1),
            rows.groups(window.y1 - 1, window.x0, window.x1),
            columns.groups(window.x0, window.y0, window.y1),
            columns.groups(window.x1 - 1, window.y0, window.y1),
        ];
        for &id in sides.into_iter().flatten() {
            let mark = &mut marks[id as usize];
            if id == NONE || mark.serial == *serial {
                continue;
            }
            (mark.serial, mark.lost) = (*serial, 1.0);
            queue.push(id);
            if window.contains(mark.x, mark.y) {
                lost += mark.magnitude;
            }
        }
        lost
    }

    /// Follows affinities from the queued groups inwards and subtracts the losses from `sum`; returns `None` as soon as no more
    /// than `least` is left.
    fn spread(&mut self, window: ScoredWindow, mut sum: f32, least: f32) -> Option<f32> {
        let Self { groups, marks, queue, serial, .. } = self;
        let mut done = 0;
        while let Some(&id) = queue.get(done) {
            done += 1;
            let from = marks[id as usize].lost;
            for &(next, affinity) in groups.neighbours(id) {
                let lost = from * affinity;
                if lost < LEAST_AFFINITY {
                    continue;
                }
                let mark = &mut marks[next as usize];
                let before = if mark.serial == *serial { mark.lost } else { 0.0 };
                if lost <= before || !window.contains(mark.x, mark.y) {
                    continue;
                }
                (mark.serial, mark.lost) = (*serial, lost);
                sum -= (lost - before) * mark.magnitude;
                if sum <= least {
                    return None;
                }
                queue.push(next);
            }
        }
        Some(sum)
    }
}

/// A group not visited by any box yet: serial numbers of boxes start at 1.
fn mark(group: &Group) -> Mark {
    let Group { x, y, magnitude, .. } = *group;
    Mark { serial: 0, lost: 0.0, x, y, magnitude }
}

/// A summed-area table (Crow, 1984).
struct WeightTable {
    pitch: usize,
    /// [height + 1, width + 1]: entry (y, x) is the sum of all entries above and to the left of it.
    sums: Vec<f64>,
}

impl WeightTable {
    fn new(values: &[f32], height: usize, width: usize) -> Self {
        let pitch = width + 1;
        let mut sums = vec![0.0; (height + 1) * pitch];
        for y in 0..height {
            let mut row = 0.0;
            for x in 0..width {
                row += f64::from(values[y * width + x]);
                sums[(y + 1) * pitch + x + 1] = sums[y * pitch + x + 1] + row;
            }
        }
        Self { pitch, sums }
    }

    #[inline]
    fn sum(&self, window: ScoredWindow) -> f32 {
        let at = |y: usize, x: usize| self.sums[y * self.pitch + x];
        let ScoredWindow { x0, y0, x1, y1 } = window;
        (at(y1, x1) - at(y1, x0) - at(y0, x1) + at(y0, x0)) as f32
    }
}

/// The groups along all rows, or all columns, of an image.
struct Lines {
    length: usize,
    /// The ids along each line, with runs of equal ids collapsed, including [`NONE`]; line after line.
    ids: Vec<u32>,
    /// [lines, length]: index in `ids` of the pixel's run.
    places: Vec<u32>,
}

impl Lines {
    fn new(lines: usize, length: usize, id: impl Fn(usize, usize) -> u32) -> Self {
        let mut ids = Vec::new();
        let mut places = Vec::with_capacity(lines * length);
        for line in 0..lines {
            for at in 0..length {
                let id = id(line, at);
                if at == 0 || ids.last() != Some(&id) {
                    ids.push(id);
                }
                places.push(ids.len() as u32 - 1);
            }
        }
        Self { length, ids, places }
    }

    /// The groups on pixels [from, to) of a line.
    #[inline]
    fn groups(&self, line: usize, from: usize, to: usize) -> &[u32] {
        let place = |at: usize| self.places[line * self.length + at] as usize;
        &self.ids[place(from)..=place(to - 1)]
    }
}

//! Edge groups: edges that probably belong to one contour, and their affinity to neighbouring groups (section 3.1).

use super::edges::{Edges, turn};
use std::f32::consts::FRAC_PI_2;

/// Weaker edges are ignored.
const LEAST_MAGNITUDE: f32 = 0.1;
/// A group ends where the sum of its orientation differences exceeds this.
const MOST_TURN: f32 = FRAC_PI_2;
/// Groups whose magnitudes sum to less are merged into neighbours.
const LEAST_GROUP: f32 = 0.5;
/// Affinities, and products of affinities along a path, below this count as 0.
pub(super) const LEAST_AFFINITY: f32 = 0.05;
/// Groups farther from each other than this, in pixels along an axis, have affinity 0.
const REACH: usize = 2;

/// The id of pixels that do not belong to a group.
pub(super) const NONE: u32 = 0;
/// During grouping: an edge that is not in a group yet. Never a final id.
const FREE: u32 = u32::MAX;

/// One group. Sums and means are over its edges.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Group {
    /// Sum of magnitudes.
    pub magnitude: f32,
    /// The first of its pixels in reading order. Any pixel would do: where it matters, either all or none lie inside.
    pub x: u16,
    pub y: u16,
    /// Mean position, (x, y).
    pub mean: (f32, f32),
    /// Mean orientation, in 0..pi.
    pub orientation: f32,
}

/// All groups of an image.
#[derive(Debug, Clone)]
pub struct Groups {
    pub height: usize,
    pub width: usize,
    /// [height, width]: the group that a pixel belongs to; 0 for none.
    pub ids: Vec<u32>,
    /// Magnitude of each pixel that belongs to a group, 0 elsewhere.
    pub magnitude: Vec<f32>,
    /// Indexed by id; entry 0 is empty.
    pub groups: Vec<Group>,
    /// The neighbours of group g and their affinities are `neighbours[starts[g]..starts[g + 1]]`.
    starts: Vec<u32>,
    neighbours: Vec<(u32, f32)>,
}

impl Groups {
    /// Groups the edges; affinities are raised to `gamma`.
    pub fn new(edges: &Edges, gamma: f32) -> Self {
        let mut ids = link(edges);
        absorb_small(edges, &mut ids);
        let count = renumber(&mut ids);
        let groups = describe(edges, &ids, count);
        let (starts, neighbours) = affinities(&groups, &ids, edges.height, edges.width, gamma);
        let kept = |(&id, &m): (&u32, &f32)| if id == NONE { 0.0 } else { m };
        let magnitude = ids.iter().zip(&edges.magnitude).map(kept).collect();
        Self { height: edges.height, width: edges.width, ids, magnitude, groups, starts, neighbours }
    }

    /// The groups with a non-zero affinity to group `id`, and the affinities; both directions are listed.
    #[inline]
    pub fn neighbours(&self, id: u32) -> &[(u32, f32)] {
        let id = id as usize;
        &self.neighbours[self.starts[id] as usize..self.starts[id + 1] as usize]
    }
}

/// Joins 8-connected edges greedily, always continuing with the smallest orientation difference, until the sum of differences of
/// a group exceeds the limit. Returns ids from 1.
fn link(edges: &Edges) -> Vec<u32> {
    let mut ids: Vec<u32> = edges.magnitude.iter().map(|&m| if m > LEAST_MAGNITUDE { FREE } else { NONE }).collect();
    let mut next = NONE;
    // Free neighbours of the group so far, with the orientation difference that joining them adds.
    let mut border: Vec<(f32, usize)> = Vec::new();
    for start in 0..ids.len() {
        if ids[start] != FREE {
            continue;
        }
        next += 1;
        border.clear();
        let (mut at, mut turned) = (start, 0.0);
        loop {
            ids[at] = next;
            around(at, edges.height, edges.width, |other| {
                if ids[other] == FREE {
                    border.push((turn(edges.orientation[at], edges.orientation[other]), other));
                }
            });
            // An edge is listed once for each neighbour in the group; the first entry taken claims it.
            border.retain(|&(_, other)| ids[other] == FREE);
            let Some(least) = (0..border.len()).min_by(|&a, &b| border[a].0.total_cmp(&border[b].0)) else { break };
            let (cost, other) = border.swap_remove(least);
            turned += cost;
            if turned > MOST_TURN {
                break;
            }
            at = other;
        }
    }
    ids
}

/// Reassigns the pixels of small groups to the neighbouring group closest in orientation; pixels without one are dropped.
fn absorb_small(edges: &Edges, ids: &mut [u32]) {
    let count = ids.iter().max().map_or(0, |&last| last as usize + 1);
    let mut sums = vec![0.0; count];
    for (&id, &magnitude) in ids.iter().zip(&edges.magnitude) {
        sums[id as usize] += magnitude;
    }
    let mut free: Vec<usize> =
        (0..ids.len()).filter(|&at| ids[at] != NONE && sums[ids[at] as usize] < LEAST_GROUP).collect();
    free.iter().for_each(|&at| ids[at] = FREE);
    loop {
        let before = free.len();
        free.retain(|&at| {
            let mut best = (f32::INFINITY, FREE);
            around(at, edges.height, edges.width, |other| {
                let turn = turn(edges.orientation[at], edges.orientation[other]);
                if ids[other] != NONE && ids[other] != FREE && turn < best.0 {
                    best = (turn, ids[other]);
                }
            });
            ids[at] = best.1;
            best.1 == FREE
        });
        if free.len() == before {
            break;
        }
    }
    free.iter().for_each(|&at| ids[at] = NONE);
}

/// Calls `visit` with the up to eight neighbours of a pixel.
#[inline]
fn around(at: usize, height: usize, width: usize, mut visit: impl FnMut(usize)) {
    let (y, x) = (at / width, at % width);
    for ny in y.saturating_sub(1)..=(y + 1).min(height - 1) {
        for nx in x.saturating_sub(1)..=(x + 1).min(width - 1) {
            if (ny, nx) != (y, x) {
                visit(ny * width + nx);
            }
        }
    }
}

/// Closes the gaps between ids; returns their number, including [`NONE`].
fn renumber(ids: &mut [u32]) -> usize {
    let mut names = vec![NONE; ids.iter().max().map_or(0, |&last| last as usize) + 1];
    let mut count = 1;
    for id in ids.iter_mut().filter(|id| **id != NONE) {
        let name = &mut names[*id as usize];
        if *name == NONE {
            *name = count;
            count += 1;
        }
        *id = *name;
    }
    count as usize
}

fn describe(edges: &Edges, ids: &[u32], count: usize) -> Vec<Group> {
    let mut groups = vec![Group::default(); count];
    // Sums of x, y, and of the direction at twice the angle, at which opposite directions coincide.
    let mut sums = vec![[0.0_f64; 4]; count];
    for (at, &id) in ids.iter().enumerate().filter(|(_, id)| **id != NONE) {
        let (x, y) = ((at % edges.width) as u16, (at / edges.width) as u16);
        let (group, sums) = (&mut groups[id as usize], &mut sums[id as usize]);
        if group.magnitude == 0.0 {
            (group.x, group.y) = (x, y);
        }
        let magnitude = edges.magnitude[at];
        group.magnitude += magnitude;
        let (sin, cos) = (2.0 * edges.orientation[at]).sin_cos();
        let terms = [f32::from(x), f32::from(y), cos, sin];
        sums.iter_mut().zip(terms).for_each(|(sum, term)| *sum += f64::from(magnitude * term));
    }
    for (group, [x, y, cos, sin]) in groups.iter_mut().zip(sums).skip(1) {
        let total = f64::from(group.magnitude);
        group.mean = ((x / total) as f32, (y / total) as f32);
        group.orientation = (sin.atan2(cos) / 2.0).rem_euclid(std::f64::consts::PI) as f32;
    }
    groups
}

/// Affinity of two groups: 1 if both lie on one line, 0 if one of them is perpendicular to the line between them (equation 1).
pub(super) fn affinity(a: &Group, b: &Group, gamma: f32) -> f32 {
    let between = (b.mean.1 - a.mean.1).atan2(b.mean.0 - a.mean.0);
    ((a.orientation - between).cos() * (b.orientation - between).cos()).abs().powf(gamma)
}

/// Affinities of groups that come close to each other, as a list for each group.
fn affinities(groups: &[Group], ids: &[u32], height: usize, width: usize, gamma: f32) -> (Vec<u32>, Vec<(u32, f32)>) {
    let mut pairs = near(ids, height, width);
    pairs.sort_unstable();
    pairs.dedup();
    let linked: Vec<(u32, u32, f32)> = pairs
        .into_iter()
        .map(|(a, b)| (a, b, affinity(&groups[a as usize], &groups[b as usize], gamma)))
        .filter(|link| link.2 >= LEAST_AFFINITY)
        .collect();
    let mut starts = vec![0; groups.len() + 1];
    for &(a, b, _) in &linked {
        starts[a as usize + 1] += 1;
        starts[b as usize + 1] += 1;
    }
    for id in 0..groups.len() {
        starts[id + 1] += starts[id];
    }
    let mut ends = starts.clone();
    let mut neighbours = vec![(NONE, 0.0); 2 * linked.len()];
    for (a, b, affinity) in linked {
        for (from, to) in [(a, b), (b, a)] {
            neighbours[ends[from as usize] as usize] = (to, affinity);
            ends[from as usize] += 1;
        }
    }
    (starts, neighbours)
}

/// Pairs of different groups, smaller id first, with pixels at most [`REACH`] from each other; may contain duplicates.
fn near(ids: &[u32], height: usize, width: usize) -> Vec<(u32, u32)> {
    let mut pairs = Vec::new();
    for y in 0..height {
        for x in 0..width {
            let id = ids[y * width + x];
            if id == NONE {
                continue;
            }
            for other_y in y..=(y + REACH).min(height - 1) {
                // Pairs above and to the left have been visited from the other side.
                let first = if other_y == y { x + 1 } else { x.saturating_sub(REACH) };
                let last = (x + REACH).min(width - 1);
                for &other in ids.get(other_y * width + first..=other_y * width + last).unwrap_or_default() {
                    let pair = (id.min(other), id.max(other));
                    if other != NONE && other != id && pairs.last() != Some(&pair) {
                        pairs.push(pair);
                    }
                }
            }
        }
    }
    pairs
}

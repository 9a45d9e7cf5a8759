//! Which values of a net, run on every patch of an image, are equal.
//!
//! Consider one axis. A patch begins at pixel P, and position y of a layer's output for that patch is computed from a few
//! positions of the layer below, those from a few of the next, down to pixels P + x. If every layer treats all positions
//! alike, the value depends on one number, P + (offset of y), and overlapping patches share it: that is the trunk. A locally
//! shared layer breaks this: its value also depends on the cell that contains y, and a window over two cells on
//! how many of its taps fall in each. So every position belongs to a *class*, and the value is a function of class and
//! pixel position alone. Classes are found layer by layer: two positions are in one class if they use the same filter bank
//! and each of their taps reads the same class at the same distance.
//!
//! For each class the net is then an ordinary dense one over all positions that some patch needs: the paper's response
//! maps (one class per cell), interweaved maps (classes of windows inside a cell and across its border) and the trunk
//! (a single class) are all instances of this. Since a window across the border of two cells is a separate class and a window
//! inside a cell is shared by all patches that contain it, this computes less than the paper's tiling, where each
//! phase recomputes all of its windows. There are no divisibility constraints: padding, pools across cells and strides
//! that are not multiples of the trunk's only create more classes or more positions.
//!
//! The axes are independent, so the classes of a map are pairs of classes of its rows and columns.

use crate::net::Net;
use crate::ops::{Kind, Pair};
use std::collections::HashMap;

/// One axis of one value of the net.
#[derive(Debug)]
pub struct Axis {
    /// For each position of the value within a patch; `None` where no later layer reads it.
    pub places: Vec<Option<Position>>,
    pub classes: Vec<Class>,
}

/// Position y of patch P has the value of class `class` at position P + `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    pub class: usize,
    pub offset: i64,
}

/// Positions that compute the same function of their pixel position.
#[derive(Debug)]
pub struct Class {
    /// This axis's part of the filter bank: the row or column in the grid of cells. For an operation on whole maps: the row or
    /// column of its output.
    pub region: usize,
    /// This axis's part of an average's divisor.
    pub divisor: usize,
    /// What each tap of the window reads; `None` in padding. For concat: one tap per input.
    pub taps: Vec<Option<Tap>>,
    /// Offsets of its positions, ascending: patches that begin at pixels P need it at P + offset.
    pub offsets: Vec<i64>,
}

/// A tap at position q reads class `class` of the layer below at position q + `distance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tap {
    pub class: usize,
    pub distance: i64,
}

impl Class {
    /// Where `patches` patches, `stride` pixels apart, need it: for offsets of equal remainder, runs of positions `stride`
    /// pixels apart, as first position and length. The number of runs depends on the net alone.
    fn runs(&self, patches: usize, stride: usize) -> Vec<(i64, u64)> {
        let (patches, stride) = (patches as u64, stride as i64);
        let mut offsets = self.offsets.clone();
        offsets.sort_unstable_by_key(|offset| (offset.rem_euclid(stride), *offset));
        let mut runs: Vec<(i64, u64)> = Vec::new();
        for offset in offsets {
            match runs.last_mut() {
                // Touches or overlaps the previous run.
                Some((first, len))
                    if (offset - *first) % stride == 0 && ((offset - *first) / stride) as u64 <= *len =>
                {
                    *len = ((offset - *first) / stride) as u64 + patches;
                }
                _ => runs.push((offset, patches)),
            }
        }
        runs
    }

    /// The number of positions.
    pub fn count(&self, patches: usize, stride: usize) -> u64 {
        self.runs(patches, stride).iter().map(|(_, len)| len).sum()
    }

    /// All positions in pixels of the image, ascending.
    pub fn positions(&self, patches: usize, stride: usize) -> Vec<i64> {
        let runs = self.runs(patches, stride).into_iter();
        let mut positions: Vec<i64> =
            runs.flat_map(|(first, len)| (0..len as i64).map(move |i| first + i * stride as i64)).collect();
        positions.sort_unstable();
        positions
    }

    /// First and last position.
    pub fn ends(&self, patches: usize, stride: usize) -> Option<(i64, i64)> {
        let last = self.offsets.last()? + (patches as i64 - 1) * stride as i64;
        Some((*self.offsets.first()?, last))
    }

    /// Pixels between adjacent positions; 1 if there is only one.
    pub fn step(&self, patches: usize, stride: usize) -> i64 {
        let Some((first, last)) = self.ends(1, stride) else { return 1 };
        // With more patches than the offsets span, positions repeat.
        let few = patches.min(((last - first) / stride as i64) as usize + 3);
        let positions = self.positions(few, stride);
        positions.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(1)
    }
}

/// For each of `positions` its index among the positions `below` of the class that is read there, shifted by `distance`.
pub fn numbers(positions: &[i64], below: &[i64], distance: i64) -> Vec<u32> {
    let mut number = 0;
    let number_of = |q: &i64| {
        while below.get(number).is_some_and(|p| *p < q + distance) {
            number += 1;
        }
        number as u32
    };
    positions.iter().map(number_of).collect()
}

/// What position `y` of a layer reads along one axis.
struct TapWindow {
    region: usize,
    divisor: usize,
    /// Input number and position of each tap; `None` in padding.
    taps: Vec<Option<(usize, usize)>>,
}

fn window(net: &Net, layer: usize, vertical: bool, y: usize) -> TapWindow {
    let along = |pair: Pair| if vertical { pair.h } else { pair.w };
    let size = |input: usize| {
        let shape = net.shape(net.layers[layer].inputs[input]);
        if vertical { shape.h } else { shape.w }
    };
    let whole = |size: usize| TapWindow { region: 0, divisor: 1, taps: (0..size).map(|x| Some((0, x))).collect() };
    let inside = |x: usize, pad: usize| x.checked_sub(pad).filter(|x| *x < size(0)).map(|x| (0, x));
    match net.layers[layer].op.kind() {
        Kind::Filter(f) if f.flattened.is_some() => whole(size(0)),
        Kind::Filter(f) => {
            let (region, u) = (y / along(f.block), y % along(f.block));
            let first = region * along(f.cell) + u * along(f.stride);
            let taps = (first..first + along(f.kernel)).map(|x| inside(x, along(f.pad))).collect();
            TapWindow { region, divisor: 1, taps }
        }
        Kind::Pool(p) => {
            let first = y * along(p.stride);
            let end = (first + along(p.kernel)).min(size(0) + 2 * along(p.pad));
            let taps = (first..end).map(|x| inside(x, along(p.pad))).collect();
            TapWindow { region: 0, divisor: end - first, taps }
        }
        // Each position is a different function of the whole map.
        Kind::Global => TapWindow { region: y, ..whole(size(0)) },
        Kind::Dropout | Kind::Pixelwise | Kind::Concat | Kind::Loss => {
            let inputs = net.layers[layer].inputs.len();
            TapWindow { region: 0, divisor: 1, taps: (0..inputs).map(|input| Some((input, y))).collect() }
        }
    }
}

/// All values of a net (0 is the input) along one axis.
pub fn axes(net: &Net, vertical: bool) -> Vec<Axis> {
    let values = net.layers.len() + 1;
    let size = |value: usize| if vertical { net.shape(value).h } else { net.shape(value).w };
    let mut read: Vec<Vec<bool>> = (0..values).map(|value| vec![value + 1 == values; size(value)]).collect();
    for layer in (0..net.layers.len()).rev() {
        for y in 0..size(layer + 1) {
            if read[layer + 1][y] {
                for (input, x) in window(net, layer, vertical, y).taps.into_iter().flatten() {
                    read[net.layers[layer].inputs[input]][x] = true;
                }
            }
        }
    }
    let mut axes: Vec<Axis> = Vec::with_capacity(values);
    let pixels = read[0].iter().enumerate();
    axes.push(Axis::new(
        pixels.map(|(x, read)| read.then_some(Position { class: 0, offset: x as i64 })).collect(),
        vec![(0, 1, Vec::new())],
    ));
    for (layer, read) in read[1..].iter().enumerate() {
        let inputs = &net.layers[layer].inputs;
        let mut known: HashMap<Key, usize> = HashMap::new();
        let mut classes: Vec<Key> = Vec::new();
        let place = |(y, read): (usize, &bool)| {
            if !*read {
                return None;
            }
            let TapWindow { region, divisor, taps } = window(net, layer, vertical, y);
            let below = taps.iter().map(|tap| tap.and_then(|(input, x)| axes[inputs[input]].places[x]));
            let below: Vec<Option<Position>> = below.collect();
            let offset = below.iter().flatten().next().map_or(0, |first| first.offset);
            let tap = |place: Position| Tap { class: place.class, distance: place.offset - offset };
            let key = (region, divisor, below.into_iter().map(|place| place.map(tap)).collect::<Vec<_>>());
            let class = *known.entry(key.clone()).or_insert_with(|| {
                classes.push(key);
                classes.len() - 1
            });
            Some(Position { class, offset })
        };
        let places = read.iter().enumerate().map(place).collect();
        axes.push(Axis::new(places, classes));
    }
    axes
}

/// Region, divisor and taps: the key of a class.
type Key = (usize, usize, Vec<Option<Tap>>);

impl Axis {
    fn new(places: Vec<Option<Position>>, classes: Vec<Key>) -> Self {
        let mut offsets = vec![Vec::new(); classes.len()];
        for place in places.iter().flatten() {
            offsets[place.class].push(place.offset);
        }
        let class = |((region, divisor, taps), mut offsets): (Key, Vec<i64>)| {
            offsets.sort_unstable();
            offsets.dedup();
            Class { region, divisor, taps, offsets }
        };
        let classes = classes.into_iter().zip(offsets).map(class).collect();
        Self { places, classes }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shipped::Source;

    fn anet() -> Vec<Axis> {
        axes(&Net::load(Source::net("anet")).unwrap(), true)
    }

    #[test]
    fn anet_has_the_paper_s_response_maps_and_three_kinds_of_windows_per_bank() {
        let axes = anet();
        let classes: Vec<usize> = axes.iter().map(|axis| axis.classes.len()).collect();
        // Trunk: one class. C3 and P3: a response map per row of cells. C4: inside the first cell, across, inside the second.
        assert_eq!(classes, [1, 1, 1, 1, 1, 3, 3, 6, 1]);
        let c4 = &axes[7];
        let class = |y: usize| c4.places[y].unwrap().class;
        assert_eq!((0..10).map(class).collect::<Vec<_>>(), [0, 0, 1, 2, 2, 3, 3, 4, 5, 5]);
        // Inside a cell, neighbouring patches share all but one row.
        assert_eq!(c4.classes[0].count(27, 8), 28);
        assert_eq!(c4.classes[1].count(27, 8), 27);
        assert_eq!(axes[8].classes[0].positions(27, 8), (0..27).map(|p| 8 * p).collect::<Vec<i64>>());
    }

    #[test]
    fn a_single_patch_needs_each_place_once() {
        let net = Net::load(Source::net("anet")).unwrap();
        for (value, axis) in anet().iter().enumerate() {
            let positions: u64 = axis.classes.iter().map(|class| class.count(1, 8)).sum();
            assert_eq!(positions, net.shape(value).h as u64, "value {value}");
        }
    }

    #[test]
    fn positions_are_those_of_all_patches_whatever_the_stride() {
        use std::collections::BTreeSet;
        let mut rng = crate::rng::Rng::new(1, 0);
        for case in 0..300 {
            let offsets: BTreeSet<i64> = (0..1 + rng.below(12)).map(|_| rng.below(60) as i64 - 20).collect();
            let class = Class { region: 0, divisor: 1, taps: Vec::new(), offsets: offsets.iter().copied().collect() };
            let (patches, stride) = (1 + rng.below(9), 1 + rng.below(14));
            let all: BTreeSet<i64> = (0..patches as i64)
                .flat_map(|p| offsets.iter().map(move |offset| offset + p * stride as i64))
                .collect();
            let all: Vec<i64> = all.into_iter().collect();
            assert_eq!(class.positions(patches, stride), all, "case {case}");
            assert_eq!(class.count(patches, stride), all.len() as u64, "case {case}");
            assert_eq!(class.ends(patches, stride), Some((all[0], all[all.len() - 1])), "case {case}");
            let step = all.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(1);
            assert_eq!(class.step(patches, stride), step, "case {case}");
        }
    }

    #[test]
    fn a_large_image_costs_no_more_to_count_than_a_small_one() {
        let axes = anet();
        // The trunk's first layer at every pixel; a class of one position once per patch.
        assert_eq!(axes[1].classes[0].count(1 << 40, 1), (1 << 40) + 83);
        assert_eq!(axes[7].classes[1].count(1 << 40, 3), 1 << 40);
    }
}

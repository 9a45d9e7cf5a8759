//! Which values of a net, run on every patch of an image, are the same number.
//!
//! Take one axis. A patch begins at pixel P, and place y of a layer's output for that patch is computed from a few places
//! of the layer below, those from a few of the next, down to pixels P + x. If every layer treats all places alike, the
//! value depends on one number, P + (offset of y), and patches that overlap share it: that is the trunk. A locally
//! shared layer breaks this: its value also depends on the cell that y lies in, and a window over two cells on
//! how many of its taps lie in each. So every place belongs to a *class*, and the value is a function of class and
//! position alone. Classes are found layer by layer: two places are of one class if they use the same filter bank
//! and each of their taps reads the same class at the same distance.
//!
//! For each class the net is then an ordinary dense one over all positions that some patch asks for: the paper's response
//! maps (one class per cell), interweaved maps (classes of windows inside a cell and across its border) and the trunk
//! (a single class) are the same thing. Since a window across the border of two cells is a class of its own and a window
//! inside a cell is shared by all patches that contain it, this computes less than the paper's tiling, where each
//! phase computes all of its windows anew. Nothing has to divide anything: padding, pools across cells, strides
//! that are no multiple of the trunk's only make more classes or more positions.
//!
//! The axes do not mix, so the classes of a map are pairs of classes of its rows and columns.

use crate::net::Net;
use crate::ops::{Kind, Pair};
use std::collections::{BTreeSet, HashMap};

/// One axis of one value of the net.
#[derive(Debug)]
pub struct Axis {
    /// Of each place of the value, for a patch by itself; `None` where no later layer reads it.
    pub places: Vec<Option<Place>>,
    pub classes: Vec<Class>,
}

/// Place y of patch P has the value of class `class` at position P + `offset`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    pub class: usize,
    pub offset: i64,
}

/// Places that compute the same function of their position.
#[derive(Debug)]
pub struct Class {
    /// This axis's part of the filter bank: the row or column of the grid of cells.
    pub region: usize,
    /// This axis's part of what an average divides by.
    pub divisor: usize,
    /// What each tap of the window reads; `None` in padding. For concat: a tap per input.
    pub taps: Vec<Option<Tap>>,
    /// Where some patch needs it, in pixels of the image, ascending.
    pub positions: Vec<i64>,
}

/// A tap at position q reads class `class` of the layer below at position q + `distance`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Tap {
    pub class: usize,
    pub distance: i64,
}

impl Class {
    /// For each position its number among the positions of `below`, moved by `distance`.
    pub fn numbers(&self, below: &Self, distance: i64) -> Vec<u32> {
        let number = |q: &i64| below.positions.partition_point(|p| *p < q + distance) as u32;
        self.positions.iter().map(number).collect()
    }
}

/// What place `y` of a layer reads along one axis.
struct Window {
    region: usize,
    divisor: usize,
    /// Input number and place of each tap; `None` in padding.
    taps: Vec<Option<(usize, usize)>>,
}

fn window(net: &Net, layer: usize, vertical: bool, y: usize) -> Window {
    let along = |pair: Pair| if vertical { pair.h } else { pair.w };
    let size = |input: usize| {
        let shape = net.shape(net.layers[layer].inputs[input]);
        if vertical { shape.h } else { shape.w }
    };
    let whole = |size: usize| Window { region: 0, divisor: 1, taps: (0..size).map(|x| Some((0, x))).collect() };
    let inside = |x: usize, pad: usize| x.checked_sub(pad).filter(|x| *x < size(0)).map(|x| (0, x));
    match net.layers[layer].op.kind() {
        Kind::Filter(f) if f.flattened.is_some() => whole(size(0)),
        Kind::Filter(f) => {
            let (region, u) = (y / along(f.block), y % along(f.block));
            let first = region * along(f.cell) + u * along(f.stride);
            let taps = (first..first + along(f.kernel)).map(|x| inside(x, along(f.pad))).collect();
            Window { region, divisor: 1, taps }
        }
        Kind::Pool(p) => {
            let first = y * along(p.stride);
            let end = (first + along(p.kernel)).min(size(0) + 2 * along(p.pad));
            let taps = (first..end).map(|x| inside(x, along(p.pad))).collect();
            Window { region: 0, divisor: end - first, taps }
        }
        Kind::Global => whole(size(0)),
        Kind::Dropout | Kind::Pixelwise | Kind::Concat | Kind::Loss => {
            let inputs = net.layers[layer].inputs.len();
            Window { region: 0, divisor: 1, taps: (0..inputs).map(|input| Some((input, y))).collect() }
        }
    }
}

/// All values of a net (0 is the input) along one axis, for patches that begin at the pixels `origins`.
pub fn axes(net: &Net, vertical: bool, origins: &[i64]) -> Vec<Axis> {
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
        pixels.map(|(x, read)| read.then_some(Place { class: 0, offset: x as i64 })).collect(),
        vec![(0, 1, Vec::new())],
        origins,
    ));
    for (layer, read) in read[1..].iter().enumerate() {
        let inputs = &net.layers[layer].inputs;
        let mut known: HashMap<Key, usize> = HashMap::new();
        let mut classes: Vec<Key> = Vec::new();
        let place = |(y, read): (usize, &bool)| {
            if !*read {
                return None;
            }
            let Window { region, divisor, taps } = window(net, layer, vertical, y);
            let below = taps.iter().map(|tap| tap.and_then(|(input, x)| axes[inputs[input]].places[x]));
            let below: Vec<Option<Place>> = below.collect();
            let offset = below.iter().flatten().next().map_or(0, |first| first.offset);
            let tap = |place: Place| Tap { class: place.class, distance: place.offset - offset };
            let key = (region, divisor, below.into_iter().map(|place| place.map(tap)).collect::<Vec<_>>());
            let class = *known.entry(key.clone()).or_insert_with(|| {
                classes.push(key);
                classes.len() - 1
            });
            Some(Place { class, offset })
        };
        let places = read.iter().enumerate().map(place).collect();
        axes.push(Axis::new(places, classes, origins));
    }
    axes
}

/// Region, divisor and taps: what makes a class.
type Key = (usize, usize, Vec<Option<Tap>>);

impl Axis {
    fn new(places: Vec<Option<Place>>, classes: Vec<Key>, origins: &[i64]) -> Self {
        let mut positions = vec![BTreeSet::new(); classes.len()];
        for place in places.iter().flatten() {
            positions[place.class].extend(origins.iter().map(|origin| origin + place.offset));
        }
        let classes = classes.into_iter().zip(positions);
        let class = |((region, divisor, taps), positions): (Key, BTreeSet<i64>)| Class {
            region,
            divisor,
            taps,
            positions: positions.into_iter().collect(),
        };
        Self { places, classes: classes.map(class).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn anet(origins: &[i64]) -> Vec<Axis> {
        axes(&Net::load(concat!(env!("CARGO_MANIFEST_DIR"), "/nets/anet.toml")).unwrap(), true, origins)
    }

    #[test]
    fn anet_has_the_paper_s_response_maps_and_three_kinds_of_windows_per_bank() {
        let origins: Vec<i64> = (0..27).map(|p| 8 * p).collect();
        let axes = anet(&origins);
        let classes: Vec<usize> = axes.iter().map(|axis| axis.classes.len()).collect();
        // Trunk: one class. C3 and P3: a response map per row of cells. C4: inside the first cell, across, inside the second.
        assert_eq!(classes, [1, 1, 1, 1, 1, 3, 3, 6, 1]);
        let c4 = &axes[7];
        let class = |y: usize| c4.places[y].unwrap().class;
        assert_eq!((0..10).map(class).collect::<Vec<_>>(), [0, 0, 1, 2, 2, 3, 3, 4, 5, 5]);
        // Inside a cell neighbouring patches share all but one row.
        assert_eq!(c4.classes[0].positions.len(), 28);
        assert_eq!(c4.classes[1].positions.len(), 27);
        assert_eq!(axes[8].classes[0].positions, origins);
    }

    #[test]
    fn a_single_patch_needs_each_place_once() {
        let net = Net::load(concat!(env!("CARGO_MANIFEST_DIR"), "/nets/anet.toml")).unwrap();
        for (value, axis) in anet(&[0]).iter().enumerate() {
            let positions: usize = axis.classes.iter().map(|class| class.positions.len()).sum();
            assert_eq!(positions, net.shape(value).h, "value {value}");
        }
    }
}

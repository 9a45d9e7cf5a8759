//! The cases: small nets that between them hold every layer type, with odd sizes, and every way a net can branch.
//!
//! A net is written in short: one layer a line, `name: type key=value ...`, values as in TOML without spaces.

use crate::problem::Problem;
use crate::reference;
use std::env;
use weft::device::Precision;
use weft::net::Spec;
use weft::ops::OPERATIONS;

/// One case.
#[derive(Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// Samples, channels, height, width.
    pub input: [usize; 4],
    net: &'static str,
    /// Inputs lie within 2 times `scale` of `middle`.
    pub middle: f32,
    pub scale: f32,
    /// Random masks are drawn.
    pub training: bool,
    pub slack: Slack,
}

/// How much larger than the device's bound errors may be: each case that needs it says why.
#[derive(Clone, Copy)]
pub struct Slack {
    pub output: f64,
    pub gradient: f64,
}

impl Slack {
    pub const NONE: Self = Self { output: 1.0, gradient: 1.0 };
}

const fn case(name: &'static str, input: [usize; 4], net: &'static str) -> Case {
    Case { name, input, net, middle: 0.0, scale: 1.0, training: false, slack: Slack::NONE }
}

impl Case {
    const fn around(self, middle: f32) -> Self {
        Self { middle, ..self }
    }

    const fn scaled(self, scale: f32) -> Self {
        Self { scale, ..self }
    }

    const fn training(self) -> Self {
        Self { training: true, ..self }
    }

    const fn slack(self, output: f64, gradient: f64) -> Self {
        Self { slack: Slack { output, gradient }, ..self }
    }

    pub fn spec(&self) -> Spec {
        let [_, c, h, w] = self.input;
        let mut text = format!("name = \"case\"\ninput = [{c}, {h}, {w}]\n");
        for line in self.net.trim().lines() {
            let (name, rest) = line.trim().split_once(": ").expect("name: type key=value ...");
            let mut words = rest.split_whitespace();
            let kind = words.next().expect("a type");
            text += &format!("[[layer]]\nname = '{name}'\ntype = '{kind}'\n");
            words.for_each(|word| text += &format!("{word}\n"));
        }
        Spec::parse(&text, self.name).expect(self.name)
    }

    /// The case with numbers, as f32 keeps them.
    pub fn problem(&self) -> Problem {
        self.problem_in(Precision::F32)
    }

    /// The case with numbers as `precision` keeps them: the first seed whose numbers lie away from every kink of a ReLU or a
    /// maximum, so that derivatives exist and neither differences of [`crate::gradient::STEP`] nor the device's own
    /// rounding steps over one. Few 16-bit numbers lie in a large window, or under a deep net: then no seed does, and the
    /// problem says so.
    pub fn problem_in(&self, precision: Precision) -> Problem {
        let attempts = if precision == Precision::F32 { 100 } else { 10 };
        let first = env::var("WEFT_TEST_SEED").map_or(1, |seed| seed.parse().expect("WEFT_TEST_SEED is a number"));
        let draw = |seed| Problem::draw(self, seed).rounded(precision);
        let exact = precision == Precision::F32 || draw(first).net.layers.len() == 1;
        let margin = if exact { reference::MARGIN } else { precision.tolerance() };
        let found = (first..first + attempts).map(draw).find(|problem| reference::run(problem).kink > margin);
        let smooth = found.is_some();
        assert!(smooth || precision != Precision::F32, "case {}: seeds from {first} on all lie on a kink", self.name);
        Problem { smooth, ..found.unwrap_or_else(|| draw(first)) }
    }
}

/// All cases.
pub fn all() -> Vec<Case> {
    let wanted = env::var("WEFT_TEST_CASES").unwrap_or_default();
    let all = [CONV, LOCAL, POOL, POINTWISE, CHANNELS, LINEAR, BRANCHES, LOSSES, NETS].into_iter().flatten();
    all.filter(|case| case.name.contains(&wanted)).copied().collect()
}

/// Ordinary convolutions. Sums of 512 pixels are one tile of work, and filters are split in 64s.
const CONV: &[Case] = &[
    case("conv: 1x1", [2, 5, 4, 3], "a: conv filters=6 kernel=1"),
    case("conv: 1x1 with a stride", [2, 3, 5, 5], "a: conv filters=4 kernel=1 stride=2"),
    case("conv: 1x1 in groups", [2, 6, 3, 4], "a: conv filters=4 kernel=1 groups=2"),
    case("conv: 1x1 without bias, one pixel", [1, 3, 1, 1], "a: conv filters=2 kernel=1 bias=false"),
    case("conv: one image of one channel", [1, 1, 5, 5], "a: conv filters=1 kernel=3"),
    case("conv: padded", [2, 3, 6, 5], "a: conv filters=4 kernel=3 pad=1"),
    case("conv: padded beyond the kernel", [2, 2, 3, 4], "a: conv filters=3 kernel=2 pad=3"),
    case("conv: a stride that drops an edge", [2, 2, 9, 8], "a: conv filters=3 kernel=3 stride=2"),
    case("conv: a stride over the kernel", [2, 2, 8, 9], "a: conv filters=3 kernel=2 stride=3"),
    case("conv: another number per axis", [2, 3, 7, 8], "a: conv filters=5 kernel=[3,2] stride=[1,2] pad=[0,1]"),
    case("conv: a row", [2, 2, 3, 9], "a: conv filters=3 kernel=[1,5] pad=[0,2]"),
    case("conv: a column with a stride", [2, 2, 9, 3], "a: conv filters=3 kernel=[5,1] stride=[2,1] pad=[1,0]"),
    case("conv: as large as the image", [3, 2, 4, 5], "a: conv filters=3 kernel=[4,5]"),
    case("conv: even kernel", [2, 3, 6, 7], "a: conv filters=2 kernel=4 pad=2 stride=2"),
    case("conv: three groups", [2, 6, 5, 4], "a: conv filters=9 kernel=2 groups=3"),
    case(
        "conv: two groups, padded, strided",
        [2, 4, 7, 6],
        "a: conv filters=6 kernel=3 stride=2 pad=1 groups=2 activation='relu'",
    ),
    case("conv: a group per channel", [1, 4, 6, 6], "a: conv filters=4 kernel=3 pad=1 groups=4"),
    case("conv: two filters per channel", [2, 3, 5, 5], "a: conv filters=6 kernel=3 groups=3 bias=false"),
    case("conv: relu", [2, 3, 5, 6], "a: conv filters=4 kernel=3 activation='relu'"),
    case("conv: sigmoid", [2, 3, 5, 6], "a: conv filters=4 kernel=3 activation='sigmoid'"),
    case("conv: no bias", [2, 3, 5, 6], "a: conv filters=4 kernel=3 bias=false"),
    case("conv: AlexNet's first, small", [1, 3, 23, 19], "a: conv filters=4 kernel=11 stride=4"),
    // Sums over hundreds of pixels.
    case("conv: two tiles in one image", [1, 1, 30, 30], "a: conv filters=3 kernel=3").slack(1.0, 3.0),
    case("conv: a tile that ends inside an image", [5, 2, 13, 12], "a: conv filters=3 kernel=2 activation='relu'")
        .slack(1.0, 3.0),
    case("conv: tiles of 1x1", [3, 2, 17, 16], "a: conv filters=3 kernel=1").slack(1.0, 3.0),
    case("conv: many filters, one pixel", [1, 7, 2, 2], "a: conv filters=150 kernel=2"),
    case("conv: a window in parts", [1, 48, 7, 6], "a: conv filters=3 kernel=5 pad=2 activation='relu'"),
    case(
        "conv: windows in parts, in groups, strided",
        [2, 90, 6, 5],
        "a: conv filters=4 kernel=5 pad=1 stride=2 groups=2",
    ),
    case("conv: many filters in groups", [1, 4, 2, 2], "a: conv filters=260 kernel=2 groups=2"),
    // Channels and filters in whole packs of 16 bytes; several tiles of pixels, filters and steps of the sum.
    case("conv: whole packs", [2, 16, 9, 8], "a: conv filters=72 kernel=3 pad=1 activation='relu'"),
    case("conv: whole packs, strided, in groups", [2, 32, 9, 7], "a: conv filters=16 kernel=3 stride=2 pad=1 groups=2"),
    case("conv: 1x1 of whole packs", [3, 40, 5, 9], "a: conv filters=136 kernel=1 activation='sigmoid'"),
    case("conv: whole packs in, odd filters out", [1, 8, 7, 6], "a: conv filters=5 kernel=[2,3] stride=[1,2]"),
    case("conv: odd channels in, whole packs out", [2, 3, 12, 13], "a: conv filters=24 kernel=5 stride=2 pad=2"),
    case(
        "conv: a stack",
        [2, 2, 9, 9],
        "
            a: conv filters=3 kernel=3 activation='relu'
            b: conv filters=4 kernel=3 stride=2 activation='sigmoid'
            c: conv filters=2 kernel=3",
    ),
];

/// Filters shared within cells, up to one bank per pixel. Halo: side = (grid + span - 1) cell + kernel - 1; valid: without the last.
const LOCAL: &[Case] = &[
    case("local_conv: grid 1 is a convolution", [2, 2, 6, 7], "a: local_conv filters=3 kernel=3 grid=1 window='halo'"),
    case("local_conv: grid 1, valid", [2, 2, 6, 7], "a: local_conv filters=3 kernel=3 grid=1 window='valid'"),
    case("local_conv: grid 2, halo", [2, 3, 8, 8], "a: local_conv filters=4 kernel=3 grid=2 window='halo'"),
    case("local_conv: windows in parts", [2, 130, 6, 6], "a: local_conv filters=2 kernel=3 grid=2 window='halo'"),
    case(
        "local_conv: grid 3, halo",
        [2, 2, 8, 8],
        "a: local_conv filters=3 kernel=3 grid=3 window='halo' activation='relu'",
    ),
    case("local_conv: grid 4, halo", [1, 1, 9, 9], "a: local_conv filters=2 kernel=2 grid=4 window='halo'"),
    case(
        "local_conv: grid 2, span 2, halo",
        [2, 2, 11, 11],
        "a: local_conv filters=3 kernel=3 grid=2 span=2 window='halo'",
    ),
    case(
        "local_conv: grid 2, span 3, halo",
        [2, 1, 9, 9],
        "a: local_conv filters=2 kernel=2 grid=2 span=3 window='halo' activation='sigmoid'",
    ),
    case(
        "local_conv: grid 2, span 1, valid",
        [2, 2, 6, 8],
        "a: local_conv filters=3 kernel=2 grid=2 span=1 window='valid'",
    ),
    case(
        "local_conv: grid 2, span 2, valid",
        [2, 3, 9, 9],
        "a: local_conv filters=4 kernel=2 grid=2 span=2 window='valid' activation='relu'",
    ),
    case(
        "local_conv: grid 3, span 2, valid",
        [1, 2, 8, 8],
        "a: local_conv filters=2 kernel=3 grid=3 span=2 window='valid'",
    ),
    case(
        "local_conv: grid 4, span 3, valid",
        [1, 1, 12, 12],
        "a: local_conv filters=2 kernel=3 grid=4 span=3 window='valid' bias=false",
    ),
    case(
        "local_conv: kernel as large as the cell",
        [2, 2, 6, 6],
        "a: local_conv filters=2 kernel=3 grid=2 window='valid'",
    ),
    case(
        "local_conv: another number per axis, halo",
        [2, 2, 7, 14],
        "a: local_conv filters=3 kernel=[2,3] grid=[2,3] span=[1,2] window='halo'",
    ),
    case(
        "local_conv: another number per axis, valid",
        [2, 2, 8, 9],
        "a: local_conv filters=3 kernel=[2,1] grid=[1,3] span=[2,1] window='valid'",
    ),
    case("local_conv: 1x1 filters", [2, 3, 4, 6], "a: local_conv filters=2 kernel=1 grid=2 window='halo'"),
    case("local_conv: unshared", [2, 2, 6, 6], "a: local_conv filters=2 kernel=3 grid=4 window='halo'"),
    case(
        "local_conv: unshared, not square",
        [2, 1, 4, 7],
        "a: local_conv filters=3 kernel=[2,3] grid=[3,5] window='halo' bias=false",
    ),
    case(
        "local_conv: tiles that end inside a block",
        [4, 1, 26, 26],
        "a: local_conv filters=2 kernel=3 grid=2 window='halo'",
    )
    .slack(1.0, 3.0),
    case(
        "local_conv: whole packs, halo",
        [2, 16, 8, 8],
        "a: local_conv filters=24 kernel=3 grid=3 window='halo' activation='relu'",
    ),
    case(
        "local_conv: whole packs, valid",
        [3, 8, 9, 9],
        "a: local_conv filters=72 kernel=2 grid=2 span=2 window='valid'",
    ),
    case(
        "local_conv: whole packs, unshared",
        [2, 8, 5, 6],
        "a: local_conv filters=8 kernel=2 grid=[4,5] window='halo'",
    ),
    case("local_conv: many filters", [1, 2, 4, 4], "a: local_conv filters=140 kernel=2 grid=2 window='valid'"),
    case(
        "local_conv: local on local",
        [2, 2, 12, 12],
        "
            a: local_conv filters=2 kernel=3 grid=2 window='halo' activation='relu'
            b: local_conv filters=2 kernel=2 grid=4 span=2 window='valid'",
    ),
];

/// Pools; above 16 Ki values they run on several threads. On a GPU 4 or 8 channels are a pack, by storage type, and a
/// block of a global pool owns 32 packs or channels.
const POOL: &[Case] = &[
    case("max 2/2", [2, 3, 6, 8], "a: max_pool kernel=2"),
    case("max 2/2 drops an edge", [2, 3, 7, 5], "a: max_pool kernel=2"),
    case("max 3/2 overlapping", [2, 3, 9, 7], "a: max_pool kernel=3 stride=2"),
    case("max 3/1", [1, 1, 5, 6], "a: max_pool kernel=3 stride=1"),
    case("max with gaps", [2, 2, 8, 7], "a: max_pool kernel=2 stride=3"),
    case("max padded", [2, 3, 7, 6], "a: max_pool kernel=3 stride=2 pad=1"),
    case("max ceil", [2, 3, 8, 6], "a: max_pool kernel=3 stride=2 ceil=true"),
    case("max ceil, padded, per axis", [2, 2, 9, 10], "a: max_pool kernel=[3,2] stride=[2,3] pad=[1,0] ceil=true"),
    case("max ceil drops a window of padding", [2, 2, 6, 7], "a: max_pool kernel=2 stride=3 pad=1 ceil=true"),
    case("max of the whole map", [2, 3, 4, 5], "a: max_pool kernel=[4,5]"),
    case("max on threads", [1, 32, 48, 49], "a: max_pool kernel=3 stride=2"),
    case("max in packs", [1, 16, 6, 5], "a: max_pool kernel=3 stride=2 pad=1"),
    case("max in packs of f32", [1, 12, 6, 5], "a: max_pool kernel=[2,3] stride=[3,1] ceil=true"),
    case("avg 2/2", [2, 3, 6, 8], "a: avg_pool kernel=2"),
    case("avg 3/2 overlapping", [2, 3, 9, 7], "a: avg_pool kernel=3 stride=2"),
    case("avg with gaps", [2, 2, 8, 7], "a: avg_pool kernel=2 stride=3"),
    case("avg padded", [2, 3, 7, 6], "a: avg_pool kernel=3 stride=2 pad=1"),
    case("avg ceil", [2, 3, 8, 6], "a: avg_pool kernel=3 stride=2 ceil=true"),
    case("avg ceil, padded, per axis", [2, 2, 9, 10], "a: avg_pool kernel=[2,3] stride=[3,2] pad=1 ceil=true"),
    case("avg ceil drops a window of padding", [2, 2, 6, 7], "a: avg_pool kernel=2 stride=3 pad=1 ceil=true"),
    case("avg of the whole map", [2, 3, 4, 5], "a: avg_pool kernel=[4,5]"),
    case("avg on threads", [3, 30, 29, 28], "a: avg_pool kernel=2 stride=1"),
    case("avg in packs", [2, 16, 9, 7], "a: avg_pool kernel=3 stride=2 pad=1"),
    case("avg in packs of f32", [2, 12, 6, 5], "a: avg_pool kernel=[2,3] stride=[3,1] ceil=true"),
    case(
        "pool of pools",
        [2, 2, 13, 12],
        "
            a: max_pool kernel=3 stride=2
            b: avg_pool kernel=2 stride=1
            c: max_pool kernel=2",
    ),
    case("global max", [3, 4, 5, 3], "a: global_pool mode='max'"),
    case("global avg", [3, 4, 5, 3], "a: global_pool mode='avg'"),
    case("global lse", [3, 4, 5, 3], "a: global_pool mode='lse'"),
    case("global max of more packs than a block has", [2, 264, 3, 2], "a: global_pool mode='max'"),
    case("global avg of more packs than a block has", [2, 264, 3, 2], "a: global_pool mode='avg'"),
    case("global lse of more packs than a block has", [2, 264, 3, 2], "a: global_pool mode='lse'"),
    case("global max of more channels than a block has", [2, 37, 4, 3], "a: global_pool mode='max'"),
    case("global lse of more channels than a block has", [2, 37, 4, 3], "a: global_pool mode='lse'"),
    // The logarithm of a mean near 1 is divided by r.
    case("global lse, nearly the mean", [2, 3, 4, 5], "a: global_pool mode='lse' sharpness=0.1").slack(30.0, 1.0),
    case("global lse, sharpness 1", [2, 3, 4, 5], "a: global_pool mode='lse' sharpness=1.0"),
    // The gradient is exp(r (x - y)) with y as rounded: an error of r |y| / 2^24.
    case("global lse, nearly the maximum", [2, 3, 4, 5], "a: global_pool mode='lse' sharpness=60.0").slack(1.0, 10.0),
    case("global lse of large values", [2, 3, 4, 5], "a: global_pool mode='lse'").scaled(100.0).slack(1.0, 50.0),
    case(
        "global pools of one place",
        [2, 3, 1, 1],
        "
            a: global_pool mode='lse'
            b: global_pool mode='avg'
            c: global_pool mode='max'",
    ),
    // A sum of 1,640 values that nearly cancel.
    case("global avg on threads", [2, 8, 40, 41], "a: global_pool mode='avg'").slack(5.0, 1.0),
    case("global max on threads", [2, 8, 40, 41], "a: global_pool mode='max'"),
    // A sum of 1,640 exponentials.
    case("global lse on threads", [2, 8, 40, 41], "a: global_pool mode='lse'").slack(1.0, 4.0),
];

/// Functions of one value.
const POINTWISE: &[Case] = &[
    case("relu layer", [2, 3, 4, 5], "a: relu"),
    case("relu on threads", [2, 3, 61, 60], "a: relu"),
    case("sigmoid layer", [2, 3, 4, 5], "a: sigmoid"),
    // The gradient is y (1 - y) with y as rounded, 1 for most.
    case("sigmoid of large values", [2, 3, 4, 5], "a: sigmoid").scaled(60.0).slack(1.0, 3.0),
    case("sigmoid on threads", [2, 3, 61, 60], "a: sigmoid"),
    case("dropout in inference", [2, 3, 4, 5], "a: dropout rate=0.9"),
    case("dropout in training", [3, 3, 5, 7], "a: dropout").training(),
    case("dropout of little", [2, 4, 9, 9], "a: dropout rate=0.1").training(),
    case("dropout of nothing", [2, 3, 4, 5], "a: dropout rate=0.0").training(),
    case(
        "two dropouts",
        [2, 5, 3, 3],
        "
            a: dropout rate=0.25
            b: conv filters=3 kernel=1
            c: dropout",
    )
    .training(),
];

/// Functions along channels.
const CHANNELS: &[Case] = &[
    case("lrn by default", [2, 7, 3, 4], "a: lrn").scaled(10.0),
    case("lrn 5", [2, 7, 4, 3], "a: lrn size=5 alpha=0.7 beta=0.75 k=1.5"),
    case("lrn 4, not symmetric", [2, 7, 4, 3], "a: lrn size=4 alpha=0.5 beta=0.6 k=2.0"),
    case("lrn 2", [1, 5, 3, 3], "a: lrn size=2 alpha=1.0 beta=0.75 k=1.0"),
    case("lrn 1", [2, 4, 3, 3], "a: lrn size=1 alpha=1.0 beta=0.5 k=1.0"),
    case("lrn wider than the channels", [2, 3, 4, 3], "a: lrn size=9 alpha=2.0 beta=0.75 k=0.5"),
    case("lrn of one channel", [2, 1, 4, 3], "a: lrn size=5 alpha=1.0"),
    case("lrn without k", [2, 6, 3, 3], "a: lrn size=3 alpha=3.0 beta=0.5 k=0.0"),
    case("lrn without alpha", [2, 4, 3, 3], "a: lrn alpha=0.0 k=2.0"),
    case("lrn without beta", [2, 4, 3, 3], "a: lrn alpha=1.0 beta=0.0"),
    case("lrn of one pack, or two", [2, 8, 3, 4], "a: lrn alpha=0.7 k=1.5"),
    case("lrn of several packs", [2, 32, 3, 2], "a: lrn alpha=2.0 beta=0.6 k=0.5"),
    case("lrn 3 of several packs", [2, 16, 3, 2], "a: lrn size=3 alpha=2.0"),
    case("softmax", [2, 5, 3, 4], "a: softmax"),
    case("softmax of many channels", [3, 37, 2, 1], "a: softmax"),
    case("softmax of many packs", [2, 264, 1, 2], "a: softmax"),
    case("softmax of one channel", [2, 1, 3, 4], "a: softmax"),
    case("softmax of large values", [2, 5, 3, 4], "a: softmax").around(200.0),
    case("softmax of very small values", [2, 5, 3, 4], "a: softmax").around(-200.0),
    case("softmax on threads", [2, 4, 50, 51], "a: softmax"),
];

/// Linear layers: files flatten C, H, W.
const LINEAR: &[Case] = &[
    case("linear", [3, 3, 2, 4], "a: linear outputs=5"),
    case("linear, one by one", [1, 1, 1, 1], "a: linear outputs=1"),
    case("linear without bias", [2, 4, 3, 3], "a: linear outputs=6 bias=false"),
    case(
        "linear on linear",
        [3, 2, 3, 2],
        "
            a: linear outputs=10 activation='relu'
            b: linear outputs=4 activation='sigmoid'",
    ),
    case(
        "linear over a map made by conv",
        [2, 2, 5, 6],
        "
            a: conv filters=3 kernel=2 activation='relu'
            b: linear outputs=4",
    ),
    case("linear, many outputs, one image", [1, 3, 2, 5], "a: linear outputs=200"),
    case("linear, many images", [600, 2, 1, 2], "a: linear outputs=3").slack(1.0, 3.0),
];

/// Values that several layers read, and layers that read several values.
const BRANCHES: &[Case] = &[
    case(
        "concat",
        [2, 3, 5, 4],
        "
            a: conv filters=2 kernel=1
            b: conv filters=4 kernel=3 pad=1 from='input'
            c: concat from=['b','input','a']",
    ),
    case("concat of one", [2, 3, 4, 4], "a: concat"),
    case(
        "concat in packs",
        [2, 8, 3, 4],
        "
            a: sigmoid
            b: max_pool kernel=3 stride=1 pad=1 from='input'
            c: concat from=['a','input','b']",
    ),
    case(
        "concat of a value with itself",
        [2, 2, 4, 3],
        "
            a: conv filters=2 kernel=2
            b: concat from=['a','a','a']
            c: conv filters=3 kernel=1",
    ),
    case(
        "concat of ten",
        [1, 2, 3, 3],
        "
            a: relu
            b: concat from=['a','input','a','input','a','input','a','input','a','input']",
    ),
    case(
        "fan-out to two",
        [2, 2, 6, 6],
        "
            a: conv filters=3 kernel=3 activation='relu'
            b: conv filters=2 kernel=3
            c: max_pool kernel=3 stride=1 from='a'
            d: concat from=['b','c']",
    ),
    case(
        "fan-out to four, at different depths",
        [2, 2, 5, 5],
        "
            a: conv filters=2 kernel=1
            b: relu
            c: sigmoid from='a'
            d: conv filters=2 kernel=3 pad=1 from='b'
            e: lrn from='a'
            f: concat from=['a','b','c','d','e']",
    ),
    case(
        "fan-out of the input",
        [2, 3, 6, 5],
        "
            a: avg_pool kernel=2
            b: max_pool kernel=2 from='input'
            c: conv filters=2 kernel=2 stride=2 from='input'
            d: concat from=['a','b','c']",
    ),
    case(
        "a chain of branches",
        [2, 2, 5, 5],
        "
            a: conv filters=2 kernel=3 pad=1
            b: concat from=['a','input']
            c: conv filters=2 kernel=3 pad=1
            d: concat from=['c','b']
            e: conv filters=2 kernel=3 pad=1
            f: concat from=['e','d']
            g: linear outputs=3",
    ),
    case(
        "a branch that nobody reads",
        [2, 2, 4, 4],
        "
            a: conv filters=3 kernel=2 activation='relu'
            b: conv filters=2 kernel=1
            c: linear outputs=3 from='a'",
    ),
];

/// Losses.
const LOSSES: &[Case] = &[
    case("softmax cross-entropy", [5, 7, 1, 1], "a: softmax_cross_entropy"),
    case(
        "softmax cross-entropy of linear",
        [4, 3, 2, 2],
        "
            a: linear outputs=6
            b: softmax_cross_entropy weight=0.5",
    ),
    case("softmax cross-entropy of a map", [2, 4, 3, 5], "a: softmax_cross_entropy"),
    case("softmax cross-entropy of large values", [6, 5, 1, 1], "a: softmax_cross_entropy").scaled(100.0),
    case("softmax cross-entropy of many classes", [5, 264, 1, 1], "a: softmax_cross_entropy"),
    case("softmax cross-entropy in several blocks", [2, 37, 5, 7], "a: softmax_cross_entropy"),
    case("sigmoid cross-entropy", [5, 7, 1, 1], "a: sigmoid_cross_entropy"),
    case("sigmoid cross-entropy in several blocks", [13, 89, 1, 1], "a: sigmoid_cross_entropy"),
    case(
        "sigmoid cross-entropy of linear",
        [4, 3, 2, 2],
        "
            a: linear outputs=7
            b: sigmoid_cross_entropy weight=3.0",
    ),
    case("sigmoid cross-entropy of a map", [2, 4, 3, 5], "a: sigmoid_cross_entropy"),
    case("sigmoid cross-entropy of large values", [6, 5, 1, 1], "a: sigmoid_cross_entropy").scaled(60.0),
    case("similarity", [8, 6, 1, 1], "a: similarity"),
    case("similarity in packs", [9, 16, 1, 1], "a: similarity"),
    case("similarity in several blocks", [40, 37, 1, 1], "a: similarity"),
    case("similarity of a map", [7, 2, 3, 2], "a: similarity weight=0.25"),
    // The gradient is a difference of sums, which round with the middle.
    case("similarity of features that are close", [8, 6, 1, 1], "a: similarity")
        .around(50.0)
        .scaled(0.05)
        .slack(1.0, 300.0),
    case("similarity of one image: no pair", [1, 6, 1, 1], "a: similarity"),
    case(
        "two losses",
        [6, 3, 2, 2],
        "
            a: linear outputs=5 activation='sigmoid'
            b: linear outputs=4
            c: softmax_cross_entropy
            d: similarity from='a' weight=0.1",
    ),
    case(
        "a loss beside an output",
        [3, 2, 3, 3],
        "
            a: conv filters=3 kernel=2
            b: sigmoid_cross_entropy
            c: conv filters=2 kernel=1 from='a'",
    ),
];

/// Whole nets, small. Rounding adds up over many layers, in sums that may cancel.
const NETS: &[Case] = &[
    case(
        "ANet",
        [2, 1, 22, 22],
        "
            c1: conv filters=2 kernel=3 activation='relu'
            p1: max_pool kernel=2
            c3: local_conv filters=2 kernel=2 grid=3 window='halo' activation='relu'
            p3: max_pool kernel=3 stride=3
            c4: local_conv filters=2 kernel=2 grid=2 span=2 window='valid' activation='relu'
            fc: linear outputs=5 activation='relu'
            tags: linear outputs=3
            loss: sigmoid_cross_entropy",
    )
    .slack(10.0, 10.0),
    case(
        "LNet",
        [2, 3, 31, 29],
        "
            c1: conv filters=4 kernel=5 stride=2 activation='relu'
            n1: lrn alpha=0.5
            p1: max_pool kernel=3 stride=2
            c2: conv filters=4 kernel=3 pad=1 groups=2 activation='relu'
            head: conv filters=3 kernel=1
            tags: global_pool mode='lse'
            loss: sigmoid_cross_entropy",
    )
    .slack(10.0, 10.0),
    case(
        "identities",
        [6, 1, 10, 10],
        "
            c1: conv filters=3 kernel=3 activation='relu'
            p1: max_pool kernel=2
            drop: dropout rate=0.3
            fc: linear outputs=6 activation='relu'
            ids: linear outputs=4
            loss: softmax_cross_entropy
            near: similarity from='fc' weight=0.05",
    )
    .training()
    .slack(10.0, 10.0),
];

#[test]
fn every_layer_type_has_a_case() {
    let kinds: Vec<String> = all().iter().flat_map(|case| case.spec().layers).map(|layer| layer.kind).collect();
    for (name, _) in OPERATIONS {
        assert!(kinds.iter().any(|kind| kind == name), "no case has a layer of type {name}");
    }
}

#[test]
fn every_case_has_a_name_of_its_own() {
    let mut names: Vec<&str> = all().iter().map(|case| case.name).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

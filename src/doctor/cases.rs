//! The cases: small nets, one per operation and path through its kernels. A net is written in short, one layer a line:
//! `name: type key=value ...`, values as in TOML without spaces.

use crate::Result;
use crate::device::Convolution;
use crate::net::{Net, Spec};

/// One case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    /// Samples, channels, height, width.
    pub input: [usize; 4],
    pub layers: &'static str,
    /// How much larger than the precision's tolerance errors may be: sums of many terms round more.
    pub slack: f64,
    /// Random masks are drawn.
    pub training: bool,
    /// Also with windows written out.
    pub im2col: bool,
}

const fn case(name: &'static str, input: [usize; 4], layers: &'static str) -> Case {
    Case { name, input, layers, slack: 1.0, training: false, im2col: false }
}

const fn filters(name: &'static str, input: [usize; 4], layers: &'static str) -> Case {
    Case { im2col: true, ..case(name, input, layers) }
}

impl Case {
    const fn slack(self, slack: f64) -> Self {
        Self { slack, ..self }
    }

    const fn training(self) -> Self {
        Self { training: true, ..self }
    }

    pub fn algorithms(&self) -> &'static [Convolution] {
        if self.im2col { &[Convolution::Implicit, Convolution::Im2col] } else { &[Convolution::Implicit] }
    }

    pub fn net(&self) -> Result<Net> {
        net(self.name, self.input, self.layers)
    }
}

/// A net in short.
pub fn net(name: &str, [_, c, h, w]: [usize; 4], layers: &str) -> Result<Net> {
    let mut text = format!("name = \"doctor\"\ninput = [{c}, {h}, {w}]\n");
    for line in layers.lines().map(str::trim).filter(|line| !line.is_empty()) {
        let (layer, rest) = line.split_once(": ").unwrap_or((line, ""));
        let mut words = rest.split_whitespace();
        text += &format!("[[layer]]\nname = '{layer}'\ntype = '{}'\n", words.next().unwrap_or(""));
        words.for_each(|word| text += &format!("{word}\n"));
    }
    Net::new(Spec::parse(&text, name)?)
}

/// All cases. Sums of 512 terms and more are cut into parts, whose sums have kernels of their own.
pub const CASES: &[Case] = &[
    filters("conv", [2, 3, 7, 6], "a: conv filters=5 kernel=3 pad=1 activation='relu'"),
    filters("conv, strided, in groups", [2, 8, 9, 7], "a: conv filters=16 kernel=3 stride=2 pad=1 groups=2"),
    filters("conv, sigmoid, no bias", [2, 8, 6, 5], "a: conv filters=8 kernel=2 bias=false activation='sigmoid'"),
    filters("conv, long sums", [1, 64, 5, 6], "a: conv filters=72 kernel=3").slack(4.0),
    filters("conv, many pixels", [1, 2, 25, 24], "a: conv filters=3 kernel=2").slack(8.0),
    filters("conv 1x1", [2, 16, 5, 4], "a: conv filters=24 kernel=1 activation='relu'"),
    filters(
        "local_conv, halo",
        [2, 4, 8, 8],
        "a: local_conv filters=6 kernel=3 grid=3 window='halo' activation='relu'",
    ),
    filters("local_conv, valid", [2, 8, 9, 9], "a: local_conv filters=16 kernel=2 grid=2 span=2 window='valid'"),
    filters("local_conv, unshared", [2, 2, 5, 6], "a: local_conv filters=3 kernel=2 grid=[4,5] window='halo'"),
    filters("local_conv, long sums", [1, 130, 6, 6], "a: local_conv filters=3 kernel=3 grid=2 window='halo'")
        .slack(4.0),
    case("linear", [3, 5, 3, 2], "a: linear outputs=7 activation='relu'"),
    case("linear, long sums", [2, 600, 1, 1], "a: linear outputs=520").slack(4.0),
    case("linear, many samples", [600, 3, 1, 1], "a: linear outputs=4").slack(8.0),
    case("max_pool", [2, 9, 8, 7], "a: max_pool kernel=3 stride=2 pad=1 ceil=true"),
    case("avg_pool", [2, 9, 8, 7], "a: avg_pool kernel=3 stride=2 pad=1 ceil=true"),
    case("global_pool max", [2, 5, 6, 7], "a: global_pool mode='max'"),
    case("global_pool avg", [2, 5, 6, 7], "a: global_pool mode='avg'").slack(4.0),
    case("global_pool lse", [2, 5, 6, 7], "a: global_pool mode='lse'").slack(4.0),
    case("lrn", [2, 9, 4, 3], "a: lrn size=5 alpha=0.7 beta=0.75 k=1.5").slack(2.0),
    case("relu", [2, 3, 5, 7], "a: relu"),
    case("sigmoid", [2, 3, 5, 7], "a: sigmoid").slack(2.0),
    case("dropout", [3, 3, 5, 7], "a: dropout rate=0.4").training(),
    case("softmax", [2, 7, 3, 4], "a: softmax").slack(2.0),
    case("concat", [2, 8, 3, 4], "a: relu\nb: concat from=['a','input','a']"),
    case("a value that two read", [2, 4, 5, 5], "a: relu\nb: sigmoid from='input'\nc: concat from=['a','b']")
        .slack(2.0),
    case("a layer that nobody reads", [2, 4, 3, 3], "a: linear outputs=3\nb: relu from='input'"),
    case("softmax_cross_entropy", [5, 7, 2, 1], "a: softmax_cross_entropy weight=0.5").slack(4.0),
    case("sigmoid_cross_entropy", [5, 7, 2, 1], "a: sigmoid_cross_entropy weight=3.0").slack(4.0),
    case("similarity", [7, 6, 1, 1], "a: similarity weight=0.1").slack(8.0),
];

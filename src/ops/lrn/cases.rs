//! Cases of local response normalisation.

use crate::ops::cases::{Case, case};

pub const LRN: &[Case] = &[
    case("lrn by default", [2, 7, 3, 4], "a: lrn").scaled(10.0),
    case("lrn 5", [2, 7, 4, 3], "a: lrn size=5 alpha=0.7 beta=0.75 k=1.5").quick(),
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
];

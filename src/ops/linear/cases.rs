//! Cases of linear layers: files flatten C, H, W.

use crate::ops::cases::{Case, case};

pub const LINEAR: &[Case] = &[
    case("linear", [3, 3, 2, 4], "a: linear outputs=5").quick(),
    case("linear, one by one", [1, 1, 1, 1], "a: linear outputs=1"),
    case("linear without bias", [2, 4, 3, 3], "a: linear outputs=6 bias=false"),
    case(
        "linear on linear",
        [3, 2, 3, 2],
        "
            a: linear outputs=10 activation='relu'
            b: linear outputs=4 activation='sigmoid'",
    )
    .quick(),
    case(
        "linear over a map made by conv",
        [2, 2, 5, 6],
        "
            a: conv filters=3 kernel=2 activation='relu'
            b: linear outputs=4",
    ),
    case("linear, many outputs, one image", [1, 3, 2, 5], "a: linear outputs=200"),
    case("linear, sums in parts", [2, 600, 1, 1], "a: linear outputs=520").quick(),
    case("linear, many images", [600, 2, 1, 2], "a: linear outputs=3").slack(1.0, 3.0).quick(),
];

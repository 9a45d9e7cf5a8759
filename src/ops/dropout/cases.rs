//! Cases of dropout.

use crate::ops::cases::{Case, case};

pub const DROPOUT: &[Case] = &[
    case("dropout in inference", [2, 3, 4, 5], "a: dropout rate=0.9"),
    case("dropout in training", [3, 3, 5, 7], "a: dropout").training().quick(),
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

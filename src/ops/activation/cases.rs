//! Cases of activation layers.

use crate::ops::cases::{Case, case};

pub const RELU: &[Case] =
    &[case("relu layer", [2, 3, 4, 5], "a: relu").quick(), case("relu on threads", [2, 3, 61, 60], "a: relu")];

pub const SIGMOID: &[Case] = &[
    case("sigmoid layer", [2, 3, 4, 5], "a: sigmoid").quick(),
    // The gradient is y (1 - y) with y as rounded, and y is 1 for most values.
    case("sigmoid of large values", [2, 3, 4, 5], "a: sigmoid")
        .scaled(60.0)
        .slack(1.0, 3.0)
        .exact("most outputs round to 1"),
    case("sigmoid on threads", [2, 3, 61, 60], "a: sigmoid"),
];

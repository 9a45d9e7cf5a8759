//! Cases of losses.

use crate::ops::cases::{Case, case};

pub const SOFTMAX_CROSS_ENTROPY: &[Case] = &[
    case("softmax cross-entropy", [5, 7, 1, 1], "a: softmax_cross_entropy"),
    case(
        "softmax cross-entropy of linear",
        [4, 3, 2, 2],
        "
            a: linear outputs=6
            b: softmax_cross_entropy weight=0.5",
    ),
    case("softmax cross-entropy of a map", [2, 4, 3, 5], "a: softmax_cross_entropy").quick(),
    case("softmax cross-entropy of large values", [6, 5, 1, 1], "a: softmax_cross_entropy").scaled(100.0),
    case("softmax cross-entropy of many classes", [5, 264, 1, 1], "a: softmax_cross_entropy"),
    case("softmax cross-entropy in several blocks", [2, 37, 5, 7], "a: softmax_cross_entropy"),
];

pub const SIGMOID_CROSS_ENTROPY: &[Case] = &[
    case("sigmoid cross-entropy", [5, 7, 1, 1], "a: sigmoid_cross_entropy"),
    case("sigmoid cross-entropy in several blocks", [13, 89, 1, 1], "a: sigmoid_cross_entropy"),
    case(
        "sigmoid cross-entropy of linear",
        [4, 3, 2, 2],
        "
            a: linear outputs=7
            b: sigmoid_cross_entropy weight=3.0",
    ),
    case("sigmoid cross-entropy of a map", [2, 4, 3, 5], "a: sigmoid_cross_entropy").quick(),
    case("sigmoid cross-entropy of large values", [6, 5, 1, 1], "a: sigmoid_cross_entropy").scaled(60.0),
];

pub const SIMILARITY: &[Case] = &[
    case("similarity", [8, 6, 1, 1], "a: similarity").quick(),
    case("similarity in packs", [9, 16, 1, 1], "a: similarity"),
    case("similarity in several blocks", [40, 37, 1, 1], "a: similarity"),
    case("similarity of a map", [7, 2, 3, 2], "a: similarity weight=0.25"),
    // The gradient is a difference of sums, which round relative to the middle.
    case("similarity of features that are close", [8, 6, 1, 1], "a: similarity")
        .around(50.0)
        .scaled(0.05)
        .exact("rounded, the features are the same")
        .slack(1.0, 300.0),
    case("similarity of one image: no pair", [1, 6, 1, 1], "a: similarity").zero(&["a", "input"]),
];

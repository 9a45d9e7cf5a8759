//! Cases of softmax along channels.

use crate::ops::cases::{Case, case};

pub const SOFTMAX: &[Case] = &[
    case("softmax", [2, 5, 3, 4], "a: softmax").quick(),
    case("softmax of many channels", [3, 37, 2, 1], "a: softmax"),
    case("softmax of many packs", [2, 264, 1, 2], "a: softmax"),
    case("softmax of one channel", [2, 1, 3, 4], "a: softmax").zero(&["input"]),
    case("softmax of large values", [2, 5, 3, 4], "a: softmax").around(200.0),
    case("softmax of very small values", [2, 5, 3, 4], "a: softmax").around(-200.0),
    case("softmax on threads", [2, 4, 50, 51], "a: softmax"),
];

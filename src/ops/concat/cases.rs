//! Cases of concatenation along channels.

use crate::ops::cases::{Case, case};

pub const CONCAT: &[Case] = &[
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
    )
    .quick(),
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
];

//! Cases of group normalisation.

use crate::ops::cases::{Case, case};

pub const GROUP_NORM: &[Case] = &[
    case("group_norm", [2, 6, 5, 3], "a: group_norm groups=3").quick(),
    case("group_norm of one group", [3, 7, 4, 3], "a: group_norm groups=1"),
    case("group_norm of a group per channel", [2, 5, 4, 5], "a: group_norm groups=5"),
    case("group_norm of one channel", [2, 1, 5, 4], "a: group_norm groups=1"),
    case("group_norm of one sample", [1, 6, 3, 7], "a: group_norm groups=2"),
    case("group_norm at one place", [3, 24, 1, 1], "a: group_norm groups=2"),
    case("group_norm of packs", [2, 48, 3, 5], "a: group_norm groups=3 eps=0.01").quick(),
    case("group_norm of more packs than a block has across", [2, 264, 3, 2], "a: group_norm groups=1"),
    case("group_norm of more channels than a block has across", [2, 74, 3, 3], "a: group_norm groups=2"),
    case("group_norm of more places than a block has down", [2, 6, 19, 17], "a: group_norm groups=3"),
    case("group_norm with a large eps", [2, 6, 4, 3], "a: group_norm groups=2 eps=1.0"),
    // The mean is 50 times the deviation: a mean of squares would leave nothing.
    case("group_norm far from zero", [2, 6, 5, 4], "a: group_norm groups=2").around(60.0),
    case("group_norm of small values", [2, 6, 5, 4], "a: group_norm groups=2 eps=1e-6").scaled(0.01),
    // Each value is its own mean, and its gradient would be rounding alone, were it not for the other branch.
    case(
        "group_norm of single values",
        [2, 3, 1, 1],
        "
            a: group_norm groups=3
            b: concat from=['a','input']",
    )
    .zero(&["a.weight"]),
    case(
        "group_norm in a net",
        [2, 3, 7, 8],
        "
            a: conv filters=6 kernel=3 bias=false
            b: group_norm groups=3
            c: sigmoid
            d: linear outputs=3",
    ),
    case("group_norm on threads", [3, 4, 30, 31], "a: group_norm groups=2"),
];

//! Cases of global pools: on a GPU a block owns 32 packs or channels.

use crate::ops::cases::{Case, case};

pub const GLOBAL_POOL: &[Case] = &[
    case("global max", [3, 4, 5, 3], "a: global_pool mode='max'").quick(),
    case("global avg", [3, 4, 5, 3], "a: global_pool mode='avg'").quick(),
    case("global lse", [3, 4, 5, 3], "a: global_pool mode='lse'").quick(),
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

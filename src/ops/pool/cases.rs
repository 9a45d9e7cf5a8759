//! Cases of pools. Above 16 Ki values they run on several threads. On a GPU a pack is 4 or 8 channels, by storage type.

use crate::ops::cases::{Case, case};

pub const MAX_POOL: &[Case] = &[
    case("max 2/2", [2, 3, 6, 8], "a: max_pool kernel=2"),
    case("max 2/2 drops an edge", [2, 3, 7, 5], "a: max_pool kernel=2"),
    case("max 3/2 overlapping", [2, 3, 9, 7], "a: max_pool kernel=3 stride=2"),
    case("max 3/1", [1, 1, 5, 6], "a: max_pool kernel=3 stride=1"),
    case("max with gaps", [2, 2, 8, 7], "a: max_pool kernel=2 stride=3"),
    case("max padded", [2, 3, 7, 6], "a: max_pool kernel=3 stride=2 pad=1"),
    case("max ceil", [2, 3, 8, 6], "a: max_pool kernel=3 stride=2 ceil=true"),
    case("max ceil, padded, per axis", [2, 2, 9, 10], "a: max_pool kernel=[3,2] stride=[2,3] pad=[1,0] ceil=true")
        .quick(),
    case("max ceil drops a window of padding", [2, 2, 6, 7], "a: max_pool kernel=2 stride=3 pad=1 ceil=true"),
    case("max of the whole map", [2, 3, 4, 5], "a: max_pool kernel=[4,5]"),
    case("max on threads", [1, 32, 48, 49], "a: max_pool kernel=3 stride=2"),
    case("max in packs", [1, 16, 6, 5], "a: max_pool kernel=3 stride=2 pad=1").quick(),
    case("max in packs, apart", [2, 16, 7, 6], "a: max_pool kernel=2").quick(),
    case(
        "max over a rectified layer",
        [2, 3, 8, 9],
        "
            c: conv filters=8 kernel=3 activation='relu'
            a: max_pool kernel=2
            d: conv filters=8 kernel=2 activation='relu'
            b: max_pool kernel=2 stride=1",
    )
    .slack(1.0, 3.0)
    .quick(),
    case("max in packs of f32", [1, 12, 6, 5], "a: max_pool kernel=[2,3] stride=[3,1] ceil=true"),
    case(
        "pool of pools",
        [2, 2, 13, 12],
        "
            a: max_pool kernel=3 stride=2
            b: avg_pool kernel=2 stride=1
            c: max_pool kernel=2",
    ),
];

pub const AVG_POOL: &[Case] = &[
    case("avg 2/2", [2, 3, 6, 8], "a: avg_pool kernel=2"),
    case("avg 3/2 overlapping", [2, 3, 9, 7], "a: avg_pool kernel=3 stride=2"),
    case("avg with gaps", [2, 2, 8, 7], "a: avg_pool kernel=2 stride=3"),
    case("avg padded", [2, 3, 7, 6], "a: avg_pool kernel=3 stride=2 pad=1"),
    case("avg ceil", [2, 3, 8, 6], "a: avg_pool kernel=3 stride=2 ceil=true"),
    case("avg ceil, padded, per axis", [2, 2, 9, 10], "a: avg_pool kernel=[2,3] stride=[3,2] pad=1 ceil=true").quick(),
    case("avg ceil drops a window of padding", [2, 2, 6, 7], "a: avg_pool kernel=2 stride=3 pad=1 ceil=true"),
    case("avg of the whole map", [2, 3, 4, 5], "a: avg_pool kernel=[4,5]"),
    case("avg on threads", [3, 30, 29, 28], "a: avg_pool kernel=2 stride=1"),
    case("avg in packs", [2, 16, 9, 7], "a: avg_pool kernel=3 stride=2 pad=1").quick(),
    case("avg in packs of f32", [2, 12, 6, 5], "a: avg_pool kernel=[2,3] stride=[3,1] ceil=true"),
];

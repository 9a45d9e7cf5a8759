//! Cases of locally shared convolution: filters shared within cells, up to one bank per pixel. The input's side is
//! (grid + span - 1) cell with window "valid", and kernel - 1 more with "halo".

use crate::ops::cases::{Case, case};

pub const LOCAL_CONV: &[Case] = &[
    case("local_conv: grid 1 is a convolution", [2, 2, 6, 7], "a: local_conv filters=3 kernel=3 grid=1 window='halo'"),
    case("local_conv: grid 1, valid", [2, 2, 6, 7], "a: local_conv filters=3 kernel=3 grid=1 window='valid'"),
    case("local_conv: grid 2, halo", [2, 3, 8, 8], "a: local_conv filters=4 kernel=3 grid=2 window='halo'"),
    case("local_conv: windows in parts", [2, 130, 6, 6], "a: local_conv filters=2 kernel=3 grid=2 window='halo'")
        .quick(),
    case(
        "local_conv: grid 3, halo",
        [2, 2, 8, 8],
        "a: local_conv filters=3 kernel=3 grid=3 window='halo' activation='relu'",
    )
    .quick(),
    case("local_conv: grid 4, halo", [1, 1, 9, 9], "a: local_conv filters=2 kernel=2 grid=4 window='halo'"),
    case(
        "local_conv: grid 2, span 2, halo",
        [2, 2, 11, 11],
        "a: local_conv filters=3 kernel=3 grid=2 span=2 window='halo'",
    ),
    case(
        "local_conv: grid 2, span 3, halo",
        [2, 1, 9, 9],
        "a: local_conv filters=2 kernel=2 grid=2 span=3 window='halo' activation='sigmoid'",
    ),
    case(
        "local_conv: grid 2, span 1, valid",
        [2, 2, 6, 8],
        "a: local_conv filters=3 kernel=2 grid=2 span=1 window='valid'",
    ),
    case(
        "local_conv: grid 2, span 2, valid",
        [2, 3, 9, 9],
        "a: local_conv filters=4 kernel=2 grid=2 span=2 window='valid' activation='relu'",
    ),
    case(
        "local_conv: grid 3, span 2, valid",
        [1, 2, 8, 8],
        "a: local_conv filters=2 kernel=3 grid=3 span=2 window='valid'",
    ),
    case(
        "local_conv: grid 4, span 3, valid",
        [1, 1, 12, 12],
        "a: local_conv filters=2 kernel=3 grid=4 span=3 window='valid' bias=false",
    ),
    case(
        "local_conv: kernel as large as the cell",
        [2, 2, 6, 6],
        "a: local_conv filters=2 kernel=3 grid=2 window='valid'",
    ),
    case(
        "local_conv: another number per axis, halo",
        [2, 2, 7, 14],
        "a: local_conv filters=3 kernel=[2,3] grid=[2,3] span=[1,2] window='halo'",
    ),
    case(
        "local_conv: another number per axis, valid",
        [2, 2, 8, 9],
        "a: local_conv filters=3 kernel=[2,1] grid=[1,3] span=[2,1] window='valid'",
    ),
    case("local_conv: 1x1 filters", [2, 3, 4, 6], "a: local_conv filters=2 kernel=1 grid=2 window='halo'"),
    case("local_conv: unshared", [2, 2, 6, 6], "a: local_conv filters=2 kernel=3 grid=4 window='halo'"),
    case(
        "local_conv: unshared, not square",
        [2, 1, 4, 7],
        "a: local_conv filters=3 kernel=[2,3] grid=[3,5] window='halo' bias=false",
    )
    .quick(),
    case(
        "local_conv: tiles that end inside a block",
        [4, 1, 26, 26],
        "a: local_conv filters=2 kernel=3 grid=2 window='halo'",
    )
    .slack(1.0, 3.0),
    case(
        "local_conv: whole packs, halo",
        [2, 16, 8, 8],
        "a: local_conv filters=24 kernel=3 grid=3 window='halo' activation='relu'",
    ),
    case(
        "local_conv: whole packs, valid",
        [3, 8, 9, 9],
        "a: local_conv filters=72 kernel=2 grid=2 span=2 window='valid'",
    )
    .quick(),
    case(
        "local_conv: whole packs, unshared",
        [2, 8, 5, 6],
        "a: local_conv filters=8 kernel=2 grid=[4,5] window='halo'",
    ),
    case("local_conv: many filters", [1, 2, 4, 4], "a: local_conv filters=140 kernel=2 grid=2 window='valid'"),
    case(
        "local_conv: local on local",
        [2, 2, 12, 12],
        "
            a: local_conv filters=2 kernel=3 grid=2 window='halo' activation='relu'
            b: local_conv filters=2 kernel=2 grid=4 span=2 window='valid'",
    ),
];

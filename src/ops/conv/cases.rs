//! Cases of ordinary convolution.

use crate::ops::cases::{Case, case};

/// Pixels that are equal in 16 bits are not in f32.
const MOVED: &str = "a maximum moves where the values below it are rounded";

/// A tile of work sums at most 512 pixels, and filters are split into 64s.
pub const CONV: &[Case] = &[
    case("conv: 1x1", [2, 5, 4, 3], "a: conv filters=6 kernel=1").quick(),
    case("conv: 1x1 with a stride", [2, 3, 5, 5], "a: conv filters=4 kernel=1 stride=2"),
    case("conv: 1x1 in groups", [2, 6, 3, 4], "a: conv filters=4 kernel=1 groups=2"),
    case("conv: 1x1 without bias, one pixel", [1, 3, 1, 1], "a: conv filters=2 kernel=1 bias=false"),
    case("conv: one image of one channel", [1, 1, 5, 5], "a: conv filters=1 kernel=3"),
    case("conv: padded", [2, 3, 6, 5], "a: conv filters=4 kernel=3 pad=1").quick(),
    case("conv: padded beyond the kernel", [2, 2, 3, 4], "a: conv filters=3 kernel=2 pad=3"),
    case("conv: a stride that drops an edge", [2, 2, 9, 8], "a: conv filters=3 kernel=3 stride=2"),
    case("conv: a stride over the kernel", [2, 2, 8, 9], "a: conv filters=3 kernel=2 stride=3"),
    case("conv: another number per axis", [2, 3, 7, 8], "a: conv filters=5 kernel=[3,2] stride=[1,2] pad=[0,1]"),
    case("conv: a row", [2, 2, 3, 9], "a: conv filters=3 kernel=[1,5] pad=[0,2]"),
    case("conv: a column with a stride", [2, 2, 9, 3], "a: conv filters=3 kernel=[5,1] stride=[2,1] pad=[1,0]"),
    case("conv: as large as the image", [3, 2, 4, 5], "a: conv filters=3 kernel=[4,5]"),
    case("conv: even kernel", [2, 3, 6, 7], "a: conv filters=2 kernel=4 pad=2 stride=2"),
    case("conv: three groups", [2, 6, 5, 4], "a: conv filters=9 kernel=2 groups=3"),
    case(
        "conv: two groups, padded, strided",
        [2, 4, 7, 6],
        "a: conv filters=6 kernel=3 stride=2 pad=1 groups=2 activation='relu'",
    ),
    case("conv: a group per channel", [1, 4, 6, 6], "a: conv filters=4 kernel=3 pad=1 groups=4"),
    case("conv: two filters per channel", [2, 3, 5, 5], "a: conv filters=6 kernel=3 groups=3 bias=false"),
    case("conv: relu", [2, 3, 5, 6], "a: conv filters=4 kernel=3 activation='relu'").quick(),
    case("conv: sigmoid", [2, 3, 5, 6], "a: conv filters=4 kernel=3 activation='sigmoid'"),
    case("conv: no bias", [2, 3, 5, 6], "a: conv filters=4 kernel=3 bias=false").quick(),
    case("conv: AlexNet's first, small", [1, 3, 23, 19], "a: conv filters=4 kernel=11 stride=4"),
    // Sums over hundreds of pixels.
    case("conv: two tiles in one image", [1, 1, 30, 30], "a: conv filters=3 kernel=3").slack(1.0, 3.0).quick(),
    case("conv: a tile that ends inside an image", [5, 2, 13, 12], "a: conv filters=3 kernel=2 activation='relu'")
        .slack(1.0, 3.0),
    case("conv: tiles of 1x1", [3, 2, 17, 16], "a: conv filters=3 kernel=1").slack(1.0, 3.0),
    case("conv: many filters, one pixel", [1, 7, 2, 2], "a: conv filters=150 kernel=2"),
    case("conv: a window in parts", [1, 48, 7, 6], "a: conv filters=3 kernel=5 pad=2 activation='relu'").quick(),
    case(
        "conv: windows in parts, in groups, strided",
        [2, 90, 6, 5],
        "a: conv filters=4 kernel=5 pad=1 stride=2 groups=2",
    ),
    case("conv: many filters in groups", [1, 4, 2, 2], "a: conv filters=260 kernel=2 groups=2"),
    // Channels and filters in whole 16-byte packs; several tiles of pixels, of filters and of steps of the sum.
    case("conv: whole packs", [2, 16, 9, 8], "a: conv filters=72 kernel=3 pad=1 activation='relu'"),
    case("conv: whole packs, strided, in groups", [2, 32, 9, 7], "a: conv filters=16 kernel=3 stride=2 pad=1 groups=2")
        .quick(),
    case("conv: 1x1 of whole packs", [3, 40, 5, 9], "a: conv filters=136 kernel=1 activation='sigmoid'").quick(),
    case("conv: whole packs, windows in parts", [1, 64, 5, 6], "a: conv filters=72 kernel=3").quick(),
    case("conv: whole packs in, odd filters out", [1, 8, 7, 6], "a: conv filters=5 kernel=[2,3] stride=[1,2]"),
    // Few channels: in 16 bits pixels of four, in f32 lines of a window are unfolded, and filled up or whole packs as they are.
    case("conv: odd channels in, whole packs out", [2, 3, 12, 13], "a: conv filters=24 kernel=5 stride=2 pad=2")
        .quick(),
    case("conv: lines of whole packs", [2, 2, 9, 10], "a: conv filters=16 kernel=[3,4] stride=[2,1] pad=[1,2]").quick(),
    case(
        "conv: AlexNet's first, whole packs",
        [2, 3, 31, 27],
        "a: conv filters=16 kernel=11 stride=4 activation='relu'",
    )
    .slack(1.0, 3.0),
    case("conv: one channel", [3, 1, 12, 19], "a: conv filters=40 kernel=3 pad=1 activation='relu'").quick(),
    case("conv: four channels, filters in two tiles", [2, 4, 26, 9], "a: conv filters=72 kernel=[5,2] stride=3")
        .quick(),
    case("conv: three channels, 96 filters", [1, 3, 43, 52], "a: conv filters=96 kernel=11 stride=4 activation='relu'")
        .slack(1.0, 3.0)
        .quick(),
    case("conv: three channels, 104 filters", [1, 3, 9, 11], "a: conv filters=104 kernel=4 stride=[1,2] bias=false")
        .quick(),
    case("conv: a large window of two channels", [1, 2, 20, 21], "a: conv filters=8 kernel=[16,15] pad=[3,2]").quick(),
    case("conv: few channels, sigmoid", [2, 3, 8, 17], "a: conv filters=8 kernel=[1,7] activation='sigmoid'").quick(),
    // In training and inference these are one launch, with codes and without.
    case("few channels, pooled", [2, 3, 21, 19], "a: conv filters=40 kernel=5 activation='relu'\nb: max_pool kernel=2")
        .exact(MOVED)
        .quick(),
    case(
        "few channels, 64 filters",
        [1, 1, 9, 13],
        "a: conv filters=64 kernel=2 activation='relu'\nb: max_pool kernel=2",
    )
    .exact(MOVED)
    .quick(),
    case(
        "few channels, 96 filters, a large window",
        [3, 1, 30, 33],
        "
            a: conv filters=96 kernel=7 stride=[2,1] pad=3 activation='relu'
            b: max_pool kernel=2
            c: conv filters=8 kernel=3",
    )
    .exact(MOVED)
    .roundings(3)
    .quick(),
    case(
        "few channels, a large window, strided",
        [2, 1, 90, 91],
        "a: conv filters=24 kernel=[9,3] stride=4 pad=2 activation='relu'\nb: max_pool kernel=2",
    )
    .exact(MOVED)
    .slack(1.0, 3.0)
    .quick(),
    case("conv: lines in parts", [1, 7, 34, 9], "a: conv filters=8 kernel=[30,9]").quick(),
    case(
        "conv: a stack",
        [2, 2, 9, 9],
        "
            a: conv filters=3 kernel=3 activation='relu'
            b: conv filters=4 kernel=3 stride=2 activation='sigmoid'
            c: conv filters=2 kernel=3",
    )
    .roundings(4),
];

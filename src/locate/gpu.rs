//! Response maps and their summed-area tables on a GPU: kernels/sat.cu.

use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::Shape;
use crate::ops::gpu::{BLOCK, cover};

kernel_parameters! {
    ResponseParams: 32 { x: Ptr, response: Ptr, places: u64, c: u32, channel: i32 }
}

kernel_parameters! {
    SatParams: 40 { response: Ptr, table: Ptr, n: u32, h: u32, w: u32, fine: u32, floor: f32, unused: u32 }
}

/// Lanes of a warp, which work on one cell together.
const WARP: usize = 32;

/// Maps an activation `[n, h, w, c]` in the storage type to its response `[n, h, w]` in f32: one channel, or the mean of all.
pub fn record_response(map: Ptr, n: usize, shape: Shape, channel: Option<usize>, response: Ptr, to: &mut Recorder<'_>) {
    let places = n * shape.area();
    let channel_number = channel.map_or(-1, |channel| channel as i32);
    let parameters =
        ResponseParams { x: map, response, places: places as u64, c: shape.c as u32, channel: channel_number };
    let read = if channel.is_some() { places } else { places * shape.c };
    let bytes = read * to.precision().bytes() + 4 * places;
    let launch = Launch::new(to.stored("response"), cover(places * WARP), BLOCK, &parameters);
    to.launch(launch.work(read as u64, bytes as u64));
}

/// Maps responses `[n, h, w]` in f32 to tables `[n, h fine + 1, w fine + 1]` in f64: sums of the response above `floor`,
/// interpolated to `fine` points per cell.
pub fn record_summed_area(
    response: Ptr,
    n: usize,
    [h, w]: [usize; 2],
    fine: usize,
    floor: f32,
    table: Ptr,
    to: &mut Recorder<'_>,
) {
    let parameters =
        SatParams { response, table, n: n as u32, h: h as u32, w: w as u32, fine: fine as u32, floor, unused: 0 };
    let entries = n * (h * fine + 1) * (w * fine + 1);
    let (flops, bytes) = (8 * entries as u64, (4 * n * h * w + 8 * entries) as u64);
    to.launch(Launch::new("sat_rows_f32", [n * h * fine, 1, 1], BLOCK, &parameters).work(flops, bytes));
    let grid = cover(n * (w * fine + 1));
    let launch = Launch::new("sat_columns_f32", grid, BLOCK, &parameters);
    to.launch(launch.work(entries as u64, 16 * entries as u64));
}

//! Response maps, density peaks and views of faces on a GPU: kernels/locate.cu.

use crate::device::{Launch, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::Shape;
use crate::ops::gpu::{BLOCK, cover};

kernel_parameters! {
    ResponseParams: 32 { x: Ptr, response: Ptr, places: u64, c: u32, channel: i32 }
}

kernel_parameters! {
    /// The photo and what is wanted of it.
    PhotoRecord: 16 { w: u32, h: u32, least: f32, unused: u32 }
}

kernel_parameters! {
    /// A response map and its place on the photo.
    LevelRecord: 48 {
        /// Centre of cell (0, 0) in pixels of the photo, and from a cell to the next.
        x: f32, y: f32, step: f32,
        /// Natural logarithm of the width of the face that it responds to most, in pixels of the photo.
        size: f32,
        /// Its first cell in the group, and its cells down and across.
        first: u32, h: u32, w: u32,
        /// The cells inside the window and the photo, ends excluded.
        left: u32, right: u32, top: u32, bottom: u32,
        unused: u32,
    }
}

kernel_parameters! {
    /// A face in pixels of the photo; a width of 0 is no face.
    FaceRecord: 32 {
        x: f32, y: f32, width: f32, score: f32,
        /// The face, of those that the views were made for, around which it was found.
        from: u32,
        unused: [u32; 3],
    }
}

kernel_parameters! {
    ViewParams: 72 {
        photo: Ptr, faces_in: Ptr, zooms: Ptr, windows: Ptr, views: Ptr,
        faces: u32, levels: u32, pixels: f32, input: u32, cells: u32, first: f32, stride: f32, width: f32,
    }
}

kernel_parameters! {
    PeakParams: 88 {
        levels_in: Ptr, response: Ptr, points: Ptr, density: Ptr, ranks: Ptr, peaks: Ptr,
        groups: u32, levels: u32, points_in: u32, most: u32,
        floor: f32, position: f32, spread: f32, shift_x: f32, shift_y: f32,
        /// Of the best score of the peaks so far, below which a peak is no face.
        share: f32,
    }
}

kernel_parameters! {
    FollowParams: 48 { photo: Ptr, faces: Ptr, peaks: Ptr, found: Ptr, count: u32, most: u32, share: f32, same: f32 }
}

/// Lanes of a warp, which work on one cell together.
const WARP: usize = 32;
/// Faces that `locate_follow` has room for.
pub const MOST_FACES: usize = 64;
/// Bytes of a point; its density and its rank are four each.
pub const POINT: usize = 16;

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

/// Writes the windows and the levels of the views of `faces` faces at `levels` levels.
pub fn record_views(parameters: &ViewParams, to: &mut Recorder<'_>) {
    let views = parameters.faces as usize * parameters.levels as usize;
    let bytes = views * (size_of::<LevelRecord>() + 40);
    to.launch(Launch::new("locate_views_f32", cover(views), BLOCK, parameters).work(30 * views as u64, bytes as u64));
}

/// The density peaks of each group of responses.
pub fn record_peaks(parameters: &PeakParams, to: &mut Recorder<'_>) {
    let [groups, points] = [parameters.groups as usize, parameters.points_in as usize];
    let (cells, pairs) = (groups * points, (groups * points * points) as u64);
    for (kernel, flops) in
        [("locate_points_f32", cells as u64), ("locate_density_f32", 12 * pairs), ("locate_ranks_f32", 10 * pairs)]
    {
        to.launch(Launch::new(kernel, cover(cells), BLOCK, parameters).work(flops, ((POINT + 8) * cells) as u64));
    }
    // A mean shift has four steps and a sum.
    let most = u64::from(parameters.most);
    let launch = Launch::new("locate_peaks_f32", [groups, 1, 1], BLOCK, parameters);
    to.launch(launch.work(5 * 15 * most * cells as u64, ((POINT + 8) * cells) as u64));
}

/// The faces that were found around faces.
pub fn record_follow(parameters: &FollowParams, to: &mut Recorder<'_>) {
    let count = u64::from(parameters.count);
    let bytes = count * (2 + u64::from(parameters.most)) * size_of::<FaceRecord>() as u64;
    to.launch(Launch::new("locate_follow_f32", [1, 1, 1], MOST_FACES, parameters).work(12 * count * count, bytes));
}

//! A region of a photo as a picture of fixed size, and the crops of it that are used in training.

use super::photo::{Photo, Rect};

/// A region of a photo resampled to a fixed size, the frame, from which crops are cut.
#[derive(Debug, Clone, Copy)]
pub struct Frame {
    region: Rect,
    height: usize,
    width: usize,
}

impl Frame {
    /// `region` of `photo` (all of it if `None`) as a frame of `size` = [height, width].
    pub fn new(photo: &Photo, region: Option<Rect>, size: [usize; 2]) -> Self {
        Self { region: region.unwrap_or(photo.bounds()), height: size[0], width: size[1] }
    }

    /// Maps a rectangle in pixels of the frame to pixels of the photo.
    pub fn to_photo(&self, window: Rect) -> Rect {
        let (sx, sy) = (self.region.width / self.width as f32, self.region.height / self.height as f32);
        Rect::new(self.region.x + window.x * sx, self.region.y + window.y * sy, window.width * sx, window.height * sy)
    }

    /// Six crops of `height` x `width` of the frame, in the photo: top, middle and bottom, and mirrored (`true`).
    pub fn views(&self, height: usize, width: usize) -> Vec<(Rect, bool)> {
        let (slack, x) = (self.height - height, (self.width - width) / 2);
        let crop = |y: usize| self.to_photo(Rect::new(x as f32, y as f32, width as f32, height as f32));
        [0, slack / 2, slack].into_iter().flat_map(|y| [(crop(y), false), (crop(y), true)]).collect()
    }
}

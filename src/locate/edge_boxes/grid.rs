//! The baseline for edge boxes: windows placed evenly over the photo, independent of its content.

use crate::data::photo::Rect;

/// Heights of the windows over their widths: a square, and a head.
const ASPECTS: [f32; 2] = [1.0, 1.25];
/// Ratio of one size to the next: at the same position, squares of sides a and 1.5 a overlap by an intersection over union of
/// 0.44, and sizes in between by 0.67 or more.
const GROWTH: f32 = 1.5;

/// At most `count` windows on a photo of `height` x `width` pixels, largest first: square ones and ones 1.25 times as
/// high as wide, of sizes (square roots of areas) from `size[0]` to `size[1]`, shares of the photo's longer side, each
/// 1.5 times the other or less; of each size and aspect ratio rows and columns from border to border, steps the same
/// share of the window everywhere: the finest that `count` allows.
pub fn grid(height: usize, width: usize, size: [f32; 2], count: usize) -> Vec<Rect> {
    let longer = height.max(width) as f32;
    let scales = ((size[1] / size[0]).ln() / GROWTH.ln()).ceil().max(0.0);
    let mut shapes = Vec::new();
    for scale in (0..=scales as usize).rev() {
        let side = longer * size[0] * (size[1] / size[0]).powf(scale as f32 / scales.max(1.0));
        for aspect in ASPECTS {
            let (w, h) = (side / aspect.sqrt(), side * aspect.sqrt());
            if w <= width as f32 && h <= height as f32 {
                shapes.push((w, h));
            }
        }
    }
    let steps = |room: f32, length: f32, share: f32| (room / (share * length)).ceil() as usize + 1;
    let along = |w: f32, h: f32, share: f32| [steps(width as f32 - w, w, share), steps(height as f32 - h, h, share)];
    let total = |share: f32| shapes.iter().map(|&(w, h)| along(w, h, share).iter().product::<usize>()).sum::<usize>();
    // A small count may be exceeded even at the coarsest steps: then the largest windows are returned.
    let (mut coarse, mut fine) = (2.0 / size[0].max(1e-3), 0.0);
    for _ in 0..40 {
        let middle = (coarse + fine) / 2.0;
        if total(middle) <= count { coarse = middle } else { fine = middle }
    }
    let mut windows = Vec::new();
    for &(w, h) in &shapes {
        let [columns, rows] = along(w, h, coarse);
        let place = |i: usize, n: usize, room: f32| if n > 1 { room * i as f32 / (n - 1) as f32 } else { room / 2.0 };
        for row in 0..rows {
            for column in 0..columns {
                let (x, y) = (place(column, columns, width as f32 - w), place(row, rows, height as f32 - h));
                windows.push(Rect::new(x, y, w, h));
            }
        }
    }
    windows.truncate(count);
    windows
}

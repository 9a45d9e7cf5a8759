//! Background and surroundings of a synthetic face: clutter behind it, light, blur and sensor noise over everything.
//! The clutter contains what a detector could mistake for a face: ovals, skin colours, stripes, dark pairs of dots.

use tiny_skia::{PathBuilder, Transform};

use super::super::draw::{Canvas, Ink, Rgb, rounded};
use super::super::photo::Photo;
use super::oval;
use crate::rng::Rng;

/// A full-sized canvas of overlapping shapes.
pub fn clutter(rng: &mut Rng, width: usize, height: usize) -> Canvas {
    let (w, h) = (width as f32, height as f32);
    let here = Transform::identity();
    let mut canvas = Canvas::new(width, height, any_color(rng));
    let (far, near) = (any_color(rng), any_color(rng));
    let (x0, x1) = (rng.range(0.0, w), rng.range(0.0, w));
    canvas.fill(rounded(0.0, 0.0, w, h, 0.0), Ink::linear((x0, 0.0, far, 1.0), (x1, h, near, 1.0)), here);

    for _ in 0..6 + rng.below(9) {
        let size = w.min(h) * rng.range(0.06, 0.5);
        let (x, y) = (rng.range(-0.1, 1.0) * w, rng.range(-0.1, 1.0) * h);
        let place = Transform::from_rotate(rng.range(0.0, 360.0)).post_translate(x, y);
        let color = any_color(rng);
        let ink = || Ink::new(color, 0.9);
        let flat = rng.range(0.4, 1.0);
        match rng.below(7) {
            0 => canvas.fill(oval(0.0, 0.0, size, size * flat), ink(), place),
            1 => canvas.fill(rounded(0.0, 0.0, size * 1.5, size * flat, size * 0.1), ink(), place),
            2 => {
                let mut p = PathBuilder::new();
                p.move_to(0.0, -size);
                p.line_to(size, size * flat);
                p.line_to(-size * flat, size);
                p.close();
                canvas.fill(p.finish(), ink(), place);
            }
            3 => {
                let mut p = PathBuilder::new();
                for i in 0..8 {
                    let x = (i as f32 - 3.5) * size * 0.3;
                    p.move_to(x, -size);
                    p.line_to(x, size);
                }
                canvas.stroke(p.finish(), ink(), size * 0.12 * flat, place);
            }
            4 => {
                let mut p = PathBuilder::new();
                for i in 0..16 {
                    p.push_circle((i % 4) as f32 * size * 0.4, (i / 4) as f32 * size * 0.4, size * 0.13 * flat);
                }
                canvas.fill(p.finish(), ink(), place);
            }
            5 => canvas.stroke(oval(0.0, 0.0, size, size * flat), ink(), size * 0.15, place),
            // A featureless oval of skin: colour and shape alone must not suffice for a face.
            _ => canvas.fill(oval(0.0, 0.0, size * 0.6, size * 0.6 * flat), skin(rng.range(0.0, 1.0)), place),
        }
    }
    canvas
}

/// Light from one side, a colour cast, slight blur and noise; applied equally to the face and its surroundings.
pub fn expose(photo: &mut Photo, rng: &mut Rng) {
    let (w, h) = (photo.width as f32, photo.height as f32);
    let angle = rng.range(0.0, std::f32::consts::TAU);
    let (dx, dy) = (angle.cos() * rng.range(0.0, 0.3) / w, angle.sin() * rng.range(0.0, 0.3) / h);
    let level = rng.range(0.88, 1.08);
    let cast: [f32; 3] = std::array::from_fn(|_| level * rng.range(0.96, 1.04));
    let (softness, noise) = (rng.range(0.0, 0.22), rng.range(0.01, 0.036));
    blur(photo, softness);
    let row = (photo.width * 3).max(1);
    for (y, row) in photo.rgb.chunks_exact_mut(row).enumerate() {
        for (x, pixel) in row.chunks_exact_mut(3).enumerate() {
            let light = 1.0 + dx * (x as f32 - w / 2.0) + dy * (y as f32 - h / 2.0);
            // Four bytes of one word, added in pairs: triangular noise, partly correlated between the channels as in a photo.
            let [a, b, c, d] = rng.word().to_le_bytes().map(f32::from);
            for (channel, (cast, grain)) in pixel.iter_mut().zip(cast.into_iter().zip([a + b, a + c, a + d])) {
                *channel = (f32::from(*channel) * cast * light + (grain - 255.0) * noise) as u8;
            }
        }
    }
}

/// One pass of the kernel [a, 1 - 2a, a] along each axis; borders keep their pixels.
fn blur(photo: &mut Photo, a: f32) {
    let row = photo.width * 3;
    let side = (a * 256.0) as u32;
    for step in [3, row] {
        let from = photo.rgb.clone();
        for i in step..from.len().saturating_sub(step) {
            let sum =
                side * (u32::from(from[i - step]) + u32::from(from[i + step])) + (256 - 2 * side) * u32::from(from[i]);
            photo.rgb[i] = (sum >> 8) as u8;
        }
    }
}

/// Skin from light (0) to dark (1); pale skin is lighter than any of these.
pub fn skin(tone: f32) -> Rgb {
    const TONES: [[f32; 3]; 4] =
        [[228.0, 176.0, 142.0], [205.0, 146.0, 108.0], [158.0, 104.0, 72.0], [98.0, 62.0, 44.0]];
    let at = tone.clamp(0.0, 1.0) * 2.999;
    let (low, t) = (at as usize, at.fract());
    std::array::from_fn(|c| (TONES[low][c] + (TONES[low + 1][c] - TONES[low][c]) * t) as u8)
}

/// Mostly muted, occasionally saturated, like objects in photos.
pub fn any_color(rng: &mut Rng) -> Rgb {
    let grey = rng.range(30.0, 225.0);
    let spread = if rng.chance(0.3) { 110.0 } else { 40.0 };
    std::array::from_fn(|_| (grey + rng.range(-spread, spread)).clamp(8.0, 247.0) as u8)
}

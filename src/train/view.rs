//! From a photo to a sample: the position of training crops, and the fixed views that scores are averaged over.

use super::Config;
use super::config::View;
use super::source::{Item, Source};
use crate::data::folder::ImageFolder;
use crate::data::frame::Frame;
use crate::data::photo::{Photo, Rect};
use crate::data::resample::Resampler;
use crate::net::{Input, Normalise, Spec};
use crate::rng::Rng;
use crate::{Error, Result};
use std::path::PathBuf;

/// Generates samples of one size.
#[derive(Debug)]
pub struct Cutter {
    view: View,
    height: usize,
    width: usize,
    normalise: Normalise,
    scene: Scene,
}

/// The parts of a scene.
#[derive(Debug, Default)]
struct Scene {
    backgrounds: Vec<PathBuf>,
    faces: Vec<Item>,
    /// Entries skipped in the folders of both.
    problems: Vec<Error>,
}

/// Largest fraction of a pasted photo's side over which it fades into the background.
const FADE: f32 = 0.08;
/// Scale factors between a face counted as a negative because of its size and the nearest accepted size.
const OTHER_SIZE: [f32; 2] = [1.3, 3.0];

impl Cutter {
    /// For samples of the input size of `net`.
    ///
    /// # Errors
    /// A frame that is smaller than the input; unreadable folders of the scene.
    pub fn new(config: &Config, source: &Source, net: &Spec) -> Result<Self> {
        let (input, normalise) = (net.input, net.normalise);
        if input.c != 3 {
            return Err(Error::file(&config.net, format!("its input {input} is no RGB photo"))
                .advise("training needs input = [3, height, width]"));
        }
        let mut scene = Scene::default();
        match &config.view {
            View::Frame { size: [height, width], .. } if *height < input.h || *width < input.w => {
                return Err(Error::new("view.size", format!("{height} x {width} is smaller than the input {input}"))
                    .advise("make the frame at least as large as the net's input"));
            }
            View::TenCrop { short } if *short < input.h.max(input.w) => {
                return Err(Error::new("view.short", format!("{short} is smaller than the input {input}"))
                    .advise("make it at least as large as the net's input"));
            }
            View::Scene { backgrounds, faces, .. } => {
                let ImageFolder { samples, problems, .. } = ImageFolder::open(backgrounds)?;
                scene.backgrounds = samples.into_iter().map(|(photo, _)| photo).collect();
                scene.problems = problems;
                if let Some(root) = faces {
                    let (faces, problems) = source.pasted_faces(config, root)?;
                    scene.faces = faces;
                    scene.problems.extend(problems);
                }
            }
            _ => {}
        }
        if let View::Scene { face_share, other_size_share, .. } = &config.view
            && face_share.max(*other_size_share) > 0.0
            && scene.faces.is_empty()
        {
            return Err(Error::new("view.face_share, view.other_size_share", "above 0, but there are no faces")
                .advise("give view.faces"));
        }
        Ok(Self { view: config.view.clone(), height: input.h, width: input.w, normalise, scene })
    }

    /// Backgrounds and pasted faces of the scenes; none if the view is not a scene.
    pub(super) fn scene(&self) -> (&[PathBuf], &[Item]) {
        (&self.scene.backgrounds, &self.scene.faces)
    }

    /// Entries skipped in the folders of the scenes.
    pub(super) fn problems(&self) -> &[Error] {
        &self.scene.problems
    }

    /// Makes a training sample of `item` the next one of `input`, and writes its tags into `tags`. A scene is composed here; a
    /// window of a photo may be resampled by the device.
    ///
    /// # Errors
    /// An unreadable photo.
    pub fn draw(
        &self,
        item: &Item,
        rng: &mut Rng,
        resampler: &mut Resampler,
        input: &mut Input,
        tags: &mut [f32],
    ) -> Result<()> {
        tags.copy_from_slice(&item.tags);
        let (photo, window, flip) = match &self.view {
            View::Frame { size, scale, shift } => {
                let photo = Photo::open(&item.photo)?;
                let frame = Frame::new(&photo, item.region, *size);
                let (w, h) = (self.width as f32, self.height as f32);
                // Whole pixels of the frame, so that an unscaled frame is copied exactly.
                let x = rng.below(size[1] - self.width + 1) as f32;
                let y = rng.below(size[0] - self.height + 1) as f32;
                let zoom = 1.0 + scale * rng.range(-1.0, 1.0);
                let (dx, dy) = (shift * w * rng.range(-1.0, 1.0), shift * h * rng.range(-1.0, 1.0));
                let window = Rect::new(x + dx, y + dy, w, h);
                (
                    photo,
                    frame.to_photo(if *scale > 0.0 { window.scaled_about_center(zoom) } else { window }),
                    rng.chance(0.5),
                )
            }
            View::TenCrop { short } => {
                let photo = Photo::open(&item.photo)?;
                let window = self.ten_crop(&photo, *short)[rng.below(5)];
                (photo, window, rng.chance(0.5))
            }
            View::Scene { grey_share, .. } => {
                return self.draw_scene(item, *grey_share, rng, resampler, input.values(), tags);
            }
        };
        resampler.put(&photo, window, flip, input);
        Ok(())
    }

    /// Generates a scene into `pixels` [h, w, 3], with probability `grey_share` without colour.
    fn draw_scene(
        &self,
        item: &Item,
        grey_share: f32,
        rng: &mut Rng,
        resampler: &mut Resampler,
        pixels: &mut [f32],
        tags: &mut [f32],
    ) -> Result<()> {
        self.compose(item, rng, resampler, pixels, tags)?;
        if rng.chance(grey_share) {
            pixels.chunks_exact_mut(3).for_each(|pixel| pixel.fill(luma(pixel)));
        }
        Ok(())
    }

    /// Generates a scene: a photo of the subject on a background, a background without it, or a subject at a size that is
    /// counted as a negative.
    fn compose(
        &self,
        item: &Item,
        rng: &mut Rng,
        resampler: &mut Resampler,
        pixels: &mut [f32],
        tags: &mut [f32],
    ) -> Result<()> {
        let View::Scene { face_share, empty_share, other_size_share, photo_scale, face_scale, .. } = &self.view else {
            return Ok(());
        };
        let mut kind = rng.unit();
        let mut is = |share: f32| {
            kind -= share;
            kind < 0.0
        };
        let any = |rng: &mut Rng| Photo::open(&self.scene.backgrounds[rng.below(self.scene.backgrounds.len())]);
        self.part(&any(rng)?, rng, resampler, pixels);
        tags.fill(0.0);
        let (pasted, scale) = if is(*empty_share) {
            // Distractors are pasted too, so that the edge of a pasted photo does not give the subject away.
            if rng.chance(0.5) {
                self.paste(&any(rng)?, None, log_uniform(*photo_scale, rng).min(0.9), rng, resampler, pixels);
            }
            return Ok(());
        } else if is(*other_size_share) {
            let factor = log_uniform(OTHER_SIZE, rng);
            let scale = if rng.chance(0.5) { face_scale[0] / factor } else { face_scale[1] * factor };
            (self.face(rng), scale)
        } else if is(*face_share) {
            let face = self.face(rng);
            tags.copy_from_slice(&face.tags);
            (face, log_uniform(*face_scale, rng))
        } else {
            tags.copy_from_slice(&item.tags);
            (item, log_uniform(*photo_scale, rng))
        };
        self.paste(&Photo::open(&pasted.photo)?, pasted.region, scale, rng, resampler, pixels);
        Ok(())
    }

    /// One of the faces to paste.
    fn face(&self, rng: &mut Rng) -> &Item {
        &self.scene.faces[rng.below(self.scene.faces.len())]
    }

    /// Values of one sample.
    pub fn sample_len(&self) -> usize {
        self.height * self.width * 3
    }

    /// Number of fixed views per photo.
    pub fn views(&self) -> usize {
        match self.view {
            View::Frame { .. } => 6,
            View::TenCrop { .. } => 10,
            View::Scene { .. } => 1,
        }
    }

    /// Cuts all fixed views of `item` into `pixels` [views, h, w, 3].
    ///
    /// # Errors
    /// An unreadable photo.
    pub fn fixed(&self, item: &Item, resampler: &mut Resampler, pixels: &mut [f32]) -> Result<()> {
        let photo = Photo::open(&item.photo)?;
        let windows = match &self.view {
            View::Frame { size, .. } => Frame::new(&photo, item.region, *size).views(self.height, self.width),
            View::TenCrop { short } => {
                self.ten_crop(&photo, *short).into_iter().flat_map(|window| [(window, false), (window, true)]).collect()
            }
            View::Scene { .. } => vec![(around(&photo, item.region, self.width, self.height), false)],
        };
        for ((window, flip), out) in windows.into_iter().zip(pixels.chunks_exact_mut(self.height * self.width * 3)) {
            resampler.sample(&photo, window, self.width, self.height, flip, self.normalise, out);
        }
        Ok(())
    }

    /// The centre and corner crops of a photo whose shorter side is scaled to `short`.
    fn ten_crop(&self, photo: &Photo, short: usize) -> [Rect; 5] {
        let scale = photo.width.min(photo.height) as f32 / short as f32;
        let (w, h) = (self.width as f32 * scale, self.height as f32 * scale);
        let (right, bottom) = (photo.width as f32 - w, photo.height as f32 - h);
        [(right / 2.0, bottom / 2.0), (0.0, 0.0), (right, 0.0), (0.0, bottom), (right, bottom)]
            .map(|(x, y)| Rect::new(x, y, w, h))
    }

    /// Fills the sample with a random part of `photo`, at least half of its shorter side wide.
    fn part(&self, photo: &Photo, rng: &mut Rng, resampler: &mut Resampler, pixels: &mut [f32]) {
        let aspect = self.width as f32 / self.height as f32;
        let most = (photo.width as f32).min(photo.height as f32 * aspect);
        let width = most * rng.range(0.5, 1.0);
        let height = width / aspect;
        let x = rng.range(0.0, photo.width as f32 - width);
        let y = rng.range(0.0, photo.height as f32 - height);
        let window = Rect::new(x, y, width, height);
        resampler.sample(photo, window, self.width, self.height, rng.chance(0.5), self.normalise, pixels);
    }

    /// Pastes `region` of `photo` over the sample, its longer side `scale` of the sample's, with soft edges. A region larger
    /// than the sample extends beyond it by at least a quarter of the difference, so that its middle remains.
    fn paste(
        &self,
        photo: &Photo,
        region: Option<Rect>,
        scale: f32,
        rng: &mut Rng,
        resampler: &mut Resampler,
        pixels: &mut [f32],
    ) {
        let region = region.unwrap_or(photo.bounds());
        let zoom = scale * (self.width as f32 / region.width).min(self.height as f32 / region.height);
        let size = |side: f32| ((side * zoom).round() as usize).clamp(1, 8192);
        let (width, height) = (size(region.width), size(region.height));
        let mut place = |inside: usize, sample: usize| {
            let slack = sample as f32 - inside as f32;
            (slack * if slack < 0.0 { rng.range(0.25, 0.75) } else { rng.unit() }).round() as isize
        };
        let (left, top) = (place(width, self.width), place(height, self.height));
        let mut pasted = vec![0.0; width * height * 3];
        resampler.sample(photo, region, width, height, rng.chance(0.5), self.normalise, &mut pasted);
        let fade = (rng.range(0.0, FADE) * width.min(height) as f32).max(0.5);
        let rise = |at: usize, side: usize| ((at.min(side - 1 - at) as f32 + 0.5) / fade).min(1.0);
        for y in 0..height {
            let Some(to_y) = (top + y as isize).try_into().ok().filter(|y: &usize| *y < self.height) else { continue };
            for x in 0..width {
                let Some(to_x) = (left + x as isize).try_into().ok().filter(|x: &usize| *x < self.width) else {
                    continue;
                };
                let alpha = rise(x, width) * rise(y, height);
                let to = &mut pixels[(to_y * self.width + to_x) * 3..][..3];
                for (to, from) in to.iter_mut().zip(&pasted[(y * width + x) * 3..]) {
                    *to += alpha * (from - *to);
                }
            }
        }
    }
}

/// The brightness of an RGB pixel (ITU-R BT.601); its three values have the same scale.
fn luma(pixel: &[f32]) -> f32 {
    pixel.iter().zip([0.299, 0.587, 0.114]).map(|(value, weight)| value * weight).sum()
}

/// Log-uniform: halving is as likely as doubling.
fn log_uniform([least, most]: [f32; 2], rng: &mut Rng) -> f32 {
    rng.range(least.ln(), most.ln()).exp()
}

/// The smallest window of the sample's aspect ratio that contains a region.
fn around(photo: &Photo, region: Option<Rect>, width: usize, height: usize) -> Rect {
    let region = region.unwrap_or(photo.bounds());
    let (x, y) = region.center();
    let scale = (region.width / width as f32).max(region.height / height as f32);
    let (w, h) = (width as f32 * scale, height as f32 * scale);
    Rect::new(x - w / 2.0, y - h / 2.0, w, h)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Generates a scene of a red face on green; returns whether all of it, or none of it, is grey.
    fn colourless(grey_share: f32, seed: u64) -> bool {
        let folder = tempfile::tempdir().unwrap();
        let save = |name: &str, color: [u8; 3]| {
            let path = folder.path().join(name);
            Photo::from_fn(20, 20, |_, _| color).save_png(&path).unwrap();
            path
        };
        let backgrounds = vec![save("green.png", [10, 200, 20])];
        let item = Item { photo: save("red.png", [200, 20, 30]), region: None, class: 0, tags: vec![1.0] };
        let view = View::Scene {
            backgrounds: PathBuf::new(),
            faces: None,
            face_share: 0.0,
            empty_share: 0.0,
            other_size_share: 0.0,
            grey_share,
            photo_scale: [0.5, 0.5],
            face_scale: [0.5, 0.5],
        };
        let scene = Scene { backgrounds, ..Scene::default() };
        let cutter = Cutter { view, height: 16, width: 16, normalise: Normalise::default(), scene };
        let (mut pixels, mut tags) = (vec![0.0; 16 * 16 * 3], vec![0.0]);
        let mut rng = Rng::new(seed, 0);
        cutter.draw_scene(&item, grey_share, &mut rng, &mut Resampler::default(), &mut pixels, &mut tags).unwrap();
        assert_eq!(tags, item.tags);
        let grey = pixels.chunks_exact(3).filter(|p| p[0] == p[1] && p[1] == p[2]).count();
        assert!(grey == 0 || grey == 16 * 16, "{grey}");
        let brightness: Vec<f32> = pixels.chunks_exact(3).map(luma).collect();
        assert!(brightness.iter().any(|value| (value - brightness[0]).abs() > 0.5), "the face is still there");
        grey > 0
    }

    #[test]
    fn a_share_of_the_scenes_is_without_colour() {
        assert!((0..10).all(|seed| !colourless(0.0, seed) && colourless(1.0, seed)));
        let share = (0..100).filter(|&seed| colourless(0.3, seed)).count();
        assert!((15..45).contains(&share), "{share}");
    }
}

//! Hard localisation data: photos with known boxes, pasted at random positions and scales into photos of other things. Where
//! the subject is always in the middle, a detector that answers "the middle" looks good; here it does not.

use std::fs;
use std::path::{Path, PathBuf};

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;

use super::boxes;
use super::folder::ImageFolder;
use super::photo::{MAX_SIDE, Photo, Rect};
use super::table;
use crate::error::At;
use crate::memory;
use crate::rng::Rng;
use crate::weights::write_atomic;
use crate::{Error, Result};

/// What to paste, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Number of the first scene. A seed defines one endless series: disjoint ranges of it have no photo in common until every
    /// photo has been used.
    pub first: usize,
    pub scenes: usize,
    /// The longer side of a scene, pixels.
    pub side: usize,
    /// Minimum and maximum longer side of a pasted photo as a fraction of the scene's shorter side.
    pub scale: (f32, f32),
    /// Fraction of a pasted photo's shorter side over which it fades into the background; 0 leaves hard edges.
    pub fade: f32,
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { first: 0, scenes: 500, side: 500, scale: (0.35, 0.85), fade: 0.0, seed: 1 }
    }
}

/// Maximum number of scenes of a set, and maximum index of the first one.
pub const MOST: usize = 1_000_000;
/// Longest side of a scene, pixels: that of the largest readable photo.
pub const LONGEST: usize = MAX_SIDE as usize;

/// File name of the boxes.
pub const BOXES: &str = "boxes.csv";

/// Writes scenes into `to/images` and their boxes into `to/boxes.csv`, using every photo with a box in the box file `photos`
/// in turn. The same arguments give the same bytes. Returns the entries skipped among the backgrounds.
///
/// # Errors
/// Nothing to paste or to paste on, unreadable photos, fractions out of range, a folder that cannot be written.
pub fn write(config: &Config, photos: &Path, backgrounds: &Path, to: &Path) -> Result<Vec<Error>> {
    let (least, most) = config.scale;
    if !(1..=LONGEST).contains(&config.side) || !(1..=MOST).contains(&config.scenes) || config.first >= MOST {
        let Config { side, scenes, first, .. } = config;
        return Err(Error::new("scenes", format!("{scenes} scenes from number {first} on, {side} pixels"))
            .advise(format!("give 1 to {MOST} scenes, a number below that, and 1 to {LONGEST} pixels")));
    }
    if !(least > 0.0 && least <= most && most <= 1.0 && (0.0..0.5).contains(&config.fade)) {
        return Err(Error::new("scenes", format!("side {}, scale {least}-{most}, fade {}", config.side, config.fade))
            .advise("the scale is a share above 0 and at most 1, the fade a share below 0.5"));
    }
    let with_boxes = boxes::read(photos)?.into_iter().filter(|(_, rects)| !rects.is_empty());
    let (names, rects): (Vec<String>, Vec<Vec<Rect>>) = with_boxes.unzip();
    let paths = boxes::photos(photos, &names.iter().map(String::as_str).collect::<Vec<_>>());
    let absent = |found| Error::file(photos, found).advise("add the photo or remove its lines");
    let paths = paths.into_iter().collect::<Result<Vec<PathBuf>, String>>().map_err(absent)?;
    let known: Vec<(PathBuf, Vec<Rect>)> = paths.into_iter().zip(rects).collect();
    if known.is_empty() {
        return Err(Error::file(photos, "holds no box").advise("give a box file: image,x,y,width,height"));
    }
    config.check_memory()?;
    let ImageFolder { samples: backgrounds, problems, .. } = ImageFolder::open(backgrounds)?;
    let mut order: Vec<usize> = (0..known.len()).collect();
    Rng::new(config.seed, u64::MAX).shuffle(&mut order);
    let images = to.join("images");
    fs::create_dir_all(&images).at(&images)?;
    let lines: Vec<String> = (config.first..config.first + config.scenes)
        .into_par_iter()
        .map(|number| {
            let mut rng = Rng::new(config.seed, number as u64);
            let (path, faces) = &known[order[number % order.len()]];
            let photo = Photo::open(path)?;
            let background = Photo::open(&backgrounds[rng.below(backgrounds.len())].0)?;
            let (scene, place, zoom) = config.paste(&photo, &background, &mut rng);
            let path = images.join(format!("{number:05}.jpg"));
            let mut jpeg = Vec::new();
            JpegEncoder::new_with_quality(&mut jpeg, 92)
                .encode(&scene.rgb, scene.width as u32, scene.height as u32, ExtendedColorType::Rgb8)
                .at(&path)?;
            write_atomic(&path, |file| file.write_all(&jpeg))?;
            let moved = |r: &Rect| {
                let moved = [place.x + r.x * zoom, place.y + r.y * zoom, r.width * zoom, r.height * zoom];
                let name = std::iter::once(format!("{number:05}.jpg"));
                table::line(name.chain(moved.map(|pixels| format!("{pixels:.1}")))) + "\n"
            };
            Ok(faces.iter().map(moved).collect())
        })
        .collect::<Result<_>>()?;
    let header = table::line(["image", "x", "y", "width", "height"]);
    write_atomic(to.join(BOXES), |file| write!(file, "{header}\n{}", lines.concat()))?;
    Ok(problems)
}

impl Config {
    /// Each thread holds a scene, the photo pasted into it, and the encoded file.
    fn check_memory(&self) -> Result<()> {
        let pixels = |side: usize| side as u128 * side as u128;
        let cost = |side: usize| 3 * 3 * rayon::current_num_threads() as u128 * pixels(side);
        memory::fit(format!("scenes of {} pixels", self.side), self.side, memory::available(), cost)
    }

    /// A scene, the photo's place in it, and the photo's scale.
    fn paste(&self, photo: &Photo, background: &Photo, rng: &mut Rng) -> (Photo, Rect, f32) {
        let enlarge = self.side as f32 / background.width.max(background.height) as f32;
        let side = |pixels: usize, zoom: f32| ((pixels as f32 * zoom).round() as usize).max(1);
        let mut scene = background.resized(side(background.width, enlarge), side(background.height, enlarge));
        let shorter = scene.width.min(scene.height) as f32;
        // Log-uniform: halving is as likely as doubling.
        let share = rng.range(self.scale.0.ln(), self.scale.1.ln()).exp();
        let zoom = share * shorter / photo.width.max(photo.height) as f32;
        let pasted = photo.resized(side(photo.width, zoom), side(photo.height, zoom));
        let (left, top) = (rng.below(scene.width - pasted.width + 1), rng.below(scene.height - pasted.height + 1));
        let fade = (self.fade * pasted.width.min(pasted.height) as f32).max(0.5);
        let rise = |at: usize, side: usize| ((at.min(side - 1 - at) as f32 + 0.5) / fade).min(1.0);
        for y in 0..pasted.height {
            for x in 0..pasted.width {
                let alpha = rise(x, pasted.width) * rise(y, pasted.height);
                let (under, over) = (scene.pixel(left + x, top + y), pasted.pixel(x, y));
                let mix = |c: usize| (f32::from(under[c]) + alpha * (f32::from(over[c]) - f32::from(under[c]))).round();
                scene.set_pixel(left + x, top + y, [0, 1, 2].map(|c| mix(c) as u8));
            }
        }
        let place = Rect::new(left as f32, top as f32, pasted.width as f32, pasted.height as f32);
        (scene, place, zoom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_box_follows_its_photo() {
        let bright =
            Photo::from_fn(
                40,
                50,
                |x, y| if (10..20).contains(&x) && (20..35).contains(&y) { [255; 3] } else { [0; 3] },
            );
        let dark = Photo::from_fn(90, 60, |_, _| [60; 3]);
        for seed in 0..20 {
            let config = Config { side: 180, ..Config::default() };
            let (scene, place, zoom) = config.paste(&bright, &dark, &mut Rng::new(seed, 0));
            assert_eq!((scene.width, scene.height), (180, 120));
            assert!((0.34..0.87).contains(&(place.height / 120.0)), "{place:?}");
            assert!(scene.bounds().intersection(&place) == Some(place));
            let middle = |x: f32, y: f32| scene.pixel((place.x + x * zoom) as usize, (place.y + y * zoom) as usize);
            assert!(middle(15.0, 27.0)[0] > 250 && middle(35.0, 5.0)[0] < 5, "seed {seed}");
        }
    }

    #[test]
    fn a_series_may_be_written_in_parts() {
        let root = tempfile::tempdir().unwrap();
        let save = |name: String, shade: u8| {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            Photo::from_fn(12, 16, |x, y| [shade, (x * 9) as u8, (y * 9) as u8]).save_png(path).unwrap();
        };
        (0..4).for_each(|i| save(format!("photos/images/{i}.png"), 40 * i));
        (0..2).for_each(|i| save(format!("things/class/{i}.png"), 200 + 40 * i));
        let (photos, things) = (root.path().join("photos/boxes.csv"), root.path().join("things"));
        fs::write(&photos, "0.png,1,1,5,5\n1.png,2,2,5,5\n2.png,3,3,5,5\n3.png,4,4,5,5\n").unwrap();
        let part = |name: &str, first: usize, scenes: usize| {
            let to = root.path().join(name);
            write(&Config { first, scenes, side: 40, ..Config::default() }, &photos, &things, &to).unwrap();
            let text = fs::read_to_string(to.join(BOXES)).unwrap();
            (to.join("images"), text.lines().skip(1).map(str::to_string).collect::<Vec<_>>())
        };
        let ((whole, all), (rest, some)) = (part("whole", 0, 4), part("rest", 3, 1));
        assert_eq!(all[3..], some);
        assert!(all.iter().all(|line| line.matches(',').count() == 4) && all.len() == 4);
        assert_eq!(fs::read(whole.join("00003.jpg")).unwrap(), fs::read(rest.join("00003.jpg")).unwrap());
        assert_eq!(fs::read_dir(rest).unwrap().count(), 1);
    }
}

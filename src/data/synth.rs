//! Synthetic faces: drawn people with CelebA's annotations, so that every part of the pipeline can be tested and tried
//! without data. A picture is a pure function of (configuration, index): random numbers are counter-based, so pictures can be
//! drawn in any order and on any number of threads, and equal seeds give equal bytes.
//!
//! The identity determines geometry and colouring; the picture varies pose, expression, accessories, light and place. Every
//! attribute is visible: a picture drawn without it differs where, and only where, the attribute is.

mod head;
mod scene;

use std::fs;
use std::path::Path;

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;
use serde::Serialize;
use tiny_skia::PathBuilder;

use self::head::{Head, Identity, Pose};
use super::celeba::{ATTRIBUTE_FILE, Sample, Split, write_annotations};
use super::photo::{Photo, Rect};
use crate::error::At;
use crate::memory;
use crate::rng::Rng;
use crate::weights::write_atomic;
use crate::{Error, Result};

/// The attributes drawn, named and ordered as in CelebA.
pub const ATTRIBUTES: [&str; 19] = [
    "Bald",
    "Bangs",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Bushy_Eyebrows",
    "Eyeglasses",
    "Goatee",
    "Gray_Hair",
    "Mouth_Slightly_Open",
    "Mustache",
    "Narrow_Eyes",
    "Pale_Skin",
    "Rosy_Cheeks",
    "Smiling",
    "Wearing_Earrings",
    "Wearing_Hat",
    "Wearing_Lipstick",
    "Wearing_Necktie",
];

/// Index into [`ATTRIBUTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tag {
    Bald,
    Bangs,
    BlackHair,
    BlondHair,
    BrownHair,
    BushyEyebrows,
    Eyeglasses,
    Goatee,
    GrayHair,
    MouthSlightlyOpen,
    Mustache,
    NarrowEyes,
    PaleSkin,
    RosyCheeks,
    Smiling,
    WearingEarrings,
    WearingHat,
    WearingLipstick,
    WearingNecktie,
}

/// The attributes of one picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Tags([bool; ATTRIBUTES.len()]);

impl Tags {
    fn has(&self, tag: Tag) -> bool {
        self.0[tag as usize]
    }

    fn set(&mut self, tag: Tag, present: bool) {
        self.0[tag as usize] = present;
    }
}

/// What to draw.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Config {
    /// Number of photos to draw.
    pub images: usize,
    /// Number of people; picture i shows person i modulo this.
    pub identities: usize,
    /// Minimum and maximum width of a picture, pixels.
    pub width: (usize, usize),
    /// Minimum and maximum height, pixels.
    pub height: (usize, usize),
    /// Minimum and maximum height of a face as a fraction of the picture's shorter side.
    pub face: (f32, f32),
    /// Equal seeds give equal photos.
    pub seed: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self { images: 2000, identities: 200, width: (160, 260), height: (160, 260), face: (0.32, 0.6), seed: 1 }
    }
}

/// A drawn picture and its ground truth.
#[derive(Debug, Clone, PartialEq)]
pub struct Face {
    /// The picture.
    pub photo: Photo,
    /// Forehead to chin and cheek to cheek, whole pixels, inside the photo.
    pub bbox: Rect,
    /// 1..=identities.
    pub identity: u32,
    /// In the order of [`ATTRIBUTES`].
    pub attributes: Vec<bool>,
}

/// Bounds of a picture's sides, pixels.
pub const SIDES: (usize, usize) = (32, 4096);
/// Bounds of a face's fraction of the shorter side.
pub const SHARES: (f32, f32) = (0.1, 0.9);
/// File names have six digits.
pub const MOST_IMAGES: usize = 999_999;
const JPEG_QUALITY: u8 = 92;
/// Marks a folder as a generated data set: the configuration it was drawn with.
const MARK: &str = "synth.json";
/// Pictures between two progress reports.
const BATCH: usize = 64;

/// Independent streams of one seed: the domain is in the upper bits of the stream's number, an index in the lower ones.
enum Domain {
    Traits,
    Identity,
    Tags,
    Picture,
    Background,
}

fn stream(seed: u64, domain: Domain, index: usize) -> Rng {
    Rng::new(seed, ((domain as u64) << 56) | index as u64)
}

/// A generator seeded by another, for a part whose draws must not shift those of the next.
fn fork(rng: &mut Rng) -> Rng {
    Rng::new(u64::from(rng.word()) << 32 | u64::from(rng.word()), 0)
}

impl Config {
    /// Errors: a value out of bounds, or a minimum above the maximum.
    pub fn check(&self) -> Result<()> {
        let wrong = |name: &str, found: String, advice: String| {
            Err(Error::new(format!("synthetic faces: {name}"), found).advise(advice))
        };
        for (name, value) in [("images", self.images), ("identities", self.identities)] {
            if !(1..=MOST_IMAGES).contains(&value) {
                return wrong(name, format!("{value} is out of bounds"), format!("choose 1 to {MOST_IMAGES}"));
            }
        }
        for (name, (least, most)) in [("width", self.width), ("height", self.height)] {
            if !(SIDES.0 <= least && least <= most && most <= SIDES.1) {
                let advice = format!("choose {} <= least <= greatest <= {} pixels", SIDES.0, SIDES.1);
                return wrong(name, format!("{least} to {most} is no usable range"), advice);
            }
        }
        let (least, most) = self.face;
        if !(SHARES.0 <= least && least <= most && most <= SHARES.1) {
            let advice = format!("choose {} <= least <= greatest <= {}", SHARES.0, SHARES.1);
            return wrong("face", format!("{least} to {most} is no usable range"), advice);
        }
        Ok(())
    }

    /// Zero-based person of a picture.
    fn person(&self, index: usize) -> usize {
        index % self.identities.max(1)
    }

    /// Splits by person, 80/10/10, with at least one person per split if there are three.
    fn split(&self, person: usize) -> Split {
        let held_out = (self.identities / 10).max(usize::from(self.identities >= 3));
        match self.identities.saturating_sub(person + 1) {
            back if back < held_out => Split::Test,
            back if back < 2 * held_out => Split::Val,
            _ => Split::Train,
        }
    }

    /// Draws the attributes of a picture: first those of the person, then those of the picture.
    fn tags(&self, index: usize) -> Tags {
        let person = self.person(index);
        // Each trait advances through 0..1 in equal irrational steps from person to person, so even few people have all hair
        // colours in the right proportions; the steps are powers of generalised golden ratios (Roberts, R-sequence).
        let mut offsets = stream(self.seed, Domain::Traits, 0);
        let mut trait_of = |step: f64| (f64::from(offsets.unit()) + person as f64 * step).fract();
        let hair = trait_of(0.618_034);
        let bearded = trait_of(0.754_878) < 0.5;
        let pale = trait_of(0.569_840) < 0.22;
        let bushy = trait_of(0.819_173) < 0.3;
        let fringe = trait_of(0.671_044) < 0.4;

        let mut rng = stream(self.seed, Domain::Tags, index);
        let mut tags = Tags::default();
        let mut put = |tag, wanted: bool, chance: f32| {
            // Always exactly one draw, so that one attribute does not shift the others.
            let present = rng.chance(chance) && wanted;
            tags.set(tag, present);
            present
        };
        let bald = put(Tag::Bald, hair < 0.13, 1.0);
        put(Tag::BlackHair, (0.13..0.38).contains(&hair), 1.0);
        put(Tag::BlondHair, (0.38..0.58).contains(&hair), 1.0);
        put(Tag::BrownHair, (0.58..0.80).contains(&hair), 1.0);
        put(Tag::GrayHair, (0.80..0.95).contains(&hair), 1.0);
        put(Tag::PaleSkin, pale, 1.0);
        put(Tag::BushyEyebrows, bushy, 1.0);
        let hat = put(Tag::WearingHat, !bald, 0.18);
        put(Tag::Bangs, fringe && !bald && !hat, 1.0);
        put(Tag::Mustache, bearded, 0.38);
        put(Tag::Goatee, bearded, 0.38);
        put(Tag::WearingLipstick, !bearded, 0.5);
        put(Tag::Eyeglasses, true, 0.22);
        put(Tag::NarrowEyes, true, 0.25);
        put(Tag::RosyCheeks, true, 0.22);
        put(Tag::WearingEarrings, true, 0.28);
        put(Tag::WearingNecktie, true, 0.25);
        if put(Tag::Smiling, true, 0.48) {
            put(Tag::MouthSlightlyOpen, true, 0.6);
        } else {
            put(Tag::MouthSlightlyOpen, true, 0.3);
        }
        tags
    }
}

/// Draws picture `index`. Values of `config` that are out of bounds are clamped.
pub fn render(config: &Config, index: usize) -> Face {
    compose(config, index, &config.tags(index), None)
}

/// Draws picture `index` as an aligned crop of `width` x `height` pixels: the eyes where `img_align_celeba` (178 x 218) has
/// them, the head almost upright, filling the crop.
pub fn render_aligned(config: &Config, index: usize, width: usize, height: usize) -> Face {
    compose(config, index, &config.tags(index), Some((width, height)))
}

/// A picture without a face: only background, for negatives. Never the background of a face of this seed.
pub fn background(seed: u64, index: usize, width: usize, height: usize) -> Photo {
    let mut rng = stream(seed, Domain::Background, index);
    let mut photo = scene::clutter(&mut fork(&mut rng), width, height).into_photo();
    scene::expose(&mut photo, &mut fork(&mut rng));
    photo
}

/// Draws a picture with given attributes; everything else is derived from (seed, index) and does not depend on them.
fn compose(config: &Config, index: usize, tags: &Tags, aligned: Option<(usize, usize)>) -> Face {
    let person = config.person(index);
    let who = Identity::new(&mut stream(config.seed, Domain::Identity, person));
    let mut rng = stream(config.seed, Domain::Picture, index);
    let [mut place, mut behind, mut body, mut film] = std::array::from_fn(|_| fork(&mut rng));

    let (width, height) = aligned.unwrap_or_else(|| (side(&mut place, config.width), side(&mut place, config.height)));
    let pose = if aligned.is_some() {
        crop(&mut place, &who, tags, width, height)
    } else {
        wild(&mut place, config, &who, tags, width, height)
    };
    let head = Head { who: &who, tags, pose };
    let mut canvas = scene::clutter(&mut behind, width, height);
    head.draw(&mut canvas, &mut body);
    let mut photo = canvas.into_photo();
    scene::expose(&mut photo, &mut film);
    Face { photo, bbox: inside(head.bbox(), width, height), identity: person as u32 + 1, attributes: tags.0.to_vec() }
}

fn side(rng: &mut Rng, (least, most): (usize, usize)) -> usize {
    let least = least.clamp(SIDES.0, SIDES.1);
    least + rng.below(most.clamp(least, SIDES.1) - least + 1)
}

/// A random pose in the picture, with room for a hat above and a collar below where possible.
fn wild(rng: &mut Rng, config: &Config, who: &Identity, tags: &Tags, width: usize, height: usize) -> Pose {
    let (w, h) = (width as f32, height as f32);
    let share = rng.range(config.face.0.max(SHARES.0), config.face.1).clamp(SHARES.0, SHARES.1);
    let mut pose = Pose { x: 0.0, y: 0.0, scale: share * w.min(h) / 2.1, ..turned(rng, 1.0, 1.0) };
    let size = Head { who, tags, pose }.bbox();
    // Where there is too little room, the middle of what remains.
    let mut within = |low: f32, high: f32| rng.range(low.min((low + high) / 2.0), high.max((low + high) / 2.0));
    let s = pose.scale;
    pose.x = within(size.width / 2.0 + 1.0, w - size.width / 2.0 - 1.0);
    pose.y = within(size.height / 2.0 + 0.2 * s, h - size.height / 2.0 - 0.7 * s)
        .clamp(size.height / 2.0, h - size.height / 2.0);
    pose
}

/// The pose that puts the eyes where CelebA's alignment has them.
fn crop(rng: &mut Rng, who: &Identity, tags: &Tags, width: usize, height: usize) -> Pose {
    // Eyes at (69.5, 111) and (108, 112) of 178 x 218.
    const EYES: (f32, f32, f32) = (0.5, 0.511, 0.216);
    let (w, h) = (width as f32, height as f32);
    let mut pose = Pose { x: 0.0, y: 0.0, scale: 1.0, ..turned(rng, 0.6, 0.2) };
    let [left, right] = Head { who, tags, pose }.eyes();
    pose.scale = EYES.2 * w * rng.range(0.97, 1.03) / (right.0 - left.0).max(0.1);
    let (x, y) = ((left.0 + right.0) / 2.0 * pose.scale, (left.1 + right.1) / 2.0 * pose.scale);
    let (sin, cos) = pose.roll.sin_cos();
    pose.x = EYES.0 * w - (x * cos - y * sin);
    pose.y = EYES.1 * h - (x * sin + y * cos);
    pose
}

/// A random rotation of the head; `yaw` and `roll` scale its range.
fn turned(rng: &mut Rng, yaw: f32, roll: f32) -> Pose {
    let bell = |rng: &mut Rng, spread: f32| (rng.normal() * spread / 2.0).clamp(-spread, spread);
    Pose { x: 0.0, y: 0.0, scale: 1.0, yaw: yaw * bell(rng, 0.6), pitch: bell(rng, 0.18), roll: roll * bell(rng, 0.4) }
}

/// The rectangle in whole pixels, cut at the photo's borders.
fn inside(r: Rect, width: usize, height: usize) -> Rect {
    let (x0, y0) = (r.x.round().max(0.0), r.y.round().max(0.0));
    let (x1, y1) = ((r.x + r.width).round().min(width as f32), (r.y + r.height).round().min(height as f32));
    Rect { x: x0, y: y0, width: (x1 - x0).max(0.0), height: (y1 - y0).max(0.0) }
}

/// An ellipse by its centre and half axes.
fn oval(x: f32, y: f32, rx: f32, ry: f32) -> Option<tiny_skia::Path> {
    PathBuilder::from_oval(tiny_skia::Rect::from_ltrb(x - rx, y - ry, x + rx, y + ry)?)
}

/// Writes `config.images` pictures below `root` in CelebA's official layout: `Img/img_celeba/000001.jpg` and so on, and the
/// annotations under `Anno` and `Eval`, split by person 80/10/10; `synth.json` stores the configuration. `progress` receives
/// the number of pictures drawn so far.
///
/// When overwriting an earlier data set, its annotations are removed first and the new ones are written last, so that
/// annotations never refer to wrong pictures.
///
/// Errors: a configuration out of bounds; a folder or file that cannot be written.
pub fn write(config: &Config, root: &Path, progress: &mut dyn FnMut(usize)) -> Result<()> {
    config.check()?;
    let folder = root.join("Img").join("img_celeba");
    fs::create_dir_all(&folder).at(&folder)?;
    let stale = root.join("Anno").join(ATTRIBUTE_FILE);
    if stale.exists() {
        fs::remove_file(&stale).at(&stale)?;
    }
    let mark = root.join(MARK);
    let json = serde_json::to_vec(config).at(&mark)?;
    write_atomic(&mark, |file| file.write_all(&json))?;
    let mut samples = memory::reserve(config.images, "synthetic faces")?;
    for start in (0..config.images).step_by(BATCH) {
        let end = (start + BATCH).min(config.images);
        let batch: Result<Vec<Sample>> = (start..end).into_par_iter().map(|i| write_one(config, i, &folder)).collect();
        samples.extend(batch?);
        progress(end);
    }
    write_annotations(root, &ATTRIBUTES.map(String::from), &samples)
}

/// True if [`write()`] has written to `root`, even if it did not finish.
pub fn is_at(root: impl AsRef<Path>) -> bool {
    root.as_ref().join(MARK).is_file()
}

fn write_one(config: &Config, index: usize, folder: &Path) -> Result<Sample> {
    let face = render(config, index);
    let name = format!("{:06}.jpg", index + 1);
    let path = folder.join(&name);
    let (width, height) = (face.photo.width as u32, face.photo.height as u32);
    let mut jpeg = Vec::new();
    let encoder = JpegEncoder::new_with_quality(&mut jpeg, JPEG_QUALITY);
    image::ImageEncoder::write_image(encoder, &face.photo.rgb, width, height, ExtendedColorType::Rgb8).at(&path)?;
    fs::write(&path, jpeg).at(&path)?;
    Ok(Sample {
        path,
        name,
        attributes: face.attributes,
        identity: Some(face.identity),
        bbox: Some(face.bbox),
        split: Some(config.split(config.person(index))),
    })
}

#[cfg(test)]
mod tests;

//! Draws one head. Features lie on a half ellipsoid in *head units*: the origin between eyes and nose tip, y down, the chin at
//! y = 1 and the crown at y = -1.15. Yaw and pitch rotate that surface, so features shift and foreshorten as on a real head,
//! while the outline is unchanged; roll, scale and position are one affine map to pixels.

use tiny_skia::{Path, PathBuilder, Transform};

use super::super::draw::{Canvas, Ink, Rgb, rounded};
use super::super::photo::Rect;
use super::scene::{any_color, skin};
use super::{Tag, Tags, fork, oval};
use crate::rng::Rng;

/// What is constant over all pictures of one person. Lengths in head units.
pub struct Identity {
    width: f32,
    jaw: f32,
    eye_x: f32,
    eye_y: f32,
    eye_width: f32,
    nose_y: f32,
    nose_width: f32,
    mouth_y: f32,
    mouth_width: f32,
    lip: f32,
    brow_arch: f32,
    volume: f32,
    parting: f32,
    long_hair: bool,
    skin_tone: f32,
    hair_tint: f32,
    iris: Rgb,
}

impl Identity {
    /// `rng` is the person's.
    pub fn new(rng: &mut Rng) -> Self {
        let nose_y = rng.range(0.26, 0.40);
        Self {
            width: rng.range(0.70, 0.84),
            jaw: rng.range(1.9, 2.7),
            eye_x: rng.range(0.29, 0.36),
            eye_y: rng.range(-0.17, -0.10),
            eye_width: rng.range(0.125, 0.155),
            nose_y,
            nose_width: rng.range(0.10, 0.17),
            mouth_y: nose_y + rng.range(0.23, 0.28),
            mouth_width: rng.range(0.21, 0.28),
            lip: rng.range(0.05, 0.08),
            brow_arch: rng.range(0.02, 0.09),
            volume: rng.range(0.05, 0.3),
            parting: rng.range(-0.5, 0.5),
            long_hair: rng.chance(0.4),
            skin_tone: rng.range(0.0, 1.0),
            hair_tint: rng.range(-1.0, 1.0),
            iris: [[84, 56, 36], [60, 92, 140], [78, 112, 70], [52, 40, 34]][rng.below(4)],
        }
    }
}

/// Position and orientation of the head.
#[derive(Clone, Copy)]
pub struct Pose {
    /// Pixels of the head's origin.
    pub x: f32,
    pub y: f32,
    /// Pixels per head unit.
    pub scale: f32,
    /// Radians; positive yaw turns to the picture's right, positive pitch down, positive roll clockwise.
    pub yaw: f32,
    pub pitch: f32,
    pub roll: f32,
}

/// Draws a person; `rng` is the picture's (clothes, jewellery, gaze, strands).
pub struct Head<'a> {
    pub who: &'a Identity,
    pub tags: &'a Tags,
    pub pose: Pose,
}

type Xy = (f32, f32);

impl Head<'_> {
    /// The box as CelebA annotates it, forehead to chin and cheek to cheek, pixels.
    pub fn bbox(&self) -> Rect {
        let (rx, ry) = (self.who.width + 0.08, 1.04);
        let (sin, cos) = self.pose.roll.sin_cos();
        let (half_w, half_h) =
            ((rx * cos).hypot(ry * sin) * self.pose.scale, (rx * sin).hypot(ry * cos) * self.pose.scale);
        Rect { x: self.pose.x - half_w, y: self.pose.y - half_h, width: 2.0 * half_w, height: 2.0 * half_h }
    }

    /// The eyes' centres in head units, after rotation, left eye of the picture first.
    pub fn eyes(&self) -> [Xy; 2] {
        [-1.0, 1.0].map(|side| self.turn((side * self.who.eye_x, self.who.eye_y), 0.0))
    }

    /// Paints the person over the canvas.
    pub fn draw(&self, canvas: &mut Canvas, rng: &mut Rng) {
        let has = |tag| self.tags.has(tag);
        // One generator for each part, whatever the attributes, so that an attribute changes only what it names.
        let [mut clothes, mut behind, jewels, mut lips, mut whiskers, mut brows, mut top, mut glasses, mut hat] =
            std::array::from_fn(|_| fork(rng));
        let mut beard = fork(rng);
        let gaze = (rng.range(-0.03, 0.03), rng.range(-0.015, 0.015));
        let light = rng.range(-1.0, 1.0);
        let far_side = if self.pose.yaw > 0.0 { 1.0 } else { -1.0 };

        if self.who.long_hair && !has(Tag::Bald) {
            self.long_hair(canvas, &mut behind);
        }
        self.torso(canvas, &mut clothes);
        self.ear(canvas, far_side, &jewels);
        self.skull(canvas, light);
        self.ear(canvas, -far_side, &jewels);
        self.cheeks(canvas);
        for side in [-1.0, 1.0] {
            self.eye(canvas, side, gaze);
        }
        self.nose(canvas, light);
        self.mouth(canvas, &mut lips);
        if has(Tag::Mustache) {
            self.mustache(canvas, &mut whiskers);
        }
        if has(Tag::Goatee) {
            self.goatee(canvas, &mut beard);
        }
        if !has(Tag::Bald) {
            self.hair(canvas, &mut top);
        }
        for side in [-1.0, 1.0] {
            self.brow(canvas, side, &mut brows);
        }
        if has(Tag::Eyeglasses) {
            self.eyeglasses(canvas, &mut glasses);
        }
        if has(Tag::WearingHat) {
            self.hat(canvas, &mut hat);
        }
    }

    /// Head units to pixels.
    fn to(&self) -> Transform {
        let (sin, cos) = self.pose.roll.sin_cos();
        let s = self.pose.scale;
        Transform::from_row(s * cos, s * sin, -s * sin, s * cos, self.pose.x, self.pose.y)
    }

    /// A point of the face's surface after yaw and pitch; `lift` is its height above the surface.
    fn turn(&self, (x, y): Xy, lift: f32) -> Xy {
        let w = self.who.width;
        let depth = 0.7 * (1.0 - 0.9 * (x / w).powi(2) - 0.45 * (y / 1.15).powi(2)).max(0.0).sqrt() + lift - 0.05;
        (x * self.pose.yaw.cos() + depth * self.pose.yaw.sin(), y + depth * self.pose.pitch.sin())
    }

    /// A closed shape on the face.
    fn shape(&self, points: impl IntoIterator<Item = Xy>) -> Option<Path> {
        polygon(points.into_iter().map(|p| self.turn(p, 0.0)))
    }

    /// A line on the face.
    fn line(&self, points: impl IntoIterator<Item = Xy>) -> Option<Path> {
        polyline(points.into_iter().map(|p| self.turn(p, 0.0)))
    }

    fn skin(&self) -> Rgb {
        if self.tags.has(Tag::PaleSkin) { [250, 233, 223] } else { skin(self.who.skin_tone) }
    }

    fn hair_color(&self) -> Rgb {
        let base = [
            (Tag::BlackHair, [26, 23, 25]),
            (Tag::BlondHair, [226, 190, 112]),
            (Tag::BrownHair, [104, 66, 38]),
            (Tag::GrayHair, [168, 168, 172]),
        ];
        // Neither of these is an attribute: colour of brows and beard for bald people, and auburn.
        let other = if self.tags.has(Tag::Bald) { [82, 62, 52] } else { [158, 62, 24] };
        let color = base.into_iter().find(|&(tag, _)| self.tags.has(tag)).map_or(other, |(_, color)| color);
        shade(color, 1.0 + 0.1 * self.who.hair_tint)
    }

    /// Outline of skull and jaw, clockwise from the right temple.
    fn outline(&self, grow: f32) -> impl Iterator<Item = Xy> {
        let (w, jaw) = (self.who.width + grow, self.who.jaw);
        turn_of(64).map(move |(cos, sin)| {
            if sin < 0.0 {
                (w * cos, (1.15 + grow) * sin)
            } else {
                (w * cos.signum() * cos.abs().powf(2.0 / jaw), (1.0 + grow) * sin.powf(2.0 / (jaw * 0.5 + 1.0)))
            }
        })
    }

    fn skull(&self, canvas: &mut Canvas, light: f32) {
        let (to, skin) = (self.to(), self.skin());
        let path = polygon(self.outline(0.0));
        canvas.fill(path.clone(), skin, to);
        let (lit, dark) = (self.who.width * light.signum(), 0.18 + 0.2 * light.abs());
        canvas.fill(path.clone(), Ink::linear((lit, -0.3, [40, 14, 6], 0.0), (-lit * 1.1, 0.3, [40, 14, 6], dark)), to);
        canvas.fill(path.clone(), Ink::linear((0.0, 0.35, [40, 14, 6], 0.0), (0.0, 1.25, [40, 14, 6], 0.22)), to);
        canvas.stroke(path, Ink::new(shade(skin, 0.55), 0.55), 0.02, to);
        let (x, y) = self.turn((-0.1 * light, -0.62), 0.0);
        canvas.fill(oval(x, y, 0.4, 0.3), Ink::spot(x, y, 0.4, [255, 255, 250], 0.28), to);
        if self.tags.has(Tag::Bald) {
            let (x, y) = (0.25 * light.signum(), -0.88);
            canvas.fill(oval(x, y, 0.3, 0.16), Ink::spot(x, y, 0.26, [255, 255, 255], 0.6), to);
        }
    }

    /// One ear and its jewellery. The far ear is drawn before the skull, which then hides most of it.
    fn ear(&self, canvas: &mut Canvas, side: f32, extras: &Rng) {
        let (to, skin) = (self.to(), self.skin());
        let x = side * (self.who.width * self.pose.yaw.cos() + 0.05) - 0.1 * self.pose.yaw.sin();
        canvas.fill(oval(x, 0.02, 0.11, 0.23), shade(skin, 0.88), to);
        canvas.stroke(oval(x, 0.02, 0.11, 0.23), Ink::new(shade(skin, 0.5), 0.6), 0.02, to);
        canvas.stroke(oval(x, 0.0, 0.05, 0.13), Ink::new(shade(skin, 0.6), 0.7), 0.025, to);
        if self.tags.has(Tag::WearingEarrings) {
            let mut rng = extras.clone();
            let color = [[255, 208, 64], [238, 240, 248], [220, 30, 60], [30, 160, 210]][rng.below(4)];
            let (hoop, lobe) = (rng.chance(0.4), x + side * 0.04);
            if hoop {
                canvas.stroke(oval(lobe, 0.37, 0.1, 0.14), [30, 20, 10], 0.075, to);
                canvas.stroke(oval(lobe, 0.37, 0.1, 0.14), color, 0.05, to);
            } else {
                canvas.fill(oval(lobe, 0.29, 0.065, 0.065), [30, 20, 10], to);
                canvas.fill(oval(lobe, 0.45, 0.095, 0.13), [30, 20, 10], to);
                canvas.fill(oval(lobe, 0.29, 0.05, 0.05), color, to);
                canvas.fill(oval(lobe, 0.45, 0.08, 0.115), color, to);
                canvas.fill(oval(lobe - 0.025, 0.41, 0.025, 0.03), [255, 255, 255], to);
            }
        }
    }

    fn cheeks(&self, canvas: &mut Canvas) {
        let (to, who) = (self.to(), self.who);
        for side in [-1.0, 1.0] {
            let (x, y) = self.turn((side * who.width * 0.55, who.nose_y - 0.02), 0.0);
            if self.tags.has(Tag::RosyCheeks) {
                canvas.fill(oval(x, y, 0.24, 0.2), Ink::spot(x, y, 0.24, [224, 42, 62], 0.75), to);
            }
            if self.tags.has(Tag::Smiling) {
                let corner = who.mouth_width * 1.3 + 0.06;
                let fold =
                    [(0.18, who.nose_y - 0.04), (corner, who.mouth_y - 0.16), (corner + 0.03, who.mouth_y + 0.02)];
                canvas.stroke(
                    self.line(fold.map(|(x, y)| (side * x, y))),
                    Ink::new(shade(self.skin(), 0.55), 0.6),
                    0.025,
                    to,
                );
            }
        }
    }

    fn eye(&self, canvas: &mut Canvas, side: f32, gaze: Xy) {
        let (to, who) = (self.to(), self.who);
        let open = if self.tags.has(Tag::NarrowEyes) { 0.3 } else { 1.0 };
        let (cx, cy, rx) = (side * who.eye_x, who.eye_y, who.eye_width);
        let lid = |x: f32| (1.0 - (x / rx).powi(2)).max(0.0).powf(0.7);
        let (up, down) = (0.085 * open, 0.055 * open);
        let across = || (0..=16).map(|i| (i as f32 / 8.0 - 1.0) * rx);
        let upper = || across().map(|x| (cx + x, cy - up * lid(x)));
        let lower = || across().rev().map(|x| (cx + x, cy + down * lid(x)));

        let (x, y) = self.turn((cx, cy - 0.04), 0.0);
        canvas.fill(oval(x, y, 0.24, 0.18), Ink::spot(x, y, 0.22, shade(self.skin(), 0.45), 0.45), to);
        canvas.fill(self.shape(upper().chain(lower())), [244, 242, 240], to);
        let round = |r: f32| {
            turn_of(24).map(move |(cos, sin)| {
                let x = gaze.0 + r * cos;
                (cx + x, cy + (gaze.1 + r * sin).clamp(-up * lid(x), down * lid(x)))
            })
        };
        canvas.fill(self.shape(round(0.075)), who.iris, to);
        canvas.fill(self.shape(round(0.038)), [12, 10, 10], to);
        if open == 1.0 {
            let (x, y) = self.turn((cx + gaze.0 + 0.025, cy + gaze.1 - 0.03), 0.0);
            canvas.fill(oval(x, y, 0.016, 0.016), [255, 255, 255], to);
        }
        canvas.stroke(self.line(upper()), [34, 22, 20], 0.03, to);
        canvas.stroke(self.line(lower()), Ink::new(shade(self.skin(), 0.5), 0.8), 0.014, to);
        let fold = across().map(|x| (cx + x, cy - 0.045 - 0.085 * lid(x)));
        canvas.stroke(self.line(fold), Ink::new(shade(self.skin(), 0.5), 0.5), 0.014, to);
    }

    fn brow(&self, canvas: &mut Canvas, side: f32, strands: &mut Rng) {
        let (to, who) = (self.to(), self.who);
        let bushy = self.tags.has(Tag::BushyEyebrows);
        let color = shade(self.beard(), 0.8);
        let y = who.eye_y - 0.23;
        let thick = if bushy { 0.075 } else { 0.022 };
        let top = |t: f32| y - who.brow_arch * arch(t.powf(1.3)).1 - thick * (1.0 - 0.7 * t);
        let bottom = |t: f32| top(t) + 2.0 * thick * (1.0 - 0.75 * t * t);
        let x = |t: f32| side * (who.eye_x - 0.17 + 0.36 * t);
        let steps = || (0..=10).map(|i| i as f32 / 10.0);
        let outline = steps().map(|t| (x(t), top(t))).chain(steps().rev().map(|t| (x(t), bottom(t))));
        canvas.fill(self.shape(outline), Ink::new(color, 0.92), to);
        let mut strands = fork(strands);
        if bushy {
            let hairs = lines((0..14).map(|i| {
                let t = i as f32 / 13.0;
                let lean = strands.range(0.01, 0.05);
                [
                    self.turn((x(t), bottom(t)), 0.0),
                    self.turn((x(t) + side * lean, top(t) - strands.range(0.0, 0.04)), 0.0),
                ]
            }));
            canvas.stroke(hairs, color, 0.018, to);
        }
    }

    fn nose(&self, canvas: &mut Canvas, light: f32) {
        let (to, who) = (self.to(), self.who);
        let dark = shade(self.skin(), 0.5);
        let (w, tip) = (who.nose_width, who.nose_y);
        let shaded = if self.pose.yaw.abs() > 0.15 { self.pose.yaw.signum() } else { -light.signum() };
        let ridge = [
            self.turn((shaded * 0.09, who.eye_y - 0.02), 0.0),
            self.turn((shaded * 0.06, who.eye_y + 0.16), 0.1),
            self.turn((shaded * w * 0.9, tip - 0.06), 0.1),
        ];
        canvas.stroke(polyline(ridge), Ink::new(dark, 0.5), 0.028, to);
        let (x, y) = self.turn((0.0, tip - 0.07), 0.2);
        canvas.fill(oval(x, y, w, 0.12), Ink::spot(x, y, 0.13, [255, 250, 240], 0.4), to);
        let base = (0..=8).map(|i| {
            let t = i as f32 / 4.0 - 1.0;
            self.turn((t * w, tip - 0.05 * t * t * t * t + 0.015 * (1.0 - t * t)), 0.12)
        });
        canvas.stroke(polyline(base), Ink::new(dark, 0.75), 0.025, to);
        for side in [-1.0, 1.0] {
            let (x, y) = self.turn((side * w * 0.5, tip - 0.01), 0.12);
            canvas.fill(oval(x, y, w * 0.24, 0.022), shade(self.skin(), 0.25), to);
        }
    }

    fn mouth(&self, canvas: &mut Canvas, extras: &mut Rng) {
        let (to, who) = (self.to(), self.who);
        let (smiling, open, lipstick) =
            (self.tags.has(Tag::Smiling), self.tags.has(Tag::MouthSlightlyOpen), self.tags.has(Tag::WearingLipstick));
        let w = who.mouth_width * if smiling { 1.35 } else { 1.0 };
        let bend = if smiling { 0.085 } else { -0.012 };
        let gap = if open { 0.15 } else { 0.0 };
        let paint = [[196, 16, 48], [150, 14, 74], [222, 40, 92]][extras.below(3)];
        let natural = mix(shade(self.skin(), 0.72), [150, 50, 52], 0.35);
        let (color, thick) = if lipstick { (paint, who.lip * 1.45) } else { (natural, who.lip) };

        let round = |x: f32| (1.0 - (x / w).powi(2)).max(0.0);
        let rest = |x: f32| who.mouth_y + bend * (0.6 - 1.6 * (x / w).powi(2));
        let upper = |x: f32| rest(x) - gap * 0.4 * round(x);
        let lower = |x: f32| rest(x) + gap * 0.6 * round(x);
        let bow = |x: f32| upper(x) - thick * round(x).powf(0.6) * (1.0 - 0.3 * (-(x / 0.06).powi(2)).exp());
        let rim = |x: f32| lower(x) + thick * 1.2 * round(x).powf(0.7);
        let across = || (0..=24).map(|i| (i as f32 / 12.0 - 1.0) * w);
        let band = |top: &dyn Fn(f32) -> f32, bottom: &dyn Fn(f32) -> f32| {
            let edge = across().map(|x| (x, top(x))).chain(across().rev().map(|x| (x, bottom(x))));
            self.shape(edge)
        };
        canvas.fill(band(&bow, &rim), shade(color, 0.95), to);
        canvas.fill(band(&lower, &rim), if lipstick { color } else { shade(color, 1.08) }, to);
        if open {
            canvas.fill(band(&upper, &lower), [58, 12, 16], to);
            canvas.fill(band(&upper, &|x| upper(x) + gap * 0.42 * round(x)), [246, 243, 236], to);
        } else {
            canvas.stroke(self.line(across().map(|x| (x, rest(x)))), shade(color, 0.42), 0.026, to);
        }
        let (x, y) = self.turn((0.0, rim(0.0) + 0.06), 0.0);
        canvas.fill(oval(x, y, 0.16, 0.05), Ink::spot(x, y, 0.14, shade(self.skin(), 0.4), 0.4), to);
    }

    fn mustache(&self, canvas: &mut Canvas, strands: &mut Rng) {
        let (who, color) = (self.who, self.beard());
        let w = who.mouth_width * 1.12;
        let end = who.mouth_y + if self.tags.has(Tag::Smiling) { -0.03 } else { 0.06 };
        let lip = who.mouth_y - who.lip * 0.6 - if self.tags.has(Tag::MouthSlightlyOpen) { 0.05 } else { 0.0 };
        let top = |t: f32| who.nose_y + 0.035 + (end - who.nose_y - 0.06) * t * t;
        let bottom = |t: f32| lip + (end - lip + 0.02) * t * t;
        self.whiskers(canvas, strands, color, &|t| t * w, &top, &bottom);
    }

    fn goatee(&self, canvas: &mut Canvas, strands: &mut Rng) {
        let (who, color) = (self.who, self.beard());
        let open = if self.tags.has(Tag::MouthSlightlyOpen) { 0.09 } else { 0.0 };
        let smile = if self.tags.has(Tag::Smiling) { 0.05 } else { 0.0 };
        let top = |t: f32| who.mouth_y + who.lip * 1.2 + 0.06 + open + smile - 0.04 * t * t;
        let bottom = |t: f32| 1.04 - 0.2 * t * t * t * t;
        self.whiskers(canvas, strands, color, &|t| t * 0.27, &top, &bottom);
    }

    /// Hair between two edges; the edges are functions of t in -1..1, left to right.
    fn whiskers(&self, canvas: &mut Canvas, rng: &mut Rng, color: Rgb, x: Edge, top: Edge, bottom: Edge) {
        let steps = || (0..=16).map(|i| i as f32 / 8.0 - 1.0);
        let edge = steps().map(|t| (x(t), top(t.abs()))).chain(steps().rev().map(|t| (x(t), bottom(t.abs()))));
        canvas.fill(self.shape(edge), Ink::new(color, 0.95), self.to());
        let hairs = lines((0..26).map(|_| {
            let t = rng.range(-0.95, 0.95);
            let (a, b) = (top(t.abs()), bottom(t.abs()));
            [self.turn((x(t), a + 0.2 * (b - a)), 0.0), self.turn((x(t * 1.06), b + rng.range(-0.02, 0.03)), 0.0)]
        }));
        canvas.stroke(hairs, Ink::new(shade(color, 1.5), 0.4), 0.014, self.to());
    }

    /// Hair on the face, dark enough to stand out from the skin.
    fn beard(&self) -> Rgb {
        let color = shade(self.hair_color(), 0.75);
        let light = |c: Rgb| c.iter().map(|&v| i32::from(v)).sum::<i32>();
        if (light(color) - light(self.skin())).abs() < 150 { shade(color, 0.35) } else { color }
    }

    /// The hair that falls behind the head.
    fn long_hair(&self, canvas: &mut Canvas, strands: &mut Rng) {
        let (w, wave) = (self.who.width + self.who.volume * 0.9, strands.range(0.02, 0.06));
        let side = |sign: f32| {
            (0..=20).map(move |i| {
                let t = i as f32 / 20.0;
                (sign * (w + 0.12 * t + wave * (t * 14.0).sin()), -0.4 + 1.9 * t)
            })
        };
        let path = polygon(side(-1.0).chain(side(1.0).collect::<Vec<_>>().into_iter().rev()));
        canvas.fill(path, shade(self.hair_color(), 0.8), self.to());
    }

    /// The hair on top: between the silhouette of the hair and the hairline on the forehead.
    fn hair(&self, canvas: &mut Canvas, strands: &mut Rng) {
        let (who, color, to) = (self.who, self.hair_color(), self.to());
        let bangs = self.tags.has(Tag::Bangs);
        let (w, volume) = (who.width, who.volume);
        let ragged: Vec<f32> = (0..=30).map(|_| strands.unit()).collect();
        // s runs from 0 at the left temple over the crown to 1 at the right one.
        let outer = |s: f32| {
            let (cos, sin) = arch(s);
            (-(w + 0.06 + 0.5 * volume) * cos, 0.12 - (1.3 + volume) * sin.powf(0.8))
        };
        let inner = |s: f32| {
            let x = (2.0 * s - 1.0) * w * 0.95;
            let temple = (2.0 * s - 1.0).abs();
            let y = if bangs {
                who.eye_y - 0.34 + 0.06 * ragged[(s * 30.0) as usize] + 0.36 * temple.powi(6)
            } else {
                -0.74 + 0.12 * (x - who.parting * w).abs() + 0.78 * temple.powi(5)
            };
            self.turn((x, y), 0.0)
        };
        let steps = || (0..=30).map(|i| i as f32 / 30.0);
        canvas.fill(polygon(steps().map(outer).chain(steps().rev().map(inner))), color, to);
        for (tone, width) in [(1.35, 0.022), (0.65, 0.022)] {
            let hairs = lines((0..20).map(|i| {
                let s = (i as f32 + strands.unit()) / 20.0;
                let (from, until) = (0.04 + 0.3 * strands.unit(), 0.7 + 0.25 * strands.unit());
                // Strands start near the parting and fan out towards the hairline.
                let root = 0.5 + who.parting * 0.3 + (s - 0.5 - who.parting * 0.3) * 0.75;
                let (a, b) = (outer(root), inner(s));
                [between(a, b, from), between(a, b, until)]
            }));
            canvas.stroke(hairs, Ink::new(shade(color, tone), 0.55), width, to);
        }
    }

    fn eyeglasses(&self, canvas: &mut Canvas, extras: &mut Rng) {
        let (who, to) = (self.who, self.to());
        let color = [[16, 16, 18], [92, 40, 20], [20, 30, 90], [120, 14, 30]][extras.below(4)];
        let (square, line) = (extras.range(2.0, 5.0), extras.range(0.04, 0.06));
        let (rx, ry) = (who.eye_x - 0.055, extras.range(0.17, 0.21));
        for side in [-1.0, 1.0] {
            let rim = turn_of(40).map(|(cos, sin)| {
                let p = |v: f32, r: f32| r * v.signum() * v.abs().powf(2.0 / square);
                (side * (who.eye_x + 0.01) + p(cos, rx), who.eye_y + 0.02 + p(sin, ry))
            });
            let path = self.shape(rim);
            canvas.fill(path.clone(), Ink::new([210, 230, 250], 0.2), to);
            canvas.stroke(path, color, line, to);
            let hinge = self.turn((side * (who.eye_x + 0.01 + rx), who.eye_y - 0.03), 0.0);
            let ear = (side * who.width * self.pose.yaw.cos() - 0.1 * self.pose.yaw.sin(), who.eye_y + 0.01);
            canvas.stroke(polyline([hinge, ear]), color, line, to);
        }
        let bridge = [-0.06, -0.02, 0.02, 0.06].map(|x: f32| self.turn((x, who.eye_y - 0.02 + 9.0 * x * x), 0.08));
        canvas.stroke(polyline(bridge), color, line, to);
    }

    fn hat(&self, canvas: &mut Canvas, clothes: &mut Rng) {
        let (to, w) = (self.to(), self.who.width + 0.5 * self.who.volume + 0.1);
        let color = VIVID[clothes.below(VIVID.len())];
        let band = shade(color, 0.55);
        let kind = clothes.below(3);
        let lean = 0.25 * self.pose.yaw.sin();
        let dome = (0..=24).map(|i| {
            let (cos, sin) = arch(i as f32 / 24.0);
            let power: f32 = if kind == 1 { 0.4 } else { 0.7 };
            (-w * cos.signum() * cos.abs().powf(power.max(0.6)), -0.55 - (0.72 + self.who.volume) * sin.powf(power))
        });
        let dome = polygon(dome);
        canvas.fill(dome.clone(), color, to);
        canvas.fill(dome.clone(), Ink::linear((-w, 0.0, [0, 0, 0], 0.0), (w, 0.0, [0, 0, 0], 0.35)), to);
        canvas.stroke(dome, Ink::new(band, 0.8), 0.025, to);
        match kind {
            // A knitted hat with a cuff, a hat with a brim, a cap with a visor.
            0 => {
                canvas.fill(rounded(-w - 0.03, -0.8, 2.0 * w + 0.06, 0.3, 0.1), shade(color, 0.8), to);
                let ribs = lines((0..12).map(|i| {
                    let x = (i as f32 / 5.5 - 1.0) * w * 0.95;
                    [(x, -0.78), (x, -0.54)]
                }));
                canvas.stroke(ribs, Ink::new(band, 0.8), 0.03, to);
                canvas.fill(oval(0.0, -1.3 - self.who.volume, 0.16, 0.14), shade(color, 1.25), to);
            }
            1 => {
                canvas.fill(rounded(-w, -0.8, 2.0 * w, 0.24, 0.02), band, to);
                canvas.fill(oval(lean, -0.56, w * 1.5, 0.14), shade(color, 0.9), to);
                canvas.stroke(oval(lean, -0.56, w * 1.5, 0.14), band, 0.025, to);
            }
            _ => {
                canvas.fill(oval(lean * 2.5, -0.55, w * 0.95, 0.16), band, to);
                canvas.fill(oval(lean, -0.95, 0.2, 0.16), shade(color, 1.5), to);
            }
        }
    }

    /// Neck, shoulders and clothes. They follow only a third of the head's roll.
    fn torso(&self, canvas: &mut Canvas, clothes: &mut Rng) {
        let (sin, cos) = (self.pose.roll / 3.0).sin_cos();
        let (s, (full_sin, full_cos)) = (self.pose.scale, self.pose.roll.sin_cos());
        // Joined to the head at the height of the chin, y = 0.7, which must be the same pixel in both frames.
        let (jx, jy) = (self.pose.x - 0.7 * s * full_sin, self.pose.y + 0.7 * s * full_cos);
        let to = Transform::from_row(s * cos, s * sin, -s * sin, s * cos, jx + 0.7 * s * sin, jy - 0.7 * s * cos);
        let (skin, tie) = (self.skin(), self.tags.has(Tag::WearingNecktie));
        let (plain, vivid) = (any_color(clothes), VIVID[clothes.below(VIVID.len())]);
        let (broad, striped, jacket) = (clothes.range(1.45, 1.85), clothes.chance(0.3), clothes.below(3));

        let neck = [(-0.36, 0.5), (0.36, 0.5), (0.38, 1.2), (0.5, 1.7), (-0.5, 1.7), (-0.38, 1.2)];
        canvas.fill(polygon(neck), shade(skin, 0.86), to);
        canvas.fill(polygon(neck), Ink::linear((0.0, 0.9, [40, 14, 6], 0.45), (0.0, 1.35, [40, 14, 6], 0.0)), to);

        let coat = if tie { [[34, 38, 52], [62, 62, 66], [70, 48, 38]][jacket] } else { plain };
        let right = [(0.42, 1.16), (0.75, 1.32), (1.2, 1.45), (broad, 1.75), (broad + 0.4, 2.8), (broad + 0.6, 9.0)];
        let left = right.map(|(x, y)| (-x, y));
        // Down the middle the neckline: a V for a jacket, a shallow one for a shirt.
        let neckline = [(0.0, if tie { 2.9 } else { 1.52 })];
        let body = || left.into_iter().rev().chain(neckline).chain(right);
        if tie {
            let shirt = [
                (-0.42, 1.14),
                (-0.2, 1.3),
                (0.2, 1.3),
                (0.42, 1.14),
                (0.8, 1.4),
                (0.2, 3.2),
                (-0.2, 3.2),
                (-0.8, 1.4),
            ];
            canvas.fill(polygon(shirt), [240, 241, 244], to);
        }
        canvas.fill(polygon(body()), coat, to);
        if striped && !tie {
            let stripes = lines((0..8).map(|i| [(-broad, 1.8 + 0.22 * i as f32), (broad, 1.8 + 0.22 * i as f32)]));
            canvas.stroke(stripes, Ink::new(shade(coat, 0.6), 0.8), 0.08, to);
        }
        canvas.stroke(polyline(body()), Ink::new(shade(coat, 0.5), 0.9), 0.04, to);
        if tie {
            for side in [-1.0, 1.0] {
                let flap = [(0.36, 1.06), (0.05, 1.33), (0.3, 1.58), (0.5, 1.2)].map(|(x, y)| (side * x, y));
                canvas.fill(polygon(flap), [252, 252, 254], to);
                canvas.stroke(polygon(flap), [170, 172, 180], 0.02, to);
            }
            let blade = [(-0.1, 1.5), (0.1, 1.5), (0.24, 2.7), (0.0, 3.0), (-0.24, 2.7)];
            canvas.fill(polygon(blade), vivid, to);
            let stripes = lines((0..6).map(|i| [(-0.12, 1.62 + 0.2 * i as f32), (0.12, 1.74 + 0.2 * i as f32)]));
            canvas.stroke(stripes, shade(vivid, 0.6), 0.05, to);
            let knot = [(-0.16, 1.28), (0.16, 1.28), (0.1, 1.54), (-0.1, 1.54)];
            canvas.fill(polygon(knot), shade(vivid, 0.8), to);
        }
    }
}

type Edge<'a> = &'a dyn Fn(f32) -> f32;

/// Colours of hats and ties.
const VIVID: [Rgb; 6] = [[196, 30, 44], [24, 74, 168], [20, 124, 80], [216, 160, 24], [110, 40, 130], [40, 44, 54]];

/// `n` steps around the unit circle, as (cos, sin).
fn turn_of(n: usize) -> impl Iterator<Item = Xy> {
    (0..n).map(move |i| {
        let (sin, cos) = (std::f32::consts::TAU * i as f32 / n as f32).sin_cos();
        (cos, sin)
    })
}

/// The upper half of the unit circle, as (cos, sin) with the sine never below 0, for s in 0..1.
fn arch(s: f32) -> Xy {
    let (sin, cos) = (std::f32::consts::PI * s).sin_cos();
    (cos, sin.max(0.0))
}

fn polyline(points: impl IntoIterator<Item = Xy>) -> Option<Path> {
    path(points, false)
}

fn polygon(points: impl IntoIterator<Item = Xy>) -> Option<Path> {
    path(points, true)
}

fn path(points: impl IntoIterator<Item = Xy>, close: bool) -> Option<Path> {
    let mut path = PathBuilder::new();
    for (i, (x, y)) in points.into_iter().enumerate() {
        if i == 0 { path.move_to(x, y) } else { path.line_to(x, y) }
    }
    if close {
        path.close();
    }
    path.finish()
}

/// Separate lines in one path, which is painted in a single call.
fn lines(pairs: impl Iterator<Item = [Xy; 2]>) -> Option<Path> {
    let mut path = PathBuilder::new();
    for [a, b] in pairs {
        path.move_to(a.0, a.1);
        path.line_to(b.0, b.1);
    }
    path.finish()
}

fn between(a: Xy, b: Xy, t: f32) -> Xy {
    (a.0 + (b.0 - a.0) * t, a.1 + (b.1 - a.1) * t)
}

/// Darker (below 1) or lighter.
fn shade(color: Rgb, by: f32) -> Rgb {
    color.map(|c| (f32::from(c) * by).clamp(0.0, 255.0) as u8)
}

fn mix(a: Rgb, b: Rgb, t: f32) -> Rgb {
    std::array::from_fn(|c| (f32::from(a[c]) + (f32::from(b[c]) - f32::from(a[c])) * t) as u8)
}

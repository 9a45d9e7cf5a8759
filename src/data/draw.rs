//! Drawing on photos: face boxes, attribute panels, heat maps.
//!
//! A [`Canvas`] is a photo with an alpha channel that paths and text are painted on. Painting cannot fail: what does not fit
//! is clipped, a degenerate shape paints nothing. All lengths are pixels; layouts are in units of the font size.

use std::borrow::Cow;

use ab_glyph::{Font, FontRef, ScaleFont};
use image::RgbImage;
use image::imageops::{FilterType, resize};
use tiny_skia::{
    Color, FillRule, GradientStop, LineCap, LineJoin, Paint, Path, PathBuilder, PixmapMut, Point, RadialGradient,
    Shader, SpreadMode, Stroke, Transform,
};

use super::photo::{Photo, Rect};

/// DejaVu Sans subset to printable ASCII; its licence is in the same folder.
static FONT: &[u8] = include_bytes!("font/DejaVuSans-ascii.ttf");

/// An opaque colour.
pub type Rgb = [u8; 3];

const ACCENT: Rgb = [45, 212, 191];
const PANEL: Rgb = [20, 22, 27];
const TRACK: Rgb = [46, 50, 59];
const TEXT: Rgb = [234, 236, 240];
const MUTED: Rgb = [139, 146, 158];

/// Annotated photos are enlarged until their shorter side has this many pixels, so that labels are legible...
const READABLE: f32 = 360.0;
/// ...unless the longer side would exceed this.
const LONGEST: f32 = 2048.0;
/// Font size as a fraction of the photo's shorter side, and its minimum in pixels.
const TYPE_SHARE: f32 = 1.0 / 27.0;
const TYPE_LEAST: f32 = 13.0;
/// Panel rows that always have room, whatever the photo's aspect ratio.
const ROWS_LEAST: usize = 8;

/// Premultiplied RGBA, row-major: `rgba[(y * width + x) * 4 + channel]`.
pub struct Canvas {
    pub width: usize,
    pub height: usize,
    rgba: Vec<u8>,
}

impl Canvas {
    /// An opaque canvas of one colour.
    pub fn new(width: usize, height: usize, [r, g, b]: Rgb) -> Self {
        Self { width, height, rgba: [r, g, b, 255].repeat(width * height) }
    }

    /// The photo as an opaque canvas.
    pub fn from_photo(photo: &Photo) -> Self {
        let rgba = photo.rgb.chunks_exact(3).flat_map(|p| [p[0], p[1], p[2], 255]).collect();
        Self { width: photo.width, height: photo.height, rgba }
    }

    /// The canvas as a photo.
    pub fn into_photo(self) -> Photo {
        let rgb = self.rgba.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect();
        Photo { width: self.width, height: self.height, rgb }
    }

    /// Fills a path, given in the coordinates that `to` maps to pixels.
    pub fn fill(&mut self, path: Option<Path>, shader: impl Into<Ink>, to: Transform) {
        if let (Some(mut pixmap), Some(path), Some(paint)) =
            (self.pixmap(), path.filter(|p| near(p, to)), shader.into().paint())
        {
            pixmap.fill_path(&path, &paint, FillRule::Winding, to, None);
        }
    }

    /// Strokes a path with round caps; `width` is in the path's units.
    pub fn stroke(&mut self, path: Option<Path>, shader: impl Into<Ink>, width: f32, to: Transform) {
        let stroke = Stroke { width, line_cap: LineCap::Round, line_join: LineJoin::Round, ..Stroke::default() };
        if let (Some(mut pixmap), Some(path), Some(paint)) =
            (self.pixmap(), path.filter(|p| near(p, to)), shader.into().paint())
        {
            pixmap.stroke_path(&path, &paint, &stroke, to, None);
        }
    }

    /// Draws one line of text; `x` is its left edge, `baseline` the y of its baseline, `size` the font size in pixels.
    pub fn text(&mut self, text: &str, x: f32, baseline: f32, size: f32, color: Rgb) {
        let Some(font) = font() else { return };
        let font = font.into_scaled(em(size));
        let mut pen = x;
        let mut last = None;
        for c in text.chars().map(printable) {
            let mut glyph = font.scaled_glyph(c);
            pen += last.map_or(0.0, |l| font.kern(l, glyph.id));
            glyph.position = ab_glyph::point(pen, baseline);
            pen += font.h_advance(glyph.id);
            last = Some(glyph.id);
            let Some(outline) = font.outline_glyph(glyph) else { continue };
            let corner = outline.px_bounds().min;
            outline.draw(|dx, dy, coverage| self.blend(corner.x + dx as f32, corner.y + dy as f32, color, coverage));
        }
    }

    /// Copies a photo in with its upper left corner at (`x`, `y`).
    fn paste(&mut self, photo: &Photo, x: usize, y: usize) {
        let columns = photo.width.min(self.width.saturating_sub(x));
        for row in 0..photo.height.min(self.height.saturating_sub(y)) {
            let from = &photo.rgb[row * photo.width * 3..][..columns * 3];
            let to = &mut self.rgba[((y + row) * self.width + x) * 4..][..columns * 4];
            for (to, from) in to.chunks_exact_mut(4).zip(from.chunks_exact(3)) {
                to[..3].copy_from_slice(from);
            }
        }
    }

    /// Blends a colour into the pixel at (x, y); outside the canvas does nothing.
    fn blend(&mut self, x: f32, y: f32, color: Rgb, alpha: f32) {
        if x < 0.0 || y < 0.0 || x >= self.width as f32 || y >= self.height as f32 {
            return;
        }
        let at = (y as usize * self.width + x as usize) * 4;
        for (old, new) in self.rgba[at..at + 3].iter_mut().zip(color) {
            *old = mix(*old, new, alpha.clamp(0.0, 1.0));
        }
    }

    /// `None` for an empty canvas: then there is nothing to paint on.
    fn pixmap(&mut self) -> Option<PixmapMut<'_>> {
        let (width, height) = (u32::try_from(self.width).ok()?, u32::try_from(self.height).ok()?);
        PixmapMut::from_bytes(&mut self.rgba, width, height)
    }
}

/// Whether all of the path is within the range of the rasteriser's fixed-point coordinates, beyond which it may panic.
fn near(path: &Path, to: Transform) -> bool {
    const FARTHEST: f32 = 32_000.0;
    let bounds = path.bounds().transform(to);
    bounds.is_some_and(|b| b.left().min(b.top()) > -FARTHEST && b.right().max(b.bottom()) < FARTHEST)
}

/// The paint of a path. A degenerate gradient is `None` inside and paints nothing.
pub struct Ink(Option<Shader<'static>>);

impl Ink {
    /// A colour with an opacity in 0..1.
    pub fn new([r, g, b]: Rgb, alpha: f32) -> Self {
        Self(Some(Shader::SolidColor(translucent([r, g, b], alpha))))
    }

    /// From `from` at one point to `to` at the other; each a colour and its opacity.
    pub fn linear(from: (f32, f32, Rgb, f32), to: (f32, f32, Rgb, f32)) -> Self {
        let stops =
            vec![GradientStop::new(0.0, translucent(from.2, from.3)), GradientStop::new(1.0, translucent(to.2, to.3))];
        let (start, end) = (Point::from_xy(from.0, from.1), Point::from_xy(to.0, to.1));
        Self(tiny_skia::LinearGradient::new(start, end, stops, SpreadMode::Pad, Transform::identity()))
    }

    /// A soft spot: opacity `alpha` at the centre, 0 at `radius`.
    pub fn spot(x: f32, y: f32, radius: f32, color: Rgb, alpha: f32) -> Self {
        let stops = vec![
            GradientStop::new(0.0, translucent(color, alpha)),
            GradientStop::new(0.45, translucent(color, alpha * 0.75)),
            GradientStop::new(1.0, translucent(color, 0.0)),
        ];
        let centre = Point::from_xy(x, y);
        Self(RadialGradient::new(centre, 0.0, centre, radius, stops, SpreadMode::Pad, Transform::identity()))
    }

    fn paint(self) -> Option<Paint<'static>> {
        self.0.map(|shader| Paint { shader, ..Paint::default() })
    }
}

impl From<Rgb> for Ink {
    fn from(color: Rgb) -> Self {
        Self::new(color, 1.0)
    }
}

fn translucent([r, g, b]: Rgb, alpha: f32) -> Color {
    Color::from_rgba8(r, g, b, (alpha.clamp(0.0, 1.0) * 255.0).round() as u8)
}

/// Linear interpolation from `a` to `b` at `t`.
fn mix(a: u8, b: u8, t: f32) -> u8 {
    (f32::from(a) + (f32::from(b) - f32::from(a)) * t + 0.5) as u8
}

/// A rectangle with rounded corners; `None` if it has no area.
pub fn rounded(x: f32, y: f32, width: f32, height: f32, radius: f32) -> Option<Path> {
    if !(width > 0.0 && height > 0.0) {
        return None;
    }
    let r = radius.min(width / 2.0).min(height / 2.0).max(0.0);
    let k = r * 0.448; // distance of a cubic's handle from the corner, for a quarter circle
    let (right, bottom) = (x + width, y + height);
    let mut p = PathBuilder::new();
    p.move_to(x + r, y);
    p.line_to(right - r, y);
    p.cubic_to(right - k, y, right, y + k, right, y + r);
    p.line_to(right, bottom - r);
    p.cubic_to(right, bottom - k, right - k, bottom, right - r, bottom);
    p.line_to(x + r, bottom);
    p.cubic_to(x + k, bottom, x, bottom - k, x, bottom - r);
    p.line_to(x, y + r);
    p.cubic_to(x, y + k, x + k, y, x + r, y);
    p.close();
    p.finish()
}

/// Width in pixels of one line of text.
pub fn text_width(text: &str, size: f32) -> f32 {
    let Some(font) = font() else { return 0.0 };
    let font = font.into_scaled(em(size));
    let ids: Vec<_> = text.chars().map(|c| font.glyph_id(printable(c))).collect();
    ids.iter().map(|&id| font.h_advance(id)).sum::<f32>() + ids.windows(2).map(|p| font.kern(p[0], p[1])).sum::<f32>()
}

/// The text, or the longest prefix that fits into `width` pixels together with an ellipsis.
fn fit(text: &str, size: f32, width: f32) -> Cow<'_, str> {
    if text_width(text, size) <= width {
        return text.into();
    }
    let mut cut: String = text.into();
    while cut.pop().is_some() {
        let tried = format!("{}...", cut.trim_end());
        if text_width(&tried, size) <= width {
            return tried.into();
        }
    }
    "".into()
}

fn font() -> Option<FontRef<'static>> {
    FontRef::try_from_slice(FONT).ok()
}

/// ab_glyph scales by ascent to descent; DejaVu's is 1.164 em.
fn em(size: f32) -> f32 {
    size * 1.164
}

/// The font has printable ASCII only.
fn printable(c: char) -> char {
    match c {
        ' '..='~' => c,
        c if c.is_whitespace() => ' ',
        _ => '?',
    }
}

/// Outlines a face: an accent line of `line` pixels on top of a wider dark one, which keeps it visible on any background.
pub fn outline(canvas: &mut Canvas, face: Rect, line: f32) {
    let path = || rounded(face.x, face.y, face.width, face.height, line * 3.0);
    canvas.stroke(path(), Ink::new([0, 0, 0], 0.55), line * 2.2, Transform::identity());
    canvas.stroke(path(), ACCENT, line, Transform::identity());
}

/// The picture that `weft predict --annotate` writes: the photo with the face's box and label, and next to it a panel with
/// as many `lines` (attribute, score in 0..1 or -1..1) as fit, in the order given. Bars start at the middle if any shown
/// score is negative. A photo too small for legible text is enlarged; without lines there is no panel.
pub fn annotate(photo: &Photo, face: Option<(Rect, &str)>, lines: &[(String, f32)]) -> Photo {
    let (width, height) = (photo.width as f32, photo.height as f32);
    if photo.width == 0 || photo.height == 0 {
        return photo.clone();
    }
    let zoom = (READABLE / width.min(height)).min(LONGEST / width.max(height)).max(1.0);
    let photo = enlarge(photo, zoom);
    let size = (photo.width.min(photo.height) as f32 * TYPE_SHARE).max(TYPE_LEAST).round();
    let panel = Panel::new(lines, size);

    let height = photo.height.max(panel.height(lines.len().min(ROWS_LEAST)).ceil() as usize);
    let top = (height - photo.height) / 2;
    let mut canvas = Canvas::new(photo.width + panel.width.ceil() as usize, height, PANEL);
    canvas.paste(&photo, 0, top);
    if let Some((rect, label)) = face {
        let rect = Rect {
            x: rect.x * zoom,
            y: rect.y * zoom + top as f32,
            width: rect.width * zoom,
            height: rect.height * zoom,
        };
        let frame = Rect { x: 0.0, y: top as f32, width: photo.width as f32, height: photo.height as f32 };
        draw_face(&mut canvas, rect, label, size, frame);
    }
    panel.draw(&mut canvas, photo.width as f32);
    canvas.into_photo()
}

/// The part of a box inside the photo, `line` pixels from its border, so that the outline of a box that extends beyond
/// stays visible and off the panel.
fn cut(face: Rect, photo: Rect, line: f32) -> Rect {
    // max and min also replace NaN by the bound.
    let (x, y) = (face.x.max(photo.x + line), face.y.max(photo.y + line));
    let (right, bottom) = (
        (face.x + face.width).min(photo.x + photo.width - line),
        (face.y + face.height).min(photo.y + photo.height - line),
    );
    Rect { x, y, width: right - x, height: bottom - y }
}

/// The box, and its label in a pill above it (inside it if there is no room above).
fn draw_face(canvas: &mut Canvas, face: Rect, label: &str, size: f32, photo: Rect) {
    let line = (size * 0.16).max(2.0);
    let face = cut(face, photo, line);
    outline(canvas, face, line);
    let label = fit(label, size, photo.width - size * 1.5);
    if label.is_empty() {
        return;
    }
    let (width, height) = (text_width(&label, size) + size, size * 1.6);
    let x = (face.x - line / 2.0).clamp(0.0, (photo.width - width).max(0.0));
    let above = face.y - height - line * 1.5;
    let y = if above >= 0.0 { above } else { face.y.max(0.0) + line * 1.5 };
    canvas.fill(
        rounded(x - 1.0, y - 1.0, width + 2.0, height + 2.0, size * 0.4),
        Ink::new([0, 0, 0], 0.45),
        Transform::identity(),
    );
    canvas.fill(rounded(x, y, width, height, size * 0.35), ACCENT, Transform::identity());
    canvas.text(&label, x + size * 0.5, y + size * 1.15, size, PANEL);
}

/// The attribute panel: a heading, then per attribute its name, its score and a bar. Lengths below are in units of the font
/// size.
struct Panel<'a> {
    lines: &'a [(String, f32)],
    size: f32,
    /// Width of the whole panel, pixels; 0 without lines.
    width: f32,
}

impl<'a> Panel<'a> {
    const MARGIN: f32 = 1.5;
    const HEADING: f32 = 2.2;
    const ROW: f32 = 2.45;
    const WIDEST: f32 = 18.0;

    fn new(lines: &'a [(String, f32)], size: f32) -> Self {
        let names =
            lines.iter().map(|(name, _)| text_width(name, size)).fold(size * 8.0, f32::max).min(size * Self::WIDEST);
        let width =
            if lines.is_empty() { 0.0 } else { names + text_width("  -0.00", size) + 2.0 * Self::MARGIN * size };
        Self { lines, size, width }
    }

    /// Pixels that `rows` rows need.
    fn height(&self, rows: usize) -> f32 {
        if rows == 0 { 0.0 } else { self.size * (2.0 * Self::MARGIN + Self::HEADING + rows as f32 * Self::ROW - 0.5) }
    }

    /// Draws to the right of x = `left`, over the whole height of the canvas.
    fn draw(&self, canvas: &mut Canvas, left: f32) {
        let size = self.size;
        let rows = (1..=self.lines.len()).take_while(|&n| self.height(n) <= canvas.height as f32).count();
        let lines = &self.lines[..rows];
        let signed = lines.iter().any(|&(_, score)| score < 0.0);
        let (x, width) = (left + Self::MARGIN * size, self.width - 2.0 * Self::MARGIN * size);
        let mut y = Self::MARGIN * size;
        if !self.lines.is_empty() {
            canvas.text("Attributes", x, y + size * 0.85, size * 0.85, MUTED);
        }
        y += Self::HEADING * size;
        for (name, score) in lines {
            let score = if score.is_finite() { score.clamp(-1.0, 1.0) } else { 0.0 };
            let value = format!("{score:.2}");
            let value_width = text_width(&value, size * 0.9);
            let name = name.replace('_', " ");
            canvas.text(&fit(&name, size, width - value_width - size * 0.5), x, y + size * 0.75, size, TEXT);
            canvas.text(&value, x + width - value_width, y + size * 0.75, size * 0.9, MUTED);

            let (bar, thick) = (y + size * 1.2, (size * 0.3).max(3.0));
            canvas.fill(rounded(x, bar, width, thick, thick), TRACK, Transform::identity());
            let (from, to) = if signed { (0.5, 0.5 + score / 2.0) } else { (0.0, score) };
            let length = ((to - from).abs() * width).max(thick);
            let color = if score < 0.0 { MUTED } else { ACCENT };
            canvas.fill(rounded(x + from.min(to) * width, bar, length, thick, thick), color, Transform::identity());
            y += Self::ROW * size;
        }
    }
}

/// The photo enlarged `zoom` times (at least 1).
fn enlarge(photo: &Photo, zoom: f32) -> Cow<'_, Photo> {
    let scaled = |n: usize| (n as f32 * zoom).round() as u32;
    let image =
        (zoom > 1.0).then(|| RgbImage::from_raw(photo.width as u32, photo.height as u32, photo.rgb.clone())).flatten();
    match image {
        Some(image) => {
            let large = resize(&image, scaled(photo.width), scaled(photo.height), FilterType::CatmullRom);
            let (width, height) = (large.width() as usize, large.height() as usize);
            Cow::Owned(Photo { width, height, rgb: large.into_raw() })
        }
        None => Cow::Borrowed(photo),
    }
}

/// Inferno (van der Walt and Smith) at eight equal steps: perceptually uniform from dark to bright, also for colour-blind
/// readers and in greyscale print.
const INFERNO: [Rgb; 8] = [
    [0, 0, 4],
    [40, 11, 84],
    [101, 21, 110],
    [159, 42, 99],
    [212, 72, 66],
    [245, 125, 21],
    [250, 193, 39],
    [252, 255, 164],
];

/// A response map (`map_h` rows of `map_w` values, any range) over the darkened grey photo. The map is stretched over the
/// whole photo and coloured between its smallest and largest finite value; where there is no response, the photo shows.
/// A map whose length is not `map_w * map_h` shows nothing.
pub fn heat_map(photo: &Photo, map: &[f32], map_w: usize, map_h: usize) -> Photo {
    let finite = || map.iter().copied().filter(|v| v.is_finite());
    let (low, high) = (finite().fold(f32::INFINITY, f32::min), finite().fold(f32::NEG_INFINITY, f32::max));
    let whole = !map.is_empty() && map.len() == map_w * map_h && low <= high;
    // Halved before subtraction: the range of finite values may overflow.
    let range = high / 2.0 - low / 2.0;
    let unit = |v: f32| if v.is_finite() && range > 0.0 { (v / 2.0 - low / 2.0) / range } else { 0.0 };
    let values: Vec<f32> = map.iter().map(|&v| unit(v)).collect();
    let columns: Vec<_> = (0..photo.width).map(|x| between(x, photo.width, map_w)).collect();

    let mut out = photo.clone();
    for (y, row) in out.rgb.chunks_exact_mut((photo.width * 3).max(1)).enumerate() {
        let (y0, y1, v) = between(y, photo.height, map_h);
        for (pixel, &(x0, x1, u)) in row.chunks_exact_mut(3).zip(&columns) {
            let at = |x: usize, y: usize| values[y * map_w + x];
            let heat = if whole {
                let (top, bottom) = (lerp(at(x0, y0), at(x1, y0), u), lerp(at(x0, y1), at(x1, y1), u));
                lerp(top, bottom, v)
            } else {
                0.0
            };
            let grey = (0.299 * f32::from(pixel[0]) + 0.587 * f32::from(pixel[1]) + 0.114 * f32::from(pixel[2])) * 0.5;
            for (channel, hot) in pixel.iter_mut().zip(inferno(heat)) {
                *channel = mix(grey as u8, hot, 0.25 + 0.6 * heat);
            }
        }
    }
    out
}

/// The two samples of `n` that pixel `i` of `pixels` lies between, and the interpolation weight of the second.
fn between(i: usize, pixels: usize, n: usize) -> (usize, usize, f32) {
    let last = n.saturating_sub(1);
    let at = ((i as f32 + 0.5) / pixels as f32 * n as f32 - 0.5).clamp(0.0, last as f32);
    let low = (at as usize).min(last);
    (low, (low + 1).min(last), at - low as f32)
}

fn lerp(a: f32, b: f32, t: f32) -> f32 {
    a + (b - a) * t
}

fn inferno(v: f32) -> Rgb {
    let at = v.clamp(0.0, 1.0) * (INFERNO.len() - 1) as f32;
    let low = (at as usize).min(INFERNO.len() - 2);
    std::array::from_fn(|c| mix(INFERNO[low][c], INFERNO[low + 1][c], at - low as f32))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grey(width: usize, height: usize) -> Photo {
        Photo { width, height, rgb: vec![128; width * height * 3] }
    }

    fn scores(n: usize) -> Vec<(String, f32)> {
        (0..n).map(|i| (format!("Attribute_{i}"), 1.0 - i as f32 / n as f32)).collect()
    }

    #[test]
    fn the_font_has_every_printable_ascii_letter() {
        let font = font().expect("the font parses");
        assert!((' '..='~').all(|c| font.glyph_id(c).0 != 0));
        assert!(text_width("Smiling", 20.0) > text_width("Smi", 20.0));
        // DejaVu Sans's M is 0.863 em wide: font sizes are in ems.
        assert!((text_width("M", 100.0) - 86.3).abs() < 0.2, "{}", text_width("M", 100.0));
    }

    #[test]
    fn a_long_text_is_cut_to_its_width() {
        let cut = fit("A very long attribute name", 20.0, 100.0);
        assert!(cut.ends_with("...") && text_width(&cut, 20.0) <= 100.0);
        assert_eq!(fit("Hat", 20.0, 100.0), "Hat");
        assert_eq!(fit("Hat", 20.0, 1.0), "");
    }

    #[test]
    fn any_photo_can_be_annotated() {
        let wild = Rect { x: -50.0, y: -1e9, width: 1e9, height: 1e9 };
        let nan = Rect { x: f32::NAN, y: 0.0, width: f32::INFINITY, height: 5.0 };
        let sane = Rect { x: 2.0, y: 2.0, width: 8.0, height: 9.0 };
        let lines = [scores(40), vec![("Ünïcode".into(), f32::NAN), (String::new(), -7.0)]].concat();
        for (width, height) in [(0, 0), (0, 9), (1, 1), (20, 20), (1, 3000), (3000, 1), (5000, 40), (2000, 1500)] {
            for face in [wild, nan, sane] {
                let photo = grey(width, height);
                let out = annotate(&photo, Some((face, "face 0.98")), &lines);
                assert_eq!(out.rgb.len(), out.width * out.height * 3);
                assert!(out.width >= width && out.height >= height);
                assert_eq!(heat_map(&photo, &[0.0, 1.0, f32::NAN, 2.0], 2, 2).rgb.len(), photo.rgb.len());
            }
        }
    }

    #[test]
    fn shapes_far_away_are_painted_without_harm() {
        for far in [0.0, 50.0, 9e3, 3e4, 9e4, 1e6, 1e12, f32::MAX, f32::NAN] {
            for (x, y) in [(far, 0.0), (-far, 0.0), (0.0, far), (0.0, -far), (-far, -far)] {
                let mut canvas = Canvas::new(60, 40, [0; 3]);
                for side in [30.0, far] {
                    outline(&mut canvas, Rect { x, y, width: side, height: side }, 3.0);
                    canvas.fill(rounded(x, y, side, side, 5.0), ACCENT, Transform::from_rotate(20.0));
                }
                canvas.text("far", x, y, 12.0, TEXT);
            }
        }
    }

    #[test]
    fn the_panel_stands_beside_the_photo() {
        let photo = grey(400, 500);
        let out = annotate(&photo, None, &scores(40));
        assert!(out.width > 500 && out.height == 500);
        for y in 0..500 {
            assert_eq!(out.rgb[y * out.width * 3..][..400 * 3], photo.rgb[y * 400 * 3..][..400 * 3]);
        }
        assert_eq!(annotate(&photo, None, &[]), photo);
    }

    #[test]
    fn the_box_is_visible_on_any_background() {
        for level in [0, 45, 128, 255] {
            let photo = Photo { width: 400, height: 400, rgb: vec![level; 400 * 400 * 3] };
            let out = annotate(&photo, Some((Rect { x: 100.0, y: 100.0, width: 200.0, height: 200.0 }, "")), &[]);
            let left: Vec<&[u8]> = (90..110).map(|x| &out.rgb[(200 * 400 + x) * 3..][..3]).collect();
            assert!(left.contains(&&ACCENT[..]), "the line is missing on {level}");
        }
    }

    #[test]
    fn the_hottest_place_is_the_brightest() {
        let photo = grey(40, 40);
        let out = heat_map(&photo, &[-3.0, -3.0, -3.0, 5.0], 2, 2);
        let sum = |x: usize, y: usize| out.rgb[(y * 40 + x) * 3..][..3].iter().map(|&v| u32::from(v)).sum::<u32>();
        assert!(sum(38, 38) > 2 * sum(1, 1));
        assert!((0..39).all(|i| sum(i + 1, i + 1) >= sum(i, i)));
    }

    #[test]
    fn a_map_of_the_wrong_size_shows_nothing() {
        let photo = grey(8, 8);
        assert_eq!(heat_map(&photo, &[1.0; 5], 2, 2), heat_map(&photo, &[], 0, 0));
        assert_eq!(heat_map(&photo, &[f32::MIN, f32::MAX], 2, 1).rgb.len(), 8 * 8 * 3);
    }
}

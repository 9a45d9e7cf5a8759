//! Decoding and encoding of picture files.
//!
//! Whatever a file contains (greyscale, 16 bits, CMYK, transparency, a rotated camera), [`Photo::open`] returns upright 8-bit
//! RGB, or an error of one line. Nothing downstream depends on formats.
//! Pillow is the reference for the meaning of a file; `benches/peers/pixels.py` generates the pictures of the comparison.

use super::{Photo, gif, jpeg, png, tiff, webp};
use crate::error::At;
use crate::weights::write_atomic;
use crate::{Error, Result};
use image::metadata::Orientation;
use image::{DynamicImage, ImageDecoder, ImageEncoder, ImageFormat, ImageReader, Limits, RgbImage};
use std::cell::Cell;
use std::fmt::Display;
use std::fs::File;
use std::io::{Cursor, Read};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

/// The longest side that is decoded, in pixels.
pub const MAX_SIDE: u32 = 16_384;
/// Maximum number of pixels that are decoded.
pub const MAX_PIXELS: u64 = 128 << 20;
/// Maximum number of bytes of a photo's file: `MAX_PIXELS` of uncompressed 16-bit RGBA.
const MAX_FILE_BYTES: u64 = MAX_PIXELS * 8;
/// Allocation limit of a decoder: its output and as much again as working memory.
pub(super) const MAX_DECODER_BYTES: u64 = 2 * MAX_FILE_BYTES;

pub(super) const REPLACE_IT: &str = "save the photo anew or remove it";

impl Photo {
    /// Reads a JPEG, PNG, BMP, WebP, GIF (first frame), TIFF (first page) or PNM file; the format is detected from the content,
    /// not the name. Transparency is composited over white, and the orientation in EXIF or XMP is applied. Samples of
    /// 16 bits are rounded to 8.
    ///
    /// Errors: unreadable, not a picture, truncated or corrupt, empty, or larger than [`MAX_SIDE`] or [`MAX_PIXELS`]
    /// (from the header, before memory is allocated).
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        Self::decode(&read(path)?, path.display())
    }

    /// As [`Photo::open`], but a truncated or damaged JPEG is used, with the missing part grey, as long as its first rows are
    /// present; the warning, ready to be shown, says what is missing. For answers about a photo,
    /// not for training, where a grey face would go unnoticed.
    pub fn open_lenient(path: impl AsRef<Path>) -> Result<(Self, Option<Error>)> {
        let path = path.as_ref();
        Self::decode_lenient(&read(path)?, path.display())
    }

    /// Decodes the content of a picture file; `place` names its source in errors. Otherwise as [`Photo::open`].
    pub fn decode(bytes: &[u8], place: impl Display) -> Result<Self> {
        match Self::decode_lenient(bytes, place)? {
            (photo, None) => Ok(photo),
            (_, Some(fault)) => Err(fault),
        }
    }

    /// Decodes the content of a picture file; `place` names its source in errors and in the warning. Otherwise as
    /// [`Photo::open_lenient`].
    pub fn decode_lenient(bytes: &[u8], place: impl Display) -> Result<(Self, Option<Error>)> {
        // Decoders are third-party code that parses untrusted bytes: a bug there costs one photo, not the run.
        DECODING.set(true);
        let found = catch_unwind(AssertUnwindSafe(|| decode(bytes)));
        DECODING.set(false);
        let found = found.unwrap_or_else(|_| Err(Error::new("", "the decoder failed on it").advise(REPLACE_IT)));
        match found {
            Ok((photo, warning)) => Ok((photo, warning.map(|w| w.within(place)))),
            Err(e) => Err(e.within(place)),
        }
    }

    /// Writes a PNG, atomically: at every moment, `path` is either the old file or the complete new one.
    pub fn save_png(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let mut png = Vec::new();
        image::codecs::png::PngEncoder::new(&mut png)
            .write_image(&self.rgb, self.width as u32, self.height as u32, image::ExtendedColorType::Rgb8)
            .at(path)?;
        write_atomic(path, |file| file.write_all(&png))
    }
}

impl From<RgbImage> for Photo {
    fn from(image: RgbImage) -> Self {
        let (width, height) = (image.width() as usize, image.height() as usize);
        Self { width, height, rgb: image.into_raw() }
    }
}

impl TryFrom<Photo> for RgbImage {
    type Error = Error;

    fn try_from(photo: Photo) -> Result<Self> {
        let Photo { width, height, rgb } = photo;
        let sides = u32::try_from(width).ok().zip(u32::try_from(height).ok());
        let image = sides.and_then(|(width, height)| RgbImage::from_raw(width, height, rgb));
        image.ok_or_else(|| Error::new("photo", format!("{width} x {height} pixels and its bytes do not fit together")))
    }
}

thread_local! {
    static DECODING: Cell<bool> = const { Cell::new(false) };
}

/// Whether this thread is inside a decoder, whose panic becomes an error of one photo: panic hooks can then stay silent.
pub fn is_decoding() -> bool {
    DECODING.get()
}

/// The content of a file, or of an open pipe named by the shell (`<(...)`, /dev/stdin). Opening any other pipe might block
/// forever, and a device has no end.
fn read(path: &Path) -> Result<Vec<u8>> {
    let by_descriptor = ["/dev/fd", "/dev/stdin", "/proc"].iter().any(|place| path.starts_with(place));
    if !by_descriptor && !std::fs::metadata(path).at(path)?.is_file() {
        return Err(Error::file(path, "is not a regular file").advise("give files, not folders, pipes or devices"));
    }
    let mut bytes = Vec::new();
    // One byte more than allowed distinguishes "too large" from "just fits", on pipes too.
    File::open(path).at(path)?.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).at(path)?;
    Ok(bytes)
}

/// [`Photo::decode_lenient`] without its place.
fn decode(bytes: &[u8]) -> Result<(Photo, Option<Error>)> {
    if bytes.len() as u64 > MAX_FILE_BYTES {
        return Err(Error::new("", format!("larger than {MAX_FILE_BYTES} bytes")).advise("is this a photo?"));
    }
    let reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().at("")?;
    let ((mut image, orientation), warning) = match reader.format() {
        None if tiff::is_big(bytes) => (tiff::decode(bytes)?, None),
        None => {
            let found = if bytes.is_empty() { "an empty file" } else { "not a picture of a known format" };
            return Err(Error::new("", found).advise("JPEG, PNG, BMP, WebP, GIF, TIFF and PNM are read"));
        }
        Some(ImageFormat::Jpeg) => jpeg::decode(bytes)?,
        Some(ImageFormat::Tiff) => (tiff::decode(bytes)?, None),
        Some(ImageFormat::Png) => ((decode_other(reader)?, png::orientation(bytes)), None),
        Some(ImageFormat::WebP) => ((decode_other(reader)?, webp::orientation(bytes)), None),
        Some(format) => {
            if format == ImageFormat::Gif
                && let Some((width, height)) = gif::first_frame(bytes)
            {
                check_size(width, height)?;
            }
            ((decode_other(reader)?, Orientation::NoTransforms), None)
        }
    };
    image.apply_orientation(orientation);
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok((Photo { width, height, rgb: over_white(image) }, warning))
}

/// Formats that the `image` crate decodes as required: the pixels as stored.
fn decode_other(mut reader: ImageReader<Cursor<&[u8]>>) -> Result<DynamicImage> {
    let corrupt = |e: image::ImageError| Error::new("", e).advise(REPLACE_IT);
    let mut limits = Limits::default();
    limits.max_alloc = Some(MAX_DECODER_BYTES);
    reader.limits(limits);
    let decoder = reader.into_decoder().map_err(corrupt)?;
    let (width, height) = decoder.dimensions();
    check_size(width, height)?;
    DynamicImage::from_decoder(decoder).map_err(corrupt)
}

/// Rejects what is empty or too large; called before memory is allocated.
pub(super) fn check_size(width: u32, height: u32) -> Result<()> {
    if width == 0 || height == 0 {
        return Err(Error::new("", format!("{width} x {height} pixels: there is nothing in it")).advise(REPLACE_IT));
    }
    if width.max(height) > MAX_SIDE || u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(Error::new("", format!("{width} x {height} pixels"))
            .advise(format!("shrink it: at most {MAX_SIDE} pixels a side and {} million in all", MAX_PIXELS >> 20)));
    }
    Ok(())
}

/// 8-bit RGB of any kind of picture, over white.
fn over_white(image: DynamicImage) -> Vec<u8> {
    if !image.color().has_alpha() {
        return image.into_rgb8().into_raw();
    }
    image.into_rgba8().chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]].map(|color| blend(color, p[3]))).collect()
}

/// A colour over white, rounded to nearest.
pub(super) fn blend(color: u8, alpha: u8) -> u8 {
    let (color, alpha) = (u32::from(color), u32::from(alpha));
    ((color * alpha + 255 * (255 - alpha) + 127) / 255) as u8
}

/// 16 bits as 8, rounded to nearest: 65535 is 257 * 255.
pub(super) fn eight_of_sixteen(sample: u16) -> u8 {
    ((u32::from(sample) + 128) / 257) as u8
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn gradient() -> Photo {
        Photo::from_fn(37, 21, |x, y| [(x * 6) as u8, (y * 11) as u8, (x + y) as u8])
    }

    fn gradient_as(format: ImageFormat) -> Vec<u8> {
        let photo = gradient();
        let image = image::RgbImage::from_raw(photo.width as u32, photo.height as u32, photo.rgb).unwrap();
        encoded(&DynamicImage::ImageRgb8(image), format)
    }

    #[test]
    fn lossless_formats_return_every_pixel() {
        use ImageFormat::*;
        for format in [Png, Bmp, WebP, Tiff, Pnm] {
            assert_eq!(Photo::decode(&gradient_as(format), "test").unwrap(), gradient(), "{format:?}");
        }
        for format in [Jpeg, Gif] {
            let photo = Photo::decode(&gradient_as(format), "test").unwrap();
            assert_eq!((photo.width, photo.height), (37, 21), "{format:?}");
        }
    }

    #[test]
    fn grey_sixteen_bits_and_alpha_become_eight_bit_rgb() {
        let grey = DynamicImage::ImageLuma8(image::GrayImage::from_pixel(1, 1, image::Luma([77])));
        let deep = DynamicImage::ImageRgb16(image::ImageBuffer::from_pixel(1, 1, image::Rgb([0, 257 * 130, 65535])));
        let clear = DynamicImage::ImageRgba8(image::RgbaImage::from_pixel(1, 1, image::Rgba([0, 100, 255, 51])));
        let grey_alpha = DynamicImage::ImageLumaA16(image::ImageBuffer::from_pixel(1, 1, image::LumaA([0, 0])));
        for (image, rgb) in [
            (grey, [77, 77, 77]),
            (deep, [0, 130, 255]),
            (clear, [204, 224, 255]), // 0.2 of the colour, 0.8 of white
            (grey_alpha, [255, 255, 255]),
        ] {
            let photo = Photo::decode(&encoded(&image, ImageFormat::Png), "test").unwrap();
            assert_eq!((photo.width, photo.height, photo.pixel(0, 0)), (1, 1, rgb));
        }
    }

    #[test]
    fn every_cut_of_a_file_is_an_error_that_names_it() {
        for format in [ImageFormat::Jpeg, ImageFormat::Png, ImageFormat::Bmp] {
            let bytes = gradient_as(format);
            for cut in 0..bytes.len() {
                // A PNG has all of its pixels before its closing chunk, which the decoder does not require.
                if format == ImageFormat::Png && cut + 16 > bytes.len() {
                    continue;
                }
                let error = Photo::decode(&bytes[..cut], "a.jpg").expect_err(&format!("{format:?} cut at {cut}"));
                assert!(error.to_string().starts_with("a.jpg: "), "{error}");
            }
        }
    }

    #[test]
    fn a_huge_header_is_refused_before_memory_is_taken() {
        for (width, height) in [(16_385_u32, 1_u32), (1, 16_385), (16_384, 16_384), (u32::MAX >> 1, u32::MAX >> 1)] {
            let header = format!("P6\n{width} {height}\n255\n");
            let error = Photo::decode(header.as_bytes(), "big.ppm").unwrap_err().to_string();
            assert!(error.contains(&format!("{width} x {height} pixels; shrink it")), "{error}");
        }
    }

    #[test]
    fn an_empty_picture_is_refused() {
        let error = Photo::decode(b"P6\n0 3\n255\n", "none.ppm").unwrap_err().to_string();
        assert!(error.starts_with("none.ppm: "), "{error}");
        let error = Photo::decode(b"", "none.jpg").unwrap_err().to_string();
        assert!(error.starts_with("none.jpg: an empty file; "), "{error}");
    }

    #[test]
    fn a_saved_png_reads_back_equal_and_replaces_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.png");
        std::fs::write(&path, "old").unwrap();
        gradient().save_png(&path).unwrap();
        assert_eq!(Photo::open(&path).unwrap(), gradient());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "a temporary file was left behind");
        let error = gradient().save_png(folder.path().join("no/such/a.png")).unwrap_err().to_string();
        assert!(error.contains("no/such/a.png"), "{error}");
    }

    #[test]
    fn fit_within_keeps_the_shape_and_never_enlarges() {
        let (small, factor) = Photo::from_fn(400, 100, |_, _| [9; 3]).fit_within(200);
        assert_eq!((small.width, small.height, factor), (200, 50, 0.5));
        let (thin, _) = Photo::from_fn(400, 1, |_, _| [9; 3]).fit_within(10);
        assert_eq!((thin.width, thin.height), (10, 1));
        assert_eq!(gradient().fit_within(37), (gradient(), 1.0));
    }

    proptest! {
        #[test]
        fn damaged_files_never_panic(format in 0..7_usize, damage in prop::collection::vec((any::<u16>(), any::<u8>()), 1..12)) {
            use ImageFormat::*;
            let mut bytes = gradient_as([Jpeg, Png, Bmp, WebP, Gif, Tiff, Pnm][format]);
            let n = bytes.len();
            for (at, value) in damage {
                bytes[usize::from(at) % n] = value;
            }
            // The private function: the public one would catch the panic that this test detects.
            if let Ok((photo, _)) = decode(&bytes) {
                prop_assert_eq!(photo.rgb.len(), photo.width * photo.height * 3);
            }
        }
    }
}

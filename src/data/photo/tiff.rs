//! TIFF: the `tiff` crate decompresses the samples, and their interpretation is decided here.
//!
//! The copy of the file that the crate sees always declares "grey" (or "multiband"), so that it returns every sample as it is
//! stored, alpha and padding included; and its bits are reversed if FillOrder requires it.

use std::io::Cursor;
use std::ops::Range;

use image::metadata::Orientation;
use image::{DynamicImage, RgbImage};
use tiff::ColorType;
use tiff::decoder::{Decoder, DecodingResult, Limits};

use super::decode::{MAX_DECODER_BYTES, MAX_SIDE, REPLACE_IT, check_size};
use super::exif::{Directory, tiff_orientation};
use super::jpeg::Segments;
use crate::{Error, Result};

const BITS_PER_SAMPLE: u16 = 258;
const COMPRESSION: u16 = 259;
const PHOTOMETRIC: u16 = 262;
const FILL_ORDER: u16 = 266;
const STRIP_OFFSETS: u16 = 273;
const STRIP_BYTES: u16 = 279;
const SAMPLES_PER_PIXEL: u16 = 277;
const PLANAR: u16 = 284;
const COLOR_MAP: u16 = 320;
const TILE_OFFSETS: u16 = 324;
const TILE_BYTES: u16 = 325;
const EXTRA_SAMPLES: u16 = 338;
const CHROMA_SUBSAMPLING: u16 = 530;

/// Tags that the crate reads; with a corrupt one it could allocate whatever size the tag claims.
const NEEDED: [u16; 21] = [
    256,
    257,
    BITS_PER_SAMPLE,
    COMPRESSION,
    PHOTOMETRIC,
    FILL_ORDER,
    STRIP_OFFSETS,
    SAMPLES_PER_PIXEL,
    278,
    STRIP_BYTES,
    PLANAR,
    317,
    COLOR_MAP,
    322,
    323,
    TILE_OFFSETS,
    TILE_BYTES,
    EXTRA_SAMPLES,
    339,
    347,
    CHROMA_SUBSAMPLING,
];

const LZW: u64 = 5;
const JPEG: u64 = 7;
/// Bytes of the decoder's internal buffer, rounded up.
const LZW_STORE: usize = 16;
/// Maximum number of samples of a pixel, as in Pillow.
const MAX_SAMPLES: usize = 6;

/// Interpretation of the samples of a pixel.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Colors {
    WhiteIsZero,
    BlackIsZero,
    Rgb,
    Palette,
    Cmyk,
    YCbCr,
}

/// Interpretation of the sample after the colours.
#[derive(Clone, Copy)]
enum Alpha {
    None,
    /// The colours are premultiplied by it.
    Associated,
    Unassociated,
}

/// The first picture of a TIFF file, composited over white, as stored, and its orientation.
pub(super) fn decode(file: &[u8]) -> Result<(DynamicImage, Orientation)> {
    Ok((pixels(file)?, tiff_orientation(file)))
}

/// BigTIFF has a different number in place of 42.
pub(super) fn is_big(file: &[u8]) -> bool {
    file.starts_with(b"II+\0") || file.starts_with(b"MM\0+")
}

fn pixels(file: &[u8]) -> Result<DynamicImage> {
    let corrupt = |e: tiff::TiffError| Error::new("", e).advise(REPLACE_IT);
    let contradiction = || Error::new("", "the TIFF's tags contradict each other").advise(REPLACE_IT);
    let Some(tags) = Directory::first(file) else {
        return Err(Error::new("", "the TIFF has no directory").advise(REPLACE_IT));
    };
    if NEEDED.iter().any(|&tag| tags.is_broken(tag)) {
        return Err(contradiction());
    }
    let number = |tag: u16, default: u64| tags.unsigned(tag).first().copied().unwrap_or(default);

    let samples = number(SAMPLES_PER_PIXEL, 1) as usize;
    let Some(&photometric) = tags.unsigned(PHOTOMETRIC).first() else {
        return Err(unsupported("no kind of colours (PhotometricInterpretation)"));
    };
    let bits = number(BITS_PER_SAMPLE, 1);
    if !matches!(bits, 1 | 2 | 4 | 8 | 16 | 32) {
        return Err(unsupported(format!("samples of {bits} bits")));
    }
    let colors = match photometric {
        0 => Colors::WhiteIsZero,
        1 => Colors::BlackIsZero,
        2 => Colors::Rgb,
        3 => Colors::Palette,
        5 => Colors::Cmyk,
        6 if samples == 1 => Colors::BlackIsZero,
        6 => Colors::YCbCr,
        other => return Err(unsupported(format!("colours of kind {other} (PhotometricInterpretation)"))),
    };
    let compression = number(COMPRESSION, 1);
    let whole = tags.unsigned(CHROMA_SUBSAMPLING) == [1, 1];
    if colors == Colors::YCbCr && compression != JPEG && !whole {
        return Err(unsupported("subsampled YCbCr outside of JPEG"));
    }
    let color_samples = match colors {
        Colors::WhiteIsZero | Colors::BlackIsZero | Colors::Palette => 1,
        Colors::Rgb | Colors::YCbCr => 3,
        Colors::Cmyk => 4,
    };
    if !(color_samples..=MAX_SAMPLES).contains(&samples) {
        return Err(unsupported(format!("{samples} samples a pixel")));
    }
    let alpha = match tags.unsigned(EXTRA_SAMPLES).first() {
        _ if samples == color_samples => Alpha::None,
        Some(1) => Alpha::Associated,
        Some(2 | 999) => Alpha::Unassociated, // 999: Corel Draw
        None if colors == Colors::Rgb => Alpha::Unassociated,
        _ => Alpha::None,
    };

    let mut copy = file.to_vec();
    tags.rewrite(&mut copy, PHOTOMETRIC, |_| 1);
    if compression == LZW {
        // The crate reads row by row, and its LZW decoder drops its last buffered bits once its input is exhausted: the input
        // must continue.
        copy.extend([0; LZW_STORE]);
        for tag in [STRIP_BYTES, TILE_BYTES] {
            tags.rewrite(&mut copy, tag, |bytes| bytes.saturating_add(LZW_STORE as u64));
        }
    }
    let reverses = number(FILL_ORDER, 1) == 2 && compression != JPEG;
    if reverses || compression == JPEG {
        for chunk in chunks(&tags, file.len())? {
            if reverses {
                copy[chunk].iter_mut().for_each(|byte| *byte = byte.reverse_bits());
            }
        }
    }

    let mut limits = Limits::default();
    limits.decoding_buffer_size = MAX_DECODER_BYTES as usize;
    limits.intermediate_buffer_size = MAX_DECODER_BYTES as usize;
    let mut decoder = Decoder::new(Cursor::new(&copy)).map_err(corrupt)?.with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(corrupt)?;
    check_size(width, height)?;
    let bits = match decoder.colortype().map_err(corrupt)? {
        ColorType::Gray(bits) if samples == 1 => bits,
        ColorType::Multiband { bit_depth, num_samples } if usize::from(num_samples) == samples => bit_depth,
        _ => return Err(contradiction()),
    };
    let (chunk_width, chunk_height) = decoder.chunk_dimensions();
    if chunk_width > 2 * MAX_SIDE {
        return Err(unsupported(format!("tiles {chunk_width} pixels wide")));
    }
    if compression == JPEG {
        // A small tile could be repeated to form a huge picture.
        for chunk in chunks(&tags, file.len())? {
            if let Some(frame) = Segments::walk(&file[chunk], true).frame
                && (frame.width > chunk_width || frame.height > chunk_height)
            {
                return Err(contradiction());
            }
        }
    }

    let planar = number(PLANAR, 1) == 2;
    let (width, height) = (width as usize, height as usize);
    let mut stored = DecodingResult::U8(Vec::new());
    let layout = decoder.read_image_to_buffer(&mut stored).map_err(corrupt)?;
    if stored.as_buffer(0).as_bytes().len() < layout.complete_len {
        return Err(Error::new("", "the TIFF takes too much memory").advise("shrink it"));
    }
    let row = if planar { width } else { width * samples };
    let values = eight_bits(stored, bits, row, colors == Colors::Palette)
        .ok_or_else(|| unsupported(format!("samples of {bits} bits of this kind (SampleFormat)")))?;
    if values.len() < width * height * samples {
        return Err(contradiction());
    }
    let sample = |pixel: usize, s: usize| values[if planar { s * width * height + pixel } else { pixel * samples + s }];
    let map = (colors == Colors::Palette).then(|| palette(&tags.unsigned(COLOR_MAP)));

    let mut rgb = Vec::with_capacity(width * height * 3);
    for pixel in 0..width * height {
        let [a, b, c, d] = std::array::from_fn(|s| if s < color_samples { sample(pixel, s) } else { 0 });
        let color = match colors {
            Colors::WhiteIsZero => [!a; 3],
            Colors::BlackIsZero => [a; 3],
            Colors::Rgb => [a, b, c],
            Colors::Palette => map.as_ref().and_then(|m| m.get(usize::from(a))).copied().unwrap_or_default(),
            Colors::Cmyk => [a, b, c].map(|ink| multiply(!ink, !d)),
            Colors::YCbCr => from_ycbcr([a, b, c]),
        };
        rgb.extend(match alpha {
            Alpha::None => color,
            Alpha::Associated => color.map(|v| v.saturating_add(!sample(pixel, color_samples))),
            Alpha::Unassociated => color.map(|v| super::decode::blend(v, sample(pixel, color_samples))),
        });
    }
    RgbImage::from_raw(width as u32, height as u32, rgb).map(DynamicImage::ImageRgb8).ok_or_else(contradiction)
}

fn unsupported(what: impl std::fmt::Display) -> Error {
    Error::new("", format!("a TIFF with {what}")).advise("save it as PNG, or as TIFF of 8-bit RGB")
}

/// Offsets of the strips or tiles that are inside the file. They may overlap, but not to an extent that makes decoding
/// slow.
fn chunks(tags: &Directory<'_>, length: usize) -> Result<Vec<Range<usize>>> {
    let or = |strips: u16, tiles: u16| {
        Some(tags.unsigned(strips)).filter(|v| !v.is_empty()).unwrap_or_else(|| tags.unsigned(tiles))
    };
    let (offsets, sizes) = (or(STRIP_OFFSETS, TILE_OFFSETS), or(STRIP_BYTES, TILE_BYTES));
    let end = |offset: u64, size: u64| usize::try_from(offset.saturating_add(size)).unwrap_or(usize::MAX).min(length);
    let ranges = offsets.iter().zip(&sizes).map(|(&offset, &size)| end(offset, 0)..end(offset, size));
    let ranges: Vec<_> = ranges.collect();
    if ranges.iter().map(Range::len).sum::<usize>() > length {
        return Err(Error::new("", "the TIFF's strips overlap").advise(REPLACE_IT));
    }
    Ok(ranges)
}

/// Every sample as a byte: 16 bits rounded, fewer than 8 bits and floats scaled to 0..=255, unless they are
/// `indices`. Rows of `row` samples are byte-aligned. `None` for other kinds of samples.
fn eight_bits(stored: DecodingResult, bits: u8, row: usize, indices: bool) -> Option<Vec<u8>> {
    Some(match stored {
        DecodingResult::U8(bytes) if bits == 8 => bytes,
        DecodingResult::U8(bytes) if matches!(bits, 1 | 2 | 4) => {
            let (most, per_byte) = ((1_u8 << bits) - 1, usize::from(8 / bits));
            let unpack = |bytes: &[u8], i: usize| {
                let value = bytes[i / per_byte] >> (8 - bits - (i % per_byte) as u8 * bits) & most;
                if indices { value } else { value * (255 / most) }
            };
            let rows = bytes.chunks_exact(row.div_ceil(per_byte).max(1));
            rows.flat_map(|bytes| (0..row).map(move |i| unpack(bytes, i))).collect()
        }
        DecodingResult::U16(words) if bits == 16 && !indices => {
            words.into_iter().map(super::decode::eight_of_sixteen).collect()
        }
        DecodingResult::F32(values) if !indices => {
            values.into_iter().map(|v| (v.clamp(0.0, 1.0) * 255.0).round() as u8).collect()
        }
        _ => return None,
    })
}

/// All reds, then all greens, then all blues, of 16 bits; 8 if none exceeds 8 bits, a mistake of some writers.
fn palette(map: &[u64]) -> Vec<[u8; 3]> {
    let shift = if map.iter().all(|&v| v < 256) { 0 } else { 8 };
    let n = map.len() / 3;
    (0..n).map(|i| [i, n + i, 2 * n + i].map(|at| (map[at] >> shift) as u8)).collect()
}

/// `a * b` for numbers in units of 1/255, rounded.
fn multiply(a: u8, b: u8) -> u8 {
    ((u32::from(a) * u32::from(b) + 127) / 255) as u8
}

/// ITU-R BT.601, full range, as in JFIF.
fn from_ycbcr([y, cb, cr]: [u8; 3]) -> [u8; 3] {
    let (y, cb, cr) = (f32::from(y), f32::from(cb) - 128.0, f32::from(cr) - 128.0);
    [y + 1.402 * cr, y - 0.344_136 * cb - 0.714_136 * cr, y + 1.772 * cb].map(|v| v.round().clamp(0.0, 255.0) as u8)
}

//! JPEG: metadata from the segments, and pixels even of truncated data.
//!
//! The data are followed by one-bits, which are not a Huffman code in any table, and the end marker. A complete picture
//! never reads them. A truncated or damaged one makes the decoder stop at the end of its data, instead of interpreting what
//! follows as pixels; it fills the rest with grey, as all readers do.

use image::metadata::Orientation;
use image::{DynamicImage, GrayImage, RgbImage};
use zune_core::bytestream::ZCursor;
use zune_core::colorspace::ColorSpace;
use zune_core::options::DecoderOptions;
use zune_jpeg::JpegDecoder;

use super::decode::{REPLACE_IT, check_size};
use super::exif::orientation;
use crate::{Error, Result};

/// The grey of missing pixels.
const GREY: u8 = 128;
/// Marker codes (ITU T.81, table B.1).
mod marker {
    pub const SOF_0: u8 = 0xC0;
    pub const DHT: u8 = 0xC4;
    pub const JPG: u8 = 0xC8;
    pub const DAC: u8 = 0xCC;
    pub const SOF_15: u8 = 0xCF;
    pub const RESTART_0: u8 = 0xD0;
    pub const RESTART_7: u8 = 0xD7;
    pub const START_OF_IMAGE: u8 = 0xD8;
    pub const END_OF_IMAGE: u8 = 0xD9;
    pub const START_OF_SCAN: u8 = 0xDA;
    pub const APP_1: u8 = 0xE1;
}

/// Contents of the segments of a JPEG.
#[derive(Default)]
pub(super) struct Segments {
    exif: Option<Vec<u8>>,
    xmp: Option<Vec<u8>>,
    pub frame: Option<Frame>,
    has_scan: bool,
    /// Where the data end: at the end marker, at an incomplete segment, or at the end of the file.
    end: usize,
    ends_with_marker: bool,
}

/// A start of frame.
#[derive(Clone, Copy)]
pub(super) struct Frame {
    code: u8,
    bits: u8,
    pub width: u32,
    pub height: u32,
    /// Rows of pixels in a row of blocks.
    block_rows: u32,
}

impl Frame {
    fn parse(code: u8, segment: &[u8]) -> Option<Self> {
        let side = |at: usize| Some(u32::from(u16::from_be_bytes([*segment.get(at)?, *segment.get(at + 1)?])));
        let samplings = segment.get(6..)?.chunks_exact(3).map(|component| u32::from(component[1] & 15));
        let block_rows = 8 * samplings.max().unwrap_or(1).clamp(1, 4);
        Some(Self { code, bits: segment[0], width: side(3)?, height: side(1)?, block_rows })
    }

    fn is_progressive(&self) -> bool {
        self.code == 0xC2
    }
}

impl Segments {
    /// Walks from marker to marker; a plain search for the bytes of a marker would find the thumbnail inside the EXIF
    /// segment. Of several EXIF segments the later ones continue the first, as in Pillow. `headers` stops at the scan.
    pub fn walk(bytes: &[u8], headers: bool) -> Self {
        use marker::*;
        // Inside a scan, FF 00 is a data byte and restart markers carry no segment; FF FF is fill.
        let is_marker = |w: &[u8]| w[0] == 0xFF && !matches!(w[1], 0 | 1 | RESTART_0..=RESTART_7 | 0xFF);
        let mut found = Self { end: bytes.len(), ..Self::default() };
        let mut at = 0;
        while let Some(skipped) = bytes.get(at..).and_then(|rest| rest.windows(2).position(is_marker)) {
            at += skipped + 2;
            let code = bytes[at - 1];
            if code == START_OF_IMAGE {
                continue;
            }
            if code == END_OF_IMAGE {
                (found.end, found.ends_with_marker) = (at - 2, true);
                break;
            }
            let length = bytes.get(at..at + 2).map_or(usize::MAX, |l| u16::from_be_bytes([l[0], l[1]]).into());
            let Some(segment) = at.checked_add(length).and_then(|end| bytes.get((at + 2).min(end)..end)) else {
                found.end = at - 2;
                break;
            };
            at += length;
            found.hear(code, segment);
            if headers && found.has_scan {
                break;
            }
        }
        // Half a marker is not data.
        while !found.ends_with_marker && bytes[..found.end].last() == Some(&0xFF) {
            found.end -= 1;
        }
        found
    }

    fn hear(&mut self, code: u8, segment: &[u8]) {
        use marker::*;
        match code {
            START_OF_SCAN => self.has_scan = true,
            DHT | JPG | DAC => {}
            SOF_0..=SOF_15 if self.frame.is_none() => self.frame = Frame::parse(code, segment),
            APP_1 if !self.has_scan => {
                if let Some(exif) = segment.strip_prefix(b"Exif\0\0") {
                    self.exif.get_or_insert_default().extend_from_slice(exif);
                } else if let Some(xmp) = segment.strip_prefix(b"http://ns.adobe.com/xap/1.0/\0") {
                    self.xmp = Some(xmp.to_vec());
                }
            }
            _ => {}
        }
    }
}

/// The pixels as stored, their orientation, and a warning if they are damaged but usable.
pub(super) fn decode(bytes: &[u8]) -> Result<((DynamicImage, Orientation), Option<Error>)> {
    let segments = Segments::walk(bytes, false);
    let orientation = orientation(segments.exif.as_deref(), segments.xmp.as_deref());
    if let Some(frame) = segments.frame {
        check_kind(frame)?;
        check_size(frame.width, frame.height)?;
    }
    let (Some(frame), true) = (segments.frame, segments.has_scan) else {
        let found = if segments.ends_with_marker {
            "a JPEG without a picture"
        } else {
            "the JPEG is truncated before its pixels"
        };
        return Err(Error::new("", found).advise(REPLACE_IT));
    };

    let mut padded = Vec::with_capacity(segments.end + 130);
    padded.extend_from_slice(&bytes[..segments.end]);
    padded.extend([0xFF, 0x00].repeat(64));
    padded.extend([0xFF, marker::END_OF_IMAGE]);
    match pixels(&padded, true) {
        Ok(image) if segments.ends_with_marker => Ok(((image, orientation), None)),
        Ok(image) => {
            let warning = Error::new("", "the JPEG is truncated: its end marker is missing, though no pixels are");
            Ok(((image, orientation), Some(warning.advise(REPLACE_IT))))
        }
        Err(fault) => {
            let image = pixels(&padded, false)?;
            let row = image.as_bytes().len() / image.height().max(1) as usize;
            let is_grey = |row: &&[u8]| row.iter().all(|&v| v == GREY);
            let grey = image.as_bytes().rchunks_exact(row.max(1)).take_while(is_grey).count() as u32;
            let state = if segments.ends_with_marker { "damaged" } else { "truncated" };
            // The row of blocks in which the data end is never complete.
            let whole = (frame.height - grey.min(frame.height)).saturating_sub(frame.block_rows);
            if whole == 0 && !(frame.is_progressive() && grey == 0) {
                return Err(fault);
            }
            let found = match grey {
                0 if frame.is_progressive() => format!("the JPEG is {state}: its finer detail is missing"),
                0 => format!("the JPEG is {state}: some of its last {} rows are missing", frame.block_rows),
                _ => format!("the JPEG is {state}: its last {grey} of {} rows are missing", frame.height),
            };
            Ok(((image, orientation), Some(Error::new("", found).advise(REPLACE_IT))))
        }
    }
}

/// Variants that the decoder does not support are named here, in plainer words than its own.
fn check_kind(frame: Frame) -> Result<()> {
    let kind = match frame.code {
        0xC0..=0xC2 if frame.bits == 8 => return Ok(()),
        0xC0..=0xC2 => format!("a JPEG of {} bits", frame.bits),
        0xC3 | 0xC7 | 0xCB | 0xCF => "a lossless JPEG".to_string(),
        0xC9 | 0xCA | 0xCD | 0xCE => "an arithmetically coded JPEG".to_string(),
        _ => "a hierarchical JPEG".to_string(),
    };
    Err(Error::new("", kind).advise("save it as a baseline or progressive JPEG of 8 bits"))
}

/// Decodes a whole file; `strict` turns every defect in a scan into an error.
fn pixels(bytes: &[u8], strict: bool) -> Result<DynamicImage> {
    let corrupt = |e: zune_jpeg::errors::DecodeErrors| Error::new("", e).advise(REPLACE_IT);
    // Bytes between the segments, which the decoder's strict mode rejects, do no harm.
    let options = DecoderOptions::default().set_strict_mode(false).set_max_width(usize::MAX).set_max_height(usize::MAX);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(bytes), options);
    decoder.decode_headers().map_err(corrupt)?;
    let grey = decoder.input_colorspace() == Some(ColorSpace::Luma);
    let colors = if grey { ColorSpace::Luma } else { ColorSpace::RGB };
    decoder.set_options(options.set_strict_mode(strict).jpeg_set_out_colorspace(colors));
    let samples = decoder.decode().map_err(corrupt)?;
    let (width, height) = decoder.dimensions().map_or((0, 0), |(width, height)| (width as u32, height as u32));
    let image = if grey {
        GrayImage::from_raw(width, height, samples).map(DynamicImage::ImageLuma8)
    } else {
        RgbImage::from_raw(width, height, samples).map(DynamicImage::ImageRgb8)
    };
    image.ok_or_else(|| Error::new("", "the JPEG's header contradicts itself").advise(REPLACE_IT))
}

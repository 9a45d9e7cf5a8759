//! The metadata of a PNG: there are three ways of storing EXIF in one, of which the decoder supports one.

use std::io::Read;

use flate2::Crc;
use flate2::read::ZlibDecoder;
use image::metadata::Orientation;

use super::exif;

const SIGNATURE: usize = 8;
/// Maximum size of a decompressed text: EXIF blocks are smaller than 64 kB, and XMP packets seldom larger.
const MAX_TEXT: u64 = 4 << 20;

/// Orientation of a PNG, from all of its chunks, including those after the pixels. `eXIf` takes precedence over ImageMagick's
/// "Raw profile type exif", and that over "... APP1", in any kind of text chunk.
pub(super) fn orientation(file: &[u8]) -> Orientation {
    let (mut block, mut profiles, mut xmp) = (None, [None, None], None);
    let mut rest = file.get(SIGNATURE..).unwrap_or_default();
    // Length, type, data and checksum; a chunk with a wrong checksum is skipped.
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = u32::from_be_bytes([head[0], head[1], head[2], head[3]]) as usize;
        let Some((data, after)) = after.split_at_checked(length) else { break };
        let Some((sum, after)) = after.split_at_checked(4) else { break };
        rest = after;
        if !concerns_us(&head[4..]) || checksum(&head[4..], data).to_be_bytes() != sum {
            continue;
        }
        if &head[4..] == b"eXIf" {
            block = Some(data.to_vec());
            continue;
        }
        let Some((key, text)) = text(&head[4..], data) else { continue };
        match key {
            b"Raw profile type exif" => profiles[0] = Some(text),
            b"Raw profile type APP1" => profiles[1] = Some(text),
            b"XML:com.adobe.xmp" => xmp = Some(text),
            _ => {}
        }
    }
    let block = block.or_else(|| profiles.into_iter().flatten().find_map(|p| unhex(&p)));
    exif::orientation(block.as_deref(), xmp.as_deref())
}

fn concerns_us(kind: &[u8]) -> bool {
    matches!(kind, b"eXIf" | b"tEXt" | b"zTXt" | b"iTXt")
}

fn checksum(kind: &[u8], data: &[u8]) -> u32 {
    let mut sum = Crc::new();
    sum.update(kind);
    sum.update(data);
    sum.sum()
}

/// Keyword and text of a relevant text chunk.
fn text<'a>(kind: &[u8], data: &'a [u8]) -> Option<(&'a [u8], Vec<u8>)> {
    let cut = |data: &'a [u8]| data.iter().position(|&c| c == 0).map(|at| (&data[..at], &data[at + 1..]));
    let (key, rest) = cut(data)?;
    if !key.starts_with(b"Raw profile type ") && key != b"XML:com.adobe.xmp" {
        return None;
    }
    let unpack = |packed: &[u8]| {
        let mut text = Vec::new();
        ZlibDecoder::new(packed).take(MAX_TEXT).read_to_end(&mut text).ok().map(|_| text)
    };
    let text = match kind {
        b"tEXt" => rest.to_vec(),
        b"zTXt" => unpack(rest.get(1..)?)?,
        b"iTXt" => {
            let is_packed = *rest.first()? != 0;
            let (_language, rest) = cut(rest.get(2..)?)?;
            let (_translated, text) = cut(rest)?;
            if is_packed { unpack(text)? } else { text.to_vec() }
        }
        _ => return None,
    };
    Some((key, text))
}

/// The bytes of ImageMagick's form: an empty line, the profile's name, its length, and lines of hexadecimal digits.
fn unhex(profile: &[u8]) -> Option<Vec<u8>> {
    let digits = profile.splitn(4, |&c| c == b'\n').nth(3)?.iter().filter(|c| !c.is_ascii_whitespace());
    let digits: Vec<u8> = digits.map(|&c| char::from(c).to_digit(16).map(|d| d as u8)).collect::<Option<_>>()?;
    Some(digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

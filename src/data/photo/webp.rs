//! The metadata of a WebP file. The decoder takes as much memory for a chunk as the chunk claims to have; these are slices of the
//! file.

use image::metadata::Orientation;

use super::exif;

/// `RIFF`, a length, `WEBP`.
const HEADER: usize = 12;

/// How to turn a WebP picture: by its chunk `EXIF`, else by XMP; the first of each counts.
pub(super) fn orientation(file: &[u8]) -> Orientation {
    let (mut block, mut xmp) = (None, None);
    let mut rest = file.get(HEADER..).unwrap_or_default();
    while let Some((head, after)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let Some((data, after)) = after.split_at_checked(length) else { break };
        match &head[..4] {
            b"EXIF" => _ = block.get_or_insert(data),
            b"XMP " => _ = xmp.get_or_insert(data),
            _ => {}
        }
        // Chunks begin at even places.
        rest = after.get(length % 2..).unwrap_or_default();
    }
    exif::orientation(block, xmp)
}

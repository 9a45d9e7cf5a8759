//! The metadata of a WebP file. The decoder allocates as much memory for a chunk as its header claims; these are slices of
//! the file.

use image::metadata::Orientation;

use super::exif;

/// `RIFF`, a length, `WEBP`.
const HEADER: usize = 12;

/// Orientation of a WebP picture: from its `EXIF` chunk, otherwise from XMP; the first chunk of each kind is used.
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
        // Chunks are aligned to two bytes.
        rest = after.get(length % 2..).unwrap_or_default();
    }
    exif::orientation(block, xmp)
}

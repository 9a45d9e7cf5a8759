//! The image file directory that TIFF and EXIF share, and the orientation found in it.
//!
//! Metadata is often malformed, so everything here is parsed as far as it is meaningful and is `None` beyond that; a defect
//! is never an error. Wherever Pillow finds an orientation, so does this, with the same value.

use image::metadata::Orientation;

const ORIENTATION: u16 = 0x112;
const XMP: u16 = 700;
/// Maximum number of entries of a directory, and of values of one entry that are read.
const MAX_ENTRIES: usize = 65_535;
const MAX_VALUES: usize = 4 << 20;

/// Value types (TIFF 6.0, page 15; BigTIFF adds the last three).
mod kind {
    pub const BYTE: u16 = 1;
    pub const ASCII: u16 = 2;
    pub const SHORT: u16 = 3;
    pub const LONG: u16 = 4;
    pub const RATIONAL: u16 = 5;
    pub const SBYTE: u16 = 6;
    pub const UNDEFINED: u16 = 7;
    pub const SSHORT: u16 = 8;
    pub const SLONG: u16 = 9;
    pub const SRATIONAL: u16 = 10;
    pub const FLOAT: u16 = 11;
    pub const DOUBLE: u16 = 12;
    pub const IFD: u16 = 13;
    pub const LONG8: u16 = 16;
    pub const SLONG8: u16 = 17;
    pub const IFD8: u16 = 18;
}

/// The first directory of a TIFF file or of an EXIF block, with every entry whose values are inside the data.
pub(super) struct Directory<'a> {
    bytes: &'a [u8],
    big_endian: bool,
    entries: Vec<Entry>,
    /// Tags whose values are outside the data.
    broken: Vec<u16>,
}

/// `count` values of type `kind` in bytes `at..end`.
#[derive(Clone, Copy)]
struct Entry {
    tag: u16,
    kind: u16,
    count: usize,
    at: usize,
    end: usize,
}

impl<'a> Directory<'a> {
    /// The directory that the header refers to; `None` if there is no header or no directory.
    pub fn first(bytes: &'a [u8]) -> Option<Self> {
        let big_endian = match bytes.get(..2)? {
            b"MM" => true,
            b"II" => false,
            _ => return None,
        };
        let mut directory = Self { bytes, big_endian, entries: Vec::new(), broken: Vec::new() };
        let number =
            |at: usize, width: usize| Some(usize::try_from(directory.number(at, width)?).unwrap_or(usize::MAX));
        // 43 is BigTIFF. Some writers swap the bytes of 42, and readers tolerate it.
        let pointer = if number(2, 2)? == 43 { 8 } else { 4 };
        let offset = number(pointer, pointer)?;
        let width_of_count = if pointer == 8 { 8 } else { 2 };
        let count = number(offset, width_of_count)?.min(MAX_ENTRIES);
        for i in 0..count {
            match directory.entry(offset + width_of_count + i * (4 + 2 * pointer), pointer) {
                Some(Ok(entry)) => directory.entries.push(entry),
                Some(Err(tag)) => directory.broken.push(tag),
                None => break,
            }
        }
        Some(directory)
    }

    /// The entry at `at`, or its tag if its values are outside the data or of unknown type; `None` if it is itself truncated.
    fn entry(&self, at: usize, pointer: usize) -> Option<std::result::Result<Entry, u16>> {
        self.bytes.get(at..at + 4 + 2 * pointer)?;
        let number = |at: usize, width: usize| self.number(at, width).and_then(|n| usize::try_from(n).ok());
        let (tag, kind) = (self.number(at, 2)? as u16, self.number(at + 2, 2)? as u16);
        let values = || {
            let count = number(at + 4, pointer)?;
            let size = size_of_kind(kind).checked_mul(count).filter(|&size| size > 0)?;
            let field = at + 4 + pointer;
            let at = if size <= pointer { field } else { number(field, pointer)? };
            let end = at.checked_add(size).filter(|&end| end <= self.bytes.len())?;
            Some(Entry { tag, kind, count, at, end })
        };
        Some(values().ok_or(tag))
    }

    /// The first entry of a tag: a second one is a writer's mistake.
    fn find(&self, tag: u16) -> Option<Entry> {
        self.entries.iter().find(|entry| entry.tag == tag).copied()
    }

    /// The values of a tag of an unsigned type; none if it is absent or of another type.
    pub fn unsigned(&self, tag: u16) -> Vec<u64> {
        use kind::*;
        let entry = self.find(tag).filter(|e| matches!(e.kind, BYTE | SHORT | LONG | IFD | LONG8 | IFD8));
        let values = |e: Entry| {
            let width = size_of_kind(e.kind);
            (0..e.count.min(MAX_VALUES)).filter_map(|i| self.number(e.at + i * width, width)).collect()
        };
        entry.map_or_else(Vec::new, values)
    }

    /// True if a tag is present, but its values are not.
    pub fn is_broken(&self, tag: u16) -> bool {
        self.broken.contains(&tag)
    }

    /// Byte range of a tag's values.
    pub fn place(&self, tag: u16) -> Option<std::ops::Range<usize>> {
        self.find(tag).map(|entry| entry.at..entry.end)
    }

    /// Replaces each value of a tag of type SHORT or LONG by `new(value)`, limited to the type's maximum; `copy` is a copy of
    /// the bytes.
    pub fn rewrite(&self, copy: &mut [u8], tag: u16, new: impl Fn(u64) -> u64) {
        let Some(entry) = self.find(tag).filter(|e| matches!(e.kind, kind::SHORT | kind::LONG | kind::LONG8)) else {
            return;
        };
        let width = size_of_kind(entry.kind);
        for at in (entry.at..entry.end).step_by(width) {
            let value = new(self.number(at, width).unwrap_or(0)).min(u64::MAX >> (64 - 8 * width));
            let bytes = if self.big_endian { value << (64 - 8 * width) } else { value.swap_bytes() };
            copy[at..at + width].copy_from_slice(&bytes.to_be_bytes()[..width]);
        }
    }

    /// `width` <= 8 bytes at `at`.
    fn number(&self, at: usize, width: usize) -> Option<u64> {
        let bytes = self.bytes.get(at..at.checked_add(width)?)?.iter();
        let join = |n: u64, &byte: &u8| n << 8 | u64::from(byte);
        Some(if self.big_endian { bytes.fold(0, join) } else { bytes.rev().fold(0, join) })
    }

    /// The first value of an entry, whatever its type; an ASCII digit counts as its value.
    fn value(&self, entry: Entry) -> Option<f64> {
        use kind::*;
        let width = size_of_kind(entry.kind);
        let number = |at: usize, width: usize| self.number(at, width);
        let signed =
            |at: usize, width: usize| Some((number(at, width)? << (64 - 8 * width)) as i64 >> (64 - 8 * width));
        let n = number(entry.at, width.min(8))?;
        Some(match entry.kind {
            ASCII | UNDEFINED if (n as u8).is_ascii_digit() => (n as u8 - b'0').into(),
            RATIONAL => number(entry.at, 4)? as f64 / number(entry.at + 4, 4)? as f64,
            SRATIONAL => signed(entry.at, 4)? as f64 / signed(entry.at + 4, 4)? as f64,
            SBYTE | SSHORT | SLONG | SLONG8 => signed(entry.at, width)? as f64,
            FLOAT => f32::from_bits(n as u32).into(),
            DOUBLE => f64::from_bits(n),
            _ => n as f64,
        })
    }
}

/// Bytes of a value; 0 for unknown types.
fn size_of_kind(kind: u16) -> usize {
    use kind::*;
    match kind {
        BYTE | ASCII | SBYTE | UNDEFINED => 1,
        SHORT | SSHORT => 2,
        LONG | SLONG | FLOAT | IFD => 4,
        RATIONAL | SRATIONAL | DOUBLE | LONG8 | SLONG8 | IFD8 => 8,
        _ => 0,
    }
}

/// Orientation of a picture, from its EXIF block (which may begin with `Exif\0\0`) and its XMP packet. EXIF takes precedence
/// if it has the tag, whatever its type: the standard allows only SHORT, but writers use others, and any integer of 1 to 8
/// is unambiguous. Otherwise XMP is used. Without both, or with an undefined value, the picture is not rotated.
pub(super) fn orientation(exif: Option<&[u8]>, xmp: Option<&[u8]>) -> Orientation {
    let exif = exif.map(without_header).and_then(Directory::first);
    let from_exif = exif.and_then(|exif| Some(exif.value(exif.find(ORIENTATION)?).unwrap_or(0.0)));
    let value = from_exif.or_else(|| from_xmp(xmp?));
    let whole = value.filter(|v| v.fract() == 0.0 && (1.0..=8.0).contains(v));
    whole.and_then(|v| Orientation::from_exif(v as u8)).unwrap_or(Orientation::NoTransforms)
}

/// [`orientation`] of a TIFF file, whose own directory takes the place of EXIF.
pub(super) fn tiff_orientation(file: &[u8]) -> Orientation {
    let xmp = Directory::first(file).and_then(|directory| directory.place(XMP));
    orientation(Some(file), xmp.map(|place| &file[place]))
}

/// EXIF without the identifier of its JPEG segment, which some writers also store elsewhere, or twice.
fn without_header(exif: &[u8]) -> &[u8] {
    const HEADER: &[u8] = b"Exif\0\0";
    let once = exif.strip_prefix(HEADER).unwrap_or(exif);
    once.strip_prefix(HEADER).unwrap_or(once)
}

/// The digit after `tiff:Orientation="` or `<tiff:Orientation>`.
fn from_xmp(xmp: &[u8]) -> Option<f64> {
    const NAME: &[u8] = b"tiff:Orientation";
    let digit = |rest: &[u8]| {
        let value = rest.strip_prefix(b"=\"").or_else(|| rest.strip_prefix(b">"))?;
        value.first().filter(|c| c.is_ascii_digit()).map(|c| f64::from(c - b'0'))
    };
    xmp.windows(NAME.len()).enumerate().filter(|(_, w)| *w == NAME).find_map(|(at, _)| digit(&xmp[at + NAME.len()..]))
}

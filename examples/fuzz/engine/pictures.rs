//! Small images in every format that Weft reads, and mutations that preserve their framing: checksums and lengths are repaired,
//! so that the code behind them is reached.

use super::mutate::{bytes, edge, insert, part, pick};
use image::{DynamicImage, ImageFormat};
use std::io::Cursor;
use weft::rng::Rng;

const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";

/// A small image as the image crate encodes it.
fn encoded(image: &DynamicImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).expect("a small picture can be written");
    bytes.into_inner()
}

fn rgb(width: u32, height: u32) -> DynamicImage {
    image::RgbImage::from_fn(width, height, |x, y| image::Rgb([(x * 16) as u8, (y * 20) as u8, (x ^ y) as u8])).into()
}

fn rgba(width: u32, height: u32) -> DynamicImage {
    image::RgbaImage::from_fn(width, height, |x, y| image::Rgba([(x * 16) as u8, (y * 20) as u8, 9, (x * y) as u8]))
        .into()
}

pub fn jpegs() -> Vec<Vec<u8>> {
    let mut all = vec![
        include_bytes!("../../../tests/data/cmyk.jpg").to_vec(),
        include_bytes!("../../../tests/data/exif_rotated.jpg").to_vec(),
        encoded(&rgb(19, 13), ImageFormat::Jpeg),
        encoded(&DynamicImage::ImageLuma8(rgb(9, 9).into_luma8()), ImageFormat::Jpeg),
        progressive(),
    ];
    let mut rotated = all[2].clone();
    rotated.splice(2..2, segment(0xE1, &[b"Exif\0\0", &*exif(3, 1, &[0, 6])].concat()));
    rotated.splice(2..2, segment(0xE1, &[b"Exif\0\0", &*exif(4, 1, &[0, 0, 0, 8])].concat()));
    all.push(rotated);
    all
}

fn segment(marker: u8, content: &[u8]) -> Vec<u8> {
    [&[0xFF, marker][..], &(content.len() as u16 + 2).to_be_bytes(), content].concat()
}

/// 16 x 16, grey, all coefficients in four scans: first the high bits, then the last one.
fn progressive() -> Vec<u8> {
    let mut file = vec![0xFF, 0xD8];
    file.extend(segment(0xDB, &[&[0][..], &[16; 64]].concat()));
    file.extend(segment(0xC2, &[8, 0, 16, 0, 16, 1, 1, 0x11, 0]));
    for table in [0x00, 0x10] {
        // A single code of one bit, for symbol 0: no difference, end of block.
        let mut content = vec![table, 1];
        content.extend([0; 16]);
        file.extend(segment(0xC4, &content));
    }
    for (first, last, bits) in [(0, 0, 0x01), (1, 63, 0x01), (0, 0, 0x10), (1, 63, 0x10)] {
        file.extend(segment(0xDA, &[1, 1, 0, first, last, bits]));
        file.push(0x0F);
    }
    file.extend([0xFF, 0xD9]);
    file
}

/// A big-endian TIFF structure with an orientation, as used by EXIF.
fn exif(kind: u16, count: u32, value: &[u8]) -> Vec<u8> {
    let mut file = b"MM\0\x2a\0\0\0\x08\0\x01\x01\x12".to_vec();
    file.extend(kind.to_be_bytes());
    file.extend(count.to_be_bytes());
    file.extend(value);
    file.resize(22, 0);
    file.extend([0; 4]);
    file
}

/// Mutations of the segments of a JPEG.
pub fn jpeg(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    // Positions of the segments before the first scan.
    let mut segments = Vec::new();
    let mut at = 2;
    while let Some(&[0xFF, marker, high, low]) = data.get(at..at + 4) {
        let end = at + 2 + usize::from(u16::from_be_bytes([high, low]));
        if end < at + 4 || end > data.len() {
            break;
        }
        segments.push(at..end);
        at = end;
        if marker == 0xDA {
            break;
        }
    }
    if segments.is_empty() || rng.chance(0.3) {
        return bytes(data, others, rng);
    }
    let chosen = segments[rng.below(segments.len())].clone();
    let other = data[segments[rng.below(segments.len())].clone()].to_vec();
    match rng.below(7) {
        0 => drop(data.drain(chosen)),
        1 => insert(data, chosen.start, &other),
        2 => drop(data.splice(chosen, other)),
        3 => data[chosen.start + 1] = [0xC0, 0xC1, 0xC2, 0xC4, 0xDA, 0xDB, 0xDD, 0xE1, 0xEE, 0xFE][rng.below(10)],
        4 => {
            // A frame header: size, components, sampling.
            let frame = segments.iter().find(|s| matches!(data[s.start + 1], 0xC0..=0xC2)).cloned().unwrap_or(chosen);
            let content = frame.start + 4..frame.end;
            if !content.is_empty() {
                let at = content.start + rng.below(content.len());
                data[at] = [0, 1, 2, 3, 4, 0x11, 0x12, 0x21, 0x22, 0x41, 0x44, 0x80, 0xFF][rng.below(13)];
            }
        }
        _ => {
            let mut content = data[chosen.start + 4..chosen.end].to_vec();
            bytes(&mut content, others, rng);
            content.truncate(60_000);
            let marker = data[chosen.start + 1];
            data.splice(chosen, segment(marker, &content));
        }
    }
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xEDB8_8320 } else { crc >> 1 })
    })
}

/// A zlib stream with stored (uncompressed) blocks.
fn stored(raw: &[u8]) -> Vec<u8> {
    let len = raw.len() as u16;
    let (a, b) = raw.iter().fold((1_u32, 0_u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65_521;
        (a, (b + a) % 65_521)
    });
    [&[0x78, 0x01, 1][..], &len.to_le_bytes(), &(!len).to_le_bytes(), raw, &(b << 16 | a).to_be_bytes()].concat()
}

fn chunk(kind: &[u8], content: &[u8]) -> Vec<u8> {
    let body = [kind, content].concat();
    [&(content.len() as u32).to_be_bytes()[..], &body, &crc(&body).to_be_bytes()].concat()
}

fn png_of(width: u32, height: u32, depth: u8, color: u8, interlaced: bool, more: &[Vec<u8>]) -> Vec<u8> {
    let channels = [1, 0, 3, 1, 2, 0, 4][usize::from(color)];
    let mut raw = Vec::new();
    let mut pass = |width: u32, height: u32| {
        for row in 0..if width == 0 { 0 } else { height } {
            raw.push((row % 5) as u8);
            raw.extend(
                (0..(width * channels * u32::from(depth)).div_ceil(8)).map(|x| (x * 37 + row * 11) as u8 & 0x5F),
            );
        }
    };
    if interlaced {
        for [x, y, dx, dy] in
            [[0, 0, 8, 8], [4, 0, 8, 8], [0, 4, 4, 8], [2, 0, 4, 4], [0, 2, 2, 4], [1, 0, 2, 2], [0, 1, 1, 2]]
        {
            pass((width + dx - 1 - x) / dx, (height + dy - 1 - y) / dy);
        }
    } else {
        pass(width, height);
    }
    let mut header = [width.to_be_bytes(), height.to_be_bytes()].concat();
    header.extend([depth, color, 0, 0, u8::from(interlaced)]);
    let mut file = [SIGNATURE, &chunk(b"IHDR", &header)].concat();
    more.iter().for_each(|more| file.extend(more));
    file.extend(chunk(b"IDAT", &stored(&raw)));
    file.extend(chunk(b"IEND", b""));
    file
}

pub fn pngs() -> Vec<Vec<u8>> {
    let palette = chunk(b"PLTE", &(0..48).collect::<Vec<u8>>());
    let clear = chunk(b"tRNS", &[0, 128, 255]);
    let turned = chunk(b"eXIf", &exif(3, 1, &[0, 6]));
    let hex: String = exif(3, 1, &[0, 3]).iter().map(|b| format!("{b:02x}")).collect();
    let profile = [b"Raw profile type exif\0\0", &*stored(format!("\nexif\n      26\n{hex}\n").as_bytes())].concat();
    vec![
        png_of(9, 7, 8, 2, false, &[]),
        png_of(9, 7, 8, 6, true, &[turned]),
        png_of(5, 6, 16, 2, false, &[chunk(b"zTXt", &profile)]),
        png_of(7, 5, 16, 6, false, &[]),
        png_of(9, 9, 8, 3, false, &[palette.clone(), clear]),
        png_of(9, 9, 4, 3, true, std::slice::from_ref(&palette)),
        png_of(11, 4, 2, 3, false, &[palette]),
        png_of(11, 4, 1, 0, false, &[chunk(b"tRNS", &[0, 1])]),
        png_of(5, 5, 16, 0, true, &[chunk(b"gAMA", &45_455_u32.to_be_bytes())]),
        png_of(5, 5, 8, 4, false, &[chunk(b"iCCP", &[b"x\0\0", &*stored(b"no profile")].concat())]),
        encoded(&rgb(12, 9), ImageFormat::Png),
    ]
}

/// Mutations of the chunks of a PNG; checksums are usually repaired, including that of the stream.
pub fn png(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let mut chunks: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
    let mut at = SIGNATURE.len();
    while let Some((length, rest)) = data.get(at..).and_then(<[u8]>::split_first_chunk::<4>) {
        let length = u32::from_be_bytes(*length) as usize;
        let Some(content) = rest.get(4..length.saturating_add(4)) else { break };
        chunks.push((rest[..4].to_vec(), content.to_vec()));
        at += length + 12;
    }
    if chunks.is_empty() || rng.chance(0.2) {
        return bytes(data, others, rng);
    }
    let (one, two) = (rng.below(chunks.len()), rng.below(chunks.len()));
    match rng.below(9) {
        0 => drop(chunks.remove(one)),
        1 => chunks.insert(two, chunks[one].clone()),
        2 => chunks.swap(one, two),
        3 => {
            chunks[one].0 =
                pick::<[u8]>(&[b"PLTE", b"tRNS", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"IEND", b"cHRM"], rng).to_vec()
        }
        4 | 5 => {
            let header = &mut chunks[0].1;
            let field = rng.below(7).min(header.len().saturating_sub(1));
            match (field, header.len()) {
                (0 | 1, 8..) => header[4 * field..4 * field + 4].copy_from_slice(&(edge(rng) as u32).to_be_bytes()),
                (2.., 13..) => header[field + 6] = [0, 1, 2, 3, 4, 6, 8, 16][rng.below(8)],
                _ => {}
            }
        }
        6 => {
            // The pixels, with a new checksum.
            let content = &mut chunks[one].1;
            if content.len() > 11 && content[..3] == [0x78, 0x01, 1] {
                let mut raw = content[7..content.len() - 4].to_vec();
                bytes(&mut raw, others, rng);
                raw.truncate(60_000);
                *content = stored(&raw);
            }
        }
        _ => bytes(&mut chunks[one].1, others, rng),
    }
    let mut file = SIGNATURE.to_vec();
    chunks.iter().for_each(|(kind, content)| file.extend(chunk(kind, content)));
    *data = file;
}

/// A TIFF with one or two directories; `big` selects the byte order.
struct Tiff {
    big: bool,
    file: Vec<u8>,
}

impl Tiff {
    fn new(big: bool) -> Self {
        let file = if big { b"MM\0\x2a\0\0\0\0".to_vec() } else { b"II\x2a\0\0\0\0\0".to_vec() };
        Self { big, file }
    }

    fn short(&self, value: u16) -> [u8; 2] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    fn long(&self, value: u32) -> [u8; 4] {
        if self.big { value.to_be_bytes() } else { value.to_le_bytes() }
    }

    /// Writes the entries (tag, type 3 or 4, values), preceded by the pixels; returns the file.
    fn finish(mut self, pixels: &[u8], entries: &[(u16, u16, &[u32])]) -> Vec<u8> {
        let at = self.file.len() as u32;
        self.file.extend(pixels);
        let mut all: Vec<(u16, u16, Vec<u32>)> = entries.iter().map(|(t, k, v)| (*t, *k, v.to_vec())).collect();
        let tiled = all.iter().any(|entry| entry.0 == 322);
        all.push((if tiled { 324 } else { 273 }, 4, vec![at]));
        all.push((if tiled { 325 } else { 279 }, 4, vec![pixels.len() as u32]));
        all.sort_by_key(|entry| entry.0);
        let mut directory = self.short(all.len() as u16).to_vec();
        for (tag, kind, values) in &all {
            let content: Vec<u8> = match kind {
                3 => values.iter().flat_map(|v| self.short(*v as u16)).collect(),
                _ => values.iter().flat_map(|v| self.long(*v)).collect(),
            };
            directory.extend(self.short(*tag));
            directory.extend(self.short(*kind));
            directory.extend(self.long(values.len() as u32));
            if content.len() <= 4 {
                directory.extend(content.iter().chain(&[0; 4]).take(4));
            } else {
                let place = self.long(self.file.len() as u32);
                directory.extend(place);
                self.file.extend(content);
            }
        }
        directory.extend(self.long(0));
        let at = self.long(self.file.len() as u32);
        self.file[4..8].copy_from_slice(&at);
        self.file.extend(directory);
        self.file
    }
}

pub fn tiffs() -> Vec<Vec<u8>> {
    let pixels: Vec<u8> = (0..8 * 6 * 8).map(|i| (i * 7) as u8).collect();
    let size: [(u16, u16, &[u32]); 3] = [(256, 4, &[8]), (257, 4, &[6]), (278, 3, &[6])];
    let with = |big: bool, pixels: &[u8], more: &[(u16, u16, &[u32])]| {
        Tiff::new(big).finish(pixels, &[&size[..], more].concat())
    };
    let packed: Vec<u8> = (0..6).flat_map(|row| [7, row, 1, 2, 3, 4, 5, 6, 7]).collect();
    let palette: Vec<u32> = (0..768).map(|i| i * 85).collect();
    vec![
        with(false, &pixels[..48], &[(258, 3, &[8]), (259, 3, &[1]), (262, 3, &[1])]),
        with(
            true,
            &pixels[..144],
            &[(258, 3, &[8, 8, 8]), (259, 3, &[1]), (262, 3, &[2]), (277, 3, &[3]), (274, 3, &[6])],
        ),
        with(
            false,
            &pixels[..192],
            &[(258, 3, &[8; 4]), (259, 3, &[1]), (262, 3, &[2]), (277, 3, &[4]), (338, 3, &[1])],
        ),
        with(
            true,
            &pixels[..384],
            &[(258, 3, &[16; 4]), (259, 3, &[1]), (262, 3, &[2]), (277, 3, &[4]), (338, 3, &[2])],
        ),
        with(false, &pixels[..6], &[(258, 3, &[1]), (259, 3, &[1]), (262, 3, &[0]), (266, 3, &[2])]),
        with(false, &packed, &[(258, 3, &[8]), (259, 3, &[32_773]), (262, 3, &[1])]),
        with(true, &stored(&pixels[..48]), &[(258, 3, &[8]), (259, 3, &[8]), (262, 3, &[1]), (317, 3, &[2])]),
        with(false, &pixels[..48], &[(258, 3, &[8]), (259, 3, &[1]), (262, 3, &[3]), (320, 3, &palette)]),
        with(false, &pixels[..192], &[(258, 3, &[8; 4]), (259, 3, &[1]), (262, 3, &[5]), (277, 3, &[4])]),
        with(true, &pixels[..256], &[(258, 3, &[8]), (259, 3, &[1]), (262, 3, &[1]), (322, 3, &[16]), (323, 3, &[16])]),
        encoded(&rgb(9, 7), ImageFormat::Tiff),
        encoded(&DynamicImage::ImageRgba16(rgba(5, 4).into_rgba16()), ImageFormat::Tiff),
    ]
}

/// Mutations of the entries of a TIFF directory.
pub fn tiff(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let big = data.starts_with(b"MM");
    let short = |b: &[u8]| if big { u16::from_be_bytes([b[0], b[1]]) } else { u16::from_le_bytes([b[0], b[1]]) };
    let directory = data.get(4..8).map(|b| (usize::from(short(&b[2..])), usize::from(short(b))));
    // The files here are small: one half of the offset is 0.
    let directory = directory.map(|(high, low)| if big { high } else { low });
    let Some((at, count)) = directory.and_then(|at| Some((at, usize::from(short(data.get(at..at + 2)?))))) else {
        return bytes(data, others, rng);
    };
    let entry = at + 2 + 12 * rng.below(count.clamp(1, 40));
    if entry + 12 > data.len() || rng.chance(0.3) {
        return bytes(data, others, rng);
    }
    let value = edge(rng);
    let put = |data: &mut [u8], size: usize| match (size, big) {
        (2, true) => data[..2].copy_from_slice(&(value as u16).to_be_bytes()),
        (2, false) => data[..2].copy_from_slice(&(value as u16).to_le_bytes()),
        (_, true) => data[..4].copy_from_slice(&(value as u32).to_be_bytes()),
        (_, false) => data[..4].copy_from_slice(&(value as u32).to_le_bytes()),
    };
    match rng.below(8) {
        0 => put(&mut data[entry..], 2),
        1 => {
            let kind = (1 + rng.below(18)) as u16;
            data[entry + 2..entry + 4].copy_from_slice(&if big { kind.to_be_bytes() } else { kind.to_le_bytes() });
        }
        2 => put(&mut data[entry + 4..], 4),
        3 => put(&mut data[entry + 8..], 4),
        4 => put(&mut data[entry + 8..], 2),
        5 => put(&mut data[entry + 10..], 2),
        6 => {
            // The same entry for another tag, or for the next directory.
            let known = [256, 257, 258, 259, 262, 266, 273, 274, 277, 278, 279, 284, 317, 320, 322, 323, 330, 338, 339];
            let tag: u16 = known[rng.below(known.len())];
            data[entry..entry + 2].copy_from_slice(&if big { tag.to_be_bytes() } else { tag.to_le_bytes() });
        }
        _ => {
            let end = at + 2 + 12 * count;
            if end + 4 <= data.len() {
                put(&mut data[end..], 4);
            }
        }
    }
}

pub fn bmps() -> Vec<Vec<u8>> {
    /// Width 8, height 4 (negative: top-down), with a BITMAPINFOHEADER.
    fn bmp(height: i32, bits: u16, compression: u32, between: &[u8], pixels: &[u8]) -> Vec<u8> {
        let mut file = b"BM".to_vec();
        for number in [(54 + between.len() + pixels.len()) as u32, 0, (54 + between.len()) as u32, 40, 8] {
            file.extend(number.to_le_bytes());
        }
        file.extend(height.to_le_bytes());
        file.extend(1_u16.to_le_bytes());
        file.extend(bits.to_le_bytes());
        for number in [compression, pixels.len() as u32, 2835, 2835, if bits <= 8 { 1 << bits } else { 0 }, 0] {
            file.extend(number.to_le_bytes());
        }
        [&*file, between, pixels].concat()
    }
    let palette = |entries: usize| (0..4 * entries).map(|i| (i * 5) as u8).collect::<Vec<u8>>();
    let pixels: Vec<u8> = (0..128).collect();
    let masks = [0xF800_u32, 0x07E0, 0x001F].map(u32::to_le_bytes).concat();
    vec![
        encoded(&rgb(7, 5), ImageFormat::Bmp),
        encoded(&rgba(6, 5), ImageFormat::Bmp),
        bmp(4, 1, 0, &palette(2), &pixels[..16]),
        bmp(-4, 4, 0, &palette(16), &pixels[..16]),
        bmp(4, 8, 1, &palette(256), &[8, 3, 0, 0, 2, 9, 0, 3, 1, 2, 3, 0, 0, 2, 1, 1, 3, 4, 0, 0, 0, 1]),
        bmp(4, 4, 2, &palette(16), &[8, 0x12, 0, 0, 4, 0x45, 0, 4, 0x12, 0x34, 0, 0, 0, 2, 1, 1, 3, 4, 0, 1]),
        bmp(4, 16, 3, &masks, &pixels[..64]),
        bmp(4, 32, 0, &[], &pixels),
    ]
}

/// Mutations of the header of a BMP.
pub fn bmp(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    const FIELDS: [(usize, usize); 15] = [
        (2, 4),
        (10, 4),
        (14, 4),
        (18, 4),
        (22, 4),
        (26, 2),
        (28, 2),
        (30, 4),
        (34, 4),
        (46, 4),
        (50, 4),
        (54, 4),
        (58, 4),
        (62, 4),
        (66, 4),
    ];
    let (at, size) = FIELDS[rng.below(FIELDS.len())];
    if at + size > data.len() || rng.chance(0.5) {
        return bytes(data, others, rng);
    }
    match rng.below(3) {
        0 => data[at] = [0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 40, 52, 56, 64, 108, 124][rng.below(17)],
        _ => data[at..at + size].copy_from_slice(&edge(rng).to_le_bytes()[..size]),
    }
}

pub fn webps() -> Vec<Vec<u8>> {
    // Lossy, 1 x 1.
    const LOSSY: [u8; 42] =
        *b"RIFF\x22\0\0\0WEBPVP8 \x16\0\0\0\x30\x01\0\x9d\x01\x2a\x01\0\x01\0\x0e\xc0\xfe\x25\xa4\0\x03\x70\0\0\0\0";
    let lossless = encoded(&rgb(9, 7), ImageFormat::WebP);
    let clear = encoded(&rgba(9, 7), ImageFormat::WebP);
    // The extended format: features, then the same pixels, then EXIF.
    let riff = |chunks: &[&[u8]]| {
        let body = chunks.concat();
        [b"RIFF", &(body.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &body].concat()
    };
    let turned = exif(3, 1, &[0, 6]);
    let turned = [b"EXIF", &(turned.len() as u32).to_le_bytes()[..], &turned].concat();
    let features = |flags: u8| [b"VP8X\x0a\0\0\0", &[flags, 0, 0, 0, 8, 0, 0, 6, 0, 0][..]].concat();
    // A frame of an animation, 9 x 7, at the origin.
    let frame = [&[0, 0, 0, 0, 0, 0, 8, 0, 0, 6, 0, 0, 100, 0, 0, 0][..], &lossless[12..]].concat();
    let frame = [b"ANMF", &(frame.len() as u32).to_le_bytes()[..], &frame].concat();
    vec![
        LOSSY.to_vec(),
        riff(&[&features(0x18), &clear[12..], &turned]),
        riff(&[&features(0x02), b"ANIM\x06\0\0\0\xff\xff\xff\xff\0\0", &frame, &frame]),
        lossless,
        clear,
    ]
}

/// Mutations of the chunks of a WebP file.
pub fn webp(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let mut chunks: Vec<Vec<u8>> = Vec::new();
    let mut at = 12;
    while let Some(head) = data.get(at..at + 8) {
        let length = u32::from_le_bytes([head[4], head[5], head[6], head[7]]) as usize;
        let end = (at + 8).saturating_add(length.next_multiple_of(2)).min(data.len());
        chunks.push(data[at..end].to_vec());
        at = end;
    }
    if chunks.is_empty() || rng.chance(0.4) {
        return bytes(data, others, rng);
    }
    let (one, two) = (rng.below(chunks.len()), rng.below(chunks.len()));
    match rng.below(5) {
        0 => drop(chunks.remove(one)),
        1 => chunks.insert(two, chunks[one].clone()),
        2 => chunks[one][..4].copy_from_slice(
            &pick::<[u8]>(&[b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ANMF", b"EXIF", b"ICCP"], rng)[..4],
        ),
        _ => {
            let mut content = chunks[one].split_off(8);
            bytes(&mut content, others, rng);
            chunks[one].truncate(4);
            chunks[one].extend((content.len() as u32).to_le_bytes());
            if content.len() % 2 == 1 {
                content.push(0);
            }
            chunks[one].extend(content);
        }
    }
    let body = chunks.concat();
    *data = [b"RIFF", &(body.len() as u32 + 4).to_le_bytes()[..], b"WEBP", &body].concat();
}

pub fn gifs() -> Vec<Vec<u8>> {
    let plain = encoded(&rgb(9, 7), ImageFormat::Gif);
    // A frame smaller than the canvas, 2 x 2 at (1, 1), interlaced, with its own colour table.
    let inner: &[u8] = b"GIF89a\x08\0\x08\0\0\0\0\x21\xf9\x04\x09\0\0\x01\0\x2c\x01\0\x01\0\x02\0\x02\0\xc0\0\0\0\xff\xff\xff\x02\x02\x84\x51\0\x3b";
    vec![plain, inner.to_vec(), encoded(&rgba(6, 6), ImageFormat::Gif)]
}

/// Mutations of the header of a GIF.
pub fn gif(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    let frame =
        data.windows(3).position(|w| w == b"\x2c\0\0").or_else(|| data.iter().position(|b| *b == 0x2c)).unwrap_or(0);
    let at = [6, 8, 10, frame + 1, frame + 3, frame + 5, frame + 7, frame + 9][rng.below(8)];
    if at + 2 > data.len() || rng.chance(0.6) {
        return bytes(data, others, rng);
    }
    let value = [0, 1, 2, 8, 255, 256, 16_384, 16_385, 65_535, rng.word() as u16][rng.below(10)];
    data[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

pub fn pnms() -> Vec<Vec<u8>> {
    let pixels: Vec<u8> = (0..48).collect();
    let with = |head: &[u8], count: usize| [head, &pixels[..count]].concat();
    vec![
        b"P1\n# bits\n4 2\n0 1 0 1\n1 0 1 0\n".to_vec(),
        b"P2\n3 2\n255\n0 10 20\n30 40 255\n".to_vec(),
        b"P3\n2 2\n15\n0 1 2 3 4 5\n6 7 8 9 10 15\n".to_vec(),
        with(b"P4\n9 3\n", 6),
        with(b"P5\n4 4\n255\n", 16),
        with(b"P5\n4 3\n65535\n", 24),
        with(b"P6\n4 4\n255\n", 48),
        with(b"P6 2 2 300\n", 24),
        with(b"P7\nWIDTH 3\nHEIGHT 4\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n", 48),
        b"P7\nWIDTH 2\nHEIGHT 2\nDEPTH 1\nMAXVAL 1\nTUPLTYPE BLACKANDWHITE\nENDHDR\n\x01\0\0\x01".to_vec(),
    ]
}

/// Mutations of a PNM file, whose header is text.
pub fn pnm(data: &mut Vec<u8>, others: &[Vec<u8>], rng: &mut Rng) {
    if rng.chance(0.4) {
        return bytes(data, others, rng);
    }
    let end = data.len().min(12 + rng.below(60));
    let mut head = data[..end].to_vec();
    super::mutate::text(&mut head, others, rng);
    data.splice(..end, head);
    if rng.chance(0.1) {
        let range = part(data.len(), rng);
        data.drain(range);
    }
}

//! Images in every variant compared with Pillow's output (`benches/peers/pixels.py`), and JPEGs truncated at any byte.

use std::fs;
use std::io::Read;

use weft::data::photo::Photo;

/// An image of the corpus and its expected pixels.
struct Case {
    name: String,
    file: Vec<u8>,
    /// Width and height; 0 x 0 if the image must be rejected.
    size: (usize, usize),
    rgb: Vec<u8>,
    tolerance: u8,
    /// Text that the rejection message contains.
    note: String,
}

fn corpus() -> Vec<Case> {
    let packed = fs::read("tests/data/pixels.bin").unwrap();
    let mut unpacked = Vec::new();
    flate2::read::ZlibDecoder::new(&packed[..]).read_to_end(&mut unpacked).unwrap();
    let mut rest = &unpacked[..];
    let mut cases = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|&c| c == b'\n').unwrap();
        let line = String::from_utf8(rest[..end].to_vec()).unwrap();
        let fields: Vec<&str> = line.split('\t').collect();
        let number = |i: usize| fields[i].parse::<usize>().unwrap();
        let (bytes, size) = (number(1), (number(2), number(3)));
        let (file, after) = rest[end + 1..].split_at(bytes);
        let (rgb, after) = after.split_at(size.0 * size.1 * 3);
        let (name, note) = (fields[0].to_string(), fields[5].to_string());
        cases.push(Case { name, file: file.to_vec(), size, rgb: rgb.to_vec(), tolerance: number(4) as u8, note });
        rest = after;
    }
    cases
}

#[test]
fn every_variant_looks_as_pillow_shows_it() {
    let cases = corpus();
    assert!(cases.len() > 200, "{} pictures", cases.len());
    let mut faults = Vec::new();
    for Case { name, file, size, rgb, tolerance, note } in &cases {
        match Photo::decode_lenient(file, name) {
            Ok((_, Some(warning))) => faults.push(format!("{warning}")),
            Ok((photo, None)) if (photo.width, photo.height) != *size => {
                faults.push(format!("{name}: {} x {} instead of {size:?}", photo.width, photo.height));
            }
            Ok((photo, None)) => {
                let (at, worst) =
                    photo.rgb.iter().zip(rgb).map(|(a, b)| a.abs_diff(*b)).enumerate().max_by_key(|p| p.1).unwrap();
                if worst > *tolerance {
                    let (x, y) = (at / 3 % photo.width, at / 3 / photo.width);
                    let expected = &rgb[at / 3 * 3..][..3];
                    faults.push(format!("{name}: {:?} instead of {expected:?} at ({x}, {y})", photo.pixel(x, y)));
                }
            }
            Err(error) if *size != (0, 0) => faults.push(format!("{error}")),
            Err(error) => {
                let message = error.to_string();
                if !message.starts_with(&format!("{name}: ")) || !message.contains(note) || message.contains('\n') {
                    faults.push(format!("{message:?} lacks {note:?}"));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} of {}:\n{}", faults.len(), cases.len(), faults.join("\n"));
}

fn eileen() -> Vec<u8> {
    fs::read("tests/photos/eileen-collins.jpg").unwrap()
}

/// The offset of the entropy-coded data of the (only) scan.
fn scan_start(jpeg: &[u8]) -> usize {
    let at = jpeg.windows(2).position(|w| w == [0xFF, 0xDA]).unwrap();
    at + 2 + usize::from(u16::from_be_bytes([jpeg[at + 2], jpeg[at + 3]]))
}

/// Number of rows at the bottom in which every sample is the grey of missing data.
fn grey_rows(photo: &Photo) -> usize {
    photo.rgb.rchunks_exact(photo.width * 3).take_while(|row| row.iter().all(|&v| v == 128)).count()
}

#[test]
fn a_jpeg_that_ends_early_is_used_with_a_warning_and_refused_for_training() {
    let whole = eileen();
    let (photo, warning) = Photo::decode_lenient(&whole, "whole.jpg").unwrap();
    assert_eq!(warning, None);
    let start = scan_start(&whole);
    for (tenths, state) in [(3, "truncated"), (5, "damaged"), (7, "truncated"), (9, "damaged")] {
        let mut cut = whole[..start + (whole.len() - start) * tenths / 10].to_vec();
        if state == "damaged" {
            cut.extend([0xFF, 0xD9]); // like a program that appends an end marker to whatever it has
        }
        let (part, warning) = Photo::decode_lenient(&cut, "cut.jpg").unwrap();
        let missing = grey_rows(&part);
        let warning = warning.expect("a warning").to_string();
        let expected = format!("cut.jpg: the JPEG is {state}: its last {missing} of 512 rows are missing");
        assert!(warning.starts_with(&expected), "{warning}");
        // The truncated row of blocks, and whatever its neighbour derives from it, may differ.
        let same = (512 - missing).saturating_sub(32);
        assert!(same > 60, "{tenths} tenths: {missing} rows are missing");
        let length = same * 512 * 3;
        assert_eq!(part.rgb[..length], photo.rgb[..length], "{tenths} tenths");

        let refusal = Photo::decode(&cut, "cut.jpg").unwrap_err().to_string();
        assert_eq!(refusal, warning, "the strict reading says the same");
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("cut.jpg");
        fs::write(&path, &cut).unwrap();
        assert_eq!(Photo::open_lenient(&path).unwrap().0, part);
        assert!(Photo::open(&path).is_err());
    }
}

#[test]
fn a_jpeg_without_its_end_marker_loses_nothing() {
    let plain = |c: &&Case| c.name.ends_with(".jpg") && c.size.0 > 0 && !c.name.contains("behind");
    for case in corpus().iter().filter(plain) {
        let (whole, warning) = Photo::decode_lenient(&case.file, "a").unwrap();
        assert_eq!(warning, None, "{}", case.name);
        for less in 1..3 {
            let (photo, warning) = Photo::decode_lenient(&case.file[..case.file.len() - less], &case.name).unwrap();
            assert_eq!(photo, whole, "{}", case.name);
            assert!(warning.unwrap().to_string().contains("its end marker is missing, though no pixels are"));
        }
    }
}

#[test]
fn no_cut_of_a_jpeg_passes_for_whole() {
    let whole = eileen();
    let start = scan_start(&whole);
    for cut in 0..start {
        assert!(Photo::decode_lenient(&whole[..cut], "a.jpg").is_err(), "cut at {cut}: there are no pixels");
    }
    assert!(Photo::decode_lenient(&whole[..start + 500], "a.jpg").is_err(), "not even the first row is there");
    for name in
        ["420.jpg", "444.jpg", "progressive.jpg", "restarts.jpg", "grey.jpg", "grey-progressive.jpg", "cmyk.jpg"]
    {
        let file = corpus().into_iter().find(|c| c.name == name).unwrap().file;
        for cut in 0..file.len() - 2 {
            // A progressive file that ends after one of its scans is valid, only coarser.
            let ends = [&[][..], &[0xFF, 0xD9]];
            for end in &ends[..if name.contains("progressive") { 1 } else { 2 }] {
                let part = [&file[..cut], *end].concat();
                let strict = Photo::decode(&part, "a.jpg");
                // The last bytes may contain only padding bits, in which case nothing is missing.
                let complete = cut + 2 >= file.len() - 2 && Photo::decode(&file, "a.jpg") == strict;
                assert!(strict.is_err() || complete, "{name} cut at {cut} passes, with {end:?}");
            }
        }
    }
}

#[test]
fn a_damaged_scan_is_heard_of() {
    let mut file = eileen();
    let middle = file.len() / 2;
    // A code of all ones does not exist in any table.
    for pair in file[middle..middle + 64].chunks_exact_mut(2) {
        pair.copy_from_slice(&[0xFF, 0x00]);
    }
    let (photo, warning) = Photo::decode_lenient(&file, "a.jpg").unwrap();
    assert!(grey_rows(&photo) > 100);
    assert!(warning.unwrap().to_string().contains("damaged"));
    assert!(Photo::decode(&file, "a.jpg").is_err());
}

#[test]
fn other_formats_that_are_cut_stay_errors() {
    for name in ["rgba.png", "rgb.bmp", "rgb-lzw.tif", "rgb-strips-be.tif", "lossless.webp", "p6-255.ppm"] {
        let file = corpus().into_iter().find(|c| c.name == name).unwrap().file;
        for cut in [0, 9, file.len() / 3, file.len() / 2] {
            let error = Photo::decode_lenient(&file[..cut], name).expect_err(name).to_string();
            assert!(error.starts_with(&format!("{name}: ")) && !error.contains('\n'), "{error}");
        }
    }
}

#[test]
fn a_tiff_that_promises_more_than_it_holds_costs_little() {
    let cases = corpus();
    let tiff = |name: &str| cases.iter().find(|c| c.name == name).unwrap().file.clone();
    // Width and height are LONG in these files: 4 billion pixels per side.
    let mut wide = tiff("rgb-strips-be.tif");
    let at = wide.windows(8).position(|w| w == [1, 0, 0, 4, 0, 0, 0, 1]).unwrap() + 8;
    wide[at..at + 4].fill(0xFF);
    let error = Photo::decode(&wide, "wide.tif").unwrap_err().to_string();
    assert!(error.starts_with("wide.tif: ") && error.contains("; "), "{error}");
    // Every byte of the header and the directory set to extreme values.
    for name in
        ["alpha-associated.tif", "palette-4-fill-2.tif", "jpeg-ycbcr-tiles.tif", "rgb-big.tif", "fax4-0-fill-2.tif"]
    {
        let file = tiff(name);
        for at in (0..16.min(file.len())).chain(file.len().saturating_sub(400)..file.len()) {
            for value in [0, 1, 0x7F, 0x80, 0xFF] {
                let mut changed = file.clone();
                changed[at] = value;
                if let Err(error) = Photo::decode_lenient(&changed, name) {
                    let error = error.to_string();
                    assert!(!error.contains("the decoder failed"), "{name}: {value} at {at} panics: {error}");
                }
            }
        }
    }
}

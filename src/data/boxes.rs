//! Face boxes as text: CSV lines `image,x,y,width,height[,score]` in pixels, with or without a header line.
//!
//! True boxes come without scores, detections with them; an image has as many lines as faces.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use super::photo::Rect;
use super::text::{Problems, Text, parse_box, quoted};
use crate::{Error, Result};

/// The true boxes of each image, in the order of the file; scores are passed over.
///
/// Errors: an unreadable file, or its first bad line.
pub fn read(path: impl AsRef<Path>) -> Result<BTreeMap<String, Vec<Rect>>> {
    let mut boxes = BTreeMap::<String, Vec<Rect>>::new();
    for row in parse(path.as_ref())? {
        boxes.entry(row.image).or_default().push(row.rect);
    }
    Ok(boxes)
}

/// The detections of each image and their scores, in the order of the file.
///
/// Errors: an unreadable file, or its first line that is bad or has no score.
pub fn read_scored(path: impl AsRef<Path>) -> Result<BTreeMap<String, Vec<(Rect, f32)>>> {
    let path = path.as_ref();
    let mut boxes = BTreeMap::<String, Vec<(Rect, f32)>>::new();
    for Row { line, image, rect, score } in parse(path)? {
        let Some(score) = score else {
            let place = format!("{}:{line}", path.display());
            return Err(Error::new(place, "no score").advise("detections need one, in the sixth column"));
        };
        boxes.entry(image).or_default().push((rect, score));
    }
    Ok(boxes)
}

/// Where the photos of a box file are: in `images/` beside it if there is such a folder, otherwise beside it.
pub fn photo_folder(path: impl AsRef<Path>) -> PathBuf {
    let beside = path.as_ref().with_file_name("images");
    if beside.is_dir() { beside } else { path.as_ref().parent().map(Path::to_path_buf).unwrap_or_default() }
}

/// One line of a box file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// Its number, from 1.
    pub line: usize,
    pub image: String,
    pub rect: Rect,
    pub score: Option<f32>,
}

/// First line of a file of detections.
pub const HEADER: &str = "image,x,y,width,height,score";

/// A line of a file of detections, without its end.
pub fn line(image: &str, rect: Rect, score: f32) -> String {
    let Rect { x, y, width, height } = rect;
    format!("{},{x:.1},{y:.1},{width:.1},{height:.1},{score:.4}", csv_field(image))
}

/// A field of a CSV file (RFC 4180).
pub fn csv_field(text: &str) -> String {
    if text.contains([',', '"', '\n', '\r']) { format!("\"{}\"", text.replace('"', "\"\"")) } else { text.to_string() }
}

/// The lines of a box file, in order; bad ones are left out and reported.
///
/// Errors: an unreadable file; if `problems` is strict, the first bad line.
pub fn rows(path: impl AsRef<Path>, problems: &mut Problems) -> Result<Vec<Row>> {
    let text = Text::open(path.as_ref())?;
    let mut rows = text.lines().peekable();
    // The header is the one line whose numbers are words.
    rows.next_if(|(_, line)| {
        split(line).is_ok_and(|(_, f)| f.len() > 3 && f.iter().all(|f| f.parse::<f32>().is_err()))
    });
    let mut good = Vec::new();
    for (line, content) in rows {
        match parse_line(content) {
            Ok((image, rect, score)) => good.push(Row { line, image, rect, score }),
            Err(found) => problems.report(text.error(line, found).advise("write image,x,y,width,height[,score]"))?,
        }
    }
    Ok(good)
}

fn parse(path: &Path) -> Result<Vec<Row>> {
    rows(path, &mut Problems::new(true))
}

fn parse_line(line: &str) -> Result<(String, Rect, Option<f32>), String> {
    let (image, fields) = split(line)?;
    if image.is_empty() {
        return Err("no image name".into());
    }
    let score = match fields.len() {
        4 => None,
        5 => match fields[4].parse::<f32>() {
            Ok(score) if !score.is_nan() => Some(score),
            _ => return Err(format!("score is {}, not a number", quoted(fields[4]))),
        },
        n => return Err(format!("{} columns, not 5 or 6", n + 1)),
    };
    Ok((image, parse_box(&fields[..4])?, score))
}

/// The image name, which may be quoted as in RFC 4180, and the fields after it.
fn split(line: &str) -> Result<(String, Vec<&str>), String> {
    let (image, rest) = match line.strip_prefix('"') {
        None => line.split_once(',').map(|(image, rest)| (image.trim().to_string(), rest)),
        Some(quoted) => {
            let mut end = 0;
            // A doubled quote is a quote of the name.
            while let Some(at) = quoted[end..].find('"') {
                end += at + 1;
                if !quoted[end..].starts_with('"') {
                    break;
                }
                end += 1;
            }
            let closed = end > 0 && quoted[..end].ends_with('"');
            let rest = quoted[end..].trim_start().strip_prefix(',');
            rest.filter(|_| closed).map(|rest| (quoted[..end - 1].replace("\"\"", "\""), rest))
        }
    }
    .ok_or_else(|| format!("{} is not a line of columns", quoted(line)))?;
    Ok((image, rest.split(',').map(str::trim).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn file(content: impl AsRef<[u8]>) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(&file, content).unwrap();
        file
    }

    #[test]
    fn lines_are_gathered_by_image_with_and_without_header() {
        let lines = "b.jpg,1,2,3,4\na.jpg, 40.2 ,49.8,65.4,65.4\r\n\nb.jpg,5,6,7,8\n";
        for header in ["", "image,x,y,width,height\n", "\u{feff}image,x,y,width,height\n"] {
            let boxes = read(file(format!("{header}{lines}"))).unwrap();
            assert_eq!(boxes.len(), 2);
            assert_eq!(boxes["a.jpg"], [Rect::new(40.2, 49.8, 65.4, 65.4)]);
            assert_eq!(boxes["b.jpg"], [Rect::new(1.0, 2.0, 3.0, 4.0), Rect::new(5.0, 6.0, 7.0, 8.0)]);
        }
    }

    #[test]
    fn scores_are_read_where_asked_for_and_missed_where_absent() {
        let scored = file("image,x,y,width,height,score\na.jpg,1,2,3,4,0.5\n");
        assert_eq!(read_scored(&scored).unwrap()["a.jpg"], [(Rect::new(1.0, 2.0, 3.0, 4.0), 0.5)]);
        assert_eq!(read(&scored).unwrap()["a.jpg"], [Rect::new(1.0, 2.0, 3.0, 4.0)]);
        let error = read_scored(file("a.jpg,1,2,3,4\n")).unwrap_err().to_string();
        assert!(error.contains(":1: no score; "), "{error}");
    }

    #[test]
    fn bad_lines_are_left_out_and_reported_unless_strict() {
        let file = file("image,x,y,width,height\na.jpg,1,2,3,4\nb.jpg,1,2,x,4\nc.jpg,1,2,3,4,0.5\n");
        let mut problems = Problems::new(false);
        let rows = rows(&file, &mut problems).unwrap();
        assert_eq!(
            rows.iter().map(|row| (row.line, row.image.as_str())).collect::<Vec<_>>(),
            [(2, "a.jpg"), (4, "c.jpg")]
        );
        assert_eq!(problems.list.len(), 1);
        assert!(problems.list[0].to_string().contains(":3: width is \"x\""), "{:?}", problems.list);
    }

    #[test]
    fn a_quoted_name_may_hold_commas_and_quotes() {
        let boxes = read(file("\"a, \"\"b\"\".jpg\",1,2,3,4\n")).unwrap();
        assert_eq!(boxes.keys().collect::<Vec<_>>(), ["a, \"b\".jpg"]);
    }

    #[test]
    fn a_bad_line_is_named_by_file_and_line() {
        for (line, found) in [
            ("b.jpg,1,2,3", "4 columns"),
            ("b.jpg,1,2,3,4,5,6", "7 columns"),
            ("b.jpg,1,2,3,x", "height is \"x\", not a number"),
            ("b.jpg,1,2,0,4", "is empty"),
            ("b.jpg,1,2,3,4,nan", "score is \"nan\""),
            (",1,2,3,4", "no image name"),
            ("b.jpg", "not a line of columns"),
            ("\"b.jpg,1,2,3,4", "not a line of columns"),
            ("\"", "not a line of columns"),
        ] {
            let file = file(format!("image,x,y,width,height\na.jpg,1,2,3,4\n{line}\n"));
            let error = read(&file).unwrap_err().to_string();
            let place = format!("{}:3: ", file.path().display());
            assert!(error.starts_with(&place) && error.contains(found), "{line}: {error}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(boxes in prop::collection::vec((0..5_u8, 0.0_f32..500.0, 0.0_f32..500.0, 0.5_f32..300.0, 0.5_f32..300.0), 0..20)) {
            let mut expected = BTreeMap::<String, Vec<Rect>>::new();
            let mut csv = String::new();
            for (i, x, y, w, h) in boxes {
                csv += &format!("{i}.jpg,{x},{y},{w},{h}\n");
                expected.entry(format!("{i}.jpg")).or_default().push(Rect::new(x, y, w, h));
            }
            prop_assert_eq!(read(file(csv)).unwrap(), expected);
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(prop_oneof![Just(b','), Just(b'"'), Just(b'\n'), any::<u8>()], 0..200)) {
            let _ = read(file(bytes));
        }
    }
}

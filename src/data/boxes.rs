//! Face boxes as text: CSV rows `image,x,y,width,height[,score]` in pixels, with or without a header line.
//!
//! Ground truth has no scores, detections do. An image has one row per face; a row with empty fields says that the image is
//! known to have none. A header may list these columns in another order and with other columns in between, like that of
//! `weft predict --csv`.

use std::collections::{BTreeMap, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use csv::StringRecord;

use super::answers;
use super::folder;
use super::names::{NameMatch, Names, Places};
use super::photo::Rect;
use super::table::{self, Table};
use super::text::{Problems, parse_box, quoted};
use crate::error::At;
use crate::{Error, Result};

/// The true boxes of each image, in file order; scores are ignored. An image without a box has an empty list.
///
/// Errors: an unreadable file, or its first invalid line.
pub fn read(path: impl AsRef<Path>) -> Result<BTreeMap<String, Vec<Rect>>> {
    let mut boxes = BTreeMap::<String, Vec<Rect>>::new();
    for row in parse(path.as_ref())? {
        boxes.entry(row.image).or_default().extend(row.rect);
    }
    Ok(boxes)
}

/// The detections of each image and their scores, in file order; none for an image without detections.
///
/// Errors: an unreadable file, or its first line that is invalid or has no score.
pub fn read_scored(path: impl AsRef<Path>) -> Result<BTreeMap<String, Vec<(Rect, f32)>>> {
    let path = path.as_ref();
    let mut boxes = BTreeMap::<String, Vec<(Rect, f32)>>::new();
    for row in parse(path)? {
        let detection = row.detection().map_err(|e| e.within(format_args!("{}:{}", path.display(), row.line)))?;
        boxes.entry(row.image).or_default().extend(detection);
    }
    Ok(boxes)
}

const IMAGES: &str = "images";

/// The folder of the photos of a box file: `images/` next to it if that exists, otherwise the folder of the file.
pub fn photo_folder(path: impl AsRef<Path>) -> PathBuf {
    let beside = path.as_ref().with_file_name(IMAGES);
    if beside.is_dir() { beside } else { path.as_ref().parent().map(Path::to_path_buf).unwrap_or_default() }
}

/// The photos that distinct names of a box file refer to, or the reason why a name cannot be resolved. A name is a path from
/// the [`photo_folder`] or from the current folder, or one that ends like the path of a single photo below `images/`.
pub fn photos(file: &Path, names: &[&str]) -> Vec<Result<PathBuf, String>> {
    let folder = photo_folder(file);
    // A plain file name is ambiguous: a different photo of that name may be here.
    let is_here = |name: &str| Path::new(name).components().count() > 1 && folder::is_regular(name);
    let look = |name: &&str| {
        let path = folder.join(name);
        match folder::obstacle(&path) {
            None => Ok(path),
            Some(_) if is_here(name) => Ok(PathBuf::from(name)),
            Some(folder::MISSING) if folder.as_os_str().is_empty() => {
                Err(format!("image {} is not here", quoted(name)))
            }
            Some(folder::MISSING) => Err(format!("image {} is not in {}", quoted(name), folder.display())),
            Some(found) => Err(format!("image {} is {found}", quoted(name))),
        }
    };
    let mut photos: Vec<Result<PathBuf, String>> = names.iter().map(look).collect();
    if photos.iter().all(Result::is_ok) || !folder.ends_with(IMAGES) {
        return photos;
    }
    // Problems with the folder itself are reported by the caller that measures its contents.
    let below = folder::photos(&folder, &mut Problems::new(false)).unwrap_or_default();
    let known = below.iter().map(|path| (path.strip_prefix(&folder).ok().and_then(Path::to_str), path.as_path()));
    let likely = Names::new(known).find(names);
    // A photo that one name resolves to directly is not assigned to another name.
    let mut places = Places::default();
    let taken: HashSet<Option<PathBuf>> = photos.iter().flatten().map(|path| places.of(path)).collect();
    for (photo, likely) in photos.iter_mut().zip(likely) {
        match (&photo, likely) {
            (Err(_), NameMatch::Photo(number)) if !taken.contains(&places.of(&below[number])) => {
                *photo = Ok(below[number].clone())
            }
            (Err(why), NameMatch::Unclear(more)) => *photo = Err(format!("{why}, and {more}")),
            _ => {}
        }
    }
    photos
}

/// One row of a box file.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The line number that it begins on, from 1.
    pub line: usize,
    pub image: String,
    /// `None`: the image has no face.
    pub rect: Option<Rect>,
    pub score: Option<f32>,
}

impl Row {
    /// The box and its score; `None` for an image without detections.
    ///
    /// # Errors
    /// A box without a score; the message does not contain the place.
    pub fn detection(&self) -> Result<Option<(Rect, f32)>> {
        match (self.rect, self.score) {
            (None, _) => Ok(None),
            (Some(rect), Some(score)) => Ok(Some((rect, score))),
            (Some(_), None) => Err(Error::new("", "no score").advise("detections need one, in the sixth column")),
        }
    }
}

/// Header line of a file of detections.
pub const HEADER: &str = "image,x,y,width,height,score";
const COLUMNS: [&str; 6] = ["image", "x", "y", "width", "height", "score"];

/// The fields of a row of a file of detections; all but the name are empty for an image without detections.
pub fn fields(image: &str, found: Option<(Rect, f32)>) -> [String; 6] {
    let image = image.to_string();
    let Some((Rect { x, y, width, height }, score)) = found else {
        return [image, String::new(), String::new(), String::new(), String::new(), String::new()];
    };
    let exact = [x, y, width, height];
    let mut sides = exact.map(|pixels| format!("{pixels:.1}"));
    // A box thinner than its printed precision, or overlapping the border by less, could not be read back.
    if parse_box(&sides.each_ref().map(String::as_str)).is_err() {
        sides = exact.map(|pixels| pixels.to_string());
    }
    let [x, y, width, height] = sides;
    [image, x, y, width, height, format!("{score:.4}")]
}

/// Writes a file of detections incrementally: a row per face, and one for every photo without faces.
pub struct Writer<W: Write>(table::Writer<W>);

impl<W: Write> Writer<W> {
    /// Starts with the header; `place` names the file in errors.
    ///
    /// # Errors
    /// Those of the underlying writer, here and in the following methods.
    pub fn new(to: W, place: impl Into<PathBuf>) -> Result<Self> {
        let mut writer = Self::append(to, place);
        writer.0.row(COLUMNS)?;
        Ok(writer)
    }

    /// Appends to existing rows.
    pub fn append(to: W, place: impl Into<PathBuf>) -> Self {
        Self(table::Writer::new(to, place))
    }

    /// One face of a photo, or the absence of faces.
    pub fn row(&mut self, image: &str, found: Option<(Rect, f32)>) -> Result<()> {
        self.0.row(fields(image, found))
    }
}

/// The rows of a box file, in order; invalid ones are left out and reported. Answers of `weft locate` and `weft predict` are
/// accepted as box files in any of their forms.
///
/// Errors: an unreadable file; if `problems` is strict, the first invalid line.
pub fn rows(path: impl AsRef<Path>, problems: &mut Problems) -> Result<Vec<Row>> {
    const ADVICE: &str = "write image,x,y,width,height[,score], and empty fields for an image without a face";
    let content = std::fs::read(path.as_ref()).at(path.as_ref())?;
    if answers::is_json(&content) {
        return answers::rows(path.as_ref(), &content, problems);
    }
    let table = Table::new(path.as_ref(), content)?;
    let (mut good, mut columns, mut first) = (Vec::new(), None, true);
    for row in table.rows() {
        let Some(row) = problems.take(row)? else { continue };
        if std::mem::take(&mut first) && is_header(&row.fields) {
            columns = Columns::named(&row.fields);
            continue;
        }
        match parse_row(&row.fields, columns.as_ref()) {
            Ok((image, rect, score)) => good.push(Row { line: row.line, image, rect, score }),
            Err(found) => problems.report(table.error(row.line, found).advise(ADVICE))?,
        }
    }
    Ok(good)
}

fn parse(path: &Path) -> Result<Vec<Row>> {
    rows(path, &mut Problems::new(true))
}

/// The header is the one row with words where numbers belong.
fn is_header(fields: &StringRecord) -> bool {
    let is_word = |field: &str| !field.trim().is_empty() && field.trim().parse::<f32>().is_err();
    fields.len() > 4 && fields.iter().all(is_word)
}

/// Column indices from a header.
struct Columns {
    /// Of name, x, y, width, height.
    places: [usize; 5],
    score: Option<usize>,
    count: usize,
}

impl Columns {
    /// `None` if the columns are those of a file without a header, or have unknown names.
    fn named(header: &StringRecord) -> Option<Self> {
        let place = |name: &str| header.iter().position(|field| field.trim().eq_ignore_ascii_case(name));
        let mut places = [0; 5];
        for (slot, name) in places.iter_mut().zip(COLUMNS) {
            *slot = place(name)?;
        }
        let found = Self { places, score: place(COLUMNS[5]), count: header.len() };
        (found.count > COLUMNS.len() || places != [0, 1, 2, 3, 4]).then_some(found)
    }
}

fn parse_row(fields: &StringRecord, columns: Option<&Columns>) -> Result<(String, Option<Rect>, Option<f32>), String> {
    let count = fields.len();
    let said = if count == 1 { "1 column".to_string() } else { format!("{count} columns") };
    let (places, score) = match columns {
        Some(columns) if columns.count == count => (columns.places, columns.score),
        Some(columns) => return Err(format!("{said}, not {}", columns.count)),
        None if count == 5 || count == 6 => ([0, 1, 2, 3, 4], (count == 6).then_some(5)),
        None => return Err(format!("{said}, not 5 or 6")),
    };
    let image = &fields[places[0]];
    if image.trim().is_empty() {
        return Err("no image name".into());
    }
    let score = match score.map(|place| fields[place].trim()).filter(|score| !score.is_empty()) {
        None => None,
        Some(text) => match text.parse::<f32>() {
            Ok(score) if !score.is_nan() => Some(score),
            _ => return Err(format!("score is {}, not a number", quoted(text))),
        },
    };
    let sides: [&str; 4] = std::array::from_fn(|side| fields[places[side + 1]].trim());
    let rect = match (sides.iter().all(|side| side.is_empty()), score) {
        (false, _) => Some(parse_box(&sides)?),
        (true, None) => None,
        (true, Some(score)) => return Err(format!("a score of {score} without a box")),
    };
    Ok((image.to_string(), rect, score))
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
            ("b.jpg,1,2,3", ":3: 4 columns, not 5 or 6"),
            ("b.jpg,1,2,3,4,5,6", ":3: 7 columns, not 5 or 6"),
            ("b.jpg,1,2,3,x", "height is \"x\", not a number"),
            ("b.jpg,1,2,0,4", "is empty"),
            ("b.jpg,1,2,3,4,nan", "score is \"nan\""),
            (",1,2,3,4", "no image name"),
            ("b.jpg", "1 column, not 5 or 6"),
            ("\"b.jpg,1,2,3,4", "a quote is opened and not closed"),
            ("\"", "a quote is opened and not closed"),
            ("b.jpg,,2,3,4", "x is \"\", not a number"),
            ("b.jpg,1,2,3,", "height is \"\", not a number"),
            ("b.jpg,,,,,0.5", "a score of 0.5 without a box"),
            ("b.jpg,,,,,,", "7 columns, not 5 or 6"),
        ] {
            let file = file(format!("image,x,y,width,height\na.jpg,1,2,3,4\n{line}\n"));
            let error = read(&file).unwrap_err().to_string();
            let place = format!("{}:3: ", file.path().display());
            assert!(error.starts_with(&place) && error.contains(found), "{line}: {error}");
        }
    }

    #[test]
    fn an_image_without_a_face_has_a_row_too() {
        let text = format!("{HEADER}\na.jpg,,,,,\nb.jpg,1,2,3,4,0.5\n\"c.jpg\",\"\",\"\",\"\",\"\"\n");
        for text in [text.as_str(), text.split_once('\n').unwrap().1] {
            let boxes = read_scored(file(text)).unwrap();
            assert_eq!(boxes.keys().collect::<Vec<_>>(), ["a.jpg", "b.jpg", "c.jpg"]);
            assert_eq!(boxes.values().map(Vec::len).collect::<Vec<_>>(), [0, 1, 0]);
            assert_eq!(read(file(text)).unwrap().values().map(Vec::len).sum::<usize>(), 1);
        }
    }

    #[test]
    fn quoted_numbers_and_names_over_two_lines_are_read() {
        let text = "\"image\",\"x\",\"y\",\"width\",\"height\",\"score\"\r\n\"nl\n, \"\"name\"\".jpg\",\"1\",\"2.5\",\"3\",\" 4\",\"5e-1\"\r\nb.jpg,1,2,3\r\n";
        let mut problems = Problems::new(false);
        let rows = rows(file(text), &mut problems).unwrap();
        let expected = Some(Rect::new(1.0, 2.5, 3.0, 4.0));
        assert_eq!(rows, [Row { line: 2, image: "nl\n, \"name\".jpg".into(), rect: expected, score: Some(0.5) }]);
        assert!(problems.list[0].to_string().contains(":4: 4 columns"), "{:?}", problems.list);
    }

    #[test]
    fn a_header_says_where_the_columns_are() {
        let text = "Smiling,score,image,height,width,y,x\n1,0.5,a.jpg,4,3,2,1\n,,b.jpg,,,,\n";
        let boxes = read_scored(file(text)).unwrap();
        assert_eq!(boxes["a.jpg"], [(Rect::new(1.0, 2.0, 3.0, 4.0), 0.5)]);
        assert!(boxes["b.jpg"].is_empty());
        let error = read(file(format!("{text}c.jpg,1,2\n"))).unwrap_err().to_string();
        assert!(error.contains(":4: 3 columns, not 7"), "{error}");
        let kaggle = read(file("image_id,x_1,y_1,width,height\na.jpg,1,2,3,4\n")).unwrap();
        assert_eq!(kaggle["a.jpg"], [Rect::new(1.0, 2.0, 3.0, 4.0)]);
    }

    /// Detections of photos with such names; Python's csv module reads them identically.
    #[test]
    fn what_is_written_is_what_it_always_was() {
        let mut bytes = Vec::new();
        let mut writer = Writer::new(&mut bytes, "d.csv").unwrap();
        writer.row("../x/a.jpg", Some((Rect::new(183.25, 70.06, 84.1, 109.7), 0.42514))).unwrap();
        writer.row("nl\nname.jpg", None).unwrap();
        writer.row("q,\"x\".jpg", Some((Rect::new(-1.0, 0.0, 84.1, 109.7), -0.5))).unwrap();
        Writer::append(&mut bytes, "d.csv").row("-dash.jpg", None).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        assert_eq!(
            text,
            "image,x,y,width,height,score\n../x/a.jpg,183.2,70.1,84.1,109.7,0.4251\n\"nl\nname.jpg\",,,,,\n\"q,\"\"x\"\".jpg\",-1.0,0.0,84.1,109.7,-0.5000\n-dash.jpg,,,,,\n"
        );
        let boxes = read_scored(file(&text)).unwrap();
        assert_eq!(boxes.keys().collect::<Vec<_>>(), ["-dash.jpg", "../x/a.jpg", "nl\nname.jpg", "q,\"x\".jpg"]);
        assert!(text.starts_with(HEADER));
    }

    #[test]
    fn photos_are_found_from_the_file_from_here_and_by_the_end_of_a_path() {
        let root = tempfile::tempdir().unwrap();
        let path = |name: &str| root.path().join(name);
        for name in ["images/x/a.png", "images/y/a.png", "images/y/b.png", "images/c.png", "else/d.png"] {
            std::fs::create_dir_all(path(name).parent().unwrap()).unwrap();
            std::fs::write(path(name), "").unwrap();
        }
        std::fs::create_dir(path("images/e.png")).unwrap();
        let elsewhere = path("else/d.png").to_str().unwrap().to_string();
        let known = [
            ("x/a.png", path("images/x/a.png")),
            ("c.png", path("images/c.png")),
            (&elsewhere, path("else/d.png")),
            ("/m/images/y/a.png", path("images/y/a.png")),
            ("b.png", path("images/y/b.png")),
            // The tests run in the source directory.
            ("src/lib.rs", "src/lib.rs".into()),
        ];
        let unknown = [
            ("a.png", "fits several photos"),
            ("/m/c.png", "\"/m/c.png\" is not in"),
            ("e.png", "\"e.png\" is a folder"),
            ("f.png", "is not in"),
            ("Cargo.toml", "is not in"),
        ];
        let names: Vec<&str> = known.iter().map(|(name, _)| *name).chain(unknown.map(|(name, _)| name)).collect();
        let found = photos(&path("boxes.csv"), &names);
        for ((name, expected), found) in known.iter().zip(&found) {
            assert_eq!(found.as_ref(), Ok(expected), "{name}");
        }
        for ((name, expected), found) in unknown.iter().zip(&found[known.len()..]) {
            assert!(found.as_ref().is_err_and(|why| why.contains(expected)), "{name}: {found:?}");
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

//! Comma-separated values (RFC 4180): the only CSV reader and writer of the program.
//!
//! Fields may be quoted, whatever they contain, and a quoted field may contain commas, quotes and line breaks. Lines end in LF,
//! CRLF or CR; a byte order mark and blank lines are skipped. Output uses LF, and quotes where they are needed. Tables are
//! UTF-8: a file whose name is not UTF-8 cannot be listed in one, see [`name`].

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use csv::{ByteRecord, ReaderBuilder, StringRecord, WriterBuilder};

use crate::error::At;
use crate::{Error, Result};

/// A table in memory.
pub struct Table {
    place: PathBuf,
    bytes: Vec<u8>,
}

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub struct Row {
    /// The line number of the file that it begins on, from 1.
    pub line: usize,
    pub fields: StringRecord,
}

/// Appended after the last row. An unclosed quote swallows it.
const END: &[u8] = b"\n\0";

impl Table {
    /// Reads a whole file.
    ///
    /// # Errors
    /// An unreadable file; one in UTF-16.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::new(path.as_ref(), fs::read(path.as_ref()).at(path.as_ref())?)
    }

    /// The content of a file; `place` names it in errors.
    ///
    /// # Errors
    /// UTF-16.
    pub fn new(place: impl Into<PathBuf>, mut bytes: Vec<u8>) -> Result<Self> {
        let place = place.into();
        if bytes.starts_with(b"\xFF\xFE") || bytes.starts_with(b"\xFE\xFF") {
            return Err(Error::file(place, "is in UTF-16").advise("save it as CSV in UTF-8"));
        }
        // Spreadsheets write a byte order mark.
        if bytes.starts_with(b"\xEF\xBB\xBF") {
            bytes.drain(..3);
        }
        Ok(Self { place, bytes })
    }

    /// The rows in order, without blank ones; or the problem with a row, by file and line: bytes that are not UTF-8, an
    /// unclosed quote.
    pub fn rows(&self) -> impl Iterator<Item = Result<Row>> {
        let mut reader =
            ReaderBuilder::new().has_headers(false).flexible(true).from_reader(self.bytes.as_slice().chain(END));
        let (mut record, mut cursor) = (ByteRecord::new(), Cursor { bytes: &self.bytes, at: 0, line: 1 });
        std::iter::from_fn(move || {
            loop {
                // Neither reading from memory nor rows of different lengths can fail.
                if !reader.read_byte_record(&mut record).ok()? {
                    return None;
                }
                let start = record.position().map_or(0, |position| position.byte() as usize);
                let line = cursor.line_of_row(start)?;
                let last = record.get(record.len().saturating_sub(1)).unwrap_or_default();
                if last.ends_with(END) && reader.position().byte() as usize > self.bytes.len() {
                    let found = "a quote is opened and not closed";
                    return Some(Err(self
                        .error(line, found)
                        .advise("was the file cut short? double a quote in a field")));
                }
                if record.len() == 1 && last.iter().all(u8::is_ascii_whitespace) {
                    continue;
                }
                let not_utf8 = || self.error(line, "is not UTF-8").advise("save the file in UTF-8");
                let row = StringRecord::from_byte_record(record.clone()).map_err(|_| not_utf8());
                return Some(row.map(|fields| Row { line, fields }));
            }
        })
    }

    /// An error at one line.
    pub fn error(&self, line: usize, found: impl std::fmt::Display) -> Error {
        Error::new(format_args!("{}:{line}", self.place.display()), found)
    }
}

/// Counts lines while iterating over a table.
struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    line: usize,
}

impl Cursor<'_> {
    /// The line of the row at offset `start`, which may precede blank lines above the row. `None` past the end.
    fn line_of_row(&mut self, start: usize) -> Option<usize> {
        while let Some(&byte) = self.bytes.get(self.at) {
            if self.at >= start && !matches!(byte, b'\r' | b'\n') {
                return Some(self.line);
            }
            self.at += 1;
            let within = byte == b'\r' && self.bytes.get(self.at) == Some(&b'\n');
            self.line += usize::from(matches!(byte, b'\r' | b'\n') && !within);
        }
        None
    }
}

/// The fields of a single line, as [`line`] joins them.
pub fn fields(line: &str) -> Vec<String> {
    let mut reader = ReaderBuilder::new().has_headers(false).from_reader(line.as_bytes());
    let first = reader.records().next().and_then(Result::<_, csv::Error>::ok);
    first.map_or_else(|| vec![String::new()], |record| record.iter().map(str::to_string).collect())
}

/// A row, without the line ending.
pub fn line<F: AsRef<str>>(fields: impl IntoIterator<Item = F>) -> String {
    let mut bytes = Vec::new();
    let mut writer = WriterBuilder::new().from_writer(&mut bytes);
    // Writing to memory cannot fail; `let _` drops a Result that is always Ok.
    for field in fields {
        let _ = writer.write_field(field.as_ref());
    }
    let _ = writer.write_record(None::<&[u8]>);
    drop(writer);
    bytes.pop();
    String::from_utf8(bytes).unwrap_or_default()
}

/// Writes rows incrementally.
pub struct Writer<W: Write> {
    to: W,
    place: PathBuf,
}

impl<W: Write> Writer<W> {
    /// `place` names the file in errors. A header is a row like any other.
    pub fn new(to: W, place: impl Into<PathBuf>) -> Self {
        Self { to, place: place.into() }
    }

    /// Writes a row in a single write.
    ///
    /// # Errors
    /// Those of the underlying writer.
    pub fn row<F: AsRef<str>>(&mut self, fields: impl IntoIterator<Item = F>) -> Result<()> {
        let mut row = line(fields);
        row.push('\n');
        self.to.write_all(row.as_bytes()).at(&self.place)
    }
}

/// A path as it is written to a table: unchanged.
///
/// # Errors
/// A path that is not UTF-8. Written in another form it would be read back as another file.
pub fn name(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::file(path, "its name is not UTF-8, so it cannot stand in a table").advise("rename the file")
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn table(content: impl AsRef<[u8]>) -> Table {
        Table::new("t.csv", content.as_ref().to_vec()).unwrap()
    }

    /// Line numbers and fields of all rows.
    fn read(content: impl AsRef<[u8]>) -> Vec<(usize, Vec<String>)> {
        let own = |row: Row| (row.line, row.fields.iter().map(str::to_string).collect());
        table(content).rows().map(|row| own(row.unwrap())).collect()
    }

    #[test]
    fn rows_are_read_as_rfc_4180_has_them() {
        let expected = [(1, "a,b"), (2, "\"1\",2"), (3, " x\n, y\" "), (6, "c,")];
        let expected: Vec<_> = expected.into_iter().collect();
        let text = "\"a,b\",\"\"\n\"\"\"1\"\",2\",3\n\" x\n, y\"\" \",\"4\"\n\n\"c,\",";
        for end in ["\n", "\r\n"] {
            for mark in ["", "\u{feff}"] {
                for last in ["", end] {
                    let text = format!("{mark}{}{last}", text.replace('\n', end));
                    let rows = read(&text);
                    let firsts: Vec<(usize, String)> = rows.iter().map(|(n, f)| (*n, f[0].replace('\r', ""))).collect();
                    let firsts: Vec<(usize, &str)> = firsts.iter().map(|(n, f)| (*n, f.as_str())).collect();
                    assert_eq!(firsts, expected, "{text:?}");
                    assert_eq!(rows.iter().map(|(_, f)| f[1].as_str()).collect::<Vec<_>>(), ["", "3", "4", ""]);
                }
            }
        }
    }

    #[test]
    fn lines_are_counted_through_blank_ones_and_through_fields() {
        for end in ["\n", "\r\n", "\r"] {
            let text = ["", "", "a,1", "  ", "", "\"b", "c\",2", "", "d,3", ""].join(end);
            assert_eq!(read(&text).iter().map(|(line, _)| *line).collect::<Vec<_>>(), [3, 6, 9], "{text:?}");
        }
        assert!(read("").is_empty() && read("\n\r\n  \n").is_empty());
    }

    #[test]
    fn what_cannot_be_read_is_named_by_its_line_and_the_rest_goes_on() {
        let rows: Vec<_> = table(b"a,1\nb\xFF,2\nc,3\n\n\"d,4\ne,5\n").rows().collect();
        assert_eq!(rows.iter().map(Result::is_ok).collect::<Vec<_>>(), [true, false, true, false]);
        let found: Vec<String> = rows.into_iter().filter_map(|row| Some(row.err()?.to_string())).collect();
        assert!(found[0].starts_with("t.csv:2: is not UTF-8; "), "{found:?}");
        assert!(found[1].starts_with("t.csv:5: a quote is opened and not closed; "), "{found:?}");
        for open in ["\"", "a,\"", "a,\"4", "a,\"4\"\"", "a,\"4\n", "a,\"4\n\0"] {
            assert!(table(open).rows().last().unwrap().is_err(), "{open:?}");
        }
        assert_eq!(read("a,\0\n\0")[1].1, ["\0"], "a file may hold what ends it");
        assert!(Table::new("t.csv", b"\xFF\xFEa\0".to_vec()).is_err());
    }

    #[test]
    fn what_is_written_is_what_other_readers_of_csv_expect() {
        // Python's csv module reads each of these lines as these fields.
        for (fields, expected) in [
            (&["a.jpg", "1.0", ""][..], "a.jpg,1.0,"),
            (&["a,b.jpg", "1"], "\"a,b.jpg\",1"),
            (&["say \"x\".jpg", "1"], "\"say \"\"x\"\".jpg\",1"),
            (&["nl\nname.jpg", "cr\rname.jpg"], "\"nl\nname.jpg\",\"cr\rname.jpg\""),
            (&[" blank .jpg", "-dash.jpg", "#x"], " blank .jpg,-dash.jpg,#x"),
            (&["é.jpg", "'q'"], "é.jpg,'q'"),
            (&[""], "\"\""),
        ] {
            assert_eq!(line(fields), expected);
            assert_eq!(super::fields(expected), fields);
        }
    }

    #[test]
    #[cfg(unix)]
    fn a_name_that_is_not_utf_8_is_refused() {
        use std::os::unix::ffi::OsStrExt;
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"d/bad\xFF.jpg"));
        assert!(name(odd).unwrap_err().to_string().contains("bad\u{FFFD}.jpg: its name is not UTF-8"));
        assert_eq!(name(Path::new("../x/a b.jpg")).unwrap(), "../x/a b.jpg");
    }

    fn field() -> impl Strategy<Value = String> {
        let part =
            prop_oneof![Just(","), Just("\""), Just("\n"), Just("\r"), Just("\0"), Just(" "), Just("a"), Just("é")];
        prop::collection::vec(part, 0..5).prop_map(|parts| parts.concat())
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(rows in prop::collection::vec((field(), field(), field()), 0..8)) {
            let mut bytes = Vec::new();
            let mut writer = Writer::new(&mut bytes, "t.csv");
            let rows: Vec<Vec<String>> = rows.into_iter().map(|(a, b, c)| vec![a, b, c]).collect();
            rows.iter().try_for_each(|row| writer.row(row)).unwrap();
            let mut line = 1;
            for (row, (number, fields)) in rows.iter().zip(read(&bytes)) {
                prop_assert_eq!(row, &fields);
                prop_assert_eq!(number, line);
                let breaks = |text: &str| text.replace("\r\n", "\n").matches(['\r', '\n']).count();
                line += 1 + row.iter().map(|field| breaks(field)).sum::<usize>();
            }
            prop_assert_eq!(read(&bytes).len(), rows.len());
        }

        #[test]
        fn garbage_never_panics(bytes in prop::collection::vec(
            prop_oneof![Just(b','), Just(b'"'), Just(b'\n'), Just(b'\r'), Just(0), any::<u8>()], 0..200)) {
            if let Ok(table) = Table::new("t.csv", bytes) {
                for error in table.rows().filter_map(Result::err) {
                    prop_assert!(!error.to_string().contains('\n'));
                }
            }
        }
    }
}

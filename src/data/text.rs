//! Common parts of the readers of annotation files: numbered lines, errors with `file:line`, and the choice between
//! stopping at the first problem and listing all of them.

use std::fs;
use std::path::{Path, PathBuf};

use super::photo::{MAX_SIDE, Rect};
use crate::error::At;
use crate::{Error, Result};

/// A text file in memory. Bytes that are not UTF-8 are replaced, so that they show up as an invalid value of some line.
pub(super) struct Text {
    path: PathBuf,
    content: String,
}

impl Text {
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).at(path)?;
        let content = String::from_utf8_lossy(&bytes);
        // Spreadsheets write a byte order mark.
        let content = content.trim_start_matches('\u{feff}').to_string();
        Ok(Self { path: path.to_path_buf(), content })
    }

    /// The non-blank lines, trimmed, with their numbers from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.content.lines().enumerate().map(|(i, line)| (i + 1, line.trim())).filter(|(_, line)| !line.is_empty())
    }

    /// An error at one line.
    pub fn error(&self, line: usize, found: impl std::fmt::Display) -> Error {
        Error::new(format_args!("{}:{line}", self.path.display()), found)
    }
}

/// Collects problems with single lines or files.
pub struct Problems {
    strict: bool,
    /// In the order found; if strict, only notices.
    pub list: Vec<Error>,
}

impl Problems {
    /// None so far. Strict: the first one stops the reader.
    pub fn new(strict: bool) -> Self {
        Self { strict, list: Vec::new() }
    }

    /// The value of a result; `None` for an error that was reported.
    ///
    /// # Errors
    /// As [`Problems::report`].
    pub fn take<T>(&mut self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) => self.report(error).map(|()| None),
        }
    }

    /// Strict: returns the error, which stops the reader. Otherwise records it, and reading continues.
    ///
    /// # Errors
    /// The error given, if strict.
    pub fn report(&mut self, error: Error) -> Result<()> {
        if self.strict {
            return Err(error);
        }
        self.list.push(error);
        Ok(())
    }

    /// Records a notice that is not a problem and never stops the reader.
    pub fn notice(&mut self, notice: Error) {
        self.list.push(notice);
    }

    /// Whether the first problem stops the reader.
    pub fn strict(&self) -> bool {
        self.strict
    }
}

/// A count with thousands separators: 5,048.
pub(super) fn grouped(count: usize) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// A piece of a file for use in a message: quoted, escaped, truncated.
pub(super) fn quoted(token: &str) -> String {
    const SHOWN: usize = 40;
    match token.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &token[..end]),
        None => format!("{token:?}"),
    }
}

/// `x`, `y`, `width`, `height` as a box that can be in a photo; otherwise the reason why not.
pub(super) fn parse_box(fields: &[&str]) -> Result<Rect, String> {
    let mut numbers = [0.0_f32; 4];
    for ((number, field), what) in numbers.iter_mut().zip(fields).zip(["x", "y", "width", "height"]) {
        *number = field.parse().map_err(|_| format!("{what} is {}, not a number", quoted(field)))?;
    }
    let [x, y, width, height] = numbers;
    check_box(Rect { x, y, width, height })
}

/// The box itself if it has an area and intersects the quadrant of non-negative coordinates.
pub(super) fn check_box(r: Rect) -> Result<Rect, String> {
    let Rect { x, y, width, height } = r;
    let largest = MAX_SIDE as f32;
    let shown = format!("{width} x {height} at ({x}, {y})");
    // Written so that NaN fails.
    if !(width > 0.0 && height > 0.0) {
        return Err(format!("box {shown} is empty"));
    }
    if !(x.abs() <= largest && y.abs() <= largest && width <= 2.0 * largest && height <= 2.0 * largest)
        || x + width <= 0.0
        || y + height <= 0.0
    {
        return Err(format!("box {shown} lies outside of any photo"));
    }
    Ok(r)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quoted_token_is_short_and_printable() {
        assert_eq!(quoted("a\u{7}b"), "\"a\\u{7}b\"");
        assert_eq!(quoted(&"é".repeat(50)), format!("\"{}\"...", "é".repeat(40)));
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        for (count, text) in [(0, "0"), (999, "999"), (5_048, "5,048"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), text);
        }
    }

    #[test]
    fn boxes_without_area_or_place_are_refused() {
        assert_eq!(parse_box(&["1", "2.5", "3", "4"]), Ok(Rect::new(1.0, 2.5, 3.0, 4.0)));
        assert!(check_box(Rect::new(-5.0, -5.0, 10.0, 10.0)).is_ok(), "faces are cut off by the border");
        for bad in [["1", "1", "0", "5"], ["1", "1", "5", "-1"], ["nan", "1", "5", "5"], ["1", "1", "nan", "5"]] {
            assert!(parse_box(&bad).is_err(), "{bad:?}");
        }
        for bad in [["-9", "1", "5", "5"], ["1", "1", "inf", "5"], ["1e9", "1", "5", "5"], ["one", "1", "5", "5"]] {
            assert!(parse_box(&bad).is_err(), "{bad:?}");
        }
    }
}

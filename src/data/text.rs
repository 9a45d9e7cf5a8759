//! What the readers of annotation files share: numbered lines, errors with `file:line`, and the choice between
//! stopping at the first problem and listing all of them.

use std::fs;
use std::path::{Path, PathBuf};

use super::photo::{MAX_SIDE, Rect};
use crate::error::At;
use crate::{Error, Result};

/// A text file in memory. Bytes that are not UTF-8 are replaced, so that they surface as a bad value of some line.
pub(super) struct Text {
    path: PathBuf,
    content: String,
}

impl Text {
    pub fn open(path: &Path) -> Result<Self> {
        let bytes = fs::read(path).at(path)?;
        let content = String::from_utf8_lossy(&bytes);
        // Spreadsheets put a byte order mark in front.
        let content = content.trim_start_matches('\u{feff}').to_string();
        Ok(Self { path: path.to_path_buf(), content })
    }

    /// The lines that are not blank, trimmed, with their numbers from 1.
    pub fn lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.content.lines().enumerate().map(|(i, line)| (i + 1, line.trim())).filter(|(_, line)| !line.is_empty())
    }

    /// An error at one line.
    pub fn error(&self, line: usize, found: impl std::fmt::Display) -> Error {
        Error::new(format_args!("{}:{line}", self.path.display()), found)
    }
}

/// Where a reader puts what is wrong with single lines or files.
pub struct Problems {
    strict: bool,
    /// In the order found; if strict, nothing but notices.
    pub list: Vec<Error>,
}

impl Problems {
    /// None so far. Strict: the first ends the reading.
    pub fn new(strict: bool) -> Self {
        Self { strict, list: Vec::new() }
    }

    /// What could be read; `None` if it could not and that was reported.
    ///
    /// # Errors
    /// As [`Problems::report`].
    pub fn take<T>(&mut self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Ok(read) => Ok(Some(read)),
            Err(error) => self.report(error).map(|()| None),
        }
    }

    /// Strict: the error ends the reading. Otherwise it is kept and the reading goes on.
    ///
    /// # Errors
    /// The one given, if strict.
    pub fn report(&mut self, error: Error) -> Result<()> {
        if self.strict {
            return Err(error);
        }
        self.list.push(error);
        Ok(())
    }

    /// Keeps what is worth knowing but no fault, so that it ends nothing even if strict.
    pub fn notice(&mut self, notice: Error) {
        self.list.push(notice);
    }

    /// Whether the first problem ends the reading.
    pub fn strict(&self) -> bool {
        self.strict
    }
}

/// A count as it is read best: 5,048.
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

/// A piece of a file as it may stand in a message: quoted, escaped, not too long.
pub(super) fn quoted(token: &str) -> String {
    const SHOWN: usize = 40;
    match token.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{:?}...", &token[..end]),
        None => format!("{token:?}"),
    }
}

/// `x`, `y`, `width`, `height` as a box that can lie in a photo; otherwise what is wrong with it.
pub(super) fn parse_box(fields: &[&str]) -> Result<Rect, String> {
    let mut numbers = [0.0_f32; 4];
    for ((number, field), what) in numbers.iter_mut().zip(fields).zip(["x", "y", "width", "height"]) {
        *number = field.parse().map_err(|_| format!("{what} is {}, not a number", quoted(field)))?;
    }
    let [x, y, width, height] = numbers;
    check_box(Rect { x, y, width, height })
}

/// The box itself if it has an area and meets the quadrant that photos lie in.
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

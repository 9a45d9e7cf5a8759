//! The one error type. Every message has the same three parts, so that one line is enough:
//! *where* (a file, a layer, a flag), *what* was found there, and *what to do*.

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// Result of everything in this crate that can fail.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure a user can read: `place: found; advice`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    place: String,
    found: String,
    advice: String,
}

impl Error {
    /// `place` is a file, a layer or a flag; `found` says what is wrong there.
    pub fn new(place: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self { place: place.to_string(), found: found.to_string(), advice: String::new() }
    }

    /// The same, placed at a file.
    pub fn file(path: impl AsRef<Path>, found: impl fmt::Display) -> Self {
        Self::new(path.as_ref().display(), found)
    }

    /// Broken TOML in `text`, which `place` names: adds the line.
    pub fn toml(place: impl fmt::Display, text: &str, error: &toml::de::Error) -> Self {
        let line =
            error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
        Self::new(format!("{place}:{line}"), error.message())
    }

    /// Adds what the user can do about it.
    pub fn advise(mut self, advice: impl fmt::Display) -> Self {
        self.advice = advice.to_string();
        self
    }

    /// Puts an outer place in front: an error from a layer becomes one from a file's layer.
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        self.place = if self.place.is_empty() { place.to_string() } else { format!("{place}: {}", self.place) };
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{}: ", line(&self.place, false))?;
        }
        write!(f, "{}", line(&self.found, true).trim_end())?;
        if !self.advice.is_empty() {
            write!(f, "; {}", line(&self.advice, true))?;
        }
        Ok(())
    }
}

/// Foreign errors may span lines, and what they quote from a file may steer a terminal; ours are one line of print. In prose a
/// break becomes a blank; in a place, which may be the name of a file, it stays visible.
fn line(text: &str, prose: bool) -> Cow<'_, str> {
    if !text.contains(char::is_control) {
        return text.into();
    }
    let mut line = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\n' | '\r' | '\t' if prose => line.push(' '),
            c if c.is_control() => line.extend(c.escape_default()),
            c => line.push(c),
        }
    }
    line.into()
}

impl std::error::Error for Error {}

/// The time, as messages give it.
#[cfg(feature = "face")]
pub fn now() -> impl fmt::Display {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Gives a foreign error its place: `fs::read(p).at(p)?`.
pub trait At<T> {
    /// Turns the error into ours, placed at `place`.
    fn at(self, place: impl AsRef<Path>) -> Result<T>;
}

impl<T, E: fmt::Display> At<T> for std::result::Result<T, E> {
    fn at(self, place: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| Error::file(place, e))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_toml_is_placed_at_its_line() {
        for (text, line) in [("a = 1\nb = \n", 2), ("a = 1\n\n]\n", 3), ("= 1", 1)] {
            let error = text.parse::<toml::Table>().unwrap_err();
            assert_eq!(Error::toml("f.toml", text, &error).place, format!("f.toml:{line}"), "{text:?}");
        }
    }

    #[test]
    fn a_message_is_one_line_with_place_finding_and_advice() {
        let e = Error::new("layer c1", "kernel 5\n does not fit").advise("use a larger input").within("nets/a.toml");
        assert_eq!(e.to_string(), "nets/a.toml: layer c1: kernel 5  does not fit; use a larger input");
    }

    #[test]
    fn what_a_file_says_cannot_break_the_line_or_steer_the_terminal() {
        let e = Error::new("a\nb", "no key \u{1b}[31m\r\n").advise("known:\ta, \0\u{85}é");
        assert_eq!(e.to_string(), r"a\nb: no key \u{1b}[31m; known: a, \u{0}\u{85}é");
    }
}

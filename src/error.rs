//! The crate's error type. Every message has the same three parts, so that one line is enough:
//! *where* (a file, a layer, an argument), *what* was found there, and *what to do* about it.

use std::borrow::Cow;
use std::path::Path;
use std::sync::Arc;
use std::{fmt, io};

/// Result of every fallible function in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error by kind, with a message that a user can act on: `place: found; advice`, on one line.
///
/// ```
/// use weft::Error;
/// use weft::net::Net;
///
/// match Net::load("no-such-net.toml") {
///     Err(Error::Io { message, source }) => {
///         assert_eq!(message.place(), "no-such-net.toml");
///         assert_eq!(source.kind(), std::io::ErrorKind::NotFound);
///     }
///     _ => unreachable!(),
/// }
/// ```
#[derive(Clone, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system cannot read or write something.
    #[error("{message}")]
    Io {
        /// Where, and what to do.
        message: Message,
        /// The operating system's error.
        source: Arc<io::Error>,
    },
    /// A file with invalid content.
    #[error("{0}")]
    Format(Message),
    /// An invalid argument or setting, or an invalid combination of them.
    #[error("{0}")]
    Argument(Message),
    /// A network that cannot be bound, or tensors that do not fit it.
    #[error("{0}")]
    Network(Message),
    /// A device that cannot be used, or a launch that failed.
    #[error("{0}")]
    Device(Message),
    /// More memory is needed than is free.
    #[error("{0}")]
    Memory(Message),
    /// Another process is using the same folder.
    #[error("{0}")]
    Busy(Message),
}

/// The parts of an error message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    place: String,
    found: String,
    advice: String,
}

impl Message {
    fn new(place: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self { place: place.to_string(), found: found.to_string(), advice: String::new() }
    }

    /// A file, a layer or an argument; may be empty.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// What is wrong there.
    pub fn found(&self) -> &str {
        &self.found
    }

    /// What the user can do about it; may be empty.
    pub fn advice(&self) -> &str {
        &self.advice
    }
}

impl Error {
    /// An argument or a setting: `found` describes the problem at `place`.
    pub fn new(place: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self::Argument(Message::new(place, found))
    }

    /// A file with invalid content.
    pub fn file(path: impl AsRef<Path>, found: impl fmt::Display) -> Self {
        Self::Format(Message::new(path.as_ref().display(), found))
    }

    /// A file that cannot be read or written.
    pub fn io(path: impl AsRef<Path>, source: io::Error) -> Self {
        Self::Io { message: Message::new(path.as_ref().display(), &source), source: Arc::new(source) }
    }

    /// A network or its tensors.
    pub fn network(place: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self::Network(Message::new(place, found))
    }

    /// A device.
    pub fn device(place: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self::Device(Message::new(place, found))
    }

    /// Not enough memory.
    pub fn memory(place: impl fmt::Display, found: impl fmt::Display) -> Self {
        Self::Memory(Message::new(place, found))
    }

    /// A folder that another process is using.
    pub fn busy(path: impl AsRef<Path>, found: impl fmt::Display) -> Self {
        Self::Busy(Message::new(path.as_ref().display(), found))
    }

    /// Invalid TOML in `text`, which `place` names: adds the line.
    pub fn toml(place: impl fmt::Display, text: &str, error: &toml::de::Error) -> Self {
        let line =
            error.span().map_or(1, |span| 1 + text.bytes().take(span.start).filter(|byte| *byte == b'\n').count());
        Self::Format(Message::new(format!("{place}:{line}"), error.message()))
    }

    /// The message.
    pub fn message(&self) -> &Message {
        match self {
            Self::Io { message, .. }
            | Self::Format(message)
            | Self::Argument(message)
            | Self::Network(message)
            | Self::Device(message)
            | Self::Memory(message)
            | Self::Busy(message) => message,
        }
    }

    fn message_mut(&mut self) -> &mut Message {
        match self {
            Self::Io { message, .. }
            | Self::Format(message)
            | Self::Argument(message)
            | Self::Network(message)
            | Self::Device(message)
            | Self::Memory(message)
            | Self::Busy(message) => message,
        }
    }

    /// Adds what the user can do about it.
    #[must_use]
    pub fn advise(mut self, advice: impl fmt::Display) -> Self {
        self.message_mut().advice = advice.to_string();
        self
    }

    /// Prepends an outer place: an error from a layer becomes one from a file's layer.
    #[must_use]
    pub fn within(mut self, place: impl fmt::Display) -> Self {
        let message = self.message_mut();
        message.place =
            if message.place.is_empty() { place.to_string() } else { format!("{place}: {}", message.place) };
        self
    }

    /// Names an argument as a command-line option, if it is one of `names`: `stride` becomes `--stride`, `device warp` becomes
    /// `--device warp`.
    #[must_use]
    pub fn as_option(mut self, names: &[&str]) -> Self {
        let place = &mut self.message_mut().place;
        if names.iter().any(|name| place.split(' ').next() == Some(name)) {
            place.insert_str(0, "--");
        }
        self
    }
}

/// The message: what a `main` that returns an error, or a failed `unwrap`, shows.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Errors of one kind with the same message are equal.
impl PartialEq for Error {
    fn eq(&self, other: &Self) -> bool {
        std::mem::discriminant(self) == std::mem::discriminant(other) && self.message() == other.message()
    }
}

impl Eq for Error {}

impl fmt::Display for Message {
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

/// Foreign errors may span lines, and text that they quote from a file may contain terminal control codes; ours are one
/// printable line. In prose a line break becomes a space; in a place, which may be a file name, it is escaped.
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

/// Formats a time for messages.
#[cfg(feature = "face")]
pub(crate) fn now() -> impl fmt::Display {
    jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// Adds a place to a foreign error: `fs::read(p).at(p)?`.
pub(crate) trait At<T> {
    /// Converts the error into ours, placed at `place`.
    fn at(self, place: impl AsRef<Path>) -> Result<T>;
}

/// An error of another crate that converts to one of ours.
pub(crate) trait Foreign {
    fn at(self, place: &Path) -> Error;
}

impl Foreign for io::Error {
    fn at(self, place: &Path) -> Error {
        Error::io(place, self)
    }
}

impl Foreign for serde_json::Error {
    fn at(self, place: &Path) -> Error {
        Error::file(place, self)
    }
}

#[cfg(feature = "image")]
impl Foreign for image::ImageError {
    fn at(self, place: &Path) -> Error {
        match self {
            image::ImageError::IoError(source) => Error::io(place, source),
            other => Error::file(place, other),
        }
    }
}

impl<T, E: Foreign> At<T> for std::result::Result<T, E> {
    fn at(self, place: impl AsRef<Path>) -> Result<T> {
        self.map_err(|e| e.at(place.as_ref()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn broken_toml_is_placed_at_its_line() {
        for (text, line) in [("a = 1\nb = \n", 2), ("a = 1\n\n]\n", 3), ("= 1", 1)] {
            let error = text.parse::<toml::Table>().unwrap_err();
            assert_eq!(Error::toml("f.toml", text, &error).message().place(), format!("f.toml:{line}"), "{text:?}");
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

//! Settings: the TOML files that users write. Every invalid value is reported with file, line and key, and every number
//! has a range ([`Limit`]) that is checked while it is parsed, before it is used.
//!
//! A struct that is read from TOML gives each of its numbers a range, whatever contains it (`Option`, `Vec`, an array, a map):
//!
//! ```text
//! #[serde(deserialize_with = "within::<Side, _, _>")]
//! frame: [usize; 2],
//! ```
//!
//! `tests/settings.rs` fails for a number without one.

use crate::shipped::Source;
use crate::{Error, Result};
use serde::de::{DeserializeOwned, Error as _, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;
use std::path::Path;
use toml::de::{DeTable, DeValue};
use toml::{Spanned, Table, Value};

/// Maximum size of a settings file in bytes.
const LARGEST_FILE: u64 = 1 << 20;
/// Maximum number of keys in `--set a.b.c=value`.
const DEEPEST: usize = 32;

/// A number type that TOML's integers and floats convert to.
pub trait Number: Copy + PartialOrd + fmt::Display {
    fn of_integer(value: i64) -> Option<Self>;
    fn of_float(value: f64) -> Option<Self>;
}

macro_rules! numbers {
    ($($integer:ty),*; $($float:ty),*) => {
        $(impl Number for $integer {
            fn of_integer(value: i64) -> Option<Self> {
                value.try_into().ok()
            }
            fn of_float(_: f64) -> Option<Self> {
                None
            }
        })*
        $(impl Number for $float {
            fn of_integer(value: i64) -> Option<Self> {
                Some(value as Self)
            }
            fn of_float(value: f64) -> Option<Self> {
                Some(value as Self)
            }
        })*
    };
}
numbers!(usize, u64; f32, f64);

/// The range of a number, both ends included. NaN is outside of every range.
pub trait Limit {
    type Number: Number;
    const LEAST: Self::Number;
    const MOST: Self::Number;
}

/// Declares ranges.
macro_rules! limits {
    ($($(#[$doc:meta])* $name:ident: $number:ty = $least:expr, $most:expr;)*) => {$(
        $(#[$doc])*
        #[derive(Debug)]
        pub struct $name;
        impl $crate::settings::Limit for $name {
            type Number = $number;
            const LEAST: $number = $least;
            const MOST: $number = $most;
        }
    )*};
}
pub(crate) use limits;

/// The number, or the reason why `L` rejects it.
fn checked<L: Limit>(found: impl fmt::Debug, number: Option<L::Number>) -> Result<L::Number, String> {
    match number {
        Some(number) if L::LEAST <= number && number <= L::MOST => Ok(number),
        // As Debug, which prints 1e30 in this form.
        _ => Err(format!("{found:?} is out of range; write {}", range::<L>())),
    }
}

fn range<L: Limit>() -> String {
    format!("{} to {}", L::LEAST, L::MOST)
}

/// Containers of numbers that can be parsed with the range `L`.
pub trait Within<L: Limit>: Sized {
    /// # Errors
    /// Another type; a number out of range.
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
}

/// For `deserialize_with`: numbers in the range `L`.
///
/// # Errors
/// As [`Within::read`].
pub fn within<'de, L: Limit, T: Within<L>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    T::read(from)
}

/// A visitor of one number.
struct One<L>(PhantomData<L>);

impl<L: Limit> Visitor<'_> for One<L> {
    type Value = L::Number;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number, {}", range::<L>())
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<L::Number, E> {
        checked::<L>(value, L::Number::of_integer(value)).map_err(E::custom)
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<L::Number, E> {
        let number = i64::try_from(value).ok().and_then(L::Number::of_integer);
        checked::<L>(value, number).map_err(E::custom)
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<L::Number, E> {
        checked::<L>(value, L::Number::of_float(value)).map_err(E::custom)
    }
}

/// An element of a container, read with the range `L`; containers may be nested.
struct Inner<L, T>(T, PhantomData<L>);

impl<'de, L: Limit, T: Within<L>> Deserialize<'de> for Inner<L, T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Self(T::read(from)?, PhantomData))
    }
}

macro_rules! plain {
    ($($number:ty),*) => {$(
        impl<L: Limit<Number = $number>> Within<L> for $number {
            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                from.deserialize_any(One::<L>(PhantomData))
            }
        }
    )*};
}
plain!(usize, u64, f32, f64);

impl<L: Limit, T: Within<L>> Within<L> for Option<T> {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        // TOML has no null: a value that is present is `Some`.
        T::read(from).map(Some)
    }
}

impl<L: Limit, T: Within<L>> Within<L> for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Vec::<Inner<L, T>>::deserialize(from)?.into_iter().map(|inner| inner.0).collect())
    }
}

impl<L: Limit, T: Within<L>> Within<L> for [T; 2] {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(<[Inner<L, T>; 2]>::deserialize(from)?.map(|inner| inner.0))
    }
}

impl<L: Limit, T: Within<L>> Within<L> for [T; 3] {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(<[Inner<L, T>; 3]>::deserialize(from)?.map(|inner| inner.0))
    }
}

impl<L: Limit, T: Within<L>> Within<L> for BTreeMap<String, T> {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let inner = BTreeMap::<String, Inner<L, T>>::deserialize(from)?;
        Ok(inner.into_iter().map(|(key, inner)| (key, inner.0)).collect())
    }
}

/// Parses a number from the command line, with the range `L`: for clap's `value_parser`.
///
/// # Errors
/// A text that is not a number; a number out of range.
pub fn argument<L: Limit>(text: &str) -> Result<L::Number, String> {
    if let Ok(integer) = text.parse::<i64>() {
        return checked::<L>(integer, L::Number::of_integer(integer));
    }
    let float: f64 = text.parse().map_err(|_| format!("is no number; write {}", range::<L>()))?;
    checked::<L>(float, L::Number::of_float(float))
}

/// A step of a path to a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    Key(String),
    Index(usize),
}

/// The path to a value through the tables of a file, from the outermost.
pub type Way = Vec<Step>;

/// A path of keys, `a.b`.
pub fn way(key: &str) -> Way {
    key.split('.').map(|key| Step::Key(key.to_string())).collect()
}

/// The keys of a path as users write them, `a.b`; indices of list entries are left out.
fn dotted(way: &[Step]) -> String {
    let keys = way.iter().filter_map(|step| match step {
        Step::Key(key) => Some(key.as_str()),
        Step::Index(_) => None,
    });
    keys.collect::<Vec<_>>().join(".")
}

/// An invalid value: its path, and the reason.
#[derive(Debug, Clone)]
pub struct Mistake {
    pub way: Way,
    pub found: String,
}

impl Mistake {
    /// A mistake in the value of a key, `a.b`.
    pub fn at(key: &str, found: impl fmt::Display) -> Self {
        Self { way: way(key), found: found.to_string() }
    }

    /// The same, inside a table or a list of the value.
    pub fn inside(mut self, step: Step) -> Self {
        self.way.insert(0, step);
        self
    }

    /// The dotted key; empty for a mistake without a path.
    pub fn key(&self) -> String {
        // The text already names an unknown key.
        let end = self.way.len() - usize::from(self.is_unknown_key());
        dotted(&self.way[..end])
    }

    /// An unknown key.
    pub fn is_unknown_key(&self) -> bool {
        match self.way.last() {
            Some(Step::Key(key)) => self.found.starts_with(&format!("unknown field `{key}`")),
            _ => false,
        }
    }
}

/// A mistake without a path.
impl From<String> for Mistake {
    fn from(found: String) -> Self {
        Self { way: Way::new(), found }
    }
}

/// `key: found`.
impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.key();
        if !key.is_empty() {
            write!(f, "{key}: ")?;
        }
        f.write_str(&self.found)
    }
}

/// Deserialises a struct from a table.
///
/// # Errors
/// The first invalid value.
pub fn from_table<T: DeserializeOwned>(table: Table) -> Result<T, Mistake> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let steps = error.path().iter().filter_map(|segment| match segment {
            serde_path_to_error::Segment::Seq { index } => Some(Step::Index(*index)),
            serde_path_to_error::Segment::Map { key } => Some(Step::Key(key.clone())),
            // The variant that a `kind` names is not a key of the file.
            serde_path_to_error::Segment::Enum { .. } | serde_path_to_error::Segment::Unknown => None,
        });
        Mistake { way: steps.collect(), found: error.inner().message().replace('\n', " ") }
    })
}

/// Serialises an enum whose variants are tables as one table with the variant's name as `kind`; [`Document::untag`] is the
/// inverse. Serde's own tagged enums lose the position of their values.
///
/// # Errors
/// Values that JSON cannot represent.
pub fn tagged<T: Serialize, S: Serializer>(value: &T, to: S) -> Result<S::Ok, S::Error> {
    use serde::ser::Error;
    // Through text, where an f32 keeps its short form.
    let text = serde_json::to_string(value).map_err(S::Error::custom)?;
    let value: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&text).map_err(S::Error::custom)?;
    let mut table = serde_json::Map::new();
    for (kind, inner) in value {
        table.insert("kind".into(), kind.into());
        if let serde_json::Value::Object(inner) = inner {
            table.extend(inner);
        }
    }
    table.serialize(to)
}

/// A name, or a list of names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Names(pub Vec<String>);

impl<'de> Deserialize<'de> for Names {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let name = |value: Value| match value {
            Value::String(name) => Ok(name),
            value => Err(D::Error::custom(format!("is {}; write a name or a list of names", value.type_str()))),
        };
        match Value::deserialize(from)? {
            Value::Array(names) => names.into_iter().map(name).collect::<Result<_, _>>().map(Self),
            value => Ok(Self(vec![name(value)?])),
        }
    }
}

/// A changed value of a file, as given by `--set schedule.rate=0.01`.
#[derive(Debug, Clone, PartialEq)]
pub struct Change {
    /// Path in the tables of the file.
    pub keys: Vec<String>,
    /// The new value.
    pub value: Value,
    /// Origin of the change, for messages: `--set schedule.rate`.
    pub origin: String,
}

impl Change {
    /// Parses `key.of.tables=value`; a value that is not valid TOML is a string.
    ///
    /// # Errors
    /// A text without key or equals sign.
    pub fn parse(text: &str) -> Result<Self> {
        let wrong = || Error::new(format!("--set {text}"), "is no key=value").advise("write --set schedule.rate=0.01");
        let (key, value) = text.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(wrong)?;
        let value = value.trim().parse::<Value>().unwrap_or_else(|_| Value::String(value.to_string()));
        let keys: Vec<String> = key.split('.').map(|key| key.trim().to_string()).collect();
        if keys.len() > DEEPEST {
            return Err(wrong());
        }
        Ok(Self { keys, value, origin: format!("--set {key}") })
    }

    /// Every value of a table, with the keys of the enclosing tables. Keys may be nested,
    /// `schedule = { rate = 0.01 }`, or dotted, `"schedule.rate" = 0.01`. `origin` names the origin of the value at such keys.
    pub fn all_of(table: &Table, origin: &dyn Fn(&[String]) -> String) -> Vec<Self> {
        let mut changes = Vec::new();
        collect(table, &[], origin, &mut changes);
        changes
    }

    /// Sets the value; missing tables on its path are created.
    ///
    /// # Errors
    /// Something on the path that is not a table.
    pub fn apply(&self, table: &mut Table) -> Result<()> {
        let wrong = |found: String| Error::new(&self.origin, found);
        let (last, tables) = self.keys.split_last().ok_or_else(|| wrong("has no key".into()))?;
        let mut at = table;
        for key in tables {
            let next = at.entry(key).or_insert_with(|| Value::Table(Table::new()));
            at = next.as_table_mut().ok_or_else(|| wrong(format!("{key} is no table")))?;
        }
        at.insert(last.clone(), self.value.clone());
        Ok(())
    }
}

fn collect(table: &Table, above: &[String], origin: &dyn Fn(&[String]) -> String, changes: &mut Vec<Change>) {
    for (key, value) in table {
        let keys = [above, std::slice::from_ref(key)].concat();
        match value {
            Value::Table(inner) => collect(inner, &keys, origin, changes),
            value => changes.push(Change {
                keys: keys.iter().flat_map(|key| key.split('.')).map(str::to_string).collect(),
                value: value.clone(),
                origin: origin(&keys),
            }),
        }
    }
}

/// Reads a settings file as text.
///
/// # Errors
/// A file that cannot be read, or is too large for a settings file.
pub fn read_text(path: impl AsRef<Path>) -> Result<String> {
    let path = path.as_ref();
    let file = std::fs::File::open(path).map_err(|e| Error::io(path, e))?;
    let mut text = String::new();
    file.take(LARGEST_FILE + 1).read_to_string(&mut text).map_err(|e| Error::io(path, e))?;
    if text.len() as u64 > LARGEST_FILE {
        return Err(Error::file(path, format!("is larger than {} MiB", LARGEST_FILE >> 20)).advise("give a TOML file"));
    }
    Ok(text)
}

/// A TOML document that keeps the position of its values.
#[derive(Debug, Clone, Default)]
pub struct Document {
    /// The file, as named in messages.
    place: String,
    text: String,
    /// With changes applied.
    pub table: Table,
    /// Values that are not from the file, and their origin.
    changed: Vec<(Way, String)>,
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// A file that cannot be read, with the `advice`; invalid TOML, with its line.
    pub fn load(source: impl Into<Source>, advice: &str) -> Result<Self> {
        let source = source.into();
        let text = match &source {
            Source::Disk(path) => read_text(path).map_err(|e| e.advise(advice))?,
            Source::Shipped(file) => String::from_utf8(file.bytes.to_vec()).map_err(|e| Error::file(file.name, e))?,
        };
        Self::parse(&source.to_string(), text)
    }

    /// Parses a text; `place` names it in messages.
    ///
    /// # Errors
    /// Invalid TOML, with its line.
    pub fn parse(place: &str, text: String) -> Result<Self> {
        let parsed = DeTable::parse(&text).map_err(|e| Error::toml(place, &text, &e))?;
        let table = Table::deserialize(toml::de::Deserializer::from(parsed.clone())).map_err(|e| {
            // A number of more than 64 bits: the only valid TOML that is not a value.
            let span = e.span().unwrap_or_default();
            let way = way_to(parsed.get_ref(), span.start);
            let found = text.get(span).filter(|found| !found.is_empty()).map_or_else(
                || e.message().to_string(),
                |number| format!("{number} is out of range; write a smaller number"),
            );
            Error::new(format!("{place}:{}: {}", line(&parsed, &text, &way), dotted(&way)), found)
        })?;
        Ok(Self { place: place.to_string(), text, table, changed: Vec::new() })
    }

    /// The file, as named in messages.
    pub fn place(&self) -> &str {
        &self.place
    }

    /// Replaces a value.
    ///
    /// # Errors
    /// As [`Change::apply`].
    pub fn change(&mut self, change: &Change) -> Result<()> {
        change.apply(&mut self.table)?;
        self.comes_from(change.keys.iter().cloned().map(Step::Key).collect(), &change.origin);
        Ok(())
    }

    /// Records that a value is not from the file.
    pub fn comes_from(&mut self, way: Way, origin: &str) {
        self.changed.push((way, origin.to_string()));
    }

    /// Converts a table with a `kind` to the form that serde reads as an enum: a table in a table named after the kind.
    ///
    /// # Errors
    /// A table without a kind.
    pub fn untag(&mut self, key: &str) -> Result<()> {
        let Some(Value::Table(table)) = self.table.get_mut(key) else { return Ok(()) };
        let kind = match table.remove("kind") {
            Some(Value::String(kind)) => kind,
            found => {
                let found = found.map_or("is missing".into(), |value| format!("is {}, no string", value.type_str()));
                return Err(self.error(&format!("{key}.kind"), found));
            }
        };
        let inner = std::mem::take(table);
        table.insert(kind, Value::Table(inner));
        Ok(())
    }

    /// Deserialises the whole document as a struct.
    ///
    /// # Errors
    /// The first invalid value, with line and key.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T> {
        from_table(self.table.clone()).map_err(|mistake| self.mistake(&mistake))
    }

    /// The error for a mistake in this file.
    pub fn mistake(&self, mistake: &Mistake) -> Error {
        self.mistake_in(&[], "", mistake)
    }

    /// The same, in a table of the file that users know as `name`.
    pub fn mistake_in(&self, table: &[Step], name: &str, mistake: &Mistake) -> Error {
        Error::new(self.place_in(table, name, mistake), &mistake.found)
    }

    /// Location of a mistake: `file:line: name: key`, or the origin of the value.
    pub fn place_in(&self, table: &[Step], name: &str, mistake: &Mistake) -> String {
        let whole = [table, &mistake.way].concat();
        if let Some(origin) = self.origin_of(&whole) {
            return origin.to_string();
        }
        let mut place = format!("{}:{}", self.place, self.line_of(&whole));
        for name in [name, &mistake.key()].into_iter().filter(|name| !name.is_empty()) {
            place += &format!(": {name}");
        }
        place
    }

    /// An error at a key, `a.b`.
    pub fn error(&self, key: &str, found: impl fmt::Display) -> Error {
        self.mistake(&Mistake::at(key, found))
    }

    /// The origin of a value that is not from the file.
    fn origin_of(&self, way: &[Step]) -> Option<&str> {
        let inside = self.changed.iter().rev().find(|(changed, _)| way.starts_with(changed));
        inside.map(|(_, origin)| origin.as_str())
    }

    /// The line of a value, or of the innermost existing table around it; from 1.
    pub fn line_of(&self, way: &[Step]) -> usize {
        DeTable::parse(&self.text).map_or(1, |table| line(&table, &self.text, way))
    }

    /// The lines of the keys of a table.
    pub fn lines_in(&self, tables: &str) -> Vec<BTreeMap<String, usize>> {
        let Ok(parsed) = DeTable::parse(&self.text) else { return Vec::new() };
        let mut lines = Lines::new(&self.text);
        let list = parsed.get_ref().get(tables).and_then(|value| value.get_ref().as_array());
        let of = |table: &Spanned<DeValue<'_>>, lines: &mut Lines<'_>| {
            let keys = table.get_ref().as_table().into_iter().flat_map(|table| table.keys());
            keys.map(|key| (key.get_ref().to_string(), lines.at(key.span().start))).collect()
        };
        list.into_iter().flat_map(|list| list.iter()).map(|table| of(table, &mut lines)).collect()
    }
}

/// Converts offsets of a text to lines; fastest for offsets in ascending order.
struct Lines<'a> {
    text: &'a str,
    at: usize,
    line: usize,
}

impl<'a> Lines<'a> {
    fn new(text: &'a str) -> Self {
        Self { text, at: 0, line: 1 }
    }

    fn at(&mut self, place: usize) -> usize {
        let place = place.min(self.text.len());
        if place < self.at {
            (self.at, self.line) = (0, 1);
        }
        let breaks = self.text.as_bytes()[self.at..place].iter().filter(|byte| **byte == b'\n').count();
        (self.at, self.line) = (place, self.line + breaks);
        self.line
    }
}

fn line(table: &Spanned<DeTable<'_>>, text: &str, way: &[Step]) -> usize {
    Lines::new(text).at(place_of(table.get_ref(), way).unwrap_or(0))
}

/// Offset of the last step of an existing path.
fn place_of(table: &DeTable<'_>, way: &[Step]) -> Option<usize> {
    let (first, rest) = way.split_first()?;
    let Step::Key(key) = first else { return None };
    let (key, value) = table.iter().find(|(name, _)| name.get_ref() == key)?;
    let mut place = key.span().start;
    let (mut value, mut rest) = (value, rest);
    loop {
        match (value.get_ref(), rest.split_first()) {
            (DeValue::Array(list), Some((Step::Index(index), further))) => {
                let Some(entry) = list.get(*index) else { return Some(place) };
                (place, value, rest) = (entry.span().start, entry, further);
            }
            (DeValue::Table(table), Some((Step::Key(_), _))) => return place_of(table, rest).or(Some(place)),
            _ => return Some(place),
        }
    }
}

/// The path to the innermost value that contains an offset of the text.
fn way_to(table: &DeTable<'_>, place: usize) -> Way {
    fn inside(value: &Spanned<DeValue<'_>>, place: usize) -> Option<Way> {
        match value.get_ref() {
            // A table's parts may be scattered over the text: only its contents count.
            DeValue::Table(table) => Some(way_to(table, place)).filter(|way| !way.is_empty()),
            DeValue::Array(list) => list.iter().enumerate().find_map(|(index, entry)| {
                let way = inside(entry, place)?;
                Some(std::iter::once(Step::Index(index)).chain(way).collect())
            }),
            _ => value.span().contains(&place).then(Way::new),
        }
    }
    let found = table.iter().find_map(|(key, value)| {
        let way = inside(value, place)?;
        Some(std::iter::once(Step::Key(key.get_ref().to_string())).chain(way).collect())
    });
    found.unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    limits! {
        Side: usize = 1, 16384;
        Share: f32 = 0.0, 0.5;
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        name: String,
        #[serde(deserialize_with = "within::<Side, _, _>")]
        frame: [usize; 2],
        #[serde(default, deserialize_with = "within::<Side, _, _>")]
        most: Option<usize>,
        #[serde(default)]
        inner: Inside,
        #[serde(default)]
        shape: Option<Form>,
    }

    #[derive(Debug, Default, Deserialize)]
    #[serde(deny_unknown_fields, default)]
    struct Inside {
        #[serde(deserialize_with = "within::<Share, _, _>")]
        shares: Vec<f32>,
        #[serde(deserialize_with = "within::<Share, _, _>")]
        named: BTreeMap<String, f32>,
    }

    #[derive(Debug, Deserialize, Serialize)]
    #[serde(deny_unknown_fields, rename_all = "kebab-case")]
    enum Form {
        OneBall {
            #[serde(deserialize_with = "within::<Share, _, _>")]
            radius: f32,
        },
    }

    fn read(text: &str, changes: &[&str]) -> Result<File> {
        let mut document = Document::parse("a.toml", text.to_string())?;
        for change in changes {
            document.change(&Change::parse(change)?)?;
        }
        document.untag("shape")?;
        document.read()
    }

    #[test]
    fn a_wrong_value_is_named_with_file_line_and_key() {
        const TEXT: &str = "name = 'x'\n\nframe = [\n  3,\n  4,\n]\n[inner]\nshares = [0.5, 0.25]\nnamed = { a = 0.1 }\n\
                            [shape]\nkind = 'one-ball'\nradius = 0.5\n";
        let file = read(TEXT, &["most=7"]).unwrap();
        assert_eq!((file.name.as_str(), file.frame, file.most), ("x", [3, 4], Some(7)));
        assert_eq!(file.inner.shares, [0.5, 0.25]);
        assert!(matches!(file.shape, Some(Form::OneBall { radius: 0.5 })));
        for (from, to, expected) in [
            ("  4", "  4294967296", "a.toml:5: frame: 4294967296 is out of range; write 1 to 16384"),
            ("  4", "  0", "a.toml:5: frame: 0 is out of range; write 1 to 16384"),
            ("  4", "  nan", "a.toml:5: frame: NaN is out of range; write 1 to 16384"),
            ("  4", "  1e30", "a.toml:5: frame: 1e30 is out of range; write 1 to 16384"),
            ("  4", "  4.5", "a.toml:5: frame: 4.5 is out of range; write 1 to 16384"),
            ("  4", "  9223372036854775808", "a.toml:5: frame: 9223372036854775808 is out of range; write"),
            ("  4", "  'four'", "a.toml:5: frame: invalid type: string \"four\", expected a number, 1 to 16384"),
            ("  4,\n", "", "a.toml:3: frame: invalid length 1"),
            ("name = 'x'", "name = 3", "a.toml:1: name: invalid type: integer `3`, expected a string"),
            ("0.25]", "-inf]", "a.toml:8: inner.shares: -inf is out of range; write 0 to 0.5"),
            ("0.1 }", "0.6 }", "a.toml:9: inner.named.a: 0.6 is out of range; write 0 to 0.5"),
            ("named", "nmaed", "a.toml:9: inner: unknown field `nmaed`, expected `shares` or `named`"),
            (
                "radius = 0.5",
                "radius = true",
                "a.toml:12: shape.radius: invalid type: boolean `true`, expected a number",
            ),
            ("radius = 0.5", "radios = 1", "a.toml:12: shape: unknown field `radios`, expected `radius`"),
            ("radius = 0.5", "", "a.toml:10: shape: missing field `radius`"),
            ("'one-ball'", "'ball'", "a.toml:10: shape: unknown variant `ball`, expected `one-ball`"),
            ("kind = 'one-ball'", "", "a.toml:10: shape.kind: is missing"),
            ("kind = 'one-ball'", "kind = 1", "a.toml:11: shape.kind: is integer, no string"),
            ("name = 'x'", "", "a.toml:1: missing field `name`"),
            ("name = 'x'", "name = ", "a.toml:1: "),
        ] {
            assert!(TEXT.contains(from), "{from}");
            let error = read(&TEXT.replacen(from, to, 1), &[]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error} instead of {expected}");
        }
        for (change, expected) in [
            ("inner.shares=[0.1, 2]", "--set inner.shares: 2 is out of range; write 0 to 0.5"),
            ("inner={named={b=nan}}", "--set inner: NaN is out of range"),
            ("inner.named.b=nan", "--set inner.named.b: NaN is out of range"),
            ("shape.radius=inf", "--set shape.radius: inf is out of range"),
            ("most=9223372036854775808", "--set most: invalid type: string"),
            ("name.first=x", "--set name.first: name is no table"),
        ] {
            let error = read(TEXT, &[change]).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error} instead of {expected}");
        }
    }

    #[test]
    fn tables_may_be_deep_and_files_large_only_so_far() {
        assert!(Document::parse("a", format!("a = {}{}", "[".repeat(100_000), "]".repeat(100_000))).is_err());
        assert!(Document::parse("a", format!("a{} = 1", ".a".repeat(100_000))).is_err());
        assert!(Change::parse(&format!("a{}=1", ".a".repeat(100_000))).is_err());
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(LARGEST_FILE + 1).unwrap();
        let error = Document::load(file.path(), "").unwrap_err().to_string();
        assert!(error.contains("is larger than 1 MiB"), "{error}");
    }

    #[test]
    fn a_tagged_enum_is_written_as_it_is_read() {
        #[derive(Serialize)]
        struct File {
            #[serde(serialize_with = "tagged")]
            shape: Form,
        }
        let text = serde_json::to_string(&File { shape: Form::OneBall { radius: 0.1 } }).unwrap();
        assert_eq!(text, r#"{"shape":{"kind":"one-ball","radius":0.1}}"#);
    }

    #[test]
    fn arguments_have_the_same_ranges() {
        assert_eq!(argument::<Side>("16384"), Ok(16384));
        assert_eq!(argument::<Share>("5e-1"), Ok(0.5));
        for text in ["0", "nan", "1e3", "9223372036854775808", "x"] {
            assert!(argument::<Side>(text).unwrap_err().ends_with("write 1 to 16384"), "{text}");
        }
    }

    #[test]
    fn nested_and_dotted_keys_are_the_same() {
        let all_of = |table: &Table| Change::all_of(table, &|_| String::new());
        let nested: Table = toml::from_str("a = 1\nb = { c = 2, d = { e = 'x' } }").unwrap();
        let dotted: Table = toml::from_str("a = 1\n'b.c' = 2\n'b.d.e' = 'x'").unwrap();
        assert_eq!(all_of(&nested), all_of(&dotted));
        let mut table: Table = toml::from_str("b = { c = 0, f = 3 }").unwrap();
        for change in all_of(&nested) {
            change.apply(&mut table).unwrap();
        }
        assert_eq!(table, toml::from_str("a = 1\nb = { c = 2, f = 3, d = { e = 'x' } }").unwrap());
        let error = Change::parse("a.b=1").unwrap().apply(&mut table).unwrap_err().to_string();
        assert_eq!(error, "--set a.b: a is no table");
    }
}

//! Reading: map the file, validate the header with the format's own parser, keep the byte ranges.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::ops::Deref;
use std::ops::Range;
use std::path::Path;

use half::{bf16, f16};
use memmap2::Mmap;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde_json::{Map, Value};

use super::{LENGTH_BYTES, MAX_HEADER, elements};
use crate::error::At;
use crate::memory;
use crate::shipped::Source;
use crate::{Error, Result};

/// A safetensors file, mapped (or embedded in the program) and validated. Tensors are ordered by their data, those without
/// values by name.
///
/// ```
/// use weft::weights::TensorFile;
///
/// let file = TensorFile::open("weights/anet.safetensors")?;
/// let bias = file.require("fc.bias")?.to_f32()?;
/// println!("{} tensors, fc.bias begins with {:?}", file.names().len(), &bias[..3]);
/// # Ok::<(), weft::Error>(())
/// ```
#[derive(Debug)]
pub struct TensorFile {
    source: Source,
    bytes: Bytes,
    entries: Vec<Entry>,
    index: HashMap<String, usize>,
    metadata: BTreeMap<String, String>,
}

/// The bytes of a file.
#[derive(Debug)]
enum Bytes {
    Mapped(Mmap),
    /// Embedded in the program.
    Static(&'static [u8]),
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Mapped(map) => map,
            Self::Static(bytes) => bytes,
        }
    }
}

#[derive(Debug)]
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    range: Range<usize>,
}

/// One tensor of a [`TensorFile`], borrowed from it.
#[derive(Debug, Clone)]
pub struct Tensor<'a> {
    /// As in the file.
    pub name: &'a str,
    /// Type of its values.
    pub dtype: Dtype,
    /// Outermost axis first.
    pub shape: Vec<usize>,
    /// Row-major, little-endian; not necessarily aligned to the element size.
    pub bytes: &'a [u8],
    file: &'a Source,
}

impl TensorFile {
    /// Maps a file on disk, or opens one embedded in the program, and validates it.
    ///
    /// Errors: not a regular file, truncated, a header that is too long, not JSON, or inconsistent with the data (the tensor
    /// is named if one is at fault). A type that Weft cannot convert is not an error here, only in [`Tensor::to_f32`].
    pub fn open(source: impl Into<Source>) -> Result<Self> {
        let source = source.into();
        let bytes = match &source {
            Source::Disk(path) => Bytes::Mapped(map(path)?),
            Source::Shipped(file) => Bytes::Static(file.bytes),
        };
        let (start, header) = parse(&bytes).map_err(|e| e.within(&source))?;

        let mut entries: Vec<Entry> = header
            .offset_keys()
            .into_iter()
            .filter_map(|name| {
                let info = header.info(&name)?;
                let range = start + info.data_offsets.0..start + info.data_offsets.1;
                Some(Entry { dtype: info.dtype, shape: info.shape.clone(), range, name })
            })
            .collect();
        // Tensors without values share their offset; the parser returns them in any order.
        entries.sort_by(|a, b| (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name)));
        let index = entries.iter().enumerate().map(|(i, e)| (e.name.clone(), i)).collect();
        let metadata = header.metadata().clone().unwrap_or_default().into_iter().collect();
        Ok(Self { source, bytes, entries, index, metadata })
    }

    /// The path that was opened.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Names of all tensors, in the order of their data.
    pub fn names(&self) -> impl ExactSizeIterator<Item = &str> {
        self.entries.iter().map(|e| e.name.as_str())
    }

    /// All tensors, in the order of their data.
    pub fn tensors(&self) -> impl ExactSizeIterator<Item = Tensor<'_>> {
        self.entries.iter().map(|e| self.view(e))
    }

    /// The tensor `name`, if it exists.
    pub fn get(&self, name: &str) -> Option<Tensor<'_>> {
        self.index.get(name).map(|&i| self.view(&self.entries[i]))
    }

    /// The tensor `name`, or an error that lists what the file holds instead.
    pub fn require(&self, name: &str) -> Result<Tensor<'_>> {
        self.get(name).ok_or_else(|| {
            let some: Vec<_> = self.names().take(8).map(brief).collect();
            let more = if self.entries.len() > some.len() { ", ..." } else { "" };
            Error::new(&self.source, format!("no tensor {name}")).advise(format!(
                "the file holds {}{more}",
                if some.is_empty() { "none".into() } else { some.join(", ") }
            ))
        })
    }

    /// The file's `__metadata__`; empty if it has none.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    fn view<'a>(&'a self, e: &'a Entry) -> Tensor<'a> {
        Tensor {
            name: &e.name,
            dtype: e.dtype,
            shape: e.shape.clone(),
            bytes: &self.bytes[e.range.clone()],
            file: &self.source,
        }
    }
}

impl<'a> Tensor<'a> {
    /// Number of elements. The product cannot overflow: `open` has checked it against the bytes.
    pub fn count(&self) -> usize {
        self.shape.iter().product()
    }

    /// The values as f32: borrowed where the file holds aligned f32, else converted (see [`Tensor::read_f32_into`]).
    pub fn to_f32(&self) -> Result<Cow<'a, [f32]>> {
        if cfg!(target_endian = "little")
            && self.dtype == Dtype::F32
            && let Ok(values) = bytemuck::try_cast_slice(self.bytes)
        {
            return Ok(Cow::Borrowed(values));
        }
        let mut values = memory::zeroed(self.count(), "").map_err(|e| self.error(e))?;
        self.read_f32_into(&mut values)?;
        Ok(Cow::Owned(values))
    }

    /// Converts into `out` `[count]`: F32, F16, BF16 and U8 exactly; F64, I32 and I64 rounded to nearest.
    ///
    /// Errors: another type, or `out` of another length.
    pub fn read_f32_into(&self, out: &mut [f32]) -> Result<()> {
        if out.len() != self.count() {
            return Err(self.error(format!(
                "shape {:?} has {} values, {} wanted",
                self.shape,
                self.count(),
                out.len()
            )));
        }
        match self.dtype {
            Dtype::F32 => fill(out, self.bytes, f32::from_le_bytes),
            Dtype::F16 => fill(out, self.bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => fill(out, self.bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => fill(out, self.bytes, |b| f64::from_le_bytes(b) as f32),
            Dtype::I32 => fill(out, self.bytes, |b| i32::from_le_bytes(b) as f32),
            Dtype::I64 => fill(out, self.bytes, |b| i64::from_le_bytes(b) as f32),
            Dtype::U8 => fill(out, self.bytes, |[b]| f32::from(b)),
            other => {
                return Err(self
                    .error(format!("type {other} cannot be read as f32"))
                    .advise("store it as F32, F16, BF16, F64, I32, I64 or U8"));
            }
        }
        Ok(())
    }

    /// An error that names this tensor of its file.
    pub fn error(&self, found: impl std::fmt::Display) -> Error {
        Error::new(format!("{}: {}", self.file, brief(self.name)), found)
    }
}

fn fill<const N: usize>(out: &mut [f32], bytes: &[u8], convert: impl Fn([u8; N]) -> f32) {
    for (value, raw) in out.iter_mut().zip(bytes.as_chunks().0) {
        *value = convert(*raw);
    }
}

/// Maps a file on disk.
fn map(path: &Path) -> Result<Mmap> {
    let kind = fs::metadata(path).map_err(|e| Error::io(path, e).advise("check the path"))?;
    if !kind.is_file() {
        return Err(Error::file(path, "not a regular file").advise("name a .safetensors file"));
    }
    let file = File::open(path).at(path)?;
    // SAFETY: the map is read-only. If another process shortened the file meanwhile, this one would end with SIGBUS;
    // everything written by `write_atomic` replaces a file by rename, which leaves the mapped one intact.
    unsafe { Mmap::map(&file) }.at(path)
}

/// Validates the whole file; returns the offset of its data and the contents of the header.
fn parse(bytes: &[u8]) -> Result<(usize, Metadata)> {
    let broken =
        |found: String| Error::new("", found).advise("it is cut off or not a safetensors file: fetch it again");
    let Some((length, rest)) = bytes.split_first_chunk::<LENGTH_BYTES>() else {
        return Err(broken(match bytes.len() {
            0 => "the file is empty".into(),
            n => format!("{n} bytes, too short for a header"),
        }));
    };
    let length = u64::from_le_bytes(*length);
    if length > MAX_HEADER as u64 {
        return Err(broken(format!("header claims {length} bytes, the format allows {MAX_HEADER}")));
    }
    let Some((header, data)) = rest.split_at_checked(length as usize) else {
        return Err(broken(format!("header claims {length} bytes, only {} follow", rest.len())));
    };
    let metadata: Metadata = serde_json::from_slice(header).map_err(|e| match culprit(header) {
        Some(named) => named.advise("the file is damaged: fetch or write it again"),
        None => broken(format!("header: {}", brief(&e.to_string()))),
    })?;
    let end = metadata.data_len();
    if end > data.len() {
        return Err(broken(format!("tensors need {end} bytes of data, the file has {}", data.len())));
    }
    if end < data.len() {
        return Err(broken(format!("{} bytes follow the last tensor", data.len() - end)));
    }
    Ok((LENGTH_BYTES + header.len(), metadata))
}

/// The parser's errors mostly do not name the tensor; this finds the first one at fault and the reason.
fn culprit(header: &[u8]) -> Option<Error> {
    let entries: Map<String, Value> = serde_json::from_slice(header).ok()?;
    let mut infos = Vec::with_capacity(entries.len());
    for (name, value) in &entries {
        if name == "__metadata__" {
            continue;
        }
        match serde_json::from_value::<TensorInfo>(value.clone()) {
            Ok(info) => infos.push((name, info)),
            Err(e) => return Some(Error::new(brief(name), brief(&e.to_string()))),
        }
    }
    infos.sort_by_key(|(_, info)| info.data_offsets);
    let mut expected = 0;
    for (name, info) in &infos {
        let TensorInfo { dtype, shape, data_offsets: (start, end) } = info;
        let at = |found: String| Some(Error::new(brief(name), brief(&found)));
        let Some(bits) = elements(shape).and_then(|n| n.checked_mul(dtype.bitsize())) else {
            return at(format!("the size of shape {shape:?} overflows"));
        };
        if end < start {
            return at(format!("data offsets {start}..{end} run backwards"));
        }
        if bits != (end - start).saturating_mul(8) {
            let bytes = bits.div_ceil(8);
            return at(format!(
                "{dtype} needs {bytes} bytes, its offsets {start}..{end} hold {}: shape {shape:?}",
                end - start
            ));
        }
        if *start != expected {
            let fault = if *start < expected { "overlaps the tensor before it" } else { "leaves a hole before it" };
            return at(format!("data at {start}..{end} {fault}, {expected} was due"));
        }
        expected = *end;
    }
    None
}

/// Untrusted text, sanitised for one line of a message.
fn brief(text: &str) -> String {
    const LONGEST: usize = 120;
    let mut short: String = text.chars().take(LONGEST).flat_map(char::escape_debug).collect();
    if text.chars().nth(LONGEST).is_some() {
        short.push_str("...");
    }
    short.replace("\\\"", "\"").replace("\\'", "'")
}

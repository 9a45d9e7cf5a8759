//! Writing: header first, then each tensor converted block by block, so memory use is constant however large the file.

use std::borrow::Cow;
use std::collections::HashSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use safetensors::Dtype;
use serde_json::{Map, Value, json};

use super::read::Tensor;
use super::{AtomicFile, LENGTH_BYTES, MAX_HEADER, elements, npy, write_atomic};
use crate::{Error, Result};

/// Values converted between two writes: 64 KiB of f32.
const BLOCK: usize = 16 * 1024;

/// A tensor to write: `data` [product of `shape`], row-major, stored as `dtype` (F32, F16 or BF16).
#[derive(Debug, Clone, Copy)]
pub struct Named<'a> {
    /// Name in the file.
    pub name: &'a str,
    /// Outermost axis first.
    pub shape: &'a [usize],
    /// Type in the file.
    pub dtype: Dtype,
    /// Its values.
    pub data: &'a [f32],
}

/// Writes a safetensors file: tensors and metadata in the order given, the same bytes for the same input.
///
/// NaN and infinity are written unchanged. Errors, before anything is written: a duplicate name, a shape that does not match
/// the data, another type, a finite value too large for the type. The replacement is atomic, see [`write_atomic`].
///
/// ```
/// use weft::weights::{Dtype, Named, TensorFile, write};
///
/// let path = std::env::temp_dir().join(format!("weft-example-{}.safetensors", std::process::id()));
/// let tensor = Named { name: "a", shape: &[2, 2], dtype: Dtype::F16, data: &[1.0, 2.0, 3.0, 4.0] };
/// write(&path, &[tensor], &[])?;
/// assert_eq!(TensorFile::open(&path)?.require("a")?.to_f32()?[..], [1.0, 2.0, 3.0, 4.0]);
/// std::fs::remove_file(&path).ok();
/// # Ok::<(), weft::Error>(())
/// ```
pub fn write(path: impl AsRef<Path>, tensors: &[Named<'_>], metadata: &[(String, String)]) -> Result<()> {
    let items: Vec<Item<'_>> = tensors
        .iter()
        .map(|t| Item { name: t.name, shape: t.shape, dtype: t.dtype, source: Source::Values(t.data) })
        .collect();
    write_items(path.as_ref(), &items, metadata)
}

/// Tensors of f32 that are written incrementally: a safetensors file, or one tensor as .npy. The file appears once it is
/// complete, see [`AtomicFile`].
pub struct TensorWriter {
    file: AtomicFile,
    path: PathBuf,
    /// Values still to be written.
    missing: usize,
}

impl TensorWriter {
    /// A safetensors file of tensors with these names and shapes, in this order.
    ///
    /// # Errors
    /// A duplicate name, a shape whose size overflows; those of [`AtomicFile::create`].
    pub fn create(path: impl AsRef<Path>, tensors: &[(&str, &[usize])]) -> Result<Self> {
        let path = path.as_ref();
        let item = |&(name, shape)| Item { name, shape, dtype: Dtype::F32, source: Source::Later };
        let items: Vec<Item<'_>> = tensors.iter().map(item).collect();
        let missing = items.iter().try_fold(0usize, |sum, item| sum.checked_add(elements(item.shape)?));
        let missing = missing.filter(|missing| missing.checked_mul(4).is_some());
        let missing = missing.ok_or_else(|| Error::file(path, "the size of the tensors overflows"))?;
        let header = header(&items, &[]).map_err(|e| e.within(path.display()))?;
        let mut file = AtomicFile::create(path)?;
        file.write(|w| {
            w.write_all(&(header.len() as u64).to_le_bytes())?;
            w.write_all(&header)
        })?;
        Ok(Self { file, path: path.to_owned(), missing })
    }

    /// A .npy file of this shape.
    ///
    /// # Errors
    /// A shape that is too long or whose size overflows; those of [`AtomicFile::create`].
    pub fn create_npy(path: impl AsRef<Path>, shape: &[usize]) -> Result<Self> {
        let path = path.as_ref();
        let missing = elements(shape).ok_or_else(|| Error::file(path, "the size of the array overflows"))?;
        let start = npy::start(path, shape)?;
        let mut file = AtomicFile::create(path)?;
        file.write(|w| w.write_all(&start))?;
        Ok(Self { file, path: path.to_owned(), missing })
    }

    /// Appends values, in the order of the tensors and row-major in each.
    ///
    /// # Errors
    /// More values than the shapes hold; a write error.
    pub fn push(&mut self, values: &[f32]) -> Result<()> {
        let Some(missing) = self.missing.checked_sub(values.len()) else {
            return Err(Error::file(&self.path, format!("{} values more than its shapes hold", values.len())));
        };
        self.missing = missing;
        self.file.write(|w| encode(w, values, Dtype::F32))
    }

    /// Completes the file and moves it into place.
    ///
    /// # Errors
    /// Missing values; a write error.
    pub fn finish(self) -> Result<()> {
        if self.missing > 0 {
            return Err(Error::file(&self.path, format!("{} values have not come", self.missing)));
        }
        self.file.commit()
    }
}

/// A named entry, and the source of its bytes.
pub(super) struct Item<'a> {
    pub name: &'a str,
    pub shape: &'a [usize],
    pub dtype: Dtype,
    pub source: Source<'a>,
}

pub(super) enum Source<'a> {
    Values(&'a [f32]),
    /// Copied unchanged: already `dtype`.
    Bytes(&'a [u8]),
    /// Converted block by block while writing.
    Tensor(&'a Tensor<'a>),
    /// Not known yet.
    Later,
}

impl Source<'_> {
    fn values(&self) -> Result<Cow<'_, [f32]>> {
        match self {
            Self::Values(values) => Ok(Cow::Borrowed(values)),
            Self::Bytes(_) | Self::Later => Ok(Cow::Borrowed(&[])),
            Self::Tensor(tensor) => tensor.to_f32(),
        }
    }
}

pub(super) fn write_items(path: &Path, items: &[Item<'_>], metadata: &[(String, String)]) -> Result<()> {
    for item in items {
        check(item).map_err(|e| e.within(path.display()))?;
    }
    let header = header(items, metadata).map_err(|e| e.within(path.display()))?;
    write_atomic(path, |w| {
        w.write_all(&(header.len() as u64).to_le_bytes())?;
        w.write_all(&header)?;
        for item in items {
            match &item.source {
                Source::Bytes(bytes) => w.write_all(bytes)?,
                source => encode(w, &source.values().map_err(io::Error::other)?, item.dtype)?,
            }
        }
        Ok(())
    })
}

fn check(item: &Item<'_>) -> Result<()> {
    let fail = |found: String| Error::new(item.name, found);
    let Some(count) = elements(item.shape) else {
        return Err(fail(format!("the size of shape {:?} overflows", item.shape)));
    };
    if matches!(item.source, Source::Bytes(_)) {
        return Ok(()); // from a validated file
    }
    let largest = match item.dtype {
        Dtype::F32 => f32::INFINITY,
        Dtype::F16 => f16::MAX.to_f32(),
        Dtype::BF16 => bf16::MAX.to_f32(),
        other => return Err(fail(format!("type {other} cannot be written")).advise("use F32, F16 or BF16")),
    };
    let values = item.source.values()?;
    if values.len() != count {
        return Err(fail(format!("shape {:?} has {count} values, the data {}", item.shape, values.len())));
    }
    // Values just above the largest still round down to it, so check the conversion, not the bound.
    let overflows = |x: &&f32| x.is_finite() && x.abs() > largest && round(**x, item.dtype).is_infinite();
    match values.iter().find(overflows) {
        Some(x) => Err(fail(format!("{x} is too large for {}, which ends at {largest}", item.dtype)).advise("use F32")),
        None => Ok(()),
    }
}

fn round(x: f32, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::F16 => f16::from_f32(x).to_f32(),
        Dtype::BF16 => bf16::from_f32(x).to_f32(),
        _ => x,
    }
}

/// The JSON header, padded with spaces so that the data starts at a multiple of eight.
fn header(items: &[Item<'_>], metadata: &[(String, String)]) -> Result<Vec<u8>> {
    let mut header = Map::new();
    if !metadata.is_empty() {
        let mut seen = HashSet::new();
        if let Some((key, _)) = metadata.iter().find(|(key, _)| !seen.insert(key)) {
            return Err(Error::new("metadata", format!("the key {key} occurs twice")));
        }
        let pairs: Map<_, _> = metadata.iter().map(|(k, v)| (k.clone(), Value::from(v.as_str()))).collect();
        header.insert("__metadata__".into(), Value::Object(pairs));
    }
    let mut start = 0;
    for item in items {
        let end = start + item.shape.iter().product::<usize>() * item.dtype.bitsize() / 8;
        let info = json!({ "dtype": item.dtype, "shape": item.shape, "data_offsets": [start, end] });
        if item.name == "__metadata__" || header.insert(item.name.into(), info).is_some() {
            return Err(Error::new(item.name, "this name is taken").advise("give every tensor a name of its own"));
        }
        start = end;
    }
    let mut bytes = serde_json::to_vec(&header).map_err(|e| Error::new("header", e))?;
    bytes.resize(bytes.len().next_multiple_of(LENGTH_BYTES), b' ');
    if bytes.len() > MAX_HEADER {
        return Err(Error::new("header", format!("{} bytes, the format allows {MAX_HEADER}", bytes.len())));
    }
    Ok(bytes)
}

fn encode(w: &mut dyn Write, values: &[f32], dtype: Dtype) -> io::Result<()> {
    let mut block = Vec::with_capacity(BLOCK * size_of::<f32>());
    for chunk in values.chunks(BLOCK) {
        block.clear();
        match dtype {
            Dtype::F16 => block.extend(chunk.iter().flat_map(|&x| f16::from_f32(x).to_le_bytes())),
            Dtype::BF16 => block.extend(chunk.iter().flat_map(|&x| bf16::from_f32(x).to_le_bytes())),
            _ => block.extend(chunk.iter().flat_map(|x| x.to_le_bytes())),
        }
        w.write_all(&block)?;
    }
    Ok(())
}

//! What a weights file holds, for `weft weights show`: a line per tensor with the numbers that betray a broken one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::{Tensor, TensorFile};
use crate::Result;

/// A weights file at a glance.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    pub tensors: Vec<TensorSummary>,
    /// Elements of all tensors.
    pub count: usize,
    /// Bytes of all tensors, the header not counted.
    pub bytes: usize,
    pub nan: usize,
    pub metadata: BTreeMap<String, String>,
}

/// One tensor at a glance. The statistics are over its values that are not NaN, infinities included; `None` where
/// there are none, or where the type cannot be read.
#[derive(Debug, Clone, Serialize)]
pub struct TensorSummary {
    pub name: String,
    pub dtype: String,
    pub shape: Vec<usize>,
    pub count: usize,
    pub bytes: usize,
    pub min: Option<f32>,
    pub max: Option<f32>,
    pub mean: Option<f64>,
    /// Square root of the sum of squares.
    pub l2: Option<f64>,
    pub nan: usize,
}

/// Reads the whole of `path`. Errors: those of [`TensorFile::open`].
pub fn summary(path: impl AsRef<Path>) -> Result<Summary> {
    let file = TensorFile::open(path)?;
    let tensors: Vec<_> = file.tensors().map(|t| summarise(&t)).collect();
    Ok(Summary {
        count: tensors.iter().map(|t| t.count).sum(),
        bytes: tensors.iter().map(|t| t.bytes).sum(),
        nan: tensors.iter().map(|t| t.nan).sum(),
        metadata: file.metadata().clone(),
        tensors,
    })
}

fn summarise(t: &Tensor<'_>) -> TensorSummary {
    let values = t.to_f32().unwrap_or_default();
    let (mut min, mut max, mut sum, mut squares, mut nan) = (f32::INFINITY, f32::NEG_INFINITY, 0.0, 0.0, 0);
    for &x in values.iter() {
        if x.is_nan() {
            nan += 1;
            continue;
        }
        min = min.min(x);
        max = max.max(x);
        sum += f64::from(x);
        squares += f64::from(x).powi(2);
    }
    let n = values.len() - nan;
    let some = n > 0;
    TensorSummary {
        name: t.name.to_owned(),
        dtype: t.dtype.to_string(),
        shape: t.shape.clone(),
        count: t.count(),
        bytes: t.bytes.len(),
        min: some.then_some(min),
        max: some.then_some(max),
        mean: some.then(|| sum / n as f64),
        l2: some.then(|| squares.sqrt()),
        nan,
    }
}

/// An aligned table, then the totals, then the metadata.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEAD: [&str; 10] = ["name", "type", "shape", "count", "bytes", "min", "max", "mean", "l2", "nan"];
        const LEFT: usize = 3; // name, type and shape are text
        let rows: Vec<[String; 10]> =
            std::iter::once(HEAD.map(String::from)).chain(self.tensors.iter().map(cells)).collect();
        let width: [usize; 10] =
            std::array::from_fn(|i| rows.iter().map(|r| r[i].chars().count()).max().unwrap_or_default());
        for row in &rows {
            let mut line = String::new();
            for (i, (cell, &w)) in row.iter().zip(&width).enumerate() {
                line += &if i < LEFT { format!("{cell:w$}  ") } else { format!("{cell:>w$}  ") };
            }
            writeln!(f, "{}", line.trim_end())?;
        }
        write!(f, "{} tensors, {} values, {} bytes, {} NaN", self.tensors.len(), self.count, self.bytes, self.nan)?;
        for (key, value) in &self.metadata {
            write!(f, "\n{}: {}", key.escape_debug(), value.escape_debug())?;
        }
        Ok(())
    }
}

fn cells(t: &TensorSummary) -> [String; 10] {
    let number = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.4e}"));
    [
        t.name.escape_debug().to_string(),
        t.dtype.clone(),
        format!("{:?}", t.shape),
        t.count.to_string(),
        t.bytes.to_string(),
        number(t.min.map(f64::from)),
        number(t.max.map(f64::from)),
        number(t.mean),
        number(t.l2),
        t.nan.to_string(),
    ]
}

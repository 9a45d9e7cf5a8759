//! A summary of a weights file, for `weft weights show`: a line per tensor with the statistics that reveal a broken one.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use serde::Serialize;

use super::{Tensor, TensorFile};
use crate::Result;
use crate::text_table::{TextTable, number, text};

/// Summary of a weights file.
#[derive(Debug, Clone, Serialize)]
pub struct Summary {
    /// In file order.
    pub tensors: Vec<TensorSummary>,
    /// Elements of all tensors.
    pub count: usize,
    /// Bytes of all tensors, without the header.
    pub bytes: usize,
    /// NaN and infinite values.
    pub non_finite: usize,
    /// The metadata: names and texts.
    pub metadata: BTreeMap<String, String>,
}

/// Summary of one tensor. The statistics are over its finite values; `None` where there are none, or where the type
/// cannot be converted.
#[derive(Debug, Clone, Serialize)]
pub struct TensorSummary {
    /// As in the file.
    pub name: String,
    /// Type of its values.
    pub dtype: String,
    /// Outermost axis first.
    pub shape: Vec<usize>,
    /// Number of values.
    pub count: usize,
    /// Bytes in the file.
    pub bytes: usize,
    /// Smallest value; `None` for an empty tensor.
    pub min: Option<f32>,
    /// Largest value.
    pub max: Option<f32>,
    /// Mean of all values.
    pub mean: Option<f64>,
    /// Standard deviation, normalised by the number of finite values.
    pub deviation: Option<f64>,
    /// NaN and infinite values.
    pub non_finite: usize,
}

/// Reads the whole of `path`. Errors: those of [`TensorFile::open`].
pub fn summary(path: impl AsRef<Path>) -> Result<Summary> {
    let file = TensorFile::open(path)?;
    let tensors: Vec<_> = file.tensors().map(|t| summarise(&t)).collect();
    Ok(Summary {
        count: tensors.iter().map(|t| t.count).sum(),
        bytes: tensors.iter().map(|t| t.bytes).sum(),
        non_finite: tensors.iter().map(|t| t.non_finite).sum(),
        metadata: file.metadata().clone(),
        tensors,
    })
}

fn summarise(t: &Tensor<'_>) -> TensorSummary {
    let values = t.to_f32().unwrap_or_default();
    let finite = || values.iter().copied().filter(|x| x.is_finite());
    let n = finite().count();
    let average = |sum: f64| (n > 0).then(|| sum / n as f64);
    let mean = average(finite().map(f64::from).sum());
    let variance = mean.and_then(|mean| average(finite().map(|x| (f64::from(x) - mean).powi(2)).sum()));
    TensorSummary {
        name: t.name.to_owned(),
        dtype: t.dtype.to_string(),
        shape: t.shape.clone(),
        count: t.count(),
        bytes: t.bytes.len(),
        min: finite().reduce(f32::min),
        max: finite().reduce(f32::max),
        mean,
        deviation: variance.map(f64::sqrt),
        non_finite: values.len() - n,
    }
}

/// An aligned table, then the totals, then the metadata.
impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = TextTable::new(
            ["name", "type", "shape"]
                .map(text)
                .into_iter()
                .chain(["count", "bytes", "min", "max", "mean", "deviation", "non-finite"].map(number)),
        );
        writeln!(f, "{}", table.print(self.tensors.iter().map(cells)))?;
        let Self { tensors, count, bytes, non_finite, metadata } = self;
        write!(f, "{} tensors, {count} values, {bytes} bytes, {non_finite} not finite", tensors.len())?;
        for (key, value) in metadata {
            write!(f, "\n{}: {}", key.escape_debug(), value.escape_debug())?;
        }
        Ok(())
    }
}

fn cells(t: &TensorSummary) -> Vec<String> {
    let figure = |x: Option<f64>| x.map_or("-".into(), |x| format!("{x:.4e}"));
    vec![
        t.name.escape_debug().to_string(),
        t.dtype.clone(),
        format!("{:?}", t.shape),
        t.count.to_string(),
        t.bytes.to_string(),
        figure(t.min.map(f64::from)),
        figure(t.max.map(f64::from)),
        figure(t.mean),
        figure(t.deviation),
        t.non_finite.to_string(),
    ]
}

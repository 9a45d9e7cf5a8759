//! Conversion between float types of a file, for `weft weights convert`.

use std::path::Path;

use safetensors::Dtype;

use super::TensorFile;
use super::write::{Item, Source, write_items};
use crate::Result;

/// Copies `from` to `to` with every F32, F16, BF16 and F64 tensor stored as `dtype` (F32, F16 or BF16); names, order
/// and metadata are preserved.
///
/// Tensors of other types (counters, masks) and those that already have type `dtype` are copied byte for byte. `to` may be
/// `from`. Errors: those of [`TensorFile::open`] and [`super::write`], including a finite value too large for `dtype`.
pub fn convert(from: impl AsRef<Path>, to: impl AsRef<Path>, dtype: Dtype) -> Result<()> {
    let file = TensorFile::open(from)?;
    let tensors: Vec<_> = file.tensors().collect();
    let items: Vec<_> = tensors
        .iter()
        .map(|t| {
            let float = matches!(t.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64);
            let (dtype, source) =
                if float && t.dtype != dtype { (dtype, Source::Tensor(t)) } else { (t.dtype, Source::Bytes(t.bytes)) };
            Item { name: t.name, shape: &t.shape, dtype, source }
        })
        .collect();
    let metadata: Vec<_> = file.metadata().iter().map(|(k, v)| (k.clone(), v.clone())).collect();
    write_items(to.as_ref(), &items, &metadata)
}

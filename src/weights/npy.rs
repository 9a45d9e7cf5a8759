//! One array as a NumPy file (format 1.0, little-endian f32, C order), for further processing in Python.

use std::path::Path;

use super::{elements, write_atomic};
use crate::{Error, Result};

/// The data starts at a multiple of this, by the format's specification.
const ALIGN: usize = 64;

/// Writes `data` [product of `shape`] to `path`, atomically.
///
/// Errors: a shape that does not match the data, or one too long for the header; those of [`write_atomic`].
pub fn write_npy(path: impl AsRef<Path>, shape: &[usize], data: &[f32]) -> Result<()> {
    let path = path.as_ref();
    if elements(shape) != Some(data.len()) {
        return Err(Error::file(path, format!("shape {shape:?} does not hold the {} values given", data.len())));
    }
    let start = start(path, shape)?;
    write_atomic(path, |w| {
        w.write_all(&start)?;
        data.iter().try_for_each(|x| w.write_all(&x.to_le_bytes()))
    })
}

/// The bytes before the data.
pub(super) fn start(path: &Path, shape: &[usize]) -> Result<Vec<u8>> {
    let header = header(shape);
    let Ok(length) = u16::try_from(header.len()) else {
        return Err(Error::file(path, format!("{} dimensions are too many for a .npy file", shape.len())));
    };
    Ok([b"\x93NUMPY\x01\x00", &length.to_le_bytes()[..], header.as_bytes()].concat())
}

/// A Python dictionary, padded so that magic, version, length and header together are a multiple of [`ALIGN`].
fn header(shape: &[usize]) -> String {
    const BEFORE: usize = 10;
    let dims: String = shape.iter().map(|d| format!("{d}, ")).collect();
    // A tuple of one needs its comma; longer ones need none at the end.
    let dims = if shape.len() == 1 { dims.trim_end() } else { dims.trim_end_matches(", ") };
    let dict = format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({dims}), }}");
    let width = (BEFORE + dict.len() + 1).next_multiple_of(ALIGN) - BEFORE - 1;
    format!("{dict:width$}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bytes_are_those_numpy_writes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.npy");
        write_npy(&path, &[2, 1], &[1.0, -2.5]).unwrap();
        let bytes = std::fs::read(path).unwrap();
        let mut expected =
            b"\x93NUMPY\x01\x00\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 1), }".to_vec();
        expected.resize(127, b' ');
        expected.push(b'\n');
        expected.extend([0, 0, 0x80, 0x3f, 0, 0, 0x20, 0xc0]);
        assert_eq!(bytes, expected);
    }

    #[test]
    fn scalars_and_vectors_get_python_tuples() {
        assert!(header(&[]).contains("'shape': (), }"));
        assert!(header(&[7]).contains("'shape': (7,), }"));
    }

    #[test]
    fn a_shape_that_does_not_hold_the_data_is_an_error() {
        assert!(write_npy("unwritten.npy", &[3], &[0.0; 2]).is_err());
        assert!(write_npy("unwritten.npy", &[usize::MAX, 2], &[]).is_err());
    }
}

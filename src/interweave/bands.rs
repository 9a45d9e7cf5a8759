//! Delivery of features. An image is processed in pieces, and its features are delivered from top to bottom as rows are
//! completed, so that at most a band of rows of patches is in memory, whatever the size of the image.

use crate::Result;
use crate::memory;

/// Bytes of features that may be buffered until their rows are complete.
const WAITING: usize = 128 << 20;

/// Receives features as they become available: contiguous vectors of patches, row by row from the top.
pub type Put<'a> = &'a mut dyn FnMut(&[f32]) -> Result<()>;

/// The first patch of each piece of `whole` patches, row by row. The last piece of a row or column is shifted back so that it
/// is as large as the others.
pub(super) fn pieces(whole: [usize; 2], piece: [usize; 2]) -> impl Iterator<Item = [usize; 2]> {
    let starts = move |axis: usize| {
        let (whole, piece) = (whole[axis], piece[axis]);
        (0..whole).step_by(piece).map(move |start| start.min(whole - piece))
    };
    starts(0).flat_map(move |top| starts(1).map(move |left| [top, left]))
}

/// `piece` reduced to a number of rows whose features, `dims` per patch, can be buffered for a whole band; if not even one
/// row of the image can, a part of one.
pub(super) fn waiting(whole: [usize; 2], piece: [usize; 2], dims: usize) -> [usize; 2] {
    let vectors = (WAITING / 4 / dims.max(1)).max(1);
    match vectors / whole[1] {
        0 => [1, piece[1].min(vectors)],
        rows => [piece[0].min(rows), piece[1]],
    }
}

/// The features that are buffered until their row is complete.
pub(super) struct Band {
    whole: [usize; 2],
    piece: [usize; 2],
    dims: usize,
    /// Patches of the image that have been delivered.
    done: usize,
    /// [rows, columns, dims]: whole rows of patches, or a part of one row.
    values: Vec<f32>,
}

impl Band {
    /// # Errors
    /// No memory.
    pub fn new(whole: [usize; 2], piece: [usize; 2], dims: usize) -> Result<Self> {
        let mut band = Self { whole, piece, dims, done: 0, values: Vec::new() };
        band.values = memory::zeroed(piece[0] * band.columns() * dims, "features")?;
        Ok(band)
    }

    /// A row that is delivered piece by piece needs no buffer for the rest.
    fn columns(&self) -> usize {
        if self.piece[0] == 1 { self.piece[1] } else { self.whole[1] }
    }

    /// Features of the patches `across ..` of row `down` of the piece that begins at patch `corner`, to be filled in.
    pub fn vectors(&mut self, corner: [usize; 2], down: usize, across: usize) -> &mut [f32] {
        let columns = self.columns();
        let left = if columns == self.whole[1] { corner[1] } else { 0 };
        &mut self.values[(down * columns + left + across) * self.dims..]
    }

    /// The piece at `corner` is complete: delivers what is complete and has not been delivered yet.
    ///
    /// # Errors
    /// Those of `put`.
    pub fn flush(&mut self, corner: [usize; 2], put: Put<'_>) -> Result<()> {
        let right = corner[1] + self.piece[1];
        let (first, end) = if self.columns() < self.whole[1] {
            let row = corner[0] * self.whole[1];
            (row + corner[1], row + right)
        } else if right == self.whole[1] {
            (corner[0] * self.whole[1], (corner[0] + self.piece[0]) * self.whole[1])
        } else {
            return Ok(());
        };
        let from = self.done.max(first);
        put(&self.values[(from - first) * self.dims..(end - first) * self.dims])?;
        self.done = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_patch_is_handed_on_once_and_in_order() {
        for (whole, piece) in
            [([5, 7], [5, 7]), ([5, 7], [2, 3]), ([5, 7], [1, 3]), ([6, 1], [4, 1]), ([3, 4], [1, 4]), ([1, 9], [1, 2])]
        {
            let mut band = Band::new(whole, piece, 2).unwrap();
            let mut seen = Vec::new();
            for corner in pieces(whole, piece) {
                for down in 0..piece[0] {
                    for across in 0..piece[1] {
                        let patch = (corner[0] + down) * whole[1] + corner[1] + across;
                        band.vectors(corner, down, across)[..2].copy_from_slice(&[patch as f32, -(patch as f32)]);
                    }
                }
                band.flush(corner, &mut |features| {
                    seen.extend_from_slice(features);
                    Ok(())
                })
                .unwrap();
            }
            let expected: Vec<f32> = (0..whole[0] * whole[1]).flat_map(|p| [p as f32, -(p as f32)]).collect();
            assert_eq!(seen, expected, "{whole:?} in {piece:?}");
        }
    }

    #[test]
    fn as_much_waits_as_may() {
        assert_eq!(waiting([27, 27], [27, 27], 256), [27, 27]);
        // 128 MiB are 131,072 vectors of 256.
        assert_eq!(waiting([1000, 10_000], [500, 700], 256), [13, 700]);
        assert_eq!(waiting([1000, 16_000], [500, 700], 225_792), [1, 148]);
        assert_eq!(waiting([2, 2], [1, 1], usize::MAX), [1, 1]);
    }
}

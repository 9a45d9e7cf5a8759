//! What a pass reads and the host writes: the step's numbers, targets, windows, and pixels or values. The parts lie one after the
//! other in device memory, so that one copy brings all of them.

use crate::Result;
use crate::device::{Gpu, Memory, Pinned, Ptr};
use std::ops::Range;

/// A part of the intake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// A [`crate::device::Step`].
    Step,
    /// Classes of the targets, u32.
    Classes,
    /// Values of the targets, f32.
    Targets,
    /// A [`crate::net::photos::PhotoWindow`] per sample.
    Windows,
    /// Pixels of photos, or values in f32. The last, because a batch may fill less than all of it.
    Data,
}

impl Part {
    const ALL: [Self; 5] = [Self::Step, Self::Classes, Self::Targets, Self::Windows, Self::Data];
}

/// Every part begins on a boundary of this many bytes.
const ALIGN: usize = 256;

/// Device memory of all parts: one allocation, or one for each where the checked emulator is to detect every out-of-bounds
/// access.
pub(super) struct Intake {
    memory: Vec<Memory>,
    /// Bytes of each part in the image of the intake.
    ranges: [Range<usize>; Part::ALL.len()],
}

impl Intake {
    /// With the given bytes of each part.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(gpu: &Gpu, bytes: [usize; Part::ALL.len()]) -> Result<Self> {
        let mut end = 0usize;
        let ranges = bytes.map(|bytes| {
            let start = end.next_multiple_of(ALIGN);
            end = start + bytes;
            start..end
        });
        let memory = match gpu.separate_buffers {
            true => bytes.iter().map(|bytes| gpu.memory(*bytes)).collect::<Result<_>>()?,
            false => vec![gpu.memory(end)?],
        };
        Ok(Self { memory, ranges })
    }

    /// Address of a part.
    pub fn address(&self, part: Part) -> Ptr {
        match &self.memory[..] {
            [all] => all.ptr.offset(self.range(part).start),
            apart => apart[part as usize].ptr,
        }
    }

    /// Bytes of a part in an image of the intake.
    pub fn range(&self, part: Part) -> Range<usize> {
        self.ranges[part as usize].clone()
    }

    /// Bytes of an image of the intake.
    pub fn len(&self) -> usize {
        self.range(Part::Data).end
    }

    /// Starts to copy an image of the intake up to byte `end`, in one copy if it is one allocation.
    ///
    /// # Errors
    /// A launch that failed earlier.
    pub fn upload(&self, image: &mut dyn Pinned, end: usize) -> Result<()> {
        if self.memory.len() == 1 {
            return image.upload(0..end, self.memory[0].ptr);
        }
        Part::ALL.into_iter().try_for_each(|part| {
            let Range { start, end: most } = self.range(part);
            image.upload(start..most.min(end).max(start), self.address(part))
        })
    }
}

//! Device memory of a plan.

use crate::Result;
use crate::device::{Gpu, Memory, Ptr};
use std::ops::Range;

/// The buffers of a plan: ranges of one arena, or separate allocations where the checked emulator is to detect every
/// out-of-bounds access.
pub(crate) struct PlanMemory {
    gpu: Gpu,
    /// Bytes of one of the plan's values.
    unit: usize,
    buffers: Buffers,
}

enum Buffers {
    Arena(Memory),
    Separate(Vec<(Range<usize>, Memory)>),
}

impl PlanMemory {
    /// For a plan of `len` values of `unit` bytes each.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(gpu: &Gpu, len: usize, unit: usize) -> Result<Self> {
        let buffers = match gpu.separate_buffers {
            true => Buffers::Separate(Vec::new()),
            false => Buffers::Arena(gpu.memory(unit * len)?),
        };
        Ok(Self { gpu: gpu.clone(), unit, buffers })
    }

    /// Address of a buffer of the plan. Buffers with the same range are never live at the same time, and share their memory
    /// in both layouts.
    ///
    /// # Errors
    /// Out of memory.
    pub fn address(&mut self, range: &Range<usize>) -> Result<Ptr> {
        if let Buffers::Separate(buffers) = &mut self.buffers
            && !buffers.iter().any(|(other, _)| other == range)
        {
            // A loss is one f32, but may be planned as a value of two bytes.
            let memory = self.gpu.memory((self.unit * range.len()).max(4))?;
            buffers.push((range.clone(), memory));
        }
        Ok(self.find(range))
    }

    /// Address of a buffer that [`PlanMemory::address`] has returned.
    pub fn find(&self, range: &Range<usize>) -> Ptr {
        match &self.buffers {
            Buffers::Arena(memory) => memory.ptr.offset(self.unit * range.start),
            Buffers::Separate(buffers) => {
                buffers.iter().find(|(other, _)| other == range).map_or(Ptr::NULL, |(_, memory)| memory.ptr)
            }
        }
    }
}

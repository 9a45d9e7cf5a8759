//! A net's parameters in device memory.

use crate::device::{Gpu, Memory, Precision, Program, Ptr, Recorder};
use crate::memory;
use crate::net::{Net, NetParameter};
use crate::ops::gpu;
use crate::{Error, Result};
use std::ops::Range;
use std::sync::{Mutex, PoisonError};

/// Tensors begin at multiples of this number of values, so that 16-byte loads are aligned in every storage type.
const ALIGN: usize = 64;

/// A net's parameters on a GPU: f32 masters, plus weights in the storage type if that is not f32. Nets of the same layers
/// at other sizes share them.
pub(crate) struct GpuParameters {
    gpu: Gpu,
    tensors: Vec<StoredTensor>,
    master: Memory,
    stored: Option<Memory>,
    len: usize,
    narrow: Mutex<Program>,
}

/// A tensor's offsets in the CPU's flat vector and in device memory, in values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredTensor {
    pub flat: Range<usize>,
    pub start: usize,
    /// Kept in the storage type as well: weights, not biases.
    pub is_weight: bool,
}

impl GpuParameters {
    /// Uploads parameters (the flat vector of the CPU).
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(gpu: &Gpu, net: &Net, parameters: &[f32]) -> Result<Self> {
        let (tensors, len) = tensors(net);
        let master = gpu.memory(4 * len)?;
        let narrows = gpu.precision.bytes() < 4;
        let stored = narrows.then(|| gpu.memory(gpu.precision.bytes() * len)).transpose()?;
        let mut to = Recorder::new(gpu);
        to.label("parameters");
        if let Some(stored) = &stored {
            gpu::cast_from_f32(&mut to, master.ptr, stored.ptr, len);
        }
        let narrow = Mutex::new(Program::new(to.launches)?);
        let this = Self { gpu: gpu.clone(), tensors, master, stored, len, narrow };
        this.write(parameters)?;
        Ok(this)
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Ranges of the net's tensors.
    pub fn tensors(&self) -> &[StoredTensor] {
        &self.tensors
    }

    /// The f32 masters.
    pub fn master(&self) -> Ptr {
        self.master.ptr
    }

    /// The same in the storage type, if that is not f32.
    pub fn stored(&self) -> Option<Ptr> {
        self.stored.as_ref().map(|memory| memory.ptr)
    }

    /// Values in device memory, padding between tensors included.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a net without parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Replaces all parameters.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn write(&self, parameters: &[f32]) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.write_like(self.master.ptr, parameters)?;
        self.narrow.lock().unwrap_or_else(PoisonError::into_inner).run(&self.gpu)
    }

    /// The parameters as the CPU's flat vector.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn read(&self) -> Result<Vec<f32>> {
        self.read_like(self.master.ptr)
    }

    /// Reads a buffer of f32 laid out as the parameters, as the CPU's flat vector.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn read_like(&self, from: Ptr) -> Result<Vec<f32>> {
        let spread: Vec<f32> = self.gpu.download(from, self.len)?;
        let mut flat = memory::zeroed(self.tensors.last().map_or(0, |tensor| tensor.flat.end), "parameters")?;
        for StoredTensor { flat: range, start, .. } in &self.tensors {
            flat[range.clone()].copy_from_slice(&spread[*start..start + range.len()]);
        }
        Ok(flat)
    }

    /// Writes the CPU's flat vector into a buffer of f32 laid out as the parameters, with zeros between tensors.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn write_like(&self, to: Ptr, flat: &[f32]) -> Result<()> {
        let needed = self.tensors.last().map_or(0, |tensor| tensor.flat.end);
        if flat.len() != needed {
            return Err(Error::network(
                "parameters",
                format!("{} values are given, but the net has {needed}", flat.len()),
            ));
        }
        let mut spread: Vec<f32> = memory::zeroed(self.len, "parameters")?;
        for StoredTensor { flat: range, start, .. } in &self.tensors {
            spread[*start..start + range.len()].copy_from_slice(&flat[range.clone()]);
        }
        self.gpu.driver.upload(to, bytemuck::cast_slice(&spread))
    }

    /// Whether these are the parameters of a net of the same layers.
    pub fn fit(&self, net: &Net) -> bool {
        self.tensors == tensors(net).0
    }

    /// The parameters as used in products: rounded to the storage type if that is not f32.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn read_rounded(&self) -> Result<Vec<f32>> {
        let mut flat = self.read()?;
        let Some(stored) = &self.stored else { return Ok(flat) };
        let halves: Vec<u16> = self.gpu.download(stored.ptr, self.len)?;
        let widen = |bits: u16| match self.gpu.precision {
            Precision::Bf16 => half::bf16::from_bits(bits).to_f32(),
            _ => half::f16::from_bits(bits).to_f32(),
        };
        for StoredTensor { flat: range, start, .. } in &self.tensors {
            let halves = &halves[*start..start + range.len()];
            flat[range.clone()].iter_mut().zip(halves).for_each(|(to, bits)| *to = widen(*bits));
        }
        Ok(flat)
    }

    /// Addresses of tensors: weights in the storage type, biases in f32.
    pub fn addresses(&self, tensors: Range<usize>) -> Vec<Ptr> {
        let address = |tensor: &StoredTensor| match &self.stored {
            Some(stored) if tensor.is_weight => stored.ptr.offset(self.gpu.precision.bytes() * tensor.start),
            _ => self.master.ptr.offset(4 * tensor.start),
        };
        self.tensors[tensors].iter().map(address).collect()
    }
}

fn tensors(net: &Net) -> (Vec<StoredTensor>, usize) {
    let mut len = 0;
    let place = |parameter: &NetParameter| {
        let start = len;
        len = (len + parameter.range.len()).next_multiple_of(ALIGN);
        StoredTensor { flat: parameter.range.clone(), start, is_weight: parameter.tensor.fan_in > 0 }
    };
    (net.parameters.iter().map(place).collect(), len)
}

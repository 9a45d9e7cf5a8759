//! Records the program of a pass over an image on a GPU: launches, and the memory that they read and write.

use super::bands::Band;
use super::extractor::PutImage;
use crate::Result;
use crate::device::{Launch, Memory, Program, Ptr, Recorder};
use crate::net::gpu::GpuParameters;
use crate::net::{Net, PlanMemory};
use crate::ops::Operation;
use crate::ops::gpu::{self, GpuForward, GpuTargets};

/// A program under construction.
pub(super) struct Writer<'a> {
    pub net: &'a Net,
    pub parameters: &'a GpuParameters,
    pub to: Recorder<'a>,
    memory: Vec<Memory>,
}

/// A program with its memory.
pub(super) struct Written {
    program: Program,
    _memory: Vec<Memory>,
    _plan: Option<PlanMemory>,
    /// Pixels of the batch, and the features of its patches, both in f32.
    pub pixels: Ptr,
    pub features: Ptr,
}

impl<'a> Writer<'a> {
    pub fn new(net: &'a Net, parameters: &'a GpuParameters) -> Self {
        Self { net, parameters, to: Recorder::new(parameters.gpu()), memory: Vec::new() }
    }

    /// Bytes of a value in the storage type.
    pub fn size(&self) -> usize {
        self.to.precision().bytes()
    }

    /// Allocates memory for the program; null for no bytes.
    ///
    /// # Errors
    /// Out of memory.
    pub fn bytes(&mut self, bytes: usize) -> Result<Ptr> {
        if bytes == 0 {
            return Ok(Ptr::NULL);
        }
        let memory = self.to.gpu.memory(bytes)?;
        Ok(self.keep(memory))
    }

    /// Memory for values in the storage type.
    ///
    /// # Errors
    /// Out of memory.
    pub fn values(&mut self, count: usize) -> Result<Ptr> {
        self.bytes(self.size() * count)
    }

    /// Memory initialised with a table.
    ///
    /// # Errors
    /// Out of memory.
    pub fn table<T: bytemuck::Pod>(&mut self, values: &[T]) -> Result<Ptr> {
        let memory = self.to.gpu.upload(values)?;
        Ok(self.keep(memory))
    }

    fn keep(&mut self, memory: Memory) -> Ptr {
        let ptr = memory.ptr;
        self.memory.push(memory);
        ptr
    }

    /// Sets the label of the launches that follow: layer `layer`.
    pub fn label(&mut self, layer: usize) {
        self.to.label(&self.net.layers[layer].name);
    }

    /// Casts `count` values from f32 to the storage type, at `to`.
    pub fn store(&mut self, from: Ptr, to: Ptr, count: usize) {
        self.to.label("input");
        gpu::cast_from_f32(&mut self.to, from, to, count);
    }

    /// An operation on `n` samples, with parameters at `params`.
    pub fn record(&mut self, op: &dyn Operation, n: usize, params: &[Ptr], [from, output, workspace]: [Ptr; 3]) {
        let pass = GpuForward {
            n,
            training: false,
            stream: 0,
            step: Ptr::NULL,
            inputs: &[from],
            params,
            targets: GpuTargets { classes: Ptr::NULL, values: Ptr::NULL },
            output,
            workspace,
        };
        op.record_forward(pass, &mut self.to);
    }

    /// The program, which keeps `plan` as part of its memory.
    ///
    /// # Errors
    /// A launch that is too large.
    pub fn finish(self, plan: Option<PlanMemory>, pixels: Ptr, features: Ptr) -> Result<Written> {
        let program = Program::new(self.to.launches)
            .map_err(|e| e.within(&self.net.spec.place).advise("use smaller images, or a larger stride"))?;
        Ok(Written { program, _memory: self.memory, _plan: plan, pixels, features })
    }
}

impl Written {
    pub fn launches(&self) -> &[Launch] {
        &self.program.launches
    }

    /// Runs the program on `pixels`; returns the features of all patches of the batch.
    ///
    /// # Errors
    /// A launch that failed; out of memory.
    pub fn run(&mut self, parameters: &GpuParameters, pixels: &[f32], features: usize) -> Result<Vec<f32>> {
        let gpu = parameters.gpu();
        gpu.driver.upload(self.pixels, bytemuck::cast_slice(pixels))?;
        self.program.run(gpu)?;
        gpu.download(self.features, features)
    }
}

/// Copies the features of a piece at patch `corner` of each image into the band of that image and delivers what is complete.
/// `copy(from, to)` reorders a row of vectors for delivery.
///
/// # Errors
/// Those of `put`.
pub(super) fn hand_on(
    features: &[f32],
    [down, across]: [usize; 2],
    corner: [usize; 2],
    bands: &mut [Band],
    copy: impl Fn(&[f32], &mut [f32]),
    put: PutImage<'_>,
) -> Result<()> {
    let row = features.len() / bands.len() / down;
    debug_assert_eq!(row % across, 0);
    for (image, (band, features)) in bands.iter_mut().zip(features.chunks_exact(down * row)).enumerate() {
        for (y, features) in features.chunks_exact(row).enumerate() {
            copy(features, &mut band.vectors(corner, y, 0)[..row]);
        }
        band.flush(corner, &mut |features| put(image, features))?;
    }
    Ok(())
}

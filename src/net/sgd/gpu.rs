//! The optimizer on a GPU: kernels/sgd.cu. Momentum and a table of all tensors are in device memory; a step is one launch,
//! or three with gradient clipping or scaled losses.

use super::{LossScale, Scaling, SgdConfig};
use crate::Result;
use crate::device::{Gpu, Launch, Memory, Program, Ptr, Recorder, Step};
use crate::kernel_parameters;
use crate::net::Net;
use crate::net::gpu::GpuParameters;
use crate::ops::gpu::{self, BLOCK};
use std::sync::Arc;

kernel_parameters! {
    SgdChunk: 16 { start: u32, count: u32, rate_factor: f32, decay: f32 }
}

kernel_parameters! {
    SgdParams: 80 {
        parameters: Ptr, gradients: Ptr, momentum: Ptr, stored: Ptr, chunks: Ptr, step: Ptr, squares: Ptr, scaled: Ptr,
        momentum_factor: f32, clip_norm: f32, nesterov: u32, unused: u32,
    }
}

kernel_parameters! {
    SquareSum: 40 { values: Ptr, chunks: Ptr, partial: Ptr, total: Ptr, count: u64 }
}

kernel_parameters! {
    LossScaleParams: 48 {
        partial: Ptr, total: Ptr, state: Ptr, count: u64, least: f32, most: f32, interval: u32, unused: u32,
    }
}

/// Values of a tensor that a block updates.
const CHUNK: usize = 4096;

/// The optimizer with its device memory.
pub(in crate::net) struct GpuSgd {
    gpu: Gpu,
    parameters: Arc<GpuParameters>,
    config: SgdConfig,
    /// Laid out as the parameters.
    momentum: Memory,
    chunks: Memory,
    count: usize,
    /// The sum of squares of all gradients, then the partial sum of each chunk, in f64.
    squares: Memory,
    /// The gradients that its launches read.
    gradients: Ptr,
    /// The learning rate.
    step: Memory,
    program: Program,
    /// In f16, the scale of losses, and the program of a step whose gradients are scaled.
    scaling: Option<Scaling>,
    scaled_program: Program,
}

impl GpuSgd {
    /// An optimizer for gradients at `gradients`, laid out as the parameters.
    ///
    /// # Errors
    /// A rate factor for a layer that the net does not have; out of memory.
    pub fn new(net: &Net, parameters: Arc<GpuParameters>, gradients: Ptr, config: SgdConfig) -> Result<Self> {
        let gpu = parameters.gpu().clone();
        let gpu = &gpu;
        let chunks = chunks(net, &parameters, &config)?;
        let mut this = Self {
            momentum: gpu.memory(4 * parameters.len())?,
            squares: gpu.memory(8 * (1 + chunks.len()))?,
            gradients,
            step: gpu.upload(&[Step { seed: 0, rate: 0.0, unused: 0 }])?,
            count: chunks.len(),
            chunks: gpu.upload(&chunks)?,
            gpu: gpu.clone(),
            parameters,
            config,
            program: Program::default(),
            scaling: Scaling::new(gpu)?,
            scaled_program: Program::default(),
        };
        let mut to = Recorder::new(gpu);
        to.label("optimizer");
        if !this.parameters.is_empty() {
            gpu::fill_f32(&mut to, 0.0, this.momentum.ptr, this.parameters.len());
        }
        to.launches.iter().try_for_each(|launch| gpu.driver.launch(launch))?;
        to.launches.clear();
        this.record_step(this.step.ptr, None, &mut to);
        this.program = Program::new(std::mem::take(&mut to.launches))?;
        this.record(this.step.ptr, &mut to);
        this.scaled_program = Program::new(to.launches)?;
        Ok(this)
    }

    pub fn gradients_at(&self) -> Ptr {
        self.gradients
    }

    pub fn launches(&self, scaled: bool) -> &[Launch] {
        if scaled { &self.scaled_program.launches } else { &self.program.launches }
    }

    pub fn scaling(&self) -> Option<&Scaling> {
        self.scaling.as_ref()
    }

    /// Records the launches of a step of training, whose learning rate will be in the [`Step`] at `step`. In f16 the gradients are those
    /// of scaled losses.
    pub fn record(&self, step: Ptr, to: &mut Recorder<'_>) {
        self.record_step(step, self.scaling.as_ref(), to);
    }

    fn record_step(&self, step: Ptr, scaling: Option<&Scaling>, to: &mut Recorder<'_>) {
        let gradients = self.gradients;
        if self.count == 0 {
            return;
        }
        let len = self.parameters.tensors().iter().map(|tensor| tensor.flat.len() as u64).sum::<u64>();
        let clips = self.config.clip_norm > 0.0;
        if clips || scaling.is_some() {
            let sum = SquareSum {
                values: gradients,
                chunks: self.chunks.ptr,
                partial: self.squares.ptr.offset(8),
                total: self.squares.ptr,
                count: self.count as u64,
            };
            to.launch(Launch::new("square_sum_chunks_f32", [self.count, 1, 1], BLOCK, &sum).work(2 * len, 4 * len));
            let count = self.count as u64;
            let launch = match scaling {
                None => Launch::new("square_sum_f32", [1; 3], BLOCK, &sum),
                Some(scaling) => {
                    let parameters = LossScaleParams {
                        partial: sum.partial,
                        total: sum.total,
                        state: scaling.at(),
                        count,
                        least: LossScale::LEAST,
                        most: LossScale::MOST,
                        interval: LossScale::INTERVAL,
                        unused: 0,
                    };
                    Launch::new("loss_scale_f32", [1; 3], BLOCK, &parameters)
                }
            };
            to.launch(launch.work(count, 8 * count));
        }
        let stored = self.parameters.stored();
        let parameters = SgdParams {
            parameters: self.parameters.master(),
            gradients,
            momentum: self.momentum.ptr,
            stored: stored.unwrap_or(Ptr::NULL),
            chunks: self.chunks.ptr,
            step,
            squares: if clips { self.squares.ptr } else { Ptr::NULL },
            scaled: scaling.map_or(Ptr::NULL, Scaling::at),
            momentum_factor: self.config.momentum,
            clip_norm: self.config.clip_norm,
            nesterov: u32::from(self.config.nesterov),
            unused: 0,
        };
        let bytes = 20 + if stored.is_some() { to.precision().bytes() as u64 } else { 0 };
        let launch = Launch::new(to.stored("sgd"), [self.count, 1, 1], BLOCK, &parameters);
        to.launch(launch.work(8 * len, bytes * len));
    }

    /// One step at learning rate `rate`; with gradients of scaled losses if `scaled`.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn step(&mut self, rate: f32, scaled: bool) -> Result<()> {
        let step = Step { seed: 0, rate, unused: 0 };
        self.gpu.driver.upload(self.step.ptr, bytemuck::bytes_of(&step))?;
        let program = if scaled { &mut self.scaled_program } else { &mut self.program };
        program.run(&self.gpu)
    }

    /// The momentum, as the CPU's flat vector.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn momentum(&self) -> Result<Vec<f32>> {
        self.parameters.read_like(self.momentum.ptr)
    }

    /// Replaces the momentum.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn set_momentum(&mut self, momentum: &[f32]) -> Result<()> {
        self.parameters.write_like(self.momentum.ptr, momentum)
    }
}

/// All tensors of a net in chunks, each updated by one block.
fn chunks(net: &Net, parameters: &GpuParameters, config: &SgdConfig) -> Result<Vec<SgdChunk>> {
    let mut chunks = Vec::new();
    for (tensor, placed) in config.tensors(net)?.iter().zip(parameters.tensors()) {
        let start = placed.start;
        for first in (0..tensor.range.len()).step_by(CHUNK) {
            chunks.push(SgdChunk {
                start: (start + first) as u32,
                count: (tensor.range.len() - first).min(CHUNK) as u32,
                rate_factor: tensor.rate_factor,
                decay: tensor.decay,
            });
        }
    }
    Ok(chunks)
}

//! Inference, wherever it runs: parameters on a device ([`Parameters`]) and forward passes over batches of one size
//! ([`Runner`]) with the batch and the answer in host memory.

use super::{GpuParameters, GpuSession, Net, Purpose, Session};
use crate::Result;
use crate::device::Device;
use crate::memory;
use crate::ops::{Mode, Targets};
use std::sync::Arc;

/// A net's parameters where it runs. Cheap to clone.
#[derive(Clone)]
pub enum Parameters {
    Cpu(Arc<[f32]>),
    Gpu(Arc<GpuParameters>),
}

impl From<Vec<f32>> for Parameters {
    /// On the CPU.
    fn from(values: Vec<f32>) -> Self {
        Self::Cpu(values.into())
    }
}

impl Parameters {
    /// Brings parameters (the flat vector of `net`) to a device.
    ///
    /// # Errors
    /// Out of memory.
    pub fn on(device: &Device, net: &Net, values: Vec<f32>) -> Result<Self> {
        Ok(match device {
            Device::Cpu => values.into(),
            Device::Gpu(gpu) => Self::Gpu(Arc::new(GpuParameters::new(gpu, net, &values)?)),
        })
    }
}

/// Forward passes over batches of one size.
pub struct Runner(Run);

enum Run {
    Cpu { session: Session, parameters: Arc<[f32]> },
    Gpu { session: Box<GpuSession>, input: Vec<f32>, output: Vec<f32> },
}

impl Runner {
    /// # Errors
    /// No memory for a batch of `n`.
    pub fn new(net: Arc<Net>, parameters: &Parameters, n: usize) -> Result<Self> {
        Ok(Self(match parameters {
            Parameters::Cpu(parameters) => {
                Run::Cpu { session: Session::new(net, n, Purpose::Inference)?, parameters: parameters.clone() }
            }
            Parameters::Gpu(parameters) => {
                let input = memory::zeroed(n.saturating_mul(net.spec.input.len()), "a batch")?;
                let session = Box::new(GpuSession::new(net, parameters.clone(), n, Purpose::Inference)?);
                Run::Gpu { session, input, output: Vec::new() }
            }
        }))
    }

    pub fn net(&self) -> &Arc<Net> {
        match &self.0 {
            Run::Cpu { session, .. } => session.net(),
            Run::Gpu { session, .. } => session.net(),
        }
    }

    /// Samples of a batch.
    pub fn samples(&self) -> usize {
        match &self.0 {
            Run::Cpu { session, .. } => session.plan().n,
            Run::Gpu { session, .. } => session.plan().n,
        }
    }

    /// The batch, `[n, h, w, c]`: write all of it before each run.
    pub fn input(&mut self) -> &mut [f32] {
        match &mut self.0 {
            Run::Cpu { session, .. } => session.input(),
            Run::Gpu { input, .. } => input,
        }
    }

    /// Runs the net on the batch; the output of its last layer, `[n, h, w, c]`.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn run(&mut self) -> Result<&[f32]> {
        match &mut self.0 {
            Run::Cpu { session, parameters } => {
                session.forward(parameters, Mode::Inference, Targets::default())?;
                Ok(session.output())
            }
            Run::Gpu { session, input, output } => {
                session.set_input(input)?;
                session.forward(Mode::Inference, Targets::default())?;
                *output = session.value(session.net().layers.len() - 1)?;
                Ok(output)
            }
        }
    }
}

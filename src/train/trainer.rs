//! A net, its parameters and its optimizer on the device where a run computes. A step on a GPU leaves there only its loss.

use super::{GpuSgd, Sgd, SgdConfig};
use crate::Result;
use crate::device::Device;
use crate::net::{GpuParameters, GpuSession, Net, Parameters, Purpose, Session};
use crate::ops::{Mode, Targets};
use std::borrow::Cow;
use std::sync::Arc;

/// Training steps over batches of one size.
pub struct Trainer(Kind);

enum Kind {
    Cpu { session: Session, parameters: Vec<f32>, gradients: Vec<f32>, optimizer: Sgd },
    Gpu { session: Box<GpuSession>, parameters: Arc<GpuParameters>, optimizer: GpuSgd },
}

impl Trainer {
    /// From `parameters` (the flat vector of `net`), without momentum.
    ///
    /// # Errors
    /// A rate factor for a layer that the net does not have; no memory for a batch of `batch`.
    pub fn new(device: &Device, net: Arc<Net>, batch: usize, config: SgdConfig, parameters: Vec<f32>) -> Result<Self> {
        Ok(Self(match device {
            Device::Cpu => Kind::Cpu {
                optimizer: Sgd::new(&net, config)?,
                session: Session::new(net, batch, Purpose::Training)?,
                gradients: vec![0.0; parameters.len()],
                parameters,
            },
            Device::Gpu(gpu) => {
                let parameters = Arc::new(GpuParameters::new(gpu, &net, &parameters)?);
                let session = GpuSession::new(net.clone(), parameters.clone(), batch, Purpose::Training)?;
                let optimizer = GpuSgd::new(&net, parameters.clone(), session.gradients_at(), config)?;
                Kind::Gpu { session: Box::new(session), parameters, optimizer }
            }
        }))
    }

    /// Runs the batch `[n, h, w, c]` forward; the sum of all losses.
    ///
    /// # Errors
    /// Targets that do not fit the losses; a launch that failed.
    pub fn forward(&mut self, batch: &[f32], mode: Mode, targets: Targets<'_>) -> Result<f32> {
        match &mut self.0 {
            Kind::Cpu { session, parameters, .. } => {
                session.input().copy_from_slice(batch);
                session.forward(parameters, mode, targets)?;
                Ok(session.loss())
            }
            Kind::Gpu { session, .. } => {
                session.set_input(batch)?;
                session.forward(mode, targets)?;
                session.loss()
            }
        }
    }

    /// Back from the losses of the forward pass, and a step of the optimizer at learning rate `rate`.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn update(&mut self, mode: Mode, targets: Targets<'_>, rate: f32) -> Result<()> {
        match &mut self.0 {
            Kind::Cpu { session, parameters, gradients, optimizer } => {
                session.backward(parameters, mode, targets, None, gradients)?;
                optimizer.step(parameters, gradients, rate);
                Ok(())
            }
            Kind::Gpu { session, optimizer, .. } => {
                session.backward(mode, None)?;
                optimizer.step(rate)
            }
        }
    }

    /// The parameters, as a flat vector.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn parameters(&self) -> Result<Cow<'_, [f32]>> {
        match &self.0 {
            Kind::Cpu { parameters, .. } => Ok(Cow::Borrowed(parameters)),
            Kind::Gpu { parameters, .. } => parameters.read().map(Cow::Owned),
        }
    }

    /// The momentum, as a flat vector.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn momentum(&self) -> Result<Cow<'_, [f32]>> {
        match &self.0 {
            Kind::Cpu { optimizer, .. } => Ok(Cow::Borrowed(&optimizer.momentum)),
            Kind::Gpu { optimizer, .. } => optimizer.momentum().map(Cow::Owned),
        }
    }

    /// Goes on from where another trainer of the same net stood.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn restore(&mut self, new_parameters: &[f32], momentum: &[f32]) -> Result<()> {
        match &mut self.0 {
            Kind::Cpu { parameters, optimizer, .. } => {
                parameters.copy_from_slice(new_parameters);
                optimizer.momentum.copy_from_slice(momentum);
                Ok(())
            }
            Kind::Gpu { parameters, optimizer, .. } => {
                parameters.write(new_parameters)?;
                optimizer.set_momentum(momentum)
            }
        }
    }

    /// The parameters as they are now, for inference on the same device. On a GPU they are the trainer's own and follow it.
    pub fn weights(&self) -> Parameters {
        match &self.0 {
            Kind::Cpu { parameters, .. } => Parameters::Cpu(parameters.as_slice().into()),
            Kind::Gpu { parameters, .. } => Parameters::Gpu(parameters.clone()),
        }
    }
}

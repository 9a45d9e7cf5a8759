//! Memory that passes take, computed before any of it is allocated.

use super::photos::PhotoWindow;
use super::plan::MOST_SAMPLES;
use super::{Net, Plan, Purpose};
use crate::device::{Device, Gpu};
use crate::memory;
use crate::ops::TargetKind;
use crate::{Error, Result};
use std::fmt::Display;

impl Net {
    /// Bytes of all parameters in f32.
    pub fn parameter_bytes(&self) -> u128 {
        4 * self.parameter_len() as u128
    }

    /// Bytes of a batch of `n` inputs in f32.
    pub fn batch_bytes(&self, n: usize) -> u128 {
        4 * n as u128 * self.spec.input.len() as u128
    }

    /// Bytes of the targets of all losses for `n` samples, and of a cotangent of the output.
    pub fn answer_bytes(&self, n: usize) -> u128 {
        let target = |kind: TargetKind| match kind {
            TargetKind::Classes { per_sample, .. } | TargetKind::Values { per_sample } => per_sample as u128,
            TargetKind::Identities => 1,
        };
        let targets: u128 = self.layers.iter().filter_map(|layer| layer.op.target()).map(target).sum();
        4 * n as u128 * (targets + self.output().len() as u128)
    }

    /// Values of the targets of `n` samples: classes or identities, and other values.
    pub(super) fn target_len(&self, n: usize) -> [usize; 2] {
        let (mut classes, mut values) = (0, 0);
        for kind in self.layers.iter().filter_map(|layer| layer.op.target()) {
            match kind {
                TargetKind::Classes { per_sample, .. } => classes = classes.max(n * per_sample),
                TargetKind::Identities => classes = classes.max(n),
                TargetKind::Values { per_sample } => values = values.max(n * per_sample),
            }
        }
        [classes, values]
    }

    /// Bytes that a session of passes over `n` samples takes on a device, without the parameters. Beyond the batches that are
    /// planned exactly, it grows in proportion to the batch.
    pub fn session_bytes(&self, device: &Device, n: usize, purpose: Purpose) -> u128 {
        let planned = n.min(MOST_SAMPLES);
        let gradients = if purpose.is_backward() { self.parameter_bytes() } else { 0 };
        let targets = 4 * self.target_len(planned).iter().map(|len| *len as u128).sum::<u128>();
        let bytes = match device {
            Device::Cpu => {
                // A backward pass needs the targets as well.
                let targets = if purpose.is_backward() { targets } else { 0 };
                Plan::new(self, planned, purpose).map(|plan| 4 * plan.len as u128 + gradients + targets)
            }
            Device::Gpu(gpu) => Plan::on_gpu(self, planned, purpose, gpu).map(|plan| {
                let arena = gpu.precision.bytes() as u128 * plan.len as u128;
                let windows = if purpose.is_backward() { size_of::<PhotoWindow>() * planned } else { 0 };
                arena + gradients + targets + windows as u128 + self.batch_bytes(planned)
            }),
        };
        match bytes {
            Ok(bytes) if n > planned => bytes.div_ceil(planned as u128).saturating_mul(n as u128),
            Ok(bytes) => bytes,
            Err(_) => 0,
        }
    }

    /// Checks that a session of passes over `n` samples fits on a device, and `beside(n)` bytes of host memory with it.
    ///
    /// # Errors
    /// `what` needs more than is free: how much, and the largest batch that would fit.
    pub fn fit(
        &self,
        what: impl Display,
        device: &Device,
        n: usize,
        purpose: Purpose,
        beside: impl Fn(usize) -> u128,
    ) -> Result<()> {
        let session = |n: usize| self.session_bytes(device, n, purpose);
        // A batch, and where steps of training run on a GPU, two images of what goes up for them.
        let host = |n: usize| self.batch_bytes(n) * if purpose == Purpose::Training { 3 } else { 1 };
        match device {
            Device::Gpu(gpu) if !gpu.driver.is_host() => {
                let parameters = self.gpu_parameter_bytes(gpu);
                memory::fit(&what, n, gpu.driver.free_memory()?, |n| session(n) + parameters)
                    .map_err(|e: Error| e.within(&gpu.driver.properties().name))?;
                memory::fit(what, n, memory::available(), |n| host(n) + beside(n))
            }
            Device::Gpu(_) => memory::fit(what, n, memory::available(), |n| session(n) + host(n) + beside(n)),
            Device::Cpu => memory::fit(what, n, memory::available(), |n| session(n) + beside(n)),
        }
    }

    /// f32 masters, and weights in the storage type.
    fn gpu_parameter_bytes(&self, gpu: &Gpu) -> u128 {
        let stored = if gpu.precision.bytes() < 4 { gpu.precision.bytes() as u128 } else { 0 };
        self.parameter_bytes() + stored * self.parameter_len() as u128
    }
}

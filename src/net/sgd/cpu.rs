//! The optimizer on the CPU.

use super::{SgdConfig, TensorRule};
use crate::Result;
use crate::memory;
use crate::net::Net;
use crate::ops::parallel::Disjoint;
use crate::ops::simd::dispatch;
use rayon::prelude::*;

/// The optimizer with its momentum, one value per parameter.
#[derive(Debug)]
pub(super) struct CpuSgd {
    config: SgdConfig,
    /// Flat, as the parameters.
    pub momentum: Vec<f32>,
    tensors: Vec<TensorRule>,
}

/// Values that one task updates.
const CHUNK: usize = 32 * 1024;

impl CpuSgd {
    /// # Errors
    /// A rate factor for a layer that the net does not have.
    pub fn new(net: &Net, config: &SgdConfig) -> Result<Self> {
        let momentum = memory::zeroed(net.parameter_len(), "momentum")?;
        Ok(Self { tensors: config.tensors(net)?, momentum, config: config.clone() })
    }

    /// One step at learning rate `rate`.
    pub fn step(&mut self, parameters: &mut [f32], gradients: &[f32], rate: f32) {
        let SgdConfig { momentum, nesterov, clip_norm, .. } = self.config;
        let scale = if clip_norm > 0.0 {
            let norm = gradients.par_chunks(CHUNK).map(square_sum).collect::<Vec<f64>>().iter().sum::<f64>().sqrt();
            (f64::from(clip_norm) / norm.max(1e-30)).min(1.0) as f32
        } else {
            1.0
        };
        let (parameters, velocity) = (Disjoint::new(parameters), Disjoint::new(&mut self.momentum));
        for tensor in self.tensors.iter().filter(|t| t.rate_factor != 0.0) {
            let rate = rate * tensor.rate_factor;
            let chunks = tensor.range.len().div_ceil(CHUNK);
            (0..chunks).into_par_iter().for_each(|chunk| {
                let start = tensor.range.start + chunk * CHUNK;
                let range = start..(start + CHUNK).min(tensor.range.end);
                // SAFETY: tensors and chunks do not overlap.
                let (w, v) = unsafe { (parameters.slice(range.clone()), velocity.slice(range.clone())) };
                dispatch!({
                    for ((w, v), g) in w.iter_mut().zip(v).zip(&gradients[range]) {
                        let g = scale * g + tensor.decay * *w;
                        *v = momentum * *v + g;
                        *w -= rate * if nesterov { g + momentum * *v } else { *v };
                    }
                });
            });
        }
    }
}

fn square_sum(values: &[f32]) -> f64 {
    values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum()
}

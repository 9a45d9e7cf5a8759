//! Stochastic gradient descent with momentum and weight decay, as in the paper's time and in PyTorch's `SGD`:
//! v = momentum v + (g + decay w); w -= rate (g + decay w + momentum v) with Nesterov, w -= rate v without.

use crate::net::Net;
use crate::ops::parallel::Disjoint;
use crate::ops::simd::dispatch;
use crate::settings::{limits, within};
use crate::{Error, Result};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::ops::Range;

limits! {
    /// The share of the last step's movement that is kept.
    Momentum: f32 = 0.0, 0.9999;
    Decay: f32 = 0.0, 1.0;
    Norm: f32 = 0.0, 1e9;
    RateFactor: f32 = 0.0, 1000.0;
}

/// `[optimizer]` of a training file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgdConfig {
    #[serde(deserialize_with = "within::<Momentum, _, _>")]
    pub momentum: f32,
    pub nesterov: bool,
    /// Applied to weights; biases are not decayed unless `decay_bias`.
    #[serde(deserialize_with = "within::<Decay, _, _>")]
    pub weight_decay: f32,
    pub decay_bias: bool,
    /// Gradients are scaled down to this norm if they are longer; 0 turns it off.
    #[serde(deserialize_with = "within::<Norm, _, _>")]
    pub clip_norm: f32,
    /// Factors of the learning rate by layer name; 0 freezes a layer.
    #[serde(deserialize_with = "within::<RateFactor, _, _>")]
    pub rate_factors: BTreeMap<String, f32>,
}

impl Default for SgdConfig {
    fn default() -> Self {
        Self {
            momentum: 0.9,
            nesterov: true,
            weight_decay: 5e-4,
            decay_bias: true,
            clip_norm: 0.0,
            rate_factors: BTreeMap::new(),
        }
    }
}

/// The optimizer with its momentum, one value per parameter.
#[derive(Debug)]
pub struct Sgd {
    config: SgdConfig,
    /// Flat, as the parameters.
    pub momentum: Vec<f32>,
    tensors: Vec<Tensor>,
}

/// How a parameter tensor moves.
#[derive(Debug)]
pub(super) struct Tensor {
    /// In the flat vector of all parameters.
    pub range: Range<usize>,
    pub rate_factor: f32,
    pub decay: f32,
}

impl SgdConfig {
    /// All tensors of a net, in order.
    ///
    /// # Errors
    /// A rate factor for a layer that the net does not have.
    pub(super) fn tensors(&self, net: &Net) -> Result<Vec<Tensor>> {
        for layer in self.rate_factors.keys() {
            net.position(layer).map_err(|e: Error| e.within("rate_factors"))?;
        }
        let tensors = net.parameters.iter().map(|p| Tensor {
            range: p.range.clone(),
            rate_factor: self.rate_factors.get(&net.layers[p.layer].name).copied().unwrap_or(1.0),
            decay: if p.tensor.fan_in > 0 || self.decay_bias { self.weight_decay } else { 0.0 },
        });
        Ok(tensors.collect())
    }
}

/// Values that one task updates.
const CHUNK: usize = 32 * 1024;

impl Sgd {
    /// # Errors
    /// A rate factor for a layer that the net does not have.
    pub fn new(net: &Net, config: SgdConfig) -> Result<Self> {
        Ok(Self { tensors: config.tensors(net)?, momentum: vec![0.0; net.parameter_len()], config })
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

//! Stochastic gradient descent with momentum and weight decay, as in the paper's time and in PyTorch's `SGD`:
//! v = momentum v + (g + decay w); w -= rate (g + decay w + momentum v) with Nesterov, w -= rate v without.

mod cpu;
mod gpu;
mod scale;

use super::stored::Location;
use super::{Net, Session};
use crate::device::Launch;
use crate::settings::{limits, within};
use crate::{Error, Result};
use cpu::CpuSgd;
pub(super) use gpu::GpuSgd;
pub use scale::LossScale;
pub(super) use scale::{ScaleState, Scaling};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::ops::Range;

limits! {
    /// The fraction of the previous update that is kept.
    Momentum: f32 = 0.0, 0.9999;
    Decay: f32 = 0.0, 1.0;
    Norm: f32 = 0.0, 1e9;
    RateFactor: f32 = 0.0, 1000.0;
}

/// `[optimizer]` of a training file.
#[derive(Debug, Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
pub struct SgdConfig {
    /// Fraction of the previous update that is kept.
    #[serde(deserialize_with = "within::<Momentum, _, _>")]
    pub momentum: f32,
    /// Nesterov momentum.
    pub nesterov: bool,
    /// Applied to weights; biases are not decayed unless `decay_bias`.
    #[serde(deserialize_with = "within::<Decay, _, _>")]
    pub weight_decay: f32,
    /// Whether weight decay applies to biases.
    pub decay_bias: bool,
    /// Gradients with a larger norm are scaled down to this norm; 0 disables clipping.
    #[serde(deserialize_with = "within::<Norm, _, _>")]
    pub clip_norm: f32,
    /// Learning-rate factors by layer name; 0 freezes a layer.
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

/// How a parameter tensor is updated.
#[derive(Debug)]
pub(super) struct TensorRule {
    /// Range in the flat vector of all parameters.
    pub range: Range<usize>,
    pub rate_factor: f32,
    pub decay: f32,
}

impl SgdConfig {
    /// All tensors of a net, in order.
    ///
    /// # Errors
    /// A rate factor for a layer that the net does not have.
    pub(super) fn tensors(&self, net: &Net) -> Result<Vec<TensorRule>> {
        for layer in self.rate_factors.keys() {
            net.position(layer).map_err(|e: Error| e.within("rate_factors"))?;
        }
        let tensors = net.parameters.iter().map(|p| TensorRule {
            range: p.range.clone(),
            rate_factor: self.rate_factors.get(&net.layers[p.layer].name).copied().unwrap_or(1.0),
            decay: if p.tensor.fan_in > 0 || self.decay_bias { self.weight_decay } else { 0.0 },
        });
        Ok(tensors.collect())
    }
}

/// The optimizer: updates the parameters of a session by its gradients. Momentum and parameters stay on the session's device.
///
/// ```
/// use std::sync::Arc;
/// use weft::device::Device;
/// use weft::net::{Net, Parameters, Purpose, Session, Sgd, SgdConfig, Spec};
///
/// let text = "name = 'one'\ninput = [2, 1, 1]\n[[layer]]\nname = 'fc'\ntype = 'linear'\noutputs = 1";
/// let net = Arc::new(Net::new(Spec::parse(text, "one.toml")?)?);
/// let parameters = Parameters::on(&Device::Cpu, &net, vec![1.0, 2.0, 3.0])?;
/// let mut session = Session::new(net, &parameters, 1, Purpose::Training)?;
/// let config = SgdConfig { momentum: 0.0, nesterov: false, weight_decay: 0.0, ..SgdConfig::default() };
/// let mut sgd = Sgd::new(&session, config)?;
/// session.set_gradients(&[1.0, 0.0, -1.0])?;
/// sgd.step(&session, 0.5)?;
/// assert_eq!(parameters.read()?, [0.5, 2.0, 3.5]);
/// # Ok::<(), weft::Error>(())
/// ```
pub struct Sgd {
    kind: Kind,
}

enum Kind {
    Cpu(CpuSgd),
    Gpu(Box<GpuSgd>),
}

impl Sgd {
    /// An optimizer for the parameters of `session`, with zero momentum.
    ///
    /// # Errors
    /// A rate factor for a layer that the net does not have; a session for forward passes only; out of memory.
    pub fn new(session: &Session, config: SgdConfig) -> Result<Self> {
        let net = session.net();
        if !session.plan().purpose.is_backward() {
            return Err(Error::network(&net.spec.place, "has no gradients: the session runs forward only"));
        }
        let kind = match session.gpu_pass() {
            None => Kind::Cpu(CpuSgd::new(net, &config)?),
            Some(pass) => {
                let gpu = GpuSgd::new(net, pass.parameters().clone(), pass.gradients_at(), config)?;
                Kind::Gpu(Box::new(gpu))
            }
        };
        Ok(Self { kind })
    }

    /// One step at learning rate `rate`, with the gradients of the last backward pass.
    ///
    /// # Errors
    /// A session that the optimizer was not created for; a launch that failed.
    pub fn step(&mut self, session: &Session, rate: f32) -> Result<()> {
        self.run(session, rate, false)
    }

    /// The same with gradients of losses that were multiplied by [`Sgd::loss_scale`], in f16: if they are not finite, nothing but the
    /// scale changes. In other precisions it is [`Sgd::step`].
    ///
    /// # Errors
    /// As [`Sgd::step`].
    pub fn step_scaled(&mut self, session: &Session, rate: f32) -> Result<()> {
        self.run(session, rate, true)
    }

    fn run(&mut self, session: &Session, rate: f32, scaled: bool) -> Result<()> {
        let other = || Error::network(&session.net().spec.place, "the optimizer was made for another session");
        match (&mut self.kind, session.parameters().location()) {
            (Kind::Cpu(sgd), Location::Cpu(parameters)) => {
                let gradients = session.cpu_gradients().ok_or_else(other)?;
                let mut parameters = parameters.write();
                if gradients.len() != parameters.len() || gradients.len() != sgd.momentum.len() {
                    return Err(other());
                }
                sgd.step(&mut parameters, gradients, rate);
                Ok(())
            }
            (Kind::Gpu(sgd), Location::Gpu(_)) => {
                // Its launches hold addresses of the session's memory.
                let owns = |pass: &&super::gpu::GpuPass| pass.gradients_at() == sgd.gradients_at();
                session.gpu_pass().filter(owns).ok_or_else(other)?;
                sgd.step(rate, scaled)
            }
            _ => Err(other()),
        }
    }

    pub(super) fn gpu(&self) -> Option<&GpuSgd> {
        match &self.kind {
            Kind::Cpu(_) => None,
            Kind::Gpu(sgd) => Some(sgd),
        }
    }

    /// The momentum, one value per parameter, as one flat vector.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn momentum(&self) -> Result<Cow<'_, [f32]>> {
        match &self.kind {
            Kind::Cpu(sgd) => Ok(Cow::Borrowed(&sgd.momentum)),
            Kind::Gpu(sgd) => sgd.momentum().map(Cow::Owned),
        }
    }

    /// Replaces the momentum.
    ///
    /// # Errors
    /// A vector of another length; a launch that failed.
    pub fn set_momentum(&mut self, momentum: &[f32]) -> Result<()> {
        match &mut self.kind {
            Kind::Cpu(sgd) if sgd.momentum.len() != momentum.len() => {
                let (given, needed) = (momentum.len(), sgd.momentum.len());
                Err(Error::network("momentum", format!("{given} values are given, but the net has {needed}")))
            }
            Kind::Cpu(sgd) => {
                sgd.momentum.copy_from_slice(momentum);
                Ok(())
            }
            Kind::Gpu(sgd) => sgd.set_momentum(momentum),
        }
    }

    /// What [`super::Steps`] multiply losses by; `None` but in f16.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn loss_scale(&self) -> Result<Option<LossScale>> {
        let scaling = self.gpu().and_then(GpuSgd::scaling);
        scaling.map(|scaling| scaling.read().map(ScaleState::public)).transpose()
    }

    /// Replaces it; without effect but in f16.
    ///
    /// # Errors
    /// Numbers that no run arrives at; a launch that failed.
    pub fn set_loss_scale(&mut self, scale: LossScale) -> Result<()> {
        self.gpu().and_then(GpuSgd::scaling).map_or(Ok(()), |scaling| scaling.write(scale))
    }

    /// The launches of [`Sgd::step`] or [`Sgd::step_scaled`]; none on the CPU.
    pub fn launches(&self, scaled: bool) -> &[Launch] {
        match &self.kind {
            Kind::Cpu(_) => &[],
            Kind::Gpu(sgd) => sgd.launches(scaled),
        }
    }
}

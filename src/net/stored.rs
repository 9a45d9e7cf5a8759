//! Parameters on the device that a net runs on.

use super::Net;
use super::gpu::GpuParameters;
use crate::device::Device;
#[cfg(feature = "face")]
use crate::device::Gpu;
use crate::memory;
use crate::ops::Permutation;
use crate::{Error, Result};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// A net's parameters on a device. Clones share them: an optimizer's changes are visible to every session that uses them.
///
/// On a GPU they are f32 masters, plus the weights in the storage type of the precision if that is not f32.
/// Nets of the same layers at other input sizes can share parameters.
///
/// ```
/// use weft::device::Device;
/// use weft::net::{Net, Parameters};
///
/// let net = Net::load("nets/anet.toml")?;
/// let parameters = Parameters::on(&Device::Cpu, &net, net.initial_parameters(1))?;
/// let shared = parameters.clone();
/// shared.write(&vec![0.0; net.parameter_len()])?;
/// assert!(parameters.read()?.iter().all(|value| *value == 0.0));
/// # Ok::<(), weft::Error>(())
/// ```
#[derive(Clone)]
pub struct Parameters {
    location: Location,
}

/// Where they are stored.
#[derive(Clone)]
pub(crate) enum Location {
    Cpu(CpuParameters),
    Gpu(Arc<GpuParameters>),
}

/// One flat vector in host memory.
#[derive(Clone)]
pub(crate) struct CpuParameters(Arc<Shared>);

struct Shared {
    values: RwLock<Vec<f32>>,
    /// What the operations have made of the values, until these change.
    prepared: Mutex<Option<Prepared>>,
}

/// The parameters of a net's layers in the form that forward passes read ([`crate::ops::Operation::prepare`]).
#[derive(Clone)]
struct Prepared {
    /// Layout of the parameters that it was made of.
    orders: Arc<[Permutation]>,
    values: Arc<Vec<f32>>,
}

impl CpuParameters {
    fn new(values: Vec<f32>) -> Self {
        Self(Arc::new(Shared { values: RwLock::new(values), prepared: Mutex::new(None) }))
    }

    pub fn read(&self) -> RwLockReadGuard<'_, Vec<f32>> {
        self.0.values.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Vec<f32>> {
        let values = self.0.values.write().unwrap_or_else(PoisonError::into_inner);
        *self.0.prepared.lock().unwrap_or_else(PoisonError::into_inner) = None;
        values
    }

    /// The prepared parameters of all layers of `net`, one after the other; made once, and shared by all sessions until the
    /// parameters change. `values` are the parameters, read-locked. Without memory for it, and for a second net of another layout,
    /// an empty vector: then each pass prepares its own.
    pub fn prepared(&self, net: &Net, values: &[f32]) -> Arc<Vec<f32>> {
        let orders = || net.parameters.iter().map(|parameter| &parameter.tensor.order);
        let mut kept = self.0.prepared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(prepared) = &*kept {
            return if orders().eq(prepared.orders.iter()) { prepared.values.clone() } else { Arc::default() };
        }
        let len = net.layers.iter().map(|layer| layer.op.prepared_len()).sum();
        let Ok(mut made) = memory::zeroed(len, "packed filters") else { return Arc::default() };
        let mut rest = &mut made[..];
        for layer in &net.layers {
            let (own, others) = rest.split_at_mut(layer.op.prepared_len());
            rest = others;
            let tensors = &net.parameters[layer.parameters.clone()];
            let params: Vec<&[f32]> = tensors.iter().map(|tensor| &values[tensor.range.clone()]).collect();
            if !own.is_empty() {
                layer.op.prepare(&params, own);
            }
        }
        kept.insert(Prepared { orders: orders().cloned().collect(), values: Arc::new(made) }).values.clone()
    }
}

impl Parameters {
    /// Copies the flat parameter vector of `net` to a device; [`Net::load_parameters`] and [`Net::initial_parameters`] return
    /// one.
    ///
    /// # Errors
    /// A vector of another length; out of memory.
    pub fn on(device: &Device, net: &Net, values: Vec<f32>) -> Result<Self> {
        check_len(net, values.len())?;
        let location = match device {
            Device::Cpu => Location::Cpu(CpuParameters::new(values)),
            Device::Gpu(gpu) => Location::Gpu(Arc::new(GpuParameters::new(gpu, net, &values)?)),
        };
        Ok(Self { location })
    }

    /// Checks that they are the parameters of a net of the same layers.
    ///
    /// # Errors
    /// They are not.
    pub(crate) fn check(&self, net: &Net) -> Result<()> {
        match &self.location {
            Location::Cpu(values) => check_len(net, values.read().len()),
            Location::Gpu(stored) if stored.fit(net) => Ok(()),
            Location::Gpu(_) => Err(Error::network(&net.spec.place, "these are the parameters of another net")),
        }
    }

    pub(crate) fn location(&self) -> &Location {
        &self.location
    }

    /// The GPU that they are on, whose programs can contain passes with them.
    #[cfg(feature = "face")]
    pub(crate) fn gpu(&self) -> Option<&Gpu> {
        match &self.location {
            Location::Cpu(_) => None,
            Location::Gpu(parameters) => Some(parameters.gpu()),
        }
    }

    /// The device that they are on.
    pub fn device(&self) -> Device {
        match &self.location {
            Location::Cpu(_) => Device::Cpu,
            Location::Gpu(parameters) => Device::Gpu(parameters.gpu().clone()),
        }
    }

    /// The flat vector, in f32.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn read(&self) -> Result<Vec<f32>> {
        match &self.location {
            Location::Cpu(values) => Ok(values.read().clone()),
            Location::Gpu(parameters) => parameters.read(),
        }
    }

    /// The flat vector as used in products: weights rounded to the storage type of the device's precision.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn read_rounded(&self) -> Result<Vec<f32>> {
        match &self.location {
            Location::Cpu(_) => self.read(),
            Location::Gpu(parameters) => parameters.read_rounded(),
        }
    }

    /// Replaces all values.
    ///
    /// # Errors
    /// A vector of another length; a launch that failed.
    pub fn write(&self, values: &[f32]) -> Result<()> {
        match &self.location {
            Location::Cpu(own) => {
                let mut own = own.write();
                let (given, needed) = (values.len(), own.len());
                if given != needed {
                    return Err(Error::network(
                        "parameters",
                        format!("{given} values are given, but the net has {needed}"),
                    ));
                }
                own.copy_from_slice(values);
                Ok(())
            }
            Location::Gpu(parameters) => parameters.write(values),
        }
    }
}

fn check_len(net: &Net, given: usize) -> Result<()> {
    let needed = net.parameter_len();
    if given == needed {
        return Ok(());
    }
    Err(Error::network(&net.spec.place, format!("has {needed} parameters, but {given} are given")))
}

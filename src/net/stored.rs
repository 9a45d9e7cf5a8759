//! Parameters on the device that a net runs on.

use super::Net;
use super::gpu::GpuParameters;
use crate::device::Device;
use crate::{Error, Result};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

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
pub(crate) struct CpuParameters(Arc<RwLock<Vec<f32>>>);

impl CpuParameters {
    pub fn read(&self) -> RwLockReadGuard<'_, Vec<f32>> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn write(&self) -> RwLockWriteGuard<'_, Vec<f32>> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
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
            Device::Cpu => Location::Cpu(CpuParameters(Arc::new(RwLock::new(values)))),
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

//! Finds CUDA devices without panicking: cudarc panics on the first call of a function of a library that is missing or too
//! old, so the library and its functions are looked up before anything is called.

use super::{explain, retaining};
use crate::device::driver::Properties;
use crate::{Error, Result};
use cudarc::driver::result::{self, DriverError};
use cudarc::driver::sys::{self, CUdevice_attribute_enum as Attribute, CUresult};
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Older drivers lack functions that are needed; in CUDA's encoding, 12.0.
const OLDEST: i32 = 12000;

/// Every function that is called without a further check. Looked up one by one, so that the missing one is named.
const FUNCTIONS: &[&str] = &[
    "cuInit",
    "cuDriverGetVersion",
    "cuGetErrorName",
    "cuGetErrorString",
    "cuDeviceGet",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDeviceGetAttribute",
    "cuDeviceTotalMem_v2",
    "cuDevicePrimaryCtxRetain",
    "cuDevicePrimaryCtxRelease_v2",
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamSynchronize",
    "cuStreamBeginCapture_v2",
    "cuStreamEndCapture",
    "cuMemAlloc_v2",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemFreeHost",
    "cuMemcpyHtoDAsync_v2",
    "cuMemcpyDtoHAsync_v2",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuModuleGetFunction",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuOccupancyMaxActiveBlocksPerMultiprocessor",
    "cuLaunchKernel",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventRecord",
    "cuEventRecordWithFlags",
    "cuEventSynchronize",
    "cuEventElapsedTime",
    "cuGraphInstantiateWithFlags",
    "cuGraphUpload",
    "cuGraphLaunch",
    "cuGraphExecDestroy",
    "cuGraphDestroy",
];

/// Why no device is usable.
#[derive(Debug, Clone)]
pub struct Refusal {
    pub error: Error,
    /// There is no driver: no GPU is expected here.
    pub plain: bool,
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Self { error, plain: false }
    }
}

/// The driver, found and initialised.
#[derive(Debug, Clone, Copy)]
pub struct DriverInfo {
    /// Newest CUDA version it supports, `[12, 8]`.
    pub version: [u32; 2],
    /// Number of GPUs, at least one.
    pub devices: usize,
}

/// Finds and initialises the driver.
///
/// # Errors
/// No library, one that is too old, no device; with advice.
pub fn probe() -> Result<DriverInfo, Refusal> {
    // Defensive: what follows calls only functions that exist.
    catch_unwind(AssertUnwindSafe(find))
        .unwrap_or_else(|_| Err(Error::device("cuda", "the driver cannot be used").into()))
}

fn find() -> Result<DriverInfo, Refusal> {
    // SAFETY: libcuda may be loaded at any time.
    if !unsafe { sys::is_culib_present() } {
        let error = Error::device("cuda", "no NVIDIA driver here (libcuda.so.1 was not found)");
        return Err(Refusal { error: error.advise("install the driver, or use the device cpu"), plain: true });
    }
    let old = |what: String| Error::device("cuda", what).advise("update the NVIDIA driver, or use the device cpu");
    if let Some(missing) = FUNCTIONS.iter().find(|name| !has(name)) {
        return Err(old(format!("the NVIDIA driver is too old: it has no {missing}, CUDA 12.0 is needed")).into());
    }
    let failed = |e: DriverError| Error::device("cuda", explain(e));
    let mut version: c_int = 0;
    // SAFETY: writes one number; may be called before cuInit.
    unsafe { sys::cuDriverGetVersion(&mut version).result() }.map_err(failed)?;
    let numbers = [version / 1000, version % 1000 / 10].map(|n| n.unsigned_abs());
    if version < OLDEST {
        let [major, minor] = numbers;
        return Err(
            old(format!("the NVIDIA driver is too old: it supports CUDA {major}.{minor}, 12.0 is needed")).into()
        );
    }
    let none = || {
        let what = "the NVIDIA driver finds no GPU";
        Refusal::from(Error::device("cuda", what).advise("see what nvidia-smi says, or use the device cpu"))
    };
    result::init().map_err(|e| if e.0 == CUresult::CUDA_ERROR_NO_DEVICE { none() } else { failed(e).into() })?;
    match result::device::get_count() {
        Ok(count @ 1..) => Ok(DriverInfo { version: numbers, devices: count as usize }),
        Ok(_) => Err(none()),
        Err(e) if e.0 == CUresult::CUDA_ERROR_NO_DEVICE => Err(none()),
        Err(e) => Err(failed(e).into()),
    }
}

/// Whether the library has a function.
pub(super) fn has(name: &str) -> bool {
    // SAFETY: only a lookup, and the library exists: `is_culib_present` has been checked before.
    unsafe { sys::culib().get::<unsafe extern "C" fn()>(name.as_bytes()).is_ok() }
}

/// Properties of device `ordinal`; needs a probed driver, creates no context.
///
/// # Errors
/// No such device.
pub fn properties(ordinal: usize, found: DriverInfo) -> Result<Properties> {
    let place = format!("cuda:{ordinal}");
    if ordinal >= found.devices {
        let there = match found.devices {
            1 => "only cuda:0".to_string(),
            n => format!("cuda:0 to cuda:{}", n - 1),
        };
        return Err(Error::device(place, format!("no such GPU, there is {there}")));
    }
    let at = |e: DriverError| Error::device(&place, explain(e));
    let device = result::device::get(ordinal as c_int).map_err(at)?;
    // SAFETY: `device` is one of the driver's.
    let number = |which| unsafe { result::device::get_attribute(device, which) };
    let number = |which| number(which).map(i32::unsigned_abs).map_err(at);
    let capability = [
        number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?,
        number(Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?,
    ];
    let name = result::device::get_name(device).map_err(at)?;
    let multiprocessors = number(Attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?;
    // In kHz; drivers may report 0.
    let clock = 1e3 * f64::from(number(Attribute::CU_DEVICE_ATTRIBUTE_CLOCK_RATE).unwrap_or(0));
    let memory_clock = 1e3 * f64::from(number(Attribute::CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE).unwrap_or(0));
    let bus = f64::from(number(Attribute::CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH).unwrap_or(0));
    let bandwidth = 2.0 * memory_clock * bus / 8.0;
    Ok(Properties {
        driver: version_of(found),
        capability,
        multiprocessors,
        shared_per_block: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN)?,
        shared_per_multiprocessor: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR)?,
        threads_per_multiprocessor: number(Attribute::CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR)?,
        // SAFETY: as above.
        memory: unsafe { result::device::total_mem(device) }.map_err(at)? as u64,
        peaks: super::peaks::peaks(&name, capability, multiprocessors, clock, bandwidth),
        name,
    })
}

/// The newest CUDA that the driver supports, and its own version where the system tells.
fn version_of(found: DriverInfo) -> String {
    let [major, minor] = found.version;
    let own = std::fs::read_to_string("/sys/module/nvidia/version").unwrap_or_default();
    match own.trim() {
        "" => format!("CUDA {major}.{minor}"),
        own => format!("CUDA {major}.{minor}, {own}"),
    }
}

/// Whether machine code or PTX for `architectures` (as `80` or `90a`) runs on a device. build.rs adds PTX of the lowest
/// and the highest portable one; family-specific code (`90a`) runs only on that capability.
pub fn fits(capability: [u32; 2], architectures: &[&str]) -> bool {
    let own = 10 * capability[0] + capability[1];
    architectures.iter().any(|arch| match arch.strip_suffix(['a', 'f']) {
        Some(specific) => specific.parse() == Ok(own),
        None => arch.parse().is_ok_and(|portable: u32| portable <= own),
    })
}

/// What prevents creating a context: for errors of the first call that creates one.
pub(super) fn hindered(place: &str, ordinal: usize, error: DriverError) -> Error {
    // SAFETY: the attribute of a device of the driver.
    let mode = result::device::get(ordinal as c_int).and_then(|device| unsafe {
        result::device::get_attribute(device, Attribute::CU_DEVICE_ATTRIBUTE_COMPUTE_MODE)
    });
    let (exclusive, prohibited) = (mode == Ok(3), mode == Ok(2));
    match error.0 {
        _ if prohibited => Error::device(place, "the GPU is closed to computing (compute mode Prohibited)")
            .advise("open it with `nvidia-smi -c 0`, or use another device"),
        CUresult::CUDA_ERROR_DEVICE_UNAVAILABLE => {
            let mode = if exclusive { " (compute mode Exclusive_Process)" } else { "" };
            Error::device(place, format!("the GPU is busy: another process holds it{mode}"))
                .advise("wait for it, or use another device")
        }
        CUresult::CUDA_ERROR_OUT_OF_MEMORY => {
            Error::device(place, "the GPU has no memory left for a context").advise("wait, or use another device")
        }
        _ => retaining(place, error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_code_fits_its_family_and_ptx_every_later_card() {
        let archs = ["75", "80", "90a"];
        assert!(fits([7, 5], &archs) && fits([8, 9], &archs) && fits([9, 0], &archs) && fits([12, 0], &archs));
        assert!(!fits([7, 0], &archs) && !fits([6, 1], &archs) && !fits([8, 0], &[]));
        assert!(fits([9, 0], &["90a"]) && !fits([10, 0], &["90a"]) && !fits([8, 0], &["90a"]));
    }
}

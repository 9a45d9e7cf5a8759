//! Dynamic scaling of losses, for f16: its smallest number is 6e-8, below which gradients vanish, and its largest 65504. All losses are
//! multiplied by a power of two, and gradients divided by it before anything else is done with them. A step whose gradients
//! are not finite is skipped and the scale halved; after [`LossScale::INTERVAL`] good steps it is doubled. State and decisions are in
//! device memory (kernels/sgd.cu): the host is asked for nothing.

use crate::device::{Gpu, Memory, Precision, Ptr};
use crate::kernel_parameters;
use crate::{Error, Result};
use serde::{Deserialize, Serialize};

/// What losses are multiplied by in f16, and what has become of it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LossScale {
    /// What losses are multiplied by in the next step: a power of two.
    pub scale: f32,
    /// Steps since it changed or a step was skipped.
    pub good: u32,
    /// Steps that were skipped because their gradients were not finite.
    pub skipped: u32,
}

impl Default for LossScale {
    fn default() -> Self {
        Self { scale: 65536.0, good: 0, skipped: 0 }
    }
}

impl LossScale {
    /// Good steps after which the scale is doubled.
    pub const INTERVAL: u32 = 2000;
    /// It is not halved below this: a loss that needs less is not for f16.
    pub const LEAST: f32 = 1.0 / 16384.0;
    /// It is not doubled beyond this.
    pub const MOST: f32 = 16_777_216.0;

    /// # Errors
    /// Numbers that no run arrives at.
    pub fn check(&self) -> Result<()> {
        let is_power = self.scale.is_normal() && self.scale.to_bits().trailing_zeros() >= f32::MANTISSA_DIGITS - 1;
        if is_power && (Self::LEAST..=Self::MOST).contains(&self.scale) && self.good < Self::INTERVAL {
            return Ok(());
        }
        let found =
            format!("a scale of {} after {} good steps is none that training arrives at", self.scale, self.good);
        Err(Error::new("loss scale", found)
            .advise("give a power of two from 2^-14 to 2^24, and fewer than 2000 good steps"))
    }
}

kernel_parameters! {
    /// kernels/sgd.cu
    ScaleState: 16 { scale: f32, good: u32, skipped: u32, factor: f32 }
}

impl ScaleState {
    pub fn new(of: LossScale) -> Self {
        Self { scale: of.scale, good: of.good, skipped: of.skipped, factor: 1.0 }
    }

    pub fn public(self) -> LossScale {
        LossScale { scale: self.scale, good: self.good, skipped: self.skipped }
    }

    /// Whether the last step was skipped.
    pub fn is_skipped(self) -> bool {
        self.factor == 0.0
    }
}

/// The scale in device memory.
pub(in crate::net) struct Scaling {
    gpu: Gpu,
    state: Memory,
}

impl Scaling {
    /// Only f16 needs one.
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(gpu: &Gpu) -> Result<Option<Self>> {
        if gpu.precision != Precision::F16 {
            return Ok(None);
        }
        let state = gpu.upload(&[ScaleState::new(LossScale::default())])?;
        Ok(Some(Self { gpu: gpu.clone(), state }))
    }

    /// Address of the state, which begins with what losses are multiplied by, f32.
    pub fn at(&self) -> Ptr {
        self.state.ptr
    }

    /// # Errors
    /// A launch that failed.
    pub fn read(&self) -> Result<ScaleState> {
        let state: Vec<ScaleState> = self.gpu.download(self.state.ptr, 1)?;
        Ok(state[0])
    }

    /// # Errors
    /// Numbers that no run arrives at; a launch that failed.
    pub fn write(&self, scale: LossScale) -> Result<()> {
        scale.check()?;
        self.gpu.driver.upload(self.state.ptr, bytemuck::bytes_of(&ScaleState::new(scale)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_is_a_power_of_two_within_its_range() {
        let scale = |scale, good| LossScale { scale, good, skipped: 3 };
        for good in [scale(65536.0, 1999), scale(1.0, 0), scale(LossScale::LEAST, 0), scale(LossScale::MOST, 0)] {
            good.check().unwrap();
        }
        for bad in [0.0, 3.0, -2.0, f32::NAN, f32::INFINITY, LossScale::LEAST / 2.0, 2.0 * LossScale::MOST, 1e-40] {
            let error = scale(bad, 0).check().unwrap_err().to_string();
            assert!(error.contains("loss scale") && !error.contains('\n'), "{error}");
        }
        assert!(scale(1.0, 2000).check().is_err());
    }
}

//! The state of a run in one file: parameters, momentum and a few numbers. Everything else (order of the photos, crops,
//! masks, learning rate) is a function of the seed and the step, so a resumed run continues as if it had never stopped.

use super::Validation;
use crate::net::{LossScale, Net};
use crate::provenance::Provenance;
use crate::weights::{Dtype, Named, TensorFile};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::path::Path;

/// File name in the folder of the run.
pub const FILE: &str = "checkpoint.safetensors";
const STATE: &str = "weft.training";
const MOMENTUM: &str = "momentum.";

/// The progress of a run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    /// Completed steps.
    pub step: usize,
    /// What must not change between interruption and resumption.
    pub run: Provenance,
    /// Sum and number of the losses since the last log line.
    pub losses: (f64, usize),
    /// Lowest validation loss so far.
    pub best: Option<f64>,
    /// The last validation.
    pub validation: Option<Validation>,
    /// In f16, what losses are multiplied by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss_scale: Option<LossScale>,
}

/// Writes a checkpoint, atomically.
///
/// # Errors
/// A file that cannot be written; the previous one is then intact.
pub fn save(path: &Path, net: &Net, parameters: &[f32], momentum: &[f32], state: &State) -> Result<()> {
    let (weights, momentum) = (net.named(parameters), net.named(momentum));
    let names: Vec<String> = momentum.iter().map(|t| format!("{MOMENTUM}{}", t.name)).collect();
    let mut tensors: Vec<Named<'_>> = Vec::new();
    tensors.extend(weights.iter().map(|t| Named {
        name: &t.name,
        shape: &t.shape,
        dtype: Dtype::F32,
        data: &t.values,
    }));
    tensors.extend(momentum.iter().zip(&names).map(|(t, name)| Named {
        name,
        shape: &t.shape,
        dtype: Dtype::F32,
        data: &t.values,
    }));
    let state = serde_json::to_string(state).map_err(|e| Error::file(path, e))?;
    crate::weights::write(path, &tensors, &[(STATE.to_string(), state)])
}

/// Provenance of the run of a checkpoint.
///
/// # Errors
/// A file that is unreadable, truncated, or not a checkpoint.
pub fn provenance_of(path: &Path) -> Result<Provenance> {
    Ok(open(path)?.1.run)
}

fn open(path: &Path) -> Result<(TensorFile, State)> {
    const ADVICE: &str = "there is no going on from it: move it away and start anew, or bring an intact copy";
    let file = TensorFile::open(path).map_err(|e| e.advise(ADVICE))?;
    let state = file.metadata().get(STATE).ok_or_else(|| {
        Error::file(path, "is no checkpoint of a training run").advise("resume from the folder of a run")
    })?;
    let state: State = serde_json::from_str(state).map_err(|e| Error::file(path, e).advise(ADVICE))?;
    if let Some(scale) = state.loss_scale {
        scale.check().map_err(|e| e.within(path.display()).advise(ADVICE))?;
    }
    Ok((file, state))
}

/// Reads a checkpoint of a run with provenance `run` into parameters and momentum.
///
/// # Errors
/// As [`provenance_of`]; a checkpoint of another run, with the differences; tensors that are missing or do not fit.
pub fn load(path: &Path, net: &Net, run: &Provenance, parameters: &mut [f32], momentum: &mut [f32]) -> Result<State> {
    let (file, state) = open(path)?;
    let differences = state.run.differences(run);
    if !differences.is_empty() {
        return Err(Error::file(path, format!("belongs to another run: {differences}"))
            .advise("resume with the settings and data of before, or train into another folder"));
    }
    for parameter in &net.parameters {
        for (prefix, values) in [("", &mut *parameters), (MOMENTUM, &mut *momentum)] {
            let tensor = file.require(&format!("{prefix}{}", parameter.name))?;
            if tensor.shape != parameter.tensor.shape {
                return Err(
                    tensor.error(format!("has shape {:?}, but {:?} is needed", tensor.shape, parameter.tensor.shape))
                );
            }
            parameter.tensor.order.pack(&tensor.to_f32()?, &mut values[parameter.range.clone()]);
        }
    }
    Ok(state)
}

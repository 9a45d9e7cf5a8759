//! Parameters are one flat vector, each tensor in the memory order of its operation. This module initialises them, reads them
//! from files and converts them back to file order.

use super::Net;
use crate::memory;
use crate::rng::Rng;
use crate::shipped::Source;
use crate::weights::{Dtype, Named, TensorFile};
use crate::{Error, Result};
use std::path::Path;

/// What to do with tensors of a file that the net does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unknown {
    /// An error that names them.
    Refuse,
    /// Ignored: for a net without the head it was trained with.
    Ignore,
}

/// What was read of a file with parameters, and what was not.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The flat parameter vector of the net.
    pub values: Vec<f32>,
    /// Names of the file's tensors that the net does not have.
    pub ignored: Vec<String>,
    /// Names of the net's tensors that the file does not have.
    pub missing: Vec<String>,
}

/// One parameter (or its gradient) in file order.
#[derive(Debug, Clone, PartialEq)]
pub struct NamedParameter {
    /// `<layer>.weight` or `<layer>.bias`.
    pub name: String,
    /// As in files.
    pub shape: Vec<usize>,
    /// In the order of `shape`.
    pub values: Vec<f32>,
}

impl Net {
    /// Weights initialised as in He et al. (ICCV 2015), biases zero, scales one. Allocates [`Net::parameter_bytes`]: compare them with the
    /// free memory first.
    pub fn initial_parameters(&self, seed: u64) -> Vec<f32> {
        let mut values = vec![0.0; self.parameter_len()];
        for (index, parameter) in self.parameters.iter().enumerate() {
            let (tensor, values) = (&parameter.tensor, &mut values[parameter.range.clone()]);
            if tensor.fan_in > 0 {
                let mut rng = Rng::new(seed, index as u64);
                let deviation = (tensor.gain / tensor.fan_in as f32).sqrt();
                values.fill_with(|| deviation * rng.normal());
            } else {
                values.fill(tensor.gain);
            }
        }
        values
    }

    /// Reads all parameters from a file; none is missing. With [`Unknown::Ignore`], [`Loaded::ignored`] names the tensors that
    /// the net does not have.
    ///
    /// # Errors
    /// Missing and (unless ignored) unknown tensors by name, a shape that differs from the net's.
    ///
    /// ```
    /// use weft::net::{Net, Unknown};
    ///
    /// let net = Net::load("weights/anet.toml")?;
    /// // The file also holds the head that the net was trained with.
    /// let loaded = net.load_parameters("weights/anet.safetensors", Unknown::Ignore)?;
    /// assert_eq!(loaded.values.len(), net.parameter_len());
    /// println!("not used: {}", loaded.ignored.join(", "));
    /// # Ok::<(), weft::Error>(())
    /// ```
    pub fn load_parameters(&self, source: impl Into<Source>, unknown: Unknown) -> Result<Loaded> {
        let source = source.into();
        let file = TensorFile::open(&source)?;
        let values = memory::zeroed(self.parameter_len(), format!("{}: parameters", self.spec.place))?;
        let loaded = self.read_parameters(&file, values).map_err(|e| e.within(&source))?;
        let advice = format!("these weights are not for the net {}", self.spec.place);
        if !loaded.missing.is_empty() {
            return Err(Error::network(&source, format!("has no {}", list(&loaded.missing))).advise(advice));
        }
        if unknown == Unknown::Refuse && !loaded.ignored.is_empty() {
            let found = format!("holds {}, which the net does not have", list(&loaded.ignored));
            return Err(Error::network(&source, found).advise(advice));
        }
        Ok(loaded)
    }

    /// Reads the tensors that file and net have both; the others keep what the flat vector `values` holds, for example
    /// [`Net::initial_parameters`] for the new head of a net whose trunk is in the file.
    ///
    /// # Errors
    /// A vector of another length; a shape or type that does not fit.
    pub fn read_parameters(&self, file: &TensorFile, mut values: Vec<f32>) -> Result<Loaded> {
        if values.len() != self.parameter_len() {
            let (given, needed) = (values.len(), self.parameter_len());
            return Err(Error::network(&self.spec.place, format!("has {needed} parameters, but {given} are given")));
        }
        let mut missing = Vec::new();
        for parameter in &self.parameters {
            let Some(tensor) = file.get(&parameter.name) else {
                missing.push(parameter.name.clone());
                continue;
            };
            if !fits(&tensor.shape, &parameter.tensor.shape) {
                return Err(Error::network(
                    format!("tensor {}", parameter.name),
                    format!(
                        "has shape {:?}, but the net {} needs {:?}",
                        tensor.shape, self.spec.place, parameter.tensor.shape
                    ),
                )
                .advise("take the weights that belong to this net"));
            }
            parameter.tensor.order.pack(&tensor.to_f32()?, &mut values[parameter.range.clone()]);
        }
        let is_known = |name: &&str| self.parameters.iter().any(|p| p.name == *name);
        let ignored = file.names().filter(|name| !is_known(name)).map(str::to_string).collect();
        Ok(Loaded { values, ignored, missing })
    }

    /// A flat vector (parameters or gradients) as tensors in file order.
    pub fn named(&self, values: &[f32]) -> Vec<NamedParameter> {
        let tensors = self.parameters.iter().map(|parameter| {
            let mut file = vec![0.0; parameter.range.len()];
            parameter.tensor.order.unpack(&values[parameter.range.clone()], &mut file);
            NamedParameter { name: parameter.name.clone(), shape: parameter.tensor.shape.clone(), values: file }
        });
        tensors.collect()
    }

    /// Writes all parameters, atomically.
    pub fn save_parameters(
        &self,
        path: impl AsRef<Path>,
        values: &[f32],
        dtype: Dtype,
        metadata: &[(String, String)],
    ) -> Result<()> {
        let tensors = self.named(values);
        let named: Vec<Named<'_>> =
            tensors.iter().map(|t| Named { name: &t.name, shape: &t.shape, dtype, data: &t.values }).collect();
        crate::weights::write(path, &named, metadata)
    }
}

/// Whether a tensor of a file can be used as a parameter: of the same shape, or a linear layer's weights for a convolution over
/// all of its input, whose values are in the same order.
fn fits(file: &[usize], parameter: &[usize]) -> bool {
    file == parameter
        || matches!((file, parameter), ([o, i], [filters, c, h, w]) if o == filters && Some(*i) == c.checked_mul(h * w))
}

/// The first few of a list of names.
fn list(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = names.iter().take(SHOWN).cloned().collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text += &format!(" and {} more", names.len() - SHOWN);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::{LayerSpec, Spec};
    use super::*;

    #[test]
    fn tensors_that_file_and_net_do_not_share_are_named() {
        let text = "name = 'n'\ninput = [1, 2, 2]\n[[layer]]\nname = 'fc'\ntype = 'linear'\noutputs = 3";
        let trunk = Spec::parse(text, "net.toml").unwrap();
        let with = |head: &str| {
            Net::new(trunk.clone().with([LayerSpec::new(head, "linear", "outputs = 2").unwrap()])).unwrap()
        };
        let (old, new, trunk) = (with("old"), with("new"), Net::new(trunk.clone()).unwrap());
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("w.safetensors");
        let saved = old.initial_parameters(1);
        old.save_parameters(&path, &saved, Dtype::F32, &[]).unwrap();

        let shared = trunk.parameter_len();
        let loaded = trunk.load_parameters(&path, Unknown::Ignore).unwrap();
        assert_eq!((&loaded.values[..], &loaded.missing[..]), (&saved[..shared], &[][..]));
        assert_eq!(loaded.ignored, ["old.weight", "old.bias"]);
        let refusal = trunk.load_parameters(&path, Unknown::Refuse).unwrap_err().to_string();
        assert!(refusal.contains("holds old.weight, old.bias, which the net does not have"), "{refusal}");

        let start = new.initial_parameters(2);
        let loaded = new.read_parameters(&TensorFile::open(&path).unwrap(), start.clone()).unwrap();
        assert_eq!(loaded.values, [&saved[..shared], &start[shared..]].concat());
        assert_eq!(loaded.ignored, ["old.weight", "old.bias"]);
        assert_eq!(loaded.missing, ["new.weight", "new.bias"]);
    }

    #[test]
    fn scales_start_as_one_and_biases_as_zero() {
        let text = "name = 'n'\ninput = [2, 3, 3]\n[[layer]]\nname = 'c'\ntype = 'conv'\nfilters = 2\nkernel = 1\n\
            [[layer]]\nname = 'g'\ntype = 'group_norm'\ngroups = 1";
        let values = Net::new(Spec::parse(text, "test").unwrap()).unwrap().initial_parameters(1);
        assert!(values[..4].iter().all(|weight| *weight != 0.0));
        assert_eq!(values[4..], [0.0, 0.0, 1.0, 1.0, 0.0, 0.0]);
    }
}

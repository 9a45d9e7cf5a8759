//! From a description to a graph of operations bound to shapes. Values are numbered: 0 is the input, 1 + i the output of
//! layer i. Layers are listed in an order in which each reads only earlier values.

use super::Spec;
use crate::ops::{OPERATIONS, Operation, Parameter, Shape, TargetKind, Targets};
use crate::settings::Mistake;
use crate::shipped::Source;
use crate::{Error, Result};
use std::borrow::Cow;
use std::ops::Range;

/// The value that is the network's input.
pub const INPUT: usize = 0;

/// Values of one tensor or of all parameters beyond which a net is assumed to be wrong: 8 GB of f32.
const LARGEST: u128 = 1 << 31;

/// A bound network; independent of batch size, device and parameter values.
///
/// ```
/// use weft::net::Net;
///
/// let net = Net::load("nets/anet.toml")?;
/// assert_eq!(net.spec.input.to_string(), "3x88x88");
/// println!("{} parameters, {:.1} MFLOP a patch", net.parameter_len(), net.flops() as f64 / 1e6);
/// # Ok::<(), weft::Error>(())
/// ```
#[derive(Debug)]
pub struct Net {
    /// The description that it was built from.
    pub spec: Spec,
    /// In execution order.
    pub layers: Vec<Layer>,
    /// All parameter tensors, in the order of the flat parameter vector.
    pub parameters: Vec<NetParameter>,
}

/// One bound layer.
#[derive(Debug)]
pub struct Layer {
    /// As in the file.
    pub name: String,
    /// The `type` of the file.
    pub kind: String,
    /// The operation, bound to its shapes.
    pub op: Box<dyn Operation>,
    /// Values it reads.
    pub inputs: Vec<usize>,
    /// Shape of its output for one sample.
    pub shape: Shape,
    /// Its tensors in [`Net::parameters`].
    pub parameters: Range<usize>,
}

/// A parameter tensor of a net.
#[derive(Debug)]
pub struct NetParameter {
    /// `<layer>.weight` or `<layer>.bias`.
    pub name: String,
    /// Index of its layer.
    pub layer: usize,
    /// Shape and order of its values.
    pub tensor: Parameter,
    /// Its range in the flat parameter vector, in values.
    pub range: Range<usize>,
}

impl Net {
    /// Reads and binds a network file.
    pub fn load(source: impl Into<Source>) -> Result<Self> {
        Self::new(Spec::load(source)?)
    }

    /// Binds a description to its input's shape.
    ///
    /// # Errors
    /// File, layer and the shapes that do not fit.
    pub fn new(spec: Spec) -> Result<Self> {
        spec.check()?;
        let mut net = Self { layers: Vec::new(), parameters: Vec::new(), spec };
        let mut end = 0;
        for index in 0..net.spec.layers.len() {
            let layer = net.bind(index).map_err(|mistake| net.spec.mistake(index, &mistake))?;
            let first = net.parameters.len();
            for tensor in layer.op.parameters() {
                let name = format!("{}.{}", layer.name, tensor.suffix);
                let len = checked(&tensor.shape).filter(|len| end as u128 + *len as u128 <= LARGEST);
                let Some(len) = len else {
                    return Err(Error::network(
                        net.spec.place_of(&layer.name),
                        format!("{name} of shape {:?} is too large", tensor.shape),
                    )
                    .advise("a net may have 2^31 parameters"));
                };
                net.parameters.push(NetParameter { name, layer: index, tensor, range: end..end + len });
                end += len;
            }
            net.layers.push(Layer { parameters: first..net.parameters.len(), ..layer });
        }
        Ok(net)
    }

    fn bind(&self, index: usize) -> Result<Layer, Mistake> {
        let spec = &self.spec.layers[index];
        let inputs = match &spec.from {
            None => vec![index],
            Some(names) if names.is_empty() => return Err(Mistake::at("from", "is empty; name a layer")),
            Some(names) => names.iter().map(|name| self.value(name, index)).collect::<Result<Vec<usize>, String>>()?,
        };
        if let Some(loss) = inputs.iter().find(|&&v| v > 0 && self.layers[v - 1].op.target().is_some()) {
            return Err(format!("reads `{}`, but nothing may follow a loss", self.layers[loss - 1].name).into());
        }
        let shapes: Vec<Shape> = inputs.iter().map(|&value| self.shape(value)).collect();
        let build = OPERATIONS.iter().find(|(name, ..)| *name == spec.kind).map(|(_, build, _)| build);
        let build = build.ok_or_else(|| format!("unknown type `{}`", spec.kind))?;
        let op = build(spec.keys.clone(), &shapes)?;
        let shape = op.output();
        if checked(&[shape.c, shape.h, shape.w]).is_none() {
            return Err(format!("its output {shape} is too large").into());
        }
        Ok(Layer { name: spec.name.clone(), kind: spec.kind.clone(), op, inputs, shape, parameters: 0..0 })
    }

    /// The operation of a layer, for inputs of other shapes.
    ///
    /// # Errors
    /// Shapes that do not fit.
    pub fn rebind(&self, layer: usize, inputs: &[Shape]) -> Result<Box<dyn Operation>> {
        let spec = &self.spec.layers[layer];
        let (_, build, _) = OPERATIONS
            .iter()
            .find(|(name, ..)| *name == spec.kind)
            .ok_or_else(|| Error::network(self.spec.place_of(&spec.name), format!("unknown type `{}`", spec.kind)))?;
        build(spec.keys.clone(), inputs).map_err(|mistake| self.spec.mistake(layer, &mistake))
    }

    /// The value named `name`, as resolved by layer `index`.
    fn value(&self, name: &str, index: usize) -> Result<usize, String> {
        if name == "input" {
            return Ok(INPUT);
        }
        match self.spec.layers.iter().position(|l| l.name == name) {
            Some(position) if position < index => Ok(position + 1),
            Some(_) => Err(format!("reads `{name}`, which does not stand above it")),
            None => Err(format!("reads `{name}`, which does not exist")),
        }
    }

    /// The same network for inputs of another height and width.
    ///
    /// # Errors
    /// A layer that does not fit (the weights of linear layers change shape).
    pub fn at_size(&self, height: usize, width: usize) -> Result<Self> {
        let mut spec = self.spec.clone();
        spec.input = Shape::new(spec.input.c, height, width);
        let net = Self::new(spec)?;
        for (ours, theirs) in net.parameters.iter().zip(&self.parameters) {
            if ours.tensor.shape != theirs.tensor.shape {
                return Err(Error::network(
                    net.spec.place_of(&net.layers[ours.layer].name),
                    format!(
                        "{} would be {:?} instead of {:?} for an input of {height} x {width}",
                        ours.name, ours.tensor.shape, theirs.tensor.shape
                    ),
                )
                .advise(format!("this layer needs the size that the net was made for, {}", self.spec.input)));
            }
        }
        Ok(net)
    }

    /// Shape of one sample of a value.
    pub fn shape(&self, value: usize) -> Shape {
        if value == INPUT { self.spec.input } else { self.layers[value - 1].shape }
    }

    /// Number of values of a value for `n` samples: a loss has one for the whole batch.
    pub fn value_len(&self, value: usize, n: usize) -> usize {
        match value.checked_sub(1) {
            Some(layer) if self.layers[layer].op.target().is_some() => 1,
            _ => n * self.shape(value).len(),
        }
    }

    /// Shape of the last layer's output.
    pub fn output(&self) -> Shape {
        self.shape(self.layers.len())
    }

    /// Index of a layer.
    pub fn position(&self, layer: &str) -> Result<usize> {
        self.spec.position(layer)
    }

    /// Checks that `targets` fit the losses of a batch of `n` samples.
    ///
    /// # Errors
    /// The loss, and what it needs.
    pub fn check_targets(&self, n: usize, targets: Targets<'_>) -> Result<()> {
        for layer in &self.layers {
            let Some(kind) = layer.op.target() else { continue };
            let place = || self.spec.place_of(&layer.name);
            let (found, needed) = match kind {
                TargetKind::Classes { per_sample, .. } => (targets.classes.len(), per_sample * n),
                TargetKind::Identities => (targets.classes.len(), n),
                TargetKind::Values { per_sample } => (targets.values.len(), per_sample * n),
            };
            if found != needed {
                return Err(Error::network(place(), format!("has {found} targets, but needs {needed}")));
            }
            if let TargetKind::Classes { below, .. } = kind
                && let Some(class) = targets.classes.iter().find(|class| **class as usize >= below)
            {
                return Err(Error::network(
                    place(),
                    format!("target class {class}, but there are only {below} classes"),
                ));
            }
        }
        Ok(())
    }

    /// The gradient of layer `layer`'s output that a backward pass over `n` samples begins with: the cotangent, or 1 for
    /// a loss.
    ///
    /// # Errors
    /// A cotangent of the wrong length, or none where the layer is not a loss.
    pub(super) fn seed<'a>(&self, layer: usize, n: usize, cotangent: Option<&'a [f32]>) -> Result<Cow<'a, [f32]>> {
        let place = || self.spec.place_of(&self.layers[layer].name);
        let needed = self.value_len(layer + 1, n);
        match cotangent {
            Some(cotangent) if cotangent.len() == needed => Ok(Cow::Borrowed(cotangent)),
            Some(cotangent) => {
                let found = cotangent.len();
                Err(Error::network(place(), format!("the cotangent has {found} values, but the output {needed}")))
            }
            None if self.layers[layer].op.target().is_some() => Ok(Cow::Owned(vec![1.0])),
            None => {
                Err(Error::network(place(), "is no loss, and no cotangent is given")
                    .advise("give one, or end with a loss"))
            }
        }
    }

    /// Length of the flat parameter vector.
    pub fn parameter_len(&self) -> usize {
        self.parameters.last().map_or(0, |p| p.range.end)
    }

    /// Floating-point operations of forward for one sample.
    pub fn flops(&self) -> u64 {
        self.layers.iter().fold(0, |sum: u64, layer| sum.saturating_add(layer.op.flops()))
    }
}

/// The product, if it is within limits.
fn checked(sizes: &[usize]) -> Option<usize> {
    let product = sizes.iter().try_fold(1u128, |product, &size| {
        let product = product * size as u128;
        (product <= LARGEST).then_some(product)
    })?;
    usize::try_from(product).ok()
}

//! `weft run`: a network on tensors from a file, for comparison with other frameworks.

use crate::memory;
use crate::net::{INPUT, Layer, Net, Parameters, Purpose, Session};
use crate::ops::{Mode, Shape, TargetKind, Targets, nchw_to_nhwc, nhwc_to_nchw};
use crate::shipped::Source;
use crate::weights::{TensorFile, TensorWriter, keep_inputs};
use crate::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Run a network on tensors from a file and write every layer's output.
#[derive(clap::Args)]
pub struct Args {
    #[arg(value_parser = super::net(), help = super::NET)]
    net: Source,
    /// Parameters: LAYER.weight and LAYER.bias; a built-in net has its own by default
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// safetensors with `input` [N, C, H, W]; `target` for a loss; `cotangent` with --grad
    #[arg(long)]
    input: PathBuf,
    /// Receives one tensor per layer, and with --grad `grad.input` and `grad.<parameter>`
    #[arg(long)]
    output: PathBuf,
    /// Back-propagate `cotangent` (for a loss: 1 by default)
    #[arg(long)]
    grad: bool,
    #[command(flatten)]
    device: super::DeviceArgs,
}

impl Args {
    pub fn usage(&self) -> Result<(), clap::Error> {
        super::weights(self.weights.as_ref(), &self.net).map(drop).map_err(super::missing)
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let weights = super::weights(args.weights.as_ref(), &args.net)?;
    keep_inputs("--output", &args.output, [args.net.path(), weights.path(), Some(&args.input)].into_iter().flatten())?;
    let device = args.device.open()?;
    let file = TensorFile::open(&args.input)?;
    let input = file.require("input")?;
    // For inputs that do not fit the net: sizes, targets, the cotangent.
    let at_input = |e: Error| e.within(args.input.display());
    let &[n, c, h, w] = input.shape.as_slice() else {
        return Err(input.error(format!("has shape {:?}", input.shape)).advise("`input` must be [N, C, H, W]"));
    };
    let mut net = Net::load(&args.net)?;
    if c != net.spec.input.c {
        return Err(input.error(format!("has {c} channels, but {} needs {}", net.spec.place, net.spec.input.c)));
    }
    if (h, w) != (net.spec.input.h, net.spec.input.w) {
        net = net.at_size(h, w).map_err(at_input)?;
    }
    let net = Arc::new(net);
    let purpose = if args.grad { Purpose::Differentiation } else { Purpose::Inspection };
    // In addition to the session: the batch as given, a layer's output and its transpose, targets, a cotangent, the parameters
    // twice, and gradients as they are written.
    let copies = if args.grad { 3 } else { 2 };
    net.fit(format!("{}: a batch of {n}", args.input.display()), &device, n, purpose, |n| {
        let largest = (0..=net.layers.len()).map(|value| net.shape(value).len() as u128).max().unwrap_or(0);
        net.batch_bytes(n) + 8 * n as u128 * largest + 2 * net.answer_bytes(n) + copies * net.parameter_bytes()
    })?;
    let parameters = net.load_parameters(&weights, super::unknown(&weights))?.values;
    let targets = read_targets(&net, &file, n)?;
    let targets = Targets { classes: &targets.0, values: &targets.1 };

    let parameters = Parameters::on(&device, &net, parameters)?;
    let mut session = Session::new(net.clone(), &parameters, n, purpose).map_err(at_input)?;
    nchw_to_nhwc(net.spec.input, &input.to_f32()?, session.input());
    session.forward(Mode::Inference, targets).map_err(at_input)?;

    let shapes = tensors(&net, n, args.grad);
    let named: Vec<(&str, &[usize])> = shapes.iter().map(|(name, shape)| (name.as_str(), shape.as_slice())).collect();
    let mut output = TensorWriter::create(&args.output, &named)?;
    for (l, layer) in net.layers.iter().enumerate() {
        let value = session.value(l)?;
        match layer.op.target() {
            Some(_) => output.push(&value)?,
            None => output.push(&transposed(layer.shape, &value)?)?,
        }
    }
    if args.grad {
        let shape = net.output();
        let cotangent = match file.get("cotangent") {
            Some(tensor) => {
                let values = tensor.to_f32()?;
                let mut nhwc = memory::zeroed(values.len(), "the cotangent")?;
                if values.len() == net.value_len(net.layers.len(), n) && values.len() == n * shape.len() {
                    nchw_to_nhwc(shape, &values, &mut nhwc)
                } else {
                    nhwc.copy_from_slice(&values)
                }
                Some(nhwc)
            }
            None => None,
        };
        session.backward(cotangent.as_deref()).map_err(at_input)?;
        match session.input_gradient()? {
            Some(gradient) => output.push(&transposed(net.spec.input, &gradient)?)?,
            // No layer connects the input to the output.
            None => output.push(&memory::zeroed::<f32>(net.value_len(INPUT, n), "grad.input")?)?,
        }
        for gradient in net.named(&session.gradients()?) {
            output.push(&gradient.values)?;
        }
    }
    output.finish()?;
    Ok(ExitCode::SUCCESS)
}

/// Names and shapes of the tensors that are written, in order.
fn tensors(net: &Net, n: usize, grad: bool) -> Vec<(String, Vec<usize>)> {
    let map = |name: String, shape: Shape| (name, vec![n, shape.c, shape.h, shape.w]);
    let layer = |layer: &Layer| match layer.op.target() {
        Some(_) => (layer.name.clone(), vec![1]),
        None => map(layer.name.clone(), layer.shape),
    };
    let mut tensors: Vec<_> = net.layers.iter().map(layer).collect();
    if grad {
        tensors.push(map("grad.input".into(), net.spec.input));
        let parameters = net.parameters.iter();
        tensors.extend(parameters.map(|p| (format!("grad.{}", p.name), p.tensor.shape.clone())));
    }
    tensors
}

/// A value transposed to NCHW.
fn transposed(shape: Shape, nhwc: &[f32]) -> Result<Vec<f32>> {
    let mut nchw = memory::zeroed(nhwc.len(), "an output")?;
    nhwc_to_nchw(shape, nhwc, &mut nchw);
    Ok(nchw)
}

/// Reads `target` in the form that the loss expects: class indices, or values in the activations' order.
fn read_targets(net: &Net, file: &TensorFile, n: usize) -> Result<(Vec<u32>, Vec<f32>)> {
    let (mut classes, mut values) = (Vec::new(), Vec::new());
    for layer in &net.layers {
        let Some(kind) = layer.op.target() else { continue };
        let target = file.require("target")?;
        let given = target.to_f32()?;
        match kind {
            TargetKind::Values { per_sample } if given.len() == n * per_sample => {
                values = memory::zeroed(given.len(), "targets")?;
                nchw_to_nhwc(net.shape(layer.inputs[0]), &given, &mut values);
            }
            TargetKind::Values { .. } => values = given.to_vec(),
            TargetKind::Classes { .. } | TargetKind::Identities => {
                // NaN is outside every range.
                let is_class = |v: &f32| (0.0..=1e9).contains(v) && v.fract() == 0.0;
                if let Some(bad) = given.iter().find(|v| !is_class(v)) {
                    return Err(target.error(format!("{bad} is no class index")).advise("use 0, 1, 2, ..."));
                }
                classes = given.iter().map(|v| *v as u32).collect();
            }
        }
    }
    Ok((classes, values))
}

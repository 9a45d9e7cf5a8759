//! `weft run`: a network on tensors from a file, for comparing with other frameworks.

use crate::device::Device;
use crate::net::{GpuParameters, GpuSession, Net, Purpose, Session, Unknown};
use crate::ops::{Mode, Shape, TargetKind, Targets, nchw_to_nhwc, nhwc_to_nchw};
use crate::weights::{Dtype, Named, TensorFile, write};
use crate::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

/// Run a network on tensors from a file and write every layer's output.
#[derive(clap::Args)]
pub struct Args {
    /// Network description
    net: PathBuf,
    /// Parameters: <layer>.weight and <layer>.bias
    #[arg(long)]
    weights: PathBuf,
    /// safetensors with `input` [N, C, H, W]; `target` for a loss; `cotangent` with --grad
    #[arg(long)]
    input: PathBuf,
    /// Gets one tensor per layer, and with --grad `grad.input` and `grad.<parameter>`
    #[arg(long)]
    output: PathBuf,
    /// Back-propagate `cotangent` (a loss: 1 by default)
    #[arg(long)]
    grad: bool,
    #[command(flatten)]
    device: super::DeviceArgs,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let device = args.device.open()?;
    let file = TensorFile::open(&args.input)?;
    let input = file.require("input")?;
    // For what does not fit the net: sizes, targets, the cotangent.
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
    let parameters = net.load_parameters(&args.weights, Unknown::Refuse)?;
    let targets = read_targets(&net, &file, n)?;
    let targets = Targets { classes: &targets.0, values: &targets.1 };

    let purpose = if args.grad { Purpose::Differentiation } else { Purpose::Inspection };
    let mut session = Pass::new(&device, net.clone(), n, purpose, parameters).map_err(at_input)?;
    let mut nhwc = vec![0.0; n * net.spec.input.len()];
    nchw_to_nhwc(net.spec.input, &input.to_f32()?, &mut nhwc);
    session.forward(&nhwc, targets).map_err(at_input)?;

    let mut outputs: Vec<(String, Vec<usize>, Vec<f32>)> = Vec::new();
    for (l, layer) in net.layers.iter().enumerate() {
        outputs.push(match layer.op.target() {
            Some(_) => (layer.name.clone(), vec![1], session.value(l)?),
            None => named(layer.name.clone(), n, layer.shape, &session.value(l)?),
        });
    }
    if args.grad {
        let shape = net.output();
        let cotangent = match file.get("cotangent") {
            Some(tensor) => {
                let values = tensor.to_f32()?;
                let mut nhwc = vec![0.0; values.len()];
                if values.len() == n * shape.len() {
                    nchw_to_nhwc(shape, &values, &mut nhwc)
                } else {
                    nhwc.copy_from_slice(&values)
                }
                Some(nhwc)
            }
            None => None,
        };
        let (gradients, input_gradient) = session.backward(targets, cotangent.as_deref()).map_err(at_input)?;
        let input_gradient = match input_gradient {
            Some(gradient) => named("grad.input".into(), n, net.spec.input, &gradient),
            // No layer leads from the input to the output.
            None => ("grad.input".into(), vec![n, c, h, w], vec![0.0; n * net.spec.input.len()]),
        };
        outputs.push(input_gradient);
        for gradient in net.named(&gradients) {
            outputs.push((format!("grad.{}", gradient.name), gradient.shape, gradient.values));
        }
    }
    let tensors: Vec<Named<'_>> =
        outputs.iter().map(|(name, shape, data)| Named { name, shape, dtype: Dtype::F32, data }).collect();
    write(&args.output, &tensors, &[])?;
    Ok(ExitCode::SUCCESS)
}

/// A forward and a backward pass on either kind of device.
enum Pass {
    Cpu { session: Session, parameters: Vec<f32> },
    Gpu(Box<GpuSession>),
}

impl Pass {
    fn new(device: &Device, net: Arc<Net>, n: usize, purpose: Purpose, parameters: Vec<f32>) -> Result<Self> {
        Ok(match device {
            Device::Cpu => Self::Cpu { session: Session::new(net, n, purpose)?, parameters },
            Device::Gpu(gpu) => {
                let parameters = Arc::new(GpuParameters::new(gpu, &net, &parameters)?);
                Self::Gpu(Box::new(GpuSession::new(net, parameters, n, purpose)?))
            }
        })
    }

    fn forward(&mut self, input: &[f32], targets: Targets<'_>) -> Result<()> {
        match self {
            Self::Cpu { session, parameters } => {
                session.input().copy_from_slice(input);
                session.forward(parameters, Mode::Inference, targets)
            }
            Self::Gpu(session) => {
                session.set_input(input)?;
                session.forward(Mode::Inference, targets)
            }
        }
    }

    fn value(&self, layer: usize) -> Result<Vec<f32>> {
        match self {
            Self::Cpu { session, .. } => Ok(session.value(layer).to_vec()),
            Self::Gpu(session) => session.value(layer),
        }
    }

    /// Gradients of the parameters, and of the input if it has one.
    fn backward(&mut self, targets: Targets<'_>, cotangent: Option<&[f32]>) -> Result<(Vec<f32>, Option<Vec<f32>>)> {
        match self {
            Self::Cpu { session, parameters } => {
                let mut gradients = vec![0.0; parameters.len()];
                session.backward(parameters, Mode::Inference, targets, cotangent, &mut gradients)?;
                Ok((gradients, session.input_gradient().map(<[f32]>::to_vec)))
            }
            Self::Gpu(session) => {
                session.backward(Mode::Inference, cotangent)?;
                Ok((session.gradients()?, session.input_gradient()?))
            }
        }
    }
}

/// A value in NCHW; `[n, c]` where the map is 1 x 1 comes out as `[n, c, 1, 1]` only if the layer keeps maps.
fn named(name: String, n: usize, shape: Shape, nhwc: &[f32]) -> (String, Vec<usize>, Vec<f32>) {
    let mut nchw = vec![0.0; nhwc.len()];
    nhwc_to_nchw(shape, nhwc, &mut nchw);
    (name, vec![n, shape.c, shape.h, shape.w], nchw)
}

/// Reads `target` as the loss wants it: class indices, or values in the activations' order.
fn read_targets(net: &Net, file: &TensorFile, n: usize) -> Result<(Vec<u32>, Vec<f32>)> {
    let (mut classes, mut values) = (Vec::new(), Vec::new());
    for layer in &net.layers {
        let Some(kind) = layer.op.target() else { continue };
        let target = file.require("target")?;
        let given = target.to_f32()?;
        match kind {
            TargetKind::Values { per_sample } if given.len() == n * per_sample => {
                values = vec![0.0; given.len()];
                nchw_to_nhwc(net.shape(layer.inputs[0]), &given, &mut values);
            }
            TargetKind::Values { .. } => values = given.to_vec(),
            TargetKind::Classes { .. } | TargetKind::Identities => {
                // NaN is in no range.
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

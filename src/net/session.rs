//! Passes over batches of one size, on any device.

use super::cpu::CpuPass;
use super::gpu::GpuPass;
#[cfg(feature = "face")]
use super::gpu::PassOnGpu;
use super::stored::Location;
use super::{InputForm, Net, Parameters, Plan, Purpose};
use crate::device::{Attributes, Launch, Work};
use crate::ops::{Kind, Mode, Targets};
use crate::{Error, Result, trace};
use std::borrow::Cow;
use std::sync::Arc;
use std::time::Instant;

/// Forward and backward passes of a net over batches of `n` samples. Creates its memory plan and, on a GPU, its launches once;
/// a pass allocates nothing.
///
/// ```
/// use std::sync::Arc;
/// use weft::device::Device;
/// use weft::net::{Net, Parameters, Purpose, Session, Spec};
///
/// let text = r#"
///     name = "edges"
///     input = [3, 8, 8]
///     [[layer]]
///     name = "conv"
///     type = "conv"
///     filters = 4
///     kernel = 3
/// "#;
/// let net = Arc::new(Net::new(Spec::parse(text, "edges.toml")?)?);
/// let parameters = Parameters::on(&Device::Cpu, &net, net.initial_parameters(1))?;
/// let mut session = Session::new(net, &parameters, 2, Purpose::Inference)?;
/// session.set_input(&[0.5; 2 * 8 * 8 * 3])?;
/// assert_eq!(session.infer()?.len(), 2 * 6 * 6 * 4);
/// # Ok::<(), weft::Error>(())
/// ```
pub struct Session {
    net: Arc<Net>,
    parameters: Parameters,
    pass: Pass,
    /// Mode and targets of the last forward pass, which its backward pass needs as well.
    last: Option<Last>,
}

enum Pass {
    Cpu(Box<CpuPass>),
    Gpu(Box<GpuPass>),
}

struct Last {
    mode: Mode,
    classes: Vec<u32>,
    values: Vec<f32>,
}

impl Last {
    fn targets(&self) -> Targets<'_> {
        Targets { classes: &self.classes, values: &self.values }
    }
}

/// One thing that is timed separately: a launch on a GPU, a layer's pass on the CPU.
#[derive(Debug, Clone)]
pub struct Timed {
    /// The kernel; on the CPU the layer's type.
    pub kernel: String,
    /// Name of the layer.
    pub layer: String,
    /// Whether it belongs to the backward pass.
    pub is_backward: bool,
    /// FLOPs and bytes of one run.
    pub work: Work,
    /// On a GPU.
    pub launch: Option<Launch>,
    /// Resource usage of the compiled kernel, if the driver reports it.
    pub attributes: Option<Attributes>,
}

impl Session {
    /// Plans passes over `n` samples and allocates their memory.
    ///
    /// # Errors
    /// Parameters of another net; out of memory: how much is needed and how much is free, and the largest batch that would fit.
    pub fn new(net: Arc<Net>, parameters: &Parameters, n: usize, purpose: Purpose) -> Result<Self> {
        parameters.check(&net)?;
        let pass = match parameters.location() {
            Location::Cpu(values) => Pass::Cpu(Box::new(CpuPass::new(net.clone(), values.clone(), n, purpose)?)),
            Location::Gpu(stored) => Pass::Gpu(Box::new(GpuPass::new(net.clone(), stored.clone(), n, purpose)?)),
        };
        Ok(Self { net, parameters: parameters.clone(), pass, last: None })
    }

    /// The net that it runs.
    pub fn net(&self) -> &Arc<Net> {
        &self.net
    }

    /// The parameters that it reads.
    pub fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The memory plan; on a GPU, of its device memory.
    pub fn plan(&self) -> &Plan {
        match &self.pass {
            Pass::Cpu(pass) => pass.plan(),
            Pass::Gpu(pass) => pass.plan(),
        }
    }

    /// Samples of a batch.
    pub fn samples(&self) -> usize {
        self.plan().n
    }

    /// The form of the [`super::Input`] of its whole steps of training ([`super::Steps`]).
    pub fn input_form(&self) -> InputForm {
        match &self.pass {
            Pass::Cpu(_) => InputForm::new(self.samples(), self.net.spec.input, self.net.spec.normalise, false),
            Pass::Gpu(pass) => pass.form(),
        }
    }

    /// The batch, `[n, h, w, c]`: write all of it before each forward pass, which may reuse its memory for other buffers.
    pub fn input(&mut self) -> &mut [f32] {
        match &mut self.pass {
            Pass::Cpu(pass) => pass.input(),
            Pass::Gpu(pass) => pass.input(),
        }
    }

    /// Sets the batch, `[n, h, w, c]`.
    ///
    /// # Errors
    /// A batch of another length.
    pub fn set_input(&mut self, batch: &[f32]) -> Result<()> {
        let (n, shape) = (self.samples(), self.net.spec.input);
        let input = self.input();
        if batch.len() != input.len() {
            let (given, needed) = (batch.len(), input.len());
            let found = format!("a batch of {given} values is given, but {n} samples of {shape} have {needed}");
            return Err(Error::network(&self.net.spec.place, found));
        }
        input.copy_from_slice(batch);
        Ok(())
    }

    /// Runs all layers on the batch in [`Session::input`].
    ///
    /// # Errors
    /// Targets that do not fit the losses; a launch that failed.
    pub fn forward(&mut self, mode: Mode, targets: Targets<'_>) -> Result<()> {
        self.start(mode, targets)?;
        trace::count(|counts| counts.passes += 1);
        match &mut self.pass {
            Pass::Cpu(pass) => pass.forward(mode, targets, |_| ()),
            Pass::Gpu(pass) => pass.forward(mode, targets)?,
        }
        Ok(())
    }

    /// A forward pass without targets, on the batch in [`Session::input`]: the output of the last layer, `[n, h, w, c]`.
    ///
    /// # Errors
    /// A net with a loss, which needs targets; a launch that failed.
    pub fn infer(&mut self) -> Result<Cow<'_, [f32]>> {
        self.forward(Mode::Inference, Targets::default())?;
        self.output()
    }

    /// Keeps what a backward pass will need.
    pub(super) fn start(&mut self, mode: Mode, targets: Targets<'_>) -> Result<()> {
        self.net.check_targets(self.samples(), targets)?;
        if self.plan().purpose.is_backward() {
            let last = self.last.get_or_insert_with(|| Last { mode, classes: Vec::new(), values: Vec::new() });
            last.mode = mode;
            last.classes.clear();
            last.classes.extend_from_slice(targets.classes);
            last.values.clear();
            last.values.extend_from_slice(targets.values);
        }
        Ok(())
    }

    /// Gradients of the sum of all losses, or of the last layer's output times `cotangent` (`[n, h, w, c]`), of the last
    /// forward pass.
    ///
    /// # Errors
    /// No previous forward pass; a session for forward passes only; a cotangent of the wrong length, or none where the last
    /// layer is not a loss; a launch that failed.
    pub fn backward(&mut self, cotangent: Option<&[f32]>) -> Result<()> {
        let last = self.last.as_ref().ok_or_else(|| {
            Error::network(&self.net.spec.place, "there is no forward pass to go back from")
                .advise("make the session for training or differentiation, and run forward first")
        })?;
        match &mut self.pass {
            Pass::Cpu(pass) => pass.backward(last.mode, last.targets(), cotangent, |_| ()),
            Pass::Gpu(pass) => pass.backward(last.mode, cotangent),
        }
    }

    /// Gradients of `scale` times the sum of all losses of the last forward pass, on a GPU.
    ///
    /// # Errors
    /// As [`Session::backward`].
    pub(super) fn backward_scaled(&mut self, scale: f32) -> Result<()> {
        match (&mut self.pass, &self.last) {
            (Pass::Gpu(pass), Some(last)) => pass.backward_scaled(last.mode, scale),
            // Without a forward pass, its error.
            _ => self.backward(None),
        }
    }

    /// Output of layer `layer`, `[n, h, w, c]`; a loss is one value. Outputs that no layer reads are available after forward,
    /// the others only if the purpose keeps them.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn value(&self, layer: usize) -> Result<Cow<'_, [f32]>> {
        match &self.pass {
            Pass::Cpu(pass) => Ok(Cow::Borrowed(pass.value(layer))),
            Pass::Gpu(pass) => pass.value(layer).map(Cow::Owned),
        }
    }

    /// Output of the last layer, `[n, h, w, c]`.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn output(&self) -> Result<Cow<'_, [f32]>> {
        self.value(self.net.layers.len() - 1)
    }

    /// Sum of all losses.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn loss(&self) -> Result<f32> {
        let losses = self.net.layers.iter().enumerate().filter(|(_, layer)| layer.op.target().is_some());
        losses.map(|(l, _)| Ok(self.value(l)?[0])).sum()
    }

    /// Gradient of the input, `[n, h, w, c]`, if the purpose is differentiation.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn input_gradient(&self) -> Result<Option<Cow<'_, [f32]>>> {
        match &self.pass {
            Pass::Cpu(pass) => Ok(pass.input_gradient().map(Cow::Borrowed)),
            Pass::Gpu(pass) => Ok(pass.input_gradient()?.map(Cow::Owned)),
        }
    }

    /// Gradients of the parameters of the last backward pass, as one flat vector; empty in a session for forward passes only.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn gradients(&self) -> Result<Cow<'_, [f32]>> {
        match &self.pass {
            Pass::Cpu(pass) => Ok(Cow::Borrowed(pass.gradients())),
            Pass::Gpu(pass) if !pass.plan().purpose.is_backward() => Ok(Cow::Borrowed(&[])),
            Pass::Gpu(pass) => pass.gradients().map(Cow::Owned),
        }
    }

    /// Replaces the gradients of the parameters, which an optimizer uses next.
    ///
    /// # Errors
    /// A vector of another length; a session for forward passes only; a launch that failed.
    pub fn set_gradients(&mut self, gradients: &[f32]) -> Result<()> {
        let needed = if self.plan().purpose.is_backward() { self.net.parameter_len() } else { 0 };
        if gradients.len() != needed {
            let found = format!("{} gradients are given, but the session has {needed}", gradients.len());
            return Err(Error::network(&self.net.spec.place, found));
        }
        match &mut self.pass {
            Pass::Cpu(pass) => pass.gradients_mut().copy_from_slice(gradients),
            Pass::Gpu(pass) => pass.set_gradients(gradients)?,
        }
        Ok(())
    }

    /// The flat gradients on the CPU.
    pub(super) fn cpu_gradients(&self) -> Option<&[f32]> {
        match &self.pass {
            Pass::Cpu(pass) => Some(pass.gradients()),
            Pass::Gpu(_) => None,
        }
    }

    pub(super) fn gpu_pass(&self) -> Option<&GpuPass> {
        match &self.pass {
            Pass::Cpu(_) => None,
            Pass::Gpu(pass) => Some(pass),
        }
    }

    pub(super) fn gpu_pass_mut(&mut self) -> Option<&mut GpuPass> {
        match &mut self.pass {
            Pass::Cpu(_) => None,
            Pass::Gpu(pass) => Some(pass),
        }
    }

    /// Waits until the device has finished all submitted work.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn synchronize(&self) -> Result<()> {
        self.gpu_pass().map_or(Ok(()), GpuPass::synchronize)
    }

    /// Its forward pass as a part of a larger program on a GPU, without the cast of an input in f32; `None` on the CPU.
    #[cfg(feature = "face")]
    pub(crate) fn on_gpu(&self) -> Option<PassOnGpu<'_>> {
        self.gpu_pass().map(GpuPass::part)
    }

    /// The launches of a forward and a backward pass; none on the CPU.
    pub fn launches(&self, training: bool) -> [&[Launch]; 2] {
        self.gpu_pass().map_or([&[], &[]], |pass| pass.launches(training))
    }

    /// What [`Session::time`] times of a pass in `mode`, in execution order.
    ///
    /// # Errors
    /// A kernel that the GPU code lacks.
    pub fn timed(&self, mode: Mode) -> Result<Vec<Timed>> {
        let is_backward = self.plan().purpose.is_backward();
        let Pass::Gpu(pass) = &self.pass else {
            let layers = self.net.layers.len();
            let forward = (0..layers).map(|l| self.timed_layer(l, false));
            let backward = (0..layers).rev().filter(|_| is_backward).map(|l| self.timed_layer(l, true));
            return Ok(forward.chain(backward).collect());
        };
        let [forward, backward] = pass.launches(mode != Mode::Inference);
        let launches = forward.iter().map(|launch| (launch, false)).chain(backward.iter().map(|launch| (launch, true)));
        let timed = |(launch, is_backward): (&Launch, bool)| {
            Ok(Timed {
                kernel: launch.kernel.clone(),
                layer: launch.label.to_string(),
                is_backward,
                work: launch.work,
                launch: Some(launch.clone()),
                attributes: pass.attributes(launch)?,
            })
        };
        launches.map(timed).collect()
    }

    /// A layer's pass on the CPU. The backward pass of a filter consists of two products.
    fn timed_layer(&self, l: usize, is_backward: bool) -> Timed {
        let (net, n) = (&self.net, self.samples());
        let layer = &net.layers[l];
        let is_filter = matches!(layer.op.kind(), Kind::Filter(_));
        let passes = if is_backward && is_filter { 2 } else { 1 };
        let inputs: usize = layer.inputs.iter().map(|&value| net.value_len(value, n)).sum();
        let parameters: usize = net.parameters[layer.parameters.clone()].iter().map(|p| p.range.len()).sum();
        let values = inputs + net.value_len(l + 1, n) + parameters;
        let work =
            Work { flops: layer.op.flops().saturating_mul(passes * n as u64), bytes: passes * 4 * values as u64 };
        let (kernel, layer) = (layer.kind.clone(), layer.name.clone());
        Timed { kernel, layer, is_backward, work, launch: None, attributes: None }
    }

    /// Gives the device what a pass on `batch` reads, without running anything: for those who start [`Session::launches`]
    /// themselves.
    ///
    /// # Errors
    /// As [`Session::set_input`]; targets that do not fit the losses; a copy that failed.
    pub fn prepare(&mut self, batch: &[f32], mode: Mode, targets: Targets<'_>) -> Result<()> {
        self.set_input(batch)?;
        self.start(mode, targets)?;
        self.gpu_pass().map_or(Ok(()), |pass| pass.upload(mode, targets))
    }

    /// Runs the last forward pass again on `batch`, and the backward pass if the purpose has one: seconds of everything listed
    /// by [`Session::timed`], and seconds of the whole pass, which on a GPU is the mean of `repeats` consecutive passes.
    ///
    /// # Errors
    /// As [`Session::set_input`], [`Session::forward`] and [`Session::backward`].
    pub fn time(
        &mut self,
        batch: &[f32],
        mode: Mode,
        targets: Targets<'_>,
        cotangent: Option<&[f32]>,
        repeats: usize,
    ) -> Result<(Vec<f64>, f64)> {
        self.set_input(batch)?;
        self.start(mode, targets)?;
        let pass = match &mut self.pass {
            Pass::Cpu(pass) => pass,
            Pass::Gpu(pass) => return pass.time(mode != Mode::Inference, repeats.max(1)),
        };
        let start = Instant::now();
        let (mut seconds, mut last) = (Vec::new(), start);
        let mut lap = |_: usize| {
            let now = Instant::now();
            seconds.push((now - last).as_secs_f64());
            last = now;
        };
        pass.forward(mode, targets, &mut lap);
        if pass.plan().purpose.is_backward() {
            pass.backward(mode, targets, cotangent, &mut lap)?;
        }
        let whole = start.elapsed().as_secs_f64();
        Ok((seconds, whole))
    }

    /// Runs the last pass with an NVTX range per layer for Nsight; does nothing on the CPU.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn run_in_ranges(&self, mode: Mode) -> Result<()> {
        self.gpu_pass().map_or(Ok(()), |pass| pass.run_in_ranges(mode != Mode::Inference))
    }
}

//! Passes over batches of one size on a GPU. The plan is the same as on the CPU; creating a pass records all of its launches,
//! running it replays them.

use super::intake::{Intake, Part};
use super::{GpuParameters, PlanMemory};
use crate::device::{Attributes, Device, Gpu, Launch, Memory, Precision, Program, Ptr, Recorder, Step};
use crate::memory;
use crate::net::photos::PhotoWindow;
use crate::net::plan::{self, is_seed};
use crate::net::{INPUT, InputForm, Net, Plan, Purpose};
use crate::ops::conv::cuda::Pooled;
use crate::ops::gpu::{self, GpuBackward, GpuForward, GpuTargets};
use crate::ops::{Mode, Targets};
use crate::{Error, Result};
use std::sync::Arc;
use std::time::Instant;

/// The programs of passes in one mode.
#[derive(Default)]
pub(super) struct Programs {
    pub forward: Program,
    pub backward: Program,
}

/// A forward pass as a part of a larger program.
#[cfg(feature = "face")]
pub(crate) struct PassOnGpu<'a> {
    /// Where the batch is expected, `[n, h, w, c]` in the storage type.
    pub input: Ptr,
    pub launches: &'a [Launch],
    /// Where the output of the last layer is, `[n, h, w, c]` in the storage type.
    pub output: Ptr,
}

/// A plan with its device memory and its programs.
pub(in crate::net) struct GpuPass {
    pub(super) gpu: Gpu,
    pub(super) net: Arc<Net>,
    parameters: Arc<GpuParameters>,
    pub(super) plan: Plan,
    pub(super) memory: PlanMemory,
    /// What the host writes for a pass.
    pub(super) intake: Intake,
    gradients: Option<Memory>,
    /// What the gradient of each layer that is a loss is multiplied by, f32: 1 but for a cotangent of the last.
    seeds: Memory,
    last_seed: f32,
    /// The batch in host memory.
    input: Vec<f32>,
    inference: Programs,
    pub(super) training: Option<Programs>,
}

impl GpuPass {
    /// Plans passes over `n` samples, allocates their memory and records their launches.
    ///
    /// # Errors
    /// Out of memory: what was requested, what is free, and the largest batch that would fit.
    pub fn new(net: Arc<Net>, parameters: Arc<GpuParameters>, n: usize, purpose: Purpose) -> Result<Self> {
        if !parameters.fit(&net) {
            return Err(Error::network(&net.spec.place, "these are the parameters of another net"));
        }
        if let Some(value) = (0..=net.layers.len()).find(|&value| net.value_len(value, 1) > i32::MAX as usize) {
            let what = format!("value {value} has more than 2^31 numbers a sample, which kernels count in 32 bits");
            return Err(Error::network(&net.spec.place, what).advise("use a smaller image"));
        }
        let gpu = parameters.gpu().clone();
        let size = gpu.precision.bytes();
        let plan = Plan::on_gpu(&net, n, purpose, &gpu)?;
        let what = format!("{}: a batch of {n}", net.spec.place);
        net.fit(&what, &Device::Gpu(gpu.clone()), n, purpose, |_| 0)?;
        // The last layer may be a loss, one f32.
        let memory = PlanMemory::new(&gpu, plan.len + 2, size);
        let memory = memory.map_err(|e| e.within(&what).advise("use a smaller batch"))?;
        let [classes, targets] = net.target_len(n);
        let batch = net.value_len(INPUT, n);
        let form = InputForm::new(n, net.spec.input, net.spec.normalise, true);
        let windows = if purpose.is_backward() && form.resamples() { n * size_of::<PhotoWindow>() } else { 0 };
        let parts = [size_of::<Step>(), 4 * classes, 4 * targets, windows, 4 * batch];
        let mut pass = Self {
            memory,
            intake: Intake::new(&gpu, parts)?,
            gradients: if purpose.is_backward() { Some(gpu.memory(4 * parameters.len())?) } else { None },
            seeds: gpu.upload(&vec![1.0f32; net.layers.len()])?,
            last_seed: 1.0,
            input: crate::memory::zeroed(batch, "a batch")?,
            inference: Programs::default(),
            training: None,
            gpu,
            net,
            parameters,
            plan,
        };
        let step = Step { seed: 0, rate: 0.0, unused: 0 };
        pass.gpu.driver.upload(pass.intake.address(Part::Step), bytemuck::bytes_of(&step))?;
        pass.inference = pass.record(false)?;
        if purpose.is_backward() {
            pass.training = Some(pass.record(true)?);
        }
        Ok(pass)
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn parameters(&self) -> &Arc<GpuParameters> {
        &self.parameters
    }

    /// The forward pass in inference, without the cast of its input.
    #[cfg(feature = "face")]
    pub fn part(&self) -> PassOnGpu<'_> {
        let [input, output] = [INPUT, self.net.layers.len()].map(|value| self.memory.find(&self.plan.values[value]));
        PassOnGpu { input, launches: &self.inference.forward.launches[usize::from(self.casts())..], output }
    }

    /// The form in which it takes its input.
    pub fn form(&self) -> InputForm {
        InputForm::new(self.plan.n, self.net.spec.input, self.net.spec.normalise, true)
    }

    /// Whether a forward pass begins with a launch that casts the batch; f32 batches are uploaded in place.
    pub(super) fn casts(&self) -> bool {
        self.gpu.precision.bytes() < 4
    }

    fn targets(&self) -> GpuTargets {
        GpuTargets { classes: self.intake.address(Part::Classes), values: self.intake.address(Part::Targets) }
    }

    fn programs(&self, training: bool) -> &Programs {
        self.training.as_ref().filter(|_| training).unwrap_or(&self.inference)
    }

    fn record(&mut self, training: bool) -> Result<Programs> {
        let (gpu, net, n) = (self.gpu.clone(), self.net.clone(), self.plan.n);
        let targets = self.targets();
        let mut to = Recorder::new(&gpu);
        to.label("input");
        let input = self.memory.address(&self.plan.values[INPUT])?;
        if self.casts() {
            gpu::cast_from_f32(&mut to, self.intake.address(Part::Data), input, net.value_len(INPUT, n));
        }
        let backward = self.plan.purpose.is_backward();
        for (l, layer) in net.layers.iter().enumerate() {
            if self.pooled_by(l).is_some() {
                continue;
            }
            if let Some((pooled, below)) = self.pooled(&net, l) {
                let conv = &net.layers[below];
                to.label(&pair_name(&net, below, l));
                let pass = GpuForward {
                    n,
                    training,
                    stream: below as u64,
                    step: self.intake.address(Part::Step),
                    inputs: &[self.memory.address(&self.plan.values[conv.inputs[0]])?],
                    params: &self.parameters.addresses(conv.parameters.clone()),
                    targets,
                    output: self.memory.address(&self.plan.values[l + 1])?,
                    workspace: Ptr::NULL,
                };
                let codes = if backward { Some(self.memory.address(&self.plan.values[below + 1])?) } else { None };
                pooled.record_forward(&pass, codes, &mut to);
                continue;
            }
            to.label(&layer.name);
            let inputs = layer.inputs.iter().map(|&value| self.memory.address(&self.plan.values[value]));
            let inputs = inputs.collect::<Result<Vec<Ptr>>>()?;
            let pass = GpuForward {
                n,
                training,
                stream: l as u64,
                step: self.intake.address(Part::Step),
                inputs: &inputs,
                params: &self.parameters.addresses(layer.parameters.clone()),
                targets,
                output: self.memory.address(&self.plan.values[l + 1])?,
                workspace: self.memory.address(&self.plan.layers[l].forward)?,
            };
            layer.op.record_forward(pass, &mut to);
        }
        let forward = self.program(to.launches)?;
        let mut to = Recorder::new(&gpu);
        if backward {
            for l in (0..net.layers.len()).rev() {
                self.record_backward(l, training, targets, None, &mut to)?;
            }
        }
        Ok(Programs { forward, backward: self.program(to.launches)? })
    }

    /// The launches of a backward pass in training in which every loss is multiplied by the number at `scale`, f32.
    ///
    /// # Errors
    /// Out of memory.
    pub(super) fn record_scaled(&mut self, scale: Ptr) -> Result<Vec<Launch>> {
        let (gpu, targets) = (self.gpu.clone(), self.targets());
        let mut to = Recorder::new(&gpu);
        for l in (0..self.net.layers.len()).rev() {
            self.record_backward(l, true, targets, Some(scale), &mut to)?;
        }
        Ok(to.launches)
    }

    /// # Errors
    /// A launch that is too large.
    pub(super) fn program(&self, launches: Vec<Launch>) -> Result<Program> {
        let what = || format!("{}: a batch of {}", self.net.spec.place, self.plan.n);
        Program::new(launches).map_err(|e| e.within(what()).advise("use a smaller batch"))
    }

    /// Where the gradients of a layer's parameters go.
    fn d_params(&self, net: &Net, l: usize) -> Vec<Ptr> {
        let gradients = self.gradients_at();
        let tensors = self.parameters.tensors();
        net.layers[l].parameters.clone().map(|index| gradients.offset(4 * tensors[index].start)).collect()
    }

    /// As [`plan::pooled`].
    fn pooled<'a>(&self, net: &'a Net, l: usize) -> Option<(Pooled<'a>, usize)> {
        plan::pooled(net, l, self.plan.n, self.plan.purpose, &self.gpu)
    }

    /// The pool that layer `l` runs with.
    fn pooled_by(&self, l: usize) -> Option<usize> {
        (l + 1..self.net.layers.len()).find(|&pool| self.pooled(&self.net, pool).is_some_and(|(_, below)| below == l))
    }

    /// Losses are multiplied by the number at `scale`; none: by their place in `seeds`.
    fn record_backward(
        &mut self,
        l: usize,
        training: bool,
        targets: GpuTargets,
        scale: Option<Ptr>,
        to: &mut Recorder<'_>,
    ) -> Result<()> {
        let net = self.net.clone();
        let layer = &net.layers[l];
        to.label(&layer.name);
        let d_params = self.d_params(&net, l);
        let Some(d_output) = self.plan.gradients[l + 1].clone() else {
            for (index, &d_param) in layer.parameters.clone().zip(&d_params) {
                gpu::fill_f32(to, 0.0, d_param, net.parameters[index].range.len());
            }
            return Ok(());
        };
        if self.pooled_by(l).is_some() {
            return Ok(()); // with the pool
        }
        if let Some((pooled, below)) = self.pooled(&net, l) {
            let gradient = self.plan.gradients[below + 1].clone();
            let Some(workspace) = gradient else { return Ok(()) };
            let conv = &net.layers[below];
            to.label(&pair_name(&net, below, l));
            let ranges = [&self.plan.values[conv.inputs[0]], &d_output, &self.plan.values[below + 1], &workspace]
                .map(Clone::clone);
            let mut at = [Ptr::NULL; 4];
            for (at, range) in at.iter_mut().zip(&ranges) {
                *at = self.memory.address(range)?;
            }
            pooled.record_backward(self.plan.n, at, &self.d_params(&net, below), to);
            return Ok(());
        }
        let needs = layer.op.needs();
        let extra = self.plan.layers[l].extra.clone();
        let (mut inputs, mut d_inputs) = (Vec::new(), Vec::new());
        for (&value, extra) in layer.inputs.iter().zip(&extra) {
            let range = self.plan.values[value].clone();
            inputs.push(if needs.inputs { self.memory.address(&range)? } else { Ptr::NULL });
            let gradient = extra.clone().or(self.plan.gradients[value].clone());
            d_inputs.push(gradient.map(|range| self.memory.address(&range)).transpose()?);
        }
        let pass = GpuBackward {
            n: self.plan.n,
            training,
            stream: l as u64,
            step: self.intake.address(Part::Step),
            inputs: &inputs,
            output: if needs.output { self.memory.address(&self.plan.values[l + 1])? } else { Ptr::NULL },
            params: &self.parameters.addresses(layer.parameters.clone()),
            targets,
            d_output: match layer.op.target() {
                Some(_) => scale.unwrap_or(self.seeds.ptr.offset(4 * l)),
                None => self.memory.address(&d_output)?,
            },
            is_rectified: is_rectified_above(&net, l),
            rectify_input: layer.inputs[0].checked_sub(1).is_some_and(|below| is_rectified_above(&net, below)),
            d_inputs: &d_inputs,
            d_params: &d_params,
            workspace: self.memory.address(&self.plan.layers[l].backward)?,
        };
        layer.op.record_backward(pass, to);
        for (&value, extra) in layer.inputs.iter().zip(&extra) {
            if let (Some(extra), Some(total)) = (extra, self.plan.gradients[value].clone()) {
                let (extra, total) = (self.memory.address(extra)?, self.memory.address(&total)?);
                gpu::accumulate(to, extra, total, net.value_len(value, self.plan.n));
            }
        }
        Ok(())
    }

    /// The batch, `[n, h, w, c]`, in host memory.
    pub fn input(&mut self) -> &mut [f32] {
        &mut self.input
    }

    /// Runs all layers on the batch of [`GpuPass::input`].
    ///
    /// # Errors
    /// A launch that failed.
    pub fn forward(&mut self, mode: Mode, targets: Targets<'_>) -> Result<()> {
        self.upload(mode, targets)?;
        let programs = match mode {
            Mode::Inference => &mut self.inference,
            Mode::Training { .. } => self.training.as_mut().unwrap_or(&mut self.inference),
        };
        programs.forward.run(&self.gpu)
    }

    /// Copies to the device what a pass over the batch of [`GpuPass::input`] reads.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn upload(&self, mode: Mode, targets: Targets<'_>) -> Result<()> {
        let in_place = self.memory.find(&self.plan.values[INPUT]);
        let to = if self.casts() { self.intake.address(Part::Data) } else { in_place };
        self.gpu.driver.upload(to, bytemuck::cast_slice(&self.input))?;
        let GpuTargets { classes, values } = self.targets();
        if !targets.classes.is_empty() {
            self.gpu.driver.upload(classes, bytemuck::cast_slice(targets.classes))?;
        }
        if !targets.values.is_empty() {
            self.gpu.driver.upload(values, bytemuck::cast_slice(targets.values))?;
        }
        match mode {
            Mode::Inference => Ok(()),
            Mode::Training { seed } => {
                let step = Step { seed, rate: 0.0, unused: 0 };
                self.gpu.driver.upload(self.intake.address(Part::Step), bytemuck::bytes_of(&step))
            }
        }
    }

    /// Gradients of the sum of all losses, or of the last layer's output times `cotangent`.
    ///
    /// # Errors
    /// A cotangent of the wrong length, or none where the last layer is not a loss; a launch that failed.
    pub fn backward(&mut self, mode: Mode, cotangent: Option<&[f32]>) -> Result<()> {
        let net = self.net.clone();
        let last = net.layers.len() - 1;
        for l in 0..=last {
            let seed = self.plan.gradients[l + 1].clone().filter(|_| is_seed(&net, l));
            let Some(range) = seed else { continue };
            let seeds = net.seed(l, self.plan.n, cotangent.filter(|_| l == last))?;
            match net.layers[l].op.target() {
                Some(_) if l == last => self.set_seed(seeds[0])?,
                Some(_) => {}
                None => self.upload_stored(self.memory.find(&range), &seeds)?,
            }
        }
        let programs = match mode {
            Mode::Inference => &mut self.inference,
            Mode::Training { .. } => self.training.as_mut().unwrap_or(&mut self.inference),
        };
        programs.backward.run(&self.gpu)
    }

    /// Gradients of `scale` times the sum of all losses.
    ///
    /// # Errors
    /// A last layer that is no loss; a launch that failed.
    pub fn backward_scaled(&mut self, mode: Mode, scale: f32) -> Result<()> {
        let layers = self.net.layers.len();
        self.net.seed(layers - 1, self.plan.n, None)?;
        let all = |seed: f32| self.gpu.driver.upload(self.seeds.ptr, bytemuck::cast_slice(&vec![seed; layers]));
        all(scale)?;
        let programs = match mode {
            Mode::Inference => &mut self.inference,
            Mode::Training { .. } => self.training.as_mut().unwrap_or(&mut self.inference),
        };
        programs.backward.run(&self.gpu)?;
        self.last_seed = 1.0;
        all(1.0)
    }

    /// Sets what the gradient of the last layer, a loss, is multiplied by.
    ///
    /// # Errors
    /// A launch that failed.
    pub(super) fn set_seed(&mut self, seed: f32) -> Result<()> {
        if seed != self.last_seed {
            let last = self.net.layers.len() - 1;
            self.gpu.driver.upload(self.seeds.ptr.offset(4 * last), bytemuck::bytes_of(&seed))?;
            self.last_seed = seed;
        }
        Ok(())
    }

    fn upload_stored(&self, to: Ptr, values: &[f32]) -> Result<()> {
        use Precision::{Bf16, F16, F32, Tf32};
        match self.gpu.precision {
            F32 | Tf32 => self.gpu.driver.upload(to, bytemuck::cast_slice(values)),
            F16 => {
                let mut halves = memory::reserve(values.len(), "a gradient")?;
                halves.extend(values.iter().map(|&x| half::f16::from_f32(x)));
                self.gpu.driver.upload(to, bytemuck::cast_slice(&halves))
            }
            Bf16 => {
                let mut halves = memory::reserve(values.len(), "a gradient")?;
                halves.extend(values.iter().map(|&x| half::bf16::from_f32(x)));
                self.gpu.driver.upload(to, bytemuck::cast_slice(&halves))
            }
        }
    }

    fn download_stored(&self, from: Ptr, count: usize) -> Result<Vec<f32>> {
        use Precision::{Bf16, F16, F32, Tf32};
        if matches!(self.gpu.precision, F32 | Tf32) {
            return self.gpu.download(from, count);
        }
        let mut values = memory::reserve(count, "a value")?;
        match self.gpu.precision {
            Bf16 => values.extend(self.gpu.download(from, count)?.into_iter().map(half::bf16::to_f32)),
            F16 | F32 | Tf32 => values.extend(self.gpu.download(from, count)?.into_iter().map(half::f16::to_f32)),
        }
        Ok(values)
    }

    /// Output of layer `layer`, `[n, h, w, c]`; a loss is one value. Outputs that no layer reads are available after
    /// forward, the others only if the purpose keeps them.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn value(&self, layer: usize) -> Result<Vec<f32>> {
        let (net, from) = (&self.net, self.memory.find(&self.plan.values[layer + 1]));
        if net.layers[layer].op.target().is_some() {
            return self.gpu.download(from, 1);
        }
        self.download_stored(from, net.value_len(layer + 1, self.plan.n))
    }

    /// Gradient of the input, if the purpose is differentiation.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn input_gradient(&self) -> Result<Option<Vec<f32>>> {
        let Some(range) = &self.plan.gradients[INPUT] else { return Ok(None) };
        self.download_stored(self.memory.find(range), self.net.value_len(INPUT, self.plan.n)).map(Some)
    }

    /// Address of the gradients of the parameters, laid out as those; null in a session for forward passes only.
    pub fn gradients_at(&self) -> Ptr {
        self.gradients.as_ref().map_or(Ptr::NULL, |memory| memory.ptr)
    }

    /// Gradients of the parameters as one flat vector.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn gradients(&self) -> Result<Vec<f32>> {
        self.parameters.read_like(self.gradients_at())
    }

    /// Replaces the gradients of the parameters.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn set_gradients(&mut self, flat: &[f32]) -> Result<()> {
        self.parameters.write_like(self.gradients_at(), flat)
    }

    /// The launches of a forward and a backward pass in a mode.
    pub fn launches(&self, training: bool) -> [&[Launch]; 2] {
        let Programs { forward, backward } = self.programs(training);
        [&forward.launches, &backward.launches]
    }

    /// Waits until all launches have run.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn synchronize(&self) -> Result<()> {
        self.gpu.driver.synchronize()
    }

    /// Seconds of each launch of a pass, and the mean of `times` consecutive passes by the host's clock.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn time(&self, training: bool, times: usize) -> Result<(Vec<f64>, f64)> {
        let launches = self.launches(training).concat();
        let seconds = self.gpu.driver.time(&launches)?;
        let graph = self.gpu.driver.capture(&launches)?;
        self.synchronize()?;
        let start = Instant::now();
        (0..times).try_for_each(|_| graph.launch())?;
        self.synchronize()?;
        Ok((seconds, start.elapsed().as_secs_f64() / times as f64))
    }

    /// Runs a pass with an NVTX range per layer for Nsight.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn run_in_ranges(&self, training: bool) -> Result<()> {
        self.gpu.driver.run_in_ranges(&self.launches(training).concat()).map(|_| ())
    }

    /// Resource usage of a compiled kernel, if the driver reports it.
    ///
    /// # Errors
    /// A kernel that the GPU code lacks.
    pub fn attributes(&self, launch: &Launch) -> Result<Option<Attributes>> {
        self.gpu.driver.attributes(launch)
    }
}

/// `c1+p1`: the label of a launch that is two layers.
fn pair_name(net: &Net, below: usize, above: usize) -> String {
    format!("{}+{}", net.layers[below].name, net.layers[above].name)
}

/// Whether the derivative of layer `l`'s rectifier is applied by the one layer that reads its output.
fn is_rectified_above(net: &Net, l: usize) -> bool {
    let mut readers = net.layers.iter().filter(|layer| layer.inputs.contains(&(l + 1)));
    let (reader, others) = (readers.next(), readers.next());
    net.layers[l].op.rectifies()
        && others.is_none()
        && reader.is_some_and(|layer| layer.op.applies_rectifier() && layer.inputs.len() == 1)
}

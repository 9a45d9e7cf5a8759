//! A net on a GPU: its parameters in device memory ([`GpuParameters`]), and passes over batches of one size
//! ([`GpuSession`]). The plan is the CPU's; making a session writes the launches of every pass down, running one starts
//! them.

use super::plan::is_seed;
use super::{INPUT, Net, NetParameter, Plan, Purpose};
use crate::device::{Device, Gpu, Memory, Program, Ptr, Recorder, Step};
use crate::memory;
use crate::ops::gpu::{self, GpuBackward, GpuForward, GpuTargets};
use crate::ops::{Mode, Targets};
use crate::{Error, Result};
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

/// Tensors begin at multiples of this many values, so that 16-byte loads are aligned in every storage type.
const ALIGN: usize = 64;

/// A net's parameters on a GPU: f32 masters, and weights in the storage type where that is another. Nets of the same layers
/// at other sizes share them.
pub struct GpuParameters {
    gpu: Gpu,
    tensors: Vec<Tensor>,
    master: Memory,
    stored: Option<Memory>,
    len: usize,
    narrow: Mutex<Program>,
}

/// A tensor's place in the CPU's flat vector and in device memory, in values.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    pub flat: Range<usize>,
    pub start: usize,
    /// Kept in the storage type, too: weights, not biases.
    pub is_weight: bool,
}

impl GpuParameters {
    /// Uploads parameters (the flat vector of the CPU).
    ///
    /// # Errors
    /// Out of memory.
    pub fn new(gpu: &Gpu, net: &Net, parameters: &[f32]) -> Result<Self> {
        let (tensors, len) = tensors(net);
        let master = gpu.memory(4 * len)?;
        let narrows = gpu.precision.bytes() < 4;
        let stored = narrows.then(|| gpu.memory(gpu.precision.bytes() * len)).transpose()?;
        let mut to = Recorder::new(gpu);
        to.label("parameters");
        if let Some(stored) = &stored {
            gpu::narrow(&mut to, master.ptr, stored.ptr, len);
        }
        let narrow = Mutex::new(Program::new(to.launches));
        let this = Self { gpu: gpu.clone(), tensors, master, stored, len, narrow };
        this.write(parameters)?;
        Ok(this)
    }

    pub fn gpu(&self) -> &Gpu {
        &self.gpu
    }

    /// Where each of the net's tensors lies.
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The f32 masters.
    pub fn master(&self) -> Ptr {
        self.master.ptr
    }

    /// The same in the storage type, if that is another.
    pub fn stored(&self) -> Option<Ptr> {
        self.stored.as_ref().map(|memory| memory.ptr)
    }

    /// Values in device memory, with the space between tensors.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True for a net without parameters.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Replaces all parameters.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn write(&self, parameters: &[f32]) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        self.write_like(self.master.ptr, parameters)?;
        self.narrow.lock().unwrap_or_else(PoisonError::into_inner).run(&self.gpu)
    }

    /// The parameters as the CPU's flat vector.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn read(&self) -> Result<Vec<f32>> {
        self.read_like(self.master.ptr)
    }

    /// A buffer of f32 laid out as the parameters, as the CPU's flat vector.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn read_like(&self, from: Ptr) -> Result<Vec<f32>> {
        let spread: Vec<f32> = self.gpu.download(from, self.len)?;
        let mut flat = memory::zeroed(self.tensors.last().map_or(0, |tensor| tensor.flat.end), "parameters")?;
        for Tensor { flat: range, start, .. } in &self.tensors {
            flat[range.clone()].copy_from_slice(&spread[*start..start + range.len()]);
        }
        Ok(flat)
    }

    /// Writes the CPU's flat vector into a buffer of f32 laid out as the parameters, zeros between tensors.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn write_like(&self, to: Ptr, flat: &[f32]) -> Result<()> {
        assert_eq!(flat.len(), self.tensors.last().map_or(0, |tensor| tensor.flat.end), "parameters of another net");
        let mut spread: Vec<f32> = memory::zeroed(self.len, "parameters")?;
        for Tensor { flat: range, start, .. } in &self.tensors {
            spread[*start..start + range.len()].copy_from_slice(&flat[range.clone()]);
        }
        self.gpu.driver.upload(to, bytemuck::cast_slice(&spread))
    }

    /// Addresses of tensors: weights as they are multiplied, biases in f32.
    pub fn addresses(&self, tensors: Range<usize>) -> Vec<Ptr> {
        let address = |tensor: &Tensor| match &self.stored {
            Some(stored) if tensor.is_weight => stored.ptr.offset(self.gpu.precision.bytes() * tensor.start),
            _ => self.master.ptr.offset(4 * tensor.start),
        };
        self.tensors[tensors].iter().map(address).collect()
    }
}

fn tensors(net: &Net) -> (Vec<Tensor>, usize) {
    let mut len = 0;
    let place = |parameter: &NetParameter| {
        let start = len;
        len = (len + parameter.range.len()).next_multiple_of(ALIGN);
        Tensor { flat: parameter.range.clone(), start, is_weight: parameter.tensor.fan_in > 0 }
    };
    (net.parameters.iter().map(place).collect(), len)
}

/// Device memory of a plan: one arena, or every buffer apart.
enum Buffers {
    Arena(Memory),
    Apart(Vec<(Range<usize>, Memory)>),
}

/// The programs of passes in one mode.
#[derive(Default)]
struct Programs {
    forward: Program,
    backward: Program,
}

/// Passes over batches of one size on a GPU.
pub struct GpuSession {
    gpu: Gpu,
    net: Arc<Net>,
    parameters: Arc<GpuParameters>,
    plan: Plan,
    buffers: Buffers,
    step: Memory,
    classes: Memory,
    targets: Memory,
    gradients: Option<Memory>,
    /// The input, and values on their way out, in f32.
    staging: Memory,
    inference: Programs,
    training: Option<Programs>,
}

impl GpuSession {
    /// Plans passes over `n` samples, allocates their memory and writes their launches down.
    ///
    /// # Errors
    /// Out of memory: what was asked for, what is free, and which batch would fit.
    pub fn new(net: Arc<Net>, parameters: Arc<GpuParameters>, n: usize, purpose: Purpose) -> Result<Self> {
        assert_eq!(tensors(&net).0, parameters.tensors, "parameters of another net");
        let gpu = parameters.gpu.clone();
        let size = gpu.precision.bytes();
        let plan = Plan::on_gpu(&net, n, purpose, &gpu)?;
        let what = format!("{}: a batch of {n}", net.spec.place);
        net.fit(&what, &Device::Gpu(gpu.clone()), n, purpose, |_| 0)?;
        // A loss of one f32 may stand last.
        let arena = || gpu.memory(size * (plan.len + 2)).map_err(|e| e.within(&what).advise("use a smaller batch"));
        let buffers = if gpu.apart { Buffers::Apart(Vec::new()) } else { Buffers::Arena(arena()?) };
        let [classes, targets] = net.target_len(n);
        let largest = (0..=net.layers.len()).map(|value| net.value_len(value, n)).max().unwrap_or(0);
        let mut session = Self {
            buffers,
            step: gpu.upload(&[Step { seed: 0, rate: 0.0, unused: 0 }])?,
            classes: gpu.memory(4 * classes)?,
            targets: gpu.memory(4 * targets)?,
            gradients: if purpose.is_backward() { Some(gpu.memory(4 * parameters.len)?) } else { None },
            staging: gpu.memory(4 * largest)?,
            inference: Programs::default(),
            training: None,
            gpu,
            net,
            parameters,
            plan,
        };
        session.inference = session.record(false)?;
        if purpose == Purpose::Training || purpose == Purpose::Differentiation {
            session.training = Some(session.record(true)?);
        }
        let launches = session.inference.forward.launches.iter().chain(&session.inference.backward.launches);
        if let Some(launch) = launches.into_iter().find(|launch| launch.is_too_large()) {
            let found = format!("a batch of {n} is too large for one launch of {}", launch.describe());
            return Err(Error::new(&session.net.spec.place, found).advise("use a smaller batch"));
        }
        Ok(session)
    }

    pub fn net(&self) -> &Arc<Net> {
        &self.net
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    pub fn parameters(&self) -> &Arc<GpuParameters> {
        &self.parameters
    }

    /// The launches of a forward pass.
    pub fn forward_program(&self, training: bool) -> &Program {
        &self.programs(training).forward
    }

    /// The launches of a backward pass.
    pub fn backward_program(&self, training: bool) -> &Program {
        &self.programs(training).backward
    }

    fn programs(&self, training: bool) -> &Programs {
        self.training.as_ref().filter(|_| training).unwrap_or(&self.inference)
    }

    /// Address of a buffer of the plan.
    fn address(&mut self, range: &Range<usize>) -> Result<Ptr> {
        let size = self.gpu.precision.bytes();
        match &mut self.buffers {
            Buffers::Arena(memory) => Ok(memory.ptr.offset(size * range.start)),
            Buffers::Apart(buffers) => {
                // Buffers that share memory in the arena differ in their range or are never alive together; one that
                // has the same range as an earlier one shares its memory here too.
                if let Some((_, memory)) = buffers.iter().find(|(other, _)| other == range) {
                    return Ok(memory.ptr);
                }
                let memory = self.gpu.memory((size * range.len()).max(4))?;
                let ptr = memory.ptr;
                buffers.push((range.clone(), memory));
                Ok(ptr)
            }
        }
    }

    /// Address of a buffer that has been recorded.
    fn find(&self, range: &Range<usize>) -> Ptr {
        match &self.buffers {
            Buffers::Arena(memory) => memory.ptr.offset(self.gpu.precision.bytes() * range.start),
            Buffers::Apart(buffers) => {
                buffers.iter().find(|(other, _)| other == range).map_or(Ptr::NULL, |(_, memory)| memory.ptr)
            }
        }
    }

    fn record(&mut self, training: bool) -> Result<Programs> {
        let (gpu, net, n) = (self.gpu.clone(), self.net.clone(), self.plan.n);
        let targets = GpuTargets { classes: self.classes.ptr, values: self.targets.ptr };
        let mut to = Recorder::new(&gpu);
        to.label("input");
        let input = self.address(&self.plan.values[INPUT].clone())?;
        // f32 batches are uploaded in place.
        if gpu.precision.bytes() < 4 {
            gpu::narrow(&mut to, self.staging.ptr, input, net.value_len(INPUT, n));
        }
        for (l, layer) in net.layers.iter().enumerate() {
            to.label(&layer.name);
            let inputs = layer.inputs.iter().map(|&value| self.address(&self.plan.values[value].clone()));
            let inputs = inputs.collect::<Result<Vec<Ptr>>>()?;
            let pass = GpuForward {
                n,
                training,
                stream: l as u64,
                step: self.step.ptr,
                inputs: &inputs,
                params: &self.parameters.addresses(layer.parameters.clone()),
                targets,
                output: self.address(&self.plan.values[l + 1].clone())?,
                workspace: self.address(&self.plan.layers[l].forward.clone())?,
            };
            layer.op.record_forward(pass, &mut to);
        }
        let forward = Program::new(to.launches);
        let mut to = Recorder::new(&gpu);
        if self.plan.purpose.is_backward() {
            for l in (0..net.layers.len()).rev() {
                self.record_backward(l, training, targets, &mut to)?;
            }
        }
        Ok(Programs { forward, backward: Program::new(to.launches) })
    }

    fn record_backward(&mut self, l: usize, training: bool, targets: GpuTargets, to: &mut Recorder<'_>) -> Result<()> {
        let net = self.net.clone();
        let layer = &net.layers[l];
        to.label(&layer.name);
        let gradients = self.gradients_at();
        let d_params: Vec<Ptr> =
            layer.parameters.clone().map(|index| gradients.offset(4 * self.parameters.tensors[index].start)).collect();
        let Some(d_output) = self.plan.gradients[l + 1].clone() else {
            for (index, &d_param) in layer.parameters.clone().zip(&d_params) {
                gpu::fill_f32(to, 0.0, d_param, net.parameters[index].range.len());
            }
            return Ok(());
        };
        let needs = layer.op.needs();
        let extra = self.plan.layers[l].extra.clone();
        let (mut inputs, mut d_inputs) = (Vec::new(), Vec::new());
        for (&value, extra) in layer.inputs.iter().zip(&extra) {
            let range = self.plan.values[value].clone();
            inputs.push(if needs.inputs { self.address(&range)? } else { Ptr::NULL });
            let gradient = extra.clone().or(self.plan.gradients[value].clone());
            d_inputs.push(gradient.map(|range| self.address(&range)).transpose()?);
        }
        let pass = GpuBackward {
            n: self.plan.n,
            training,
            stream: l as u64,
            step: self.step.ptr,
            inputs: &inputs,
            output: if needs.output { self.address(&self.plan.values[l + 1].clone())? } else { Ptr::NULL },
            params: &self.parameters.addresses(layer.parameters.clone()),
            targets,
            d_output: self.address(&d_output)?,
            d_inputs: &d_inputs,
            d_params: &d_params,
            workspace: self.address(&self.plan.layers[l].backward.clone())?,
        };
        layer.op.record_backward(pass, to);
        for (&value, extra) in layer.inputs.iter().zip(&extra) {
            if let (Some(extra), Some(total)) = (extra, self.plan.gradients[value].clone()) {
                let (extra, total) = (self.address(extra)?, self.address(&total)?);
                gpu::accumulate(to, extra, total, net.value_len(value, self.plan.n));
            }
        }
        Ok(())
    }

    /// Sets the batch, `[n, h, w, c]` in f32.
    ///
    /// # Errors
    /// A launch that failed before.
    pub fn set_input(&mut self, batch: &[f32]) -> Result<()> {
        assert_eq!(batch.len(), self.net.value_len(INPUT, self.plan.n), "a batch of another size");
        let f32_input = self.gpu.precision.bytes() == 4;
        let to = if f32_input { self.find(&self.plan.values[INPUT]) } else { self.staging.ptr };
        self.gpu.driver.upload(to, bytemuck::cast_slice(batch))
    }

    /// Runs all layers on the batch of [`GpuSession::set_input`].
    ///
    /// # Errors
    /// Targets that do not fit the losses; a launch that failed.
    pub fn forward(&mut self, mode: Mode, targets: Targets<'_>) -> Result<()> {
        self.net.check_targets(self.plan.n, targets)?;
        if !targets.classes.is_empty() {
            self.gpu.driver.upload(self.classes.ptr, bytemuck::cast_slice(targets.classes))?;
        }
        if !targets.values.is_empty() {
            self.gpu.driver.upload(self.targets.ptr, bytemuck::cast_slice(targets.values))?;
        }
        let programs = match mode {
            Mode::Inference => &mut self.inference,
            Mode::Training { seed } => {
                let step = Step { seed, rate: 0.0, unused: 0 };
                self.gpu.driver.upload(self.step.ptr, bytemuck::bytes_of(&step))?;
                self.training.as_mut().unwrap_or(&mut self.inference)
            }
        };
        programs.forward.run(&self.gpu)
    }

    /// Gradients of the sum of all losses, or of the last layer's output times `cotangent`. A forward pass in the same
    /// mode must have gone before.
    ///
    /// # Errors
    /// A cotangent of the wrong length, or none where the last layer is no loss; a launch that failed.
    pub fn backward(&mut self, mode: Mode, cotangent: Option<&[f32]>) -> Result<()> {
        assert!(self.plan.purpose.is_backward(), "a session for forward passes only");
        let net = self.net.clone();
        let last = net.layers.len() - 1;
        for l in 0..=last {
            let seed = self.plan.gradients[l + 1].clone().filter(|_| is_seed(&net, l));
            let Some(range) = seed else { continue };
            let seeds = net.seed(l, self.plan.n, cotangent.filter(|_| l == last))?;
            let to = self.find(&range);
            if net.layers[l].op.target().is_some() {
                self.gpu.driver.upload(to, bytemuck::cast_slice(&seeds))?;
            } else {
                self.upload_stored(to, &seeds)?;
            }
        }
        let programs = match mode {
            Mode::Inference => &mut self.inference,
            Mode::Training { .. } => self.training.as_mut().unwrap_or(&mut self.inference),
        };
        programs.backward.run(&self.gpu)
    }

    fn upload_stored(&self, to: Ptr, values: &[f32]) -> Result<()> {
        use crate::device::Precision::{Bf16, F16, F32, Tf32};
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
        use crate::device::Precision::{Bf16, F16, F32, Tf32};
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

    /// Output of layer `layer`, `[n, h, w, c]`; a loss is one value. Outputs that nobody reads are there after
    /// forward, the others only if the purpose keeps them.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn value(&self, layer: usize) -> Result<Vec<f32>> {
        let (net, from) = (&self.net, self.find(&self.plan.values[layer + 1]));
        if net.layers[layer].op.target().is_some() {
            return self.gpu.download(from, 1);
        }
        self.download_stored(from, net.value_len(layer + 1, self.plan.n))
    }

    /// Sum of all losses.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn loss(&self) -> Result<f32> {
        let layers = self.net.layers.iter().enumerate();
        let mut sum = 0.0;
        for (l, _) in layers.filter(|(_, layer)| layer.op.target().is_some()) {
            sum += self.value(l)?[0];
        }
        Ok(sum)
    }

    /// Gradient of the input, if the purpose is differentiation.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn input_gradient(&self) -> Result<Option<Vec<f32>>> {
        let Some(range) = &self.plan.gradients[INPUT] else { return Ok(None) };
        self.download_stored(self.find(range), self.net.value_len(INPUT, self.plan.n)).map(Some)
    }

    /// Where the gradients of the parameters lie, laid out as those; null in a session for forward passes only.
    pub fn gradients_at(&self) -> Ptr {
        self.gradients.as_ref().map_or(Ptr::NULL, |memory| memory.ptr)
    }

    /// Gradients of the parameters, as the CPU's flat vector.
    ///
    /// # Errors
    /// A launch that failed; a session for forward passes only.
    pub fn gradients(&self) -> Result<Vec<f32>> {
        let memory = self
            .gradients
            .as_ref()
            .ok_or_else(|| Error::new(&self.net.spec.place, "has no gradients: this session runs forward only"))?;
        self.parameters.read_like(memory.ptr)
    }
}

//! The products of a layer, tried in its own forward or backward pass on random numbers.

use super::{Pass, Tuner, groups, tolerance};
use crate::device::{Gpu, Launch, Memory, Precision, ProductKey, Program, Ptr, Recorder};
use crate::memory;
use crate::net::{Net, Plan, Purpose};
use crate::ops::conv::Filter;
use crate::ops::gpu::{GpuBackward, GpuForward, GpuTargets};
use crate::ops::tolerance::Tolerance;
use crate::ops::{Kind, Operation, Shape};
use crate::rng::Rng;
use crate::{Error, Result};
use half::{bf16, f16};

/// FLOPs of a layer that an emulator computes in about a second: with the filters of the test nets, lines of several tiles.
const EMULATED_FLOPS: u64 = 5_000_000;
/// Samples of a batch there: more than one, so that a tile may hold values of two.
const EMULATED_SAMPLES: usize = 2;
/// A NaN in every type.
const POISON: u8 = 0xff;

/// Tries the products of all layers for batches of `n` samples: of the forward pass, and with [`Purpose::Training`] also those
/// of the backward pass.
///
/// # Errors
/// Out of memory; a device that failed; those of the tuner's `done`.
pub fn layers(tuner: &mut Tuner<'_>, net: &Net, n: usize, purpose: Purpose) -> Result<()> {
    let plan = Plan::on_gpu(net, n, purpose, &tuner.gpu)?;
    for (l, layer) in net.layers.iter().enumerate() {
        let Kind::Filter(whole) = layer.op.kind() else { continue };
        let (smaller, samples) = if tuner.is_card() { (None, n) } else { reduced(net, l, whole, n) };
        let is_reduced = smaller.is_some() || samples < n;
        let op = smaller.as_deref().unwrap_or(&*layer.op);
        let Kind::Filter(filter) = op.kind() else { continue };
        let mut directions = vec![Direction::Forward];
        if plan.gradients[l + 1].is_some() {
            directions.push(Direction::Backward { to_input: plan.gradients[layer.inputs[0]].is_some() });
        }
        for direction in directions {
            let mut pass = LayerPass::new(op, filter, samples, direction, tuner.gpu.precision)?;
            tuner.all(&mut pass, &layer.name, is_reduced)?;
        }
    }
    Ok(())
}

/// A layer on a smaller map and a smaller batch, where an emulator would take too long: with the same filters, and so the same k
/// and n of its forward product.
fn reduced(net: &Net, l: usize, filter: &Filter, n: usize) -> (Option<Box<dyn Operation>>, usize) {
    let flops = |op: &dyn Operation, n: usize| op.flops().saturating_mul(n as u64);
    let samples = |op: &dyn Operation| {
        let few = n.min(EMULATED_SAMPLES);
        if flops(op, few) > EMULATED_FLOPS { 1 } else { few }
    };
    let op = &*net.layers[l].op;
    if flops(op, n) <= EMULATED_FLOPS {
        return (None, n);
    }
    if flops(op, 1) <= EMULATED_FLOPS || filter.flattened.is_some() {
        return (None, samples(op));
    }
    let Shape { c, h, w } = filter.input;
    let scaled = |side: usize, sixteenths: usize| (side * sixteenths).div_ceil(16);
    let sizes = (1..16).rev().map(|part| Shape::new(c, scaled(h, part), scaled(w, part)));
    // Those into which a layer with regions cannot be divided are passed over.
    let ops: Vec<_> = sizes.filter_map(|shape| net.rebind(l, &[shape]).ok()).collect();
    let smallest = ops.iter().map(|op| op.flops()).min().unwrap_or(u64::MAX);
    match ops.into_iter().find(|op| op.flops() <= EMULATED_FLOPS.max(smallest)) {
        Some(op) => {
            let samples = samples(&*op);
            (Some(op), samples)
        }
        None => (None, 1),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Forward,
    Backward { to_input: bool },
}

/// What a product computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Output,
    Weights,
    Input,
}

impl Part {
    fn of(product: &ProductKey) -> Self {
        let is = |names: [&str; 2]| names.iter().any(|name| product.kernel.starts_with(name));
        match () {
            () if is(["conv_backward_weights", "gemm_tn"]) => Self::Weights,
            () if is(["conv_backward_data", "gemm_nt"]) => Self::Input,
            () => Self::Output,
        }
    }
}

/// A layer's pass over random numbers.
struct LayerPass<'a> {
    op: &'a dyn Operation,
    n: usize,
    direction: Direction,
    precision: Precision,
    /// Rounded to the precision, so that only the arithmetic differs.
    input: Vec<f32>,
    d_output: Vec<f32>,
    parameters: Vec<(Vec<f32>, bool)>,
    buffers: Option<Buffers>,
}

/// Device memory of a pass.
struct Buffers {
    input: Memory,
    output: Memory,
    d_input: Memory,
    parameters: Vec<Memory>,
    d_parameters: Vec<Memory>,
    workspace: Memory,
}

impl<'a> LayerPass<'a> {
    fn new(
        op: &'a dyn Operation,
        filter: &Filter,
        n: usize,
        direction: Direction,
        precision: Precision,
    ) -> Result<Self> {
        let mut rng = Rng::new(1, n as u64);
        let mut draw = |len: usize, low: f32, high: f32, rounds: bool| {
            let mut values = memory::reserve(len, "random numbers")?;
            let round = |x: f32| if rounds { precision.round_factor(x) } else { x };
            values.extend((0..len).map(|_| round(rng.range(low, high))));
            Ok(values)
        };
        let input = draw(n * filter.input.len(), -1.0, 1.0, true)?;
        let d_output = draw(n * filter.output.len(), -0.5, 1.0, true)?;
        let parameters = op.parameters().into_iter().map(|tensor| {
            let scale = if tensor.fan_in > 0 { (3.0 / tensor.fan_in as f32).sqrt() } else { 0.3 };
            let is_stored = tensor.fan_in > 0;
            Ok((draw(tensor.len(), -scale, scale, is_stored)?, is_stored))
        });
        let parameters = parameters.collect::<Result<_>>()?;
        Ok(Self { op, n, direction, precision, input, d_output, parameters, buffers: None })
    }

    fn workspace(&self, gpu: &Gpu) -> usize {
        match self.direction {
            Direction::Forward => self.op.gpu_forward_workspace(self.n, gpu),
            Direction::Backward { .. } => self.op.gpu_backward_workspace(self.n, gpu),
        }
    }

    fn upload(&self, gpu: &Gpu, workspace: usize) -> Result<Buffers> {
        let size = gpu.precision.bytes();
        let of = |values: &[f32], is_stored: bool| match is_stored {
            true => stored(gpu, values),
            false => gpu.upload(values),
        };
        let output = match self.direction {
            Direction::Forward => gpu.memory(size * self.d_output.len())?,
            Direction::Backward { .. } => stored(gpu, &self.d_output)?,
        };
        let parameters = self.parameters.iter();
        Ok(Buffers {
            input: stored(gpu, &self.input)?,
            output,
            d_input: gpu.memory(size * self.input.len())?,
            parameters: parameters.clone().map(|(values, is_stored)| of(values, *is_stored)).collect::<Result<_>>()?,
            d_parameters: parameters.map(|(values, _)| gpu.memory(4 * values.len())).collect::<Result<_>>()?,
            workspace: gpu.memory(workspace)?,
        })
    }

    /// The launches on a device, with its scratch at `workspace`.
    fn record(&self, gpu: &Gpu, buffers: &Buffers, workspace: Ptr) -> Result<Vec<Launch>> {
        let pointers = |memory: &[Memory]| memory.iter().map(|memory| memory.ptr).collect::<Vec<Ptr>>();
        let (params, d_params) = (pointers(&buffers.parameters), pointers(&buffers.d_parameters));
        let targets = GpuTargets { classes: Ptr::NULL, values: Ptr::NULL };
        let (training, stream, step, n) = (false, 0, Ptr::NULL, self.n);
        let (inputs, output, params) = (&[buffers.input.ptr][..], buffers.output.ptr, &params[..]);
        let mut to = Recorder::new(gpu);
        match self.direction {
            Direction::Forward => {
                let pass = GpuForward { n, training, stream, step, inputs, params, targets, output, workspace };
                self.op.record_forward(pass, &mut to);
            }
            Direction::Backward { to_input } => {
                let pass = GpuBackward {
                    n,
                    training,
                    stream,
                    step,
                    inputs,
                    output,
                    params,
                    targets,
                    d_output: output,
                    // What is read is not changed, so that passes may be repeated.
                    is_rectified: true,
                    rectify_input: false,
                    d_inputs: &[to_input.then_some(buffers.d_input.ptr)],
                    d_params: &d_params,
                    workspace,
                };
                self.op.record_backward(pass, &mut to);
            }
        }
        Ok(Program::new(to.launches)?.launches)
    }

    /// Address, length and bytes of a value of what a product computes.
    fn result(&self, gpu: &Gpu, buffers: &Buffers, part: Part) -> (Ptr, usize, usize) {
        match part {
            Part::Output => (buffers.output.ptr, self.d_output.len(), gpu.precision.bytes()),
            Part::Input => (buffers.d_input.ptr, self.input.len(), gpu.precision.bytes()),
            Part::Weights => (buffers.d_parameters[0].ptr, self.parameters[0].0.len(), 4),
        }
    }

    /// Runs what a product needs, without the other products, and returns its result and its own launches.
    fn compute(&self, gpu: &Gpu, buffers: &Buffers, workspace: Ptr, part: Part) -> Result<(Vec<f32>, Vec<Launch>)> {
        let launches = self.record(gpu, buffers, workspace)?;
        let (at, len, size) = self.result(gpu, buffers, part);
        // What the last candidate left must not pass for the result of one that does nothing.
        poison(gpu, at, len * size)?;
        let mut own = Vec::new();
        for group in groups(&launches) {
            let of = group[0].product.as_ref().map(|product| Part::of(&product.key));
            if of.is_none_or(|of| of == part) {
                group.iter().try_for_each(|launch| gpu.driver.launch(launch))?;
            }
            if of == Some(part) {
                own.extend_from_slice(group);
            }
        }
        gpu.driver.synchronize()?;
        let values = match (size, gpu.precision) {
            (2, Precision::F16) => gpu.download(at, len)?.into_iter().map(f16::to_f32).collect(),
            (2, _) => gpu.download(at, len)?.into_iter().map(bf16::to_f32).collect(),
            _ => gpu.download(at, len)?,
        };
        Ok((values, own))
    }
}

impl Pass for LayerPass<'_> {
    fn launches(&mut self, gpu: &Gpu) -> Result<Vec<Launch>> {
        // Only recorded: no memory is needed.
        let null = || Memory::null(gpu);
        let buffers = Buffers {
            input: null(),
            output: null(),
            d_input: null(),
            parameters: self.parameters.iter().map(|_| null()).collect(),
            d_parameters: self.parameters.iter().map(|_| null()).collect(),
            workspace: null(),
        };
        self.record(gpu, &buffers, Ptr::NULL)
    }

    fn reference(&mut self, gpu: &Gpu, product: &ProductKey) -> Result<Vec<f32>> {
        let buffers = self.upload(gpu, self.workspace(gpu))?;
        Ok(self.compute(gpu, &buffers, buffers.workspace.ptr, Part::of(product))?.0)
    }

    fn tolerance(&self, product: &ProductKey) -> Tolerance {
        let roundings = if self.direction == Direction::Forward { 1 } else { 3 };
        tolerance(self.precision, roundings, product.size[2])
    }

    fn make_room(&mut self, devices: &[Gpu]) -> Result<()> {
        let Some(gpu) = devices.first() else { return Ok(()) };
        let workspace = devices.iter().map(|gpu| self.workspace(gpu)).max().unwrap_or(0);
        self.buffers = Some(self.upload(gpu, workspace)?);
        Ok(())
    }

    fn run(&mut self, gpu: &Gpu, product: &ProductKey) -> Result<(Vec<f32>, Vec<Launch>)> {
        let Some(buffers) = &self.buffers else { return Err(Error::device(product, "there is no memory for it")) };
        let (bytes, part) = (self.workspace(gpu), Part::of(product));
        if gpu.driver.is_host() {
            // Exactly what it may use, so that a checked emulator sees what is beyond. Nothing is timed there.
            let workspace = gpu.memory(bytes)?;
            return self.compute(gpu, buffers, workspace.ptr, part);
        }
        poison(gpu, buffers.workspace.ptr, bytes)?;
        self.compute(gpu, buffers, buffers.workspace.ptr, part)
    }

    fn clear(&mut self) {
        self.buffers = None;
    }
}

/// Values in the storage type.
fn stored(gpu: &Gpu, values: &[f32]) -> Result<Memory> {
    match gpu.precision {
        Precision::F32 | Precision::Tf32 => gpu.upload(values),
        Precision::F16 => gpu.upload(&values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()),
        Precision::Bf16 => gpu.upload(&values.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()),
    }
}

/// Fills memory with NaN.
fn poison(gpu: &Gpu, at: Ptr, bytes: usize) -> Result<()> {
    const PIECE: usize = 16 << 20;
    let nan = vec![POISON; bytes.min(PIECE)];
    (0..bytes).step_by(PIECE).try_for_each(|from| gpu.driver.upload(at.offset(from), &nan[..PIECE.min(bytes - from)]))
}

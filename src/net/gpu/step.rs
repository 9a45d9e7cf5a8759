//! Whole steps of training as one graph: input, forward, backward, optimizer. A step is one upload from one of two pinned
//! images, which take turns, the launch of a graph, and a copy of the losses to pinned memory, which the next step reads: the
//! host never waits for the step that it has just started.

use super::GpuPass;
use super::intake::Part;
use crate::device::{Launch, Pinned, Program, Ptr, Recorder, Step};
use crate::net::photos::Batch;
use crate::net::sgd::ScaleState;
use crate::net::{INPUT, Input, LossScale};
use crate::ops::Targets;
use crate::ops::gpu;
use crate::{Error, Result};

/// The steps of a pass with an optimizer.
pub(in crate::net) struct GpuSteps {
    program: Program,
    /// Images of the intake.
    images: [Box<dyn Pinned>; 2],
    /// Losses of a step, one f32 per loss layer; where losses are scaled, the state of the scale after the step comes first.
    losses: [Box<dyn Pinned>; 2],
    /// Addresses of the losses.
    from: Vec<Ptr>,
    /// Which of the two the next step takes.
    turn: usize,
    /// Whether the losses of the last step have not been read.
    waits: bool,
    /// The gradients of the pass that it was made for.
    gradients: Ptr,
    /// Where losses are scaled: the address of the state of the scale, and its state after the step whose loss was returned last.
    scale: Option<Ptr>,
    scaled: Option<ScaleState>,
}

/// Bytes of the state of a scale.
const STATE: usize = size_of::<ScaleState>();

impl GpuSteps {
    /// Records the steps of `pass` and of an optimizer, which appends the launches of its own that read the learning rate at an
    /// address of a [`Step`], and allocates their host memory. Losses are multiplied by the number with which the [`ScaleState`] at
    /// `scale` begins.
    ///
    /// # Errors
    /// A net that does not end in a loss; out of memory.
    pub fn new(pass: &mut GpuPass, scale: Option<Ptr>, optimizer: impl FnOnce(Ptr, &mut Recorder<'_>)) -> Result<Self> {
        let net = pass.net.clone();
        let last = net.layers.len() - 1;
        net.seed(last, pass.plan.n, None)?;
        let backward = scale.map(|scale| pass.record_scaled(scale)).transpose()?;
        let launches = record(pass, backward, optimizer)?;
        let losses = (0..=last).filter(|&l| net.layers[l].op.target().is_some());
        let from: Vec<Ptr> = losses.map(|l| pass.memory.find(&pass.plan.values[l + 1])).collect();
        let pinned = |bytes: usize| -> Result<[Box<dyn Pinned>; 2]> {
            Ok([pass.gpu.driver.pinned(bytes)?, pass.gpu.driver.pinned(bytes)?])
        };
        Ok(Self {
            program: pass.program(launches)?,
            images: pinned(pass.intake.len())?,
            losses: pinned(STATE + 4 * from.len())?,
            from,
            turn: 0,
            waits: false,
            gradients: pass.gradients_at(),
            scale,
            scaled: None,
        })
    }

    /// Starts a step; returns the loss of the step before, if it has not been returned yet.
    ///
    /// # Errors
    /// A pass other than the one it was made for; a launch that failed.
    pub fn run(
        &mut self,
        pass: &mut GpuPass,
        input: &Input,
        seed: u64,
        targets: Targets<'_>,
        rate: f32,
    ) -> Result<Option<f32>> {
        if pass.gradients_at() != self.gradients {
            return Err(Error::network(&pass.net.spec.place, "the steps were made for another session"));
        }
        pass.set_seed(1.0)?;
        let now = self.turn;
        let image = &mut self.images[now];
        let bytes = image.bytes()?;
        let step = Step { seed, rate, unused: 0 };
        let mut end = 0;
        let mut write = |part: Part, content: &[u8]| {
            let start = pass.intake.range(part).start;
            bytes[start..start + content.len()].copy_from_slice(content);
            end = start + content.len();
        };
        write(Part::Step, bytemuck::bytes_of(&step));
        write(Part::Classes, bytemuck::cast_slice(targets.classes));
        write(Part::Targets, bytemuck::cast_slice(targets.values));
        write(Part::Windows, bytemuck::cast_slice(input.windows()));
        write(Part::Data, bytemuck::cast_slice(input.data()));
        pass.intake.upload(&mut **image, end)?;
        self.program.run(&pass.gpu)?;
        for (i, &from) in self.from.iter().enumerate() {
            self.losses[now].download(from, STATE + 4 * i..STATE + 4 * i + 4)?;
        }
        if let Some(scale) = self.scale {
            self.losses[now].download(scale, 0..STATE)?;
        }
        self.turn = 1 - now;
        let waited = std::mem::replace(&mut self.waits, true);
        if waited { self.loss(1 - now).map(Some) } else { Ok(None) }
    }

    /// Waits for the last step; returns its loss, if it has not been returned yet.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn finish(&mut self) -> Result<Option<f32>> {
        if !std::mem::replace(&mut self.waits, false) {
            return Ok(None);
        }
        self.loss(1 - self.turn).map(Some)
    }

    /// If the step whose loss was returned last was skipped because its gradients were not finite: the scale after it.
    pub fn skipped(&self) -> Option<LossScale> {
        self.scaled.filter(|state| state.is_skipped()).map(ScaleState::public)
    }

    /// The sum of the losses in one of the two buffers.
    fn loss(&mut self, which: usize) -> Result<f32> {
        let (state, losses) = self.losses[which].bytes()?.split_at(STATE);
        self.scaled = self.scale.map(|_| bytemuck::pod_read_unaligned(state));
        Ok(bytemuck::pod_collect_to_vec::<u8, f32>(losses).iter().sum())
    }
}

/// The launches of a step, with a backward pass other than that of `pass` if there is one.
fn record(
    pass: &GpuPass,
    backward: Option<Vec<Launch>>,
    optimizer: impl FnOnce(Ptr, &mut Recorder<'_>),
) -> Result<Vec<Launch>> {
    let net = &pass.net;
    let programs = pass
        .training
        .as_ref()
        .ok_or_else(|| Error::network(&net.spec.place, "has no gradients: the session runs forward only"))?;
    let mut to = Recorder::new(&pass.gpu);
    to.label("input");
    let (n, shape) = (pass.plan.n, net.spec.input);
    let (data, out) = (pass.intake.address(Part::Data), pass.memory.find(&pass.plan.values[INPUT]));
    if pass.form().resamples() {
        let (windows, normalise) = (pass.intake.address(Part::Windows), net.spec.normalise);
        Batch { photos: data, windows, out, n, h: shape.h, w: shape.w, normalise }.record_samples(&mut to);
    } else {
        gpu::cast_from_f32(&mut to, data, out, n * shape.len());
    }
    to.launches.extend_from_slice(&programs.forward.launches[usize::from(pass.casts())..]);
    match backward {
        Some(backward) => to.launches.extend(backward),
        None => to.launches.extend_from_slice(&programs.backward.launches),
    }
    to.label("optimizer");
    optimizer(pass.intake.address(Part::Step), &mut to);
    Ok(to.launches)
}

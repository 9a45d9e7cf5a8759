//! Whole steps of training: forward, backward and optimizer, whose loss is read when it is there. On a GPU a step is one graph,
//! and its loss is there while the next step runs.

use super::gpu::GpuSteps;
use super::sgd::Scaling;
use super::{Input, LossScale, Session, Sgd};
use crate::ops::{Mode, Targets};
use crate::{Error, Result};

/// The steps of a session and its optimizer.
#[derive(Default)]
pub struct Steps {
    /// On a GPU, once there has been a step.
    on_gpu: Option<Box<GpuSteps>>,
    /// The same without the optimizer, once there have been gradients.
    gradients_on_gpu: Option<Box<GpuSteps>>,
}

impl Steps {
    /// Runs or starts a step: a forward pass in training mode, with the dropout masks of `seed`, a backward pass, and the
    /// optimizer at learning rate `rate`. Returns the loss of the latest step whose loss is known and has not been returned:
    /// on the CPU of this step, on a GPU of the one before.
    ///
    /// On the CPU, a loss that is not finite leaves the parameters as they were. On a GPU, this step and the next have changed
    /// them when it is known. In f16, losses are scaled ([`LossScale`]), and a step whose gradients are not finite changes nothing
    /// but the scale.
    ///
    /// # Errors
    /// An input of another form; targets that do not fit the losses; a net that does not end in a loss; a session or an
    /// optimizer other than those of the first step; out of memory; a launch that failed.
    pub fn run(
        &mut self,
        session: &mut Session,
        optimizer: &mut Sgd,
        input: &Input,
        seed: u64,
        targets: Targets<'_>,
        rate: f32,
    ) -> Result<Option<f32>> {
        input.check(session.input_form(), &session.net().spec.place)?;
        let mode = Mode::Training { seed };
        if session.gpu_pass().is_none() {
            let loss = gradients_on_cpu(session, input, mode, targets)?;
            if loss.is_finite() {
                optimizer.step(session, rate)?;
            }
            return Ok(Some(loss));
        }
        session.start(mode, targets)?;
        let other = Error::network(&session.net().spec.place, "the optimizer was made for another session");
        let pass = session.gpu_pass_mut();
        let (Some(pass), Some(sgd)) = (pass, optimizer.gpu()) else { return Err(other) };
        if sgd.gradients_at() != pass.gradients_at() {
            return Err(other);
        }
        let steps = match &mut self.on_gpu {
            Some(steps) => steps,
            none => {
                let scale = sgd.scaling().map(Scaling::at);
                none.insert(Box::new(GpuSteps::new(pass, scale, |step, to| sgd.record(step, to))?))
            }
        };
        steps.run(pass, input, seed, targets, rate)
    }

    /// The backward pass of the session's last forward pass, and the optimizer at learning rate `rate`. In f16 the loss is scaled, and
    /// the step skipped, as in [`Steps::run`], but its scale is asked for.
    ///
    /// # Errors
    /// No previous forward pass; a net that does not end in a loss; another session; a launch that failed.
    pub fn update(&mut self, session: &mut Session, optimizer: &mut Sgd, rate: f32) -> Result<()> {
        match optimizer.loss_scale()? {
            Some(scale) => session.backward_scaled(scale.scale)?,
            None => session.backward(None)?,
        }
        optimizer.step_scaled(session, rate)
    }

    /// If the step whose loss was returned last was skipped, because its gradients were not finite in f16: the scale after it.
    pub fn skipped(&self) -> Option<LossScale> {
        self.on_gpu.as_ref().and_then(|steps| steps.skipped())
    }

    /// The part of a step before the optimizer: the gradients of a batch are those of the session afterwards. Returns the loss. If
    /// that is not finite, there are no gradients.
    ///
    /// # Errors
    /// As [`Steps::run`].
    pub fn gradients(&mut self, session: &mut Session, input: &Input, seed: u64, targets: Targets<'_>) -> Result<f32> {
        input.check(session.input_form(), &session.net().spec.place)?;
        let mode = Mode::Training { seed };
        if session.gpu_pass().is_none() {
            return gradients_on_cpu(session, input, mode, targets);
        }
        session.start(mode, targets)?;
        let Some(pass) = session.gpu_pass_mut() else { return Ok(f32::NAN) };
        let steps = match &mut self.gradients_on_gpu {
            Some(steps) => steps,
            none => none.insert(Box::new(GpuSteps::new(pass, None, |_, _| ())?)),
        };
        steps.run(pass, input, seed, targets, 0.0)?;
        Ok(steps.finish()?.unwrap_or(f32::NAN))
    }

    /// Waits for the last step, if its loss has not been returned, and returns it.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn finish(&mut self) -> Result<Option<f32>> {
        self.on_gpu.as_mut().map_or(Ok(None), |steps| steps.finish())
    }
}

/// The loss of a batch, and if it is finite its gradients, which are those of the session afterwards.
fn gradients_on_cpu(session: &mut Session, input: &Input, mode: Mode, targets: Targets<'_>) -> Result<f32> {
    session.set_input(input.data())?;
    session.forward(mode, targets)?;
    let loss = session.loss()?;
    if loss.is_finite() {
        session.backward(None)?;
    }
    Ok(loss)
}

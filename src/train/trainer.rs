//! Training steps on any device.

use crate::Result;
use crate::device::Device;
use crate::net::{Input, InputForm, LossScale, Net, Parameters, Purpose, Session, Sgd, SgdConfig, Steps};
use crate::ops::{Mode, Targets};
use std::borrow::Cow;
use std::sync::Arc;

/// A net, its parameters and its optimizer on a device.
///
/// [`Trainer::step`] is a whole step, on a GPU one graph, whose loss is known when the next step runs. [`Trainer::forward`] and
/// [`Trainer::update`] are its halves, with the loss in between.
///
/// ```
/// use std::sync::Arc;
/// use weft::device::Device;
/// use weft::net::{Net, SgdConfig, Spec};
/// use weft::ops::{Mode, Targets};
/// use weft::train::Trainer;
///
/// let text = "name = 'xor'\ninput = [2, 1, 1]\nlayer = [
///     { name = 'a', type = 'linear', outputs = 8, activation = 'relu' },
///     { name = 'b', type = 'linear', outputs = 2 },
///     { name = 'loss', type = 'softmax_cross_entropy' }]";
/// let net = Arc::new(Net::new(Spec::parse(text, "xor.toml")?)?);
/// let parameters = net.initial_parameters(1);
/// let mut trainer = Trainer::new(&Device::Cpu, net, 4, SgdConfig::default(), parameters)?;
/// let batch = [0.0, 0.0, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0];
/// let targets = Targets { classes: &[0, 1, 1, 0], values: &[] };
/// let first = trainer.forward(&batch, Mode::Training { seed: 0 }, targets)?;
/// for step in 0..200 {
///     trainer.update(0.1)?;
///     trainer.forward(&batch, Mode::Training { seed: step }, targets)?;
/// }
/// let last = trainer.forward(&batch, Mode::Inference, targets)?;
/// assert!(last < 0.1 * first, "{first} to {last}");
/// # Ok::<(), weft::Error>(())
/// ```
pub struct Trainer {
    session: Session,
    optimizer: Sgd,
    steps: Steps,
}

impl Trainer {
    /// Starts from `parameters` (the flat vector of `net`), with zero momentum, for batches of `batch` samples.
    ///
    /// # Errors
    /// A rate factor for a layer that the net does not have; out of memory.
    pub fn new(device: &Device, net: Arc<Net>, batch: usize, config: SgdConfig, parameters: Vec<f32>) -> Result<Self> {
        let parameters = Parameters::on(device, &net, parameters)?;
        let session = Session::new(net, &parameters, batch, Purpose::Training)?;
        Ok(Self { optimizer: Sgd::new(&session, config)?, session, steps: Steps::default() })
    }

    /// The form of the input of [`Trainer::step`].
    pub fn input_form(&self) -> InputForm {
        self.session.input_form()
    }

    /// Runs or starts a step on a batch, with the dropout masks of `seed`, at learning rate `rate`. Returns the loss of the latest
    /// step whose loss is known and has not been returned: on the CPU of this step, on a GPU of the one before.
    ///
    /// On the CPU, a loss that is not finite leaves the parameters as they were. On a GPU, this step and the next have changed
    /// them when it is known. In f16, losses are scaled ([`LossScale`]), and a step whose gradients are not finite changes nothing
    /// but the scale.
    ///
    /// # Errors
    /// An input of another form; targets that do not fit the losses; a launch that failed.
    pub fn step(&mut self, input: &Input, seed: u64, targets: Targets<'_>, rate: f32) -> Result<Option<f32>> {
        self.steps.run(&mut self.session, &mut self.optimizer, input, seed, targets, rate)
    }

    /// The part of a step before the optimizer: writes the gradients of the losses of a batch into `gradients`, a flat vector, and
    /// returns their loss. If that is not finite, the gradients are zero.
    ///
    /// # Errors
    /// As [`Trainer::step`].
    pub fn differentiate(
        &mut self,
        input: &Input,
        seed: u64,
        targets: Targets<'_>,
        gradients: &mut [f32],
    ) -> Result<f32> {
        let loss = self.steps.gradients(&mut self.session, input, seed, targets)?;
        if loss.is_finite() {
            gradients.copy_from_slice(&self.session.gradients()?);
        } else {
            gradients.fill(0.0);
        }
        Ok(loss)
    }

    /// The rest of a step: moves the parameters by `gradients`, a flat vector, at learning rate `rate`.
    ///
    /// # Errors
    /// A vector of another length; a launch that failed.
    pub fn apply(&mut self, gradients: &[f32], rate: f32) -> Result<()> {
        self.session.set_gradients(gradients)?;
        self.optimizer.step(&self.session, rate)
    }

    /// Waits for the last step, if its loss has not been returned, and returns it: to call before parameters are kept.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn finish(&mut self) -> Result<Option<f32>> {
        self.steps.finish()
    }

    /// Runs the batch `[n, h, w, c]` forward; returns the sum of all losses.
    ///
    /// # Errors
    /// A batch of another length; targets that do not fit the losses; a launch that failed.
    pub fn forward(&mut self, batch: &[f32], mode: Mode, targets: Targets<'_>) -> Result<f32> {
        self.session.set_input(batch)?;
        self.session.forward(mode, targets)?;
        self.session.loss()
    }

    /// Runs the backward pass of the last forward pass, and a step of the optimizer at learning rate `rate`.
    ///
    /// # Errors
    /// No previous forward pass; a launch that failed.
    pub fn update(&mut self, rate: f32) -> Result<()> {
        self.steps.update(&mut self.session, &mut self.optimizer, rate)
    }

    /// If the step whose loss was returned last was skipped, because its gradients were not finite in f16: the scale of losses
    /// after it.
    pub fn skipped(&self) -> Option<LossScale> {
        self.steps.skipped()
    }

    /// The scale of losses; `None` but in f16.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn loss_scale(&self) -> Result<Option<LossScale>> {
        self.optimizer.loss_scale()
    }

    /// Replaces it; without effect but in f16.
    ///
    /// # Errors
    /// Numbers that no training arrives at; a launch that failed.
    pub fn set_loss_scale(&mut self, scale: LossScale) -> Result<()> {
        self.optimizer.set_loss_scale(scale)
    }

    /// Waits until the device has finished all submitted work.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn synchronize(&self) -> Result<()> {
        self.session.synchronize()
    }

    /// The parameters on their device, updated by the trainer.
    pub fn parameters(&self) -> &Parameters {
        self.session.parameters()
    }

    /// The momentum, as a flat vector.
    ///
    /// # Errors
    /// A launch that failed.
    pub fn momentum(&self) -> Result<Cow<'_, [f32]>> {
        self.optimizer.momentum()
    }

    /// Restores the state of another trainer of the same net.
    ///
    /// # Errors
    /// Vectors of another length; a launch that failed.
    pub fn restore(&mut self, parameters: &[f32], momentum: &[f32]) -> Result<()> {
        self.parameters().write(parameters)?;
        self.optimizer.set_momentum(momentum)
    }
}

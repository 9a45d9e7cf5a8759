//! The training loop: batches from worker threads, forward, backward, step; log, validation, weights, checkpoints. On several
//! ranks each runs the loop on its shards ([`super::sharded`]); rank 0 writes files and tells.

use super::Trainer;
use super::checkpoint::{self, State};
use super::config::Config;
use super::listing;
use super::network::Network;
use super::sampler::{MASKS, SAMPLES, Sampler};
use super::sharded::{self, Sharded};
use super::source::{Item, Source};
use super::view::Cutter;
use crate::data::prefetch::Prefetch;
use crate::data::resample::Resampler;
use crate::data::table::{self, Table};
use crate::device::{Device, Precision};
use crate::dist::World;
use crate::error::At;
use crate::lock::Lock;
use crate::memory;
use crate::metrics::{self, Means};
use crate::net::{Input, InputForm, LossScale, Net, Parameters, Purpose, Session};
use crate::ops::Targets;
use crate::rng::Rng;
use crate::weights::{Dtype, TAGS, TensorFile, keep_inputs, sweep, write_atomic};
use crate::{Error, Result};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use std::io::Write;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

/// Steps summarised by one log line.
const LOG_STEPS: usize = 20;
/// Batches that are prefetched for the loop.
const AHEAD: usize = 4;
/// Steps between two comparisons of the ranks' weights.
const COMPARED: usize = 100;

/// Progress events of a run.
#[derive(Debug, Clone)]
pub enum Event<'a> {
    /// Once, before the first step.
    Start {
        /// Steps of the whole run.
        steps: usize,
        /// Steps completed before.
        first: usize,
        /// Training photos.
        photos: usize,
        /// Parameters of the net.
        parameters: usize,
        /// Skipped photos and lines.
        skipped: &'a [Error],
        /// Tensors that are missing from the initial weights.
        fresh: &'a [String],
        /// In f16, what losses are multiplied by, so that gradients are in its range. bf16 needs nothing of the kind.
        loss_scale: Option<LossScale>,
    },
    /// Once the loss of a step is known: after it, on a GPU while the next one runs.
    Step {
        /// Completed steps.
        step: usize,
        /// Completed passes over all photos.
        epoch: f64,
        /// Loss of the step's batch.
        loss: f32,
        /// Learning rate of the step.
        rate: f32,
    },
    /// After [`Event::Step`], in f16: the step was skipped, because its gradients were not finite.
    Skipped {
        /// Completed steps.
        step: usize,
        /// What losses are multiplied by from then on, and the number of skipped steps.
        loss_scale: LossScale,
    },
    /// During validation.
    Looking {
        /// Photos completed.
        done: usize,
        /// Photos of the validation split.
        of: usize,
    },
    /// After a validation.
    Validation {
        /// Completed steps.
        step: usize,
        /// The results.
        validation: Validation,
    },
}

/// Metrics over the validation split.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Validation {
    /// Mean loss per value.
    pub loss: f64,
    /// Accuracy of the tags.
    pub means: Means,
}

/// The outcome of a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// Completed steps.
    pub steps: usize,
    /// Steps of the whole run: greater than `steps` if it was stopped.
    pub of: usize,
    /// The last validation.
    pub validation: Option<Validation>,
    /// Weights after the last step; absent if the run was stopped.
    pub weights: Option<PathBuf>,
    /// Weights of the lowest validation loss so far.
    pub best: Option<PathBuf>,
    /// Time that this call took.
    pub seconds: f64,
    /// The part of it that went into sums over ranks, waiting for the slowest of them included.
    pub summing: f64,
}

/// Files in a run's folder.
const NET: &str = "net.toml";
const LAST: &str = "last.safetensors";
const BEST: &str = "best.safetensors";
const LOG: &str = "log.csv";

/// A shard of a batch, ready for the net.
pub(super) struct Batch {
    pub input: Input,
    pub classes: Vec<u32>,
    pub tags: Vec<f32>,
}

impl Batch {
    pub fn targets(&self) -> Targets<'_> {
        Targets { classes: &self.classes, values: &self.tags }
    }
}

/// Runs a training file on `device`. With `resume`, continues from the checkpoint in its folder, if there is one. Once `stop` is
/// set, stops after the current step, with a checkpoint.
///
/// The folder gets `net.toml` (the net with its head), `last.safetensors`, `best.safetensors` (lowest validation loss, if
/// there is a validation split), `checkpoint.safetensors` and `log.csv`.
///
/// # Errors
/// Data, net or initial weights that cannot be read or do not fit; a folder with results of another run, or in use by another
/// process; a result that would replace a file that the run reads; an unreadable photo; a loss that is not finite; a file
/// that cannot be written.
pub fn run(
    config: &Config,
    device: &Device,
    resume: bool,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    run_in(&World::alone(), config, device, resume, stop, tell)
}

/// The same on all ranks of `world`, which divide the shards of each batch among them: the weights have the same bits for any
/// number of ranks, and a checkpoint can be resumed on another number. Rank 0 writes the files and tells events, and a stop that
/// one rank is asked for stops all of them after the same step. All ranks read the data.
///
/// # Errors
/// As [`run`], on all ranks; a number of ranks that does not divide the shards; ranks that see other settings or photos than rank 0;
/// no answer from all ranks in time.
pub fn run_in(
    world: &World,
    config: &Config,
    device: &Device,
    resume: bool,
    stop: &AtomicBool,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Outcome> {
    let began = Instant::now();
    let mut silent = |_: Event<'_>| ();
    let tell = if world.is_first() { tell } else { &mut silent };
    let prepared = world.agree_prepared(Prepared::new(world, config, device, resume))?;
    let Prepared { source, network, cutter, sampler, mut trainer, fresh, folder, mut state, momentum } = prepared;
    let net = &network.net;
    sharded::compare(world, config, &state.run)?;
    if world.size() > 1 {
        sharded::spread(world, &mut state, &mut trainer, &momentum)?;
    }
    let log = folder.as_ref().map_or_else(|| Ok(Log::default()), |folder| Log::open(folder.log(), state.step));
    let mut log = world.agree(log)?;
    let steps = sampler.steps() * config.epochs;
    let skipped = [&source.problems[..], cutter.problems()].concat();
    tell(Event::Start {
        steps,
        first: state.step,
        photos: source.train.len(),
        parameters: net.parameter_len(),
        skipped: &skipped,
        fresh: &fresh,
        loss_scale: trainer.loss_scale()?,
    });

    let named = if config.stage.has_tags() { table::line(&source.tags) } else { String::new() };
    // Rank 0 writes, and all ranks go on if it could.
    let save = |name: &str, trainer: &Trainer, step: usize| -> Result<PathBuf> {
        let path = config.output.join(name);
        let metadata = [
            ("weft.stage".to_string(), config.stage.name().to_string()),
            ("weft.step".into(), step.to_string()),
            (TAGS.into(), named.clone()),
        ];
        let write = || net.save_parameters(&path, &trainer.parameters().read()?, Dtype::F32, &metadata);
        world.agree(if world.is_first() { write() } else { Ok(()) })?;
        Ok(path)
    };
    let Source { train, validation: held_out, tags, .. } = source;
    let mut sharded = Sharded::new(world, config, net.parameter_len())?;
    let own = sharded.own();
    let form = trainer.input_form();
    let mut batches = batches(config, form, cutter.clone(), train, tags.len(), sampler, state.step..steps, own);
    let mut losses = Losses { config, running: VecDeque::new(), steps };
    let per_epoch = steps / config.epochs;

    while state.step < steps {
        let rate = config.schedule.rate(state.step as f64 / steps as f64, config.epochs as f64);
        let step = state.step;
        let (loss, asked) = if config.shards == 1 {
            let Some(batch) = batches.next() else { break };
            let batch = batch?;
            (trainer.step(&batch.input, mask_seed(config.seed, step, 0), batch.targets(), rate)?, false)
        } else {
            let seeds = |shard| mask_seed(config.seed, step, shard);
            let stop = stop.load(Ordering::Relaxed);
            let (loss, asked) = sharded.step(&mut trainer, &mut batches, &seeds, rate, stop)?;
            (Some(loss), asked)
        };
        state.step += 1;
        losses.running.push_back((state.step, rate));
        let settled = losses.settle(loss, trainer.skipped(), &mut state, &mut log, tell);
        // All ranks know of a loss that is not finite.
        if loss.is_some_and(f32::is_finite) || world.size() == 1 {
            settled?
        } else {
            world.agree(settled)?
        }

        let epochs_done = state.step / per_epoch;
        let look = state.step.is_multiple_of(per_epoch)
            && (epochs_done.is_multiple_of(config.validate_every) || epochs_done == config.epochs);
        if look && !held_out.is_empty() {
            let loss = trainer.finish()?;
            losses.settle(loss, trainer.skipped(), &mut state, &mut log, tell)?;
            let epoch = state.step as f64 / per_epoch as f64;
            let found =
                validate(world, &network, trainer.parameters(), &cutter, &held_out, &tags, config.shard(), tell)?;
            log.line(state.step, epoch, None, Some(found))?;
            if state.best.is_none_or(|best| found.loss < best) {
                state.best = Some(found.loss);
                save(BEST, &trainer, state.step)?;
            }
            state.validation = Some(found);
            tell(Event::Validation { step: state.step, validation: found });
        }
        // Several ranks stop because one of them was asked to before the step.
        let asked = if world.size() > 1 { asked } else { stop.load(Ordering::Relaxed) };
        let stopped = asked && state.step < steps;
        if stopped || look || state.step.is_multiple_of(config.checkpoint_every) || state.step == steps {
            // Weights are kept only once the losses of all steps are known to be finite.
            let loss = trainer.finish()?;
            losses.settle(loss, trainer.skipped(), &mut state, &mut log, tell)?;
            state.loss_scale = trainer.loss_scale()?;
            let write = |folder: &RunFolder| {
                log.flush()?;
                let parameters = trainer.parameters().read()?;
                checkpoint::save(&folder.checkpoint(), net, &parameters, &trainer.momentum()?, &state)
            };
            world.agree(folder.as_ref().map_or(Ok(()), write))?;
        }
        if state.step.is_multiple_of(COMPARED) || state.step == steps {
            sharded::compare_weights(world, &trainer, state.step)?;
        }
        if stopped {
            break;
        }
    }
    let finished = state.step == steps;
    let weights = if finished { Some(save(LAST, &trainer, steps)?) } else { None };
    let best = state.best.map(|_| config.output.join(BEST));
    let seconds = began.elapsed().as_secs_f64();
    let summing = sharded.spent().as_secs_f64();
    Ok(Outcome { steps: state.step, of: steps, validation: state.validation, weights, best, seconds, summing })
}

/// The folder of a run, which rank 0 holds until the run is over.
struct RunFolder {
    path: PathBuf,
    _lock: Lock,
}

impl RunFolder {
    fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    fn checkpoint(&self) -> PathBuf {
        self.path.join(checkpoint::FILE)
    }
}

/// What is there before the first step.
struct Prepared {
    source: Source,
    network: Network,
    cutter: Arc<Cutter>,
    sampler: Sampler,
    trainer: Trainer,
    fresh: Vec<String>,
    /// Of rank 0.
    folder: Option<RunFolder>,
    /// On rank 0 that of the checkpoint, if there is one; on others that of a new run.
    state: State,
    momentum: Vec<f32>,
}

impl Prepared {
    fn new(world: &World, config: &Config, device: &Device, resume: bool) -> Result<Self> {
        if config.shards > 1 && device.gpu().is_some_and(|gpu| gpu.precision == Precision::F16) {
            return Err(Error::device("training in f16 with shards", "losses are scaled for whole batches only")
                .advise("use --precision bf16, tf32 or f32"));
        }
        Sharded::check(world, config)?;
        let source = Source::open(config)?;
        let network = Network::new(config, &source)?;
        let net = &network.net;
        let cutter = Arc::new(Cutter::new(config, &source, &net.spec)?);
        let sampler = Sampler::new(config, &source.train);

        // Parameters twice, gradients and momentum.
        memory::check(format!("{}: parameters", net.spec.place), 4 * net.parameter_bytes())?;
        let mut parameters = net.initial_parameters(config.seed);
        let mut fresh = Vec::new();
        if let Some(init) = &config.init {
            fresh = read_init(net, init, &mut parameters)?;
        }
        let optimizer = config.optimizer.clone();
        let mut trainer = Trainer::new(device, net.clone(), config.shard(), optimizer, parameters.clone())?;
        let files = [NET, LAST, BEST, LOG, checkpoint::FILE];
        for file in files {
            keep_inputs("output", config.output.join(file), config.reads().iter().map(|(_, path)| path))?;
        }
        // Held until the run is over, so acquired before anything in the folder is read.
        let lock = || Lock::take(&config.output, &format!("a training run, {}", config.stage.name()));
        let folder = match world.is_first() {
            true => Some(RunFolder { _lock: lock()?, path: config.output.clone() }),
            false => None,
        };
        let run = listing::list(config, &source, &network, &cutter)?;
        let loss_scale = trainer.loss_scale()?;
        let mut state = State { step: 0, run, losses: (0.0, 0), best: None, validation: None, loss_scale };
        let mut momentum = Vec::new();
        if let Some(folder) = &folder {
            let checkpoint = folder.checkpoint();
            if checkpoint.exists() {
                if !resume {
                    return Err(Error::file(&config.output, "holds a run already")
                        .advise("resume it, or choose another output folder"));
                }
                momentum = vec![0.0; parameters.len()];
                state = checkpoint::load(&checkpoint, net, &state.run, &mut parameters, &mut momentum)?;
                trainer.restore(&parameters, &momentum)?;
                if let Some(scale) = state.loss_scale {
                    trainer.set_loss_scale(scale)?;
                }
            }
            sweep(&config.output, &files);
            write_atomic(config.output.join(NET), |file| file.write_all(network.trained.to_toml().as_bytes()))?;
        }
        Ok(Self { source, network, cutter, sampler, trainer, fresh, folder, state, momentum })
    }
}

/// The steps whose losses are not known yet, and what is done with a loss.
struct Losses<'a> {
    config: &'a Config,
    /// Number (counted from 1) and learning rate of each such step.
    running: VecDeque<(usize, f32)>,
    /// Steps of the whole run.
    steps: usize,
}

impl Losses<'_> {
    /// Takes the loss of the earliest of the steps, if it is known: tells it, adds it to the state, and writes a line of the log
    /// where one is due. `skipped`, if the step was: the scale of losses after it.
    ///
    /// # Errors
    /// A loss that is not finite; gradients that no scale makes finite; a log that cannot be written.
    fn settle(
        &mut self,
        loss: Option<f32>,
        skipped: Option<LossScale>,
        state: &mut State,
        log: &mut Log,
        tell: &mut dyn FnMut(Event<'_>),
    ) -> Result<()> {
        let Some(loss) = loss else { return Ok(()) };
        let Some((step, rate)) = self.running.pop_front() else { return Ok(()) };
        if !loss.is_finite() {
            return Err(Error::file(&self.config.output, format!("the loss is {loss} at step {step}")).advise(
                format!("lower schedule.rate (it was {rate}) or set optimizer.clip_norm; earlier weights are kept"),
            ));
        }
        state.losses.0 += f64::from(loss);
        state.losses.1 += 1;
        let epoch = step as f64 / (self.steps / self.config.epochs) as f64;
        tell(Event::Step { step, epoch, loss, rate });
        if let Some(loss_scale) = skipped {
            tell(Event::Skipped { step, loss_scale });
            if loss_scale.scale <= LossScale::LEAST {
                let found =
                    format!("the gradients are not finite in f16 at step {step}, however small the loss is made");
                return Err(Error::file(&self.config.output, found)
                    .advise("use --precision bf16, which has the range; earlier weights are kept"));
            }
        }
        if step.is_multiple_of(LOG_STEPS) || step == self.steps {
            log.line(step, epoch, Some((rate, state.losses.0 / state.losses.1 as f64)), None)?;
            state.losses = (0.0, 0);
        }
        Ok(())
    }
}

/// Reads the layers that file and net share; returns the names of those that start from random weights. A head of another
/// shape belongs to another task and is initialised randomly.
fn read_init(net: &Net, path: &std::path::Path, parameters: &mut [f32]) -> Result<Vec<String>> {
    let file = TensorFile::open(path)?;
    let mut fresh = Vec::new();
    for parameter in &net.parameters {
        let head = net.layers[parameter.layer].name == super::network::HEAD;
        match file.get(&parameter.name) {
            Some(tensor) if tensor.shape == parameter.tensor.shape => {
                parameter.tensor.order.pack(&tensor.to_f32()?, &mut parameters[parameter.range.clone()]);
            }
            Some(tensor) if !head => {
                return Err(tensor
                    .error(format!("has shape {:?}, but the net needs {:?}", tensor.shape, parameter.tensor.shape))
                    .advise("take weights of this net for `init`"));
            }
            _ => fresh.push(parameter.name.clone()),
        }
    }
    if fresh.len() == net.parameters.len() {
        return Err(Error::file(path, format!("holds no layer of the net {}", net.spec.place))
            .advise("take weights of this net for `init`"));
    }
    Ok(fresh)
}

/// The seed of the dropout masks of a shard of a step.
fn mask_seed(seed: u64, step: usize, shard: usize) -> u64 {
    let mut rng = Rng::new(seed, MASKS + step as u64);
    let mut next = || (u64::from(rng.word()) << 32) | u64::from(rng.word());
    (0..shard).fold(next(), |_, _| next())
}

/// The shards `own` of the batches of `steps`, prepared ahead of the loop, by one worker per four threads of rayon's pool.
#[expect(clippy::too_many_arguments, reason = "all of them are needed on the workers' threads")]
fn batches(
    config: &Config,
    form: InputForm,
    cutter: Arc<Cutter>,
    items: Vec<Item>,
    tags: usize,
    sampler: Sampler,
    steps: Range<usize>,
    own: Range<usize>,
) -> Prefetch<Result<Batch>> {
    let workers = rayon::current_num_threads().div_ceil(4);
    let (seed, batch, shard) = (config.seed, config.batch, config.shard());
    let jobs = steps.flat_map(move |step| {
        let numbers = sampler.batch(step);
        // A sample is a function of its place in the whole batch.
        own.clone().map(move |own| (step * batch + own * shard, numbers[own * shard..(own + 1) * shard].to_vec()))
    });
    let tagged = config.stage.has_tags();
    Prefetch::new(workers, AHEAD, jobs, move |(first, numbers)| {
        let mut resampler = Resampler::default();
        let mut input = form.batch();
        let mut values = vec![0.0; shard * tags];
        for (slot, &number) in numbers.iter().enumerate() {
            let mut rng = Rng::new(seed, SAMPLES + (first + slot) as u64);
            let values = &mut values[slot * tags..(slot + 1) * tags];
            cutter.draw(&items[number], &mut rng, &mut resampler, &mut input, values)?;
        }
        let classes = if tagged { Vec::new() } else { numbers.iter().map(|&number| items[number].class).collect() };
        Ok(Batch { input, classes, tags: if tagged { values } else { Vec::new() } })
    })
}

/// Scores of each photo averaged over its fixed views, compared with its tags. Each rank scores neighbouring photos; the scores are
/// compared in the order of the photos, so the result does not depend on the number of ranks.
#[expect(clippy::too_many_arguments, reason = "a part of the loop that is long enough for a function")]
fn validate(
    world: &World,
    network: &Network,
    parameters: &Parameters,
    cutter: &Arc<Cutter>,
    items: &[Item],
    tags: &[String],
    batch: usize,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Validation> {
    let place = |rank: usize| items.len() * rank / world.size();
    let own = &items[place(world.rank())..place(world.rank() + 1)];
    let own = world.agree(scores(network, parameters, cutter, own, tags.len(), batch, tell))?;
    let scores = match world.size() {
        1 => own,
        _ => bytemuck::pod_collect_to_vec(&world.gather(bytemuck::cast_slice(&own).to_vec())?.concat()),
    };
    let truth: Vec<bool> = items.iter().flat_map(|item| item.tags.iter().map(|tag| *tag > 0.5)).collect();
    let cross_entropy = |(score, truth): (&f32, &bool)| {
        let score = f64::from(*score);
        score.max(0.0) - if *truth { score } else { 0.0 } + (-score.abs()).exp().ln_1p()
    };
    let loss = scores.iter().zip(&truth).map(cross_entropy).sum::<f64>() / scores.len() as f64;
    Ok(Validation { loss, means: metrics::means(&metrics::accuracies(tags, &scores, &truth)) })
}

/// The scores of photos, each averaged over its fixed views.
fn scores(
    network: &Network,
    parameters: &Parameters,
    cutter: &Arc<Cutter>,
    items: &[Item],
    outputs: usize,
    batch: usize,
    tell: &mut dyn FnMut(Event<'_>),
) -> Result<Vec<f32>> {
    let (views, sample) = (cutter.views(), cutter.sample_len());
    let photos = (batch / views).max(1);
    // Without dropout and losses, and with the same parameters in the same order.
    let net = Arc::new(Net::new(network.trained.clone())?);
    let mut session = Session::new(net, parameters, photos * views, Purpose::Inference)?;
    let jobs: Vec<Vec<Item>> = items.chunks(photos).map(<[Item]>::to_vec).collect();
    let cut = cutter.clone();
    let pixels = Prefetch::new(rayon::current_num_threads().div_ceil(4), AHEAD, jobs.into_iter(), move |items| {
        let mut resampler = Resampler::default();
        let mut pixels = vec![0.0; photos * views * sample];
        for (item, pixels) in items.iter().zip(pixels.chunks_exact_mut(views * sample)) {
            cut.fixed(item, &mut resampler, pixels)?;
        }
        Ok::<_, Error>(pixels)
    });
    let mut scores: Vec<f32> = Vec::with_capacity(items.len() * outputs);
    for (pixels, items_here) in pixels.zip(items.chunks(photos)) {
        session.set_input(&pixels?)?;
        for views in session.infer()?.chunks_exact(views * outputs).take(items_here.len()) {
            let mean =
                |tag: usize| views.iter().skip(tag).step_by(outputs).sum::<f32>() / (views.len() / outputs) as f32;
            scores.extend((0..outputs).map(mean));
        }
        tell(Event::Looking { done: scores.len() / outputs, of: items.len() });
    }
    Ok(scores)
}

/// `log.csv`: one line per [`LOG_STEPS`] steps, and one per validation. That of a rank that writes none has no file.
#[derive(Default)]
struct Log {
    path: PathBuf,
    file: Option<std::fs::File>,
}

impl Log {
    const HEADER: [&str; 7] = ["step", "epoch", "rate", "loss", "validation_loss", "accuracy", "balanced_accuracy"];

    /// Truncates an existing log after the complete lines up to `step`.
    fn open(path: PathBuf, step: usize) -> Result<Self> {
        let mut text = format!("{}\n", table::line(Self::HEADER));
        if let Ok(mut old) = std::fs::read(&path) {
            // A last line without a line break was being written when the run was killed.
            old.truncate(old.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1));
            for row in Table::new(&path, old)?.rows().flatten().skip(1) {
                let done = row.fields[0].parse::<usize>();
                if row.fields.len() == Self::HEADER.len() && done.is_ok_and(|done| done <= step) {
                    text += &table::line(&row.fields);
                    text.push('\n');
                }
            }
        }
        write_atomic(&path, |file| file.write_all(text.as_bytes()))?;
        let file = std::fs::File::options().append(true).open(&path).at(&path)?;
        Ok(Self { path, file: Some(file) })
    }

    fn line(
        &mut self,
        step: usize,
        epoch: f64,
        training: Option<(f32, f64)>,
        validation: Option<Validation>,
    ) -> Result<()> {
        let (rate, loss) =
            training.map_or(Default::default(), |(rate, loss)| (format!("{rate:.6e}"), format!("{loss:.6}")));
        let [validation, accuracy, balanced] = validation.map_or(Default::default(), |v| {
            [v.loss, v.means.accuracy, v.means.balanced_accuracy].map(|figure| format!("{figure:.6}"))
        });
        let row = [step.to_string(), format!("{epoch:.3}"), rate, loss, validation, accuracy, balanced];
        let Some(file) = &mut self.file else { return Ok(()) };
        writeln!(file, "{}", table::line(row)).at(&self.path)
    }

    /// Flushes all lines to disk: a checkpoint must not outlive the lines before it.
    fn flush(&self) -> Result<()> {
        self.file.as_ref().map_or(Ok(()), |file| file.sync_data().at(&self.path))
    }
}

//! Steps whose batch is divided into shards: their gradients are summed in one order, whatever rank computes them
//! ([`crate::dist::reduce`]), and every rank moves its parameters by the same sum. On one rank this is gradient accumulation.
//!
//! Three numbers ride on the vector of gradients: the loss, whether a rank has been asked to stop, and whether one has failed. So all
//! ranks stop, or fail, at the same step, and a step needs no further message.

use super::checkpoint::State;
use super::config::Config;
use super::run::Batch;
use super::trainer::Trainer;
use crate::dist::World;
use crate::dist::reduce::Sum;
use crate::provenance::Provenance;
use crate::{Error, Result};
use std::ops::Range;
use std::time::Duration;

/// What rides on the gradients.
const LOSS: usize = 0;
const STOP: usize = 1;
const FAILED: usize = 2;
const RIDERS: usize = 3;

/// Sharded steps.
pub struct Sharded<'a> {
    world: &'a World,
    sum: Sum,
    shards: usize,
    /// Length of the gradients.
    len: usize,
}

impl<'a> Sharded<'a> {
    /// # Errors
    /// A number of ranks that does not divide the shards.
    pub fn new(world: &'a World, config: &Config, len: usize) -> Result<Self> {
        Ok(Self { world, sum: Sum::new(world, config.shards)?, shards: config.shards, len })
    }

    /// Whether the ranks divide the shards.
    ///
    /// # Errors
    /// They do not: what would.
    pub fn check(world: &World, config: &Config) -> Result<()> {
        let (ranks, batch) = (world.size(), config.batch);
        Sum::new(world, config.shards).map(drop).map_err(|error| {
            let fits = |shards: &usize| shards.is_multiple_of(ranks) && batch.is_multiple_of(*shards);
            match (ranks..=batch).find(fits) {
                Some(shards) => error.advise(format!(
                    "set shards to a multiple of {ranks} that divides the batch of {batch}, such as {shards}, or start as many \
                     ranks as divide {}",
                    config.shards
                )),
                None => error.advise(format!("make the batch of {batch} and shards multiples of {ranks}")),
            }
        })
    }

    /// The shards of this rank.
    pub fn own(&self) -> Range<usize> {
        self.sum.own()
    }

    /// See [`Sum::spent`].
    pub fn spent(&self) -> Duration {
        self.sum.spent()
    }

    /// A step at learning rate `rate`, with the next of this rank's `batches`; `seed` is that of a shard's dropout masks, and `stop`
    /// says whether this rank has been asked to stop. Returns the mean loss, and whether any rank has been. A loss that is not finite
    /// leaves the parameters as they were.
    ///
    /// # Errors
    /// A photo that cannot be read, on any rank; no answer from all ranks in time; out of memory; a launch that failed.
    pub fn step(
        &mut self,
        trainer: &mut Trainer,
        batches: &mut dyn Iterator<Item = Result<Batch>>,
        seed: &dyn Fn(usize) -> u64,
        rate: f32,
        stop: bool,
    ) -> Result<(f32, bool)> {
        let (len, mut failure) = (self.len, None);
        let total = self.sum.of(len + RIDERS, |shard, to| {
            let (gradients, riders) = to.split_at_mut(len);
            riders.fill(0.0);
            riders[STOP] = f32::from(u8::from(stop));
            let mut gradients_of = || {
                let ended = || Error::new("training", "there are fewer batches than steps");
                let batch = batches.next().ok_or_else(ended)??;
                trainer.differentiate(&batch.input, seed(shard), batch.targets(), gradients)
            };
            match if failure.is_some() { Ok(0.0) } else { gradients_of() } {
                Ok(loss) => riders[LOSS] = loss,
                Err(error) => failure = Some(error),
            }
            if failure.is_some() {
                gradients.fill(0.0);
                riders[FAILED] = 1.0;
            }
        });
        // A rank that could not sum knows nothing of the others.
        let mut total = total?;
        if total[len + FAILED] > 0.0 {
            self.world.agree(failure.map_or(Ok(()), Err))?;
        }
        let scale = 1.0 / self.shards as f32;
        let (gradients, riders) = total.split_at_mut(len);
        let (loss, asked) = (scale * riders[LOSS], riders[STOP] > 0.0);
        if loss.is_finite() {
            gradients.iter_mut().for_each(|value| *value *= scale);
            trainer.apply(gradients, rate)?;
        }
        self.sum.recycle(total);
        Ok((loss, asked))
    }
}

/// Checks that all ranks train the same run: rank 0's settings, photos and program.
///
/// # Errors
/// They do not: the first rank that differs, and in what.
pub fn compare(world: &World, config: &Config, run: &Provenance) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let mut run = run.clone();
    run.set("weft", env!("CARGO_PKG_VERSION"));
    run.set("checkpoint_every", config.checkpoint_every);
    run.set("validate_every", config.validate_every);
    let all = world.gather(serde_json::to_vec(&run).map_err(|e| Error::new("settings", e))?)?;
    let parsed = |rank: usize| serde_json::from_slice::<Provenance>(&all[rank]).unwrap_or_default();
    let first = parsed(0);
    let differs = (1..world.size()).map(parsed).position(|other| other != first);
    world.agree(differs.map_or(Ok(()), |before| {
        let rank = before + 1;
        Err(Error::new(format!("rank {rank}"), format!("sees another run: {}", first.differences(&parsed(rank))))
            .advise("give all machines the same program, settings and data"))
    }))
}

/// Brings the state of rank 0, which has read the checkpoint if there is one, to all ranks.
///
/// # Errors
/// No answer from all ranks in time; out of memory; a launch that failed.
pub fn spread(world: &World, state: &mut State, trainer: &mut Trainer, momentum: &[f32]) -> Result<()> {
    let text = world.broadcast(serde_json::to_vec(state).map_err(|e| Error::new("state of the run", e))?)?;
    *state = serde_json::from_slice(&text).map_err(|e| Error::new("state of the run", e))?;
    let own = |values: &[f32]| if world.is_first() { bytemuck::cast_slice(values).to_vec() } else { Vec::new() };
    let parameters = world.broadcast(own(&trainer.parameters().read()?))?;
    // Empty in a new run.
    let momentum = world.broadcast(own(momentum))?;
    let values = bytemuck::pod_collect_to_vec::<u8, f32>;
    if !world.is_first() {
        match momentum.is_empty() {
            true => trainer.parameters().write(&values(&parameters))?,
            false => trainer.restore(&values(&parameters), &values(&momentum))?,
        }
    }
    Ok(())
}

/// Checks that the weights of all ranks have the same bits.
///
/// # Errors
/// They have not: a rank's processor or memory is at fault, or the ranks' programs differ.
pub fn compare_weights(world: &World, trainer: &Trainer, step: usize) -> Result<()> {
    if world.size() == 1 {
        return Ok(());
    }
    let mix = |hash: u64, value: &f32| (hash ^ u64::from(value.to_bits())).wrapping_mul(0x0000_0100_0000_01b3);
    let hash = trainer.parameters().read()?.iter().fold(0xcbf2_9ce4_8422_2325, mix);
    let all = world.gather(hash.to_le_bytes().to_vec())?;
    let differs = all.iter().position(|other| *other != all[0]);
    world.agree(differs.map_or(Ok(()), |rank| {
        let found = format!("its weights after step {step} are not those of rank 0");
        Err(Error::new(format!("rank {rank}"), found).advise(
            "use processors with the same vector instructions, or look for faulty memory; earlier checkpoints are kept",
        ))
    }))
}

//! The photos of each step: a pure function of the seed and the step's number, so a resumed run needs no sampler state.

use super::config::{Config, Stage};
use super::source::Item;
use crate::rng::Rng;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Streams of a run's seed; the lower bits hold the number of a sample, an epoch or a step.
pub const SAMPLES: u64 = 1 << 48;
const EPOCHS: u64 = 2 << 48;
pub const MASKS: u64 = 3 << 48;

/// The order of the photos.
#[derive(Debug)]
pub struct Sampler {
    seed: u64,
    batch: usize,
    items: usize,
    /// For batches composed by identity: the indices of each identity's photos.
    identities: Option<(usize, Vec<Vec<usize>>)>,
    /// The most recently used epoch, and its order.
    epoch: Mutex<(usize, Vec<usize>)>,
}

impl Sampler {
    pub fn new(config: &Config, items: &[Item]) -> Self {
        let identities = (config.stage == Stage::PretrainIdentities).then(|| {
            let mut by_class: BTreeMap<u32, Vec<usize>> = BTreeMap::new();
            items.iter().enumerate().for_each(|(index, item)| by_class.entry(item.class).or_default().push(index));
            (config.per_identity, by_class.into_values().collect())
        });
        let epoch = Mutex::new((usize::MAX, Vec::new()));
        Self { seed: config.seed, batch: config.batch, items: items.len(), identities, epoch }
    }

    /// Steps per epoch; photos that do not fill a last batch are left to the next epoch's order.
    pub fn steps(&self) -> usize {
        self.items / self.batch
    }

    /// The photos of step `step`, counted over all epochs.
    pub fn batch(&self, step: usize) -> Vec<usize> {
        let (epoch, within) = (step / self.steps(), step % self.steps());
        let mut known: MutexGuard<'_, (usize, Vec<usize>)> = self.epoch.lock().unwrap_or_else(PoisonError::into_inner);
        if known.0 != epoch {
            *known = (epoch, self.order(epoch));
        }
        known.1[within * self.batch..(within + 1) * self.batch].to_vec()
    }

    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut rng = Rng::new(self.seed, EPOCHS + epoch as u64);
        let Some((per_identity, identities)) = &self.identities else {
            let mut order: Vec<usize> = (0..self.items).collect();
            rng.shuffle(&mut order);
            return order;
        };
        // Each identity's photos are dealt into groups; an identity that lacks some for its last group repeats its own. Rounds
        // over all identities keep the identities of a batch distinct.
        let mut rounds: Vec<Vec<Vec<usize>>> = Vec::new();
        for photos in identities {
            let mut photos = photos.clone();
            rng.shuffle(&mut photos);
            for (round, group) in photos.chunks(*per_identity).enumerate() {
                let group = (0..*per_identity).map(|i| group[i % group.len()]).collect();
                if rounds.len() == round {
                    rounds.push(Vec::new());
                }
                rounds[round].push(group);
            }
        }
        let mut order = Vec::new();
        for mut round in rounds {
            rng.shuffle(&mut round);
            order.extend(round.into_iter().flatten());
        }
        // The end of a round and the beginning of the next may share a batch, so batches are taken in random order, and those
        // beyond an epoch's steps are dropped.
        let mut batches: Vec<Vec<usize>> = order.chunks_exact(self.batch).map(<[usize]>::to_vec).collect();
        rng.shuffle(&mut batches);
        let mut order: Vec<usize> = batches.into_iter().flatten().collect();
        order.truncate(self.steps() * self.batch);
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sampler(batch: usize, per_identity: Option<usize>, photos: &[usize]) -> (Sampler, Vec<usize>) {
        let owner: Vec<usize> = photos.iter().enumerate().flat_map(|(who, n)| vec![who; *n]).collect();
        let mut identities = vec![Vec::new(); photos.len()];
        owner.iter().enumerate().for_each(|(photo, who)| identities[*who].push(photo));
        let sampler = Sampler {
            seed: 3,
            batch,
            items: owner.len(),
            identities: per_identity.map(|k| (k, identities)),
            epoch: Mutex::new((usize::MAX, Vec::new())),
        };
        (sampler, owner)
    }

    #[test]
    fn an_epoch_sees_every_photo_once_and_epochs_differ() {
        let (sampler, _) = sampler(5, None, &[25]);
        let epoch = |e: usize| (0..5).flat_map(|s| sampler.batch(5 * e + s)).collect::<Vec<usize>>();
        let mut seen = epoch(0);
        assert_ne!(seen, epoch(1));
        assert_eq!(seen, epoch(0));
        seen.sort_unstable();
        assert_eq!(seen, (0..25).collect::<Vec<usize>>());
    }

    #[test]
    fn batches_of_identities_hold_pairs() {
        let (sampler, owner) = sampler(8, Some(2), &[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
        for step in 0..3 * sampler.steps() {
            let batch = sampler.batch(step);
            assert_eq!(batch.len(), 8);
            for pair in batch.chunks_exact(2) {
                assert_eq!(owner[pair[0]], owner[pair[1]], "step {step}");
            }
        }
    }
}

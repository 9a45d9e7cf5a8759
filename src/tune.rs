//! The tuner: runs every way to cut a product into blocks, checks each against the f32 kernel of the same device, and times on a
//! card those that are right. What it finds is a [`Record`] per product: the fastest right one, and what was wrong.
//!
//! A product is tried where it occurs: in the pass of its layer on random numbers, or in a pass over an image. A candidate is
//! given to the device as its only tuned product ([`Tuned::only`]), so that it is planned and launched as any plan does it.

mod image;
mod layer;

pub use image::images;
pub use layer::layers;

use crate::device::tuned::{Record, Wrong};
use crate::device::{Cut, Gpu, Launch, Precision, ProductKey, Tuned};
use crate::ops::conv::cuda::candidates;
use crate::ops::tolerance::{Distance, Tolerance};
use crate::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Rounds that are not counted, rounds that are, and runs in each: all candidates take turns.
const WARM_UP: usize = 2;
const ROUNDS: usize = 9;
const RUNS: usize = 5;
/// Values at which a bound is held against faults.
const SAMPLE: usize = 1 << 18;

/// One way to cut a product, tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Trial {
    /// The way.
    pub cut: Cut,
    /// The error as a share of its tolerance; infinite where there is no result.
    pub share: f64,
    /// What is wrong with it.
    pub wrong: Option<String>,
    /// Median seconds, of those that are right, on a card.
    pub seconds: Option<f64>,
}

/// A product with all that was tried.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The layer in which it was tried.
    pub layer: String,
    /// As it was tried.
    pub product: ProductKey,
    /// Whether it was made smaller, because an emulator would take too long.
    pub is_reduced: bool,
    /// What the model of costs takes.
    pub model: Cut,
    /// First that of the model.
    pub trials: Vec<Trial>,
}

impl Outcome {
    /// The fastest of those that are right; of equal ones the first.
    pub fn fastest(&self) -> Option<&Trial> {
        let timed = self.trials.iter().filter(|trial| trial.wrong.is_none() && trial.seconds.is_some());
        timed.min_by(|a, b| a.seconds.partial_cmp(&b.seconds).unwrap_or(std::cmp::Ordering::Equal))
    }

    /// Those that are wrong.
    pub fn wrong(&self) -> impl Iterator<Item = &Trial> {
        self.trials.iter().filter(|trial| trial.wrong.is_some())
    }

    /// Seconds of what the model takes.
    pub fn model_seconds(&self) -> Option<f64> {
        self.trials.iter().find(|trial| trial.cut == self.model)?.seconds
    }

    /// What is kept of it.
    pub fn record(&self) -> Record {
        let fastest = self.fastest();
        let wrong = |trial: &Trial| Some(Wrong { cut: trial.cut, found: trial.wrong.clone()? });
        Record {
            product: self.product.clone(),
            choice: fastest.map(|trial| trial.cut),
            seconds: fastest.and_then(|trial| trial.seconds),
            model: self.model,
            model_seconds: self.model_seconds(),
            wrong: self.trials.iter().filter_map(wrong).collect(),
        }
    }
}

/// What is tried: the products of a net in turn, each once.
pub struct Tuner<'a> {
    /// Without tuned products and a forced tile.
    gpu: Gpu,
    seen: HashSet<ProductKey>,
    /// What was found wrong before, which is not run again: it may have taken the device down.
    known: HashMap<(ProductKey, Cut), String>,
    /// Called with each product when it has been tried.
    done: &'a mut dyn FnMut(Outcome) -> Result<()>,
}

impl<'a> Tuner<'a> {
    /// Of products on a device, in its precision and with its algorithm of convolutions. What is wrong in `known` is not tried
    /// again.
    pub fn new(gpu: &Gpu, known: &[Record], done: &'a mut dyn FnMut(Outcome) -> Result<()>) -> Self {
        let wrong = known.iter().flat_map(|record| record.wrong.iter().map(move |wrong| (record, wrong)));
        let known = wrong.map(|(record, wrong)| ((record.product.clone(), wrong.cut), wrong.found.clone()));
        let gpu = Gpu { tuned: None, tile: None, ..gpu.clone() };
        Self { gpu, seen: HashSet::new(), known: known.collect(), done }
    }

    /// Whether times mean something here. On an emulator all is checked, at sizes that it can compute.
    fn is_card(&self) -> bool {
        !self.gpu.driver.is_host()
    }

    /// Tries all products of a pass that have not been tried. The error of a result may be `slack` times larger than usual.
    fn all(&mut self, pass: &mut dyn Pass, layer: &str, is_reduced: bool) -> Result<()> {
        for (label, product, model) in products(&pass.launches(&self.gpu)?) {
            if self.seen.insert(product.clone()) {
                let layer = if layer.is_empty() { label } else { layer.into() };
                let outcome = self.product(pass, &product, model)?;
                (self.done)(Outcome { layer, is_reduced, ..outcome })?;
                // A kernel that took the device down is known by now.
                self.gpu
                    .driver
                    .synchronize()
                    .map_err(|e| e.within(&product).advise("tune again: it is not tried again"))?;
            }
        }
        Ok(())
    }

    fn product(&self, pass: &mut dyn Pass, product: &ProductKey, model: Cut) -> Result<Outcome> {
        let mut cuts = candidates(&self.gpu, product);
        cuts.retain(|cut| *cut != model);
        cuts.insert(0, model);
        let with = |cut: Cut| Gpu { tuned: Some(Arc::new(Tuned::only(product, cut))), ..self.gpu.clone() };
        let devices: Vec<Gpu> = cuts.iter().map(|cut| with(*cut)).collect();
        let plain = Gpu { precision: Precision::F32, ..self.gpu.clone() };
        let want: Vec<f64> = pass.reference(&plain, product)?.into_iter().map(f64::from).collect();
        let tolerance = pass.tolerance(product);
        // A part of the values, each in its turn.
        let sample: Vec<f64> = want.iter().step_by(want.len().div_ceil(SAMPLE).max(1)).copied().collect();
        if let Some(fault) = tolerance.blind_to(&sample) {
            let found = format!("the bound {:.1e} on its error would let {fault} pass", tolerance.norm);
            return Err(Error::device(product, found));
        }
        pass.make_room(&devices)?;
        let (mut trials, mut right, mut is_lost) = (Vec::new(), Vec::new(), false);
        for (&cut, gpu) in cuts.iter().zip(&devices) {
            if let Some(found) = self.known.get(&(product.clone(), cut)) {
                trials.push(Trial { cut, share: f64::INFINITY, wrong: Some(found.clone()), seconds: None });
                continue;
            }
            let (share, wrong) = match pass.run(gpu, product) {
                Ok((got, launches)) => {
                    let share = tolerance.share(Distance::new(&got, &want));
                    if share <= 1.0 {
                        right.push((trials.len(), launches));
                    }
                    (share, (share > 1.0).then(|| format!("its error is {} the tolerance", times(share))))
                }
                Err(e) => (f64::INFINITY, Some(e.to_string())),
            };
            trials.push(Trial { cut, share, wrong, seconds: None });
            is_lost = self.gpu.driver.synchronize().is_err();
            if is_lost {
                break;
            }
        }
        if self.is_card() && !is_lost {
            let launches: Vec<Vec<Launch>> = right.iter().map(|(_, launches)| launches.clone()).collect();
            for ((trial, _), seconds) in right.iter().zip(medians(&self.gpu, &launches)?) {
                trials[*trial].seconds = Some(seconds);
            }
        }
        pass.clear();
        Ok(Outcome { layer: String::new(), product: product.clone(), is_reduced: false, model, trials })
    }
}

/// `1.4 times`, or what it is without a number.
fn times(share: f64) -> String {
    if share.is_finite() { format!("{share:.1} times") } else { "infinitely many times".into() }
}

/// A pass with products, which can be planned for a device again and again.
trait Pass {
    /// All its launches on a device.
    fn launches(&mut self, gpu: &Gpu) -> Result<Vec<Launch>>;

    /// The result to which a product contributes, in f32.
    fn reference(&mut self, gpu: &Gpu, product: &ProductKey) -> Result<Vec<f32>>;

    /// How far a result may be from it.
    fn tolerance(&self, product: &ProductKey) -> Tolerance;

    /// Memory for passes on all these devices.
    fn make_room(&mut self, devices: &[Gpu]) -> Result<()>;

    /// The result on a device, and those launches that belong to the product. They can be started until [`Pass::clear`].
    fn run(&mut self, gpu: &Gpu, product: &ProductKey) -> Result<(Vec<f32>, Vec<Launch>)>;

    /// Gives back the memory of all runs.
    fn clear(&mut self);
}

/// The products among launches, each with its layer and how it is cut.
fn products(launches: &[Launch]) -> Vec<(String, ProductKey, Cut)> {
    let products = launches.iter().filter_map(|launch| {
        let product = launch.product.as_ref()?;
        Some((launch.label.to_string(), product.key.clone(), product.cut))
    });
    products.collect()
}

/// The launches of a layer from one of a product to the next product: what adds its splits is among them.
fn groups(launches: &[Launch]) -> impl Iterator<Item = &[Launch]> {
    launches.chunk_by(|one, next| next.product.is_none() && one.label == next.label)
}

/// Median seconds of each list of launches; all take turns, so that a clock that changes is the same for all.
fn medians(gpu: &Gpu, candidates: &[Vec<Launch>]) -> Result<Vec<f64>> {
    let mut seconds = vec![Vec::with_capacity(ROUNDS); candidates.len()];
    for round in 0..WARM_UP + ROUNDS {
        for (launches, seconds) in candidates.iter().zip(&mut seconds) {
            let repeated: Vec<Launch> = std::iter::repeat_n(launches, RUNS).flatten().cloned().collect();
            let sum: f64 = gpu.driver.time(&repeated)?.iter().sum();
            if round >= WARM_UP {
                seconds.push(sum / RUNS as f64);
            }
        }
    }
    let median = |mut seconds: Vec<f64>| {
        seconds.sort_by(f64::total_cmp);
        seconds[seconds.len() / 2]
    };
    Ok(seconds.into_iter().map(median).collect())
}

/// The tolerance of a result of `roundings` steps with sums of `terms` terms.
fn tolerance(precision: Precision, roundings: usize, terms: usize) -> Tolerance {
    // That of f32 sums is for a few hundred terms, and grows as errors of a random walk do. The f32 kernel rounds its sums as
    // well.
    Tolerance::new(precision, roundings, 2.0 * (terms as f64 / 256.0).sqrt().max(1.0))
}

//! Forty attributes from one feature vector: one linear SVM per attribute (*Deep Learning Face Attributes in the Wild*, section
//! 2.2), solved by LIBLINEAR.
//!
//! Key idea: all SVMs together form one affine map. Training standardises the features and then folds the standardisation into
//! the weights, so scoring is a matrix product and a file contains one matrix and one vector.
//!
//! The solver is LIBLINEAR's primal trust-region Newton method (`-s 2`: L2-regularised, squared hinge loss). Its dual solver
//! shuffles with the C library's `rand`, whose state is shared between threads, so it would give different weights on every run.
//! The primal solver uses no random numbers.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::path::Path;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

use liblinear::util::TrainingInput;
use liblinear::{LibLinearModel, SolverType};
use rayon::prelude::*;
use serde::Serialize;

use crate::ops::product::{Matrix, product};
use crate::rng::Rng;
use crate::shipped::Source;
use crate::text_table::{TextTable, number, text};
use crate::weights::{Dtype, Named, TensorFile, write};
use crate::{Error, Result};

/// LIBLINEAR's default for this solver: it stops at this norm of the gradient relative to that at zero.
const TOLERANCE: f64 = 0.01;
/// Number of feature vectors that a thread scores at a time.
const TILE: usize = 128;
/// Separates the partition of the identities from other uses of the same seed.
const PARTITION_STREAM: u64 = 0x5356_4d00;

/// Feature vectors, row-major [rows, dims].
#[derive(Debug, Clone, Copy)]
pub struct Features<'a> {
    /// Number of feature vectors.
    pub rows: usize,
    /// Length of a feature vector.
    pub dims: usize,
    /// [rows, dims].
    pub data: &'a [f32],
}

impl<'a> Features<'a> {
    fn check(&self) -> Result<()> {
        if self.dims == 0 || self.rows.checked_mul(self.dims) != Some(self.data.len()) {
            let found = format!("[{}, {}] does not describe {} values", self.rows, self.dims, self.data.len());
            return Err(Error::new("features", found));
        }
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = &'a [f32]> {
        self.data.chunks_exact(self.dims)
    }
}

/// Shifts every feature to mean 0 and scales it to variance 1.
#[derive(Debug, Clone, PartialEq)]
pub struct Standardiser {
    /// `[dims]`
    pub mean: Vec<f32>,
    /// `[dims]`; 0 for a constant feature.
    pub inv_std: Vec<f32>,
}

impl Standardiser {
    /// Mean and variance of the rows. Errors: a shape that does not match the data, no rows.
    pub fn fit(features: Features<'_>) -> Result<Self> {
        features.check()?;
        if features.rows == 0 {
            return Err(Error::new("features", "no rows to take the mean of"));
        }
        Ok(Self::fit_rows(features, &vec![true; features.rows]))
    }

    /// The same over the rows with `used` set; at least one.
    fn fit_rows(features: Features<'_>, used: &[bool]) -> Self {
        let rows = || features.iter().zip(used).filter_map(|(row, &used)| used.then_some(row));
        let n = rows().count() as f64;
        let mut mean = vec![0.0f64; features.dims];
        for row in rows() {
            mean.iter_mut().zip(row).for_each(|(m, &x)| *m += f64::from(x) / n);
        }
        let mut variance = vec![0.0f64; features.dims];
        let mut low = vec![f32::INFINITY; features.dims];
        let mut high = vec![f32::NEG_INFINITY; features.dims];
        for row in rows() {
            for (d, &x) in row.iter().enumerate() {
                variance[d] += (f64::from(x) - mean[d]).powi(2) / n;
                low[d] = low[d].min(x);
                high[d] = high[d].max(x);
            }
        }
        // Rounding can give a constant feature a tiny variance, so constancy is determined from the extremes.
        let inv_std = (0..features.dims)
            .map(|d| (1.0 / variance[d].sqrt()) as f32)
            .enumerate()
            .map(|(d, s)| if low[d] < high[d] && s.is_finite() { s } else { 0.0 })
            .collect();
        Self { mean: mean.iter().map(|&m| m as f32).collect(), inv_std }
    }

    /// `(x - mean) * inv_std`, [rows, dims]. Errors: a shape that does not match the data, or different dims.
    pub fn apply(&self, features: Features<'_>) -> Result<Vec<f32>> {
        features.check()?;
        if features.dims != self.mean.len() {
            let found = format!("{} per row, the standardiser was fitted on {}", features.dims, self.mean.len());
            return Err(Error::new("features", found));
        }
        Ok(features.iter().flat_map(|row| self.row(row)).collect())
    }

    fn row(&self, row: &[f32]) -> impl Iterator<Item = f32> {
        row.iter().zip(&self.mean).zip(&self.inv_std).map(|((&x, &m), &s)| (x - m) * s)
    }

    /// Converts the solver's solution for standardised features to one for the features themselves.
    fn fold(&self, solution: &[f64]) -> Separator {
        let weights: Vec<f64> = solution.iter().zip(&self.inv_std).map(|(w, &s)| w * f64::from(s)).collect();
        let shift: f64 = weights.iter().zip(&self.mean).map(|(w, &m)| w * f64::from(m)).sum();
        Separator { bias: solution[weights.len()] - shift, weights }
    }
}

/// One linear SVM per attribute: score = weight . features + bias, present where the score is positive.
#[derive(Debug, Clone, PartialEq)]
pub struct Svm {
    /// `[attributes]`
    pub names: Vec<String>,
    /// [attributes, dims], with the standardisation folded in.
    pub weights: Vec<f32>,
    /// `[attributes]`
    pub bias: Vec<f32>,
    /// `[attributes]`; 0 where no SVM was trained.
    pub c: Vec<f32>,
}

impl Svm {
    /// Length of the feature vector.
    pub fn dims(&self) -> usize {
        self.weights.len() / self.names.len().max(1)
    }

    /// Scores, [rows, attributes]. Errors: a shape that does not match the data, or dims that differ from the SVMs'.
    pub fn scores(&self, features: Features<'_>) -> Result<Vec<f32>> {
        features.check()?;
        if features.dims != self.dims() {
            let found = format!("{} per row, the SVMs take {}", features.dims, self.dims());
            return Err(Error::new("features", found).advise("use the SVMs trained on this network"));
        }
        let (rows, dims, attributes) = (features.rows, features.dims, self.names.len());
        if self.weights.len() != attributes * dims || self.bias.len() != attributes {
            let found = format!("{} weights and {} biases", self.weights.len(), self.bias.len());
            return Err(Error::new("SVMs", format!("{found} for {attributes} attributes of {dims} features")));
        }
        let mut scores = self.bias.repeat(rows);
        if rows * attributes * dims > 0 {
            let weights = Matrix::rows(&self.weights, dims).transposed();
            let tiles = scores.par_chunks_mut(TILE * attributes).zip(features.data.par_chunks(TILE * dims));
            tiles.for_each(|(scores, features)| {
                let size = [scores.len() / attributes, attributes, dims];
                product(size, Matrix::rows(features, dims), weights, scores, attributes, true);
            });
        }
        Ok(scores)
    }

    /// Writes `svm.weight` [attributes, dims], `svm.bias` and `svm.c` `[attributes]` as safetensors; the names are in the
    /// metadata entry `attributes`, a JSON list.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let (n, dims) = (self.names.len(), self.dims());
        let names = serde_json::to_string(&self.names).map_err(|e| Error::new("attribute names", e))?;
        let tensor = |name, shape, data| Named { name, shape, dtype: Dtype::F32, data };
        write(
            path,
            &[
                tensor("svm.weight", &[n, dims], &self.weights),
                tensor("svm.bias", &[n], &self.bias),
                tensor("svm.c", &[n], &self.c),
            ],
            &[("attributes".into(), names)],
        )
    }

    /// Reads a file written by [`Svm::save`]. Errors: a missing tensor, inconsistent shapes or names, a value that is not finite.
    pub fn load(source: impl Into<Source>) -> Result<Self> {
        let file = TensorFile::open(source)?;
        let fail = |found: String| Error::new(file.source(), found).advise("write it with weft svm train");
        let Some(json) = file.metadata().get("attributes") else {
            return Err(fail("no attribute names in the metadata".into()));
        };
        let names: Vec<String> =
            serde_json::from_str(json).map_err(|e| fail(format!("attribute names are not a JSON list: {e}")))?;
        let weight = file.require("svm.weight")?;
        let &[n, dims] = weight.shape.as_slice() else {
            return Err(weight.error(format!("shape {:?}, [attributes, dims] wanted", weight.shape)));
        };
        if n != names.len() || n == 0 || dims == 0 {
            let found = format!("{n} machines of {dims} features for {} attribute names", names.len());
            return Err(weight.error(found));
        }
        let read = |name: &str, shape: &[usize]| {
            let t = file.require(name)?;
            if t.shape != shape {
                return Err(t.error(format!("shape {:?}, {shape:?} wanted", t.shape)));
            }
            let values = t.to_f32()?.into_owned();
            match values.iter().find(|x| !x.is_finite()) {
                Some(x) => Err(t.error(format!("holds {x}")).advise("train the SVMs again")),
                None => Ok(values),
            }
        };
        Ok(Self {
            weights: read("svm.weight", &weight.shape)?,
            bias: read("svm.bias", &[n])?,
            c: read("svm.c", &[n])?,
            names,
        })
    }
}

/// Mean of the scores over the patches of each image (section 2.2): [images * patches, attributes] to [images,
/// attributes].
///
/// Errors: lengths that are not divisible.
pub fn average_over_patches(scores: &[f32], attributes: usize, patches_per_image: usize) -> Result<Vec<f32>> {
    let per_image = attributes.saturating_mul(patches_per_image);
    if per_image == 0 || !scores.len().is_multiple_of(per_image) {
        let found = format!("{} do not divide into images of {patches_per_image} patches", scores.len());
        return Err(Error::new("scores", format!("{found} by {attributes} attributes")));
    }
    let mean = |image: &[f32], a: usize| {
        let sum: f64 = image.iter().skip(a).step_by(attributes).map(|&s| f64::from(s)).sum();
        (sum / patches_per_image as f64) as f32
    };
    Ok(scores.chunks_exact(per_image).flat_map(|image| (0..attributes).map(move |a| mean(image, a))).collect())
}

/// Options of the training.
#[derive(Debug, Clone)]
pub struct Options {
    /// Candidate values of C.
    pub cs: Vec<f64>,
    /// Number of folds, two or more, into which the identities are partitioned; each is held out in turn. With fewer identities
    /// there are fewer folds.
    pub folds: usize,
    /// Seed of that partition.
    pub seed: u64,
    /// Number of threads; 0 uses the process's pool. Each holds a copy of the features in LIBLINEAR's form, 16 bytes per value,
    /// twice while it is built.
    pub threads: usize,
}

impl Default for Options {
    /// 10^-4 to 10^-1 in half decades (larger values take longest, and only one of forty face attributes chose one), five folds.
    fn default() -> Self {
        Self { cs: (0..7).map(|i| 10f64.powf(-4.0 + 0.5 * f64::from(i))).collect(), folds: 5, seed: 0, threads: 0 }
    }
}

/// The result of training, per attribute.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SvmReport {
    /// Number of feature vectors.
    pub rows: usize,
    /// Number of distinct people.
    pub identities: usize,
    /// Number of folds of the cross-validation.
    pub folds: usize,
    /// One entry per attribute.
    pub attributes: Vec<AttributeReport>,
}

/// The entry of one attribute in a [`SvmReport`].
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct AttributeReport {
    /// Name of the attribute.
    pub name: String,
    /// The chosen C; 0 where no SVM was trained.
    pub c: f64,
    /// Number of rows that have the attribute.
    pub positives: usize,
    /// Share of the rows classified correctly, with the chosen C, by an SVM that was not trained on the person.
    pub held_out_accuracy: f64,
    /// Share of the larger class: the accuracy of a constant prediction.
    pub majority: f64,
    /// A note on anything unusual.
    pub note: Option<String>,
}

impl SvmReport {
    /// Mean of the held-out accuracies.
    pub fn mean_accuracy(&self) -> f64 {
        self.attributes.iter().map(|a| a.held_out_accuracy).sum::<f64>() / self.attributes.len().max(1) as f64
    }
}

impl fmt::Display for SvmReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let table = TextTable::new([
            text("attribute"),
            number("positives"),
            number("C"),
            number("accuracy"),
            number("majority"),
            text(""),
        ]);
        let percent = |share: f64| format!("{:.2}%", 100.0 * share);
        let row = |a: &AttributeReport| {
            vec![
                a.name.clone(),
                a.positives.to_string(),
                format!("{:.0e}", a.c),
                percent(a.held_out_accuracy),
                percent(a.majority),
                a.note.clone().unwrap_or_default(),
            ]
        };
        writeln!(f, "{}", table.print(self.attributes.iter().map(row)))?;
        write!(f, "mean held-out accuracy {:.2}%", 100.0 * self.mean_accuracy())?;
        write!(f, " ({} folds of {} identities, {} rows)", self.folds, self.identities, self.rows)
    }
}

/// Trains one SVM per attribute.
///
/// `labels` [rows, attributes], `identities` `[rows]`: the person in each row. Whole identities are held out, so nobody is on
/// both sides. For each attribute the C with the highest held-out accuracy over all folds is chosen (the smaller one in a tie);
/// then its SVM is trained on all rows. Standardisation is always fitted to the training side alone. An attribute that all rows
/// have, or none, gets weight 0 and bias 1 or -1, and a note. The same input gives the same weights, whatever the number of
/// threads.
///
/// `progress` is called with the number of completed attributes, from any thread.
///
/// Errors: inconsistent shapes, fewer than two identities, a feature that is not finite, options out of range, a duplicate name.
pub fn train(
    features: Features<'_>,
    labels: &[bool],
    names: &[String],
    identities: &[u32],
    options: &Options,
    progress: &(dyn Fn(usize) + Sync),
) -> Result<(Svm, SvmReport)> {
    check_input(features, labels, names, identities, options)?;
    silence_liblinear();
    let mut cs = options.cs.clone();
    cs.sort_by(f64::total_cmp);

    let (fold_of, folds) = partition(identities, options.folds, options.seed);
    let standardisers: Vec<Standardiser> = (0..folds)
        .map(|k| Standardiser::fit_rows(features, &fold_of.iter().map(|&f| f != k).collect::<Vec<_>>()))
        .collect();
    let everything = vec![true; features.rows];
    let standardiser = Standardiser::fit_rows(features, &everything);

    let one = |attribute: usize| -> Result<(Separator, AttributeReport)> {
        let name = &names[attribute];
        let truth: Vec<bool> = labels.iter().skip(attribute).step_by(names.len()).copied().collect();
        let positives = truth.iter().filter(|&&t| t).count();
        let majority = positives.max(features.rows - positives) as f64 / features.rows as f64;
        let report =
            AttributeReport { name: name.clone(), c: 0.0, positives, held_out_accuracy: 1.0, majority, note: None };
        if positives == 0 || positives == features.rows {
            let (bias, which) = if positives == 0 { (-1.0, "no row has it") } else { (1.0, "every row has it") };
            let machine = Separator { weights: vec![0.0; features.dims], bias };
            return Ok((machine, AttributeReport { note: Some(format!("{which}: constant answer")), ..report }));
        }
        let mut right = vec![0usize; cs.len()];
        for (k, standardiser) in standardisers.iter().enumerate() {
            let used: Vec<bool> = fold_of.iter().map(|&f| f != k).collect();
            // Each C starts from the solution of the previous smaller one, like LIBLINEAR's own search (`train -C`).
            let mut solution = Vec::new();
            for (&c, right) in cs.iter().zip(&mut right) {
                solution = solve(features, standardiser, &truth, &used, c, solution).map_err(|e| e.within(name))?;
                let machine = standardiser.fold(&solution);
                *right += (features.iter().zip(&truth).zip(&used))
                    .filter(|&((row, &t), &used)| !used && (machine.score(row) > 0.0) == t)
                    .count();
            }
        }
        let best = right.iter().copied().max().unwrap_or_default();
        let c = cs.iter().zip(&right).find(|&(_, &r)| r == best).map_or(0.0, |(&c, _)| c);
        let solution =
            solve(features, &standardiser, &truth, &everything, c, Vec::new()).map_err(|e| e.within(name))?;
        let held_out_accuracy = best as f64 / features.rows as f64;
        Ok((standardiser.fold(&solution), AttributeReport { c, held_out_accuracy, ..report }))
    };
    let done = AtomicUsize::new(0);
    let all = || {
        let counted = |attribute| {
            let result = one(attribute);
            progress(done.fetch_add(1, Ordering::Relaxed) + 1);
            result
        };
        (0..names.len()).into_par_iter().map(counted).collect::<Result<Vec<_>>>()
    };
    let trained = match options.threads {
        0 => all()?,
        n => rayon::ThreadPoolBuilder::new()
            .num_threads(n)
            .build()
            .map_err(|e| Error::new("threads", e))?
            .install(all)?,
    };

    let mut svm = Svm { names: names.to_vec(), weights: Vec::new(), bias: Vec::new(), c: Vec::new() };
    let identities = identities.iter().collect::<HashSet<_>>().len();
    let mut report = SvmReport { rows: features.rows, identities, folds, attributes: Vec::new() };
    for (machine, attribute) in trained {
        svm.weights.extend(machine.weights.iter().map(|&w| w as f32));
        svm.bias.push(machine.bias as f32);
        svm.c.push(attribute.c as f32);
        report.attributes.push(attribute);
    }
    Ok((svm, report))
}

fn check_input(f: Features<'_>, labels: &[bool], names: &[String], identities: &[u32], o: &Options) -> Result<()> {
    f.check()?;
    if let Some(i) = f.data.iter().position(|x| !x.is_finite()) {
        let found = format!("row {}, feature {} is {}", i / f.dims, i % f.dims, f.data[i]);
        return Err(Error::new("features", found).advise("check the network's weights and the images"));
    }
    // LIBLINEAR counts rows and features in an int.
    if f.rows >= i32::MAX as usize || f.dims >= i32::MAX as usize {
        return Err(Error::new("features", format!("[{}, {}] is more than LIBLINEAR can count", f.rows, f.dims)));
    }
    let mut seen = HashSet::new();
    if let Some(name) = names.iter().find(|n| !seen.insert(*n)) {
        return Err(Error::new("attribute names", format!("{name} occurs twice")));
    }
    if names.is_empty() {
        return Err(Error::new("attribute names", "there are none"));
    }
    if f.rows.checked_mul(names.len()) != Some(labels.len()) {
        let found = format!("{} labels for {} rows of {} attributes", labels.len(), f.rows, names.len());
        return Err(Error::new("labels", found));
    }
    if identities.len() != f.rows {
        return Err(Error::new("identities", format!("{} for {} rows", identities.len(), f.rows)));
    }
    if identities.iter().all(|i| Some(i) == identities.first()) {
        return Err(Error::new("identities", "fewer than two different ones, so none can be held out")
            .advise("give each person a number, or each row its own"));
    }
    if o.cs.is_empty() || !o.cs.iter().all(|c| c.is_finite() && *c > 0.0) {
        return Err(Error::new("C", format!("{:?} must be one or more positive numbers", o.cs)));
    }
    if o.folds < 2 {
        return Err(Error::new("folds", format!("{} leave nothing to train on", o.folds)).advise("use two or more"));
    }
    Ok(())
}

/// The fold of each row, and the number of folds: identities are shuffled and dealt out in turn, so all rows of a person are in
/// the same fold.
fn partition(identities: &[u32], folds: usize, seed: u64) -> (Vec<usize>, usize) {
    let mut people: Vec<u32> = identities.iter().copied().collect::<BTreeSet<_>>().into_iter().collect();
    Rng::new(seed, PARTITION_STREAM).shuffle(&mut people);
    let folds = folds.min(people.len());
    let fold_of: HashMap<u32, usize> = people.iter().enumerate().map(|(i, &person)| (person, i % folds)).collect();
    (identities.iter().map(|person| fold_of[person]).collect(), folds)
}

/// One SVM over the features themselves, in the solver's precision.
struct Separator {
    weights: Vec<f64>,
    bias: f64,
}

impl Separator {
    fn score(&self, row: &[f32]) -> f64 {
        self.bias + self.weights.iter().zip(row).map(|(w, &x)| w * f64::from(x)).sum::<f64>()
    }
}

/// Weights over standardised features followed by the bias: [dims + 1]. Solved over the rows with `used` set, starting from
/// `start` if it is not empty. If all rows are of one class the result is constant.
fn solve(
    features: Features<'_>,
    standardiser: &Standardiser,
    truth: &[bool],
    used: &[bool],
    c: f64,
    start: Vec<f64>,
) -> Result<Vec<f64>> {
    let label = |t: bool| if t { 1.0 } else { -1.0 };
    let y: Vec<f64> = truth.iter().zip(used).filter(|&(_, &u)| u).map(|(&t, _)| label(t)).collect();
    if y.iter().all(|&l| l == y[0]) {
        let mut constant = vec![0.0; features.dims + 1];
        constant[features.dims] = y[0];
        return Ok(constant);
    }
    let rows = features.iter().zip(used).filter(|&(_, &u)| u);
    let x = rows.map(|(row, _)| (1..).zip(standardiser.row(row).map(f64::from)).collect()).collect();
    let fail = |e: &dyn fmt::Display| Error::new("LIBLINEAR", e);
    // Not `from_dense_features`: in liblinear 1.0.0 it confuses the number of rows with the number of features.
    let input = TrainingInput::from_sparse_features(y, x).map_err(|e| fail(&e))?;
    let mut builder = liblinear::Builder::new();
    builder.problem().input_data(input).bias(1.0);
    builder
        .parameters()
        .solver_type(SolverType::L2R_L2LOSS_SVC)
        .constraints_violation_cost(c)
        .stopping_criterion(TOLERANCE)
        .initial_solutions(start);
    let model = builder.build_model().map_err(|e| fail(&e))?;
    // Label 0 is +1: LIBLINEAR orders labels of -1 and +1 this way (`group_classes`).
    let weights = (1..=features.dims as i32).map(|d| model.feature_coefficient(d, 0));
    Ok(weights.chain([model.label_bias(0)]).collect())
}

/// LIBLINEAR prints to standard output, which is reserved for results. The switch is a global, so it is set once, before any
/// thread trains.
fn silence_liblinear() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| liblinear::toggle_liblinear_stdout_output(false));
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::{any, prop, prop_assert, prop_assert_eq, prop_assume, proptest};

    /// `rows` feature vectors, three rows per person; attribute `a` is the sign of feature `a` with a share `noise` of the labels
    /// flipped. Features are shifted and scaled unevenly, and the last one is constant.
    struct Data {
        rows: usize,
        dims: usize,
        x: Vec<f32>,
        labels: Vec<bool>,
        names: Vec<String>,
        people: Vec<u32>,
    }

    impl Data {
        fn new(rows: usize, dims: usize, attributes: usize, noise: f32) -> Self {
            let mut rng = Rng::new(11, 0);
            let (mut x, mut labels) = (Vec::new(), Vec::new());
            for _ in 0..rows {
                let row: Vec<f32> = (0..dims - 1).map(|_| rng.normal()).collect();
                labels.extend((0..attributes).map(|a| (row[a] > 0.0) != rng.chance(noise)));
                x.extend(row.iter().enumerate().map(|(d, v)| 5.0 + v * (1.0 + d as f32)));
                x.push(0.1);
            }
            let names = (0..attributes).map(|a| format!("a{a}")).collect();
            Self { rows, dims, x, labels, names, people: (0..rows as u32).map(|r| r / 3).collect() }
        }

        fn features(&self) -> Features<'_> {
            Features { rows: self.rows, dims: self.dims, data: &self.x }
        }

        fn train(&self, options: &Options) -> (Svm, SvmReport) {
            train(self.features(), &self.labels, &self.names, &self.people, options, &|_| {}).unwrap()
        }

        fn accuracy(&self, svm: &Svm) -> f64 {
            let scores = svm.scores(self.features()).unwrap();
            let right = scores.iter().zip(&self.labels).filter(|&(s, l)| (*s > 0.0) == *l).count();
            right as f64 / scores.len() as f64
        }
    }

    #[test]
    fn separable_data_is_separated() {
        let mut data = Data::new(300, 6, 3, 0.0);
        // With a margin, so that a finite C can classify every row.
        for (row, labels) in data.x.chunks_exact_mut(6).zip(data.labels.chunks_exact(3)) {
            (0..3).for_each(|a| row[a] += if labels[a] { 3.0 } else { -3.0 });
        }
        let (svm, report) = data.train(&Options::default());
        assert_eq!(data.accuracy(&svm), 1.0);
        assert_eq!(report.mean_accuracy(), 1.0);
    }

    #[test]
    fn on_noisy_data_the_chosen_cost_is_small_and_generalises_better_than_a_large_one() {
        const ROWS: usize = 240;
        const ATTRIBUTES: usize = 20;
        let data = Data::new(ROWS, 120, ATTRIBUTES, 0.2);
        let mut fresh = Data::new(ROWS + 1000, 120, ATTRIBUTES, 0.2);
        (fresh.x, fresh.labels) = (fresh.x.split_off(ROWS * 120), fresh.labels.split_off(ROWS * ATTRIBUTES));
        fresh.rows -= ROWS;
        let (chosen, report) = data.train(&Options::default());
        let (large, _) = data.train(&Options { cs: vec![10.0], ..Options::default() });
        let small = chosen.c.iter().filter(|&&c| c < 0.02).count();
        assert!(small > ATTRIBUTES / 2, "{report}");
        let (a, b) = (fresh.accuracy(&chosen), fresh.accuracy(&large));
        assert!(a > b + 0.02, "chosen C {a}, C = 10 {b}\n{report}");
    }

    #[test]
    fn one_class_answers_always_the_same_and_says_so() {
        let mut data = Data::new(90, 5, 3, 0.1);
        data.labels.chunks_exact_mut(3).for_each(|l| (l[0], l[2]) = (true, false));
        let (svm, report) = data.train(&Options::default());
        let scores = svm.scores(data.features()).unwrap();
        assert!(scores.chunks_exact(3).all(|s| s[0] == 1.0 && s[2] == -1.0));
        assert_eq!((svm.c[0], svm.c[2]), (0.0, 0.0));
        assert!(report.attributes[0].note.is_some() && report.attributes[1].note.is_none());
        assert!(report.to_string().contains("every row has it"));
    }

    #[test]
    fn the_same_input_gives_the_same_bits_on_any_number_of_threads() {
        let data = Data::new(200, 20, 8, 0.2);
        let one = data.train(&Options { threads: 1, ..Options::default() });
        for threads in [1, 4, 7] {
            assert_eq!(data.train(&Options { threads, ..Options::default() }), one);
        }
    }

    #[test]
    fn folded_weights_score_like_standardised_features() {
        let data = Data::new(150, 9, 1, 0.1);
        let standardiser = Standardiser::fit(data.features()).unwrap();
        assert_eq!(standardiser.inv_std[8], 0.0, "the last feature is constant");
        let z = standardiser.apply(data.features()).unwrap();
        let solution: Vec<f64> = (0..10).map(|d| 0.3 * f64::from(d) - 1.0).collect();
        let machine = standardiser.fold(&solution);
        let weights = machine.weights.iter().map(|&w| w as f32).collect();
        let svm = Svm { names: data.names.clone(), weights, bias: vec![machine.bias as f32], c: vec![1.0] };
        let scores = svm.scores(data.features()).unwrap();
        let explicit = Separator { weights: solution[..9].to_vec(), bias: solution[9] };
        for (row, score) in z.chunks_exact(9).zip(scores) {
            approx::assert_abs_diff_eq!(f64::from(score), explicit.score(row), epsilon = 1e-4);
        }
    }

    #[test]
    fn the_solution_is_the_minimum_of_the_papers_objective() {
        // L2-regularised squared hinge: at the minimum the gradient w - 2 C sum y max(0, 1 - y s) x vanishes, the
        // bias included.
        let data = Data::new(120, 4, 1, 0.2);
        let standardiser = Standardiser::fit(data.features()).unwrap();
        let z = standardiser.apply(data.features()).unwrap();
        let c = 0.1;
        let mut solution = solve(data.features(), &standardiser, &data.labels, &[true; 120], c, Vec::new()).unwrap();
        let bias = solution.pop().unwrap();
        let machine = Separator { weights: solution, bias };
        let gradient = |m: &Separator| {
            let mut g: Vec<f64> = m.weights.iter().chain([&m.bias]).copied().collect();
            for (row, &t) in z.chunks_exact(4).zip(&data.labels) {
                let y = if t { 1.0 } else { -1.0 };
                let slack = (1.0 - y * m.score(row)).max(0.0);
                row.iter()
                    .map(|&x| f64::from(x))
                    .chain([1.0])
                    .zip(&mut g)
                    .for_each(|(x, g)| *g -= 2.0 * c * y * slack * x);
            }
            g.iter().map(|g| g * g).sum::<f64>().sqrt()
        };
        let start = gradient(&Separator { weights: vec![0.0; 4], bias: 0.0 });
        let end = gradient(&machine);
        assert!(end <= TOLERANCE * start, "gradient {end} of {start}");
    }

    #[test]
    fn what_is_saved_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("svm.safetensors");
        let (svm, _) = Data::new(60, 5, 2, 0.1).train(&Options::default());
        svm.save(&path).unwrap();
        assert_eq!(Svm::load(&path).unwrap(), svm);
    }

    #[test]
    fn a_file_whose_shapes_or_names_disagree_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("svm.safetensors");
        let refused = |weight: &[usize], bias: usize, names: &str| {
            let data = vec![0.5; weight.iter().product()];
            let tensor = |name, shape, data| Named { name, shape, dtype: Dtype::F32, data };
            let (shape, ones) = ([bias], vec![1.0; bias]);
            let tensors = [
                tensor("svm.weight", weight, &data),
                tensor("svm.bias", &shape, &ones),
                tensor("svm.c", &shape, &ones),
            ];
            write(&path, &tensors, &[("attributes".into(), names.into())]).unwrap();
            Svm::load(&path).unwrap_err().to_string()
        };
        assert!(refused(&[2, 3], 2, r#"["a"]"#).contains("2 machines of 3 features for 1 attribute names"));
        assert!(refused(&[2, 3], 3, r#"["a","b"]"#).contains("svm.bias: shape [3], [2] wanted"));
        assert!(refused(&[6], 2, r#"["a","b"]"#).contains("[attributes, dims] wanted"));
        assert!(refused(&[2, 3], 2, "a, b").contains("not a JSON list"));
    }

    #[test]
    fn patch_scores_are_averaged_per_image() {
        let scores = [1.0, 10.0, 3.0, 20.0, 5.0, 0.0, 7.0, 0.0];
        assert_eq!(average_over_patches(&scores, 2, 2).unwrap(), [2.0, 15.0, 6.0, 0.0]);
        assert!(average_over_patches(&scores, 3, 2).is_err());
        assert!(average_over_patches(&scores, 2, 0).is_err());
    }

    #[test]
    fn bad_input_is_refused_with_its_place() {
        let data = Data::new(30, 4, 2, 0.1);
        let options = Options::default();
        let message = |f: Features<'_>, labels: &[bool], people: &[u32], options: &Options| {
            train(f, labels, &data.names, people, options, &|_| {}).unwrap_err().to_string()
        };
        let mut nan = data.x.clone();
        nan[9] = f32::NAN;
        let bad = Features { data: &nan, ..data.features() };
        assert!(message(bad, &data.labels, &data.people, &options).contains("row 2, feature 1 is NaN"));
        assert!(message(data.features(), &data.labels[1..], &data.people, &options).starts_with("labels"));
        assert!(message(data.features(), &data.labels, &[7; 30], &options).starts_with("identities"));
        let short = Features { rows: 31, ..data.features() };
        assert!(message(short, &data.labels, &data.people, &options).starts_with("features"));
        for cs in [vec![], vec![0.0], vec![f64::NAN]] {
            let options = Options { cs, ..Options::default() };
            assert!(message(data.features(), &data.labels, &data.people, &options).starts_with("C:"));
        }
        let one = Options { folds: 1, ..Options::default() };
        assert!(message(data.features(), &data.labels, &data.people, &one).starts_with("folds"));
        let svm = Svm { names: data.names.clone(), weights: vec![0.0; 8], bias: vec![0.0; 1], c: vec![0.0; 2] };
        assert!(svm.scores(data.features()).is_err(), "a bias is missing");
    }

    proptest! {
        #[test]
        fn nobody_is_in_two_folds_and_no_fold_is_empty(
            people in prop::collection::vec(0u32..12, 2..80), folds in 2usize..9, seed in any::<u64>(),
        ) {
            prop_assume!(people.iter().any(|p| *p != people[0]));
            let (fold_of, n) = partition(&people, folds, seed);
            let side = |k| people.iter().zip(&fold_of).filter(|x| *x.1 == k).map(|x| *x.0).collect::<BTreeSet<_>>();
            let sides: Vec<_> = (0..n).map(side).collect();
            prop_assert!(n >= 2 && sides.iter().all(|s| !s.is_empty()));
            let everyone: BTreeSet<u32> = people.iter().copied().collect();
            prop_assert_eq!(sides.iter().map(BTreeSet::len).sum::<usize>(), everyone.len());
        }
    }
}

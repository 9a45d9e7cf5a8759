//! On the CPU the number of threads changes nothing: every operation gives the same outputs and gradients to the last bit, so that
//! training does, too.

use std::sync::Arc;
use weft::device::Device;
use weft::net::{Net, Parameters, Purpose, Session, Spec};
use weft::ops::cases::{self, all};
use weft::ops::{Mode, TargetKind, Targets};
use weft::rng::Rng;

/// Numbers of threads that divide none of the batches, some of them, and all.
const THREADS: [usize; 4] = [1, 2, 3, 7];

/// Nets whose work is divided among threads in ways that small cases do not reach: name, input, layers.
const MORE: &[(&str, [usize; 4], &str)] = &[
    ("windows gathered in parts", [7, 48, 33, 33], "a: conv filters=9 kernel=5 stride=2\nb: relu"),
    ("windows of banks gathered in parts", [7, 130, 26, 26], "a: local_conv filters=5 kernel=3 grid=2 window='halo'"),
    ("a bias of many pixels", [9, 3, 40, 41], "a: conv filters=8 kernel=3 activation='relu'"),
    ("rows of a linear layer", [13, 70, 3, 3], "a: linear outputs=33 activation='relu'\nb: linear outputs=7"),
];

/// The bits of all outputs and gradients.
fn bits(input: [usize; 4], text: &str, training: bool) -> weft::Result<Vec<u32>> {
    let n = input[0];
    let net = Arc::new(Net::new(Spec::parse(text, "case")?)?);
    let mut rng = Rng::new(5, 0);
    let (mut classes, mut values) = (Vec::new(), Vec::new());
    for kind in net.layers.iter().filter_map(|layer| layer.op.target()) {
        match kind {
            TargetKind::Classes { per_sample, below } => {
                classes = (0..n * per_sample).map(|_| rng.below(below) as u32).collect();
            }
            TargetKind::Identities => classes = (0..n).map(|_| rng.below(3) as u32).collect(),
            TargetKind::Values { per_sample } => values = (0..n * per_sample).map(|_| rng.unit()).collect(),
        }
    }
    let last = net.layers.len();
    let is_loss = net.layers[last - 1].op.target().is_some();
    let mut draw = |len: usize| -> Vec<f32> { (0..len).map(|_| rng.normal()).collect() };
    let (batch, cotangent) = (draw(net.value_len(0, n)), draw(net.value_len(last, n)));
    let parameters = Parameters::on(&Device::Cpu, &net, net.initial_parameters(1))?;
    let mut session = Session::new(net.clone(), &parameters, n, Purpose::Differentiation)?;
    session.set_input(&batch)?;
    let mode = if training { Mode::Training { seed: 7 } } else { Mode::Inference };
    session.forward(mode, Targets { classes: &classes, values: &values })?;
    let mut all = Vec::new();
    for layer in 0..last {
        all.extend(session.value(layer)?.iter().map(|value| value.to_bits()));
    }
    session.backward((!is_loss).then_some(&cotangent))?;
    let input = session.input_gradient()?.unwrap_or_default().into_owned();
    all.extend(input.iter().chain(session.gradients()?.iter()).map(|value| value.to_bits()));
    Ok(all)
}

#[track_caller]
fn same_on_any_threads(name: &str, input: [usize; 4], text: &str, training: bool) {
    let on = |threads: usize| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| bits(input, text, training)).unwrap()
    };
    let one = on(THREADS[0]);
    for threads in &THREADS[1..] {
        let other = on(*threads);
        let differ = one.iter().zip(&other).filter(|(a, b)| a != b).count();
        assert!(
            one.len() == other.len() && differ == 0,
            "{name}: {differ} of {} differ on {threads} threads",
            one.len()
        );
    }
}

#[test]
fn every_case_gives_the_same_bits_on_any_number_of_threads() {
    for case in all() {
        same_on_any_threads(case.name, case.input, &case.toml(), case.training);
    }
}

#[test]
fn work_that_is_divided_among_threads_gives_the_same_bits() {
    for (name, input, layers) in MORE {
        same_on_any_threads(name, *input, &cases::toml(*input, layers), true);
    }
}

//! Dropout masks: how many values are dropped, what happens to the others, and that backward regenerates the same mask.

use crate::device::Device;
use crate::of_every_device;
use crate::problem::{Answer, Problem};
use std::sync::Arc;
use weft::device::Precision;
use weft::net::{Net, Spec};
use weft::ops::Mode;
use weft::ops::cases::Expectation;

/// Ones through two parallel dropout layers, and back with ones.
fn ones(device: &Device, rate: f32, mode: Mode) -> (Problem, Answer) {
    let net = format!(
        "name = 'ones'\ninput = [3, 67, 101]\n\
         [[layer]]\nname = 'a'\ntype = 'dropout'\nrate = {rate}\n\
         [[layer]]\nname = 'b'\ntype = 'dropout'\nrate = {rate}\nfrom = 'input'\n"
    );
    let net = Arc::new(Net::new(Spec::parse(&net, "ones").unwrap()).unwrap());
    let len = 2 * net.spec.input.len();
    let problem = Problem {
        name: format!("dropout {rate} of ones"),
        seed: if let Mode::Training { seed } = mode { seed } else { 0 },
        n: 2,
        mode,
        input: vec![1.0; len],
        parameters: Vec::new(),
        classes: Vec::new(),
        values: Vec::new(),
        cotangent: Some(vec![1.0; len]),
        expects: Expectation::USUAL,
        smooth: true,
        net,
    };
    let answer = device.run(&problem);
    (problem, answer)
}

pub fn dropout_drops_its_rate_and_keeps_the_mean(devices: &[Device]) {
    of_every_device(devices, "dropout rate", |device, report| {
        for (seed, rate) in [(1, 0.5), (2, 0.1), (3, 0.9), (u64::MAX, 0.25)] {
            let (problem, answer) = ones(device, rate, Mode::Training { seed });
            let scale = match device.precision {
                Precision::F16 | Precision::Bf16 => device.precision.round_factor(1.0 / (1.0 - rate)),
                Precision::F32 | Precision::Tf32 => 1.0 / (1.0 - rate),
            };
            for output in &answer.outputs {
                let n = output.len() as f64;
                let dropped = output.iter().filter(|y| **y == 0.0).count() as f64;
                let deviation = (n * f64::from(rate) * f64::from(1.0 - rate)).sqrt();
                let usual = (dropped - n * f64::from(rate)).abs() <= 5.0 * deviation;
                report.require(&problem, usual, &format!("{dropped} of {n} values fell"));
                let others = output.iter().all(|y| *y == 0.0 || *y == scale);
                report.require(&problem, others, &format!("values that are neither 0 nor {scale}"));
            }
        }
    });
}

pub fn backward_draws_the_mask_of_forward(devices: &[Device]) {
    of_every_device(devices, "dropout backward", |device, report| {
        let (problem, answer) = ones(device, 0.4, Mode::Training { seed: 9 });
        // Only the last layer leads to the cotangent.
        report.require(&problem, answer.d_input == answer.outputs[1], "backward has another mask than forward");
    });
}

pub fn masks_differ_between_steps_and_layers_and_repeat_with_the_seed(devices: &[Device]) {
    of_every_device(devices, "dropout masks", |device, report| {
        let (problem, first) = ones(device, 0.5, Mode::Training { seed: 1 });
        let (_, again) = ones(device, 0.5, Mode::Training { seed: 1 });
        let (_, next) = ones(device, 0.5, Mode::Training { seed: 2 });
        let (_, far) = ones(device, 0.5, Mode::Training { seed: 1 + (1 << 32) });
        report.require(&problem, first.outputs == again.outputs, "a seed gives two masks");
        let independent = |a: &[f32], b: &[f32]| {
            let equal = a.iter().zip(b).filter(|(a, b)| a == b).count() as f64;
            let n = a.len() as f64;
            (equal - n / 2.0).abs() <= 5.0 * n.sqrt() / 2.0
        };
        let [a, b] = [&first.outputs[0], &first.outputs[1]];
        report.require(&problem, independent(a, b), "two layers have related masks");
        report.require(&problem, independent(a, &next.outputs[0]), "two seeds have related masks");
        report.require(&problem, independent(a, &far.outputs[0]), "the seed's upper half is lost");
        let samples = a.split_at(a.len() / 2);
        report.require(&problem, independent(samples.0, samples.1), "two samples have related masks");
    });
}

pub fn dropout_is_nothing_in_inference(devices: &[Device]) {
    of_every_device(devices, "dropout inference", |device, report| {
        let (problem, answer) = ones(device, 0.5, Mode::Inference);
        report.require(&problem, answer.outputs.concat().iter().all(|y| *y == 1.0), "values changed");
        report.require(&problem, answer.d_input.iter().all(|d| *d == 1.0), "gradients changed");
    });
}

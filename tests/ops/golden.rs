//! Comparison with PyTorch's numbers. The files were created by `tests/golden/make.py`, which describes their content.

use crate::device::Device;
use crate::of_every_device;
use crate::problem::Problem;
use crate::reference::to_f64;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft::net::{Net, Spec};
use weft::ops::Mode;
use weft::ops::cases::Expectation;
use weft::weights::TensorFile;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

pub fn weft_gives_pytorchs_numbers(devices: &[Device]) {
    let entries = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path());
    let mut nets: Vec<PathBuf> = entries.filter(|path| path.extension().is_some_and(|e| e == "toml")).collect();
    nets.sort();
    of_every_device(devices, "golden", |device, report| {
        for path in &nets {
            let file = TensorFile::open(path.with_extension("safetensors")).unwrap();
            let problem = problem(Net::load(path).unwrap(), &file, "input", "target");
            let answer = device.run(&problem);

            let (net, mut answers) = (&problem.net, 0);
            let mut want = |name: &str| {
                answers += 1;
                to_f64(&numbers(&file, &format!("expected.{name}")))
            };
            for (l, (layer, output)) in net.layers.iter().zip(&answer.outputs).enumerate() {
                report.output(&problem, l, &layer.name, output, &want(&layer.name));
            }
            report.gradient(&problem, "input", &answer.d_input, &want("grad.input"));
            for (parameter, gradient) in net.parameters.iter().zip(&answer.d_parameters) {
                report.gradient(&problem, &parameter.name, gradient, &want(&format!("grad.{}", parameter.name)));
            }
            let expected = file.names().filter(|name| name.starts_with("expected.")).count();
            report.require(&problem, expected == answers, "the file expects tensors that the net does not have");
        }
    });
}

pub fn the_similarity_loss_is_the_mean_over_pairs(devices: &[Device]) {
    of_every_device(devices, "golden similarity", |device, report| {
        for name in ["similarity", "similarity_no_pairs"] {
            let file = TensorFile::open(folder().join(name).with_extension("safetensors")).unwrap();
            let width = file.require("features").unwrap().shape[1];
            let net =
                format!("name = '{name}'\ninput = [{width}, 1, 1]\n[[layer]]\nname = 'loss'\ntype = 'similarity'\n");
            let net = Net::new(Spec::parse(&net, name).unwrap()).unwrap();
            let mut problem = problem(net, &file, "features", "identities");
            if name == "similarity_no_pairs" {
                problem.expects.zero = &["loss", "features"];
            }
            let answer = device.run(&problem);
            report.output(&problem, 0, "loss", &answer.outputs[0], &to_f64(&numbers(&file, "expected.loss")));
            report.gradient(&problem, "features", &answer.d_input, &to_f64(&numbers(&file, "expected.grad")));
        }
    });
}

/// The problem in a file; parameters are `param.<name>`.
fn problem(net: Net, file: &TensorFile, input: &str, target: &str) -> Problem {
    let parameters = net.parameters.iter().map(|p| numbers(file, &format!("param.{}", p.name))).collect();
    let (mut classes, mut values) = (Vec::new(), Vec::new());
    match file.get(target) {
        Some(tensor) if tensor.dtype == weft::weights::Dtype::I64 => {
            let words = tensor.bytes.chunks_exact(8).map(|word| i64::from_le_bytes(word.try_into().unwrap()));
            classes = words.map(|word| word.try_into().unwrap()).collect();
        }
        Some(_) => values = numbers(file, target),
        None => {}
    }
    Problem {
        name: net.spec.name.clone(),
        seed: 0,
        n: file.require(input).unwrap().shape[0],
        mode: Mode::Inference,
        input: numbers(file, input),
        parameters,
        classes,
        values,
        cotangent: file.get("cotangent").map(|_| numbers(file, "cotangent")),
        expects: Expectation::USUAL,
        smooth: true,
        net: Arc::new(net),
    }
}

fn numbers(file: &TensorFile, name: &str) -> Vec<f32> {
    file.require(name).unwrap().to_f32().unwrap().into_owned()
}

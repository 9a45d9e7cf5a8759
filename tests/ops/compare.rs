//! Does every layer's output equal a plain f64 loop?

use crate::problem::Problem;
use crate::{of_every_case, reference};
use weft::ops::Mode;

#[test]
fn every_layer_equals_a_plain_f64_loop() {
    let truth = |problem: &Problem| reference::run(problem).outputs;
    of_every_case(
        "compare",
        |_| true,
        truth,
        |device, problem, wanted, report| {
            let answer = device.run(problem);
            for (l, (got, want)) in answer.outputs.iter().zip(wanted).enumerate() {
                report.output(problem, &format!("layer {}", problem.net.layers[l].name), got, &want.values);
                let shape = problem.net.layers[l].shape;
                let same = (shape.c, shape.h, shape.w) == (want.c, want.h, want.w);
                report.require(problem, same, &format!("shape {shape} instead of {:?}", want.shape()));
            }
        },
    );
}

#[test]
fn no_layer_hides_nan() {
    of_every_case(
        "NaN",
        // One that is checked runs the same kernels, only slower.
        |device| !device.checked,
        |_| (),
        |device, problem, (), report| {
            let mut poisoned = problem.poisoned();
            // A mask may drop NaN; that is its business.
            poisoned.mode = Mode::Inference;
            let outputs = device.run(&poisoned).outputs;
            for (layer, output) in problem.net.layers.iter().zip(outputs) {
                let no_pair = layer.kind == "similarity" && problem.n == 1;
                let all = output.iter().all(|x| x.is_nan());
                report.require(problem, all || no_pair, &format!("layer {} makes numbers out of NaN", layer.name));
            }
        },
    );
}

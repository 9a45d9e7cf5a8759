//! Does every layer's output equal a plain f64 loop?

use crate::device::Device;
use crate::problem::Problem;
use crate::{of_every_case, reference};
use weft::ops::Mode;

pub fn every_layer_equals_a_plain_f64_loop(devices: &[Device]) {
    let truth = |problem: &Problem| reference::run(problem).outputs;
    of_every_case(
        devices,
        "compare",
        |_| true,
        truth,
        |device, problem, wanted, report| {
            if report.passes_over(problem) {
                return;
            }
            let answer = device.run(problem);
            for (l, (got, want)) in answer.outputs.iter().zip(wanted).enumerate() {
                report.output(problem, l, &format!("layer {}", problem.net.layers[l].name), got, &want.values);
                let shape = problem.net.layers[l].shape;
                let same = (shape.c, shape.h, shape.w) == (want.c, want.h, want.w);
                report.require(problem, same, &format!("shape {shape} instead of {:?}", want.shape()));
            }
        },
    );
}

pub fn no_layer_hides_nan(devices: &[Device]) {
    of_every_case(
        devices,
        "NaN",
        // A checked device runs the same kernels, only slower.
        |device| !device.checked,
        |_| (),
        |device, problem, (), report| {
            let mut poisoned = problem.poisoned();
            // A mask may drop NaN, legitimately.
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

//! Does backward match central differences of the f64 reference, for the input and every parameter?

use crate::problem::Problem;
use crate::reference::{self, Pass, to_f64};
use crate::{of_every_case, report::Report};
use weft::rng::Rng;

/// Step of a central difference to either side: in f64 both its truncation and its rounding stay far below f32's.
pub const STEP: f64 = 1e-6;

/// Of tensors with more values, as many as this are drawn.
const VALUES: usize = 300;

#[test]
fn every_gradient_matches_central_differences() {
    of_every_case("gradient", |device, problem, report| {
        let answer = (device.run)(problem);
        let input = to_f64(&problem.input);
        let parameters: Vec<Vec<f64>> = problem.parameters.iter().map(|p| to_f64(p)).collect();

        check(problem, report, "input", &answer.d_input, |at, step| {
            let mut input = input.clone();
            input[at] += step;
            reference::forward(problem, &input, &parameters)
        });
        for (index, d_parameter) in answer.d_parameters.iter().enumerate() {
            check(problem, report, &problem.net.parameters[index].name, d_parameter, |at, step| {
                let mut parameters = parameters.clone();
                parameters[index][at] += step;
                reference::forward(problem, &input, &parameters)
            });
        }
    });
}

/// Holds `gradient` against differences; `moved` is the pass with one value moved by a step.
fn check(problem: &Problem, report: &mut Report, what: &str, gradient: &[f32], moved: impl Fn(usize, f64) -> Pass) {
    let mut places: Vec<usize> = (0..gradient.len()).collect();
    if places.len() > VALUES {
        Rng::new(problem.seed, 1).shuffle(&mut places);
        places.truncate(VALUES);
    }
    let got: Vec<f32> = places.iter().map(|&at| gradient[at]).collect();
    let want: Vec<f64> = places.iter().map(|&at| slope(problem, &moved(at, STEP), &moved(at, -STEP))).collect();
    report.gradient(problem, what, &got, &want);
    // The rest at least are numbers.
    report.require(problem, gradient.iter().all(|g| g.is_finite()), &format!("gradient of {what} is not finite"));
}

/// Change of what is differentiated, per unit: the sum of all losses, the last layer's output weighted by the cotangent.
/// The outputs are subtracted one by one, so that large sums do not eat small differences.
fn slope(problem: &Problem, above: &Pass, below: &Pass) -> f64 {
    let last = above.outputs.len() - 1;
    let mut change = 0.0;
    for (l, (above, below)) in above.outputs.iter().zip(&below.outputs).enumerate() {
        let difference = above.values.iter().zip(&below.values).map(|(a, b)| a - b);
        match &problem.cotangent {
            Some(cotangent) if l == last => {
                change += difference.zip(cotangent).map(|(d, g)| d * f64::from(*g)).sum::<f64>();
            }
            _ if problem.is_loss(l) => change += difference.sum::<f64>(),
            _ => {}
        }
    }
    change / (2.0 * STEP)
}

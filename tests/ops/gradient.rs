//! Does backward match central differences of the f64 reference, for the input and every parameter?

use crate::device::Device;
use crate::of_every_case;
use crate::problem::Problem;
use crate::reference::{self, Pass, to_f64};
use weft::rng::Rng;

/// Step of a central difference in either direction: in f64 both truncation and rounding errors stay far below those of f32.
pub const STEP: f64 = 1e-6;

/// Number of values checked in larger tensors: half of them the largest, because the gradient of a maximum is zero elsewhere,
/// half of them random.
const VALUES: usize = 80;

/// A tensor's gradient at some positions, by central differences.
struct Slopes {
    what: String,
    places: Vec<usize>,
    want: Vec<f64>,
}

pub fn every_gradient_matches_central_differences(devices: &[Device]) {
    of_every_case(
        devices,
        "gradient",
        |_| true,
        slopes,
        |device, problem, slopes, report| {
            if !problem.smooth {
                return report.pass_over(problem, "no numbers of this precision lie away from its kinks");
            }
            if report.passes_over(problem) {
                return;
            }
            let answer = device.run(problem);
            let gradients = std::iter::once(&answer.d_input).chain(&answer.d_parameters);
            for (gradient, Slopes { what, places, want }) in gradients.zip(slopes) {
                let got: Vec<f32> = places.iter().map(|&at| gradient[at]).collect();
                report.gradient(problem, what, &got, want);
                // The remaining values must at least be finite.
                report.require(
                    problem,
                    gradient.iter().all(|g| g.is_finite()),
                    &format!("gradient of {what} is not finite"),
                );
            }
        },
    );
}

/// Slopes of the input and of every parameter.
fn slopes(problem: &Problem) -> Vec<Slopes> {
    if !problem.smooth {
        return Vec::new();
    }
    let input = to_f64(&problem.input);
    let parameters: Vec<Vec<f64>> = problem.parameters.iter().map(|p| to_f64(p)).collect();
    let mut all = vec![differences(problem, "input", &input, |at, step| {
        let mut input = input.clone();
        input[at] += step;
        reference::forward(problem, &input, &parameters)
    })];
    for (index, parameter) in parameters.iter().enumerate() {
        all.push(differences(problem, &problem.net.parameters[index].name, parameter, |at, step| {
            let mut parameters = parameters.clone();
            parameters[index][at] += step;
            reference::forward(problem, &input, &parameters)
        }));
    }
    all
}

/// `moved` is the pass with one of `values` moved by a step.
fn differences(problem: &Problem, what: &str, values: &[f64], moved: impl Fn(usize, f64) -> Pass) -> Slopes {
    let mut places: Vec<usize> = (0..values.len()).collect();
    if places.len() > VALUES {
        places.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        Rng::new(problem.seed, 1).shuffle(&mut places[VALUES / 2..]);
        places.truncate(VALUES);
    }
    let want = places.iter().map(|&at| slope(problem, &moved(at, STEP), &moved(at, -STEP))).collect();
    Slopes { what: what.to_string(), places, want }
}

/// Change per unit of the differentiated quantity: the sum of all losses, or the last layer's output weighted by the cotangent.
/// Outputs are subtracted one by one, so that large sums do not swamp small differences.
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

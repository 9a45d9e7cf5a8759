//! Does a memory plan with more sharing change any bit? Each purpose keeps different buffers, so each has its own arena layout; a
//! buffer that is overwritten too early causes a difference (and NaN, because every arena is poisoned first).

use crate::problem::{self, Problem};
use weft::device::{Device, Precision};
use weft::net::{Parameters, Purpose, Session};
use weft::ops::{Targets, nchw_to_nhwc};

/// Losses, last output and gradients of the parameters, as bits.
fn bits(problem: &Problem, purpose: Purpose) -> (Vec<u32>, Vec<u32>) {
    let net = &problem.net;
    let parameters = Parameters::on(&Device::Cpu, net, problem.parameters.concat()).unwrap();
    let mut session = Session::new(net.clone(), &parameters, problem.n, purpose).unwrap();
    for problem in [&problem.poisoned(), problem] {
        let mut values = problem.values.clone();
        if let Some(loss) = net.layers.iter().find(|layer| layer.kind == "sigmoid_cross_entropy") {
            nchw_to_nhwc(net.shape(loss.inputs[0]), &problem.values, &mut values);
        }
        let targets = Targets { classes: &problem.classes, values: &values };
        // The order of the parameters and of the cotangent does not matter here: any numbers will do.
        parameters.write(&problem.parameters.concat()).unwrap();
        nchw_to_nhwc(net.spec.input, &problem.input, session.input());
        session.forward(problem.mode, targets).unwrap();
        if purpose.is_backward() {
            session.backward(problem.cotangent.as_deref()).unwrap();
        }
    }
    let mut outputs = session.output().unwrap().to_vec();
    outputs.push(session.loss().unwrap());
    let bits = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect();
    (bits(&outputs), bits(&session.gradients().unwrap()))
}

pub fn a_plan_that_shares_memory_changes_no_bit() {
    for case in problem::wanted() {
        let problem = Problem::of(case, Precision::F32);
        let place = format!("case {} (seed {})", problem.name, problem.seed);
        let (outputs, gradients) = bits(&problem, Purpose::Differentiation);
        assert!(outputs == bits(&problem, Purpose::Inference).0, "{place}: output in inference");
        assert!(outputs == bits(&problem, Purpose::Inspection).0, "{place}: output in inspection");
        let training = bits(&problem, Purpose::Training);
        assert!(gradients == training.1, "{place}: gradients in training");
        assert!(outputs[outputs.len() - 1] == training.0[outputs.len() - 1], "{place}: losses in training");
    }
}

//! Numerical truth: one list of cases ([`cases`]), the same questions of every device ([`device::DEVICES`]).
//!
//! - *compare*: does every layer's output equal a plain f64 loop?
//! - *gradient*: does backward match central differences of that loop?
//! - *golden*: are they PyTorch's numbers?
//! - *dropout*, *kinks*: what a formula does not say: masks, and gradients where there is none.
//! - *sharing*: does a memory plan that shares more change a bit?
//!
//! Every message names device, case and seed; `WEFT_TEST_SEED=n` draws other numbers.

mod cases;
mod compare;
mod device;
mod dropout;
mod golden;
mod gradient;
mod kinks;
mod loops;
mod problem;
mod reference;
mod report;
mod sharing;

use device::{DEVICES, Device};
use problem::Problem;
use report::Report;

/// Asks every device: `ask` adds what it finds to the report.
fn of_every_device(question: &str, ask: impl Fn(&Device, &mut Report)) {
    for device in DEVICES {
        let mut report = Report::new(question, device);
        ask(device, &mut report);
        report.finish();
    }
}

/// Asks every device about every case.
fn of_every_case(question: &str, ask: impl Fn(&Device, &Problem, &mut Report)) {
    let problems: Vec<Problem> = cases::all().iter().map(cases::Case::problem).collect();
    of_every_device(question, |device, report| problems.iter().for_each(|problem| ask(device, problem, report)));
}

//! Numerical truth: one list of cases ([`cases`]), the same questions of every device ([`device::all`]).
//!
//! - *compare*: does every layer's output equal a plain f64 loop?
//! - *gradient*: does backward match central differences of that loop?
//! - *golden*: are they PyTorch's numbers?
//! - *dropout*, *kinks*: what a formula does not say: masks, and gradients where there is none.
//! - *sharing*: does a memory plan that shares more change a bit?
//!
//! Every message names device, case and seed; `WEFT_TEST_SEED=n` draws other numbers, `WEFT_TEST_CASES=text` takes
//! only the cases whose name holds it, `WEFT_TEST_DEVICES=text` only such devices.

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

use device::Device;
use problem::Problem;
use report::Report;
use weft::device::Precision;

/// Asks every device: `ask` adds what it finds to the report.
fn of_every_device(question: &str, ask: impl Fn(&Device, &mut Report)) {
    for device in device::all() {
        let mut report = Report::new(question, &device);
        ask(&device, &mut report);
        report.finish();
    }
}

/// Values of a case that a device which checks every access is asked about.
const SMALL: usize = 8_000;

/// Asks every device about every case, with numbers as its precision keeps them. `truth` is what is wanted, found once.
fn of_every_case<T>(
    question: &str,
    is_asked: impl Fn(&Device) -> bool,
    truth: impl Fn(&Problem) -> T,
    ask: impl Fn(&Device, &Problem, &T, &mut Report),
) {
    let devices = device::all();
    for precision in Precision::ALL {
        let devices: Vec<&Device> =
            devices.iter().filter(|device| device.precision == precision && is_asked(device)).collect();
        if devices.is_empty() {
            continue;
        }
        let mut reports: Vec<Report> = devices.iter().map(|device| Report::new(question, device)).collect();
        for case in cases::all() {
            let problem = case.problem_in(precision);
            let truth = truth(&problem);
            for (device, report) in devices.iter().zip(&mut reports) {
                if !device.checked || problem.len() <= SMALL {
                    ask(device, &problem, &truth, report);
                }
            }
        }
        reports.into_iter().for_each(Report::finish);
    }
}

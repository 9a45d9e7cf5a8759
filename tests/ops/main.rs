//! Numerical correctness: one list of cases ([`weft::ops::cases`]), the same checks on every device ([`device`]).
//!
//! - *compare*: does every layer's output equal a plain f64 loop?
//! - *gradient*: does backward match central differences of that loop?
//! - *golden*: do the results match PyTorch's?
//! - *dropout*, *kinks*: what a formula does not specify: masks, and gradients where the derivative is undefined.
//! - *sharing*: does a memory plan with more sharing change any bit?
//!
//! Every message names device, case and seed; `WEFT_TEST_SEED=n` selects other random numbers, `WEFT_TEST_CASES=text` only the
//! cases whose name contains the text, `WEFT_TEST_DEVICES=text` only such devices.

mod compare;
mod device;
mod dropout;
mod golden;
mod gradient;
#[path = "../support/harness.rs"]
mod harness;
mod kinks;
mod loops;
mod problem;
mod reference;
mod report;
mod sharing;

use device::Device;
use libtest_mimic::{Completion, Trial};
use problem::Problem;
use report::Report;
use std::process::ExitCode;
use weft::device::Precision;

type Question = fn(&[Device]);

const QUESTIONS: &[(&str, Question)] = &[
    ("every_layer_equals_a_plain_f64_loop", compare::every_layer_equals_a_plain_f64_loop),
    ("no_layer_hides_nan", compare::no_layer_hides_nan),
    ("every_gradient_matches_central_differences", gradient::every_gradient_matches_central_differences),
    ("golden_weft_gives_pytorchs_numbers", golden::weft_gives_pytorchs_numbers),
    ("golden_the_similarity_loss_is_the_mean_over_pairs", golden::the_similarity_loss_is_the_mean_over_pairs),
    ("dropout_drops_its_rate_and_keeps_the_mean", dropout::dropout_drops_its_rate_and_keeps_the_mean),
    ("dropout_backward_draws_the_mask_of_forward", dropout::backward_draws_the_mask_of_forward),
    (
        "dropout_masks_differ_between_steps_and_layers_and_repeat_with_the_seed",
        dropout::masks_differ_between_steps_and_layers_and_repeat_with_the_seed,
    ),
    ("dropout_is_nothing_in_inference", dropout::dropout_is_nothing_in_inference),
    ("a_relu_at_zero_passes_nothing", kinks::a_relu_at_zero_passes_nothing),
    (
        "the_first_of_equal_maxima_gets_all_of_a_windows_gradient",
        kinks::the_first_of_equal_maxima_gets_all_of_a_windows_gradient,
    ),
    ("equal_global_maxima_share_the_gradient", kinks::equal_global_maxima_share_the_gradient),
    ("a_silent_window_stays_silent_without_k", kinks::a_silent_window_stays_silent_without_k),
];

/// Each check on the CPU and the emulator, and on the GPU of this machine: ignored where there is none.
fn main() -> ExitCode {
    let mut tests = vec![harness::test(
        "a_plan_that_shares_memory_changes_no_bit",
        sharing::a_plan_that_shares_memory_changes_no_bit,
    )];
    for &(name, question) in QUESTIONS {
        let ask = move || {
            question(&device::here());
            Ok(())
        };
        tests.push(Trial::test(name, ask));
        let ask = move || {
            Ok(match device::cuda() {
                Ok(devices) => {
                    question(&devices);
                    Completion::Completed
                }
                Err(reason) => Completion::ignored_with(reason),
            })
        };
        tests.push(Trial::ignorable_test(format!("{name}_on_cuda"), ask));
    }
    harness::main(tests)
}

/// Runs a check on every device: `ask` adds its results to the report.
fn of_every_device(devices: &[Device], question: &str, ask: impl Fn(&Device, &mut Report)) {
    let reports = devices.iter().map(|device| {
        let mut report = Report::new(question, device);
        ask(device, &mut report);
        report
    });
    finish(reports.collect());
}

fn finish(reports: Vec<Report>) {
    assert!(!reports.is_empty(), "no device was asked");
    let failures: Vec<String> = reports.into_iter().filter_map(Report::finish).collect();
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Maximum number of values in a case for devices that check every access.
const SMALL: usize = 8_000;

/// Runs a check on every device and case, with numbers rounded to its precision. `truth` is the expected result, computed once.
fn of_every_case<T>(
    devices: &[Device],
    question: &str,
    is_asked: impl Fn(&Device) -> bool,
    truth: impl Fn(&Problem) -> T,
    ask: impl Fn(&Device, &Problem, &T, &mut Report),
) {
    let mut all = Vec::new();
    for precision in Precision::ALL {
        let devices: Vec<&Device> =
            devices.iter().filter(|device| device.precision == precision && is_asked(device)).collect();
        if devices.is_empty() {
            continue;
        }
        let mut reports: Vec<Report> = devices.iter().map(|device| Report::new(question, device)).collect();
        for case in problem::wanted() {
            let problem = Problem::of(case, precision);
            let truth = truth(&problem);
            for (device, report) in devices.iter().zip(&mut reports) {
                if !device.checked || problem.len() <= SMALL {
                    ask(device, &problem, &truth, report);
                }
            }
        }
        all.append(&mut reports);
    }
    finish(all);
}

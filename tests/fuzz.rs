//! The fuzzer of `examples/fuzz`: every input that ever failed is run again, a few thousand new ones are run, and planted faults
//! show that it finds what it is looking for.

#[path = "../examples/fuzz/engine/mod.rs"]
mod engine;

use engine::{Options, Report, Work};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

/// The test that a worker process runs, which then acts as a worker.
const WORKER: &str = "inputs_that_failed_do_not_fail_again";

fn options(work: Work) -> Options {
    let words = [WORKER, "--exact", "--nocapture", "--test-threads=1"].map(Into::into).to_vec();
    // Machines that build and test at the same time are slow.
    let time = Duration::from_secs(30);
    Options { work, seed: 1, only: Vec::new(), workers: 2, findings: None, time, words }
}

fn run(options: &Options) -> Report {
    engine::run(options, &AtomicBool::new(false), &mut |_| ()).unwrap()
}

/// A description of what failed.
fn failures(report: &Report) -> String {
    let faults = report.findings.iter().filter(|finding| finding.is_fault());
    faults
        .map(|f| format!("{} {} of input {}: {}\n{}\n", f.format, f.kind, f.inputs[0].0, f.text, f.trace.join("\n")))
        .collect()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .flat_map(|path| if path.is_dir() { files_below(&path) } else { vec![path] })
        .collect();
    files.sort();
    files
}

#[test]
fn inputs_that_failed_do_not_fail_again() {
    if engine::serve() {
        return;
    }
    let files = files_below(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/regressions"));
    let count = files.len() as u64;
    assert!(count > 0);
    let listed: String = files.iter().enumerate().map(|(i, file)| format!("{i}: {}\n", file.display())).collect();
    let report = run(&options(Work::Files(files)));
    assert_eq!(report.failed(), 0, "{listed}{}", failures(&report));
    assert_eq!(report.total().count.inputs, count);
}

#[test]
fn a_few_thousand_inputs_do_no_harm() {
    let report = run(&options(Work::Inputs(6000)));
    assert_eq!(report.failed(), 0, "{}", failures(&report));
    assert_eq!(report.total().count.inputs, 6000);
    // A format whose inputs are all accepted, or all rejected early, is not being tested.
    for (name, figures) in &report.formats {
        assert!(figures.count.accepted > 0 && figures.count.refused > 0, "{name}: {:?}", figures.count);
    }
    assert_eq!(report.formats.len(), engine::FORMATS.len() - 1, "all but the planted ones");
}

#[test]
fn most_whole_files_are_accepted() {
    let folder = tempfile::tempdir().unwrap();
    engine::write_seeds(folder.path()).unwrap();
    let report = run(&options(Work::Files(files_below(folder.path()))));
    assert_eq!(report.failed(), 0, "{}", failures(&report));
    for (name, figures) in &report.formats {
        let count = &figures.count;
        assert!(2 * count.accepted >= count.inputs, "{name}: {count:?} {:?}", figures.refusals);
    }
}

#[test]
fn planted_faults_are_found_kept_and_found_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = options(Work::Inputs(60));
    options.only = vec![engine::PLANTED.into()];
    // Producing a panic's backtrace takes a while on a slow machine.
    options.time = Duration::from_secs(5);
    options.findings = Some(folder.path().to_path_buf());
    let report = run(&options);
    let total = report.total();
    assert_eq!(total.count.inputs, 60, "the work goes on behind what ends a worker");
    let kinds: BTreeSet<&str> = report.findings.iter().map(|finding| finding.kind.as_str()).collect();
    assert_eq!(Vec::from_iter(kinds), ["abort", "broken", "caught", "hang", "memory", "message", "panic"]);
    let found = |kind: &str, text: &str| {
        report.findings.iter().any(|finding| finding.kind == kind && finding.text.contains(text))
    };
    for (kind, text) in [
        ("panic", "planted"),
        ("memory", "memory allocation of 1099511627776 bytes failed"),
        ("abort", "overflowed its stack"),
        ("message", "control character: planted: two\\nlines"),
        ("message", "without its place"),
        ("broken", "planted"),
        ("caught", "capacity overflow"),
    ] {
        assert!(found(kind, text), "{kind} {text}: {}", failures(&report));
    }
    assert!(total.count.accepted > 0 && total.count.refused > 0);
    let traced = report.findings.iter().filter(|finding| ["panic", "memory"].contains(&finding.kind.as_str()));
    assert!(traced.flat_map(|finding| &finding.trace).any(|call| call.contains("planted")), "{}", failures(&report));

    let kept: Vec<PathBuf> = files_below(folder.path()).into_iter().filter(|f| f.extension().is_none()).collect();
    let failed = |kept: &PathBuf| !kept.to_string_lossy().contains("/caught-");
    let again: Vec<PathBuf> = kept.into_iter().filter(failed).collect();
    let count = again.len() as u64;
    assert!(count >= 8);
    options.work = Work::Files(again);
    assert_eq!(run(&options).failed(), count);
}

#[test]
fn time_ends_a_run_and_its_progress_is_told() {
    let mut options = options(Work::Seconds(3.0));
    options.only = vec!["record".into()];
    let mut last: Option<engine::Progress> = None;
    let report = engine::run(&options, &AtomicBool::new(false), &mut |progress| last = Some(progress)).unwrap();
    let last = last.unwrap();
    assert_eq!((last.inputs, last.findings, last.share), (report.total().count.inputs, 0, 1.0));
    assert!(last.inputs > 0 && last.elapsed >= Duration::from_millis(2500), "{last:?}");
    options.only = vec!["recrod".into()];
    let error = engine::run(&options, &AtomicBool::new(false), &mut |_| ()).unwrap_err().to_string();
    assert!(error.starts_with("format recrod: is unknown; weights, "), "{error}");
}

#[test]
fn an_input_is_a_function_of_seed_and_number() {
    let some = |seed: u64| (0..500).map(|number| engine::input(seed, number, &[])).collect::<Vec<_>>();
    assert_eq!(some(1), some(1));
    assert_ne!(some(1), some(2));
}

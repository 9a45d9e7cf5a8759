//! Feeds damaged files to Weft's readers: `cargo run --release --example fuzz -- --seconds 60`.
//!
//! Every input is a function of a seed and a number, so it can be regenerated. A failing one is kept with a description;
//! `--replay` runs it again, and in `tests/fuzz/regressions` it becomes a test.

mod engine;

use clap::Parser;
use engine::{FORMATS, Options, Progress, Report, Work};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};
use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant};
use weft::{Error, Result};

/// Feed damaged files to Weft's readers, within limits of memory and time. Exit code 1: something failed.
#[derive(Parser)]
struct Args {
    /// Run this many inputs
    #[arg(long, value_name = "N", conflicts_with = "seconds")]
    inputs: Option<u64>,
    /// Run for this many seconds [default: 60]
    #[arg(long, value_name = "S")]
    seconds: Option<f64>,
    /// The same seed gives the same inputs
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Only use this format; may be repeated
    #[arg(long, value_name = "FORMAT")]
    only: Vec<String>,
    /// Number of processes [default: one per core]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Time limit for one input, in seconds
    #[arg(long, value_name = "S", default_value_t = 5.0)]
    time: f64,
    /// Folder for failing inputs
    #[arg(long, value_name = "DIR", default_value = "target/fuzz")]
    findings: PathBuf,
    /// Instead, run these files, which are in folders named after their formats (or --only gives the format)
    #[arg(long, value_name = "FILE", num_args = 1.., conflicts_with_all = ["inputs", "seconds"])]
    replay: Vec<PathBuf>,
    /// List the formats and the memory limit of each
    #[arg(long)]
    list: bool,
    /// Write the valid files that inputs are derived from to folders named after their formats
    #[arg(long, value_name = "DIR")]
    seeds: Option<PathBuf>,
    /// Write the statistics to this file
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    if engine::serve() {
        return ExitCode::SUCCESS;
    }
    match run(&Args::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("fuzz: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns true if nothing failed.
fn run(args: &Args) -> Result<bool> {
    if args.list {
        for format in FORMATS {
            println!("{:12} at most {:>4} MiB", format.name, format.memory >> 20);
        }
        return Ok(true);
    }
    if let Some(folder) = &args.seeds {
        engine::write_seeds(folder)?;
        return Ok(true);
    }
    let work = match args.inputs {
        _ if !args.replay.is_empty() => Work::Files(args.replay.clone()),
        Some(inputs) => Work::Inputs(inputs),
        None => Work::Seconds(args.seconds.unwrap_or(60.0)),
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = Options {
        work,
        seed: args.seed,
        only: args.only.clone(),
        workers: args.workers.unwrap_or(cores),
        findings: Some(args.findings.clone()),
        time: Duration::from_secs_f64(args.time),
        words: Vec::new(),
    };
    let stop = Arc::new(AtomicBool::new(false));
    let set = stop.clone();
    ctrlc::set_handler(move || set.store(true, Relaxed)).map_err(|e| Error::new("Ctrl-C", e))?;
    let mut display = Display::new();
    let report = engine::run(&options, &stop, &mut |progress| display.show(progress))?;
    display.bar.finish_and_clear();
    println!("{}", text(&report));
    if let Some(path) = &args.json {
        let text = serde_json::to_string_pretty(&document(&report, args, options.workers))
            .map_err(|e| Error::new("JSON", e))?;
        std::fs::write(path, text + "\n").map_err(|e| Error::file(path, e))?;
    }
    if report.failed() > 0 {
        println!("failing inputs are in {}", args.findings.display());
    }
    Ok(report.failed() == 0)
}

/// A bar on a terminal, occasional lines elsewhere.
struct Display {
    bar: ProgressBar,
    told: Instant,
}

impl Display {
    fn new() -> Self {
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(1000) } else { ProgressBar::hidden() };
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {msg}") {
            bar.set_style(style);
        }
        Self { bar, told: Instant::now() }
    }

    fn show(&mut self, progress: Progress) {
        let Progress { inputs, findings, elapsed, share } = progress;
        let seconds = elapsed.as_secs_f64();
        let left = if share > 0.0 { format!("{:.0} s left", seconds / share - seconds) } else { String::new() };
        let message = format!("{inputs} inputs, {:.0}/s, {findings} findings, {left}", inputs as f64 / seconds);
        self.bar.set_position((1000.0 * share) as u64);
        if self.bar.is_hidden() && self.told.elapsed() > Duration::from_secs(10) {
            let _ = writeln!(std::io::stderr(), "{message}");
            self.told = Instant::now();
        }
        self.bar.set_message(message);
    }
}

fn per_second(inputs: u64, nanoseconds: u64) -> f64 {
    if nanoseconds == 0 { 0.0 } else { inputs as f64 / (nanoseconds as f64 / 1e9) }
}

fn text(report: &Report) -> String {
    let mut text = format!(
        "{:12} {:>9} {:>9} {:>9} {:>7} {:>7} {:>6} {:>6} {:>7} {:>9} {:>9} {:>8} {:>8}\n",
        "format",
        "inputs",
        "accepted",
        "refused",
        "faults",
        "memory",
        "abort",
        "hang",
        "caught",
        "peak MiB",
        "inputs/s",
        "slowest",
        "messages"
    );
    let total = report.total();
    let rows = report.formats.iter().map(|(name, figures)| (*name, figures)).chain([("all", &total)]);
    for (name, f) in rows {
        let c = &f.count;
        text += &format!(
            "{name:12} {:>9} {:>9} {:>9} {:>7} {:>7} {:>6} {:>6} {:>7} {:>9.1} {:>9.0} {:>5.0} ms {:>8}\n",
            c.inputs,
            c.accepted,
            c.refused,
            c.faults,
            f.memory,
            f.aborts,
            f.hangs,
            c.caught,
            c.peak as f64 / (1 << 20) as f64,
            per_second(c.inputs, c.time),
            c.slowest as f64 / 1e6,
            f.refusals.len(),
        );
    }
    let seconds = report.elapsed.as_secs_f64();
    text += &format!("{} inputs in {seconds:.1} s, {:.0}/s", total.count.inputs, total.count.inputs as f64 / seconds);
    // Faults first, then third-party panics that Weft caught.
    let (faults, caught): (Vec<_>, Vec<_>) = report.findings.iter().partition(|finding| finding.is_fault());
    for finding in faults.into_iter().chain(caught) {
        let (number, input) = &finding.inputs[0];
        text += &format!(
            "\n\n{} {} (input {number}, {} bytes): {}",
            finding.format,
            finding.kind,
            input.len(),
            finding.text.escape_debug()
        );
        for call in &finding.trace {
            text += &format!("\n    {call}");
        }
    }
    text
}

fn document(report: &Report, args: &Args, workers: usize) -> Value {
    let total = report.total();
    let formats = FORMATS.iter().filter_map(|format| Some((format, report.formats.get(format.name)?)));
    let formats: serde_json::Map<String, Value> = formats
        .map(|(format, f)| {
            let c = &f.count;
            let figures = json!({
                "inputs": c.inputs,
                "accepted": c.accepted,
                "refused": c.refused,
                "faults": c.faults,
                "over_memory": f.memory,
                "aborts": f.aborts,
                "hangs": f.hangs,
                "decoder_panics_caught": c.caught,
                "peak_bytes": c.peak,
                "limit_bytes": format.memory,
                "inputs_per_second_and_core": per_second(c.inputs, c.time).round(),
                "slowest_ms": (c.slowest as f64 / 1e4).round() / 100.0,
                "slowest_input": c.slow,
                "kinds_of_messages": f.refusals.len(),
            });
            (format.name.to_string(), figures)
        })
        .collect();
    let findings = report.findings.iter().map(|finding| {
        json!({
            "format": finding.format,
            "kind": finding.kind,
            "text": finding.text,
            "trace": finding.trace,
            "input": finding.inputs[0].0,
        })
    });
    json!({
        "weft": env!("CARGO_PKG_VERSION"),
        "seed": args.seed,
        "workers": workers,
        "time_limit_seconds": args.time,
        "inputs": total.count.inputs,
        "failed": report.failed(),
        "decoder_panics_caught": total.count.caught,
        "peak_bytes": total.count.peak,
        "seconds": (report.elapsed.as_secs_f64() * 10.0).round() / 10.0,
        "inputs_per_second": (total.count.inputs as f64 / report.elapsed.as_secs_f64()).round(),
        "formats": formats,
        "findings": findings.collect::<Vec<_>>(),
    })
}

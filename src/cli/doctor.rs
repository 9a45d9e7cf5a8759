//! `weft doctor`: reports the hardware and toolchain found, and checks every kernel against the CPU; or probes the card.

use super::progress::Progress;
use super::{print, print_json, ranks};
use crate::Result;
use crate::device::tuned::{self, Card, Record, Wrong};
use crate::device::{Device, Gpu};
use crate::dist::Launch;
use crate::doctor::probe::{self, Layout, Probes, Rate, Unit};
use crate::doctor::{self, DoctorReport, KernelRow, Machine};
use crate::shipped::{Folder, Source};
use crate::text_table::{TextTable, number, text};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Show the compiler, driver and GPUs found, and check every kernel against the CPU.
#[derive(clap::Args)]
pub struct Args {
    /// Device on which to run the kernels: auto, cuda, cuda:N, simt, simt:checked, simt:ptx or simt:ptx:checked (the emulator)
    #[arg(long, default_value = "auto")]
    device: String,
    /// Only run cases whose name contains this text
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
    /// Instead of the kernels, probe the device: what copies, caches, multiply-adds, tensor cores and launches reach at best (not on
    /// the emulator), and what mma.sync and ldmatrix do with each register, against the PTX ISA
    #[arg(long, conflicts_with = "only")]
    probe: bool,
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    // Of several ranks, each says where it is and the first goes on alone.
    let world = ranks::join(ranks::PATIENCE)?;
    let places = ranks::places(&world)?;
    world.end();
    if !world.is_first() {
        return Ok(ExitCode::SUCCESS);
    }
    let machine = Machine::look();
    if !args.json {
        print(show_machine(&machine))?;
        print(show_ranks(&places))?;
    }
    let device = match Device::open(&args.device).map_err(|e| e.as_option(&["device"])) {
        Ok(device) => device,
        Err(e) => {
            if args.json {
                print_json(&json!({ "machine": machine_json(&machine), "problem": e.to_string() }))?;
            }
            return Err(e);
        }
    };
    let Some(gpu) = device.gpu() else {
        if args.json {
            print_json(&json!({ "machine": machine_json(&machine), "device": "cpu" }))?;
        } else {
            print("device       the CPU: no kernels to check; --device simt checks them on an emulator")?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    let properties = gpu.driver.properties();
    let free = gpu.driver.free_memory().ok().filter(|free| *free != u64::MAX);
    let [major, minor] = properties.capability;
    if !args.json {
        // An emulator's memory is the host's.
        let all = if properties.memory > 0 { format!(" of {:.1}", gib(properties.memory)) } else { String::new() };
        let memory = free.map_or(String::new(), |free| format!(", {:.1}{all} GiB free", gib(free)));
        print(format!("device       {}, capability {major}.{minor}{memory}\n", properties.name))?;
    }
    let device = json!({
        "name": properties.name,
        "capability": format!("{major}.{minor}"),
        "multiprocessors": properties.multiprocessors,
        "memory": properties.memory,
        "free": free,
    });
    if args.probe {
        return probes(gpu, args.json, json!({ "machine": machine_json(&machine), "device": device }));
    }
    let wanted = |name: &str| args.only.as_ref().is_none_or(|text| name.contains(text.as_str()));
    let progress = Progress::new(doctor::checks() as u64, "checks");
    let report = doctor::check(gpu, wanted, |done| progress.set(done));
    drop(progress);
    let complete = args.only.is_none();
    if args.json {
        let unused = if complete { json!(report.unused) } else { Value::Null };
        print_json(&json!({
            "machine": machine_json(&machine),
            "device": device,
            "kernels": report.rows.iter().map(row_json).collect::<Vec<_>>(),
            "unused": unused,
            "tuned": tuned_json(gpu),
            "failed": report.failed(),
        }))?;
    } else {
        print(table(&report, complete) + &tuned_in_words(gpu))?;
    }
    Ok(if report.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The file of tuned products, and what it has of this card; `None` where there can be none.
fn tuned_here(gpu: &Gpu) -> Option<(PathBuf, Result<Vec<Record>>)> {
    let path = tuned::default_path().filter(|_| !gpu.driver.is_host())?;
    let found = tuned::records(&path, &Card::new(gpu.driver.properties()));
    Some((path, found))
}

fn tuned_json(gpu: &Gpu) -> Value {
    match tuned_here(gpu) {
        None => Value::Null,
        Some((path, Err(e))) => json!({ "file": path.display().to_string(), "problem": e.to_string() }),
        Some((path, Ok(records))) => {
            let wrong = records.iter().flat_map(|record| {
                let one = |wrong: &Wrong| json!({ "product": record.product, "cut": wrong.cut, "found": wrong.found });
                record.wrong.iter().map(one)
            });
            json!({ "file": path.display().to_string(), "products": records.len(), "wrong": wrong.collect::<Vec<_>>() })
        }
    }
}

/// Lines below the table; none where nothing was tuned.
fn tuned_in_words(gpu: &Gpu) -> String {
    match tuned_here(gpu) {
        None => String::new(),
        Some((_, Err(e))) => format!("\ntuned products are not used: {e}"),
        Some((path, Ok(records))) => records_in_words(&path, &records),
    }
}

fn records_in_words(path: &Path, records: &[Record]) -> String {
    if records.is_empty() {
        return String::new();
    }
    let mut text = format!("\n{} products are tuned for this card in {}", records.len(), path.display());
    for record in records {
        for Wrong { cut, found } in &record.wrong {
            text += &format!("\nwrong when it was tuned, and never chosen: {} cut as {cut}: {found}", record.product);
        }
    }
    text
}

/// `--probe`; `document` has what is known of machine and device.
fn probes(gpu: &Gpu, as_json: bool, mut document: Value) -> Result<ExitCode> {
    let found = probe::run(gpu)?;
    if as_json {
        document["layouts"] = found.layouts.iter().map(layout_json).collect();
        document["rates"] = found.rates.as_ref().map_or(Value::Null, |rates| rates.iter().map(rate_json).collect());
        document["failed"] = json!(found.failed());
        print_json(&document)?;
    } else {
        print(probes_in_words(&found))?;
    }
    Ok(if found.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn layout_json(layout: &Layout) -> Value {
    let Layout { instruction, registers, wrong, first, raw } = layout;
    json!({ "instruction": instruction, "registers": registers, "wrong": wrong, "first": first, "raw": raw })
}

fn rate_json(rate: &Rate) -> Value {
    let unit = match rate.unit {
        Unit::Bytes => "bytes per second",
        Unit::Flops => "FLOP per second",
        Unit::Seconds => "seconds",
    };
    json!({ "name": rate.name, "amount": rate.amount, "unit": unit, "peak": rate.peak })
}

fn probes_in_words(found: &Probes) -> String {
    let columns = TextTable::new([text("instruction"), number("registers"), text("as in the PTX ISA")]);
    let row = |layout: &Layout| {
        let verdict =
            layout.first.as_ref().map_or("yes".into(), |first| format!("NO, {} differ: {first}", layout.wrong));
        vec![layout.instruction.clone(), layout.registers.to_string(), verdict]
    };
    let layouts = columns.print(found.layouts.iter().map(row));
    let Some(rates) = &found.rates else {
        return format!("{layouts}\n\nTimes of the emulator say nothing about a GPU: no rates.");
    };
    let columns = TextTable::new([text("at best"), number("rate"), text(""), number("of the peak")]);
    let row = |rate: &Rate| {
        let (scale, unit) = match rate.unit {
            Unit::Bytes => (1e-9, "GB/s"),
            Unit::Flops => (1e-12, "TFLOP/s"),
            Unit::Seconds => (1e6, "us"),
        };
        let share = rate.peak.map_or("-".into(), |peak| format!("{:.0} %", 100.0 * rate.amount / peak));
        vec![rate.name.clone(), format!("{:.2}", rate.amount * scale), unit.into(), share]
    };
    format!("{layouts}\n\n{}", columns.print(rates.iter().map(row)))
}

fn show_machine(machine: &Machine) -> String {
    let code = match machine.compiler {
        "" => "none: weft was built without nvcc".to_string(),
        compiler => format!("sm_{}, by {compiler}", machine.architectures.join(" sm_")),
    };
    let driver = match &machine.driver {
        Ok([major, minor]) => format!("supports CUDA {major}.{minor}"),
        Err(why) => why.clone(),
    };
    let mpi = machine.mpi.as_ref().unwrap_or_else(|why| why);
    let mut text = format!(
        "weft         {}\nCPU          {} vectors\nmodel        {}\nnets         built in: {}\nGPU code     {code}\ndriver       {driver}\nMPI          {mpi}",
        env!("CARGO_PKG_VERSION"),
        machine.vectors,
        model(),
        Source::net_names(),
    );
    for (ordinal, (gpu, fits)) in machine.gpus.iter().enumerate() {
        let [major, minor] = gpu.capability;
        let fits = if *fits || machine.compiler.is_empty() { "" } else { ", no code for it in this weft" };
        text += &format!(
            "\ncuda:{ordinal:<7} {}, capability {major}.{minor}, {} multiprocessors, {:.1} GiB{fits}",
            gpu.name,
            gpu.multiprocessors,
            gib(gpu.memory)
        );
        if let Some(peaks) = gpu.peaks {
            text += &format!(
                "\n             at most {:.1} TFLOP/s in f32, {:.0} in tf32, {:.0} in 16 bits, {:.0} GB/s",
                peaks.f32 * 1e-12,
                peaks.tf32 * 1e-12,
                peaks.half * 1e-12,
                peaks.memory * 1e-9
            );
        }
    }
    text
}

/// Launchers, and where ranks are or would be.
fn show_ranks(places: &[String]) -> String {
    let launcher = match ranks::launcher() {
        Some((launcher, _)) => format!("{}: {}", launcher.display(), ranks::version(&launcher)),
        None => "neither mpirun nor mpiexec is on the PATH".into(),
    };
    let by = Launch::find().map_or(String::new(), |launch| format!(", by {}", launch.name()));
    let mut text = format!("launcher     {launcher}\nranks        {}{by}", places.len());
    for (rank, place) in places.iter().enumerate() {
        text += &format!("\nrank {rank:<8}{place}");
    }
    text
}

/// The model that `predict` and other commands use by default.
fn model() -> String {
    match Folder::model() {
        Folder::Shipped => {
            "built in; a bundle in `weights` beside the program, or --model DIR, would replace it".into()
        }
        Folder::Disk(folder) => format!("{}, beside the program; --model DIR would replace it", folder.display()),
    }
}

fn machine_json(machine: &Machine) -> Value {
    let gpus = machine.gpus.iter().map(|(gpu, fits)| {
        json!({
            "name": gpu.name,
            "capability": format!("{}.{}", gpu.capability[0], gpu.capability[1]),
            "memory": gpu.memory,
            "has_code": fits,
            "peaks": gpu.peaks.map(|p| json!({ "f32": p.f32, "tf32": p.tf32, "half": p.half, "memory": p.memory })),
        })
    });
    json!({
        "weft": env!("CARGO_PKG_VERSION"),
        "cpu_vectors": machine.vectors.to_string(),
        "model": Folder::model().to_string(),
        "compiler": machine.compiler,
        "architectures": machine.architectures,
        "cuda": machine.driver.as_ref().ok().map(|[major, minor]| format!("{major}.{minor}")),
        "driver_problem": machine.driver.as_ref().err(),
        "mpi": machine.mpi.as_ref().ok(),
        "mpi_problem": machine.mpi.as_ref().err(),
        "gpus": gpus.collect::<Vec<_>>(),
    })
}

fn row_json(row: &KernelRow) -> Value {
    // JSON cannot represent infinity.
    let finite = |x: f64| x.is_finite().then_some(x);
    json!({
        "kernel": row.kernel,
        "precision": row.precision.to_string(),
        "error": finite(row.error),
        "tolerance": row.tolerance,
        "share": finite(row.share()),
        "case": row.case,
        "ok": row.holds(),
        "failure": row.failure,
    })
}

fn table(report: &DoctorReport, complete: bool) -> String {
    let columns = [text("kernel"), text("precision"), number("error"), number("tolerance"), number("share"), text("")];
    let columns = TextTable::new(columns.into_iter().chain([text("worst in")]));
    let row = |row: &KernelRow| {
        vec![
            row.kernel.clone(),
            row.precision.to_string(),
            format!("{:.2e}", row.error),
            format!("{:.0e}", row.tolerance),
            if row.share() < 99.5 { format!("{:.2}", row.share()) } else { ">99".into() },
            if row.holds() { "ok" } else { "FAILED" }.into(),
            row.failure.as_ref().map_or(row.case.clone(), |failure| format!("{}: {failure}", row.case)),
        ]
    };
    let mut text = columns.print(report.rows.iter().map(row));
    let kernels: std::collections::BTreeSet<&str> = report.rows.iter().map(|row| row.kernel.as_str()).collect();
    text += &format!("\n\n{} kernels, {} checks, {} failed", kernels.len(), report.rows.len(), report.failed());
    if complete && !report.unused.is_empty() {
        text += &format!("\nnot used on this device: {}", report.unused.join(", "));
    }
    text
}

/// `bytes` in GiB.
fn gib(bytes: u64) -> f64 {
    bytes as f64 / f64::from(1 << 30)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::{Cut, ProductKey, Tile};

    #[test]
    fn what_was_wrong_when_it_was_tuned_is_named() {
        let [kernel, layer] = ["conv_forward_bf16", "32 x 8x9x9"].map(str::to_string);
        let product = ProductKey { kernel, layer, batch: 1, size: [2592, 64, 576], wide: true };
        let cut = |tile, splits| Cut { tile, splits };
        let wrong = Wrong { cut: cut(Tile::Large, 2), found: "its error is 7.0 times the tolerance".into() };
        let model = cut(Tile::Middle, 1);
        let record = Record { product, choice: None, seconds: None, model, model_seconds: None, wrong: vec![wrong] };
        let text = records_in_words(Path::new("t.json"), &[record]);
        let lines: Vec<&str> = text.lines().skip(1).collect();
        assert_eq!(lines[0], "1 products are tuned for this card in t.json");
        let named =
            "conv_forward_bf16 1x2592x64x576 (32 x 8x9x9) cut as 128x128 / 2: its error is 7.0 times the tolerance";
        assert!(lines.len() == 2 && lines[1].ends_with(named), "{text}");
        assert_eq!(records_in_words(Path::new("t.json"), &[]), "");
    }
}

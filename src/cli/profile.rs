//! `weft profile`: a table of where a net spends its time, one row per launch.

use super::chain::Chain;
use super::numbers::{self, Size};
use super::{DeviceArgs, print, print_json};
use crate::net::{Net, Purpose};
use crate::profile::{self, Profile, Roof, Row};
use crate::shipped::Source;
use crate::text_table::{TextTable, number, text};
use crate::weights::{keep_inputs, write_atomic};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

/// Show where a network spends its time: each launch, its time, and its share of the device's peak.
#[derive(clap::Args)]
pub struct Args {
    #[arg(value_parser = super::net(), help = super::NET, required_unless_present = "chain")]
    net: Option<Source>,
    /// Instead of a network, profile the way of this photo from its file to its attributes
    #[arg(long, value_name = "PHOTO", conflicts_with_all = ["net", "batch", "train", "size"])]
    chain: Option<PathBuf>,
    #[command(flatten)]
    model: super::ModelArgs,
    #[arg(long, default_value_t = 1, value_parser = numbers::count())]
    batch: usize,
    #[command(flatten)]
    device: DeviceArgs,
    /// Profile both forward and backward
    #[arg(long)]
    train: bool,
    /// Input size, as 300x300 (height x width)
    #[arg(long, value_name = "HxW")]
    size: Option<Size>,
    /// Number of measured repetitions
    #[arg(long, default_value_t = 20, value_parser = numbers::runs())]
    runs: usize,
    /// Write the launches, or the steps of the photo, as a Chrome trace (chrome://tracing, ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    if let Some(path) = &args.trace {
        keep_inputs("--trace", path, args.net.iter().filter_map(Source::path).chain(args.chain.as_deref()))?;
    }
    if let Some(photo) = &args.chain {
        let device = args.device.open()?;
        let mut model = args.model.load(&device)?;
        model.attributes()?;
        let chain = Chain::measure(&mut model, &device, photo, args.runs)?;
        args.trace.as_ref().map_or(Ok(()), |path| save(path, &chain.timeline()))?;
        chain.print(args.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    let Some(net) = &args.net else { unreachable!("required without --chain") };
    let mut net = Net::load(net)?;
    if let Some(Size { height, width }) = args.size {
        net = net.at_size(height, width)?;
    }
    let device = args.device.open()?;
    let purpose = if args.train { Purpose::Training } else { Purpose::Inference };
    profile::check(format!("--batch {}", args.batch), &device, &net, args.batch, purpose)?;
    let net = Arc::new(net);
    let report = profile::profile(&device, &net, args.batch, purpose, args.runs)?;
    args.trace.as_ref().map_or(Ok(()), |path| save(path, &trace(&report)))?;
    if args.json {
        print_json(&document(&report, args))?;
    } else {
        print(table(&report, args))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Writes a Chrome trace.
fn save(path: &Path, trace: &Value) -> Result<()> {
    let text = serde_json::to_string(trace).map_err(|e| Error::new("JSON", e))?;
    write_atomic(path, |file| file.write_all(text.as_bytes()))
}

/// `-` for an unknown value.
fn or_dash<T>(value: Option<T>, show: impl Fn(T) -> String) -> String {
    value.map_or_else(|| "-".into(), show)
}

fn table(report: &Profile, args: &Args) -> String {
    let heads =
        ["grid", "block", "regs", "shared", "occupancy", "us", "25%-75%", "MFLOP", "MB", "TFLOP/s", "GB/s", "roofline"];
    let columns = ["kernel", "layer"].map(text).into_iter().chain(heads.map(number)).chain([text("roof")]);
    let launches = TextTable::new(columns).print(report.rows.iter().map(cells));
    let sum = report.sum();
    let layer = |(layer, [forward, backward]): (&str, [f64; 2])| {
        let back = if args.train { format!("{:.1}", 1e6 * backward) } else { "-".into() };
        let share = 100.0 * (forward + backward) / sum;
        vec![layer.to_string(), format!("{:.1}", 1e6 * forward), back, format!("{share:.1}%")]
    };
    let columns = [text("layer"), number("forward us"), number("backward us"), number("share")];
    let layers = TextTable::new(columns).print(report.layers().into_iter().map(layer));
    let how = if report.rows.iter().any(|row| row.launch.is_some()) { "as one graph" } else { "at once" };
    format!("{}, batch {}, {} runs\n\n{launches}\n\n{layers}\n", report.device, args.batch, args.runs)
        + &format!("\nsum {:.1} us, the whole {how} {:.1} us", 1e6 * sum, 1e6 * report.whole.median)
}

fn cells(row: &Row) -> Vec<String> {
    let seconds = row.times.median.max(f64::MIN_POSITIVE);
    let launch = row.launch.as_ref();
    let shared = |attributes: u32| launch.map(|launch| launch.shared + attributes);
    let arrow = if row.is_backward && launch.is_none() { " backward" } else { "" };
    vec![
        format!("{}{arrow}", row.kernel),
        row.layer.clone(),
        or_dash(launch, |launch| launch.grid.map(|n| n.to_string()).join("x")),
        or_dash(launch, |launch| launch.block.to_string()),
        or_dash(row.attributes, |attributes| match attributes.local {
            0 => attributes.registers.to_string(),
            local => format!("{} (+{local} B local)", attributes.registers),
        }),
        or_dash(shared(row.attributes.map_or(0, |attributes| attributes.static_shared)), |bytes| bytes.to_string()),
        or_dash(row.occupancy, |share| format!("{:.0}%", 100.0 * share)),
        format!("{:.1}", 1e6 * row.times.median),
        format!("{:.1}-{:.1}", 1e6 * row.times.low, 1e6 * row.times.high),
        format!("{:.2}", row.work.flops as f64 * 1e-6),
        format!("{:.2}", row.work.bytes as f64 * 1e-6),
        format!("{:.3}", row.work.flops as f64 / seconds * 1e-12),
        format!("{:.1}", row.work.bytes as f64 / seconds * 1e-9),
        or_dash(row.roofline, |(share, _)| format!("{:.0}%", 100.0 * share)),
        or_dash(row.roofline, |(_, roof)| roof_name(roof).into()),
    ]
}

fn roof_name(roof: Roof) -> &'static str {
    match roof {
        Roof::Compute => "compute",
        Roof::Memory => "memory",
    }
}

fn row_json(row: &Row) -> Value {
    json!({
        "kernel": row.kernel,
        "layer": row.layer,
        "pass": if row.is_backward { "backward" } else { "forward" },
        "grid": row.launch.as_ref().map(|launch| launch.grid),
        "block": row.launch.as_ref().map(|launch| launch.block),
        "dynamic_shared": row.launch.as_ref().map(|launch| launch.shared),
        "static_shared": row.attributes.map(|attributes| attributes.static_shared),
        "registers": row.attributes.map(|attributes| attributes.registers),
        "local": row.attributes.map(|attributes| attributes.local),
        "occupancy": row.occupancy,
        "seconds": row.times.median,
        "seconds_25": row.times.low,
        "seconds_75": row.times.high,
        "flops": row.work.flops,
        "bytes": row.work.bytes,
        "roofline": row.roofline.map(|(share, _)| share),
        "roof": row.roofline.map(|(_, roof)| roof_name(roof)),
    })
}

fn document(report: &Profile, args: &Args) -> Value {
    let layers = report.layers().into_iter().map(|(layer, [forward, backward])| {
        json!({ "layer": layer, "forward": forward, "backward": args.train.then_some(backward) })
    });
    json!({
        "device": report.device,
        "net": args.net.as_ref().map(ToString::to_string),
        "batch": args.batch,
        "train": args.train,
        "runs": args.runs,
        "peaks": report.peaks.map(|p| json!({ "f32": p.f32, "tf32": p.tf32, "half": p.half, "memory": p.memory })),
        "launches": report.rows.iter().map(row_json).collect::<Vec<_>>(),
        "layers": layers.collect::<Vec<_>>(),
        "sum": report.sum(),
        "whole": report.whole.median,
    })
}

/// Chrome's trace format: consecutive launches on one track and the layers they belong to on another. Durations are medians, in
/// microseconds.
fn trace(report: &Profile) -> Value {
    let event = |name: &str, line: u32, start: f64, length: f64, more: Value| json!({ "name": name, "ph": "X", "pid": 0, "tid": line, "ts": 1e6 * start, "dur": 1e6 * length, "args": more });
    let line = |line: u32, name: &str| json!({ "name": "thread_name", "ph": "M", "pid": 0, "tid": line, "args": { "name": name } });
    let process = json!({ "name": "process_name", "ph": "M", "pid": 0, "args": { "name": report.device } });
    let mut events = vec![process, line(0, "layers"), line(1, "launches")];
    let mut now = 0.0;
    let mut layer: Option<(&str, bool, f64)> = None;
    for row in &report.rows {
        let same = layer.is_some_and(|(name, is_backward, _)| (name, is_backward) == (&row.layer, row.is_backward));
        if !same {
            if let Some((name, is_backward, start)) = layer {
                events.push(event(name, 0, start, now - start, json!({ "backward": is_backward })));
            }
            layer = Some((&row.layer, row.is_backward, now));
        }
        events.push(event(&row.kernel, 1, now, row.times.median, row_json(row)));
        now += row.times.median;
    }
    if let Some((name, is_backward, start)) = layer {
        events.push(event(name, 0, start, now - start, json!({ "backward": is_backward })));
    }
    json!({ "displayTimeUnit": "ns", "traceEvents": events })
}

//! `weft profile`: a table of where a net spends its time, one row per launch.

#[cfg(feature = "simt")]
mod predicted;

use super::chain::Chain;
use super::numbers::{self, Size};
use super::{DeviceArgs, print, print_json};
use crate::device::{Device, Peaks};
use crate::net::{Net, Purpose};
use crate::profile::cards::Card;
use crate::profile::host::Host;
use crate::profile::page::{Page, Table};
use crate::profile::picture::{Picture, Roofs};
use crate::profile::{self, Profile, Roof, Row, Step, layers};
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
    /// Predict the times on a GPU that is not here, from what the device simt:ptx counts: t4, a100, rtx4090, l40s, h100 or h200
    #[arg(long, value_name = "CARD", conflicts_with_all = ["chain", "runs"])]
    card: Option<String>,
    /// With --card, count at most this many blocks of each launch, 0 for all
    #[arg(long, value_name = "N", default_value_t = 64, requires = "card")]
    blocks: u64,
    /// With --card, show the prediction beside a profile of the same pass that `weft profile --json` wrote on a real card
    #[arg(long, value_name = "FILE", requires = "card")]
    compare: Option<PathBuf>,
    /// Draw the roofline and the time of each layer (SVG)
    #[arg(long, value_name = "FILE", conflicts_with = "chain")]
    plot: Option<PathBuf>,
    /// Write a page with tables, roofline and timeline (HTML)
    #[arg(long, value_name = "FILE", conflicts_with = "chain")]
    report: Option<PathBuf>,
    /// Write the launches, or the steps of the photo, as a Chrome trace (chrome://tracing, ui.perfetto.dev)
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let reads = || {
        let net = args.net.iter().filter_map(Source::path);
        net.chain(args.chain.as_deref()).chain(args.compare.as_deref())
    };
    let writes = [("--trace", &args.trace), ("--plot", &args.plot), ("--report", &args.report)];
    for (flag, path) in writes {
        path.as_ref().map_or(Ok(()), |path| keep_inputs(flag, path, reads()))?;
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
    let card = args.card.as_deref().map(Card::find).transpose().map_err(|e| e.as_option(&["card"]))?;
    let mut net = Net::load(net)?;
    if let Some(Size { height, width }) = args.size {
        net = net.at_size(height, width)?;
    }
    let mut device = args.device.open()?;
    if let Some(card) = card {
        device = device.planned_for(card.multiprocessors);
    }
    let purpose = if args.train { Purpose::Training } else { Purpose::Inference };
    profile::check(format!("--batch {}", args.batch), &device, &net, args.batch, purpose)?;
    let net = Arc::new(net);
    match card {
        Some(card) => predict(args, &device, &net, purpose, card)?,
        None => measure(args, &device, &net, purpose)?,
    }
    Ok(ExitCode::SUCCESS)
}

/// Times the launches.
fn measure(args: &Args, device: &Device, net: &Arc<Net>, purpose: Purpose) -> Result<()> {
    let mut report = profile::profile(device, net, args.batch, purpose, args.runs)?;
    let roofs = match report.peaks {
        Some(peaks) => Some(Roofs::of_gpu(&device.name(), peaks)),
        None if device.gpu().is_none() => Some(Roofs::of_host(Host::measure()?)),
        None => None,
    };
    if let Some(roofs) = roofs {
        report.against(roofs.peaks);
    }
    let rows: Vec<Value> = report.rows.iter().map(row_json).collect();
    let launches = launch_table(&report);
    let lead = format!("{}, batch {}, {} runs", report.device, args.batch, args.runs);
    let note = match report.peaks {
        Some(peaks) => format!("{}{}", roofs_in_words(peaks), over(&report)),
        None => "Times of the emulator say nothing about a GPU.".into(),
    };
    let sections = vec![("Launches", note, launches.clone())];
    let picture = Picture { steps: report.steps(), roofs, is_predicted: false };
    files(args, &report.device, &lead, picture, &rows, sections)?;
    if args.json {
        return print_json(&json!({
            "device": report.device,
            "net": args.net.as_ref().map(ToString::to_string),
            "batch": args.batch,
            "train": args.train,
            "runs": args.runs,
            "peaks": report.peaks.map(|p| json!({ "f32": p.f32, "tf32": p.tf32, "half": p.half, "memory": p.memory })),
            "cache": roofs.and_then(|roofs| roofs.cache).map(|(_, bytes)| bytes),
            "launches": rows,
            "layers": layers_json(&report.steps(), args),
            "sum": report.sum(),
            "whole": report.whole.median,
        }));
    }
    let how = if report.rows.iter().any(|row| row.launch.is_some()) { "as one graph" } else { "at once" };
    let roofs = report.peaks.map_or(String::new(), |peaks| format!("\n{}{}", roofs_in_words(peaks), over(&report)));
    print(
        format!("{lead}\n\n{}\n\n{}\n", text_of(&launches), text_of(&layer_table(&report.steps(), args)))
            + &format!("\nsum {:.1} us, the whole {how} {:.1} us", 1e6 * report.sum(), 1e6 * report.whole.median)
            + &roofs,
    )
}

/// The rates that the column `roofline` is a share of.
fn roofs_in_words(peaks: Peaks) -> String {
    let scale = |flops: f64| format!("{:.2} TFLOP/s", flops * 1e-12);
    let tensor = match peaks.half == peaks.f32 {
        true => String::new(),
        false => format!(", {} in 16 bits on tensor cores", scale(peaks.half)),
    };
    format!("roofs: {} in f32{tensor}, memory {:.1} GB/s", scale(peaks.f32), peaks.memory * 1e-9)
}

/// Why a share of the roofline may exceed 1.
fn over(report: &Profile) -> &'static str {
    let over = |row: &Row| row.roofline.is_some_and(|(share, roof)| share > 1.0 && roof == Roof::Memory);
    if report.rows.iter().any(over) { "; with more than 100% of the memory's, values came from a cache" } else { "" }
}

/// Predicts the launches.
#[cfg(feature = "simt")]
fn predict(args: &Args, device: &Device, net: &Arc<Net>, purpose: Purpose, card: &'static Card) -> Result<()> {
    use crate::profile::forecast::{Comparison, forecast};
    let real = args.compare.as_deref().map(|path| real(path, args)).transpose()?;
    let most = (args.blocks > 0).then_some(args.blocks);
    let found = forecast(device, net, args.batch, purpose, card, most).map_err(|e| e.as_option(&["card"]))?;
    let compare = |(path, real): (&Path, Value)| Comparison::new(&found, &real).map_err(|e| Error::file(path, e));
    let comparison = real.map(compare).transpose()?;
    let rows = predicted::rows_json(&found, comparison.as_ref());
    let launches = predicted::table(&found, comparison.as_ref());
    let lead = format!("{}, batch {}. {}", card.title, args.batch, predicted::caveat(&found));
    let compared = comparison.as_ref().map(|comparison| predicted::compared(&found, comparison));
    let lines = "By executed PTX instructions of warps, all launches together.".to_string();
    let sections = vec![
        ("Launches", compared.clone().unwrap_or_default(), launches.clone()),
        ("Source lines", lines, predicted::lines(&found)),
    ];
    let picture = Picture { steps: found.steps(), roofs: Some(Roofs::of_card(card)), is_predicted: true };
    files(args, &format!("{} (predicted)", card.title), &lead, picture, &rows, sections)?;
    if args.json {
        return print_json(&json!({
            "prediction": true,
            "device": found.device,
            "card": predicted::card_json(card),
            "net": args.net.as_ref().map(ToString::to_string),
            "batch": args.batch,
            "train": args.train,
            "launches": rows,
            "layers": layers_json(&found.steps(), args),
            "predicted_us": 1e6 * found.seconds(),
            "comparison": comparison.as_ref().map(|comparison| predicted::comparison_json(&found, comparison)),
        }));
    }
    let compared = compared.map_or(String::new(), |text| format!("\n{text}"));
    print(
        format!("{lead}\n\n{}\n\n{}\n", text_of(&launches), text_of(&layer_table(&found.steps(), args)))
            + &format!("\npredicted sum {:.1} us{compared}", 1e6 * found.seconds()),
    )
}

#[cfg(not(feature = "simt"))]
fn predict(_: &Args, _: &Device, _: &Arc<Net>, _: Purpose, card: &'static Card) -> Result<()> {
    Err(Error::new(format!("--card {}", card.name), "Weft was built without the emulator, which counts"))
}

/// A profile that was measured for the same pass.
#[cfg(feature = "simt")]
fn real<'a>(path: &'a Path, args: &Args) -> Result<(&'a Path, Value)> {
    let text = std::fs::read(path).map_err(|e| Error::io(path, e))?;
    let real: Value = serde_json::from_slice(&text).map_err(|e| Error::file(path, e))?;
    for (key, wanted) in [("batch", json!(args.batch)), ("train", json!(args.train))] {
        if real[key] != wanted {
            let found = format!("its `{key}` is {}, that of the prediction {wanted}", real[key]);
            return Err(Error::file(path, found).advise("compare profiles of the same pass"));
        }
    }
    if real["prediction"] == true {
        return Err(Error::file(path, "is a prediction itself").advise("measure with --device cuda --json"));
    }
    Ok((path, real))
}

/// Writes what `--trace`, `--plot` and `--report` ask for.
fn files(
    args: &Args,
    device: &str,
    lead: &str,
    picture: Picture<'_>,
    rows: &[Value],
    sections: Vec<(&'static str, String, Table)>,
) -> Result<()> {
    let net = args.net.as_ref().map_or(String::new(), ToString::to_string);
    if let Some(path) = &args.trace {
        save(path, &trace(device, &picture.steps, rows))?;
    }
    if let Some(path) = &args.plot {
        let svg = picture.file(&format!("{net}: {lead}"))?;
        write_atomic(path, |file| file.write_all(svg.as_bytes()))?;
    }
    if let Some(path) = &args.report {
        let command = std::env::args().collect::<Vec<_>>().join(" ");
        let title = format!("{net}: profile");
        let html = Page { title, lead: lead.to_string(), picture, sections, command }.html()?;
        write_atomic(path, |file| file.write_all(html.as_bytes()))?;
    }
    Ok(())
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

/// A row per launch, or per layer and pass on the CPU.
fn launch_table(report: &Profile) -> Table {
    let heads =
        ["grid", "block", "regs", "shared", "occupancy", "us", "25%-75%", "MFLOP", "MB", "TFLOP/s", "GB/s", "roofline"];
    let texts = ["kernel", "layer"].map(|head| (head.to_string(), true)).into_iter();
    let numbers = heads.map(|head| (head.to_string(), false));
    let heads = texts.chain(numbers).chain([("roof".to_string(), true)]).collect();
    Table { heads, rows: report.rows.iter().map(cells).collect() }.trimmed()
}

/// A row per layer.
fn layer_table(steps: &[Step<'_>], args: &Args) -> Table {
    let sum: f64 = steps.iter().map(|step| step.seconds).sum();
    let row = |(layer, [forward, backward]): (&str, [f64; 2])| {
        let back = if args.train { format!("{:.1}", 1e6 * backward) } else { "-".into() };
        let share = 100.0 * (forward + backward) / sum;
        vec![layer.to_string(), format!("{:.1}", 1e6 * forward), back, format!("{share:.1}%")]
    };
    let heads = [("layer", true), ("forward us", false), ("backward us", false), ("share", false)];
    let heads = heads.map(|(head, is_text)| (head.to_string(), is_text)).into();
    Table { heads, rows: layers(steps).into_iter().map(row).collect() }.trimmed()
}

fn text_of(table: &Table) -> String {
    let column = |(head, is_text): &(String, bool)| if *is_text { text(head) } else { number(head) };
    TextTable::new(table.heads.iter().map(column)).print(table.rows.iter().cloned())
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

fn pass_name(is_backward: bool) -> &'static str {
    if is_backward { "backward" } else { "forward" }
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
        "pass": pass_name(row.is_backward),
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

fn layers_json(steps: &[Step<'_>], args: &Args) -> Vec<Value> {
    let layer = |(layer, [forward, backward]): (&str, [f64; 2])| json!({ "layer": layer, "forward": forward, "backward": args.train.then_some(backward) });
    layers(steps).into_iter().map(layer).collect()
}

/// Chrome's trace format: consecutive launches on one track and the layers they belong to on another. Durations are medians, in
/// microseconds.
fn trace(device: &str, steps: &[Step<'_>], rows: &[Value]) -> Value {
    let event = |name: &str, line: u32, start: f64, length: f64, more: Value| json!({ "name": name, "ph": "X", "pid": 0, "tid": line, "ts": 1e6 * start, "dur": 1e6 * length, "args": more });
    let line = |line: u32, name: &str| json!({ "name": "thread_name", "ph": "M", "pid": 0, "tid": line, "args": { "name": name } });
    let process = json!({ "name": "process_name", "ph": "M", "pid": 0, "args": { "name": device } });
    let mut events = vec![process, line(0, "layers"), line(1, "launches")];
    let mut now = 0.0;
    let mut layer: Option<(&str, bool, f64)> = None;
    for (step, row) in steps.iter().zip(rows) {
        let same = layer.is_some_and(|(name, is_backward, _)| (name, is_backward) == (step.layer, step.is_backward));
        if !same {
            if let Some((name, is_backward, start)) = layer {
                events.push(event(name, 0, start, now - start, json!({ "backward": is_backward })));
            }
            layer = Some((step.layer, step.is_backward, now));
        }
        events.push(event(step.kernel, 1, now, step.seconds, row.clone()));
        now += step.seconds;
    }
    if let Some((name, is_backward, start)) = layer {
        events.push(event(name, 0, start, now - start, json!({ "backward": is_backward })));
    }
    json!({ "displayTimeUnit": "ns", "traceEvents": events })
}

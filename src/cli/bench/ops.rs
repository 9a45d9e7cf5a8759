//! `weft bench ops`: each layer of a net on its own.

use super::super::numbers::{self, Size};
use super::super::{DeviceArgs, print, print_json};
use crate::Result;
use crate::net::{Net, Purpose, Spec};
use crate::profile;
use crate::shipped::Source;
use crate::text_table::{TextTable, number, text};
use std::sync::Arc;

/// Time, arithmetic and memory traffic of each layer of a network, each run on its own.
#[derive(clap::Args)]
pub struct Args {
    #[arg(value_parser = super::super::net(), help = super::super::NET)]
    net: Source,
    #[arg(long, default_value_t = 32, value_parser = numbers::count())]
    batch: usize,
    /// Input size, as 300x300 (height x width)
    #[arg(long, value_name = "HxW")]
    size: Option<Size>,
    #[command(flatten)]
    device: DeviceArgs,
    /// Number of measured repetitions
    #[arg(long, default_value_t = 10, value_parser = numbers::runs())]
    runs: usize,
    /// Print one JSON document: a list with one entry per layer
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Row {
    layer: String,
    #[serde(rename = "type")]
    kind: String,
    device: String,
    precision: &'static str,
    batch: usize,
    forward_ms: f64,
    /// Gradients with respect to the input and the parameters.
    backward_ms: f64,
    forward_gflops: f64,
    backward_gflops: f64,
    forward_gb_per_s: f64,
    /// Minimum possible time over measured time, forward and backward together; omitted where the peak rate is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    roofline: Option<f64>,
}

pub fn run(args: &Args) -> Result<()> {
    let device = args.device.open()?;
    let mut net = Net::load(&args.net)?;
    if let Some(Size { height, width }) = args.size {
        net = net.at_size(height, width)?;
    }
    // A layer on its own is a one-layer net: the memory of all of them is checked before the first is timed.
    let layers: Vec<(usize, Arc<Net>)> =
        (0..net.layers.len()).filter_map(|index| alone(&net, index)).collect::<Result<_>>()?;
    for (_, layer) in &layers {
        let what = format!("--batch {}: layer {}", args.batch, layer.spec.name);
        profile::check(what, &device, layer, args.batch, Purpose::Differentiation)?;
    }
    let table = TextTable::new([
        text("layer").least(10),
        text("type").least(10),
        text("output").least(10),
        number("forward ms").least(10),
        number("backward ms").least(11),
        number("forward GFLOP/s").least(15),
        number("backward GFLOP/s").least(16),
        number("forward GB/s").least(12),
        number("roofline").least(8),
    ]);
    if !args.json {
        print(format!("{}, {}, batch {}", device.name(), device.precision(), args.batch))?;
        print(table.head())?;
    }
    let mut rows = Vec::new();
    for (index, alone) in layers {
        let layer = &net.layers[index];
        let report = profile::profile(&device, &alone, args.batch, Purpose::Differentiation, args.runs)?;
        let total = |backward: bool, of: fn(&profile::Row) -> f64| -> f64 {
            report.rows.iter().filter(|row| row.is_backward == backward).map(of).sum()
        };
        let [forward, backward] = [false, true].map(|back| total(back, |row| row.times.median).max(f64::MIN_POSITIVE));
        let flops = |back: bool| total(back, |row| row.work.flops as f64);
        let floor = |row: &profile::Row| row.roofline.map_or(0.0, |(share, _)| share * row.times.median);
        let row = Row {
            layer: layer.name.clone(),
            kind: layer.kind.clone(),
            device: device.name(),
            precision: device.precision().math(),
            batch: args.batch,
            forward_ms: 1e3 * forward,
            backward_ms: 1e3 * backward,
            forward_gflops: flops(false) / forward / 1e9,
            backward_gflops: flops(true) / backward / 1e9,
            forward_gb_per_s: total(false, |row| row.work.bytes as f64) / forward / 1e9,
            roofline: report.peaks.map(|_| (total(false, floor) + total(true, floor)) / (forward + backward)),
        };
        if !args.json {
            print(table.rows([vec![
                row.layer.clone(),
                row.kind.clone(),
                layer.shape.to_string(),
                format!("{:.3}", row.forward_ms),
                format!("{:.3}", row.backward_ms),
                format!("{:.1}", row.forward_gflops),
                format!("{:.1}", row.backward_gflops),
                format!("{:.1}", row.forward_gb_per_s),
                row.roofline.map_or("-".into(), |share| format!("{:.0} %", 100.0 * share)),
            ]]))?;
        }
        rows.push(row);
    }
    if args.json { print_json(&rows) } else { Ok(()) }
}

/// Layer `index` as a net; `None` for a concat, which lacks its second input on its own: `weft profile` times it within a net.
fn alone(net: &Net, index: usize) -> Option<Result<(usize, Arc<Net>)>> {
    let &[input] = net.layers[index].inputs.as_slice() else { return None };
    let mut layer = net.spec.layers[index].clone();
    layer.from = None;
    let name = layer.name.clone();
    let spec = Spec { name, input: net.shape(input), layers: vec![layer], ..net.spec.clone() };
    Some(Net::new(spec).map(|alone| (index, Arc::new(alone))))
}

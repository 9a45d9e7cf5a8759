//! `weft profile --card`: a predicted profile as text or JSON, and beside a measured one.

use super::{or_dash, pass_name};
use crate::profile::cards::Card;
use crate::profile::floors::Floor;
use crate::profile::forecast::{Comparison, Forecast, Predicted};
use crate::profile::page::Table;
use serde_json::{Map, Value, json};
use simt::ptx::{Class, Counts};
use std::collections::HashMap;

/// Source lines that a page shows.
const LINES: usize = 40;

/// Said wherever a prediction is printed.
pub fn caveat(forecast: &Forecast) -> String {
    let mut text = format!(
        "PREDICTION for {}, not a measurement: floors of counted PTX, without latencies; counted on {}.",
        forecast.card.title, forecast.device
    );
    if forecast.rows.iter().any(|row| row.prediction.ignores_registers) {
        text += " Registers are unknown, so occupancy ignores them.";
    }
    if forecast.rows.iter().any(|row| row.blocks[0] < row.blocks[1]) {
        text += " Counts of large launches are those of a sample of their blocks.";
    }
    text
}

/// `1.3 M`
fn short(amount: f64) -> String {
    match amount {
        1e9.. => format!("{:.2} G", amount * 1e-9),
        1e6.. => format!("{:.2} M", amount * 1e-6),
        1e3.. => format!("{:.1} k", amount * 1e-3),
        _ => format!("{amount:.0}"),
    }
}

/// `1.3 M wavefronts at 261 G/s`
fn rests_on(Floor { unit, amount, rate, .. }: Floor) -> String {
    match rate {
        1e12.. => format!("{} {} at {:.1} T/s", short(amount), unit.counts(), rate * 1e-12),
        _ => format!("{} {} at {} /s", short(amount), unit.counts(), short(rate)),
    }
}

/// A row per launch, and with a comparison what was measured.
pub fn table(forecast: &Forecast, comparison: Option<&Comparison>) -> Table {
    let heads =
        ["grid", "block", "regs", "occupancy", "waves", "M instr", "sectors/req", "conflicts", "lanes", "predicted us"];
    let texts = ["kernel", "layer"].map(|head| (head, true)).into_iter();
    let mut heads: Vec<(&str, bool)> = texts.chain(heads.map(|head| (head, false))).collect();
    if comparison.is_some() {
        heads.extend([("measured us", false), ("ratio", false)]);
    }
    heads.extend([("limiter", true), ("rests on", true)]);
    let cells = |(index, row): (usize, &Predicted)| {
        let (prediction, limiter) = (&row.prediction, row.prediction.limiter());
        let mut cells = vec![
            row.kernel.clone(),
            row.layer.clone(),
            row.launch.grid.map(|n| n.to_string()).join("x"),
            row.launch.block.to_string(),
            or_dash(row.attributes.filter(|a| a.registers > 0), |attributes| attributes.registers.to_string()),
            format!("{:.0}%", 100.0 * prediction.occupancy.share),
            format!("{:.2}", prediction.waves),
            format!("{:.3}", row.counts.instructions() as f64 * 1e-6),
            or_dash(row.sectors_per_request(), |sectors| format!("{sectors:.1}")),
            row.counts.bank_conflicts().to_string(),
            format!("{:.1}", row.counts.active_lanes()),
            format!("{:.1}", 1e6 * prediction.seconds),
        ];
        if let Some(comparison) = comparison {
            let measured = comparison.measured[index];
            cells.push(or_dash(measured, |seconds| format!("{:.1}", 1e6 * seconds)));
            cells.push(or_dash(measured, |seconds| format!("{:.2}", prediction.seconds / seconds)));
        }
        cells.extend([limiter.unit.name().into(), rests_on(limiter)]);
        cells
    };
    let heads = heads.into_iter().map(|(head, is_text)| (head.to_string(), is_text)).collect();
    Table { heads, rows: forecast.rows.iter().enumerate().map(cells).collect() }.trimmed()
}

/// Median and worst ratio in words.
pub fn compared(forecast: &Forecast, comparison: &Comparison) -> String {
    let (index, worst) = comparison.worst;
    let row = &forecast.rows[index];
    format!(
        "predicted over measured time on {}: median {:.2}, worst {worst:.2} ({} of {}); {} of {} launches measured",
        comparison.device,
        comparison.median,
        row.kernel,
        row.layer,
        comparison.matched(),
        forecast.rows.len()
    )
}

/// The source lines that execute most, of all launches together.
pub fn lines(forecast: &Forecast) -> Table {
    let mut sums: HashMap<(&str, u32), Counts> = HashMap::new();
    for row in &forecast.rows {
        // A sample stands for the whole grid.
        let scale = 1.0 / row.sampled().max(f64::MIN_POSITIVE);
        for line in &row.lines {
            *sums.entry((&line.file, line.line)).or_default() += &line.counts.scaled(scale);
        }
    }
    let whole = sums.values().map(Counts::instructions).sum::<u64>().max(1) as f64;
    let mut sums: Vec<_> = sums.into_iter().collect();
    sums.sort_by_key(|(place, counts)| (std::cmp::Reverse(counts.instructions()), *place));
    let row = |((file, line), counts): ((&str, u32), Counts)| {
        let requests = counts.loads.requests + counts.stores.requests;
        let sectors = (counts.loads.sectors + counts.stores.sectors) as f64;
        let classes = Class::ALL.into_iter().filter(|class| counts.of(*class) > 0);
        let main = classes.max_by_key(|class| counts.of(*class));
        vec![
            format!("{file}:{line}"),
            format!("{:.1}%", 100.0 * counts.instructions() as f64 / whole),
            short(counts.instructions() as f64),
            or_dash(main, |class| class.name().into()),
            or_dash((requests > 0).then_some(sectors), short),
            or_dash((requests > 0).then(|| sectors / requests as f64), |sectors| format!("{sectors:.1}")),
            counts.bank_conflicts().to_string(),
            format!("{:.1}", counts.active_lanes()),
        ]
    };
    let heads = [
        ("line", true),
        ("share", false),
        ("instructions", false),
        ("most of them", true),
        ("sectors", false),
        ("sectors/req", false),
        ("conflicts", false),
        ("lanes", false),
    ];
    let heads = heads.map(|(head, is_text)| (head.to_string(), is_text)).into();
    Table { heads, rows: sums.into_iter().take(LINES).map(row).collect() }
}

/// A row as JSON, with what was measured.
pub fn row_json(row: &Predicted, measured: Option<f64>) -> Value {
    let Predicted { prediction, counts, launch, .. } = row;
    let limiter = prediction.limiter();
    let instructions = Class::ALL.iter().map(|&class| (class.name().to_string(), json!(counts.of(class))));
    let floors = prediction.floors.iter().map(|floor| (floor.unit.name().to_string(), json!(1e6 * floor.seconds)));
    json!({
        "kernel": row.kernel,
        "layer": row.layer,
        "pass": pass_name(row.is_backward),
        "grid": launch.grid,
        "block": launch.block,
        "dynamic_shared": launch.shared,
        "static_shared": row.attributes.map(|attributes| attributes.static_shared),
        "registers": row.attributes.map(|attributes| attributes.registers).filter(|registers| *registers > 0),
        "flops": row.work.flops,
        "bytes": row.work.bytes,
        "instructions": instructions.collect::<Map<_, _>>(),
        "sectors": row.sectors(),
        "sectors_per_request": row.sectors_per_request(),
        "bank_conflicts": counts.bank_conflicts(),
        "active_lanes": counts.active_lanes(),
        "divergent_branches": counts.divergent,
        "tensor_fma": counts.tensor_fma,
        "sampled": row.sampled(),
        "occupancy": prediction.occupancy.share,
        "blocks_per_multiprocessor": prediction.occupancy.blocks,
        "occupancy_limit": prediction.occupancy.scarce.name(),
        "occupancy_ignores_registers": prediction.ignores_registers,
        "waves": prediction.waves,
        "limiter": limiter.unit.name(),
        "rests_on": {
            "amount": limiter.amount,
            "of": limiter.unit.counts(),
            "per_second": limiter.rate,
            "imbalance": prediction.imbalance,
        },
        "floors_us": floors.collect::<Map<_, _>>(),
        "predicted_us": 1e6 * prediction.seconds,
        "measured_us": measured.map(|seconds| 1e6 * seconds),
        "ratio": measured.map(|seconds| prediction.seconds / seconds),
    })
}

/// The rows as JSON.
pub fn rows_json(forecast: &Forecast, comparison: Option<&Comparison>) -> Vec<Value> {
    let measured = |index: usize| comparison.and_then(|comparison| comparison.measured[index]);
    forecast.rows.iter().enumerate().map(|(index, row)| row_json(row, measured(index))).collect()
}

/// The numbers that a prediction rests on.
pub fn card_json(card: &Card) -> Value {
    json!({
        "name": card.name,
        "title": card.title,
        "multiprocessors": card.multiprocessors,
        "clock": card.clock,
        "l2": card.l2,
        "memory": card.memory,
    })
}

/// The summary of a comparison.
pub fn comparison_json(forecast: &Forecast, comparison: &Comparison) -> Value {
    let (index, worst) = comparison.worst;
    json!({
        "device": comparison.device,
        "launches": comparison.matched(),
        "median_ratio": comparison.median,
        "worst_ratio": worst,
        "worst_launch": format!("{} of {}", forecast.rows[index].kernel, forecast.rows[index].layer),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Precision;
    use crate::net::Purpose;
    use crate::profile::forecast::{counting, forecast};

    #[test]
    fn text_and_json_say_what_a_prediction_rests_on() {
        let card = Card::find("a100").unwrap();
        let device = counting::device(Precision::Bf16);
        let found = forecast(&device, &counting::net(), 64, Purpose::Training, card, Some(1)).unwrap();
        assert!(caveat(&found).starts_with("PREDICTION for A100 SXM 80 GB, not a measurement"), "{}", caveat(&found));
        assert!(caveat(&found).contains("occupancy ignores them") && caveat(&found).contains("sample of their blocks"));
        let rows = rows_json(&found, None);
        let conv = rows.iter().find(|row| row["kernel"].as_str().unwrap().starts_with("conv_forward")).unwrap();
        assert_eq!(conv["instructions"].as_object().unwrap().len(), Class::ALL.len());
        assert!(conv["instructions"]["float"].as_u64().unwrap() > 0 && conv["active_lanes"] == 16.0, "{conv}");
        assert!(conv["sectors"] == 0 && conv["sectors_per_request"].is_null() && conv["bank_conflicts"] == 0, "{conv}");
        let floors = conv["floors_us"].as_object().unwrap();
        let limiter = conv["limiter"].as_str().unwrap();
        let largest = floors.values().map(|floor| floor.as_f64().unwrap()).fold(0.0, f64::max);
        assert_eq!(floors[limiter].as_f64().unwrap(), largest);
        assert!(conv["rests_on"]["per_second"].as_f64().unwrap() > 0.0 && conv["registers"] == 64, "{conv}");
        assert!(conv["occupancy"].as_f64().unwrap() > 0.0 && conv["waves"].as_f64().unwrap() > 0.0, "{conv}");
        assert!(conv["sampled"].as_f64().unwrap() < 1.0 && conv["measured_us"].is_null(), "{conv}");

        let launches = table(&found, None);
        assert!(launches.rows.len() == rows.len() && launches.rows.iter().all(|row| row.len() == launches.heads.len()));
        let lines = lines(&found);
        assert_eq!(
            (lines.rows.len(), lines.rows[0][0].as_str(), lines.rows[0][1].as_str()),
            (1, "product.cuh:7", "100.0%")
        );

        let kernel = &conv["kernel"];
        let launch = json!({ "kernel": kernel, "layer": "c1", "pass": "forward", "seconds": 1e-5 });
        let comparison = Comparison::new(&found, &json!({ "device": "NVIDIA A100", "launches": [launch] })).unwrap();
        let summary = comparison_json(&found, &comparison);
        assert_eq!(
            (&summary["launches"], &summary["worst_launch"]),
            (&json!(1), &json!(format!("{} of c1", kernel.as_str().unwrap())))
        );
        let rows = rows_json(&found, Some(&comparison));
        let conv = rows.iter().find(|row| row["kernel"] == *kernel).unwrap();
        assert_eq!(conv["ratio"].as_f64().unwrap(), conv["predicted_us"].as_f64().unwrap() / 1e6 / 1e-5);
        assert!(table(&found, Some(&comparison)).heads.iter().any(|(head, _)| head == "ratio"));
        assert!(compared(&found, &comparison).contains("NVIDIA A100: median"), "{}", compared(&found, &comparison));
    }

    #[test]
    fn amounts_are_short() {
        assert_eq!([7.0, 1_500.0, 2_500_000.0, 3e9].map(short), ["7", "1.5 k", "2.50 M", "3.00 G"]);
    }
}

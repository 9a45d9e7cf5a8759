//! `weft profile`: every launch has a row, and the numbers in it add up.

mod support;

use serde_json::Value;
use std::time::Instant;
use support::Folder;

const NET: &str = "
name = 'net'
input = [3, 9, 8]
[[layer]]
name = 'c1'
type = 'conv'
filters = 4
kernel = 3
activation = 'relu'
[[layer]]
name = 'fc'
type = 'linear'
outputs = 5
";

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("net.toml", NET);
    folder
}

fn sum(rows: &Value, key: &str) -> f64 {
    rows.as_array().unwrap().iter().map(|row| row[key].as_f64().unwrap()).sum()
}

#[test]
fn launches_of_a_training_step_have_rows_totals_and_a_trace() {
    let folder = folder();
    let line = "profile net.toml --batch 2 --device simt --precision bf16 --train --runs 2 --json --trace t.json";
    let report = folder.json(line);
    let launches = report["launches"].as_array().unwrap();
    for (kernel, layer, pass) in [
        ("cast_from_f32_bf16", "input", "forward"),
        ("conv_forward_bf16", "c1", "forward"),
        ("conv_backward_weights_bf16", "c1", "backward"),
        ("gemm_tn_bf16", "fc", "backward"),
    ] {
        // Whichever variant: of odd numbers of filters, of another tile.
        let (family, precision) = kernel.rsplit_once('_').unwrap();
        let is_kernel = |name: &str| name.starts_with(family) && name.ends_with(precision);
        let of =
            |row: &Value| is_kernel(row["kernel"].as_str().unwrap()) && row["layer"] == layer && row["pass"] == pass;
        assert!(launches.iter().any(of), "no {kernel} of {layer}: {report}");
    }
    for row in launches {
        assert!(row["seconds"].as_f64().unwrap() > 0.0 && row["block"].as_u64().unwrap() > 0, "{row}");
        assert!(row["seconds_25"].as_f64() <= row["seconds"].as_f64(), "{row}");
        // The emulator has no peak rates and no registers.
        assert!(row["roofline"].is_null() && row["registers"].is_null() && row["occupancy"].is_null(), "{row}");
    }
    // 2 samples, 7x6 positions, 4 filters of 27 taps.
    let conv = launches.iter().find(|row| row["kernel"].as_str().unwrap().starts_with("conv_forward_")).unwrap();
    assert_eq!(conv["flops"], 2 * 2 * 42 * 4 * 27);
    let total = sum(&report["launches"], "seconds");
    assert!((report["sum"].as_f64().unwrap() / total - 1.0).abs() < 1e-9);
    let layers = sum(&report["layers"], "forward") + sum(&report["layers"], "backward");
    assert!((layers / total - 1.0).abs() < 1e-9 && report["whole"].as_f64().unwrap() > 0.0);

    let trace: Value = serde_json::from_slice(&std::fs::read(folder.path("t.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let named = |line: u32| events.iter().filter(move |event| event["ph"] == "X" && event["tid"] == line);
    assert_eq!(named(1).count(), launches.len());
    let layers: Vec<&str> = named(0).map(|event| event["name"].as_str().unwrap()).collect();
    assert_eq!(layers, ["input", "c1", "fc", "fc", "c1"]);
    let lengths = |line| named(line).map(|event| event["dur"].as_f64().unwrap()).sum::<f64>();
    assert!((lengths(0) / lengths(1) - 1.0).abs() < 1e-6 && (lengths(1) / total / 1e6 - 1.0).abs() < 1e-6);
}

#[test]
fn on_the_cpu_the_rows_are_layers() {
    let folder = folder();
    let start = Instant::now();
    let report = folder.json("profile net.toml --batch 3 --device cpu --train --runs 3 --json");
    let wall = start.elapsed().as_secs_f64();
    let rows: Vec<_> = report["launches"].as_array().unwrap().iter().map(|row| (&row["layer"], &row["pass"])).collect();
    let want = [("c1", "forward"), ("fc", "forward"), ("fc", "backward"), ("c1", "backward")];
    assert!(
        rows.iter()
            .zip(want)
            .all(|((layer, pass), want)| (layer.as_str(), pass.as_str()) == (Some(want.0), Some(want.1)))
    );
    assert_eq!(rows.len(), 4);
    // Medians of three: two of each took at least that long.
    let (sum, whole) = (report["sum"].as_f64().unwrap(), report["whole"].as_f64().unwrap());
    assert!((sum / self::sum(&report["launches"], "seconds") - 1.0).abs() < 1e-9, "{report}");
    assert!(whole > 0.0 && 2.0 * (sum + whole) < wall, "{wall} s in all: {report}");

    let table = folder.ok("profile net.toml --device cpu --runs 2 --size 9x8");
    assert!(table.contains("conv") && table.contains("the whole at once"), "{table}");
    assert!(folder.ok("profile net.toml --device simt --runs 1").contains("as one graph"));
    for head in ["grid", "regs", "occupancy"] {
        assert!(!table.contains(head), "{table}");
    }
    assert!(table.contains("roofline") && table.contains("roofs: ") && table.contains("GB/s"), "{table}");
    folder.wrong("profile net.toml --device cpu --runs 0", &["--runs"]);
    folder.fails("profile net.toml --device cpu --precision f16", &["the CPU computes in f32"]);
}

#[test]
fn on_the_cpu_the_roofs_are_measured_and_drawn() {
    let folder = folder();
    let files = "--plot p.svg --report r.html";
    let report = folder.json(&format!("profile net.toml --batch 3 --device cpu --train --runs 2 --json {files}"));
    for peak in ["f32", "memory"] {
        assert!(report["peaks"][peak].as_f64().unwrap() > 1e8, "{report}");
    }
    for row in report["launches"].as_array().unwrap() {
        assert!(row["roofline"].as_f64().unwrap() > 0.0 && row["roof"].is_string(), "{row}");
    }
    let read = |name: &str| std::fs::read_to_string(folder.path(name)).unwrap();
    let (svg, page) = (read("p.svg"), read("r.html"));
    for part in ["Roofline", "Time per layer", "cache of a core, ", "memory, ", "f32, ", "\nc1 back\n", "\nfc\n"] {
        assert!(svg.contains(part) && page.contains(part), "no {part:?} in {svg}");
    }
    assert!(svg.starts_with("<svg xmlns") && svg.matches("</svg>").count() == 1, "{svg}");
    for part in ["<h2>Timeline</h2>", "<h2>Launches</h2>", "roofs: ", "--report r.html", "class=\"track\""] {
        assert!(page.contains(part), "no {part:?} in {page}");
    }
    assert!(!page.contains("http://") && !page.contains("src="), "{page}");
    // Without roofs there are bars alone.
    folder.ok("profile net.toml --device simt --runs 1 --plot s.svg");
    let svg = read("s.svg");
    assert!(svg.contains("Time per layer") && !svg.contains("Roofline"), "{svg}");
    folder.fails("profile net.toml --device cpu --plot net.toml", &["--plot", "read by this very command"]);
    folder.fails("profile net.toml --device cpu --report net.toml", &["--report", "read by this very command"]);
}

#[test]
fn predictions_need_a_card_of_the_table_and_a_device_that_counts() {
    let folder = folder();
    folder.fails("profile net.toml --device cpu --card k80", &["--card k80: no such card; use one of t4, a100"]);
    for device in ["cpu", "simt"] {
        let line = format!("profile net.toml --device {device} --card h100");
        folder.fails(
            &line,
            &["--card h100: ", "does not count what a launch executes; predict with the device simt:ptx"],
        );
    }
    folder.wrong("profile net.toml --compare r.json", &["--card"]);
    folder.wrong("profile net.toml --card h100 --runs 3", &["--runs"]);
    let compare = "profile net.toml --device simt --card h100 --compare";
    folder.write("r.json", "{\"batch\": 2, \"train\": false}");
    folder.fails(&format!("{compare} r.json"), &["r.json: its `batch` is 2, that of the prediction 1"]);
    folder.write("p.json", "{\"batch\": 1, \"train\": false, \"prediction\": true}");
    folder.fails(&format!("{compare} p.json"), &["p.json: is a prediction itself"]);
    folder.fails(&format!("{compare} none.json"), &["none.json: "]);
}

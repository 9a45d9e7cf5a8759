//! `weft doctor`: no kernel is missed, and a kernel that does nothing or fails is detected; its probes.

#[path = "support/altered.rs"]
mod altered;
mod support;

use altered::Altered;
use std::sync::Arc;
use support::Folder;
use weft::device::{Driver, Emulator, EmulatorOptions, Gpu, Peaks, Properties, Tile};
use weft::doctor;
use weft::doctor::probe::{self, Unit};

#[test]
fn every_kernel_is_checked_and_holds() {
    let gpu = Gpu::new(Arc::new(Emulator::new(EmulatorOptions { checked: false, seed: Some(1) })));
    let report = doctor::check(&gpu, |_| true, |_| ());
    let failed: Vec<_> = report.rows.iter().filter(|row| !row.holds()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(report.unused.is_empty(), "no case runs {:?}", report.unused);
    assert!(gpu.driver.kernels().len() > 50);
}

/// Cases that are nets run in every tile in any case; these are the others with products.
#[test]
fn interweaving_holds_in_every_tile() {
    for tile in Tile::ALL {
        let emulator = Emulator::new(EmulatorOptions { checked: false, seed: Some(2) });
        let gpu = Gpu { tile: Some(tile), ..Gpu::new(Arc::new(emulator)) };
        let report = doctor::check(&gpu, |name| name.starts_with("interweav"), |_| ());
        let failed: Vec<_> = report.rows.iter().filter(|row| !row.holds()).collect();
        assert!(failed.is_empty() && report.rows.len() > 20, "{tile}: {failed:#?}");
    }
}

#[test]
fn a_kernel_that_does_nothing_or_fails_is_found() {
    for (kernel, case) in [
        ("conv_forward_any_bf16", "conv: relu"),
        ("conv_backward_weights_f32", "conv: relu"),
        ("cast_to_f32_f16", "conversion"),
    ] {
        for refuses in [false, true] {
            let gpu = Altered::broken(kernel, refuses);
            let report = doctor::check(&gpu, |name| name == case, |_| ());
            let found = report.rows.iter().any(|row| !row.holds() && (row.kernel == kernel || refuses));
            assert!(found && report.failed() > 0, "{kernel}: {:#?}", report.rows);
            // Kernels in other precisions are not blamed.
            let blamed = report.rows.iter().filter(|row| !row.holds());
            let precision = kernel.rsplit('_').next().unwrap();
            blamed.for_each(|row| assert_eq!(row.precision.to_string(), precision, "{row:?}"));
        }
    }
}

#[test]
fn the_command_prints_a_table_or_one_document() {
    let folder = Folder::new();
    let text = folder.ok("doctor --device simt --only relu");
    let row = |line: &str| line.split_whitespace().take(2).eq(["activation_backward_bf16", "bf16"]);
    assert!(text.contains("device       emulator") && text.lines().any(row), "{text}");
    assert!(text.trim_end().ends_with("0 failed"), "{text}");
    let json = folder.json("doctor --device simt:checked --only relu --json");
    assert_eq!((&json["failed"], &json["device"]["name"]), (&0.into(), &"emulator (checked)".into()));
    let rows = json["kernels"].as_array().unwrap();
    assert!(rows.len() >= 10);
    for row in rows {
        assert!(row["ok"] == true && row["share"].as_f64().unwrap() <= 1.0, "{row}");
    }
    let json = folder.json("doctor --device cpu --json");
    assert_eq!(json["machine"]["weft"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn both_kinds_of_layouts_are_the_isas_and_the_emulator_has_no_rates() {
    let folder = Folder::new();
    let json = folder.json("doctor --probe --device simt:checked --json");
    let layouts = json["layouts"].as_array().unwrap();
    let count = |text: &str| layouts.iter().filter(|one| one["instruction"].as_str().unwrap().contains(text)).count();
    assert_eq!((count("ldmatrix.sync"), count(".trans"), count("mma.sync")), (6, 3, 3), "{json}");
    layouts.iter().for_each(|one| assert!(one["wrong"] == 0 && one["registers"].as_u64() >= Some(32), "{one}"));
    assert!(json["rates"].is_null() && json["failed"] == 0 && json["device"]["name"] == "emulator (checked)", "{json}");
    let text = folder.ok("doctor --probe --device simt");
    assert!(text.contains("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32") && text.contains("no rates"), "{text}");
}

#[test]
fn an_instruction_with_another_layout_is_found() {
    for (kernel, instructions) in [("probe_tf32_mma", 1), ("probe_ldmatrix", 6)] {
        let gpu = Altered::broken(kernel, false);
        let found = probe::run(&gpu).unwrap();
        let wrong: Vec<_> = found.layouts.iter().filter(|layout| layout.wrong > 0).collect();
        assert!(wrong.len() == instructions && found.failed() == instructions, "{kernel}: {instructions}");
        for layout in wrong {
            let first = layout.first.as_ref().unwrap();
            assert!(first.contains("of lane 0") && first.contains("by the ISA"), "{first}");
            assert!(layout.raw.len() == layout.registers, "{first}");
        }
    }
}

#[test]
fn rates_are_the_work_of_a_launch_over_its_time() {
    let emulator = Emulator::new(EmulatorOptions::default());
    let peaks = Some(Peaks { f32: 67e12, tf32: 495e12, half: 989e12, memory: 3.35e12 });
    let properties = Properties { multiprocessors: 132, peaks, ..emulator.properties().clone() };
    let gpu = Gpu::new(Arc::new(Altered { card: Some(properties), ..Altered::new(emulator) }));
    let rates = probe::run(&gpu).unwrap().rates.expect("a card has rates");
    // 528 blocks of 256 threads.
    let (threads, warps) = (528.0 * 256.0, 528.0 * 8.0);
    let want = [
        ("copy", Unit::Bytes, 2.0 * f64::from(256 << 20), Some(3.35e12)),
        ("L2 read", Unit::Bytes, threads * 2048.0 * 16.0, None),
        ("f32 multiply-adds", Unit::Flops, threads * 1024.0 * 16.0 * 8.0 * 2.0, Some(67e12)),
        ("mma.sync tf32", Unit::Flops, warps * 4096.0 * 8.0 * 2.0 * 16.0 * 8.0 * 8.0, Some(495e12)),
        ("mma.sync f16", Unit::Flops, warps * 4096.0 * 8.0 * 2.0 * 16.0 * 8.0 * 16.0, Some(989e12)),
        ("mma.sync bf16", Unit::Flops, warps * 4096.0 * 8.0 * 2.0 * 16.0 * 8.0 * 16.0, Some(989e12)),
    ];
    for (rate, (name, unit, work, peak)) in rates.iter().zip(want) {
        assert_eq!((rate.name.as_str(), rate.unit, rate.peak), (name, unit, peak));
        assert!((rate.amount / (work / 1e-3) - 1.0).abs() < 1e-12, "{rate:?}, {work} in 1 ms");
    }
    let node = rates.last().unwrap();
    assert!(rates.len() == 7 && node.unit == Unit::Seconds && (0.0..1e-3).contains(&node.amount), "{node:?}");
}

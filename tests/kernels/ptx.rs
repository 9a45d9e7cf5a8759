//! The kernels as nvcc compiled them, executed on the emulator's second engine: what the first one, which runs their source,
//! cannot see. Without GPU code in this build there is nothing to execute.

use crate::harness::test_with;
use crate::{cases, gpu_code};
use libtest_mimic::Trial;
use std::process::Command;
use std::sync::Arc;
use weft::device::{Driver, Emulator, EmulatorOptions, Gpu, Launch};
use weft::doctor;

pub fn tests() -> Vec<Trial> {
    vec![
        test_with("every_kernel_holds", gpu_code, every_kernel_holds),
        test_with("layouts_are_the_isas", gpu_code, layouts_are_the_isas),
        test_with("every_kernel_is_understood", gpu_code, every_kernel_is_understood),
        test_with("a_step_of_training_is_predicted", gpu_code, a_step_of_training_is_predicted),
    ]
}

/// All cases of `weft doctor`, in all precisions, with copies that arrive at random and approximations that err.
fn every_kernel_holds(_: ()) {
    let (report, _) = cases();
    let failed: Vec<_> = report.rows.iter().filter(|row| !row.holds()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(report.unused.is_empty(), "no case runs {:?}", report.unused);
}

/// The registers of mma.sync and ldmatrix, as `weft doctor --probe` looks at them on a card.
fn layouts_are_the_isas(_: ()) {
    let emulator = Emulator::of_ptx(EmulatorOptions::default()).expect("there is GPU code");
    let found = doctor::probe::run(&Gpu::new(Arc::new(emulator))).expect("the probes run");
    assert!(found.layouts.len() == 9 && found.failed() == 0 && found.rates.is_none(), "{found:#?}");
}

/// Also the parts of kernels that no case reaches: an opcode that is not implemented is an error where it is decoded. A launch
/// without parameters decodes, and then says that they are missing.
fn every_kernel_is_understood(_: ()) {
    let emulator = Emulator::of_ptx(EmulatorOptions::default()).expect("there is GPU code");
    let names = emulator.kernels();
    assert!(names.len() > 50, "{names:?}");
    for name in names {
        let launch = Launch { parameters: Arc::from([]), ..Launch::new(name.as_str(), [1; 3], 32, &0u32) };
        let error = emulator.launch(&launch).expect_err("has no parameters").to_string();
        assert!(error.contains("argument 0 has") && !error.contains("unknown"), "{name}: {error}");
    }
}

/// Each launch of a step with what it executes, how long a card would take, and why.
fn a_step_of_training_is_predicted(_: ()) {
    let arguments =
        "profile anet --batch 3 --train --device simt:ptx --precision bf16 --card h100 --blocks 4 --json".split(' ');
    let output = Command::new(env!("CARGO_BIN_EXE_weft")).args(arguments).output().expect("weft runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).expect("is JSON");
    let launches = found["launches"].as_array().expect("has launches");
    assert!(launches.len() > 20);
    for launch in launches {
        let number = |key: &str| launch[key].as_f64().unwrap_or_else(|| panic!("{key} of {launch}"));
        assert!(number("predicted_us") > 0.0 && number("sectors") > 0.0 && number("bank_conflicts") >= 0.0, "{launch}");
        assert!(launch["instructions"].is_object() && launch["limiter"].is_string(), "{launch}");
    }
    // Products run on tensor cores.
    let tensor = |launch: &&serde_json::Value| launch["instructions"]["tensor"].as_u64().is_some_and(|n| n > 0);
    assert!(launches.iter().filter(tensor).count() >= 10);
}

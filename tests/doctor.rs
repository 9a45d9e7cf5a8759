//! `weft doctor`: no kernel is missed, and a kernel that does nothing or fails is detected.

mod support;

use std::sync::Arc;
use support::Folder;
use weft::Result;
use weft::device::{Attributes, Driver, Emulator, EmulatorOptions, Gpu, Graph, Launch, Pinned, Properties, Ptr};
use weft::doctor;

#[test]
fn every_kernel_is_checked_and_holds() {
    let gpu = Gpu::new(Arc::new(Emulator::new(EmulatorOptions { checked: false, seed: Some(1) })));
    let report = doctor::check(&gpu, |_| true, |_| ());
    let failed: Vec<_> = report.rows.iter().filter(|row| !row.holds()).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert!(report.unused.is_empty(), "no case runs {:?}", report.unused);
    assert!(gpu.driver.kernels().len() > 50);
}

/// An emulator on which one kernel does nothing or is rejected.
struct Broken {
    emulator: Emulator,
    kernel: &'static str,
    refuses: bool,
}

impl Broken {
    fn runs(&self, launch: &Launch) -> Result<bool> {
        match (launch.kernel == self.kernel, self.refuses) {
            (true, true) => Err(weft::Error::new(launch.describe(), "an illegal memory access was encountered")),
            (broken, _) => Ok(!broken),
        }
    }
}

impl Driver for Broken {
    fn properties(&self) -> &Properties {
        self.emulator.properties()
    }
    fn free_memory(&self) -> Result<u64> {
        self.emulator.free_memory()
    }
    fn allocate(&self, bytes: usize) -> Result<Ptr> {
        self.emulator.allocate(bytes)
    }
    fn free(&self, memory: Ptr) {
        self.emulator.free(memory);
    }
    fn upload(&self, to: Ptr, bytes: &[u8]) -> Result<()> {
        self.emulator.upload(to, bytes)
    }
    fn download(&self, from: Ptr, bytes: &mut [u8]) -> Result<()> {
        self.emulator.download(from, bytes)
    }
    fn pinned(&self, bytes: usize) -> Result<Box<dyn Pinned>> {
        self.emulator.pinned(bytes)
    }
    fn launch(&self, launch: &Launch) -> Result<()> {
        if self.runs(launch)? { self.emulator.launch(launch) } else { Ok(()) }
    }
    fn synchronize(&self) -> Result<()> {
        Ok(())
    }
    fn capture(&self, launches: &[Launch]) -> Result<Box<dyn Graph>> {
        let kept = launches.iter().filter(|launch| launch.kernel != self.kernel).cloned();
        self.emulator.capture(&kept.collect::<Vec<_>>())
    }
    fn time(&self, launches: &[Launch]) -> Result<Vec<f64>> {
        self.emulator.time(launches)
    }
    fn attributes(&self, launch: &Launch) -> Result<Option<Attributes>> {
        self.emulator.attributes(launch)
    }
    fn kernels(&self) -> Vec<String> {
        self.emulator.kernels()
    }
}

#[test]
fn a_kernel_that_does_nothing_or_fails_is_found() {
    for (kernel, case) in [
        ("conv_forward_bf16", "conv: relu"),
        ("conv_backward_weights_f32", "conv: relu"),
        ("cast_to_f32_f16", "conversion"),
    ] {
        for refuses in [false, true] {
            let emulator = Emulator::new(EmulatorOptions::default());
            let gpu = Gpu::new(Arc::new(Broken { emulator, kernel, refuses }));
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

//! The CUDA driver. Without a GPU: the messages that users get on all kinds of machines, and the driver's own logic, both against
//! a fake libcuda (tests/cuda/fake.c) that this file compiles. With a GPU: the same logic and real kernels on it.
//!
//! Tests that need a GPU are ignored where there is none, and fail instead with `WEFT_REQUIRE_CUDA=1`.

#[macro_use]
#[path = "support/harness.rs"]
mod harness;
mod support;

use std::path::PathBuf;
use std::process::{Command, ExitCode};
use std::sync::Arc;
use support::{Folder, ROOT};
use weft::device::cuda::{Code, Refusal};
use weft::device::{ARCHITECTURES, Cuda, Driver, Emulator, EmulatorOptions, Gpu, IMAGES, Launch, Recorder};
use weft::ops::gpu;

/// A folder with a fake libcuda.
fn fake(folder: &Folder, flags: &[&str]) -> PathBuf {
    let path = folder.path("libcuda.so.1");
    let compiler = std::env::var("CC").unwrap_or_else(|_| "cc".into());
    let mut command = Command::new(compiler);
    command
        .args(["-shared", "-fPIC", "-O1", "-w", "-o"])
        .arg(&path)
        .arg(format!("{ROOT}/tests/cuda/fake.c"))
        .args(flags);
    assert!(command.status().expect("a C compiler").success());
    folder.0.path().to_path_buf()
}

/// Names the part of [`fakes`] that this process should run instead of tests.
const PART: &str = "WEFT_TEST_PART";

fn main() -> ExitCode {
    if let Ok(part) = std::env::var(PART) {
        fakes::run(&part);
        return ExitCode::SUCCESS;
    }
    let mut tests = tests![
        the_driver_keeps_its_promises_on_a_fake_gpu,
        every_reason_against_a_gpu_is_one_clear_line,
        the_emulator_keeps_the_same_promises,
    ];
    tests.extend([
        harness::test_with(
            "the_program_starts_with_every_libcuda_and_says_in_one_line_what_it_uses",
            code_for_the_fake,
            the_program_starts_with_every_libcuda_and_says_in_one_line_what_it_uses,
        ),
        harness::test_with(
            "without_libcuda_the_program_starts_and_cuda_is_one_clear_line",
            no_gpu,
            without_libcuda_the_program_starts_and_cuda_is_one_clear_line,
        ),
        harness::test_with(
            "gpu_check_names_what_it_could_not_run",
            no_gpu_but_python,
            gpu_check_names_what_it_could_not_run,
        ),
        harness::test_with("gpu_check_goes_on_where_it_stopped", no_gpu_but_python, gpu_check_goes_on_where_it_stopped),
        harness::test_with(
            "the_driver_keeps_its_promises_on_this_gpu",
            harness::cuda,
            the_driver_keeps_its_promises_on_this_gpu,
        ),
        harness::test_with(
            "every_kernel_of_the_emulator_is_in_the_code_on_this_gpu",
            harness::cuda,
            every_kernel_of_the_emulator_is_in_the_code_on_this_gpu,
        ),
    ]);
    harness::main(tests)
}

/// Runs a part of [`fakes`] in a process that loads the fake.
fn in_fake(part: &str, mode: &str, flags: &[&str]) {
    let folder = Folder::new();
    let libraries = fake(&folder, flags);
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.env(PART, part).env("LD_LIBRARY_PATH", libraries).env("WEFT_FAKE_CUDA", mode);
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(&format!("{part}: done")), "{part} in {mode:?}:\n{text}");
}

/// The content of a fake image: `p` for pointwise.
const CODE: Code<'_> = Code {
    images: &[("other", b"another architecture"), ("empty", b"empty"), ("pointwise", b"pointwise")],
    architectures: &["75", "80"],
    compiler: "release 13.0",
};

#[track_caller]
fn refused(result: Result<Cuda, Refusal>, parts: &[&str]) -> Refusal {
    let refusal = result.err().expect("refused");
    let text = refusal.error.to_string();
    for part in parts {
        assert!(text.contains(part), "no {part:?} in {text:?}");
    }
    assert!(!text.contains('\n'));
    refusal
}

mod fakes {
    //! Parts of the tests below that run in processes of their own: libcuda is loaded only once per process.
    use super::*;

    pub fn run(part: &str) {
        match part {
            "refuses" => refuses(),
            "no_code_is_plain" => no_code_is_plain(),
            "works" => works(),
            "large_uploads_go_round_the_ring" => large_uploads_go_round_the_ring(),
            _ => panic!("no part {part}"),
        }
        println!("{part}: done");
    }

    fn expect(parts: &[&str]) -> Refusal {
        refused(Cuda::open_with(0, CODE), parts)
    }

    fn refuses() {
        match std::env::var("WEFT_FAKE_CUDA").unwrap().as_str() {
            "none" => expect(&["cuda: the NVIDIA driver finds no GPU", "nvidia-smi"]),
            "old" => expect(&["the NVIDIA driver is too old: it supports CUDA 11.4, 12.0 is needed", "update"]),
            "lacks" => expect(&["the NVIDIA driver is too old: it has no cuGraphUpload", "update"]),
            "busy" => expect(&["cuda:0: the GPU is busy", "Exclusive_Process"]),
            "ancient" => expect(&["cuda:0: Fake GPU has compute capability 5.0", "sm_75, sm_80", "WEFT_CUDA_ARCHS=50"]),
            "code" => expect(&["kernels/other.cu", "release 13.0", "(for CUDA 12.8)", "update the driver"]),
            _ => refused(Cuda::open_with(1, CODE), &["cuda:1: no such GPU, there is only cuda:0"]),
        };
    }

    fn no_code_is_plain() {
        let none = Code { images: &[], ..CODE };
        assert!(refused(Cuda::open_with(0, none), &["built without GPU code", "WEFT_CUDA=require"]).plain);
    }

    fn works() {
        let driver = Cuda::open_with(0, CODE).unwrap_or_else(|refusal| panic!("{}", refusal.error));
        assert_eq!(driver.kernels(), ["fill_f16", "fill_f32"]);
        let peaks = driver.properties().peaks.expect("an A100's numbers");
        assert!((peaks.half / 312e12 - 1.0).abs() < 0.01 && (peaks.memory / 1555e9 - 1.0).abs() < 0.01);
        let gpu = Gpu::new(Arc::new(driver));
        let free = gpu.driver.free_memory().unwrap();
        logic(&gpu);
        assert_eq!(gpu.driver.free_memory().unwrap(), free, "memory leaked");

        let fill = |name: &str| {
            let parameters = gpu::Fill { out: weft::device::Ptr(0), count: 0, value: 0.0, unused: 0 };
            Launch { label: Arc::from("c1"), ..Launch::new(name, [1; 3], 32, &parameters) }
        };
        let attributes = gpu.driver.attributes(&fill("fill_f32")).unwrap().unwrap();
        assert_eq!(
            (attributes.registers, attributes.static_shared, attributes.blocks_per_multiprocessor),
            (32, 1024, 64)
        );

        let error = |launch: Launch| gpu.driver.launch(&launch).unwrap_err().to_string();
        let missing = error(fill("nothing"));
        assert!(missing.starts_with("nothing of layer c1, grid 1x1x1, block 32,"), "{missing}");
        assert!(missing.contains("no such kernel"), "{missing}");
        let geometry = error(Launch { block: 2048, ..fill("fill_f32") });
        assert!(geometry.contains("block 2048") && geometry.contains("invalid argument (CUDA error 1)"), "{geometry}");
        gpu.driver.launch(&fill("fill_f32").shared(98 << 10)).unwrap();
        let shared = error(fill("fill_f32").shared(99 << 10));
        assert!(shared.contains("cuda:0 gives a block of it 100352 bytes"), "{shared}");
        let short = Launch { parameters: Arc::from([0u8; 16]), ..fill("fill_f32") };
        assert!(error(short).contains("16 bytes of parameters, but the kernel takes 24"));

        let error = gpu.memory(1 << 30).err().expect("more than there is").to_string();
        assert_eq!(error, "cuda:0: out of memory: 1.0 GiB asked for, 8.0 MiB of 8.0 MiB free on Fake GPU");

        // An error surfaces later, explains how to find the kernel, and nothing hangs.
        gpu.driver.launch(&fill("fill_f16")).unwrap();
        let error = gpu.driver.synchronize().unwrap_err().to_string();
        assert!(error.contains("illegal memory access") && error.contains("WEFT_SYNC=1"), "{error}");
        assert!(gpu.driver.capture(&[fill("fill_f32")]).is_err());
    }

    fn large_uploads_go_round_the_ring() {
        let driver = Cuda::open_with(0, CODE).unwrap_or_else(|refusal| panic!("{}", refusal.error));
        let gpu = Gpu::new(Arc::new(driver));
        // 12 times 7 MiB through a ring buffer of 32 MiB, whose copies are performed on synchronisation.
        let count = 7 << 18;
        let memory = gpu.memory(4 * count).unwrap();
        let mut bytes = vec![0u32; count];
        for round in 0..12 {
            bytes.iter_mut().enumerate().for_each(|(i, x)| *x = round * 1_000_003 + i as u32);
            gpu.driver.upload(memory.ptr, bytemuck::cast_slice(&bytes)).unwrap();
        }
        assert_eq!(gpu.download::<u32>(memory.ptr, count).unwrap(), bytes);
    }
}

/// Behaviour required of every driver, using only the kernel `fill_f32`.
fn logic(gpu: &Gpu) {
    let memory = gpu.memory(4 * 1000).unwrap();
    let fill = |value: f32, from: usize, count: usize| {
        let mut to = Recorder::new(gpu);
        gpu::fill_f32(&mut to, value, memory.ptr.offset(4 * from), count);
        to.launches.remove(0)
    };
    let read = || gpu.download::<f32>(memory.ptr, 1000).unwrap();
    // An upload's source may be reused immediately, and the upload stays ordered with the launches.
    gpu.driver.launch(&fill(1.0, 0, 1000)).unwrap();
    let mut values = vec![2.0f32; 10];
    gpu.driver.upload(memory.ptr, bytemuck::cast_slice(&values)).unwrap();
    values.fill(9.0);
    gpu.driver.launch(&fill(3.0, 5, 10)).unwrap();
    let got = read();
    assert!(got[..5] == [2.0; 5] && got[5..15] == [3.0; 10] && got[15..] == [1.0; 985], "{:?}", &got[..20]);
    // A graph does nothing until it is launched, and can be launched repeatedly.
    let graph = gpu.driver.capture(&[fill(4.0, 0, 1000), fill(5.0, 0, 1)]).unwrap();
    assert_eq!(read(), got);
    for _ in 0..2 {
        graph.launch().unwrap();
        let filled = read();
        assert!(filled[0] == 5.0 && filled[1..] == [4.0; 999]);
        gpu.driver.launch(&fill(0.0, 0, 1000)).unwrap();
    }
    drop(graph);
    // Copies from and to pinned memory are ordered with the launches; its bytes are there when the last copy has ended.
    let mut pinned = gpu.driver.pinned(4000).unwrap();
    assert!(pinned.bytes().unwrap().iter().all(|byte| *byte == 0));
    let floats = |bytes: &[u8]| bytemuck::pod_collect_to_vec::<u8, f32>(bytes);
    gpu.driver.launch(&fill(8.0, 0, 1000)).unwrap();
    pinned.download(memory.ptr, 0..4000).unwrap();
    gpu.driver.launch(&fill(9.0, 0, 1000)).unwrap();
    assert_eq!(floats(pinned.bytes().unwrap()), [8.0; 1000]);
    pinned.upload(400..800, memory.ptr.offset(400)).unwrap();
    gpu.driver.launch(&fill(7.0, 100, 10)).unwrap();
    pinned.bytes().unwrap().fill(0);
    let got = read();
    assert!(
        got[..100] == [9.0; 100] && got[100..110] == [7.0; 10] && got[110..200] == [8.0; 90],
        "{:?}",
        &got[90..210]
    );
    assert!(got[200..] == [9.0; 800]);
    pinned.upload(0..4000, memory.ptr).unwrap();
    // Freed memory is no longer read.
    drop(pinned);
    assert_eq!(read(), [0.0; 1000]);
    let times = gpu.driver.time(&[fill(6.0, 0, 1000), fill(7.0, 0, 500)]).unwrap();
    assert!(times.len() == 2 && times.iter().all(|t| *t > 0.0 && *t < 10.0), "{times:?}");
    let filled = read();
    assert!(filled[..500] == [7.0; 500] && filled[500..] == [6.0; 500]);
    gpu.driver.upload(memory.ptr, &[]).unwrap();
    gpu.driver.synchronize().unwrap();
}

fn the_driver_keeps_its_promises_on_a_fake_gpu() {
    in_fake("works", "", &[]);
    in_fake("large_uploads_go_round_the_ring", "", &[]);
    in_fake("no_code_is_plain", "", &[]);
}

fn every_reason_against_a_gpu_is_one_clear_line() {
    for mode in ["none", "old", "busy", "ancient", "code", ""] {
        in_fake("refuses", mode, &[]);
    }
    in_fake("refuses", "lacks", &["-DLACKS"]);
}

fn the_emulator_keeps_the_same_promises() {
    for checked in [false, true] {
        logic(&Gpu::new(Arc::new(Emulator::new(EmulatorOptions { checked, seed: None }))));
    }
}

/// Runs the program on a machine whose libcuda behaves as `mode` says; `None` for a machine without one.
fn weft(folder: &Folder, mode: Option<&str>, words: &[&str]) -> (Option<i32>, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    command.args(words).current_dir(ROOT).env_remove("LD_LIBRARY_PATH");
    if let Some(mode) = mode {
        command.env("LD_LIBRARY_PATH", fake(folder, &[])).env("WEFT_FAKE_CUDA", mode);
    }
    let output = command.output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

/// Opens a device and does nothing else.
const DOCTOR: [&str; 4] = ["doctor", "--json", "--only", "nothing"];

/// The fake GPU is an A100: a build for others refuses it before anything else.
fn code_for_the_fake() -> Result<(), String> {
    let fits = IMAGES.is_empty() || weft::device::cuda::fits([8, 0], ARCHITECTURES);
    if fits { Ok(()) } else { Err("this build has no code for the fake GPU, sm_80".into()) }
}

fn the_program_starts_with_every_libcuda_and_says_in_one_line_what_it_uses((): ()) {
    let folder = Folder::new();
    let has_code = !IMAGES.is_empty();
    let cases = [("none", "finds no GPU"), ("old", "too old"), ("busy", "busy"), ("ancient", "compute capability 5.0")];
    for (mode, reason) in cases {
        let reason = if has_code { reason } else { "without GPU code" };
        let words = [&DOCTOR[..], &["--device", "cuda"]].concat();
        let (code, stdout, stderr) = weft(&folder, Some(mode), &words);
        assert!(code == Some(1) && stdout.contains("\"problem\""), "{mode}: {stderr}");
        assert!(stderr.starts_with("weft: cuda") && stderr.contains(reason), "{mode}: {stderr}");
        assert_eq!(stderr.lines().count(), 1, "{mode}: {stderr}");

        let (code, _, stderr) = weft(&folder, Some(mode), &[&DOCTOR[..], &["--device", "auto"]].concat());
        assert_eq!(code, Some(0), "{mode}: {stderr}");
        // Without GPU code nobody expects a GPU to be used, unless there is one.
        let says = has_code || mode == "busy" || mode == "ancient";
        assert!(!says || stderr.contains("weft: computing on the CPU; cuda"), "{mode}: {stderr}");
        assert!(says || !stderr.contains("weft:"), "{mode}: {stderr}");
    }
}

fn no_gpu() -> Result<(), String> {
    weft::device::cuda::probe().map_or(Ok(()), |_| Err("this machine has a CUDA device".into()))
}

fn without_libcuda_the_program_starts_and_cuda_is_one_clear_line((): ()) {
    let folder = Folder::new();
    let words = |device| [&DOCTOR[..], &["--device", device]].concat();
    for device in ["cuda", "cuda:3"] {
        let (code, stdout, stderr) = weft(&folder, None, &words(device));
        assert!(code == Some(1) && stdout.contains("\"problem\""), "{stderr}");
        let reason = if IMAGES.is_empty() { "built without GPU code" } else { "no NVIDIA driver here" };
        assert!(stderr.starts_with("weft: cuda: ") && stderr.contains(reason), "{stderr}");
        assert_eq!(stderr.lines().count(), 1, "{stderr}");
    }
    let (code, _, stderr) = weft(&folder, None, &words("auto"));
    assert!(code == Some(0) && !stderr.contains("weft:"), "{stderr}");
    let (code, _, stderr) = weft(&folder, None, &words("cuda:x"));
    assert!(code == Some(1) && stderr.contains("no such device"), "{stderr}");
}

fn no_gpu_but_python() -> Result<(), String> {
    no_gpu().map_err(|found| format!("{found}: run scripts/gpu-check by hand"))?;
    Command::new("python3").arg("--version").output().map(|_| ()).map_err(|e| format!("no python3: {e}"))
}

/// What the script prints, and its file.
fn gpu_check(folder: &Folder, words: &[&str]) -> (String, serde_json::Value) {
    let json = folder.path("report.json");
    let mut command = Command::new("python3");
    command.arg(format!("{ROOT}/scripts/gpu-check")).args(["--weft", env!("CARGO_BIN_EXE_weft"), "--json"]).arg(&json);
    let output = command.args(words).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    (text, serde_json::from_slice(&std::fs::read(json).unwrap()).unwrap())
}

fn gpu_check_names_what_it_could_not_run((): ()) {
    let (text, report) = gpu_check(&Folder::new(), &[]);
    let steps = report["steps"].as_array().unwrap();
    for name in [
        "doctor",
        "tests: ops",
        "compute-sanitizer: racecheck",
        "probe",
        "counters",
        "bench interweave 300x300/8 bf16",
        "PyTorch anet x64",
    ] {
        let step = steps.iter().find(|step| step["name"] == name).unwrap_or_else(|| panic!("no {name}: {text}"));
        assert!(step["state"] == "not run" && step["said"].as_str() != Some(""), "{step}");
        assert!(text.contains(name), "{text}");
    }
}

fn gpu_check_goes_on_where_it_stopped((): ()) {
    let folder = Folder::new();
    let trial = ["--device", "simt", "--only", "probe"];
    let state = |report: &serde_json::Value| report["steps"][0]["state"].as_str().map(str::to_string);
    let (text, report) = gpu_check(&folder, &trial);
    assert!(text.contains("9 instructions as in the PTX ISA") && state(&report).as_deref() == Some("passed"), "{text}");
    let (text, _) = gpu_check(&folder, &trial);
    assert!(text.contains("before, with the same programs"), "{text}");
    // A run without time leaves what is known.
    let (text, report) = gpu_check(&folder, &[&trial[..], &["--again", "--total", "0.001"]].concat());
    assert!(text.contains("out of time") && state(&report).as_deref() == Some("passed"), "{text}");
}

fn the_driver_keeps_its_promises_on_this_gpu(cuda: Arc<Cuda>) {
    let gpu = Gpu::new(cuda);
    logic(&gpu);
    let error = gpu.memory(1 << 50).err().expect("more than any GPU has").to_string();
    assert!(error.contains("out of memory: 1048576.0 GiB asked for"), "{error}");
}

fn every_kernel_of_the_emulator_is_in_the_code_on_this_gpu(cuda: Arc<Cuda>) {
    let gpu = Gpu::new(cuda);
    let there = gpu.driver.kernels();
    let missing: Vec<String> =
        Emulator::new(EmulatorOptions::default()).kernels().into_iter().filter(|name| !there.contains(name)).collect();
    assert!(missing.is_empty(), "no GPU code of {missing:?}");
}

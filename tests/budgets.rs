//! What kernels may cost, `kernels/budgets.toml`, against what the compiler made of them. No GPU needed.
//!
//! The numbers of a kernel are those of one compiler: with another one they are not compared, and the test is listed as ignored. Stack
//! and shared memory are limited with every compiler and on every architecture.

#[macro_use]
#[path = "support/harness.rs"]
mod harness;

use harness::{FIRST_WITH_TENSOR_CORES, arch_number, is_for_tensor_cores, is_product};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use weft::device::ARCHITECTURES;
use weft::sass::{self, Budgets, Kernel, Tools};

fn main() -> ExitCode {
    let mut tests =
        tests![the_budgets_are_for_the_compiler_that_ci_installs, the_program_says_in_one_line_that_a_tool_is_missing];
    tests.push(harness::test_with(
        "no_kernel_costs_more_than_its_budget",
        comparable,
        no_kernel_costs_more_than_its_budget,
    ));
    tests.push(harness::test_with(
        "no_kernel_spills_on_any_architecture",
        harness::tools,
        no_kernel_spills_on_any_architecture,
    ));
    tests.push(harness::test_with(
        "a_division_in_a_loop_is_over_budget",
        compiler,
        a_division_in_a_loop_is_over_budget,
    ));
    tests.push(harness::test_with(
        "the_program_shows_and_compares_a_kernel",
        harness::tools,
        the_program_shows_and_compares_a_kernel,
    ));
    harness::main(tests)
}

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn budgets() -> Budgets {
    Budgets::load(&root("kernels/budgets.toml")).unwrap()
}

/// The tools and the budgets, if this build can be compared with them.
fn comparable() -> Result<(Tools, Budgets), String> {
    let (tools, budgets) = (harness::tools()?, budgets());
    if budgets.compiler != sass::compiler() {
        return Err(format!("the budgets are for nvcc {}, not {}", budgets.compiler, sass::compiler()));
    }
    if !ARCHITECTURES.contains(&budgets.arch.as_str()) {
        return Err(format!("the budgets are for sm_{}, which this build leaves out", budgets.arch));
    }
    Ok((tools, budgets))
}

/// The tools and the nvcc of this build.
fn compiler() -> Result<(Tools, PathBuf), String> {
    let tools = harness::tools()?;
    let nvcc = Path::new(option_env!("WEFT_CUDA_BIN").unwrap_or_default()).join("nvcc");
    if !nvcc.is_file() {
        assert!(!harness::is_required("WEFT_CUDA", "require"), "WEFT_CUDA=require, but there is no {}", nvcc.display());
        return Err(format!("there is no {}", nvcc.display()));
    }
    Ok((tools, nvcc))
}

/// If CI took another compiler, the comparison would be ignored from then on.
fn the_budgets_are_for_the_compiler_that_ci_installs() {
    let wheel = format!("nvidia-cuda-nvcc=={} ", budgets().compiler);
    assert!(std::fs::read_to_string(root(".ci/nvcc")).unwrap().contains(&wheel), "no {wheel}in .ci/nvcc");
}

fn the_program_says_in_one_line_that_a_tool_is_missing() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weft"));
    let output = command.arg("sass").env("CUOBJDUMP", "missing/cuobjdump").output().unwrap();
    let expected = match ARCHITECTURES {
        [] => "weft: this program: was built without GPU code; build it where nvcc is, with WEFT_CUDA=require\n",
        _ => "weft: CUOBJDUMP: there is no file missing/cuobjdump\n",
    };
    assert_eq!(String::from_utf8_lossy(&output.stderr), expected);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0));
}

/// A kernel of this build, as text, as JSON, and compared with itself.
fn the_program_shows_and_compares_a_kernel(_: Tools) {
    let weft = |words: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_weft")).arg("sass").args(words).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let text = weft(&["softmax_forward_f32", "--lines", "2"]);
    let arch = sass::highest();
    assert!(text.starts_with(&format!("softmax_forward_f32 (softmax.cu), sm_{arch}: registers ")), "{text}");
    assert!(text.contains("innermost, main"), "{text}");
    let json: serde_json::Value = serde_json::from_str(&weft(&["softmax_forward_f32", "--json"])).unwrap();
    let kernel = &json["kernels"][0];
    let count = |part: &serde_json::Value| part["instructions"].as_u64().unwrap();
    let by_line: u64 = kernel["parts"]["all"]["lines"].as_array().unwrap().iter().map(count).sum();
    assert_eq!((by_line, count(&kernel["parts"]["all"])), (count(kernel), count(kernel)));
    let same = weft(&["softmax_forward_f32", "--diff", env!("CARGO_BIN_EXE_weft")]);
    assert_eq!(same, format!("sm_{arch}: 0 of 1 kernels differ\n"));
}

fn no_kernel_costs_more_than_its_budget((tools, budgets): (Tools, Budgets)) {
    let kernels = sass::kernels(&tools, &sass::embedded().unwrap(), &budgets.arch, None).unwrap();
    let verdict = budgets.check(&kernels);
    let record = "`weft sass --write-budgets kernels/budgets.toml` records what they cost now";
    if !verdict.improvements.is_empty() {
        println!("below budget; {record}:\n{}", verdict.improvements.join("\n"));
    }
    assert!(verdict.regressions.is_empty(), "over budget; {record}:\n{}", verdict.regressions.join("\n"));
}

fn no_kernel_spills_on_any_architecture(tools: Tools) {
    let budgets = budgets();
    let mut wrong = Vec::new();
    for arch in ARCHITECTURES {
        let found = sass::resources(&tools, &sass::embedded().unwrap(), arch).unwrap();
        for (name, resources) in &found {
            let product = is_product(found.keys().map(String::as_str), name);
            // Without tensor cores these only trap.
            let traps = arch_number(arch) < FIRST_WITH_TENSOR_CORES && product && is_for_tensor_cores(name);
            let kernel = Kernel { name: name.clone(), resources: *resources, ..Kernel::default() };
            wrong.extend(
                budgets.faults(&kernel).into_iter().filter(|_| !traps).map(|fault| format!("sm_{arch}: {fault}")),
            );
        }
        assert!(found.values().all(|resources| resources.registers > 0));
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// A kernel with a loop, in which `PLANTED` puts a division.
const KERNEL: &str = r#"
extern "C" __global__ void planted_f32(const float* x, float* y, int n, float by) {
  float sum = 0.0f;
#pragma unroll 1
  for (int i = threadIdx.x; i < n; i += 128) {
    float value = x[i];
#ifdef PLANTED
    value /= by;
#endif
    sum = fmaf(value, value, sum);
  }
  y[threadIdx.x] = sum;
}
"#;

fn a_division_in_a_loop_is_over_budget((tools, nvcc): (Tools, PathBuf)) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("planted.cu");
    std::fs::write(&source, KERNEL).unwrap();
    let arch = sass::highest();
    let compile = |options: &[&str]| {
        let cubin = folder.path().join("planted.cubin");
        let mut command = Command::new(&nvcc);
        command.args(["-O3", "-lineinfo", "-cubin", &format!("-arch=sm_{arch}")]).args(options);
        let output = command.arg(&source).arg("-o").arg(&cubin).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        sass::kernels_of_cubin(&tools, &cubin).unwrap()
    };
    let good = compile(&[]);
    let budgets = Budgets::record(&good, sass::compiler(), arch);
    assert_eq!(budgets.check(&good), sass::Verdict::default());

    let line = KERNEL.lines().position(|line| line.contains("value /= by")).unwrap() + 1;
    let found = budgets.check(&compile(&["-DPLANTED"])).regressions;
    let in_loop =
        found.iter().find(|fault| fault.starts_with("planted_f32: loop ")).unwrap_or_else(|| panic!("{found:?}"));
    assert!(in_loop.contains(&format!("; grew most: planted.cu:{line} 0 -> ")), "{in_loop}");
}

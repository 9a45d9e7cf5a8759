//! What kernels may cost, `kernels/budgets.toml`, against what the compiler made of them. No GPU needed.
//!
//! The numbers of a kernel are those of one compiler: with another one they are not compared, and the test is listed as ignored. Stack
//! and shared memory are limited with every compiler and on every architecture.

use crate::harness::{self, FIRST_WITH_TENSOR_CORES, arch_number, is_for_tensor_cores, is_product};
use crate::{cases, compiler};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::process::Command;
use weft::device::ARCHITECTURES;
use weft::sass::{self, Budgets, Executed, Kernel, Tools};

pub fn tests() -> Vec<Trial> {
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
    tests.push(harness::test_with("a_bank_conflict_is_over_budget", compiler, a_bank_conflict_is_over_budget));
    tests.push(harness::test_with(
        "the_program_shows_and_compares_a_kernel",
        harness::tools,
        the_program_shows_and_compares_a_kernel,
    ));
    tests
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
    if budgets.arch != sass::highest() {
        return Err(format!("the budgets are for sm_{}, which is not the highest in this build", budgets.arch));
    }
    if budgets.compiler != sass::compiler() {
        return Err(format!("the budgets are for nvcc {}, not {}", budgets.compiler, sass::compiler()));
    }
    Ok((tools, budgets))
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
    let mut kernels = sass::kernels(&tools, &sass::embedded().unwrap(), &budgets.arch, None).unwrap();
    let (_, executed) = cases();
    for kernel in &mut kernels {
        kernel.executed = Some(Executed::new(&executed[&kernel.name]));
    }
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

/// A kernel with a loop; `DIVISION` and `CONFLICT` plant what must not be there.
const KERNEL: &str = r#"
extern "C" __global__ void planted_f32(const float* x, float* y, int n, float by) {
#ifdef CONFLICT
  const int lanes = 2;
#else
  const int lanes = 1;
#endif
  __shared__ float tile[2 * 128];
  float sum = 0.0f;
#pragma unroll 1
  for (int i = threadIdx.x; i < n; i += 128) {
    float value = x[i];
#ifdef DIVISION
    value /= by;
#endif
    tile[lanes * threadIdx.x] = value;
    __syncthreads();
    sum += tile[lanes * (threadIdx.x ^ 1)];
    __syncthreads();
  }
  y[threadIdx.x] = sum;
}
"#;

/// The line of [`KERNEL`] that contains `code`.
fn line(code: &str) -> usize {
    KERNEL.lines().position(|line| line.contains(code)).expect(code) + 1
}

/// Compiles [`KERNEL`] with an option, and runs one block of it over 512 values.
fn planted(tools: &Tools, nvcc: &Path, option: Option<&str>) -> Vec<Kernel> {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("planted.cu");
    std::fs::write(&source, KERNEL).unwrap();
    let compile = |to: &str| {
        let path = folder.path().join(format!("planted.{to}"));
        let mut command = Command::new(nvcc);
        command.args(["-O3", "-lineinfo", &format!("-{to}"), &format!("-arch=sm_{}", sass::highest())]).args(option);
        let output = command.arg(&source).arg("-o").arg(&path).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        path
    };
    let mut kernels = sass::kernels_of_cubin(tools, &compile("cubin")).unwrap();
    let ptx = simt::Ptx::parse(&std::fs::read_to_string(compile("ptx")).unwrap()).unwrap();
    let (x, y) = (simt::Buffer::from_slice(&[1f32; 512]), simt::Buffer::from_slice(&[0f32; 128]));
    let arguments = [simt::Arg::from(&x), (&y).into(), (&512i32).into(), (&3f32).into()];
    let counted = ptx.launch("planted_f32", &simt::Launch::new([1; 3], 128), &arguments).unwrap();
    kernels[0].executed = Some(Executed::new(&counted));
    kernels
}

/// What is over the budget of the kernel as it should be, for one number.
fn over_budget((tools, nvcc): &(Tools, PathBuf), option: &str, number: &str) -> String {
    let good = planted(tools, nvcc, None);
    let budgets = Budgets::record(&good, sass::compiler(), sass::highest());
    assert_eq!(budgets.check(&good), sass::Verdict::default());
    let found = budgets.check(&planted(tools, nvcc, Some(option))).regressions;
    let named = found.iter().find(|fault| fault.starts_with(&format!("planted_f32: {number} ")));
    named.unwrap_or_else(|| panic!("{found:?}")).clone()
}

fn a_division_in_a_loop_is_over_budget(tools: (Tools, PathBuf)) {
    let fault = over_budget(&tools, "-DDIVISION", "loop");
    assert!(fault.contains(&format!("; grew most: planted.cu:{} 0 -> ", line("value /= by"))), "{fault}");
}

/// Four warps, four iterations, a write and a read of two wavefronts instead of one.
fn a_bank_conflict_is_over_budget(tools: (Tools, PathBuf)) {
    let fault = over_budget(&tools, "-DCONFLICT", "conflicts");
    let [write, read] = ["] = value", "sum += tile"].map(line);
    let expected = format!("conflicts 32, allowed 0; grew most: planted.cu:{write} 0 -> 16, planted.cu:{read} 0 -> 16");
    assert_eq!(fault, format!("planted_f32: {expected}"));
}

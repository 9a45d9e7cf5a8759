//! The kernel report as a test: what the compiler made of every kernel, read from the GPU code in this binary. No GPU needed.
//!
//! Key idea: a kernel that spills, that lacks tensor-core instructions where they were intended, or whose loads are narrower than
//! 16 bytes is unfinished, and all three can be read from the machine code. So nobody has to inspect it manually.
//!
//! A family of kernels that has a `_tf32` member (`gemm_nn_f32`, `_tf32`, `_f16`, `_bf16`) is a matrix product.

#[macro_use]
#[path = "support/harness.rs"]
mod harness;

use rayon::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use weft::device::{ARCHITECTURES, IMAGES, NVCC};

/// Cards from this one on have tf32, bf16 and cp.async; on older ones the shim traps or copies synchronously.
const FIRST_WITH_TENSOR_CORES: u32 = 80;
const TENSOR_CORE_TYPES: [&str; 3] = ["tf32", "f16", "bf16"];
/// Files that must contain matrix products.
const PRODUCTS: [&str; 2] = ["gemm", "conv"];
/// The limit of static shared memory on every card.
const MAX_STATIC_SHARED: u32 = 48 << 10;

/// What the compiler made of one kernel for one architecture.
#[derive(Default)]
struct Kernel {
    registers: u32,
    /// Bytes of local memory: spills, and arrays that did not fit into registers.
    stack: u32,
    shared: u32,
    /// Whether its machine code was disassembled, for the instruction counts below.
    disassembled: bool,
    tensor: usize,
    wide_loads: usize,
    wide_copies: usize,
    traps: usize,
}

fn is_product(kernels: &BTreeMap<String, Kernel>, name: &str) -> bool {
    kernels.contains_key(&format!("{}_tf32", family(name).0))
}

/// Splits `gemm_nn_tf32` into `gemm_nn` and `tf32`.
fn family(kernel: &str) -> (&str, &str) {
    kernel.rsplit_once('_').unwrap_or((kernel, ""))
}

/// The number after `name` in a line of `NAME:number` words.
fn field(line: &str, name: &str) -> Option<u32> {
    line.split_whitespace().find_map(|word| word.strip_prefix(name)?.strip_prefix(':')?.parse().ok())
}

/// Adds the output of `cuobjdump --dump-resource-usage` or `-sass`.
fn read(text: &str, kernels: &mut BTreeMap<String, Kernel>) {
    let mut name = String::new();
    for line in text.lines().map(str::trim) {
        if let Some(rest) = line.strip_prefix("Function") {
            name = rest.trim_matches([' ', ':']).to_owned();
            continue;
        }
        if let Some(registers) = field(line, "REG") {
            let kernel = kernels.entry(name.clone()).or_default();
            kernel.registers = registers;
            kernel.stack = field(line, "STACK").unwrap_or_default() + field(line, "LOCAL").unwrap_or_default();
            kernel.shared = field(line, "SHARED").unwrap_or_default();
        } else if let Some((_, code)) = line.split_once("*/") {
            // /*0010*/  @!P0 LDG.E.128 R4, [R2.64] ;
            let is_operation = |word: &&str| !word.starts_with('@');
            let Some(operation) = code.split_whitespace().find(is_operation) else { continue };
            let kernel = kernels.entry(name.clone()).or_default();
            kernel.disassembled = true;
            let unit = operation.split('.').next().unwrap_or_default();
            let wide = operation.split('.').any(|part| part.trim_end_matches([',', ';']) == "128");
            match unit {
                "HMMA" | "HGMMA" => kernel.tensor += 1,
                "LDG" if wide => kernel.wide_loads += 1,
                "LDGSTS" if wide => kernel.wide_copies += 1,
                "BPT" => kernel.traps += 1,
                _ => {}
            }
        }
    }
}

/// Violations, as text.
fn faults(name: &str, kernel: &Kernel, is_product: bool, arch: u32) -> Vec<String> {
    let mut faults = Vec::new();
    let mut demand = |holds: bool, fault: String| {
        if !holds {
            faults.push(format!("{name} on sm_{arch}: {fault}"));
        }
    };
    demand(kernel.registers > 0, "cuobjdump says nothing of its registers".into());
    let on_tensor_cores = is_product && TENSOR_CORE_TYPES.contains(&family(name).1);
    let can_run = !on_tensor_cores || arch >= FIRST_WITH_TENSOR_CORES;
    demand(
        kernel.stack == 0 || !can_run,
        format!("{} bytes of stack: it spills or keeps an array there", kernel.stack),
    );
    demand(kernel.shared <= MAX_STATIC_SHARED, format!("{} bytes of static shared memory", kernel.shared));
    if kernel.disassembled && is_product && arch >= FIRST_WITH_TENSOR_CORES {
        demand(kernel.wide_loads + kernel.wide_copies > 0, "no load is 16 bytes wide".into());
        demand(!on_tensor_cores || kernel.tensor > 0, "neither HMMA nor HGMMA: no tensor cores".into());
        demand(!on_tensor_cores || kernel.wide_copies > 0, "no LDGSTS of 16 bytes: loads are not asynchronous".into());
        demand(kernel.traps == 0, "it traps: an instruction of a later card".into());
    }
    faults
}

fn main() -> ExitCode {
    let mut tests = tests![the_report_is_read_as_cuobjdump_writes_it, each_fault_is_named];
    tests.push(harness::test_with(
        "no_kernel_spills_and_products_use_tensor_cores_and_wide_loads",
        tools,
        no_kernel_spills_and_products_use_tensor_cores_and_wide_loads,
    ));
    harness::main(tests)
}

/// The folder of cuobjdump and nvdisasm, which are next to the nvcc that built the kernels, or why there is none. With
/// `WEFT_CUDA=require`, as in CI, that is a failure.
fn tools() -> Result<PathBuf, String> {
    let here = |folder: &PathBuf| ["cuobjdump", "nvdisasm"].iter().all(|tool| folder.join(tool).is_file());
    let found = if ARCHITECTURES.is_empty() {
        Err("weft was built without GPU code (see WEFT_CUDA in build.rs)")
    } else {
        option_env!("WEFT_CUDA_BIN").map(PathBuf::from).filter(here).ok_or("no cuobjdump and nvdisasm beside nvcc")
    };
    if let Err(reason) = found {
        assert!(!harness::is_required("WEFT_CUDA", "require"), "WEFT_CUDA=require, but {reason}");
    }
    found.map_err(str::to_owned)
}

fn cuobjdump(tools: &Path, options: &[&str], image: &Path, arch: &str) -> String {
    let path = std::env::join_paths(
        std::iter::once(tools.to_owned()).chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
    );
    let mut command = Command::new(tools.join("cuobjdump"));
    command.args(["-arch", &format!("sm_{arch}")]).args(options).arg(image);
    let output = command.env("PATH", path.unwrap()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Resources of all kernels; instructions, which take longer, only of files with products.
fn inspect(tools: &Path, image: &Path, arch: &str, disassemble: bool) -> BTreeMap<String, Kernel> {
    let mut kernels = BTreeMap::new();
    read(&cuobjdump(tools, &["--dump-resource-usage"], image, arch), &mut kernels);
    if disassemble && kernels.keys().any(|name| is_product(&kernels, name)) {
        read(&cuobjdump(tools, &["-sass"], image, arch), &mut kernels);
    }
    kernels
}

fn number(arch: &str) -> u32 {
    arch.trim_end_matches(char::is_alphabetic).parse().unwrap()
}

fn no_kernel_spills_and_products_use_tensor_cores_and_wide_loads(tools: PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let write = |&(stem, bytes): &(&str, &[u8])| {
        let path = folder.path().join(stem).with_extension("fatbin");
        std::fs::write(&path, bytes).unwrap();
        (stem.to_owned(), path)
    };
    let images: Vec<(String, PathBuf)> = IMAGES.iter().map(write).collect();
    let pairs: Vec<_> = images.iter().flat_map(|image| ARCHITECTURES.iter().map(move |arch| (image, *arch))).collect();
    // Cards between the first with tensor cores and the newest use the same code paths as the first.
    let modern: Vec<&str> =
        ARCHITECTURES.iter().copied().filter(|arch| number(arch) >= FIRST_WITH_TENSOR_CORES).collect();
    let shown: Vec<&str> = modern.first().into_iter().chain(modern.last()).copied().collect();
    let reports: Vec<_> = pairs
        .par_iter()
        .map(|((stem, path), arch)| (stem.as_str(), *arch, inspect(&tools, path, arch, shown.contains(arch))))
        .collect();

    let mut table = format!(
        "{NVCC}\n{:<32}{:>7}{:>6}{:>7}{:>8}{:>6}{:>9}\n",
        "kernel", "sm", "regs", "stack", "shared", "mma", "16-byte"
    );
    let (mut wrong, mut products) = (Vec::new(), Vec::new());
    for (stem, arch, kernels) in &reports {
        for (name, kernel) in kernels {
            let is_product = is_product(kernels, name);
            if is_product {
                products.push((*stem, *arch));
            }
            let Kernel { registers, stack, shared, .. } = kernel;
            let count = |n: usize| if kernel.disassembled { n.to_string() } else { String::new() };
            let (tensor, wide) = (count(kernel.tensor), count(kernel.wide_loads + kernel.wide_copies));
            table += &format!("{name:<32}{arch:>7}{registers:>6}{stack:>7}{shared:>8}{tensor:>6}{wide:>9}\n");
            wrong.extend(faults(name, kernel, is_product, number(arch)));
        }
    }
    if harness::is_verbose() {
        print!("{table}");
    }
    for stem in PRODUCTS.iter().filter(|stem| images.iter().any(|(name, _)| name == **stem)) {
        for arch in ARCHITECTURES {
            assert!(products.contains(&(*stem, *arch)), "no matrix product was found in {stem}.cu for sm_{arch}");
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

fn the_report_is_read_as_cuobjdump_writes_it() {
    let mut kernels = BTreeMap::new();
    read(
        "Resource usage:\n Common:\n  GLOBAL:0\n Function gemm_nn_f16:\n  REG:34 STACK:8 SHARED:8704 LOCAL:4 CONSTANT[0]:388\n\
         \t\tFunction : gemm_nn_f16\n\t.headerflags @\"EF_CUDA_SM80\"\n\
         \t/*0000*/                   HMMA.16816.F32 R4, R8, R12, R4 ;   /* 0x000 */\n\
         \t                                                           /* 0x000 */\n\
         \t/*0010*/              @!P0 LDGSTS.E.BYPASS.128 [R3], [R4.64], P1 ;\n\
         \t/*0020*/                   LDG.E.128.CONSTANT R4, [R2.64] ;\n\
         \t/*0030*/                   LDG.E R4, [R2.64] ;\n\
         \t/*0040*/                   STL.64 [R1], R4 ;\n",
        &mut kernels,
    );
    let kernel = &kernels["gemm_nn_f16"];
    assert_eq!((kernel.registers, kernel.stack, kernel.shared), (34, 12, 8704));
    assert_eq!((kernel.tensor, kernel.wide_copies, kernel.wide_loads, kernel.disassembled), (1, 1, 1, true));
    assert_eq!(kernels.len(), 1);
}

fn each_fault_is_named() {
    let good =
        || Kernel { registers: 90, disassembled: true, tensor: 8, wide_loads: 2, wide_copies: 2, ..Kernel::default() };
    let all = |kernel: Kernel, arch| faults("gemm_nn_tf32", &kernel, true, arch).join("; ");
    assert_eq!(all(good(), 80), "");
    assert!(all(Kernel { stack: 16, ..good() }, 80).contains("16 bytes of stack"));
    assert_eq!(all(Kernel { stack: 16, ..good() }, 75), "", "sm_75 has no tf32: the kernel traps there");
    assert!(all(Kernel { tensor: 0, ..good() }, 90).contains("no tensor cores"));
    assert!(all(Kernel { wide_copies: 0, ..good() }, 86).contains("LDGSTS"));
    assert!(all(Kernel { wide_copies: 0, wide_loads: 0, ..good() }, 86).contains("16 bytes wide"));
    assert_eq!(all(Kernel { tensor: 0, wide_copies: 0, wide_loads: 0, traps: 1, ..good() }, 75), "", "sm_75 is exempt");
    assert_eq!(faults("gemm_finish_f16", &Kernel { registers: 10, ..Kernel::default() }, false, 80).len(), 0);
}

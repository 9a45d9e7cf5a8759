//! The kernel report as a test: what the compiler made of the matrix products, read from the GPU code in this binary. No GPU needed.
//!
//! Key idea: a product that lacks tensor-core instructions where they were intended, or whose loads are narrower than 16 bytes, is
//! unfinished, and both can be read from the machine code. So nobody has to inspect it manually. What kernels may cost, registers
//! and spills included, is in `budgets`.

use crate::compiler;
use crate::harness::{self, FIRST_WITH_TENSOR_CORES, arch_number, is_for_tensor_cores, is_product};
use libtest_mimic::Trial;
use std::path::{Path, PathBuf};
use std::process::Command;
use weft::device::{ARCHITECTURES, IMAGES, NVCC};
use weft::sass::{self, Class, Kernel, Tools};

/// Files that must contain matrix products.
const PRODUCTS: [&str; 3] = ["gemm", "conv", "dense"];

pub fn tests() -> Vec<Trial> {
    let mut tests = tests![each_fault_is_named];
    tests.push(harness::test_with(
        "products_use_tensor_cores_and_wide_loads",
        harness::tools,
        products_use_tensor_cores_and_wide_loads,
    ));
    tests.push(harness::test_with("the_lab_compiles", compiler, the_lab_compiles));
    tests
}

/// Violations of a product on a card with tensor cores, as text.
fn faults(kernel: &Kernel, arch: &str) -> Vec<String> {
    let mut faults = Vec::new();
    let mut demand = |holds: bool, fault: &str| {
        if !holds {
            faults.push(format!("{} on sm_{arch}: {fault}", kernel.name));
        }
    };
    let on_tensor_cores = is_for_tensor_cores(&kernel.name);
    demand(kernel.wide_loads + kernel.wide_copies > 0, "no load is 16 bytes wide");
    demand(!on_tensor_cores || kernel.whole.mix[Class::Hmma] > 0, "neither HMMA nor HGMMA: no tensor cores");
    demand(!on_tensor_cores || kernel.wide_copies > 0, "no LDGSTS of 16 bytes: loads are not asynchronous");
    demand(kernel.traps == 0, "it traps: an instruction of a later card");
    faults
}

fn products_use_tensor_cores_and_wide_loads(tools: Tools) {
    // Cards between the first with tensor cores and the newest use the same code paths as the first.
    let modern: Vec<&str> =
        ARCHITECTURES.iter().copied().filter(|arch| arch_number(arch) >= FIRST_WITH_TENSOR_CORES).collect();
    let mut shown: Vec<&str> = modern.first().into_iter().chain(modern.last()).copied().collect();
    shown.dedup();
    let (mut table, mut wrong) =
        (format!("{NVCC}\n{:<32}{:>7}{:>6}{:>9}\n", "kernel", "sm", "mma", "16-byte"), Vec::new());
    for arch in shown {
        for (stem, image) in IMAGES {
            let names = sass::resources(&tools, &[image], arch).unwrap();
            let is_product = |name: &str| is_product(names.keys().map(String::as_str), name);
            if !names.keys().any(|name| is_product(name)) {
                assert!(!PRODUCTS.contains(stem), "no matrix product was found in {stem}.cu for sm_{arch}");
                continue;
            }
            let kernels = sass::kernels(&tools, &[image], arch, None).unwrap();
            for kernel in kernels.iter().filter(|kernel| is_product(&kernel.name)) {
                let (tensor, wide) = (kernel.whole.mix[Class::Hmma], kernel.wide_loads + kernel.wide_copies);
                table += &format!("{:<32}{arch:>7}{tensor:>6}{wide:>9}\n", kernel.name);
                wrong.extend(faults(kernel, arch));
            }
        }
    }
    if harness::is_verbose() {
        print!("{table}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The files of kernels/lab still compile, and are as expensive as its README says.
fn the_lab_compiles((tools, nvcc): (Tools, PathBuf)) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = tempfile::tempdir().unwrap();
    let cubin = folder.path().join("by_value.cubin");
    let mut command = Command::new(nvcc);
    command
        .args(["-O3", "-std=c++17", "-cubin", &format!("-arch=sm_{}", sass::highest()), "-I"])
        .arg(root.join("simt/include"));
    let output = command.arg(root.join("kernels/lab/by_value.cu")).arg("-o").arg(&cubin).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let before = sass::kernels_of_cubin(&tools, &cubin).unwrap();
    let now = sass::kernels(&tools, &sass::embedded().unwrap(), sass::highest(), Some("conv_forward_f16")).unwrap();
    let [before, now] = [&before[0], &now[0]].map(|kernel| kernel.whole.count());
    assert!(before > 4 * now, "{before} instructions before, {now} now");
}

fn each_fault_is_named() {
    let all = |name: &str, wide_loads, wide_copies, traps| {
        let kernel = Kernel { name: name.into(), wide_loads, wide_copies, traps, ..Kernel::default() };
        faults(&kernel, "80").join("; ")
    };
    assert_eq!(all("gemm_nn_f32", 2, 0, 0), "");
    assert!(all("gemm_nn_f32", 0, 0, 0).contains("16 bytes wide"));
    assert!(all("gemm_nn_tf32", 2, 2, 0).contains("no tensor cores"));
    assert!(all("gemm_nn_bf16", 2, 0, 0).contains("LDGSTS"));
    assert!(all("gemm_nn_f32", 2, 0, 1).contains("it traps"));
}

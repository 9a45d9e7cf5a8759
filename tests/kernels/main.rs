//! The kernels as nvcc compiled them. No GPU needed: their machine code is read, their PTX executed on the emulator's second
//! engine.
//!
//! - `products`: what a matrix product must have.
//! - `ptx`: that the compiled kernels compute what the CPU computes.
//! - `budgets`: what they may cost.

#[macro_use]
#[path = "../support/harness.rs"]
mod harness;
mod budgets;
mod products;
mod ptx;

use simt::ptx::Counted;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::OnceLock;
use weft::device::NVCC;
use weft::doctor::{self, DoctorReport};
use weft::sass::Tools;

fn main() -> ExitCode {
    harness::main(products::tests().into_iter().chain(ptx::tests()).chain(budgets::tests()).collect())
}

/// Whether there is something to execute.
fn gpu_code() -> Result<(), String> {
    if NVCC.is_empty() { Err("this build has no GPU code".into()) } else { Ok(()) }
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

/// All cases of `weft doctor` on the second engine, and what the kernels executed in them. Once for all tests.
fn cases() -> &'static (DoctorReport, BTreeMap<String, Counted>) {
    static CASES: OnceLock<(DoctorReport, BTreeMap<String, Counted>)> = OnceLock::new();
    CASES.get_or_init(|| doctor::count(|_| ()).expect("there is GPU code"))
}

//! Test programs whose tests can be ignored at run time, with the reason in the output: a test that needs a GPU or a tool that
//! this machine lacks is not counted as passed.

#![allow(dead_code, reason = "each test program uses a part")]

use libtest_mimic::{Arguments, Completion, Trial};
use std::process::ExitCode;
#[cfg(feature = "cuda")]
use std::sync::Arc;
use std::sync::OnceLock;
#[cfg(feature = "cuda")]
use weft::device::Cuda;
use weft::sass::Tools;

/// Tests by the names of their functions.
#[allow(unused_macros, reason = "each test program uses a part")]
macro_rules! tests {
    ($($name:ident),* $(,)?) => { vec![$(crate::harness::test(stringify!($name), $name)),*] };
}

/// A test and its name.
pub fn test(name: &str, run: fn()) -> Trial {
    Trial::test(name, move || {
        run();
        Ok(())
    })
}

/// A test that is ignored, with a reason, if `needed` does not find what it needs.
pub fn test_with<T: 'static>(name: &str, needed: fn() -> Result<T, String>, run: fn(T)) -> Trial {
    Trial::ignorable_test(name, move || match needed() {
        Ok(it) => {
            run(it);
            Ok(Completion::Completed)
        }
        Err(reason) => Ok(Completion::ignored_with(reason)),
    })
}

/// Runs the tests selected by the command line.
pub fn main(tests: Vec<Trial>) -> ExitCode {
    let arguments = Arguments::from_args();
    VERBOSE.get_or_init(|| arguments.nocapture);
    libtest_mimic::run(&arguments, tests).exit_code()
}

static VERBOSE: OnceLock<bool> = OnceLock::new();

/// Whether tests that pass may print, with `--nocapture`.
pub fn is_verbose() -> bool {
    VERBOSE.get().copied().unwrap_or_default()
}

/// Whether the environment says that the resource controlled by `variable` is required.
pub fn is_required(variable: &str, value: &str) -> bool {
    std::env::var(variable).is_ok_and(|found| found == value)
}

/// The GPU of this machine, or why a test that needs one is ignored; with `WEFT_REQUIRE_CUDA=1` that is a failure.
#[cfg(feature = "cuda")]
pub fn cuda() -> Result<Arc<Cuda>, String> {
    static OPENED: OnceLock<Result<Arc<Cuda>, String>> = OnceLock::new();
    let opened = OPENED.get_or_init(|| match Cuda::open_any() {
        Ok((_, cuda)) => Ok(Arc::new(cuda)),
        Err(refusal) => {
            let error = refusal.error.to_string();
            // Without the advice: this line is repeated for each test.
            Err(format!("no CUDA device: {}", error.split("; ").next().unwrap_or(&error)))
        }
    });
    if let Err(reason) = opened {
        assert!(!is_required("WEFT_REQUIRE_CUDA", "1"), "WEFT_REQUIRE_CUDA=1, but {reason}");
    }
    opened.clone()
}

/// The tools that take GPU code apart, or why a test that needs them is ignored; with `WEFT_CUDA=require`, as in CI, that is a
/// failure.
pub fn tools() -> Result<Tools, String> {
    let found = weft::sass::embedded().and_then(|_| Tools::find()).map_err(|error| error.to_string());
    if let Err(reason) = &found {
        assert!(!is_required("WEFT_CUDA", "require"), "WEFT_CUDA=require, but {reason}");
    }
    found
}

/// Cards from this one on have tf32, bf16 and cp.async; on older ones the shim traps or copies synchronously.
pub const FIRST_WITH_TENSOR_CORES: u32 = 80;

/// 90 of `90a`.
pub fn arch_number(arch: &str) -> u32 {
    arch.trim_end_matches(char::is_alphabetic).parse().unwrap()
}

/// Whether a kernel is a matrix product: of its family (`gemm_nn_f32`, `_tf32`, `_f16`, `_bf16`) one member is in tf32.
pub fn is_product<'a>(names: impl IntoIterator<Item = &'a str>, name: &str) -> bool {
    let family = name.rsplit_once('_').map_or(name, |(family, _)| family);
    let tf32 = format!("{}_tf32", family.trim_end_matches("_128x128").trim_end_matches("_256x32"));
    names.into_iter().any(|name| name == tf32)
}

/// Whether a product is meant for tensor cores, by its type.
pub fn is_for_tensor_cores(product: &str) -> bool {
    product.rsplit_once('_').is_some_and(|(_, kind)| ["tf32", "f16", "bf16"].contains(&kind))
}

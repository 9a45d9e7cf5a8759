//! Compiles the emulator's C++ half (warp operations and instrumentation hooks), which is never instrumented itself.
fn main() {
    if let Err(error) = simt_build::compile_runtime("cpp/runtime.cpp".as_ref()) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

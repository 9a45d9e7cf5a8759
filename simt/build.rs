//! Compiles the C++ part of the emulator (warp operations and instrumentation hooks), which is never instrumented itself.
fn main() {
    if let Err(error) = simt_build::compile_runtime("cpp/runtime.cpp".as_ref()) {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

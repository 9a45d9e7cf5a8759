//! Compiles both folders; `clean` must never be reported, every kernel of `bugs` must be.
fn main() {
    for folder in ["clean", "bugs"] {
        if let Err(error) = simt_build::Kernels::new(folder).compile(folder) {
            eprintln!("{error}");
            std::process::exit(1);
        }
    }
}

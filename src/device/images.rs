//! The GPU code in this binary, as compiled by build.rs: one fat binary per `.cu` file, or nothing where nvcc was missing.
include!(concat!(env!("OUT_DIR"), "/images.rs"));

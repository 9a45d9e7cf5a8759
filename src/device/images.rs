//! The GPU code in this binary, as build.rs left it: one fat binary per `.cu` file, or nothing where nvcc was missing.
include!(concat!(env!("OUT_DIR"), "/images.rs"));

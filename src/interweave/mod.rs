//! Features of all overlapping patches of an image ([`Extractor`]): in one pass that shares what overlapping patches have in
//! common (the paper's interweaved operation without its maps), by interweaved maps exactly as in the paper, or by running the
//! net on every patch.

mod bands;
#[cfg(feature = "face")]
mod draw;
mod extractor;
mod geometry;
mod maps;
mod maps_cpu;
mod maps_gpu;
mod one_pass_cpu;
mod one_pass_gpu;
mod patches;
mod plan;
mod writer;

pub use bands::Put;
pub use extractor::{Extractor, ExtractorOptions, Features, Method};
#[doc(hidden)]
pub use maps::{Interweaving, Unweaving};
pub use plan::{Outline, Plan, patches};

use crate::memory;
use crate::net::Net;
use crate::ops::{Forward, Kind, Mode, Operation, Targets};
use crate::{Error, Result};

/// Patches are cut from photos.
fn check_rgb(net: &Net) -> Result<()> {
    if net.spec.input.c == 3 {
        return Ok(());
    }
    Err(Error::network(&net.spec.place, format!("its input {} is no RGB photo", net.spec.input))
        .advise("patches of photos need input = [3, height, width]"))
}

/// Patches have no targets.
fn check_no_loss(net: &Net) -> Result<()> {
    match net.layers.iter().find(|layer| matches!(layer.op.kind(), Kind::Loss)) {
        None => Ok(()),
        Some(loss) => Err(Error::network(net.spec.place_of(&loss.name), "is a loss, which patches have no use for")
            .advise("extract an earlier layer")),
    }
}

/// Bytes that a pass over an image may use before it is split into pieces: `most`, or half of the free memory.
fn budget(most: usize, free: u64) -> u128 {
    (memory::usable(free) / 2).min(most as u128)
}

/// Runs an operation on `n` samples outside of any net.
///
/// # Errors
/// No memory for its scratch.
fn infer(op: &dyn Operation, n: usize, params: &[&[f32]], input: &[f32], output: &mut [f32]) -> Result<()> {
    op.forward(Forward {
        n,
        mode: Mode::Inference,
        stream: 0,
        inputs: &[input],
        params,
        prepared: &[],
        targets: Targets::default(),
        output,
        workspace: &mut memory::zeroed::<f32>(op.forward_workspace(n), "scratch")?,
    });
    Ok(())
}

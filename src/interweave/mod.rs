//! Features of all overlapping patches of an image: by running the net on every patch ([`PatchScanner`]), or in one pass
//! that shares what overlapping patches have in common ([`Interweaver`], the paper's interweaved operation;
//! [`MapInterweaver`], the same to the letter).

mod bands;
mod dense;
mod draw;
mod geometry;
mod gpu;
mod maps;
mod maps_cpu;
mod maps_gpu;
mod patchwise;
mod plan;

pub use bands::Put;
pub use dense::Interweaver;
pub use gpu::GpuInterweaver;
pub use maps::{Interweaving, Unweaving};
pub use maps_cpu::MapInterweaver;
pub use maps_gpu::GpuMapInterweaver;
pub use patchwise::{Features, PatchScanner};
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
    Err(Error::new(&net.spec.place, format!("its input {} is no RGB photo", net.spec.input))
        .advise("patches of photos need input = [3, height, width]"))
}

/// Patches have no targets.
fn check_no_loss(net: &Net) -> Result<()> {
    match net.layers.iter().find(|layer| matches!(layer.op.kind(), Kind::Loss)) {
        None => Ok(()),
        Some(loss) => Err(Error::new(net.spec.place_of(&loss.name), "is a loss, which patches have no use for")
            .advise("extract an earlier layer with --layer")),
    }
}

/// Bytes that a pass over an image may take before it is done in pieces: `most`, or half of what is free.
fn budget(most: usize, free: u64) -> u128 {
    (memory::usable(free) / 2).min(most as u128)
}

/// Runs an operation by itself on `n` samples.
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
        targets: Targets::default(),
        output,
        workspace: &mut memory::zeroed::<f32>(op.forward_workspace(n), "scratch")?,
    });
    Ok(())
}

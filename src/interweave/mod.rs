//! Features of all overlapping patches of an image: by running the net on every patch ([`PatchScanner`]), or in one pass
//! that shares what overlapping patches have in common ([`Interweaver`], the paper's interweaved operation).

mod dense;
mod draw;
mod geometry;
mod maps;
mod patchwise;
mod plan;

pub use dense::Interweaver;
pub use maps::MapInterweaver;
pub use patchwise::{Features, PatchScanner};
pub use plan::{Plan, patches};

use crate::net::Net;
use crate::{Error, Result};

/// Patches are cut from photos.
fn check_rgb(net: &Net) -> Result<()> {
    if net.spec.input.c == 3 {
        return Ok(());
    }
    Err(Error::new(&net.spec.place, format!("its input {} is no RGB photo", net.spec.input))
        .advise("patches of photos need input = [3, height, width]"))
}

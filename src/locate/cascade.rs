//! The cascade of the paper's Fig. 2: LNet_o finds head and shoulders in the whole photo, LNet_s the face inside them.

use super::{Map, Responder, Response, Search, best_window};
use crate::Result;
use crate::data::photo::{Photo, Rect};
use crate::device::Device;
use serde::Deserialize;
use std::path::Path;

/// One net of the cascade and how its response becomes a window.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stage {
    pub response: Response,
    pub search: Search,
    /// From the window of the greatest score to the one handed on: its sides grow by this factor...
    pub enlarge: [f32; 2],
    /// ...and its middle moves by these shares of its width and height.
    #[serde(default)]
    pub shift: [f32; 2],
}

/// The two nets.
pub struct Localiser {
    coarse: (Responder, Stage),
    fine: (Responder, Stage),
}

/// What the cascade found in a photo.
#[derive(Debug, Clone)]
pub struct Found {
    /// Head and shoulders, in pixels of the photo.
    pub head: Rect,
    /// The face.
    pub face: Rect,
    /// Response gathered in the face window.
    pub score: f32,
    /// The maps of LNet_o and LNet_s.
    pub maps: [Map; 2],
}

impl Localiser {
    /// Reads both nets; paths in the stages start at `folder`.
    ///
    /// # Errors
    /// As [`Responder::load`].
    pub fn load(coarse: &Stage, fine: &Stage, folder: &Path, device: &Device) -> Result<Self> {
        let load = |stage: &Stage| Ok((Responder::load(&stage.response, folder, device)?, stage.clone()));
        Ok(Self { coarse: load(coarse)?, fine: load(fine)? })
    }

    /// The face of a photo; `None` if nothing responds.
    ///
    /// # Errors
    /// No memory for the nets' maps.
    pub fn locate(&mut self, photo: &Photo) -> Result<Option<Found>> {
        let (responder, stage) = &mut self.coarse;
        let coarse = responder.respond(photo, photo.bounds())?;
        let Some((window, _)) = best_window(&coarse, &stage.search) else { return Ok(None) };
        let Some(head) = stage.window(window).clipped(photo.width, photo.height) else { return Ok(None) };
        let (responder, stage) = &mut self.fine;
        let fine = responder.respond(photo, head)?;
        let Some((window, score)) = best_window(&fine, &stage.search) else { return Ok(None) };
        let face = stage.window(window);
        Ok(Some(Found { head, face, score, maps: [coarse, fine] }))
    }
}

impl Stage {
    fn window(&self, found: Rect) -> Rect {
        let (x, y) = found.center();
        let (x, y) = (x + self.shift[0] * found.width, y + self.shift[1] * found.height);
        let (width, height) = (found.width * self.enlarge[0], found.height * self.enlarge[1]);
        Rect::new(x - width / 2.0, y - height / 2.0, width, height)
    }
}

//! Sessions of a net by the size of their batch: those that were used last are kept.

use crate::Result;
use crate::net::{Net, Parameters, Purpose, Session};
use std::sync::Arc;

/// Number of sessions that are kept: the levels of a pyramid in both orientations, and the batches of windows.
const MOST: usize = 64;

/// The sessions, those used last at the end.
#[derive(Default)]
pub(super) struct Sessions(Vec<([usize; 3], Session)>);

impl Sessions {
    /// The session for `[n, height, width]`.
    ///
    /// # Errors
    /// Insufficient memory.
    pub fn of(&mut self, size: [usize; 3], net: &Net, parameters: &Parameters) -> Result<&mut Session> {
        let session = match self.0.iter().position(|(other, _)| *other == size) {
            Some(place) => self.0.remove(place).1,
            None => {
                if self.0.len() == MOST {
                    self.0.remove(0);
                }
                let [n, height, width] = size;
                Session::new(Arc::new(net.at_size(height, width)?), parameters, n, Purpose::Inference)?
            }
        };
        self.0.push((size, session));
        let last = self.0.len() - 1;
        Ok(&mut self.0[last].1)
    }
}

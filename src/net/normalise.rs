//! From the pixels of a photo to the values of a net's input.

use crate::settings::{limits, within};
use serde::Deserialize;

limits! {
    /// Mean of a channel, in pixel values.
    Mean: f32 = 0.0, 255.0;
    Scale: f32 = 1e-6, 1000.0;
}

/// `[normalise]` of a network file: `(pixel - mean[channel]) * scale`, for pixels of 0..=255 in the order R, G, B.
///
/// ```
/// use weft::net::{Normalise, Spec};
///
/// let text = "name = 'n'\ninput = [3, 8, 8]\nnormalise = { mean = [104.0, 117.0, 123.0], scale = 1.0 }
/// [[layer]]\nname = 'r'\ntype = 'relu'";
/// assert_eq!(Spec::parse(text, "n.toml")?.normalise, Normalise { mean: [104.0, 117.0, 123.0], scale: 1.0 });
/// # Ok::<(), weft::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Normalise {
    /// Mean of each channel, in pixel values.
    #[serde(deserialize_with = "within::<Mean, _, _>")]
    pub mean: [f32; 3],
    /// Factor of all channels.
    #[serde(deserialize_with = "within::<Scale, _, _>")]
    pub scale: f32,
}

impl Default for Normalise {
    /// Maps 0..=255 to about -2..=2.
    fn default() -> Self {
        Self { mean: [127.5; 3], scale: 1.0 / 64.0 }
    }
}

impl Normalise {
    /// Unchanged pixel values, 0..=255.
    pub const NONE: Self = Self { mean: [0.0; 3], scale: 1.0 };
}

//! Face localisation: response maps of nets that were trained only on tags of whole images (paper, section 2.1), and the search
//! for the windows in which the response is concentrated.

mod calibrate;
mod cascade;
mod chain;
mod config;
#[doc(hidden)]
pub mod density;
#[doc(hidden)]
pub mod edge_boxes;
#[doc(hidden)]
pub mod gpu;
mod grid;
mod recent;
mod response;
mod window;

#[doc(hidden)]
pub use calibrate::{CalibrationSample, Fit};
pub use cascade::{Detection, Localiser};
pub use config::{Boxes, Locate, Proposals, Shape, Shift, StageConfig, Threshold, Widths};
pub use response::{Channel, Map, Responder, Response};
#[doc(hidden)]
pub use window::SummedArea;

//! Where faces are: response maps of nets that were trained on tags of whole images only (paper, section 2.1), and the
//! search for the windows in which the response gathers.

mod calibrate;
mod cascade;
pub mod density;
pub mod edge_boxes;
pub mod gpu;
mod response;
mod window;

pub use calibrate::{Fit, Sight};
pub use cascade::{Boxes, Found, Localiser, Locate, Proposals, Shape, Shift, Stage, Threshold, Widths};
pub use response::{Channel, Map, Responder, Response};
pub use window::SummedArea;

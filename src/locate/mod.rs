//! Where the face is: response maps of a net that was trained on tags of whole images only (paper, section 2.1), and
//! the search for the window in which the response gathers.

mod cascade;
pub mod edge_boxes;
pub mod gpu;
mod response;
mod window;

pub use cascade::{Found, Localiser, Stage};
pub use response::{Map, Responder, Response};
pub use window::{Search, best_window};

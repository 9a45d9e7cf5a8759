//! Where a network runs. `auto` takes the best that is there and says so.

use crate::{Error, Result};
use std::str::FromStr;

/// A device that this build can run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Device {
    Cpu,
}

impl FromStr for Device {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "cpu" | "auto" => Ok(Self::Cpu),
            _ if text == "simt" || text == "cuda" || text.starts_with("simt:") || text.starts_with("cuda:") => {
                Err(Error::new(format!("--device {text}"), "this build has no GPU code").advise("use --device cpu"))
            }
            _ => Err(Error::new(format!("--device {text}"), "no such device").advise("use auto or cpu")),
        }
    }
}

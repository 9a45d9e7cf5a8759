//! Numbers on the command line: a value that is invalid on its own is incorrect usage, whatever the other arguments are.

use crate::data::photo::MAX_SIDE;
use clap::builder::RangedU64ValueParser;
use std::str::FromStr;

/// Longest side of an image that is only planned, not computed.
const PLANNED: usize = 100_000_000;

/// A count of at least one; whether it fits is determined later.
pub fn count() -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..)
}

/// 1 to `most`.
pub fn up_to(most: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(1..=most as u64)
}

/// 0 to `end`, exclusive.
pub fn below(end: usize) -> RangedU64ValueParser<usize> {
    RangedU64ValueParser::new().range(..end as u64)
}

/// Number of repetitions of a measurement.
pub fn runs() -> RangedU64ValueParser<usize> {
    up_to(100_000)
}

/// Stride between patches, in pixels.
pub fn stride() -> RangedU64ValueParser<usize> {
    up_to(PLANNED)
}

/// Height and width, written `300x200`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size {
    pub height: usize,
    pub width: usize,
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        within(text, MAX_SIDE as usize)
    }
}

/// Size of an image that is only planned, not computed.
pub fn planned(text: &str) -> Result<Size, String> {
    within(text, PLANNED)
}

fn within(text: &str, most: usize) -> Result<Size, String> {
    let (height, width) = text.split_once('x').ok_or("write height x width, as in 300x200")?;
    let side = |text: &str| match text.parse() {
        Ok(side) if (1..=most).contains(&side) => Ok(side),
        _ => Err(format!("`{text}` is no side: give 1 to {most} pixels")),
    };
    Ok(Size { height: side(height)?, width: side(width)? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bounded() {
        assert_eq!("300x200".parse(), Ok(Size { height: 300, width: 200 }));
        for text in ["", "300", "300by200", "0x2", "2x0", "-1x5", "16385x5", "1x99999999999999999999", "1x1x1", "1.5x2"]
        {
            assert!(text.parse::<Size>().is_err(), "{text}");
        }
        assert!(planned("100000x100000").is_ok() && planned("100000001x1").is_err());
    }
}

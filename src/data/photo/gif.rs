//! The size of a GIF's first frame, for which its decoder allocates memory before the size can be queried.

/// Width and height of the first frame; `None` if the file ends before it. A frame may be larger than the picture.
pub(super) fn first_frame(file: &[u8]) -> Option<(u32, u32)> {
    const SCREEN: usize = 13;
    let colours = |flags: u8| if flags & 0x80 != 0 { 3 << ((flags & 7) + 1) } else { 0 };
    let mut at = SCREEN + colours(*file.get(10)?);
    loop {
        match *file.get(at)? {
            // An extension: its kind, then length-prefixed blocks up to an empty one.
            0x21 => {
                at += 2;
                while *file.get(at)? != 0 {
                    at += 1 + usize::from(file[at]);
                }
                at += 1;
            }
            // A frame: left, top, width, height.
            0x2C => {
                let side = |from: usize| Some(u32::from(u16::from_le_bytes([*file.get(from)?, *file.get(from + 1)?])));
                return Some((side(at + 5)?, side(at + 7)?));
            }
            // The decoder skips unknown bytes one by one, up to the end.
            0x3B => return None,
            _ => at += 1,
        }
    }
}

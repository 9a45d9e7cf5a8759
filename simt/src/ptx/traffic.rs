//! What an access of a warp costs: sectors of global memory, passes through the banks of shared memory.

use super::warp::{WARP, lanes};

/// Bytes of a sector, the unit of all traffic beyond the first cache.
const SECTOR: u64 = 32;
/// Banks of shared memory, each a word of 4 bytes wide.
const BANKS: usize = 32;
const WORD: u64 = 4;
/// Bytes that all banks together give in one pass.
const PASS: usize = BANKS * WORD as usize;

/// Distinct sectors of `size` bytes at each address, and the fewest that as many distinct bytes could need.
#[inline]
pub(super) fn sectors(addresses: &[u64; WARP], size: usize, mask: u32) -> (u64, u64) {
    let mut starts = [0; WARP];
    let mut count = 0;
    let mut ordered = true;
    for lane in lanes(mask) {
        starts[count] = addresses[lane];
        ordered &= count == 0 || starts[count - 1] <= starts[count];
        count += 1;
    }
    let starts = &mut starts[..count];
    if !ordered {
        starts.sort_unstable();
    }
    let (mut touched, mut bytes, mut next_sector, mut next_byte) = (0, 0, 0, 0);
    for &start in starts.iter() {
        let end = start + size as u64;
        let (first, last) = (start / SECTOR, (end - 1) / SECTOR);
        touched += (last + 1).saturating_sub(first.max(next_sector));
        next_sector = next_sector.max(last + 1);
        bytes += end.saturating_sub(start.max(next_byte));
        next_byte = next_byte.max(end);
    }
    (touched, bytes.div_ceil(SECTOR))
}

/// Passes through the banks of accesses of `size` bytes at each address, and the fewest possible.
///
/// Lanes are served in groups that could fill all banks: 32 lanes of up to 4 bytes, 16 of 8, 8 of 16. Within a group, each
/// bank gives one word at a time; lanes that want the same word share it.
#[inline]
pub(super) fn wavefronts(addresses: &[u64; WARP], size: usize, mask: u32) -> (u64, u64) {
    let group = (PASS / size.max(WORD as usize)).min(WARP);
    let (mut passes, mut least) = (0, 0);
    for first in (0..WARP).step_by(group) {
        let members = mask & (((1u64 << group) - 1) << first) as u32;
        if members == 0 {
            continue;
        }
        least += 1;
        passes += passes_of_group(addresses, size, members);
    }
    (passes, least)
}

fn passes_of_group(addresses: &[u64; WARP], size: usize, members: u32) -> u64 {
    let mut words = [[0u64; WARP]; BANKS];
    let mut counts = [0usize; BANKS];
    for lane in lanes(members) {
        let first = addresses[lane] / WORD;
        let last = (addresses[lane] + size as u64 - 1) / WORD;
        for word in first..=last {
            let bank = word as usize % BANKS;
            let known = &words[bank][..counts[bank]];
            if !known.contains(&word) {
                words[bank][counts[bank]] = word;
                counts[bank] += 1;
            }
        }
    }
    counts.into_iter().max().unwrap_or_default() as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strided(stride: u64) -> [u64; WARP] {
        std::array::from_fn(|lane| 4096 + lane as u64 * stride)
    }

    #[test]
    fn sectors_of_strided_loads() {
        assert_eq!(sectors(&strided(4), 4, u32::MAX), (4, 4), "coalesced");
        assert_eq!(sectors(&strided(0), 4, u32::MAX), (1, 1), "one word for all");
        assert_eq!(sectors(&strided(32), 4, u32::MAX), (32, 4), "a sector each");
        assert_eq!(sectors(&strided(8), 4, u32::MAX), (8, 4), "every other word");
        assert_eq!(sectors(&strided(16), 16, u32::MAX), (16, 16), "16 bytes a lane");
        assert_eq!(sectors(&strided(4), 4, 0x0000_00ff), (1, 1), "eight lanes");
        let shifted = strided(4).map(|address| address + 4);
        assert_eq!(sectors(&shifted, 4, u32::MAX), (5, 4), "begins in the middle of a sector");
        let mut reversed = strided(4);
        reversed.reverse();
        assert_eq!(sectors(&reversed, 4, u32::MAX), (4, 4));
    }

    #[test]
    fn bank_conflicts_of_two_four_and_32_ways() {
        assert_eq!(wavefronts(&strided(4), 4, u32::MAX), (1, 1));
        assert_eq!(wavefronts(&strided(8), 4, u32::MAX), (2, 1));
        assert_eq!(wavefronts(&strided(16), 4, u32::MAX), (4, 1));
        assert_eq!(wavefronts(&strided(128), 4, u32::MAX), (32, 1));
        assert_eq!(wavefronts(&strided(132), 4, u32::MAX), (1, 1), "padded");
        assert_eq!(wavefronts(&strided(0), 4, u32::MAX), (1, 1), "one word for all");
        assert_eq!(wavefronts(&strided(2), 2, u32::MAX), (1, 1), "two lanes in a word");
        assert_eq!(wavefronts(&strided(8), 8, u32::MAX), (2, 2));
        assert_eq!(wavefronts(&strided(16), 16, u32::MAX), (4, 4));
        assert_eq!(wavefronts(&strided(128), 16, u32::MAX), (32, 4), "rows of 128 bytes in the same banks");
        assert_eq!(wavefronts(&strided(16), 16, 0xff), (1, 1), "a row of ldmatrix");
    }
}

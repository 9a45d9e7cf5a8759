//! How many blocks of a kernel a multiprocessor holds at a time: the rules of `cuda_occupancy.h`, by which the driver's own
//! occupancy functions count.

use super::cards::Limits;

const WARP: u32 = 32;
/// Most threads of a block, and most registers of a thread.
const BLOCK_THREADS: u32 = 1024;
const THREAD_REGISTERS: u32 = 255;
/// Registers are allocated per warp in multiples of so many, from one of so many equal parts of the register file.
const REGISTER_UNIT: u32 = 256;
const REGISTER_FILES: u32 = 4;

/// What a block takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Block {
    pub threads: u32,
    /// Registers of a thread; `None` if they are unknown, and then they limit nothing.
    pub registers: Option<u32>,
    /// Bytes of shared memory, static and dynamic.
    pub shared: u32,
}

/// What admits no further block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scarce {
    Threads,
    Registers,
    Shared,
    Blocks,
}

impl Scarce {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        ["threads", "registers", "shared memory", "blocks"][self as usize]
    }
}

/// What a multiprocessor holds.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Occupancy {
    /// Resident blocks; 0 if a block does not fit.
    pub blocks: u32,
    /// Resident warps.
    pub warps: u32,
    /// Resident warps relative to the most that there can be.
    pub share: f64,
    pub scarce: Scarce,
}

impl Occupancy {
    /// The occupancy of a multiprocessor by blocks of one kernel.
    pub fn of(block: Block, limits: &Limits) -> Self {
        let warps = block.threads.div_ceil(WARP).max(1);
        let by_threads = if block.threads > BLOCK_THREADS { 0 } else { limits.threads / WARP / warps };
        let counts = [
            (by_threads, Scarce::Threads),
            (block.registers.map_or(u32::MAX, |registers| by_registers(registers, warps, limits)), Scarce::Registers),
            (by_shared(block.shared, limits), Scarce::Shared),
            (limits.blocks, Scarce::Blocks),
        ];
        let (blocks, scarce) = counts.into_iter().min_by_key(|(blocks, _)| *blocks).unwrap_or((0, Scarce::Blocks));
        let resident = blocks * warps;
        Self { blocks, warps: resident, share: f64::from(resident * WARP) / f64::from(limits.threads), scarce }
    }
}

fn by_registers(registers: u32, warps: u32, limits: &Limits) -> u32 {
    let of_warp = (registers.max(1) * WARP).next_multiple_of(REGISTER_UNIT);
    // The hardware admits a block as if its warps were spread evenly over the files.
    let of_block = of_warp * warps.next_multiple_of(REGISTER_FILES);
    if registers > THREAD_REGISTERS || of_block > limits.registers {
        return 0;
    }
    limits.registers / REGISTER_FILES / of_warp * REGISTER_FILES / warps
}

fn by_shared(bytes: u32, limits: &Limits) -> u32 {
    let taken = (u64::from(bytes) + u64::from(limits.shared_reserved)).next_multiple_of(limits.shared_unit.into());
    match (bytes > limits.shared_per_block, taken) {
        (true, _) => 0,
        (false, 0) => u32::MAX,
        (false, taken) => (u64::from(limits.shared) / taken) as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::super::cards::Card;
    use super::*;

    /// Blocks, and what is scarce.
    fn of(card: &str, threads: u32, registers: u32, shared: u32) -> (u32, Scarce) {
        let registers = (registers > 0).then_some(registers);
        let found = Occupancy::of(Block { threads, registers, shared }, &Card::find(card).unwrap().limits);
        (found.blocks, found.scarce)
    }

    /// The values that NVIDIA's occupancy calculator shows.
    #[test]
    fn blocks_are_those_of_the_occupancy_calculator() {
        // 65,536 / (128 * 128) = 4.
        assert_eq!(of("h100", 128, 128, 0), (4, Scarce::Registers));
        // 164 registers are allocated as 168: 3 warps in each of four files of 16,384, 12 warps, 3 blocks.
        assert_eq!(of("h100", 128, 164, 0), (3, Scarce::Registers));
        assert_eq!(of("h100", 128, 203, 0), (2, Scarce::Registers));
        // 33 registers are allocated as 40: 12 warps in each file, 48 warps, 6 blocks of 8.
        assert_eq!(of("a100", 256, 33, 0), (6, Scarce::Registers));
        assert_eq!(of("a100", 256, 32, 0), (8, Scarce::Threads));
        assert_eq!(of("rtx4090", 256, 32, 0), (6, Scarce::Threads));
        assert_eq!(of("t4", 256, 32, 0), (4, Scarce::Threads));
        assert_eq!(of("h100", 32, 16, 0), (32, Scarce::Blocks));
        assert_eq!(of("t4", 32, 16, 0), (16, Scarce::Blocks));
        // 48 KB and the reserved one make 49: four of them in 228 KB, three in 164, two in 100.
        assert_eq!(of("h100", 128, 32, 48 << 10), (4, Scarce::Shared));
        assert_eq!(of("a100", 128, 32, 48 << 10), (3, Scarce::Shared));
        assert_eq!(of("l40s", 128, 32, 48 << 10), (2, Scarce::Shared));
        assert_eq!(of("t4", 128, 32, 48 << 10), (1, Scarce::Shared));
        // 227 KB is the most of one block.
        assert_eq!(of("h100", 128, 32, 227 << 10), (1, Scarce::Shared));
    }

    #[test]
    fn a_block_that_does_not_fit_has_no_occupancy() {
        assert_eq!(of("h100", 128, 32, (227 << 10) + 1), (0, Scarce::Shared));
        assert_eq!(of("h100", 1025, 32, 0), (0, Scarce::Threads));
        assert_eq!(of("h100", 1024, 65, 0), (0, Scarce::Registers));
    }

    #[test]
    fn unknown_registers_limit_nothing() {
        assert_eq!(of("h100", 128, 0, 0), (16, Scarce::Threads));
        let found =
            Occupancy::of(Block { threads: 96, registers: None, shared: 0 }, &Card::find("h100").unwrap().limits);
        assert_eq!((found.blocks, found.warps, found.share), (21, 63, 63.0 / 64.0));
    }
}

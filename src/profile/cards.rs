//! The GPUs that a profile is predicted for: what a multiprocessor executes in a cycle, what it has room for, and how fast
//! memory is.
//!
//! Sources, by the letters in the tables:
//! - **D** NVIDIA's datasheet of the card: clock, multiprocessors, memory.
//! - **W** NVIDIA's white paper of the architecture (Turing, GA100, GA102, Ada, GH100): lanes, tensor cores, sizes of caches.
//! - **G** CUDA C++ Programming Guide: "Throughput of Native Arithmetic Instructions" and "Technical Specifications per Compute
//!   Capability".
//! - **O** `cuda_occupancy.h` of the CUDA toolkit: granularities of allocation.
//! - **M** micro-benchmarks: Jia et al., *Dissecting the NVidia Turing T4 GPU via Microbenchmarking*, arXiv 1903.07486, and for Volta
//!   arXiv 1804.06826; Luo et al., *Benchmarking and Dissecting the Nvidia Hopper GPU Architecture*, arXiv 2402.13499. Their numbers
//!   are quoted from memory; look them up before you rely on one.
//! - **E** an estimate of ours from the above, measured by nobody on this card.

use crate::{Error, Result};

/// What a multiprocessor does in a cycle.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pipes {
    /// Instructions of warps that its schedulers issue.
    pub issue: f64,
    /// Lanes of f32 multiply-adds.
    pub fma: f64,
    /// Lanes of f64 multiply-adds.
    pub double: f64,
    /// Lanes of 32-bit integer arithmetic, logic and comparisons.
    pub integer: f64,
    /// Lanes of reciprocals, square roots and exponentials.
    pub special: f64,
    /// Lanes of loads and stores.
    pub load_store: f64,
    /// Bytes between the L1 cache and registers.
    pub l1: f64,
    /// Passes through the 32 banks of shared memory.
    pub shared: f64,
    /// Multiply-adds of dense products in f16 or bf16 with sums in f32 on tensor cores, by `mma.sync`.
    pub tensor_half: f64,
    /// The same in tf32; 0 where there is no such unit.
    pub tensor_tf32: f64,
    /// Bytes between the multiprocessor and the L2 cache.
    pub l2_port: f64,
}

/// What a multiprocessor has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// 32-bit registers.
    pub registers: u32,
    pub threads: u32,
    pub blocks: u32,
    /// Bytes of shared memory, and most of one block.
    pub shared: u32,
    pub shared_per_block: u32,
    /// Bytes of shared memory that the system takes from each block.
    pub shared_reserved: u32,
    /// Shared memory is allocated in multiples of so many bytes.
    pub shared_unit: u32,
}

/// A GPU.
#[derive(Debug, PartialEq)]
pub struct Card {
    /// Name on the command line.
    pub name: &'static str,
    pub title: &'static str,
    pub capability: [u32; 2],
    pub multiprocessors: u32,
    /// Highest clock of the multiprocessors, in Hz.
    pub clock: f64,
    /// Bytes per second of the L2 cache.
    pub l2: f64,
    /// Bytes of the L2 cache.
    pub l2_size: u64,
    /// Bytes per second of device memory.
    pub memory: f64,
    pub pipes: Pipes,
    pub limits: Limits,
}

/// Time from the end of a kernel to the first instruction of the next in a graph, in seconds (E: between 1 and 2 us on all of
/// these cards; a kernel of a single empty block takes about as long).
pub const LAUNCH: f64 = 1.5e-6;

/// issue W, fma G, double G, integer G, special G, load_store W, l1 M (64 bytes), shared G, tensor W: 8 cores of 64, l2_port E.
const TURING: Pipes = Pipes {
    issue: 4.0,
    fma: 64.0,
    double: 2.0,
    integer: 64.0,
    special: 16.0,
    load_store: 16.0,
    l1: 64.0,
    shared: 1.0,
    tensor_half: 512.0,
    tensor_tf32: 0.0,
    l2_port: 64.0,
};
/// As Turing; load_store W, l1 W, tensor W: 4 cores of 256, of 128 in tf32.
const AMPERE: Pipes =
    Pipes { double: 32.0, load_store: 32.0, l1: 128.0, tensor_half: 1024.0, tensor_tf32: 512.0, ..TURING };
/// As Ampere; fma G, double G, tensor W: 4 cores of 128. The white paper draws 16 lanes for loads and stores, but gives the L1 cache 128
/// bytes per cycle: 32 lanes of 4 bytes (E).
const ADA: Pipes = Pipes { fma: 128.0, double: 2.0, tensor_half: 512.0, tensor_tf32: 256.0, ..AMPERE };
/// Tensor cores of GeForce cards sum in f32 at half the rate (W).
const ADA_GEFORCE: Pipes = Pipes { tensor_half: 256.0, tensor_tf32: 128.0, ..ADA };
/// As Ampere; fma G, double G. Tensor W: 4 cores of 512, which `mma.sync` uses to 63 % at best (M): the rest takes `wgmma`.
const HOPPER: Pipes = Pipes {
    fma: 128.0,
    double: 64.0,
    tensor_half: HOPPER_MMA_SYNC * 2048.0,
    tensor_tf32: HOPPER_MMA_SYNC * 1024.0,
    ..AMPERE
};
const HOPPER_MMA_SYNC: f64 = 0.63;

const KIB: u32 = 1024;
/// All G; reserved and unit O.
const LIMITS_75: Limits = Limits {
    registers: 64 * KIB,
    threads: 1024,
    blocks: 16,
    shared: 64 * KIB,
    shared_per_block: 64 * KIB,
    shared_reserved: 0,
    shared_unit: 256,
};
const LIMITS_80: Limits = Limits {
    threads: 2048,
    blocks: 32,
    shared: 164 * KIB,
    shared_per_block: 163 * KIB,
    shared_reserved: KIB,
    shared_unit: 128,
    ..LIMITS_75
};
const LIMITS_89: Limits =
    Limits { threads: 1536, blocks: 24, shared: 100 * KIB, shared_per_block: 99 * KIB, ..LIMITS_80 };
const LIMITS_90: Limits = Limits { shared: 228 * KIB, shared_per_block: 227 * KIB, ..LIMITS_80 };

/// Clock, multiprocessors, memory and size of the L2 cache are D and W; l2 as noted.
pub const CARDS: [Card; 6] = [
    Card {
        name: "t4",
        title: "Tesla T4",
        capability: [7, 5],
        multiprocessors: 40,
        clock: 1.59e9,
        l2: 1.27e12, // M
        l2_size: 4 << 20,
        memory: 320e9,
        pipes: TURING,
        limits: LIMITS_75,
    },
    Card {
        name: "a100",
        title: "A100 SXM 80 GB",
        capability: [8, 0],
        multiprocessors: 108,
        clock: 1.41e9,
        l2: 4.9e12, // E: 2.3 times that of a V100 (W), which was measured at 2,155 GB/s (M)
        l2_size: 40 << 20,
        memory: 2.039e12,
        pipes: AMPERE,
        limits: LIMITS_80,
    },
    Card {
        name: "rtx4090",
        title: "GeForce RTX 4090",
        capability: [8, 9],
        multiprocessors: 128,
        clock: 2.52e9,
        l2: 4.3e12, // M: about 1,700 bytes per cycle
        l2_size: 72 << 20,
        memory: 1.008e12,
        pipes: ADA_GEFORCE,
        limits: LIMITS_89,
    },
    Card {
        name: "l40s",
        title: "L40S",
        capability: [8, 9],
        multiprocessors: 142,
        clock: 2.52e9,
        l2: 4.3e12, // E: the RTX 4090 has the same chip
        l2_size: 96 << 20,
        memory: 864e9,
        pipes: ADA,
        limits: LIMITS_89,
    },
    Card {
        name: "h100",
        title: "H100 SXM",
        capability: [9, 0],
        multiprocessors: 132,
        clock: 1.98e9,
        l2: 7.0e12, // E: about 4,000 bytes per cycle were measured on an H800 at 1.755 GHz (M)
        l2_size: 50 << 20,
        memory: 3.35e12,
        pipes: HOPPER,
        limits: LIMITS_90,
    },
    Card {
        name: "h200",
        title: "H200 SXM",
        capability: [9, 0],
        multiprocessors: 132,
        clock: 1.98e9,
        l2: 7.0e12, // E: the same chip as the H100
        l2_size: 50 << 20,
        memory: 4.8e12,
        pipes: HOPPER,
        limits: LIMITS_90,
    },
];

impl Card {
    /// The card of this name.
    ///
    /// # Errors
    /// There is none: the names that there are.
    pub fn find(name: &str) -> Result<&'static Self> {
        CARDS.iter().find(|card| card.name == name.to_ascii_lowercase()).ok_or_else(|| {
            let names: Vec<&str> = CARDS.iter().map(|card| card.name).collect();
            Error::new(format!("card {name}"), "no such card").advise(format!("use one of {}", names.join(", ")))
        })
    }

    /// The card of the table that a driver calls `NVIDIA GeForce RTX 4090` or `NVIDIA H100 80GB HBM3`.
    pub fn of_device(name: &str) -> Option<&'static Self> {
        let name = name.to_ascii_lowercase();
        let words: Vec<&str> = name.split([' ', '-']).collect();
        let is = |card: &Self| words.contains(&card.name) || words.windows(2).any(|pair| pair.concat() == card.name);
        CARDS.iter().find(|card| is(card))
    }

    /// Per second and device, for something that a multiprocessor does `per_cycle` times a cycle.
    pub fn rate(&self, per_cycle: f64) -> f64 {
        per_cycle * f64::from(self.multiprocessors) * self.clock
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_datasheets() {
        let near = |x: f64, y: f64| (x / y - 1.0).abs() < 0.02;
        let tera = |name: &str| {
            let card = Card::find(name).unwrap();
            [card.pipes.fma, card.pipes.tensor_half, card.pipes.tensor_tf32].map(|lanes| 2e-12 * card.rate(lanes))
        };
        for (name, [f32, half, tf32]) in [
            ("t4", [8.1, 65.0, 0.0]),
            ("a100", [19.5, 312.0, 156.0]),
            ("RTX4090", [82.6, 165.2, 82.6]),
            ("l40s", [91.6, 366.0, 183.0]),
        ] {
            let found = tera(name);
            assert!(near(found[0], f32) && near(found[1], half) && (tf32 == 0.0 || near(found[2], tf32)), "{name}");
        }
        // 1,070 TFLOP/s at this clock, 989 at the datasheet's; by `mma.sync` 63 % of it.
        assert!(near(tera("h100")[0], 66.9) && near(tera("h100")[1], 0.63 * 1070.0));
        let of = |name| Card::of_device(name).map(|card| card.name);
        let names = ["NVIDIA H100 80GB HBM3", "NVIDIA A100-SXM4-80GB", "NVIDIA GeForce RTX 4090", "NVIDIA T400"];
        assert_eq!(names.map(of), [Some("h100"), Some("a100"), Some("rtx4090"), None]);
        let error = Card::find("k80").unwrap_err().to_string();
        assert!(error.contains("card k80: no such card; use one of t4, a100"), "{error}");
    }
}

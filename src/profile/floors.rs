//! The least time of a launch on a card: for every unit that it uses, what it asks of the unit over what the unit does in a
//! second. The largest of these floors is the limiter, and with the cost of a launch it is the prediction.
//!
//! It is a model, and rests on counted PTX. Two things make it too short: nothing waits (latencies, barriers and dependences are
//! not in it), and all units work at the same time. Two can make it too long: PTX that the compiler merged or dropped beyond
//! [`machine_instructions`], and data that the L2 cache still holds from the launch before, which the floor of memory does not know.

use super::cards::{Card, LAUNCH};
use super::occupancy::{Block, Occupancy};
use crate::device::{Attributes, Launch};
use crate::{Error, Result};
use simt::ptx::{Class, Counts};

const WARP: f64 = 32.0;
const SECTOR: f64 = 32.0;

/// Machine instructions of a PTX instruction of a class in the mean, as far as this is known without the compiler's output.
pub fn machine_instructions(class: Class) -> f64 {
    match class {
        // Registers are renamed, and addresses and parameters become operands.
        Class::Move => 0.0,
        // Half of them change the type that a register is called by, or pack two values in one instruction.
        Class::Convert => 0.5,
        // A reciprocal or exponential, a scaling before and a correction after it.
        Class::Special => 4.0,
        Class::Division => 20.0,
        _ => 1.0,
    }
}

/// A unit that takes time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Schedulers: one instruction of a warp per cycle each.
    Issue,
    Fma,
    Double,
    Tensor,
    Special,
    Integer,
    /// Address lanes of loads and stores.
    LoadStore,
    L1,
    Shared,
    L2,
    Memory,
    /// The start of a kernel.
    Launch,
}

impl Unit {
    /// The name in tables and JSON.
    pub fn name(self) -> &'static str {
        [
            "issue",
            "fma",
            "double",
            "tensor",
            "special",
            "integer",
            "load_store",
            "l1",
            "shared",
            "l2",
            "memory",
            "launch",
        ][self as usize]
    }

    /// What it is asked for.
    pub fn counts(self) -> &'static str {
        match self {
            Self::Issue => "machine instructions of warps",
            Self::Fma | Self::Double | Self::Special | Self::Integer | Self::LoadStore => "instructions of warps",
            Self::Tensor => "multiply-adds",
            Self::Shared => "wavefronts",
            Self::L1 | Self::L2 | Self::Memory => "bytes",
            Self::Launch => "launches",
        }
    }
}

/// The least time that a launch keeps a unit busy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    pub unit: Unit,
    /// What the whole launch asks of the unit.
    pub amount: f64,
    /// What the units of the whole card do in a second.
    pub rate: f64,
    /// Time on the busiest multiprocessor, in seconds.
    pub seconds: f64,
}

/// A launch on a card.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    pub occupancy: Occupancy,
    /// Whether the registers of a thread are unknown, so that the occupancy does without them.
    pub ignores_registers: bool,
    /// Blocks over those that the card holds at a time.
    pub waves: f64,
    /// Work of the busiest multiprocessor over the mean: whole waves over waves, and where a single wave is not full, the most
    /// blocks of a multiprocessor over the mean. Applies to the units of a multiprocessor.
    pub imbalance: f64,
    /// In the order of [`Unit`], the launch last; those without work are left out.
    pub floors: Vec<Floor>,
    /// The largest floor plus the launch.
    pub seconds: f64,
}

impl Prediction {
    /// The largest floor; of equal ones the last.
    pub fn limiter(&self) -> Floor {
        let none = Floor { unit: Unit::Launch, amount: 1.0, rate: 1.0 / LAUNCH, seconds: LAUNCH };
        self.floors.iter().copied().max_by(|a, b| a.seconds.total_cmp(&b.seconds)).unwrap_or(none)
    }

    /// Predicts a launch of which `counts` are those of its whole grid. Traffic with memory is the launch's own
    /// [`Work`](crate::device::Work), each value read and written once: L2 caches keep repeated reads from memory.
    ///
    /// # Errors
    /// A block that does not fit on a multiprocessor of the card; products in a precision that the card has no tensor cores for.
    pub fn of(launch: &Launch, attributes: Option<Attributes>, counts: &Counts, card: &Card) -> Result<Self> {
        let refused = |found: String| Error::device(launch.describe(), found);
        let registers = attributes.map(|attributes| attributes.registers).filter(|registers| *registers > 0);
        let shared = launch.shared.saturating_add(attributes.map_or(0, |attributes| attributes.static_shared));
        let occupancy = Occupancy::of(Block { threads: launch.block, registers, shared }, &card.limits);
        if occupancy.blocks == 0 {
            let what =
                format!("no block fits on a multiprocessor of {}, for want of {}", card.title, occupancy.scarce.name());
            return Err(refused(what));
        }
        let blocks = launch.grid.iter().map(|n| f64::from(*n)).product::<f64>().max(1.0);
        let multiprocessors = f64::from(card.multiprocessors);
        let waves = blocks / (multiprocessors * f64::from(occupancy.blocks));
        let imbalance = if waves > 1.0 {
            waves.ceil() / waves
        } else {
            (blocks / multiprocessors).ceil() / (blocks / multiprocessors)
        };
        let pipes = &card.pipes;
        let tensor = if launch.kernel.ends_with("_tf32") { pipes.tensor_tf32 } else { pipes.tensor_half };
        if counts.tensor_fma > 0 && tensor == 0.0 {
            return Err(refused(format!("{} has no tensor cores for this precision", card.title)));
        }
        let of = |classes: &[Class]| {
            classes.iter().map(|&class| counts.of(class) as f64 * machine_instructions(class)).sum()
        };
        let issued = of(&Class::ALL);
        let memory = [
            Class::LoadGlobal,
            Class::StoreGlobal,
            Class::LoadShared,
            Class::StoreShared,
            Class::Local,
            Class::AsyncCopy,
            Class::LoadMatrix,
            Class::Atomic,
            Class::Exchange,
        ];
        let sectors = SECTOR * (counts.loads.sectors + counts.stores.sectors) as f64;
        let wavefronts = (counts.shared_loads.wavefronts + counts.shared_stores.wavefronts) as f64;
        let within = |unit, amount: f64, per_cycle: f64| {
            let rate = card.rate(per_cycle);
            Floor { unit, amount, rate, seconds: imbalance * amount / rate }
        };
        // Multiprocessors without a block move nothing.
        let ports = pipes.l2_port * card.clock * blocks.min(multiprocessors);
        let beyond = |unit, amount: f64, rate: f64| Floor {
            unit,
            amount,
            rate: rate.min(ports),
            seconds: amount / rate.min(ports),
        };
        let atomics = SECTOR * counts.atomics.sectors as f64;
        let floors = [
            within(Unit::Issue, issued, pipes.issue),
            within(Unit::Fma, of(&[Class::Float]), pipes.fma / WARP),
            within(Unit::Double, of(&[Class::Double]), pipes.double / WARP),
            within(Unit::Tensor, counts.tensor_fma as f64, tensor),
            within(Unit::Special, counts.of(Class::Special) as f64, pipes.special / WARP),
            // Some multiply-adds of integers run with those of floats; which, is the compiler's choice.
            within(Unit::Integer, of(&[Class::Integer, Class::Division, Class::Predicate]), pipes.integer / WARP),
            within(Unit::LoadStore, of(&memory), pipes.load_store / WARP),
            within(Unit::L1, sectors, pipes.l1),
            within(Unit::Shared, wavefronts, pipes.shared),
            beyond(Unit::L2, sectors + atomics, card.l2),
            beyond(Unit::Memory, launch.work.bytes as f64, card.memory),
        ];
        let mut floors: Vec<Floor> = floors.into_iter().filter(|floor| floor.amount > 0.0).collect();
        let busiest = floors.iter().map(|floor| floor.seconds).fold(0.0, f64::max);
        floors.push(Floor { unit: Unit::Launch, amount: 1.0, rate: 1.0 / LAUNCH, seconds: LAUNCH });
        Ok(Self {
            occupancy,
            ignores_registers: registers.is_none(),
            waves,
            imbalance,
            floors,
            seconds: LAUNCH + busiest,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use simt::ptx::Banks;

    fn counts(warps: &[(Class, u64)]) -> Counts {
        let mut counts = Counts::default();
        warps.iter().for_each(|&(class, count)| counts.warps[class as usize] = count);
        counts
    }

    fn launch(blocks: usize, bytes: u64) -> Launch {
        Launch::new("conv_forward_bf16", [blocks, 1, 1], 128, &0u32).work(0, bytes)
    }

    /// With 128 registers: four blocks of 128 threads on a multiprocessor.
    const KERNEL: Attributes = Attributes { registers: 128, static_shared: 0, local: 0, blocks_per_multiprocessor: 0 };

    fn on_h100(launch: &Launch, counts: &Counts) -> Prediction {
        Prediction::of(launch, Some(KERNEL), counts, Card::find("h100").unwrap()).unwrap()
    }

    fn seconds(prediction: &Prediction, unit: Unit) -> f64 {
        prediction.floors.iter().find(|floor| floor.unit == unit).map_or(0.0, |floor| floor.seconds)
    }

    fn near(x: f64, y: f64) -> bool {
        (x / y - 1.0).abs() < 1e-9
    }

    /// One block on each of the 132 multiprocessors.
    #[test]
    fn floors_are_work_over_rate() {
        let mut counts = counts(&[
            (Class::Float, 132 * 4_000),
            (Class::Move, 132 * 100_000),
            (Class::Convert, 132 * 800),
            (Class::Special, 132 * 100),
            (Class::Division, 132 * 10),
            (Class::LoadShared, 132 * 700),
        ]);
        counts.shared_loads = Banks { requests: 132 * 700, wavefronts: 132 * 3_000, conflicts: 0, bytes: 0 };
        counts.tensor_fma = 132 * 2048 * 2_000;
        counts.loads.sectors = 1_000_000;
        let found = on_h100(&launch(132, 16_000_000), &counts);
        let cycle = 1.0 / 1.98e9;
        assert_eq!((found.waves, found.imbalance, found.ignores_registers), (0.25, 1.0, false));
        for (unit, expected) in [
            // 4,000 + 400 + 400 + 200 + 700 machine instructions, four a cycle.
            (Unit::Issue, 1_425.0 * cycle),
            (Unit::Fma, 1_000.0 * cycle),
            (Unit::Special, 200.0 * cycle),
            (Unit::Integer, 100.0 * cycle),
            (Unit::LoadStore, 700.0 * cycle),
            (Unit::Tensor, 2_000.0 / 0.63 * cycle),
            (Unit::Shared, 3_000.0 * cycle),
            (Unit::L1, 32e6 / 132.0 / 128.0 * cycle),
            (Unit::L2, 32e6 / 7.0e12),
            (Unit::Memory, 16e6 / 3.35e12),
            (Unit::Double, 0.0),
        ] {
            let is = seconds(&found, unit);
            assert!(is == expected || near(is, expected), "{}: {is}, not {expected}", unit.name());
        }
        assert_eq!(found.limiter().unit, Unit::Memory);
        assert!(near(found.seconds, LAUNCH + 16e6 / 3.35e12));
    }

    #[test]
    fn a_last_wave_that_is_not_full_takes_as_long_as_a_full_one() {
        let counts = counts(&[(Class::Float, 792 * 1_000_000)]);
        let found = on_h100(&launch(792, 0), &counts);
        assert_eq!((found.waves, found.imbalance, found.limiter().unit), (1.5, 2.0 / 1.5, Unit::Fma));
        assert!(near(found.limiter().seconds, 2.0 / 1.5 * 6.0 * 1e6 / 4.0 / 1.98e9));
        // 140 blocks of a single wave: two on some multiprocessors.
        assert!(near(on_h100(&launch(140, 0), &counts).imbalance, 2.0 * 132.0 / 140.0));
    }

    #[test]
    fn few_blocks_have_few_multiprocessors_and_ports() {
        let found = on_h100(&launch(13, 1_000_000), &counts(&[(Class::Float, 13 * 4_000)]));
        assert!(near(seconds(&found, Unit::Fma), 1_000.0 / 1.98e9));
        assert!(near(seconds(&found, Unit::Memory), 1e6 / (13.0 * 64.0 * 1.98e9)));
        let nothing = on_h100(&launch(1, 0), &Counts::default());
        assert_eq!((nothing.limiter().unit, nothing.seconds), (Unit::Launch, LAUNCH));
    }

    #[test]
    fn what_a_card_cannot_run_is_refused() {
        let t4 = Card::find("t4").unwrap();
        let large = launch(1, 0).shared(65 << 10);
        let error = Prediction::of(&large, None, &Counts::default(), t4).unwrap_err().to_string();
        assert!(error.contains("no block fits on a multiprocessor of Tesla T4, for want of shared memory"), "{error}");
        let tf32 = Launch { kernel: "gemm_nt_tf32".into(), ..launch(1, 0) };
        let counts = Counts { tensor_fma: 1, ..Counts::default() };
        let error = Prediction::of(&tf32, None, &counts, t4).unwrap_err().to_string();
        assert!(error.contains("no tensor cores for this precision"), "{error}");
        assert!(Prediction::of(&tf32, None, &counts, Card::find("a100").unwrap()).unwrap().ignores_registers);
    }
}

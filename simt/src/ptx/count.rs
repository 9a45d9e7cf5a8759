//! What a launch executed: the counters that Nsight Compute shows, for the whole launch and for each source line.
//!
//! Instructions are PTX instructions, executed by a warp (`warps`, ncu's `inst_executed`) and by threads (`lanes`,
//! `thread_inst_executed`). ptxas turns most of them into one machine instruction; the classes [`Class::Move`] and
//! [`Class::Convert`] often vanish, address sums are folded into loads, and a division becomes several.

use std::ops::AddAssign;

/// What an instruction does, by the pipe that executes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Class {
    /// f32 sums, products and multiply-adds (FFMA, FADD, FMUL).
    Float,
    /// f64 arithmetic.
    Double,
    /// Reciprocals, square roots, exponentials and divisions of floats (MUFU and what surrounds it).
    Special,
    /// Integer arithmetic, shifts and logic.
    Integer,
    /// Integer division and remainder: twenty machine instructions or more each.
    Division,
    /// Conversions between types.
    Convert,
    /// Moves, address conversions, loads of parameters.
    Move,
    /// Comparisons, selections and logic on predicates.
    Predicate,
    /// Branches and returns.
    Branch,
    /// Loads from global memory (LDG).
    LoadGlobal,
    /// Stores to global memory (STG).
    StoreGlobal,
    /// Loads from shared memory (LDS).
    LoadShared,
    /// Stores to shared memory (STS).
    StoreShared,
    /// Loads and stores of local memory (LDL, STL).
    Local,
    /// Asynchronous copies from global to shared memory (LDGSTS).
    AsyncCopy,
    /// Loads of matrix fragments (LDSM).
    LoadMatrix,
    /// Products of matrices on tensor cores (HMMA).
    Tensor,
    /// Atomics and reductions on memory.
    Atomic,
    /// Exchanges within a warp: shuffles and votes.
    Exchange,
    /// Barriers, fences, waits for asynchronous copies.
    Barrier,
}

impl Class {
    /// All of them, in the order of [`Counts::warps`].
    pub const ALL: [Class; 20] = [
        Class::Float,
        Class::Double,
        Class::Special,
        Class::Integer,
        Class::Division,
        Class::Convert,
        Class::Move,
        Class::Predicate,
        Class::Branch,
        Class::LoadGlobal,
        Class::StoreGlobal,
        Class::LoadShared,
        Class::StoreShared,
        Class::Local,
        Class::AsyncCopy,
        Class::LoadMatrix,
        Class::Tensor,
        Class::Atomic,
        Class::Exchange,
        Class::Barrier,
    ];

    /// The name in tables and JSON: `load_global`.
    pub fn name(self) -> &'static str {
        [
            "float",
            "double",
            "special",
            "integer",
            "division",
            "convert",
            "move",
            "predicate",
            "branch",
            "load_global",
            "store_global",
            "load_shared",
            "store_shared",
            "local",
            "async_copy",
            "load_matrix",
            "tensor",
            "atomic",
            "exchange",
            "barrier",
        ][self as usize]
    }
}

/// Accesses of warps to global memory, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Instructions with at least one active lane.
    pub requests: u64,
    /// Sectors of 32 bytes that they touch.
    pub sectors: u64,
    /// The fewest sectors that as many bytes need.
    pub least_sectors: u64,
    /// Bytes that the threads ask for.
    pub bytes: u64,
}

/// Accesses of warps to shared memory, in one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Banks {
    /// Instructions with at least one active lane.
    pub requests: u64,
    /// Passes through the 32 banks.
    pub wavefronts: u64,
    /// Those of them that another arrangement of the addresses would save: bank conflicts.
    pub conflicts: u64,
    /// Bytes that the threads ask for.
    pub bytes: u64,
}

/// Counters of a launch, or of a source line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Instructions executed by warps, per [`Class`].
    pub warps: [u64; Class::ALL.len()],
    /// Instructions executed by threads, per [`Class`]; without those whose predicate was false.
    pub lanes: [u64; Class::ALL.len()],
    /// Conditional branches, and those whose active lanes disagreed.
    pub branches: u64,
    pub divergent: u64,
    /// Loads from global memory, `cp.async` included.
    pub loads: Traffic,
    /// Stores to global memory.
    pub stores: Traffic,
    /// Atomics on global memory.
    pub atomics: Traffic,
    /// Reads of shared memory, `ldmatrix` included.
    pub shared_loads: Banks,
    /// Writes of shared memory, `cp.async` included.
    pub shared_stores: Banks,
    /// Multiply-adds on tensor cores.
    pub tensor_fma: u64,
}

impl Counts {
    /// Instructions executed by warps.
    pub fn instructions(&self) -> u64 {
        self.warps.iter().sum()
    }

    /// Instructions executed by threads.
    pub fn thread_instructions(&self) -> u64 {
        self.lanes.iter().sum()
    }

    /// Active lanes of an instruction in the mean, at most 32.
    pub fn active_lanes(&self) -> f64 {
        self.thread_instructions() as f64 / self.instructions().max(1) as f64
    }

    /// Instructions of a class executed by warps.
    pub fn of(&self, class: Class) -> u64 {
        self.warps[class as usize]
    }

    /// Bank conflicts in both directions.
    pub fn bank_conflicts(&self) -> u64 {
        self.shared_loads.conflicts + self.shared_stores.conflicts
    }

    /// Everything times `by`: from a sample of blocks to the whole grid.
    pub fn scaled(&self, by: f64) -> Counts {
        let scale = |n: u64| (n as f64 * by).round() as u64;
        let traffic = |t: Traffic| Traffic {
            requests: scale(t.requests),
            sectors: scale(t.sectors),
            least_sectors: scale(t.least_sectors),
            bytes: scale(t.bytes),
        };
        let banks = |b: Banks| Banks {
            requests: scale(b.requests),
            wavefronts: scale(b.wavefronts),
            conflicts: scale(b.conflicts),
            bytes: scale(b.bytes),
        };
        Counts {
            warps: self.warps.map(scale),
            lanes: self.lanes.map(scale),
            branches: scale(self.branches),
            divergent: scale(self.divergent),
            loads: traffic(self.loads),
            stores: traffic(self.stores),
            atomics: traffic(self.atomics),
            shared_loads: banks(self.shared_loads),
            shared_stores: banks(self.shared_stores),
            tensor_fma: scale(self.tensor_fma),
        }
    }
}

impl AddAssign<&Traffic> for Traffic {
    fn add_assign(&mut self, other: &Traffic) {
        self.requests += other.requests;
        self.sectors += other.sectors;
        self.least_sectors += other.least_sectors;
        self.bytes += other.bytes;
    }
}

impl AddAssign<&Banks> for Banks {
    fn add_assign(&mut self, other: &Banks) {
        self.requests += other.requests;
        self.wavefronts += other.wavefronts;
        self.conflicts += other.conflicts;
        self.bytes += other.bytes;
    }
}

impl AddAssign<&Counts> for Counts {
    fn add_assign(&mut self, other: &Counts) {
        self.warps.iter_mut().zip(other.warps).for_each(|(sum, n)| *sum += n);
        self.lanes.iter_mut().zip(other.lanes).for_each(|(sum, n)| *sum += n);
        self.branches += other.branches;
        self.divergent += other.divergent;
        self.loads += &other.loads;
        self.stores += &other.stores;
        self.atomics += &other.atomics;
        self.shared_loads += &other.shared_loads;
        self.shared_stores += &other.shared_stores;
        self.tensor_fma += other.tensor_fma;
    }
}

/// What one source line executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineCounts {
    /// File name without its folder.
    pub file: String,
    /// From 1; 0 if unknown.
    pub line: u32,
    pub counts: Counts,
}

/// The counters of a launch.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Of the blocks that ran.
    pub total: Counts,
    /// By source line, in the order of file and line; their sum is `total`.
    pub lines: Vec<LineCounts>,
    /// Blocks that ran, of how many there are: fewer where a sample was asked for.
    pub blocks: [u64; 2],
}

impl Counted {
    /// The counters of all blocks, as far as the sample stands for them.
    pub fn whole(&self) -> Counts {
        let [ran, all] = self.blocks;
        if ran == all { self.total } else { self.total.scaled(all as f64 / ran.max(1) as f64) }
    }
}

impl AddAssign<&Counted> for Counted {
    /// Adds the counters of another launch; those of the same line become one.
    fn add_assign(&mut self, other: &Counted) {
        self.total += &other.total;
        for line in &other.lines {
            match self.lines.binary_search_by(|own| (&own.file, own.line).cmp(&(&line.file, line.line))) {
                Ok(at) => self.lines[at].counts += &line.counts,
                Err(at) => self.lines.insert(at, line.clone()),
            }
        }
        self.blocks = [0, 1].map(|of| self.blocks[of] + other.blocks[of]);
    }
}

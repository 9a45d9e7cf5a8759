//! Executes a block: its warps one after the other, each until it waits at a barrier or ends.
//!
//! The lanes of a warp run together. Where a branch divides them, the ones that jump run first, until both parts meet at the
//! branch's post-dominator; a stack of masks keeps those that wait.

use super::alu::File;
use super::count::{Banks, Class, Counts, Traffic};
use super::decode::{
    Address, Base, Change, Code, Elements, Inst, Logic, Op, SHARED_WINDOW, Shuffle, Space, Special, Vote, WINDOWS,
};
use super::flow::END;
use super::spaces::{Bug, Fault, Memory, Request, poison};
use super::tensor;
use super::traffic::{sectors, wavefronts};
use super::warp::{Reg, WARP, Warp, lanes};
use crate::check::Access;
use crate::finding::{Kind, Problem};
use crate::launch::Launch;
use std::ops::AddAssign;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::SeqCst};

/// What one instruction of a kernel has cost so far.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally {
    pub warps: u64,
    pub lanes: u64,
    pub divergent: u64,
    /// Conditional branches; accesses of global memory.
    pub requests: u64,
    pub sectors: u64,
    pub least_sectors: u64,
    pub bytes: u64,
    /// Accesses of shared memory.
    pub shared_requests: u64,
    pub wavefronts: u64,
    pub least_wavefronts: u64,
    pub shared_bytes: u64,
}

impl AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        self.warps += other.warps;
        self.lanes += other.lanes;
        self.divergent += other.divergent;
        self.sectors += other.sectors;
        self.least_sectors += other.least_sectors;
        self.wavefronts += other.wavefronts;
        self.least_wavefronts += other.least_wavefronts;
        self.requests += other.requests;
        self.bytes += other.bytes;
        self.shared_requests += other.shared_requests;
        self.shared_bytes += other.shared_bytes;
    }
}

impl Tally {
    /// As counters of an instruction of this class.
    pub fn counts(&self, class: Class, op: &Op) -> Counts {
        let mut counts = Counts::default();
        counts.warps[class as usize] = self.warps;
        counts.lanes[class as usize] = self.lanes;
        let &Tally { requests, sectors, least_sectors, bytes, wavefronts, .. } = self;
        let traffic = Traffic { requests, sectors, least_sectors, bytes };
        let conflicts = wavefronts - self.least_wavefronts;
        let banks = Banks { requests: self.shared_requests, wavefronts, conflicts, bytes: self.shared_bytes };
        match op {
            Op::Branch { .. } => (counts.branches, counts.divergent) = (requests, self.divergent),
            Op::CopyAsync { .. } => (counts.loads, counts.shared_stores) = (traffic, banks),
            Op::Load { .. } | Op::LoadMatrix { .. } => (counts.loads, counts.shared_loads) = (traffic, banks),
            Op::Store { .. } => (counts.stores, counts.shared_stores) = (traffic, banks),
            Op::Atomic { .. } => (counts.atomics, counts.shared_stores) = (traffic, banks),
            Op::Product { product, .. } => counts.tensor_fma = self.warps * (16 * 8 * product.depth()) as u64,
            _ => {}
        }
        counts
    }
}

/// Lanes that wait, or run, until they reach `meet`.
#[derive(Clone, Copy)]
struct Frame {
    pc: u32,
    meet: u32,
    mask: u32,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready,
    /// At the barrier of this number, for so many threads.
    Waiting(u32, u32),
    Ended,
}

/// A `cp.async` of one lane that has not been waited for.
struct Flight {
    lane: u8,
    bytes: u8,
    given: u8,
    /// The number of the group that it belongs to.
    group: u32,
    from: *const u8,
    to: *mut u8,
}

struct Running {
    warp: Warp,
    stack: Vec<Frame>,
    /// Lanes that exist and have not ended.
    alive: u32,
    state: State,
    copies: Vec<Flight>,
    /// Groups that each lane has committed.
    groups: [u32; WARP],
    local: Vec<u8>,
}

/// Executes blocks of one launch, on one thread of the operating system.
pub(super) struct Machine<'a> {
    code: &'a Code,
    launch: &'a Launch,
    pub memory: Memory<'a>,
    pub tally: Vec<Tally>,
    warps: Vec<Running>,
    threads: u32,
    seed: Option<u64>,
}

/// Why a warp stopped.
enum Stop {
    Barrier,
    End,
}

type Outcome<T> = Result<T, Fault>;

impl<'a> Machine<'a> {
    pub fn new(code: &'a Code, launch: &'a Launch, memory: Memory<'a>) -> Self {
        let threads: u32 = launch.block.0.iter().product();
        let warps = (0..threads.div_ceil(WARP as u32)).map(|_| Running {
            warp: Warp::default(),
            stack: Vec::new(),
            alive: 0,
            state: State::Ended,
            copies: Vec::new(),
            groups: [0; WARP],
            local: Vec::new(),
        });
        Machine {
            code,
            launch,
            memory,
            tally: vec![Tally::default(); code.insts.len()],
            warps: warps.collect(),
            threads,
            seed: None,
        }
    }

    pub fn block(&mut self, index: usize) -> Result<(), Bug> {
        self.begin(index);
        let mut order: Vec<usize> = (0..self.warps.len()).collect();
        loop {
            if self.seed.is_some() {
                for last in (1..order.len()).rev() {
                    order.swap(last, random(&mut self.seed) as usize % (last + 1));
                }
            }
            for &index in &order {
                if self.warps[index].state == State::Ready {
                    self.run(index)?;
                }
            }
            if self.warps.iter().all(|warp| warp.state == State::Ended) {
                break;
            }
            self.release()?;
        }
        self.memory.suspicion.take().map_or(Ok(()), Err)
    }

    fn begin(&mut self, index: usize) {
        let [gx, gy, _] = self.launch.grid.0.map(|n| n as usize);
        let block = [index % gx, index / gx % gy, index / gx / gy].map(|n| n as u32);
        self.seed =
            self.launch.seed.map(|seed| (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (index as u64) << 20 | 1);
        self.memory.begin_block();
        if let Some(checker) = &mut self.memory.checker {
            checker.begin_block(index);
        }
        let (size, grid) = (self.launch.block.0, self.launch.grid.0);
        let warps = self.warps.len() as u32;
        for (number, running) in self.warps.iter_mut().enumerate() {
            let first = number as u32 * WARP as u32;
            let there = (self.threads - first).min(WARP as u32);
            running.alive = (u64::MAX >> (64 - there)) as u32;
            running.state = State::Ready;
            running.stack.clear();
            running.stack.push(Frame { pc: 0, meet: END, mask: running.alive });
            running.copies.clear();
            running.groups = [0; WARP];
            running.local.clear();
            running.local.resize(self.code.local_bytes * WARP, 0xff);
            running.warp.begin(&self.code.files);
            for &(special, register) in &self.code.specials {
                let value = |lane: usize| {
                    let (thread, bit) = (first + lane as u32, 1u32 << lane);
                    match special {
                        Special::Thread(0) => thread % size[0],
                        Special::Thread(1) => thread / size[0] % size[1],
                        Special::Thread(_) => thread / size[0] / size[1],
                        Special::Threads(axis) => size[axis],
                        Special::Block(axis) => block[axis],
                        Special::Blocks(axis) => grid[axis],
                        Special::Lane => lane as u32,
                        Special::Warp => number as u32,
                        Special::Warps => warps,
                        Special::Equal => bit,
                        Special::Less => bit - 1,
                        Special::LessEqual => bit | (bit - 1),
                        Special::Greater => !(bit | (bit - 1)),
                        Special::GreaterEqual => !(bit - 1),
                    }
                };
                running.warp.set_word(register, u32::MAX, &std::array::from_fn(value));
            }
        }
    }

    /// Lets the warps go on that wait at a barrier which all its threads have reached.
    fn release(&mut self) -> Result<(), Bug> {
        let mut released = false;
        let waiting: Vec<(u32, u32)> = self.warps.iter().filter_map(|warp| warp.state.waiting()).collect();
        for &(id, expected) in &waiting {
            let at = |running: &Running| running.state.waiting().is_some_and(|(found, _)| found == id);
            let arrived: u32 = self.warps.iter().filter(|warp| at(warp)).map(|warp| warp.alive.count_ones()).sum();
            if arrived == expected {
                self.warps.iter_mut().filter(|warp| at(warp)).for_each(|warp| warp.state = State::Ready);
                released = true;
            }
        }
        if released {
            if let Some(checker) = &mut self.memory.checker {
                checker.barrier();
            }
            return Ok(());
        }
        let number = self.warps.iter().position(|warp| warp.state.waiting().is_some()).unwrap_or_default();
        let running = &self.warps[number];
        let (id, expected) = running.state.waiting().unwrap_or_default();
        let alive: u32 = self.warps.iter().map(|warp| warp.alive.count_ones()).sum();
        let arrived: u32 = self.warps.iter().filter(|w| w.state == running.state).map(|w| w.alive.count_ones()).sum();
        let detail = format!(
            "{arrived} threads wait at barrier {id} for {expected}; {} ended, {} are elsewhere",
            self.threads - alive,
            alive - arrived
        );
        let pc = running.stack.last().map_or(END, |frame| frame.pc.saturating_sub(1));
        let thread = (number * WARP) as u32 + running.alive.trailing_zeros() % 32;
        Err(Bug { pc, thread, problem: Problem::new(Kind::DivergentBarrier, detail) })
    }

    fn run(&mut self, index: usize) -> Result<(), Bug> {
        std::mem::swap(&mut self.memory.local, &mut self.warps[index].local);
        let mut step = Step {
            code: self.code,
            memory: &mut self.memory,
            tally: &mut self.tally,
            running: &mut self.warps[index],
            first_thread: (index * WARP) as u32,
            threads: self.threads,
            seed: &mut self.seed,
            pc: 0,
        };
        // SAFETY: a launch has asked `has_vectors`.
        let outcome = unsafe { step.run_with_vectors() };
        let pc = step.pc;
        let running = &mut self.warps[index];
        std::mem::swap(&mut self.memory.local, &mut running.local);
        match outcome {
            Ok(Stop::End) => {
                running.state = State::Ended;
                Ok(())
            }
            Ok(Stop::Barrier) => Ok(()),
            Err((lane, problem)) => Err(Bug { pc, thread: (index * WARP + lane) as u32, problem }),
        }
    }
}

impl State {
    fn waiting(self) -> Option<(u32, u32)> {
        match self {
            State::Waiting(id, threads) => Some((id, threads)),
            _ => None,
        }
    }
}

/// Whether this processor has the vector instructions that the engine is compiled for.
#[cfg(target_arch = "x86_64")]
pub(super) fn has_vectors() -> bool {
    is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")
}

#[cfg(not(target_arch = "x86_64"))]
pub(super) fn has_vectors() -> bool {
    true
}

/// The next number of a generator that a seed started (xorshift64).
fn random(seed: &mut Option<u64>) -> u64 {
    let Some(state) = seed else { return 0 };
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    *state >> 11
}

/// A warp that runs.
struct Step<'m, 'a> {
    code: &'a Code,
    memory: &'m mut Memory<'a>,
    tally: &'m mut [Tally],
    running: &'m mut Running,
    first_thread: u32,
    threads: u32,
    seed: &'m mut Option<u64>,
    /// Of the instruction that runs, for reports.
    pc: u32,
}

impl Step<'_, '_> {
    /// Compiled for AVX2 and FMA only: a second copy of all this for older processors would double the time to compile it.
    ///
    /// # Safety
    /// The processor has these instructions: [`has_vectors`].
    #[cfg_attr(target_arch = "x86_64", target_feature(enable = "avx2,fma"))]
    unsafe fn run_with_vectors(&mut self) -> Outcome<Stop> {
        self.run()
    }

    #[inline(always)]
    fn run(&mut self) -> Outcome<Stop> {
        loop {
            let Some(frame) = self.running.stack.last_mut() else { return Ok(Stop::End) };
            let active = frame.mask & self.running.alive;
            if active == 0 || frame.pc == frame.meet {
                self.running.stack.pop();
                continue;
            }
            let pc = frame.pc;
            frame.pc += 1;
            self.pc = pc;
            let inst = &self.code.insts[pc as usize];
            let mask = match inst.guard {
                None => active,
                Some((register, negated)) => {
                    let bits = self.running.warp.predicate(register);
                    self.defined(active)?;
                    active & if negated { !bits } else { bits }
                }
            };
            let tally = &mut self.tally[pc as usize];
            tally.warps += 1;
            tally.lanes += u64::from(mask.count_ones());
            if (mask != 0 || matches!(inst.op, Op::Branch { .. }))
                && let Some(stop) = self.execute(inst, mask, active)?
            {
                return Ok(stop);
            }
            self.defined(mask)?;
        }
    }

    /// Fails if the instruction has read, in one of these lanes, a register that was never written.
    #[inline(always)]
    fn defined(&mut self, mask: u32) -> Outcome<()> {
        let undefined = std::mem::take(&mut self.running.warp.undefined) & mask;
        if undefined == 0 {
            return Ok(());
        }
        let problem = Problem::new(Kind::UninitialisedRegister, "reads a register that nothing has been written to");
        Err((undefined.trailing_zeros() as usize, problem))
    }

    #[inline(always)]
    fn execute(&mut self, inst: &Inst, mask: u32, active: u32) -> Outcome<Option<Stop>> {
        let warp = &mut self.running.warp;
        match inst.op {
            Op::Compute { alu, to, from, approximate } => {
                if inst.class == Class::Division {
                    self.check_divisor(from[1], mask, alu)?;
                }
                self.running.warp.compute(alu, to, from, mask);
                if approximate && self.seed.is_some() {
                    self.nudge(to, mask);
                }
            }
            Op::Logic { logic, to, a, b } => {
                let (a, b) = (warp.predicate(a), warp.predicate(b));
                let bits = match logic {
                    Logic::And => a & b,
                    Logic::Or => a | b,
                    Logic::Xor => a ^ b,
                    Logic::Not => !a,
                    Logic::Move => a,
                };
                warp.set_predicate(to, mask, bits);
            }
            Op::Pack { to, file, from } => {
                let bits = 8 * from.bytes as u32;
                let mut out = [0u64; WARP];
                for (index, register) in from.registers[..from.count].iter().enumerate() {
                    let part = wide(warp, *register, from.file);
                    for (out, part) in out.iter_mut().zip(part) {
                        *out |= (part & (u64::MAX >> (64 - bits))) << (index as u32 * bits);
                    }
                }
                // nvcc pads a value to 64 bits with a register that it never writes, and reads the lower half only.
                warp.undefined = 0;
                set_wide(warp, to, file, mask, &out);
            }
            Op::Unpack { to, from, file } => {
                let bits = 8 * to.bytes as u32;
                let whole = wide(warp, from, file);
                for (index, register) in to.registers[..to.count].iter().enumerate() {
                    let part = whole.map(|whole| whole >> (index as u32 * bits) & (u64::MAX >> (64 - bits)));
                    set_wide(warp, *register, to.file, mask, &part);
                }
            }
            Op::ToGeneric { to, from, window } => {
                let from = warp.double(from);
                warp.set_double(to, mask, &from.map(|address| address | window));
            }
            Op::FromGeneric { to, from, window } => {
                let from = warp.double(from);
                let strip = if window == 0 { 0 } else { WINDOWS };
                warp.set_double(to, mask, &from.map(|address| address & !strip));
            }
            Op::Load { space, to, address } => self.load(space, &to, address, mask)?,
            Op::Store { space, from, address } => self.store(space, &from, address, mask)?,
            Op::Atomic { space, change, to, file, address, value, other } => {
                self.atomic(space, change, to, file, address, [value, other], mask)?;
            }
            Op::CopyAsync { to, from, bytes, given } => self.copy_async(to, from, bytes, given, mask)?,
            Op::Commit => {
                lanes(mask).for_each(|lane| self.running.groups[lane] += 1);
            }
            Op::WaitCopies(left) => self.wait_copies(left, mask),
            Op::LoadMatrix { count, transposed, to, address } => {
                self.all_lanes(active, mask, "ldmatrix")?;
                self.load_matrix(count, transposed, to, address)?;
            }
            Op::Product { product, to, a, b, c } => {
                self.all_lanes(active, mask, "mma")?;
                let warp = &mut self.running.warp;
                let (left, right) = product.registers();
                let mut word = |register: Reg, used: bool| if used { warp.word(register) } else { [0; WARP] };
                let a = std::array::from_fn(|index| word(a[index], index < left));
                let b = std::array::from_fn(|index| word(b[index], index < right));
                let c = c.map(|register| word(register, true));
                let sums = tensor::multiply(product, &a, &b, &c);
                for (register, sums) in to.iter().zip(&sums) {
                    self.running.warp.set_word(*register, mask, sums);
                }
            }
            Op::Shuffle { shuffle, to, valid, from, by, clamp, members } => {
                let values = warp.word(from);
                let (by, clamp) = (warp.word(by), warp.word(clamp));
                let members = warp.word(members);
                self.check_members(&members, mask)?;
                let (mut out, mut found) = (values, 0u32);
                for lane in lanes(mask) {
                    let (source, is_valid) = source_lane(shuffle, lane as u32, by[lane], clamp[lane]);
                    if mask & members[lane] & 1u32.wrapping_shl(source) == 0 {
                        let detail = format!("a shuffle reads lane {source}, which takes no part");
                        return Err((lane, Problem::new(Kind::BadWarpMask, detail)));
                    }
                    out[lane] = values[source as usize];
                    found |= u32::from(is_valid) << lane;
                }
                let warp = &mut self.running.warp;
                warp.set_word(to, mask, &out);
                if let Some(valid) = valid {
                    warp.set_predicate(valid, mask, found);
                }
            }
            Op::Vote { vote, to, from, negated, members } => {
                let bits = warp.predicate(from) ^ if negated { u32::MAX } else { 0 };
                let members = warp.word(members);
                self.check_members(&members, mask)?;
                let warp = &mut self.running.warp;
                let all = |yes: bool| if yes { u32::MAX } else { 0 };
                for group in groups(&members, mask) {
                    let ones = bits & group;
                    match vote {
                        Vote::Ballot => warp.set_word(to, group, &[ones; WARP]),
                        Vote::All => warp.set_predicate(to, group, all(ones == group)),
                        Vote::Any => warp.set_predicate(to, group, all(ones != 0)),
                        Vote::Uniform => warp.set_predicate(to, group, all(ones == group || ones == 0)),
                    }
                }
            }
            Op::ActiveMask { to } => warp.set_word(to, mask, &[active; WARP]),
            Op::Branch { target, meet } => self.branch(target, meet, mask, active, inst.guard.is_some()),
            Op::Exit => {
                self.running.alive &= !mask;
                if self.running.alive == 0 {
                    return Ok(Some(Stop::End));
                }
            }
            Op::Barrier { id, threads } => {
                let lane = mask.trailing_zeros() as usize;
                let id = warp.word(id)[lane];
                let threads = threads.map_or(self.threads, |threads| warp.word(threads)[lane]);
                if mask != self.running.alive {
                    let (here, there) = (mask.count_ones(), (self.running.alive & !mask).count_ones());
                    let detail = format!("{here} threads of a warp wait at barrier {id}, {there} are elsewhere");
                    return Err((lane, Problem::new(Kind::DivergentBarrier, detail)));
                }
                self.running.state = State::Waiting(id, threads);
                return Ok(Some(Stop::Barrier));
            }
            Op::SyncWarp { members } => {
                let members = warp.word(members);
                self.check_members(&members, mask)?;
                if let Some(checker) = &mut self.memory.checker {
                    let warp = self.first_thread as usize / WARP;
                    groups(&members, mask).for_each(|group| checker.sync_warp(warp, group));
                }
            }
            Op::Fence => {
                if let Some(checker) = &mut self.memory.checker {
                    checker.fence();
                }
            }
            Op::Trap => {
                let detail = "the kernel executed `trap`";
                return Err((mask.trailing_zeros() as usize, Problem::new(Kind::Trap, detail)));
            }
            Op::Nothing => {}
        }
        Ok(None)
    }

    #[inline(always)]
    fn branch(&mut self, target: u32, meet: u32, mask: u32, active: u32, conditional: bool) {
        let stay = active & !mask;
        let divides = mask != 0 && stay != 0;
        self.tally[self.pc as usize].requests += u64::from(conditional);
        let Some(frame) = self.running.stack.last_mut() else { return };
        if !divides {
            if mask != 0 {
                frame.pc = target;
            }
            return;
        }
        self.tally[self.pc as usize].divergent += 1;
        let next = frame.pc;
        // The frame below waits for both parts already, or nothing does.
        if meet == frame.meet || meet == END {
            frame.mask = stay;
            let meet = frame.meet;
            self.running.stack.push(Frame { pc: target, meet, mask });
            return;
        }
        frame.pc = meet;
        self.running.stack.push(Frame { pc: next, meet, mask: stay });
        self.running.stack.push(Frame { pc: target, meet, mask });
    }

    /// Of a collective, each lane names the lanes that take part: itself, and others that are here with the same mask. Lanes
    /// that have ended do not count.
    fn check_members(&self, members: &[u32; WARP], mask: u32) -> Outcome<()> {
        for lane in lanes(mask) {
            let there = members[lane] & self.running.alive;
            let agree = lanes(there & mask).all(|other| members[other] == members[lane]);
            if there >> lane & 1 == 0 || there & !mask != 0 || !agree {
                let detail =
                    format!("names the lanes {:#010x}, while {mask:#010x} are at this instruction", members[lane]);
                return Err((lane, Problem::new(Kind::BadWarpMask, detail)));
            }
        }
        Ok(())
    }

    fn all_lanes(&self, active: u32, mask: u32, what: &str) -> Outcome<()> {
        if mask == u32::MAX {
            return Ok(());
        }
        let detail = format!("{what} executed by lanes {mask:#010x} of {active:#010x}; all 32 must");
        Err(((!mask).trailing_zeros() as usize, Problem::new(Kind::BadWarpMask, detail)))
    }

    #[cold]
    fn check_divisor(&mut self, divisor: Reg, mask: u32, alu: super::alu::Alu) -> Outcome<()> {
        use super::alu::Alu::{DivS64, DivU64, RemS64, RemU64};
        let warp = &mut self.running.warp;
        let file = if matches!(alu, DivS64 | DivU64 | RemS64 | RemU64) { File::Double } else { File::Word };
        let divisors = wide(warp, divisor, file);
        match lanes(mask).find(|lane| divisors[*lane] == 0) {
            Some(lane) => Err((lane, Problem::new(Kind::DivisionByZero, "an integer is divided by zero"))),
            None => Ok(()),
        }
    }

    /// Moves an approximate result by up to one unit of the last place.
    fn nudge(&mut self, register: Reg, mask: u32) {
        let mut values = self.running.warp.word(register);
        for value in &mut values {
            let by = [0, 1, u32::MAX][random(self.seed) as usize % 3];
            if *value << 1 != 0 && *value >> 23 & 255 != 255 {
                *value = value.wrapping_add(by);
            }
        }
        self.running.warp.set_word(register, mask, &values);
    }

    #[inline(always)]
    fn addresses(&mut self, address: Address) -> [u64; WARP] {
        let offset = address.offset as u64;
        let mut out = [offset; WARP];
        match address.base {
            Base::None => {}
            Base::Word(register) => {
                // A 32-bit address stays one: a negative base and its offset are a small number.
                let base = self.running.warp.word(register);
                out.iter_mut().zip(base).for_each(|(out, base)| *out = u64::from(base.wrapping_add(offset as u32)));
            }
            Base::Double(register) => {
                let base = self.running.warp.double(register);
                out.iter_mut().zip(base).for_each(|(out, base)| *out = offset.wrapping_add(base));
            }
        }
        out
    }

    /// Pointers of an access, which is counted.
    #[inline(always)]
    fn access(
        &mut self,
        space: Space,
        address: Address,
        size: usize,
        mask: u32,
        access: Access,
    ) -> Outcome<[*mut u8; WARP]> {
        let addresses = self.addresses(address);
        self.defined(mask)?;
        self.memory.pc = self.pc;
        let request = Request { space, addresses: &addresses, size, mask, access, first_thread: self.first_thread };
        let pointers = self.memory.pointers(&request)?;
        self.count(space, &addresses, size, mask);
        Ok(pointers)
    }

    #[inline(always)]
    fn count(&mut self, space: Space, addresses: &[u64; WARP], size: usize, mask: u32) {
        let window = addresses[mask.trailing_zeros() as usize] & WINDOWS;
        let bytes = u64::from(mask.count_ones()) * size as u64;
        let tally = &mut self.tally[self.pc as usize];
        match (space, window) {
            (Space::Global, _) | (Space::Generic, 0) => {
                let (sectors, least) = sectors(addresses, size, mask);
                tally.requests += 1;
                tally.sectors += sectors;
                tally.least_sectors += least;
                tally.bytes += bytes;
            }
            (Space::Shared, _) | (Space::Generic, SHARED_WINDOW) => {
                let (passes, least) = wavefronts(addresses, size, mask);
                tally.shared_requests += 1;
                tally.wavefronts += passes;
                tally.least_wavefronts += least;
                tally.shared_bytes += bytes;
            }
            _ => {}
        }
    }

    #[inline(always)]
    fn load(&mut self, space: Space, to: &Elements, address: Address, mask: u32) -> Outcome<()> {
        let size = to.count * to.bytes;
        let pointers = self.access(space, address, size, mask, Access::Read)?;
        for (index, register) in to.registers[..to.count].iter().enumerate() {
            let offset = index * to.bytes;
            if to.file == File::Word && to.bytes == 4 {
                let mut values = [0u32; WARP];
                for lane in lanes(mask) {
                    // SAFETY: `access` has checked `size` bytes at this pointer.
                    values[lane] = unsafe { pointers[lane].add(offset).cast::<u32>().read_unaligned() };
                }
                self.running.warp.set_word(*register, mask, &values);
                continue;
            }
            let mut values = [0u64; WARP];
            for lane in lanes(mask) {
                // SAFETY: as above.
                values[lane] = unsafe { read(pointers[lane].add(offset), to.bytes, to.signed) };
            }
            set_wide(&mut self.running.warp, *register, to.file, mask, &values);
        }
        Ok(())
    }

    #[inline(always)]
    fn store(&mut self, space: Space, from: &Elements, address: Address, mask: u32) -> Outcome<()> {
        let size = from.count * from.bytes;
        let pointers = self.access(space, address, size, mask, Access::Write)?;
        for (index, register) in from.registers[..from.count].iter().enumerate() {
            let offset = index * from.bytes;
            let values = wide(&mut self.running.warp, *register, from.file);
            for lane in lanes(mask) {
                // SAFETY: `access` has checked `size` bytes at this pointer.
                unsafe { write(pointers[lane].add(offset), from.bytes, values[lane]) };
            }
        }
        Ok(())
    }

    #[allow(clippy::too_many_arguments)]
    fn atomic(
        &mut self,
        space: Space,
        change: Change,
        to: Option<Reg>,
        file: File,
        address: Address,
        [value, other]: [Reg; 2],
        mask: u32,
    ) -> Outcome<()> {
        let size = if file == File::Word { 4 } else { 8 };
        let pointers = self.access(space, address, size, mask, Access::Atomic)?;
        let (values, others) = (wide(&mut self.running.warp, value, file), wide(&mut self.running.warp, other, file));
        let mut old = [0u64; WARP];
        for lane in lanes(mask) {
            // SAFETY: `access` has checked the bytes and the alignment; other blocks access them atomically, too.
            old[lane] = unsafe { change_atomically(pointers[lane], size, change, values[lane], others[lane]) };
        }
        if let Some(to) = to {
            set_wide(&mut self.running.warp, to, file, mask, &old);
        }
        Ok(())
    }

    /// The copy takes place when it is waited for; until then the target is NaN. A seed lets half of them arrive at once.
    #[inline(always)]
    fn copy_async(&mut self, to: Address, from: Address, bytes: usize, given: Option<Reg>, mask: u32) -> Outcome<()> {
        let mut sizes = [bytes as u32; WARP];
        if let Some(given) = given {
            sizes = self.running.warp.word(given).map(|given| given.min(bytes as u32));
        }
        let reading = lanes(mask).filter(|lane| sizes[*lane] > 0).fold(0, |mask, lane| mask | 1 << lane);
        let mut sources = [std::ptr::null_mut(); WARP];
        if reading != 0 {
            sources = self.access(Space::Global, from, bytes, reading, Access::Read)?;
        }
        let targets = self.access(Space::Shared, to, bytes, mask, Access::Write)?;
        let early = self.seed.is_some() && random(self.seed) & 1 == 0;
        for lane in lanes(mask) {
            let copy = Flight {
                lane: lane as u8,
                bytes: bytes as u8,
                given: sizes[lane] as u8,
                group: self.running.groups[lane],
                from: sources[lane],
                to: targets[lane],
            };
            // SAFETY: `bytes` bytes at the target have been checked.
            unsafe { copy.to.copy_from(poison::<16>().as_ptr(), bytes) };
            if let Some(checker) = &mut self.memory.checker {
                checker.copying(self.first_thread + lane as u32, copy.to as usize, bytes, true);
            }
            if early {
                copy.arrive();
            }
            self.running.copies.push(copy);
        }
        Ok(())
    }

    fn wait_copies(&mut self, left: Option<u32>, mask: u32) {
        let (groups, first) = (self.running.groups, self.first_thread);
        let (memory, copies) = (&mut *self.memory, &mut self.running.copies);
        copies.retain(|copy| {
            let lane = copy.lane as usize;
            let done = left.is_none_or(|left| i64::from(copy.group) < i64::from(groups[lane]) - i64::from(left));
            if mask >> lane & 1 == 0 || !done {
                return true;
            }
            copy.arrive();
            if let Some(checker) = &mut memory.checker {
                checker.copying(first + lane as u32, copy.to as usize, copy.bytes as usize, false);
            }
            false
        });
    }

    /// Lanes 8 i to 8 i + 7 give the addresses of the rows of matrix i (9.7.15.5.15).
    fn load_matrix(&mut self, count: usize, transposed: bool, to: [Reg; 4], address: Address) -> Outcome<()> {
        let rows = (u64::MAX >> (64 - 8 * count)) as u32;
        let pointers = self.access(Space::Shared, address, 16, rows, Access::Read)?;
        for (matrix, register) in to[..count].iter().enumerate() {
            // SAFETY: 16 bytes at each of these pointers have been checked, and they are aligned to 16.
            let rows = std::array::from_fn(|row| unsafe { pointers[8 * matrix + row].cast::<[u16; 8]>().read() });
            let values = std::array::from_fn(|lane| tensor::matrix_register(&rows, lane, transposed));
            self.running.warp.set_word(*register, u32::MAX, &values);
        }
        Ok(())
    }
}

impl Flight {
    fn arrive(&self) {
        // SAFETY: both pointers were checked when the copy was issued, and buffers live as long as the launch.
        unsafe {
            self.to.copy_from(self.from, self.given as usize);
            self.to.add(self.given as usize).write_bytes(0, (self.bytes - self.given) as usize);
        }
    }
}

/// The lanes of a collective that belong together, by the mask that they name.
fn groups(members: &[u32; WARP], mask: u32) -> impl Iterator<Item = u32> {
    let mut rest = mask;
    std::iter::from_fn(move || {
        let first = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
        let group = members[first] & mask;
        rest &= !group;
        Some(group)
    })
}

/// The lane that a shuffle reads, and whether it is in range (9.7.9.6).
fn source_lane(shuffle: Shuffle, lane: u32, by: u32, clamp: u32) -> (u32, bool) {
    let (by, segment, clamp) = (by & 31, clamp >> 8 & 31, clamp & 31);
    let (first, last) = (lane & segment, (lane & segment) | (clamp & !segment));
    let (source, valid) = match shuffle {
        Shuffle::Up => (lane.wrapping_sub(by), lane as i64 - by as i64 >= i64::from(last)),
        Shuffle::Down => (lane + by, lane + by <= last),
        Shuffle::Butterfly => (lane ^ by, lane ^ by <= last),
        Shuffle::Index => (first | (by & !segment), first | (by & !segment) <= last),
    };
    if valid { (source, true) } else { (lane, false) }
}

/// The values of a register of any file, in 64 bits.
#[inline(always)]
fn wide(warp: &mut Warp, register: Reg, file: File) -> [u64; WARP] {
    match file {
        File::Word => {
            let words = warp.word(register);
            let mut out = [0; WARP];
            out.iter_mut().zip(words).for_each(|(out, word)| *out = u64::from(word));
            out
        }
        File::Double => warp.double(register),
        File::Predicate => {
            let bits = warp.predicate(register);
            std::array::from_fn(|lane| u64::from(bits >> lane & 1))
        }
    }
}

#[inline(always)]
fn set_wide(warp: &mut Warp, register: Reg, file: File, mask: u32, values: &[u64; WARP]) {
    match file {
        File::Word => {
            let mut words = [0; WARP];
            words.iter_mut().zip(values).for_each(|(word, value)| *word = *value as u32);
            warp.set_word(register, mask, &words);
        }
        File::Double => warp.set_double(register, mask, values),
        File::Predicate => {
            let bits = lanes(u32::MAX).fold(0, |bits, lane| bits | u32::from(values[lane] != 0) << lane);
            warp.set_predicate(register, mask, bits);
        }
    }
}

/// Addresses of the kernel are aligned; parameters and local memory need not be on the host.
///
/// # Safety
/// `bytes` bytes at `pointer` are valid.
#[inline(always)]
unsafe fn read(pointer: *const u8, bytes: usize, signed: bool) -> u64 {
    // SAFETY: by the contract.
    unsafe {
        match (bytes, signed) {
            (1, false) => u64::from(pointer.read()),
            (1, true) => pointer.cast::<i8>().read() as u64,
            (2, false) => u64::from(pointer.cast::<u16>().read_unaligned()),
            (2, true) => pointer.cast::<i16>().read_unaligned() as u64,
            (4, false) => u64::from(pointer.cast::<u32>().read_unaligned()),
            (4, true) => pointer.cast::<i32>().read_unaligned() as u64,
            _ => pointer.cast::<u64>().read_unaligned(),
        }
    }
}

/// # Safety
/// As [`read`].
#[inline(always)]
unsafe fn write(pointer: *mut u8, bytes: usize, value: u64) {
    // SAFETY: by the contract.
    unsafe {
        match bytes {
            1 => pointer.write(value as u8),
            2 => pointer.cast::<u16>().write_unaligned(value as u16),
            4 => pointer.cast::<u32>().write_unaligned(value as u32),
            _ => pointer.cast::<u64>().write_unaligned(value),
        }
    }
}

/// The value before the change (9.7.13.4).
///
/// # Safety
/// `size` bytes at `pointer` are valid and it is aligned to them.
unsafe fn change_atomically(pointer: *mut u8, size: usize, change: Change, value: u64, other: u64) -> u64 {
    let next = |old: u64| {
        let signed = |x: u64| if size == 4 { i64::from(x as u32 as i32) } else { x as i64 };
        match change {
            Change::AddInteger => old.wrapping_add(value),
            Change::AddFloat if size == 4 => {
                u64::from((f32::from_bits(old as u32) + f32::from_bits(value as u32)).to_bits())
            }
            Change::AddFloat => (f64::from_bits(old) + f64::from_bits(value)).to_bits(),
            Change::MinSigned if signed(value) < signed(old) => value,
            Change::MaxSigned if signed(value) > signed(old) => value,
            Change::MinUnsigned => old.min(value),
            Change::MaxUnsigned => old.max(value),
            Change::MinSigned | Change::MaxSigned => old,
            Change::And => old & value,
            Change::Or => old | value,
            Change::Xor => old ^ value,
            Change::Exchange => value,
            Change::CompareAndSwap => {
                if old == other {
                    value
                } else {
                    old
                }
            }
            Change::Increment => {
                if old >= value {
                    0
                } else {
                    old + 1
                }
            }
            Change::Decrement => {
                if old == 0 || old > value {
                    value
                } else {
                    old - 1
                }
            }
        }
    };
    // SAFETY: by the contract; every block of the launch accesses these bytes through atomics.
    unsafe {
        if size == 4 {
            let cell = AtomicU32::from_ptr(pointer.cast());
            let update = |old: u32| Some(next(u64::from(old)) as u32);
            u64::from(cell.fetch_update(SeqCst, SeqCst, update).unwrap_or_default())
        } else {
            let cell = AtomicU64::from_ptr(pointer.cast());
            cell.fetch_update(SeqCst, SeqCst, |old| Some(next(old))).unwrap_or_default()
        }
    }
}

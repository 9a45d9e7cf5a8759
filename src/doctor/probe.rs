//! `weft doctor --probe`: what one part of a card does when nothing else holds it up, and whether single instructions treat their
//! registers as the PTX ISA says (`layout.rs`).
//!
//! Rates are ceilings for the engine's kernels, measured with the same instructions: a copy, reads of the L2 cache by
//! `cp.async`, f32 multiply-adds, `mma.sync`, and a kernel in a graph that does nothing. The operands do not change, which draws less
//! power than a real product: a card at its power limit stays below. The best of twenty runs counts.

mod layout;

use super::Tally;
use crate::device::{Gpu, Launch, Memory, Precision, Ptr, Recorder};
use crate::kernel_parameters;
use crate::ops::gpu::BLOCK;
use crate::{Error, Result};
use layout::{LANES, Ldmatrix, Mma};
use std::time::Instant;

/// Repetitions, after one that does not count.
const RUNS: usize = 20;
/// Blocks per multiprocessor of the loops: enough warps for every unit, and all of them resident.
const BLOCKS: usize = 4;
/// Bytes that are copied: several times the L2 cache of every card.
const COPIED: usize = 256 << 20;
/// Bytes that are read again and again: in every L2 cache.
const READ: usize = 2 << 20;
/// Empty kernels in a graph.
const NODES: usize = 1000;

/// As in kernels/probe.cu.
const COPIES: usize = 4;
const READS_IN_FLIGHT: usize = 4;
const FMA_CHAINS: usize = 16;
const FMA_STEPS: usize = 8;
const MMA_TILES: usize = 8;
/// Bytes of a read or write.
const PACK: usize = 16;

kernel_parameters! {
    ProbeMove: 24 {
        from: Ptr,
        to: Ptr,
        /// In packs of 16 bytes.
        count: u32,
        reads: u32,
    }
}

kernel_parameters! {
    ProbeFma: 24 {
        out: Ptr,
        factor: f32,
        summand: f32,
        rounds: u32,
        unused: u32,
    }
}

kernel_parameters! {
    ProbeMma: 40 {
        a: Ptr,
        b: Ptr,
        c: Ptr,
        out: Ptr,
        fragments: u32,
        rounds: u32,
    }
}

kernel_parameters! {
    ProbeLdmatrix: 24 {
        tile: Ptr,
        rows: Ptr,
        out: Ptr,
    }
}

/// What an instruction did with its registers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    pub instruction: String,
    /// Registers that were compared.
    pub registers: usize,
    /// Those that differ from the ISA's.
    pub wrong: usize,
    /// The first of them.
    pub first: Option<String>,
    /// All registers as they came, if some differ: what a table for this card would be made from.
    pub raw: Vec<u32>,
}

/// What a card reaches.
#[derive(Debug, Clone, PartialEq)]
pub struct Rate {
    pub name: String,
    /// Per second; of a launch, seconds.
    pub amount: f64,
    pub unit: Unit,
    /// The card's own number, where it is known.
    pub peak: Option<f64>,
}

/// Of [`Rate::amount`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    Bytes,
    Flops,
    Seconds,
}

/// The results of [`run`].
#[derive(Debug)]
pub struct Probes {
    pub layouts: Vec<Layout>,
    /// `None` on an emulator, whose times mean nothing.
    pub rates: Option<Vec<Rate>>,
}

impl Probes {
    /// Instructions that differ from the ISA.
    pub fn failed(&self) -> usize {
        self.layouts.iter().filter(|layout| layout.wrong > 0).count()
    }
}

/// Probes a device, in about a second on a card.
///
/// # Errors
/// A launch that fails, by name.
pub fn run(gpu: &Gpu) -> Result<Probes> {
    let mut layouts = ldmatrix_layouts(gpu)?;
    for precision in tensor_precisions(gpu) {
        layouts.push(mma_layout(gpu, Mma(precision))?);
    }
    let rates = if gpu.driver.is_host() { None } else { Some(rates(gpu)?) };
    Ok(Probes { layouts, rates })
}

fn tensor_precisions(gpu: &Gpu) -> impl Iterator<Item = Precision> {
    let all = Precision::ALL.into_iter().filter(|precision| *precision != Precision::F32);
    all.filter(|precision| gpu.has(*precision))
}

/// Compares registers; `place` and `show` name one and its content.
fn compare(
    instruction: String,
    got: Vec<u32>,
    want: &[u32],
    place: impl Fn(usize) -> String,
    show: impl Fn(u32) -> String,
) -> Layout {
    let differ = |index: &usize| got[*index] != want[*index];
    let wrong = (0..want.len()).filter(differ).count();
    let first = (0..want.len()).find(differ);
    let describe = |index: usize| format!("{}: {}, by the ISA {}", place(index), show(got[index]), show(want[index]));
    let first = first.map(describe);
    Layout { instruction, registers: want.len(), wrong, first, raw: if wrong > 0 { got } else { Vec::new() } }
}

/// A launch and the memory that it uses.
struct Prepared {
    launch: Launch,
    out: Memory,
    /// What it reads.
    _inputs: Vec<Memory>,
}

impl Prepared {
    /// Runs it once.
    fn start(&self, gpu: &Gpu) -> Result<()> {
        gpu.driver.launch(&self.launch)
    }

    /// Seconds of the fastest run.
    fn best(&self, gpu: &Gpu) -> Result<f64> {
        let times = gpu.driver.time(&vec![self.launch.clone(); RUNS + 1])?;
        fastest(times.into_iter().skip(1))
    }
}

fn fastest(times: impl Iterator<Item = f64>) -> Result<f64> {
    let least = times.fold(f64::INFINITY, f64::min);
    let measured = least > 0.0 && least.is_finite();
    measured.then_some(least).ok_or_else(|| Error::device("probe", "the clock of the device did not advance"))
}

/// `bytes` bytes from one place to another; they are `content` over and over, or undefined.
fn copy(gpu: &Gpu, from: Memory, bytes: usize) -> Result<Prepared> {
    let count = bytes / PACK;
    let out = gpu.memory(bytes)?;
    let parameters = ProbeMove { from: from.ptr, to: out.ptr, count: count as u32, reads: 0 };
    let launch = Launch::new("probe_copy", [count.div_ceil(BLOCK * COPIES).max(1), 1, 1], BLOCK, &parameters);
    Ok(Prepared { launch: launch.work(0, 2 * bytes as u64), out, _inputs: vec![from] })
}

/// `reads` reads by each thread of `blocks` blocks, from `bytes` bytes.
fn read(gpu: &Gpu, from: Memory, bytes: usize, blocks: usize, reads: usize) -> Result<Prepared> {
    let out = gpu.memory(blocks * BLOCK * PACK)?;
    let parameters = ProbeMove { from: from.ptr, to: out.ptr, count: (bytes / PACK) as u32, reads: reads as u32 };
    let launch = Launch::new("probe_read", [blocks, 1, 1], BLOCK, &parameters);
    Ok(Prepared { launch: launch.work(0, (blocks * BLOCK * reads * PACK) as u64), out, _inputs: vec![from] })
}

fn fma(gpu: &Gpu, blocks: usize, rounds: usize) -> Result<Prepared> {
    let out = gpu.memory(4 * blocks * BLOCK)?;
    let parameters = ProbeFma { out: out.ptr, factor: 0.5, summand: 1.0, rounds: rounds as u32, unused: 0 };
    let flops = 2 * blocks * BLOCK * FMA_CHAINS * FMA_STEPS * rounds;
    let launch = Launch::new("probe_fma", [blocks, 1, 1], BLOCK, &parameters).work(flops as u64, 0);
    Ok(Prepared { launch, out, _inputs: Vec::new() })
}

/// One warp for each position of a one in A, or `blocks` blocks of warps with a full A.
fn mma(gpu: &Gpu, mma: Mma, blocks: Option<usize>, rounds: usize) -> Result<Prepared> {
    let Mma(precision) = mma;
    let warps = BLOCK / LANES;
    let (a, fragments) = if blocks.is_some() { (mma.full(), 1) } else { (mma.ones(), mma.positions()) };
    let blocks = blocks.unwrap_or(mma.positions() / warps);
    let [a, b] = [gpu.upload(&a)?, gpu.upload(&mma.numbered())?];
    let c = gpu.upload(&Mma::summands())?;
    let out = gpu.memory(4 * blocks * BLOCK * layout::D)?;
    let parameters =
        ProbeMma { a: a.ptr, b: b.ptr, c: c.ptr, out: out.ptr, fragments: fragments as u32, rounds: rounds as u32 };
    // 16 x 8 x k multiply-adds; A has 16 k positions.
    let flops = blocks * warps * rounds * MMA_TILES * 2 * 8 * mma.positions();
    let launch = Launch::new(format!("probe_{precision}_mma"), [blocks, 1, 1], BLOCK, &parameters);
    Ok(Prepared { launch: launch.work(flops as u64, 0), out, _inputs: vec![a, b, c] })
}

fn ldmatrix(gpu: &Gpu) -> Result<Prepared> {
    let [tile, rows] = [gpu.upload(&Ldmatrix::tile())?, gpu.upload(&Ldmatrix::rows())?];
    let out = gpu.memory(4 * LANES * Ldmatrix::STRIDE)?;
    let parameters = ProbeLdmatrix { tile: tile.ptr, rows: rows.ptr, out: out.ptr };
    let launch = Launch::new("probe_ldmatrix", [1; 3], LANES, &parameters);
    Ok(Prepared { launch, out, _inputs: vec![tile, rows] })
}

/// Rounds of the layout's loop: more than one, so that the loop is looked at, too.
const LAYOUT_ROUNDS: usize = 2;

/// The sums of an mma probe, of one of its tiles.
fn sums(gpu: &Gpu, mma: Mma, prepared: &Prepared) -> Result<Vec<f32>> {
    let mut sums: Vec<f32> = gpu.download(prepared.out.ptr, mma.positions() * LANES * layout::D)?;
    sums.iter_mut().for_each(|sum| *sum /= MMA_TILES as f32);
    Ok(sums)
}

fn mma_layout(gpu: &Gpu, kind: Mma) -> Result<Layout> {
    let prepared = mma(gpu, kind, None, LAYOUT_ROUNDS)?;
    prepared.start(gpu)?;
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let (got, want) = (bits(sums(gpu, kind, &prepared)?), bits(kind.expected(LAYOUT_ROUNDS)));
    Ok(compare(kind.instruction(), got, &want, |index| kind.place(index), |bits| f32::from_bits(bits).to_string()))
}

fn ldmatrix_layouts(gpu: &Gpu) -> Result<Vec<Layout>> {
    let prepared = ldmatrix(gpu)?;
    prepared.start(gpu)?;
    let got: Vec<u32> = gpu.download(prepared.out.ptr, LANES * Ldmatrix::STRIDE)?;
    let mut first = 0;
    let of = |form: Ldmatrix| {
        let (from, count) = (first, form.matrices);
        first += count;
        let places = (0..LANES).flat_map(|lane| (0..count).map(move |matrix| (lane, matrix)));
        let (got, want): (Vec<u32>, Vec<u32>) = places
            .map(|(lane, matrix)| (got[lane * Ldmatrix::STRIDE + from + matrix], form.expected(lane, matrix)))
            .unzip();
        let place = |index| format!("register {} of lane {}", index % count, index / count);
        compare(form.instruction(), got, &want, place, |word| format!("{} and {}", word & 0xffff, word >> 16))
    };
    Ok(Ldmatrix::ALL.into_iter().map(of).collect())
}

fn rates(gpu: &Gpu) -> Result<Vec<Rate>> {
    let properties = gpu.driver.properties();
    let (peaks, blocks) = (properties.peaks, BLOCKS * properties.multiprocessors as usize);
    let bytes = |name: &str, prepared: Prepared, peak| -> Result<Rate> {
        let amount = prepared.launch.work.bytes as f64 / prepared.best(gpu)?;
        Ok(Rate { name: name.into(), amount, unit: Unit::Bytes, peak })
    };
    let flops = |name: String, prepared: Prepared, peak| -> Result<Rate> {
        let amount = prepared.launch.work.flops as f64 / prepared.best(gpu)?;
        Ok(Rate { name, amount, unit: Unit::Flops, peak })
    };
    let mut rates = vec![bytes("copy", copy(gpu, gpu.memory(COPIED)?, COPIED)?, peaks.map(|peaks| peaks.memory))?];
    // Before 8.0, cp.async is a load through the L1 cache.
    if properties.capability[0] >= 8 {
        let passes = 4 * READ / PACK / BLOCK;
        rates.push(bytes("L2 read", read(gpu, gpu.memory(READ)?, READ, blocks, passes)?, None)?);
    }
    rates.push(flops("f32 multiply-adds".into(), fma(gpu, blocks, 1024)?, peaks.map(|peaks| peaks.f32))?);
    for precision in tensor_precisions(gpu) {
        let peak = peaks.map(|peaks| if precision == Precision::Tf32 { peaks.tf32 } else { peaks.half });
        rates.push(flops(format!("mma.sync {precision}"), mma(gpu, Mma(precision), Some(blocks), 4096)?, peak)?);
    }
    let amount = node_seconds(gpu)?;
    rates.push(Rate { name: "node of a graph".into(), amount, unit: Unit::Seconds, peak: None });
    Ok(rates)
}

/// What another kernel in a graph costs: a graph of many that do nothing, less a graph of one.
fn node_seconds(gpu: &Gpu) -> Result<f64> {
    let nothing = copy(gpu, gpu.memory(PACK)?, 0)?.launch;
    let seconds = |count: usize| {
        let graph = gpu.driver.capture(&vec![nothing.clone(); count])?;
        let run = || {
            let began = Instant::now();
            graph.launch()?;
            gpu.driver.synchronize()?;
            Ok(began.elapsed().as_secs_f64())
        };
        run()?;
        fastest((0..RUNS).map(|_| run()).collect::<Result<Vec<_>>>()?.into_iter())
    };
    Ok((seconds(NODES + 1)? - seconds(1)?).max(0.0) / NODES as f64)
}

/// The probes' kernels among the checks of `weft doctor`: small, and with results that are known to the last bit.
pub(super) fn check(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    const CASE: &str = "probes";
    let launches = |prepared: &Prepared| {
        let mut to = Recorder::new(gpu);
        to.label(CASE);
        to.launch(prepared.launch.clone());
        to.launches
    };
    if gpu.precision != Precision::F32 {
        let kind = Mma(gpu.precision);
        let prepared = mma(gpu, kind, None, LAYOUT_ROUNDS)?;
        prepared.start(gpu)?;
        tally.same(&launches(&prepared), CASE, &sums(gpu, kind, &prepared)?, &kind.expected(LAYOUT_ROUNDS));
        return Ok(());
    }
    // Halves of words, which f32 holds exactly.
    let halves = |words: &[u32]| -> Vec<f32> {
        words.iter().flat_map(|word| [word & 0xffff, word >> 16]).map(|half| half as f32).collect()
    };
    let words = |bytes: usize| -> Vec<u32> { (1..=bytes as u32 / 4).map(|i| i.wrapping_mul(0x9e37_79b9)).collect() };
    let same = |tally: &mut Tally, prepared: &Prepared, want: &[u32]| -> Result<()> {
        prepared.start(gpu)?;
        let got: Vec<u32> = gpu.download(prepared.out.ptr, want.len())?;
        tally.same(&launches(prepared), CASE, &halves(&got), &halves(want));
        Ok(())
    };
    // The last block is not full, nor the last of its copies.
    let copied = words(PACK * (BLOCK * COPIES + 300));
    same(tally, &copy(gpu, gpu.upload(&copied)?, 4 * copied.len())?, &copied)?;

    // Two blocks, more reads than slots, around the end of the buffer.
    let (blocks, reads, count) = (2, 2 * READS_IN_FLIGHT, 1024);
    let buffer = words(PACK * count);
    let last = (0..blocks * BLOCK * 4).map(|index| {
        let (thread, word) = (index / 4, index % 4);
        let at = thread / BLOCK * count / blocks + thread % BLOCK;
        (reads - READS_IN_FLIGHT..reads).fold(0, |all, read| all ^ buffer[(at + BLOCK * read) % count * 4 + word])
    });
    let prepared = read(gpu, gpu.upload(&buffer)?, PACK * count, blocks, reads)?;
    same(tally, &prepared, &last.collect::<Vec<_>>())?;

    let want = (0..LANES).flat_map(|lane| {
        let forms = Ldmatrix::ALL.into_iter();
        let registers = forms.flat_map(move |form| (0..form.matrices).map(move |matrix| form.expected(lane, matrix)));
        registers.chain([0, 0])
    });
    same(tally, &ldmatrix(gpu)?, &want.collect::<Vec<_>>())?;

    // A chain of n steps from i on is at 2 + (i - 2) / 2^n.
    let rounds = 2;
    let prepared = fma(gpu, 1, rounds)?;
    prepared.start(gpu)?;
    let chain = |i: usize| 2.0 + (i as f32 - 2.0) * 0.5f32.powi((FMA_STEPS * rounds) as i32);
    let sum: f32 = (0..FMA_CHAINS).map(chain).sum();
    tally.same(&launches(&prepared), CASE, &gpu.download(prepared.out.ptr, BLOCK)?, &[sum; BLOCK]);
    Ok(())
}

//! The second engine: executes the PTX that nvcc wrote, warp by warp, and counts what it executes.
//!
//! The first engine runs the C++ source with stand-ins for inline PTX; what a stand-in does and what the PTX says can
//! differ, and so can the source and what the compiler made of it. This engine needs no C++ compiler: it reads the text,
//! and every instruction is written from the PTX ISA (the section is in a comment). An instruction that it does not know is
//! an error that names it.
//!
//! ```
//! // nvcc -ptx -lineinfo saxpy.cu: __global__ void saxpy(float a, const float* x, float* y, int n)
//! let ptx = simt::Ptx::parse(include_str!("../../tests/ptx/clean_simple.ptx"))?;
//! let x = simt::Buffer::from_slice(&[1.0f32; 1000]);
//! let y = simt::Buffer::from_slice(&[0.5f32; 1000]);
//! let counted = ptx.launch("saxpy", &simt::Launch::new(4, 256), &simt::args![2.0f32, x, y, 1000i32])?;
//! assert_eq!(y.to_vec::<f32>(), [2.5; 1000]);
//! assert_eq!(counted.total.loads.sectors, 2 * 125); // x and y, 32 bytes each
//! # Ok::<(), simt::Error>(())
//! ```

mod alu;
mod count;
mod decode;
mod exec;
mod float;
mod flow;
mod parse;
mod spaces;
mod tensor;
mod traffic;
mod warp;

pub use count::{Banks, Class, Counted, Counts, LineCounts, Traffic};

use crate::Error;
use crate::check::{Checker, MemoryMap, Scope};
use crate::finding::Finding;
use crate::launch::{Launch, MAX_SHARED_BYTES, Turns, Variant, marks};
use crate::memory::{self, Allocation, find};
use crate::module::{Arg, reachable};
use decode::Code;
use exec::{Machine, Tally};
use parse::{Place, Text};
use spaces::{Bug, Memory};
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

/// The opcodes of the arithmetic that is known, with their types: `add.s32`. Loads, stores, branches, collectives and matrix
/// instructions have too many forms to list.
pub fn opcodes() -> impl Iterator<Item = &'static str> {
    alu::FORMS.iter().flat_map(|form| form.opcodes).copied().filter(|opcode| !opcode.contains(' '))
}

/// Kernels as PTX. Their code is decoded at the first launch.
pub struct Ptx {
    texts: Vec<Text>,
    /// The text of each kernel.
    kernels: BTreeMap<String, usize>,
    decoded: Mutex<HashMap<String, Arc<Code>>>,
}

impl Ptx {
    /// Reads a `.ptx` file of nvcc or clang.
    ///
    /// # Errors
    /// Text that is no PTX.
    pub fn parse(text: &str) -> Result<Ptx, Error> {
        Ptx::parse_all([text])
    }

    /// Reads several files; of kernels with the same name, the first counts.
    ///
    /// # Errors
    /// As [`Ptx::parse`].
    pub fn parse_all<'a>(texts: impl IntoIterator<Item = &'a str>) -> Result<Ptx, Error> {
        let mut ptx = Ptx { texts: Vec::new(), kernels: BTreeMap::new(), decoded: Mutex::default() };
        for text in texts {
            let text = Text::read(text).map_err(|message| Error::Launch(format!("PTX: {message}")))?;
            for name in text.kernels.keys() {
                ptx.kernels.entry(name.clone()).or_insert(ptx.texts.len());
            }
            ptx.texts.push(text);
        }
        Ok(ptx)
    }

    /// The names of all kernels, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.kernels.keys().map(String::as_str)
    }

    /// The architecture that the text was compiled for: `sm_90a`.
    pub fn target(&self) -> &str {
        self.texts.first().map_or("", |text| text.target.as_str())
    }

    /// Decodes a kernel, without running it.
    ///
    /// # Errors
    /// No such kernel, or an instruction in it that is not known, by name.
    pub fn check(&self, name: &str) -> Result<(), Error> {
        self.code(name).map(|_| ())
    }

    /// Bytes of a kernel's static shared memory.
    ///
    /// # Errors
    /// As [`Ptx::check`].
    pub fn static_shared_bytes(&self, name: &str) -> Result<usize, Error> {
        self.code(name).map(|code| code.shared_bytes)
    }

    fn code(&self, name: &str) -> Result<Arc<Code>, Error> {
        let mut decoded = self.decoded.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(code) = decoded.get(name) {
            return Ok(code.clone());
        }
        let text = self.kernels.get(name).map(|index| &self.texts[*index]);
        let text = text.ok_or_else(|| {
            let known: Vec<&str> = self.names().collect();
            Error::Launch(format!("no kernel `{name}` in the PTX; there are: {}", known.join(", ")))
        })?;
        let code = Code::decode(&text.kernels[name], text).map_err(|e| Error::Launch(format!("PTX of {e}")))?;
        let code = Arc::new(code);
        decoded.insert(name.to_owned(), code.clone());
        Ok(code)
    }

    /// Runs the kernel `name` to completion, and counts.
    ///
    /// # Errors
    /// As [`crate::Module::launch`]; also an instruction that is not known. Whether a parameter is a pointer is not known
    /// here, so only arguments that are given as pointers are checked to be in live buffers.
    pub fn launch(&self, name: &str, launch: &Launch, args: &[Arg]) -> Result<Counted, Error> {
        self.sample(name, launch, args, None)
    }

    /// Runs at most `most_blocks` blocks, spread evenly over the grid, to count what they execute. The results of the others
    /// are missing.
    ///
    /// # Errors
    /// As [`Ptx::launch`].
    pub fn sample(
        &self,
        name: &str,
        launch: &Launch,
        args: &[Arg],
        most_blocks: Option<u64>,
    ) -> Result<Counted, Error> {
        let fail = |message: String| Error::Launch(format!("{name}: {message}"));
        launch.check().map_err(fail)?;
        if !exec::has_vectors() {
            return Err(fail("the PTX engine needs a processor with AVX2 and FMA".into()));
        }
        let code = self.code(name)?;
        let buffers = memory::live();
        let parameters = parameters(&code, args, &buffers).map_err(fail)?;
        let shared = code.dynamic + launch.shared_bytes;
        if shared > MAX_SHARED_BYTES {
            return Err(fail(format!("{shared} bytes of shared memory; at most {MAX_SHARED_BYTES}")));
        }
        let all = launch.block_count();
        let ran = most_blocks.map_or(all, |most| all.min(most.max(1) as usize));
        let run = Run {
            name,
            code: &code,
            launch,
            buffers: &buffers,
            parameters: &parameters,
            shared,
            first_mark: marks(all as u32),
            blocks: [ran, all],
            files: &self.texts[self.kernels[name]].files,
            turns: Turns::new(ran, launch.seed, launch.worker_count(ran)),
            tallies: Mutex::new(vec![Tally::default(); code.insts.len()]),
        };
        let workers = launch.worker_count(ran);
        if workers == 1 {
            run.work();
        } else {
            rayon::scope(|scope| (0..workers).for_each(|_| scope.spawn(|_| run.work())));
        }
        if launch.variant == Variant::Fast {
            let words =
                parameters.chunks_exact(8).map(|word| word.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte)));
            reachable(words, &buffers).into_iter().for_each(|buffer| buffer.mark_written(0..buffer.len));
        }
        match run.turns.found() {
            Some(finding) => Err(Error::Finding(Box::new(finding))),
            None => Ok(run.counted()),
        }
    }
}

/// The parameters' space, filled.
fn parameters(code: &Code, args: &[Arg], buffers: &[Arc<Allocation>]) -> Result<Vec<u8>, String> {
    if args.len() != code.parameters.len() {
        return Err(format!("{} arguments given, the kernel takes {}", args.len(), code.parameters.len()));
    }
    let mut bytes = vec![0; code.parameter_bytes];
    for (index, (arg, &(at, size))) in args.iter().zip(&code.parameters).enumerate() {
        if let Some(given) = arg.size.filter(|given| *given != size) {
            return Err(format!("argument {index} has {size} bytes, given {given}"));
        }
        // SAFETY: an argument has the size of its parameter: checked, or by the contract of `Arg::untyped`.
        let value = unsafe { std::slice::from_raw_parts(arg.data.cast::<u8>(), size) };
        bytes[at..at + size].copy_from_slice(value);
        if arg.pointer == Some(true) {
            let address = value.iter().rev().fold(0, |n, byte| n << 8 | usize::from(*byte));
            let end_of = |buffer: &Arc<Allocation>| buffer.base + buffer.len == address;
            if address != 0 && find(buffers, address).is_none() && !buffers.iter().any(end_of) {
                return Err(format!("argument {index} ({address:#x}) points into no live buffer"));
            }
        }
    }
    Ok(bytes)
}

/// A launch, shared by its workers.
struct Run<'a> {
    name: &'a str,
    code: &'a Code,
    launch: &'a Launch,
    buffers: &'a [Arc<Allocation>],
    parameters: &'a [u8],
    shared: usize,
    first_mark: u32,
    /// Blocks that run, of how many.
    blocks: [usize; 2],
    files: &'a [String],
    turns: Turns,
    tallies: Mutex<Vec<Tally>>,
}

impl Run<'_> {
    fn work(&self) {
        let mut memory = Memory::new(self.buffers, self.parameters, self.shared, self.code.local_bytes);
        if self.launch.variant == Variant::Checked {
            let mut checker = Checker::new(MemoryMap::none());
            let scope = Scope { launch: self.launch, buffers: self.buffers, first_mark: self.first_mark };
            checker.begin_launch(scope, memory.shared_range(), memory.shared_range());
            memory.checker = Some(checker);
        }
        let mut machine = Machine::new(self.code, self.launch, memory);
        let [ran, all] = self.blocks;
        for turn in self.turns.blocks() {
            let index = if ran == all { turn } else { (2 * turn + 1) * all / (2 * ran) };
            if let Err(bug) = machine.block(index) {
                self.turns.fail((index, self.finding(bug, index)));
                break;
            }
        }
        let mut sums = self.tallies.lock().unwrap_or_else(PoisonError::into_inner);
        sums.iter_mut().zip(&machine.tally).for_each(|(sum, tally)| *sum += tally);
    }

    fn finding(&self, bug: Bug, block: usize) -> Finding {
        let [gx, gy, _] = self.launch.grid.0.map(|n| n as usize);
        let [x, y, _] = self.launch.block.0;
        let place = self.code.insts.get(bug.pc as usize).map_or(Place::default(), |inst| inst.place);
        let thread = bug.thread;
        Finding {
            kind: bug.problem.kind,
            kernel: self.name.to_owned(),
            block: [block % gx, block / gx % gy, block / gx / gy].map(|n| n as u32),
            thread: [thread % x, thread / x % y, thread / x / y],
            file: self.files.get(place.file as usize).cloned().unwrap_or_default(),
            line: place.line,
            detail: bug.problem.detail,
        }
    }

    /// The tallies of all instructions, summed by line.
    fn counted(self) -> Counted {
        let tallies = self.tallies.into_inner().unwrap_or_else(PoisonError::into_inner);
        let mut lines: BTreeMap<(&str, u32), Counts> = BTreeMap::new();
        let mut total = Counts::default();
        for (inst, tally) in self.code.insts.iter().zip(&tallies).filter(|(_, tally)| tally.warps > 0) {
            let counts = tally.counts(inst.class, &inst.op);
            total += &counts;
            let file = self.files.get(inst.place.file as usize).map_or("", String::as_str);
            *lines.entry((file, inst.place.line)).or_default() += &counts;
        }
        let line = |((file, line), counts): ((&str, u32), Counts)| LineCounts { file: file.to_owned(), line, counts };
        Counted { total, lines: lines.into_iter().map(line).collect(), blocks: self.blocks.map(|n| n as u64) }
    }
}

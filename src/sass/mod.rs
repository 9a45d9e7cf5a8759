//! What the compiler made of the kernels: registers, loops and their instructions, by source line. No GPU is needed.
//!
//! The one idea: the machine code in this program is data. nvdisasm turns it into text (`tools`), the text into functions
//! (`parse`) and their loops (`loops`); the counts are for people, and for budgets (`budget`) that a test keeps.
//!
//! All counts are static: instructions that are there, each once, on whatever path they lie.

mod budget;
mod loops;
mod parse;
mod tools;

pub use budget::{Budgets, Change, Verdict, changes};
pub use tools::{Resources, Tools, images};

use crate::device::{ARCHITECTURES, IMAGES, NVCC};
use crate::error::At;
use crate::{Error, Result};
use loops::Graph;
use parse::{Function, Instruction, Source};
use rayon::prelude::*;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Index;
use std::path::{Path, PathBuf};

/// Kinds of instructions, mostly by the unit that executes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// f32 multiply-adds.
    Ffma,
    /// Matrix products on tensor cores: HMMA, HGMMA and their like.
    Hmma,
    /// Other arithmetic, comparisons and conversions of floating-point numbers.
    Float,
    /// Integers, addresses, predicates and moves.
    Integer,
    /// Loads from global memory.
    Ldg,
    /// Stores to global memory.
    Stg,
    /// Loads from shared memory.
    Lds,
    /// Stores to shared memory.
    Sts,
    /// Asynchronous copies from global to shared memory.
    Ldgsts,
    /// Loads of matrix fragments from shared memory.
    Ldsm,
    /// Loads and stores of local memory: spills and arrays.
    Local,
    /// Reciprocals, roots, exponentials.
    Mufu,
    /// Branches, calls, and what brings threads together again.
    Branch,
    /// Constants, special registers, barriers, shuffles, atomics.
    Other,
}

impl Class {
    /// All, in the order of tables.
    pub const ALL: [Self; 14] = [
        Self::Ffma,
        Self::Hmma,
        Self::Float,
        Self::Integer,
        Self::Ldg,
        Self::Stg,
        Self::Lds,
        Self::Sts,
        Self::Ldgsts,
        Self::Ldsm,
        Self::Local,
        Self::Mufu,
        Self::Branch,
        Self::Other,
    ];

    /// The name in tables and JSON: that of the instruction where there is one.
    pub fn name(self) -> &'static str {
        [
            "FFMA", "HMMA", "float", "integer", "LDG", "STG", "LDS", "STS", "LDGSTS", "LDSM", "local", "MUFU",
            "branch", "other",
        ][self as usize]
    }

    fn of(instruction: &Instruction<'_>) -> Self {
        match instruction.base() {
            "FFMA" => Self::Ffma,
            "HMMA" | "HGMMA" | "IMMA" | "IGMMA" | "DMMA" | "QMMA" | "QGMMA" | "BMMA" | "BGMMA" => Self::Hmma,
            "LDG" | "LD" => Self::Ldg,
            "STG" | "ST" => Self::Stg,
            "LDS" => Self::Lds,
            "STS" => Self::Sts,
            "LDGSTS" | "UTMALDG" | "UBLKCP" => Self::Ldgsts,
            "LDSM" => Self::Ldsm,
            "LDL" | "STL" => Self::Local,
            "MUFU" => Self::Mufu,
            "BRA" | "BRX" | "BRXU" | "JMP" | "JMX" | "JMXU" | "CALL" | "RET" | "EXIT" | "KILL" | "BSSY" | "BSYNC"
            | "BREAK" | "WARPSYNC" | "YIELD" => Self::Branch,
            "FADD" | "FMUL" | "FSEL" | "FSET" | "FSETP" | "FMNMX" | "FMNMX3" | "FCHK" | "FRND" | "FSWZADD" | "F2F"
            | "F2FP" | "F2I" | "F2IP" | "I2F" | "I2FP" | "HADD2" | "HMUL2" | "HFMA2" | "HMNMX2" | "HSET2"
            | "HSETP2" | "DADD" | "DMUL" | "DFMA" | "DSETP" => Self::Float,
            base => match base.strip_prefix(['U', 'V']).unwrap_or(base) {
                "IMAD" | "IADD" | "IADD3" | "IADDMNMX" | "IMNMX" | "IMNMX3" | "IABS" | "ISETP" | "LEA" | "LOP3"
                | "SHF" | "SHL" | "SHR" | "SEL" | "MOV" | "CS2R" | "PRMT" | "BMSK" | "SGXT" | "FLO" | "POPC"
                | "BREV" | "PLOP3" | "P2R" | "R2P" | "I2I" | "IDP" => Self::Integer,
                _ => Self::Other,
            },
        }
    }
}

/// Instructions by class.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mix([u32; Class::ALL.len()]);

impl Mix {
    /// Of all classes.
    pub fn count(&self) -> u32 {
        self.0.iter().sum()
    }

    /// The classes that there are, and how many instructions of each.
    pub fn classes(&self) -> impl Iterator<Item = (Class, u32)> {
        Class::ALL.into_iter().zip(self.0).filter(|(_, count)| *count > 0)
    }
}

impl Index<Class> for Mix {
    type Output = u32;

    fn index(&self, class: Class) -> &u32 {
        &self.0[class as usize]
    }
}

/// A source line: the name of its file without the folder, and its number; an empty name where it is not known.
pub type Line = (String, u32);
/// Instructions by source line.
pub type Lines = BTreeMap<Line, u32>;

/// Some of a kernel's instructions.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Part {
    /// By class.
    pub mix: Mix,
    /// By source line, and there by class.
    pub lines: BTreeMap<Line, Mix>,
}

impl Part {
    fn new<'a, 'b: 'a>(instructions: impl IntoIterator<Item = &'a Instruction<'b>>) -> Self {
        let mut part = Self::default();
        for instruction in instructions {
            let class = Class::of(instruction) as usize;
            part.mix.0[class] += 1;
            part.lines.entry(line(instruction.source)).or_default().0[class] += 1;
        }
        part
    }

    /// How many there are.
    pub fn count(&self) -> u32 {
        self.mix.count()
    }

    /// How many there are of each source line.
    pub fn counts(&self) -> Lines {
        self.lines.iter().map(|(line, mix)| (line.clone(), mix.count())).collect()
    }
}

fn line(source: Option<Source<'_>>) -> Line {
    let name = |path: &str| Path::new(path).file_name().map(|name| name.to_string_lossy().into_owned());
    source.map_or_else(Line::default, |source| (name(source.path).unwrap_or_default(), source.line))
}

/// A natural loop.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// Address of its first instruction.
    pub start: u32,
    /// Address of its last instruction.
    pub end: u32,
    /// 1 for a loop in no other.
    pub depth: usize,
    /// Whether no other loop lies in it.
    pub innermost: bool,
    /// Its instructions, with those of loops inside.
    pub part: Part,
}

/// What a kernel executed, as the emulator's second engine counts it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Executed {
    /// PTX instructions, by warps.
    pub instructions: usize,
    /// Bank conflicts of shared memory, by source line.
    pub conflicts: Lines,
    /// Sectors of global memory that are read and written, by source line.
    pub sectors: Lines,
}

#[cfg(feature = "simt")]
impl Executed {
    /// The numbers that budgets have.
    pub fn new(counted: &simt::ptx::Counted) -> Self {
        let of = |count: &dyn Fn(&simt::ptx::Counts) -> u64| -> Lines {
            let lines = counted.lines.iter().map(|it| ((it.file.clone(), it.line), count(&it.counts)));
            lines.filter(|(_, n)| *n > 0).map(|(line, n)| (line, u32::try_from(n).unwrap_or(u32::MAX))).collect()
        };
        Self {
            instructions: counted.total.instructions() as usize,
            conflicts: of(&|counts| counts.bank_conflicts()),
            sectors: of(&|counts| counts.loads.sectors + counts.stores.sectors + counts.atomics.sectors),
        }
    }
}

/// What the compiler made of one kernel for one architecture.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Kernel {
    /// As in the source.
    pub name: String,
    /// The file that defines it: `gemm.cu`.
    pub file: String,
    /// Registers, stack and shared memory.
    pub resources: Resources,
    /// Bytes that its code stores to local memory: what ptxas calls spill stores, and arrays.
    pub spill: u32,
    /// Size of its code, with what fills the end.
    pub bytes: u32,
    /// All instructions, those of functions that it calls included.
    pub whole: Part,
    /// Outer before inner, else by address.
    pub loops: Vec<Loop>,
    /// Which of the loops does the work: the one with most tensor-core instructions outside loops inside it, then
    /// multiply-adds, then instructions.
    pub main: Option<usize>,
    /// What is executed before the main loop and the loops around it; everything where there is no loop.
    pub before: Part,
    /// What can be executed after the main loop and the loops around it.
    pub after: Part,
    /// Functions that it calls, such as a division of 64-bit integers.
    pub subroutines: Part,
    /// Loads from global memory of 16 bytes.
    pub wide_loads: u32,
    /// Asynchronous copies of 16 bytes.
    pub wide_copies: u32,
    /// Traps: paths of other architectures.
    pub traps: u32,
    /// What it executed in the cases of `weft doctor`, where that was counted.
    pub executed: Option<Executed>,
}

impl Kernel {
    fn new(function: &Function<'_>, file: &str, resources: Resources) -> Self {
        let code = &function.instructions;
        let graph = Graph::new(function);
        let loops = graph.loops();
        let part = |of: &[usize]| Part::new(of.iter().map(|at| &code[*at]));
        let own = |of: usize| {
            let inner = loops.iter().filter(|inner| inner.depth > loops[of].depth);
            let inner: BTreeSet<usize> = inner.flat_map(|inner| inner.instructions.iter().copied()).collect();
            let own = loops[of].instructions.iter().filter(|at| !inner.contains(at));
            let mix = Part::new(own.map(|at| &code[*at])).mix;
            (mix[Class::Hmma], mix[Class::Ffma], mix.count())
        };
        let main = (0..loops.len()).min_by_key(|at| Reverse(own(*at)));
        let called = function.subroutines().first().copied().unwrap_or(code.len());
        let mut before: Vec<usize> = (0..called).collect();
        let mut after = Vec::new();
        if let Some(main) = main {
            let around = loops.iter().find(|outer| outer.instructions.contains(&loops[main].instructions[0]));
            let around = &around.unwrap_or(&loops[main]).instructions;
            after = graph.reachable(around);
            before.retain(|at| after.binary_search(at).is_err());
            after.retain(|at| *at < called && around.binary_search(at).is_err());
        }
        let count = |is: &dyn Fn(&Instruction<'_>) -> bool| u32::try_from(code.iter().filter(|it| is(it)).count());
        let wide = |base: &str| count(&|it| it.base() == base && it.modifiers().any(|part| part == "128"));
        Self {
            name: function.name.into(),
            file: file.into(),
            resources,
            spill: code.iter().filter(|it| it.base() == "STL").map(width).sum(),
            bytes: function.bytes,
            whole: Part::new(code),
            before: part(&before),
            after: part(&after),
            subroutines: Part::new(&code[called..]),
            main,
            wide_loads: wide("LDG").unwrap_or(u32::MAX),
            wide_copies: wide("LDGSTS").unwrap_or(u32::MAX),
            traps: count(&|it| it.base() == "BPT").unwrap_or(u32::MAX),
            executed: None,
            loops: loops
                .iter()
                .map(|found| Loop {
                    start: found.instructions.first().map_or(0, |at| code[*at].offset),
                    end: found.instructions.last().map_or(0, |at| code[*at].offset),
                    depth: found.depth,
                    innermost: found.innermost,
                    part: part(&found.instructions),
                })
                .collect(),
        }
    }

    /// The parts of [`Kernel::lines`], in the order of their execution.
    const PARTS: [&str; 4] = ["before", "loop", "after", "called"];

    /// Instructions by source line before the main loop, in it, after it, and in functions that are called.
    pub fn lines(&self) -> [(&'static str, Lines); 4] {
        let main = self.main_loop().map(Part::counts).unwrap_or_default();
        let [before, after, called] = [&self.before, &self.after, &self.subroutines].map(Part::counts);
        let [a, b, c, d] = Self::PARTS;
        [(a, before), (b, main), (c, after), (d, called)]
    }

    /// The instructions of the main loop.
    pub fn main_loop(&self) -> Option<&Part> {
        self.main.and_then(|at| self.loops.get(at)).map(|found| &found.part)
    }
}

/// Bytes that a thread loads or stores.
fn width(instruction: &Instruction<'_>) -> u32 {
    let width = |part: &str| match part {
        "128" => Some(16),
        "64" => Some(8),
        "U16" | "S16" => Some(2),
        "U8" | "S8" => Some(1),
        _ => None,
    };
    instruction.modifiers().find_map(width).unwrap_or(4)
}

/// The fat binaries in this program.
///
/// # Errors
/// A build without GPU code.
pub fn embedded() -> Result<Vec<&'static [u8]>> {
    if IMAGES.is_empty() {
        return Err(Error::new("this program", "was built without GPU code")
            .advise("build it where nvcc is, with WEFT_CUDA=require"));
    }
    Ok(IMAGES.iter().map(|(_, image)| *image).collect())
}

/// The architecture that is meant where none is named: the highest in this program.
pub fn highest() -> &'static str {
    ARCHITECTURES.last().copied().unwrap_or_default()
}

/// Version of the compiler that built the kernels of this program, as `13.0.88`; empty without GPU code.
pub fn compiler() -> &'static str {
    NVCC.rsplit_once(", V").map_or("", |(_, version)| version)
}

/// Files of machine code, and what the kernels in them take.
type Cubins = Vec<(PathBuf, BTreeMap<String, Resources>)>;

/// Takes the machine code for an architecture out of fat binaries.
fn cubins(tools: &Tools, images: &[&[u8]], arch: &str, folder: &Path) -> Result<Cubins> {
    let extract = |(number, image): (usize, &&[u8])| {
        let folder = folder.join(number.to_string());
        std::fs::create_dir(&folder).at(&folder)?;
        let cubins = tools.extract(image, arch, &folder)?.into_iter();
        cubins.map(|path| tools.resources(&path).map(|found| (path, found))).collect::<Result<Cubins>>()
    };
    let found = images.par_iter().enumerate().map(extract).collect::<Result<Vec<_>>>()?.concat();
    if found.is_empty() {
        return Err(Error::new("GPU code", format_args!("there is none for sm_{arch}")));
    }
    Ok(found)
}

/// What the kernels in fat binaries take on an architecture such as `90a`; their code is not looked at.
///
/// # Errors
/// What a tool does not read; no machine code for the architecture.
pub fn resources(tools: &Tools, images: &[&[u8]], arch: &str) -> Result<BTreeMap<String, Resources>> {
    let folder = tempfile::tempdir().at("temporary folder")?;
    Ok(cubins(tools, images, arch, folder.path())?.into_iter().flat_map(|(_, found)| found).collect())
}

/// The kernels in fat binaries for an architecture such as `90a`, by name; only one of them if it is `wanted`.
///
/// # Errors
/// What a tool does not read; no machine code for the architecture; no kernel of that name.
pub fn kernels(tools: &Tools, images: &[&[u8]], arch: &str, wanted: Option<&str>) -> Result<Vec<Kernel>> {
    let folder = tempfile::tempdir().at("temporary folder")?;
    let mut cubins = cubins(tools, images, arch, folder.path())?;
    if let Some(wanted) = wanted {
        let is_like = |name: &&String| name.contains(wanted) || wanted.contains(name.as_str());
        let like: Vec<_> = cubins.iter().flat_map(|(_, found)| found.keys()).filter(is_like).cloned().collect();
        cubins.retain(|(_, found)| found.contains_key(wanted));
        if cubins.is_empty() {
            let error = Error::new(wanted, format_args!("no kernel for sm_{arch} has this name"));
            return Err(if like.is_empty() {
                error.advise("`weft sass` lists them")
            } else {
                error.advise(format_args!("there are {}", like.join(", ")))
            });
        }
    }
    let read = |(path, found): &(PathBuf, BTreeMap<String, Resources>)| {
        let text = tools.disassemble(path)?;
        Ok(analyse(&text, found, &file(path), wanted))
    };
    let mut kernels: Vec<Kernel> = cubins.par_iter().map(read).collect::<Result<Vec<_>>>()?.concat();
    kernels.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(kernels)
}

/// The kernels in one file of machine code that nvcc wrote with `-cubin`.
///
/// # Errors
/// What a tool does not read.
pub fn kernels_of_cubin(tools: &Tools, cubin: &Path) -> Result<Vec<Kernel>> {
    Ok(analyse(&tools.disassemble(cubin)?, &tools.resources(cubin)?, &file(cubin), None))
}

/// `gemm.cu` of `gemm.sm_90a.cubin`.
fn file(cubin: &Path) -> String {
    let name = cubin.file_name().unwrap_or_default().to_string_lossy();
    format!("{}.cu", name.split('.').next().unwrap_or_default())
}

fn analyse(text: &str, resources: &BTreeMap<String, Resources>, file: &str, wanted: Option<&str>) -> Vec<Kernel> {
    let functions = parse::functions(text);
    let functions = functions.par_iter().filter(|function| wanted.is_none_or(|wanted| wanted == function.name));
    functions.filter_map(|function| Some(Kernel::new(function, file, *resources.get(function.name)?))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A product in small, as nvdisasm prints it: a loop around a loop, an epilogue, a function that is called.
    const TEXT: &str = ".text.tiny_f32:\n\
        //## File \"/k/tiny.cu\", line 3\n\
        /*0000*/ LDC R1, c[0x0][0x28] ;\n\
        /*0010*/ @P0 EXIT ;\n\
        .L_x_0:\n\
        //## File \"/k/tiny.cu\", line 4\n\
        /*0020*/ LDG.E.128 R4, desc[UR6][R2.64] ;\n\
        .L_x_1:\n\
        //## File \"/k/tiny.cu\", line 5\n\
        /*0030*/ FFMA R0, R4, R5, R0 ;\n\
        /*0040*/ CALL.REL.NOINC `($__internal_0_$div) ;\n\
        /*0050*/ @P1 BRA `(.L_x_1) ;\n\
        //## File \"/k/tiny.cu\", line 4\n\
        /*0060*/ @P2 BRA `(.L_x_0) ;\n\
        //## File \"/k/tiny.cu\", line 6\n\
        /*0070*/ STL.64 [R1], R0 ;\n\
        /*0080*/ STG.E desc[UR6][R2.64], R0 ;\n\
        /*0090*/ EXIT ;\n\
        $__internal_0_$div:\n\
        /*00a0*/ MUFU.RCP R0, R0 ;\n\
        /*00b0*/ RET.REL.NODEC R2 `(tiny_f32) ;\n";

    pub(super) fn tiny() -> Kernel {
        let resources = Resources { registers: 20, stack: 8, shared: 0 };
        analyse(TEXT, &BTreeMap::from([("tiny_f32".into(), resources)]), "tiny.cu", None).remove(0)
    }

    #[test]
    fn parts_of_a_kernel_add_up_to_the_whole() {
        let kernel = tiny();
        assert_eq!((kernel.spill, kernel.bytes, kernel.wide_loads, kernel.whole.count()), (8, 0xc0, 1, 12));
        let [outer, inner] = kernel.loops.as_slice() else { panic!("{:?}", kernel.loops) };
        assert_eq!((outer.start, outer.end, outer.depth, outer.innermost), (0x20, 0x60, 1, false));
        assert_eq!((inner.start, inner.end, inner.depth, inner.innermost), (0x30, 0x50, 2, true));
        assert_eq!(kernel.main, Some(1), "the multiply-add is there");
        let counts = [&kernel.before, &outer.part, &kernel.after, &kernel.subroutines].map(Part::count);
        assert_eq!(counts, [2, 5, 3, 2]);
        assert_eq!(kernel.after.mix[Class::Stg], 1);
        assert_eq!(inner.part.counts(), BTreeMap::from([(("tiny.cu".into(), 5), 3)]));
    }

    #[test]
    fn classes_are_those_of_the_units() {
        let text = "HGMMA.64x64x16 UIADD3 VIADD IMAD.MOV.U32 F2FP.BF16 DEPBAR.LE LDGSTS.E.BYPASS.128 LDGDEPBAR BSYNC ULDC DFMA LD.E";
        let code: String = text.split(' ').map(|operation| format!("/*0000*/ {operation} R0 ;\n")).collect();
        let code = format!(".text.f:\n{code}");
        let found: Vec<_> =
            parse::functions(&code)[0].instructions.iter().map(|instruction| Class::of(instruction).name()).collect();
        assert_eq!(found.join(" "), "HMMA integer integer integer float other LDGSTS other branch other float LDG");
    }
}

//! From statements to instructions that can be executed: opcodes looked up, registers numbered, variables placed, branches
//! resolved. An instruction that is not known is an error by name.

use super::alu::{Alu, FORMS, File, is_approximate};
use super::count::Class;
use super::flow;
use super::parse::{Kernel, Operand, Place, Result, Source, Statement, Text, Variable, size_of};
use super::warp::{Files, Reg};
use std::collections::HashMap;
use std::sync::OnceLock;

/// Generic addresses (PTX ISA, section 5.1.2) of the spaces other than global memory, whose addresses are those of the host.
pub(super) const SHARED_WINDOW: u64 = 1 << 60;
pub(super) const LOCAL_WINDOW: u64 = 2 << 60;
pub(super) const PARAMETER_WINDOW: u64 = 3 << 60;
/// The bits that tell the windows apart.
pub(super) const WINDOWS: u64 = 3 << 60;

/// Most elements of a vector access.
const MOST_ELEMENTS: usize = 8;

/// A kernel that can be executed.
pub(super) struct Code {
    pub insts: Vec<Inst>,
    pub files: Files,
    pub specials: Vec<(Special, Reg)>,
    /// Offset and size of each parameter in the parameters' space.
    pub parameters: Vec<(usize, usize)>,
    pub parameter_bytes: usize,
    /// Static shared memory; the dynamic one begins at `dynamic`.
    pub shared_bytes: usize,
    pub dynamic: usize,
    /// Of a thread.
    pub local_bytes: usize,
}

pub(super) struct Inst {
    pub op: Op,
    /// The predicate register, and whether it is negated.
    pub guard: Option<(Reg, bool)>,
    pub class: Class,
    pub place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Space {
    Global,
    Shared,
    Local,
    Parameter,
    Generic,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    None,
    Word(Reg),
    Double(Reg),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Address {
    pub base: Base,
    pub offset: i64,
}

/// Registers of one file that an access reads or writes, a vector's elements in order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elements {
    pub file: File,
    pub registers: [Reg; MOST_ELEMENTS],
    pub count: usize,
    /// Bytes of an element in memory.
    pub bytes: usize,
    pub signed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Logic {
    And,
    Or,
    Xor,
    Not,
    Move,
}

/// How two values become one in an atomic access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    AddInteger,
    AddFloat,
    MinSigned,
    MinUnsigned,
    MaxSigned,
    MaxUnsigned,
    And,
    Or,
    Xor,
    Exchange,
    CompareAndSwap,
    /// `inc`: to the limit, then 0.
    Increment,
    /// `dec`: to 0, then the limit.
    Decrement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shuffle {
    Up,
    Down,
    Butterfly,
    Index,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Vote {
    Ballot,
    All,
    Any,
    Uniform,
}

/// Matrix products `m16n8k*` with f32 sums, by the type of the factors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Product {
    F16K16,
    Bf16K16,
    F16K8,
    Bf16K8,
    Tf32K8,
    Tf32K4,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Special {
    /// `%tid`, `%ntid`, `%ctaid`, `%nctaid` by axis.
    Thread(usize),
    Threads(usize),
    Block(usize),
    Blocks(usize),
    Lane,
    Warp,
    Warps,
    /// `%lanemask_eq`, `lt`, `le`, `gt`, `ge`.
    Equal,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Op {
    Compute {
        alu: Alu,
        to: Reg,
        from: [Reg; 4],
        approximate: bool,
    },
    Logic {
        logic: Logic,
        to: Reg,
        a: Reg,
        b: Reg,
    },
    /// `mov.b64 d, {a, b}`
    Pack {
        to: Reg,
        file: File,
        from: Elements,
    },
    /// `mov.b64 {a, b}, d`
    Unpack {
        to: Elements,
        from: Reg,
        file: File,
    },
    /// `cvta`: adds the window of a space to an address, or takes it away.
    ToGeneric {
        to: Reg,
        from: Reg,
        window: u64,
    },
    FromGeneric {
        to: Reg,
        from: Reg,
        window: u64,
    },
    Load {
        space: Space,
        to: Elements,
        address: Address,
    },
    Store {
        space: Space,
        from: Elements,
        address: Address,
    },
    Atomic {
        space: Space,
        change: Change,
        to: Option<Reg>,
        file: File,
        address: Address,
        value: Reg,
        other: Reg,
    },
    /// `cp.async` of `bytes`, of which `given` come from memory and the others are zeros.
    CopyAsync {
        to: Address,
        from: Address,
        bytes: usize,
        given: Option<Reg>,
    },
    Commit,
    /// Waits until at most this many groups are in flight; `None`: until nothing is.
    WaitCopies(Option<u32>),
    LoadMatrix {
        count: usize,
        transposed: bool,
        to: [Reg; 4],
        address: Address,
    },
    Product {
        product: Product,
        to: [Reg; 4],
        a: [Reg; 4],
        b: [Reg; 2],
        c: [Reg; 4],
    },
    Shuffle {
        shuffle: Shuffle,
        to: Reg,
        valid: Option<Reg>,
        from: Reg,
        by: Reg,
        clamp: Reg,
        members: Reg,
    },
    Vote {
        vote: Vote,
        to: Reg,
        from: Reg,
        negated: bool,
        members: Reg,
    },
    ActiveMask {
        to: Reg,
    },
    Branch {
        target: u32,
        meet: u32,
    },
    Exit,
    Barrier {
        id: Reg,
        threads: Option<Reg>,
    },
    SyncWarp {
        members: Reg,
    },
    Fence,
    Trap,
    /// Hints: prefetches, `nanosleep`.
    Nothing,
}

impl Code {
    pub fn decode(source: &Source, text: &Text) -> Result<Code> {
        let kernel = source.read(text)?;
        let mut decoder = Decoder::new(&kernel, text)?;
        let mut insts = Vec::with_capacity(kernel.statements.len() + 1);
        for statement in &kernel.statements {
            let inst = decoder.inst(statement).map_err(|error| {
                let Place { file, line } = statement.place;
                let file = text.files.get(file as usize).map_or("", String::as_str);
                format!("{}: {error} (from {file}:{line})", source.name)
            })?;
            insts.push(inst);
        }
        // A kernel ends with a return; a label may stand behind it.
        let place = insts.last().map_or(Place::default(), |inst| inst.place);
        insts.push(Inst { op: Op::Exit, guard: None, class: Class::Branch, place });
        flow::set_meeting_points(&mut insts);
        let Decoder { files, specials, layout, .. } = decoder;
        Ok(Code {
            insts,
            files,
            specials,
            parameters: layout.parameters,
            parameter_bytes: layout.parameter_bytes,
            shared_bytes: layout.shared_bytes,
            dynamic: layout.dynamic,
            local_bytes: layout.local_bytes,
        })
    }
}

/// Offsets of a kernel's variables.
#[derive(Default)]
struct Layout {
    /// The space and the offset of each variable.
    variables: HashMap<String, (Space, usize)>,
    parameters: Vec<(usize, usize)>,
    parameter_bytes: usize,
    shared_bytes: usize,
    dynamic: usize,
    local_bytes: usize,
}

impl Layout {
    fn new(kernel: &Kernel, text: &Text) -> Layout {
        let mut layout = Layout::default();
        let place = |end: &mut usize, variable: &Variable| {
            let at = end.next_multiple_of(variable.align);
            *end = at + variable.size;
            at
        };
        for variable in &kernel.parameters {
            let at = place(&mut layout.parameter_bytes, variable);
            layout.parameters.push((at, variable.size));
            layout.variables.insert(variable.name.clone(), (Space::Parameter, at));
        }
        for variable in &kernel.local {
            let at = place(&mut layout.local_bytes, variable);
            layout.variables.insert(variable.name.clone(), (Space::Local, at));
        }
        // Of the file's shared variables, those that this kernel names.
        let names = |operand: &Operand, name: &str| match operand {
            Operand::Name(found) | Operand::Memory(Some(found), _) => found == name,
            _ => false,
        };
        let used = |variable: &&Variable| {
            kernel.statements.iter().any(|s| s.operands.iter().any(|operand| names(operand, &variable.name)))
        };
        let shared: Vec<&Variable> = kernel.shared.iter().chain(text.shared.iter().filter(used)).collect();
        let dynamic = |variable: &&&Variable| variable.size == 0;
        for variable in shared.iter().filter(|variable| !dynamic(variable)) {
            let at = place(&mut layout.shared_bytes, variable);
            layout.variables.insert(variable.name.clone(), (Space::Shared, at));
        }
        let align = shared.iter().filter(dynamic).map(|variable| variable.align).max().unwrap_or(16);
        layout.dynamic = layout.shared_bytes.next_multiple_of(align);
        for variable in shared.iter().filter(dynamic) {
            layout.variables.insert(variable.name.clone(), (Space::Shared, layout.dynamic));
        }
        layout
    }
}

/// The table of arithmetic by opcode.
fn form(opcode: &str) -> Option<&'static super::alu::Form> {
    static FOUND: OnceLock<HashMap<&'static str, &'static super::alu::Form>> = OnceLock::new();
    let rows = || FORMS.iter().flat_map(|form| form.opcodes.iter().map(move |opcode| (*opcode, form)));
    FOUND.get_or_init(|| rows().collect()).get(opcode).copied()
}

struct Decoder<'a> {
    kernel: &'a Kernel,
    registers: HashMap<&'a str, (File, Reg)>,
    layout: Layout,
    files: Files,
    specials: Vec<(Special, Reg)>,
    words: HashMap<u32, Reg>,
    doubles: HashMap<u64, Reg>,
}

impl<'a> Decoder<'a> {
    fn new(kernel: &'a Kernel, text: &Text) -> Result<Self> {
        let mut files = Files::default();
        let mut registers = HashMap::new();
        for (name, kind) in &kernel.registers {
            let (file, count) = match (kind.as_str(), size_of(kind)) {
                ("pred", _) => (File::Predicate, &mut files.predicates),
                (_, Some(1..=4)) => (File::Word, &mut files.words),
                (_, Some(8)) => (File::Double, &mut files.doubles),
                _ => return Err(format!("registers of type {kind}")),
            };
            registers.insert(name.as_str(), (file, *count as Reg));
            *count += 1;
        }
        let layout = Layout::new(kernel, text);
        let (words, doubles) = (HashMap::new(), HashMap::new());
        Ok(Decoder { kernel, registers, layout, files, specials: Vec::new(), words, doubles })
    }

    fn inst(&mut self, statement: &Statement) -> Result<Inst> {
        let guard = match &statement.guard {
            Some((name, negated)) => Some((self.register(name, File::Predicate)?, *negated)),
            None => None,
        };
        let (op, class) = self.op(statement)?;
        Ok(Inst { op, guard, class, place: statement.place })
    }

    fn op(&mut self, statement: &Statement) -> Result<(Op, Class)> {
        let opcode = statement.opcode.as_str();
        let operands = statement.operands.as_slice();
        let is_wide = |operand: &Operand| match operand {
            Operand::Name(name) => self.registers.get(name.as_str()).is_some_and(|(file, _)| *file == File::Double),
            _ => false,
        };
        let wide = operands.last().is_some_and(is_wide).then(|| form(&format!("{opcode} of 64 bits"))).flatten();
        if let (Some(form), false) =
            (wide.or_else(|| form(opcode)), operands.iter().any(|o| matches!(o, Operand::Vector(_))))
        {
            let [to, sources @ ..] = operands else { return Err(format!("{opcode} without operands")) };
            if sources.len() != form.operands.len() {
                return Err(format!("{opcode} with {} operands", operands.len()));
            }
            let mut from = [0; 4];
            for (slot, (operand, file)) in from.iter_mut().zip(sources.iter().zip(form.operands)) {
                *slot = self.source(operand, *file)?;
            }
            let to = self.target(to, form.result)?;
            return Ok((Op::Compute { alu: form.alu, to, from, approximate: is_approximate(opcode) }, form.class));
        }
        let parts: Vec<&str> = opcode.split('.').collect();
        let unknown = || format!("unknown instruction `{opcode}`");
        let is = |word: &str| parts.contains(&word);
        let simple = |op, class| Ok((op, class));
        match (parts[0], operands) {
            ("and" | "or" | "xor" | "not" | "mov", [to, from @ ..]) if opcode.ends_with(".pred") => {
                let logic = match parts[0] {
                    "and" => Logic::And,
                    "or" => Logic::Or,
                    "xor" => Logic::Xor,
                    "not" => Logic::Not,
                    _ => Logic::Move,
                };
                let to = self.target(to, File::Predicate)?;
                let a = self.source(from.first().ok_or_else(unknown)?, File::Predicate)?;
                let b = from.get(1).map_or(Ok(a), |b| self.source(b, File::Predicate))?;
                simple(Op::Logic { logic, to, a, b }, Class::Predicate)
            }
            ("mov", [to, Operand::Vector(from)]) => {
                let (bytes, file) = whole(&parts)?;
                let from = self.elements(from, bytes / from.len().max(1), false)?;
                simple(Op::Pack { to: self.target(to, file)?, file, from }, Class::Move)
            }
            ("mov", [Operand::Vector(to), from]) => {
                let (bytes, file) = whole(&parts)?;
                let to = self.elements(to, bytes / to.len().max(1), false)?;
                simple(Op::Unpack { to, from: self.source(from, file)?, file }, Class::Move)
            }
            ("cvta", [to, from]) => {
                let window = match () {
                    () if is("shared") => SHARED_WINDOW,
                    () if is("local") => LOCAL_WINDOW,
                    () if is("param") => PARAMETER_WINDOW,
                    () if is("global") || is("const") => 0,
                    () => return Err(unknown()),
                };
                let (to, from) = (self.target(to, File::Double)?, self.source(from, File::Double)?);
                let op =
                    if is("to") { Op::FromGeneric { to, from, window } } else { Op::ToGeneric { to, from, window } };
                simple(op, Class::Move)
            }
            ("ld" | "ldu", [to, address]) => {
                let space = space(&parts);
                let to = self.vector(to, &parts)?;
                let (space, address) = self.address(address, space)?;
                let class = match space {
                    Space::Global | Space::Generic => Class::LoadGlobal,
                    Space::Shared => Class::LoadShared,
                    Space::Local => Class::Local,
                    Space::Parameter => Class::Move,
                };
                simple(Op::Load { space, to, address }, class)
            }
            ("st", [address, from]) => {
                let space = space(&parts);
                let from = self.vector(from, &parts)?;
                let (space, address) = self.address(address, space)?;
                let class = match space {
                    Space::Global | Space::Generic => Class::StoreGlobal,
                    Space::Shared => Class::StoreShared,
                    Space::Local => Class::Local,
                    Space::Parameter => return Err("a store to a parameter".into()),
                };
                simple(Op::Store { space, from, address }, class)
            }
            ("atom" | "red", _) => self.atomic(&parts, operands),
            ("cp", [to, from, bytes, given @ ..]) if opcode.starts_with("cp.async.c") => {
                let (_, to) = self.address(to, Space::Shared)?;
                let (_, from) = self.address(from, Space::Global)?;
                let Operand::Integer(bytes @ (4 | 8 | 16)) = *bytes else { return Err(unknown()) };
                let given = match given {
                    [] => None,
                    [given] => Some(self.source(given, File::Word)?),
                    _ => return Err(unknown()),
                };
                simple(Op::CopyAsync { to, from, bytes: bytes as usize, given }, Class::AsyncCopy)
            }
            ("cp", []) if opcode == "cp.async.commit_group" => simple(Op::Commit, Class::Barrier),
            ("cp", []) if opcode == "cp.async.wait_all" => simple(Op::WaitCopies(None), Class::Barrier),
            ("cp", [Operand::Integer(left)]) if opcode == "cp.async.wait_group" => {
                simple(Op::WaitCopies(Some(*left as u32)), Class::Barrier)
            }
            ("ldmatrix", [to, address]) if is("m8n8") && is("b16") => {
                let registers = match to {
                    Operand::Vector(registers) => registers.as_slice(),
                    one => std::slice::from_ref(one),
                };
                if !is(["x1", "x2", "", "x4"].get(registers.len().wrapping_sub(1)).unwrap_or(&"")) {
                    return Err(format!("{opcode} of {} registers", registers.len()));
                }
                let to = self.targets(registers)?;
                let (_, address) = self.address(address, Space::Shared)?;
                let op = Op::LoadMatrix { count: registers.len(), transposed: is("trans"), to, address };
                simple(op, Class::LoadMatrix)
            }
            ("mma", [Operand::Vector(to), Operand::Vector(a), Operand::Vector(b), Operand::Vector(c)]) => {
                let product = product(opcode).ok_or_else(unknown)?;
                let (left, right) = product.registers();
                if [to.len(), a.len(), b.len(), c.len()] != [4, left, right, 4] {
                    return Err(format!(
                        "{opcode} of {}, {}, {} and {} registers",
                        to.len(),
                        a.len(),
                        b.len(),
                        c.len()
                    ));
                }
                let to = self.targets(to)?;
                let (a, b, c) = (self.sources(a)?, self.sources(b)?, self.sources(c)?);
                simple(Op::Product { product, to, a, b: [b[0], b[1]], c }, Class::Tensor)
            }
            ("shfl", [to, from, by, clamp, members]) if is("sync") && is("b32") => {
                let shuffle = match parts.get(2) {
                    Some(&"up") => Shuffle::Up,
                    Some(&"down") => Shuffle::Down,
                    Some(&"bfly") => Shuffle::Butterfly,
                    Some(&"idx") => Shuffle::Index,
                    _ => return Err(unknown()),
                };
                let (to, valid) = match to {
                    Operand::Vector(pair) if pair.len() == 2 => (&pair[0], Some(&pair[1])),
                    to => (to, None),
                };
                let valid = valid.map(|valid| self.target(valid, File::Predicate)).transpose()?;
                let to = self.target(to, File::Word)?;
                let [from, by, clamp, members] = self.sources([from, by, clamp, members])?;
                simple(Op::Shuffle { shuffle, to, valid, from, by, clamp, members }, Class::Exchange)
            }
            ("vote", [to, from, members]) if is("sync") => {
                let vote = match parts.get(2) {
                    Some(&"ballot") => Vote::Ballot,
                    Some(&"all") => Vote::All,
                    Some(&"any") => Vote::Any,
                    Some(&"uni") => Vote::Uniform,
                    _ => return Err(unknown()),
                };
                let file = if vote == Vote::Ballot { File::Word } else { File::Predicate };
                let (from, negated) = match from {
                    Operand::Not(name) => (self.register(name, File::Predicate)?, true),
                    from => (self.source(from, File::Predicate)?, false),
                };
                let members = self.source(members, File::Word)?;
                simple(Op::Vote { vote, to: self.target(to, file)?, from, negated, members }, Class::Exchange)
            }
            ("activemask", [to]) => simple(Op::ActiveMask { to: self.target(to, File::Word)? }, Class::Exchange),
            ("bra", [Operand::Name(label)]) => {
                let target = *self.kernel.labels.get(label).ok_or(format!("no label {label}"))? as u32;
                simple(Op::Branch { target, meet: flow::END }, Class::Branch)
            }
            ("ret" | "exit", []) => simple(Op::Exit, Class::Branch),
            ("bar" | "barrier", [members]) if is("warp") => {
                simple(Op::SyncWarp { members: self.source(members, File::Word)? }, Class::Barrier)
            }
            ("bar" | "barrier", [id, threads @ ..]) if is("sync") && threads.len() < 2 => {
                let id = self.source(id, File::Word)?;
                let threads = threads.first().map(|threads| self.source(threads, File::Word)).transpose()?;
                simple(Op::Barrier { id, threads }, Class::Barrier)
            }
            ("membar" | "fence", []) => simple(Op::Fence, Class::Barrier),
            ("trap" | "brkpt", []) => simple(Op::Trap, Class::Branch),
            ("nanosleep" | "prefetch" | "prefetchu", _) => simple(Op::Nothing, Class::Move),
            _ => Err(unknown()),
        }
    }

    /// `atom.global.add.f32 d, [a], b` and `red.global.add.f32 [a], b`.
    fn atomic(&mut self, parts: &[&str], operands: &[Operand]) -> Result<(Op, Class)> {
        let unknown = || format!("unknown instruction `{}`", parts.join("."));
        let kind = *parts.last().ok_or_else(unknown)?;
        let file = match kind {
            "u32" | "s32" | "b32" | "f32" => File::Word,
            "u64" | "s64" | "b64" | "f64" => File::Double,
            _ => return Err(unknown()),
        };
        let (float, signed) = (kind.starts_with('f'), kind.starts_with('s'));
        let change = match parts[parts.len() - 2] {
            "add" if float => Change::AddFloat,
            _ if float => return Err(unknown()),
            "add" => Change::AddInteger,
            "min" if signed => Change::MinSigned,
            "min" => Change::MinUnsigned,
            "max" if signed => Change::MaxSigned,
            "max" => Change::MaxUnsigned,
            "and" => Change::And,
            "or" => Change::Or,
            "xor" => Change::Xor,
            "exch" => Change::Exchange,
            "cas" => Change::CompareAndSwap,
            "inc" => Change::Increment,
            "dec" => Change::Decrement,
            _ => return Err(unknown()),
        };
        let (to, rest) = match (parts[0], operands) {
            ("atom", [to, rest @ ..]) => (Some(self.target(to, file)?), rest),
            (_, rest) => (None, rest),
        };
        let (address, value, other) = match (rest, change) {
            ([address, compare, value], Change::CompareAndSwap) => (address, value, Some(compare)),
            ([address, value], _) => (address, value, None),
            _ => return Err(unknown()),
        };
        let (space, address) = self.address(address, space(parts))?;
        let value = self.source(value, file)?;
        let other = other.map_or(Ok(value), |other| self.source(other, file))?;
        Ok((Op::Atomic { space, change, to, file, address, value, other }, Class::Atomic))
    }

    fn register(&self, name: &str, file: File) -> Result<Reg> {
        match self.registers.get(name) {
            Some(&(found, register)) if found == file => Ok(register),
            Some(_) => Err(format!("{name} has another width")),
            None => Err(format!("no register {name}")),
        }
    }

    fn target(&self, operand: &Operand, file: File) -> Result<Reg> {
        match operand {
            Operand::Name(name) => self.register(name, file),
            other => Err(format!("{other:?} as a result")),
        }
    }

    /// A register with the value of an operand: its own, a constant's, a special register's.
    fn source(&mut self, operand: &Operand, file: File) -> Result<Reg> {
        let bits = match operand {
            Operand::Name(name) => match special(name) {
                Some(special) if file == File::Word => return Ok(self.special(special)),
                _ => match self.layout.variables.get(name) {
                    Some((_, offset)) => *offset as u64,
                    None => return self.register(name, file),
                },
            },
            Operand::Integer(n) => *n as u64,
            Operand::Float(bits) if file == File::Word => u64::from(*bits),
            Operand::Double(bits) if file == File::Double => *bits,
            other => return Err(format!("{other:?} as an operand")),
        };
        Ok(self.constant(bits, file))
    }

    fn constant(&mut self, bits: u64, file: File) -> Reg {
        let files = &mut self.files;
        match file {
            File::Word => *self.words.entry(bits as u32).or_insert_with(|| {
                files.words += 1;
                files.word_constants.push((files.words as Reg - 1, bits as u32));
                files.words as Reg - 1
            }),
            File::Double => *self.doubles.entry(bits).or_insert_with(|| {
                files.doubles += 1;
                files.double_constants.push((files.doubles as Reg - 1, bits));
                files.doubles as Reg - 1
            }),
            File::Predicate => {
                files.predicates += 1;
                files.predicate_constants.push((files.predicates as Reg - 1, bits != 0));
                files.predicates as Reg - 1
            }
        }
    }

    fn special(&mut self, special: Special) -> Reg {
        if let Some((_, register)) = self.specials.iter().find(|(known, _)| *known == special) {
            return *register;
        }
        self.files.words += 1;
        let register = self.files.words as Reg - 1;
        self.specials.push((special, register));
        register
    }

    /// Up to four registers of 32 bits that are read.
    fn sources<'o>(&mut self, operands: impl IntoIterator<Item = &'o Operand>) -> Result<[Reg; 4]> {
        let mut registers = [0; 4];
        for (register, operand) in registers.iter_mut().zip(operands) {
            *register = self.source(operand, File::Word)?;
        }
        Ok(registers)
    }

    /// Up to four registers of 32 bits that are written.
    fn targets(&self, operands: &[Operand]) -> Result<[Reg; 4]> {
        let mut registers = [0; 4];
        for (register, operand) in registers.iter_mut().zip(operands) {
            *register = self.target(operand, File::Word)?;
        }
        Ok(registers)
    }

    /// What a load or a store moves: `.v4.f32`.
    fn vector(&mut self, operand: &Operand, parts: &[&str]) -> Result<Elements> {
        let kind = *parts.last().unwrap_or(&"");
        let bytes = size_of(kind).ok_or(format!("unknown instruction `{}`", parts.join(".")))?;
        let list = match operand {
            Operand::Vector(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        self.elements(list, bytes, kind.starts_with('s'))
    }

    fn elements(&mut self, list: &[Operand], bytes: usize, signed: bool) -> Result<Elements> {
        if list.is_empty() || list.len() > MOST_ELEMENTS {
            return Err(format!("a vector of {}", list.len()));
        }
        let declared = list.iter().find_map(|operand| match operand {
            Operand::Name(name) => self.registers.get(name.as_str()).map(|(file, _)| *file),
            _ => None,
        });
        let file = declared.unwrap_or(if bytes == 8 { File::Double } else { File::Word });
        let mut registers = [0; MOST_ELEMENTS];
        for (register, operand) in registers.iter_mut().zip(list) {
            *register = match operand {
                // `_`: an element that nobody needs.
                Operand::Name(name) if name == "_" => self.unused(file),
                operand => self.source(operand, file)?,
            };
        }
        Ok(Elements { file, registers, count: list.len(), bytes, signed })
    }

    fn unused(&mut self, file: File) -> Reg {
        let count = match file {
            File::Word => &mut self.files.words,
            File::Double => &mut self.files.doubles,
            File::Predicate => &mut self.files.predicates,
        };
        *count += 1;
        *count as Reg - 1
    }

    /// An address, and its space: a variable that is named tells it where the opcode does not.
    fn address(&mut self, operand: &Operand, space: Space) -> Result<(Space, Address)> {
        let Operand::Memory(base, offset) = operand else { return Err(format!("{operand:?} as an address")) };
        let Some(name) = base else { return Ok((space, Address { base: Base::None, offset: *offset })) };
        if let Some(&(found, at)) = self.layout.variables.get(name) {
            if space != found && space != Space::Generic {
                return Err(format!("{name} is in another space"));
            }
            return Ok((found, Address { base: Base::None, offset: at as i64 + offset }));
        }
        let base = match self.registers.get(name.as_str()) {
            Some((File::Word, register)) => Base::Word(*register),
            Some((File::Double, register)) => Base::Double(*register),
            _ => return Err(format!("no variable or register {name}")),
        };
        Ok((space, Address { base, offset: *offset }))
    }
}

/// The state space in an opcode.
fn space(parts: &[&str]) -> Space {
    let named = parts.iter().find_map(|part| {
        Some(match part.split("::").next()? {
            "global" | "const" => Space::Global,
            "shared" => Space::Shared,
            "local" => Space::Local,
            "param" => Space::Parameter,
            _ => return None,
        })
    });
    named.unwrap_or(Space::Generic)
}

/// Width and file of what `mov.b32` and `mov.b64` take apart.
fn whole(parts: &[&str]) -> Result<(usize, File)> {
    match parts.last() {
        Some(&"b32") => Ok((4, File::Word)),
        Some(&"b64") => Ok((8, File::Double)),
        _ => Err(format!("unknown instruction `{}` of a vector", parts.join("."))),
    }
}

fn product(opcode: &str) -> Option<Product> {
    let rest = opcode.strip_prefix("mma.sync.aligned.m16n8")?;
    Some(match rest {
        "k16.row.col.f32.f16.f16.f32" => Product::F16K16,
        "k16.row.col.f32.bf16.bf16.f32" => Product::Bf16K16,
        "k8.row.col.f32.f16.f16.f32" => Product::F16K8,
        "k8.row.col.f32.bf16.bf16.f32" => Product::Bf16K8,
        "k8.row.col.f32.tf32.tf32.f32" => Product::Tf32K8,
        "k4.row.col.f32.tf32.tf32.f32" => Product::Tf32K4,
        _ => return None,
    })
}

/// Section 10, special registers.
fn special(name: &str) -> Option<Special> {
    let axis = |rest: &str| ["x", "y", "z"].iter().position(|axis| *axis == rest);
    let (base, rest) = name.strip_prefix('%')?.split_once('.').unwrap_or((&name[1..], ""));
    Some(match (base, axis(rest)) {
        ("tid", Some(axis)) => Special::Thread(axis),
        ("ntid", Some(axis)) => Special::Threads(axis),
        ("ctaid", Some(axis)) => Special::Block(axis),
        ("nctaid", Some(axis)) => Special::Blocks(axis),
        ("laneid", None) => Special::Lane,
        ("warpid", None) => Special::Warp,
        ("nwarpid", None) => Special::Warps,
        ("lanemask_eq", None) => Special::Equal,
        ("lanemask_lt", None) => Special::Less,
        ("lanemask_le", None) => Special::LessEqual,
        ("lanemask_gt", None) => Special::Greater,
        ("lanemask_ge", None) => Special::GreaterEqual,
        _ => return None,
    })
}

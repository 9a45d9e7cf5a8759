//! Reads PTX text, as nvcc writes it, into kernels of statements. Nothing here knows what an instruction does.
//!
//! Grammar: PTX ISA 9.0, section 4 (syntax) and 5 (state spaces). Debug sections are skipped; `.loc` lines give each
//! statement its place in the source.

use std::collections::HashMap;

pub(super) type Result<T> = std::result::Result<T, String>;

/// A place in the source: index into [`Text::files`], and the line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Place {
    pub file: u32,
    pub line: u32,
}

/// A PTX file: its kernels still as text, so that only those that are launched are read further.
pub(super) struct Text {
    /// File names without folders; the first, for index 0, is empty.
    pub files: Vec<String>,
    /// Files of the toolkit and of other libraries: places in them are replaced by the line that includes them.
    foreign: Vec<bool>,
    pub kernels: HashMap<String, Source>,
    /// Shared variables declared outside of kernels.
    pub shared: Vec<Variable>,
    /// The value of `.target`: `sm_90a`.
    pub target: String,
}

/// One `.entry`.
pub(super) struct Source {
    pub name: String,
    /// From the opening parenthesis of the parameters to the end of the body.
    text: String,
}

/// A variable in some state space.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Variable {
    pub name: String,
    pub align: usize,
    /// In bytes; 0 for the dynamic shared memory, whose size the launch gives.
    pub size: usize,
}

/// A kernel, read.
#[derive(Debug, Default)]
pub(super) struct Kernel {
    pub parameters: Vec<Variable>,
    pub shared: Vec<Variable>,
    pub local: Vec<Variable>,
    /// Registers by name with their type: `%r1` is `b32`.
    pub registers: HashMap<String, String>,
    pub statements: Vec<Statement>,
    /// Label to index of the statement that follows it.
    pub labels: HashMap<String, usize>,
}

/// One instruction.
#[derive(Debug)]
pub(super) struct Statement {
    /// The predicate, and whether it is negated.
    pub guard: Option<(String, bool)>,
    pub opcode: String,
    pub operands: Vec<Operand>,
    pub place: Place,
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Operand {
    /// A register, a special register, a variable or a label.
    Name(String),
    /// `!%p1`
    Not(String),
    Integer(i64),
    /// Bits of `0f3F800000` and `0d3FF0000000000000`.
    Float(u32),
    Double(u64),
    /// `[base+offset]`; no base where the address is a number.
    Memory(Option<String>, i64),
    /// `{a, b}`; the second of `d|p` is a vector's second element, too.
    Vector(Vec<Operand>),
}

#[derive(Clone, Debug, PartialEq)]
enum Token<'a> {
    /// A name, an opcode, a directive, a number.
    Word(&'a str),
    Text(&'a str),
    Sign(char),
}

struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Lexer<'a> {
    fn new(text: &'a str) -> Self {
        Lexer { text, at: 0 }
    }

    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn skip_blanks(&mut self) {
        loop {
            let rest = self.rest();
            let blank = rest.len() - rest.trim_start().len();
            self.at += blank;
            let rest = self.rest();
            let comment = if rest.starts_with("//") {
                rest.find('\n')
            } else if rest.starts_with("/*") {
                rest.find("*/").map(|end| end + 2)
            } else if blank == 0 {
                return;
            } else {
                Some(0)
            };
            self.at += comment.unwrap_or(rest.len());
        }
    }

    fn next(&mut self) -> Option<Token<'a>> {
        self.skip_blanks();
        let rest = self.rest();
        let first = rest.chars().next()?;
        if first == '"' {
            let end = rest[1..].find('"').map_or(rest.len(), |end| end + 2);
            self.at += end;
            return Some(Token::Text(rest[..end].trim_matches('"')));
        }
        let is_word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '$' | '%' | '.');
        if is_word(first) {
            let mut end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            while let Some(more) = rest[end..].strip_prefix("::") {
                end += 2 + more.find(|c| !is_word(c)).unwrap_or(more.len()); // ld.global.L2::128B
            }
            self.at += end;
            return Some(Token::Word(&rest[..end]));
        }
        self.at += first.len_utf8();
        Some(Token::Sign(first))
    }

    fn peek(&mut self) -> Option<Token<'a>> {
        let at = self.at;
        let token = self.next();
        self.at = at;
        token
    }

    fn word(&mut self, what: &str) -> Result<&'a str> {
        match self.next() {
            Some(Token::Word(word)) => Ok(word),
            other => Err(format!("{what} expected, found {other:?}")),
        }
    }

    fn sign(&mut self, sign: char) -> Result<()> {
        match self.next() {
            Some(Token::Sign(found)) if found == sign => Ok(()),
            other => Err(format!("`{sign}` expected, found {other:?}")),
        }
    }

    /// Consumes `sign` if it is next.
    fn take(&mut self, sign: char) -> bool {
        let found = self.peek() == Some(Token::Sign(sign));
        if found {
            self.at += sign.len_utf8();
        }
        found
    }

    fn integer(&mut self, what: &str) -> Result<i64> {
        let negative = self.take('-');
        let word = self.word(what)?;
        integer(word).map(|n| if negative { n.wrapping_neg() } else { n }).ok_or(format!("{what}: `{word}`"))
    }

    /// Everything up to the brace that closes the one just read.
    fn skip_braces(&mut self) {
        let mut depth = 1;
        while depth > 0 {
            match self.next() {
                Some(Token::Sign('{')) => depth += 1,
                Some(Token::Sign('}')) => depth -= 1,
                Some(_) => {}
                None => return,
            }
        }
    }

    fn skip_statement(&mut self) {
        loop {
            match self.next() {
                Some(Token::Sign('{')) => self.skip_braces(),
                Some(Token::Sign(';')) | None => return,
                Some(_) => {}
            }
        }
    }
}

/// Section 4.5: decimal, hexadecimal, octal and binary, with an optional `U`.
fn integer(word: &str) -> Option<i64> {
    let word = word.trim_end_matches('U');
    let parse = |digits: &str, radix| u64::from_str_radix(digits, radix).ok().map(|n| n as i64);
    match word.as_bytes() {
        [b'0', b'x' | b'X', ..] => parse(&word[2..], 16),
        [b'0', b'b' | b'B', ..] => parse(&word[2..], 2),
        [b'0', _, ..] => parse(&word[1..], 8),
        _ => parse(word, 10),
    }
}

impl Text {
    pub fn read(text: &str) -> Result<Text> {
        let mut lexer = Lexer::new(text);
        let mut out = Text {
            files: vec![String::new()],
            foreign: vec![false],
            kernels: HashMap::new(),
            shared: Vec::new(),
            target: String::new(),
        };
        while let Some(token) = lexer.next() {
            match token {
                Token::Word(".version" | ".address_size") => drop(lexer.next()),
                Token::Word(".target") => {
                    lexer.word("an architecture")?.clone_into(&mut out.target);
                    while lexer.take(',') {
                        lexer.next();
                    }
                }
                Token::Word(".file") => out.file(&mut lexer)?,
                Token::Word(".section") => {
                    lexer.word("a section's name")?;
                    lexer.sign('{')?;
                    lexer.skip_braces();
                }
                Token::Word(".visible" | ".weak" | ".extern" | ".common") => {}
                Token::Word(".entry") => out.entry(&mut lexer)?,
                Token::Word(".shared") => out.shared.push(variable(&mut lexer)?),
                // Functions and variables in global memory: an instruction that uses one is an error where it is decoded.
                Token::Word(".func") => loop {
                    match lexer.next() {
                        Some(Token::Sign('{')) => break lexer.skip_braces(),
                        Some(Token::Sign(';')) | None => break,
                        Some(_) => {}
                    }
                },
                Token::Word(_) => lexer.skip_statement(),
                other => return Err(format!("{other:?} outside of a kernel")),
            }
        }
        if out.target.is_empty() { Err("no .target: this is no PTX".into()) } else { Ok(out) }
    }

    /// `.file 1 "/path/conv.cu"`, with a time and a size at times.
    fn file(&mut self, lexer: &mut Lexer<'_>) -> Result<()> {
        let index = lexer.integer("a file's number")? as usize;
        let Some(Token::Text(path)) = lexer.next() else { return Err(".file without a name".into()) };
        while lexer.take(',') {
            lexer.next();
        }
        if index > 1 << 16 {
            return Err(format!("file number {index}"));
        }
        self.files.resize(self.files.len().max(index + 1), String::new());
        self.foreign.resize(self.files.len(), false);
        self.files[index] = path.rsplit('/').next().unwrap_or_default().to_owned();
        self.foreign[index] = path.starts_with("include/") || path.contains("/include/");
        Ok(())
    }

    fn entry(&mut self, lexer: &mut Lexer<'_>) -> Result<()> {
        let name = lexer.word("a kernel's name")?.to_owned();
        let start = lexer.at;
        while !matches!(lexer.next(), Some(Token::Sign('{')) | None) {}
        lexer.skip_braces();
        let text = lexer.text[start..lexer.at].to_owned();
        self.kernels.insert(name.clone(), Source { name, text });
        Ok(())
    }
}

/// After the state space: `.align 8 .b8 name[96];` or, for the elements of a list, without the semicolon.
fn variable(lexer: &mut Lexer<'_>) -> Result<Variable> {
    let (mut align, mut bytes) = (0, 0);
    let name = loop {
        match lexer.word("a variable")? {
            ".align" => align = lexer.integer("an alignment")? as usize,
            ".ptr" | ".global" | ".shared" | ".const" | ".local" => {}
            word if word.starts_with('.') => bytes = size_of(&word[1..]).ok_or(format!("type {word}"))?,
            word => break word.to_owned(),
        }
    };
    let mut size = bytes;
    while lexer.take('[') {
        let length = if lexer.take(']') {
            0
        } else {
            let length = lexer.integer("a length")?;
            lexer.sign(']')?;
            length
        };
        size *= usize::try_from(length).map_err(|_| format!("{name} has {length} elements"))?;
    }
    lexer.take(';');
    Ok(Variable { name, align: align.max(bytes).max(1), size })
}

/// Bytes of a fundamental type (section 5.2.1).
pub(super) fn size_of(name: &str) -> Option<usize> {
    Some(match name {
        "b8" | "u8" | "s8" => 1,
        "b16" | "u16" | "s16" | "f16" | "bf16" => 2,
        "b32" | "u32" | "s32" | "f32" | "f16x2" | "bf16x2" => 4,
        "b64" | "u64" | "s64" | "f64" => 8,
        "b128" => 16,
        _ => return None,
    })
}

impl Source {
    pub fn read(&self, text: &Text) -> Result<Kernel> {
        let mut lexer = Lexer::new(&self.text);
        let mut kernel = Kernel::default();
        lexer.sign('(')?;
        while !lexer.take(')') {
            let space = lexer.word("a parameter")?;
            if space != ".param" {
                return Err(format!("parameter in {space}"));
            }
            kernel.parameters.push(variable(&mut lexer)?);
            lexer.take(',');
        }
        while !matches!(lexer.next(), Some(Token::Sign('{')) | None) {} // .maxntid and similar
        let mut reader = Reader { lexer, kernel, text, scopes: vec![HashMap::new()], place: Place::default() };
        reader.body()?;
        Ok(reader.kernel)
    }
}

struct Reader<'a> {
    lexer: Lexer<'a>,
    kernel: Kernel,
    text: &'a Text,
    /// Names declared in braces, with the unique names that they have in the kernel.
    scopes: Vec<HashMap<String, String>>,
    place: Place,
}

impl Reader<'_> {
    fn body(&mut self) -> Result<()> {
        loop {
            let token = self.lexer.next().ok_or("the kernel does not end")?;
            match token {
                Token::Sign('{') => self.scopes.push(HashMap::new()),
                Token::Sign('}') => {
                    self.scopes.pop();
                    if self.scopes.is_empty() {
                        return Ok(());
                    }
                }
                Token::Sign(';') => {}
                Token::Word(".reg") => self.registers()?,
                Token::Word(".shared") => {
                    let variable = variable(&mut self.lexer)?;
                    self.kernel.shared.push(variable);
                }
                Token::Word(".local") => {
                    let variable = variable(&mut self.lexer)?;
                    self.kernel.local.push(variable);
                }
                Token::Word(".loc") => self.location()?,
                Token::Word(word) if word.starts_with('.') => self.lexer.skip_statement(),
                Token::Word(word) if self.lexer.take(':') => {
                    self.kernel.labels.insert(word.to_owned(), self.kernel.statements.len());
                }
                Token::Word(word) => self.statement(None, word)?,
                Token::Sign('@') => {
                    let negated = self.lexer.take('!');
                    let predicate = self.lexer.word("a predicate")?;
                    let guard = (self.unique(predicate), negated);
                    let opcode = self.lexer.word("an instruction")?;
                    self.statement(Some(guard), opcode)?;
                }
                other => return Err(format!("{other:?} in a kernel")),
            }
        }
    }

    /// `.reg .b32 %r<140>;` or `.reg .pred p, q;`
    fn registers(&mut self) -> Result<()> {
        let kind = self.lexer.word("a register's type")?.trim_start_matches('.').to_owned();
        loop {
            let name = self.lexer.word("a register")?;
            if self.lexer.take('<') {
                let count = self.lexer.integer("a number of registers")?;
                self.lexer.sign('>')?;
                for index in 0..count {
                    self.declare(&format!("{name}{index}"), &kind);
                }
            } else {
                self.declare(name, &kind);
            }
            if !self.lexer.take(',') {
                return self.lexer.sign(';');
            }
        }
    }

    fn declare(&mut self, name: &str, kind: &str) {
        let depth = self.scopes.len();
        let mut unique = name.to_owned();
        if depth > 1 {
            unique = format!("{name}@{}", self.kernel.registers.len());
            self.scopes[depth - 1].insert(name.to_owned(), unique.clone());
        }
        self.kernel.registers.insert(unique, kind.to_owned());
    }

    /// The name that a register has in the kernel.
    fn unique(&self, name: &str) -> String {
        let inner = self.scopes.iter().rev().find_map(|scope| scope.get(name));
        inner.cloned().unwrap_or_else(|| name.to_owned())
    }

    /// `.loc 2 38 74, function_name $L__info_string3, inlined_at 1 46 3`: nvcc writes the outermost place of an inlined
    /// call first, so the last one in the user's own files is kept.
    fn location(&mut self) -> Result<()> {
        let file = self.lexer.integer("a file")? as usize;
        let line = self.lexer.integer("a line")? as u32;
        self.lexer.integer("a column")?;
        while self.lexer.take(',') {
            if self.lexer.word("function_name or inlined_at")? == "inlined_at" {
                for _ in 0..3 {
                    self.lexer.integer("a place")?;
                }
            } else {
                self.lexer.next();
                while self.lexer.take('+') {
                    self.lexer.next();
                }
            }
        }
        let own = self.text.foreign.get(file).is_some_and(|foreign| !foreign);
        if own && line > 0 {
            self.place = Place { file: file as u32, line };
        }
        Ok(())
    }

    fn statement(&mut self, guard: Option<(String, bool)>, opcode: &str) -> Result<()> {
        let mut operands = Vec::new();
        while !self.lexer.take(';') {
            let mut operand = self.operand()?;
            if self.lexer.take('|') {
                operand = Operand::Vector(vec![operand, self.operand()?]);
            }
            operands.push(operand);
            self.lexer.take(',');
        }
        let (opcode, place) = (opcode.to_owned(), self.place);
        self.kernel.statements.push(Statement { guard, opcode, operands, place });
        Ok(())
    }

    fn operand(&mut self) -> Result<Operand> {
        match self.lexer.next() {
            Some(Token::Sign('{')) => {
                let mut elements = Vec::new();
                while !self.lexer.take('}') {
                    elements.push(self.operand()?);
                    self.lexer.take(',');
                }
                Ok(Operand::Vector(elements))
            }
            Some(Token::Sign('[')) => {
                let base = match self.lexer.peek() {
                    Some(Token::Word(word)) if integer(word).is_none() => Some(self.lexer.word("an address")?),
                    _ => None,
                };
                let mut offset = 0;
                while !self.lexer.take(']') {
                    self.lexer.take('+');
                    offset += self.lexer.integer("an offset")?;
                }
                Ok(Operand::Memory(base.map(|base| self.unique(base)), offset))
            }
            Some(Token::Sign('!')) => {
                let name = self.lexer.word("a predicate")?;
                Ok(Operand::Not(self.unique(name)))
            }
            Some(Token::Sign('-')) => {
                let word = self.lexer.word("a number")?;
                integer(word).map(|n| Operand::Integer(n.wrapping_neg())).ok_or(format!("number -{word}"))
            }
            Some(Token::Word(word)) => {
                let hex = |digits: &str| u64::from_str_radix(digits, 16).ok();
                Ok(match word.get(..2) {
                    Some("0f" | "0F") if word.len() == 10 => {
                        Operand::Float(hex(&word[2..]).ok_or(format!("number {word}"))? as u32)
                    }
                    Some("0d" | "0D") if word.len() == 18 => {
                        Operand::Double(hex(&word[2..]).ok_or(format!("number {word}"))?)
                    }
                    _ if word.starts_with(|c: char| c.is_ascii_digit()) => {
                        Operand::Integer(integer(word).ok_or(format!("number {word}"))?)
                    }
                    _ => Operand::Name(self.unique(word)),
                })
            }
            other => Err(format!("an operand expected, found {other:?}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KERNEL: &str = r#"
        .version 9.0
        .target sm_90a
        .address_size 64
        .extern .shared .align 128 .b8 dynamic[];
        .visible .entry add(
            .param .u64 .ptr .align 1 add_param_0,
            .param .align 8 .b8 add_param_1[24]
        )
        .maxntid 128, 1, 1
        {
            .reg .pred %p<3>;
            .reg .b32 %r<4>;
            .shared .align 4 .b8 sums[128];
            .loc 1 7 3
            .loc 2 40 1, function_name $L__info_string0, inlined_at 1 7 3
            @!%p1 ld.global.v2.f32 {%f1, %f2}, [%rd1+-16];
            $L1: mov.f32 %f3, 0f3F800000; // one
            { .reg .b32 %r<2>; add.s32 %r1, %r2, -5; }
            shfl.sync.bfly.b32 %r1|%p2, %r2, 16, 0x1f, -1;
            ret;
        }
        .file 1 "/home/me/add.cu"
        .file 2 "/usr/include/cuda_fp16.hpp"
        .section .debug_str { info: .b8 95,90; }
    "#;

    #[test]
    fn a_kernel_is_read() {
        let text = Text::read(KERNEL).expect("reads");
        assert_eq!((text.target.as_str(), text.shared[0].size, text.shared[0].align), ("sm_90a", 0, 128));
        let kernel = text.kernels["add"].read(&text).expect("reads");
        let sizes: Vec<_> = kernel.parameters.iter().map(|p| (p.align, p.size)).collect();
        assert_eq!(sizes, [(8, 8), (8, 24)]);
        assert_eq!(kernel.shared, [Variable { name: "sums".into(), align: 4, size: 128 }]);
        let load = &kernel.statements[0];
        assert_eq!((load.guard.clone(), load.opcode.as_str()), (Some(("%p1".into(), true)), "ld.global.v2.f32"));
        assert_eq!(load.place, Place { file: 1, line: 7 }, "not the toolkit's line");
        assert_eq!(load.operands[1], Operand::Memory(Some("%rd1".into()), -16));
        assert_eq!(kernel.labels["$L1"], 1);
        assert_eq!(kernel.statements[1].operands[1], Operand::Float(0x3f80_0000));
        let Operand::Name(inner) = &kernel.statements[2].operands[0] else { panic!("a register") };
        assert!(inner.starts_with("%r1@"), "registers in braces are others than those outside");
        assert_eq!(kernel.statements[2].operands[2], Operand::Integer(-5));
        assert_eq!(kernel.statements[3].operands[4], Operand::Integer(-1));
        assert_eq!(kernel.statements.len(), 5);
    }

    #[test]
    fn damaged_text_is_an_error() {
        for cut in (0..KERNEL.len()).step_by(7) {
            let Some(part) = KERNEL.get(..cut) else { continue };
            if let Ok(text) = Text::read(part) {
                let _ = text.kernels.values().map(|kernel| kernel.read(&text)).collect::<Vec<_>>();
            }
        }
        let broken = KERNEL.replace("0f3F800000", "0f3Z800000");
        let text = Text::read(&broken).expect("the kernel is not read yet");
        assert!(text.kernels["add"].read(&text).is_err());
    }
}

//! Reads what `nvdisasm -c -gi` writes: machine code by function, each instruction with its source line.
//!
//! The line is the innermost one in the folder of the kernel: an instruction from a header of the toolkit belongs to the
//! line that called it. `cuobjdump -sass` prints neither lines nor labels, which is why nvdisasm is needed.

use std::collections::HashMap;
use std::path::Path;

/// The lines that a kernel was inlined from, innermost first.
type Frames<'a> = Vec<Source<'a>>;

/// A source file, as the compiler was given it, and a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Source<'a> {
    /// The whole path.
    pub path: &'a str,
    /// From 1.
    pub line: u32,
}

/// One machine instruction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instruction<'a> {
    /// In bytes from the beginning of the function.
    pub offset: u32,
    /// Whether a predicate decides if it is executed.
    pub guarded: bool,
    /// With its modifiers: `LDG.E.128.CONSTANT`.
    pub operation: &'a str,
    /// Everything after the operation.
    pub operands: &'a str,
    /// Where it comes from, if the code was compiled with `-lineinfo`.
    pub source: Option<Source<'a>>,
}

impl<'a> Instruction<'a> {
    /// The operation without modifiers: `LDG`.
    pub fn base(&self) -> &'a str {
        self.modifiers().next().unwrap_or_default()
    }

    /// The operation and its modifiers, one by one.
    pub fn modifiers(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        self.operation.split('.')
    }

    /// The labels among the operands, of a branch its targets.
    pub fn labels(&self) -> impl Iterator<Item = &'a str> + use<'a> {
        let words = self.operands.split(|c: char| !(c.is_alphanumeric() || matches!(c, '.' | '_' | '$')));
        words.filter(|word| word.starts_with(".L") || word.starts_with('$'))
    }
}

/// The code of a kernel, and after it that of the functions that it calls.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Function<'a> {
    /// As in the source, for a kernel that is `extern "C"`.
    pub name: &'a str,
    /// In the order of their addresses, without what fills the end.
    pub instructions: Vec<Instruction<'a>>,
    /// Which instruction each label precedes.
    pub labels: HashMap<&'a str, usize>,
    /// Size with what fills the end.
    pub bytes: u32,
}

impl<'a> Function<'a> {
    /// The first instructions of the functions that the kernel calls, in order.
    pub fn subroutines(&self) -> Vec<usize> {
        let labels = self.labels.iter().filter(|(name, at)| name.starts_with('$') && **at < self.instructions.len());
        let mut starts: Vec<usize> = labels.map(|(_, at)| *at).collect();
        starts.sort_unstable();
        starts.dedup();
        starts
    }

    /// Removes the branch to itself and the NOPs that fill the end.
    fn finish(mut self) -> Option<Self> {
        let last = self.instructions.last()?;
        let step = self.instructions.get(1).map_or(16, |second| second.offset);
        self.bytes = last.offset + step;
        while self.instructions.last().is_some_and(|last| last.base() == "NOP") {
            self.instructions.pop();
        }
        let last = self.instructions.len().checked_sub(1)?;
        let end = self.instructions[last];
        if end.base() == "BRA" && !end.guarded && end.labels().any(|label| self.labels.get(label) == Some(&last)) {
            self.instructions.pop();
        }
        Some(self)
    }
}

/// The functions in the output of nvdisasm. Lines of a form that is not known are passed over.
pub fn functions(text: &str) -> Vec<Function<'_>> {
    let mut functions = Vec::new();
    let mut function = Function::default();
    let mut frames = Frames::new();
    let mut is_stack = false;
    for line in text.lines().map(str::trim) {
        if let Some(frame) = line.strip_prefix("//## File ") {
            if !is_stack {
                frames.clear();
            }
            is_stack = true;
            frames.extend(source(frame));
            continue;
        }
        is_stack = false;
        if let Some(name) = line.strip_prefix(".text.").and_then(|rest| rest.strip_suffix(':')) {
            functions.extend(std::mem::replace(&mut function, Function { name, ..Function::default() }).finish());
            frames.clear();
        } else if let Some(label) = line.strip_suffix(':') {
            function.labels.insert(label, function.instructions.len());
        } else if let Some(found) = instruction(line) {
            function.instructions.push(Instruction { source: own(&frames), ..found });
        }
    }
    functions.extend(function.finish());
    functions
}

/// `"/src/gemm.cu", line 33 inlined at "/src/gemm.cu", line 46`: the first of the two.
fn source(frame: &str) -> Option<Source<'_>> {
    let (path, rest) = frame.strip_prefix('"')?.split_once("\", line ")?;
    let line = rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()?;
    Some(Source { path, line })
}

/// The innermost frame in the folder of the outermost, which is the kernel.
fn own<'a>(frames: &Frames<'a>) -> Option<Source<'a>> {
    let folder = |source: &Source<'a>| Path::new(source.path).parent();
    let home = folder(frames.last()?);
    frames.iter().find(|frame| folder(frame) == home).copied()
}

/// `/*00e0*/  @!P0 BRA `(.L_x_0) ;`.
fn instruction(line: &str) -> Option<Instruction<'_>> {
    let (offset, code) = line.strip_prefix("/*")?.split_once("*/")?;
    let offset = u32::from_str_radix(offset, 16).ok()?;
    let code = code.split(';').next()?.trim();
    let (guarded, code) = match code.strip_prefix('@') {
        Some(rest) => (true, rest.split_once(' ')?.1.trim_start()),
        None => (false, code),
    };
    let (operation, operands) = code.split_once(' ').unwrap_or((code, ""));
    operation.starts_with(|c: char| c.is_ascii_uppercase()).then_some(())?;
    Some(Instruction { offset, guarded, operation, operands: operands.trim(), source: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\t.target\tsm_90a\n\
        //--------------------- .text.scale_f32    --------------------------\n\
        \t.section\t.text.scale_f32,\"ax\",@progbits\n\
        \x20       .size           scale_f32,(.L_x_9 - scale_f32)\n\
        scale_f32:\n\
        .text.scale_f32:\n\
        \t//## File \"/k/scale.cu\", line 7\n\
        \x20       /*0000*/                   LDC R1, c[0x0][0x28] ;\n\
        \t//## File \"/cuda/fp16.hpp\", line 900 inlined at \"/k/weft.cuh\", line 38\n\
        \t//## File \"/k/weft.cuh\", line 38 inlined at \"/k/scale.cu\", line 5\n\
        \t//## File \"/k/scale.cu\", line 5 inlined at \"/k/scale.cu\", line 7\n\
        .L_x_1:\n\
        \x20       /*0010*/              @!P0 LDG.E.128.CONSTANT R4, desc[UR6][R2.64+0x10] ;\n\
        \x20       /*0020*/               @P0 BRA P1, `(.L_x_1) ;\n\
        \x20       /*0030*/                   CALL.REL.NOINC `($__internal_0_$__cuda_sm20_div_u64) ;\n\
        \x20       /*0040*/                   EXIT ;\n\
        \x20       .type           $__internal_0_$__cuda_sm20_div_u64,@function\n\
        $__internal_0_$__cuda_sm20_div_u64:\n\
        \x20       /*0050*/                   RET.REL.NODEC R2 `(scale_f32) ;\n\
        .L_x_8:\n\
        \x20       /*0060*/                   BRA `(.L_x_8);\n\
        \x20       /*0070*/                   NOP;\n\
        .L_x_9:\n";

    #[test]
    fn instructions_have_predicates_labels_and_the_kernels_own_lines() {
        let found = functions(TEXT);
        let [function] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!((function.name, function.bytes, function.instructions.len()), ("scale_f32", 0x80, 6));
        let lines: Vec<_> =
            function.instructions.iter().map(|it| it.source.map(|source| (source.path, source.line))).collect();
        assert_eq!(lines[0], Some(("/k/scale.cu", 7)));
        assert_eq!(lines[1], Some(("/k/weft.cuh", 38)), "the toolkit's header is passed over");
        let load = function.instructions[1];
        assert_eq!((load.guarded, load.base(), load.offset), (true, "LDG", 0x10));
        assert!(load.modifiers().any(|part| part == "128"));
        assert_eq!(function.instructions[2].labels().collect::<Vec<_>>(), [".L_x_1"]);
        assert_eq!((function.labels[".L_x_1"], function.subroutines()), (1, vec![5]));
    }

    #[test]
    fn code_without_line_info_is_read_too() {
        let text: String = TEXT.lines().filter(|line| !line.contains("//##")).map(|line| format!("{line}\n")).collect();
        let found = functions(&text);
        assert_eq!(found[0].instructions.len(), 6);
        assert!(found[0].instructions.iter().all(|instruction| instruction.source.is_none()));
        assert_eq!(functions("nothing of the kind\n"), []);
    }
}

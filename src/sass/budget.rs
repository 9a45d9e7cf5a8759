//! Budgets: what each kernel may cost, in a file beside the kernels.
//!
//! The numbers hold for one compiler and one architecture. With them the file keeps, for each part of a kernel, how many
//! instructions each source line had, so that a regression names the lines that grew. Lines are compared in their order and
//! not by number: an edit above moves them all and changes none.

use super::{Kernel, Line, Lines, Part};
use crate::settings::{Document, limits, within};
use crate::weights::write_atomic;
use crate::{Error, Result};
use serde::Deserialize;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

limits! {
    /// A number of registers, bytes or instructions.
    Count: usize = 0, 1 << 30;
}

/// Names of what is counted while a kernel is executed.
const EXECUTED: [&str; 3] = ["executed", "conflicts", "sectors"];

/// Lines named in a message.
const SHOWN: usize = 4;

/// What the kernels may cost.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Budgets {
    /// The version of nvcc that the numbers were recorded with.
    pub compiler: String,
    /// The architecture that they hold for, as `90a`.
    pub arch: String,
    /// Bytes of stack that every kernel may have on every architecture: spills, and arrays that did not fit into registers.
    #[serde(deserialize_with = "within::<Count, _, _>")]
    pub stack: usize,
    /// Bytes of static shared memory that every kernel may have on every architecture.
    #[serde(deserialize_with = "within::<Count, _, _>")]
    pub shared: usize,
    kernels: BTreeMap<String, Budget>,
}

/// What one kernel may cost.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Budget {
    #[serde(deserialize_with = "within::<Count, _, _>")]
    registers: usize,
    #[serde(deserialize_with = "within::<Count, _, _>")]
    instructions: usize,
    /// Of them in the main loop, per iteration, and after it. These numbers and the next are left out where they are 0.
    #[serde(default, rename = "loop", deserialize_with = "within::<Count, _, _>")]
    main: usize,
    #[serde(default, deserialize_with = "within::<Count, _, _>")]
    after: usize,
    /// Instructions of warps, bank conflicts and sectors in the cases of `weft doctor`.
    #[serde(default, deserialize_with = "within::<Count, _, _>")]
    executed: usize,
    #[serde(default, deserialize_with = "within::<Count, _, _>")]
    conflicts: usize,
    #[serde(default, deserialize_with = "within::<Count, _, _>")]
    sectors: usize,
    lines: BTreeMap<String, String>,
}

/// How kernels compare with their budgets, one line of text each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Verdict {
    /// What costs more than it may.
    pub regressions: Vec<String>,
    /// What costs less, and may be recorded.
    pub improvements: Vec<String>,
}

impl Budgets {
    /// What the kernels cost now. No stack, and no more static shared memory than every card has.
    pub fn record(kernels: &[Kernel], compiler: &str, arch: &str) -> Self {
        Self {
            compiler: compiler.into(),
            arch: arch.into(),
            stack: 0,
            shared: 48 << 10,
            kernels: kernels.iter().map(|kernel| (kernel.name.clone(), Budget::of(kernel))).collect(),
        }
    }

    /// Reads a file.
    ///
    /// # Errors
    /// One that cannot be read, or has other content, with the line.
    pub fn load(path: &Path) -> Result<Self> {
        Self::of(&Document::load(path, "`weft sass --write-budgets FILE` writes one")?)
    }

    fn of(document: &Document) -> Result<Self> {
        let budgets: Self = crate::settings::from_table(document.table.clone())
            .map_err(|mistake| Error::new(format_args!("{}: {}", document.place(), mistake.key()), mistake.found))?;
        for (name, budget) in &budgets.kernels {
            for (part, text) in &budget.lines {
                read(text).ok_or_else(|| {
                    let place = format!("{}: kernels.{name}.lines.{part}", document.place());
                    Error::new(place, "is no list of `FILE LINE:COUNT LINE:COUNT`, with commas between files")
                })?;
            }
        }
        Ok(budgets)
    }

    /// Writes a file.
    ///
    /// # Errors
    /// One that cannot be written.
    pub fn save(&self, path: &Path) -> Result<()> {
        let text = self.text();
        write_atomic(path, |file| file.write_all(text.as_bytes()))
    }

    fn text(&self) -> String {
        let Self { compiler, arch, stack, shared, kernels } = self;
        let mut text = format!(
            "# What the kernels may cost, in the machine code that nvcc {compiler} makes for sm_{arch}; tests/kernels keeps it.\n\
             # Written by `weft sass --write-budgets kernels/budgets.toml`: look at the difference before it is committed.\n\
             # loop: instructions of the main loop, per iteration; after: those that follow it. lines: FILE LINE:INSTRUCTIONS.\n\
             # executed, conflicts, sectors: instructions of warps, bank conflicts of shared memory, and sectors of global memory,\n\
             # over all cases of `weft doctor --device simt:ptx`.\n\
             compiler = \"{compiler}\"\narch = \"{arch}\"\n\
             stack = {stack}       # bytes, of every kernel on every architecture: no spills\n\
             shared = {shared}  # static bytes, likewise\n"
        );
        for (name, budget) in kernels {
            let _ = write!(text, "\n[kernels.{name}]\n");
            for (what, number) in budget.numbers().into_iter().filter(|(_, number)| *number > 0) {
                let _ = writeln!(text, "{what} = {number}");
            }
            let parts = Kernel::PARTS.iter().chain(&EXECUTED);
            for (part, lines) in parts.filter_map(|part| Some((part, budget.lines.get(*part)?))) {
                let _ = writeln!(text, "lines.{part} = \"{lines}\"");
            }
        }
        text
    }

    /// Compares kernels with their budgets: numbers, kernels without a budget, and budgets without a kernel.
    pub fn check(&self, kernels: &[Kernel]) -> Verdict {
        let mut verdict = Verdict::default();
        for kernel in kernels {
            let name = &kernel.name;
            verdict.regressions.extend(self.faults(kernel));
            let Some(budget) = self.kernels.get(name) else {
                verdict.regressions.push(format!("{name}: has no budget"));
                continue;
            };
            let now = Budget::of(kernel);
            let was_executed = kernel.executed.is_some();
            let pairs = budget.numbers().into_iter().zip(now.numbers());
            for ((what, allowed), (_, cost)) in pairs.filter(|((what, _), _)| was_executed || !EXECUTED.contains(what))
            {
                if cost > allowed {
                    let lines = budget.grown(&now, what);
                    verdict.regressions.push(format!("{name}: {what} {cost}, allowed {allowed}{lines}"));
                } else if cost < allowed {
                    verdict.improvements.push(format!("{name}: {what} {allowed} -> {cost}"));
                }
            }
        }
        let is_there = |name: &String| kernels.iter().any(|kernel| kernel.name == *name);
        let gone = self.kernels.keys().filter(|name| !is_there(name));
        verdict.regressions.extend(gone.map(|name| format!("{name}: has a budget, but there is no such kernel")));
        verdict
    }

    /// What holds for every kernel on every architecture: stack and static shared memory.
    pub fn faults(&self, kernel: &Kernel) -> Vec<String> {
        let mut faults = Vec::new();
        let (stack, shared) = (kernel.resources.stack as usize, kernel.resources.shared as usize);
        if stack > self.stack {
            let stored =
                if kernel.spill > 0 { format!(" ({} bytes of spill stores)", kernel.spill) } else { String::new() };
            faults.push(format!("{}: stack {stack} bytes{stored}, allowed {}", kernel.name, self.stack));
        }
        if shared > self.shared {
            faults.push(format!("{}: static shared memory {shared} bytes, allowed {}", kernel.name, self.shared));
        }
        faults
    }
}

impl Budget {
    /// What a kernel costs.
    fn of(kernel: &Kernel) -> Self {
        let executed = kernel.executed.clone().unwrap_or_default();
        let sum = |lines: &Lines| lines.values().map(|n| *n as usize).sum();
        let [conflicts, sectors] = [&executed.conflicts, &executed.sectors].map(sum);
        let tables =
            kernel.lines().into_iter().chain([("conflicts", executed.conflicts), ("sectors", executed.sectors)]);
        let lines = tables.map(|(part, lines)| (part.to_owned(), write(&lines)));
        Self {
            registers: kernel.resources.registers as usize,
            instructions: kernel.whole.count() as usize,
            main: kernel.main_loop().map_or(0, Part::count) as usize,
            after: kernel.after.count() as usize,
            executed: executed.instructions,
            conflicts,
            sectors,
            lines: lines.filter(|(_, text)| !text.is_empty()).collect(),
        }
    }

    /// The numbers, by their names in the file.
    fn numbers(&self) -> [(&'static str, usize); 7] {
        let [a, b, c] = EXECUTED;
        [
            ("registers", self.registers),
            ("instructions", self.instructions),
            ("loop", self.main),
            ("after", self.after),
            (a, self.executed),
            (b, self.conflicts),
            (c, self.sectors),
        ]
    }

    /// The counts of a part by source line.
    fn table(&self, part: &str) -> Lines {
        self.lines.get(part).and_then(|text| read(text)).unwrap_or_default()
    }

    /// `; grew most: gemm.cu:40 12 -> 20, ...`, for one part or, for `instructions`, for all.
    fn grown(&self, now: &Self, what: &str) -> String {
        let is_meant = |part: &str| what == part || (what == "instructions" && Kernel::PARTS.contains(&part));
        let parts = now.lines.keys().filter(|part| is_meant(part));
        let changed = parts.flat_map(|part| changes(&self.table(part), &now.table(part)));
        let mut grown: Vec<Change> = changed.filter(|change| change.new > change.old).collect();
        grown.sort_by_key(|change| Reverse(change.new - change.old));
        grown.truncate(SHOWN);
        let show = |Change { line: (file, line), old, new }: &Change| format!("{file}:{line} {old} -> {new}");
        let shown: Vec<String> = grown.iter().map(show).collect();
        if shown.is_empty() { String::new() } else { format!("; grew most: {}", shown.join(", ")) }
    }
}

/// `gemm.cu 28:40 29:1, product.cuh 52:4`.
fn write(lines: &Lines) -> String {
    let mut text = String::new();
    let mut last = None;
    for ((file, line), count) in lines {
        if last != Some(file) {
            let separator = if last.is_some() { ", " } else { "" };
            let shown = if file.is_empty() { "?" } else { file };
            let _ = write!(text, "{separator}{shown}");
            last = Some(file);
        }
        let _ = write!(text, " {line}:{count}");
    }
    text
}

fn read(text: &str) -> Option<Lines> {
    let mut lines = Lines::new();
    for part in text.split(", ") {
        let mut words = part.split(' ');
        let file = words.next().filter(|file| !file.is_empty() && !file.contains(':'))?;
        let file = if file == "?" { "" } else { file };
        for word in words {
            let (line, count) = word.split_once(':')?;
            lines.insert((file.to_owned(), line.parse().ok()?), count.parse().ok()?);
        }
    }
    Some(lines)
}

/// A source line with another number of instructions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As it is numbered now, or was where nothing is left of it.
    pub line: Line,
    /// Instructions before.
    pub old: u32,
    /// Instructions now.
    pub new: u32,
}

/// The source lines whose numbers of instructions differ.
pub fn changes(old: &Lines, new: &Lines) -> Vec<Change> {
    let files: BTreeSet<&String> = old.keys().chain(new.keys()).map(|(file, _)| file).collect();
    let mut found = Vec::new();
    for file in files {
        let of = |lines: &Lines| -> Vec<(u32, u32)> {
            lines.iter().filter(|((name, _), _)| name == file).map(|((_, line), count)| (*line, *count)).collect()
        };
        let pairs = align(&of(old), &of(new)).into_iter().filter(|(_, old, new)| old != new);
        found.extend(pairs.map(|(line, old, new)| Change { line: (file.clone(), line), old, new }));
    }
    found
}

/// Pairs the lines of two versions of a file in order, so that their counts differ by as little as possible; among equally good
/// ways, one in which most lines keep their number. Lines of different numbers, one with more than twice the count of the other,
/// are not the same.
fn align(old: &[(u32, u32)], new: &[(u32, u32)]) -> Vec<(u32, u32, u32)> {
    const STEP: u64 = 1 << 16; // above the number of lines
    let pair = |a: (u32, u32), b: (u32, u32)| {
        let is_same = a.0 == b.0 || a.1.max(b.1) <= 2 * a.1.min(b.1);
        STEP * u64::from(if is_same { a.1.abs_diff(b.1) } else { a.1 + b.1 }) + u64::from(a.0 != b.0)
    };
    let alone = |line: (u32, u32)| STEP * u64::from(line.1);
    // cost[i][j]: of the lines from i and j on.
    let mut cost = vec![vec![0; new.len() + 1]; old.len() + 1];
    for i in (0..=old.len()).rev() {
        for j in (0..=new.len()).rev() {
            let removed = old.get(i).map(|a| alone(*a) + cost[i + 1][j]);
            let added = new.get(j).map(|b| alone(*b) + cost[i][j + 1]);
            let both = old.get(i).zip(new.get(j)).map(|(a, b)| pair(*a, *b) + cost[i + 1][j + 1]);
            cost[i][j] = [removed, added, both].into_iter().flatten().min().unwrap_or(0);
        }
    }
    let (mut i, mut j, mut pairs) = (0, 0, Vec::new());
    loop {
        match (old.get(i), new.get(j)) {
            (Some(a), Some(b)) if cost[i][j] == pair(*a, *b) + cost[i + 1][j + 1] => {
                pairs.push((b.0, a.1, b.1));
                (i, j) = (i + 1, j + 1);
            }
            (a, Some(b)) if a.is_none() || cost[i][j] == alone(*b) + cost[i][j + 1] => {
                pairs.push((b.0, 0, b.1));
                j += 1;
            }
            (Some(a), _) => {
                pairs.push((a.0, a.1, 0));
                i += 1;
            }
            _ => return pairs,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::tiny;
    use super::*;

    fn lines(text: &str) -> Lines {
        read(text).unwrap()
    }

    #[test]
    fn a_recorded_kernel_is_within_its_budget() {
        let budgets = Budgets { stack: 8, ..Budgets::record(&[tiny()], "13.0.88", "90a") };
        let text = budgets.text();
        assert!(
            text.contains("[kernels.tiny_f32]\nregisters = 20\ninstructions = 12\nloop = 3\nafter = 3\n"),
            "{text}"
        );
        assert!(text.contains("lines.after = \"tiny.cu 6:3\"\n"), "{text}");
        let read = Budgets::of(&Document::parse("b", text).unwrap()).unwrap();
        assert_eq!(read, budgets);
        assert_eq!(read.check(&[tiny()]), Verdict::default());
    }

    #[test]
    fn a_regression_names_kernel_number_and_line_and_an_improvement_both_numbers() {
        let mut budgets = Budgets { stack: 8, ..Budgets::record(&[tiny()], "13.0.88", "90a") };
        let budget = budgets.kernels.get_mut("tiny_f32").unwrap();
        budget.main = 2;
        budget.registers = 24;
        budget.lines.insert("loop".into(), "tiny.cu 3:2".into());
        let verdict = budgets.check(&[tiny()]);
        assert_eq!(verdict.regressions, ["tiny_f32: loop 3, allowed 2; grew most: tiny.cu:5 2 -> 3"]);
        assert_eq!(verdict.improvements, ["tiny_f32: registers 24 -> 20"]);
        budgets.stack = 0;
        let spilling = "tiny_f32: stack 8 bytes (8 bytes of spill stores), allowed 0";
        assert_eq!(budgets.check(&[tiny()]).regressions[0], spilling);
        assert_eq!(budgets.check(&[]).regressions, ["tiny_f32: has a budget, but there is no such kernel"]);
        budgets.kernels.clear();
        assert_eq!(budgets.check(&[tiny()]).regressions, [spilling, "tiny_f32: has no budget"]);
    }

    #[test]
    fn lines_that_moved_did_not_change() {
        let compare = |old: &str, new: &str| -> Vec<String> {
            let show = |Change { line: (file, line), old, new }| format!("{file}:{line} {old} -> {new}");
            changes(&lines(old), &lines(new)).into_iter().map(show).collect()
        };
        let old = "a.cu 5:40 6:2 9:62, b.cuh 1:7";
        assert!(compare(old, "a.cu 15:40 16:2 19:62, b.cuh 2:7").is_empty());
        let expected = ["a.cu:17 0 -> 6", "a.cu:19 62 -> 63", "b.cuh:1 7 -> 0", "c.cu:3 0 -> 1"];
        assert_eq!(compare(old, "a.cu 15:40 16:2 17:6 19:63, c.cu 3:1"), expected);
        let added = ["a.cu:6 2 -> 1", "a.cu:8 0 -> 13"];
        assert_eq!(compare("a.cu 5:5 6:2 10:1", "a.cu 5:5 6:1 8:13 10:1"), added);
    }

    #[test]
    fn files_that_are_no_budgets_are_refused() {
        let error = |text: &str| {
            let document = Document::parse("b", text.into()).unwrap();
            Budgets::of(&document).unwrap_err().to_string()
        };
        assert!(error("compiler = '13'").contains("missing field"));
        let head = "compiler = '13'\narch = '90a'\nstack = 0\nshared = 0\n[kernels.k]\ninstructions = 1\n";
        assert!(error(&format!("{head}registers = -1\nlines = {{}}")).contains("kernels.k.registers"));
        let found = error(&format!("{head}registers = 1\nlines.loop = 'a.cu 5'"));
        assert!(found.starts_with("b: kernels.k.lines.loop: is no list"), "{found}");
    }
}

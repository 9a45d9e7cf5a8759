//! The natural loops of a function, from the control-flow graph of its machine code.
//!
//! A BSYNC always stands right before the place that its BSSY names, so that both are no branches; a CALL of a function comes
//! back, and the function is a part of the graph of its own.

use super::parse::{Function, Instruction};
use std::ops::Range;

/// A loop: all blocks that reach the branch back to its header without passing the header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loop {
    /// Of its instructions, in order.
    pub instructions: Vec<usize>,
    /// How many loops it lies in, itself included.
    pub depth: usize,
    /// Whether no other loop lies in it.
    pub innermost: bool,
}

/// The control-flow graph of a function, by basic blocks.
#[derive(Debug)]
pub struct Graph {
    blocks: Vec<Range<usize>>,
    next: Vec<Vec<usize>>,
    /// Blocks at which a kernel or a function that it calls begins.
    roots: Vec<usize>,
}

impl Graph {
    /// Splits the code of a function into blocks.
    pub fn new(function: &Function<'_>) -> Self {
        let code = &function.instructions;
        let target = |label: &str| function.labels.get(label).copied().filter(|at| *at < code.len());
        let mut starts = vec![0];
        starts.extend(function.subroutines());
        let roots = starts.clone();
        for (at, instruction) in code.iter().enumerate() {
            if is_jump(instruction) {
                starts.extend(instruction.labels().filter_map(target));
                starts.push(at + 1);
            } else if is_end(instruction.base()) {
                starts.push(at + 1);
            }
        }
        starts.retain(|at| *at < code.len());
        starts.sort_unstable();
        starts.dedup();
        let block = |at: usize| starts.partition_point(|start| *start <= at) - 1;
        let ends = starts.iter().skip(1).copied().chain([code.len()]);
        let blocks: Vec<_> = starts.iter().copied().zip(ends).map(|(start, end)| start..end).collect();
        let next = blocks.iter().map(|range| {
            let Some(last) = range.end.checked_sub(1).and_then(|at| code.get(at)) else { return Vec::new() };
            let mut next = Vec::new();
            let mut falls = true;
            if is_jump(last) {
                next.extend(last.labels().filter_map(target).map(block));
                // `BRA P3, label` and `BRA.DIV UR4, label` are conditional without a guard.
                falls = last.guarded || !(is_indirect(last.base()) || last.operands.starts_with('`'));
            } else if is_end(last.base()) {
                falls = last.guarded;
            }
            if falls && range.end < code.len() {
                next.push(block(range.end));
            }
            next
        });
        let next = next.collect();
        let roots = roots.into_iter().filter(|at| *at < code.len()).map(block).collect();
        Self { blocks, next, roots }
    }

    /// All loops, outer before inner, else in the order of their first instructions.
    pub fn loops(&self) -> Vec<Loop> {
        let order = self.order();
        let dominator = self.dominators(&order);
        let dominates = |above: usize, mut block: usize| loop {
            if block == above {
                return true;
            }
            match dominator[block] {
                Some(up) if up != block => block = up,
                _ => return false,
            }
        };
        let before = self.before();
        let mut bodies: Vec<(usize, Vec<bool>)> = Vec::new();
        for &from in &order {
            for &header in self.next[from].iter().filter(|header| dominates(**header, from)) {
                let at = bodies.iter().position(|(known, _)| *known == header).unwrap_or_else(|| {
                    bodies.push((header, vec![false; self.blocks.len()]));
                    bodies.len() - 1
                });
                let body = &mut bodies[at].1;
                body[header] = true;
                let mut open = vec![from];
                while let Some(block) = open.pop() {
                    if !std::mem::replace(&mut body[block], true) {
                        open.extend(before[block].iter().filter(|block| dominator[**block].is_some()));
                    }
                }
            }
        }
        let holds = |outer: &(usize, Vec<bool>), inner: &(usize, Vec<bool>)| outer.1[inner.0];
        let mut loops: Vec<Loop> = bodies
            .iter()
            .map(|body| Loop {
                instructions: self.instructions(&body.1),
                depth: bodies.iter().filter(|outer| holds(outer, body)).count(),
                innermost: bodies.iter().all(|inner| inner.0 == body.0 || !holds(body, inner)),
            })
            .collect();
        loops.sort_by_key(|found| (found.instructions.first().copied(), found.depth));
        loops
    }

    /// Which instructions can be executed after one of these, themselves included.
    pub fn reachable(&self, instructions: &[usize]) -> Vec<usize> {
        let mut open: Vec<usize> = (0..self.blocks.len())
            .filter(|block| instructions.iter().any(|at| self.blocks[*block].contains(at)))
            .collect();
        let mut seen = vec![false; self.blocks.len()];
        while let Some(block) = open.pop() {
            if !std::mem::replace(&mut seen[block], true) {
                open.extend(&self.next[block]);
            }
        }
        self.instructions(&seen)
    }

    fn instructions(&self, blocks: &[bool]) -> Vec<usize> {
        self.blocks.iter().zip(blocks).filter(|(_, is_in)| **is_in).flat_map(|(range, _)| range.clone()).collect()
    }

    fn before(&self) -> Vec<Vec<usize>> {
        let mut before = vec![Vec::new(); self.blocks.len()];
        for (from, next) in self.next.iter().enumerate() {
            for &to in next {
                before[to].push(from);
            }
        }
        before
    }

    /// The blocks that can be reached, each after those that must come before it (reverse postorder).
    fn order(&self) -> Vec<usize> {
        let mut seen = vec![false; self.blocks.len()];
        let mut order = Vec::new();
        for &root in &self.roots {
            let mut path = vec![(root, 0)];
            while let Some((block, tried)) = path.last_mut() {
                seen[*block] = true;
                match self.next[*block].get(*tried) {
                    Some(&next) => {
                        *tried += 1;
                        if !seen[next] {
                            path.push((next, 0));
                        }
                    }
                    None => {
                        order.push(*block);
                        path.pop();
                    }
                }
            }
        }
        order.reverse();
        order
    }

    /// The immediate dominator of each block, a root's being itself (Cooper, Harvey and Kennedy 2001).
    fn dominators(&self, order: &[usize]) -> Vec<Option<usize>> {
        let before = self.before();
        let mut rank = vec![usize::MAX; self.blocks.len()];
        for (at, block) in order.iter().enumerate() {
            rank[*block] = at;
        }
        let mut dominator: Vec<Option<usize>> = vec![None; self.blocks.len()];
        for &root in &self.roots {
            dominator[root] = Some(root);
        }
        let mut is_stable = false;
        while !is_stable {
            is_stable = true;
            for &block in order.iter().filter(|block| !self.roots.contains(block)) {
                let known = before[block].iter().copied().filter(|block| dominator[*block].is_some());
                let common = known.reduce(|mut a, mut b| {
                    while a != b {
                        let later = if rank[a] > rank[b] { &mut a } else { &mut b };
                        match dominator[*later] {
                            Some(up) if up != *later => *later = up,
                            _ => break,
                        }
                    }
                    if rank[a] < rank[b] { a } else { b }
                });
                if dominator[block] != common {
                    dominator[block] = common;
                    is_stable = false;
                }
            }
        }
        dominator
    }
}

fn is_indirect(operation: &str) -> bool {
    matches!(operation, "BRX" | "BRXU" | "JMX" | "JMXU")
}

/// ptxas also writes a branch as a call that nothing comes back from, on sm_80; its target is a label, not a function.
fn is_jump(instruction: &Instruction<'_>) -> bool {
    match instruction.base() {
        "BRA" | "JMP" => true,
        "CALL" => instruction.labels().any(|label| label.starts_with(".L")),
        operation => is_indirect(operation),
    }
}

fn is_end(operation: &str) -> bool {
    matches!(operation, "EXIT" | "RET" | "KILL")
}

#[cfg(test)]
mod tests {
    use super::super::parse::functions;
    use super::*;

    /// A function from lines `label:` and `operation`; offsets are those of the lines.
    fn graph(code: &[&str]) -> Graph {
        let mut text = String::from(".text.f:\n");
        for (at, line) in code.iter().enumerate() {
            text += &if line.ends_with(':') { format!("{line}\n") } else { format!("/*{:04x}*/ {line} ;\n", 16 * at) };
        }
        Graph::new(&functions(&text)[0])
    }

    fn loops(code: &[&str]) -> Vec<(Vec<usize>, usize, bool)> {
        graph(code).loops().into_iter().map(|it| (it.instructions, it.depth, it.innermost)).collect()
    }

    #[test]
    fn a_loop_ends_with_its_branch_back() {
        let code = ["MOV", ".L_1:", "FFMA", "@P0 BRA `(.L_1)", "EXIT"];
        assert_eq!(loops(&code), [(vec![1, 2], 1, true)]);
        assert_eq!(graph(&code).reachable(&[1, 2]), [1, 2, 3]);
        assert_eq!(loops(&["MOV", "@P0 BRA `(.L_1)", "FADD", ".L_1:", "EXIT"]), [], "a branch forward is none");
    }

    #[test]
    fn nested_loops_and_two_ways_back_to_one_header() {
        let nested = [
            ".L_1:",
            "IADD3",
            ".L_2:",
            "FFMA",
            "BRA P3, `(.L_2)",
            "@!P0 BRA `(.L_1)",
            "ISETP",
            "@P1 BRA `(.L_1)",
            "EXIT",
        ];
        assert_eq!(loops(&nested), [(vec![0, 1, 2, 3, 4, 5], 1, false), (vec![1, 2], 2, true)]);
    }

    #[test]
    fn code_behind_the_exit_belongs_to_the_loop_that_branches_there() {
        let code = [
            ".L_1:",
            "@P0 BRA `(.L_3)",
            ".L_2:",
            "FFMA",
            "@P1 BRA `(.L_1)",
            "EXIT",
            ".L_3:",
            "MUFU.RCP",
            "BRA `(.L_2)",
        ];
        assert_eq!(loops(&code), [(vec![0, 1, 2, 4, 5], 1, true)]);
    }

    #[test]
    fn a_call_of_a_label_is_a_branch() {
        let code = [".L_1:", "FFMA", "@P0 CALL.REL.NOINC `(.L_2)", "BRA `(.L_1)", ".L_2:", "STG", "EXIT"];
        assert_eq!(loops(&code), [(vec![0, 1, 2], 1, true)]);
        assert_eq!(graph(&code).reachable(&[0, 1, 2]), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn calls_come_back_and_exits_under_a_guard_go_on() {
        let code = [
            ".L_1:",
            "CALL.REL.NOINC `($__internal_0)",
            "@P0 EXIT",
            "BRA `(.L_1)",
            "$__internal_0:",
            ".L_2:",
            "FADD",
            "@P0 BRA `(.L_2)",
            "RET.REL.NODEC R2 `(f)",
        ];
        assert_eq!(loops(&code), [(vec![0, 1, 2], 1, true), (vec![3, 4], 1, true)]);
    }
}

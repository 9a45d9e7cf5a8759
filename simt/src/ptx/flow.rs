//! Where the lanes of a warp meet again after a branch: at the branch's immediate post-dominator, the first instruction that
//! all paths from it reach.

use super::decode::{Inst, Op};

/// Instead of an instruction: the kernel's end.
pub(super) const END: u32 = u32::MAX;

/// Sets the meeting point of each conditional branch of a kernel.
pub(super) fn set_meeting_points(code: &mut [Inst]) {
    let blocks = blocks(code);
    let after = post_dominators(&blocks);
    for (block, after) in blocks.iter().zip(after) {
        let meet = if after == blocks.len() { END } else { blocks[after].start as u32 };
        if let Op::Branch { meet: found, .. } = &mut code[block.end - 1].op {
            *found = meet;
        }
    }
}

/// Instructions `start..end` that are executed from the first to the last, and the blocks that follow; the number of blocks
/// stands for the end of the kernel.
struct Block {
    start: usize,
    end: usize,
    next: Vec<usize>,
}

fn blocks(code: &[Inst]) -> Vec<Block> {
    let mut starts = vec![0, code.len()];
    for (index, inst) in code.iter().enumerate() {
        match &inst.op {
            Op::Branch { target, .. } => starts.extend([*target as usize, index + 1]),
            Op::Exit => starts.push(index + 1),
            _ => {}
        }
    }
    starts.sort_unstable();
    starts.dedup();
    let find = |at: usize| starts.partition_point(|start| *start < at);
    let last = starts.len() - 1;
    let mut blocks = Vec::with_capacity(last);
    for pair in starts.windows(2) {
        let inst = &code[pair[1] - 1];
        let conditional = inst.guard.is_some();
        let mut next = Vec::new();
        match inst.op {
            Op::Branch { target, .. } => next.push(find(target as usize)),
            Op::Exit => next.push(last),
            _ => next.push(find(pair[1])),
        }
        if conditional && matches!(inst.op, Op::Branch { .. } | Op::Exit) {
            next.push(find(pair[1]));
        }
        blocks.push(Block { start: pair[0], end: pair[1], next });
    }
    blocks
}

/// Immediate post-dominators, by Cooper, Harvey and Kennedy ("A simple, fast dominance algorithm") on the reversed graph.
fn post_dominators(blocks: &[Block]) -> Vec<usize> {
    let end = blocks.len();
    let mut before = vec![Vec::new(); end + 1];
    for (index, block) in blocks.iter().enumerate() {
        block.next.iter().for_each(|next| before[*next].push(index));
    }
    // Postorder of the reversed graph, from the end; a block that never ends (an endless loop) is not in it.
    let (mut order, mut number) = (Vec::new(), vec![usize::MAX; end + 1]);
    let (mut stack, mut seen) = (vec![(end, 0)], vec![false; end + 1]);
    seen[end] = true;
    while let Some((block, child)) = stack.pop() {
        match before[block].get(child) {
            Some(&next) => {
                stack.push((block, child + 1));
                if !seen[next] {
                    seen[next] = true;
                    stack.push((next, 0));
                }
            }
            None => {
                number[block] = order.len();
                order.push(block);
            }
        }
    }
    let mut above = vec![usize::MAX; end + 1];
    above[end] = end;
    let mut changed = true;
    while changed {
        changed = false;
        for &block in order.iter().rev().filter(|block| **block != end) {
            let mut best = usize::MAX;
            for &next in blocks[block].next.iter().filter(|next| above[**next] != usize::MAX) {
                let (mut a, mut b) = (next, best);
                if best != usize::MAX {
                    while a != b {
                        while number[a] < number[b] {
                            a = above[a];
                        }
                        while number[b] < number[a] {
                            b = above[b];
                        }
                    }
                }
                best = a;
            }
            if above[block] != best {
                above[block] = best;
                changed = true;
            }
        }
    }
    above.truncate(end);
    above.into_iter().map(|block| block.min(end)).collect()
}

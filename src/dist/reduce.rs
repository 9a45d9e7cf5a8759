//! Sums of vectors that have the same bits for any number of ranks.
//!
//! A batch is a fixed number of shards, whatever the number of ranks. The shards' vectors are added along one binary tree, whose
//! left branches hold a power of two of them; the depth is the logarithm of their number. A rank owns neighbouring shards and adds
//! the branches that it owns completely. Then each rank gets a slice of every such branch from all others (all to all), adds the
//! rest of the tree for its slice, and sends the result to all. In all, a rank sends and gets what a ring all-reduce does wherever
//! the number of shards of a rank is a power of two, which makes each rank's shards one branch.

use super::World;
use crate::memory;
use crate::{Error, Result};
use rayon::prelude::*;
use std::ops::Range;
use std::time::{Duration, Instant};

/// Neighbouring shards that are added in one branch of the tree.
type Branch = Range<usize>;

/// The two branches of a branch of more than one shard.
fn split(branch: &Branch) -> [Branch; 2] {
    let middle = branch.start + branch.len().next_power_of_two() / 2;
    [branch.start..middle, middle..branch.end]
}

/// The largest branches within `own`, in order.
fn branches_within(branch: Branch, own: &Branch, found: &mut Vec<Branch>) {
    if branch.start >= own.start && branch.end <= own.end {
        found.push(branch);
    } else if branch.start < own.end && own.start < branch.end {
        split(&branch).into_iter().for_each(|part| branches_within(part, own, found));
    }
}

/// Adds vectors of shards.
pub struct Sum {
    world: World,
    shards: usize,
    /// The largest branches of each rank.
    branches: Vec<Vec<Branch>>,
    /// Vectors that are used again.
    spare: Vec<Vec<f32>>,
    /// Time that went into sums over ranks.
    spent: Duration,
}

/// Values that one task adds.
const CHUNK: usize = 32 * 1024;

impl Sum {
    /// Sums of `shards` shards, which the ranks of `world` divide among them.
    ///
    /// # Errors
    /// A number of ranks that does not divide the shards.
    pub fn new(world: &World, shards: usize) -> Result<Self> {
        let ranks = world.size();
        if shards == 0 || !shards.is_multiple_of(ranks) {
            let found = format!("{shards} cannot be divided among {ranks} ranks");
            return Err(Error::new("shards", found)
                .advise(format!("set it to a multiple of {ranks}, or start as many ranks as divide {shards}")));
        }
        let each = shards / ranks;
        let branches = (0..ranks).map(|rank| {
            let mut found = Vec::new();
            branches_within(0..shards, &(rank * each..(rank + 1) * each), &mut found);
            found
        });
        Ok(Self {
            shards,
            branches: branches.collect(),
            world: world.clone(),
            spare: Vec::new(),
            spent: Duration::ZERO,
        })
    }

    /// The shards of this rank.
    pub fn own(&self) -> Range<usize> {
        let each = self.shards / self.world.size();
        self.world.rank() * each..(self.world.rank() + 1) * each
    }

    /// The sum of the vectors of all shards, all of length `len`. `shard` writes that of one of this rank's shards, and is called
    /// in ascending order.
    ///
    /// # Errors
    /// Out of memory; no answer from all ranks in time.
    pub fn of(&mut self, len: usize, mut shard: impl FnMut(usize, &mut [f32])) -> Result<Vec<f32>> {
        let own = self.branches[self.world.rank()].clone();
        let mut sums = Vec::with_capacity(own.len());
        for branch in own {
            sums.push(self.branch(branch, len, &mut shard)?);
        }
        if self.world.size() == 1 {
            return Ok(sums.swap_remove(0));
        }
        let began = Instant::now();
        let total = self.combine(len, sums);
        self.spent += began.elapsed();
        total
    }

    /// Time that went into sums over ranks, waiting for the slowest of them included.
    pub fn spent(&self) -> Duration {
        self.spent
    }

    /// Gives a vector back, to be used again.
    pub fn recycle(&mut self, vector: Vec<f32>) {
        self.spare.push(vector);
    }

    /// The sum of a branch of this rank.
    fn branch(&mut self, branch: Branch, len: usize, shard: &mut dyn FnMut(usize, &mut [f32])) -> Result<Vec<f32>> {
        if branch.len() == 1 {
            let mut own = vector(&mut self.spare, len)?;
            shard(branch.start, &mut own);
            return Ok(own);
        }
        let [left, right] = split(&branch);
        let mut left = self.branch(left, len, shard)?;
        let right = self.branch(right, len, shard)?;
        add(&mut left, &right);
        self.spare.push(right);
        Ok(left)
    }

    /// The sum of all ranks' branches.
    fn combine(&mut self, len: usize, sums: Vec<Vec<f32>>) -> Result<Vec<f32>> {
        let ranks = self.world.size();
        let slice = len.div_ceil(ranks);
        let most = self.branches.iter().map(Vec::len).max().unwrap_or(0);
        // The slices of this rank, of the first branch of each rank, then of the second of each.
        let mut slices: Vec<Vec<f32>> = Vec::new();
        for number in 0..most {
            let mut send = vector(&mut self.spare, ranks * slice)?;
            let sum = sums.get(number).map_or(&[][..], |sum| sum);
            send[..sum.len()].copy_from_slice(sum);
            send[sum.len()..].fill(0.0);
            let got = vector(&mut self.spare, ranks * slice)?;
            let [send, got] = self.world.exchange(send, got)?;
            self.spare.push(send);
            slices.push(got);
        }
        self.spare.extend(sums);
        let place = |branch: &Branch| {
            let rank = branch.start / (self.shards / ranks);
            self.branches[rank].iter().position(|own| own == branch).map(|number| (number, rank))
        };
        let mine = slice_sum(0..self.shards, &place, &slices, slice);
        let mut send = vector(&mut self.spare, ranks * slice)?;
        send.chunks_exact_mut(slice.max(1)).for_each(|part| part.copy_from_slice(&mine));
        let got = slices.swap_remove(0);
        self.spare.extend(slices);
        let [send, mut got] = self.world.exchange(send, got)?;
        self.spare.push(send);
        got.truncate(len);
        Ok(got)
    }
}

/// The sum of a branch in one slice.
fn slice_sum(
    branch: Branch,
    place: &dyn Fn(&Branch) -> Option<(usize, usize)>,
    slices: &[Vec<f32>],
    slice: usize,
) -> Vec<f32> {
    if let Some((number, rank)) = place(&branch) {
        return slices[number][rank * slice..(rank + 1) * slice].to_vec();
    }
    let [mut left, right] = split(&branch).map(|part| slice_sum(part, place, slices, slice));
    add(&mut left, &right);
    left
}

/// A vector of `len` values, contents undefined.
fn vector(spare: &mut Vec<Vec<f32>>, len: usize) -> Result<Vec<f32>> {
    let mut vector = spare.pop().unwrap_or_default();
    vector.truncate(len);
    memory::grow(&mut vector, len, "sums of gradients")?;
    Ok(vector)
}

fn add(to: &mut [f32], from: &[f32]) {
    to.par_chunks_mut(CHUNK).zip(from.par_chunks(CHUNK)).for_each(|(to, from)| {
        to.iter_mut().zip(from).for_each(|(to, from)| *to += from);
    });
}

#[cfg(test)]
mod tests {
    use super::super::tests::ranks;
    use super::*;
    use crate::rng::Rng;

    /// Values of which every order of addition gives another sum.
    fn value(shard: usize, len: usize) -> Vec<f32> {
        let mut rng = Rng::new(3, shard as u64);
        (0..len).map(|_| rng.normal() * 10f32.powi(rng.below(6) as i32)).collect()
    }

    #[test]
    fn any_number_of_ranks_gives_the_same_bits() {
        for shards in 1..=12 {
            for len in [1, 2, 5, 100] {
                let sum = |world: World| {
                    let mut sum = Sum::new(&world, shards).unwrap();
                    let mut last = Vec::new();
                    for _ in 0..3 {
                        let next = sum.of(len, |shard, to| to.copy_from_slice(&value(shard, len))).unwrap();
                        sum.recycle(std::mem::replace(&mut last, next));
                    }
                    last.iter().map(|value| value.to_bits()).collect::<Vec<u32>>()
                };
                let one = sum(World::alone());
                for size in (2..=shards).filter(|size| shards.is_multiple_of(*size)) {
                    for (rank, found) in ranks(size, sum).into_iter().enumerate() {
                        assert_eq!(found, one, "{shards} shards of {len}, rank {rank} of {size}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_sum_is_near_that_in_f64_and_the_tree_is_balanced() {
        let len = 50;
        let mut sum = Sum::new(&World::alone(), 11).unwrap();
        let found = sum.of(len, |shard, to| to.copy_from_slice(&value(shard, len))).unwrap();
        for (i, found) in found.iter().enumerate() {
            let terms: Vec<f64> = (0..11).map(|shard| f64::from(value(shard, len)[i])).collect();
            let largest = terms.iter().map(|term| term.abs()).sum::<f64>();
            assert!((f64::from(*found) - terms.iter().sum::<f64>()).abs() <= 4.0 * 6e-8 * largest);
        }
        fn depth(branch: Branch) -> usize {
            if branch.len() == 1 { 0 } else { 1 + split(&branch).map(depth).into_iter().max().unwrap() }
        }
        for shards in 1..100usize {
            assert_eq!(depth(0..shards), shards.next_power_of_two().trailing_zeros() as usize);
        }
    }

    #[test]
    fn ranks_that_do_not_divide_the_shards_are_refused_with_advice() {
        let said = ranks(3, |world| Sum::new(&world, 4).err().unwrap().to_string());
        let expected =
            "shards: 4 cannot be divided among 3 ranks; set it to a multiple of 3, or start as many ranks as divide 4";
        assert_eq!(said, [expected; 3]);
    }
}

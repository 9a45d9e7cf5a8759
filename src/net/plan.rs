//! A memory plan: every activation, gradient and scratch buffer of a pass is assigned a range of one arena, and buffers that
//! are never live at the same time share memory. Shapes are known, so a step allocates nothing.
//!
//! Time: the input is written at 0, layer l runs forward at 1 + l and backward at 2 L - l, with L layers.

use super::{INPUT, Net};
use crate::device::Gpu;
use crate::ops::conv::cuda::Pooled;
use crate::ops::{Kind, Operation};
use crate::text_table::{TextTable, number, text};
use crate::{Error, Result};
use std::fmt;
use std::ops::Range;

/// The purpose of a pass, which decides what must be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// Forward; only outputs are kept.
    Inference,
    /// Forward; every layer's output is kept.
    Inspection,
    /// Forward and backward.
    Training,
    /// Forward and backward; every layer's output and the input's gradient are kept.
    Differentiation,
}

impl Purpose {
    /// Whether a backward pass is planned.
    pub fn is_backward(self) -> bool {
        matches!(self, Self::Training | Self::Differentiation)
    }

    fn keeps_all(self) -> bool {
        matches!(self, Self::Inspection | Self::Differentiation)
    }
}

/// The layout of the arena; ranges are in values.
///
/// ```
/// use weft::net::{Net, Plan, Purpose};
///
/// let net = Net::load("nets/anet.toml")?;
/// let plan = Plan::new(&net, 64, Purpose::Training)?;
/// // Buffers that are never live at the same time share memory.
/// assert!(plan.len < plan.unshared);
/// # Ok::<(), weft::Error>(())
/// ```
#[derive(Debug)]
pub struct Plan {
    /// Samples of a batch.
    pub n: usize,
    /// What the pass is for.
    pub purpose: Purpose,
    /// Range of each value (0 is the input).
    pub values: Vec<Range<usize>>,
    /// Range of each value's gradient; `None` where it is not needed.
    pub gradients: Vec<Option<Range<usize>>>,
    /// Scratch memory of each layer.
    pub layers: Vec<LayerPlan>,
    /// Length of the arena.
    pub len: usize,
    /// Sum of all buffers: the arena's length without sharing.
    pub unshared: usize,
}

/// A layer's scratch.
#[derive(Debug, Default)]
pub struct LayerPlan {
    pub forward: Range<usize>,
    pub backward: Range<usize>,
    /// For each input whose gradient a later layer has already written: where this layer's contribution goes before it is added.
    pub extra: Vec<Option<Range<usize>>>,
}

/// No layer has more than 2^31 values per sample, so sizes in bytes fit in 64 bits up to this batch.
pub(super) const MOST_SAMPLES: usize = 1 << 20;

/// Every buffer begins on a cache line, which is 128 bytes on a GPU with 16-bit values.
const ALIGN: usize = 64;

/// A buffer and its live range.
#[derive(Debug)]
struct Buffer {
    len: usize,
    /// First and last moment of use.
    alive: (usize, usize),
    start: usize,
}

/// Buffers that share an arena; lengths are in values.
#[derive(Debug, Default)]
pub struct Buffers(Vec<Buffer>);

impl Buffers {
    /// A buffer live from moment `born` to moment `dies`, both included; returns its number.
    pub fn add(&mut self, len: usize, born: usize, dies: usize) -> usize {
        debug_assert!(born <= dies);
        self.0.push(Buffer { len, alive: (born, dies), start: 0 });
        self.0.len() - 1
    }

    /// Assigns each buffer the lowest offset that is free during its live range, largest first; returns the arena's length.
    /// Sizes beyond 64 bits saturate.
    pub fn place(&mut self) -> usize {
        let mut order: Vec<usize> = (0..self.0.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(self.0[i].len));
        let mut placed: Vec<usize> = Vec::new();
        let mut end = 0usize;
        for index in order {
            let Buffer { len, alive, .. } = self.0[index];
            let mut start = 0usize;
            // `placed` is sorted by start: take the first gap that is large enough.
            for &other in &placed {
                let other = &self.0[other];
                let apart = other.alive.1 < alive.0 || alive.1 < other.alive.0;
                if apart || other.len == 0 {
                    continue;
                }
                if start.saturating_add(len) <= other.start {
                    break;
                }
                let end = other.start.saturating_add(other.len);
                start = start.max(end.checked_next_multiple_of(ALIGN).unwrap_or(usize::MAX));
            }
            self.0[index].start = start;
            end = end.max(start.saturating_add(len));
            let at = placed.partition_point(|&other| self.0[other].start <= start);
            placed.insert(at, index);
        }
        end
    }

    /// Range of a placed buffer.
    pub fn range(&self, index: usize) -> Range<usize> {
        let buffer = &self.0[index];
        buffer.start..buffer.start.saturating_add(buffer.len)
    }
}

impl Plan {
    /// Plans passes over `n` samples on the CPU.
    ///
    /// # Errors
    /// `n` is 0 or beyond the sizes that can be computed.
    pub fn new(net: &Net, n: usize, purpose: Purpose) -> Result<Self> {
        Self::with_scratch(net, n, purpose, |op| [op.forward_workspace(n), op.backward_workspace(n)], |_| None)
    }

    /// Plans passes over `n` samples on a GPU.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn on_gpu(net: &Net, n: usize, purpose: Purpose, gpu: &Gpu) -> Result<Self> {
        let values = |bytes: usize| bytes.div_ceil(gpu.precision.bytes());
        let scratch =
            |op: &dyn Operation| [op.gpu_forward_workspace(n, gpu), op.gpu_backward_workspace(n, gpu)].map(values);
        let reads = |l: usize| pooled(net, l, n, purpose, gpu).map(|(_, below)| net.layers[below].inputs[0]);
        Self::with_scratch(net, n, purpose, scratch, reads)
    }

    /// Plans passes on a device whose operations need `scratch` (forward, backward), in values; layer `l` may also read the value
    /// `reads(l)`.
    fn with_scratch(
        net: &Net,
        n: usize,
        purpose: Purpose,
        scratch_of: impl Fn(&dyn Operation) -> [usize; 2],
        reads: impl Fn(usize) -> Option<usize>,
    ) -> Result<Self> {
        if !(1..=MOST_SAMPLES).contains(&n) {
            let advice = format!("give 1 to {MOST_SAMPLES}");
            return Err(Error::network(&net.spec.place, format!("a batch of {n} samples")).advise(advice));
        }
        let layers = net.layers.len();
        let (forward, backward) = (|l: usize| 1 + l, |l: usize| 2 * layers - l);
        let end = 2 * layers + 1;
        let wanted = wanted_gradients(net, purpose);
        let mut buffers = Buffers::default();

        let late: Vec<Option<usize>> = (0..layers).map(reads).collect();
        let values: Vec<usize> = (0..=layers)
            .map(|value| {
                let consumers = || (0..layers).filter(move |&l| net.layers[l].inputs.contains(&value));
                let born = if value == INPUT { 0 } else { forward(value - 1) };
                let held_for = (0..layers).filter(|&l| late[l] == Some(value));
                let mut dies = consumers().chain(held_for).map(forward).max().unwrap_or(end).max(born);
                if purpose.is_backward() {
                    let read = consumers().filter(|&l| wanted[l + 1] && net.layers[l].op.needs().inputs);
                    dies = read.map(backward).max().unwrap_or(0).max(dies);
                    if value != INPUT && wanted[value] && net.layers[value - 1].op.needs().output {
                        dies = dies.max(backward(value - 1));
                    }
                }
                // The input is written before forward and may be written once for several passes.
                let keep = purpose.keeps_all() || (value == INPUT && purpose == Purpose::Inference && layers == 0);
                buffers.add(net.value_len(value, n), born, if keep { end } else { dies })
            })
            .collect();

        let mut written = vec![false; layers + 1];
        let mut gradients: Vec<Option<usize>> = vec![None; layers + 1];
        let mut scratch: Vec<(usize, usize, Vec<Option<usize>>)> = Vec::new();
        for l in (0..layers).rev() {
            let layer = &net.layers[l];
            let [forward_scratch, backward_scratch] = scratch_of(&*layer.op);
            let work = buffers.add(forward_scratch, forward(l), forward(l));
            let mut extra = vec![None; layer.inputs.len()];
            let mut back = work;
            if wanted[l + 1] {
                let now = backward(l);
                if gradients[l + 1].is_none() {
                    // A seed: written when the backward pass begins.
                    gradients[l + 1] = Some(buffers.add(net.value_len(l + 1, n), layers + 1, now));
                }
                back = buffers.add(backward_scratch, now, now);
                for (input, &value) in layer.inputs.iter().enumerate().filter(|(_, value)| wanted[**value]) {
                    let len = net.value_len(value, n);
                    if written[value] {
                        extra[input] = Some(buffers.add(len, now, now));
                    } else {
                        written[value] = true;
                        let dies = if value == INPUT { end } else { backward(value - 1) };
                        gradients[value] = Some(buffers.add(len, now, dies));
                    }
                }
            }
            scratch.push((work, back, extra));
        }
        scratch.reverse();

        let len = buffers.place();
        let layers = scratch
            .into_iter()
            .zip(&wanted[1..])
            .map(|((forward, backward, extra), wanted)| LayerPlan {
                forward: buffers.range(forward),
                backward: if *wanted { buffers.range(backward) } else { 0..0 },
                extra: extra.into_iter().map(|buffer| buffer.map(|b| buffers.range(b))).collect(),
            })
            .collect();
        Ok(Self {
            n,
            purpose,
            values: values.into_iter().map(|v| buffers.range(v)).collect(),
            gradients: gradients.into_iter().map(|g| g.map(|g| buffers.range(g))).collect(),
            layers,
            len,
            unshared: buffers.0.iter().fold(0, |sum: usize, b| sum.saturating_add(b.len)),
        })
    }
}

/// Layer `l` and the layer below it, if a GPU runs them as one: a maximum and the first layer, whose output nobody else reads and
/// whose input needs no gradient. The memory of that output then holds which pixels are the maxima, that of its gradient is
/// scratch.
pub(super) fn pooled<'a>(net: &'a Net, l: usize, n: usize, purpose: Purpose, gpu: &Gpu) -> Option<(Pooled<'a>, usize)> {
    let layer = &net.layers[l];
    let below = layer.inputs[0].checked_sub(1)?;
    let conv = &net.layers[below];
    let (Kind::Pool(pool), Kind::Filter(filter)) = (layer.op.kind(), conv.op.kind()) else { return None };
    let readers = net.layers.iter().filter(|layer| layer.inputs.contains(&(below + 1))).count();
    let is_free = !purpose.keeps_all() && !wanted_gradients(net, purpose)[conv.inputs[0]];
    (readers == 1 && is_free).then(|| Pooled::new(filter, pool, n, gpu))?.map(|pooled| (pooled, below))
}

/// Layers whose output starts the backward pass: all losses, and the last layer.
pub(super) fn is_seed(net: &Net, layer: usize) -> bool {
    layer + 1 == net.layers.len() || net.layers[layer].op.target().is_some()
}

/// Which values' gradients are computed: those on a path from a seed to a parameter (or to the input, if requested).
fn wanted_gradients(net: &Net, purpose: Purpose) -> Vec<bool> {
    let layers = net.layers.len();
    if !purpose.is_backward() {
        return vec![false; layers + 1];
    }
    let mut useful = vec![purpose == Purpose::Differentiation];
    for layer in &net.layers {
        useful.push(!layer.parameters.is_empty() || layer.inputs.iter().any(|&value| useful[value]));
    }
    let mut reached = vec![false; layers + 1];
    for l in (0..layers).rev() {
        reached[l + 1] |= is_seed(net, l);
        if reached[l + 1] {
            net.layers[l].inputs.iter().for_each(|&value| reached[value] = true);
        }
    }
    reached.iter().zip(&useful).map(|(reached, useful)| *reached && *useful).collect()
}

/// A plan with its net, printed as the table of `weft plan`.
pub struct Table<'a> {
    /// The net.
    pub net: &'a Net,
    /// Its plan.
    pub plan: &'a Plan,
}

impl fmt::Display for Table<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (net, plan) = (self.net, self.plan);
        let numbers = ["output", "parameters", "at", "gradient at", "scratch", "MFLOP"].map(number);
        let table = TextTable::new([text("layer"), text("type")].into_iter().chain(numbers));
        let at = |range: &Range<usize>| format!("{}", 4 * range.start as u128);
        let gradient = |value: usize| plan.gradients[value].as_ref().map_or("-".into(), at);
        let mut rows = vec![vec![
            "input".into(),
            String::new(),
            net.spec.input.to_string(),
            String::new(),
            at(&plan.values[INPUT]),
            gradient(INPUT),
        ]];
        for (l, layer) in net.layers.iter().enumerate() {
            let parameters: usize = net.parameters[layer.parameters.clone()].iter().map(|p| p.range.len()).sum();
            let scratch = plan.layers[l].forward.len().max(plan.layers[l].backward.len());
            rows.push(vec![
                layer.name.clone(),
                layer.kind.clone(),
                layer.shape.to_string(),
                parameters.to_string(),
                at(&plan.values[l + 1]),
                gradient(l + 1),
                (4 * scratch as u128).to_string(),
                format!("{:.3}", plan.n as f64 * layer.op.flops() as f64 / 1e6),
            ]);
        }
        writeln!(f, "{}", table.print(rows))?;
        write!(
            f,
            "{} samples, {} parameters ({} bytes), arena {} bytes ({} without sharing), forward {:.3} GFLOP",
            plan.n,
            net.parameter_len(),
            4 * net.parameter_len(),
            4 * plan.len as u128,
            4 * plan.unshared as u128,
            plan.n as f64 * net.flops() as f64 / 1e9
        )
    }
}

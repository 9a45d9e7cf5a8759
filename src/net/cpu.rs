//! Passes over batches of one size on the CPU.

use super::plan::is_seed;
use super::{CpuParameters, INPUT, Net, Plan, Purpose};
use crate::Result;
use crate::device::Device;
use crate::memory;
use crate::ops::{Backward, Forward, Mode, Targets, parallel};
use smallvec::SmallVec;
use std::ops::Range;
use std::sync::Arc;

/// Capacity of a layer's argument lists; longer ones (a wide concat) fall back to the heap.
type List<T> = SmallVec<[T; 8]>;

/// A plan with its arena.
pub(super) struct CpuPass {
    net: Arc<Net>,
    parameters: CpuParameters,
    plan: Plan,
    arena: Vec<f32>,
    /// Gradients of the parameters; empty in forward-only passes.
    gradients: Vec<f32>,
}

/// The arena during one layer's pass: lends the buffers that the plan keeps disjoint.
struct Arena {
    base: *mut f32,
    len: usize,
}

impl Arena {
    /// # Safety
    /// `range` must not overlap a range that is borrowed mutably.
    unsafe fn get<'a>(&self, range: &Range<usize>) -> &'a [f32] {
        assert!(range.end <= self.len);
        // SAFETY: inside the arena, and not borrowed mutably by the caller's promise.
        unsafe { std::slice::from_raw_parts(self.base.add(range.start), range.len()) }
    }

    /// # Safety
    /// `range` must not overlap any borrowed range.
    unsafe fn get_mut<'a>(&self, range: &Range<usize>) -> &'a mut [f32] {
        assert!(range.end <= self.len);
        // SAFETY: inside the arena, and not borrowed by the caller's promise.
        unsafe { std::slice::from_raw_parts_mut(self.base.add(range.start), range.len()) }
    }
}

impl CpuPass {
    /// Plans passes over `n` samples and allocates their arena.
    ///
    /// # Errors
    /// No memory for the arena: how much is needed and how much is free, and the largest batch that would fit.
    pub fn new(net: Arc<Net>, parameters: CpuParameters, n: usize, purpose: Purpose) -> Result<Self> {
        let plan = Plan::new(&net, n, purpose)?;
        let what = format!("{}: a batch of {n}", net.spec.place);
        let arena = memory::zeroed(plan.len, &what)
            .map_err(|refused| net.fit(&what, &Device::Cpu, n, purpose, |_| 0).err().unwrap_or(refused))?;
        let gradients = if purpose.is_backward() { net.parameter_len() } else { 0 };
        let gradients = memory::zeroed(gradients, "gradients")?;
        Ok(Self { net, parameters, plan, arena, gradients })
    }

    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// The batch, `[n, h, w, c]`. Other buffers may reuse its memory during a pass: write it before each one.
    pub fn input(&mut self) -> &mut [f32] {
        &mut self.arena[self.plan.values[INPUT].clone()]
    }

    /// Output of layer `layer`, `[n, h, w, c]`; a loss is one value. Outputs that no layer reads are available after
    /// forward, the others only if the purpose keeps them.
    pub fn value(&self, layer: usize) -> &[f32] {
        &self.arena[self.plan.values[layer + 1].clone()]
    }

    /// Gradient of the input, if the purpose is differentiation.
    pub fn input_gradient(&self) -> Option<&[f32]> {
        self.plan.gradients[INPUT].as_ref().map(|range| &self.arena[range.clone()])
    }

    /// Gradients of the parameters, as one flat vector.
    pub fn gradients(&self) -> &[f32] {
        &self.gradients
    }

    pub fn gradients_mut(&mut self) -> &mut [f32] {
        &mut self.gradients
    }

    /// Runs all layers on the batch in [`CpuPass::input`]; calls `done` with each layer that has run. The targets must fit.
    pub fn forward(&mut self, mode: Mode, targets: Targets<'_>, mut done: impl FnMut(usize)) {
        let shared = self.parameters.clone();
        let parameters = shared.read();
        parallel::awake(|| {
            // What training changes at every step is prepared by each pass.
            let is_constant = !self.plan.purpose.is_backward();
            let prepared = if is_constant { shared.prepared(&self.net, &parameters) } else { Arc::default() };
            let mut at = 0;
            for l in 0..self.net.layers.len() {
                let end = at + self.net.layers[l].op.prepared_len();
                self.forward_layer(l, &parameters, prepared.get(at..end).unwrap_or_default(), mode, targets);
                at = end;
                done(l);
            }
        });
    }

    /// Runs only layer `l`; the layers it reads must have run.
    fn forward_layer(&mut self, l: usize, parameters: &[f32], prepared: &[f32], mode: Mode, targets: Targets<'_>) {
        let arena = Arena { base: self.arena.as_mut_ptr(), len: self.arena.len() };
        let (net, plan) = (&self.net, &self.plan);
        let layer = &net.layers[l];
        // SAFETY: at any moment of the plan's time all live buffers are disjoint, and these are live at 1 + l.
        unsafe {
            let inputs: List<&[f32]> = layer.inputs.iter().map(|&value| arena.get(&plan.values[value])).collect();
            let params: List<&[f32]> =
                net.parameters[layer.parameters.clone()].iter().map(|p| &parameters[p.range.clone()]).collect();
            layer.op.forward(Forward {
                n: plan.n,
                mode,
                stream: l as u64,
                inputs: &inputs,
                params: &params,
                prepared,
                targets,
                output: arena.get_mut(&plan.values[l + 1]),
                workspace: arena.get_mut(&plan.layers[l].forward),
            });
        }
    }

    /// Gradients of the sum of all losses, or of the last layer's output times `cotangent`, with respect to the parameters;
    /// calls `done` with each layer that has run, last layer first. The targets must fit.
    ///
    /// # Errors
    /// A cotangent of the wrong length, or none where the last layer is not a loss.
    pub fn backward(
        &mut self,
        mode: Mode,
        targets: Targets<'_>,
        cotangent: Option<&[f32]>,
        mut done: impl FnMut(usize),
    ) -> Result<()> {
        let last = self.net.layers.len() - 1;
        for l in 0..=last {
            let Some(range) = self.plan.gradients[l + 1].clone().filter(|_| is_seed(&self.net, l)) else { continue };
            let seed = self.net.seed(l, self.plan.n, cotangent.filter(|_| l == last))?;
            self.arena[range].copy_from_slice(&seed);
        }
        let parameters = self.parameters.clone();
        let parameters = parameters.read();
        parallel::awake(|| {
            for l in (0..=last).rev() {
                self.backward_layer(l, &parameters, mode, targets);
                done(l);
            }
        });
        Ok(())
    }

    fn backward_layer(&mut self, l: usize, parameters: &[f32], mode: Mode, targets: Targets<'_>) {
        let arena = Arena { base: self.arena.as_mut_ptr(), len: self.arena.len() };
        let (net, plan) = (&self.net, &self.plan);
        let layer = &net.layers[l];
        // The layer's parameters are contiguous: split its range of the gradients into tensors.
        let tensors = &net.parameters[layer.parameters.clone()];
        let start = tensors.first().map_or(0, |p| p.range.start);
        let end = tensors.last().map_or(start, |p| p.range.end);
        let mut rest = &mut self.gradients[start..end];
        let Some(d_output) = &plan.gradients[l + 1] else { return rest.fill(0.0) };
        let mut d_params: List<&mut [f32]> = List::new();
        for tensor in tensors {
            let (own, others) = rest.split_at_mut(tensor.range.len());
            d_params.push(own);
            rest = others;
        }
        let extra = &plan.layers[l].extra;
        let needs = layer.op.needs();
        // SAFETY: all buffers that are live at one moment of the plan's time are disjoint, and these are live at 2 L - l; of the
        // values, only those named by `needs` are read.
        unsafe {
            let inputs: List<&[f32]> = layer
                .inputs
                .iter()
                .map(|&value| if needs.inputs { arena.get(&plan.values[value]) } else { &[] })
                .collect();
            let params: List<&[f32]> = tensors.iter().map(|p| &parameters[p.range.clone()]).collect();
            let mut d_inputs: List<Option<&mut [f32]>> = layer
                .inputs
                .iter()
                .zip(extra)
                .map(|(&value, extra)| {
                    extra.as_ref().or(plan.gradients[value].as_ref()).map(|range| arena.get_mut(range))
                })
                .collect();
            layer.op.backward(Backward {
                n: plan.n,
                mode,
                stream: l as u64,
                inputs: &inputs,
                output: if needs.output { arena.get(&plan.values[l + 1]) } else { &[] },
                params: &params,
                targets,
                d_output: arena.get_mut(d_output),
                d_inputs: &mut d_inputs,
                d_params: &mut d_params,
                workspace: arena.get_mut(&plan.layers[l].backward),
            });
        }
        for (&value, extra) in layer.inputs.iter().zip(extra) {
            if let (Some(extra), Some(total)) = (extra, &plan.gradients[value]) {
                // SAFETY: the extra buffer and the gradient are live together, hence disjoint; the above borrows have ended.
                let (extra, total) = unsafe { (arena.get(extra), arena.get_mut(total)) };
                total.iter_mut().zip(extra).for_each(|(t, e)| *t += e);
            }
        }
    }
}

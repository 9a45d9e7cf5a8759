//! The GPU interface of operations: given the addresses of a layer's buffers, an operation appends its launches to a
//! [`Recorder`], once. Addresses do not change, so the launches can be replayed.

use super::activation::Activation;
use crate::device::{Launch, Precision, Ptr, Recorder};
use crate::kernel_parameters;
use bytemuck::{Pod, Zeroable};

/// Targets of the losses in device memory: `[n]` or `[n, h, w]` classes (u32), `[n, h, w, c]` values (f32).
#[derive(Debug, Clone, Copy)]
pub struct GpuTargets {
    pub classes: Ptr,
    pub values: Ptr,
}

/// A layer's part of a forward pass over `n` samples. Activations are NHWC in the storage type of the precision; a loss is
/// one f32.
#[derive(Debug, Clone, Copy)]
pub struct GpuForward<'a> {
    pub n: usize,
    /// Dropout draws its masks from the seed in `step` and the stream `stream`.
    pub training: bool,
    pub stream: u64,
    /// A [`crate::device::Step`].
    pub step: Ptr,
    pub inputs: &'a [Ptr],
    /// Weights in the storage type; biases, and all that has no fan-in, in f32.
    pub params: &'a [Ptr],
    pub targets: GpuTargets,
    pub output: Ptr,
    pub workspace: Ptr,
}

/// A layer's part of a backward pass. Gradients are overwritten, never accumulated.
#[derive(Debug)]
pub struct GpuBackward<'a> {
    pub n: usize,
    pub training: bool,
    pub stream: u64,
    pub step: Ptr,
    /// Null where [`super::Needs`] says they are not read.
    pub inputs: &'a [Ptr],
    pub output: Ptr,
    pub params: &'a [Ptr],
    pub targets: GpuTargets,
    /// May be overwritten in place. Of a loss: one f32.
    pub d_output: Ptr,
    /// Whether the derivative of this layer's rectifier is already in `d_output`.
    pub is_rectified: bool,
    /// Whether the derivative of the rectifier that wrote the input goes into `d_inputs[0]`.
    pub rectify_input: bool,
    /// `None` where the gradient of this input is not needed.
    pub d_inputs: &'a [Option<Ptr>],
    /// In f32.
    pub d_params: &'a [Ptr],
    pub workspace: Ptr,
}

/// Default number of threads per block.
pub const BLOCK: usize = 256;

/// Grid of blocks of [`BLOCK`] threads, one thread per item. Kernels index threads in 32 bits: see [`Launch::is_too_large`].
pub fn cover(items: usize) -> [usize; 3] {
    [items.div_ceil(BLOCK).max(1), 1, 1]
}

kernel_parameters! {
    /// kernels/pointwise.cu
    Pointwise: 40 { x: Ptr, y: Ptr, out: Ptr, count: u64, activation: u32, unused: u32 }
}

kernel_parameters! {
    /// kernels/pointwise.cu
    Fill: 24 { out: Ptr, count: u64, value: f32, unused: u32 }
}

/// Values of a 16-byte pack.
pub fn pack(precision: Precision) -> usize {
    16 / precision.bytes()
}

/// Division by a number known at launch: `q = (umulhi(n, multiplier) + n) >> shift` for n < 2^31 (Granlund and Montgomery,
/// PLDI 1994).
#[derive(Debug, Clone, Copy, Pod, Zeroable)]
#[repr(C)]
pub struct Divisor {
    divisor: u32,
    multiplier: u32,
    shift: u32,
}

impl Divisor {
    pub fn new(divisor: usize) -> Self {
        let shift = divisor.next_power_of_two().trailing_zeros();
        let multiplier = ((1u64 << 32) * ((1u64 << shift) - divisor as u64) / divisor as u64 + 1) as u32;
        Self { divisor: divisor as u32, multiplier, shift }
    }
}

/// Adjacent channels that a thread owns: a pack where channel counts and all addresses are aligned to one, else 1.
pub fn lanes(precision: Precision, channels: usize, addresses: &[Ptr]) -> usize {
    let pack = pack(precision);
    let aligned = addresses.iter().all(|address| address.0.is_multiple_of(16));
    if channels.is_multiple_of(pack) && aligned { pack } else { 1 }
}

/// `out = activation(x)`.
pub fn activation_forward(to: &mut Recorder<'_>, activation: Activation, x: Ptr, out: Ptr, count: usize) {
    let parameters = Pointwise { x, y: Ptr::NULL, out, count: count as u64, activation: activation as u32, unused: 0 };
    let grid = cover(count.div_ceil(pack(to.precision())));
    let bytes = 2 * count * to.precision().bytes();
    to.launch(Launch::new(to.stored("activation_forward"), grid, BLOCK, &parameters).work(count as u64, bytes as u64));
}

/// `out = gradient * activation'(y)`; `out` may be `gradient`.
pub fn activation_backward(
    to: &mut Recorder<'_>,
    activation: Activation,
    gradient: Ptr,
    y: Ptr,
    out: Ptr,
    count: usize,
) {
    let parameters = Pointwise { x: gradient, y, out, count: count as u64, activation: activation as u32, unused: 0 };
    let grid = cover(count.div_ceil(pack(to.precision())));
    let bytes = 3 * count * to.precision().bytes();
    to.launch(Launch::new(to.stored("activation_backward"), grid, BLOCK, &parameters).work(count as u64, bytes as u64));
}

/// `out += x`.
pub fn accumulate(to: &mut Recorder<'_>, x: Ptr, out: Ptr, count: usize) {
    let parameters = Pointwise { x, y: Ptr::NULL, out, count: count as u64, activation: 0, unused: 0 };
    let grid = cover(count.div_ceil(pack(to.precision())));
    let bytes = 3 * count * to.precision().bytes();
    to.launch(Launch::new(to.stored("accumulate"), grid, BLOCK, &parameters).work(count as u64, bytes as u64));
}

/// Casts f32 to the storage type.
pub fn cast_from_f32(to: &mut Recorder<'_>, x: Ptr, out: Ptr, count: usize) {
    let parameters = Pointwise { x, y: Ptr::NULL, out, count: count as u64, activation: 0, unused: 0 };
    let bytes = count * (4 + to.precision().bytes());
    to.launch(Launch::new(to.stored("cast_from_f32"), cover(count), BLOCK, &parameters).work(0, bytes as u64));
}

/// Casts the storage type to f32.
pub fn cast_to_f32(to: &mut Recorder<'_>, x: Ptr, out: Ptr, count: usize) {
    let parameters = Pointwise { x, y: Ptr::NULL, out, count: count as u64, activation: 0, unused: 0 };
    let bytes = count * (4 + to.precision().bytes());
    to.launch(Launch::new(to.stored("cast_to_f32"), cover(count), BLOCK, &parameters).work(0, bytes as u64));
}

/// Fills `count` values of the storage type with `value`.
pub fn fill(to: &mut Recorder<'_>, value: f32, out: Ptr, count: usize) {
    let parameters = Fill { out, count: count as u64, value, unused: 0 };
    let bytes = count * to.precision().bytes();
    to.launch(Launch::new(to.stored("fill"), cover(count), BLOCK, &parameters).work(0, bytes as u64));
}

/// Fills `count` f32 values with `value`.
pub fn fill_f32(to: &mut Recorder<'_>, value: f32, out: Ptr, count: usize) {
    let parameters = Fill { out, count: count as u64, value, unused: 0 };
    to.launch(Launch::new("fill_f32", cover(count), BLOCK, &parameters).work(0, 4 * count as u64));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divisors_divide() {
        for divisor in (1..300).chain([511, 512, 513, 3_456, 65_535, 1 << 20]) {
            let d = Divisor::new(divisor);
            for n in (0..2_000).chain([1 << 20, (1 << 31) - 1, (1 << 31) - divisor as u64]) {
                let high = (n * u64::from(d.multiplier)) >> 32;
                assert_eq!((high + n) >> d.shift, n / divisor as u64, "{n} / {divisor}");
            }
        }
    }
}

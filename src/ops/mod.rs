//! The operations that networks consist of. Everything specific to one operation is in its own folder: `mod.rs` holds its
//! parameters, shapes and documentation, `cpu.rs` its arithmetic on the CPU, `cuda.rs` its launches on a GPU, `cases.rs`
//! its test cases.
//!
//! An operation is built from its TOML table and the shapes of its inputs in one step ([`OPERATIONS`]), so a bound
//! operation never has an invalid geometry. It never sees a network: a pass hands it slices and it fills them.
//!
//! Layout: activations are NHWC internally (`[n, h, w, c]`, channels contiguous), so that a row of a filter window is one
//! contiguous run, pools and normalisation run along channels in vector registers, and a local layer's block is rows of
//! a matrix. NCHW exists only at the interfaces ([`nchw_to_nhwc`]).

use crate::device::{Gpu, Recorder};
use crate::settings::{Limit, Mistake, Within, from_table, limits};
use cases::Case;
use gpu::{GpuBackward, GpuForward};
use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Deserializer};
use std::fmt;

#[doc(hidden)]
pub mod activation;
#[doc(hidden)]
pub mod cases;
#[doc(hidden)]
pub mod concat;
#[doc(hidden)]
pub mod conv;
#[doc(hidden)]
pub mod dropout;
#[doc(hidden)]
pub mod global_pool;
#[doc(hidden)]
pub mod gpu;
#[doc(hidden)]
pub mod group_norm;
#[doc(hidden)]
pub mod linear;
#[doc(hidden)]
pub mod local_conv;
#[doc(hidden)]
pub mod loss;
#[doc(hidden)]
pub mod lrn;
#[doc(hidden)]
pub mod parallel;
#[doc(hidden)]
pub mod pool;
#[doc(hidden)]
pub mod product;
#[doc(hidden)]
pub mod simd;
#[doc(hidden)]
pub mod softmax;
#[doc(hidden)]
pub mod tolerance;

/// Builds an operation from its keys in the network file and the shapes of its inputs.
/// The error says what does not fit, and which key if one is at fault; the caller adds file, line and layer.
#[doc(hidden)]
pub type Build = fn(toml::Table, &[Shape]) -> Result<Box<dyn Operation>, Mistake>;

/// Every layer type of the network format: its name, its constructor, and its test cases.
#[doc(hidden)]
pub const OPERATIONS: &[(&str, Build, &[Case])] = &[
    ("conv", conv::build, conv::cases::CONV),
    ("local_conv", local_conv::build, local_conv::cases::LOCAL_CONV),
    ("max_pool", pool::build_max, pool::cases::MAX_POOL),
    ("avg_pool", pool::build_avg, pool::cases::AVG_POOL),
    ("global_pool", global_pool::build, global_pool::cases::GLOBAL_POOL),
    ("lrn", lrn::build, lrn::cases::LRN),
    ("group_norm", group_norm::build, group_norm::cases::GROUP_NORM),
    ("relu", activation::build_relu, activation::cases::RELU),
    ("sigmoid", activation::build_sigmoid, activation::cases::SIGMOID),
    ("linear", linear::build, linear::cases::LINEAR),
    ("dropout", dropout::build, dropout::cases::DROPOUT),
    ("concat", concat::build, concat::cases::CONCAT),
    ("softmax", softmax::build, softmax::cases::SOFTMAX),
    ("softmax_cross_entropy", loss::build_softmax, loss::cases::SOFTMAX_CROSS_ENTROPY),
    ("sigmoid_cross_entropy", loss::build_sigmoid, loss::cases::SIGMOID_CROSS_ENTROPY),
    ("similarity", loss::build_similarity, loss::cases::SIMILARITY),
];

/// Shape of one sample: channels, height, width.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Shape {
    /// Channels.
    pub c: usize,
    /// Vertical.
    pub h: usize,
    /// Horizontal.
    pub w: usize,
}

impl Shape {
    /// Channels, height, width.
    pub const fn new(c: usize, h: usize, w: usize) -> Self {
        Self { c, h, w }
    }

    /// Values in one sample.
    pub const fn len(self) -> usize {
        self.c * self.h * self.w
    }

    /// True if it has no values; no bound operation has such a shape.
    pub const fn is_empty(self) -> bool {
        self.len() == 0
    }

    /// Positions in one channel.
    pub const fn area(self) -> usize {
        self.h * self.w
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}x{}x{}", self.c, self.h, self.w)
    }
}

limits! {
    /// A side of a map, and lengths measured in its pixels. A product of two sides and a number of channels fits in 64 bits.
    Side: usize = 1, 1 << 16;
    /// Pixels around a map.
    Padding: usize = 0, 1 << 16;
    /// Channels of a map, or groups of them.
    Channels: usize = 1, 1 << 20;
}

/// A size per axis, written in TOML as one number or as `[vertical, horizontal]`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pair {
    /// Vertical.
    pub h: usize,
    /// Horizontal.
    pub w: usize,
}

impl Pair {
    /// The same size along both axes.
    pub const fn both(n: usize) -> Self {
        Self { h: n, w: n }
    }
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.h == self.w { write!(f, "{}", self.h) } else { write!(f, "[{}, {}]", self.h, self.w) }
    }
}

impl<L: Limit<Number = usize>> Within<L> for Pair {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let one = |value: &toml::Value| {
            let number = <usize as Within<L>>::read(value.clone().into_deserializer());
            number.map_err(|e: toml::de::Error| D::Error::custom(e.message()))
        };
        match toml::Value::deserialize(from)? {
            toml::Value::Array(list) if list.len() == 2 => Ok(Self { h: one(&list[0])?, w: one(&list[1])? }),
            toml::Value::Array(list) => {
                Err(D::Error::custom(format!("is a list of {}; write a number or two, as in 3 or [3, 5]", list.len())))
            }
            value => one(&value).map(Self::both),
        }
    }
}

/// The order of a parameter's values in memory: its axes in files, permuted.
#[derive(Debug, Clone, PartialEq, Eq)]
#[doc(hidden)]
pub struct Permutation {
    /// Sizes of the axes in files, outermost first (an axis of the file's shape may be split into several here).
    sizes: Vec<usize>,
    /// Axis `i` in memory is axis `axes[i]` in files.
    axes: Vec<usize>,
}

impl Permutation {
    pub fn new(sizes: &[usize], axes: &[usize]) -> Self {
        debug_assert!((0..sizes.len()).all(|axis| axes.contains(&axis)) && sizes.len() == axes.len());
        Self { sizes: sizes.to_vec(), axes: axes.to_vec() }
    }

    pub fn identity(len: usize) -> Self {
        Self::new(&[len], &[0])
    }

    /// File order to memory order.
    pub fn pack(&self, file: &[f32], memory: &mut [f32]) {
        self.walk(|in_memory, in_file| memory[in_memory] = file[in_file]);
    }

    /// Memory order to file order.
    pub fn unpack(&self, memory: &[f32], file: &mut [f32]) {
        self.walk(|in_memory, in_file| file[in_file] = memory[in_memory]);
    }

    fn walk(&self, mut visit: impl FnMut(usize, usize)) {
        let mut strides = vec![1; self.sizes.len()];
        for axis in (1..self.sizes.len()).rev() {
            strides[axis - 1] = strides[axis] * self.sizes[axis];
        }
        let mut index = vec![0; self.axes.len()];
        let mut in_file = 0;
        for in_memory in 0..self.sizes.iter().product() {
            visit(in_memory, in_file);
            // Counts in memory order, the last axis fastest.
            for (place, &axis) in index.iter_mut().zip(&self.axes).rev() {
                *place += 1;
                in_file += strides[axis];
                if *place < self.sizes[axis] {
                    break;
                }
                in_file -= strides[axis] * self.sizes[axis];
                *place = 0;
            }
        }
    }
}

/// One parameter tensor of an operation.
#[derive(Debug, Clone)]
pub struct Parameter {
    /// `weight` or `bias`; the file's name is `<layer>.<suffix>`.
    pub suffix: &'static str,
    /// Shape in files.
    pub shape: Vec<usize>,
    /// From file order to memory order.
    pub order: Permutation,
    /// Inputs that one output sums over; 0 for a bias, or the scale of a normalisation: one value per channel, kept in f32 in every
    /// precision and decayed like biases.
    pub fan_in: usize,
    /// Weights are initialised from a normal distribution of variance gain / fan_in: gain is 2 where a rectifier follows, which
    /// halves the power of the outputs (He et al., ICCV 2015), otherwise 1. Tensors without fan-in are initialised to this value:
    /// 0 for a bias, 1 for a scale.
    pub gain: f32,
}

impl Parameter {
    /// Number of values.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// True for a tensor without values; no operation declares one.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a loss compares its input with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TargetKind {
    /// One class index for each position of each sample, below this bound.
    Classes {
        /// Classes of a sample.
        per_sample: usize,
        /// Number of classes.
        below: usize,
    },
    /// One identity per sample; any number.
    Identities,
    /// As many values as the input has, in [0, 1].
    Values {
        /// Values of a sample.
        per_sample: usize,
    },
}

/// Targets of the losses in one batch.
#[derive(Debug, Clone, Copy, Default)]
pub struct Targets<'a> {
    /// Class or identity, `[n]` or `[n, h, w]`.
    pub classes: &'a [u32],
    /// `[n, h, w, c]`.
    pub values: &'a [f32],
}

/// What backward reads besides the gradient of the output; the plan frees everything else early.
#[derive(Debug, Clone, Copy)]
#[doc(hidden)]
pub struct Needs {
    /// Its inputs.
    pub inputs: bool,
    /// Its output.
    pub output: bool,
}

/// Inference or training: only dropout distinguishes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// No dropout.
    Inference,
    /// Random masks are a function of this seed, the layer and the position.
    Training {
        /// Seed of this step's dropout masks.
        seed: u64,
    },
}

/// A layer's part of a forward pass over `n` samples.
#[doc(hidden)]
pub struct Forward<'a> {
    pub n: usize,
    pub mode: Mode,
    /// Index of the layer in its network: the random stream of its masks.
    pub stream: u64,
    pub inputs: &'a [&'a [f32]],
    pub params: &'a [&'a [f32]],
    /// What [`Operation::prepare`] has made of the parameters, or nothing: then the pass prepares them itself.
    pub prepared: &'a [f32],
    pub targets: Targets<'a>,
    pub output: &'a mut [f32],
    pub workspace: &'a mut [f32],
}

/// A layer's part of a backward pass. Gradients are overwritten, never accumulated.
#[doc(hidden)]
pub struct Backward<'a, 'b> {
    pub n: usize,
    pub mode: Mode,
    pub stream: u64,
    /// Empty slices where [`Needs`] says they are not read.
    pub inputs: &'a [&'a [f32]],
    pub output: &'a [f32],
    pub params: &'a [&'a [f32]],
    pub targets: Targets<'a>,
    /// May be overwritten in place.
    pub d_output: &'a mut [f32],
    /// `None` where the gradient of this input is not needed.
    pub d_inputs: &'a mut [Option<&'b mut [f32]>],
    pub d_params: &'a mut [&'b mut [f32]],
    pub workspace: &'a mut [f32],
}

/// An operation bound to the shapes of its inputs.
#[doc(hidden)]
pub trait Operation: fmt::Debug + Send + Sync {
    /// Shape of the output of one sample; a loss gives one value for the whole batch ([`Operation::target`]).
    fn output(&self) -> Shape;

    /// Parameter tensors, in the order of the passes' `params`.
    fn parameters(&self) -> Vec<Parameter> {
        Vec::new()
    }

    /// Floating-point operations of forward for one sample (a multiply-add is two).
    fn flops(&self) -> u64;

    /// `Some` for a loss.
    fn target(&self) -> Option<TargetKind> {
        None
    }

    /// What backward reads.
    fn needs(&self) -> Needs;

    /// Whether its output is that of a rectifier.
    fn rectifies(&self) -> bool {
        false
    }

    /// Whether on a GPU its backward pass can apply the derivative of the rectifier that wrote its input: a pass over memory less.
    fn applies_rectifier(&self) -> bool {
        false
    }

    /// Length of the parameters in the form that this processor's forward passes read; 0 if that is the form they have.
    fn prepared_len(&self) -> usize {
        0
    }

    /// Converts the parameters to that form. It is a property of the parameters alone: layers that share parameters share it.
    fn prepare(&self, _params: &[&[f32]], _to: &mut [f32]) {}

    /// Scratch of a forward pass over `n` samples, in values.
    fn forward_workspace(&self, _n: usize) -> usize {
        0
    }

    /// Scratch of a backward pass over `n` samples, in values.
    fn backward_workspace(&self, _n: usize) -> usize {
        0
    }

    fn forward(&self, pass: Forward<'_>);

    fn backward(&self, pass: Backward<'_, '_>);

    /// Bytes of scratch of a forward pass over `n` samples on a GPU.
    fn gpu_forward_workspace(&self, _n: usize, _gpu: &Gpu) -> usize {
        0
    }

    /// Bytes of scratch of a backward pass over `n` samples on a GPU.
    fn gpu_backward_workspace(&self, _n: usize, _gpu: &Gpu) -> usize {
        0
    }

    /// Records the launches of a forward pass.
    fn record_forward(&self, pass: GpuForward<'_>, to: &mut Recorder<'_>);

    /// Records the launches of a backward pass.
    fn record_backward(&self, pass: GpuBackward<'_>, to: &mut Recorder<'_>);

    /// The structure that interweaving and reports must know.
    fn kind(&self) -> Kind<'_>;
}

/// The structure of an operation, for evaluation other than layer by layer.
#[derive(Debug, Clone, Copy)]
#[doc(hidden)]
pub enum Kind<'a> {
    /// conv, local_conv, linear.
    Filter(&'a conv::Filter),
    Pool(&'a pool::Pool),
    Dropout,
    /// Acts on the channels of each position independently: relu, sigmoid, softmax, lrn.
    Pixelwise,
    /// Reads the whole map of a sample: global_pool, group_norm.
    Global,
    Concat,
    /// A loss.
    Loss,
}

/// Parses an operation's table into its parameter struct; unknown and missing keys are named.
pub(crate) fn parse<T: for<'de> Deserialize<'de>>(table: toml::Table) -> Result<T, Mistake> {
    from_table(table)
}

/// Checks the values of a layer's keys without knowing its shapes. Missing and unknown keys are reported when it is
/// built.
///
/// # Errors
/// The first invalid value.
pub(crate) fn check_values(build: Build, keys: &toml::Table) -> Result<(), Mistake> {
    // An operation parses its keys first, and only then finds that it has no input.
    match build(keys.clone(), &[]) {
        Err(mistake) if !mistake.way.is_empty() && !mistake.is_unknown_key() => Err(mistake),
        _ => Ok(()),
    }
}

/// The only input of a unary operation.
pub(crate) fn single(inputs: &[Shape]) -> Result<Shape, String> {
    match inputs {
        [one] => Ok(*one),
        _ => Err(format!("takes one input, but `from` names {}", inputs.len())),
    }
}

/// `[n, c, h, w]` to `[n, h, w, c]`.
///
/// ```
/// use weft::ops::{Shape, nchw_to_nhwc};
///
/// let mut nhwc = [0.0; 4];
/// nchw_to_nhwc(Shape::new(2, 1, 2), &[1.0, 2.0, 3.0, 4.0], &mut nhwc);
/// assert_eq!(nhwc, [1.0, 3.0, 2.0, 4.0]);
/// ```
pub fn nchw_to_nhwc(shape: Shape, from: &[f32], to: &mut [f32]) {
    let (c, area) = (shape.c, shape.area());
    for (from, to) in from.chunks_exact(shape.len()).zip(to.chunks_exact_mut(shape.len())) {
        for (channel, plane) in from.chunks_exact(area).enumerate() {
            for (place, value) in plane.iter().enumerate() {
                to[place * c + channel] = *value;
            }
        }
    }
}

/// `[n, h, w, c]` to `[n, c, h, w]`.
pub fn nhwc_to_nchw(shape: Shape, from: &[f32], to: &mut [f32]) {
    let (c, area) = (shape.c, shape.area());
    for (from, to) in from.chunks_exact(shape.len()).zip(to.chunks_exact_mut(shape.len())) {
        for (place, pixel) in from.chunks_exact(c).enumerate() {
            for (channel, value) in pixel.iter().enumerate() {
                to[channel * area + place] = *value;
            }
        }
    }
}

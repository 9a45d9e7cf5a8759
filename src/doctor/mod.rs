//! `weft doctor`: what is available on this machine, and whether every kernel matches the CPU on this device.
//!
//! Small nets (the quick ones of [`cases`]), one per operation and code path, run on the device in each precision and on the CPU;
//! a kernel is assigned the worst error of the cases in which it ran. Kernels that belong to no layer have checks of their own
//! ([`standalone`]). [`probe`] measures ceilings and looks at single instructions.

pub mod probe;
pub mod standalone;
mod tally;

pub use tally::{KernelRow, Tally};

use crate::Result;
#[cfg(feature = "cuda")]
use crate::device::cuda::{self, DriverInfo};
use crate::device::{ARCHITECTURES, Convolution, Device, Gpu, Launch, NVCC, Precision, Properties, Tile};
#[cfg(feature = "simt")]
use crate::device::{Emulator, EmulatorOptions};
use crate::dist::{self, library};
use crate::net::{Net, Parameters, Purpose, Session, Spec};
use crate::ops::cases::{self, Case};
use crate::ops::simd::Level;
use crate::ops::tolerance::Tolerance;
use crate::ops::{Kind, Mode, TargetKind, Targets};
use crate::rng::Rng;
#[cfg(feature = "simt")]
use simt::ptx::Counted;
use std::borrow::Cow;
#[cfg(feature = "simt")]
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;

/// Capabilities of this binary and this machine.
#[derive(Debug)]
pub struct Machine {
    /// The vector instructions used by the CPU's loops and products.
    pub vectors: Level,
    /// The compiler's version line; empty without GPU code.
    pub compiler: &'static str,
    pub architectures: &'static [&'static str],
    /// The newest CUDA that the driver supports, or why there is none.
    pub driver: std::result::Result<[u32; 2], String>,
    /// The MPI library and its interface, or why there is none.
    pub mpi: std::result::Result<String, String>,
    /// GPUs reported by the driver, and whether this binary has code for them.
    pub gpus: Vec<(Properties, bool)>,
}

impl Machine {
    /// Queries the machine without creating a context.
    #[cfg(feature = "cuda")]
    pub fn look() -> Self {
        let found = cuda::probe();
        let gpus = |found: &DriverInfo| {
            let all = (0..found.devices).filter_map(|ordinal| cuda::properties(ordinal, *found).ok());
            all.map(|gpu| (gpu.clone(), cuda::fits(gpu.capability, ARCHITECTURES))).collect()
        };
        Self {
            vectors: Level::detect(),
            compiler: NVCC,
            architectures: ARCHITECTURES,
            gpus: found.as_ref().map_or_else(|_| Vec::new(), gpus),
            driver: found.map(|found| found.version).map_err(|refusal| refusal.error.to_string()),
            mpi: mpi(),
        }
    }

    /// Without the feature `cuda` there is nothing to report.
    #[cfg(not(feature = "cuda"))]
    pub fn look() -> Self {
        let driver = Err("Weft was built without GPU code; build it with the feature `cuda`".to_string());
        let (gpus, vectors) = (Vec::new(), Level::detect());
        Self { compiler: NVCC, architectures: ARCHITECTURES, driver, mpi: mpi(), gpus, vectors }
    }
}

/// The MPI library that ranks would use, without starting it.
fn mpi() -> std::result::Result<String, String> {
    let found = library::load(dist::Launch::find().as_ref()).map_err(|error| error.to_string())?;
    Ok(format!("{} through {}: {}", found.version, found.interface(), found.path))
}

/// The results of [`check`].
#[derive(Debug)]
pub struct DoctorReport {
    /// One row per kernel and precision.
    pub rows: Vec<KernelRow>,
    /// Kernels that no case ran on this device: those for other compute capabilities, or a gap in the list of cases.
    pub unused: Vec<String>,
}

impl DoctorReport {
    pub fn failed(&self) -> usize {
        self.rows.iter().filter(|row| !row.holds()).count()
    }
}

/// Maximum number of checks that [`check`] makes over all cases.
pub fn checks() -> usize {
    let of_precision = |precision| -> usize {
        let nets: usize = quick().map(|case| algorithms(case).len() * tiles(case, precision).len()).sum();
        nets + standalone::CHECKS.len()
    };
    Precision::ALL.into_iter().map(of_precision).sum()
}

fn quick() -> impl Iterator<Item = &'static Case> {
    cases::all().filter(|case| case.quick)
}

/// Convolutions are computed by two algorithms.
fn algorithms(case: &Case) -> &'static [Convolution] {
    let filters = net(case).is_ok_and(|net| net.layers.iter().any(|l| matches!(l.op.kind(), Kind::Filter(_))));
    if filters { &[Convolution::Implicit, Convolution::Im2col] } else { &[Convolution::Implicit] }
}

/// In 16 bits products have tiles of several shapes.
fn tiles(case: &Case, precision: Precision) -> &'static [Option<Tile>] {
    match precision.bytes() == 2 && algorithms(case).len() > 1 {
        true => &[Some(Tile::Middle), Some(Tile::Large), Some(Tile::Narrow)],
        false => &[None],
    }
}

fn net(case: &Case) -> Result<Net> {
    Net::new(Spec::parse(&case.toml(), case.name)?)
}

/// Runs all cases whose name is accepted by `wanted` on a device; `done` is called with the number of completed cases.
pub fn check(gpu: &Gpu, wanted: impl Fn(&str) -> bool, done: impl Fn(u64)) -> DoctorReport {
    let mut tally = Tally::new();
    let mut count = 0;
    let mut next = || {
        count += 1;
        done(count);
    };
    for precision in Precision::ALL.into_iter().filter(|precision| gpu.has(*precision)) {
        tally.set_precision(precision);
        for case in quick().filter(|case| wanted(case.name)) {
            for (&convolution, &tile) in
                algorithms(case).iter().flat_map(|it| tiles(case, precision).iter().map(move |tile| (it, tile)))
            {
                let gpu = Gpu { precision, convolution, tile, ..gpu.clone() };
                run(case, &gpu, &mut tally);
                next();
            }
        }
        for (name, check) in standalone::CHECKS.iter().filter(|(name, _)| wanted(name)) {
            let gpu = Gpu { precision, ..gpu.clone() };
            if let Err(e) = check(&gpu, &mut tally) {
                tally.fail(&[unnamed(name)], name, &e.to_string());
            }
            next();
        }
    }
    let rows = tally.into_rows();
    let ran: BTreeSet<&str> = rows.iter().map(|row| row.kernel.as_str()).collect();
    let unused = gpu.driver.kernels().into_iter().filter(|kernel| !ran.contains(kernel.as_str())).collect();
    DoctorReport { rows, unused }
}

/// Runs all cases on the emulator's second engine, and returns what each kernel executed in them besides: the same numbers
/// every time.
///
/// # Errors
/// There is no GPU code in this build.
#[cfg(feature = "simt")]
pub fn count(done: impl Fn(u64)) -> Result<(DoctorReport, BTreeMap<String, Counted>)> {
    let emulator = Arc::new(Emulator::of_ptx(EmulatorOptions { checked: false, seed: Some(1) })?);
    let report = check(&Gpu::new(emulator.clone()), |_| true, done);
    Ok((report, emulator.executed()))
}

/// Placeholder for a failure before any kernel is known.
fn unnamed(case: &str) -> crate::device::Launch {
    crate::device::Launch::new(format!("({case})"), [1; 3], 1, &0u32)
}

/// Inputs and parameters of a case.
struct Numbers {
    input: Vec<f32>,
    parameters: Vec<f32>,
    classes: Vec<u32>,
    values: Vec<f32>,
    cotangent: Option<Vec<f32>>,
}

impl Numbers {
    /// Rounded to `precision`, so that only the arithmetic differs.
    fn draw(net: &Net, n: usize, precision: Precision) -> Self {
        let mut rng = Rng::new(1, n as u64);
        // Neighbouring values differ in every precision, so that the position of a maximum is unique.
        let spread = |i: usize| (2 * (i * 97 % 251) as i32 - 249) as f32 / 128.0;
        let input = (0..n * net.spec.input.len()).map(spread).collect();
        let mut parameters = net.initial_parameters(1);
        for tensor in &net.parameters {
            let values = &mut parameters[tensor.range.clone()];
            match tensor.tensor.fan_in {
                0 => values.fill_with(|| 0.3 * rng.normal()),
                _ => values.iter_mut().for_each(|x| *x = precision.round_factor(*x)),
            }
        }
        let (mut classes, mut values) = (Vec::new(), Vec::new());
        for kind in net.layers.iter().filter_map(|layer| layer.op.target()) {
            match kind {
                TargetKind::Classes { per_sample, below } => {
                    classes = (0..n * per_sample).map(|_| rng.below(below) as u32).collect();
                }
                TargetKind::Identities => classes = (0..n).map(|_| rng.below(3) as u32).collect(),
                TargetKind::Values { per_sample } => values = (0..n * per_sample).map(|_| rng.unit()).collect(),
            }
        }
        let last = net.layers.len();
        let is_loss = net.layers[last - 1].op.target().is_some();
        let draw = |_| precision.round_factor(rng.range(-0.5, 1.5));
        let cotangent = (!is_loss).then(|| (0..net.value_len(last, n)).map(draw).collect());
        Self { input, parameters, classes, values, cotangent }
    }

    /// For differentiation every value of a net is kept; for other purposes layers may run as one.
    fn session(&self, device: &Device, net: &Arc<Net>, n: usize, purpose: Purpose) -> Result<Session> {
        let parameters = Parameters::on(device, net, self.parameters.clone())?;
        Session::new(net.clone(), &parameters, n, purpose)
    }
}

/// Outputs and gradients of a pass.
struct Answer {
    outputs: Vec<Vec<f32>>,
    gradients: Vec<Vec<f32>>,
}

/// Runs a case on the device and on the CPU.
fn run(case: &Case, gpu: &Gpu, tally: &mut Tally) {
    let name = match gpu.convolution {
        Convolution::Implicit => case.name.to_string(),
        Convolution::Im2col => format!("{} (im2col)", case.name),
    };
    if let Err(e) = compare(case, gpu, &name, tally) {
        tally.fail(&[unnamed(&name)], &name, &e.to_string());
    }
}

fn compare(case: &Case, gpu: &Gpu, name: &str, tally: &mut Tally) -> Result<()> {
    let (net, n) = (Arc::new(net(case)?), case.input[0]);
    let numbers = Numbers::draw(&net, n, gpu.precision);
    let mode = if case.training { Mode::Training { seed: 7 } } else { Mode::Inference };
    let targets = Targets { classes: &numbers.classes, values: &numbers.values };
    let want = answer(&mut numbers.session(&Device::Cpu, &net, n, Purpose::Differentiation)?, &numbers, mode, targets)?;

    let device = Device::Gpu(gpu.clone());
    let mut session = numbers.session(&device, &net, n, Purpose::Differentiation)?;
    let [forward, backward] = session.launches(case.training).map(<[Launch]>::to_vec);
    let layers = net.layers.len();
    // The CPU rounds its sums as well.
    let tolerance = |roundings, slack| Tolerance::new(gpu.precision, roundings, 2.0 * slack);
    let is_exact = case.expects.exact.is_some() && gpu.precision.bytes() == 2;
    // The first pass launches kernels individually, the second as a graph; both must match.
    for _ in 0..2 {
        let got = match answer(&mut session, &numbers, mode, targets) {
            Ok(got) => got,
            Err(e) => {
                // The message names the failing kernel; whether the others work is unknown.
                let all: Vec<_> = forward.iter().chain(&backward).cloned().collect();
                tally.fail(&all, name, &e.to_string());
                return Ok(());
            }
        };
        for (got, want) in got.outputs.iter().zip(&want.outputs) {
            tally.compare(&forward, name, got, want, tolerance(layers, case.expects.output_slack));
        }
        for (got, want) in got.gradients.iter().zip(&want.gradients).filter(|_| !is_exact) {
            tally.compare(&backward, name, got, want, tolerance(2 * layers + 1, 2.0 * case.expects.gradient_slack));
        }
    }

    // Layers that run as one where nobody asks for the values between them.
    let known: BTreeSet<&str> = forward.iter().chain(&backward).map(|launch| launch.kernel.as_str()).collect();
    let purposes = [(Purpose::Training, "training"), (Purpose::Inference, "inference")];
    // There is no dropout in inference.
    for (purpose, what) in purposes.into_iter().take(if case.training { 1 } else { 2 }) {
        let mut session = numbers.session(&device, &net, n, purpose)?;
        let [forward, backward] = session.launches(case.training).map(<[Launch]>::to_vec);
        if forward.iter().chain(&backward).all(|launch| known.contains(launch.kernel.as_str())) {
            continue;
        }
        let name = format!("{name} ({what})");
        session.set_input(&numbers.input)?;
        session.forward(mode, targets)?;
        let outputs = want.outputs.last().expect("a net has layers");
        tally.compare(&forward, &name, &session.output()?, outputs, tolerance(layers, case.expects.output_slack));
        if purpose == Purpose::Training {
            session.backward(numbers.cotangent.as_deref())?;
            let gradients = tensors(&net, Vec::new(), &session.gradients()?);
            for (got, want) in gradients.iter().zip(&want.gradients).skip(1) {
                tally.compare(
                    &backward,
                    &name,
                    got,
                    want,
                    tolerance(2 * layers + 1, 2.0 * case.expects.gradient_slack),
                );
            }
        }
    }
    Ok(())
}

fn answer(session: &mut Session, numbers: &Numbers, mode: Mode, targets: Targets<'_>) -> Result<Answer> {
    let net = session.net().clone();
    session.set_input(&numbers.input)?;
    session.forward(mode, targets)?;
    let outputs = (0..net.layers.len()).map(|l| session.value(l).map(Cow::into_owned)).collect::<Result<_>>()?;
    session.backward(numbers.cotangent.as_deref())?;
    let input = session.input_gradient()?.unwrap_or_default().into_owned();
    Ok(Answer { outputs, gradients: tensors(&net, input, &session.gradients()?) })
}

/// Splits the gradients into that of the input and of each parameter, so that each is compared separately.
fn tensors(net: &Net, input: Vec<f32>, gradients: &[f32]) -> Vec<Vec<f32>> {
    let parameters = net.parameters.iter().map(|parameter| gradients[parameter.range.clone()].to_vec());
    std::iter::once(input).chain(parameters).collect()
}

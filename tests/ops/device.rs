//! Devices: each solves a problem and returns an answer. To add one, add a line to [`here`].

use crate::harness;
use crate::problem::{Answer, Problem};
use std::sync::Arc;
use weft::device::{Convolution, Emulator, EmulatorOptions, Gpu, Precision};
use weft::net::{Net, Parameters, Purpose, Session};
use weft::ops::{Backward, Forward, Shape, Targets, nchw_to_nhwc, nhwc_to_nchw};

pub struct Device {
    pub name: String,
    pub precision: Precision,
    /// Every access is checked, which takes time.
    pub checked: bool,
    run: Box<dyn Fn(&Problem) -> Answer>,
}

impl Device {
    fn cpu(name: &str, run: fn(&Problem) -> Answer) -> Self {
        Self { name: name.into(), precision: Precision::F32, checked: false, run: Box::new(run) }
    }

    fn gpu(name: &str, gpu: Gpu) -> Self {
        let (name, precision) = (format!("{name} {}", gpu.precision), gpu.precision);
        let checked = gpu.separate_buffers;
        let device = weft::device::Device::Gpu(gpu);
        Self { name, precision, checked, run: Box::new(move |problem| session(&device, problem)) }
    }

    pub fn run(&self, problem: &Problem) -> Answer {
        (self.run)(problem)
    }
}

/// The CPU, and the emulator as several GPUs.
pub fn here() -> Vec<Device> {
    let emulator = |checked, seed| {
        let driver = Arc::new(Emulator::new(EmulatorOptions { checked, seed }));
        Gpu { separate_buffers: checked, ..Gpu::new(driver) }
    };
    let mut devices = vec![
        Device::cpu("cpu", |problem| session(&weft::device::Device::Cpu, problem)),
        Device::cpu("cpu, operations alone", operations),
    ];
    devices.extend([None, Some(1), Some(2)].map(|seed| {
        let order = seed.map_or("in order".to_string(), |seed| format!("in the order of seed {seed}"));
        Device::gpu(&format!("simt, {order},"), emulator(false, seed))
    }));
    for precision in [Precision::Tf32, Precision::F16, Precision::Bf16] {
        devices.push(Device::gpu("simt", Gpu { precision, ..emulator(false, Some(3)) }));
    }
    for precision in Precision::ALL {
        devices.push(Device::gpu("simt, checked,", Gpu { precision, ..emulator(true, Some(4)) }));
    }
    devices.push(Device::gpu("simt, im2col,", Gpu { convolution: Convolution::Im2col, ..emulator(true, None) }));
    wanted(devices)
}

/// The devices whose name contains `WEFT_TEST_DEVICES`.
fn wanted(mut devices: Vec<Device>) -> Vec<Device> {
    let wanted = std::env::var("WEFT_TEST_DEVICES").unwrap_or_default();
    devices.retain(|device| device.name.contains(&wanted));
    devices
}

/// The GPU of this machine in every precision, or why there is none.
pub fn cuda() -> Result<Vec<Device>, String> {
    let cuda = Gpu::new(harness::cuda()?);
    let precisions = Precision::ALL.into_iter().filter(|precision| cuda.has(*precision));
    let both = |precision| {
        let gpu = Gpu { precision, ..cuda.clone() };
        let im2col = Gpu { convolution: Convolution::Im2col, ..gpu.clone() };
        [Device::gpu("cuda", gpu), Device::gpu("cuda, im2col,", im2col)]
    };
    Ok(wanted(precisions.flat_map(both).collect()))
}

/// As in production. A pass over NaN goes first, so that every buffer of the arena is poisoned; then two passes, so that the
/// second runs as a graph on a GPU.
fn session(device: &weft::device::Device, problem: &Problem) -> Answer {
    let net = &problem.net;
    let fail = |e: weft::Error| -> ! { panic!("case {} (seed {}): {e}", problem.name, problem.seed) };
    let memory = InMemory::new(problem);
    let parameters = Parameters::on(device, net, memory.parameters.concat()).unwrap_or_else(|e| fail(e));
    let session = Session::new(net.clone(), &parameters, problem.n, Purpose::Differentiation);
    let mut session = session.unwrap_or_else(|e| fail(e));
    let mut pass = |problem: &Problem| -> weft::Result<Answer> {
        let memory = InMemory::new(problem);
        parameters.write(&memory.parameters.concat())?;
        session.set_input(&memory.input)?;
        session.forward(problem.mode, memory.targets())?;
        let outputs = (0..net.layers.len()).map(|l| Ok(to_nchw(problem, l, &session.value(l)?)));
        let outputs = outputs.collect::<weft::Result<Vec<_>>>()?;
        session.backward(memory.cotangent.as_deref())?;
        Ok(Answer {
            outputs,
            d_input: nchw(net.spec.input, &session.input_gradient()?.expect("a gradient of the input")),
            d_parameters: net.named(&session.gradients()?).into_iter().map(|tensor| tensor.values).collect(),
        })
    };
    pass(&problem.poisoned()).unwrap_or_else(|e| fail(e));
    pass(problem).unwrap_or_else(|e| fail(e))
}

/// Layer by layer through [`weft::ops::Operation`]: each buffer is separate, poisoned, and between guard bands that must not
/// change.
fn operations(problem: &Problem) -> Answer {
    let (net, n, mode) = (&problem.net, problem.n, problem.mode);
    let memory = InMemory::new(problem);
    let last = net.layers.len() - 1;
    let params = |l: usize| -> Vec<&[f32]> {
        memory.parameters[net.layers[l].parameters.clone()].iter().map(Vec::as_slice).collect()
    };

    let mut values = vec![memory.input.clone()];
    for (l, layer) in net.layers.iter().enumerate() {
        let inputs: Vec<&[f32]> = layer.inputs.iter().map(|&value| values[value].as_slice()).collect();
        let mut output = Guarded::poisoned(net.value_len(l + 1, n));
        let mut workspace = Guarded::poisoned(layer.op.forward_workspace(n));
        layer.op.forward(Forward {
            n,
            mode,
            stream: l as u64,
            inputs: &inputs,
            params: &params(l),
            prepared: &[],
            targets: memory.targets(),
            output: output.inner(),
            workspace: workspace.inner(),
        });
        workspace.take(problem, "forward workspace");
        values.push(output.take(problem, "output"));
    }

    let mut gradients: Vec<Vec<f32>> = values.iter().map(|value| vec![0.0; value.len()]).collect();
    for l in (0..=last).filter(|&l| problem.is_loss(l)) {
        gradients[l + 1] = vec![1.0];
    }
    if let Some(cotangent) = &memory.cotangent {
        gradients[last + 1].clone_from(cotangent);
    }
    let mut d_parameters: Vec<Vec<f32>> = vec![Vec::new(); net.parameters.len()];
    for (l, layer) in net.layers.iter().enumerate().rev() {
        let needs = layer.op.needs();
        let read = |value: usize| if needs.inputs { values[value].as_slice() } else { &[] };
        let inputs: Vec<&[f32]> = layer.inputs.iter().map(|&value| read(value)).collect();
        let mut d_output = Guarded::holding(&gradients[l + 1]);
        let mut d_inputs: Vec<Guarded> =
            layer.inputs.iter().map(|&value| Guarded::poisoned(values[value].len())).collect();
        let mut d_params: Vec<Guarded> =
            net.parameters[layer.parameters.clone()].iter().map(|p| Guarded::poisoned(p.range.len())).collect();
        let mut workspace = Guarded::poisoned(layer.op.backward_workspace(n));
        layer.op.backward(Backward {
            n,
            mode,
            stream: l as u64,
            inputs: &inputs,
            output: if needs.output { &values[l + 1] } else { &[] },
            params: &params(l),
            targets: memory.targets(),
            d_output: d_output.inner(),
            d_inputs: &mut d_inputs.iter_mut().map(|d| Some(d.inner())).collect::<Vec<_>>(),
            d_params: &mut d_params.iter_mut().map(Guarded::inner).collect::<Vec<_>>(),
            workspace: workspace.inner(),
        });
        workspace.take(problem, "backward workspace");
        d_output.take(problem, "gradient of the output");
        for (&value, d_input) in layer.inputs.iter().zip(d_inputs) {
            let d_input = d_input.take(problem, "gradient of an input");
            gradients[value].iter_mut().zip(d_input).for_each(|(sum, d)| *sum += d);
        }
        for (index, d_param) in layer.parameters.clone().zip(d_params) {
            let mut file = vec![0.0; net.parameters[index].range.len()];
            let memory = d_param.take(problem, "gradient of a parameter");
            net.parameters[index].tensor.order.unpack(&memory, &mut file);
            d_parameters[index] = file;
        }
    }
    Answer {
        outputs: (0..=last).map(|l| to_nchw(problem, l, &values[l + 1])).collect(),
        d_input: nchw(net.spec.input, &gradients[0]),
        d_parameters,
    }
}

/// A buffer of NaN between two guard bands.
struct Guarded(Vec<f32>);

impl Guarded {
    const BAND: usize = 64;
    const MARK: f32 = 1.234_567e30;

    fn holding(values: &[f32]) -> Self {
        let band = [Self::MARK; Self::BAND];
        Self([&band, values, &band].concat())
    }

    fn poisoned(len: usize) -> Self {
        Self::holding(&vec![f32::NAN; len])
    }

    fn inner(&mut self) -> &mut [f32] {
        let end = self.0.len() - Self::BAND;
        &mut self.0[Self::BAND..end]
    }

    fn take(mut self, problem: &Problem, what: &str) -> Vec<f32> {
        let values = self.inner().to_vec();
        let end = self.0.len() - Self::BAND;
        let intact = self.0[..Self::BAND].iter().chain(&self.0[end..]).all(|&x| x == Self::MARK);
        assert!(intact, "case {} (seed {}): written beyond the {what}", problem.name, problem.seed);
        values
    }
}

/// A problem's numbers in the CPU's layout.
struct InMemory<'a> {
    problem: &'a Problem,
    input: Vec<f32>,
    parameters: Vec<Vec<f32>>,
    values: Vec<f32>,
    cotangent: Option<Vec<f32>>,
}

impl<'a> InMemory<'a> {
    fn new(problem: &'a Problem) -> Self {
        let net: &Net = &problem.net;
        let last = net.layers.len() - 1;
        let parameters = net.parameters.iter().zip(&problem.parameters).map(|(parameter, file)| {
            let mut memory = vec![f32::NAN; file.len()];
            parameter.tensor.order.pack(file, &mut memory);
            memory
        });
        let predicted = net.layers.iter().find(|layer| layer.kind == "sigmoid_cross_entropy");
        Self {
            problem,
            input: nhwc(net.spec.input, &problem.input),
            parameters: parameters.collect(),
            values: predicted.map_or(Vec::new(), |loss| nhwc(net.shape(loss.inputs[0]), &problem.values)),
            cotangent: problem
                .cotangent
                .as_deref()
                .map(|values| if problem.is_loss(last) { values.to_vec() } else { nhwc(net.output(), values) }),
        }
    }

    fn targets(&self) -> Targets<'_> {
        Targets { classes: &self.problem.classes, values: &self.values }
    }
}

fn nhwc(shape: Shape, nchw: &[f32]) -> Vec<f32> {
    let mut nhwc = vec![f32::NAN; nchw.len()];
    nchw_to_nhwc(shape, nchw, &mut nhwc);
    nhwc
}

fn nchw(shape: Shape, nhwc: &[f32]) -> Vec<f32> {
    let mut nchw = vec![f32::NAN; nhwc.len()];
    nhwc_to_nchw(shape, nhwc, &mut nchw);
    nchw
}

/// The output of layer `l`; a loss has no layout.
fn to_nchw(problem: &Problem, l: usize, value: &[f32]) -> Vec<f32> {
    if problem.is_loss(l) { value.to_vec() } else { nchw(problem.net.layers[l].shape, value) }
}

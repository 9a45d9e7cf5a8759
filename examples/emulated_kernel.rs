//! CUDA kernels checked without a GPU: a net's passes on the emulator against the CPU, then a kernel launched by name, once
//! rightly and once beyond its buffers, which the emulator refuses with the kernel's file and line.
//!
//! `cargo run --release --example emulated_kernel`

use std::sync::Arc;
use weft::device::{Device, Launch, Ptr};
use weft::net::{INPUT, Net, Parameters, Purpose, Session, Spec};
use weft::ops::{Mode, Targets};
use weft::rng::Rng;
use weft::{Error, Result, kernel_parameters};

/// Small and odd: the emulator runs every thread of the kernels and checks every access.
const NET: &str = r#"
    name = "checked"
    input = [3, 11, 11]
    [[layer]]
    name = "conv"
    type = "conv"
    filters = 5
    kernel = 3
    activation = "relu"
    [[layer]]
    name = "local"
    type = "local_conv"
    filters = 7
    kernel = 2
    grid = 3
    window = "valid"
    activation = "relu"
    [[layer]]
    name = "fc"
    type = "linear"
    outputs = 6
"#;
const SAMPLES: usize = 2;

/// The output of a pass, the gradients of the parameters and of the input.
fn passes(device: &Device) -> Result<[Vec<f32>; 3]> {
    let net = Arc::new(Net::new(Spec::parse(NET, "checked")?)?);
    let parameters = Parameters::on(device, &net, net.initial_parameters(1))?;
    let mut session = Session::new(net.clone(), &parameters, SAMPLES, Purpose::Differentiation)?;
    let mut rng = Rng::new(2, 0);
    let mut random = |value| (0..net.value_len(value, SAMPLES)).map(|_| rng.normal()).collect::<Vec<f32>>();
    session.set_input(&random(INPUT))?;
    session.forward(Mode::Inference, Targets::default())?;
    session.backward(Some(&random(net.layers.len())))?;
    for launch in session.launches(false).into_iter().flatten() {
        println!(
            "  {:8} {:32} {:4} blocks of {}",
            launch.label,
            launch.kernel,
            launch.grid.iter().product::<u32>(),
            launch.block
        );
    }
    let input_gradient = session.input_gradient()?.unwrap_or_default().into_owned();
    Ok([session.output()?.into_owned(), session.gradients()?.into_owned(), input_gradient])
}

/// Largest difference, as a share of the largest expected value; NaN counts as infinite.
fn difference(found: &[f32], expected: &[f32]) -> f32 {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |most, value| most.max(value.abs()));
    let errors = found.iter().zip(expected).map(|(a, b)| (a - b).abs());
    errors.map(|error| if error.is_nan() { f32::INFINITY } else { error / largest }).fold(0.0, f32::max)
}

kernel_parameters! {
    /// The parameters of the kernels in kernels/pointwise.cu, as they stand there.
    Pointwise: 40 { x: Ptr, y: Ptr, out: Ptr, count: u64, activation: u32, unused: u32 }
}

/// `out = max(x, 0)` by the kernel `activation_forward_f32`, told that `x` has `count` values.
fn relu(device: &Device, x: &[f32], count: usize) -> Result<Vec<f32>> {
    const RELU: u32 = 1;
    const BLOCK: usize = 256;
    let gpu = device.gpu().ok_or_else(|| Error::new("device", "has no kernels"))?;
    let (input, out) = (gpu.upload(x)?, gpu.memory(size_of_val(x))?);
    let parameters =
        Pointwise { x: input.ptr, y: Ptr::NULL, out: out.ptr, count: count as u64, activation: RELU, unused: 0 };
    // A thread owns four values.
    let grid = [count.div_ceil(4 * BLOCK), 1, 1];
    gpu.driver.launch(&Launch::new("activation_forward_f32", grid, BLOCK, &parameters))?;
    gpu.download(out.ptr, x.len())
}

fn main() -> Result<()> {
    let emulator = Device::open("simt:checked")?;
    println!("launches of a forward and a backward pass on {}:", emulator.describe());
    let found = passes(&emulator)?;
    let expected = passes(&Device::Cpu)?;
    for (what, (found, expected)) in
        ["output", "parameters' gradients", "input's gradient"].iter().zip(found.iter().zip(&expected))
    {
        let error = difference(found, expected);
        println!("{what}: {} values, largest difference from the CPU {error:.1e} of the largest", found.len());
        assert!(error < 1e-5, "the kernels compute something else");
    }

    let x: Vec<f32> = (0..1001).map(|i| (i as f32).sin()).collect();
    let expected: Vec<f32> = x.iter().map(|x| x.max(0.0)).collect();
    let error = difference(&relu(&emulator, &x, x.len())?, &expected);
    println!("\nactivation_forward_f32 of 1001 values: largest difference {error:.1e}");
    assert_eq!(error, 0.0);
    let refusal = relu(&emulator, &x, x.len() + 1).expect_err("a read beyond the buffer was not seen");
    println!("told of 1002 values: {refusal}");
    assert!(refusal.to_string().contains("OutOfBounds"), "not what was planted");
    Ok(())
}

//! A net from a TOML string whose filters are shared globally, locally and not at all, run forward and backward; its
//! gradients against finite differences.
//!
//! `cargo run --release --example custom_net [auto|cpu|cuda|simt]`

use std::sync::Arc;
use weft::device::Device;
use weft::net::{INPUT, Net, Parameters, Purpose, Session, Spec};
use weft::ops::{Mode, Targets};
use weft::rng::Rng;

const NET: &str = r#"
    name = "three-kinds"
    input = [3, 16, 16]         # channels, height, width

    [[layer]]
    name = "global"             # 8 x 14 x 14: one bank of filters for all places
    type = "conv"
    filters = 8
    kernel = 3
    activation = "sigmoid"

    [[layer]]
    name = "local"              # 6 x 12 x 12: a bank for each of 3 x 3 cells of 4 x 4 pixels and a border of 2
    type = "local_conv"
    filters = 6
    kernel = 3
    grid = 3
    window = "halo"
    activation = "sigmoid"

    [[layer]]
    name = "pool"               # 6 x 6 x 6
    type = "avg_pool"
    kernel = 2
    stride = 2

    [[layer]]
    name = "unshared"           # 4 x 5 x 5: a bank for each place of the output
    type = "local_conv"
    filters = 4
    kernel = 2
    grid = 5
    window = "halo"

    [[layer]]
    name = "fc"
    type = "linear"
    outputs = 3
"#;
const SAMPLES: usize = 2;

fn main() -> weft::Result<()> {
    let device = Device::open(&std::env::args().nth(1).unwrap_or("auto".into()))?;
    let net = Arc::new(Net::new(Spec::parse(NET, "three-kinds")?)?);
    for layer in &net.layers {
        let tensors = net.parameters[layer.parameters.clone()].iter();
        let shapes: Vec<String> = tensors.map(|p| format!("{} {:?}", p.name, p.tensor.shape)).collect();
        println!("{:8} {:10} -> {:8} {}", layer.name, layer.kind, layer.shape.to_string(), shapes.join(", "));
    }

    let parameters = Parameters::on(&device, &net, net.initial_parameters(1))?;
    let mut session = Session::new(net.clone(), &parameters, SAMPLES, Purpose::Differentiation)?;
    let mut rng = Rng::new(2, 0);
    let mut random = |value| (0..net.value_len(value, SAMPLES)).map(|_| rng.normal()).collect::<Vec<f32>>();
    let (batch, cotangent) = (random(INPUT), random(net.layers.len()));

    // The function that is differentiated: the output times the cotangent, summed.
    let run = |session: &mut Session| -> weft::Result<f64> {
        session.set_input(&batch)?;
        session.forward(Mode::Inference, Targets::default())?;
        Ok(session.output()?.iter().zip(&cotangent).map(|(y, c)| f64::from(*y) * f64::from(*c)).sum())
    };
    let value = run(&mut session)?;
    session.backward(Some(&cotangent))?;
    let gradients = session.gradients()?.into_owned();
    println!("\non {}: f = {value:.6}", device.describe());

    // At the steepest place of each tensor: (f(w + h) - f(w - h)) / 2h.
    const STEP: f32 = 0.03;
    let mut values = parameters.read()?;
    for parameter in &net.parameters {
        let steepest = parameter.range.clone().max_by(|&a, &b| gradients[a].abs().total_cmp(&gradients[b].abs()));
        let Some(at) = steepest else { continue };
        let here = values[at];
        let mut moved = |by: f32| {
            values[at] = here + by;
            parameters.write(&values)?;
            run(&mut session)
        };
        let difference = (moved(STEP)? - moved(-STEP)?) / f64::from(2.0 * STEP);
        moved(0.0)?;
        let gradient = f64::from(gradients[at]);
        let error = (gradient - difference).abs() / difference.abs();
        println!("{:16} gradient {gradient:10.5}, difference {difference:10.5}, error {error:.1e}", parameter.name);
        assert!(error < 2e-3, "{}: the gradient is wrong", parameter.name);
    }
    Ok(())
}

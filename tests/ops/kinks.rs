//! Gradients where the derivative is undefined: at kinks, which the cases avoid, devices must still agree.

use crate::device::Device;
use crate::of_every_device;
use crate::problem::Problem;
use std::sync::Arc;
use weft::net::{LayerSpec, Net, Normalise, Spec};
use weft::ops::cases::Expectation;
use weft::ops::{Mode, Shape};

/// Gradient of `map` [h, w], replicated in all of `channels`, through one layer, from the cotangent `[1, 2, 3, ...]` in each
/// channel. The result must be the same for all channels; otherwise it is empty.
fn gradient<const H: usize, const W: usize>(
    device: &Device,
    kind: &str,
    keys: &str,
    channels: usize,
    map: [[f32; W]; H],
) -> (Problem, Vec<f32>) {
    let layer = LayerSpec::new("a", kind, keys).unwrap();
    let place = format!("{kind} {keys}");
    let (name, input, normalise) = (kind.into(), Shape::new(channels, H, W), Normalise::default());
    let spec = Spec { place: place.clone(), name, input, normalise, layers: vec![layer] };
    let net = Arc::new(Net::new(spec).unwrap());
    let problem = Problem {
        name: place,
        seed: 0,
        n: 1,
        mode: Mode::Inference,
        input: map.concat().repeat(channels),
        parameters: Vec::new(),
        classes: Vec::new(),
        values: Vec::new(),
        cotangent: Some((1..=net.output().area()).map(|i| i as f32).collect::<Vec<f32>>().repeat(channels)),
        expects: Expectation::USUAL,
        smooth: true,
        net,
    };
    let answer = device.run(&problem);
    let mut planes = answer.d_input.chunks(H * W);
    let first = planes.next().unwrap_or_default();
    let same = planes.all(|plane| plane == first);
    (problem, if same { first.to_vec() } else { Vec::new() })
}

pub fn a_relu_at_zero_passes_nothing(devices: &[Device]) {
    of_every_device(devices, "relu at 0", |device, report| {
        // The last value is the smallest normal f16 number.
        let (problem, d) = gradient(device, "relu", "", 1, [[0.0, -0.0, -1.0, 1.0 / 16384.0]]);
        report.require(&problem, d == [0.0, 0.0, 0.0, 4.0], &format!("{d:?}"));
    });
}

pub fn the_first_of_equal_maxima_gets_all_of_a_windows_gradient(devices: &[Device]) {
    of_every_device(devices, "max_pool ties", |device, report| {
        // Eight channels form a pack in every storage type.
        for channels in [1, 8] {
            let map = [[1.0, 5.0, 5.0], [5.0, 1.0, 5.0], [5.0, 5.0, 5.0]];
            let (problem, d) = gradient(device, "max_pool", "kernel = 2\nstride = 1", channels, map);
            // The windows, in order, have their maxima at (0, 1), (0, 1), (1, 0) and (1, 2).
            let want = [0.0, 3.0, 0.0, 3.0, 0.0, 4.0, 0.0, 0.0, 0.0];
            report.require(&problem, d == want, &format!("{d:?}"));
            let keys = "kernel = 3\npad = 1\nstride = 2";
            let (problem, d) = gradient(device, "max_pool", keys, channels, [[-1.0; 3]; 3]);
            let want = [1.0, 2.0, 0.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0];
            report.require(&problem, d == want, &format!("{d:?}"));
        }
    });
}

pub fn equal_global_maxima_share_the_gradient(devices: &[Device]) {
    of_every_device(devices, "global_pool ties", |device, report| {
        for channels in [1, 8] {
            let map = [[7.0, 1.0, 7.0], [7.0, 0.0, 7.0]];
            let (problem, d) = gradient(device, "global_pool", "mode = 'max'", channels, map);
            report.require(&problem, d == [0.25, 0.0, 0.25, 0.25, 0.0, 0.25], &format!("{d:?}"));
        }
    });
}

pub fn a_silent_window_stays_silent_without_k(devices: &[Device]) {
    of_every_device(devices, "lrn of 0", |device, report| {
        // One channel at a time, packs, and a window of another size.
        for (channels, size) in [(1, 5), (8, 5), (8, 3)] {
            let keys = format!("k = 0.0\nsize = {size}");
            let (problem, _) = gradient(device, "lrn", &keys, channels, [[0.0; 3]]);
            let y = &device.run(&problem).outputs[0];
            report.require(&problem, y.iter().all(|y| *y == 0.0), &format!("{y:?}"));
        }
    });
}

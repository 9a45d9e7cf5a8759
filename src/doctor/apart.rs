//! Checks of kernels that belong to no layer of a net. Another one is another line in [`CHECKS`].

use super::cases;
use super::tally::{Tally, error};
use crate::Result;
use crate::data::resample::Normalise;
use crate::device::{Gpu, Launch, Program, Recorder};
use crate::interweave::{GpuInterweaver, PatchScanner};
use crate::net::GpuParameters;
use crate::ops::gpu;
use crate::rng::Rng;
use std::sync::Arc;

/// Runs kernels in the precision of `gpu` and notes what it finds.
pub type Check = fn(&Gpu, &mut Tally) -> Result<()>;

/// All of them by name; run once in each precision.
pub const CHECKS: &[(&str, Check)] = &[
    ("conversion", conversion),
    ("interweaving", interweaving),
    ("interweaving, whole maps", interweaving_whole_maps),
];

/// `narrow`, `widen` and `fill`: to the storage type and back, with a ragged end.
fn conversion(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    const COUNT: usize = 1003;
    let mut rng = Rng::new(1, 0);
    let values: Vec<f32> = (0..COUNT).map(|_| rng.normal()).collect();
    let from = gpu.upload(&values)?;
    let stored = gpu.memory(gpu.precision.bytes() * COUNT)?;
    let back = gpu.memory(4 * COUNT)?;
    let mut to = Recorder::new(gpu);
    to.label("conversion");
    gpu::fill(&mut to, f32::NAN, stored.ptr, COUNT);
    gpu::narrow(&mut to, from.ptr, stored.ptr, COUNT);
    gpu::widen(&mut to, stored.ptr, back.ptr, COUNT);
    run(gpu, &to.launches)?;
    let bytes = gpu.precision.bytes();
    let want: Vec<f32> = match bytes {
        4 => values,
        _ => values.iter().map(|&x| gpu.precision.round_factor(x)).collect(),
    };
    tally.note(&to.launches, "conversion", error(&gpu.download(back.ptr, COUNT)?, &want), 0.0);

    let mut to = Recorder::new(gpu);
    gpu::fill(&mut to, 0.5, stored.ptr, COUNT);
    gpu::widen(&mut to, stored.ptr, back.ptr, COUNT);
    run(gpu, &to.launches)?;
    tally.note(&to.launches, "conversion", error(&gpu.download(back.ptr, COUNT)?, &[0.5; COUNT]), 0.0);
    Ok(())
}

/// The interweaved operation on tiles, with local layers, pools and concat in it.
fn interweaving(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    // 29 -> 14 = 3 cells of 4 and 2 -> 12 -> 6 = 3 cells of 2 -> 6. The last sum is long enough to be cut into parts.
    let layers = "
        c1: conv filters=4 kernel=3 stride=2 activation='relu'
        c2: local_conv filters=6 kernel=3 grid=3 window='halo' activation='relu'
        p2: max_pool kernel=2
        r2: relu
        j2: concat from=['r2','p2']
        c3: local_conv filters=16 kernel=2 grid=2 span=2 window='valid'
        fc: linear outputs=9";
    interweave(gpu, tally, "interweaving", [1, 3, 29, 29], layers)
}

/// The same where a layer reads the whole map of a patch.
fn interweaving_whole_maps(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    let layers = "
        c1: conv filters=5 kernel=3 activation='relu'
        g1: global_pool mode='avg'";
    interweave(gpu, tally, "interweaving, whole maps", [1, 3, 9, 9], layers)
}

/// Every patch of an image at stride 4, against patch by patch on the CPU.
fn interweave(gpu: &Gpu, tally: &mut Tally, case: &str, input: [usize; 4], layers: &str) -> Result<()> {
    const STRIDE: usize = 4;
    let net = Arc::new(cases::net(case, input, layers)?);
    let size = [input[2] + 18, input[3] + 15];
    let mut rng = Rng::new(2, 0);
    let mut parameters = net.initial_parameters(3);
    for tensor in &net.parameters {
        let values = &mut parameters[tensor.range.clone()];
        match tensor.tensor.fan_in {
            // Biases too, so that a wrong bank shows.
            0 => values.fill_with(|| 0.1 * rng.normal()),
            _ => values.iter_mut().for_each(|x| *x = gpu.precision.round_factor(*x)),
        }
    }
    let draw = |_| gpu.precision.round_factor(rng.range(-1.0, 1.0));
    let pixels: Vec<f32> = (0..size[0] * size[1] * 3).map(draw).collect();
    let normalise = Normalise::default();
    let mut scanner = PatchScanner::new(net.clone(), parameters.clone(), normalise)?;
    let want = scanner.extract_normalised(&pixels, size, STRIDE)?;
    let uploaded = Arc::new(GpuParameters::new(gpu, &net, &parameters)?);
    let mut interweaver = GpuInterweaver::new(net, uploaded, normalise)?;
    let launches = interweaver.program(size, STRIDE, 1)?.launches.clone();
    let got = interweaver.extract_normalised(&pixels, size, STRIDE, 1)?;
    let worst = got.first().map_or(f64::INFINITY, |got| error(&got.values, &want.values));
    // Several layers round one after the other.
    tally.note(&launches, case, worst, 4.0 * tally.tolerance(gpu.precision));
    Ok(())
}

fn run(gpu: &Gpu, launches: &[Launch]) -> Result<()> {
    Program::new(launches.to_vec()).run(gpu)
}

//! Checks of kernels that belong to no layer of a net. To add one, add a line to [`CHECKS`].

use super::Tally;
use crate::Result;
use crate::data::gpu::{Batch, PhotoWindow};
use crate::data::photo::{Photo, Rect};
use crate::data::resample::Resampler;
use crate::device::{Device, Gpu, Launch, Memory, Precision, Program, Ptr, Recorder, Tile};
use crate::interweave::{Extractor, ExtractorOptions, Features, Method};
use crate::locate::density::{DensityPoint, Kernel};
use crate::locate::gpu::{
    FaceRecord, FollowParams, LevelRecord, PeakParams, PhotoRecord, ViewParams, record_follow, record_peaks,
    record_response, record_views,
};
use crate::net::{LossScale, Net, Normalise, Parameters, Purpose, Session, Sgd, SgdConfig, Spec};
use crate::ops::tolerance::Tolerance;
use crate::ops::{Shape, cases, gpu};
use crate::rng::Rng;
use half::{bf16, f16};
use std::sync::Arc;

/// Runs kernels in the precision of `gpu` and records the results.
pub type Check = fn(&Gpu, &mut Tally) -> Result<()>;

/// All checks by name; each runs once per precision.
pub const CHECKS: &[(&str, Check)] = &[
    ("conversion", conversion),
    ("interweaving", interweaving),
    ("interweaving, whole packs", interweaving_whole_packs),
    ("interweaving, whole maps", interweaving_whole_maps),
    ("interweaving, packs of channels", interweaving_packs_of_channels),
    ("interweaved maps", interweaved_maps),
    ("photos", photos),
    ("responses", responses),
    ("faces", faces),
    ("optimizer", optimizer),
    ("loss scale", loss_scale),
    ("probes", super::probe::check),
];

/// `cast_from_f32`, `cast_to_f32` and `fill`: to the storage type and back, with a length that leaves a remainder.
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
    gpu::cast_from_f32(&mut to, from.ptr, stored.ptr, COUNT);
    gpu::cast_to_f32(&mut to, stored.ptr, back.ptr, COUNT);
    run(gpu, &to.launches)?;
    let bytes = gpu.precision.bytes();
    let want: Vec<f32> = match bytes {
        4 => values,
        _ => values.iter().map(|&x| gpu.precision.round_factor(x)).collect(),
    };
    tally.same(&to.launches, "conversion", &gpu.download(back.ptr, COUNT)?, &want);

    let mut to = Recorder::new(gpu);
    gpu::fill(&mut to, 0.5, stored.ptr, COUNT);
    gpu::cast_to_f32(&mut to, stored.ptr, back.ptr, COUNT);
    run(gpu, &to.launches)?;
    tally.same(&to.launches, "conversion", &gpu.download(back.ptr, COUNT)?, &[0.5; COUNT]);
    Ok(())
}

/// The interweaved operation on tiles, with local layers, pooling and concat.
fn interweaving(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    // 29 -> 14 = 3 cells of 4 and 2 -> 12 -> 6 = 3 cells of 2 -> 6. The last sum is long enough for split-K.
    let layers = "
        c1: conv filters=4 kernel=3 stride=2 activation='relu'
        c2: local_conv filters=6 kernel=3 grid=3 window='halo' activation='relu'
        p2: max_pool kernel=2
        r2: relu
        j2: concat from=['r2','p2']
        c3: local_conv filters=16 kernel=2 grid=2 span=2 window='valid'
        fc: linear outputs=9";
    let patches = Patches::new(gpu, "interweaving", [1, 3, 29, 29], layers)?;
    patches.run(gpu, Method::OnePass, tally)
}

/// The same with runs of whole packs in every precision.
fn interweaving_whole_packs(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    let layers = "
        c1: conv filters=8 kernel=3 stride=2 activation='relu'
        c2: local_conv filters=16 kernel=3 grid=3 window='halo' activation='relu'
        fc: linear outputs=8";
    let patches = Patches::new(gpu, "interweaving, whole packs", [1, 3, 29, 29], layers)?;
    Tile::ALL
        .into_iter()
        .try_for_each(|tile| patches.run(&Gpu { tile: Some(tile), ..gpu.clone() }, Method::OnePass, tally))
}

/// The same where a layer reads a patch's whole map.
fn interweaving_whole_maps(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    let layers = "
        c1: conv filters=5 kernel=3 activation='relu'
        g1: global_pool mode='avg'";
    let patches = Patches::new(gpu, "interweaving, whole maps", [1, 3, 9, 9], layers)?;
    patches.run(gpu, Method::OnePass, tally)
}

/// The same where pools, copies and whole maps are read in packs of channels, and where they cannot be: 7 is a multiple of no
/// pack, 20 of one in f32 alone.
fn interweaving_packs_of_channels(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    [16, 20, 7].into_iter().try_for_each(|channels| {
        let layers = format!(
            "
            c1: conv filters=4 kernel=3 stride=2 activation='relu'
            c2: local_conv filters={channels} kernel=3 grid=3 window='halo' activation='relu'
            p2: max_pool kernel=2
            a2: avg_pool kernel=3 stride=1 pad=1
            j2: concat from=['p2','a2']
            g2: group_norm groups=2
            c3: local_conv filters=8 kernel=2 grid=2 span=2 window='valid'
            fc: linear outputs=9"
        );
        let patches = Patches::new(gpu, "interweaving, packs of channels", [1, 3, 29, 29], &layers)?;
        patches.run(gpu, Method::OnePass, tally)
    })
}

/// The same with the paper's method: interweaved maps in memory.
fn interweaved_maps(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    let layers = "
        c1: conv filters=4 kernel=3 stride=2 activation='relu'
        c2: local_conv filters=8 kernel=3 grid=3 window='halo' activation='relu'
        p2: max_pool kernel=2
        c3: local_conv filters=6 kernel=2 grid=2 span=2 window='valid'
        fc: linear outputs=9";
    let patches = Patches::new(gpu, "interweaved maps", [1, 3, 29, 29], layers)?;
    patches.run(gpu, Method::Maps, tally)
}

fn net(name: &str, input: [usize; 4], layers: &str) -> Result<Net> {
    Net::new(Spec::parse(&cases::toml(input, layers), name)?)
}

/// A net and the patches of an image on which it runs.
struct Patches {
    case: &'static str,
    net: Arc<Net>,
    parameters: Vec<f32>,
    size: [usize; 2],
    pixels: Vec<f32>,
    /// The features of each patch computed individually on the CPU.
    want: Features,
}

impl Patches {
    const STRIDE: usize = 4;

    fn new(gpu: &Gpu, case: &'static str, input: [usize; 4], layers: &str) -> Result<Self> {
        let net = Arc::new(net(case, input, layers)?);
        let size = [input[2] + 18, input[3] + 15];
        let mut rng = Rng::new(2, 0);
        let mut parameters = net.initial_parameters(3);
        for tensor in &net.parameters {
            let values = &mut parameters[tensor.range.clone()];
            match tensor.tensor.fan_in {
                // Non-zero biases, so that a wrong filter bank is detected.
                0 => values.fill_with(|| 0.1 * rng.normal()),
                _ => values.iter_mut().for_each(|x| *x = gpu.precision.round_factor(*x)),
            }
        }
        let draw = |_| gpu.precision.round_factor(rng.range(-1.0, 1.0));
        let pixels: Vec<f32> = (0..size[0] * size[1] * 3).map(draw).collect();
        let on_cpu = Parameters::on(&Device::Cpu, &net, parameters.clone())?;
        let mut scanner = extractor(&net, &on_cpu, Method::Patchwise)?;
        let want = scanner.extract_normalised(&pixels, size, Self::STRIDE, 1)?.remove(0);
        Ok(Self { case, net, parameters, size, pixels, want })
    }

    fn run(&self, gpu: &Gpu, method: Method, tally: &mut Tally) -> Result<()> {
        let parameters = Parameters::on(&Device::Gpu(gpu.clone()), &self.net, self.parameters.clone())?;
        let mut extractor = extractor(&self.net, &parameters, method)?;
        let launches = extractor.launches(self.size, Self::STRIDE, 1)?;
        let got = extractor.extract_normalised(&self.pixels, self.size, Self::STRIDE, 1)?;
        self.note(gpu, tally, &launches, got.first());
        Ok(())
    }

    fn note(&self, gpu: &Gpu, tally: &mut Tally, launches: &[Launch], got: Option<&Features>) {
        let got = got.map_or(&[][..], |got| &got.values);
        // Every layer adds a rounding.
        let tolerance = Tolerance::new(gpu.precision, self.net.layers.len(), 8.0);
        tally.compare(launches, self.case, got, &self.want.values, tolerance);
    }
}

/// Batches cut from photos: windows on whole pixels and scaled ones, across the borders, mirrored, of more taps than are weighed
/// at once; and a sample that is there as values.
fn photos(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    let mut rng = Rng::new(1, 0);
    let photo = Photo::from_fn(700, 300, |_, _| [0; 3].map(|_: u8| rng.below(256) as u8));
    let (h, w, normalise) = (11, 19, Normalise::default());
    let windows = [
        Rect::new(3.0, 4.0, 19.0, 11.0),
        Rect::new(-5.0, 295.0, 19.0, 11.0),
        Rect::new(3.3, 5.7, 9.1, 8.2),
        Rect::new(-4.5, 2.0, 30.0, 45.0),
        Rect::new(0.0, 0.0, 700.0, 300.0),
    ];
    let mut want = vec![0.0; (windows.len() + 1) * h * w * 3];
    let (mut resampler, mut table) = (Resampler::default(), Vec::new());
    for ((i, window), want) in windows.iter().enumerate().zip(want.chunks_exact_mut(h * w * 3)) {
        table.push(PhotoWindow::new(0, (photo.width, photo.height), *window, i % 2 == 1));
        resampler.sample(&photo, *window, w, h, i % 2 == 1, normalise, want);
    }
    table.push(PhotoWindow::values(photo.rgb.len()));
    let values = &mut want[windows.len() * h * w * 3..];
    values.fill_with(|| gpu.precision.round_factor(rng.range(-2.0, 2.0)));
    let bytes = gpu.upload(&[&photo.rgb, bytemuck::cast_slice(values)].concat())?;
    let table = gpu.upload(&table)?;
    let out = upload(gpu, &vec![f32::NAN; want.len()])?;
    let n = windows.len() + 1;
    let batch = Batch { photos: bytes.ptr, windows: table.ptr, out: out.ptr, n, h, w, normalise };
    let mut to = Recorder::new(gpu);
    batch.record_samples(&mut to);
    run(gpu, &to.launches)?;
    let tolerance = Tolerance::new(gpu.precision, 1, 2.0);
    tally.compare(&to.launches, "photos", &download(gpu, out.ptr, want.len())?, &want, tolerance);
    Ok(())
}

/// Responses of a map: one channel, and the mean of all.
fn responses(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    let (n, shape) = (2, Shape::new(45, 3, 7));
    let mut rng = Rng::new(4, 0);
    let draw = |_| gpu.precision.round_factor(rng.range(-0.5, 1.5));
    let values: Vec<f32> = (0..n * shape.len()).map(draw).collect();
    let map = upload(gpu, &values)?;
    let response = gpu.upload(&vec![f32::NAN; n * shape.area()])?;
    for channel in [Some(44), None] {
        let mut to = Recorder::new(gpu);
        record_response(map.ptr, n, shape, channel, response.ptr, &mut to);
        run(gpu, &to.launches)?;
        let place = |place: &[f32]| channel.map_or_else(|| place.iter().sum::<f32>() / shape.c as f32, |c| place[c]);
        let want: Vec<f32> = values.chunks(shape.c).map(place).collect();
        let got = gpu.download(response.ptr, want.len())?;
        // Sums are f32 whatever the storage type.
        tally.compare(&to.launches, "responses", &got, &want, Tolerance::new(Precision::F32, 1, 2.0));
    }
    Ok(())
}

/// Faces from maps: the peaks of two groups of maps, what remains of them, and views around the faces.
fn faces(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    const MOST: usize = 3;
    const SHARE: f32 = 0.9;
    const FACE: usize = size_of::<FaceRecord>();
    let (w, h, floor) = (11, 9, 0.2);
    let level = |number: usize| {
        let step = 4.0 * 1.5f32.powi(number as i32);
        let size = (5.0 * step).ln();
        let (w, h, first) = (w as u32, h as u32, (number * w * h) as u32);
        // The last column does not exist.
        LevelRecord { x: 2.0, y: 3.0, step, size, first, h, w, left: 0, right: w - 1, top: 0, bottom: h, unused: 0 }
    };
    let levels = [level(0), level(1)];
    let points = levels.len() * w * h;
    let mut rng = Rng::new(7, 0);
    let responses: Vec<f32> = (0..2 * points).map(|_| rng.unit() * rng.unit()).collect();
    let kernel = Kernel { position: 0.4, size: 0.3 };
    let [dx, dy] = [0.1f32, -0.2];
    let mut want = Vec::new();
    for responses in responses.chunks_exact(points) {
        let place = |(i, response): (usize, &f32)| {
            let (level, column, row) = (levels[i / (w * h)], i % w, i % (w * h) / w);
            let (x, y) = (level.x + level.step * column as f32, level.y + level.step * row as f32);
            (column < w - 1).then_some(DensityPoint { x, y, size: level.size, response: (response - floor).max(0.0) })
        };
        let places: Vec<DensityPoint> = responses.iter().enumerate().filter_map(place).collect();
        let peaks = kernel.peaks(&places, MOST);
        let mut best = 0.0f32;
        for peak in 0..MOST {
            best = peaks.get(peak).map_or(best, |peak| best.max(peak.score));
            let bright = peaks.get(peak).filter(|peak| peak.score >= SHARE * best);
            want.extend(
                bright.map_or([0.0; 4], |peak| {
                    [peak.x + dx * peak.width, peak.y + dy * peak.width, peak.width, peak.score]
                }),
            );
        }
    }
    let [levels_in, response] = [gpu.upload(&[levels, levels].concat())?, gpu.upload(&responses)?];
    let [all, density, ranks] = [16, 4, 4].map(|bytes| gpu.memory(bytes * 2 * points));
    let (all, density, ranks, peaks) = (all?, density?, ranks?, gpu.memory(2 * MOST * FACE)?);
    let mut to = Recorder::new(gpu);
    to.label("faces");
    let parameters = PeakParams {
        levels_in: levels_in.ptr,
        response: response.ptr,
        points: all.ptr,
        density: density.ptr,
        ranks: ranks.ptr,
        peaks: peaks.ptr,
        groups: 2,
        levels: 2,
        points_in: points as u32,
        most: MOST as u32,
        floor,
        position: kernel.position,
        spread: kernel.size,
        shift_x: dx,
        shift_y: dy,
        share: SHARE,
    };
    record_peaks(&parameters, &mut to);
    run(gpu, &to.launches)?;
    let numbers = |face: &FaceRecord| [face.x, face.y, face.width, face.score];
    let found: Vec<FaceRecord> = gpu.download(peaks.ptr, 2 * MOST)?;
    let got: Vec<f32> = found.iter().flat_map(numbers).collect();
    // A mean shift repeats its roundings.
    tally.compare(&to.launches, "faces", &got, &want, Tolerance::new(Precision::F32, 8, 2.0));

    // Two faces in a row; the peaks of the second are worse doubles and a better face.
    let face = |x: f32, width: f32, score: f32| FaceRecord { x, y: 20.0, width, score, from: 0, unused: [0; 3] };
    let (none, photo) = (face(0.0, 0.0, 0.0), PhotoRecord { w: 60, h: 40, least: 0.4, unused: 0 });
    let around = [face(20.0, 10.0, 1.0), face(40.0, 10.0, 1.0), face(50.0, 10.0, 1.0), none];
    let peaks = [
        [face(21.0, 10.0, 0.5), face(58.0, 10.0, 0.9), none],
        [face(22.0, 11.0, 0.3), face(39.0, 9.0, 0.7), none],
        [face(51.0, 10.0, 0.1), none, none],
        [none; 3],
    ];
    let [photo, faces_in, peaks] = [gpu.upload(&[photo])?, gpu.upload(&around)?, gpu.upload(peaks.as_flattened())?];
    let found = gpu.memory(around.len() * FACE)?;
    let mut to = Recorder::new(gpu);
    to.label("faces");
    let (count, most) = (around.len() as u32, MOST as u32);
    let parameters = FollowParams {
        photo: photo.ptr,
        faces: faces_in.ptr,
        peaks: peaks.ptr,
        found: found.ptr,
        count,
        most,
        share: 0.5,
        same: 0.3,
    };
    record_follow(&parameters, &mut to);
    run(gpu, &to.launches)?;
    let got: Vec<FaceRecord> = gpu.download(found.ptr, around.len())?;
    let got: Vec<f32> = got.iter().flat_map(|face| numbers(face).into_iter().chain([face.from as f32])).collect();
    let mut want = vec![39.0, 20.0, 9.0, 0.7, 1.0, 21.0, 20.0, 10.0, 0.5, 0.0];
    want.resize(got.len(), 0.0);
    tally.same(&to.launches, "faces", &got, &want);

    // A view inside the photo, one that is moved into it, one that is larger, and one of no face.
    let (zooms, pixels, cells) = ([10.0f32, 5.0], 20.0, 4);
    let [windows, views] = [gpu.memory(8 * size_of::<PhotoWindow>())?, gpu.memory(8 * size_of::<LevelRecord>())?];
    let zooms = gpu.upload(&zooms)?;
    let mut to = Recorder::new(gpu);
    to.label("faces");
    let parameters = ViewParams {
        photo: photo.ptr,
        faces_in: faces_in.ptr,
        zooms: zooms.ptr,
        windows: windows.ptr,
        views: views.ptr,
        faces: count,
        levels: 2,
        pixels,
        input: 22,
        cells,
        first: 2.5,
        stride: 5.0,
        width: 10.0,
    };
    record_views(&parameters, &mut to);
    run(gpu, &to.launches)?;
    let windows: Vec<PhotoWindow> = gpu.download(windows.ptr, 8)?;
    let views: Vec<LevelRecord> = gpu.download(views.ptr, 8)?;
    let got = windows.iter().zip(&views).flat_map(|(window, view)| {
        let cells = [view.left, view.right, view.top, view.bottom, view.first].map(|cell| cell as f32);
        [window.x, window.y, window.w, view.x, view.step, view.size].into_iter().chain(cells)
    });
    // x, y and side of the window, x and step of its cells, ln of their face; columns, rows, first cell.
    let (near, far) = (10.0f32.ln(), 20.0f32.ln());
    let want = [
        [10.0, 10.0, 22.0, 12.5, 5.0, near, 0.0, 4.0, 0.0, 4.0, 0.0],
        [0.0, 0.0, 44.0, 5.0, 10.0, far, 0.0, 4.0, 0.0, 4.0, 16.0],
        [30.0, 10.0, 22.0, 32.5, 5.0, near, 0.0, 4.0, 0.0, 4.0, 0.0],
        [20.0, 0.0, 44.0, 25.0, 10.0, far, 0.0, 4.0, 0.0, 4.0, 16.0],
        [40.0, 10.0, 22.0, 42.5, 5.0, near, 0.0, 4.0, 0.0, 4.0, 0.0],
        [20.0, 0.0, 44.0, 25.0, 10.0, far, 0.0, 4.0, 0.0, 4.0, 16.0],
        [0.0, 0.0, 22.0, 2.5, 5.0, near, 0.0, 0.0, 0.0, 4.0, 0.0],
        [0.0, 0.0, 22.0, 2.5, 5.0, near, 0.0, 0.0, 0.0, 4.0, 16.0],
    ];
    let got: Vec<f32> = got.collect();
    tally.compare(&to.launches, "faces", &got, want.as_flattened(), Tolerance::new(Precision::F32, 1, 2.0));
    Ok(())
}

/// Three optimizer steps with clipping; checks the master weights and the stored weights.
fn optimizer(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    let net = Arc::new(net("optimizer", [1, 3, 9, 9], "a: conv filters=7 kernel=3\nb: linear outputs=37")?);
    let config = SgdConfig { clip_norm: 0.7, ..SgdConfig::default() };
    let mut rng = Rng::new(5, 0);
    let mut draw = || -> Vec<f32> { (0..net.parameter_len()).map(|_| rng.normal()).collect() };
    let start = draw();
    let session = |device: Device, start: &[f32]| {
        let parameters = Parameters::on(&device, &net, start.to_vec())?;
        Session::new(net.clone(), &parameters, 1, Purpose::Training)
    };
    let mut sessions = [session(Device::Gpu(gpu.clone()), &start)?, session(Device::Cpu, &start)?];
    let [on_gpu, on_cpu] = &sessions;
    let mut optimizers = [Sgd::new(on_gpu, config.clone())?, Sgd::new(on_cpu, config)?];
    for step in 0..3 {
        let gradients = draw();
        let rate = 0.1 / (step + 1) as f32;
        for (session, optimizer) in sessions.iter_mut().zip(&mut optimizers) {
            session.set_gradients(&gradients)?;
            optimizer.step(session, rate)?;
        }
    }
    let ([on_gpu, on_cpu], [found, wanted]) = (&sessions, &optimizers);
    let got = on_gpu.parameters().read()?;
    let launches = found.launches(false);
    let tolerance = Tolerance::new(Precision::F32, 1, 2.0);
    tally.compare(launches, "optimizer", &got, &on_cpu.parameters().read()?, tolerance);
    tally.compare(launches, "optimizer", &found.momentum()?, &wanted.momentum()?, tolerance);
    let stored = on_gpu.parameters().read_rounded()?;
    for tensor in net.parameters.iter().filter(|parameter| parameter.tensor.fan_in > 0) {
        let (stored, master) = (&stored[tensor.range.clone()], &got[tensor.range.clone()]);
        let rounds = gpu.precision.bytes() < 4;
        let wanted = master.iter().map(|&x| if rounds { gpu.precision.round_factor(x) } else { x });
        tally.same(launches, "optimizer", stored, &wanted.collect::<Vec<_>>());
    }
    Ok(())
}

/// In f16: steps with gradients of scaled losses, with and without clipping; one whose gradients are not finite, and one after which
/// the scale is doubled.
fn loss_scale(gpu: &Gpu, tally: &mut Tally) -> Result<()> {
    if gpu.precision != Precision::F16 {
        return Ok(());
    }
    // More chunks than the block that adds their sums has threads would take a million parameters; a few suffice for its order.
    let net = Arc::new(net("loss scale", [1, 3, 9, 9], "a: conv filters=7 kernel=3\nb: linear outputs=37")?);
    let mut rng = Rng::new(6, 0);
    let mut draw = || -> Vec<f32> { (0..net.parameter_len()).map(|_| rng.normal()).collect() };
    for clip_norm in [0.0, 0.7] {
        let config = SgdConfig { clip_norm, ..SgdConfig::default() };
        let start = draw();
        let session = |device: Device, start: &[f32]| {
            let parameters = Parameters::on(&device, &net, start.to_vec())?;
            Session::new(net.clone(), &parameters, 1, Purpose::Training)
        };
        let [mut on_gpu, mut on_cpu] = [session(Device::Gpu(gpu.clone()), &start)?, session(Device::Cpu, &start)?];
        let [mut found, mut wanted] = [Sgd::new(&on_gpu, config.clone())?, Sgd::new(&on_cpu, config)?];
        found.set_loss_scale(LossScale { scale: 1024.0, good: LossScale::INTERVAL - 2, skipped: 0 })?;
        let mut states = Vec::new();
        for (step, scale) in [1024.0, 1024.0, 2048.0, 1024.0].into_iter().enumerate() {
            let gradients = draw();
            let mut scaled: Vec<f32> = gradients.iter().map(|gradient| scale * gradient).collect();
            if step == 2 {
                let last = scaled.len() - 1;
                scaled[last] = if clip_norm > 0.0 { f32::NAN } else { f32::NEG_INFINITY };
            } else {
                on_cpu.set_gradients(&gradients)?;
                wanted.step(&on_cpu, 0.1)?;
            }
            on_gpu.set_gradients(&scaled)?;
            found.step_scaled(&on_gpu, 0.1)?;
            let state = found.loss_scale()?.unwrap_or_default();
            states.extend([state.scale, state.good as f32, state.skipped as f32]);
        }
        let launches = found.launches(true);
        let good = LossScale::INTERVAL as f32 - 1.0;
        let want = [1024.0, good, 0.0, 2048.0, 0.0, 0.0, 1024.0, 0.0, 1.0, 1024.0, 1.0, 1.0];
        tally.same(launches, "loss scale", &states, &want);
        let tolerance = Tolerance::new(Precision::F32, 1, 2.0);
        tally.compare(launches, "loss scale", &on_gpu.parameters().read()?, &on_cpu.parameters().read()?, tolerance);
        tally.compare(launches, "loss scale", &found.momentum()?, &wanted.momentum()?, tolerance);
    }
    Ok(())
}

fn extractor(net: &Arc<Net>, parameters: &Parameters, method: Method) -> Result<Extractor> {
    Extractor::new(net.clone(), parameters, ExtractorOptions { method, ..ExtractorOptions::default() })
}

/// Uploads values in the storage type.
fn upload(gpu: &Gpu, values: &[f32]) -> Result<Memory> {
    match gpu.precision {
        Precision::F16 => gpu.upload(&values.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>()),
        Precision::Bf16 => gpu.upload(&values.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>()),
        Precision::F32 | Precision::Tf32 => gpu.upload(values),
    }
}

fn download(gpu: &Gpu, from: Ptr, count: usize) -> Result<Vec<f32>> {
    Ok(match gpu.precision {
        Precision::F16 => gpu.download::<f16>(from, count)?.into_iter().map(f16::to_f32).collect(),
        Precision::Bf16 => gpu.download::<bf16>(from, count)?.into_iter().map(bf16::to_f32).collect(),
        Precision::F32 | Precision::Tf32 => gpu.download(from, count)?,
    })
}

fn run(gpu: &Gpu, launches: &[Launch]) -> Result<()> {
    Program::new(launches.to_vec())?.run(gpu)
}

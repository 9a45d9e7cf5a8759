//! Kernels that belong to no operation, on the emulator (fast in several thread orders, and checked), compared with plain Rust:
//! the optimizer, batches cut from photos, interweaved maps, summed-area tables.

use std::sync::Arc;
use weft::data::gpu::{Batch, PhotoWindow};
use weft::data::photo::{Photo, Rect};
use weft::data::resample::Resampler;
use weft::device::{Device, Emulator, EmulatorOptions, Gpu, Launch, Precision, Program, Ptr, Recorder};
use weft::interweave::{Interweaving, Unweaving};
use weft::locate::gpu::record_response;
use weft::net::{Net, Normalise, Parameters, Purpose, Session, Sgd, SgdConfig, Spec};
use weft::ops::{Pair, Shape};
use weft::rng::Rng;

/// The emulator as several GPUs, for every storage type.
fn gpus() -> Vec<Gpu> {
    let emulator = |checked, seed, precision| {
        let driver = Arc::new(Emulator::new(EmulatorOptions { checked, seed }));
        Gpu { separate_buffers: checked, precision, ..Gpu::new(driver) }
    };
    let storage = [Precision::F32, Precision::F16, Precision::Bf16];
    let mut gpus: Vec<Gpu> = storage.iter().map(|&precision| emulator(true, Some(1), precision)).collect();
    gpus.extend(storage.iter().map(|&precision| emulator(false, Some(2), precision)));
    gpus.extend([None, Some(3)].map(|seed| emulator(false, seed, Precision::F32)));
    gpus
}

/// Runs what `record` records.
fn run(gpu: &Gpu, record: impl FnOnce(&mut Recorder<'_>)) {
    let mut to = Recorder::new(gpu);
    record(&mut to);
    for launch in to.launches {
        assert!(launch.work.bytes > 0, "{}: no account of its bytes", launch.kernel);
        gpu.driver.launch(&launch).unwrap_or_else(|e| panic!("{gpu:?}: {e}"));
    }
}

/// Uploads values in the storage type.
fn upload(gpu: &Gpu, values: &[f32]) -> weft::device::Memory {
    match gpu.precision {
        Precision::F16 => gpu.upload(&values.iter().map(|&x| half::f16::from_f32(x)).collect::<Vec<_>>()),
        Precision::Bf16 => gpu.upload(&values.iter().map(|&x| half::bf16::from_f32(x)).collect::<Vec<_>>()),
        _ => gpu.upload(values),
    }
    .unwrap()
}

fn download(gpu: &Gpu, from: Ptr, count: usize) -> Vec<f32> {
    match gpu.precision {
        Precision::F16 => gpu.download::<half::f16>(from, count).unwrap().iter().map(|x| x.to_f32()).collect(),
        Precision::Bf16 => gpu.download::<half::bf16>(from, count).unwrap().iter().map(|x| x.to_f32()).collect(),
        _ => gpu.download(from, count).unwrap(),
    }
}

/// Relative rounding error of a stored value.
fn rounding(gpu: &Gpu) -> f32 {
    match gpu.precision {
        Precision::F16 => 1.0 / 2048.0,
        Precision::Bf16 => 1.0 / 256.0,
        _ => 0.0,
    }
}

/// Fails unless all values are within `allowed`; NaN never is.
#[track_caller]
fn assert_close(gpu: &Gpu, what: &str, got: &[f32], want: &[f32], allowed: impl Fn(f32) -> f32) {
    assert_eq!(got.len(), want.len(), "{gpu:?}: {what}");
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        let close = (g - w).abs() <= allowed(*w);
        assert!(close, "{gpu:?}: {what}: {g} instead of {w} at {i} of {}", got.len());
    }
}

/// A net with tensors of several chunks and of odd sizes.
fn net() -> Arc<Net> {
    let text = "name = 'steps'\ninput = [3, 9, 9]\n\
        [[layer]]\nname = 'a'\ntype = 'conv'\nfilters = 7\nkernel = 3\n\
        [[layer]]\nname = 'b'\ntype = 'conv'\nfilters = 5\nkernel = 1\n\
        [[layer]]\nname = 'c'\ntype = 'linear'\noutputs = 37\n";
    Arc::new(Net::new(Spec::parse(text, "steps").unwrap()).unwrap())
}

#[test]
fn steps_of_the_optimizer_are_those_of_the_cpu() {
    let net = net();
    let frozen = [("b".to_string(), 0.0), ("a".to_string(), 0.5)];
    let configs = [
        SgdConfig::default(),
        SgdConfig { nesterov: false, decay_bias: false, weight_decay: 0.1, ..SgdConfig::default() },
        SgdConfig { clip_norm: 0.7, rate_factors: frozen.into_iter().collect(), ..SgdConfig::default() },
        // Larger than the norm of any gradient here.
        SgdConfig { clip_norm: 1e6, momentum: 0.0, ..SgdConfig::default() },
    ];
    for gpu in gpus() {
        for config in &configs {
            let mut rng = Rng::new(5, 0);
            let len = net.parameter_len();
            let mut draw = || -> Vec<f32> { (0..len).map(|_| rng.normal()).collect() };
            let start = draw();
            let mut sessions = [Device::Gpu(gpu.clone()), Device::Cpu].map(|device| session(&device, &net, &start));
            let mut optimizers = sessions.each_ref().map(|session| Sgd::new(session, config.clone()).unwrap());
            for step in 0..3 {
                let gradients = draw();
                let rate = 0.1 / (step + 1) as f32;
                for (session, optimizer) in sessions.iter_mut().zip(&mut optimizers) {
                    session.set_gradients(&gradients).unwrap();
                    optimizer.step(session, rate).unwrap();
                }
            }
            let [got, wanted] = sessions.each_ref().map(|session| session.parameters().read().unwrap());
            assert_close(&gpu, "parameters", &got, &wanted, |w| 1e-6 * w.abs().max(1.0));
            let [momentum, expected] = optimizers.each_ref().map(|optimizer| optimizer.momentum().unwrap());
            assert_close(&gpu, "momentum", &momentum, &expected, |w| 1e-6 * w.abs().max(1.0));
            if gpu.precision.bytes() < 4 {
                let stored = sessions[0].parameters().read_rounded().unwrap();
                for tensor in &net.parameters {
                    let range = tensor.range.clone();
                    let rounded: Vec<f32> = got[range.clone()].iter().map(|&x| gpu.precision.round_factor(x)).collect();
                    assert_eq!(stored[range], rounded, "{gpu:?}: {}", tensor.name);
                }
            }
        }
    }
}

fn session(device: &Device, net: &Arc<Net>, parameters: &[f32]) -> Session {
    let parameters = Parameters::on(device, net, parameters.to_vec()).unwrap();
    Session::new(net.clone(), &parameters, 1, Purpose::Training).unwrap()
}

#[test]
fn the_optimizer_can_be_given_its_momentum_back() {
    let (net, gpu) = (net(), gpus().remove(3));
    let values: Vec<f32> = (0..net.parameter_len()).map(|i| i as f32).collect();
    for device in [Device::Gpu(gpu), Device::Cpu] {
        let mut sgd = Sgd::new(&session(&device, &net, &values), SgdConfig::default()).unwrap();
        assert!(sgd.momentum().unwrap().iter().all(|&v| v == 0.0));
        sgd.set_momentum(&values).unwrap();
        assert_eq!(sgd.momentum().unwrap(), values);
        assert!(sgd.set_momentum(&values[1..]).is_err(), "of another length");
    }
}

/// Lengths that do not match, and sessions for which an optimizer was not created, are errors on every device.
#[test]
fn what_does_not_fit_is_an_error_everywhere() {
    let (net, gpu) = (net(), gpus().remove(0));
    let parameters = net.initial_parameters(1);
    for device in [Device::Gpu(gpu), Device::Cpu] {
        let short = Parameters::on(&device, &net, parameters[1..].to_vec()).err().unwrap();
        assert!(short.to_string().contains("parameters, but"), "{short}");
        let mut session = session(&device, &net, &parameters);
        let forward_only = Session::new(net.clone(), session.parameters(), 1, Purpose::Inference).unwrap();
        assert!(session.set_input(&[0.0; 5]).unwrap_err().to_string().contains("a batch of 5 values"));
        assert!(session.set_gradients(&[0.0; 5]).unwrap_err().to_string().contains("5 gradients are given"));
        assert!(session.parameters().write(&[0.0; 5]).unwrap_err().to_string().contains("5 values are given"));
        assert!(session.backward(None).unwrap_err().to_string().contains("no forward pass"));
        assert!(Sgd::new(&forward_only, SgdConfig::default()).err().unwrap().to_string().contains("forward only"));
        let mut sgd = Sgd::new(&session, SgdConfig::default()).unwrap();
        assert!(sgd.step(&forward_only, 0.1).unwrap_err().to_string().contains("another session"));
    }
}

fn noise(width: usize, height: usize, seed: u64) -> Photo {
    let mut rng = Rng::new(seed, 0);
    Photo::from_fn(width, height, |_, _| [rng.below(256) as u8, rng.below(256) as u8, rng.below(256) as u8])
}

/// Windows of two photos through the GPU and through the CPU's resampler.
fn windows(gpu: &Gpu, rects: &[Rect], [h, w]: [usize; 2], normalise: Normalise) -> [Vec<f32>; 2] {
    let photos = [noise(200, 130, 1), noise(23, 37, 2)];
    let bytes = photos.iter().flat_map(|photo| photo.rgb.clone()).collect::<Vec<u8>>();
    let (mut table, mut wanted) = (Vec::new(), Vec::new());
    let mut resampler = Resampler::default();
    for (i, rect) in rects.iter().enumerate() {
        let (photo, flip) = (&photos[i % 2], i % 3 == 1);
        let offset = if i % 2 == 0 { 0 } else { photos[0].rgb.len() };
        table.push(PhotoWindow::new(offset, (photo.width, photo.height), *rect, flip));
        let mut out = vec![f32::NAN; h * w * 3];
        resampler.sample(photo, *rect, w, h, flip, normalise, &mut out);
        wanted.extend(out);
    }
    let (photos, table) = (gpu.upload(&bytes).unwrap(), gpu.upload(&table).unwrap());
    let out = upload(gpu, &vec![f32::NAN; wanted.len()]);
    let batch = Batch { photos: photos.ptr, windows: table.ptr, out: out.ptr, n: rects.len(), h, w, normalise };
    run(gpu, |to| batch.record_samples(to));
    [download(gpu, out.ptr, wanted.len()), wanted]
}

#[test]
fn windows_on_whole_pixels_are_pixels_normalised() {
    let corners = [(3.0, 4.0), (0.0, 0.0), (27.0, 19.0), (-5.0, 30.0), (10.0, -3.0)];
    let rects = corners.map(|(x, y)| Rect::new(x, y, 13.0, 11.0));
    for gpu in gpus() {
        for normalise in [Normalise::default(), Normalise { mean: [1.0, 20.0, 128.0], scale: 0.5 }] {
            let [got, wanted] = windows(&gpu, &rects, [11, 13], normalise);
            let wanted: Vec<f32> = wanted.iter().map(|&x| gpu.precision.round_factor(x)).collect();
            assert_eq!(got, wanted, "{gpu:?}");
        }
    }
}

#[test]
fn samples_are_those_of_the_resampler() {
    // The last but one is far outside, the last shrinks by more taps than are weighed at once.
    let rects = [
        Rect::new(0.0, 0.0, 40.0, 30.0),
        Rect::new(3.3, 5.7, 9.1, 8.2),
        Rect::new(-4.5, 2.0, 30.0, 45.0),
        Rect::new(7.0, 5.0, 13.0, 11.0),
        Rect::new(1e9, f32::NAN, 5.0, 5.0),
        Rect::new(2.5, 2.5, 3.0, 1.5),
        Rect::new(-800.0, 5.0, 40.0, -20.0),
        Rect::new(-400.0, -300.0, 900.0, 650.0),
    ];
    for gpu in gpus() {
        // A tile, and parts of tiles.
        for size in [[11, 13], [35, 18]] {
            let [got, wanted] = windows(&gpu, &rects, size, Normalise::NONE);
            assert_close(&gpu, "samples", &got, &wanted, |w| w * rounding(&gpu) + 255.0 * 2e-6);
        }
    }
}

#[test]
fn interweaved_maps_hold_the_tile_of_every_patch_and_zeros() {
    let cases = [
        // A small version of ANet: cells of 3, two per axis, at strides that divide a tile and that do not.
        (8, [3, 3], [2, 2], [2, 2], [5, 4]),
        (3, [3, 3], [2, 2], [4, 1], [4, 9]),
        (4, [2, 3], [2, 1], [3, 2], [3, 5]),
        (8, [1, 2], [3, 2], [6, 4], [2, 1]),
    ];
    for gpu in gpus() {
        for (c, [cell_h, cell_w], [span_h, span_w], [step_h, step_w], [patches_h, patches_w]) in cases {
            let grid = Pair { h: span_h + 1, w: span_w + 1 };
            let (h, w) = ((patches_h - 1) * step_h + grid.h * cell_h, (patches_w - 1) * step_w + grid.w * cell_w);
            let response = Shape::new(c, h, w);
            let mut rng = Rng::new(3, 0);
            let values: Vec<f32> = (0..grid.h * grid.w * response.len())
                .map(|_| gpu.precision.round_factor(rng.range(1.0, 2.0)))
                .collect();
            for bank in [[0, 0], [1, 0], [0, 1], [1, 1]] {
                let weave = Interweaving {
                    response,
                    grid,
                    bank,
                    cell: Pair { h: cell_h, w: cell_w },
                    span: Pair { h: span_h, w: span_w },
                    step: Pair { h: step_h, w: step_w },
                    patches: Pair { h: patches_h, w: patches_w },
                };
                let (maps, map, period) = (weave.maps(), weave.map(), weave.period());
                let mut wanted = vec![0.0; maps.h * maps.w * map.len()];
                for patch in 0..patches_h * patches_w {
                    let (py, px) = (patch / patches_w, patch % patches_w);
                    let (number, i, j) = ((py % period.h) * maps.w + px % period.w, py / period.h, px / period.w);
                    for u in 0..span_h * cell_h {
                        for v in 0..span_w * cell_w {
                            let from = (bank[0] + u / cell_h) * grid.w + bank[1] + v / cell_w;
                            let (y, x) = (py * step_h + bank[0] * cell_h + u, px * step_w + bank[1] * cell_w + v);
                            let from = ((from * h + y) * w + x) * c;
                            let (y, x) = (i * span_h * cell_h + u, j * span_w * cell_w + v);
                            let to = ((number * map.h + y) * map.w + x) * c;
                            wanted[to..to + c].copy_from_slice(&values[from..from + c]);
                        }
                    }
                }
                let (from, out) = (upload(&gpu, &values), upload(&gpu, &vec![f32::NAN; wanted.len()]));
                run(&gpu, |to| weave.record(from.ptr, out.ptr, to));
                assert!(download(&gpu, out.ptr, wanted.len()) == wanted, "{gpu:?}: {weave:?}");
                taken_apart(&gpu, weave, &mut rng);
            }
        }
    }
}

/// Values over the maps of `weave`, one position fewer along each axis: the block of every patch is read, and nothing besides it.
fn taken_apart(gpu: &Gpu, weave: Interweaving, rng: &mut Rng) {
    let (maps, map, tile, period) = (weave.maps(), weave.map(), weave.tile(), weave.period());
    let values = Shape::new(map.c, map.h - 1, map.w - 1);
    let block = Pair { h: tile.h - 1, w: tile.w - 1 };
    let [top, left] = [weave.bank[0] * block.h, weave.bank[1] * block.w];
    let output = Shape::new(map.c, 2 * block.h, 2 * block.w);
    let from: Vec<f32> =
        (0..maps.h * maps.w * values.len()).map(|_| gpu.precision.round_factor(rng.range(1.0, 2.0))).collect();
    let patches = weave.patches.h * weave.patches.w;
    let mut wanted = vec![0.0; patches * output.len()];
    for patch in 0..patches {
        let (py, px) = (patch / weave.patches.w, patch % weave.patches.w);
        let number = (py % period.h) * maps.w + px % period.w;
        for u in 0..block.h {
            for v in 0..block.w {
                let (y, x) = (py / period.h * tile.h + u, px / period.w * tile.w + v);
                let at = ((number * values.h + y) * values.w + x) * map.c;
                let to = ((patch * output.h + top + u) * output.w + left + v) * map.c;
                wanted[to..to + map.c].copy_from_slice(&from[at..at + map.c]);
            }
        }
    }
    let (from, out) = (upload(gpu, &from), upload(gpu, &vec![0.0; wanted.len()]));
    let unweave = Unweaving { weave, values, tile, block, output };
    run(gpu, |to| unweave.record(from.ptr, out.ptr, to));
    assert!(download(gpu, out.ptr, wanted.len()) == wanted, "{gpu:?}: {unweave:?}");
}

#[test]
fn a_response_is_a_channel_or_the_mean() {
    let (n, shape) = (2, Shape::new(45, 3, 7));
    let mut rng = Rng::new(4, 0);
    for gpu in gpus() {
        let values: Vec<f32> = (0..n * shape.len()).map(|_| gpu.precision.round_factor(rng.range(-1.0, 2.0))).collect();
        let map = upload(&gpu, &values);
        let out = gpu.upload(&vec![f32::NAN; n * shape.area()]).unwrap();
        for channel in [None, Some(0), Some(44)] {
            run(&gpu, |to| record_response(map.ptr, n, shape, channel, out.ptr, to));
            let got: Vec<f32> = gpu.download(out.ptr, n * shape.area()).unwrap();
            let place = |place: &[f32]| channel.map_or_else(|| place.iter().sum::<f32>() / 45.0, |c| place[c]);
            let wanted: Vec<f32> = values.chunks(shape.c).map(place).collect();
            assert_close(&gpu, "response", &got, &wanted, |_| 1e-6);
        }
    }
}

#[test]
fn maps_that_kernels_cannot_count_are_refused_before_their_memory_is() {
    let layers = "[[layer]]\nname = 'p'\ntype = 'max_pool'\nkernel = 2\n";
    let text = format!("name = 'huge'\ninput = [1, 50000, 50000]\n{layers}");
    let net = Arc::new(Net::new(Spec::parse(&text, "huge.toml").unwrap()).unwrap());
    let gpu = Device::Gpu(Gpu::new(Arc::new(Emulator::new(EmulatorOptions::default()))));
    let parameters = Parameters::on(&gpu, &net, Vec::new()).unwrap();
    let error = Session::new(net, &parameters, 1, Purpose::Inference).err().unwrap().to_string();
    assert!(error.starts_with("huge.toml") && error.contains("value 0 has more than 2^31 numbers"), "{error}");
}

#[test]
fn launches_that_no_grid_can_hold_are_refused_when_they_are_planned() {
    let launch = |grid| Launch::new("fill_f32", grid, 256, &0u32);
    for grid in [[1 << 23, 1, 1], [1, 65_536, 1], [1, 1, 65_536]] {
        let error = Program::new(vec![launch([1; 3]), launch(grid)]).err().unwrap().to_string();
        assert!(error.contains("fill_f32") && error.contains("more blocks than one launch can have"), "{error}");
    }
    assert!(Program::new(vec![launch([(1 << 23) - 1, 65_535, 65_535])]).is_ok());
}

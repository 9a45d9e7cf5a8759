//! The contract of the interweaved operation: the features of every patch equal those of the patch computed on its own.

use std::sync::Arc;
use weft::data::photo::Photo;
use weft::device::{Convolution, Device, Emulator, EmulatorOptions, Gpu, Precision};
use weft::interweave::{Extractor, ExtractorOptions, Features, Method, Outline, Plan};
use weft::net::{Net, Parameters, Spec};
use weft::ops::cases::{self, Case};
use weft::ops::tolerance::{Distance, Tolerance};
use weft::rng::Rng;

/// A photo of noise, so that no two positions are alike.
fn noise(width: usize, height: usize, seed: u64) -> Photo {
    let mut rng = Rng::new(seed, 1);
    Photo::from_fn(width, height, |_, _| {
        let word = rng.word();
        [word as u8, (word >> 8) as u8, (word >> 16) as u8]
    })
}

/// An extractor on a device, with parameters that reveal a wrong filter bank.
fn extractor(device: &Device, net: &Arc<Net>, method: Method, memory: usize) -> Extractor {
    let parameters = Parameters::on(device, net, parameters(net)).unwrap();
    Extractor::new(net.clone(), &parameters, ExtractorOptions { method, memory, ..ExtractorOptions::default() })
        .unwrap()
}

/// Both methods on one photo; returns the maximum difference relative to the maximum feature.
#[track_caller]
fn compare(net: &Arc<Net>, photo: &Photo, stride: usize, memory: usize) -> f64 {
    let expected = extractor(&Device::Cpu, net, Method::Patchwise, WHOLE).extract(photo, stride).unwrap();
    assert!(is_alive(&expected), "features that tell patches apart");
    let found = extractor(&Device::Cpu, net, Method::OnePass, memory).extract(photo, stride).unwrap();
    found.error(&expected)
}

/// Whether features are informative: not all zero, as after a ReLU that passes nothing, and not the same for all patches. With
/// other features every wrong pass would look right.
fn is_alive(features: &Features) -> bool {
    let mut patches = features.values.chunks_exact(features.dims);
    let first = patches.next().unwrap();
    let differ = features.values.len() == features.dims || patches.any(|other| other != first);
    differ && features.values.iter().any(|v| *v != 0.0)
}

/// Maximum difference relative to the maximum feature; in precisions other than f32 fails unless rounding explains it.
#[track_caller]
fn error(gpu: &Gpu, net: &Net, found: &Features, expected: &Features) -> f64 {
    assert!(is_alive(expected), "features that tell patches apart");
    if gpu.precision != Precision::F32 {
        // Both methods round at every layer, and sum in a different order.
        let tolerance = Tolerance::new(gpu.precision, 2 * net.layers.len(), 1.0);
        let want: Vec<f64> = expected.values.iter().map(|&v| v.into()).collect();
        let distance = Distance::new(&found.values, &want);
        assert!(tolerance.share(distance) <= 1.0, "{gpu:?}: {distance:?}, allowed {tolerance:?}");
        assert_eq!(tolerance.blind_to(&want), None, "{gpu:?}");
    }
    found.error(expected)
}

/// Non-zero biases as well, so that a wrong filter bank is detected.
fn parameters(net: &Net) -> Vec<f32> {
    let mut parameters = net.initial_parameters(7);
    let mut rng = Rng::new(7, 2);
    for tensor in net.parameters.iter().filter(|p| p.tensor.fan_in == 0) {
        parameters[tensor.range.clone()].fill_with(|| 0.1 * rng.normal());
    }
    parameters
}

fn emulator(checked: bool, seed: u64, precision: Precision) -> Gpu {
    let driver = Arc::new(Emulator::new(EmulatorOptions { checked, seed: Some(seed) }));
    Gpu { precision, separate_buffers: checked, ..Gpu::new(driver) }
}

/// One pass on a GPU against patch scanning: on the CPU for f32, otherwise on the same GPU with the same rounding.
#[track_caller]
fn compare_on(gpu: &Gpu, net: &Arc<Net>, photo: &Photo, stride: usize, memory: usize) -> f64 {
    let expected = extractor(&reference(gpu), net, Method::Patchwise, WHOLE).extract(photo, stride).unwrap();
    let found = extractor(&Device::Gpu(gpu.clone()), net, Method::OnePass, memory).extract(photo, stride).unwrap();
    error(gpu, net, &found, &expected)
}

/// The device on which patch scanning computes the reference for `gpu`.
fn reference(gpu: &Gpu) -> Device {
    if gpu.precision == Precision::F32 { Device::Cpu } else { Device::Gpu(gpu.clone()) }
}

const WHOLE: usize = 1 << 30;

fn net(text: &str) -> Arc<Net> {
    Arc::new(Net::new(Spec::parse(text, "test").unwrap_or_else(|e| panic!("{e}\n{text}"))).unwrap())
}

fn shipped(name: &str) -> Arc<Net> {
    Arc::new(Net::load(format!("{}/nets/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap())
}

#[test]
fn anet_at_every_legal_stride_and_others() {
    let net = shipped("anet.toml");
    let photo = noise(131, 118, 3);
    for stride in [4, 8, 12, 24, 6, 7] {
        let error = compare(&net, &photo, stride, WHOLE);
        assert!(error <= 1e-5, "stride {stride}: {error}");
    }
}

#[test]
fn one_patch_one_row_and_one_column_of_patches() {
    let net = shipped("anet_deepid2.toml");
    for (width, height) in [(63, 63), (120, 63), (63, 101), (66, 66)] {
        let photo = noise(width, height, 5);
        let error = compare(&net, &photo, 4, WHOLE);
        assert!(error <= 1e-5, "{width} x {height}: {error}");
        let error = compare_on(&emulator(false, 5, Precision::F32), &net, &photo, 4, WHOLE);
        assert!(error <= 1e-5, "{width} x {height} on a GPU: {error}");
    }
}

#[test]
fn an_image_done_in_pieces_is_the_same() {
    let net = shipped("anet_deepid2.toml");
    let photo = noise(150, 139, 9);
    let extract = |memory: usize| {
        let mut extractor = extractor(&Device::Cpu, &net, Method::OnePass, memory);
        let plan = extractor.plan([photo.height, photo.width], 8).unwrap().unwrap();
        (plan.outline.patches, extractor.extract(&photo, 8).unwrap())
    };
    let (whole, expected) = extract(WHOLE);
    assert_eq!(whole, expected.patches);
    for memory in [1 << 21, 1 << 19, 1] {
        let (piece, found) = extract(memory);
        assert!(piece[0] * piece[1] < whole[0] * whole[1]);
        let error = found.error(&expected);
        assert!(error <= 1e-5, "pieces of {piece:?}: {error}");
    }
    assert_eq!(extract(1).0, [1, 1]);
}

#[test]
fn interweaved_maps_as_in_the_paper() {
    for (name, strides) in [("anet.toml", [4, 8, 12, 20]), ("anet_deepid2.toml", [4, 8, 16, 24])] {
        let net = shipped(name);
        let mut maps = extractor(&Device::Cpu, &net, Method::Maps, WHOLE);
        let mut scanner = extractor(&Device::Cpu, &net, Method::Patchwise, WHOLE);
        let photo = noise(141, 122, 6);
        for stride in strides {
            let (expected, found) = (scanner.extract(&photo, stride).unwrap(), maps.extract(&photo, stride).unwrap());
            assert_eq!(found.patches, expected.patches);
            let error = found.error(&expected);
            assert!(error <= 1e-5, "{name}, stride {stride}: {error}");
        }
        let error = maps.extract(&photo, 6).unwrap_err().to_string();
        assert!(error.contains("multiple of the trunk's"), "{error}");
    }
    let refused = |text: &str| {
        let net = net(text);
        let parameters = net.initial_parameters(1);
        let options = ExtractorOptions { method: Method::Maps, ..ExtractorOptions::default() };
        let parameters = Parameters::on(&Device::Cpu, &net, parameters).unwrap();
        Extractor::new(net, &parameters, options).err().expect("a refusal").to_string()
    };
    let local = "type = \"local_conv\"\nfilters = 2\nkernel = 3\ngrid = 3\nwindow = \"halo\"";
    let head = "name = \"n\"\ninput = [3, 14, 14]\n[[layer]]\nname = \"a\"\n";
    let error = refused(&format!("{head}{local}\n"));
    assert!(error.contains("layer a: cannot be interweaved as maps: the net has 1 local layers"), "{error}");
    let error = refused(&format!(
        "{head}type = \"conv\"\nfilters = 2\nkernel = 3\npad = 1\n[[layer]]\nname = \"b\"\n{local}\n[[layer]]\nname = \"c\"\n{}",
        local.replace("kernel = 3", "kernel = 1")
    ));
    assert!(error.contains("layer a: cannot be interweaved as maps: a trunk is made of unpadded"), "{error}");
}

/// Everything handed on, and whether it came in more than one part.
fn handed(extract: impl FnOnce(weft::interweave::Put<'_>) -> weft::Result<()>) -> (Vec<f32>, bool) {
    let (mut values, mut parts) = (Vec::new(), 0);
    extract(&mut |features| {
        values.extend_from_slice(features);
        parts += 1;
        Ok(())
    })
    .unwrap();
    (values, parts > 1)
}

/// In bands of any height: equals one pass over the whole image.
#[test]
fn bands_of_an_image_are_the_whole_image() {
    let net = net(SMALL);
    let gpu = Device::Gpu(emulator(false, 3, Precision::F32));
    let photo = noise(47, 59, 8);
    for stride in [4, 6] {
        let whole = extractor(&Device::Cpu, &net, Method::OnePass, WHOLE).extract(&photo, stride).unwrap();
        let run = |what: &str, device: &Device, method: Method, memory: usize| {
            let mut extractor = extractor(device, &net, method, memory);
            let (values, parts) = handed(|put| extractor.extract_into(&photo, stride, put));
            let found = weft::interweave::Features { values, ..whole.clone() };
            let error = found.error(&whole);
            assert!(error <= 1e-5, "{what}, stride {stride}: {error}");
            parts
        };
        run("patch scanning", &Device::Cpu, Method::Patchwise, WHOLE);
        for memory in [1 << 13, 1 << 16, 1 << 30] {
            let in_parts = memory < 1 << 30;
            for (what, device, method) in [
                ("one pass", &Device::Cpu, Method::OnePass),
                ("maps", &Device::Cpu, Method::Maps),
                ("one pass on a GPU", &gpu, Method::OnePass),
            ] {
                assert!(run(what, device, method, memory) == in_parts, "{what} in {memory} bytes");
            }
            run("maps on a GPU", &gpu, Method::Maps, memory);
        }
    }
}

/// A sink that fails aborts the pass with its error.
#[test]
fn what_cannot_be_handed_on_ends_the_pass() {
    let net = net(SMALL);
    let mut pass = extractor(&Device::Cpu, &net, Method::OnePass, 1);
    let mut parts = 0;
    let error = pass.extract_into(&noise(40, 40, 8), 2, &mut |_| {
        parts += 1;
        Err(weft::Error::new("disk", "is full"))
    });
    assert_eq!((error.unwrap_err().to_string().as_str(), parts), ("disk: is full", 1));
}

/// The numbers of an outline equal those of the tables.
#[test]
fn an_outline_counts_what_a_plan_lists() {
    for case in 0..60 {
        let net = net(&random(case));
        let mut rng = Rng::new(case, 6);
        let (patches, stride) = ([1 + rng.below(9), 1 + rng.below(9)], 1 + rng.below(9));
        let plan = Plan::new(&net, patches, stride).unwrap();
        let outline = Outline::new(&net, patches, stride).unwrap();
        for (value, maps) in plan.values.iter().enumerate() {
            let pixels: usize = maps.maps.iter().map(|map| map.rows * map.columns).sum();
            assert_eq!(outline.pixels(value), pixels as u128, "case {case}, value {value}");
            assert_eq!(pixels * maps.channels, maps.range.len(), "case {case}, value {value}");
        }
        assert!(outline.bytes() >= plan.bytes() as u128, "case {case}");
    }
}

/// The paper's maps on a GPU against patch scanning: on the CPU for f32, otherwise on the same GPU with the same rounding.
#[track_caller]
fn compare_maps_on(gpu: &Gpu, net: &Arc<Net>, photo: &Photo, stride: usize, memory: usize) -> f64 {
    let expected = extractor(&reference(gpu), net, Method::Patchwise, WHOLE).extract(photo, stride).unwrap();
    let mut maps = extractor(&Device::Gpu(gpu.clone()), net, Method::Maps, memory);
    let error = error(gpu, net, &maps.extract(photo, stride).unwrap(), &expected);
    // Again: as a graph, over memory that has been used.
    let again = maps.extract(photo, stride).unwrap().error(&expected);
    assert!(again == error, "{error}, then {again}");
    println!("{gpu:?}, {}, stride {stride}: {error:.1e}", net.spec.name);
    error
}

/// A small version of ANet: two trunk layers, a padded rectangle of patches, layers between the local ones, two after them.
const SMALL: &str = r#"
    name = "small"
    input = [3, 22, 18]
    layer = [
        { name = "c1", type = "conv", filters = 5, kernel = 3, activation = "relu" },
        { name = "p1", type = "max_pool", kernel = 2 },
        { name = "c2", type = "local_conv", filters = 8, kernel = [2, 3], grid = 3, window = "halo" },
        { name = "r2", type = "relu" },
        { name = "p2", type = "avg_pool", kernel = [1, 2] },
        { name = "d2", type = "dropout", rate = 0.5 },
        { name = "c3", type = "local_conv", filters = 6, kernel = [2, 1], grid = 2, span = 2, window = "valid" },
        { name = "fc", type = "linear", outputs = 10, activation = "relu" },
        { name = "out", type = "linear", outputs = 7 },
    ]
"#;

#[test]
fn interweaved_maps_on_a_gpu() {
    let gpu = emulator(false, 3, Precision::F32);
    for (name, photo, strides) in
        [("anet_deepid2.toml", noise(84, 75, 6), &[4, 8, 12][..]), ("anet.toml", noise(101, 96, 6), &[4, 8][..])]
    {
        let net = shipped(name);
        for &stride in strides {
            let error = compare_maps_on(&gpu, &net, &photo, stride, WHOLE);
            assert!(error <= 1e-5, "{name}, stride {stride}: {error}");
        }
    }
    let net = shipped("anet_deepid2.toml");
    let mut maps = extractor(&Device::Gpu(gpu), &net, Method::Maps, WHOLE);
    let error = maps.extract(&noise(70, 70, 1), 6).unwrap_err().to_string();
    assert!(error.contains("multiple of the trunk's"), "{error}");
}

#[test]
fn interweaved_maps_on_a_gpu_within_bounds_and_in_pieces() {
    let small = net(SMALL);
    let convolutional = Arc::new(Net::new(small.spec.clone().up_to("c3").unwrap()).unwrap());
    for net in [&small, &convolutional] {
        for (stride, size) in [(2, [29, 31]), (4, [33, 41]), (6, [22, 18])] {
            let photo = noise(size[1], size[0], 2);
            for (checked, memory) in [(true, WHOLE), (false, WHOLE), (false, 1 << 15), (false, 1)] {
                let error = compare_maps_on(&emulator(checked, 5, Precision::F32), net, &photo, stride, memory);
                assert!(error <= 1e-5, "stride {stride}, checked {checked}, memory {memory}: {error}");
            }
            let gpu = Gpu { convolution: Convolution::Im2col, ..emulator(true, 6, Precision::F32) };
            let error = compare_maps_on(&gpu, net, &photo, stride, WHOLE);
            assert!(error <= 1e-5, "stride {stride}, im2col: {error}");
        }
    }
}

#[test]
fn interweaved_maps_on_a_gpu_in_other_precisions() {
    let photo = noise(79, 71, 4);
    for precision in [Precision::Tf32, Precision::F16, Precision::Bf16] {
        compare_maps_on(&emulator(false, 1, precision), &shipped("anet_deepid2.toml"), &photo, 8, WHOLE);
    }
    for precision in [Precision::F16, Precision::Bf16] {
        compare_maps_on(&emulator(true, 1, precision), &net(SMALL), &noise(25, 30, 4), 2, WHOLE);
    }
}

#[test]
fn what_has_no_meaning_is_refused() {
    let anet = shipped("anet.toml");
    let mut interweaver = extractor(&Device::Cpu, &anet, Method::OnePass, WHOLE);
    let gpu = Device::Gpu(emulator(false, 1, Precision::F32));
    let mut on_gpu = extractor(&gpu, &anet, Method::OnePass, WHOLE);
    for (photo, stride, expected) in [(noise(87, 200, 1), 8, "smaller than a patch"), (noise(100, 100, 1), 0, "stride")]
    {
        let error = interweaver.extract(&photo, stride).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        let error = on_gpu.extract(&photo, stride).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let loss = Spec::load(concat!(env!("CARGO_MANIFEST_DIR"), "/nets/anet.toml")).unwrap();
    let loss = loss.with([weft::net::LayerSpec::new("loss", "softmax_cross_entropy", "").unwrap()]);
    let loss = Arc::new(Net::new(loss).unwrap());
    let on_cpu = Parameters::on(&Device::Cpu, &loss, loss.initial_parameters(1)).unwrap();
    let options = ExtractorOptions { method: Method::Maps, ..ExtractorOptions::default() };
    let error = Extractor::new(loss.clone(), &on_cpu, options).err().unwrap();
    assert!(error.to_string().contains("loss"), "{error}");
    let mut interweaver = extractor(&Device::Cpu, &loss, Method::OnePass, WHOLE);
    let error = interweaver.extract(&noise(100, 100, 1), 8).unwrap_err().to_string();
    assert!(error.contains("loss"), "{error}");
}

/// Writes a random net with every kind of layer; sizes are found by trial.
struct Writer {
    rng: Rng,
    text: String,
    layers: usize,
}

impl Writer {
    fn layer(&mut self, kind: &str, keys: &str) -> String {
        self.layers += 1;
        let name = format!("l{}", self.layers);
        self.text += &format!("[[layer]]\nname = \"{name}\"\ntype = \"{kind}\"\n{keys}\n");
        name
    }

    fn binds(&self) -> bool {
        Spec::parse(&self.text, "test").and_then(Net::new).is_ok()
    }

    /// Adds a layer if the net still binds with it.
    fn attempt(&mut self, kind: &str, keys: &str) -> bool {
        let before = (self.text.len(), self.layers);
        self.layer(kind, keys);
        let bound = self.binds();
        if !bound {
            self.text.truncate(before.0);
            self.layers = before.1;
        }
        bound
    }

    fn pick<'a>(&mut self, from: &[&'a str]) -> &'a str {
        from[self.rng.below(from.len())]
    }

    fn between(&mut self, low: usize, high: usize) -> usize {
        low + self.rng.below(high - low + 1)
    }
}

/// A random net for patches of 17 to 44 pixels whose features differ between patches: random ReLUs may pass nothing.
fn random(case: u64) -> String {
    const ATTEMPTS: u64 = 20;
    let seeds = (0..ATTEMPTS).map(|attempt| case + (attempt << 32));
    seeds.map(random_net).find(|text| tells_patches_apart(&net(text))).expect("a net that is alive")
}

fn tells_patches_apart(net: &Arc<Net>) -> bool {
    let mut scanner = extractor(&Device::Cpu, net, Method::Patchwise, WHOLE);
    let photo = noise(net.spec.input.w + 5, net.spec.input.h + 4, 1);
    is_alive(&scanner.extract(&photo, 2).unwrap())
}

/// A random net, whose output may be constant.
fn random_net(seed: u64) -> String {
    let mut w = Writer { rng: Rng::new(seed, 4), text: String::new(), layers: 0 };
    let (height, width) = (w.between(17, 44), w.between(17, 44));
    w.text = format!("name = \"random\"\ninput = [3, {height}, {width}]\n");
    let activation = |w: &mut Writer| w.pick(&["", "activation = \"relu\"", "activation = \"sigmoid\""]).to_string();
    // The trunk, sometimes padded.
    for _ in 0..w.between(1, 2) {
        let (filters, kernel, stride, pad) =
            (2 * w.between(1, 4), w.between(1, 4), w.between(1, 2), w.between(0, 3) / 3);
        let (groups, act) = (w.between(0, 1), activation(&mut w));
        let groups = if groups == 1 && w.layers > 0 { 2 } else { 1 };
        w.attempt(
            "conv",
            &format!(
                "filters = {filters}\nkernel = {kernel}\nstride = {stride}\npad = {pad}\ngroups = {groups}\n{act}"
            ),
        );
        let (kind, kernel, stride) = (w.pick(&["max_pool", "avg_pool"]), w.between(2, 3), w.between(1, 2));
        let (pad, ceil) = (w.between(0, 1), w.between(0, 1) == 1);
        w.attempt(kind, &format!("kernel = {kernel}\nstride = {stride}\npad = {pad}\nceil = {ceil}"));
    }
    if w.between(0, 2) == 0 {
        w.attempt("lrn", "size = 3\nalpha = 0.1");
    }
    // Local layers with any grid that fits, pooling that may cross their cells.
    for _ in 0..w.between(1, 3) {
        for _ in 0..40 {
            let (grid, span, kernel) = (w.between(1, 6), w.between(1, 3), w.between(1, 3));
            let (filters, window, act) = (w.between(1, 6), w.pick(&["halo", "valid"]), activation(&mut w));
            let keys = format!(
                "filters = {filters}\nkernel = {kernel}\ngrid = {grid}\nspan = {span}\nwindow = \"{window}\"\n{act}"
            );
            if w.attempt("local_conv", &keys) {
                break;
            }
        }
        let (kind, kernel, stride) = (w.pick(&["max_pool", "avg_pool"]), w.between(1, 3), w.between(1, 2));
        w.attempt(kind, &format!("kernel = {kernel}\nstride = {stride}"));
    }
    match w.between(0, 4) {
        0 => {
            w.attempt("global_pool", "mode = \"avg\"");
        }
        1 => {
            w.attempt("softmax", "");
        }
        2 => {
            // Two branches from one value.
            let from = format!("from = [\"l{}\"]", w.layers);
            let a = w.layer("conv", &format!("{from}\nfilters = 3\nkernel = 1\nactivation = \"relu\""));
            let b = w.layer("conv", &format!("{from}\nfilters = 2\nkernel = 3\npad = 1"));
            w.layer("concat", &format!("from = [\"{a}\", \"{b}\"]"));
            w.layer("linear", "outputs = 5");
        }
        _ => {
            w.layer("dropout", "rate = 0.5");
            w.layer("linear", "outputs = 7\nactivation = \"relu\"");
            w.layer("linear", "outputs = 3");
        }
    }
    w.text
}

/// `WEFT_TEST_SEED` shifts the seeds of the random cases.
fn seed() -> u64 {
    std::env::var("WEFT_TEST_SEED").ok().map_or(0, |s| s.parse().expect("WEFT_TEST_SEED is a number"))
}

/// The net of a case from the shared list of cases, for patches of three channels, if it accepts them.
fn of_case(case: &Case) -> Option<Arc<Net>> {
    let [n, _, h, w] = case.input;
    Spec::parse(&cases::toml([n, 3, h, w], case.layers), case.name).and_then(Net::new).ok().map(Arc::new)
}

#[test]
fn every_operation_is_interweaved_or_refused_by_name() {
    let (mut compared, mut constant, mut refused) = (Vec::new(), Vec::new(), 0);
    for case in cases::all() {
        let Some(net) = of_case(case) else { continue };
        let photo = noise(net.spec.input.w + 7, net.spec.input.h + 5, 2);
        if net.layers.iter().any(|layer| layer.op.target().is_some()) {
            let mut pass = extractor(&Device::Cpu, &net, Method::OnePass, WHOLE);
            let error = pass.extract(&photo, 2).expect_err(case.name).to_string();
            assert!(error.contains("loss"), "case {}: {error}", case.name);
            refused += 1;
        } else if !tells_patches_apart(&net) {
            constant.push(case.name);
        } else {
            let error = compare(&net, &photo, 2, WHOLE);
            assert!(error <= 1e-5, "case {}: {error}", case.name);
            compared.push(case);
        }
    }
    println!("{} cases compared, {refused} refused, without a say: {constant:?}", compared.len());
    assert!(compared.len() > 80 && refused > 5 && constant.len() < 5, "{constant:?}");
}

#[test]
fn random_nets_sizes_and_strides() {
    for case in 0..120 {
        let case = 1000 * seed() + case;
        let text = random(case);
        let net = net(&text);
        let mut rng = Rng::new(case, 5);
        let input = net.spec.input;
        let photo = noise(input.w + rng.below(40), input.h + rng.below(40), case);
        let stride = 1 + rng.below(9);
        let error = compare(&net, &photo, stride, WHOLE);
        assert!(error <= 1e-5, "case {case}: {} x {}, stride {stride}: {error}\n{text}", photo.width, photo.height);
    }
}

#[test]
fn random_nets_sizes_and_strides_on_a_gpu() {
    for case in 0..48 {
        let case = 1000 * seed() + case;
        let text = random(case);
        let net = net(&text);
        let mut rng = Rng::new(case, 5);
        let input = net.spec.input;
        let photo = noise(input.w + rng.below(30), input.h + rng.below(30), case);
        let stride = 2 + rng.below(8);
        let memory = if case.is_multiple_of(5) { 1 << 19 } else { WHOLE };
        let checked = case.is_multiple_of(8);
        let error = compare_on(&emulator(checked, case, Precision::F32), &net, &photo, stride, memory);
        assert!(error <= 1e-5, "case {case}: {} x {}, stride {stride}: {error}\n{text}", photo.width, photo.height);
    }
}

#[test]
fn other_precisions_on_a_gpu_interweave_too() {
    let net = shipped("anet_deepid2.toml");
    let photo = noise(79, 87, 4);
    for precision in [Precision::Tf32, Precision::F16, Precision::Bf16] {
        compare_on(&emulator(false, 1, precision), &net, &photo, 8, WHOLE);
    }
}

/// Behind it patches share nothing: in the trunk, where a stride leaves places unread, and behind cells.
#[test]
fn an_operation_on_whole_maps_may_lie_between_others() {
    let layers = "
        a: conv filters=6 kernel=3 activation='sigmoid'
        b: group_norm groups=2
        c: max_pool kernel=2 stride=3
        d: local_conv filters=5 kernel=2 grid=2 window='valid'
        e: group_norm groups=1
        f: linear outputs=4";
    let net = net(&cases::toml([1, 3, 14, 13], layers));
    // More patches than a tile has pixels.
    let photo = noise(13 + 21, 14 + 19, 8);
    let error = compare(&net, &photo, 2, WHOLE);
    assert!(error <= 1e-5, "{error}");
    for (checked, memory) in [(false, WHOLE), (true, 1 << 15)] {
        let error = compare_on(&emulator(checked, 3, Precision::F32), &net, &photo, 2, memory);
        assert!(error <= 1e-5, "on a GPU: {error}");
    }
    compare_on(&emulator(false, 3, Precision::F16), &net, &photo, 2, WHOLE);

    let gpu = Device::Gpu(emulator(false, 4, Precision::F32));
    let size = [20, 22];
    let mut rng = Rng::new(3, 4);
    let pixels: Vec<f32> = (0..2 * size[0] * size[1] * 3).map(|_| rng.normal()).collect();
    let [found, expected] = [(&gpu, Method::OnePass), (&Device::Cpu, Method::Patchwise)].map(|(device, method)| {
        extractor(device, &net, method, WHOLE).extract_normalised(&pixels, size, 3, 2).unwrap()
    });
    for (found, expected) in found.iter().zip(&expected) {
        assert!(is_alive(expected));
        let error = found.error(expected);
        assert!(error <= 1e-5, "a batch: {error}");
    }
}

#[test]
fn a_batch_of_images_on_a_gpu_is_its_images_one_by_one() {
    let net = shipped("anet_deepid2.toml");
    let gpu = emulator(false, 2, Precision::F32);
    let mut interweaver = extractor(&Device::Gpu(gpu), &net, Method::OnePass, WHOLE);
    let size = [71, 79];
    let image = size[0] * size[1] * 3;
    let mut rng = Rng::new(3, 3);
    let pixels: Vec<f32> = (0..3 * image).map(|_| rng.normal()).collect();
    let together = interweaver.extract_normalised(&pixels, size, 8, 3).unwrap();
    for (found, pixels) in together.iter().zip(pixels.chunks_exact(image)) {
        let alone = interweaver.extract_normalised(pixels, size, 8, 1).unwrap();
        assert!(is_alive(&alone[0]));
        let error = found.error(&alone[0]);
        assert!(error <= 1e-5, "{error}");
    }
}

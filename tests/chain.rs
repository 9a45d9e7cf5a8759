//! The cascade as one program on a GPU, against the same cascade on the CPU, with small nets on the emulator.

mod support;

use std::sync::Arc;
use support::Folder;
use weft::data::photo::Photo;
use weft::data::resample::Resampler;
use weft::device::Device;
use weft::face::{Face, Model};
use weft::net::{Net, Parameters, Purpose, Session, Spec};
use weft::rng::Rng;
use weft::trace;
use weft::weights::Dtype;

const NET: &str = r#"
    name = "small"
    input = [3, 29, 29]
    [[layer]]
    name = "c1"
    type = "conv"
    filters = 8
    kernel = 5
    stride = 2
    activation = "relu"
    [[layer]]
    name = "n1"
    type = "lrn"
    alpha = 0.01
    size = 3
    [[layer]]
    name = "p1"
    type = "max_pool"
    kernel = 3
    stride = 2
    [[layer]]
    name = "c2"
    type = "conv"
    filters = 8
    kernel = 3
    pad = 1
    activation = "relu"
    [[layer]]
    name = "head"
    type = "conv"
    filters = 3
    kernel = 1
"#;

const LOCATE: &str = r#"
[locate]
threshold = 0.01
head = 3.0
[locate.boxes]
face = { width = 1.15, height = 1.5, shift = [0.0, 0.0] }
celeba = { width = 1.43, height = 1.98, shift = [-0.01, 0.0] }
inner = { width = 1.0, height = 1.0, shift = [0.0, 0.0] }
[locate.lnet_o]
sides = [35, 50, 70]
width = 14.0
shift = [-0.1, 0.2]
floor = FLOOR_O
spread = [0.5, 0.3]
peaks = 5
response = { net = "lnet_o.toml", weights = "lnet_o.safetensors", layer = "head", channel = 1 }
[locate.lnet_s]
sides = [28, 36, 45, 56]
width = 13.0
shift = [0.05, -0.1]
floor = FLOOR_S
spread = [0.5, 0.4]
peaks = 3
response = { net = "lnet_s.toml", weights = "lnet_s.safetensors", layer = "head" }
[anet]"#;

/// A bundle of two small nets with random weights.
fn bundle() -> Folder {
    let folder = Folder::new();
    folder.bundle("m");
    let mut locate = LOCATE.to_string();
    for (name, floor, seed) in [("lnet_o", "FLOOR_O", 3), ("lnet_s", "FLOOR_S", 4)] {
        let net = Net::new(Spec::parse(NET, "net").unwrap()).unwrap();
        locate = locate.replace(floor, &floor_of(&net, seed, (name == "lnet_o").then_some(1)).to_string());
        folder.write(&format!("m/{name}.toml"), NET);
        let file = folder.path(&format!("m/{name}.safetensors"));
        net.save_parameters(file, &net.initial_parameters(seed), Dtype::F32, &[]).unwrap();
    }
    let shipped = std::fs::read_to_string(folder.path("m/model.toml")).unwrap();
    let (head, tail) = (shipped.find("[locate]").unwrap(), shipped.find("[anet]").unwrap());
    folder.write("m/model.toml", format!("{}{locate}{}", &shipped[..head], &shipped[tail + 6..]));
    folder
}

/// What a third of the responses to a photo exceed.
fn floor_of(net: &Net, seed: u64, channel: Option<usize>) -> f32 {
    let photo = photo(80, 80, 1);
    let net = Arc::new(net.at_size(80, 80).unwrap());
    let parameters = Parameters::on(&Device::Cpu, &net, net.initial_parameters(seed)).unwrap();
    let mut session = Session::new(net.clone(), &parameters, 1, Purpose::Inference).unwrap();
    let normalise = net.spec.normalise;
    Resampler::default().sample(&photo, photo.bounds(), 80, 80, false, normalise, session.input());
    let place = |place: &[f32]| channel.map_or_else(|| place.iter().sum::<f32>() / 3.0, |channel| place[channel]);
    let mut responses: Vec<f32> = session.infer().unwrap().chunks_exact(3).map(place).collect();
    responses.sort_by(f32::total_cmp);
    responses[responses.len() * 2 / 3]
}

/// Blurred noise, in which a net with random weights responds in places.
fn photo(width: usize, height: usize, seed: u64) -> Photo {
    let mut rng = Rng::new(seed, 0);
    let coarse = Photo::from_fn(width.div_ceil(6), height.div_ceil(6), |_, _| [0; 3].map(|_: u8| rng.below(256) as u8));
    coarse.resized(width, height)
}

fn model(folder: &Folder, device: &str) -> Model {
    Model::load(folder.path("m"), &Device::open(device).unwrap()).unwrap()
}

#[track_caller]
fn assert_same(found: &[Face], wanted: &[Face], what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}: {found:?} instead of {wanted:?}");
    for (found, wanted) in found.iter().zip(wanted) {
        let numbers =
            |face: &Face| [face.core.x, face.core.y, face.core.width, face.head.x, face.head.y, face.head.width];
        for (a, b) in numbers(found).into_iter().zip(numbers(wanted)) {
            assert!((a - b).abs() < 1e-2, "{what}: {found:?} instead of {wanted:?}");
        }
        assert!(
            (found.score - wanted.score).abs() < 1e-4 * wanted.score,
            "{what}: {} and {}",
            found.score,
            wanted.score
        );
        for (found, wanted) in found.maps.iter().zip(&wanted.maps) {
            assert_eq!((found.height, found.width), (wanted.height, wanted.width), "{what}");
            assert!((found.origin.0 - wanted.origin.0).abs() < 1e-2 && (found.step.1 - wanted.step.1).abs() < 1e-3);
            let error = found.values.iter().zip(&wanted.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(error < 1e-4, "{what}: a response is off by {error}");
        }
    }
}

#[test]
fn a_gpu_finds_the_faces_that_the_cpu_finds() {
    let folder = bundle();
    let (mut on_cpu, mut on_gpu) = (model(&folder, "cpu"), model(&folder, "simt"));
    let mut total = 0;
    // Upright, lying, a photo that is smaller than most windows, and the first size again.
    for (seed, (width, height)) in [(90, 70), (60, 100), (30, 28), (90, 70), (90, 70)].into_iter().enumerate() {
        let photo = photo(width, height, seed as u64);
        for least in [0.0, 0.03] {
            let wanted = on_cpu.detect(&photo, least).unwrap();
            let found = on_gpu.detect(&photo, least).unwrap();
            assert_same(&found, &wanted, &format!("{width} x {height}, from {least}"));
            total += wanted.len();
        }
    }
    assert!(total >= 10, "only {total} faces to compare");
}

#[test]
fn every_access_of_the_chain_is_in_bounds_and_ordered() {
    let folder = bundle();
    let photo = photo(60, 50, 9);
    let wanted = model(&folder, "cpu").detect(&photo, 0.0).unwrap();
    assert!(!wanted.is_empty());
    assert_same(&model(&folder, "simt:checked").detect(&photo, 0.0).unwrap(), &wanted, "checked");
}

/// Few large passes: what a photo takes, counted.
#[test]
fn a_photo_is_one_upload_one_program_and_one_download() {
    let folder = bundle();
    // More levels than the shipped model has.
    let text = std::fs::read_to_string(folder.path("m/model.toml")).unwrap();
    let text = text
        .replace("[35, 50, 70]", "[29, 32, 35, 38, 41, 44, 47, 50]")
        .replace("[28, 36, 45, 56]", "[24, 28, 32, 38, 46, 56]");
    folder.write("m/model.toml", text);
    let mut model = model(&folder, "simt");
    let photo = photo(64, 48, 5);
    model.detect(&photo, 0.0).unwrap();
    let (found, trace) = trace::record(|| model.detect(&photo, 0.0));
    found.unwrap();
    let counts = trace.counts;
    assert_eq!((counts.passes, counts.uploads, counts.downloads), (10, 1, 1), "{counts:?}");
    assert!(counts.launches <= 250, "{counts:?}");
    // Bytes of pixels, and a few records.
    assert!(counts.uploaded_bytes < 64 * 48 * 3 + 4096, "{counts:?}");
}

/// Weights that are not finite are an error, not a photo without a face.
#[test]
fn a_response_that_is_not_finite_is_an_error_on_every_device() {
    for which in ["lnet_o", "lnet_s"] {
        let folder = bundle();
        let net = Net::new(Spec::parse(NET, "net").unwrap()).unwrap();
        let mut values = net.initial_parameters(3);
        values.iter_mut().for_each(|value| *value = f32::NAN);
        net.save_parameters(folder.path(&format!("m/{which}.safetensors")), &values, Dtype::F32, &[]).unwrap();
        for device in ["cpu", "simt"] {
            let error = model(&folder, device).detect(&photo(60, 50, 9), 0.0).unwrap_err().to_string();
            assert!(
                error.contains(&format!("{which}.safetensors")) && error.contains("not finite"),
                "{device}: {error}"
            );
        }
    }
}

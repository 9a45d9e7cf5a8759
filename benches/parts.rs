//! Benchmarks of the parts of the interweaved operation and of patch scanning: `cargo bench`.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use weft::data::photo::Photo;
use weft::device::Device;
use weft::interweave::{Extractor, ExtractorOptions, Method, Plan};
use weft::net::{Net, Parameters, Purpose, Session};
use weft::ops::{Mode, Targets};
use weft::rng::Rng;

fn anet() -> Arc<Net> {
    Arc::new(Net::load(concat!(env!("CARGO_MANIFEST_DIR"), "/nets/anet.toml")).unwrap())
}

fn noise(side: usize) -> Photo {
    let mut rng = Rng::new(1, 0);
    Photo::from_fn(side, side, |_, _| rng.word().to_le_bytes()[..3].try_into().unwrap())
}

fn plans(c: &mut Criterion) {
    let net = anet();
    for patches in [27, 110] {
        c.bench_function(&format!("plan of {patches} x {patches} patches"), |b| {
            b.iter(|| Plan::new(&net, black_box([patches; 2]), 8).unwrap());
        });
    }
}

fn extractor(method: Method) -> Extractor {
    let net = anet();
    let options = ExtractorOptions { method, ..ExtractorOptions::default() };
    Extractor::new(net.clone(), &parameters(&net), options).unwrap()
}

fn parameters(net: &Net) -> Parameters {
    Parameters::on(&Device::Cpu, net, net.initial_parameters(1)).unwrap()
}

fn dense(c: &mut Criterion) {
    let photo = noise(300);
    let mut extractor = extractor(Method::OnePass);
    for stride in [24, 8] {
        c.bench_function(&format!("300 x 300 in one pass, stride {stride}"), |b| {
            b.iter(|| extractor.extract(black_box(&photo), stride).unwrap());
        });
    }
}

fn patchwise(c: &mut Criterion) {
    let mut scanner = extractor(Method::Patchwise);
    let photo = noise(88 + 7 * 4);
    c.bench_function("64 patches one by one", |b| b.iter(|| scanner.extract(black_box(&photo), 4).unwrap()));
}

fn step(c: &mut Criterion) {
    let net = anet();
    let parameters = parameters(&net);
    let mut session = Session::new(net, &parameters, 64, Purpose::Inference).unwrap();
    let mut rng = Rng::new(1, 0);
    session.input().fill_with(|| rng.normal());
    c.bench_function("ANet forward, batch 64", |b| {
        b.iter(|| session.forward(Mode::Inference, Targets::default()).unwrap());
    });
}

criterion_group! {
    name = parts;
    config = Criterion::default().sample_size(20);
    targets = plans, dense, patchwise, step
}
criterion_main!(parts);

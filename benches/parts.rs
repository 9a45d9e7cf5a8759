//! The parts of the interweaved operation and of patch scanning: `cargo bench`.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use std::sync::Arc;
use weft::data::photo::Photo;
use weft::data::resample::Normalise;
use weft::interweave::{Interweaver, PatchScanner, Plan};
use weft::net::{Net, Purpose, Session};
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

fn dense(c: &mut Criterion) {
    let net = anet();
    let photo = noise(300);
    let mut interweaver = Interweaver::new(net.clone(), net.initial_parameters(1), Normalise::default()).unwrap();
    for stride in [24, 8] {
        c.bench_function(&format!("300 x 300 in one pass, stride {stride}"), |b| {
            b.iter(|| interweaver.extract(black_box(&photo), stride).unwrap());
        });
    }
}

fn patchwise(c: &mut Criterion) {
    let net = anet();
    let mut scanner = PatchScanner::new(net.clone(), net.initial_parameters(1), Normalise::default()).unwrap();
    let photo = noise(88 + 7 * 4);
    c.bench_function("64 patches one by one", |b| b.iter(|| scanner.extract(black_box(&photo), 4).unwrap()));
}

fn step(c: &mut Criterion) {
    let net = anet();
    let parameters = net.initial_parameters(1);
    let mut session = Session::new(net, 64, Purpose::Inference).unwrap();
    let mut rng = Rng::new(1, 0);
    session.input().fill_with(|| rng.normal());
    c.bench_function("ANet forward, batch 64", |b| {
        b.iter(|| session.forward(&parameters, Mode::Inference, Targets::default()).unwrap());
    });
}

criterion_group! {
    name = parts;
    config = Criterion::default().sample_size(20);
    targets = plans, dense, patchwise, step
}
criterion_main!(parts);

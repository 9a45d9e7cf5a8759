//! `weft tune`: every candidate of a net is checked, what is wrong is never chosen, and what was chosen is what plans take.

#[path = "support/altered.rs"]
mod altered;
mod support;

use altered::Altered;
use std::collections::BTreeSet;
use std::sync::Arc;
use support::Folder;
use weft::device::tuned::{self, Card};
use weft::device::{Cut, Device, Driver, Emulator, EmulatorOptions, Gpu, Launch, Peaks, Precision, Properties};
use weft::device::{ProductKey, Tile, Tuned};
use weft::net::{Net, Parameters, Purpose, Session, Spec};
use weft::tune::{self, Outcome, Tuner};

/// Sums that are long enough for splits, regions, a stride, an odd number of channels, and an activation that is not fused.
const NET: &str = "
name = 'net'
input = [5, 13, 13]
[[layer]]
name = 'c1'
type = 'conv'
filters = 64
kernel = 3
stride = 2
activation = 'relu'
[[layer]]
name = 'c2'
type = 'conv'
filters = 16
kernel = 3
pad = 1
activation = 'sigmoid'
[[layer]]
name = 'c3'
type = 'local_conv'
filters = 8
kernel = 3
grid = 2
window = 'halo'
[[layer]]
name = 'fc'
type = 'linear'
outputs = 10
";

fn net() -> Arc<Net> {
    Arc::new(Net::new(Spec::parse(NET, "net").unwrap()).unwrap())
}

fn emulator(precision: Precision) -> Gpu {
    Gpu { precision, ..Gpu::new(Arc::new(Emulator::new(EmulatorOptions { checked: false, seed: Some(5) }))) }
}

/// The emulator as a card on which launches take as long as `seconds` says, and one kernel does nothing or fails.
fn card(seconds: fn(&Launch) -> f64, broken: Option<(&'static str, bool)>) -> Gpu {
    let emulator = Emulator::new(EmulatorOptions::default());
    let peaks = Some(Peaks { f32: 67e12, tf32: 495e12, half: 989e12, memory: 3.35e12 });
    let card = Some(Properties { name: "card".into(), driver: "1".into(), peaks, ..emulator.properties().clone() });
    let altered = Altered { broken, card, seconds, ..Altered::new(emulator) };
    Gpu { precision: Precision::Bf16, ..Gpu::new(Arc::new(altered)) }
}

fn tune(gpu: &Gpu, net: &Net, n: usize, purpose: Purpose) -> Vec<Outcome> {
    let mut outcomes = Vec::new();
    let mut done = |outcome: Outcome| {
        outcomes.push(outcome);
        Ok(())
    };
    tune::layers(&mut Tuner::new(gpu, &[], &mut done), net, n, purpose).unwrap();
    outcomes
}

/// The launches with a product of a step of training, or of inference.
fn launches(gpu: &Gpu, n: usize, purpose: Purpose) -> Vec<Launch> {
    let net = net();
    let parameters = Parameters::on(&Device::Gpu(gpu.clone()), &net, net.initial_parameters(1)).unwrap();
    let session = Session::new(net, &parameters, n, purpose).unwrap();
    session.launches(purpose.is_backward()).concat().into_iter().filter(|launch| launch.product.is_some()).collect()
}

fn key(launch: &Launch) -> ProductKey {
    launch.product.as_ref().unwrap().key.clone()
}

/// A second for the first tile, less for those that come later; splits cost.
fn later_tiles_are_faster(launch: &Launch) -> f64 {
    let Some(product) = &launch.product else { return 0.01 };
    let tile = Tile::ALL.iter().position(|tile| *tile == product.cut.tile).unwrap();
    1.0 - 0.1 * tile as f64 + 0.01 * product.cut.splits as f64
}

#[test]
fn every_product_of_a_step_is_tried_in_all_tiles_and_splits_and_holds() {
    for precision in Precision::ALL {
        let gpu = emulator(precision);
        let outcomes = tune(&gpu, &net(), 2, Purpose::Training);
        let tried: BTreeSet<ProductKey> = outcomes.iter().map(|outcome| outcome.product.clone()).collect();
        let recorded: BTreeSet<ProductKey> = launches(&gpu, 2, Purpose::Training).iter().map(key).collect();
        assert_eq!(tried, recorded, "{precision}");
        // Of four layers, the first without the gradient of its input.
        assert_eq!((tried.len(), outcomes.len()), (11, 11));
        for outcome in &outcomes {
            let wrong: Vec<_> = outcome.wrong().collect();
            assert!(wrong.is_empty() && !outcome.is_reduced, "{precision}: {}: {wrong:?}", outcome.product);
            assert!(outcome.trials.iter().all(|trial| trial.seconds.is_none()) && outcome.fastest().is_none());
            let tiles: BTreeSet<Tile> = outcome.trials.iter().map(|trial| trial.cut.tile).collect();
            let has_all = precision.bytes() == 2 && outcome.product.wide;
            assert_eq!(tiles.len(), if has_all { 3 } else { 1 }, "{}", outcome.product);
            assert_eq!(outcome.trials[0].cut, outcome.model);
        }
        let splits = outcomes.iter().flat_map(|outcome| &outcome.trials).filter(|trial| trial.cut.splits > 1);
        assert!(splits.count() >= 2, "{precision}");
    }
}

#[test]
fn too_large_a_layer_is_made_smaller_on_the_emulator_with_the_same_filters() {
    let text = "
        name = 'net'\ninput = [64, 60, 60]
        [[layer]]\nname = 'c'\ntype = 'conv'\nfilters = 16\nkernel = 3\npad = 1";
    let net = Net::new(Spec::parse(text, "net").unwrap()).unwrap();
    let outcomes = tune(&emulator(Precision::Bf16), &net, 32, Purpose::Inference);
    let [c] = &outcomes[..] else { panic!("{outcomes:?}") };
    let [m, n, k] = c.product.size;
    assert!(c.is_reduced && (n, k) == (16, 576) && (200..300).contains(&m), "{}", c.product);
    assert!(c.wrong().count() == 0 && c.trials.len() >= 6, "{c:?}");
}

#[test]
fn the_fastest_is_kept_and_plans_take_it() {
    let gpu = card(later_tiles_are_faster, None);
    let outcomes = tune(&gpu, &net(), 2, Purpose::Training);
    let folder = Folder::new();
    let (path, card) = (folder.path("cache/tuned.json"), Card::new(gpu.driver.properties()));
    for outcome in &outcomes {
        tuned::add(&path, &card, &[outcome.record()]).unwrap();
    }
    let tuned = Tuned::load(&path, &card).unwrap();
    assert_eq!(tuned.len(), 11);
    let plain = launches(&gpu, 2, Purpose::Training);
    let gpu = Gpu { tuned: Some(Arc::new(tuned)), ..gpu };
    let chosen = launches(&gpu, 2, Purpose::Training);
    for (plain, launch) in plain.iter().zip(&chosen) {
        let (key, cut) = (key(launch), launch.product.as_ref().unwrap().cut);
        let outcome = outcomes.iter().find(|outcome| outcome.product == key).unwrap();
        // Whole packs have all tiles, of which the last is the fastest.
        let tile = if key.wide { Tile::Narrow } else { Tile::Middle };
        assert_eq!((cut, Some(cut)), (Cut { tile, splits: 1 }, outcome.record().choice), "{key}");
        assert_eq!(outcome.model, plain.product.as_ref().unwrap().cut, "{key}");
        assert_eq!(launch.kernel.contains("_256x32"), key.wide, "{}", launch.kernel);
    }
    assert!(chosen.iter().any(|launch| launch.kernel.contains("_256x32")));
    // Another driver, or other kernels: nothing is known.
    let other = Card { driver: "2".into(), ..card.clone() };
    assert!(Tuned::load(&path, &other).unwrap().is_empty());
    let other = Card { kernels: "other".into(), ..card };
    assert!(Tuned::load(&path, &other).unwrap().is_empty());
}

#[test]
fn a_wrong_kernel_is_named_and_never_chosen_though_it_is_the_fastest() {
    for refuses in [false, true] {
        let gpu = card(later_tiles_are_faster, Some(("conv_forward_256x32_bf16", refuses)));
        let outcomes = tune(&gpu, &net(), 2, Purpose::Inference);
        let c2 = outcomes.iter().find(|outcome| outcome.layer == "c2").unwrap();
        assert_eq!(c2.fastest().unwrap().cut, Cut { tile: Tile::Large, splits: 1 });
        for trial in &c2.trials {
            assert_eq!(trial.wrong.is_some(), trial.cut.tile == Tile::Narrow, "{trial:?}");
            assert_eq!(trial.seconds.is_some(), trial.wrong.is_none(), "{trial:?}");
        }
        let found = c2.wrong().next().unwrap().wrong.clone().unwrap();
        let said = if refuses { "an illegal memory access" } else { "infinitely many times the tolerance" };
        assert!(found.contains(said), "{found}");
        let record = c2.record();
        assert_eq!(record.wrong.len(), c2.wrong().count());

        // A layer that was not tuned avoids the tile, too: the model would take it for few filters.
        let untuned = |gpu: &Gpu| -> Vec<String> {
            let launches = launches(gpu, 300, Purpose::Inference);
            launches.into_iter().map(|launch| launch.kernel).filter(|name| name.starts_with("conv_forward")).collect()
        };
        let records: Vec<_> = outcomes.iter().map(Outcome::record).collect();
        let tuned = Gpu { tuned: Some(Arc::new(Tuned::new(&records))), ..gpu.clone() };
        assert!(untuned(&gpu).iter().any(|name| name.contains("256x32")), "{:?}", untuned(&gpu));
        assert!(untuned(&tuned).iter().all(|name| !name.contains("256x32")), "{:?}", untuned(&tuned));

        // What took a card down is not run again.
        let (mut again, healthy) = (Vec::new(), card(later_tiles_are_faster, None));
        let mut done = |outcome: Outcome| {
            again.push(outcome);
            Ok(())
        };
        tune::layers(&mut Tuner::new(&healthy, &records, &mut done), &net(), 2, Purpose::Inference).unwrap();
        let c2 = again.iter().find(|outcome| outcome.layer == "c2").unwrap();
        assert_eq!(c2.record(), record);
    }
}

#[test]
fn what_takes_a_card_down_is_known_before_the_error_and_passed_over_next_time() {
    let gpu = |broken, dies| {
        let emulator = Emulator::new(EmulatorOptions::default());
        let card = Some(Properties { name: "card".into(), ..emulator.properties().clone() });
        let altered = Altered { broken, card, dies, ..Altered::new(emulator) };
        Gpu { precision: Precision::Bf16, ..Gpu::new(Arc::new(altered)) }
    };
    let run = |gpu: &Gpu, known: &[tuned::Record]| {
        let mut records = Vec::new();
        let mut done = |outcome: Outcome| {
            records.push(outcome.record());
            Ok(())
        };
        let ended = tune::layers(&mut Tuner::new(gpu, known, &mut done), &net(), 1, Purpose::Inference);
        (records, ended)
    };
    let bad = Some(("conv_forward_128x128_bf16", true));
    let (records, ended) = run(&gpu(bad, true), &[]);
    let e = ended.unwrap_err().to_string();
    assert!(e.contains("conv_forward_bf16 1x36x64x48") && e.contains("tune again"), "{e}");
    let [first] = &records[..] else { panic!("{records:?}") };
    assert!(first.choice.is_none() && first.wrong.len() == 1, "{first:?}");
    // The same faults, in the next product; then none is left.
    let (records, ended) = run(&gpu(bad, true), &records);
    assert!(ended.is_err() && records.len() == 2 && records[0].choice.is_some(), "{records:?}");
}

#[test]
fn products_of_a_pass_over_images_are_tuned_in_it() {
    let text = "
        name = 'net'\ninput = [3, 13, 13]
        [[layer]]\nname = 'c1'\ntype = 'conv'\nfilters = 64\nkernel = 3\nstride = 2\nactivation = 'relu'
        [[layer]]\nname = 'c2'\ntype = 'local_conv'\nfilters = 16\nkernel = 3\ngrid = 2\nwindow = 'halo'
        [[layer]]\nname = 'fc'\ntype = 'linear'\noutputs = 8";
    let net = Arc::new(Net::new(Spec::parse(text, "net").unwrap()).unwrap());
    let tune = |gpu: &Gpu| {
        let mut outcomes = Vec::new();
        let mut done = |outcome: Outcome| {
            outcomes.push(outcome);
            Ok(())
        };
        tune::images(&mut Tuner::new(gpu, &[], &mut done), &net, [21, 17], 4).unwrap();
        outcomes
    };
    let outcomes = tune(&emulator(Precision::F16));
    let dense = outcomes.iter().find(|outcome| outcome.product.kernel == "dense_conv_f16").unwrap();
    let tiles: BTreeSet<Tile> = dense.trials.iter().map(|trial| trial.cut.tile).collect();
    assert_eq!((dense.layer.as_str(), tiles.len(), dense.wrong().count()), ("c2", 3, 0), "{dense:?}");
    assert!(dense.trials.iter().any(|trial| trial.cut.splits == 2), "{dense:?}");

    let outcomes = tune(&card(later_tiles_are_faster, Some(("dense_conv_256x32_bf16", false))));
    let dense = outcomes.iter().find(|outcome| outcome.product.kernel == "dense_conv_bf16").unwrap();
    assert_eq!(dense.fastest().unwrap().cut, Cut { tile: Tile::Large, splits: 1 });
    assert!(dense.wrong().all(|trial| trial.cut.tile == Tile::Narrow) && dense.wrong().count() > 0);
}

#[test]
fn the_command_checks_on_the_emulator_and_writes_nothing() {
    let folder = Folder::new();
    folder.write("net.toml", NET);
    let line = "tune net.toml --device simt --precision bf16 --batch 1,2";
    let run = |line: &str| folder.command(line).env("WEFT_TUNED", folder.path("tuned.json")).output().unwrap();
    let output = run(line);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{text}");
    assert!(text.contains("gemm_nn_any_bf16") && text.ends_with("nothing was chosen or written.\n"), "{text}");
    let output = run(&format!("{line} --train --json"));
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&json["wrong"], &json["cache"]), (&0.into(), &serde_json::Value::Null), "{json}");
    assert_eq!(json["products"].as_array().unwrap().len(), 22);
    assert!(json["tried"].as_u64() >= Some(60), "{}", json["tried"]);
    assert!(!folder.path("tuned.json").exists());
    folder.fails("tune net.toml --device cpu", &["--device: the CPU has nothing to tune", "--device simt"]);
    folder.wrong("tune net.toml --batch 0", &["--batch"]);
    folder.wrong("tune net.toml --image 30x30", &["--stride"]);
    folder.fails("tune net.toml --device simt --cache net.toml", &["--cache", "is read by this very command"]);
}

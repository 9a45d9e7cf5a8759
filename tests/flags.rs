//! Flags that change what a command computes: each is tested for its effect, not only for being accepted.

mod support;

use std::fs;
use std::time::Instant;
use support::{Folder, PHOTO};
use weft::data::celeba::CelebA;
use weft::data::photo::{Photo, Rect};
use weft::net::{Net, Normalise, Spec};
use weft::rng::Rng;
use weft::weights::{Dtype, TensorFile};

const NET: &str = "
name = 'net'
input = [3, 9, 8]
[[layer]]
name = 'c'
type = 'conv'
filters = 4
kernel = 3
[[layer]]
name = 'p'
type = 'max_pool'
kernel = 2
[[layer]]
name = 'fc'
type = 'linear'
outputs = 5
";

/// A net, its weights, and a photo of noise.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("net.toml", NET);
    let net = Net::new(Spec::parse(NET, "net").unwrap()).unwrap();
    net.save_parameters(folder.path("w"), &net.initial_parameters(1), Dtype::F32, &[]).unwrap();
    noise(20, 17).save_png(folder.path("photo.png")).unwrap();
    folder
}

fn noise(width: usize, height: usize) -> Photo {
    let mut rng = Rng::new(3, 0);
    Photo::from_fn(width, height, |_, _| [0; 3].map(|_: u8| rng.below(256) as u8))
}

fn tensor(folder: &Folder, file: &str, name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = TensorFile::open(folder.path(file)).unwrap();
    let tensor = file.require(name).unwrap();
    (tensor.shape.clone(), tensor.to_f32().unwrap().into_owned())
}

#[track_caller]
fn assert_near(found: &[f32], expected: &[f32]) {
    let largest = expected.iter().fold(0.0f32, |most, v| most.max(v.abs()));
    assert!(found.len() == expected.len() && largest > 0.0);
    assert!(found.iter().zip(expected).all(|(f, e)| (f - e).abs() <= 1e-5 * largest));
}

#[test]
fn extract_layer_gives_that_layers_values_of_each_patch() {
    let folder = folder();
    let (photo, Normalise { mean, scale }) = (noise(20, 17), Normalise::default());
    let (stride, row, column) = (4, 2, 1);
    let mut patch = Vec::new();
    for (c, mean) in mean.into_iter().enumerate() {
        for (y, x) in (0..9).flat_map(|y| (0..8).map(move |x| (y, x))) {
            patch.push((f32::from(photo.pixel(column * stride + x, row * stride + y)[c]) - mean) * scale);
        }
    }
    folder.tensors("in", &[("input", &[1, 3, 9, 8], &patch)]);
    folder.ok("run net.toml --weights w --input in --output layers --device cpu");
    for (flag, layer, dims) in [("--layer c", "c", 4 * 7 * 6), ("--layer p", "p", 4 * 3 * 3), ("", "fc", 5)] {
        for method in ["interweave", "patchwise"] {
            let line =
                format!("extract photo.png --net net.toml --weights w --stride {stride} --device cpu --json {flag}");
            let document = folder.json(&format!("{line} --method {method} -o f.safetensors"));
            assert_eq!(document["features"], dims, "{document}");
            let (shape, features) = tensor(&folder, "f.safetensors", "features");
            assert_eq!(shape, [3, 4, dims]);
            let start = (row * shape[1] + column) * dims;
            assert_near(&features[start..start + dims], &tensor(&folder, "layers", layer).1);
        }
    }
    let unknown = "extract photo.png --net net.toml --weights w --stride 4 --device cpu --layer c9";
    folder.fails(unknown, &["net.toml", "c9"]);
    // A layer of another net's weights file: extra tensors do not matter, missing ones do.
    let first = Net::new(Spec::parse(NET, "net").unwrap().up_to("c").unwrap()).unwrap();
    first.save_parameters(folder.path("c-only"), &first.initial_parameters(1), Dtype::F32, &[]).unwrap();
    let line = "extract photo.png --net net.toml --weights c-only --stride 4 --device cpu";
    folder.ok(&format!("{line} --layer p"));
    folder.fails(line, &["c-only", "fc."]);
}

#[test]
fn conv_chooses_the_kernels_and_not_the_answer() {
    let folder = folder();
    let mut rng = Rng::new(5, 0);
    let values: Vec<f32> = (0..2 * 3 * 9 * 8).map(|_| rng.normal()).collect();
    folder.tensors("in", &[("input", &[2, 3, 9, 8], &values), ("cotangent", &[2, 5, 1, 1], &[1.0; 10])]);
    for conv in ["implicit", "im2col"] {
        let device = format!("--device simt --conv {conv}");
        folder.ok(&format!("run net.toml --weights w --input in --output {conv} --grad {device}"));
        let report = folder.json(&format!("profile net.toml --batch 2 --train --runs 1 --json {device}"));
        let launches = report["launches"].as_array().unwrap();
        let uses = |kernel: &str| launches.iter().any(|row| row["kernel"].as_str().unwrap().starts_with(kernel));
        assert_eq!((uses("im2col_"), uses("conv_forward_")), (conv == "im2col", conv == "implicit"), "{report}");
    }
    for name in ["c", "fc", "grad.input", "grad.c.weight", "grad.c.bias", "grad.fc.weight"] {
        assert_near(&tensor(&folder, "im2col", name).1, &tensor(&folder, "implicit", name).1);
    }
    folder.wrong("profile net.toml --device simt --conv winograd", &["--conv", "winograd", "implicit or im2col"]);
}

#[test]
fn bench_interweave_layers_tells_each_layers_time_and_arithmetic() {
    let folder = folder();
    let line = "bench interweave --net net.toml --weights w --image 30x40 --stride 4 --rounds 1 --device cpu";
    let start = Instant::now();
    let text = folder.ok(&format!("{line} --layers"));
    let wall = 1e3 * start.elapsed().as_secs_f64();
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let heading = ["layer", "ms", "GFLOP", "GFLOP/s"];
    let rows: Vec<Vec<&str>> = words.skip_while(|words| words[..] != heading).skip(1).take(3).collect();
    assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), ["c", "p", "fc"], "{text}");
    let sum = |column: usize| rows.iter().map(|row| row[column].parse::<f64>().unwrap()).sum::<f64>();
    assert!(sum(1) < wall, "layers take {} ms of the program's {wall}: {text}", sum(1));
    // The layers' arithmetic adds up to that of the pass.
    let document = folder.json(&format!("{line} --json"));
    let gflop = document["interweave_gflop"].as_f64().unwrap();
    assert!((sum(2) - gflop).abs() <= 0.005 * rows.len() as f64 + 1e-9, "{} of {gflop}: {text}", sum(2));
    assert!(!folder.ok(line).contains(" GFLOP/s"));
    let on_gpu = line.replace("--device cpu", "--device simt");
    folder.fails(&format!("{on_gpu} --layers"), &["--layers: ", "weft profile"]);
    folder.wrong(&format!("{line} --layers --json"), &["--layers"]);
}

#[test]
fn synth_face_sets_the_height_of_the_faces() {
    let folder = Folder::new();
    let mut previous = 0.0f32;
    for (name, flag, low, high) in [("s", "0.2-0.3", 0.2, 0.3), ("m", "0.5", 0.5, 0.5), ("l", "0.75-0.9", 0.75, 0.9)] {
        folder.ok(&format!("data synth {name} --images 12 --identities 4 --width 90-120 --height 100 --face {flag}"));
        let samples = CelebA::open(folder.path(name), true).unwrap().samples;
        assert_eq!(samples.len(), 12);
        for sample in samples {
            let photo = Photo::open(&sample.path).unwrap();
            let side = photo.width.min(photo.height) as f32;
            let share = sample.bbox.unwrap().height / side;
            // Rotated heads are slightly shorter, and boxes are whole pixels.
            assert!(share > 0.85 * low - 1.0 / side && share < high + 1.0 / side, "--face {flag}: {share}");
            assert!(share > previous, "--face {flag}: {share}");
        }
        // All faces of the next range are larger.
        previous = high;
    }
    for flag in ["0.9-0.7", "0", "1.5", "big"] {
        folder.wrong(&format!("data synth x --images 1 --face {flag}"), &["--face"]);
    }
}

/// Scenes of white squares, whose box is the whole square, on grey.
fn scenes(folder: &Folder, to: &str, flags: &str) -> Vec<(Photo, Rect)> {
    for i in 0..5 {
        folder.write(&format!("p/images/{i}.png"), []);
        Photo::from_fn(40, 40, |_, _| [250 - i; 3]).save_png(folder.path(&format!("p/images/{i}.png"))).unwrap();
    }
    folder.write("p/boxes.csv", (0..5).map(|i| format!("{i}.png,0,0,40,40\n")).collect::<String>());
    folder.write("things/class/a.png", []);
    Photo::from_fn(90, 60, |_, _| [50; 3]).save_png(folder.path("things/class/a.png")).unwrap();
    folder.ok(&format!("data scenes {to} --photos p/boxes.csv --backgrounds things {flags}"));
    let boxes = fs::read_to_string(folder.path(to).join("boxes.csv")).unwrap();
    let scene = |line: &str| {
        let (name, numbers) = line.split_once(',').unwrap();
        let n: Vec<f32> = numbers.split(',').map(|n| n.parse().unwrap()).collect();
        let photo = Photo::open(folder.path(to).join("images").join(name)).unwrap();
        (photo, Rect::new(n[0], n[1], n[2], n[3]))
    };
    boxes.lines().skip(1).map(scene).collect()
}

#[test]
fn scenes_side_and_scale_set_the_sizes_of_scene_and_photo() {
    let folder = Folder::new();
    for (side, scale, low, high) in [(300, "0.5", 0.5, 0.5), (120, "0.2-0.3", 0.2, 0.3), (180, "1", 1.0, 1.0)] {
        let flags = format!("--count 6 --side {side} --scale {scale}");
        let scenes = scenes(&folder, &format!("s{side}"), &flags);
        assert_eq!(scenes.len(), 6);
        for (scene, place) in scenes {
            // The backgrounds have an aspect ratio of 3 to 2.
            assert_eq!((scene.width, scene.height), (side, side * 2 / 3));
            let share = place.height / scene.height as f32;
            assert!(share > low - 0.01 && share < high + 0.01, "--scale {scale}: {share}");
            let (x, y) = place.center();
            assert!(scene.pixel(x as usize, y as usize)[0] > 230, "the photo is not in its box {place:?}");
        }
    }
}

#[test]
fn scenes_fade_blends_the_edges_and_leaves_the_middle() {
    let folder = Folder::new();
    let edge = |to: &str, fade: &str| {
        let flags = format!("--count 4 --side 300 --scale 0.6 --fade {fade}");
        let mut levels = Vec::new();
        for (scene, place) in scenes(&folder, to, &flags) {
            let (x, y) = place.center();
            let level = |x: f32| f32::from(scene.pixel(x as usize, y as usize)[1]);
            assert!(level(x) > 230.0, "{}", level(x));
            // A tenth of the photo's width from its edge.
            levels.push((level(place.x + 0.1 * place.width), level(place.x + place.width - 0.1 * place.width)));
        }
        levels
    };
    assert!(edge("hard", "0").iter().all(|&(left, right)| left > 230.0 && right > 230.0));
    // 0.1 of 0.2: halfway from 50 to 250.
    let soft = edge("soft", "0.2");
    assert!(soft.iter().all(|&(left, right)| (left - 150.0).abs() < 20.0 && (right - 150.0).abs() < 20.0), "{soft:?}");
    folder.wrong("data scenes x --photos p/boxes.csv --backgrounds things --fade 0.5", &["--fade"]);
}

#[test]
fn scenes_first_goes_on_in_the_same_series() {
    let folder = Folder::new();
    scenes(&folder, "whole", "--count 4 --side 90 --seed 7");
    scenes(&folder, "rest", "--first 2 --count 2 --side 90 --seed 7");
    let (whole, rest) = (folder.tree("whole"), folder.tree("rest"));
    assert_eq!((whole.len(), rest.len()), (5, 3));
    for (name, content) in rest.iter().filter(|(name, _)| !name.ends_with("boxes.csv")) {
        assert!(whole[name] == *content, "{} differs", name.display());
    }
    let lines = |folder: &std::collections::BTreeMap<std::path::PathBuf, Vec<u8>>| {
        let text = String::from_utf8(folder[std::path::Path::new("boxes.csv")].clone()).unwrap();
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let (whole, rest) = (lines(&whole), lines(&rest));
    assert_eq!(rest[1..], whole[3..]);
    assert!(rest[1].starts_with("00002.jpg,"), "{rest:?}");
}

/// Photos in flight change neither the answers nor their order; one that cannot be read does not disturb the others.
#[test]
fn batch_changes_nothing_but_the_time() {
    let (folder, mut names) = (folder(), String::new());
    for number in 0..7 {
        match number {
            3 => folder.write("3.png", "no photo"),
            // Its content decides the format.
            5 => drop(fs::copy(PHOTO, folder.path("5.png")).unwrap()),
            _ => noise(60 + 9 * number, 70).save_png(folder.path(&format!("{number}.png"))).unwrap(),
        }
        names += &format!("{number}.png\n");
    }
    folder.write("list", &names);
    let answers = |batch: usize| {
        let found = folder.weft(&format!("locate --list list --threshold -1 --all --jsonl --batch {batch}"));
        assert_eq!(found.code, Some(1), "{}", found.stderr);
        assert!(found.stderr.contains("3.png") && found.stdout.lines().count() == 7, "{}", found.stderr);
        found.stdout
    };
    let one = answers(1);
    assert!(one.contains("score"), "no face to compare: {one}");
    assert_eq!(answers(2), one);
    assert_eq!(answers(5), one);
    folder.wrong("locate photo.png --batch 0", &["--batch"]);
}

#[test]
fn chain_shows_the_way_of_a_photo() {
    let folder = folder();
    noise(90, 70).save_png(folder.path("large.png")).unwrap();
    let document = folder.json("profile --chain large.png --runs 1 --trace t.json --json");
    let parts = document["parts_ms"].as_object().unwrap();
    let sum: f64 = parts.values().map(|part| part.as_f64().unwrap()).sum();
    let whole = document["photo_ms"].as_f64().unwrap();
    assert!(parts["decoding"].as_f64().unwrap() > 0.0 && parts["lnets"].as_f64().unwrap() > 0.0, "{document}");
    assert!(sum > 0.9 * whole && sum <= whole, "{document}");
    let trace: serde_json::Value = serde_json::from_str(&fs::read_to_string(folder.path("t.json")).unwrap()).unwrap();
    let events = trace["traceEvents"].as_array().unwrap();
    let spans = events.iter().filter(|event| event["name"] == "lnets").count();
    // ANet's pass, if there is a face, is no span of the LNets.
    assert!(document["counts"]["passes"].as_u64().unwrap() >= spans as u64, "{document}");
    // The levels of the shipped pyramid, and a look.
    assert!(spans >= 6 && events.iter().any(|event| event["args"]["of"] == "localisation"), "{spans}");
    folder.wrong("profile net.toml --chain large.png", &["--chain"]);
    folder.wrong("profile", &["NET"]);
}

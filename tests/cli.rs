//! The program as seen by users and scripts: which output goes to which stream, and the exit code.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde_json::json;
use support::{Folder, Output, PHOTO};
use weft::weights::{Dtype, Named, TensorFile, write};

/// Convolution, ReLU, linear layer: small enough to check by hand.
const NET: &str = r#"
name = "small"
input = [1, 2, 2]
[[layer]]
name = "c"
type = "conv"
filters = 1
kernel = 1
[[layer]]
name = "r"
type = "relu"
[[layer]]
name = "fc"
type = "linear"
outputs = 2
"#;
const WEIGHTS: [(&str, &[usize], &[f32]); 4] = [
    ("c.weight", &[1, 1, 1, 1], &[2.0]),
    ("c.bias", &[1], &[1.0]),
    ("fc.weight", &[2, 4], &[1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, -1.0]),
    ("fc.bias", &[2], &[0.5, 0.0]),
];
const INPUT: (&str, &[usize], &[f32]) = ("input", &[1, 1, 2, 2], &[1.0, -2.0, 3.0, -4.0]);
const RUN: &str = "run net.toml --weights w --input in --output out";

/// A folder with the inputs of `RUN`.
fn small() -> Folder {
    let folder = Folder::new();
    folder.write("net.toml", NET);
    folder.tensors("w", &WEIGHTS);
    folder.tensors("in", &[INPUT, ("cotangent", &[1, 2, 1, 1], &[1.0, 1.0])]);
    folder
}

/// The tensors of a file: name, shape and values.
fn read(path: &Path) -> BTreeMap<String, (Vec<usize>, Vec<f32>)> {
    let file = TensorFile::open(path).unwrap();
    file.tensors().map(|t| (t.name.to_string(), (t.shape.clone(), t.to_f32().unwrap().into_owned()))).collect()
}

type Expected<'a> = &'a [(&'a str, &'a [usize], &'a [f32])];

#[track_caller]
fn holds(path: &Path, expected: Expected<'_>) {
    let found = read(path);
    let names: Vec<&str> = expected.iter().map(|(name, ..)| *name).collect();
    assert_eq!(found.keys().map(String::as_str).collect::<Vec<_>>(), names);
    for (name, shape, values) in expected {
        assert_eq!(found[*name].0, *shape, "{name}");
        for (found, expected) in found[*name].1.iter().zip(*values) {
            assert!((found - expected).abs() < 1e-6, "{name}: {found}, not {expected}");
        }
    }
}

#[test]
fn run_writes_the_output_of_every_layer_and_nothing_else() {
    let folder = small();
    assert_eq!(folder.ok(RUN), "");
    let expected: Expected<'_> = &[
        ("c", &[1, 1, 2, 2], &[3.0, -3.0, 7.0, -7.0]),
        ("fc", &[1, 2, 1, 1], &[10.5, 3.0]),
        ("r", &[1, 1, 2, 2], &[3.0, 0.0, 7.0, 0.0]),
    ];
    holds(&folder.path("out"), expected);
}

#[test]
fn run_with_grad_back_propagates_the_cotangent() {
    let folder = small();
    folder.ok(&format!("{RUN} --grad"));
    let expected: Expected<'_> = &[
        ("c", &[1, 1, 2, 2], &[3.0, -3.0, 7.0, -7.0]),
        ("fc", &[1, 2, 1, 1], &[10.5, 3.0]),
        ("grad.c.bias", &[1], &[3.0]),
        ("grad.c.weight", &[1, 1, 1, 1], &[5.0]),
        ("grad.fc.bias", &[2], &[1.0, 1.0]),
        ("grad.fc.weight", &[2, 4], &[3.0, 0.0, 7.0, 0.0, 3.0, 0.0, 7.0, 0.0]),
        ("grad.input", &[1, 1, 2, 2], &[4.0, 0.0, 2.0, 0.0]),
        ("r", &[1, 1, 2, 2], &[3.0, 0.0, 7.0, 0.0]),
    ];
    holds(&folder.path("out"), expected);
}

#[test]
fn run_takes_targets_for_losses() {
    for (kind, target, gradient) in
        [("softmax_cross_entropy", &[1.0][..], [0.5, -0.5]), ("sigmoid_cross_entropy", &[1.0, 0.0], [-0.25, 0.25])]
    {
        let folder = small();
        folder.write("net.toml", format!("{NET}[[layer]]\nname = \"loss\"\ntype = \"{kind}\"\n"));
        // Logits of zero: the loss and its gradient are known.
        let zeros = [WEIGHTS[0], WEIGHTS[1], ("fc.weight", &[2, 4], &[0.0; 8]), ("fc.bias", &[2], &[0.0; 2])];
        folder.tensors("w", &zeros);
        folder.tensors("in", &[INPUT, ("target", &[1, target.len()], target)]);
        folder.ok(&format!("{RUN} --grad"));
        let found = read(&folder.path("out"));
        assert_eq!(found["loss"].0, [1], "{kind}");
        assert!((found["loss"].1[0] - std::f32::consts::LN_2).abs() < 1e-6, "{kind}: {:?}", found["loss"]);
        assert_eq!(found["grad.fc.bias"].1, gradient, "{kind}");

        folder.tensors("in", &[INPUT]);
        folder.fails(RUN, &["in: no tensor target", "the file holds input"]);
        folder.tensors("in", &[INPUT, ("target", &[3], &[0.0, 1.0, 0.0])]);
        folder.fails(RUN, &["in: ", "net.toml: layer loss", "3 targets"]);
        if kind == "softmax_cross_entropy" {
            for (class, found) in [(2.0, "target class 2"), (-1.0, "-1 is no class"), (0.5, "0.5 is no class")] {
                folder.tensors("in", &[INPUT, ("target", &[1], &[class])]);
                folder.fails(RUN, &["in: ", found]);
            }
        }
    }
}

#[test]
fn run_refuses_tensors_that_do_not_fit_the_net() {
    let input = |shape: &[usize], parts: &[&str]| {
        let folder = small();
        folder.tensors("in", &[("input", shape, &vec![0.0; shape.iter().product()])]);
        folder.fails(RUN, parts);
        assert!(!folder.path("out").exists());
    };
    input(&[2, 2], &["in: input: has shape [2, 2]", "must be [N, C, H, W]"]);
    input(&[1, 3, 2, 2], &["in: input: has 3 channels, but net.toml needs 1"]);
    input(&[1, 1, 3, 2], &["in: net.toml: layer fc", "3 x 2"]);
    input(&[0, 1, 2, 2], &["in: net.toml: a batch of 0 samples"]);
    input(&[1, 1, 0, 2], &["in: net.toml: input 1x0x2 is empty"]);
    input(&[1 << 40, 1, 0, 0], &["in: net.toml: input 1x0x0 is empty"]);

    let weights = |tensors: Expected<'_>, parts: &[&str]| {
        let folder = small();
        folder.tensors("w", tensors);
        folder.fails(RUN, parts);
    };
    let [c, c_bias, fc, fc_bias] = WEIGHTS;
    weights(&[c, c_bias, fc], &["w: has no fc.bias", "net.toml"]);
    weights(&[c, c_bias, fc, fc_bias, ("old.bias", &[1], &[0.0])], &["w: holds old.bias", "net.toml"]);
    weights(&[c, c_bias, fc, ("fc.bias", &[3], &[0.0; 3])], &["w: tensor fc.bias: has shape [3]", "needs [2]"]);

    let folder = small();
    folder.tensors("in", &[INPUT, ("cotangent", &[3], &[0.0; 3])]);
    folder.fails(&format!("{RUN} --grad"), &["in: net.toml: layer fc", "the cotangent has 3 values, but the output 2"]);
    folder.tensors("in", &[INPUT]);
    folder.fails(&format!("{RUN} --grad"), &["in: net.toml: layer fc", "no cotangent is given"]);
    folder.tensors("in", &[("x", &[1], &[0.0])]);
    folder.fails(RUN, &["in: no tensor input", "the file holds x"]);
}

#[test]
fn run_names_the_file_that_is_missing() {
    for (file, place) in [("net.toml", "net.toml: "), ("w", "w: "), ("in", "in: ")] {
        let folder = small();
        fs::remove_file(folder.path(file)).unwrap();
        folder.fails(RUN, &[place, "No such file"]);
    }
    small().fails(&RUN.replace("--output out", "--output no/such/out"), &["no/such/out: there is no folder", "mkdir"]);
}

/// Files that are not safetensors, each with the expected message.
fn hostile() -> Vec<(Vec<u8>, &'static str)> {
    let with = |length: u64, rest: &[u8]| [&length.to_le_bytes(), rest].concat();
    let file = |header: &str, data: &[u8]| with(header.len() as u64, &[header.as_bytes(), data].concat());
    let tensor = |shape: &str, start: &str, end: &str| {
        let info = format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":[{start},{end}]}}"#);
        file(&format!(r#"{{"input":{info}}}"#), &[0; 4])
    };
    vec![
        (vec![], "empty"),
        (vec![1; 7], "too short"),
        (with(u64::MAX, b"{}"), "header claims"),
        (with(90_000_000, b"{}"), "header claims"),
        (file("not json", &[]), "header"),
        (file(&"[".repeat(100_000), &[]), "header"),
        (tensor("[1]", "4", "0"), "run backwards"),
        (tensor("[2]", "0", "4"), "needs 8 bytes"),
        (tensor("[9223372036854775807,2]", "0", "4"), "overflows"),
        (tensor("[1]", "18446744073709551612", "18446744073709551616"), "input"),
        (tensor("[2]", "0", "8"), "tensors need 8 bytes"),
        (file("{}", &[0; 4]), "4 bytes follow the last tensor"),
        (file("{\"a\\u001b[31m\\n\":3}", &[]), r"a\u{1b}[31m\n"),
    ]
}

#[test]
fn a_file_from_a_stranger_earns_one_line_whoever_reads_it() {
    let folder = small();
    for (bytes, found) in hostile() {
        folder.write("bad", bytes);
        folder.fails(&RUN.replace("w --input", "bad --input"), &["bad: ", found]);
        folder.fails("weights show bad", &["bad: ", found]);
    }
    folder.fails(&RUN.replace("--input in", "--input bad"), &["bad: "]);
    folder.fails("weights convert bad -o out", &["bad: "]);

    let whole = fs::read(folder.path("w")).unwrap();
    for cut in [1, 8, 9, whole.len() / 2, whole.len() - 1] {
        folder.write("bad", &whole[..cut]);
        folder.fails(&RUN.replace("w --input", "bad --input"), &["bad: "]);
    }
    assert!(!folder.path("out").exists());
}

#[test]
fn plan_shows_every_layer_and_the_totals() {
    let folder = small();
    let text = folder.ok("plan net.toml --batch 3 --train");
    for part in ["input", "c ", "r ", "fc ", "1x2x2", "2x1x1", "3 samples, 12 parameters (48 bytes)", "arena"] {
        assert!(text.contains(part), "no {part:?} in {text}");
    }
    folder.write("conv.toml", "name = 'a'\ninput = [1, 4, 4]\n[[layer]]\nname = 'relu'\ntype = 'relu'\n");
    assert!(folder.ok("plan conv.toml --size 30x20").contains("1x30x20"));
}

#[test]
fn plan_says_where_a_net_is_wrong() {
    let folder = small();
    folder.fails("plan missing.toml", &["missing.toml: No such file"]);
    folder.wrong("plan net.toml --size 300by300", &["300by300", "height x width, as in 300x200"]);
    folder.fails("plan net.toml --size 3x3", &["net.toml: layer fc"]);
    folder.wrong("plan net.toml --size 0x2", &["`0` is no side"]);
    folder.wrong("plan net.toml --batch 0", &["--batch"]);
    for batch in ["4611686018427387904", "18446744073709551615"] {
        folder.fails(&format!("plan net.toml --batch {batch}"), &["--batch ", batch, "of memory", "at most"]);
    }
    for (from, to, found) in [
        ("outputs = 2", "outputs = ", "bad.toml:15: "),
        ("outputs = 2", "output = 2", "layer fc: "),
        ("\"relu\"", "\"rely\"", "layer r: unknown type `rely`"),
        ("kernel = 1", "kernel = 5", "layer c: kernel 5"),
        ("\"fc\"", "\"c\"", "layer c: this name is given twice"),
        ("input = [1, 2, 2]", "input = [0, 2, 2]", ":3: input: 0 is out of range; write 1 to 65536"),
    ] {
        folder.write("bad.toml", NET.replace(from, to));
        folder.fails("plan bad.toml", &["bad.toml", found]);
    }
}

#[test]
fn bench_train_prints_one_json_document() {
    let folder = small();
    let start = Instant::now();
    let result = folder.json("bench train net.toml --batch 2 --steps 1 --json");
    let wall = 1e3 * start.elapsed().as_secs_f64();
    assert_eq!((&result["net"], &result["batch"]), (&json!("small"), &json!(2)));
    let [step, rate] = ["step_ms", "images_per_second"].map(|key| result[key].as_f64().unwrap());
    assert!(step > 0.0 && step < wall, "a step of {wall} ms: {result}");
    assert!((step * rate / 2e3 - 1.0).abs() < 1e-6 && result["threads"].as_u64().unwrap() >= 1, "{result}");
    assert!(folder.ok("bench train net.toml --batch 2 --steps 1").starts_with("small: batch 2, "));
    folder.wrong("bench train net.toml --steps 0", &["--steps"]);
    folder.wrong("bench train net.toml --batch 0", &["--batch"]);
}

#[test]
fn weights_show_lists_tensors_totals_and_metadata() {
    let folder = small();
    let values = [1.0, 3.0, f32::NAN, f32::INFINITY];
    let tensor = Named { name: "fc.bias", shape: &[2, 2], dtype: Dtype::F32, data: &values };
    write(folder.path("odd"), &[tensor], &[("net".into(), "anet".into())]).unwrap();

    let text = folder.ok("weights show odd");
    let lines: Vec<Vec<&str>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
    assert_eq!(lines[0], ["odd"]);
    let row = ["fc.bias", "F32", "[2,", "2]", "4", "16", "1.0000e0", "3.0000e0", "2.0000e0", "1.0000e0", "2"];
    assert_eq!(lines[2], row);
    assert_eq!(text.lines().skip(3).collect::<Vec<_>>(), ["1 tensors, 4 values, 16 bytes, 2 not finite", "net: anet"]);

    let all = folder.json("weights show odd w --json");
    let [odd, w] = &all.as_array().unwrap()[..] else { panic!("{all}") };
    assert_eq!((&odd["file"], &odd["metadata"]), (&json!("odd"), &json!({ "net": "anet" })));
    let tensor = json!({
        "name": "fc.bias", "dtype": "F32", "shape": [2, 2], "count": 4, "bytes": 16,
        "min": 1.0, "max": 3.0, "mean": 2.0, "deviation": 1.0, "non_finite": 2,
    });
    assert_eq!(odd["tensors"], json!([tensor]));
    assert_eq!((&w["count"], w["tensors"].as_array().unwrap().len()), (&json!(12), 4));

    folder.fails("weights show w missing", &["missing: No such file"]);
    folder.fails("weights show w .", &[".: not a regular file"]);
}

#[test]
fn weights_convert_changes_the_type_and_the_net_still_runs() {
    let folder = small();
    folder.ok(RUN);
    let before = read(&folder.path("out"));
    for (dtype, shown, bytes) in [("f16", "F16", 24), ("bf16", "BF16", 24), ("f32", "F32", 48)] {
        assert!(folder.ok(&format!("weights convert w -o w2 --dtype {dtype}")).starts_with(&format!("w2: {shown}, ")));
        let summary = &folder.json("weights show w2 --json")[0];
        assert_eq!((&summary["bytes"], &summary["tensors"][0]["dtype"]), (&json!(bytes), &json!(shown)));
        folder.ok(&RUN.replace("w --input", "w2 --input"));
        assert_eq!(read(&folder.path("out")), before, "these weights are exact in {dtype}");
    }
    folder.tensors("large", &[("fc.bias", &[1], &[7e4])]);
    let old = fs::read(folder.path("w2")).unwrap();
    folder.fails("weights convert large -o w2 --dtype f16", &["w2: fc.bias: 70000 is too large for F16"]);
    assert_eq!(fs::read(folder.path("w2")).unwrap(), old);
    folder.fails("weights convert missing -o w2", &["missing: No such file"]);
    folder.fails("weights convert w -o no/w2", &["no/w2: there is no folder"]);
}

const SYNTH: &str = "--images 10 --identities 5 --width 48-64 --height 50 --seed 7";

/// A folder with ten synthetic faces in `d`.
fn faces() -> Folder {
    let folder = Folder::new();
    folder.ok(&format!("data synth d {SYNTH}"));
    folder
}

/// All files below a folder and their contents.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(files(&path).into_iter().map(|(p, c)| (Path::new(path.file_name().unwrap()).join(p), c)));
        } else {
            all.insert(path.file_name().unwrap().into(), fs::read(path).unwrap());
        }
    }
    all
}

#[test]
fn synth_gives_the_same_bytes_for_the_same_seed() {
    let folder = faces();
    assert_eq!(folder.ok(&format!("data synth e {SYNTH}")), "e: 10 photos of 5 people, seed 7\n");
    let (d, e) = (files(&folder.path("d")), files(&folder.path("e")));
    assert_eq!(d.len(), 10 + 4 + 1, "photos, annotations, configuration");
    assert!(d == e);
    folder.ok(&format!("data synth e {} 8", SYNTH.strip_suffix(" 7").unwrap()));
    let other = files(&folder.path("e"));
    assert!(other.keys().eq(d.keys()) && other != d, "another seed, written over the first");
}

#[test]
fn synth_leaves_folders_of_others_alone() {
    let folder = Folder::new();
    folder.write("mine/photo.jpg", "");
    let line = format!("data synth mine {SYNTH}");
    folder.fails(&line, &["mine: holds something", "--force"]);
    assert_eq!(files(&folder.path("mine")).len(), 1);
    folder.ok(&format!("{line} --force"));
    assert!(folder.path("mine/photo.jpg").exists() && folder.path("mine/synth.json").exists());

    folder.write("file", "");
    folder.fails("data synth file --images 1", &["file: exists and is not a folder"]);
    folder.wrong("data synth new --images 0", &["--images", "1..=999999"]);
    folder.wrong("data synth new --width 100-50", &["--width", "from 32 to 4096"]);
    assert!(!folder.path("new").exists());
}

#[test]
fn check_counts_what_is_there() {
    let folder = faces();
    let text = folder.ok("data check d");
    assert!(text.starts_with("d: celeba, 10 images\n") && text.contains("Smiling"), "{text}");
    assert!(text.ends_with('\n') && !text.ends_with("\n\n"), "{text:?}");
    assert_eq!(folder.ok("data check d --strict"), text, "nothing is wrong");
    let report = folder.json("data check d --json");
    assert_eq!((&report["images"], &report["identities"], &report["boxes"]), (&json!(10), &json!(5), &json!(10)));
    assert_eq!(report["splits"], json!({ "train": 6, "val": 2, "test": 2, "none": 0 }));
    assert_eq!((&report["unreadable"], &report["problems"]), (&json!(0), &json!([])));
    assert_eq!(folder.json("data check d --no-decode --json").get("unreadable"), None);
}

/// Each problem is listed with its place and the rest is counted; with `--strict` it is the one-line error.
#[test]
fn check_reports_each_fault_with_file_and_line() {
    let list = "Anno/list_attr_celeba.txt";
    let edit = |folder: &Folder, line: usize, from: &str, to: &str| {
        let text = fs::read_to_string(folder.path("d").join(list)).unwrap();
        let edited: Vec<String> = text
            .lines()
            .enumerate()
            .map(|(i, l)| if i + 1 == line { l.replacen(from, to, 1) } else { l.into() })
            .collect();
        folder.write(&format!("d/{list}"), edited.join("\n"));
    };
    type Damage<'a> = &'a dyn Fn(&Folder);
    let cases: [(Damage<'_>, &str, usize); 4] = [
        (&|f| edit(f, 4, "1", "7"), "d/Anno/list_attr_celeba.txt:4: ", 9),
        (&|f| edit(f, 5, " ", " 1 "), "d/Anno/list_attr_celeba.txt:5: 20 columns after the name, not 19", 9),
        (
            &|f| fs::remove_file(f.path("d/Img/img_celeba/000003.jpg")).unwrap(),
            "d/Anno/list_attr_celeba.txt:5: image \"000003.jpg\" is not in d/Img/img_celeba",
            9,
        ),
        (
            &|f| {
                let path = f.path("d/Img/img_celeba/000004.jpg");
                let whole = fs::read(&path).unwrap();
                fs::write(path, &whole[..whole.len() / 2]).unwrap();
            },
            "d/Img/img_celeba/000004.jpg: the JPEG is truncated",
            10,
        ),
    ];
    for (damage, place, images) in cases {
        let folder = faces();
        damage(&folder);
        let report = folder.json("data check d --json");
        assert_eq!((&report["problem_count"], &report["images"]), (&json!(1), &json!(images)), "{report}");
        let problem = report["problems"][0].as_str().unwrap();
        assert!(problem.starts_with(place), "{problem}");
        assert!(folder.ok("data check d").contains(problem));
        folder.fails("data check d --strict", &[problem]);
        let quick = folder.json("data check d --no-decode --json");
        assert_eq!(quick["problem_count"], json!(usize::from(images == 9)), "{quick}");
    }
}

#[test]
fn check_of_nothing_is_an_error() {
    let folder = Folder::new();
    fs::create_dir(folder.path("empty")).unwrap();
    folder.fails("data check empty", &["empty: no photos in its sub-folders"]);
    folder.fails("data check missing", &["missing: No such file"]);
    folder.write("half/Anno/list_attr_celeba.txt", "Smiling\na.jpg 1\n");
    folder.fails("data check half", &["half: no folder of photos"]);
}

#[test]
fn wrong_usage_exits_with_2() {
    let folder = small();
    for line in [
        "",
        "nonsense",
        "run",
        "run net.toml --weights w --input in",
        "plan",
        "plan net.toml --batch many",
        "plan net.toml --nonsense",
        "weights",
        "weights show",
        "weights convert w",
        "weights convert w -o w2 --dtype i8",
        "data",
        "data check",
        "data check a --decode --no-decode",
        "data synth d --width wide",
        "data synth d --images -1",
    ] {
        let Output { code, stdout, stderr } = folder.weft(line);
        assert_eq!((code, stdout.as_str()), (Some(2), ""), "weft {line}: {stderr}");
        assert!(stderr.contains("Usage: weft") || stderr.contains("--help"), "weft {line}: {stderr}");
    }
    assert!(folder.ok("--help").contains("weights") && folder.ok("--version").starts_with("weft "));
}

#[test]
fn a_device_that_is_not_there_is_one_clear_line() {
    let folder = small();
    folder.ok(&format!("{RUN} --device cpu"));
    folder.fails(&format!("{RUN} --device warp"), &["--device warp", "no such device", "cpu"]);
    folder.fails(&format!("{RUN} --device cuda:99"), &["cuda", "the device cpu"]);
    // A machine with a GPU may be able to run it.
    if !Path::new("/dev/nvidiactl").exists() {
        folder.fails(&format!("{RUN} --device cuda"), &["cuda", "the device cpu"]);
    }
}

/// A net for patches, its weights and a photo, in a folder.
fn patches() -> Folder {
    let folder = Folder::new();
    let net = weft::net::Net::load(concat!(env!("CARGO_MANIFEST_DIR"), "/nets/anet_deepid2.toml")).unwrap();
    folder.write("net.toml", net.spec.to_toml());
    net.save_parameters(folder.path("w"), &net.initial_parameters(1), Dtype::F32, &[]).unwrap();
    folder
}

#[test]
fn extract_gives_the_same_features_both_ways() {
    let folder = patches();
    let line = format!("extract {PHOTO} --net net.toml --weights w --stride 50 --json");
    let start = Instant::now();
    let document = folder.json(&format!("{line} -o a.safetensors"));
    let wall = start.elapsed();
    assert_eq!(
        (&document["patches"], &document["features"], &document["stride"]),
        (&json!([9, 9]), &json!(160), &json!(50))
    );
    let seconds = document["seconds"].as_f64().unwrap();
    assert!(seconds > 0.0 && seconds < wall.as_secs_f64(), "{wall:?} in all: {document}");
    folder.json(&format!("{line} --method patchwise -o b.safetensors"));
    let [a, b] = ["a.safetensors", "b.safetensors"].map(|name| read(&folder.path(name))["features"].clone());
    assert_eq!(a.0, [9, 9, 160]);
    let largest = b.1.iter().fold(0.0f32, |m, v| m.max(v.abs()));
    assert!(a.1.iter().zip(&b.1).all(|(a, b)| (a - b).abs() <= 1e-5 * largest));
    for device in ["cpu", "simt"] {
        folder.fails(
            &format!("{line} --method interweave-maps --device {device}"),
            &["--stride", "50 is no multiple of the trunk's stride, 4"],
        );
    }
    folder.ok(&format!("extract {PHOTO} {PHOTO} --net net.toml --weights w --stride 200 -o many"));
    assert!(folder.path("many/eileen-collins.safetensors").exists());
    folder.ok(&format!("extract {PHOTO} --net net.toml --weights w --stride 200 -o f.npy"));
    assert!(fs::read(folder.path("f.npy")).unwrap().starts_with(b"\x93NUMPY"));
}

#[test]
fn extract_shows_its_plan_and_draws_it() {
    let folder = patches();
    let text = folder.ok("extract --net net.toml --stride 8 --plan 127x143 --draw plan.svg");
    let c4 = text.lines().find(|line| line.starts_with("c4 ")).unwrap();
    assert!(text.starts_with("9 x 11 patches of 3x63x63, 8 pixels apart\n") && c4.contains(" 6x6 "), "{text}");
    let svg = fs::read_to_string(folder.path("plan.svg")).unwrap();
    assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("\nc4\n"));
    folder.fails("extract --net net.toml --stride 8 --plan 20x200", &["smaller than a patch"]);
    folder.wrong("extract --net net.toml --stride 0 --plan 200x200", &["--stride"]);
}

#[test]
fn bench_ops_times_each_layer_forward_and_backward() {
    let folder = small();
    for device in ["cpu", "simt"] {
        let start = Instant::now();
        let result = folder.json(&format!("bench ops net.toml --batch 2 --runs 1 --device {device} --json"));
        let wall = 1e3 * start.elapsed().as_secs_f64();
        let rows = result.as_array().unwrap();
        assert_eq!(rows.iter().map(|row| &row["layer"]).collect::<Vec<_>>(), ["c", "r", "fc"]);
        let mut sum = 0.0;
        for row in rows {
            let number = |key: &str| row[key].as_f64().unwrap();
            // At least a clock tick, not merely positive.
            assert!(number("forward_ms") > 1e-6 && number("backward_ms") > 1e-6, "{row}");
            sum += number("forward_ms") + number("backward_ms");
            // 2 samples; forward is one multiply-add per weight and output position.
            let flops = number("forward_gflops") * number("forward_ms") * 1e6;
            let expected = match row["layer"].as_str().unwrap() {
                "c" => 2.0 * 2.0 * 4.0,
                "fc" => 2.0 * 2.0 * 8.0,
                _ => continue,
            };
            assert!((flops / expected - 1.0).abs() < 0.01, "{flops} operations: {row}");
        }
        assert!(sum < wall, "layers take {sum} ms of the program's {wall}: {result}");
    }
    folder.wrong("bench ops net.toml --runs 0", &["--runs"]);
}

#[test]
fn bench_windows_tells_recall_beside_a_grid_s() {
    let folder = Folder::new();
    fs::create_dir(folder.path("images")).unwrap();
    fs::copy(PHOTO, folder.path("images/a.jpg")).unwrap();
    folder.write("boxes.csv", "image,x,y,width,height\na.jpg,150,60,120,120\n");
    let start = Instant::now();
    let found = folder.json("bench windows --boxes boxes.csv --count 60 --json --draw drawn");
    let wall = 1e3 * start.elapsed().as_secs_f64();
    assert_eq!((&found["photos"], &found["boxes"], &found["count"]), (&json!(1), &json!(1), &json!(60)));
    for kind in ["edge_boxes", "grid"] {
        let Some([(ten, few), .., (all, recall)]) = recalls(&found[kind]).first_chunk::<3>().copied() else {
            panic!("{found}")
        };
        assert!(ten == 10.0 && all == 60.0 && few <= recall && found[kind]["windows"].as_f64().unwrap() <= 60.0);
        assert_eq!(found[kind]["recall_iou_0.5"], json!(recall));
        assert!(found[kind]["mean_best_iou"].as_f64().unwrap() <= 1.0);
        let ms = found[kind]["ms_per_photo"].as_f64().unwrap();
        assert!(ms > 0.0 && ms < wall, "{wall} ms in all: {found}");
    }
    assert!(folder.path("drawn/a.png").is_file());
    assert!(folder.ok("bench windows --boxes boxes.csv --count 60").contains("edge boxes"));
    folder.wrong("bench windows --boxes boxes.csv --count 0", &["--count"]);
    folder.fails("bench windows --boxes none.csv", &["none.csv"]);
    folder.write("edges.toml", "count = 5\nalfa = 0.6\n");
    folder.fails("bench windows --boxes boxes.csv --config edges.toml", &["edges.toml:", "alfa"]);
}

/// Pairs of a number of windows and the recall with that number.
fn recalls(found: &serde_json::Value) -> Vec<(f64, f64)> {
    let pairs = found["recall_at"].as_array().unwrap();
    pairs.iter().map(|pair| (pair[0].as_f64().unwrap(), pair[1].as_f64().unwrap())).collect()
}

#[test]
fn bench_interweave_prints_the_contract_s_keys() {
    let folder = patches();
    let line = "bench interweave --net net.toml --image 79x87 --rounds 1 --device cpu";
    let start = Instant::now();
    let document = folder.json(&format!("{line} --stride 8 --json"));
    let wall = 1e3 * start.elapsed().as_secs_f64();
    assert_eq!(
        (&document["image"], &document["patches"], &document["device"]),
        (&json!([79, 87]), &json!(12), &json!("cpu"))
    );
    let number = |key: &str| document[key].as_f64().unwrap();
    let (patchwise, interweave) = (number("patchwise_ms"), number("interweave_ms"));
    assert!(interweave > 0.0 && patchwise + interweave < wall, "{wall} ms in all: {document}");
    // With one round, its ratio is the speedup.
    assert!((number("speedup") * interweave / patchwise - 1.0).abs() < 1e-6, "{document}");
    assert!((number("flop_ratio") * number("interweave_gflop") / number("patchwise_gflop") - 1.0).abs() < 1e-6);
    assert!(number("flop_ratio") > 1.0, "12 overlapping patches share something: {document}");
    assert!(number("max_rel_error") <= 1e-5);
    let csv = folder.ok(&format!("{line} --stride 8,12 --csv --plot plot.svg"));
    assert_eq!(csv.lines().count(), 3);
    assert!(fs::read_to_string(folder.path("plot.svg")).unwrap().contains("speedup"));
    folder.wrong(&format!("{line} --stride 8,0 --json"), &["--stride"]);
    let line = "bench interweave --net net.toml --image 63x67 --stride 4 --rounds 1 --device simt --json";
    let start = Instant::now();
    let document = folder.json(line);
    let (wall, maps) = (1e3 * start.elapsed().as_secs_f64(), document["interweave_maps_ms"].as_f64().unwrap());
    assert!(maps > 0.0 && maps < wall, "{wall} ms in all: {document}");
    assert!(document["max_rel_error"].as_f64().unwrap() <= 1e-5);
}

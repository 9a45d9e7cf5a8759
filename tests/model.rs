//! The shipped model, through the program: predict, locate, svm and eval as used by people and scripts.

mod support;

use serde_json::Value;
use std::fs;
use std::time::Instant;
use support::{Folder, PHOTO};
use weft::data::photo::{Photo, Rect};

/// The only face in a list for one image.
#[track_caller]
fn only(document: &Value) -> &Value {
    let images = document.as_array().expect("a list");
    assert_eq!(images.len(), 1);
    &images[0]
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn rect(face: &Value) -> Rect {
    let [x, y, width, height] = ["x", "y", "width", "height"].map(|key| number(&face[key]) as f32);
    Rect::new(x, y, width, height)
}

/// The face in the shipped photo, from chin to hairline.
const FACE: Rect = Rect { x: 170.0, y: 60.0, width: 110.0, height: 140.0 };

/// Fails unless a window is on a face.
#[track_caller]
fn assert_on(window: Rect, face: Rect) {
    let iou = window.iou(&face);
    assert!(iou >= 0.5, "IoU {iou} of {window:?} and {face:?}");
}

#[test]
fn predict_finds_the_face_and_forty_attributes() {
    let folder = Folder::new();
    let document = folder.json(&format!("predict {PHOTO} --json --annotate pictures"));
    let image = only(&document);
    assert_eq!((&image["width"], &image["height"]), (&512.into(), &512.into()));
    assert_on(rect(&image["face"]), FACE);
    let attributes = image["attributes"].as_object().unwrap();
    assert_eq!(attributes.len(), 40);
    for (name, attribute) in attributes {
        assert_eq!(attribute["present"], number(&attribute["score"]) > 0.0, "{name}");
    }
    let picture = Photo::open(folder.path("pictures/eileen-collins.png")).unwrap();
    assert!(picture.height >= 512 && picture.width > 512);
}

#[test]
fn text_and_csv_say_the_same_as_json() {
    let folder = Folder::new();
    let document = folder.json(&format!("predict {PHOTO} --json"));
    let attributes = only(&document)["attributes"].as_object().unwrap();
    let text = folder.ok(&format!("predict {PHOTO}"));
    let csv = folder.ok(&format!("predict {PHOTO} --csv"));
    let lines: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert_eq!((lines.len(), lines[0].len(), lines[1].len()), (2, 46, 46));
    for (name, value) in lines[0].iter().zip(&lines[1]).skip(6) {
        let score = number(&attributes[*name]["score"]);
        assert!((score - value.parse::<f64>().unwrap()).abs() < 1e-3, "{name}");
        assert_eq!(
            text.contains(&format!("  {name}\n")) || text.ends_with(&format!("  {name}")),
            score > 0.0,
            "{name}: {text}"
        );
    }
}

#[test]
fn one_broken_photo_of_a_hundred_costs_only_itself() {
    let folder = Folder::new();
    folder.ok("data synth d --images 99 --identities 9 --width 40-60 --height 48 --seed 3");
    let mut photos: Vec<String> = fs::read_dir(folder.path("d/Img/img_celeba"))
        .unwrap()
        .map(|entry| format!("d/Img/img_celeba/{}", entry.unwrap().file_name().to_str().unwrap()))
        .collect();
    photos.sort();
    folder.write("broken.jpg", b"\xff\xd8\xff\xe0 nothing");
    photos.insert(50, "broken.jpg".into());
    let output = folder.weft(&format!("predict {} --json", photos.join(" ")));
    assert_eq!(output.code, Some(1));
    let reports: Vec<&str> = output.stderr.lines().filter(|line| line.starts_with("weft: ")).collect();
    assert!(reports.len() == 1 && reports[0].contains("broken.jpg"), "{reports:?}");
    let document: Value = serde_json::from_str(&output.stdout).unwrap();
    for (index, image) in document.as_array().unwrap().iter().enumerate() {
        assert_eq!(image["image"], photos[index]);
        assert_eq!(image["error"].is_string(), index == 50, "{image}");
        assert_eq!(image["attributes"].is_object(), index != 50, "{image}");
    }
}

#[test]
fn odd_pictures_are_pictures() {
    let folder = Folder::new();
    let gradient = |x: u32, y: u32| (x * 3 + y * 5) as u8;
    image::GrayImage::from_fn(60, 50, |x, y| image::Luma([gradient(x, y)])).save(folder.path("grey.png")).unwrap();
    image::ImageBuffer::<image::Rgb<u16>, _>::from_fn(60, 50, |x, y| image::Rgb([257 * u16::from(gradient(x, y)); 3]))
        .save(folder.path("deep.png"))
        .unwrap();
    image::RgbImage::from_fn(1, 1, |_, _| image::Rgb([9; 3])).save(folder.path("tiny.png")).unwrap();
    image::RgbImage::from_fn(3000, 4, |x, y| image::Rgb([gradient(x, y); 3])).save(folder.path("long.png")).unwrap();
    image::RgbImage::new(2600, 1900).save(folder.path("black.png")).unwrap();
    let document = folder.json("predict grey.png deep.png tiny.png long.png black.png --json");
    for (image, (width, height)) in
        document.as_array().unwrap().iter().zip([(60, 50), (60, 50), (1, 1), (3000, 4), (2600, 1900)])
    {
        assert_eq!((&image["width"], &image["height"]), (&width.into(), &height.into()), "{image}");
        assert!(image["error"].is_null() && image["attributes"].is_object(), "{image}");
    }
}

#[test]
fn locate_gives_windows_and_pictures_of_the_responses() {
    let folder = Folder::new();
    let document = folder.json(&format!("locate {PHOTO} --json --maps maps"));
    let faces = only(&document)["faces"].as_array().unwrap();
    assert_eq!(faces.len(), 1);
    for net in ["lnet_o", "lnet_s"] {
        assert!(Photo::open(folder.path(&format!("maps/eileen-collins.{net}.png"))).unwrap().width > 50);
    }
    let window = |which: &str| {
        let csv = folder.ok(&format!("locate {PHOTO} --csv --window {which}"));
        let fields: Vec<f64> = csv.lines().nth(1).unwrap().split(',').skip(1).map(|f| f.parse().unwrap()).collect();
        fields[2] * fields[3]
    };
    assert!((window("face") - number(&faces[0]["width"]) * number(&faces[0]["height"])).abs() < 20.0);
    assert!(window("inner") < window("face") && window("face") < window("celeba"));
    assert!(window("celeba") < window("frame") && window("frame") < window("head"));
}

/// A picture of leaves and stones, without a face: drawn, so that it is the same everywhere.
fn pattern(width: u32, height: u32) -> image::RgbImage {
    image::RgbImage::from_fn(width, height, |x, y| {
        let wave = (f64::from(x) * 0.11).sin() + (f64::from(y) * 0.07 + f64::from(x) * 0.02).cos();
        let level = (110.0 + 40.0 * wave) as u8;
        image::Rgb([level / 2 + 20, level, level / 3 + 30])
    })
}

#[test]
fn all_faces_of_a_photo_are_found_and_none_where_there_is_none() {
    let folder = Folder::new();
    let portrait = image::open(PHOTO).unwrap().crop_imm(110, 0, 240, 300).to_rgb8();
    let mut scene = pattern(760, 420);
    for x in [40, 460] {
        image::imageops::overlay(&mut scene, &portrait, x, 60);
    }
    scene.save(folder.path("two.png")).unwrap();
    pattern(500, 400).save(folder.path("none.png")).unwrap();
    let document = folder.json("locate two.png --all --json");
    let faces = only(&document)["faces"].as_array().unwrap();
    assert_eq!(faces.len(), 2, "{faces:?}");
    let mut windows: Vec<Rect> = faces.iter().map(rect).collect();
    windows.sort_by(|a, b| a.x.total_cmp(&b.x));
    for (window, x) in windows.into_iter().zip([40.0, 460.0]) {
        // Where the portrait was pasted, minus the offset at which it was cropped.
        assert_on(window, Rect { x: FACE.x + x - 110.0, y: FACE.y + 60.0, ..FACE });
    }
    assert!(number(&faces[0]["score"]) >= number(&faces[1]["score"]));
    assert_eq!(only(&folder.json("locate two.png --json"))["faces"].as_array().unwrap().len(), 1);
    assert_eq!(only(&folder.json("locate none.png --all --json"))["faces"], Value::Array(Vec::new()));
    assert_eq!(only(&folder.json("predict none.png --json"))["face"], Value::Null);
    assert_eq!(folder.ok("locate none.png"), "none.png: no face\n");
    // Everything that LNet_s detected, whatever its score.
    assert!(only(&folder.json("locate two.png --all --threshold -9 --json"))["faces"].as_array().unwrap().len() >= 2);
}

#[test]
fn an_attribute_is_drawn_where_it_is_seen() {
    let folder = Folder::new();
    folder.ok(&format!("locate {PHOTO} --maps maps --attribute Smiling --attribute Wearing_Hat"));
    for name in ["Smiling", "Wearing_Hat", "lnet_o", "lnet_s"] {
        assert!(Photo::open(folder.path(&format!("maps/eileen-collins.{name}.png"))).unwrap().width > 50, "{name}");
    }
    folder.fails(&format!("locate {PHOTO} --maps maps --attribute Smile"), &["no channel for Smile", "Smiling"]);
}

#[test]
fn bench_predict_says_where_the_time_goes() {
    let folder = Folder::new();
    let start = Instant::now();
    let document = folder.json(&format!("bench predict {PHOTO} --rounds 1 --json"));
    let wall = 1e3 * start.elapsed().as_secs_f64();
    let [decode, locate, attributes, photo] =
        ["decode_ms", "locate_ms", "attributes_ms", "photo_ms"].map(|key| number(&document[key]));
    assert!(decode > 0.0 && locate > 0.0 && attributes > 0.0, "{document}");
    assert!(decode + locate + attributes < wall && photo < wall, "{wall} ms in all: {document}");
    // Measured by itself, with one photo in flight per thread.
    let gain = number(&document["photos_per_second"]) * photo / 1e3 / number(&document["batch"]);
    assert!((0.1..10.0).contains(&gain), "{document}");
    let part = |name: &str| number(&document["parts_ms"][name]);
    assert!(part("lnets") > 0.0 && part("lnets") + part("resampling") < locate + attributes, "{document}");
    // Five levels, at least one face looked at twice, and ANet.
    assert!(number(&document["passes"]) >= 8.0 && number(&document["launches"]) == 0.0, "{document}");
    assert_eq!(document["device"], "cpu");
    folder.fails("bench predict nowhere.jpg", &["nowhere.jpg"]);
    // One level per net and one patch: the emulator is slow.
    folder.bundle("m");
    let mut bundle = fs::read_to_string(folder.path("m/model.toml")).unwrap();
    for (from, to) in [
        ("sides = [64, 119, 211, 375, 600]", "sides = [57]"),
        ("sides = [101, 127, 160, 202, 254, 320]", "sides = [57]"),
        ("frame = [109, 89]", "frame = [88, 88]"),
    ] {
        assert!(bundle.contains(from), "{bundle}");
        bundle = bundle.replace(from, to);
    }
    folder.write("m/model.toml", bundle);
    let document = folder.json(&format!("bench predict {PHOTO} --model m --rounds 1 --device simt --json"));
    assert!(document["device"].as_str().unwrap().contains("emulator"), "{}", document["device"]);
    // A level, two looks, ANet; faces and features come down.
    let count = |name: &str| number(&document[name]);
    assert_eq!([count("passes"), count("downloads")], [4.0, 2.0], "{document}");
    assert!(count("launches") > 40.0 && count("uploaded_bytes") > 0.0, "{document}");
}

#[test]
fn a_bundle_that_is_broken_is_named() {
    let folder = Folder::new();
    folder.fails(
        &format!("predict {PHOTO} --model nowhere"),
        &["nowhere/model.toml", "give the folder of a model bundle"],
    );
    folder.bundle("m");
    let break_one = |name: &str, content: &[u8], expected: &[&str]| {
        let path = folder.path("m").join(name);
        let before = fs::read(&path).unwrap();
        fs::write(&path, content).unwrap();
        folder.fails(&format!("predict {PHOTO} --model m"), expected);
        fs::write(&path, before).unwrap();
    };
    let weights = fs::read(folder.path("m/anet.safetensors")).unwrap();
    break_one("anet.safetensors", &weights[..weights.len() / 2], &["anet.safetensors"]);
    break_one("lnet_s.safetensors", &weights, &["lnet_s.safetensors"]);
    break_one("model.toml", b"name = 3", &["model.toml:1"]);
    let model = fs::read_to_string(folder.path("m/model.toml")).unwrap();
    for (from, to, expected) in [
        ("sides = [64, ", "sides = [0, ", "m/model.toml:15: locate.lnet_o.sides: 0 is out of range; write 1 to 2048"),
        ("frame = [109, 89]", "frame = [4294967296, 89]", "m/model.toml:46: anet.frame: 4294967296 is out of range"),
        ("head = 4.0", "head = 0.0", "m/model.toml:7: locate.head: 0.0 is out of range; write 0.01 to 100"),
        (
            "spread = [0.4, 0.3]",
            "spread = [0.4, 0.0]",
            "m/model.toml:33: locate.lnet_s.spread: 0.0 is out of range; write 0.01 to 10",
        ),
    ] {
        assert!(model.contains(from), "{from}");
        break_one("model.toml", model.replace(from, to).as_bytes(), &[expected]);
    }
    fs::remove_file(folder.path("m/svm.safetensors")).unwrap();
    folder.fails(&format!("predict {PHOTO} --model m"), &["svm.safetensors", "weft svm train"]);
    folder.ok(&format!("locate {PHOTO} --model m"));
}

#[test]
fn machines_are_trained_and_measured_on_other_faces() {
    let folder = Folder::new();
    folder.bundle("m");
    // The second set contains other people, so nothing could be memorised.
    for (name, seed) in [("d", 5), ("others", 6)] {
        folder.ok(&format!("data synth {name} --images 100 --identities 100 --width 64 --height 64 --seed {seed}"));
    }
    let report = folder.json("svm train --data d --split train --aligned --model m --json");
    assert!(number(&report["held_out_accuracy"]) > 0.5, "{report}");
    let document = folder.json("svm eval --data others --split train --aligned --model m --json");
    // One half is chance level, however rare an attribute is. Hair is large; most other attributes are small in 64 pixels.
    assert!(number(&document["balanced_accuracy"]) > 0.52, "{document}");
    assert!(number(&document["per_attribute"]["Black_Hair"]["balanced_accuracy"]) > 0.7, "{document}");
    let document = folder.json("eval --data d --split train --model m --json");
    // Four patches per photo, and their mirror images.
    assert_eq!(document["images"].as_u64().map(|images| 8 * images), report["rows"].as_u64());
    assert!(document["per_attribute"]["Smiling"]["accuracy"].is_number(), "{document}");
    assert!(document["localisation"]["recall_iou_0.5"].is_number(), "{document}");
    folder.fails("svm train --data d --split train", &["the model that ships", "--output"]);
    // The shipped SVMs know attributes that these faces do not have.
    folder.fails(
        "eval --data d --split train --strict",
        &["list_attr_celeba.txt:2: attribute", "is missing in the data"],
    );
}

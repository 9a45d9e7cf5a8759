//! `weft eval` and its page, through the program, on synthetic faces.

mod support;

use serde_json::Value;
use std::collections::HashSet;
use std::fs;
use support::{Folder, Output, PHOTO, ROOT};
use weft::data::photo::{Photo, Rect};
use weft::device::Device;
use weft::eval::places;
use weft::face::Model;

const FACES: usize = 12;

/// A folder with synthetic faces in `d`, three backgrounds in `b`, one of which is actually a portrait, and in `truth.csv` the
/// true boxes in the form of a detector's windows.
fn drawn() -> Folder {
    let folder = Folder::new();
    folder.ok("data synth d --images 40 --identities 10 --width 64 --height 64 --seed 5");
    fs::create_dir_all(folder.path("b/deep")).unwrap();
    Photo::open(PHOTO).unwrap().resized(128, 128).save_png(folder.path("b/deep/z<&\".png")).unwrap();
    for (name, step) in [("x.png", 3), ("deep/y.png", 5)] {
        let photo = Photo::from_fn(60, 50, |x, y| [(x * step) as u8, (y * step) as u8, (x * y) as u8]);
        photo.save_png(folder.path("b").join(name)).unwrap();
    }
    let boxes = fs::read_to_string(folder.path("d/Anno/list_bbox_celeba.txt")).unwrap();
    let rows: Vec<String> = boxes
        .lines()
        .skip(2)
        .map(|line| format!("{},0.9", line.split_whitespace().collect::<Vec<_>>().join(",")))
        .collect();
    folder.write("truth.csv", rows.join("\n"));
    folder
}

/// The values of an HTML attribute, unescaped.
fn values<'a>(page: &'a str, attribute: &str) -> Vec<&'a str> {
    page.split(&format!(" {attribute}=\"")).skip(1).map(|rest| rest.split_once('"').unwrap().0).collect()
}

/// The page is self-contained: links lead to anchors in it, ids are unique, nothing is fetched or executed.
#[track_caller]
fn assert_self_contained(page: &str) {
    let ids = values(page, "id");
    let known: HashSet<&&str> = ids.iter().collect();
    assert_eq!(ids.len(), known.len(), "{ids:?}");
    for link in values(page, "href") {
        match link.strip_prefix('#') {
            Some(id) => assert!(known.contains(&id), "#{id} is nowhere"),
            None => assert!(link.starts_with("data:image/jpeg;base64,/9j/"), "{}", &link[..link.len().min(60)]),
        }
    }
    // Compressed pixels may contain any text.
    let text: String = page.split("base64,").map(|part| part.split_once('"').map_or(part, |(_, rest)| rest)).collect();
    for foreign in ["http", "<script", "<link", " src=", "@import", "url("] {
        assert!(!text.contains(foreign), "{foreign} in the page");
    }
}

/// Every figure of the page equals the document's, and so does the displayed text.
#[track_caller]
fn assert_figures(page: &str, document: &Value) -> usize {
    let figures: Vec<&str> = page.split("<data data-key=\"").skip(1).collect();
    for figure in &figures {
        let (key, rest) = figure.split_once("\" value=\"").unwrap();
        let (value, rest) = rest.split_once("\">").unwrap();
        let shown: f64 = rest.split_once('<').unwrap().0.parse().unwrap();
        let expected = document.pointer(key).and_then(Value::as_f64).unwrap_or_else(|| panic!("{key} is no figure"));
        let value: f64 = value.parse().unwrap();
        // The JSON parser may be off by the last bit.
        assert!((value - expected).abs() <= 1e-12 * expected.abs(), "{key}: {value} for {expected}");
        let near = (shown - expected).abs() <= 0.006 || (shown - 100.0 * expected).abs() <= 0.51;
        assert!(near, "{key}: {shown} shown for {expected}");
    }
    figures.len()
}

#[test]
fn the_page_says_what_the_document_says_and_needs_nothing_else() {
    let folder = drawn();
    let line = format!(
        "eval --data d --split train --limit {FACES} --backgrounds b --detections truth.csv --name <truth&\" --report r --json"
    );
    let Output { code, stdout, stderr } = folder.weft(&line);
    assert_eq!(code, Some(0), "{stderr}");
    // The model knows attributes that the synthetic faces do not have.
    assert!(stderr.contains("skipped: d/Anno/list_attr_celeba.txt:2: attribute "), "{stderr}");
    let document: Value = serde_json::from_str(&stdout).unwrap();
    let results = fs::read_to_string(folder.path("r/results.json")).unwrap();
    assert_eq!(document, serde_json::from_str::<Value>(&results).unwrap());
    assert_eq!((&document["images"], &document["backgrounds"]), (&FACES.into(), &3.into()));
    assert_eq!(document["localisation"]["boxes"], FACES);

    // The ground truth, used as a detector, finds everything and nothing else.
    let truth = &document["other_detectors"][0];
    for key in ["/recall_iou_0.5", "/mean_iou", "/center_in_box", "/at_threshold/recall", "/recall_at_fppi/0.01"] {
        assert_eq!(truth.pointer(key), Some(&1.0.into()), "{key}");
    }
    assert_eq!(truth["at_threshold"]["false_positives_per_image"], 0.0);

    let page = fs::read_to_string(folder.path("r/index.html")).unwrap();
    assert_self_contained(&page);
    let attributes = document["per_attribute"].as_object().unwrap().len();
    assert!(assert_figures(&page, &document) > 6 * attributes, "{attributes} attributes");
    for section in ["attributes", "localisation", "scores", "photos"] {
        assert!(page.contains(&format!("<section id=\"{section}\">")), "{section}");
    }
    assert!(page.contains("&lt;truth&amp;&quot;") && !page.contains("<truth"));
    assert!(page.contains("deep/z&lt;&amp;&quot;.png") && !page.contains("z<"));
    assert!(page.contains("--limit 12"), "the command that makes it again");
    assert!(!fs::read_dir(folder.path("r")).unwrap().any(|e| e.unwrap().file_name().to_string_lossy().contains("tmp")));
}

#[test]
fn a_box_file_measures_localisation_alone_and_names_what_is_wrong() {
    let folder = Folder::new();
    let photo = Photo::open(PHOTO).unwrap();
    for name in ["a<&\".png", "b.png", "c.png"] {
        fs::create_dir_all(folder.path("images")).unwrap();
        photo.resized(128, 128).save_png(folder.path("images").join(name)).unwrap();
    }
    folder.write("images/broken.jpg", b"\xff\xd8\xff\xe0 nothing");
    folder.write(
        "boxes.csv",
        "image,x,y,width,height\n\"a<&\"\".png\",42,15,28,35\nb.png,500,500,9,9\nbroken.jpg,1,1,5,5\ngone.png,1,1,5,5\nc.png,5,5\n",
    );
    let Output { code, stdout, stderr } = folder.weft("eval --data boxes.csv --report r --json");
    assert_eq!(code, Some(0), "{stderr}");
    for expected in [
        "boxes.csv:3: box 9 x 9 at (500, 500) lies outside of b.png, 128 x 128 pixels",
        "images/broken.jpg: ",
        "boxes.csv:5: image \"gone.png\" is not in",
        "boxes.csv:6: 3 columns",
        "boxes.csv: no line for images/c.png; ",
    ] {
        assert!(stderr.contains(expected), "no {expected:?} in\n{stderr}");
    }
    let document: Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!((&document["images"], &document["localisation"]["images"]), (&2.into(), &1.into()));
    assert!(document.get("accuracy").is_none() && document.get("other_detectors").is_none(), "{document}");
    let page = fs::read_to_string(folder.path("r/index.html")).unwrap();
    assert_self_contained(&page);
    assert_figures(&page, &document);
    assert!(!page.contains("id=\"attributes\"") && page.contains("a&lt;&amp;&quot;.png") && !page.contains("a<&"));

    folder.fails("eval --data boxes.csv --strict", &["boxes.csv:6: 3 columns"]);
    folder.write("boxes.csv", "broken.jpg,1,1,5,5\n");
    let Output { code, stderr, .. } = folder.weft("eval --data boxes.csv");
    assert!(code == Some(1) && stderr.contains("weft: evaluation: has no photo that can be read"), "{stderr}");
    folder.write("boxes.csv", "b.png,500,500,9,9\n");
    let text = folder.weft("eval --data boxes.csv --limit 1").stdout;
    assert!(text.starts_with("1 photos, ") && !text.contains("localisation"), "{text}");
}

/// The photos of the training split of `d` and their boxes, as `x,y,width,height`.
fn train_boxes(folder: &Folder) -> Vec<(String, String)> {
    let read = |file: &str| fs::read_to_string(folder.path("d").join(file)).unwrap();
    let (boxes, parts) = (read("Anno/list_bbox_celeba.txt"), read("Eval/list_eval_partition.txt"));
    let train: HashSet<&str> = parts.lines().filter_map(|line| line.strip_suffix(" 0")).collect();
    let rows = boxes.lines().skip(2).map(|line| line.split_once(' ').unwrap());
    rows.filter(|(name, _)| train.contains(name)).map(|(name, sides)| (name.into(), sides.replace(' ', ","))).collect()
}

#[test]
fn detections_are_known_by_the_paths_that_were_located() {
    let folder = drawn();
    let absolute = folder.path("d/Img/img_celeba").display().to_string();
    let own = folder.0.path().file_name().unwrap().to_str().unwrap().to_string();
    let spellings = [
        format!("{absolute}/"),
        "d/Img/img_celeba/".into(),
        "./d/Img/../Img/img_celeba/".into(),
        format!("../{own}/d/Img/img_celeba/"),
        "/elsewhere/img_celeba/".into(),
        "Img/img_celeba/".into(),
        "./".into(),
        String::new(),
    ];
    let mut rows = vec!["image,x,y,width,height,score".to_string()];
    for (i, (name, sides)) in train_boxes(&folder).iter().enumerate() {
        let sides = if i % 2 == 0 { sides.clone() } else { format!("\"{}\"", sides.replace(',', "\",\"")) };
        rows.push(format!("\"{}{name}\",{sides},0.9", spellings[i % spellings.len()]));
    }
    rows.push("b/x.png,,,,,".into());
    rows.push(format!("{}/y.png,,,,,", folder.path("b/deep").display()));
    rows.push("\"deep/z<&\"\".png\",,,,,".into());
    folder.write("paths.csv", rows.join("\r\n"));
    let line = "eval --data d --split train --limit 4 --backgrounds b --detections paths.csv --json";
    let Output { code, stdout, stderr } = folder.weft(line);
    assert!(code == Some(0) && !stderr.contains("paths.csv"), "{stderr}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    let truth = &found["other_detectors"][0];
    assert_eq!((&truth["recall_iou_0.5"], &truth["mean_iou"]), (&1.0.into(), &1.0.into()), "{truth}");

    // A photo without a line has unknown boxes; a name that matches two photos or none is reported.
    rows.remove(1);
    rows[1] = format!("/other/part/q.jpg{}", &rows[1][rows[1].find(",").unwrap()..]);
    rows.push("b/x.png,1,1,5,5".into());
    folder.write("paths.csv", rows.join("\n"));
    let stderr = folder.weft(line).stderr;
    for expected in ["is none of the photos (1 such lines)", "no score", "paths.csv: no line for 2 of "] {
        assert!(stderr.contains(expected), "no {expected:?} in\n{stderr}");
    }
    assert_eq!(folder.weft(&format!("{line} --strict")).code, Some(1));
}

#[test]
fn a_box_file_may_name_photos_in_folders_by_path_and_without_a_face() {
    let folder = Folder::new();
    let photo = Photo::open(PHOTO).unwrap().resized(128, 128);
    let plain = Photo::from_fn(60, 50, |x, y| [(x * 3) as u8, (y * 5) as u8, 9]);
    for name in ["sub/a.png", "sub/deep/a.png", "nl\nname.png", "c.png"] {
        let path = folder.path("images").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        photo.save_png(path).unwrap();
    }
    plain.save_png(folder.path("images/plain.png")).unwrap();
    let absolute = folder.path("images/sub/deep/a.png").display().to_string();
    let text = format!(
        "image,x,y,width,height\nsub/a.png,42,15,28,35\n{absolute},42,15,28,35\n\"nl\nname.png\",42,15,28,35\n/moved/images/c.png,42,15,28,35\nplain.png,,,,\n"
    );
    folder.write("boxes.csv", text);
    for line in ["eval --data boxes.csv --json", "eval --data boxes.csv --json --strict"] {
        let Output { code, stdout, stderr } = folder.weft(line);
        assert!(code == Some(0) && !stderr.contains("boxes.csv"), "{stderr}");
        let found: Value = serde_json::from_str(&stdout).unwrap();
        assert_eq!((&found["images"], &found["backgrounds"]), (&4.into(), &1.into()), "{found}");
        assert_eq!((&found["localisation"]["boxes"], &found["localisation"]["images"]), (&4.into(), &4.into()));
    }
    let report = folder.json("data check boxes.csv --json");
    assert_eq!((&report["images"], &report["boxes"], &report["problem_count"]), (&5.into(), &4.into(), &0.into()));
}

#[test]
fn kaggle_s_copy_of_celeba_is_measured_and_a_partition_that_was_cut_is_refused() {
    let folder = drawn();
    let table = |from: &str, header: Option<&str>, to: &str| {
        let text = fs::read_to_string(folder.path("d").join(from)).unwrap();
        let rows = text.lines().skip_while(|line| line.bytes().all(|b| b.is_ascii_digit()));
        let rows = rows.map(|line| line.split_whitespace().collect::<Vec<_>>().join(","));
        let rows = rows.enumerate().map(|(i, row)| match header {
            Some("") if i == 0 => format!("image_id,{row}\n"),
            Some(header) if i == 0 && !header.is_empty() => format!("{header}\n{row}\n"),
            _ => row + "\n",
        });
        folder.write(&format!("k/{to}"), rows.collect::<String>());
    };
    table("Anno/list_attr_celeba.txt", Some(""), "list_attr_celeba.csv");
    table("Anno/list_bbox_celeba.txt", None, "list_bbox_celeba.csv");
    table("Eval/list_eval_partition.txt", Some("image_id,partition"), "list_eval_partition.csv");
    fs::create_dir_all(folder.path("k/img_align_celeba")).unwrap();
    fs::rename(folder.path("d/Img/img_celeba"), folder.path("k/img_align_celeba/img_align_celeba")).unwrap();

    let text = folder.ok("data check k");
    assert!(text.starts_with("k: celeba, 40 images\n") && text.contains("missing"), "{text}");
    let Output { code, stdout, stderr } = folder.weft("eval --data k --split train --limit 4 --json");
    assert!(
        code == Some(0) && stderr.contains("list_bbox_celeba.csv: its boxes are for the photos in img_celeba"),
        "{stderr}"
    );
    let found: Value = serde_json::from_str(&stdout).unwrap();
    assert!(found["images"] == 4 && found["accuracy"].is_f64() && found.get("localisation").is_none(), "{found}");
    folder.write(
        "c.toml",
        "stage = 'pretrain-identities'\nnet = 'net.toml'\noutput = 'run'\nepochs = 1\nbatch = 4\nper_identity = 2\nseed = 1\n\
         [data]\nroot = 'k'\n[view]\nkind = 'frame'\nsize = [88, 88]\n[schedule]\nkind = 'one-cycle'\nrate = 0.01\n",
    );
    folder.fails("train c.toml", &["k: no identity_CelebA.txt in it, which pretrain-identities needs; "]);

    let parts = fs::read_to_string(folder.path("k/list_eval_partition.csv")).unwrap();
    let cut: String = parts.lines().take(4).map(|line| format!("{line}\n")).collect();
    folder.write("k/list_eval_partition.csv", cut);
    let said = "k/list_eval_partition.csv: covers 3 of 40 photos: was it cut short?";
    for line in [
        "eval --data k",
        "eval --data k --split train --strict",
        "svm train --data k -o s.safetensors",
        "data check k --strict",
    ] {
        folder.fails(line, &[said]);
    }
    assert!(folder.ok("data check k").contains(said));
}

#[test]
fn wrong_requests_are_named() {
    let folder = drawn();
    folder.fails("eval --data nowhere", &["nowhere", "is missing"]);
    folder.fails("eval --data b", &["neither CelebA's layout nor boxes.csv"]);
    folder.fails("eval --data d --backgrounds nowhere", &["nowhere"]);
    folder.fails("eval --data d --detections gone.csv", &["gone.csv"]);
    folder.fails("eval --data d --detections truth.csv --name a --name b", &["2 names for 1 files"]);
    folder.write("other.csv", "other.jpg,1,1,5,5,0.5\n");
    folder.fails("eval --data d --detections other.csv", &["other.csv", "none of the photos"]);
    assert_eq!(folder.weft("eval --data d --name a").code, Some(2));
}

#[test]
fn attributes_are_found_by_name() {
    let names = |names: &[&str]| names.iter().map(|name| name.to_string()).collect::<Vec<_>>();
    assert_eq!(places(&names(&["b", "a"]), &names(&["a", "x", "b"])).unwrap(), [2, 0]);
    let error = places(&names(&["b"]), &names(&["a"])).unwrap_err().to_string();
    assert!(error.starts_with("attribute b: is in the model, but not in the data"), "{error}");
}

#[test]
fn a_threshold_of_the_bundle_is_the_model_s_own() {
    let folder = drawn();
    folder.bundle("m");
    let bundle = fs::read_to_string(folder.path("m/model.toml")).unwrap();
    let high = |line: &str| if line.starts_with("threshold = ") { "threshold = 1e6" } else { line }.to_string() + "\n";
    folder.write("m/model.toml", bundle.lines().map(high).collect::<String>());
    let Output { code, stdout, stderr } =
        folder.weft("eval --data d --split train --limit 4 --backgrounds b --model m --report r --json");
    assert_eq!(code, Some(0), "{stderr}");
    let document: Value = serde_json::from_str(&stdout).unwrap();
    let l = &document["localisation"];
    assert_eq!((&document["without_face"], &document["backgrounds_with_face"]), (&4.into(), &0.into()));
    assert_eq!(
        (&l["threshold"], &l["at_threshold"]["recall"], &l["recall_iou_0.5"]),
        (&1e6.into(), &0.0.into(), &0.0.into())
    );
    // The curve is independent of the threshold.
    assert!(l["roc"].as_array().unwrap().len() > 1, "{l}");
    let page = fs::read_to_string(folder.path("r/index.html")).unwrap();
    assert!(page.contains("nothing found") && page.contains("threshold 1000000"));
    assert_figures(&page, &document);
}

#[test]
fn what_is_located_is_the_best_that_is_detected() {
    let mut model = Model::load(std::path::Path::new(ROOT).join("weights"), &Device::Cpu).unwrap();
    for width in [160, 400] {
        let photo = Photo::open(PHOTO).unwrap().resized(width, 300);
        let threshold = model.threshold();
        let all = model.detect(&photo, f32::NEG_INFINITY).unwrap();
        assert!(all.is_sorted_by(|a, b| a.score >= b.score));
        let best = all.iter().find(|face| face.score >= threshold).map(|face| face.rect);
        assert_eq!(model.locate(&photo).unwrap().map(|face| face.rect), best);
        assert!(best.is_some_and(|r| r.intersection(&Rect::new(0.0, 0.0, width as f32, 300.0)).is_some()));
    }
}

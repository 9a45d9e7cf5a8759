//! No input or result of a user is lost: results never share a name or replace an input, a folder has one writer, answers are
//! written as they become available and interrupted work continues.
#![cfg(unix)]

mod support;

use serde_json::Value;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::{Folder, Output, PHOTO, mini, said};
use weft::data::photo::Photo;
use weft::lock::Lock;

/// A folder with a small photo of a face under several names.
fn photos(names: &[&str]) -> Folder {
    let folder = Folder::new();
    let small = Photo::open(PHOTO).unwrap().fit_within(160).0;
    for name in names {
        let path = folder.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        small.save_png(path).unwrap();
    }
    folder
}

/// `weft` through a shell, for redirections.
fn shell(folder: &Folder, line: &str) -> Output {
    let weft = env!("CARGO_BIN_EXE_weft");
    let output = Command::new("sh").args(["-c", &line.replace("weft", weft)]).current_dir(&folder.0).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: said(&text(output.stderr)) }
}

fn images(document: &str) -> Vec<String> {
    let list: Vec<Value> = serde_json::from_str(document).unwrap_or_else(|e| panic!("{e}: {document}"));
    list.iter().map(|answer| answer["image"].as_str().unwrap().to_string()).collect()
}

fn listing(folder: &Folder, name: &str) -> Vec<String> {
    folder.tree(name).keys().map(|path| path.display().to_string()).collect()
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Waits until a file contains `text`.
#[track_caller]
fn wait_for(file: &Path, text: &str, child: &mut Child) {
    let began = Instant::now();
    let has = |content: Vec<u8>| text.is_empty() || content.windows(text.len()).any(|part| part == text.as_bytes());
    while !fs::read(file).is_ok_and(has) {
        assert!(began.elapsed() < Duration::from_secs(600), "no {text} in {}", file.display());
        assert!(child.try_wait().unwrap().is_none(), "it ended before it wrote {text}");
        sleep(Duration::from_millis(2));
    }
}

#[test]
fn pictures_of_photos_with_equal_names_keep_their_folders() {
    let folder = photos(&["x/a.png", "y/a.png"]);
    let Output { code, stdout, stderr } = folder.weft("predict x/a.png y/a.png --annotate out --jsonl");
    assert_eq!((code, stdout.lines().count()), (Some(0), 2), "{stderr}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    assert!(
        stderr.starts_with("--annotate out: names of photos would meet there: they keep their folders"),
        "{stderr}"
    );
    assert_eq!(listing(&folder, "out"), ["x/a.png", "y/a.png"]);
    // Output of an earlier run of the same command is replaced, under the same names.
    folder.weft("predict x/a.png y/a.png --annotate out --jsonl");
    assert_eq!(listing(&folder, "out"), ["x/a.png", "y/a.png"]);
    let output = folder.weft("locate x/a.png y/a.png --maps maps --jsonl");
    assert_eq!((output.code, output.stderr.lines().count()), (Some(0), 1), "{}", output.stderr);
    assert_eq!(listing(&folder, "maps"), ["x/a.lnet_o.png", "x/a.lnet_s.png", "y/a.lnet_o.png", "y/a.lnet_s.png"]);
}

#[test]
fn pictures_never_replace_a_photo_that_is_read() {
    let folder = photos(&["x/a.png"]);
    let before = fs::read(folder.path("x/a.png")).unwrap();
    assert_eq!(folder.weft("predict x/a.png --annotate x").code, Some(0));
    assert!(fs::read(folder.path("x/a.png")).unwrap() == before, "the photo was written over");
    assert_eq!(listing(&folder, "x"), ["a.png", "a.png.png"]);
}

#[test]
fn a_file_in_the_place_of_a_folder_is_named_with_its_flag() {
    let folder = photos(&["a.png"]);
    folder.write("out", "");
    folder.fails("predict a.png --annotate out", &["--annotate: out: exists and is not a folder; give a folder"]);
    folder.fails("locate a.png --maps out", &["--maps: out: exists and is not a folder"]);
}

#[test]
fn no_command_writes_over_what_it_reads() {
    let folder = photos(&["a.png"]);
    folder.bundle("m");
    folder.write(
        "net.toml",
        "name = \"n\"\ninput = [1, 1, 1]\n[[layer]]\nname = \"c\"\ntype = \"conv\"\nfilters = 1\nkernel = 1\n",
    );
    folder.tensors("w", &[("c.weight", &[1, 1, 1, 1], &[2.0]), ("c.bias", &[1], &[1.0])]);
    folder.tensors("in", &[("input", &[1, 1, 1, 1], &[3.0])]);
    folder.write("boxes.csv", "a.png,10,10,50,50\n");
    folder.write("list.txt", "a.png\n");
    fs::create_dir(folder.path("r")).unwrap();
    fs::write(folder.path("r/results.json"), "a.png,10,10,50,50,0.5\n").unwrap();
    let before = folder.tree(".");
    for line in [
        "weights convert w --output w --dtype f16",
        "weights convert w --output ./w --dtype f16",
        "run net.toml --weights w --input in --output in",
        "run net.toml --weights w --input in --output w",
        "run net.toml --weights w --input in --output net.toml",
        "extract a.png --net m/anet.toml --weights m/anet.safetensors --stride 8 --output m/anet.safetensors",
        "extract --net m/anet.toml --stride 8 --plan 100x100 --draw m/anet.toml",
        "profile m/anet.toml --trace m/anet.toml",
        "bench interweave --net m/anet.toml --image 100x100 --stride 24 --plot m/anet.toml",
        "predict a.png --jsonl --output a.png",
        "predict --list list.txt --jsonl --output list.txt",
        "predict a.png --model m --jsonl --output m/model.toml",
        "eval --data boxes.csv --detections r/results.json --report r",
        "svm train --data none --model m --output m/anet.safetensors",
    ] {
        folder.fails(line, &["is read by this very command", "choose another file"]);
    }
    assert!(folder.tree(".") == before, "something was written");
}

#[test]
fn training_does_not_replace_the_weights_that_it_starts_from() {
    let folder = Folder::new();
    mini::write(&folder);
    let run = "train anet-train.toml --set epochs=1 --set output=run";
    assert_eq!(folder.weft(run).code, Some(0));
    fs::remove_file(folder.path("run/checkpoint.safetensors")).unwrap();
    let before = folder.tree("run");
    folder.fails(
        &format!("{run} --set init=run/last.safetensors"),
        &["output: run/last.safetensors is read by this very"],
    );
    assert!(folder.tree("run") == before);
}

#[test]
fn a_folder_has_one_training_at_a_time() {
    let folder = Folder::new();
    mini::write(&folder);
    let run = "train anet-train.toml --resume --set epochs=100000 --set checkpoint_every=1 --set output=run";
    let mut first = folder.command(run).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    // Only a run that left a checkpoint can be distinguished from another run afterwards.
    wait_for(&folder.path("run/checkpoint.safetensors"), "", &mut first);
    for resume in ["", " --resume"] {
        let line = run.replace(" --resume", resume);
        let who = format!("run: in use by process {}", first.id());
        folder.fails(
            &line,
            &[&who, " since 20", " UTC: a training run, ", "wait for it, stop it, or choose another folder"],
        );
    }
    // The lock is released with its process, however that ends.
    first.kill().unwrap();
    first.wait().unwrap();
    let output = folder.weft(&run.replace("epochs=100000", "epochs=100001"));
    assert!(output.stderr.contains("belongs to another run"), "{}", output.stderr);
    let mut again = folder.command(run).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    wait_for(&folder.path("run/.lock"), &again.id().to_string(), &mut again);
    signal(&again, "-INT");
    let output = again.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(!folder.path("run/.lock").exists(), "the lock's file was left behind");
}

#[test]
fn a_recipe_has_its_folder_for_itself_and_reads_nothing_from_a_step_that_writes_it() {
    let folder = Folder::new();
    mini::write(&folder);
    let step = "[[step]]\nname = \"anet\"\nkind = \"train\"\nfile = \"anet-train.toml\"\n";
    folder.write("r.toml", format!("output = \"out\"\n{step}set = {{ epochs = 100000 }}\n"));
    let mut first = folder.command("train r.toml").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    wait_for(&folder.path("out/anet/log.csv"), "step", &mut first);
    folder.fails("train r.toml", &["out: in use by process ", ": the recipe r.toml; wait for it"]);
    first.kill().unwrap();
    first.wait().unwrap();
    folder.write("own.toml", format!("output = \"out\"\n{step}set = {{ init = \"out/anet/last.safetensors\" }}\n"));
    folder.fails("train own.toml", &["step anet: init: ", "lies in the folder of this step's results"]);
}

#[test]
fn what_is_made_for_others_has_one_maker() {
    let folder = photos(&["p/images/a.png", "things/class/b.png"]);
    folder.write("p/boxes.csv", "a.png,10,10,50,50\n");
    let lock = Lock::take(folder.path("out"), "a test").unwrap();
    let scenes = "data scenes out --photos p/boxes.csv --backgrounds things --count 2";
    for line in ["data synth out --images 2", scenes, "eval --data p/boxes.csv --report out"] {
        folder.fails(line, &["out: in use by process ", ": a test; "]);
    }
    drop(lock);
    folder.ok(scenes);
    assert_eq!(listing(&folder, "out"), ["boxes.csv", "images/00000.jpg", "images/00001.jpg"]);
}

#[test]
fn a_full_or_closed_standard_error_costs_no_result() {
    let folder = photos(&["a.png"]);
    for redirection in ["2>/dev/full", "2>&-"] {
        for command in ["predict nope.png a.png --json", "locate nope.png a.png --json"] {
            let Output { code, stdout, .. } = shell(&folder, &format!("weft {command} {redirection}"));
            assert_eq!(code, Some(1), "{command} {redirection}");
            assert_eq!(images(&stdout), ["nope.png", "a.png"], "{command} {redirection}");
        }
    }
    // In the opposite case, the error is reported.
    let Output { code, stderr, .. } = shell(&folder, "weft predict a.png --json >/dev/full");
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.starts_with("weft: standard output: "), "{stderr}");
}

#[test]
fn a_decoder_that_panics_is_one_line() {
    let folder = photos(&[]);
    let broken = Path::new(support::ROOT).join("tests/fuzz/regressions/png/decoder-panics-on-a-short-palette");
    fs::copy(broken, folder.path("short.png")).unwrap();
    let Output { code, stderr, .. } = folder.weft("predict short.png --json");
    assert_eq!((code, stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.starts_with("weft: short.png: the decoder failed on it; "), "{stderr}");
}

#[test]
fn every_photo_has_a_row_and_every_row_all_columns() {
    let folder = photos(&["a.png", "q,\"x\"\n.png"]);
    Photo::from_fn(90, 60, |_, _| [7; 3]).save_png(folder.path("none.png")).unwrap();
    folder.write("list", "a.png\0q,\"x\"\n.png\0none.png\0nope.png\0");
    for (command, columns) in [("predict", 46), ("locate", 6)] {
        let Output { code, stdout, stderr } = folder.weft(&format!("{command} --list list --csv"));
        assert_eq!(code, Some(1), "{stderr}");
        let mut reader = csv::Reader::from_reader(stdout.as_bytes());
        assert_eq!(reader.headers().unwrap().len(), columns);
        let rows: Vec<csv::StringRecord> = reader.records().map(Result::unwrap).collect();
        let names: Vec<&str> = rows.iter().map(|row| &row[0]).collect();
        assert_eq!(names, ["a.png", "q,\"x\"\n.png", "none.png", "nope.png"]);
        let filled = |row: &csv::StringRecord| row.iter().skip(1).filter(|field| !field.is_empty()).count();
        assert_eq!(rows.iter().map(filled).collect::<Vec<_>>(), [columns - 1, columns - 1, 0, 0]);
    }
}

#[test]
fn lists_come_from_a_file_or_a_pipe() {
    let folder = photos(&["a.png", "b.png"]);
    folder.write("list.txt", "b.png\r\n\nnope.png\n");
    let Output { code, stdout, stderr } = folder.weft("locate a.png --list list.txt --json");
    assert_eq!((code, images(&stdout)), (Some(1), vec!["a.png".into(), "b.png".into(), "nope.png".into()]), "{stderr}");
    let Output { code, stdout, .. } = shell(&folder, "printf 'a.png\\nb.png\\n' | weft predict --list - --jsonl");
    assert_eq!((code, stdout.lines().count()), (Some(0), 2));
    assert!(stdout.lines().all(|line| serde_json::from_str::<Value>(line).is_ok_and(|v| !v["face"].is_null())));
    folder.write("empty", "\n");
    folder.fails("predict --list empty", &["empty: names no photo"]);
    folder.fails("predict --list nowhere", &["nowhere: "]);
    assert_eq!(folder.weft("predict").code, Some(2));
    assert_eq!(folder.weft("predict a.png --resume --jsonl").code, Some(2), "--resume needs --output");
}

#[test]
fn interrupted_answers_are_on_disk_and_go_on() {
    let names: Vec<String> = (0..16).map(|i| format!("{i}.png")).collect();
    let folder = photos(&names.iter().map(String::as_str).collect::<Vec<_>>());
    folder.write("list", names.join("\n"));
    let answers = |name: &str| fs::read_to_string(folder.path(name)).unwrap();
    for format in ["json", "jsonl", "csv"] {
        let whole = folder.weft(&format!("predict --list list --{format}")).stdout;
        for how in ["-INT", "-KILL"] {
            let file = format!("{format}{how}");
            let line = format!("predict --list list --{format} --output {file}");
            let mut child = folder.command(&line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
            wait_for(&folder.path(&file), "2.png", &mut child);
            signal(&child, how);
            let output = child.wait_with_output().unwrap();
            let stderr = String::from_utf8(output.stderr).unwrap();
            if how == "-INT" {
                assert_eq!(output.status.code(), Some(1), "{stderr}");
                let advice = format!("go on with --output {file} --resume");
                assert!(stderr.contains("stopped after ") && stderr.contains(&advice), "{stderr}");
                if format == "json" {
                    assert!((3..16).contains(&images(&answers(&file)).len()), "an interrupted list is closed");
                }
            }
            assert!(answers(&file).len() < whole.len(), "{file}: it was done before it was stopped");
            folder.fails(&line, &[&file, "exists already", "--resume"]);
            let output = folder.weft(&format!("{line} --resume"));
            assert_eq!(output.code, Some(0), "{}", output.stderr);
            assert!(answers(&file) == whole, "{file} differs from an undisturbed run");
            // All answers exist: nothing is done and nothing changes.
            assert_eq!(folder.weft(&format!("{line} --resume")).code, Some(0));
            assert!(answers(&file) == whole);
        }
    }
}

#[test]
fn two_programs_do_not_write_the_same_answers() {
    let folder = photos(&["a.png"]);
    let file = File::create(folder.path("answers")).unwrap();
    file.try_lock().unwrap();
    folder.fails("predict a.png --jsonl --output answers --resume", &["answers: another program writes to it"]);
}

#[test]
fn resuming_cuts_nothing_off_a_file_of_another_kind() {
    let folder = photos(&["a.png"]);
    folder.write("notes", "dear diary\n");
    for format in ["json", "jsonl", "csv"] {
        folder
            .fails(&format!("predict a.png --{format} --output notes --resume"), &["notes: line 1: is not an answer"]);
    }
    folder.fails("predict a.png --output notes --resume", &["--resume: cannot read answers for people"]);
    assert_eq!(fs::read_to_string(folder.path("notes")).unwrap(), "dear diary\n");
}

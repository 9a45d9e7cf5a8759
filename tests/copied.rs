//! The bare program, copied to a folder of its own, with an empty environment: everything that ships is embedded.

mod support;

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{Folder, Output, PHOTO, ROOT};

/// A folder with a copy of the program in `bin`, which is run in `elsewhere`.
fn copied() -> Folder {
    let folder = Folder::new();
    folder.write("elsewhere/photo.jpg", fs::read(PHOTO).unwrap());
    fs::create_dir(folder.path("bin")).unwrap();
    fs::copy(env!("CARGO_BIN_EXE_weft"), folder.path("bin/weft")).unwrap();
    folder
}

fn run(folder: &Folder, line: &str) -> Output {
    let mut command = Command::new(folder.path("bin/weft"));
    let output =
        command.args(line.split_whitespace()).current_dir(folder.path("elsewhere")).env_clear().output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Output { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

#[track_caller]
fn ok(folder: &Folder, line: &str) -> String {
    let Output { code, stdout, stderr } = run(folder, line);
    assert_eq!(code, Some(0), "weft {line}: {stderr}");
    stdout
}

fn json(folder: &Folder, line: &str) -> Value {
    serde_json::from_str(&ok(folder, line)).unwrap()
}

/// Attribute scores for the portrait.
fn attributes(folder: &Folder, line: &str) -> Value {
    json(folder, line)[0]["attributes"].clone()
}

#[test]
fn a_copied_program_predicts_as_the_model_of_the_repository_does() {
    let folder = copied();
    let built_in = attributes(&folder, "predict photo.jpg --json");
    assert_eq!(built_in.as_object().unwrap().len(), 40);
    assert_eq!(built_in, attributes(&folder, &format!("predict photo.jpg --model {ROOT}/weights --json")));
    assert!(ok(&folder, "doctor --device cpu").contains("\nmodel        built in"));
}

#[test]
fn a_bundle_beside_the_program_comes_before_the_built_in_one() {
    let folder = copied();
    ok(&folder, "weights export ../bin/weights");
    let shipped = Path::new(ROOT).join("weights");
    for entry in fs::read_dir(folder.path("bin/weights")).unwrap() {
        let path = entry.unwrap().path();
        assert_eq!(fs::read(&path).unwrap(), fs::read(shipped.join(path.file_name().unwrap())).unwrap(), "{path:?}");
    }
    let again = run(&folder, "weights export ../bin/weights");
    assert!(again.code == Some(1) && again.stderr.contains("is there already"), "{}", again.stderr);

    let doctor = json(&folder, "doctor --device cpu --json");
    assert!(doctor["machine"]["model"].as_str().unwrap().ends_with("bin/weights"), "{doctor}");
    fs::remove_file(folder.path("bin/weights/anet.safetensors")).unwrap();
    let broken = run(&folder, "predict photo.jpg");
    assert!(broken.code == Some(1) && broken.stderr.contains("bin/weights/anet.safetensors"), "{}", broken.stderr);
}

#[test]
fn built_in_nets_and_their_weights_go_by_name() {
    let folder = copied();
    let weights = format!("{ROOT}/weights/anet.safetensors");
    ok(&folder, "extract photo.jpg --net anet --stride 100 -o by-name.npy");
    ok(
        &folder,
        &format!(
            "extract photo.jpg --net {ROOT}/weights/anet.toml --layer fc --weights {weights} --stride 100 -o by-path.npy"
        ),
    );
    let read = |name: &str| fs::read(folder.path("elsewhere").join(name)).unwrap();
    assert!(read("by-name.npy").len() > 1000 && read("by-name.npy") == read("by-path.npy"));

    for net in ["anet", "lnet_o", "lnet_s", "anet_deepid2", "lnet_half"] {
        assert!(ok(&folder, &format!("plan {net}")).contains("c1"), "{net}");
    }
    // A file with that name takes precedence.
    folder.write("elsewhere/anet", fs::read(format!("{ROOT}/nets/anet_deepid2.toml")).unwrap());
    assert_eq!(ok(&folder, "plan anet"), ok(&folder, "plan anet_deepid2"));

    folder.write("elsewhere/own.toml", fs::read(format!("{ROOT}/nets/anet_deepid2.toml")).unwrap());
    for (line, code, part) in [
        (
            "extract photo.jpg --net lnet_half --stride 8",
            2,
            "--weights is missing: built-in lnet_half.toml: has no built-in",
        ),
        ("extract photo.jpg --net own.toml --stride 8", 2, "--weights is missing"),
        (
            "plan anet_deepid",
            1,
            "weft: anet_deepid: No such file or directory (os error 2); give the path of a network ",
        ),
    ] {
        let output = run(&folder, line);
        assert!(output.code == Some(code) && output.stderr.contains(part), "weft {line}: {}", output.stderr);
    }
}

#[test]
fn recipes_are_printed() {
    let folder = copied();
    let list = ok(&folder, "train --show");
    for name in ["celeba-mini", "lnet-o-tags", "anet-attributes-scratch"] {
        assert!(list.lines().any(|line| line.starts_with(name)), "{list}");
        let text = ok(&folder, &format!("train --show {name}"));
        assert!(text.starts_with(&format!("# Printed by: weft train --show {name}\n")), "{text}");
        assert!(text.ends_with(&fs::read_to_string(format!("{ROOT}/weights/recipes/{name}.toml")).unwrap()));
    }
    let unknown = run(&folder, "train --show celeba");
    assert!(unknown.code == Some(1) && unknown.stderr.contains("known: ablations, "), "{}", unknown.stderr);
    assert_eq!(unknown.stderr.lines().count(), 1);
    for line in ["train", "train a.toml --show", "train --show model --json"] {
        assert_eq!(run(&folder, line).code, Some(2), "weft {line}");
    }
    // Reads the net by its name, and then fails because the photos are missing.
    folder.write("elsewhere/own.toml", ok(&folder, "train --show anet-attributes-scratch"));
    let training = run(&folder, "train own.toml");
    assert!(training.code == Some(1) && training.stderr.contains("data/celeba-aligned-mini"), "{}", training.stderr);
}

/// The repository's path is used only by tests.
#[test]
fn no_source_of_the_program_names_the_repository() {
    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { sources(&path, found) } else { found.push(path) }
        }
    }
    let mut found = Vec::new();
    ["src", "simt/src"].iter().for_each(|folder| sources(&Path::new(ROOT).join(folder), &mut found));
    for path in found.iter().filter(|path| path.extension().is_some_and(|e| e == "rs")) {
        let text = fs::read_to_string(path).unwrap();
        let program = text.split("#[cfg(test)]").next().unwrap();
        assert!(!program.contains("CARGO_MANIFEST_DIR"), "{}", path.display());
    }
}

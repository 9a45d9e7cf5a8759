//! A whole recipe by one command: what is done, what is skipped and why, and errors in the file.

mod support;

use serde_json::Value;
use std::fs;
use support::{Folder, mini};

/// Name and state of every step.
fn states(folder: &Folder, line: &str) -> Vec<(String, String)> {
    let output = folder.weft(&format!("{line} --json"));
    assert_eq!(output.code, Some(0), "{line}: {}", output.stderr);
    let document: Value = serde_json::from_str(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap().to_string();
    document.as_array().unwrap().iter().map(|step| (text(&step["name"]), text(&step["state"]))).collect()
}

/// The steps that were done.
fn done(folder: &Folder, line: &str) -> Vec<String> {
    states(folder, line).into_iter().filter(|(_, state)| state == "done").map(|(name, _)| name).collect()
}

const STEPS: [&str; 11] =
    ["objects", "lnet-o", "anet-aligned", "draft", "scenes", "fitted", "frames", "anet", "final", "model", "measure"];

#[test]
fn a_recipe_is_done_once_and_what_changes_is_done_again() {
    let folder = Folder::new();
    mini::write(&folder);
    let planned = states(&folder, "train recipe.toml --dry-run");
    assert!(planned.iter().all(|(_, state)| state == "planned") && planned.len() == STEPS.len());
    assert!(!folder.path("runs").exists());

    let first = folder.weft("train recipe.toml");
    assert_eq!(first.code, Some(0), "{}", first.stderr);
    for (line, name) in first.stdout.lines().skip(1).zip(STEPS) {
        assert!(line.starts_with(name), "{}", first.stdout);
    }
    let document: Value = serde_json::from_slice(&fs::read(folder.path("runs/measure/eval.json")).unwrap()).unwrap();
    assert!(document["accuracy"].is_number() && document["localisation"]["recall_iou_0.5"].is_number());
    let fitted = fs::read_to_string(folder.path("runs/fitted/model.toml")).unwrap();
    assert!(fitted.contains("name = 'mini'") && !fitted.contains("width = 20.0\nshift = [0.0, 0.0]"), "{fitted}");
    let last = fs::read_to_string(folder.path("runs/final/model.toml")).unwrap();
    assert_eq!(last, fitted.replacen("sides = [48]", "sides = [32, 48]", 1));
    assert_eq!(fs::read_to_string(folder.path("runs/scenes/boxes.csv")).unwrap().lines().count(), 5);
    let whole = folder.tree("runs");

    // Nothing has changed.
    let second = folder.weft("train recipe.toml");
    let all_unchanged = STEPS.iter().all(|name| second.stderr.contains(&format!("{name}: unchanged, ")));
    assert!(all_unchanged && second.code == Some(0), "{}", second.stderr);
    assert!(folder.tree("runs") == whole);

    // A different comment or way of checking changes nothing.
    let text = fs::read_to_string(folder.path("anet-train.toml")).unwrap();
    folder.write("anet-train.toml", format!("# Here is ANet.\n{text}").replace("every = 2", "every = 3"));
    assert_eq!(done(&folder, "train recipe.toml"), Vec::<String>::new());

    // A setting: repeats the step itself and the steps that read its files; the old results are kept.
    assert_eq!(done(&folder, "train recipe.toml --set anet.seed=3"), ["anet", "final", "model", "measure"]);
    assert!(folder.path("runs/anet.1/last.safetensors").is_file());
    assert_eq!(done(&folder, "train recipe.toml --set anet.seed=3"), Vec::<String>::new());
    assert_eq!(done(&folder, "train recipe.toml"), ["anet", "final", "model", "measure"]);
    fs::remove_dir_all(folder.path("runs/anet.1")).unwrap();
    fs::remove_dir_all(folder.path("runs/anet.2")).unwrap();
    assert!(folder.tree("runs") == whole);

    // A file that is missing or was modified is produced again; if the result is the same, later steps are kept.
    fs::remove_file(folder.path("runs/final/lnet_s.safetensors")).unwrap();
    fs::write(folder.path("runs/frames/boxes.csv"), "image,x,y,width,height\n").unwrap();
    assert_eq!(done(&folder, "train recipe.toml"), ["frames", "final"]);
    assert!(folder.tree("runs") == whole);

    // A photo that was not used in training.
    let photo = fs::read_dir(folder.path("objects/class0")).unwrap().next().unwrap().unwrap().path();
    fs::copy(&photo, photo.with_file_name("another.jpg")).unwrap();
    let plan = folder.weft("train recipe.toml --dry-run");
    assert!(plan.stdout.contains("photos has changed"), "{}", plan.stdout);
    assert!(plan.stdout.contains("after objects, if that changes its files"), "{}", plan.stdout);
    assert!(folder.tree("runs") == whole);

    // A value that a bundle cannot have.
    let output = folder.weft("train recipe.toml --only final --set final.set.name.x=1");
    assert_eq!(output.code, Some(1));
    assert!(output.stderr.contains("step final: set.name.x: x is in no table of the template"), "{}", output.stderr);
}

#[test]
fn results_may_be_moved_and_steps_chosen() {
    let folder = Folder::new();
    mini::write(&folder);
    assert_eq!(done(&folder, "train recipe.toml --only objects --only anet-aligned"), ["objects", "anet-aligned"]);
    folder.fails("train recipe.toml --only frames", &["step frames: model: runs/fitted: no such file"]);
    fs::rename(folder.path("runs"), folder.path("elsewhere")).unwrap();
    assert_eq!(done(&folder, "train recipe.toml --set output=elsewhere")[..2], ["lnet-o", "draft"]);
    let states = states(&folder, "train recipe.toml --set output=elsewhere --from model");
    assert_eq!(states, [("model".into(), "unchanged".into()), ("measure".into(), "unchanged".to_string())]);
}

#[test]
fn mistakes_in_a_recipe_are_named_before_anything_is_done() {
    let folder = Folder::new();
    mini::write(&folder);
    let recipe = fs::read_to_string(folder.path("recipe.toml")).unwrap();
    for (from, to, expected) in [
        ("output = 'runs'", "", "recipe.toml: output: is missing"),
        ("output = 'runs'", "output = 'runs'\nouptut = 1", "recipe.toml:3: ouptut: is no key of a recipe"),
        ("name = 'lnet-o'", "name = 'objects'", "step objects: name: occurs twice"),
        ("name = 'lnet-o'", "name = 'lnet/o'", "step 2: the name \"lnet/o\""),
        ("name = 'lnet-o'", "", "step 2: has no name"),
        ("kind = 'locate'", "kind = 'lokate'", "step frames: kind: is \"lokate\"; give one of train, bundle"),
        ("window = 'frame'", "window = 'nose'", "step frames: window: unknown variant `nose`"),
        ("window = 'frame'", "windows = 'frame'", "step frames: unknown field `windows`"),
        ("splits = ['train', 'val']\n", "", "step frames: missing field `splits`"),
        ("'{draft}'", "'{drafts}'", "step fitted: model: {drafts} is no step; there are objects, lnet-o"),
        ("'{draft}'", "'{anet}'", "step fitted: model: {anet} is no earlier step"),
        ("'{draft}'", "'{draft'", "step fitted: model: \"{draft\" has a { without }"),
        ("'{objects}/last", "'{lnet-o}/last", "step lnet-o: set.init: {lnet-o} is no earlier step"),
        ("file = 'objects.toml'", "file = 'none.toml'", "step objects: none.toml: No such file"),
        ("epochs = 2 }", "epocs = 2 }", "step objects: set.epocs: unknown field `epocs`"),
        ("epochs = 2 }", "output = 'x' }", "step objects: set.output: is the step's own folder"),
        ("epochs = 2 }", "'data.root' = 'nowhere' }", "step objects: data.root: nowhere: no such file or folder"),
        ("'lnet_s.toml' =", "'../lnet_s.toml' =", "step draft: files.../lnet_s.toml: cannot be the name"),
        ("template = 'model.toml'", "template = 'm.toml'", "step draft: template: m.toml: no such file"),
        ("window = 'celeba'", "window = 'head'", "step fitted: window: head is the box of no face; give inner"),
        ("positives = 2.0", "positives = -2.0", "step fitted: false_positives: -2.0 is out of range; write 0 to 1000"),
        ("'pasted.csv'", "'nowhere.csv'", "step scenes: photos: nowhere.csv: no such file"),
        ("kind = 'bundle'", "kind = ", "recipe.toml:"),
    ] {
        assert!(recipe.contains(from), "{from}");
        folder.write("recipe.toml", recipe.replacen(from, to, 1));
        folder.fails("train recipe.toml", &["recipe.toml", expected]);
    }
    folder.write("recipe.toml", recipe);
    for (flags, expected) in [
        ("--set nets.seed=3", "there is no step nets; there are objects, lnet-o"),
        ("--set seed", "is no key=value"),
        ("--set anet.batch=0", "--set anet.batch: 0 is out of range; write 1 to 65536"),
        ("--only nothing", "is no step of recipe.toml"),
    ] {
        folder.fails(&format!("train recipe.toml {flags}"), &[expected]);
    }
    folder.fails("train anet-train.toml --dry-run", &["is no recipe"]);
    assert!(!folder.path("runs").exists());
}

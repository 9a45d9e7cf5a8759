//! Killed, interrupted, out of disk space: training continues from the last good checkpoint, and gives a bit-identical result.
#![cfg(unix)]

mod support;

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::{Folder, mini};
use weft::rng::Rng;
use weft::weights::TensorFile;

/// Number of processes that end by SIGKILL.
const KILLS: usize = 50;
const STEPS: usize = 200;
/// Ten steps per epoch; two evaluations of the validation split.
const RUN: &str = "train anet-train.toml --resume --set epochs=20 --set checkpoint_every=1 --set validate_every=10 \
                   --set dropout=[0.2,0.3] --set output=";

fn lab() -> Folder {
    let folder = Folder::new();
    mini::write(&folder);
    folder
}

/// A random seed, or the one from the environment.
fn rng() -> Rng {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().subsec_nanos();
    let seed = std::env::var("WEFT_TEST_SEED").map_or(u64::from(now), |seed| seed.parse().unwrap());
    eprintln!("WEFT_TEST_SEED={seed}");
    Rng::new(seed, 0)
}

fn spawn(folder: &Folder, line: &str) -> Child {
    folder.command(line).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs to the end without interruption; returns the duration.
fn whole(folder: &Folder, line: &str) -> Duration {
    let began = Instant::now();
    let output = folder.weft(line);
    assert_eq!(output.code, Some(0), "{line}: {}", output.stderr);
    began.elapsed()
}

/// The same run with few checkpoints, which is faster.
fn undisturbed(folder: &Folder, output: &str) {
    whole(folder, &format!("{RUN}{output} --set checkpoint_every=1000"));
}

/// Steps done according to a checkpoint; 0 without one.
fn step_of(checkpoint: &Path) -> usize {
    let Ok(file) = TensorFile::open(checkpoint) else { return 0 };
    let state: serde_json::Value = serde_json::from_str(&file.metadata()["weft.training"]).unwrap();
    state["step"].as_u64().unwrap() as usize
}

/// Waits until the process has written a checkpoint, or has exited.
fn wait_for_checkpoint(child: &mut Child, checkpoint: &Path) {
    // An inode number is reused when its file has been replaced twice.
    let version = || fs::metadata(checkpoint).map(|m| (m.ino(), m.mtime(), m.mtime_nsec())).ok();
    let (before, began) = (version(), Instant::now());
    while version() == before && child.try_wait().unwrap().is_none() {
        assert!(began.elapsed() < Duration::from_secs(600), "no checkpoint in ten minutes");
        sleep(Duration::from_micros(500));
    }
}

fn signal(child: &Child, name: &str) {
    assert!(Command::new("kill").args([name, &child.id().to_string()]).status().unwrap().success());
}

/// Starts a run, interrupts it once it has written a checkpoint, and returns its output.
fn interrupted(folder: &Folder, line: &str, output: &str, name: &str) -> String {
    let mut child = spawn(folder, line);
    wait_for_checkpoint(&mut child, &folder.path(output).join("checkpoint.safetensors"));
    signal(&child, name);
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    stderr
}

#[track_caller]
fn same(folder: &Folder, a: &str, b: &str) {
    let (a, b) = (folder.tree(a), folder.tree(b));
    assert_eq!(a.keys().collect::<Vec<_>>(), b.keys().collect::<Vec<_>>());
    for (name, content) in &a {
        assert!(*content == b[name], "{} differs", name.display());
    }
}

/// The times of the kills are relative to the process's own checkpoints, not to a clock, so that they are spread over the run on
/// a machine of any speed.
#[test]
fn killed_fifty_times_and_resumed_is_undisturbed_to_the_last_bit() {
    let (folder, mut rng) = (lab(), rng());
    whole(&folder, &format!("{RUN}whole"));
    let checkpoint = folder.path("killed/checkpoint.safetensors");
    let (mut lives, mut without_progress, mut littered) = (0, 0, 0);
    let (mut start_up, mut step) = (Duration::from_millis(50), Duration::ZERO);
    while lives < KILLS {
        let (mut began, before) = (Instant::now(), step_of(&checkpoint));
        let mut child = spawn(&folder, &format!("{RUN}killed"));
        // One process in four is killed at a random time during start-up; the others complete one step, some of the remaining
        // ones, and part of the next.
        if lives % 4 == 3 {
            sleep(start_up.mul_f32(rng.unit()));
        } else {
            wait_for_checkpoint(&mut child, &checkpoint);
            start_up = began.elapsed();
            for _ in 0..rng.below(2 + (STEPS - before) / (KILLS - lives + 5)) {
                began = Instant::now();
                wait_for_checkpoint(&mut child, &checkpoint);
                step = began.elapsed();
            }
            sleep(step.mul_f32(rng.unit()));
        }
        child.kill().unwrap();
        let status = child.wait().unwrap();
        if status.success() {
            // This process waited for the CPU for so long that the remaining steps were completed.
            break;
        }
        assert_eq!(status.signal(), Some(9), "life {lives} ended by itself after step {before}");
        lives += 1;
        without_progress += usize::from(step_of(&checkpoint) == before);
        littered +=
            usize::from(folder.path("killed").is_dir() && folder.tree("killed").keys().any(|name| is_temporary(name)));
    }
    let reached = step_of(&checkpoint);
    eprintln!(
        "{lives} kills to step {reached} of {STEPS}: {without_progress} without progress, {littered} within a write"
    );
    assert!(lives >= KILLS / 5, "only {lives} kills");
    whole(&folder, &format!("{RUN}killed"));
    same(&folder, "whole", "killed");
}

fn is_temporary(name: &Path) -> bool {
    name.extension().is_some_and(|extension| extension == "tmp")
}

#[test]
fn interrupted_training_saves_says_how_to_go_on_and_does() {
    let folder = lab();
    undisturbed(&folder, "whole");
    for name in ["-INT", "-TERM"] {
        let stderr = interrupted(&folder, &format!("{RUN}run"), "run", name);
        assert!(stderr.contains("stopping after this step"), "{stderr}");
        let step = step_of(&folder.path("run/checkpoint.safetensors"));
        let last = format!("weft: run: stopped after step {step} of {STEPS}; go on with --resume");
        assert_eq!(stderr.lines().last(), Some(last.as_str()));
    }
    undisturbed(&folder, "run");
    same(&folder, "whole", "run");
}

#[test]
fn a_killed_recipe_goes_on_with_the_same_command() {
    let (folder, mut rng) = (lab(), rng());
    let seconds = whole(&folder, "train recipe.toml --set output=whole").as_secs_f32();
    let recipe = "train recipe.toml --set output=killed";
    let mut moments = Vec::new();
    for _ in 0..10 {
        let delay = seconds * rng.range(0.0, 0.5);
        let mut child = spawn(&folder, recipe);
        sleep(Duration::from_secs_f32(delay));
        child.kill().unwrap();
        child.wait().unwrap();
        moments.push(format!("{:.0}", 1000.0 * delay));
    }
    eprintln!("killed after {} ms; undisturbed in {seconds:.2} s", moments.join(", "));
    whole(&folder, recipe);
    same(&folder, "whole", "killed");
}

#[test]
fn an_interrupted_recipe_names_the_step_and_goes_on() {
    let folder = lab();
    whole(&folder, "train recipe.toml --set output=whole");
    let recipe = "train recipe.toml --set output=run";
    let stderr = interrupted(&folder, recipe, "run/lnet-o", "-INT");
    assert!(stderr.contains("recipe.toml: step ") && stderr.contains("the same command goes on"), "{stderr}");
    whole(&folder, recipe);
    same(&folder, "whole", "run");
}

/// A run in a shell with further commands before it: exit code and output.
fn shell(folder: &Folder, before: &str, line: &str, after: &str) -> (Option<i32>, String) {
    let script = format!("{before} exec {} {line} {after}", env!("CARGO_BIN_EXE_weft"));
    let output = Command::new("sh").args(["-c", &script]).current_dir(&folder.0).output().unwrap();
    (output.status.code(), String::from_utf8(output.stderr).unwrap())
}

/// The single line that reports the error.
#[track_caller]
fn complaint(stderr: &str) -> &str {
    let lines: Vec<&str> = stderr.lines().filter(|line| line.starts_with("weft: ")).collect();
    assert!(lines.len() == 1 && stderr.lines().last() == Some(lines[0]), "{stderr}");
    lines[0]
}

#[test]
fn a_full_disk_keeps_the_last_good_checkpoint() {
    let folder = lab();
    // A long log, and no validation before the end.
    const LONG: &str = "--set epochs=40 --set validate_every=40";
    let line = format!("{RUN}run {LONG}");
    undisturbed(&folder, &format!("whole {LONG}"));
    interrupted(&folder, &line, "run", "-INT");
    let checkpoint = folder.path("run/checkpoint.safetensors");
    let before = fs::read(&checkpoint).unwrap();
    // A limit on the file size (in units of 512 bytes) simulates a full disk. The checkpoint does not fit:
    let (code, stderr) = shell(&folder, "trap '' XFSZ; ulimit -f 20;", &line, "");
    assert!(code == Some(1) && complaint(&stderr).contains("checkpoint.safetensors: cannot write: "), "{stderr}");
    assert!(complaint(&stderr).contains("the old file is untouched"), "{stderr}");
    assert!(fs::read(&checkpoint).unwrap() == before);
    // The log does not fit, and its last line is truncated:
    let (code, stderr) =
        shell(&folder, "trap '' XFSZ; ulimit -f 1;", &format!("{line} --set checkpoint_every=1000"), "");
    assert!(code == Some(1) && complaint(&stderr).contains("run/log.csv: "), "{stderr}");
    assert!(!fs::read_to_string(folder.path("run/log.csv")).unwrap().ends_with('\n'));
    assert!(fs::read(&checkpoint).unwrap() == before);
    // Where the limit's signal is not blocked, the process is killed.
    let (code, _) = shell(&folder, "ulimit -f 20;", &line, "");
    assert_eq!(code, None);
    undisturbed(&folder, &format!("run {LONG}"));
    same(&folder, "whole", "run");
}

#[test]
fn a_vanished_folder_is_an_error_and_its_checkpoint_goes_on_elsewhere() {
    let folder = lab();
    undisturbed(&folder, "whole");
    for replaced in [false, true] {
        let mut child = spawn(&folder, &format!("{RUN}run"));
        wait_for_checkpoint(&mut child, &folder.path("run/checkpoint.safetensors"));
        fs::rename(folder.path("run"), folder.path("away")).unwrap();
        if replaced {
            fs::write(folder.path("run"), "no folder").unwrap();
        }
        let output = child.wait_with_output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(1) && complaint(&stderr).contains("run/checkpoint"), "{stderr}");
        if replaced {
            fs::remove_file(folder.path("run")).unwrap();
        }
        assert!(!folder.path("run").exists());
        fs::rename(folder.path("away"), folder.path("run")).unwrap();
    }
    undisturbed(&folder, "run");
    same(&folder, "whole", "run");
}

#[test]
fn a_damaged_checkpoint_is_refused_by_name_with_advice() {
    let folder = lab();
    let line = "train anet-train.toml --set output=run";
    whole(&folder, line);
    let checkpoint = folder.path("run/checkpoint.safetensors");
    let content = fs::read(&checkpoint).unwrap();
    for length in [0, 7, 100, content.len() / 2, content.len() - 1] {
        fs::write(&checkpoint, &content[..length]).unwrap();
        folder.fails(&format!("{line} --resume"), &["run/checkpoint.safetensors: ", "move it away and start anew"]);
        assert_eq!(fs::read(&checkpoint).unwrap().len(), length);
    }
}

#[test]
fn full_streams_are_one_line_or_none() {
    let folder = lab();
    let line = "train anet-train.toml --json --set output=";
    let (code, stderr) = shell(&folder, "", &format!("{line}a"), "> /dev/full");
    assert!(code == Some(1) && complaint(&stderr).contains("standard output: "), "{stderr}");
    assert!(folder.path("a/last.safetensors").is_file());
    // Unreadable progress is not a reason to stop.
    assert_eq!(shell(&folder, "", &format!("{line}b"), "2> /dev/full").0, Some(0));
    same(&folder, "a", "b");
}

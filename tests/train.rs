//! Training on synthetic faces: it learns, it can be interrupted, and its mistakes produce one clear line.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use weft::data::celeba::CelebA;
use weft::data::synth;
use weft::device::{Convolution, Device, Precision};
use weft::train::{CHECKPOINT, Config, Event, Outcome, run};

const NET: &str = r#"
name = "small"
input = [3, 32, 32]

[[layer]]
name = "c1"
type = "conv"
filters = 12
kernel = 5
stride = 2
activation = "relu"

[[layer]]
name = "p1"
type = "max_pool"
kernel = 3
stride = 2

[[layer]]
name = "c2"
type = "local_conv"
filters = 16
kernel = 2
grid = 3
window = "valid"
span = 1
activation = "relu"

[[layer]]
name = "fc"
type = "linear"
outputs = 32
activation = "relu"
"#;

struct Lab {
    folder: tempfile::TempDir,
}

impl Lab {
    /// `images` synthetic faces with their boxes, a net, and a training file.
    fn new(images: usize, stage: &str, more: &str) -> Self {
        let lab = Self { folder: tempfile::tempdir().unwrap() };
        let config = synth::Config {
            images,
            identities: images / 10,
            width: (96, 120),
            height: (96, 120),
            ..Default::default()
        };
        synth::write(&config, &lab.path("faces"), &mut |_| ()).unwrap();
        let mut boxes = "image,x,y,width,height\n".to_string();
        for sample in CelebA::open(lab.path("faces"), true).unwrap().samples {
            let b = sample.bbox.unwrap().scaled_about_center(1.4);
            boxes += &format!("{},{},{},{},{}\n", sample.name, b.x, b.y, b.width, b.height);
        }
        fs::write(lab.path("boxes.csv"), boxes).unwrap();
        fs::write(lab.path("net.toml"), NET).unwrap();
        let path = |name: &str| lab.path(name).display().to_string();
        let validation = if stage == "finetune-attributes" { "validation = 'test'" } else { "" };
        let text = format!(
            "stage = '{stage}'\nnet = '{}'\noutput = '{}'\n{more}\n\
             [data]\nroot = '{}'\nboxes = '{}'\n{validation}\n\
             [view]\nkind = 'frame'\nsize = [36, 34]\n",
            path("net.toml"),
            path("run"),
            path("faces"),
            path("boxes.csv")
        );
        let schedule = "[schedule]\nkind = 'one-cycle'\nrate = 0.05\n";
        fs::write(lab.path("train.toml"), text + schedule).unwrap();
        lab
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn config(&self, changes: &[&str]) -> weft::Result<Config> {
        let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
        Config::load(self.path("train.toml"), &changes)
    }

    fn train(&self, changes: &[&str], resume: bool, stop_after: usize) -> weft::Result<Outcome> {
        self.train_on(&Device::Cpu, changes, resume, stop_after).0
    }

    /// The outcome, and the losses that were told.
    fn train_on(
        &self,
        device: &Device,
        changes: &[&str],
        resume: bool,
        stop_after: usize,
    ) -> (weft::Result<Outcome>, Vec<f32>) {
        let (stop, mut losses) = (AtomicBool::new(false), Vec::new());
        let config = match self.config(changes) {
            Ok(config) => config,
            Err(error) => return (Err(error), losses),
        };
        let outcome = run(&config, device, resume, &stop, &mut |event| {
            if let Event::Step { step, loss, .. } = event {
                losses.push(loss);
                if step == stop_after {
                    stop.store(true, Ordering::Relaxed);
                }
            }
        });
        (outcome, losses)
    }
}

fn bytes(path: &Path) -> Vec<u8> {
    fs::read(path).unwrap()
}

#[test]
fn a_small_net_learns_drawn_attributes() {
    let lab = Lab::new(1500, "finetune-attributes", "batch = 30\nepochs = 12\nvalidate_every = 12");
    let found = lab.train(&[], false, usize::MAX).unwrap().validation.unwrap().means;
    eprintln!(
        "accuracy {:.3}, balanced {:.3}, majority {:.3}",
        found.accuracy, found.balanced_accuracy, found.majority
    );
    assert!(found.accuracy > found.majority + 0.03, "{found:?}");
    assert!(found.balanced_accuracy > 0.6, "{found:?}");
}

#[test]
fn stopped_and_resumed_is_undisturbed_to_the_last_bit() {
    for stage in ["finetune-attributes", "pretrain-identities"] {
        let more = "batch = 8\nepochs = 2\nsimilarity = 0.01\ndropout = [0.2, 0.5]";
        let lab = Lab::new(60, stage, more);
        let other = format!("output={}", lab.path("other").display());
        let whole = lab.train(&[], false, usize::MAX).unwrap();
        for stop_after in [1, 5, 7] {
            let outcome = lab.train(&[&other], stop_after > 1, stop_after).unwrap();
            assert_eq!((outcome.steps, outcome.weights), (stop_after, None), "{stage}");
        }
        let resumed = lab.train(&[&other], true, usize::MAX).unwrap();
        assert_eq!(bytes(&whole.weights.unwrap()), bytes(&resumed.weights.unwrap()), "{stage}");
        assert_eq!(bytes(&lab.path("run/log.csv")), bytes(&lab.path("other/log.csv")), "{stage}");
    }
}

fn simt() -> Device {
    Device::open("simt").unwrap()
}

#[test]
fn the_emulator_trains_on_the_same_crops() {
    let lab = Lab::new(200, "finetune-attributes", "batch = 8\nepochs = 1\ndropout = [0.2, 0.5]");
    let other = format!("output={}", lab.path("other").display());
    for view in ["view.shift=0.1", "view={kind='ten-crop', short=60}"] {
        let changes = ["view.scale=0.3", view].map(str::to_string);
        let changes: Vec<&str> = changes.iter().skip(usize::from(view.contains("ten-crop"))).map(|c| &**c).collect();
        for name in ["run", "other"] {
            let _ = fs::remove_dir_all(lab.path(name));
        }
        let (outcome, expected) = lab.train_on(&Device::Cpu, &changes, false, usize::MAX);
        let steps = outcome.unwrap().steps;
        assert!(steps >= 20 && steps == expected.len(), "{steps}");
        let changes = [&changes[..], &[&other]].concat();
        let (outcome, found) = lab.train_on(&simt(), &changes, false, usize::MAX);
        let outcome = outcome.unwrap();
        assert_eq!((outcome.steps, found.len()), (steps, steps));
        assert!(outcome.validation.is_some() && outcome.weights.is_some());
        for (step, (found, expected)) in found.iter().zip(&expected).enumerate() {
            assert!((found - expected).abs() <= 1e-5 * expected, "{view}, step {step}: {found} instead of {expected}");
        }
        let lines = |name: &str| -> Vec<String> {
            let log = fs::read_to_string(lab.path(name).join("log.csv")).unwrap();
            log.lines().map(|line| line.split(',').take(3).collect::<Vec<_>>().join(",")).collect()
        };
        assert_eq!(lines("run"), lines("other"), "the same lines of the log");
    }
}

#[test]
fn the_emulator_stops_and_goes_on() {
    let lab = Lab::new(60, "finetune-attributes", "batch = 8\nepochs = 2\ndropout = [0.2, 0.5]");
    let other = format!("output={}", lab.path("other").display());
    let (whole, losses) = lab.train_on(&simt(), &[], false, usize::MAX);
    // The loss of the third step is told when the fourth has begun.
    let (stopped, before) = lab.train_on(&simt(), &[&other], false, 3);
    assert_eq!((stopped.unwrap().steps, before.len()), (4, 4));
    let (resumed, after) = lab.train_on(&simt(), &[&other], true, usize::MAX);
    assert_eq!([before, after].concat(), losses);
    assert_eq!(bytes(&whole.unwrap().weights.unwrap()), bytes(&resumed.unwrap().weights.unwrap()));
    assert_eq!(bytes(&lab.path("run/log.csv")), bytes(&lab.path("other/log.csv")));
}

#[test]
fn a_loss_that_is_not_finite_stops_every_device_at_the_same_step_and_is_not_kept() {
    let lab = Lab::new(60, "finetune-attributes", "batch = 8\nepochs = 2");
    let stops = |device: &Device, every: usize| {
        let _ = fs::remove_dir_all(lab.path("run"));
        let every = format!("checkpoint_every={every}");
        let changes = ["schedule.rate=1000", "optimizer.clip_norm=0", &every];
        let (outcome, losses) = lab.train_on(device, &changes, false, usize::MAX);
        assert!(losses.iter().all(|loss| loss.is_finite()));
        let error = outcome.unwrap_err().to_string();
        let (_, step) = error.split_once(" at step ").unwrap();
        let step: usize = step.split_once(':').or(step.split_once(';')).unwrap().0.parse().unwrap();
        assert_eq!(step, losses.len() + 1, "{error}");
        (step, lab.path("run/checkpoint.safetensors").exists())
    };
    let (step, kept) = stops(&Device::Cpu, 100);
    assert!(step > 1 && !kept);
    for device in [Device::Cpu, simt()] {
        assert_eq!(stops(&device, step), (step, false), "a checkpoint is due after that very step");
        assert_eq!(stops(&device, step - 1), (step, true));
    }
}

/// What is told of the scale of losses: at the start, and of steps that were skipped.
fn scales(lab: &Lab, device: &Device, changes: &[&str], resume: bool) -> (weft::Result<Outcome>, Vec<(usize, f32)>) {
    let mut told = Vec::new();
    let config = lab.config(changes).unwrap();
    let outcome = run(&config, device, resume, &AtomicBool::new(false), &mut |event| match event {
        Event::Start { first, loss_scale: Some(scale), .. } => told.push((first, scale.scale)),
        Event::Skipped { step, loss_scale } => told.push((step, loss_scale.scale)),
        _ => {}
    });
    (outcome, told)
}

#[test]
fn training_in_f16_scales_its_losses_and_goes_on_to_the_last_bit() {
    let lab = Lab::new(60, "finetune-attributes", "batch = 8\nepochs = 2\ndropout = [0.2, 0.5]");
    let on = |precision| simt().with(precision, Convolution::Implicit).unwrap();
    let other = format!("output={}", lab.path("other").display());
    let (whole, losses) = lab.train_on(&on(Precision::F16), &[], false, usize::MAX);
    let (stopped, before) = lab.train_on(&on(Precision::F16), &[&other], false, 3);
    assert_eq!((stopped.unwrap().steps, before.len()), (4, 4));
    // The checkpoint holds the scale and its counter.
    let file = lab.path("other").join(CHECKPOINT);
    let text = String::from_utf8_lossy(&bytes(&file)).into_owned();
    let (_, state) = text.split_once("loss_scale").unwrap();
    assert!(state.split('}').next().unwrap().contains("good\\\":"), "{state:.200}");
    let (resumed, after) = lab.train_on(&on(Precision::F16), &[&other], true, usize::MAX);
    assert_eq!([before, after].concat(), losses);
    assert_eq!(bytes(&whole.unwrap().weights.unwrap()), bytes(&resumed.unwrap().weights.unwrap()));
    assert_eq!(bytes(&lab.path("run").join(CHECKPOINT)).len(), bytes(&file).len());
}

#[test]
fn the_scale_of_losses_is_told_in_f16_alone() {
    let lab = Lab::new(20, "finetune-attributes", "batch = 8\nepochs = 1");
    let on = |precision| simt().with(precision, Convolution::Implicit).unwrap();
    let (outcome, told) = scales(&lab, &on(Precision::F16), &[], false);
    outcome.unwrap();
    assert_eq!(told.first(), Some(&(0, 65536.0)));
    let other = format!("output={}", lab.path("other").display());
    let (outcome, told) = scales(&lab, &on(Precision::Bf16), &[&other], false);
    outcome.unwrap();
    assert_eq!(told, []);
    let text = String::from_utf8_lossy(&bytes(&lab.path("other").join(CHECKPOINT))).into_owned();
    assert!(!text.contains("loss_scale"));
}

#[test]
fn mistakes_are_named_and_leave_earlier_results_alone() {
    let lab = Lab::new(60, "finetune-attributes", "batch = 8\nepochs = 1");
    let weights = lab.train(&[], false, usize::MAX).unwrap().weights.unwrap();
    let before = bytes(&weights);
    let other = format!("output={}", lab.path("other").display());
    let missing = format!("init={}", lab.path("none.safetensors").display());
    for (changes, resume, expected) in [
        (vec![], false, "holds a run already"),
        (vec!["seed=2"], true, "another run"),
        (vec![other.as_str(), missing.as_str()], false, "none.safetensors"),
        (vec![other.as_str(), "batch=1000"], false, "fewer than a batch"),
        (vec![other.as_str(), "view.size=[20, 20]"], false, "smaller than the input"),
        (vec![other.as_str(), "stage=pretrain-identities"], false, "no tags"),
        (vec![other.as_str(), "schedule.rate=1000"], false, "the loss is"),
        (vec![other.as_str(), "optimizer.rate_factors={c9=0}"], false, "c9"),
    ] {
        let error = lab.train(&changes, resume, usize::MAX).unwrap_err().to_string();
        assert!(error.contains(expected), "{changes:?}: {error}");
        assert!(!error.contains('\n'), "{error}");
        assert!(bytes(&weights) == before, "{changes:?}");
    }
}

#[test]
fn an_unreadable_photo_ends_training_with_its_name() {
    let lab = Lab::new(40, "finetune-attributes", "batch = 8\nepochs = 1");
    for sample in CelebA::open(lab.path("faces"), true).unwrap().samples {
        fs::write(&sample.path, b"no photo").unwrap();
    }
    let error = lab.train(&[], false, usize::MAX).unwrap_err().to_string();
    assert!(error.contains(".jpg"), "{error}");
}

#[test]
fn a_run_that_changed_is_not_resumed_and_says_what_changed() {
    let lab = Lab::new(60, "finetune-attributes", "batch = 8\nepochs = 2\ndropout = [0.0, 0.5]");
    let start = format!("output={}", lab.path("start").display());
    let init = lab.train(&[&start, "epochs=1"], false, usize::MAX).unwrap().weights.unwrap();
    let from = format!("init={}", init.display());
    lab.train(&[&from], false, 3).unwrap();
    let refused = |changes: &[&str], expected: &str| {
        let error = lab.train(&[&[from.as_str()], changes].concat(), true, usize::MAX).unwrap_err().to_string();
        let expected = format!("belongs to another run: {expected}");
        assert!(error.contains("checkpoint.safetensors") && error.contains(&expected), "{changes:?}: {error}");
        assert!(error.contains("train into another folder") && !error.contains('\n'), "{error}");
    };
    for (change, expected) in [
        ("dropout=[0.0,0.25]", "dropout was [0.0,0.5], is [0.0,0.25]"),
        ("view.shift=0.25", "view.shift was 0.0, is 0.25"),
        ("schedule.rate=0.04", "schedule.rate was 0.05, is 0.04"),
        ("optimizer.momentum=0.8", "optimizer.momentum was 0.9, is 0.8"),
        ("optimizer.rate_factors={c1=0.5}", "optimizer.rate_factors.c1 was not set, is 0.5"),
        ("data.limit=40", "data.limit was not set, is 40"),
        ("epochs=3", "epochs was 2, is 3"),
        ("data.splits=['train','val']", "data.splits was [\"train\"], is [\"train\",\"val\"], photos has changed"),
    ] {
        refused(&[change], expected);
    }
    let photo = &CelebA::open(lab.path("faces"), true).unwrap().samples[0].path;
    for (path, expected) in [
        (init.as_path(), "init has changed"),
        (&lab.path("net.toml"), "net has changed"),
        (&lab.path("boxes.csv"), "photos has changed"),
        (photo, "photos has changed"),
    ] {
        let before = bytes(path);
        match path.file_name().unwrap().to_str().unwrap() {
            "last.safetensors" => drop(fs::copy(lab.path("run/checkpoint.safetensors"), path).unwrap()),
            "net.toml" => fs::write(path, NET.replace("outputs = 32", "outputs = 32\nbias = true")).unwrap(),
            "boxes.csv" => fs::write(path, "image,x,y,width,height\n").unwrap(),
            _ => fs::write(path, [&before[..], b"more"].concat()).unwrap(),
        }
        refused(&[], expected);
        fs::write(path, before).unwrap();
    }
    // What is written, where and how often, and where the data are, is up to the user.
    fs::rename(lab.path("run"), lab.path("moved")).unwrap();
    fs::rename(lab.path("faces"), lab.path("people")).unwrap();
    let output = format!("output={}", lab.path("moved").display());
    let root = format!("data.root={}", lab.path("people").display());
    let changes = [&from, &output, &root, "checkpoint_every=1", "validate_every=2", "data.strict=true"];
    assert_eq!(lab.train(&changes, true, usize::MAX).unwrap().steps, 10);
}

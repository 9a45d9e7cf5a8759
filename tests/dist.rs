//! Training on several ranks: the same bits as on one, whatever starts them, and one clear end where something is wrong.
//!
//! Open MPI's mpirun is looked for on the PATH, MPICH's mpiexec in `WEFT_MPICH` and on the PATH.

#[path = "support/harness.rs"]
mod harness;
mod support;

use harness::{is_required, test, test_with};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use support::{Folder, mini};
use weft::weights::TensorFile;

fn main() -> ExitCode {
    harness::main(vec![
        test("the_program_is_linked_to_no_mpi", the_program_is_linked_to_no_mpi),
        test("threads_and_shards_of_one_rank_do_not_change_a_run", threads_and_shards_of_one_rank_do_not_change_a_run),
        test("sharded_training_is_near_unsharded", sharded_training_is_near_unsharded),
        test("shards_that_do_not_fit_are_refused", shards_that_do_not_fit_are_refused),
        test("a_launch_without_a_library_is_one_line", a_launch_without_a_library_is_one_line),
        test_with("all_stages_on_open_mpi", open_mpi, all_stages_give_the_same_weights_on_1_2_and_4_ranks),
        test_with("all_stages_on_mpich", mpich, all_stages_give_the_same_weights_on_1_2_and_4_ranks),
        test_with("mpich_by_its_own_interface", mpich, mpich_by_its_own_interface),
        test_with("validation_on_1_2_and_3_ranks", open_mpi, validation_is_the_same_on_1_2_and_3_ranks),
        test_with("the_emulator_on_2_ranks", with_emulator, the_emulator_on_2_ranks),
        test_with("stopped_on_4_resumed_on_2_and_1", open_mpi, stopped_on_4_resumed_on_2_and_1),
        test_with("stopped_and_resumed_on_mpich", mpich, stopped_and_resumed_on_mpich),
        test_with("a_bad_photo_on_rank_1", open_mpi, a_bad_photo_on_rank_1_ends_all_and_is_named_once),
        test_with("a_killed_rank_on_open_mpi", open_mpi, a_killed_rank_ends_all),
        test_with("a_killed_rank_on_mpich", mpich, a_killed_rank_ends_all),
        test_with("a_rank_that_hangs_on_open_mpi", open_mpi, a_rank_that_hangs_ends_all_in_time),
        test_with("a_rank_that_hangs_on_mpich", mpich, a_rank_that_hangs_ends_all_in_time),
        test_with("the_wrong_library", both, the_library_of_another_launcher_is_named),
        test_with("ranks_that_do_not_fit", open_mpi, ranks_that_do_not_fit_are_refused_by_one_line),
        test_with("the_option_ranks", two_processors, the_option_ranks_starts_them),
        test_with("doctor_on_2_ranks", open_mpi, doctor_tells_where_ranks_are),
    ])
}

/// A launcher, and whether it is Open MPI's.
#[derive(Clone)]
struct Launcher {
    path: PathBuf,
    is_open_mpi: bool,
}

impl Launcher {
    /// `weft` with the words of `line` on `ranks` ranks of one thread each; without a launcher if it is one.
    fn command(&self, folder: &Folder, ranks: usize, line: &str) -> Command {
        if ranks == 1 {
            let mut command = folder.command(line);
            command.env("RAYON_NUM_THREADS", "1");
            return command;
        }
        let mut command = Command::new(&self.path);
        command.args(["-n", &ranks.to_string()]);
        if self.is_open_mpi {
            command.args(["--oversubscribe", "--bind-to", "none"]);
        }
        command.arg(env!("CARGO_BIN_EXE_weft")).args(line.split_whitespace()).current_dir(&folder.0);
        command.env("RAYON_NUM_THREADS", "1").env_remove("WEFT_MPI");
        allow_root(&mut command);
        command
    }

    #[track_caller]
    fn ok(&self, folder: &Folder, ranks: usize, line: &str) -> String {
        let output = self.command(folder, ranks, line).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{ranks} ranks, {line}: {said}");
        format!("{}{said}", String::from_utf8_lossy(&output.stdout))
    }

    /// The lines of Weft's own errors in what a failed run says.
    #[track_caller]
    fn fails(&self, folder: &Folder, ranks: usize, line: &str) -> Vec<String> {
        complaints(self.command(folder, ranks, line), line)
    }
}

#[track_caller]
fn complaints(mut command: Command, line: &str) -> Vec<String> {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code().is_some_and(|code| code != 0), "{line}: {said}");
    let own = said.lines().filter(|line| line.starts_with("weft: "));
    own.map(str::to_string).collect()
}

/// Open MPI asks root twice.
fn allow_root(command: &mut Command) {
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
}

/// A program whose `--version` says `words`, or why tests that need it are ignored; with `WEFT_REQUIRE_MPI=1` that is a failure.
fn launcher(programs: &[Option<PathBuf>], words: &str, name: &str) -> Result<Launcher, String> {
    for path in programs.iter().flatten() {
        let Ok(output) = Command::new(path).arg("--version").output() else { continue };
        if String::from_utf8_lossy(&output.stdout).contains(words) {
            return Ok(Launcher { path: path.clone(), is_open_mpi: words == "Open MPI" });
        }
    }
    assert!(!is_required("WEFT_REQUIRE_MPI", "1"), "WEFT_REQUIRE_MPI=1, but there is no {name}");
    Err(format!("no {name}"))
}

fn open_mpi() -> Result<Launcher, String> {
    launcher(&["mpirun.openmpi", "mpirun"].map(|name| Some(name.into())), "Open MPI", "mpirun of Open MPI")
}

fn mpich() -> Result<Launcher, String> {
    let given = std::env::var_os("WEFT_MPICH").map(PathBuf::from);
    launcher(&[given, Some("mpiexec.mpich".into()), Some("mpiexec".into())], "HYDRA", "mpiexec of MPICH")
}

fn both() -> Result<[Launcher; 2], String> {
    Ok([open_mpi()?, mpich()?])
}

fn with_emulator() -> Result<Launcher, String> {
    if cfg!(feature = "simt") { open_mpi() } else { Err("built without the emulator".into()) }
}

fn two_processors() -> Result<Launcher, String> {
    match std::thread::available_parallelism() {
        Ok(count) if count.get() >= 2 => open_mpi(),
        _ => Err("one processor".into()),
    }
}

/// Photos and training files of all stages: 8 steps of 8 samples an epoch.
fn lab() -> Folder {
    let folder = Folder::new();
    mini::write(&folder);
    let anet = fs::read_to_string(folder.path("anet-train.toml")).unwrap();
    let identities = anet.replace("finetune-attributes", "pretrain-identities").replace(", validation = 'val'", "");
    folder.write("identities.toml", identities.replace("epochs = 1", "epochs = 1\nsimilarity = 0.01"));
    folder
}

const STAGES: [&str; 4] = ["objects.toml", "lnet-train.toml", "identities.toml", "anet-train.toml"];
const SHARDED: &str = "--set shards=4 --set dropout=[0.2,0.3]";

fn bytes(folder: &Folder, name: &str) -> Vec<u8> {
    fs::read(folder.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// Two runs have the same weights and the same log, to the last bit.
#[track_caller]
fn same(folder: &Folder, a: &str, b: &str) {
    for file in ["last.safetensors", "log.csv", "checkpoint.safetensors"] {
        assert!(
            bytes(folder, &format!("{a}/{file}")) == bytes(folder, &format!("{b}/{file}")),
            "{file} of {a} and {b}"
        );
    }
}

/// Steps done according to a checkpoint; 0 without one.
fn step_of(checkpoint: &Path) -> u64 {
    let Ok(file) = TensorFile::open(checkpoint) else { return 0 };
    let state: serde_json::Value = serde_json::from_str(&file.metadata()["weft.training"]).unwrap();
    state["step"].as_u64().unwrap()
}

fn the_program_is_linked_to_no_mpi() {
    let Ok(output) = Command::new("ldd").arg(env!("CARGO_BIN_EXE_weft")).output() else { return };
    let libraries = String::from_utf8_lossy(&output.stdout).to_lowercase();
    assert!(libraries.contains("libc.so") && !libraries.contains("mpi") && !libraries.contains("nccl"), "{libraries}");
}

fn threads_and_shards_of_one_rank_do_not_change_a_run() {
    let folder = lab();
    for (file, more) in [("anet-train.toml", "--set dropout=[0.2,0.3]"), ("objects.toml", SHARDED)] {
        let run = |threads: &str| {
            let line = format!("train {file} {more} --device cpu --set output={file}-{threads}");
            let output = folder.command(&line).env("RAYON_NUM_THREADS", threads).output().unwrap();
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        };
        ["1", "2", "3"].into_iter().for_each(run);
        same(&folder, &format!("{file}-1"), &format!("{file}-2"));
        same(&folder, &format!("{file}-1"), &format!("{file}-3"));
    }
}

fn sharded_training_is_near_unsharded() {
    let folder = lab();
    for file in ["anet-train.toml", "identities.toml"] {
        for shards in [1, 2, 4] {
            let line =
                format!("train {file} --device cpu --set epochs=3 --set shards={shards} --set output={file}-{shards}");
            assert_eq!(folder.weft(&line).code, Some(0), "{line}");
        }
        let weights =
            |shards: usize| TensorFile::open(folder.path(&format!("{file}-{shards}/last.safetensors"))).unwrap();
        let whole = weights(1);
        assert!(step_of(&folder.path(&format!("{file}-1/checkpoint.safetensors"))) >= 20);
        for shards in [2, 4] {
            let (parts, mut error, mut largest) = (weights(shards), 0f32, 0f32);
            for tensor in whole.tensors() {
                let other = parts.require(tensor.name).unwrap().to_f32().unwrap().into_owned();
                for (a, b) in tensor.to_f32().unwrap().iter().zip(other) {
                    (error, largest) = (error.max((a - b).abs()), largest.max(a.abs()));
                }
            }
            eprintln!("{file}: {shards} shards differ by {:.1e} of the largest weight", error / largest);
            assert!(error > 0.0 && error <= 1e-5 * largest, "{file}, {shards} shards: {error} of {largest}");
        }
    }
}

fn shards_that_do_not_fit_are_refused() {
    let folder = lab();
    let line = |more: &str| format!("train identities.toml --device cpu --set output=run {more}");
    folder.fails(&line("--set shards=3"), &["shards: 3 does not divide the batch of 8"]);
    folder.fails(&line("--set shards=8"), &["shards: 8 makes parts of 1 samples", "multiple of per_identity"]);
}

fn a_launch_without_a_library_is_one_line() {
    let folder = lab();
    let mut command = folder.command("train anet-train.toml");
    command.env("OMPI_COMM_WORLD_SIZE", "2").env("OMPI_COMM_WORLD_RANK", "0").env("WEFT_MPI", "/none/libmpi.so");
    let said = complaints(command, "no library");
    assert!(said.len() == 1 && said[0].contains("/none/libmpi.so"), "{said:?}");
}

fn all_stages_give_the_same_weights_on_1_2_and_4_ranks(launcher: Launcher) {
    let folder = lab();
    for file in STAGES {
        for ranks in [1, 2, 4] {
            launcher.ok(&folder, ranks, &format!("train {file} {SHARDED} --device cpu --set output={file}-{ranks}"));
        }
        same(&folder, &format!("{file}-1"), &format!("{file}-2"));
        same(&folder, &format!("{file}-1"), &format!("{file}-4"));
    }
}

fn mpich_by_its_own_interface(launcher: Launcher) {
    let folder = lab();
    let library = launcher.path.parent().unwrap().join("../lib/libmpi.so.12");
    if !library.exists() {
        return;
    }
    let line = |ranks: usize| format!("train anet-train.toml {SHARDED} --device cpu --set output=run-{ranks}");
    launcher.ok(&folder, 1, &line(1));
    let output = launcher.command(&folder, 2, &line(2)).env("WEFT_MPI", library).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    same(&folder, "run-1", "run-2");
}

fn validation_is_the_same_on_1_2_and_3_ranks(launcher: Launcher) {
    let folder = lab();
    for ranks in [1, 2, 3] {
        let line = "train anet-train.toml --device cpu --set batch=12 --set shards=6 --set epochs=2";
        launcher.ok(&folder, ranks, &format!("{line} --set output=run-{ranks}"));
    }
    assert!(String::from_utf8_lossy(&bytes(&folder, "run-1/log.csv")).lines().count() > 2);
    for ranks in ["run-2", "run-3"] {
        same(&folder, "run-1", ranks);
        assert!(bytes(&folder, "run-1/best.safetensors") == bytes(&folder, &format!("{ranks}/best.safetensors")));
    }
}

fn the_emulator_on_2_ranks(launcher: Launcher) {
    let folder = lab();
    let line = "train anet-train.toml --device simt --set shards=2 --set dropout=[0.2,0.3] --set data.limit=24";
    for ranks in [1, 2] {
        launcher.ok(&folder, ranks, &format!("{line} --set output=run-{ranks}"));
    }
    same(&folder, "run-1", "run-2");
}

/// A run of a hundred steps with a checkpoint after each.
const LONG: &str = "--set epochs=15 --set validate_every=15 --set checkpoint_every=1 --set shards=4 --set dropout=[0.2,0.3] --device cpu";

fn start(launcher: &Launcher, folder: &Folder, ranks: usize, line: &str) -> Child {
    let mut command = launcher.command(folder, ranks, line);
    command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a run has come to a step beyond `step`.
fn wait_for_step(child: &mut Child, checkpoint: &Path, step: u64) {
    let began = Instant::now();
    while step_of(checkpoint) <= step {
        assert!(child.try_wait().unwrap().is_none(), "the run ended by itself");
        assert!(began.elapsed() < Duration::from_secs(120), "no checkpoint in two minutes");
        sleep(Duration::from_millis(2));
    }
}

fn signal(pid: u32, name: &str) {
    assert!(Command::new("kill").args([name, &pid.to_string()]).status().unwrap().success());
}

/// Stops a run by SIGUSR1 to its launcher, which is passed on; returns the step of its checkpoint.
fn stop(launcher: &Launcher, folder: &Folder, ranks: usize, after: u64) -> u64 {
    let checkpoint = folder.path("run/checkpoint.safetensors");
    let mut child = start(launcher, folder, ranks, &format!("train anet-train.toml {LONG} --resume --set output=run"));
    wait_for_step(&mut child, &checkpoint, after);
    signal(child.id(), "-USR1");
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code().is_some_and(|code| code != 0), "{said}");
    let step = step_of(&checkpoint);
    let stopped: Vec<&str> = said.lines().filter(|line| line.starts_with("weft: ")).collect();
    assert_eq!(stopped.len(), 1, "{said}");
    assert!(stopped[0].contains(&format!("run: stopped after step {step} of ")), "{said}");
    assert!(stopped[0].contains("go on with --resume"), "{said}");
    step
}

fn stopped_on_4_resumed_on_2_and_1(launcher: Launcher) {
    let folder = lab();
    launcher.ok(&folder, 1, &format!("train anet-train.toml {LONG} --set output=whole"));
    let first = stop(&launcher, &folder, 4, 0);
    let second = stop(&launcher, &folder, 2, first);
    assert!(second > first);
    launcher.ok(&folder, 1, &format!("train anet-train.toml {LONG} --resume --set output=run"));
    same(&folder, "whole", "run");
}

fn stopped_and_resumed_on_mpich(launcher: Launcher) {
    let folder = lab();
    launcher.ok(&folder, 1, &format!("train anet-train.toml {LONG} --set output=whole"));
    stop(&launcher, &folder, 2, 0);
    launcher.ok(&folder, 4, &format!("train anet-train.toml {LONG} --resume --set output=run"));
    same(&folder, "whole", "run");
}

fn a_bad_photo_on_rank_1_ends_all_and_is_named_once(launcher: Launcher) {
    let folder = lab();
    let photos = folder.path("faces/Img/img_celeba");
    let mut names: Vec<_> = fs::read_dir(&photos).unwrap().map(|photo| photo.unwrap().file_name()).collect();
    names.sort();
    let (mut on_rank_1, slowness) = (0, slowness(&launcher, &folder));
    for (number, name) in names.iter().take(12).enumerate() {
        let (path, name) = (photos.join(name), name.to_string_lossy());
        let before = fs::read(&path).unwrap();
        fs::write(&path, "no photo").unwrap();
        let line = format!("train anet-train.toml --set shards=2 --device cpu --set output=run-{number}");
        let began = Instant::now();
        let output = launcher.command(&folder, 2, &line).output().unwrap();
        let (said, seconds) = (String::from_utf8_lossy(&output.stderr), began.elapsed().as_secs_f64());
        fs::write(&path, before).unwrap();
        // Photos that a run does not use, and those in the part of the order that an epoch leaves out.
        if output.status.success() {
            continue;
        }
        assert_eq!(said.matches(&*name).count(), 1, "{said}");
        assert!(seconds < 5.0 * slowness, "{seconds} s");
        on_rank_1 += usize::from(said.contains("weft: rank 1: "));
        if on_rank_1 > 0 {
            return;
        }
    }
    panic!("no photo on rank 1");
}

/// How much slower than an idle one this machine starts two ranks and ends them: limits of time are those of an idle one.
fn slowness(launcher: &Launcher, folder: &Folder) -> f64 {
    const IDLE: f64 = 0.6;
    let began = Instant::now();
    launcher.ok(folder, 2, "doctor --device cpu");
    (began.elapsed().as_secs_f64() / IDLE).max(1.0)
}

/// Processes of Weft that run in a folder.
fn ranks_in(folder: &Folder) -> Vec<u32> {
    let place = fs::canonicalize(&folder.0).unwrap();
    let processes = fs::read_dir("/proc").unwrap().flatten().filter_map(|process| {
        let pid: u32 = process.file_name().to_string_lossy().parse().ok()?;
        let is_here = fs::read_link(process.path().join("cwd")).is_ok_and(|cwd| cwd == place);
        let program = fs::read_link(process.path().join("exe")).ok()?;
        (is_here && program.file_name()? == "weft").then_some(pid)
    });
    let mut pids: Vec<u32> = processes.collect();
    pids.sort_unstable();
    pids
}

/// Starts two ranks, sends a signal to the second once there is a checkpoint, and returns what is said and the seconds until the
/// end.
fn disturb(launcher: &Launcher, folder: &Folder, more: &str, name: &str) -> (String, f64) {
    let checkpoint = folder.path("run/checkpoint.safetensors");
    let line = format!("train anet-train.toml {LONG} --set epochs=1000 --set output=run {more}");
    let mut child = start(launcher, folder, 2, &line);
    wait_for_step(&mut child, &checkpoint, 0);
    let ranks = ranks_in(folder);
    assert_eq!(ranks.len(), 2);
    signal(ranks[1], name);
    let began = Instant::now();
    let output = child.wait_with_output().unwrap();
    let seconds = began.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success(), "{said}");
    assert!(step_of(&checkpoint) > 0, "the checkpoint is readable");
    // The launcher may be a moment ahead of the last of its processes.
    let left = || ranks_in(folder);
    while !left().is_empty() && began.elapsed().as_secs_f64() < seconds + 2.0 {
        sleep(Duration::from_millis(20));
    }
    assert!(left().is_empty(), "{:?} are left: {said}", left());
    (said, seconds)
}

fn a_killed_rank_ends_all(launcher: Launcher) {
    let folder = lab();
    let slowness = slowness(&launcher, &folder);
    let (_, seconds) = disturb(&launcher, &folder, "", "-KILL");
    assert!(seconds < 5.0 * slowness, "{seconds} s");
}

fn a_rank_that_hangs_ends_all_in_time(launcher: Launcher) {
    let folder = lab();
    let slowness = slowness(&launcher, &folder);
    let (said, seconds) = disturb(&launcher, &folder, "--timeout 2", "-STOP");
    assert!(said.contains("no answer from all of the 2 ranks within 2 s"), "{said}");
    assert!(seconds < 2.0 + 5.0 * slowness, "{seconds} s");
}

fn the_library_of_another_launcher_is_named([open_mpi, mpich]: [Launcher; 2]) {
    let folder = lab();
    let library = mpich.path.parent().unwrap().join("../lib/libmpi_abi.so.1");
    let line = "train anet-train.toml --set shards=2 --device cpu";
    if library.exists() {
        let mut command = open_mpi.command(&folder, 2, line);
        command.env("WEFT_MPI", library);
        let said = complaints(command, line);
        assert!(said.len() == 1 && said[0].contains("is another MPI"), "{said:?}");
        assert!(said[0].contains("rank 0 of 2") && said[0].contains("WEFT_MPI"), "{said:?}");
    }
    // MPICH's launcher leaves the second rank its word.
    let mut command = mpich.command(&folder, 2, line);
    command.env("WEFT_MPI", "libmpi.so.40");
    let said = complaints(command, line);
    assert!(!said.is_empty() && said.iter().all(|line| line.contains(") sees 1; start it with")), "{said:?}");
    assert!(!folder.path("unused").exists(), "nothing is written");
}

fn ranks_that_do_not_fit_are_refused_by_one_line(launcher: Launcher) {
    let folder = lab();
    let said = launcher.fails(&folder, 2, "train anet-train.toml --device cpu --set output=run");
    assert_eq!(
        said,
        [
            "weft: shards: 1 cannot be divided among 2 ranks; set shards to a multiple of 2 that divides the batch of 8, such as 2, or \
          start as many ranks as divide 1"
        ]
    );
    let said = launcher.fails(&folder, 2, "train recipe.toml");
    assert!(said.len() == 1 && said[0].contains("recipe.toml: is a recipe, which runs on one rank"), "{said:?}");
    let said = launcher.fails(&folder, 2, "train missing.toml");
    assert!(said.len() == 1 && said[0].contains("missing.toml"), "{said:?}");
    assert!(!folder.path("run").exists());
}

fn the_option_ranks_starts_them(launcher: Launcher) {
    let folder = lab();
    launcher.ok(&folder, 1, &format!("train anet-train.toml {SHARDED} --device cpu --set output=one"));
    let mut command =
        folder.command(&format!("train --ranks 2 anet-train.toml {SHARDED} --device cpu --set output=two"));
    allow_root(&mut command);
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.contains("2 ranks by "), "{said}");
    same(&folder, "one", "two");
    let many = complaints(folder.command("train anet-train.toml --ranks 4096"), "many");
    assert!(many.len() == 1 && many[0].contains("--ranks: 4096 ranks, but there are "), "{many:?}");
    let mut command = folder.command("train anet-train.toml --ranks 2");
    command.env("PATH", folder.path("none"));
    let none = complaints(command, "no launcher");
    assert!(none.len() == 1 && none[0].contains("neither mpirun nor mpiexec is on the PATH"), "{none:?}");
}

fn doctor_tells_where_ranks_are(launcher: Launcher) {
    let said = launcher.ok(&Folder::new(), 2, "doctor --device cpu");
    for part in
        ["MPI          Open MPI v", "launcher     ", "ranks        2, by Open MPI's mpirun", "rank 1", " threads"]
    {
        assert!(said.contains(part), "no {part:?} in {said}");
    }
    assert_eq!(said.matches("ranks        ").count(), 1, "{said}");
}

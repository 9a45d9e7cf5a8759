//! A command on several ranks: joining those that a launcher has started, starting them, and ending together. Rank 0 speaks.

use super::{interruptible_by, say};
use crate::device::Device;
use crate::dist::library::on_path;
use crate::dist::{Launch, World};
use crate::{Error, Result};
use nix::libc::c_int;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// Head start of rank 0 with a message that all ranks have: it ends the others, which then say nothing.
const HEAD_START: Duration = Duration::from_secs(1);

/// Seconds that a rank waits for the others where the user does not say.
pub const PATIENCE: u64 = 300;

/// Joins the ranks that a launcher has started, of which none waits longer than `timeout` seconds for the others, and gives this
/// one its share of the processors.
///
/// # Errors
/// As [`World::join`].
pub fn join(timeout: u64) -> Result<World> {
    let launch = Launch::find();
    let world = World::join(launch.as_ref(), Duration::from_secs(timeout)).inspect_err(|_| {
        if launch.and_then(|launch| launch.rank).is_some_and(|rank| rank > 0) {
            std::thread::sleep(HEAD_START);
        }
    })?;
    if let Some(threads) = world.threads().filter(|_| std::env::var_os("RAYON_NUM_THREADS").is_none()) {
        // Fails if the pool is in use already, which it is not.
        let _ = rayon::ThreadPoolBuilder::new().num_threads(threads).build_global();
    }
    Ok(world)
}

/// Ends this rank with the outcome of its work. An error that all ranks know of is told by rank 0; any other is told by the rank
/// that has it, and ends all of them.
///
/// # Errors
/// In a world of one, the outcome's.
pub fn finish(world: &World, outcome: Result<ExitCode>) -> Result<ExitCode> {
    if world.size() == 1 {
        return outcome;
    }
    match outcome {
        Ok(code) => {
            world.end();
            Ok(code)
        }
        Err(error) if world.failed_together() => {
            if world.is_first() {
                say(format_args!("weft: {error}"));
            }
            world.end();
            Ok(ExitCode::FAILURE)
        }
        Err(error) => {
            if !world.is_first() {
                std::thread::sleep(HEAD_START);
            }
            let error = error.as_option(&["timeout"]);
            say(format_args!("weft: rank {}: {error}", world.rank()));
            world.abort(1)
        }
    }
}

/// Where each rank runs: machine, threads, and the GPUs of the machine that it would choose from.
///
/// # Errors
/// No answer from all ranks in time.
pub fn places(world: &World) -> Result<Vec<String>> {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let gpu = own_gpu("cuda", world).map_or(String::new(), |gpu| format!(", {gpu}"));
    let place = format!("{}, {} threads{gpu}", host.trim(), rayon::current_num_threads());
    let all = world.gather(place.into_bytes())?;
    Ok(all.iter().map(|place| String::from_utf8_lossy(place).into_owned()).collect())
}

/// The device of a rank: where `auto` or `cuda` leaves the choice, ranks on one machine take its GPUs in turn.
///
/// # Errors
/// As [`super::DeviceArgs::open`].
pub fn open(args: &super::DeviceArgs, world: &World) -> Result<Device> {
    let Some(device) = own_gpu(&args.device, world) else { return args.open() };
    super::DeviceArgs { device, precision: args.precision, conv: args.conv }.open()
}

#[cfg(feature = "cuda")]
fn own_gpu(device: &str, world: &World) -> Option<String> {
    if world.size() == 1 || !["auto", "cuda"].contains(&device) {
        return None;
    }
    let found = crate::device::cuda::probe().ok()?;
    let usable = |gpu: &usize| {
        let properties = crate::device::cuda::properties(*gpu, found);
        properties.is_ok_and(|gpu| crate::device::cuda::fits(gpu.capability, crate::device::ARCHITECTURES))
    };
    let usable: Vec<usize> = (0..found.devices).filter(usable).collect();
    let own = usable.get(world.local_rank() % usable.len().max(1))?;
    Some(format!("cuda:{own}"))
}

#[cfg(not(feature = "cuda"))]
fn own_gpu(_: &str, _: &World) -> Option<String> {
    None
}

/// A flag that is set by Ctrl-C, SIGTERM and SIGUSR1, which batch systems send before a job's time is over; rank 0 says so.
///
/// # Errors
/// A signal that cannot be handled.
pub fn stoppable(world: &World) -> Result<Arc<AtomicBool>> {
    static STOP: OnceLock<Arc<AtomicBool>> = OnceLock::new();
    extern "C" fn stop(_: c_int) {
        if let Some(stop) = STOP.get() {
            stop.store(true, Ordering::Relaxed);
        }
    }
    let flag = STOP.get_or_init(|| Arc::new(AtomicBool::new(false))).clone();
    interruptible_by(&flag, "step", world.is_first())?;
    let action = SigAction::new(SigHandler::Handler(stop), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler reads a cell that is set already and stores to an atomic, which a handler may do.
    unsafe { sigaction(Signal::SIGUSR1, &action) }.map_err(|e| Error::new("SIGUSR1", e))?;
    Ok(flag)
}

/// Starts this command again on `ranks` ranks of this machine, and becomes their launcher.
///
/// # Errors
/// No launcher, or one that would refuse; more ranks than processors; a process that a launcher has started already.
pub fn start(ranks: usize) -> Result<ExitCode> {
    if let Some(launch) = Launch::find() {
        let found = format!("this process is a rank of {} already", launch.name());
        return Err(Error::new("--ranks", found).advise("leave it out where a launcher starts the ranks"));
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    if ranks > processors {
        let found = format!("{ranks} ranks, but there are {processors} processors here");
        return Err(Error::new("--ranks", found)
            .advise(format!("use at most {processors}; gradient accumulation needs no ranks")));
    }
    let Some((launcher, is_open_mpi)) = launcher() else {
        return Err(Error::new("--ranks", "neither mpirun nor mpiexec is on the PATH")
            .advise("install MPI, such as `apt install openmpi-bin` or `pip install mpich`"));
    };
    const ALLOWED: [&str; 2] = ["OMPI_ALLOW_RUN_AS_ROOT", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM"];
    let is_allowed = ALLOWED.iter().all(|name| std::env::var_os(name).is_some());
    if is_open_mpi && !is_allowed && nix::unistd::geteuid().is_root() {
        return Err(Error::new("--ranks", "Open MPI's mpirun does not start anything for root")
            .advise(format!("run it as another user, or set {}=1 and {}=1", ALLOWED[0], ALLOWED[1])));
    }
    let program = std::env::current_exe().map_err(|e| Error::new("--ranks", e))?;
    let mut command = Command::new(&launcher);
    command.args(["-n", &ranks.to_string()]);
    if is_open_mpi {
        // Threads are shared out by Weft; Open MPI would bind each rank to one core, and counts cores where the system counts threads.
        command.args(["--bind-to", "none", "--oversubscribe"]);
    }
    command.arg(program).args(without_ranks(std::env::args_os().skip(1)));
    Err(Error::io(launcher, command.exec()))
}

/// The launcher on the PATH, and whether it is Open MPI's.
pub fn launcher() -> Option<(PathBuf, bool)> {
    let launcher = ["mpirun", "mpiexec"].into_iter().find_map(on_path)?;
    let is_open_mpi = version(&launcher).contains("Open MPI") || version(&launcher).contains("OpenRTE");
    Some((launcher, is_open_mpi))
}

/// What a launcher says about itself: its first line, or that of its version.
pub fn version(launcher: &Path) -> String {
    let output = Command::new(launcher).arg("--version").output();
    let text = output.map_or(String::new(), |output| String::from_utf8_lossy(&output.stdout).into_owned());
    let mut lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or_default().trim_end_matches(':').to_string();
    match lines.find_map(|line| line.strip_prefix("Version:")) {
        Some(version) => format!("{} {}", first.trim_end_matches(" build details"), version.trim()),
        None => first,
    }
}

/// The arguments without `--ranks N`.
fn without_ranks(arguments: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    let mut arguments = arguments;
    while let Some(argument) = arguments.next() {
        if argument == "--ranks" {
            arguments.next();
        } else if !argument.to_string_lossy().starts_with("--ranks=") {
            kept.push(argument);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ranks_are_started_with_all_other_arguments() {
        let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
        for line in ["train a.toml --ranks 2 --set b=c", "train --ranks=2 a.toml --set b=c"] {
            assert_eq!(without_ranks(words(line).into_iter()), words("train a.toml --set b=c"));
        }
    }
}

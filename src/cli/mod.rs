//! The command line: one file per subcommand. Each parses arguments, calls the library, and formats results as text or JSON.
//! Results go to standard output, everything else to standard error.

use crate::device::{Convolution, Device, Precision};
use crate::face::{Model, Workers};
use crate::net::Unknown;
use crate::shipped::{Folder, Source};
use crate::{Error, Result};
use clap::builder::{PathBufValueParser, TypedValueParser};
use clap::{Parser, Subcommand};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

mod bench;
mod chain;
mod data;
mod doctor;
mod eval;
mod extract;
mod locate;
mod numbers;
mod outputs;
mod photos;
mod plan;
mod predict;
mod profile;
mod progress;
mod ranks;
mod recipe;
mod run;
mod sass;
mod svm;
mod train;
mod tune;
mod weights;

/// Face attributes in the wild, and the network engine under it.
#[derive(Parser)]
#[command(name = "weft", version, max_term_width = 100)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Run(run::Args),
    Predict(predict::Args),
    Locate(locate::Args),
    Extract(extract::Args),
    Train(train::Args),
    Svm(svm::Args),
    Eval(eval::Args),
    Plan(plan::Args),
    Bench(bench::Args),
    Doctor(doctor::Args),
    Profile(profile::Args),
    Sass(sass::Args),
    Tune(tune::Args),
    Weights(weights::Args),
    Data(data::Args),
}

/// Runs the program; incorrect usage exits with 2 (from clap), failure with 1 and a one-line message.
pub fn main() -> ExitCode {
    // The library's log messages go to standard error.
    if log::set_logger(&Lines).is_ok() {
        log::set_max_level(log::LevelFilter::Info);
    }
    // A decoder panic is reported in the one-line message about its photo.
    let speak = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        if !crate::data::photo::is_decoding() {
            speak(panic);
        }
    }));
    let command = Cli::parse().command;
    usage(&command).unwrap_or_else(|error| error.exit());
    match dispatch(command) {
        Ok(code) => code,
        Err(error) => {
            say(format_args!("weft: {error}"));
            ExitCode::FAILURE
        }
    }
}

/// Runs a command line inside this process; `words` start after the program's name. Results go to standard output.
///
/// # Errors
/// Outer: incorrect usage, which `main` turns into exit code 2. Inner: the error of the command.
pub fn command<'a>(words: impl IntoIterator<Item = &'a str>) -> Result<Result<ExitCode>, clap::Error> {
    let cli = Cli::try_parse_from(std::iter::once("weft").chain(words))?;
    usage(&cli.command)?;
    Ok(dispatch(cli.command))
}

/// Incorrect usage that the parser cannot see: arguments that are required depending on the values of others.
fn usage(command: &Command) -> Result<(), clap::Error> {
    match command {
        Command::Run(args) => args.usage(),
        Command::Predict(args) => args.usage(),
        Command::Locate(args) => args.usage(),
        Command::Extract(args) => args.usage(),
        _ => Ok(()),
    }
}

/// A required argument that is missing, reported as the parser does.
fn missing(found: impl std::fmt::Display) -> clap::Error {
    clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, format!("{found}\n"))
}

fn dispatch(command: Command) -> Result<ExitCode> {
    match command {
        Command::Run(args) => run::run(&args),
        Command::Predict(args) => predict::run(&args),
        Command::Locate(args) => locate::run(&args),
        Command::Extract(args) => extract::run(&args),
        Command::Train(args) => train::run(&args),
        Command::Svm(args) => svm::run(&args),
        Command::Eval(args) => eval::run(&args),
        Command::Plan(args) => plan::run(&args),
        Command::Bench(args) => bench::run(&args),
        Command::Doctor(args) => doctor::run(&args),
        Command::Profile(args) => profile::run(&args),
        Command::Sass(args) => sass::run(&args),
        Command::Tune(args) => tune::run(&args),
        Command::Weights(args) => weights::run(&args),
        Command::Data(args) => data::run(&args),
    }
}

/// Writes the library's log messages to standard error, one per line.
struct Lines;

impl log::Log for Lines {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Info && metadata.target().starts_with("weft")
    }

    fn log(&self, record: &log::Record<'_>) {
        if self.enabled(record.metadata()) {
            say(format_args!("weft: {}", record.args()));
        }
    }

    fn flush(&self) {}
}

/// Writes a line to standard output. If the reader has gone away (`weft ... | head`), the program ends quietly.
fn print(text: impl std::fmt::Display) -> Result<()> {
    match writeln!(std::io::stdout().lock(), "{text}") {
        Err(e) if e.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        result => result.map_err(|e| Error::io("standard output", e)),
    }
}

/// Writes a line to standard error. A failed write does not fail the program.
fn say(text: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes one JSON document to standard output.
fn print_json(value: &impl serde::Serialize) -> Result<()> {
    print(serde_json::to_string_pretty(value).map_err(|e| Error::new("JSON", e))?)
}

/// Reports what was skipped in a data set: the first few problems in full, the rest as a count.
fn report_skipped(problems: &[Error]) {
    const SHOWN: usize = 5;
    for problem in problems.iter().take(SHOWN) {
        say(format_args!("skipped: {problem}"));
    }
    if problems.len() > SHOWN {
        say(format_args!("skipped: {} more; `weft data check` lists them", problems.len() - SHOWN));
    }
}

/// A flag set by Ctrl-C (or SIGTERM, or closing the terminal), so that work ends after the current `unit`; a second signal ends
/// the program immediately.
fn interruptible(unit: &'static str) -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    interruptible_by(&stop, unit, true)?;
    Ok(stop)
}

/// The same with a flag that exists; `speaks` unless another process says what happens.
fn interruptible_by(stop: &Arc<AtomicBool>, unit: &'static str, speaks: bool) -> Result<()> {
    let flag = stop.clone();
    ctrlc::set_handler(move || {
        if flag.swap(true, Ordering::Relaxed) {
            std::process::exit(130);
        }
        if speaks {
            say(format_args!("stopping after this {unit}; press Ctrl-C again to stop at once"));
        }
    })
    .map_err(|e| Error::new("Ctrl-C", e))
}

/// Device and arithmetic options.
#[derive(clap::Args)]
struct DeviceArgs {
    /// auto, cpu, cuda, cuda:N, or the GPU kernels on an emulator: simt, simt:checked; what nvcc made of them: simt:ptx, simt:ptx:checked
    #[arg(long, default_value = "auto")]
    device: String,
    /// Precision on a GPU: f32, tf32, f16 or bf16
    #[arg(long, default_value = "f32")]
    precision: Precision,
    /// Convolution algorithm on a GPU: implicit or im2col
    #[arg(long, default_value = "implicit")]
    conv: Convolution,
}

impl DeviceArgs {
    /// Opens the device.
    ///
    /// # Errors
    /// A device that cannot be used, with the reason; a precision that it does not support.
    fn open(&self) -> Result<Device> {
        let device = Device::open(&self.device).and_then(|device| device.with(self.precision, self.conv));
        device.map_err(|e| e.as_option(&["device", "precision"]))
    }
}

/// Model selection.
#[derive(clap::Args)]
struct ModelArgs {
    /// Folder of the model bundle; by default `weights` next to the program if it contains a bundle, otherwise the built-in one
    /// (weft doctor shows which)
    #[arg(long, value_name = "DIR")]
    model: Option<PathBuf>,
}

impl ModelArgs {
    fn folder(&self) -> Folder {
        self.model.as_ref().map_or_else(Folder::model, Folder::from)
    }

    /// The files of a bundle on disk.
    fn reads(&self) -> Vec<PathBuf> {
        let Folder::Disk(folder) = self.folder() else { return Vec::new() };
        let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).filter(|path| path.is_file()).collect()
    }

    fn load(&self, device: &Device) -> Result<Model> {
        Model::load(self.folder(), device)
    }
}

/// How many photos are computed at the same time.
#[derive(clap::Args)]
struct BatchArgs {
    /// Photos in flight, each with its share of the threads [default: on the CPU one per thread, on a GPU three]
    #[arg(long, value_name = "N", value_parser = numbers::up_to(256))]
    batch: Option<usize>,
}

impl BatchArgs {
    /// Photos in flight for a number of photos.
    fn count(&self, device: &Device, photos: usize) -> usize {
        self.batch.unwrap_or_else(|| device.photos_in_flight()).min(photos).max(1)
    }

    /// Workers for a number of photos.
    fn workers(&self, model: Model, device: &Device, photos: usize) -> Result<Workers<Model>> {
        Workers::new(model, self.count(device, photos), Model::sharing)
    }
}

/// How a network is given on the command line.
const NET: &str = "Network description (TOML), or a built-in net: anet, lnet_o, lnet_s, anet_deepid2, lnet_half; a file of \
    such a name in the current folder comes first";

/// Parses a network given on the command line.
fn net() -> impl TypedValueParser<Value = Source> {
    PathBufValueParser::new().map(Source::net)
}

/// The weights for a command that needs them: those given, or those that ship with a built-in net.
///
/// # Errors
/// Neither.
fn weights(given: Option<&PathBuf>, net: &Source) -> Result<Source> {
    given.map_or_else(|| net.weights().map_err(|e| e.within("--weights is missing")), |path| Ok(path.into()))
}

/// How to treat tensors that the net does not have: built-in weights also contain the head that the net was trained with.
fn unknown(weights: &Source) -> Unknown {
    match weights {
        Source::Shipped(_) => Unknown::Ignore,
        Source::Disk(_) => Unknown::Refuse,
    }
}

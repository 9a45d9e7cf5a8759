//! The parent process: starts workers, watches how they end, keeps the inputs they fail on, and restarts them after those inputs.

use super::worker::{Count, NOTES, Note, ORDER, Order, REFUSALS, STATE, frames, key, plain, state};
use super::{FORMATS, format_named};
use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::fs::{self, File};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use weft::{Error, Result};

/// Number of inputs kept per kind of fault.
const KEPT: usize = 3;
/// How often workers are polled.
const PAUSE: Duration = Duration::from_millis(20);

/// What a run consists of.
#[derive(Debug, Clone)]
pub enum Work {
    Inputs(u64),
    Seconds(f64),
    /// These files, in folders named after their formats.
    Files(Vec<PathBuf>),
}

#[derive(Debug, Clone)]
pub struct Options {
    pub work: Work,
    pub seed: u64,
    /// Formats; if empty, all.
    pub only: Vec<String>,
    pub workers: usize,
    /// Folder for failing inputs.
    pub findings: Option<PathBuf>,
    /// Time limit for one input.
    pub time: Duration,
    /// Arguments that turn this program into a worker.
    pub words: Vec<OsString>,
}

/// Progress of a run.
#[derive(Debug, Clone, Copy)]
pub struct Progress {
    pub inputs: u64,
    pub findings: u64,
    pub elapsed: Duration,
    /// Share done, in 0..=1.
    pub share: f64,
}

/// Statistics of one format.
#[derive(Debug, Clone, Default)]
pub struct Figures {
    pub count: Count,
    /// Inputs that ended their process: by an abort, the time limit or the memory limit.
    pub aborts: u64,
    pub hangs: u64,
    pub memory: u64,
    /// Distinct kinds of error messages.
    pub refusals: HashSet<String>,
}

/// Inputs that fail in the same way.
#[derive(Debug, Clone)]
pub struct Finding {
    pub format: &'static str,
    /// `panic`, `message`, `broken`, `abort`, `hang`, `memory`; `caught` is a panic in third-party code that Weft caught.
    pub kind: String,
    pub text: String,
    pub trace: Vec<String>,
    /// Numbers and contents of the first few inputs.
    pub inputs: Vec<(u64, Vec<u8>)>,
    /// How often it was reported; a worker reports each kind once.
    pub times: u64,
}

impl Finding {
    /// Whether this is a bug in Weft.
    pub fn is_fault(&self) -> bool {
        self.kind != "caught"
    }
}

#[derive(Debug, Default)]
pub struct Report {
    pub elapsed: Duration,
    pub formats: BTreeMap<&'static str, Figures>,
    pub findings: Vec<Finding>,
}

impl Report {
    /// The sum over all formats.
    pub fn total(&self) -> Figures {
        let mut total = Figures::default();
        for figures in self.formats.values() {
            total.count.add(&figures.count);
            total.aborts += figures.aborts;
            total.hangs += figures.hangs;
            total.memory += figures.memory;
        }
        total
    }

    /// Number of inputs on which Weft failed.
    pub fn failed(&self) -> u64 {
        let total = self.total();
        total.count.faults + total.aborts + total.hangs + total.memory
    }
}

/// A running worker.
struct Worker {
    order: Order,
    child: Child,
}

impl Drop for Worker {
    /// Kills the process if the run ends with an error; most have exited by themselves.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Runs inputs until the work is done or `stop` is set; `tell` is called periodically.
///
/// # Errors
/// Unknown formats, files that cannot be read or written, processes that cannot be started.
pub fn run(options: &Options, stop: &AtomicBool, tell: &mut dyn FnMut(Progress)) -> Result<Report> {
    let formats = |name: &String| {
        let known = || FORMATS.iter().map(|format| format.name).collect::<Vec<_>>().join(", ");
        format_named(name).ok_or_else(|| Error::new(format!("format {name}"), "is unknown").advise(known()))
    };
    let only = options.only.iter().map(formats).collect::<Result<Vec<usize>>>()?;
    let memory = Path::new("/dev/shm");
    let place = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let folder = tempfile::Builder::new().prefix("weft-fuzz-").tempdir_in(&place).map_err(|e| Error::file(place, e))?;
    let begin = Instant::now();
    let (end, seconds, files) = match &options.work {
        Work::Inputs(count) => (*count, None, Vec::new()),
        Work::Seconds(seconds) => (u64::MAX, Some(*seconds), Vec::new()),
        Work::Files(files) => {
            let files = files.iter().map(|file| Ok((format_of(file, &only)?, absolute(file)?)));
            let files = files.collect::<Result<Vec<_>>>()?;
            (files.len() as u64, None, files)
        }
    };
    let now = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
    let step = options.workers.max(1) as u64;
    let mut campaign =
        Campaign { options, folder: folder.path(), started: 0, report: Report::default(), keys: Vec::new() };
    let mut workers = Vec::new();
    for first in 0..step.min(end) {
        workers.push(campaign.start(Order {
            folder: PathBuf::new(),
            seed: options.seed,
            first,
            step,
            end,
            deadline: seconds.map(|seconds| now + (1000.0 * seconds) as u64),
            only: only.clone(),
            files: files.clone(),
            time: options.time.as_millis() as u64,
            trace: false,
        })?);
    }
    while !workers.is_empty() {
        std::thread::sleep(PAUSE);
        let mut running = Vec::new();
        for mut worker in workers {
            if stop.load(Relaxed) {
                // It may have exited already.
                let _ = worker.child.kill();
            }
            let status = worker.child.try_wait().map_err(|e| Error::new("worker", e))?;
            match status {
                None => running.push(worker),
                Some(status) => {
                    let next = campaign.ended(&worker.order, status, stop.load(Relaxed))?;
                    running.extend(next.map(|order| campaign.start(order)).transpose()?);
                }
            }
        }
        workers = running;
        let done = |worker: &Worker| state(&worker.order.folder).2.iter().map(|count| count.inputs).sum::<u64>();
        let inputs = campaign.report.total().count.inputs + workers.iter().map(done).sum::<u64>();
        let elapsed = begin.elapsed();
        let share = seconds.map_or(inputs as f64 / end as f64, |seconds| elapsed.as_secs_f64() / seconds);
        tell(Progress { inputs, findings: campaign.keys.len() as u64, elapsed, share: share.min(1.0) });
    }
    campaign.report.elapsed = begin.elapsed();
    for format in FORMATS {
        campaign.report.formats.entry(format.name).or_default();
    }
    campaign.report.formats.retain(|_, figures| figures.count.inputs > 0);
    if let Some(folder) = &options.findings {
        campaign.report.findings.iter().try_for_each(|finding| keep(finding, folder, options.seed))?;
    }
    Ok(campaign.report)
}

/// The format of a file: the only one selected, or else the name of its folder.
fn format_of(file: &Path, only: &[usize]) -> Result<usize> {
    let folder = file.parent().and_then(Path::file_name).unwrap_or_default().to_string_lossy();
    match only {
        [format] => Ok(*format),
        _ => format_named(&folder)
            .ok_or_else(|| Error::file(file, "is in no folder of a format").advise("give its format with --only")),
    }
}

fn absolute(file: &Path) -> Result<PathBuf> {
    fs::canonicalize(file).map_err(|e| Error::file(file, e))
}

struct Campaign<'a> {
    options: &'a Options,
    folder: &'a Path,
    started: usize,
    report: Report,
    /// Keys of the findings.
    keys: Vec<String>,
}

impl Campaign<'_> {
    fn start(&mut self, mut order: Order) -> Result<Worker> {
        order.folder = self.folder.join(self.started.to_string());
        self.started += 1;
        let bench = order.folder.join("bench");
        fs::create_dir_all(&bench).map_err(|e| Error::file(&bench, e))?;
        let errors = order.folder.join("errors");
        let errors = File::create(&errors).map_err(|e| Error::file(errors, e))?;
        let program = std::env::current_exe().map_err(|e| Error::new("this program", e))?;
        let text = serde_json::to_string(&order).map_err(|e| Error::new("order", e))?;
        let child = Command::new(program)
            .args(&self.options.words)
            .env(ORDER, text)
            // Where no thread pool is requested, none must be created.
            .env("RAYON_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(errors)
            .spawn()
            .map_err(|e| Error::new("worker", e))?;
        Ok(Worker { order, child })
    }

    /// Collects a worker's results; returns the work that remains.
    fn ended(&mut self, order: &Order, status: ExitStatus, stopped: bool) -> Result<Option<Order>> {
        let (number, hangs, counts) = state(&order.folder);
        for (format, count) in FORMATS.iter().zip(&counts) {
            self.report.formats.entry(format.name).or_default().count.add(count);
        }
        self.read_notes(order)?;
        let refusals = fs::read_to_string(order.folder.join(REFUSALS)).unwrap_or_default();
        for (format, kind) in refusals.lines().filter_map(|line| line.split_once(' ')) {
            if let Some(format) = format.parse().ok().and_then(|number: usize| FORMATS.get(number)) {
                self.report.formats.entry(format.name).or_default().refusals.insert(kind.to_string());
            }
        }
        let errors = fs::read(order.folder.join("errors")).unwrap_or_default();
        let errors = String::from_utf8_lossy(&errors).into_owned();
        let next = match number {
            _ if status.success() || stopped => None,
            None => return Err(Error::new("worker", format!("{status}: {}", errors.trim()))),
            Some(_) if status.code() == Some(3) => return Err(Error::new("worker", errors.trim())),
            Some(number) => {
                self.died(order, number, hangs, status, &errors)?;
                Some(Order { first: number + order.step, ..order.clone() }).filter(|next| next.first < next.end)
            }
        };
        fs::remove_dir_all(&order.folder).map_err(|e| Error::file(&order.folder, e))?;
        Ok(next)
    }

    fn read_notes(&mut self, order: &Order) -> Result<()> {
        let notes = fs::read_to_string(order.folder.join(NOTES)).unwrap_or_default();
        for note in notes.lines().filter_map(|line| serde_json::from_str::<Note>(line).ok()) {
            let key = key(note.format, &note.kind, &note.text);
            let finding = Finding {
                format: FORMATS[note.format].name,
                kind: note.kind,
                text: note.text,
                trace: note.trace,
                inputs: vec![(note.number, note.input)],
                times: 1,
            };
            self.add(key, finding);
        }
        Ok(())
    }

    /// Handles an input that ended its process.
    fn died(&mut self, order: &Order, number: u64, hangs: bool, status: ExitStatus, errors: &str) -> Result<()> {
        let (format, input) = order.input(number)?;
        let figures = self.report.formats.entry(FORMATS[format].name).or_default();
        figures.count.inputs += 1;
        let (kind, text, trace) = if hangs {
            figures.hangs += 1;
            ("hang", format!("takes more than {} ms", order.time), Vec::new())
        } else if errors.contains("memory allocation of ") {
            figures.memory += 1;
            let text = errors.lines().find(|line| line.starts_with("memory allocation of ")).unwrap_or_default();
            ("memory", text.to_string(), self.trace(order, number)?)
        } else {
            figures.aborts += 1;
            let how = status.signal().map_or(status.to_string(), |signal| format!("signal {signal}"));
            let line = errors.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
            ("abort", format!("{how} {}", line.trim()).trim().to_string(), Vec::new())
        };
        let place =
            trace.iter().find(|call| call.contains("weft::")).or(trace.first()).cloned().unwrap_or(plain(&text));
        let key = format!("{format} {kind} {place}");
        let finding = Finding {
            format: FORMATS[format].name,
            kind: kind.into(),
            text,
            trace,
            inputs: vec![(number, input)],
            times: 1,
        };
        self.add(key, finding);
        Ok(())
    }

    fn add(&mut self, key: String, finding: Finding) {
        match self.keys.iter().position(|known| *known == key) {
            Some(at) => {
                let known = &mut self.report.findings[at];
                known.times += 1;
                if known.inputs.len() < KEPT {
                    known.inputs.extend(finding.inputs);
                }
            }
            None => {
                self.keys.push(key);
                self.report.findings.push(finding);
            }
        }
    }

    /// Runs an input again in a process that reports where memory was refused.
    fn trace(&mut self, order: &Order, number: u64) -> Result<Vec<String>> {
        let again = Order { first: number, end: number + 1, deadline: None, trace: true, ..order.clone() };
        let mut worker = self.start(again)?;
        worker.child.wait().map_err(|e| Error::new("worker", e))?;
        let folder = &worker.order.folder;
        let errors = fs::read(folder.join("errors")).unwrap_or_default();
        let errors = String::from_utf8_lossy(&errors);
        // The last refusal is the one that was not handled.
        let last = errors.rfind("refused ").map_or("", |at| &errors[at..]);
        let trace = frames(last);
        fs::remove_file(folder.join(STATE))
            .and_then(|()| fs::remove_dir_all(folder))
            .map_err(|e| Error::file(folder, e))?;
        Ok(trace)
    }
}

/// Writes the inputs of a finding to the folder of their format, together with a description of the failure.
fn keep(finding: &Finding, folder: &Path, seed: u64) -> Result<()> {
    let folder = folder.join(finding.format);
    fs::create_dir_all(&folder).map_err(|e| Error::file(&folder, e))?;
    for (number, input) in &finding.inputs {
        let path = folder.join(format!("{}-{seed}-{number}", finding.kind));
        fs::write(&path, input).map_err(|e| Error::file(&path, e))?;
        let about = path.with_extension("txt");
        let text = format!(
            "{} {} (seed {seed}, input {number})\n{}\n{}\n",
            finding.format,
            finding.kind,
            finding.text,
            finding.trace.join("\n")
        );
        fs::write(&about, text).map_err(|e| Error::file(about, e))?;
    }
    Ok(())
}

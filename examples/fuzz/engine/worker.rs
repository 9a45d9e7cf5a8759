//! A worker process: runs one input after another and records which, so that its parent knows what ended it.

use super::targets::{Bench, CONTROL, End, fault_of};
use super::{FORMATS, memory};
use serde::{Deserialize, Serialize};
use std::backtrace::Backtrace;
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};
use weft::{Error, Result};

/// Environment variable that passes an [`Order`] to a worker.
pub const ORDER: &str = "WEFT_FUZZ_ORDER";
/// In the worker's folder: the number of its input, whether it hangs, and the [`Count`] of each format.
pub const STATE: &str = "state";
/// In the worker's folder: a line per [`Note`].
pub const NOTES: &str = "notes";
/// In the worker's folder: a line per kind of refusal, with the number of its format.
pub const REFUSALS: &str = "refusals";

/// The default stack size of Rust threads: overflowing it is a finding.
const STACK: usize = 2 << 20;
/// Number of attempts to shrink a failing input, and their time limit.
const TRIES: usize = 3000;
const PATIENCE: Duration = Duration::from_secs(3);
/// Maximum number of kinds of findings and of refusals that a worker reports.
const MOST: usize = 2000;

/// The work of a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Order {
    pub folder: PathBuf,
    pub seed: u64,
    /// Numbers `first`, `first + step` and so on, below `end`.
    pub first: u64,
    pub step: u64,
    pub end: u64,
    /// When to stop, in milliseconds since 1970.
    pub deadline: Option<u64>,
    /// Formats by index; if empty, all.
    pub only: Vec<usize>,
    /// If given, run these files instead, each with its format; a number is an index into this list.
    pub files: Vec<(usize, PathBuf)>,
    /// Time limit for one input, in milliseconds.
    pub time: u64,
    /// The process exits after this input, so it should report where memory was refused.
    pub trace: bool,
}

impl Order {
    /// Input `number` and its format.
    pub fn input(&self, number: u64) -> Result<(usize, Vec<u8>)> {
        match self.files.get(number as usize) {
            Some((format, path)) => Ok((*format, std::fs::read(path).map_err(|e| Error::file(path, e))?)),
            None => Ok(super::input(self.seed, number, &self.only)),
        }
    }
}

/// Statistics of one format.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Count {
    pub inputs: u64,
    pub accepted: u64,
    pub refused: u64,
    /// Inputs that cause a fault without ending the process.
    pub faults: u64,
    /// Panics in third-party code that Weft catches.
    pub caught: u64,
    /// Peak memory of one input, in bytes.
    pub peak: u64,
    /// Nanoseconds: in total, and for the slowest input.
    pub time: u64,
    pub slowest: u64,
    /// The slowest input's number.
    pub slow: u64,
}

impl Count {
    const BYTES: usize = 72;

    fn to_bytes(self) -> [u8; Self::BYTES] {
        let Self { inputs, accepted, refused, faults, caught, peak, time, slowest, slow } = self;
        let mut bytes = [0; Self::BYTES];
        let fields = [inputs, accepted, refused, faults, caught, peak, time, slowest, slow];
        bytes.chunks_exact_mut(8).zip(fields).for_each(|(to, field)| to.copy_from_slice(&field.to_le_bytes()));
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Self {
        let field = |i: usize| bytes[8 * i..].first_chunk().map_or(0, |b| u64::from_le_bytes(*b));
        let [inputs, accepted, refused, faults, caught, peak, time, slowest, slow] = std::array::from_fn(field);
        Self { inputs, accepted, refused, faults, caught, peak, time, slowest, slow }
    }

    /// Combines both.
    pub fn add(&mut self, other: &Self) {
        self.inputs += other.inputs;
        self.accepted += other.accepted;
        self.refused += other.refused;
        self.faults += other.faults;
        self.caught += other.caught;
        self.time += other.time;
        self.peak = self.peak.max(other.peak);
        if other.slowest > self.slowest {
            (self.slowest, self.slow) = (other.slowest, other.slow);
        }
    }
}

/// The content of a worker's state file: the number of the input if one is running, whether it hangs, and the statistics.
pub fn state(folder: &Path) -> (Option<u64>, bool, Vec<Count>) {
    let bytes = std::fs::read(folder.join(STATE)).unwrap_or_default();
    let word = |at: usize| bytes.get(at..).and_then(<[u8]>::first_chunk).map_or(0, |b| u64::from_le_bytes(*b));
    let counts = bytes.get(16..).unwrap_or_default().chunks_exact(Count::BYTES).map(Count::from_bytes);
    (word(0).checked_sub(1), word(8) != 0, counts.collect())
}

/// A fault that did not end its process, or a panic that Weft caught.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Note {
    pub format: usize,
    pub number: u64,
    /// `panic`, `message`, `broken` or `caught`.
    pub kind: String,
    pub text: String,
    /// Where it came from, as far as known.
    pub trace: Vec<String>,
    /// The shrunk input.
    pub input: Vec<u8>,
}

thread_local! {
    /// Panics since the input began: their locations and messages.
    static PANICS: RefCell<Vec<(String, String)>> = const { RefCell::new(Vec::new()) };
    static TRACING: Cell<bool> = const { Cell::new(false) };
    static TRACE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// When the input began, in milliseconds since the worker started; 0 if none is running.
static BEGAN: AtomicU64 = AtomicU64::new(0);

fn milliseconds() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_millis() as u64 + 1
}

/// Runs the order in the environment, if there is one; returns true in a worker, once that is done.
pub fn serve() -> bool {
    let Ok(order) = std::env::var(ORDER) else { return false };
    let done = serde_json::from_str(&order).map_err(|e| Error::new(ORDER, e)).and_then(|order: Order| work(&order));
    if let Err(error) = done {
        eprintln!("fuzz worker: {error}");
        std::process::exit(3);
    }
    true
}

fn work(order: &Order) -> Result<()> {
    let folder = &order.folder;
    let open = |name: &str| {
        let path = folder.join(name);
        OpenOptions::new().create(true).append(name != STATE).write(true).open(&path).map_err(|e| Error::file(path, e))
    };
    let state = open(STATE)?;
    watch(open(STATE)?, order.time);
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map_or(String::new(), ToString::to_string);
        let payload = panic.payload();
        let text =
            payload.downcast_ref::<&str>().copied().or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let text = text.unwrap_or("a panic without a text").to_string();
        if BEGAN.load(Relaxed) == 0 {
            // A panic in the fuzzer itself.
            eprintln!("{place}: {text}");
        }
        if TRACING.get() {
            let trace = Backtrace::force_capture().to_string();
            TRACE.with_borrow_mut(|kept| {
                if kept.is_empty() {
                    *kept = trace
                }
            });
        }
        PANICS.with_borrow_mut(|panics| panics.push((place, text)));
    }));
    if order.trace {
        memory::trace();
    }
    let bench = Bench::new(&folder.join("bench"), !order.files.is_empty())?;
    let mut worker = Worker {
        order,
        bench,
        state,
        notes: open(NOTES)?,
        refusals: open(REFUSALS)?,
        counts: [Count::default(); FORMATS.len()],
        told: HashMap::new(),
        refused: HashSet::new(),
    };
    // A pool with only this thread: work that would use other cores stays within the limits.
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).stack_size(STACK).build();
    pool.map_err(|e| Error::new("threads", e))?.install(|| worker.run())
}

/// Ends the process if an input takes too long.
fn watch(state: File, limit: u64) {
    std::thread::spawn(move || {
        loop {
            std::thread::sleep(Duration::from_millis(limit.clamp(20, 1000) / 20));
            let began = BEGAN.load(Relaxed);
            if began > 0 && milliseconds() > began.saturating_add(limit) && BEGAN.load(Relaxed) == began {
                let _ = state.write_all_at(&1_u64.to_le_bytes(), 8);
                std::process::abort();
            }
        }
    });
}

/// The result of an input.
enum Ended {
    Accepted,
    Refused(String),
    /// The kind of fault and its message.
    Fault(&'static str, String),
}

struct Worker<'a> {
    order: &'a Order,
    bench: Bench,
    state: File,
    notes: File,
    refusals: File,
    counts: [Count; FORMATS.len()],
    /// Faults by kind, and their counts.
    told: HashMap<String, u64>,
    refused: HashSet<u64>,
}

impl Worker<'_> {
    fn run(&mut self) -> Result<()> {
        let order = self.order;
        let cannot = |e: std::io::Error| Error::file(&order.folder, e);
        let parent = std::os::unix::process::parent_id();
        let now = || SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as u64);
        for (done, number) in (order.first..order.end).step_by(order.step as usize).enumerate() {
            if done % 64 == 0
                && (std::os::unix::process::parent_id() != parent || order.deadline.is_some_and(|at| now() >= at))
            {
                break;
            }
            let (format, input) = order.input(number)?;
            self.state.write_all_at(&(number + 1).to_le_bytes(), 0).map_err(cannot)?;
            let begin = Instant::now();
            let (ended, peak) = self.one(format, &input);
            let time = begin.elapsed().as_nanos() as u64;
            let (accepted, refused, fault) = match &ended {
                Ended::Accepted => (1, 0, 0),
                Ended::Refused(_) => (0, 1, 0),
                Ended::Fault(..) => (0, 0, 1),
            };
            let caught = u64::from(!matches!(ended, Ended::Fault("panic", _)) && PANICS.with_borrow(|p| !p.is_empty()));
            self.counts[format].add(&Count {
                inputs: 1,
                accepted,
                refused,
                faults: fault,
                caught,
                peak: peak as u64,
                time,
                slowest: time,
                slow: number,
            });
            if caught > 0 {
                let (place, text) = PANICS.with_borrow(|panics| panics[0].clone());
                self.note(format, number, "caught", &format!("{place}: {text}"), &input)?;
            }
            match ended {
                Ended::Accepted => {}
                Ended::Refused(message) => self.refusal(format, &message).map_err(cannot)?,
                Ended::Fault(kind, text) => self.note(format, number, kind, &text, &input)?,
            }
            let at = 16 + (Count::BYTES * format) as u64;
            self.state.write_all_at(&self.counts[format].to_bytes(), at).map_err(cannot)?;
        }
        // No input is running: if the process ends now, no input is to blame.
        self.state.write_all_at(&0_u64.to_le_bytes(), 0).map_err(cannot)
    }

    /// Runs an input; also returns the bytes it allocated.
    fn one(&mut self, format: usize, input: &[u8]) -> (Ended, usize) {
        let bench = &mut self.bench;
        let Some(at) = FORMATS.get(format) else { return (Ended::Fault("broken", "no such format".into()), 0) };
        bench.next(input);
        PANICS.with_borrow_mut(Vec::clear);
        // Finding the origin of a panic needs memory and time.
        let limited = !TRACING.get();
        BEGAN.store(if limited { milliseconds() } else { u64::MAX }, Relaxed);
        let before = memory::begin(if limited { at.memory } else { usize::MAX });
        let ended = catch_unwind(AssertUnwindSafe(|| (at.target)(bench, input)));
        let peak = memory::end(before);
        BEGAN.store(0, Relaxed);
        let ended = match ended {
            Ok(Ok(())) => Ended::Accepted,
            Ok(Err(End::Broken(what))) => Ended::Fault("broken", what),
            Ok(Err(End::Refused(message))) => match fault_of(&message, at.places) {
                Some(fault) => Ended::Fault("message", fault),
                None => Ended::Refused(message),
            },
            Err(_) => Ended::Fault(
                "panic",
                PANICS.with_borrow(|p| p.last().map_or(String::new(), |(at, text)| format!("{at}: {text}"))),
            ),
        };
        // A panic in Weft itself is a fault, whether it is caught or not.
        let own = PANICS.with_borrow(|panics| panics.iter().find(|(place, _)| place.starts_with("src/")).cloned());
        match own {
            Some((place, text)) => (Ended::Fault("panic", format!("{place}: {text}")), peak),
            None => (ended, peak),
        }
    }

    /// Reports a fault on its first occurrence, with an input shrunk as far as possible.
    fn note(&mut self, format: usize, number: u64, kind: &str, text: &str, input: &[u8]) -> Result<()> {
        let name = key(format, kind, text);
        let times = self.told.entry(name.clone()).or_insert(0);
        *times += 1;
        if *times > 1 || self.told.len() > MOST {
            return Ok(());
        }
        let small = if self.order.files.is_empty() { self.smaller(format, kind, &name, input) } else { input.to_vec() };
        TRACING.set(true);
        TRACE.with_borrow_mut(String::clear);
        self.one(format, &small);
        TRACING.set(false);
        let trace = TRACE.with_borrow(|trace| frames(trace));
        let note = Note { format, number, kind: kind.to_string(), text: text.to_string(), trace, input: small };
        let line = serde_json::to_string(&note).map_err(|e| Error::new("note", e))? + "\n";
        self.notes.write_all(line.as_bytes()).map_err(|e| Error::file(&self.order.folder, e))
    }

    /// Removes parts of an input as long as it fails in the same way.
    fn smaller(&mut self, format: usize, kind: &str, name: &str, input: &[u8]) -> Vec<u8> {
        let mut small = input.to_vec();
        let begin = Instant::now();
        let (mut size, mut tries) = (small.len() / 2, 0);
        while size > 0 {
            let mut at = 0;
            while at < small.len() {
                tries += 1;
                if tries > TRIES || begin.elapsed() > PATIENCE {
                    return small;
                }
                let mut less = small.clone();
                less.drain(at..(at + size).min(small.len()));
                let same = match self.one(format, &less).0 {
                    Ended::Fault(k, text) => k == kind && key(format, k, &text) == name,
                    _ => {
                        let caught = PANICS.with_borrow(|p| p.first().map(|(place, text)| format!("{place}: {text}")));
                        kind == "caught" && caught.is_some_and(|text| key(format, kind, &text) == name)
                    }
                };
                if same { small = less } else { at += size }
            }
            size /= 2;
        }
        small
    }

    /// Records a kind of refusal on its first occurrence.
    fn refusal(&mut self, format: usize, message: &str) -> std::io::Result<()> {
        let kind = plain(message);
        let hash = std::hash::BuildHasher::hash_one(
            &std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default(),
            (format, &kind),
        );
        if self.refused.len() > MOST || !self.refused.insert(hash) {
            return Ok(());
        }
        self.refusals.write_all(format!("{format} {}\n", kind.escape_debug()).as_bytes())
    }
}

/// Identifies a kind of fault: its location, or its message up to the colon; for an error with a wrong place, its text without
/// the parts taken from the input.
pub fn key(format: usize, kind: &str, text: &str) -> String {
    let whole = kind == "message" && !text.starts_with(CONTROL);
    let text = if whole { plain(text) } else { text.split(": ").next().unwrap_or_default().to_string() };
    format!("{format} {kind} {text}")
}

/// A text without quoted parts, numbers and folders.
pub fn plain(text: &str) -> String {
    let mut plain = String::new();
    let mut quote = None;
    for c in text.replace("NaN", "0").replace("inf", "0").chars().take(400) {
        match quote {
            Some(end) if c == end => quote = None,
            Some(_) => {}
            None if "\"`".contains(c) => {
                quote = Some(c);
                plain.push('"');
            }
            None if c.is_ascii_digit() || "-+.".contains(c) => {
                if !plain.ends_with('#') {
                    plain.push('#');
                }
            }
            None => plain.push(c),
        }
    }
    plain.truncate(plain.char_indices().nth(160).map_or(plain.len(), |(at, _)| at));
    plain
}

/// The calls in a backtrace that are not in Rust's own code, innermost first: `function (file:line)`.
pub fn frames(trace: &str) -> Vec<String> {
    let mut lines = trace.lines().map(str::trim).peekable();
    let mut found = Vec::new();
    while let Some(line) = lines.next() {
        let call = line.split_once(": ").filter(|(number, _)| number.parse::<u32>().is_ok()).map(|(_, call)| call);
        let place = lines.next_if(|next| next.starts_with("at ")).map(|at| at[3..].to_string());
        let (Some(call), Some(place)) = (call, place) else { continue };
        if ["/rustc/", "engine/worker.rs", "engine/memory.rs"].iter().any(|own| place.contains(own)) {
            continue;
        }
        let registry = place.rsplit_once("/registry/src/").and_then(|(_, rest)| rest.split_once('/'));
        let short =
            registry.map_or(&*place, |(_, rest)| rest).trim_start_matches(concat!(env!("CARGO_MANIFEST_DIR"), "/"));
        found.push(format!("{call} ({})", short.trim_start_matches("./")));
        if place.contains("engine/targets.rs") {
            break;
        }
    }
    found.truncate(12);
    found
}

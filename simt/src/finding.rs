//! What a launch can report. A bug in a kernel is a value, not an abort: a lane with an error is suspended permanently
//! and leaves a [`Failure`]; the worker turns that into a [`Finding`] on its own stack, where looking up a source line
//! may use any amount of stack space.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::fmt;
use std::path::Path;

/// The kinds of bug that are detected.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// Threads of a block wait at different barriers, or some ended or are elsewhere while others wait.
    DivergentBarrier,
    /// A warp collective whose lanes disagree on mask or place, or whose mask names a lane that never arrives.
    BadWarpMask,
    /// A read of memory outside of all buffers.
    OutOfBoundsRead,
    /// A write to memory outside of all buffers.
    OutOfBoundsWrite,
    /// An access beyond the dynamic shared memory of the launch.
    SharedOutOfBounds,
    /// An index beyond the declared size of an array, shared or local.
    IndexOutOfBounds,
    /// Two threads of a block access the same shared byte, at least one of them writing, without a barrier in between.
    SharedRace,
    /// A read of shared memory that no thread of the block has written.
    UninitialisedShared,
    /// A read of global memory that neither the host nor any kernel has written.
    UninitialisedGlobal,
    /// Shared memory accessed while a `cp.async` into it may still be in flight.
    AsyncCopyPending,
    /// Two blocks of one launch access the same global byte, at least one of them writing.
    CrossBlockRace,
    /// Signed integer overflow.
    IntegerOverflow,
    /// Integer division by zero.
    DivisionByZero,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// A read of a register that has not been written (only in the PTX engine).
    UninitialisedRegister,
    /// A thread needs more stack than a coroutine has.
    StackOverflow,
    /// The kernel called `__trap`, or an `assert` in it failed.
    Trap,
}

/// A bug in a kernel: its kind, the thread, and the place in the source.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub kind: Kind,
    pub kernel: String,
    /// `blockIdx`.
    pub block: [u32; 3],
    /// `threadIdx` of the thread that detected it; of one waiting thread in a deadlock.
    pub thread: [u32; 3],
    /// File name without its folder; empty if unknown.
    pub file: String,
    /// Line from 1; 0 if unknown.
    pub line: u32,
    /// Further details as text.
    pub detail: String,
}

impl Finding {
    /// One that no thread is to blame for.
    pub(crate) fn of_launch(kind: Kind, kernel: &str, detail: String) -> Finding {
        let (kernel, file) = (kernel.to_owned(), String::new());
        Finding { kind, kernel, block: [0; 3], thread: [0; 3], file, line: 0, detail }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Finding { kind, kernel, block, thread, file, line, detail } = self;
        let place = if file.is_empty() { "unknown place".to_owned() } else { format!("{file}:{line}") };
        write!(f, "{kernel}: {kind:?} at {place}, block {block:?}, thread {thread:?}: {detail}")
    }
}

/// Why a launch failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// The launch itself is invalid: unknown kernel, geometry, arguments. Nothing ran.
    Launch(String),
    /// The kernel ran and has a bug. Buffers contain whatever it had written by then.
    Finding(Box<Finding>),
}

impl Error {
    /// The finding, if this is one.
    pub fn finding(&self) -> Option<&Finding> {
        match self {
            Error::Finding(finding) => Some(finding),
            Error::Launch(_) => None,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Launch(message) => write!(f, "simt: {message}"),
            Error::Finding(finding) => write!(f, "simt: {finding}"),
        }
    }
}
impl std::error::Error for Error {}

/// A place in a kernel's source: given by the shim's wrappers, or a code address from which the compiler's hooks were called.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Place {
    Unknown,
    Source { file: *const c_char, line: c_int },
    Code(usize),
}

impl Place {
    /// File name and line. Slow for a code address, and needs much stack: never call this on a coroutine.
    pub(crate) fn resolve(self) -> (String, u32) {
        match self {
            Place::Unknown => (String::new(), 0),
            Place::Source { file, line } => {
                // SAFETY: the shim passes __builtin_FILE(), a string literal.
                let file = unsafe { CStr::from_ptr(file) }.to_string_lossy().into_owned();
                (base_name(Path::new(&file)), line as u32)
            }
            Place::Code(address) => {
                // The hook was called from nested inlined functions: report the innermost one outside the shim.
                let (mut best, mut inside_shim) = (None, true);
                backtrace::resolve((address - 1) as *mut c_void, |symbol| {
                    if let (true, Some(file), Some(line)) = (inside_shim, symbol.filename(), symbol.lineno()) {
                        inside_shim = file.parent().is_some_and(|dir| dir.ends_with("include/simt"));
                        best = Some((base_name(file), line));
                    }
                });
                best.unwrap_or_default()
            }
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (file, line) = self.resolve();
        write!(f, "{file}:{line}")
    }
}

fn base_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// The problem with one access, before the thread is known.
#[derive(Debug)]
pub(crate) struct Problem {
    pub kind: Kind,
    pub detail: String,
}

impl Problem {
    pub fn new(kind: Kind, detail: impl Into<String>) -> Box<Problem> {
        Box::new(Problem { kind, detail: detail.into() })
    }
}

/// A problem with its thread and place; becomes a [`Finding`] off the coroutine.
#[derive(Debug)]
pub(crate) struct Failure {
    pub problem: Box<Problem>,
    pub place: Place,
    /// A second relevant place, appended to the details.
    pub other: Option<Place>,
    pub thread: [u32; 3],
}

impl Failure {
    pub fn into_finding(self, kernel: &str, block: [u32; 3]) -> Finding {
        let (file, line) = self.place.resolve();
        let mut detail = self.problem.detail;
        if let Some(other) = self.other {
            detail += &format!(" {other}");
        }
        Finding { kind: self.problem.kind, kernel: kernel.to_owned(), block, thread: self.thread, file, line, detail }
    }
}

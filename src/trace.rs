//! Where the time of a piece of work goes: named spans, and counts of passes, launches and copies, for `weft bench predict` and
//! `weft profile --chain`. Recorded per thread and only inside [`record`]; elsewhere a span costs one look at a thread-local.

use std::cell::RefCell;
use std::time::{Duration, Instant};

/// A piece of work with its place in time. Spans of a thread nest.
#[derive(Debug, Clone)]
pub struct Span {
    pub name: &'static str,
    /// What it worked on, such as a size.
    pub detail: String,
    pub start: Instant,
    pub end: Instant,
}

/// What was done, apart from how long it took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize)]
pub struct Counts {
    /// Forward passes of nets.
    pub passes: u64,
    /// Kernels launched on a GPU, those of graphs included.
    pub launches: u64,
    pub uploads: u64,
    pub downloads: u64,
    pub uploaded_bytes: u64,
    pub downloaded_bytes: u64,
}

/// All spans, in the order of their ends, and the counts.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub spans: Vec<Span>,
    pub counts: Counts,
}

thread_local! {
    static TRACE: RefCell<Option<Trace>> = const { RefCell::new(None) };
}

/// Runs `work` and returns what it recorded on this thread.
pub fn record<T>(work: impl FnOnce() -> T) -> (T, Trace) {
    let before = TRACE.replace(Some(Trace::default()));
    let result = work();
    let trace = TRACE.replace(before).unwrap_or_default();
    (result, trace)
}

/// Runs `work` as a span.
pub fn span<T>(name: &'static str, detail: impl FnOnce() -> String, work: impl FnOnce() -> T) -> T {
    if !TRACE.with_borrow(Option::is_some) {
        return work();
    }
    let start = Instant::now();
    let result = work();
    let end = Instant::now();
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            trace.spans.push(Span { name, detail: detail(), start, end });
        }
    });
    result
}

/// Adds to the counts.
pub fn count(add: impl FnOnce(&mut Counts)) {
    TRACE.with_borrow_mut(|trace| {
        if let Some(trace) = trace {
            add(&mut trace.counts);
        }
    });
}

/// Counts a copy to the device.
pub fn uploaded(bytes: usize) {
    count(|counts| {
        counts.uploads += 1;
        counts.uploaded_bytes += bytes as u64;
    });
}

/// Counts a copy from the device.
pub fn downloaded(bytes: usize) {
    count(|counts| {
        counts.downloads += 1;
        counts.downloaded_bytes += bytes as u64;
    });
}

impl Trace {
    /// Time in spans of each name without the spans inside them, in the order in which the names first ended.
    pub fn parts(&self) -> Vec<(&'static str, Duration)> {
        let mut parts: Vec<(&'static str, Duration)> = Vec::new();
        // Ended spans that are inside no ended one yet: the next span that ends contains those that began after it.
        let mut open: Vec<&Span> = Vec::new();
        for span in &self.spans {
            let inside = open.iter().position(|other| other.start >= span.start).unwrap_or(open.len());
            let children: Duration = open.drain(inside..).map(|child| child.end - child.start).sum();
            open.push(span);
            let own = (span.end - span.start).saturating_sub(children);
            match parts.iter_mut().find(|(name, _)| *name == span.name) {
                Some((_, time)) => *time += own,
                None => parts.push((span.name, own)),
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nap(milliseconds: u64) {
        std::thread::sleep(Duration::from_millis(milliseconds));
    }

    #[test]
    fn a_span_counts_without_the_spans_inside_it() {
        let none = String::new;
        let ((), trace) = record(|| {
            span("outer", none, || {
                nap(5);
                span("inner", none, || nap(20));
                span("inner", || "2".into(), || nap(20));
            });
            span("outer", none, || nap(5));
            count(|counts| counts.passes += 2);
        });
        let parts = trace.parts();
        assert_eq!(parts.iter().map(|part| part.0).collect::<Vec<_>>(), ["inner", "outer"]);
        let whole = trace.spans[2].end - trace.spans[2].start + (trace.spans[3].end - trace.spans[3].start);
        assert_eq!(parts[0].1 + parts[1].1, whole);
        assert!(parts[0].1 >= Duration::from_millis(40) && parts[1].1 >= Duration::from_millis(10), "{parts:?}");
        assert_eq!((trace.counts.passes, trace.spans[1].detail.as_str()), (2, "2"));
    }

    #[test]
    fn nothing_is_recorded_outside() {
        span("outside", String::new, || count(|counts| counts.passes += 1));
        let ((), trace) = record(|| ());
        assert!(trace.spans.is_empty() && trace.counts == Counts::default());
    }
}

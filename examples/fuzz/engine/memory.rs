//! The memory limit: every allocation is counted, and one that would exceed the limit is refused, as on a system without free
//! memory. Code that allocates fallibly gets an error; other code ends the process, which is a finding.

use std::alloc::{GlobalAlloc, Layout, System};
use std::backtrace::Backtrace;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);
static TRACE: AtomicBool = AtomicBool::new(false);

struct Counting;

/// Counts `more` bytes; returns false if they exceed the limit.
fn take(more: usize) -> bool {
    let live = LIVE.fetch_add(more, Relaxed).saturating_add(more);
    let limit = LIMIT.load(Relaxed);
    if live > limit {
        give(more);
        if TRACE.load(Relaxed) {
            LIMIT.store(usize::MAX, Relaxed);
            eprintln!("refused {more} bytes beyond {limit}\n{}", Backtrace::force_capture());
            LIMIT.store(limit, Relaxed);
        }
        return false;
    }
    PEAK.fetch_max(live, Relaxed);
    true
}

fn give(less: usize) {
    LIVE.fetch_sub(less, Relaxed);
}

// SAFETY: every call is forwarded to the system's allocator with the caller's arguments, or returns null, which is allowed.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if !take(layout.size()) {
            return std::ptr::null_mut();
        }
        // SAFETY: guaranteed by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let more = size.saturating_sub(layout.size());
        if !take(more) {
            return std::ptr::null_mut();
        }
        give(layout.size().saturating_sub(size));
        // SAFETY: guaranteed by the caller.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        give(layout.size());
        // SAFETY: guaranteed by the caller.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Allows this process `bytes` more than it has allocated now; returns the current amount.
pub fn begin(bytes: usize) -> usize {
    let live = LIVE.load(Relaxed);
    PEAK.store(live, Relaxed);
    LIMIT.store(live.saturating_add(bytes), Relaxed);
    live
}

/// Lifts the limit; returns the peak above the value `before` that [`begin`] returned.
pub fn end(before: usize) -> usize {
    LIMIT.store(usize::MAX, Relaxed);
    PEAK.load(Relaxed).saturating_sub(before)
}

/// From now on, a refusal prints a backtrace.
pub fn trace() {
    TRACE.store(true, Relaxed);
}

//! Progress of long commands on standard error: a bar on a terminal; elsewhere (a log file, a pipe) a plain line every few
//! seconds. A command that finishes before the first line is due leaves no trace in a log.

use std::io::{IsTerminal, Write};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{FormattedDuration, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Time between two plain lines.
const INTERVAL: Duration = Duration::from_secs(5);
const BAR: &str = "{prefix}  {wide_bar}  {pos}/{len}  {per_sec}  {eta_precise} left  {msg}";

/// Reports progress; can be shared between threads.
pub struct Progress(Mutex<State>);

struct State {
    what: String,
    total: u64,
    done: u64,
    message: String,
    /// Time and value of the first report. Rates are measured from there, because earlier progress may come from a previous run
    /// or a slow start.
    first: Option<(Instant, u64)>,
    next_line: Instant,
    /// The progress that the last plain line reported.
    printed: Option<u64>,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// `total` steps of `what`.
    pub fn new(total: u64, what: &str) -> Self {
        let bar = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.with_style(style).with_prefix(what.to_string())
        });
        Self(Mutex::new(State {
            what: what.to_string(),
            total,
            done: 0,
            message: String::new(),
            first: None,
            next_line: Instant::now() + INTERVAL,
            printed: None,
            bar,
        }))
    }

    /// Reports that `done` steps are done. Threads may report out of order: the largest number counts.
    pub fn set(&self, done: u64) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.done = state.done.max(done);
        let is_first = state.first.is_none();
        state.first.get_or_insert((Instant::now(), done));
        if let Some(bar) = &state.bar {
            bar.set_position(state.done);
            if is_first {
                bar.reset_eta();
            }
        } else if Instant::now() >= state.next_line {
            state.print();
        }
    }

    /// Sets the text at the end of the line, such as the loss.
    pub fn message(&self, text: impl Into<String>) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.message = text.into();
        if let Some(bar) = &state.bar {
            bar.set_message(state.message.clone());
        }
    }

    /// All steps are done: the bar stays as it is, or a last line is printed if there were others. If it is dropped without this,
    /// after an error, the bar also stays, so that the error appears below it.
    pub fn finish(self) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.printed.is_some_and(|done| done != state.done) {
            state.print();
        }
    }
}

impl Drop for State {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.abandon();
            // The bar leaves the cursor at its end.
            let _ = writeln!(std::io::stderr().lock());
        }
    }
}

impl State {
    fn print(&mut self) {
        let now = Instant::now();
        // A failed write of the progress is not a reason to fail.
        let _ = writeln!(std::io::stderr().lock(), "{}", self.line(now));
        self.next_line = now + INTERVAL;
        self.printed = Some(self.done);
    }

    fn line(&self, now: Instant) -> String {
        let Self { what, total, done, message, .. } = self;
        let mut line = format!("{what}: {done}/{total}");
        if let Some((start, before)) = self.first
            && *done > before
        {
            let seconds = now.duration_since(start).as_secs_f64();
            let rate = (done - before) as f64 / seconds;
            let left = Duration::try_from_secs_f64(total.saturating_sub(*done) as f64 / rate).unwrap_or(Duration::MAX);
            let digits = if rate < 10.0 { 2 } else { 0 };
            line += &format!(", {rate:.digits$}/s, {} left", FormattedDuration(left));
        }
        if !message.is_empty() {
            line += &format!(", {message}");
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_the_rate_of_this_run_and_the_time_left() {
        let progress = Progress::new(10_000, "steps");
        progress.set(4_000); // resumed
        progress.set(4_600);
        progress.set(4_500); // a thread that was overtaken
        progress.message("loss 0.25");
        let state = progress.0.lock().unwrap();
        let start = state.first.unwrap().0;
        assert_eq!(state.line(start + Duration::from_secs(60)), "steps: 4600/10000, 10/s, 00:09:00 left, loss 0.25");
        assert_eq!(state.line(start + Duration::from_secs(240)), "steps: 4600/10000, 2.50/s, 00:36:00 left, loss 0.25");
    }

    #[test]
    fn nothing_done_is_no_division_by_zero() {
        let progress = Progress::new(0, "images");
        progress.set(0);
        let state = progress.0.lock().unwrap();
        assert_eq!(state.line(Instant::now()), "images: 0/0");
    }
}

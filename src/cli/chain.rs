//! `weft profile --chain`: where the time of one photo goes, from its file to its attributes, as a table and as a timeline.

use super::{print, print_json};
use crate::Result;
use crate::data::photo::Photo;
use crate::device::Device;
use crate::face::Model;
use crate::text_table::{TextTable, number, text};
use crate::trace::{self, Trace};
use serde_json::{Value, json};
use std::path::Path;
use std::time::Instant;

/// The run of a photo through the chain with the median time.
pub struct Chain {
    device: String,
    start: Instant,
    seconds: f64,
    trace: Trace,
}

impl Chain {
    /// Runs a photo through the chain `runs` times, after a warm-up.
    ///
    /// # Errors
    /// A photo that cannot be read; insufficient memory.
    pub fn measure(model: &mut Model, device: &Device, photo: &Path, runs: usize) -> Result<Self> {
        predict(model, photo)?;
        let mut chains = Vec::with_capacity(runs);
        for _ in 0..runs {
            let start = Instant::now();
            let (result, trace) = trace::record(|| predict(model, photo));
            let seconds = start.elapsed().as_secs_f64();
            result?;
            chains.push(Self { device: device.describe(), start, seconds, trace });
        }
        chains.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
        Ok(chains.swap_remove(runs / 2))
    }

    /// Prints the time by kind of work.
    ///
    /// # Errors
    /// Standard output that cannot be written.
    pub fn print(&self, json: bool) -> Result<()> {
        let parts = self.trace.parts();
        if json {
            let parts: serde_json::Map<String, Value> =
                parts.iter().map(|(name, time)| (name.to_string(), json!(1e3 * time.as_secs_f64()))).collect();
            return print_json(&json!({
                "device": self.device, "photo_ms": 1e3 * self.seconds, "parts_ms": parts, "counts": self.trace.counts,
            }));
        }
        let row = |&(name, time): &(&str, std::time::Duration)| {
            let seconds = time.as_secs_f64();
            let spans = self.trace.spans.iter().filter(|span| span.name == name).count();
            let share = format!("{:.1}%", 100.0 * seconds / self.seconds);
            vec![name.to_string(), spans.to_string(), format!("{:.2}", 1e3 * seconds), share]
        };
        let table = TextTable::new([text("work"), number("times"), number("ms"), number("share")]);
        print(format!(
            "{}: {:.1} ms from the file to the attributes\n\n{}",
            self.device,
            1e3 * self.seconds,
            table.print(parts.iter().map(row))
        ))
    }

    /// A Chrome trace, for chrome://tracing and ui.perfetto.dev.
    pub fn timeline(&self) -> Value {
        let process = json!({ "name": "process_name", "ph": "M", "pid": 0, "args": { "name": self.device } });
        let events = self.trace.spans.iter().map(|span| {
            let [start, end] = [span.start, span.end].map(|at| 1e6 * at.duration_since(self.start).as_secs_f64());
            json!({
                "name": span.name, "ph": "X", "pid": 0, "tid": 0, "ts": start, "dur": end - start,
                "args": { "of": span.detail },
            })
        });
        json!({ "displayTimeUnit": "ms", "traceEvents": std::iter::once(process).chain(events).collect::<Vec<_>>() })
    }
}

fn predict(model: &mut Model, photo: &Path) -> Result<()> {
    let photo = trace::span("decoding", || photo.display().to_string(), || Photo::open(photo))?;
    let face = trace::span("other", || "localisation".into(), || model.locate(&photo))?;
    if let Some(face) = face {
        trace::span("other", || "attributes".into(), || model.scores(&photo, &face))?;
    }
    Ok(())
}

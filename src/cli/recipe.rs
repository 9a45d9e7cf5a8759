//! `weft train RECIPE`: reports what the steps of a recipe do and their results.

use super::progress::Progress;
use super::train::{Args, Watch};
use super::{print, print_json, ranks, say};
use crate::Result;
use crate::dist::World;
use crate::recipe::{self, Event, Options, Recipe, State, Summary};
use crate::text_table::{TextTable, number, text};
use crate::train::Event as Training;
use std::path::Path;
use std::process::ExitCode;

pub fn run(path: &Path, args: &Args) -> Result<ExitCode> {
    let recipe = Recipe::load(path, &args.set)?;
    let options = Options { dry_run: args.dry_run, only: args.only.clone(), from: args.from.clone() };
    let stop = ranks::stoppable(&World::alone())?;
    let mut report = StepReport::default();
    let summaries = recipe::run(&recipe, &options, &args.device.open()?, &stop, &mut |event| report.hear(event))
        .map_err(|e| e.as_option(&["only", "from"]))?;
    report.finish();
    if args.json {
        print_json(&summaries)?
    } else {
        print(table(&summaries))?
    }
    Ok(ExitCode::SUCCESS)
}

/// Reports the steps on standard error.
#[derive(Default)]
struct StepReport {
    photos: Option<Progress>,
    watch: Option<Watch>,
}

impl StepReport {
    fn hear(&mut self, event: Event<'_>) {
        match event {
            Event::Step { name, number, of, why } => {
                self.finish();
                say(format!("[{number}/{of}] {name}: {why}"));
            }
            Event::Unchanged { name, bytes } => {
                self.finish();
                say(format!("{name}: unchanged, {}", size(bytes)));
            }
            Event::Moved { from, to } => {
                say(format!("{} held results of other settings: they are in {}", from.display(), to.display()));
            }
            Event::Skipped(problems) => {
                self.photos.take().into_iter().for_each(Progress::finish);
                super::report_skipped(problems);
            }
            Event::Photos { done, of } => {
                self.photos.get_or_insert_with(|| Progress::new(of as u64, "photos")).set(done as u64);
            }
            Event::Training { config, event } => {
                if matches!(event, Training::Start { .. }) {
                    self.watch = Some(Watch::default());
                }
                if let Some(watch) = &mut self.watch {
                    watch.hear(config, event);
                }
            }
        }
    }

    /// Ends the report of a step.
    fn finish(&mut self) {
        self.photos.take().into_iter().for_each(Progress::finish);
        self.watch.take().into_iter().for_each(Watch::finish);
    }
}

/// One line per step: name, seconds in this call, result.
fn table(summaries: &[Summary]) -> String {
    let line = |Summary { name, state, .. }: &Summary| {
        let (time, result) = match state {
            State::Unchanged { result, .. } => ("unchanged".into(), result),
            State::Done { result, seconds } => (format!("{seconds:.0} s"), result),
            State::Planned { why } => ("to do".into(), why),
        };
        vec![name.clone(), time, result.clone()]
    };
    TextTable::new([text("step"), number(""), text("result")]).print(summaries.iter().map(line))
}

fn size(bytes: u64) -> String {
    match bytes {
        0..100_000 => format!("{:.1} KB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

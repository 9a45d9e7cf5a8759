//! `weft bench`: timings in commonly compared units, as medians after a warm-up, on random inputs.

use crate::Result;
use clap::Subcommand;
use std::process::ExitCode;

mod interweave;
mod ops;
mod plot;
mod predict;
mod row;
mod train;
mod windows;

/// Measure speed.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Train(train::Args),
    Interweave(interweave::Args),
    Ops(ops::Args),
    Predict(predict::Args),
    Windows(windows::Args),
}

pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Train(args) => train::run(args)?,
        What::Interweave(args) => interweave::run(args)?,
        What::Ops(args) => ops::run(args)?,
        What::Predict(args) => predict::run(args)?,
        What::Windows(args) => windows::run(args)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}

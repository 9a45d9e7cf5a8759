//! `weft plan`: the memory plan of a network, with bytes and FLOPs.

use super::print;
use crate::net::{Net, Plan, PlanTable, Purpose};
use crate::{Error, Result};
use std::path::PathBuf;
use std::process::ExitCode;

/// Show shapes, parameters, arithmetic and the memory plan of a network.
#[derive(clap::Args)]
pub struct Args {
    /// Network description
    net: PathBuf,
    #[arg(long, default_value_t = 1)]
    batch: usize,
    /// Plan forward and backward
    #[arg(long)]
    train: bool,
    /// Input size, as 300x300 (height x width)
    #[arg(long)]
    size: Option<String>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut net = Net::load(&args.net)?;
    if let Some(size) = &args.size {
        let (h, w) = parse_size(size)?;
        net = net.at_size(h, w)?;
    }
    let plan = Plan::new(&net, args.batch, if args.train { Purpose::Training } else { Purpose::Inference })?;
    print(PlanTable { net: &net, plan: &plan })?;
    Ok(ExitCode::SUCCESS)
}

/// `HxW`.
pub fn parse_size(text: &str) -> Result<(usize, usize)> {
    let parts = text.split_once('x').and_then(|(h, w)| Some((h.parse().ok()?, w.parse().ok()?)));
    parts
        .ok_or_else(|| Error::new("size", format!("`{text}` is no size")).advise("write height x width, as in 300x300"))
}

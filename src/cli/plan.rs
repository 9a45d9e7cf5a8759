//! `weft plan`: the memory plan of a network, with bytes and FLOPs.

use super::numbers::{self, Size};
use super::print;
use crate::Result;
use crate::device::Device;
use crate::net::{Net, Plan, PlanTable, Purpose};
use crate::shipped::Source;
use std::process::ExitCode;

/// Show shapes, parameters, arithmetic and the memory plan of a network.
#[derive(clap::Args)]
pub struct Args {
    #[arg(value_parser = super::net(), help = super::NET)]
    net: Source,
    #[arg(long, default_value_t = 1, value_parser = numbers::count())]
    batch: usize,
    /// Plan both forward and backward
    #[arg(long)]
    train: bool,
    /// Input size, as 300x300 (height x width)
    #[arg(long, value_name = "HxW")]
    size: Option<Size>,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut net = Net::load(&args.net)?;
    if let Some(Size { height, width }) = args.size {
        net = net.at_size(height, width)?;
    }
    let purpose = if args.train { Purpose::Training } else { Purpose::Inference };
    let plan = Plan::new(&net, args.batch, purpose).map_err(|e| {
        // Too large to plan: the memory it would need explains why.
        let needs =
            net.fit(format!("--batch {}", args.batch), &Device::Cpu, args.batch, purpose, |_| net.parameter_bytes());
        needs.err().unwrap_or(e)
    })?;
    print(PlanTable { net: &net, plan: &plan })?;
    Ok(ExitCode::SUCCESS)
}

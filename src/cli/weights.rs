//! `weft weights`: lists the tensors in a file, and converts them to another float type.

use super::{print, print_json};
use crate::error::At;
use crate::shipped;
use crate::weights::{Dtype, Summary, convert, keep_inputs, make_folder, summary, write_atomic};
use crate::{Error, Result};
use clap::{Subcommand, ValueEnum};
use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

/// Inspect weights files, and convert their float type.
#[derive(clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    Show(Show),
    Convert(Convert),
    Export(Export),
}

pub fn run(args: &Args) -> Result<ExitCode> {
    match &args.what {
        What::Show(show) => run_show(show),
        What::Convert(convert) => run_convert(convert),
        What::Export(export) => run_export(export),
    }
}

/// List tensors with statistics over their finite values, then the totals and the metadata.
#[derive(clap::Args)]
struct Show {
    /// safetensors files
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print a list with one object per file
    #[arg(long)]
    json: bool,
}

#[derive(serde::Serialize)]
struct Shown {
    file: String,
    #[serde(flatten)]
    summary: Summary,
}

fn run_show(args: &Show) -> Result<ExitCode> {
    let show = |file: &PathBuf| Ok(Shown { file: file.display().to_string(), summary: summary(file)? });
    // All files are read before the first is printed, so an error is the only output.
    let all: Vec<Shown> = args.files.iter().map(show).collect::<Result<_>>()?;
    if args.json {
        print_json(&all)?;
        return Ok(ExitCode::SUCCESS);
    }
    for (index, Shown { file, summary }) in all.iter().enumerate() {
        let gap = if index > 0 { "\n" } else { "" };
        print(format_args!("{gap}{file}\n{summary}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Convert floats to another type; integers, names, order and metadata stay unchanged.
#[derive(clap::Args)]
struct Convert {
    /// safetensors file
    file: PathBuf,
    /// Output file; must differ from the input
    #[arg(short, long)]
    output: PathBuf,
    /// Target type; a finite value too large for it is an error
    #[arg(long, default_value = "f32")]
    dtype: Float,
}

#[derive(Clone, Copy, ValueEnum)]
enum Float {
    F32,
    F16,
    Bf16,
}

impl From<Float> for Dtype {
    fn from(float: Float) -> Self {
        match float {
            Float::F32 => Self::F32,
            Float::F16 => Self::F16,
            Float::Bf16 => Self::BF16,
        }
    }
}

fn run_convert(args: &Convert) -> Result<ExitCode> {
    let dtype = args.dtype.into();
    keep_inputs("--output", &args.output, [&args.file])?;
    let size = |path| fs::metadata(path).map(|m| m.len()).at(path);
    let before = size(&args.file)?;
    convert(&args.file, &args.output, dtype)?;
    let after = size(&args.output)?;
    print(format_args!("{}: {dtype}, {before} -> {after} bytes", args.output.display()))?;
    Ok(ExitCode::SUCCESS)
}

/// Export the built-in model to a folder: a bundle that can be modified, for --model.
#[derive(clap::Args)]
struct Export {
    /// Receives model.toml, nets, weights and SVMs; files with these names must not exist yet
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

fn run_export(args: &Export) -> Result<ExitCode> {
    let files: Vec<_> = shipped::model().iter().map(|file| (args.folder.join(file.name), file.bytes)).collect();
    if let Some((path, _)) = files.iter().find(|(path, _)| path.exists()) {
        return Err(Error::file(path, "is there already").advise("give a new folder"));
    }
    make_folder(&args.folder)?;
    for (path, bytes) in &files {
        write_atomic(path, |file| file.write_all(bytes))?;
    }
    print(format_args!("{}: {} files", args.folder.display(), files.len()))?;
    Ok(ExitCode::SUCCESS)
}

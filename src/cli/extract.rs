//! `weft extract`: features of every patch of images.

use super::{print, print_json};
use crate::data::photo::Photo;
use crate::data::resample::Normalise;
use crate::device::Device;
use crate::interweave::PatchScanner;
use crate::net::{Net, Spec, Unknown};
use crate::weights::{Dtype, Named, write, write_npy};
use crate::{Error, Result};
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

/// Features of all overlapping patches of images.
#[derive(clap::Args)]
pub struct Args {
    /// Images
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Network description of one patch
    #[arg(long, value_name = "FILE")]
    net: PathBuf,
    #[arg(long, value_name = "FILE")]
    weights: PathBuf,
    /// Pixels from one patch to the next
    #[arg(long)]
    stride: usize,
    /// Layer whose values are the features; the last one by default
    #[arg(long)]
    layer: Option<String>,
    /// patchwise: every patch by itself
    #[arg(long, default_value = "patchwise", value_parser = ["patchwise"])]
    method: String,
    #[arg(long, default_value = "auto")]
    device: String,
    /// Gets `features` [down, across, D] (.safetensors or .npy); with several images a folder, with a file for each
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON document: one object, or a list for several images
    #[arg(long)]
    json: bool,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let Device::Cpu = args.device.parse()?;
    let mut spec = Spec::load(&args.net)?;
    if let Some(layer) = &args.layer {
        spec = spec.up_to(layer)?;
    }
    let net = Arc::new(Net::new(spec)?);
    let parameters =
        net.load_parameters(&args.weights, if args.layer.is_some() { Unknown::Ignore } else { Unknown::Refuse })?;
    let mut scanner = PatchScanner::new(net, parameters, Normalise::default())?;
    if let Some(folder) = args.output.as_ref().filter(|_| args.images.len() > 1) {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    }
    let mut documents = Vec::new();
    for image in &args.images {
        let photo = Photo::open(image)?;
        let start = Instant::now();
        let found = scanner.extract(&photo, args.stride).map_err(|e| e.within(image.display()))?;
        let seconds = start.elapsed().as_secs_f64();
        let [down, across] = found.patches;
        if let Some(output) = &args.output {
            let path = if args.images.len() > 1 {
                output.join(super::photo_name(image, "safetensors"))
            } else {
                output.clone()
            };
            let shape = [down, across, found.dims];
            if path.extension().is_some_and(|e| e == "npy") {
                write_npy(&path, &shape, &found.values)?;
            } else {
                write(
                    &path,
                    &[Named { name: "features", shape: &shape, dtype: Dtype::F32, data: &found.values }],
                    &[],
                )?;
            }
        }
        if args.json {
            documents.push(json!({
                "image": image, "patches": found.patches, "features": found.dims, "stride": args.stride,
                "method": args.method, "seconds": seconds,
            }));
        } else {
            let (image, dims) = (image.display(), found.dims);
            print(format!("{image}: {down} x {across} patches, {dims} features each, {:.1} ms", 1e3 * seconds))?;
        }
    }
    match (args.json, documents.len()) {
        (true, 1) => print_json(&documents[0])?,
        (true, _) => print_json(&documents)?,
        _ => {}
    }
    Ok(ExitCode::SUCCESS)
}

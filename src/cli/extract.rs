//! `weft extract`: features of every patch of images.

use super::{print, print_json};
use crate::data::photo::Photo;
use crate::data::resample::Normalise;
use crate::device::Device;
use crate::interweave::{
    Features, GpuInterweaver, GpuMapInterweaver, Interweaver, MapInterweaver, PatchScanner, Plan, patches,
};
use crate::net::{GpuParameters, Net, Parameters, Spec, Unknown};
use crate::weights::{Dtype, Named, write, write_atomic, write_npy};
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
    #[arg(required_unless_present = "plan")]
    images: Vec<PathBuf>,
    /// Network description of one patch
    #[arg(long, value_name = "FILE")]
    net: PathBuf,
    #[arg(long, value_name = "FILE", required_unless_present = "plan")]
    weights: Option<PathBuf>,
    /// Pixels from one patch to the next
    #[arg(long)]
    stride: usize,
    /// Layer whose values are the features; the last one by default
    #[arg(long)]
    layer: Option<String>,
    #[arg(long, value_enum, default_value = "interweave")]
    method: Method,
    /// Print what one pass over an image of this size, height x width, computes and costs, and do nothing else
    #[arg(long, value_name = "HxW", conflicts_with_all = ["images", "weights", "output", "json"])]
    plan: Option<String>,
    /// With --plan: draw it into this file (SVG), with what two neighbouring patches share
    #[arg(long, value_name = "FILE", requires = "plan")]
    draw: Option<PathBuf>,
    #[command(flatten)]
    device: super::DeviceArgs,
    /// Gets `features` [down, across, D] (.safetensors or .npy); with several images a folder, with a file for each
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON document: one object, or a list for several images
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Method {
    /// All patches in one pass, nothing computed twice
    Interweave,
    /// The same to the letter of the paper: interweaved maps are written and convolved
    InterweaveMaps,
    /// Every patch by itself
    Patchwise,
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut spec = Spec::load(&args.net)?;
    if let Some(layer) = &args.layer {
        spec = spec.up_to(layer)?;
    }
    let net = Arc::new(Net::new(spec)?);
    if let Some(size) = &args.plan {
        let (height, width) = super::plan::parse_size(size)?;
        let plan = Plan::new(&net, patches(&net, height, width, args.stride)?, args.stride)?;
        if let Some(path) = &args.draw {
            write_atomic(path, |file| file.write_all(plan.draw(&net).as_bytes()))?;
        }
        print(plan.table(&net))?;
        return Ok(ExitCode::SUCCESS);
    }
    let unknown = if args.layer.is_some() { Unknown::Ignore } else { Unknown::Refuse };
    let Some(weights) = &args.weights else { return Err(Error::new("--weights", "is missing")) };
    let mut extractor = extractor(args, &net, net.load_parameters(weights, unknown)?)?;
    if let Some(folder) = args.output.as_ref().filter(|_| args.images.len() > 1) {
        std::fs::create_dir_all(folder).map_err(|e| Error::file(folder, e))?;
    }
    let mut documents = Vec::new();
    for image in &args.images {
        let photo = Photo::open(image)?;
        let start = Instant::now();
        let found = extractor(&photo, args.stride).map_err(|e| e.within(image.display()))?;
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

/// Features of all patches of a photo, at a stride.
type Extractor = Box<dyn FnMut(&Photo, usize) -> Result<Features>>;

fn extractor(args: &Args, net: &Arc<Net>, parameters: Vec<f32>) -> Result<Extractor> {
    let (net, normalise) = (net.clone(), Normalise::default());
    Ok(match args.method {
        Method::Interweave => match args.device.open()? {
            Device::Cpu => {
                let mut interweaver = Interweaver::new(net, parameters, normalise)?;
                Box::new(move |photo, stride| interweaver.extract(photo, stride))
            }
            Device::Gpu(gpu) => {
                let parameters = Arc::new(GpuParameters::new(&gpu, &net, &parameters)?);
                let mut interweaver = GpuInterweaver::new(net, parameters, normalise)?;
                Box::new(move |photo, stride| interweaver.extract(photo, stride))
            }
        },
        Method::InterweaveMaps => match args.device.open()? {
            Device::Cpu => {
                let mut interweaver = MapInterweaver::new(net, parameters, normalise)?;
                Box::new(move |photo, stride| interweaver.extract(photo, stride))
            }
            Device::Gpu(gpu) => {
                let parameters = Arc::new(GpuParameters::new(&gpu, &net, &parameters)?);
                let mut interweaver = GpuMapInterweaver::new(net, parameters, normalise)?;
                Box::new(move |photo, stride| interweaver.extract(photo, stride))
            }
        },
        Method::Patchwise => {
            let parameters = Parameters::on(&args.device.open()?, &net, parameters)?;
            let mut scanner = PatchScanner::new(net, parameters, normalise)?;
            Box::new(move |photo, stride| scanner.extract(photo, stride))
        }
    })
}

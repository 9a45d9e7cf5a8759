//! `weft extract`: features of every patch of images.

use super::numbers::{self, Size};
use super::outputs::Outputs;
use super::photos::{Answer, AnswerArgs, PhotoArgs, Table, answer_all, open_photo};
use super::progress::Progress;
use super::{print, print_json, say};
use crate::face::Workers;
use crate::interweave::{self, Extractor, ExtractorOptions, Outline, patches};
use crate::net::{Net, Parameters, Spec, Unknown};
use crate::shipped::Source;
use crate::weights::{TensorWriter, keep_inputs, write_atomic};
use crate::{Error, Result};
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Extract the features of all overlapping patches of images. Features are written as they are computed: apart from an image and
/// the net, memory is limited to half a gigabyte or half of what is free, whichever is less, and images that need more are
/// processed in bands
#[derive(clap::Args)]
pub struct Args {
    #[command(flatten)]
    photos: PhotoArgs,
    #[arg(long, value_name = "FILE|NAME", value_parser = super::net(), help = super::NET)]
    net: Source,
    /// Parameters: LAYER.weight and LAYER.bias; a built-in net has its own by default
    #[arg(long, value_name = "FILE")]
    weights: Option<PathBuf>,
    /// Stride between patches, in pixels
    #[arg(long, value_parser = numbers::stride())]
    stride: usize,
    /// Layer whose output is used as features; the last one by default
    #[arg(long)]
    layer: Option<String>,
    #[arg(long, value_enum, default_value = "interweave")]
    method: Method,
    /// Print the computation and cost of one pass over an image of this size, height x width, and exit
    #[arg(long, value_name = "HxW", value_parser = numbers::planned)]
    #[arg(conflicts_with_all = ["images", "list", "weights", "output", "json"])]
    plan: Option<Size>,
    /// With --plan: draw the plan into this file (SVG), including what two neighbouring patches share; at most the first 200
    /// patches down and across are drawn
    #[arg(long, value_name = "FILE", requires = "plan")]
    draw: Option<PathBuf>,
    #[command(flatten)]
    device: super::DeviceArgs,
    /// Receives `features` [down, across, D] (.safetensors or .npy); with several images a folder, with one file per image
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Print one JSON document: one object, or a list for several images
    #[arg(long)]
    json: bool,
}

/// Maximum number of patches in a drawn plan, down and across.
const DRAWN: usize = 200;

#[derive(Debug, Clone, Copy, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
enum Method {
    /// All patches in one pass, nothing computed twice
    Interweave,
    /// Exactly as in the paper: interweaved maps are written to memory and convolved
    InterweaveMaps,
    /// Every patch individually
    Patchwise,
}

impl From<Method> for interweave::Method {
    fn from(method: Method) -> Self {
        match method {
            Method::Interweave => Self::OnePass,
            Method::InterweaveMaps => Self::Maps,
            Method::Patchwise => Self::Patchwise,
        }
    }
}

impl Args {
    pub fn usage(&self) -> Result<(), clap::Error> {
        if self.plan.is_some() {
            return Ok(());
        }
        self.photos.usage()?;
        super::weights(self.weights.as_ref(), &self.net).map(drop).map_err(super::missing)
    }
}

pub fn run(args: &Args) -> Result<ExitCode> {
    let mut spec = Spec::load(&args.net)?;
    let layers: Vec<String> = spec.layers.iter().map(|layer| layer.name.clone()).collect();
    if let Some(layer) = &args.layer {
        spec = spec.up_to(layer)?;
    }
    let net = Arc::new(Net::new(spec)?);
    if let Some(Size { height, width }) = args.plan {
        let outline = Outline::new(&net, patches(&net, height, width, args.stride)?, args.stride)?;
        if let Some(path) = &args.draw {
            keep_inputs("--draw", path, args.net.path())?;
            // More patches would not be visible.
            let drawn = outline.patches.map(|count| count.min(DRAWN));
            if drawn != outline.patches {
                say(format_args!("{}: draws {} x {} patches", path.display(), drawn[0], drawn[1]));
            }
            let svg = outline.resized(&net, drawn).draw(&net)?;
            write_atomic(path, |file| file.write_all(svg.as_bytes()))?;
        }
        print(outline.table(&net))?;
        return Ok(ExitCode::SUCCESS);
    }
    let photos = args.photos.names()?;
    let weights = super::weights(args.weights.as_ref(), &args.net)?;
    let unknown = if args.layer.is_some() { Unknown::Ignore } else { super::unknown(&weights) };
    let files = [&args.net, &weights].into_iter().filter_map(Source::path).map(Path::to_path_buf);
    let reads: Vec<PathBuf> = files.chain(args.photos.list()).collect();
    if let ([image], Some(path)) = (&photos[..], &args.output) {
        keep_inputs("--output", path, reads.iter().chain([image]))?;
    }
    let loaded = net.load_parameters(&weights, unknown)?;
    // Tensors of layers behind the extracted one are expected, those of no layer may be misspelt.
    let of_layer =
        |tensor: &str| tensor.rsplit_once('.').is_some_and(|(layer, _)| layers.iter().any(|name| name == layer));
    let strangers: Vec<String> = loaded.ignored.into_iter().filter(|tensor| !of_layer(tensor)).collect();
    if weights.path().is_some() && !strangers.is_empty() {
        say(format_args!("{weights}: not used: {}", strangers.join(", ")));
    }
    let parameters = Parameters::on(&args.device.open()?, &net, loaded.values)?;
    let options = ExtractorOptions { method: args.method.into(), ..ExtractorOptions::default() };
    let mut extractor = Extractor::new(net.clone(), &parameters, options)?;
    if let [image] = &photos[..] {
        // With a single image, its error is the error of the program.
        let found = extract(args, &net, &mut extractor, image, args.output.as_deref())?;
        let name = image.display().to_string();
        if args.json { print_json(&found.json(&name)) } else { print(found.text(&name)) }?;
        return Ok(ExitCode::SUCCESS);
    }
    let plan = |folder: &PathBuf| Outputs::plan("--output", folder, "safetensors", &photos, &reads);
    let files = args.output.as_ref().map(plan).transpose()?;
    let table = Table { columns: Vec::new(), several: false };
    // A pass over an image fills all threads.
    let mut workers = Workers::one(extractor);
    answer_all(&photos, &AnswerArgs::printed(args.json), &table, &reads, &mut workers, |extractor, number, image| {
        let output = files.as_ref().map(|files| files.path(number, None)).transpose()?;
        extract(args, &net, extractor, image, output.as_deref())
    })
}

/// The result of extracting one image.
struct Extracted {
    patches: [usize; 2],
    dims: usize,
    stride: usize,
    method: Method,
    seconds: f64,
}

impl Answer for Extracted {
    fn json(&self, image: &str) -> Value {
        let Self { patches, dims, stride, method, seconds } = self;
        json!({
            "image": image, "patches": patches, "features": dims, "stride": stride, "method": method, "seconds": seconds,
        })
    }

    fn rows(&self) -> Vec<Vec<String>> {
        unreachable!("there is no table of features")
    }

    fn text(&self, image: &str) -> String {
        let Self { patches: [down, across], dims, seconds, .. } = self;
        format!("{image}: {down} x {across} patches, {dims} features each, {:.1} ms", 1e3 * seconds)
    }
}

/// Processes one image and writes its features if an output file is given.
fn extract(
    args: &Args,
    net: &Net,
    extractor: &mut Extractor,
    image: &Path,
    output: Option<&Path>,
) -> Result<Extracted> {
    let photo = open_photo(image)?;
    let dims = net.output().len();
    let within = |e: Error| e.within(image.display());
    let size = [photo.height, photo.width];
    let [down, across] = extractor.patches(size, args.stride).map_err(|e| within(e.as_option(&["stride"])))?;
    let file = output.map(|path| {
        let shape = [down, across, dims];
        match path.extension() {
            Some(ending) if ending == "npy" => TensorWriter::create_npy(path, &shape),
            _ => TensorWriter::create(path, &[("features", &shape)]),
        }
    });
    let mut file = file.transpose()?;
    let progress = Progress::new((down * across) as u64, "patches");
    let (mut done, mut writing) = (0, Duration::ZERO);
    let start = Instant::now();
    let mut put = |features: &[f32]| {
        let start = Instant::now();
        file.as_mut().map_or(Ok(()), |file| file.push(features))?;
        writing += start.elapsed();
        done += (features.len() / dims) as u64;
        progress.set(done);
        Ok(())
    };
    extractor.extract_into(&photo, args.stride, &mut put).map_err(within)?;
    let seconds = (start.elapsed() - writing).as_secs_f64();
    progress.finish();
    file.map_or(Ok(()), TensorWriter::finish)?;
    Ok(Extracted { patches: [down, across], dims, stride: args.stride, method: args.method, seconds })
}

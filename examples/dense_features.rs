//! Dense features of an image: a vector for every patch of 88 x 88 pixels, 8 pixels apart, computed in one pass.
//!
//! In the repository's folder: `cargo run --release --example dense_features [IMAGE] [auto|cpu|cuda|simt]`

use std::sync::Arc;
use weft::data::photo::Photo;
use weft::device::Device;
use weft::interweave::{Extractor, ExtractorOptions};
use weft::net::{Net, Parameters, Unknown};

fn main() -> weft::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let image = arguments.next().unwrap_or("weights/example.jpg".into());
    let device = Device::open(&arguments.next().unwrap_or("auto".into()))?;

    let net = Arc::new(Net::load("weights/anet.toml")?);
    // The file also holds the head that the net was trained with.
    let weights = net.load_parameters("weights/anet.safetensors", Unknown::Ignore)?;
    println!("weights/anet.safetensors: not used: {}", weights.ignored.join(", "));
    let parameters = Parameters::on(&device, &net, weights.values)?;
    let mut extractor = Extractor::new(net, &parameters, ExtractorOptions::default())?;
    let features = extractor.extract(&Photo::open(&image)?, 8)?;

    let [down, across] = features.patches;
    println!("{image} on {}: {down} x {across} patches, {} features each", device.describe(), features.dims);
    let strongest = features.values.iter().copied().fold(f32::NAN, f32::max);
    println!("strongest feature {strongest:.3}; vector of the patch in the middle, up to its eighth value:");
    let middle = features.values.chunks_exact(features.dims).nth(down / 2 * across + across / 2);
    println!("{:.3?}", &middle.unwrap_or_default()[..8]);
    assert!(strongest > 0.0 && features.values.iter().all(|value| value.is_finite()));
    Ok(())
}

//! Provenance of a run's result.

use super::config::Config;
use super::network::Network;
use super::source::{Item, Source};
use super::view::Cutter;
use crate::Result;
use crate::provenance::{Fingerprint, Provenance};
use std::path::Path;

/// Everything that determines the weights of a run, except the device: all settings except where,
/// when and how often results are written; the net; the initial weights; the photos with their regions and tags.
///
/// # Errors
/// As [`super::run`] before its first step.
pub fn provenance(config: &Config) -> Result<Provenance> {
    let source = Source::open(config)?;
    let network = Network::new(config, &source)?;
    let cutter = Cutter::new(config, &source, &network.net.spec)?;
    list(config, &source, &network, &cutter)
}

/// The same from inputs that are already open.
pub(super) fn list(config: &Config, source: &Source, network: &Network, cutter: &Cutter) -> Result<Provenance> {
    let mut list = Provenance::default();
    list.settings(config)?;
    let mut net = Fingerprint::default();
    net.text(&network.trained.to_toml());
    list.set("net", net.finish());
    if let Some(init) = &config.init {
        list.file("init", init)?;
    }
    list.set("photos", items(&source.train, &source.tags)?);
    list.set("validation photos", items(&source.validation, &source.tags)?);
    let (backgrounds, faces) = cutter.scene();
    list.set("backgrounds", photos(backgrounds)?);
    list.set("pasted faces", items(faces, &source.tags)?);
    Ok(list)
}

fn items(items: &[Item], tags: &[String]) -> Result<String> {
    let mut print = Fingerprint::default();
    print.text(&tags.join(" "));
    for Item { photo, region, class, tags } in items {
        let region = region.map_or(String::new(), |r| format!("{} {} {} {}", r.x, r.y, r.width, r.height));
        let tags: String = tags.iter().map(|tag| if *tag > 0.5 { '1' } else { '0' }).collect();
        print.photo(photo)?.text(&region).text(&class.to_string()).text(&tags);
    }
    Ok(print.finish())
}

fn photos(photos: &[impl AsRef<Path>]) -> Result<String> {
    let mut print = Fingerprint::default();
    for photo in photos {
        print.photo(photo.as_ref())?;
    }
    Ok(print.finish())
}

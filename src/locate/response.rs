//! The response of a net to a part of a photo: one value per cell of its last map, and the position of each cell.

use super::grid::Grid;
use super::recent::Recent;
use crate::data::photo::{Photo, Rect};
use crate::data::resample::Resampler;
use crate::data::table;
use crate::device::Device;
use crate::net::{Net, Parameters, Purpose, Session, Spec, Unknown};
use crate::settings::{limits, within};
use crate::shipped::{Folder, Source};
use crate::weights::{TAGS, TensorFile};
use crate::{Error, Result, trace};
use rayon::prelude::*;
use serde::de::{Error as _, IntoDeserializer};
use serde::{Deserialize, Deserializer};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

/// Which outputs of a net form its response.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Response {
    /// Network description and weights, relative to the file that refers to them.
    pub net: PathBuf,
    /// Its weights.
    pub weights: PathBuf,
    /// The layer whose output is read.
    pub layer: String,
    /// One channel of it; the mean of all channels if absent, as in the paper.
    pub channel: Option<Channel>,
}

/// A channel of a layer.
#[derive(Debug, Clone)]
pub enum Channel {
    /// By index, from 0.
    Number(usize),
    /// By tag, if the weights list their tags.
    Tag(String),
}

limits! {
    /// Range of channel indices.
    Channels: usize = 0, 1 << 20;
}

impl<'de> Deserialize<'de> for Channel {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        match toml::Value::deserialize(from)? {
            toml::Value::String(tag) => Ok(Self::Tag(tag)),
            number @ (toml::Value::Integer(_) | toml::Value::Float(_)) => {
                let number = within::<Channels, _, _>(number.into_deserializer());
                number.map(Self::Number).map_err(|e: toml::de::Error| D::Error::custom(e.message()))
            }
            other => {
                let found = format!("is {}; write the number of a channel or the name of a tag", other.type_str());
                Err(D::Error::custom(found))
            }
        }
    }
}

/// A response map and its position on the photo.
#[derive(Debug, Clone)]
pub struct Map {
    /// Number of cells down.
    pub height: usize,
    /// Number of cells across.
    pub width: usize,
    /// [height, width]
    pub values: Vec<f32>,
    /// The centre of cell (0, 0), in pixels of the photo.
    pub origin: (f32, f32),
    /// Distance between neighbouring cells, in pixels of the photo.
    pub step: (f32, f32),
}

/// Number of sessions that are kept: the levels of a pyramid in both orientations, and the batches of views.
const SESSIONS: usize = 64;

/// A window of a photo at a scale.
#[derive(Debug, Clone, Copy)]
pub(super) struct View {
    /// In pixels of the photo; may extend beyond it.
    pub window: Rect,
    /// Pixels of the net's input per pixel of the photo.
    pub zoom: f32,
}

/// A net that produces response maps.
pub struct Responder {
    net: Net,
    parameters: Parameters,
    weights: Source,
    /// The channel that is read; the mean of all if absent.
    channel: Option<usize>,
    /// Tags of the head's channels, if the weights list them.
    tags: Vec<String>,
    grid: Grid,
    /// By the size of the batch, [n, height, width].
    sessions: Recent<[usize; 3], Session>,
}

impl Responder {
    /// Loads net and weights; the paths of `config` are relative to `folder`.
    ///
    /// # Errors
    /// Files that cannot be read or do not fit; a layer or channel that the net does not have; a net that cannot run on other
    /// input sizes.
    pub fn load(config: &Response, folder: &Folder, device: &Device) -> Result<Self> {
        let file = folder.file(&config.net)?;
        let spec = Spec::load(&file)?.up_to(&config.layer)?.convolutional()?;
        let net = Net::new(spec)?;
        let weights = folder.file(&config.weights)?;
        let parameters = net.load_parameters(&weights, Unknown::Ignore)?.values;
        let tags = TensorFile::open(&weights)?.metadata().get(TAGS).cloned().unwrap_or_default();
        let tags = table::fields(&tags);
        // Tags name the channels of the head; channels of other layers have no names.
        let channels = net.output().c;
        let tags = if tags.len() == channels { tags } else { Vec::new() };
        let parameters = Parameters::on(device, &net, parameters)?;
        if net.spec.input.c != 3 {
            return Err(Error::new(&file, format!("its input {} is no RGB photo", net.spec.input))
                .advise("a net that locates needs input = [3, height, width]"));
        }
        let grid = Grid::new(&net)?;
        let mut responder =
            Self { net, parameters, weights, channel: None, tags, grid, sessions: Recent::new(SESSIONS) };
        responder.channel = config.channel.as_ref().map(|channel| responder.channel(channel)).transpose()?;
        Ok(responder)
    }

    /// The index of a channel.
    ///
    /// # Errors
    /// A channel that the layer does not have; a tag that the net was not trained on; weights that do not list their tags.
    pub fn channel(&self, channel: &Channel) -> Result<usize> {
        let channels = self.net.output().c;
        let error = |found: String, advice: String| Err(Error::new(&self.weights, found).advise(advice));
        match channel {
            Channel::Number(number) if *number < channels => Ok(*number),
            Channel::Number(number) => {
                error(format!("has no channel {number} of {channels}"), "channels count from 0".into())
            }
            Channel::Tag(tag) if self.tags.is_empty() => error(
                format!("names no channel for {tag}"),
                "take a net with a head of tags, trained by `weft train`".into(),
            ),
            Channel::Tag(tag) => match self.tags.iter().position(|name| name == tag) {
                Some(number) => Ok(number),
                None => error(format!("has no channel for {tag}"), format!("it has {}", self.tags.join(", "))),
            },
        }
    }

    /// Another one with the same parameters, to work beside this one.
    pub(super) fn sharing(&self) -> Result<Self> {
        let Self { parameters, weights, channel, tags, grid, .. } = self;
        Ok(Self {
            net: Net::new(self.net.spec.clone())?,
            parameters: parameters.clone(),
            weights: weights.clone(),
            channel: *channel,
            tags: tags.clone(),
            grid: grid.clone(),
            sessions: Recent::new(SESSIONS),
        })
    }

    pub(super) fn grid(&self) -> &Grid {
        &self.grid
    }

    pub(super) fn net(&self) -> &Net {
        &self.net
    }

    pub(super) fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The channel that is read; the mean of all if absent.
    pub(super) fn read_channel(&self) -> Option<usize> {
        self.channel
    }

    /// Refuses responses that are not finite.
    pub(super) fn check_finite(&self, values: &[f32]) -> Result<()> {
        check_finite(values, &self.net, &self.weights)
    }

    /// The responses to views of a photo, which are one batch: all have as many pixels of the net's input.
    ///
    /// The input is a little larger than a view, see [`Grid::covering`]: beyond it the net sees what is there, or the photo's
    /// repeated edge, and cells there are left out, as are cells beyond the photo.
    ///
    /// # Errors
    /// Insufficient memory; a response that is not finite.
    pub(super) fn respond(&mut self, photo: &Photo, views: &[View]) -> Result<Vec<Map>> {
        let channel = self.channel;
        self.respond_in(photo, views, channel)
    }

    /// Like [`Responder::respond`], for another channel or for the mean of all.
    ///
    /// # Errors
    /// Insufficient memory; a response that is not finite.
    pub(super) fn respond_in(&mut self, photo: &Photo, views: &[View], channel: Option<usize>) -> Result<Vec<Map>> {
        let Some(first) = views.first() else { return Ok(Vec::new()) };
        let [height, width] =
            [first.window.height, first.window.width].map(|side| self.grid.covering(side * first.zoom));
        let (n, net, parameters) = (views.len(), &self.net, &self.parameters);
        let session = self.sessions.get([n, height, width], || {
            Session::new(Arc::new(net.at_size(height, width)?), parameters, n, Purpose::Inference)
        })?;
        let normalise = self.net.spec.normalise;
        let what = || format!("{} x {height} x {width}", views.len());
        trace::span("resampling", what, || {
            let inputs = session.input().par_chunks_exact_mut(height * width * 3).zip(views);
            inputs.for_each_init(Resampler::default, |resampler, (input, View { window, zoom })| {
                let window = Rect { width: width as f32 / zoom, height: height as f32 / zoom, ..*window };
                resampler.sample(photo, window, width, height, false, normalise, input);
            });
        });
        let shape = session.net().output();
        let value = |place: &[f32]| match channel {
            Some(channel) => place[channel],
            None => place.iter().sum::<f32>() / shape.c as f32,
        };
        let values = trace::span("lnets", what, || session.infer())?;
        let mut maps = Vec::with_capacity(views.len());
        for (View { window, zoom }, values) in views.iter().zip(values.chunks_exact(shape.len())) {
            let values: Vec<f32> = values.chunks_exact(shape.c).map(value).collect();
            check_finite(&values, &self.net, &self.weights)?;
            let (first, step) = (self.grid.first / zoom, self.grid.stride / zoom);
            let origin = (window.x + first, window.y + first);
            let whole = Map { height: shape.h, width: shape.w, values, origin, step: (step, step) };
            maps.push(whole.inside(window, photo));
        }
        Ok(maps)
    }
}

/// Refuses NaN, which never exceeds a floor, so that it would be mistaken for a photo without a face.
fn check_finite(values: &[f32], net: &Net, weights: &Source) -> Result<()> {
    if values.iter().all(|value| value.is_finite()) {
        return Ok(());
    }
    let found = format!("with {}, the response is not finite", net.spec.place);
    Err(Error::new(weights, found).advise("check the weights and the numbers of the net"))
}

/// The cells along an axis whose centres lie in a range; at least one. Cell 0 is at `origin`.
pub(super) fn cells_within(origin: f32, step: f32, cells: usize, range: Range<f32>) -> Range<usize> {
    let is_inside = |&cell: &usize| range.contains(&(origin + step * cell as f32));
    let start = (0..cells).find(is_inside).unwrap_or(0);
    start..(start..cells).take_while(is_inside).last().unwrap_or(start) + 1
}

impl Map {
    /// The cells whose centres are inside a window and inside the photo; at least one.
    fn inside(self, window: &Rect, photo: &Photo) -> Self {
        let range = |at: f32, length: f32, photo: usize| at.max(0.0)..(at + length).min(photo as f32);
        let columns = range(window.x, window.width, photo.width);
        let rows = range(window.y, window.height, photo.height);
        let columns = cells_within(self.origin.0, self.step.0, self.width, columns);
        let rows = cells_within(self.origin.1, self.step.1, self.height, rows);
        let values = self.values.chunks_exact(self.width).take(rows.end).skip(rows.start);
        Self {
            height: rows.len(),
            width: columns.len(),
            origin: (
                self.origin.0 + self.step.0 * columns.start as f32,
                self.origin.1 + self.step.1 * rows.start as f32,
            ),
            step: self.step,
            values: values.flat_map(|row| &row[columns.clone()]).copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Rng;
    use crate::weights::Dtype;
    use std::path::Path;

    const NET: &str = r#"
        name = "n"
        input = [3, 23, 23]
        [[layer]]
        name = "c1"
        type = "conv"
        filters = 6
        kernel = 5
        stride = 3
        activation = "relu"
        [[layer]]
        name = "p1"
        type = "max_pool"
        kernel = 3
        stride = 2
        [[layer]]
        name = "fc"
        type = "linear"
        outputs = 8
        activation = "relu"
        [[layer]]
        name = "head"
        type = "linear"
        outputs = 3
    "#;

    fn responder(folder: &Path, channel: Option<Channel>) -> Result<(Responder, Net, Vec<f32>)> {
        std::fs::write(folder.join("net.toml"), NET).unwrap();
        let net = Net::new(Spec::parse(NET, "net").unwrap()).unwrap();
        let parameters = net.initial_parameters(4);
        let tags = [(TAGS.to_string(), "Hat,Smiling,Face".to_string())];
        net.save_parameters(folder.join("w.safetensors"), &parameters, Dtype::F32, &tags).unwrap();
        let (net_file, weights) = ("net.toml".into(), "w.safetensors".into());
        let config = Response { net: net_file, weights, layer: "head".into(), channel };
        Ok((Responder::load(&config, &folder.into(), &Device::Cpu)?, net, parameters))
    }

    /// Linear layers as convolutions: each cell of the map equals the output of the net itself for its window of the photo.
    #[test]
    fn a_map_of_linear_layers_is_the_net_at_every_place() {
        let folder = tempfile::tempdir().unwrap();
        let smiling = Channel::Tag("Smiling".into());
        let (mut responder, net, parameters) = responder(folder.path(), Some(smiling)).unwrap();
        let mut rng = Rng::new(1, 0);
        let photo = Photo::from_fn(41, 35, |_, _| rng.word().to_le_bytes()[..3].try_into().unwrap());
        let map = responder.respond(&photo, &[View { window: photo.bounds(), zoom: 1.0 }]).unwrap().remove(0);
        assert_eq!((map.height, map.width, map.step), (3, 4, (6.0, 6.0)));
        let mut plain = {
            let parameters = Parameters::on(&Device::Cpu, &net, parameters).unwrap();
            Session::new(Arc::new(net), &parameters, 1, Purpose::Inference).unwrap()
        };
        for (i, value) in map.values.iter().enumerate() {
            let (x, y) = ((i % map.width) as f32 * 6.0, (i / map.width) as f32 * 6.0);
            let window = Rect::new(x, y, 23.0, 23.0);
            assert_eq!(window.center(), (map.origin.0 + x, map.origin.1 + y));
            Resampler::default().sample(&photo, window, 23, 23, false, plain.net().spec.normalise, plain.input());
            let expected = plain.infer().unwrap()[1];
            assert!((value - expected).abs() < 1e-4, "place {i}: {value} instead of {expected}");
        }
    }

    #[test]
    fn channels_are_found_by_number_and_by_tag() {
        let folder = tempfile::tempdir().unwrap();
        let (found, ..) = responder(folder.path(), None).unwrap();
        assert_eq!(found.channel(&Channel::Number(2)).unwrap(), 2);
        assert_eq!(found.channel(&Channel::Tag("Face".into())).unwrap(), 2);
        for (channel, expected) in [
            (Channel::Number(3), "no channel 3 of 3"),
            (Channel::Tag("Bald".into()), "no channel for Bald; it has Hat, Smiling, Face"),
        ] {
            let error = responder(folder.path(), Some(channel)).err().unwrap().to_string();
            assert!(error.contains("w.safetensors") && error.contains(expected), "{error}");
        }
    }
}

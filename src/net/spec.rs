//! The network format: a TOML file with `name`, `input = [channels, height, width]` and one `[[layer]]` after another.
//! Reading checks the frame (names, types, keys); what the layers' own keys mean is the operations' business.

use crate::ops::{OPERATIONS, Shape};
use crate::{Error, Result};
use serde::Deserialize;
use std::path::Path;

/// A network as written: not yet bound to shapes.
#[derive(Debug, Clone)]
pub struct Spec {
    /// Where it came from, for messages.
    pub place: String,
    pub name: String,
    /// Shape of one sample. Nets without linear or local layers run on any size; see [`super::Net::at_size`].
    pub input: Shape,
    pub layers: Vec<LayerSpec>,
}

/// One `[[layer]]`.
#[derive(Debug, Clone)]
pub struct LayerSpec {
    pub name: String,
    /// A name of [`OPERATIONS`].
    pub kind: String,
    /// Names of the layers that are read; `None` is the layer above.
    pub from: Option<Vec<String>>,
    /// All other keys.
    pub keys: toml::Table,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    input: [usize; 3],
    #[serde(default)]
    layer: Vec<RawLayer>,
}

#[derive(Deserialize)]
struct RawLayer {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    from: Option<From>,
    #[serde(flatten)]
    keys: toml::Table,
}

#[derive(Deserialize)]
#[serde(untagged, expecting = "expected a layer's name or a list of names")]
enum From {
    One(String),
    Many(Vec<String>),
}

impl LayerSpec {
    /// A layer below the one above it, with keys as in a file: `LayerSpec::new("fc", "linear", "outputs = 40")`.
    pub fn new(name: &str, kind: &str, keys: &str) -> Result<Self> {
        let keys = keys.parse().map_err(|e: toml::de::Error| Error::new(format!("layer {name}"), e.message()))?;
        Ok(Self { name: name.to_string(), kind: kind.to_string(), from: None, keys })
    }

    /// The same, reading `from`.
    pub fn from(mut self, from: &str) -> Self {
        self.from = Some(vec![from.to_string()]);
        self
    }
}

impl Spec {
    /// Reads a network file.
    ///
    /// # Errors
    /// Unreadable file, broken TOML (with its line), unknown layer type, a name given twice.
    pub fn load(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let text = std::fs::read_to_string(path)
            .map_err(|e| Error::file(path, e).advise("give the path of a network description (TOML)"))?;
        Self::parse(&text, &path.display().to_string())
    }

    /// Reads a network from text; `place` names it in messages.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        let file: File = toml::from_str(text).map_err(|e| Error::toml(place, text, &e))?;
        let [c, h, w] = file.input;
        let layers = file.layer.into_iter().map(|raw| LayerSpec {
            name: raw.name,
            kind: raw.kind,
            from: raw.from.map(|from| match from {
                From::One(name) => vec![name],
                From::Many(names) => names,
            }),
            keys: raw.keys,
        });
        let spec =
            Self { place: place.to_string(), name: file.name, input: Shape::new(c, h, w), layers: layers.collect() };
        spec.check()?;
        Ok(spec)
    }

    /// What can be said without the operations; every net has passed it, however its description was made.
    pub(super) fn check(&self) -> Result<()> {
        const LARGEST: usize = 1 << 16;
        let Shape { c, h, w } = self.input;
        if [c, h, w].iter().any(|size| !(1..=LARGEST).contains(size)) {
            return Err(Error::new(&self.place, format!("input {} is empty or has a side over {LARGEST}", self.input))
                .advise("write input = [channels, height, width]"));
        }
        if self.layers.is_empty() {
            return Err(Error::new(&self.place, "has no [[layer]]").advise("add at least one"));
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let place = self.place_of(&layer.name);
            if layer.name.is_empty() || layer.name == "input" || layer.name.chars().any(char::is_control) {
                return Err(Error::new(place, format!("layer {} has a reserved or empty name", index + 1))
                    .advise("choose another; `input` is the net's input"));
            }
            if self.layers[..index].iter().any(|other| other.name == layer.name) {
                return Err(Error::new(place, "this name is given twice").advise("rename one of the two layers"));
            }
            if !OPERATIONS.iter().any(|(name, _)| *name == layer.kind) {
                let known: Vec<&str> = OPERATIONS.iter().map(|(name, _)| *name).collect();
                return Err(Error::new(place, format!("unknown type `{}`", layer.kind))
                    .advise(format!("known types: {}", known.join(", "))));
            }
        }
        Ok(())
    }

    /// `file: layer name`, for messages.
    pub fn place_of(&self, layer: &str) -> String {
        format!("{}: layer {layer}", self.place)
    }

    /// Position of a layer.
    ///
    /// # Errors
    /// No layer of that name.
    pub fn position(&self, layer: &str) -> Result<usize> {
        self.layers.iter().position(|l| l.name == layer).ok_or_else(|| {
            let names: Vec<&str> = self.layers.iter().map(|l| l.name.as_str()).collect();
            Error::new(&self.place, format!("has no layer `{layer}`")).advise(format!("layers: {}", names.join(", ")))
        })
    }

    /// The same net with `layers` added at its end.
    pub fn with(mut self, layers: impl IntoIterator<Item = LayerSpec>) -> Self {
        self.layers.extend(layers);
        self
    }

    /// The same net up to and including `layer`.
    pub fn up_to(mut self, layer: &str) -> Result<Self> {
        let end = self.position(layer)? + 1;
        self.layers.truncate(end);
        Ok(self)
    }

    /// The same net with its linear layers as convolutions over the whole of what they read, so that it runs on larger
    /// images and gives their output at every place (paper, Fig. 9). Weights of the linear layers fit the convolutions.
    ///
    /// # Errors
    /// A net that cannot be bound to its input.
    pub fn convolutional(mut self) -> Result<Self> {
        let net = super::Net::new(self.clone())?;
        for (layer, bound) in self.layers.iter_mut().zip(&net.layers).filter(|(layer, _)| layer.kind == "linear") {
            let Shape { h, w, .. } = net.shape(bound.inputs[0]);
            layer.kind = "conv".into();
            if let Some(outputs) = layer.keys.remove("outputs") {
                layer.keys.insert("filters".into(), outputs);
            }
            layer.keys.insert("kernel".into(), vec![h as i64, w as i64].into());
        }
        Ok(self)
    }

    /// The network file that reads as this.
    pub fn to_toml(&self) -> String {
        let Shape { c, h, w } = self.input;
        let mut text = format!("name = {}\ninput = [{c}, {h}, {w}]\n", toml::Value::from(self.name.as_str()));
        for layer in &self.layers {
            let value = |s: &str| toml::Value::from(s).to_string();
            text += &format!("\n[[layer]]\nname = {}\ntype = {}\n", value(&layer.name), value(&layer.kind));
            if let Some(from) = &layer.from {
                text += &format!("from = {}\n", toml::Value::from(from.clone()));
            }
            for (key, value) in &layer.keys {
                // As an inline table of one entry, so that odd keys are quoted and tables stay inside the layer.
                let entry = toml::Value::Table([(key.clone(), value.clone())].into_iter().collect()).to_string();
                text += &format!("{}\n", entry[1..entry.len() - 1].trim());
            }
        }
        text
    }
}

//! The network format: a TOML file with `name`, `input = [channels, height, width]` and a sequence of `[[layer]]` tables.
//! Parsing checks the frame (names, types, keys); the layers' own keys are interpreted by the operations.

use super::Normalise;
use crate::ops::{OPERATIONS, Shape, Side, check_values};
use crate::settings::{Document, Mistake, Names, Step, from_table, within};
use crate::shipped::Source;
use crate::{Error, Result};
use serde::Deserialize;
use std::collections::BTreeMap;

/// A network as written: not yet bound to shapes.
///
/// ```
/// use weft::net::{LayerSpec, Net, Spec};
///
/// // A net up to one of its layers, with a different head.
/// let spec = Spec::load("nets/anet.toml")?.up_to("fc")?;
/// let spec = spec.with([LayerSpec::new("head", "linear", "outputs = 5")?]);
/// assert_eq!(Net::new(spec)?.output().c, 5);
/// # Ok::<(), weft::Error>(())
/// ```
#[derive(Debug, Clone)]
pub struct Spec {
    /// Where it came from, for messages.
    pub place: String,
    /// As in the file.
    pub name: String,
    /// Shape of one sample. Nets without linear or local layers run on any size; see [`super::Net::at_size`].
    pub input: Shape,
    /// How the pixels of photos become the input.
    pub normalise: Normalise,
    /// From input to output.
    pub layers: Vec<LayerSpec>,
}

/// One `[[layer]]`.
#[derive(Debug, Clone)]
pub struct LayerSpec {
    /// As in the file.
    pub name: String,
    /// A name of [`OPERATIONS`].
    pub kind: String,
    /// Names of the layers that it reads; `None` is the layer above.
    pub from: Option<Vec<String>>,
    /// All other keys.
    pub keys: toml::Table,
    /// Line of the keys in the file.
    lines: BTreeMap<String, usize>,
}

/// Numbers of layers in a net, and of inputs of a layer, beyond which a file is assumed to be wrong.
const MOST_LAYERS: usize = 2048;
const MOST_READ: usize = 256;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    name: String,
    #[serde(deserialize_with = "within::<Side, _, _>")]
    input: [usize; 3],
    #[serde(default)]
    normalise: Normalise,
    #[serde(default)]
    layer: Vec<toml::Table>,
}

/// The keys common to all layers.
#[derive(Deserialize)]
struct Head {
    name: String,
    #[serde(rename = "type")]
    kind: String,
    from: Option<Names>,
}

/// Names of the keys in [`Head`].
const HEAD: [&str; 3] = ["name", "type", "from"];

impl LayerSpec {
    /// A layer that reads the one above it, with keys as in a file: `LayerSpec::new("fc", "linear", "outputs = 40")`.
    pub fn new(name: &str, kind: &str, keys: &str) -> Result<Self> {
        let keys = keys.parse().map_err(|e: toml::de::Error| Error::network(format!("layer {name}"), e.message()))?;
        Ok(Self { name: name.to_string(), kind: kind.to_string(), from: None, keys, lines: BTreeMap::new() })
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
    /// Unreadable file, invalid TOML (with its line), unknown layer type, duplicate name.
    pub fn load(source: impl Into<Source>) -> Result<Self> {
        let advice =
            format!("give the path of a network description (TOML), or a built-in net: {}", Source::net_names());
        Self::of(&Document::load(source, &advice)?)
    }

    /// Parses a network from text; `place` names it in messages.
    pub fn parse(text: &str, place: &str) -> Result<Self> {
        Self::of(&Document::parse(place, text.to_string())?)
    }

    fn of(document: &Document) -> Result<Self> {
        let file: File = document.read()?;
        let [c, h, w] = file.input;
        if file.layer.len() > MOST_LAYERS {
            let found = format!("has {} layers", file.layer.len());
            return Err(Error::network(document.place(), found).advise(format!("give at most {MOST_LAYERS}")));
        }
        let mut layers = Vec::new();
        let mut lines = document.lines_in("layer").into_iter();
        for (index, mut keys) in file.layer.into_iter().enumerate() {
            let head = HEAD.iter().filter_map(|key| keys.remove_entry(*key)).collect();
            let Head { name, kind, from } = from_table(head).map_err(|mistake| {
                let way = [Step::Key("layer".into()), Step::Index(index)];
                document.mistake_in(&way, &format!("layer {}", index + 1), &mistake)
            })?;
            let lines = lines.next().unwrap_or_default();
            layers.push(LayerSpec { name, kind, from: from.map(|Names(names)| names), keys, lines });
        }
        let (place, input) = (document.place().to_string(), Shape::new(c, h, w));
        let spec = Self { place, name: file.name, input, normalise: file.normalise, layers };
        spec.check()?;
        // Checked here, because only a part of the net may ever be bound.
        for (index, layer) in spec.layers.iter().enumerate() {
            let build = OPERATIONS.iter().find(|(name, ..)| *name == layer.kind).map(|(_, build, _)| *build);
            build.map_or(Ok(()), |build| check_values(build, &layer.keys)).map_err(|m| spec.mistake(index, &m))?;
        }
        Ok(spec)
    }

    /// The checks that need no operations; every net has passed them, however its description was built.
    pub(super) fn check(&self) -> Result<()> {
        const LARGEST: usize = 1 << 16;
        let Shape { c, h, w } = self.input;
        if [c, h, w].iter().any(|size| !(1..=LARGEST).contains(size)) {
            return Err(Error::network(
                &self.place,
                format!("input {} is empty or has a side over {LARGEST}", self.input),
            )
            .advise("write input = [channels, height, width]"));
        }
        if self.layers.is_empty() {
            return Err(Error::network(&self.place, "has no [[layer]]").advise("add at least one"));
        }
        for (index, layer) in self.layers.iter().enumerate() {
            let place = self.place_of(&layer.name);
            if layer.name.is_empty() || layer.name == "input" || layer.name.chars().any(char::is_control) {
                return Err(Error::network(place, format!("layer {} has a reserved or empty name", index + 1))
                    .advise("choose another; `input` is the net's input"));
            }
            if let Some(from) = layer.from.as_ref().filter(|from| from.len() > MOST_READ) {
                let found = format!("reads {} layers", from.len());
                return Err(Error::network(place, found).advise(format!("give at most {MOST_READ}")));
            }
            if self.layers[..index].iter().any(|other| other.name == layer.name) {
                return Err(Error::network(place, "this name is given twice").advise("rename one of the two layers"));
            }
            if !OPERATIONS.iter().any(|(name, ..)| *name == layer.kind) {
                let known: Vec<&str> = OPERATIONS.iter().map(|(name, ..)| *name).collect();
                return Err(Error::network(place, format!("unknown type `{}`", layer.kind))
                    .advise(format!("known types: {}", known.join(", "))));
            }
        }
        Ok(())
    }

    /// `file: layer name`, for messages.
    pub fn place_of(&self, layer: &str) -> String {
        format!("{}: layer {layer}", self.place)
    }

    /// The error for an invalid layer: `file:line: layer name: key`.
    pub(super) fn mistake(&self, index: usize, mistake: &Mistake) -> Error {
        let layer = &self.layers[index];
        let line = match mistake.way.first() {
            Some(Step::Key(key)) => layer.lines.get(key),
            _ => None,
        };
        let error = Error::network(mistake.key(), &mistake.found);
        match line {
            Some(line) => error.within(format!("{}:{line}: layer {}", self.place, layer.name)),
            None => error.within(self.place_of(&layer.name)),
        }
    }

    /// Index of a layer.
    ///
    /// # Errors
    /// No layer of that name.
    pub fn position(&self, layer: &str) -> Result<usize> {
        self.layers.iter().position(|l| l.name == layer).ok_or_else(|| {
            let names: Vec<&str> = self.layers.iter().map(|l| l.name.as_str()).collect();
            Error::network(&self.place, format!("has no layer `{layer}`"))
                .advise(format!("layers: {}", names.join(", ")))
        })
    }

    /// The same net with `layers` appended.
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

    /// The same net with each linear layer as a convolution over its whole input, so that it runs on larger images and gives
    /// their output at every position (paper, Fig. 9). Weights of the linear layers fit the convolutions.
    ///
    /// # Errors
    /// A net that cannot be bound to its input shape.
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

    /// The network file that parses to this.
    pub fn to_toml(&self) -> String {
        let Shape { c, h, w } = self.input;
        let mut text = format!("name = {}\ninput = [{c}, {h}, {w}]\n", toml::Value::from(self.name.as_str()));
        let Normalise { mean, scale } = self.normalise;
        if self.normalise != Normalise::default() {
            text += &format!("normalise = {{ mean = {mean:?}, scale = {scale:?} }}\n");
        }
        for layer in &self.layers {
            let value = |s: &str| toml::Value::from(s).to_string();
            text += &format!("\n[[layer]]\nname = {}\ntype = {}\n", value(&layer.name), value(&layer.kind));
            if let Some(from) = &layer.from {
                text += &format!("from = {}\n", toml::Value::from(from.clone()));
            }
            for (key, value) in &layer.keys {
                // As an inline table of one entry, so that unusual keys are quoted and tables stay inside the layer.
                let entry = toml::Value::Table([(key.clone(), value.clone())].into_iter().collect()).to_string();
                text += &format!("{}\n", entry[1..entry.len() - 1].trim());
            }
        }
        text
    }
}

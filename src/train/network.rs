//! The net of a run: the given net, dropout around its last layer, and the stage's head and losses on top.

use super::config::{Config, Stage};
use super::source::Source;
use crate::net::{LayerSpec, Net, Spec};
use crate::shipped;
use crate::{Error, Result};
use std::sync::Arc;

/// Name of the head's layer, and so of its parameters.
pub const HEAD: &str = "head";

/// A net to train.
#[derive(Debug)]
pub struct Network {
    /// With head, dropout and losses.
    pub net: Arc<Net>,
    /// The layer with one score per class or tag.
    pub scores: usize,
    /// The net with its head, but without dropout and losses: the net that is used after training.
    pub trained: Spec,
}

impl Network {
    /// # Errors
    /// A net that cannot be read or bound, one that ends in a loss, or one to which the head cannot be attached.
    pub fn new(config: &Config, source: &Source) -> Result<Self> {
        let base = Spec::load(shipped::Source::net(&config.net))?;
        let bound = Net::new(base.clone())?;
        if bound.layers.iter().any(|layer| layer.op.target().is_some()) {
            return Err(
                Error::file(&config.net, "has a loss of its own").advise("remove it: the stage adds the losses")
            );
        }
        let features = base.layers[base.layers.len() - 1].name.clone();
        let (outputs, convolutional) = match config.stage {
            Stage::PretrainObjects => (source.classes, true),
            Stage::FinetuneLnet => (source.tags.len(), true),
            Stage::PretrainIdentities => (source.classes, false),
            Stage::FinetuneAttributes => (source.tags.len(), false),
        };
        let mut head = Vec::new();
        if convolutional {
            head.push(LayerSpec::new(HEAD, "conv", &format!("filters = {outputs}\nkernel = 1"))?);
            let mode = match config.stage {
                Stage::PretrainObjects => "mode = \"avg\"".to_string(),
                _ => format!("mode = \"lse\"\nsharpness = {:?}", config.sharpness),
            };
            head.push(LayerSpec::new("scores", "global_pool", &mode)?);
        } else {
            head.push(LayerSpec::new(HEAD, "linear", &format!("outputs = {outputs}"))?);
        }
        let scores = head[head.len() - 1].name.clone();
        let trained = base.clone().with(head.clone());

        let mut spec = base;
        let [before, after] = config.dropout;
        let dropout = |name: &str, rate: f32| LayerSpec::new(name, "dropout", &format!("rate = {rate:?}"));
        if before > 0.0 {
            let last = spec.layers.len() - 1;
            let mut layer = dropout("dropout_before", before)?;
            // The last layer reads its previous input, through the dropout.
            layer.from = spec.layers[last].from.take();
            if layer.from.as_ref().is_some_and(|from| from.len() > 1) {
                return Err(Error::new("dropout", format!("layer {features} reads several layers"))
                    .advise("set dropout = [0.0, ...] or end the net in a layer that reads one"));
            }
            spec.layers.insert(last, layer);
        }
        if after > 0.0 {
            spec.layers.push(dropout("dropout_after", after)?);
        }
        spec.layers.extend(head);
        if config.similarity > 0.0 && config.stage == Stage::PretrainIdentities {
            let weight = format!("weight = {:?}", config.similarity);
            spec.layers.push(LayerSpec::new("similarity", "similarity", &weight)?.from(&features));
        }
        let loss = match config.stage {
            Stage::PretrainObjects | Stage::PretrainIdentities => "softmax_cross_entropy",
            Stage::FinetuneLnet | Stage::FinetuneAttributes => "sigmoid_cross_entropy",
        };
        spec.layers.push(LayerSpec::new("loss", loss, "")?.from(&scores));
        let net = Net::new(spec)?;
        Ok(Self { scores: net.position(&scores)?, net: Arc::new(net), trained })
    }

    /// Scores of one sample.
    pub fn outputs(&self) -> usize {
        self.net.shape(self.scores + 1).len()
    }
}

//! A net in f64: parses the layers' keys independently and runs the plain loops of [`crate::loops`].

use crate::loops::{self, Cells, Map, Window};
use crate::problem::Problem;
use weft::ops::Mode;

/// Minimum distance of numbers from a kink: far more than a step of a central difference or the rounding of f32 can bridge, small
/// enough that most seeds are suitable.
pub const MARGIN: f64 = 1e-5;

/// A forward pass.
pub struct Pass {
    pub outputs: Vec<Map>,
    /// Distance of the nearest ReLU input from 0, or of the nearest maximum from the next value.
    pub kink: f64,
}

/// Runs the problem as it is.
pub fn run(problem: &Problem) -> Pass {
    forward(problem, &to_f64(&problem.input), &problem.parameters.iter().map(|p| to_f64(p)).collect::<Vec<_>>())
}

/// Runs the problem's net on other numbers.
pub fn forward(problem: &Problem, input: &[f64], parameters: &[Vec<f64>]) -> Pass {
    let net = &problem.net;
    let shape = net.spec.input;
    let mut values = vec![Map { n: problem.n, c: shape.c, h: shape.h, w: shape.w, values: input.to_vec() }];
    let mut kink = f64::INFINITY;
    for (l, layer) in net.layers.iter().enumerate() {
        let inputs: Vec<&Map> = layer.inputs.iter().map(|&value| &values[value]).collect();
        let parameters = &parameters[layer.parameters.clone()];
        let output = layer_output(problem, l, &inputs, parameters, &mut kink);
        values.push(output);
    }
    values.remove(0);
    Pass { outputs: values, kink }
}

fn layer_output(problem: &Problem, l: usize, inputs: &[&Map], parameters: &[Vec<f64>], kink: &mut f64) -> Map {
    let spec = &problem.net.spec.layers[l];
    let (keys, map) = (Keys(&spec.keys), inputs[0]);
    let bias = parameters.get(1).map(Vec::as_slice);
    let output = match spec.kind.as_str() {
        "conv" => loops::conv(map, &keys.window([1, 1]), keys.count("groups", 1), &parameters[0], bias, keys.filters()),
        "local_conv" => {
            loops::local_conv(map, keys.pair("kernel", [0, 0]), &keys.cells(), &parameters[0], bias, keys.filters())
        }
        "linear" => loops::linear(map, &parameters[0], bias, keys.count("outputs", 0)),
        "max_pool" => loops::max_pool(map, &keys.window(keys.pair("kernel", [0, 0])), keys.flag("ceil"), kink),
        "avg_pool" => loops::avg_pool(map, &keys.window(keys.pair("kernel", [0, 0])), keys.flag("ceil")),
        "global_pool" => match keys.text("mode") {
            "max" => loops::global_max(map, kink),
            "avg" => loops::global_avg(map),
            _ => loops::global_lse(map, keys.number("sharpness", 4.0)),
        },
        "lrn" => loops::lrn(
            map,
            keys.count("size", 5),
            keys.number("alpha", 1e-4),
            keys.number("beta", 0.75),
            keys.number("k", 1.0),
        ),
        "group_norm" => {
            loops::group_norm(map, keys.count("groups", 0), keys.number("eps", 1e-5), &parameters[0], &parameters[1])
        }
        "relu" => loops::relu(map, kink),
        "sigmoid" => loops::sigmoid(map),
        "softmax" => loops::softmax(map),
        "dropout" => match problem.mode {
            Mode::Inference => map.clone(),
            Mode::Training { seed } => loops::dropout(map, keys.number("rate", 0.5), seed, l),
        },
        "concat" => loops::concat(inputs),
        "softmax_cross_entropy" => keys.weighted(loops::softmax_cross_entropy(map, &problem.classes)),
        "sigmoid_cross_entropy" => keys.weighted(loops::sigmoid_cross_entropy(map, &problem.values)),
        "similarity" => keys.weighted(loops::similarity(map, &problem.classes)),
        other => panic!("no reference for layers of type {other}"),
    };
    match keys.text("activation") {
        "relu" => loops::relu(&output, kink),
        "sigmoid" => loops::sigmoid(&output),
        _ => output,
    }
}

/// The keys of a layer; the case's net was built from them, so they are present and have the right type.
struct Keys<'a>(&'a toml::Table);

impl Keys<'_> {
    fn count(&self, key: &str, default: usize) -> usize {
        self.0.get(key).map_or(default, |value| value.as_integer().unwrap() as usize)
    }

    fn number(&self, key: &str, default: f64) -> f64 {
        self.0.get(key).map_or(default, |value| value.as_float().unwrap())
    }

    fn flag(&self, key: &str) -> bool {
        self.0.get(key).is_some_and(|value| value.as_bool().unwrap())
    }

    fn text(&self, key: &str) -> &str {
        self.0.get(key).map_or("", |value| value.as_str().unwrap())
    }

    /// One number for both axes, or a list of two.
    fn pair(&self, key: &str, default: [usize; 2]) -> [usize; 2] {
        match self.0.get(key) {
            None => default,
            Some(toml::Value::Array(list)) => [0, 1].map(|axis: usize| list[axis].as_integer().unwrap() as usize),
            Some(_) => [self.count(key, 0); 2],
        }
    }

    fn filters(&self) -> usize {
        self.count("filters", 0)
    }

    fn window(&self, stride: [usize; 2]) -> Window {
        Window {
            kernel: self.pair("kernel", [0, 0]),
            stride: self.pair("stride", stride),
            pad: self.pair("pad", [0, 0]),
        }
    }

    fn cells(&self) -> Cells {
        Cells { grid: self.pair("grid", [0, 0]), span: self.pair("span", [1, 1]), halo: self.text("window") == "halo" }
    }

    fn weighted(&self, loss: f64) -> Map {
        Map::scalar(self.number("weight", 1.0) * loss)
    }
}

pub fn to_f64(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

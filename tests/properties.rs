//! Properties of every network file: a valid one has the shapes obtained by counting, an invalid one produces one line that names
//! file, layer and sizes, no text panics, and a memory plan never gives two live buffers the same memory.

use proptest::prelude::*;
use std::ops::Range;
use weft::net::{INPUT, LayerSpec, Net, Normalise, Plan, Purpose, Spec};
use weft::ops::{Permutation, Shape, nchw_to_nhwc, nhwc_to_nchw};

const FILE: &str = "some/net.toml";

/// Nothing is stored between runs: a failure prints its minimal input.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

/// A net with the single layer `only`.
fn net(input: Shape, kind: &str, keys: &str) -> Result<Net, String> {
    let layer = LayerSpec::new("only", kind, keys).unwrap();
    Net::new(Spec {
        place: FILE.into(),
        name: "net".into(),
        input,
        layers: vec![layer],
        normalise: Normalise::default(),
    })
    .map_err(|e| e.to_string())
}

/// Checks for one line that names the file and the layer.
fn is_one_line(message: &str) -> Result<(), TestCaseError> {
    prop_assert!(message.starts_with(&format!("{FILE}: layer only: ")), "{message}");
    prop_assert!(!message.contains('\n') && message.len() < 400, "{message}");
    Ok(())
}

/// Number of windows along an axis, by trying one start after the other; `ceil` allows one to extend past the end that the
/// previous windows did not reach, unless it starts in the padding.
fn windows(size: usize, kernel: usize, stride: usize, pad: usize, ceil: bool) -> usize {
    let starts = (0..=size + 2 * pad).step_by(stride);
    let count = starts.clone().filter(|start| start + kernel <= size + 2 * pad).count();
    let end = (count - 1) * stride + kernel;
    let more = ceil && end < size + 2 * pad && count * stride < size + pad;
    count + usize::from(more)
}

fn shape() -> impl Strategy<Value = Shape> {
    (1..7usize, 1..14usize, 1..14usize).prop_map(|(c, h, w)| Shape::new(c, h, w))
}

fn pair(sizes: Range<usize>) -> impl Strategy<Value = [usize; 2]> {
    [sizes.clone(), sizes]
}

proptest! {
    #![proptest_config(cases(1000))]

    #[test]
    fn a_convolution_has_a_pixel_per_window_or_an_error(
        input in shape(), filters in 0..9usize, groups in 0..4usize, kernel in pair(0..6), stride in pair(0..4), pad in pair(0..4),
    ) {
        let keys = format!("filters = {filters}\ngroups = {groups}\nkernel = {kernel:?}\nstride = {stride:?}\npad = {pad:?}");
        let zero = [filters, groups, kernel[0], kernel[1], stride[0], stride[1]].contains(&0);
        let divides = !zero && input.c % groups == 0 && filters % groups == 0;
        let fits = kernel[0] <= input.h + 2 * pad[0] && kernel[1] <= input.w + 2 * pad[1];
        match net(input, "conv", &keys) {
            Ok(net) => {
                prop_assert!(divides && fits, "{input}: {keys}");
                let rows = windows(input.h, kernel[0], stride[0], pad[0], false);
                let columns = windows(input.w, kernel[1], stride[1], pad[1], false);
                prop_assert_eq!(net.output(), Shape::new(filters, rows, columns));
                prop_assert_eq!(&net.parameters[0].tensor.shape, &[filters, input.c / groups, kernel[0], kernel[1]]);
            }
            Err(message) => {
                is_one_line(&message)?;
                let expected = match (zero, divides) {
                    (true, _) => "0 is out of range; write 1 to".into(),
                    (_, false) => format!("{groups} groups do not divide {} input channels and {filters} filters", input.c),
                    _ => format!("is larger than the input {input}"),
                };
                prop_assert!((!divides || !fits) && message.contains(&expected), "{message}");
            }
        }
    }

    #[test]
    fn a_pool_has_a_pixel_per_window_or_an_error(
        input in shape(), max in any::<bool>(), ceil in any::<bool>(), kernel in pair(1..6), stride in pair(1..5), pad in pair(0..3),
    ) {
        let keys = format!("kernel = {kernel:?}\nstride = {stride:?}\npad = {pad:?}\nceil = {ceil}");
        let padded_by_half = pad[0] <= kernel[0] / 2 && pad[1] <= kernel[1] / 2;
        let fits = kernel[0] <= input.h + 2 * pad[0] && kernel[1] <= input.w + 2 * pad[1];
        match net(input, if max { "max_pool" } else { "avg_pool" }, &keys) {
            Ok(net) => {
                prop_assert!(padded_by_half && fits, "{input}: {keys}");
                let rows = windows(input.h, kernel[0], stride[0], pad[0], ceil);
                let columns = windows(input.w, kernel[1], stride[1], pad[1], ceil);
                prop_assert_eq!(net.output(), Shape::new(input.c, rows, columns));
            }
            Err(message) => {
                is_one_line(&message)?;
                let expected = if padded_by_half { format!("larger than the input {input}") } else { "more than half of kernel".into() };
                prop_assert!(!(padded_by_half && fits) && message.contains(&expected), "{message}");
            }
        }
    }

    #[test]
    fn a_local_convolution_tiles_its_input(
        c in 1..4usize, filters in 1..4usize, kernel in pair(1..4), grid in pair(1..5), span in pair(1..4), cell in pair(1..5),
        halo in any::<bool>(), beyond in pair(0..2),
    ) {
        // Cells, the halo, and possibly one pixel too many.
        let side = |axis: usize| {
            (grid[axis] + span[axis] - 1) * cell[axis] + if halo { kernel[axis] - 1 } else { 0 } + beyond[axis]
        };
        let input = Shape::new(c, side(0), side(1));
        let window = if halo { "halo" } else { "valid" };
        let keys = format!("filters = {filters}\nkernel = {kernel:?}\ngrid = {grid:?}\nspan = {span:?}\nwindow = '{window}'");
        let cells = [0, 1].map(|axis| cell[axis] + if grid[axis] + span[axis] == 2 { beyond[axis] } else { 0 });
        let tiles = (0..2).all(|axis| beyond[axis] == 0 || grid[axis] + span[axis] == 2);
        let fits = (0..2).all(|axis| halo || kernel[axis] <= span[axis] * cells[axis]);
        match net(input, "local_conv", &keys) {
            Ok(net) => {
                prop_assert!(tiles && fits, "{input}: {keys}");
                let block = |axis: usize| span[axis] * cells[axis] - if halo { 0 } else { kernel[axis] - 1 };
                prop_assert_eq!(net.output(), Shape::new(filters, grid[0] * block(0), grid[1] * block(1)));
                prop_assert_eq!(&net.parameters[0].tensor.shape, &[grid[0] * grid[1], filters, c, kernel[0], kernel[1]]);
                prop_assert_eq!(&net.parameters[1].tensor.shape, &[grid[0] * grid[1], filters]);
            }
            Err(message) => {
                is_one_line(&message)?;
                let named = message.contains(&format!("input {input}: ")) || message.contains("is larger than the");
                prop_assert!(!(tiles && fits) && named, "{message}");
            }
        }
    }

    #[test]
    fn absurd_sizes_are_refused_and_never_overflow(
        c in 1..=1usize << 16, h in 1..=1usize << 16, w in 1..=1usize << 16,
        kind in prop::sample::select(vec!["conv", "local_conv", "max_pool", "avg_pool", "linear", "lrn", "global_pool"]),
        numbers in [size(), size(), size(), size(), size(), size()],
    ) {
        let [a, b, c1, d, e, f] = numbers;
        let keys = match kind {
            "conv" => format!("filters = {a}\nkernel = [{b}, {c1}]\nstride = {d}\npad = {e}\ngroups = {f}"),
            "local_conv" => format!("filters = {a}\nkernel = [{b}, {c1}]\ngrid = {d}\nspan = {e}\nwindow = 'halo'"),
            "linear" => format!("outputs = {a}"),
            "lrn" => format!("size = {a}"),
            "global_pool" => "mode = 'max'".into(),
            _ => format!("kernel = [{a}, {b}]\nstride = {c1}\npad = {d}\nceil = true"),
        };
        match net(Shape::new(c, h, w), kind, &keys) {
            Ok(net) => prop_assert!(net.parameter_len() <= 1 << 31 && net.output().len() <= 1 << 31 && net.flops() > 0),
            Err(message) => is_one_line(&message)?,
        }
    }

    #[test]
    fn packing_orders_by_the_axes_and_unpacking_undoes_it(
        (sizes, axes) in prop::collection::vec(1..5usize, 1..6)
            .prop_flat_map(|sizes| { let axes = (0..sizes.len()).collect::<Vec<_>>(); (Just(sizes), Just(axes).prop_shuffle()) }),
    ) {
        let order = Permutation::new(&sizes, &axes);
        let file: Vec<f32> = (0..sizes.iter().product::<usize>()).map(|i| i as f32).collect();
        let (mut memory, mut back) = (vec![f32::NAN; file.len()], vec![f32::NAN; file.len()]);
        order.pack(&file, &mut memory);
        order.unpack(&memory, &mut back);
        prop_assert_eq!(&back, &file);
        // The memory position of each value, from its index in the file.
        for (at, value) in file.iter().enumerate() {
            let mut rest = at;
            let mut index = vec![0; sizes.len()];
            for axis in (0..sizes.len()).rev() {
                index[axis] = rest % sizes[axis];
                rest /= sizes[axis];
            }
            let in_memory = axes.iter().fold(0, |place, &axis| place * sizes[axis] + index[axis]);
            prop_assert_eq!(memory[in_memory], *value);
        }
    }

    #[test]
    fn layouts_are_inverse(shape in shape(), n in 1..4usize) {
        let nchw: Vec<f32> = (0..n * shape.len()).map(|i| i as f32).collect();
        let (mut nhwc, mut back) = (vec![f32::NAN; nchw.len()], vec![f32::NAN; nchw.len()]);
        nchw_to_nhwc(shape, &nchw, &mut nhwc);
        nhwc_to_nchw(shape, &nhwc, &mut back);
        prop_assert_eq!(&back, &nchw);
        let last = [n - 1, shape.c - 1, shape.h - 1, shape.w - 1];
        let at = |[n, c, y, x]: [usize; 4]| ((n * shape.c + c) * shape.h + y) * shape.w + x;
        let first_pixel = nhwc[nchw.len() - shape.c..].iter().map(|v| *v as usize);
        prop_assert!(first_pixel.eq((0..shape.c).map(|c| at([last[0], c, last[2], last[3]]))));
    }
}

/// Sizes of every magnitude.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![3 => 1..9u64, 1 => (0..63u32).prop_map(|bits| 1 << bits), 1 => (0..63u32).prop_map(|bits| (1 << bits) - 1)]
}

/// A file with every kind of value that a layer may have.
const SAMPLE: &str = r#"name = "Süßes Netz"
input = [3, 12, 12]             # Größe

[[layer]]
name = "c1"
type = "conv"
filters = 4
kernel = [3, 3]
activation = "relu"

[[layer]]
name = "größer"
type = "lrn"
alpha = 1e-3
from = "c1"

[[layer]]
name = "both"
type = "concat"
from = ["c1", "größer"]

[[layer]]
name = "local"
type = "local_conv"
filters = 2
kernel = 2
grid = 2
span = 1
window = "valid"
bias = false
"#;

fn text_piece() -> impl Strategy<Value = String> {
    let words = [
        "\"",
        "'",
        "\n",
        "=",
        "[",
        "]",
        "[[",
        "]]",
        "[[layer]]\n",
        "{",
        "}",
        ",",
        "#",
        "\\",
        "\u{0}",
        "é",
        "\"\"\"",
        "🙂",
    ];
    let values =
        ["from = ", "name = ", "-1", "0", "18446744073709551616", "1e999", "nan", "1979-05-27", "true", "\"c1\""];
    prop_oneof![
        prop::sample::select([&words[..], &values[..]].concat()).prop_map(str::to_string),
        any::<char>().prop_map(String::from),
    ]
}

proptest! {
    #![proptest_config(cases(3000))]

    #[test]
    fn no_text_panics(
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..12usize, text_piece()), 0..5),
    ) {
        let mut text: Vec<char> = SAMPLE.chars().collect();
        for (at, removed, piece) in edits {
            let start = at.index(text.len() + 1);
            let end = (start + removed).min(text.len());
            text.splice(start..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        match Spec::parse(&text, FILE).and_then(|spec| { same_again(&spec); Net::new(spec) }) {
            Ok(_) => {}
            Err(e) => {
                let message = e.to_string();
                prop_assert!(message.starts_with(FILE) && !message.contains('\n'), "{message:?} from {text:?}");
            }
        }
    }

    #[test]
    fn a_network_file_reads_as_it_was_written(
        name in any::<String>(), layer_name in any::<String>(), from in prop::option::of(prop::collection::vec(any::<String>(), 0..3)),
        key in any::<String>(), value in value(),
    ) {
        let mut layer = LayerSpec::new(&layer_name, "relu", "").unwrap();
        layer.from = from;
        if !["name", "type", "from"].contains(&key.as_str()) {
            layer.keys.insert(key, value);
        }
        let spec = Spec { place: FILE.into(), name, input: Shape::new(3, 5, 7), layers: vec![layer], normalise: Normalise::default() };
        let legal = !layer_name.is_empty() && layer_name != "input" && !layer_name.chars().any(char::is_control);
        if legal {
            same_again(&spec);
        }
    }
}

fn value() -> impl Strategy<Value = toml::Value> {
    let leaf = prop_oneof![
        any::<i64>().prop_map(toml::Value::from),
        any::<f64>().prop_filter("NaN is not itself", |x| !x.is_nan()).prop_map(toml::Value::from),
        any::<bool>().prop_map(toml::Value::from),
        any::<String>().prop_map(toml::Value::from),
    ];
    leaf.prop_recursive(2, 8, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(toml::Value::from),
            prop::collection::btree_map(any::<String>(), inner, 0..3)
                .prop_map(|map| toml::Value::Table(map.into_iter().collect())),
        ]
    })
}

/// A description that is written and read again is unchanged.
fn same_again(spec: &Spec) {
    let text = spec.to_toml();
    let again = Spec::parse(&text, FILE).unwrap_or_else(|e| panic!("{e}\n{text}"));
    assert_eq!((&again.name, again.input, again.layers.len()), (&spec.name, spec.input, spec.layers.len()), "{text}");
    for (a, b) in again.layers.iter().zip(&spec.layers) {
        // As text, in which NaN equals itself.
        assert_eq!((&a.name, &a.kind, &a.from), (&b.name, &b.kind, &b.from), "{text}");
        assert_eq!(a.keys.to_string(), b.keys.to_string(), "{text}");
    }
}

/// A random net: each layer reads any one value, or two of them, so that maps of equal size branch and join.
fn random_net() -> impl Strategy<Value = Net> {
    let kinds = ["conv", "conv_relu", "lrn", "relu", "dropout", "max_pool", "sigmoid", "concat", "softmax"];
    let layer = (prop::sample::select(kinds.to_vec()), any::<prop::sample::Index>(), any::<prop::sample::Index>());
    (prop::collection::vec(layer, 1..12), 0..4usize).prop_map(|(layers, end)| {
        let mut spec = Spec {
            place: FILE.into(),
            name: "random".into(),
            input: Shape::new(2, 4, 5),
            layers: Vec::new(),
            normalise: Normalise::default(),
        };
        for (index, (kind, first, second)) in layers.into_iter().enumerate() {
            let name = |value: usize| if value == INPUT { "input".to_string() } else { format!("l{}", value - 1) };
            let (first, second) = (name(first.index(index + 1)), name(second.index(index + 1)));
            let (kind, keys) = match kind {
                "conv" => (kind, "filters = 3\nkernel = 3\npad = 1"),
                "conv_relu" => ("conv", "filters = 2\nkernel = 1\nactivation = 'relu'"),
                "max_pool" => (kind, "kernel = 3\nstride = 1\npad = 1"),
                _ => (kind, ""),
            };
            let mut layer = LayerSpec::new(&format!("l{index}"), kind, keys).unwrap().from(&first);
            if kind == "concat" {
                layer.from = Some(vec![first, second]);
            }
            spec.layers.push(layer);
        }
        let ends = [
            LayerSpec::new("end", "sigmoid_cross_entropy", "").unwrap(),
            LayerSpec::new("end", "similarity", "").unwrap(),
            LayerSpec::new("end", "linear", "outputs = 3").unwrap(),
        ];
        Net::new(spec.with(ends.into_iter().nth(end))).unwrap()
    })
}

/// A buffer of a plan: its name, its position, and the first and last time at which it is used.
type Buffer = (String, Range<usize>, usize, usize);

/// The buffers of a plan as used by the passes. The input exists at time 0, layer l runs forward at 1 + l and backward at 2 L -
/// l; a gradient that no later layer propagates (a seed) is written when the backward pass begins.
fn buffers(net: &Net, plan: &Plan) -> Vec<Buffer> {
    let layers = net.layers.len();
    let (forward, backward, end) = (|l: usize| 1 + l, |l: usize| 2 * layers - l, 2 * layers + 1);
    let keeps_all = matches!(plan.purpose, Purpose::Inspection | Purpose::Differentiation);
    let mut all = Vec::new();
    for value in 0..=layers {
        let readers: Vec<usize> = (0..layers).filter(|&l| net.layers[l].inputs.contains(&value)).collect();
        let born = value;
        let mut uses: Vec<usize> = readers.iter().map(|&l| forward(l)).collect();
        if readers.is_empty() || keeps_all {
            uses.push(end);
        }
        // A layer runs backward if the gradient of its output is needed.
        let goes_back = |l: usize| plan.gradients[l + 1].is_some();
        uses.extend(readers.iter().filter(|&&l| goes_back(l) && net.layers[l].op.needs().inputs).map(|&l| backward(l)));
        if value != INPUT && goes_back(value - 1) && net.layers[value - 1].op.needs().output {
            uses.push(backward(value - 1));
        }
        all.push((format!("value {value}"), plan.values[value].clone(), born, uses.into_iter().max().unwrap_or(born)));
        if let Some(range) = &plan.gradients[value] {
            let first = readers.iter().filter(|&&l| goes_back(l)).map(|&l| backward(l)).min().unwrap_or(layers + 1);
            let last = if value == INPUT { end } else { backward(value - 1) };
            all.push((format!("gradient {value}"), range.clone(), first, last));
        }
    }
    for (l, layer) in plan.layers.iter().enumerate() {
        all.push((format!("forward scratch {l}"), layer.forward.clone(), forward(l), forward(l)));
        all.push((format!("backward scratch {l}"), layer.backward.clone(), backward(l), backward(l)));
        for extra in layer.extra.iter().flatten() {
            all.push((format!("extra gradient {l}"), extra.clone(), backward(l), backward(l)));
        }
    }
    all.into_iter().filter(|(_, range, ..)| !range.is_empty()).collect()
}

proptest! {
    #![proptest_config(cases(300))]

    #[test]
    fn no_two_living_buffers_share_a_place(net in random_net(), n in 1..4usize) {
        for purpose in [Purpose::Inference, Purpose::Inspection, Purpose::Training, Purpose::Differentiation] {
            let plan = Plan::new(&net, n, purpose).unwrap();
            let all = buffers(&net, &plan);
            for (index, (what, range, born, dies)) in all.iter().enumerate() {
                prop_assert!(range.end <= plan.len, "{what} lies beyond the arena");
                for (other, place, other_born, other_dies) in &all[..index] {
                    let together = born <= other_dies && other_born <= dies;
                    let overlap = range.start < place.end && place.start < range.end;
                    prop_assert!(
                        !(together && overlap),
                        "{purpose:?} of {n}: {what} at {range:?} and {other} at {place:?}\n{}", net.spec.to_toml()
                    );
                }
            }
        }
    }
}

//! No number in any TOML file can do harm: each is replaced in turn by invalid values, and the result is either an error that
//! names file, line and key, or finite.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use toml::Spanned;
use toml::de::{DeTable, DeValue};
use weft::data::photo::{Photo, Rect};
use weft::device::Device;
use weft::face::{Bundle, Model};
use weft::locate::edge_boxes::EdgeBoxes;
use weft::net::{Net, Parameters, Purpose, Session, Spec};
use weft::ops::cases;
use weft::recipe::Recipe;
use weft::settings::Document;
use weft::train::Config;
use weft::{Error, Result};

/// The values that each number is replaced with.
const INSTEAD: [&str; 12] = [
    "nan",
    "inf",
    "-inf",
    "-1",
    "0",
    "1e30",
    "-1e30",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "'text'",
    "true",
];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A number in a file: the innermost key that contains it, and its position in the text.
struct Place {
    key: String,
    span: std::ops::Range<usize>,
}

fn places(text: &str) -> Vec<Place> {
    fn walk(key: &str, value: &Spanned<DeValue<'_>>, places: &mut Vec<Place>) {
        match value.get_ref() {
            DeValue::Integer(_) | DeValue::Float(_) => places.push(Place { key: key.to_string(), span: value.span() }),
            DeValue::Array(list) => list.iter().for_each(|entry| walk(key, entry, places)),
            DeValue::Table(table) => table.iter().for_each(|(key, value)| walk(key.get_ref(), value, places)),
            _ => {}
        }
    }
    let mut places = Vec::new();
    DeTable::parse(text).unwrap().get_ref().iter().for_each(|(key, value)| walk(key.get_ref(), value, &mut places));
    places
}

/// Reads `text` with each of its numbers replaced, by `read` and under the name `file`. `is_of_shapes` decides whether an error
/// is one of shapes, which the numbers of a net determine together; all other errors must name the value. Returns how many files
/// were read.
fn replace_each(
    text: &str,
    file: &str,
    mut read: impl FnMut(&str) -> Result<()>,
    is_of_shapes: impl Fn(&str) -> bool,
) -> usize {
    read(text).unwrap_or_else(|e| panic!("{file}: {e}"));
    let mut accepted = 0;
    for Place { key, span } in places(text) {
        let line = 1 + text[..span.start].matches('\n').count();
        for instead in INSTEAD {
            let changed = format!("{}{instead}{}", &text[..span.start], &text[span.end..]);
            let Err(error) = read(&changed) else {
                accepted += 1;
                assert!(
                    ["-1", "0"].contains(&instead) || large_is_fine(&key, instead),
                    "{file}:{line}: {key} = {instead}"
                );
                continue;
            };
            let error = error.to_string();
            assert!(!error.contains('\n'), "{error}");
            if !is_of_shapes(&error) {
                let named = error.contains(&format!("{file}:{line}: ")) && error.contains(&key);
                assert!(named, "{file}:{line}: {key} = {instead}: {error}");
            }
        }
    }
    accepted
}

/// Values that are only a name or a count may be arbitrarily large; a tag may be a string.
fn large_is_fine(key: &str, instead: &str) -> bool {
    key == "seed" && ["4294967296", "9223372036854775807"].contains(&instead)
        || key == "channel" && instead == "'text'"
        || key == "decimals"
}

fn value_errors(_: &str) -> bool {
    false
}

/// The error is about the shapes of the net or of its weights, and names the layer.
fn shapes(error: &str) -> bool {
    ["layer ", "tensor "].iter().any(|place| error.contains(place)) && !error.contains("out of range")
}

fn tomls(folder: &str) -> Vec<(String, String)> {
    let mut files: Vec<PathBuf> = fs::read_dir(root(folder)).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "toml"));
    files.sort();
    assert!(!files.is_empty());
    files.into_iter().map(|path| (path.display().to_string(), fs::read_to_string(&path).unwrap())).collect()
}

/// The net runs on an input with all kinds of values, and the output is finite.
fn run(net: Net) {
    let net = Arc::new(net);
    let parameters = Parameters::on(&Device::Cpu, &net, net.initial_parameters(1)).unwrap();
    let mut session = Session::new(net, &parameters, 1, Purpose::Inference).unwrap();
    session.input().iter_mut().enumerate().for_each(|(i, x)| *x = (i % 255) as f32 / 127.0 - 1.0);
    assert!(session.infer().unwrap().iter().all(|y| y.is_finite()));
}

#[test]
fn numbers_of_nets() {
    const ALL: &str = "name = 'n'\ninput = [3, 14, 14]\n[[layer]]\nname = 'c'\ntype = 'conv'\nfilters = 6\nkernel = [3, 3]\n\
        stride = [1, 1]\npad = [1, 1]\ngroups = 3\n[[layer]]\nname = 'n'\ntype = 'lrn'\nsize = 3\nalpha = 0.1\nbeta = 0.5\nk = 2\n\
        [[layer]]\nname = 'd'\ntype = 'dropout'\nrate = 0.5\n[[layer]]\nname = 'm'\ntype = 'max_pool'\nkernel = 3\nstride = 1\n\
        pad = 1\n[[layer]]\nname = 'l'\ntype = 'local_conv'\nfilters = 4\nkernel = [3, 3]\ngrid = [2, 2]\nspan = [1, 1]\n\
        window = 'halo'\n[[layer]]\nname = 'a'\ntype = 'avg_pool'\nkernel = 2\n[[layer]]\nname = 'f'\ntype = 'linear'\n\
        outputs = 5\n[[layer]]\nname = 'g'\ntype = 'global_pool'\nmode = 'lse'\nsharpness = 4.0\n";
    let mut files = tomls("nets");
    files.push(("all.toml".into(), ALL.into()));
    files.push(("lse.toml".into(), include_str!("../weights/lnet_o.toml").into()));
    // Every layer type.
    let quick = cases::all().filter(|case| case.quick).map(|case| (format!("{}.toml", case.name), case.toml()));
    files.extend(quick.filter(|(_, text)| {
        let net = Net::new(Spec::parse(text, "case").unwrap()).unwrap();
        net.layers.iter().all(|layer| layer.op.target().is_none())
    }));
    for (file, text) in files {
        let read = |text: &str| {
            run(Net::new(Spec::parse(text, &file)?)?);
            Ok(())
        };
        let accepted = replace_each(&text, &file, read, shapes);
        assert!(accepted < 60, "{file}: {accepted}");
    }
    for (kind, keys) in [("softmax_cross_entropy", "weight = 2.0"), ("similarity", "weight = 0.5")] {
        let text = format!("name = 'n'\ninput = [3, 4, 4]\n[[layer]]\nname = 'l'\ntype = '{kind}'\n{keys}\n");
        replace_each(&text, "loss.toml", |text| Net::new(Spec::parse(text, "loss.toml")?).map(drop), value_errors);
    }
}

/// What a net cannot be, although each number is within its range.
#[test]
fn nets_that_are_too_large_are_refused() {
    for (layer, expected) in [
        ("type = 'conv'\nfilters = 1048576\nkernel = 65536\npad = 65536", "too large"),
        ("type = 'conv'\nfilters = 1048576\nkernel = 1", "too large"),
        ("type = 'linear'\noutputs = 1048576", "too large"),
        ("type = 'local_conv'\nfilters = 1\nkernel = 1\ngrid = 65536\nwindow = 'valid'", "is too large"),
        ("type = 'conv'\nfilters = 1\nkernel = 3\npad = 65536", "too large"),
        ("type = 'lrn'\nk = 0.0\nbeta = 3.0", "net.toml:6: layer l: k: 0.0 is too small for beta 3.0"),
        ("type = 'conv'\nfilters = 4\nkernel = 1\ngroups = 2", "net.toml:8: layer l: groups: 2 groups do not divide"),
        ("type = 'max_pool'\nkernel = 3\npad = 2", "net.toml:7: layer l: pad: pad 2 is more than half"),
        ("type = 'relu'\nfrom = []", "net.toml:6: layer l: from: is empty"),
        ("type = 'relu'\nfrom = [1]", "net.toml:6: layer 1: from: is integer; write a name"),
        ("type = 3", "net.toml:5: layer 1: type: invalid type: integer `3`"),
        ("type = 'relu'\nkernel = 3", "net.toml:6: layer l: unknown field `kernel`"),
        ("type = 'conv'\nfilters = 4\nkernel = [1, 2, 3]", "net.toml:7: layer l: kernel: is a list of 3"),
    ] {
        let text = format!("name = 'n'\ninput = [1, 65536, 65536]\n[[layer]]\nname = 'l'\n{layer}\n");
        let error = Spec::parse(&text, "net.toml").and_then(Net::new).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let many: String = (0..10_000).map(|i| format!("[[layer]]\nname = 'l{i}'\ntype = 'relu'\n")).collect();
    let error = Spec::parse(&format!("name = 'n'\ninput = [1, 1, 1]\n{many}"), "net.toml").unwrap_err().to_string();
    assert_eq!(error, "net.toml: has 10000 layers; give at most 2048");
}

#[test]
fn numbers_of_training_files() {
    const SCENE: &str = "stage = 'finetune-lnet'\nnet = 'n'\noutput = 'o'\nseed = 1\nbatch = 4\nepochs = 2\n\
        dropout = [0.5, 0.1]\nsimilarity = 0.1\nper_identity = 2\nsharpness = 4.0\nvalidate_every = 1\ncheckpoint_every = 7\n\
        [data]\nroot = 'd'\nattributes = 5\nlimit = 100\n[view]\nkind = 'scene'\nbackgrounds = 'b'\nface_share = 0.1\n\
        empty_share = 0.1\nother_size_share = 0.1\ngrey_share = 0.1\nphoto_scale = [0.5, 1.0]\nface_scale = [0.25, 0.5]\n\
        [optimizer]\nmomentum = 0.9\nweight_decay = 5e-4\nclip_norm = 2.0\nrate_factors = { c1 = 0.5 }\n\
        [schedule]\nkind = 'step'\nrate = 0.1\nfactor = 0.5\nevery = 2.0\n";
    const FRAME: &str = "stage = 'pretrain-identities'\nnet = 'n'\noutput = 'o'\nbatch = 4\nepochs = 2\nper_identity = 2\n\
        [data]\nroot = 'd'\n[view]\nkind = 'frame'\nsize = [9, 9]\nscale = 0.1\nshift = 0.1\n\
        [schedule]\nkind = 'cosine'\nrate = 0.1\nlast = 0.01\nwarmup = 0.1\n";
    let mut files = tomls("weights/recipes");
    files.retain(|(path, text)| !weft::recipe::is_recipe(path) && text.contains("stage ="));
    assert!(files.len() >= 6, "{}", files.len());
    files.push(("scene".into(), SCENE.into()));
    files.push(("frame".into(), FRAME.into()));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("train.toml");
    let file = path.display().to_string();
    for (name, text) in files {
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            let config = Config::load(&path, &[])?;
            for t in [0.0, 0.1, 0.5, 0.999, 1.0] {
                let rate = config.schedule.rate(t, config.epochs as f64);
                assert!(rate.is_finite() && rate >= 0.0, "{name}: {rate}");
            }
            Ok(())
        };
        replace_each(&text, &file, read, value_errors);
        // The same from the command line.
        fs::write(&path, &text).unwrap();
        for key in ["batch", "epochs", "schedule.rate", "data.limit", "optimizer.momentum", "validate_every"] {
            for instead in ["nan", "-1", "1e30", "'text'", "4294967296", "9223372036854775808"] {
                let error = Config::load(&path, &[format!("{key}={instead}")]).unwrap_err().to_string();
                assert!(error.starts_with(&format!("--set {key}: ")), "{error}");
            }
        }
    }
    let text = FRAME.replace("per_identity = 2", "per_identity = 3");
    fs::write(&path, text).unwrap();
    let error = Config::load(&path, &[]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{file}:6: per_identity: 3 does not divide the batch of 4")), "{error}");
    fs::write(&path, SCENE.replace("[0.5, 1.0]", "[1.5, 1.0]")).unwrap();
    let error = Config::load(&path, &[]).unwrap_err().to_string();
    assert!(error.starts_with(&format!("{file}:24: view.photo_scale: is [1.5, 1]")), "{error}");
}

#[test]
fn numbers_of_recipes() {
    const ALL: &str = "output = 'runs'\n[[step]]\nname = 's'\nkind = 'scenes'\nphotos = 'p'\nbackgrounds = 'b'\nfirst = 3\ncount = 5\n\
        seed = 7\n[[step]]\nname = 'b'\nkind = 'bundle'\ntemplate = 'weights/recipes/model.toml'\nfiles = {}\n\
        set = { locate.threshold = 0.5, 'anet.stride' = 7 }\n[[step]]\nname = 'c'\nkind = 'calibrate'\nmodel = '{b}'\ndata = '{s}'\n\
        window = 'inner'\nlimit = 30\nfalse_positives = 0.5\n[[step]]\nname = 'm'\nkind = 'svm'\nmodel = '{c}'\ndata = 'd'\n\
        split = 'val'\nseed = 5\n[[step]]\nname = 't'\nkind = 'train'\nfile = 'weights/recipes/anet-attributes.toml'\n\
        set = { epochs = 2, schedule = { rate = 0.1 }, 'data.limit' = 50 }\n";
    let mut files = tomls("weights/recipes");
    files.retain(|(path, _)| weft::recipe::is_recipe(path));
    assert!(files.len() >= 2, "{}", files.len());
    files.push(("all".into(), ALL.into()));
    // Paths in recipes are relative to the current folder.
    std::env::set_current_dir(root("")).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("recipe.toml");
    let file = path.display().to_string();
    for (_, text) in files {
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            Recipe::load(&path, &[]).map(drop)
        };
        replace_each(&text, &file, read, value_errors);
    }
    fs::write(&path, ALL).unwrap();
    for (change, expected) in [
        ("t.batch=0", "--set t.batch: 0 is out of range"),
        ("t.set.batch=0", "--set t.set.batch: 0 is out of range"),
        ("b.set.anet.stride=nan", "--set b.set.anet.stride: NaN is out of range"),
        ("s.count=-1", "--set s.count: -1 is out of range"),
        ("c.false_positives=inf", "--set c.false_positives: inf is out of range"),
        ("output=3", "--set output: is integer"),
    ] {
        let error = Recipe::load(&path, &[change.to_string()]).err().unwrap().to_string();
        assert!(error.starts_with(expected), "{error}");
    }
    // What a step reports about a value in its training file, and where the step is.
    let training = folder.path().join("train.toml");
    let text = fs::read_to_string("weights/recipes/anet-attributes.toml").unwrap();
    fs::write(&training, text.replace("batch = 64", "batch = 0")).unwrap();
    fs::write(&path, ALL.replace("weights/recipes/anet-attributes.toml", training.to_str().unwrap())).unwrap();
    let error = Recipe::load(&path, &[]).err().unwrap().to_string();
    let expected = format!("{file}:31: step t: {}:8: batch: 0 is out of range; write 1 to 65536", training.display());
    assert_eq!(error, expected);
    // A folder whose name looks like a step.
    fs::write(&path, ALL.replace("'runs'", "'{s}'")).unwrap();
    Recipe::load(&path, &[]).unwrap();
    // Nested folder references cannot be used to consume arbitrary memory.
    let long = ALL
        .replace("'runs'", &format!("'{}'", "r".repeat(10_000)))
        .replace("'{c}'", &format!("'{}'", "{c}".repeat(10)));
    fs::write(&path, long).unwrap();
    let error = Recipe::load(&path, &[]).err().unwrap().to_string();
    assert_eq!(error, format!("{file}:27: step m: model: is longer than 65536 bytes"));
}

/// A copy of the shipped bundle.
struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        for entry in fs::read_dir(root("weights")).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|e| e == "toml" || e == "safetensors") {
                let to = folder.path().join(path.file_name().unwrap());
                fs::copy(&path, &to).unwrap();
            }
        }
        Self(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }
}

/// Every face of a photo, and its attributes: all reported values are finite.
fn predict(folder: &Path, photo: &Photo) -> Result<()> {
    let mut model = Model::load(folder, &Device::Cpu)?;
    let finite = |rect: Rect| [rect.x, rect.y, rect.width, rect.height].iter().all(|x| x.is_finite());
    for face in model.detect(photo, f32::NEG_INFINITY)?.iter().take(2) {
        let boxes = [face.rect, face.core, face.head, model.frame(face)];
        assert!(boxes.into_iter().all(finite) && face.score.is_finite(), "{boxes:?}, {}", face.score);
        assert!(model.scores(photo, face)?.iter().all(|score| score.is_finite()));
    }
    Ok(())
}

fn small_photo() -> Photo {
    let photo = Photo::open(root("tests/photos/eileen-collins.jpg")).unwrap();
    photo.fit_within(96).0
}

#[test]
fn numbers_of_a_bundle() {
    let (folder, photo) = (Folder::new(), small_photo());
    // Fewer levels, because all of them behave alike.
    let shipped = fs::read_to_string(root("weights/model.toml")).unwrap();
    let text = shipped
        .replace("[64, 119, 211, 375, 600]", "[113, 160]")
        .replace("[101, 127, 160, 202, 254, 320]", "[101, 160]")
        .replace("peaks = 8", "peaks = 1")
        .replace("peaks = 3", "peaks = 1")
        .replace("\"Face\"", "40");
    let path = folder.file("model.toml");
    let file = path.display().to_string();
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        predict(folder.0.path(), &photo)
    };
    replace_each(&text, &file, read, |error| error.contains("has no channel"));
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        Bundle::load(&path).map(drop)
    };
    replace_each(&shipped, &file, read, value_errors);
    for (from, to, expected) in [
        ("frame = [109, 89]", "frame = [87, 89]", "46: anet.frame: [87, 89] is smaller than the input 3x88x88"),
        ("frame = [109, 89]\nstride = 7", "frame = [1024, 1024]\nstride = 1", "47: anet.stride: 1 gives 937 x 937"),
        ("sides = [64, ", "sides = [119, ", "15: locate.lnet_o.sides: is [119, 119"),
        ("[101, 127, 160, 202, 254, 320]", "[]", "29: locate.lnet_s.sides: is []"),
        ("[101, 127, 160, 202, 254, 320]", "[2046, 2047, 2048]", "29: locate.lnet_s.sides: 12570629 pixels"),
        ("\"Face\"", "[1]", "26: locate.lnet_o.response.channel: is array; write"),
        ("\"Face\"", "-1", "26: locate.lnet_o.response.channel: -1 is out of range"),
        ("head = 4.0", "haed = 4.0", "7: locate: unknown field `haed`"),
    ] {
        assert!(shipped.contains(from), "{from}");
        fs::write(&path, shipped.replacen(from, to, 1)).unwrap();
        let error = predict(folder.0.path(), &photo).unwrap_err().to_string();
        assert!(error.starts_with(&format!("{file}:{expected}")), "{error} instead of {expected}");
    }
    assert_memory_is_bounded();
}

#[test]
fn numbers_of_a_bundles_nets() {
    let (folder, photo) = (Folder::new(), small_photo());
    let model = fs::read_to_string(root("weights/model.toml")).unwrap();
    let model = model.replace("[64, 119, 211, 375, 600]", "[113]").replace("[101, 127, 160, 202, 254, 320]", "[101]");
    fs::write(folder.file("model.toml"), model.replace("peaks = 8", "peaks = 1")).unwrap();
    for name in ["anet.toml", "lnet_o.toml", "lnet_s.toml"] {
        let text = fs::read_to_string(root("weights").join(name)).unwrap();
        let path = folder.file(name);
        let read = |text: &str| {
            fs::write(&path, text).unwrap();
            predict(folder.0.path(), &photo)
        };
        replace_each(&text, &path.display().to_string(), read, |error| {
            shapes(error) || error.contains("not finite") || error.contains("is no RGB photo")
        });
        fs::write(&path, text).unwrap();
    }
    assert_memory_is_bounded();
}

/// Weights that are NaN, whose result would look like a photo without a face.
#[test]
fn a_net_that_answers_nan_is_an_error() {
    let (folder, photo) = (Folder::new(), small_photo());
    for name in ["lnet_o", "lnet_s", "anet"] {
        let net = Net::load(root(&format!("weights/{name}.toml"))).unwrap();
        let path = folder.file(&format!("{name}.safetensors"));
        let broken = vec![f32::NAN; net.parameter_len()];
        let tags = weft::weights::TensorFile::open(root(&format!("weights/{name}.safetensors"))).unwrap();
        let metadata: Vec<(String, String)> = tags.metadata().clone().into_iter().collect();
        net.save_parameters(&path, &broken, weft::weights::Dtype::F32, &metadata).unwrap();
        let error = predict(folder.0.path(), &photo).unwrap_err().to_string();
        assert!(error.contains(&format!("{name}.safetensors")) && error.contains("not finite"), "{error}");
        fs::copy(root(&format!("weights/{name}.safetensors")), &path).unwrap();
    }
}

#[test]
fn numbers_of_edge_boxes() {
    const ALL: &str = "count = 50\nalpha = 0.65\nbeta = 0.75\neta = 1.0\ngamma = 2.0\nkappa = 1.5\nfloor = 0.002\nrefined = 100\n\
        size = [0.1, 1.0]\naspect = [0.5, 2.0]\nside = 64\n\
        [edges]\nsmoothing = 1\nsurroundings = 4\nsoftness = 0.1\nsaturation = 1.0\n";
    let photo = small_photo();
    let read = |text: &str| {
        let document = Document::parse("edges.toml", text.to_string())?;
        let config: EdgeBoxes = document.read()?;
        config.check().map_err(|mistake| document.mistake(&mistake))?;
        for (rect, score) in config.windows(&photo)? {
            assert!([rect.x, rect.y, rect.width, rect.height, score].iter().all(|x| x.is_finite()));
        }
        Ok::<(), Error>(())
    };
    replace_each(ALL, "edges.toml", read, value_errors);
}

/// The peak memory of this process.
fn assert_memory_is_bounded() {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    if let Some(kib) = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok()) {
        assert!(kib < 2 << 20, "{kib} KiB");
    }
}

/// Structs that are read from a TOML file, by the names of their source files, and numbers in them without a range.
#[test]
fn every_number_has_a_range() {
    /// Read from files that Weft writes (JSON), or validated as a whole.
    const OTHERS: [&str; 10] = [
        "data/answers.rs",
        "device/tuned.rs",
        "net/sgd/scale.rs",
        "recipe/record.rs",
        "train/run.rs",
        "train/checkpoint.rs",
        "metrics.rs",
        "svm.rs",
        "edge_boxes/",
        "settings.rs",
    ];
    fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, found);
            } else if path.extension().is_some_and(|e| e == "rs") {
                found.push(path);
            }
        }
    }
    let mut files = Vec::new();
    sources(&root("src"), &mut files);
    files.retain(|path| !OTHERS.iter().any(|other| path.to_str().unwrap().contains(other)));
    let is_number = |line: &str| {
        let Some((name, kind)) = line.trim_end_matches(',').split_once(": ") else { return false };
        let named = name.trim_start_matches("pub ").chars().all(|c| c.is_alphanumeric() || c == '_');
        let mut words = kind.split(|c: char| !c.is_alphanumeric());
        named && words.any(|word| ["usize", "u64", "u32", "i64", "f32", "f64", "Pair"].contains(&word))
    };
    let (mut without, mut with) = (Vec::new(), 0);
    for path in files {
        let (mut reading, mut attributes) = (false, String::new());
        for (number, line) in fs::read_to_string(&path).unwrap().lines().enumerate() {
            if line.starts_with("#[derive(") {
                reading = line.contains("Deserialize");
            } else if line == "}" {
                reading = false;
            }
            let line = line.trim();
            if !reading {
                continue;
            }
            if line.starts_with("#[") {
                attributes += line;
            } else if !line.starts_with("///") {
                if is_number(line) && !attributes.contains("within::<") && !attributes.contains("skip") {
                    without.push(format!("{}:{}: {line}", path.display(), number + 1));
                }
                with += usize::from(is_number(line));
                attributes.clear();
            }
        }
    }
    assert!(without.is_empty(), "{without:#?}");
    assert!(with > 60, "{with}");
}

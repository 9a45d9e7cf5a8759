//! Fuzz targets: Weft's readers and some of the code that uses their results, and the invariants of everything they accept.

use super::seeds;
use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use weft::data::boxes;
use weft::data::celeba::{CelebA, write_annotations};
use weft::data::photo::{MAX_PIXELS, MAX_SIDE, Photo, Rect};
use weft::data::{Problems, check, table};
use weft::device::{Device, Emulator, EmulatorOptions, Gpu, Precision, Tuned};
use weft::eval::photos::{self, Detections, Photos};
use weft::face::{BUNDLE, Bundle, FaceWindow, Model};
use weft::interweave;
use weft::net::{Net, Parameters, Plan, PlanTable, Purpose, Session, Spec, Unknown};
use weft::provenance::Provenance;
use weft::recipe::{Recipe, Record, is_recipe};
use weft::svm::{self, Svm};
use weft::train::{self, Config};
use weft::weights::{self, Dtype, TAGS, TensorFile};
use weft::{Error, Result};

/// The result for an input that is not accepted.
pub enum End {
    /// Rejected with an error, as it should be.
    Refused(String),
    /// An invariant is violated.
    Broken(String),
}

pub type Outcome = Result<(), End>;

impl From<Error> for End {
    fn from(error: Error) -> Self {
        Self::Refused(error.to_string())
    }
}

fn broken<T>(what: impl std::fmt::Display) -> Result<T, End> {
    Err(End::Broken(what.to_string()))
}

/// The fault of an error that spans several lines.
pub const CONTROL: &str = "an error with a control character";

/// What is wrong with an error's text, if anything: it must be one line that names one of `places`.
pub fn fault_of(message: &str, places: &[&str]) -> Option<String> {
    if message.trim().is_empty() {
        return Some("an error without a text".into());
    }
    if message.contains(char::is_control) {
        return Some(format!("{CONTROL}: {}", message.escape_debug()));
    }
    // A path named by the input is also a valid place.
    let place = places.is_empty() || message.starts_with('/') || places.iter().any(|place| message.contains(place));
    if !place {
        return Some(format!("an error without its place: {message}"));
    }
    None
}

/// The same check for errors that are not fatal.
fn said(error: &impl std::fmt::Display, places: &[&str]) -> Outcome {
    match fault_of(&error.to_string(), places) {
        Some(fault) => broken(fault),
        None => Ok(()),
    }
}

fn finite(rect: &Rect) -> bool {
    [rect.x, rect.y, rect.width, rect.height].iter().all(|x| x.is_finite())
}

/// The environment that the readers need for their input.
pub struct Bench {
    folder: PathBuf,
    net: Net,
    photo: Photo,
    photos: Photos,
    last: HashSet<PathBuf>,
    /// A hash of the input: occasional checks are always made for the same inputs.
    dice: u64,
    /// Whether to skip no checks.
    thorough: bool,
}

impl Bench {
    /// Creates the files that inputs refer to in `folder`, which becomes the current folder of this process.
    pub fn new(folder: &Path, thorough: bool) -> Result<Self> {
        let put = |name: &str, content: &[u8]| {
            let path = folder.join(name);
            let parent = path.parent().unwrap_or(folder);
            fs::create_dir_all(parent).and_then(|()| fs::write(&path, content)).map_err(|e| Error::file(&path, e))
        };
        std::env::set_current_dir(folder).map_err(|e| Error::file(folder, e))?;
        for (path, text) in seeds::TRAININGS {
            put(path, text.as_bytes())?;
        }
        put("training-of-recipe.toml", seeds::TRAINING.as_bytes())?;
        put("recipe-whole.toml", seeds::RECIPE.as_bytes())?;
        put("mini.toml", seeds::NET.as_bytes())?;
        let tags = [(TAGS.to_string(), "Face,Hat".to_string())];
        for (name, text) in [("mini", seeds::NET), ("model/lnet", seeds::LNET), ("model/anet", seeds::ANET)] {
            put(&format!("{name}.toml"), text.as_bytes())?;
            let net = seeds::net_of(text);
            let path = folder.join(format!("{name}.safetensors"));
            net.save_parameters(path, &net.initial_parameters(3), Dtype::F32, &tags)?;
        }
        // For command lines, and under the names used by the shipped model.
        for (name, copy) in [("lnet", "lnet"), ("anet", "anet"), ("lnet", "model/lnet_o"), ("lnet", "model/lnet_s")] {
            for end in ["toml", "safetensors"] {
                let from = folder.join(format!("model/{name}.{end}"));
                fs::copy(&from, folder.join(format!("{copy}.{end}"))).map_err(|e| Error::file(from, e))?;
            }
        }
        put("model/svm.safetensors", &seeds::svm()[0])?;
        let losses = ["softmax_cross_entropy", "sigmoid_cross_entropy"].map(|loss| seeds::RUN.replace("LOSS", loss));
        for (number, loss) in losses.iter().enumerate() {
            put(&format!("run{number}.toml"), loss.as_bytes())?;
        }
        let net = seeds::net_of(&losses[0]);
        net.save_parameters(folder.join("run.safetensors"), &net.initial_parameters(4), Dtype::F32, &[])?;
        for name in ["img_celeba", "img_align_celeba", "img_align_celeba/img_align_celeba", "Img/img_celeba"] {
            for photo in 1..=3 {
                put(&format!("celeba/{name}/00000{photo}.jpg"), b"")?;
            }
        }
        for name in ["a.jpg", "b.jpg", "sub/b.jpg", "a, \"b\".jpg"] {
            put(&format!("images/{name}"), b"")?;
        }
        put("known.csv", b"a.jpg,1,2,3,4\nb.jpg,1,2,3,4\nsub/b.jpg,5,6,7,8\n")?;
        Ok(Self {
            net: seeds::net_of(seeds::NET),
            photo: Photo::from_fn(40, 36, |x, y| [(x * 6) as u8, (y * 7) as u8, (x * y) as u8]),
            photos: photos::open(&folder.join("known.csv"), None, &mut Problems::new(false))?,
            last: HashSet::new(),
            dice: 0,
            thorough,
            folder: folder.to_path_buf(),
        })
    }

    /// Prepares for an input.
    pub fn next(&mut self, input: &[u8]) {
        // FNV-1a, whose upper bits are of better quality.
        let hash =
            input.iter().fold(0xCBF2_9CE4_8422_2325, |h: u64, b| (h ^ u64::from(*b)).wrapping_mul(0x100_0000_01B3));
        self.dice = hash >> 20;
    }

    /// Which of `n` alternatives an input uses.
    fn way(&self, n: u64) -> usize {
        (self.dice % n) as usize
    }

    /// Whether to make an expensive check: for one in `n` inputs, and for all that are run again.
    fn one_in(&self, n: u64) -> bool {
        self.thorough || (self.dice >> 8).is_multiple_of(n)
    }

    fn put(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.folder.join(name);
        fs::write(&path, content).map_err(|e| Error::file(&path, e))?;
        Ok(path)
    }
}

/// Arbitrary tensors: all values, the summary, conversion to another type, the parameters of a net.
pub fn weights(bench: &mut Bench, input: &[u8]) -> Outcome {
    const PLACES: [&str; 2] = ["weights.safetensors", "converted.safetensors"];
    let path = bench.put("weights.safetensors", input)?;
    let file = TensorFile::open(&path)?;
    for tensor in file.tensors() {
        match tensor.to_f32() {
            Ok(values) if values.len() != tensor.count() => return broken("a tensor has not its shape's values"),
            Ok(_) => {}
            Err(error) => said(&error, &PLACES)?,
        }
        if file.require(tensor.name)?.shape != tensor.shape {
            return broken("a tensor is not found by its name");
        }
    }
    let summary = weights::summary(&path)?;
    if summary.to_string().lines().count() != 2 + summary.tensors.len() + summary.metadata.len() {
        return broken("the summary has not a line per tensor");
    }
    if let Err(error) = serde_json::to_string(&summary) {
        return broken(error);
    }
    if bench.one_in(4) {
        let dtype = [Dtype::F32, Dtype::F16, Dtype::BF16][bench.way(3)];
        let to = bench.folder.join("converted.safetensors");
        match weights::convert(&path, &to, dtype) {
            Err(error) => said(&error, &PLACES)?,
            Ok(()) => {
                let copy = TensorFile::open(&to)?;
                let same =
                    |(a, b): (weights::Tensor<'_>, weights::Tensor<'_>)| (a.name, &a.shape) == (b.name, &b.shape);
                if copy.tensors().len() != file.tensors().len() || !file.tensors().zip(copy.tensors()).all(same) {
                    return broken("a converted file has other tensors");
                }
                if copy.metadata() != file.metadata() {
                    return broken("a converted file has other metadata");
                }
            }
        }
    }
    let unknown = [Unknown::Refuse, Unknown::Ignore][bench.way(2)];
    let parameters = bench.net.load_parameters(&path, unknown)?.values;
    if parameters.len() != bench.net.parameter_len() {
        return broken("a parameter is missing");
    }
    Ok(())
}

/// Linear SVMs: scores, and a round trip.
pub fn svm(bench: &mut Bench, input: &[u8]) -> Outcome {
    let path = bench.put("svm.safetensors", input)?;
    let svm = Svm::load(&path)?;
    let dims = svm.dims();
    let scores = svm.scores(svm::Features { rows: 2, dims, data: &vec![0.0; 2 * dims] })?;
    if scores != svm.bias.repeat(2) {
        return broken("the scores of nothing are not the biases");
    }
    if bench.one_in(4) {
        svm.save(&path)?;
        if Svm::load(&path)? != svm {
            return broken("what was saved is not what is read");
        }
    }
    Ok(())
}

/// A checkpoint, and a round trip.
pub fn checkpoint(bench: &mut Bench, input: &[u8]) -> Outcome {
    let path = bench.put("checkpoint.safetensors", input)?;
    train::provenance_of(&path)?;
    let net = &bench.net;
    let mut values = [vec![0.0; net.parameter_len()], vec![0.0; net.parameter_len()]];
    let run = seeds::provenance();
    let [parameters, momentum] = &mut values;
    let state = train::load_checkpoint(&path, net, &run, parameters, momentum)?;
    if bench.one_in(4) {
        train::save_checkpoint(&path, net, parameters, momentum, &state)?;
        let mut again = [vec![0.0; net.parameter_len()], vec![0.0; net.parameter_len()]];
        let [parameters, momentum] = &mut again;
        let same = train::load_checkpoint(&path, net, &run, parameters, momentum)? == state;
        let bits = |values: &[Vec<f32>; 2]| values.concat().iter().map(|x| x.to_bits()).collect::<Vec<u32>>();
        if !same || bits(&again) != bits(&values) {
            return broken("what was saved is not what is read");
        }
    }
    Ok(())
}

/// `weft run` with the input as its tensor file.
pub fn run(bench: &mut Bench, input: &[u8]) -> Outcome {
    bench.put("input.safetensors", input)?;
    let net = ["run0.toml", "run1.toml"][bench.way(2)];
    let grad = if bench.one_in(2) { &["--grad"][..] } else { &[] };
    let words =
        ["run", net, "--weights", "run.safetensors", "--input", "input.safetensors", "--output", "out.safetensors"];
    let words = words.into_iter().chain(["--device", "cpu"]).chain(grad.iter().copied());
    match weft::cli::command(words) {
        Err(usage) => broken(usage),
        Ok(result) => {
            result?;
            TensorFile::open(bench.folder.join("out.safetensors"))?;
            Ok(())
        }
    }
}

/// A net: a round trip through its own text, plans, and a pass if it is small.
pub fn net(bench: &mut Bench, input: &[u8]) -> Outcome {
    const PLACES: [&str; 1] = ["net.toml"];
    let path = bench.put("net.toml", input)?;
    let spec = Spec::load(&path)?;
    let text = spec.to_toml();
    match Spec::parse(&text, "again") {
        Ok(again) if again.to_toml() == text => {}
        Ok(_) => return broken(format!("its text reads as another net: {text}")),
        Err(error) => return broken(format!("its text is refused: {error}: {text}")),
    }
    let net = Arc::new(Net::new(spec)?);
    for (n, purpose) in [(1, Purpose::Inference), (3, Purpose::Training), (1 << 20, Purpose::Differentiation)] {
        match Plan::new(&net, n, purpose) {
            Ok(plan) => {
                let table = PlanTable { net: &net, plan: &plan }.to_string();
                if table.lines().count() != 3 + net.layers.len() {
                    return broken("the table of the plan has not a line per layer");
                }
            }
            Err(error) => said(&error, &PLACES)?,
        }
    }
    let image = net.spec.input;
    if bench.one_in(4) {
        let larger = net.at_size(image.h + 3, image.w + 7).and_then(|_| net.spec.clone().convolutional()?.up_to("c1"));
        if let Err(error) = larger {
            said(&error, &PLACES)?;
        }
    }
    let small = net.flops() < 500_000 && net.parameter_len() < 20_000 && image.len() < 20_000;
    if small && image.h.max(image.w) < 64 && net.output().len() < 2000 {
        if let Ok(patches) = interweave::patches(&net, image.h + 5, image.w + 2, 2) {
            match interweave::Plan::new(&net, patches, 2) {
                Ok(plan) => drop(plan.outline.table(&net).to_string()),
                Err(error) => said(&error, &PLACES)?,
            }
        }
        let losses = net.layers.iter().any(|layer| layer.op.target().is_some());
        let plan = Plan::new(&net, 1, Purpose::Inference)?;
        if !losses && plan.len < 1 << 18 {
            let parameters = Parameters::on(&Device::Cpu, &net, net.initial_parameters(5))?;
            let mut session = Session::new(net.clone(), &parameters, 1, Purpose::Inference)?;
            session.input().iter_mut().enumerate().for_each(|(i, x)| *x = (i % 7) as f32 * 0.1);
            if let Some(x) = session.infer()?.iter().find(|x| !x.is_finite()) {
                return broken(format!("its output is not finite: {x}"));
            }
        }
    }
    Ok(())
}

/// A training file: its learning rates, and its recorded settings.
pub fn training(bench: &mut Bench, input: &[u8]) -> Outcome {
    let path = bench.put("training.toml", input)?;
    let config = Config::load(&path, &[])?;
    for share in 0..=4 {
        let rate = config.schedule.rate(f64::from(share) / 4.0, config.epochs as f64);
        if !(rate.is_finite() && rate >= 0.0) {
            return broken(format!("the rate is no rate: {rate} after {share} of 4 parts"));
        }
    }
    let mut settings = Provenance::default();
    settings.settings(&config)?;
    if is_recipe(&path) || settings.hash().is_empty() || config.reads().is_empty() {
        return broken("it is taken for a recipe, or for nothing");
    }
    Ok(())
}

pub fn recipe(bench: &mut Bench, input: &[u8]) -> Outcome {
    let path = bench.put("recipe.toml", input)?;
    Recipe::load(&path, &[])?;
    if !is_recipe(&path) {
        return broken("it is a recipe and is not taken for one");
    }
    Ok(())
}

/// A model: the faces in a photo, and everything reported about them.
pub fn bundle(bench: &mut Bench, input: &[u8]) -> Outcome {
    let path = bench.put(&format!("model/{BUNDLE}"), input)?;
    let bundle = Bundle::load(&path)?;
    // The cost of localisation in a photo of this size is determined by the pyramid levels.
    let sides = || bundle.locate.lnet_o.sides.iter().chain(&bundle.locate.lnet_s.sides);
    let large =
        sides().any(|side| *side > 128) || sides().count() > 12 || bundle.anet.frame.iter().any(|side| *side > 128);
    let mut model = Model::load(bench.folder.join("model"), &Device::Cpu)?;
    if large || !bench.one_in(2) {
        return Ok(());
    }
    for face in model.detect(&bench.photo, model.threshold())?.iter().take(2) {
        let windows = [FaceWindow::Face, FaceWindow::Celeba, FaceWindow::Inner, FaceWindow::Head, FaceWindow::Frame];
        let rects = windows.map(|window| window.of(face, &model));
        if !rects.iter().all(finite) || !face.score.is_finite() {
            return broken(format!("a face is not finite: {rects:?} with the score {}", face.score));
        }
        let features = model.features(&bench.photo, face)?;
        let scores = model.scores_of(&features)?;
        if let Some(x) = scores.iter().find(|x| !x.is_finite()) {
            return broken(format!("a score is not finite: {x}"));
        }
    }
    Ok(())
}

pub fn record(bench: &mut Bench, input: &[u8]) -> Outcome {
    bench.put("step.json", input)?;
    match Record::read(&bench.folder) {
        Err(message) => Err(End::Refused(message)),
        Ok(None) => broken("the record is not there"),
        Ok(Some(record)) => {
            record.missing(&bench.folder);
            Ok(())
        }
    }
}

/// What plans of a card look up, and a plan for which every choice is in use.
pub fn tuned(bench: &mut Bench, input: &[u8]) -> Outcome {
    let path = bench.put("tuned.json", input)?;
    let tuned = Tuned::load(&path, &seeds::card())?;
    let gpu = Gpu::new(Arc::new(Emulator::new(EmulatorOptions::default())));
    let gpu = Gpu { precision: Precision::Bf16, tuned: Some(Arc::new(tuned)), ..gpu };
    let net = Net::new(Spec::parse(seeds::TUNED, "net.toml")?)?;
    match Plan::on_gpu(&net, 1, Purpose::Training, &gpu) {
        Ok(plan) if plan.len < 1 << 20 => Ok(()),
        Ok(plan) => broken(format!("a plan of {} values", plan.len)),
        Err(error) => broken(error),
    }
}

/// A command-line change of a training file or of a recipe.
pub fn set(bench: &mut Bench, input: &[u8]) -> Outcome {
    let change = [String::from_utf8_lossy(input).into_owned()];
    if bench.way(2) == 0 {
        let path = bench.put("training.toml", seeds::TRAINING.as_bytes())?;
        Config::load(path, &change)?;
    } else {
        let path = bench.put("recipe.toml", seeds::RECIPE.as_bytes())?;
        Recipe::load(path, &change)?;
    }
    Ok(())
}

/// A command line that reads and computes little.
pub fn command(bench: &mut Bench, input: &[u8]) -> Outcome {
    let text = String::from_utf8_lossy(input);
    let words: Vec<&str> = text.split_whitespace().collect();
    let quick = match words.as_slice() {
        ["plan" | "weights" | "data", rest @ ..] => {
            !rest.iter().any(|word| ["convert", "synth", "scenes"].contains(word))
        }
        ["extract", rest @ ..] => rest.iter().any(|word| word.starts_with("--plan")),
        _ => false,
    };
    // Nothing is written, and all inputs are in this folder.
    let away = |word: &&str| {
        word.starts_with("-o") || word.starts_with("--o") || word.starts_with("--d") || word.contains('/')
    };
    if !quick || words.iter().any(away) {
        return Err(End::Refused("is not tried".into()));
    }
    bench.put("boxes.csv", &seeds::boxes()[0])?;
    match weft::cli::command(words) {
        Err(usage) if usage.to_string().is_empty() => broken("wrong usage without a text"),
        Err(_) => Err(End::Refused("wrong usage".into())),
        Ok(result) => {
            result?;
            Ok(())
        }
    }
}

/// The files of a data set in one input.
pub fn celeba(bench: &mut Bench, input: &[u8]) -> Outcome {
    const NAMES: [&str; 16] = [
        "Anno/list_attr_celeba.txt",
        "Anno/identity_CelebA.txt",
        "Anno/list_bbox_celeba.txt",
        "Eval/list_eval_partition.txt",
        "list_attr_celeba.txt",
        "identity_CelebA.txt",
        "list_bbox_celeba.txt",
        "list_eval_partition.txt",
        "list_attr_celeba.csv",
        "identity_CelebA.csv",
        "list_bbox_celeba.csv",
        "list_eval_partition.csv",
        "list_landmarks_align_celeba.csv",
        "list_landmarks_celeba.csv",
        "Anno/list_attr_celeba.csv",
        "Eval/list_eval_partition.csv",
    ];
    let root = bench.folder.join("celeba");
    for stale in bench.last.drain() {
        fs::remove_file(&stale).map_err(|e| Error::file(stale, e))?;
    }
    let mut content: &[u8] = &[];
    let mut files: Vec<(PathBuf, Vec<u8>)> = Vec::new();
    for line in input.split_inclusive(|b| *b == b'\n') {
        let name =
            line.strip_prefix(seeds::FILE.as_bytes()).map(|name| String::from_utf8_lossy(name).trim().to_string());
        match name.filter(|name| NAMES.contains(&name.as_str())) {
            Some(name) => files.push((root.join(name), Vec::new())),
            None => match files.last_mut() {
                Some((_, content)) => content.extend(line),
                None => content = line,
            },
        }
    }
    if files.is_empty() {
        files.push((root.join("list_attr_celeba.txt"), content.to_vec()));
    }
    for (path, content) in files {
        let parent = path.parent().unwrap_or(&root);
        fs::create_dir_all(parent).and_then(|()| fs::write(&path, content)).map_err(|e| Error::file(&path, e))?;
        bench.last.insert(path);
    }
    let strict = CelebA::open(&root, true);
    let data = CelebA::open(&root, false)?;
    data.problems.iter().try_for_each(|problem| said(problem, &["celeba"]))?;
    match &strict {
        // Problems that are not fatal are still reported.
        Ok(strict) if strict.samples != data.samples || strict.problems != data.problems => {
            return broken("reading strictly gives something else");
        }
        Err(error) if data.problems.is_empty() => return broken(format!("only reading strictly fails: {error}")),
        Err(error) => said(error, &["celeba"])?,
        Ok(_) => {}
    }
    for sample in &data.samples {
        if sample.attributes.len() != data.attribute_names.len() {
            return broken("a sample has not the list's attributes");
        }
        if !sample.bbox.iter().all(|b| finite(b) && b.width > 0.0 && b.height > 0.0) {
            return broken(format!("a box is no box: {:?}", sample.bbox));
        }
    }
    if bench.one_in(8) {
        match check::check(&root, false, None) {
            Ok(report) => report.problems.iter().try_for_each(|problem| said(problem, &["celeba"]))?,
            Err(error) => said(&error, &["celeba"])?,
        }
    }
    if bench.one_in(16) && data.problems.is_empty() {
        let copy = bench.folder.join("copy");
        let images = copy.join("Img/img_celeba");
        let new = fs::create_dir_all(&images);
        new.and_then(|()| data.samples.iter().try_for_each(|s| fs::write(images.join(&s.name), b"")))
            .map_err(|e| Error::file(&images, e))?;
        let again =
            write_annotations(&copy, &data.attribute_names, &data.samples).and_then(|()| CelebA::open(&copy, true));
        fs::remove_dir_all(&copy).map_err(|e| Error::file(&copy, e))?;
        let again = again.map_err(|error| End::Broken(format!("what was written is refused: {error}")))?;
        let known = |data: &CelebA| -> Vec<_> {
            data.samples.iter().map(|s| (s.name.clone(), s.attributes.clone(), s.identity, s.bbox, s.split)).collect()
        };
        if again.attribute_names != data.attribute_names || known(&again) != known(&data) {
            return broken("what was written is not what is read");
        }
    }
    Ok(())
}

/// A box file, and its photos.
pub fn boxes(bench: &mut Bench, input: &[u8]) -> Outcome {
    const PLACES: [&str; 1] = ["boxes.csv"];
    let path = bench.put("boxes.csv", input)?;
    let mut problems = Problems::new(false);
    let rows = boxes::rows(&path, &mut problems)?;
    problems.list.iter().try_for_each(|problem| said(problem, &PLACES))?;
    for row in &rows {
        let is_box = |rect: Rect| finite(&rect) && rect.width > 0.0 && rect.height > 0.0;
        if !row.rect.is_none_or(is_box) || row.score.is_some_and(f32::is_nan) {
            return broken(format!("a box is no box: {row:?}"));
        }
    }
    if boxes::read(&path).is_ok() != problems.list.is_empty() {
        return broken("reading strictly finds other problems");
    }
    let mut problems = Problems::new(false);
    let photos = photos::open(&path, None, &mut problems);
    problems.list.iter().chain(photos.as_ref().err()).try_for_each(|problem| said(problem, &PLACES))?;
    if boxes::read_scored(&path).is_ok() != rows.iter().all(|row| row.detection().is_ok()) && problems.list.is_empty() {
        return broken("scores are there or not");
    }
    let line = |row: &boxes::Row| {
        let found = row.rect.map(|rect| (rect, row.score.unwrap_or(0.0)));
        table::line(boxes::fields(&row.image, found)) + "\n"
    };
    let text: Vec<String> = rows.iter().map(line).collect();
    let path = bench.put("boxes.csv", format!("{}\n{}", boxes::HEADER, text.concat()).as_bytes())?;
    let again = boxes::rows(path, &mut Problems::new(true))
        .map_err(|error| End::Broken(format!("what was written is refused: {error}")))?;
    let names = |rows: &[boxes::Row]| rows.iter().map(|row| row.image.clone()).collect::<Vec<String>>();
    if names(&again) != names(&rows) {
        return broken("what was written is not what is read");
    }
    photos?;
    Ok(())
}

/// Another detector's windows.
pub fn detections(bench: &mut Bench, input: &[u8]) -> Outcome {
    let path = bench.put("detections.csv", input)?;
    let mut problems = Problems::new(false);
    let found = Detections::read(&path, "other".into(), &bench.photos, &mut problems)?;
    problems.list.iter().try_for_each(|problem| said(problem, &["detections.csv"]))?;
    match found.windows.iter().flatten().find(|(rect, score)| !finite(rect) || score.is_nan()) {
        Some(window) => broken(format!("a window is not finite: {window:?}")),
        None => Ok(()),
    }
}

pub fn photo(bench: &mut Bench, input: &[u8]) -> Outcome {
    let (photo, warning) = Photo::decode_lenient(input, "photo")?;
    if let Some(warning) = &warning {
        said(warning, &["photo"])?;
    }
    if bench.one_in(4) {
        match Photo::decode(input, "photo") {
            Ok(same) if warning.is_none() && same == photo => {}
            Err(_) if warning.is_some() => {}
            _ => return broken("strict and lenient reading differ without a warning"),
        }
    }
    let (width, height) = (photo.width as u64, photo.height as u64);
    if photo.rgb.len() as u64 != 3 * width * height {
        return broken(format!("{width} x {height} pixels in {} bytes", photo.rgb.len()));
    }
    if width.min(height) == 0 || width.max(height) > u64::from(MAX_SIDE) || width * height > MAX_PIXELS {
        return broken(format!("too large a photo is taken: {width} x {height} pixels"));
    }
    if bench.one_in(4) && width * height < 1 << 12 {
        photo.resized(5, 4);
    }
    Ok(())
}

/// Planted faults that must be found, to prove that the fuzzer finds faults.
pub fn planted(_: &mut Bench, input: &[u8]) -> Outcome {
    match input {
        b"panic" => panic!("planted"),
        b"hang" => loop {
            std::thread::sleep(std::time::Duration::from_millis(5));
        },
        b"abort" => std::process::abort(),
        b"allocate" => drop(std::hint::black_box(vec![1_u8; 1 << 40])),
        b"overflow" => drop(descend(0)),
        b"lines" => return Err(End::Refused("planted: two\nlines".into())),
        b"nowhere" => return Err(End::Refused("no place".into())),
        b"broken" => return broken("planted"),
        b"caught" => {
            // Like `Photo::decode` does with decoders; distinguished from panics in Weft by the location.
            let caught = std::panic::catch_unwind(|| Vec::<u8>::with_capacity(usize::MAX));
            return if caught.is_err() { Err(End::Refused("planted: caught".into())) } else { Ok(()) };
        }
        b"refused" => return Err(End::Refused("planted: refused".into())),
        _ => {}
    }
    Ok(())
}

#[expect(unconditional_recursion, reason = "a planted fault")]
fn descend(depth: u64) -> [u64; 64] {
    let mut frame = std::hint::black_box([depth; 64]);
    frame[0] += descend(depth + 1)[1];
    frame
}

//! Valid files of every format except images: small ones generated here, and those that ship with Weft.

use super::tensors::file;
use serde_json::json;
use weft::device::tuned::Card;
use weft::net::{LossScale, Net, Spec};
use weft::provenance::Provenance;
use weft::svm::Svm;
use weft::train::{State, save_checkpoint};
use weft::weights::{Dtype, Named, TAGS, write};

/// A net with a convolution, local filters, a pooling layer and a linear layer.
pub const NET: &str = "name = 'mini'
input = [3, 12, 12]
[[layer]]
name = 'c1'
type = 'conv'
filters = 4
kernel = 3
activation = 'relu'
[[layer]]
name = 'p1'
type = 'max_pool'
kernel = 3
stride = 2
[[layer]]
name = 'c2'
type = 'local_conv'
filters = 2
kernel = 2
grid = 2
span = 1
window = 'valid'
[[layer]]
name = 'fc'
type = 'linear'
outputs = 5
";

/// Every other operation.
const MANY: &str = "name = 'many'
input = [2, 9, 10]
[[layer]]
name = 'a'
type = 'conv'
filters = 4
kernel = [3, 2]
stride = [2, 1]
pad = [1, 0]
groups = 2
bias = false
[[layer]]
name = 'n'
type = 'lrn'
size = 3
alpha = 1e-4
beta = 0.75
k = 2.0
[[layer]]
name = 'b'
type = 'avg_pool'
kernel = 2
stride = 1
pad = 1
ceil = true
[[layer]]
name = 'c'
type = 'conv'
from = 'n'
filters = 3
kernel = 2
pad = 1
activation = 'sigmoid'
[[layer]]
name = 'd'
type = 'concat'
from = ['b', 'c']
[[layer]]
name = 'e'
type = 'dropout'
rate = 0.5
[[layer]]
name = 'g'
type = 'global_pool'
mode = 'lse'
sharpness = 4.0
[[layer]]
name = 's'
type = 'softmax'
[[layer]]
name = 'r'
type = 'relu'
from = 'e'
[[layer]]
name = 'h'
type = 'global_pool'
mode = 'max'
";

/// Locally shared filters with a halo, and a loss.
const LOCAL: &str = "name = 'local'
input = [3, 14, 14]
[[layer]]
name = 'c3'
type = 'local_conv'
filters = 3
kernel = 3
grid = 3
span = 1
window = 'halo'
activation = 'relu'
[[layer]]
name = 'fc'
type = 'linear'
outputs = 4
[[layer]]
name = 'sigmoid'
type = 'sigmoid'
[[layer]]
name = 'loss'
type = 'softmax_cross_entropy'
from = 'fc'
";

/// For `weft run`: any image size, and a loss with targets.
pub const RUN: &str = "name = 'run'
input = [2, 6, 6]
[[layer]]
name = 'c1'
type = 'conv'
filters = 3
kernel = 3
activation = 'relu'
[[layer]]
name = 'g'
type = 'global_pool'
mode = 'avg'
[[layer]]
name = 'loss'
type = 'LOSS'
";

/// The LNet of [`BUNDLE`].
pub const LNET: &str = "name = 'lnet'
input = [3, 16, 16]
[[layer]]
name = 'c1'
type = 'conv'
filters = 4
kernel = 3
stride = 2
activation = 'relu'
[[layer]]
name = 'head'
type = 'conv'
filters = 2
kernel = 1
";
pub const ANET: &str = "name = 'anet'
input = [3, 12, 12]
[[layer]]
name = 'c1'
type = 'conv'
filters = 4
kernel = 3
activation = 'relu'
[[layer]]
name = 'fc'
type = 'linear'
outputs = 4
";

/// A model with small nets.
const BUNDLE: &str = "name = 'mini'
svm = 'svm.safetensors'
[locate]
threshold = -9.0
head = 2.0
[locate.boxes]
face = { width = 1.0, height = 1.3, shift = [0.0, 0.0] }
celeba = { width = 1.4, height = 2.0, shift = [0.0, 0.0] }
inner = { width = 1.0, height = 1.0, shift = [0.0, 0.0] }
[locate.lnet_o]
response = { net = 'lnet.toml', weights = 'lnet.safetensors', layer = 'head', channel = 'Face' }
sides = [24, 32]
width = 10.0
shift = [0.0, 0.0]
floor = -9.0
spread = [0.5, 0.4]
peaks = 2
[locate.lnet_s]
response = { net = 'lnet.toml', weights = 'lnet.safetensors', layer = 'head', channel = 1 }
sides = [20, 24]
width = 10.0
shift = [0.1, -0.1]
floor = -9.0
spread = [0.5, 0.4]
peaks = 1
[anet]
net = 'anet.toml'
weights = 'anet.safetensors'
layer = 'fc'
frame = [16, 16]
stride = 4
width = 1.5
shift = [0.0, 0.0]
";

/// Training files that ship with Weft, with the paths at which recipes expect them.
pub const TRAININGS: [(&str, &str); 6] = [
    ("weights/recipes/lnet-objects.toml", include_str!("../../../weights/recipes/lnet-objects.toml")),
    ("weights/recipes/lnet-o-tags.toml", include_str!("../../../weights/recipes/lnet-o-tags.toml")),
    ("weights/recipes/lnet-s-tags.toml", include_str!("../../../weights/recipes/lnet-s-tags.toml")),
    ("weights/recipes/anet-identities.toml", include_str!("../../../weights/recipes/anet-identities.toml")),
    ("weights/recipes/anet-attributes.toml", include_str!("../../../weights/recipes/anet-attributes.toml")),
    ("weights/recipes/anet-attributes-wild.toml", include_str!("../../../weights/recipes/anet-attributes-wild.toml")),
];

pub const TRAINING: &str = "stage = 'finetune-attributes'
net = 'net.toml'
output = 'runs/a'
init = 'w.safetensors'
batch = 8
epochs = 2
dropout = [0.5, 0.25]
similarity = 0.1
per_identity = 2
sharpness = 4.0
[data]
root = 'data'
splits = ['train', 'val']
boxes = 'boxes.csv'
attributes = 5
limit = 100
[view]
kind = 'frame'
size = [16, 16]
scale = 0.1
shift = 0.05
[optimizer]
momentum = 0.9
nesterov = false
weight_decay = 1e-4
clip_norm = 2.0
[schedule]
kind = 'step'
rate = 0.1
factor = 0.5
every = 1
";

pub const RECIPE: &str = "output = 'runs'
[[step]]
name = 'a'
kind = 'train'
file = 'training-of-recipe.toml'
set = { epochs = 2, 'schedule.rate' = 0.03 }
[[step]]
name = 'scenes'
kind = 'scenes'
photos = 'boxes.csv'
backgrounds = 'objects'
first = 3
count = 5
seed = 7
[[step]]
name = 'model'
kind = 'bundle'
template = 'model.toml'
dtype = 'bf16'
set = { locate = { threshold = 0.5 } }
[step.files]
'lnet.toml' = '{a}/net.toml'
'lnet.safetensors' = '{a}/last.safetensors'
[[step]]
name = 'fitted'
kind = 'calibrate'
model = '{model}'
data = '{scenes}/boxes.csv'
window = 'inner'
[[step]]
name = 'heads'
kind = 'locate'
model = '{fitted}'
data = 'celeba'
splits = ['train', 'val']
window = 'head'
[[step]]
name = 'svm'
kind = 'svm'
model = '{fitted}'
data = 'celeba'
split = 'val'
[[step]]
name = 'eval'
kind = 'eval'
model = '{svm}'
data = 'celeba'
";

fn texts(list: &[&str]) -> Vec<Vec<u8>> {
    list.iter().map(|text| text.as_bytes().to_vec()).collect()
}

/// Parses a net that is known to be valid.
pub fn net_of(text: &str) -> Net {
    Net::new(Spec::parse(text, "net.toml").expect("the text of a net")).expect("a net")
}

/// The bytes that `fill` writes to a file.
fn written(fill: impl FnOnce(&std::path::Path)) -> Vec<u8> {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("file");
    fill(&path);
    std::fs::read(path).expect("what was written")
}

pub fn weights() -> Vec<Vec<u8>> {
    let net = net_of(NET);
    let values = net.initial_parameters(1);
    let tags = [(TAGS.to_string(), "Face,Smiling,Male,Young,Hat".to_string())];
    let of = |dtype| written(|path| net.save_parameters(path, &values, dtype, &tags).expect("saved"));
    let kinds = json!({
        "__metadata__": {"format": "pt", "": "\u{1f980}"},
        "a": {"dtype": "F64", "shape": [2, 1], "data_offsets": [0, 16]},
        "b": {"dtype": "I64", "shape": [1], "data_offsets": [16, 24]},
        "c": {"dtype": "I32", "shape": [], "data_offsets": [24, 28]},
        "d": {"dtype": "U8", "shape": [2, 2], "data_offsets": [28, 32]},
        "e": {"dtype": "BOOL", "shape": [4], "data_offsets": [32, 36]},
        "f": {"dtype": "F32", "shape": [0], "data_offsets": [36, 36]},
    });
    let data: Vec<u8> = (0..36).map(|i| i * 7).collect();
    vec![
        of(Dtype::F32),
        of(Dtype::F16),
        of(Dtype::BF16),
        file(kinds.to_string().as_bytes(), &data),
        file(b"{}", b""),
        file(br#"{"x":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}   "#, &[0, 0, 128, 63, 0, 0, 192, 127]),
    ]
}

pub fn svm() -> Vec<Vec<u8>> {
    let svm = |names: &[&str], dims: usize| Svm {
        names: names.iter().map(ToString::to_string).collect(),
        weights: (0..names.len() * dims).map(|i| i as f32 * 0.25 - 1.0).collect(),
        bias: vec![0.5; names.len()],
        c: vec![0.001; names.len()],
    };
    [svm(&["Smiling"], 4), svm(&["Male", "Young", "Wearing_Hat"], 2)]
        .iter()
        .map(|svm| written(|path| svm.save(path).expect("saved")))
        .collect()
}

/// The provenance of the run whose checkpoints are generated here.
pub fn provenance() -> Provenance {
    let mut run = Provenance::default();
    run.set("batch", 8);
    run.set("net", "sha256:00");
    run.set("schedule.rate", 0.1);
    run
}

pub fn checkpoint() -> Vec<Vec<u8>> {
    let net = net_of(NET);
    let values = net.initial_parameters(2);
    let state = |step: usize, best: Option<f64>| State {
        step,
        run: provenance(),
        losses: (1.25, 3),
        best,
        validation: None,
        loss_scale: best.map(|_| LossScale::default()),
    };
    [state(0, None), state(120, Some(0.625))]
        .iter()
        .map(|state| written(|path| save_checkpoint(path, &net, &values, &values, state).expect("saved")))
        .collect()
}

/// Inputs of `weft run`: for its net with a loss over classes, with a loss over values, and with a cotangent.
pub fn run() -> Vec<Vec<u8>> {
    let image = |n: usize, side: usize| (0..n * 2 * side * side).map(|i| (i % 17) as f32 * 0.1).collect::<Vec<f32>>();
    let of = |n: usize, side: usize, more: &[(&str, &[usize], &[f32])]| {
        let image = image(n, side);
        let shape = [n, 2, side, side];
        let mut tensors = vec![Named { name: "input", shape: &shape, dtype: Dtype::F32, data: &image }];
        tensors.extend(more.iter().map(|(name, shape, data)| Named { name, shape, dtype: Dtype::F32, data }));
        written(|path| write(path, &tensors, &[]).expect("written"))
    };
    vec![
        of(2, 6, &[("target", &[2], &[0.0, 2.0])]),
        of(1, 5, &[("target", &[1, 3, 1, 1], &[0.0, 0.5, 1.0]), ("cotangent", &[1], &[2.0])]),
        of(3, 4, &[("target", &[3], &[1.0, 1.0, 1.0])]),
    ]
}

pub fn net() -> Vec<Vec<u8>> {
    texts(&[
        NET,
        MANY,
        LOCAL,
        LNET,
        ANET,
        include_str!("../../../nets/anet.toml"),
        include_str!("../../../nets/anet_deepid2.toml"),
        include_str!("../../../nets/lnet_half.toml"),
        include_str!("../../../nets/lnet_o.toml"),
    ])
}

pub fn training() -> Vec<Vec<u8>> {
    let shipped = TRAININGS.map(|(_, text)| text);
    texts(&[&[TRAINING, TRAINING][..], &shipped].concat())
}

pub fn recipe() -> Vec<Vec<u8>> {
    texts(&[
        RECIPE,
        RECIPE,
        include_str!("../../../weights/recipes/celeba-mini.toml"),
        include_str!("../../../weights/recipes/ablations.toml"),
    ])
}

pub fn bundle() -> Vec<Vec<u8>> {
    texts(&[
        BUNDLE,
        BUNDLE,
        BUNDLE,
        include_str!("../../../weights/model.toml"),
        include_str!("../../../weights/recipes/model.toml"),
    ])
}

pub fn record() -> Vec<Vec<u8>> {
    let record = |names: &[&str]| {
        let run = provenance();
        let files: serde_json::Map<_, _> = names.iter().map(|name| (name.to_string(), "sha256:00".into())).collect();
        json!({
            "version": 1, "hash": run.hash(), "ingredients": run, "files": files, "bytes": 12, "result": "accuracy 90.00 %",
        })
    };
    [record(&["net.toml", "last.safetensors"]), record(&["boxes.csv", "images/0001.jpg"])]
        .iter()
        .map(|record| serde_json::to_vec_pretty(record).expect("JSON"))
        .collect()
}

/// The card of [`tuned`].
pub fn card() -> Card {
    let [name, driver, weft, kernels] = ["card", "CUDA 13.0", "0.1.0", "00"].map(str::to_string);
    Card { name, capability: [9, 0], multiprocessors: 132, driver, weft, kernels }
}

/// With the products of [`TUNED`] in batches of one.
pub fn tuned() -> Vec<Vec<u8>> {
    let record = |kernel: &str, size: [usize; 3], tile: &str, wrong: &[&str]| {
        let wrong: Vec<_> = wrong
            .iter()
            .map(
                |tile| json!({ "cut": { "tile": tile, "splits": 2 }, "found": "its error is 7.0 times the tolerance" }),
            )
            .collect();
        json!({
            "product": { "kernel": kernel, "layer": "", "batch": 1, "size": size, "wide": true },
            "choice": { "tile": tile, "splits": 2 }, "seconds": 1.5e-5,
            "model": { "tile": "128x64", "splits": 1 }, "model_seconds": null, "wrong": wrong,
        })
    };
    let file = |wrong: &[&str]| {
        let records = [
            record("gemm_nn_bf16", [1, 16, 1024], "128x128", wrong),
            record("gemm_tn_bf16", [1024, 16, 1], "128x64", &[]),
        ];
        let file = json!({ "weft_tuned": 1, "cards": [{ "card": card(), "records": records }] });
        serde_json::to_vec_pretty(&file).expect("JSON")
    };
    vec![file(&[]), file(&["256x32", "128x64"])]
}

/// A net whose products are tuned.
pub const TUNED: &str = "name = 'tuned'\ninput = [1024, 1, 1]\n[[layer]]\nname = 'fc'\ntype = 'linear'\noutputs = 16";

pub fn set() -> Vec<Vec<u8>> {
    texts(&[
        "schedule.rate=0.01",
        "view={ kind = 'ten-crop', short = 256 }",
        "data.splits=['train', 'val']",
        "batch=16",
        "output=runs/b",
        "a.epochs=2",
        "a.data.root=/else where",
        "model.set.locate.threshold=1.5",
        "optimizer.momentum=nan",
        "a.b.c.d='x'",
    ])
}

pub fn command() -> Vec<Vec<u8>> {
    texts(&[
        "plan mini.toml --batch 2 --train",
        "plan lnet.toml --size 30x40",
        "extract --net anet.toml --stride 4 --plan 30x34",
        "extract --net mini.toml --stride 1 --layer c1 --plan 20x20",
        "weights show mini.safetensors --json",
        "weights show anet.safetensors",
        "data check celeba --json",
        "data check boxes.csv --json",
    ])
}

/// Prefix of a file name in an input that consists of several files.
pub const FILE: &str = "=== ";

pub fn celeba() -> Vec<Vec<u8>> {
    let of = |files: &[(&str, &str)]| -> String {
        files.iter().map(|(name, content)| format!("{FILE}{name}\n{content}")).collect()
    };
    let official = of(&[
        (
            "Anno/list_attr_celeba.txt",
            "4\nSmiling Male Young\n000001.jpg  1 -1  1\n000002.jpg -1 -1  1\n000003.jpg  1  1 -1\n000004.jpg -1  1 -1\n",
        ),
        ("Anno/identity_CelebA.txt", "000001.jpg 2880\n000002.jpg 2937\n000003.jpg 2880\n000004.jpg 1\n"),
        (
            "Anno/list_bbox_celeba.txt",
            "3\nimage_id x_1 y_1 width height\n000001.jpg    95  71 226 313\n000002.jpg  72 94 221 306\n000003.jpg 1.5 2 3.25 4\n",
        ),
        ("Eval/list_eval_partition.txt", "000001.jpg 0\n000002.jpg 1\n000003.jpg 2\n000004.jpg 0\n"),
    ]);
    let flat = of(&[
        ("list_attr_celeba.txt", "image_id Smiling Bald\n000002.jpg 1 0\n000001.jpg -1 1\n"),
        ("list_eval_partition.txt", "000001.jpg 2\n000002.jpg 2\n"),
    ]);
    let tables = of(&[
        ("list_attr_celeba.csv", "image_id,Smiling,Male\n000001.jpg,1,-1\n000002.jpg,-1,-1\n000003.jpg,1,1\n"),
        ("list_bbox_celeba.csv", "image_id,x_1,y_1,width,height\n000001.jpg,95,71,226,313\n000002.jpg,72,94,221,306\n"),
        ("list_eval_partition.csv", "image_id,partition\n000001.jpg,0\n000002.jpg,1\n000003.jpg,2\n"),
        (
            "list_landmarks_align_celeba.csv",
            "image_id,lefteye_x,lefteye_y,righteye_x,righteye_y,nose_x,nose_y,leftmouth_x,leftmouth_y,rightmouth_x,rightmouth_y\n\
             000001.jpg,69,109,106,113,77,142,73,152,108,154\n",
        ),
    ]);
    [official, flat, tables].map(String::into_bytes).to_vec()
}

pub fn boxes() -> Vec<Vec<u8>> {
    texts(&[
        "image,x,y,width,height\na.jpg,1,2,3,4\nb.jpg,40.2,49.8,65.4,65.4\nb.jpg,5,6,7,8\n",
        "a.jpg,1,2,3,4,0.5\nsub/b.jpg,-1.5,2,30,40,1\n",
        "image,x,y,width,height,score\n\"a, \"\"b\"\".jpg\",1,2,3,4,0.25\na.jpg,0.5,0.5,0.5,0.5,-1e3\n",
    ])
}

pub fn detections() -> Vec<Vec<u8>> {
    texts(&[
        "image,x,y,width,height,score\na.jpg,1,2,3,4,0.5\nb.jpg,1,2,3,4,0.25\nb.jpg,2,2,3,4,-0.25\n",
        "sub/b.jpg,1,2,3,4,0.5\nother/a.jpg,1,2,3,4,12\n",
        "image,x,y,width,height,score,5_o_Clock_Shadow,Smiling\na.jpg,1,2,3,4,0.5,-0.25,1\nb.jpg,,,,,,,\n",
        "{\"image\":\"a.jpg\",\"faces\":[{\"x\":1,\"y\":2,\"width\":3,\"height\":4,\"score\":0.5}]}\n\
         {\"image\":\"b.jpg\",\"face\":null,\"attributes\":{}}\n{\"image\":\"c.jpg\",\"error\":\"no such file\"}\n",
        "[\n  {\n    \"image\": \"sub/b.jpg\",\n    \"faces\": [{\"x\": -1.5, \"y\": 2, \"width\": 30, \"height\": 40}]\n  }\n]\n",
    ])
}

pub fn planted() -> Vec<Vec<u8>> {
    texts(&[
        "panic", "hang", "abort", "allocate", "overflow", "lines", "nowhere", "broken", "caught", "refused", "fine",
    ])
}

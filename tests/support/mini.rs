//! A recipe on synthetic faces with every kind of step, small enough to be done in a second or two.

use super::Folder;
use std::fs;
use weft::data::synth;

/// Writes data, nets, training files and `recipe.toml` to a folder; results go to `runs`.
pub fn write(folder: &Folder) {
    let (sides, faces) = ((56, 72), (0.4, 0.6));
    let config =
        synth::Config { images: 100, identities: 20, width: sides, height: sides, face: faces, ..Default::default() };
    synth::write(&config, &folder.path("faces"), &mut |_| ()).unwrap();
    let photos = folder.path("faces/Img/img_celeba");
    for (number, photo) in fs::read_dir(photos).unwrap().flatten().take(24).enumerate() {
        let class = folder.path(&format!("objects/class{}", number % 3));
        fs::create_dir_all(&class).unwrap();
        fs::copy(photo.path(), class.join(photo.file_name())).unwrap();
    }
    let pasted: String = fs::read_dir(folder.path("objects/class0"))
        .unwrap()
        .flatten()
        .map(|photo| format!("objects/class0/{},10,20,24,30\n", photo.file_name().to_string_lossy()))
        .collect();
    folder.write("pasted.csv", pasted);
    folder.write("lnet.toml", LNET);
    folder.write("anet.toml", ANET);
    folder.write("model.toml", MODEL);
    folder.write("objects.toml", format!("stage = 'pretrain-objects'\nnet = 'lnet.toml'\n{COMMON}{OBJECTS}"));
    folder.write("lnet-train.toml", format!("stage = 'finetune-lnet'\nnet = 'lnet.toml'\n{COMMON}{FACES}"));
    folder.write("anet-train.toml", format!("stage = 'finetune-attributes'\nnet = 'anet.toml'\n{COMMON}{FACES}"));
    folder.write("recipe.toml", RECIPE);
}

const LNET: &str = "
name = 'lnet'
input = [3, 32, 32]
[[layer]]
name = 'c1'
type = 'conv'
filters = 8
kernel = 5
stride = 2
activation = 'relu'
[[layer]]
name = 'c2'
type = 'conv'
filters = 8
kernel = 3
pad = 1
activation = 'relu'
";

const ANET: &str = "
name = 'anet'
input = [3, 32, 32]
[[layer]]
name = 'c1'
type = 'conv'
filters = 8
kernel = 3
stride = 2
activation = 'relu'
[[layer]]
name = 'p1'
type = 'max_pool'
kernel = 3
stride = 2
[[layer]]
name = 'fc'
type = 'linear'
outputs = 16
activation = 'relu'
";

const MODEL: &str = "
name = 'mini'
svm = 'svm.safetensors'
[locate]
threshold = 0.0
head = 2.0
[locate.boxes]
face = { width = 1.0, height = 1.3, shift = [0.0, 0.0] }
celeba = { width = 1.4, height = 2.0, shift = [0.0, 0.0] }
inner = { width = 1.0, height = 1.0, shift = [0.0, 0.0] }
[locate.lnet_o]
response = { net = 'lnet_o.toml', weights = 'lnet_o.safetensors', layer = 'head', channel = 'Face' }
sides = [48]
width = 20.0
shift = [0.0, 0.0]
floor = -9.0
spread = [0.5, 0.4]
peaks = 1
[locate.lnet_s]
response = { net = 'lnet_s.toml', weights = 'lnet_s.safetensors', layer = 'head', channel = 'Face' }
sides = [32, 48]
width = 20.0
shift = [0.0, 0.0]
floor = -9.0
spread = [0.5, 0.4]
peaks = 1
[anet]
net = 'anet.toml'
weights = 'anet.safetensors'
layer = 'fc'
frame = [36, 36]
stride = 4
width = 1.5
shift = [0.0, 0.0]
";

const COMMON: &str = "
output = 'unused'
batch = 8
epochs = 1
checkpoint_every = 2
optimizer = { clip_norm = 5.0 }
schedule = { kind = 'one-cycle', rate = 0.02 }
";
const OBJECTS: &str = "
data = { root = 'objects' }
view = { kind = 'ten-crop', short = 36 }
";
const FACES: &str = "
data = { root = 'faces', validation = 'val' }
view = { kind = 'frame', size = [36, 36], scale = 0.1, shift = 0.1 }
";

const RECIPE: &str = "
output = 'runs'
[[step]]
name = 'objects'
kind = 'train'
file = 'objects.toml'
set = { epochs = 2 }

[[step]]
name = 'lnet-o'
kind = 'train'
file = 'lnet-train.toml'
set = { init = '{objects}/last.safetensors', 'schedule.rate' = 0.03 }

[[step]]
name = 'anet-aligned'
kind = 'train'
file = 'anet-train.toml'

[[step]]
name = 'draft'
kind = 'bundle'
template = 'model.toml'
[step.files]
'lnet_o.toml' = '{lnet-o}/net.toml'
'lnet_o.safetensors' = '{lnet-o}/last.safetensors'
'lnet_s.toml' = '{lnet-o}/net.toml'
'lnet_s.safetensors' = '{lnet-o}/last.safetensors'
'anet.toml' = '{anet-aligned}/net.toml'
'anet.safetensors' = '{anet-aligned}/last.safetensors'

[[step]]
name = 'scenes'
kind = 'scenes'
photos = 'pasted.csv'
backgrounds = 'objects'
first = 3
count = 4

[[step]]
name = 'fitted'
kind = 'calibrate'
model = '{draft}'
data = 'faces'
split = 'train'
window = 'celeba'
backgrounds = 'objects'
false_positives = 2.0

[[step]]
name = 'frames'
kind = 'locate'
model = '{fitted}'
data = 'faces'
splits = ['train', 'val']
window = 'frame'

[[step]]
name = 'anet'
kind = 'train'
file = 'anet-train.toml'
set = { init = '{anet-aligned}/last.safetensors', seed = 2, data.boxes = '{frames}/boxes.csv' }

[[step]]
name = 'final'
kind = 'bundle'
template = '{fitted}/model.toml'
set = { locate.lnet_o.sides = [32, 48] }
[step.files]
'lnet_o.toml' = '{lnet-o}/net.toml'
'lnet_o.safetensors' = '{lnet-o}/last.safetensors'
'lnet_s.toml' = '{lnet-o}/net.toml'
'lnet_s.safetensors' = '{lnet-o}/last.safetensors'
'anet.toml' = '{anet}/net.toml'
'anet.safetensors' = '{anet}/last.safetensors'

[[step]]
name = 'model'
kind = 'svm'
model = '{final}'
data = 'faces'
split = 'val'

[[step]]
name = 'measure'
kind = 'eval'
model = '{model}'
data = 'faces'
split = 'test'
";

"""Makes the golden files in this folder: small cases whose outputs and gradients were computed by PyTorch 2.15.0.

    python tests/golden/make.py            (needs benches/peers/requirements.txt; the tests only read the files)

Each case is a net, <case>.toml, and <case>.safetensors with `input`, `cotangent` or `target` where there is one, the parameters
as `param.<name>`, every layer's output as `expected.<layer>` and the gradients as `expected.grad.input` and
`expected.grad.<parameter>`. Inputs are drawn in float32, everything is computed in float64 and stored as float32.
The similarity loss is not a layer: similarity*.safetensors hold `features`, `identities`, `expected.loss`, `expected.grad`.
"""

import sys
import tomllib
import zlib
from pathlib import Path

import torch
from safetensors.torch import save_file

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent.parent / "benches" / "peers"))

from torch_net import Net, run  # noqa: E402

TORCH = "2.15.0"

# name: (images, net)
CASES = {
    "conv": (
        2,
        """
input = [4, 9, 8]

[[layer]]
name = "wide"                   # groups, stride, pad
type = "conv"
filters = 6
kernel = 3
stride = 2
pad = 1
groups = 2
activation = "relu"

[[layer]]
name = "tall"                   # every number another one per axis
type = "conv"
filters = 5
kernel = [3, 2]
stride = [1, 2]
pad = [0, 1]
bias = false
""",
    ),
    "local_conv_halo": (
        2,
        """
input = [2, 8, 8]

[[layer]]
name = "local"                  # 3 x 3 cells of 2, each with its own filters, and a halo of 2
type = "local_conv"
filters = 3
kernel = 3
grid = 3
span = 1
window = "halo"
""",
    ),
    "local_conv_halo_span": (
        2,
        """
input = [2, 11, 11]

[[layer]]
name = "local"                  # 2 x 2 banks over 3 x 3 cells of 3: the banks' cells overlap; kernel 3, halo 2
type = "local_conv"
filters = 3
kernel = 3
grid = 2
span = 2
window = "halo"
activation = "relu"
""",
    ),
    "local_conv_valid": (
        2,
        """
input = [3, 9, 9]

[[layer]]
name = "local"                  # ANet's C4: 2 x 2 banks, each over 2 x 2 of 3 x 3 cells of 3
type = "local_conv"
filters = 4
kernel = 2
grid = 2
span = 2
window = "valid"
""",
    ),
    "local_conv_unshared": (
        2,
        """
input = [2, 6, 6]

[[layer]]
name = "local"                  # a filter bank per output pixel
type = "local_conv"
filters = 2
kernel = 3
grid = 4
span = 1
window = "halo"
bias = false
""",
    ),
    "lrn": (
        2,
        """
input = [7, 4, 3]

[[layer]]
name = "norm"                   # alpha far larger than in practice, so that it shows
type = "lrn"
size = 5
alpha = 0.7
beta = 0.75
k = 1.5

[[layer]]
name = "even"                   # an even size is not symmetric
type = "lrn"
size = 4
alpha = 0.5
beta = 0.6
k = 2.0
""",
    ),
    "max_pool": (
        2,
        """
input = [3, 9, 10]

[[layer]]
name = "plain"
type = "max_pool"
kernel = 2
from = ["input"]

[[layer]]
name = "overlapping"
type = "max_pool"
kernel = 3
stride = 2
from = ["input"]

[[layer]]
name = "ceil"                   # 9 x 10 -> 5 x 5: the last windows hang over the edge
type = "max_pool"
kernel = [3, 2]
stride = 2
ceil = true
pad = [1, 0]
from = ["input"]

[[layer]]
name = "ceil_dropped"           # along the width the last window would start in the padding: dropped although ceil is set
type = "max_pool"
kernel = 2
stride = 3
pad = 1
ceil = true
from = ["input"]

[[layer]]
name = "ceil_again"             # 5 x 5 -> 4 x 4
type = "max_pool"
kernel = 2
stride = 1
from = ["ceil"]

[[layer]]
name = "plain_and_ceil"         # 4 x 5 -> 4 x 4
type = "max_pool"
kernel = [1, 2]
stride = 1
from = ["plain"]

[[layer]]
name = "joined"                 # every pool has a share in the gradient
type = "concat"
from = ["ceil_again", "plain_and_ceil", "overlapping", "ceil_dropped"]
""",
    ),
    "avg_pool": (
        2,
        """
input = [3, 9, 10]

[[layer]]
name = "padded"                 # padding counts in the mean
type = "avg_pool"
kernel = 3
stride = 2
pad = 1

[[layer]]
name = "ceil"                   # what lies beyond the padding does not count
type = "avg_pool"
kernel = [2, 3]
stride = [3, 2]
pad = [1, 1]
ceil = true
from = ["input"]

[[layer]]
name = "padded_again"           # 5 x 5 -> 4 x 4
type = "avg_pool"
kernel = 2
stride = 1
from = ["padded"]

[[layer]]
name = "ceil_again"             # 4 x 6 -> 4 x 4
type = "avg_pool"
kernel = [1, 3]
stride = 1
from = ["ceil"]

[[layer]]
name = "joined"                 # both pools have a share in the gradient
type = "concat"
from = ["ceil_again", "padded_again"]
""",
    ),
    "global_pool": (
        3,
        """
input = [4, 5, 3]

[[layer]]
name = "max"
type = "global_pool"
mode = "max"

[[layer]]
name = "avg"
type = "global_pool"
mode = "avg"
from = ["input"]

[[layer]]
name = "lse"
type = "global_pool"
mode = "lse"
from = ["input"]

[[layer]]
name = "sharp"
type = "global_pool"
mode = "lse"
sharpness = 9.0
from = ["input"]

[[layer]]
name = "all"
type = "concat"
from = ["max", "avg", "lse", "sharp"]
""",
    ),
    "linear": (
        3,
        """
input = [3, 2, 4]

[[layer]]
name = "hidden"
type = "linear"
outputs = 10
activation = "relu"

[[layer]]
name = "out"
type = "linear"
outputs = 5
bias = false
""",
    ),
    "concat": (
        2,
        """
input = [3, 5, 4]

[[layer]]
name = "left"
type = "conv"
filters = 2
kernel = 1

[[layer]]
name = "right"
type = "conv"
filters = 4
kernel = 3
pad = 1
from = ["input"]

[[layer]]
name = "joined"                 # the input itself and one branch twice
type = "concat"
from = ["right", "input", "left", "right"]

[[layer]]
name = "top"
type = "conv"
filters = 3
kernel = 2
""",
    ),
    "activations": (
        2,
        """
input = [5, 3, 4]

[[layer]]
name = "sigmoid"
type = "sigmoid"

[[layer]]
name = "relu"
type = "relu"
from = ["input"]

[[layer]]
name = "conv_sigmoid"
type = "conv"
filters = 3
kernel = 1
activation = "sigmoid"

[[layer]]
name = "joined"
type = "concat"
from = ["sigmoid", "relu", "conv_sigmoid"]

[[layer]]
name = "dropout"                # off outside training
type = "dropout"
rate = 0.5
""",
    ),
    "softmax": (
        2,
        """
input = [5, 3, 4]

[[layer]]
name = "softmax"                # over the channels
type = "softmax"
""",
    ),
    "softmax_cross_entropy": (
        4,
        """
input = [3, 2, 2]

[[layer]]
name = "logits"
type = "linear"
outputs = 6

[[layer]]
name = "loss"
type = "softmax_cross_entropy"
""",
    ),
    "softmax_cross_entropy_map": (
        2,
        """
input = [4, 3, 5]

[[layer]]
name = "loss"                   # target [N, H, W]: a class per pixel
type = "softmax_cross_entropy"
""",
    ),
    "sigmoid_cross_entropy": (
        4,
        """
input = [3, 2, 2]

[[layer]]
name = "logits"
type = "linear"
outputs = 7

[[layer]]
name = "loss"
type = "sigmoid_cross_entropy"
""",
    ),
}


def drawn(generator, shape, scale=1.0):
    return scale * torch.randn(shape, generator=generator, dtype=torch.float32)


def save(name, tensors):
    tensors = {key: t.detach().float() if t.is_floating_point() else t for key, t in tensors.items()}
    tensors = {key: t.contiguous().clone() for key, t in tensors.items()}
    path = HERE / f"{name}.safetensors"
    # One entry only: their order in the file would not be the same every time.
    save_file(tensors, path, metadata={"torch": TORCH})
    print(f"{path.name}: {len(tensors)} tensors, {path.stat().st_size} bytes")


def net_case(name, images, text):
    text = f'# A golden case made by make.py; the numbers are in {name}.safetensors.\nname = "{name}"\n' + text.lstrip()
    (HERE / f"{name}.toml").write_text(text)
    net = Net(tomllib.loads(text))
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))

    tensors = {"input": drawn(generator, (images, *net.input_shape))}
    for parameter_name, parameter in net.named_weights():
        tensors[f"param.{parameter_name}"] = drawn(generator, parameter.shape, 0.4)
    kind = net.spec["layer"][-1]["type"]
    logits = (images, *net.shapes[net.sources[-1][0]])
    if kind == "softmax_cross_entropy":
        shape = (images, *logits[2:]) if logits[2] * logits[3] > 1 else (images,)
        tensors["target"] = torch.randint(0, logits[1], shape, generator=generator)
        tensors["cotangent"] = torch.tensor([1.5])
    elif kind == "sigmoid_cross_entropy":
        tensors["target"] = torch.randint(0, 2, logits, generator=generator).float()
        # No cotangent: the default is 1.
    else:
        tensors["cotangent"] = drawn(generator, (images, *net.shapes[net.last]))

    net.double().load({n: tensors[f"param.{n}"] for n, _ in net.named_weights()})
    as_double = {key: t.double() if t.is_floating_point() else t for key, t in tensors.items()}
    result = run(net, as_double["input"], as_double.get("target"), as_double.get("cotangent"), grad=True)
    save(name, tensors | {f"expected.{key}": value for key, value in result.items()})


def similarity_loss(features, identities):
    """Section 2.2 of the paper: the mean of ||f_i - f_j||^2 over the pairs i < j of one identity; 0 where there is none."""
    total, pairs = features.sum() * 0, 0
    for i in range(len(features)):
        for j in range(i + 1, len(features)):
            if identities[i] == identities[j]:
                total = total + (features[i] - features[j]).square().sum()
                pairs += 1
    return total / max(pairs, 1)


def similarity_case(name, identities, width):
    generator = torch.Generator().manual_seed(zlib.crc32(name.encode()))
    identities = torch.tensor(identities)
    features = drawn(generator, (len(identities), width))
    leaf = features.double().requires_grad_()
    loss = similarity_loss(leaf, identities)
    loss.backward()
    save(name, {"features": features, "identities": identities, "expected.loss": loss.reshape(1), "expected.grad": leaf.grad})


def main():
    if torch.__version__.split("+")[0] != TORCH:
        sys.exit(f"these files are made with torch {TORCH}, this is {torch.__version__}")
    torch.set_num_threads(1)
    for name, (images, text) in CASES.items():
        net_case(name, images, text)
    similarity_case("similarity", [7, 3, 7, 1000000007, 3, 7, 12, 7], 16)
    similarity_case("similarity_no_pairs", [4, 2, 9], 5)


if __name__ == "__main__":
    main()

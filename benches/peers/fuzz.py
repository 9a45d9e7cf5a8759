"""Random nets through `weft run --grad` and through PyTorch in float64: every output and every gradient must agree.

    python fuzz.py --weft ../../target/release/weft --count 200 --seed 1
    python fuzz.py --count 200                 without --weft: PyTorch float32 stands in, which tests this script

A net is a function of its seed alone: `--seed S --count 1` draws the S-th net again. A tensor agrees if
max |difference| <= 1e-4 * max |reference|, or if both are zero throughout. (A gradient that is zero by cancellation, 1e-13 of
the net's other gradients in float64, only has to be small.)

Gradients jump where a rectifier's input is zero or two values of a pooling window are equal. Draws that come closer to
such a kink than float32 can tell apart are thrown away and drawn again. What is left and still differs while PyTorch's
own float32 differs from its float64 by a third of the bound or more is counted as `ill-conditioned`, and shown, not hidden.
"""

import argparse
import random
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from torch_net import Net, run

BOUND = 1e-4
KINK_MARGIN = 2e-6  # of the largest value of the tensor: about ten roundings of float32
EXACT_TIE = 1e-12  # equal but for float64's rounding: regions of dead units, whose gradient is zero either way
CANCELLED = 1e-13  # of the net's gradients: smaller ones are rounding
MAX_ELEMENTS = 60_000  # per image and layer
MAX_CHANNELS = 14


class Draw:
    """Draws one net. `layers` is the TOML's list, `shapes` what each layer gives."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        r = self.random
        channels = r.choice([1, 1, 2, 3, 3, 4, 6])
        self.input = [channels, r.randint(1, 23), r.randint(1, 23)]
        if r.random() < 0.5:
            self.input[2] = self.input[1]
        self.batch = r.randint(1, 5)
        self.layers, self.shapes = [], {"input": tuple(self.input)}
        self.above = "input"

    def add(self, kind, shape, source, **options):
        name = f"{kind}{len(self.layers)}" if self.random.random() < 0.9 else f"x_{len(self.layers)}-{kind}"
        layer = {"name": name, "type": kind, **options}
        if isinstance(source, list):
            layer["from"] = source
        elif source != self.above or self.random.random() < 0.1:
            layer["from"] = [source]
        self.layers.append(layer)
        self.shapes[name] = shape
        self.above = name

    def axes(self, value):
        """A pair as TOML: one number where both are equal, most of the time."""
        return value[0] if value[0] == value[1] and self.random.random() < 0.8 else list(value)

    def activation(self):
        kind = self.random.choice(["none", "none", "relu", "relu", "sigmoid"])
        return {} if kind == "none" and self.random.random() < 0.8 else {"activation": kind}

    def bias(self):
        return {"bias": False} if self.random.random() < 0.2 else {}

    def source(self):
        """Mostly the layer above; otherwise any, so that some are used twice and some never."""
        if self.random.random() < 0.8:
            return self.above
        return self.random.choice(list(self.shapes))

    def conv(self, source):
        r, (channels, *size) = self.random, self.shapes[source]
        groups = r.choice([g for g in range(1, channels + 1) if channels % g == 0]) if r.random() < 0.4 else 1
        filters = groups * r.randint(1, max(1, MAX_CHANNELS // groups))
        pad = self.pair(lambda axis: r.choice([0, 0, 1, 2, 3]))
        kernel = self.pair(lambda axis: r.randint(1, 5), [s + 2 * p for s, p in zip(size, pad)])
        stride = self.pair(lambda axis: r.choice([1, 1, 1, 2, 3]))
        out = [(s + 2 * p - k) // t + 1 for s, p, k, t in zip(size, pad, kernel, stride)]
        options = {"filters": filters, "kernel": self.axes(kernel)}
        for key, value, default in (("stride", stride, (1, 1)), ("pad", pad, (0, 0))):
            if value != default or r.random() < 0.1:
                options[key] = self.axes(value)
        if groups > 1:
            options["groups"] = groups
        self.add("conv", (filters, *out), source, **options, **self.bias(), **self.activation())

    def pair(self, draw, limit=None):
        """Two numbers, equal in half of the cases, each no larger than its axis' limit."""
        first, second = draw(0), draw(1)
        if self.random.random() < 0.5:
            second = first
        if limit:
            first, second = min(first, limit[0]), min(second, limit[1])
        return (first, second)

    def local_conv(self, source):
        """Draws window, span, grid and cell; where the map has another size, a layer in front makes it fit."""
        r, (channels, *size) = self.random, self.shapes[source]
        window, span = r.choice(["halo", "valid"]), r.randint(1, 3)
        kernel = self.pair(lambda axis: r.randint(1, 4), size)
        if r.random() < 0.2:  # unshared: a bank per output pixel
            kernel = (min(kernel),) * 2
            window, span, cell = "halo", 1, 1
            grid = min(min(size) - kernel[0] + 1, 6)
        else:
            grid = r.randint(1, 4)
            cells = grid + span - 1
            room = [s - (k - 1) if window == "halo" else s for s, k in zip(size, kernel)]
            largest = min(room) // cells
            smallest = 1 if window == "halo" else -(-max(kernel) // span)
            if largest < smallest:
                return
            cell = r.choice([largest, r.randint(smallest, largest)])
        need = [(grid + span - 1) * cell + (k - 1 if window == "halo" else 0) for k in kernel]
        if size != need:
            cut = [s - n + 1 for s, n in zip(size, need)]
            if max(cut) <= 6:
                channels = r.randint(1, 6)
                self.add("conv", (channels, *need), source, filters=channels, kernel=self.axes(cut))
            else:
                stride = [max(1, (s - 1) // max(1, n - 1)) for s, n in zip(size, need)]
                reach = [s - (n - 1) * t for s, n, t in zip(size, need, stride)]
                kind = r.choice(["avg_pool", "max_pool"])
                self.add(kind, (channels, *need), source, kernel=self.axes(reach), stride=self.axes(stride))
            source = self.above
        block = [span * cell - (k - 1 if window == "valid" else 0) for k in kernel]
        filters = r.randint(1, 6)
        options = {"filters": filters, "kernel": self.axes(kernel), "grid": grid, "span": span, "window": window}
        shape = (filters, grid * block[0], grid * block[1])
        self.add("local_conv", shape, source, **options, **self.bias(), **self.activation())

    def pool(self, source):
        r, (channels, *size) = self.random, self.shapes[source]
        kernel = self.pair(lambda axis: r.randint(1, 4), size)
        pad = self.pair(lambda axis: r.choice([0, 0, 1, 2]), [k // 2 for k in kernel])
        stride = self.pair(lambda axis: r.randint(1, 4)) if r.random() < 0.7 else kernel
        ceil = r.random() < 0.4
        out = []
        for s, k, p, t in zip(size, kernel, pad, stride):
            windows = (s + 2 * p - k + (t - 1 if ceil else 0)) // t + 1
            if ceil and (windows - 1) * t >= s + p:  # the last window must start in the map or before it
                windows -= 1
            out.append(windows)
        options = {"kernel": self.axes(kernel)}
        if stride != kernel or r.random() < 0.5:
            options["stride"] = self.axes(stride)
        if pad != (0, 0):
            options["pad"] = self.axes(pad)
        if ceil:
            options["ceil"] = True
        self.add(r.choice(["max_pool", "max_pool", "avg_pool"]), (channels, *out), source, **options)

    def concat(self, source):
        r, size = self.random, self.shapes[source][1:]
        same = [name for name, shape in self.shapes.items() if shape[1:] == size]
        if len(same) < 2:  # grow a branch of the same size
            other = r.choice(list(self.shapes))
            if self.shapes[other][1:] != size:
                other = source
            self.add("conv", (3, *size), other, filters=3, kernel=1, **self.activation())
            same.append(self.above)
        parts = [r.choice(same) for _ in range(r.randint(2, 4))]
        channels = sum(self.shapes[name][0] for name in parts)
        if channels <= 3 * MAX_CHANNELS:
            self.add("concat", (channels, *size), parts)

    def simple(self, source):
        r, shape = self.random, self.shapes[source]
        kind = r.choice(["relu", "sigmoid", "softmax", "dropout", "lrn", "lrn"])
        options = {}
        if kind == "dropout":
            options["rate"] = r.choice([0.25, 0.5])
        if kind == "lrn":
            options = {"size": r.randint(1, 6), "alpha": r.choice([1e-4, 0.1, 1.0]), "beta": r.choice([0.5, 0.75, 1.0])}
            options["k"] = r.choice([1.0, 2.0])
        self.add(kind, shape, source, **options)

    def linear(self, source):
        outputs = self.random.randint(1, 20)
        self.add("linear", (outputs, 1, 1), source, outputs=outputs, **self.bias(), **self.activation())

    def global_pool(self, source):
        r = self.random
        options = {"mode": r.choice(["max", "avg", "lse"])}
        if options["mode"] == "lse" and r.random() < 0.5:
            options["sharpness"] = r.choice([0.5, 2.0, 8.0])
        self.add("global_pool", (self.shapes[source][0], 1, 1), source, **options)

    def net(self):
        r = self.random
        kinds = [self.conv] * 6 + [self.local_conv] * 5 + [self.pool] * 4 + [self.concat] * 3 + [self.simple] * 4
        kinds += [self.linear, self.global_pool]
        for _ in range(r.randint(1, 7)):
            r.choice(kinds)(self.source())
        if not self.layers:
            self.conv("input")
        end = r.random()
        if end < 0.3:
            self.linear(self.above)
        loss = r.random()
        if loss < 0.2:
            self.add("softmax_cross_entropy", (1,), self.above)
        elif loss < 0.4:
            self.add("sigmoid_cross_entropy", (1,), self.above)
        return {"name": "fuzz", "input": self.input, "layer": self.layers}


def as_toml(spec):
    def value(v):
        if isinstance(v, bool):
            return str(v).lower()
        if isinstance(v, str):
            return f'"{v}"'
        if isinstance(v, list):
            return "[" + ", ".join(value(item) for item in v) + "]"
        return repr(v)

    lines = [f'name = {value(spec["name"])}', f'input = {value(spec["input"])}']
    for layer in spec["layer"]:
        lines += ["", "[[layer]]"] + [f"{key} = {value(item)}" for key, item in layer.items()]
    return "\n".join(lines) + "\n"


def tensors_for(net, batch, generator):
    """Weights keep activations near one; inputs are normal. float32, so that both sides start from the same numbers."""
    weights = {}
    for name, parameter in net.named_weights():
        shape = parameter.shape
        if name.endswith(".bias"):
            weights[name] = 0.3 * torch.randn(shape, generator=generator)
        else:
            fan_in = parameter[(0, 0)].numel() if parameter.dim() == 5 else parameter[0].numel()
            weights[name] = (1.7 / fan_in**0.5) * torch.randn(shape, generator=generator)
    inputs = {"input": torch.randn((batch, *net.input_shape), generator=generator)}
    kind, logits = net.spec["layer"][-1]["type"], (batch, *net.shapes[net.sources[-1][0]])
    if kind == "softmax_cross_entropy":
        shape = (batch,) if logits[2] * logits[3] == 1 else (batch, *logits[2:])
        inputs["target"] = torch.randint(0, logits[1], shape, generator=generator)
    elif kind == "sigmoid_cross_entropy":
        inputs["target"] = torch.randint(0, 2, logits, generator=generator).float()
        if logits[2] * logits[3] == 1:
            inputs["target"] = inputs["target"].reshape(batch, logits[1], 1, 1)
    if not net.has_loss:
        inputs["cotangent"] = torch.randn((batch, *net.shapes[net.last]), generator=generator)
    elif torch.rand((), generator=generator) < 0.5:
        inputs["cotangent"] = torch.randn((1,), generator=generator)
    return weights, inputs


def closest_kink(net, image, target):
    """The smallest distance to a kink over the net, as a share of the tensor's largest value."""
    closest, values = float("inf"), {"input": image}
    with torch.no_grad():
        steps = net.steps(image, target)
        for (name, after, before), layer, module, sources in zip(steps, net.spec["layer"], net.layers, net.sources):
            values[name] = after
            if layer["type"] == "relu":
                before = values[sources[0]]
            if layer["type"] == "relu" or layer.get("activation") == "relu":
                closest = min(closest, smallest_gap(before.abs(), before))
            if layer["type"] == "max_pool":
                closest = min(closest, pool_gap(values[sources[0]], module, after.shape[2:]))
            if layer["type"] == "global_pool" and layer["mode"] == "max":
                closest = min(closest, top_gap(values[sources[0]].flatten(2)))
    return closest


def smallest_gap(gaps, values):
    scale = values[values.isfinite()].abs().max().item() or 1.0
    gaps = gaps[gaps.isfinite() & (gaps > EXACT_TIE * scale)]
    return (gaps.min().item() if gaps.numel() else float("inf")) / scale


def top_gap(windows):
    if windows.shape[-1] < 2:
        return float("inf")
    top = windows.topk(2, dim=-1).values
    return smallest_gap(top[..., 0] - top[..., 1], windows)


def pool_gap(x, pool, size):
    """Every pooling window written out, the places beyond the map as minus infinity."""
    need = [(o - 1) * t + k for o, t, k in zip(size, pool.stride, pool.kernel)]
    right = [max(0, n - s - p) for n, s, p in zip(need, x.shape[2:], pool.pad)]
    x = F.pad(x, (pool.pad[1], right[1], pool.pad[0], right[0]), value=float("-inf"))
    x = x[:, :, : need[0], : need[1]].unfold(2, pool.kernel[0], pool.stride[0]).unfold(3, pool.kernel[1], pool.stride[1])
    assert tuple(x.shape[2:4]) == tuple(size), (x.shape, size)
    return top_gap(x.flatten(4))


def convert(tensors, dtype):
    return {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}


def torch_run(net, weights, inputs, dtype):
    net.to(dtype).load(convert(weights, dtype))
    inputs = convert(inputs, dtype)
    return run(net, inputs["input"], inputs.get("target"), inputs.get("cotangent"), grad=True)


def weft_run(weft, folder, toml, weights, inputs):
    (folder / "net.toml").write_text(toml)
    save_file(weights, folder / "weights.safetensors")
    save_file(inputs, folder / "input.safetensors")
    output = folder / "output.safetensors"
    output.unlink(missing_ok=True)
    command = [weft, "run", folder / "net.toml", "--weights", folder / "weights.safetensors"]
    command += ["--input", folder / "input.safetensors", "--output", output, "--grad", *EXTRA]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=120)
    if done.returncode != 0:
        raise RuntimeError(f"exit code {done.returncode}: {done.stderr.strip()}")
    return load_file(output)


EXTRA = []  # further options of `weft run`, such as --device simt


def same_shape(ours, theirs):
    """Equal but for ones at the end: [N, O] and [N, O, 1, 1] are the same map."""

    def strip(shape):
        shape = list(shape)
        while len(shape) > 2 and shape[-1] == 1:
            shape.pop()
        return shape

    return strip(ours) == strip(theirs)


def gradient_scale(net, reference, inputs):
    """The size of the gradients that enter the net or come out of it, whichever is larger."""
    entering = inputs["cotangent"].abs().max().item() if "cotangent" in inputs else 1.0
    if net.has_loss:  # a mean over the targets
        entering /= max(1, inputs["target"].numel())
    return max([entering] + [t.abs().max().item() for name, t in reference.items() if name.startswith("grad.")])


def allowed(name, expected, scale):
    """A gradient that is float64's rounding and nothing else (a sum that cancels) must be no more than rounding."""
    largest = expected.abs().max().item()
    if name.startswith("grad.") and largest < CANCELLED * scale:
        return BOUND / 10 * scale
    return BOUND * largest


def differences(reference, other, scale):
    """[(tensor, error as a share of the largest reference value)] beyond the bound, and what is missing."""
    found = []
    for name, expected in reference.items():
        if name not in other:
            found.append((name, "missing"))
        elif not same_shape(expected.shape, other[name].shape):
            found.append((name, f"shape {tuple(other[name].shape)}, expected {tuple(expected.shape)}"))
        else:
            error = (other[name].double().reshape(expected.shape) - expected).abs().max().item()
            largest = expected.abs().max().item()
            if not error <= allowed(name, expected, scale):
                found.append((name, error / largest if largest else float("inf")))
    found += [(name, "not asked for") for name in other if name not in reference]
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weft", help="the binary; without it PyTorch float32 is compared instead")
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", help="folder for the files of failed nets")
    parser.add_argument("--option", action="append", default=[], help="passed on to weft run, e.g. --option=--device=cpu")
    parser.add_argument("--print", action="store_true", help="print every net")
    args = parser.parse_args()
    EXTRA.extend(args.option)
    torch.set_num_threads(1)

    failed, ill, near_kink, kinds, began = [], [], [], {}, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for seed in range(args.seed, args.seed + args.count):
            for attempt in range(100):  # nets that grow too large are drawn again
                draw = Draw(f"{seed}/{attempt}")
                spec = draw.net()
                if max(c * h * w for c, h, w in (s for s in draw.shapes.values() if len(s) == 3)) <= MAX_ELEMENTS:
                    break
            toml = as_toml(spec)
            if args.print:
                print(f"# seed {seed}, batch {draw.batch}\n{toml}")
            net = Net(tomllib.loads(toml))
            if net.shapes != draw.shapes:
                raise AssertionError(f"seed {seed}: drawn {draw.shapes}, torch {net.shapes}\n{toml}")
            for layer in spec["layer"]:
                kinds[layer["type"]] = kinds.get(layer["type"], 0) + 1

            generator = torch.Generator().manual_seed(seed)
            for attempt in range(30):
                weights, inputs = tensors_for(net, draw.batch, generator)
                net.double().load(convert(weights, torch.float64))
                kink = closest_kink(net, inputs["input"].double(), inputs.get("target"))
                if kink >= KINK_MARGIN:
                    break
            else:
                near_kink.append(seed)

            reference = torch_run(net, weights, inputs, torch.float64)
            single = torch_run(net, weights, inputs, torch.float32)
            scale = gradient_scale(net, reference, inputs)
            try:
                other = single if args.weft is None else weft_run(args.weft, folder, toml, weights, inputs)
            except (RuntimeError, subprocess.TimeoutExpired) as error:
                found = [("weft", str(error))]
            else:
                found = differences(reference, other, scale)
            if not found:
                continue
            unstable = set()
            for name, expected in reference.items():
                error = (single[name].double() - expected).abs().max().item()
                if error > allowed(name, expected, scale) / 3:
                    unstable.add(name)
            judged = [item for item in found if item[0] not in unstable]
            (failed if judged else ill).append(seed)
            print(f"{'FAILED' if judged else 'ill-conditioned'}: seed {seed}, batch {draw.batch}, nearest kink {kink:.1e}")
            for name, what in found:
                note = " (PyTorch's float32 differs too)" if name in unstable else ""
                print(f"  {name}: {what if isinstance(what, str) else f'{what:.2e} of the largest value'}{note}")
            print("\n".join("    " + line for line in toml.splitlines()), flush=True)
            if args.keep and args.weft:
                shutil.copytree(folder, Path(args.keep) / f"seed-{seed}", dirs_exist_ok=True)

    print(", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items())))
    print(
        f"{args.count} nets from seed {args.seed} in {time.monotonic() - began:.0f} s: {len(failed)} failed {failed}, "
        f"{len(ill)} ill-conditioned {ill}, {len(near_kink)} near a kink after 30 draws {near_kink}"
    )
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()

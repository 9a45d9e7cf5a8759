"""A Weft network description as a plain PyTorch module.

Reads the same TOML and the same safetensors weights as `weft run` and computes the same thing with PyTorch's own
operations. A locally shared convolution is a loop of ordinary convolutions, one per filter bank, whose outputs are laid
side by side: slow, and hard to get wrong. `Net.local_form` chooses faster forms of the same.

    python torch_net.py NET.toml                       prints layers, shapes, parameters and FLOPs
    python torch_net.py NET.toml --weights F --input F --output F [--grad] [--double]
"""

import argparse
import tomllib

import torch
import torch.nn.functional as F
from torch import nn

LOSSES = ("softmax_cross_entropy", "sigmoid_cross_entropy")


def pair(value):
    """`3` -> (3, 3); `[2, 3]` -> (2, 3): height first."""
    return (value, value) if isinstance(value, int) else tuple(value)


class Conv(nn.Module):
    def __init__(self, layer, shape):
        super().__init__()
        channels, kernel = shape[0], pair(layer["kernel"])
        self.stride, self.pad = pair(layer.get("stride", 1)), pair(layer.get("pad", 0))
        self.groups = layer.get("groups", 1)
        self.weight = nn.Parameter(torch.zeros(layer["filters"], channels // self.groups, *kernel))
        self.bias = nn.Parameter(torch.zeros(layer["filters"])) if layer.get("bias", True) else None

    def forward(self, x):
        return F.conv2d(x, self.weight, self.bias, self.stride, self.pad, groups=self.groups)


class LocalConv(nn.Module):
    """Output pixel (y, x) with block size B and cell c belongs to bank (a, b) = (y // B, x // B); (u, v) is the rest;
    tap (i, j) reads input (a*c + u + i, b*c + v + j). So bank (a, b) is an ordinary convolution over the
    B + k - 1 pixels from (a*c, b*c) on."""

    def __init__(self, layer, shape):
        super().__init__()
        channels, height, width = shape
        self.kernel, self.grid = pair(layer["kernel"]), layer["grid"]
        self.span, self.window = layer.get("span", 1), layer.get("window", "halo")
        self.cell = (self.cell_size(height, 0), self.cell_size(width, 1))
        self.block = tuple(
            self.span * c if self.window == "halo" else self.span * c - k + 1 for c, k in zip(self.cell, self.kernel)
        )
        if min(self.block) < 1:
            raise ValueError(f"{layer['name']}: kernel {self.kernel} does not fit into {self.span} cells of {self.cell}")
        banks = self.grid * self.grid
        self.weight = nn.Parameter(torch.zeros(banks, layer["filters"], channels, *self.kernel))
        self.bias = nn.Parameter(torch.zeros(banks, layer["filters"])) if layer.get("bias", True) else None

    def cell_size(self, size, axis):
        cells = self.grid + self.span - 1
        tiled = size - (self.kernel[axis] - 1) if self.window == "halo" else size
        if tiled <= 0 or tiled % cells:
            raise ValueError(f"local_conv: {size} pixels do not hold {cells} cells (window {self.window})")
        return tiled // cells

    FORMS = ("loop", "grouped", "bmm")
    form = "loop"

    def forward(self, x):
        return {"loop": self.loop, "grouped": self.grouped, "bmm": self.bmm}[self.form](x)

    def windows(self, x):
        """What each bank sees: N x C x grid x grid x (B + k - 1) x (B + k - 1), a view."""
        for axis in range(2):
            x = x.unfold(2 + axis, self.block[axis] + self.kernel[axis] - 1, self.cell[axis])
        return x[:, :, : self.grid, : self.grid]

    def grouped(self, x):
        """One convolution whose groups are the banks."""
        banks, filters = self.weight.shape[:2]
        seen = self.windows(x)
        if x.is_contiguous(memory_format=torch.channels_last):  # stays so
            seen = seen.permute(0, 4, 5, 2, 3, 1).flatten(3).permute(0, 3, 1, 2)
        else:
            seen = seen.permute(0, 2, 3, 1, 4, 5).reshape(x.shape[0], banks * x.shape[1], *seen.shape[4:])
        bias = None if self.bias is None else self.bias.flatten()
        out = F.conv2d(seen, self.weight.flatten(0, 1), bias, groups=banks)
        out = out.reshape(x.shape[0], self.grid, self.grid, filters, *self.block)
        return out.permute(0, 3, 1, 4, 2, 5).reshape(x.shape[0], filters, self.grid * self.block[0], -1)

    def bmm(self, x):
        """The windows of all pixels written out (im2col), and one product for each bank."""
        banks, filters = self.weight.shape[:2]
        taps = self.windows(x).unfold(4, self.kernel[0], 1).unfold(5, self.kernel[1], 1)
        taps = taps.permute(2, 3, 0, 4, 5, 1, 6, 7)  # grid, grid, N, B, B, C, k, k
        taps = taps.reshape(banks, x.shape[0] * self.block[0] * self.block[1], -1)
        weight = self.weight.reshape(banks, filters, -1).transpose(1, 2)
        out = torch.bmm(taps, weight) if self.bias is None else torch.baddbmm(self.bias[:, None], taps, weight)
        out = out.reshape(self.grid, self.grid, x.shape[0], *self.block, filters)
        return out.permute(2, 5, 0, 3, 1, 4).reshape(x.shape[0], filters, self.grid * self.block[0], -1)

    def loop(self, x):
        reach = [b + k - 1 for b, k in zip(self.block, self.kernel)]
        rows = []
        for a in range(self.grid):
            row = []
            for b in range(self.grid):
                bank = a * self.grid + b
                top, left = a * self.cell[0], b * self.cell[1]
                seen = x[:, :, top : top + reach[0], left : left + reach[1]]
                row.append(F.conv2d(seen, self.weight[bank], None if self.bias is None else self.bias[bank]))
            rows.append(torch.cat(row, dim=3))
        return torch.cat(rows, dim=2)


class Linear(nn.Module):
    def __init__(self, layer, shape):
        super().__init__()
        inputs = shape[0] * shape[1] * shape[2]
        self.weight = nn.Parameter(torch.zeros(layer["outputs"], inputs))
        self.bias = nn.Parameter(torch.zeros(layer["outputs"])) if layer.get("bias", True) else None

    def forward(self, x):
        return F.linear(x.flatten(1), self.weight, self.bias)[:, :, None, None]


class Pool(nn.Module):
    def __init__(self, layer, shape):
        super().__init__()
        self.max = layer["type"] == "max_pool"
        self.kernel = pair(layer["kernel"])
        self.stride, self.pad = pair(layer.get("stride", layer["kernel"])), pair(layer.get("pad", 0))
        self.ceil = layer.get("ceil", False)

    def forward(self, x):
        if self.max:
            return F.max_pool2d(x, self.kernel, self.stride, self.pad, ceil_mode=self.ceil)
        return F.avg_pool2d(x, self.kernel, self.stride, self.pad, ceil_mode=self.ceil, count_include_pad=True)


class GlobalPool(nn.Module):
    def __init__(self, layer, shape):
        super().__init__()
        self.mode, self.sharpness = layer.get("mode", "max"), layer.get("sharpness", 4.0)

    def forward(self, x):
        if self.mode == "max":
            return F.adaptive_max_pool2d(x, 1)
        if self.mode == "avg":
            return x.mean(dim=(2, 3), keepdim=True)
        pixels = x.shape[2] * x.shape[3]
        log_mean = torch.logsumexp(self.sharpness * x, dim=(2, 3), keepdim=True) - torch.log(x.new_tensor(pixels))
        return log_mean / self.sharpness


class GroupNorm(nn.Module):
    def __init__(self, layer, shape):
        super().__init__()
        self.groups, self.eps = layer["groups"], layer.get("eps", 1e-5)
        self.weight = nn.Parameter(torch.ones(shape[0]))
        self.bias = nn.Parameter(torch.zeros(shape[0]))

    def forward(self, x):
        return F.group_norm(x, self.groups, self.weight, self.bias, self.eps)


class Function(nn.Module):
    """Layers without parameters or state of their own."""

    def __init__(self, layer, shape):
        super().__init__()
        self.layer = layer

    def forward(self, *inputs, target=None):
        x, kind = inputs[0], self.layer["type"]
        if kind == "relu":
            return F.relu(x)
        if kind == "sigmoid":
            return torch.sigmoid(x)
        if kind == "softmax":
            return F.softmax(x, dim=1)
        if kind == "lrn":
            options = {key: self.layer[key] for key in ("alpha", "beta", "k") if key in self.layer}
            return F.local_response_norm(x, self.layer.get("size", 5), **options)
        if kind == "dropout":
            return F.dropout(x, self.layer.get("rate", 0.5), self.training)
        if kind == "concat":
            return torch.cat(inputs, dim=1)
        if kind == "softmax_cross_entropy":  # class indices [N] or [N, H, W]
            target = target.reshape(x.shape[0], *x.shape[2:])
            return F.cross_entropy(x, target).reshape(1)
        if kind == "sigmoid_cross_entropy":
            return F.binary_cross_entropy_with_logits(x, target.reshape(x.shape)).reshape(1)
        raise ValueError(f"layer {self.layer['name']}: unknown type {kind}")


TYPES = {
    "conv": Conv,
    "local_conv": LocalConv,
    "linear": Linear,
    "max_pool": Pool,
    "avg_pool": Pool,
    "global_pool": GlobalPool,
    "group_norm": GroupNorm,
}


class Net(nn.Module):
    """`forward(x)` returns a dict: every layer's output, N x C x H x W (a loss: [1]), by the layer's name."""

    def __init__(self, spec):
        super().__init__()
        self.spec = spec
        self.input_shape = tuple(spec["input"])
        self.names = [layer["name"] for layer in spec["layer"]]
        self.layers = nn.ModuleList()
        self.shapes = {"input": self.input_shape}
        above = "input"
        self.sources = []
        for layer in spec["layer"]:
            sources = layer.get("from", [above])
            sources = [sources] if isinstance(sources, str) else sources
            shapes = [self.shapes[name] for name in sources]
            self.sources.append(sources)
            module = TYPES.get(layer["type"], Function)(layer, shapes[0])
            self.layers.append(module)
            self.shapes[layer["name"]] = self._shape_after(layer, module, shapes)
            above = layer["name"]

    def _shape_after(self, layer, module, shapes):
        if layer["type"] in LOSSES:
            return (1,)
        with torch.no_grad():
            return tuple(module(*[torch.zeros(1, *shape) for shape in shapes]).shape[1:])

    @property
    def last(self):
        return self.names[-1]

    @property
    def has_loss(self):
        return self.spec["layer"][-1]["type"] in LOSSES

    def forward(self, x, target=None):
        return {name: value for name, value, _ in self.steps(x, target)}

    def steps(self, x, target=None):
        """Yields (name, output, output before the activation) layer by layer."""
        values = {"input": x}
        for layer, module, sources in zip(self.spec["layer"], self.layers, self.sources):
            inputs = [values[name] for name in sources]
            before = module(*inputs, target=target) if layer["type"] in LOSSES else module(*inputs)
            after = before
            match layer.get("activation", "none"):
                case "relu":
                    after = F.relu(before)
                case "sigmoid":
                    after = torch.sigmoid(before)
                case "none":
                    pass
                case other:
                    raise ValueError(f"layer {layer['name']}: unknown activation {other}")
            values[layer["name"]] = after
            yield layer["name"], after, before

    def local_form(self, form):
        """How locally shared convolutions are computed: see `LocalConv.FORMS`."""
        for module in self.layers:
            if isinstance(module, LocalConv):
                module.form = form
        return self

    @property
    def has_local(self):
        return any(isinstance(module, LocalConv) for module in self.layers)

    def named_weights(self):
        """Weft's parameter names: <layer>.weight, <layer>.bias."""
        for name, module in zip(self.names, self.layers):
            for parameter_name, parameter in module.named_parameters():
                yield f"{name}.{parameter_name}", parameter

    def load(self, tensors):
        own = dict(self.named_weights())
        if own.keys() != tensors.keys():
            raise ValueError(f"missing {own.keys() - tensors.keys()}, unknown {tensors.keys() - own.keys()}")
        with torch.no_grad():
            for name, parameter in own.items():
                if parameter.shape != tensors[name].shape:
                    raise ValueError(f"{name}: net {tuple(parameter.shape)}, file {tuple(tensors[name].shape)}")
                parameter.copy_(tensors[name])
        return self

    def initialise(self, generator=None):
        """He's normal initialisation where a rectifier follows, half its variance elsewhere; biases are zero."""
        with torch.no_grad():
            for layer, module in zip(self.spec["layer"], self.layers):
                if getattr(module, "weight", None) is None or layer["type"] == "group_norm":  # which starts as the identity
                    continue
                weight = module.weight
                skip = 2 if layer["type"] == "local_conv" else 1  # the axes that do not count as inputs
                fan_in = weight[(0,) * skip].numel()
                gain = 2.0 if layer.get("activation") == "relu" else 1.0
                weight.normal_(0.0, (gain / fan_in) ** 0.5, generator=generator)
                if module.bias is not None:
                    module.bias.zero_()
        return self

    def channels_last(self):
        """All filters in memory order O, kh, kw, C; the banks of a local layer one by one."""
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.dim() == 4:
                    parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
                elif parameter.dim() == 5:
                    parameter.data = parameter.data.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)
        return self

    def multiply_adds(self):
        """Per image and layer, of the layers with weights."""
        counts = {}
        for layer, module in zip(self.spec["layer"], self.layers):
            if layer["type"] in ("conv", "local_conv", "linear"):
                _, height, width = self.shapes[layer["name"]]
                filters = layer.get("filters", layer.get("outputs"))
                skip = 2 if layer["type"] == "local_conv" else 1
                counts[layer["name"]] = filters * height * width * module.weight[(0,) * skip].numel()
        return counts


def read_spec(path):
    with open(path, "rb") as file:
        return tomllib.load(file)


def with_head(spec, outputs, loss="sigmoid_cross_entropy", dropout=0.0):
    """The spec with a linear head and a loss on top; `dropout` goes in front of the last `linear` layer and of the head."""
    layers = [dict(layer) for layer in spec["layer"]]
    head = [{"name": "head", "type": "linear", "outputs": outputs}, {"name": "loss", "type": loss}]
    if dropout:
        head.insert(0, {"name": "drop_head", "type": "dropout", "rate": dropout})
        last_linear = max((i for i, layer in enumerate(layers) if layer["type"] == "linear"), default=None)
        if last_linear is not None:
            drop = {"name": "drop_linear", "type": "dropout", "rate": dropout}
            if "from" in layers[last_linear]:
                drop["from"] = layers[last_linear].pop("from")
            layers.insert(last_linear, drop)
    return {**spec, "layer": layers + head}


def run(net, image, target=None, cotangent=None, grad=False):
    """What `weft run` writes: all outputs by layer name and, with `grad`, `grad.input` and `grad.<parameter>`."""
    net.eval()
    net.zero_grad()
    image = image.detach().clone().requires_grad_(grad)
    outputs = net(image, target)
    result = {name: value.detach() for name, value in outputs.items()}
    if grad:
        last = outputs[net.last]
        if cotangent is None:
            if not net.has_loss:
                raise ValueError("--grad needs a cotangent, unless the net ends in a loss")
            cotangent = torch.ones_like(last)
        if last.requires_grad:
            last.backward(cotangent.reshape(last.shape))
        result["grad.input"] = torch.zeros_like(image) if image.grad is None else image.grad
        for name, parameter in net.named_weights():
            result[f"grad.{name}"] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("--weights")
    parser.add_argument("--input")
    parser.add_argument("--output")
    parser.add_argument("--grad", action="store_true")
    parser.add_argument("--double", action="store_true", help="compute in float64, store float32")
    args = parser.parse_args()
    torch.set_num_threads(2)
    net = Net(read_spec(args.net))

    if args.input is None:
        counts = net.multiply_adds()
        for name in net.names:
            shape = " x ".join(map(str, net.shapes[name]))
            print(f"{name:12} {shape:18} {2e-6 * counts[name]:9.2f} MFLOP" if name in counts else f"{name:12} {shape}")
        parameters = sum(parameter.numel() for parameter in net.parameters())
        print(f"{parameters / 1e6:.3f} M parameters, {2e-6 * sum(counts.values()):.2f} MFLOP (multiply-add = 2)")
        return

    from safetensors.torch import load_file, save_file

    dtype = torch.float64 if args.double else torch.float32
    net.load(load_file(args.weights)).to(dtype)
    tensors = load_file(args.input)
    tensors = {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}
    result = run(net, tensors["input"], tensors.get("target"), tensors.get("cotangent"), args.grad)
    save_file({name: t.float().contiguous() for name, t in result.items()}, args.output)


if __name__ == "__main__":
    main()

"""The interweaved operation in PyTorch: ANet's features of every patch of an image in one pass, against patch by patch.

    python interweave.py ../../nets/anet.toml --image 300x300 --stride 8

Written for nets built like ANet: an unpadded trunk of convolutions and pools, a local layer with window "halo" and span 1,
a pool that tiles its blocks, a local layer with window "valid" and span 2, one linear layer. Everything is in units of the
trunk's output, t pixels of the image each:

1. The trunk runs once on the whole image.
2. Bank (a, b) of the first local layer runs on that part of the trunk map where some patch has its cell (a, b). A patch
   with origin (y, x) finds the block of its cell at (y + a*c, x + b*c) of that response map.
3. A bank (a, b) of the second local layer reads, for every patch, 2 x 2 cells: quarter (da, db) is cut from the pooled
   response map (a + da, b + db). `maps` lays the patches of one phase (origin modulo 2c) side by side, as in the paper, and
   convolves the map; `tiles` makes a batch of patches and convolves each one's 2 x 2 cells alone. Both are timed.
4. The linear layer is one matrix product over the patches.

Prints one JSON line: median milliseconds, the speed-up, and the largest difference as a share of the largest feature.
PyTorch chooses its convolution routine by shape, so its float32 results differ by rounding. `--exact` takes rounding out: image
and weights are small whole numbers in float64, every sum is exact in any order, and the features must be equal to the last bit.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

from torch_net import Net, read_spec

RELATIVE_BOUND = 1e-5


class Interweave:
    def __init__(self, net, stride):
        kinds = [layer["type"] for layer in net.spec["layer"]]
        first = kinds.index("local_conv")
        if kinds[first:] != ["local_conv", "max_pool", "local_conv", "linear"]:
            raise ValueError(f"not built like ANet: {kinds}")
        self.layers, self.modules = net.spec["layer"], list(net.layers)
        self.trunk = range(first)
        self.local, self.pool, self.banks, self.linear = self.modules[first:]
        self.activations = [layer.get("activation") == "relu" for layer in self.layers]

        t = 1
        for i in self.trunk:
            module = self.modules[i]
            if module.pad != (0, 0) or module.stride[0] != module.stride[1]:
                raise ValueError(f"{self.layers[i]['name']}: the trunk must be unpadded, its strides equal on both axes")
            t *= module.stride[0]
        if stride % t:
            raise ValueError(f"stride {stride} is not a multiple of the trunk's {t}")
        self.step = stride // t
        self.cell, self.factor = self.local.cell[0], self.pool.kernel[0]
        if self.pool.kernel != self.pool.stride or self.cell % self.factor:
            raise ValueError("the pool must tile the blocks of the local layer in front of it")
        self.small = self.cell // self.factor  # a cell after the pool
        self.patch = net.shapes[self.layers[first - 1]["name"]][1]  # a patch on the trunk map

    def activate(self, x, index):
        return F.relu_(x) if self.activations[index] else x

    def __call__(self, image, method):
        """`image` [1, C, H, W] -> features [ny, nx, D]"""
        x = image
        for i in self.trunk:
            x = self.activate(self.modules[i](x), i)
        ny, nx = ((size - self.patch) // self.step + 1 for size in x.shape[2:])

        # Patch origins are multiples of `step`; those of one remainder modulo the pool's factor see one pooled map.
        out = x.new_empty(ny, nx, self.linear.weight.shape[0])
        for py in self.classes(ny, self.factor):
            for px in self.classes(nx, self.factor):
                responses = self.responses(x, py, px)
                blocks = self.tiles(responses, py, px) if method == "tiles" else self.maps(responses, py, px)
                features = self.activate(self.linear(blocks), len(self.layers) - 1)
                out[py, px] = features.reshape(len(range(ny)[py]), len(range(nx)[px]), -1)
        return out

    def classes(self, patches, period):
        """Slices of the patch indices whose origins agree modulo `period`."""
        apart = next(n for n in range(1, period + 1) if (n * self.step) % period == 0)
        return [slice(start, patches, apart) for start in range(min(apart, patches))]

    def responses(self, trunk, py, px):
        """{(a, b): pooled response map}, starting at the cell (a, b) of the first patch of the class."""
        k, c, grid = self.local.kernel[0], self.cell, self.local.grid
        ny, nx = ((size - self.patch) // self.step + 1 for size in trunk.shape[2:])
        (y0, y1), (x0, x1) = [(range(n)[p][0] * self.step, range(n)[p][-1] * self.step) for n, p in ((ny, py), (nx, px))]
        maps = {}
        for a in range(grid):
            for b in range(grid):
                seen = trunk[:, :, y0 + a * c : y1 + (a + 1) * c + k - 1, x0 + b * c : x1 + (b + 1) * c + k - 1]
                bank = a * grid + b
                response = F.conv2d(seen, self.local.weight[bank], self.local.bias[bank])
                maps[a, b] = self.pool(self.activate(response, self.trunk.stop))
        return maps

    def distance(self, part):
        """Pooled pixels between neighbouring patches of a class."""
        return (part.step or 1) * self.step // self.factor

    def tiles(self, responses, py, px):
        grid, c = self.banks.grid, self.small
        dy, dx = self.distance(py), self.distance(px)
        # Cell (a, b) of every patch: [C, ny, nx, c, c]
        cells = {key: m[0].unfold(1, c, dy).unfold(2, c, dx) for key, m in responses.items()}
        some = cells[0, 0]
        patches = some.shape[1] * some.shape[2]
        rows = []
        for a in range(grid):
            row = []
            for b in range(grid):
                tile = some.new_empty(*some.shape[1:3], some.shape[0], 2, c, 2, c)
                for da in range(2):
                    for db in range(2):
                        tile[:, :, :, da, :, db] = cells[a + da, b + db].permute(1, 2, 0, 3, 4)
                tile = tile.view(patches, -1, 2 * c, 2 * c)
                bank = a * grid + b
                row.append(F.conv2d(tile, self.banks.weight[bank], self.banks.bias[bank]))
            rows.append(torch.cat(row, 3))
        return self.activate(torch.cat(rows, 2), self.trunk.stop + 2)

    def maps(self, responses, py, px):
        grid, c, block, k = self.banks.grid, self.small, self.banks.block[0], self.banks.kernel[0]
        tile = 2 * c
        dy, dx = self.distance(py), self.distance(px)
        height, width = responses[0, 0].shape[2:]
        ny, nx = (height - c) // dy + 1, (width - c) // dx + 1
        channels, filters = responses[0, 0].shape[1], self.banks.weight.shape[1]
        out = responses[0, 0].new_empty(ny, nx, filters, grid * block, grid * block)

        # A phase: the patches whose origins agree modulo a tile.
        def phases(n, d):
            apart = next(m for m in range(1, tile + 1) if m * d % tile == 0)
            return [range(start, n, apart) for start in range(min(apart, n))]

        rows, columns = phases(ny, dy), phases(nx, dx)
        # Neighbours of a phase need not touch (stride larger than a tile): tiles stand at every place of a patch only.
        tall, wide = len(rows[0]), len(columns[0])
        for a in range(grid):
            for b in range(grid):
                woven = responses[0, 0].new_zeros(len(rows), len(columns), channels, tall, 2, c, wide, 2, c)
                for da in range(2):
                    for db in range(2):
                        cells = responses[a + da, b + db][0].unfold(1, c, dy).unfold(2, c, dx)
                        for i, r in enumerate(rows):
                            for j, q in enumerate(columns):
                                part = cells[:, r.start : r.stop : r.step, q.start : q.stop : q.step]
                                part = part.permute(0, 1, 3, 2, 4)
                                woven[i, j, :, : len(r), da, :, : len(q), db] = part
                woven = woven.view(-1, channels, tall * tile, wide * tile)
                bank = a * grid + b
                result = F.conv2d(woven, self.banks.weight[bank], self.banks.bias[bank])
                result = F.pad(result, (0, k - 1, 0, k - 1))  # outputs that straddle two tiles are cut off below
                result = result.view(len(rows), len(columns), filters, tall, tile, wide, tile)[..., :block, :, :block]
                for i, r in enumerate(rows):
                    for j, q in enumerate(columns):
                        inside = result[i, j, :, : len(r), :, : len(q)].permute(1, 3, 0, 2, 4)
                        y, x = a * block, b * block
                        out[r.start : r.stop : r.step, q.start : q.stop : q.step, :, y : y + block, x : x + block] = inside
        return self.activate(out.view(ny * nx, filters, grid * block, grid * block), self.trunk.stop + 2)


def patchwise(net, image, stride, batch):
    """Crops every patch and runs the patch network on batches of them."""
    channels, height, width = net.input_shape
    patches = image[0].unfold(1, height, stride).unfold(2, width, stride)
    ny, nx = patches.shape[1:3]
    patches = patches.permute(1, 2, 0, 3, 4).reshape(ny * nx, channels, height, width)
    features = [net(part)[net.last].flatten(1) for part in patches.split(batch)]
    return torch.cat(features).reshape(ny, nx, -1)


def median_ms(call, repeats):
    call()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def weft(args):
    """One run of Weft's own benchmark of the same image, stride and number of threads."""
    command = [args.weft, "bench", "interweave", "--net", args.net, "--image", args.image, "--stride", str(args.stride)]
    environment = os.environ | {"RAYON_NUM_THREADS": str(args.threads)}
    result = subprocess.run([*command, "--rounds", "2", "--json"], env=environment, check=True, capture_output=True)
    return json.loads(result.stdout)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("--image", default="300x300", help="height x width")
    parser.add_argument("--stride", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--patchwise-repeats", type=int, default=3)
    parser.add_argument("--batch", type=int, default=64, help="patches per batch of the patch scanning")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weights", help="safetensors; random weights without")
    parser.add_argument("--weft", help="binary: `weft bench interweave` runs alternately, and its times are printed beside")
    parser.add_argument("--rounds", type=int, default=3, help="alternations with --weft")
    parser.add_argument("--exact", action="store_true", help="whole numbers in float64: no rounding, so equal or wrong")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    height, width = map(int, args.image.split("x"))

    net = Net(read_spec(args.net)).initialise()
    if args.weights:
        from safetensors.torch import load_file

        net.load(load_file(args.weights))
    image = torch.randn(1, net.input_shape[0], height, width)
    if args.exact:
        net, image = net.double(), image.double().mul(2).round().clamp(-2, 2)
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.copy_(torch.randint(-1, 2, parameter.shape))
    dense = Interweave(net, args.stride)

    with torch.inference_mode():
        reference = patchwise(net, image, args.stride, args.batch)
        errors, equal, rounds, scans, ours = {}, {}, {"maps": [], "tiles": []}, [], []
        for method in rounds:
            features = dense(image, method)
            errors[method] = ((features - reference).abs().max() / reference.abs().max()).item()
            equal[method] = torch.equal(features, reference)
        for _ in range(args.rounds if args.weft else 1):
            for method, times in rounds.items():
                times.append(median_ms(lambda method=method: dense(image, method), args.repeats))
            scans.append(median_ms(lambda: patchwise(net, image, args.stride, args.batch), args.patchwise_repeats))
            if args.weft:
                ours.append(weft(args))
    times = {method: statistics.median(each) for method, each in rounds.items()}
    patchwise_ms = statistics.median(scans)

    best = min(times, key=times.get)
    beside = {}
    if ours:
        middle = {key: statistics.median(run[key] for run in ours) for key in ("interweave_ms", "patchwise_ms", "speedup")}
        beside = {f"weft_{key}": round(value, 2) for key, value in middle.items()}
        beside["weft_max_rel_error"] = max(run["max_rel_error"] for run in ours)
        beside["ratio"] = round(times[best] / middle["interweave_ms"], 2)
    print(
        json.dumps(
            beside
            | {
                "net": net.spec["name"],
                "torch": torch.__version__,
                "threads": args.threads,
                "image": [height, width],
                "stride": args.stride,
                "patches": reference.shape[0] * reference.shape[1],
                "patchwise_ms": round(patchwise_ms, 1),
                "interweave_ms": round(times[best], 1),
                "method": best,
                "by_method_ms": {name: round(ms, 1) for name, ms in times.items()},
                "speedup": round(patchwise_ms / times[best], 2),
                "max_rel_error": max(errors.values()),
                "bitwise_equal": equal,
                "exact_arithmetic": args.exact,
            }
        )
    )
    if not max(errors.values()) <= (0.0 if args.exact else RELATIVE_BOUND):
        sys.exit(f"interweaved and patch-wise features differ: {errors}")


if __name__ == "__main__":
    main()

"""ONNX Runtime (MLAS) on a net, and Weft beside it: milliseconds of a whole forward pass on the CPU.

    python onnx_net.py ../../nets/lnet_o.toml --size 300x300 [--weft ../../target/release/weft]
    python onnx_net.py ../../nets/anet.toml --batch 64 --weft ../../target/release/weft
    python onnx_net.py ../../nets/anet.toml --save anet.onnx

Builds an ONNX model of the network file, NCHW, which is the layout MLAS is fastest with: it reorders blocks of channels itself,
weights once when the session is made. A locally shared convolution is, as in torch_net.py, one Conv per filter bank over the
slice that the bank reads, and Concat. The session has all graph optimisations, its threads spin between operators, and inputs and
outputs are bound once.

With --weft, `weft profile NET --batch B --json` runs alternately with ONNX Runtime, so that both see the same machine; the ratio
is of the medians over all rounds (below 1: Weft is faster). `weft run` computes the same input with the same parameters, and
`difference` is the largest absolute difference of the last layer's outputs over the largest output.
Prints one JSON line.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

from torch_net import Net, pair, read_spec

OPSET = 20
IR_VERSION = 10
ACTIVATIONS = {"relu": "Relu", "sigmoid": "Sigmoid"}


class Graph:
    """Nodes and constants of a model; every method returns the name of its node's output."""

    def __init__(self):
        self.nodes, self.constants = [], []

    def constant(self, name, values):
        self.constants.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind, inputs, output, **attributes):
        self.nodes.append(helper.make_node(kind, inputs, [output], output, **attributes))
        return output

    def parameters(self, name, module, bank=None):
        """Names of weight and, if there is one, bias; of one bank of a locally shared convolution."""
        names = []
        for kind, tensor in module.named_parameters():
            values = tensor.detach().numpy()
            suffix = "" if bank is None else f".{bank}"
            names.append(self.constant(f"{name}.{kind}{suffix}", values if bank is None else values[bank]))
        return names

    def layer(self, layer, module, inputs, shape):
        """Adds a layer; `shape` is that of its first input, C x H x W."""
        name, kind = layer["name"], layer["type"]
        activation = ACTIVATIONS.get(layer.get("activation", "none"))
        before = name if activation is None else f"{name}.sums"
        if kind == "conv":
            pads = [*module.pad, *module.pad]
            inputs = [*inputs, *self.parameters(name, module)]
            self.node("Conv", inputs, before, strides=module.stride, pads=pads, group=module.groups)
        elif kind == "local_conv":
            self.local_conv(name, module, inputs[0], before)
        elif kind == "linear":
            flat = self.node("Flatten", inputs, f"{name}.flat")
            self.node("Gemm", [flat, *self.parameters(name, module)], f"{name}.rows", transB=1)
            place = self.constant(f"{name}.shape", np.array([0, -1, 1, 1], np.int64))
            self.node("Reshape", [f"{name}.rows", place], before)
        elif kind in ("max_pool", "avg_pool"):
            keys = {} if module.max else {"count_include_pad": 1}
            keys |= {"kernel_shape": module.kernel, "strides": module.stride, "ceil_mode": int(module.ceil)}
            self.node("MaxPool" if module.max else "AveragePool", inputs, before, pads=[*module.pad, *module.pad], **keys)
        elif kind == "lrn":
            keys = {"alpha": layer.get("alpha", 1e-4), "beta": layer.get("beta", 0.75), "bias": layer.get("k", 1.0)}
            self.node("LRN", inputs, before, size=layer.get("size", 5), **keys)
        elif kind in ACTIVATIONS:
            self.node(ACTIVATIONS[kind], inputs, before)
        elif kind == "softmax":
            self.node("Softmax", inputs, before, axis=1)
        elif kind == "concat":
            self.node("Concat", inputs, before, axis=1)
        elif kind == "dropout":
            self.node("Identity", inputs, before)
        else:
            sys.exit(f"layer {name}: {kind} is not translated to ONNX")
        if activation is not None:
            self.node(activation, [before], name)

    def local_conv(self, name, module, source, output):
        reach = [b + k - 1 for b, k in zip(module.block, module.kernel)]
        axes = self.constant(f"{name}.axes", np.array([2, 3], np.int64))
        rows = []
        for a in range(module.grid):
            row = []
            for b in range(module.grid):
                bank = a * module.grid + b
                corner = np.array([a * module.cell[0], b * module.cell[1]], np.int64)
                start = self.constant(f"{name}.start.{bank}", corner)
                end = self.constant(f"{name}.end.{bank}", corner + reach)
                seen = self.node("Slice", [source, start, end, axes], f"{name}.seen.{bank}")
                row.append(self.node("Conv", [seen, *self.parameters(name, module, bank)], f"{name}.bank.{bank}"))
            rows.append(self.node("Concat", row, f"{name}.row.{a}", axis=3))
        self.node("Concat", rows, output, axis=2)


def model(net, batch):
    """The ONNX model of a `torch_net.Net`: `input` to the last layer."""
    graph = Graph()
    for layer, module, sources in zip(net.spec["layer"], net.layers, net.sources):
        graph.layer(layer, module, list(sources), net.shapes[sources[0]])
    tensor = lambda name: helper.make_tensor_value_info(name, TensorProto.FLOAT, [batch, *net.shapes[name]])
    name = net.spec["name"]
    made = helper.make_graph(graph.nodes, name, [tensor("input")], [tensor(net.last)], graph.constants)
    made = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)
    onnx.checker.check_model(made, full_check=True)
    return made


class Peer:
    """A session of ONNX Runtime on one input."""

    def __init__(self, made, image, last, threads):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.add_session_config_entry("session.intra_op.allow_spinning", "1")
        # Not while Weft runs: its threads would find the cores taken.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(
            made.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        self.binding = self.session.io_binding()
        self.binding.bind_cpu_input("input", image)
        self.binding.bind_output(last, "cpu")

    def run(self):
        """Milliseconds of a pass."""
        began = time.perf_counter()
        self.session.run_with_iobinding(self.binding)
        return 1e3 * (time.perf_counter() - began)

    def output(self):
        self.run()
        return self.binding.copy_outputs_to_cpu()[0]


def weft(args, *words):
    command = [args.weft, *map(str, words), "--device=cpu"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return done.stdout


def difference(args, net, image, theirs):
    """The largest difference between the outputs of `weft run` and `theirs`, relative to the largest output."""
    with tempfile.TemporaryDirectory() as folder:
        weights, source, output = (str(pathlib.Path(folder, name)) for name in ("w", "x", "y"))
        save_file({name: np.ascontiguousarray(t.detach().numpy()) for name, t in net.named_weights()}, weights)
        save_file({"input": image}, source)
        weft(args, "run", args.net, "--weights", weights, "--input", source, "--output", output)
        ours = load_file(output)[net.last]
    return float(np.abs(ours - theirs).max() / np.abs(theirs).max())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("--size", metavar="HxW", help="input size other than the file's")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20, help="timed passes per round")
    parser.add_argument("--rounds", type=int, default=5, help="alternations with --weft")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weft", metavar="BINARY")
    parser.add_argument("--save", metavar="FILE", help="write the model, and measure nothing")
    args = parser.parse_args()
    spec = read_spec(args.net)
    if args.size:
        spec["input"] = [spec["input"][0], *map(int, args.size.split("x"))]
    torch.manual_seed(1)
    net = Net(spec).initialise()
    made = model(net, args.batch)
    if args.save:
        onnx.save(made, args.save)
        return

    image = np.random.default_rng(1).standard_normal((args.batch, *spec["input"]), np.float32)
    peer = Peer(made, image, net.last, args.threads)
    size = "x".join(map(str, pair(tuple(spec["input"][1:]))))
    command = ["profile", args.net, "--size", size, "--batch", args.batch, "--runs", args.runs, "--json"]
    theirs, ours = [], []
    for _ in range(args.rounds if args.weft else 1):
        for _ in range(3):
            peer.run()
        theirs += [peer.run() for _ in range(args.runs)]
        if args.weft:
            ours.append(1e3 * json.loads(weft(args, *command))["whole"])
    result = {
        "net": spec["name"],
        "input": spec["input"],
        "batch": args.batch,
        "threads": args.threads,
        "onnxruntime": onnxruntime.__version__,
        "onnxruntime_ms": round(statistics.median(theirs), 3),
        "onnxruntime_min_ms": round(min(theirs), 3),
    }
    if ours:
        result["weft_ms"] = round(statistics.median(ours), 3)
        result["ratio"] = round(statistics.median(ours) / statistics.median(theirs), 3)
        result["difference"] = difference(args, net, image, peer.output())
    print(json.dumps(result))


if __name__ == "__main__":
    main()

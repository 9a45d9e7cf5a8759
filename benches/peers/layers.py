"""Milliseconds of PyTorch on a GPU for each layer with weights on its own: forward, gradient of the input, gradients of the
parameters, each captured as a CUDA graph. Convolutions are cuDNN's, which picks its algorithms by measuring, products cuBLAS's.

    python layers.py ../../nets/anet.toml --batch 64 --precision bf16
    python layers.py ../../nets/anet.toml --check

The better memory format counts, and of locally shared convolutions the best form (torch_net.py), for each pass on its own.
Bias and activation are part of a layer, as in `weft bench ops`. Prints one JSON line.

--check needs no GPU: the gradients of each pass alone against those of both at once, in float64. Exit code 1 if they differ.
"""

import argparse
import json
import sys

import torch
import torch.nn.functional as F

from speed import PRECISIONS, captured, forms_of, noise, on_a_stream, prepare
from torch_net import Net, read_spec

WITH_WEIGHTS = ("conv", "local_conv", "linear")
ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "sigmoid": torch.sigmoid}


def layers_of(net):
    """Name, what it computes, its parameters, and the shapes of its input and output, of each layer with weights."""
    for layer, module, sources in zip(net.spec["layer"], net.layers, net.sources):
        if layer["type"] in WITH_WEIGHTS:
            activation = ACTIVATIONS[layer.get("activation", "none")]
            compute = lambda x, module=module, activation=activation: activation(module(x))
            yield layer["name"], compute, list(module.parameters()), net.shapes[sources[0]], net.shapes[layer["name"]]


def passes(compute, parameters, image, cotangent):
    """The three passes as functions; the gradients share one forward pass, which is not part of them."""
    image = image.detach().requires_grad_()
    output = compute(image)
    gradient = lambda of: torch.autograd.grad(output, of, cotangent, retain_graph=True)

    def forward():
        with torch.no_grad():
            return compute(image)

    return {"forward": forward, "data": lambda: gradient([image]), "weights": lambda: gradient(parameters)}


def measure(spec, batch, precision, runs):
    best = {}
    for form in forms_of(spec):
        for channels_last in (False, True):
            net = prepare(spec, precision, channels_last, form)
            for name, compute, parameters, of_input, of_output in layers_of(net):
                with on_a_stream():
                    image = noise((batch, *of_input), precision, channels_last)
                    cotangent = noise((batch, *of_output), precision, channels_last)
                    steps = passes(compute, parameters, image, cotangent)
                    for name_of_pass, step in steps.items():
                        time = captured(step, runs)
                        times = best.setdefault(name, {})
                        times[name_of_pass] = min(time, times.get(name_of_pass, time))
    return best


def check(spec):
    worst = 0.0
    for form in forms_of(spec):
        generator = torch.Generator().manual_seed(1)
        net = Net(spec).initialise(generator).local_form(form).double()
        for _, compute, parameters, of_input, of_output in layers_of(net):
            draw = lambda shape: torch.randn(2, *shape, generator=generator, dtype=torch.float64)
            image, cotangent = draw(of_input).requires_grad_(), draw(of_output)
            want = torch.autograd.grad(compute(image), [image, *parameters], cotangent)
            steps = passes(compute, parameters, image, cotangent)
            got = [*steps["data"](), *steps["weights"]()]
            worst = max([worst, *((g - w).abs().max().item() for g, w in zip(got, want, strict=True))])
            worst = max(worst, (steps["forward"]() - compute(image)).abs().max().item())
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--precision", choices=PRECISIONS, default="bf16")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--check", action="store_true", help="compare the passes, on the CPU")
    args = parser.parse_args()
    spec = read_spec(args.net)
    if args.check:
        worst = check(spec)
        print(json.dumps({"net": args.net, "worst": worst}))
        return 0 if worst < 1e-10 else 1
    torch.backends.cudnn.benchmark = True
    layers = measure(spec, args.batch, args.precision, args.runs)
    about = {"net": args.net, "batch": args.batch, "precision": args.precision}
    versions = {"torch": torch.__version__, "cudnn": torch.backends.cudnn.version(), "gpu": torch.cuda.get_device_name()}
    print(json.dumps({**about, **versions, "milliseconds": layers}))
    return 0


if __name__ == "__main__":
    sys.exit(main())

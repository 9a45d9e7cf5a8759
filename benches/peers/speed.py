"""Milliseconds of PyTorch on a GPU for a net: forward, or with --train forward and backward, captured as a CUDA graph.

    python speed.py ../../nets/anet.toml --batch 64 [--train] [--compile]
    python speed.py ../../nets/anet.toml --check

Each precision in both memory formats and, for locally shared convolutions, as a loop over the banks, as one grouped convolution
and as one batched product; the best counts. cuDNN picks its algorithms by measuring. With --compile the best of them also
through torch.compile in mode max-autotune, which takes minutes. f32 without tensor cores, tf32 with them, f16 and bf16 with
parameters and activations of that type. Prints one JSON line.

--check needs no GPU: outputs and gradients of all forms against the loop, in float64. Exit code 1 if they differ.
"""

import argparse
import json
import statistics
import sys

import torch

from torch_net import LocalConv, Net, read_spec, run

PRECISIONS = {"f32": torch.float32, "tf32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
IN_A_ROW = 10
# Without graphs of its own: everything is captured below, compiled or not.
COMPILE_MODE = "max-autotune-no-cudagraphs"


def captured(step, runs):
    """Milliseconds of a step as a CUDA graph. What it differentiates was computed on the same stream: see `on_a_stream`."""
    for _ in range(5):
        step()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        step()
    times = []
    for _ in range(runs):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(IN_A_ROW):
            graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) / IN_A_ROW)
    return statistics.median(times)


def on_a_stream():
    """A stream that can be captured, as the current one."""
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    return torch.cuda.stream(side)


def prepare(spec, precision, channels_last, form):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.manual_seed(1)
    net = Net(spec).initialise().local_form(form)
    return (net.channels_last() if channels_last else net).to("cuda", PRECISIONS[precision])


def noise(shape, precision, channels_last):
    values = torch.randn(shape, device="cuda", dtype=PRECISIONS[precision])
    return values.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)


def milliseconds(spec, batch, precision, channels_last, form, compiled, train, runs):
    net = prepare(spec, precision, channels_last, form)
    image = noise((batch, *spec["input"]), precision, channels_last)
    last = lambda image: net(image)[net.last]
    forward = torch.compile(last, mode=COMPILE_MODE, fullgraph=True) if compiled else last
    parameters = list(net.parameters())

    def step():
        output = forward(image)
        if train:
            torch.autograd.grad(output.float().square().sum(), parameters)

    with torch.enable_grad() if train else torch.no_grad(), on_a_stream():
        return captured(step, runs)


def forms_of(spec):
    return LocalConv.FORMS if Net(spec).has_local else LocalConv.FORMS[:1]


def measure(spec, args):
    """Per precision: the best time, and every way with its time."""
    best, ways = {}, {}
    for precision in PRECISIONS:
        times = {}
        for form in forms_of(spec):
            for channels_last in (False, True):
                how = (channels_last, form, False)
                times[how] = milliseconds(spec, args.batch, precision, *how, args.train, args.runs)
        if args.compile:
            how = (*min(times, key=times.get)[:2], True)
            times[how] = milliseconds(spec, args.batch, precision, *how, args.train, args.runs)
        best[precision] = min(times.values())
        ways[precision] = [
            {"channels_last": last, "local": form, "compiled": compiled, "milliseconds": time}
            for (last, form, compiled), time in times.items()
        ]
    return best, ways


def check(spec, batch):
    """The largest difference of any form from the loop, relative to the largest value of each output and gradient."""
    generator = torch.Generator().manual_seed(1)
    net = Net(spec).initialise(generator).double()
    with torch.no_grad():
        for parameter in net.parameters():  # biases are zero so far
            if parameter.dim() <= 2:
                parameter.normal_(generator=generator)
    image = torch.randn(batch, *spec["input"], generator=generator, dtype=torch.float64)
    worst, shape = 0.0, (batch, *net.shapes[net.last])
    cotangent = torch.randn(shape, generator=generator, dtype=torch.float64)
    want = run(net, image, cotangent=cotangent, grad=True)
    for form in forms_of(spec)[1:]:
        for channels_last in (False, True):
            format = torch.channels_last if channels_last else torch.contiguous_format
            net = net.channels_last() if channels_last else net
            got = run(net.local_form(form), image.contiguous(memory_format=format), cotangent=cotangent, grad=True)
            share = lambda name: ((got[name] - want[name]).abs().max() / want[name].abs().max().clamp(min=1e-30)).item()
            worst = max([worst, *map(share, want)])
    return worst


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--train", action="store_true", help="forward and backward")
    parser.add_argument("--compile", action="store_true", help="also torch.compile, mode max-autotune")
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--check", action="store_true", help="compare the forms of local layers, on the CPU")
    args = parser.parse_args()
    spec = read_spec(args.net)
    if args.check:
        worst = check(spec, min(args.batch, 3))
        print(json.dumps({"net": args.net, "forms": forms_of(spec), "worst": worst}))
        return 0 if worst < 1e-11 else 1
    torch.backends.cudnn.benchmark = True
    best, ways = measure(spec, args)
    print(
        json.dumps(
            {
                "net": args.net,
                "batch": args.batch,
                "train": args.train,
                "torch": torch.__version__,
                "gpu": torch.cuda.get_device_name(),
                "milliseconds": best,
                "ways": ways,
            }
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Milliseconds of PyTorch on a GPU for a net: forward, or with --train forward and backward, captured as a CUDA graph.

    python speed.py ../../nets/anet.toml --batch 64 [--train]

Each precision in both memory formats, the better one counts; cuDNN picks its algorithms by measuring. f32 without tensor
cores, tf32 with them, f16 and bf16 with parameters and activations of that type. Prints one JSON line.
"""

import argparse
import json
import statistics

import torch

from torch_net import Net, read_spec

PRECISIONS = {"f32": torch.float32, "tf32": torch.float32, "f16": torch.float16, "bf16": torch.bfloat16}
IN_A_ROW = 10


def milliseconds(spec, batch, precision, channels_last, train, runs):
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.manual_seed(1)
    dtype = PRECISIONS[precision]
    net = Net(spec).initialise()
    if channels_last:
        net.channels_last()
    net = net.to("cuda", dtype)
    image = torch.randn(batch, *spec["input"], device="cuda", dtype=dtype)
    image = image.contiguous(memory_format=torch.channels_last if channels_last else torch.contiguous_format)

    def step():
        output = net(image)[net.last]
        if train:
            grads = [p for p in net.parameters() if p.requires_grad]
            torch.autograd.grad(output.float().square().sum(), grads)

    with torch.enable_grad() if train else torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(5):
                step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
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


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--train", action="store_true", help="forward and backward")
    parser.add_argument("--runs", type=int, default=20)
    args = parser.parse_args()
    torch.backends.cudnn.benchmark = True
    spec = read_spec(args.net)
    times = {}
    for precision in PRECISIONS:
        each = [milliseconds(spec, args.batch, precision, last, args.train, args.runs) for last in (False, True)]
        times[precision] = min(each)
    print(
        json.dumps(
            {
                "net": args.net,
                "batch": args.batch,
                "train": args.train,
                "torch": torch.__version__,
                "gpu": torch.cuda.get_device_name(),
                "milliseconds": times,
            }
        )
    )


if __name__ == "__main__":
    main()

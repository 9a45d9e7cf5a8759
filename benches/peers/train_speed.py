"""Training throughput of PyTorch on a net, and Weft beside it.

    python train_speed.py ../../nets/anet.toml --batch 64 [--weft ../../target/release/weft]
    python train_speed.py ../../nets/lnet_o.toml --batch 32

One step is forward, backward and an SGD step with Nesterov momentum, on random data, with a linear head of 40 outputs and
sigmoid cross-entropy on top of the net. PyTorch is measured in both memory formats and the better one counts.
With --weft, `weft bench train NET --batch B --json` runs alternately with PyTorch, so that both see the same machine.
Prints one JSON line.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time

import torch

from torch_net import Net, read_spec, with_head

OUTPUTS = 40


class Trainer:
    def __init__(self, spec, batch, memory_format):
        torch.manual_seed(1)
        self.net = Net(with_head(spec, OUTPUTS)).initialise()
        if memory_format == torch.channels_last:
            self.net.channels_last()
        self.image = torch.randn(batch, *spec["input"]).contiguous(memory_format=memory_format)
        self.target = torch.randint(0, 2, (batch, OUTPUTS)).float()
        self.optimizer = torch.optim.SGD(
            self.net.parameters(), lr=1e-3, momentum=0.9, nesterov=True, weight_decay=5e-4
        )

    def step(self):
        began = time.perf_counter()
        self.optimizer.zero_grad(set_to_none=True)
        self.net(self.image, self.target)[self.net.last].backward()
        self.optimizer.step()
        return time.perf_counter() - began


def weft_images_per_second(args):
    command = [args.weft, "bench", "train", args.net, "--batch", str(args.batch), "--json", *args.option]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit code {done.returncode}: {done.stderr.strip()}")
    return json.loads(done.stdout)["images_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("net")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--steps", type=int, default=10, help="timed steps per round")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3, help="alternations with --weft")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--weft")
    parser.add_argument("--option", action="append", default=[], help="passed on to weft, e.g. --option=--device=cpu")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    spec = read_spec(args.net)

    formats = {"contiguous": torch.contiguous_format, "channels_last": torch.channels_last}
    trainers = {name: Trainer(spec, args.batch, memory_format) for name, memory_format in formats.items()}
    times, weft = {name: [] for name in formats}, []
    for _ in range(args.rounds if args.weft else 1):
        for name, trainer in trainers.items():
            for _ in range(args.warmup):
                trainer.step()
            times[name] += [trainer.step() for _ in range(args.steps)]
        if args.weft:
            weft.append(weft_images_per_second(args))

    torch_rates = {name: args.batch / statistics.median(seconds) for name, seconds in times.items()}
    best = max(torch_rates, key=torch_rates.get)
    result = {
        "net": spec["name"],
        "batch": args.batch,
        "threads": args.threads,
        "torch": torch.__version__,
        "torch_images_per_second": round(torch_rates[best], 2),
        "memory_format": best,
        "by_memory_format": {name: round(rate, 2) for name, rate in torch_rates.items()},
    }
    if weft:
        result["weft_images_per_second"] = round(statistics.median(weft), 2)
        result["ratio"] = round(statistics.median(weft) / torch_rates[best], 3)
    print(json.dumps(result))


if __name__ == "__main__":
    main()

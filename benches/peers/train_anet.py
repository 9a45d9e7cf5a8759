"""ANet trained in PyTorch on aligned CelebA faces: the accuracy and time to hold Weft's against.

    python train_anet.py CELEBA_FOLDER [--net ../../nets/anet.toml]

The recipe: sigmoid cross-entropy from scratch on parts 0 and 1; pixels (x - 127.5) / 64; random crops of the net's input size
and flips; dropout 0.5 before and after the last linear layer; SGD, Nesterov momentum 0.9, weight decay 5e-4, batch 64, one-cycle
learning rate up to 0.03, 14 epochs. Test scores on part 2 are averaged over three vertical crops and their flips.
Prints a line per epoch and one JSON line at the end. The folder has CelebA's official layout.
"""

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file

from torch_net import Net, read_spec, with_head


def read_celeba(folder):
    """[(file, part, attributes in 0/1)], attribute names"""
    lines = (folder / "Anno" / "list_attr_celeba.txt").read_text().splitlines()
    names = lines[1].split()
    attributes = {}
    for line in lines[2:]:
        if line.strip():
            file, *values = line.split()
            attributes[file] = [value == "1" for value in values]
    parts = dict(line.split() for line in (folder / "Eval" / "list_eval_partition.txt").read_text().splitlines() if line)
    return [(file, int(parts[file]), attributes[file]) for file in sorted(attributes) if file in parts], names


def image_folder(folder):
    for name in ("img_align_celeba", "img_celeba"):
        if (folder / "Img" / name).is_dir():
            return folder / "Img" / name
    sys.exit(f"{folder}: no Img/img_align_celeba and no Img/img_celeba")


def load(folder, items):
    """All images as bytes [N, 3, H, W]; all must have one size."""
    images = [np.asarray(Image.open(folder / file).convert("RGB")) for file, _, _ in items]
    sizes = {image.shape for image in images}
    if len(sizes) != 1:
        sys.exit(f"{folder}: images of {len(sizes)} sizes; this script takes aligned and cropped faces")
    pixels = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).contiguous()
    return pixels, torch.tensor([target for _, _, target in items], dtype=torch.float32)


def normalise(pixels):
    return (pixels.float() - 127.5) / 64


def random_crops(pixels, indices, size, generator):
    height, width = size
    out = torch.empty(len(indices), 3, height, width, dtype=torch.uint8)
    top = torch.randint(0, pixels.shape[2] - height + 1, (len(indices),), generator=generator)
    left = torch.randint(0, pixels.shape[3] - width + 1, (len(indices),), generator=generator)
    flip = torch.rand(len(indices), generator=generator) < 0.5
    for i, index in enumerate(indices):
        crop = pixels[index, :, top[i] : top[i] + height, left[i] : left[i] + width]
        out[i] = crop.flip(2) if flip[i] else crop
    return normalise(out)


def test_scores(net, pixels, size, batch):
    """Logits averaged over the top, middle and bottom crop and their mirror images."""
    height, width = size
    slack, left = pixels.shape[2] - height, (pixels.shape[3] - width) // 2
    net.eval()
    total = 0
    with torch.inference_mode():
        for top in (0, slack // 2, slack):
            crops = pixels[:, :, top : top + height, left : left + width]
            for view in (crops, crops.flip(3)):
                total = total + torch.cat([logits(net, normalise(part)) for part in view.split(batch)])
    net.train()
    return total / 6


def logits(net, image):
    for name, value, _ in net.steps(image, target=None):
        if name == "head":
            return value.flatten(1)
    raise AssertionError("no head")


def accuracies(scores, targets):
    """Mean over the attributes of the accuracy, and of the mean of true positive and true negative rate (attributes of which
    the part has both kinds), and of always answering what is more frequent in it."""
    right = (scores > 0) == (targets > 0.5)
    per_attribute = right.float().mean(0)
    balanced = []
    for j in range(targets.shape[1]):
        positive = targets[:, j] > 0.5
        if 0 < positive.sum() < len(positive):
            balanced.append((right[positive, j].float().mean() + right[~positive, j].float().mean()) / 2)
    share = targets.mean(0)
    majority = torch.maximum(share, 1 - share).mean()
    return per_attribute, torch.stack(balanced).mean().item(), majority.item()


def main():
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--net", default=here.parent.parent / "nets" / "anet.toml")
    parser.add_argument("--epochs", type=int, default=14)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.03, help="the largest learning rate of the cycle")
    parser.add_argument("--momentum", type=float, default=0.9)
    parser.add_argument("--weight-decay", type=float, default=5e-4)
    parser.add_argument("--dropout", type=float, default=0.5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--limit", type=int, help="images per part, for a quick look")
    parser.add_argument("--steps", type=int, help="stop after so many steps, for a quick look")
    parser.add_argument("--output", help="write the weights here (safetensors, Weft's names)")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)

    items, names = read_celeba(args.data)
    train, test = [item for item in items if item[1] in (0, 1)], [item for item in items if item[1] == 2]
    if args.limit:
        train, test = train[: args.limit], test[: args.limit]
    folder = image_folder(args.data)
    train_pixels, train_targets = load(folder, train)
    test_pixels, test_targets = load(folder, test)

    spec = read_spec(args.net)
    size = spec["input"][1:]
    net = Net(with_head(spec, len(names), dropout=args.dropout)).initialise().train()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=args.rate, momentum=args.momentum, nesterov=True, weight_decay=args.weight_decay
    )
    per_epoch = len(train) // args.batch
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=args.rate, total_steps=args.epochs * per_epoch, cycle_momentum=False
    )
    print(f"{len(train)} training and {len(test)} test images, {per_epoch} steps an epoch", file=sys.stderr)

    began, done, epoch_losses = time.monotonic(), 0, []
    for epoch in range(1, args.epochs + 1):
        order, losses, epoch_began = torch.randperm(len(train), generator=generator), [], time.monotonic()
        for start in range(0, per_epoch * args.batch, args.batch):
            indices = order[start : start + args.batch]
            optimizer.zero_grad(set_to_none=True)
            loss = net(random_crops(train_pixels, indices, size, generator), train_targets[indices])["loss"]
            loss.backward()
            optimizer.step()
            schedule.step()
            losses.append(loss.item())
            done += 1
            if args.steps and done >= args.steps:
                break
        epoch_losses.append(sum(losses) / len(losses))
        seconds = time.monotonic() - epoch_began
        rate = len(losses) * args.batch / seconds
        print(f"epoch {epoch}: loss {epoch_losses[-1]:.4f}, {seconds:.1f} s, {rate:.0f} images/s", flush=True)
        if args.steps and done >= args.steps:
            break
    train_seconds = time.monotonic() - began

    per_attribute, balanced, majority = accuracies(test_scores(net, test_pixels, size, args.batch), test_targets)
    print(
        json.dumps(
            {
                "torch": torch.__version__,
                "steps": done,
                "train_seconds": round(train_seconds, 1),
                "losses": [round(loss, 4) for loss in epoch_losses],
                "images": len(test),
                "accuracy": round(per_attribute.mean().item(), 4),
                "balanced_accuracy": round(balanced, 4),
                "majority_accuracy": round(majority, 4),
                "per_attribute": {name: round(value.item(), 4) for name, value in zip(names, per_attribute)},
            }
        )
    )
    if args.output:
        save_file({name: weight.detach().contiguous() for name, weight in net.named_weights()}, args.output)


if __name__ == "__main__":
    main()

"""Trains the players detector on the cache of `dataset.py` and writes its ONNX file.

A command for people. It owns the schedule and the augmentation: mirrored, shifted and recoloured
pictures, AdamW along a cosine, and a running average of the weights, which is what is exported.
Its workers are processes of one thread that share every step's gradients.

    python train.py --cache CACHE --output models/players/model.onnx
"""

from __future__ import annotations

import argparse
import copy
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from assign import loss
from dataset import load
from export import export
from network import INPUT_WIDTH, Detector
from torch import Tensor, distributed

PAD_VALUE = 114
MOST_SHIFT = 12  # pixels
WARM_UP = 0.06  # of the schedule
REPORT_STEPS = 200


class Average:
    """A running average of a detector's weights; early steps weigh less."""

    def __init__(self, detector: Detector, decay: float) -> None:
        self.detector = copy.deepcopy(detector).eval()
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, detector: Detector) -> None:
        self.steps += 1
        keep = self.decay * (1 - math.exp(-self.steps / 200))
        for own, new in zip(self.detector.state_dict().values(), detector.state_dict().values(), strict=True):
            if own.dtype.is_floating_point:
                own.mul_(keep).add_(new, alpha=1 - keep)
            else:
                own.copy_(new)


def batches(
    images: np.ndarray, objects: list[np.ndarray], size: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, without end, (B, 3, 224, 384) float pictures in 0..1 and (B, G, 5) padded objects."""
    while True:
        chosen = rng.integers(0, len(images), size)
        pairs = [augmented(images[i], objects[i], rng) for i in chosen]
        padded = np.full((size, max(1, *(len(o) for _, o in pairs)), 5), -1, np.float32)
        for index, (_, rows) in enumerate(pairs):
            padded[index, : len(rows)] = rows
        stacked = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
        yield recoloured(stacked.float().div_(255), rng), torch.from_numpy(padded)


def augmented(image: np.ndarray, objects: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mirror half the pictures and shift all by whole pixels, filling with grey."""
    objects = objects.copy()
    if rng.random() < 0.5:
        image = image[:, ::-1]
        objects[:, 1] = INPUT_WIDTH - objects[:, 1]
    dx, dy = (int(v) for v in rng.integers(-MOST_SHIFT, MOST_SHIFT + 1, 2))
    if rng.random() < 0.3:
        dx = dy = 0
    height, width = image.shape[:2]
    canvas = np.full(image.shape, PAD_VALUE, np.uint8)
    canvas[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = \
        image[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]  # fmt: skip
    objects[:, 1:3] += (dx, dy)
    inside = (objects[:, 1] > 0) & (objects[:, 1] < width) & (objects[:, 2] > 0) & (objects[:, 2] < height)
    return canvas, objects[inside]


def recoloured(images: Tensor, rng: np.random.Generator) -> Tensor:
    """Scale each picture's channels a little, and its contrast."""
    count = len(images)
    gain = torch.from_numpy(
        rng.uniform(0.85, 1.15, (count, 1, 1, 1)) * rng.uniform(0.95, 1.05, (count, 3, 1, 1))
    ).float()
    lift = torch.from_numpy(rng.uniform(-0.05, 0.05, (count, 1, 1, 1))).float()
    return (images * gain + lift).clamp_(0, 1).contiguous(memory_format=torch.channels_last)


def learning_rate(progress: float, peak: float) -> float:
    """Return the rate at `progress` (0..1): a short rise, then a cosine down to a hundredth."""
    if progress < WARM_UP:
        return peak * (0.05 + 0.95 * progress / WARM_UP)
    fall = (1 + math.cos(math.pi * min(1.0, (progress - WARM_UP) / (1 - WARM_UP)))) / 2
    return peak * (0.01 + 0.99 * fall)


def averaged(detector: Detector, progress: float, workers: int) -> float:
    """Average the gradients, and the progress, over all worker processes."""
    gradients = [p.grad for p in detector.parameters() if p.grad is not None]
    flat = torch.cat([g.reshape(-1) for g in gradients] + [torch.tensor([progress])])
    distributed.all_reduce(flat)
    flat /= workers
    start = 0
    for gradient in gradients:
        gradient.copy_(flat[start : start + gradient.numel()].view_as(gradient))
        start += gradient.numel()
    return float(flat[-1])


def train(worker: int, options: argparse.Namespace, meeting: str) -> None:
    """Fit as one of several equal processes; the first reports, and exports the averaged weights."""
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    distributed.init_process_group("gloo", init_method=f"file://{meeting}", rank=worker, world_size=options.workers)
    rng = np.random.default_rng([options.seed, worker])
    pictures = batches(*load(options.cache), options.batch // options.workers, rng)
    detector = Detector().to(memory_format=torch.channels_last)
    average = Average(detector, 0.998)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=options.rate, weight_decay=0.02)
    started, progress, step, sums = time.monotonic(), 0.0, 0, np.zeros(2)
    while progress < 1:
        images, objects = next(pictures)
        losses = loss(*detector.decode(detector(images)), objects)
        optimizer.zero_grad(set_to_none=True)
        torch.stack(losses).sum().backward()
        step += 1
        elapsed = (time.monotonic() - started) / 60
        progress = averaged(detector, max(step / options.steps, elapsed / options.minutes), options.workers)
        torch.nn.utils.clip_grad_norm_(detector.parameters(), 10.0)
        optimizer.param_groups[0]["lr"] = learning_rate(progress, options.rate)
        optimizer.step()
        average.update(detector)
        sums += [value.item() for value in losses]
        if worker == 0 and (step % REPORT_STEPS == 0 or progress >= 1):
            box, kind = sums / ((step - 1) % REPORT_STEPS + 1)
            print(f"step {step}, {progress:.0%}: box {box:.3f} class {kind:.3f}, {elapsed:.1f} min", flush=True)
            sums[:] = 0
            export(average.detector, options.output)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the players detector on rendered footage.")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "models/players/model.onnx")
    parser.add_argument("--steps", type=int, default=8000, help="the schedule's length")
    parser.add_argument("--minutes", type=float, default=math.inf, help="shorten the schedule to this time")
    parser.add_argument("--batch", type=int, default=16, help="pictures in a step, of all workers together")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, (options, f"{folder}/meeting"), nprocs=options.workers)


if __name__ == "__main__":
    main()

"""Trains a detector, of players or of the ball, on the cache of `dataset.py` and writes its ONNX file.

A command for people. It owns the schedule and the augmentation: mirrored, shifted and recoloured
pictures, or windows of them, AdamW along a cosine, and a running average of the weights, which is what
is exported. Its workers are processes of one thread that share every step's gradients.

    python train.py --model players --cache CACHE
    python train.py --model ball --cache CACHE
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
from dataset import load_ball, load_players
from detectors import PLANS, Detector, Plan
from export import export_detector
from torch import Tensor, distributed, nn

HERE = Path(__file__).parent
LOADERS = {"players": load_players, "ball": load_ball}
DESCRIPTIONS = {
    "players": "Headworks football example: players, referees and ball, trained on rendered footage",
    "ball": "Headworks football example: the ball at six pixels, trained on rendered footage",
}
PAD_VALUE = 114
MOST_SHIFT = 12  # pixels
WARM_UP = 0.06  # of the schedule
REPORT_STEPS = 200


class Average:
    """A running average of a network's weights; early steps weigh less."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).eval()
        self.decay, self.steps = decay, 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        self.steps += 1
        keep = self.decay * (1 - math.exp(-self.steps / 200))
        for own, new in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if own.dtype.is_floating_point:
                own.mul_(keep).add_(new, alpha=1 - keep)
            else:
                own.copy_(new)


def batches(
    images: list[np.ndarray], objects: list[np.ndarray], plan: Plan, size: int, rng: np.random.Generator
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield, without end, (B, 3, H, W) float pictures in 0..1 and (B, G, 5) padded objects."""
    while True:
        chosen = rng.integers(0, len(images), size)
        if plan.window is None:
            pairs = [shifted(*mirrored(images[i], objects[i], rng), rng) for i in chosen]
        else:
            pairs = [mirrored(*windowed(images[i], objects[i], plan.window, rng), rng) for i in chosen]
        padded = np.full((size, max(1, *(len(o) for _, o in pairs)), 5), -1, np.float32)
        for index, (_, rows) in enumerate(pairs):
            padded[index, : len(rows)] = rows
        stacked = torch.from_numpy(np.stack([image for image, _ in pairs])).permute(0, 3, 1, 2)
        yield recoloured(stacked.float().div_(255), rng), torch.from_numpy(padded)


def mirrored(image: np.ndarray, objects: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Mirror half the pictures."""
    objects = objects.copy()
    if rng.random() < 0.5:
        image = image[:, ::-1]
        objects[:, 1] = image.shape[1] - objects[:, 1]
    return image, objects


def shifted(image: np.ndarray, objects: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shift most pictures by whole pixels, filling with grey."""
    dx, dy = (int(v) for v in rng.integers(-MOST_SHIFT, MOST_SHIFT + 1, 2))
    if rng.random() < 0.3:
        dx = dy = 0
    height, width = image.shape[:2]
    canvas = np.full(image.shape, PAD_VALUE, np.uint8)
    canvas[max(dy, 0) : height + min(dy, 0), max(dx, 0) : width + min(dx, 0)] = \
        image[max(-dy, 0) : height - max(dy, 0), max(-dx, 0) : width - max(dx, 0)]  # fmt: skip
    objects[:, 1:3] += (dx, dy)
    return canvas, _inside(objects, height, width)


def windowed(
    image: np.ndarray, objects: np.ndarray, side: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Cut a square window: with the object anywhere in it half the time, from anywhere else."""
    room = np.array([image.shape[1] - side, image.shape[0] - side])
    corner = rng.integers(0, room + 1)
    if len(objects) and rng.random() < 0.5:
        corner = np.clip((objects[0, 1:3] - rng.uniform(0, side, 2)).round().astype(int), 0, room)
    left, top = corner
    moved = objects - np.array([0, left, top, 0, 0], np.float32)
    return image[top : top + side, left : left + side], _inside(moved, side, side)


def _inside(objects: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the objects whose centre lies in the picture."""
    inside = (objects[:, 1] > 0) & (objects[:, 1] < width) & (objects[:, 2] > 0) & (objects[:, 2] < height)
    return objects[inside]


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
    plan = PLANS[options.model]
    pictures = batches(*LOADERS[options.model](options.cache), plan, options.batch // options.workers, rng)
    detector = Detector(plan).to(memory_format=torch.channels_last)
    average = Average(detector, 0.998)
    optimizer = torch.optim.AdamW(detector.parameters(), lr=options.rate, weight_decay=0.02)
    started, progress, step, sums = time.monotonic(), 0.0, 0, np.zeros(2)
    while progress < 1:
        images, objects = next(pictures)
        grid = plan.grid(*images.shape[2:])
        losses = loss(*detector.decode(detector(images), grid), objects, plan, grid)
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
            export_detector(average.network, options.output, description=DESCRIPTIONS[options.model])


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a detector on rendered footage.")
    parser.add_argument("--model", choices=list(PLANS), required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="default: models/MODEL/model.onnx")
    parser.add_argument("--steps", type=int, default=8000, help="the schedule's length")
    parser.add_argument("--minutes", type=float, default=math.inf, help="shorten the schedule to this time")
    parser.add_argument("--batch", type=int, default=16, help="pictures in a step, of all workers together")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each")
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    options.output = options.output or HERE / f"models/{options.model}/model.onnx"
    with tempfile.TemporaryDirectory() as folder:
        torch.multiprocessing.spawn(train, (options, f"{folder}/meeting"), nprocs=options.workers)


if __name__ == "__main__":
    main()

"""Trains the teams classifier on the crops of `dataset.py` and writes its ONNX file.

A command for people. It owns the schedule and the augmentation of crops; the running average of the
weights, which is what is exported, and the learning rate's course are those of `train.py`.

    python train_teams.py --cache CACHE
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
from dataset import load_crops
from export import export_classifier
from teams import Classifier
from torch import Tensor
from torch.nn import functional
from train import HERE, REPORT_STEPS, Average, learning_rate, recoloured

DESCRIPTION = "Headworks football example: a player's shirt from his crop, trained on rendered footage"


def batch(crops: np.ndarray, labels: np.ndarray, size: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Return (B, 3, 64, 32) float crops in 0..1, half of them mirrored and all recoloured, and labels (B,)."""
    chosen = rng.integers(0, len(crops), size)
    images = crops[chosen]
    turned = rng.random(size) < 0.5
    images[turned] = images[turned, :, ::-1]
    return recoloured(torch.from_numpy(images).permute(0, 3, 1, 2).float().div_(255), rng), \
        torch.from_numpy(labels[chosen])  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the teams classifier on crops of rendered footage.")
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--output", type=Path, default=HERE / "models/teams/model.onnx")
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--batch", type=int, default=96)
    parser.add_argument("--rate", type=float, default=3e-3)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    crops, labels = load_crops(options.cache)
    classifier = Classifier().to(memory_format=torch.channels_last)
    average = Average(classifier, 0.995)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=options.rate, weight_decay=0.02)
    total = 0.0
    for step in range(1, options.steps + 1):
        images, truth = batch(crops, labels, options.batch, rng)
        cost = functional.cross_entropy(classifier(images), truth)
        optimizer.zero_grad(set_to_none=True)
        cost.backward()
        optimizer.param_groups[0]["lr"] = learning_rate(step / options.steps, options.rate)
        optimizer.step()
        average.update(classifier)
        total += cost.item()
        if step % REPORT_STEPS == 0:
            print(f"step {step}: loss {total / REPORT_STEPS:.4f}", flush=True)
            total = 0.0
    export_classifier(average.network, options.output, description=DESCRIPTION)


if __name__ == "__main__":
    main()

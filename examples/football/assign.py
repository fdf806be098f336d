"""Decides which predictor answers for which object, and what a batch of predictions costs.

`train.py` calls `loss`. It owns the assignment: the nine predictors around an object's centre
compete by score and overlap (task-aligned assignment), the best CHOSEN learn the object. Boxes are
cx, cy, w, h in network-input pixels; objects come padded to (B, G, 5) with class -1 as padding.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from detectors import CELL, Grid, Plan
from torch import Tensor
from torch.nn import functional

CHOSEN = 3
OVERLAP_POWER, SCORE_POWER = 4.0, 0.5
BOX_WEIGHT = 2.0


@dataclass(frozen=True)
class Assignment:
    """Flat picks, all (P,): row of the batch, predictor, class, the object's box (P, 4), target score."""

    row: Tensor
    predictor: Tensor
    kind: Tensor
    box: Tensor
    target: Tensor


def loss(boxes: Tensor, logits: Tensor, objects: Tensor, plan: Plan, grid: Grid) -> tuple[Tensor, Tensor]:
    """Return the box and the class loss of boxes (B, N, 4) and logits (B, N, classes)."""
    picks = assign(boxes.detach(), logits.detach(), objects, plan, grid)
    targets = torch.zeros_like(logits)
    targets[picks.row, picks.predictor, picks.kind] = picks.target
    total = picks.target.sum().clamp(min=1.0)
    # Quality focal weighting: an easy empty cell costs almost nothing.
    weight = (targets - logits.detach().sigmoid()).abs().pow(1.5) + 0.05 * targets
    importance = torch.tensor(plan.kind_weights)
    score_losses = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    score_loss = (score_losses * weight * importance).sum()
    chosen = boxes[picks.row, picks.predictor]
    box_loss = ((1 - complete_iou(chosen, picks.box)) * picks.target * importance[picks.kind]).sum()
    return BOX_WEIGHT * box_loss / total, 2 * score_loss / total


def assign(boxes: Tensor, logits: Tensor, objects: Tensor, plan: Plan, grid: Grid) -> Assignment:
    """Choose predictors for `objects` (B, G, 5)."""
    near, valid, closeness = neighbours(objects, grid)
    rows = torch.arange(len(boxes))[:, None, None]
    kinds = objects[..., 0].long().clamp(min=0)
    truth = objects[:, :, None, 1:]
    overlap = complete_iou(boxes[rows, near], truth).clamp(min=0) + 0.05
    score = logits[rows, near, kinds[..., None]].sigmoid()
    metric = (score.pow(SCORE_POWER) * overlap.pow(OVERLAP_POWER) * closeness + 1e-12) * valid
    best, order = metric.topk(CHOSEN, dim=-1)
    chosen = near.gather(-1, order)
    row = rows.expand_as(chosen)
    winner = torch.zeros(len(boxes), boxes.shape[1])
    flat = row * boxes.shape[1] + chosen
    winner.view(-1).scatter_reduce_(0, flat.reshape(-1), best.reshape(-1), "amax")
    best = best * (best >= winner.view(-1)[flat])  # a predictor two objects want goes to the better match
    kept = best > 0
    # The object's best pick aims at its overlap, the others at a proportion of that.
    quality = (overlap.gather(-1, order) * kept).amax(-1, keepdim=True)
    quality = torch.maximum(quality, torch.tensor(plan.least_targets)[kinds][..., None]).clamp(max=1)
    target = best / best.amax(-1, keepdim=True).clamp(min=1e-12) * quality
    return Assignment(row[kept], chosen[kept], kinds[..., None].expand_as(chosen)[kept],
                      truth.expand(*chosen.shape, 4)[kept], target[kept])  # fmt: skip


def neighbours(objects: Tensor, grid: Grid) -> tuple[Tensor, Tensor, Tensor]:
    """Return the nine predictors about each centre, (B, G, 9), which exist, and their closeness (0..1)."""
    columns, rows = grid.width * grid.slots, grid.height
    step = torch.tensor([-1, 0, 1])
    column = (objects[..., 1, None] / (CELL / grid.slots)).floor().long() + step.repeat(3)
    row = (objects[..., 2, None] / CELL).floor().long() + step.repeat_interleave(3)
    valid = (column >= 0) & (column < columns) & (row >= 0) & (row < rows) & (objects[..., :1] >= 0)
    across = objects[..., 1, None] / (CELL / grid.slots) - column - 0.5
    along = objects[..., 2, None] / CELL - row - 0.5
    closeness = torch.exp(-across.square() - along.square())
    column, row = column.clamp(0, columns - 1), row.clamp(0, rows - 1)
    predictor = (column % grid.slots) * rows * grid.width + row * grid.width + column // grid.slots
    return predictor, valid, closeness


def complete_iou(first: Tensor, second: Tensor) -> Tensor:
    """Return CIoU (-1..1) of (..., 4) boxes, broadcast."""
    first_low, first_high = first[..., :2] - first[..., 2:] / 2, first[..., :2] + first[..., 2:] / 2
    second_low, second_high = second[..., :2] - second[..., 2:] / 2, second[..., :2] + second[..., 2:] / 2
    shared = (torch.minimum(first_high, second_high) - torch.maximum(first_low, second_low)).clamp(min=0).prod(-1)
    union = first[..., 2:].prod(-1) + second[..., 2:].prod(-1) - shared + 1e-7
    iou = shared / union
    hull = torch.maximum(first_high, second_high) - torch.minimum(first_low, second_low)
    distance = (first[..., :2] - second[..., :2]).square().sum(-1) / (hull.square().sum(-1) + 1e-7)
    angles = [torch.atan(b[..., 2] / (b[..., 3] + 1e-7)) for b in (first, second)]
    shape = (4 / math.pi**2) * (angles[0] - angles[1]).square()
    with torch.no_grad():
        share = shape / (1 - iou + shape + 1e-7)
    return iou - distance - share * shape

"""The two detectors: what each looks for, at which size, and through which layers.

`train.py` fits one of them and `export.py` writes it out. It owns the layout of the prediction: every
cell of the stride-8 grid predicts `slots` boxes side by side, because two players can stand closer than
8 pixels. Shapes are (batch, channels, height, width); lengths are network-input pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from network import Layer, Table, conv, residual
from torch import Tensor, nn

CELL = 8  # pixels a grid cell is wide and high


@dataclass(frozen=True)
class Grid:
    """The predictors over a picture: `slots` in each cell, slot-major, then row-major."""

    height: int
    width: int
    slots: int

    def centres(self) -> Tensor:
        """Return the (1, 2, N) centres (x, y) of all predictors."""
        slot, row, column = torch.meshgrid(
            torch.arange(self.slots), torch.arange(self.height), torch.arange(self.width), indexing="ij"
        )
        x = (column + (slot + 0.5) / self.slots) * CELL
        y = (row + 0.5) * CELL
        return torch.stack((x.flatten(), y.flatten())).float()[None]


@dataclass(frozen=True)
class Plan:
    """One detector. `prior` is the width and height of a usual object, `kind_weights` and `least_targets` its loss."""

    names: tuple[str, ...]
    height: int
    width: int
    slots: int
    prior: tuple[float, float]
    layers: tuple[Layer, ...]
    # A class that is rare in a picture weighs more; where the overlap of tiny boxes is a poor judge, the
    # best predictor aims at no less than this score.
    kind_weights: tuple[float, ...]
    least_targets: tuple[float, ...]
    window: int | None = None  # side of the squares of the picture it is trained on; None: the whole

    @property
    def values(self) -> int:
        """Numbers a predictor gives: cx, cy, w, h, then one score per class."""
        return 4 + len(self.names)

    def grid(self, height: int, width: int) -> Grid:
        return Grid(height // CELL, width // CELL, self.slots)


def _head(source: str, inner: int, channels: int, outputs: int) -> tuple[Layer, ...]:
    return (
        conv("head_a", source, inner),
        conv("head_b", "head_a", channels, kernel=3),
        conv("head", "head_b", outputs, relu=False, norm=False),
    )


def _layers(stem: int, mid: int, far: int, head: tuple[int, int], outputs: int) -> tuple[Layer, ...]:
    """Return a stem of stride 4, a stage at stride 8, one at stride 16 added back to it for context, and a head."""
    return (
        conv("stem", "images", stem, kernel=6, stride=4),
        conv("mid", "stem", mid, kernel=3, stride=2),
        *residual("mid", "mid", mid, mid // 2),
        conv("far", "mid_sum", far, kernel=3, stride=2),
        *residual("far", "far", far, far // 2),
        conv("far_out", "far_sum", mid, relu=False),
        Layer("far_up", "up", ("far_out",), mid),
        Layer("joined", "add", ("mid_sum", "far_up"), mid),
        *_head("joined", *head, outputs),
    )


PLAYERS = Plan(
    names=("player", "referee", "ball"),
    height=224,
    width=384,
    slots=2,
    prior=(8.0, 18.0),
    layers=_layers(24, 48, 64, (32, 48), 2 * 7),
    kind_weights=(1.0, 1.5, 5.0),
    least_targets=(0.3, 0.3, 1.0),
)
BALL = Plan(
    names=("ball",),
    height=544,
    width=960,
    slots=1,
    prior=(6.0, 6.0),
    layers=_layers(24, 40, 56, (24, 32), 5),
    kind_weights=(1.0,),
    least_targets=(1.0,),
    window=160,
)
PLANS = {"players": PLAYERS, "ball": BALL}


class Detector(nn.Module):
    """A detector in PyTorch. `forward` answers the raw head, `decode` the boxes of output0."""

    def __init__(self, plan: Plan) -> None:
        super().__init__()
        self.plan = plan
        self.table = Table(plan.layers)
        self._start_quiet()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..1 -> raw (B, 4 + classes, N), slot-major."""
        return self.table(images).reshape(images.shape[0], self.plan.values, -1)

    def decode(self, raw: Tensor, grid: Grid) -> tuple[Tensor, Tensor]:
        """Raw (B, 4 + classes, N) -> boxes (B, N, 4) as cx, cy, w, h in pixels and class logits (B, N, classes)."""
        prior = raw.new_tensor(self.plan.prior).view(1, 2, 1)
        centre = raw[:, 0:2] * CELL + grid.centres()
        size = torch.exp(raw[:, 2:4].clamp(-4.0, 4.0)) * prior
        return torch.cat((centre, size), 1).transpose(1, 2), raw[:, 4:].transpose(1, 2)

    def _start_quiet(self) -> None:
        """Start every score near 1 %, so the many empty cells do not drown the first steps."""
        head = self.table.blocks["head"][0]
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        head.bias.data[4 * self.plan.slots :] = -math.log(99.0)

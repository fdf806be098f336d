"""The players detector: one table of layers, read by PyTorch here and by `export.py` as ONNX.

`train.py` fits it and `export.py` writes it out. It owns the layout of the prediction: every cell of
the stride-8 grid predicts SLOTS boxes side by side, because two players can stand closer than 8
pixels. Shapes are (batch, channels, height, width); lengths are network-input pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

INPUT_HEIGHT, INPUT_WIDTH = 224, 384
CLASS_NAMES = ("player", "referee", "ball")
CELL = 8  # pixels a grid cell is wide and high
SLOTS = 2  # predictors in a cell: its left half and its right half
VALUES = 4 + len(CLASS_NAMES)  # cx, cy, w, h, then one score per class
GRID_HEIGHT, GRID_WIDTH = INPUT_HEIGHT // CELL, INPUT_WIDTH // CELL
PRIOR_WIDTH, PRIOR_HEIGHT = 8.0, 18.0  # exp(0) times this is a usual player


@dataclass(frozen=True)
class Layer:
    """One row of the table: a convolution with ReLU, a sum or a doubling of the picture."""

    name: str
    kind: str  # "conv", "add" or "up"
    sources: tuple[str, ...]
    channels: int
    kernel: int = 1
    stride: int = 1
    groups: int = 1
    relu: bool = True

    @property
    def padding(self) -> int:
        """Pixels added on each side, so that the output is the input's size over the stride."""
        return (self.kernel - self.stride) // 2 if self.kernel % 2 == 0 else (self.kernel - 1) // 2


def conv(name: str, source: str, channels: int, **options: int | bool) -> Layer:
    """Return a convolution row; kernel, stride, groups and relu by keyword."""
    return Layer(name, "conv", (source,), channels, **options)  # type: ignore[arg-type]


LAYERS = (
    conv("stem", "images", 24, kernel=6, stride=4),  # 56 x 96
    conv("mid", "stem", 48, kernel=3, stride=2),  # 28 x 48
    conv("mid_a", "mid", 24),
    conv("mid_b", "mid_a", 48, kernel=3),
    Layer("mid_sum", "add", ("mid", "mid_b"), 48),
    conv("far", "mid_sum", 64, kernel=3, stride=2),  # 14 x 24, for context
    conv("far_a", "far", 32),
    conv("far_b", "far_a", 64, kernel=3),
    Layer("far_sum", "add", ("far", "far_b"), 64),
    conv("far_out", "far_sum", 48, relu=False),
    Layer("far_up", "up", ("far_out",), 48),  # 28 x 48
    Layer("joined", "add", ("mid_sum", "far_up"), 48),
    conv("head_a", "joined", 32),
    conv("head_b", "head_a", 48, kernel=3),
    conv("head", "head_b", SLOTS * VALUES, relu=False),
)


class Detector(nn.Module):
    """The network in PyTorch. `forward` answers the raw head, `decode` the boxes of output0."""

    def __init__(self, layers: tuple[Layer, ...] = LAYERS) -> None:
        super().__init__()
        self.layers = layers
        widths = {"images": 3}
        self.blocks = nn.ModuleDict()
        for layer in layers:
            widths[layer.name] = layer.channels
            if layer.kind == "conv":
                self.blocks[layer.name] = _block(layer, widths[layer.sources[0]])
        self.register_buffer("centres", cell_centres(), persistent=False)
        self._start_quiet()

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, 224, 384) in 0..1 -> raw (B, 7, N), N = SLOTS * 28 * 48, slot-major."""
        values = {"images": images}
        for layer in self.layers:
            values[layer.name] = self._value(layer, [values[source] for source in layer.sources])
        return values["head"].reshape(images.shape[0], VALUES, -1)

    def decode(self, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Raw (B, 7, N) -> boxes (B, N, 4) as cx, cy, w, h in pixels and class logits (B, N, 3)."""
        prior = raw.new_tensor([PRIOR_WIDTH, PRIOR_HEIGHT]).view(1, 2, 1)
        centre = raw[:, 0:2] * CELL + self.centres
        size = torch.exp(raw[:, 2:4].clamp(-4.0, 4.0)) * prior
        return torch.cat((centre, size), 1).transpose(1, 2), raw[:, 4:].transpose(1, 2)

    def _value(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        if layer.kind == "conv":
            return self.blocks[layer.name](inputs[0])
        if layer.kind == "add":
            return inputs[0] + inputs[1]
        return nn.functional.interpolate(inputs[0], scale_factor=2.0, mode="nearest")

    def _start_quiet(self) -> None:
        """Start every score near 1 %, so the many empty cells do not drown the first steps."""
        head = self.blocks["head"][0]
        nn.init.normal_(head.weight, std=0.01)
        nn.init.zeros_(head.bias)
        head.bias.data[4 * SLOTS :] = -math.log(99.0)


def cell_centres() -> Tensor:
    """Return the (1, 2, N) centres (x, y) of all predictors, slot-major then row-major."""
    slot, row, column = torch.meshgrid(
        torch.arange(SLOTS), torch.arange(GRID_HEIGHT), torch.arange(GRID_WIDTH), indexing="ij"
    )
    x = (column + (slot + 0.5) / SLOTS) * CELL
    y = (row + 0.5) * CELL
    return torch.stack((x.flatten(), y.flatten())).float()[None]


def _block(layer: Layer, in_channels: int) -> nn.Sequential:
    """Return convolution, batch norm and ReLU; the head has neither of the last two but a bias."""
    is_head = layer.name == "head"
    options = {"padding": layer.padding, "groups": layer.groups, "bias": is_head}
    parts: list[nn.Module] = [nn.Conv2d(in_channels, layer.channels, layer.kernel, layer.stride, **options)]
    if not is_head:
        parts.append(nn.BatchNorm2d(layer.channels, momentum=0.03, eps=1e-3))
    if layer.relu:
        parts.append(nn.ReLU(inplace=True))
    return nn.Sequential(*parts)

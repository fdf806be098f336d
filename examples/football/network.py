"""Networks as tables of layers, read by PyTorch here and by `export.py` as ONNX.

`detectors.py` and `teams.py` write the tables. It owns what a row of a table means: a convolution with
batch norm and ReLU, a sum or a doubling of the picture. Shapes are (batch, channels, height, width).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn


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
    norm: bool = True  # without batch norm a convolution has a bias

    @property
    def padding(self) -> int:
        """Pixels added on each side, so that the output is the input's size over the stride."""
        return (self.kernel - self.stride) // 2 if self.kernel % 2 == 0 else (self.kernel - 1) // 2


def conv(name: str, source: str, channels: int, **options: int | bool) -> Layer:
    """Return a convolution row; kernel, stride, groups, relu and norm by keyword."""
    return Layer(name, "conv", (source,), channels, **options)  # type: ignore[arg-type]


def residual(name: str, source: str, channels: int, inner: int) -> tuple[Layer, ...]:
    """Return rows that narrow `source` to `inner` channels, look about with 3x3 and add the result as NAME_sum."""
    return (
        conv(f"{name}_a", source, inner),
        conv(f"{name}_b", f"{name}_a", channels, kernel=3),
        Layer(f"{name}_sum", "add", (source, f"{name}_b"), channels),
    )


class Table(nn.Module):
    """A table in PyTorch: `forward` answers the value of its last layer."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        super().__init__()
        self.layers = layers
        widths = {"images": 3}
        self.blocks = nn.ModuleDict()
        for layer in layers:
            widths[layer.name] = layer.channels
            if layer.kind == "conv":
                self.blocks[layer.name] = _block(layer, widths[layer.sources[0]])

    def forward(self, images: Tensor) -> Tensor:
        values = {"images": images}
        for layer in self.layers:
            values[layer.name] = self._value(layer, [values[source] for source in layer.sources])
        return values[self.layers[-1].name]

    def folded(self, layer: Layer) -> tuple[np.ndarray, np.ndarray]:
        """Return weight (out, in / groups, k, k) and bias (out,) as doubles, with batch norm multiplied in."""
        block = self.blocks[layer.name]
        weight = block[0].weight.detach().double().numpy()
        if not layer.norm:
            return weight, block[0].bias.detach().double().numpy()
        norm = block[1]
        scale = norm.weight / (norm.running_var.double() + norm.eps).sqrt()
        bias = norm.bias - norm.running_mean * scale
        return weight * scale.detach().numpy()[:, None, None, None], bias.detach().numpy()

    def _value(self, layer: Layer, inputs: list[Tensor]) -> Tensor:
        if layer.kind == "conv":
            return self.blocks[layer.name](inputs[0])
        if layer.kind == "add":
            return inputs[0] + inputs[1]
        return nn.functional.interpolate(inputs[0], scale_factor=2.0, mode="nearest")


def _block(layer: Layer, in_channels: int) -> nn.Sequential:
    options = {"padding": layer.padding, "groups": layer.groups, "bias": not layer.norm}
    parts: list[nn.Module] = [nn.Conv2d(in_channels, layer.channels, layer.kernel, layer.stride, **options)]
    if layer.norm:
        parts.append(nn.BatchNorm2d(layer.channels, momentum=0.03, eps=1e-3))
    if layer.relu:
        parts.append(nn.ReLU(inplace=True))
    return nn.Sequential(*parts)

"""What media has to know of a model: the read-only side of `engine.base`, so that neither room imports the other.

`Preparer` and `make_heads` take these; the composition root hands in the model's own description, which has them all.
Attributes mean what they mean there.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

Shape = tuple[int | None, ...]


class Input(Protocol):
    """The picture a network takes."""

    @property
    def width(self) -> int:
        """Pixels."""

    @property
    def height(self) -> int:
        """Pixels."""

    @property
    def color(self) -> str:
        """`rgb`, `bgr` or `gray`."""


class Preprocess(Protocol):
    """The way from a source picture to the network's."""

    @property
    def resize(self) -> str:
        """`letterbox`, `stretch`, `center_crop` or `fit_shorter`."""

    @property
    def interpolation(self) -> str:
        """`bilinear`, `bicubic`, `area` or `nearest`."""

    @property
    def antialias(self) -> bool:
        """Whether shrinking looks at every source pixel."""

    @property
    def anchor(self) -> str:
        """Where a letterboxed picture lies: `center` or `top_left`."""

    @property
    def rounding(self) -> str:
        """Of a letterboxed picture's sides: `round` or `floor`."""

    @property
    def scale_up(self) -> bool:
        """Whether a letterboxed picture may be enlarged."""

    @property
    def crop_pct(self) -> float:
        """The share of the scaled picture's shorter side that `center_crop` keeps, 0 to 1."""

    @property
    def decode_scale(self) -> str:
        """`auto` or `1`."""


class Tensor(Protocol):
    """One output of a graph for one frame."""

    @property
    def name(self) -> str:
        """In the graph."""

    @property
    def dtype(self) -> str:
        """NumPy's name."""

    @property
    def shape(self) -> Shape | None:
        """Without the batch axis; None where an axis, or the rank, is not known."""


class Output(Protocol):
    """All outputs, and how one of them is to be read."""

    @property
    def head(self) -> str:
        """The layout of the output that is read."""

    @property
    def tensors(self) -> Sequence[Tensor]:
        """In the graph's order."""

    @property
    def index(self) -> int:
        """Of the tensor that the head reads."""

    @property
    def boxes(self) -> str:
        """`cxcywh`, `xyxy` or `yxyx`."""

    @property
    def normalized(self) -> bool:
        """Whether boxes are fractions of the network's sides."""

    @property
    def activation(self) -> str:
        """`softmax`, `sigmoid` or `none`."""


class Postprocess(Protocol):
    """What of an output is told, where a stream does not say otherwise."""

    @property
    def score_threshold(self) -> float:
        """0 to 1."""

    @property
    def iou_threshold(self) -> float:
        """0 to 1."""

    @property
    def agnostic(self) -> bool:
        """Whether boxes of different classes suppress each other."""

    @property
    def multi_label(self) -> bool:
        """Whether a box counts for each class that passes."""

    @property
    def max_detections(self) -> int:
        """At least 1."""

    @property
    def top_k(self) -> int:
        """At least 1."""


class Model(Protocol):
    """A model as its heads see it."""

    @property
    def path(self) -> Path:
        """The file, named in errors."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Class names, by class id."""

    @property
    def input(self) -> Input:
        """The one input."""

    @property
    def output(self) -> Output:
        """The outputs."""

    @property
    def postprocess(self) -> Postprocess:
        """The defaults of a stream."""

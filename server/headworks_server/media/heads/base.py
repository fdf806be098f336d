"""What all heads have in common: their interface, and how an output that does not fit is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol

import numpy.typing as npt

from headworks_server.errors import ModelError
from headworks_server.media.geometry import Geometry
from headworks_server.media.specs import Shape, Tensor

Array = npt.NDArray[Any]

# As ResultOptions.Form numbers them.
DETECTIONS: Final = 1
CLASSIFICATIONS: Final = 2
RAW_TENSORS: Final = 3

_FLOATS: Final = ("float16", "float32", "float64")


class Head(Protocol):
    """Turns the outputs for one frame into one form of a result. Threads may share a head."""

    form: int

    def check(self, tensors: Sequence[Tensor]) -> None:
        """Hold the model's outputs against what the head reads.

        An axis that is not known may be anything here. After a run everything is known, and it can be asked again.

        Raises:
            ModelError: an output does not fit; the message says which, what was expected and what came.
        """

    def postprocess(
        self, outputs: Sequence[Array], index: int, geometry: Geometry, *, score_threshold: float, max_detections: int
    ) -> tuple[bytes, bytes]:
        """Return what is told of one frame.

        Args:
            outputs: of the batch, [size, ...] each, in the model's order.
            index: of the frame in the batch.
            geometry: how the frame was laid into the network's input.
            score_threshold: only scores above this; 0 is the model's own.
            max_detections: the most boxes, or classes of a classification; 0 is the model's own.

        Returns:
            Packed detections (see `headworks_native.nms`) and nothing, or nothing and the encoded field of
            headworks.v1.Output that holds the value.
        """


def require(fits: bool, tensor: Tensor, expected: str) -> None:
    """Refuse an output whose shape does not fit.

    Raises:
        ModelError: it does not.
    """
    if not fits:
        raise ModelError(f"output {tensor.name!r}: expected {expected}, got {shape_text(tensor.shape)}")


def require_floats(tensor: Tensor) -> None:
    """Refuse an output that holds no floats.

    Raises:
        ModelError: it holds something else.
    """
    if tensor.dtype not in _FLOATS:
        raise ModelError(f"output {tensor.name!r}: expected {', '.join(_FLOATS)}, got {tensor.dtype}")


def agrees(axis: int | None, expected: int) -> bool:
    """Whether an axis is as long as it must be, as far as is known."""
    return axis is None or axis == expected


def shape_text(shape: Shape | None) -> str:
    """A shape as errors spell it."""
    if shape is None:
        return "an unknown shape"
    return "[" + ", ".join("?" if axis is None else str(axis) for axis in shape) + "]"

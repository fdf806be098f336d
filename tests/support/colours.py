"""Pictures of one colour, and where the oracle detector sees it: so a result tells which frame it belongs to.

The oracle's box is centred where red and green say, a quarter of the network's input wide and high; blue chooses the
class. See support/models.py.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from headworks.v1 import frame_pb2 as pb
from support.models import Form

Colour = tuple[int, int, int]
CLASS_BLUES = (0, 128, 255)
"""The blue that stands for each of the oracle's three classes."""


def plain(colour: Colour, width: int = 64, height: int = 48) -> npt.NDArray[np.uint8]:
    """An RGB picture of one colour, [height, width, 3]."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:] = colour
    return picture


def raw_bgr(colour: Colour, width: int = 64, height: int = 48) -> bytes:
    """The same as raw pixels, blue first."""
    return bytes(reversed(colour)) * (width * height)


def expected_box(
    colour: Colour, width: int, height: int, form: Form | None = None
) -> tuple[float, float, float, float]:
    """The oracle's box in source pixels, by the plain arithmetic of a centred letterbox, clipped to the picture."""
    form = form or Form()
    scale = min(form.width / width, form.height / height)
    left = (form.width - round(width * scale)) // 2
    top = (form.height - round(height * scale)) // 2
    cx, cy = colour[0] / 255 * form.width, colour[1] / 255 * form.height
    edges = (cx - form.width / 8, cy - form.height / 8, cx + form.width / 8, cy + form.height / 8)
    x1, y1, x2, y2 = ((edge - pad) / scale for edge, pad in zip(edges, (left, top, left, top), strict=True))
    return min(max(x1, 0), width), min(max(y1, 0), height), min(max(x2, 0), width), min(max(y2, 0), height)


def only_box(result: pb.Result) -> pb.Detection:
    """The one detection of a result."""
    (output,) = result.outputs
    (detection,) = output.detections.detections
    return detection


def sees(result: pb.Result, colour: Colour, *, tolerance: float) -> bool:
    """Whether a result is the oracle's answer to a picture of that colour; the tolerance is in source pixels."""
    box = only_box(result)
    expected = expected_box(colour, result.source_width, result.source_height)
    near = np.allclose((box.x1, box.y1, box.x2, box.y2), expected, atol=tolerance)
    return bool(near) and box.class_id == round(colour[2] / 255 * 2)

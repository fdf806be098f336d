"""How a picture is laid into a network's input and back: pure geometry, called by `decode` and `heads`.

The numbers equal those of the Ultralytics family, rounding included, so that served boxes equal those of the
reference. Everything is computed from the size of the source, also where the picture is decoded at a fraction of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True, slots=True)
class Letterbox:
    """A source picture centred in a network's input; all sizes in pixels.

    Attributes:
        source_width: of the picture as stored.
        source_height: of the picture as stored.
        width: of the network's input.
        height: of the network's input.
        scale: network pixels per source pixel.
        interior_width: of the scaled picture inside the input.
        interior_height: of the scaled picture inside the input.
        left: columns of padding before the interior.
        top: rows of padding before the interior.
    """

    source_width: int
    source_height: int
    width: int
    height: int
    scale: float
    interior_width: int
    interior_height: int
    left: int
    top: int

    @staticmethod
    def of(source_width: int, source_height: int, *, width: int, height: int) -> Letterbox:
        """Return the letterbox of a source picture in an input of `width` x `height`. All sizes are at least 1."""
        return _letterbox(source_width, source_height, width, height)

    def to_source(self, x: float, y: float) -> tuple[float, float]:
        """Return where the network's point (x, y) lies in the source, not clipped."""
        return (x - self.left) / self.scale, (y - self.top) / self.scale


# Cameras repeat their size: one entry for each camera size and model, and room for the rest.
@lru_cache(maxsize=1024)
def _letterbox(source_width: int, source_height: int, width: int, height: int) -> Letterbox:
    scale = min(height / source_height, width / source_width)
    # The reference has no answer for a picture so thin that a side rounds to nothing; one row is the nearest.
    interior_width = max(1, round(source_width * scale))
    interior_height = max(1, round(source_height * scale))
    return Letterbox(
        source_width=source_width,
        source_height=source_height,
        width=width,
        height=height,
        scale=scale,
        interior_width=interior_width,
        interior_height=interior_height,
        # An odd column or row of padding goes to the right and to the bottom.
        left=round((width - interior_width) / 2 - 0.1),
        top=round((height - interior_height) / 2 - 0.1),
    )

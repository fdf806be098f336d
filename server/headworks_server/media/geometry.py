"""Where a picture lies in a network's input, and the way back: pure arithmetic, called by `prepare` and `fit`.

Each way of resizing equals its origin, rounding included, so that served boxes and scores equal those of the
reference: `letterbox` the Ultralytics family (and with `top_left` and `floor` YOLOX), `center_crop` torchvision and
timm. Everything is computed from the size of the source, also where the picture is decoded at a fraction of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Self

from headworks_server.media.specs import Input, Preprocess


@dataclass(frozen=True, slots=True)
class Geometry:
    """A source picture in a network's input; all sizes in pixels.

    Attributes:
        source_width: of the picture as stored.
        source_height: of the picture as stored.
        width: of the network's input.
        height: of the network's input.
        scale_x: network pixels per source pixel, across.
        scale_y: likewise, down.
        fitted_width: of the whole picture, scaled.
        fitted_height: likewise.
        left: columns of the input before the scaled picture; negative where those of the picture are cut.
        top: rows, likewise.
    """

    source_width: int
    source_height: int
    width: int
    height: int
    scale_x: float
    scale_y: float
    fitted_width: int
    fitted_height: int
    left: int
    top: int

    @property
    def interior_left(self) -> int:
        """Columns of padding before the part of the picture that is inside the input."""
        return max(self.left, 0)

    @property
    def interior_top(self) -> int:
        """Rows of padding, likewise."""
        return max(self.top, 0)

    @property
    def interior_width(self) -> int:
        """Columns of the picture that are inside the input."""
        return min(self.left + self.fitted_width, self.width) - self.interior_left

    @property
    def interior_height(self) -> int:
        """Rows, likewise."""
        return min(self.top + self.fitted_height, self.height) - self.interior_top

    @property
    def fitted(self) -> tuple[int, int]:
        """Width and height of the whole picture, scaled."""
        return self.fitted_width, self.fitted_height

    def to_source(self, x: float, y: float) -> tuple[float, float]:
        """Return where the network's point (x, y) lies in the source, not clipped."""
        return (x - self.left) / self.scale_x, (y - self.top) / self.scale_y


@dataclass(frozen=True, slots=True, kw_only=True)
class Resize:
    """How pictures of any size are laid into one network's input.

    Attributes:
        width: of the network's input, in pixels.
        height: likewise.
        mode: `letterbox` keeps the aspect and pads; `stretch` fills the input, aspect or not; `center_crop` scales the
            picture until it covers the input's sides divided by `crop_pct` and cuts the centre out; `fit_shorter` is
            that with a `crop_pct` of 1.
        anchor: where a letterboxed picture lies, `center` or `top_left`.
        rounding: of a letterboxed picture's sides, `round` or `floor`.
        scale_up: whether a letterboxed picture may be enlarged.
        crop_pct: above 0, at most 1.
    """

    width: int
    height: int
    mode: str = "letterbox"
    anchor: str = "center"
    rounding: str = "round"
    scale_up: bool = True
    crop_pct: float = 1.0

    @classmethod
    def of(cls, given: Input, preprocess: Preprocess) -> Self:
        """Return what a model's description says."""
        return cls(
            width=given.width,
            height=given.height,
            mode=preprocess.resize,
            anchor=preprocess.anchor,
            rounding=preprocess.rounding,
            scale_up=preprocess.scale_up,
            crop_pct=preprocess.crop_pct if preprocess.resize == "center_crop" else 1.0,
        )

    def place(self, source_width: int, source_height: int) -> Geometry:
        """Return where a source picture goes. Its sides are at least 1."""
        return _place(self, source_width, source_height)

    def least_size(self, source_width: int, source_height: int) -> tuple[int, int]:
        """Return the width and height below which a source decoded at a fraction would have to be enlarged."""
        return self.place(source_width, source_height).fitted


# Cameras repeat their size: one entry for each camera size and model, and room for the rest.
@lru_cache(maxsize=1024)
def _place(resize: Resize, source_width: int, source_height: int) -> Geometry:
    place = {"letterbox": _letterbox, "stretch": _stretch}.get(resize.mode, _cover)
    scale_x, scale_y, fitted, corner = place(resize, source_width, source_height)
    return Geometry(source_width, source_height, resize.width, resize.height, scale_x, scale_y, *fitted, *corner)


_Placed = tuple[float, float, tuple[int, int], tuple[int, int]]


def _letterbox(resize: Resize, source_width: int, source_height: int) -> _Placed:
    scale = min(resize.height / source_height, resize.width / source_width)
    if not resize.scale_up:
        scale = min(scale, 1.0)
    to_whole = round if resize.rounding == "round" else int
    # The reference has no answer for a picture so thin that a side rounds to nothing; one row is the nearest.
    width = max(1, to_whole(source_width * scale))
    height = max(1, to_whole(source_height * scale))
    if resize.anchor == "top_left":
        return scale, scale, (width, height), (0, 0)
    # An odd column or row of padding goes to the right and to the bottom.
    left, top = round((resize.width - width) / 2 - 0.1), round((resize.height - height) / 2 - 0.1)
    return scale, scale, (width, height), (left, top)


def _stretch(resize: Resize, source_width: int, source_height: int) -> _Placed:
    size = (resize.width, resize.height)
    return resize.width / source_width, resize.height / source_height, size, (0, 0)


def _cover(resize: Resize, source_width: int, source_height: int) -> _Placed:
    """Scale one side to its goal and let the other go beyond its own, cut in whole pixels, as torchvision does."""
    goal_width, goal_height = round(resize.width / resize.crop_pct), round(resize.height / resize.crop_pct)
    if goal_width * source_height >= goal_height * source_width:
        width, height = goal_width, goal_width * source_height // source_width
    else:
        width, height = goal_height * source_width // source_height, goal_height
    corner = (-round((width - resize.width) / 2), -round((height - resize.height) / 2))
    return width / source_width, height / source_height, (width, height), corner

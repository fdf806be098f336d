"""Scales a decoded picture to the size it has in a network's input, and cuts what falls outside.

Each lane thread owns one `Fitter` for each model, through its `Preparer`. One call of OpenCV a picture, which does not
hold the GIL; memory: one picture of the fitted size, kept.
"""

from __future__ import annotations

from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt

from headworks_server.media.bounds import too_large
from headworks_server.media.geometry import Geometry

Pixels = npt.NDArray[np.uint8]

_INTERPOLATION: Final = {
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST_EXACT,
}


class Fitter:
    """Fits pictures for one model, on one thread.

    `interpolation` is OpenCV's, with half-pixel centres: `bilinear` (INTER_LINEAR) and `bicubic` (INTER_CUBIC, a =
    -0.75) look at 2x2 and 4x4 source pixels however much a picture shrinks, as OpenCV, Ultralytics and tensors without
    `antialias` do; `area` (INTER_AREA) is the mean of the source area under each pixel; `nearest` (INTER_NEAREST_EXACT)
    picks as Pillow does.

    With `antialias` a picture that shrinks is scaled by area, so that no source pixel is passed over. At whole factors
    this equals Pillow's BOX filter to within one level. It does not equal what Pillow and torchvision do by default for
    `antialias`, a triangle or cubic filter of twice or four times that width: on a camera's picture of 1920x1080 the
    mean difference is 0.5 to 1.3 levels, at edges up to 40. Where a picture grows there is nothing to filter.
    """

    def __init__(self, *, interpolation: str = "bilinear", antialias: bool = False, max_pixels: int) -> None:
        """Fit to at most `max_pixels`, which only a crop of a long thin picture can pass."""
        self._interpolation = _INTERPOLATION[interpolation]
        self._antialias = antialias
        self._max_pixels = max_pixels
        self._fitted: Pixels = np.empty((0, 0, 3), np.uint8)

    def fit(self, pixels: Pixels, geometry: Geometry) -> Pixels:
        """Return the part of a picture that is inside the network's input.

        Args:
            pixels: uint8 [height, width, 3]: the source, or the same at a fraction of its size.
            geometry: of the source.

        Returns:
            uint8 [interior_height, interior_width, 3], the pixels of a row together; valid until the next `fit`, or as
            long as `pixels` where nothing had to be scaled.

        Raises:
            FrameRejectedError: the whole picture, scaled, is larger than `max_pixels`.
        """
        width, height = geometry.fitted
        if pixels.shape[:2] != (height, width):
            pixels = self._scale(pixels, geometry)
        if (width, height) == (geometry.interior_width, geometry.interior_height):
            return pixels
        top, left = geometry.interior_top - geometry.top, geometry.interior_left - geometry.left
        return pixels[top : top + geometry.interior_height, left : left + geometry.interior_width]

    def _scale(self, pixels: Pixels, geometry: Geometry) -> Pixels:
        width, height = geometry.fitted
        if width * height > self._max_pixels:
            raise too_large(
                f"expected a picture of at most {self._max_pixels:,} pixels when its shorter side fits the model's "
                f"{geometry.width}x{geometry.height}, got {geometry.source_width}x{geometry.source_height}, "
                f"which is {width}x{height} then"
            )
        if self._fitted.shape[:2] != (height, width):
            self._fitted = np.empty((height, width, 3), np.uint8)
        destination: Any = self._fitted
        shrinks = height <= pixels.shape[0] and width <= pixels.shape[1]
        how = cv2.INTER_AREA if self._antialias and shrinks else self._interpolation
        cv2.resize(pixels, (width, height), dst=destination, interpolation=how)
        return self._fitted

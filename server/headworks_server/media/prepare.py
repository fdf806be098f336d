"""Decoding and scaling of frames for one model, as a lane's seat wants it: the one door from runtime into media."""

from __future__ import annotations

from dataclasses import dataclass

from headworks_server.media.bounds import PictureLimits
from headworks_server.media.decode import Decoder
from headworks_server.media.fit import Fitter, Pixels
from headworks_server.media.geometry import Geometry, Resize
from headworks_server.media.specs import Input, Preprocess


@dataclass(slots=True)
class FittedPicture:
    """A frame as it is to be painted.

    Attributes:
        pixels: uint8 [interior_height, interior_width, 3], the pixels of a row together; valid until the preparer's
            next picture.
        swap: the order of its channels is not the model's; for a gray model, that blue comes first.
        geometry: where the picture lies in the model's input, and how to get back.
    """

    pixels: Pixels
    swap: bool
    geometry: Geometry


class Preparer:
    """Prepares one picture at a time, on one thread."""

    def __init__(self, given: Input, preprocess: Preprocess, *, limits: PictureLimits) -> None:
        """Prepare for a model's input; a JPEG may decode at a fraction of its size unless `decode_scale` is 1."""
        self._resize = Resize.of(given, preprocess)
        self._target = self._resize.least_size if preprocess.decode_scale == "auto" else None
        self._is_bgr = given.color == "bgr"
        self._decoder = Decoder(limits=limits)
        self._fitter = Fitter(
            interpolation=preprocess.interpolation, antialias=preprocess.antialias, max_pixels=limits.max_pixels
        )

    def prepare(self, data: memoryview, *, encoding: int, width: int, height: int) -> FittedPicture:
        """Decode and scale a frame.

        Raises:
            FrameRejectedError: it is damaged, too large or of an encoding that is not served.
        """
        picture = self._decoder.decode(data, encoding=encoding, width=width, height=height, target=self._target)
        geometry = self._resize.place(picture.source_width, picture.source_height)
        return FittedPicture(self._fitter.fit(picture.pixels, geometry), picture.is_bgr != self._is_bgr, geometry)

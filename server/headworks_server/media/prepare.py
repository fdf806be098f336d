"""Decoding and scaling of frames for one model, as a lane's seat wants it: the one door from runtime into media."""

from __future__ import annotations

from dataclasses import dataclass

from headworks_server.media.bounds import PictureLimits
from headworks_server.media.decode import Decoder, Pixels
from headworks_server.media.letterbox import Letterbox


@dataclass(slots=True)
class FittedPicture:
    """A frame at the size of the model's interior.

    Attributes:
        pixels: uint8 [interior_height, interior_width, 3]; valid until the preparer's next picture.
        is_bgr: channels are blue, green, red; else red, green, blue.
        letterbox: where the picture lies in the model's input, and how to get back.
    """

    pixels: Pixels
    is_bgr: bool
    letterbox: Letterbox


class Preparer:
    """Prepares one picture at a time, on one thread."""

    def __init__(self, width: int, height: int, *, limits: PictureLimits, scaled: bool) -> None:
        """Prepare for a model's input of `width` x `height`; `scaled` lets JPEG decode at a fraction of its size."""
        self._width = width
        self._height = height
        self._target = (width, height) if scaled else None
        self._decoder = Decoder(limits=limits)

    def prepare(self, data: memoryview, *, encoding: int, width: int, height: int) -> FittedPicture:
        """Decode and scale a frame.

        Raises:
            FrameRejectedError: it is damaged, too large or of an encoding that is not served.
        """
        picture = self._decoder.decode(data, encoding=encoding, width=width, height=height, target=self._target)
        letterbox = Letterbox.of(picture.source_width, picture.source_height, width=self._width, height=self._height)
        return FittedPicture(self._decoder.fit(picture, letterbox), picture.is_bgr, letterbox)

"""Decodes pictures and scales them to a model's input. Each lane thread owns one `Decoder`.

JPEG goes through libjpeg-turbo (simplejpeg), PNG through libpng (OpenCV), raw pixels are not touched. Each of these is
one C call that does not hold the GIL. EXIF orientation is ignored: pictures are served as stored. Memory of one
decoder: its scratch stays, at most one 4K frame and one model input; a larger picture takes its own memory and gives
it back, at most about 300 MB (a progressive JPEG of 33 million pixels: its coefficients and the picture).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from headworks_server.errors import FrameRejectedError
from headworks_server.media import png
from headworks_server.media.bounds import Encoding, PictureHeader, PictureLimits, undecodable, unsupported
from headworks_server.media.image import read_header
from headworks_server.media.letterbox import Letterbox

# Lanes are the unit of parallelism, one thread each; OpenCV's own threads would only get in their way.
cv2.setNumThreads(1)

Pixels = npt.NDArray[np.uint8]

# A picture up to 4K is decoded into memory that the decoder keeps.
_SCRATCH_BYTES: Final = 3840 * 2160 * 3
# libjpeg-turbo's scaled decodes that have SIMD code; those between (3/8, 5/8, ...) are slower than the next larger.
_JPEG_FACTORS: Final = (8, 4, 2)
_PNG_FLAGS: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# Cameras pad the coded data to a multiple of a few bytes. libjpeg warns of that once all pixels are there.
_PADDED: Final = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_MAX_PADDING: Final = 64


@dataclass(frozen=True, slots=True)
class Picture:
    """A decoded picture.

    Attributes:
        pixels: uint8 [height, width, 3], rows contiguous; valid until the decoder's next `decode`. Height and width
            are those of the source, or 1/2, 1/4 or 1/8 of them, rounded up.
        is_bgr: channels are blue, green, red; else red, green, blue.
        source_width: of the picture as stored, in pixels.
        source_height: of the picture as stored, in pixels.
    """

    pixels: Pixels
    is_bgr: bool
    source_width: int
    source_height: int


class Decoder:
    """Decodes one picture at a time, on one thread."""

    def __init__(self, *, limits: PictureLimits | None = None) -> None:
        """Make a decoder that holds each picture against `limits`, by default `PictureLimits()`."""
        self._limits = limits or PictureLimits()
        self._scratch: Pixels = np.empty(0, np.uint8)
        self._interior: Pixels = np.empty((0, 0, 3), np.uint8)

    def decode(
        self, data: memoryview, *, encoding: int, width: int, height: int, target: tuple[int, int] | None
    ) -> Picture:
        """Decode one picture to RGB, or leave raw BGR as it is.

        A grey picture gives three equal channels, alpha is dropped, 16-bit samples are divided by 257 and rounded.

        Args:
            data: the picture as it came, contiguous bytes; a raw picture's pixels are a view of it.
            encoding: a number of `Encoding`.
            width: as stated by the sender, in pixels; used for raw encodings only.
            height: as `width`.
            target: width and height of the model's input: JPEG may decode at 1/2, 1/4 or 1/8 as long as it stays as
                large as the letterboxed picture. None decodes at full size.

        Raises:
            FrameRejectedError: the picture is damaged, too large or not served; the stream goes on.
        """
        header = read_header(data, encoding=encoding, width=width, height=height, limits=self._limits)
        if encoding == Encoding.JPEG:
            pixels = self._decode_jpeg(data, header, target)
        elif encoding == Encoding.PNG:
            pixels = _decode_png(data, header)
        else:
            pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
        return Picture(pixels, encoding == Encoding.BGR24, header.width, header.height)

    def fit(self, picture: Picture, letterbox: Letterbox) -> Pixels:
        """Scale a picture to the interior of its letterbox: bilinear, half-pixel centres, no antialiasing.

        Returns uint8 [interior_height, interior_width, 3], valid until the next `fit` or `decode`.
        """
        shape = (letterbox.interior_height, letterbox.interior_width, 3)
        if picture.pixels.shape == shape:
            return picture.pixels
        if self._interior.shape != shape:
            self._interior = np.empty(shape, np.uint8)
        cv2.resize(picture.pixels, (shape[1], shape[0]), dst=self._interior, interpolation=cv2.INTER_LINEAR)
        return self._interior

    def _decode_jpeg(self, data: memoryview, header: PictureHeader, target: tuple[int, int] | None) -> Pixels:
        width, height = header.width, header.height
        if target is not None:
            factor = _jpeg_factor(header, target)
            width, height = -(-width // factor), -(-height // factor)
        size = width * height * 3
        buffer = self._buffer(size)
        try:
            # The smallest scale that reaches both minima is exactly the factor chosen above.
            pixels: Pixels = simplejpeg.decode_jpeg(data, "RGB", min_height=height, min_width=width, buffer=buffer)
        except ValueError as error:
            message = str(error)
            padded = _PADDED.fullmatch(message)
            if padded is None or int(padded[1]) > _MAX_PADDING:
                raise _refuse_jpeg(message) from None
            pixels = buffer[:size].reshape(height, width, 3)
        return pixels

    def _buffer(self, size: int) -> Pixels:
        if size > _SCRATCH_BYTES:
            return np.empty(size, np.uint8)
        if size > len(self._scratch):
            self._scratch = np.empty(size, np.uint8)
        return self._scratch


def _jpeg_factor(header: PictureHeader, target: tuple[int, int]) -> int:
    """Return 8, 4, 2 or 1: by how much a JPEG may shrink and still be as large as its letterboxed picture."""
    letterbox = Letterbox.of(header.width, header.height, width=target[0], height=target[1])
    for factor in _JPEG_FACTORS:
        # libjpeg rounds the sides up.
        wide_enough = -(-header.width // factor) >= letterbox.interior_width
        if wide_enough and -(-header.height // factor) >= letterbox.interior_height:
            return factor
    return 1


def _refuse_jpeg(message: str) -> FrameRejectedError:
    if "subsampling" in message:
        return unsupported("expected a JPEG of 4:4:4, 4:4:0, 4:2:2, 4:2:0, 4:1:1 or grey, got other sampling factors")
    return undecodable(f"expected a whole JPEG file, got a damaged one: {message}")


def _decode_png(data: memoryview, header: PictureHeader) -> Pixels:
    flags = _PNG_FLAGS | (cv2.IMREAD_ANYDEPTH if header.bit_depth == 16 else 0)
    checked = np.frombuffer(png.repack(data, header), np.uint8)
    try:
        pixels: Any = cv2.imdecode(checked, flags)
    except cv2.error as error:
        raise undecodable(f"expected a PNG file, got a damaged one: {error.err}") from None
    if pixels is None:
        raise undecodable("expected a PNG file, got one whose chunks do not make a picture")
    if pixels.dtype == np.uint16:
        pixels = cv2.convertScaleAbs(pixels, alpha=1 / 257)
    result: Pixels = pixels
    return result

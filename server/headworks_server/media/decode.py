"""Decodes pictures. Each lane thread owns one `Decoder`.

JPEG goes through libjpeg-turbo (simplejpeg), PNG and WebP through libpng and libwebp (OpenCV). BGR24 and RGB24 are not
touched; GRAY8, NV12 and I420 are turned into RGB by OpenCV, the latter two as BT.601 of limited range (luma 16 to 235),
which is what cameras and video decoders mean unless they say otherwise. Each of these is one C call that does not hold
the GIL. EXIF orientation is ignored: pictures are served as stored. OpenCV's own bounds on pictures are not used:
nothing reaches it that has not passed `PictureLimits`, which are far tighter.

Memory of one decoder: its scratch stays, at most one 4K frame; a larger picture takes its own memory and gives it back,
at most about 350 MB (33 million pixels as a progressive JPEG or a lossless WebP: coefficients or 32-bit pixels, and the
picture). A lossless WebP may declare 65,536 sets of code tables, which no encoder writes: about 0.7 GB measured for a
hostile file of 33 million pixels, 1 GB at most, given back within a second.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

from headworks_server.errors import FrameRejectedError
from headworks_server.media import png, webp
from headworks_server.media.bounds import Encoding, PictureHeader, PictureLimits, undecodable, unsupported
from headworks_server.media.image import read_header

# Lanes are the unit of parallelism, one thread each; OpenCV's own threads would only get in their way.
cv2.setNumThreads(1)

Pixels = npt.NDArray[np.uint8]
LeastSize = Callable[[int, int], tuple[int, int]]  # width and height of the source to those that are needed

# A picture up to 4K is decoded into memory that the decoder keeps.
_SCRATCH_BYTES: Final = 3840 * 2160 * 3
# libjpeg-turbo's scaled decodes that have SIMD code; those between (3/8, 5/8, ...) are slower than the next larger.
_JPEG_FACTORS: Final = (8, 4, 2)
_OPENCV_FLAGS: Final = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
_TO_RGB: Final = {
    Encoding.GRAY8: cv2.COLOR_GRAY2RGB,
    Encoding.NV12: cv2.COLOR_YUV2RGB_NV12,
    Encoding.I420: cv2.COLOR_YUV2RGB_I420,
}
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

    def decode(self, data: memoryview, *, encoding: int, width: int, height: int, target: LeastSize | None) -> Picture:
        """Decode one picture to RGB, or leave raw BGR as it is.

        A grey picture gives three equal channels, alpha is dropped, 16-bit samples are divided by 257 and rounded.
        NV12 and I420 must have even sides; chroma is repeated for the four pixels that share it.

        Args:
            data: the picture as it came, contiguous bytes; pixels of BGR24 and RGB24 are a view of it.
            encoding: a number of `Encoding`.
            width: as stated by the sender, in pixels; used for raw encodings only.
            height: as `width`.
            target: tells how large the picture must be at least, from the size of the source: JPEG may decode at 1/2,
                1/4 or 1/8 as long as it stays that large. None decodes at full size.

        Raises:
            FrameRejectedError: the picture is damaged, too large or not served; the stream goes on.
        """
        header = read_header(data, encoding=encoding, width=width, height=height, limits=self._limits)
        if encoding == Encoding.JPEG:
            pixels = self._decode_jpeg(data, header, target)
        elif encoding == Encoding.PNG:
            pixels = _decode_png(data, header)
        elif encoding == Encoding.WEBP:
            pixels = _decode_by_opencv(webp.repack(data, self._limits), header, "WebP", _OPENCV_FLAGS)
        elif encoding in _TO_RGB:
            pixels = self._turn_to_rgb(data, width, height, _TO_RGB[Encoding(encoding)])
        else:
            pixels = np.frombuffer(data, np.uint8).reshape(height, width, 3)
        return Picture(pixels, encoding == Encoding.BGR24, header.width, header.height)

    def _decode_jpeg(self, data: memoryview, header: PictureHeader, target: LeastSize | None) -> Pixels:
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

    def _turn_to_rgb(self, data: memoryview, width: int, height: int, conversion: int) -> Pixels:
        # Chroma planes are told to OpenCV as further rows of the luma plane.
        planes = np.frombuffer(data, np.uint8).reshape(-1, width)
        size = width * height * 3
        pixels = self._buffer(size)[:size].reshape(height, width, 3)
        cv2.cvtColor(planes, conversion, dst=pixels)
        return pixels

    def _buffer(self, size: int) -> Pixels:
        if size > _SCRATCH_BYTES:
            return np.empty(size, np.uint8)
        if size > len(self._scratch):
            self._scratch = np.empty(size, np.uint8)
        return self._scratch


def _jpeg_factor(header: PictureHeader, target: LeastSize) -> int:
    """Return 8, 4, 2 or 1: by how much a JPEG may shrink and still be as large as it is needed."""
    least_width, least_height = target(header.width, header.height)
    for factor in _JPEG_FACTORS:
        # libjpeg rounds the sides up.
        if -(-header.width // factor) >= least_width and -(-header.height // factor) >= least_height:
            return factor
    return 1


def _refuse_jpeg(message: str) -> FrameRejectedError:
    if "subsampling" in message:
        return unsupported("expected a JPEG of 4:4:4, 4:4:0, 4:2:2, 4:2:0, 4:1:1 or grey, got other sampling factors")
    return undecodable(f"expected a whole JPEG file, got a damaged one: {message}")


def _decode_png(data: memoryview, header: PictureHeader) -> Pixels:
    flags = _OPENCV_FLAGS | (cv2.IMREAD_ANYDEPTH if header.bit_depth == 16 else 0)
    pixels = _decode_by_opencv(png.repack(data, header), header, "PNG", flags)
    if header.bit_depth == 16:
        return cv2.convertScaleAbs(pixels, alpha=1 / 257)  # type: ignore[return-value]
    return pixels


def _decode_by_opencv(checked: memoryview | bytes, header: PictureHeader, name: str, flags: int) -> Pixels:
    try:
        pixels: Any = cv2.imdecode(np.frombuffer(checked, np.uint8), flags)
    except cv2.error as error:
        raise undecodable(f"expected a {name} file, got a damaged one: {error.err}") from None
    if pixels is None or pixels.shape != (header.height, header.width, 3):
        raise undecodable(f"expected a {name} file, got one whose chunks do not make a picture")
    return pixels  # type: ignore[no-any-return]

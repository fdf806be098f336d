"""Reads the header of a picture and holds it against the limits, before anything is decoded.

Called by `decode`, which decodes what passes here, and by whoever needs the names of encodings. It chooses the reader
of the stated encoding and tells a mislabelled file by its first bytes; the readers themselves are in `jpeg` and `png`.
"""

from __future__ import annotations

from typing import Final

from headworks_server.errors import FrameRejectedError
from headworks_server.media import jpeg, png
from headworks_server.media.bounds import (
    Encoding,
    PictureHeader,
    PictureLimits,
    check_size,
    too_large,
    undecodable,
    unsupported,
)

__all__ = ["SERVED", "Encoding", "PictureHeader", "PictureLimits", "read_header"]

SERVED: Final = "this server reads JPEG, PNG and BGR24"

# How a whole file of each kind begins, for naming what came in place of what was stated.
_SIGNATURES: Final = (
    (b"\xff\xd8", "a JPEG file"),
    (b"\x89PNG", "a PNG file"),
    (b"RIFF", "a RIFF file, such as WebP"),
    (b"GIF8", "a GIF file"),
    (b"BM", "a BMP file"),
    (b"II*\0", "a TIFF file"),
    (b"MM\0*", "a TIFF file"),
)


def read_header(data: memoryview, *, encoding: int, width: int, height: int, limits: PictureLimits) -> PictureHeader:
    """Return what the header of a picture says, having checked it against `limits`.

    Args:
        data: the picture as it came, contiguous bytes.
        encoding: a number of `Encoding`.
        width: as stated by the sender, in pixels; looked at for raw encodings only.
        height: as `width`.
        limits: the largest picture that is decoded.

    Raises:
        FrameRejectedError: UNSUPPORTED, TOO_LARGE or UNDECODABLE; the detail says what was expected and what came.
    """
    size = len(data)
    if size > limits.max_bytes:
        raise too_large(f"expected at most {limits.max_bytes:,} bytes, got {size:,} bytes")
    if encoding == Encoding.JPEG:
        if size < 4 or data[0] != 0xFF or data[1] != 0xD8:
            raise undecodable(f"expected a JPEG file (FF D8 ...), got {_name(data)}")
        return jpeg.read_header(data, limits)
    if encoding == Encoding.BGR24:
        return _read_bgr24(size, width, height, limits)
    if encoding == Encoding.PNG:
        if bytes(data[:8]) != png.SIGNATURE:
            raise undecodable(f"expected a PNG file (89 50 4E 47 ...), got {_name(data)}")
        return png.read_header(data, limits)
    raise _refuse_encoding(encoding)


def _read_bgr24(size: int, width: int, height: int, limits: PictureLimits) -> PictureHeader:
    check_size(width, height, limits)
    expected = width * height * 3
    if size != expected:
        raise undecodable(f"expected {width}x{height} BGR24 ({expected:,} bytes), got {size:,} bytes")
    return PictureHeader(width, height, components=3)


def _refuse_encoding(encoding: int) -> FrameRejectedError:
    try:
        known = Encoding(encoding)
    except ValueError:
        return unsupported(f"encoding {encoding} is unknown: {SERVED}")
    if known is Encoding.UNSPECIFIED:
        return unsupported(f"the frame states no encoding: {SERVED}")
    return unsupported(f"{known.name} is not served yet: {SERVED}")


def _name(data: memoryview) -> str:
    """Name the kind of file that `data` begins like, else its first bytes."""
    head = bytes(data[:8])
    for signature, name in _SIGNATURES:
        if head.startswith(signature) and len(data) > len(signature):
            return name
    if len(head) < 8:
        return f"{len(head)} bytes"
    return f"{len(data):,} bytes that begin {head[:4].hex(' ').upper()}"

"""Reads the header of a picture and holds it against the limits, before anything is decoded.

Called by `decode`, which decodes what passes here, and by whoever needs the names of encodings. It chooses the reader
of the stated encoding and tells a mislabelled file by its first bytes; the readers themselves are in `jpeg`, `png`,
`webp` and `raw`.
"""

from __future__ import annotations

from typing import Final

from headworks_server.media import jpeg, png, raw, webp
from headworks_server.media.bounds import Encoding, PictureHeader, PictureLimits, too_large, undecodable, unsupported

__all__ = ["SERVED", "Encoding", "PictureHeader", "PictureLimits", "read_header"]

SERVED: Final = "this server reads JPEG, PNG, WebP, BGR24, RGB24, GRAY8, NV12 and I420"

# How a whole file of each kind begins, for naming what came in place of what was stated.
_SIGNATURES: Final = (
    (b"\xff\xd8", "a JPEG file"),
    (b"\x89PNG", "a PNG file"),
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
    if encoding == Encoding.PNG:
        if bytes(data[:8]) != png.SIGNATURE:
            raise undecodable(f"expected a PNG file (89 50 4E 47 ...), got {_name(data)}")
        return png.read_header(data, limits)
    if encoding == Encoding.WEBP:
        if not webp.is_webp(data):
            raise undecodable(f"expected a WebP file (RIFF .... WEBP), got {_name(data)}")
        return webp.read_header(data, limits)
    if encoding in raw.RAW:
        return raw.read_header(Encoding(encoding), size, width, height, limits)
    if encoding == Encoding.UNSPECIFIED:
        raise unsupported(f"the frame states no encoding: {SERVED}")
    raise unsupported(f"encoding {encoding} is unknown: {SERVED}")


def _name(data: memoryview) -> str:
    """Name the kind of file that `data` begins like, else its first bytes."""
    if webp.is_webp(data):
        return "a WebP file"
    head = bytes(data[:8])
    for signature, name in _SIGNATURES:
        if head.startswith(signature) and len(data) > len(signature):
            return name
    if len(head) < 8:
        return f"{len(head)} bytes"
    return f"{len(data):,} bytes that begin {head[:4].hex(' ').upper()}"

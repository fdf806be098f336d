"""Knows how many bytes a raw picture has. Called by `image`; `decode` turns what passes here into RGB.

Raw pictures have no header: size and encoding are the sender's word, and the number of bytes must be exactly theirs.
"""

from __future__ import annotations

from typing import Final

from headworks_server.media.bounds import Encoding, PictureHeader, PictureLimits, check_size, undecodable

# Bytes of two pixels, which are a whole number in each of them.
_BYTES_OF_TWO: Final = {Encoding.BGR24: 6, Encoding.RGB24: 6, Encoding.GRAY8: 2, Encoding.NV12: 3, Encoding.I420: 3}
# Their chroma planes are half as wide and half as high as the picture.
_HALVED: Final = (Encoding.NV12, Encoding.I420)
RAW: Final = frozenset(_BYTES_OF_TWO)


def read_header(encoding: Encoding, size: int, width: int, height: int, limits: PictureLimits) -> PictureHeader:
    """Return the header that a raw picture of `size` bytes and `width` x `height` pixels would have.

    Raises:
        FrameRejectedError: UNDECODABLE for a side of 0, an odd side where chroma is halved, and any other number of
            bytes than the size needs; TOO_LARGE over `limits`.
    """
    check_size(width, height, limits)
    if encoding in _HALVED and (width % 2 or height % 2):
        raise undecodable(
            f"expected {encoding.name} of even width and height, for its chroma planes have half of each, "
            f"got {width}x{height}"
        )
    expected = width * height * _BYTES_OF_TWO[encoding] // 2
    if size != expected:
        raise undecodable(f"expected {width}x{height} {encoding.name} ({expected:,} bytes), got {size:,} bytes")
    return PictureHeader(width, height, components=1 if encoding is Encoding.GRAY8 else 3)

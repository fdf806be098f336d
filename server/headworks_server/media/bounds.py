"""What a picture may cost, and what its header says. Used by the readers of each file format and by `image`.

Owns the limits on one picture and the refusals that follow from them. The work of a decode is bounded before it
starts: pixels, bytes, components and scans are read from the header and the markers, never from decoded data.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from headworks_server.core.outcomes import FrameErrorCode
from headworks_server.errors import FrameRejectedError

# The longest side libjpeg decodes; the others keep to it too, so that one number holds for all (WebP ends at 16,384).
MAX_SIDE = 65_500


class Encoding(IntEnum):
    """How the bytes of a frame are to be read. The numbers equal `headworks.v1.Encoding`."""

    UNSPECIFIED = 0
    JPEG = 1
    PNG = 2
    BGR24 = 3
    WEBP = 4
    RGB24 = 5
    GRAY8 = 6
    NV12 = 7
    I420 = 8


@dataclass(frozen=True, slots=True)
class PictureLimits:
    """The largest picture that is decoded.

    Attributes:
        max_pixels: width times height; the default is one 8K frame. Samples may take 4 bytes a pixel at this size, so
            that deeper PNGs (up to 8 bytes a pixel) cost no more than an 8-bit one with alpha.
        max_bytes: size of the compressed or raw picture in bytes.
        max_scans: scans of a JPEG of several scans. Encoders write about 10. Each scan walks all coefficients of the
            picture again, for almost no bytes: at 33 million pixels it costs up to 35 ms of CPU, so 32 of them
            cost about a second.
    """

    max_pixels: int = 7680 * 4320
    max_bytes: int = 16_000_000
    max_scans: int = 32

    @property
    def max_sample_bytes(self) -> int:
        """Bytes of a picture's samples as stored, before they become 8-bit RGB."""
        return 4 * self.max_pixels


@dataclass(frozen=True, slots=True)
class PictureHeader:
    """What is known of a picture before it is decoded.

    Attributes:
        width: in pixels, as stored.
        height: in pixels, as stored.
        components: channels as stored: 1 grey, 3 colour; PNG also 2 and 4, WebP also 4, with alpha.
        bit_depth: bits of one sample: 8 for JPEG and raw, 1 to 16 for PNG.
        scans: passes over the picture: 1, or more for a progressive JPEG.
    """

    width: int
    height: int
    components: int
    bit_depth: int = 8
    scans: int = 1


def check_size(width: int, height: int, limits: PictureLimits) -> None:
    """Raise `FrameRejectedError` unless a picture of `width` x `height` pixels may be decoded."""
    if width == 0 or height == 0:
        raise undecodable(f"expected a picture of at least 1x1, got {width}x{height}")
    if width > MAX_SIDE or height > MAX_SIDE:
        raise too_large(f"expected sides of at most {MAX_SIDE:,} pixels, got {width}x{height}")
    if width * height > limits.max_pixels:
        raise too_large(
            f"expected at most {limits.max_pixels:,} pixels, got {width}x{height} ({width * height:,} pixels)"
        )


def undecodable(detail: str) -> FrameRejectedError:
    """Return the refusal of bytes that are no whole picture of the stated encoding."""
    return FrameRejectedError(FrameErrorCode.UNDECODABLE, detail)


def unsupported(detail: str) -> FrameRejectedError:
    """Return the refusal of an encoding, or a feature of it, that is not served."""
    return FrameRejectedError(FrameErrorCode.UNSUPPORTED, detail)


def too_large(detail: str) -> FrameRejectedError:
    """Return the refusal of a picture over the limits."""
    return FrameRejectedError(FrameErrorCode.TOO_LARGE, detail)

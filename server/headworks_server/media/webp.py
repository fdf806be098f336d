"""Reads what a WebP says of itself, and makes it safe to decode. Called by `image` and `decode`.

`read_header` walks the RIFF chunks up to the one that holds the pixels and reads the size from its first bytes, where
the decoder takes it from; an extended file's canvas must agree with it. `repack` leaves nothing but that chunk: no
alpha plane (a compressed picture of its own), profile, metadata or animation ever reaches libwebp. WebP has no
checksums: damage is found where the coded data run out or contradict themselves, else it is seen in the pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from struct import pack, unpack_from
from typing import Final

from headworks_server.errors import FrameRejectedError
from headworks_server.media.bounds import PictureHeader, PictureLimits, check_size, too_large, undecodable, unsupported

# The standard has one chunk (a profile) before the picture, beside the alpha plane; unknown ones are allowed anywhere.
MAX_CHUNKS: Final = 64

_LOSSY, _LOSSLESS, _EXTENDED = b"VP8 ", b"VP8L", b"VP8X"
_ANIMATION: Final = (b"ANIM", b"ANMF")
# Flags of an extended file.
_HAS_ALPHA, _IS_ANIMATED = 0x10, 0x02
_KEY_FRAME: Final = b"\x9d\x01\x2a"
_LOSSLESS_SIGNATURE: Final = 0x2F
# The bit that says whether a lossless picture's alpha matters, in the fifth byte of its chunk.
_ALPHA_IS_USED: Final = 0x10
# OpenCV looks at no file that is shorter; zeros behind the end change nothing.
_SHORTEST_FILE: Final = 32


@dataclass(frozen=True, slots=True)
class _Image:
    """Where the chunk with the pixels lies: its kind, and the first byte of its payload and of what follows."""

    kind: bytes
    start: int
    stop: int
    canvas: tuple[int, int] | None = None
    has_alpha: bool = False


def is_webp(data: memoryview) -> bool:
    """Whether `data` begins like a WebP file."""
    return bytes(data[:4]) == b"RIFF" and bytes(data[8:12]) == b"WEBP"


def read_header(data: memoryview, limits: PictureLimits) -> PictureHeader:
    """Return size and components of a WebP of which `is_webp` holds.

    Raises:
        FrameRejectedError: UNDECODABLE where the chunks make no picture or do not agree, UNSUPPORTED for an animation,
            TOO_LARGE over `limits`.
    """
    image = _find_image(data, limits)
    read = _read_lossy if image.kind == _LOSSY else _read_lossless
    width, height, has_alpha = read(data[image.start : image.stop])
    if image.canvas is not None and image.canvas != (width, height):
        across, down = image.canvas
        raise undecodable(f"expected a picture of its canvas's size, {across}x{down}, got {width}x{height}")
    check_size(width, height, limits)
    return PictureHeader(width, height, components=4 if image.has_alpha or has_alpha else 3)


def repack(data: memoryview, limits: PictureLimits) -> bytes:
    """Return a WebP of the same colours that holds nothing but the chunk with the pixels, whose alpha is not used."""
    image = _find_image(data, limits)
    payload = data[image.start : image.stop]
    head = bytes(payload[:5])
    if image.kind == _LOSSLESS:
        head = head[:4] + bytes([head[4] & ~_ALPHA_IS_USED])
    padding = b"\0" * (len(payload) % 2)
    size = 12 + len(payload) + len(padding)
    start = b"RIFF" + pack("<I", size) + b"WEBP" + image.kind + pack("<I", len(payload))
    return b"".join((start, head, payload[5:], padding)).ljust(_SHORTEST_FILE, b"\0")


def _find_image(data: memoryview, limits: PictureLimits) -> _Image:
    """Walk the chunks up to the one with the pixels; what follows that one is not looked at."""
    end = _riff_end(data)
    canvas: tuple[int, int] | None = None
    has_alpha = False
    position = 12
    for _ in range(MAX_CHUNKS):
        if position + 8 > end:
            raise undecodable(f"expected a chunk VP8 or VP8L, got a file of {end:,} bytes that ends before one")
        kind = bytes(data[position : position + 4])
        start = position + 8
        stop = start + int.from_bytes(data[position + 4 : start], "little")
        if stop > end:
            raise undecodable(
                f"expected the chunk {_chunk_name(kind)} at byte {position:,} to end within the file's {end:,} bytes, "
                f"got one that ends at {stop:,}"
            )
        if kind in (_LOSSY, _LOSSLESS):
            return _Image(kind, start, stop, canvas, has_alpha)
        if kind in _ANIMATION:
            raise _animated()
        if position == 12:
            if kind != _EXTENDED:
                raise undecodable(f"expected the chunk VP8, VP8L or VP8X first, got {_chunk_name(kind)}")
            canvas, has_alpha = _read_extended(data[start:stop])
            check_size(*canvas, limits)
        position = stop + stop % 2  # chunks begin at even places
    raise too_large(f"expected at most {MAX_CHUNKS} chunks before the picture, got more")


def _riff_end(data: memoryview) -> int:
    """Return where the file says it ends; bytes behind that are not looked at."""
    if len(data) < 12:
        raise undecodable(f"expected a whole WebP file, got {len(data):,} bytes")
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data):
        raise undecodable(f"expected a whole WebP file of {end:,} bytes, as its start says, got {len(data):,} bytes")
    return end


def _read_extended(payload: memoryview) -> tuple[tuple[int, int], bool]:
    """Return the canvas of an extended file, and whether it has alpha."""
    if len(payload) != 10:
        raise undecodable(f"expected a chunk VP8X of 10 bytes, got {len(payload):,}")
    if payload[0] & _IS_ANIMATED:
        raise _animated()
    width = 1 + int.from_bytes(payload[4:7], "little")
    height = 1 + int.from_bytes(payload[7:10], "little")
    return (width, height), bool(payload[0] & _HAS_ALPHA)


def _read_lossy(payload: memoryview) -> tuple[int, int, bool]:
    """Return width and height of a VP8 key frame, and that it has no alpha itself."""
    if len(payload) < 10:
        raise undecodable(f"expected a chunk VP8 of at least 10 bytes, got {len(payload)}")
    tag = int.from_bytes(payload[:3], "little")
    if tag & 1 or bytes(payload[3:6]) != _KEY_FRAME:
        raise undecodable("expected a VP8 key frame, got a chunk that does not begin like one")
    if tag >> 1 & 7 > 3 or not tag >> 4 & 1:
        raise undecodable("expected a VP8 frame of profile 0 to 3 that is to be shown, got another")
    if tag >> 5 > len(payload) - 10:
        raise undecodable(f"expected a first partition of {tag >> 5:,} bytes, got {len(payload) - 10:,} bytes")
    # The two highest bits of each side tell a player how to stretch the picture; WebP does not use them.
    width, height = unpack_from("<HH", payload, 6)
    return width & 0x3FFF, height & 0x3FFF, False


def _read_lossless(payload: memoryview) -> tuple[int, int, bool]:
    """Return width and height of a VP8L picture, and whether its alpha is used."""
    if len(payload) < 5:
        raise undecodable(f"expected a chunk VP8L of at least 5 bytes, got {len(payload)}")
    bits = int.from_bytes(payload[1:5], "little")
    if payload[0] != _LOSSLESS_SIGNATURE or bits >> 29:
        raise undecodable("expected a VP8L picture of version 0, got a chunk that does not begin like one")
    return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF), bool(bits >> 28 & 1)


def _animated() -> FrameRejectedError:
    return unsupported("expected a still WebP, got an animated one")


def _chunk_name(kind: bytes) -> str:
    return kind.decode("ascii").rstrip() if kind.isalnum() or kind == _LOSSY else kind.hex(" ").upper()

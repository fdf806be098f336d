"""Reads what a PNG says of itself, and makes it safe to decode. Called by `image` and `decode`.

`read_header` looks at IHDR only. `repack` walks all chunks, checks their checksums, inflates the pixels once to see
that they are exactly as many as IHDR promises, and leaves out every chunk that does not bear on the pixels: text,
profiles, orientation, animation. libpng itself would inflate whatever follows the last row (2 MB of it cost 5 s), and
would write its complaints to stderr.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from itertools import chain
from struct import unpack_from
from typing import Final

from headworks_server.errors import FrameRejectedError
from headworks_server.media.bounds import PictureHeader, PictureLimits, check_size, too_large, undecodable, unsupported

SIGNATURE: Final = b"\x89PNG\r\n\x1a\n"

# Encoders write IDAT chunks of 8 KB or more, of which 16 MB hold 2,048.
MAX_CHUNKS: Final = 16_384
# Inflated in pieces: at most 1,032 times as much comes out, so 16 MB of memory.
_PIECE: Final = 16 * 1024

# By colour type: components, and the bit depths that may go with it.
_COLOUR_TYPES: Final[dict[int, tuple[int, tuple[int, ...]]]] = {
    0: (1, (1, 2, 4, 8, 16)),
    2: (3, (8, 16)),
    3: (1, (1, 2, 4, 8)),
    4: (2, (8, 16)),
    6: (4, (8, 16)),
}
# The seven passes of an interlaced picture: first column and row, and the step of each.
_ADAM7: Final = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
_IHDR_END: Final = 33
# Set in the first letter of a chunk that may be left out.
_ANCILLARY: Final = 0x20


def read_header(data: memoryview, limits: PictureLimits) -> PictureHeader:
    """Return size, components and depth of a PNG that starts with `SIGNATURE`.

    Raises:
        FrameRejectedError: UNDECODABLE where there is no valid IHDR, TOO_LARGE over `limits`.
    """
    if len(data) < _IHDR_END:
        raise _truncated(data)
    if bytes(data[8:16]) != b"\0\0\0\rIHDR":
        raise undecodable("expected the chunk IHDR first, got " + _chunk_name(bytes(data[12:16])))
    width, height, depth, colour_type, compression, filtering, interlace = unpack_from(">IIBBBBB", data, 16)
    components, depths = _COLOUR_TYPES.get(colour_type, (0, ()))
    if depth not in depths:
        raise undecodable(f"expected a colour type and depth of the PNG standard, got {colour_type} at {depth} bits")
    if compression or filtering or interlace > 1:
        raise undecodable(
            f"expected compression 0, filter 0 and interlace 0 or 1, got {compression}, {filtering} and {interlace}"
        )
    check_size(width, height, limits)
    samples = width * height * components * depth // 8
    if samples > limits.max_sample_bytes:
        raise too_large(
            f"expected at most {limits.max_sample_bytes:,} bytes of samples, got {width}x{height} pixels of "
            f"{components} x {depth} bits ({samples:,} bytes)"
        )
    return PictureHeader(width, height, components, bit_depth=depth)


def repack(data: memoryview, header: PictureHeader) -> memoryview:
    """Return a PNG of the same pixels that holds nothing but IHDR, PLTE, IDAT and IEND, all of it checked.

    It is `data` itself where that is so already. Takes the time of one inflate, without the GIL.

    Raises:
        FrameRejectedError: UNDECODABLE for a truncated or damaged file and for more or less pixel data than promised,
            TOO_LARGE for too many chunks, UNSUPPORTED for a critical chunk outside the standard.
    """
    runs = [(0, len(SIGNATURE))]
    pixels: list[memoryview] = []
    for kind, start, stop in _chunks(data):
        if kind == b"IDAT":
            pixels.append(data[start + 8 : stop - 4])
        elif kind not in (b"IHDR", b"PLTE", b"IEND"):
            if not kind[0] & _ANCILLARY:
                raise unsupported(f"expected chunks of the PNG standard, got the critical chunk {_chunk_name(kind)}")
            continue
        first, end = runs[-1]
        if start == end:
            runs[-1] = (first, stop)
        else:
            runs.append((start, stop))
    _check_pixels(pixels, header, interlaced=bool(data[28]))
    if len(runs) == 1:
        return data
    return memoryview(b"".join(data[start:stop] for start, stop in runs))


def _chunks(data: memoryview) -> Iterator[tuple[bytes, int, int]]:
    """Yield kind, start and stop of each chunk up to IEND, its checksum verified."""
    position = 8
    for _ in range(MAX_CHUNKS):
        if position + 12 > len(data):
            raise _truncated(data)
        stop = position + 12 + int.from_bytes(data[position : position + 4])
        if stop > len(data):
            raise _truncated(data)
        kind = bytes(data[position + 4 : position + 8])
        if zlib.crc32(data[position + 4 : stop - 4]) != int.from_bytes(data[stop - 4 : stop]):
            raise undecodable(f"chunk {_chunk_name(kind)} at byte {position:,}: its checksum does not match")
        yield kind, position, stop
        if kind == b"IEND":
            return
        position = stop
    raise too_large(f"expected at most {MAX_CHUNKS:,} chunks, got more")


def _check_pixels(pixels: list[memoryview], header: PictureHeader, *, interlaced: bool) -> None:
    """Inflate the pixels and see that they are as many as the header promises, and no more."""
    expected = _pixel_bytes(header, interlaced=interlaced)
    inflate = zlib.decompressobj()
    found = 0
    pieces = chain.from_iterable((chunk[at : at + _PIECE] for at in range(0, len(chunk), _PIECE)) for chunk in pixels)
    try:
        for piece in pieces:
            found += len(inflate.decompress(piece))
            if inflate.eof or found > expected:
                break
    except zlib.error as error:
        raise undecodable(f"the pixels do not inflate: {error}") from None
    if found > expected:
        raise undecodable(f"expected {expected:,} bytes of inflated pixels, got more")
    if found < expected or not inflate.eof:
        raise undecodable(f"expected {expected:,} bytes of inflated pixels, got {found:,} and no end")


def _pixel_bytes(header: PictureHeader, *, interlaced: bool) -> int:
    """Return the size of the inflated pixels: each row has its samples packed into bytes, after a filter byte."""
    bits = header.components * header.bit_depth
    if not interlaced:
        return header.height * (1 + (header.width * bits + 7) // 8)
    total = 0
    for column, row, column_step, row_step in _ADAM7:
        columns = -((column - header.width) // column_step)
        rows = -((row - header.height) // row_step)
        if columns > 0 and rows > 0:
            total += rows * (1 + (columns * bits + 7) // 8)
    return total


def _chunk_name(kind: bytes) -> str:
    return kind.decode("ascii") if kind.isalpha() else kind.hex(" ").upper()


def _truncated(data: memoryview) -> FrameRejectedError:
    return undecodable(f"expected a whole PNG file, got {len(data):,} bytes that end before its chunk IEND")

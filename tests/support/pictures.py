"""Makers of pictures, good and bad, as bytes. Used by the tests, by bench/decode.py and by bench/decode_worst.py.

Good ones come from OpenCV's encoders; the files that no encoder writes (bombs, odd colour types) are put together
from their parts here.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import simplejpeg

Pixels = npt.NDArray[np.uint8]
SIGNATURE = b"\x89PNG\r\n\x1a\n"


def scene(width: int, height: int, *, seed: int = 1) -> Pixels:
    """Return a smooth coloured RGB picture, different for each seed."""
    rng = np.random.default_rng(seed)
    small = rng.integers(20, 236, (max(2, height // 24), max(2, width // 24), 3), dtype=np.uint8)
    picture: Any = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(picture)


def textured(width: int, height: int, *, tiles: int = 1) -> Pixels:
    """Return an RGB picture with noise at all places, or one that repeats a smaller such picture across and down."""
    height, width = height // tiles, width // tiles
    noise = np.random.default_rng(1).integers(-12, 13, (height, width, 3), dtype=np.int16)
    tile = np.clip(scene(width, height) + noise, 0, 255).astype(np.uint8)
    return np.tile(tile, (tiles, tiles, 1))


def jpeg(
    rgb: Pixels, *, quality: int = 90, progressive: bool = False, restart: int = 0, full_chroma: bool = True
) -> bytes:
    """Encode [h, w, 3] or, as a grey file, [h, w]."""
    sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if full_chroma else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
    options = [cv2.IMWRITE_JPEG_QUALITY, quality, cv2.IMWRITE_JPEG_PROGRESSIVE, int(progressive)]
    options += [cv2.IMWRITE_JPEG_RST_INTERVAL, restart, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    return _encode(".jpg", rgb, options)


def png(rgb: Pixels) -> bytes:
    """Encode [h, w, 3] or [h, w] of 8 bits."""
    return _encode(".png", rgb, [])


def rgb_jpeg(rgb: Pixels) -> bytes:
    """Return an Adobe RGB file: components are R, G, B themselves, which its APP14 segment says."""
    planes = [np.ascontiguousarray(rgb[..., channel]) for channel in range(3)]
    data = simplejpeg.encode_jpeg_yuv_planes(*planes, quality=95)
    body = data[2:]
    if body[:2] == b"\xff\xe0":  # JFIF would say YCbCr
        body = body[2 + int.from_bytes(body[2:4]) :]
    return b"\xff\xd8" + segment(0xEE, b"Adobe\0\x64\0\0\0\0\0") + body


def with_segment(data: bytes, code: int, payload: bytes) -> bytes:
    """Insert a segment after the first two bytes of a JPEG."""
    return data[:2] + segment(code, payload) + data[2:]


def exif_orientation(value: int) -> bytes:
    """Return the TIFF structure that tells an orientation, 1 to 8."""
    return b"MM\0*" + struct.pack(">IHHHIHHI", 8, 1, 0x0112, 3, 1, value, 0, 0)


def segment(code: int, payload: bytes) -> bytes:
    """Return a JPEG marker segment."""
    return b"\xff" + bytes([code]) + struct.pack(">H", len(payload) + 2) + payload


def frame_header(
    width: int, height: int, *, components: int = 3, code: int = 0xC0, precision: int = 8, sampling: int = 0x11
) -> bytes:
    """Return a JPEG's SOF segment; `sampling` is that of the first component."""
    parts = [bytes([index + 1, sampling if index == 0 else 0x11, 0]) for index in range(components)]
    return segment(code, struct.pack(">BHHB", precision, height, width, components) + b"".join(parts))


def scan_header(
    components: Sequence[int], *, first: int = 0, last: int = 63, high: int = 0, low: int = 0, table: int = 0
) -> bytes:
    """Return a JPEG's SOS segment."""
    parts = b"".join(bytes([component, table]) for component in components)
    return segment(0xDA, bytes([len(components)]) + parts + bytes([first, last, high << 4 | low]))


def scan_bomb(width: int, height: int, *, scans: int, dense: bool = False) -> bytes:
    """Return a valid progressive JPEG, most of whose scans walk all coefficients again for a few bytes.

    `scans` is 4 to 43. `dense` makes every coefficient of the first component nonzero, which takes about 12 MB at 33
    million pixels; then it is 5 to 31.
    """
    blocks = -(-width // 8) * -(-height // 8)
    runs = _bits(("0" + "1" * 14) * -(-blocks // 32767))  # "no coefficients in the next 32,767 blocks"
    parts = [b"\xff\xd8", segment(0xDB, b"\0" + b"\1" * 64), frame_header(width, height, code=0xC2)]
    parts.append(_one_code_table(0x00, 0x00))
    # AC tables: runs of empty blocks; a coefficient of one bit; the end of one block.
    parts += [_one_code_table(0x10 + index, symbol) for index, symbol in enumerate((0xE0, 0x01, 0x00))]
    parts += [scan_header([1, 2, 3], last=0, low=13), b"\0" * (blocks * 3 // 8 + 1)]
    empty = (2, 3) if dense else (1, 2, 3)
    if dense:
        parts += [scan_header([1], first=1, low=13, table=1), b"\x55" * (blocks * 126 // 8 + 1)]
        parts += [scan_header([1], first=1, high=13, low=12, table=2), b"\0" * (blocks * 8)]
    for component in empty:
        parts += [scan_header([component], first=1, low=13), runs]
    for index in range(scans - (5 if dense else 4)):
        # Each scan refines one component's coefficients by one bit.
        high = 13 - index // len(empty)
        parts += [scan_header([empty[index % len(empty)]], first=1, high=high, low=high - 1), runs]
    return b"".join(parts) + b"\xff\xd9"


def chunk(kind: bytes, payload: bytes) -> bytes:
    """Return a PNG chunk."""
    return struct.pack(">I", len(payload)) + kind + payload + struct.pack(">I", zlib.crc32(kind + payload))


def png_file(
    width: int,
    height: int,
    *,
    depth: int,
    colour_type: int,
    idat: bytes,
    interlace: int = 0,
    before: bytes = b"",
    after: bytes = b"",
) -> bytes:
    """Put a PNG together from its compressed pixels and, around them, further chunks."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlace)
    return SIGNATURE + chunk(b"IHDR", header) + before + chunk(b"IDAT", idat) + after + chunk(b"IEND", b"")


def png_rows(samples: npt.NDArray[Any]) -> bytes:
    """Compress the rows of [h, w, ...] uint8 or uint16 samples, each behind filter byte 0."""
    wide = samples.astype(">u2") if samples.dtype == np.uint16 else samples
    return zlib.compress(b"".join(b"\0" + row.tobytes() for row in wide))


def interlaced_rows(samples: npt.NDArray[np.uint8]) -> bytes:
    """Compress the rows of [h, w, channels] samples in the seven passes of an interlaced PNG."""
    passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
    parts = [samples[row::row_step, column::column_step] for column, row, column_step, row_step in passes]
    return zlib.compress(b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part))


def zeros_deflated(mebibytes: int) -> bytes:
    """Return that many MiB of zeros, deflated a thousandfold."""
    deflate = zlib.compressobj(9)
    block = bytes(1 << 20)
    return b"".join(deflate.compress(block) for _ in range(mebibytes)) + deflate.flush()


def webp(rgb: Pixels, *, quality: int = 101) -> bytes:
    """Encode [h, w, 3], or [h, w, 4] with alpha; a quality above 100 is lossless (VP8L)."""
    order = [2, 1, 0, 3][: rgb.shape[2]]
    encoded, data = cv2.imencode(".webp", np.ascontiguousarray(rgb[..., order]), [cv2.IMWRITE_WEBP_QUALITY, quality])
    assert encoded
    return data.tobytes()


def riff(*chunks: bytes, size: int | None = None) -> bytes:
    """Put a WebP together from its chunks; `size` is what it says of itself, by default the truth."""
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body) if size is None else size) + body


def riff_chunk(kind: bytes, payload: bytes, *, size: int | None = None) -> bytes:
    """Return a chunk of a WebP, padded to an even length."""
    return kind + struct.pack("<I", len(payload) if size is None else size) + payload + b"\0" * (len(payload) % 2)


def webp_canvas(width: int, height: int, *, flags: int = 0) -> bytes:
    """Return the chunk VP8X of an extended WebP."""
    payload = bytes([flags, 0, 0, 0]) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return riff_chunk(b"VP8X", payload)


def vp8_header(width: int, height: int, *, tag: int = 0x10, rest: bytes = b"") -> bytes:
    """Return the chunk of a lossy WebP: the head of a key frame that is to be shown, and what follows it."""
    return riff_chunk(b"VP8 ", tag.to_bytes(3, "little") + b"\x9d\x01\x2a" + struct.pack("<HH", width, height) + rest)


def vp8l_header(width: int, height: int, *, alpha: bool = False, version: int = 0, rest: bytes = b"") -> bytes:
    """Return the chunk of a lossless WebP: its head and what follows it."""
    bits = (width - 1) | (height - 1) << 14 | alpha << 28 | version << 29
    return riff_chunk(b"VP8L", b"\x2f" + struct.pack("<I", bits) + rest)


def webp_payload(data: bytes) -> bytes:
    """Return the first chunk of a WebP that holds its pixels, whole."""
    start = next(data.index(kind, 12) for kind in (b"VP8 ", b"VP8L") if kind in data)
    length = int.from_bytes(data[start + 4 : start + 8], "little")
    return data[start : start + 8 + length + length % 2]


def code_bomb(width: int, height: int) -> bytes:
    """Return a valid lossless WebP of 0.3 MB that makes its decoder build 65,536 sets of five code tables."""
    one_symbol = [(1, 1), (0, 1), (0, 1), (0, 1)]  # a code of one symbol, which is 0
    # Codes of 256 symbols, each 8 bits long: of the lengths' own code only "8" is used.
    lengths = [(0, 1), (8, 4), *[(int(index == 11), 3) for index in range(12)], (1, 1), (3, 3), (254, 8)]
    bits = [(0, 1), (0, 1), (1, 1), (0, 3)]  # no transform, no colour cache, sets of codes, each for 4x4 pixels
    bits += [(0, 1), *lengths, *lengths, *one_symbol * 3]  # the picture of sets: green and red number the set
    across, down = -(-width // 4), -(-height // 4)
    assert across * down >= 65_536
    reversed_byte = [int(f"{value:08b}"[::-1], 2) for value in range(256)]
    bits += [(reversed_byte[value & 255] | reversed_byte[value >> 8] << 8, 16) for value in range(65_536)]
    bits += [(0, 16)] * (across * down - 65_536)
    bits += one_symbol * 5 * 65_536
    text = "".join(f"{value:0{length}b}"[::-1] for value, length in bits)
    text += "0" * (-len(text) % 8)
    packed = int(text[::-1], 2).to_bytes(len(text) // 8, "little")
    return riff(vp8l_header(width, height, rest=packed))


def i420(rgb: Pixels) -> bytes:
    """Turn [h, w, 3] of even sides into I420, BT.601 of limited range, each chroma sample the mean of four."""
    y, u, v = _yuv_planes(rgb)
    return y.tobytes() + u.tobytes() + v.tobytes()


def nv12(rgb: Pixels) -> bytes:
    """As `i420`, the two chroma planes interleaved."""
    y, u, v = _yuv_planes(rgb)
    return y.tobytes() + np.stack([u, v], axis=-1).tobytes()


def _encode(suffix: str, rgb: Pixels, options: Sequence[int]) -> bytes:
    bgr = rgb if rgb.ndim == 2 else rgb[..., ::-1]
    encoded, data = cv2.imencode(suffix, np.ascontiguousarray(bgr), list(options))
    assert encoded
    return data.tobytes()


def _one_code_table(destination: int, symbol: int) -> bytes:
    """Return a Huffman table of one symbol, coded as a single 0 bit."""
    return segment(0xC4, bytes([destination, 1, *[0] * 15, symbol]))


def _bits(text: str) -> bytes:
    """Pack bits as a JPEG scan has them: padded with ones, FF followed by 00."""
    text += "1" * (-len(text) % 8)
    return int(text, 2).to_bytes(len(text) // 8).replace(b"\xff", b"\xff\0")


def _yuv_planes(rgb: Pixels) -> tuple[Pixels, Pixels, Pixels]:
    red, green, blue = np.moveaxis(rgb.astype(np.float64), -1, 0)
    luma = 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255
    chroma = [
        128 + (-37.797 * red - 74.203 * green + 112.0 * blue) / 255,
        128 + (112.0 * red - 93.786 * green - 18.214 * blue) / 255,
    ]
    halves = [plane.reshape(plane.shape[0] // 2, 2, plane.shape[1] // 2, 2).mean(axis=(1, 3)) for plane in chroma]
    y, u, v = (np.clip(plane.round(), 0, 255).astype(np.uint8) for plane in (luma, *halves))
    return y, u, v

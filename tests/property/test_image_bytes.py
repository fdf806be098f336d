"""Whatever bytes come, a picture is decoded or refused with a reason; nothing else happens."""

from __future__ import annotations

import struct
import zlib

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from headworks_server.errors import FrameRejectedError
from headworks_server.media.decode import Decoder
from headworks_server.media.image import Encoding, PictureLimits, read_header
from support import pictures

LIMITS = PictureLimits(max_pixels=64 * 64, max_bytes=100_000)
DECODER = Decoder(limits=LIMITS)
SCENE = pictures.scene(48, 32)
RGBA = np.dstack([SCENE, np.arange(48 * 32, dtype=np.uint8).reshape(32, 48)])
LOSSLESS_CHUNK = pictures.webp_payload(pictures.webp(SCENE))
FILES = {
    Encoding.JPEG: [
        pictures.jpeg(SCENE),
        pictures.jpeg(SCENE, full_chroma=False, restart=1),
        pictures.jpeg(SCENE, progressive=True),
        pictures.jpeg(SCENE[..., 0]),
        pictures.scan_bomb(48, 32, scans=9),
    ],
    Encoding.PNG: [
        pictures.png(SCENE),
        pictures.png_file(48, 32, depth=8, colour_type=2, idat=pictures.interlaced_rows(SCENE), interlace=1),
        pictures.png_file(48, 32, depth=16, colour_type=6, idat=pictures.png_rows(np.zeros((32, 48, 4), np.uint16))),
    ],
    Encoding.WEBP: [
        pictures.webp(SCENE),
        pictures.webp(SCENE, quality=60),
        pictures.webp(RGBA),
        pictures.webp(RGBA, quality=60),
        pictures.riff(pictures.webp_canvas(48, 32), pictures.riff_chunk(b"ICCP", b"odd"), LOSSLESS_CHUNK),
    ],
}
CASES = [(encoding, data) for encoding, files in FILES.items() for data in files]
STARTS = st.sampled_from([b"", b"\xff\xd8\xff", pictures.SIGNATURE, b"RIFF\x60\0\0\0WEBP", pictures.riff(size=100)])
NOISE = st.binary(max_size=200)
EDITS = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.integers(0, 4),
        st.one_of(st.binary(max_size=4), st.sampled_from([b"\xff", b"\xff\xda", b"\xff\xd9", b"\xff\xc2", b"\0\0"])),
    ),
    max_size=4,
)


def decode_or_refuse(data: bytes, encoding: int, target: tuple[int, int] | None) -> str | None:
    """Return why a picture was refused; check what was decoded otherwise."""
    least = None if target is None else lambda _width, _height: target
    try:
        picture = DECODER.decode(memoryview(data), encoding=encoding, width=48, height=32, target=least)
    except FrameRejectedError as error:
        return error.detail
    height, width, channels = picture.pixels.shape
    assert channels == 3
    assert picture.pixels.dtype == np.uint8
    assert picture.source_width * picture.source_height <= LIMITS.max_pixels
    assert 1 <= width <= picture.source_width
    assert 1 <= height <= picture.source_height
    return None


@settings(deadline=None, max_examples=400)
@given(st.sampled_from(CASES), EDITS, st.sampled_from([None, (16, 16)]))
def test_edited_files(
    case: tuple[Encoding, bytes], edits: list[tuple[float, int, bytes]], target: tuple[int, int] | None
) -> None:
    """Bytes replaced, removed and inserted anywhere in a good file."""
    encoding, data = case
    for place, removed, inserted in edits:
        at = int(place * len(data))
        data = data[:at] + inserted + data[at + removed :]
    assert decode_or_refuse(data, encoding, target) != ""


@settings(deadline=None, max_examples=200)
@given(st.sampled_from(CASES), st.floats(0, 1, exclude_max=True))
def test_no_beginning_of_a_file_is_a_picture(case: tuple[Encoding, bytes], keep: float) -> None:
    """A file cut anywhere is refused, each format telling where it ends."""
    encoding, data = case
    assert decode_or_refuse(data[: int(keep * len(data))], encoding, None)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200), st.integers(0, 12), STARTS)
def test_any_bytes(data: bytes, encoding: int, start: bytes) -> None:
    """Noise, with and without the start of a file."""
    decode_or_refuse(start + data, encoding, None)


@settings(deadline=None, max_examples=200)
@given(st.data())
def test_png_chunks_with_good_checksums(data: st.DataObject) -> None:
    """Chunks in any order and of any content, past the checksums."""
    kinds = st.sampled_from([b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tEXt", b"acTL", b"fdAT", b"ABCD"])
    payloads = st.one_of(st.binary(max_size=30), st.binary(max_size=300).map(zlib.compress))
    depth, colour_type = data.draw(st.sampled_from([(1, 0), (8, 2), (8, 3), (16, 6)]))
    header = struct.pack(">IIBBBBB", 5, 4, depth, colour_type, 0, 0, data.draw(st.integers(0, 1)))
    chunks = data.draw(st.lists(st.tuples(kinds, payloads), max_size=6))
    file = pictures.SIGNATURE + pictures.chunk(b"IHDR", header) + b"".join(pictures.chunk(*part) for part in chunks)
    decode_or_refuse(file, Encoding.PNG, None)


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_webp_chunks_in_any_order(data: st.DataObject) -> None:
    """Chunks in any order and of any content, their sizes true; the picture's own coded data edited."""
    heads = [pictures.webp_payload(file)[8:] for file in FILES[Encoding.WEBP]]
    payloads = st.one_of(
        st.binary(max_size=30),
        st.builds(lambda head, keep, noise: head[:keep] + noise, st.sampled_from(heads), st.integers(5, 400), NOISE),
    )
    kinds = st.sampled_from([b"VP8 ", b"VP8L", b"VP8X", b"ALPH", b"ANIM", b"ICCP", b"abcd"])
    chunks = data.draw(st.lists(st.tuples(kinds, payloads), max_size=5))
    canvas = pictures.webp_canvas(48, 32) if data.draw(st.booleans()) else b""
    file = pictures.riff(canvas, *(pictures.riff_chunk(*part) for part in chunks))
    decode_or_refuse(file, Encoding.WEBP, None)


@given(st.lists(st.tuples(st.sampled_from([0xC4, 0xDB, 0xE0, 0xFE]), st.binary(max_size=40)), max_size=8))
def test_scans_are_counted_past_any_segments(segments: list[tuple[int, bytes]]) -> None:
    """Segments between scans are skipped by their length, whatever they hold."""
    plain = pictures.jpeg(SCENE, progressive=True)
    second = plain.index(b"\xff\xda", plain.index(b"\xff\xda") + 2)
    between = b"".join(pictures.segment(*part) for part in segments)
    data = plain[:second] + between + plain[second:]
    header = read_header(memoryview(data), encoding=Encoding.JPEG, width=0, height=0, limits=LIMITS)
    assert header.scans == 10

"""WebP files are read chunk by chunk before anything is decoded; what the chunks say must agree."""

from __future__ import annotations

import numpy as np
import pytest

from headworks_server.core.outcomes import FrameErrorCode
from headworks_server.errors import FrameRejectedError
from headworks_server.media.decode import Decoder
from headworks_server.media.image import Encoding
from support import pictures

RGB = pictures.scene(64, 48)
LOSSY, LOSSLESS = pictures.webp(RGB, quality=80), pictures.webp(RGB)
CANVAS = pictures.webp_canvas(64, 48)
SHORT = pictures.vp8_header(64, 48)
RGBA = np.dstack([RGB, np.random.default_rng(3).integers(1, 256, RGB.shape[:2], dtype=np.uint8)])


def decode(data: bytes) -> pictures.Pixels:
    picture = Decoder().decode(memoryview(data), encoding=Encoding.WEBP, width=0, height=0, target=None)
    assert (picture.source_width, picture.source_height) == picture.pixels.shape[1::-1]
    assert not picture.is_bgr
    return picture.pixels


def refused(data: bytes) -> tuple[FrameErrorCode, str]:
    with pytest.raises(FrameRejectedError) as caught:
        decode(data)
    return caught.value.code, caught.value.detail


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 1), (37, 21), (641, 359)])
def test_webp_of_any_size(size: tuple[int, int]) -> None:
    """Lossless comes back exactly, lossy close to what was encoded; files of 30 bytes are files too."""
    rgb = pictures.scene(*size)
    assert np.array_equal(decode(pictures.webp(rgb)), rgb)
    assert np.abs(decode(pictures.webp(rgb, quality=95)).astype(int) - rgb).mean() < 4


@pytest.mark.parametrize("quality", [80, 101])
def test_alpha_of_a_webp_is_dropped(quality: int) -> None:
    """A transparent pixel shows its stored colour, in VP8 with an alpha plane beside it and in VP8L with its own."""
    data = pictures.webp(RGBA, quality=quality)
    pixels = decode(data)
    assert pixels.shape == RGB.shape
    if quality > 100:
        assert np.array_equal(pixels, RGB)
    else:
        assert b"ALPH" in data
        assert np.array_equal(pixels, decode(pictures.riff(pictures.webp_payload(data))))


def test_alpha_plane_is_not_decoded() -> None:
    """An alpha plane is a compressed picture of its own; however broken, it is left out."""
    broken = pictures.riff_chunk(b"ALPH", b"\xff" * 99)
    data = pictures.riff(pictures.webp_canvas(64, 48, flags=0x10), broken, pictures.webp_payload(LOSSY))
    assert np.array_equal(decode(data), decode(LOSSY))


@pytest.mark.parametrize("plain", [LOSSY, LOSSLESS], ids=["VP8", "VP8L"])
def test_extended_webp_with_metadata(plain: bytes) -> None:
    """Profiles, orientation and unknown chunks, before and behind the picture, change nothing."""
    parts = [pictures.riff_chunk(kind, b"odd") for kind in (b"ICCP", b"abcd")]
    exif = pictures.riff_chunk(b"EXIF", pictures.exif_orientation(6))
    canvas = pictures.webp_canvas(64, 48, flags=0x28)
    data = pictures.riff(canvas, *parts, pictures.webp_payload(plain), exif)
    assert np.array_equal(decode(data), decode(plain))


def test_garbage_behind_the_end_is_not_looked_at() -> None:
    """Bytes behind the file's own end are none of it, as behind the end of a JPEG."""
    assert np.array_equal(decode(LOSSLESS + b"garbage" * 99), RGB)
    assert np.array_equal(decode(LOSSLESS + LOSSY), RGB)


@pytest.mark.parametrize("plain", [LOSSY, LOSSLESS], ids=["VP8", "VP8L"])
@pytest.mark.parametrize("keep", [12, 16, 19, 20, 25, 0.3, 0.7, -2])
def test_truncated_webp_is_refused(plain: bytes, keep: float) -> None:
    """Cut in a chunk's head, in the picture's head, in its midst, just before its end: the file says how long it is."""
    cut = int(len(plain) * keep) if isinstance(keep, float) else keep
    expected = f"expected a whole WebP file of {len(plain):,} bytes, as its start says, got {len(plain[:cut]):,} bytes"
    assert refused(plain[:cut]) == (FrameErrorCode.UNDECODABLE, expected)


@pytest.mark.parametrize("plain", [LOSSY, LOSSLESS], ids=["VP8", "VP8L"])
def test_webp_cut_short_with_true_sizes_is_refused(plain: bytes) -> None:
    """Where all sizes agree and pixels are missing all the same, the decoder sees it."""
    chunk = pictures.webp_payload(plain)
    data = pictures.riff(pictures.riff_chunk(chunk[:4], chunk[8 : len(chunk) // 2]))
    assert refused(data)[0] == FrameErrorCode.UNDECODABLE


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (
            pictures.riff(SHORT, size=2**32 - 1),
            "expected a whole WebP file of 4,294,967,303 bytes, as its start says, got 30 bytes",
        ),
        (
            pictures.riff(pictures.webp_payload(LOSSY), size=100),
            f"expected the chunk VP8 at byte 12 to end within the file's 108 bytes, got one that ends at "
            f"{20 + int.from_bytes(LOSSY[16:20], 'little'):,}",
        ),
        (
            pictures.riff(pictures.riff_chunk(b"VP8 ", bytes(10), size=2**32 - 1)),
            "expected the chunk VP8 at byte 12 to end within the file's 30 bytes, got one that ends at 4,294,967,315",
        ),
        (pictures.riff(SHORT, size=0), "expected a chunk VP8 or VP8L, got a file of 8 bytes that ends before one"),
        (pictures.riff(), "expected a chunk VP8 or VP8L, got a file of 12 bytes that ends before one"),
        (pictures.riff(CANVAS), "expected a chunk VP8 or VP8L, got a file of 30 bytes that ends before one"),
    ],
    ids=["larger than memory", "smaller than its chunk", "a chunk's own", "nothing", "no chunk", "canvas only"],
)
def test_sizes_that_lie_are_refused(data: bytes, detail: str) -> None:
    """What a file and its chunks say of their lengths must fit into each other and into what came."""
    assert refused(data) == (FrameErrorCode.UNDECODABLE, detail)


@pytest.mark.parametrize(
    "chunk", [pictures.vp8_header(64, 47), pictures.vp8l_header(63, 48)], ids=["lossy", "lossless"]
)
def test_canvas_must_be_the_pictures_size(chunk: bytes) -> None:
    """An extended file tells its size twice; a decoder that believes the wrong one writes where it must not."""
    code, detail = refused(pictures.riff(CANVAS, chunk))
    assert code == FrameErrorCode.UNDECODABLE
    assert detail.startswith("expected a picture of its canvas's size, 64x48, got 6")


@pytest.mark.parametrize(
    "data",
    [
        pictures.riff(pictures.webp_canvas(64, 48, flags=2), SHORT),
        pictures.riff(CANVAS, pictures.riff_chunk(b"ANIM", bytes(6)), SHORT),
        pictures.riff(CANVAS, pictures.riff_chunk(b"ANMF", bytes(16) + SHORT)),
        pictures.riff(pictures.riff_chunk(b"ANMF", bytes(16) + SHORT)),
    ],
    ids=["flag", "control", "frame", "frame first"],
)
def test_animated_webp_is_unsupported(data: bytes) -> None:
    """One frame is one picture: an animation, told by its flag or by its chunks, is refused by name."""
    assert refused(data) == (FrameErrorCode.UNSUPPORTED, "expected a still WebP, got an animated one")


@pytest.mark.parametrize(
    ("chunk", "detail"),
    [
        (pictures.riff_chunk(b"ALPH", b"\0"), "expected the chunk VP8, VP8L or VP8X first, got ALPH"),
        (pictures.riff_chunk(b"\0\1\2\3", b"\0"), "expected the chunk VP8, VP8L or VP8X first, got 00 01 02 03"),
        (pictures.riff_chunk(b"VP8X", bytes(9)), "expected a chunk VP8X of 10 bytes, got 9"),
        (pictures.riff_chunk(b"VP8 ", bytes(9)), "expected a chunk VP8 of at least 10 bytes, got 9"),
        (pictures.riff_chunk(b"VP8L", b"\x2f"), "expected a chunk VP8L of at least 5 bytes, got 1"),
        (
            pictures.riff_chunk(b"VP8 ", bytes(30)),
            "expected a VP8 key frame, got a chunk that does not begin like one",
        ),
        (
            pictures.vp8_header(64, 48, tag=0x11),
            "expected a VP8 key frame, got a chunk that does not begin like one",
        ),
        (pictures.vp8_header(64, 48, tag=0), "expected a VP8 frame of profile 0 to 3 that is to be shown, got another"),
        (
            pictures.vp8_header(64, 48, tag=0x18),
            "expected a VP8 frame of profile 0 to 3 that is to be shown, got another",
        ),
        (
            pictures.vp8_header(64, 48, tag=0x10 | 500 << 5, rest=bytes(20)),
            "expected a first partition of 500 bytes, got 20 bytes",
        ),
        (pictures.vp8_header(0, 48), "expected a picture of at least 1x1, got 0x48"),
        (pictures.vp8_header(64, 0x4000), "expected a picture of at least 1x1, got 64x0"),
        (
            pictures.vp8l_header(64, 48, version=1),
            "expected a VP8L picture of version 0, got a chunk that does not begin like one",
        ),
        (
            pictures.riff_chunk(b"VP8L", bytes(30)),
            "expected a VP8L picture of version 0, got a chunk that does not begin like one",
        ),
    ],
)
def test_chunks_that_make_no_webp(chunk: bytes, detail: str) -> None:
    """Each chunk is held to what the standard says of its first bytes."""
    assert refused(pictures.riff(chunk)) == (FrameErrorCode.UNDECODABLE, detail)


def test_webp_chunks_are_bounded() -> None:
    """A file of empty chunks is not walked to its end."""
    empty = pictures.riff_chunk(b"abcd", b"") * 1_000
    detail = "expected at most 64 chunks before the picture, got more"
    assert refused(pictures.riff(CANVAS, empty, SHORT)) == (FrameErrorCode.TOO_LARGE, detail)


def test_damage_of_a_webp_says_so_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Coded data that contradict themselves are refused; neither OpenCV nor libwebp writes to the server's log."""
    chunk = pictures.webp_payload(LOSSLESS)
    data = pictures.riff(chunk[:13] + b"\xff" * (len(chunk) - 13))
    detail = "expected a WebP file, got one whose chunks do not make a picture"
    assert refused(data) == (FrameErrorCode.UNDECODABLE, detail)
    assert capfd.readouterr() == ("", "")


def test_tables_bomb_is_decoded_within_bounds() -> None:
    """65,536 sets of code tables in 0.3 MB: valid, however useless, so it costs what it costs and no more."""
    assert decode(pictures.code_bomb(1024, 1024)).shape == (1024, 1024, 3)

"""Headers are read and held against the limits before anything is decoded; what is refused says why."""

from __future__ import annotations

import pytest

from headworks.v1 import frame_pb2
from headworks_server.core.outcomes import FrameErrorCode
from headworks_server.errors import FrameRejectedError
from headworks_server.media.image import Encoding, PictureHeader, PictureLimits, read_header
from support import pictures

LIMITS = PictureLimits()
RAW = [Encoding.BGR24, Encoding.RGB24, Encoding.GRAY8, Encoding.NV12, Encoding.I420]
DQT = pictures.segment(0xDB, b"\0" + b"\1" * 64)
SOI, EOI = b"\xff\xd8", b"\xff\xd9"


def header(data: bytes, encoding: int = Encoding.JPEG, *, width: int = 0, height: int = 0) -> PictureHeader:
    return read_header(memoryview(data), encoding=encoding, width=width, height=height, limits=LIMITS)


def refused(
    data: bytes, encoding: int = Encoding.JPEG, *, width: int = 0, height: int = 0
) -> tuple[FrameErrorCode, str]:
    with pytest.raises(FrameRejectedError) as caught:
        header(data, encoding, width=width, height=height)
    return caught.value.code, caught.value.detail


def test_encoding_numbers_equal_the_protocol() -> None:
    """The server's list of encodings is the protocol's."""
    assert {f"ENCODING_{item.name}": item.value for item in Encoding} == dict(frame_pb2.Encoding.items())


def test_missing_and_unknown_encodings_are_refused() -> None:
    """A frame without an encoding and one of a newer protocol are told apart."""
    served = "this server reads JPEG, PNG, WebP, BGR24, RGB24, GRAY8, NV12 and I420"
    assert refused(b"1234", 0) == (FrameErrorCode.UNSUPPORTED, f"the frame states no encoding: {served}")
    assert refused(b"1234", 99) == (FrameErrorCode.UNSUPPORTED, f"encoding 99 is unknown: {served}")


def test_size_and_components_of_good_pictures() -> None:
    """Size, channels and scans come from the header alone."""
    colour, grey = pictures.scene(37, 21), pictures.scene(37, 21)[..., 0]
    assert header(pictures.jpeg(colour)) == PictureHeader(37, 21, 3)
    assert header(pictures.jpeg(grey)) == PictureHeader(37, 21, 1)
    assert header(pictures.jpeg(colour, progressive=True)) == PictureHeader(37, 21, 3, scans=10)
    assert header(pictures.png(colour), Encoding.PNG) == PictureHeader(37, 21, 3)
    assert header(pictures.webp(colour, quality=80), Encoding.WEBP) == PictureHeader(37, 21, 3)
    assert header(pictures.webp(colour), Encoding.WEBP) == PictureHeader(37, 21, 3)
    assert header(bytes(37 * 21 * 3), Encoding.BGR24, width=37, height=21) == PictureHeader(37, 21, 3)
    assert header(bytes(37 * 21 * 3), Encoding.RGB24, width=37, height=21) == PictureHeader(37, 21, 3)
    assert header(bytes(37 * 21), Encoding.GRAY8, width=37, height=21) == PictureHeader(37, 21, 1)
    assert header(bytes(38 * 22 * 3 // 2), Encoding.NV12, width=38, height=22) == PictureHeader(38, 22, 3)
    assert header(bytes(38 * 22 * 3 // 2), Encoding.I420, width=38, height=22) == PictureHeader(38, 22, 3)


@pytest.mark.parametrize(
    ("data", "encoding", "detail"),
    [
        (pictures.png(pictures.scene(8, 8)), Encoding.JPEG, "expected a JPEG file (FF D8 ...), got a PNG file"),
        (pictures.jpeg(pictures.scene(8, 8)), Encoding.PNG, "expected a PNG file (89 50 4E 47 ...), got a JPEG file"),
        (pictures.webp(pictures.scene(8, 8)), Encoding.JPEG, "expected a JPEG file (FF D8 ...), got a WebP file"),
        (pictures.webp(pictures.scene(8, 8)), Encoding.PNG, "expected a PNG file (89 50 4E 47 ...), got a WebP file"),
        (pictures.jpeg(pictures.scene(8, 8)), Encoding.WEBP, "expected a WebP file (RIFF .... WEBP), got a JPEG file"),
        (
            b"RIFF\x24\0\0\0WAVEfmt " + bytes(28),
            Encoding.WEBP,
            "expected a WebP file (RIFF .... WEBP), got 44 bytes that begin 52 49 46 46",
        ),
        (b"", Encoding.WEBP, "expected a WebP file (RIFF .... WEBP), got 0 bytes"),
        (b"", Encoding.JPEG, "expected a JPEG file (FF D8 ...), got 0 bytes"),
        (b"", Encoding.PNG, "expected a PNG file (89 50 4E 47 ...), got 0 bytes"),
        (SOI, Encoding.JPEG, "expected a JPEG file (FF D8 ...), got 2 bytes"),
        (b"\1\2\3\4" * 9, Encoding.JPEG, "expected a JPEG file (FF D8 ...), got 36 bytes that begin 01 02 03 04"),
    ],
)
def test_mislabelled_and_empty_pictures_are_named(data: bytes, encoding: Encoding, detail: str) -> None:
    """A picture of another format, or of none, is refused by what was expected and what came."""
    assert refused(data, encoding) == (FrameErrorCode.UNDECODABLE, detail)


@pytest.mark.parametrize(
    ("encoding", "name", "size"),
    [
        (Encoding.BGR24, "BGR24", 6_220_800),
        (Encoding.RGB24, "RGB24", 6_220_800),
        (Encoding.GRAY8, "GRAY8", 2_073_600),
        (Encoding.NV12, "NV12", 3_110_400),
        (Encoding.I420, "I420", 3_110_400),
    ],
)
@pytest.mark.parametrize("difference", [-1, 1])
def test_raw_picture_of_wrong_size(encoding: Encoding, name: str, size: int, difference: int) -> None:
    """Raw bytes must be exactly as many as the stated size needs; one less or one more is not."""
    expected = f"expected 1920x1080 {name} ({size:,} bytes), got {size + difference:,} bytes"
    got = refused(bytes(size + difference), encoding, width=1920, height=1080)
    assert got == (FrameErrorCode.UNDECODABLE, expected)


@pytest.mark.parametrize("encoding", RAW)
@pytest.mark.parametrize("size", [(0, 1080), (1920, 0), (0, 0)], ids=str)
def test_raw_picture_without_a_size(encoding: Encoding, size: tuple[int, int]) -> None:
    """A side of 0, as where the sender has left it out, is refused before bytes are counted."""
    expected = f"expected a picture of at least 1x1, got {size[0]}x{size[1]}"
    got = refused(b"", encoding, width=size[0], height=size[1])
    assert got == (FrameErrorCode.UNDECODABLE, expected)


@pytest.mark.parametrize("encoding", RAW)
@pytest.mark.parametrize(
    ("size", "detail"),
    [
        ((2**32 - 1, 2**32 - 1), "expected sides of at most 65,500 pixels, got 4294967295x4294967295"),
        ((2**31, 2), "expected sides of at most 65,500 pixels, got 2147483648x2"),
        ((65_500, 65_500), "expected at most 33,177,600 pixels, got 65500x65500 (4,290,250,000 pixels)"),
    ],
    ids=str,
)
def test_giant_raw_sizes_do_not_wrap_around(encoding: Encoding, size: tuple[int, int], detail: str) -> None:
    """Stated sizes whose product has no room in 32 or 64 bits, or is 0 there, are refused as what they are."""
    assert refused(b"", encoding, width=size[0], height=size[1]) == (FrameErrorCode.TOO_LARGE, detail)


@pytest.mark.parametrize("encoding", [Encoding.NV12, Encoding.I420])
@pytest.mark.parametrize("size", [(5, 4), (4, 5), (5, 5)], ids=str)
def test_odd_sides_are_refused_where_chroma_is_halved(encoding: Encoding, size: tuple[int, int]) -> None:
    """NV12 and I420 need even sides: how an odd one is rounded differs from camera to camera."""
    expected = (
        f"expected {encoding.name} of even width and height, for its chroma planes have half of each, "
        f"got {size[0]}x{size[1]}"
    )
    got = refused(bytes(size[0] * size[1] * 3 // 2), encoding, width=size[0], height=size[1])
    assert got == (FrameErrorCode.UNDECODABLE, expected)


def test_picture_over_the_byte_limit() -> None:
    """Bytes are counted before anything else is looked at."""
    expected = "expected at most 16,000,000 bytes, got 16,000,001 bytes"
    assert refused(bytes(16_000_001)) == (FrameErrorCode.TOO_LARGE, expected)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (SOI + DQT + pictures.frame_header(7681, 4320), Encoding.JPEG),
        (pictures.png_file(7681, 4320, depth=8, colour_type=2, idat=b""), Encoding.PNG),
        (pictures.riff(pictures.vp8_header(7681, 4320)), Encoding.WEBP),
        (pictures.riff(pictures.vp8l_header(7681, 4320)), Encoding.WEBP),
        (pictures.riff(pictures.webp_canvas(7681, 4320), pictures.vp8_header(64, 64)), Encoding.WEBP),
        (b"", Encoding.BGR24),
        (b"", Encoding.GRAY8),
    ],
)
def test_size_bomb_is_refused_by_its_header(data: bytes, encoding: Encoding) -> None:
    """A few bytes that promise more than 33 million pixels are never decoded; a frame of 8K is within the limit."""
    expected = "expected at most 33,177,600 pixels, got 7681x4320 (33,181,920 pixels)"
    assert refused(data, encoding, width=7681, height=4320) == (FrameErrorCode.TOO_LARGE, expected)


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (SOI + DQT + pictures.frame_header(65_500, 65_500), Encoding.JPEG),
        (SOI + DQT + pictures.frame_header(65_500, 65_500, code=0xC2), Encoding.JPEG),
        (pictures.png_file(65_500, 65_500, depth=1, colour_type=0, idat=b""), Encoding.PNG),
        (pictures.riff(pictures.webp_canvas(65_500, 65_500), pictures.vp8l_header(16_384, 16_384)), Encoding.WEBP),
    ],
)
def test_picture_bomb_of_the_longest_sides(data: bytes, encoding: Encoding) -> None:
    """65,500 x 65,500 pixels would take 12 GB; the header alone refuses them."""
    expected = "expected at most 33,177,600 pixels, got 65500x65500 (4,290,250,000 pixels)"
    assert refused(data, encoding) == (FrameErrorCode.TOO_LARGE, expected)


def test_sides_are_bounded() -> None:
    """A picture of one row cannot be a million columns wide."""
    data = pictures.png_file(65_501, 1, depth=8, colour_type=0, idat=b"")
    assert refused(data, Encoding.PNG) == (
        FrameErrorCode.TOO_LARGE,
        "expected sides of at most 65,500 pixels, got 65501x1",
    )


def test_samples_of_a_deep_png_are_bounded() -> None:
    """16-bit samples with alpha are accepted up to half the pixels, which is as much work as 8-bit ones."""
    deep = pictures.png_file(7680, 4320, depth=16, colour_type=6, idat=b"")
    detail = "expected at most 132,710,400 bytes of samples, got 7680x4320 pixels of 4 x 16 bits (265,420,800 bytes)"
    assert refused(deep, Encoding.PNG) == (FrameErrorCode.TOO_LARGE, detail)
    assert header(pictures.png_file(7680, 2160, depth=16, colour_type=6, idat=b""), Encoding.PNG).bit_depth == 16
    assert header(pictures.png_file(7680, 4320, depth=8, colour_type=6, idat=b""), Encoding.PNG).components == 4


@pytest.mark.parametrize(
    ("sof", "detail"),
    [
        (pictures.frame_header(8, 8, components=4), "expected a grey or colour JPEG, got 4 components (CMYK or YCCK)"),
        (pictures.frame_header(8, 8, components=2), "expected a JPEG of 1 or 3 components, got 2"),
        (pictures.frame_header(8, 8, code=0xC1, precision=12), "expected a JPEG of 8 bits a sample, got 12 bits"),
        (
            pictures.frame_header(8, 8, code=0xC3),
            "expected a baseline, extended or progressive JPEG, got lossless or hierarchical coding (SOF3)",
        ),
        (
            pictures.frame_header(8, 8, code=0xC9),
            "expected a baseline, extended or progressive JPEG, got arithmetic coding (SOF9)",
        ),
        (
            pictures.frame_header(8, 0),
            "expected the height in the frame header, got a JPEG that tells it after the first scan (DNL)",
        ),
    ],
)
def test_jpeg_features_that_are_not_served(sof: bytes, detail: str) -> None:
    """CMYK, 12 bits, lossless, arithmetic coding and a height told late are refused by name."""
    assert refused(SOI + DQT + sof + pictures.scan_header([1])) == (FrameErrorCode.UNSUPPORTED, detail)


def test_thumbnail_in_metadata_is_not_looked_at() -> None:
    """A whole JPEG inside APP1 is skipped: the size is that of the picture around it."""
    data = pictures.jpeg(pictures.scene(40, 24))
    thumbnail = pictures.jpeg(pictures.scene(8, 8), progressive=True)
    assert header(pictures.with_segment(data, 0xE1, b"Exif\0\0" + thumbnail)) == PictureHeader(40, 24, 3)


def test_fill_bytes_before_a_marker_are_skipped() -> None:
    """The standard lets any marker be preceded by FF bytes."""
    data = pictures.jpeg(pictures.scene(16, 8))
    assert header(data[:2] + b"\xff" * 5 + data[2:]) == PictureHeader(16, 8, 3)
    detail = "expected a JPEG marker at byte 2, got more than 64 fill bytes"
    assert refused(data[:2] + b"\xff" * 99 + data[2:]) == (FrameErrorCode.UNDECODABLE, detail)


def test_scan_bomb_is_refused() -> None:
    """32 scans are accepted, 33 are not: each costs a walk over the whole picture."""
    assert header(pictures.scan_bomb(64, 64, scans=32)).scans == 32
    detail = "expected a JPEG of at most 32 scans, got more"
    assert refused(pictures.scan_bomb(64, 64, scans=33)) == (FrameErrorCode.TOO_LARGE, detail)


def test_scans_of_a_sequential_picture_are_bounded() -> None:
    """A baseline picture whose scans carry one component each may repeat them, so they are counted as well."""
    scan = pictures.scan_header([1]) + b"\0\0"
    data = SOI + DQT + pictures.frame_header(8, 8) + scan * 33 + EOI
    assert refused(data) == (FrameErrorCode.TOO_LARGE, "expected a JPEG of at most 32 scans, got more")


def test_restarts_and_markers_in_metadata_are_no_scans() -> None:
    """Restart markers are passed over, and a comment between scans may hold what looks like one."""
    data = pictures.jpeg(pictures.scene(64, 64), progressive=True, restart=2)
    second = data.index(b"\xff\xda", data.index(b"\xff\xda") + 2)
    commented = data[:second] + pictures.segment(0xFE, b"\xff\xda\0\4" * 50) + data[second:]
    assert header(data).scans == 10
    assert header(commented).scans == 10


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (SOI + DQT + EOI, "expected a JPEG segment at byte 71, got marker D9"),
        (SOI + DQT + pictures.scan_header([1]), "expected the picture's size (SOF) before its first scan, got none"),
        (SOI + 2 * pictures.frame_header(8, 8), "expected one size (SOF), got two"),
        (SOI + b"abcd", "expected a JPEG marker at byte 2, got 61"),
        (SOI + b"\xff\xe0\0\1abcd", "expected a segment of at least 2 bytes at byte 2, got 1"),
        (SOI + DQT, "expected a whole JPEG file, got 71 bytes that end before its end marker"),
    ],
)
def test_jpeg_markers_that_make_no_picture(data: bytes, detail: str) -> None:
    """What cannot be walked is refused at the place where the walk ended."""
    assert refused(data) == (FrameErrorCode.UNDECODABLE, detail)


def test_segments_are_bounded() -> None:
    """Thousands of empty segments before or after the first scan are not walked."""
    comments = pictures.segment(0xFE, b"") * 1025
    detail = "expected at most 1,024 segments before the first scan, got more"
    assert refused(SOI + comments) == (FrameErrorCode.TOO_LARGE, detail)
    detail = "expected at most 1,024 segments after the first scan, got more"
    assert refused(pictures.scan_bomb(8, 8, scans=5)[:-2] + comments + EOI) == (FrameErrorCode.TOO_LARGE, detail)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (pictures.SIGNATURE, "expected a whole PNG file, got 8 bytes that end before its chunk IEND"),
        (pictures.SIGNATURE + pictures.chunk(b"IDAT", bytes(30)), "expected the chunk IHDR first, got IDAT"),
        (
            pictures.png_file(8, 8, depth=2, colour_type=2, idat=b""),
            "expected a colour type and depth of the PNG standard, got 2 at 2 bits",
        ),
        (
            pictures.png_file(8, 8, depth=8, colour_type=2, idat=b"", interlace=2),
            "expected compression 0, filter 0 and interlace 0 or 1, got 0, 0 and 2",
        ),
        (pictures.png_file(8, 0, depth=8, colour_type=2, idat=b""), "expected a picture of at least 1x1, got 8x0"),
    ],
)
def test_png_headers_that_make_no_picture(data: bytes, detail: str) -> None:
    """IHDR must come first and keep to the standard."""
    assert refused(data, Encoding.PNG) == (FrameErrorCode.UNDECODABLE, detail)

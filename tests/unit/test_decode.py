"""Pictures are decoded rightly or refused with a reason, whatever comes."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest
import simplejpeg

from headworks_server.core.outcomes import FrameErrorCode
from headworks_server.errors import FrameRejectedError
from headworks_server.media.decode import Decoder, Picture
from headworks_server.media.geometry import Resize
from headworks_server.media.image import Encoding
from support import pictures

IDAT_ZLIB_BOMB_MIB = 64
ENCODERS: dict[Encoding, Callable[[pictures.Pixels], bytes]] = {
    Encoding.JPEG: pictures.jpeg,
    Encoding.PNG: pictures.png,
    Encoding.BGR24: lambda rgb: rgb[..., ::-1].tobytes(),
    Encoding.WEBP: pictures.webp,
    Encoding.RGB24: lambda rgb: rgb.tobytes(),
    Encoding.GRAY8: lambda rgb: rgb[..., 0].tobytes(),
    Encoding.NV12: pictures.nv12,
    Encoding.I420: pictures.i420,
}


@pytest.fixture
def decoder() -> Decoder:
    return Decoder()


def decode(
    decoder: Decoder,
    data: bytes,
    encoding: int = Encoding.JPEG,
    *,
    size: tuple[int, int] = (0, 0),
    target: tuple[int, int] | None = None,
) -> Picture:
    """Decode; `target` is the size of an input that the picture is letterboxed into."""
    least = None if target is None else Resize(width=target[0], height=target[1]).least_size
    return decoder.decode(memoryview(data), encoding=encoding, width=size[0], height=size[1], target=least)


def refused(decoder: Decoder, data: bytes, encoding: int = Encoding.JPEG) -> tuple[FrameErrorCode, str]:
    with pytest.raises(FrameRejectedError) as caught:
        decode(decoder, data, encoding)
    return caught.value.code, caught.value.detail


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (17, 1), (37, 21), (64, 48), (641, 359)])
@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_of_any_size(decoder: Decoder, size: tuple[int, int], *, progressive: bool) -> None:
    """JPEG comes out as RGB of the stored size, close to what was encoded."""
    rgb = pictures.scene(*size)
    picture = decode(decoder, pictures.jpeg(rgb, quality=98, progressive=progressive))
    assert (picture.source_width, picture.source_height, picture.is_bgr) == (*size, False)
    assert picture.pixels.shape == rgb.shape
    assert np.abs(picture.pixels.astype(int) - rgb).max() <= 16


def test_grey_jpeg_has_three_equal_channels(decoder: Decoder) -> None:
    """A grey picture serves a colour model."""
    pixels = decode(decoder, pictures.jpeg(pictures.scene(40, 30)[..., 0])).pixels
    assert pixels.shape == (30, 40, 3)
    assert (pixels == pixels[..., :1]).all()


def test_adobe_rgb_jpeg_keeps_its_colours(decoder: Decoder) -> None:
    """A file whose components are R, G and B is not taken for YCbCr."""
    rgb = pictures.scene(64, 48)
    pixels = decode(decoder, pictures.rgb_jpeg(rgb)).pixels
    assert np.abs(pixels.astype(int) - rgb).max() <= 16


def test_orientation_is_ignored(decoder: Decoder) -> None:
    """Pictures are served as stored: EXIF orientation turns neither JPEG nor PNG."""
    rgb = pictures.scene(40, 24)
    exif = pictures.exif_orientation(6)
    plain = pictures.jpeg(rgb)
    turned = decode(decoder, pictures.with_segment(plain, 0xE1, b"Exif\0\0" + exif)).pixels.copy()
    assert np.array_equal(turned, decode(decoder, plain).pixels)
    png = pictures.png_file(
        40, 24, depth=8, colour_type=2, idat=pictures.png_rows(rgb), before=pictures.chunk(b"eXIf", exif)
    )
    assert np.array_equal(decode(decoder, png, Encoding.PNG).pixels, rgb)


@pytest.mark.parametrize("progressive", [False, True])
@pytest.mark.parametrize("keep", [0.3, 0.7, 0.999])
def test_truncated_jpeg_is_refused(decoder: Decoder, keep: float, *, progressive: bool) -> None:
    """libjpeg would fill the missing part with grey; half a picture is no picture."""
    data = pictures.jpeg(pictures.scene(160, 120), progressive=progressive)
    code, detail = refused(decoder, data[: int(len(data) * keep)])
    assert code == FrameErrorCode.UNDECODABLE
    assert detail.startswith("expected a whole JPEG file, got ")


def test_damaged_jpeg_is_refused(decoder: Decoder) -> None:
    """A marker in the midst of the coded data means that something is missing."""
    data = bytearray(pictures.jpeg(pictures.scene(160, 120)))
    middle = len(data) // 2
    data[middle : middle + 2] = b"\xff\xd9"
    code, detail = refused(decoder, bytes(data))
    assert code == FrameErrorCode.UNDECODABLE
    assert detail.startswith("expected a whole JPEG file, got a damaged one: ")


def test_second_scan_of_a_whole_baseline_picture_is_refused(decoder: Decoder) -> None:
    """The header walk ends at a first scan that carries everything, because libjpeg decodes no further one."""
    data = pictures.jpeg(pictures.scene(64, 48))
    scan = data[data.index(b"\xff\xda") : -2]
    assert refused(decoder, data[:-2] + scan * 40 + data[-2:])[0] == FrameErrorCode.UNDECODABLE


def test_padding_of_coded_data_is_accepted(decoder: Decoder) -> None:
    """Cameras pad the coded data and send bytes behind the end: all pixels are there."""
    data = pictures.jpeg(pictures.scene(64, 48))
    expected = decode(decoder, data).pixels.copy()
    assert np.array_equal(decode(decoder, data + b"behind the end").pixels, expected)
    padded = data[:-2] + bytes(40) + data[-2:]
    with pytest.raises(ValueError, match="extraneous bytes"):
        simplejpeg.decode_jpeg(padded)
    decoder = Decoder()
    assert np.array_equal(decode(decoder, padded).pixels, expected)
    assert refused(decoder, data[:-2] + bytes(400) + data[-2:])[0] == FrameErrorCode.UNDECODABLE


def test_unusual_sampling_is_unsupported(decoder: Decoder) -> None:
    """Sampling factors that libjpeg-turbo does not name are refused as such, not as damage."""
    sof = pictures.frame_header(8, 8, sampling=0x31)
    data = (
        b"\xff\xd8" + pictures.segment(0xDB, b"\0" + b"\1" * 64) + sof + pictures.scan_header([1, 2, 3]) + b"\0\xff\xd9"
    )
    code, detail = refused(decoder, data)
    assert code == FrameErrorCode.UNSUPPORTED
    assert detail.endswith("got other sampling factors")


@pytest.mark.parametrize(
    ("source", "target", "decoded"),
    [
        ((1920, 1080), None, (1920, 1080)),
        ((1920, 1080), (640, 640), (960, 540)),  # 3/8 would do, but has no fast code
        ((1920, 1080), (384, 224), (480, 270)),
        ((1920, 1080), (240, 240), (240, 135)),
        ((1920, 1080), (1280, 736), (1920, 1080)),
        ((1280, 720), (640, 640), (640, 360)),
        ((1279, 719), (640, 640), (640, 360)),  # halves are rounded up
        ((320, 240), (640, 640), (320, 240)),
        ((1001, 9), (125, 125), (126, 2)),
    ],
)
def test_jpeg_decodes_at_a_fraction(
    decoder: Decoder, source: tuple[int, int], target: tuple[int, int] | None, decoded: tuple[int, int]
) -> None:
    """1/2, 1/4 or 1/8 is chosen where the picture stays as large as the letterboxed one; never a factor between."""
    picture = decode(decoder, pictures.jpeg(pictures.scene(*source)), target=target)
    assert picture.pixels.shape == (decoded[1], decoded[0], 3)
    assert (picture.source_width, picture.source_height) == source


def test_next_decode_reuses_the_memory(decoder: Decoder) -> None:
    """Pixels are valid until the next decode; pictures of one camera share one buffer."""
    first = decode(decoder, pictures.jpeg(pictures.scene(64, 48)))
    second = decode(decoder, pictures.jpeg(pictures.scene(32, 24)))
    assert np.shares_memory(first.pixels, second.pixels)


def test_payload_inside_a_message_is_decoded_in_place(decoder: Decoder) -> None:
    """A read-only slice of a larger message is enough."""
    data = pictures.jpeg(pictures.scene(20, 10))
    message = memoryview(b"head" + data + b"tail")[4 : 4 + len(data)]
    assert decoder.decode(message, encoding=Encoding.JPEG, width=0, height=0, target=None).pixels.shape == (10, 20, 3)


def test_encoding_and_size_may_change_with_every_picture(decoder: Decoder) -> None:
    """One camera, one decoder, every encoding in turn, each time of another size: nothing of the last one remains."""
    sizes = [(64, 48), (320, 200), (2, 2), (38, 122), (640, 6)]
    for turn in range(len(ENCODERS) * len(sizes)):
        encoding = list(ENCODERS)[turn % len(ENCODERS)]
        size = sizes[turn % len(sizes)]
        grey = np.full((size[1], size[0], 3), 20 + 5 * turn, np.uint8)
        picture = decode(decoder, ENCODERS[encoding](grey), encoding, size=size, target=(16, 16))
        assert (picture.source_width, picture.source_height) == size
        assert np.abs(picture.pixels.astype(int) - (20 + 5 * turn)).max() <= 1


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_grey_png_of_any_depth(decoder: Decoder, depth: int) -> None:
    """Samples of any depth spread over 0 to 255: 16 bits are divided by 257 and rounded."""
    top = (1 << depth) - 1
    values = np.linspace(0, top, 16).round().astype(np.uint16)
    bits = "".join(f"{value:0{depth}b}" for value in values)
    row = int(bits, 2).to_bytes(len(bits) // 8)
    idat = pictures.png_rows(np.frombuffer(row, np.uint8)[None])
    pixels = decode(decoder, pictures.png_file(16, 1, depth=depth, colour_type=0, idat=idat), Encoding.PNG).pixels
    expected = np.round(values / top * 255).astype(np.uint8)
    assert pixels[0].tolist() == [[value] * 3 for value in expected.tolist()]


def test_16_bit_colour_png_with_alpha(decoder: Decoder) -> None:
    """Colours are rounded to the nearest of 256 levels and stay as stored, however transparent."""
    samples = np.random.default_rng(5).integers(0, 65536, (9, 13, 4), dtype=np.uint16)
    data = pictures.png_file(13, 9, depth=16, colour_type=6, idat=pictures.png_rows(samples))
    pixels = decode(decoder, data, Encoding.PNG).pixels
    assert np.array_equal(pixels, np.round(samples[..., :3] / 257).astype(np.uint8))


@pytest.mark.parametrize(("colour_type", "channels"), [(4, 2), (6, 4)])
def test_alpha_is_dropped(decoder: Decoder, colour_type: int, channels: int) -> None:
    """A transparent pixel shows its stored colour; no background is mixed in."""
    samples = np.random.default_rng(6).integers(0, 256, (9, 13, channels), dtype=np.uint8)
    background = pictures.chunk(b"bKGD", bytes(2 if channels == 2 else 6))
    idat = pictures.png_rows(samples)
    data = pictures.png_file(13, 9, depth=8, colour_type=colour_type, idat=idat, before=background)
    colours = np.repeat(samples[..., :1], 3, axis=2) if channels == 2 else samples[..., :3]
    assert np.array_equal(decode(decoder, data, Encoding.PNG).pixels, colours)


def test_palette_png(decoder: Decoder) -> None:
    """Palette indices become their colours; transparency of the palette is dropped."""
    palette = np.random.default_rng(7).integers(0, 256, (200, 3), dtype=np.uint8)
    indices = np.random.default_rng(8).integers(0, 200, (9, 13), dtype=np.uint8)
    before = pictures.chunk(b"PLTE", palette.tobytes()) + pictures.chunk(b"tRNS", bytes(200))
    data = pictures.png_file(13, 9, depth=8, colour_type=3, idat=pictures.png_rows(indices), before=before)
    assert np.array_equal(decode(decoder, data, Encoding.PNG).pixels, palette[indices])


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (13, 9), (40, 24)])
def test_interlaced_png(decoder: Decoder, size: tuple[int, int]) -> None:
    """The seven passes are counted and put together."""
    rgb = pictures.scene(*size)
    data = pictures.png_file(*size, depth=8, colour_type=2, idat=pictures.interlaced_rows(rgb), interlace=1)
    assert np.array_equal(decode(decoder, data, Encoding.PNG).pixels, rgb)


@pytest.mark.parametrize("keep", [40, 0.5, -1, -12])
def test_truncated_png_is_refused(decoder: Decoder, keep: float) -> None:
    """Whatever is missing, if only the end chunk, the file is not whole."""
    data = pictures.png(pictures.scene(64, 48))
    cut = int(len(data) * keep) if isinstance(keep, float) else keep
    assert refused(decoder, data[:cut], Encoding.PNG) == (
        FrameErrorCode.UNDECODABLE,
        f"expected a whole PNG file, got {len(data[:cut]):,} bytes that end before its chunk IEND",
    )


def test_flipped_bit_of_a_png_is_found(decoder: Decoder) -> None:
    """Each chunk's checksum is verified."""
    data = bytearray(pictures.png(pictures.scene(64, 48)))
    data[len(data) // 2] ^= 1
    detail = "chunk IDAT at byte 33: its checksum does not match"
    assert refused(decoder, bytes(data), Encoding.PNG) == (FrameErrorCode.UNDECODABLE, detail)


def test_inflate_bomb_is_refused(decoder: Decoder) -> None:
    """Pixel data beyond the promised size are not inflated."""
    bomb = pictures.zeros_deflated(IDAT_ZLIB_BOMB_MIB)
    data = pictures.png_file(8, 8, depth=8, colour_type=2, idat=bomb)
    detail = "expected 200 bytes of inflated pixels, got more"
    assert refused(decoder, data, Encoding.PNG) == (FrameErrorCode.UNDECODABLE, detail)


def test_bombs_in_metadata_are_left_out(decoder: Decoder, capfd: pytest.CaptureFixture[str]) -> None:
    """Compressed text, profiles and animations never reach libpng, which would inflate and complain."""
    rgb = pictures.scene(8, 8)
    bomb = b"name\0\0" + pictures.zeros_deflated(IDAT_ZLIB_BOMB_MIB)
    before = pictures.chunk(b"zTXt", bomb) + pictures.chunk(b"iCCP", bomb) + pictures.chunk(b"acTL", bytes(8))
    data = pictures.png_file(8, 8, depth=8, colour_type=2, idat=pictures.png_rows(rgb), before=before)
    assert np.array_equal(decode(decoder, data, Encoding.PNG).pixels, rgb)
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("idat", "detail"),
    [
        (pictures.png_rows(np.zeros((7, 8, 3), np.uint8)), "expected 200 bytes of inflated pixels, got 175 and no end"),
        (
            pictures.png_rows(np.zeros((8, 8, 3), np.uint8))[:-4],
            "expected 200 bytes of inflated pixels, got 200 and no end",
        ),
        (b"no zlib stream", "the pixels do not inflate: Error -3 while decompressing data: incorrect header check"),
    ],
)
def test_png_pixels_that_do_not_add_up(decoder: Decoder, idat: bytes, detail: str) -> None:
    """Too few pixels, a stream without its end, no stream at all."""
    data = pictures.png_file(8, 8, depth=8, colour_type=2, idat=idat)
    assert refused(decoder, data, Encoding.PNG) == (FrameErrorCode.UNDECODABLE, detail)


def test_png_chunks_that_make_no_picture(decoder: Decoder) -> None:
    """A palette picture without a palette and a critical chunk of another standard are refused."""
    idat = pictures.png_rows(np.zeros((8, 8), np.uint8))
    data = pictures.png_file(8, 8, depth=8, colour_type=3, idat=idat)
    assert refused(decoder, data, Encoding.PNG)[0] == FrameErrorCode.UNDECODABLE
    data = pictures.png_file(8, 8, depth=8, colour_type=0, idat=idat, before=pictures.chunk(b"CgBI", bytes(4)))
    assert refused(decoder, data, Encoding.PNG)[0] == FrameErrorCode.UNSUPPORTED


def test_png_chunks_are_bounded(decoder: Decoder) -> None:
    """A file of empty chunks is not walked to its end."""
    idat = pictures.png_rows(np.zeros((8, 8), np.uint8))
    data = pictures.png_file(8, 8, depth=8, colour_type=0, idat=idat, before=pictures.chunk(b"tEXt", b"") * 16_384)
    detail = "expected at most 16,384 chunks, got more"
    assert refused(decoder, data, Encoding.PNG) == (FrameErrorCode.TOO_LARGE, detail)


def test_decoder_goes_on_after_a_refusal(decoder: Decoder) -> None:
    """A bad picture leaves nothing behind."""
    data = pictures.jpeg(pictures.scene(64, 48))
    expected = decode(decoder, data).pixels.copy()
    refused(decoder, data[:400])
    assert np.array_equal(decode(decoder, data).pixels, expected)


def test_opencv_runs_on_the_lanes_own_thread() -> None:
    """Lanes are threads already; OpenCV starts none of its own."""
    assert cv2.getNumThreads() == 1

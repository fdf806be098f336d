"""Raw pixels of every layout become RGB, or stay as they are."""

from __future__ import annotations

import numpy as np
import pytest

from headworks_server.media.decode import Decoder, Picture
from headworks_server.media.image import Encoding
from support import pictures

YUV = {Encoding.NV12: pictures.nv12, Encoding.I420: pictures.i420}


def decode(decoder: Decoder, data: bytes, encoding: Encoding, size: tuple[int, int]) -> Picture:
    return decoder.decode(
        memoryview(data), encoding=encoding, width=size[0], height=size[1], target=lambda *_: (32, 32)
    )


def plain_rgb(luma: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """BT.601 of limited range in float64, chroma repeated; luma below black counts as black."""
    y = 255 / 219 * (np.maximum(luma, 16).astype(np.float64) - 16)
    blue_difference, red_difference = (
        255 / 224 * (np.repeat(np.repeat(p, 2, 0), 2, 1).astype(np.float64) - 128) for p in (u, v)
    )
    red = y + 1.402 * red_difference
    green = y - (0.114 * 1.772 * blue_difference + 0.299 * 1.402 * red_difference) / 0.587
    blue = y + 1.772 * blue_difference
    return np.clip(np.stack([red, green, blue], axis=-1), 0, 255)


@pytest.mark.parametrize("encoding", [Encoding.BGR24, Encoding.RGB24])
def test_interleaved_pixels_are_a_view(encoding: Encoding) -> None:
    """BGR24 and RGB24 are neither copied nor turned; the picture says which they are."""
    raw = pictures.scene(31, 7)
    data = raw.tobytes()
    picture = decode(Decoder(), data, encoding, (31, 7))
    assert picture.is_bgr == (encoding is Encoding.BGR24)
    assert np.array_equal(picture.pixels, raw)
    assert np.shares_memory(picture.pixels, np.frombuffer(data, np.uint8))


def test_grey_pixels_have_three_equal_channels() -> None:
    """GRAY8 serves a colour model."""
    grey = pictures.scene(31, 7)[..., 0]
    picture = decode(Decoder(), grey.tobytes(), Encoding.GRAY8, (31, 7))
    assert not picture.is_bgr
    assert np.array_equal(picture.pixels, np.repeat(grey[..., None], 3, axis=2))


@pytest.mark.parametrize("encoding", YUV)
@pytest.mark.parametrize("size", [(2, 2), (2, 64), (64, 2), (38, 22), (642, 358)], ids=str)
def test_yuv_is_bt601_of_limited_range(encoding: Encoding, size: tuple[int, int]) -> None:
    """Every value of luma and chroma becomes RGB as the standard's formula says, within two levels."""
    width, height = size
    rng = np.random.default_rng(2)
    luma = rng.integers(0, 256, (height, width), dtype=np.uint8)
    u, v = rng.integers(0, 256, (2, height // 2, width // 2), dtype=np.uint8)
    chroma = np.stack([u, v], axis=-1).tobytes() if encoding is Encoding.NV12 else u.tobytes() + v.tobytes()
    pixels = decode(Decoder(), luma.tobytes() + chroma, encoding, size).pixels
    assert pixels.shape == (height, width, 3)
    assert np.abs(pixels - plain_rgb(luma, u, v)).max() <= 2


@pytest.mark.parametrize("encoding", YUV)
def test_black_and_white_of_limited_range(encoding: Encoding) -> None:
    """Luma 16 is black and 235 white; footroom and headroom are cut off."""
    for luma, level in ((16, 0), (235, 255), (0, 0), (255, 255), (126, 128)):
        data = bytes([luma]) * 16 + bytes([128]) * 8
        assert (decode(Decoder(), data, encoding, (4, 4)).pixels == level).all()


@pytest.mark.parametrize("encoding", YUV)
def test_picture_survives_the_way_through_yuv(encoding: Encoding) -> None:
    """What a camera turns into NV12 or I420 comes back with red as red and the left side at the left."""
    rgb = pictures.scene(160, 120)
    rgb[:, :80, 0] = 230
    pixels = decode(Decoder(), YUV[encoding](rgb), encoding, (160, 120)).pixels.astype(int)
    assert np.abs(pixels - rgb)[:, :78].mean() < 3
    assert np.abs(pixels - rgb)[:, 82:].mean() < 3


def test_converted_pictures_share_the_decoders_memory() -> None:
    """Turned pixels are valid until the next decode, as those of a JPEG are."""
    decoder = Decoder()
    first = decode(decoder, pictures.jpeg(pictures.scene(64, 48)), Encoding.JPEG, (0, 0)).pixels
    for encoding, make in YUV.items():
        assert np.shares_memory(decode(decoder, make(pictures.scene(32, 24)), encoding, (32, 24)).pixels, first)
    grey = decode(decoder, bytes(64), Encoding.GRAY8, (8, 8)).pixels
    assert np.shares_memory(grey, first)

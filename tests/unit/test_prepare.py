"""Frames are decoded and fitted for one model: at a fraction where that is enough, in the order of its channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headworks_server.engine.base import InputSpec, PreprocessSpec
from headworks_server.media.bounds import Encoding, PictureLimits
from headworks_server.media.fit import Pixels
from headworks_server.media.geometry import Geometry
from headworks_server.media.prepare import FittedPicture, Preparer
from support import pictures


def prepare(
    data: bytes, encoding: Encoding, size: tuple[int, int], *, color: str = "rgb", side: int = 64, **preprocess: Any
) -> FittedPicture:
    given = InputSpec(name="x", dtype="float32", layout="nchw", width=side, height=side, color=color)
    preparer = Preparer(given, PreprocessSpec(**preprocess), limits=PictureLimits())
    return preparer.prepare(memoryview(data), encoding=encoding, width=size[0], height=size[1])


@pytest.mark.parametrize(
    ("color", "encoding", "swap"),
    [
        ("rgb", Encoding.RGB24, False),
        ("rgb", Encoding.BGR24, True),
        ("bgr", Encoding.RGB24, True),
        ("bgr", Encoding.BGR24, False),
        ("gray", Encoding.RGB24, False),
        ("gray", Encoding.BGR24, True),
    ],
)
def test_channels_are_swapped_where_picture_and_model_differ(color: str, encoding: Encoding, swap: bool) -> None:
    """For a gray model it says at which end of the picture's pixels blue is."""
    assert prepare(bytes(12), encoding, (2, 2), color=color).swap is swap


@pytest.mark.parametrize("resize", ["letterbox", "stretch", "center_crop", "fit_shorter"])
@pytest.mark.parametrize("source", [(1280, 720), (720, 1280), (512, 520), (96, 1000)])
def test_decoding_at_a_fraction_shows_the_same_picture(resize: str, source: tuple[int, int]) -> None:
    """A JPEG decoded at 1/2, 1/4 or 1/8 fills the same interior with the same scene as one decoded whole."""
    data = pictures.jpeg(pictures.scene(*source), quality=95)
    full = prepare(data, Encoding.JPEG, (0, 0), resize=resize, decode_scale="1", antialias=True)
    scaled = prepare(data, Encoding.JPEG, (0, 0), resize=resize, antialias=True)
    assert full.geometry == scaled.geometry
    assert full.pixels.shape == scaled.pixels.shape
    assert np.abs(full.pixels.astype(int) - scaled.pixels).mean() < 3
    assert np.abs(full.pixels.astype(int) - scaled.pixels[:, ::-1]).mean() > 15


@pytest.mark.parametrize(
    ("resize", "decode_scale", "decoded"),
    [
        ("letterbox", "auto", (160, 90)),
        ("stretch", "auto", (160, 90)),
        ("fit_shorter", "auto", (160, 90)),
        ("center_crop", "auto", (320, 180)),  # the shorter side is fitted to 128, twice what is kept
        ("letterbox", "1", (1280, 720)),
    ],
)
def test_the_fraction_follows_the_way_of_resizing(
    resize: str, decode_scale: str, decoded: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Never smaller than what is fitted: decoding saves work, not detail."""
    shapes: list[tuple[int, ...]] = []
    given = InputSpec(name="x", dtype="float32", layout="nchw", width=64, height=64)
    preprocess = PreprocessSpec(resize=resize, decode_scale=decode_scale, crop_pct=0.5)
    preparer = Preparer(given, preprocess, limits=PictureLimits())
    fit = preparer._fitter.fit

    def recording_fit(pixels: Pixels, geometry: Geometry) -> Pixels:
        shapes.append(pixels.shape)
        return fit(pixels, geometry)

    monkeypatch.setattr(preparer._fitter, "fit", recording_fit)
    data = pictures.jpeg(pictures.scene(1280, 720))
    preparer.prepare(memoryview(data), encoding=Encoding.JPEG, width=0, height=0)
    assert shapes == [(decoded[1], decoded[0], 3)]

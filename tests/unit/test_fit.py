"""Pictures are scaled as the model's description says, and cut where they leave the input."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest

from headworks_server.core.outcomes import FrameErrorCode
from headworks_server.errors import FrameRejectedError
from headworks_server.media.fit import Fitter, Pixels
from headworks_server.media.geometry import Resize

MAX_PIXELS = 7680 * 4320


def noise(width: int, height: int) -> Pixels:
    return np.random.default_rng(3).integers(0, 256, (height, width, 3), dtype=np.uint8)


def fit(pixels: Pixels, target: tuple[int, int], *, fitter: Fitter | None = None, **resize: Any) -> Pixels:
    """Fit a picture at the source's own size."""
    geometry = Resize(width=target[0], height=target[1], **resize).place(pixels.shape[1], pixels.shape[0])
    return (fitter or Fitter(max_pixels=MAX_PIXELS)).fit(pixels, geometry)


def bilinear(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale by plain bilinear interpolation with half-pixel centres, in float64, edges repeated."""

    def axis(size: int, target: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        centre = np.clip((np.arange(target) + 0.5) * size / target - 0.5, 0, size - 1)
        low = np.floor(centre).astype(int)
        return low, np.minimum(low + 1, size - 1), centre - low

    top, bottom, down = axis(pixels.shape[0], height)
    left, right, across = axis(pixels.shape[1], width)
    down, across = down[:, None, None], across[None, :, None]
    rows = pixels[top] * (1 - down) + pixels[bottom] * down
    return rows[:, left] * (1 - across) + rows[:, right] * across


def area(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    """Scale by the mean of the source area under each pixel, in float64."""

    def weights(size: int, target: int) -> np.ndarray:
        edges = np.arange(target + 1) * size / target
        low, high = np.maximum(edges[:-1, None], np.arange(size)), np.minimum(edges[1:, None], np.arange(size) + 1)
        return np.maximum(high - low, 0) * target / size

    rows = np.einsum("yh,hwc->ywc", weights(pixels.shape[0], height), pixels)
    return np.einsum("xw,ywc->yxc", weights(pixels.shape[1], width), rows)


@pytest.mark.parametrize("mode", ["letterbox", "stretch"])
@pytest.mark.parametrize(
    ("source", "target"),
    [
        ((1920, 1080), (640, 640)),
        ((960, 540), (384, 224)),
        ((101, 57), (640, 640)),
        ((640, 640), (320, 320)),
        ((7, 300), (64, 64)),
        ((1, 1), (32, 32)),
    ],
)
def test_fit_equals_plain_bilinear(source: tuple[int, int], target: tuple[int, int], mode: str) -> None:
    """Scaled pixels differ by at most one level from plain NumPy: OpenCV's weights have 11 bits and it rounds twice."""
    pixels = noise(*source)
    geometry = Resize(width=target[0], height=target[1], mode=mode).place(*source)
    fitted = fit(pixels, target, mode=mode)
    assert fitted.shape == (geometry.interior_height, geometry.interior_width, 3)
    reference = bilinear(pixels.astype(np.float64), *geometry.fitted)
    assert np.abs(fitted - reference).max() <= 1


@pytest.mark.parametrize("options", [{"antialias": True}, {"interpolation": "area"}])
@pytest.mark.parametrize(
    ("source", "target"), [((640, 480), (64, 48)), ((101, 57), (64, 31)), ((300, 300), (200, 299))]
)
def test_antialias_and_area_are_the_mean_of_the_area(
    source: tuple[int, int], target: tuple[int, int], options: dict[str, Any]
) -> None:
    """A picture that shrinks gives each pixel the mean of what lies under it, parts of source pixels included."""
    pixels = noise(*source)
    fitted = fit(pixels, target, fitter=Fitter(max_pixels=MAX_PIXELS, **options), mode="stretch")
    assert np.abs(fitted - area(pixels.astype(np.float64), *target)).max() <= 1


def test_antialias_leaves_a_growing_picture_to_its_interpolation() -> None:
    """There is nothing to filter; a picture that grows in one direction and shrinks in the other is not filtered."""
    for target in ((64, 64), (64, 16)):
        filtered = fit(noise(32, 32), target, fitter=Fitter(max_pixels=MAX_PIXELS, antialias=True), mode="stretch")
        assert np.array_equal(filtered, fit(noise(32, 32), target, mode="stretch"))


@pytest.mark.parametrize(
    ("interpolation", "flag"), [("bicubic", cv2.INTER_CUBIC), ("nearest", cv2.INTER_NEAREST_EXACT)]
)
def test_other_interpolations_are_those_of_opencv(interpolation: str, flag: int) -> None:
    """Named as OpenCV names them."""
    pixels = noise(40, 30)
    fitted = fit(pixels, (100, 70), fitter=Fitter(interpolation=interpolation, max_pixels=MAX_PIXELS), mode="stretch")
    assert np.array_equal(fitted, cv2.resize(pixels, (100, 70), interpolation=flag))


def test_nearest_takes_the_pixel_under_the_centre() -> None:
    """Three pixels to one: the middle one."""
    pixels = np.arange(9, dtype=np.uint8).repeat(3).reshape(1, 9, 3)
    fitted = fit(pixels, (3, 1), fitter=Fitter(interpolation="nearest", max_pixels=MAX_PIXELS), mode="stretch")
    assert fitted[0, :, 0].tolist() == [1, 4, 7]


@pytest.mark.parametrize(("source", "corner"), [((448, 224), (112, 0)), ((224, 448), (0, 112))])
def test_crop_keeps_the_centre_and_copies_nothing(source: tuple[int, int], corner: tuple[int, int]) -> None:
    """A picture of the fitted size is cut, not scaled: the pixels are the source's own."""
    pixels = noise(*source)
    fitted = fit(pixels, (224, 224), mode="fit_shorter")
    left, top = corner
    assert np.array_equal(fitted, pixels[top : top + 224, left : left + 224])
    assert np.shares_memory(fitted, pixels)


def test_crop_is_scaled_whole_then_cut() -> None:
    """As torchvision does it: Resize, then CenterCrop."""
    pixels = noise(640, 360)
    fitted = fit(pixels, (224, 224), mode="center_crop", crop_pct=0.875)
    whole = cv2.resize(pixels, (455, 256), interpolation=cv2.INTER_LINEAR)
    assert np.array_equal(fitted, whole[16:240, 116:340])


def test_fit_of_the_right_size_copies_nothing() -> None:
    """A picture that already has the interior's size is handed on."""
    pixels = noise(64, 48)
    assert fit(pixels, (64, 64)) is pixels


def test_a_picture_too_thin_to_crop_is_refused() -> None:
    """Its shorter side cannot fill the input without the longer one growing beyond every bound."""
    with pytest.raises(FrameRejectedError) as caught:
        fit(np.zeros((1, 4000, 3), np.uint8), (224, 224), mode="center_crop")
    assert caught.value.code == FrameErrorCode.TOO_LARGE
    assert caught.value.detail == (
        "expected a picture of at most 33,177,600 pixels when its shorter side fits the model's 224x224, "
        "got 4000x1, which is 896000x224 then"
    )


def test_next_fit_reuses_the_memory() -> None:
    """Pixels are valid until the next fit."""
    fitter = Fitter(max_pixels=MAX_PIXELS)
    assert np.shares_memory(fit(noise(64, 48), (32, 32), fitter=fitter), fit(noise(64, 48), (32, 32), fitter=fitter))

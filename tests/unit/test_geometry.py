"""Where a picture lies in a network's input equals the origin of each way of resizing, and leads back to the source."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headworks_server.engine.base import InputSpec, PreprocessSpec
from headworks_server.media.geometry import Geometry, Resize

SIDES = st.integers(1, 8000)
INPUTS = st.sampled_from([(640, 640), (384, 224), (1280, 736), (33, 97)])
MODES = st.sampled_from(["letterbox", "stretch", "center_crop", "fit_shorter"])


def place(source: tuple[int, int], target: tuple[int, int], **options: Any) -> Geometry:
    return Resize(width=target[0], height=target[1], **options).place(*source)


@pytest.mark.parametrize(
    ("source", "target", "interior", "pads"),
    [
        ((1920, 1080), (640, 640), (640, 360), (0, 140)),
        ((1080, 1920), (640, 640), (360, 640), (140, 0)),
        ((1920, 1080), (384, 224), (384, 216), (0, 4)),
        ((640, 640), (640, 640), (640, 640), (0, 0)),
        ((320, 180), (640, 640), (640, 360), (0, 140)),  # small pictures are scaled up
        ((1000, 333), (640, 640), (640, 213), (0, 213)),  # 427 rows of padding: the odd one below
        ((1, 1), (640, 640), (640, 640), (0, 0)),
    ],
)
def test_interior_and_pads_of_known_sizes(
    source: tuple[int, int], target: tuple[int, int], interior: tuple[int, int], pads: tuple[int, int]
) -> None:
    """A picture is scaled to touch the nearer side of the input and centred, the odd row of padding below it."""
    geometry = place(source, target)
    assert (geometry.interior_width, geometry.interior_height) == interior
    assert (geometry.left, geometry.top) == pads


@given(SIDES, SIDES, INPUTS)
def test_letterbox_equals_the_reference_formula(width: int, height: int, target: tuple[int, int]) -> None:
    """r = min(H/h, W/w); size = round(w r), round(h r); pads halved, less 0.1, rounded."""
    geometry = place((width, height), target)
    ratio = min(target[1] / height, target[0] / width)
    assert (geometry.scale_x, geometry.scale_y) == (ratio, ratio)
    inner = (round(width * ratio), round(height * ratio))
    assert geometry.fitted == (max(1, inner[0]), max(1, inner[1]))
    if min(inner) > 0:
        pad = ((target[0] - inner[0]) / 2, (target[1] - inner[1]) / 2)
        assert (geometry.left, geometry.top) == (round(pad[0] - 0.1), round(pad[1] - 0.1))


@given(SIDES, SIDES, INPUTS)
def test_top_left_and_floor_are_the_letterbox_of_yolox(width: int, height: int, target: tuple[int, int]) -> None:
    """YOLOX: the picture begins in the corner, sides int(w r), int(h r)."""
    geometry = place((width, height), target, anchor="top_left", rounding="floor")
    ratio = min(target[1] / height, target[0] / width)
    assert geometry.fitted == (max(1, int(width * ratio)), max(1, int(height * ratio)))
    assert (geometry.left, geometry.top) == (0, 0)


def test_a_small_picture_stays_as_it_is_without_scale_up() -> None:
    """Only pad is added; a larger picture shrinks as ever."""
    small = place((320, 180), (640, 640), scale_up=False)
    assert (small.scale_x, small.fitted, small.left, small.top) == (1.0, (320, 180), 160, 230)
    assert place((1920, 1080), (640, 640), scale_up=False) == place((1920, 1080), (640, 640))


@given(SIDES, SIDES, INPUTS)
def test_stretch_fills_the_input(width: int, height: int, target: tuple[int, int]) -> None:
    """Each axis has its own scale, and nothing is padded or cut."""
    geometry = place((width, height), target, mode="stretch")
    assert (geometry.fitted, geometry.left, geometry.top) == (target, 0, 0)
    assert geometry.to_source(*target) == pytest.approx((width, height))


@pytest.mark.parametrize(
    ("source", "crop_pct", "fitted", "corner"),
    [
        ((1920, 1080), 0.875, (455, 256), (-116, -16)),  # torchvision: shorter side 256, int(256 * 1920 / 1080)
        ((1080, 1920), 0.875, (256, 455), (-16, -116)),
        ((500, 375), 224 / 232, (309, 232), (-42, -4)),  # round(42.5) is 42, to even
        ((640, 480), 1.0, (298, 224), (-37, 0)),
        ((100, 50), 1.0, (448, 224), (-112, 0)),  # small pictures are scaled up
    ],
)
def test_center_crop_of_known_sizes(
    source: tuple[int, int], crop_pct: float, fitted: tuple[int, int], corner: tuple[int, int]
) -> None:
    """The shorter side becomes round(224 / crop_pct), the other is cut to whole pixels, the centre is kept."""
    geometry = place(source, (224, 224), mode="center_crop", crop_pct=crop_pct)
    assert (geometry.fitted, (geometry.left, geometry.top)) == (fitted, corner)


@given(SIDES, SIDES, st.integers(1, 600), st.sampled_from([1.0, 0.95, 0.875, 0.5]))
def test_center_crop_equals_torchvision(width: int, height: int, side: int, crop_pct: float) -> None:
    """Resize(size) then CenterCrop(side), as torchvision computes sizes and corners."""
    geometry = place((width, height), (side, side), mode="center_crop", crop_pct=crop_pct)
    size = round(side / crop_pct)
    short, long = min(width, height), max(width, height)
    scaled = (size, int(size * long / short))
    assert geometry.fitted == (scaled if width <= height else scaled[::-1])
    corner = [-round((axis - side) / 2.0) for axis in geometry.fitted]
    assert [geometry.left, geometry.top] == corner


def test_fit_shorter_cuts_the_longer_side_only() -> None:
    """As a centre crop that keeps all of the shorter side; crop_pct is not looked at."""
    given_ = InputSpec(name="x", dtype="float32", layout="nchw", width=224, height=224)
    resize = Resize.of(given_, PreprocessSpec(resize="fit_shorter", crop_pct=0.5))
    geometry = resize.place(448, 224)
    assert (geometry.fitted, geometry.left, geometry.top) == ((448, 224), -112, 0)
    assert geometry == Resize.of(given_, PreprocessSpec(resize="center_crop")).place(448, 224)


@given(SIDES, SIDES, INPUTS, MODES, st.booleans(), st.sampled_from([1.0, 0.875]))
def test_interior_lies_within_the_input(
    width: int, height: int, target: tuple[int, int], mode: str, scale_up: bool, crop_pct: float
) -> None:
    """The painted interior never leaves the input and is never empty, however thin the picture."""
    geometry = place((width, height), target, mode=mode, scale_up=scale_up, crop_pct=crop_pct)
    left, top = geometry.interior_left, geometry.interior_top
    assert 0 <= left < left + geometry.interior_width <= target[0]
    assert 0 <= top < top + geometry.interior_height <= target[1]
    if mode in ("center_crop", "fit_shorter", "stretch"):
        assert (geometry.interior_width, geometry.interior_height) == target


@given(SIDES, SIDES, INPUTS, MODES, st.floats(0, 1), st.floats(0, 1))
def test_network_point_leads_back_to_source(
    width: int, height: int, target: tuple[int, int], mode: str, across: float, down: float
) -> None:
    """Where a point of the source lies in the network, and back, is the same point, cut or padded."""
    geometry = place((width, height), target, mode=mode)
    x, y = across * width, down * height
    network = (x * geometry.scale_x + geometry.left, y * geometry.scale_y + geometry.top)
    assert geometry.to_source(*network) == pytest.approx((x, y), rel=1e-6, abs=1e-6 * max(width, height))


def test_corners_of_known_pictures_lead_back() -> None:
    """The corner of the interior is the corner of the source, and its centre the centre."""
    letterbox = place((1920, 1080), (640, 640))
    assert letterbox.to_source(0, 140) == (0, 0)
    assert letterbox.to_source(320, 320) == pytest.approx((960, 540))
    crop = place((448, 224), (224, 224), mode="fit_shorter")
    assert crop.to_source(0, 0) == (112, 0)
    assert crop.to_source(224, 224) == (336, 224)

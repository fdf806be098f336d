"""Letterbox geometry equals that of the Ultralytics family, and leads back to source pixels."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headworks_server.media.letterbox import Letterbox

SIDES = st.integers(1, 8000)
INPUTS = st.sampled_from([(640, 640), (384, 224), (1280, 736), (33, 97)])


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
    letterbox = Letterbox.of(*source, width=target[0], height=target[1])
    assert (letterbox.interior_width, letterbox.interior_height) == interior
    assert (letterbox.left, letterbox.top) == pads


@given(SIDES, SIDES, INPUTS)
def test_geometry_equals_the_reference_formula(width: int, height: int, target: tuple[int, int]) -> None:
    """r = min(H/h, W/w); size = round(w r), round(h r); pads halved, less 0.1, rounded."""
    letterbox = Letterbox.of(width, height, width=target[0], height=target[1])
    ratio = min(target[1] / height, target[0] / width)
    assert letterbox.scale == ratio
    inner = (round(width * ratio), round(height * ratio))
    assert (letterbox.interior_width, letterbox.interior_height) == (max(1, inner[0]), max(1, inner[1]))
    if min(inner) > 0:
        pad = ((target[0] - inner[0]) / 2, (target[1] - inner[1]) / 2)
        assert (letterbox.left, letterbox.top) == (round(pad[0] - 0.1), round(pad[1] - 0.1))


@given(SIDES, SIDES, INPUTS)
def test_interior_lies_within_the_input(width: int, height: int, target: tuple[int, int]) -> None:
    """The painted interior never leaves the input and is never empty, however thin the picture."""
    letterbox = Letterbox.of(width, height, width=target[0], height=target[1])
    assert letterbox.left >= 0
    assert letterbox.top >= 0
    assert letterbox.interior_width >= 1
    assert letterbox.interior_height >= 1
    assert letterbox.left + letterbox.interior_width <= target[0]
    assert letterbox.top + letterbox.interior_height <= target[1]


def test_network_point_leads_back_to_source() -> None:
    """The corner of the interior is the corner of the source, and its centre the centre."""
    letterbox = Letterbox.of(1920, 1080, width=640, height=640)
    assert letterbox.to_source(0, 140) == (0, 0)
    assert letterbox.to_source(320, 320) == pytest.approx((960, 540))

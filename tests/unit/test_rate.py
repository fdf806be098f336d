"""A stream's maximum rate: how many frames pass over any stretch of time, and when the next one may."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headworks_server.core.limits import NS_PER_S
from headworks_server.core.rate import JITTER_NS, Rate
from support.streams import MS


def passed(rate: Rate, times_ns: list[int]) -> list[int]:
    return [now_ns for now_ns in times_ns if rate.take(now_ns)]


@pytest.mark.parametrize(("max_fps", "expected"), [(0.5, 5), (1.0, 10), (7.5, 75), (30.0, 300), (1000.0, 1000)])
def test_a_camera_that_is_too_fast_comes_down_to_the_rate(max_fps: float, expected: int) -> None:
    """Ten seconds of 100 frames each: as many pass as the rate allows, and those of the first 100 ms ahead of it."""
    times = [NS_PER_S + turn * 10 * MS for turn in range(1000)]
    count = len(passed(Rate(max_fps), times))
    assert expected <= count <= expected + 1 + 0.1 * max_fps


@pytest.mark.parametrize("max_fps", [0.5, 5.0, 29.97, 30.0])
@given(delays=st.lists(st.integers(0, JITTER_NS - 1), min_size=40, max_size=60))
def test_a_camera_at_its_maximum_loses_nothing_to_jitter(max_fps: float, delays: list[int]) -> None:
    """Frames made evenly and delayed on the way by less than 100 ms, so that some come in bunches."""
    made = [NS_PER_S + round(number * NS_PER_S / max_fps) for number in range(len(delays))]
    # Frames of a stream do not overtake each other; what is made at 30.00001 fps is no news either.
    arrived = [max(a + b for a, b in zip(made[: end + 1], delays, strict=False)) for end in range(len(made))]
    assert passed(Rate(max_fps * 1.000_001), arrived) == arrived


@given(
    max_fps=st.floats(0.1, 500),
    steps=st.lists(st.integers(0, 300 * MS), min_size=1, max_size=100),
)
def test_no_stretch_of_time_holds_more_than_the_rate(max_fps: float, steps: list[int]) -> None:
    """At most 1 + (t + 0.1) * max_fps frames pass in t seconds, wherever they begin."""
    now_ns, times = NS_PER_S, []
    for step in steps:
        now_ns += step
        times.append(now_ns)
    through = passed(Rate(max_fps), times)
    for first in range(len(through)):
        for last in range(first, len(through)):
            seconds = (through[last] - through[first]) / NS_PER_S
            assert last - first + 1 <= 1 + (seconds + 0.1) * max_fps + 1e-3


def test_the_time_of_the_next_frame_is_told() -> None:
    """Before it nothing passes, at it one does: whoever waits for it is woken once."""
    rate = Rate(0.5)
    assert rate.take(5 * NS_PER_S)
    ready_ns = rate.ready_ns
    assert ready_ns == 7 * NS_PER_S - JITTER_NS
    assert not rate.take(ready_ns - 1)
    assert rate.take(ready_ns)
    assert rate.ready_ns == 9 * NS_PER_S - JITTER_NS, "early frames do not move the beat"


def test_silence_saves_nothing_up() -> None:
    """After an hour without a frame, as many pass at once as at the start."""
    rate = Rate(30.0)
    burst = len(passed(rate, [NS_PER_S] * 100))
    assert burst == 4
    assert len(passed(rate, [3600 * NS_PER_S] * 100)) == burst

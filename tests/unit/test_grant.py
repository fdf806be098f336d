"""What a stream is granted for what its Open asks: numbers are clamped, what makes no sense is refused by name."""

from __future__ import annotations

import math

import pytest

from headworks_server.core.grant import (
    MAX_DEPTH,
    MAX_EVERY_FRAME_WINDOW,
    MAX_IN_FLIGHT,
    MIN_FPS,
    Grant,
    Policy,
    Refusal,
    grant,
)
from headworks_server.core.limits import SessionLimits
from support.streams import MS


def test_an_open_that_asks_for_nothing_gets_the_defaults() -> None:
    """Rules 4 and 6: LATEST, two in flight so that decoding and inference overlap, a window of 4, no deadline."""
    assert grant() == Grant(policy=Policy.LATEST, max_in_flight=2, window=4, deadline_ns=0, weight=1)
    assert grant() == Grant()


@pytest.mark.parametrize(("asked", "granted"), [(-1, 1), (1, 1), (8, 8), (9, 8), (2**32 - 1, 8)])
def test_frames_in_flight_are_clamped_and_the_window_follows(asked: int, granted: int) -> None:
    """Rule 6: window = in flight + waiting + on the way."""
    given = grant(max_in_flight=asked)
    assert isinstance(given, Grant)
    assert (given.max_in_flight, given.window) == (granted, granted + 2)


@pytest.mark.parametrize(("asked", "granted"), [(0, 1), (1, 1), (16, 16), (17, 16)])
def test_weights_are_clamped(asked: int, granted: int) -> None:
    """Rule 12: integer weights of 1 to 16."""
    given = grant(weight=asked)
    assert isinstance(given, Grant)
    assert given.weight == granted


@pytest.mark.parametrize(("asked_ms", "granted_ms"), [(0, 0), (1, 1), (60_000, 60_000), (2**32 - 1, 60_000)])
def test_deadlines_are_clamped(asked_ms: int, granted_ms: int) -> None:
    """Rule 9: a budget in milliseconds, at most a minute; 0 is none."""
    given = grant(deadline_ms=asked_ms)
    assert isinstance(given, Grant)
    assert (given.deadline_ns, given.deadline_ms) == (granted_ms * MS, granted_ms)


# BOUNDED.


@pytest.mark.parametrize(("asked", "granted"), [(1, 1), (5, 5), (MAX_DEPTH, MAX_DEPTH), (2**32 - 1, MAX_DEPTH)])
def test_depths_are_clamped_and_the_window_follows(asked: int, granted: int) -> None:
    """Rule 6: of BOUNDED, `depth` frames wait."""
    given = grant(policy=Policy.BOUNDED, depth=asked, drop_newest=True)
    assert given == Grant(policy=Policy.BOUNDED, depth=granted, window=2 + granted + 1, drop_newest=True)


def test_a_depth_of_none_is_refused() -> None:
    """Nothing could ever wait, and clamping it would make another policy of it."""
    assert grant(policy=Policy.BOUNDED, depth=0) == Refusal("BOUNDED: expected a depth of at least 1, got 0")


@pytest.mark.parametrize("policy", [Policy.LATEST, Policy.EVERY_FRAME])
def test_a_depth_means_nothing_to_the_other_policies(policy: Policy) -> None:
    """An Open that sets no BOUNDED has a depth of 0 in it."""
    assert grant(policy=policy, depth=0) == grant(policy=policy)


def test_an_outbox_has_room_for_every_frame_of_the_largest_grant() -> None:
    """The bound that SessionLimits states: more entries than segments, so that two neighbours can always merge."""
    assert SessionLimits().outbox_entries > MAX_IN_FLIGHT + MAX_DEPTH + 1


# EVERY_FRAME.


def test_every_frame_has_eight_in_flight_and_as_many_waiting() -> None:
    """Rule 4: EVERY_FRAME 8; the window covers them and the one on the way."""
    assert grant(policy=Policy.EVERY_FRAME) == Grant(policy=Policy.EVERY_FRAME, max_in_flight=8, window=8 + 8 + 1)


@pytest.mark.parametrize("asked", [1, 3, 8, 2**32 - 1])
def test_the_window_of_every_frame_is_bounded(asked: int) -> None:
    """Rule 4: at most 64, whatever is asked."""
    given = grant(policy=Policy.EVERY_FRAME, max_in_flight=asked)
    assert isinstance(given, Grant)
    assert given.max_in_flight + 2 <= given.window <= MAX_EVERY_FRAME_WINDOW


def test_a_deadline_under_every_frame_is_refused() -> None:
    """Rule 4: nothing is dropped there, so nothing can be late."""
    assert grant(policy=Policy.EVERY_FRAME, deadline_ms=40) == Refusal(
        "EVERY_FRAME drops no frame for being late: expected no deadline, got 40 ms"
    )


# The maximum rate.


@pytest.mark.parametrize(("asked", "granted"), [(0.0, 0.0), (0.5, 0.5), (29.97, 29.97), (1e-30, MIN_FPS), (1e30, 1e30)])
def test_a_maximum_rate_is_granted(asked: float, granted: float) -> None:
    """0 is no limit; a rate of less than one frame an hour is one an hour."""
    given = grant(max_fps=asked)
    assert isinstance(given, Grant)
    assert given.max_fps == granted


@pytest.mark.parametrize(("rate", "told"), [(-1.0, "-1"), (math.nan, "nan"), (math.inf, "inf"), (-math.inf, "-inf")])
def test_a_maximum_rate_that_is_none_is_refused(rate: float, told: str) -> None:
    """It must not pass for no limit."""
    assert grant(max_fps=rate) == Refusal(f"max_fps: expected frames a second, or 0 for no limit, got {told}")

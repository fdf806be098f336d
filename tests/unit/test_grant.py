"""What a stream is granted for what its Open asks: numbers are clamped, features that are not there refused by name."""

from __future__ import annotations

import math

import pytest

from headworks_server.core.grant import Grant, Policy, Refusal, grant
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


@pytest.mark.parametrize("policy", [Policy.BOUNDED, Policy.EVERY_FRAME])
def test_a_policy_that_is_not_served_is_refused_by_name(policy: Policy) -> None:
    """A stream must never run under another policy than it asked for."""
    assert grant(policy=policy) == Refusal(f"drop policy {policy.name} is not served by this release; LATEST is")


@pytest.mark.parametrize(("rate", "told"), [(25.0, "25"), (-1.0, "-1"), (math.nan, "nan"), (math.inf, "inf")])
def test_a_maximum_rate_is_refused(rate: float, told: str) -> None:
    """Also one that is no number: it must not pass for none."""
    assert grant(max_fps=rate) == Refusal(f"max_fps is not served by this release: expected 0, got {told}")

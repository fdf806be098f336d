"""A short form of `make soak`: a few tides of it, with the same laws, and bounds that let one tide waver."""

from __future__ import annotations

import logging
from collections import Counter

import pytest

from soak.soak import BOUNDS, WARM_UP, Soak


def test_nothing_is_left_of_cameras_that_come_and_go(caplog: pytest.LogCaptureFixture) -> None:
    """Hundreds of streams that end in every way: no law is broken, every ledger is exact, nothing grows."""
    caplog.set_level(logging.ERROR, logger="headworks")
    progress: list[str] = []
    soak = Soak(cameras=60, flood_s=1.5, seed=4, say=progress.append)
    wrong = soak.run(20)
    assert wrong == [], [*wrong, *progress]
    assert soak.books.streams > 300
    assert {"END", "CANCELLED", "IDLE_TIMEOUT", "PROTOCOL_ERROR"} <= set(soak.books.reasons)


@pytest.mark.parametrize("what", BOUNDS)
def test_what_grows_with_the_streams_is_found(what: str) -> None:
    """A leak is told of by name, one ebb that wavers is not, and neither is growth before everything was warm."""
    soak = Soak(cameras=0, flood_s=0, seed=0, say=print)
    a_stream, at_most = BOUNDS[what]
    leak = 2 * a_stream + 2 * at_most / 10_000

    def held(streams: int, *, leaking: bool) -> Counter[str]:
        warming = -100 * at_most if streams < WARM_UP * 1_000 else 0
        return Counter({"streams": streams, what: int(10 * at_most + warming + leaking * leak * streams)})

    soak.held = [held(number * 1_000, leaking=False) for number in range(WARM_UP + 10)]
    soak.held[-3][what] += int(3 * at_most)
    assert list(soak.leaks()) == []
    soak.held = [held(number * 1_000, leaking=True) for number in range(WARM_UP + 12)]
    (sentence,) = soak.leaks()
    assert sentence.startswith(what)

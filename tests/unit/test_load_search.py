"""The search for how many cameras hold, against a server that is a number."""

from __future__ import annotations

from typing import Any

import pytest

from headworks.load.search import Goal, Step, find_max

GOAL = Goal(p99_ms=100, answered_share=0.99)


def summary(*, p99: float | None = 20.0, share: float = 1.0, late: float | None = 0.5, failures: int = 0) -> Any:
    return {
        "failures": [f"load {number}: UNAVAILABLE" for number in range(failures)],
        "answered_share": share,
        "total": {"age_ms": {"p50": p99, "p99": p99}},
        "generator": {"late_ms": {"p99": late}},
    }


class Server:
    """Holds so many cameras; beyond that, ages grow."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.runs: list[int] = []

    def run(self, cameras: int) -> Any:
        self.runs.append(cameras)
        return summary(p99=20.0 if cameras <= self.most else 400.0)


@pytest.mark.parametrize("most", [1, 2, 3, 7, 10, 33, 64, 100, 517, 1024])
def test_the_answer_is_within_a_camera_or_five_percent(most: int) -> None:
    """Never more than what held, and no run twice."""
    server = Server(most)
    search = find_max(server.run, GOAL)
    assert search.most <= most
    assert most - search.most <= max(1, most // 20)
    assert len(server.runs) == len(set(server.runs)) <= 18
    assert {step.cameras: step.holds for step in search.steps} == {n: n <= most for n in server.runs}


@pytest.mark.parametrize(("start", "limit"), [(1, 16), (10, 10), (300, 40)])
def test_the_search_stays_within_its_limit(start: int, limit: int) -> None:
    """A server that holds more than is tried is told so."""
    server = Server(5000)
    search = find_max(server.run, GOAL, start=start, limit=limit)
    assert search.most == limit
    assert max(server.runs) == limit
    assert search.doubt == "no larger number was tried"


def test_a_start_that_does_not_hold_is_halved() -> None:
    """So that the first guess may be anything."""
    server = Server(3)
    assert find_max(server.run, GOAL, start=50).most == 3


def test_nothing_holds() -> None:
    """Then there is nothing to say but zero."""
    search = find_max(Server(0).run, GOAL, start=4)
    assert (search.most, search.doubt) == (0, "")


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (summary(), []),
        (summary(p99=101.0), ["p99 101 ms, above 100 ms"]),
        (summary(share=0.98), ["98.0% of frames answered, below 99.0%"]),
        (summary(p99=None, share=0.0), ["0.0% of frames answered, below 99.0%", "no result"]),
        (summary(failures=3), ["load 0: UNAVAILABLE"]),
    ],
)
def test_a_miss_is_told_in_words(found: Any, expected: list[str]) -> None:
    """What the goal was and what came instead; of many failures the first."""
    assert GOAL.misses(found) == expected


def test_a_late_generator_puts_the_answer_in_doubt() -> None:
    """The server alone may hold more than a generator that cannot keep its clock."""

    def run(cameras: int) -> Any:
        return summary() if cameras <= 4 else summary(p99=300.0, late=80.0)

    steps: list[Step] = []
    search = find_max(run, GOAL, told=steps.append)
    assert search.most == 4
    assert search.doubt == "with 5 cameras the generator itself was 80 ms late"
    assert steps == search.steps

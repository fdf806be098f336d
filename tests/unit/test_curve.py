"""What a measured curve says: which batch to aim for, what a batch costs, how to run a number of frames."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headworks_server.engine.curve import Curve, measure_curve

GPU = Curve(((1, 0.0024), (2, 0.0028), (4, 0.0036), (8, 0.0052), (16, 0.0084), (32, 0.0148)))
CPU = Curve(((1, 0.0067), (2, 0.0154), (4, 0.0348), (8, 0.0672)))

curves = st.lists(st.floats(1e-5, 1.0), min_size=1, max_size=7).map(
    lambda costs: Curve(tuple((1 << index, cost) for index, cost in enumerate(costs)))
)


def test_target_is_one_where_batches_do_not_pay() -> None:
    """On a CPU a batch often costs more than its frames."""
    assert CPU.target() == 1


def test_target_is_the_smallest_batch_within_five_percent() -> None:
    """Beyond it a frame waits longer for next to nothing."""
    assert Curve(((1, 0.010), (2, 0.012), (4, 0.0208), (8, 0.040))).target() == 4
    assert GPU.target() == 32


def test_seconds_lie_between_measured_neighbours() -> None:
    """Admission asks for sizes that were not measured."""
    assert GPU.seconds(4) == 0.0036
    assert GPU.seconds(6) == pytest.approx(0.0044)
    assert GPU.seconds(64) == pytest.approx(0.0296)
    assert Curve(((4, 0.02),)).seconds(1) == 0.02


def test_plan_runs_few_frames_one_by_one_and_many_padded() -> None:
    """The cheaper of the two: with a 2.4 ms frame and a 14.8 ms batch the border lies between 6 and 7."""
    assert GPU.plan(6) == (1,) * 6
    assert GPU.plan(7) == (32,)
    assert GPU.plan(70) == (32, 32, 1, 1, 1, 1, 1, 1)


def test_plan_of_a_fixed_batch_is_always_that_batch() -> None:
    """There is no single to fall back to."""
    assert Curve(((4, 0.02),)).plan(1) == (4,)
    assert Curve(((4, 0.02),)).plan(9) == (4, 4, 4)


@given(curves, st.integers(0, 200))
def test_plan_covers_the_frames_with_one_and_target_only(curve: Curve, frames: int) -> None:
    """Only bound sizes occur, nothing is left over, and only the last run may be padded."""
    plan = curve.plan(frames)
    assert set(plan) <= {1, curve.target()}
    assert sum(plan[:-1]) < max(frames, 1) <= max(sum(plan), 1)
    assert (sum(plan) == 0) == (frames == 0)


@given(curves, st.integers(1, 64))
def test_plan_costs_no_more_than_either_plain_way(curve: Curve, frames: int) -> None:
    """Not more than all singles, nor than all padded batches, as long as the frames fit in one batch."""
    target = curve.target()
    frames = min(frames, target)
    cost = sum(curve.seconds(size) for size in curve.plan(frames))
    assert cost <= min(frames * curve.seconds(1), curve.seconds(target)) * (1 + 1e-9)


@pytest.mark.parametrize("points", [(), ((0, 1.0),), ((2, 1.0), (1, 1.0)), ((1, 1.0), (1, 2.0)), ((1, 0.0),)])
def test_curve_refuses_points_that_mean_nothing(points: tuple[tuple[int, float], ...]) -> None:
    """A wrong curve would steer admission silently."""
    with pytest.raises(ValueError, match="ascending sizes"):
        Curve(points)


def test_measure_runs_the_largest_first_and_takes_the_median() -> None:
    """The backend's memory is at its largest before anything is timed; one slow run does not count."""
    now_ns, order, runs = 0, [], count(1)

    def run(size: int) -> None:
        nonlocal now_ns
        order.append(size)
        now_ns += size * 10_000_000 * (50 if next(runs) == 3 else 1)

    curve = measure_curve(run, (1, 4, 2), clock=lambda: now_ns)

    assert list(dict.fromkeys(order)) == [4, 2, 1]
    assert curve == Curve(((1, 0.01), (2, 0.02), (4, 0.04)))


def test_measure_repeats_a_bounded_number_of_times() -> None:
    """A clock that stands still neither divides by zero nor measures for ever."""
    calls: list[int] = []
    curve = measure_curve(calls.append, (1, 2), clock=lambda: 7)
    assert curve.sizes == (1, 2)
    assert len(calls) <= 40


def test_milliseconds_are_for_a_log_line() -> None:
    """Rounded to what is worth reading."""
    assert Curve(((1, 0.00671234), (2, 0.0154))).milliseconds() == {1: 6.712, 2: 15.4}

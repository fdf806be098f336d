"""How long a lane takes: what the deadline check at admission goes by."""

from __future__ import annotations

from headworks_server.core.estimate import FrameTimes, LaneEstimate
from support.streams import MS


def test_the_first_batch_is_taken_as_it_is_and_later_ones_by_an_eighth() -> None:
    """A change of pace is seen within some ten batches; one slow batch is not believed at once."""
    estimate = LaneEstimate()
    estimate.measured(decode_ns=4 * MS, batch_ns=8 * MS, size=1, now_ns=1)
    assert (estimate.decode_ns, estimate.batch_ns) == (4 * MS, 8 * MS)
    estimate.measured(decode_ns=12 * MS, batch_ns=16 * MS, size=2, now_ns=2)
    assert (estimate.decode_ns, estimate.batch_ns) == (5 * MS, 9 * MS)
    assert estimate.frame_ns == 13 * MS  # 12, and an eighth of the way to 20
    for now_ns in range(3, 60):
        estimate.measured(decode_ns=12 * MS, batch_ns=16 * MS, size=2, now_ns=now_ns)
    assert abs(estimate.decode_ns - 12 * MS) < MS / 10
    assert abs(estimate.batch_ns - 16 * MS) < MS / 10


def test_a_lane_that_has_measured_nothing_promises_now() -> None:
    """No frame is dropped for an estimate that nobody made."""
    assert LaneEstimate().done_ns(FrameTimes(), ahead=9, target=2, now_ns=70) == 70


def test_a_running_batch_that_is_overdue_costs_nothing_more() -> None:
    """What is left of it is never negative."""
    estimate = LaneEstimate()
    estimate.outstanding = 1
    estimate.measured(decode_ns=0, batch_ns=10 * MS, size=1, now_ns=1)
    assert estimate.done_ns(estimate, ahead=0, target=1, now_ns=500 * MS) == 510 * MS


def test_tickets_that_came_back_run_no_more() -> None:
    """With nothing outstanding the lane is idle, and the frame has it to itself."""
    estimate = LaneEstimate()
    estimate.outstanding = 2
    estimate.measured(decode_ns=1 * MS, batch_ns=10 * MS, size=1, now_ns=100 * MS)
    assert estimate.done_ns(estimate, ahead=0, target=1, now_ns=100 * MS) == 121 * MS
    estimate.returned(2)
    assert estimate.done_ns(estimate, ahead=0, target=1, now_ns=100 * MS) == 111 * MS


def test_a_lane_needs_no_slack_where_a_batch_decodes_within_half_of_the_one_before() -> None:
    """Eight frames on eight decoders of 5 ms, a batch of 40 ms: more would wait decoded, and grow old."""
    estimate = LaneEstimate()
    assert estimate.slack(8, 8) == 8  # nothing measured yet
    estimate.measured(decode_ns=5 * MS, batch_ns=40 * MS, size=8, now_ns=1)
    assert estimate.slack(8, 8) == 0
    assert estimate.slack(8, 2) == 0  # four rounds of 5 ms
    assert estimate.slack(8, 1) == 1


def test_a_lane_whose_decoding_is_slow_keeps_all_its_decoders_busy() -> None:
    """A CPU lane decodes as long as it executes; with `target` alone its threads would starve."""
    estimate = LaneEstimate()
    estimate.measured(decode_ns=3 * MS, batch_ns=2 * MS, size=1, now_ns=1)
    assert estimate.slack(2, 2) == 2

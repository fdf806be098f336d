"""Tickets through a device lane with sleeping stand-ins: decoders, ring and dispatcher are the real ones."""

from __future__ import annotations

import gc
import random
import select
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headworks_native.lane import CANCELLED, DEADLINE, DONE, FAILED, CompletionRing
from headworks_native.sleeping import SleepingLane
from support.tickets import (
    BEFORE_BATCH,
    BEFORE_DECODE,
    ENGINE_FAILED,
    UNDECODABLE,
    drain,
    expected_detection,
    ticket,
)


def lane_threads() -> list[str]:
    names = []
    for task in Path("/proc/self/task").iterdir():
        try:
            names.append((task / "comm").read_text().strip())
        except OSError:  # it ended while we looked
            continue
    return [name for name in names if name.startswith("hw-")]


@pytest.fixture
def completions() -> CompletionRing:
    return CompletionRing(256)


@pytest.fixture
def sleeping(completions: CompletionRing) -> Iterator[Callable[..., SleepingLane]]:
    """Makes device lanes, fast unless told otherwise, and sees that no thread of theirs is left."""
    lanes = []

    def make(**options: object) -> SleepingLane:
        defaults = {"decoders": 4, "decode_ms": 0.2, "engine_base_ms": 0.3, "engine_frame_ms": 0.02}
        lanes.append(SleepingLane(completions, **{**defaults, "max_batch": 8, "target": 4, **options}))
        return lanes[-1]

    yield make
    for one in lanes:
        one.close()
    assert lane_threads() == []


class TestDeviceLane:
    def test_each_result_belongs_to_its_frame(self, sleeping, completions):
        """Whatever batches form, a ticket comes back once, with the detection of its own bytes and stamps in order."""
        rng = random.Random(7)
        one = sleeping(slow_fraction=0.1, slow_ms=2.0, seed=7)
        sent = [ticket(rng.randbytes(rng.randint(2, 3000)), width=64, height=48) for _ in range(200)]
        for each in sent:
            one.submit(each)
        back = drain(completions, 200)
        assert set(back) == set(sent)
        for each in back:
            assert each.status == DONE
            assert each.detections == expected_detection(bytes(each.data))
            assert (each.source_width, each.source_height) == (64, 48)
            stamps = [each.decode_started_ns, each.published_ns, each.launched_ns, each.executed_ns, each.completed_ns]
            assert stamps == sorted(stamps)
            assert stamps[0] > 0
            assert 1 <= each.batch_size <= 8
        sizes = one.batch_sizes()
        assert sum(size * count for size, count in sizes.items()) == 200
        assert one.ahead() == 0

    @pytest.mark.parametrize("buffers", [1, 2, 5])
    def test_any_number_of_buffers_serves_every_frame(self, sleeping, completions, buffers):
        """With one buffer decoders wait for it; with more they go on. Nobody waits for ever."""
        one = sleeping(buffers=buffers, max_batch=3, target=3, decoders=6, decode_ms=0.0)
        for _ in range(100):
            one.submit(ticket())
        assert [each.status for each in drain(completions, 100)] == [DONE] * 100

    def test_an_undecodable_picture_never_claims(self, sleeping, completions):
        """It fails alone, leaves no hole in a batch, and takes no position."""
        one = sleeping()
        good, bad = [ticket() for _ in range(20)], [ticket(b"BAD! bytes") for _ in range(20)]
        for pair in zip(good, bad, strict=True):
            for each in pair:
                one.submit(each)
        drain(completions, 40)
        assert {(each.status, each.error_code, each.published_ns) for each in bad} == {(FAILED, UNDECODABLE, 0)}
        assert "BAD!" in bad[0].detail
        assert all(each.status == DONE for each in good)
        assert sum(size * count for size, count in one.batch_sizes().items()) == 20

    def test_a_failed_batch_fails_its_frames_and_the_next_serves(self, sleeping, completions):
        """Failure scope is the batch."""
        one = sleeping(fail_from=1, fail_count=2)
        statuses = []
        for _ in range(4):
            one.submit(ticket())
            (back,) = drain(completions, 1)
            statuses.append((back.status, back.error_code, back.detail))
        failed = [(FAILED, ENGINE_FAILED, f"sleeping engine: batch {n} was told to fail") for n in (1, 2)]
        assert statuses == [(DONE, 0, ""), *failed, (DONE, 0, "")]

    def test_a_frame_cancelled_in_the_queue_is_not_decoded(self, sleeping, completions):
        """Nobody pays for a frame that nobody waits for."""
        one = sleeping()
        each = ticket()
        each.cancelled = True
        one.submit(each)
        assert drain(completions, 1) == [each]
        assert (each.status, each.stage, each.published_ns) == (CANCELLED, BEFORE_DECODE, 0)
        assert one.ahead() == 0

    def test_a_frame_late_before_its_decode_is_not_decoded(self, sleeping, completions):
        """The deadline is looked at before work."""
        one = sleeping()
        each = ticket(deadline_ns=1)
        one.submit(each)
        assert drain(completions, 1) == [each]
        assert (each.status, each.stage, each.published_ns) == (DEADLINE, BEFORE_DECODE, 0)

    def test_a_frame_cancelled_while_it_is_decoded_never_claims(self, sleeping, completions):
        """Cancelling between decode and claim ends it before the batch; the launch is spared."""
        one = sleeping(decoders=2, decode_ms=300)
        first, second = ticket(), ticket()
        one.submit(first)
        one.submit(second)
        first.cancelled = True  # in the queue or in decode: that takes 300 ms
        drain(completions, 2)
        assert (first.status, first.published_ns) == (CANCELLED, 0)
        assert first.stage in (BEFORE_DECODE, BEFORE_BATCH)
        assert second.status == DONE
        assert one.batch_sizes() == {1: 1}

    def test_launch_wakes_the_loop_and_makes_room(self, sleeping, completions):
        """`ahead` falls at the launch, not at the end of the batch, and the loop hears of it."""
        one = sleeping(engine_base_ms=400)
        one.submit(ticket())
        assert one.ahead() == 1
        assert select.select([completions], [], [], 30)[0]
        assert completions.drain() == []
        assert one.ahead() == 0
        drain(completions, 1)

    @pytest.mark.parametrize("buffers", [1, 3])
    def test_shutdown_returns_each_ticket_once_from_every_state(self, sleeping, completions, buffers):
        """Queued, decoding, waiting for room, published, running: the running batch finishes, the rest is cancelled."""
        one = sleeping(buffers=buffers, decoders=6, decode_ms=1, max_batch=2, target=2, engine_base_ms=60)
        sent = [ticket() for _ in range(60)]
        for each in sent:
            one.submit(each)
        back = drain(completions, 2)  # one batch is through, the next runs, decoders wait for room
        one.close()
        back += completions.drain()
        assert len(back) == len(set(back)) == 60
        assert set(back) == set(sent)
        assert {each.status for each in back} == {DONE, CANCELLED}
        assert all(each.launched_ns for each in back if each.status == DONE)
        assert not any(each.launched_ns for each in back if each.status == CANCELLED)
        assert one.ahead() == 0
        assert lane_threads() == []
        one.close()  # idempotent

    def test_a_closed_lane_refuses_and_the_ticket_stays_the_callers(self, sleeping, completions):
        """A refused ticket may be submitted elsewhere, and takes no room in the completion ring."""
        one, other = sleeping(), sleeping()
        one.close()
        each = ticket()
        with pytest.raises(RuntimeError, match="closed"):
            one.submit(each)
        other.submit(each)
        assert drain(completions, 1) == [each]

    def test_a_ticket_is_in_one_lane_at_a_time(self, sleeping, completions):
        """Submitting it again, or once it has its outcome, is refused."""
        one = sleeping(decode_ms=30)
        each = ticket()
        one.submit(each)
        with pytest.raises(RuntimeError, match="already"):
            one.submit(each)
        drain(completions, 1)
        with pytest.raises(RuntimeError, match="pending"):
            one.submit(each)

    def test_more_tickets_than_the_completion_ring_holds_are_refused_at_submit(self):
        """The bound shows where the frame can still be refused, never as a full ring."""
        ring = CompletionRing(3)
        one = SleepingLane(ring, decoders=1, decode_ms=1, engine_base_ms=1, engine_frame_ms=0, max_batch=4, target=1)
        extra = ticket()
        for _ in range(3):
            one.submit(ticket())
        with pytest.raises(OverflowError):
            one.submit(extra)
        drain(ring, 3)
        one.submit(extra)
        assert drain(ring, 1) == [extra]
        one.close()

    def test_a_dropped_lane_stops_its_threads_and_keeps_its_tickets(self, completions):
        """A lane that is only forgotten still hands everything back."""
        one = SleepingLane(
            completions, decoders=2, decode_ms=5, engine_base_ms=5, engine_frame_ms=0, max_batch=2, target=1
        )
        sent = [ticket() for _ in range(20)]
        for each in sent:
            one.submit(each)
        del one
        gc.collect()
        assert lane_threads() == []
        assert set(completions.drain()) == set(sent)

    @pytest.mark.parametrize(
        "wrong",
        [{"decoders": 0}, {"target": 9}, {"target": 0}, {"buffers": 0}, {"max_batch": 0}, {"position_bytes": 0}],
    )
    def test_wrong_options_are_refused_by_name(self, sleeping, wrong):
        with pytest.raises(ValueError, match="expected"):
            sleeping(**wrong)

"""Tickets through a device lane with sleeping stand-ins, and through the CPU form from Python threads."""

from __future__ import annotations

import gc
import os
import random
import select
import struct
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headworks_native import lane
from headworks_native.lane import (
    CANCELLED,
    DEADLINE,
    DONE,
    FAILED,
    PENDING,
    CompletionRing,
    LaneRing,
    SleepingLane,
    Ticket,
    TicketQueue,
)

BEFORE_DECODE, BEFORE_BATCH = 2, 3
UNDECODABLE, ENGINE_FAILED = 1, 4


class Frame:
    """What a loop hangs on a ticket; weakly referable."""


def ticket(payload: bytes = b"picture", **options: object) -> Ticket:
    return Ticket(Frame(), payload, 0, len(payload), **options)


def expected_detection(payload: bytes, position_bytes: int = 1024) -> bytes:
    head = payload[:position_bytes].ljust(position_bytes, b"\0")
    x, y = sum(head) % 65536, int.from_bytes(head[:2], "little")
    return struct.pack("<5fI", x, y, x + 1, y + 1, 0.5, head[0])


def drain(ring: CompletionRing, count: int) -> list[Ticket]:
    """Drain as a loop does, only when woken, until `count` tickets are back."""
    back: list[Ticket] = []
    while len(back) < count:
        assert select.select([ring], [], [], 30)[0], f"a wake-up was lost with {len(back)} of {count} back"
        back += ring.drain()
    return back


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
        rng = random.Random(7)  # noqa: S311
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


class TestCpuForm:
    """One buffer, one Python thread a lane, which is decoder, dispatcher and executor in turn."""

    @staticmethod
    def serve(queue: TicketQueue, completions: CompletionRing, *, most: int) -> None:
        """A CPU lane's thread, with a checksum for a model."""
        ring = LaneRing(buffers=1, max_batch=most, position_bytes=64)
        memory = ring.buffer_memory(0)
        while taken := queue.take(most):
            for each in taken:
                if not each.begin_decode():
                    continue
                if bytes(each.data[:4]) == b"BAD!":
                    each.fail(UNDECODABLE, "expected a picture, got BAD!")
                elif (position := ring.claim(each)) >= 0:
                    memory[position * 64 : position * 64 + 64] = bytes(each.data).ljust(64, b"\0")
                    ring.publish(position)
            buffer, count = ring.close()
            seated = ring.tickets(buffer) if buffer >= 0 else []
            if count:
                ring.launch(buffer)
                sums = [sum(memory[i * 64 : i * 64 + 64]) for i in range(count)]
                ring.drained(buffer)
                for each, total in zip(seated, sums, strict=True):
                    if each.status == PENDING:
                        each.finish(total.to_bytes(24, "little"))
            if buffer >= 0:
                ring.release(buffer)
            for each in taken:
                completions.push(each)

    def test_threads_run_frames_to_completion(self, completions):
        """Two lanes on one queue: every ticket once, its own result, nothing left ahead, threads end at close."""
        rng = random.Random(3)  # noqa: S311
        queue = TicketQueue()
        threads = [threading.Thread(target=self.serve, args=(queue, completions), kwargs={"most": 3}) for _ in range(2)]
        for thread in threads:
            thread.start()
        sent = [ticket(rng.choice([b"", b"BAD!"]) + rng.randbytes(rng.randint(4, 60))) for _ in range(250)]
        for each in sent[::5]:
            each.cancelled = True
        for each in sent:
            queue.push(each)
        back = drain(completions, 250)
        assert set(back) == set(sent)
        for each in back:
            if each.cancelled:
                assert each.status == CANCELLED
            elif bytes(each.data[:4]) == b"BAD!":
                assert (each.status, each.published_ns) == (FAILED, 0)
            else:
                assert (each.status, each.detections) == (DONE, sum(each.data).to_bytes(24, "little"))
        assert queue.ahead() == 0
        assert queue.close() == []
        for thread in threads:
            thread.join(30)
        assert not any(thread.is_alive() for thread in threads)


class TestLaneRing:
    def test_a_batch_with_some_late_frames_runs_with_them(self):
        """Late ones ride along and end as DEADLINE; the others finish. A batch of late frames is not run."""
        ring = LaneRing(buffers=2, max_batch=4, position_bytes=8)
        late, fine = ticket(deadline_ns=100), ticket(deadline_ns=500)
        for each in (late, fine):
            ring.publish(ring.claim(each, now_ns=50), now_ns=50)
        assert ring.close(now_ns=100) == (0, 2)
        assert (late.status, late.stage, fine.status) == (DEADLINE, BEFORE_BATCH, PENDING)
        ring.launch(0, now_ns=101)
        assert (late.batch_size, fine.batch_size) == (2, 2)
        ring.drained(0, now_ns=110)
        ring.release(0)

        also_late, cancelled = ticket(deadline_ns=200), ticket()
        for each in (also_late, cancelled):
            ring.publish(ring.claim(each, now_ns=150), now_ns=150)
        cancelled.cancelled = True
        assert ring.close(now_ns=200) == (1, 0)
        assert (also_late.status, cancelled.status) == (DEADLINE, CANCELLED)
        ring.release(1)
        assert ring.state(1) == "free"

    def test_a_late_or_cancelled_frame_takes_no_position(self):
        """The claim says -1, the status says why, and the next frame gets the position."""
        ring = LaneRing(buffers=1, max_batch=2, position_bytes=8)
        late, cancelled, fine = ticket(deadline_ns=10), ticket(), ticket()
        cancelled.cancelled = True
        assert [ring.claim(each, now_ns=10) for each in (late, cancelled, fine)] == [-1, -1, 0]
        assert [each.status for each in (late, cancelled, fine)] == [DEADLINE, CANCELLED, PENDING]
        assert {late.stage, cancelled.stage} == {BEFORE_BATCH}

    def test_a_full_ring_leaves_the_ticket_pending(self):
        """No room is not an outcome."""
        ring = LaneRing(buffers=1, max_batch=1, position_bytes=8)
        ring.claim(ticket())
        waiting = ticket()
        assert ring.claim(waiting) == -1
        assert waiting.status == PENDING

    def test_close_waits_for_the_last_write(self):
        """A claimed position is never launched before it is published, and others go on in the next buffer."""
        ring = LaneRing(buffers=2, max_batch=2, position_bytes=8)
        slow = ring.claim(ticket())
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(ring.close)
            while ring.state(0) != "closed":  # the other thread is about to wait, or waits
                os.sched_yield()
            assert ring.claim(ticket()) == 2
            assert not ring.settled(0)
            ring.publish(slow)
            assert closing.result(30) == (0, 1)

    def test_memory_is_dense_page_aligned_and_outlives_the_ring(self):
        """A dense prefix is one array, at an address a device can pin."""
        ring = LaneRing(buffers=2, max_batch=3, position_bytes=100)
        memory = ring.buffer_memory(1)
        assert (memory.nbytes, memory.readonly, memory.c_contiguous) == (300, False, True)
        assert ring.region_bytes == 3 * 4096
        del ring
        memory[:] = b"x" * 300
        assert bytes(memory) == b"x" * 300


class TestTicketQueue:
    def test_a_take_never_mixes_seats(self):
        """Consecutive tickets of one seat, in order, at most as many as asked for."""
        a, b = object(), object()
        queue = TicketQueue()
        sent = [ticket(seat=seat) for seat in (a, a, b, a, a, a)]
        for each in sent:
            queue.push(each)
        assert queue.ahead() == 6
        assert [queue.take(2), queue.take(8), queue.take(2), queue.take(2)] == [
            sent[:2],
            [sent[2]],
            sent[3:5],
            [sent[5]],
        ]
        assert queue.take(1, timeout_ms=0) == []
        assert queue.ahead() == 6  # taken is not launched

    def test_close_wakes_the_takers_and_returns_the_rest(self):
        """Nothing is stranded in a closed queue."""
        queue = TicketQueue()
        with ThreadPoolExecutor(3) as pool:
            takers = [pool.submit(queue.take, 1) for _ in range(3)]
            for _ in range(2):
                queue.push(ticket())
            while sum(taker.done() for taker in takers) < 2:
                os.sched_yield()
            assert queue.close() == []
            assert sorted(len(taker.result(30)) for taker in takers) == [0, 1, 1]
        queue = TicketQueue()
        sent = [ticket() for _ in range(3)]
        for each in sent:
            queue.push(each)
        assert queue.close() == sent
        assert queue.ahead() == 0
        assert queue.closed
        assert queue.take(1) == []
        with pytest.raises(RuntimeError, match="closed"):
            queue.push(sent[0])
        assert sent[0].status == PENDING

    def test_many_takers_get_every_ticket_once(self):
        """No wake-up is lost between a push and a taker about to sleep."""
        queue = TicketQueue()
        with ThreadPoolExecutor(4) as pool:

            def take_all() -> list[Ticket]:
                mine = []
                while taken := queue.take(2):
                    mine += taken
                return mine

            takers = [pool.submit(take_all) for _ in range(4)]
            sent = [ticket() for _ in range(3000)]
            for each in sent:
                queue.push(each)
            rest = queue.close()
            got = [each for taker in takers for each in taker.result(30)]
        assert len(got) + len(rest) == len(sent)
        assert {*got, *rest} == set(sent)


class TestCompletionRing:
    def test_one_eventfd_write_for_each_drain(self, completions):
        """However many tickets and launches, the loop is woken once until it drains."""
        sent = [ticket() for _ in range(5)]
        for each in sent:
            each.finish(b"")
            completions.push(each)
        completions.post_launch()
        assert os.eventfd_read(completions.fileno()) == 1
        assert completions.drain() == sent
        completions.post_launch()
        assert os.eventfd_read(completions.fileno()) == 1
        assert completions.drain() == []
        assert completions.drain() == []

    def test_no_wake_up_is_lost_between_threads_and_a_draining_loop(self):
        """A push during a drain is in that drain or makes the eventfd readable again."""
        ring = CompletionRing(4000)
        sent = [[ticket() for _ in range(1000)] for _ in range(4)]

        def push_all(mine: list[Ticket]) -> None:
            for each in mine:
                each.fail(ENGINE_FAILED, "x")
                ring.push(each)

        with ThreadPoolExecutor(4) as pool:
            pushing = [pool.submit(push_all, mine) for mine in sent]
            back = drain(ring, 4000)
            for one in pushing:
                one.result(30)
        assert set(back) == {each for mine in sent for each in mine}
        places = {each: place for place, each in enumerate(back)}
        for mine in sent:
            assert [places[each] for each in mine] == sorted(places[each] for each in mine)

    def test_a_push_out_of_turn_is_refused(self):
        """Pending, twice, or beyond the bound: a lane's bug, told as such."""
        ring = CompletionRing(1)
        each, other = ticket(), ticket()
        with pytest.raises(RuntimeError, match="pending"):
            ring.push(each)
        for one in (each, other):
            one.finish(b"")
        ring.push(each)
        with pytest.raises(RuntimeError, match="already"):
            ring.push(each)
        with pytest.raises(OverflowError, match="outstanding"):
            ring.push(other)
        assert ring.drain() == [each]
        ring.push(other)
        assert ring.drain() == [other]


class TestTicket:
    def test_the_payload_is_not_copied_and_must_lie_in_its_owner(self):
        owner = b"....payload"
        each = Ticket("frame", owner, 4, 7, encoding=2, width=3, height=4, score_threshold=0.25, max_detections=9)
        assert each.data == b"payload"
        assert each.data.obj is owner
        assert (each.frame, each.encoding, each.width, each.height) == ("frame", 2, 3, 4)
        assert (each.score_threshold, each.max_detections, each.deadline_ns) == (0.25, 9, 0)
        for offset, length in ((4, 8), (12, 0), (0, 12), (2**63, 2**63)):
            with pytest.raises(ValueError, match="within 11 bytes"):
                Ticket("frame", owner, offset, length)

    def test_a_ticket_is_concluded_once(self):
        """Exactly one outcome a frame, here too."""
        each = ticket()
        each.finish(b"")
        for conclude in (lambda: each.finish(b""), lambda: each.fail(1, ""), each.cancel):
            with pytest.raises(RuntimeError, match="pending"):
                conclude()

    @pytest.mark.parametrize("left_in", ["queue", "completions", "nothing"])
    def test_nothing_keeps_a_ticket_that_the_loop_let_go(self, left_in):
        """Native holders own one reference each and give it up when drained, or when they go themselves."""
        queue, ring = TicketQueue(), CompletionRing(4)
        frame = Frame()
        each = Ticket(frame, b"x", 0, 1)
        gone = weakref.ref(frame)
        queue.push(each)
        if left_in != "queue":
            queue.take(1)
            each.finish(b"")
            ring.push(each)
        if left_in == "nothing":
            assert ring.drain() == [each]
        del each, frame, queue, ring
        gc.collect()
        assert gone() is None

    def test_the_numbers_are_those_of_the_contract(self):
        """Stages and codes that native code writes are those that core tells to clients."""
        from headworks_server.core.outcomes import DropStage, FrameErrorCode

        assert (DropStage.BEFORE_DECODE, DropStage.BEFORE_BATCH) == (BEFORE_DECODE, BEFORE_BATCH)
        assert (FrameErrorCode.UNDECODABLE, FrameErrorCode.ENGINE_FAILED) == (UNDECODABLE, ENGINE_FAILED)
        assert [getattr(lane, name) for name in ("PENDING", "DONE", "FAILED", "DEADLINE", "CANCELLED")] == [*range(5)]

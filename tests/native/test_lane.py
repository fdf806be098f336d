"""Tickets, the queue into a lane, and the ring that brings them back."""

from __future__ import annotations

import gc
import os
import weakref
from concurrent.futures import ThreadPoolExecutor

import pytest

from headworks_native import lane
from headworks_native.lane import DONE, PENDING, CompletionRing, Ticket, TicketQueue
from support.tickets import (
    BEFORE_BATCH,
    BEFORE_DECODE,
    ENGINE_FAILED,
    UNDECODABLE,
    Frame,
    drain,
    ticket,
)


@pytest.fixture
def completions() -> CompletionRing:
    return CompletionRing(256)


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

    def test_a_ticket_is_finished_in_the_form_it_asks_for(self):
        """Detections unless it says otherwise; another form's value is told as it is."""
        assert (ticket().form, ticket().value) == (1, b"")
        each = ticket(form=3)
        each.finish(b"", b"tensors")
        assert (each.form, each.detections, each.value, each.status) == (3, b"", b"tensors", DONE)

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

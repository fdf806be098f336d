"""The ring of batch buffers as a CPU lane's Python thread drives it."""

from __future__ import annotations

import os
import random
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from headworks_native.lane import CANCELLED, DEADLINE, DONE, FAILED, PENDING, CompletionRing, TicketQueue
from headworks_native.ring import LaneRing
from support.tickets import (
    BEFORE_BATCH,
    UNDECODABLE,
    drain,
    ticket,
)


@pytest.fixture
def completions() -> CompletionRing:
    return CompletionRing(256)


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
        rng = random.Random(3)
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

    def test_recover_frees_a_ring_whose_thread_stumbled(self):
        """A claim that was never published blocks no later batch, and its ticket is not lost."""
        ring = LaneRing(buffers=2, max_batch=2, position_bytes=8)
        running, written, unwritten = ticket(), ticket(), ticket()
        ring.publish(ring.claim(running))
        ring.launch(ring.close()[0])
        ring.publish(ring.claim(written))
        ring.claim(unwritten)
        assert ring.recover() == [running, written, unwritten]
        assert sorted(ring.state(buffer) for buffer in range(2)) == ["free", "open"]
        ring.publish(ring.claim(unwritten))
        assert ring.close()[1] == 1

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
